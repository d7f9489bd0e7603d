//! Custodians that tell what is not so, and what a sentinel keeps of those that are gone.

use super::*;

impl World {
    fn beat(&mut self, x: u8) {
        self.message(&format!("custodian-{x}"), Content::Heartbeat(Box::new(heartbeat(x, &[("vault-1", true)]))));
    }

    /// A crash, of which these tell: who, of which share, what came of it, in which attempt.
    fn crash_told(&mut self, told: &[(u8, u8, Submission, &str)]) {
        self.crash();
        self.run(SECOND);
        self.truth.start();
        self.run(SECOND);
        for (from, x, result, nonce) in told {
            let receipt = Receipt { x: *x, nonce: (*nonce).to_owned(), ..self.receipt(Cause::Restart, *result) };
            self.message(&format!("custodian-{from}"), Content::Receipt(receipt));
        }
        self.truth.sealed = false;
        self.run(12 * SECOND);
    }
}

fn named<T>(world: &World, such: impl Fn(CustodianStatus) -> Option<T>) -> Vec<String> {
    let custodians = world.status().custodians.into_iter();
    custodians.filter_map(|(who, known)| such(known).map(|_| who.as_str()["custodian-".len()..].to_owned())).collect()
}

#[test]
fn a_receipt_that_cannot_be_true_beside_the_others_is_told_of_and_one_of_anothers_share_counts_for_nothing() {
    use Submission::{Counted, Failed, Opened};
    let mut world = settled(true);
    (1..=5).for_each(|x| world.beat(x));
    let failed = [(1, 1, Counted, "a"), (2, 2, Counted, "a"), (3, 3, Failed, "a")];
    let opened = [(1, 1, Counted, "b"), (2, 2, Counted, "b"), (4, 4, Opened, "b")];
    let contradicting = |world: &World| named(world, |known| known.receipts_contradict);
    let suspects = |world: &World| named(world, |known| known.share_suspect);

    // With another's share it would only seem to have been in the set that opened.
    let of_another = [(3, 5, Counted, "b")];
    world.crash_told(&[&failed[..], &of_another, &opened].concat());
    assert_eq!((suspects(&world), contradicting(&world)), (vec!["3".to_owned()], Vec::new()));
    assert_eq!(world.status().incidents[0].submissions.len(), 6);

    // With its own it takes the proof away, and that is told of.
    let mut world = settled(true);
    (1..=5).for_each(|x| world.beat(x));
    world.crash_told(&[&failed[..], &[(3, 3, Counted, "b")], &opened].concat());
    assert_eq!(suspects(&world), [""; 0]);
    assert_eq!(contradicting(&world), ["1", "2", "3"]);
    for x in [1, 2, 4] {
        let distrusted = vec![who("custodian-3")];
        let beat = Heartbeat { distrusted, ..heartbeat(x, &[("vault-1", true)]) };
        world.message(&format!("custodian-{x}"), Content::Heartbeat(Box::new(beat)));
    }
    assert_eq!(contradicting(&world), [""; 0], "what it told counts for nothing");

    // Nor does it keep the others' receipts out by many of its own.
    let mut world = settled(true);
    (1..=5).for_each(|x| world.beat(x));
    let many = [(3, 3, Counted, "x"); REPORTS_KEPT];
    world.crash_told(&[&many[..], &failed, &opened].concat());
    assert_eq!(named(&world, |known| known.share_proven), ["1", "2", "4"]);
}

#[test]
fn what_was_counted_of_whom_nobody_watches_any_more_is_forgotten() {
    let mut world = settled(true);
    (1..=5).for_each(|x| world.beat(x));
    let counted = |world: &World| {
        let totals = world.watcher.totals();
        let of: BTreeSet<_> = totals.submissions.keys().map(|(_, who, _)| who.clone()).collect();
        assert_eq!(of, totals.rejected.keys().map(|(who, _)| who.clone()).collect());
        of.len()
    };
    assert_eq!(counted(&world), 5);
    let mut clusters = watch(&["vault-1"], true);
    clusters.get_mut(&CLUSTER).expect("there").custodians.remove(&who("custodian-5"));
    world.watcher.reconfigure(clusters, &BTreeSet::new(), at(world.now));
    assert_eq!(counted(&world), 4);
    world.watcher.reconfigure(BTreeMap::new(), &BTreeSet::new(), at(world.now));
    assert_eq!(counted(&world), 0);
}
