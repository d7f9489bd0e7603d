//! The audit logs of a real network, in the hands of somebody who wants to hide something, and on disks that are full: what the
//! custodian finds, what the sentinel remembers, what `holdfast audit verify` names, and that nothing is released that is not on disk.

#![expect(clippy::print_stdout, reason = "what a test measured is read where it ran")]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_tests::lab::Lab;
use holdfast_tests::processes::Signal;
use holdfast_tests::programs::{Said, repository, run, tool};
use holdfast_tests::wait::{always, until, until_some, until_within};
use serde_json::Value;

/// A change of a log is known to the sentinel within this time: a look a second, the check, and the heartbeat that is sent at once.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);

/// A disk that is full is known within this time though there is nothing to record.
const KNOWN_AT_REST: Duration = Duration::from_secs(75);

/// How long a node stays sealed for want of a record.
const SAMPLE: Duration = Duration::from_secs(5);

/// The size of the small disk: state and log of a lab fit into it a hundred times.
const DISK: &str = "1m";

#[test]
fn nobody_changes_an_audit_log_without_somebody_else_knowing() {
    let mut lab = Lab::up(&[]);
    lab.scenario("one byte of a running custodian's log", one_byte_is_changed);
    lab.scenario("a log that is deleted while it is written", the_log_is_deleted);
    lab.scenario("a log that is cut while nobody writes it", the_end_is_cut_off);
    lab.scenario("a log that is written anew", the_log_is_written_anew);
    lab.scenario("what a person can ask", what_a_person_can_ask);
}

fn one_byte_is_changed(lab: &mut Lab) {
    let custodian = "custodian-2";
    let log = log_of(lab, custodian);
    let before = fs::read_to_string(&log).expect("a log");
    let third: usize = before.lines().take(2).map(|line| line.len() + 1).sum();
    let at = third + before[third..].find("\"entry\":{\"what\":\"").expect("an entry") + 17;
    let byte = before.as_bytes()[at] ^ 1;
    OpenOptions::new().write(true).open(&log).and_then(|file| file.write_all_at(&[byte], at as u64)).expect("changed");
    let took = until_within(KNOWN_WITHIN, "the metric shows it", || audit_ok(lab, custodian) == Some(0));
    println!("        shown by the metric after {} ms", took.as_millis());

    let said = verify(&[state_dir(lab, custodian).as_path()], &[]);
    assert_eq!(said.code, Some(1), "{}", said.out);
    for part in ["line 3 (entry 3)", "it was changed after it was written", "It means", "Do this"] {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
    assert_eq!(lab.heartbeat(custodian)["audit"]["broken"], 3);
    let status = lab.holdfast(&["status"]).out;
    assert!(status.contains("The audit log of custodian-2 is not what was written: entry 3"), "{status}");
    let page = lab.read_sentinel("/").expect("a page");
    assert!(page.contains("The audit log of custodian-2"), "the page tells as well");
    let own = fs::read_to_string(lab.path(&lab.custodian(custodian).process.log)).expect("its log");
    assert!(own.contains("line 3 (entry 3)"), "its own log names the line");

    // It goes on opening nodes, and on recording that: the share of a custodian is not the attacker's to switch off.
    for other in ["custodian-4", "custodian-5"] {
        lab.signal(other, Signal::STOP);
    }
    lab.crash_patiently("vault-1", Duration::from_secs(20)).expect("three are enough, and it is one of them");
    for other in ["custodian-4", "custodian-5"] {
        lab.signal(other, Signal::CONT);
    }
    let after = fs::read_to_string(&log).expect("the new log");
    assert!(after.contains(r#""kind":"log-damaged""#) && after.contains(r#""kind":"release""#), "{after}");
    lab.settle();

    // Still so after a restart, and until the evidence is carried away.
    lab.restart(custodian);
    until("it finds that again", || {
        lab.is_of_now(custodian, &lab.heartbeat(custodian)) && lab.heartbeat(custodian)["audit"]["broken"] == 3
    });
    let carried = carry_away(lab, custodian);
    until("it is whole again", || lab.heartbeat(custodian)["audit"]["ok"] == true);
    let all = [carried.as_path(), &state_dir(lab, custodian)];
    assert!(verify(&all, &[]).out.contains("line 3 (entry 3)"), "the evidence tells what it told");
    let rest = verify(&all[1..], &[]).well();
    assert!(rest.out.contains("are not in these files"), "{}", rest.out);
    let rest: Value = serde_json::from_str(&verify(&all[1..], &["--json".to_owned()]).well().out).expect("JSON");
    let follows = rest["log"]["follows"].as_str().expect("what was before").to_owned();
    verify(&all[1..], &["--head".to_owned(), follows.clone()]).well();
    let other = verify(
        &all[1..],
        &["--head".to_owned(), format!("{}:{}", follows.split(':').next().expect("a number"), "0".repeat(64))],
    );
    assert_eq!(other.code, Some(1), "it goes on after another log than that: {}", other.out);

    // The sentinel does not take the custodian's word for that, nor forget it with a restart: operators accept it.
    assert_eq!(audit_ok(lab, custodian), Some(0));
    lab.restart("sentinel");
    until("the sentinel hears it again", || audit_ok(lab, custodian).is_some());
    assert_eq!(audit_ok(lab, custodian), Some(0));
    accept(lab, custodian);
}

fn the_log_is_deleted(lab: &mut Lab) {
    let custodian = "custodian-5";
    let log = log_of(lab, custodian);
    fs::remove_file(&log).expect("deleted");
    until_within(KNOWN_WITHIN, "the metric shows it", || audit_ok(lab, custodian) == Some(0));
    assert_eq!(lab.heartbeat(custodian)["audit"]["broken"], 1);
    assert!(fs::read_to_string(&log).expect("a new one").contains(r#""what":"gone""#));
    // There is nothing to carry away. The next start takes it as it is.
    lab.restart(custodian);
    until("it begins with what is there", || {
        lab.is_of_now(custodian, &lab.heartbeat(custodian)) && lab.heartbeat(custodian)["audit"]["ok"] == true
    });
    accept(lab, custodian);
}

fn the_end_is_cut_off(lab: &mut Lab) {
    let custodian = "custodian-3";
    let log = log_of(lab, custodian);
    lab.stop(custodian);
    let text = fs::read_to_string(&log).expect("a log");
    let keep: Vec<_> = text.lines().collect();
    let entries = keep.len();
    fs::write(&log, format!("{}\n", keep[..entries - 2].join("\n"))).expect("cut");
    let missing = format!("entry {}", entries - 1);
    let config = lab.path(&lab.custodian(custodian).config);
    let check =
        run("holdfast-custodian", &[Path::new("check"), Path::new("--offline"), Path::new("--config"), &config]);
    assert!(check.out.contains(&missing) && check.out.contains("is missing"), "{}", check.out);
    let words = ["--custodian", custodian];
    let said = verify(&[&log], &with_config(lab, &words));
    assert!(
        said.code == Some(1) && said.out.contains(&missing) && said.out.contains("It does not have entry"),
        "{}",
        said.out
    );

    lab.start(custodian);
    until("it says so", || lab.heartbeat(custodian)["audit"]["broken"] == entries as u64 - 1);
    assert!(
        lab.heartbeat(custodian)["audit"]["seq"].as_u64() > Some(entries as u64),
        "it goes on counting where it was"
    );
    carry_away(lab, custodian);
    until("it is whole again", || lab.heartbeat(custodian)["audit"]["ok"] == true);
    accept(lab, custodian);
}

/// Somebody who deletes what the custodian remembers, too: nobody on the host knows, and the sentinel does.
fn the_log_is_written_anew(lab: &mut Lab) {
    let custodian = "custodian-4";
    let told = until_some("the sentinel knows where it stands", || {
        lab.status()["custodians"][custodian]["audit"]["seq"].as_u64().filter(|seq| *seq > 8)
    });
    lab.stop(custodian);
    for entry in fs::read_dir(state_dir(lab, custodian)).expect("a folder").flatten() {
        if entry.file_name().to_string_lossy().starts_with("audit.") {
            fs::remove_file(entry.path()).expect("deleted");
        }
    }
    lab.start(custodian);
    until("the metric shows it", || audit_ok(lab, custodian) == Some(0));
    assert_eq!(lab.heartbeat(custodian)["audit"]["ok"], true, "the custodian itself has no idea");
    let doubt = lab.status()["custodians"][custodian]["audit"]["doubt"].clone();
    assert!(doubt["what"] == "shorter" && doubt["told"].as_u64() >= Some(told), "{doubt}");
    lab.restart("sentinel");
    until("the sentinel hears it again", || audit_ok(lab, custodian).is_some());
    let status = lab.holdfast(&["status"]).out;
    assert!(
        status.contains("custodian-4 told of") && status.contains("its end was cut off, or it was written anew"),
        "{status}"
    );
    let said = verify(&[&log_of(lab, custodian)], &with_config(lab, &["--custodian", custodian]));
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.out.contains(&format!("It does not have entry {} ", doubt["told"])), "{}", said.out);
    accept(lab, custodian);
}

fn what_a_person_can_ask(lab: &mut Lab) {
    let log = log_of(lab, "custodian-1");
    let said = verify(&[&log], &with_config(lab, &["--custodian", "custodian-1"])).well();
    assert!(
        said.out.contains("✓ The audit log is whole: entries 1 to") && said.out.contains("✓ It has entry"),
        "{}",
        said.out
    );
    let said = verify(&[&log], &["--json".to_owned()]).well();
    let answer: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!((&answer["whole"], &answer["log"]["begins"]), (&Value::Bool(true), &Value::from(1)));
    // Without its first lines it is not a file of the log, whatever the chain says.
    let text = fs::read_to_string(&log).expect("a log");
    let headless = lab.dir().join("headless.jsonl");
    fs::write(&headless, text.lines().skip(2).map(|line| format!("{line}\n")).collect::<String>()).expect("written");
    let said = verify(&[&headless], &[]);
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.out.contains("line 1 (entry 3): no file of the log begins with it"), "{}", said.out);
    let head = format!("{}:{}", answer["log"]["ends"], answer["log"]["head"].as_str().expect("a digest"));
    verify(&[&log], &["--head".to_owned(), head.clone()]).well();
    let digit = if head.ends_with('0') { "1" } else { "0" };
    let other = format!("{}{digit}", &head[..head.len() - 1]);
    let said = verify(&[&log], &["--head".to_owned(), other]);
    assert!(said.code == Some(1) && said.out.contains("written anew"), "{}", said.out);
    let another = verify(&[&log_of(lab, "custodian-2")], &with_config(lab, &["--custodian", "custodian-1"]));
    assert_eq!(another.code, Some(1), "another custodian's log: {}", another.out);
    for (args, code) in [(vec!["--head", "12"], 2), (vec!["--head", "0:00"], 2), (vec!["--cluster", "lab"], 2)] {
        let args: Vec<_> = args.into_iter().map(str::to_owned).collect();
        assert_eq!(verify(&[&log], &args).code, Some(code), "{args:?}");
    }
    let nothing = verify(&[&lab.dir().join("no-such-file")], &[]);
    assert!(nothing.code == Some(1) && nothing.err.contains("no-such-file"), "{}", nothing.err);
    let config = verify(&[&log], &["--custodian", "custodian-1", "--config", "no-such.toml"].map(str::to_owned));
    assert_eq!(config.code, Some(78), "{}", config.err);
}

/// Runs [`on_a_small_disk`] in a mount namespace that ends with it.
#[test]
fn a_full_disk_releases_nothing_and_recovers_by_itself() {
    let test = std::env::current_exe().expect("this test");
    let run = |flags: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(flags).arg(&test).args(["--exact", "on_a_small_disk", "--ignored", "--nocapture"]);
        command.env("HOLDFAST_TEST_SMALL_DISK", "yes").current_dir(repository().join("tests")).output()
    };
    // As root, or as anybody where the kernel lets users have namespaces.
    let output = [&["--mount"][..], &["--mount", "--map-root-user"]].into_iter().find_map(|flags| {
        let output = run(flags).expect("unshare, of util-linux");
        String::from_utf8_lossy(&output.stdout).contains("running 1 test").then_some(output)
    });
    let output = output.expect("a tmpfs in a mount namespace: root, or user namespaces, are needed");
    let said = Said::from(output);
    println!("{}{}", said.out, said.err);
    assert_eq!(said.code, Some(0));
    // A name that is no test's would run none, and be well.
    assert!(said.out.contains("1 passed"), "no test ran");
}

// Ignored by itself and never left out: the test above runs it in a mount namespace of its own, so that its disk is nobody else's.
#[test]
#[ignore = "run by a_full_disk_releases_nothing_and_recovers_by_itself, which gives it a mount namespace"]
fn on_a_small_disk() {
    assert!(std::env::var_os("HOLDFAST_TEST_SMALL_DISK").is_some(), "not by itself: it mounts");
    let mut lab = Lab::up(&[]);
    let custodian = "custodian-1";
    let disk = state_dir(&lab, custodian);
    lab.stop(custodian);
    give_a_small_disk(&lab, &disk);
    lab.start(custodian);
    lab.settle();
    lab.scenario("the disk fills up", |lab| the_disk_fills_up(lab, custodian, &disk));
    lab.scenario("the disk is read-only", |lab| the_disk_is_read_only(lab, custodian, &disk));
}

fn give_a_small_disk(lab: &Lab, disk: &Path) {
    let kept = lab.dir().join("kept");
    fs::rename(disk, &kept).expect("its state is kept");
    fs::create_dir(disk).expect("a place for the disk");
    let shown = disk.to_string_lossy();
    tool("mount", &["-t", "tmpfs", "-o", &format!("size={DISK},mode=0700"), "tmpfs", &shown]);
    tool("cp", &["-a", &format!("{}/.", kept.display()), &shown]);
}

fn the_disk_fills_up(lab: &mut Lab, custodian: &str, disk: &Path) {
    // Of the five, two are away: without this one no node opens.
    let away = ["custodian-4", "custodian-5"];
    away.into_iter().for_each(|other| lab.kill(other));
    let released = |lab: &Lab| {
        let log = fs::read_to_string(log_of(lab, custodian)).expect("its log");
        log.lines().filter(|line| line.contains(r#""kind":"release""#)).count()
    };
    let before = released(lab);
    let ballast = disk.join("ballast");
    let full = fs::write(&ballast, vec![0; 2 << 20]).expect_err("it is full");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    // Before anything has happened: what it must remember is written once a minute.
    let took =
        until_within(KNOWN_AT_REST, "the metric shows that it cannot write", || audit_ok(lab, custodian) == Some(0));
    println!("        shown by the metric after {} ms at rest", took.as_millis());
    lab.restart("vault-1");
    until("the node answers", || lab.is_sealed("vault-1"));
    assert!(lab.heartbeat(custodian)["audit"]["broken"].is_null(), "nobody has changed it");
    until("it says which lock holds", || {
        let incidents = lab.status()["incidents"].clone();
        let refusals = incidents[0]["refusals"].as_array().cloned().unwrap_or_default();
        refusals.iter().any(|refusal| refusal["custodian"] == custodian && refusal["lock"] == "record")
    });
    let status = lab.holdfast(&["status"]).out;
    assert!(status.contains("cannot write its audit log or its state, and releases nothing until it can"), "{status}");
    always(SAMPLE, "no share leaves without a record", || !lab.is_open("vault-1"));
    assert_eq!(released(lab), before, "no release is recorded");

    fs::remove_file(&ballast).expect("room again");
    let took = until_within(Duration::from_secs(60), "the node opens by itself", || lab.is_open("vault-1"));
    println!("        open {} ms after there was room", took.as_millis());
    assert!(released(lab) > before, "and this one is recorded");
    until("the metric shows that all is well", || audit_ok(lab, custodian) == Some(1));
    verify(&[disk], &with_config(lab, &["--custodian", custodian])).well();
    away.into_iter().for_each(|other| lab.start(other));
}

/// What a kernel does to a disk that fails: no start, and one as before when the disk is well again.
fn the_disk_is_read_only(lab: &mut Lab, custodian: &str, disk: &Path) {
    lab.stop(custodian);
    let shown = disk.to_string_lossy();
    tool("mount", &["-o", "remount,ro", &shown]);
    let config = lab.path(&lab.custodian(custodian).config);
    let said = run("holdfast-custodian", &[Path::new("run"), Path::new("--config"), &config]);
    assert!(said.code == Some(1) && said.err.contains("Read-only file system"), "{}", said.err);
    lab.crash("vault-2").expect("the others open it");
    tool("mount", &["-o", "remount,rw", &shown]);
    lab.start(custodian);
}

/// Carries every file that was put away out of the custodian's folder, as docs/OPERATIONS.md says.
fn carry_away(lab: &Lab, custodian: &str) -> PathBuf {
    let to = lab.dir().join(format!("evidence-{custodian}"));
    fs::create_dir(&to).expect("a folder");
    for entry in fs::read_dir(state_dir(lab, custodian)).expect("a folder").flatten() {
        if entry.file_name().to_string_lossy().starts_with("audit.0") {
            fs::rename(entry.path(), to.join(entry.file_name())).expect("carried");
        }
    }
    to
}

/// Accepts in the sentinel's configuration what was heard until now, as docs/OPERATIONS.md says.
fn accept(lab: &Lab, custodian: &str) {
    assert_eq!(audit_ok(lab, custodian), Some(0), "until it is accepted");
    let path = lab.path(&lab.file.sentinel.config);
    let text = fs::read_to_string(&path).expect("its configuration");
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ");
    let kept: Vec<_> = text.lines().filter(|line| !line.starts_with("audit_accepted")).collect();
    let cluster = format!("[clusters.{}]", lab.file.cluster);
    let line = format!("{cluster}\naudit_accepted = {{ {custodian} = \"{now}\" }}");
    fs::write(&path, kept.join("\n").replacen(&cluster, &line, 1) + "\n").expect("written");
    lab.signal("sentinel", Signal::HUP);
    until("the sentinel takes it over", || audit_ok(lab, custodian) == Some(1));
}

/// What the sentinel's metric says.
fn audit_ok(lab: &Lab, custodian: &str) -> Option<u8> {
    let metrics = lab.read_sentinel("/metrics")?;
    let mut lines = metrics.lines().filter(|line| line.starts_with("holdfast_custodian_audit_ok{"));
    lines.find(|line| line.contains(&format!("\"{custodian}\"")))?.rsplit(' ').next()?.parse().ok()
}

fn state_dir(lab: &Lab, custodian: &str) -> PathBuf {
    lab.path(&lab.custodian(custodian).state_dir)
}

fn log_of(lab: &Lab, custodian: &str) -> PathBuf {
    state_dir(lab, custodian).join("audit.jsonl")
}

fn with_config(lab: &Lab, words: &[&str]) -> Vec<String> {
    let config = lab.path(&lab.file.operator_config).to_string_lossy().into_owned();
    words.iter().map(|word| (*word).to_owned()).chain(["--config".to_owned(), config]).collect()
}

/// `holdfast audit verify`.
fn verify(files: &[&Path], words: &[String]) -> Said {
    let files = files.iter().map(|file| file.to_string_lossy().into_owned());
    let args: Vec<_> =
        ["audit", "verify"].map(str::to_owned).into_iter().chain(files).chain(words.iter().cloned()).collect();
    run("holdfast", &args)
}
