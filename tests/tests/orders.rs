//! What operators order, on a real network: a hold keeps a crashed node shut, also with custodians that slept through it, until two
//! operators end it, and no restart revives it; an emergency seals whatever is in its way; and a captured party's word can be made
//! to count for nothing.

#![expect(clippy::print_stdout, reason = "what a test measured is read where it ran")]

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use holdfast_tests::broker::Client;
use holdfast_tests::lab::Lab;
use holdfast_tests::messages::{self, Draft, rfc3339};
use holdfast_tests::programs::{self, Said, program};
use holdfast_tests::relay::Relay;
use holdfast_tests::terminal::Terminal;
use holdfast_tests::wait::{always, until};
use jiff::Timestamp;
use serde_json::{Value, json};

/// How long a node stays sealed for a claim that is about something else than time.
const SAMPLE: Duration = Duration::from_secs(5);

/// How often commands are given at once.
const TWICE: usize = 2;

/// As many messages as a custodian's queue of orders takes.
const ORDERS_MAX_LENGTH: usize = 1_000;

/// How many holds are timed. `HOLDFAST_HOLDS` asks for more.
const HOLDS: usize = 5;

#[test]
fn operators_decide() {
    let mut lab = Lab::up(&[]);
    lab.scenario("a hold, and its end", a_hold_and_its_end);
    lab.scenario("how soon a hold is obeyed", how_soon_a_hold_is_obeyed);
    lab.scenario("two commands of one operator at once", two_commands_at_once);
    lab.scenario("an order that one full queue refuses", one_full_queue);
    lab.scenario("every hold, or every one of an operator's", every_hold);
    lab.scenario("two clusters at one sentinel", two_clusters_at_one_sentinel);
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

/// They read one queue of answers, and each hears all of its own.
fn two_commands_at_once(lab: &mut Lab) {
    let config = lab.path(&lab.file.operator_config);
    let begin = |args: &[&str]| {
        let mut command = Command::new(program("holdfast"));
        command.args(args).args(["--json", "--config"]).arg(&config);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be started")
    };
    let end = |child: Child| json_of(&Said::from(child.wait_with_output().expect("it ends")).well());
    for _ in 0..TWICE {
        let holds = [0, 1, 2].map(|_| begin(&["hold", "--node", "vault-3"])).map(end);
        for done in &holds {
            assert_eq!(done["answers"].as_array().map(Vec::len), Some(5), "{done}");
        }
        let ids = holds.map(|done| done["id"].as_str().expect("an id").to_owned());
        for operator in ["alice", "bob"] {
            for id in &ids {
                lab.holdfast_as(operator, &["release", "--json", "--hold", id]).well();
            }
        }
    }
}

/// A queue that takes no more makes the broker refuse the order, which all the others have: whoever answers has it.
fn one_full_queue(lab: &mut Lab) {
    let queue = "holdfast.custodian.custodian-5.orders";
    let admin = Client::admin(lab);
    lab.kill("custodian-5");
    let mut stuffed = 0..2 * ORDERS_MAX_LENGTH;
    assert!(stuffed.any(|_| admin.rejects("", queue, b"stuffing")), "it takes everything");
    let key = format!("{}.alice.hold", messages::cluster_id(&lab.path(&lab.file.manifest)));
    assert!(admin.rejects("holdfast.orders", &key, b"stuffing"), "the broker refuses what this queue has no room for");
    let said = lab.holdfast(&["hold", "--node", "vault-3"]).well();
    assert!(said.out.contains("custodian-5: no answer") && said.out.contains("4 of 5 custodians obey"), "{said:?}");
    lab.seal("vault-1");
    lab.holdfast(&["approve", "--node", "vault-1"]).well();
    assert!(lab.is_open("vault-1"), "an approval is sent as well");
    admin.purge(queue);
    lab.start("custodian-5");
    let id = lab.status()["holds"][0]["id"].as_str().expect("a hold").to_owned();
    until("it hears of the hold from the others", || obeys(lab, "custodian-5", &id));
    lab.holdfast(&["release", "--json", "--hold", &id]).well();
    lab.holdfast_as("bob", &["release", "--json", "--hold", &id]).well();
}

/// One confirmation, which lists them.
fn every_hold(lab: &mut Lab) {
    let held = |operator: &str, node: &str| {
        let said = lab.holdfast_as(operator, &["hold", "--json", "--node", node, "--reason", operator]).well();
        json_of(&said)["id"].as_str().expect("an id").to_owned()
    };
    let (of_alice, of_bob) = ([held("alice", "vault-1"), held("alice", "vault-2")], held("bob", "vault-3"));
    let told = || lab.status()["holds"].as_array().map_or(0, Vec::len);
    until("the sentinel has heard of all three", || told() == 3);

    let nobody = lab.holdfast(&["release", "--all"]);
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
    assert!(nobody.err.contains("nothing was released") && nobody.err.contains(&of_bob), "{nobody:?}");
    let none = lab.holdfast(&["release", "--by", "carol", "--yes"]);
    assert!(none.code == Some(1) && none.err.contains("tells of a hold by carol"), "{none:?}");
    assert_eq!(lab.holdfast(&["release", "--all", "--hold", &of_bob]).code, Some(2));

    let first = json_of(&lab.holdfast(&["release", "--by", "bob", "--yes", "--json"]).well());
    assert_eq!((first.as_array().map(Vec::len), &first[0]["hold"]), (Some(1), &json!(of_bob)), "{first}");
    let config = lab.path(&lab.file.operators[1].config);
    let program = program("holdfast");
    let mut terminal = Terminal::of(&format!("'{}' release --all --config '{}'", program.display(), config.display()));
    terminal.shows("3 holds of cluster lab:");
    for id in of_alice.iter().chain([&of_bob]) {
        terminal.shows(id);
    }
    terminal.shows("5 of the custodians that are heard obey it");
    terminal.shows("Do you want all of these to end? [yes/no] ");
    terminal.types("yes\n");
    terminal.shows("has heard 1 of 2 operators");
    terminal.shows("the hold is ended at 5 of 5 custodians");
    let (shown, code) = terminal.ends();
    assert!(code == Some(0) && shown.contains("--cluster lab --all"), "{shown}");
    until("bob's has ended, alice's wait for another", || told() == 2);
    let last = lab.holdfast(&["release", "--by", "alice", "--yes"]).well();
    assert!(last.out.contains("2 holds of cluster lab") && !last.out.contains(&of_bob), "{last:?}");
    until("none stands", || told() == 0);
}

/// It is asked once about both, and each is told of once.
fn two_clusters_at_one_sentinel(lab: &mut Lab) {
    let home = lab.path(&lab.file.sentinel.config).with_file_name("");
    let manifest = std::fs::read_to_string(home.join("lab.manifest.json")).expect("a manifest");
    let id = messages::cluster_id(&home.join("lab.manifest.json"));
    let twin = manifest.replace(&id, &messages::random_id());
    let with_twin = |config: &std::path::Path| {
        std::fs::write(config.with_file_name("twin.manifest.json"), &twin).expect("written");
        let text = std::fs::read_to_string(config).expect("a configuration");
        let section = text[text.find("[clusters.lab]").expect("its cluster")..].to_owned();
        (text, section.replace("[clusters.lab", "[clusters.twin").replace("lab.manifest", "twin.manifest"))
    };
    let sentinel = home.join("sentinel.toml");
    let (before, section) = with_twin(&sentinel);
    std::fs::write(&sentinel, format!("{before}\n{section}")).expect("written");
    lab.restart("sentinel");
    until("it watches both", || lab.read_sentinel("/api/v1/status").is_some_and(|page| page.contains("\"twin\"")));

    let at = lab.file.sentinel.url.trim_start_matches("http://").to_owned();
    let relay = Relay::start(([127, 0, 0, 1], 0).into(), vec![at.parse().expect("an address")]);
    let (own, section) = with_twin(&lab.path(&lab.file.operator_config));
    let config = lab.dir().join("operator-of-two.toml");
    let text = format!("{own}\n{section}").replace(&at, &relay.address.to_string());
    std::fs::write(&config, text).expect("written");
    let status = |more: &[&str]| {
        let asked = relay.connections();
        let config = config.to_string_lossy();
        let said = programs::run("holdfast", &[&["status", "--config", &config], more].concat());
        assert_eq!(relay.connections() - asked, 1, "it is asked once: {said:?}");
        said
    };
    let said = status(&[]);
    for cluster in ["lab", "twin"] {
        assert_eq!(said.out.matches(&format!("Would {cluster} open by itself now?")).count(), 1, "{said:?}");
    }
    let clusters =
        |document: &Value| document["clusters"].as_object().expect("clusters").keys().cloned().collect::<Vec<_>>();
    let both = json_of(&status(&["--json"]));
    assert_eq!((clusters(&both), &both["sentinel"]), (vec!["lab".to_owned(), "twin".to_owned()], &json!("sentinel-1")));
    assert_eq!(clusters(&json_of(&status(&["--json", "--cluster", "twin"]))), ["twin"]);
    std::fs::write(&sentinel, before).expect("written");
    lab.restart("sentinel");
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
