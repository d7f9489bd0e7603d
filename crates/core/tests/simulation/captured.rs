//! Directed worlds: what captured operators and custodians make of orders, and what they cannot.

use holdfast_core::id::MessageId;
use holdfast_core::message::{Content, Effect, Hold, Release};

use crate::causes::{MS, quiet, story};
use crate::orders::{PASSED_ON, generous};
use crate::people::{Message, Person};
use crate::world::{Setup, World};

#[test]
fn a_captured_operator_cannot_put_another_hold_in_the_place_of_one() {
    story(|| {
        for first in [true, false] {
            let mut world = World::open(Setup { nodes: 2, ..generous(quiet(1)) });
            let id = MessageId::from_bytes([7; 16]);
            let (all, other) = (Vec::new(), vec![world.names[1].clone()]);
            // carol has seen alice's hold and is faster at some; hers has the same id and says something harmless.
            let harmless = world.order_with(2, Content::Hold(Hold { nodes: other, reason: None }), 0, id);
            let meant = world.order_with(0, Content::Hold(Hold { nodes: all, reason: None }), 0, id);
            for c in 0..5 {
                let both = if first { [&harmless, &meant] } else { [&meant, &harmless] };
                both.iter().for_each(|bytes| {
                    world.hear(c, bytes);
                });
            }
            world.run(MS * 500);
            world.expect_obeyed(1, "the hold that was meant");
            world.release_by(&[0, 1], id);
            world.expect_free(1_000, "and it is ended for itself");
            world.for_all(|world, c| {
                assert!(!world.hear(c, &meant));
                assert!(world.obeys_hold(c, 1), "the other one is not ended with it");
            });
        }
    });
}

#[test]
fn a_captured_operator_can_hold_and_neither_silence_nor_release() {
    story(|| {
        let mut world = World::open(generous(quiet(1)));
        let names: Vec<_> = (0..64).map(|i| format!("{:0>60}-{i:02}", "x").parse().expect("a name")).collect();
        for round in 0..30 {
            let mut nodes: Vec<holdfast_core::id::NodeName> = names.clone();
            nodes[0] = world.names[0].clone();
            let reason = Some("r".repeat(200));
            world.order(2, Content::Hold(Hold { nodes, reason }));
            world.run(MS * if round % 10 == 9 { 2_000 } else { 20 });
        }
        world.run(MS * 15_000);
        world.expect_obeyed(1, "held");
        let honest = world.hold_nodes(0, &[]);
        world.expect_said(honest, &Effect::InForce {});
        for voice in 0..40 {
            let release = Release {
                hold: MessageId::from_bytes([voice; 16]),
                by: "alice".parse().expect("a name"),
                held_at: world.wall(0),
                nodes: Vec::new(),
            };
            world.order(2, Content::Release(release));
        }
        world.run(MS * 1_000);
        let held: Vec<_> = world
            .oracle
            .ordered
            .iter()
            .filter(|(_, o)| matches!(o.content, Content::Hold(_)))
            .map(|((id, _), _)| *id)
            .collect();
        for hold in held {
            world.release_by(&[0, 1], hold);
            world.run(MS * 20);
        }
        world.expect_free(5_000, "two others end them all");
        world.restart_node(0, MS * 300);
        world.expect_open("and it opens");
    });
}

#[test]
fn a_liar_among_custodians_keeps_no_hold_and_no_release_from_the_others() {
    story(|| {
        for seed in 1..=2 {
            let mut world = World::open(Setup { sentinel: false, ..generous(quiet(seed)) });
            world.hosts[0].withholds = true;
            // 0 lies, 1 is told by hand, and the others hear of it through nobody else.
            let hold = Content::Hold(Hold { nodes: Vec::new(), reason: None });
            let (id, bytes) = world.order_at(0, hold, 0);
            world.hear(0, &bytes);
            world.hear(1, &bytes);
            let lie = |world: &mut World, times: usize| {
                for round in 0..times {
                    // What it names it does not send, and most of it nobody has.
                    let mut digests = world.named_by(1);
                    digests.extend((0..100).map(|_| hex::encode(world.dice.bytes::<32>())));
                    world.claim_digests(0, digests);
                    if round % 20 == 0 {
                        world.want_all(0);
                    }
                    world.run(MS * 50);
                }
            };
            lie(&mut world, 60);
            world.expect_obeyed(PASSED_ON, "a hold reaches all");
            for operator in [0, 1] {
                let end = world.end_of(id);
                let (_, voice) = world.order_at(operator, end, 0);
                world.hear(0, &voice);
                world.hear(1, &voice);
            }
            lie(&mut world, 60);
            world.expect_free(PASSED_ON, "and so does its release");
            world.relay_unasked(0, &bytes);
            lie(&mut world, 30);
            world.expect_free(1, "old holds sent unasked");
            world.restart_node(0, MS * 300);
            world.expect_open("a crashed node opens");
        }
    });
}

#[test]
fn two_liars_that_take_turns_keep_no_hold_from_the_others() {
    story(|| {
        let mut world = World::open(Setup { sentinel: false, ..quiet(1) });
        [0, 1].iter().for_each(|c| world.hosts[*c].withholds = true);
        let (_, bytes) = world.order_at(0, Content::Hold(Hold { nodes: Vec::new(), reason: None }), 0);
        for c in 0..3 {
            world.hear(c, &bytes);
        }
        for round in 0..400 {
            let digests = world.named_by(2);
            world.claim_digests(round % 2, digests);
            world.run(MS * 250);
        }
        world.expect_obeyed(1, "three shares would have opened it");
    });
}

#[test]
fn a_relay_carries_nothing_but_operators_orders() {
    story(|| {
        let mut world = World::open(generous(quiet(1)));
        world.seal_node(0);
        world.run(MS * 2_000);
        let approvals: Vec<_> = [0, 1].map(|operator| world.give(&world.consent(operator, 0)).1).into();
        for bytes in &approvals {
            world.relay_unasked(4, bytes);
        }
        world.expect_shut(MS * 10_000, "an approval has a road of its own");
        let hold = Hold { nodes: Vec::new(), reason: None };
        let cluster = world.cluster;
        let forged = |by: &Person, id: u8, issued_at| {
            let content = Content::Hold(hold.clone());
            by.seal(Message { id: MessageId::from_bytes([id; 16]), cluster, content, issued_at, expires_at: None })
        };
        let now = world.wall(0);
        let by = [world.people.stranger.clone(), world.people.outsider.clone(), world.people.custodians[4].clone()];
        for (id, by) in by.iter().enumerate() {
            let bytes = forged(by, id as u8, now);
            world.relay_unasked(4, &bytes);
            world.for_all(|world, c| assert!(!world.hear(c, &bytes), "not an operator"));
        }
        world.run(MS * 1_000);
        world.expect_free(1, "nobody but operators orders anything");
        let overheard: Vec<_> = world.post.overheard.iter().rev().take(20).cloned().collect();
        for bytes in overheard {
            world.relay_unasked(4, &bytes);
        }
        world.run(MS * 5_000);
        // They were not used up by it.
        approvals.iter().for_each(|bytes| world.send_order(bytes));
        world.run(MS * 500);
        world.approve_by(0..2);
        world.expect_open("approved by their own road");
    });
}
