//! Drills on a real network in which people have to approve, and in which a canary is read through the node: what passes, and what
//! must not.

use std::time::Duration;

use holdfast_tests::drills::{finish, give, order, ordering};
use holdfast_tests::lab::Lab;
use holdfast_tests::processes::Signal;
use holdfast_tests::programs::run;
use holdfast_tests::wait::{always, until};
use serde_json::{Value, json};

/// How long a node is looked at that waits for people.
const SAMPLE: Duration = Duration::from_secs(5);

const CONDUCTOR: &str = "custodian-1";
const PATH: &str = "secret/data/holdfast-canary";

/// What is stored there, and must be found nowhere else.
const VALUE: &str = "c4n4ry-0f-th3-dr1ll";

#[test]
fn people_are_timed_and_canaries_read() {
    let mut lab = Lab::up(&[]);
    lab.scenario("people approve", people_approve);
    lab.scenario("a canary", a_canary);
    lab.scenario("a canary that is another one afterwards", another_canary);
    lab.scenario("a canary that is not there", no_canary);
}

fn people_approve(lab: &mut Lab) {
    let node = "vault-2";
    let ordered = ordering(lab, &["--node", node, "--with-people", "--json"]);
    until("the drill has the node sealed", || lab.is_sealed(node));
    always(SAMPLE, "it waits for people", || lab.is_sealed(node));
    let told = lab.holdfast(&["status", "--node", node]);
    assert!(told.out.contains("sealed on purpose") && told.out.contains("holdfast approve"), "{told:?}");
    lab.holdfast_as("bob", &["approve", "--no-wait", "--node", node]).well();
    let done: Value = serde_json::from_str(&finish(ordered).well().out).expect("JSON");
    let report = &done["report"];
    assert_eq!((&report["result"], &report["people"]), (&json!("passed"), &json!(true)), "{report:#}");
    assert_eq!(report["objective_ms"], 900_000, "{report:#}");
    let approvals = report["approvals"].as_object().expect("who approved");
    assert_eq!(approvals.keys().collect::<Vec<_>>(), ["bob"], "{report:#}");
    let recovery = Duration::from_micros(report["recovery_us"].as_u64().expect("measured"));
    assert!(recovery >= SAMPLE, "{recovery:?}");
    for custodian in lab.custodians() {
        let intents = lab.audited(&custodian, "intent");
        assert!(
            intents.iter().any(|entry| entry["drill"] == report["drill"] && entry["people"] == true),
            "{intents:?}"
        );
        let marked = lab.audited(&custodian, "marker");
        assert!(marked.iter().any(|entry| entry["node"] == node), "{custodian}: a seal like any other: {marked:?}");
        let releases = lab.audited(&custodian, "release");
        assert!(releases.iter().all(|entry| entry["details"]["intent"].is_null()), "{custodian}: {releases:?}");
    }
    let drill = report["drill"].as_str().expect("an id");
    until("the sentinel keeps it", || lab.holdfast(&["drill", "report", drill]).code == Some(0));
    let kept = &lab.status()["drills"][0]["report"];
    assert_eq!((&kept["drill"], &kept["people"]), (&report["drill"], &json!(true)), "{kept:#}");
    let page = lab.read_sentinel("/").expect("the page");
    assert!(page.contains("Opening: people had to approve it"), "{page}");
    let told = lab.holdfast(&["drill", "report", drill]).well().out;
    assert!(told.contains("OPERATOR") && told.contains("bob") && told.contains("people had to approve it"), "{told}");
}

fn a_canary(lab: &mut Lab) {
    vault(lab, "bao secrets enable -path=secret -version=2 kv");
    store(lab, VALUE);
    let said = run("holdfast-setup", &["canary-token", "--policy", PATH]).well();
    let commands: Vec<_> = said.out.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
    let (printed, write) = commands[0].split_once(" | ").expect("a pipe");
    assert_eq!(printed, format!("holdfast-setup canary-token --policy {PATH}"));
    vault(lab, &format!("cat >canary.hcl <<'END'\n{}\nEND\ncat canary.hcl | {write}", said.out));
    let token = vault(lab, commands[1]).trim().to_owned();
    let may = |path: &str| vault(lab, &format!("bao token capabilities {token} {path}")).trim().to_owned();
    assert_eq!(may(PATH), "read");
    for path in ["secret/data/other", "secret/metadata/holdfast-canary", "sys/seal", "auth/token/create", "sys/mounts"]
    {
        assert_eq!(may(path), "deny", "{path}");
    }

    // It is taken where it is good, and one that can do more, or something else, is not.
    let config = lab.path(&lab.custodian(CONDUCTOR).config);
    let said = give("canary-token", &config, &token, &[]);
    assert!(said.code == Some(78) && said.err.contains("names no canary"), "{said:?}");
    let canary = format!("[conductor.lab]\ncanary = \"{PATH}\"\n");
    lab.edit(CONDUCTOR, "[conductor.lab]\n", &canary);
    let check = || run("holdfast-custodian", &["check", "--json", "--config", &config.to_string_lossy()]);
    let said = check();
    assert!(said.code == Some(78) && said.err.contains("canary_token_file"), "{said:?}");
    lab.edit(CONDUCTOR, &canary, &format!("{canary}canary_token_file = \"canary-token.age\"\n"));
    let root = lab.root_token();
    let seals = "bao token create -orphan -no-default-policy -policy=holdfast-conductor -period=1h -field=token";
    let both = commands[1].replace("-policy=", "-policy=holdfast-conductor -policy=");
    for (given, named) in [
        (root.as_str(), "root token"),
        (vault(lab, seals).trim(), "sys/seal"),
        (vault(lab, &both).trim(), "more than read the canary: sys/policies/acl/holdfast-conductor (read); sys/seal"),
    ] {
        let said = give("canary-token", &config, given, &[]);
        assert!(said.code == Some(78) && said.err.contains(named) && !said.err.contains(given), "{said:?}");
    }
    let said = give("canary-token", &config, &token, &[]).well();
    assert!(said.out.contains(PATH) && !said.out.contains(&token), "{said:?}");
    let said = check().well().out;
    assert!(said.contains(&format!("reads {PATH} through it, and can do nothing else")), "{said}");

    lab.restart(CONDUCTOR);
    lab.settle();
    for node in ["vault-2", "vault-1"] {
        let done: Value = serde_json::from_str(&order(lab, &["--node", node, "--json"]).well().out).expect("JSON");
        let canary = &done["report"]["canary"];
        assert_eq!((&canary["path"], &canary["same"]), (&json!(PATH), &json!(true)), "{done:#}");
        assert!(canary["read_at"].as_str() >= done["report"]["served_at"].as_str(), "{done:#}");
        until("the sentinel tells the same", || lab.status()["drills"][0]["report"]["canary"] == *canary);
    }
    let page = lab.read_sentinel("/").expect("the page");
    assert!(page.contains(&format!("Canary: <bdi>{PATH}, read through the node as it was before</bdi>")), "{page}");
    keeps_no(lab, VALUE);
    keeps_no(lab, &token);
}

/// Somebody writes another value in the middle of a drill: who reads it afterwards is told. Before the node is sealed, that is: a stand-by
/// that was sealed meanwhile answers with what it had, for a moment (docs/FACTS.md).
fn another_canary(lab: &mut Lab) {
    // The conductor waits some seconds for one that does not answer to its intent.
    lab.signal("custodian-5", Signal::STOP);
    let ordered = ordering(lab, &["--node", "vault-3", "--json"]);
    until("the drill is announced", || {
        let drills = &lab.status()["drills"];
        drills[0]["report"]["phase"] == "announced" && drills[0]["report"]["node"] == "vault-3"
    });
    store(lab, "another");
    let said = finish(ordered);
    lab.signal("custodian-5", Signal::CONT);
    let done: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!((said.code, &done["result"]), (Some(1), &json!("failed")), "{done:#}");
    assert_eq!(done["report"]["canary"]["same"], false, "{done:#}");
    let why = done["report"]["why"].as_str().expect("a reason");
    assert!(why.contains("another than before"), "{why}");
    until("the page says so", || {
        let page = lab.read_sentinel("/").unwrap_or_default();
        page.contains(&format!("Canary: <bdi>{PATH}, which read otherwise than before</bdi>"))
    });
}

fn no_canary(lab: &mut Lab) {
    vault(lab, "bao kv metadata delete -mount=secret holdfast-canary");
    let said = order(lab, &["--node", "vault-2", "--json"]);
    let done: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!((said.code, &done["result"]), (Some(1), &json!("refused")), "{done:#}");
    let why = done["report"]["why"].as_str().expect("a reason");
    assert!(why.contains("vault-2") && why.contains("404"), "{why}");
    assert!(done["report"]["announced_at"].is_null() && lab.is_open("vault-2"));
}

fn store(lab: &Lab, value: &str) {
    vault(lab, &format!("bao kv put -mount=secret holdfast-canary value={value}"));
}

/// Nothing that custodians or the sentinel wrote has it in it.
fn keeps_no(lab: &Lab, secret: &str) {
    let mut folders = vec![lab.dir().to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).expect("a folder").filter_map(Result::ok);
        for entry in entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with("vault")) {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    assert!(files.len() > 20, "the lab's files are elsewhere: {files:?}");
    for file in files {
        let kept = std::fs::read(&file).unwrap_or_default();
        let found = kept.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "it is in {}", file.display());
    }
}

/// What a line of shell prints with the server's own tool and the lab's root token.
fn vault(lab: &Lab, line: &str) -> String {
    lab.shell(line).well().out
}
