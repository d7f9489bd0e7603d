//! `holdfast lab up` and `lab down`, as somebody meets them who has the built program and lab.json.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A lab is to be up within this time, on two cores and with debug builds.
const UP_WITHIN: Duration = Duration::from_secs(60);
/// How long anything else may take before the test says that it never came.
const DEADLINE: Duration = Duration::from_secs(30);

/// The program, built by cargo beside the tests.
fn holdfast() -> PathBuf {
    let tests = std::env::current_exe().expect("the test knows where it is");
    let profile = tests.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
    let program = profile.join("holdfast");
    assert!(program.is_file(), "{} is not built: cargo build --workspace", program.display());
    program
}

fn lab(args: &[&str], dir: &Path) -> Output {
    let mut command = Command::new(holdfast());
    command.arg("lab").args(args).arg("--dir").arg(dir);
    command.output().expect("holdfast runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Ends the lab also when the test fails.
struct Down(PathBuf);

impl Drop for Down {
    fn drop(&mut self) {
        let output = lab(&["down"], &self.0);
        if !output.status.success() && !std::thread::panicking() {
            panic!("lab down failed: {}", stderr(&output));
        }
    }
}

fn read_lab(dir: &Path) -> Value {
    serde_json::from_slice(&fs::read(dir.join("lab.json")).expect("lab.json is there")).expect("lab.json is JSON")
}

/// Every object that describes a process, at any depth.
fn processes(value: &Value) -> Vec<&Value> {
    let mut found = Vec::new();
    let mut left = vec![value];
    while let Some(value) = left.pop() {
        match value {
            Value::Object(members) => {
                found.extend(members.contains_key("pid").then_some(value));
                left.extend(members.values());
            }
            Value::Array(items) => left.extend(items),
            _ => {}
        }
    }
    found
}

fn pid(process: &Value) -> u32 {
    process["pid"].as_u64().and_then(|pid| pid.try_into().ok()).expect("a pid")
}

/// Whether a process runs: one whose exit status waits for its parent does not.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn program_of(pid: u32) -> String {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).expect("the process runs");
    exe.file_name().expect("a program has a name").to_string_lossy().into_owned()
}

/// `127.0.0.1:port` of a URL.
fn address(url: &Value) -> SocketAddr {
    let url = url.as_str().expect("a URL");
    let rest = url.split_once("://").expect("a scheme").1;
    rest.split('/').next().expect("an authority").parse().expect("an address of 127.0.0.1")
}

fn until(what: &str, mut seen: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !seen() {
        assert!(Instant::now() < deadline, "never seen: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill runs").success());
}

/// Starts a process of the lab again, as lab.json says.
fn start_again(dir: &Path, process: &Value) -> Child {
    let argv: Vec<String> = serde_json::from_value(process["start"].clone()).expect("an argv");
    let env: BTreeMap<String, String> = serde_json::from_value(process["env"].clone()).expect("an environment");
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).envs(env).current_dir(dir).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts again")
}

/// What a node says of itself, over a connection that its CA vouches for.
fn seal_status(lab: &Value, node: &Value) -> Option<Value> {
    // Another test of this process may have installed it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ca = fs::read(lab["ca_cert"].as_str().expect("a path")).expect("the CA is there");
    let ca = reqwest::Certificate::from_pem(&ca).expect("a certificate");
    let client = reqwest::Client::builder().tls_certs_only([ca]).no_proxy().timeout(Duration::from_secs(2));
    let url = format!("{}/v1/sys/seal-status", node["url"].as_str().expect("a URL"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { client.build().expect("a client").get(url).send().await.ok()?.json().await.ok() })
}

fn is_open(lab: &Value, node: &Value) -> bool {
    seal_status(lab, node).is_some_and(|status| status["sealed"] == false)
}

#[test]
fn a_lab_comes_up_opens_what_crashed_and_goes_down() {
    let folder = tempfile::tempdir().expect("a folder");
    // A space in the path, as people have.
    let dir = folder.path().join("my lab");
    let began = Instant::now();
    let output = lab(&["up"], &dir);
    let down = Down(dir.clone());
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(began.elapsed() < UP_WITHIN, "up took {:?}: {}", began.elapsed(), stderr(&output));

    let json = read_lab(&dir);
    what_is_promised(&json);
    let refused = lab(&["up"], &dir);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("lab down"), "{}", stderr(&refused));

    // A node and the broker die and are started again by somebody else, with the argv and environment of lab.json.
    let mut again = Vec::new();
    let (node, broker) = (&json["vault"][0], &json["broker"]);
    for process in [broker, node] {
        kill("-KILL", pid(process));
        let port = address(&process["url"]);
        until("the port is free", || TcpStream::connect(port).is_err());
        let mut child = start_again(&dir, process);
        until("it listens again", || {
            assert!(child.try_wait().expect("it can be asked").is_none(), "it did not start again");
            TcpStream::connect(port).is_ok()
        });
        assert_eq!(program_of(child.id()), program_of_role(process));
        again.push(child);
    }
    until("the crashed node is open again", || is_open(&json, node));

    // `down` ends what `up` started, and only that, unless it is asked for more.
    let output = lab(&["down", "--json"], &dir);
    assert!(output.status.success(), "{}", stderr(&output));
    for process in processes(&json) {
        assert!(!runs(pid(process)), "still running: {process}");
    }
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    for child in &mut again {
        assert!(child.try_wait().expect("it can be asked").is_none(), "down ended what up had not started");
        let told = report["others"].as_array().expect("a list").iter().any(|other| other["pid"] == child.id());
        assert!(told, "{} still runs, and nobody was told: {report}", child.id());
    }
    let refused = lab(&["up"], &dir);
    assert_eq!(refused.status.code(), Some(1), "a folder was emptied under a running server");
    let output = lab(&["down", "--restarted"], &dir);
    assert!(output.status.success(), "{}", stderr(&output));
    for mut child in again {
        until("it has ended", || child.try_wait().expect("it can be asked").is_some());
    }
    let output = lab(&["down"], &dir);
    assert!(output.status.success() && stderr(&output).contains("nothing"), "{}", stderr(&output));
    drop(down);
}

/// Everything that the contract says of a lab that is up.
fn what_is_promised(json: &Value) {
    assert_eq!(json["cluster"], "lab");
    let list = |key: &str| json[key].as_array().unwrap_or_else(|| panic!("{key} is no list")).clone();
    let counts = ["vault", "custodians", "operators"].map(|key| list(key).len());
    assert_eq!(counts, [3, 5, 2]);
    for process in processes(json) {
        assert!(runs(pid(process)), "not running: {process}");
        assert_eq!(program_of(pid(process)), program_of_role(process), "the pid is a wrapper's: {process}");
        assert!(Path::new(process["log"].as_str().expect("a log")).is_file(), "no log: {process}");
    }
    for node in list("vault") {
        assert!(is_open(json, &node), "not open: {node}");
    }
    TcpStream::connect(address(&json["broker"]["url"])).expect("the broker answers");
    TcpStream::connect(address(&json["sentinel"]["url"])).expect("the sentinel answers");

    let (broker, custodian) = (&json["broker"], &json["custodians"][0]);
    let public =
        [&json["ca_cert"], &json["allowed_signers"], &json["manifest"], &broker["ca_cert"], &custodian["config"]];
    for file in public.into_iter().chain([&json["operator_config"], &json["sentinel"]["config"]]) {
        assert!(Path::new(file.as_str().expect("a path")).is_file(), "{file}");
    }
    let secret = [&json["root_token_file"], &broker["admin_password_file"], &json["operators"][0]["key"]];
    for file in secret.into_iter().chain([&json["operators"][1]["key"]]) {
        let mode = fs::metadata(file.as_str().expect("a path")).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert!(Path::new(custodian["state_dir"].as_str().expect("a path")).is_dir());
}

/// The program that a process of lab.json has to be.
fn program_of_role(process: &Value) -> String {
    let started = Path::new(process["start"][0].as_str().expect("a program")).file_name().expect("a name");
    // The broker's start script replaces itself by Erlang.
    started.to_string_lossy().replace("rabbitmq-server", "beam.smp")
}

#[test]
fn an_interrupted_lab_leaves_nothing_running() {
    let folder = tempfile::tempdir().expect("a folder");
    for (signal, cleans_up) in [("-INT", true), ("-KILL", false)] {
        let dir = folder.path().join(&signal[1..]);
        let mut command = Command::new(holdfast());
        command.args(["lab", "up", "--dir"]).arg(&dir).stdout(Stdio::null()).stderr(Stdio::null());
        let mut up = command.spawn().expect("holdfast runs");
        // Its own note of what it started is the only one there is so early.
        let mut started = Vec::new();
        until("the servers were started", || {
            let note = fs::read(dir.join(".processes.json")).unwrap_or_default();
            let note: Value = serde_json::from_slice(&note).unwrap_or_default();
            started = processes(&note).iter().map(|process| pid(process)).collect();
            assert!(up.try_wait().expect("it can be asked").is_none(), "up ended by itself");
            started.len() >= 3
        });
        let down = Down(dir.clone());
        kill(signal, up.id());
        assert!(!up.wait().expect("up ends").success());
        if !cleans_up {
            assert!(started.iter().any(|&pid| runs(pid)), "a killed `up` cannot have ended them");
            let output = lab(&["down"], &dir);
            assert!(output.status.success(), "{}", stderr(&output));
        }
        for pid in started {
            assert!(!runs(pid), "{pid} still runs after {signal}");
        }
        assert!(!dir.join("lab.json").exists(), "half a lab was given out as a lab");
        drop(down);
    }
}

#[test]
fn a_folder_that_is_no_labs_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("thesis.txt"), "years of work").expect("written");
    for command in [["up", "--no-broker"].as_slice(), &["down"]] {
        let output = lab(command, folder.path());
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(!stderr(&output).is_empty());
    }
    assert_eq!(fs::read(folder.path().join("thesis.txt")).expect("still there"), b"years of work");
    assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1, "something was put beside it");
}

#[test]
fn wrong_usage_is_told_from_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("lab");
    let refused: [&[&str]; 6] = [
        &["up", "--sentinels", "0"],
        &["up", "--custodians", "0"],
        &["up", "--nodes", "200"],
        &["up", "--threshold", "many"],
        &["up", "--custodians", "2", "--threshold", "3"],
        &["up", "--threshold", "1"],
    ];
    for args in refused {
        let output = lab(args, &dir);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
    }
    assert!(!dir.exists(), "a refused command left something behind");
}

#[test]
fn a_server_that_does_not_start_is_named_with_the_end_of_its_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = folder.path().join("bao");
    fs::write(&fake, "#!/bin/sh\necho the moon is in the wrong phase >&2\nexit 3\n").expect("written");
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).expect("made executable");
    let mut command = Command::new(holdfast());
    command.args(["lab", "up", "--no-broker", "--dir"]).arg(folder.path().join("lab")).env("HOLDFAST_BAO", &fake);
    let output = command.output().expect("holdfast runs");
    assert_eq!(output.status.code(), Some(1));
    for part in ["vault-", "exit status: 3", "the moon is in the wrong phase"] {
        assert!(stderr(&output).contains(part), "{part:?} is missing from: {}", stderr(&output));
    }
}

#[test]
fn labs_side_by_side_do_not_meet() {
    let folder = tempfile::tempdir().expect("a folder");
    let dirs = [folder.path().join("one"), folder.path().join("two")];
    let small = ["up", "--no-broker", "--nodes", "1", "--custodians", "2", "--threshold", "2", "--sentinels", "2"];
    let ups = dirs.clone().map(|dir| std::thread::spawn(move || lab(&small, &dir)));
    for up in ups {
        let output = up.join().expect("joined");
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let [first, second] = dirs.clone().map(Down);
    let [one, two] = dirs.map(|dir| read_lab(&dir));
    assert!(one["broker"].is_null());
    assert!(is_open(&one, &one["vault"][0]) && is_open(&two, &two["vault"][0]));
    assert_ne!(one["vault"][0]["url"], two["vault"][0]["url"]);
    let sentinels = one["sentinels"].as_array().expect("a list");
    assert!(sentinels.len() == 2 && sentinels[0] == one["sentinel"], "{sentinels:?}");
    let ids = sentinels.iter().map(|sentinel| (sentinel["id"].as_str().expect("an id"), runs(pid(sentinel))));
    assert_eq!(ids.collect::<Vec<_>>(), [("sentinel-1", true), ("sentinel-2", true)]);
    drop(first);
    assert!(runs(pid(&two["vault"][0])), "one lab's end was another's");
    assert!(!sentinels.iter().any(|sentinel| runs(pid(sentinel))), "`down` left a sentinel");
    drop(second);
}
