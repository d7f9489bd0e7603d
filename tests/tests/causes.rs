//! The table of causes in docs/SECURITY.md, on real servers: what happened to a node, to the network and to custodians' hosts, which
//! cause everybody then tells, and what comes of it. `crates/core/tests/simulation/causes.rs` has the same rows, and combines them.
//!
//! A relay stands before two of the nodes, and with it the network can be cut, hang, and lead elsewhere. A reboot is told by a
//! boot id that a private mount namespace binds over the kernel's; this host's own clock may follow no better one, and where a row
//! needs one that does, the kernel's answer is given by a library that is loaded before.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_tests::lab::Lab;
use holdfast_tests::messages;
use holdfast_tests::processes::Signal;
use holdfast_tests::programs;
use holdfast_tests::relay::Relay;
use holdfast_tests::tls::Authority;
use holdfast_tests::wait::{always, until, until_within};
use serde_json::{Value, json};

/// How long a node is looked at that must stay as it is.
const SAMPLE: Duration = Duration::from_secs(2);

/// A custodian whose host was rebooted has waited for the broker within this time: its queue is empty, and a heartbeat's period over.
const BROKER_WAITED_FOR: Duration = Duration::from_secs(12);

/// Custodians look every twenty minutes whether an address is shared.
const FINDS_OUT_WITHIN: Duration = Duration::from_secs(25 * 60);

/// What a kernel says whose clock is set by NTP.
const SYNCHRONISED: &str = "#include <string.h>\n#include <sys/timex.h>\n\
    int adjtimex(struct timex *t) { memset(t, 0, sizeof *t); return TIME_OK; }\n";

#[test]
fn every_cause_of_nodes_and_networks_is_told_and_obeyed() {
    let mut lab = Lab::up(&[]);
    let (first, second) = (Relay::in_front_of(&mut lab, "vault-1"), Relay::in_front_of(&mut lab, "vault-2"));
    lab.scenario("restarted, sealed, and both", restarted_sealed_and_both);
    lab.scenario("the network was cut", |lab| the_network_was_cut(lab, &first));
    lab.scenario("seal and restart while nobody could look", |lab| unseen(lab, &first));
    lab.scenario("connects timed out", |lab| connects_timed_out(lab, &second));
    lab.scenario("stopped and continued", stopped_and_continued);
}

#[test]
fn every_cause_of_hosts_and_servers_is_told_and_obeyed() {
    let mut lab = Lab::up(&[]);
    lab.scenario("reloads", reloads);
    lab.scenario("another certificate", another_certificate);
    lab.scenario("something stands between", something_stands_between);
    lab.scenario("custodians were away", custodians_were_away);
    lab.scenario("the broker was away", the_broker_was_away);
    lab.scenario("a power cut", a_power_cut);
    let (first, second) = (Relay::in_front_of(&mut lab, "vault-1"), Relay::in_front_of(&mut lab, "vault-2"));
    lab.scenario("several processes", |lab| several_processes(lab, &first, &second));
}

/// What one operator's approval is needed for, and nobody has given it.
fn one_approval() -> Value {
    json!({"what": "approvals", "have": 0, "need": 1})
}

/// Custodians tell this cause of a node, and it stays shut; then an operator opens it.
fn shut_as(lab: &Lab, node: &str, custodians: &[String], cause: &str, why: &str) {
    for custodian in custodians {
        until(&format!("{custodian} tells {cause}: {why}"), || {
            let beat = lab.heartbeat(custodian);
            let told = &beat["nodes"][node];
            lab.is_of_now(custodian, &beat) && told["cause"] == cause && told["needs"] == one_approval()
        });
    }
    always(SAMPLE, why, || !lab.is_open(node));
    lab.approve(node);
    until(&format!("an approval opens it: {why}"), || lab.is_open(node));
    lab.settle();
}

/// A node opens by itself, and whoever submitted tells this cause.
fn opens_as(lab: &Lab, node: &str, cause: &str, why: &str) {
    until(&format!("it opens by itself: {why}"), || lab.is_open(node));
    lab.settle();
    let incidents = lab.status()["incidents"].clone();
    let latest = incidents.as_array().and_then(|all| all.iter().find(|incident| incident["node"] == node).cloned());
    let latest = latest.expect("the sentinel tells of it");
    assert_eq!(latest["told_cause"], cause, "{why}: {latest}");
    assert!(latest["opened_at"].is_string(), "{why}: {latest}");
}

/// Seals a node by its own port, whatever stands before it.
fn seal_behind(lab: &Lab, relay: &Relay) {
    lab.eyes.seal(&format!("https://{}", relay.target()), &lab.root_token());
}

fn is_sealed_behind(lab: &Lab, relay: &Relay) -> bool {
    lab.eyes.is_sealed(&format!("https://{}", relay.target()))
}

/// Every custodian misses a node.
fn missed(lab: &Lab, node: &str) {
    for custodian in lab.custodians() {
        until(&format!("{custodian} misses {node}"), || lab.heartbeat(&custodian)["nodes"][node]["seen"] == "lost");
    }
}

fn releases(lab: &Lab) -> usize {
    lab.custodians().iter().map(|custodian| lab.audited(custodian, "release").len()).sum()
}

fn restarted_sealed_and_both(lab: &mut Lab) {
    let (node, all) = ("vault-1", lab.custodians());
    lab.restart(node);
    opens_as(lab, node, "restart", "its process was restarted");
    lab.seal(node);
    shut_as(lab, node, &all, "in-place", "it was sealed");
    lab.seal(node);
    for custodian in &all {
        until("the seal is known", || lab.heartbeat(custodian)["nodes"][node]["marker"].is_string());
    }
    lab.restart(node);
    until("it answers again", || lab.is_sealed(node));
    shut_as(lab, node, &all, "in-place", "it was sealed, and then restarted");
    lab.restart(node);
    until("it opens by itself", || lab.is_open(node));
    lab.seal(node);
    shut_as(lab, node, &all, "in-place", "it was restarted, and then sealed");
}

fn the_network_was_cut(lab: &mut Lab, relay: &Relay) {
    let (node, all) = ("vault-1", lab.custodians());
    let before = releases(lab);
    relay.cut();
    missed(lab, node);
    relay.mend();
    lab.settle();
    assert_eq!(releases(lab), before, "nothing happened but that it was not reached");

    relay.cut();
    missed(lab, node);
    seal_behind(lab, relay);
    relay.mend();
    shut_as(lab, node, &all, "in-place", "the network was cut before it was sealed");

    relay.cut();
    seal_behind(lab, relay);
    relay.mend();
    shut_as(lab, node, &all, "in-place", "the network was cut while it was sealed");

    lab.seal(node);
    for custodian in &all {
        until("the seal is known", || lab.heartbeat(custodian)["nodes"][node]["marker"].is_string());
    }
    relay.cut();
    missed(lab, node);
    relay.mend();
    shut_as(lab, node, &all, "in-place", "the network was cut after it was sealed");

    relay.cut();
    missed(lab, node);
    lab.restart(node);
    until("it serves again", || is_sealed_behind(lab, relay));
    relay.mend();
    opens_as(lab, node, "restart", "the network was cut, and it was restarted meanwhile");
}

/// The known limit, and what to do about it: nobody's eyes were there, and the process that could tell is gone.
fn unseen(lab: &mut Lab, relay: &Relay) {
    let node = "vault-1";
    let unseen = |lab: &mut Lab| {
        relay.cut();
        missed(lab, node);
        seal_behind(lab, relay);
        lab.restart(node);
        until("it serves again", || is_sealed_behind(lab, relay));
    };
    unseen(lab);
    relay.mend();
    opens_as(lab, node, "restart", "a seal that nobody saw and a restart look like a restart");

    let held = lab.holdfast(&["hold", "--json", "--node", node]).well();
    let held: Value = serde_json::from_str(&held.out).expect("JSON");
    unseen(lab);
    relay.mend();
    for custodian in lab.custodians() {
        until("the hold is what it waits for", || {
            lab.heartbeat(&custodian)["nodes"][node]["needs"] == json!({"what": "hold"})
        });
    }
    always(SAMPLE, "held, it stays shut", || !lab.is_open(node));
    for operator in ["alice", "bob"] {
        lab.holdfast_as(operator, &["release", "--json", "--hold", held["id"].as_str().expect("an id")]).well();
    }
    until("released, it opens", || lab.is_open(node));
}

fn connects_timed_out(lab: &mut Lab, relay: &Relay) {
    let node = "vault-2";
    relay.hang();
    missed(lab, node);
    let (tried, begun) = (lab.custodians().len(), relay.connections());
    until("connects were begun and came to nothing", || relay.connections() >= begun + 2 * tried);
    lab.restart(node);
    until("it serves again", || is_sealed_behind(lab, relay));
    relay.mend();
    opens_as(lab, node, "restart", "connects timed out, and it was restarted meanwhile");

    relay.hang();
    missed(lab, node);
    let begun = relay.connections();
    until("connects were begun and came to nothing", || relay.connections() >= begun + 2 * tried);
    seal_behind(lab, relay);
    relay.mend();
    shut_as(lab, node, &lab.custodians(), "in-place", "connects timed out, and it was sealed meanwhile");
}

fn stopped_and_continued(lab: &mut Lab) {
    let (node, before) = ("vault-3", releases(lab));
    lab.signal(node, Signal::STOP);
    missed(lab, node);
    lab.signal(node, Signal::CONT);
    lab.settle();
    assert_eq!(releases(lab), before, "it was never sealed");
    lab.signal(node, Signal::STOP);
    missed(lab, node);
    lab.signal(node, Signal::CONT);
    lab.seal(node);
    shut_as(lab, node, &lab.custodians(), "in-place", "it hung, and was sealed when it went on");
}

/// SIGHUP, of the node and of every custodian.
fn reloads(lab: &mut Lab) {
    let (node, all) = ("vault-2", lab.custodians());
    let reload = |lab: &Lab| {
        lab.signal(node, Signal::HUP);
        lab.custodians().iter().for_each(|custodian| lab.signal(custodian, Signal::HUP));
        lab.settle();
    };
    reload(lab);
    lab.restart(node);
    opens_as(lab, node, "restart", "all were reloaded, and it was restarted");
    reload(lab);
    lab.seal(node);
    shut_as(lab, node, &all, "in-place", "all were reloaded, and it was sealed");
}

fn another_certificate(lab: &mut Lab) {
    let (node, all) = ("vault-3", lab.custodians());
    let folder = lab.dir().join(node);
    let (certificate, key) = (folder.join("tls.pem"), folder.join("tls.key"));
    let old = [&certificate, &key].map(|file| fs::read_to_string(file).expect("there"));
    let ends = |lab: &Lab| lab.heartbeat("custodian-1")["nodes"][node]["certificate_not_after"].clone();

    // Renewed, with the same key.
    let before = ends(lab);
    let authority = Authority::of_lab(lab);
    fs::write(&certificate, authority.renew(&["127.0.0.1"], &old[1], None)).expect("written");
    lab.signal(node, Signal::HUP);
    lab.settle();
    lab.seal(node);
    shut_as(lab, node, &all, "in-place", "its certificate was renewed, and it was sealed");
    lab.restart(node);
    opens_as(lab, node, "restart", "its certificate was renewed, and it was restarted");
    until("the new one is seen", || ends(lab) != before);

    // Another key, which nobody pinned.
    let (pem, new) = authority.issue(&["127.0.0.1"]).pem;
    fs::write(&certificate, pem).expect("written");
    fs::write(&key, new).expect("written");
    let released = releases(lab);
    lab.restart(node);
    for custodian in &all {
        until("it is not taken for the node", || {
            let told = &lab.heartbeat(custodian)["nodes"][node];
            told["identity_refused"].is_string() && told["needs"] == json!({"what": "contact"})
        });
    }
    always(SAMPLE, "it stays shut", || !lab.is_open(node));
    assert_eq!(releases(lab), released, "a share was released");
    for (file, text) in [(&certificate, &old[0]), (&key, &old[1])] {
        fs::write(file, text).expect("written");
    }
    lab.restart(node);
    opens_as(lab, node, "restart", "it has its own key again");
}

/// What every custodian's configuration says of a node is another; and they read it again.
fn reconfigure(lab: &Lab, node: &str, from: &str, to: &str) {
    for custodian in lab.custodians() {
        let line = configured(lab, &custodian, node);
        assert!(line.contains(from), "{line}");
        lab.edit(&custodian, &line, &line.replace(from, to));
        lab.signal(&custodian, Signal::HUP);
    }
}

/// The line about a node in a custodian's configuration.
fn configured(lab: &Lab, custodian: &str, node: &str) -> String {
    let text = fs::read_to_string(lab.path(&lab.custodian(custodian).config)).expect("there");
    text.lines().find(|line| line.starts_with(&format!("{node} ="))).expect("a node").to_owned()
}

/// Every custodian says that it could not tell a restart of a node.
fn unprovable(lab: &Lab, node: &str) {
    for custodian in lab.custodians() {
        until(&format!("{custodian} could prove nothing"), || {
            lab.heartbeat(&custodian)["nodes"][node]["restart_provable"] == false
        });
    }
}

/// Nobody can tell why a node is sealed: it stays so, until an operator opens it.
fn shut_as_unknown(lab: &Lab, node: &str) {
    until("it answers again", || lab.is_sealed(node));
    for custodian in lab.custodians() {
        until(&format!("{custodian} cannot tell"), || {
            let told = &lab.heartbeat(&custodian)["nodes"][node];
            told["cause"] == "unknown" && told["needs"] == one_approval()
        });
    }
    always(SAMPLE, "it stays shut", || !lab.is_open(node));
    lab.approve(node);
    until("an approval opens it", || lab.is_open(node));
}

/// Nobody says any more that nothing stands between.
fn something_stands_between(lab: &mut Lab) {
    let node = "vault-2";
    reconfigure(lab, node, "tls = \"direct\"", "tls = \"proxied\"");
    unprovable(lab, node);
    lab.restart(node);
    shut_as_unknown(lab, node);
    reconfigure(lab, node, "tls = \"proxied\"", "tls = \"direct\"");
}

/// How custodians came back, each time three of five, so that what they think decides.
fn custodians_were_away(lab: &mut Lab) {
    let node = "vault-3";
    let gone: Vec<_> = lab.custodians().into_iter().take(3).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let clock = synchronised_clock(folder.path());

    away(lab, node, &gone, Lab::kill, &[], &BTreeMap::new());
    shut_as(lab, node, &gone, "unknown", "they alone were restarted");

    away(lab, node, &gone, stopped_on_purpose, &another_boot(folder.path()), &clock);
    shut_as(lab, node, &gone, "unknown", "they were stopped on purpose, and their hosts rebooted");

    away(lab, node, &gone, Lab::kill, &another_boot(folder.path()), &clock);
    until("no marker, no hold, the broker was waited for: it opens by itself", || lab.is_open(node));
    // The two who saw the restart need one more, and whoever came first told why.
    let latest = |custodian: &String| lab.audited(custodian, "cause").pop().unwrap_or_default();
    assert!(gone.iter().any(|custodian| latest(custodian)["cause"] == "outage"), "it was opened for another cause");
    lab.settle();

    // The same, where the clock follows no better one.
    if lab.heartbeat("custodian-4")["clock_synchronised"] == false {
        away(lab, node, &gone, Lab::kill, &another_boot(folder.path()), &BTreeMap::new());
        always(BROKER_WAITED_FOR, "an outage is not believed", || !lab.is_open(node));
        for custodian in &gone {
            let told = lab.heartbeat(custodian)["nodes"][node].clone();
            assert_eq!((&told["cause"], &told["needs"]), (&Value::Null, &json!({"what": "evidence"})), "{told}");
        }
        lab.approve(node);
        until("an approval opens it", || lab.is_open(node));
    }

    // Sealed on purpose before, and the hosts rebooted: the marker is on their disks.
    lab.settle();
    lab.seal(node);
    for custodian in &gone {
        until("the seal is known", || lab.heartbeat(custodian)["nodes"][node]["marker"].is_string());
    }
    away(lab, node, &gone, Lab::kill, &another_boot(folder.path()), &clock);
    shut_as(lab, node, &gone, "in-place", "it was sealed before their hosts were rebooted");
    for custodian in &gone {
        lab.restart(custodian);
    }
}

fn stopped_on_purpose(lab: &mut Lab, custodian: &str) {
    lab.stop(custodian);
}

/// Custodians end, a node is restarted, and they start again.
fn away(
    lab: &mut Lab,
    node: &str,
    gone: &[String],
    end: impl Fn(&mut Lab, &str),
    before: &[String],
    env: &BTreeMap<String, String>,
) {
    for custodian in gone {
        end(lab, custodian);
    }
    lab.restart(node);
    until("it answers again", || lab.is_sealed(node));
    for custodian in gone {
        lab.start_behind(custodian, before, env);
    }
    for custodian in gone {
        until("it is heard again", || lab.is_of_now(custodian, &lab.heartbeat(custodian)));
    }
}

/// What a process is started behind, so that its host seems to have been rebooted.
fn another_boot(folder: &Path) -> Vec<String> {
    let id = messages::random_id();
    let parts = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]];
    let file = folder.join(&id);
    fs::write(&file, format!("{}\n", parts.join("-"))).expect("written");
    let script = "mount --bind \"$1\" /proc/sys/kernel/random/boot_id && shift && exec \"$@\"";
    let mut words = vec!["unshare", "--mount"];
    if !rustix::process::getuid().is_root() {
        words.push("--map-root-user");
    }
    words.extend(["sh", "-c", script, "sh"]);
    let words = words.into_iter().map(str::to_owned);
    words.chain([file.to_string_lossy().into_owned()]).collect()
}

/// The environment of a process whose kernel says that its clock is set by NTP.
fn synchronised_clock(folder: &Path) -> BTreeMap<String, String> {
    let (source, library): (PathBuf, PathBuf) = (folder.join("clock.c"), folder.join("clock.so"));
    fs::write(&source, SYNCHRONISED).expect("written");
    let words = ["-shared".as_ref(), "-fPIC".as_ref(), "-o".as_ref(), library.as_os_str(), source.as_os_str()];
    programs::tool("cc", &words);
    BTreeMap::from([("LD_PRELOAD".to_owned(), library.to_string_lossy().into_owned())])
}

fn the_broker_was_away(lab: &mut Lab) {
    let node = "vault-1";
    let entries = |lab: &Lab, custodian: &String| lab.audited(custodian, "cause").len();
    let before: Vec<_> = lab.custodians().iter().map(|custodian| entries(lab, custodian)).collect();
    lab.kill("broker");
    lab.restart(node);
    until("it opens by itself", || lab.is_open(node));
    let told = lab.custodians().into_iter().zip(before);
    let told: Vec<_> = told.flat_map(|(custodian, had)| lab.audited(&custodian, "cause").split_off(had)).collect();
    assert!(told.len() >= 3 && told.iter().all(|entry| entry["cause"] == "restart"), "{told:?}");
    lab.start_broker();
}

/// Everything ends at once, and starts again in whatever order.
fn a_power_cut(lab: &mut Lab) {
    let folder = tempfile::tempdir().expect("a folder");
    let (clock, boot) = (synchronised_clock(folder.path()), another_boot(folder.path()));
    let (nodes, custodians) = (lab.nodes(), lab.custodians());
    let before: Vec<_> = custodians.iter().map(|custodian| lab.audited(custodian, "release").len()).collect();
    let servers = nodes.iter().map(String::as_str).chain(["broker", "sentinel"]);
    for name in servers.chain(custodians.iter().map(String::as_str)) {
        lab.kill(name);
    }
    for name in &nodes {
        lab.start(name);
    }
    for custodian in &custodians {
        lab.start_behind(custodian, &boot, &clock);
    }
    lab.start("sentinel");
    lab.start_broker();
    for node in &nodes {
        until(&format!("{node} opens by itself after a power cut"), || lab.is_open(node));
    }
    let left = custodians.iter().zip(before);
    let left: Vec<_> = left.flat_map(|(custodian, had)| lab.audited(custodian, "release").split_off(had)).collect();
    assert!(left.len() >= 3 * nodes.len(), "{left:?}");
    assert!(left.iter().all(|entry| entry["details"]["cause"] == "outage"), "{left:?}");
}

/// Two real nodes behind one address: whoever answers may be another than was seen open. Where the configuration says so, as it
/// has to, no custodian takes one for the other. Where it says that nothing stands between, custodians find out, every twenty minutes:
/// that is waited for where `HOLDFAST_LONG` is set.
fn several_processes(lab: &mut Lab, first: &Relay, second: &Relay) {
    let (node, other) = ("vault-1", "vault-2");
    let pin = |node: &str| {
        let line = configured(lab, "custodian-1", node);
        line.split('[').nth(1).and_then(|rest| rest.split(']').next()).expect("a pin").to_owned()
    };
    let (own, both) = (pin(node), format!("{}, {}", pin(node), pin(other)));
    reconfigure(lab, node, &own, &both);
    if std::env::var_os("HOLDFAST_LONG").is_some() {
        lab.settle();
        let its = first.target();
        first.lead_new_to(vec![second.target()]);
        for custodian in lab.custodians() {
            until_within(FINDS_OUT_WITHIN, &format!("{custodian} finds out"), || {
                lab.heartbeat(&custodian)["nodes"][node]["shared_address"] == true
            });
        }
        first.lead_to(vec![its]);
        unprovable(lab, node);
        lab.restart(node);
        shut_as_unknown(lab, node);
        // That an address was found shared is known until the custodian starts again.
        lab.custodians().iter().for_each(|custodian| lab.restart(custodian));
        lab.settle();
    }
    reconfigure(lab, node, "tls = \"direct\"", "tls = \"proxied\"");
    unprovable(lab, node);
    first.lead_to(vec![first.target(), second.target()]);
    let released = |lab: &Lab| {
        let all = lab.custodians().into_iter().flat_map(|custodian| lab.audited(&custodian, "release"));
        all.filter(|entry| entry["node"] == node).count()
    };
    let before = released(lab);
    lab.kill(node);
    lab.restart(other);
    lab.start(node);
    until("the one that is direct opens by itself", || lab.is_open(other));
    until("the other serves again", || is_sealed_behind(lab, first));
    always(SAMPLE, "the other stays shut, whoever answers", || is_sealed_behind(lab, first));
    assert_eq!(released(lab), before, "a share was released to whoever answered");
    first.lead_to(vec![first.target()]);
    shut_as_unknown(lab, node);
    reconfigure(lab, node, "tls = \"proxied\"", "tls = \"direct\"");
}
