//! How a daemon logs: to stderr, lines for people at a terminal and JSON everywhere else.
//!
//! A log line is a constant sentence with fields. Payloads, shares, tokens and passwords are never among them; what is not
//! ours and would log them is silenced here.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::broker;

/// Which lines are logged, as `tracing_subscriber` writes filters: `debug`, or `info,holdfast_edge=debug`.
pub const FILTER_VARIABLE: &str = "HOLDFAST_LOG";

/// `json` or `text`, where the terminal is not to decide.
pub const FORMAT_VARIABLE: &str = "HOLDFAST_LOG_FORMAT";

/// Why logging was not set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter cannot be read.
    #[error("{FILTER_VARIABLE} is not a filter like \"info\" or \"info,holdfast_edge=debug\": {0}")]
    Filter(String),
    /// Neither of the two formats.
    #[error("{FORMAT_VARIABLE} is {0:?}: set it to \"json\" or \"text\", or not at all")]
    Format(String),
    /// It was set up before: a defect of ours.
    #[error("logging was set up twice")]
    Twice,
}

/// Sets logging up for the whole process, once, as the environment says.
pub fn init() -> Result<(), LoggingError> {
    let filter = filter(&variable(FILTER_VARIABLE))?;
    let json = json(&variable(FORMAT_VARIABLE), io::stderr().is_terminal())?;
    let lines = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(io::stderr);
    let set = match json {
        true => lines.json().flatten_event(true).finish().with(filter).try_init(),
        false => lines.finish().with(filter).try_init(),
    };
    set.map_err(|_| LoggingError::Twice)
}

/// The variable's text; empty where it is not set, or not text.
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// What is logged of which part of the program. By names and levels alone: what could be told by fields takes a library of regular
/// expressions, which is a thirtieth of a custodian.
fn filter(text: &str) -> Result<Targets, LoggingError> {
    let asked: Targets = match text {
        "" => Targets::new(),
        text => text.parse().map_err(|error: ParseError| LoggingError::Filter(error.to_string()))?,
    };
    let default = asked.default_level().unwrap_or(LevelFilter::INFO);
    let may_be_shown = |(target, _): &(String, LevelFilter)| !target.starts_with(broker::SILENCED);
    Ok(Targets::new()
        .with_targets(asked.iter().map(|(target, level)| (target.to_owned(), level)).filter(may_be_shown))
        .with_default(default)
        .with_target(broker::SILENCED, LevelFilter::OFF))
}

fn json(format: &str, terminal: bool) -> Result<bool, LoggingError> {
    match format {
        "" => Ok(!terminal),
        "json" => Ok(true),
        "text" => Ok(false),
        other => Err(LoggingError::Format(other.chars().take(40).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_or_is_refused() {
        assert!(filter("").is_ok() && filter("debug").is_ok() && filter("info,holdfast_edge=debug").is_ok());
        assert!(matches!(filter("info,holdfast_edge=loud"), Err(LoggingError::Filter(_))));
        assert!(json("", false).expect("good") && !json("", true).expect("good"));
        assert!(json("json", true).expect("good") && !json("text", false).expect("good"));
        assert!(matches!(json("xml", true), Err(LoggingError::Format(_))));
    }

    #[test]
    fn nobody_can_turn_on_the_log_of_what_the_broker_is_sent() {
        for text in ["trace,lapin=trace", "trace,lapin::channel=trace", "lapin=trace"] {
            let shown = filter(text).expect("good").to_string();
            assert!(shown.contains("lapin=off") && !shown.contains("lapin=trace") && !shown.contains("::"), "{shown}");
        }
    }
}
