//! The document that a sentinel answers with at `/api/v1/status`: what it knows, for `holdfast status` and whoever else reads it.
//!
//! Read-only and public within the monitoring network: no secret, and nothing in it makes anybody release a share. Readers
//! ignore fields that they do not know, so that a sentinel may be newer than they are.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::cause::Cause;
use crate::id::{ClusterId, ClusterName, DrillId, IncidentId, MessageId, NodeName, Principal, Site};
use crate::message::{DrillReport, Heartbeat, Lock, Matter, Needs, Seen, Submission};
use crate::time::Timestamp;

/// The whole document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The sentinel.
    pub sentinel: Principal,
    /// Its program's version.
    pub version: String,
    /// When this was put together.
    pub at: Timestamp,
    /// When its process started.
    pub started_at: Timestamp,
    /// Whether it is connected to the broker; `None` where none is configured.
    pub broker_up: Option<bool>,
    /// Why it is not connected to the broker.
    #[serde(default)]
    pub broker_trouble: Option<String>,
    /// Why its history is not being written down, if it is not.
    #[serde(default)]
    pub history_trouble: Option<String>,
    /// Messages that it refused since it started, by reason.
    #[serde(default)]
    pub rejected: BTreeMap<String, u64>,
    /// The clusters, by the name that the sentinel's configuration gives them.
    pub clusters: BTreeMap<ClusterName, ClusterStatus>,
}

/// One cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Its id.
    pub id: ClusterId,
    /// `n`.
    pub shares: u8,
    /// `t`.
    pub threshold: u8,
    /// Custodians ready for the worst node, counted by distinct shares.
    pub ready: u32,
    /// `ready` minus `threshold`.
    pub margin: i32,
    /// The margin without the site whose loss costs most. A custodian that names no site is lost alone.
    pub margin_without_largest_site: i32,
    /// Whether custodians disagree on policy or trust root.
    pub diverged: bool,
    /// Whether custodians hold shares of different generations.
    pub generation_mismatch: bool,
    /// The generation that the sentinel's manifest names.
    #[serde(default)]
    pub generation: u32,
    /// How many nodes should be open at any time.
    #[serde(default)]
    pub min_unsealed: usize,
    /// The nodes.
    pub nodes: BTreeMap<NodeName, NodeStatus>,
    /// The custodians of the manifest, heard from or not.
    pub custodians: BTreeMap<Principal, CustodianStatus>,
    /// Approvals that were heard and have not expired.
    pub approvals: Vec<ApprovalStatus>,
    /// The holds that custodians say that they obey: first those that most obey, of these the latest.
    #[serde(default)]
    pub holds: Vec<HoldStatus>,
    /// What operators have begun and too few have joined: first what most custodians tell of. The ends of holds are with the holds.
    #[serde(default)]
    pub waiting: Vec<WaitingStatus>,
    /// Whose word counts for nothing, as operators have ordered, and the custodians that say so.
    #[serde(default)]
    pub distrusted: BTreeMap<Principal, BTreeSet<Principal>>,
    /// The trust roots by which custodians say that they judge: first that of most. More than one is a divergence.
    #[serde(default)]
    pub trust_versions: Vec<TrustVersionStatus>,
    /// The trust root by which the sentinel itself judges.
    #[serde(default)]
    pub trust: Option<TrustVersion>,
    /// The latest incidents, newest first.
    pub incidents: Vec<IncidentStatus>,
    /// The drills that run, and then the latest that are over, newest first.
    #[serde(default)]
    pub drills: Vec<DrillStatus>,
    /// What is known of all drills.
    #[serde(default)]
    pub drill_summary: DrillSummary,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Where it is.
    pub url: String,
    /// What the sentinel last saw with its own eyes.
    pub seen: Seen,
    /// Since when.
    pub since: Timestamp,
    /// The running incident's cause: the sentinel's own, or the strictest that a custodian tells.
    pub cause: Option<Cause>,
    /// What the custodians say that they wait for, and how many say so; most first.
    pub needs: Vec<(Needs, u32)>,
    /// Since when a marker says that somebody sealed it: the earliest that a custodian tells.
    pub marker: Option<Timestamp>,
    /// Whose eyes such markers are of, as the custodians tell.
    #[serde(default)]
    pub marker_by: BTreeSet<Principal>,
    /// The custodians whose share may be in it, or on its way, as they say.
    #[serde(default)]
    pub in_flight: BTreeSet<Principal>,
    /// How many custodians are ready for it.
    pub ready: u32,
    /// How many of these obey no hold on it.
    #[serde(default)]
    pub ready_unheld: u32,
    /// When its certificate expires.
    pub certificate_not_after: Option<Timestamp>,
    /// Whether several processes were found behind its address.
    pub shared_address: bool,
    /// Why its identity was refused when it was last tried, if it was.
    pub identity_refused: Option<String>,
    /// Why it does not answer, while it does not.
    #[serde(default)]
    pub lost_because: Option<String>,
}

/// One custodian.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CustodianStatus {
    /// When its last heartbeat was signed; `None` if none was heard.
    pub heard_at: Option<Timestamp>,
    /// Whether a heartbeat was heard within the last three heartbeats' time.
    pub up: bool,
    /// Whether it is ready for every node, and its word counts.
    pub ready: bool,
    /// Whether operators have ordered that its word counts for nothing, as enough custodians say.
    #[serde(default)]
    pub distrusted: bool,
    /// Its site.
    pub site: Option<Site>,
    /// Whether its policy, trust root or threshold is not what most others have.
    #[serde(default)]
    pub config_diverged: bool,
    /// By how many milliseconds its clock is ahead of the sentinel's; the message's way counts against it.
    #[serde(default)]
    pub clock_offset_millis: Option<i64>,
    /// When its share of the present generation was last part of a set that opened a node.
    #[serde(default)]
    pub share_proven: Option<ShareProof>,
    /// When its share of the present generation was last in a set that did not fit while another one opened the node; unless it is
    /// proven since, or that is long ago.
    #[serde(default)]
    pub share_suspect: Option<Timestamp>,
    /// When the incident began of which it and others tell what cannot all be true: at least one of them lies. Told for as long.
    #[serde(default)]
    pub receipts_contradict: Option<Timestamp>,
    /// What the sentinel remembers of its audit log.
    #[serde(default)]
    pub audit: Option<AuditWitness>,
    /// Its last heartbeat.
    pub heartbeat: Option<Heartbeat>,
}

/// Where a custodian said that its audit log stands, and whether that fits what it had said before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditWitness {
    /// How many entries it had.
    pub seq: u64,
    /// SHA-256 of the last of them, in hexadecimal.
    pub head: String,
    /// When that was signed.
    pub issued_at: Timestamp,
    /// What did not fit, until an operator has accepted it or it has grown old.
    #[serde(default)]
    pub doubt: Option<AuditDoubt>,
}

/// That what a custodian said of its audit log cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditDoubt {
    /// When it was heard.
    pub at: Timestamp,
    /// What does not fit.
    #[serde(flatten)]
    pub what: AuditMisfit,
}

/// What does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum AuditMisfit {
    /// It had more entries before: its end was cut off, or all of it was written anew.
    Shorter {
        /// How many it had.
        told: u64,
        /// SHA-256 of the last of those.
        told_head: String,
        /// How many it had then.
        now: u64,
    },
    /// An entry was another one before.
    Otherwise {
        /// The entry's number.
        entry: u64,
        /// SHA-256 of the one that it was.
        told_head: String,
    },
    /// Its custodian itself found that an entry is not what was written.
    Broken {
        /// The entry's number.
        entry: u64,
    },
}

/// That a share was part of a set that opened a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareProof {
    /// When the sentinel saw the node open.
    pub at: Timestamp,
    /// The node.
    pub node: NodeName,
    /// The generation that the sentinel's manifest named then.
    pub generation: u32,
}

/// One approval that waits or was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalStatus {
    /// The message.
    pub id: MessageId,
    /// The node.
    pub node: NodeName,
    /// The operator.
    pub from: Principal,
    /// When it was signed.
    #[serde(default)]
    pub issued_at: Timestamp,
    /// Until when it counts.
    pub expires_at: Timestamp,
}

/// One hold, as custodians tell of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldStatus {
    /// Its id.
    pub id: MessageId,
    /// Who ordered it.
    pub by: Principal,
    /// When it was signed.
    pub held_at: Timestamp,
    /// Its nodes; none means the whole cluster.
    #[serde(default)]
    pub nodes: BTreeSet<NodeName>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// Who wants it to end, and how many custodians have heard so.
    #[serde(default)]
    pub released_by: BTreeMap<Principal, u32>,
    /// How many operators that takes.
    pub need: u8,
    /// The custodians that obey it.
    pub obeyed_by: BTreeSet<Principal>,
}

/// One thing that operators have begun and too few have joined, as custodians tell of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingStatus {
    /// What is wanted.
    pub matter: Matter,
    /// Who wants it, and how many custodians have heard so.
    pub by: BTreeMap<Principal, u32>,
    /// How many operators it takes.
    pub need: u8,
    /// The custodians that tell of it.
    pub told_by: BTreeSet<Principal>,
}

/// A trust root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TrustVersion {
    /// The highest version of a `trust` order that was in force; 0 where it is the configured file, and always was.
    pub version: u32,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// A trust root by which custodians judge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustVersionStatus {
    /// Which.
    #[serde(flatten)]
    pub trust: TrustVersion,
    /// These custodians.
    pub custodians: BTreeSet<Principal>,
}

/// One incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentStatus {
    /// The node.
    pub node: NodeName,
    /// From the first moment the node was seen not open.
    pub began_at: Timestamp,
    /// When it was first seen sealed.
    pub sealed_at: Option<Timestamp>,
    /// Why it was not open, as far as the sentinel's own eyes could prove it.
    pub cause: Option<Cause>,
    /// Why, as most custodians that submitted shares say.
    #[serde(default)]
    pub told_cause: Option<Cause>,
    /// When it was seen open again; `None` while it lasts.
    pub opened_at: Option<Timestamp>,
    /// The generation that the sentinel's manifest named when it was seen open again.
    #[serde(default)]
    pub generation: Option<u32>,
    /// From sealed seen to open seen, in milliseconds with fractions, by the sentinel's steady clock; or as the custodian
    /// that opened it measured, where the sentinel did not see it sealed.
    pub open_after_ms: Option<f64>,
    /// The drill that it is, where most of the custodians that submitted name its intent.
    #[serde(default)]
    pub drill: Option<DrillId>,
    /// Who submitted, and what came of it, in the order in which it was heard.
    pub submissions: Vec<SubmissionStatus>,
    /// Who refused, and which lock held.
    pub refusals: Vec<RefusalStatus>,
}

/// One submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmissionStatus {
    /// The custodian.
    pub custodian: Principal,
    /// Its own id of the incident.
    pub incident: IncidentId,
    /// The share's x coordinate.
    #[serde(default)]
    pub x: u8,
    /// Which set of shares was being tried, from 0.
    #[serde(default)]
    pub round: u32,
    /// The cause, as the custodian sees it.
    #[serde(default)]
    pub cause: Option<Cause>,
    /// The approvals on which the share was released.
    #[serde(default)]
    pub approvals: Vec<MessageId>,
    /// The intent on which it was released, in a drill.
    #[serde(default)]
    pub intent: Option<MessageId>,
    /// What came of it.
    pub result: Submission,
    /// The nonce of the attempt that it was part of; empty where the node named none.
    #[serde(default)]
    pub nonce: String,
    /// The node's progress after it; 0 once it opened or failed.
    #[serde(default)]
    pub progress: u8,
    /// When the answer was there.
    pub answered_at: Timestamp,
}

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalStatus {
    /// The custodian.
    pub custodian: Principal,
    /// The lock that held.
    pub lock: Lock,
    /// Why, for people.
    pub why: String,
}

/// One drill, as its conductor's last report tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillStatus {
    /// Who signed the report.
    pub conductor: Principal,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// When the sentinel heard it.
    pub heard_at: Timestamp,
    /// What it says. It has a result once the drill is over, and changes no more then.
    pub report: DrillReport,
}

/// What is known of a cluster's drills together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DrillSummary {
    /// When the next one is due, as conductors' heartbeats tell: the earliest. None where no conductor that is heard has a schedule.
    #[serde(default)]
    pub next: Option<Timestamp>,
    /// When the first one was due that did not take place, as conductors' heartbeats had told; none once one was over since, however it
    /// went.
    #[serde(default)]
    pub due: Option<Timestamp>,
    /// When the last one that passed was over.
    #[serde(default)]
    pub last_success: Option<Timestamp>,
    /// When the last one was heard to be over, however it went.
    #[serde(default)]
    pub last_closed: Option<Timestamp>,
    /// How long each node was seen sealed by its conductor in its last drill, in microseconds.
    #[serde(default)]
    pub last_recovery_us: BTreeMap<NodeName, u64>,
}
