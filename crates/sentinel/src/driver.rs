//! The driver: tells the core what happened, and carries out what it says.
//!
//! No decision is made here. What is here is how node tasks, broker, database and web server meet the core, and what becomes
//! of the process: start, reload, stop.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use holdfast_core::admission::Admission;
use holdfast_core::id::ClusterId;
use holdfast_core::message::{Content, Relay};
use holdfast_core::status::Status;
use holdfast_core::time::{Now, Timestamp};
use holdfast_core::topology::{Exchange, routing_key, sentinel_queue};
use holdfast_core::trust::{AllowedSigners, Namespace};
use holdfast_core::watch::{Place, TrustRoot, Watcher};
use holdfast_edge::broker::{Broker, BrokerEvent, BrokerHandle, BrokerSettings, Delivery, Outgoing};
use holdfast_edge::clock::Clock;
use holdfast_edge::config::ConfigError;
use holdfast_edge::listen::Listener;
use holdfast_edge::node::{self, NodeHandle, NodeReport, Report};
use holdfast_edge::outgoing::seal_message;
use holdfast_edge::service::{self, Order, Pulse, Signals};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use crate::config::{Config, roles};
use crate::history::{History, Known};
use crate::metrics::{Metrics, Snapshot};
use crate::web::{self, Question};

/// How many reports of nodes may wait: each node has at most a few under way.
const REPORTS_MAX: usize = 1024;

/// The running sentinel.
pub(crate) struct Driver {
    config_path: PathBuf,
    config: Config,
    clock: Clock,
    started_at: Timestamp,
    core: Watcher,
    admission: Admission,
    nodes: BTreeMap<Place, NodeHandle>,
    reports_in: mpsc::Sender<NodeReport<Place>>,
    reports: mpsc::Receiver<NodeReport<Place>>,
    broker: Option<BrokerLink>,
    history: History,
    metrics: Arc<Metrics>,
    questions: mpsc::Receiver<Question>,
}

struct BrokerLink {
    handle: BrokerHandle,
    events: mpsc::Receiver<BrokerEvent>,
    hearing: Hearing,
}

/// Whether anything of custodians can be heard, and why not.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hearing {
    up: bool,
    trouble: Option<String>,
}

impl Hearing {
    fn follow(&mut self, event: &BrokerEvent) {
        match event {
            BrokerEvent::Up | BrokerEvent::Delivery(_) | BrokerEvent::Drained { .. } => {
                (self.up, self.trouble) = (true, None);
            }
            BrokerEvent::Down { why } => (self.up, self.trouble) = (false, Some(why.to_string())),
            // Connected, and deaf: whoever asks has to learn that nothing is known.
            BrokerEvent::QueueRefused { queue, why } => {
                (self.up, self.trouble) = (false, Some(format!("the queue {queue} cannot be read: {why}")));
            }
            _ => {}
        }
    }
}

enum Happened {
    Report(NodeReport<Place>),
    Broker(BrokerEvent),
    Question(Question),
    Timeout,
    Ordered(Order),
    Beat,
}

impl Driver {
    /// Opens the port and the database, and makes the core. Nothing is connected yet.
    pub(crate) async fn open(config_path: PathBuf, config: Config) -> anyhow::Result<Self> {
        let clock = Clock::start();
        let listener = Listener::bind(config.listen, config.tls.clone())
            .await
            .with_context(|| format!("{} cannot be listened at: is another sentinel running?", config.listen))?;
        let ids: Vec<_> = config.watches.keys().copied().collect();
        let (history, known) = History::open(config.database.as_deref(), &ids);
        let mut core = Watcher::new(config.watches.clone(), clock.now());
        for Known { cluster, incidents, proofs, audits, trust_root, drills } in known {
            core.restore(cluster, incidents);
            core.restore_proofs(cluster, proofs);
            core.restore_audits(cluster, audits);
            core.restore_drills(cluster, drills);
            if let Some(kept) = trust_root {
                core.restore_trust_root(cluster, kept);
            }
        }
        let (reports_in, reports) = mpsc::channel(REPORTS_MAX);
        tracing::info!(address = %listener.address(), tls = config.tls.is_some(), "serving metrics and status");
        let mut driver = Self {
            config_path,
            admission: Admission::new(config.allowed_signers.clone(), BTreeMap::new()),
            config,
            clock,
            started_at: clock.now().wall,
            core,
            nodes: BTreeMap::new(),
            reports_in,
            reports,
            broker: None,
            questions: web::serve(listener, history.archive()),
            history,
            metrics: Arc::new(Metrics::new()?),
        };
        driver.follow_trust_roots();
        driver.settle_roles();
        Ok(driver)
    }

    /// Runs until it is told to stop.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut signals = Signals::catch().context("signals cannot be caught")?;
        let mut pulse = Pulse::new();
        self.start_nodes();
        self.start_broker();
        service::tell_ready();
        tracing::info!(sentinel = %self.config.id, "sentinel started");
        loop {
            self.carry_out_all();
            let wake = self.core.next_timeout().map(|at| self.clock.instant(at));
            let happened = tokio::select! {
                Some(report) = self.reports.recv() => Happened::Report(report),
                Some(event) = next_event(&mut self.broker) => Happened::Broker(event),
                Some(question) = self.questions.recv() => Happened::Question(question),
                () = until(wake) => Happened::Timeout,
                order = signals.next() => Happened::Ordered(order),
                () = pulse.beat() => Happened::Beat,
            };
            match happened {
                Happened::Report(report) => self.hear_node(report),
                Happened::Broker(event) => self.hear_broker(event),
                Happened::Question(question) => self.answer(question),
                Happened::Timeout => self.core.handle_timeout(self.clock.now()),
                Happened::Beat => {}
                Happened::Ordered(Order::Reload) => {
                    service::tell_reloading();
                    self.reload().await;
                    service::tell_ready();
                }
                Happened::Ordered(Order::Stop) => break,
            }
        }
        self.stop().await;
        Ok(())
    }

    fn hear_node(&mut self, NodeReport { key: place, report }: NodeReport<Place>) {
        match &report {
            Report::Identity { not_after } => self.core.handle_identity(&place, *not_after),
            Report::IdentityRefused(why) => {
                tracing::warn!(node = %place.node, why, "somebody answers at the node's address who is not the node");
                self.core.handle_identity_refused(&place, why.clone());
            }
            Report::Lost(_, why) | Report::Refused(_, why) => {
                tracing::debug!(node = %place.node, why, "no contact with the node");
                self.core.handle_lost_because(&place, why.clone());
            }
            Report::Ticket(_) | Report::Status(..) | Report::Declined(_) | Report::Side(_) => {}
        }
        let now = self.clock.now();
        self.core.handle_node(&place, now, |sight| node::drive(&report, sight, now));
    }

    fn hear_broker(&mut self, event: BrokerEvent) {
        let Some(link) = &mut self.broker else { return };
        link.hearing.follow(&event);
        match event {
            BrokerEvent::Up => tracing::info!("connected to the broker"),
            BrokerEvent::Down { why } => tracing::warn!(%why, "no connection to the broker"),
            BrokerEvent::QueueRefused { queue, why } => tracing::error!(queue, why, "a queue cannot be read"),
            BrokerEvent::Undelivered { routing_key, why } => {
                tracing::warn!(routing_key, %why, "an event was not delivered");
            }
            BrokerEvent::Delivery(delivery) => self.hear_delivery(delivery),
            _ => {}
        }
    }

    fn hear_delivery(&mut self, delivery: Delivery) {
        let now = self.clock.now();
        match &delivery.body {
            Ok(bytes) => self.hear_message(bytes, now),
            Err(oversized) => {
                tracing::warn!(bytes = oversized.bytes, "a message was refused: it is larger than any that is sent");
                self.admission.count_refusal("oversized");
            }
        }
        delivery.ack();
    }

    fn hear_message(&mut self, bytes: &[u8], now: Now) {
        match self.admission.admit(bytes, now) {
            Ok(body) => match &body.content {
                Content::Relay(Relay { to, envelope }) if *to == self.config.id => self.hear_relayed(envelope, now),
                _ if body.header.kind.is_order() => self.core.handle_order(body, bytes, now),
                Content::DrillReport(_) => self.core.handle_drill_report(body, bytes, now),
                _ => self.core.handle_message(body, now),
            },
            // Whatever waited while this sentinel was away; there can be thousands.
            Err(refused) if refused.reason() == "expired" => tracing::debug!(why = %refused, "a message was refused"),
            Err(refused) => tracing::warn!(reason = refused.reason(), why = %refused, "a message was refused"),
        }
        // What was heard may change by whose keys the next message is judged.
        self.follow_trust_roots();
    }

    /// An operator's order that a custodian passed on, because this sentinel asked for it. It counts as what it is, and no less.
    fn hear_relayed(&mut self, envelope: &str, now: Now) {
        match self.admission.admit(envelope.as_bytes(), now) {
            Ok(body) if body.header.kind.is_order() => self.core.handle_order(body, envelope.as_bytes(), now),
            Ok(body) => {
                tracing::warn!(kind = body.header.kind.as_str(), "what was passed on is no order, and was refused");
                self.admission.count_refusal("wrong-role");
            }
            Err(refused) => tracing::info!(reason = refused.reason(), why = %refused, "an order was refused"),
        }
    }

    /// Puts each trust root in force that is to be.
    fn follow_trust_roots(&mut self) {
        let mut followed = false;
        while let Some((cluster, root)) = self.core.poll_trust_root() {
            followed = true;
            let trust = root.as_ref().and_then(TrustRoot::parsed);
            match (&root, &trust) {
                (Some(root), Some(trust)) => self.tell_of_trust_root(cluster, root.version, trust),
                _ => {
                    tracing::warn!(%cluster, "the configured allowed_signers is in force: it was replaced on this host")
                }
            }
            self.admission.set_trust_root(cluster, trust);
        }
        if followed {
            self.settle_roles();
        }
    }

    /// Hears everybody whom the trust roots in force know.
    fn settle_roles(&mut self) {
        let clusters = self.config.watches.iter();
        let roles: BTreeMap<_, _> =
            clusters.map(|(id, watch)| (*id, roles(&watch.custodians, self.admission.trust(*id)))).collect();
        for (id, roles) in &roles {
            self.core.set_conductors(*id, roles.conductors.clone());
        }
        self.admission.reconfigure(self.config.allowed_signers.clone(), roles);
    }

    fn tell_of_trust_root(&self, cluster: ClusterId, version: u32, trust: &AllowedSigners) {
        let sha256 = hex::encode(trust.digest());
        tracing::info!(%cluster, version, sha256, "operators have put another allowed_signers in force");
        let (me, key) = (&self.config.id, self.config.signing_key.public_key());
        if let Err(why) = trust.authorise(me, Namespace::Event, key, self.clock.now().wall) {
            tracing::error!(%cluster, %why, "by it, nobody takes what this sentinel says");
        }
    }

    fn answer(&self, question: Question) {
        // Whoever asked may have gone away meanwhile.
        match question {
            Question::Metrics(answer) => {
                let (status, totals) = (self.status(), self.core.totals());
                let _ = answer.send(Box::new(Snapshot { status, totals, metrics: Arc::clone(&self.metrics) }));
            }
            Question::Status(answer) => {
                let _ = answer.send(Box::new(self.status()));
            }
            Question::Clusters(answer) => {
                let named = self.config.watches.iter().map(|(id, watch)| (watch.name.clone(), *id));
                let _ = answer.send(named.collect());
            }
            Question::Alive(answer) => {
                let _ = answer.send(());
            }
        }
    }

    fn status(&self) -> Status {
        let now = self.clock.now();
        let rejected = self.admission.rejected().iter().map(|(reason, total)| ((*reason).to_owned(), *total));
        Status {
            sentinel: self.config.id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at: now.wall,
            started_at: self.started_at,
            broker_up: self.broker.as_ref().map(|link| link.hearing.up),
            broker_trouble: self.broker.as_ref().and_then(|link| link.hearing.trouble.clone()),
            history_trouble: self.history.trouble(),
            rejected: rejected.collect(),
            clusters: self.core.status(now),
        }
    }

    /// Carries out everything that the core asks for.
    fn carry_out_all(&mut self) {
        // First what others wait for.
        while let Some((cluster, sighting)) = self.core.poll_event() {
            let cause = sighting.cause.map_or("", |cause| cause.as_str());
            tracing::info!(node = %sighting.node, seen = sighting.seen.as_str(), cause, "a node was seen to change");
            self.publish(cluster, Content::Event(sighting));
        }
        while let Some((cluster, want)) = self.core.poll_ask() {
            tracing::info!(of = %want.of, orders = want.sha256.len(), "asking for orders that were missed");
            self.publish(cluster, Content::Ask(want));
        }
        while let Some((place, action)) = self.core.poll_action() {
            if let Some(handle) = self.nodes.get(&place) {
                handle.act(action);
            }
        }
        while let Some((place, took)) = self.core.poll_duration() {
            if let Some(watch) = self.config.watches.get(&place.cluster) {
                self.metrics.measure(&place, watch.name.as_str(), took);
            }
        }
        while let Some(record) = self.core.poll_record() {
            self.history.write(record);
        }
    }

    fn publish(&self, cluster: ClusterId, content: Content) {
        let Some(link) = &self.broker else { return };
        let (me, kind) = (&self.config.id, content.kind());
        match seal_message(&self.config.signing_key, me, cluster, content, self.clock.now().wall, None) {
            Ok((_, body)) => link.handle.publish(Outgoing {
                exchange: Exchange::Events,
                routing_key: routing_key(cluster, me, kind.as_str()),
                body,
            }),
            Err(error) => tracing::error!(%error, kind = kind.as_str(), "a message is not sent"),
        }
    }

    fn start_nodes(&mut self) {
        for (place, identity) in &self.config.nodes {
            if let Some(watch) = self.config.watches.get(&place.cluster) {
                self.metrics.watch(place, watch.name.as_str());
            }
            let spawn = || node::spawn(identity.clone(), place.clone(), self.reports_in.clone());
            self.nodes.entry(place.clone()).or_insert_with(spawn);
        }
    }

    fn start_broker(&mut self) {
        let me = &self.config.id;
        self.broker = self.config.broker.as_ref().map(|broker| {
            let (handle, events) = Broker::spawn(BrokerSettings {
                url: broker.url.clone(),
                username: broker.username.to_string(),
                password: broker.password.clone(),
                tls: broker.tls.clone(),
                queues: vec![sentinel_queue(me)],
                connection_name: format!("holdfast-sentinel {me}"),
            });
            BrokerLink { handle, events, hearing: Hearing::default() }
        });
    }

    /// Reads the configuration again. One that is refused changes nothing.
    async fn reload(&mut self) {
        let config = match Config::load(&self.config_path).and_then(|config| self.check_reload(config)) {
            Ok(config) => config,
            Err(error) => return tracing::error!(%error, "the configuration was not read again: it is refused"),
        };
        let old = std::mem::replace(&mut self.config, config);
        let same = |place: &Place| self.config.nodes.get(place).is_some_and(|new| old.nodes.get(place) == Some(new));
        let renewed: BTreeSet<_> = self.nodes.keys().filter(|place| !same(place)).cloned().collect();
        self.nodes.retain(|place, _| !renewed.contains(place));
        self.core.reconfigure(self.config.watches.clone(), &renewed, self.clock.now());
        self.follow_trust_roots();
        self.settle_roles();
        // What the ended tasks still had to say is about nodes that are not looked at like that any more.
        let left: Vec<_> = std::iter::from_fn(|| self.reports.try_recv().ok()).collect();
        for report in left.into_iter().filter(|report| !renewed.contains(&report.key)) {
            self.hear_node(report);
        }
        self.start_nodes();
        // Always a new connection: the password or the CA may be new. The queue keeps what comes meanwhile.
        if let Some(link) = self.broker.take() {
            link.handle.close().await;
        }
        self.start_broker();
        tracing::info!("the configuration was read again");
    }

    /// What only a new start can change.
    fn check_reload(&self, config: Config) -> Result<Config, ConfigError> {
        let refuse = |what: &str| ConfigError { file: self.config_path.clone(), line: None, what: what.to_owned() };
        if config.id != self.config.id {
            return Err(refuse("id cannot change while the sentinel runs: restart it"));
        }
        if (config.listen, config.tls.is_some()) != (self.config.listen, self.config.tls.is_some()) {
            return Err(refuse("listen, tls_cert and tls_key cannot change while the sentinel runs: restart it"));
        }
        if config.database != self.config.database {
            return Err(refuse("database cannot change while the sentinel runs: restart it"));
        }
        Ok(config)
    }

    async fn stop(mut self) {
        service::tell_stopping();
        self.nodes.clear();
        self.history.close();
        if let Some(link) = self.broker.take() {
            let given_up = link.handle.close().await;
            if given_up > 0 {
                tracing::warn!(events = given_up, "events were not sent before the end");
            }
        }
        tracing::info!("sentinel stopped");
    }
}

/// The moment at which something is due; never, while all that is due are answers of nodes.
async fn until(wake: Option<Instant>) {
    match wake {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The next event of the broker; never, where there is none.
async fn next_event(broker: &mut Option<BrokerLink>) -> Option<BrokerEvent> {
    match broker {
        Some(link) => link.events.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentinel_that_is_connected_and_cannot_read_its_queue_hears_nothing() {
        let queue = || "holdfast.sentinel.sentinel-1".to_owned();
        let mut hearing = Hearing::default();
        hearing.follow(&BrokerEvent::Up);
        assert_eq!(hearing, Hearing { up: true, trouble: None });
        hearing.follow(&BrokerEvent::QueueRefused { queue: queue(), why: "NOT_FOUND".to_owned() });
        assert!(!hearing.up && hearing.trouble.as_ref().is_some_and(|why| why.contains("NOT_FOUND")), "{hearing:?}");
        hearing.follow(&BrokerEvent::Drained { queue: queue() });
        assert_eq!(hearing, Hearing { up: true, trouble: None }, "it can be read again");
    }
}
