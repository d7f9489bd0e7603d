//! What is said about drills: an operator's order, the time that has come, a conductor's intent, and the report.
//!
//! What an intent permits, and when it is taken, is the custodian's (`custodian::node`); how a drill runs is `conductor`'s.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::order::{bounded, plain, reason};
use super::{Submission, distinct};
use crate::drill::CanaryPath;
use crate::id::{DrillId, MessageId, NodeName, Principal, SlotId};
use crate::time::Timestamp;

/// How many custodians an intent names, and a report tells of, at most: as many as a cluster has shares.
pub const CUSTODIANS_MAX: usize = 255;

/// An operator wants a drill, soon, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillOrder {
    /// The node that is to be sealed; left out, the conductor chooses as its configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "reason")]
    pub reason: Option<String>,
    /// Whether people have to approve the opening, as after a seal that nobody announced: the intent then permits nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub people: bool,
}

/// The time of a scheduled drill has come. Every conductor says so; whoever the broker hands it to first conducts the drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Due {
    /// The schedule's time.
    pub slot: SlotId,
}

/// A conductor is about to seal a node: whoever takes it opens the node again, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// The drill.
    pub drill: DrillId,
    /// The node.
    pub node: NodeName,
    /// What the drill is held for: the schedule's time, or an operator's order. Each is good for one intent.
    pub slot: SlotId,
    /// Who is to submit first, so that every share has its turn; the others stand by.
    #[serde(deserialize_with = "custodians")]
    pub submitters: Vec<Principal>,
    /// The operator's order, as he signed it, where it is one that the drill is held for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
}

/// How far a drill is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It is looked at whether it may be held.
    Preflight,
    /// The intent is out, and custodians answer to it.
    Announced,
    /// The node was told to seal itself.
    Sealing,
    /// The node is sealed.
    Sealed,
    /// The node is open, and it is looked at whether it serves.
    Open,
    /// It is over.
    Closed,
}

impl Phase {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Announced => "announced",
            Self::Sealing => "sealing",
            Self::Sealed => "sealed",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// What came of a drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrillResult {
    /// The node opened within the objective, and serves.
    Passed,
    /// The node opened, later than the objective, and serves.
    Late,
    /// The node did not open while the intent held, or does not serve.
    Failed,
    /// It was to be held, and something came before the node was sealed; or somebody's hold, or a crash of the node, ended it.
    Aborted,
    /// It did not begin: something spoke against it, or too few custodians took the intent. Nothing was sealed.
    Refused,
    /// Its conductor went away in the middle; the node was looked after, and nothing can be said about the time.
    Interrupted,
}

impl DrillResult {
    /// All results, for metrics.
    pub const ALL: [Self; 6] =
        [Self::Passed, Self::Late, Self::Failed, Self::Aborted, Self::Refused, Self::Interrupted];

    /// The name on the wire and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Late => "late",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Refused => "refused",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What a node does for its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Serving {
    /// It is the one that writes.
    Active,
    /// It stands by for the active one.
    Standby,
}

/// What one custodian did in a drill, as its receipt says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// The share's x coordinate.
    pub x: u8,
    /// What came of it.
    pub result: Submission,
    /// When it saw the node sealed, by its own clock.
    pub sealed_seen_at: Timestamp,
    /// When its share left.
    pub submitted_at: Timestamp,
    /// When the node's answer was there.
    pub answered_at: Timestamp,
}

/// An operator's approval in a drill that people have to approve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approved {
    /// The approval's message id, which receipts name.
    pub id: MessageId,
    /// When it was signed, by the operator's clock.
    pub signed_at: Timestamp,
    /// When the conductor had it, by the conductor's.
    pub heard_at: Timestamp,
}

/// What was read through the node when it served again, with a token of its own, as a client would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// What was to be read.
    pub path: CanaryPath,
    /// When it was; absent where it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_at: Option<Timestamp>,
    /// Whether it was what had been read through the same node before the drill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same: Option<bool>,
}

/// How a drill is going, and in the end what came of it. The last one, with a result, is the evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillReport {
    /// The drill.
    pub drill: DrillId,
    /// What it was held for.
    pub slot: SlotId,
    /// The node; absent where none could be chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// Who ordered it; absent where the schedule did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered_by: Option<Principal>,
    /// Why it was ordered.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "reason")]
    pub reason: Option<String>,
    /// Whether people had to approve the opening.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub people: bool,
    /// How far it is.
    pub phase: Phase,
    /// What came of it, once it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<DrillResult>,
    /// Why it came to that, where it did not pass.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "reason")]
    pub why: Option<String>,
    /// When it began.
    pub began_at: Timestamp,
    /// When the intent was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced_at: Option<Timestamp>,
    /// When the order to seal left for the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal_sent_at: Option<Timestamp>,
    /// When the node was first seen sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_at: Option<Timestamp>,
    /// When it was first seen open again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_at: Option<Timestamp>,
    /// When it was first seen to serve again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_at: Option<Timestamp>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<Timestamp>,
    /// From the first sight of the node sealed to the first of it open, in microseconds, by the conductor's steady clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_us: Option<u64>,
    /// How long that may take, in milliseconds.
    pub objective_ms: u64,
    /// What the node did for its clients before, and does after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Serving>,
    /// See `before`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Serving>,
    /// How many shares open the node.
    pub threshold: u8,
    /// Who was to submit first.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "custodians")]
    pub submitters: Vec<Principal>,
    /// Who took the intent.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "custodians")]
    pub taken_by: Vec<Principal>,
    /// Who did not, or did not submit though it was his turn, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "reasons")]
    pub declined: BTreeMap<Principal, String>,
    /// What custodians did.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "distinct")]
    pub responses: BTreeMap<Principal, Response>,
    /// Each operator's first approval, where people had to approve.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "distinct")]
    pub approvals: BTreeMap<Principal, Approved>,
    /// What was read through the node, where a canary is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// The intent's message id, which receipts name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<MessageId>,
}

fn custodians<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Principal>, D::Error> {
    bounded(from, CUSTODIANS_MAX)
}

/// A reason for each, all of them plain.
fn reasons<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<Principal, String>, D::Error> {
    #[derive(Deserialize)]
    struct Plain(#[serde(deserialize_with = "plain")] String);
    let all: BTreeMap<Principal, Plain> = distinct(from)?;
    Ok(all.into_iter().map(|(custodian, Plain(why))| (custodian, why)).collect())
}
