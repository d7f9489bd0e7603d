//! What goes into the audit log: what was seen, decided, by which lock, and the result. Never a secret.

use serde::Serialize;

use crate::cause::Cause;
use crate::id::{ClusterId, DrillId, IncidentId, MessageId, NodeName, Principal, SlotId};
use crate::message::{Lock, Matter, Submission};
use crate::time::Timestamp;

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Entry {
    /// The custodian started.
    Started {
        /// The program's version.
        version: String,
    },
    /// The custodian was told to stop.
    Stopped,
    /// Contact with a node was lost: an incident begins.
    Lost {
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeName,
        /// The incident.
        incident: IncidentId,
    },
    /// A node was seen sealed.
    Sealed {
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeName,
        /// The incident.
        incident: IncidentId,
    },
    /// The incident's cause was found, or changed.
    Cause {
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeName,
        /// The incident.
        incident: IncidentId,
        /// The cause.
        cause: Cause,
    },
    /// A marker was set.
    Marker {
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeName,
        /// When the node was seen sealed.
        at: Timestamp,
        /// Who saw it.
        by: Principal,
        /// Who told of it, if that is somebody else.
        #[serde(skip_serializing_if = "Option::is_none")]
        via: Option<Principal>,
    },
    /// An approval was admitted.
    Approval {
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeName,
        /// The message.
        id: MessageId,
        /// The operator.
        from: Principal,
    },
    /// A conductor's intent was taken: one seal of the node that begins within a minute is a drill.
    Intent {
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeName,
        /// The message.
        id: MessageId,
        /// The conductor.
        from: Principal,
        /// The drill.
        drill: DrillId,
        /// What it is held for.
        slot: SlotId,
        /// Whether people have to approve: then it permits nothing.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        people: bool,
    },
    /// An intent was not taken, or holds no more without having been of use.
    IntentVoid {
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeName,
        /// The message.
        id: MessageId,
        /// The conductor.
        from: Principal,
        /// Why.
        why: String,
    },
    /// The node's seal is the one that an intent announced: no marker is set.
    Drill {
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeName,
        /// The incident.
        incident: IncidentId,
        /// The intent.
        intent: MessageId,
    },
    /// A hold is in force.
    Hold {
        /// The cluster.
        cluster: ClusterId,
        /// The hold.
        id: MessageId,
        /// The operator.
        from: Principal,
        /// The nodes; none means the whole cluster.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        nodes: Vec<NodeName>,
    },
    /// An operator's word waits for others'.
    Voice {
        /// The cluster.
        cluster: ClusterId,
        /// The message.
        id: MessageId,
        /// The operator.
        from: Principal,
        /// What it is for.
        #[serde(skip_serializing_if = "Option::is_none")]
        matter: Option<Matter>,
    },
    /// Enough operators ended a hold.
    Released {
        /// The cluster.
        cluster: ClusterId,
        /// The hold.
        hold: MessageId,
        /// Who.
        by: Vec<Principal>,
    },
    /// Enough operators ordered that somebody's word counts for nothing, or counts again.
    Distrust {
        /// The cluster.
        cluster: ClusterId,
        /// Whose.
        principal: Principal,
        /// Whether it counts again.
        lift: bool,
        /// Who.
        by: Vec<Principal>,
    },
    /// Enough operators put another trust root in force.
    Trust {
        /// The cluster.
        cluster: ClusterId,
        /// Its version.
        version: u32,
        /// Its SHA-256, in hexadecimal.
        sha256: String,
        /// Who.
        by: Vec<Principal>,
    },
    /// A share is about to be submitted: this entry is the lock "record".
    Release {
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeName,
        /// The incident.
        incident: IncidentId,
        /// The set of shares that is tried.
        round: u32,
        /// The cause, where the policy opens it by itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
        /// The approvals, where people opened it.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        approvals: Vec<MessageId>,
        /// The intent, in a drill.
        #[serde(skip_serializing_if = "Option::is_none")]
        intent: Option<MessageId>,
    },
    /// What came of a submission.
    Submitted {
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeName,
        /// The incident.
        incident: IncidentId,
        /// The result.
        result: Submission,
    },
    /// A share was not submitted.
    Refused {
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeName,
        /// The incident.
        incident: IncidentId,
        /// The lock that held.
        lock: Lock,
        /// Why.
        why: String,
    },
    /// A running attempt was reset.
    Reset {
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeName,
        /// Why.
        why: &'static str,
    },
    /// A node was seen open: the incident is over.
    Opened {
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeName,
        /// The incident.
        incident: IncidentId,
        /// From the first moment it was seen sealed to this one, in milliseconds, if it was seen sealed.
        #[serde(skip_serializing_if = "Option::is_none")]
        sealed_ms: Option<u64>,
        /// Whose word it was, if not this custodian's own eyes.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<Principal>,
    },
    /// Several processes were found behind one address.
    SharedAddress {
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeName,
    },
}

impl Entry {
    /// Whether it tells what was seen and nothing hangs on it: the disk may get it together with what follows from it.
    pub fn only_tells(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Sealed { .. } | Self::Cause { .. })
    }
}
