//! The door: bytes from outside become a verified message, or a refusal that is counted.
//!
//! Whoever can write to a queue can send anything. Nothing of a message is acted on before all of this held: it has a form
//! that we know; it is about a cluster that we serve; its sender's word counts there for messages of this kind; the
//! signature is the sender's, made for this purpose; it is neither old nor early; and, where it permits something, it was
//! not heard before and the clock can be trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::envelope::{Envelope, EnvelopeError};
use crate::id::{ClusterId, MessageId, Principal, SlotId};
use crate::message::{Body, BodyError, Content, Header, Kind, read_content, read_header};
use crate::time::{Now, Timestamp};
use crate::trust::AllowedSigners;

/// How far ahead of ours a sender's clock may be.
pub const SKEW_MAX: Duration = Duration::from_secs(30);

/// How old a message that permits nothing may be when it comes: the peers queue's time to live, and the skew.
pub const AGE_MAX: Duration = Duration::from_secs(90);

/// The longest that a permission may live.
pub const PERMISSION_LIFE_MAX: Duration = Duration::from_secs(15 * 60);

/// How many ids of permissions are remembered of one operator in one cluster: far more than anybody signs in a quarter of an hour.
/// Full refuses, him alone.
pub const PERMISSIONS_MAX: usize = 512;

/// How many ids of other messages are remembered of one sender. Full refuses: that sender is flooding.
pub const RECENT_MAX: usize = 2048;

/// Whose word counts in one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roles {
    /// Who may send reports.
    pub custodians: BTreeSet<Principal>,
    /// Who may send events, and ask for orders.
    pub sentinels: BTreeSet<Principal>,
    /// Who may approve and order.
    pub operators: BTreeSet<Principal>,
    /// Who may order holds, and nothing else: a program that sounds the alarm.
    pub restrictors: BTreeSet<Principal>,
    /// Who may announce drills.
    pub conductors: BTreeSet<Principal>,
}

impl Roles {
    fn allow(&self, kind: Kind, from: &Principal) -> bool {
        match kind {
            Kind::Event | Kind::Ask => self.sentinels.contains(from),
            Kind::Hold => self.operators.contains(from) || self.restrictors.contains(from),
            Kind::Approval | Kind::Release | Kind::Distrust | Kind::Trust | Kind::Drill => {
                self.operators.contains(from)
            }
            Kind::Due | Kind::Intent | Kind::DrillReport => self.conductors.contains(from),
            Kind::Acknowledgement
            | Kind::Want
            | Kind::Relay
            | Kind::Heartbeat
            | Kind::Sighting
            | Kind::Receipt
            | Kind::Refusal => self.custodians.contains(from),
        }
    }
}

/// Why a message was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The envelope: form, signature, key.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The body's form.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// About a cluster that is not served here.
    #[error("it is about cluster {0}, which is not configured here")]
    Cluster(ClusterId),
    /// From somebody whose word does not count for this in this cluster.
    #[error("{from} may not send {kind} messages in this cluster")]
    Role {
        /// Who sent it.
        from: Principal,
        /// What it was.
        kind: &'static str,
    },
    /// Too old.
    #[error("it was signed at {0} and is too old by now")]
    Expired(Timestamp),
    /// Signed in the future.
    #[error("it was signed at {0}, which is still to come by this clock")]
    Early(Timestamp),
    /// A permission that would live too long.
    #[error("it would be valid for longer than {} minutes", PERMISSION_LIFE_MAX.as_secs() / 60)]
    Lifetime,
    /// From somebody whose word operators have ordered to count for nothing.
    #[error("operators have ordered that the word of {0} counts for nothing")]
    Distrusted(Principal),
    /// Heard before.
    #[error("message {0} was received before")]
    Replayed(MessageId),
    /// So many were received from this sender that no more ids can be remembered.
    #[error("too many messages in a short time: no more ids can be remembered")]
    Full,
    /// Our own clock stands before a time that it has shown already: nothing that expires can be judged.
    #[error("this host's clock stands before {0}, which it has shown already: nothing that expires is accepted")]
    Clock(Timestamp),
}

impl Refused {
    /// The name under which it is counted: one of a closed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Envelope(error) => error.reason(),
            Self::Body(BodyError::Version) => "unknown-version",
            Self::Body(BodyError::Kind) => "unknown-kind",
            Self::Body(BodyError::Malformed(_)) => "malformed",
            Self::Cluster(_) => "other-cluster",
            Self::Role { .. } => "wrong-role",
            Self::Expired(_) => "expired",
            Self::Early(_) => "early",
            Self::Lifetime => "too-long",
            Self::Distrusted(_) => "distrusted",
            Self::Replayed(_) => "replayed",
            Self::Full => "flood",
            Self::Clock(_) => "clock",
        }
    }
}

/// Every reason under which a refusal is counted.
pub const REASONS: [&str; 15] = [
    "altered",
    "clock",
    "distrusted",
    "early",
    "expired",
    "flood",
    "forged",
    "malformed",
    "other-cluster",
    "oversized",
    "replayed",
    "too-long",
    "unknown-kind",
    "unknown-version",
    "wrong-role",
];

/// A permission that was admitted, as long as it could come again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permission {
    /// The cluster that it is about.
    pub cluster: ClusterId,
    /// Who signed it.
    pub from: Principal,
    /// Until when it counts.
    pub expires_at: Timestamp,
}

/// One party's door.
#[derive(Debug)]
pub struct Admission {
    trust: AllowedSigners,
    /// The trust roots of clusters where it is another one than `trust`.
    trust_roots: BTreeMap<ClusterId, AllowedSigners>,
    clusters: BTreeMap<ClusterId, Roles>,
    permissions: BTreeMap<MessageId, Permission>,
    recent: BTreeMap<Principal, BTreeMap<MessageId, Timestamp>>,
    high_water: Timestamp,
    rejected: BTreeMap<&'static str, u64>,
}

impl Admission {
    /// A door with this trust root, for these clusters.
    pub fn new(trust: AllowedSigners, clusters: BTreeMap<ClusterId, Roles>) -> Self {
        Self {
            trust,
            trust_roots: BTreeMap::new(),
            clusters,
            permissions: BTreeMap::new(),
            recent: BTreeMap::new(),
            high_water: Timestamp::default(),
            rejected: BTreeMap::new(),
        }
    }

    /// Takes over a changed configuration; what is remembered stays.
    pub fn reconfigure(&mut self, trust: AllowedSigners, clusters: BTreeMap<ClusterId, Roles>) {
        self.trust = trust;
        self.clusters = clusters;
    }

    /// Takes back what an earlier process remembered: see [`Admission::permissions`] and [`Admission::high_water`].
    pub fn restore(&mut self, permissions: impl IntoIterator<Item = (MessageId, Permission)>, high_water: Timestamp) {
        self.permissions.extend(permissions);
        self.high_water = self.high_water.max(high_water);
    }

    /// The ids of the permissions that were admitted and have not expired, each with its expiry: to be on disk before any of
    /// them takes effect.
    pub fn permissions(&self) -> &BTreeMap<MessageId, Permission> {
        &self.permissions
    }

    /// The latest time that this party's wall clock has shown.
    pub fn high_water(&self) -> Timestamp {
        self.high_water
    }

    /// Puts another trust root in force for one cluster, or, with `None`, the one of all again.
    pub fn set_trust_root(&mut self, cluster: ClusterId, trust: Option<AllowedSigners>) {
        match trust {
            Some(trust) => drop(self.trust_roots.insert(cluster, trust)),
            None => drop(self.trust_roots.remove(&cluster)),
        }
    }

    /// The trust root in force for a cluster.
    pub fn trust(&self, cluster: ClusterId) -> &AllowedSigners {
        self.trust_roots.get(&cluster).unwrap_or(&self.trust)
    }

    /// How many messages were refused since the start, by reason.
    pub fn rejected(&self) -> &BTreeMap<&'static str, u64> {
        &self.rejected
    }

    /// Counts a refusal that was made before the bytes came here (a broker's delivery too large to be taken in).
    pub fn count_refusal(&mut self, reason: &'static str) {
        *self.rejected.entry(reason).or_default() += 1;
    }

    /// Moves the high-water mark on. The driver calls it now and then, so that the mark is never far behind.
    pub fn observe_clock(&mut self, now: Now) {
        self.high_water = self.high_water.max(now.wall);
    }

    /// Admits a message, or refuses it and counts why.
    pub fn admit(&mut self, bytes: &[u8], now: Now) -> Result<Body, Refused> {
        self.admit_if(|_| true, bytes, now)
    }

    /// Admits an order that somebody passed on. Everything else has a road of its own, and a time to live on it: it is refused,
    /// and not remembered, or whoever gets hold of it first could use it up.
    pub fn admit_order(&mut self, bytes: &[u8], now: Now) -> Result<Body, Refused> {
        self.admit_if(Kind::is_order, bytes, now)
    }

    fn admit_if(&mut self, may: fn(Kind) -> bool, bytes: &[u8], now: Now) -> Result<Body, Refused> {
        self.forget(now);
        let admitted = self.examine(bytes, now).and_then(|body| {
            let Header { kind, from, .. } = &body.header;
            if may(*kind) { Ok(body) } else { Err(Refused::Role { from: from.clone(), kind: kind.as_str() }) }
        });
        match &admitted {
            Ok(body) => self.remember(&body.header, now),
            Err(refused) => self.count_refusal(refused.reason()),
        }
        admitted
    }

    /// An order that was admitted could not be taken: when it comes again, it is no replay.
    pub fn forget_order(&mut self, header: &Header) {
        if let Some(ids) = self.recent.get_mut(&header.from).filter(|_| header.kind.is_order()) {
            ids.remove(&header.id);
        }
    }

    /// Looks at what is held for a drill (an operator's order, or a time that has come) wherever it stands, and remembers nothing: it
    /// comes to custodians and conductors on several roads, and whoever acts on it remembers its slot.
    pub fn examine_slot(&mut self, bytes: &[u8], now: Now) -> Result<Body, Refused> {
        self.examine_slot_late(bytes, |_, _| false, now)
    }

    /// The same for a conductor: what has expired is still good for looking after a drill that was begun for it.
    pub fn examine_slot_late(
        &mut self,
        bytes: &[u8],
        begun: impl Fn(ClusterId, &SlotId) -> bool,
        now: Now,
    ) -> Result<Body, Refused> {
        let late = |header: &Header, content: &Content| match content {
            Content::Drill(_) => begun(header.cluster, &SlotId::of_order(header.id)),
            Content::Due(due) => begun(header.cluster, &due.slot),
            _ => false,
        };
        let examined = self.examine_unless(bytes, late, now).and_then(|body| match body.header.kind {
            Kind::Drill | Kind::Due => Ok(body),
            kind => Err(Refused::Role { from: body.header.from, kind: kind.as_str() }),
        });
        examined.inspect_err(|refused| self.count_refusal(refused.reason()))
    }

    fn examine(&self, bytes: &[u8], now: Now) -> Result<Body, Refused> {
        let body = self.examine_anew(bytes, now)?;
        self.examine_memory(&body.header)?;
        Ok(body)
    }

    fn examine_anew(&self, bytes: &[u8], now: Now) -> Result<Body, Refused> {
        self.examine_unless(bytes, |_, _| false, now)
    }

    /// Refuses what has expired, unless it is good for something still.
    fn examine_unless(
        &self,
        bytes: &[u8],
        good: impl Fn(&Header, &Content) -> bool,
        now: Now,
    ) -> Result<Body, Refused> {
        let envelope = Envelope::parse_from(bytes, &self.trust)?;
        let (header, unread) = read_header(envelope.body())?;
        let roles = self.clusters.get(&header.cluster).ok_or(Refused::Cluster(header.cluster))?;
        if !roles.allow(header.kind, &header.from) {
            return Err(Refused::Role { from: header.from, kind: header.kind.as_str() });
        }
        envelope.verify(self.trust(header.cluster), &header.from, header.kind.namespace(), now.wall)?;
        let expired = match self.examine_times(&header, now) {
            Err(expired @ Refused::Expired(_)) if matches!(header.kind, Kind::Drill | Kind::Due) => Some(expired),
            times => times.map(|()| None)?,
        };
        let content = read_content(&header, unread)?;
        match expired {
            Some(expired) if !good(&header, &content) => Err(expired),
            _ => Ok(Body { header, content }),
        }
    }

    fn examine_times(&self, header: &Header, now: Now) -> Result<(), Refused> {
        // A hold is obeyed whenever it comes, and whatever the two clocks say: it can only keep a node shut.
        if header.kind == Kind::Hold {
            return Ok(());
        }
        if header.issued_at > now.wall.after(SKEW_MAX) {
            return Err(Refused::Early(header.issued_at));
        }
        // What takes several operators has no expiry of its own, but one's voice lapses while it waits for another's.
        if header.kind.is_order() {
            return if self.clock_is_behind(now) { Err(Refused::Clock(self.high_water)) } else { Ok(()) };
        }
        let Some(expires_at) = header.expires_at else {
            let old = now.wall.since(header.issued_at) > AGE_MAX;
            return if old { Err(Refused::Expired(header.issued_at)) } else { Ok(()) };
        };
        if self.clock_is_behind(now) {
            return Err(Refused::Clock(self.high_water));
        }
        if expires_at <= now.wall {
            return Err(Refused::Expired(header.issued_at));
        }
        if expires_at.since(header.issued_at) > PERMISSION_LIFE_MAX {
            return Err(Refused::Lifetime);
        }
        Ok(())
    }

    /// Whether the wall clock stands before a time that it has shown already, by more than clocks are corrected by.
    pub fn clock_is_behind(&self, now: Now) -> bool {
        now.wall.after(SKEW_MAX) < self.high_water
    }

    fn examine_memory(&self, header: &Header) -> Result<(), Refused> {
        let (known, full) = if header.kind.permits() {
            let his = |known: &&Permission| known.cluster == header.cluster && known.from == header.from;
            let many = self.permissions.values().filter(his).count();
            (self.permissions.contains_key(&header.id), many >= PERMISSIONS_MAX)
        } else {
            let of_sender = self.recent.get(&header.from);
            (
                of_sender.is_some_and(|ids| ids.contains_key(&header.id)),
                of_sender.is_some_and(|ids| ids.len() >= RECENT_MAX),
            )
        };
        match (known, full) {
            (true, _) => Err(Refused::Replayed(header.id)),
            (false, true) => Err(Refused::Full),
            (false, false) => Ok(()),
        }
    }

    fn remember(&mut self, header: &Header, now: Now) {
        match header.expires_at {
            Some(expires_at) => {
                let (cluster, from) = (header.cluster, header.from.clone());
                self.permissions.insert(header.id, Permission { cluster, from, expires_at });
            }
            None => {
                // An order comes again later than that too; who keeps orders knows it then.
                let heard = if header.kind.is_order() { now.wall } else { header.issued_at };
                let until = heard.after(AGE_MAX);
                self.recent.entry(header.from.clone()).or_default().insert(header.id, until);
            }
        }
    }

    /// Forgets ids that would be refused as expired anyway; for permissions by the high-water mark: a clock set back revives
    /// none.
    fn forget(&mut self, now: Now) {
        self.observe_clock(now);
        let high_water = self.high_water;
        self.permissions.retain(|_, known| known.expires_at.after(SKEW_MAX) > high_water);
        for ids in self.recent.values_mut() {
            ids.retain(|_, until| until.after(SKEW_MAX) > now.wall);
        }
        self.recent.retain(|_, ids| !ids.is_empty());
    }
}

#[cfg(test)]
mod tests;
