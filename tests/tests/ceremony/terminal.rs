//! What a person at a terminal sees, and does not see, when a share is typed in, and what is left of the terminal.

use std::fs;

use holdfast_tests::processes::{Signal, signal};
use holdfast_tests::terminal::{Terminal, restored};
use holdfast_tests::wait::until;
use serde_json::Value;

use crate::refusals::{Made, Table};
use crate::world::{fingerprint, program, text};

/// How many bytes a process has read, from wherever (proc_pid_io(5)).
fn bytes_read(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).expect("it runs");
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).and_then(|read| read.parse().ok()).expect("as documented")
}

#[test]
fn a_share_that_is_typed_in_is_not_shown_and_the_terminal_is_as_it_was_afterwards() {
    let table = Table::lay();
    let mut manifest = Made::new(&table.hosts, &table.gpg).manifest;
    for custodian in manifest["custodians"].as_array_mut().expect("two") {
        custodian.as_object_mut().and_then(|custodian| custodian.remove("packet_sha256")).expect("it was there");
    }
    let path = table.path("manifest.json");
    fs::write(&path, manifest.to_string()).expect("written");
    let host = &table.hosts[0];
    let import = |more: &str| {
        let program = program("holdfast-setup");
        let (dir, manifest) = (text(&host.dir), text(&path));
        let import = format!("'{}' import --dir '{dir}' --manifest '{manifest}' {more}", program.display());
        Terminal::of(&format!("sh -c \"echo pid=\\$\\$; exec {import}\"; stty -a"))
    };
    let at_rest = || host.file("prod.share.age").exists();

    let mut refused = import("");
    refused.shows(&fingerprint(&fs::read(&path).expect("there")));
    refused.shows("Is it the same? [yes/no] ");
    refused.types("y\n");
    refused.shows("the manifest's fingerprint was not confirmed");
    refused.ends();

    for ending in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let mut ended = import("--yes");
        ended.shows("pid=");
        let pid = ended.line().parse().expect("a pid");
        ended.shows("(nothing is shown): ");
        let before = bytes_read(pid);
        ended.types("0102030405");
        // What comes later is typed at the shell's terminal, which shows it.
        until("it reads what is typed", || bytes_read(pid) >= before + 10);
        signal(pid, ending);
        let (shown, _) = ended.ends();
        assert!(!shown.contains("01020"), "{ending:?}: {shown}");
        restored(&shown);
        assert!(!at_rest());
    }

    let mut cancelled = import("--yes");
    cancelled.shows("(nothing is shown): ");
    cancelled.types("0102030405");
    cancelled.types("\u{3}");
    cancelled.shows("broken off: nothing was changed");
    let (shown, _) = cancelled.ends();
    assert!(!shown.contains("01020"), "{shown}");
    restored(&shown);
    assert!(!at_rest());

    let share = "5".repeat(64) + "05";
    let mut typed = import("");
    typed.shows("[yes/no] ");
    typed.types("yes\n");
    typed.shows("(nothing is shown): ");
    typed.types(&format!("{share}\n"));
    typed.shows("A share of prod is at rest");
    let (shown, code) = typed.ends();
    assert!(!shown.contains("555"), "{shown}");
    assert_eq!(code, Some(0), "{shown}");
    restored(&shown);
    let record: Value =
        serde_json::from_slice(&fs::read(host.file("prod.share.age.record")).expect("there")).expect("JSON");
    assert_eq!(record["x"], 5);
}
