//! When drills may be: `"Tue 10:00-11:00 Europe/Zurich"`, as a custodian's policy says.
//!
//! Days are `daily`, one day, a list (`Mon,Thu`) or a span (`Mon-Fri`); the hours may go over midnight (`22:00-02:00`), and then
//! belong to the day on which they begin. Where clocks are put forward or back, what counts is what they show.

use std::fmt;

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;

use crate::time::Timestamp;

const DAYS: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

const MINUTES_OF_A_DAY: i32 = 24 * 60;

/// One window.
#[derive(Clone, PartialEq, Eq)]
pub struct DrillWindow {
    text: String,
    days: [bool; 7],
    /// Minutes of the day; `to` is beyond a day's where the window goes over midnight.
    from: i32,
    to: i32,
    zone: TimeZone,
}

/// Why a text is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Not three words.
    #[error("{0:?} is not a window: days, hours and a time zone, like \"Tue 10:00-11:00 Europe/Zurich\"")]
    Form(String),
    /// The first word.
    #[error("{0:?} names no days: \"daily\", \"Tue\", \"Mon,Thu\" or \"Mon-Fri\"")]
    Days(String),
    /// The second.
    #[error("{0:?} is no time of day: like \"10:00-11:00\", or \"22:00-02:00\" over midnight, or \"00:00-24:00\"")]
    Hours(String),
    /// The third.
    #[error("{0:?} is no time zone of this system: like \"UTC\" or \"Europe/Zurich\"; the package tzdata has them")]
    Zone(String),
}

impl DrillWindow {
    /// Reads a window. `zone` finds a time zone by its name.
    pub fn parse(text: &str, zone: impl FnOnce(&str) -> Option<TimeZone>) -> Result<Self, WindowError> {
        let words: Vec<_> = text.split_ascii_whitespace().collect();
        let [days, hours, name] = words[..] else { return Err(WindowError::Form(text.to_owned())) };
        let days = read_days(days).ok_or_else(|| WindowError::Days(days.to_owned()))?;
        let (from, to) = read_hours(hours).ok_or_else(|| WindowError::Hours(hours.to_owned()))?;
        let zone = if name == "UTC" { Some(TimeZone::UTC) } else { zone(name) };
        let zone = zone.ok_or_else(|| WindowError::Zone(name.to_owned()))?;
        Ok(Self { text: words.join(" "), days, from, to, zone })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a drill may begin at this time.
    pub fn covers(&self, at: Timestamp) -> bool {
        let Ok(at) = jiff::Timestamp::from_millisecond(at.as_millis()) else { return false };
        let there = self.zone.to_datetime(at);
        let minute = i32::from(there.hour()) * 60 + i32::from(there.minute());
        let today = there.weekday();
        let begins_on = |day: Weekday, minute: i32| self.days[index(day)] && (self.from..self.to).contains(&minute);
        begins_on(today, minute) || begins_on(today.previous(), minute + MINUTES_OF_A_DAY)
    }
}

/// As it was written: what a policy's digest is made of.
impl fmt::Debug for DrillWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

fn index(day: Weekday) -> usize {
    usize::from(day.to_monday_zero_offset().unsigned_abs())
}

fn read_days(text: &str) -> Option<[bool; 7]> {
    if text == "daily" {
        return Some([true; 7]);
    }
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (read_day(first)?, read_day(last)?);
        let mut day = first;
        days[index(day)] = true;
        while day != last {
            day = day.next();
            days[index(day)] = true;
        }
    }
    Some(days)
}

fn read_day(text: &str) -> Option<Weekday> {
    DAYS.iter().find(|(name, _)| *name == text).map(|(_, day)| *day)
}

fn read_hours(text: &str) -> Option<(i32, i32)> {
    let (from, to) = text.split_once('-')?;
    let (from, to) = (read_minute(from)?, read_minute(to)?);
    match (from, to) {
        (MINUTES_OF_A_DAY, _) => None,
        (from, to) if from < to => Some((from, to)),
        (from, to) if from > to => Some((from, to + MINUTES_OF_A_DAY)),
        _ => None,
    }
}

fn read_minute(text: &str) -> Option<i32> {
    let (hour, minute) = text.split_once(':')?;
    let two_digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    if !two_digits(hour) || !two_digits(minute) {
        return None;
    }
    let (hour, minute) = (hour.parse::<i8>().ok()?, minute.parse::<i8>().ok()?);
    if (hour, minute) == (24, 0) {
        return Some(MINUTES_OF_A_DAY);
    }
    Time::new(hour, minute, 0, 0).ok().map(|time| i32::from(time.hour()) * 60 + i32::from(time.minute()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &str) -> Result<DrillWindow, WindowError> {
        // Two hours east of Greenwich, all year.
        DrillWindow::parse(text, |name| (name == "Two/East").then(|| TimeZone::fixed(jiff::tz::offset(2))))
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn it_covers_its_hours_on_its_days_where_it_says() {
        // 2026-11-24 is a Tuesday.
        let tuesday = window("Tue 10:00-11:00 Two/East").expect("a window");
        assert!(tuesday.covers(at("2026-11-24T08:00:00.000Z")));
        assert!(tuesday.covers(at("2026-11-24T08:59:59.999Z")));
        assert!(!tuesday.covers(at("2026-11-24T07:59:59.999Z")));
        assert!(!tuesday.covers(at("2026-11-24T09:00:00.000Z")));
        assert!(!tuesday.covers(at("2026-11-25T08:30:00.000Z")));
        let night = window("Mon-Wed,Fri 22:00-02:00 UTC").expect("a window");
        assert!(night.covers(at("2026-11-24T23:00:00.000Z")));
        assert!(night.covers(at("2026-11-26T01:59:00.000Z")), "Wednesday's goes on into Thursday");
        assert!(!night.covers(at("2026-11-26T22:30:00.000Z")));
        assert!(!night.covers(at("2026-11-23T01:00:00.000Z")), "Sunday night is not Monday's");
        let always = window("daily 00:00-24:00 UTC").expect("a window");
        assert!(always.covers(at("2026-11-24T00:00:00.000Z")) && always.covers(at("2026-11-24T23:59:59.999Z")));
        let over_the_week = window("Sat-Mon 10:00-11:00 UTC").expect("a window");
        assert!(over_the_week.covers(at("2026-11-22T10:30:00.000Z")));
        assert!(!over_the_week.covers(at("2026-11-24T10:30:00.000Z")));
    }

    #[test]
    fn what_is_no_window_says_what_is_wrong() {
        for (text, named) in [
            ("Tue 10:00-11:00", "days, hours and a time zone"),
            ("Dienstag 10:00-11:00 UTC", "names no days"),
            ("tue 10:00-11:00 UTC", "names no days"),
            ("Mon- 10:00-11:00 UTC", "names no days"),
            ("Tue 10-11 UTC", "no time of day"),
            ("Tue 10:00-10:00 UTC", "no time of day"),
            ("Tue 24:00-01:00 UTC", "no time of day"),
            ("Tue 10:60-11:00 UTC", "no time of day"),
            ("Tue +1:00-11:00 UTC", "no time of day"),
            ("Tue 10:00-11:00 Nowhere", "no time zone"),
        ] {
            let error = window(text).expect_err(text).to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
