//! `holdfast drill`: the exercises in which a node is really sealed, to see it open again.
//!
//! What lives here: which commands there are. A file for each of them; where reports come from, and why they are believed, is
//! `evidence`'s, and what they are told in, `story`'s.

mod evidence;
mod list;
mod markdown;
mod page;
mod plot;
mod report;
mod story;

use std::process::ExitCode;

use clap::Subcommand;

/// Commands about drills.
#[derive(Subcommand)]
pub(crate) enum Command {
    List(list::Arguments),
    Report(report::Arguments),
}

/// Does what was asked for.
pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(arguments) => list::run(arguments),
        Command::Report(arguments) => report::run(arguments),
    }
}

#[cfg(test)]
mod tests;
