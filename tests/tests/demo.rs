//! `holdfast demo`, as somebody meets it who runs it where nobody looks: what it says, when it fails, and what it leaves.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use holdfast_tests::processes::{Signal, signal};
use holdfast_tests::programs::{program, tool};
use holdfast_tests::wait::until;
use serde_json::Value;

/// The tour is to take two minutes at most, behind a minute for the lab; a busy machine gets as much again.
const DEADLINE: Duration = Duration::from_secs(360);

/// What is claimed, as the table at the end has it.
const CLAIMS: [&str; 7] = [
    "A crashed node opens by itself",
    "Also without broker and two custodians",
    "Sealed by hand, it stays sealed",
    "Too few custodians open nothing",
    "A drill shows that the keys are there",
    "No drill while somebody holds a node",
    "Nobody listens on a custodian",
];

/// A folder for temporary folders, so that what the demo leaves behind is seen.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn demo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("holdfast"));
        command.arg("demo").args(args).env("TMPDIR", self.0.path()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What is left in it.
    fn left(&self) -> Vec<PathBuf> {
        fs::read_dir(self.0.path()).expect("listed").map(|entry| entry.expect("readable").path()).collect()
    }

    /// The processes that were started with a file of this place: every server and every daemon of a lab is.
    fn running(&self) -> Vec<String> {
        let place = self.0.path().to_str().expect("text").as_bytes();
        let pids =
            fs::read_dir("/proc").expect("listed").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let command = |pid: String| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let ours = pids.map(command).filter(|words| words.windows(place.len()).any(|part| part == place));
        ours.map(|words| String::from_utf8_lossy(&words).replace('\0', " ")).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A demo that a failed test left in the middle.
        for dir in self.left() {
            let _ = Command::new(program("holdfast")).args(["lab", "down", "--dir"]).arg(dir).output();
        }
    }
}

/// Waits for the end; kills what does not come to one.
fn finish(mut demo: Child) -> Output {
    let deadline = Instant::now() + DEADLINE;
    let mut stdout = demo.stdout.take().expect("piped");
    let mut stderr = demo.stderr.take().expect("piped");
    let said = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).map(|_| bytes)
    });
    let complained = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.read_to_end(&mut bytes).map(|_| bytes)
    });
    let status = loop {
        if let Some(status) = demo.try_wait().expect("it can be asked") {
            break status;
        }
        if Instant::now() > deadline {
            signal(demo.id(), Signal::TERM);
            break demo.wait().expect("it ends");
        }
        std::thread::park_timeout(Duration::from_millis(50));
    };
    let stdout = said.join().expect("joined").expect("read");
    let stderr = complained.join().expect("joined").expect("read");
    Output { status, stdout, stderr }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn every_claim_is_seen_to_hold() {
    let place = Place::new();
    let output = finish(place.demo(&[]).spawn().expect("holdfast runs"));
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", text(&output.stderr));
    for claim in CLAIMS {
        let row = shown.lines().find(|line| line.starts_with('✓') && line.contains(claim));
        assert!(row.is_some(), "no line tells that this held: {claim}\n{shown}");
    }
    for row in shown.lines().filter(|line| line.starts_with('✓')).take(5) {
        assert!(row.trim_end().ends_with("ms"), "a claim without its milliseconds: {row}");
    }
    assert_eq!(shown.matches('✗').count(), 0, "{shown}");
    // What status says about the node that was sealed by hand: why, and what to type.
    for part in [
        "in-place",
        "approvals, 0 of 1",
        "sealed on purpose",
        "holdfast approve",
        "margin -1",
        ": passed: open after",
        "refused: ",
    ] {
        assert!(shown.contains(part), "{part:?} is missing:\n{shown}");
    }
    let control = shown.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(control, None, "a control character where there is no terminal");
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "too wide:\n{shown}");
    assert_eq!(place.left(), Vec::<PathBuf>::new(), "the demo's folder is left");
    assert_eq!(place.running(), Vec::<String>::new());
}

#[test]
fn a_claim_that_does_not_hold_is_told_and_the_logs_are_kept() {
    let place = Place::new();
    let mut demo = place.demo(&["--json"]).spawn().expect("holdfast runs");
    // The tour is told on stderr then. As soon as the node is sealed, somebody approves behind the demo's back.
    let mut lines = BufReader::new(demo.stderr.take().expect("piped")).lines();
    let mut told = String::new();
    for line in lines.by_ref() {
        let line = line.expect("text");
        told += &format!("{line}\n");
        if told.contains("/v1/sys/seal") && line.contains("answers: it is sealed") {
            break;
        }
    }
    let dir = place.left().pop().expect("the lab's folder");
    let bob = dir.join("operators/bob.toml");
    let words = ["approve", "--no-wait", "--node", "vault-1", "--config", bob.to_str().expect("text")];
    tool(program("holdfast").to_str().expect("text"), &words);
    for line in lines {
        told += &format!("{}\n", line.expect("text"));
    }
    let mut report = Vec::new();
    demo.stdout.take().expect("piped").read_to_end(&mut report).expect("read");
    assert_eq!(demo.wait().expect("it ends").code(), Some(1), "{told}");

    let report: Value = serde_json::from_slice(&report).expect("a report");
    assert_eq!(report["held"], false);
    let held: Vec<_> = report["claims"].as_array().expect("claims").iter().map(|claim| &claim["held"]).collect();
    let tried = [Value::Bool(true), Value::Bool(true), Value::Bool(false)];
    assert!(held.iter().copied().eq(tried.iter().chain(std::iter::repeat_n(&Value::Null, 4))), "{held:?}");
    let claims: Vec<_> = report["claims"].as_array().expect("claims").iter().map(|claim| &claim["claim"]).collect();
    assert_eq!(claims, CLAIMS);
    for part in ["This did not hold: Sealed by hand, it stays sealed", "vault-1 is open", "not tried"] {
        assert!(told.contains(part), "{part:?} is missing:\n{told}");
    }
    let logs = dir.join("log");
    assert!(told.contains(logs.to_str().expect("text")) && logs.join("vault-1.log").is_file(), "{told}");
    assert_eq!(place.running(), Vec::<String>::new());
}

#[test]
fn interrupted_it_leaves_nothing() {
    let place = Place::new();
    let demo = place.demo(&[]).spawn().expect("holdfast runs");
    until("servers are started", || place.running().len() >= 3);
    signal(demo.id(), Signal::INT);
    let output = finish(demo);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("Interrupted"), "{}", text(&output.stdout));
    assert_eq!(place.left(), Vec::<PathBuf>::new());
    assert_eq!(place.running(), Vec::<String>::new());
}

#[test]
fn a_lab_that_does_not_come_up_is_no_claim_that_held() {
    let place = Place::new();
    let output = finish(place.demo(&[]).env("HOLDFAST_BAO", "/nonexistent/bao").spawn().expect("holdfast runs"));
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(shown.contains("did not come up") && shown.contains("/nonexistent/bao"), "{shown}");
    assert_eq!(shown.matches('✓').count(), 0, "{shown}");

    fs::write(place.0.path().join("thesis.txt"), "years of work").expect("written");
    let theirs = place.0.path().to_str().expect("text");
    let output = finish(place.demo(&["--dir", theirs]).spawn().expect("holdfast runs"));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no lab's"), "{}", text(&output.stderr));
    assert_eq!(fs::read(place.0.path().join("thesis.txt")).expect("still there"), b"years of work");
}
