//! Waiting for conditions, each with a deadline. Nothing here waits for time to pass, but a sample that is taken for a while.

use std::time::{Duration, Instant};

/// How long anything may take that has no deadline of its own, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The time between two looks at a condition.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until a condition holds, and says what never happened if it does not within [`PATIENCE`].
pub fn until(what: &str, seen: impl FnMut() -> bool) {
    until_within(PATIENCE, what, seen);
}

/// Waits until a condition holds, with a deadline. Returns how long it took.
pub fn until_within(deadline: Duration, what: &str, mut seen: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !seen() {
        assert!(began.elapsed() < deadline, "not seen within {deadline:?}: {what}");
        pause(LOOK);
    }
    began.elapsed()
}

/// Waits until something is there.
pub fn until_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    until(what, || {
        found = look();
        found.is_some()
    });
    found.expect("it was seen")
}

/// Looks again and again for a while, and expects the same each time. Returns how often it looked.
pub fn always(during: Duration, what: &str, mut holds: impl FnMut() -> bool) -> u32 {
    let began = Instant::now();
    let mut looks = 0;
    while began.elapsed() < during {
        assert!(holds(), "did not hold after {:?} of {during:?}: {what}", began.elapsed());
        looks += 1;
        pause(LOOK);
    }
    looks
}

/// Between two looks, or two polls of what is measured by polling.
pub fn pause(time: Duration) {
    std::thread::park_timeout(time);
}
