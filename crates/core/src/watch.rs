//! The sentinel: watches nodes, says what it sees, and keeps what custodians report. It holds no share and no token, and
//! nothing that it says can make a custodian release a share.
//!
//! What lives here: which events are published, the history of incidents, the collected reports, what is counted, and which trust
//! root is followed. What does not: sockets, signatures, the database, and how a node is looked at (`sight`).
//!
//! Only its own eyes decide when an incident ends. A custodian's receipt says so too, and may come late or from a captured
//! custodian: taken at its word, it would split one incident in two, and the second would look like a seal in place.

mod drills;
mod held;
mod ledger;
mod proof;
mod root;
mod suspect;
mod witness;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::admission::REASONS;
use crate::cause::Cause;
use crate::id::{ClusterId, ClusterName, NodeName, Principal};
use crate::message::{
    Approval, Body, Content, DrillReport, DrillResult, Header, Heartbeat, Needs, Seen, Sighting, Submission, Want,
};
use crate::quorum::{Basis, Heard, Quorum, assess};
use crate::sight::{Action, Evidence, Observation, Sight, Watch};
use crate::status::{
    ApprovalStatus, AuditWitness, ClusterStatus, CustodianStatus, DrillStatus, IncidentStatus, NodeStatus, ShareProof,
};
use crate::time::{Now, Steady, Timestamp};

pub use drills::DRILLS_KEPT;
pub use ledger::{INCIDENTS_KEPT, REPORTS_KEPT};
pub use root::TrustRoot;
pub use witness::AUDIT_DOUBT_KEPT;

use drills::Drills;
use held::Said;
use ledger::Ledger;
use root::Root;
use suspect::SUSPECT_KEPT;

/// How many approvals of a cluster are kept: more than operators sign in the quarter of an hour that one can live.
pub const APPROVALS_KEPT: usize = 64;

/// A reason for a refusal that this build does not know, so that nobody can make up label values.
const OTHER_REASON: &str = "other";

/// A node of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeName,
}

/// A cluster that is watched, as configuration and manifest say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterWatch {
    /// What it is called here.
    pub name: ClusterName,
    /// How many shares there are.
    pub shares: u8,
    /// How many of them open a node.
    pub threshold: u8,
    /// The generation that the manifest names.
    pub generation: u32,
    /// The custodians that the manifest names: nobody else's reports are kept.
    pub custodians: BTreeSet<Principal>,
    /// The nodes.
    pub nodes: BTreeMap<NodeName, NodeWatch>,
    /// How many nodes should be open at any time.
    pub min_unsealed: usize,
    /// SHA-256, in hexadecimal, of the configured allowed_signers file.
    pub allowed_signers_sha256: String,
    /// Until when operators have accepted what did not fit in a custodian's audit log.
    pub audit_accepted: BTreeMap<Principal, Timestamp>,
}

/// A node that is watched, as the configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeWatch {
    /// Where it is, for people.
    pub url: String,
    /// How it is watched.
    pub how: Watch,
}

/// Something for the history.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// An incident began, went on, or ended: it replaces what is known of the incident of this node that began then.
    Incident(ClusterId, IncidentStatus),
    /// A message of a custodian was admitted.
    Report(Box<Body>, Timestamp),
    /// A custodian's share was part of a set that opened a node: it replaces what was known of that custodian.
    Proof(ClusterId, Principal, ShareProof),
    /// Another trust root is in force: it replaces what was known. With `None`, the configured file is, and nothing is kept.
    TrustRoot(ClusterId, Option<TrustRoot>),
    /// A custodian told where its audit log stands: it replaces what was known of that.
    Audit(ClusterId, Principal, AuditWitness),
    /// A drill is over, and this is its conductor's report in the envelope that it signed. It replaces nothing.
    Drill(ClusterId, Box<DrillStatus>, String),
}

/// Counters that only grow, over the life of the process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Incidents by cause.
    pub incidents: BTreeMap<(ClusterId, Cause), u64>,
    /// Incidents that custodians ended, by cause.
    pub unseals: BTreeMap<(ClusterId, Cause), u64>,
    /// Shares submitted, as custodians' heartbeats count them.
    pub submissions: BTreeMap<(ClusterId, Principal, Submission), u64>,
    /// Messages refused by custodians, as their heartbeats count them, by receiver and reason.
    pub rejected: BTreeMap<(Principal, &'static str), u64>,
    /// Drills that are over, by result.
    pub drills: BTreeMap<(ClusterId, DrillResult), u64>,
}

/// The sentinel's state.
#[derive(Debug)]
pub struct Watcher {
    clusters: BTreeMap<ClusterId, Cluster>,
    submissions: Grown<(ClusterId, Principal, Submission)>,
    rejected: Grown<(Principal, &'static str)>,
    actions: VecDeque<(Place, Action)>,
    events: VecDeque<(ClusterId, Sighting)>,
    asks: VecDeque<(ClusterId, Want)>,
    records: VecDeque<Record>,
}

#[derive(Debug)]
struct Cluster {
    watch: ClusterWatch,
    nodes: BTreeMap<NodeName, Node>,
    heard: BTreeMap<Principal, Heard>,
    proofs: BTreeMap<Principal, ShareProof>,
    audits: BTreeMap<Principal, AuditWitness>,
    approvals: VecDeque<ApprovalStatus>,
    ledger: Ledger,
    drills: Drills,
    /// Who may tell of drills, by the trust root in force.
    conductors: BTreeSet<Principal>,
    root: Root,
}

/// Whom receipts make doubtful, and since when.
struct Doubts {
    suspects: BTreeMap<Principal, Timestamp>,
    contradicting: BTreeMap<Principal, Timestamp>,
}

#[derive(Debug)]
struct Node {
    sight: Sight,
    certificate_not_after: Option<Timestamp>,
    identity_refused: Option<String>,
    lost_because: Option<String>,
}

impl Watcher {
    /// Watches these clusters. Every node's first look is due at once.
    pub fn new(clusters: BTreeMap<ClusterId, ClusterWatch>, now: Now) -> Self {
        let mut watcher = Self {
            clusters: BTreeMap::new(),
            submissions: Grown::default(),
            rejected: Grown::default(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            asks: VecDeque::new(),
            records: VecDeque::new(),
        };
        watcher.reconfigure(clusters, &BTreeSet::new(), now);
        watcher
    }

    /// Takes over a changed configuration. What is known of clusters, nodes and custodians that are still in it stays, but for
    /// `renewed` nodes: those are found elsewhere now, or prove themselves in another way, and are looked at anew.
    pub fn reconfigure(&mut self, clusters: BTreeMap<ClusterId, ClusterWatch>, renewed: &BTreeSet<Place>, now: Now) {
        let mut before = std::mem::take(&mut self.clusters);
        for place in renewed {
            if let Some(cluster) = before.get_mut(&place.cluster) {
                cluster.nodes.remove(&place.node);
            }
        }
        for (id, watch) in clusters {
            let cluster = match before.remove(&id) {
                Some(cluster) => cluster.reconfigured(watch, now),
                None => Cluster::new(watch, now),
            };
            self.clusters.insert(id, cluster);
        }
        let known =
            |place: &Place| self.clusters.get(&place.cluster).is_some_and(|c| c.nodes.contains_key(&place.node));
        self.actions.retain(|(place, _)| known(place) && !renewed.contains(place));
        let clusters = &self.clusters;
        let serves = |id: &ClusterId, who: &Principal| {
            clusters.get(id).is_some_and(|cluster| cluster.watch.custodians.contains(who))
        };
        self.submissions.retain(|(id, who, _)| serves(id, who));
        self.rejected.retain(|(who, _)| clusters.keys().any(|id| serves(id, who)));
    }

    /// Only these conduct drills in a cluster: what others plan counts for nothing.
    pub fn set_conductors(&mut self, cluster: ClusterId, conductors: BTreeSet<Principal>) {
        if let Some(cluster) = self.clusters.get_mut(&cluster) {
            cluster.drills.conducted_by(&conductors);
            cluster.conductors = conductors;
        }
    }

    /// Takes back what an earlier process knew of a cluster's incidents, the oldest first.
    pub fn restore(&mut self, cluster: ClusterId, incidents: impl IntoIterator<Item = IncidentStatus>) {
        if let Some(cluster) = self.clusters.get_mut(&cluster) {
            cluster.ledger.restore(incidents);
        }
    }

    /// Takes back what an earlier process knew of when a cluster's shares were last proven.
    pub fn restore_proofs(&mut self, cluster: ClusterId, proofs: BTreeMap<Principal, ShareProof>) {
        if let Some(cluster) = self.clusters.get_mut(&cluster) {
            cluster.proofs = proofs;
        }
    }

    /// Takes back the trust root that an earlier process followed in a cluster. One that is in force is told of as a change.
    pub fn restore_trust_root(&mut self, cluster: ClusterId, kept: TrustRoot) {
        if let Some(cluster) = self.clusters.get_mut(&cluster) {
            cluster.root.restore(kept);
        }
    }

    /// Takes back what an earlier process knew of where the audit logs of a cluster's custodians stand.
    pub fn restore_audits(&mut self, cluster: ClusterId, audits: BTreeMap<Principal, AuditWitness>) {
        if let Some(cluster) = self.clusters.get_mut(&cluster) {
            cluster.audits = audits;
        }
    }

    /// Takes back what an earlier process knew of a cluster's drills, the oldest first.
    pub fn restore_drills(&mut self, cluster: ClusterId, drills: impl IntoIterator<Item = DrillStatus>) {
        if let Some(cluster) = self.clusters.get_mut(&cluster) {
            cluster.drills.restore(drills, |node| cluster.watch.nodes.contains_key(node));
        }
    }

    /// A node was looked at: `tell` hands what came of it to its sight.
    pub fn handle_node(&mut self, place: &Place, now: Now, tell: impl FnOnce(&mut Sight)) {
        if let Some(node) = self.node(place) {
            tell(&mut node.sight);
            self.follow(place, now);
        }
    }

    /// A node proved its identity in a full handshake.
    pub fn handle_identity(&mut self, place: &Place, not_after: Option<Timestamp>) {
        if let Some(node) = self.node(place) {
            node.certificate_not_after = not_after;
            node.identity_refused = None;
        }
    }

    /// Somebody answered and was not accepted as the node.
    pub fn handle_identity_refused(&mut self, place: &Place, why: String) {
        if let Some(node) = self.node(place) {
            node.identity_refused = Some(why);
        }
    }

    /// Why contact with a node was lost, for people.
    pub fn handle_lost_because(&mut self, place: &Place, why: String) {
        if let Some(node) = self.node(place) {
            node.lost_because = Some(why);
        }
    }

    /// A message was admitted.
    pub fn handle_message(&mut self, body: Body, now: Now) {
        let Body { header, content } = &body;
        let Some(cluster) = self.clusters.get_mut(&header.cluster) else { return };
        let reports = cluster.watch.custodians.contains(&header.from);
        match content {
            // Another sentinel's eyes; ours are as good.
            Content::Event(_) => return,
            Content::Approval(approval) => return cluster.keep_approval(header, approval),
            // Between custodians; and what came with an order, `handle_order` was told of.
            Content::Want(_) | Content::Ask(_) | Content::Relay(_) => return,
            Content::Hold(_)
            | Content::Release(_)
            | Content::Distrust(_)
            | Content::Trust(_)
            | Content::Drill(_)
            | Content::Due(_)
            | Content::DrillReport(_) => {}
            Content::Intent(intent) => {
                cluster.drills.announced(header.id, intent);
                cluster.name_drills();
            }
            _ if !reports => return,
            Content::Heartbeat(heartbeat) => {
                if !cluster.keep_heartbeat(header, heartbeat, now) {
                    return;
                }
                cluster.follow(now);
                let want = cluster.root.ask((&header.from, heartbeat), now.steady);
                self.asks.extend(want.map(|want| (header.cluster, want)));
                let news = cluster.witness(header, heartbeat, now);
                self.records.extend(news.map(|news| Record::Audit(header.cluster, header.from.clone(), news)));
                if cluster.conductors.contains(&header.from) && !cluster.distrusted(now).contains(&header.from) {
                    cluster.drills.plans(&header.from, heartbeat.next_drill, now.wall);
                }
                self.count(header, heartbeat);
            }
            Content::Sighting(sighting) => {
                if sighting.seen != Seen::Open
                    && let Some(node) = cluster.nodes.get_mut(&sighting.node)
                {
                    node.sight.attend(now);
                }
            }
            Content::Receipt(receipt) => {
                // Who tells of a share that is not his own, by his own word, tells of nothing that was.
                if !cluster.is_anothers(&header.from, receipt.x) {
                    cluster.ledger.receipt(&header.from, receipt);
                    cluster.name_drills();
                }
                if let Some(node) = cluster.nodes.get_mut(&receipt.node) {
                    node.sight.attend(now);
                }
            }
            Content::Acknowledgement(_) => {}
            Content::Refusal(refusal) => cluster.ledger.refusal(&header.from, refusal, header.issued_at),
        }
        self.records.push_back(Record::Report(Box::new(body), now.wall));
        self.collect(now);
    }

    /// An operator's order was admitted, in this envelope. What custodians make of it, their heartbeats say.
    pub fn handle_order(&mut self, body: Body, envelope: &[u8], now: Now) {
        if let Some(cluster) = self.clusters.get_mut(&body.header.cluster) {
            cluster.root.hear(&body.header, &body.content, envelope);
            cluster.follow(now);
        }
        self.handle_message(body, now);
    }

    /// A conductor's report was admitted, in this envelope, which is kept once the drill is over: it is the evidence.
    pub fn handle_drill_report(&mut self, body: Body, envelope: &[u8], now: Now) {
        let Header { cluster: id, from, issued_at, .. } = &body.header;
        if let (Some(cluster), Content::DrillReport(report)) = (self.clusters.get_mut(id), &body.content)
            && !cluster.distrusted(now).contains(from)
        {
            let report = DrillReport::clone(report);
            let drill = DrillStatus { conductor: from.clone(), issued_at: *issued_at, heard_at: now.wall, report };
            if cluster.drills.heard(drill.clone(), |node| cluster.watch.nodes.contains_key(node)) {
                let envelope = String::from_utf8_lossy(envelope).into_owned();
                self.records.push_back(Record::Drill(*id, Box::new(drill), envelope));
            }
            cluster.name_drills();
        }
        self.handle_message(body, now);
    }

    /// Moves on what is due at `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        let due = |node: &Node| node.sight.next_timeout().is_some_and(|at| at <= now.steady);
        let places: Vec<_> = self
            .clusters
            .iter()
            .flat_map(|(id, cluster)| cluster.nodes.iter().map(move |(name, node)| (id, name, node)))
            .filter(|(.., node)| due(node))
            .map(|(id, name, _)| Place { cluster: *id, node: name.clone() })
            .collect();
        for place in places {
            self.handle_node(&place, now, |sight| sight.handle_timeout(now));
        }
        for cluster in self.clusters.values_mut() {
            cluster.ledger.settle(now);
        }
        self.collect(now);
    }

    /// When [`Watcher::handle_timeout`] is next to be called.
    pub fn next_timeout(&self) -> Option<Steady> {
        let nodes = self.clusters.values().flat_map(|cluster| cluster.nodes.values());
        let looks = nodes.filter_map(|node| node.sight.next_timeout());
        let settles = self.clusters.values().filter_map(|cluster| cluster.ledger.next_timeout());
        looks.chain(settles).min()
    }

    /// What a node's task is to do next.
    pub fn poll_action(&mut self) -> Option<(Place, Action)> {
        self.actions.pop_front()
    }

    /// What is to be signed and published next.
    pub fn poll_event(&mut self) -> Option<(ClusterId, Sighting)> {
        self.events.pop_front()
    }

    /// Which orders a custodian is to be asked for next.
    pub fn poll_ask(&mut self) -> Option<(ClusterId, Want)> {
        self.asks.pop_front()
    }

    /// Which trust root is to be put in force next in which cluster; with `None`, the configured one again. It is written down
    /// as well.
    pub fn poll_trust_root(&mut self) -> Option<(ClusterId, Option<TrustRoot>)> {
        let changed = self.clusters.iter_mut().find_map(|(id, cluster)| Some((*id, cluster.root.poll()?)))?;
        self.records.push_back(Record::TrustRoot(changed.0, changed.1.clone()));
        Some(changed)
    }

    /// What is to be written down next.
    pub fn poll_record(&mut self) -> Option<Record> {
        self.records.pop_front()
    }

    /// How long a node was sealed that was just seen open.
    pub fn poll_duration(&mut self) -> Option<(Place, Duration)> {
        self.clusters.iter_mut().find_map(|(id, cluster)| {
            let (node, duration) = cluster.ledger.durations.pop_front()?;
            Some((Place { cluster: *id, node }, duration))
        })
    }

    /// What was counted so far.
    pub fn totals(&self) -> Totals {
        let by_cause = |counts: fn(&Ledger) -> &BTreeMap<Cause, u64>| {
            let of = |(id, cluster): (&ClusterId, &Cluster)| {
                let counted = counts(&cluster.ledger);
                Cause::ALL.map(|cause| ((*id, cause), counted.get(&cause).copied().unwrap_or(0)))
            };
            self.clusters.iter().flat_map(of).collect()
        };
        let drills = |(id, cluster): (&ClusterId, &Cluster)| {
            DrillResult::ALL.map(|result| ((*id, result), cluster.drills.totals.get(&result).copied().unwrap_or(0)))
        };
        Totals {
            incidents: by_cause(|ledger| &ledger.incidents),
            unseals: by_cause(|ledger| &ledger.unseals),
            submissions: self.submissions.totals.clone(),
            rejected: self.rejected.totals.clone(),
            drills: self.clusters.iter().flat_map(drills).collect(),
        }
    }

    /// Everything that is known of the clusters.
    pub fn status(&self, now: Now) -> BTreeMap<ClusterName, ClusterStatus> {
        self.clusters.iter().map(|(id, cluster)| (cluster.watch.name.clone(), cluster.status(*id, now))).collect()
    }

    fn node(&mut self, place: &Place) -> Option<&mut Node> {
        self.clusters.get_mut(&place.cluster)?.nodes.get_mut(&place.node)
    }

    /// Draws the conclusions from what a node's sight observed, and fetches what it wants done.
    fn follow(&mut self, place: &Place, now: Now) {
        let Some(cluster) = self.clusters.get_mut(&place.cluster) else { return };
        let Some(node) = cluster.nodes.get_mut(&place.node) else { return };
        let mut say = |seen, cause| {
            let sighting = Sighting { node: place.node.clone(), seen, cause, seen_at: now.wall };
            self.events.push_back((place.cluster, sighting));
        };
        // Said with its cause if that is known in the same breath; at once without it if not: it wakes the custodians.
        let mut sealed = false;
        while let Some(observation) = node.sight.poll_observation() {
            match observation {
                Observation::Status(_) | Observation::SharedAddress => continue,
                Observation::Sealed => {
                    sealed = true;
                    cluster.ledger.sealed(&place.node, now);
                    continue;
                }
                Observation::Evidence(evidence) => {
                    sealed = false;
                    let cause = cause_of(evidence);
                    cluster.ledger.proven(&place.node, cause, now);
                    say(Seen::Sealed, Some(cause));
                    continue;
                }
                Observation::Lost | Observation::Opened if std::mem::take(&mut sealed) => say(Seen::Sealed, None),
                Observation::Lost | Observation::Opened => {}
            }
            if observation == Observation::Lost {
                cluster.ledger.begin(&place.node, now);
                say(Seen::Lost, None);
            } else {
                node.lost_because = None;
                cluster.ledger.opened(&place.node, cluster.watch.generation, now);
                cluster.approvals.retain(|approval| approval.node != place.node || approval.issued_at > now.wall);
                say(Seen::Open, None);
            }
        }
        if sealed {
            say(Seen::Sealed, None);
        }
        while let Some(action) = node.sight.poll_action() {
            self.actions.push_back((place.clone(), action));
        }
        self.collect(now);
    }

    fn collect(&mut self, now: Now) {
        for (id, cluster) in &mut self.clusters {
            let changed = cluster.ledger.changed.drain(..);
            self.records.extend(changed.map(|incident| Record::Incident(*id, incident)));
            let told: Vec<_> = cluster.ledger.told.drain(..).collect();
            for (custodian, proof) in told.iter().flat_map(|incident| cluster.prove(incident, now)) {
                self.records.push_back(Record::Proof(*id, custodian, proof));
            }
        }
    }

    fn count(&mut self, header: &Header, heartbeat: &Heartbeat) {
        for result in Submission::ALL {
            let count = heartbeat.submissions.get(result.as_str()).copied().unwrap_or(0);
            self.submissions.see((header.cluster, header.from.clone(), result), heartbeat.started_at, count);
        }
        // Each, also at zero: a rise from nothing is no rise for whoever reads counters.
        let mut rejected: BTreeMap<&'static str, u64> = REASONS.into_iter().map(|reason| (reason, 0)).collect();
        for (reason, count) in &heartbeat.rejected {
            let known = REASONS.into_iter().find(|known| known == reason);
            let total = rejected.entry(known.unwrap_or(OTHER_REASON)).or_default();
            *total = total.saturating_add(*count);
        }
        for (reason, count) in rejected {
            // Over all clusters, and so the same in the heartbeats of each.
            self.rejected.see((header.from.clone(), reason), heartbeat.started_at, count);
        }
    }
}

const fn cause_of(evidence: Evidence) -> Cause {
    match evidence {
        Evidence::Restart => Cause::Restart,
        Evidence::InPlace => Cause::InPlace,
        Evidence::NeverOpen | Evidence::Nothing => Cause::Unknown,
    }
}

/// Which of two causes asks for more caution.
const fn strictness(cause: Cause) -> u8 {
    match cause {
        Cause::Restart => 0,
        Cause::Outage => 1,
        Cause::Unknown => 2,
        Cause::InPlace => 3,
    }
}

impl Cluster {
    fn new(watch: ClusterWatch, now: Now) -> Self {
        let nodes = watch.nodes.iter().map(|(name, how)| (name.clone(), Node::new(how.how, now))).collect();
        Self {
            nodes,
            heard: BTreeMap::new(),
            proofs: BTreeMap::new(),
            audits: BTreeMap::new(),
            approvals: VecDeque::new(),
            ledger: Ledger::default(),
            drills: Drills::default(),
            conductors: BTreeSet::new(),
            root: Root::new(watch.allowed_signers_sha256.clone()),
            watch,
        }
    }

    fn reconfigured(mut self, watch: ClusterWatch, now: Now) -> Self {
        self.nodes.retain(|name, _| watch.nodes.contains_key(name));
        for (name, how) in &watch.nodes {
            match self.nodes.get_mut(name) {
                Some(node) => node.sight.reconfigure(how.how),
                None => drop(self.nodes.insert(name.clone(), Node::new(how.how, now))),
            }
        }
        self.heard.retain(|name, _| watch.custodians.contains(name));
        self.proofs.retain(|name, _| watch.custodians.contains(name));
        self.root.reconfigure(watch.allowed_signers_sha256.clone());
        self.audits.retain(|name, _| watch.custodians.contains(name));
        self.drills.reconfigure(|name| watch.nodes.contains_key(name));
        self.watch = watch;
        self
    }

    /// What custodians say that speak now, whatever it is worth.
    fn said(&self, now: Now) -> Vec<Said<'_>> {
        let fresh = self.heard.iter().filter(|(_, heard)| heard.is_fresh(now));
        fresh.map(|(custodian, heard)| (custodian, &heard.heartbeat)).collect()
    }

    /// Whose word counts for nothing: so many others say so as could open a node.
    fn distrusted(&self, now: Now) -> BTreeSet<Principal> {
        held::surely(&held::distrusted(&self.said(now)), self.watch.threshold)
    }

    /// Goes by the trust root by which custodians do, if there is reason to.
    fn follow(&mut self, now: Now) {
        let distrusted = self.distrusted(now);
        let fresh = self.heard.iter().filter(|(who, heard)| heard.is_fresh(now) && !distrusted.contains(*who));
        let said: Vec<_> = fresh.map(|(custodian, heard)| (custodian, &heard.heartbeat)).collect();
        self.root.follow(&said, self.watch.threshold, now.wall);
    }

    /// Whether it is the latest so far.
    fn keep_heartbeat(&mut self, header: &Header, heartbeat: &Heartbeat, now: Now) -> bool {
        if self.heard.get(&header.from).is_some_and(|before| before.issued_at > header.issued_at) {
            return false;
        }
        let heard = Heard { heartbeat: heartbeat.clone(), issued_at: header.issued_at, at: now };
        self.heard.insert(header.from.clone(), heard);
        true
    }

    /// Remembers where the custodian's audit log stands, and returns it if it is news.
    fn witness(&mut self, header: &Header, heartbeat: &Heartbeat, now: Now) -> Option<AuditWitness> {
        let known = self.audits.get(&header.from);
        let accepted = self.watch.audit_accepted.get(&header.from).copied();
        let news = witness::witness(known, &heartbeat.audit, header.issued_at, now.wall, accepted)?;
        self.audits.insert(header.from.clone(), news.clone());
        Some(news)
    }

    fn keep_approval(&mut self, header: &Header, approval: &Approval) {
        let Some(expires_at) = header.expires_at else { return };
        if !self.nodes.contains_key(&approval.node) {
            return;
        }
        if self.approvals.len() >= APPROVALS_KEPT {
            self.approvals.pop_front();
        }
        let (from, issued_at) = (header.from.clone(), header.issued_at);
        let node = approval.node.clone();
        self.approvals.push_back(ApprovalStatus { id: header.id, node, from, issued_at, expires_at });
    }

    /// Finds out which incidents are drills', by the intents that their receipts name.
    fn name_drills(&mut self) {
        let drills = &self.drills;
        self.ledger.name_drills(|intent, node| drills.of_intent(intent, node));
    }

    /// When the next drill is due: the earliest that a conductor tells that speaks now and whose word counts.
    fn next_drill(&self, counting: &BTreeMap<&Principal, &Heard>, now: Now) -> Option<Timestamp> {
        let fresh = counting.iter().filter(|(who, heard)| heard.is_fresh(now) && self.conductors.contains(**who));
        fresh.filter_map(|(_, heard)| heard.heartbeat.next_drill).min()
    }

    /// Notes whose shares an incident proved, and returns what is news of it.
    fn prove(&mut self, incident: &IncidentStatus, now: Now) -> Vec<(Principal, ShareProof)> {
        let Some(at) = incident.opened_at else { return Vec::new() };
        let distrusted = self.distrusted(now);
        let proof = ShareProof { at, node: incident.node.clone(), generation: self.watch.generation };
        let mut news = Vec::new();
        for custodian in proof::proven(incident, &distrusted, self.watch.threshold) {
            let is_older = |known: &ShareProof| known.generation == proof.generation && known.at >= at;
            if !self.proofs.get(&custodian).is_some_and(is_older) {
                self.proofs.insert(custodian.clone(), proof.clone());
                news.push((custodian, proof.clone()));
            }
        }
        news
    }

    /// Whether the custodian's own heartbeat says that its share is another one than this.
    fn is_anothers(&self, from: &Principal, x: u8) -> bool {
        self.heard.get(from).and_then(|heard| heard.heartbeat.share.x).is_some_and(|own| own != x)
    }

    /// Whose receipts cannot all be true, and since when.
    fn contradicting(&self, distrusted: &BTreeSet<Principal>, now: Now) -> BTreeMap<Principal, Timestamp> {
        let recent = self.ledger.all().filter(|incident| now.wall < incident.began_at.after(SUSPECT_KEPT));
        let named = |incident: &IncidentStatus| {
            let named = proof::contradicting(incident, distrusted, self.watch.threshold).into_iter();
            named.map(|custodian| (custodian, incident.began_at)).collect::<Vec<_>>()
        };
        recent.flat_map(named).collect()
    }

    /// Whose shares are suspect, and since when.
    fn suspects(&self, distrusted: &BTreeSet<Principal>, now: Now) -> BTreeMap<Principal, Timestamp> {
        let mut suspects = BTreeMap::new();
        for incident in self.ledger.settled().filter(|incident| incident.generation == Some(self.watch.generation)) {
            if let Some(at) = incident.opened_at.filter(|at| now.wall < at.after(SUSPECT_KEPT)) {
                let named = suspect::suspects(incident, distrusted, self.watch.threshold);
                suspects.extend(named.into_iter().map(|custodian| (custodian, at)));
            }
        }
        suspects.retain(|custodian, at| self.proof(custodian).is_none_or(|proof| proof.at <= *at));
        suspects
    }

    /// When the custodian's share of the present generation was last proven.
    fn proof(&self, who: &Principal) -> Option<&ShareProof> {
        self.proofs.get(who).filter(|proof| proof.generation == self.watch.generation)
    }

    fn status(&self, id: ClusterId, now: Now) -> ClusterStatus {
        let watch = &self.watch;
        let nodes = watch.nodes.keys().cloned().collect();
        let basis = Basis { threshold: watch.threshold, generation: watch.generation, nodes: &nodes };
        let said = self.said(now);
        let told_distrusted = held::distrusted(&said);
        let distrusted = held::surely(&told_distrusted, watch.threshold);
        let counting: BTreeMap<_, _> = self.heard.iter().filter(|(who, _)| !distrusted.contains(*who)).collect();
        let quorum = assess(basis, &counting, now);
        let doubts =
            Doubts { suspects: self.suspects(&distrusted, now), contradicting: self.contradicting(&distrusted, now) };
        ClusterStatus {
            id,
            shares: watch.shares,
            threshold: watch.threshold,
            generation: watch.generation,
            generation_mismatch: quorum.generation_mismatch,
            diverged: !quorum.diverged.is_empty(),
            ready: quorum.ready,
            margin: quorum.margin,
            margin_without_largest_site: quorum.margin_without_largest_site,
            min_unsealed: watch.min_unsealed,
            nodes: self
                .nodes
                .iter()
                .map(|(name, node)| (name.clone(), self.node_status(name, node, &quorum, &counting, now)))
                .collect(),
            custodians: watch
                .custodians
                .iter()
                .map(|who| (who.clone(), self.custodian_status(who, &quorum, &distrusted, &doubts, now)))
                .collect(),
            approvals: self.approvals.iter().filter(|approval| approval.expires_at > now.wall).cloned().collect(),
            holds: held::holds(&said),
            waiting: held::waiting(&said),
            distrusted: told_distrusted,
            trust_versions: held::trust_versions(&said),
            trust: Some(self.root.in_force()),
            incidents: self.ledger.recent().cloned().collect(),
            drills: self.drills.recent(now.wall).cloned().collect(),
            drill_summary: self.drills.summary(self.next_drill(&counting, now), now.wall),
        }
    }

    fn node_status(
        &self,
        name: &NodeName,
        node: &Node,
        quorum: &Quorum,
        counting: &BTreeMap<&Principal, &Heard>,
        now: Now,
    ) -> NodeStatus {
        let seen = node.sight.seen();
        let fresh = counting.iter().filter(|(_, heard)| heard.is_fresh(now));
        let reports: Vec<_> = fresh.filter_map(|(who, heard)| Some((*who, heard.heartbeat.nodes.get(name)?))).collect();
        let flies = reports.iter().filter(|(_, report)| report.in_flight && seen != Seen::Open);
        let in_flight = flies.map(|(who, _)| (*who).clone()).collect();
        let reports: Vec<_> = reports.into_iter().map(|(_, report)| report).collect();
        let mut needs: Vec<(Needs, u32)> = Vec::new();
        for need in reports.iter().filter_map(|report| report.needs) {
            match needs.iter_mut().find(|(known, _)| *known == need) {
                Some((_, count)) => *count += 1,
                None => needs.push((need, 1)),
            }
        }
        needs.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let own = node.sight.evidence().map(cause_of);
        let told = reports.iter().filter_map(|report| report.cause).max_by_key(|cause| strictness(*cause));
        NodeStatus {
            url: self.watch.nodes.get(name).map(|watch| watch.url.clone()).unwrap_or_default(),
            seen,
            since: node.sight.since(),
            cause: own.filter(|cause| *cause != Cause::Unknown).or(told.filter(|_| seen != Seen::Open)).or(own),
            needs,
            marker: reports.iter().filter_map(|report| report.marker).min(),
            marker_by: reports.iter().filter_map(|report| report.marker_by.clone()).collect(),
            in_flight,
            ready: quorum.ready_by_node.get(name).copied().unwrap_or(0),
            ready_unheld: quorum.unheld_by_node.get(name).copied().unwrap_or(0),
            certificate_not_after: node.certificate_not_after,
            shared_address: node.sight.shared_address(),
            identity_refused: node.identity_refused.clone(),
            lost_because: node.lost_because.clone().filter(|_| seen == Seen::Lost),
        }
    }

    fn custodian_status(
        &self,
        who: &Principal,
        quorum: &Quorum,
        distrusted: &BTreeSet<Principal>,
        doubts: &Doubts,
        now: Now,
    ) -> CustodianStatus {
        let heard = self.heard.get(who);
        let up = heard.is_some_and(|heard| heard.is_fresh(now));
        let distrusted = distrusted.contains(who);
        let ready = |heard: &Heard| {
            self.nodes.keys().all(|node| heard.heartbeat.nodes.get(node).is_some_and(|report| report.ready))
        };
        CustodianStatus {
            heard_at: heard.map(|heard| heard.issued_at),
            up,
            ready: up && !distrusted && heard.is_some_and(ready),
            distrusted,
            site: heard.and_then(|heard| heard.heartbeat.site.clone()),
            config_diverged: quorum.diverged.contains(who),
            clock_offset_millis: heard.map(Heard::clock_offset_millis),
            share_proven: self.proof(who).filter(|_| !distrusted).cloned(),
            share_suspect: doubts.suspects.get(who).copied(),
            receipts_contradict: doubts.contradicting.get(who).copied(),
            audit: self.audits.get(who).map(|known| AuditWitness {
                doubt: witness::standing(known, now.wall, self.watch.audit_accepted.get(who).copied()).cloned(),
                ..known.clone()
            }),
            heartbeat: heard.map(|heard| heard.heartbeat.clone()),
        }
    }
}

impl Node {
    fn new(watch: Watch, now: Now) -> Self {
        Self { sight: Sight::new(watch, now), certificate_not_after: None, identity_refused: None, lost_because: None }
    }
}

/// Counters of processes that start at zero again with each restart, summed up so that they never fall.
#[derive(Debug)]
struct Grown<K> {
    last: BTreeMap<K, (Timestamp, u64)>,
    totals: BTreeMap<K, u64>,
}

impl<K> Default for Grown<K> {
    fn default() -> Self {
        Self { last: BTreeMap::new(), totals: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Grown<K> {
    fn retain(&mut self, still: impl Fn(&K) -> bool) {
        self.last.retain(|key, _| still(key));
        self.totals.retain(|key, _| still(key));
    }

    fn see(&mut self, key: K, started_at: Timestamp, count: u64) {
        let before = match self.last.insert(key.clone(), (started_at, count)) {
            Some((same, before)) if same == started_at => before,
            _ => 0,
        };
        let total = self.totals.entry(key).or_default();
        *total = total.saturating_add(count.saturating_sub(before));
    }
}

#[cfg(test)]
mod tests;
