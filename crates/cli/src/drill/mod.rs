//! `holdfast drill`: the exercises in which a node is really sealed, to see it open again, as an operator orders and reads them.
//!
//! What lives here: which commands there are. A file for each of them; where reports come from, and why they are believed, is
//! `evidence`'s, and what they are told in, `story`'s.

mod course;
mod evidence;
mod list;
mod markdown;
mod page;
mod plot;
mod report;
mod run;
mod story;

use std::process::ExitCode;

use clap::Subcommand;

/// The commands about drills.
#[derive(Subcommand)]
pub(crate) enum Command {
    Run(run::Arguments),
    List(list::Arguments),
    Report(report::Arguments),
}

/// Carries the command out.
pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(arguments) => run::run(arguments),
        Command::List(arguments) => list::run(arguments),
        Command::Report(arguments) => report::run(arguments),
    }
}

#[cfg(test)]
mod tests;
