//! What happened last, for whoever reads a failure.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

/// How many lines are kept.
const LINES: usize = 250;

thread_local! {
    static STORY: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
}

pub(crate) fn begin() {
    STORY.with_borrow_mut(VecDeque::clear);
}

pub(crate) fn note(now: Duration, line: &str) {
    STORY.with_borrow_mut(|story| {
        if story.len() == LINES {
            story.pop_front();
        }
        story.push_back(format!("{:>12.6}  {line}", now.as_secs_f64()));
    });
}

pub(crate) fn tell() -> String {
    STORY.with_borrow(|story| story.iter().map(|line| format!("{line}\n")).collect())
}

/// Writes a line of the story.
#[macro_export]
macro_rules! note {
    ($world:expr, $($text:tt)*) => { $crate::story::note($world.now, &format!($($text)*)) };
}
