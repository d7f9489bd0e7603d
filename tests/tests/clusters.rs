//! One custodian process for many clusters, each with a share, a policy, operators, a CA and a trust root of its own: what operators
//! order in one of them touches no other. Real servers; no broker, every message is carried to the custodians' inboxes.
//!
//! `HOLDFAST_LONG` asks for twenty clusters of five nodes in place of three of two, and measures what such a custodian costs.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what a test measured is read where it ran")]

use std::cell::RefCell;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_tests::home::deliver;
use holdfast_tests::lab::{audited, provable_by};
use holdfast_tests::messages::{Draft, cluster_id, rfc3339, sha256, unbase64};
use holdfast_tests::processes::{resident_kib, ticks};
use holdfast_tests::programs::{bao, program, run, tool};
use holdfast_tests::tls::Authority;
use holdfast_tests::vault::Eyes;
use holdfast_tests::wait::{always, until, until_within};
use serde_json::{Value, json};

/// How many clusters, and how many nodes each has; in a long run, as many as a large installation.
const SMALL: (usize, usize) = (3, 2);
const LARGE: (usize, usize) = (20, 5);

/// How many servers start at once: each takes a moment of a processor.
const AT_ONCE: usize = 10;

/// How long a node is looked at that must stay as it is.
const SAMPLE: Duration = Duration::from_secs(2);

/// How long a hundred servers may take to find one another.
const STARTS_WITHIN: Duration = Duration::from_secs(300);

/// How long a custodian at rest is measured.
const REST: Duration = Duration::from_secs(60);

/// Both have a share of every cluster, and each needs the other.
const CUSTODIANS: [&str; 2] = ["custodian-1", "custodian-2"];

/// An operator of each cluster, beside each one's own two.
const EVERYWHERE: &str = "carol";

struct Node {
    name: String,
    url: String,
    dir: PathBuf,
    process: RefCell<Option<Child>>,
}

struct Cluster {
    name: String,
    dir: PathBuf,
    nodes: Vec<Node>,
    eyes: Eyes,
    /// Two who count here and nowhere else.
    operators: [String; 2],
}

/// The custodians, and all that they guard. Everything ends with the value.
struct Fleet {
    folder: tempfile::TempDir,
    clusters: Vec<Cluster>,
    custodians: Vec<Child>,
}

#[test]
fn an_order_for_one_cluster_touches_no_other() {
    let long = std::env::var_os("HOLDFAST_LONG").is_some();
    let fleet = Fleet::start(if long { LARGE } else { SMALL });
    let began = Instant::now();
    approvals_open_one_cluster(&fleet);
    eprintln!("    open: {:.1} s", began.elapsed().as_secs_f64());
    fleet.rest();
    if long {
        fleet.measure();
    }
    a_hold_keeps_one_cluster_shut(&fleet);
    another_trust_root_is_one_clusters(&fleet);
    distrust_is_one_clusters(&fleet);
    eprintln!("    all: {:.1} s", began.elapsed().as_secs_f64());
}

/// Each first opening waits for an operator, of that cluster.
fn approvals_open_one_cluster(fleet: &Fleet) {
    let [first, others @ ..] = &fleet.clusters[..] else { panic!("clusters") };
    for cluster in &fleet.clusters {
        until("it knows its shares", || cluster.eyes.look(&cluster.nodes[0].url).is_some_and(|status| status.t == 2));
    }
    for other in others {
        let refused = fleet.refused("wrong-role");
        fleet.say(&first.operators[0], Draft::approval(&other.id(), &first.operators[0], &other.nodes[0].name));
        until("one cluster's operator is nobody in another", || fleet.refused("wrong-role") > refused);
    }
    fleet.say(&first.operators[0], Draft::approval(&first.id(), &first.operators[0], &first.nodes[0].name));
    until("its own operator opens the first", || first.nodes[0].is_open(&first.eyes));
    always(SAMPLE, "the others stay shut", || others.iter().all(|other| !other.nodes[0].is_open(&other.eyes)));
    for cluster in &fleet.clusters {
        for node in &cluster.nodes {
            let joined = || cluster.eyes.look(&node.url).is_some_and(|status| status.initialized && status.t == 2);
            until_within(STARTS_WITHIN, &format!("{} joins", node.name), joined);
            if !node.is_open(&cluster.eyes) {
                fleet.say(EVERYWHERE, Draft::approval(&cluster.id(), EVERYWHERE, &node.name));
            }
            until_within(STARTS_WITHIN, &format!("{} opens", node.name), || node.is_open(&cluster.eyes));
        }
    }
}

fn a_hold_keeps_one_cluster_shut(fleet: &Fleet) {
    let [held, others @ ..] = &fleet.clusters[..] else { panic!("clusters") };
    let [one, other] = &held.operators;
    let hold = Draft::message("hold", &held.id(), one, json!({"reason": "forensics"}));
    let (id, at) = (hold.id.clone(), rfc3339(hold.issued_at));
    fleet.say(one, hold);
    fleet.entries("hold", 1, &held.id());
    fleet.nowhere_else("hold", &held.id());
    fleet.crash_all();
    for cluster in others {
        until(&format!("{} opens by itself", cluster.name), || cluster.nodes[0].is_open(&cluster.eyes));
    }
    always(SAMPLE, "held, it stays shut", || !held.nodes[0].is_open(&held.eyes));

    // Nobody else's operators end it, nor what says it in another cluster.
    let release = json!({"hold": id, "by": one, "held_at": at});
    let refused = fleet.refused("wrong-role");
    for stranger in &others[0].operators {
        fleet.say(stranger, Draft::message("release", &held.id(), stranger, release.clone()));
        fleet.say(stranger, Draft::message("release", &others[0].id(), stranger, release.clone()));
    }
    until("they are nobody here", || fleet.refused("wrong-role") >= refused + 2 * CUSTODIANS.len());
    fleet.say(one, Draft::message("release", &held.id(), one, release.clone()));
    always(SAMPLE, "one of its own is not enough", || !held.nodes[0].is_open(&held.eyes));
    fleet.say(other, Draft::message("release", &held.id(), other, release));
    until("released by its own two, it opens by itself", || held.nodes[0].is_open(&held.eyes));
    assert!(fleet.released(&held.id(), &id));
    fleet.rest();
}

/// Carol's key is another in one cluster, and the same in all others.
fn another_trust_root_is_one_clusters(fleet: &Fleet) {
    let [changed, others @ ..] = &fleet.clusters[..] else { panic!("clusters") };
    let old = fleet.allowed_signers();
    let key = fleet.key("carol-new");
    let line = |line: &str| if line.starts_with("carol ") { signer(EVERYWHERE, &key) } else { format!("{line}\n") };
    let new: String = old.lines().map(line).collect();
    let content = json!({"version": 1, "previous_sha256": sha256(old.as_bytes()), "allowed_signers": new});
    for operator in &changed.operators {
        fleet.say(operator, Draft::message("trust", &changed.id(), operator, content.clone()));
    }
    fleet.entries("trust", 1, &changed.id());
    fleet.nowhere_else("trust", &changed.id());
    let forged = fleet.refused("forged");
    fleet.say(EVERYWHERE, Draft::message("hold", &changed.id(), EVERYWHERE, json!({})));
    until("the old key is nobody's here", || fleet.refused("forged") >= forged + CUSTODIANS.len());
    for other in others {
        let hold = Draft::message("hold", &other.id(), EVERYWHERE, json!({}));
        let id = hold.id.clone();
        let release = json!({"hold": id, "by": EVERYWHERE, "held_at": rfc3339(hold.issued_at)});
        fleet.say(EVERYWHERE, hold);
        fleet.entries("hold", 1, &other.id());
        for operator in &other.operators {
            fleet.say(operator, Draft::message("release", &other.id(), operator, release.clone()));
        }
        until("released by its own", || fleet.released(&other.id(), &id));
    }
    fleet.crash_all();
    for cluster in &fleet.clusters {
        until(&format!("{} opens by itself", cluster.name), || cluster.nodes[0].is_open(&cluster.eyes));
    }
    fleet.rest();
}

/// custodian-2's word counts for nothing in one cluster: a marker of it keeps that one open, and shuts another.
fn distrust_is_one_clusters(fleet: &Fleet) {
    let (here, there, me) = (&fleet.clusters[0], &fleet.clusters[1], CUSTODIANS[1]);
    for operator in &here.operators {
        fleet.say(operator, Draft::message("distrust", &here.id(), operator, json!({"principal": me})));
    }
    fleet.entries("distrust", 1, &here.id());
    fleet.nowhere_else("distrust", &here.id());
    let markers = || audited(&fleet.home(CUSTODIANS[0]).join("state"), "marker");
    let before = markers().len();
    for cluster in [here, there] {
        let node = &cluster.nodes[0].name;
        let seen_at = rfc3339(jiff::Timestamp::now());
        let content = json!({"node": node, "seen": "sealed", "cause": "in-place", "seen_at": seen_at});
        cluster.nodes[0].kill();
        let marker = Draft::message("sighting", &cluster.id(), me, content);
        deliver(&fleet.home(CUSTODIANS[0]), &marker.signed(&fleet.home(me).join("signing.key")));
    }
    until("its marker is taken in the other cluster", || markers().len() > before);
    assert!(markers()[before..].iter().all(|entry| entry["cluster"] == there.id()), "{:?}", markers());
    for cluster in [here, there] {
        cluster.nodes[0].spawn();
    }
    until("distrusted, it keeps nothing shut", || here.nodes[0].is_open(&here.eyes));
    always(SAMPLE, "trusted, it does", || !there.nodes[0].is_open(&there.eyes));
    for operator in &there.operators {
        fleet.say(operator, Draft::approval(&there.id(), operator, &there.nodes[0].name));
    }
    until("two operators open it", || there.nodes[0].is_open(&there.eyes));
}

impl Node {
    fn new(dir: PathBuf, name: String, authority: &Authority) -> Self {
        fs::create_dir_all(dir.join("data")).expect("a folder");
        let (certificate, key) = authority.issue(&["127.0.0.1"]).pem;
        fs::write(dir.join("tls.pem"), certificate).expect("written");
        fs::write(dir.join("tls.key"), key).expect("written");
        // Free now; nobody else takes it in the moment until the node does, or the node says so.
        let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port();
        Self { name, url: format!("https://127.0.0.1:{port}"), dir, process: RefCell::new(None) }
    }

    fn configure(&self, all: &[Self], ca: &Path) {
        let (dir, ca) = (self.dir.display(), ca.display());
        let cluster = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
        let others = all.iter().filter(|other| other.name != self.name).map(|other| {
            format!("  retry_join {{\n leader_api_addr = \"{}\"\n leader_ca_cert_file = \"{ca}\"\n }}\n", other.url)
        });
        let config = format!(
            "api_addr = \"{url}\"\ncluster_addr = \"https://{cluster}\"\nlistener \"tcp\" {{\n  address = \"{address}\"\n  \
             cluster_address = \"{cluster}\"\n  tls_cert_file = \"{dir}/tls.pem\"\n  tls_key_file = \"{dir}/tls.key\"\n}}\n\
             storage \"raft\" {{\n  path = \"{dir}/data\"\n  node_id = \"{name}\"\n{others}}}\n",
            url = self.url,
            address = self.url.trim_start_matches("https://"),
            name = self.name,
            others = others.collect::<String>(),
        );
        fs::write(self.dir.join("config.hcl"), config).expect("written");
    }

    fn spawn(&self) {
        let log = fs::File::options().append(true).create(true).open(self.dir.join("log")).expect("a log");
        let mut command = Command::new(bao());
        command.args(["server", "-config"]).arg(self.dir.join("config.hcl")).stdin(Stdio::null());
        let child = command.stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("OpenBao starts");
        *self.process.borrow_mut() = Some(child);
    }

    fn kill(&self) {
        if let Some(mut child) = self.process.borrow_mut().take() {
            // Ended already, or ends now.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn is_open(&self, eyes: &Eyes) -> bool {
        eyes.is_open(&self.url)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Cluster {
    fn new(folder: &Path, number: usize, nodes: usize) -> Self {
        let name = format!("cluster-{number}");
        let dir = folder.join(&name);
        fs::create_dir_all(&dir).expect("a folder");
        let (authority, ca) = (Authority::new(&name), dir.join("ca.pem"));
        fs::write(&ca, authority.pem()).expect("written");
        let names = (1..=nodes).map(|node| format!("vault-{number}-{node}"));
        let nodes: Vec<_> = names.map(|name| Node::new(dir.join(&name), name, &authority)).collect();
        nodes.iter().for_each(|node| node.configure(&nodes, &ca));
        let operators = ["alice", "bob"].map(|operator| format!("{operator}-{number}"));
        Self { name, eyes: Eyes::new(&ca), dir, nodes, operators }
    }

    fn manifest(&self) -> PathBuf {
        self.dir.join(format!("ceremony/{}.manifest.json", self.name))
    }

    fn id(&self) -> String {
        cluster_id(&self.manifest())
    }

    /// Its part of a custodian's configuration.
    fn section(&self) -> String {
        let Self { name, dir, operators: [one, other], .. } = self;
        let nodes: String = self
            .nodes
            .iter()
            .map(|node| format!("{} = {{ url = \"{}\", tls = \"direct\" }}\n", node.name, node.url))
            .collect();
        format!(
            "[clusters.{name}]\nmanifest = \"{}\"\nshare = \"{name}.share.age\"\nidentity = \"identity.txt\"\n\
             ca_cert = \"{}/ca.pem\"\noperators = [\"{one}\", \"{other}\", \"{EVERYWHERE}\"]\n\
             [clusters.{name}.nodes]\n{nodes}",
            self.manifest().display(),
            dir.display()
        )
    }
}

impl Fleet {
    fn start((clusters, nodes): (usize, usize)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clusters: Vec<_> = (1..=clusters).map(|number| Cluster::new(folder.path(), number, nodes)).collect();
        let mut fleet = Self { folder, clusters, custodians: Vec::new() };
        let all: Vec<_> =
            fleet.clusters.iter().flat_map(|cluster| cluster.nodes.iter().map(move |n| (cluster, n))).collect();
        for some in all.chunks(AT_ONCE) {
            some.iter().for_each(|(_, node)| node.spawn());
            for (cluster, node) in some {
                until(&format!("{} answers", node.name), || cluster.eyes.look(&node.url).is_some());
            }
        }
        for host in CUSTODIANS.into_iter().chain(["nobody"]) {
            let dir = fleet.home(host);
            run("holdfast-setup", &[Path::new("enroll"), Path::new("--id"), Path::new(host), Path::new("--dir"), &dir])
                .well();
        }
        fleet.clusters.iter().for_each(|cluster| fleet.initialise(cluster));
        fleet.configure();
        let started: Vec<_> = CUSTODIANS.iter().map(|custodian| fleet.custodian(custodian)).collect();
        fleet.custodians = started;
        fleet
    }

    /// A ceremony, and its shares on both hosts.
    fn initialise(&self, cluster: &Cluster) {
        // Nobody wants the root token: it goes to a key that is used for nothing.
        let enrollment: Value = json_of(&self.home("nobody").join("enrollment.json"));
        let body: Value =
            serde_json::from_slice(&unbase64(enrollment["body"].as_str().expect("a body"))).expect("JSON");
        let root = self.folder.path().join("root-token-key.pgp");
        fs::write(&root, unbase64(body["openpgp_key"].as_str().expect("a key"))).expect("written");
        let enrollments = CUSTODIANS.map(|custodian| self.home(custodian).join("enrollment.json"));
        let (ca, output) = (cluster.dir.join("ca.pem"), cluster.dir.join("ceremony"));
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut line: Vec<String> =
            ["init", "--yes", "--accept-no-recovery", "--threshold", "2"].map(str::to_owned).into();
        let mut option = |name: &str, value: &str| line.extend([format!("--{name}"), value.to_owned()]);
        option("cluster", &cluster.name);
        option("vault", &cluster.nodes[0].url);
        option("ca-cert", &text(&ca));
        option("root-token-key", &text(&root));
        option("output", &text(&output));
        enrollments.iter().for_each(|enrollment| option("enrollment", &text(enrollment)));
        run("holdfast", &line).well();
        for custodian in CUSTODIANS {
            let packet = output.join(format!("packets/{custodian}.packet.json"));
            let words = ["install", "--yes", "--keep-transport-key", "--packet", &text(&packet), "--manifest"];
            let mut line = words.map(str::to_owned).to_vec();
            line.extend([text(&cluster.manifest()), "--dir".to_owned(), text(&self.home(custodian))]);
            run("holdfast-setup", &line).well();
        }
    }

    fn configure(&self) {
        let mut signers =
            fs::read_to_string(self.clusters[0].dir.join("ceremony/allowed_signers.custodians")).expect("there");
        let own = self.clusters.iter().flat_map(|cluster| cluster.operators.iter().map(String::as_str));
        for operator in own.chain([EVERYWHERE]) {
            signers += &signer(operator, &self.key(operator));
        }
        let sections: String = self.clusters.iter().map(Cluster::section).collect();
        for custodian in CUSTODIANS {
            let home = self.home(custodian);
            fs::write(home.join("allowed_signers"), &signers).expect("written");
            let config = format!(
                "id = \"{custodian}\"\nstate_dir = \"state\"\nsigning_key = \"signing.key\"\n\
                 allowed_signers = \"allowed_signers\"\n{sections}"
            );
            fs::write(home.join("custodian.toml"), config).expect("written");
            fs::create_dir_all(home.join("state")).expect("made");
        }
    }

    fn custodian(&self, id: &str) -> Child {
        let home = self.home(id);
        let log = fs::File::create(home.join("log")).expect("a log");
        let mut command = Command::new(program("holdfast-custodian"));
        command.args(["run", "--config"]).arg(home.join("custodian.toml")).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("it starts")
    }

    fn home(&self, host: &str) -> PathBuf {
        self.folder.path().join(host)
    }

    fn log(&self, custodian: &str) -> String {
        fs::read_to_string(self.home(custodian).join("log")).unwrap_or_default()
    }

    fn allowed_signers(&self) -> String {
        fs::read_to_string(self.home(CUSTODIANS[0]).join("allowed_signers")).expect("there")
    }

    /// A person's key, made when it is first asked for.
    fn key(&self, person: &str) -> PathBuf {
        let key = self.folder.path().join(format!("{person}.key"));
        if !key.exists() {
            tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", &key.to_string_lossy()]);
        }
        key
    }

    /// Somebody says something to both custodians.
    fn say(&self, from: &str, draft: Draft) {
        let envelope = draft.signed(&self.key(from));
        CUSTODIANS.iter().for_each(|custodian| deliver(&self.home(custodian), &envelope));
    }

    /// How many messages both have refused for this reason, by their logs.
    fn refused(&self, reason: &str) -> usize {
        let reason = format!("\"reason\":\"{reason}\"");
        CUSTODIANS.iter().map(|custodian| self.log(custodian).matches(&reason).count()).sum()
    }

    /// Both have so many of these about this cluster in their audit logs.
    fn entries(&self, what: &str, many: usize, cluster: &str) {
        for custodian in CUSTODIANS {
            let told = || {
                let told = audited(&self.home(custodian).join("state"), what);
                told.iter().filter(|entry| entry["cluster"] == cluster).count()
            };
            until(&format!("{custodian} tells of {what}"), || told() >= many);
            assert_eq!(told(), many, "{custodian}: {what}");
        }
    }

    /// Whether both tell that a hold was ended in this cluster.
    fn released(&self, cluster: &str, hold: &str) -> bool {
        CUSTODIANS.iter().all(|custodian| {
            let told = audited(&self.home(custodian).join("state"), "released");
            told.iter().any(|entry| entry["cluster"] == cluster && entry["hold"] == hold)
        })
    }

    /// Neither has any of these about another cluster.
    fn nowhere_else(&self, what: &str, cluster: &str) {
        for custodian in CUSTODIANS {
            let told = audited(&self.home(custodian).join("state"), what);
            assert!(told.iter().all(|entry| entry["cluster"] == cluster), "{custodian}: {told:?}");
        }
    }

    /// The first node of each cluster is killed, and started again.
    fn crash_all(&self) {
        let first = self.clusters.iter().map(|cluster| &cluster.nodes[0]);
        first.clone().for_each(Node::kill);
        first.for_each(Node::spawn);
    }

    /// Every node is open, and both custodians could prove a restart of it.
    fn rest(&self) {
        for cluster in &self.clusters {
            for node in &cluster.nodes {
                until_within(STARTS_WITHIN, &format!("{} opens", node.name), || node.is_open(&cluster.eyes));
                for custodian in CUSTODIANS {
                    let provable = || provable_by(&self.log(custodian), &node.name);
                    until(&format!("{custodian} could prove a restart of {}", node.name), provable);
                }
            }
        }
    }

    /// What each custodian costs that has nothing to do.
    fn measure(&self) {
        let used = |custodian: &Child| ticks(custodian.id());
        let before: Vec<_> = self.custodians.iter().map(used).collect();
        let began = Instant::now();
        let nodes: usize = self.clusters.iter().map(|cluster| cluster.nodes.len()).sum();
        always(REST, "the custodians run", || {
            self.custodians.iter().all(|custodian| holdfast_tests::processes::runs(custodian.id()))
        });
        for (custodian, before) in self.custodians.iter().zip(before) {
            let spent = (used(custodian) - before) as f64 / rustix::param::clock_ticks_per_second() as f64;
            let percent = 100.0 * spent / began.elapsed().as_secs_f64();
            println!(
                "    at rest, {} clusters of {nodes} nodes together: {} KiB, {percent:.2} % of one core",
                self.clusters.len(),
                resident_kib(custodian.id())
            );
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for custodian in CUSTODIANS {
                let log = self.log(custodian);
                let lines: Vec<_> = log.lines().collect();
                eprintln!("--- the end of {custodian}'s log:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
            }
        }
        for custodian in &mut self.custodians {
            // Ended already, or ends now.
            let _ = custodian.kill();
            let _ = custodian.wait();
        }
    }
}

/// A line of a trust root, for an operator.
fn signer(operator: &str, key: &Path) -> String {
    let public = fs::read_to_string(key.with_extension("key.pub")).expect("its public half");
    format!("{operator} namespaces=\"holdfast.order,holdfast.approval\" {}\n", public.trim())
}

fn json_of(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).expect("there")).expect("JSON")
}
