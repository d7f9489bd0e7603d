//! A daemon's side of its service manager: the signals that it is sent, and what it tells back.
//!
//! What does not live here: what a daemon does about them.

use std::io;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a daemon may be told by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// SIGHUP: read configuration and files again.
    Reload,
    /// SIGTERM or SIGINT: end in good order.
    Stop,
}

/// The signals that a daemon heeds, from now on.
#[derive(Debug)]
pub struct Signals {
    reload: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches them. Fails where the kernel gives no handler or pipe for it.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next one. Nothing is lost when the wait is given up and begun again.
    pub async fn next(&mut self) -> Order {
        tokio::select! {
            Some(()) = self.terminate.recv() => Order::Stop,
            Some(()) = self.interrupt.recv() => Order::Stop,
            Some(()) = self.reload.recv() => Order::Reload,
            else => std::future::pending().await,
        }
    }
}

/// Tells the service manager, where there is one, that the daemon has started.
pub fn tell_ready() {
    tell(NotifyState::Ready);
}

/// Tells the service manager, where there is one, that the daemon is about to end.
pub fn tell_stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
