//! Directed worlds: one for each line of the table of causes in docs/SECURITY.md, and for each way in which what belonged to
//! one incident could open the next.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_core::cause::Cause;
use holdfast_core::custodian::Entry;
use holdfast_core::message::Seen;
use holdfast_core::policy::{Policy, Rule};

use crate::note;
use crate::story;
use crate::vault::Piece;
use crate::world::{Setup, World};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SOON: u64 = 5_000;

/// Runs a test's world, and tells its story if it ends badly.
#[expect(clippy::print_stdout, reason = "only a test that fails prints, and the harness keeps it for its report")]
pub(crate) fn story(act: impl FnOnce()) {
    struct Tell;
    impl Drop for Tell {
        fn drop(&mut self) {
            if std::thread::panicking() {
                println!("{}", story::tell());
            }
        }
    }
    story::begin();
    let _tell = Tell;
    act();
}

pub(crate) fn quiet(seed: u64) -> Setup {
    Setup::new(seed)
}

pub(crate) fn alone(seed: u64) -> Setup {
    Setup { broker: false, sentinel: false, ..Setup::new(seed) }
}

impl World {
    fn everybody(&self) -> Vec<usize> {
        (0..self.hosts.len()).collect()
    }

    #[track_caller]
    pub(crate) fn expect_open(&mut self, why: &str) {
        note!(self, "expects it open: {why}");
        assert!(self.until(SOON, Self::all_open), "{why}");
        assert!(self.until(SOON, Self::all_seen_open), "{why}: seen by all");
    }

    #[track_caller]
    pub(crate) fn expect_shut(&mut self, wait: Duration, why: &str) {
        note!(self, "expects it shut: {why}");
        let end = self.now + wait;
        let opened = self.until(wait.as_millis() as u64, |world| world.vaults[0].is_open());
        assert!(!opened && self.now >= end, "{why}");
    }

    #[track_caller]
    fn expect_cause(&self, cause: Cause, since: Duration) {
        let causes: Vec<_> = self.everybody().into_iter().map(|c| self.cause(c, 0, since)).collect();
        assert!(causes.iter().all(|found| *found == Some(cause)), "{cause} expected, found {causes:?}");
    }

    pub(crate) fn approve_by(&mut self, operators: impl IntoIterator<Item = usize>) {
        for operator in operators {
            self.approve(operator, 0);
        }
    }

    pub(crate) fn for_all(&mut self, act: impl Fn(&mut Self, usize)) {
        self.everybody().into_iter().for_each(|c| act(self, c));
    }
}

#[test]
fn a_restart_is_opened_with_as_few_shares_as_it_takes() {
    story(|| {
        for (seed, setup) in [(1, quiet(1)), (2, alone(2)), (3, quiet(3)), (4, alone(4))] {
            let mut world = World::open(setup);
            for gap in [1, 20, 150, 900, 4_000, 70_000] {
                let since = world.now;
                world.submissions = 0;
                world.restart_node(0, MS * gap);
                world.expect_open("restarted");
                world.run(MS * 2_000);
                assert_eq!(world.submissions, 3, "seed {seed}, gap {gap}: only the threshold travels");
                let causes = world.everybody().into_iter().filter_map(|c| world.cause(c, 0, since));
                assert!(causes.into_iter().all(|cause| cause == Cause::Restart));
            }
        }
    });
}

#[test]
fn a_seal_in_place_stays_whatever_is_restarted_afterwards() {
    story(|| {
        for setup in [quiet(1), alone(2), Setup { sentinel: false, ..quiet(3) }] {
            let mut world = World::open(setup);
            let since = world.now;
            world.seal_node(0);
            world.expect_shut(MS * 300_000, "sealed in place");
            world.expect_cause(Cause::InPlace, since);
            world.restart_node(0, MS * 400);
            world.expect_shut(MS * 20_000, "restarted after the seal");
            world.for_all(|world, c| {
                world.kill_custodian(c);
                world.start_custodian(c);
            });
            world.expect_shut(MS * 20_000, "custodians restarted after the seal");
            world.for_all(World::reboot_host);
            world.for_all(World::start_custodian);
            world.expect_shut(MS * 200_000, "hosts rebooted after the seal");
            world.expect_cause(Cause::InPlace, since);
            world.approve_by([0]);
            world.expect_shut(MS * 10_000, "one operator alone");
            world.approve_by([0]);
            world.expect_shut(MS * 10_000, "the same operator twice");
            world.approve_by([1]);
            world.expect_open("two operators");
            world.seal_node(0);
            world.expect_shut(MS * 20_000, "approvals were used");
        }
    });
}

#[test]
fn both_orders_of_restart_and_seal() {
    story(|| {
        for setup in [quiet(5), alone(6)] {
            let mut world = World::open(setup);
            world.restart_node(0, MS * 300);
            world.expect_open("restarted");
            world.seal_node(0);
            world.expect_shut(MS * 10_000, "sealed after a restart");
            world.approve_by([0, 1]);
            world.expect_open("approved");
            world.run(MS * 2_000);
            // A seal of a node that is sealed already changes nothing.
            world.kill_node(0);
            world.run(MS * 300);
            world.start_node(0);
            world.seal_node(0);
            world.expect_open("sealed while it was sealed by its restart");
        }
    });
}

#[test]
fn a_cut_does_not_hide_a_restart() {
    story(|| {
        for (seed, reset) in [(1, true), (2, false), (3, true), (4, false)] {
            for when in ["before", "during", "after"] {
                let mut world = World::open(if seed % 2 == 0 { alone(seed) } else { quiet(seed) });
                let cut = |world: &mut World| world.for_all(|world, c| world.cut(c, 0, reset));
                let since = world.now;
                if when == "before" {
                    cut(&mut world);
                    world.run(MS * 1_500);
                }
                world.kill_node(0);
                world.run(MS * 200);
                if when == "during" {
                    cut(&mut world);
                }
                world.run(MS * 200);
                world.start_node(0);
                if when == "after" {
                    world.run(MS * 8);
                    cut(&mut world);
                }
                world.run(MS * 7_000);
                world.for_all(|world, c| world.heal(c, 0));
                assert!(world.until(12_000, World::all_open), "cut {when} the restart, reset {reset}");
                let causes = world.everybody().into_iter().filter_map(|c| world.cause(c, 0, since));
                assert!(causes.into_iter().all(|cause| cause == Cause::Restart));
            }
        }
    });
}

#[test]
fn a_cut_does_not_hide_a_seal_in_place() {
    story(|| {
        for (seed, reset) in [(1, true), (2, false), (3, true), (4, false)] {
            let mut world = World::open(alone(seed));
            let since = world.now;
            world.for_all(|world, c| world.cut(c, 0, reset));
            world.run(MS * 700);
            world.seal_node(0);
            world.run(MS * 9_000);
            world.for_all(|world, c| world.heal(c, 0));
            world.expect_shut(MS * 30_000, "sealed behind a cut");
            world.expect_cause(Cause::InPlace, since);
        }
    });
}

#[test]
fn a_node_that_hangs_is_not_restarted() {
    story(|| {
        for length in [300, 3_000, 12_000, 40_000] {
            for seed in 1..=4 {
                let mut world = World::open(alone(seed));
                let since = world.now;
                world.freeze_node(0);
                world.run(MS * length);
                world.thaw_node(0);
                world.run(MS * 8_000);
                assert_eq!(world.seen_open_by(0), 5, "it hung, and serves again");
                world.freeze_node(0);
                world.run(MS * length);
                world.thaw_node(0);
                world.seal_node(0);
                world.expect_shut(MS * 20_000, "sealed when it woke up");
                for c in 0..5 {
                    let cause = world.cause(c, 0, since);
                    assert!(matches!(cause, Some(Cause::InPlace | Cause::Unknown)), "{cause:?}");
                }
                world.expect_cause(Cause::InPlace, since);
            }
        }
    });
}

#[test]
fn a_custodian_restarted_alone_knows_nothing() {
    story(|| {
        for setup in [quiet(1), alone(2)] {
            let mut world = World::open(setup);
            let since = world.now;
            world.kill_node(0);
            world.for_all(|world, c| {
                world.kill_custodian(c);
                world.start_custodian(c);
            });
            world.start_node(0);
            world.expect_shut(MS * 150_000, "no custodian saw it open");
            world.expect_cause(Cause::Unknown, since);
            world.approve_by([0]);
            world.expect_open("one operator is enough for what is not known");
            // Those that restarted while it is open learn it anew.
            world.for_all(|world, c| {
                world.kill_custodian(c);
                world.start_custodian(c);
            });
            world.run(MS * 3_000);
            world.restart_node(0, MS * 300);
            world.expect_open("restarted after they saw it open");
        }
    });
}

/// A power cut: every host and the node.
pub(crate) fn power_cut(world: &mut World, length: Duration) {
    world.power_off(0);
    world.for_all(World::reboot_host);
    world.broker_down();
    world.run(length);
    world.start_node(0);
    world.for_all(World::start_custodian);
}

#[test]
fn a_power_cut_is_an_outage() {
    story(|| {
        let mut world = World::open(alone(1));
        let since = world.now;
        power_cut(&mut world, MS * 30_000);
        world.expect_open("without a broker at once");
        world.expect_cause(Cause::Outage, since);

        let mut world = World::open(quiet(2));
        let since = world.now;
        power_cut(&mut world, MS * 30_000);
        world.expect_shut(MS * 8_000, "the broker is waited for");
        world.broker_up();
        world.expect_shut(MS * 9_000, "a heartbeat is waited for");
        assert!(world.until(5_000, World::all_open), "and then it opens");
        world.expect_cause(Cause::Outage, since);

        let mut world = World::open(quiet(3));
        power_cut(&mut world, MS * 30_000);
        world.expect_shut(MS * 119_000, "the broker is waited for as long as its grace");
        assert!(world.until(3_000, World::all_open), "and no longer");
    });
}

#[test]
fn not_every_reboot_is_an_outage() {
    story(|| {
        // Stopped on purpose before.
        let mut world = World::open(alone(1));
        let since = world.now;
        world.for_all(World::stop_custodian);
        power_cut(&mut world, MS * 10_000);
        world.expect_shut(MS * 60_000, "stopped on purpose");
        world.expect_cause(Cause::Unknown, since);

        // Seen open too long ago.
        let mut world = World::open(alone(2));
        let since = world.now;
        world.advance_clocks(25 * 3600 * 1000);
        power_cut(&mut world, MS * 10_000);
        world.expect_shut(MS * 60_000, "too long ago");
        world.expect_cause(Cause::Unknown, since);

        // Just recently enough.
        let mut world = World::open(alone(3));
        world.advance_clocks(23 * 3600 * 1000);
        power_cut(&mut world, MS * 10_000);
        world.expect_open("recently enough");

        // The clock is not synchronised.
        let mut world = World::open(alone(4));
        world.for_all(|world, c| world.hosts[c].synchronised = false);
        power_cut(&mut world, MS * 10_000);
        world.expect_shut(MS * 60_000, "no clock");
        world.for_all(|world, c| {
            world.hosts[c].synchronised = true;
            world.tell(c, |core, _| core.handle_clock(true));
        });
        world.expect_open("with a clock");

        // A clock that stands in the past.
        let mut world = World::open(alone(5));
        world.for_all(|world, c| world.hosts[c].offset = -7_200_000);
        power_cut(&mut world, MS * 10_000);
        world.expect_shut(MS * 60_000, "a clock in the past");

        // Without a reboot.
        let mut world = World::open(alone(6));
        world.kill_node(0);
        world.for_all(World::kill_custodian);
        world.run(MS * 1_000);
        world.start_node(0);
        world.for_all(World::start_custodian);
        world.expect_shut(MS * 60_000, "no reboot");
    });
}

#[test]
fn after_a_reboot_a_marker_of_peers_counts() {
    story(|| {
        // Two of five stay up and saw the seal; the others were down when it was told, and its messages are long gone.
        let mut world = World::open(Setup { sentinel: false, threshold: 2, ..quiet(1) });
        (2..5).for_each(|c| world.reboot_host(c));
        world.seal_node(0);
        world.run(MS * 100_000);
        world.restart_node(0, MS * 300);
        (2..5).for_each(|c| world.start_custodian(c));
        world.expect_shut(MS * 200_000, "the others know that it was sealed");
        assert!((0..5).all(|c| world.marked(c, 0)), "told by heartbeats");
        world.approve_by([0, 1]);
        world.expect_open("approved");
        assert!(world.until(1_000, |world| (0..5).all(|c| !world.marked(c, 0))));
        world.run(MS * 30_000);
        world.restart_node(0, MS * 300);
        world.expect_open("no marker came back");
    });
}

#[test]
fn what_stands_between_proves_nothing() {
    story(|| {
        let mut world = World::open(Setup { direct: false, ..quiet(1) });
        let since = world.now;
        world.restart_node(0, MS * 300);
        world.expect_shut(MS * 30_000, "not direct");
        world.expect_cause(Cause::Unknown, since);
        world.approve_by([2]);
        world.expect_open("approved");
    });
}

#[test]
fn a_reload_loses_no_tickets_unless_the_node_is_another() {
    story(|| {
        for setup in [quiet(1), alone(2)] {
            let mut world = World::open(setup);
            world.for_all(|world, c| world.reload(c, &BTreeSet::new()));
            world.restart_node(0, MS * 200);
            world.expect_open("a plain reload");
            world.run(MS * 2_000);
            let renewed = BTreeSet::from([(world.cluster, world.names[0].clone())]);
            let since = world.now;
            world.kill_node(0);
            world.for_all(|world, c| world.reload(c, &renewed));
            world.start_node(0);
            world.expect_shut(MS * 20_000, "another address: never seen open there");
            world.expect_cause(Cause::Unknown, since);
        }
    });
}

#[test]
fn killed_right_after_it_opened_is_still_a_restart() {
    story(|| {
        for seed in 1..=6 {
            let policy = Policy { unseals_per_hour: 100, ..Policy::default() };
            let setup = if seed % 2 == 0 { alone(seed) } else { quiet(seed) };
            let mut world = World::open(Setup { policy, ..setup });
            for wait in [0, 1, 3, 10, 30, 60, 100, 300, 1_000] {
                world.restart_node(0, MS * 200);
                assert!(world.until(SOON, World::all_open), "seed {seed}, wait {wait}: first");
                world.run(MS * wait);
                world.restart_node(0, MS * 200);
                let opened = world.until(SOON, World::all_open);
                // A process that lived too short for enough custodians to have seen it open is one of which nothing is known.
                let marked = (0..5).any(|c| world.marked(c, 0));
                assert!(!marked, "seed {seed}, wait {wait}: nobody sealed it");
                assert!(opened || wait < 3, "seed {seed}, wait {wait}: second");
                if !opened {
                    world.approve_by([0]);
                }
                world.expect_open("in the end");
                world.run(MS * 2_000);
            }
        }
    });
}

#[test]
fn told_of_an_opening_while_cut_off_a_custodian_proves_nothing_by_older_tickets() {
    story(|| {
        let mut world = World::open(Setup { threshold: 2, sentinel: false, ..quiet(1) });
        (2..5).for_each(|c| world.cut(c, 0, true));
        world.run(MS * 1_000);
        world.restart_node(0, MS * 300);
        assert!(world.until(SOON, World::all_open), "two are enough");
        world.run(MS * 1_000);
        // Now somebody seals it, and that news is lost.
        world.broker_down();
        world.seal_node(0);
        world.run(MS * 2_000);
        (0..2).for_each(|c| world.kill_custodian(c));
        (2..5).for_each(|c| world.heal(c, 0));
        world.expect_shut(MS * 20_000, "three who were told that it opened, and did not see it sealed");
    });
}

#[test]
fn an_approval_opens_once() {
    story(|| {
        // One that a custodian hears of late, when it knows already that the node was opened with it.
        let mut world = World::open(Setup { threshold: 2, sentinel: false, ..quiet(1) });
        world.for_all(|world, c| {
            world.kill_custodian(c);
            world.start_custodian(c);
        });
        world.kill_node(0);
        world.run(MS * 500);
        (2..5).for_each(|c| world.cut(c, 0, true));
        world.for_all(|world, c| {
            world.kill_custodian(c);
            world.start_custodian(c);
        });
        world.run(MS * 500);
        world.start_node(0);
        world.run(MS * 500);
        let consent = world.consent(0, 0);
        let (_, bytes) = world.give(&consent);
        for c in 0..2 {
            world.hear(c, &bytes);
        }
        assert!(world.until(SOON, World::all_open), "approved");
        world.run(MS * 500);
        for c in 2..5 {
            world.hear(c, &bytes);
        }
        world.broker_down();
        world.restart_node(0, MS * 100);
        (0..2).for_each(|c| world.kill_custodian(c));
        (2..5).for_each(|c| world.heal(c, 0));
        world.expect_shut(MS * 20_000, "the approval belonged to an incident that is over");

        // One on which a custodian's share left, before it was killed.
        let mut world = World::open(Setup { threshold: 2, custodians: 3, ..alone(2) });
        world.kill_node(0);
        world.for_all(|world, c| {
            world.kill_custodian(c);
            world.start_custodian(c);
        });
        world.start_node(0);
        world.run(MS * 500);
        world.submissions = 0;
        world.approve_by([0]);
        assert!(world.until(SOON, World::all_open), "approved");
        world.for_all(World::kill_custodian);
        world.seal_node(0);
        world.run(MS * 500);
        world.for_all(World::start_custodian);
        world.run(MS * 20_000);
        assert!(!world.vaults[0].is_open(), "used, and used again after a crash");
    });
}

#[test]
fn a_custodian_says_once_after_each_opening_that_a_restart_can_be_proven() {
    story(|| {
        for setup in [quiet(1), alone(2), Setup { direct: false, ..quiet(3) }] {
            let direct = setup.direct;
            let mut world = World::open(setup);
            for opened in 1..=4 {
                world.run(MS * 6_000);
                let said: Vec<_> = world.hosts.iter().map(|host| host.provable[0]).collect();
                assert_eq!(said, [if direct { opened } else { 0 }; 5]);
                world.restart_node(0, MS * 300);
                world.approve_by([0]);
                world.expect_open("restarted");
            }
        }
    });
}

#[test]
fn a_crash_loop_becomes_an_alert() {
    story(|| {
        let policy = Policy { unseals_per_hour: 3, ..Policy::default() };
        let mut world = World::open(Setup { policy, ..quiet(1) });
        for _ in 0..3 {
            world.restart_node(0, MS * 300);
            world.expect_open("within the budget");
            world.run(MS * 2_000);
        }
        world.restart_node(0, MS * 300);
        world.expect_shut(MS * 30_000, "the budget is used up");
        world.for_all(|world, c| {
            world.kill_custodian(c);
            world.start_custodian(c);
        });
        world.expect_shut(MS * 10_000, "also for custodians that were restarted");
        world.approve_by([0]);
        world.expect_open("approved");
        world.run(MS * 2_000);
        for _ in 0..3 {
            world.restart_node(0, MS * 300);
            world.expect_open("the approved opening refilled it");
            world.run(MS * 2_000);
        }
        world.restart_node(0, MS * 300);
        world.expect_shut(MS * 10_000, "used up again");
        world.advance_clocks(3_600_000);
        world.run(MS * 1_000);
        world.expect_open("an hour later");
    });
}

#[test]
fn a_policy_that_holds_opens_nothing() {
    story(|| {
        let policy = Policy { restart: Rule::Hold, ..Policy::default() };
        let mut world = World::open(Setup { policy, ..quiet(1) });
        world.restart_node(0, MS * 300);
        world.run(MS * 1_000);
        world.approve_by([0, 1, 2]);
        world.expect_shut(MS * 30_000, "the policy holds restarts");

        let policy = Policy { in_place: Rule::Hold, ..Policy::default() };
        let mut world = World::open(Setup { policy, ..quiet(2) });
        world.seal_node(0);
        world.run(MS * 1_000);
        world.approve_by([0, 1, 2]);
        world.expect_shut(MS * 30_000, "the policy holds what was sealed in place");
    });
}

#[test]
fn nothing_leaves_before_it_is_on_disk() {
    story(|| {
        let mut world = World::open(quiet(1));
        world.for_all(|world, c| world.hosts[c].disk_ok = false);
        world.submissions = 0;
        world.restart_node(0, MS * 300);
        world.expect_shut(MS * 20_000, "no disk can be written");
        assert_eq!(world.submissions, 0);
        world.for_all(|world, c| world.hosts[c].disk_ok = true);
        assert!(world.until(35_000, World::all_open), "when they can be written again");
    });
}

#[test]
fn stand_bys_step_in_for_those_who_are_away() {
    story(|| {
        for setup in [quiet(1), alone(2), quiet(3), alone(4)] {
            for away in [[0, 1], [2, 3], [3, 4], [0, 4]] {
                let mut world = World::open(setup.clone());
                world.broker_down();
                away.iter().for_each(|c| world.kill_custodian(*c));
                world.restart_node(0, MS * 300);
                assert!(world.until(1_500, World::all_open), "{away:?} are away");
            }
        }
    });
}

#[test]
fn holders_are_waited_for_when_custodians_are_lost() {
    story(|| {
        for typed in [1, 20, 50, 120, 200, 280] {
            let mut world = World::open(quiet(typed));
            [0, 1, 2, 3].iter().for_each(|c| world.kill_custodian(*c));
            world.restart_node(0, MS * 300);
            world.expect_shut(MS * 45_000, "one custodian of five is left, and three shares are needed");
            world.approve_by([0]);
            for holder in [0, 1] {
                world.expect_shut(MS * 1_000 * typed as u32, "a holder decrypts and types");
                // A share that is not the living custodian's will do for a holder's.
                let piece = Piece { x: world.hosts[holder].piece.x, fits: true };
                world.stray(0, Some(piece));
            }
            assert!(world.until(2_000, World::all_open), "{typed} s between the shares");
        }
    });
}

#[test]
fn holders_may_mistype_where_custodians_alone_never_suffice() {
    story(|| {
        for setup in [quiet(1), alone(2)] {
            let mut world = World::new(Setup { custodians: 2, ..setup });
            let waits = |world: &World| world.vaults[0].status().is_some_and(|status| status.progress == 2);
            let types = |world: &mut World, fits| world.stray(0, Some(Piece { x: 9, fits }));
            world.run(MS * 1_000);
            world.approve_by([0]);
            assert!(world.until(SOON, waits), "two custodians, and a holder is waited for");
            types(&mut world, true);
            world.expect_open("opened for the first time");
            world.run(MS * 5_000);
            world.restart_node(0, MS * 300);
            // Whoever types first is completed by the custodians, who are told each time that the set failed.
            for typed in 1..=12 {
                types(&mut world, false);
                let dropped = |world: &World| world.vaults[0].status().is_some_and(|status| status.progress == 0);
                assert!(world.until(40_000, dropped), "the typing error {typed} is completed as a set");
            }
            types(&mut world, true);
            assert!(world.until(40_000, World::all_open), "typed well, however often it failed");
        }
    });
}

#[test]
fn one_share_of_another_generation_delays_and_does_not_stop() {
    story(|| {
        for misfit in 0..5 {
            for setup in [quiet(1), alone(2), quiet(3), alone(4)] {
                let mut world = World::open(Setup { misfits: BTreeSet::from([misfit]), ..setup });
                for _ in 0..3 {
                    world.restart_node(0, MS * 300);
                    world.expect_open("with the four that fit");
                    world.run(MS * 2_000);
                }
            }
        }
    });
}

#[test]
fn a_generation_that_does_not_fit_is_given_up_until_an_operator_comes() {
    story(|| {
        for setup in [quiet(1), alone(2)] {
            let mut world = World::open(setup);
            world.for_all(|world, c| world.hosts[c].piece.fits = c > 2);
            world.restart_node(0, MS * 300);
            world.expect_shut(MS * 120_000, "three of five do not fit");
            world.submissions = 0;
            world.run(MS * 600_000);
            // Without a broker nobody knows what the others were told: they go on, ever slower.
            let most = if world.post.exists { 0 } else { 200 };
            assert!(world.submissions <= most, "{} shares in ten minutes", world.submissions);
            world.for_all(|world, c| world.hosts[c].piece.fits = true);
            world.approve_by([0, 1]);
            assert!(world.until(SOON, World::all_open), "an operator says try again");
        }
    });
}

#[test]
fn a_follower_that_joins_late_is_waited_for() {
    story(|| {
        for setup in [quiet(1), alone(2)] {
            let mut world = World::open(setup);
            world.vaults[0].joins_late = true;
            for _ in 0..4 {
                world.submissions = 0;
                world.restart_node(0, MS * 300);
                world.expect_open("it joined");
                // A set is complete between two looks of a stand-by, and where there is no broker nobody tells him of it.
                let most = if world.post.exists { 5 } else { 20 };
                assert!(world.submissions <= most, "{} shares", world.submissions);
                world.run(MS * 2_000);
            }
        }
    });
}

#[test]
fn an_approval_counts_until_it_expires() {
    story(|| {
        for (wait, opens) in [(50_000, true), (70_000, false)] {
            let mut world = World::open(quiet(1));
            world.seal_node(0);
            world.run(MS * 1_000);
            let mut consent = world.consent(0, 0);
            consent.life = MS * 60_000;
            let (_, bytes) = world.give(&consent);
            world.send_order(&bytes);
            world.expect_shut(MS * wait, "one of two");
            world.approve_by([1]);
            assert_eq!(world.until(SOON, World::all_open), opens, "the other one after {wait} ms");
        }
    });
}

#[test]
fn an_approval_is_of_one_node_in_one_cluster_by_an_operator_and_counts_once() {
    story(|| {
        let mut world = World::open(Setup { nodes: 2, ..quiet(1) });
        world.seal_node(0);
        world.seal_node(1);
        world.run(MS * 1_000);
        world.approve(0, 0);
        world.approve(1, 1);
        world.expect_shut(MS * 10_000, "one for each node");
        let mut consent = world.consent(1, 0);
        consent.cluster = holdfast_core::id::ClusterId::from_bytes([7; 16]);
        let (_, bytes) = world.give(&consent);
        world.send_order(&bytes);
        let mut consent = world.consent(2, 0);
        consent.life = MS * 3_600_000;
        let (_, bytes) = world.give(&consent);
        world.send_order(&bytes);
        world.expect_shut(MS * 10_000, "another cluster's, and one that would live too long");
        let consent = world.consent(1, 0);
        let (_, bytes) = world.give(&consent);
        for c in 0..5 {
            assert!(world.hear(c, &bytes));
            assert!(!world.hear(c, &bytes), "a second time");
        }
        assert!(world.until(SOON, |world| world.vaults[0].is_open()));
        world.run(MS * 2_000);
        world.seal_node(0);
        world.run(MS * 1_000);
        for c in 0..5 {
            assert!(!world.hear(c, &bytes), "for the next incident");
            world.kill_custodian(c);
            world.start_custodian(c);
            assert!(!world.hear(c, &bytes), "by another process");
        }
        world.expect_shut(MS * 10_000, "used");
    });
}

#[test]
fn a_marker_withdraws_orders_that_are_under_way() {
    story(|| {
        let mut world = World::open(Setup { sentinel: false, ..quiet(1) });
        world.links.iter_mut().flatten().for_each(|link| link.latency = MS * 120);
        world.run(MS * 2_000);
        let sealed_at = world.wall(0).after(MS * 100);
        let since = world.now;
        world.submissions = 0;
        world.restart_node(0, MS * 200);
        let all = |world: &World| (0..5).filter(|c| world.cause(*c, 0, since) == Some(Cause::Restart)).count() >= 3;
        assert!(world.until(SOON, all), "orders were given out");
        world.sentinel_claims(0, Seen::Sealed, Some(Cause::InPlace), sealed_at);
        world.expect_shut(MS * 30_000, "told in time");
        assert_eq!(world.submissions, 0, "no share left");
    });
}

#[test]
fn a_clock_that_was_set_back_permits_nothing() {
    story(|| {
        let mut world = World::open(quiet(1));
        world.seal_node(0);
        world.run(MS * 1_000);
        for c in 0..5 {
            world.hosts[c].offset = -300_000;
        }
        let mut consent = world.consent(0, 0);
        consent.offset = -300_000;
        for operator in [0, 1] {
            consent.operator = operator;
            let (_, bytes) = world.give(&consent);
            world.send_order(&bytes);
        }
        world.expect_shut(MS * 20_000, "nothing that expires can be judged");
        for c in 0..5 {
            world.hosts[c].offset = 0;
        }
        world.approve_by([0, 1]);
        world.expect_open("with the right time again");
    });
}

#[test]
fn late_news_of_an_opening_makes_no_marker() {
    story(|| {
        // It opened and crashed before anybody looked, and the receipt comes when the next process is seen already.
        let mut world = World::open(Setup { sentinel: false, ..quiet(1) });
        world.restart_node(0, MS * 200);
        assert!(world.until(SOON, World::all_open), "restarted");
        world.broker_down();
        world.run(MS * 2);
        world.restart_node(0, MS * 200);
        world.run(MS * 100);
        world.broker_up();
        world.run(MS * 5_000);
        assert!((0..5).all(|c| !world.marked(c, 0)), "nobody sealed it");
    });
}

#[test]
fn told_of_an_incident_that_it_missed_a_custodian_proves_nothing_by_older_tickets() {
    story(|| {
        let mut world = World::open(Setup { threshold: 2, sentinel: false, ..quiet(1) });
        // They do not know yet that they are cut off.
        (2..5).for_each(|c| world.cut(c, 0, false));
        world.restart_node(0, MS * 100);
        assert!(world.until(1_000, World::all_open), "two are enough");
        world.run(MS * 100);
        world.broker_down();
        world.seal_node(0);
        world.run(MS * 50);
        (0..2).for_each(|c| world.kill_custodian(c));
        (2..5).for_each(|c| world.heal(c, 0));
        world.expect_shut(MS * 20_000, "three who were told that it opened, and did not see it sealed");
    });
}

#[test]
fn a_marker_dated_ahead_ends_with_the_sight_of_the_node_open() {
    story(|| {
        let mut world = World::open(Setup { sentinel: false, ..quiet(1) });
        world.cut(0, 0, true);
        world.run(MS * 1_000);
        let ahead = world.wall(3_600_000);
        world.sentinel_claims(0, Seen::Sealed, Some(Cause::InPlace), ahead);
        world.run(MS * 60_000);
        assert!(world.marked(0, 0), "it cannot see that the node is open, and says so in every heartbeat");
        let marks = |c: usize| {
            let entries = world.hosts[c].audit.iter();
            entries.filter(|(_, entry)| matches!(entry, Entry::Marker { .. })).count()
        };
        // Their first look may come after the others' word, one by one, and the sentinel's own.
        assert!((1..5).all(|c| marks(c) <= 5), "the others looked, and no heartbeat brings it back");
        world.restart_node(0, MS * 300);
        assert!(world.until(SOON, World::all_open), "and open it");
    });
}
