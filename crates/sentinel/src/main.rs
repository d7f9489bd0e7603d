//! `holdfast-sentinel`: the daemon that watches nodes from outside, tells what it sees, and serves what it was told. It holds no
//! share and no token.

mod config;
mod driver;
mod history;
mod metrics;
mod page;
#[cfg(test)]
mod scale;
mod web;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use holdfast_edge::config::{ConfigError, EXIT_CONFIG};

use config::Config;
use driver::Driver;

/// The sentinel: watches Vault nodes, publishes what it sees, and serves metrics and status.
///
/// It holds no share and no token, and nothing that it says makes a custodian release a share.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check the configuration and every file that it names; change nothing.
    Check {
        /// The configuration file.
        #[arg(long, default_value = "/etc/holdfast/sentinel.toml")]
        config: PathBuf,
    },
    /// Run until SIGTERM. SIGHUP reads the configuration again.
    Run {
        /// The configuration file.
        #[arg(long, default_value = "/etc/holdfast/sentinel.toml")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    holdfast_edge::tls::install_provider();
    let done = match &arguments.command {
        Command::Check { config } => check(config),
        Command::Run { config } => run(config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let refused = error.downcast_ref::<ConfigError>().is_some();
            // Nowhere left to say it if this fails.
            let _ = writeln!(std::io::stderr(), "holdfast-sentinel: {error:#}");
            if refused { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

fn check(path: &Path) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    let mut out = std::io::stdout();
    for cluster in config.watches.values() {
        let (name, nodes, custodians) = (&cluster.name, cluster.nodes.len(), cluster.custodians.len());
        writeln!(out, "{name}: {nodes} nodes, {custodians} custodians, {} open a node", cluster.threshold)?;
    }
    writeln!(out, "the configuration of {} is sound", config.id)?;
    Ok(())
}

fn run(path: &Path) -> anyhow::Result<()> {
    holdfast_edge::logging::init()?;
    let config = Config::load(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async { Driver::open(path.to_owned(), config).await?.run().await });
    // A look-up of a name that is still under way would hold up the end for as long as the resolver likes.
    runtime.shutdown_timeout(Duration::from_millis(100));
    done
}
