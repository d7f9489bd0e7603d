//! Directed worlds: conductors and custodians that lie about drills, and a broker that swallows what is said of them.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_core::custodian::Entry;
use holdfast_core::id::{DrillId, MessageId, SlotId};
use holdfast_core::message::{Acknowledgement, Content, DrillReport, DrillResult, Due, Effect, Kind, Phase};
use holdfast_core::time::Timestamp;

use crate::causes::story;
use crate::drills::{A_DRILL, conducted, ready};
use crate::people::Message;
use crate::post::Queue;
use crate::world::{Setup, World};

impl World {
    /// How often a custodian that is told to conduct sealed.
    fn seals_conducted(&self) -> u32 {
        self.drills.conducted.values().sum()
    }
}

#[test]
fn whatever_a_stolen_conductor_says_its_intents_stand_a_few_minutes_of_an_hour() {
    story(|| {
        for lie in ["opened", "closed", "nothing"] {
            let mut world = ready(conducted(1, [0]));
            world.drill_due();
            world.expect_drill(DrillResult::Passed, A_DRILL);
            let report = world.drills.closed[0].clone();
            let mut taken = 0;
            // A restart makes nobody forget.
            for round in 0..50 {
                let slot = world.now_slot();
                let intent = world.forge_intent(0, 1, slot, None);
                world.run(Duration::from_secs(10));
                taken += usize::from(world.took(intent) > 0);
                match lie {
                    "opened" => world.claim_opened(0, 1, Some(intent)),
                    "closed" => {
                        let drill = world.drills.intents[&intent].intent.drill;
                        let over = DrillReport { drill, ..report.clone() };
                        world.claim(0, Content::DrillReport(Box::new(over)));
                    }
                    _ => {}
                }
                if round % 10 == 9 {
                    world.restart_custodians(1..5);
                }
                world.run(Duration::from_secs(59));
            }
            assert!((3..=5).contains(&taken), "{lie}: {taken} were taken after a drill that was held");
        }
    });
}

#[test]
fn who_says_that_a_drill_is_over_before_it_began_keeps_it_from_beginning_and_no_more() {
    story(|| {
        for names_it in [true, false] {
            let mut world = ready(conducted(2, [0]));
            world.order_drill(0, Some(1));
            assert!(world.until(A_DRILL, |world| !world.drills.intents.is_empty()));
            // So that the conductor waits for an answer.
            world.kill_custodian(3);
            world.run(Duration::from_secs(1));
            let intent = *world.drills.intents.keys().next().expect("one");
            assert_eq!((world.took(intent), world.seals_conducted()), (4, 0));
            world.claim_opened(4, 1, names_it.then_some(intent));
            assert!(world.until(A_DRILL, |world| !world.drills.closed.is_empty()));
            assert_eq!(world.seals_conducted(), 0, "who was lied to said so, and nothing was sealed");
            let said = |c: usize| {
                let void = |entry: &Entry| matches!(entry, Entry::IntentVoid { why, .. } if why.starts_with("custodian-5 says"));
                world.hosts[c].audit.iter().any(|(_, entry)| void(entry))
            };
            assert!((0..3).all(said), "it is written down whose word it was");
        }
    });
}

#[test]
fn a_word_of_before_ends_no_intent() {
    story(|| {
        let mut world = ready(conducted(3, [0]));
        // Said before the intent, and heard after it.
        world.claim_opened(4, 1, None);
        world.run(Duration::from_secs(2));
        let overheard: Vec<_> = world.post.overheard.iter().cloned().collect();
        world.order_drill(0, Some(1));
        assert!(world.until(A_DRILL, |world| !world.drills.intents.is_empty()));
        overheard.iter().for_each(|bytes| world.distribute(Queue::Peers, bytes, None));
        world.expect_drill(DrillResult::Passed, A_DRILL);
        assert!(world.all_open() && world.nobody_marked());
    });
}

#[test]
fn a_seal_right_after_a_drill_stays_whatever_the_broker_swallows() {
    story(|| {
        for seed in 0..40 {
            let setup = conducted(seed, [0]);
            let mut world = ready(Setup { custodians: 7, ..setup });
            world.post.swallowed = vec![Kind::Receipt, Kind::DrillReport, Kind::Sighting];
            world.order_drill(0, Some(1));
            assert!(world.until(A_DRILL, |world| world.seals_conducted() > 0));
            if seed % 2 == 1 {
                // Nor do those who are to stand by hear of it from anybody.
                let intent = &world.drills.intents.values().next().expect("one").intent;
                let stands_by = |c: &usize| !intent.submitters.contains(&world.people.custodians[*c].name);
                let apart: Vec<_> = (1..7).filter(stands_by).collect();
                apart.into_iter().for_each(|c| world.broker_disconnect(c));
            }
            assert!(world.until(A_DRILL, |world| world.vaults[1].is_open()), "seed {seed}: the drill's seal");
            // Whose answers the node holds back, and who hears of nothing, cannot know better of a seal right after the opening.
            world.run(Duration::from_millis(2_000 + seed * 150));
            world.seal_node(1);
            world.run(Duration::from_secs(150));
            assert!(!world.vaults[1].is_open(), "seed {seed}: somebody's seal passed for the drill's");
        }
    });
}

#[test]
fn who_looks_more_often_while_a_drill_is_announced_stops_when_it_is_over() {
    story(|| {
        let mut world = ready(conducted(4, [0]));
        let looks = |world: &World| world.vaults[1].asked;
        let over_a_minute = |world: &mut World| {
            let before = looks(world);
            world.run(Duration::from_secs(60));
            looks(world) - before
        };
        let quiet = over_a_minute(&mut world);
        world.order_drill(0, Some(1));
        world.expect_drill(DrillResult::Passed, A_DRILL);
        world.run(Duration::from_secs(15));
        let after = over_a_minute(&mut world);
        assert!(after < quiet + quiet / 4, "{quiet} looks in a minute before, {after} after");
    });
}

#[test]
fn too_many_drills_are_refused_and_none_is_left_in_the_queue() {
    story(|| {
        let mut world = ready(conducted(5, [0]));
        (0..30).for_each(|n| drop(world.order_drill(n % 3, None)));
        assert!(world.until(300_000, |world| world.slots_waiting() == 0), "all are done");
        let with = |result: DrillResult| world.drills.closed.iter().filter(|r| r.result == Some(result)).count();
        assert_eq!(with(DrillResult::Passed) + with(DrillResult::Refused), 30, "each has its report");
        assert!(with(DrillResult::Refused) >= 13, "those for which there was no room");
        assert!(world.all_open() && world.nobody_marked());
    });
}

#[test]
fn what_another_conductor_claims_to_be_at_keeps_no_drill_from_being_held() {
    story(|| {
        let mut world = ready(conducted(6, [0, 3]));
        world.order_drill(0, Some(1));
        world.expect_drill(DrillResult::Passed, A_DRILL);
        let held = world.drills.closed[0].clone();
        let (order, bytes) = world.order_drill_unheard(0, Some(2));
        let began = |slot| {
            let (phase, result, sealed_at) = (Phase::Sealed, None, None);
            DrillReport { slot, phase, result, sealed_at, ..held.clone() }
        };
        for n in 0..40 {
            let slot = if n == 0 { SlotId::of_order(order) } else { SlotId::of_time(world.wall(n)) };
            world.claim(3, Content::DrillReport(Box::new(began(slot))));
        }
        world.claim(3, Content::DrillReport(Box::new(began(SlotId::of_order(order)))));
        world.run(Duration::from_secs(1));
        world.queue_slot(bytes);
        assert!(world.until(A_DRILL, |world| world.drills.closed.iter().any(|r| r.slot == SlotId::of_order(order))));
        assert_eq!(world.drills.conducted[&SlotId::of_order(order)], 1, "it was held");
    });
}

#[test]
fn the_answer_of_who_was_not_asked_does_not_count() {
    story(|| {
        let mut world = ready(conducted(7, [0]));
        world.kill_custodian(4);
        world.run(Duration::from_secs(45));
        world.order_drill(0, Some(1));
        assert!(world.until(A_DRILL, |world| !world.drills.intents.is_empty()));
        world.kill_custodian(3);
        let order = *world.drills.intents.keys().next().expect("one");
        let content =
            Content::Acknowledgement(Acknowledgement { order, effect: Effect::InForce {}, in_flight: Vec::new() });
        world.claim(4, content);
        assert!(world.until(A_DRILL, |world| !world.drills.closed.is_empty()));
        assert_eq!(world.seals_conducted(), 0, "three took it, and four are needed");
    });
}

#[test]
fn who_says_that_a_drill_is_over_which_nobody_held_keeps_it_from_nobody() {
    story(|| {
        let mut world = ready(conducted(8, [0, 3]));
        world.order_drill(0, Some(1));
        world.expect_drill(DrillResult::Passed, A_DRILL);
        let held = world.drills.closed[0].clone();
        let (order, bytes) = world.order_drill_unheard(0, Some(2));
        let over = |slot| DrillReport { slot, drill: DrillId::from_bytes([7; 16]), ..held.clone() };
        let soon = SlotId::of_time(world.wall(3_000));
        for slot in [SlotId::of_order(order), soon] {
            world.claim(3, Content::DrillReport(Box::new(over(slot))));
        }
        world.run(Duration::from_secs(1));
        world.queue_slot(bytes);
        assert!(world.until(A_DRILL, |world| world.drills.conducted.contains_key(&SlotId::of_order(order))));
        world.run(Duration::from_secs(2));
        let slot = world.drill_due();
        assert!(world.until(A_DRILL, |world| world.drills.conducted.contains_key(&slot)), "it was held");
    });
}

#[test]
fn a_conductor_that_is_distrusted_or_late_has_no_drill_held() {
    story(|| {
        let mut world = ready(conducted(9, [0, 3]));
        let due = |world: &mut World, slot: SlotId| {
            let (id, issued_at) = (MessageId::from_bytes(world.dice.bytes()), world.wall(0));
            let content = Content::Due(Due { slot });
            let message = Message { id, cluster: world.cluster, content, issued_at, expires_at: None };
            let bytes = world.people.custodians[3].seal(message).into();
            world.queue_slot(bytes);
        };
        for n in 0..30 {
            let slot = SlotId::of_time(world.wall(-16 * 60_000 - n));
            due(&mut world, slot);
        }
        world.run(Duration::from_secs(10));
        assert!(world.drills.closed.is_empty() && world.slots_waiting() == 0, "no report of what is long over");
        let name = world.people.custodians[3].name.clone();
        world.distrust_by(&[0, 1], &name, false);
        world.run(Duration::from_secs(5));
        let slot = world.now_slot();
        due(&mut world, slot);
        world.run(Duration::from_secs(20));
        assert!(world.drills.conducted.is_empty() && world.slots_waiting() == 0, "nothing of who is distrusted");
    });
}

#[test]
fn an_intent_that_comes_after_its_drill_is_not_taken() {
    story(|| {
        let mut world = ready(conducted(10, [0]));
        world.order_drill(0, Some(1));
        world.expect_drill(DrillResult::Passed, A_DRILL);
        let over = world.drills.closed[0].clone();
        world.post.up = false;
        let slot = world.now_slot();
        let intent = world.forge_intent(0, 1, slot, None);
        world.post.up = true;
        let withheld = world.post.overheard.back().expect("one").clone();
        let drill = world.drills.intents[&intent].intent.drill;
        world.claim(0, Content::DrillReport(Box::new(DrillReport { drill, ..over })));
        world.run(Duration::from_secs(2));
        world.distribute(Queue::Peers, &withheld, Some(0));
        world.run(Duration::from_secs(5));
        assert_eq!(world.took(intent), 0);
        world.post.up = false;
        let slot = world.now_slot();
        let late = world.forge_intent(0, 1, slot, None);
        world.post.up = true;
        let withheld = world.post.overheard.back().expect("one").clone();
        world.run(Duration::from_secs(12));
        world.distribute(Queue::Peers, &withheld, Some(0));
        world.run(Duration::from_secs(5));
        assert_eq!(world.took(late), 0, "nobody waits for it any more");
    });
}

#[test]
fn a_time_that_is_still_to_come_takes_nobody_his_turn() {
    story(|| {
        let mut world = ready(conducted(11, [0, 3]));
        let mut turns = BTreeSet::new();
        for round in 0..4 {
            world.order_drill(0, None);
            world.expect_drill(DrillResult::Passed, A_DRILL);
            let report = world.drills.closed.last().expect("one").clone();
            turns.extend(report.submitters.clone());
            if round == 0 {
                let never = Timestamp::from_millis(world.wall(0).as_millis() + 1_000_000_000);
                let mut lie = report;
                lie.responses.values_mut().for_each(|response| response.answered_at = never);
                lie.began_at = never;
                world.claim(3, Content::DrillReport(Box::new(lie)));
                turns.clear();
            }
        }
        assert_eq!(turns.len(), 5, "each has its turn again");
    });
}

#[test]
fn who_takes_over_late_closes_what_was_begun() {
    story(|| {
        let mut world = ready(conducted(12, [0, 3]));
        let slot = world.drill_due();
        assert!(world.until(A_DRILL, |world| world.seals_conducted() > 0));
        world.broker_disconnect(3);
        world.kill_custodian(0);
        // Longer than a word that the time has come is good for.
        world.run(Duration::from_secs(150));
        let incarnation = world.hosts[3].incarnation;
        world.broker_connect(3, incarnation);
        assert!(world.until(90_000, |world| world.drills.closed.iter().any(|report| report.slot == slot)), "closed");
        assert!(world.all_open() && world.slots_waiting() == 0);
        assert_eq!(world.drills.conducted[&slot], 1);
    });
}

#[test]
fn after_a_drill_that_was_refused_the_next_is_held() {
    story(|| {
        let mut world = ready(conducted(13, [0]));
        world.kill_custodian(4);
        world.run(Duration::from_secs(45));
        world.order_drill(0, Some(1));
        assert!(world.until(A_DRILL, |world| !world.drills.intents.is_empty()));
        world.kill_custodian(3);
        world.expect_drill(DrillResult::Refused, A_DRILL);
        world.start_custodian(3);
        world.run(Duration::from_secs(5));
        world.order_drill(0, Some(1));
        world.expect_drill(DrillResult::Passed, A_DRILL);
        let conductor = &world.people.custodians[0].name;
        assert!(world.drills.closed[1].taken_by.contains(conductor), "its own custodian knows that the first is over");
    });
}
