//! Directed worlds: a drill seals a node and opens it again, whoever dies in the middle, and nothing that a conductor says can
//! turn somebody's deliberate seal into one.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use holdfast_core::custodian::Entry;
use holdfast_core::drill::DrillWindow;
use holdfast_core::id::{DrillId, MessageId, SlotId};
use holdfast_core::message::{Content, DrillResult, Intent, Submission};
use holdfast_core::policy::{Policy, Rule};

use crate::causes::{MS, quiet, story};
use crate::conductors::HOLDS;
use crate::note;
use crate::people::Message;
use crate::post::Queue;
use crate::world::{Setup, World};

/// How long a drill takes at most, when nobody dies.
pub(crate) const A_DRILL: u64 = 20_000;

/// How long until a drill whose conductor died is closed, by whoever.
pub(crate) const LOOKED_AFTER: u64 = 120_000;

fn always() -> DrillWindow {
    DrillWindow::parse("daily 00:00-24:00 UTC", |_| None).expect("a window")
}

/// Three nodes, one conductor, and windows that are always open.
pub(crate) fn conducted(seed: u64, conductors: impl IntoIterator<Item = usize>) -> Setup {
    let setup = quiet(seed);
    let policy = Policy { drill_windows: vec![always()], unseals_per_hour: 1_000, ..setup.policy.clone() };
    Setup { nodes: 3, conductors: conductors.into_iter().collect(), policy, ..setup }
}

/// A world that has stood for a while: heartbeats were heard.
pub(crate) fn ready(setup: Setup) -> World {
    let mut world = World::open(setup);
    world.run(Duration::from_secs(30));
    world
}

impl World {
    #[track_caller]
    pub(crate) fn expect_drill(&mut self, result: DrillResult, within_ms: u64) {
        let before = self.drills.closed.len();
        note!(self, "expects a drill to end {result:?}");
        assert!(self.until(within_ms, |world| world.drills.closed.len() > before), "no drill ended");
        let closed = &self.drills.closed[before];
        assert_eq!(closed.result, Some(result), "{closed:?}");
    }

    pub(crate) fn nobody_marked(&self) -> bool {
        (0..self.vaults.len()).all(|n| self.running().into_iter().all(|c| !self.marked(c, n)))
    }

    /// An intent as somebody would sign it who has a conductor's key.
    pub(crate) fn forge_intent(&mut self, c: usize, n: usize, slot: SlotId, order: Option<String>) -> MessageId {
        let id = MessageId::from_bytes(self.dice.bytes());
        let submitters = self.people.custodians[..3].iter().map(|person| person.name.clone()).collect();
        let drill = DrillId::from_bytes(self.dice.bytes());
        let intent = Intent { drill, node: self.names[n].clone(), slot, submitters, order };
        let issued_at = self.wall(0);
        let expires_at = Some(issued_at.after(HOLDS));
        self.publish_intent(
            c,
            Message { id, cluster: self.cluster, content: Content::Intent(intent), issued_at, expires_at },
        );
        id
    }

    /// How many custodians took an intent, whatever they made of it later.
    pub(crate) fn took(&self, intent: MessageId) -> usize {
        (0..self.hosts.len()).filter(|c| self.drills.taken.contains(&(*c, intent))).count()
    }

    pub(crate) fn now_slot(&self) -> SlotId {
        SlotId::of_time(self.wall(0))
    }
}

// A drill that goes well.

#[test]
fn a_drill_seals_a_stand_by_and_it_opens_again() {
    story(|| {
        for seed in 0..20 {
            let mut world = ready(conducted(seed, [0]));
            let (id, _) = world.order_drill(0, None);
            world.expect_drill(DrillResult::Passed, A_DRILL);
            let report = world.drills.closed[0].clone();
            assert_eq!(report.slot, SlotId::of_order(id));
            assert_eq!(report.ordered_by.as_ref().map(|by| by.as_str()), Some("alice"));
            assert_ne!(report.node.as_ref(), Some(&world.names[0]), "the active one is sealed only when it is named");
            assert_eq!(report.taken_by.len(), 5);
            let counted: BTreeSet<_> = report.responses.keys().collect();
            assert_eq!(counted, report.submitters.iter().collect(), "who was to submit did, and nobody else had to");
            assert!(report.recovery_us.is_some_and(|us| us < 2_000_000), "{report:?}");
            assert!(world.all_open() && world.nobody_marked() && world.slots_waiting() == 0);
        }
    });
}

#[test]
fn after_a_few_drills_every_share_has_opened_a_node() {
    story(|| {
        let mut world = ready(conducted(1, [0]));
        let mut submitted = BTreeSet::new();
        let mut nodes = BTreeSet::new();
        for _ in 0..2 {
            world.drill_due();
            world.expect_drill(DrillResult::Passed, A_DRILL);
            let report = world.drills.closed.last().expect("one").clone();
            let counted = |result: Submission| matches!(result, Submission::Counted | Submission::Opened);
            submitted.extend(report.responses.iter().filter(|(_, r)| counted(r.result)).map(|(c, _)| c.clone()));
            nodes.insert(report.node);
        }
        assert_eq!(submitted.len(), 5, "five shares, three at a time");
        assert_eq!(nodes.len(), 2, "the stand-bys in turn");
    });
}

#[test]
fn fifty_drills_in_a_row_leave_nothing_behind() {
    story(|| {
        let mut world = ready(conducted(2, [0]));
        for _ in 0..50 {
            world.order_drill(1, None);
            world.expect_drill(DrillResult::Passed, A_DRILL);
        }
        assert!(world.all_open() && world.nobody_marked());
        world.seal_node(1);
        world.run(Duration::from_secs(300));
        assert!(!world.vaults[1].is_open(), "what was sealed on purpose stays sealed");
    });
}

#[test]
fn one_drill_for_one_time_however_many_conductors_and_copies() {
    story(|| {
        for seed in 0..10 {
            let mut world = ready(Setup { ..conducted(seed, [0, 2, 4]) });
            world.post.twice = 50;
            let slot = world.drill_due();
            world.drill_due();
            let (id, bytes) = world.order_drill(0, Some(1));
            world.queue_slot(Rc::from(&bytes[..]));
            assert!(world.until(60_000, |world| world.slots_waiting() == 0), "all settled");
            world.run(Duration::from_secs(30));
            assert_eq!(world.drills.conducted[&slot], 1);
            assert_eq!(world.drills.conducted[&SlotId::of_order(id)], 1);
            assert!(world.drills.conducted.values().all(|sealed| *sealed == 1));
            assert!(world.all_open());
        }
    });
}

// What a drill must not do.

#[test]
fn a_deliberate_seal_is_no_drill_whatever_a_stolen_conductor_says() {
    story(|| {
        for seed in 0..15u64 {
            let mut world = ready(conducted(seed, [0]));
            // The intent comes a little before the custodians see the seal, or long after.
            world.seal_node(1);
            world.run(Duration::from_millis(seed * 97 % 1500));
            let slot = world.now_slot();
            let intent = world.forge_intent(0, 1, slot, None);
            world.run(Duration::from_secs(120));
            assert!(!world.vaults[1].is_open(), "seed {seed}: a deliberate seal was undone");
            assert_eq!(world.took(intent), 0, "nobody takes an intent for a seal that is there");
        }
    });
}

#[test]
fn an_intent_is_good_for_one_seal() {
    story(|| {
        let mut world = ready(conducted(3, [0]));
        world.order_drill(0, Some(1));
        world.expect_drill(DrillResult::Passed, A_DRILL);
        assert!(world.until(5_000, World::all_seen_open));
        world.seal_node(1);
        world.replay_everything();
        world.run(Duration::from_secs(100));
        assert!(!world.vaults[1].is_open(), "the next seal is no drill, and nothing said again makes it one");
    });
}

#[test]
fn an_intent_whose_seal_does_not_come_is_void_after_a_minute() {
    story(|| {
        for (wait, opens) in [(20, true), (58, true), (62, false), (300, false)] {
            let mut world = ready(conducted(4, [0]));
            let slot = world.now_slot();
            let intent = world.forge_intent(0, 1, slot, None);
            world.run(Duration::from_secs(wait));
            assert_eq!(world.took(intent), 4, "all but the conductor itself, which did not ask itself");
            world.seal_node(1);
            world.run(Duration::from_secs(60));
            assert_eq!(world.vaults[1].is_open(), opens, "sealed {wait} s after the intent");
        }
    });
}

#[test]
fn intents_that_no_seal_follows_are_soon_taken_no_more() {
    story(|| {
        let mut world = ready(conducted(5, [0]));
        let mut taken = 0;
        for _ in 0..20 {
            let slot = world.now_slot();
            let intent = world.forge_intent(0, 1, slot, None);
            world.run(Duration::from_secs(70));
            taken += usize::from(world.took(intent) > 0);
        }
        assert_eq!(taken, 3, "while an intent stands, somebody's seal would pass for a drill");
    });
}

#[test]
fn a_slot_is_good_for_one_intent_also_after_a_restart() {
    story(|| {
        let mut world = ready(conducted(6, [0]));
        let slot = world.now_slot();
        world.forge_intent(0, 1, slot.clone(), None);
        world.run(Duration::from_secs(65));
        world.restart_custodians(0..5);
        world.run(Duration::from_secs(30));
        let again = world.forge_intent(0, 2, slot, None);
        world.run(Duration::from_secs(5));
        assert_eq!(world.took(again), 0);
    });
}

#[test]
fn intents_that_nothing_allows_are_not_taken() {
    story(|| {
        let closed = Policy { drill_windows: Vec::new(), ..conducted(7, [0]).policy };
        let mut world = ready(Setup { policy: closed, ..conducted(7, [0]) });
        let slot = world.now_slot();
        let outside = world.forge_intent(0, 1, slot, None);
        let (order, bytes) = world.order_drill(0, Some(2));
        let envelope = String::from_utf8(bytes.to_vec()).expect("text");
        world.run(Duration::from_secs(40));
        // The conductor has held the drill that was ordered; its order is used up, and for another node it never counted.
        let used_up = world.forge_intent(0, 2, SlotId::of_order(order), Some(envelope.clone()));
        let (other, bytes) = world.order_drill_unheard(0, Some(2));
        let other_envelope = String::from_utf8(bytes.to_vec()).expect("text");
        let other_node = world.forge_intent(0, 1, SlotId::of_order(other), Some(other_envelope.clone()));
        let slot = world.now_slot();
        let other_slot = world.forge_intent(0, 2, slot, Some(other_envelope));
        let no_order = world.forge_intent(0, 2, SlotId::of_order(MessageId::from_bytes([7; 16])), None);
        let not_a_conductor = world.forge_intent(1, 2, SlotId::of_order(MessageId::from_bytes([8; 16])), None);
        world.run(Duration::from_secs(5));
        for intent in [outside, used_up, other_node, other_slot, no_order, not_a_conductor] {
            assert_eq!(world.took(intent), 0, "{intent}");
        }
    });
}

#[test]
fn where_the_policy_holds_a_node_that_is_sealed_there_are_no_drills() {
    story(|| {
        let setup = conducted(8, [0]);
        let policy = Policy { in_place: Rule::Hold, ..setup.policy.clone() };
        let mut world = ready(Setup { policy, ..setup });
        world.order_drill(0, Some(1));
        world.expect_drill(DrillResult::Refused, A_DRILL);
        let said = world.drills.closed[0].why.clone().unwrap_or_default();
        assert!(said.contains("the policy says hold"), "{said}");
        assert!(world.all_open() && world.drills.conducted.is_empty(), "nothing was sealed");
    });
}

#[test]
fn a_hold_wins_over_a_drill() {
    story(|| {
        for wait in [0, 5, 50, 400, 5_000] {
            let mut world = ready(conducted(9, [0]));
            // So that it stays sealed for a while.
            world.vaults[1].joins_late = true;
            world.order_drill(0, Some(1));
            world.until(A_DRILL, |world| world.drills.conducted.values().sum::<u32>() > 0);
            let was_open = world.drills.seals.is_empty();
            world.run(MS * wait);
            let open = world.vaults[1].is_open();
            world.hold_nodes(1, &[1]);
            world.run(Duration::from_secs(60));
            assert!(!was_open, "the drill did seal");
            if wait == 0 {
                assert!(!open && !world.vaults[1].is_open(), "held in the middle of a drill, it stays sealed");
                let marked = world.running().into_iter().filter(|c| world.marked(*c, 1)).count();
                assert!(marked > 0, "and when the hold is over, it takes people still");
                assert_eq!(world.drills.closed[0].result, Some(DrillResult::Aborted));
            }
        }
    });
}

#[test]
fn preflight_refuses_what_would_go_wrong() {
    story(|| {
        let refused = |spoil: &dyn Fn(&mut World), why: &str| {
            let mut world = ready(conducted(10, [0]));
            spoil(&mut world);
            world.run(Duration::from_secs(45));
            world.order_drill(0, Some(1));
            world.expect_drill(DrillResult::Refused, A_DRILL);
            let said = world.drills.closed[0].why.clone().unwrap_or_default();
            assert!(said.contains(why), "{why:?} expected, {said:?} said");
            assert!(world.drills.conducted.is_empty());
        };
        refused(&|world| [3, 4].into_iter().for_each(|c| world.kill_custodian(c)), "3 custodians are ready");
        refused(
            &|world| {
                world.hold_nodes(0, &[]);
            },
            "hold",
        );
        refused(&|world| world.seal_node(2), "vault-3");
        refused(&|world| world.kill_node(2), "vault-3");
        refused(
            &|world| {
                world.hold_nodes(0, &[2]);
            },
            "vault-3: an operator's hold",
        );
    });
}

#[test]
fn custodians_that_have_just_vanished_are_missed_before_anything_is_sealed() {
    story(|| {
        for gone in [vec![4], vec![3, 4]] {
            let mut world = ready(conducted(16, [0]));
            gone.iter().for_each(|c| world.kill_custodian(*c));
            world.order_drill(0, Some(1));
            // Four of five are enough, though one of them is missed.
            if gone.len() == 1 {
                world.expect_drill(DrillResult::Passed, A_DRILL);
                continue;
            }
            world.expect_drill(DrillResult::Refused, A_DRILL);
            let report = &world.drills.closed[0];
            assert!(world.drills.conducted.is_empty() && report.seal_sent_at.is_none(), "{report:?}");
            let missed: Vec<_> = report.declined.keys().map(|custodian| custodian.as_str()).collect();
            assert_eq!(missed, ["custodian-4", "custodian-5"]);
            let said = report.why.clone().unwrap_or_default();
            let expected = "3 custodians took the intent, and 4 are needed; custodian-4: it did not answer";
            assert!(said.contains(expected), "{said}");
        }
    });
}

// When it goes wrong.

#[test]
fn a_conductor_that_dies_at_any_step_leaves_nothing_sealed_and_the_history_right() {
    story(|| {
        for others in [false, true] {
            for step in (0..60).step_by(if others { 4 } else { 1 }) {
                let conductors = if others { vec![0, 3] } else { vec![0] };
                let mut world = ready(conducted(11, conductors));
                let (id, _) = world.order_drill(0, Some(1));
                world.run(MS * 2);
                world.hosts[0].crash_in = Some(step);
                world.run(Duration::from_secs(12));
                let died = world.hosts[0].running.is_none();
                world.hosts[0].crash_in = None;
                if !others || step % 8 == 0 {
                    world.start_custodian(0);
                }
                let over =
                    world.until(LOOKED_AFTER, |world| world.slots_waiting() == 0 && !world.drills.closed.is_empty());
                assert!(over, "step {step}: nobody closed the drill (died: {died})");
                world.run(Duration::from_secs(5));
                assert!(world.all_open(), "step {step}: left sealed");
                let sealed = world.drills.conducted.get(&SlotId::of_order(id)).copied().unwrap_or_default();
                assert!(sealed <= 1, "step {step}: sealed {sealed} times for one order");
            }
        }
    });
}

#[test]
fn a_conductor_that_is_stopped_before_it_seals_seals_no_more() {
    story(|| {
        for seed in 0..20 {
            let mut world = ready(conducted(seed, [0, 3]));
            world.order_drill(0, Some(1));
            world.until(A_DRILL, |world| !world.drills.intents.is_empty());
            // Nothing comes to it any more, and then everything at once.
            world.broker_disconnect(0);
            world.run(Duration::from_secs(100));
            assert!(world.all_open());
            let incarnation = world.hosts[0].incarnation;
            world.broker_connect(0, incarnation);
            world.run(Duration::from_secs(60));
            assert!(world.all_open());
            assert!(world.drills.conducted.values().all(|sealed| *sealed <= 1));
        }
    });
}

#[test]
fn a_node_that_crashes_in_a_drill_opens_and_the_drill_says_so() {
    story(|| {
        for seed in 0..15u64 {
            let mut world = ready(conducted(seed, [0]));
            world.vaults[1].joins_late = true;
            world.order_drill(0, Some(1));
            world.until(A_DRILL, |world| world.drills.conducted.values().sum::<u32>() > 0);
            world.run(MS * (seed as u32 * 23 % 300));
            world.restart_node(1, MS * 400);
            assert!(world.until(30_000, World::all_open), "seed {seed}: it stays sealed");
            assert!(world.until(90_000, |world| !world.drills.closed.is_empty()), "seed {seed}");
            assert_ne!(world.drills.closed[0].result, Some(DrillResult::Failed));
        }
    });
}

#[test]
fn a_real_crash_elsewhere_is_opened_during_a_drill() {
    story(|| {
        let mut world = ready(conducted(12, [0]));
        world.vaults[1].joins_late = true;
        world.order_drill(0, Some(1));
        world.until(A_DRILL, |world| world.drills.conducted.values().sum::<u32>() > 0);
        world.restart_node(2, MS * 300);
        assert!(world.until(20_000, World::all_open));
        let restarts = |c: usize| world.hosts[c].audit.iter().any(|(_, entry)| matches!(entry, Entry::Cause { .. }));
        assert!((0..5).all(restarts));
    });
}

#[test]
fn without_the_broker_a_drill_that_was_announced_ends_open() {
    story(|| {
        for seed in 0..20 {
            let mut world = ready(conducted(seed, [0]));
            world.order_drill(0, Some(1));
            world.until(A_DRILL, |world| world.drills.conducted.values().sum::<u32>() > 0);
            world.broker_down();
            assert!(world.until(20_000, World::all_open), "seed {seed}");
            world.run(Duration::from_secs(10));
            world.broker_up();
            assert!(world.until(60_000, |world| !world.drills.closed.is_empty() && world.slots_waiting() == 0));
        }
    });
}

#[test]
fn who_is_to_submit_and_does_not_is_stepped_in_for_and_named() {
    story(|| {
        let mut world = ready(conducted(13, [0]));
        // It takes the intent, and then nothing of what it sends arrives.
        world.order_drill(0, Some(1));
        world.until(A_DRILL, |world| !world.drills.intents.is_empty());
        world.until(5_000, |world| world.drills.conducted.values().sum::<u32>() > 0);
        let submitter = world.drills.intents.values().next().expect("one").intent.submitters[2].clone();
        let c = world.people.custodians.iter().position(|person| person.name == submitter).expect("one of them");
        if c != 0 {
            world.kill_custodian(c);
        }
        world.expect_drill(DrillResult::Passed, A_DRILL);
        let report = &world.drills.closed[0];
        assert!(c == 0 || report.declined.contains_key(&submitter), "{report:?}");
    });
}

#[test]
fn whatever_is_lost_late_or_said_twice_a_drill_leaves_nothing_sealed() {
    story(|| {
        for seed in 0..12 {
            let mut world = ready(conducted(seed, [0, 1]));
            (world.post.loss, world.post.twice, world.post.late) = (20, 20, 20);
            for _ in 0..4 {
                world.order_drill(0, None);
                world.run(Duration::from_secs(20));
            }
            assert!(world.until(300_000, World::all_open), "seed {seed}: left sealed");
            let bytes: Vec<_> = world.post.overheard.iter().cloned().collect();
            bytes.iter().for_each(|bytes| world.distribute(Queue::Peers, bytes, None));
            world.run(Duration::from_secs(20));
            assert!(world.drills.conducted.values().all(|sealed| *sealed <= 1), "seed {seed}");
        }
    });
}
