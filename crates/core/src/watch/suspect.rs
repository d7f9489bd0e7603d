//! Whose shares an incident makes suspect: a set of ours did not fit, and another one of ours opened the node.
//!
//! Then at least one share that was in the first and not in the other is wrong, or one of those custodians lies. Where more than one is
//! left, which of them it is cannot be shown, and is not claimed; whoever tells of a failure is always among them. Where a stranger's
//! share may have been in the set, where a receipt is missing, or where no whole set of ours opened the node, nobody is.
//!
//! Suspicion is for people. Nothing is released, kept or ranked by it, and it ends with a proof, another generation, or time.

use std::collections::BTreeSet;
use std::time::Duration;

use super::proof;
use crate::id::Principal;
use crate::message::Submission;
use crate::status::{IncidentStatus, SubmissionStatus};

/// How long a share stays suspect that nothing has proven since: long enough for whoever comes back from a holiday.
pub(super) const SUSPECT_KEPT: Duration = Duration::from_secs(30 * 86_400);

/// Whose shares the incident makes suspect. What a distrusted custodian tells makes nobody so.
pub(super) fn suspects(
    incident: &IncidentStatus,
    distrusted: &BTreeSet<Principal>,
    threshold: u8,
) -> BTreeSet<Principal> {
    let told: Vec<_> = incident.submissions.iter().filter(|s| !distrusted.contains(&s.custodian)).collect();
    let named = |such: Submission| {
        let such = told.iter().filter(move |s| s.result == such && !s.nonce.is_empty());
        such.map(|s| s.nonce.as_str()).collect::<BTreeSet<_>>()
    };
    let failed = named(Submission::Failed);
    if failed.is_empty() {
        return BTreeSet::new();
    }
    let proven = proof::proven(incident, distrusted, threshold);
    if proven.len() < usize::from(threshold) {
        return BTreeSet::new();
    }
    // One that is said to have failed and opened was another's when the last share came.
    let failed = failed.difference(&named(Submission::Opened)).copied().collect::<BTreeSet<_>>();
    let sets = failed.into_iter().filter_map(|nonce| set(&told, nonce, threshold));
    let left: Vec<BTreeSet<_>> = sets.map(|set| set.difference(&proven).cloned().collect()).collect();
    // Who is left alone explains every other set that failed with it, and whoever else was in those is not to be accused for it.
    let alone: BTreeSet<_> = left.iter().filter(|left| left.len() == 1).flatten().cloned().collect();
    let unexplained = left.into_iter().filter(|left| left.is_disjoint(&alone)).flatten();
    unexplained.collect::<BTreeSet<_>>().union(&alone).cloned().collect()
}

/// The custodians whose shares were the whole set that failed in this attempt, if that can be told.
fn set(told: &[&SubmissionStatus], nonce: &str, threshold: u8) -> Option<BTreeSet<Principal>> {
    let in_it = |s: &&&SubmissionStatus| {
        s.nonce == nonce && matches!(s.result, Submission::Counted | Submission::Failed | Submission::Unanswered)
    };
    let shares: BTreeSet<_> = told.iter().filter(in_it).map(|s| (s.x, &s.custodian)).collect();
    let (xs, custodians): (BTreeSet<_>, BTreeSet<_>) = shares.into_iter().unzip();
    let whole = usize::from(threshold);
    let unanswered = told.iter().filter(in_it).any(|s| s.result == Submission::Unanswered);
    (xs.len() == whole && custodians.len() == whole && !unanswered).then(|| custodians.into_iter().cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::proof::tests::incident;
    use Submission::{Counted, Failed, Opened, Unanswered};

    fn numbers(said: &[(u8, Submission, &str)], distrusted: &[&str]) -> String {
        let distrusted = distrusted.iter().map(|name| name.parse().expect("a name")).collect();
        let names = suspects(&incident(said), &distrusted, 3).into_iter();
        names.map(|name| name.as_str()["custodian-".len()..].to_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn nobody_is_accused_but_by_a_whole_set_that_failed_beside_a_whole_set_that_opened() {
        let opened = |by: [u8; 3]| [(by[0], Counted, "z"), (by[1], Counted, "z"), (by[2], Opened, "z")];
        for (failed, by, expected, why) in [
            (&[(1, Counted, "a"), (2, Counted, "a"), (3, Failed, "a")][..], [1, 2, 4], "3", "it alone is left"),
            (&[(3, Counted, "a"), (2, Counted, "a"), (1, Failed, "a")], [1, 2, 4], "3", "whoever came last"),
            (&[(1, Counted, "a"), (2, Counted, "a"), (3, Failed, "a")], [1, 4, 5], "2 3", "one of two, and who tells"),
            (&[(1, Counted, "a"), (2, Counted, "a"), (3, Failed, "a")], [1, 2, 3], "", "a stranger spoilt it"),
            (
                &[(1, Counted, "a"), (3, Failed, "a")],
                [1, 2, 4],
                "",
                "a stranger's share was in it, or a receipt is lost",
            ),
            (
                &[(1, Counted, "a"), (2, Unanswered, "a"), (3, Failed, "a")],
                [1, 2, 4],
                "",
                "perhaps counted, perhaps not",
            ),
            (
                &[(1, Counted, "a"), (2, Counted, "a"), (5, Counted, "a"), (3, Failed, "a")],
                [1, 2, 4],
                "",
                "of four, one was in no set of three",
            ),
            (&[(1, Counted, ""), (2, Counted, ""), (3, Failed, "")], [1, 2, 4], "", "an attempt without a name"),
            (&[(3, Failed, "z")], [1, 2, 4], "", "it failed and opened, and so is not known to have done either"),
            (
                &[
                    (1, Counted, "a"),
                    (2, Counted, "a"),
                    (3, Failed, "a"),
                    (1, Counted, "b"),
                    (3, Counted, "b"),
                    (4, Failed, "b"),
                ],
                [1, 2, 4],
                "3",
                "in both that failed",
            ),
            (
                &[
                    (1, Counted, "a"),
                    (2, Counted, "a"),
                    (3, Failed, "a"),
                    (5, Counted, "b"),
                    (3, Counted, "b"),
                    (4, Failed, "b"),
                ],
                [1, 2, 4],
                "3",
                "one that is shown explains the other set, and nobody else is accused for it",
            ),
        ] {
            let said: Vec<_> = failed.iter().copied().chain(opened(by)).collect();
            assert_eq!(numbers(&said, &[]), expected, "{why}");
        }
        let failed = [(1, Counted, "a"), (2, Counted, "a"), (3, Failed, "a")];
        assert_eq!(numbers(&failed, &[]), "", "when no set opens, no share is judged");
        let half: Vec<_> = failed.into_iter().chain([(4, Counted, "z"), (5, Opened, "z")]).collect();
        assert_eq!(numbers(&half, &[]), "", "nobody knows who else was in the set that opened");
        let told: Vec<_> = failed.into_iter().chain(opened([1, 2, 4])).collect();
        assert_eq!(numbers(&told, &["custodian-3"]), "", "its word counts for nothing, against itself as well");
        assert_eq!(
            numbers(&told, &["custodian-4"]),
            "",
            "that it opened is the word of one whose word counts for nothing"
        );
    }
}
