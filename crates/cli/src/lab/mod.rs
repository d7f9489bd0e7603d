//! `holdfast lab up` and `lab down`: a real network on one machine, that any script can kill, cut off and start again.
//!
//! What lives here: the servers (OpenBao, RabbitMQ), their certificates and ports, the configuration of every party, the
//! ceremony walked with the real commands, and `lab.json`, which tells a script where everything is. What does not: any
//! rule of Holdfast's. The lab knows its parties from outside, as a person at a keyboard does.

mod again;
pub(crate) mod assembly;
mod certificates;
pub(crate) mod down;
pub(crate) mod file;
pub(crate) mod journal;
mod layout;
mod network;
mod openbao;
mod ports;
pub(crate) mod process;
pub(crate) mod progress;
pub(crate) mod rabbitmq;
mod root_token;
mod seal_token;
pub(crate) mod tools;
pub(crate) mod up;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

/// The lab's two commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Starts the servers, walks the ceremony, and returns when every node is open and every custodian ready
    Up(UpArgs),
    /// Ends what `lab up` started, by process id, and nothing else
    Down(DownArgs),
}

/// What `lab up` is asked for.
#[derive(clap::Args)]
pub(crate) struct UpArgs {
    /// The lab's folder: new, empty, or a stopped lab's, which is emptied first
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// How many custodians, each with one share
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(2..=i64::from(CUSTODIANS_MAX)))]
    pub(crate) custodians: u8,
    /// How many shares open a node
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=i64::from(CUSTODIANS_MAX)))]
    pub(crate) threshold: u8,
    /// How many Vault nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=i64::from(NODES_MAX)))]
    pub(crate) nodes: u8,
    /// How many sentinels, each with eyes of its own: either may die
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(SENTINELS_MAX)))]
    pub(crate) sentinels: u8,
    /// Without RabbitMQ: the custodians poll
    #[arg(long)]
    pub(crate) no_broker: bool,
    /// How many of the custodians conduct drills: the broker elects one of them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(CUSTODIANS_MAX)))]
    pub(crate) conductors: u8,
    /// When the conductors hold drills by themselves: a cron pattern in UTC, like "*/2 * * * *"; never, where it is left out
    #[arg(long, value_name = "CRON", conflicts_with = "no_broker")]
    pub(crate) schedule: Option<String>,
    /// Prints lab.json on stdout when done
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `lab down` is asked for.
#[derive(clap::Args)]
pub(crate) struct DownArgs {
    /// The lab's folder
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Also ends those that somebody has started again since, with the argv that lab.json gives
    #[arg(long)]
    pub(crate) restarted: bool,
    /// Prints what was ended on stdout as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The most custodians a lab has: a process each, on a machine that also carries the servers.
const CUSTODIANS_MAX: u8 = 20;
/// The most Vault nodes a lab has: 120 MB each.
const NODES_MAX: u8 = 7;
/// The most sentinels a lab has: two are what docs/OPERATIONS.md recommends, and a third shows that nothing hangs on the number.
const SENTINELS_MAX: u8 = 3;

/// The exit code for a command that cannot be meant.
const WRONG_USAGE: u8 = 2;

/// Carries the command out; a failure is told on stderr.
pub(crate) fn run(command: Command) -> ExitCode {
    let done = match command {
        Command::Up(args) => up::run(&args).map_err(anyhow::Error::from),
        Command::Down(args) => down::run(&args).map_err(anyhow::Error::from),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.downcast_ref::<up::UpError>().is_some_and(up::UpError::is_usage) => {
            let _ = writeln!(std::io::stderr(), "holdfast: {e:#}");
            ExitCode::from(WRONG_USAGE)
        }
        Err(e) => {
            // If stderr is gone there is nobody left to tell.
            let _ = writeln!(std::io::stderr(), "holdfast: {e:#}");
            ExitCode::FAILURE
        }
    }
}
