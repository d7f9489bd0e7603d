//! What a person at a terminal sees, and does not see, when a share is typed in.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::refusals::{Made, Table};
use crate::world::{fingerprint, program, text};

/// How long an answer at the terminal may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// A command at a terminal of its own, which `script` makes.
struct Terminal {
    process: Child,
    keyboard: ChildStdin,
    screen: Receiver<u8>,
    shown: String,
}

impl Terminal {
    fn of(command: &str) -> Self {
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--flush", "--command", command, "/dev/null"]);
        let script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = script.spawn().expect("script is installed (util-linux)");
        let (keyboard, screen) = (process.stdin.take().expect("piped"), process.stdout.take().expect("piped"));
        // More than anything that is shown here.
        let (shows, screened) = mpsc::sync_channel(1 << 16);
        std::thread::spawn(move || {
            BufReader::new(screen).bytes().map_while(Result::ok).try_for_each(|byte| shows.send(byte))
        });
        Self { process, keyboard, screen: screened, shown: String::new() }
    }

    fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).and_then(|()| self.keyboard.flush()).expect("it is there");
    }

    /// Waits until that is on the screen, after what was waited for before.
    fn shows(&mut self, words: &str) {
        let (from, deadline) = (self.shown.len(), Instant::now() + ANSWERED_WITHIN);
        while !self.shown[from..].contains(words) {
            let left = deadline.saturating_duration_since(Instant::now());
            let byte = self.screen.recv_timeout(left);
            self.shown.push(char::from(byte.unwrap_or_else(|_| panic!("{words:?} is not shown: {}", self.shown))));
        }
    }

    /// All that was ever shown, and the exit code.
    fn ends(mut self) -> (String, Option<i32>) {
        while let Ok(byte) = self.screen.recv_timeout(ANSWERED_WITHIN) {
            self.shown.push(char::from(byte));
        }
        let code = self.process.wait().expect("it ends").code();
        (self.shown, code)
    }
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
        Terminal::of(&format!("'{}' import --dir '{dir}' --manifest '{manifest}' {more}; stty -a", program.display()))
    };
    let at_rest = || host.file("prod.share.age").exists();

    let mut refused = import("");
    refused.shows(&fingerprint(&fs::read(&path).expect("there")));
    refused.shows("Is it the same? [yes/no] ");
    refused.types("y\n");
    refused.shows("the manifest's fingerprint was not confirmed");
    refused.ends();

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

/// That the terminal shows what is typed again, and that Ctrl-C is a signal again.
fn restored(shown: &str) {
    let words: Vec<_> = shown.split([' ', ';', '\r', '\n']).collect();
    for mode in ["echo", "icanon", "isig"] {
        assert!(words.contains(&mode), "{mode} is off: {shown}");
    }
}
