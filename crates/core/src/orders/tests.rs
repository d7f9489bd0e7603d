//! Orders of one cluster: who may begin and end what, what lapses, and what never comes back.

use super::*;
use crate::id::ClusterId;
use crate::message::{Body, Kind};

const MINUTE: Duration = Duration::from_secs(60);

// Real public keys, so that they can stand in an allowed_signers file.
const KEYS: [&str; 4] = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFhmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZm",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAID1AF8PoQ4lakrcKp00bfrycmCzPLsSWjMDNVfEq9GYM",
];

fn name(text: &str) -> Principal {
    text.parse().expect("a name")
}

fn at(minutes: u64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000).after(MINUTE * u32::try_from(minutes).expect("small"))
}

fn file(signers: &[(&str, usize)]) -> String {
    let line =
        |(who, key): &(&str, usize)| format!("{who} namespaces=\"holdfast.order,holdfast.approval\" {}\n", KEYS[*key]);
    signers.iter().map(line).collect()
}

/// One custodian's orders, and what they are judged by.
struct Desk {
    orders: Orders,
    operators: BTreeSet<Principal>,
    peers: BTreeSet<Principal>,
    trust: AllowedSigners,
    configured: String,
    made: u8,
}

impl Desk {
    fn new() -> Self {
        let trust = AllowedSigners::parse(file(&[("alice", 0), ("bob", 1), ("carol", 2)])).expect("sound");
        Self {
            orders: Orders::default(),
            operators: ["alice", "bob", "carol"].map(name).into(),
            peers: ["custodian-1", "sentinel-1"].map(name).into(),
            configured: hex::encode(trust.digest()),
            trust,
            made: 0,
        }
    }

    fn header(&mut self, from: &str, kind: Kind, issued_at: Timestamp) -> Header {
        self.made += 1;
        let (id, cluster) = (MessageId::from_bytes([self.made; 16]), ClusterId::from_bytes([9; 16]));
        Header { kind, id, cluster, from: name(from), issued_at, expires_at: None }
    }

    fn take(&mut self, header: &Header, content: &Content, now: Timestamp) -> Taken {
        let Self { orders, operators, peers, trust, configured, .. } = self;
        let rules =
            Rules { operators, release_approvals: 2, approvals: 2, peers, trust, configured_sha256: configured };
        let body = Body { header: header.clone(), content: content.clone() };
        let armored = crate::sshsig::armor_ed25519(
            &KEYS[0].parse().expect("a key"),
            "holdfast.order",
            crate::sshsig::HashAlg::Sha512,
            &[0; 64],
        );
        let envelope = String::from_utf8(Envelope::assemble(&body.to_json(), &armored)).expect("text");
        let taken = orders.take(header, content, &envelope, &rules, now);
        // Whatever happens, it survives a restart as it is.
        let stored = serde_json::to_string(&*orders).expect("plain data");
        assert_eq!(serde_json::from_str::<Orders>(&stored).expect("reads back"), *orders);
        if let Taken::Told { change: Some(Change::Trusted { allowed_signers, .. }), .. } = &taken {
            *trust = allowed_signers.clone();
            orders.judge_under(trust);
        }
        taken
    }

    fn hold(&mut self, from: &str, nodes: &[&str], when: Timestamp) -> (Header, Content) {
        let header = self.header(from, Kind::Hold, when);
        let nodes = nodes.iter().map(|node| node.parse().expect("a name")).collect();
        let content = Content::Hold(Hold { nodes, reason: None });
        assert!(matches!(self.take(&header, &content, when), Taken::Told { effect: Effect::InForce {}, .. }));
        (header, content)
    }

    fn release(&mut self, from: &str, (header, content): &(Header, Content), when: Timestamp) -> (Header, Content) {
        let Content::Hold(hold) = content else { panic!("a hold") };
        let release =
            Release { hold: header.id, by: header.from.clone(), held_at: header.issued_at, nodes: hold.nodes.clone() };
        (self.header(from, Kind::Release, when), Content::Release(release))
    }

    fn held(&self, node: &str) -> bool {
        self.orders.holds_on(&node.parse().expect("a name")).next().is_some()
    }
}

fn waiting(have: u8) -> Taken {
    Taken::Told { effect: Effect::Waiting { have, need: 2 }, change: Some(Change::Voiced) }
}

#[test]
fn a_hold_takes_one_operator_and_its_end_two() {
    let mut desk = Desk::new();
    let hold = desk.hold("alice", &["vault-1"], at(0));
    assert!(desk.held("vault-1") && !desk.held("vault-2"));

    let first = desk.release("alice", &hold, at(1));
    assert_eq!(desk.take(&first.0, &first.1, at(1)), waiting(1));
    assert_eq!(desk.take(&first.0, &first.1, at(1)), Taken::Known);
    let again = desk.release("alice", &hold, at(2));
    assert_eq!(desk.take(&again.0, &again.1, at(2)), waiting(1), "the same operator counts once");
    assert!(desk.held("vault-1"));

    let second = desk.release("bob", &hold, at(3));
    let taken = desk.take(&second.0, &second.1, at(3));
    let by = vec![name("alice"), name("bob")];
    let change = Some(Change::Released(hold.0.id, by));
    assert_eq!(taken, Taken::Told { effect: Effect::InForce {}, change });
    assert!(!desk.held("vault-1"));
    for (header, content) in [&hold, &first, &again, &second] {
        let taken = desk.take(header, content, at(4));
        assert!(
            matches!(taken, Taken::Known | Taken::Told { change: None, .. }),
            "nothing of it comes back: {taken:?}"
        );
        assert!(!desk.held("vault-1"));
    }
}

#[test]
fn voices_count_together_only_within_a_quarter_of_an_hour() {
    let mut desk = Desk::new();
    let hold = desk.hold("alice", &[], at(0));
    let early = desk.release("alice", &hold, at(1));
    assert_eq!(desk.take(&early.0, &early.1, at(1)), waiting(1));
    let late = desk.release("bob", &hold, at(17));
    assert_eq!(desk.take(&late.0, &late.1, at(17)), waiting(1), "alice's has lapsed");
    let backdated = desk.release("carol", &hold, at(1));
    assert_eq!(desk.take(&backdated.0, &backdated.1, at(18)), waiting(1), "a stolen key revives no voice that lapsed");
    assert!(desk.held("vault-1"));
    let fresh = desk.release("alice", &hold, at(20));
    assert!(matches!(desk.take(&fresh.0, &fresh.1, at(20)), Taken::Told { effect: Effect::InForce {}, .. }));
}

#[test]
fn who_was_away_takes_a_release_however_late_and_before_its_hold() {
    let mut there = Desk::new();
    let hold = there.hold("carol", &["vault-1"], at(0));
    let (one, two) = (there.release("alice", &hold, at(1)), there.release("bob", &hold, at(2)));
    let month = 30 * 24 * 60;
    let mut away = Desk::new();
    assert_eq!(away.take(&one.0, &one.1, at(month)), waiting(1));
    assert!(matches!(away.take(&two.0, &two.1, at(month)), Taken::Told { effect: Effect::InForce {}, .. }));
    assert_eq!(away.take(&hold.0, &hold.1, at(month + 1)), Taken::Known);
    assert!(!away.held("vault-1"));
}

#[test]
fn a_release_that_says_something_else_than_the_hold_releases_nothing() {
    let mut desk = Desk::new();
    let hold = desk.hold("alice", &["vault-1"], at(0));
    for wrong in ["other-node", "other-operator", "other-time"] {
        let (header, content) = desk.release("bob", &hold, at(1));
        let Content::Release(mut release) = content else { panic!("a release") };
        match wrong {
            "other-node" => release.nodes.clear(),
            "other-operator" => release.by = name("carol"),
            _ => release.held_at = at(1),
        }
        let taken = desk.take(&header, &Content::Release(release.clone()), at(1));
        assert!(matches!(taken, Taken::Told { effect: Effect::Inapplicable { .. }, .. }), "{wrong}");

        // Who never saw the hold may believe it; when the hold comes, it is not the one that was released.
        let mut away = Desk::new();
        for from in ["alice", "bob"] {
            let header = away.header(from, Kind::Release, at(1));
            away.take(&header, &Content::Release(release.clone()), at(1));
        }
        assert!(
            matches!(away.take(&hold.0, &hold.1, at(2)), Taken::Told { effect: Effect::InForce {}, .. }),
            "{wrong}"
        );
        assert!(away.held("vault-1"), "{wrong}");
    }
}

#[test]
fn a_dismissed_operators_voice_counts_no_more_and_his_hold_stays() {
    let mut desk = Desk::new();
    let hold = desk.hold("carol", &[], at(0));
    let first = desk.release("carol", &hold, at(1));
    assert_eq!(desk.take(&first.0, &first.1, at(1)), waiting(1));
    desk.operators.remove(&name("carol"));
    let second = desk.release("alice", &hold, at(2));
    assert_eq!(desk.take(&second.0, &second.1, at(2)), waiting(1));
    assert!(desk.held("vault-1"));
}

#[test]
fn one_operator_cannot_fill_the_others_room() {
    let mut desk = Desk::new();
    for _ in 0..HOLDS_PER_OPERATOR {
        desk.hold("alice", &["vault-1"], at(0));
    }
    let header = desk.header("alice", Kind::Hold, at(0));
    let content = Content::Hold(Hold { nodes: Vec::new(), reason: None });
    assert_eq!(desk.take(&header, &content, at(0)), Taken::Full);
    desk.hold("bob", &["vault-2"], at(0));
    assert!(desk.held("vault-2"));

    let release = |hold: u8| {
        let (hold, by) = (MessageId::from_bytes([hold; 16]), name("dave"));
        Content::Release(Release { hold, by, held_at: at(0), nodes: Vec::new() })
    };
    for hold in 0..u8::try_from(VOICES_PER_OPERATOR).expect("small") {
        let header = desk.header("alice", Kind::Release, at(1));
        assert_eq!(desk.take(&header, &release(200 - hold), at(1)), waiting(1));
    }
    let header = desk.header("alice", Kind::Release, at(1));
    assert_eq!(desk.take(&header, &release(250), at(1)), Taken::Full);
    let header = desk.header("bob", Kind::Release, at(1));
    assert_eq!(desk.take(&header, &release(250), at(1)), waiting(1));
}

#[test]
fn one_operators_voices_wait_in_a_bounded_number_of_bytes() {
    let mut desk = Desk::new();
    let previous_sha256 = hex::encode(desk.trust.digest());
    // As large as a trust root may be, and no two the same: each is a matter of its own.
    let large = |version: u32| {
        let file = file(&[("alice", 3), ("bob", 1), ("carol", 2)]);
        let comment = "#".repeat(crate::trust::ALLOWED_SIGNERS_MAX - file.len() - 1);
        let allowed_signers = format!("{comment}\n{file}");
        Content::Trust(Trust { version, previous_sha256: previous_sha256.clone(), allowed_signers })
    };
    let mut speak = |from: &str, version: u32, when: u64| {
        let header = desk.header(from, Kind::Trust, at(0));
        let taken = desk.take(&header, &large(version), at(when));
        let kept = desk.orders.motions.iter().filter_map(|motion| motion.voices.get(&name(from))?.kept.as_ref());
        let bytes: usize = kept.map(|kept| kept.envelope.len()).sum();
        assert!(bytes <= VOICES_BYTES_PER_OPERATOR, "{from}: {bytes} bytes wait");
        taken
    };
    assert_eq!(speak("alice", 1, 0), waiting(1));
    assert_eq!(speak("alice", 2, 0), waiting(1), "two of the largest");
    assert_eq!(speak("alice", 3, 0), Taken::Full);
    assert_eq!(speak("carol", 4, 0), waiting(1), "her room is her own");
    assert_eq!(speak("alice", 3, 16), waiting(1), "what has lapsed takes no room");
}

#[test]
fn a_quorum_can_distrust_and_trust_again_and_nothing_old_undoes_it() {
    let mut desk = Desk::new();
    let order = |desk: &mut Desk, from: &str, lift: bool, when: u64| {
        let content = Content::Distrust(Distrust { principal: name("sentinel-1"), lift });
        (desk.header(from, Kind::Distrust, at(when)), content)
    };
    let first = order(&mut desk, "alice", false, 0);
    assert_eq!(desk.take(&first.0, &first.1, at(0)), waiting(1));
    assert!(!desk.orders.is_distrusted(&name("sentinel-1")));
    let second = order(&mut desk, "bob", false, 1);
    assert!(matches!(desk.take(&second.0, &second.1, at(1)), Taken::Told { change: Some(_), .. }));
    assert!(desk.orders.is_distrusted(&name("sentinel-1")));

    let lifts = ["alice", "carol"].map(|from| order(&mut desk, from, true, 5));
    for (header, content) in &lifts {
        desk.take(header, content, at(5));
    }
    assert!(!desk.orders.is_distrusted(&name("sentinel-1")));
    for from in ["alice", "bob"] {
        let (header, content) = order(&mut desk, from, false, 8);
        desk.take(&header, &content, at(8));
    }
    assert!(desk.orders.is_distrusted(&name("sentinel-1")));
    for (header, content) in &lifts {
        assert_eq!(desk.take(header, content, at(9)), Taken::Known, "what was signed before changes nothing");
    }
    assert!(desk.orders.is_distrusted(&name("sentinel-1")));

    let operator = Content::Distrust(Distrust { principal: name("alice"), lift: false });
    let header = desk.header("bob", Kind::Distrust, at(10));
    assert!(matches!(desk.take(&header, &operator, at(10)), Taken::Told { effect: Effect::Inapplicable { .. }, .. }));
}

#[test]
fn a_trust_root_is_replaced_by_two_who_sign_the_same_file() {
    let mut desk = Desk::new();
    let change = |desk: &Desk, version: u32, text: &str| {
        let previous_sha256 = hex::encode(desk.trust.digest());
        Content::Trust(Trust { version, previous_sha256, allowed_signers: text.to_owned() })
    };
    let new = file(&[("alice", 3), ("bob", 1), ("carol", 2)]);
    let content = change(&desk, 1, &new);
    let first = desk.header("bob", Kind::Trust, at(0));
    assert_eq!(desk.take(&first, &content, at(0)), waiting(1));
    let other = change(&desk, 1, &file(&[("alice", 0), ("bob", 1)]));
    let header = desk.header("carol", Kind::Trust, at(0));
    assert_eq!(desk.take(&header, &other, at(0)), waiting(1), "another file is another matter");
    let header = desk.header("carol", Kind::Trust, at(1));
    let Taken::Told { effect: Effect::InForce {}, change: Some(Change::Trusted { version: 1, by, .. }) } =
        desk.take(&header, &content, at(1))
    else {
        panic!("two are enough")
    };
    assert_eq!(by, [name("bob"), name("carol")]);
    assert_eq!(desk.orders.trust_version(), 1);
    let configured = desk.configured.clone();
    assert_eq!(desk.orders.trust_root(&configured).map(|trust| trust.digest()), Some(desk.trust.digest()));

    let stale = Content::Trust(Trust { version: 2, previous_sha256: configured, allowed_signers: new.clone() });
    let lower = change(&desk, 1, &file(&[("alice", 0), ("bob", 1)]));
    let lockout = change(&desk, 2, &file(&[("alice", 0)]));
    let broken = change(&desk, 2, "alice ssh-ed25519 AAAA");
    let far = change(&desk, 2 + VERSIONS_AHEAD, &file(&[("alice", 0), ("bob", 1)]));
    for (content, what) in [(stale, "stale"), (lower, "lower"), (lockout, "lockout"), (broken, "broken"), (far, "far")]
    {
        let header = desk.header("alice", Kind::Trust, at(2));
        let taken = desk.take(&header, &content, at(2));
        assert!(
            matches!(taken, Taken::Told { effect: Effect::Inapplicable { .. }, change: None }),
            "{what}: {taken:?}"
        );
    }

    // Somebody on the host replaced the configured file: he has decided, and the version still counts.
    desk.orders.notice_configured("another");
    assert_eq!((desk.orders.trust_root("another"), desk.orders.trust_version()), (None, 1));
    let header = desk.header("alice", Kind::Trust, at(3));
    let again = change(&desk, 1, &file(&[("alice", 0), ("bob", 1)]));
    assert!(matches!(desk.take(&header, &again, at(3)), Taken::Told { effect: Effect::Inapplicable { .. }, .. }));
}

#[test]
fn no_voice_of_an_old_trust_root_counts_under_the_new_one() {
    let mut desk = Desk::new();
    desk.orders.judge_under(&desk.trust.clone());
    let hold = desk.hold("carol", &[], at(0));
    let stolen = desk.release("alice", &hold, at(1));
    assert_eq!(desk.take(&stolen.0, &stolen.1, at(1)), waiting(1));
    let new = AllowedSigners::parse(file(&[("alice", 3), ("bob", 1), ("carol", 2)])).expect("sound");
    assert!(desk.orders.judge_under(&new));
    desk.trust = new;
    let honest = desk.release("bob", &hold, at(2));
    assert_eq!(desk.take(&honest.0, &honest.1, at(2)), waiting(1));
    assert_eq!(desk.take(&stolen.0, &stolen.1, at(2)), Taken::Known);
    assert!(desk.held("vault-1"));
}

#[test]
fn what_is_passed_on_is_what_came_and_no_more_than_fits() {
    let mut desk = Desk::new();
    let hold = desk.hold("alice", &[], at(0));
    let sha256 = desk.orders.passed_on().next().expect("one").to_owned();
    let envelope = desk.orders.envelope(&sha256).expect("kept");
    let body = Envelope::parse(envelope.as_bytes()).expect("an envelope");
    assert_eq!(Body::parse(body.body()).expect("a body").header, hold.0);
    for minute in 1..60 {
        let hold = desk.hold("bob", &[], at(minute));
        for from in ["alice", "carol"] {
            let (header, content) = desk.release(from, &hold, at(minute));
            desk.take(&header, &content, at(minute));
        }
        desk.made = 10 + u8::try_from(minute).expect("small") * 4;
    }
    assert_eq!(desk.orders.passed_on().count(), 1 + 2 * SETTLED_KEPT);
}

#[test]
fn what_builds_on_another_is_passed_on_after_it() {
    let mut desk = Desk::new();
    let mut settled = Vec::new();
    for minute in 0..3 {
        let hold = desk.hold("carol", &[], at(minute));
        for operator in ["alice", "bob"] {
            let (header, content) = desk.release(operator, &hold, at(minute));
            desk.take(&header, &content, at(minute));
            let body = Body { header, content }.to_json();
            settled.push(hex::encode(Sha256::digest(body)));
        }
    }
    assert_eq!(desk.orders.passed_on().collect::<Vec<_>>(), settled);
}
