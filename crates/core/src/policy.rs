//! What a cluster's policy lets this network do by itself, for each cause.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cause::Cause;
use crate::drill::DrillWindow;
use crate::time::Timestamp;

/// What is done about a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Open the node at once.
    Unseal,
    /// Open it when enough operators have approved.
    Approve,
    /// Never open it by this network.
    Hold,
}

/// A cluster's policy. The default is DESIGN's: what nobody meant is opened, what somebody may have meant waits for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// For a restart of the node's process.
    pub restart: Rule,
    /// For a reboot of the custodian's own host.
    pub outage: Rule,
    /// How long ago the node may have been seen open for an outage to be believed.
    pub outage_window: Duration,
    /// For a seal in place.
    pub in_place: Rule,
    /// For everything else.
    pub unknown: Rule,
    /// How many operators approve an opening whose cause is not in place.
    pub approvals: u8,
    /// How many operators approve an opening after a seal in place.
    pub in_place_approvals: u8,
    /// How many operators release a hold.
    pub release_approvals: u8,
    /// How many incidents of one node are opened without people in any hour.
    pub unseals_per_hour: u32,
    /// When drills may be without an operator's order.
    pub drill_windows: Vec<DrillWindow>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            restart: Rule::Unseal,
            outage: Rule::Unseal,
            outage_window: Duration::from_secs(24 * 3600),
            in_place: Rule::Approve,
            unknown: Rule::Approve,
            approvals: 1,
            in_place_approvals: 2,
            release_approvals: 2,
            unseals_per_hour: 12,
            drill_windows: Vec::new(),
        }
    }
}

impl Policy {
    /// What is done about this cause.
    pub fn rule(&self, cause: Cause) -> Rule {
        match cause {
            Cause::Restart => self.restart,
            Cause::Outage => self.outage,
            Cause::InPlace => self.in_place,
            Cause::Unknown => self.unknown,
        }
    }

    /// How many operators have to approve an opening after this cause.
    pub fn approvals_for(&self, cause: Cause) -> u8 {
        match cause {
            Cause::InPlace => self.in_place_approvals,
            Cause::Restart | Cause::Outage | Cause::Unknown => self.approvals,
        }
    }

    /// Whether a drill may be now without an operator's order.
    pub fn in_drill_window(&self, now: Timestamp) -> bool {
        self.drill_windows.iter().any(|window| window.covers(now))
    }

    /// SHA-256 of the policy in one normalised spelling, in hexadecimal: equal policies have equal digests.
    pub fn digest(&self) -> String {
        let Self { restart, outage, outage_window, in_place, unknown, .. } = self;
        let Self { approvals, in_place_approvals, release_approvals, unseals_per_hour, drill_windows, .. } = self;
        let spelled = format!(
            "holdfast policy v1\n{restart:?} {outage:?} {} {in_place:?} {unknown:?} {approvals} {in_place_approvals} \
             {release_approvals} {unseals_per_hour} {drill_windows:?}",
            outage_window.as_secs()
        );
        hex::encode(Sha256::digest(spelled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_only_what_nobody_meant_opens_by_itself() {
        let policy = Policy::default();
        assert_eq!(policy.rule(Cause::Restart), Rule::Unseal);
        assert_eq!(policy.rule(Cause::Outage), Rule::Unseal);
        assert_eq!(policy.rule(Cause::InPlace), Rule::Approve);
        assert_eq!(policy.rule(Cause::Unknown), Rule::Approve);
        assert_eq!((policy.approvals_for(Cause::Unknown), policy.approvals_for(Cause::InPlace)), (1, 2));
    }

    #[test]
    fn each_part_of_a_policy_is_in_its_digest() {
        let policy = Policy::default();
        let window = DrillWindow::parse("daily 00:00-24:00 UTC", |_| None).expect("a window");
        let others = [
            Policy { restart: Rule::Hold, ..policy.clone() },
            Policy { outage: Rule::Hold, ..policy.clone() },
            Policy { outage_window: Duration::from_secs(1), ..policy.clone() },
            Policy { in_place: Rule::Hold, ..policy.clone() },
            Policy { unknown: Rule::Hold, ..policy.clone() },
            Policy { approvals: 9, ..policy.clone() },
            Policy { in_place_approvals: 9, ..policy.clone() },
            Policy { release_approvals: 9, ..policy.clone() },
            Policy { unseals_per_hour: 9, ..policy.clone() },
            Policy { drill_windows: vec![window], ..policy.clone() },
        ];
        for other in others {
            assert_ne!(other.digest(), policy.digest(), "{other:?}");
        }
        assert_eq!(policy.clone().digest(), policy.digest());
    }
}
