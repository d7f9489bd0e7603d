//! What custodians' heartbeats say of operators' orders, put together: holds, what waits for more operators, whose word counts for
//! nothing, and by which trust roots custodians judge.
//!
//! A custodian can say what is not so. Nothing here is true because one says it: it is told with who says it, and each custodian
//! is read only so far that none makes the list long.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{MessageId, NodeName, Principal};
use crate::message::{HOLDS_REPORTED, Heartbeat, HoldReport, Matter, NODES_NAMED_MAX, WAITING_REPORTED, plain_text};
use crate::status::{HoldStatus, TrustVersion, TrustVersionStatus, WaitingStatus};
use crate::time::Timestamp;

/// How many operators are read of those that a custodian says to have joined in one matter.
const VOICES_READ: usize = 16;

/// How many names are read of those that a custodian says to count for nothing: more than a cluster has of them.
const DISTRUSTED_READ: usize = 64;

/// What a custodian says, and who it is.
pub(super) type Said<'a> = (&'a Principal, &'a Heartbeat);

/// All that has to be the same for two custodians to speak of one hold: under one id somebody could tell of another. Its reason may
/// be left out where there is little room.
type Which<'a> = (MessageId, &'a Principal, Timestamp, BTreeSet<&'a NodeName>);

/// Who tells of a matter, who has joined in it as he has heard, and how many it takes.
type Told<'a> = (&'a Principal, &'a [Principal], u8);

/// The holds that custodians say that they obey: first those that most obey, of these the latest.
pub(super) fn holds(said: &[Said<'_>]) -> Vec<HoldStatus> {
    let mut reports: BTreeMap<Which<'_>, Vec<(&Principal, &HoldReport)>> = BTreeMap::new();
    for (custodian, beat) in said {
        for report in beat.holds.iter().take(HOLDS_REPORTED) {
            let nodes = report.nodes.iter().take(NODES_NAMED_MAX).collect();
            let which = (report.id, &report.by, report.held_at, nodes);
            reports.entry(which).or_default().push((custodian, report));
        }
    }
    let mut holds: Vec<_> = reports.into_iter().map(|(which, told)| hold(which, &told)).collect();
    holds.sort_by_key(|hold| (std::cmp::Reverse((hold.obeyed_by.len(), hold.held_at)), hold.id));
    holds
}

fn hold((id, by, held_at, nodes): Which<'_>, told: &[(&Principal, &HoldReport)]) -> HoldStatus {
    HoldStatus {
        id,
        by: by.clone(),
        held_at,
        nodes: nodes.into_iter().cloned().collect(),
        reason: most_told(told.iter().filter_map(|(_, report)| report.reason.as_deref())).map(plain_text),
        released_by: heard(told.iter().map(|(_, report)| report.released_by.as_slice())),
        need: most_told(told.iter().map(|(_, report)| report.need)).unwrap_or(1),
        obeyed_by: told.iter().map(|(custodian, _)| (*custodian).clone()).collect(),
    }
}

/// What operators have begun and too few have joined: first what most custodians tell of. The ends of holds are with the holds.
pub(super) fn waiting(said: &[Said<'_>]) -> Vec<WaitingStatus> {
    let mut reports: BTreeMap<&Matter, Vec<Told<'_>>> = BTreeMap::new();
    for (custodian, beat) in said {
        let matters = beat.waiting.iter().filter(|report| !matches!(report.matter, Matter::Release { .. }));
        for report in matters.take(WAITING_REPORTED) {
            reports.entry(&report.matter).or_default().push((custodian, &report.by, report.need));
        }
    }
    let status = |(matter, told): (&Matter, Vec<Told<'_>>)| WaitingStatus {
        matter: matter.clone(),
        by: heard(told.iter().map(|(_, by, _)| *by)),
        need: most_told(told.iter().map(|(.., need)| *need)).unwrap_or(1),
        told_by: told.iter().map(|(custodian, ..)| (*custodian).clone()).collect(),
    };
    let mut waiting: Vec<_> = reports.into_iter().map(status).collect();
    waiting.sort_by_key(|waiting| std::cmp::Reverse(waiting.told_by.len()));
    waiting
}

/// Whose word counts for nothing, and who says so of them.
pub(super) fn distrusted(said: &[Said<'_>]) -> BTreeMap<Principal, BTreeSet<Principal>> {
    let mut distrusted: BTreeMap<Principal, BTreeSet<Principal>> = BTreeMap::new();
    for (custodian, beat) in said {
        for principal in beat.distrusted.iter().take(DISTRUSTED_READ) {
            distrusted.entry(principal.clone()).or_default().insert((*custodian).clone());
        }
    }
    distrusted
}

/// Those of whom so many say it that not all of them can be captured: nobody's own word is among them.
pub(super) fn surely(distrusted: &BTreeMap<Principal, BTreeSet<Principal>>, threshold: u8) -> BTreeSet<Principal> {
    let enough = |(who, by): &(&Principal, &BTreeSet<Principal>)| {
        by.iter().filter(|custodian| custodian != who).count() >= usize::from(threshold.max(1))
    };
    distrusted.iter().filter(enough).map(|(who, _)| who.clone()).collect()
}

/// The trust roots by which custodians judge: first that of most.
pub(super) fn trust_versions(said: &[Said<'_>]) -> Vec<TrustVersionStatus> {
    let mut versions: BTreeMap<TrustVersion, BTreeSet<Principal>> = BTreeMap::new();
    for (custodian, beat) in said {
        let trust = TrustVersion { version: beat.trust_version, sha256: plain_text(&beat.allowed_signers_sha256) };
        versions.entry(trust).or_default().insert((*custodian).clone());
    }
    let mut versions: Vec<_> =
        versions.into_iter().map(|(trust, custodians)| TrustVersionStatus { trust, custodians }).collect();
    versions.sort_by_key(|version| std::cmp::Reverse(version.custodians.len()));
    versions
}

/// Each operator, and how many custodians have heard that he says so.
fn heard<'a>(told: impl Iterator<Item = &'a [Principal]>) -> BTreeMap<Principal, u32> {
    let mut heard: BTreeMap<Principal, u32> = BTreeMap::new();
    for by in told {
        for operator in by.iter().take(VOICES_READ).collect::<BTreeSet<_>>() {
            *heard.entry(operator.clone()).or_default() += 1;
        }
    }
    heard
}

/// What most say; the larger of two that equally many do.
fn most_told<T: Ord + Copy>(told: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    told.for_each(|what| *counts.entry(what).or_default() += 1);
    counts.into_iter().max_by_key(|(what, count)| (*count, *what)).map(|(what, _)| what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::WaitingReport;
    use crate::quorum::tests::heartbeat;

    fn name(text: &str) -> Principal {
        text.parse().expect("a name")
    }

    fn report(id: u8, by: &str, nodes: &[&str], released_by: &[&str]) -> HoldReport {
        HoldReport {
            id: MessageId::from_bytes([id; 16]),
            by: name(by),
            held_at: Timestamp::from_millis(i64::from(id)),
            nodes: nodes.iter().map(|node| node.parse().expect("a name")).collect(),
            reason: Some("forensics".to_owned()),
            released_by: released_by.iter().map(|operator| name(operator)).collect(),
            need: 2,
        }
    }

    /// Custodians with these holds, numbered from 1.
    fn beats(holds: Vec<Vec<HoldReport>>) -> Vec<(Principal, Heartbeat)> {
        let beat = |(i, holds)| (name(&format!("custodian-{i}")), Heartbeat { holds, ..heartbeat(i, &[]) });
        (1..).zip(holds).map(beat).collect()
    }

    fn said(beats: &[(Principal, Heartbeat)]) -> Vec<Said<'_>> {
        beats.iter().map(|(custodian, beat)| (custodian, beat)).collect()
    }

    fn names(principals: &BTreeSet<Principal>) -> String {
        principals.iter().map(Principal::as_str).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_hold_is_one_whoever_tells_of_it_and_a_made_up_one_stands_apart() {
        let carols = |released: &[&str]| report(1, "carol", &["vault-1", "vault-2"], released);
        // The same nodes in another order; the same id with something else in it; one that nobody ordered.
        let turned = HoldReport { nodes: carols(&[]).nodes.into_iter().rev().collect(), ..carols(&["bob"]) };
        let other = HoldReport { by: name("mallory"), ..carols(&[]) };
        let beats = beats(vec![
            vec![carols(&[])],
            vec![turned],
            vec![HoldReport { reason: None, ..carols(&["bob", "bob", "alice"]) }],
            vec![other, report(9, "alice", &[], &["bob"])],
        ]);
        let holds = holds(&said(&beats));
        let told: Vec<_> = holds.iter().map(|h| (h.by.as_str(), names(&h.obeyed_by), h.need)).collect();
        assert_eq!(
            told,
            [
                ("carol", "custodian-1 custodian-2 custodian-3".to_owned(), 2),
                ("alice", "custodian-4".to_owned(), 2),
                ("mallory", "custodian-4".to_owned(), 2),
            ]
        );
        assert_eq!(holds[0].reason.as_deref(), Some("forensics"));
        assert_eq!(holds[0].released_by, BTreeMap::from([(name("alice"), 1), (name("bob"), 2)]));
    }

    #[test]
    fn nobody_makes_the_list_long_or_the_need_large() {
        let flood = (0..200).map(|id| report(id, "alice", &[], &[])).collect();
        let large = HoldReport { need: 255, ..report(1, "carol", &[], &[]) };
        let one = report(1, "carol", &[], &[]);
        let beats = beats(vec![flood, vec![one.clone()], vec![large], vec![one]]);
        let holds = holds(&said(&beats));
        assert_eq!((holds.len(), holds[0].by.as_str(), holds[0].need), (HOLDS_REPORTED + 1, "carol", 2));
    }

    #[test]
    fn what_waits_is_put_together_and_the_ends_of_holds_are_left_to_the_holds() {
        let matter = Matter::Distrust { principal: name("custodian-3"), lift: false };
        let report = |by: &[&str]| WaitingReport {
            matter: matter.clone(),
            by: by.iter().map(|operator| name(operator)).collect(),
            need: 2,
        };
        let end = Matter::Release { hold: MessageId::from_bytes([1; 16]), sha256: String::new() };
        let mut beats = beats(vec![Vec::new(), Vec::new()]);
        beats[0].1.waiting = vec![report(&["alice"]), WaitingReport { matter: end, ..report(&["bob"]) }];
        beats[1].1.waiting = vec![report(&["alice"])];
        let waiting = waiting(&said(&beats));
        assert_eq!((waiting.len(), &waiting[0].matter, waiting[0].need), (1, &matter, 2));
        assert_eq!(waiting[0].by, BTreeMap::from([(name("alice"), 2)]));
        assert_eq!(names(&waiting[0].told_by), "custodian-1 custodian-2");
    }

    #[test]
    fn who_is_distrusted_is_sure_when_enough_others_say_so() {
        let mut beats = beats(vec![Vec::new(); 5]);
        for (who, by) in [("custodian-3", &[0, 1, 2][..]), ("sentinel-1", &[0, 1, 4]), ("custodian-1", &[4])] {
            by.iter().for_each(|i: &usize| beats[*i].1.distrusted.push(name(who)));
        }
        let told = distrusted(&said(&beats));
        assert_eq!(names(&told[&name("custodian-3")]), "custodian-1 custodian-2 custodian-3");
        assert_eq!(names(&surely(&told, 3)), "sentinel-1", "its own word is not among the three");
        assert_eq!(names(&surely(&told, 2)), "custodian-3 sentinel-1");
    }

    #[test]
    fn trust_roots_are_told_with_who_has_them() {
        let mut beats = beats(vec![Vec::new(); 3]);
        (beats[1].1.trust_version, beats[1].1.allowed_signers_sha256) = (2, "new\u{202e}".to_owned());
        let versions = trust_versions(&said(&beats));
        let told: Vec<_> =
            versions.iter().map(|v| (v.trust.version, v.trust.sha256.as_str(), names(&v.custodians))).collect();
        assert_eq!(told, [(0, "signers", "custodian-1 custodian-3".to_owned()), (2, "new ", "custodian-2".to_owned())]);
    }
}
