//! `holdfast-custodian`: the daemon that keeps one share of each cluster, and releases it when all six locks hold.

mod check;
mod config;
mod driver;
mod inbox;
mod kernel;
mod logbook;
mod metrics;
mod release;
mod sandbox;
mod schedule;

use std::alloc::System;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use holdfast_core::custodian::BootId;
use holdfast_edge::config::{ConfigError, EXIT_CONFIG};
use holdfast_edge::files::CREDENTIALS;
use zeroizing_alloc::ZeroAlloc;

use config::{Config, SandboxMode};
use driver::{Driver, Host};

/// The share passes through this process, and the libraries that decrypt and send it leave copies in what they free.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

/// The custodian: keeps one share of each cluster, and releases it when all six locks hold.
///
/// It has no inbound port. It watches its nodes and a message queue, decides for itself, and submits its share to a node
/// that crashed; after a deliberate seal it waits for operators' approval.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Look for everything that could be wrong before the first crash, and say what to do; change nothing.
    ///
    /// Looks at the configuration and every file that it names, tries the share, the sandbox, each node and the broker. No share is
    /// sent, no message taken or published. A conductor's token is shown to the nodes, and renewed, as the running custodian does each day. Exit codes: 0 nothing failed, 1 something did, 78 the configuration is refused.
    Check(check::Arguments),
    /// Try the sandbox in this process, and say what came of it.
    #[command(hide = true)]
    TrySandbox {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Run until SIGTERM. SIGHUP reads configuration and shares again.
    Run {
        /// The configuration file.
        #[arg(long, default_value = "/etc/holdfast/custodian.toml")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    // No core file, no debugger of this user's, no rights by executing: before a key is read, of `check` too, which takes the share out, and of a `run`
    // without a sandbox. Where the kernel refuses, it is as it was; a sandbox does not start like that.
    for forbid in [kernel::forbid_dumping, kernel::limit_core_dumps, kernel::forbid_new_privileges] {
        let _ = forbid();
    }
    let arguments = Arguments::parse();
    holdfast_edge::tls::install_provider();
    let done = match &arguments.command {
        Command::Check(arguments) => check::run(arguments),
        Command::TrySandbox { config } => check::try_sandbox(config),
        Command::Run { config } => run(config).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            let refused = error.downcast_ref::<ConfigError>().is_some();
            // Nowhere left to say it if this fails.
            let _ = writeln!(std::io::stderr(), "holdfast-custodian: {error:#}");
            if refused { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

fn run(path: &Path) -> anyhow::Result<()> {
    holdfast_edge::logging::init()?;
    let config = Config::load(path)?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.state_dir)
        .with_context(|| format!("the state folder {} cannot be made", config.state_dir.display()))?;
    let boot = BootId(kernel::boot_id().context("the kernel's boot id cannot be read")?);
    // Before any thread, and before anything is read from the network.
    let sandbox = match config.sandbox {
        SandboxMode::Enforce => Some(sandbox::enforce(&config.sandbox())?),
        SandboxMode::Off => {
            tracing::warn!("sandbox = \"off\": this custodian runs without one, and is never ready");
            None
        }
    };
    for identity in config.clusters.values().map(|files| files.store.identity_path()) {
        if !identity.starts_with(CREDENTIALS) {
            tracing::warn!(
                file = %identity.display(),
                "the age identity is a plain file beside the share: a thief of this disk has both; give it as a systemd credential"
            );
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async { Driver::open(path.to_owned(), config, Host { boot, sandbox })?.run().await });
    // A look-up of a name that is still under way would hold up the end for as long as the resolver likes.
    runtime.shutdown_timeout(Duration::from_millis(100));
    done
}
