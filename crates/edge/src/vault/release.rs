//! The release of a share: the only code that sends one, and the only way to it.
//!
//! [`prove`] makes a connection in a full handshake (lock "identity"), [`Proven::check`] asks the node on it (lock "state"), and
//! [`Sealed::submit`] takes the other four locks by value and sends the share on that very connection. Each step consumes
//! the one before, so that no step can be left out, repeated or mixed with another's. What does not live here: whether
//! to release, and what the answer means for the next round (`holdfast_core::custodian`).

use bytes::Bytes;
use hyper::{Method, StatusCode};
use std::fmt;
use tokio::time::Instant;
use zeroize::Zeroizing;

use holdfast_core::release::ReleaseOrder;
use holdfast_core::seal_status::{SealKind, SealStatus};
use holdfast_core::share::{SHARE_LEN, Share};
use holdfast_core::time::{Steady, Timestamp};

use super::connection::{AskError, Connection, Handshake, UNSEAL};
use super::identity::{ConnectError, NodeIdentity};
use crate::audit::Recorded;
use crate::residue;
use crate::store::SoundShare;

/// The numbers that the cluster's manifest gives, and that the node must report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// How many shares open it.
    pub threshold: u8,
    /// How many shares there are.
    pub shares: u8,
}

/// Why the share was not sent: which lock did not hold. In none of these cases has a byte of it left.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// Lock "identity": somebody answers and is not the node.
    #[error("the share was not sent: {0}")]
    Identity(#[source] ConnectError),
    /// Lock "state": the node does not report what a sealed node of this cluster reports.
    #[error("the share was not sent: {0}")]
    State(#[source] StateRefusal),
    /// Lock "authority": it was withdrawn, has run out, or is for another cluster, node or attempt.
    #[error("the share was not sent: its authority {0}")]
    Authority(AuthorityRefusal),
    /// Lock "budget": it was counted for another attempt.
    #[error("the share was not sent: the budget was charged for another attempt")]
    Budget,
    /// Lock "integrity": the share belongs to another cluster.
    #[error("the share was not sent: it belongs to another cluster than the node")]
    Integrity,
    /// Lock "record": the audit log's entry is of another attempt.
    #[error("the share was not sent: the audit log's entry is of another attempt")]
    Record,
    /// No connection: the node cannot be reached.
    #[error("the share was not sent: {0}")]
    Unreachable(#[source] ConnectError),
    /// The node did not answer the question for its status, or not with a status.
    #[error("the share was not sent: {0}")]
    Transport(#[source] AskError),
}

/// How an authority does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorityRefusal {
    /// It is for another cluster or node than the connection.
    Elsewhere,
    /// It was withdrawn, or has run out.
    Gone,
}

impl fmt::Display for AuthorityRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elsewhere => "is for another node",
            Self::Gone => "was withdrawn or has run out",
        })
    }
}

/// Why a node's status forbids to send it a share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateRefusal {
    /// It has never been initialised, or lost its storage.
    #[error("the node is not initialised: its storage is empty or another one")]
    NotInitialised,
    /// It is open: it would take any share and prove nothing.
    #[error("the node is open already")]
    Open,
    /// Its seal is not one that shares open.
    #[error("the node's seal is not of the type shamir")]
    OtherType,
    /// It wants other numbers than the manifest's.
    #[error(
        "the node wants {found_threshold} of {found_shares} shares, the manifest says {} of {}: were its shares rotated?",
        expected.threshold, expected.shares
    )]
    OtherNumbers {
        /// The threshold that it reports.
        found_threshold: u8,
        /// The number of shares that it reports.
        found_shares: u8,
        /// What the manifest says.
        expected: Expected,
    },
}

/// The lock "identity": the node proved who it is, in a full handshake on this connection.
#[derive(Debug)]
pub struct Proven {
    connection: Connection,
    /// What the node reported on it already, if it was asked.
    reported: Option<SealStatus>,
}

/// The lock "state": on this connection, just now, the node reported to be sealed and what is expected.
#[derive(Debug)]
pub struct Sealed {
    connection: Connection,
    expected: Expected,
    status: SealStatus,
}

/// What became of a share that was sent.
#[derive(Debug)]
pub struct Answer {
    /// What the node reported right before the share went out.
    pub before: SealStatus,
    /// What it said to the share.
    pub outcome: Outcome,
}

/// What a node said to a share.
#[derive(Debug)]
pub enum Outcome {
    /// It was taken; this is the node's status now. Taken says nothing of whether the share is a good one.
    Taken(SealStatus),
    /// The set of shares that this one completed did not open the node (status 400, or 500 of older servers and joining
    /// followers). The node has dropped them all. It need not have been this share that was wrong.
    CombineFailed {
        /// The status of the answer.
        code: u16,
    },
    /// It was sent, and no answer says what became of it: it may be pending in the node, and open it later.
    Unknown(AskError),
}

impl Answer {
    /// The node's status after the share, if it told.
    pub fn status(&self) -> Option<&SealStatus> {
        match &self.outcome {
            Outcome::Taken(status) => Some(status),
            _ => None,
        }
    }

    /// Whether a set of shares failed with this one.
    pub fn combine_failed(&self) -> bool {
        matches!(self.outcome, Outcome::CombineFailed { .. })
    }
}

/// Makes a connection of its own to the node, in a full handshake. No ticket: a resumed handshake proves the process, not
/// the key.
pub async fn prove(identity: &NodeIdentity) -> Result<Proven, ReleaseError> {
    let connection = identity.connect(None).await.map_err(|error| match error {
        ConnectError::Identity { .. } => ReleaseError::Identity(error),
        _ => ReleaseError::Unreachable(error),
    })?;
    match connection.handshake() {
        Handshake::Full => Ok(Proven { connection, reported: None }),
        // Without a ticket there is nothing to resume: the TLS library would be at fault.
        Handshake::Resumed => Err(ReleaseError::Transport(AskError::Closed)),
    }
}

impl Proven {
    /// By a connection that was made a moment ago to offer a ticket. Where the ticket was declined, the handshake was a full one
    /// all the same, and nothing but the question for the state was asked on it since, which the node answered with `reported`; where
    /// it was resumed, nothing is proven.
    pub fn by(connection: Connection, reported: SealStatus) -> Option<Self> {
        (connection.handshake() == Handshake::Full).then_some(Self { connection, reported: Some(reported) })
    }

    /// When the node's certificate ends.
    pub fn certificate_not_after(&self) -> Option<Timestamp> {
        self.connection.certificate_not_after()
    }

    /// Asks the node for its status, unless it was asked already, and holds it against what is expected. Whichever it is,
    /// [`Sealed::submit`] asks once more.
    pub async fn check(self, expected: Expected) -> Result<Sealed, ReleaseError> {
        let mut connection = self.connection;
        let status = match self.reported {
            Some(reported) => hold_against(reported, expected)?,
            None => ask_sealed(&mut connection, expected).await?,
        };
        Ok(Sealed { connection, expected, status })
    }
}

impl Sealed {
    /// What the node reported.
    pub fn status(&self) -> &SealStatus {
        &self.status
    }

    /// Sends the share. All six locks are asked once more: the four that are given here, and the node's state, which may
    /// have changed while the record was written. `now` is the moment of the call.
    pub async fn submit(
        self,
        order: ReleaseOrder,
        share: SoundShare,
        record: Recorded,
        now: Steady,
    ) -> Result<Answer, ReleaseError> {
        let called = Instant::now();
        let Self { mut connection, expected, .. } = self;
        agree(connection.identity(), &order, &share, &record)?;
        let before = ask_sealed(&mut connection, expected).await?;
        // Asked last, because a hold or marker may have come while the node answered.
        if !order.authority.stands(now + called.elapsed()) {
            return Err(ReleaseError::Authority(AuthorityRefusal::Gone));
        }
        let request = residue::leaving_none(|| connection.request(Method::PUT, UNSEAL, unseal_body(share.share())));
        drop(share);
        let deadline = connection.identity().deadlines().submit;
        let answer = connection.ask(request, deadline).await;
        // By now it was encrypted, on this thread, by the connection's own task.
        residue::wipe();
        let outcome = match answer {
            // Closed means that nothing was sent.
            Err(AskError::Closed) => return Err(ReleaseError::Transport(AskError::Closed)),
            Err(error) => Outcome::Unknown(error),
            Ok(reply) => match (reply.code, reply.status()) {
                (StatusCode::BAD_REQUEST | StatusCode::INTERNAL_SERVER_ERROR, _) => {
                    Outcome::CombineFailed { code: reply.code.as_u16() }
                }
                (_, Ok(status)) => Outcome::Taken(status),
                (_, Err(error)) => Outcome::Unknown(error),
            },
        };
        Ok(Answer { before, outcome })
    }
}

/// Whether all locks speak of the same attempt, and it is the one on this connection.
fn agree(
    identity: &NodeIdentity,
    order: &ReleaseOrder,
    share: &SoundShare,
    record: &Recorded,
) -> Result<(), ReleaseError> {
    let attempt = order.authority.attempt();
    if attempt.cluster != identity.cluster() || attempt.node != *identity.node() {
        return Err(ReleaseError::Authority(AuthorityRefusal::Elsewhere));
    }
    if order.budget.attempt() != attempt {
        return Err(ReleaseError::Budget);
    }
    if share.cluster() != identity.cluster() {
        return Err(ReleaseError::Integrity);
    }
    if record.attempt() != attempt {
        return Err(ReleaseError::Record);
    }
    Ok(())
}

async fn ask_sealed(connection: &mut Connection, expected: Expected) -> Result<SealStatus, ReleaseError> {
    hold_against(connection.seal_status().await.map_err(ReleaseError::Transport)?, expected)
}

fn hold_against(status: SealStatus, expected: Expected) -> Result<SealStatus, ReleaseError> {
    let refusal = if !status.initialized {
        StateRefusal::NotInitialised
    } else if !status.sealed {
        StateRefusal::Open
    } else if status.kind != SealKind::Shamir {
        StateRefusal::OtherType
    } else if (status.threshold, status.shares) != (expected.threshold, expected.shares) {
        let (found_threshold, found_shares) = (status.threshold, status.shares);
        StateRefusal::OtherNumbers { found_threshold, found_shares, expected }
    } else {
        return Ok(status);
    };
    Err(ReleaseError::State(refusal))
}

/// `{"key":"<hex>"}`, written in place, wiped when the last user drops it. The HTTP client writes it from where it lies.
fn unseal_body(share: &Share) -> Bytes {
    const HEAD: &[u8] = br#"{"key":""#;
    const TAIL: &[u8] = br#""}"#;
    const LEN: usize = HEAD.len() + 2 * SHARE_LEN + TAIL.len();
    // Of its full size from the start: growing would leave a copy behind.
    let mut body = Zeroizing::new(vec![0; LEN]);
    body[..HEAD.len()].copy_from_slice(HEAD);
    body[LEN - TAIL.len()..].copy_from_slice(TAIL);
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let pairs = body[HEAD.len()..LEN - TAIL.len()].chunks_exact_mut(2);
    for (pair, byte) in pairs.zip(share.expose()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    Bytes::from_owner(body)
}
