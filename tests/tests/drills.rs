//! Sealing exercises on a real network: a node is sealed on purpose, opens again, and everybody says so; and all that must not
//! come of it. Conductors are killed at each step, orders are sent twice, custodians are missing, and a seal that nobody announced
//! stays.

#![expect(clippy::print_stdout, reason = "what a test measured is read where it ran")]

use std::time::Duration;

use holdfast_tests::broker::{Client, Tap};
use holdfast_tests::drills::{finish, give, next_in, once, order, ordering, told};
use holdfast_tests::lab::Lab;
use holdfast_tests::messages::{self, Draft};
use holdfast_tests::observer::Observer;
use holdfast_tests::processes::Signal;
use holdfast_tests::programs::run;
use holdfast_tests::vault::NightWatch;
use holdfast_tests::wait::{always, until, until_within};
use jiff::Timestamp;
use serde_json::{Value, json};

/// How long a node is looked at of which something must not happen.
const SAMPLE: Duration = Duration::from_secs(5);

/// A schedule of each minute comes up within two.
const SCHEDULED: Duration = Duration::from_secs(150);

/// A custodian whose last heartbeat is older than this counts as gone at the conductor: 35 s after it was heard, which after a start of
/// the conductor's is later than it was said.
const GONE: Duration = Duration::from_secs(50);
const GONE_WITHIN: Duration = Duration::from_secs(90);

/// How often a drill is ordered until the conductor was killed in the moment that is meant.
const TRIES: usize = 6;

const CONDUCTOR: &str = "custodian-1";

#[test]
fn drills_are_held_measured_and_never_twice() {
    let mut lab = Lab::up(&[]);
    lab.scenario("an ordered drill", an_ordered_drill);
    lab.scenario("the token seals and does nothing else", the_token_seals_and_does_nothing_else);
    lab.scenario("the same order again", the_same_order_again);
    lab.scenario("a hold", a_hold);
    lab.scenario("a seal that nobody announced", a_seal_that_nobody_announced);
    lab.scenario("the conductor dies before the seal", killed_before_the_seal);
    lab.scenario("the conductor dies while the node is sealed", killed_while_sealed);
    lab.scenario("the conductor dies when the node is open", killed_when_open);
    lab.scenario("too few custodians", too_few_custodians);
}

#[test]
fn a_scheduled_drill_happens() {
    let mut lab = Lab::up(&["--schedule", "* * * * *"]);
    let admin = Client::admin(&lab);
    let tap = admin.tap("holdfast.intents");
    let mut closed = None;
    until_within(SCHEDULED, "a scheduled drill is over", || {
        let reports = told(&admin, &tap).into_iter().map(|told| told.report);
        closed = closed.take().or(reports.into_iter().find(|report| report["phase"] == "closed"));
        closed.is_some()
    });
    let closed = closed.expect("it was seen");
    assert_eq!(closed["result"], "passed", "{closed:#}");
    assert!(closed["ordered_by"].is_null(), "{closed:#}");
    let slot: Timestamp = closed["slot"].as_str().and_then(|slot| slot.parse().ok()).expect("the schedule's time");
    assert_eq!(slot.as_second() % 60, 0, "{closed:#}");
    assert_eq!(closed["before"], "standby", "the active node is sealed only when it is named: {closed:#}");
    // A schedule at whose times the custodian lets no drill be is told beforehand.
    let config = lab.path(&lab.custodian(CONDUCTOR).config).to_string_lossy().into_owned();
    let check = || run("holdfast-custodian", &["check", "--offline", "--json", "--config", &config]).well().out;
    let checked = check();
    assert!(checked.contains("the next drills are due at") && !checked.contains("do not cover"), "{checked}");
    let (always, never) = ("daily 00:00-24:00 UTC", "Sun 03:00-03:01 Europe/Zurich");
    lab.edit(CONDUCTOR, always, never);
    assert!(check().contains("do not cover"), "{}", check());
    lab.edit(CONDUCTOR, never, always);
    // No more of them while the lab is looked at.
    lab.edit(CONDUCTOR, "schedule = ", "# schedule = ");
    lab.signal(CONDUCTOR, Signal::HUP);
    lab.scenario("the lab after a scheduled drill", |_| {});
}

/// A drill as the acceptance walks it, beside an observer of the test's own.
fn an_ordered_drill(lab: &mut Lab) {
    let node = "vault-2";
    let observer = Observer::begin(lab.url(node), &lab.path(&lab.file.ca_cert));
    let said = order(lab, &["--node", node, "--reason", "the quarter's exercise", "--json"]).well();
    let seals = observer.end();
    let [seal] = seals[..] else { panic!("sealed and opened once: {seals:?}") };
    let (sealed, open, seen) = (seal.sealed, seal.open, seal.recovery());
    let done: Value = serde_json::from_str(&said.out).expect("JSON");
    let report = &done["report"];
    assert_eq!((&done["result"], &report["result"]), (&json!("passed"), &json!("passed")), "{report:#}");
    assert_eq!((&report["node"], &report["ordered_by"]), (&json!(node), &json!("alice")));
    assert_eq!((&report["slot"], &report["reason"]), (&done["id"], &json!("the quarter's exercise")));
    assert_eq!((&report["before"], &report["after"]), (&json!("standby"), &json!("standby")));
    let taken = report["taken_by"].as_array().expect("a list");
    assert_eq!(taken.len(), 5, "{report:#}");
    let opened: Vec<_> = responses(report).into_iter().filter(|(_, response)| response["result"] == "opened").collect();
    assert_eq!(opened.len(), 1, "{report:#}");
    assert!(responses(report).len() >= 3, "everybody who submitted is in it: {report:#}");

    let own = Duration::from_micros(report["recovery_us"].as_u64().expect("measured"));
    let (apart, agreed) = (own.abs_diff(seen), seal.agrees_with(own));
    println!("        the drill says {own:?}, an observer {seen:?}: {apart:?} apart, agreed: {agreed}");
    for (what, at, told) in [("sealed", sealed, "sealed_at"), ("open", open, "opened_at")] {
        let told: Timestamp = report[told].as_str().and_then(|at| at.parse().ok()).expect("a time");
        let later = told.as_millisecond() - (Timestamp::now() - at.elapsed()).as_millisecond();
        println!("        {what}: seen by the drill {later} ms after the observer");
    }

    // Each custodian's log: the intent, and that the seal was the one that it announced; no marker, and the grounds of the release.
    for custodian in lab.custodians() {
        let intents = lab.audited(&custodian, "intent");
        let ours = intents.iter().filter(|entry| entry["drill"] == report["drill"]).count();
        assert_eq!(ours, 1, "{custodian}: {intents:?}");
        let covered = |entry: &Value| entry["intent"] == report["intent"] && entry["node"] == node;
        until(&format!("{custodian} notes that the seal was the drill's"), || {
            lab.audited(&custodian, "drill").iter().any(covered)
        });
        let marked = lab.audited(&custodian, "marker");
        assert!(marked.is_empty(), "{custodian}: {marked:?}");
    }
    for (custodian, _) in responses(report) {
        let releases = lab.audited(&custodian, "release");
        assert!(
            releases.iter().any(|entry| entry["details"]["intent"] == report["intent"]),
            "{custodian}: {releases:?}"
        );
    }

    // For people: each step, and a table.
    let said = order(lab, &["--node", "vault-3"]).well();
    for part in ["may be held", "announced", "told to seal itself", "sealed seen", "serves", ": passed: open after"] {
        assert!(said.out.contains(part), "{part:?} is missing:\n{}", said.out);
    }
    let said = order(lab, &["--node", "vault-9"]);
    assert!(said.code == Some(1) && said.err.contains("vault-9"), "{said:?}");
}

/// The token is made with the commands that `--policy` prints, and refused everywhere but at the one door.
fn the_token_seals_and_does_nothing_else(lab: &mut Lab) {
    let said = run("holdfast-setup", &["seal-token", "--policy"]).well();
    let commands: Vec<_> = said.out.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
    let vault = |line: &str| lab.shell(line);
    vault(&format!("cat >policy.hcl <<'END'\n{}\nEND\n{}", said.out, with_policy_from_file(commands[0]))).well();
    let token = vault(commands[1]).well().out.trim().to_owned();
    let may = |path: &str| lab.shell(&format!("bao token capabilities {token} {path}")).well().out.trim().to_owned();
    assert_eq!(may("sys/seal"), "sudo, update");
    for path in [
        "sys/unseal",
        "sys/raw",
        "sys/policies/acl/x",
        "auth/token/create",
        "auth/token/lookup-self",
        "sys/mounts",
        "sys/rotate/root/init",
        "sys/step-down",
        "secret/data/x",
        "sys/audit",
        "identity/entity",
        "cubbyhole/x",
    ] {
        assert_eq!(may(path), "deny", "{path}");
    }
    for refused in
        ["bao token lookup", "bao secrets list", "bao token create", "bao read secret/x", "bao operator step-down"]
    {
        let said = lab.shell(&format!("BAO_TOKEN={token} {refused}"));
        assert!(said.code != Some(0) && said.err.contains("Code: 403"), "{refused}: {said:?}");
    }

    // It is taken where it is good, and a better one is not; also where the list of what it can do hides the rule.
    let root = lab.root_token();
    let wide = vault("bao token create -orphan -policy=holdfast-conductor -field=token").well().out;
    let plus = "printf 'path \"secret/+/x\" { capabilities = [\"read\"] }' | bao policy write hidden -";
    vault(plus).well();
    let hidden = vault(&commands[1].replace("-policy=", "-policy=hidden -policy=")).well().out;
    assert_eq!(vault(&format!("bao token capabilities {} secret/y/x", hidden.trim())).well().out.trim(), "read");
    let config = lab.path(&lab.custodian(CONDUCTOR).config);
    let sealed_token = config.with_file_name("seal-token.age");
    let before = std::fs::read(&sealed_token).expect("the lab's own");
    for (given, named) in [
        (root.as_str(), "root token"),
        (wide.trim(), "more than seal: auth/token"),
        (hidden.trim(), "have to be holdfast-conductor alone"),
        ("s.nosuchtoken", "does not take the token"),
        ("", "no token"),
    ] {
        let said = give("seal-token", &config, given, &[]);
        assert!(said.code != Some(0) && said.err.contains(named), "{named}: {said:?}");
        assert!(given.is_empty() || !said.err.contains(given), "the token is quoted");
        assert_eq!(std::fs::read(&sealed_token).expect("there"), before, "a refused token changed the file");
    }
    let policy = with_policy_from_file(commands[0]);
    let wider = policy.replace("policy.hcl", "wider.hcl");
    vault(&format!("(cat policy.hcl; echo 'path \"secret/+/x\" {{ capabilities = [\"read\"] }}') >wider.hcl\n{wider}"))
        .well();
    let said = give("seal-token", &config, &token, &[]);
    assert!(said.code != Some(0) && said.err.contains("grants other things than it should"), "{said:?}");
    vault(&policy).well();
    let elsewhere = lab.path(&lab.custodian("custodian-2").config);
    let said = give("seal-token", &elsewhere, &token, &[]);
    assert!(said.code == Some(78) && said.err.contains("has no [conductor.NAME]"), "{said:?}");
    let said = give("seal-token", &config, &token, &["--offline"]).well();
    assert!(said.out.contains("WAS NOT ASKED"), "{said:?}");
    let said = give("seal-token", &config, &token, &["--json"]).well();
    assert!(said.out.contains("checked_by") && !said.out.contains(&token), "{said:?}");
    let after = std::fs::read_to_string(&sealed_token).expect("there");
    assert!(after.starts_with("-----BEGIN AGE ENCRYPTED FILE-----") && !after.contains(&token));
    let shown = config.to_string_lossy().into_owned();
    let checked = run("holdfast-custodian", &["check", "--json", "--config", &shown]).well();
    for part in ["seal-token", "seal-powers", "nothing else", "seal-token-life", "no schedule"] {
        assert!(checked.out.contains(part), "{part:?} is missing:\n{}", checked.out);
    }
    order(lab, &["--node", "vault-2"]).well();
}

/// What was ordered once is held once, whoever sends the order again, and also when the conductor was restarted meanwhile.
fn the_same_order_again(lab: &mut Lab) {
    let node = "vault-3";
    let admin = Client::admin(lab);
    let (orders, intents) = (admin.tap("holdfast.orders"), admin.tap("holdfast.intents"));
    let done: Value = serde_json::from_str(&order(lab, &["--node", node, "--json"]).well().out).expect("JSON");
    let (routing_key, envelope) = admin.next(&orders);
    assert!(routing_key.ends_with(".drill"), "{routing_key}");
    lab.settle();
    drop(admin.all(&intents));
    let watch = NightWatch::begin(lab.url(node), &lab.path(&lab.file.ca_cert));
    for restarted in [false, true] {
        if restarted {
            lab.restart(CONDUCTOR);
            until("the conductor is back", || lab.is_of_now(CONDUCTOR, &lab.heartbeat(CONDUCTOR)));
        }
        admin.publish("holdfast.orders", &routing_key, &envelope);
        always(SAMPLE, "nothing happens to the node", || lab.is_open(node));
    }
    let told = told(&admin, &intents);
    let others: Vec<_> = told.iter().filter(|told| told.report["drill"] != done["report"]["drill"]).collect();
    assert!(others.is_empty(), "another drill for one order: {others:?}");
    assert_eq!(watch.end().sealed, 0, "it was sealed again");
}

/// Nothing is sealed while an operator's hold is in force anywhere in the cluster.
fn a_hold(lab: &mut Lab) {
    let held = lab.holdfast(&["hold", "--json", "--node", "vault-3", "--reason", "forensics"]).well();
    let held: Value = serde_json::from_str(&held.out).expect("JSON");
    let hold = held["id"].as_str().expect("an id").to_owned();
    let watch = NightWatch::begin(lab.url("vault-2"), &lab.path(&lab.file.ca_cert));
    for node in ["vault-3", "vault-2"] {
        let said = order(lab, &["--node", node]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.out.contains("refused") && said.out.contains("hold is in force"), "{said:?}");
    }
    assert_eq!(watch.end().sealed, 0);
    for operator in ["alice", "bob"] {
        lab.holdfast_as(operator, &["release", "--hold", &hold]).well();
    }
    for custodian in lab.custodians() {
        until("the hold is over", || lab.heartbeat(&custodian)["holds"].as_array().is_none_or(Vec::is_empty));
    }
}

/// A seal that nobody announced is somebody's decision: no drill is held beside it, and no intent makes one of it, though it is
/// signed with the conductor's own key.
fn a_seal_that_nobody_announced(lab: &mut Lab) {
    let node = "vault-3";
    lab.seal(node);
    let watch = NightWatch::begin(lab.url(node), &lab.path(&lab.file.ca_cert));
    for custodian in lab.custodians() {
        until(&format!("{custodian} knows"), || lab.heartbeat(&custodian)["nodes"][node]["marker"].is_string());
    }
    let said = order(lab, &["--node", "vault-2"]);
    assert!(said.code == Some(1) && said.out.contains("refused"), "{said:?}");

    let stolen = lab.path(&lab.custodian(CONDUCTOR).config).with_file_name("signing.key");
    let cluster = messages::cluster_id(&lab.path(&lab.file.manifest));
    let now = Timestamp::now();
    let content = json!({
        "drill": messages::random_id(), "node": node, "slot": messages::rfc3339(now),
        "submitters": ["custodian-2", "custodian-3", "custodian-4"],
    });
    let mut intent = Draft::message("intent", &cluster, CONDUCTOR, content);
    intent.expires_at = Some(now + Duration::from_secs(600));
    let admin = Client::admin(lab);
    admin.publish("holdfast.intents", &intent.routing_key(), &intent.signed(&stolen));
    for custodian in lab.custodians().into_iter().filter(|custodian| custodian != CONDUCTOR) {
        until(&format!("{custodian} refuses the intent"), || {
            let void = lab.audited(&custodian, "intent-void");
            void.iter().any(|entry| entry["id"] == intent.id && entry["why"].as_str().is_some_and(|w| !w.is_empty()))
        });
    }
    always(SAMPLE, "it stays sealed", || !lab.is_open(node));
    let seen = watch.end();
    assert!(seen.open.is_empty(), "it was open after {:?}", seen.open);
    lab.approve(node);
    until("people open it", || lab.is_open(node));
}

/// Between intent and seal: the node is never sealed, and the drill is closed when the conductor is back.
fn killed_before_the_seal(lab: &mut Lab) {
    let node = "vault-2";
    let admin = Client::admin(lab);
    let tap = admin.tap("holdfast.intents");
    // One that does not answer keeps the conductor waiting for it.
    lab.signal("custodian-5", Signal::STOP);
    let watch = NightWatch::begin(lab.url(node), &lab.path(&lab.file.ca_cert));
    let ordered = ordering(lab, &["--node", node, "--wait", "60"]);
    let announced = next_in(&admin, &tap, "announced").report;
    lab.kill(CONDUCTOR);
    let told = told(&admin, &tap);
    assert!(told.iter().all(|told| told.report["phase"] != "sealing"), "it was killed too late: {told:?}");
    always(SAMPLE, "it stays open", || lab.is_open(node));
    lab.signal("custodian-5", Signal::CONT);
    lab.start(CONDUCTOR);
    let closed = end_of(&admin, &tap, &announced);
    assert_eq!(closed["result"], "interrupted", "{closed:#}");
    let said = finish(ordered);
    assert!(said.code == Some(1) && said.out.contains("interrupted"), "{said:?}");
    assert_eq!(watch.end().sealed, 0, "nobody sealed it");
    once(&admin, &tap, &announced);
}

/// Between seal and open: custodians open it without the conductor, which closes the drill when it is back.
fn killed_while_sealed(lab: &mut Lab) {
    let admin = Client::admin(lab);
    let tap = admin.tap("holdfast.intents");
    for attempt in 0..TRIES {
        // In turn: each node takes only so many drills an hour that come to nothing.
        let node = ["vault-3", "vault-2"][attempt % 2];
        let ordered = ordering(lab, &["--node", node, "--wait", "60"]);
        let opened = lab.audited(CONDUCTOR, "opened").len();
        let sealing = next_in(&admin, &tap, "sealing").report;
        // Two of those whose turn it is hang, and the others wait for them. With the conductor's own, three of five are gone.
        let turn = sealing["submitters"].as_array().expect("a list").iter().filter_map(Value::as_str);
        let hung: Vec<_> = turn.filter(|custodian| *custodian != CONDUCTOR).take(2).collect();
        for custodian in &hung {
            lab.signal(custodian, Signal::STOP);
        }
        until("the node is sealed, or the drill over", || {
            lab.is_sealed(node) || lab.audited(CONDUCTOR, "opened").len() > opened
        });
        lab.kill(CONDUCTOR);
        let told = told(&admin, &tap);
        let hit = lab.is_sealed(node) && told.iter().all(|told| told.report["phase"] != "open");
        println!("        {node}: killed while it is sealed: {hit}");
        if hit {
            always(Duration::from_secs(1), "two custodians do not open it", || !lab.is_open(node));
        }
        for custodian in &hung {
            lab.signal(custodian, Signal::CONT);
        }
        until("the custodians open it without the conductor", || lab.is_open(node));
        lab.start(CONDUCTOR);
        let closed = end_of(&admin, &tap, &sealing);
        assert_eq!(closed["result"], "interrupted", "{closed:#}");
        let said = finish(ordered);
        assert_eq!(said.code, Some(1), "{said:?}");
        once(&admin, &tap, &sealing);
        lab.settle();
        if hit {
            return;
        }
    }
    panic!("in {TRIES} drills the conductor was never killed while the node was sealed");
}

/// After the node has opened: it stays open, and the drill is closed once.
fn killed_when_open(lab: &mut Lab) {
    let node = "vault-2";
    let admin = Client::admin(lab);
    let tap = admin.tap("holdfast.intents");
    let ordered = ordering(lab, &["--node", node, "--wait", "60"]);
    let open = next_in(&admin, &tap, "open").report;
    lab.kill(CONDUCTOR);
    always(SAMPLE, "it stays open", || lab.is_open(node));
    lab.start(CONDUCTOR);
    let closed = end_of(&admin, &tap, &open);
    assert!(["interrupted", "passed"].iter().any(|result| closed["result"] == *result), "{closed:#}");
    finish(ordered);
    once(&admin, &tap, &open);
}

/// With `t` custodians left, a drill is refused before anything is sealed, and says why.
fn too_few_custodians(lab: &mut Lab) {
    let node = "vault-3";
    let gone = ["custodian-4", "custodian-5"];
    for custodian in gone {
        lab.signal(custodian, Signal::STOP);
    }
    until_within(GONE_WITHIN, "they were not heard for long enough to be counted out", || {
        gone.iter().all(|custodian| {
            let heard: Option<Timestamp> =
                lab.status()["custodians"][custodian]["heard_at"].as_str().and_then(|text| text.parse().ok());
            heard.is_some_and(|at| Timestamp::now().duration_since(at).unsigned_abs() > GONE)
        })
    });
    let watch = NightWatch::begin(lab.url(node), &lab.path(&lab.file.ca_cert));
    let said = order(lab, &["--node", node, "--json"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let done: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(done["result"], "refused", "{done:#}");
    let why = done["report"]["why"].as_str().expect("a reason");
    assert!(why.contains("3 custodians are ready") && why.contains("4 are needed"), "{why}");
    assert!(done["report"]["announced_at"].is_null() && done["report"]["seal_sent_at"].is_null());
    assert_eq!(watch.end().sealed, 0, "it was sealed");
    for custodian in gone {
        lab.signal(custodian, Signal::CONT);
    }
}

/// The report that closes this drill. At its start a conductor tells the end of the drill before once more.
fn end_of(admin: &Client, tap: &Tap, report: &Value) -> Value {
    loop {
        let closed = next_in(admin, tap, "closed").report;
        if closed["slot"] == report["slot"] {
            assert_eq!(closed["drill"], report["drill"], "two drills for one order");
            return closed;
        }
    }
}

fn responses(report: &Value) -> Vec<(String, Value)> {
    let all = report["responses"].as_object().into_iter().flatten();
    all.map(|(custodian, response)| (custodian.clone(), response.clone())).collect()
}

/// The command as printed, with the policy from where the test has put it.
fn with_policy_from_file(command: &str) -> String {
    let (printed, write) = command.split_once(" | ").expect("a pipe");
    assert_eq!(printed, "holdfast-setup seal-token --policy");
    format!("cat policy.hcl | {write}")
}
