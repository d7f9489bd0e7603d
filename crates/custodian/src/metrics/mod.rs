//! The custodian's own metrics: into a file for node_exporter, or to a Pushgateway, for sites that want its host in Prometheus
//! although nobody can connect to it.
//!
//! What lives here: the task that writes and pushes, and what becomes of failures. What does not: what is told (`text`), and the
//! configuration (`section`). Nothing waits for this task, whatever a disk or a Pushgateway does: the driver leaves heartbeats for
//! it and goes on. Nor does one of the two ways wait for the other.

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
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

#[cfg(test)]
pub(crate) use section::INTERVAL_DEFAULT;
pub(crate) use section::MetricsSection;

/// How long one writing may take before that is told of: the disk hangs.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

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
        let told = config.cloned().map(|config| tokio::spawn(tell(config, me.clone(), self.known.subscribe(), write)));
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

/// How a file is written.
trait Write: Fn(&Path, &[u8]) -> Result<(), String> + Clone + Send + 'static {}

impl<W: Fn(&Path, &[u8]) -> Result<(), String> + Clone + Send + 'static> Write for W {}

/// Writes and pushes for as long as there is somebody to tell of.
async fn tell<W: Write>(config: MetricsConfig, me: Principal, mut known: watch::Receiver<Known>, write: W) {
    // There is nothing to tell before the first heartbeat.
    if known.wait_for(|known| !known.clusters.is_empty()).await.is_err() {
        return;
    }
    let mut written = Road::new("the metrics' file");
    let writes = async {
        if let Some(path) = &config.textfile {
            write_out(path, &me, &known, (WRITE_DEADLINE, ticks(config.interval)), &mut written, write).await;
        }
    };
    let pushes = async {
        if let Some(gateway) = &config.pushgateway {
            push_out(gateway, &me, &known, ticks(config.interval)).await;
        }
    };
    tokio::join!(writes, pushes);
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Writes at each tick, but for as long as the last writing is not over: one that hangs shall hang alone.
async fn write_out<W: Write>(
    path: &Path,
    me: &Principal,
    known: &watch::Receiver<Known>,
    (deadline, mut ticks): (Duration, Interval),
    road: &mut Road,
    write: W,
) {
    loop {
        ticks.tick().await;
        let (now, me, path, write) = (known.borrow().clone(), me.clone(), path.to_owned(), write.clone());
        // Beside the one thread that releases shares: of many clusters it is much text, and a disk may hang.
        let mut wrote = spawn_blocking(move || write(&path, text::render(&me, &now).as_bytes()));
        let over = match timeout(deadline, &mut wrote).await {
            Ok(over) => over,
            Err(_) => {
                road.note(Err(format!("it is not written after {} s: does the disk hang?", deadline.as_secs_f32())));
                wrote.await
            }
        };
        if let Ok(over) = over {
            road.note(over);
        }
    }
}

async fn push_out(gateway: &Pushgateway, me: &Principal, known: &watch::Receiver<Known>, mut ticks: Interval) {
    let mut pushed = Road::new("the Pushgateway");
    loop {
        ticks.tick().await;
        let (now, me) = (known.borrow().clone(), me.clone());
        // See `write_out`.
        let Ok(text) = spawn_blocking(move || text::render(&me, &now)).await else { continue };
        pushed.note(gateway.push(text.into()).await);
    }
}

fn write(path: &Path, text: &[u8]) -> Result<(), String> {
    files::replace(path, text, TEXTFILE_MODE).map_err(|error| error.to_string())
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
