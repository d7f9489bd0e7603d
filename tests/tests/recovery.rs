//! A crashed node opens by itself: with everything there, with the broker and custodians dead, through hangs, and while
//! custodians themselves are killed. What a script that knows only lab.json can see of it.

#![expect(clippy::print_stdout, reason = "what a test measured is read where it ran")]

use std::time::{Duration, Instant};

use holdfast_tests::lab::Lab;
use holdfast_tests::processes::Signal;
use holdfast_tests::wait::{PATIENCE, always, until};

/// How often each kind of crash is tried.
const CRASHES: usize = 10;

/// How long a node hangs: longer than any request of a custodian's waits.
const HANG: Duration = Duration::from_secs(15);

/// The latest moment after a node's first answer at which a custodian is killed: by then the node is usually open.
const LATEST_MOMENT_MS: u64 = 120;

/// A node that lost a custodian in the middle of its opening opens within this time: the next ranked step in, or an attempt
/// that stands still is reset.
const OPEN_IN_THE_END: Duration = Duration::from_secs(45);

#[test]
fn a_crashed_node_opens_by_itself() {
    let mut lab = Lab::up(&[]);
    lab.scenario("ten crashes", |lab| crash_in_turn(lab, CRASHES));
    lab.scenario("custodians are killed during incidents", custodians_are_killed_during_incidents);
    lab.scenario("a node hangs", a_node_hangs);
    lab.scenario("a node that was stopped in good order opens as well", a_node_is_restarted_in_good_order);
    lab.scenario("two custodians hang", two_custodians_hang);
    lab.scenario("broker and two custodians dead", broker_and_two_custodians_dead);
}

#[test]
fn without_a_broker_custodians_poll() {
    let mut lab = Lab::up(&["--no-broker"]);
    lab.scenario("ten crashes", |lab| crash_in_turn(lab, CRASHES));
    lab.scenario("two custodians dead", |lab| {
        for custodian in ["custodian-2", "custodian-5"] {
            lab.kill(custodian);
        }
        crash_in_turn(lab, 3);
        for custodian in ["custodian-2", "custodian-5"] {
            lab.start(custodian);
        }
    });
}

/// Kills one node after the other, each time as soon as the one before is open.
fn crash_in_turn(lab: &mut Lab, times: usize) {
    let nodes = lab.nodes();
    let mut took = Vec::new();
    for node in nodes.iter().cycle().take(times) {
        let opened = lab.crash(node).unwrap_or_else(|sealed| panic!("crash {}: {sealed}", took.len() + 1));
        took.push(opened.as_millis());
    }
    println!("        open after {took:?} ms");
}

fn broker_and_two_custodians_dead(lab: &mut Lab) {
    let dead = ["custodian-1", "custodian-4"];
    lab.kill("broker");
    for custodian in dead {
        lab.kill(custodian);
    }
    crash_in_turn(lab, CRASHES);

    // They come back while there is no broker, and join again when there is one.
    for custodian in dead {
        lab.start(custodian);
    }
    until("the sentinel misses the broker", || {
        let page = lab.read_sentinel("/api/v1/status").unwrap_or_default();
        page.contains(r#""broker_up":false"#)
    });
    lab.start_broker();
    for custodian in lab.custodians() {
        until(&format!("{custodian} is heard again"), || lab.heartbeat(&custodian)["audit"]["ok"] == true);
    }
    lab.settle();
    // They have seen every node open since, so that the next crash is a restart to them as well.
    let before = dead.map(|custodian| submissions(lab, custodian));
    lab.signal("custodian-2", Signal::STOP);
    lab.signal("custodian-3", Signal::STOP);
    lab.crash("vault-1").expect("the two that came back and one more open it");
    lab.signal("custodian-2", Signal::CONT);
    lab.signal("custodian-3", Signal::CONT);
    for (custodian, before) in dead.into_iter().zip(before) {
        until(&format!("{custodian} tells of its submission"), || submissions(lab, custodian) > before);
    }
}

/// How many shares a custodian says that it submitted since it started.
fn submissions(lab: &Lab, custodian: &str) -> u64 {
    let told = lab.heartbeat(custodian)["submissions"].clone();
    told.as_object().map_or(0, |told| told.values().filter_map(serde_json::Value::as_u64).sum())
}

/// Each custodian dies once while a node is being opened, two at a time now and then, at a moment that nobody chose.
fn custodians_are_killed_during_incidents(lab: &mut Lab) {
    let (nodes, custodians) = (lab.nodes(), lab.custodians());
    for round in 0..custodians.len() {
        let node = &nodes[round % nodes.len()];
        let victims = [&custodians[round], &custodians[(round + 2) % custodians.len()]];
        let victims = &victims[..1 + round % 2];
        let moment = random_moment();
        lab.restart(node);
        until("the node answers", || lab.eyes.look(lab.url(node)).is_some());
        let answered = Instant::now();
        until("the moment", || answered.elapsed() >= moment);
        let state = if lab.is_open(node) { "open" } else { "sealed" };
        println!("        {victims:?} killed {moment:?} after the first answer of {node}, which was {state}");
        for custodian in victims {
            lab.kill(custodian);
        }
        for custodian in victims {
            lab.start(custodian);
        }
        let url = lab.url(node).to_owned();
        let opened = lab.eyes.time_opening(&url, PATIENCE, OPEN_IN_THE_END);
        let opened = opened.unwrap_or_else(|sealed| panic!("{victims:?} killed after {moment:?}: {sealed}"));
        println!("        {node} open after {} ms", opened.as_millis());
        lab.settle();
    }
}

fn random_moment() -> Duration {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("random numbers");
    Duration::from_millis(u64::from_be_bytes(bytes) % LATEST_MOMENT_MS)
}

/// A node hangs and comes back: nothing was to be opened, and nobody submits anything; then it really crashes.
fn a_node_hangs(lab: &mut Lab) {
    let node = "vault-2";
    lab.signal(node, Signal::STOP);
    until("the sentinel misses the node", || lab.status()["nodes"][node]["seen"] == "lost");
    for custodian in lab.custodians() {
        until(&format!("{custodian} misses the node"), || lab.heartbeat(&custodian)["nodes"][node]["seen"] == "lost");
    }
    // The rest of the network does not wait for it.
    let began = Instant::now();
    lab.crash("vault-3").expect("another node opens meanwhile");
    always(HANG.saturating_sub(began.elapsed()), "the node hangs", || lab.runs(node));
    lab.signal(node, Signal::CONT);
    lab.settle();
    let incidents = lab.status()["incidents"].clone();
    let of_it = incidents.as_array().expect("a list").iter().find(|incident| incident["node"] == node);
    let of_it = of_it.expect("the sentinel tells of it");
    assert!(of_it["opened_at"].is_string() && of_it["sealed_at"].is_null(), "it was never sealed: {of_it}");
    assert_eq!(of_it["submissions"], serde_json::json!([]), "submitted to a node that hung: {of_it}");
    lab.crash(node).expect("it opens after a crash as before");
}

/// An upgrade: SIGTERM and a start, one node after the other.
fn a_node_is_restarted_in_good_order(lab: &mut Lab) {
    for node in lab.nodes() {
        lab.stop(&node);
        lab.start(&node);
        let url = lab.url(&node).to_owned();
        lab.eyes.time_opening(&url, PATIENCE, Duration::from_secs(1)).expect("open");
    }
}

/// Two custodians hang, which nobody knows yet: whoever stands by steps in for them.
fn two_custodians_hang(lab: &mut Lab) {
    let hung = ["custodian-2", "custodian-3"];
    for custodian in hung {
        lab.signal(custodian, Signal::STOP);
    }
    crash_in_turn(lab, 3);
    for custodian in hung {
        lab.signal(custodian, Signal::CONT);
    }
}
