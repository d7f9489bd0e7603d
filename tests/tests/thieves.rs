//! Each party that docs/SECURITY.md names ("Who attacks, and what they get") is captured in a real network: somebody has its key, its
//! share and its password, is the broker's administrator besides, and speaks by docs/PROTOCOL.md and not by our code. What he
//! cannot do is looked at in the nodes themselves; what he can do is done, and then the honest get out of it.
//!
//! Not one share is released for any of them, but where a line says that one is; every byte that went through the broker, to
//! whoever stood in a node's place, and over the wire to a node, is searched for shares.

#![expect(clippy::print_stdout, reason = "what a test measured is read where it ran")]

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_tests::broker::{Client, Tap};
use holdfast_tests::impostor::{Asked, Front, Impostor, Reply, answer, sealed};
use holdfast_tests::lab::Lab;
use holdfast_tests::messages::{self, Draft, rfc3339};
use holdfast_tests::programs;
use holdfast_tests::relay::Relay;
use holdfast_tests::shares::{Needles, of_lab};
use holdfast_tests::tls::{self, Authority};
use holdfast_tests::wait::{always, until};
use jiff::Timestamp;
use serde_json::{Value, json};

/// How long a node is looked at that must stay as it is.
const SAMPLE: Duration = Duration::from_secs(2);

/// How much a flood is.
const FLOOD: usize = 300;

/// The lab's numbers.
const THRESHOLD: u8 = 3;
const SHARES: u8 = 5;

/// What takes an hour in earnest.
const SECOND: Duration = Duration::from_secs(1);

const EXCHANGES: [&str; 4] = ["holdfast.orders", "holdfast.events", "holdfast.intents", "holdfast.reports"];

/// What every thief has: the broker, as its administrator, and everybody's words as they pass.
struct Den {
    admin: Client,
    taps: RefCell<Vec<Tap>>,
    cluster: String,
    needles: Needles,
}

#[test]
fn no_thief_of_a_key_gets_more_than_the_page_says() {
    let mut lab = Lab::up(&[]);
    let den = Den::dig(&mut lab);
    lab.scenario("a stolen sentinel", |lab| sentinel(lab, &den));
    lab.scenario("a stolen custodian", |lab| custodian(lab, &den));
    lab.scenario("a stolen conductor", |lab| conductor(lab, &den));
    lab.scenario("a stolen operator", |lab| operator(lab, &den));
    den.searched();
}

#[test]
fn no_thief_of_the_network_gets_more_than_the_page_says() {
    let mut lab = Lab::up(&[]);
    let den = Den::dig(&mut lab);
    lab.scenario("a stranger on the node's port", |lab| stranger(lab, &den));
    lab.scenario("somebody in a node's place", |lab| in_a_nodes_place(lab, &den));
    // The node stays behind what reads the wire until the lab ends.
    let mut wire = None;
    lab.scenario("somebody on the wire", |lab| wire = Some(on_the_wire(lab, &den)));
    lab.scenario("a stolen broker", |lab| broker(lab, &den));
}

impl Den {
    /// A lab's, whose policy is the default one.
    fn dig(lab: &mut Lab) -> Self {
        the_policy_is_the_default_one(lab);
        let admin = Client::admin(lab);
        let taps = EXCHANGES.map(|exchange| admin.tap(exchange));
        let cluster = messages::cluster_id(&lab.path(&lab.file.manifest));
        let shares: Vec<_> = lab.custodians().iter().map(|custodian| of_lab(lab, custodian)).collect();
        Self { admin, taps: RefCell::new(taps.into()), cluster, needles: Needles::of(&shares) }
    }

    /// Says something with a key, where those who may say such things say it.
    fn say(&self, key: &Path, draft: &Draft) {
        let exchange = match draft.kind.as_str() {
            "event" => "holdfast.events",
            "intent" => "holdfast.intents",
            "approval" | "hold" | "release" | "distrust" | "trust" => "holdfast.orders",
            _ => "holdfast.reports",
        };
        self.admin.publish(exchange, &draft.routing_key(), &draft.signed(key));
    }

    fn message(&self, kind: &str, from: &str, content: Value) -> Draft {
        Draft::message(kind, &self.cluster, from, content)
    }

    fn approval(&self, from: &str, node: &str) -> Draft {
        Draft::approval(&self.cluster, from, node)
    }

    /// That somebody saw a node sealed in place, or whatever else.
    fn seen(&self, kind: &str, from: &str, node: &str, seen: &str, cause: &str) -> Draft {
        let content = json!({"node": node, "seen": seen, "cause": cause, "seen_at": rfc3339(Timestamp::now())});
        self.message(kind, from, content)
    }

    /// That a custodian's share opened a node.
    fn receipt(&self, from: &str, node: &str, result: &str) -> Draft {
        let now = rfc3339(Timestamp::now());
        self.message(
            "receipt",
            from,
            json!({"node": node, "incident": messages::random_id(), "round": 0, "cause": "restart", "approvals": [],
                "x": 1, "result": result, "nonce": "", "progress": 0, "sealed_seen_at": now, "submitted_at": now,
                "answered_at": now}),
        )
    }

    /// Every order that takes several operators, and an approval, as somebody would sign them.
    fn orders(&self, lab: &Lab, from: &str, node: &str, hold: &str) -> Vec<Draft> {
        let file = std::fs::read_to_string(lab.path(&lab.file.allowed_signers)).expect("the trust root");
        let root = messages::sha256(file.as_bytes());
        let trust = json!({"version": 1, "previous_sha256": root, "allowed_signers": format!("{file}\n# mine\n")});
        let release = json!({"hold": hold, "by": "alice", "held_at": rfc3339(Timestamp::now()), "nodes": [node]});
        vec![
            self.approval(from, node),
            self.message("release", from, release),
            self.message("distrust", from, json!({"principal": "custodian-1"})),
            self.message("trust", from, trust),
        ]
    }

    /// Each of these comes to nothing: every custodian refuses it, and counts it.
    fn refused(&self, lab: &Lab, key: &Path, drafts: &[Draft]) {
        let before: Vec<_> = honest(lab).iter().map(|custodian| refusals(lab, custodian)).collect();
        for draft in drafts {
            self.say(key, draft);
        }
        for (custodian, before) in honest(lab).iter().zip(before) {
            let due = before + drafts.len() as u64;
            until(&format!("{custodian} has refused {} messages", drafts.len()), || refusals(lab, custodian) >= due);
        }
    }

    /// Everything that was said was read by everybody, and nobody found a byte of a share in it.
    fn searched(&self) {
        let (mut messages, mut bytes) = (0, 0);
        for tap in self.taps.borrow_mut().drain(..) {
            for (routing_key, body) in self.admin.all(&tap) {
                let envelope: Value = serde_json::from_slice(&body).unwrap_or_default();
                let inner = messages::unbase64(envelope["body"].as_str().unwrap_or_default());
                assert_eq!(self.needles.find(&body), None, "a share in {routing_key}");
                assert_eq!(self.needles.find(&inner), None, "a share in {routing_key}");
                (messages, bytes) = (messages + 1, bytes + body.len());
            }
            self.admin.untap(tap);
        }
        assert!(messages > 100, "only {messages} messages were looked at");
        println!("        no share in {messages} messages of {bytes} bytes");
    }
}

/// The custodians that run: a thief ends the program whose key he has.
fn honest(lab: &Lab) -> Vec<String> {
    lab.custodians().into_iter().filter(|custodian| lab.runs(custodian)).collect()
}

/// How many messages a custodian has refused, for whatever reason.
fn refusals(lab: &Lab, custodian: &str) -> u64 {
    let beat = lab.heartbeat(custodian);
    beat["rejected"].as_object().map_or(0, |all| all.values().filter_map(Value::as_u64).sum())
}

/// How often a custodian's share left it, by its audit log: what it was about to do, and what came of it.
fn releases(lab: &Lab) -> usize {
    lab.custodians().iter().map(|custodian| lab.audited(custodian, "release").len()).sum()
}

fn submissions(lab: &Lab) -> usize {
    lab.custodians().iter().map(|custodian| lab.audited(custodian, "submitted").len()).sum()
}

/// What is tried in `attack` opens nothing, now or in a while, and no share leaves anybody for it.
fn nothing_opens(lab: &Lab, node: &str, attack: impl FnOnce()) {
    let before = (releases(lab), submissions(lab));
    attack();
    always(SAMPLE, "it stays sealed", || !lab.is_open(node));
    assert_eq!((releases(lab), submissions(lab)), before, "a share was released");
}

fn signing_key(lab: &Lab, party: &str) -> PathBuf {
    lab.dir().join(party).join("signing.key")
}

fn operators_key(lab: &Lab, operator: &str) -> PathBuf {
    let known = lab.file.operators.iter().find(|known| known.id == operator).expect("an operator");
    lab.path(&known.key)
}

/// What each custodian's heartbeat says under this name.
fn beats(lab: &Lab, field: &str) -> Vec<Value> {
    honest(lab).iter().map(|custodian| lab.heartbeat(custodian)[field].clone()).collect()
}

/// A deliberate seal takes two operators, as it does where nobody says otherwise.
fn the_policy_is_the_default_one(lab: &mut Lab) {
    let before = beats(lab, "policy_sha256");
    for custodian in lab.custodians() {
        lab.edit(&custodian, "in_place_approvals = 1\n", "");
        lab.signal(&custodian, holdfast_tests::processes::Signal::HUP);
    }
    until("every custodian tells of the new policy", || {
        beats(lab, "policy_sha256").iter().zip(&before).all(|(now, before)| now != before && !now.is_null())
    });
}

/// Somebody in the bank seals a node on purpose, and everybody knows.
fn seal_on_purpose(lab: &Lab, node: &str) {
    lab.seal(node);
    known_as(lab, node, "in-place", &json!({"what": "approvals", "have": 0, "need": 2}));
}

/// Every custodian tells of a node this cause, and what it waits for.
fn known_as(lab: &Lab, node: &str, cause: &str, needs: &Value) {
    for custodian in honest(lab) {
        until(&format!("{custodian} says that {node} is {cause} and needs {needs}"), || {
            let told = &lab.heartbeat(&custodian)["nodes"][node];
            told["cause"] == cause && told["needs"] == *needs
        });
    }
}

/// The two operators agree, and so it opens.
fn open_together(lab: &Lab, node: &str) {
    for operator in ["alice", "bob"] {
        lab.holdfast_as(operator, &["approve", "--json", "--no-wait", "--node", node]).well();
    }
    until("two operators open it", || lab.is_open(node));
}

/// Both operators say this.
fn together(lab: &Lab, words: &[&str]) {
    for operator in ["alice", "bob"] {
        lab.holdfast_as(operator, words).well();
    }
}

/// The same, where somebody will not acknowledge it.
fn both_say(lab: &Lab, den: &Den, kind: &str, content: &Value) {
    for operator in ["alice", "bob"] {
        den.say(&operators_key(lab, operator), &den.message(kind, operator, content.clone()));
    }
}

/// No key at all, and the port of the node.
fn stranger(lab: &mut Lab, den: &Den) {
    let node = "vault-1";
    let key = messages::strangers_key(lab.dir());
    seal_on_purpose(lab, node);
    let url = lab.url(node).to_owned();
    nothing_opens(lab, node, || {
        for number in 0..3 * THRESHOLD {
            lab.eyes.submit(&url, &hex::encode([number + 1; 33]));
        }
        lab.eyes.reset(&url);
        den.refused(lab, &key, &[den.approval("alice", node), den.approval("mallory", node)]);
    });
    open_together(lab, node);
    lab.settle();

    // He can disturb: wrong shares and resets, as fast as he can, while a node that crashed is to be opened.
    lab.restart(node);
    let url = lab.url(node).to_owned();
    until("it answers", || lab.eyes.look(&url).is_some());
    let began = std::time::Instant::now();
    while began.elapsed() < SECOND && !lab.is_open(node) {
        lab.eyes.submit(&url, &hex::encode([7; 33]));
        lab.eyes.reset(&url);
    }
    until("he is outlasted", || lab.is_open(node));
}

fn sentinel(lab: &mut Lab, den: &Den) {
    let (node, me, key) = ("vault-2", "sentinel-1", signing_key(lab, "sentinel-1"));
    seal_on_purpose(lab, node);
    nothing_opens(lab, node, || {
        // What he may say permits nothing, whatever it is.
        for (seen, cause) in [("open", "restart"), ("sealed", "restart"), ("lost", "outage"), ("sealed", "unknown")] {
            den.say(&key, &den.seen("event", me, node, seen, cause));
        }
        let mut others = den.orders(lab, me, node, &messages::random_id());
        others.extend(den.orders(lab, "alice", node, &messages::random_id()));
        others.extend([den.receipt(me, node, "opened"), den.receipt("custodian-1", node, "opened")]);
        others.push(den.message("hold", me, json!({"nodes": [node]})));
        den.refused(lab, &key, &others);
        // Nor does the broker let its user say it.
        let password = PathBuf::from(me).join("broker.password");
        let own = Client::party(lab, me, &password);
        let draft = den.approval("alice", node);
        let words = own.refused("holdfast.orders", &draft.routing_key(), &draft.signed(&key));
        assert!(words.is_some_and(|words| words.contains("ACCESS_REFUSED")), "the broker took it");
    });
    open_together(lab, node);
    lab.settle();

    // He can keep a node shut that crashed, until two operators say that his word counts for nothing.
    lab.restart(node);
    den.say(&key, &den.seen("event", me, node, "sealed", "in-place"));
    until("it answers again", || lab.is_sealed(node));
    let shut = releases(lab);
    always(SAMPLE, "his marker keeps it shut", || !lab.is_open(node));
    lab.holdfast_as("bob", &["distrust", "--json", me]).well();
    always(SECOND, "one operator is not enough", || !lab.is_open(node));
    assert!(releases(lab) - shut <= usize::from(SHARES), "what was on its way when his word came was called back");
    lab.holdfast_as("alice", &["distrust", "--json", me]).well();
    until("his marker counts for nothing", || lab.is_open(node));
    den.refused(lab, &key, &[den.seen("event", me, node, "sealed", "in-place")]);
    together(lab, &["distrust", "--json", "--lift", me]);
}

fn custodian(lab: &mut Lab, den: &Den) {
    let (node, me, key) = ("vault-3", "custodian-5", signing_key(lab, "custodian-5"));
    let share = hex::encode(of_lab(lab, me));
    let lie = lies(lab, me, node);
    lab.kill(me);
    seal_on_purpose(lab, node);
    let url = lab.url(node).to_owned();
    nothing_opens(lab, node, || {
        // Its own share is his: the one that is released in this scenario, and by no custodian's program. He has no second.
        for _ in 0..THRESHOLD {
            lab.eyes.submit(&url, &share);
        }
        assert_eq!(lab.eyes.look(&url).map(|status| status.progress), Some(1), "the same share counts once");
        let relay = |envelope: &[u8]| {
            let content = json!({"to": "custodian-1", "envelope": String::from_utf8_lossy(envelope)});
            den.message("relay", me, content)
        };
        den.say(&key, &relay(&den.approval("alice", node).signed(&key)));
        den.say(&key, &den.message("want", me, json!({"of": "custodian-1", "sha256": ["00".repeat(32)]})));
        den.say(&key, &den.message("heartbeat", me, lie));
        den.say(&key, &den.seen("sighting", me, node, "open", "restart"));
        den.say(&key, &den.receipt(me, node, "opened"));
        den.say(&key, &den.receipt(me, node, "counted"));
        let mut others = den.orders(lab, me, node, &messages::random_id());
        others.extend(den.orders(lab, "alice", node, &messages::random_id()));
        others.push(den.receipt("custodian-1", node, "opened"));
        others.push(den.seen("event", "sentinel-1", node, "open", "restart"));
        others.push(den.message("hold", me, json!({"nodes": [node]})));
        den.refused(lab, &key, &others);
        until("what was passed on is no operator's word", || lab.refused("custodian-1", "forged") > 0);
    });
    assert!(beats(lab, "holds").iter().all(Value::is_null), "a hold that no operator ordered is obeyed");
    voids_what_one_approved(lab, den, node);

    both_say(lab, den, "distrust", &json!({"principal": me}));
    until("its word counts for nothing", || beats(lab, "distrusted").iter().all(|all| *all == json!([me])));
    den.refused(
        lab,
        &key,
        &[den.receipt(me, node, "opened"), den.seen("sighting", me, "vault-1", "sealed", "in-place")],
    );
    open_together(lab, node);
    lab.crash("vault-1").expect("his marker keeps nothing shut any more");
    both_say(lab, den, "distrust", &json!({"principal": me, "lift": true}));
    until("its word counts again", || beats(lab, "distrusted").iter().all(Value::is_null));
    lab.start(me);
}

/// A heartbeat that says of a node that it is open, and that there is a hold and an order that nobody has.
fn lies(lab: &Lab, custodian: &str, node: &str) -> Value {
    let mut beat = lab.heartbeat(custodian);
    let hold = json!({"id": messages::random_id(), "by": "alice", "held_at": rfc3339(Timestamp::now()), "need": 2});
    (beat["holds"], beat["orders"]) = (json!([hold]), json!(["00".repeat(32)]));
    beat["nodes"][node]["seen"] = "open".into();
    beat
}

/// He says that it opened meanwhile: then what one operator approved before is void, and another has to begin anew.
fn voids_what_one_approved(lab: &Lab, den: &Den, node: &str) {
    let (me, key) = ("custodian-5", signing_key(lab, "custodian-5"));
    let needs = |have: u8| json!({"what": "approvals", "have": have, "need": 2});
    lab.eyes.reset(lab.url(node));
    lab.holdfast_as("alice", &["approve", "--json", "--no-wait", "--node", node]).well();
    known_as(lab, node, "in-place", &needs(1));
    nothing_opens(lab, node, || {
        den.say(&key, &den.receipt(me, node, "opened"));
        known_as(lab, node, "in-place", &needs(0));
        lab.holdfast_as("bob", &["approve", "--json", "--no-wait", "--node", node]).well();
        known_as(lab, node, "in-place", &needs(1));
    });
}

/// custodian-1 may announce drills: its key has the namespace.
fn conductor(lab: &mut Lab, den: &Den) {
    let (node, me, key) = ("vault-1", "custodian-1", signing_key(lab, "custodian-1"));
    let intent = |from: &str, node: &str| {
        let (drill, slot) = (messages::random_id(), rfc3339(Timestamp::now()));
        let submitters = ["custodian-1", "custodian-2", "custodian-3"];
        let content = json!({"drill": drill, "node": node, "slot": slot, "submitters": submitters});
        Draft { expires_at: Some(Timestamp::now() + 600 * SECOND), ..den.message("intent", from, content) }
    };
    // What is sealed already is nobody's drill, however often he announces one.
    seal_on_purpose(lab, node);
    nothing_opens(lab, node, || {
        for _ in 0..3 {
            den.say(&key, &intent(me, node));
        }
        let mut forged = den.approval("alice", node);
        forged.expires_at = Some(Timestamp::now() + 60 * SECOND);
        // An intent is no approval, under whatever name its key signs.
        let envelope = messages::seal(&den.approval(me, node).body(), "holdfast.intent", &key);
        den.admin.publish("holdfast.orders", &den.approval(me, node).routing_key(), &envelope);
        den.refused(lab, &key, &[den.approval(me, node), forged, intent("custodian-2", node)]);
    });
    // He can seal, which is what he is there for; two people open it.
    open_together(lab, node);
}

fn operator(lab: &mut Lab, den: &Den) {
    let (node, me, key) = ("vault-2", "alice", operators_key(lab, "alice"));
    seal_on_purpose(lab, node);
    nothing_opens(lab, node, || {
        // As often as he likes, under her name and others': he is one operator.
        for _ in 0..3 {
            den.say(&key, &den.approval(me, node));
        }
        den.refused(lab, &key, &[den.approval("bob", node), den.approval("mallory", node)]);
        known_as(lab, node, "in-place", &json!({"what": "approvals", "have": 1, "need": 2}));
        for draft in den.orders(lab, me, node, &messages::random_id()) {
            den.say(&key, &draft);
        }
    });
    assert!(beats(lab, "trust_version").iter().all(|version| version.is_null()), "one operator changed keys");
    assert!(beats(lab, "distrusted").iter().all(|all| all.as_array().is_none_or(Vec::is_empty)), "one distrusted");

    // He can hold everything shut, and cannot end it.
    let hold = den.message("hold", me, json!({"reason": "mine now"}));
    den.say(&key, &hold);
    known_as(lab, node, "in-place", &json!({"what": "hold"}));
    let release = json!({"hold": hold.id, "by": me, "held_at": rfc3339(hold.issued_at)});
    nothing_opens(lab, node, || {
        for _ in 0..3 {
            den.say(&key, &den.message("release", me, release.clone()));
        }
    });

    // The people take her key away from him, and then end what he ordered.
    let folder = tempfile::tempdir().expect("a folder");
    let old = std::fs::read_to_string(lab.path(&lab.file.allowed_signers)).expect("the trust root");
    let (new_key, new) = replaced(folder.path(), &old, me);
    let file = folder.path().join("allowed_signers.new").to_string_lossy().into_owned();
    std::fs::write(&file, new).expect("a file");
    together(lab, &["trust", "--json", &file]);
    until("another trust root is in force", || beats(lab, "trust_version").iter().all(|version| *version == 1));
    den.refused(lab, &key, &[den.approval(me, node), den.message("hold", me, json!({}))]);
    for (from, key) in [(me, &new_key), ("bob", &operators_key(lab, "bob"))] {
        den.say(key, &den.message("release", from, release.clone()));
    }
    known_as(lab, node, "in-place", &json!({"what": "approvals", "have": 0, "need": 2}));

    // Where the policy asks for one, one is enough: the releases of this scenario, for a cause that nobody can tell.
    den.say(&new_key, &den.approval(me, node));
    nothing_opens(lab, node, || den.refused(lab, &key, &[den.approval(me, node)]));
    den.say(&operators_key(lab, "bob"), &den.approval("bob", node));
    until("the two honest keys open it", || lab.is_open(node));

    // Back to the keys of before, for the next thief.
    let previous = std::fs::read(&file).expect("the file in force");
    let back = json!({"version": 2, "previous_sha256": messages::sha256(&previous), "allowed_signers": old});
    for (from, key) in [(me, &new_key), ("bob", &operators_key(lab, "bob"))] {
        den.say(key, &den.message("trust", from, back.clone()));
    }
    until("the first trust root is in force again", || beats(lab, "trust_version").iter().all(|v| *v == 2));

    one_operator_opens_what_nobody_can_tell(lab, den, &key);
}

/// A captured operator's key does what the page says that it can: three custodians were restarted while the node was away.
fn one_operator_opens_what_nobody_can_tell(lab: &mut Lab, den: &Den, key: &Path) {
    lab.settle();
    let (node, gone) = ("vault-3", ["custodian-1", "custodian-2", "custodian-3"]);
    for custodian in gone {
        lab.kill(custodian);
    }
    lab.restart(node);
    until("it answers again", || lab.is_sealed(node));
    for custodian in gone {
        lab.start(custodian);
    }
    for custodian in gone {
        until("they cannot tell", || lab.heartbeat(custodian)["nodes"][node]["cause"] == "unknown");
    }
    always(SECOND, "it waits for one operator", || !lab.is_open(node));
    den.say(key, &den.approval("alice", node));
    until("any operator's key opens it", || lab.is_open(node));
}

/// Replaces a principal's key in a trust root by a new one.
fn replaced(folder: &Path, old: &str, principal: &str) -> (PathBuf, String) {
    let key = folder.join("new.key");
    programs::tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &key.to_string_lossy()]);
    let public = std::fs::read_to_string(key.with_extension("key.pub")).expect("its public half");
    let public = public.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let line = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [name, options, ..] if name == principal => format!("{name} {options} {public}\n"),
        _ => format!("{line}\n"),
    };
    (key, old.lines().map(line).collect())
}

/// The broker's administrator drops, delays, repeats, withholds, floods, and puts one queue's messages into another.
fn broker(lab: &mut Lab, den: &Den) {
    let (node, alice, bob) = ("vault-1", operators_key(lab, "alice"), operators_key(lab, "bob"));
    let queue = |custodian: &str, which: &str| format!("holdfast.custodian.{custodian}.{which}");
    let key = format!("{}.*.*", den.cluster);

    // Withheld: nobody hears anything of a hold, and its operator is told so. Given to one, late: he tells the others.
    let all = lab.custodians();
    let tap = den.admin.tap("holdfast.orders");
    for custodian in &all {
        den.admin.bind(&queue(custodian, "orders"), "holdfast.orders", &key, false);
    }
    let said = lab.holdfast_as("bob", &["hold", "--json", "--wait", "1", "--node", node]);
    assert_ne!(said.code, Some(0), "it says that nobody has acknowledged: {said:?}");
    let (_, hold) = den.admin.next(&tap);
    den.admin.untap(tap);
    assert!(beats(lab, "holds").iter().all(Value::is_null), "it was not withheld");
    den.admin.publish("", &queue("custodian-4", "orders"), &hold);
    for custodian in &all {
        until(&format!("{custodian} heard of it, or of another"), || {
            lab.heartbeat(custodian)["holds"].as_array().is_some_and(|holds| !holds.is_empty())
        });
    }
    lab.restart(node);
    until("it answers again", || lab.is_sealed(node));
    nothing_opens(lab, node, || {});
    for custodian in &all {
        den.admin.bind(&queue(custodian, "orders"), "holdfast.orders", &key, true);
    }
    let hold: Value = serde_json::from_slice(&hold).expect("JSON");
    let hold = messages::unbase64(hold["body"].as_str().expect("a body"));
    let hold: Value = serde_json::from_slice(&hold).expect("JSON");
    let id = hold["id"].as_str().expect("an id").to_owned();
    together(lab, &["release", "--json", "--hold", &id]);
    until("released, it opens", || lab.is_open(node));
    lab.settle();

    seal_on_purpose(lab, node);
    // Delayed: what was good for ten seconds comes after twelve.
    let mut late = [den.approval("alice", node), den.approval("bob", node)];
    for draft in &mut late {
        draft.issued_at = Timestamp::now() - 12 * SECOND;
        draft.expires_at = Some(Timestamp::now() - 2 * SECOND);
    }
    nothing_opens(lab, node, || {
        den.refused(lab, &alice, &late[..1]);
        den.refused(lab, &bob, &late[1..]);
    });
    // Swapped: what belongs into one queue comes in the other, and in somebody else's.
    let first = den.approval("alice", node).signed(&alice);
    nothing_opens(lab, node, || {
        for custodian in lab.custodians() {
            for _ in 0..3 {
                den.admin.publish("", &queue(&custodian, "peers"), &first);
                den.admin.publish("", &queue(&custodian, "orders"), &first);
            }
        }
        known_as(lab, node, "in-place", &json!({"what": "approvals", "have": 1, "need": 2}));
    });
    // Flooded, an order still comes through.
    let junk = den.message("heartbeat", "custodian-1", json!({}));
    for number in 0..FLOOD {
        den.admin.publish("holdfast.reports", &junk.routing_key(), format!("{number}").as_bytes());
    }
    let second = den.approval("bob", node);
    den.say(&bob, &second);
    until("two operators' approvals open it in a flood", || lab.is_open(node));
    lab.settle();
    // Replayed: both again, after the next seal.
    seal_on_purpose(lab, node);
    nothing_opens(lab, node, || {
        for envelope in [&first, &second.signed(&bob)] {
            den.admin.publish("holdfast.orders", &second.routing_key(), envelope);
        }
        for custodian in lab.custodians() {
            until("they were refused", || lab.refused(&custodian, "replayed") >= 2);
        }
    });
    den.searched();
    // Dropped: with no broker at all, people carry it by hand.
    lab.kill("broker");
    for operator in ["alice", "bob"] {
        by_hand(lab, den, operator, node);
    }
    until("what was carried by hand opens it", || lab.is_open(node));
    lab.start_broker();
}

/// An approval in a file, brought to three hosts.
fn by_hand(lab: &Lab, den: &Den, operator: &str, node: &str) {
    let file = lab.dir().join(format!("{operator}.approval.json"));
    std::fs::write(&file, den.approval(operator, node).signed(&operators_key(lab, operator))).expect("a file");
    for custodian in ["custodian-1", "custodian-2", "custodian-3"] {
        let config = lab.path(&lab.custodian(custodian).config);
        let words: [&Path; 4] = [Path::new("deliver"), Path::new("--config"), &config, &file];
        programs::run("holdfast-setup", &words).well();
    }
}

/// A sealed node that takes shares.
fn as_a_node(asked: &Asked) -> Reply {
    let mut status = sealed(THRESHOLD, SHARES);
    if asked.is_unseal() {
        (status["progress"], status["nonce"]) = (1.into(), "b7a1c2d3".into());
    }
    answer(&status)
}

/// Somebody took a node's address, and everybody's connections lead to him.
fn in_a_nodes_place(lab: &mut Lab, den: &Den) {
    let node = "vault-3";
    let place: SocketAddr = lab.url(node).trim_start_matches("https://").parse().expect("an address");
    let folder = lab.dir().join(node);
    let own = tls::server(&folder.join("tls.pem"), &folder.join("tls.key"));
    let another_ca = Authority::new("another CA").issue(&["127.0.0.1"]).server();
    let another_key = Authority::of_lab(lab).issue(&["127.0.0.1"]).server();
    // The node crashes, which would open it by itself; but it is somebody else that answers.
    let before = releases(lab);
    lab.kill(node);
    for (what, server) in [("another CA", another_ca), ("another key than the pinned one", another_key)] {
        let impostor = Impostor::start_at(place, Front::Tls(server), as_a_node);
        for custodian in lab.custodians() {
            until(&format!("{custodian} refuses {what}"), || {
                lab.heartbeat(&custodian)["nodes"][node]["identity_refused"].is_string()
            });
        }
        assert!(impostor.record().connections >= lab.custodians().len(), "{what}");
        assert!(impostor.record().requests.is_empty(), "{what}: {:?}", impostor.record().requests);
        assert_eq!(den.needles.find(&impostor.record().raw), None, "{what}");
    }
    assert_eq!(releases(lab), before);
    lab.start(node);
    lab.settle();

    // With the node's own key, its certificate and its address, while it is sealed on purpose: nobody's share goes there.
    seal_on_purpose(lab, node);
    lab.kill(node);
    let thief = Impostor::start_at(place, Front::Tls(own.clone()), as_a_node);
    nothing_opens(lab, node, || {
        let tried = lab.custodians().len();
        until("everybody looked, and tried its tickets", || {
            let record = thief.record();
            record.requests.iter().filter(|asked| asked.is_status()).count() >= 3 * tried
        });
        always(SAMPLE, "nobody sends a share", || !thief.record().requests.iter().any(Asked::is_unseal));
        assert_eq!(den.needles.find(&thief.record().decrypted), None);
        assert_eq!(den.needles.find(&thief.record().raw), None);
    });
    drop(thief);
    lab.start(node);
    until("it answers again", || lab.is_sealed(node));
    open_together(lab, node);
    lab.settle();

    // The known limit, so that nobody thinks otherwise: a clone with the node's key, where a crash was seen, gets shares.
    lab.kill(node);
    let clone = Impostor::start_at(place, Front::Tls(own), as_a_node);
    until("a clone looks like a restart", || clone.record().requests.iter().any(Asked::is_unseal));
    assert_eq!(den.needles.find(&clone.record().raw), None, "a share in clear");
    drop(clone);
    lab.start(node);
    until("the node itself opens in the end, by itself or approved", || {
        if lab.is_sealed(node) {
            lab.holdfast_as("alice", &["approve", "--json", "--no-wait", "--node", node]).well();
            lab.holdfast_as("bob", &["approve", "--json", "--no-wait", "--node", node]).well();
        }
        lab.is_open(node)
    });
}

/// Somebody reads and keeps every byte between the parties and a node while it is opened, by itself and by people.
fn on_the_wire(lab: &mut Lab, den: &Den) -> Relay {
    let node = "vault-2";
    let relay = Relay::in_front_of(lab, node);
    lab.settle();
    let before = submissions(lab);
    lab.crash_patiently(node, 10 * SECOND).expect("open through the relay");
    lab.settle();
    seal_on_purpose(lab, node);
    open_together(lab, node);
    let sent = submissions(lab) - before;
    assert!(sent >= 2 * usize::from(THRESHOLD), "only {sent} shares were sent");
    let bytes = relay.sent();
    assert_eq!(den.needles.find(&bytes), None, "a share in clear on the wire");
    println!("        {sent} shares went over the wire, and none is in its {} bytes", bytes.len());
    // Cut off and let in again: lost and seen again, and nothing more.
    let released = releases(lab);
    relay.cut();
    for custodian in lab.custodians() {
        until("it is missed", || lab.heartbeat(&custodian)["nodes"][node]["seen"] == "lost");
    }
    relay.mend();
    lab.settle();
    assert_eq!(releases(lab), released);
    relay
}
