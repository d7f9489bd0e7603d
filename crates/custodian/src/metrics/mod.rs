//! The custodian's own metrics: into a file for node_exporter, or to a Pushgateway, for sites that want its host in Prometheus
//! although nobody can connect to it.
//!
//! What lives here: the task that writes and pushes, and what becomes of failures. What does not: what is told (`text`), and the
//! configuration (`section`). Nothing waits for this task, whatever a disk or a Pushgateway does: the driver leaves heartbeats for
//! it and goes on.

mod section;
mod text;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_core::id::{ClusterName, Principal};
use holdfast_core::message::Heartbeat;
use holdfast_core::time::Timestamp;
use holdfast_edge::files;
use holdfast_edge::pushgateway::Pushgateway;
use tokio::sync::watch;
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

#[cfg(test)]
pub(crate) use section::INTERVAL_DEFAULT;
pub(crate) use section::MetricsSection;

/// The permissions of the file: node_exporter runs as a user of its own.
pub(crate) const TEXTFILE_MODE: u32 = 0o644;

/// Where the custodian's own metrics go.
#[derive(Debug, Clone)]
pub(crate) struct MetricsConfig {
    /// The file that node_exporter reads.
    pub(crate) textfile: Option<PathBuf>,
    /// The Pushgateway.
    pub(crate) pushgateway: Option<Pushgateway>,
    /// The time between two writings.
    pub(crate) interval: Duration,
}

impl MetricsConfig {
    /// The folder of the file.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.textfile.as_deref().map(section::folder_of)
    }
}

/// What the custodian last said of itself.
#[derive(Debug, Clone, Default)]
struct Known {
    /// Of each cluster its last heartbeat, and when it was made.
    clusters: BTreeMap<ClusterName, (Timestamp, Heartbeat)>,
    /// Whether it is connected to the broker; none where there is none.
    broker_up: Option<bool>,
}

/// Where the driver leaves what is to be told.
#[derive(Debug)]
pub(crate) struct Metrics {
    known: watch::Sender<Known>,
    task: Option<AbortHandle>,
}

impl Metrics {
    /// Nothing is known, and nothing told yet.
    pub(crate) fn new() -> Self {
        Self { known: watch::Sender::new(Known::default()), task: None }
    }

    /// Tells from now on what this configuration says, of what is noted from now on.
    pub(crate) fn start(&mut self, config: Option<&MetricsConfig>, me: &Principal, has_broker: bool) {
        self.stop();
        self.known.send_replace(Known { broker_up: has_broker.then_some(false), ..Known::default() });
        let told = config.cloned().map(|config| tokio::spawn(tell(config, me.clone(), self.known.subscribe())));
        self.task = told.map(|task| task.abort_handle());
    }

    /// The custodian has made a heartbeat.
    pub(crate) fn note_heartbeat(&self, cluster: ClusterName, heartbeat: &Heartbeat, at: Timestamp) {
        if self.task.is_some() {
            self.known.send_modify(|known| drop(known.clusters.insert(cluster, (at, heartbeat.clone()))));
        }
    }

    /// It is connected to the broker, or is not any more.
    pub(crate) fn note_broker(&self, up: bool) {
        self.known.send_modify(|known| known.broker_up = Some(up));
    }

    fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Writes and pushes for as long as there is somebody to tell of.
async fn tell(config: MetricsConfig, me: Principal, mut known: watch::Receiver<Known>) {
    // There is nothing to tell before the first heartbeat.
    if known.wait_for(|known| !known.clusters.is_empty()).await.is_err() {
        return;
    }
    let mut ticks = interval(config.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut written, mut pushed) = (Road::new("the metrics' file"), Road::new("the Pushgateway"));
    loop {
        ticks.tick().await;
        let (now, me, path) = (known.borrow().clone(), me.clone(), config.textfile.clone());
        // Beside the one thread that releases shares: of many clusters it is much text, and a disk may hang.
        let wrote = spawn_blocking(move || {
            let text = text::render(&me, &now);
            let wrote = path.map(|path| write(&path, text.as_bytes()));
            (text, wrote)
        });
        let Ok((text, wrote)) = wrote.await else { continue };
        if let Some(wrote) = wrote {
            written.note(wrote);
        }
        if let Some(gateway) = &config.pushgateway {
            pushed.note(gateway.push(text.into()).await);
        }
    }
}

fn write(path: &Path, text: &[u8]) -> Result<(), files::FileError> {
    files::replace(path, text, TEXTFILE_MODE)
}

/// One of the two ways, and how often it has failed since it last worked. The log has the first failure and the end of them.
struct Road {
    name: &'static str,
    failures: u64,
}

impl Road {
    fn new(name: &'static str) -> Self {
        Self { name, failures: 0 }
    }

    fn note<E: Display>(&mut self, result: Result<(), E>) {
        match result {
            Ok(()) if self.failures > 0 => {
                let failures = std::mem::take(&mut self.failures);
                tracing::info!(to = self.name, failures, "this custodian's metrics are told again");
            }
            Ok(()) => {}
            Err(error) => {
                self.failures += 1;
                if self.failures == 1 {
                    tracing::warn!(to = self.name, %error, "this custodian's metrics cannot be told: tried again in silence");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
