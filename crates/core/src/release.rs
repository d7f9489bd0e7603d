//! The release rule's two locks that are decisions: authority and budget.
//!
//! A share leaves a custodian only when six locks hold (docs/SECURITY.md, "The six locks"), and each is a value that only
//! the code which proved it can make. Two are made here, by the custodian's state machine: [`Authority`] and [`Budget`].
//! The other four are made where the proof happens, at the edge: identity and state on the connection that then carries
//! the share, integrity by the share store, record by the audit log. `holdfast_edge::vault::Sealed::submit` takes all six
//! by value, and refuses a set of which two speak of different attempts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cause::Cause;
use crate::id::{ClusterId, IncidentId, MessageId, NodeName};
use crate::time::Steady;

/// What a release is about: one node's one incident, and the how-manieth set of shares is being tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeName,
    /// This custodian's id of the incident.
    pub incident: IncidentId,
    /// 0 for the first set of shares, one more after each set that failed.
    pub round: u32,
}

/// Why a share may be released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grounds {
    /// The policy opens this cause by itself.
    Cause(Cause),
    /// Enough operators have approved it: these messages.
    Approvals(Vec<MessageId>),
    /// A conductor's intent covers it: this message.
    Intent(MessageId),
}

/// The lock "authority": no hold, and a cause that policy opens by itself, or enough approvals, or an intent that covers it.
///
/// It can be withdrawn after it was given out: a marker that arrives while a connection is being made revokes it, and
/// [`Authority::stands`] is asked once more before the request leaves.
#[derive(Debug)]
pub struct Authority {
    attempt: Attempt,
    grounds: Grounds,
    until: Steady,
    revoked: Revocation,
}

/// The handle by which the state machine withdraws an [`Authority`] that it gave out.
#[derive(Debug, Clone, Default)]
pub struct Revocation(Arc<AtomicBool>);

impl Revocation {
    /// Withdraws the authority. Cannot be undone.
    pub fn revoke(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it was withdrawn.
    pub(crate) fn is_revoked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Authority {
    pub(crate) fn new(attempt: Attempt, grounds: Grounds, until: Steady, revoked: Revocation) -> Self {
        Self { attempt, grounds, until, revoked }
    }

    /// What it is about.
    pub fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    /// Why it was given.
    pub fn grounds(&self) -> &Grounds {
        &self.grounds
    }

    /// Whether it still holds at `now`: neither withdrawn nor too old.
    pub fn stands(&self, now: Steady) -> bool {
        now < self.until && !self.revoked.is_revoked()
    }
}

/// The lock "budget": this incident was counted, on disk, against the automatic openings of its node, or is exempt.
#[derive(Debug)]
pub struct Budget {
    attempt: Attempt,
}

impl Budget {
    pub(crate) fn new(attempt: Attempt) -> Self {
        Self { attempt }
    }

    /// What it is about.
    pub fn attempt(&self) -> &Attempt {
        &self.attempt
    }
}

/// The order to release this custodian's share to one node: the first two locks. Whoever carries it out has to prove the
/// other four.
#[derive(Debug)]
pub struct ReleaseOrder {
    /// The lock "authority".
    pub authority: Authority,
    /// The lock "budget".
    pub budget: Budget,
}

impl ReleaseOrder {
    /// What it is about.
    pub fn attempt(&self) -> &Attempt {
        self.authority.attempt()
    }
}

/// For tests of whoever carries an order out: one that no state machine decided. The feature is a development dependency's
/// alone; a program that named it would have a way around the first two locks.
#[cfg(feature = "test-orders")]
impl ReleaseOrder {
    /// An order whose authority is for `attempt` and whose budget was charged for `charged`, which should be the same.
    pub fn forged(attempt: Attempt, charged: Attempt, until: Steady, revoked: Revocation) -> Self {
        let authority = Authority::new(attempt, Grounds::Cause(Cause::Restart), until, revoked);
        Self { authority, budget: Budget::new(charged) }
    }
}
