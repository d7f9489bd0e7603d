//! `holdfast`: the operator's tool. This file is its table of contents; each command has a file or a folder of its own.

mod adopt;
mod approve;
mod audit;
mod broker;
mod demo;
mod doctor;
mod drill;
mod ids_hook;
mod init;
mod lab;
mod operator;
mod order;
mod output;
mod status;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use holdfast_core::message::plain_lines;
use holdfast_edge::config::{ConfigError, EXIT_CONFIG};
use holdfast_edge::terminal;

/// Keeps a Vault's key shares on machines of their own, and opens it again after a crash.
#[derive(Parser)]
#[command(name = "holdfast", version, propagate_version = true, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 78 a file that was given is refused as it is.";

#[derive(Subcommand)]
enum Command {
    Init(init::Arguments),
    Adopt(adopt::Arguments),
    /// Sign your consent to open sealed nodes, once, within minutes
    Approve(approve::Arguments),
    /// Keep a cluster or nodes of it shut, whatever happens to them
    Hold(order::hold::Arguments),
    /// Say that a hold may end
    Release(order::release::Arguments),
    /// Seal every node, and hold the cluster shut
    Seal(order::seal::Arguments),
    IdsHook(ids_hook::Arguments),
    /// Make the word of a captured custodian or sentinel count for nothing
    Distrust(order::distrust::Arguments),
    /// Put another allowed_signers file in force at the custodians
    Trust(order::trust::Arguments),
    /// Sealing exercises: order one, and see how it goes
    #[command(subcommand)]
    Drill(drill::Command),
    /// What the sentinel knows: would it open by itself, and what waits for whom
    Status(status::Arguments),
    Doctor(doctor::Arguments),
    /// Custodians' audit logs, carried away to be looked at
    #[command(subcommand)]
    Audit(audit::Command),
    /// What the message queue has to be told
    #[command(subcommand)]
    Broker(broker::Command),
    /// A real network on this machine: Vault nodes, broker, custodians and sentinel on loopback
    #[command(subcommand)]
    Lab(lab::Command),
    Demo(demo::Arguments),
    /// Print a shell's completions
    Completions {
        /// The shell
        shell: Shell,
    },
}

fn main() -> ExitCode {
    holdfast_edge::tls::install_provider();
    let done = match Cli::parse().command {
        Command::Init(arguments) => return init::run(&arguments),
        Command::Adopt(arguments) => return adopt::run(&arguments),
        Command::Approve(arguments) => approve::run(&arguments),
        Command::Hold(arguments) => order::hold::run(&arguments),
        Command::Release(arguments) => order::release::run(&arguments),
        Command::Seal(arguments) => order::seal::run(&arguments),
        Command::IdsHook(arguments) => ids_hook::run(&arguments),
        Command::Distrust(arguments) => order::distrust::run(&arguments),
        Command::Trust(arguments) => order::trust::run(&arguments),
        Command::Drill(command) => drill::run(&command),
        Command::Status(arguments) => status::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Audit(command) => audit::run(&command),
        Command::Broker(command) => broker::run(&command),
        Command::Lab(command) => return lab::run(command),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "holdfast", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    };
    // A passphrase may still be asked for, when an emergency did not wait for it.
    terminal::give_back();
    done.unwrap_or_else(|error| {
        // It may quote what a sentinel or a server answered. Nowhere left to say it if this fails.
        let _ = writeln!(std::io::stderr(), "holdfast: {}", plain_lines(&format!("{error:#}")));
        if error.downcast_ref::<ConfigError>().is_some() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_can_be_read() {
        Cli::command().debug_assert();
    }
}
