//! Message bodies: what is said, as types. Who may say it is `admission`'s; how it is signed, `envelope`'s.
//!
//! docs/PROTOCOL.md specifies the same in words. A body is JSON; its bytes are what is signed, so they are kept as they
//! came and never written again. Every structure refuses unknown and doubled fields.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

mod drill;
mod needs;
mod order;
mod sandbox;

use crate::cause::Cause;
use crate::id::{ClusterId, IncidentId, MessageId, NodeName, Principal, Site};
use crate::time::Timestamp;
use crate::trust::Namespace;

pub use drill::{
    Approved, CUSTODIANS_MAX, Canary, DrillOrder, DrillReport, DrillResult, Due, Intent, Phase, Response, Serving,
};
pub use needs::Needs;
pub use order::{
    Acknowledgement, Distrust, Effect, HOLDS_REPORTED, Hold, HoldReport, Matter, NODES_NAMED_MAX, Relay, Release,
    Trust, WAITING_REPORTED, WANTED_MAX, WaitingReport, Want,
};
pub use sandbox::SandboxPart;

/// The version of the message format that this build speaks.
pub const VERSION: u32 = 1;

/// The longest free text in a message, in bytes: enough for a sentence of why, too little to be a nuisance.
pub const TEXT_MAX: usize = 240;

/// The longest version of a program in a message, in bytes.
pub const PROGRAM_VERSION_MAX: usize = 40;

/// What a message is, as its `kind` field says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A sentinel saw something about a node.
    Event,
    /// An operator consents to open one node, once, soon.
    Approval,
    /// An operator orders that nobody opens a cluster or nodes of it.
    Hold,
    /// An operator wants a hold to end.
    Release,
    /// An operator wants somebody's word to count for nothing, or to count again.
    Distrust,
    /// An operator wants another allowed_signers file to be in force.
    Trust,
    /// An operator wants a drill.
    Drill,
    /// The time of a scheduled drill has come.
    Due,
    /// A conductor is about to seal a node for a drill.
    Intent,
    /// A conductor tells how a drill goes, and what came of it.
    DrillReport,
    /// A custodian has taken an operator's message or a conductor's intent, and what came of it.
    Acknowledgement,
    /// A custodian asks another for operators' orders that it does not have.
    Want,
    /// A sentinel asks a custodian for operators' orders that it does not have.
    Ask,
    /// A custodian passes on an order that somebody asked for.
    Relay,
    /// A custodian tells how it is.
    Heartbeat,
    /// A custodian saw something about a node that the others must know.
    Sighting,
    /// A custodian submitted its share, and what came of it.
    Receipt,
    /// A custodian did not submit its share, and which lock held it back.
    Refusal,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 18] = [
        Self::Event,
        Self::Approval,
        Self::Hold,
        Self::Release,
        Self::Distrust,
        Self::Trust,
        Self::Drill,
        Self::Due,
        Self::Intent,
        Self::DrillReport,
        Self::Acknowledgement,
        Self::Want,
        Self::Ask,
        Self::Relay,
        Self::Heartbeat,
        Self::Sighting,
        Self::Receipt,
        Self::Refusal,
    ];

    /// The kind's name on the wire and in routing keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Approval => "approval",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Distrust => "distrust",
            Self::Trust => "trust",
            Self::Drill => "drill",
            Self::Due => "due",
            Self::Intent => "intent",
            Self::DrillReport => "drill-report",
            Self::Acknowledgement => "acknowledgement",
            Self::Want => "want",
            Self::Ask => "ask",
            Self::Relay => "relay",
            Self::Heartbeat => "heartbeat",
            Self::Sighting => "sighting",
            Self::Receipt => "receipt",
            Self::Refusal => "refusal",
        }
    }

    /// The namespace in which a message of this kind must be signed.
    pub const fn namespace(self) -> Namespace {
        match self {
            Self::Event | Self::Ask => Namespace::Event,
            Self::Approval => Namespace::Approval,
            Self::Hold | Self::Release | Self::Distrust | Self::Trust | Self::Drill => Namespace::Order,
            Self::Due | Self::Intent | Self::DrillReport => Namespace::Intent,
            Self::Acknowledgement
            | Self::Want
            | Self::Relay
            | Self::Heartbeat
            | Self::Sighting
            | Self::Receipt
            | Self::Refusal => Namespace::Report,
        }
    }

    /// Whether a message of this kind is an order: state that holds until another order ends it, and so is taken however late
    /// it comes, once. Who has it passes it on as it was signed.
    pub const fn is_order(self) -> bool {
        matches!(self, Self::Hold | Self::Release | Self::Distrust | Self::Trust)
    }

    /// Whether a message of this kind permits something, and so must expire and counts once.
    pub const fn permits(self) -> bool {
        matches!(self, Self::Approval | Self::Drill | Self::Intent)
    }

    fn from_wire(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// The part that every body has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What the message is.
    pub kind: Kind,
    /// Its random id.
    pub id: MessageId,
    /// The cluster that it is about.
    pub cluster: ClusterId,
    /// Who says it.
    pub from: Principal,
    /// When it was signed, by the signer's clock.
    pub issued_at: Timestamp,
    /// Until when it holds: required in messages that permit something, refused in all others.
    pub expires_at: Option<Timestamp>,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// See [`Kind::Event`].
    Event(Sighting),
    /// See [`Kind::Approval`].
    Approval(Approval),
    /// See [`Kind::Hold`].
    Hold(Hold),
    /// See [`Kind::Release`].
    Release(Release),
    /// See [`Kind::Distrust`].
    Distrust(Distrust),
    /// See [`Kind::Trust`].
    Trust(Trust),
    /// See [`Kind::Drill`].
    Drill(DrillOrder),
    /// See [`Kind::Due`].
    Due(Due),
    /// See [`Kind::Intent`].
    Intent(Intent),
    /// See [`Kind::DrillReport`].
    DrillReport(Box<DrillReport>),
    /// See [`Kind::Acknowledgement`].
    Acknowledgement(Acknowledgement),
    /// See [`Kind::Want`].
    Want(Want),
    /// See [`Kind::Ask`].
    Ask(Want),
    /// See [`Kind::Relay`].
    Relay(Relay),
    /// See [`Kind::Heartbeat`].
    Heartbeat(Box<Heartbeat>),
    /// See [`Kind::Sighting`].
    Sighting(Sighting),
    /// See [`Kind::Receipt`].
    Receipt(Receipt),
    /// See [`Kind::Refusal`].
    Refusal(Refusal),
}

impl Content {
    /// What kind of message this is the content of.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Event(_) => Kind::Event,
            Self::Approval(_) => Kind::Approval,
            Self::Hold(_) => Kind::Hold,
            Self::Release(_) => Kind::Release,
            Self::Distrust(_) => Kind::Distrust,
            Self::Trust(_) => Kind::Trust,
            Self::Drill(_) => Kind::Drill,
            Self::Due(_) => Kind::Due,
            Self::Intent(_) => Kind::Intent,
            Self::DrillReport(_) => Kind::DrillReport,
            Self::Acknowledgement(_) => Kind::Acknowledgement,
            Self::Want(_) => Kind::Want,
            Self::Ask(_) => Kind::Ask,
            Self::Relay(_) => Kind::Relay,
            Self::Heartbeat(_) => Kind::Heartbeat,
            Self::Sighting(_) => Kind::Sighting,
            Self::Receipt(_) => Kind::Receipt,
            Self::Refusal(_) => Kind::Refusal,
        }
    }
}

/// What somebody's own eyes saw of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// Nothing yet.
    Never,
    /// It answered that it is open.
    Open,
    /// It answered that it is sealed (or not initialised).
    Sealed,
    /// It does not answer, or not as itself.
    Lost,
}

impl Seen {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Open => "open",
            Self::Sealed => "sealed",
            Self::Lost => "lost",
        }
    }
}

/// Something seen of a node: an event of a sentinel, or a sighting of a custodian.
///
/// With `seen: "sealed"` and `cause: "in-place"` it is a marker: the one thing in it that changes what a custodian may do, and
/// only towards less.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sighting {
    /// The node.
    pub node: NodeName,
    /// What was seen.
    pub seen: Seen,
    /// Why the node is not open, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// When it was seen, by the signer's clock.
    pub seen_at: Timestamp,
}

/// An operator's consent to open one node, once, soon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The node.
    pub node: NodeName,
}

/// What came of a share's submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Submission {
    /// The node took the share and is still sealed.
    Counted,
    /// The node opened.
    Opened,
    /// The threshold was reached, and the shares that the node then held did not fit together.
    Failed,
    /// No answer came: the share may have been counted, or may be yet.
    Unanswered,
}

impl Submission {
    /// All results, for metrics.
    pub const ALL: [Self; 4] = [Self::Counted, Self::Opened, Self::Failed, Self::Unanswered];

    /// The name on the wire and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Opened => "opened",
            Self::Failed => "failed",
            Self::Unanswered => "unanswered",
        }
    }
}

/// A share was submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The node.
    pub node: NodeName,
    /// The custodian's own id of the incident.
    pub incident: IncidentId,
    /// Which set of shares was being tried, from 0.
    pub round: u32,
    /// The incident's cause.
    pub cause: Cause,
    /// The approvals on which the share was released; empty where the policy opens the cause by itself.
    pub approvals: Vec<MessageId>,
    /// The intent on which it was released, in a drill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<MessageId>,
    /// The share's x coordinate.
    pub x: u8,
    /// What came of it.
    pub result: Submission,
    /// The nonce of the attempt that the share was counted in; empty where the node named none.
    pub nonce: String,
    /// The node's progress after the share; 0 once it opened or failed.
    pub progress: u8,
    /// When this custodian first saw the node sealed in this incident.
    pub sealed_seen_at: Timestamp,
    /// When the request left.
    pub submitted_at: Timestamp,
    /// When the answer was there, or was given up.
    pub answered_at: Timestamp,
}

/// The six locks of the release rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lock {
    /// The node is who the configuration says.
    Identity,
    /// The node says it is sealed, with the expected `t` and `n`.
    State,
    /// A cause that policy opens by itself, or enough approvals.
    Authority,
    /// The node's automatic openings are not used up.
    Budget,
    /// The share is the one that was installed.
    Integrity,
    /// The audit log has it on disk.
    Record,
}

impl Lock {
    /// All six.
    pub const ALL: [Self; 6] =
        [Self::Identity, Self::State, Self::Authority, Self::Budget, Self::Integrity, Self::Record];

    /// The name on the wire, in logs and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::State => "state",
            Self::Authority => "authority",
            Self::Budget => "budget",
            Self::Integrity => "integrity",
            Self::Record => "record",
        }
    }
}

/// A share was not submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The node.
    pub node: NodeName,
    /// The custodian's own id of the incident.
    pub incident: IncidentId,
    /// The incident's cause, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The lock that held.
    pub lock: Lock,
    /// Why, for people; at most [`TEXT_MAX`] bytes.
    pub why: String,
}

/// How a custodian is, and what it sees: signed, every ten seconds, for each cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// The program's version; at most [`PROGRAM_VERSION_MAX`] visible ASCII characters.
    #[serde(deserialize_with = "program_version")]
    pub version: String,
    /// The custodian's site, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<Site>,
    /// When the process started.
    pub started_at: Timestamp,
    /// Its share of this cluster.
    pub share: ShareReport,
    /// `t`, as its manifest says.
    pub threshold: u8,
    /// Whether the sandbox is in force.
    pub sandboxed: bool,
    /// Which parts of it are.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub sandbox: BTreeSet<SandboxPart>,
    /// Whether the kernel says that the clock is synchronised.
    pub clock_synchronised: bool,
    /// The head of its audit log.
    pub audit: AuditReport,
    /// SHA-256 of the cluster's policy, normalised, in hexadecimal.
    pub policy_sha256: String,
    /// SHA-256 of the allowed_signers file, in hexadecimal.
    pub allowed_signers_sha256: String,
    /// The highest version of a trust order that was in force there; 0 if none was.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub trust_version: u32,
    /// The holds that it obeys; the latest [`HOLDS_REPORTED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<HoldReport>,
    /// What operators have begun and too few have joined; the latest [`WAITING_REPORTED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitingReport>,
    /// Whose word counts for nothing here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distrusted: Vec<Principal>,
    /// SHA-256, in hexadecimal, of the body of each order that it passes on to whoever wants it.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "order::named")]
    pub orders: Vec<String>,
    /// What it sees of each node.
    #[serde(deserialize_with = "distinct")]
    pub nodes: BTreeMap<NodeName, NodeReport>,
    /// When the next drill of its schedule is due, where it is a conductor and has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_drill: Option<Timestamp>,
    /// Messages that it refused since it started, by reason, over all clusters.
    #[serde(deserialize_with = "distinct")]
    pub rejected: BTreeMap<String, u64>,
    /// Shares of this cluster that it submitted since it started, by result.
    #[serde(deserialize_with = "distinct")]
    pub submissions: BTreeMap<String, u64>,
}

/// A custodian's share of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareReport {
    /// The generation that it belongs to.
    pub generation: u32,
    /// Its x coordinate; absent while it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<u8>,
    /// Whether it was decrypted and matched its digest when it was last tried.
    pub ok: bool,
}

/// Where a custodian's audit log stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditReport {
    /// How many entries it has.
    pub seq: u64,
    /// SHA-256 of its last line, in hexadecimal.
    pub head: String,
    /// Whether the last attempt to write it succeeded, and nothing in it was changed, as far as its custodian knows.
    pub ok: bool,
    /// The number of the first entry that is not what was written, or is not there, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<u64>,
}

/// What a custodian sees of one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeReport {
    /// What it last saw.
    pub seen: Seen,
    /// Since when.
    pub since: Timestamp,
    /// Whether this custodian could release its share to this node: share sound, sandbox in force, and the node's identity
    /// proven in a full handshake within the hour.
    pub ready: bool,
    /// The running incident's cause, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// What it waits for before it releases its share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Needs>,
    /// Since when a marker says that somebody sealed the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<Timestamp>,
    /// Whose eyes the marker is of: this custodian's own, or of somebody who told it himself. Left out where it knows of the marker only
    /// from others who were told: then nobody takes it from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker_by: Option<Principal>,
    /// Whether this custodian's share may be in the node, or on its way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_flight: bool,
    /// How many more automatic openings the budget allows now.
    pub budget_remaining: u32,
    /// When it allows one again, where it allows none now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_frees_at: Option<Timestamp>,
    /// When the node's certificate expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_not_after: Option<Timestamp>,
    /// Whether several processes were found behind the node's address.
    pub shared_address: bool,
    /// Whether enough tickets of the process that was last seen open are at hand to prove a restart, should it come now. Without
    /// them its cause would be unknown: a server that gives none, a node not reached directly, or contact a moment ago.
    pub restart_provable: bool,
    /// Why the node's identity was refused when it was last tried, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_refused: Option<String>,
}

/// A body: header and content.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    /// Who, what, when, about which cluster.
    pub header: Header,
    /// What it says.
    pub content: Content,
}

/// Why bytes are not a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Another version of the format.
    #[error("the message's version is not {VERSION}")]
    Version,
    /// A kind that this build does not know.
    #[error("the message's kind is not known here")]
    Kind,
    /// Not JSON of the form that the kind has.
    #[error("the message is malformed: {0}")]
    Malformed(String),
}

#[derive(Deserialize)]
struct Leading<'a> {
    v: u32,
    #[serde(borrow)]
    kind: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    v: u32,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    id: MessageId,
    cluster: ClusterId,
    from: Principal,
    issued_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(borrow)]
    content: &'a RawValue,
}

/// A body whose header was read and whose content was not: what is needed to check who signed it.
#[derive(Debug, Clone, Copy)]
pub struct Unread<'a>(&'a RawValue);

/// Reads a body's header, and leaves the content unread until the signature was checked.
pub fn read_header(bytes: &[u8]) -> Result<(Header, Unread<'_>), BodyError> {
    let malformed = |e: serde_json::Error| BodyError::Malformed(e.to_string());
    expect_object(bytes)?;
    // Once over the bytes where they are as they should be; only what is not is looked at again, for which of the three it is.
    let wire: Wire<'_> = match serde_json::from_slice(bytes) {
        Ok(wire) => wire,
        Err(error) => {
            let leading: Leading<'_> = serde_json::from_slice(bytes).map_err(malformed)?;
            known(leading.v, &leading.kind)?;
            return Err(malformed(error));
        }
    };
    let kind = known(wire.v, &wire.kind)?;
    if kind.permits() != wire.expires_at.is_some() {
        let what = if kind.permits() { "expires_at is missing" } else { "only what permits something has expires_at" };
        return Err(BodyError::Malformed(what.to_owned()));
    }
    let Wire { id, cluster, from, issued_at, expires_at, content, .. } = wire;
    Ok((Header { kind, id, cluster, from, issued_at, expires_at }, Unread(content)))
}

/// The kind, if both version and kind are ones that this build speaks.
fn known(version: u32, kind: &str) -> Result<Kind, BodyError> {
    if version != VERSION {
        return Err(BodyError::Version);
    }
    Kind::from_wire(kind).ok_or(BodyError::Kind)
}

/// Reads the content that belongs to `header`.
pub fn read_content(header: &Header, Unread(raw): Unread<'_>) -> Result<Content, BodyError> {
    fn read<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, BodyError> {
        expect_object(raw.get().as_bytes())?;
        serde_json::from_str(raw.get()).map_err(|e| BodyError::Malformed(e.to_string()))
    }
    Ok(match header.kind {
        Kind::Event => Content::Event(read(raw)?),
        Kind::Approval => Content::Approval(read(raw)?),
        Kind::Hold => Content::Hold(read(raw)?),
        Kind::Release => Content::Release(read(raw)?),
        Kind::Distrust => Content::Distrust(read(raw)?),
        Kind::Trust => Content::Trust(read(raw)?),
        Kind::Drill => Content::Drill(read(raw)?),
        Kind::Due => Content::Due(read(raw)?),
        Kind::Intent => Content::Intent(read(raw)?),
        Kind::DrillReport => Content::DrillReport(Box::new(read(raw)?)),
        Kind::Acknowledgement => Content::Acknowledgement(read(raw)?),
        Kind::Want => Content::Want(read(raw)?),
        Kind::Ask => Content::Ask(read(raw)?),
        Kind::Relay => Content::Relay(read(raw)?),
        Kind::Heartbeat => Content::Heartbeat(Box::new(read(raw)?)),
        Kind::Sighting => Content::Sighting(read(raw)?),
        Kind::Receipt => Content::Receipt(read(raw)?),
        Kind::Refusal => Content::Refusal(read(raw)?),
    })
}

/// serde takes a structure's fields from an array too; a message has one spelling, and that is an object.
fn expect_object(bytes: &[u8]) -> Result<(), BodyError> {
    match bytes.trim_ascii_start().first() {
        Some(b'{') => Ok(()),
        _ => Err(BodyError::Malformed("expected a JSON object".to_owned())),
    }
}

/// Reads a map in which no key stands twice: serde's own would take the last.
fn distinct<'de, D, K, V>(from: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord,
    V: Deserialize<'de>,
{
    struct Distinct<K, V>(PhantomData<(K, V)>);

    impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Visitor<'de> for Distinct<K, V> {
        type Value = BTreeMap<K, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = from.next_entry()? {
                if map.insert(key, value).is_some() {
                    return Err(A::Error::custom("a key stands twice"));
                }
            }
            Ok(map)
        }
    }

    from.deserialize_map(Distinct(PhantomData))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn program_version<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let version = String::deserialize(from)?;
    match version.len() <= PROGRAM_VERSION_MAX && version.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(version),
        false => Err(D::Error::custom("version is not one of a program")),
    }
}

impl Body {
    /// Reads a whole body.
    pub fn parse(bytes: &[u8]) -> Result<Self, BodyError> {
        let (header, unread) = read_header(bytes)?;
        let content = read_content(&header, unread)?;
        Ok(Self { header, content })
    }

    /// The body's bytes, to be signed and sent.
    pub fn to_json(&self) -> Vec<u8> {
        let content = match &self.content {
            Content::Event(c) | Content::Sighting(c) => serde_json::value::to_raw_value(c),
            Content::Approval(c) => serde_json::value::to_raw_value(c),
            Content::Hold(c) => serde_json::value::to_raw_value(c),
            Content::Release(c) => serde_json::value::to_raw_value(c),
            Content::Distrust(c) => serde_json::value::to_raw_value(c),
            Content::Trust(c) => serde_json::value::to_raw_value(c),
            Content::Drill(c) => serde_json::value::to_raw_value(c),
            Content::Due(c) => serde_json::value::to_raw_value(c),
            Content::Intent(c) => serde_json::value::to_raw_value(c),
            Content::DrillReport(c) => serde_json::value::to_raw_value(c),
            Content::Acknowledgement(c) => serde_json::value::to_raw_value(c),
            Content::Want(c) | Content::Ask(c) => serde_json::value::to_raw_value(c),
            Content::Relay(c) => serde_json::value::to_raw_value(c),
            Content::Heartbeat(c) => serde_json::value::to_raw_value(c),
            Content::Receipt(c) => serde_json::value::to_raw_value(c),
            Content::Refusal(c) => serde_json::value::to_raw_value(c),
        };
        let content = content.expect("names, numbers and strings always have a JSON form");
        let header = &self.header;
        let wire = Wire {
            v: VERSION,
            kind: header.kind.as_str().into(),
            id: header.id,
            cluster: header.cluster,
            from: header.from.clone(),
            issued_at: header.issued_at,
            expires_at: header.expires_at,
            content: &content,
        };
        serde_json::to_vec(&wire).expect("names, numbers and strings always have a JSON form")
    }
}

/// Shortens a text for people to at most [`TEXT_MAX`] bytes, and keeps out of it what would not be seen for what it is:
/// control characters, and those that turn the order of letters around or have no width.
pub fn plain_text(text: &str) -> String {
    let mut short = String::new();
    for c in text.chars().map(plain) {
        if short.len() + c.len_utf8() > TEXT_MAX {
            break;
        }
        short.push(c);
    }
    short
}

/// The same with its whole length, where whoever shows it has room; its lines stay lines.
pub fn plain_lines(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { c } else { plain(c) }).collect()
}

fn plain(c: char) -> char {
    if c.is_control() || is_unseen(c) { ' ' } else { c }
}

/// Unicode's marks for the direction of text, its separators of lines, and what takes no room.
const fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const APPROVAL: &str = r#"{"v":1,"kind":"approval","id":"00000000000000000000000000000001",
        "cluster":"000000000000000000000000000000aa","from":"alice","issued_at":"2026-11-22T10:00:00.000Z",
        "expires_at":"2026-11-22T10:15:00.000Z","content":{"node":"vault-1"}}"#;

    #[test]
    fn a_body_reads_back_as_it_was_written() {
        let body = Body::parse(APPROVAL.as_bytes()).expect("well formed");
        assert_eq!(body.content, Content::Approval(Approval { node: "vault-1".parse().expect("a name") }));
        assert_eq!(Body::parse(&body.to_json()), Ok(body));
    }

    #[test]
    fn each_kind_of_wrong_body_is_told_apart() {
        let change = |from: &str, to: &str| {
            let changed = APPROVAL.replace(from, to);
            assert_ne!(changed, APPROVAL);
            Body::parse(changed.as_bytes()).expect_err("refused")
        };
        assert_eq!(change("\"v\":1", "\"v\":2,\"more\":0"), BodyError::Version);
        assert_eq!(change("\"approval\"", "\"open-it\""), BodyError::Kind);
        for (from, to) in [
            ("\"from\":\"alice\"", "\"from\":\"alice\",\"from\":\"bob\""),
            ("\"from\":\"alice\"", "\"from\":\"al*\""),
            ("\"node\":\"vault-1\"", "\"node\":\"vault-1\",\"url\":\"https://evil\""),
            ("\"node\":\"vault-1\"", "\"node\":\"vault-1\",\"node\":\"vault-2\""),
            ("\"expires_at\":\"2026-11-22T10:15:00.000Z\",", ""),
            ("{\"node\":\"vault-1\"}", "[\"vault-1\"]"),
            ("}}", "}} trailing"),
        ] {
            assert!(matches!(change(from, to), BodyError::Malformed(_)), "{to}");
        }
        let event = APPROVAL.replace("approval", "event");
        assert!(matches!(Body::parse(event.as_bytes()), Err(BodyError::Malformed(_))), "an event does not expire");
        assert!(matches!(Body::parse(&[b'['; 100_000]), Err(BodyError::Malformed(_))));
    }

    #[test]
    fn each_need_reads_back_as_it_was_written() {
        let all = [
            Needs::Contact,
            Needs::Evidence,
            Needs::Approvals { have: 1, need: 2 },
            Needs::Policy,
            Needs::Hold,
            Needs::Budget,
            Needs::Share,
            Needs::Others,
            Needs::Generation,
        ];
        for needs in all {
            let written = serde_json::to_string(&needs).expect("plain data");
            assert_eq!(serde_json::from_str::<Needs>(&written).ok(), Some(needs), "{written}");
        }
    }

    #[test]
    fn texts_for_people_are_short_and_plain() {
        assert_eq!(plain_text("a\n\x1b[31mb"), "a  [31mb");
        assert_eq!(plain_text("a\u{202e}b\u{2066}c\u{200b}d\u{2028}e"), "a b c d e");
        assert!(plain_text(&"ä".repeat(500)).len() <= TEXT_MAX);
        let long = "ä".repeat(500);
        assert_eq!(plain_lines(&format!("{long}\n\x1b]0;\u{9b}31m\r\u{202e}")), format!("{long}\n ]0; 31m  "));
    }

    #[test]
    fn a_programs_version_is_short_and_visible() {
        let heartbeat = |version: &str| {
            let content = serde_json::json!({
                "version": version, "started_at": "2026-11-22T09:00:00.000Z",
                "share": {"generation": 1, "x": 1, "ok": true}, "threshold": 3, "sandboxed": true,
                "clock_synchronised": true, "audit": {"seq": 1, "head": "", "ok": true}, "policy_sha256": "",
                "allowed_signers_sha256": "", "nodes": {}, "rejected": {}, "submissions": {},
            });
            serde_json::from_value::<Heartbeat>(content)
        };
        assert!(heartbeat("1.0.0-rc.1+build").is_ok());
        let longest = "1".repeat(PROGRAM_VERSION_MAX);
        assert!(heartbeat(&longest).is_ok());
        for wrong in ["1\x1b[2J", "1 2", "1\u{202e}", &format!("{longest}1")] {
            assert!(heartbeat(wrong).is_err(), "{wrong}");
        }
    }
}
