//! Directed worlds: drills whose opening people have to approve, and drills that read a canary.

use std::time::Duration;

use holdfast_core::custodian::Entry;
use holdfast_core::id::SlotId;
use holdfast_core::message::DrillResult;
use holdfast_core::policy::{Policy, Rule};

use crate::causes::{MS, story};
use crate::drills::{A_DRILL, LOOKED_AFTER, conducted, ready};
use crate::world::{Setup, World};

impl World {
    /// Has a drill of the second node sealed that people have to approve.
    fn seal_for_people(&mut self) -> SlotId {
        let (id, _) = self.order_drill_with(0, Some(1), true);
        assert!(self.until(A_DRILL, |world| !world.vaults[1].is_open()), "the drill did not seal");
        SlotId::of_order(id)
    }

    fn approved_by(&self) -> Vec<&str> {
        self.drills.closed[0].approvals.keys().map(|operator| operator.as_str()).collect()
    }
}

#[test]
fn people_have_to_open_what_a_drill_for_them_sealed_and_are_timed() {
    story(|| {
        for seed in 0..10u64 {
            let mut world = ready(conducted(seed, [0]));
            world.seal_for_people();
            let opened = world.until(40_000, |world| world.vaults[1].is_open());
            assert!(!opened, "seed {seed}: opened without anybody's approval");
            let marked = world.running().into_iter().filter(|c| world.marked(*c, 1)).count();
            assert_eq!(marked, 5, "it is a seal like any other");
            world.approve(0, 1);
            assert!(!world.until(30_000, |world| world.vaults[1].is_open()), "one of two is not enough");
            world.approve(1, 1);
            world.expect_drill(DrillResult::Passed, A_DRILL);
            assert!(world.all_open());
            let report = world.drills.closed[0].clone();
            assert!(report.people && report.objective_ms == 600_000 && report.submitters.is_empty(), "{report:?}");
            assert_eq!(world.approved_by(), ["alice", "bob"]);
            let sealed_at = report.sealed_at.expect("sealed");
            let took: Vec<_> = report.approvals.values().map(|a| a.heard_at.since(sealed_at).as_secs()).collect();
            assert!(took[0] >= 38 && took[1] >= took[0] + 29 && took[1] < 90, "{took:?}");
            assert!(report.approvals.values().all(|approval| approval.signed_at <= approval.heard_at));
            assert!(report.recovery_us.is_some_and(|us| us >= 68_000_000), "{report:?}");
            assert!(world.until(5_000, World::all_seen_open));
            let notes = |c: usize| {
                let people = |entry: &Entry| matches!(entry, Entry::Intent { people: true, .. });
                world.hosts[c].audit.iter().any(|(_, entry)| people(entry))
            };
            assert!((0..5).all(notes), "each custodian's log says that the intent permits nothing");
        }
    });
}

#[test]
fn approvals_of_before_the_seal_open_nothing_and_are_not_timed() {
    story(|| {
        let mut world = ready(conducted(30, [0]));
        world.approve(0, 1);
        world.approve(1, 1);
        world.run(MS * 500);
        world.seal_for_people();
        assert!(!world.until(30_000, |world| world.vaults[1].is_open()), "an approval of before");
        world.approve(1, 1);
        world.approve(2, 1);
        world.expect_drill(DrillResult::Passed, A_DRILL);
        assert_eq!(world.approved_by(), ["bob", "carol"]);
    });
}

#[test]
fn people_who_are_late_or_do_not_come_are_told_of() {
    story(|| {
        let mut world = ready(conducted(31, [0]));
        world.seal_for_people();
        world.run(Duration::from_secs(700));
        world.approve(0, 1);
        world.approve(1, 1);
        world.expect_drill(DrillResult::Late, A_DRILL);
        let mut world = ready(conducted(32, [0]));
        world.seal_for_people();
        world.expect_drill(DrillResult::Failed, 26 * 60_000);
        let said = world.drills.closed[0].why.clone().unwrap_or_default();
        assert!(said.contains("it waits for them still") && world.slots_waiting() == 0, "{said}");
        world.run(Duration::from_secs(600));
        assert!(!world.vaults[1].is_open(), "nobody but people opens it");
        world.approve(0, 1);
        world.approve(1, 1);
        assert!(world.until(A_DRILL, World::all_open));
    });
}

#[test]
fn a_conductor_that_dies_in_a_drill_for_people_leaves_it_to_them() {
    story(|| {
        for others in [false, true] {
            let conductors = if others { vec![0, 3] } else { vec![0] };
            let mut world = ready(conducted(33, conductors));
            let slot = world.seal_for_people();
            world.run(MS * 300);
            world.kill_custodian(0);
            if !others {
                world.run(Duration::from_secs(5));
                world.start_custodian(0);
            }
            world.run(Duration::from_secs(60));
            assert!(!world.vaults[1].is_open(), "it waits for people");
            world.approve(0, 1);
            world.approve(1, 1);
            assert!(world.until(30_000, World::all_open), "and opens by their word");
            let over = world.until(LOOKED_AFTER, |world| world.slots_waiting() == 0 && !world.drills.closed.is_empty());
            assert!(over, "nobody closed the drill");
            assert_eq!(world.drills.closed[0].result, Some(DrillResult::Interrupted));
            assert_eq!(world.drills.conducted[&slot], 1);
        }
    });
}

#[test]
fn many_drills_for_people_do_not_keep_other_drills_from_being_held() {
    story(|| {
        let mut world = ready(conducted(34, [0]));
        for _ in 0..5 {
            let before = world.drills.closed.len();
            world.seal_for_people();
            world.run(Duration::from_secs(3));
            world.approve(0, 1);
            world.approve(1, 1);
            assert!(world.until(A_DRILL, |world| world.drills.closed.len() > before));
            assert!(world.until(5_000, World::all_seen_open));
        }
        world.order_drill(0, Some(1));
        world.expect_drill(DrillResult::Passed, A_DRILL);
    });
}

#[test]
fn where_people_would_have_nothing_to_approve_there_is_no_drill_for_them() {
    story(|| {
        let setup = conducted(35, [0]);
        let policy = Policy { in_place: Rule::Unseal, ..setup.policy.clone() };
        let mut world = ready(Setup { policy, ..setup });
        world.order_drill_with(0, Some(1), true);
        world.expect_drill(DrillResult::Refused, A_DRILL);
        let said = world.drills.closed[0].why.clone().unwrap_or_default();
        assert!(said.contains("nothing to approve") && world.all_open(), "{said}");
    });
}

// Canaries.

#[test]
fn a_drill_passes_only_when_the_canary_is_read_as_it_was() {
    story(|| {
        let with_canary = |seed| ready(Setup { canary: true, ..conducted(seed, [0]) });
        let mut world = with_canary(40);
        world.order_drill(0, Some(1));
        world.expect_drill(DrillResult::Passed, A_DRILL);
        let canary = world.drills.closed[0].canary.clone().expect("one is configured");
        assert!(canary.same == Some(true) && canary.read_at >= world.drills.closed[0].opened_at, "{canary:?}");

        for (seed, after, why) in [(41, Some(2), "is another than before"), (42, None, "status 503")] {
            let mut world = with_canary(seed);
            world.order_drill(0, Some(1));
            assert!(world.until(A_DRILL, |world| !world.vaults[1].is_open()));
            world.drills.canaries.insert(1, after);
            world.expect_drill(DrillResult::Failed, 90_000);
            let report = &world.drills.closed[0];
            assert!(report.why.as_ref().is_some_and(|said| said.contains(why)), "{report:?}");
            let same = report.canary.as_ref().and_then(|canary| canary.same);
            assert_eq!(same, after.map(|_| false));
            assert!(world.all_open() && report.served_at.is_some());
        }
    });
}

#[test]
fn a_canary_that_cannot_be_read_beforehand_is_no_reason_to_seal() {
    story(|| {
        let mut world = ready(Setup { canary: true, ..conducted(43, [0]) });
        world.drills.canaries.insert(1, None);
        world.order_drill(0, Some(1));
        world.expect_drill(DrillResult::Refused, A_DRILL);
        let said = world.drills.closed[0].why.clone().unwrap_or_default();
        assert!(said.contains("vault-2") && said.contains("status 503"), "{said}");
        assert!(world.drills.conducted.is_empty() && world.drills.intents.is_empty(), "nobody was even told");
        // Through the others it can be.
        world.order_drill(0, Some(2));
        assert!(world.until(A_DRILL, |world| world.drills.closed.len() > 1));
        assert_eq!(world.drills.closed[1].result, Some(DrillResult::Passed));
    });
}
