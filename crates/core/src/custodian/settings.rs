//! What a custodian is configured to do, as the core needs it: parsed, complete, without paths, addresses or secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::admission::Roles;
use crate::drill::Conducting;
use crate::id::{ClusterId, ClusterName, NodeName, Principal, Site};
use crate::message::SandboxPart;
use crate::orders::Rules;
use crate::policy::Policy;
use crate::sight::Watch;
use crate::trust::AllowedSigners;

/// A node that was just lost is knocked at this many times as often as one that answers is polled, so that without a broker a
/// custodian is still there well within a poll interval of the node's return.
const KNOCKS_PER_POLL: u32 = 20;

/// A custodian's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its own name.
    pub id: Principal,
    /// Its site, if it has one.
    pub site: Option<Site>,
    /// The program's version, for heartbeats.
    pub version: String,
    /// Which parts of the sandbox are in force: none, where there is none.
    pub sandbox: BTreeSet<SandboxPart>,
    /// How long the broker is waited for before an outage is believed; `None` where no broker is configured.
    pub broker_grace: Option<Duration>,
    /// The trust root.
    pub allowed_signers: AllowedSigners,
    /// The clusters it serves.
    pub clusters: BTreeMap<ClusterId, ClusterSettings>,
}

impl Settings {
    /// Whether the sandbox is in force.
    pub fn sandboxed(&self) -> bool {
        !self.sandbox.is_empty()
    }
}

/// One cluster's settings.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// The name that this custodian's configuration gives it.
    pub name: ClusterName,
    /// The generation of its shares.
    pub generation: u32,
    /// `n`: how many shares there are.
    pub shares: u8,
    /// `t`: how many open a node.
    pub threshold: u8,
    /// The custodians that hold the shares, this one among them.
    pub custodians: BTreeSet<Principal>,
    /// Whose approvals count.
    pub operators: BTreeSet<Principal>,
    /// Whose holds count, and nothing else of theirs.
    pub restrictors: BTreeSet<Principal>,
    /// Whose events count.
    pub sentinels: BTreeSet<Principal>,
    /// Whose intents count.
    pub conductors: BTreeSet<Principal>,
    /// How this custodian conducts drills, if it does.
    pub conducting: Option<Conducting>,
    /// What is done about each cause.
    pub policy: Policy,
    /// The time between two looks at a node.
    pub poll: Duration,
    /// Its nodes; for each whether nothing stands between us and its process.
    pub nodes: BTreeMap<NodeName, NodeSettings>,
}

/// One node's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeSettings {
    /// `tls = "direct"`.
    pub direct: bool,
}

impl Settings {
    pub(super) fn roles(&self) -> BTreeMap<ClusterId, Roles> {
        let roles = |cluster: &ClusterSettings| Roles {
            custodians: cluster.custodians.clone(),
            sentinels: cluster.sentinels.clone(),
            operators: cluster.operators.clone(),
            restrictors: cluster.restrictors.clone(),
            conductors: cluster.conductors.clone(),
        };
        self.clusters.iter().map(|(id, cluster)| (*id, roles(cluster))).collect()
    }
}

impl ClusterSettings {
    /// Whose word about nodes counts, and so can be made to count for nothing.
    pub(super) fn peers(&self) -> BTreeSet<Principal> {
        self.custodians.union(&self.sentinels).cloned().collect()
    }

    /// What orders are judged by.
    pub(super) fn rules<'a>(
        &'a self,
        peers: &'a BTreeSet<Principal>,
        trust: &'a AllowedSigners,
        configured_sha256: &'a str,
    ) -> Rules<'a> {
        let policy = &self.policy;
        Rules {
            operators: &self.operators,
            release_approvals: policy.release_approvals,
            approvals: policy.approvals.max(policy.in_place_approvals),
            peers,
            trust,
            configured_sha256,
        }
    }

    pub(super) fn watch(&self, node: NodeSettings) -> Watch {
        Watch { direct: node.direct, poll: self.poll, knock: self.poll / KNOCKS_PER_POLL }
    }
}
