//! A sentinel that follows trust orders: what it takes, from whom, and what it asks for.

use std::time::Duration;

use super::*;
use crate::id::{ClusterId, MessageId};
use crate::message::{Body, Kind};
use crate::quorum::tests::heartbeat;
use crate::sshsig::{HashAlg, armor_ed25519};

// Real public keys, so that they can stand in an allowed_signers file.
const KEYS: [&str; 3] = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFhmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZm",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea",
];

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn name(text: &str) -> Principal {
    text.parse().expect("a name")
}

/// A file that knows an operator by this key, and says which it is.
fn file(mark: &str, key: usize) -> String {
    format!("# {mark}\nalice namespaces=\"holdfast.order\" {}\n", KEYS[key])
}

fn digest(file: &str) -> String {
    hex::encode(Sha256::digest(file))
}

/// A sentinel whose configured file is called `zero`.
struct Desk {
    root: Root,
    made: u8,
}

impl Desk {
    fn new() -> Self {
        Self { root: Root::new(digest(&file("zero", 0))), made: 0 }
    }

    /// Alice orders this, signing with that key. Returns the digest by which custodians name the order.
    fn order(&mut self, version: u32, previous: &str, wanted: &str, key: usize) -> String {
        self.made += 1;
        let header = Header {
            kind: Kind::Trust,
            id: MessageId::from_bytes([self.made; 16]),
            cluster: ClusterId::from_bytes([1; 16]),
            from: name("alice"),
            issued_at: NOW.after(Duration::from_secs(self.made.into())),
            expires_at: None,
        };
        let trust = Trust { version, previous_sha256: digest(previous), allowed_signers: wanted.to_owned() };
        let content = Content::Trust(trust);
        let body = Body { header: header.clone(), content: content.clone() }.to_json();
        let key = KEYS[key].parse().expect("a key");
        let envelope = Envelope::assemble(&body, &armor_ed25519(&key, "holdfast.order", HashAlg::Sha512, &[0; 64]));
        self.root.hear(&header, &content, &envelope);
        orders::digest(&envelope)
    }

    /// So many custodians judge by this file, and pass these orders on.
    fn follow(&mut self, custodians: u8, version: u32, file: &str, orders: &[&String]) -> u32 {
        let beats: Vec<_> =
            (1..=custodians).map(|i| (name(&format!("custodian-{i}")), beat(version, file, orders))).collect();
        let said: Vec<_> = beats.iter().map(|(custodian, beat)| (custodian, beat)).collect();
        self.root.follow(&said, 3, NOW);
        self.root.in_force().version
    }

    fn asks(&mut self, version: u32, file: &str, orders: &[&String]) -> usize {
        let beat = beat(version, file, orders);
        self.root.ask((&name("custodian-1"), &beat), Steady::default()).map_or(0, |want| want.sha256.len())
    }
}

fn beat(version: u32, file: &str, orders: &[&String]) -> Heartbeat {
    let mut beat = heartbeat(1, &[]);
    (beat.trust_version, beat.allowed_signers_sha256) = (version, digest(file));
    beat.orders = orders.iter().map(|order| (*order).clone()).collect();
    beat
}

#[test]
fn a_file_is_adopted_that_an_operator_signed_and_enough_custodians_judge_by() {
    let mut desk = Desk::new();
    let (zero, one) = (file("zero", 0), file("one", 0));
    assert_eq!(desk.follow(5, 1, &one, &[]), 0, "whatever custodians say: no operator's word for it is here");
    desk.order(1, &zero, &one, 0);
    assert_eq!(desk.follow(2, 1, &one, &[]), 0, "two can be captured");
    assert_eq!(desk.follow(5, 2, &one, &[]), 0, "it is another version that they judge by");
    assert_eq!(desk.follow(5, 1, &file("else", 0), &[]), 0, "or another file");
    assert_eq!(desk.root.poll(), None);
    assert_eq!(desk.follow(3, 1, &one, &[]), 1);
    let kept = TrustRoot { version: 1, configured_sha256: digest(&zero), allowed_signers: one.clone() };
    assert_eq!(desk.root.poll(), Some(Some(kept)));
    assert_eq!(desk.root.in_force(), TrustVersion { version: 1, sha256: digest(&one) });
}

#[test]
fn one_that_replaces_another_file_or_is_none_is_not_adopted() {
    let mut desk = Desk::new();
    let one = file("one", 0);
    desk.order(1, &file("else", 0), &one, 0);
    assert_eq!(desk.follow(5, 1, &one, &[]), 0, "it replaces a file that is not in force here");
    let broken = "alice * everything";
    desk.order(1, &file("zero", 0), broken, 0);
    assert_eq!(desk.follow(5, 1, broken, &[]), 0);
}

#[test]
fn several_that_were_missed_are_adopted_one_after_the_other() {
    let mut desk = Desk::new();
    let (zero, one, two, three) = (file("zero", 0), file("one", 0), file("two", 1), file("three", 0));
    let first = desk.order(1, &zero, &one, 0);
    let second = desk.order(2, &one, &two, 0);
    // Signed with a key that does not count any more by the file before it.
    let third = desk.order(3, &two, &three, 0);
    assert_eq!(desk.follow(2, 3, &three, &[&first, &second, &third]), 0);
    assert_eq!(desk.follow(3, 3, &three, &[&first, &second, &third]), 2);
    assert_eq!(desk.root.poll().flatten().map(|root| root.allowed_signers), Some(two.clone()));
    desk.order(3, &two, &three, 1);
    assert_eq!(desk.follow(3, 3, &three, &[&first, &second]), 3);
}

#[test]
fn what_custodians_went_back_from_is_not_adopted_again() {
    let (zero, one) = (file("zero", 0), file("one", 0));
    let mut desk = Desk::new();
    let first = desk.order(1, &zero, &one, 0);
    let back = desk.order(2, &one, &zero, 0);
    // They went there and back while the sentinel was away, and judge by what it judges by.
    assert_eq!(desk.follow(5, 2, &zero, &[&first, &back]), 0);
    assert_eq!(desk.asks(2, &zero, &[&"unknown".to_owned()]), 0, "and there is nothing to ask for");

    let mut desk = Desk::new();
    desk.order(1, &zero, &one, 0);
    assert_eq!(desk.follow(5, 1, &one, &[]), 1);
    desk.order(2, &one, &zero, 0);
    assert_eq!(desk.follow(5, 2, &zero, &[]), 2);
    // Somebody sends the first again.
    let again = desk.order(1, &zero, &one, 0);
    assert_eq!(desk.follow(5, 3, &file("three", 0), &[&again]), 2);
}

#[test]
fn what_was_missed_is_asked_for_and_what_was_heard_is_not() {
    let mut desk = Desk::new();
    let (zero, one, two) = (file("zero", 0), file("one", 0), file("two", 0));
    let first = desk.order(1, &zero, &one, 0);
    let missed = "ab".repeat(32);
    assert_eq!(desk.asks(0, &one, &[&first, &missed]), 0, "there is no order by which they judge");
    assert_eq!(desk.asks(2, &two, &[&first, &missed]), 1);
    assert_eq!(desk.asks(2, &two, &[&first, &missed]), 0, "once");
    assert_eq!(desk.follow(3, 2, &two, &[&first, &missed]), 1);
    assert_eq!(
        desk.asks(2, &two, &[&first, &missed]),
        1,
        "what was refused before may be good by the file in force now"
    );
}

#[test]
fn what_is_kept_counts_until_the_configured_file_is_replaced() {
    let (zero, one) = (file("zero", 0), file("one", 0));
    let kept =
        |file: &str| TrustRoot { version: 7, configured_sha256: digest(&zero), allowed_signers: file.to_owned() };
    let mut desk = Desk::new();
    desk.root.restore(kept(&one));
    assert_eq!(desk.root.in_force(), TrustVersion { version: 7, sha256: digest(&one) });
    assert_eq!(desk.root.poll(), Some(Some(kept(&one))));
    desk.root.reconfigure(digest(&zero));
    assert_eq!((desk.root.in_force().version, desk.root.poll()), (7, None));
    desk.root.reconfigure(digest(&one));
    assert_eq!(desk.root.in_force(), TrustVersion { version: 0, sha256: digest(&one) });
    assert_eq!(desk.root.poll(), Some(None), "and what was kept is to be forgotten");

    let mut replaced = Root::new(digest(&one));
    replaced.restore(kept(&one));
    assert_eq!((replaced.in_force().version, replaced.poll()), (0, Some(None)));
    let mut damaged = Desk::new();
    damaged.root.restore(kept("damaged"));
    assert_eq!((damaged.root.in_force().version, damaged.root.poll()), (0, Some(None)));
}

#[test]
fn nobody_makes_it_keep_many_files() {
    let mut desk = Desk::new();
    for version in 1..200 {
        desk.order(version, &file("zero", 0), &file(&version.to_string(), 0), 0);
    }
    assert_eq!(desk.root.candidates.len(), FILES_PER_OPERATOR);
    assert_eq!(desk.follow(3, 199, &file("199", 0), &[]), 199, "the latest are kept");
}
