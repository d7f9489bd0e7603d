//! `holdfast`: the operator's tool. This file is its table of contents; each command has a file or a folder of its own.

mod clock;
mod init;
mod output;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Keeps a Vault's key shares on machines of their own, and opens it again after a crash.
#[derive(Parser)]
#[command(name = "holdfast", version, propagate_version = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 78 a file that was given is refused as it is.";

#[derive(Subcommand)]
enum Command {
    Init(init::Command),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Init(command) => init::run(&command),
    }
}
