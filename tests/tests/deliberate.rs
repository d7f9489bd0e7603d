//! A node that somebody sealed on purpose stays sealed: for as long as one looks, after it was killed and restarted, with
//! custodians restarted, with the broker dead, and whatever is sent by those whose word does not count. Then the operators'
//! approval opens it, once.

#![expect(clippy::print_stdout, reason = "what a test measured is read where it ran")]

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use holdfast_tests::broker::Client;
use holdfast_tests::lab::Lab;
use holdfast_tests::messages::{self, Draft};
use holdfast_tests::processes::Signal;
use holdfast_tests::programs::{self, Said};
use holdfast_tests::vault::NightWatch;
use holdfast_tests::wait::{always, until};
use jiff::Timestamp;

/// How long a sealed node is looked at. The five minutes of the acceptance where `HOLDFAST_LONG` is set.
const LOOK: Duration = Duration::from_secs(60);
const LONG_LOOK: Duration = Duration::from_secs(300);

/// How long a node stays sealed for a claim that is about something else than time.
const SAMPLE: Duration = Duration::from_secs(5);

/// An envelope is never larger.
const ENVELOPE_MAX: usize = 65_536;

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_node_sealed_on_purpose_stays_sealed() {
    let mut lab = Lab::up(&[]);
    lab.scenario("sealed by hand", sealed_by_hand);
    lab.scenario("what does not open it", what_does_not_open_it);
    lab.scenario("sealed after a hang", sealed_after_a_hang);
    lab.scenario("sealed and restarted while two custodians hung", restarted_while_two_custodians_hung);
    lab.scenario("too few custodians", too_few_custodians);
    lab.scenario("sealed without a broker", sealed_without_a_broker);
}

fn sealed_by_hand(lab: &mut Lab) {
    let node = "vault-1";
    let long = std::env::var_os("HOLDFAST_LONG").is_some();
    let look = if long { LONG_LOOK } else { LOOK };
    lab.seal(node);
    let watch = NightWatch::begin(lab.url(node), &lab.path(&lab.file.ca_cert));
    knows_that_it_is_deliberate(lab, node);
    let mut said = status_in_words(lab, node);

    always(look, "it stays sealed", || !lab.is_open(node));

    lab.restart(node);
    until("it answers again", || lab.is_sealed(node));
    knows_that_it_is_deliberate(lab, node);
    always(SAMPLE, "it stays sealed after its restart", || !lab.is_open(node));

    // Custodians that forget what they saw must not forget what they must not open.
    for custodian in ["custodian-1", "custodian-4"] {
        lab.restart(custodian);
    }
    lab.restart("sentinel");
    knows_that_it_is_deliberate(lab, node);
    lab.crash("vault-2").expect("another node opens by itself all the while");
    always(SAMPLE, "it stays sealed after custodians' restart", || !lab.is_open(node));
    said = said.or(status_in_words(lab, node));

    let seen = watch.end();
    assert!(seen.open.is_empty(), "it was open after {:?}", seen.open);
    assert!(seen.sealed > 100, "nobody looked: {seen:?}");

    // What status tells to type is typed.
    let command = said.expect("status says what to type");
    let folder = programs::program("holdfast");
    let path = format!("{}:/usr/bin:/bin", folder.parent().expect("a folder").display());
    let typed = Command::new("sh").args(["-c", &command]).env("PATH", path).output().expect("a shell");
    let typed = Said::from(typed).well();
    assert!(typed.out.contains("open"), "{command}: {typed:?}");
    assert!(lab.is_open(node));
}

/// Waits until everybody who watches says that the node was sealed on purpose.
fn knows_that_it_is_deliberate(lab: &Lab, node: &str) {
    for custodian in lab.custodians() {
        until(&format!("{custodian} knows that {node} was sealed on purpose"), || {
            let beat = lab.heartbeat(&custodian);
            let told = &beat["nodes"][node];
            lab.is_of_now(&custodian, &beat)
                && told["seen"] == "sealed"
                && told["marker"].is_string()
                && told["cause"] == "in-place"
                && told["needs"]["what"] == "approvals"
        });
    }
}

/// What `holdfast status` says of the node in words: why, and what to type, which is returned.
fn status_in_words(lab: &Lab, node: &str) -> Option<String> {
    let said = lab.holdfast(&["status"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains(&format!("{node} was sealed on purpose")), "{}", said.out);
    let command = said.out.lines().map(str::trim).find(|line| line.starts_with("holdfast approve "));
    assert!(command.is_some_and(|line| line.contains(node)), "{}", said.out);
    command.map(str::to_owned)
}

/// The approval that opened it once, again; and everything that looks like one.
fn what_does_not_open_it(lab: &mut Lab) {
    let node = "vault-1";
    let admin = Client::admin(lab);
    let tap = admin.tap("holdfast.orders");
    lab.seal(node);
    knows_that_it_is_deliberate(lab, node);
    lab.approve(node);
    let (routing_key, used) = admin.next(&tap);
    until("the approval opens it", || lab.is_open(node));
    lab.settle();
    admin.untap(tap);

    lab.seal(node);
    knows_that_it_is_deliberate(lab, node);
    // One that has forgotten all but its files.
    lab.restart("custodian-3");
    until("custodian-3 is back", || lab.is_of_now("custodian-3", &lab.heartbeat("custodian-3")));
    let watch = NightWatch::begin(lab.url(node), &lab.path(&lab.file.ca_cert));

    let mut expected: BTreeMap<&str, u64> = BTreeMap::from([("replayed", 1)]);
    let before = refusals(lab);
    admin.publish("holdfast.orders", &routing_key, &used);
    for (what, reason, envelope) in impostures(lab, node) {
        println!("        {reason}: {what}");
        *expected.entry(reason).or_default() += 1;
        admin.publish("holdfast.orders", &routing_key, &envelope);
    }
    for custodian in lab.custodians() {
        for (reason, more) in &expected {
            let had = before.get(&(custodian.clone(), (*reason).to_owned())).copied().unwrap_or_default();
            until(&format!("{custodian} counts {more} more refused as {reason}"), || {
                lab.refused(&custodian, reason) >= had + more
            });
        }
    }
    // Those that are as they should be, and do not concern this node.
    let cluster = messages::cluster_id(&lab.path(&lab.file.manifest));
    let alice = lab.path(&lab.file.operators[0].key);
    for elsewhere in ["vault-2", "vault-9"] {
        admin.publish("holdfast.orders", &routing_key, &Draft::approval(&cluster, "alice", elsewhere).signed(&alice));
    }
    always(SAMPLE, "nothing of all that opens it", || !lab.is_open(node));
    knows_that_it_is_deliberate(lab, node);
    let after = refusals(lab);
    for ((custodian, reason), count) in &after {
        let had = before.get(&(custodian.clone(), reason.clone())).copied().unwrap_or_default();
        assert_eq!(count - had, expected.get(reason.as_str()).copied().unwrap_or_default(), "{custodian}: {reason}");
    }
    let seen = watch.end();
    assert!(seen.open.is_empty(), "it was open after {:?}", seen.open);

    // The same hand, the same door, and all as it should be: this is what the others were refused for.
    admin.publish(
        "holdfast.orders",
        &routing_key,
        &Draft::approval(&cluster, "bob", node).signed(&lab.path(&lab.file.operators[1].key)),
    );
    until("an approval written from the page opens it", || lab.is_open(node));
}

/// Every custodian's count of refused messages, by custodian and reason.
fn refusals(lab: &Lab) -> BTreeMap<(String, String), u64> {
    let mut counts = BTreeMap::new();
    for custodian in lab.custodians() {
        for (reason, count) in lab.heartbeat(&custodian)["rejected"].as_object().into_iter().flatten() {
            counts.insert((custodian.clone(), reason.clone()), count.as_u64().expect("a number"));
        }
    }
    counts
}

/// What is wrong with it, the reason under which it is counted, and the envelope.
fn impostures(lab: &Lab, node: &str) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let cluster = messages::cluster_id(&lab.path(&lab.file.manifest));
    let [alice, bob] = [0, 1].map(|number| lab.path(&lab.file.operators[number].key));
    let stranger = messages::strangers_key(lab.dir());
    let custodian = lab.path(&lab.custodian("custodian-1").config).with_file_name("signing.key");
    let good = || Draft::approval(&cluster, "alice", node);
    let now = Timestamp::now();
    let with = |change: &dyn Fn(&mut Draft)| {
        let mut draft = good();
        change(&mut draft);
        draft.signed(&alice)
    };
    let signature = |draft: &Draft| messages::signature(&draft.body(), "holdfast.approval", &alice);
    let (one, other) = (good(), Draft::approval(&cluster, "alice", "vault-2"));
    let whole = good().signed(&alice);
    let big = with(&|draft| draft.content["why"] = "x".repeat(ENVELOPE_MAX).into());
    assert!(big.len() > ENVELOPE_MAX);
    vec![
        ("signed by nobody's key in alice's name", "forged", good().signed(&stranger)),
        ("signed by bob in alice's name", "forged", good().signed(&bob)),
        ("by somebody who is not listed", "wrong-role", Draft::approval(&cluster, "mallory", node).signed(&stranger)),
        (
            "by a custodian, with its own key",
            "wrong-role",
            Draft::approval(&cluster, "custodian-1", node).signed(&custodian),
        ),
        ("by a custodian, in alice's name", "forged", good().signed(&custodian)),
        ("signed for another purpose", "wrong-role", messages::seal(&good().body(), "holdfast.order", &alice)),
        ("signed for somebody else's purpose", "wrong-role", messages::seal(&good().body(), "file", &alice)),
        ("another approval's signature", "altered", messages::envelope(&one.body(), &signature(&other))),
        (
            "issued and expired long ago",
            "expired",
            with(&|draft| {
                (draft.issued_at, draft.expires_at) = (now - 20 * MINUTE, Some(now - 5 * MINUTE));
            }),
        ),
        ("valid for too long", "too-long", with(&|draft| draft.expires_at = Some(now + 20 * MINUTE))),
        (
            "issued in the future",
            "early",
            with(&|draft| {
                (draft.issued_at, draft.expires_at) = (now + 5 * MINUTE, Some(now + 10 * MINUTE));
            }),
        ),
        ("for ever", "malformed", with(&|draft| draft.expires_at = None)),
        ("of another cluster", "other-cluster", with(&|draft| draft.cluster = messages::random_id())),
        ("of another version", "unknown-version", with(&|draft| draft.version = 2)),
        ("of a kind that is none", "unknown-kind", with(&|draft| draft.kind = "open".to_owned())),
        ("with a field that nobody knows", "malformed", with(&|draft| draft.content["all"] = true.into())),
        ("larger than any", "oversized", big),
        ("cut off", "malformed", whole[..whole.len() - 20].to_vec()),
        ("no JSON", "malformed", b"open sesame".to_vec()),
        ("nothing", "malformed", Vec::new()),
        ("without a signature", "malformed", messages::envelope(&one.body(), "")),
    ]
}

/// A node that hung, and was sealed before anybody had found it again. The same process answers, and so it is not opened.
fn sealed_after_a_hang(lab: &mut Lab) {
    let node = "vault-3";
    lab.signal(node, Signal::STOP);
    for custodian in lab.custodians() {
        until(&format!("{custodian} misses the node"), || lab.heartbeat(&custodian)["nodes"][node]["seen"] == "lost");
    }
    lab.signal(node, Signal::CONT);
    lab.seal(node);
    knows_that_it_is_deliberate(lab, node);
    always(SAMPLE, "it stays sealed", || !lab.is_open(node));
    lab.approve(node);
    until("the approval opens it", || lab.is_open(node));
}

/// To the two that hung it looks like a restart. The others know better, and what they know spreads.
fn restarted_while_two_custodians_hung(lab: &mut Lab) {
    let node = "vault-2";
    let hung = ["custodian-2", "custodian-5"];
    for custodian in hung {
        lab.signal(custodian, Signal::STOP);
    }
    lab.seal(node);
    until("the others know", || {
        ["custodian-1", "custodian-3", "custodian-4"]
            .iter()
            .all(|custodian| lab.heartbeat(custodian)["nodes"][node]["marker"].is_string())
    });
    lab.restart(node);
    until("it answers again", || lab.is_sealed(node));
    let watch = NightWatch::begin(lab.url(node), &lab.path(&lab.file.ca_cert));
    for custodian in hung {
        lab.signal(custodian, Signal::CONT);
    }
    knows_that_it_is_deliberate(lab, node);
    until("no share is pending in it", || lab.eyes.look(lab.url(node)).is_some_and(|status| status.progress == 0));
    always(SAMPLE, "it stays sealed", || !lab.is_open(node));
    let seen = watch.end();
    assert!(seen.open.is_empty(), "it was open after {:?}", seen.open);
    lab.approve(node);
    until("the approval opens it", || lab.is_open(node));
}

/// Three of five are gone, and two shares do not open a node that needs three. Then one comes back.
fn too_few_custodians(lab: &mut Lab) {
    let node = "vault-3";
    let gone = ["custodian-1", "custodian-2", "custodian-3"];
    for custodian in gone {
        lab.signal(custodian, Signal::STOP);
    }
    lab.restart(node);
    until("it answers again", || lab.is_sealed(node));
    let watch = NightWatch::begin(lab.url(node), &lab.path(&lab.file.ca_cert));
    until("the sentinel counts them", || lab.status()["margin"] == -1);
    let said = lab.holdfast(&["status"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("open by itself now? No: "), "{}", said.out);
    let metrics = lab.read_sentinel("/metrics").expect("metrics");
    let margin = metrics.lines().find(|line| line.starts_with("holdfast_quorum_margin{"));
    assert!(margin.is_some_and(|line| line.ends_with(" -1")), "{margin:?}");
    assert!(lab.is_sealed(node));
    let seen = watch.end();
    assert!(seen.open.is_empty() && seen.sealed > 0, "{seen:?}");

    lab.signal(gone[0], Signal::CONT);
    until("the third share opens it", || lab.is_open(node));
    for custodian in &gone[1..] {
        lab.signal(custodian, Signal::CONT);
    }
}

/// Nobody can tell anybody anything, and everybody has seen it with own eyes.
fn sealed_without_a_broker(lab: &mut Lab) {
    let node = "vault-1";
    lab.kill("broker");
    lab.seal(node);
    let watch = NightWatch::begin(lab.url(node), &lab.path(&lab.file.ca_cert));
    always(SAMPLE, "it stays sealed", || !lab.is_open(node));
    lab.restart(node);
    until("it answers again", || lab.is_sealed(node));
    always(SAMPLE, "it stays sealed after its restart", || !lab.is_open(node));
    let seen = watch.end();
    assert!(seen.open.is_empty(), "it was open after {:?}", seen.open);
    // An approval that is carried by hand, to those that are enough.
    lab.approve_by_hand(node, &["custodian-1", "custodian-3", "custodian-5"]);
    until("the approval opens it", || lab.is_open(node));
    lab.start_broker();
}
