//! A terminal with a program at it, as a person has one: what is typed, and all that is shown.

use std::io::{BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// How long an answer at the terminal may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// A command at a terminal of its own, which `script` makes.
#[derive(Debug)]
pub struct Terminal {
    process: Child,
    keyboard: ChildStdin,
    screen: Receiver<u8>,
    shown: String,
}

impl Terminal {
    /// Runs a shell's command line there.
    pub fn of(command: &str) -> Self {
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

    /// Types that.
    pub fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).and_then(|()| self.keyboard.flush()).expect("it is there");
    }

    /// Waits until that is on the screen, after what was waited for before.
    pub fn shows(&mut self, words: &str) {
        let (from, deadline) = (self.shown.len(), Instant::now() + ANSWERED_WITHIN);
        while !self.shown[from..].contains(words) {
            let left = deadline.saturating_duration_since(Instant::now());
            let byte = self.screen.recv_timeout(left);
            self.shown.push(char::from(byte.unwrap_or_else(|_| panic!("{words:?} is not shown: {}", self.shown))));
        }
    }

    /// The rest of the line that is being shown.
    pub fn line(&mut self) -> String {
        let from = self.shown.len();
        self.shows("\n");
        self.shown[from..].trim().to_owned()
    }

    /// All that was ever shown, and the exit code.
    pub fn ends(mut self) -> (String, Option<i32>) {
        while let Ok(byte) = self.screen.recv_timeout(ANSWERED_WITHIN) {
            self.shown.push(char::from(byte));
        }
        let code = self.process.wait().expect("it ends").code();
        (self.shown, code)
    }
}

/// Holds `stty -a`, which came last, to it: the terminal shows what is typed again, and Ctrl-C is a signal again.
pub fn restored(shown: &str) {
    let words: Vec<_> = shown.split([' ', ';', '\r', '\n']).collect();
    for mode in ["echo", "icanon", "isig"] {
        assert!(words.contains(&mode), "{mode} is off: {shown}");
    }
}
