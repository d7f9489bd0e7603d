//! What the door costs: `Admission::admit` (envelope, schema, roles, key, signature, freshness, replay) beside the bare check of
//! an Ed25519 signature over the same body. docs/BENCHMARKS.md says what is measured and what came out.
//!
//! `cargo bench --workspace --bench admission`, and behind `--`: `--json`, or `--smoke` to see that it works.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::time::{Duration, Instant};

use ed25519_dalek::{Signer, SigningKey};
use holdfast_core::admission::{Admission, Roles};
use holdfast_core::cause::Cause;
use holdfast_core::envelope::{ENVELOPE_MAX, Envelope};
use holdfast_core::id::{ClusterId, MessageId, Principal};
use holdfast_core::message::{
    Approval, AuditReport, Body, Content, Header, Heartbeat, Needs, NodeReport, SandboxPart, Seen, ShareReport,
};
use holdfast_core::sshsig::{HashAlg, PublicKey, armor_ed25519, signed_data};
use holdfast_core::time::{Now, Steady, Timestamp};
use holdfast_core::trust::AllowedSigners;
use serde::Serialize;

/// The figure: how many bare checks an admission may cost.
const RATIO_MAX: f64 = 2.0;

/// How often all messages are checked.
const ROUNDS: usize = 41;

/// How many messages of a kind there are. Each is admitted once in a round: a second time it would be a replay.
const MESSAGES: usize = 200;

const ALICE: u8 = 1;
const CUSTODIAN: u8 = 2;

/// What was measured of one kind of message.
#[derive(Serialize)]
struct Measured {
    message: &'static str,
    envelope_bytes: usize,
    bare_us: f64,
    admit_us: f64,
    ratio: f64,
    ratio_max: f64,
    reached: bool,
}

/// A message, and a bare signature over its body.
struct Sample {
    envelope: Vec<u8>,
    body: Vec<u8>,
    signature: ed25519_dalek::Signature,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rounds = if arguments.iter().any(|argument| argument == "--smoke") { 1 } else { ROUNDS };
    let measured = [
        measure("approval", rounds, ALICE, approval),
        measure("heartbeat, 3 nodes", rounds, CUSTODIAN, || heartbeat(3)),
        measure("heartbeat, 64 nodes", rounds, CUSTODIAN, || heartbeat(64)),
    ];
    if arguments.iter().any(|argument| argument == "--json") {
        println!("{}", serde_json::to_string_pretty(&measured).expect("numbers and strings"));
        return;
    }
    println!("| message | envelope | bare | admitted | ratio | to be reached | |");
    println!("|---|---:|---:|---:|---:|---:|---|");
    for Measured { message, envelope_bytes, bare_us, admit_us, ratio, ratio_max, reached } in measured {
        let reached = if reached { "reached" } else { "missed" };
        println!(
            "| {message} | {envelope_bytes} B | {bare_us:.1} µs | {admit_us:.1} µs | {ratio:.2} | ≤ {ratio_max:.1} | {reached} |"
        );
    }
}

/// The median of the time that one message takes, bare and admitted: in turns, so that whatever else the machine does falls on both.
fn measure(message: &'static str, rounds: usize, from: u8, content: impl Fn() -> Content) -> Measured {
    let samples: Vec<_> = (0..MESSAGES).map(|number| sample(number, from, content())).collect();
    let key = secret(from).verifying_key();
    let (mut bare, mut admitted) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut door = door();
        for Sample { envelope, body, signature } in &samples {
            bare.push(timed(|| key.verify_strict(black_box(body), signature).expect("a good signature")));
            admitted.push(timed(|| door.admit(black_box(envelope), now()).expect("a good message")));
        }
    }
    let (bare_us, admit_us) = (median(bare), median(admitted));
    let ratio = admit_us / bare_us;
    let envelope_bytes = samples[0].envelope.len();
    Measured { message, envelope_bytes, bare_us, admit_us, ratio, ratio_max: RATIO_MAX, reached: ratio <= RATIO_MAX }
}

/// The microseconds until it was done; not those in which what came of it goes again.
fn timed<T>(work: impl FnOnce() -> T) -> f64 {
    let began = Instant::now();
    let done = black_box(work());
    let took = began.elapsed();
    drop(done);
    took.as_secs_f64() * 1e6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A door as a custodian of the lab has it: five custodians, a sentinel, two operators.
fn door() -> Admission {
    let line = |key: u8, namespaces: &str| format!("{} namespaces=\"{namespaces}\" {}\n", name(key), public(key));
    let custodians = CUSTODIAN..CUSTODIAN + 5;
    let mut file = line(ALICE, "holdfast.order,holdfast.approval") + &line(20, "holdfast.order,holdfast.approval");
    file += &line(30, "holdfast.event");
    file.extend(custodians.clone().map(|key| line(key, "holdfast.report,holdfast.intent")));
    let roles = Roles {
        custodians: custodians.map(name).collect(),
        sentinels: BTreeSet::from([name(30)]),
        operators: BTreeSet::from([name(ALICE), name(20)]),
        conductors: BTreeSet::from([name(CUSTODIAN)]),
        ..Roles::default()
    };
    let trust = AllowedSigners::parse(file).expect("a sound file");
    Admission::new(trust, BTreeMap::from([(cluster(), roles)]))
}

fn sample(number: usize, from: u8, content: Content) -> Sample {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&(number as u64).to_be_bytes());
    let issued_at = now().wall;
    let kind = content.kind();
    let expires_at = kind.permits().then(|| issued_at.after(Duration::from_secs(600)));
    let header =
        Header { kind, id: MessageId::from_bytes(id), cluster: cluster(), from: name(from), issued_at, expires_at };
    let body = Body { header, content }.to_json();
    let (key, namespace) = (secret(from), kind.namespace().as_str());
    let proof = key.sign(&signed_data(namespace, HashAlg::Sha512, &body)).to_bytes();
    let envelope = Envelope::assemble(&body, &armor_ed25519(&public(from), namespace, HashAlg::Sha512, &proof));
    assert!(envelope.len() <= ENVELOPE_MAX);
    Sample { envelope, signature: key.sign(&body), body }
}

fn approval() -> Content {
    Content::Approval(Approval { node: "vault-1".parse().expect("a name") })
}

/// A heartbeat in which every node has something to tell in every field.
fn heartbeat(nodes: usize) -> Content {
    let at = now().wall;
    let digest = "0123456789abcdef".repeat(4);
    let node = NodeReport {
        seen: Seen::Sealed,
        since: at,
        ready: true,
        cause: Some(Cause::InPlace),
        needs: Some(Needs::Approvals { have: 0, need: 2 }),
        marker: Some(at),
        marker_by: Some(name(CUSTODIAN)),
        in_flight: true,
        budget_remaining: 12,
        budget_frees_at: Some(at),
        certificate_not_after: Some(at),
        shared_address: false,
        restart_provable: true,
        identity_refused: Some("its certificate's key is none of those that are pinned".to_owned()),
    };
    let nodes = (1..=nodes).map(|number| (format!("vault-{number}").parse().expect("a name"), node.clone()));
    Content::Heartbeat(Box::new(Heartbeat {
        version: "0.1.0".to_owned(),
        site: Some("zurich".parse().expect("a name")),
        started_at: at,
        share: ShareReport { generation: 1, x: Some(77), ok: true },
        threshold: 3,
        sandboxed: true,
        sandbox: SandboxPart::ALL.into(),
        clock_synchronised: true,
        audit: AuditReport { seq: 12_345, head: digest.clone(), ok: true, broken: None },
        policy_sha256: digest.clone(),
        allowed_signers_sha256: digest.clone(),
        trust_version: 1,
        holds: Vec::new(),
        waiting: Vec::new(),
        distrusted: vec![name(30)],
        orders: vec![digest; 4],
        nodes: nodes.collect(),
        next_drill: None,
        rejected: [("forged".to_owned(), 2), ("replayed".to_owned(), 1)].into(),
        submissions: [("counted".to_owned(), 4), ("opened".to_owned(), 2)].into(),
    }))
}

fn now() -> Now {
    Now { steady: Steady::default(), wall: Timestamp::from_millis(1_795_341_600_000) }
}

fn cluster() -> ClusterId {
    ClusterId::from_bytes([7; 16])
}

fn name(key: u8) -> Principal {
    format!("party-{key}").parse().expect("a name")
}

fn secret(key: u8) -> SigningKey {
    SigningKey::from_bytes(&[key; 32])
}

fn public(key: u8) -> PublicKey {
    PublicKey::from_ed25519(secret(key).verifying_key().to_bytes()).expect("a sound key")
}
