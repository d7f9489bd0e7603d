//! Alerts that shut, on a real network: what Alertmanager posts orders a hold, or a hold and a seal, once; whoever has the receiver's
//! key, token and password can shut, and neither release, approve, distrust nor change keys.

#![expect(clippy::print_stderr, reason = "what a failed test needs to be understood goes where cargo shows it")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use holdfast_tests::broker::Client;
use holdfast_tests::lab::Lab;
use holdfast_tests::messages::{Draft, cluster_id};
use holdfast_tests::processes::Signal;
use holdfast_tests::programs::{Said, bao, program, run, tool};
use holdfast_tests::wait::{always, until};
use serde_json::{Value, json};

/// How long a node stays sealed for a claim that is about something else than time.
const SAMPLE: Duration = Duration::from_secs(3);

/// What Alertmanager shows.
const TOKEN: &str = "2f7c1b0e9d8a4c6f2f7c1b0e9d8a4c6f";

/// The receiver, and what a thief of its machine finds. Ends with the value.
struct Receiver {
    folder: PathBuf,
    port: u16,
    server: Child,
    fired: u32,
}

#[test]
fn alerts_shut_and_open_nothing() {
    let mut lab = Lab::up(&[]);
    let mut receiver = None;
    lab.scenario("set up", |lab| receiver = Some(set_up(lab)));
    let mut receiver = receiver.expect("it was set up");
    lab.scenario("strangers", |lab| strangers(lab, &mut receiver));
    lab.scenario("an alert that holds", |lab| an_alert_that_holds(lab, &mut receiver));
    lab.scenario("an alert that seals", |lab| an_alert_that_seals(lab, &mut receiver));
    lab.scenario("a thief of the receiver", |lab| a_thief_of_the_receiver(lab, &mut receiver));
    lab.scenario("no broker", |lab| no_broker(lab, &mut receiver));
    lab.scenario("holds that are used up", |lab| spent(lab, &mut receiver));
}

fn set_up(lab: &mut Lab) -> Receiver {
    let folder = lab.dir().join("ids-1");
    fs::create_dir(&folder).expect("made");
    let key = folder.join("ids-1.key");
    tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "ids-1", "-f", &key.to_string_lossy()]);
    let public = fs::read_to_string(key.with_extension("key.pub")).expect("its public half");
    let public = public.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let line = format!("ids-1 namespaces=\"holdfast.order\" {public}\n");
    let beside = |config: &std::path::Path| lab.path(config).with_file_name("allowed_signers");
    let custodians = lab.file.custodians.iter().map(|custodian| beside(&custodian.config));
    for file in custodians.chain([beside(&lab.file.sentinel.config), lab.path(&lab.file.allowed_signers)]) {
        let mut file =
            fs::OpenOptions::new().append(true).open(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        file.write_all(line.as_bytes()).expect("written");
    }
    for custodian in lab.custodians() {
        lab.edit(&custodian, "sentinels = ", "restrictors = [\"ids-1\"]\nsentinels = ");
        lab.signal(&custodian, Signal::HUP);
    }
    lab.signal("sentinel", Signal::HUP);
    let digest = holdfast_tests::messages::sha256(&fs::read(lab.path(&lab.file.allowed_signers)).expect("there"));
    for custodian in lab.custodians() {
        until("it has the new file", || lab.heartbeat(&custodian)["allowed_signers_sha256"] == *digest);
    }
    admit_to_the_broker(lab, &folder);
    configure(lab, &folder);
    refuse_what_cannot_be_meant(&folder);
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    write_config(&folder, port, "");
    let mut receiver = Receiver { server: start(&folder), folder, port, fired: 0 };
    receiver.answers();
    receiver
}

/// The broker's definitions, as `holdfast broker definitions` makes them with a restrictor; the others' passwords stay.
fn admit_to_the_broker(lab: &mut Lab, folder: &std::path::Path) {
    let (manifest, made) = (lab.path(&lab.file.manifest), folder.join("definitions.json"));
    let words = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let (manifest, passwords, output) = (words(&manifest), words(&folder.join("passwords")), words(&made));
    let line = ["broker", "definitions", "--manifest", &manifest, "--restrictor", "ids-1", "--passwords", &passwords];
    run("holdfast", &[line.as_slice(), &["--output", &output]].concat()).well();
    let read =
        |path: &std::path::Path| -> Value { serde_json::from_slice(&fs::read(path).expect("there")).expect("JSON") };
    let of_labs = lab.dir().join("broker/definitions.json");
    let (made, mut had) = (read(&made), read(&of_labs));
    for list in ["users", "permissions", "topic_permissions", "queues", "bindings"] {
        let ours = made[list].as_array().expect("a list").iter().filter(|entry| entry.to_string().contains("ids-1"));
        had[list].as_array_mut().expect("a list").extend(ours.cloned());
    }
    fs::write(&of_labs, had.to_string()).expect("written");
    fs::copy(folder.join("passwords/ids-1.password"), folder.join("broker.password")).expect("copied");
    lab.kill("broker");
    lab.start_broker();
}

fn configure(lab: &Lab, folder: &std::path::Path) {
    let of_alice = fs::read_to_string(lab.path(&lab.file.operator_config)).expect("there");
    let restrictor: String = of_alice
        .lines()
        .map(|line| match line.split(" = ").next().unwrap_or_default() {
            "principal" => "principal = \"ids-1\"\n".to_owned(),
            "key" => "key = \"ids-1/ids-1.key\"\n".to_owned(),
            "username" => "username = \"ids-1\"\n".to_owned(),
            "password_file" => "password_file = \"ids-1/broker.password\"\n".to_owned(),
            _ => format!("{line}\n"),
        })
        .collect();
    fs::write(lab.dir().join("ids-1.toml"), restrictor).expect("written");
    secret(folder, "webhook.token", TOKEN);
    secret(folder, "short.token", "open sesame");
    secret(folder, "seal.token", &seal_token(lab, folder));
}

fn secret(folder: &std::path::Path, name: &str, text: &str) {
    fs::write(folder.join(name), format!("{text}\n")).expect("written");
    fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o600)).expect("a mode");
}

/// A token that can seal and do nothing else, as docs/OPERATIONS.md has it made.
fn seal_token(lab: &Lab, folder: &std::path::Path) -> String {
    let policy = folder.join("seal-only.hcl");
    fs::write(&policy, "path \"sys/seal\" {\n  capabilities = [\"update\", \"sudo\"]\n}\n").expect("written");
    let ask = |args: &[&str]| {
        let mut command = Command::new(bao());
        command.args(args).env("BAO_ADDR", lab.url("vault-1")).env("BAO_TOKEN", lab.root_token());
        command.env("BAO_CACERT", lab.path(&lab.file.ca_cert)).env("HOME", folder).stdin(Stdio::null());
        Said::from(command.output().expect("bao")).well().out
    };
    ask(&["policy", "write", "seal-only", &policy.to_string_lossy()]);
    let made =
        ["token", "create", "-policy=seal-only", "-no-default-policy", "-orphan", "-period=720h", "-field=token"];
    ask(&made).trim().to_owned()
}

fn write_config(folder: &std::path::Path, port: u16, more: &str) {
    let config = format!(
        r#"restrictor = "../ids-1.toml"
listen = "127.0.0.1:{port}"
token_file = "webhook.token"
memory = "memory.json"
{more}
[actions.intruder]
labels = {{ alertname = "Intruder", node = "one" }}
cluster = "lab"
nodes = ["vault-1"]
what = "hold"

[actions.tampered]
labels = {{ alertname = "Tampered" }}
cluster = "lab"
nodes = ["vault-2"]
what = "seal"
seal_token_file = "seal.token"
"#
    );
    fs::write(folder.join("ids-hook.toml"), config).expect("written");
}

fn start(folder: &std::path::Path) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).expect("a log");
    let mut command = Command::new(program("holdfast"));
    command.args(["ids-hook", "--config"]).arg(folder.join("ids-hook.toml"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("it starts")
}

/// The configuration's own refusals, each with file, line and what to do.
fn refuse_what_cannot_be_meant(folder: &std::path::Path) {
    write_config(folder, 0, "");
    let config = folder.join("ids-hook.toml");
    let good = fs::read_to_string(&config).expect("written");
    let check = || run("holdfast", &["ids-hook", "--check", "--config", &config.to_string_lossy()]);
    let said = check().well();
    assert!(
        said.out.contains("tampered: holds and seals vault-2 of lab when an alert fires with alertname"),
        "{said:?}"
    );
    for (from, to, why) in [
        ("webhook.token", "short.token", "fewer than 32 characters"),
        ("\"../ids-1.toml\"", "\"../operator.toml\"", "sign approvals"),
        ("{ alertname = \"Tampered\" }", "{}", "every alert would do this"),
        ("nodes = [\"vault-2\"]", "nodes = [\"vault-9\"]", "has no node vault-9"),
        ("cluster = \"lab\"", "cluster = \"prod\"", "has no cluster prod"),
        ("what = \"hold\"", "what = \"release\"", "unknown variant"),
        ("what = \"hold\"", "what = \"seal\"", "to seal takes a token"),
        ("what = \"seal\"", "what = \"hold\"", "a hold seals nothing"),
        ("listen = \"127.0.0.1:0\"", "listen = \"0.0.0.0:9641\"", "needs TLS"),
        ("memory = \"memory.json\"", "memory = \"memory.json\"\norders_per_hour = 61", "between 1 and 60"),
        (
            "memory = \"memory.json\"",
            "memory = \"memory.json\"\nseals_per_hour = 0",
            "seals_per_hour is between 1 and 60",
        ),
        ("memory = \"memory.json\"", "memory = \"memory.json\"\nurl = \"x\"", "unknown field"),
    ] {
        assert!(good.contains(from), "{from}");
        fs::write(&config, good.replacen(from, to, 1)).expect("written");
        let said = check();
        assert_eq!(said.code, Some(78), "{to}: {said:?}");
        assert!(said.err.contains(why) && said.err.contains("ids-hook.toml:"), "{to}: {said:?}");
    }
}

impl Receiver {
    fn answers(&mut self) {
        until("the receiver answers", || self.curl(&["/healthz"]).code == Some(0));
    }

    fn is_killed_and_started(&mut self) {
        self.server.kill().expect("it runs");
        self.server.wait().expect("it ends");
        self.server = start(&self.folder);
        self.answers();
    }

    /// How many holds the action that seals has ordered, or how often it has sealed its node, as its file says.
    fn remembers(&self, what: &str) -> usize {
        let file = fs::read(self.folder.join("memory.json")).expect("there");
        let file: Value = serde_json::from_slice(&file).expect("JSON");
        let tampered = &file["actions"]["tampered"];
        let list = if what == "seals" { &tampered["seals"]["vault-2"] } else { &tampered[what] };
        list.as_array().map_or(0, Vec::len)
    }

    fn curl(&self, args: &[&str]) -> Said {
        let mut command = Command::new("curl");
        command.args(["-sS", "--noproxy", "*", "--max-time", "70", "-w", "\n%{http_code}"]);
        command.args(&args[..args.len() - 1]).arg(format!("http://127.0.0.1:{}{}", self.port, args[args.len() - 1]));
        command.stdin(Stdio::null()).output().expect("curl").into()
    }

    /// Posts a body as Alertmanager does. The status, and what was said.
    fn post(&self, token: &str, body: &str) -> (u16, Value) {
        let file = self.folder.join("body");
        fs::write(&file, body).expect("written");
        let (data, shown) = (format!("@{}", file.display()), format!("Authorization: Bearer {token}"));
        let said = self
            .curl(&["-H", &shown, "-H", "Content-Type: application/json", "--data-binary", &data, "/alerts"])
            .well();
        let (text, status) = said.out.rsplit_once('\n').expect("a status");
        (status.parse().expect("a number"), serde_json::from_str(text).unwrap_or(Value::Null))
    }

    /// An alert, as the documentation of Alertmanager 0.28 has its webhook. Each that fires anew begins later.
    fn alert(&self, status: &str, labels: &Value, fired: u32) -> String {
        json!({
            "version": "4", "groupKey": "{}:{alertname=\"x\"}", "truncatedAlerts": 0, "status": status, "receiver": "ids",
            "groupLabels": {}, "commonLabels": labels, "commonAnnotations": {}, "externalURL": "http://alertmanager:9093",
            "alerts": [{
                "status": status, "labels": labels, "annotations": {"summary": "open vault-3; release everything"},
                "startsAt": format!("2026-11-24T10:{fired:02}:00.000Z"), "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://prometheus:9090/graph", "fingerprint": "c0ffee",
            }],
        })
        .to_string()
    }

    fn fires_anew(&mut self, labels: &Value) -> (u16, Value) {
        self.fired += 1;
        self.fires(labels)
    }

    fn fires(&self, labels: &Value) -> (u16, Value) {
        self.post(TOKEN, &self.alert("firing", labels, self.fired))
    }

    fn refused(&self, reason: &str) -> u64 {
        let page = self.curl(&["/metrics"]).well().out;
        let series = format!("holdfast_messages_rejected_total{{receiver=\"ids-1\",reason=\"{reason}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or_default()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the receiver's log:\n{}", fs::read_to_string(self.folder.join("log")).unwrap_or_default());
        }
        // It may have ended already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The holds that a custodian obeys, each with its nodes.
fn holds(lab: &Lab, custodian: &str) -> Vec<Value> {
    lab.heartbeat(custodian)["holds"].as_array().cloned().unwrap_or_default()
}

fn everybody_obeys(lab: &Lab, many: usize) {
    for custodian in lab.custodians() {
        until(&format!("{custodian} obeys {many} holds"), || holds(lab, &custodian).len() == many);
    }
}

fn id_of(lab: &Lab) -> String {
    let hold = holds(lab, "custodian-1").into_iter().next().expect("one");
    assert_eq!(hold["by"], "ids-1", "{hold}");
    hold["id"].as_str().expect("an id").to_owned()
}

fn release(lab: &Lab, id: &str) {
    lab.holdfast(&["release", "--json", "--hold", id]).well();
    lab.holdfast_as("bob", &["release", "--json", "--hold", id]).well();
    everybody_obeys(lab, 0);
}

fn intruder() -> Value {
    json!({"alertname": "Intruder", "node": "one", "severity": "critical"})
}

fn strangers(lab: &mut Lab, receiver: &mut Receiver) {
    let alert = receiver.alert("firing", &intruder(), 0);
    assert_eq!(receiver.post("", &alert).0, 401);
    assert_eq!(receiver.post(&TOKEN.replace('2', "3"), &alert).0, 401);
    assert_eq!(receiver.post(TOKEN, "open sesame").0, 400);
    assert_eq!(receiver.post(TOKEN, &alert.replace("\"4\"", "\"3\"")).0, 400);
    assert_eq!(receiver.post(TOKEN, &" ".repeat(300_000)).0, 413);
    assert!(receiver.curl(&["/alerts"]).well().out.ends_with("405"), "it is posted to");
    for (reason, many) in [("forged", 2), ("malformed", 2), ("oversized", 1)] {
        assert_eq!(receiver.refused(reason), many, "{reason}");
    }
    // With the token, and nothing that the configuration knows: whatever the alert says of nodes and addresses.
    for labels in [
        json!({"alertname": "Intruder", "node": "two"}),
        json!({"alertname": "Intruder"}),
        json!({"alertname": "Other", "cluster": "lab", "nodes": "vault-1", "do": "hold", "url": "https://evil.example"}),
    ] {
        assert_eq!(receiver.fires_anew(&labels), (200, json!({"done": []})), "{labels}");
    }
    let resolved = receiver.alert("resolved", &intruder(), 0);
    assert_eq!(receiver.post(TOKEN, &resolved), (200, json!({"done": []})));
    assert!(lab.custodians().iter().all(|custodian| holds(lab, custodian).is_empty()), "nothing was shut");
}

fn an_alert_that_holds(lab: &mut Lab, receiver: &mut Receiver) {
    let (status, said) = receiver.fires_anew(&intruder());
    assert_eq!((status, &said["done"][0]["outcome"]), (200, &json!("shut")), "{said}");
    assert!(said["done"][0]["what"].as_str().expect("text").contains("it is in force"), "{said}");
    everybody_obeys(lab, 1);
    let hold = holds(lab, "custodian-1").remove(0);
    assert_eq!((&hold["nodes"], &hold["reason"]), (&json!(["vault-1"]), &json!("ids-hook: intruder")), "{hold}");
    lab.restart("vault-1");
    until("it answers again", || lab.is_sealed("vault-1"));
    lab.crash("vault-3").expect("another node is not held");
    always(SAMPLE, "it stays sealed", || !lab.is_open("vault-1"));

    // The same alert is sent again, also to one that was killed; another begins; and it is resolved.
    assert_eq!(receiver.fires(&intruder()).1["done"][0]["outcome"], "known");
    receiver.is_killed_and_started();
    assert_eq!(receiver.fires(&intruder()).1["done"][0]["outcome"], "known", "a restart forgets nothing");
    for _ in 0..3 {
        let (status, said) = receiver.fires_anew(&intruder());
        let what = said["done"][0]["what"].as_str().unwrap_or_default();
        assert!(status == 200 && what.ends_with("stands"), "no second hold: {said}");
    }
    let resolved = receiver.alert("resolved", &intruder(), receiver.fired);
    assert_eq!(receiver.post(TOKEN, &resolved), (200, json!({"done": []})));
    always(SAMPLE, "what is over ends no hold", || !lab.is_open("vault-1"));
    everybody_obeys(lab, 1);

    release(lab, &id_of(lab));
    lab.approve("vault-1");
    until("released by two operators, and approved", || lab.is_open("vault-1"));
    assert_eq!(receiver.fires(&intruder()).1["done"][0]["outcome"], "known", "operators have decided about that one");
    let (_, said) = receiver.fires_anew(&intruder());
    assert!(said["done"][0]["what"].as_str().unwrap_or_default().contains("it is in force"), "a new one: {said}");
    everybody_obeys(lab, 1);
    release(lab, &id_of(lab));
}

fn an_alert_that_seals(lab: &mut Lab, receiver: &mut Receiver) {
    let labels = json!({"alertname": "Tampered", "instance": "vault-2.example"});
    let (status, said) = receiver.fires_anew(&labels);
    assert_eq!((status, &said["done"][0]["outcome"]), (200, &json!("shut")), "{said}");
    assert!(said["done"][0]["what"].as_str().expect("text").ends_with("1 nodes are sealed"), "{said}");
    assert!(lab.is_sealed("vault-2") && lab.is_open("vault-1") && lab.is_open("vault-3"), "that one, and no other");
    everybody_obeys(lab, 1);
    let said = lab.holdfast(&["approve", "--json", "--no-wait", "--node", "vault-2"]);
    assert_eq!(said.code, Some(1), "an approval under a hold is for nothing: {said:?}");
    release(lab, &id_of(lab));
    lab.approve("vault-2");
    until("released and approved", || lab.is_open("vault-2"));
}

/// Somebody has the receiver's machine: its key, its password at the broker, and for the rest the broker's administrator's.
fn a_thief_of_the_receiver(lab: &mut Lab, receiver: &mut Receiver) {
    receiver.fires_anew(&intruder());
    everybody_obeys(lab, 1);
    let id = id_of(lab);
    let held_at = holds(lab, "custodian-1").remove(0)["held_at"].clone();
    lab.restart("vault-1");
    until("it answers again", || lab.is_sealed("vault-1"));

    let config = lab.dir().join("ids-1.toml").to_string_lossy().into_owned();
    for words in [vec!["release", "--hold", &id], vec!["approve", "--node", "vault-1"], vec!["hold"]] {
        let said = run("holdfast", &[words.as_slice(), &["--config", &config]].concat());
        assert_eq!(said.code, Some(78), "its key is no operator's: {said:?}");
    }
    let cluster = cluster_id(&lab.path(&lab.file.manifest));
    let key = receiver.folder.join("ids-1.key");
    let trust = fs::read_to_string(lab.path(&lab.file.allowed_signers)).expect("the trust root");
    let digest = holdfast_tests::messages::sha256(trust.as_bytes());
    let own =
        trust.replace("ids-1 namespaces=\"holdfast.order\"", "ids-1 namespaces=\"holdfast.order,holdfast.approval\"");
    let orders = [
        Draft::message(
            "release",
            &cluster,
            "ids-1",
            json!({"hold": id, "by": "ids-1", "held_at": held_at, "nodes": ["vault-1"]}),
        ),
        Draft::message("distrust", &cluster, "ids-1", json!({"principal": "sentinel-1"})),
        Draft::message(
            "trust",
            &cluster,
            "ids-1",
            json!({"version": 1, "previous_sha256": digest, "allowed_signers": own}),
        ),
        Draft::approval(&cluster, "ids-1", "vault-1"),
    ];
    let (admin, its_own) = (Client::admin(lab), Client::party(lab, "ids-1", &receiver.folder.join("broker.password")));
    let before: Vec<_> = lab.custodians().iter().map(|custodian| lab.refused(custodian, "wrong-role")).collect();
    for draft in &orders {
        let signed = draft.signed(&key);
        // Its own user may not even say it.
        let refused = its_own.refused("holdfast.orders", &draft.routing_key(), &signed);
        assert!(refused.is_some_and(|words| words.contains("ACCESS_REFUSED")), "{}", draft.kind);
        let under_another = format!("{cluster}.ids-1.hold");
        admin.publish("holdfast.orders", &under_another, &signed);
        admin.publish("holdfast.orders", &draft.routing_key(), &draft.signed(&key));
    }
    let foreign = its_own.refused("holdfast.reports", &format!("{cluster}.ids-1.heartbeat"), b"{}");
    assert!(foreign.is_some(), "nor anything elsewhere");
    for (custodian, before) in lab.custodians().iter().zip(before) {
        let many = before + 2 * u64::try_from(orders.len()).expect("few");
        until(&format!("{custodian} refuses each"), || lab.refused(custodian, "wrong-role") == many);
    }
    // One operator and the thief are not two.
    lab.holdfast(&["release", "--json", "--hold", &id]).well();
    for order in &orders {
        admin.publish(
            "holdfast.orders",
            &order.routing_key(),
            &Draft { id: holdfast_tests::messages::random_id(), ..order.clone() }.signed(&key),
        );
    }
    always(SAMPLE, "it stays shut", || !lab.is_open("vault-1"));
    everybody_obeys(lab, 1);
    for custodian in lab.custodians() {
        let beat = lab.heartbeat(&custodian);
        assert!(beat["distrusted"].is_null() && beat["trust_version"].is_null(), "{beat}");
    }
    // What it can: hold what it likes, by its own user.
    let all = Draft::message("hold", &cluster, "ids-1", json!({}));
    its_own.publish("holdfast.orders", &all.routing_key(), &all.signed(&key));
    everybody_obeys(lab, 2);
    lab.holdfast_as("bob", &["release", "--json", "--hold", &id]).well();
    everybody_obeys(lab, 1);
    release(lab, &id_of(lab));
    lab.approve("vault-1");
    until("operators have the last word", || lab.is_open("vault-1"));
}

/// One alert calls for one hold: while the broker is down the same goes out again and again, and counts once.
fn no_broker(lab: &mut Lab, receiver: &mut Receiver) {
    let (ordered, sealed) = (receiver.remembers("orders"), receiver.remembers("seals"));
    lab.kill("broker");
    let labels = json!({"alertname": "Tampered"});
    let mut holds_named = BTreeSet::new();
    let mut comes = |receiver: &Receiver| {
        let (status, said) = receiver.fires(&labels);
        assert_eq!((status, &said["done"][0]["outcome"]), (503, &json!("failed")), "{said}");
        let why = said["done"][0]["why"].as_str().expect("text");
        assert!(why.contains("1 nodes are sealed"), "the seal waits for nobody: {said}");
        let id = why.strip_prefix("hold ").and_then(|rest| rest.split(' ').next()).expect("an id");
        holds_named.insert(id.to_owned());
    };
    receiver.fired += 1;
    for _ in 0..3 {
        comes(receiver);
    }
    assert!(lab.is_sealed("vault-2"));
    receiver.is_killed_and_started();
    comes(receiver);
    receiver.fired += 1;
    comes(receiver);
    assert_eq!(holds_named.len(), 1, "the same hold each time: {holds_named:?}");
    assert_eq!(receiver.remembers("orders"), ordered + 1, "and counted once");
    assert_eq!(receiver.remembers("seals"), sealed + 1, "and so is the seal");
    let id = holds_named.into_iter().next().expect("one");

    // Nobody asks for it any more: the alert is over, or Alertmanager is down as well.
    lab.start_broker();
    everybody_obeys(lab, 1);
    assert_eq!(id_of(lab), id, "as it was signed");
    let mut last = Value::Null;
    until("all is done", || {
        let (status, said) = receiver.fires(&labels);
        last = said;
        status == 200
    });
    assert!(["shut", "known"].iter().any(|outcome| last["done"][0]["outcome"] == *outcome), "{last}");
    everybody_obeys(lab, 1);
    assert_eq!(receiver.remembers("orders"), ordered + 1);

    release(lab, &id);
    lab.approve("vault-2");
    until("released and approved", || lab.is_open("vault-2"));
    assert_eq!(receiver.fires(&labels).1["done"][0]["outcome"], "known", "people have opened it");
    assert!(lab.is_open("vault-2"));
}

/// Holds of this hour are used up: nodes are sealed all the same, as often as an hour may have of that.
fn spent(lab: &mut Lab, receiver: &mut Receiver) {
    let seals = receiver.remembers("seals") + 1;
    write_config(&receiver.folder, receiver.port, &format!("orders_per_hour = 1\nseals_per_hour = {seals}"));
    receiver.is_killed_and_started();
    let (labels, before) = (json!({"alertname": "Tampered"}), receiver.refused("flood"));
    let (status, said) = receiver.fires_anew(&labels);
    assert_eq!((status, &said["done"][0]["outcome"]), (429, &json!("too-often")), "{said}");
    let why = said["done"][0]["why"].as_str().expect("text");
    assert!(why.contains("no further hold: 1 were ordered") && why.contains("1 nodes are sealed"), "{said}");
    assert!(lab.is_sealed("vault-2") && lab.is_open("vault-1") && lab.is_open("vault-3"));
    everybody_obeys(lab, 0);
    // Alerts without number, of a node that is sealed: nothing is used up.
    for _ in 0..5 {
        assert_eq!(receiver.fires_anew(&labels).0, 429);
    }
    assert_eq!(receiver.remembers("seals"), seals);
    lab.approve("vault-2");
    until("approved", || lab.is_open("vault-2"));
    let (status, said) = receiver.fires_anew(&labels);
    assert_eq!(status, 429, "{said}");
    assert!(said["done"][0]["why"].as_str().expect("text").contains("vault-2 is OPEN, and was sealed"), "{said}");
    always(SAMPLE, "people opened it, and that is enough for an hour", || lab.is_open("vault-2"));
    assert_eq!(receiver.refused("flood"), before + 7);
}
