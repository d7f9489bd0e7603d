//! What operators have ordered in one cluster, and what of it is in force: holds and their ends, whose word counts, and which
//! trust root.
//!
//! Restrictions need one operator, and are taken however late they come. What takes a restriction away, or changes whose keys
//! count, needs several: each signs the same [`Matter`], and it is in force when enough of them did so within
//! [`TOGETHER_MAX`] of each other. It is durable then: nothing here expires once it is in force, and nothing that was in force
//! and was ended comes back, whoever sends it again.
//!
//! What lives here: which orders stand, and which envelopes are passed on to custodians that missed them. What does not:
//! signatures and roles (`admission`), and what an order does to a node (`custodian`).

mod asked;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::envelope::Envelope;
use crate::id::{MessageId, NodeName, Principal};
use crate::message::{
    Content, Distrust, Effect, HOLDS_REPORTED, Header, Hold, HoldReport, Matter, Release, Trust, WAITING_REPORTED,
    WaitingReport,
};
use crate::time::Timestamp;
use crate::trust::{AllowedSigners, Namespace};

pub use asked::Asked;

/// How far apart operators may sign what takes several of them, and how long the voice of one waits for the others where it was
/// received: as long as an approval lives.
pub const TOGETHER_MAX: Duration = Duration::from_secs(15 * 60);

/// Holds of one operator that may stand at once: one for every node of a large cluster. More are refused, and his alone.
pub const HOLDS_PER_OPERATOR: usize = 64;

/// The bytes of their envelopes: with each change of the state all of it is written.
pub const HOLDS_BYTES_PER_OPERATOR: usize = 256 * 1024;

/// How much higher than that of the last a trust order's version may be: nobody can be led to use up the numbers.
pub const VERSIONS_AHEAD: u32 = 1000;

/// The bytes of the envelopes of one operator's voices that wait: two of the largest.
pub const VOICES_BYTES_PER_OPERATOR: usize = 128 * 1024;

/// Matters in which one operator's voice may wait at once.
pub const VOICES_PER_OPERATOR: usize = 16;

/// Matters that are remembered although their voices have lapsed, so that none of these counts again.
pub const LAPSED_KEPT: usize = 64;

/// Ends of holds that are remembered, each in 60 bytes; of older holds nothing is taken any more.
pub const RELEASED_KEPT: usize = 1024;

/// Settled matters whose envelopes are passed on to whoever missed them.
pub const SETTLED_KEPT: usize = 32;

/// The bytes of their envelopes: two changes of the largest trust root by two operators, dozens of an ordinary one.
pub const SETTLED_BYTES: usize = 256 * 1024;

/// The bytes of nodes and reasons in the holds of a heartbeat: an operator who writes much must not take the room in which others'
/// orders are named.
pub const HOLDS_REPORTED_BYTES: usize = 8 * 1024;

/// How many orders are passed on at most, and so named in a heartbeat.
pub const PASSED_ON_MAX: usize = 96;

/// The orders of one cluster, as they are on the custodian's disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Orders {
    /// The holds that are in force. An id is its operator's choice, and so no key: two may have chosen the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    holds: Vec<Standing>,
    /// What waits for more operators, the oldest first.
    #[serde(skip_serializing_if = "VecDeque::is_empty")]
    motions: VecDeque<Motion>,
    /// Holds that were ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    released: Vec<Tombstone>,
    /// The latest of the holds whose end was forgotten: none of before is taken any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    released_before: Option<Timestamp>,
    /// Of each operator the latest voice that was forgotten: none of before counts any more.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    lapsed_before: BTreeMap<Principal, Timestamp>,
    /// Whose word was made to count for nothing, or to count again, and when.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    distrust: BTreeMap<Principal, Distrusted>,
    /// The trust root that operators put in the place of the configured one.
    #[serde(skip_serializing_if = "Option::is_none")]
    trust: Option<Trusted>,
    /// SHA-256, in hexadecimal, of the trust root under which voices were taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    judged_under: Option<String>,
    /// The envelopes of matters that were settled, the oldest first.
    #[serde(skip_serializing_if = "VecDeque::is_empty")]
    settled: VecDeque<Vec<Kept>>,
}

/// A hold in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Standing {
    id: MessageId,
    by: Principal,
    held_at: Timestamp,
    hold: Hold,
    kept: Kept,
}

/// An envelope as it came, and the digest by which it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    sha256: String,
    envelope: String,
}

/// What waits for more operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Motion {
    matter: Matter,
    voices: BTreeMap<Principal, Voice>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Voice {
    id: MessageId,
    issued_at: Timestamp,
    received_at: Timestamp,
    /// None once it has lapsed: it is passed on no more, and only its id counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kept: Option<Kept>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tombstone {
    held_at: Timestamp,
    /// What was agreed on: another hold with the same id is not the one that was released.
    end: Matter,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Distrusted {
    /// When the last of the voices was signed: what was signed before it changes nothing any more.
    since: Timestamp,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    lifted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trusted {
    version: u32,
    /// The digest of the configured file that this one took the place of. Whoever replaces that file on the host has decided
    /// anew, and is believed.
    configured_sha256: String,
    /// Empty when the configured file was replaced since: then only the version counts.
    allowed_signers: String,
}

/// What an order is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Whose orders count.
    pub operators: &'a BTreeSet<Principal>,
    /// How many of them it takes to end a hold, to distrust, to change the trust root.
    pub release_approvals: u8,
    /// How many of them the policy asks to approve an opening, at most: a trust root must leave as many.
    pub approvals: u8,
    /// Who can be distrusted.
    pub peers: &'a BTreeSet<Principal>,
    /// The trust root in force.
    pub trust: &'a AllowedSigners,
    /// SHA-256, in hexadecimal, of the configured allowed_signers file.
    pub configured_sha256: &'a str,
}

/// What came of an order that was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// It was taken before, or was ended since: it changes nothing.
    Known,
    /// Too many orders of this operator wait or stand.
    Full,
    /// It was taken, or can never be.
    Told {
        /// What the operator is told.
        effect: Effect,
        /// What is different now.
        change: Option<Change>,
    },
}

/// What an order changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A hold is in force on these nodes; none means the whole cluster.
    Held(Vec<NodeName>),
    /// Somebody's voice waits for others.
    Voiced,
    /// A hold was ended, by these operators.
    Released(MessageId, Vec<Principal>),
    /// Somebody's word counts for nothing from now on, or counts again if `lift`; by these operators.
    Distrusted {
        /// Whose.
        principal: Principal,
        /// Whether it counts again.
        lift: bool,
        /// Who ordered it.
        by: Vec<Principal>,
    },
    /// Another trust root is in force.
    Trusted {
        /// Its version.
        version: u32,
        /// The file, parsed.
        allowed_signers: AllowedSigners,
        /// Who ordered it.
        by: Vec<Principal>,
    },
}

impl Orders {
    /// Takes an admitted order. `envelope` is what came, as text; `now` is this custodian's wall clock, which must not run
    /// back.
    pub fn take(
        &mut self,
        header: &Header,
        content: &Content,
        envelope: &str,
        rules: &Rules<'_>,
        now: Timestamp,
    ) -> Taken {
        match content {
            Content::Hold(hold) => self.hold(header, hold, envelope),
            Content::Release(release) => self.release(header, release, envelope, rules, now),
            Content::Distrust(distrust) => self.distrust(header, distrust, envelope, rules, now),
            Content::Trust(trust) => self.trust(header, trust, envelope, rules, now),
            _ => Taken::Known,
        }
    }

    /// The ids of the holds that keep this node shut.
    pub fn holds_on<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = MessageId> + 'a {
        let covers = move |hold: &Hold| hold.nodes.is_empty() || hold.nodes.contains(node);
        self.holds.iter().filter(move |standing| covers(&standing.hold)).map(|standing| standing.id)
    }

    /// Whether this party's word counts for nothing.
    pub fn is_distrusted(&self, principal: &Principal) -> bool {
        self.distrust.get(principal).is_some_and(|distrusted| !distrusted.lifted)
    }

    /// Everybody whose word counts for nothing.
    pub fn distrusted(&self) -> impl Iterator<Item = &Principal> {
        self.distrust.iter().filter(|(_, distrusted)| !distrusted.lifted).map(|(principal, _)| principal)
    }

    /// The trust root that operators put in the place of the configured one, if that is still the one that it replaced.
    pub fn trust_root(&self, configured_sha256: &str) -> Option<AllowedSigners> {
        let trusted = self.trust.as_ref().filter(|trusted| trusted.configured_sha256 == configured_sha256)?;
        AllowedSigners::parse(&trusted.allowed_signers).ok()
    }

    /// Forgets the trust root of orders if somebody replaced the configured file on this host; its version still counts.
    pub fn notice_configured(&mut self, configured_sha256: &str) {
        if let Some(trusted) = self.trust.as_mut().filter(|trusted| trusted.configured_sha256 != configured_sha256) {
            trusted.allowed_signers.clear();
        }
    }

    /// The highest version of a trust order that was in force, also where the configured file was replaced since; 0 if none was.
    pub fn trust_version(&self) -> u32 {
        self.trust.as_ref().map_or(0, |trusted| trusted.version)
    }

    /// The holds in force, for a heartbeat, as many as fit: each operator's latest, then the next of each. Who orders many hides none
    /// of another's.
    pub fn report_holds(&self, rules: &Rules<'_>, now: Timestamp) -> Vec<HoldReport> {
        let turn = |standing: &Standing| {
            // They are kept in the order in which they came; when somebody says that he signed is his to choose.
            let later = self.holds.iter().rev().filter(|other| other.by == standing.by);
            later.take_while(|other| *other != standing).count()
        };
        let mut holds: Vec<_> = self.holds.iter().map(|standing| (turn(standing), standing)).collect();
        holds.sort_by_key(|(turn, standing)| (*turn, standing.by.clone()));
        let mut bytes = 0;
        let fits = |standing: &&Standing| {
            let reason = standing.hold.reason.as_ref().map_or(0, String::len);
            bytes += reason + standing.hold.nodes.iter().map(|node| node.as_str().len()).sum::<usize>();
            bytes <= HOLDS_REPORTED_BYTES
        };
        let report = |standing: &Standing| HoldReport {
            id: standing.id,
            by: standing.by.clone(),
            held_at: standing.held_at,
            nodes: standing.hold.nodes.clone(),
            reason: standing.hold.reason.clone(),
            released_by: self.voices(&standing.end(), rules, now),
            need: rules.release_approvals.max(1),
        };
        holds.into_iter().map(|(_, standing)| standing).filter(fits).take(HOLDS_REPORTED).map(report).collect()
    }

    /// What waits for more operators, for a heartbeat: the latest. The ends of holds are told of with the holds.
    pub fn report_waiting(&self, rules: &Rules<'_>, now: Timestamp) -> Vec<WaitingReport> {
        let report = |motion: &Motion| {
            let by = motion.counting(rules, now).into_iter().cloned().collect::<Vec<_>>();
            let waits = !by.is_empty() && !matches!(motion.matter, Matter::Release { .. });
            waits.then(|| WaitingReport { matter: motion.matter.clone(), by, need: rules.release_approvals.max(1) })
        };
        self.motions.iter().rev().filter_map(report).take(WAITING_REPORTED).collect()
    }

    /// The digests of the orders that are passed on, at most [`PASSED_ON_MAX`]: every hold in force, and what was settled last. In
    /// the order in which they can be taken: a later trust root takes the place of the one before, and may know fewer keys.
    pub fn passed_on(&self) -> impl Iterator<Item = &str> {
        let (holds, settled) = (self.holds.len(), self.settled.iter().flatten().count());
        let surplus = (holds + settled).saturating_sub(PASSED_ON_MAX).min(settled);
        let all = self.holds().chain(self.settled.iter().flatten().skip(surplus));
        all.map(|kept| kept.sha256.as_str()).take(PASSED_ON_MAX)
    }

    /// The envelope with this digest, if it is one that is passed on.
    pub fn envelope(&self, sha256: &str) -> Option<&str> {
        let mut all = self.holds().chain(self.settled.iter().flatten());
        all.find(|kept| kept.sha256 == sha256).map(|kept| kept.envelope.as_str())
    }

    /// Whether this very envelope is one of those.
    pub fn has(&self, envelope: &str) -> bool {
        self.holds().chain(self.settled.iter().flatten()).any(|kept| kept.envelope == envelope)
    }

    fn holds(&self) -> impl Iterator<Item = &Kept> {
        self.holds.iter().map(|standing| &standing.kept)
    }

    fn is_released(&self, end: &Matter) -> bool {
        self.released.iter().any(|tombstone| tombstone.end == *end)
    }

    fn hold(&mut self, header: &Header, hold: &Hold, envelope: &str) -> Taken {
        let standing = Standing {
            id: header.id,
            by: header.from.clone(),
            held_at: header.issued_at,
            hold: hold.clone(),
            kept: Kept::of(envelope),
        };
        let forgotten = self.released_before.is_some_and(|before| header.issued_at <= before);
        let stands = |other: &Standing| other.id == header.id && other.by == header.from;
        if self.is_released(&standing.end()) || forgotten || self.holds.iter().any(stands) {
            return Taken::Known;
        }
        let of_his = self.holds.iter().filter(|other| other.by == header.from);
        let (count, bytes) =
            of_his.fold((0, envelope.len()), |(count, bytes), other| (count + 1, bytes + other.kept.envelope.len()));
        if count >= HOLDS_PER_OPERATOR || bytes > HOLDS_BYTES_PER_OPERATOR {
            return Taken::Full;
        }
        let nodes = hold.nodes.clone();
        self.holds.push(standing);
        Taken::Told { effect: Effect::InForce {}, change: Some(Change::Held(nodes)) }
    }

    fn release(
        &mut self,
        header: &Header,
        release: &Release,
        envelope: &str,
        rules: &Rules<'_>,
        now: Timestamp,
    ) -> Taken {
        let matter = release.matter();
        if self.is_released(&matter) {
            return settled_already();
        }
        let mut called_so = self.holds.iter().filter(|standing| standing.id == release.hold).peekable();
        if called_so.peek().is_some() && called_so.all(|standing| standing.end() != matter) {
            return inapplicable("the hold with that id is another one: it says something else than this release");
        }
        self.voice(header, matter, envelope, rules, now, |orders, settled| {
            let tombstone = Tombstone { held_at: release.held_at, end: release.matter() };
            orders.holds.retain(|standing| standing.end() != tombstone.end);
            orders.released.push(tombstone);
            orders.forget_released();
            Change::Released(release.hold, settled.by.clone())
        })
    }

    fn distrust(
        &mut self,
        header: &Header,
        distrust: &Distrust,
        envelope: &str,
        rules: &Rules<'_>,
        now: Timestamp,
    ) -> Taken {
        let Distrust { principal, lift } = distrust;
        if !rules.peers.contains(principal) {
            return inapplicable(
                "only custodians and sentinels of this cluster can be distrusted: operators go by a trust order",
            );
        }
        if let Some(known) = self.distrust.get(principal) {
            if known.lifted == *lift {
                return settled_already();
            }
            if header.issued_at <= known.since {
                return Taken::Known;
            }
        } else if *lift {
            return settled_already();
        }
        self.voice(header, distrust.matter(), envelope, rules, now, |orders, settled| {
            let known = Distrusted { since: settled.last, lifted: *lift };
            orders.distrust.insert(principal.clone(), known);
            // What was said for the contrary, and waits, was said before.
            let contrary = Matter::Distrust { principal: principal.clone(), lift: !*lift };
            orders.drop_motion(&contrary);
            Change::Distrusted { principal: principal.clone(), lift: *lift, by: settled.by.clone() }
        })
    }

    fn trust(&mut self, header: &Header, trust: &Trust, envelope: &str, rules: &Rules<'_>, now: Timestamp) -> Taken {
        let in_force = hex::encode(rules.trust.digest());
        let wanted = hex::encode(Sha256::digest(&trust.allowed_signers));
        if wanted == in_force && trust.version == self.trust_version() {
            return settled_already();
        }
        let version = self.trust_version();
        if trust.version <= version {
            return inapplicable(&format!("version {version} was in force already: number it higher"));
        }
        if trust.version - version > VERSIONS_AHEAD {
            return inapplicable(&format!("the last version was {version}: number it at most {VERSIONS_AHEAD} higher"));
        }
        if trust.previous_sha256 != in_force {
            return inapplicable("the file that it replaces is not the one in force here");
        }
        let allowed_signers = match AllowedSigners::parse(&trust.allowed_signers) {
            Ok(parsed) => parsed,
            Err(error) => return inapplicable(&format!("the new allowed_signers: {error}")),
        };
        if let Err(why) = leaves_enough(&allowed_signers, rules, now) {
            return inapplicable(&why);
        }
        // One file at a time from each: what an operator says last is what he wants.
        for motion in self.motions.iter_mut().filter(|motion| matches!(&motion.matter, Matter::Trust { .. })) {
            if let Some(earlier) = motion.voices.get(&header.from).map(|voice| voice.issued_at)
                && earlier < header.issued_at
            {
                motion.voices.remove(&header.from);
                let before = self.lapsed_before.entry(header.from.clone()).or_default();
                *before = (*before).max(earlier);
            }
        }
        self.motions.retain(|motion| !motion.voices.is_empty());
        self.voice(header, trust.matter(), envelope, rules, now, |orders, settled| {
            orders.trust = Some(Trusted {
                version: trust.version,
                configured_sha256: rules.configured_sha256.to_owned(),
                allowed_signers: trust.allowed_signers.clone(),
            });
            Change::Trusted { version: trust.version, allowed_signers, by: settled.by.clone() }
        })
    }

    /// Notes under which trust root voices are judged, and whether it is another than before: then no voice of before counts, as
    /// its key may be one that was taken away.
    pub fn judge_under(&mut self, trust: &AllowedSigners) -> bool {
        let sha256 = hex::encode(trust.digest());
        if self.judged_under.as_ref() == Some(&sha256) {
            return false;
        }
        let matters: Vec<_> = self.motions.iter().map(|motion| motion.matter.clone()).collect();
        matters.iter().for_each(|matter| self.drop_motion(matter));
        self.judged_under.replace(sha256).is_some()
    }

    /// One more operator says so. `settle` is what happens when that is enough.
    fn voice(
        &mut self,
        header: &Header,
        matter: Matter,
        envelope: &str,
        rules: &Rules<'_>,
        now: Timestamp,
        settle: impl FnOnce(&mut Self, &Settled) -> Change,
    ) -> Taken {
        let forgotten = self.lapsed_before.get(&header.from).is_some_and(|before| header.issued_at <= *before);
        if forgotten || self.motions.iter().any(|motion| motion.voices.values().any(|voice| voice.id == header.id)) {
            return Taken::Known;
        }
        self.shed_lapsed(now);
        let his = |motion: &&Motion| motion.voices.contains_key(&header.from) && motion.matter != matter;
        let waiting =
            self.motions.iter().filter(his).filter_map(|motion| motion.voices.get(&header.from)?.kept.as_ref());
        let (count, bytes) =
            waiting.fold((0, envelope.len()), |(count, bytes), kept| (count + 1, bytes + kept.envelope.len()));
        if count >= VOICES_PER_OPERATOR || bytes > VOICES_BYTES_PER_OPERATOR {
            return Taken::Full;
        }
        let place = match self.motions.iter().position(|motion| motion.matter == matter) {
            Some(place) => place,
            None => {
                self.motions.push_back(Motion { matter, voices: BTreeMap::new() });
                self.motions.len() - 1
            }
        };
        let (issued_at, kept) = (header.issued_at, Some(Kept::of(envelope)));
        let voice = Voice { id: header.id, issued_at, received_at: now, kept };
        let voices = &mut self.motions[place].voices;
        if voices.get(&header.from).is_some_and(|earlier| earlier.issued_at >= issued_at) {
            return Taken::Known;
        }
        voices.insert(header.from.clone(), voice);
        let (have, need) =
            (self.motions[place].counting(rules, now).len(), usize::from(rules.release_approvals.max(1)));
        if have < need {
            self.forget_lapsed(now);
            let have = u8::try_from(have).unwrap_or(u8::MAX);
            let effect = Effect::Waiting { have, need: rules.release_approvals.max(1) };
            return Taken::Told { effect, change: Some(Change::Voiced) };
        }
        let Some(motion) = self.motions.remove(place) else { return Taken::Known };
        let settled = motion.settle(rules, now);
        self.keep(settled.kept.clone());
        let change = settle(self, &settled);
        Taken::Told { effect: Effect::InForce {}, change: Some(change) }
    }

    /// Who has said so, and counts.
    fn voices(&self, matter: &Matter, rules: &Rules<'_>, now: Timestamp) -> Vec<Principal> {
        let motion = self.motions.iter().find(|motion| motion.matter == *matter);
        motion.map_or_else(Vec::new, |motion| motion.counting(rules, now).into_iter().cloned().collect())
    }

    fn keep(&mut self, envelopes: Vec<Kept>) {
        self.settled.push_back(envelopes);
        let bytes =
            |settled: &VecDeque<Vec<Kept>>| -> usize { settled.iter().flatten().map(|k| k.envelope.len()).sum() };
        while self.settled.len() > SETTLED_KEPT || bytes(&self.settled) > SETTLED_BYTES {
            self.settled.pop_front();
        }
    }

    fn forget_released(&mut self) {
        while self.released.len() > RELEASED_KEPT {
            let oldest = (0..self.released.len()).min_by_key(|place| self.released[*place].held_at).unwrap_or_default();
            let held_at = self.released.swap_remove(oldest).held_at;
            self.released_before = self.released_before.max(Some(held_at));
        }
    }

    /// Of voices that have lapsed, nothing but the id is needed any more.
    fn shed_lapsed(&mut self, now: Timestamp) {
        let voices = self.motions.iter_mut().flat_map(|motion| motion.voices.values_mut());
        voices.filter(|voice| !voice.counts(now)).for_each(|voice| voice.kept = None);
    }

    fn forget_lapsed(&mut self, now: Timestamp) {
        let has_lapsed = |motion: &Motion| !motion.voices.values().any(|voice| voice.counts(now));
        while self.motions.iter().filter(|motion| has_lapsed(motion)).count() > LAPSED_KEPT {
            let Some(oldest) = self.motions.iter().position(has_lapsed) else { return };
            let matter = self.motions[oldest].matter.clone();
            self.drop_motion(&matter);
        }
    }

    /// Forgets a matter, and takes none of its voices again.
    fn drop_motion(&mut self, matter: &Matter) {
        let Some(place) = self.motions.iter().position(|motion| motion.matter == *matter) else { return };
        let Some(motion) = self.motions.remove(place) else { return };
        for (operator, voice) in motion.voices {
            let before = self.lapsed_before.entry(operator).or_default();
            *before = (*before).max(voice.issued_at);
        }
    }
}

/// A matter on which enough operators agree.
struct Settled {
    by: Vec<Principal>,
    /// When the last of them signed.
    last: Timestamp,
    kept: Vec<Kept>,
}

impl Standing {
    /// What has to be agreed on to end it.
    fn end(&self) -> Matter {
        self.hold.end(self.id, &self.by, self.held_at)
    }
}

/// By which digest heartbeats name an order that was admitted, and by which it is asked for: SHA-256 of its body, in hexadecimal.
pub fn digest(envelope: &[u8]) -> String {
    // It was admitted, so it is one.
    let body = Envelope::parse(envelope).map(|envelope| envelope.body().to_vec()).unwrap_or_default();
    hex::encode(Sha256::digest(body))
}

impl Kept {
    fn of(envelope: &str) -> Self {
        Self { sha256: digest(envelope.as_bytes()), envelope: envelope.to_owned() }
    }
}

impl Motion {
    /// The operators whose voices count together: the most that signed within [`TOGETHER_MAX`] of each other.
    fn counting(&self, rules: &Rules<'_>, now: Timestamp) -> Vec<&Principal> {
        let counts = |(operator, voice): &(&Principal, &Voice)| {
            let may = rules.operators.contains(*operator) && rules.trust.can_sign(operator, Namespace::Order, now);
            may && voice.counts(now)
        };
        let mut voices: Vec<_> = self.voices.iter().filter(counts).collect();
        voices.sort_by_key(|(_, voice)| voice.issued_at);
        let from = |first: usize| {
            let start = voices[first].1.issued_at;
            voices[first..].iter().filter(|(_, voice)| voice.issued_at.since(start) <= TOGETHER_MAX).count()
        };
        let best = (0..voices.len()).max_by_key(|first| (from(*first), *first));
        best.map_or_else(Vec::new, |first| {
            voices[first..first + from(first)].iter().map(|(operator, _)| *operator).collect()
        })
    }

    fn settle(&self, rules: &Rules<'_>, now: Timestamp) -> Settled {
        let by: Vec<_> = self.counting(rules, now).into_iter().cloned().collect();
        let voices = || by.iter().filter_map(|operator| self.voices.get(operator));
        Settled {
            last: voices().map(|voice| voice.issued_at).max().unwrap_or_default(),
            kept: voices().filter_map(|voice| voice.kept.clone()).collect(),
            by,
        }
    }
}

impl Voice {
    fn counts(&self, now: Timestamp) -> bool {
        now.since(self.received_at) <= TOGETHER_MAX
    }
}

fn settled_already() -> Taken {
    Taken::Told { effect: Effect::InForce {}, change: None }
}

fn inapplicable(why: &str) -> Taken {
    Taken::Told { effect: Effect::Inapplicable { why: crate::message::plain_text(why) }, change: None }
}

/// Whether a trust root leaves enough operators to order and to approve: one that does not could never be replaced.
fn leaves_enough(trust: &AllowedSigners, rules: &Rules<'_>, now: Timestamp) -> Result<(), String> {
    for (namespace, need) in [(Namespace::Order, rules.release_approvals), (Namespace::Approval, rules.approvals)] {
        let can = rules.operators.iter().filter(|operator| trust.can_sign(operator, namespace, now)).count();
        if can < usize::from(need.max(1)) {
            return Err(format!("it would leave {can} operators with a key for {namespace}, and it takes {need}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
