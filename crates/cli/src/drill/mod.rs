//! `holdfast drill`: sealing exercises, as an operator orders and reads them. One file for each command.

mod course;
mod run;

use std::process::ExitCode;

use clap::Subcommand;

/// The commands about drills.
#[derive(Subcommand)]
pub(crate) enum Command {
    Run(run::Arguments),
}

/// Carries the command out.
pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(arguments) => run::run(arguments),
    }
}
