//! The budget of automatic openings: how much of an hour's is left, and when there is more.

use std::time::Duration;

use crate::time::Timestamp;

/// How long the budget looks back.
pub(super) const BUDGET_WINDOW: Duration = Duration::from_secs(3600);

/// A node's automatic openings of the last hour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hour<'a> {
    /// When they were, by the wall clock; in no order, and older ones among them.
    pub(super) openings: &'a [Timestamp],
    /// How many the policy allows.
    pub(super) most: u32,
    pub(super) now: Timestamp,
}

impl<'a> Hour<'a> {
    /// How many more are allowed now.
    pub(super) fn remaining(self) -> u32 {
        self.most.saturating_sub(u32::try_from(self.recent().count()).unwrap_or(u32::MAX))
    }

    /// When one is allowed again, where none is now and time alone helps.
    pub(super) fn frees_at(self) -> Option<Timestamp> {
        let last = usize::try_from(self.most).ok()?.checked_sub(1)?;
        let mut recent: Vec<_> = self.recent().collect();
        recent.sort_unstable();
        // So many of the latest leave no room; once the first of them is an hour old, one more fits.
        recent.iter().rev().nth(last).map(|at| at.after(BUDGET_WINDOW))
    }

    fn recent(self) -> impl Iterator<Item = Timestamp> + 'a {
        // An opening in the future (the clock was set back) still counts: a wrong clock must not refill the budget.
        self.openings.iter().copied().filter(move |at| self.now.since(*at) < BUDGET_WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_an_hour_and_when_there_is_more() {
        let at = |minute: i64| Timestamp::from_millis(minute * 60_000);
        let openings = [at(50), at(10), at(30), at(70)];
        for (most, minute, remaining, frees_at) in [
            (4, 69, 0, Some(at(70))),
            (4, 70, 1, None),
            (2, 69, 0, Some(at(110))),
            (3, 69, 0, Some(at(90))),
            (5, 69, 1, None),
            // The clock was set back: what is still to come counts.
            (1, 20, 0, Some(at(130))),
            (0, 69, 0, None),
            (2, 200, 2, None),
        ] {
            let hour = Hour { openings: &openings, most, now: at(minute) };
            assert_eq!((hour.remaining(), hour.frees_at()), (remaining, frees_at), "{most} at {minute}");
        }
    }
}
