//! What a person sees on stderr while the lab is put together: what is done now, and how long it took.

use std::cell::RefCell;
use std::fmt::Display;
use std::io::Write;
use std::rc::Rc;
use std::time::Instant;

/// Tells each step when it begins and when it is done.
#[derive(Debug)]
pub(crate) struct Progress {
    began: Instant,
    latest: Option<Rc<RefCell<String>>>,
}

impl Progress {
    /// Starts the clock.
    pub(crate) fn start() -> Self {
        Self { began: Instant::now(), latest: None }
    }

    /// Starts the clock, and only keeps the latest line, for somebody who shows it otherwise.
    pub(crate) fn kept(latest: Rc<RefCell<String>>) -> Self {
        Self { began: Instant::now(), latest: Some(latest) }
    }

    /// A line of its own, with the seconds since the start.
    pub(crate) fn say(&self, what: impl Display) {
        if let Some(latest) = &self.latest {
            *latest.borrow_mut() = what.to_string();
            return;
        }
        let at = self.began.elapsed().as_secs_f64();
        // Progress that nobody can see is no reason to stop.
        let _ = writeln!(std::io::stderr(), "{at:6.1} s  {what}");
    }

    /// That something which began at `since` is done.
    pub(crate) fn done(&self, what: impl Display, since: Instant) {
        self.say(format_args!("{what} ({} ms)", since.elapsed().as_millis()));
    }

    /// The moment the clock was started.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }
}
