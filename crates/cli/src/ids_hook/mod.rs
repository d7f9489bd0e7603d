//! `holdfast ids-hook`: a small receiver for alerts, with a key that may only restrict. An alert that the configuration knows orders a
//! hold, or a hold and the seal of nodes; none opens, releases or approves anything, and none names what is shut: the configuration
//! does.
//!
//! What lives here: the command, and what runs. What does not: what an alert looks like (`alerts`), who is listened to (`web`),
//! what is done (`desk`), and what is remembered of it (`memory`).

mod alerts;
mod config;
mod desk;
mod memory;
mod standing;
mod web;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use holdfast_edge::listen::Listener;
use holdfast_edge::service::{self, Order, Signals};
use tokio::sync::mpsc;

use config::Hook;
use desk::Desk;
use web::Door;

/// Notifications that may wait while one is worked on: Alertmanager sends a group again when it is told that there is no room.
const WAITING_MAX: usize = 8;

/// Listen for alerts, and hold or seal what they are about
#[derive(clap::Args)]
#[command(
    long_about = "Listen for Alertmanager's webhook, and order a hold, or a hold and the seal of nodes, for alerts that the \
                  configuration lists. It signs with a restrictor's key, of which custodians take holds and nothing else: \
                  whoever steals key, token and machine can shut things, and open nothing. What it shut, operators open.",
    after_help = "Example: holdfast ids-hook --config ids-hook.toml"
)]
pub(crate) struct Arguments {
    /// The receiver's configuration
    #[arg(long, default_value = "ids-hook.toml")]
    config: PathBuf,
    /// Look at the configuration and every file that it names, and end
    #[arg(long)]
    check: bool,
}

/// Receives alerts until SIGTERM.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let hook = Hook::load(&arguments.config)?;
    if arguments.check {
        for (name, action) in &hook.actions {
            writeln!(std::io::stdout(), "{name}: {}", action.in_words())?;
        }
        writeln!(std::io::stdout(), "the configuration of {} is sound", hook.restrictor.principal)?;
        return Ok(ExitCode::SUCCESS);
    }
    holdfast_edge::logging::init()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(receive(hook));
    // A look-up of a name that is still under way would hold up the end for as long as the resolver likes.
    runtime.shutdown_timeout(Duration::from_millis(100));
    done.map(|()| ExitCode::SUCCESS)
}

async fn receive(hook: Hook) -> anyhow::Result<()> {
    let mut signals = Signals::catch().context("signals cannot be caught")?;
    let listener = Listener::bind(hook.listen, hook.tls.clone())
        .await
        .with_context(|| format!("nothing can be received at {}: is it in use?", hook.listen))?;
    let (address, restrictor) = (listener.address(), hook.restrictor.principal.clone());
    let (jobs, mut waiting) = mpsc::channel(WAITING_MAX);
    let door = Door::new(&hook, jobs);
    let mut desk = Desk::open(hook)?;
    web::serve(listener, door);
    tokio::spawn(async move {
        loop {
            let job = tokio::select! {
                job = waiting.recv() => job,
                // Dropped when there is something to do: no alert waits for a broker that is down.
                () = desk.send_again() => continue,
            };
            match job {
                Some(job) => desk.work_on(job).await,
                None => return,
            }
        }
    });
    service::tell_ready();
    tracing::info!(%address, %restrictor, "receiving alerts");
    while signals.next().await == Order::Reload {
        tracing::warn!("the configuration is read at a start alone: restart the receiver");
    }
    service::tell_stopping();
    Ok(())
}
