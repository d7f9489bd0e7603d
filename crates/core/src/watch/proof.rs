//! Which shares an incident proved: those of the set that opened the node.
//!
//! Counted says nothing of a share: the node counts wrong ones too. A set has exactly as many shares as it takes, and opens
//! the node only if each is right; so whoever was counted in the very attempt that opened it is proven. Whose submission
//! found the node open is proven only where nobody else can have completed the set: a node that is open already answers
//! the same to anything.

use std::collections::BTreeSet;

use crate::id::Principal;
use crate::message::Submission;
use crate::status::{IncidentStatus, SubmissionStatus};

/// Whose shares the incident proved. Nobody's before own eyes saw the node open.
pub(super) fn proven(incident: &IncidentStatus, threshold: u8) -> BTreeSet<Principal> {
    let named = |result| {
        let of = incident.submissions.iter().filter(move |s| s.result == result && !s.nonce.is_empty());
        of.map(|s| s.nonce.as_str()).collect::<BTreeSet<_>>()
    };
    if incident.opened_at.is_none() {
        return BTreeSet::new();
    }
    // One that is said to have failed and opened was another's when the last share came.
    let failed = named(Submission::Failed);
    named(Submission::Opened)
        .difference(&failed)
        .flat_map(|nonce| set(&incident.submissions, nonce, threshold))
        .collect()
}

/// Whose shares were in the set that opened the node in this attempt.
fn set(submissions: &[SubmissionStatus], nonce: &str, threshold: u8) -> BTreeSet<Principal> {
    let told = |result| submissions.iter().filter(move |s| s.result == result && s.nonce == nonce);
    let mut proven: BTreeSet<_> = told(Submission::Counted).map(|s| s.custodian.clone()).collect();
    let counted: BTreeSet<_> = told(Submission::Counted).map(|s| s.x).collect();
    let mut openers = told(Submission::Opened);
    if let (Some(last), None) = (openers.next(), openers.next())
        && counted.len() + 1 == usize::from(threshold)
        && !counted.contains(&last.x)
    {
        proven.insert(last.custodian.clone());
    }
    proven
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::IncidentId;
    use crate::time::Timestamp;

    fn incident(said: &[(u8, Submission, &str)]) -> IncidentStatus {
        let submission = |(x, result, nonce): &(u8, Submission, &str)| SubmissionStatus {
            custodian: format!("custodian-{x}").parse().expect("a name"),
            incident: IncidentId::from_bytes([1; 16]),
            x: *x,
            round: 0,
            cause: None,
            approvals: Vec::new(),
            result: *result,
            nonce: (*nonce).to_owned(),
            progress: 0,
            answered_at: Timestamp::default(),
        };
        IncidentStatus {
            node: "vault-1".parse().expect("a name"),
            began_at: Timestamp::default(),
            sealed_at: None,
            cause: None,
            told_cause: None,
            opened_at: Some(Timestamp::default()),
            open_after_ms: None,
            submissions: said.iter().map(submission).collect(),
            refusals: Vec::new(),
        }
    }

    fn numbers(incident: &IncidentStatus) -> String {
        let names = proven(incident, 3).into_iter().map(|name| name.as_str()["custodian-".len()..].to_owned());
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_set_that_opened_is_proven_and_nothing_else() {
        use Submission::{Counted, Failed, Opened, Unanswered};
        for (said, expected, why) in [
            (&[(1, Counted, "a"), (2, Counted, "a"), (3, Opened, "a")][..], "1 2 3", "a whole set"),
            (&[(1, Counted, "a"), (2, Counted, "b"), (3, Counted, "b"), (4, Opened, "b")], "2 3 4", "another attempt"),
            (&[(1, Counted, "a"), (2, Counted, "a")], "", "nobody says that it opened"),
            (
                &[(1, Counted, "a"), (2, Counted, "a"), (3, Opened, "a"), (4, Opened, "a")],
                "1 2",
                "one of two came late",
            ),
            (&[(1, Counted, "a"), (3, Opened, "a")], "1", "a stranger's share, or a receipt that is lost"),
            (&[(3, Opened, "a")], "", "nobody knows with whom"),
            (&[(1, Counted, "a"), (2, Counted, "a"), (4, Failed, "a"), (3, Opened, "a")], "", "it failed as well"),
            (&[(1, Counted, ""), (2, Counted, ""), (3, Opened, "")], "", "attempts without a name"),
            (&[(1, Counted, "a"), (2, Unanswered, "a"), (3, Opened, "a")], "1", "perhaps counted, perhaps not"),
        ] {
            assert_eq!(numbers(&incident(said)), expected, "{why}");
        }
        let mut same_share = incident(&[(1, Counted, "a"), (2, Counted, "a"), (3, Opened, "a")]);
        same_share.submissions[1].x = 1;
        assert_eq!(
            numbers(&same_share),
            "1 2",
            "two of three are one, and so the last is not known to have completed it"
        );
        let mut running = incident(&[(1, Counted, "a"), (2, Counted, "a"), (3, Opened, "a")]);
        running.opened_at = None;
        assert_eq!(numbers(&running), "", "own eyes have not seen it open");
    }
}
