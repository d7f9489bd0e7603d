//! Drills in words: what came of one, and what of the latest asks for attention.

use super::{duration, moment};
use crate::id::NodeName;
use crate::message::{Canary, DrillReport, DrillResult, Phase, plain_text};
use crate::status::{ClusterStatus, DrillStatus};
use crate::time::Timestamp;

/// How a drill goes, or what came of it, without a full stop: "passed: open after 41 ms, objective 30.0 s".
pub fn drill_outcome(report: &DrillReport) -> String {
    let took = recovery_millis(report).map(|millis| format!("open after {}", duration(millis)));
    let objective = format!("objective {}", duration(report.objective_ms as f64));
    match (report.result, took) {
        (None, _) => format!("runs: {}", phase_in_words(report.phase)),
        (Some(result @ (DrillResult::Passed | DrillResult::Late)), Some(took)) => {
            format!("{}: {took}, {objective}", result.as_str())
        }
        (Some(result), _) => {
            let why = report.why.as_deref().map(plain_text);
            format!("{}: {}", result.as_str(), why.unwrap_or_else(|| unexplained(result, report).to_owned()))
        }
    }
}

/// The same as a sentence of its own.
pub fn drill_outcome_sentence(report: &DrillReport) -> String {
    format!("{}.", capitalised(&drill_outcome(report)).trim_end_matches('.'))
}

/// What a result means of which its conductor does not say why.
const fn unexplained(result: DrillResult, report: &DrillReport) -> &'static str {
    match result {
        DrillResult::Passed | DrillResult::Late => "how long it took is not said",
        DrillResult::Failed if report.opened_at.is_some() => "it was open again, and did not serve as before",
        DrillResult::Failed if report.people => "people did not have it opened in time",
        DrillResult::Failed => "it did not open while the intent held",
        DrillResult::Aborted => "it was ended early, which says nothing about the recovery",
        DrillResult::Refused => "it was not begun, and nothing was sealed",
        DrillResult::Interrupted => "its conductor went away in the middle, and nothing can be said about the time",
    }
}

/// That the sentinel's own eyes do not agree with a drill that passed.
pub const UNCONFIRMED: &str =
    "not confirmed: the sentinel did not see a drill of it, or heard no receipts that call it one";

/// That people had to approve the opening in a drill, whatever came of it.
pub const BY_PEOPLE: &str = "people had to approve it, as after a seal that nobody announced";

/// What was read through the node in a drill that is over: "kv/canary, read through the node as it was before".
pub fn canary_outcome(canary: &Canary) -> String {
    let read = match canary.same {
        Some(true) => "read through the node as it was before",
        Some(false) => "which read otherwise than before",
        None => "which was not read afterwards",
    };
    format!("{}, {read}", canary.path)
}

/// From the first sight of the node sealed to the first of it open, in milliseconds, by the conductor's steady clock.
pub fn recovery_millis(report: &DrillReport) -> Option<f64> {
    report.recovery_us.map(|us| us as f64 / 1_000.0)
}

/// The last drill in which the node was sealed to the end, and so said something about the cluster; none that passed unconfirmed.
pub fn last_telling_drill(cluster: &ClusterStatus) -> Option<&DrillStatus> {
    let telling = |drill: &&DrillStatus| {
        matches!(drill.report.result, Some(DrillResult::Passed | DrillResult::Late | DrillResult::Failed))
            && !drill.is_unconfirmed()
    };
    cluster.drills.iter().find(telling)
}

/// Whether a drill has the node sealed now, as its conductor tells. What custodians know of it counts for more.
pub(super) fn is_drilled(node: &NodeName, cluster: &ClusterStatus) -> bool {
    let has_it = |drill: &DrillStatus| {
        drill.report.node.as_ref() == Some(node) && matches!(drill.report.phase, Phase::Sealing | Phase::Sealed)
    };
    cluster.drills.iter().any(|drill| drill.report.result.is_none() && has_it(drill))
}

/// That one runs, and that the last one did not go well: sentences.
pub(super) fn doubts(cluster: &ClusterStatus, now: Timestamp) -> Vec<String> {
    let running = cluster.drills.iter().filter(|drill| drill.report.result.is_none()).map(|drill| {
        let node = drill.report.node.as_ref().map_or("a node", |node| node.as_str());
        format!(
            "A drill runs: {} has {node} sealed on purpose, to see it open again ({}).",
            drill.conductor,
            phase_in_words(drill.report.phase)
        )
    });
    let failed = last_telling_drill(cluster).filter(|drill| drill.report.result != Some(DrillResult::Passed));
    let failed = failed.map(|drill| {
        let node = drill.report.node.as_ref().map_or("a node", |node| node.as_str());
        let when = moment(drill.report.began_at, now);
        format!("The last drill ({node}, {when}) did not pass. {}", drill_outcome_sentence(&drill.report))
    });
    let last = cluster.drills.iter().find(|drill| drill.report.result.is_some());
    let unconfirmed = last.filter(|drill| drill.is_unconfirmed()).map(|drill| {
        let when = moment(drill.report.began_at, now);
        format!("{} says that a drill passed ({when}), which is {UNCONFIRMED}.", drill.conductor)
    });
    running.chain(failed).chain(unconfirmed).collect()
}

const fn phase_in_words(phase: Phase) -> &'static str {
    match phase {
        Phase::Preflight => "it is looked at whether it may be held",
        Phase::Announced => "custodians are asked whether they take it",
        Phase::Sealing => "the node is told to seal itself",
        Phase::Sealed => "the node is sealed",
        Phase::Open => "the node is open, and it is looked at whether it serves",
        Phase::Closed => "it is over",
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::super::Answer;
    use super::super::tests::{answer, judged};
    use super::*;

    /// A drill that is over.
    pub(in crate::verdict) fn over(result: DrillResult, recovery_us: Option<u64>) -> DrillReport {
        let recovery_us = recovery_us.map_or_else(|| json!({}), |us| json!({"recovery_us": us}));
        let drill = drill("closed", Some(result.as_str()), &recovery_us);
        serde_json::from_value(drill["report"].clone()).expect("a report")
    }

    fn drill(phase: &str, result: Option<&str>, more: &Value) -> Value {
        let at = "2026-11-24T09:00:00.000Z";
        let mut report = json!({
            "drill": "01".repeat(16), "slot": at, "node": "vault-2", "phase": phase, "began_at": at, "objective_ms": 30_000,
            "threshold": 3,
        });
        let fields = report.as_object_mut().expect("an object");
        fields.extend(result.map(|result| ("result".to_owned(), json!(result))));
        fields.extend(more.as_object().expect("an object").clone());
        json!({"conductor": "custodian-1", "issued_at": at, "heard_at": at, "report": report})
    }

    #[test]
    fn a_drill_that_runs_is_told_and_keeps_nobody_awake() {
        let mut answer = answer();
        let cluster = &mut answer["clusters"]["prod"];
        cluster["nodes"]["vault-2"]["seen"] = json!("sealed");
        cluster["nodes"]["vault-2"]["cause"] = json!("in-place");
        assert_eq!(judged(&answer).because, "vault-2 was sealed on purpose");
        answer["clusters"]["prod"]["drills"] = json!([drill("sealed", None, &json!({}))]);
        let verdict = judged(&answer);
        assert_eq!(verdict.answer, Answer::Yes);
        let told =
            "A drill runs: custodian-1 has vault-2 sealed on purpose, to see it open again (the node is sealed).";
        assert_eq!(verdict.doubts, ["1 of 2 nodes is not open.", told]);
        answer["clusters"]["prod"]["nodes"]["vault-2"]["marker"] = json!("2026-11-24T10:00:00.000Z");
        assert_eq!(judged(&answer).answer, Answer::No, "what custodians call a seal is one");
    }

    #[test]
    fn the_last_drill_that_told_anything_is_told_where_it_did_not_pass() {
        let late = drill("closed", Some("late"), &json!({"recovery_us": 41_200_000, "why": "the node opened later"}));
        let failed = drill("closed", Some("failed"), &json!({"why": "the node did not open while the intent held"}));
        let unseen = drill("closed", Some("passed"), &json!({"recovery_us": 41_200}));
        let mut passed = unseen.clone();
        passed["seen"] = json!(true);
        let refused = drill("closed", Some("refused"), &json!({"why": "a hold"}));
        let mut answer = answer();
        answer["clusters"]["prod"]["drills"] = json!([&unseen, &passed]);
        let doubts = judged(&answer).doubts;
        assert!(
            matches!(&doubts[..], [doubt] if doubt.starts_with("custodian-1 says that a drill passed")),
            "{doubts:?}"
        );
        let start = "The last drill (vault-2, today 09:00) did not pass. ";
        for (drills, told) in [
            (vec![&refused, &late], Some("Late: open after 41.2 s, objective 30.0 s.")),
            (vec![&refused, &failed, &passed], Some("Failed: the node did not open while the intent held.")),
            (vec![&passed, &failed], None),
            (vec![&refused], None),
        ] {
            answer["clusters"]["prod"]["drills"] = json!(drills);
            let expected: Vec<_> = told.map(|told| format!("{start}{told}")).into_iter().collect();
            assert_eq!(judged(&answer).doubts, expected);
        }
    }
}
