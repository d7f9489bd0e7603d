//! What operators order, and what custodians say to it: the contents of messages.
//!
//! What an order does, and how many operators it takes, is `orders`' and the custodian's.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize};

use sha2::{Digest, Sha256};

use super::plain_text;
use crate::id::{MessageId, NodeName, Principal};
use crate::orders::PASSED_ON_MAX;
use crate::time::Timestamp;

/// How many nodes one hold names at most; without a name it is the whole cluster.
pub const NODES_NAMED_MAX: usize = 64;

/// How many holds are told of in a heartbeat.
pub const HOLDS_REPORTED: usize = 16;

/// How many orders that wait for more operators are told of in a heartbeat.
pub const WAITING_REPORTED: usize = 8;

/// How many orders are asked for at once.
pub const WANTED_MAX: usize = 16;

/// Nobody opens these nodes until enough operators have released the hold. One operator is enough for it. Its id is the
/// message's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// The nodes; none means the whole cluster. At most [`NODES_NAMED_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "nodes")]
    pub nodes: Vec<NodeName>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "reason")]
    pub reason: Option<String>,
}

/// A hold is to end. It says again what the hold said, so that nobody can be made to release another than he read of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The hold's message id.
    pub hold: MessageId,
    /// Who ordered it.
    pub by: Principal,
    /// When it was signed.
    pub held_at: Timestamp,
    /// Its nodes; none means the whole cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "nodes")]
    pub nodes: Vec<NodeName>,
}

impl Release {
    /// What several operators have to agree on.
    pub fn matter(&self) -> Matter {
        Matter::Release { hold: self.hold, sha256: spelled(&self.by, self.held_at, &self.nodes) }
    }
}

impl Hold {
    /// What several operators have to agree on to end it, if it has this id, and was signed by `by` at `held_at`.
    pub fn end(&self, id: MessageId, by: &Principal, held_at: Timestamp) -> Matter {
        Matter::Release { hold: id, sha256: spelled(by, held_at, &self.nodes) }
    }
}

/// A custodian's or sentinel's word is to count for nothing in this cluster, or again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distrust {
    /// Whose.
    pub principal: Principal,
    /// Whether it is to count again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lift: bool,
}

impl Distrust {
    /// What several operators have to agree on.
    pub fn matter(&self) -> Matter {
        Matter::Distrust { principal: self.principal.clone(), lift: self.lift }
    }
}

/// Another allowed_signers file is to be in force for this cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Higher than that of any before; the configured file has 0.
    pub version: u32,
    /// SHA-256, in hexadecimal, of the file that it replaces.
    pub previous_sha256: String,
    /// The whole new file.
    pub allowed_signers: String,
}

impl Trust {
    /// What several operators have to agree on.
    pub fn matter(&self) -> Matter {
        let sha256 = hex::encode(Sha256::digest(&self.allowed_signers));
        Matter::Trust { version: self.version, previous_sha256: self.previous_sha256.clone(), sha256 }
    }
}

/// What came of an operator's message at a custodian.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acknowledgement {
    /// The message's id.
    pub order: MessageId,
    /// What came of it. It is on the custodian's disk.
    pub effect: Effect,
    /// The nodes in which this custodian's share may be, or to which it is on its way, of those that the message is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_flight: Vec<NodeName>,
}

/// What came of an operator's message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Effect {
    /// It is in force. With braces: of a tagged variant without, serde would take any other field.
    InForce {},
    /// It takes more operators.
    Waiting {
        /// How many distinct operators have said so.
        have: u8,
        /// How many it takes.
        need: u8,
    },
    /// It cannot be done here.
    Inapplicable {
        /// Why, for people.
        #[serde(deserialize_with = "plain")]
        why: String,
    },
}

/// Asks one custodian for orders that its heartbeat names: another custodian does (`want`), or a sentinel (`ask`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Want {
    /// Who is asked.
    pub of: Principal,
    /// SHA-256, in hexadecimal, of their bodies; at most [`WANTED_MAX`].
    #[serde(deserialize_with = "wanted")]
    pub sha256: Vec<String>,
}

/// An order, as the operator signed it, for whoever asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// Who asked for it; to all others it is nothing.
    pub to: Principal,
    /// The operator's envelope.
    pub envelope: String,
}

/// A hold that a custodian obeys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldReport {
    /// The hold's id.
    pub id: MessageId,
    /// Who ordered it.
    pub by: Principal,
    /// When it was signed.
    pub held_at: Timestamp,
    /// Its nodes; none means the whole cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeName>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "reason")]
    pub reason: Option<String>,
    /// Who wants it to end, so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub released_by: Vec<Principal>,
    /// How many it takes.
    pub need: u8,
}

impl HoldReport {
    /// Whether it keeps this node shut.
    pub fn covers(&self, node: &NodeName) -> bool {
        self.nodes.is_empty() || self.nodes.contains(node)
    }
}

/// What several operators have to agree on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Matter {
    /// The end of a hold.
    Release {
        /// The hold's id.
        hold: MessageId,
        /// SHA-256, in hexadecimal, of what the hold says: see [`crate::orders`].
        sha256: String,
    },
    /// Whether somebody's word counts.
    Distrust {
        /// Whose.
        principal: Principal,
        /// Whether it is to count again.
        lift: bool,
    },
    /// Another allowed_signers file.
    Trust {
        /// Its version.
        version: u32,
        /// SHA-256, in hexadecimal, of the file that it replaces.
        previous_sha256: String,
        /// Its own.
        sha256: String,
    },
}

/// An order that waits for more operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitingReport {
    /// What is wanted.
    pub matter: Matter,
    /// Who wants it, so far.
    pub by: Vec<Principal>,
    /// How many it takes.
    pub need: u8,
}

/// SHA-256, in hexadecimal, of what a hold says, in one spelling.
fn spelled(by: &Principal, held_at: Timestamp, nodes: &[NodeName]) -> String {
    let nodes: BTreeSet<_> = nodes.iter().map(NodeName::as_str).collect();
    let nodes = nodes.into_iter().collect::<Vec<_>>().join(" ");
    hex::encode(Sha256::digest(format!("holdfast hold v1\n{by}\n{held_at}\n{nodes}")))
}

fn nodes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<NodeName>, D::Error> {
    bounded(from, NODES_NAMED_MAX)
}

fn wanted<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    digests(bounded(from, WANTED_MAX)?)
}

/// The orders that a heartbeat names.
pub(super) fn named<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    digests(bounded(from, PASSED_ON_MAX)?)
}

fn digests<E: serde::de::Error>(all: Vec<String>) -> Result<Vec<String>, E> {
    let is_one = |text: &String| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if all.iter().all(is_one) { Ok(all) } else { Err(E::custom("a digest that is none")) }
}

pub(super) fn bounded<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
    most: usize,
) -> Result<Vec<T>, D::Error> {
    let all = Vec::deserialize(from)?;
    if all.len() <= most { Ok(all) } else { Err(serde::de::Error::custom(format!("more than {most} of them"))) }
}

pub(super) fn reason<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    plain(from).map(Some)
}

/// A text for people is short and shows all that it is, or refused: what was signed is never changed.
pub(super) fn plain<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    let is_plain = plain_text(&text) == text;
    if is_plain { Ok(text) } else { Err(serde::de::Error::custom("a text that is too long, or not plain")) }
}
