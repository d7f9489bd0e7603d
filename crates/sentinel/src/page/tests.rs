//! The page in states that are made up: what others wrote, many clusters, and what a reader knows it by.

use holdfast_core::status::Status;
use serde_json::{Value, json};

use super::*;

/// What somebody might write who is not our friend.
const HOSTILE: &str = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>\u{202e}&amp;";

/// A status of so many clusters, each with so many nodes and custodians, all well.
fn status(clusters: usize, nodes: usize, custodians: usize) -> Value {
    let node = json!({
        "url": "https://vault.example:8200", "seen": "open", "since": "2026-11-22T10:00:00.000Z", "cause": null, "needs": [],
        "marker": null, "ready": custodians, "certificate_not_after": "2027-11-22T00:00:00.000Z", "shared_address": false,
        "identity_refused": null, "lost_because": null,
    });
    let proof = json!({"at": "2026-11-24T07:45:00.000Z", "node": "vault-1", "generation": 1});
    let custodian = json!({"heard_at": "2026-11-24T10:00:05.000Z", "up": true, "ready": true, "site": "zurich",
                           "share_proven": proof, "heartbeat": null});
    let submission = |x: u8, result: &str| {
        json!({"custodian": format!("custodian-{x}"), "incident": "00".repeat(16), "x": x, "result": result, "nonce": "a",
               "progress": x % 3, "answered_at": format!("2026-11-24T07:45:00.0{x}0Z")})
    };
    let incident = json!({
        "node": "vault-1", "began_at": "2026-11-24T07:44:59.000Z", "sealed_at": "2026-11-24T07:45:00.000Z", "cause": "restart",
        "opened_at": "2026-11-24T07:45:00.041Z", "open_after_ms": 41.2,
        "submissions": [submission(3, "opened"), submission(1, "counted"), submission(2, "counted")],
        "refusals": [{"custodian": "custodian-4", "lock": "identity", "why": "another key"}],
    });
    let named = |what: &str, many: usize, value: &Value| -> Value {
        (1..=many).map(|i| (format!("{what}-{i}"), value.clone())).collect::<serde_json::Map<_, _>>().into()
    };
    let cluster = json!({
        "id": "00".repeat(16), "shares": custodians, "threshold": 3, "ready": custodians, "margin": custodians - 3,
        "margin_without_largest_site": 0, "diverged": false, "generation_mismatch": false, "generation": 1, "min_unsealed": 1,
        "nodes": named("vault", nodes, &node), "custodians": named("custodian", custodians, &custodian), "approvals": [],
        "incidents": [incident],
    });
    json!({
        "sentinel": "sentinel-1", "version": "0", "at": "2026-11-24T10:00:10.000Z", "broker_up": true, "broker_trouble": null,
        "history_trouble": null, "started_at": "2026-11-22T09:00:00.000Z", "rejected": {},
        "clusters": named("prod", clusters, &cluster),
    })
}

fn page(status: &Value) -> Page {
    render(&serde_json::from_value::<Status>(status.clone()).expect("a status"))
}

#[test]
fn the_first_line_answers_and_the_tab_does_too() {
    let mut status = status(1, 3, 5);
    let Page { html, .. } = page(&status);
    assert!(html.contains("<title>Yes: prod-1 – Holdfast</title>") && html.contains("/icons/well.svg"), "{html}");
    let words =
        "<strong>Yes:</strong> <span class=\"because\">5 ready, 3 needed; last proven today 07:45, 41 ms</span>";
    assert!(html.contains(words), "{html}");
    assert!(html.contains("share proven today 07:45, vault-1"));

    let node = &mut status["clusters"]["prod-1"]["nodes"]["vault-2"];
    node["seen"] = json!("sealed");
    node["needs"] = json!([[{"what": "approvals", "have": 0, "need": 2}, 5]]);
    node["marker"] = json!("2026-11-24T10:00:00.000Z");
    let Page { html, .. } = page(&status);
    assert!(html.contains("<title>No: prod-1 – Holdfast</title>"), "{html}");
    assert!(html.contains("<code>holdfast approve --cluster prod-1 --node vault-2</code>"), "{html}");
}

#[test]
fn the_timeline_is_in_the_order_of_time() {
    let html = page(&status(1, 1, 5)).html;
    let at = |part: &str| html.find(part).unwrap_or_else(|| panic!("{part} in {html}"));
    let order = [
        "+0.000 s",
        "sees it <b>sealed</b>",
        "<b>custodian-1</b> submitted share 1: counted, 1 of 3",
        "<b>custodian-2</b> submitted share 2: counted, 2 of 3",
        "<b>custodian-3</b> submitted share 3: the node is open",
        "sees it <b>open</b>",
        "<b>custodian-4</b> did not submit, by the lock <b>identity</b>",
    ];
    let found: Vec<_> = order.map(at).into();
    assert!(found.is_sorted(), "{found:?}");
}

#[test]
fn what_others_wrote_stays_text() {
    let mut status = status(1, 1, 5);
    let long = HOSTILE.repeat(2_000);
    status["broker_trouble"] = json!(long);
    status["history_trouble"] = json!(long);
    status["rejected"] = json!({ HOSTILE: 3 });
    let cluster = &mut status["clusters"]["prod-1"];
    cluster["incidents"][0]["refusals"][0]["why"] = json!(long);
    for (name, value) in [("url", &long), ("identity_refused", &long), ("lost_because", &long)] {
        cluster["nodes"]["vault-1"][name] = json!(value);
    }
    cluster["nodes"]["vault-1"]["seen"] = json!("lost");
    let clean = page(&self::status(1, 1, 5)).html;
    let html = page(&status).html;
    let tags = |html: &str, tag: &str| html.matches(tag).count();
    assert_eq!((tags(&html, "<script"), tags(&html, "<img src=x")), (tags(&clean, "<script"), 0));
    assert!(html.contains("&lt;script&gt;alert(1)") && !html.contains('\u{202e}'), "{html}");
    assert!(html.len() < clean.len() + 10_000, "nobody makes it long: {} and {}", html.len(), clean.len());
}

/// A hold that these custodians obey, and a reason that somebody wrote.
fn hold(nodes: &[&str], obeyed_by: &[&str], reason: &str) -> Value {
    json!({"id": "3f".repeat(16), "by": "carol", "held_at": "2026-11-24T09:02:00.000Z", "nodes": nodes, "reason": reason,
           "released_by": {"bob": obeyed_by.len()}, "need": 2, "obeyed_by": obeyed_by})
}

#[test]
fn a_hold_is_told_with_since_when_by_whom_why_who_obeys_and_how_it_ends() {
    let mut status = status(1, 2, 5);
    assert!(!page(&status).html.contains("<h3>Holds</h3>"));
    let all = ["custodian-1", "custodian-2", "custodian-3", "custodian-4", "custodian-5"];
    let cluster = &mut status["clusters"]["prod-1"];
    cluster["holds"] = json!([hold(&["vault-1"], &all, &format!("forensics {HOSTILE}"))]);
    cluster["nodes"]["vault-2"]["ready_unheld"] = json!(5);
    let html = page(&status).html;
    assert!(html.contains("<title>No: prod-1 – Holdfast</title>") && html.contains("held: would stay shut"), "{html}");
    let section = &html[html.find("<h3>Holds</h3>").expect("the section")..];
    let command = format!("<code>holdfast release --cluster prod-1 --hold {}</code>", "3f".repeat(16));
    for part in [
        "<b>vault-1</b>",
        "since today 09:02 by <b>carol</b>",
        "“<bdi>forensics &quot;&gt;&lt;script&gt;",
        "obeyed by 5 of 5: custodian-1, custodian-2",
        "It takes 2 operators to end it; released so far by bob.",
        command.as_str(),
    ] {
        assert!(section.contains(part), "{part} in {section}");
    }
    assert!(!html.contains("<script>alert") && !html.contains('\u{202e}'), "{html}");
}

#[test]
fn what_waits_and_whose_word_counts_for_nothing_is_told() {
    let mut status = status(1, 1, 5);
    let cluster = &mut status["clusters"]["prod-1"];
    let matter = json!({"what": "distrust", "principal": "custodian-3", "lift": false});
    cluster["waiting"] =
        json!([{"matter": matter, "by": {"alice": 5}, "need": 2, "told_by": ["custodian-1", "custodian-2"]}]);
    cluster["distrusted"] = json!({"custodian-4": ["custodian-1", "custodian-2", "custodian-3"]});
    cluster["custodians"]["custodian-4"]["distrusted"] = json!(true);
    let html = page(&status).html;
    for part in [
        "<title>Yes, but look: prod-1 – Holdfast</title>",
        "<code>holdfast distrust --cluster prod-1 custodian-3</code>",
        "Operators have ordered that the word of custodian-4 counts for nothing",
        "<span class=\"word\">distrusted</span>",
    ] {
        assert!(html.contains(part), "{part} in {html}");
    }
}

#[test]
fn of_many_clusters_the_troubled_come_first_and_alone_are_unfolded() {
    let mut status = status(20, 5, 50);
    status["clusters"]["prod-7"]["margin"] = json!(-1);
    let html = page(&status).html;
    assert!(html.contains("<title>No: 1 of 20 – Holdfast</title>"));
    let first = html.find("id=\"verdict-").expect("a verdict");
    assert!(html[first..].starts_with("id=\"verdict-prod-7\""));
    assert_eq!(html.matches("class=\"cluster\" data-unfolded=\"true\" open").count(), 1);
    // Twenty clusters of fifty custodians each: what a screen fetches when something changed.
    assert!(html.len() < 600_000, "{}", html.len());
}

#[test]
fn a_page_is_known_by_what_it_shows_and_not_by_when_it_was_made() {
    let mut status = status(1, 3, 5);
    let first = page(&status);
    status["at"] = json!("2026-11-24T10:00:49.000Z");
    let later = page(&status);
    assert!(first.digest == later.digest && first.html != later.html);
    status["clusters"]["prod-1"]["nodes"]["vault-1"]["seen"] = json!("lost");
    assert_ne!(page(&status).digest, first.digest);
}

#[test]
fn nothing_is_inline_and_each_state_has_a_picture() {
    let html = page(&status(1, 3, 5)).html;
    for inline in [" style=", "<style", " onclick=", " onload=", "javascript:"] {
        assert!(!html.contains(inline), "{inline}");
    }
    assert!(html.contains("<script src=\"/page.js\" defer></script>"));
    for state in State::ALL {
        assert!(state.icon().starts_with("<svg ") && !state.icon().contains("<script"), "{state:?}");
    }
}

/// A drill of the cluster as its conductor tells.
fn drill(number: u8, phase: &str, result: Option<&str>, took: Option<u64>, why: Option<&str>) -> Value {
    let at = "2026-11-24T09:00:00.000Z";
    let mut report = json!({"drill": format!("{number:02x}").repeat(16), "slot": at, "node": "vault-1", "phase": phase,
                            "began_at": at, "objective_ms": 30_000, "threshold": 3});
    let fields = report.as_object_mut().expect("an object");
    fields.extend(result.map(|result| ("result".to_owned(), json!(result))));
    fields.extend(took.map(|took| ("recovery_us".to_owned(), json!(took))));
    fields.extend(why.map(|why| ("why".to_owned(), json!(why))));
    json!({"conductor": "custodian-1", "issued_at": at, "heard_at": at, "seen": true, "report": report})
}

#[test]
fn drills_are_told_with_the_running_one_the_last_the_next_and_their_trend() {
    let mut status = status(1, 2, 5);
    let html = page(&status).html;
    assert!(
        html.contains("none yet") && html.contains("no conductor tells of one") && !html.contains("<svg"),
        "{html}"
    );
    let cluster = &mut status["clusters"]["prod-1"];
    let with = |mut drill: Value, field: &str, value: Value| {
        drill["report"][field] = value;
        drill
    };
    let mut unseen = drill(6, "closed", Some("passed"), Some(1_000), None);
    unseen["seen"] = json!(false);
    cluster["drills"] = json!([
        with(drill(5, "sealed", None, None, None), "people", json!(true)),
        drill(3, "sealed", None, None, None),
        with(drill(4, "closed", Some("passed"), Some(60_000_000), None), "people", json!(true)),
        drill(2, "closed", Some("refused"), None, Some("2 custodians are ready <b>&")),
        with(
            drill(1, "closed", Some("passed"), Some(41_200), None),
            "canary",
            json!({"path": "kv/canary", "same": true})
        ),
        unseen,
    ]);
    cluster["drill_summary"] =
        json!({"next": "2026-12-01T10:00:00.000Z", "last_success": "2026-11-24T09:00:01.000Z", "last_recovery_us": {}});
    cluster["incidents"][0]["drill"] = json!("01".repeat(16));
    let html = page(&status).html;
    let section = &html[html.find("<h3>Drills</h3>").expect("the section")..];
    for part in [
        "<span class=\"word\">runs</span>",
        "<p>the node is sealed</p>",
        "<p>the node is sealed; people have to approve its opening</p>",
        "</p><p class=\"quiet\">Opening: people had to approve it, as after a seal that nobody announced</p></li>",
        "</p><p class=\"quiet\">Canary: <bdi>kv/canary, read through the node as it was before</bdi></p></li>",
        "today 09:00, 60 min ago",
        "2026-12-01 10:00, in 6 days",
        "passed: open after 41 ms, objective 30.0 s",
        "refused: 2 custodians are ready &lt;b&gt;&amp;",
        "<g class=\"passed\"><title>2026-11-24T09:00:00.000Z, vault-1, passed: open after 41 ms",
        "objective 30.0 s</text>",
        "<b>drill</b>, restart",
        "receipts that call it one</b>, and custodian-1 alone says so",
    ] {
        assert!(section.contains(part), "{part} in {section}");
    }
    assert_eq!(section.matches("alone says so").count(), 1, "{section}");
    assert_eq!(section.matches("Opening: ").count() + section.matches("Canary: ").count(), 2, "{section}");
    assert_eq!(
        section.matches("<g class=").count(),
        2,
        "what people take is no part of the trend, nor what nobody saw"
    );
    assert!(html.contains("A drill runs: custodian-1 has vault-1 sealed on purpose"), "{html}");
    assert!(!html.contains(" style="), "nothing inline");
}
