//! `holdfast`: the operator's tool. This file is its table of contents; each command has a file or a folder of its own.

mod lab;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Keeps a Vault's key shares on machines of their own, and opens it again after a crash.
#[derive(Parser)]
#[command(name = "holdfast", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A real network on this machine: Vault nodes, broker, custodians and sentinel on loopback
    #[command(subcommand)]
    Lab(lab::Command),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Lab(command) => lab::run(command),
    }
}
