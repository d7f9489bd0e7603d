//! What is said of a cluster in each state that it can be in.

use serde_json::{Value, json};

use super::*;

/// A sentinel's answer about a cluster of two nodes and five custodians at rest.
pub(super) fn answer() -> Value {
    let node = || {
        json!({
            "url": "https://127.0.0.1:8200", "seen": "open", "since": "2026-11-22T10:00:00.000Z", "cause": null, "needs": [],
            "marker": null, "ready": 5, "certificate_not_after": "2027-11-22T00:00:00.000Z", "shared_address": false,
            "identity_refused": null,
        })
    };
    let custodian =
        || json!({"heard_at": "2026-11-24T10:00:05.000Z", "up": true, "ready": true, "site": null, "heartbeat": null});
    let submission = |x: u8, result: &str| {
        json!({"custodian": format!("custodian-{x}"), "incident": "00".repeat(16), "x": x, "result": result,
               "nonce": "a", "answered_at": "2026-11-24T07:45:00.000Z"})
    };
    let incident = json!({
        "node": "vault-1", "began_at": "2026-11-24T07:44:59.000Z", "sealed_at": "2026-11-24T07:45:00.000Z", "cause": "restart",
        "opened_at": "2026-11-24T07:45:00.041Z", "open_after_ms": 41.2,
        "submissions": [submission(1, "counted"), submission(2, "counted"), submission(3, "opened")], "refusals": [],
    });
    json!({
        "sentinel": "sentinel-1", "version": "0", "at": "2026-11-24T10:00:10.000Z", "broker_up": true,
        "started_at": "2026-11-22T09:00:00.000Z",
        "clusters": {"prod": {
            "id": "00".repeat(16), "shares": 5, "threshold": 3, "ready": 5, "margin": 2, "margin_without_largest_site": 1,
            "diverged": false, "generation_mismatch": false, "nodes": {"vault-1": node(), "vault-2": node()},
            "custodians": (1..=5).map(|i| (format!("custodian-{i}"), custodian())).collect::<serde_json::Map<_, _>>(),
            "approvals": [], "incidents": [incident],
        }},
    })
}

pub(super) fn judged(answer: &Value) -> Verdict {
    let status: Status = serde_json::from_value(answer.clone()).expect("a status");
    Verdict::of(&status.clusters[&"prod".parse().expect("a name")], &status)
}

/// The node sealed, and this many custodians waiting for that.
pub(super) fn sealed(answer: &mut Value, needs: &[(&str, u32)]) {
    let node = &mut answer["clusters"]["prod"]["nodes"]["vault-1"];
    node["seen"] = json!("sealed");
    node["needs"] = needs.iter().map(|(what, many)| json!([{"what": what, "have": 0, "need": 2}, many])).collect();
    if let Some(list) = node["needs"].as_array_mut() {
        for need in list.iter_mut().filter(|need| need[0]["what"] != "approvals") {
            need[0] = json!({"what": need[0]["what"]});
        }
    }
}

#[test]
fn at_rest_the_answer_is_yes_and_says_when_that_was_last_proven() {
    let verdict = judged(&answer());
    assert_eq!(verdict.to_string(), "Yes: 5 ready, 3 needed; last proven today 07:45, 41 ms");
    assert!(verdict.is_calm(), "{verdict:?}");
    assert_eq!(
        headline(&"prod".parse().expect("a name"), &verdict),
        "Would prod open by itself now? Yes: 5 ready, 3 needed; last proven today 07:45, 41 ms."
    );
    let mut approved = answer();
    approved["clusters"]["prod"]["incidents"][0]["submissions"][0]["approvals"] = json!(["00".repeat(16)]);
    assert!(judged(&approved).because.ends_with("never proven yet by an opening without people"), "people opened it");
}

#[test]
fn a_suspect_is_named_with_those_that_it_may_as_well_be() {
    let mut answer = answer();
    answer["clusters"]["prod"]["custodians"]["custodian-3"]["share_suspect"] = json!("2026-11-24T07:45:00.000Z");
    let one = "The share of custodian-3 is suspect: in a set that did not fit (today 07:45), and in none since that opened a node.";
    assert_eq!(judged(&answer).doubts, [one]);
    answer["clusters"]["prod"]["custodians"]["custodian-5"]["share_suspect"] = json!("2026-11-24T09:45:00.000Z");
    assert!(judged(&answer).doubts[0].starts_with("The shares of custodian-3, custodian-5 are suspect: "));
}

#[test]
fn a_node_that_is_kept_shut_makes_it_no_and_one_that_is_being_opened_does_not() {
    for (needs, expected) in [
        (&[("approvals", 5)][..], "No: vault-1 waits for approvals, 0 of 2"),
        (&[("approvals", 3), ("others", 2)], "No: vault-1 waits for approvals, 0 of 2"),
        (&[("policy", 5)], "No: vault-1 waits for the policy, which says hold"),
        (&[("budget", 4)], "No: vault-1 waits for the budget of automatic openings"),
        (&[("generation", 5)], "No: vault-1 waits for shares that fit: every set was tried"),
        (&[("others", 5)], "Yes: "),
        (&[("others", 3), ("approvals", 2)], "Yes: "),
        (&[("evidence", 5)], "Yes: "),
        (&[], "Yes: "),
    ] {
        let mut answer = answer();
        sealed(&mut answer, needs);
        let verdict = judged(&answer);
        assert!(verdict.to_string().starts_with(expected), "{needs:?}: {verdict}");
        assert_eq!(verdict.doubts, ["1 of 2 nodes is not open."]);
    }
    // Custodians without a sound share are not counted as ready in the first place.
    let mut unsound = answer();
    sealed(&mut unsound, &[("others", 3), ("share", 2)]);
    unsound["clusters"]["prod"]["nodes"]["vault-1"]["ready"] = json!(3);
    assert_eq!(judged(&unsound).answer, Answer::Yes);

    let mut marked = answer();
    sealed(&mut marked, &[("approvals", 5)]);
    marked["clusters"]["prod"]["nodes"]["vault-1"]["marker"] = json!("2026-11-24T09:00:00.000Z");
    assert_eq!(judged(&marked).to_string(), "No: vault-1 was sealed on purpose and waits for approvals, 0 of 2");
    sealed(&mut marked, &[("contact", 5)]);
    marked["clusters"]["prod"]["nodes"]["vault-1"]["seen"] = json!("lost");
    assert_eq!(judged(&marked).to_string(), "No: vault-1 was sealed on purpose", "and is down now");
    sealed(&mut marked, &[("others", 5)]);
    assert_eq!(judged(&marked).answer, Answer::Yes, "the policy opens it all the same");
    let mut only_seen = answer();
    sealed(&mut only_seen, &[]);
    only_seen["clusters"]["prod"]["nodes"]["vault-1"]["cause"] = json!("in-place");
    assert_eq!(judged(&only_seen).to_string(), "No: vault-1 was sealed on purpose", "before custodians have told");
    only_seen["clusters"]["prod"]["nodes"]["vault-1"]["seen"] = json!("open");
    assert_eq!(judged(&only_seen).answer, Answer::Yes, "and not once it is open");
}

#[test]
fn what_the_sentinel_alone_saw_being_sealed_has_a_command_too() {
    let mut unheard = answer();
    sealed(&mut unheard, &[]);
    unheard["clusters"]["prod"]["nodes"]["vault-1"]["cause"] = json!("in-place");
    let status: Status = serde_json::from_value(unheard).expect("a status");
    let (name, node) = ("prod".parse().expect("a name"), "vault-1".parse().expect("a name"));
    let all = advice(&name, &node, &status.clusters[&name], status.at, "");
    assert!(all[0].what.contains("was sealed on purpose, as the sentinel saw"), "{all:?}");
    assert_eq!(all[1].command.as_deref(), Some("holdfast approve --cluster prod --node vault-1"), "{all:?}");
}

#[test]
fn whatever_an_approval_opens_has_a_command() {
    let commands = |answer: &Value| {
        let status: Status = serde_json::from_value(answer.clone()).expect("a status");
        let (name, node) = ("prod".parse().expect("a name"), "vault-1".parse().expect("a name"));
        let all = advice(&name, &node, &status.clusters[&name], status.at, " --config o.toml").into_iter();
        all.filter_map(|advice| Some((advice.what, advice.command?))).collect::<Vec<_>>()
    };
    for (needs, what) in [
        (&[("approvals", 5)][..], Some("To open vault-1, an operator types:")),
        (&[("budget", 4), ("approvals", 1)], Some("To open vault-1, an operator types:")),
        (&[("budget", 5)], Some("vault-1 has used up its automatic openings of this hour")),
        (&[("generation", 5)], Some("Every set of shares was tried, and none opened vault-1")),
        (&[("policy", 5)], None),
        (&[("share", 5)], None),
        (&[("others", 5)], None),
        (&[("contact", 5)], None),
    ] {
        let mut answer = answer();
        sealed(&mut answer, needs);
        match (commands(&answer).as_slice(), what) {
            ([], None) => {}
            ([(said, command)], Some(what)) => {
                assert!(said.starts_with(what) && said.ends_with("types:"), "{needs:?}: {said}");
                assert_eq!(command, "holdfast approve --config o.toml --cluster prod --node vault-1");
            }
            (said, _) => panic!("{needs:?}: {said:?}"),
        }
    }
    let mut marked = answer();
    sealed(&mut marked, &[("contact", 5)]);
    marked["clusters"]["prod"]["nodes"]["vault-1"]["marker"] = json!("2026-11-24T09:00:00.000Z");
    marked["clusters"]["prod"]["nodes"]["vault-1"]["seen"] = json!("lost");
    assert!(commands(&marked)[0].0.starts_with("Start vault-1; to open it then, operators type:"));
    sealed(&mut marked, &[]);
    assert_eq!(commands(&marked)[0].0, "To open vault-1, operators type:", "before custodians have told");
    sealed(&mut marked, &[("policy", 5)]);
    assert!(commands(&marked).is_empty(), "no approval opens what the policy holds");
    marked["clusters"]["prod"]["nodes"]["vault-1"]["seen"] = json!("open");
    assert!(commands(&marked).is_empty());
}

#[test]
fn a_budget_that_is_spent_is_told_with_when_there_is_more() {
    let heartbeat = |left: u32, frees_at: Option<&str>| {
        let mut node = json!({"seen": "open", "since": "2026-11-24T10:00:00.000Z", "ready": true, "budget_remaining": left,
                              "shared_address": false, "restart_provable": true});
        if let Some(at) = frees_at {
            node["budget_frees_at"] = json!(at);
        }
        json!({"version": "0", "started_at": "2026-11-24T10:00:00.000Z", "share": {"generation": 1, "x": 1, "ok": true},
               "threshold": 3, "sandboxed": true, "clock_synchronised": true, "audit": {"seq": 1, "head": "", "ok": true},
               "policy_sha256": "", "allowed_signers_sha256": "", "rejected": {}, "submissions": {},
               "nodes": {"vault-1": node}})
    };
    let spent_at = |times: &[&str]| {
        let mut answer = answer();
        for i in 1..=5 {
            let beat = times.get(i - 1).map_or_else(|| heartbeat(3, None), |at| heartbeat(0, Some(at)));
            answer["clusters"]["prod"]["custodians"][format!("custodian-{i}")]["heartbeat"] = beat;
        }
        answer
    };
    assert_eq!(judged(&spent_at(&["2026-11-24T10:40:00.000Z"; 2])).answer, Answer::Yes, "three have some left");
    let times = ["2026-11-24T10:50:00.000Z", "2026-11-24T10:40:00.000Z", "2026-11-24T10:45:00.000Z"];
    let mut answer = spent_at(&times);
    assert_eq!(judged(&answer).to_string(), "No: vault-1 has used up the automatic openings of this hour");
    let status: Status = serde_json::from_value(answer.clone()).expect("a status");
    let (name, node) = ("prod".parse().expect("a name"), "vault-1".parse().expect("a name"));
    assert_eq!(budget(&node, &status.clusters[&name]), Some((0, 3)));

    sealed(&mut answer, &[("budget", 5)]);
    let said = |answer: &Value| {
        let status: Status = serde_json::from_value(answer.clone()).expect("a status");
        advice(&name, &node, &status.clusters[&name], status.at, "").swap_remove(0).what
    };
    let words = said(&answer);
    // The first of the three frees a third custodian.
    assert!(
        words.contains("Custodians open it by themselves again today 10:40. An approval opens it meanwhile and"),
        "{words}"
    );
    answer["clusters"]["prod"]["custodians"]["custodian-4"]["up"] = json!(false);
    answer["clusters"]["prod"]["custodians"]["custodian-5"]["up"] = json!(false);
    assert!(said(&answer).contains("again today 10:50."), "all three are needed");
}

#[test]
fn a_restart_that_could_not_be_told_from_a_seal_would_wait_for_people() {
    let mut answer = answer();
    let node = |provable: bool| {
        json!({"seen": "open", "since": "2026-11-24T10:00:00.000Z", "ready": true, "budget_remaining": 12,
               "shared_address": false, "restart_provable": provable})
    };
    let heartbeat = |provable: bool| {
        json!({"version": "0", "started_at": "2026-11-24T10:00:00.000Z", "share": {"generation": 1, "x": 1, "ok": true},
               "threshold": 3, "sandboxed": true, "clock_synchronised": true, "audit": {"seq": 1, "head": "", "ok": true},
               "policy_sha256": "", "allowed_signers_sha256": "", "rejected": {}, "submissions": {},
               "nodes": {"vault-1": node(provable), "vault-2": node(true)}})
    };
    for (blind, expected) in [(2, Answer::Yes), (3, Answer::No)] {
        for i in 1..=5 {
            let custodian = &mut answer["clusters"]["prod"]["custodians"][format!("custodian-{i}")];
            custodian["heartbeat"] = heartbeat(i > blind);
        }
        let verdict = judged(&answer);
        assert_eq!(verdict.answer, expected, "{verdict}");
        assert_eq!(
            verdict.because.starts_with("too few custodians could tell a restart of vault-1 from"),
            expected == Answer::No
        );
    }
}

#[test]
fn too_few_custodians_is_no_and_hearing_nobody_is_unknown() {
    let mut few = answer();
    few["clusters"]["prod"]["ready"] = json!(2);
    few["clusters"]["prod"]["margin"] = json!(-1);
    assert_eq!(judged(&few).to_string(), "No: 2 ready, 3 needed, margin -1");
    few["broker_up"] = json!(false);
    few["broker_trouble"] = json!("refused\u{202e}\n");
    let verdict = judged(&few);
    assert_eq!(
        verdict.to_string(),
        "Unknown: the sentinel hears 5 of 5 custodians: it has no connection to the broker"
    );
    assert!(verdict.doubts[0].contains("(refused  )"), "{verdict:?}");
    few["broker_up"] = json!(null);
    assert!(judged(&few).to_string().starts_with("Unknown: the sentinel hears 5 of 5 custodians: it has no broker"));
    few["broker_up"] = json!(true);
    few["started_at"] = json!("2026-11-24T10:00:00.000Z");
    assert_eq!(judged(&few).answer, Answer::No, "all were heard");
    few["clusters"]["prod"]["custodians"]["custodian-1"]["up"] = json!(false);
    assert_eq!(judged(&few).to_string(), "Unknown: the sentinel hears 4 of 5 custodians: it started 10 s ago");
    sealed(&mut few, &[("approvals", 4)]);
    assert_eq!(judged(&few).answer, Answer::No, "what is known to be shut is known");
}

#[test]
fn what_is_doubtful_is_said_and_disturbs_the_calm() {
    for (pointer, value, part) in [
        ("/broker_up", json!(false), "no connection to the broker"),
        ("/broker_trouble", json!("the queue q cannot be read"), "The broker: the queue q"),
        ("/history_trouble", json!("disk full"), "not written down: disk full"),
        ("/clusters/prod/min_unsealed", json!(3), "At least 3 should be open"),
        ("/clusters/prod/margin_without_largest_site", json!(-1), "if the site were lost"),
        ("/clusters/prod/generation_mismatch", json!(true), "the generation that the manifest names"),
        ("/clusters/prod/diverged", json!(true), "the same policy and trust root"),
        ("/clusters/prod/custodians/custodian-1/ready", json!(false), "custodian-1 is not ready."),
        (
            "/clusters/prod/nodes/vault-2/certificate_not_after",
            json!("2026-11-30T00:00:00.000Z"),
            "The certificate of vault-2 expires soon: 2026-11-30.",
        ),
        (
            "/clusters/prod/nodes/vault-2/certificate_not_after",
            json!("2026-11-23T12:00:00.000Z"),
            "The certificate of vault-2 expired yesterday 12:00.",
        ),
    ] {
        let mut answer = answer();
        for (name, default) in [("broker_trouble", json!(null)), ("history_trouble", json!(null))] {
            answer[name] = default;
        }
        answer["clusters"]["prod"]["min_unsealed"] = json!(1);
        *answer.pointer_mut(pointer).expect(pointer) = value;
        let verdict = judged(&answer);
        assert_eq!(verdict.doubts.len(), 1, "{verdict:?}");
        assert!(verdict.doubts[0].contains(part) && !verdict.is_calm(), "{part}: {verdict:?}");
    }
}

#[test]
fn what_is_wrong_with_an_audit_log_is_said_and_who_says_so() {
    let heartbeat = |audit: Value| {
        json!({"version": "0", "started_at": "2026-11-24T10:00:00.000Z", "share": {"generation": 1, "x": 1, "ok": true},
               "threshold": 3, "sandboxed": true, "clock_synchronised": true, "audit": audit,
               "policy_sha256": "", "allowed_signers_sha256": "", "rejected": {}, "submissions": {}, "nodes": {}})
    };
    let witness = |doubt: Value| json!({"seq": 9, "head": "", "issued_at": "2026-11-24T10:00:00.000Z", "doubt": doubt});
    let well = json!({"seq": 9, "head": "", "ok": true});
    let at = "2026-11-24T09:00:00.000Z";
    for (audit, doubt, part) in [
        (json!({"seq": 9, "head": "", "ok": false}), Value::Null, "cannot write its audit log"),
        (json!({"seq": 9, "head": "", "ok": false, "broken": 3}), Value::Null, "entry 3 was changed"),
        (
            well.clone(),
            json!({"at": at, "what": "shorter", "told": 12, "told_head": "", "now": 4}),
            "told of 12 entries in its audit log, and then (today 09:00) of 4",
        ),
        (well.clone(), json!({"at": at, "what": "otherwise", "entry": 4, "told_head": ""}), "another one"),
        (well.clone(), json!({"at": at, "what": "broken", "entry": 4}), "found (today 09:00) that entry 4"),
    ] {
        let mut answer = answer();
        let custodian = &mut answer["clusters"]["prod"]["custodians"]["custodian-2"];
        (custodian["heartbeat"], custodian["audit"]) = (heartbeat(audit), witness(doubt));
        let doubts = judged(&answer).doubts;
        assert!(doubts.iter().any(|said| said.contains("custodian-2") && said.contains(part)), "{part}: {doubts:?}");
    }
}

#[test]
fn times_are_said_as_people_say_them() {
    let now: Timestamp = "2026-11-24T10:00:00.000Z".parse().expect("a time");
    for (at, expected) in [
        ("2026-11-24T00:00:00.000Z", "today 00:00"),
        ("2026-11-23T23:59:59.000Z", "yesterday 23:59"),
        ("2026-11-18T08:30:00.000Z", "Wednesday 08:30"),
        ("2026-11-17T08:30:00.000Z", "2026-11-17"),
        ("2027-01-01T00:00:00.000Z", "2027-01-01"),
    ] {
        assert_eq!(moment(at.parse().expect("a time"), now), expected);
    }
    assert!(moment(Timestamp::from_millis(i64::MAX), now).contains("out of range"));
    let said: Vec<_> = [3.26, 41.2, 12_345.0, 240_000.0, f64::INFINITY].map(duration).into();
    assert_eq!(said[..4], ["3.3 ms", "41 ms", "12.3 s", "4 min"]);
}

#[test]
fn why_a_custodian_is_not_ready_names_the_nodes_or_that_some_are_not_served() {
    let mut answer = answer();
    let custodian = answer.pointer_mut("/clusters/prod/custodians/custodian-1").expect("there");
    custodian["ready"] = json!(false);
    custodian["heartbeat"] = json!({
        "version": "0.1.0", "started_at": "2026-11-24T07:00:00.000Z", "share": {"generation": 1, "ok": true}, "threshold": 3,
        "sandboxed": true, "clock_synchronised": true, "audit": {"seq": 1, "head": "00".repeat(32), "ok": true},
        "policy_sha256": "00".repeat(32), "allowed_signers_sha256": "00".repeat(32), "nodes": {}, "rejected": {},
        "submissions": {},
    });
    let status: Status = serde_json::from_value(answer).expect("a status");
    let cluster = &status.clusters[&"prod".parse().expect("a name")];
    let why = |name: &str| unready(&cluster.custodians[&name.parse().expect("a name")]);
    assert_eq!(why("custodian-1").as_deref(), Some("it does not serve every node"));
    assert_eq!(why("custodian-2"), None);
}
