//! A custodian's life as its host and its person see it: how it starts without a broker, hears a reload, outlives a broker that
//! hangs, and ends; and that none of it costs it what it knows.

use std::fs;
use std::time::Duration;

use holdfast_tests::lab::Lab;
use holdfast_tests::messages::{self, Draft};
use holdfast_tests::processes::{Signal, runs};
use holdfast_tests::wait::{always, until};

/// A custodian that is asked to end has ended within this time.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// How long something is looked at that must not happen.
const SAMPLE: Duration = Duration::from_secs(3);

#[test]
fn a_custodian_starts_reloads_and_ends_without_losing_what_it_knows() {
    let mut lab = Lab::up(&[]);
    lab.scenario("the sandbox is in force", the_sandbox_is_in_force);
    lab.scenario("SIGHUP", a_reload_keeps_tickets);
    lab.scenario("SIGHUP with a wrong configuration", a_refused_reload_changes_nothing);
    lab.scenario("the broker hangs", the_broker_hangs);
    lab.scenario("SIGTERM", it_ends_in_time);
    lab.scenario("no broker at the start", the_broker_is_absent_at_the_start);
}

fn the_sandbox_is_in_force(lab: &mut Lab) {
    for custodian in lab.custodians() {
        assert_eq!(lab.heartbeat(&custodian)["sandboxed"], true, "{custodian}");
        let status = fs::read_to_string(format!("/proc/{}/status", lab.pid(&custodian))).expect("it runs");
        let says =
            |line: &str| status.lines().any(|found| found.split_whitespace().collect::<Vec<_>>().join(" ") == line);
        assert!(says("NoNewPrivs: 1"), "{custodian}: {status}");
        assert!(says("Seccomp: 2"), "{custodian}: {status}");
    }
}

/// Every custodian takes up another pace, another operator and another policy, and still knows a restart when it sees one.
fn a_reload_keeps_tickets(lab: &mut Lab) {
    let before = beats(lab, "policy_sha256");
    let carol = messages::strangers_key(lab.dir());
    let public = fs::read_to_string(carol.with_extension("key.pub")).expect("the public half");
    let words: Vec<_> = public.split_whitespace().take(2).collect();
    let line = format!("carol namespaces=\"holdfast.approval\" {}\n", words.join(" "));
    for id in lab.custodians() {
        let config = lab.path(&lab.custodian(&id).config);
        let signers = config.with_file_name("allowed_signers");
        fs::write(&signers, fs::read_to_string(&signers).expect("there") + &line).expect("written");
        lab.edit(&id, "operators = [", "poll_interval = \"700ms\"\noperators = [\"carol\", ");
        lab.edit(&id, "unseals_per_hour = 100000", "unseals_per_hour = 99999");
        lab.signal(&id, Signal::HUP);
    }
    until("every custodian tells of the new policy", || {
        beats(lab, "policy_sha256").iter().zip(&before).all(|(now, before)| now != before && !now.is_null())
    });
    let pids: Vec<_> = lab.custodians().iter().map(|id| lab.pid(id)).collect();
    assert!(pids.into_iter().all(runs), "a reload ended a custodian");
    for node in lab.nodes() {
        lab.crash(&node).expect("known as a restart by the tickets of before the reload");
    }
    // The node tells that it is open before custodians have told why they opened it.
    until("custodians have told the cause of each", || {
        let incidents = lab.status()["incidents"].clone();
        let latest = incidents.as_array().expect("a list").iter().take(lab.nodes().len());
        latest.into_iter().all(|incident| incident["told_cause"] == "restart")
    });

    // The new operator's word counts.
    let node = "vault-2";
    lab.seal(node);
    always(SAMPLE, "it stays sealed", || !lab.is_open(node));
    let cluster = messages::cluster_id(&lab.path(&lab.file.manifest));
    let approval = Draft::approval(&cluster, "carol", node);
    holdfast_tests::broker::Client::admin(lab).publish(
        "holdfast.orders",
        &approval.routing_key(),
        &approval.signed(&carol),
    );
    until("carol's approval opens it", || lab.is_open(node));
}

/// What every custodian's heartbeat says under this name.
fn beats(lab: &Lab, field: &str) -> Vec<serde_json::Value> {
    lab.custodians().iter().map(|id| lab.heartbeat(id)[field].clone()).collect()
}

fn a_refused_reload_changes_nothing(lab: &mut Lab) {
    for id in lab.custodians() {
        lab.edit(&id, "site = ", "colour = \"red\"\nsite = ");
        lab.signal(&id, Signal::HUP);
    }
    for id in lab.custodians() {
        let log = lab.path(&lab.custodian(&id).process.log);
        until(&format!("{id} says why"), || {
            let log = fs::read_to_string(&log).unwrap_or_default();
            log.lines().any(|line| line.contains("was not read again") && line.contains("colour"))
        });
    }
    lab.crash("vault-3").expect("they go on as before");
    for id in lab.custodians() {
        lab.edit(&id, "colour = \"red\"\n", "");
    }
}

/// A broker that takes what it is sent and never answers, and then does again.
fn the_broker_hangs(lab: &mut Lab) {
    lab.signal("broker", Signal::STOP);
    for node in lab.nodes() {
        lab.crash(&node).expect("open without a word from the broker");
    }
    lab.signal("broker", Signal::CONT);
}

fn it_ends_in_time(lab: &mut Lab) {
    // Started here, so that there is an exit code to see.
    for id in ["custodian-1", "custodian-3"] {
        lab.restart(id);
        until(&format!("{id} tells that it is back"), || lab.is_of_now(id, &lab.heartbeat(id)));
    }
    lab.settle();
    ends(lab, "custodian-1");
    // In the middle of an opening, and while the broker does not answer.
    lab.signal("broker", Signal::STOP);
    lab.restart("vault-1");
    until("it answers", || lab.eyes.look(lab.url("vault-1")).is_some());
    ends(lab, "custodian-3");
    until("the three others open it", || lab.is_open("vault-1"));
    lab.signal("broker", Signal::CONT);
    for id in ["custodian-1", "custodian-3"] {
        lab.start(id);
    }
}

fn ends(lab: &mut Lab, custodian: &str) {
    let (took, code) = lab.stop(custodian);
    assert!(took < ENDS_WITHIN, "{custodian} took {took:?}");
    assert_eq!(code, Some(0), "{custodian}");
}

fn the_broker_is_absent_at_the_start(lab: &mut Lab) {
    lab.kill("broker");
    for id in lab.custodians() {
        lab.restart(&id);
    }
    for id in lab.custodians() {
        let log = lab.path(&lab.custodian(&id).process.log);
        until(&format!("{id} misses the broker"), || {
            let log = fs::read_to_string(&log).unwrap_or_default();
            let since = log.rsplit("custodian started").next().unwrap_or_default();
            since.contains("no connection to the broker")
        });
    }
    // As soon as they see every node open they need nobody to tell them.
    always(SAMPLE, "every node is open", || lab.nodes().iter().all(|node| lab.is_open(node)));
    lab.crash("vault-2").expect("open by polling");
    lab.start_broker();
}
