//! What the commands say: a text for people or JSON for programs on standard output, and what went wrong on the other.

use std::error::Error;
use std::fmt::Display;
use std::process::ExitCode;

use serde::Serialize;

/// A file that was given is refused as it is: the exit code that means "configuration" on Unix.
pub(crate) const REFUSED: u8 = 78;

/// The arguments do not fit each other or what is there: clap's own code for wrong usage.
pub(crate) const USAGE: u8 = 2;

/// Whatever else went wrong.
pub(crate) const FAILED: u8 = 1;

/// Says what was done.
#[expect(clippy::print_stdout, reason = "what a command reports is its output")]
pub(crate) fn report(json: bool, report: &(impl Serialize + Display)) -> ExitCode {
    if json {
        println!("{}", serde_json::to_string_pretty(report).expect("strings and numbers always become JSON"));
    } else {
        println!("{report}");
    }
    ExitCode::SUCCESS
}

/// Says what went wrong.
#[expect(clippy::print_stderr, reason = "what went wrong goes to standard error")]
pub(crate) fn failure(error: &dyn Error, code: u8) -> ExitCode {
    eprintln!("holdfast-setup: {error}");
    ExitCode::from(code)
}
