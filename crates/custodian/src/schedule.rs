//! When a conductor's drills are due: a cron pattern in a time zone, a jitter, and dates on which there are none.
//!
//! All conductors of a cluster have to come to the same times, each by itself: the jitter is drawn from the time, not from a die.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use holdfast_core::id::{ClusterId, SlotId};
use holdfast_core::time::Timestamp;
use jiff::Zoned;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

/// How many dates without drills are looked past for the next one: two years of daily drills.
const SKIPPED_MAX: usize = 800;

/// One cluster's schedule.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    cluster: ClusterId,
    cron: Cron,
    zone: TimeZone,
    jitter: Duration,
    blackout: Vec<(Date, Date)>,
}

/// A drill's time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    /// The schedule's time, by which the drill is known.
    pub(crate) slot: SlotId,
    /// When it is to begin.
    pub(crate) at: Timestamp,
}

/// Why a schedule is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScheduleError {
    /// The pattern.
    #[error("{0:?} is no schedule: a cron pattern of five fields, like \"0 10 * * Tue\" ({1})")]
    Pattern(String, String),
    /// The time zone.
    #[error("{0:?} is no time zone of this system: like \"UTC\" or \"Europe/Zurich\"; the package tzdata has them")]
    Zone(String),
    /// Dates without drills.
    #[error("{0:?} is no date, nor two with \"/\" between: like \"2026-12-24/2027-01-02\"")]
    Dates(String),
}

impl Schedule {
    /// Reads a schedule as the configuration writes it.
    pub(crate) fn parse(
        cluster: ClusterId,
        pattern: &str,
        zone: &str,
        jitter: Duration,
        blackout: &[String],
    ) -> Result<Self, ScheduleError> {
        let cron = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .build()
            .parse(pattern)
            .map_err(|error| ScheduleError::Pattern(pattern.to_owned(), error.to_string()))?;
        let zone = time_zone(zone).ok_or_else(|| ScheduleError::Zone(zone.to_owned()))?;
        let blackout = blackout.iter().map(|text| read_dates(text)).collect::<Result<_, _>>()?;
        Ok(Self { cluster, cron, zone, jitter, blackout })
    }

    /// The first drill whose time on the schedule is after this one's; `None` where there is none any more.
    pub(crate) fn next(&self, after: Timestamp) -> Option<Due> {
        let mut time = jiff::Timestamp::from_millisecond(after.as_millis()).ok()?.to_zoned(self.zone.clone());
        for _ in 0..SKIPPED_MAX {
            time = self.cron.find_next_occurrence(&time, false).ok()?;
            if !self.is_blacked_out(&time) {
                let slot = Timestamp::from_millis(time.timestamp().as_millisecond());
                return Some(Due { slot: SlotId::of_time(slot), at: slot.after(self.delay(slot)) });
            }
        }
        None
    }

    /// The first drill that is still to be held: one that should have begun at most so long ago.
    pub(crate) fn pending(&self, now: Timestamp, missed_max: Duration) -> Option<Due> {
        let since = now.before(missed_max);
        let mut due = self.next(since.before(self.jitter))?;
        while due.at < since {
            due = self.next(due.slot.time()?)?;
        }
        Some(due)
    }

    fn is_blacked_out(&self, time: &Zoned) -> bool {
        self.blackout.iter().any(|(first, last)| (*first..=*last).contains(&time.date()))
    }

    fn delay(&self, slot: Timestamp) -> Duration {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(b"holdfast jitter v1")
            .chain_update(self.cluster.as_bytes())
            .chain_update(slot.as_millis().to_be_bytes())
            .finalize()
            .into();
        let mut drawn = [0; 8];
        drawn.copy_from_slice(&digest[..8]);
        let millis = self.jitter.as_millis() as u64;
        Duration::from_millis(if millis == 0 { 0 } else { u64::from_be_bytes(drawn) % millis })
    }
}

/// A time zone by its name, from the system's files.
pub(crate) fn time_zone(name: &str) -> Option<TimeZone> {
    if name == "UTC" { Some(TimeZone::UTC) } else { TimeZone::get(name).ok() }
}

fn read_dates(text: &str) -> Result<(Date, Date), ScheduleError> {
    let refused = || ScheduleError::Dates(text.to_owned());
    let (first, last) = text.split_once('/').unwrap_or((text, text));
    let read = |text: &str| text.parse::<Date>().map_err(|_| refused());
    let (first, last) = (read(first)?, read(last)?);
    if first <= last { Ok((first, last)) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(pattern: &str, jitter: u64, blackout: &[&str]) -> Result<Schedule, ScheduleError> {
        let blackout: Vec<_> = blackout.iter().map(ToString::to_string).collect();
        Schedule::parse(ClusterId::from_bytes([1; 16]), pattern, "UTC", Duration::from_secs(jitter), &blackout)
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn the_next_drill_is_the_next_time_that_is_not_blacked_out() {
        // 2026-11-24 is a Tuesday.
        let weekly = schedule("0 10 * * Tue", 0, &["2026-12-01", "2026-12-20/2027-01-10"]).expect("a schedule");
        let next = |after: &str| weekly.next(at(after)).expect("one").slot.to_string();
        assert_eq!(next("2026-11-24T09:59:59.000Z"), "2026-11-24T10:00:00.000Z");
        assert_eq!(next("2026-11-24T10:00:00.000Z"), "2026-12-08T10:00:00.000Z");
        assert_eq!(next("2026-12-15T10:00:00.000Z"), "2027-01-12T10:00:00.000Z");
    }

    #[test]
    fn the_jitter_is_the_same_for_all_conductors_and_within_its_bound() {
        let often = schedule("*/5 * * * *", 120, &[]).expect("a schedule");
        let (mut after, mut delays) = (at("2026-11-24T00:00:00.000Z"), Vec::new());
        for _ in 0..50 {
            let due = often.next(after).expect("one");
            after = due.slot.time().expect("a time");
            delays.push(due.at.since(after));
            assert_eq!(often.next(after.before(Duration::from_millis(1))), Some(due));
        }
        assert!(delays.iter().all(|delay| *delay < Duration::from_secs(120)));
        assert!(delays.iter().any(|delay| *delay > Duration::from_secs(60)));
    }

    #[test]
    fn a_start_within_the_jitter_loses_no_drill_and_holds_none_that_is_long_over() {
        let (missed_max, minute) = (Duration::from_secs(60), Duration::from_secs(60));
        let daily = schedule("0 10 * * *", 600, &[]).expect("a schedule");
        let slot = at("2026-11-24T10:00:00.000Z");
        let due = daily.next(slot.before(minute)).expect("one");
        assert!(due.at.since(slot) > minute * 2, "a jitter that would show nothing");
        for now in [slot.before(minute * 30), slot, due.at.before(minute), due.at, due.at.after(missed_max)] {
            assert_eq!(daily.pending(now, missed_max), Some(due.clone()), "{now}");
        }
        let over = daily.pending(due.at.after(missed_max + Duration::from_millis(1)), missed_max).expect("one");
        assert_eq!(over.slot.to_string(), "2026-11-25T10:00:00.000Z");
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for pattern in ["", "10 Tue", "0 0 10 * * Tue", "61 * * * *", "* * * * Caturday"] {
            assert!(matches!(schedule(pattern, 0, &[]), Err(ScheduleError::Pattern(..))), "{pattern}");
        }
        for dates in ["soon", "2026-02-30", "2026-12-24/2026-12-01"] {
            assert!(matches!(schedule("0 10 * * Tue", 0, &[dates]), Err(ScheduleError::Dates(_))), "{dates}");
        }
        assert!(
            Schedule::parse(ClusterId::from_bytes([1; 16]), "0 10 * * *", "Mars/Olympus", Duration::ZERO, &[]).is_err()
        );
    }
}
