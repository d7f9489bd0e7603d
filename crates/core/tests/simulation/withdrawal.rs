//! Directed worlds: a share that left is in the node only for as long as something permits it.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_core::cause::Cause;
use holdfast_core::custodian::Entry;
use holdfast_core::id::MessageId;
use holdfast_core::message::{Content, Seen};
use holdfast_core::policy::Rule;

use crate::causes::{MS, SOON, alone, power_cut, quiet, story};
use crate::note;
use crate::people::Message;
use crate::vault::Piece;
use crate::world::{Setup, World};

impl World {
    fn held(&self) -> u8 {
        self.vaults[0].status().map_or(0, |status| status.progress)
    }

    #[track_caller]
    fn expect_held(&mut self, shares: u8, within: Duration, why: &str) {
        note!(self, "expects {shares} shares in it: {why}");
        let held = self.until(within.as_millis() as u64, |world| world.held() == shares);
        assert!(held, "{why}: {} shares are in it", self.held());
    }

    /// How often a custodian took out what a node held.
    fn resets(&self, c: usize) -> usize {
        self.hosts[c].audit.iter().filter(|(_, entry)| matches!(entry, Entry::Reset { .. })).count()
    }

    /// Approvals of two operators that live this long.
    fn approve_for(&mut self, life: Duration) {
        for operator in [0, 1] {
            let mut consent = self.consent(operator, 0);
            consent.life = life;
            let (_, bytes) = self.give(&consent);
            self.send_order(&bytes);
        }
    }

    /// A share that somebody brings: its custodian's, or a holder's.
    fn bring(&mut self, c: usize) {
        let piece = Piece { x: self.hosts[c].piece.x, fits: true };
        self.stray(0, Some(piece));
    }

    /// Sealed on purpose, with too few custodians left, on whose shares nobody gives permission yet.
    fn sealed_with(setup: Setup, left: usize) -> Self {
        let mut world = Self::open(setup);
        world.seal_node(0);
        world.run(MS * 2_000);
        (left..world.hosts.len()).for_each(|c| world.kill_custodian(c));
        world
    }
}

#[test]
fn a_share_that_nothing_permits_any_more_is_called_back() {
    story(|| {
        // Two shares are in the node when somebody tells that it had been sealed in place; the reset cannot get through.
        let mut world = World::open(Setup { sentinel: false, ..quiet(1) });
        (2..5).for_each(|c| world.cut(c, 0, true));
        world.run(MS * 1_000);
        let sealed_at = world.wall(0).after(MS * 300);
        world.restart_node(0, MS * 600);
        let two = |world: &World| world.vaults[0].status().is_some_and(|status| status.progress == 2);
        assert!(world.until(SOON, two), "two shares are in it");
        (0..2).for_each(|c| world.cut(c, 0, true));
        world.sentinel_claims(0, Seen::Sealed, Some(Cause::InPlace), sealed_at);
        world.run(MS * 8_000);
        assert!(two(&world), "nobody could take them out");
        (0..2).for_each(|c| world.heal(c, 0));
        let none = |world: &World| world.vaults[0].status().is_some_and(|status| status.progress == 0);
        assert!(world.until(5_000, none), "called back once they could");
        world.expect_shut(MS * 30_000, "a marker");
    });
}

#[test]
fn a_share_is_called_back_when_the_approval_lapses() {
    story(|| {
        for setup in [quiet(1), alone(2), Setup { sentinel: false, ..quiet(3) }] {
            let mut world = World::sealed_with(setup, 2);
            world.approve_for(MS * 60_000);
            world.expect_held(2, MS * 5_000, "two of three needed");
            world.run(MS * 50_000);
            world.expect_held(2, MS * 2_000, "they wait for people while the approvals last");
            world.expect_held(0, MS * 12_000, "the approvals have expired");
            world.run(MS * 5_000);
            world.submissions = 0;
            for _ in 0..20 {
                world.bring(4);
                world.expect_shut(MS * 60_000, "one share more, by whoever stole it");
                assert_eq!((world.held(), world.submissions), (1, 0), "and it is a person's, who may wait for others");
            }
            world.approve_for(MS * 600_000);
            world.expect_open("approved anew, with the one that is there");
        }
    });
}

#[test]
fn a_share_is_called_back_when_the_node_can_be_reached_again() {
    story(|| {
        for reset in [true, false] {
            let mut world = World::sealed_with(alone(1), 2);
            world.approve_for(MS * 60_000);
            world.expect_held(2, MS * 5_000, "two of three needed");
            world.for_all(|world, c| world.cut(c, 0, reset));
            world.run(MS * 200_000);
            assert_eq!(world.held(), 2, "nobody could take them out");
            world.for_all(|world, c| world.heal(c, 0));
            world.expect_held(0, MS * 12_000, "expired meanwhile");

            // A node that hung takes the share only when it wakes up.
            let mut world = World::sealed_with(alone(1), 2);
            world.freeze_node(0);
            world.approve_for(MS * 20_000);
            world.run(MS * 19_000);
            world.thaw_node(0);
            world.run(MS * 20_000);
            world.expect_held(0, MS * 1, "whatever came late");
        }
    });
}

#[test]
fn a_share_is_called_back_when_its_custodian_was_killed_meanwhile() {
    story(|| {
        for setup in [quiet(1), alone(2)] {
            let mut world = World::sealed_with(setup, 2);
            world.approve_for(MS * 60_000);
            world.expect_held(2, MS * 5_000, "two of three needed");
            (0..2).for_each(|c| world.kill_custodian(c));
            world.run(MS * 100_000);
            assert_eq!(world.held(), 2, "nobody is there who could take them out");
            (0..2).for_each(|c| world.start_custodian(c));
            world.expect_held(0, MS * 12_000, "they know that their share left");
            world.run(MS * 10_000);
            let before = [world.resets(0), world.resets(1)];
            (0..2).for_each(|c| world.kill_custodian(c));
            (0..2).for_each(|c| world.start_custodian(c));
            world.bring(4);
            world.expect_shut(MS * 60_000, "nothing is permitted");
            assert_eq!(([world.resets(0), world.resets(1)], world.held()), (before, 1), "nothing of theirs is in it");
        }
    });
}

#[test]
fn a_share_is_called_back_when_the_configuration_permits_it_no_more() {
    story(|| {
        for dismissed in [true, false] {
            let mut world = World::sealed_with(alone(1), 2);
            world.approve_for(MS * 600_000);
            world.expect_held(2, MS * 5_000, "two of three needed");
            for c in 0..2 {
                let cluster = world.cluster;
                let settings = world.hosts[c].settings.clusters.get_mut(&cluster).expect("configured");
                if dismissed {
                    settings.operators = settings.operators.iter().filter(|o| o.as_str() != "bob").cloned().collect();
                } else {
                    settings.policy.in_place = Rule::Hold;
                }
                world.reload(c, &BTreeSet::new());
            }
            world.expect_held(0, MS * 5_000, "people decided otherwise");
        }
    });
}

#[test]
fn a_share_is_called_back_when_a_custodian_lies_that_the_node_was_opened() {
    story(|| {
        let mut world = World::sealed_with(quiet(1), 2);
        world.approve_for(MS * 600_000);
        world.expect_held(2, MS * 5_000, "two of three needed");
        let lie = world.receipt_of_opening(4, 0, None);
        let message = Message {
            id: MessageId::from_bytes([7; 16]),
            cluster: world.cluster,
            content: Content::Receipt(lie),
            issued_at: world.wall(0),
            expires_at: None,
        };
        let bytes = world.people.custodians[4].seal(message);
        (0..2).for_each(|c| assert!(world.hear(c, &bytes), "a custodian's word, and its signature"));
        world.expect_held(0, MS * 12_000, "the approvals are void, and nothing else permits it");
        world.bring(4);
        world.expect_shut(MS * 60_000, "the liar alone");
    });
}

#[test]
fn a_share_is_not_called_back_without_need() {
    story(|| {
        // What people bring without anybody's approval.
        for setup in [quiet(1), alone(2)] {
            let mut world = World::sealed_with(setup, 5);
            world.bring(0);
            world.run(MS * 400_000);
            assert_eq!(world.held(), 1, "it waits for the next holder");
        }
        // The broker is gone for a moment, and with it what makes an outage one.
        let mut world = World::open(quiet(4));
        power_cut(&mut world, MS * 1_000);
        world.broker_up();
        (2..5).for_each(|c| world.kill_custodian(c));
        world.expect_held(2, MS * 30_000, "an outage opens by itself");
        world.broker_down();
        world.run(MS * 5_000);
        assert_eq!(world.held(), 2, "it is back before long");
        // Contact is lost and found while an approval lasts.
        for reset in [true, false] {
            let mut world = World::open(alone(3));
            (2..5).for_each(|c| world.kill_custodian(c));
            world.restart_node(0, MS * 300);
            world.approve_for(MS * 600_000);
            world.expect_held(2, MS * 5_000, "two of three needed");
            let nonce = world.vaults[0].status().map(|status| status.nonce);
            for wait in [100, 3_000, 15_000] {
                world.for_all(|world, c| world.cut(c, 0, reset));
                world.run(MS * wait);
                world.for_all(|world, c| world.heal(c, 0));
                world.run(MS * 10_000);
            }
            let status = world.vaults[0].status().map(|status| (status.progress, status.nonce));
            assert_eq!(status.map(|(held, nonce)| (held, Some(nonce))), Some((2, nonce)), "the same attempt");
        }
    });
}

#[test]
fn who_calls_a_share_back_does_not_hinder_those_who_may_open() {
    story(|| {
        for setup in [quiet(1), alone(2)] {
            let mut world = World::sealed_with(setup, 2);
            world.approve_for(MS * 600_000);
            world.expect_held(2, MS * 5_000, "two of three needed");
            // It knows of no approval any more: it was used by another process.
            world.kill_custodian(0);
            world.start_custodian(0);
            for _ in 0..15 {
                world.run(MS * 1_000);
                world.bring(2);
            }
            let before = world.resets(0);
            assert!(before > 0, "its share was called back");
            for _ in 0..60 {
                world.run(MS * 1_000);
                world.bring(2);
            }
            assert_eq!(world.resets(0), before, "and it lets the others be");
            world.expect_held(2, MS * 1, "one who may, and a holder, who is waited for");
            world.bring(3);
            assert!(world.until(2_000, World::all_open), "and another holder");
        }
    });
}
