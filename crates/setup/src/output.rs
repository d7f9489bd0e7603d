//! What this program says: as every command does (`holdfast_edge::report`), in its own name.

use std::error::Error;
use std::process::ExitCode;

pub(crate) use holdfast_edge::report::{FAILED, REFUSED, USAGE, report};

/// Says what went wrong.
pub(crate) fn failure(error: &dyn Error, code: u8) -> ExitCode {
    holdfast_edge::report::failure("holdfast-setup", error, code)
}
