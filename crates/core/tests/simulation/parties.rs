//! Directed worlds: whose word counts. Captured parties and stolen keys are shut out by the operators' quorum, changes of the trust root
//! reach everybody in order, and nobody among the custodians keeps an order from the others, or makes one.

use holdfast_core::cause::Cause;
use holdfast_core::id::MessageId;
use holdfast_core::message::{Content, Distrust, Effect, Hold, Seen};
use holdfast_core::trust::AllowedSigners;

use crate::causes::{MS, SOON, alone, quiet, story};
use crate::operators::ANOTHER_KEY;
use crate::orders::{PASSED_ON, generous};
use crate::people::{Message, Person, RESTRICTOR};
use crate::world::{Setup, World};

#[test]
fn a_distrusted_partys_markers_keep_nothing_shut() {
    story(|| {
        for by_sentinel in [true, false] {
            let mut world = World::open(Setup { sentinel: false, ..generous(quiet(1)) });
            let liar =
                if by_sentinel { world.people.sentinel.name.clone() } else { world.people.custodians[4].name.clone() };
            let lie = |world: &mut World| {
                let at = world.wall(0).after(MS * 50);
                if by_sentinel {
                    world.sentinel_claims(0, Seen::Sealed, Some(Cause::InPlace), at);
                } else {
                    world.kill_custodian(4);
                    let node = world.names[0].clone();
                    let seen = holdfast_core::message::Sighting {
                        node,
                        seen: Seen::Sealed,
                        cause: Some(Cause::InPlace),
                        seen_at: at,
                    };
                    world.claim(4, Content::Sighting(seen));
                }
            };
            world.kill_node(0);
            world.run(MS * 300);
            lie(&mut world);
            world.run(MS * 200);
            world.start_node(0);
            world.expect_shut(MS * 10_000, "somebody says that it was sealed in place");
            world.distrust_by(&[0], &liar, false);
            world.distrust_by(&[0], &liar, false);
            world.expect_shut(MS * 10_000, "one operator");
            world.distrust_by(&[1], &liar, false);
            world.expect_open("two operators: it was a restart");
            world.run(MS * 3_000);
            for _ in 0..2 {
                world.kill_node(0);
                world.run(MS * 300);
                lie(&mut world);
                world.replay_everything();
                world.run(MS * 200);
                world.start_node(0);
                if by_sentinel {
                    world.expect_open("nobody listens to it");
                } else {
                    assert!(world.until(SOON, World::all_open), "nobody listens to it");
                }
                world.run(MS * 3_000);
            }
            // What custodians see with their own eyes stays.
            world.seal_node(0);
            world.run(MS * 2_000);
            world.restart_node(0, MS * 300);
            world.expect_shut(MS * 10_000, "really sealed in place");
            world.approve_by(0..2);
            assert!(world.until(SOON, World::all_open));
            world.run(MS * 3_000);
            world.distrust_by(&[1, 2], &liar, true);
            world.run(MS * 1_000);
            world.replay_everything();
            world.kill_node(0);
            world.run(MS * 300);
            lie(&mut world);
            world.run(MS * 200);
            world.start_node(0);
            world.expect_shut(MS * 10_000, "its word counts again");
        }
    });
}

#[test]
fn nobody_can_be_distrusted_who_is_no_peer() {
    story(|| {
        let mut world = World::open(quiet(1));
        for name in ["alice", "oscar", "nobody-here"] {
            let principal: holdfast_core::id::Principal = name.parse().expect("a name");
            let order = world.order(1, Content::Distrust(Distrust { principal: principal.clone(), lift: false }));
            world.order(2, Content::Distrust(Distrust { principal, lift: false }));
            world.run(MS * 500);
            assert!(world.said(order).iter().all(|said| matches!(said, Some(Effect::Inapplicable { .. }))));
        }
        let hold = world.hold_nodes(0, &[]);
        world.expect_said(hold, &Effect::InForce {});
    });
}

#[test]
fn a_changed_trust_root_is_in_force_when_two_have_signed_it() {
    story(|| {
        for setup in [quiet(1), alone(2)] {
            let mut world = World::open(generous(setup));
            let configured = world.people.trust().digest();
            let order = World::trust_order(1, &configured, world.another_file(ANOTHER_KEY));
            world.seal_node(0);
            world.run(MS * 2_000);
            world.approve(0, 0);
            world.order(1, order.clone());
            world.order(1, order.clone());
            world.run(MS * 1_000);
            world.expect_trust(0, 1, "one operator");
            world.order(2, order.clone());
            world.expect_trust(1, 1_000, "two operators");
            let stolen = world.people.operators[0].clone();
            world.approve(1, 0);
            world.expect_shut(MS * 5_000, "what the old key approved is void");
            world.approve(0, 0);
            world.hold_nodes(0, &[]);
            world.run(MS * 1_000);
            world.expect_free(1, "the old key orders nothing any more");
            world.expect_shut(MS * 5_000, "nor approves");
            world.restart_custodians(0..5);
            world.run(MS * 3_000);
            world.replay_everything();
            world.expect_trust(1, 1, "it lasts, and nothing of before comes back");
            world.expect_free(1, "no hold by the old key");
            world.people.operators[0] = Person::new("alice", ANOTHER_KEY);
            world.approve_by(0..2);
            world.expect_open("the new key counts");

            // Stale ones, and ones after which nobody could order anything.
            let file = world.another_file(ANOTHER_KEY);
            let in_force = AllowedSigners::parse(&file).expect("sound").digest();
            let mut locked_out = world.people.operators.clone();
            locked_out.truncate(1);
            let locked_out = world.people.file(&locked_out);
            let another = world.another_file(ANOTHER_KEY + 1);
            for (version, previous, file) in [
                (1, in_force, another.clone()),
                (0, in_force, another.clone()),
                (2, configured, another.clone()),
                (2, in_force, locked_out),
                (2, in_force, "not a file".to_owned()),
            ] {
                let order = World::trust_order(version, &previous, file);
                let ids: Vec<_> = [1, 2].map(|operator| world.order(operator, order.clone())).into();
                world.run(MS * 500);
                for id in ids {
                    assert!(world.said(id).iter().all(|said| matches!(said, Some(Effect::Inapplicable { .. }))));
                }
                world.expect_trust(1, 1, "refused");
            }
            world.order(0, World::trust_order(2, &in_force, another.clone()));
            world.people.operators[0] = stolen;
            world.order(0, World::trust_order(2, &in_force, another));
            world.run(MS * 500);
            world.expect_trust(1, 1, "one operator, and a key that counts for nothing");
        }
    });
}

#[test]
fn who_slept_through_changes_of_the_trust_root_learns_them_in_order() {
    story(|| {
        for seed in 1..=3 {
            let mut world = World::open(generous(quiet(seed)));
            world.kill_custodian(4);
            let ended = world.hold_nodes(0, &[]);
            world.run(MS * 500);
            world.release_by(&[0, 1], ended);
            world.run(MS * 500);
            let mut previous = world.people.trust().digest();
            for version in 1..=3 {
                let key = ANOTHER_KEY + version as u8 - 1;
                let file = world.another_file(key);
                let order = World::trust_order(version, &previous, file.clone());
                previous = AllowedSigners::parse(&file).expect("sound").digest();
                for operator in [0, 1] {
                    world.order(operator, order.clone());
                }
                world.run(MS * 1_000);
                world.expect_trust(version, 1, "those that are awake");
                world.people.operators[0] = Person::new("alice", key);
            }
            let hold = world.hold_nodes(0, &[]);
            world.run(MS * 100_000);
            // Its queue was emptied meanwhile: all that it hears it hears from the others.
            world.post.empty_orders(4);
            world.start_custodian(4);
            world.expect_trust(3, PASSED_ON, "one after the other");
            world.expect_obeyed(PASSED_ON, "and the hold by the newest key");
            world.release_by(&[0, 2], hold);
            world.expect_free(1_000, "nothing else is left");
        }
    });
}

// Captured custodians.

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
        world.expect_open("approved by their own road");
    });
}

#[test]
fn a_restrictor_shuts_and_never_opens() {
    story(|| {
        let mut world = World::open(generous(quiet(1)));
        let everybody = [0, 1, RESTRICTOR];
        world.seal_node(0);
        world.run(MS * 2_000);
        world.approve_by([0, RESTRICTOR, RESTRICTOR]);
        world.expect_shut(MS * 10_000, "one operator, and one whose consent is nothing");
        let hold = world.hold_nodes(RESTRICTOR, &[0]);
        world.expect_obeyed(1_000, "its hold is obeyed");
        world.expect_said(hold, &Effect::InForce {});
        world.approve_by([0, 1]);
        world.expect_shut(MS * 10_000, "and outranks approvals");
        world.release_by(&[0, RESTRICTOR, RESTRICTOR], hold);
        world.expect_shut(MS * 10_000, "it does not end its own");
        world.release_by(&[1], hold);
        world.expect_free(1_000, "two operators do");
        world.approve_by([0, 1]);
        world.expect_open("released and approved");

        let sentinel = world.people.sentinel.name.clone();
        world.distrust_by(&[0, RESTRICTOR], &sentinel, false);
        let replaced = world.people.trust().digest();
        let file = world.another_file(ANOTHER_KEY);
        for operator in [0, RESTRICTOR] {
            world.order(operator, World::trust_order(1, &replaced, file.clone()));
        }
        world.run(MS * 3_000);
        // That nobody is deaf to the sentinel, and nobody's trust root another, the oracle sees in each heartbeat.
        world.expect_trust(0, 1, "a restrictor is no second operator");
        world.restart_custodians(0..5);
        world.run(MS * 3_000);
        let again = world.hold_nodes(RESTRICTOR, &[]);
        world.expect_obeyed(1_000, "it holds again");
        world.restart_node(0, MS * 300);
        world.expect_shut(MS * 10_000, "crashed under it");
        world.release_by(&everybody, again);
        world.expect_open("two of these three are operators; their restart made no cause unknown");
    });
}
