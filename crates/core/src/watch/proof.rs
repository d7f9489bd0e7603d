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

/// Whose shares the incident proved. Nobody's before own eyes saw the node open; and what a distrusted custodian tells proves
/// nothing.
pub(super) fn proven(
    incident: &IncidentStatus,
    distrusted: &BTreeSet<Principal>,
    threshold: u8,
) -> BTreeSet<Principal> {
    let IncidentStatus { submissions, opened_at: Some(_), .. } = incident else { return BTreeSet::new() };
    let told = submissions.iter().filter(|submission| !distrusted.contains(&submission.custodian));
    let submissions = &told.cloned().collect::<Vec<_>>();
    // One that is said to have failed and opened was another's when the last share came.
    let failed = named(submissions, |result| result == Submission::Failed);
    let opened = named(submissions, |result| result == Submission::Opened);
    let attempts = if opened.is_empty() { only_attempt(submissions, threshold) } else { opened };
    attempts.difference(&failed).flat_map(|nonce| set(submissions, nonce, threshold)).collect()
}

/// Whose receipts of one attempt cannot all be true: as many shares as it takes are said to have been counted in it, and the last of so
/// many is never counted, but opens the node or fails. At least one of them lies; which one cannot be shown.
pub(super) fn contradicting(
    incident: &IncidentStatus,
    distrusted: &BTreeSet<Principal>,
    threshold: u8,
) -> BTreeSet<Principal> {
    let told = incident.submissions.iter().filter(|submission| !distrusted.contains(&submission.custodian));
    let submissions = &told.cloned().collect::<Vec<_>>();
    let impossible = |nonce: &&str| counted(submissions, nonce).len() >= usize::from(threshold);
    let attempts: BTreeSet<_> = named(submissions, |_| true).into_iter().filter(impossible).collect();
    let of_them = submissions.iter().filter(|s| s.result == Submission::Counted && attempts.contains(s.nonce.as_str()));
    of_them.map(|s| s.custodian.clone()).collect()
}

/// The attempts that submissions with such results name.
fn named(submissions: &[SubmissionStatus], such: impl Fn(Submission) -> bool) -> BTreeSet<&str> {
    submissions.iter().filter(|s| such(s.result) && !s.nonce.is_empty()).map(|s| s.nonce.as_str()).collect()
}

/// Where whoever found the node open had asked for its state before the attempt began, and so names none: the attempt of which
/// everybody else tells, if it is one, and lacked one share.
fn only_attempt(submissions: &[SubmissionStatus], threshold: u8) -> BTreeSet<&str> {
    let opened = submissions.iter().any(|s| s.result == Submission::Opened);
    let attempts = named(submissions, |_| true);
    let lacked_one = |nonce: &&str| counted(submissions, nonce).len() + 1 == usize::from(threshold);
    match attempts.len() {
        1 if opened => attempts.into_iter().filter(lacked_one).collect(),
        _ => BTreeSet::new(),
    }
}

/// Whose shares were in the set that opened the node in this attempt. Nobody's, where more are said to have been counted than
/// leave room for the last one: one of them is not true.
fn set(submissions: &[SubmissionStatus], nonce: &str, threshold: u8) -> BTreeSet<Principal> {
    let counted = counted(submissions, nonce);
    if counted.len() >= usize::from(threshold) {
        return BTreeSet::new();
    }
    let in_it = |s: &&SubmissionStatus| s.result == Submission::Counted && s.nonce == nonce;
    let mut proven: BTreeSet<_> = submissions.iter().filter(in_it).map(|s| s.custodian.clone()).collect();
    // Whoever names no attempt may have been the last of this one.
    let completed = |s: &&SubmissionStatus| s.result == Submission::Opened && (s.nonce == nonce || s.nonce.is_empty());
    let mut openers = submissions.iter().filter(completed);
    if let (Some(last), None) = (openers.next(), openers.next())
        && counted.len() + 1 == usize::from(threshold)
        && !counted.contains(&last.x)
    {
        proven.insert(last.custodian.clone());
    }
    proven
}

/// The shares that were counted in an attempt.
fn counted(submissions: &[SubmissionStatus], nonce: &str) -> BTreeSet<u8> {
    submissions.iter().filter(|s| s.result == Submission::Counted && s.nonce == nonce).map(|s| s.x).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::id::IncidentId;
    use crate::time::Timestamp;

    pub(in crate::watch) fn incident(said: &[(u8, Submission, &str)]) -> IncidentStatus {
        let submission = |(x, result, nonce): &(u8, Submission, &str)| SubmissionStatus {
            custodian: format!("custodian-{x}").parse().expect("a name"),
            incident: IncidentId::from_bytes([1; 16]),
            x: *x,
            round: 0,
            cause: None,
            approvals: Vec::new(),
            intent: None,
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
            generation: Some(1),
            open_after_ms: None,
            drill: None,
            submissions: said.iter().map(submission).collect(),
            refusals: Vec::new(),
        }
    }

    fn numbers(incident: &IncidentStatus) -> String {
        numbers_without(incident, &[])
    }

    fn numbers_without(incident: &IncidentStatus, distrusted: &[&str]) -> String {
        let distrusted = distrusted.iter().map(|name| name.parse().expect("a name")).collect();
        let names =
            proven(incident, &distrusted, 3).into_iter().map(|name| name.as_str()["custodian-".len()..].to_owned());
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn who_says_what_cannot_all_be_true_is_named() {
        use Submission::{Counted, Failed, Opened, Unanswered};
        let names = |said: &[(u8, Submission, &str)], distrusted: &[&str]| {
            let distrusted = distrusted.iter().map(|name| name.parse().expect("a name")).collect();
            let names = contradicting(&incident(said), &distrusted, 3).into_iter();
            names.map(|name| name.as_str()["custodian-".len()..].to_owned()).collect::<Vec<_>>().join(" ")
        };
        let lie = [(1, Counted, "a"), (2, Counted, "a"), (3, Counted, "a"), (4, Opened, "a"), (5, Counted, "b")];
        assert_eq!(names(&lie, &[]), "1 2 3", "one of them says so of a share that was not in it");
        assert_eq!(names(&lie, &["custodian-3"]), "", "and it was that one");
        for honest in [
            &[(1, Counted, "a"), (2, Counted, "a"), (3, Opened, "a"), (4, Opened, "a")][..],
            &[(1, Counted, "a"), (2, Counted, "a"), (3, Failed, "a"), (1, Counted, "b"), (4, Counted, "b")],
            &[(1, Counted, "a"), (2, Counted, "a"), (3, Unanswered, "a"), (4, Opened, "a")],
            &[(1, Counted, "a"), (1, Counted, "a"), (2, Counted, "a"), (3, Opened, "a")],
            &[(1, Counted, ""), (2, Counted, ""), (3, Counted, "")],
        ] {
            assert_eq!(names(honest, &[]), "", "{honest:?}");
        }
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
            (&[(1, Counted, "a"), (2, Counted, "a"), (3, Opened, "")], "1 2 3", "asked for the state before it began"),
            (&[(1, Counted, "a"), (2, Counted, "a"), (3, Opened, "a"), (4, Opened, "")], "1 2", "either completed it"),
            (
                &[(1, Counted, "a"), (2, Counted, "a"), (3, Opened, ""), (4, Opened, "")],
                "1 2",
                "either, and neither says",
            ),
            (&[(1, Counted, "a"), (3, Opened, "")], "", "another set may have opened it"),
            (&[(1, Counted, "a"), (2, Counted, "a"), (4, Counted, "b"), (3, Opened, "")], "", "or another attempt"),
            (&[(1, Counted, "a"), (2, Counted, "a"), (4, Failed, "a"), (3, Opened, "")], "", "it failed"),
            (
                &[(1, Counted, "a"), (2, Counted, "a"), (4, Counted, "a"), (3, Opened, "a")],
                "",
                "a fourth was in no set of three",
            ),
            (&[(1, Counted, "a"), (2, Counted, "a"), (4, Counted, "a"), (3, Opened, "")], "", "nor here"),
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
        let whole = incident(&[(1, Counted, "a"), (2, Counted, "a"), (3, Opened, "a")]);
        assert_eq!(numbers_without(&whole, &["custodian-2"]), "1", "one's word counts for nothing");
        assert_eq!(numbers_without(&whole, &["custodian-3"]), "", "nobody else says that it opened");
        let mut running = incident(&[(1, Counted, "a"), (2, Counted, "a"), (3, Opened, "a")]);
        running.opened_at = None;
        assert_eq!(numbers(&running), "", "own eyes have not seen it open");
    }
}
