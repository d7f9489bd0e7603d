//! What is said of holds, of what waits for operators and of whose word counts, in each state that these can be in.

use serde_json::{Value, json};

use super::*;
use crate::verdict::tests::{answer, judged, sealed};
use crate::verdict::{Answer, advice};

/// A hold that these custodians obey.
fn hold(nodes: &[&str], obeyed_by: &[u8], released_by: &[&str]) -> Value {
    let released: serde_json::Map<_, _> =
        released_by.iter().map(|operator| ((*operator).to_owned(), json!(obeyed_by.len()))).collect();
    json!({"id": "3f".repeat(16), "by": "carol", "held_at": "2026-11-24T09:02:00.000Z", "nodes": nodes, "reason": "forensics",
           "released_by": released, "need": 2,
           "obeyed_by": obeyed_by.iter().map(|i| format!("custodian-{i}")).collect::<Vec<_>>()})
}

/// The cluster with this hold; so many custodians are ready for each node, and so many of these obey none.
fn held(hold: Value, ready_unheld: u32) -> Value {
    let mut answer = answer();
    let cluster = &mut answer["clusters"]["prod"];
    for node in ["vault-1", "vault-2"] {
        let of_all = hold["nodes"].as_array().is_some_and(|nodes| nodes.is_empty() || nodes.contains(&json!(node)));
        cluster["nodes"][node]["ready_unheld"] = json!(if of_all { ready_unheld } else { 5 });
    }
    cluster["holds"] = json!([hold]);
    answer
}

fn ordered(answer: &Value) -> Vec<Advice> {
    let status: Status = serde_json::from_value(answer.clone()).expect("a status");
    let name = "prod".parse().expect("a name");
    orders_advice(&name, &status.clusters[&name], status.at, " --config o.toml")
}

#[test]
fn a_hold_that_leaves_too_few_is_the_answer_and_one_that_leaves_enough_is_a_doubt() {
    let whole = held(hold(&[], &[1, 2, 3, 4, 5], &[]), 0);
    let verdict = judged(&whole);
    assert_eq!(verdict.to_string(), "No: held since today 09:02 by carol: “forensics”");
    assert!(verdict.doubts.is_empty(), "every custodian obeys: {verdict:?}");

    let three = judged(&held(hold(&["vault-1"], &[1, 2, 3], &[]), 2));
    assert_eq!(three.to_string(), "No: vault-1 is held since today 09:02 by carol: “forensics”");
    assert!(three.doubts.is_empty(), "nobody else is heard to obey none: {three:?}");

    let two = judged(&held(hold(&["vault-1"], &[1, 2], &[]), 3));
    assert_eq!(two.answer, Answer::Yes, "{two}");
}

#[test]
fn who_does_not_obey_is_named_and_a_made_up_hold_is_told_with_who_made_it_up() {
    let heartbeats = |answer: &mut Value| {
        for i in 1..=5 {
            answer["clusters"]["prod"]["custodians"][format!("custodian-{i}")]["heartbeat"] = beat();
        }
    };
    let mut whole = held(hold(&[], &[1, 2, 3, 4], &[]), 1);
    heartbeats(&mut whole);
    let verdict = judged(&whole);
    assert!(
        verdict.doubts[0].starts_with("custodian-5 does not obey a hold by carol of all nodes: it has"),
        "{verdict:?}"
    );

    let mut made_up = held(hold(&["vault-1", "vault-2"], &[3], &[]), 4);
    heartbeats(&mut made_up);
    let verdict = judged(&made_up);
    assert_eq!(verdict.answer, Answer::Yes, "one custodian keeps nothing shut: {verdict}");
    assert!(verdict.doubts[0].starts_with("custodian-3 alone says that it obeys a hold by carol of vault-1, vault-2:"));
    let commands: Vec<_> = ordered(&made_up).into_iter().filter_map(|advice| advice.command).collect();
    assert_eq!(commands[1], "holdfast distrust --config o.toml --cluster prod custodian-3");

    // Where others are silent, its word is what there is, and whose it is is said.
    made_up["clusters"]["prod"]["nodes"]["vault-1"]["ready_unheld"] = json!(2);
    let words = judged(&made_up).to_string();
    assert!(words.ends_with("by carol: “forensics”, as custodian-3 alone says"), "{words}");
}

/// A heartbeat of a custodian that tells of all holds that it obeys.
fn beat() -> Value {
    json!({"version": "0", "started_at": "2026-11-24T10:00:00.000Z", "share": {"generation": 1, "x": 1, "ok": true},
           "threshold": 3, "sandboxed": true, "clock_synchronised": true, "audit": {"seq": 1, "head": "", "ok": true},
           "policy_sha256": "", "allowed_signers_sha256": "", "rejected": {}, "submissions": {}, "nodes": {}})
}

#[test]
fn the_end_of_a_hold_has_a_command_and_says_who_has_joined() {
    let told =
        |released_by: &[&str]| ordered(&held(hold(&["vault-1"], &[1, 2, 3, 4, 5], released_by), 0)).swap_remove(0);
    let first = told(&[]);
    assert_eq!(
        first.what,
        "carol holds vault-1 since today 09:02: “forensics”. 5 of 5 custodians obey. It takes 2 operators to end it, and \
         nobody has released it so far. To end it, operators type:"
    );
    let command = format!("holdfast release --config o.toml --cluster prod --hold {}", "3f".repeat(16));
    assert_eq!(first.command, Some(command));
    let second = told(&["bob"]).what;
    assert!(second.ends_with("released so far by bob. To end it, another operator types:"), "{second}");
    let mut partly = held(hold(&[], &[1, 2, 3, 4, 5], &["bob"]), 0);
    partly["clusters"]["prod"]["holds"][0]["released_by"]["bob"] = json!(2);
    let words = ordered(&partly).swap_remove(0).what;
    assert!(words.contains("released so far by bob (as 2 of 5 custodians have heard)."), "{words}");
}

#[test]
fn a_node_that_is_held_has_no_approval_to_type_and_keeps_its_marker() {
    let mut answer = held(hold(&["vault-1"], &[1, 2, 3, 4, 5], &[]), 0);
    sealed(&mut answer, &[("hold", 5)]);
    let node = &mut answer["clusters"]["prod"]["nodes"]["vault-1"];
    node["marker"] = json!("2026-11-24T09:00:00.000Z");
    node["marker_by"] = json!(["custodian-1", "sentinel-1"]);
    node["in_flight"] = json!(["custodian-2"]);
    let status: Status = serde_json::from_value(answer.clone()).expect("a status");
    let (name, vault) = ("prod".parse().expect("a name"), "vault-1".parse().expect("a name"));
    let said = advice(&name, &vault, &status.clusters[&name], status.at, "");
    assert!(said[0].what.contains("(seen at 2026-11-24T09:00:00.000Z by custodian-1, sentinel-1)"), "{said:?}");
    assert!(said.iter().all(|advice| advice.command.is_none()), "{said:?}");
    assert!(said[1].what.starts_with("vault-1 stays shut while it is held"), "{said:?}");
    let verdict = judged(&answer);
    assert_eq!(verdict.because, "vault-1 is held since today 09:02 by carol: “forensics”", "and that once");
    assert!(
        verdict
            .doubts
            .contains(&"The share of custodian-2 may still be in vault-1: it is being called back.".to_owned()),
        "{verdict:?}"
    );
    answer["clusters"]["prod"]["nodes"]["vault-1"]["seen"] = json!("open");
    assert!(!judged(&answer).doubts.iter().any(|doubt| doubt.contains("called back")));
}

#[test]
fn what_waits_for_operators_is_told_with_what_to_type() {
    let mut answer = answer();
    let matter = |matter: Value, by: &[&str], told_by: &[u8]| {
        let by: serde_json::Map<_, _> = by.iter().map(|name| ((*name).to_owned(), json!(told_by.len()))).collect();
        json!({"matter": matter, "by": by, "need": 2,
               "told_by": told_by.iter().map(|i| format!("custodian-{i}")).collect::<Vec<_>>()})
    };
    let distrust = json!({"what": "distrust", "principal": "sentinel-1", "lift": false});
    let lift = json!({"what": "distrust", "principal": "custodian-3", "lift": true});
    let trust = json!({"what": "trust", "version": 3, "previous_sha256": "00", "sha256": "ab\u{202e}cd"});
    answer["clusters"]["prod"]["waiting"] = json!([
        matter(distrust, &["alice"], &[1, 2, 3, 4, 5]),
        matter(trust, &["bob"], &[1, 2, 3, 4, 5]),
        matter(lift, &["mallory"], &[3]),
    ]);
    let said = ordered(&answer);
    let commands: Vec<_> = said.iter().filter_map(|advice| advice.command.as_deref()).collect();
    assert_eq!(
        commands,
        [
            "holdfast distrust --config o.toml --cluster prod sentinel-1",
            "holdfast trust --config o.toml --cluster prod --number 3 FILE",
            "holdfast distrust --config o.toml --cluster prod custodian-3 --lift",
        ]
    );
    assert_eq!(
        said[0].what,
        "alice wants that the word of sentinel-1 counts for nothing. It takes 2 operators, within 15 min of each other. If you \
         want it too, another operator types:"
    );
    assert!(said[1].what.contains("as version 3 (compare its sha256sum, ab cd)"), "{}", said[1].what);
    assert!(said[2].what.contains("(custodian-3 alone says so)"), "{}", said[2].what);
    let verdict = judged(&answer);
    assert!(verdict.doubts == ["3 orders wait for more operators."] && !verdict.is_calm(), "{verdict:?}");
}

#[test]
fn whose_word_counts_for_nothing_is_said_and_by_how_many() {
    let mut answer = answer();
    answer["clusters"]["prod"]["distrusted"] = json!({
        "custodian-2": ["custodian-1", "custodian-3", "custodian-4"],
        "custodian-4": ["custodian-2"],
        "sentinel-1": ["custodian-1", "custodian-3", "custodian-4", "custodian-5"],
    });
    let doubts = judged(&answer).doubts;
    assert_eq!(
        doubts,
        [
            "Operators have ordered that the word of custodian-2 counts for nothing (3 of 5 custodians say so).",
            "custodian-2 alone of the custodians would have it that the word of custodian-4 counts for nothing.",
            "Operators have ordered that the word of this sentinel counts for nothing (4 of 5 custodians say so).",
        ]
    );
}

#[test]
fn a_sentinel_that_judges_by_another_trust_root_says_so() {
    let mut answer = answer();
    let cluster = &mut answer["clusters"]["prod"];
    cluster["trust"] = json!({"version": 0, "sha256": "ab".repeat(32)});
    cluster["trust_versions"] = json!([
        {"version": 2, "sha256": "cd".repeat(32), "custodians": ["custodian-1", "custodian-2", "custodian-3"]},
        {"version": 0, "sha256": "ab".repeat(32), "custodians": ["custodian-4"]},
    ]);
    assert_eq!(
        judged(&answer).doubts,
        ["custodian-1, custodian-2, custodian-3 judge by another trust root than the sentinel: version 2 (sha256 \
          cdcdcdcdcdcdcdcd…) there, the configured file (sha256 abababababababab…) here."]
    );
    answer["clusters"]["prod"]["trust"]["sha256"] = json!("cd".repeat(32));
    assert!(judged(&answer).is_calm(), "that of most: the other is the custodians' own divergence");
}

#[test]
fn names_are_told_as_far_as_a_sentence_bears() {
    let many: BTreeSet<_> = (1..=7).collect();
    assert_eq!(names(&many), "1, 2, 3, 4, 5 and 2 more");
    assert_eq!(names(&BTreeSet::from(["a"])), "a");
}
