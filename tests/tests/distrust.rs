//! A network that cannot be talked into anything: a hundred messages that count for nothing, published by whoever owns the broker,
//! before and after restarts and with a clock set back; and the keys that people sign with, held against the same network.
//!
//! What lives here: counting at every receiver, and operators' keys behind a passphrase, in an agent and on a token. What does
//! not: each single refusal (`crates/core/tests/refusals.rs`), and that a sealed node stays sealed (`deliberate.rs`).

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use ed25519_dalek::{Signer, SigningKey};
use holdfast_tests::agent::Agent;
use holdfast_tests::broker::Client;
use holdfast_tests::lab::Lab;
use holdfast_tests::messages::{self, Draft};
use holdfast_tests::processes::{Signal, signal};
use holdfast_tests::programs::{Said, program, tool};
use holdfast_tests::terminal::{Terminal, restored};
use holdfast_tests::vault::NightWatch;
use holdfast_tests::wait::{always, until};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// How long is looked whether anything of it has an effect.
const SAMPLE: Duration = Duration::from_secs(5);

/// An envelope is never larger.
const ENVELOPE_MAX: usize = 65_536;

const EXCHANGES: [&str; 4] = ["holdfast.orders", "holdfast.events", "holdfast.intents", "holdfast.reports"];

/// Every receiver's count of refused messages, by receiver and reason.
type Counts = BTreeMap<(String, String), u64>;

/// What goes to which exchange, and the reason for which every receiver refuses it.
struct Bad {
    exchange: &'static str,
    reason: &'static str,
    bytes: Vec<u8>,
}

#[test]
fn nobody_is_talked_into_anything() {
    let mut lab = Lab::up(&[]);
    lab.scenario("a hundred messages that count for nothing", a_hundred);
    lab.scenario("a clock set back", a_clock_set_back);
    lab.scenario("a key in an agent", a_key_in_an_agent);
    lab.scenario("a key behind a passphrase", a_key_behind_a_passphrase);
    lab.scenario("a key that refuses in an emergency", a_key_that_refuses_in_an_emergency);
    lab.scenario("a key on a token", a_key_on_a_token);
}

fn a_hundred(lab: &mut Lab) {
    let node = "vault-1";
    let admin = Client::admin(lab);
    let orders = admin.tap("holdfast.orders");
    seal(lab, node);
    lab.approve(node);
    let (_, used) = admin.next(&orders);
    admin.untap(orders);
    until("the approval opens it", || lab.is_open(node));
    lab.settle();
    seal(lab, node);

    let watch = NightWatch::begin(lab.url(node), &lab.path(&lab.file.ca_cert));
    let submitted = metric_sum(lab, "holdfast_share_submissions_total");
    let before = lab.running();
    let mut bad = everything(lab, node);
    bad.push(Bad { exchange: "holdfast.orders", reason: "replayed", bytes: used.clone() });
    bad.extend(heard_before(&admin));
    assert!(bad.len() >= 100, "{} are too few", bad.len());
    let everybody: Vec<_> = lab.custodians().into_iter().chain(["sentinel-1".to_owned()]).collect();
    counted_once(lab, &admin, &bad, &everybody);
    assert_eq!(lab.running(), before, "a process went away");

    // Custodians that have forgotten all but their files refuse the same hundred, the used approval among them.
    for custodian in ["custodian-2", "custodian-3"] {
        lab.restart(custodian);
        until(&format!("{custodian} is back"), || {
            let beat = lab.heartbeat(custodian);
            lab.is_of_now(custodian, &beat) && beat["nodes"][node]["needs"]["what"] == "approvals"
        });
    }
    let before = lab.running();
    // Reports of before are no replays for those two: they permit nothing, and are not kept. They get newer ones.
    let mut again: Vec<_> = bad.into_iter().take_while(|bad| bad.reason != "replayed").collect();
    again.push(Bad { exchange: "holdfast.orders", reason: "replayed", bytes: used });
    again.extend(heard_before(&admin));
    counted_once(lab, &admin, &again, &everybody);
    assert_eq!(lab.running(), before, "a process went away");

    assert!(!lab.is_open(node));
    assert_eq!(lab.eyes.look(lab.url(node)).expect("it answers").progress, 0, "no share is in it");
    assert_eq!(metric_sum(lab, "holdfast_share_submissions_total"), submitted, "no share left");
    let seen = watch.end();
    assert!(seen.open.is_empty() && seen.sealed > 0, "{seen:?}");
    lab.approve(node);
    until("an approval opens it all the same", || lab.is_open(node));
}

/// Seals a node, and waits until every custodian says that it waits for approvals.
fn seal(lab: &Lab, node: &str) {
    lab.seal(node);
    for custodian in lab.custodians() {
        until(&format!("{custodian} waits for approvals"), || {
            lab.heartbeat(&custodian)["nodes"][node]["needs"]["what"] == "approvals"
        });
    }
}

/// Publishes them with the broker's own user, and sees that each receiver counts each once, for its reason, and nothing else.
fn counted_once(lab: &Lab, admin: &Client, bad: &[Bad], receivers: &[String]) {
    let before = counts(lab);
    let cluster = messages::cluster_id(&lab.path(&lab.file.manifest));
    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    for Bad { exchange, reason, bytes } in bad {
        *expected.entry(reason).or_default() += 1;
        admin.publish(exchange, &format!("{cluster}.alice.approval"), bytes);
    }
    let more = |counts: &Counts, receiver: &str, reason: &str| {
        let key = (receiver.to_owned(), reason.to_owned());
        let of = |counts: &Counts| counts.get(&key).copied().unwrap_or_default();
        of(counts) - of(&before)
    };
    for receiver in receivers {
        for (reason, count) in &expected {
            until(&format!("{receiver} counts {count} as {reason}"), || more(&counts(lab), receiver, reason) >= *count);
        }
    }
    // Once: no more come of them.
    always(SAMPLE, "the node stays sealed", || !lab.is_open("vault-1"));
    let after = counts(lab);
    for (receiver, reason) in after.keys() {
        let count = expected.get(reason.as_str()).copied().unwrap_or_default();
        assert_eq!(more(&after, receiver, reason), count, "{receiver}: {reason}");
    }
}

/// `holdfast_messages_rejected_total`, as the sentinel serves it.
fn counts(lab: &Lab) -> Counts {
    let metrics = lab.read_sentinel("/metrics").expect("metrics");
    let lines = metrics.lines().filter_map(|line| line.strip_prefix("holdfast_messages_rejected_total{"));
    let label = |labels: &str, name: &str| {
        let value = labels.split(',').find_map(|label| label.strip_prefix(name)?.strip_prefix('='));
        value.expect("a label").trim_matches('"').to_owned()
    };
    let count = |line: &str| {
        let (labels, value) = line.split_once("} ").expect("labels and a value");
        ((label(labels, "receiver"), label(labels, "reason")), value.parse().expect("a number"))
    };
    lines.map(count).collect()
}

fn metric_sum(lab: &Lab, name: &str) -> u64 {
    let metrics = lab.read_sentinel("/metrics").expect("metrics");
    let lines = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    lines.map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<u64>().ok()).expect("a number")).sum()
}

/// A custodian's heartbeat that everybody has just heard, to come again.
fn heard_before(admin: &Client) -> Vec<Bad> {
    let exchange = "holdfast.reports";
    let tap = admin.tap(exchange);
    let bytes = admin.next_of(&tap, "heartbeat");
    admin.untap(tap);
    vec![Bad { exchange, reason: "replayed", bytes }]
}

/// Everything that is wrong whenever it comes, to every exchange.
fn everything(lab: &Lab, node: &str) -> Vec<Bad> {
    let mut all = Vec::new();
    for exchange in EXCHANGES {
        all.extend(nonsense().into_iter().map(|(reason, bytes)| Bad { exchange, reason, bytes }));
        let signed = signed(lab, node);
        all.extend(signed.into_iter().map(|(reason, bytes)| Bad { exchange, reason, bytes }));
    }
    all
}

/// What takes no key.
fn nonsense() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("malformed", Vec::new()),
        ("malformed", b"open sesame".to_vec()),
        ("malformed", b"{\"body\":\"\xff\",\"signature\":\"\"}".to_vec()),
        ("malformed", vec![b'['; ENVELOPE_MAX]),
        ("malformed", b"{\"body\":".repeat(ENVELOPE_MAX / 8)),
        ("malformed", messages::envelope(b"{}", "")),
        ("oversized", vec![b'{'; 2 * ENVELOPE_MAX]),
    ]
}

/// What somebody signed.
fn signed(lab: &Lab, node: &str) -> Vec<(&'static str, Vec<u8>)> {
    let cluster = messages::cluster_id(&lab.path(&lab.file.manifest));
    let [alice, bob] = [0, 1].map(|number| lab.path(&lab.file.operators[number].key));
    let stranger = messages::strangers_key(lab.dir());
    let custodian = lab.path(&lab.custodian("custodian-1").config).with_file_name("signing.key");
    let good = || Draft::approval(&cluster, "alice", node);
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let now = Timestamp::now();
    let with = |change: &dyn Fn(&mut Draft)| {
        let mut draft = good();
        change(&mut draft);
        draft.signed(&alice)
    };
    let by_alice = |from: &str, to: &str| {
        let body = String::from_utf8(good().body()).expect("JSON is text");
        let changed = body.replacen(from, to, 1);
        assert_ne!(body, changed, "{from}");
        messages::seal(changed.as_bytes(), "holdfast.approval", &alice)
    };
    let event = |from: &str, key: &Path| {
        let content = json!({"node": node, "seen": "open", "seen_at": messages::rfc3339(now)});
        let draft = Draft { kind: "event".into(), expires_at: None, content, ..Draft::approval(&cluster, from, node) };
        messages::seal(&draft.body(), "holdfast.event", key)
    };
    let content = format!("{{\"node\":\"{node}\"}}");
    let one = good();
    vec![
        ("forged", good().signed(&stranger)),
        ("forged", good().signed(&bob)),
        ("forged", event("sentinel-1", &stranger)),
        ("wrong-role", event("alice", &alice)),
        ("wrong-role", Draft::approval(&cluster, "custodian-1", node).signed(&custodian)),
        ("wrong-role", messages::seal(&good().body(), "holdfast.order", &alice)),
        ("altered", messages::envelope(&one.body(), &messages::signature(&good().body(), "holdfast.approval", &alice))),
        ("expired", with(&|d| (d.issued_at, d.expires_at) = (now - minutes(20), Some(now - minutes(5))))),
        ("early", with(&|d| (d.issued_at, d.expires_at) = (now + minutes(5), Some(now + minutes(10))))),
        ("too-long", with(&|d| d.expires_at = Some(now + minutes(20)))),
        ("other-cluster", with(&|d| d.cluster = messages::random_id())),
        ("unknown-version", with(&|d| d.version = 2)),
        ("unknown-kind", with(&|d| d.kind = "open".to_owned())),
        ("malformed", with(&|d| d.expires_at = None)),
        ("malformed", by_alice("\"from\":\"alice\"", "\"from\":\"alice\",\"from\":\"alice\"")),
        ("malformed", by_alice("\"v\":1", "\"v\":1,\"urgent\":true")),
        ("malformed", by_alice(&content, &format!("{{\"node\":\"vault-2\",\"node\":\"{node}\"}}"))),
        ("malformed", by_alice(&content, &format!("{}{}", "[".repeat(20_000), "]".repeat(20_000)))),
        ("malformed", by_alice(&content, &format!("{}1{}", "{\"a\":".repeat(6_000), "}".repeat(6_000)))),
    ]
}

/// A host whose clock showed an hour more before it was set right: what it knows of that is what it has on its disk.
fn a_clock_set_back(lab: &mut Lab) {
    let (node, behind) = ("vault-1", "custodian-4");
    let set = |lab: &mut Lab, shown: Timestamp| {
        lab.stop(behind);
        let path = lab.path(&lab.custodian(behind).state_dir).join("state.json");
        let mut state: Value = serde_json::from_slice(&fs::read(&path).expect("a state")).expect("JSON");
        state["high_water"] = messages::rfc3339(shown).into();
        fs::write(&path, state.to_string()).expect("written");
        lab.start(behind);
        until("it is back", || lab.is_of_now(behind, &lab.heartbeat(behind)));
    };
    let admin = Client::admin(lab);
    let tap = admin.tap("holdfast.orders");
    set(lab, Timestamp::now() + Duration::from_secs(3600));
    seal(lab, node);
    lab.approve(node);
    let (routing_key, used) = admin.next(&tap);
    until("it takes no approval that its clock cannot judge", || lab.refused(behind, "clock") == 1);
    until("the others are enough", || lab.is_open(node));
    admin.publish("holdfast.orders", &routing_key, &used);
    until("nor when it comes again", || lab.refused(behind, "clock") == 2);
    admin.untap(tap);
    set(lab, Timestamp::now());
}

/// A configuration of alice's with another key, beside her own.
fn config_with(lab: &Lab, key: &Path) -> PathBuf {
    let own = fs::read_to_string(lab.path(&lab.file.operator_config)).expect("a configuration");
    let line = own.lines().find(|line| line.starts_with("key = ")).expect("a key");
    let path = lab.dir().join("operator-with-another-key.toml");
    fs::write(&path, own.replace(line, &format!("key = \"{}\"", key.display()))).expect("written");
    path
}

/// `holdfast` with that configuration and that agent.
fn holdfast(config: &Path, agent: Option<&Path>, args: &[&str]) -> Said {
    let mut command = Command::new(program("holdfast"));
    command.args(args).arg("--config").arg(config).stdin(Stdio::null()).env_remove("SSH_AUTH_SOCK");
    command.envs(agent.map(|socket| ("SSH_AUTH_SOCK", socket)));
    command.output().expect("it can be started").into()
}

/// Alice's key with nothing else in its folder, and its public half.
fn copied_key(lab: &Lab, name: &str) -> PathBuf {
    let path = lab.dir().join(name);
    fs::copy(lab.path(&lab.file.operators[0].key), &path).expect("copied, with its mode");
    let public = tool("ssh-keygen", &["-y", "-f", &path.to_string_lossy()]).out;
    fs::write(path.with_extension("pub"), public).expect("written");
    path
}

fn a_key_in_an_agent(lab: &mut Lab) {
    let node = "vault-2";
    let key = copied_key(lab, "agents");
    let config = config_with(lab, &key.with_extension("pub"));
    let agent = Agent::at(lab.dir().join("agent.socket"));
    let socket = agent.socket.clone();
    seal(lab, node);

    let approve = ["approve", "--node", node];
    let empty = holdfast(&config, Some(&socket), &approve);
    assert_eq!(empty.code, Some(1), "{empty:?}");
    assert!(empty.err.contains("holds no key at all") && empty.err.contains("ssh-add FILE"), "{empty:?}");
    let doctor = holdfast(&config, Some(&socket), &["doctor"]);
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    assert!(doctor.out.contains("✗ your key cannot be used: the ssh-agent holds no key at all"), "{doctor:?}");
    let none = holdfast(&config, None, &approve);
    assert!(none.code == Some(1) && none.err.contains("SSH_AUTH_SOCK is not set"), "{none:?}");
    assert!(lab.is_sealed(node));

    agent.add(&key, &[]);
    fs::remove_file(&key).expect("the agent alone has it now");
    let doctor = holdfast(&config, Some(&socket), &["doctor"]);
    assert!(doctor.out.contains("✓ the ssh-agent holds your key, ssh-ed25519 SHA256:"), "{doctor:?}");
    holdfast(&config, Some(&socket), &approve).well();
    until("the approval opens it", || lab.is_open(node));
    drop(agent);
}

fn a_key_behind_a_passphrase(lab: &mut Lab) {
    let node = "vault-3";
    let key = copied_key(lab, "locked");
    tool("ssh-keygen", &["-q", "-p", "-P", "", "-N", "correct horse", "-f", &key.to_string_lossy()]);
    let config = config_with(lab, &key);
    seal(lab, node);
    let nobody = holdfast(&config, None, &["approve", "--node", node]);
    assert!(nobody.code == Some(1) && nobody.err.contains("passphrase is asked for at a terminal"), "{nobody:?}");
    let doctor = holdfast(&config, None, &["doctor"]);
    assert!(doctor.out.contains("✓ your key has a passphrase"), "{doctor:?}");

    let line = format!("'{}' approve --node {node} --config '{}'", program("holdfast").display(), config.display());
    let mut terminal = Terminal::of(&line);
    for typed in ["wrong\n", "correct horse\n"] {
        terminal.shows("(nothing is shown): ");
        terminal.types(typed);
    }
    until("the approval opens it", || lab.is_open(node));
    let (shown, code) = terminal.ends();
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains("horse") && !shown.contains("wrong"), "{shown}");
    lab.settle();
    an_emergency_that_waits_for_a_passphrase(lab, &config);
}

/// It seals without the passphrase, asks on, and orders the hold when it is typed; and ended meanwhile, it leaves the terminal as it was.
fn an_emergency_that_waits_for_a_passphrase(lab: &mut Lab, config: &Path) {
    let token = lab.path(&lab.file.root_token_file);
    let (config, token) = (config.display(), token.display());
    let seal =
        format!("'{}' seal --emergency --config '{config}' --token-file '{token}'", program("holdfast").display());
    let seal = format!("sh -c \"echo pid=\\$\\$; exec {seal}\"; code=$?; stty -a; exit $code");
    for ended in [true, false] {
        let mut terminal = Terminal::of(&seal);
        terminal.shows("pid=");
        let pid = terminal.line().parse().expect("a pid");
        terminal.shows("(nothing is shown): ");
        terminal.shows("the hold was not ordered: your key has not signed yet");
        terminal.shows("3 of 3 nodes are sealed");
        terminal.shows("the hold still waits for your key");
        assert!(lab.nodes().iter().all(|node| lab.is_sealed(node)));
        if ended {
            signal(pid, Signal::TERM);
        } else {
            terminal.types("correct horse\n");
            terminal.shows("5 of 5 custodians obey");
        }
        let (shown, code) = terminal.ends();
        assert_eq!(code == Some(0), !ended, "{shown}");
        restored(&shown);
    }
    end_the_emergency(lab);
}

/// A key that asks somebody first, and nobody says yes.
fn a_key_that_refuses_in_an_emergency(lab: &mut Lab) {
    let key = copied_key(lab, "refuses");
    let config = config_with(lab, &key.with_extension("pub"));
    let agent = Agent::at(lab.dir().join("refusing.socket"));
    agent.add(&key, &["-c"]);
    let token = lab.path(&lab.file.root_token_file).to_string_lossy().into_owned();
    let seal = |more: &str| holdfast(&config, Some(&agent.socket), &["seal", more, "--token-file", &token]);
    let said = seal("--json");
    assert!(said.code == Some(1) && said.err.contains("nothing was sealed"), "not without a hold: {said:?}");
    assert!(lab.nodes().iter().all(|node| lab.is_open(node)));

    let said = seal("--emergency");
    assert_eq!(said.code, Some(1), "{said:?}");
    for part in [
        "the hold was not ordered: ",
        "refused to sign",
        "vault-1: sealed",
        "vault-2: sealed",
        "vault-3: sealed",
        "THE HOLD IS NOT IN FORCE: custodian-1, custodian-2, custodian-3, custodian-4, custodian-5",
        "operators type: holdfast approve",
    ] {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
    assert!(!said.out.contains("release"), "there is nothing to release: {}", said.out);
    assert!(lab.nodes().iter().all(|node| lab.is_sealed(node)));
    end_the_emergency(lab);
}

/// Ends whatever holds there are, and approves the opening of every node.
fn end_the_emergency(lab: &mut Lab) {
    if !lab.status()["holds"].as_array().is_none_or(Vec::is_empty) {
        lab.holdfast(&["release", "--all", "--yes"]).well();
        lab.holdfast_as("bob", &["release", "--all", "--yes"]).well();
    }
    lab.holdfast(&["approve", "--all"]).well();
    lab.settle();
}

/// A token is not at hand: in its place, an agent that signs as one does, touched or not.
fn a_key_on_a_token(lab: &mut Lab) {
    let node = "vault-1";
    let token = SigningKey::from_bytes(&[11; 32]);
    let blob = strings(&[TOKEN.as_bytes(), token.verifying_key().as_bytes(), b"ssh:"]);
    let public = lab.dir().join("token.pub");
    fs::write(&public, format!("{TOKEN} {} a token\n", BASE64_STANDARD.encode(&blob))).expect("written");
    let config = config_with(lab, &public);
    let refused = holdfast(&config, None, &["approve", "--node", node]);
    assert_eq!(refused.code, Some(78), "nobody would believe it: {refused:?}");

    // Her second key, wherever the first is listed.
    let line = format!("alice namespaces=\"holdfast.approval\" {TOKEN} {}\n", BASE64_STANDARD.encode(&blob));
    let own = lab.path(&lab.file.allowed_signers);
    let homes = lab.file.custodians.iter().map(|c| lab.path(&c.config).with_file_name("allowed_signers"));
    let mut files: Vec<_> =
        homes.chain([lab.path(&lab.file.sentinel.config).with_file_name("allowed_signers"), own]).collect();
    files.sort();
    files.dedup();
    for file in files {
        let before = fs::read_to_string(&file).expect("a trust root");
        fs::write(&file, before + &line).expect("written");
    }
    for party in lab.custodians().into_iter().chain(["sentinel".to_owned()]) {
        lab.signal(&party, Signal::HUP);
    }
    let digest = hex::encode(Sha256::digest(fs::read(lab.path(&lab.file.allowed_signers)).expect("a trust root")));
    for custodian in lab.custodians() {
        until(&format!("{custodian} knows her key"), || lab.heartbeat(&custodian)["allowed_signers_sha256"] == digest);
    }
    seal(lab, node);

    let untouched = lab.dir().join("untouched.socket");
    serve_token(&untouched, token.clone(), blob.clone(), 0);
    let said = holdfast(&config, Some(&untouched), &["approve", "--node", node]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("touch your token now") && said.err.contains("without being touched"), "{said:?}");
    assert!(said.err.contains("was not sent"), "{said:?}");
    always(SAMPLE, "it stays sealed", || !lab.is_open(node));

    let touched = lab.dir().join("touched.socket");
    serve_token(&touched, token, blob, 1);
    let said = holdfast(&config, Some(&touched), &["approve", "--node", node]).well();
    assert!(said.err.contains("touch your token now"), "{said:?}");
    until("the approval opens it", || lab.is_open(node));
}

const TOKEN: &str = "sk-ssh-ed25519@openssh.com";

fn strings(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| [&(part.len() as u32).to_be_bytes()[..], part].concat()).collect()
}

/// An agent with one token, by the agent's protocol and PROTOCOL.u2f, for as long as the test runs.
fn serve_token(socket: &Path, token: SigningKey, blob: Vec<u8>, flags: u8) {
    let listener = UnixListener::bind(socket).expect("a socket");
    let answer = move |request: &[u8]| match request[0] {
        11 => [&[12, 0, 0, 0, 1][..], &strings(&[&blob, b"a token"])].concat(),
        _ => {
            let data = &request[1 + 4 + blob.len() + 4..request.len() - 4];
            let mut signed = Sha256::digest(b"ssh:").to_vec();
            signed.extend([flags, 0, 0, 0, 1]);
            signed.extend(Sha256::digest(data));
            let mut proof = strings(&[TOKEN.as_bytes(), &token.sign(&signed).to_bytes()]);
            proof.extend([flags, 0, 0, 0, 1]);
            [&[14][..], &strings(&[&proof])].concat()
        }
    };
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut length = [0; 4];
            while stream.read_exact(&mut length).is_ok() {
                let mut request = vec![0; u32::from_be_bytes(length) as usize];
                stream.read_exact(&mut request).expect("the whole question");
                stream.write_all(&strings(&[&answer(&request)])).expect("it waits for the answer");
            }
        }
    });
}
