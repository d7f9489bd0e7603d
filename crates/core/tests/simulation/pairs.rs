//! The table of causes in docs/SECURITY.md, in combination: everything that may happen around an incident, each with each, in
//! either order, and some with two others; judged by what is so, and by a table that is smaller than the rules.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_core::cause::Cause;

use holdfast_core::message::{Content, Seen, Sighting};

use crate::causes::{MS, SOON, alone, quiet, story};
use crate::dice::Dice;
use crate::note;
use crate::world::{Setup, World};

/// How many triples are drawn.
const TRIPLES: usize = 80;

/// The time between two things that happen.
const GAP: Duration = Duration::from_millis(900);

/// How long it is watched whether a node opens by itself.
const WATCHED: u64 = 30_000;

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    NodeRestarted,
    SealedInPlace,
    /// Nobody is told, or something on the way ends the connections; until the end.
    NetworkCut,
    NetworkReset,
    /// Between the end of the node's process and the next one's start.
    NetworkCutDuringARestart,
    /// SIGSTOP; SIGCONT at the end.
    NodeHangs,
    /// SIGSTOP, connections end, connects time out, SIGCONT.
    ConnectTimedOut,
    OneCustodianRestarted,
    AllCustodiansRestarted,
    OneHostRebooted,
    PowerCut,
    CustodiansStoppedOnPurpose,
    BrokerAway,
    CustodiansReload,
    CertificateReplaced,
    ClocksJumpAhead,
    ClocksSetBack,
    SentinelLies,
    CustodianLies,
}

const ROWS: [Row; 19] = [
    Row::NodeRestarted,
    Row::SealedInPlace,
    Row::NetworkCut,
    Row::NetworkReset,
    Row::NetworkCutDuringARestart,
    Row::NodeHangs,
    Row::ConnectTimedOut,
    Row::OneCustodianRestarted,
    Row::AllCustodiansRestarted,
    Row::OneHostRebooted,
    Row::PowerCut,
    Row::CustodiansStoppedOnPurpose,
    Row::BrokerAway,
    Row::CustodiansReload,
    Row::CertificateReplaced,
    Row::ClocksJumpAhead,
    Row::ClocksSetBack,
    Row::SentinelLies,
    Row::CustodianLies,
];

/// What is so, as only the simulation knows.
#[derive(Debug, Clone, Default)]
struct Truth {
    /// Somebody sealed it while it was open, and custodians that could see it, or a sentinel, were there.
    sealed: bool,
    /// Nobody who lives could see that, before the process was gone.
    sealed_unseen: bool,
    /// The node's process is another one than the one that was open.
    restarted: bool,
    /// Every custodian's host was rebooted, and none of them saw it open since.
    rebooted: bool,
    /// Every custodian was stopped on purpose since it saw the node open.
    stopped: bool,
    clocks_back: bool,
    lied: bool,
}

impl World {
    fn happens(&mut self, row: Row, truth: &mut Truth) {
        note!(self, "--- {row:?}");
        match row {
            Row::NodeRestarted => {
                truth.restarted = true;
                self.restart_node(0, MS * 300);
            }
            Row::SealedInPlace => {
                let hangs = self.vaults[0].process.as_ref().is_some_and(|process| process.frozen);
                if self.vaults[0].is_open() && !hangs {
                    truth.sealed = true;
                    truth.sealed_unseen = self.links.iter().all(|links| links[0].cut) && !self.is_watched();
                }
                self.seal_node(0);
            }
            Row::NetworkCut => self.for_all(|world, c| world.cut(c, 0, false)),
            Row::NetworkReset => self.for_all(|world, c| world.cut(c, 0, true)),
            Row::NetworkCutDuringARestart => {
                truth.restarted = true;
                self.kill_node(0);
                self.run(MS * 200);
                self.for_all(|world, c| world.cut(c, 0, c % 2 == 0));
                self.run(MS * 200);
                self.start_node(0);
            }
            Row::NodeHangs => self.freeze_node(0),
            Row::ConnectTimedOut => {
                self.freeze_node(0);
                self.for_all(|world, c| world.cut(c, 0, true));
                self.for_all(|world, c| world.heal(c, 0));
                self.run(MS * 6_000);
                self.thaw_node(0);
                self.run(MS * 1_000);
            }
            Row::OneCustodianRestarted => self.again(&[1]),
            Row::AllCustodiansRestarted => self.again(&[0, 1, 2, 3, 4]),
            Row::OneHostRebooted => {
                self.reboot_host(1);
                self.start_custodian(1);
            }
            Row::PowerCut => {
                self.power_off(0);
                self.for_all(World::reboot_host);
                self.run(MS * 5_000);
                self.start_node(0);
                self.for_all(World::start_custodian);
                (truth.restarted, truth.rebooted) = (true, true);
            }
            Row::CustodiansStoppedOnPurpose => {
                self.for_all(World::stop_custodian);
                self.run(MS * 500);
                self.for_all(World::start_custodian);
                truth.stopped = true;
            }
            Row::BrokerAway => self.broker_down(),
            Row::CustodiansReload => self.for_all(|world, c| world.reload(c, &BTreeSet::new())),
            Row::CertificateReplaced => {
                let (cluster, name, until) = (self.cluster, self.names[0].clone(), self.wall(86_400_000));
                self.for_all(|world, c| {
                    world.tell(c, |core, now| core.handle_identity(cluster, &name, Ok(Some(until)), now));
                });
            }
            Row::ClocksJumpAhead => self.for_all(|world, c| world.hosts[c].offset = 3_600_000),
            Row::ClocksSetBack => {
                truth.clocks_back = true;
                self.for_all(|world, c| world.hosts[c].offset = -3_600_000);
            }
            Row::SentinelLies => {
                truth.lied = true;
                let at = self.wall(50);
                self.sentinel_claims(0, Seen::Sealed, Some(Cause::InPlace), at);
            }
            Row::CustodianLies => {
                truth.lied = true;
                let (node, at) = (self.names[0].clone(), self.wall(50));
                let seen = Sighting { node, seen: Seen::Sealed, cause: Some(Cause::InPlace), seen_at: at };
                self.claim(4, Content::Sighting(seen));
                self.claim_opened(4, 0, None);
            }
        }
        self.run(GAP);
        if self.all_open() && self.seen_open_by(0) >= 3 {
            // It was opened meanwhile, and seen: whatever comes is another incident.
            (truth.rebooted, truth.stopped) = (false, false);
        }
    }

    fn again(&mut self, which: &[usize]) {
        for c in which {
            self.kill_custodian(*c);
            self.start_custodian(*c);
        }
    }

    /// Whether a sentinel sees the node, and is heard.
    fn is_watched(&self) -> bool {
        self.setup.sentinel && self.post.up
    }

    /// Everything that lasts ends. Clocks stay as they are.
    fn ends(&mut self) {
        self.for_all(|world, c| world.heal(c, 0));
        self.thaw_node(0);
        self.broker_up();
    }
}

/// Whether the node must be open by itself in the end, or must not; where neither is said, either is right.
fn table(truth: &Truth, witnesses: usize, threshold: usize) -> Option<bool> {
    match truth {
        Truth { sealed: false, restarted: false, .. } => Some(true),
        Truth { sealed: true, sealed_unseen: false, .. } => Some(false),
        // Seen by nobody, and its process is gone: it looks like a restart, and is a known limit.
        Truth { sealed: true, restarted: true, .. } => None,
        Truth { sealed: true, .. } => Some(false),
        // A lie may come too late to keep it shut, and never opens anything that was not restarted.
        Truth { lied: true, .. } => None,
        _ if witnesses >= threshold => Some(true),
        Truth { rebooted: true, stopped: false, clocks_back: false, .. } => Some(true),
        Truth { rebooted: true, .. } => Some(false),
        _ => Some(false),
    }
}

fn run(setup: Setup, rows: &[Row]) {
    let threshold = usize::from(setup.threshold);
    let jumps = rows.iter().any(|row| matches!(row, Row::ClocksJumpAhead | Row::ClocksSetBack));
    let skew = if jumps { MS * 3_600_000 } else { Duration::ZERO };
    let mut world = World::open(Setup { skew, ..setup });
    world.oracle.calm = false;
    let mut truth = Truth::default();
    let mut process = world.vaults[0].process.as_ref().map_or(0, |process| process.id);
    let since = world.now;
    for row in rows {
        if world.all_open() && world.seen_open_by(0) == 5 {
            // What was open until now is what the next incident is about.
            process = world.vaults[0].process.as_ref().map_or(process, |process| process.id);
            truth.restarted = false;
        }
        world.happens(*row, &mut truth);
    }
    let witnesses = (0..5).filter(|c| world.oracle.saw_open(*c, 0, process)).count();
    let was_open = world.all_open();
    world.ends();
    let expected = if was_open && !truth.sealed { Some(true) } else { table(&truth, witnesses, threshold) };
    let opened = match expected {
        Some(true) => world.until(WATCHED, World::all_open),
        _ => {
            world.run(Duration::from_millis(WATCHED));
            world.all_open()
        }
    };
    let causes: Vec<_> = (0..5).map(|c| world.cause(c, 0, since)).collect();
    let what = format!("{rows:?}: {truth:?}, {witnesses} witnesses, causes {causes:?}");
    assert!(expected.is_none_or(|expected| expected == opened), "open {opened}, {expected:?} expected: {what}");
    if truth.sealed && !opened {
        let in_place = causes.iter().filter(|cause| **cause == Some(Cause::InPlace)).count();
        assert!(
            in_place > 0 || truth.sealed_unseen || truth.rebooted || witnesses == 0,
            "nobody calls it in place: {what}"
        );
    }
    // Whatever it was, people end it, with the right time.
    for c in 0..5 {
        world.hosts[c].offset = 0;
    }
    if jumps {
        world.advance_clocks(3_600_000);
    }
    world.run(MS * 2_000);
    world.approve_by([0, 1]);
    assert!(world.until(SOON, World::all_open), "approved, and not open: {what}");
}

fn setups(seed: u64) -> [Setup; 2] {
    [quiet(seed), alone(seed)]
}

#[test]
fn each_line_of_the_table_with_each_other_in_either_order() {
    for (number, first) in (0..).zip(ROWS) {
        for (other, second) in (0..).zip(ROWS) {
            let seed = 1 + number * 100 + other;
            let setup = setups(seed)[usize::from(seed % 2 == 0)].clone();
            story(|| run(setup, &[first, second]));
        }
    }
}

#[test]
fn each_line_of_the_table_alone() {
    for row in ROWS {
        for setup in setups(1) {
            story(|| run(setup, &[row]));
        }
    }
}

#[test]
fn some_lines_of_the_table_with_two_others() {
    let mut dice = Dice::new(3);
    for seed in 0..TRIPLES as u64 {
        let rows = [0; 3].map(|_| ROWS[dice.below(ROWS.len())]);
        let setup = setups(seed)[dice.below(2)].clone();
        story(|| run(setup, &rows));
    }
}

#[test]
fn seen_open_after_a_reboot_a_killed_custodian_calls_nothing_an_outage() {
    story(|| {
        let mut world = World::open(alone(1));
        world.for_all(World::reboot_host);
        world.run(MS * 2_000);
        world.for_all(World::start_custodian);
        assert!(world.until(SOON, World::all_seen_open), "seen open in this boot");
        world.for_all(World::kill_custodian);
        world.seal_node(0);
        world.run(MS * 500);
        world.for_all(World::start_custodian);
        world.expect_shut(MS * 20_000, "sealed by hand, while nobody looked");
        // The other way round: stopped, started, and then the power went.
        let mut world = World::open(alone(2));
        world.for_all(World::stop_custodian);
        world.for_all(World::start_custodian);
        assert!(world.until(SOON, World::all_seen_open), "seen open since");
        crate::causes::power_cut(&mut world, MS * 5_000);
        world.expect_open("an outage");
    });
}
