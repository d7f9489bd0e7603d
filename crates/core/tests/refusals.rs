//! Every refusal at the door, as bytes that anybody with a key or with none could send: to a party that runs, to one that was
//! started again, and to one whose clock was set back. Written from docs/PROTOCOL.md: the bodies are text, not the code's own.

use std::collections::{BTreeMap, BTreeSet};

use base64::prelude::{BASE64_STANDARD, Engine};
use ed25519_dalek::{Signer, SigningKey};
use holdfast_core::admission::{Admission, REASONS, Roles};
use holdfast_core::envelope::{ENVELOPE_MAX, Envelope};
use holdfast_core::id::{ClusterId, Principal};
use holdfast_core::sshsig::{HashAlg, PublicKey, armor, armor_ed25519, signed_data};
use holdfast_core::time::{Now, Steady};
use holdfast_core::trust::AllowedSigners;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

const CLUSTER: &str = "01010101010101010101010101010101";
const NOON: &str = "2026-11-22T12:00:00.000Z";
const APPROVAL: &str = "holdfast.approval";
const REPORT: &str = "holdfast.report";
const ORDER: &str = "holdfast.order";

/// Every kind of message but a hold, with the purpose that it is signed for.
const FORBIDDEN_TO_RESTRICTORS: [(&str, &str); 17] = [
    ("approval", APPROVAL),
    ("release", ORDER),
    ("distrust", ORDER),
    ("trust", ORDER),
    ("drill", ORDER),
    ("due", "holdfast.intent"),
    ("intent", "holdfast.intent"),
    ("drill-report", "holdfast.intent"),
    ("event", "holdfast.event"),
    ("ask", "holdfast.event"),
    ("acknowledgement", REPORT),
    ("want", REPORT),
    ("relay", REPORT),
    ("heartbeat", REPORT),
    ("sighting", REPORT),
    ("receipt", REPORT),
    ("refusal", REPORT),
];

/// Who there is: a number makes the key. Alice has two.
const PARTIES: [(u8, &str, &str); 9] = [
    (1, "alice", "namespaces=\"holdfast.order,holdfast.approval\""),
    (2, "alice", "namespaces=\"holdfast.approval\""),
    (3, "bob", "namespaces=\"holdfast.approval\",valid-after=\"20261122120001Z\""),
    (4, "carol", "namespaces=\"holdfast.approval\",valid-before=\"20261122115959Z\""),
    (5, "custodian-1", "namespaces=\"holdfast.report\""),
    (6, "sentinel-1", "namespaces=\"holdfast.event\""),
    (7, "oscar", "namespaces=\"holdfast.order,holdfast.approval,holdfast.event,holdfast.report\""),
    (8, "dave", "namespaces=\"holdfast.approval\""),
    (9, "ids-1", "namespaces=\"holdfast.order,holdfast.approval,holdfast.event,holdfast.intent,holdfast.report\""),
];

/// The one whose key is a token's.
const DAVE: u8 = 8;

fn secret(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn strings(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| [&(part.len() as u32).to_be_bytes()[..], part].concat()).collect()
}

fn public(number: u8) -> PublicKey {
    let point = secret(number).verifying_key().to_bytes();
    if number != DAVE {
        return PublicKey::from_ed25519(point).expect("a sound key");
    }
    PublicKey::from_blob(&strings(&[b"sk-ssh-ed25519@openssh.com", &point, b"ssh:"])).expect("a sound key")
}

fn name(text: &str) -> Principal {
    text.parse().expect("a name")
}

fn at(text: &str) -> Now {
    Now { steady: Steady::default(), wall: text.parse().expect("a time") }
}

fn door() -> Admission {
    let line = |(number, name, options): (u8, &str, &str)| format!("{name} {options} {}\n", public(number));
    let trust = AllowedSigners::parse(PARTIES.map(line).concat()).expect("a sound file");
    let roles = Roles {
        operators: ["alice", "bob", "carol", "dave"].map(name).into(),
        custodians: BTreeSet::from([name("custodian-1")]),
        sentinels: BTreeSet::from([name("sentinel-1")]),
        restrictors: BTreeSet::from([name("ids-1")]),
        conductors: BTreeSet::new(),
    };
    Admission::new(trust, BTreeMap::from([(CLUSTER.parse::<ClusterId>().expect("an id"), roles)]))
}

/// A body, with a name, a kind and a content; the number makes its id.
fn body(number: u32, kind: &str, from: &str, content: &str) -> String {
    let expires = if ["approval", "drill", "intent"].contains(&kind) {
        ",\"expires_at\":\"2026-11-22T12:10:00.000Z\""
    } else {
        ""
    };
    format!(
        "{{\"v\":1,\"kind\":\"{kind}\",\"id\":\"{number:032x}\",\"cluster\":\"{CLUSTER}\",\"from\":\"{from}\",\
         \"issued_at\":\"{NOON}\"{expires},\"content\":{content}}}"
    )
}

fn approval(number: u32) -> String {
    body(number, "approval", "alice", "{\"node\":\"vault-1\"}")
}

/// A restrictor's hold.
fn hold(number: u32) -> String {
    body(number, "hold", "ids-1", "{\"nodes\":[\"vault-1\"]}")
}

fn heartbeat(number: u32, nodes: &str, rejected: &str) -> String {
    let digest = "0".repeat(64);
    let content = format!(
        "{{\"version\":\"0.1.0\",\"started_at\":\"{NOON}\",\"share\":{{\"generation\":1,\"x\":7,\"ok\":true}},\
         \"threshold\":3,\"sandboxed\":true,\"clock_synchronised\":true,\
         \"audit\":{{\"seq\":1,\"head\":\"{digest}\",\"ok\":true}},\"policy_sha256\":\"{digest}\",\
         \"allowed_signers_sha256\":\"{digest}\",\"nodes\":{nodes},\"rejected\":{rejected},\"submissions\":{{}}}}"
    );
    body(number, "heartbeat", "custodian-1", &content)
}

fn node(needs: &str) -> String {
    format!(
        "{{\"seen\":\"sealed\",\"since\":\"{NOON}\",\"ready\":true,\"needs\":{needs},\"budget_remaining\":12,\
         \"shared_address\":false,\"restart_provable\":true}}"
    )
}

fn seal(key: u8, namespace: &str, body: &[u8]) -> Vec<u8> {
    let proof = secret(key).sign(&signed_data(namespace, HashAlg::Sha512, body)).to_bytes();
    Envelope::assemble(body, &armor_ed25519(&public(key), namespace, HashAlg::Sha512, &proof))
}

/// What dave's token answers when it was touched, or not.
fn seal_by_token(flags: u8, body: &[u8]) -> Vec<u8> {
    let mut data = Sha256::digest(b"ssh:").to_vec();
    data.extend([flags, 0, 0, 0, 9]);
    data.extend(Sha256::digest(signed_data(APPROVAL, HashAlg::Sha512, body)));
    let mut proof = strings(&[b"sk-ssh-ed25519@openssh.com", &secret(DAVE).sign(&data).to_bytes()]);
    proof.extend([flags, 0, 0, 0, 9]);
    Envelope::assemble(body, &armor(&public(DAVE), APPROVAL, HashAlg::Sha512, &proof))
}

/// The signature that anybody can make for the key that is the neutral element: it satisfies the plain check for every message.
fn seal_by_nobody(body: &[u8]) -> Vec<u8> {
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut forged = [0; 64];
    forged[..32].fill(0x66);
    forged[0] = 0x58;
    forged[32] = 1;
    enveloped_sshsig(body, &strings(&[b"ssh-ed25519", &neutral]), &strings(&[b"ssh-ed25519", &forged]))
}

/// The binary signature by hand, for keys that the code would not take.
fn enveloped_sshsig(body: &[u8], key: &[u8], proof: &[u8]) -> Vec<u8> {
    let mut blob = b"SSHSIG\0\0\0\x01".to_vec();
    blob.extend(strings(&[key, APPROVAL.as_bytes(), b"", b"sha512", proof]));
    let armored =
        format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", BASE64_STANDARD.encode(blob));
    Envelope::assemble(body, &armored)
}

/// Alice's signature with `S + L` in the place of `S`: the same point, in a spelling that is not its own.
fn seal_malleably(body: &[u8]) -> Vec<u8> {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut proof = secret(1).sign(&signed_data(APPROVAL, HashAlg::Sha512, body)).to_bytes();
    let mut carry = 0;
    for (byte, order) in proof[32..].iter_mut().zip(ORDER) {
        carry += u16::from(*byte) + u16::from(order);
        *byte = (carry & 0xff) as u8;
        carry >>= 8;
    }
    enveloped_sshsig(body, public(1).as_blob(), &strings(&[b"ssh-ed25519", &proof]))
}

/// What is wrong with it; the reason for which it is refused; and that for which one refuses it whose clock was set back, where
/// that is another.
struct Case {
    what: String,
    reason: &'static str,
    set_back: &'static str,
    bytes: Vec<u8>,
}

/// Everything that must be refused. The first approval, number 1, was admitted before.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |what: &str, reason: &'static str, set_back: &'static str, bytes: Vec<u8>| {
        cases.push(Case { what: what.to_owned(), reason, set_back, bytes });
    };
    let good = approval(2);
    let change = |from: &str, to: &str| {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good, "{from}");
        changed.into_bytes()
    };
    let by_alice = |body: &[u8]| seal(1, APPROVAL, body);

    // Form: the envelope.
    case("nothing", "malformed", "malformed", Vec::new());
    case("no JSON", "malformed", "malformed", b"open sesame".to_vec());
    case("not UTF-8", "malformed", "malformed", b"{\"body\":\"\xff\xfe\",\"signature\":\"\"}".to_vec());
    case("brackets, as many as there is room for", "malformed", "malformed", vec![b'['; ENVELOPE_MAX]);
    case("brackets in a field", "malformed", "malformed", [b"{\"body\":", vec![b'['; 60_000].as_slice()].concat());
    case("braces in a field", "malformed", "malformed", b"{\"body\":".repeat(ENVELOPE_MAX / 8));
    case("more than there is room for", "oversized", "oversized", vec![b'['; 128 * 1024]);
    let whole = by_alice(good.as_bytes());
    let text = String::from_utf8(whole.clone()).expect("JSON is text");
    case("cut off", "malformed", "malformed", whole[..whole.len() - 30].to_vec());
    case("two", "malformed", "malformed", [whole.as_slice(), &whole].concat());
    case("two bodies", "malformed", "malformed", text.replacen('{', "{\"body\":\"e30=\",", 1).into_bytes());
    case(
        "a body twice, once in disguise",
        "malformed",
        "malformed",
        text.replacen('{', "{\"bod\\u0079\":\"e30=\",", 1).into(),
    );
    case("another field", "malformed", "malformed", text.replacen('{', "{\"to\":1,", 1).into_bytes());
    case("an array", "malformed", "malformed", b"[\"e30=\",\"\"]".to_vec());
    case(
        "a line feed in the base64",
        "malformed",
        "malformed",
        text.replacen("\",\"sig", "\\n\",\"sig", 1).into_bytes(),
    );
    case("no signature", "malformed", "malformed", Envelope::assemble(good.as_bytes(), ""));
    let long = format!("-----BEGIN SSH SIGNATURE-----\n{}\n", "A".repeat(2000));
    case("a signature without end", "oversized", "oversized", Envelope::assemble(good.as_bytes(), &long));

    // Form: the header. Signed by somebody who may, so that nothing else is wrong.
    for (what, body) in [
        ("a header's field twice", change("\"from\":\"alice\"", "\"from\":\"alice\",\"from\":\"alice\"")),
        ("a kind twice", change("\"kind\":", "\"kind\":\"event\",\"kind\":")),
        ("a version twice", change("\"v\":1", "\"v\":1,\"v\":1")),
        ("a field twice, once in disguise", change("\"from\":\"alice\"", "\"from\":\"alice\",\"fro\\u006d\":\"bob\"")),
        ("two contents", change("\"content\":", "\"content\":{},\"content\":")),
        ("an unknown field", change("\"v\":1", "\"v\":1,\"urgent\":true")),
        ("no content", change(",\"content\":{\"node\":\"vault-1\"}", "")),
        ("for ever", change(",\"expires_at\":\"2026-11-22T12:10:00.000Z\"", "")),
        ("an id in capitals", change("00000000000000000000000000000002", "0000000000000000000000000000000A")),
        ("a name that is a pattern", change("\"from\":\"alice\"", "\"from\":\"ali*\"")),
        ("a time in another zone", change(NOON, "2026-11-22T13:00:00.000+01:00")),
        ("a time that never was", change(NOON, "2026-02-30T12:00:00.000Z")),
        ("not UTF-8 inside", [&good.as_bytes()[..20], b"\xff", &good.as_bytes()[21..]].concat()),
        ("a lone surrogate", change("alice", "al\\ud800ce")),
        ("an array of its fields", b"[1,\"approval\"]".to_vec()),
        ("brackets alone", vec![b'['; 47_000]),
        ("brackets in a header's field", change("\"v\":1", &format!("\"v\":1,\"x\":{}", "[".repeat(40_000)))),
        ("trailing", [good.as_bytes(), b" {}"].concat()),
    ] {
        case(what, "malformed", "malformed", by_alice(&body));
    }
    case("another version", "unknown-version", "unknown-version", by_alice(&change("\"v\":1", "\"v\":2,\"new\":{}")));
    case("no version of ours", "unknown-version", "unknown-version", by_alice(&change("\"v\":1", "\"v\":0")));
    case("another kind", "unknown-kind", "unknown-kind", by_alice(&change("\"approval\"", "\"open-it\"")));
    case("a kind in capitals", "unknown-kind", "unknown-kind", by_alice(&change("\"approval\"", "\"Approval\"")));

    // Form: the content, which is read only when all else was right.
    for (what, reason, body) in [
        (
            "a content's field twice",
            "malformed",
            change("{\"node\":\"vault-1\"", "{\"node\":\"vault-2\",\"node\":\"vault-1\""),
        ),
        ("a content's unknown field", "malformed", change("\"vault-1\"", "\"vault-1\",\"url\":\"https://evil\"")),
        ("an array for a content", "malformed", change("{\"node\":\"vault-1\"}", "[\"vault-1\"]")),
        (
            "a deep content",
            "malformed",
            change("{\"node\":\"vault-1\"}", &format!("{}{}", "[".repeat(20_000), "]".repeat(20_000))),
        ),
        (
            "a deep field",
            "malformed",
            change("\"vault-1\"", &format!("{}1{}", "{\"a\":".repeat(6_000), "}".repeat(6_000))),
        ),
    ] {
        // The clock is looked at first: a permission is not read by one who cannot judge it.
        case(what, reason, "clock", by_alice(&body));
    }
    let report = |body: String| seal(5, REPORT, body.as_bytes());
    let vault = node("{\"what\":\"policy\"}");
    for (what, body) in [
        ("a node twice", heartbeat(3, &format!("{{\"vault-1\":{vault},\"vault-1\":{vault}}}"), "{}")),
        (
            "a node twice, once in disguise",
            heartbeat(3, &format!("{{\"vault-1\":{vault},\"vault-\\u0031\":{vault}}}"), "{}"),
        ),
        ("a count twice", heartbeat(3, "{}", "{\"forged\":1,\"forged\":0}")),
        ("a nested field twice", heartbeat(3, "{}", "{}").replace("\"seq\":1", "\"seq\":1,\"seq\":2")),
        (
            "needs twice",
            heartbeat(3, &format!("{{\"vault-1\":{}}}", node("{\"what\":\"policy\",\"what\":\"share\"}")), "{}"),
        ),
        ("needs with more", heartbeat(3, &format!("{{\"vault-1\":{}}}", node("{\"what\":\"policy\",\"x\":1}")), "{}")),
        (
            "needs with too little",
            heartbeat(3, &format!("{{\"vault-1\":{}}}", node("{\"what\":\"approvals\",\"have\":1}")), "{}"),
        ),
        ("needs that there are not", heartbeat(3, &format!("{{\"vault-1\":{}}}", node("{\"what\":\"luck\"}")), "{}")),
    ] {
        case(what, "malformed", "malformed", report(body));
    }

    // Who.
    let stranger = |body: &str| seal(99, APPROVAL, body.as_bytes());
    case("a stranger's key", "forged", "forged", stranger(&good));
    case("another's key", "forged", "forged", seal(7, APPROVAL, good.as_bytes()));
    case("somebody who is not listed", "wrong-role", "wrong-role", stranger(&good.replace("alice", "mallory")));
    case("somebody with a key and no say", "wrong-role", "wrong-role", seal(7, APPROVAL, &change("alice", "oscar")));
    case("a custodian that approves", "wrong-role", "wrong-role", seal(5, APPROVAL, &change("alice", "custodian-1")));
    let event = body(4, "event", "alice", "{}");
    case("an operator that reports events", "wrong-role", "wrong-role", seal(1, "holdfast.event", event.as_bytes()));
    // Whatever its key may sign for elsewhere: what a restrictor says beside holds counts for nothing here.
    for (kind, purpose) in FORBIDDEN_TO_RESTRICTORS {
        let wanted = body(8, kind, "ids-1", "{}");
        let what = format!("a restrictor that sends {kind}");
        case(&what, "wrong-role", "wrong-role", seal(9, purpose, wanted.as_bytes()));
    }
    case("a hold under a restrictor's name", "forged", "forged", seal(7, ORDER, hold(8).as_bytes()));
    case(
        "another purpose that its key may sign for",
        "wrong-role",
        "wrong-role",
        seal(1, "holdfast.order", good.as_bytes()),
    );
    case("a purpose of somebody else's", "wrong-role", "wrong-role", seal(1, "file", good.as_bytes()));
    case("another cluster", "other-cluster", "other-cluster", by_alice(&change(CLUSTER, &"2".repeat(32))));
    case("a key that is not valid yet", "early", "early", seal(3, APPROVAL, &change("alice", "bob")));
    case("a key that is not valid any more", "expired", "expired", seal(4, APPROVAL, &change("alice", "carol")));

    // The signature.
    case("a key of small order", "forged", "forged", seal_by_nobody(good.as_bytes()));
    case("another spelling of a good signature", "altered", "altered", seal_malleably(good.as_bytes()));
    let other = seal(1, APPROVAL, approval(5).as_bytes());
    let other: serde_json::Value = serde_json::from_slice(&other).expect("JSON");
    let swapped = Envelope::assemble(good.as_bytes(), other["signature"].as_str().expect("text"));
    case("another message's signature", "altered", "altered", swapped);
    for flags in [0, 4] {
        let untouched = seal_by_token(flags, &change("alice", "dave"));
        case("a token that nobody touched", "forged", "forged", untouched);
    }
    let rsa = enveloped_sshsig(
        good.as_bytes(),
        &strings(&[b"ssh-rsa", &[1, 0, 1], &[7; 256]]),
        &strings(&[b"ssh-rsa", &[1]]),
    );
    case("a key of a type that may not sign", "forged", "forged", rsa);

    // When.
    case("from the future", "early", "early", by_alice(&change(NOON, "2026-11-22T12:00:31.000Z")));
    case("expired", "expired", "clock", by_alice(&change("12:10:00", "12:00:00")));
    let long = change(":10:00.000Z", ":15:00.001Z");
    case("for too long", "too-long", "clock", by_alice(&long));
    let old = body(6, "sighting", "custodian-1", "{}").replace(NOON, "2026-11-22T11:58:29.999Z");
    case("an old report", "expired", "expired", report(old));
    case("the same again", "replayed", "clock", by_alice(approval(1).as_bytes()));
    let again = seal(2, APPROVAL, approval(1).as_bytes());
    case("the same again, with her other key", "replayed", "clock", again);
    cases
}

/// Each is refused for its reason, and counted once.
fn refuses(door: &mut Admission, now: Now, case: &Case, reason: &str) {
    assert!(REASONS.contains(&reason), "{}: {reason} is no reason", case.what);
    let before = door.rejected().clone();
    let refused = door.admit(&case.bytes, now).map(|body| body.header).map_err(|refused| refused.reason());
    assert_eq!(refused, Err(reason), "{}", case.what);
    let mut expected = before;
    *expected.entry(REASONS[REASONS.iter().position(|known| *known == reason).expect("known")]).or_default() += 1;
    assert_eq!(*door.rejected(), expected, "{}: counted once, and nothing else", case.what);
}

/// A door that admitted the first approval.
fn in_use() -> Admission {
    let mut door = door();
    door.admit(&seal(1, APPROVAL, approval(1).as_bytes()), at(NOON)).expect("it is as it should be");
    door
}

#[test]
fn each_is_refused_for_its_reason_by_one_that_runs() {
    let mut door = in_use();
    for case in cases() {
        refuses(&mut door, at(NOON), &case, case.reason);
    }
    // Nothing of all that is remembered: what it imitated still counts.
    door.admit(&seal(9, ORDER, hold(8).as_bytes()), at(NOON)).expect("a restrictor may hold");
    door.admit(&seal(1, APPROVAL, approval(2).as_bytes()), at(NOON)).expect("it was never heard");
    door.admit(&seal_by_token(1, approval(7).replace("alice", "dave").as_bytes()), at(NOON)).expect("touched");
    let nodes = format!("{{\"vault-1\":{}}}", node("{\"what\":\"approvals\",\"have\":0,\"need\":2}"));
    door.admit(&seal(5, REPORT, heartbeat(3, &nodes, "{\"forged\":1}").as_bytes()), at(NOON)).expect("a heartbeat");
}

#[test]
fn each_is_refused_for_its_reason_by_one_that_was_started_again() {
    let before = in_use();
    let mut door = door();
    door.restore(before.permissions().clone(), before.high_water());
    for case in cases() {
        refuses(&mut door, at(NOON), &case, case.reason);
    }
    door.admit(&seal(1, APPROVAL, approval(2).as_bytes()), at(NOON)).expect("it was never heard");
}

#[test]
fn each_is_refused_by_one_whose_clock_was_set_back() {
    // It has shown one o'clock, and is noon again: what was signed for now may have been used up at that time.
    let mut door = in_use();
    door.observe_clock(at("2026-11-22T13:00:00.000Z"));
    for case in cases() {
        refuses(&mut door, at(NOON), &case, case.set_back);
    }
    let fresh = Case {
        what: "a good one".into(),
        reason: "clock",
        set_back: "clock",
        bytes: seal(1, APPROVAL, approval(2).as_bytes()),
    };
    refuses(&mut door, at(NOON), &fresh, "clock");
    // Started again, it has not forgotten what it has shown.
    let mut next = self::door();
    next.restore(door.permissions().clone(), door.high_water());
    refuses(&mut next, at(NOON), &fresh, "clock");
    // What permits nothing is heard all the same.
    next.admit(&seal(5, REPORT, heartbeat(3, "{}", "{}").as_bytes()), at(NOON)).expect("a heartbeat");
}

#[test]
fn a_permission_is_not_good_again_whenever_it_comes_again() {
    let used = seal(1, APPROVAL, approval(1).as_bytes());
    let mut door = in_use();
    for (time, reason) in [
        ("2026-11-22T12:00:00.001Z", "replayed"),
        ("2026-11-22T11:59:31.000Z", "replayed"),
        ("2026-11-22T12:09:59.999Z", "replayed"),
        ("2026-11-22T12:10:00.000Z", "expired"),
        ("2026-11-23T12:00:00.000Z", "expired"),
        // Forgotten by now: and the clock goes back to when it was good.
        ("2026-11-22T12:00:00.000Z", "clock"),
        ("2026-11-22T12:09:59.999Z", "clock"),
    ] {
        let refused = door.admit(&used, at(time)).map(|_| ()).map_err(|refused| refused.reason());
        assert_eq!(refused, Err(reason), "at {time}");
        let mut next = self::door();
        next.restore(door.permissions().clone(), door.high_water());
        assert_eq!(next.admit(&used, at(time)).map(|_| ()).map_err(|refused| refused.reason()), Err(reason), "{time}");
    }
}

/// A good message of each form, for changes.
fn good_ones() -> [Vec<u8>; 3] {
    let nodes = format!("{{\"vault-1\":{}}}", node("{\"what\":\"approvals\",\"have\":0,\"need\":2}"));
    [
        seal(1, APPROVAL, approval(1).as_bytes()),
        seal(5, REPORT, heartbeat(2, &nodes, "{\"forged\":1}").as_bytes()),
        seal_by_token(1, approval(3).replace("alice", "dave").as_bytes()),
    ]
}

fn admits_or_counts(bytes: &[u8], original: Option<&[u8]>) {
    let mut door = door();
    let admitted = door.admit(bytes, at(NOON));
    match admitted {
        // Only white space, or another spelling of the same JSON, leaves the envelope's content as it was.
        Ok(body) => {
            let original = original.expect("nobody signs what is drawn by lot");
            assert_eq!(body, self::door().admit(original, at(NOON)).expect("it is good"));
        }
        Err(refused) => {
            assert!(REASONS.contains(&refused.reason()));
            assert_eq!(*door.rejected(), BTreeMap::from([(refused.reason(), 1)]));
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_pass_or_panic(bytes in prop::collection::vec(any::<u8>(), 0..800)) {
        admits_or_counts(&bytes, None);
    }

    #[test]
    fn no_changed_message_says_anything_else(
        which in 0..3usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let good = &good_ones()[which];
        let mut changed = good.clone();
        for (at, with) in changes {
            let at = at.index(changed.len());
            changed[at] = with;
        }
        admits_or_counts(&changed, Some(good));
    }

    #[test]
    fn no_body_that_its_signer_made_wrong_panics(
        heartbeat_instead in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        // Signed after the change: what is behind the signature has to hold out by itself.
        let (key, namespace, body) = match heartbeat_instead {
            true => (5, REPORT, heartbeat(2, &format!("{{\"vault-1\":{}}}", node("{\"what\":\"policy\"}")), "{}")),
            false => (1, APPROVAL, approval(1)),
        };
        let mut body = body.into_bytes();
        for (at, with) in changes {
            let at = at.index(body.len());
            body[at] = with;
        }
        if cuts {
            body.truncate(cut.index(body.len()));
        }
        let mut door = door();
        if let Err(refused) = door.admit(&seal(key, namespace, &body), at(NOON)) {
            prop_assert!(REASONS.contains(&refused.reason()));
        }
    }
}

/// So that a stack which would overflow does so here: test threads have two MiB, a daemon's main thread eight.
#[test]
fn the_deepest_of_everything_needs_no_stack() {
    let small = std::thread::Builder::new().stack_size(256 * 1024);
    let deep = small.spawn(|| {
        let mut door = in_use();
        let deep: Vec<_> = cases().into_iter().filter(|case| case.bytes.len() > 16_000).collect();
        assert!(deep.len() >= 7);
        for case in &deep {
            refuses(&mut door, at(NOON), case, case.reason);
        }
    });
    deep.expect("a thread").join().expect("it lives");
}

#[test]
fn a_flood_of_forgeries_leaves_nothing_behind() {
    let stranger = seal(99, APPROVAL, approval(2).as_bytes());
    let mut door = door();
    for _ in 0..1000 {
        assert_eq!(door.admit(&stranger, at(NOON)).map_err(|refused| refused.reason()).err(), Some("forged"));
    }
    assert_eq!(door.rejected()["forged"], 1000);
    assert!(door.permissions().is_empty(), "and leaves nothing behind");
}
