//! What could be lost for ever, or would wait for people at night, said before it is too late to choose otherwise.

use super::InitError;
use super::plan::Plan;

/// Refuses a plan under which losses would be final, or no crash would heal by itself, unless that was accepted.
pub(crate) fn check(plan: &Plan, no_recovery: bool, no_automatic_opening: bool) -> Result<(), InitError> {
    let (custodians, holders, threshold) = (plan.candidates.len(), plan.people.len(), usize::from(plan.threshold));
    if custodians < threshold && !no_automatic_opening {
        return Err(InitError::NoAutomaticOpening { custodians, threshold, missing: threshold - custodians });
    }
    if holders < threshold && !no_recovery {
        let losses = final_losses(custodians, holders, threshold);
        return Err(InitError::NoRecovery { cluster: plan.cluster.clone(), holders, threshold, losses });
    }
    Ok(())
}

/// Which losses leave fewer shares than open it, where holders alone are too few.
fn final_losses(custodians: usize, holders: usize, threshold: usize) -> String {
    let spare = custodians + holders - threshold;
    let mut losses = format!("{} of your {custodians} custodians", spare + 1);
    if holders > 0 && custodians >= threshold {
        let all = match holders {
            1 => "your holder's share".to_owned(),
            2 => "both holders' shares".to_owned(),
            more => format!("all {more} holders' shares"),
        };
        losses = format!("{losses}, or {all} and {} custodians", custodians - threshold + 1);
    } else if holders > 0 {
        losses = format!("{losses}, or {} of your {holders} holders' shares", spare + 1);
    }
    losses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_losses_that_would_be_final_are_those_that_leave_too_few() {
        for (custodians, holders, threshold, expected) in [
            (5, 0, 3, "3 of your 5 custodians"),
            (3, 0, 3, "1 of your 3 custodians"),
            (5, 1, 3, "4 of your 5 custodians, or your holder's share and 3 custodians"),
            (3, 2, 3, "3 of your 3 custodians, or both holders' shares and 1 custodians"),
            (6, 3, 4, "6 of your 6 custodians, or all 3 holders' shares and 3 custodians"),
            (2, 2, 3, "2 of your 2 custodians, or 2 of your 2 holders' shares"),
        ] {
            assert_eq!(final_losses(custodians, holders, threshold), expected);
        }
    }
}
