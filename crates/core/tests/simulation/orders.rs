//! Directed worlds: what operators order is obeyed by all, however late and by whatever way they hear of it, until enough
//! operators end it; and nobody else can order anything.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_core::cause::Cause;
use holdfast_core::id::MessageId;
use holdfast_core::message::{Content, Effect, Hold, Release};
use holdfast_core::policy::Policy;
use holdfast_core::trust::AllowedSigners;

use crate::causes::{MS, SOON, alone, power_cut, quiet, story};
use crate::note;
use crate::operators::ANOTHER_KEY;
use crate::people::Person;
use crate::world::{Setup, World};

/// How long an operator's voice waits for others'.
pub(crate) const LAPSE: Duration = Duration::from_secs(15 * 60);

/// How long orders take at most to reach a custodian by way of others, when one of them keeps them to itself.
pub(crate) const PASSED_ON: u64 = 60_000;

impl World {
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|c| self.hosts[*c].running.is_some()).collect()
    }

    #[track_caller]
    pub(crate) fn expect_obeyed(&mut self, within_ms: u64, why: &str) {
        note!(self, "expects all to obey a hold: {why}");
        let all = |world: &World| world.running().into_iter().all(|c| world.obeys_hold(c, 0));
        assert!(self.until(within_ms, all), "{why}");
    }

    #[track_caller]
    pub(crate) fn expect_free(&mut self, within_ms: u64, why: &str) {
        note!(self, "expects that nobody obeys a hold: {why}");
        let all = |world: &World| world.running().into_iter().all(|c| !world.obeys_hold(c, 0));
        assert!(self.until(within_ms, all), "{why}");
    }

    #[track_caller]
    pub(crate) fn expect_trust(&mut self, version: u32, within_ms: u64, why: &str) {
        note!(self, "expects trust root {version}: {why}");
        let cluster = self.cluster;
        let is = |world: &World| {
            let versions = world.running().into_iter().filter_map(|c| world.state_of(c));
            versions.into_iter().all(|state| state.orders[&cluster].trust_version() == version)
        };
        assert!(self.until(within_ms, is), "{why}");
    }

    pub(crate) fn restart_custodians(&mut self, which: impl IntoIterator<Item = usize>) {
        for c in which {
            self.kill_custodian(c);
            self.start_custodian(c);
        }
    }

    /// Everything that operators ever ordered is sent again to everybody, also what custodians said lately.
    pub(crate) fn replay_everything(&mut self) {
        let orders: Vec<_> = self.oracle.ordered.values().map(|ordered| ordered.bytes.clone()).collect();
        let overheard: Vec<_> = self.post.overheard.iter().cloned().collect();
        for bytes in orders.into_iter().chain(overheard) {
            for c in self.running() {
                self.hear(c, &bytes);
            }
        }
        self.run(MS * 200);
    }

    /// What each running custodian said to an order.
    pub(crate) fn said(&self, order: MessageId) -> Vec<Option<Effect>> {
        let said = |c: usize| self.hosts[c].acknowledged.get(&order).map(|(effect, _)| effect.clone());
        self.running().into_iter().map(said).collect()
    }

    #[track_caller]
    pub(crate) fn expect_said(&mut self, order: MessageId, effect: &Effect) {
        let said = |world: &World| world.said(order).iter().all(|said| said.as_ref() == Some(effect));
        assert!(self.until(1_000, said), "{effect:?} expected, {:?} said", self.said(order));
    }

    /// Custodians that hear nothing but what is handed to them: they are away from the broker.
    pub(crate) fn deaf(&mut self, which: &[usize]) {
        which.iter().for_each(|c| self.broker_disconnect(*c));
    }
}

/// A budget that no test spends.
pub(crate) fn generous(setup: Setup) -> Setup {
    Setup { policy: Policy { unseals_per_hour: 1_000, ..setup.policy.clone() }, ..setup }
}

// What a hold does.

#[test]
fn a_held_node_that_crashes_stays_shut_until_two_release_it() {
    story(|| {
        for setup in [quiet(1), alone(2), Setup { sentinel: false, ..quiet(3) }, Setup { nodes: 2, ..quiet(4) }] {
            for cluster in [true, false] {
                let mut world = World::open(generous(setup.clone()));
                let hold = world.hold_nodes(0, if cluster { &[] } else { &[0] });
                world.expect_obeyed(1_000, "ordered");
                world.expect_said(hold, &Effect::InForce {});
                world.submissions = 0;
                world.restart_node(0, MS * 300);
                world.expect_shut(MS * 30_000, "crashed under a hold");
                world.approve_by(0..3);
                world.expect_shut(MS * 10_000, "approvals do not outrank a hold");
                assert_eq!(world.submissions, 0, "no share left");
                world.restart_custodians([0, 1]);
                world.expect_shut(MS * 10_000, "two custodians were restarted");
                world.release_by(&[1], hold);
                world.expect_shut(MS * 10_000, "one release");
                world.release_by(&[1], hold);
                world.expect_shut(MS * 10_000, "the same operator twice");
                world.release_by(&[2], hold);
                world.expect_open("two releases, and it was a restart");
                world.run(MS * 3_000);
                world.replay_everything();
                world.restart_custodians(0..5);
                world.run(MS * 3_000);
                world.replay_everything();
                world.expect_free(1, "nothing of it comes back");
                world.restart_node(0, MS * 300);
                world.expect_open("released is released");
            }
        }
    });
}

#[test]
fn a_hold_on_one_node_leaves_the_other_alone() {
    story(|| {
        let mut world = World::open(Setup { nodes: 2, ..quiet(1) });
        let hold = world.hold_nodes(0, &[0]);
        world.expect_obeyed(1_000, "ordered");
        world.kill_node(1);
        world.restart_node(0, MS * 300);
        world.start_node(1);
        assert!(world.until(SOON, |world| world.vaults[1].is_open()), "the other one crashed, and opens");
        world.expect_shut(MS * 10_000, "the held one");
        world.release_by(&[0, 1], hold);
        world.expect_open("released by who ordered it and another");
    });
}

#[test]
fn each_hold_is_ended_for_itself() {
    story(|| {
        let mut world = World::open(quiet(1));
        let holds = [world.hold_nodes(0, &[0]), world.hold_nodes(1, &[])];
        world.expect_obeyed(1_000, "ordered");
        world.restart_node(0, MS * 300);
        world.release_by(&[0, 1], holds[0]);
        world.expect_shut(MS * 10_000, "the other hold stands");
        world.release_by(&[0], holds[1]);
        world.expect_shut(MS * 10_000, "voices for one do not count for the other");
        world.release_by(&[1], holds[1]);
        world.expect_open("both are released");
    });
}

#[test]
fn a_custodian_that_slept_through_a_hold_obeys_it_when_it_comes_back() {
    story(|| {
        for (by_queue, rebooted) in [(true, false), (false, false), (true, true), (false, true)] {
            // Three are enough to open it, and three slept.
            let mut world = World::open(Setup { sentinel: false, ..generous(quiet(1)) });
            (2..5).for_each(|c| if rebooted { world.reboot_host(c) } else { world.kill_custodian(c) });
            if by_queue {
                world.hold_nodes(0, &[]);
            } else {
                let hold = Content::Hold(Hold { nodes: Vec::new(), reason: None });
                let (_, bytes) = world.order_at(0, hold, 0);
                assert!(world.hear(0, &bytes), "delivered to one alone, by hand");
            }
            world.run(MS * 100_000);
            world.restart_node(0, MS * 300);
            world.expect_shut(MS * 5_000, "two are left, and obey");
            (2..5).for_each(|c| world.start_custodian(c));
            world.expect_shut(MS * 60_000, "the others are back");
            world.expect_obeyed(1, "and were told");
            world.approve(0, 0);
            world.expect_shut(MS * 10_000, "of a cause that they do not know, but held");
            let (hold, _) = *world.oracle.ordered.keys().next().expect("one");
            world.release_by(&[0], hold);
            world.expect_shut(MS * 5_000, "one release");
            world.release_by(&[1], hold);
            world.expect_free(2_000, "two");
            world.approve_by(0..2);
            world.expect_open("and approved anew");
        }
    });
}

#[test]
fn a_hold_is_heard_of_before_a_power_cut_is_believed() {
    story(|| {
        for seed in 1..=12 {
            let mut world = World::open(Setup { sentinel: false, ..quiet(seed) });
            // One alone was told, and it can tell the others only when all are back.
            let hold = Content::Hold(Hold { nodes: Vec::new(), reason: None });
            let (_, bytes) = world.order_at(0, hold, 0);
            world.broker_down();
            world.hear(4, &bytes);
            world.run(MS * 1_000);
            power_cut(&mut world, MS * 20_000);
            world.broker_up();
            world.expect_shut(MS * 60_000, "the others hear of the hold in time");
            world.expect_obeyed(1, "all of them");
        }
    });
}

#[test]
fn a_release_reaches_who_slept_through_it_and_nothing_revives_the_hold() {
    story(|| {
        for setup in [quiet(1), Setup { sentinel: false, ..quiet(2) }] {
            let mut world = World::open(generous(setup));
            let hold = world.hold_nodes(0, &[]);
            world.expect_obeyed(1_000, "ordered");
            // Two do not hear of the releases: somebody deleted them from their queues.
            world.deaf(&[3, 4]);
            let voices: Vec<_> = [0, 1]
                .map(|operator| {
                    let end = world.end_of(hold);
                    world.order_at(operator, end, 0).1
                })
                .into();
            voices.iter().for_each(|bytes| {
                (0..3).for_each(|c| {
                    world.hear(c, bytes);
                })
            });
            (0..3).for_each(|c| assert!(!world.obeys_hold(c, 0)));
            world.run(MS * 30_000);
            (3..5).for_each(|c| assert!(world.obeys_hold(c, 0), "it has heard nothing yet"));
            world.broker_down();
            world.broker_up();
            world.expect_free(PASSED_ON, "told by the others");
            world.restart_custodians(0..5);
            world.run(MS * 40_000);
            world.replay_everything();
            world.expect_free(1, "nobody re-infects anybody");
            world.restart_node(0, MS * 300);
            world.expect_open("released everywhere");
        }
    });
}

#[test]
fn a_release_that_comes_before_its_hold_counts() {
    story(|| {
        let mut world = World::open(quiet(1));
        world.deaf(&[0]);
        let (id, bytes) = world.order_at(0, Content::Hold(Hold { nodes: Vec::new(), reason: None }), 0);
        let end = world.end_of(id);
        for operator in [1, 2] {
            let (_, voice) = world.order_at(operator, end.clone(), 0);
            assert!(world.hear(0, &voice));
        }
        assert!(!world.hear(0, &bytes), "ended before it came");
        world.restart_custodians([0]);
        assert!(!world.hear(0, &bytes), "also for another process");
        assert!(!world.obeys_hold(0, 0));
    });
}

// What it takes to end one.

#[test]
fn voices_that_lapsed_or_are_backdated_end_nothing() {
    story(|| {
        for restarted in [false, true] {
            let mut world = World::open(quiet(1));
            let hold = world.hold_nodes(0, &[]);
            world.run(MS * 1_000);
            world.release_by(&[0], hold);
            world.run(MS * 1_000);
            if restarted {
                world.restart_custodians(0..5);
            }
            world.wait_by_the_clock(LAPSE + MS * 60_000);
            // Somebody has carol's key, and dates her voice to the first one's time.
            let end = world.end_of(hold);
            let (_, bytes) = world.order_at(2, end, -(LAPSE.as_millis() as i64) - 60_000);
            world.send_order(&bytes);
            world.run(MS * 1_000);
            world.expect_obeyed(1, "backdated: the one that it would go with has lapsed");
            world.release_by(&[1], hold);
            world.run(MS * 1_000);
            world.expect_obeyed(1, "the first has lapsed, and the other was signed too long before");
            world.replay_everything();
            world.expect_obeyed(1, "and does not come back");
            world.release_by(&[0], hold);
            world.expect_free(1_000, "the first says so anew, with one that stands");
        }
    });
}

#[test]
fn a_clock_that_is_set_back_makes_no_voice_last_longer() {
    story(|| {
        for restarted in [false, true] {
            let mut world = World::open(quiet(1));
            let hold = world.hold_nodes(0, &[]);
            world.run(MS * 1_000);
            world.release_by(&[0], hold);
            world.run(MS * 2_000);
            world.for_all(|world, c| world.hosts[c].offset = -1_200_000);
            world.run(LAPSE + MS * 60_000);
            if restarted {
                world.restart_custodians(0..5);
            }
            let end = world.end_of(hold);
            let (_, bytes) = world.order_at(2, end, -1_200_000);
            world.send_order(&bytes);
            world.run(MS * 5_000);
            world.expect_obeyed(1, "a stolen key, and clocks that were set back");
            world.for_all(|world, c| world.hosts[c].offset = 0);
            world.run(MS * 2_000);
            world.release_by(&[0, 1], hold);
            world.expect_free(1_000, "with the right time again");
        }
    });
}

#[test]
fn two_keys_of_one_principal_are_one_operator() {
    story(|| {
        let mut world = World::open(quiet(1));
        let second = Person::new("alice", ANOTHER_KEY);
        let mut operators = world.people.operators.clone();
        operators.push(second.clone());
        let file = world.people.file(&operators);
        world.oracle.configured_keys[0].push(ANOTHER_KEY);
        world.for_all(|world, c| {
            world.hosts[c].settings.allowed_signers = AllowedSigners::parse(&file).expect("a sound file");
            world.reload(c, &BTreeSet::new());
        });
        world.run(MS * 2_000);
        world.seal_node(0);
        world.run(MS * 2_000);
        let first = world.people.operators[0].clone();
        for key in [&first, &second] {
            world.people.operators[0] = key.clone();
            world.approve(0, 0);
            let hold = world.hold_nodes(0, &[]);
            world.run(MS * 500);
            for key in [&first, &second] {
                world.people.operators[0] = key.clone();
                world.release_by(&[0], hold);
            }
            world.run(MS * 500);
            world.expect_obeyed(1, "both releases are hers");
            world.release_by(&[1], hold);
            world.expect_free(1_000, "and another's");
            world.approve(0, 0);
            world.expect_shut(MS * 5_000, "approved by her, with one key or the other");
        }
        for key in [&first, &second] {
            world.people.operators[0] = key.clone();
            world.approve(0, 0);
        }
        world.expect_shut(MS * 10_000, "both approvals are hers");
        world.approve(1, 0);
        world.expect_open("and another's");
    });
}

#[test]
fn a_release_of_another_hold_than_was_read_of_ends_nothing() {
    story(|| {
        let mut world = World::open(Setup { nodes: 2, ..quiet(1) });
        let hold = world.hold_nodes(0, &[]);
        world.run(MS * 500);
        let Content::Release(honest) = world.end_of(hold) else { panic!("a release") };
        let twisted = [
            Release { nodes: vec![world.names[0].clone()], ..honest.clone() },
            Release { by: "bob".parse().expect("a name"), ..honest.clone() },
            Release { held_at: honest.held_at.after(MS), ..honest.clone() },
        ];
        for release in twisted {
            for operator in [1, 2] {
                world.order(operator, Content::Release(release.clone()));
            }
        }
        world.run(MS * 1_000);
        world.expect_obeyed(1, "it says something else than the hold");
        world.release_by(&[1, 2], hold);
        world.expect_free(1_000, "it says the same");
    });
}

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

// Holds and approvals.

#[test]
fn approvals_do_not_survive_a_hold() {
    story(|| {
        for setup in [quiet(1), alone(2)] {
            let mut world = World::open(setup);
            world.seal_node(0);
            world.run(MS * 2_000);
            world.approve(0, 0);
            let late = world.give(&world.consent(1, 0)).1;
            world.run(MS * 1_000);
            let hold = world.hold_nodes(2, &[0]);
            world.run(MS * 1_000);
            let refused = world.approve(1, 0);
            world.expect_shut(MS * 5_000, "one approval before the hold, one after it");
            assert!(
                world.said(refused).iter().all(|said| matches!(said, Some(Effect::Inapplicable { .. }))),
                "and it is said"
            );
            world.release_by(&[0, 1], hold);
            world.expect_free(1_000, "released");
            world.expect_shut(MS * 10_000, "what was approved before and meanwhile is void");
            world.approve(2, 0);
            world.send_order(&late);
            world.expect_shut(MS * 10_000, "given before the hold, and come after its end");
            world.replay_everything();
            world.approve(0, 0);
            world.expect_open("approved anew");
        }
    });
}

/// More approvals than are kept of one node. How many are remembered of one operator, `admission` tests.
const MANY: usize = 70;

#[test]
fn one_operators_many_approvals_are_one_voice_and_take_nobody_elses_room() {
    story(|| {
        let mut world = World::open(quiet(1));
        world.seal_node(0);
        world.run(MS * 2_000);
        for _ in 0..MANY {
            world.approve(0, 0);
        }
        world.run(MS * 2_000);
        world.expect_shut(MS * 5_000, "however often one operator says so");
        world.restart_custodians(0..5);
        world.run(MS * 2_000);
        world.expect_shut(MS * 5_000, "nor after a restart");
        world.approve(1, 0);
        world.expect_open("another's counts, with the latest of hers");
    });
}

#[test]
fn the_approval_opens_it_once_and_published_again_does_nothing() {
    story(|| {
        let mut world = World::open(generous(quiet(1)));
        world.seal_node(0);
        world.run(MS * 2_000);
        let envelopes: Vec<_> = [0, 1].map(|operator| world.give(&world.consent(operator, 0)).1).into();
        envelopes.iter().for_each(|bytes| world.send_order(bytes));
        world.expect_open("two approvals");
        world.run(MS * 2_000);
        for restarted in [false, true] {
            world.seal_node(0);
            world.run(MS * 2_000);
            if restarted {
                world.restart_custodians(0..5);
                world.run(MS * 2_000);
            }
            envelopes.iter().for_each(|bytes| world.send_order(bytes));
            world.expect_shut(MS * 20_000, "the same envelopes");
            world.approve_by(0..2);
            world.expect_open("new ones");
            world.run(MS * 2_000);
        }
    });
}

// Shares that are on their way.

#[test]
fn a_share_in_flight_when_the_hold_comes_is_called_back() {
    story(|| {
        for (seed, sentinel) in [(1, true), (2, false), (3, true)] {
            let mut world = World::open(Setup { sentinel, ..quiet(seed) });
            (2..5).for_each(|c| world.kill_custodian(c));
            world.restart_node(0, MS * 300);
            let holds = |world: &World| world.vaults[0].status().map_or(0, |status| status.progress);
            assert!(world.until(SOON, |world| holds(world) == 2), "two of three shares are in it");
            let hold = world.hold_nodes(0, &[]);
            assert!(world.until(8_000, |world| holds(world) == 0), "called back");
            for c in [0, 1] {
                let (_, in_flight) = &world.hosts[c].acknowledged[&hold];
                assert_eq!(*in_flight, world.names, "it says that its share is in it");
            }
            world.run(MS * 20_000);
            world.submissions = 0;
            world.expect_shut(MS * 30_000, "and no share comes again");
            assert_eq!((world.submissions, holds(&world)), (0, 0));
            let again = world.hold_nodes(1, &[]);
            world.run(MS * 500);
            assert!(world.hosts[0].acknowledged[&again].1.is_empty(), "nothing is in flight any more");
            (2..5).for_each(|c| world.start_custodian(c));
            world.expect_obeyed(3_000, "told when they came back");
            world.release_by(&[0, 1], hold);
            world.release_by(&[0, 1], again);
            world.run(MS * 1_000);
            world.approve(0, 0);
            world.expect_open("released");
        }
    });
}

#[test]
fn a_hold_that_comes_while_an_order_to_release_is_out_withdraws_it() {
    story(|| {
        for wait in [0, 30, 100, 150, 250, 350, 450] {
            let mut world = World::open(Setup { sentinel: false, ..quiet(1) });
            world.links.iter_mut().flatten().for_each(|link| link.latency = MS * 60);
            world.run(MS * 2_000);
            let since = world.now;
            world.restart_node(0, MS * 200);
            let given =
                |world: &World| (0..5).filter(|c| world.cause(*c, 0, since) == Some(Cause::Restart)).count() >= 3;
            assert!(world.until(SOON, given), "orders were given out");
            world.run(MS * wait);
            if world.vaults[0].is_open() {
                continue;
            }
            world.hold_nodes(0, &[0]);
            // Whatever left before it came is taken out again; the oracle watches that none leaves after it.
            world.run(MS * 1_000);
            if world.vaults[0].is_open() {
                continue;
            }
            world.expect_shut(MS * 30_000, "held in time");
            assert_eq!(world.vaults[0].status().map(|status| status.progress), Some(0));
        }
    });
}

#[test]
fn a_hold_on_a_node_that_hangs_with_shares_pending() {
    story(|| {
        for (seed, frozen_for) in [(1, 3_000), (2, 8_000), (3, 14_000), (4, 3_000), (5, 8_000), (6, 19_000)] {
            let mut world = World::open(if seed % 2 == 0 { alone(seed) } else { quiet(seed) });
            world.seal_node(0);
            world.run(MS * 2_000);
            world.approve_by(0..2);
            // The shares are on their way when it stops, or wait before its door.
            world.run(MS * (seed as u32 - 1));
            world.freeze_node(0);
            if world.vaults[0].is_open() {
                continue;
            }
            world.run(MS * (frozen_for / 2));
            let hold = world.hold_nodes(2, &[]);
            world.run(MS * (frozen_for / 2));
            world.thaw_node(0);
            world.run(MS * 2_000);
            if world.vaults[0].is_open() {
                // All three were in its queue before the hold was there: nobody can take them back then.
                continue;
            }
            world.expect_shut(MS * 40_000, "it hung, and was held meanwhile");
            assert_eq!(world.vaults[0].status().map(|status| status.progress), Some(0), "nothing is left in it");
            world.release_by(&[0, 1], hold);
            world.run(MS * 2_000);
            world.approve_by(0..2);
            world.expect_open("released, and approved anew");
        }
    });
}

#[test]
fn a_hold_withdraws_an_order_to_release_also_while_the_node_is_lost() {
    story(|| {
        // The kept connection is given up before the one that is to carry the share, and that one is the first to be answered.
        for seed in 1..=8 {
            let mut world = World::open(Setup { threshold: 2, ..alone(seed) });
            world.seal_node(0);
            world.run(MS * 2_000);
            world.freeze_node(0);
            world.run(MS * 2_000);
            world.approve_by(0..2);
            world.run(MS * 3_500);
            world.links.iter_mut().flatten().for_each(|link| link.slow = 60);
            world.hold_nodes(2, &[]);
            world.thaw_node(0);
            world.expect_shut(MS * 30_000, "held before it answered again");
            assert_eq!(world.vaults[0].status().map(|status| status.progress), Some(0));
        }
    });
}

// Whose word counts.

#[test]
fn killed_at_any_step_a_custodian_forgets_no_hold_and_revives_none() {
    story(|| {
        for step in 0..14 {
            let mut world = World::open(generous(quiet(1)));
            let killed = |world: &mut World| {
                world.for_all(|world, c| world.hosts[c].crash_in = Some(step));
            };
            let restarted = |world: &mut World| {
                world.run(MS * 1_500);
                world.for_all(|world, c| world.hosts[c].crash_in = None);
                world.for_all(World::start_custodian);
                world.run(MS * 1_500);
            };
            killed(&mut world);
            let hold = world.hold_nodes(0, &[]);
            restarted(&mut world);
            world.expect_obeyed(1, "what is not acknowledged comes again");
            world.release_by(&[0], hold);
            world.run(MS * 100);
            killed(&mut world);
            world.release_by(&[1], hold);
            restarted(&mut world);
            world.expect_free(1, "and so does a release");
            killed(&mut world);
            world.replay_everything();
            restarted(&mut world);
            world.expect_free(1, "which lasts");
            world.replay_everything();
            world.expect_free(1, "which lasts");
        }
    });
}

#[test]
fn an_order_is_acknowledged_only_when_it_is_on_disk() {
    story(|| {
        let mut world = World::open(quiet(1));
        world.for_all(|world, c| world.hosts[c].disk_ok = false);
        let hold = world.hold_nodes(0, &[]);
        world.run(MS * 1_000);
        assert!(world.said(hold).iter().all(Option::is_none), "no disk can be written");
        world.expect_obeyed(1, "obeyed all the same");
        world.for_all(|world, c| world.hosts[c].disk_ok = true);
        world.restart_custodians(0..5);
        world.expect_obeyed(2_000, "it waited in the queues");
        world.expect_said(hold, &Effect::InForce {});
    });
}

#[test]
fn a_hold_is_obeyed_whatever_the_clocks_say() {
    story(|| {
        let hour = 3_600_000;
        for (theirs, ours) in [(0, -2 * hour), (0, 2 * hour), (-48 * hour, 0), (48 * hour, 0)] {
            let mut world = World::open(quiet(1));
            world.for_all(|world, c| world.hosts[c].offset = ours);
            world.run(MS * 1_500);
            let (id, bytes) = world.order_at(0, Content::Hold(Hold { nodes: Vec::new(), reason: None }), theirs);
            world.send_order(&bytes);
            world.expect_obeyed(1_000, "ordered");
            world.restart_node(0, MS * 300);
            world.expect_shut(MS * 10_000, "held");
            world.for_all(|world, c| world.hosts[c].offset = 0);
            // Until the time has come that a clock has shown, nothing that expires is taken.
            if ours > 0 {
                world.advance_clocks(ours);
                world.run(MS * 2_000);
            }
            world.release_by(&[0, 1], id);
            world.expect_open("released with the right time");
            world.seal_node(0);
            world.run(MS * 2_000);
            world.approve_by(0..2);
            world.expect_open("a hold that was dated ahead voids no later approval");
        }
    });
}
