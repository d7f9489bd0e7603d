//! Carrying out an order to release: proving the four locks that are not decisions, and submitting.
//!
//! One connection of its own for each, unless the node has just declined a ticket on one: full handshake, state, share. The types see to it that nothing is left out:
//! `Sealed::submit` takes all six locks by value.

use std::sync::Arc;

use holdfast_core::custodian::{Answer, Outcome};
use holdfast_core::id::Principal;
use holdfast_core::message::{Lock, Submission};
use holdfast_core::release::{Attempt, ReleaseOrder};
use holdfast_core::seal_status::SealStatus;
use holdfast_edge::audit::Recorded;
use holdfast_edge::clock::{self, Clock};
use holdfast_edge::store::ShareStore;
use holdfast_edge::vault::release::{self, Expected, Proven, ReleaseError, Sealed};
use holdfast_edge::vault::{self, Connection, NodeIdentity};

/// The status with which a server says that a set of shares did not fit together.
const COMBINE_FAILED: u16 = 400;

/// What one release needs beside its order.
pub(crate) struct Release {
    pub(crate) order: ReleaseOrder,
    pub(crate) record: Recorded,
    pub(crate) identity: Arc<NodeIdentity>,
    /// One on which the node proved its identity a moment ago, if there is one, and what it reported there.
    pub(crate) spare: Option<(Connection, SealStatus)>,
    pub(crate) store: ShareStore,
    pub(crate) custodian: Principal,
    pub(crate) generation: u32,
    pub(crate) expected: Expected,
    pub(crate) clock: Clock,
}

/// Carries the release out, and says for which attempt and what came of it.
pub(crate) async fn carry_out(release: Release) -> (Attempt, Outcome) {
    let attempt = release.order.attempt().clone();
    let outcome = match submit(release).await {
        Ok(answer) => Outcome::Answered(answer),
        Err((lock, why)) => Outcome::Refused { lock, why },
    };
    (attempt, outcome)
}

async fn submit(release: Release) -> Result<Answer, (Lock, String)> {
    let Release { order, record, identity, spare, store, custodian, generation, expected, clock } = release;
    let refused = |error: ReleaseError| (lock(&error), error.to_string());
    let sealed = match check_spare(spare, expected).await {
        Some(sealed) => sealed,
        None => {
            let proven = release::prove(&identity).await.map_err(refused)?;
            proven.check(expected).await.map_err(refused)?
        }
    };
    let share = store
        .unlock(identity.cluster(), generation, &custodian)
        .map_err(|error| (Lock::Integrity, error.to_string()))?;
    let grounds = order.authority.grounds().clone();
    let submitted = clock.now();
    let answer = sealed.submit(order, share, record, submitted.steady).await.map_err(refused)?;
    let (result, nonce, progress) = match answer.outcome {
        release::Outcome::Taken(status) if !status.sealed => (Submission::Opened, answer.before.nonce, 0),
        release::Outcome::Taken(status) => (Submission::Counted, status.nonce, status.progress),
        release::Outcome::CombineFailed { code: COMBINE_FAILED } => (Submission::Failed, answer.before.nonce, 0),
        // An old server's way to say the same, or a follower's that is joining with the set of before: time will tell.
        release::Outcome::CombineFailed { .. } => (Submission::Unanswered, answer.before.nonce, 0),
        release::Outcome::Unknown(_) => (Submission::Unanswered, answer.before.nonce, answer.before.progress),
    };
    let answered_at = clock::wall();
    Ok(Answer { result, grounds, nonce, progress, submitted_at: submitted.wall, answered_at })
}

/// The first two locks on a connection that is there already. If they do not hold on it, a new one says why.
async fn check_spare(spare: Option<(Connection, SealStatus)>, expected: Expected) -> Option<Sealed> {
    let (connection, reported) = spare?;
    Proven::by(connection, reported)?.check(expected).await.ok()
}

fn lock(error: &ReleaseError) -> Lock {
    match error {
        ReleaseError::Identity(_) | ReleaseError::Unreachable(_) => Lock::Identity,
        ReleaseError::State(_) | ReleaseError::Transport(_) => Lock::State,
        ReleaseError::Authority(_) => Lock::Authority,
        ReleaseError::Budget => Lock::Budget,
        ReleaseError::Integrity => Lock::Integrity,
        ReleaseError::Record => Lock::Record,
    }
}

/// Has a node drop the shares of its running attempt. Whoever reaches the port can do that; it is proven to be the node all
/// the same, so that the news of it can be believed.
pub(crate) async fn reset(identity: Arc<NodeIdentity>) -> Result<(), String> {
    let mut connection = identity.connect(None).await.map_err(|e: vault::ConnectError| e.to_string())?;
    connection.reset_attempt().await.map(drop).map_err(|e| e.to_string())
}
