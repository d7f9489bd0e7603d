//! A daemon's side of its service manager: the signals that it is sent, and what it tells back.
//!
//! What does not live here: what a daemon does about them.

use std::io;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval};

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
    tell(&[NotifyState::Ready]);
}

/// Tells the service manager, where there is one, how the daemon is, in a line for whoever asks `systemctl status`.
pub fn tell_status(status: &str) {
    // What follows the end of a line would be another message.
    tell(&[NotifyState::Status(&status.replace('\n', " "))]);
}

/// Tells the service manager, where there is one, that the configuration is being read again. [`tell_ready`] ends that.
pub fn tell_reloading() {
    // systemd from 253 on wants to know which of two reloads an answer belongs to.
    let moment = NotifyState::monotonic_usec_now().ok();
    tell(&[NotifyState::Reloading].into_iter().chain(moment).collect::<Vec<_>>());
}

/// Tells the service manager, where there is one, that the daemon is about to end.
pub fn tell_stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The signs of life that a service manager asked for: without one in time, it ends the daemon and starts it again.
#[derive(Debug)]
pub struct Pulse(Option<Interval>);

/// How many signs are given in the time in which there must be one.
const SIGNS: u32 = 4;

impl Pulse {
    /// As often as the service manager asks for; never, where there is none.
    pub fn new() -> Self {
        Self(sd_notify::watchdog_enabled().filter(|within| !within.is_zero()).map(|within| {
            let mut beats = interval(within / SIGNS);
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            beats
        }))
    }

    /// Waits until the next sign is due, and gives it. To be waited for in the daemon's own loop, so that a loop that stands still
    /// gives none. Nothing is lost when the wait is given up and begun again.
    pub async fn beat(&mut self) {
        match &mut self.0 {
            Some(beats) => beats.tick().await,
            None => std::future::pending().await,
        };
        tell(&[NotifyState::Watchdog]);
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
