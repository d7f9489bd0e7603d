//! The driver: tells the core what happened, and carries out what it says, in order.
//!
//! No decision is made here. What is here is the order in which things reach the disk, the network and the core, and what
//! becomes of the process: start, reload, stop.

mod drills;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use holdfast_core::custodian::{BootId, BrokerNews, Custodian, Entry, Outcome, Output, RESTART_PROVABLE, Start, State};
use holdfast_core::id::{ClusterId, MessageId, NodeName};
use holdfast_core::message::{Content, Lock};
use holdfast_core::release::{Attempt, Grounds, ReleaseOrder};
use holdfast_core::topology::{Exchange, conductor_queue, orders_queue, peers_queue, routing_key};
use holdfast_edge::broker::Outgoing;
use holdfast_edge::broker::{Broker, BrokerEvent, BrokerHandle, BrokerSettings, Delivery};
use holdfast_edge::clock::Clock;
use holdfast_edge::config::ConfigError;
use holdfast_edge::files;
use holdfast_edge::node::{self, NodeHandle, NodeReport, Report};
use holdfast_edge::outgoing::seal_message;
use holdfast_edge::service::{self, Order, Pulse, Signals};
use holdfast_edge::vault::canary::Salt;
use holdfast_edge::vault::release::Expected;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};

use crate::config::{Config, SandboxMode};
use crate::inbox;
use crate::kernel;
use crate::logbook::{Checked, Logbook};
use crate::metrics::{Metrics, MetricsConfig};
use crate::release::{self, Release};
use crate::sandbox::Enforced;
use drills::{Conductors, Exercised};

/// The state file's name in the state folder.
pub(crate) const STATE_FILE: &str = "state.json";

/// The largest state file that is read: 64 clusters of 64 nodes with all their approvals and orders are below.
const STATE_MAX: usize = 64 * 1024 * 1024;

/// How many reports of nodes may wait: each node has at most a few under way.
const REPORTS_MAX: usize = 1024;

/// How often the inbox is looked into.
const INBOX_INTERVAL: Duration = Duration::from_secs(1);

/// How often the clock is asked whether it is synchronised, and shares that were not sound are tried again.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// After how many checks sound shares are tried again as well.
const CHECKS_PER_SHARE: u32 = 10;

type Key = (ClusterId, NodeName);

/// The running custodian.
pub(crate) struct Driver {
    config_path: PathBuf,
    config: Config,
    clock: Clock,
    sandbox: Option<Enforced>,
    core: Custodian,
    logbook: Logbook,
    /// Whether the core's state has to be written, and whether the last try reached the disk.
    dirty: bool,
    /// What came from the broker and is not acknowledged yet; the broker hands out only so many.
    unsaved: Vec<Delivery>,
    state_ok: bool,
    nodes: BTreeMap<Key, NodeHandle>,
    reports_in: mpsc::Sender<NodeReport<Key>>,
    reports: mpsc::Receiver<NodeReport<Key>>,
    outcomes_in: mpsc::UnboundedSender<(Attempt, Outcome)>,
    outcomes: mpsc::UnboundedReceiver<(Attempt, Outcome)>,
    broker: Option<(BrokerHandle, mpsc::Receiver<BrokerEvent>)>,
    metrics: Metrics,
    unsound: BTreeSet<ClusterId>,
    /// Whether the service manager was told that the custodian has started.
    ready: bool,
    checks: u32,
    conductors: Conductors,
}

/// What a start finds on the host before the sandbox closes it off.
pub(crate) struct Host {
    /// The kernel's id of this boot.
    pub(crate) boot: BootId,
    /// Whether the sandbox is in force.
    pub(crate) sandbox: Option<Enforced>,
}

enum Happened {
    Report(NodeReport<Key>),
    Outcome(Attempt, Outcome),
    Broker(BrokerEvent),
    Inbox,
    Check,
    LogChecked(Checked),
    Timeout,
    Ordered(Order),
    Beat,
    Exercised(Exercised),
}

impl Driver {
    /// Opens what is on disk, and makes the core. Nothing is connected yet.
    pub(crate) fn open(config_path: PathBuf, mut config: Config, host: Host) -> anyhow::Result<Self> {
        let clock = Clock::start();
        config.settings.sandbox = host.sandbox.as_ref().map(Enforced::parts).unwrap_or_default();
        inbox::prepare(&config.state_dir).context("the inbox folder cannot be made")?;
        let logbook = Logbook::open(&config.state_dir)?;
        let state = read_state(&config)?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|e| anyhow::anyhow!("the system gave no random numbers: {e}"))?;
        let salt = Salt::random().map_err(|e| anyhow::anyhow!("the system gave no random numbers: {e}"))?;
        let clock_synchronised = kernel::clock_synchronised();
        let start = Start { boot: host.boot, clock_synchronised, seed, audit: logbook.report(true) };
        let core = Custodian::new(config.settings.clone(), state, start, clock.now());
        let (reports_in, reports) = mpsc::channel(REPORTS_MAX);
        #[expect(
            clippy::disallowed_methods,
            reason = "an outcome for each order that is out, and that is one for each node"
        )]
        let (outcomes_in, outcomes) = mpsc::unbounded_channel();
        Ok(Self {
            config_path,
            config,
            clock,
            sandbox: host.sandbox,
            core,
            logbook,
            dirty: false,
            unsaved: Vec::new(),
            state_ok: true,
            nodes: BTreeMap::new(),
            reports_in,
            reports,
            outcomes_in,
            outcomes,
            broker: None,
            metrics: Metrics::new(),
            unsound: BTreeSet::new(),
            ready: false,
            checks: 0,
            conductors: Conductors::new(salt),
        })
    }

    /// Runs until it is told to stop.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut signals = Signals::catch().context("signals cannot be caught")?;
        let mut pulse = Pulse::new();
        let mut inbox = ticks(INBOX_INTERVAL);
        let mut check = ticks(CHECK_INTERVAL);
        check.reset();
        self.try_shares(|_| true);
        self.start_nodes();
        self.start_broker();
        self.start_metrics();
        self.plan_drills();
        self.renew_tokens();
        self.tell_service_manager();
        let parts: Vec<_> = self.config.settings.sandbox.iter().map(|part| part.as_str()).collect();
        let sandbox = if parts.is_empty() { "off".to_owned() } else { parts.join(" ") };
        tracing::info!(custodian = %self.config.id, sandbox, "custodian started");
        loop {
            self.carry_out_all();
            // There is always a heartbeat to come; were there none, the inbox's ticks would still wake it.
            let idle = self.clock.now().steady + INBOX_INTERVAL;
            let wake = self.clock.instant(self.core.next_timeout().unwrap_or(idle));
            let wake = self.logbook.flush_at().map_or(wake, |at| wake.min(at));
            let wake = self.drill_due_at().map_or(wake, |at| wake.min(at));
            let happened = tokio::select! {
                Some(report) = self.reports.recv() => Happened::Report(report),
                Some((attempt, outcome)) = self.outcomes.recv() => Happened::Outcome(attempt, outcome),
                Some(event) = next_event(&mut self.broker) => Happened::Broker(event),
                _ = inbox.tick() => Happened::Inbox,
                _ = check.tick() => Happened::Check,
                Some(exercised) = self.conductors.recv() => Happened::Exercised(exercised),
                checked = self.logbook.checked() => Happened::LogChecked(checked),
                () = sleep_until(wake.into()) => Happened::Timeout,
                order = signals.next() => Happened::Ordered(order),
                () = pulse.beat() => Happened::Beat,
            };
            let now = self.clock.now();
            match happened {
                Happened::Report(NodeReport { key, report }) => self.hear_node(key, report),
                Happened::Outcome(attempt, outcome) => self.core.handle_release(&attempt, outcome, now),
                Happened::Broker(event) => self.hear_broker(event),
                Happened::Inbox => {
                    self.read_inbox();
                    self.logbook.look(now.wall);
                    self.report_audit();
                }
                Happened::Check => self.check(),
                Happened::LogChecked(checked) => {
                    self.logbook.handle_checked(checked, now.wall);
                    self.report_audit();
                }
                Happened::Exercised(exercised) => self.handle_exercised(exercised),
                Happened::Timeout => self.core.handle_timeout(now),
                Happened::Beat => {}
                Happened::Ordered(Order::Reload) => {
                    service::tell_reloading();
                    self.reload();
                    self.tell_service_manager();
                }
                Happened::Ordered(Order::Stop) => break,
            }
            self.announce_due();
            if self.logbook.flush_if_due(now.wall) {
                self.report_audit();
            }
        }
        self.stop().await
    }

    /// When the next drill of a schedule is due, on the steady clock.
    fn drill_due_at(&self) -> Option<std::time::Instant> {
        let now = self.clock.now();
        Some(self.clock.instant(now.steady + self.conductors.next_due()?.since(now.wall)))
    }

    fn hear_node(&mut self, (cluster, name): Key, report: Report) {
        let now = self.clock.now();
        match &report {
            Report::Identity { not_after } => self.core.handle_identity(cluster, &name, Ok(*not_after), now),
            Report::IdentityRefused(why) => {
                tracing::warn!(node = %name, why, "somebody answers at the node's address who is not the node");
                self.core.handle_identity(cluster, &name, Err(why.clone()), now);
            }
            Report::Lost(_, why) | Report::Refused(_, why) => {
                tracing::debug!(node = %name, why, "no contact with the node");
            }
            Report::Ticket(_) | Report::Status(..) | Report::Declined(_) | Report::Side(_) => {}
        }
        self.core.handle_sight(cluster, &name, now, |sight| node::drive(&report, sight, now));
    }

    fn hear_broker(&mut self, event: BrokerEvent) {
        let now = self.clock.now();
        match event {
            BrokerEvent::Up => {
                tracing::info!("connected to the broker");
                self.metrics.note_broker(true);
                self.core.handle_broker(BrokerNews::Up, now);
            }
            BrokerEvent::Down { why } => {
                tracing::warn!(%why, "no connection to the broker");
                self.metrics.note_broker(false);
                self.conductors.forget_deliveries();
                self.core.handle_broker(BrokerNews::Down, now);
            }
            BrokerEvent::Drained { queue } if queue == orders_queue(&self.config.id) => {
                self.core.handle_broker(BrokerNews::OrdersDrained, now);
            }
            BrokerEvent::QueueRefused { queue, why } => tracing::error!(queue, why, "a queue cannot be read"),
            BrokerEvent::Undelivered { routing_key, why } => {
                tracing::warn!(routing_key, %why, "a report was not delivered");
            }
            BrokerEvent::Delivery(delivery) if self.is_conductor_queue(&delivery.queue) => self.hear_slot(delivery),
            BrokerEvent::Delivery(delivery) => self.hear_delivery(delivery),
            _ => {}
        }
    }

    fn hear_delivery(&mut self, delivery: Delivery) {
        match &delivery.body {
            Ok(bytes) => self.hear_message(bytes),
            Err(oversized) => {
                tracing::warn!(bytes = oversized.bytes, "a message was refused: it is larger than any that is sent");
                self.core.count_refusal("oversized");
            }
        }
        // Acknowledged when what it changed is on disk; if the process dies before, it comes again.
        self.unsaved.push(delivery);
        self.carry_out_all();
    }

    fn hear_message(&mut self, bytes: &[u8]) {
        if let Err(refused) = self.core.handle_message(bytes, self.clock.now()) {
            tracing::warn!(reason = refused.reason(), why = %refused, "a message was refused");
        }
    }

    fn read_inbox(&mut self) {
        let delivered = match inbox::look(&self.config.state_dir) {
            Ok(delivered) => delivered,
            Err(error) => return tracing::error!(%error, "the inbox cannot be read"),
        };
        for file in delivered {
            match &file.bytes {
                Ok(bytes) => self.hear_message(bytes),
                Err(why) => {
                    tracing::warn!(why, "a delivered file was refused");
                    self.core.count_refusal("malformed");
                }
            }
            self.carry_out_all();
            if self.state_ok
                && let Err(error) = file.remove()
            {
                tracing::error!(%error, "a delivered file cannot be removed, and will be read again");
            }
        }
    }

    fn check(&mut self) {
        self.renew_tokens();
        self.core.handle_clock(kernel::clock_synchronised());
        self.checks += 1;
        let all = self.checks.is_multiple_of(CHECKS_PER_SHARE);
        let unsound = self.unsound.clone();
        self.try_shares(|cluster| all || unsound.contains(cluster));
        self.tell_service_manager();
    }

    /// Started, for the service manager, is a custodian that has proven a share and so could release one; whether it reaches anybody is
    /// not asked. Should no share be sound it is not ended either: each is tried again, and the status says so meanwhile.
    fn tell_service_manager(&mut self) {
        let unsound: Vec<_> = self.unsound.iter().filter_map(|id| self.config.settings.clusters.get(id)).collect();
        let names: Vec<_> = unsound.iter().map(|cluster| cluster.name.as_str()).collect();
        service::tell_status(&match names.is_empty() {
            true => "every share is sound".to_owned(),
            false => format!("no sound share of {}: the log says why, and each is tried again", names.join(", ")),
        });
        self.ready |= unsound.len() < self.config.clusters.len();
        if self.ready {
            service::tell_ready();
        }
    }

    fn try_shares(&mut self, which: impl Fn(&ClusterId) -> bool) {
        let now = self.clock.now();
        for (id, cluster) in self.config.clusters.iter().filter(|(id, _)| which(id)) {
            let Some(settings) = self.config.settings.clusters.get(id) else { continue };
            let sound = match cluster.store.unlock(*id, settings.generation, &self.config.id) {
                Ok(share) => Some(share.share().x()),
                Err(error) => {
                    tracing::error!(cluster = %settings.name, %error, "the share cannot be used");
                    None
                }
            };
            if sound.is_some() {
                self.unsound.remove(id)
            } else {
                self.unsound.insert(*id)
            };
            self.core.handle_share(*id, sound, now);
        }
    }

    fn start_nodes(&mut self) {
        for (cluster, files) in &self.config.clusters {
            for (name, identity) in &files.nodes {
                let key = (*cluster, name.clone());
                let spawn = || node::spawn(identity.clone(), key.clone(), self.reports_in.clone());
                self.nodes.entry(key.clone()).or_insert_with(spawn);
            }
        }
    }

    fn start_broker(&mut self) {
        let me = &self.config.id;
        let conducted = self.config.conductors.keys().map(|cluster| conductor_queue(*cluster));
        self.broker = self.config.broker.as_ref().map(|broker| {
            Broker::spawn(BrokerSettings {
                url: broker.url.clone(),
                username: broker.username.to_string(),
                password: broker.password.clone(),
                tls: broker.tls.clone(),
                queues: [orders_queue(me), peers_queue(me)].into_iter().chain(conducted.clone()).collect(),
                connection_name: format!("holdfast-custodian {me}"),
            })
        });
    }

    fn start_metrics(&mut self) {
        let (config, me) = (self.config.metrics.as_ref(), &self.config.id);
        self.metrics.start(config, me, self.config.broker.is_some());
    }

    /// Carries out everything that the core asks for.
    fn carry_out_all(&mut self) {
        while let Some(output) = self.core.poll_output() {
            self.carry_out(output);
        }
        self.save_if_dirty();
        if !self.dirty {
            self.unsaved.drain(..).for_each(Delivery::ack);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Watch { cluster, node, action } => {
                if let Some(handle) = self.nodes.get(&(cluster, node)) {
                    handle.act(action);
                }
            }
            Output::Save => self.dirty = true,
            Output::Audit(entry) => self.append(&entry),
            Output::Publish { cluster, content } => {
                if matches!(content, Content::Acknowledgement(_) | Content::DrillReport(_)) {
                    self.save_if_dirty();
                    if !self.state_ok {
                        return tracing::error!("what was decided is not told: the state file cannot be written");
                    }
                }
                self.publish(cluster, content);
            }
            Output::Release(order) => self.release(order),
            Output::Announce { header, intent } => self.announce(header, intent),
            Output::Survey { cluster } => self.survey(cluster),
            Output::Seal(order) => self.seal(order),
            Output::Unwatch(drill) => self.unwatch(drill),
            Output::Settled { cluster, slot } => self.settle(cluster, slot),
            Output::Reset { cluster, node } => self.reset(cluster, node),
            Output::RestartProvable { cluster, node } => {
                let cluster = self.config.settings.clusters.get(&cluster).map(|settings| settings.name.as_str());
                tracing::info!(cluster, node = %node, "{RESTART_PROVABLE}");
            }
        }
    }

    fn release(&mut self, order: ReleaseOrder) {
        let attempt = order.attempt().clone();
        self.save_if_dirty();
        let recorded = if self.state_ok {
            let cluster = self.config.settings.clusters.get(&attempt.cluster);
            let details = Details::of(cluster.map(|cluster| cluster.generation), order.authority.grounds());
            self.logbook.record(self.clock.now().wall, &attempt, &details).map_err(|error| error.to_string())
        } else {
            Err("the state file cannot be written".to_owned())
        };
        self.report_audit();
        let record = match recorded {
            Ok(record) => record,
            Err(why) => {
                tracing::error!(node = %attempt.node, why, "no release: it cannot be recorded");
                return self.come_back(attempt, Outcome::Refused { lock: Lock::Record, why });
            }
        };
        let (Some(files), Some(settings)) =
            (self.config.clusters.get(&attempt.cluster), self.config.settings.clusters.get(&attempt.cluster))
        else {
            return;
        };
        let Some(identity) = files.nodes.get(&attempt.node) else { return };
        let store = files.store.clone();
        let release = Release {
            order,
            record,
            identity: identity.clone(),
            spare: self.nodes.get(&(attempt.cluster, attempt.node.clone())).and_then(NodeHandle::take_proven),
            store,
            custodian: self.config.id.clone(),
            generation: settings.generation,
            expected: Expected { threshold: settings.threshold, shares: settings.shares },
            clock: self.clock,
        };
        let outcomes = self.outcomes_in.clone();
        tokio::spawn(async move {
            // Nobody to tell only when the process ends.
            let _ = outcomes.send(release::carry_out(release).await);
        });
    }

    fn come_back(&self, attempt: Attempt, outcome: Outcome) {
        let _ = self.outcomes_in.send((attempt, outcome));
    }

    fn reset(&self, cluster: ClusterId, name: NodeName) {
        let Some(identity) = self.config.clusters.get(&cluster).and_then(|files| files.nodes.get(&name)) else {
            return;
        };
        let identity = identity.clone();
        tokio::spawn(async move {
            match release::reset(identity).await {
                Ok(()) => tracing::info!(node = %name, "reset the running attempt"),
                Err(why) => tracing::warn!(node = %name, why, "the running attempt could not be reset"),
            }
        });
    }

    fn publish(&self, cluster: ClusterId, content: Content) {
        let now = self.clock.now().wall;
        if let (Content::Heartbeat(heartbeat), Some(settings)) = (&content, self.config.settings.clusters.get(&cluster))
        {
            self.metrics.note_heartbeat(settings.name.clone(), heartbeat, now);
        }
        let Some((broker, _)) = &self.broker else { return };
        let (me, kind) = (&self.config.id, content.kind());
        match seal_message(&self.config.signing_key, me, cluster, content, now, None) {
            Ok((_, body)) => broker.publish(Outgoing {
                exchange: Exchange::of(kind.namespace()),
                routing_key: routing_key(cluster, me, kind.as_str()),
                body,
            }),
            Err(error) => tracing::error!(%error, "a report is not sent"),
        }
    }

    fn append(&mut self, entry: &Entry) {
        tracing::info!(entry = %serde_json::to_string(entry).unwrap_or_default(), "audit");
        let at = self.clock.now().wall;
        if entry.only_tells() {
            self.logbook.note(at, entry)
        } else {
            self.logbook.append(at, entry)
        }
        self.report_audit();
    }

    fn report_audit(&mut self) {
        self.core.handle_audit(self.logbook.report(self.state_ok));
    }

    fn save_if_dirty(&mut self) {
        if !self.dirty {
            return;
        }
        let path = self.config.state_dir.join(STATE_FILE);
        match files::replace(&path, &self.core.state().to_json(), 0o600) {
            Ok(()) => (self.dirty, self.state_ok) = (false, true),
            // It is tried again with all that happens: once is enough to say so.
            Err(error) => {
                if std::mem::replace(&mut self.state_ok, false) {
                    tracing::error!(%error, "the state cannot be written: no share is released until it can");
                }
            }
        }
    }

    /// Reads configuration and shares again. One that is refused changes nothing.
    fn reload(&mut self) {
        let config = match Config::load(&self.config_path).and_then(|config| self.check_reload(config)) {
            Ok(config) => config,
            Err(error) => return tracing::error!(%error, "the configuration was not read again: it is refused"),
        };
        let now = self.clock.now();
        let old = std::mem::replace(&mut self.config, config);
        let renewed: BTreeSet<Key> = self
            .nodes
            .keys()
            .filter(|(cluster, name)| {
                let identity = |config: &Config| config.clusters.get(cluster).and_then(|c| c.nodes.get(name).cloned());
                match (identity(&old), identity(&self.config)) {
                    (Some(old), Some(new)) => old != new,
                    _ => true,
                }
            })
            .cloned()
            .collect();
        self.nodes.retain(|key, _| !renewed.contains(key));
        // What their tasks still had to tell is about the old nodes.
        while let Ok(NodeReport { key, report }) = self.reports.try_recv() {
            if !renewed.contains(&key) {
                self.hear_node(key, report);
            }
        }
        self.core.reconfigure(self.config.settings.clone(), &renewed, now);
        // A node whose identity did not change keeps its connection and its tickets, and so its old `Arc`.
        for (cluster, files) in &mut self.config.clusters {
            let Some(before) = old.clusters.get(cluster) else { continue };
            for (name, identity) in &mut files.nodes {
                if let Some(old) = before.nodes.get(name).filter(|old| **old == *identity) {
                    *identity = old.clone();
                }
            }
        }
        self.start_nodes();
        // Always a new connection: the password or the CA may be new. Queues keep what comes meanwhile, and nobody waits for
        // the old one's end.
        if let Some((handle, _)) = self.broker.take() {
            tokio::spawn(async move { handle.close().await });
        }
        self.core.handle_broker(BrokerNews::Down, now);
        self.conductors.forget_deliveries();
        self.start_broker();
        self.start_metrics();
        self.plan_drills();
        self.conductors.renew_all();
        self.renew_tokens();
        self.try_shares(|_| true);
        tracing::info!("configuration and shares were read again");
    }

    /// What only a new start can change.
    fn check_reload(&self, mut config: Config) -> Result<Config, ConfigError> {
        let refuse = |what: String| ConfigError { file: self.config_path.clone(), line: None, what };
        if config.id != self.config.id || config.state_dir != self.config.state_dir {
            return Err(refuse("id and state_dir cannot change while the custodian runs: restart it".to_owned()));
        }
        if let Some(sandbox) = &self.sandbox {
            let outside = config.sandbox().connect_ports.into_iter().find(|port| !sandbox.allows_port(*port));
            if let Some(port) = outside {
                return Err(refuse(format!(
                    "the sandbox in force does not let port {port} through: restart the custodian"
                )));
            }
            let folder = config.metrics.as_ref().and_then(MetricsConfig::folder);
            if let Some(folder) = folder.filter(|folder| !sandbox.allows_replacing_in(folder)) {
                return Err(refuse(format!(
                    "the sandbox in force lets nothing be written into {}: restart the custodian",
                    folder.display()
                )));
            }
        } else if config.sandbox == SandboxMode::Enforce {
            return Err(refuse("a sandbox can only be put in force by a start: restart the custodian".to_owned()));
        }
        config.settings.sandbox = self.sandbox.as_ref().map(Enforced::parts).unwrap_or_default();
        Ok(config)
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        service::tell_stopping();
        self.core.handle_stop();
        self.carry_out_all();
        self.logbook.close(self.clock.now().wall);
        self.nodes.clear();
        if let Some((handle, _)) = self.broker.take() {
            let given_up = handle.close().await;
            if given_up > 0 {
                tracing::warn!(reports = given_up, "reports were not sent before the end");
            }
        }
        tracing::info!("custodian stopped");
        Ok(())
    }
}

/// What the audit log says of a release: which set of shares, on what grounds.
#[derive(Serialize)]
struct Details<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    approvals: &'a [MessageId],
    #[serde(skip_serializing_if = "Option::is_none")]
    intent: Option<MessageId>,
}

impl<'a> Details<'a> {
    fn of(generation: Option<u32>, grounds: &'a Grounds) -> Self {
        let none = Self { generation, cause: None, approvals: &[], intent: None };
        match grounds {
            Grounds::Cause(cause) => Self { cause: Some(cause.as_str()), ..none },
            Grounds::Approvals(ids) => Self { approvals: ids, ..none },
            Grounds::Intent(id) => Self { intent: Some(*id), ..none },
        }
    }
}

/// The next event of the broker; never, where there is none.
async fn next_event(broker: &mut Option<(BrokerHandle, mpsc::Receiver<BrokerEvent>)>) -> Option<BrokerEvent> {
    match broker {
        Some((_, events)) => events.recv().await,
        None => std::future::pending().await,
    }
}

fn ticks(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// What the custodian remembers, from its file.
pub(crate) fn read_state(config: &Config) -> anyhow::Result<State> {
    let path = config.state_dir.join(STATE_FILE);
    match std::fs::exists(&path) {
        Ok(false) => return Ok(State::default()),
        Ok(true) => {}
        Err(error) => anyhow::bail!("{} cannot be looked at: {error}", path.display()),
    }
    let bytes = files::read_bounded(&path, STATE_MAX)?;
    State::parse(&bytes).map_err(|error| {
        anyhow::anyhow!(
            "{}: {error}; without it the custodian would forget what it must not open. If it is lost for good, move the \
             file away: every node then waits for approval",
            path.display()
        )
    })
}
