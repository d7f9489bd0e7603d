//! Reports of drills: which are believed, and what is made of them, to the letter.

use std::process::{Command, Stdio};

use holdfast_core::id::{ClusterId, ClusterName};
use holdfast_core::message::{Content, DrillReport};
use holdfast_core::time::Timestamp;
use holdfast_core::trust::AllowedSigners;
use holdfast_edge::keys::SigningKey;
use holdfast_edge::outgoing::seal_message;
use serde_json::{Value, json};

use super::evidence::{Evidence, Refused, save};
use super::report::{Trend, how_to_verify, text};
use super::{markdown, page};

const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);

/// What somebody might write who is not our friend; as long as a receiver takes it.
const HOSTILE: &str = "\"><script>alert(1)</script>|`x`[a](b)*&amp;";

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn at(millis: u32) -> String {
    format!("2026-11-24T10:00:{:02}.{:03}Z", millis / 1000, millis % 1000)
}

/// A drill as a conductor tells of it: custodian-3 was last, custodian-4 stood by, custodian-5 declined.
fn passed() -> Value {
    let response = |x: u8, result: &str, submitted: u32, answered: u32| json!({"x": x, "result": result, "sealed_seen_at": at(2_002), "submitted_at": at(submitted), "answered_at": at(answered)});
    json!({
        "drill": "2f".repeat(16), "slot": "2026-11-24T10:00:00.000Z", "node": "vault-2", "phase": "closed", "result": "passed",
        "began_at": at(0), "announced_at": at(1_000), "seal_sent_at": at(1_995), "sealed_at": at(2_000), "opened_at": at(2_041),
        "served_at": at(3_245), "closed_at": at(4_300), "recovery_us": 41_200, "objective_ms": 30_000, "before": "standby",
        "after": "standby", "threshold": 3, "submitters": ["custodian-1", "custodian-2", "custodian-3"],
        "taken_by": ["custodian-1", "custodian-2", "custodian-3", "custodian-4"],
        "declined": {"custodian-5": "no drill window is open"},
        "responses": {"custodian-1": response(11, "counted", 2_004, 2_015), "custodian-2": response(22, "counted", 2_005, 2_021),
                      "custodian-3": response(33, "opened", 2_006, 2_040)},
        "intent": "3a".repeat(16),
    })
}

struct Conductor {
    key: SigningKey,
    signers: AllowedSigners,
    signers_text: String,
}

impl Conductor {
    fn new() -> Self {
        let key = SigningKey::generate().expect("random numbers");
        let signers_text =
            format!("custodian-1 namespaces=\"holdfast.report,holdfast.intent\" {}\n", key.public_openssh(""));
        Self { key, signers: AllowedSigners::parse(&signers_text).expect("a trust root"), signers_text }
    }

    fn sign(&self, report: &Value) -> Vec<u8> {
        let report: DrillReport = serde_json::from_value(report.clone()).expect("a report");
        let content = Content::DrillReport(Box::new(report));
        let from = "custodian-1".parse().expect("a name");
        seal_message(&self.key, &from, CLUSTER, content, time("2026-11-24T10:00:04.301Z"), None).expect("signed").1
    }

    fn verify(&self, envelope: &[u8]) -> Result<Evidence, Refused> {
        let name: ClusterName = "prod".parse().expect("a name");
        Evidence::verify(envelope, (&name, CLUSTER), &self.signers, time("2026-11-25T10:00:00.000Z"))
    }

    fn evidence(&self, report: &Value) -> Evidence {
        self.verify(&self.sign(report)).expect("it verifies")
    }
}

fn with(changes: &Value) -> Value {
    let mut report = passed();
    for (name, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => drop(report.as_object_mut().expect("an object").remove(name)),
            value => report[name] = value.clone(),
        }
    }
    report
}

fn alone(evidence: &Evidence) -> Trend {
    Trend { drills: vec![evidence.clone()], refused: 0 }
}

#[test]
fn only_what_a_conductor_signed_about_this_cluster_is_believed() {
    let conductor = Conductor::new();
    let signed = conductor.sign(&passed());
    assert_eq!(conductor.verify(&signed).expect("it verifies").conductor.as_str(), "custodian-1");

    let stranger = Conductor::new();
    assert!(matches!(stranger.verify(&signed), Err(Refused::Envelope(_))), "another key");
    let no_conductor = conductor.signers_text.replace(",holdfast.intent", "");
    let no_conductor = Conductor { signers: AllowedSigners::parse(no_conductor).expect("sound"), ..Conductor::new() };
    assert!(matches!(no_conductor.verify(&signed), Err(Refused::Envelope(_))), "its key may not announce drills");

    let other = ClusterId::from_bytes([2; 16]);
    let name: ClusterName = "prod".parse().expect("a name");
    let now = time("2026-11-25T10:00:00.000Z");
    let verified = Evidence::verify(&signed, (&name, other), &conductor.signers, now);
    assert!(matches!(verified, Err(Refused::Cluster(_))));
    let earlier = Evidence::verify(&signed, (&name, CLUSTER), &conductor.signers, time("2026-11-24T09:00:00.000Z"));
    assert!(matches!(earlier, Err(Refused::Early(_))));

    let running = with(&json!({"result": null, "phase": "sealed"}));
    assert!(matches!(conductor.verify(&conductor.sign(&running)), Err(Refused::Running)));
    let due = Content::Due(holdfast_core::message::Due { slot: "2026-11-24T10:00:00.000Z".parse().expect("a slot") });
    let from = "custodian-1".parse().expect("a name");
    let due = seal_message(&conductor.key, &from, CLUSTER, due, now, None).expect("signed").1;
    assert!(matches!(conductor.verify(&due), Err(Refused::Kind("due"))));

    let mut altered: Value = serde_json::from_slice(&signed).expect("JSON");
    let late = conductor.sign(&with(&json!({"result": "late"})));
    altered["body"] = serde_json::from_slice::<Value>(&late).expect("JSON")["body"].clone();
    let altered = serde_json::to_vec(&altered).expect("JSON");
    assert!(matches!(conductor.verify(&altered), Err(Refused::Envelope(_))), "another report under the signature");
    for wrong in [&b""[..], b"{}", b"[]", &[b'x'; 100_000]] {
        assert!(conductor.verify(wrong).is_err());
    }
}

#[test]
fn a_report_reads_like_this() {
    let conductor = Conductor::new();
    let evidence = conductor.evidence(&passed());
    let shown = text(&evidence, &alone(&evidence)).replace(&evidence.key, "SHA256:…");
    let expected = "\
Drill of prod on vault-2: passed
Passed: open after 41 ms, objective 30.0 s.

Drill            2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f
Node             vault-2
Held for         the schedule, at 2026-11-24T10:00:00.000Z
Began            2026-11-24T10:00:00.000Z
Recovery         41 ms
Objective        30.0 s
Serving          standby before, standby after
Shares needed    3
Taken by         custodian-1, custodian-2, custodian-3, custodian-4
First to submit  custodian-1, custodian-2, custodian-3
Conductor        custodian-1, who signed this at 2026-11-24T10:00:04.301Z

WHEN      WHAT
−2.000 s  the drill began
−1.000 s  the intent was announced
−0.005 s  the order to seal left
+0.000 s  the node was first seen sealed
+0.015 s  custodian-1, share 11: counted
+0.021 s  custodian-2, share 22: counted
+0.040 s  custodian-3, share 33: the node is open
+0.041 s  the node was first seen open
+1.245 s  the node was first seen to serve
+2.300 s  the drill was closed

CUSTODIAN    TURN       TOOK IT  SHARE LEFT AFTER  ANSWERED AFTER  RESULT
custodian-1  first      yes      2.0 ms            11 ms           counted
custodian-2  first      yes      3.0 ms            16 ms           counted
custodian-3  first      yes      4.0 ms            34 ms           the node is open
custodian-4  stands by  yes      –                 –               not needed
custodian-5  stands by  no       –                 –               no drill window is open

Verified: custodian-1 signed this report in the namespace holdfast.intent with the key SHA256:…, which this operator's \
allowed_signers accepts.";
    assert_eq!(shown, expected);
}

#[test]
fn a_drill_that_the_sentinel_did_not_see_is_not_called_passed_without_a_word() {
    let conductor = Conductor::new();
    let evidence = conductor.evidence(&passed());
    for (seen, told) in [(None, false), (Some(true), false), (Some(false), true)] {
        let evidence = Evidence { seen, ..evidence.clone() };
        let shown = text(&evidence, &alone(&evidence));
        assert_eq!(
            (shown.contains("That is not confirmed: "), evidence.in_short() == "passed"),
            (told, !told),
            "{shown}"
        );
    }
}

#[test]
fn whatever_came_of_it_is_said() {
    let conductor = Conductor::new();
    for (changes, expected) in [
        (
            json!({"result": "late", "recovery_us": 41_200_000, "why": "the node opened later than the objective allows"}),
            "Late: open after 41.2 s, objective 30.0 s.",
        ),
        (
            json!({"result": "failed", "opened_at": null, "served_at": null, "recovery_us": null}),
            "Failed: it did not open while the intent held.",
        ),
        (json!({"result": "failed"}), "Failed: it was open again, and did not serve as before."),
        (json!({"result": "aborted", "why": "a hold"}), "Aborted: a hold."),
        (
            json!({"result": "refused", "node": null, "announced_at": null, "seal_sent_at": null, "sealed_at": null,
                   "opened_at": null, "served_at": null, "recovery_us": null, "responses": null, "submitters": null,
                   "taken_by": null, "declined": null, "why": "3 custodians are ready for vault-2, and 4 are needed",
                   "slot": "ab".repeat(16), "ordered_by": "alice", "reason": "the audit of this year"}),
            "Refused: 3 custodians are ready for vault-2, and 4 are needed.",
        ),
        (json!({"result": "interrupted"}), "Interrupted: its conductor went away in the middle"),
    ] {
        let evidence = conductor.evidence(&with(&changes));
        let trend = alone(&evidence);
        for shown in [text(&evidence, &trend), page::render(&evidence, &trend)] {
            assert!(shown.contains(expected), "{expected} in {shown}");
        }
        let plain = markdown::render(&evidence, &trend).replace('\\', "");
        assert!(plain.contains(expected), "{expected} in {plain}");
    }
    let ordered = with(&json!({"ordered_by": "alice", "reason": "the audit of this year", "slot": "ab".repeat(16)}));
    let ordered = conductor.evidence(&ordered);
    let shown = text(&ordered, &alone(&ordered));
    assert!(shown.contains("Held for         an order by alice\nReason           the audit of this year\n"), "{shown}");
}

#[test]
fn what_people_did_and_what_the_canary_was_is_told() {
    let conductor = Conductor::new();
    let approved = |id: &str, signed: u32, heard: u32| json!({"id": id.repeat(16), "signed_at": at(signed), "heard_at": at(heard)});
    let people = json!({
        "people": true, "submitters": null, "ordered_by": "alice", "slot": "ab".repeat(16), "objective_ms": 600_000,
        "approvals": {"alice": approved("aa", 32_100, 32_250), "bob": approved("bb", 20_000, 20_400)},
        "canary": {"path": "secret/data/canary", "read_at": at(3_300), "same": true},
    });
    let evidence = conductor.evidence(&with(&people));
    let shown = text(&evidence, &alone(&evidence));
    for part in [
        "people had to approve it, as after a seal that nobody announced",
        "secret/data/canary, read through the node as it was before",
        "+1.300 s   the canary was read",
        "+18.400 s  bob had approved",
        "\nOPERATOR  APPROVED AFTER  SIGNED AT                 APPROVAL\nbob       18.4 s          2026-11-24T10:00:20.000Z  bbbb",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let html = page::render(&evidence, &alone(&evidence));
    assert!(html.contains("<h2>People</h2>") && html.contains("30.2 s</td>"), "{html}");
    let plain = markdown::render(&evidence, &alone(&evidence));
    assert!(plain.contains("\n| alice | 30.2 s | 2026-11-24T10:00:32.100Z | aaaa"), "{plain}");

    let other = json!({"result": "failed", "why": "the canary is another", "canary": {"path": "kv/x", "read_at": at(3_300), "same": false}});
    let evidence = conductor.evidence(&with(&other));
    let shown = text(&evidence, &alone(&evidence));
    assert!(shown.contains("Failed: the canary is another."), "{shown}");
    assert!(shown.contains("kv/x, which read otherwise than before") && !shown.contains("OPERATOR"), "{shown}");
}

#[test]
fn a_table_of_markdown_is_one_whatever_is_written_in_it() {
    let conductor = Conductor::new();
    let evidence = conductor.evidence(&with(&json!({"declined": {"custodian-5": HOSTILE}, "why": HOSTILE})));
    let before = conductor.evidence(&with(&json!({"drill": "2e".repeat(16), "recovery_us": 55_000})));
    let shown = markdown::render(&evidence, &Trend { drills: vec![evidence.clone(), before], refused: 2 });
    for part in [
        "# Drill of prod on vault-2: passed\n",
        "\n| Custodian | Turn | Took it | Share left after | Answered after | Result |\n| --- | --- |",
        "\n| custodian-1 | first | yes | 2.0 ms | 11 ms | counted |\n",
        "| 2026-11-24T10:00:00.000Z | vault-2 | passed | 55 ms | 30.0 s |\n",
        "2 of the last drills do not verify",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(shown.contains("\\<script\\>") && !shown.replace("\\<", "").contains('<'), "{shown}");
    let unescaped = |line: &str| line.replace("\\|", "").matches('|').count();
    let table: Vec<_> = shown.lines().filter(|line| line.starts_with("| custodian-")).map(unescaped).collect();
    assert_eq!(table, [7; 5], "{shown}");
}

#[test]
fn the_page_needs_nothing_else_and_runs_nothing() {
    let conductor = Conductor::new();
    let hostile = with(&json!({"declined": {"custodian-5": HOSTILE}, "why": HOSTILE, "reason": HOSTILE}));
    let evidence = conductor.evidence(&hostile);
    let before =
        conductor.evidence(&with(&json!({"drill": "2e".repeat(16), "recovery_us": 90_000_000, "result": "late"})));
    let html = page::render(&evidence, &Trend { drills: vec![evidence.clone(), before], refused: 0 });
    for part in [
        "<h1>Drill of prod on vault-2: <strong>passed</strong></h1>",
        "default-src 'none'",
        "<svg class=\"timeline\"",
        "<svg class=\"trend\"",
        "objective 30.0 s</text>",
        "<g class=\"late\"><title>2026-11-24T10:00:00.000Z, vault-2, late: open after 90.0 s",
        "<g class=\"passed this\">",
        "&lt;script&gt;alert(1)",
    ] {
        assert!(html.contains(part), "{part} in {html}");
    }
    for absent in
        ["<script", "http://", "https://", "<link", "<img", " src=", "url(", "@import", " onload", "javascript:"]
    {
        assert!(!html.contains(absent), "{absent} in {html}");
    }
}

#[test]
fn openssh_verifies_what_was_saved_by_the_command_that_is_printed() {
    let (folder, conductor) = (tempfile::tempdir().expect("a folder"), Conductor::new());
    let signers = folder.path().join("the allowed_signers");
    std::fs::write(&signers, &conductor.signers_text).expect("written");
    let evidence = conductor.evidence(&passed());
    let path = folder.path().join("drill of today.json");
    let saved = save(&evidence, &path).expect("saved");
    save(&evidence, &path).expect("the same again is no harm");
    let said = how_to_verify(&evidence, &saved, &signers);
    let command = said.lines().last().expect("a command").trim();
    let verify = |command: &str| {
        let shell = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).output().expect("sh");
        (shell.status.success(), String::from_utf8_lossy(&shell.stdout).into_owned())
    };
    let (well, answer) = verify(command);
    assert!(well && answer.starts_with("Good \"holdfast.intent\" signature for custodian-1"), "{command}: {answer}");
    let envelope = std::fs::read(&saved.envelope).expect("there");
    assert_eq!(conductor.verify(&envelope).expect("it verifies").report, evidence.report);

    let other = conductor.evidence(&with(&json!({"result": "late"})));
    assert!(save(&other, &path).is_err(), "nothing is overwritten");
    let tampered = std::fs::read_to_string(&saved.body).expect("there").replace("41200", "11200");
    std::fs::write(&saved.body, tampered).expect("written");
    assert!(!verify(command).0, "one digit was changed");
}

#[test]
fn whatever_times_are_told_there_is_a_page() {
    let conductor = Conductor::new();
    let far = "9999-12-30T00:00:00.000Z";
    for changes in [
        json!({"sealed_at": far}),
        json!({"opened_at": far}),
        json!({"opened_at": "0000-01-01T00:00:00.000Z"}),
        json!({"seal_sent_at": "0000-01-01T00:00:00.000Z"}),
        json!({"seal_sent_at": null, "opened_at": null, "closed_at": null}),
        json!({"recovery_us": 0, "objective_ms": 0}),
        json!({"recovery_us": u64::MAX, "objective_ms": u64::MAX}),
        json!({"responses": {}}),
    ] {
        let evidence = conductor.evidence(&with(&changes));
        let trend = Trend { drills: vec![evidence.clone(); 3], refused: 0 };
        let html = page::render(&evidence, &trend);
        assert!(html.contains("<svg") && !html.contains("NaN") && !html.contains("inf%"), "{changes}: {html}");
        assert!(!text(&evidence, &trend).is_empty() && !markdown::render(&evidence, &trend).is_empty());
    }
}
