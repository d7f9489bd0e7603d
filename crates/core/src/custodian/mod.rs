//! The custodian: a state machine that is told what happened and says what is to be done.
//!
//! The driver (crates/custodian) calls `handle_*` with what the world did, then empties [`Custodian::poll_output`] in order, then
//! sleeps until [`Custodian::next_timeout`]. It carries outputs out one after the other: an [`Output::Save`] that did not reach the
//! disk stops every [`Output::Release`] after it. Nothing here does I/O, so a simulation can run thousands of years of it.

mod conducting;
mod drills;
mod entry;
mod heartbeat;
mod hour;
mod incident;
mod node;
mod orders;
mod settings;
mod state;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::admission::{Admission, Refused};
use crate::cause::Cause;
use crate::drill::{Conductor, Memory, SealOrder};
use crate::id::{ClusterId, DrillId, IncidentId, NodeName, Principal, SlotId};
use crate::message::{
    AuditReport, Body, Content, Effect, Header, Heartbeat, Intent, Lock, Needs, Receipt, Seen, ShareReport, Sighting,
    Submission,
};
use crate::orders::Orders;
use crate::release::{Attempt, Grounds, ReleaseOrder};
use crate::sight::{Action, Sight};
use crate::time::{Now, Steady, Timestamp};

pub use drills::{SLOT_LATE_MAX, Slots};
pub use entry::Entry;
use node::{Believable, Context, Node};
pub use node::{INTENT_LIFE, SEAL_WITHIN};
pub use settings::{ClusterSettings, NodeSettings, Settings};
pub use state::{BootId, LastOpen, Marker, NodeState, STATE_VERSION, StandingApproval, State, StateError};

/// The time between two heartbeats.
pub const HEARTBEAT: Duration = Duration::from_secs(10);

/// How long is listened until each custodian that talks was heard: the time between two heartbeats, and a way that takes long.
const HEARTBEAT_HEARD: Duration = Duration::from_secs(11);

/// The shortest time between two: what changes about a node is told at once, but no node that flaps makes a flood.
const HEARTBEAT_MIN: Duration = Duration::from_secs(1);

/// After how long without a heartbeat a custodian is taken to be silent, and ranked last.
const SILENT: Duration = Duration::from_secs(35);

/// What the log says at [`Output::RestartProvable`]: people and programs wait for it.
pub const RESTART_PROVABLE: &str = "a restart of this node can be proven now";

/// What a custodian has to do. Carried out in order.
#[derive(Debug)]
pub enum Output {
    /// Have the node's watcher do this.
    Watch {
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeName,
        /// What to do.
        action: Action,
    },
    /// Write [`Custodian::state`] to disk before anything that follows.
    Save,
    /// Append to the audit log.
    Audit(Entry),
    /// Sign and publish. An acknowledgement only when all that was to be saved before it is on disk.
    Publish {
        /// The cluster that it is about.
        cluster: ClusterId,
        /// What it says.
        content: Content,
    },
    /// Prove the other four locks and submit the share; then [`Custodian::handle_release`].
    Release(ReleaseOrder),
    /// Sign and publish an intent with this header, when all that was to be saved before it is on disk.
    Announce {
        /// The header.
        header: Header,
        /// The intent.
        intent: Intent,
    },
    /// Ask every node of the cluster what it does for its clients: [`Custodian::handle_survey`].
    Survey {
        /// The cluster.
        cluster: ClusterId,
    },
    /// Seal a node for a drill, and watch it until [`Output::Unwatch`]: [`Custodian::handle_observed`]. Only when all that was to be
    /// saved before it is on disk.
    Seal(SealOrder),
    /// Watch the node of this drill no more.
    Unwatch(DrillId),
    /// What was handed out for this slot by the conductors' queue is done.
    Settled {
        /// The cluster.
        cluster: ClusterId,
        /// The slot.
        slot: SlotId,
    },
    /// Reset the node's running attempt.
    Reset {
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeName,
    },
    /// Tell whoever reads the log that a restart of this node, which is open, can be proven from now on.
    RestartProvable {
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeName,
    },
}

/// What came of a release order.
#[derive(Debug)]
pub enum Outcome {
    /// A lock held, and nothing of the share left.
    Refused {
        /// Which.
        lock: Lock,
        /// Why, for people.
        why: String,
    },
    /// The share left.
    Answered(Answer),
}

/// What a node answered to a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What came of it.
    pub result: Submission,
    /// On what grounds it was released.
    pub grounds: Grounds,
    /// The nonce of the attempt that it was counted in; empty where the node named none.
    pub nonce: String,
    /// The node's progress after it.
    pub progress: u8,
    /// When the request left.
    pub submitted_at: Timestamp,
    /// When the answer was there, or was given up.
    pub answered_at: Timestamp,
}

/// News of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerNews {
    /// Connected and consuming.
    Up,
    /// Everything that waited in the orders queue at that time has been handed over.
    OrdersDrained,
    /// The connection is gone.
    Down,
}

#[derive(Debug, Default)]
struct Broker {
    up_since: Option<Steady>,
    drained: bool,
}

#[derive(Debug)]
struct Cluster {
    share_ok: bool,
    x: Option<u8>,
    peers: BTreeMap<Principal, Peer>,
    submissions: BTreeMap<Submission, u64>,
    last_heartbeat: Option<Steady>,
    next_heartbeat: Steady,
}

#[derive(Debug)]
struct Peer {
    heard: Steady,
    ready: BTreeMap<NodeName, bool>,
}

/// What the custodian is started with, beside its settings and state.
#[derive(Debug, Clone)]
pub struct Start {
    /// The host's boot id.
    pub boot: BootId,
    /// Whether the kernel says that the clock is synchronised.
    pub clock_synchronised: bool,
    /// 32 random bytes, from which ids of incidents are made.
    pub seed: [u8; 32],
    /// Where the audit log stands.
    pub audit: AuditReport,
}

/// One custodian.
#[derive(Debug)]
pub struct Custodian {
    settings: Settings,
    boot: BootId,
    started: Now,
    clock_synchronised: bool,
    audit: AuditReport,
    admission: Admission,
    orders: BTreeMap<ClusterId, Orders>,
    exchange: orders::Exchange,
    slots: BTreeMap<ClusterId, Slots>,
    /// Drills that their conductors say are over: their intents may still come.
    ended: VecDeque<(Principal, DrillId)>,
    conductors: BTreeMap<ClusterId, Conductor>,
    /// When the next drill of each conductor's schedule is due.
    next_drills: BTreeMap<ClusterId, Timestamp>,
    /// What is remembered of clusters whose drills are not conducted here now.
    unconducted: BTreeMap<ClusterId, Memory>,
    broker: Broker,
    clusters: BTreeMap<ClusterId, Cluster>,
    nodes: BTreeMap<(ClusterId, NodeName), Node>,
    /// What is remembered of nodes that are not configured now: one left out by mistake must not come back innocent.
    unconfigured: BTreeMap<ClusterId, BTreeMap<NodeName, NodeState>>,
    ids: Ids,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Ids {
    seed: [u8; 32],
    made: u64,
}

impl Ids {
    fn next(&mut self) -> IncidentId {
        self.made += 1;
        let digest: [u8; 32] =
            Sha256::new().chain_update(self.seed).chain_update(self.made.to_be_bytes()).finalize().into();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        IncidentId::from_bytes(id)
    }
}

impl Custodian {
    /// A custodian that starts now, with what an earlier process left.
    pub fn new(settings: Settings, state: State, start: Start, now: Now) -> Self {
        let mut admission = Admission::new(settings.allowed_signers.clone(), settings.roles());
        admission.restore(state.permissions, state.high_water);
        let version = settings.version.clone();
        let mut custodian = Self {
            settings,
            boot: start.boot,
            started: now,
            clock_synchronised: start.clock_synchronised,
            audit: start.audit,
            admission,
            orders: state.orders,
            exchange: orders::Exchange::default(),
            slots: state.slots,
            ended: VecDeque::new(),
            conductors: BTreeMap::new(),
            next_drills: BTreeMap::new(),
            unconducted: state.conductors,
            broker: Broker::default(),
            clusters: BTreeMap::new(),
            nodes: BTreeMap::new(),
            unconfigured: state.clusters,
            ids: Ids { seed: start.seed, made: 0 },
            outputs: VecDeque::from([Output::Audit(Entry::Started { version })]),
        };
        custodian.populate(now);
        custodian.settle_trust_roots(now);
        custodian.consider_all(now);
        custodian
    }

    /// Takes over a changed configuration. What is known of clusters and nodes that stay, stays; a node that is `renewed`, because
    /// it has another address or must prove itself otherwise, is seen anew, while what is on disk about it stays.
    pub fn reconfigure(&mut self, settings: Settings, renewed: &BTreeSet<(ClusterId, NodeName)>, now: Now) {
        self.admission.reconfigure(settings.allowed_signers.clone(), settings.roles());
        self.settings = settings;
        let clusters = &self.settings.clusters;
        self.clusters.retain(|id, _| clusters.contains_key(id));
        self.nodes.values().for_each(Node::revoke);
        let stays = |(id, name): &(ClusterId, NodeName)| clusters.get(id).is_some_and(|c| c.nodes.contains_key(name));
        let gone = |key: &&(ClusterId, NodeName)| renewed.contains(*key) || !stays(key);
        for key in self.nodes.keys().filter(gone).cloned().collect::<Vec<_>>() {
            if let Some(node) = self.nodes.remove(&key) {
                self.unconfigured.entry(key.0).or_default().insert(key.1, node.state);
            }
        }
        self.populate(now);
        self.settle_trust_roots(now);
        self.consider_all(now);
    }

    fn populate(&mut self, now: Now) {
        for (id, cluster) in &self.settings.clusters {
            // Not all at once: the first after a second, so that there is something to tell.
            let stagger = Duration::from_millis(1000 + 40 * self.clusters.len() as u64);
            self.clusters.entry(*id).or_insert_with(|| Cluster {
                share_ok: false,
                x: None,
                peers: BTreeMap::new(),
                submissions: BTreeMap::new(),
                last_heartbeat: None,
                next_heartbeat: now.steady + stagger,
            });
            match (&cluster.conducting, self.conductors.get_mut(id)) {
                (Some(settings), Some(conductor)) => conductor.reconfigure(settings.clone()),
                (Some(settings), None) => {
                    let memory = self.unconducted.remove(id).unwrap_or_default();
                    self.conductors.insert(*id, Conductor::new(*id, settings.clone(), memory, now));
                }
                (None, _) => {
                    let known = self.conductors.remove(id).map(|conductor| (*id, conductor.memory()));
                    self.unconducted.extend(known);
                }
            }
            for (name, node) in &cluster.nodes {
                let watch = cluster.watch(*node);
                let key = (*id, name.clone());
                if let Some(known) = self.nodes.get_mut(&key) {
                    known.sight.reconfigure(watch);
                } else {
                    let remembered = self.unconfigured.get_mut(id).and_then(|nodes| nodes.remove(name));
                    let state = remembered.unwrap_or_default();
                    self.nodes.insert(key, Node::new(*id, name.clone(), Sight::new(watch, now), state));
                }
            }
        }
    }

    /// What must be on disk.
    pub fn state(&self) -> State {
        let mut clusters = self.unconfigured.clone();
        for ((cluster, name), node) in &self.nodes {
            clusters.entry(*cluster).or_default().insert(name.clone(), node.state.clone());
        }
        let permissions = self.admission.permissions().clone();
        let (orders, slots) = (self.orders.clone(), self.slots.clone());
        let mut conductors = self.unconducted.clone();
        conductors.extend(self.conductors.iter().map(|(id, conductor)| (*id, conductor.memory())));
        conductors.retain(|_, memory| *memory != Memory::default());
        let high_water = self.admission.high_water();
        State { v: STATE_VERSION, high_water, permissions, clusters, orders, slots, conductors }
    }

    /// The custodian is being stopped on purpose: no reboot after this counts as an outage.
    pub fn handle_stop(&mut self) {
        for open in self.nodes.values_mut().filter_map(|node| node.state.last_open.as_mut()) {
            open.stopped = true;
        }
        self.outputs.push_back(Output::Save);
        self.outputs.push_back(Output::Audit(Entry::Stopped));
    }

    /// The share of a cluster was tried: its x coordinate if it was sound.
    pub fn handle_share(&mut self, cluster: ClusterId, sound: Option<u8>, now: Now) {
        if let Some(known) = self.clusters.get_mut(&cluster) {
            known.share_ok = sound.is_some();
            known.x = sound.or(known.x);
        }
        self.consider_all(now);
    }

    /// Where the audit log stands now. That it is in trouble, or well again, is told at once.
    pub fn handle_audit(&mut self, audit: AuditReport) {
        let news = (audit.ok, audit.broken) != (self.audit.ok, self.audit.broken);
        self.audit = audit;
        for cluster in self.clusters.values_mut().filter(|_| news) {
            if let Some(last) = cluster.last_heartbeat {
                cluster.next_heartbeat = cluster.next_heartbeat.min(last + HEARTBEAT_MIN);
            }
        }
    }

    /// Whether the kernel says that the clock is synchronised.
    pub fn handle_clock(&mut self, synchronised: bool) {
        self.clock_synchronised = synchronised;
    }

    /// News of the broker.
    pub fn handle_broker(&mut self, news: BrokerNews, now: Now) {
        match news {
            BrokerNews::Up => self.broker = Broker { up_since: Some(now.steady), drained: false },
            BrokerNews::OrdersDrained => self.broker.drained = true,
            BrokerNews::Down => self.broker = Broker::default(),
        }
    }

    /// Lets `report` tell a node's sight what was seen, and decides anew. Does nothing for a node that is not configured.
    pub fn handle_sight(&mut self, cluster: ClusterId, name: &NodeName, now: Now, report: impl FnOnce(&mut Sight)) {
        self.with_node(cluster, name, now, |node, _| report(&mut node.sight));
        self.conduct(now);
    }

    /// A full handshake with the node was completed, or its identity was refused and why.
    pub fn handle_identity(
        &mut self,
        cluster: ClusterId,
        name: &NodeName,
        identity: Result<Option<Timestamp>, String>,
        now: Now,
    ) {
        self.with_node(cluster, name, now, |node, _| match identity {
            Ok(not_after) => {
                node.certificate_not_after = not_after.or(node.certificate_not_after);
                node.identity_refused = None;
            }
            Err(why) => node.identity_refused = Some(why),
        });
    }

    /// An order to release came back. Each comes back once.
    pub fn handle_release(&mut self, attempt: &Attempt, outcome: Outcome, now: Now) {
        if let Outcome::Refused { lock: Lock::Integrity, .. } = &outcome
            && let Some(cluster) = self.clusters.get_mut(&attempt.cluster)
        {
            cluster.share_ok = false;
        }
        self.with_node(attempt.cluster, &attempt.node, now, |node, cx| node.handle_outcome(attempt, outcome, cx));
    }

    /// A message came, from the broker or from the inbox. What is refused is counted, and the reason returned for the log.
    pub fn handle_message(&mut self, bytes: &[u8], now: Now) -> Result<(), Refused> {
        let Body { header, content } = self.admission.admit(bytes, now)?;
        let (cluster, from) = (header.cluster, header.from.clone());
        if from == self.settings.id {
            // The broker hands everybody's reports to everybody: this is an echo, and its signature was worth checking. Its conductor
            // hears what it did by it, as it hears the others.
            self.tell_conductor(&header, &content, now);
            return Ok(());
        }
        let deaf = self.orders.get(&cluster).is_some_and(|orders| orders.is_distrusted(&from));
        match content {
            Content::Event(_)
            | Content::Sighting(_)
            | Content::Receipt(_)
            | Content::Intent(_)
            | Content::DrillReport(_)
                if deaf =>
            {
                return self.refuse(Refused::Distrusted(from));
            }
            content => self.hear(&header, content, bytes, now)?,
        }
        self.conduct(now);
        Ok(())
    }

    fn hear(&mut self, header: &Header, content: Content, bytes: &[u8], now: Now) -> Result<(), Refused> {
        let (cluster, from) = (header.cluster, header.from.clone());
        self.tell_conductor(header, &content, now);
        match content {
            Content::Event(sighting) | Content::Sighting(sighting) => self.hear_sighting(cluster, from, &sighting, now),
            Content::Approval(approval) => {
                let (id, issued_at) = (header.id, header.issued_at);
                let expires_at = header.expires_at.unwrap_or(issued_at);
                let standing = StandingApproval { id, from, issued_at, expires_at, used: false };
                self.approve(cluster, &approval.node, standing, now);
            }
            Content::Hold(_) | Content::Release(_) | Content::Distrust(_) | Content::Trust(_) => {
                return self.hear_order(header, &content, bytes, now);
            }
            Content::Want(want) | Content::Ask(want) => self.hear_want(cluster, &from, &want, now),
            Content::Relay(relay) => return self.hear_relay(&relay, now),
            Content::Heartbeat(heartbeat) => self.hear_heartbeat(cluster, from, &heartbeat, now),
            Content::Receipt(receipt) => self.hear_receipt(cluster, from, &receipt, now),
            Content::Intent(intent) => self.hear_intent(header, intent, now),
            Content::DrillReport(report) => self.hear_drill_report(cluster, &from, &report, now),
            // Orders for drills are the conductors'; what one of them brings here stands in its intent.
            Content::Drill(_) | Content::Due(_) | Content::Refusal(_) | Content::Acknowledgement(_) => {}
        }
        Ok(())
    }

    /// A message came that was refused before it could be read.
    pub fn count_refusal(&mut self, reason: &'static str) {
        self.admission.count_refusal(reason);
    }

    /// Moves on what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.admission.observe_clock(now);
        for node in self.nodes.values_mut() {
            if node.sight.next_timeout().is_some_and(|at| at <= now.steady) {
                node.sight.handle_timeout(now);
            }
        }
        self.consider_all(now);
        let due: Vec<_> =
            self.clusters.iter().filter(|(_, c)| c.next_heartbeat <= now.steady).map(|(id, _)| *id).collect();
        for cluster in due {
            self.beat(cluster, now);
        }
        self.conduct(now);
    }

    /// When [`Custodian::handle_timeout`] is next to be called.
    pub fn next_timeout(&self) -> Option<Steady> {
        let drills = self.conductors.values().map(Conductor::next_timeout);
        let nodes = self.nodes.values().flat_map(|node| [node.sight.next_timeout(), node.deadline()]);
        let beats = self.clusters.values().map(|cluster| Some(cluster.next_heartbeat));
        nodes.chain(beats).chain(drills).flatten().min()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn approve(&mut self, cluster: ClusterId, name: &NodeName, approval: StandingApproval, now: Now) {
        let id = approval.id;
        let approve = |node: &mut Node, cx: &mut Context<'_>| {
            node.approve(approval, cx);
            cx.held
        };
        let held = self.with_node(cluster, name, now, approve);
        let node = self.nodes.get(&(cluster, name.clone()));
        let effect = match node.and_then(Node::needs) {
            _ if held.is_none() => Effect::Inapplicable { why: format!("no node is called {name} here") },
            _ if held == Some(true) => {
                Effect::Inapplicable { why: "a hold is in force: release it, and then approve again".to_owned() }
            }
            Some(Needs::Approvals { have, need }) => Effect::Waiting { have, need },
            Some(Needs::Policy) => Effect::Inapplicable { why: "the policy says hold for this cause".to_owned() },
            _ => Effect::InForce {},
        };
        self.acknowledge(cluster, id, effect, std::slice::from_ref(name));
    }

    fn hear_sighting(&mut self, cluster: ClusterId, from: Principal, sighting: &Sighting, now: Now) {
        let in_place = sighting.seen == Seen::Sealed && sighting.cause == Some(Cause::InPlace);
        self.with_node(cluster, &sighting.node, now, |node, cx| {
            if in_place {
                node.adopt_marker(from.clone(), from, sighting.seen_at, cx);
            }
            if sighting.seen != node.sight.seen() {
                node.sight.attend(now);
            }
        });
    }

    fn hear_heartbeat(&mut self, cluster: ClusterId, from: Principal, heartbeat: &Heartbeat, now: Now) {
        if let Some(known) = self.clusters.get_mut(&cluster) {
            let ready = heartbeat.nodes.iter().map(|(name, report)| (name.clone(), report.ready)).collect();
            known.peers.insert(from.clone(), Peer { heard: now.steady, ready });
        }
        // A marker that was missed when it was new: this host was down, or cut off.
        for (name, report) in &heartbeat.nodes {
            // Who only passes on what he was told vouches for nobody.
            let Some(by) = &report.marker_by else { continue };
            if let Some(marker) = report.marker.filter(|_| self.is_heard(cluster, &from) && self.is_heard(cluster, by))
            {
                let adopt = |node: &mut Node, cx: &mut Context<'_>| {
                    node.adopt_marker(from.clone(), by.clone(), marker, cx);
                };
                self.with_node(cluster, name, now, adopt);
            }
        }
        self.ask_for_orders(cluster, &from, &heartbeat.orders, now);
    }

    /// Whether somebody's word about nodes counts: who that may be is the configuration's to say, and the operators'.
    fn is_heard(&self, cluster: ClusterId, principal: &Principal) -> bool {
        let settings = self.settings.clusters.get(&cluster);
        let known = settings.is_some_and(|s| s.custodians.contains(principal) || s.sentinels.contains(principal));
        known && !self.orders.get(&cluster).is_some_and(|orders| orders.is_distrusted(principal))
    }

    fn hear_receipt(&mut self, cluster: ClusterId, from: Principal, receipt: &Receipt, now: Now) {
        self.with_node(cluster, &receipt.node, now, |node, cx| node.receive_receipt(from, receipt, cx));
    }

    fn beat(&mut self, id: ClusterId, now: Now) {
        let (Some(cluster), Some(settings)) = (self.clusters.get_mut(&id), self.settings.clusters.get(&id)) else {
            return;
        };
        cluster.last_heartbeat = Some(now.steady);
        cluster.next_heartbeat = now.steady + HEARTBEAT;
        let (share_ok, x) = (cluster.share_ok, cluster.x);
        let submissions = cluster.submissions.iter().map(|(r, n)| (r.as_str().to_owned(), *n)).collect();
        let share = ShareReport { generation: settings.generation, x, ok: share_ok };
        let (threshold, policy_sha256) = (settings.threshold, settings.policy.digest());
        let names: Vec<_> = settings.nodes.keys().cloned().collect();
        let mut nodes = BTreeMap::new();
        for name in names {
            let report = self.with_node(id, &name, now, |node, cx| node.report(cx));
            nodes.extend(report.map(|report| (name, report)));
        }
        let Some(settings) = self.settings.clusters.get(&id) else { return };
        let orders = self.orders.entry(id).or_default();
        let (peers, configured) = (settings.peers(), hex::encode(self.settings.allowed_signers.digest()));
        let trust = self.admission.trust(id);
        let rules = settings.rules(&peers, trust, &configured);
        let mut heartbeat = Heartbeat {
            version: self.settings.version.clone(),
            site: self.settings.site.clone(),
            started_at: self.started.wall,
            share,
            threshold,
            sandboxed: self.settings.sandboxed(),
            sandbox: self.settings.sandbox.clone(),
            clock_synchronised: self.clock_synchronised,
            audit: self.audit.clone(),
            policy_sha256,
            allowed_signers_sha256: hex::encode(trust.digest()),
            trust_version: orders.trust_version(),
            holds: orders.report_holds(&rules, self.admission.high_water()),
            waiting: orders.report_waiting(&rules, self.admission.high_water()),
            distrusted: orders.distrusted().cloned().collect(),
            orders: orders.passed_on().map(str::to_owned).collect(),
            nodes,
            next_drill: self.next_drills.get(&id).copied(),
            rejected: self.admission.rejected().iter().map(|(reason, n)| ((*reason).to_owned(), *n)).collect(),
            submissions,
        };
        heartbeat::fit(&mut heartbeat);
        self.outputs.push_back(Output::Publish { cluster: id, content: Content::Heartbeat(Box::new(heartbeat)) });
    }

    /// Whether a reboot of this host may count as an outage by now, as far as it does not depend on the node.
    fn outage_believable(&self, now: Now) -> Believable {
        let waited_for_broker = self.settings.broker_grace.is_none_or(|grace| {
            let up = self.broker.up_since.map_or(Duration::ZERO, |since| now.steady.since(since));
            // What the others named has come, unless one of them names what nobody has.
            let heard = up >= HEARTBEAT_HEARD && (!self.exchange.waits(now.steady) || up >= 2 * HEARTBEAT_HEARD);
            (self.broker.drained && heard) || now.steady.since(self.started.steady) >= grace
        });
        if waited_for_broker && self.clock_synchronised { Believable::Yes } else { Believable::NotYet }
    }

    fn consider_all(&mut self, now: Now) {
        let keys: Vec<_> = self.nodes.keys().cloned().collect();
        for (cluster, name) in keys {
            self.with_node(cluster, &name, now, |_, _| ());
        }
    }

    /// Runs `act` on a node with all that its decisions depend on, and lets it decide anew.
    fn with_node<T>(
        &mut self,
        id: ClusterId,
        name: &NodeName,
        now: Now,
        act: impl FnOnce(&mut Node, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let outage_believable = self.outage_believable(now);
        let clock_is_behind = self.admission.clock_is_behind(now);
        let node = self.nodes.get_mut(&(id, name.clone()))?;
        let cluster = self.clusters.get_mut(&id)?;
        let (peers, orders) = (&cluster.peers, self.orders.get(&id));
        let unfit = |custodian: &Principal| {
            let distrusted = orders.is_some_and(|orders| orders.is_distrusted(custodian));
            distrusted
                || peers.get(custodian).is_some_and(|peer| {
                    now.steady.since(peer.heard) > SILENT || peer.ready.get(name).is_some_and(|ready| !ready)
                })
        };
        let mut cx = Context {
            now,
            me: &self.settings.id,
            boot: &self.boot,
            settings: self.settings.clusters.get(&id)?,
            share_ok: cluster.share_ok,
            x: cluster.x,
            sandboxed: self.settings.sandboxed(),
            outage_believable,
            clock_is_behind,
            heard: self.broker.up_since.is_some(),
            held: orders.is_some_and(|orders| orders.holds_on(name).next().is_some()),
            unfit: &unfit,
            new_incident: &mut || self.ids.next(),
            outputs: &mut self.outputs,
            submissions: &mut cluster.submissions,
        };
        let done = act(node, &mut cx);
        node.consider(&mut cx);
        if let Some(last) = cluster.last_heartbeat.filter(|_| node.has_news(now)) {
            cluster.next_heartbeat = cluster.next_heartbeat.min(last + HEARTBEAT_MIN).max(now.steady);
        }
        Some(done)
    }
}
