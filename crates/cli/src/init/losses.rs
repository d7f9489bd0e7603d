//! What could be lost for ever, or would wait for people at night, said before it is too late to choose otherwise.

use super::InitError;
use super::plan::{PartyArguments, Plan};

/// Refuses a plan under which losses would be final, or no crash would heal by itself, unless that was accepted.
pub(crate) fn check(plan: &Plan, accepted: &PartyArguments) -> Result<(), InitError> {
    let (custodians, holders, threshold) = (plan.candidates.len(), plan.people.len(), usize::from(plan.threshold));
    if custodians < threshold && !accepted.accept_no_automatic_opening {
        return Err(InitError::NoAutomaticOpening { custodians, threshold, missing: threshold - custodians });
    }
    if holders < threshold && !accepted.accept_no_recovery {
        let losses = final_losses(custodians, holders, threshold);
        return Err(InitError::NoRecovery { cluster: plan.cluster.clone(), holders, threshold, losses });
    }
    Ok(())
}

/// Which losses leave fewer shares than open it, where holders alone are too few: so custodians alone can be too many to lose.
fn final_losses(custodians: usize, holders: usize, threshold: usize) -> String {
    let lost = custodians + holders - threshold + 1;
    if holders == 0 {
        return format!("any {lost} of your {custodians} custodians");
    }
    let whose = |count: usize, who: &str| format!("{count} {who}{}", if count == 1 { "'s" } else { "s'" });
    let of_holders = lost.min(holders);
    let mut mixed = whose(of_holders, "holder");
    if lost > of_holders {
        mixed = format!("{mixed} and {}", whose(lost - of_holders, "custodian"));
    }
    format!("any {lost} of the {} shares (for example {}, or {mixed})", custodians + holders, whose(lost, "custodian"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_losses_that_would_be_final_are_those_that_leave_too_few() {
        for (custodians, holders, threshold, expected) in [
            (5, 0, 3, "any 3 of your 5 custodians"),
            (3, 0, 3, "any 1 of your 3 custodians"),
            (5, 1, 3, "any 4 of the 6 shares (for example 4 custodians', or 1 holder's and 3 custodians')"),
            (3, 2, 3, "any 3 of the 5 shares (for example 3 custodians', or 2 holders' and 1 custodian's)"),
            (6, 3, 4, "any 6 of the 9 shares (for example 6 custodians', or 3 holders' and 3 custodians')"),
            (2, 2, 3, "any 2 of the 4 shares (for example 2 custodians', or 2 holders')"),
        ] {
            assert_eq!(final_losses(custodians, holders, threshold), expected);
        }
    }
}
