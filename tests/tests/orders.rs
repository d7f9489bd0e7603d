//! What operators order, on a real network: a hold keeps a crashed node shut, also with custodians that slept through it, until two
//! operators end it, and no restart revives it; an emergency seals whatever is in its way; and a captured party's word can be made
//! to count for nothing.

#![expect(clippy::print_stdout, reason = "what a test measured is read where it ran")]

use std::time::Duration;

use holdfast_tests::broker::Client;
use holdfast_tests::lab::Lab;
use holdfast_tests::messages::{self, Draft, rfc3339};
use holdfast_tests::programs::{self, Said};
use holdfast_tests::wait::{always, until};
use jiff::Timestamp;
use serde_json::{Value, json};

/// How long a node stays sealed for a claim that is about something else than time.
const SAMPLE: Duration = Duration::from_secs(5);

/// How many holds are timed. `HOLDFAST_HOLDS` asks for more.
const HOLDS: usize = 5;

#[test]
fn operators_decide() {
    let mut lab = Lab::up(&[]);
    lab.scenario("a hold, and its end", a_hold_and_its_end);
    lab.scenario("how soon a hold is obeyed", how_soon_a_hold_is_obeyed);
    lab.scenario("another trust root", another_trust_root);
    lab.scenario("a sentinel that lies", a_sentinel_that_lies);
    lab.scenario("an emergency", an_emergency);
    lab.scenario("an emergency without a broker", an_emergency_without_a_broker);
}

fn json_of(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

fn hold(lab: &Lab, args: &[&str]) -> String {
    let mut line = vec!["hold", "--json"];
    line.extend(args);
    let done = json_of(&lab.holdfast(&line).well());
    done["id"].as_str().expect("an id").to_owned()
}

/// An approval that comes while a hold stands is for nothing, and whoever gave it is told.
fn approved_in_vain(lab: &Lab, node: &str) {
    let said = lab.holdfast(&["approve", "--json", "--no-wait", "--node", node]);
    assert_eq!(said.code, Some(1), "{said:?}");
    for answer in json_of(&said)[0]["answers"].as_array().expect("answers") {
        assert_eq!(answer["effect"]["what"], "inapplicable", "{answer}");
    }
}

/// Whether a custodian says that it obeys this hold.
fn obeys(lab: &Lab, custodian: &str, id: &str) -> bool {
    let beat = lab.heartbeat(custodian);
    let holds = beat["holds"].as_array().cloned().unwrap_or_default();
    lab.is_of_now(custodian, &beat) && holds.iter().any(|hold| hold["id"] == id)
}

fn a_hold_and_its_end(lab: &mut Lab) {
    let node = "vault-1";
    // One is down when it is ordered, and its queue is emptied: it can learn of it only from the others.
    lab.kill("custodian-5");
    let admin = Client::admin(lab);
    let tap = admin.tap("holdfast.orders");
    let id = hold(lab, &["--node", node, "--reason", "asleep"]);
    let (held_under, held) = admin.next(&tap);
    admin.untap(tap);
    Client::admin(lab).purge("holdfast.custodian.custodian-5.orders");
    lab.restart(node);
    until("it answers again", || lab.is_sealed(node));
    lab.start("custodian-5");
    until("the sleeper has learned of the hold", || obeys(lab, "custodian-5", &id));
    always(SAMPLE, "it stays sealed", || !lab.is_open(node));
    let said = lab.holdfast(&["status"]);
    assert!(said.out.contains(&format!("--hold {id}")), "what to type: {said:?}");
    lab.crash("vault-2").expect("another node is not held");

    approved_in_vain(lab, node);
    // One operator is not enough, however often.
    for _ in 0..2 {
        let done = json_of(&lab.holdfast(&["release", "--json", "--hold", &id]).well());
        assert_eq!(done["answers"][0]["effect"], json!({"what": "waiting", "have": 1, "need": 2}));
    }
    for custodian in lab.custodians() {
        lab.restart(&custodian);
    }
    for custodian in lab.custodians() {
        until("it still obeys after its restart", || obeys(lab, &custodian, &id));
    }
    always(SAMPLE, "it stays sealed", || !lab.is_open(node));

    let tap = admin.tap("holdfast.orders");
    let done = json_of(&lab.holdfast_as("bob", &["release", "--json", "--hold", &id]).well());
    assert_eq!(done["answers"].as_array().map(Vec::len), Some(5), "{done}");
    let (routing_key, release) = admin.next(&tap);
    admin.untap(tap);
    // Their restart made its cause unknown; what was approved under the hold does not count.
    always(SAMPLE, "it waits for an approval of after the hold", || !lab.is_open(node));
    lab.approve(node);
    until("released and approved", || lab.is_open(node));
    lab.settle();

    for custodian in lab.custodians() {
        lab.restart(&custodian);
    }
    lab.settle();
    admin.publish("holdfast.orders", &held_under, &held);
    for custodian in lab.custodians() {
        until("the old hold is refused", || lab.refused(&custodian, "replayed") > 0);
    }
    admin.publish("holdfast.orders", &routing_key, &release);
    lab.crash(node).expect("no restart revives the hold, nor what is sent again");
    assert!(lab.custodians().iter().all(|custodian| !obeys(lab, custodian, &id)));
    lab.settle();
}

fn how_soon_a_hold_is_obeyed(lab: &mut Lab) {
    let many = std::env::var("HOLDFAST_HOLDS").ok().and_then(|many| many.parse().ok()).unwrap_or(HOLDS);
    let mut times = Vec::new();
    for _ in 0..many {
        let done = json_of(&lab.holdfast(&["hold", "--json", "--node", "vault-3"]).well());
        let answers = done["answers"].as_array().expect("answers");
        assert_eq!(answers.len(), 5, "{done}");
        times.extend(answers.iter().filter_map(|answer| answer["after_ms"].as_u64()).max());
        let id = done["id"].as_str().expect("an id").to_owned();
        lab.holdfast(&["release", "--json", "--hold", &id]).well();
        lab.holdfast_as("bob", &["release", "--json", "--hold", &id]).well();
    }
    times.sort_unstable();
    println!("        all five have acknowledged a hold after {times:?} ms");
}

fn another_trust_root(lab: &mut Lab) {
    let old = std::fs::read_to_string(lab.path(&lab.file.allowed_signers)).expect("the trust root");
    // Alice's key was stolen: hers is replaced by another.
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("alice-new.key");
    programs::tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &key.to_string_lossy()]).well();
    let public = std::fs::read_to_string(key.with_extension("key.pub")).expect("its public half");
    let public = public.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let new: String = old
        .lines()
        .map(|line| match line.strip_prefix("alice ") {
            Some(rest) => {
                let options = rest.split_whitespace().next().expect("options");
                format!("alice {options} {public}\n")
            }
            None => format!("{line}\n"),
        })
        .collect();
    let file = folder.path().join("allowed_signers.new");
    std::fs::write(&file, &new).expect("a file");
    let path = file.to_string_lossy().into_owned();

    let first = json_of(&lab.holdfast(&["trust", "--json", &path]).well());
    assert_eq!(first["answers"][0]["effect"]["what"], "waiting", "{first}");
    let second = json_of(&lab.holdfast_as("bob", &["trust", "--json", &path]).well());
    assert_eq!(second["answers"].as_array().map(Vec::len), Some(5), "{second}");
    assert_eq!(second["answers"][0]["effect"]["what"], "in-force", "{second}");

    let refused: Vec<_> = lab.custodians().iter().map(|custodian| lab.refused(custodian, "forged")).collect();
    lab.holdfast(&["approve", "--json", "--no-wait", "--node", "vault-1"]).well();
    for (custodian, before) in lab.custodians().iter().zip(refused) {
        until("the old key counts for nothing", || lab.refused(custodian, "forged") > before);
    }
    // Who starts again, follows the order and not its file.
    lab.restart("custodian-2");
    until("custodian-2 follows it still", || {
        let beat = lab.heartbeat("custodian-2");
        lab.is_of_now("custodian-2", &beat) && beat["trust_version"] == 1
    });

    let judges_by = |lab: &Lab| lab.status()["trust"]["version"].as_u64();
    until("the sentinel follows, and nobody logged in there", || judges_by(lab) == Some(1));

    // Back again, by bob and alice's new key: the way it went. The sentinel is down, and what its queue holds is lost.
    lab.kill("sentinel");
    let back = folder.path().join("allowed_signers.old");
    std::fs::write(&back, &old).expect("a file");
    let alice = with(lab, "operator.toml", &[("allowed_signers", &path), ("key", &key.to_string_lossy())]);
    let bob = with(lab, "operators/bob.toml", &[("allowed_signers", &path)]);
    for config in [alice, bob] {
        let back = back.to_string_lossy().into_owned();
        programs::run("holdfast", &["trust", "--json", "--number", "2", &back, "--config", &config]).well();
    }
    Client::admin(lab).purge("holdfast.sentinel.sentinel-1");
    lab.start("sentinel");
    until("the sentinel has asked for what it missed", || judges_by(lab) == Some(2));
    for custodian in lab.custodians() {
        until("version 2 is in force", || lab.heartbeat(&custodian)["trust_version"] == 2);
    }
    lab.crash("vault-1").expect("nothing of that hinders an opening");
    lab.settle();
}

/// A copy, beside it, of an operator's configuration in which these keys have other values. Gives its path.
fn with(lab: &Lab, config: &str, values: &[(&str, &str)]) -> String {
    let at = lab.dir().join(config);
    let text = std::fs::read_to_string(&at).expect("a configuration");
    let lines = text.lines().map(|line| {
        let changed = values.iter().find(|(name, _)| line.starts_with(&format!("{name} =")));
        changed.map_or_else(|| line.to_owned(), |(name, value)| format!("{name} = {value:?}"))
    });
    let copy = at.with_extension("new.toml");
    std::fs::write(&copy, lines.collect::<Vec<_>>().join("\n")).expect("a file");
    copy.to_string_lossy().into_owned()
}

fn a_sentinel_that_lies(lab: &mut Lab) {
    let (node, sentinel) = ("vault-2", "sentinel-1");
    let admin = Client::admin(lab);
    let key = lab.dir().join("sentinel-1/signing.key");
    let cluster = messages::cluster_id(&lab.path(&lab.file.manifest));
    let lie = |admin: &Client| {
        let mut draft = Draft::approval(&cluster, sentinel, node);
        draft.kind = "event".into();
        draft.expires_at = None;
        draft.content =
            json!({"node": node, "seen": "sealed", "cause": "in-place", "seen_at": rfc3339(Timestamp::now())});
        admin.publish("holdfast.events", &draft.routing_key(), &messages::seal(&draft.body(), "holdfast.event", &key));
    };
    lab.restart(node);
    lie(&admin);
    until("it answers again", || lab.is_sealed(node));
    always(SAMPLE, "a captured sentinel can keep it shut", || !lab.is_open(node));

    lab.holdfast(&["distrust", "--json", sentinel]).well();
    always(SAMPLE, "one operator is not enough", || !lab.is_open(node));
    lab.holdfast_as("bob", &["distrust", "--json", sentinel]).well();
    until("its marker counts for nothing", || lab.is_open(node));
    let before = lab.refused("custodian-1", "distrusted");
    lie(&admin);
    until("what it says is refused, and counted", || lab.refused("custodian-1", "distrusted") > before);
    lab.restart("custodian-1");
    lab.settle();
    lab.crash(node).expect("it opens by itself without the sentinel's word");
    lab.holdfast(&["distrust", "--json", "--lift", sentinel]).well();
    lab.holdfast_as("bob", &["distrust", "--json", "--lift", sentinel]).well();
    lab.settle();
}

fn an_emergency(lab: &mut Lab) {
    let token = lab.path(&lab.file.root_token_file).to_string_lossy().into_owned();
    let done = json_of(&lab.holdfast(&["seal", "--emergency", "--json", "--token-file", &token]).well());
    assert_eq!(done["held"], true, "{done}");
    assert_eq!(done["sealed"].as_array().map(Vec::len), Some(3), "{done}");
    assert!(lab.nodes().iter().all(|node| lab.is_sealed(node)));
    lab.restart("vault-1");
    until("it answers again", || lab.is_sealed("vault-1"));
    approved_in_vain(lab, "vault-1");
    always(SAMPLE, "held and sealed", || lab.nodes().iter().all(|node| !lab.is_open(node)));
    let id = done["id"].as_str().expect("an id");
    lab.holdfast(&["release", "--hold", id]).well();
    lab.holdfast_as("bob", &["release", "--hold", id]).well();
    lab.holdfast(&["approve", "--all"]).well();
    lab.settle();
}

fn an_emergency_without_a_broker(lab: &mut Lab) {
    let token = lab.path(&lab.file.root_token_file).to_string_lossy().into_owned();
    lab.kill("broker");
    // A node that hangs cannot be sealed, and is named.
    lab.signal("vault-3", holdfast_tests::processes::Signal::STOP);
    let said = lab.holdfast(&["seal", "--emergency", "--token-file", &token]);
    lab.signal("vault-3", holdfast_tests::processes::Signal::CONT);
    assert_eq!(said.code, Some(1), "{said:?}");
    for part in
        ["vault-1: sealed", "vault-2: sealed", "vault-3: NOT SEEN SEALED", "THE HOLD IS NOT IN FORCE", "custodian-4"]
    {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
    assert!(lab.is_sealed("vault-1") && lab.is_sealed("vault-2"));
    // Without --emergency nothing is sealed that would be opened again.
    let said = lab.holdfast(&["seal", "--wait", "2", "--token-file", &token]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("nothing was sealed"), "{said:?}");
    lab.start_broker();
    until("approvals can be sent again", || lab.holdfast(&["approve", "--all", "--no-wait"]).code == Some(0));
    lab.settle();
}
