//! What a thousand custodians cost one sentinel: signed heartbeats through the door, into the watcher, and out as metrics. Figures for
//! docs/BENCHMARKS.md; nothing here passes or fails by the clock.
//!
//! `cargo test --release --workspace --bin holdfast-sentinel scale -- --ignored --nocapture`

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use holdfast_core::admission::Admission;
use holdfast_core::id::{ClusterId, NodeName, Principal};
use holdfast_core::message::{Content, Heartbeat};
use holdfast_core::sight::Watch;
use holdfast_core::status::Status;
use holdfast_core::time::{Now, Steady, Timestamp};
use holdfast_core::trust::AllowedSigners;
use holdfast_core::watch::{ClusterWatch, NodeWatch, Watcher};
use holdfast_edge::keys::SigningKey;
use holdfast_edge::outgoing::seal_message;
use serde_json::json;

use crate::config::roles;
use crate::metrics::Metrics;
use crate::page;

/// A cluster has no more than 255 shares, so a thousand custodians are four of 250.
const CLUSTERS: u8 = 4;
const CUSTODIANS: u8 = 250;
const NODES: usize = 3;

/// How often each is measured, after one time that warms up.
const ROUNDS: u32 = 7;

#[test]
#[ignore = "a benchmark of what is private to this program, which claims nothing: see the head of this file"]
fn a_thousand_custodians() {
    let mut world = World::new(CUSTODIANS);
    let custodians = world.keys.len();
    let heard = median(|round| world.hear(round));
    let status = world.status();
    let metrics = Metrics::new().expect("good buckets");
    let totals = world.watcher.totals();
    let text = metrics.render(&status, &totals);
    let series = series(&text);
    assert_eq!(status.clusters.values().map(|cluster| cluster.ready).sum::<u32>(), u32::try_from(custodians).unwrap());
    assert_eq!(series, expected_series(custodians), "as docs/OPERATIONS.md says");

    let told = median(|_| timed(|| world.status()));
    let rendered = median(|_| timed(|| metrics.render(&status, &totals)));
    let json = median(|_| timed(|| serde_json::to_vec(&status).expect("JSON")));
    let paged = median(|_| timed(|| page::render(&status)));
    let of_status = serde_json::to_vec(&status).expect("JSON").len();
    println!("{custodians} custodians, {CLUSTERS} clusters, {NODES} nodes each: {series} series");
    println!(
        "all heartbeats, admitted and taken in   {heard:>9.1?}  ({:.1?} each)",
        heard / u32::try_from(custodians).unwrap()
    );
    println!("the status put together                 {told:>9.1?}");
    println!("the metrics written                     {rendered:>9.1?}  {} bytes", text.len());
    println!("the status as JSON                      {json:>9.1?}  {of_status} bytes");
    println!("the page                                {paged:>9.1?}  {} bytes", page::render(&status).html.len());
}

/// Fewer custodians, and the same sum: so the page's holds for a thousand.
#[test]
fn there_are_as_many_series_as_the_page_says() {
    let world = World::new(6);
    let text = Metrics::new().expect("good buckets").render(&world.status(), &world.watcher.totals());
    assert_eq!(series(&text), expected_series(world.keys.len()), "as docs/OPERATIONS.md says");
    let page = include_str!("../../../docs/OPERATIONS.md");
    assert!(page.contains(STATED), "{STATED}");
    for (clusters, custodians) in [(1, 5), (1, 1_000), (CLUSTERS.into(), 1_000)] {
        let total = stated(clusters, NODES * clusters, custodians, NODES);
        let total = if total < 1_000 { total.to_string() } else { format!("{},{:03}", total / 1_000, total % 1_000) };
        assert!(page.contains(&format!("| {total} |\n")), "{clusters} clusters, {custodians} custodians: {total}");
    }
}

fn series(text: &str) -> usize {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count()
}

const STATED: &str = "`18 + 26 × clusters + 30 × nodes + 15 × hosts + 16 × seats + 2 × seats × nodes of the cluster`";

/// As the page says, where each custodian is a host and has one seat.
const fn stated(clusters: usize, nodes: usize, custodians: usize, nodes_of_one: usize) -> usize {
    18 + 26 * clusters + 30 * nodes + 15 * custodians + 16 * custodians + 2 * custodians * nodes_of_one
}

/// What docs/OPERATIONS.md, "How many series", says, without what there is only of nodes that were looked at (24 for each), of
/// shares that were proven and of drills that were held, planned or missed (4 for each cluster).
fn expected_series(custodians: usize) -> usize {
    let (clusters, nodes) = (usize::from(CLUSTERS), usize::from(CLUSTERS) * NODES);
    stated(clusters, nodes, custodians, NODES) - clusters * 4 - nodes * 24 - custodians
}

struct World {
    keys: Vec<(ClusterId, Principal, u8, SigningKey)>,
    admission: Admission,
    watcher: Watcher,
    elapsed: Duration,
}

impl World {
    fn new(custodians: u8) -> Self {
        let key = |name: String| (name.parse::<Principal>().expect("a name"), SigningKey::generate().expect("a key"));
        let mut keys = Vec::new();
        let (mut watches, mut trusts) = (BTreeMap::new(), BTreeMap::new());
        for number in 1..=CLUSTERS {
            let id = ClusterId::from_bytes([number; 16]);
            let of: Vec<_> = (1..=custodians).map(|x| (x, key(format!("c{number}-{x}")))).collect();
            let line = |(_, (name, key)): &(u8, (Principal, SigningKey))| {
                format!("{name} namespaces=\"holdfast.report\" {}\n", key.public_openssh(""))
            };
            trusts.insert(id, AllowedSigners::parse(of.iter().map(line).collect::<String>()).expect("a sound file"));
            watches.insert(id, watch(number, of.iter().map(|(_, (name, _))| name.clone()).collect()));
            keys.extend(of.into_iter().map(|(x, (name, key))| (id, name, x, key)));
        }
        let all: BTreeMap<_, _> =
            watches.iter().map(|(id, watch)| (*id, roles(&watch.custodians, &trusts[id]))).collect();
        let first = trusts.values().next().expect("one").clone();
        let mut admission = Admission::new(first, all);
        for (id, trust) in trusts {
            admission.set_trust_root(id, Some(trust));
        }
        let mut world =
            Self { keys, admission, watcher: Watcher::new(watches, at(Duration::ZERO)), elapsed: Duration::ZERO };
        world.hear(0);
        world
    }

    /// All heartbeats once, ten seconds after the last; the time without that of signing them.
    fn hear(&mut self, round: u32) -> Duration {
        self.elapsed += Duration::from_secs(10);
        let now = at(self.elapsed);
        let seal = |(cluster, name, x, key): &(ClusterId, Principal, u8, SigningKey)| {
            let content = Content::Heartbeat(Box::new(heartbeat(*x, round)));
            seal_message(key, name, *cluster, content, now.wall, None).expect("sealed").1
        };
        let envelopes: Vec<_> = self.keys.iter().map(seal).collect();
        let began = Instant::now();
        for envelope in &envelopes {
            let body = self.admission.admit(envelope, now).expect("a good message");
            self.watcher.handle_message(body, now);
        }
        let took = began.elapsed();
        // The driver hands them to the history's own thread.
        while self.watcher.poll_record().is_some() {}
        took
    }

    fn status(&self) -> Status {
        Status {
            sentinel: "sentinel-1".parse().expect("a name"),
            version: "0.0.0".to_owned(),
            at: at(self.elapsed).wall,
            started_at: at(Duration::ZERO).wall,
            broker_up: Some(true),
            broker_trouble: None,
            history_trouble: None,
            rejected: BTreeMap::new(),
            clusters: self.watcher.status(at(self.elapsed)),
        }
    }
}

fn watch(number: u8, custodians: BTreeSet<Principal>) -> ClusterWatch {
    let how = Watch { direct: true, poll: Duration::from_millis(100), knock: Duration::from_millis(10) };
    let node = |name: NodeName| (name.clone(), NodeWatch { url: format!("https://{name}:8200"), how });
    ClusterWatch {
        name: format!("cluster-{number}").parse().expect("a name"),
        shares: CUSTODIANS,
        threshold: 3,
        generation: 1,
        custodians,
        nodes: node_names().map(node).collect(),
        min_unsealed: 2,
        allowed_signers_sha256: "0".repeat(64),
        audit_accepted: BTreeMap::new(),
    }
}

fn node_names() -> impl Iterator<Item = NodeName> {
    (1..=NODES).map(|number| format!("vault-{number}").parse().expect("a name"))
}

fn heartbeat(x: u8, round: u32) -> Heartbeat {
    let node = json!({
        "seen": "open", "since": "2026-11-22T09:59:58.120Z", "ready": true, "budget_remaining": 12,
        "certificate_not_after": "2027-11-22T00:00:00.000Z", "shared_address": false, "restart_provable": true,
    });
    let nodes: serde_json::Map<_, _> = node_names().map(|name| (name.to_string(), node.clone())).collect();
    let beat = json!({
        "version": "0.1.0", "site": format!("site-{}", x % 7), "started_at": "2026-11-22T09:00:00.000Z",
        "share": {"generation": 1, "x": x, "ok": true}, "threshold": 3, "sandboxed": true, "clock_synchronised": true,
        "audit": {"seq": 100 + round, "head": format!("{round:064}"), "ok": true},
        "policy_sha256": "1".repeat(64), "allowed_signers_sha256": "0".repeat(64), "nodes": nodes,
        "rejected": {"expired": round}, "submissions": {"counted": 4, "opened": 2},
    });
    serde_json::from_value(beat).expect("a heartbeat, as docs/PROTOCOL.md says")
}

fn at(elapsed: Duration) -> Now {
    Now { steady: Steady::from_start(elapsed), wall: Timestamp::from_millis(1_800_000_000_000).after(elapsed) }
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let began = Instant::now();
    let done = std::hint::black_box(work());
    let took = began.elapsed();
    drop(done);
    took
}

/// Of several times, each of which is told its number.
fn median(mut measure: impl FnMut(u32) -> Duration) -> Duration {
    let mut times: Vec<_> = (0..=ROUNDS).map(|round| measure(round + 1)).skip(1).collect();
    times.sort_unstable();
    times[times.len() / 2]
}
