//! What people decide about one node: approvals, holds, and whose word about it counts; and what voids what they said before.
//!
//! How many operators it takes is the policy's and `crate::orders`'; what follows from it is decided in `super`.

use crate::custodian::state::StandingApproval;
use crate::custodian::{Entry, Output};
use crate::id::Principal;
use crate::time::Timestamp;

use super::{Context, Node};

/// How many approvals of one node are kept: more operators than that nobody has.
const APPROVALS_MAX: usize = 64;

impl Node {
    /// An operator approved an opening.
    pub(in crate::custodian) fn approve(&mut self, approval: StandingApproval, cx: &mut Context<'_>) {
        let (cluster, node) = (self.cluster, self.name.clone());
        let entry = Entry::Approval { cluster, node, id: approval.id, from: approval.from.clone() };
        let now = cx.now.wall;
        // His latest is enough, and one operator must not take the others' room.
        self.state.approvals.retain(|a| now < a.expires_at && (a.used || a.from != approval.from));
        // One that is given while a hold is in force was not meant for the time after it.
        if self.state.approvals.len() < APPROVALS_MAX && !cx.held {
            self.state.approvals.push(approval);
        }
        if let Some(incident) = &mut self.incident {
            incident.start_over();
        }
        // The id first, so that a crash between cannot make it count twice.
        cx.outputs.push_back(Output::Save);
        cx.outputs.push_back(Output::Audit(entry));
        self.sight.attend(cx.now);
    }

    /// An operator's hold, signed at `held_at`, keeps it shut from now on. What was approved before is void, and an order to
    /// release that is out is withdrawn, also while the node does not answer.
    pub(in crate::custodian) fn hold(&mut self, held_at: Timestamp, cx: &mut Context<'_>) {
        // One that is dated ahead must not void what is approved when it is over.
        self.state.held = self.state.held.max(Some(held_at.min(cx.now.wall)));
        self.void_permissions("an operator's hold", cx);
    }

    /// What was approved or announced is void: somebody ordered a hold since, or the keys that signed it may count no more.
    pub(in crate::custodian) fn void_permissions(&mut self, why: &str, cx: &mut Context<'_>) {
        self.state.approvals.clear();
        self.void_intent(why, cx);
        self.revoke();
    }

    /// Operators have ordered that somebody's word counts for nothing: nor do the markers that he set or told of. What this
    /// custodian saw itself stays.
    pub(in crate::custodian) fn forget_word_of(&mut self, principal: &Principal, cx: &mut Context<'_>) {
        self.void_intent_of(principal, cx);
        if principal != cx.me {
            self.state.markers.retain(|via, marker| via != principal && marker.by != *principal);
        }
    }

    pub(super) fn standing_approvals(&self, cx: &Context<'_>) -> Vec<&StandingApproval> {
        if cx.clock_is_behind {
            return Vec::new();
        }
        let after = self.state.opened.max(self.state.held);
        let operators = &cx.settings.operators;
        let stands = |a: &&StandingApproval| {
            cx.now.wall < a.expires_at && after.is_none_or(|open| open < a.issued_at) && operators.contains(&a.from)
        };
        self.state.approvals.iter().filter(stands).collect()
    }
}
