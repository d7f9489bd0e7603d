//! Time as an argument. Two clocks: a steady one that measures, and the wall clock, which is never trusted to.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::Offset;
use serde::{Deserialize, Deserializer, Serialize};

use crate::text;

/// A moment on the process's own steady clock: the time since it started. Does not survive a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Steady(Duration);

impl Steady {
    /// The moment this long after the process's start.
    pub const fn from_start(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// The time from the process's start to this moment.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for Steady {
    type Output = Self;

    fn add(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }
}

/// A moment on the wall clock: milliseconds since 1970-01-01 UTC. Written as RFC 3339 with milliseconds and `Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(into = "String")]
pub struct Timestamp(i64);

/// Not an RFC 3339 time in UTC with milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a time in RFC 3339, like 2026-11-22T10:00:00.000Z")]
pub struct TimeError;

/// What stands between the digits, and where: a time has one spelling.
const MARKS: [(usize, u8); 7] = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (23, b'Z')];

impl Timestamp {
    /// From milliseconds since 1970-01-01 UTC.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Seconds since 1970-01-01 UTC, as Prometheus counts them.
    #[expect(clippy::cast_precision_loss, reason = "a float's 53 bits hold the milliseconds of ten millennia")]
    pub const fn as_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        let millis = self.0.saturating_sub(earlier.0);
        Duration::from_millis(if millis < 0 { 0 } else { millis.unsigned_abs() })
    }

    /// This moment moved on by `wait`.
    pub const fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait.as_millis() as i64))
    }

    /// This moment moved back by `wait`.
    pub const fn before(self, wait: Duration) -> Self {
        Self(self.0.saturating_sub(wait.as_millis() as i64))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            // Beyond the years that RFC 3339 can write: such a time never parses back, and says so.
            Err(_) => write!(f, "out of range ({} ms)", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let bytes: &[u8; 24] = text.as_bytes().try_into().map_err(|_| TimeError)?;
        if MARKS.iter().any(|(at, mark)| bytes[*at] != *mark) {
            return Err(TimeError);
        }
        // Four digits at most: no number is too large.
        let digit = |n: i16, byte: &u8| byte.is_ascii_digit().then(|| n * 10 + i16::from(*byte - b'0'));
        let number = |at: Range<usize>| bytes[at].iter().try_fold(0, digit).ok_or(TimeError);
        let two = |at: usize| number(at..at + 2).map(|n| n as i8);
        let nanoseconds = i32::from(number(20..23)?) * 1_000_000;
        let time = DateTime::new(number(0..4)?, two(5)?, two(8)?, two(11)?, two(14)?, two(17)?, nanoseconds);
        let time = time.and_then(|time| Offset::UTC.to_timestamp(time)).map_err(|_| TimeError)?;
        Ok(Self(time.as_millisecond()))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        text::parsed(from)
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> String {
        time.to_string()
    }
}

/// Both clocks, read together by the driver just before it calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The steady clock, for every wait and every measurement.
    pub steady: Steady,
    /// The wall clock, for what is compared with other machines' words.
    pub wall: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_one_spelling_and_reads_back() {
        let time = Timestamp::from_millis(1_795_341_600_123);
        assert_eq!(time.to_string(), "2026-11-22T10:00:00.123Z");
        assert_eq!("2026-11-22T10:00:00.123Z".parse(), Ok(time));
        assert_eq!(
            "0000-01-01T00:00:00.000Z".parse::<Timestamp>().map(|time| time.to_string()).as_deref(),
            Ok("0000-01-01T00:00:00.000Z")
        );
        for bad in [
            "",
            "now",
            "Z",
            "2026-11-22",
            "2026-11-22T10:00:00+01:00",
            "2026-11-22T10:00:00Z",
            "2026-11-22T10:00:00.123456Z",
            "2026-11-22T10:00:00.123+00:00",
            "2026-11-22t10:00:00.123z",
            "2026-11-22 10:00:00.123Z",
            "2026-11-22T10:00:00,123Z",
            "2026-11-22T10:00:60.123Z",
            "2026-11-22T24:00:00.000Z",
            "2026-02-29T10:00:00.123Z",
            "2026-13-22T10:00:00.123Z",
            "+026-11-22T10:00:00.123Z",
            "2026-11-22T10:00:00.1\u{e9}Z",
        ] {
            assert_eq!(bad.parse::<Timestamp>(), Err(TimeError), "{bad:?}");
        }
    }

    #[test]
    fn no_difference_of_times_is_negative_or_overflows() {
        let (first, last) = (Timestamp::from_millis(i64::MIN), Timestamp::from_millis(i64::MAX));
        assert_eq!(first.since(last), Duration::ZERO);
        assert!(last.since(first) > Duration::from_secs(1));
        assert!(last.after(Duration::MAX).as_millis() >= 0);
    }
}
