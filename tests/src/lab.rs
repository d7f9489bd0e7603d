//! A lab of the test's own: brought up by `holdfast lab up`, known by lab.json alone, and ended whatever becomes of the test.
#![expect(clippy::print_stderr, reason = "what a failed test needs to be understood goes where cargo shows it")]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::processes::{self, Signal, runs};
use crate::programs::{Said, bao, program, run};
use crate::vault::Eyes;
use crate::wait::{PATIENCE, until, until_within};

/// A node that crashed is open again within this time of its first answer.
pub const OPEN_WITHIN: Duration = Duration::from_secs(1);

/// How long RabbitMQ may take to start on a busy machine.
const BROKER_START: Duration = Duration::from_secs(120);

/// How much of a line of a log is shown.
const LINE_MAX: usize = 400;

/// How many of the last lines of a log are shown when a test fails.
const LOG_TAIL: usize = 12;

/// lab.json.
#[derive(Debug, Clone, Deserialize)]
pub struct LabFile {
    /// The cluster's name in every configuration.
    pub cluster: String,
    /// The CA of the nodes' certificates.
    pub ca_cert: PathBuf,
    /// Its key.
    pub ca_key: PathBuf,
    /// Holds the root token.
    pub root_token_file: PathBuf,
    /// The trust root.
    pub allowed_signers: PathBuf,
    /// The cluster's manifest.
    pub manifest: PathBuf,
    /// The nodes.
    pub vault: Vec<Node>,
    /// The broker, if there is one.
    pub broker: Option<BrokerEntry>,
    /// The custodians.
    pub custodians: Vec<CustodianEntry>,
    /// The first sentinel: the one that is meant by "the sentinel".
    pub sentinel: SentinelEntry,
    /// All of them.
    pub sentinels: Vec<SentinelEntry>,
    /// The operators.
    pub operators: Vec<Operator>,
    /// The first operator's configuration.
    pub operator_config: PathBuf,
}

/// What every process has.
#[derive(Debug, Clone, Deserialize)]
pub struct Process {
    /// The process that `up` started.
    pub pid: u32,
    /// What starts it again.
    pub start: Vec<String>,
    /// What `start` needs in its environment.
    pub env: BTreeMap<String, String>,
    /// Its log.
    pub log: PathBuf,
}

/// A node.
#[derive(Debug, Clone, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its address.
    pub url: String,
    /// Its process.
    #[serde(flatten)]
    pub process: Process,
}

/// The broker.
#[derive(Debug, Clone, Deserialize)]
pub struct BrokerEntry {
    /// `amqps://HOST:PORT/VHOST`.
    pub url: String,
    /// The CA of its certificate.
    pub ca_cert: PathBuf,
    /// A user that may do everything.
    pub admin_user: String,
    /// That user's password.
    pub admin_password_file: PathBuf,
    /// Its process.
    #[serde(flatten)]
    pub process: Process,
}

/// A custodian.
#[derive(Debug, Clone, Deserialize)]
pub struct CustodianEntry {
    /// Its principal.
    pub id: String,
    /// Its configuration.
    pub config: PathBuf,
    /// What it remembers.
    pub state_dir: PathBuf,
    /// Its process.
    #[serde(flatten)]
    pub process: Process,
}

/// A sentinel.
#[derive(Debug, Clone, Deserialize)]
pub struct SentinelEntry {
    /// Its principal.
    pub id: String,
    /// Its configuration.
    pub config: PathBuf,
    /// Its page.
    pub url: String,
    /// Its process.
    #[serde(flatten)]
    pub process: Process,
}

/// An operator.
#[derive(Debug, Clone, Deserialize)]
pub struct Operator {
    /// The principal.
    pub id: String,
    /// The private key.
    pub key: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
}

/// A lab that runs. Ends with the value: what `up` started by `down`, what was started again here by its pid.
#[derive(Debug)]
pub struct Lab {
    /// What lab.json says.
    pub file: LabFile,
    /// Eyes for its nodes.
    pub eyes: Eyes,
    dir: PathBuf,
    json: Value,
    pids: BTreeMap<String, u32>,
    /// What was started again here, and when.
    again: Vec<Child>,
    started: BTreeMap<String, Timestamp>,
    // The folder goes when nothing runs in it any more.
    folder: Option<TempDir>,
}

impl Lab {
    /// Brings a lab up. `args` are those of `holdfast lab up`.
    pub fn up(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("lab");
        let given = dir.to_string_lossy().into_owned();
        let mut line = vec!["lab", "up", "--dir", &given];
        line.extend(args);
        run("holdfast", &line).well();
        let bytes = fs::read(dir.join("lab.json")).expect("lab.json");
        let json: Value = serde_json::from_slice(&bytes).expect("JSON");
        let file: LabFile = serde_json::from_value(json.clone()).expect("a lab's file");
        let mut pids: BTreeMap<_, _> = file.vault.iter().map(|node| (node.name.clone(), node.process.pid)).collect();
        pids.extend(file.custodians.iter().map(|custodian| (custodian.id.clone(), custodian.process.pid)));
        pids.extend(file.broker.iter().map(|broker| ("broker".to_owned(), broker.process.pid)));
        pids.insert("sentinel".to_owned(), file.sentinel.process.pid);
        pids.extend(file.sentinels.iter().skip(1).map(|sentinel| (sentinel.id.clone(), sentinel.process.pid)));
        let eyes = Eyes::new(&dir.join(&file.ca_cert));
        Self { file, eyes, dir, json, pids, again: Vec::new(), started: BTreeMap::new(), folder: Some(folder) }
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path of lab.json, which may be relative to the lab's folder.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.dir.join(path)
    }

    /// Ends the processes, and keeps the files for as long as the value lives.
    pub fn down(mut self) -> TempDir {
        self.end();
        self.folder.take().expect("it goes once")
    }

    /// Runs one part of a test, which leaves the lab as it found it: whole.
    pub fn scenario(&mut self, name: &str, part: impl FnOnce(&mut Self)) {
        let began = Instant::now();
        eprintln!("    {name} …");
        part(self);
        self.settle();
        eprintln!("    {name}: {:.1} s", began.elapsed().as_secs_f64());
    }

    /// The names of the nodes.
    pub fn nodes(&self) -> Vec<String> {
        self.file.vault.iter().map(|node| node.name.clone()).collect()
    }

    /// The custodians' principals.
    pub fn custodians(&self) -> Vec<String> {
        self.file.custodians.iter().map(|custodian| custodian.id.clone()).collect()
    }

    /// A custodian.
    pub fn custodian(&self, id: &str) -> &CustodianEntry {
        self.file.custodians.iter().find(|custodian| custodian.id == id).expect("a custodian of the lab")
    }

    /// A node's address.
    pub fn url(&self, node: &str) -> &str {
        &self.file.vault.iter().find(|known| known.name == node).expect("a node of the lab").url
    }

    /// The pid of a process now, which a restart changes.
    pub fn pid(&self, name: &str) -> u32 {
        self.pids[name]
    }

    /// Whether a process runs.
    pub fn runs(&self, name: &str) -> bool {
        runs(self.pid(name))
    }

    /// Every process of the lab that runs, by name; Erlang's name server is one.
    pub fn running(&self) -> BTreeMap<String, u32> {
        let mut all = self.pids.clone();
        if let Some(epmd) = self.json["broker"]["epmd"]["pid"].as_u64() {
            all.insert("epmd".to_owned(), u32::try_from(epmd).expect("a pid"));
        }
        all.retain(|_, pid| runs(*pid));
        all
    }

    /// Sends a process a signal.
    pub fn signal(&self, name: &str, signal: Signal) {
        processes::signal(self.pid(name), signal);
    }

    /// `kill -9`, and the end of it seen.
    pub fn kill(&mut self, name: &str) {
        self.signal(name, Signal::KILL);
        self.reap(name);
    }

    /// SIGTERM, and the end of it seen. Returns how long that took, and the exit code of one that was started here.
    pub fn stop(&mut self, name: &str) -> (Duration, Option<i32>) {
        let began = Instant::now();
        self.signal(name, Signal::TERM);
        let code = self.reap(name);
        (began.elapsed(), code)
    }

    /// Sees a process end that was told to. Returns its exit code where this test was its parent.
    pub fn reap(&mut self, name: &str) -> Option<i32> {
        let pid = self.pid(name);
        if let Some(own) = self.again.iter().position(|child| child.id() == pid) {
            let mut child = self.again.remove(own);
            let mut status = None;
            until(&format!("the end of {name}"), || {
                status = child.try_wait().expect("it can be asked");
                status.is_some()
            });
            return status.and_then(|status| status.code());
        }
        processes::gone(pid);
        None
    }

    /// Starts a process that ended again, exactly as lab.json says.
    pub fn start(&mut self, name: &str) {
        self.start_with(name, &BTreeMap::new());
    }

    /// The same, with more in its environment.
    pub fn start_with(&mut self, name: &str, env: &BTreeMap<String, String>) {
        self.start_behind(name, &[], env);
    }

    /// The same, behind another command that becomes it in the end.
    pub fn start_behind(&mut self, name: &str, before: &[String], env: &BTreeMap<String, String>) {
        assert!(!self.runs(name), "{name} runs already");
        let mut process = self.process(name).clone();
        process.start.splice(0..0, before.iter().cloned());
        let log = OpenOptions::new().append(true).create(true).open(self.dir.join(&process.log)).expect("its log");
        let mut command = Command::new(&process.start[0]);
        command.args(&process.start[1..]).envs(&process.env).envs(env).current_dir(&self.dir).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.started.insert(name.to_owned(), Timestamp::now());
        let child = command.spawn().expect("it starts again");
        self.pids.insert(name.to_owned(), child.id());
        self.again.push(child);
    }

    /// `kill -9` and a start.
    pub fn restart(&mut self, name: &str) {
        self.kill(name);
        self.start(name);
    }

    /// Starts the broker again, and waits until it takes connections.
    pub fn start_broker(&mut self) {
        self.start("broker");
        let url = self.file.broker.as_ref().expect("a broker").url.clone();
        let address = url.trim_start_matches("amqps://").split('/').next().expect("an address").to_owned();
        until_within(BROKER_START, "the broker listens", || std::net::TcpStream::connect(&address).is_ok());
    }

    /// Kills a node, starts it again, and times its opening by its own answers.
    pub fn crash(&mut self, node: &str) -> Result<Duration, String> {
        self.crash_patiently(node, OPEN_WITHIN)
    }

    /// The same, with another limit.
    pub fn crash_patiently(&mut self, node: &str, open_within: Duration) -> Result<Duration, String> {
        self.restart(node);
        self.eyes.time_opening(self.url(node), PATIENCE, open_within)
    }

    /// Seals a node by hand, with the root token.
    pub fn seal(&self, node: &str) {
        self.eyes.seal(self.url(node), &self.root_token());
    }

    /// The root token, which a lab keeps and no real ceremony leaves.
    pub fn root_token(&self) -> String {
        let token = fs::read_to_string(self.path(&self.file.root_token_file)).expect("the root token");
        token.trim().to_owned()
    }

    /// Runs a line of shell in the lab's folder with the server's own tool in its path, and with the root token.
    pub fn shell(&self, line: &str) -> Said {
        let tool = bao().canonicalize().unwrap_or_else(|_| bao());
        let path = format!("{}:/usr/bin:/bin", tool.parent().expect("a folder").display());
        let mut command = Command::new("sh");
        command.args(["-euc", line]).current_dir(self.dir()).env("PATH", path).env("HOME", self.dir());
        command.env("BAO_ADDR", &self.file.vault[0].url).env("BAO_CACERT", self.path(&self.file.ca_cert));
        command.env("BAO_TOKEN", self.root_token()).stdin(Stdio::null());
        command.output().expect("a shell").into()
    }

    /// Whether a node says that it is open.
    pub fn is_open(&self, node: &str) -> bool {
        self.eyes.is_open(self.url(node))
    }

    /// Whether a node says that it is sealed.
    pub fn is_sealed(&self, node: &str) -> bool {
        self.eyes.is_sealed(self.url(node))
    }

    /// Runs `holdfast` with the first operator's configuration.
    pub fn holdfast(&self, args: &[&str]) -> Said {
        let config = self.path(&self.file.operator_config).to_string_lossy().into_owned();
        let mut line = args.to_vec();
        line.extend(["--config", &config]);
        run("holdfast", &line)
    }

    /// Runs `holdfast` with an operator's configuration.
    pub fn holdfast_as(&self, operator: &str, args: &[&str]) -> Said {
        let operator = self.file.operators.iter().find(|known| known.id == operator).expect("an operator of the lab");
        let config = self.path(&operator.config).to_string_lossy().into_owned();
        let mut line = args.to_vec();
        line.extend(["--config", &config]);
        run("holdfast", &line)
    }

    /// Puts something in the place of something else that must be there, in a custodian's configuration.
    pub fn edit(&self, custodian: &str, from: &str, to: &str) {
        self.edit_file(&self.path(&self.custodian(custodian).config), from, to);
    }

    /// The same in any file.
    pub fn edit_file(&self, file: &Path, from: &str, to: &str) {
        let file = self.path(file);
        let text = fs::read_to_string(&file).expect("there");
        assert!(text.contains(from), "{from:?} is not in {text}");
        fs::write(&file, text.replacen(from, to, 1)).expect("written");
    }

    /// The entries of a custodian's audit log that tell of this.
    pub fn audited(&self, custodian: &str, what: &str) -> Vec<Value> {
        audited(&self.path(&self.custodian(custodian).state_dir), what)
    }

    /// The first operator approves the opening of a node; where there is no broker, by files that are carried.
    pub fn approve(&self, node: &str) {
        let cluster = &self.file.cluster;
        let words = ["approve", "--json", "--no-wait", "--cluster", cluster, "--node", node];
        if self.file.broker.is_some() {
            self.holdfast(&words).well();
            return;
        }
        let all: Vec<_> = self.custodians().into_iter().filter(|custodian| self.runs(custodian)).collect();
        self.approve_by_hand(node, &all.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// The first operator writes an approval into a file, which is carried to these custodians.
    pub fn approve_by_hand(&self, node: &str, custodians: &[&str]) {
        let folder = self.dir.join("carried").to_string_lossy().into_owned();
        let words = ["approve", "--json", "--cluster", &self.file.cluster, "--node", node, "--output", &folder];
        let said = self.holdfast(&words).well();
        let written: Value = serde_json::from_str(&said.out).expect("JSON");
        let file = written[0]["file"].as_str().expect("a file").to_owned();
        for custodian in custodians {
            let config = self.path(&self.custodian(custodian).config).to_string_lossy().into_owned();
            run("holdfast-setup", &["deliver", "--config", &config, &file]).well();
        }
    }

    /// What the sentinel knows; null if it does not answer.
    pub fn status(&self) -> Value {
        let page = self.read_sentinel("/api/v1/status").unwrap_or_default();
        let document: Value = serde_json::from_str(&page).unwrap_or_default();
        document["clusters"][&self.file.cluster].clone()
    }

    /// A page of the sentinel's.
    pub fn read_sentinel(&self, path: &str) -> Option<String> {
        self.eyes.read(&format!("{}{path}", self.file.sentinel.url))
    }

    /// The last heartbeat that the sentinel heard of a custodian; null if none.
    pub fn heartbeat(&self, custodian: &str) -> Value {
        self.status()["custodians"][custodian]["heartbeat"].clone()
    }

    /// How many messages a custodian says that it refused for this reason since it started.
    pub fn refused(&self, custodian: &str, reason: &str) -> u64 {
        self.heartbeat(custodian)["rejected"][reason].as_u64().unwrap_or_default()
    }

    /// Waits until a node is open and every custodian that runs says in its log, after whatever else happened to the node, that it
    /// could prove a restart of it. For labs without a broker, where no heartbeat tells.
    pub fn restart_provable(&self, node: &str) {
        until(&format!("{node} open"), || self.is_open(node));
        for custodian in self.custodians().iter().filter(|custodian| self.runs(custodian)) {
            let log = self.path(&self.custodian(custodian).process.log);
            until(&format!("{custodian} could prove a restart of {node}"), || {
                provable_by(&fs::read_to_string(&log).unwrap_or_default(), node)
            });
        }
    }

    /// Waits until the lab is whole: every process runs, every node is open, and every custodian says that it sees that, is
    /// ready, and knows nothing that would keep it from opening a node that crashes.
    pub fn settle(&self) {
        for name in self.pids.keys() {
            assert!(self.runs(name), "{name} does not run");
        }
        for node in self.nodes() {
            until(&format!("{node} open"), || self.is_open(&node));
        }
        if self.file.broker.is_none() {
            self.nodes().iter().for_each(|node| self.restart_provable(node));
            return;
        }
        let mut last = Value::Null;
        let whole = |status: &Value| {
            self.custodians().iter().all(|id| {
                let known = &status["custodians"][id];
                let nodes = known["heartbeat"]["nodes"].as_object();
                let sees_all_open = nodes.is_some_and(|nodes| {
                    nodes.len() == self.file.vault.len()
                        && nodes
                            .values()
                            .all(|node| node["seen"] == "open" && node["ready"] == true && node["marker"].is_null())
                        && nodes.values().all(|node| node["restart_provable"] == true)
                });
                known["up"] == true && sees_all_open && self.is_of_now(id, &known["heartbeat"])
            })
        };
        let began = Instant::now();
        loop {
            let status = self.status();
            if whole(&status) {
                return;
            }
            last = if status.is_null() { last } else { status };
            assert!(began.elapsed() < PATIENCE, "the lab does not come to rest: {last:#}");
            crate::wait::pause(Duration::from_millis(50));
        }
    }

    /// Whether a heartbeat is of the process that runs now.
    pub fn is_of_now(&self, custodian: &str, heartbeat: &Value) -> bool {
        let Some(restarted) = self.started.get(custodian) else { return true };
        let started: Option<Timestamp> = heartbeat["started_at"].as_str().and_then(|text| text.parse().ok());
        // The heartbeat's clock has milliseconds.
        started.is_some_and(|at| at.as_millisecond() >= restarted.as_millisecond())
    }

    fn process(&self, name: &str) -> &Process {
        let LabFile { vault, broker, custodians, sentinel, sentinels, .. } = &self.file;
        let node = vault.iter().find(|node| node.name == name).map(|node| &node.process);
        let custodian = custodians.iter().find(|custodian| custodian.id == name).map(|custodian| &custodian.process);
        let broker = broker.as_ref().filter(|_| name == "broker").map(|broker| &broker.process);
        let others = sentinels.iter().skip(1).find(|sentinel| sentinel.id == name).map(|other| &other.process);
        let sentinel = (name == "sentinel").then_some(&sentinel.process).or(others);
        node.or(custodian).or(broker).or(sentinel).unwrap_or_else(|| panic!("the lab has no {name}"))
    }

    fn end(&mut self) {
        if self.folder.is_none() {
            return;
        }
        for mut child in self.again.drain(..) {
            // Ended already, or ends now.
            let _ = child.kill();
            let _ = child.wait();
        }
        // A stopped process does not take SIGTERM.
        for pid in self.pids.values().copied().filter(|pid| runs(*pid)) {
            processes::signal(pid, Signal::CONT);
        }
        let said = Command::new(program("holdfast")).args(["lab", "down", "--dir"]).arg(&self.dir).output();
        let said = Said::from(said.expect("holdfast runs"));
        if said.code != Some(0) && !std::thread::panicking() {
            panic!("lab down failed: {}", said.err);
        }
    }

    fn show_logs(&self) {
        for custodian in &self.file.custodians {
            let log = fs::read_to_string(self.dir.join(&custodian.process.log)).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- the end of {}'s log:", custodian.id);
            for line in &lines[lines.len().saturating_sub(LOG_TAIL)..] {
                eprintln!("{}", line.get(..LINE_MAX).unwrap_or(line));
            }
        }
    }
}

/// The entries of the audit log in a custodian's state folder that tell of this, the oldest first.
pub fn audited(state_dir: &Path, what: &str) -> Vec<Value> {
    let files = fs::read_dir(state_dir).expect("its state").flatten().map(|file| file.path());
    let mut logs: Vec<_> = files.filter(|file| file.extension().is_some_and(|kind| kind == "jsonl")).collect();
    // What was put away has a name that sorts before the file that is written.
    logs.sort();
    let text: String = logs.iter().map(|log| fs::read_to_string(log).unwrap_or_default()).collect();
    // The last line may be half written.
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.map(|line| line["entry"].clone()).filter(|entry| entry["what"] == what || entry["kind"] == what).collect()
}

/// Whether the last that a custodian's log tells of a node, or of its own start, is that a restart of the node could be proven.
pub fn provable_by(log: &str, node: &str) -> bool {
    let said = |line: &Value| line["message"] == "a restart of this node can be proven now" && line["node"] == node;
    let happened = |line: &Value| {
        let entry: Value =
            line["entry"].as_str().and_then(|entry| serde_json::from_str(entry).ok()).unwrap_or_default();
        let to_node = ["lost", "sealed", "opened"].iter().any(|what| entry["what"] == *what) && entry["node"] == node;
        entry["what"] == "started" || to_node
    };
    // The last line may be half written.
    let lines = log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut concerns = lines.filter(|line| said(line) || happened(line));
    concerns.next().is_some_and(|last| said(&last))
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        self.end();
    }
}
