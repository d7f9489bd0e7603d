//! What operators ordered and what of it binds a custodian: the oracle's own reading of the rules for orders.
//!
//! Each custodian has a docket of the envelopes that it was handed, by the broker, a file or another custodian, and that the
//! operators really signed. What follows from them is judged here from nothing but that: the core is never asked what stands.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use holdfast_core::custodian::Entry;
use holdfast_core::envelope::Envelope;
use holdfast_core::id::{MessageId, Principal};
use holdfast_core::message::{Body, Content, Heartbeat, Hold, Release};
use holdfast_core::time::Timestamp;
use sha2::{Digest, Sha256};

use crate::oracle::{Given, Oracle};
use crate::people::RESTRICTOR;
use crate::world::World;

/// How far apart operators may sign what takes several, and how long one voice waits for the others.
const TOGETHER: Duration = Duration::from_secs(15 * 60);

/// How far clocks may be off without anybody being to blame.
const SKEW: Duration = Duration::from_secs(30);

/// An order's id, and the index of the operator who chose it: two may have chosen the same.
pub(crate) type OrderId = (MessageId, usize);

/// Something that an operator really ordered.
#[derive(Debug, Clone)]
pub(crate) struct Ordered {
    pub(crate) operator: usize,
    /// The key that signed it.
    pub(crate) key: u8,
    pub(crate) issued_at: Timestamp,
    pub(crate) content: Content,
    pub(crate) bytes: Rc<[u8]>,
}

/// What one custodian was told by operators.
#[derive(Debug, Clone, Default)]
pub(crate) struct Docket {
    /// The holds, and when each was heard, in true time.
    holds: BTreeMap<OrderId, Timestamp>,
    ended: BTreeSet<OrderId>,
    /// What takes several, and when each was heard first, in true time.
    voices: BTreeMap<OrderId, Timestamp>,
    /// What came of voices was carried out: they count no more.
    spent: BTreeSet<OrderId>,
    /// Of each operator the latest that waited when another trust root came into force: none of before counts any more.
    void_before: BTreeMap<usize, Timestamp>,
    distrusted: BTreeMap<Principal, bool>,
    /// Each operator's keys in the trust root in force, where it is not the configured one.
    keys: Option<Vec<Vec<u8>>>,
    version: u32,
    /// The digest of that trust root.
    file: Option<String>,
}

/// A docket in memory and as it is on the disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    known: Docket,
    saved: Docket,
}

/// What a message adds, until it is known whether the door let it in.
#[derive(Debug)]
pub(crate) struct Staged {
    relayed: bool,
    before: Kept,
}

impl Kept {
    pub(crate) fn begin_anew(&mut self) {
        self.known = self.saved.clone();
    }

    pub(crate) fn save(&mut self) {
        self.saved = self.known.clone();
    }
}

/// Whether it is this hold that a release speaks of.
fn ends(release: &Release, id: MessageId, hold: &Hold, by: &Principal, held_at: Timestamp) -> bool {
    let all = |nodes: &[holdfast_core::id::NodeName]| nodes.iter().cloned().collect::<BTreeSet<_>>();
    release.hold == id && release.by == *by && release.held_at == held_at && all(&release.nodes) == all(&hold.nodes)
}

/// Whether two orders want the same.
fn same(one: &Content, other: &Content) -> bool {
    match (one, other) {
        (Content::Release(one), Content::Release(other)) => {
            let hold = Hold { nodes: other.nodes.clone(), reason: None };
            ends(one, other.hold, &hold, &other.by, other.held_at)
        }
        (one, other) => one == other,
    }
}

impl World {
    /// An order is about to be handed to a custodian, as an operator's own envelope or in somebody's relay.
    pub(crate) fn before_order(&mut self, c: usize, bytes: &[u8]) -> Option<Staged> {
        self.hosts[c].running.as_ref()?;
        let body = |bytes: &[u8]| Envelope::parse(bytes).ok().and_then(|envelope| Body::parse(envelope.body()).ok());
        let outer = body(bytes)?;
        let (header, bytes, relayed) = match &outer.content {
            Content::Relay(relay) if relay.to == self.hosts[c].settings.id => {
                let inner = relay.envelope.as_bytes();
                (body(inner)?.header, inner, true)
            }
            _ => (outer.header.clone(), bytes, false),
        };
        let id = (header.id, self.operator(&header.from)?);
        if self.oracle.ordered.get(&id)?.bytes.as_ref() != bytes {
            return None;
        }
        let staged = Staged { relayed, before: self.oracle.dockets[c].clone() };
        self.hear_order(c, id);
        Some(staged)
    }

    /// A relay that the door refused has told nothing. An operator's own envelope binds whatever the core thinks of it.
    pub(crate) fn after_order(&mut self, c: usize, staged: Option<Staged>, admitted: bool) {
        if let Some(Staged { before, .. }) = staged.filter(|staged| staged.relayed && !admitted) {
            self.oracle.dockets[c] = before;
        }
    }

    fn operator(&self, name: &Principal) -> Option<usize> {
        let restrictor = || (self.people.restrictor.name == *name).then_some(RESTRICTOR);
        self.people.operators.iter().position(|operator| operator.name == *name).or_else(restrictor)
    }

    fn hear_order(&mut self, c: usize, id: OrderId) {
        let (now, wall) = (self.wall(0), self.wall(self.hosts[c].offset));
        let Some(ordered) = self.oracle.ordered.get(&id).cloned() else { return };
        if !self.binds(c, &ordered) {
            return;
        }
        let docket = &mut self.oracle.dockets[c].known;
        if let Content::Hold(_) = ordered.content {
            docket.holds.entry(id).or_insert(now);
            return;
        }
        let void = docket.void_before.get(&id.1).is_some_and(|before| ordered.issued_at <= *before);
        if ordered.issued_at > wall.after(SKEW) || docket.spent.contains(&id) || void {
            return;
        }
        let configured = hex::encode(self.people.trust().digest());
        let docket = &self.oracle.dockets[c].known;
        if let Content::Trust(trust) = &ordered.content {
            let in_force = docket.file.as_ref().unwrap_or(&configured);
            if trust.previous_sha256 != *in_force || trust.version <= docket.version {
                return;
            }
        }
        if let Content::Release(release) = &ordered.content {
            let called_so: Vec<_> = docket.holds.keys().filter(|(id, _)| *id == release.hold).copied().collect();
            let meant = |order: &OrderId| {
                self.hold(*order).is_some_and(|(hold, by, at)| ends(release, order.0, &hold, &by, at))
            };
            let ended = self.operator(&release.by).is_some_and(|by| docket.ended.contains(&(release.hold, by)));
            if ended || !called_so.is_empty() && !called_so.iter().any(meant) {
                return;
            }
        }
        if let Content::Distrust(distrust) = &ordered.content
            && docket.distrusted.get(&distrust.principal).copied().unwrap_or_default() != distrust.lift
        {
            return;
        }
        self.oracle.dockets[c].known.voices.entry(id).or_insert(now);
        if let Content::Release(release) = &ordered.content
            && self.agreed(c, &ordered.content) >= self.need()
            && let Some(operator) = self.operator(&release.by)
            && let id = (release.hold, operator)
            && self.hold(id).is_none_or(|(hold, by, at)| ends(release, release.hold, &hold, &by, at))
        {
            self.oracle.dockets[c].known.ended.insert(id);
            self.spend(c, &ordered.content);
        }
    }

    /// What operators agreed on is carried out.
    fn spend(&mut self, c: usize, content: &Content) {
        let Oracle { ordered, dockets, .. } = &mut self.oracle;
        let docket = &mut dockets[c].known;
        let spent =
            docket.voices.keys().filter(|id| ordered.get(id).is_some_and(|voice| same(&voice.content, content)));
        let spent: Vec<_> = spent.copied().collect();
        docket.voices.retain(|id, _| !spent.contains(id));
        docket.spent.extend(spent);
    }

    /// Whether an operator's key is in the trust root in force.
    fn counts(&self, c: usize, operator: usize, key: u8) -> bool {
        let keys = self.oracle.dockets[c].known.keys.as_ref();
        keys.unwrap_or(&self.oracle.configured_keys).get(operator).is_some_and(|keys| keys.contains(&key))
    }

    /// Whether an order counts: an operator's, or a restrictor's hold.
    fn binds(&self, c: usize, ordered: &Ordered) -> bool {
        let holds = matches!(ordered.content, Content::Hold(_));
        self.counts(c, ordered.operator, ordered.key) || (ordered.operator == RESTRICTOR && holds)
    }

    fn need(&self) -> usize {
        usize::from(self.setup.policy.release_approvals.max(1))
    }

    /// A hold as it was ordered.
    fn hold(&self, id: OrderId) -> Option<(Hold, Principal, Timestamp)> {
        let ordered = self.oracle.ordered.get(&id)?;
        let Content::Hold(hold) = &ordered.content else { return None };
        Some((hold.clone(), self.people.orderer(ordered.operator).name.clone(), ordered.issued_at))
    }

    /// How many operators want this together, as far as this custodian was told.
    fn agreed(&self, c: usize, content: &Content) -> usize {
        let (now, docket) = (self.wall(0), &self.oracle.dockets[c].known);
        // By a clock that is set, nobody can say from here what has lapsed there.
        let slack = if self.setup.skew.is_zero() { SKEW } else { Duration::from_secs(3 * 3600) };
        let voices = docket.voices.iter().filter(|(_, heard)| now.since(**heard) <= TOGETHER + slack);
        let voices: Vec<_> = voices
            .filter_map(|(id, _)| self.oracle.ordered.get(id))
            .filter(|ordered| same(&ordered.content, content))
            .collect();
        let with = |first: &&Ordered| {
            let apart = |other: &&&Ordered| {
                other.issued_at >= first.issued_at && other.issued_at.since(first.issued_at) <= TOGETHER
            };
            voices.iter().filter(apart).map(|other| other.operator).collect::<BTreeSet<_>>().len()
        };
        voices.iter().map(with).max().unwrap_or_default()
    }

    /// The holds on a node that a custodian was told of, and that were not ended there.
    pub(crate) fn bound_by(&self, c: usize, n: usize) -> Vec<OrderId> {
        let docket = &self.oracle.dockets[c].known;
        let covers = |id: &&OrderId| {
            let hold = self.hold(**id).map(|(hold, _, _)| hold.nodes);
            hold.is_some_and(|nodes| nodes.is_empty() || nodes.contains(&self.names[n]))
        };
        docket.holds.keys().filter(|id| !docket.ended.contains(id)).filter(covers).copied().collect()
    }

    /// Whether a custodian should be bound by a hold, once it hears of it.
    pub(crate) fn would_obey(&self, c: usize, id: OrderId) -> bool {
        let ordered = &self.oracle.ordered[&id];
        !self.oracle.dockets[c].known.ended.contains(&id) && self.binds(c, ordered)
    }

    /// Whether somebody's word counts for nothing at a custodian.
    pub(crate) fn is_deaf_to(&self, c: usize, principal: &Principal) -> bool {
        self.oracle.dockets[c].known.distrusted.get(principal).copied().unwrap_or_default()
    }

    pub(crate) fn check_no_hold(&self, c: usize, n: usize, what: &str) {
        if let Some(hold) = self.bound_by(c, n).first() {
            self.wrong(c, n, &format!("{what} although it was told of hold {}, which nobody ended", hold.0));
        }
    }

    /// An approval is about to be used.
    pub(crate) fn check_consent(&self, c: usize, n: usize, given: &Given) {
        if !self.counts(c, given.operator, given.key) {
            self.wrong(c, n, "an approval by a key that operators took away");
        }
        for (id, heard) in &self.oracle.dockets[c].known.holds {
            let Some((hold, _, held_at)) = self.hold(*id) else { continue };
            let covers = hold.nodes.is_empty() || hold.nodes.contains(&self.names[n]);
            if covers && self.setup.skew.is_zero() && given.issued_at <= held_at.min(*heard) {
                self.wrong(c, n, &format!("an approval from before hold {}", id.0));
            }
        }
    }

    /// An entry of the audit log that says what orders did.
    pub(crate) fn check_order_entry(&mut self, c: usize, entry: &Entry) {
        let need = self.need();
        let distinct = |by: &[Principal]| by.iter().collect::<BTreeSet<_>>().len() >= need;
        match entry {
            Entry::Hold { id, from, .. } => {
                let docket = &self.oracle.dockets[c].known;
                let order = (*id, self.operator(from).unwrap_or(usize::MAX));
                if !docket.holds.contains_key(&order) {
                    self.wrong(c, 0, &format!("obeys hold {id}, which nobody ordered"));
                }
                if docket.ended.contains(&order) {
                    self.wrong(c, 0, &format!("hold {id} was ended, and is back"));
                }
            }
            Entry::Released { hold, by, .. } => {
                // Of a hold that it never heard of, it believes what the releases say.
                let agreed = self.oracle.ordered.values().any(|ordered| match &ordered.content {
                    Content::Release(release) => release.hold == *hold && self.agreed(c, &ordered.content) >= need,
                    _ => false,
                });
                let ended = self.oracle.dockets[c].known.ended.iter().any(|(id, _)| id == hold);
                if !distinct(by) || !(ended || agreed) {
                    self.wrong(c, 0, &format!("ends hold {hold}, and not enough operators ordered it"));
                }
            }
            Entry::Distrust { principal, lift, by, .. } => {
                let wanted = holdfast_core::message::Distrust { principal: principal.clone(), lift: *lift };
                let wanted = Content::Distrust(wanted);
                if !distinct(by) || self.agreed(c, &wanted) < need {
                    self.wrong(c, 0, &format!("distrusts {principal} ({lift}), and not enough operators ordered it"));
                }
                self.spend(c, &wanted);
                self.oracle.dockets[c].known.distrusted.insert(principal.clone(), !lift);
                if !lift {
                    let me = self.hosts[c].settings.id.clone();
                    self.oracle.forget_word_of(c, principal, &me);
                }
            }
            Entry::Trust { version, sha256, by, .. } => self.check_trust(c, *version, sha256, distinct(by)),
            _ => {}
        }
    }

    fn check_trust(&mut self, c: usize, version: u32, sha256: &str, enough: bool) {
        let wanted = self.oracle.ordered.values().find(|ordered| match &ordered.content {
            Content::Trust(trust) => {
                trust.version == version && hex::encode(Sha256::digest(&trust.allowed_signers)) == sha256
            }
            _ => false,
        });
        let Some(Ordered { content: content @ Content::Trust(trust), .. }) = wanted else {
            self.wrong(c, 0, "another trust root, which nobody ordered");
        };
        if !enough || self.agreed(c, content) < self.need() {
            self.wrong(c, 0, "another trust root, and not enough operators ordered it");
        }
        if version <= self.oracle.dockets[c].known.version {
            self.wrong(c, 0, &format!("version {version} of the trust root comes back"));
        }
        let keys = self.keys_of(&trust.allowed_signers);
        let content = content.clone();
        self.spend(c, &content);
        let docket = &mut self.oracle.dockets[c].known;
        (docket.keys, docket.version, docket.file) = (Some(keys), version, Some(sha256.to_owned()));
        for id in std::mem::take(&mut docket.voices).into_keys() {
            let (before, voice) = (docket.void_before.entry(id.1).or_default(), &self.oracle.ordered[&id]);
            *before = (*before).max(voice.issued_at);
        }
    }

    /// What a custodian says of orders in its heartbeat.
    pub(crate) fn check_orders_told(&self, c: usize, heartbeat: &Heartbeat) {
        let docket = &self.oracle.dockets[c].known;
        for hold in &heartbeat.holds {
            let order = (hold.id, self.operator(&hold.by).unwrap_or(usize::MAX));
            // A clock that is wrong takes no releases, and nobody can say from here whether it is.
            let ended = docket.ended.contains(&order) && self.setup.skew.is_zero();
            if !docket.holds.contains_key(&order) || ended {
                self.wrong(c, 0, &format!("says that hold {} is in force", hold.id));
            }
        }
        let distrusted = |principal: &Principal| self.is_deaf_to(c, principal);
        if let Some(wrong) = heartbeat.distrusted.iter().find(|principal| !distrusted(principal)) {
            self.wrong(c, 0, &format!("says that {wrong} is distrusted"));
        }
        if heartbeat.trust_version != docket.version {
            self.wrong(c, 0, &format!("says that its trust root is version {}", heartbeat.trust_version));
        }
        let me = &self.hosts[c].settings.id;
        for (node, state) in self.state_of(c).iter().flat_map(|state| state.clusters.values().flatten()) {
            let counts = |(via, marker): (&Principal, &holdfast_core::custodian::Marker)| {
                via != me && (distrusted(via) || distrusted(&marker.by))
            };
            if state.markers.iter().any(counts) {
                let n = self.index(node).unwrap_or_default();
                self.wrong(c, n, "keeps a marker of somebody whose word counts for nothing");
            }
        }
    }
}
