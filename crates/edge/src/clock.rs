//! The clocks of a process, read together.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use holdfast_core::time::{Now, Steady, Timestamp};

/// A process's steady clock, from when it was started, and the wall clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// Starts the steady clock.
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Both clocks, now.
    pub fn now(self) -> Now {
        Now { steady: Steady::from_start(self.started.elapsed()), wall: wall() }
    }

    /// The moment of the steady clock as the runtime knows it; now, if it is too far away to be one.
    pub fn instant(self, at: Steady) -> Instant {
        self.started.checked_add(at.since_start()).unwrap_or_else(Instant::now)
    }
}

/// The wall clock.
pub fn wall() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
