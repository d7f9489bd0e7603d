//! What the commands say: a text for people or JSON for programs on standard output, and what went wrong on the other.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::config::EXIT_CONFIG;

/// A file that was given is refused as it is.
pub const REFUSED: u8 = EXIT_CONFIG;

/// The arguments do not fit each other or what is there: clap's own code for wrong usage.
pub const USAGE: u8 = 2;

/// Whatever else went wrong.
pub const FAILED: u8 = 1;

/// Says what was done.
#[expect(clippy::print_stderr, reason = "what went wrong goes to standard error")]
pub fn report(json: bool, report: &(impl Serialize + Display)) -> ExitCode {
    let text = match json {
        true => serde_json::to_string_pretty(report).expect("strings and numbers always become JSON"),
        false => report.to_string(),
    };
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        // It was done all the same. Whoever has read enough (`| head`) knows what they have not read.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("it is done, and its report cannot be written to standard output: {error}");
            ExitCode::from(FAILED)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Says what went wrong, in this program's name.
#[expect(clippy::print_stderr, reason = "what went wrong goes to standard error")]
pub fn failure(program: &str, error: &dyn Error, code: u8) -> ExitCode {
    eprintln!("{program}: {error}");
    ExitCode::from(code)
}
