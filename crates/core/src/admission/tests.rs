//! What passes the door, and what is refused at it and counted, with real keys and envelopes.

use ed25519_dalek::{Signer, SigningKey};

use super::*;
use crate::id::NodeName;
use crate::message::{Approval, Content, Seen, Sighting};
use crate::sshsig::{HashAlg, PublicKey, armor_ed25519, signed_data};
use crate::time::Steady;
use crate::trust::Namespace;

const MINUTE: Duration = Duration::from_secs(60);

struct Key(SigningKey);

impl Key {
    fn new(number: u8) -> Self {
        Self(SigningKey::from_bytes(&[number; 32]))
    }

    fn public(&self) -> PublicKey {
        PublicKey::from_ed25519(self.0.verifying_key().to_bytes()).expect("a sound key")
    }

    fn seal(&self, namespace: Namespace, body: &Body) -> Vec<u8> {
        let bytes = body.to_json();
        let proof = self.0.sign(&signed_data(namespace.as_str(), HashAlg::Sha512, &bytes)).to_bytes();
        let armored = armor_ed25519(&self.public(), namespace.as_str(), HashAlg::Sha512, &proof);
        Envelope::assemble(&bytes, &armored)
    }
}

/// A door that serves one cluster, with an operator, a sentinel, and somebody whose key counts for everything and who has no
/// say.
struct Door {
    admission: Admission,
    made: u64,
}

const ALICE: u8 = 1;
const SENTINEL: u8 = 2;
const OSCAR: u8 = 3;

fn cluster() -> ClusterId {
    ClusterId::from_bytes([1; 16])
}

fn name(key: u8) -> Principal {
    ["alice", "sentinel-1", "oscar"][usize::from(key) - 1].parse().expect("a name")
}

fn at(seconds: u64) -> Now {
    let wait = Duration::from_secs(seconds);
    Now { steady: Steady::from_start(wait), wall: Timestamp::from_millis(1_795_341_600_000).after(wait) }
}

impl Door {
    fn new() -> Self {
        let line = |key, namespaces: &str| {
            format!("{} namespaces=\"{namespaces}\" {}\n", name(key), Key::new(key).public().to_openssh())
        };
        let file = line(ALICE, "holdfast.approval")
            + &line(SENTINEL, "holdfast.event")
            + &line(OSCAR, "holdfast.approval,holdfast.event");
        let trust = AllowedSigners::parse(file).expect("a sound file");
        let roles = Roles {
            operators: BTreeSet::from([name(ALICE)]),
            sentinels: BTreeSet::from([name(SENTINEL)]),
            ..Roles::default()
        };
        Self { admission: Admission::new(trust, BTreeMap::from([(cluster(), roles)])), made: 0 }
    }

    fn header(&mut self, kind: Kind, from: u8, issued_at: Timestamp, life: Option<Duration>) -> Header {
        self.made += 1;
        let mut id = [0; 16];
        id[8..].copy_from_slice(&self.made.to_be_bytes());
        let expires_at = life.map(|life| issued_at.after(life));
        Header { kind, id: MessageId::from_bytes(id), cluster: cluster(), from: name(from), issued_at, expires_at }
    }

    fn approval(&mut self, from: u8, issued_at: Timestamp, life: Duration) -> Body {
        let header = self.header(Kind::Approval, from, issued_at, Some(life));
        Body { header, content: Content::Approval(Approval { node: node() }) }
    }

    fn event(&mut self, from: u8, issued_at: Timestamp) -> Body {
        let header = self.header(Kind::Event, from, issued_at, None);
        let sighting = Sighting { node: node(), seen: Seen::Lost, cause: None, seen_at: issued_at };
        Body { header, content: Content::Event(sighting) }
    }

    /// The reason for which it is refused, if it is.
    fn refuses(&mut self, bytes: &[u8], now: Now) -> Option<&'static str> {
        let before = self.admission.rejected().values().sum::<u64>();
        let refused = self.admission.admit(bytes, now).err().map(|refused| refused.reason());
        let counted = self.admission.rejected().values().sum::<u64>() - before;
        assert_eq!(counted, u64::from(refused.is_some()), "each refusal is counted, and nothing else");
        assert!(refused.is_none_or(|reason| REASONS.contains(&reason)));
        refused
    }
}

fn node() -> NodeName {
    "vault-1".parse().expect("a name")
}

fn sealed(body: &Body) -> Vec<u8> {
    let key = (1..=3).find(|key| name(*key) == body.header.from).expect("one of them");
    Key::new(key).seal(body.header.kind.namespace(), body)
}

#[test]
fn each_refusal_has_its_reason() {
    let mut door = Door::new();
    let now = at(0);
    let good = door.approval(ALICE, now.wall, MINUTE);
    let with = |change: &dyn Fn(&mut Body)| {
        let mut body = good.clone();
        change(&mut body);
        body
    };
    let another = |body: &mut Body| body.header.cluster = ClusterId::from_bytes([2; 16]);
    assert_eq!(door.refuses(&sealed(&with(&another)), now), Some("other-cluster"));
    let outsider = |body: &mut Body| body.header.from = name(OSCAR);
    assert_eq!(door.refuses(&sealed(&with(&outsider)), now), Some("wrong-role"), "trusted, without a say here");
    assert_eq!(door.refuses(&Key::new(9).seal(Namespace::Approval, &good), now), Some("forged"), "a stranger's key");
    assert_eq!(door.refuses(&Key::new(OSCAR).seal(Namespace::Approval, &good), now), Some("forged"), "another's key");
    assert_eq!(door.refuses(&Key::new(ALICE).seal(Namespace::Event, &good), now), Some("wrong-role"), "a namespace");
    let early = door.approval(ALICE, now.wall.after(SKEW_MAX + MINUTE), MINUTE);
    assert_eq!(door.refuses(&sealed(&early), now), Some("early"));
    let late = door.approval(ALICE, now.wall.before(MINUTE), MINUTE);
    assert_eq!(door.refuses(&sealed(&late), now), Some("expired"), "to the millisecond");
    let long = door.approval(ALICE, now.wall, PERMISSION_LIFE_MAX + Duration::from_millis(1));
    assert_eq!(door.refuses(&sealed(&long), now), Some("too-long"));
    let old = door.event(SENTINEL, now.wall.before(AGE_MAX + Duration::from_millis(1)));
    assert_eq!(door.refuses(&sealed(&old), now), Some("expired"), "an event");
    assert_eq!(door.refuses(b"not json", now), Some("malformed"));
    assert_eq!(door.refuses(&vec![b' '; crate::envelope::ENVELOPE_MAX + 1], now), Some("oversized"));
    assert_eq!(door.refuses(&sealed(&good), now), None);
    assert_eq!(door.refuses(&sealed(&good), now), Some("replayed"));
    let mut altered = sealed(&door.approval(ALICE, now.wall, MINUTE));
    let at = altered.windows(4).position(|w| w == b"YXBw").unwrap_or(60);
    altered[at] ^= 1;
    assert!(matches!(door.refuses(&altered, now), Some("altered" | "malformed" | "unknown-kind")));
}

#[test]
fn what_was_refused_is_not_remembered() {
    let mut door = Door::new();
    let body = door.approval(ALICE, at(100).wall, MINUTE);
    assert_eq!(door.refuses(&sealed(&body), at(0)), Some("early"));
    assert_eq!(door.refuses(&sealed(&body), at(100)), None, "in its time it counts");
    let body = door.approval(ALICE, at(100).wall, MINUTE);
    assert_eq!(door.refuses(&Key::new(9).seal(Namespace::Approval, &body), at(100)), Some("forged"));
    assert_eq!(door.refuses(&sealed(&body), at(100)), None, "a forgery with its id does not keep it out");
}

#[test]
fn a_permission_counts_once_also_for_the_next_process_and_under_a_clock_set_back() {
    let mut door = Door::new();
    let body = door.approval(ALICE, at(0).wall, MINUTE);
    assert_eq!(door.refuses(&sealed(&body), at(0)), None);
    let mut next = Door { made: door.made, ..Door::new() };
    next.admission.restore(door.admission.permissions().clone(), door.admission.high_water());
    assert_eq!(next.refuses(&sealed(&body), at(1)), Some("replayed"));
    // Long expired and forgotten; then the clock goes back to when it was valid.
    next.admission.observe_clock(at(3_600));
    let other = next.approval(ALICE, at(3_600).wall, MINUTE);
    assert_eq!(next.refuses(&sealed(&other), at(3_600)), None);
    assert!(!next.admission.permissions().contains_key(&body.header.id), "not kept for ever");
    assert_eq!(next.refuses(&sealed(&body), at(1)), Some("clock"));
    let event = next.event(SENTINEL, at(1).wall);
    assert_eq!(next.refuses(&sealed(&event), at(1)), None, "what permits nothing is heard all the same");
}

#[test]
fn a_full_memory_refuses_and_forgets_nothing() {
    let mut door = Door::new();
    let first = door.approval(ALICE, at(0).wall, MINUTE);
    assert_eq!(door.refuses(&sealed(&first), at(0)), None);
    let many = (0..PERMISSIONS_MAX as u64 - 1).map(|n| {
        let mut id = [9; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        let (cluster, from) = (cluster(), first.header.from.clone());
        (MessageId::from_bytes(id), Permission { cluster, from, expires_at: at(60).wall })
    });
    door.admission.restore(many, Timestamp::default());
    let another = door.approval(ALICE, at(0).wall, MINUTE);
    assert_eq!(door.refuses(&sealed(&another), at(0)), Some("flood"));
    assert_eq!(door.refuses(&sealed(&first), at(0)), Some("replayed"), "the first is still known");
    let roles = Roles { operators: BTreeSet::from([name(ALICE), name(OSCAR)]), ..Roles::default() };
    door.admission.reconfigure(door.admission.trust(cluster()).clone(), BTreeMap::from([(cluster(), roles)]));
    let oscars = door.approval(OSCAR, at(0).wall, MINUTE);
    assert_eq!(door.refuses(&sealed(&oscars), at(0)), None, "what one operator signed takes no room of another");
    door.admission.permissions.values_mut().for_each(|known| known.cluster = ClusterId::from_bytes([77; 16]));
    let elsewhere = door.approval(ALICE, at(0).wall, MINUTE);
    assert_eq!(
        door.refuses(&sealed(&elsewhere), at(0)),
        None,
        "what she signed for another cluster takes no room of this one"
    );
    let another = door.approval(ALICE, at(120).wall, MINUTE);
    assert_eq!(door.refuses(&sealed(&another), at(120)), None, "when they have expired there is room again");
}

#[test]
fn a_sender_who_floods_shuts_out_nobody_else() {
    let mut door = Door::new();
    for _ in 0..RECENT_MAX {
        let body = door.event(SENTINEL, at(0).wall);
        door.admission.remember(&body.header, at(0));
    }
    let event = door.event(SENTINEL, at(0).wall);
    assert_eq!(door.refuses(&sealed(&event), at(0)), Some("flood"));
    let approval = door.approval(ALICE, at(0).wall, MINUTE);
    assert_eq!(door.refuses(&sealed(&approval), at(0)), None);
    let later = door.event(SENTINEL, at(200).wall);
    assert_eq!(door.refuses(&sealed(&later), at(200)), None, "and is heard again when that is over");
    assert!(door.admission.recent.values().map(BTreeMap::len).sum::<usize>() <= 1);
}

#[test]
fn a_reload_changes_who_counts_and_forgets_no_id() {
    let mut door = Door::new();
    let body = door.approval(ALICE, at(0).wall, MINUTE);
    assert_eq!(door.refuses(&sealed(&body), at(0)), None);
    let roles = Roles { operators: BTreeSet::from([name(OSCAR), name(ALICE)]), ..Roles::default() };
    door.admission.reconfigure(door.admission.trust(cluster()).clone(), BTreeMap::from([(cluster(), roles)]));
    assert_eq!(door.refuses(&sealed(&body), at(0)), Some("replayed"));
    let oscars = door.approval(OSCAR, at(0).wall, MINUTE);
    assert_eq!(door.refuses(&sealed(&oscars), at(0)), None);
    let event = door.event(SENTINEL, at(0).wall);
    assert_eq!(door.refuses(&sealed(&event), at(0)), Some("wrong-role"));
}
