//! What a custodian must still know after `kill -9`: one file, replaced whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::admission::Permission;
use crate::drill::Memory;
use crate::id::{ClusterId, MessageId, NodeName, Principal};
use crate::orders::Orders;
use crate::time::Timestamp;

use super::drills::Slots;

/// The version of the state file that this build writes, and the only one that it reads.
pub const STATE_VERSION: u32 = 2;

/// The kernel's id of one boot of this host: `/proc/sys/kernel/random/boot_id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootId(pub String);

/// A custodian's durable state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// [`STATE_VERSION`].
    pub v: u32,
    /// The latest time that the wall clock has shown.
    pub high_water: Timestamp,
    /// The ids of permissions that were admitted, each until it expires.
    pub permissions: BTreeMap<MessageId, Permission>,
    /// Each cluster's nodes.
    pub clusters: BTreeMap<ClusterId, BTreeMap<NodeName, NodeState>>,
    /// Each cluster's orders.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub orders: BTreeMap<ClusterId, Orders>,
    /// What each cluster's drills were held for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slots: BTreeMap<ClusterId, Slots>,
    /// What its conductors remember.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub conductors: BTreeMap<ClusterId, Memory>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            v: STATE_VERSION,
            high_water: Timestamp::default(),
            permissions: BTreeMap::new(),
            clusters: BTreeMap::new(),
            orders: BTreeMap::new(),
            slots: BTreeMap::new(),
            conductors: BTreeMap::new(),
        }
    }
}

/// Why a state file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Not what this program writes.
    #[error("it is not a custodian's state: {0}")]
    Malformed(String),
    /// Written by another version.
    #[error("it has version {0}, and this program reads version {STATE_VERSION}")]
    Version(u32),
}

impl State {
    /// Reads a state file's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, StateError> {
        let state: Self = serde_json::from_slice(bytes).map_err(|e| StateError::Malformed(e.to_string()))?;
        if state.v == STATE_VERSION { Ok(state) } else { Err(StateError::Version(state.v)) }
    }

    /// The state file's bytes.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("names, numbers and strings always have a JSON form")
    }
}

/// What is remembered of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeState {
    /// When this custodian last saw it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_open: Option<LastOpen>,
    /// That somebody sealed it: by whom this custodian was told, itself included, and what.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub markers: BTreeMap<Principal, Marker>,
    /// When the incidents began that were opened without people, within the last hour.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub openings: Vec<Timestamp>,
    /// The last time at which the node is known to have been open, by own eyes or a peer's receipt: approvals of before are
    /// void, also those that come later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<Timestamp>,
    /// When the latest hold that was taken was signed: approvals of before are void, also those that come later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Timestamp>,
    /// Approvals that were admitted and are not void yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<StandingApproval>,
    /// That this custodian's share left, and may be in the node still: whoever starts next knows no other way to call it back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sent: bool,
}

impl NodeState {
    /// The marker that this custodian vouches for to others: what it saw itself, or was told by whoever saw it. What is only passed on
    /// it does not pass on again: nobody could be made to forget it.
    pub fn vouched(&self, me: &Principal) -> Option<&Marker> {
        let own_eyes = self.markers.get(me).filter(|marker| marker.by == *me);
        let told = self.markers.iter().filter(|(via, marker)| **via == marker.by).map(|(_, marker)| marker);
        own_eyes.or_else(|| told.min_by_key(|marker| marker.at))
    }

    /// The marker that counts: this custodian's own, or the earliest.
    pub fn marker(&self, me: &Principal) -> Option<&Marker> {
        self.markers.get(me).or_else(|| self.markers.values().min_by_key(|marker| marker.at))
    }
}

/// A sight of a node open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastOpen {
    /// When.
    pub at: Timestamp,
    /// In which boot of the custodian's host.
    pub boot: BootId,
    /// Whether the custodian was stopped on purpose since.
    pub stopped: bool,
}

/// The durable note of an in-place seal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    /// When the node was seen sealed.
    pub at: Timestamp,
    /// Who saw it.
    pub by: Principal,
}

/// An approval that was admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandingApproval {
    /// The message's id.
    pub id: MessageId,
    /// The operator.
    pub from: Principal,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// Until when it counts.
    pub expires_at: Timestamp,
    /// Whether the share left on it: then it counts for that incident alone, and not for one that another process of this
    /// custodian finds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub used: bool,
}
