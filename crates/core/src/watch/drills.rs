//! The drills of one cluster, as its conductors' signed reports tell: those that run, the latest that are over, and which incident
//! of a node is a drill's.
//!
//! A schedule's time that came and brought no drill is told of: a conductor plans the next one in the very moment in which one is due,
//! so that what it plans never lies behind. What was planned is remembered from its heartbeats, by this process alone.
//!
//! The first report that closes a drill stands: neither its own conductor nor another one can change it. Whoever takes over a drill whose
//! conductor went away knows of no good end, and may tell of none.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::id::{DrillId, MessageId, NodeName, Principal};
use crate::message::{DrillResult, Intent, Phase};
use crate::status::{DrillStatus, DrillSummary};
use crate::time::Timestamp;

/// How many drills that are over are kept in memory for each cluster: what people look at. The database has more.
pub const DRILLS_KEPT: usize = 32;

/// How many drills that run are kept: no cluster has so many conductors, and each holds one at a time.
const RUNNING_MAX: usize = 8;

/// How long a drill counts as running of which nothing more is heard: an intent holds for a quarter of an hour.
const RUNNING_LIFE: Duration = Duration::from_secs(20 * 60);

/// How many intents are remembered, so that receipts which name them can be told to be a drill's.
const INTENTS_KEPT: usize = 64;

/// How far a conductor's clock may be ahead of the sentinel's, or behind: farther, it is not heard.
const CLOCKS: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Drills {
    running: VecDeque<DrillStatus>,
    /// The oldest first, in the order in which they were heard.
    closed: VecDeque<DrillStatus>,
    intents: VecDeque<(MessageId, NodeName, DrillId)>,
    last_success: Option<Timestamp>,
    last_closed: Option<Timestamp>,
    last_recovery_us: BTreeMap<NodeName, u64>,
    /// The next drill of each conductor that has a schedule, as it last told.
    planned: BTreeMap<Principal, Timestamp>,
    /// The first drill that was due, as conductors had told that plan a later one now, and of which no end was heard.
    missed: Option<Timestamp>,
    /// Drills that were heard to be over, by result.
    pub(super) totals: BTreeMap<DrillResult, u64>,
}

impl Drills {
    /// Takes back what an earlier process knew, the oldest first. Nothing of it is counted again.
    pub(super) fn restore(
        &mut self,
        closed: impl IntoIterator<Item = DrillStatus>,
        is_watched: impl Fn(&NodeName) -> bool,
    ) {
        for drill in closed {
            self.remember_intent(&drill);
            self.keep(drill, &is_watched);
        }
    }

    /// A conductor announced a drill.
    pub(super) fn announced(&mut self, id: MessageId, intent: &Intent) {
        self.remember(id, &intent.node, intent.drill);
    }

    /// A conductor told how a drill goes. Whether that closed it.
    pub(super) fn heard(&mut self, drill: DrillStatus, is_watched: impl Fn(&NodeName) -> bool) -> bool {
        let id = drill.report.drill;
        if self.closed.iter().any(|known| known.report.drill == id) {
            return false;
        }
        let known = self.running.iter().position(|running| running.report.drill == id);
        let same = known.and_then(|at| self.running.get(at)).map(|running| running.conductor == drill.conductor);
        let result = drill.report.result.filter(|_| drill.report.phase == Phase::Closed);
        let taken_over = matches!(result, Some(DrillResult::Interrupted | DrillResult::Failed | DrillResult::Aborted));
        if same == Some(false) && !taken_over {
            return false;
        }
        self.remember_intent(&drill);
        let Some(result) = result else {
            self.goes_on(known, drill);
            return false;
        };
        self.running.retain(|running| running.report.drill != id);
        *self.totals.entry(result).or_default() += 1;
        self.keep(drill, is_watched);
        true
    }

    /// The drill of which an intent is that receipts about a node name.
    pub(super) fn of_intent(&self, id: MessageId, node: &NodeName) -> Option<DrillId> {
        self.intents.iter().find(|(intent, of, _)| *intent == id && of == node).map(|(.., drill)| *drill)
    }

    /// What runs, then the latest that are over, the newest first.
    pub(super) fn recent(&self, now: Timestamp) -> impl Iterator<Item = &DrillStatus> {
        let runs = move |drill: &&DrillStatus| now.since(drill.heard_at) < RUNNING_LIFE;
        self.running.iter().rev().filter(runs).chain(self.closed.iter().rev())
    }

    /// What is known of all of them.
    pub(super) fn summary(&self, next: Option<Timestamp>, now: Timestamp) -> DrillSummary {
        DrillSummary {
            next,
            due: self.due(now),
            last_success: self.last_success,
            last_closed: self.last_closed,
            last_recovery_us: self.last_recovery_us.clone(),
        }
    }

    /// A conductor told when its next drill is, or that it plans none.
    pub(super) fn plans(&mut self, conductor: &Principal, next: Option<Timestamp>, now: Timestamp) {
        let before = match next {
            Some(next) => self.planned.insert(conductor.clone(), next),
            None => self.planned.remove(conductor),
        };
        // One that is told again is still planned.
        let came = before.filter(|at| Some(*at) != next && Self::came(*at, now));
        self.missed = self.missed.into_iter().chain(came).filter(|at| !self.took_place(*at)).min();
    }

    /// Takes over a changed configuration.
    pub(super) fn reconfigure(&mut self, is_watched: impl Fn(&NodeName) -> bool) {
        self.last_recovery_us.retain(|node, _| is_watched(node));
    }

    /// Nobody else conducts.
    pub(super) fn conducted_by(&mut self, conductors: &BTreeSet<Principal>) {
        self.planned.retain(|conductor, _| conductors.contains(conductor));
    }

    /// Since when a drill is due of which no end was heard.
    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let planned = self.planned.values().copied().filter(|at| Self::came(*at, now));
        self.missed.into_iter().chain(planned).filter(|at| !self.took_place(*at)).min()
    }

    fn came(at: Timestamp, now: Timestamp) -> bool {
        at <= now.after(CLOCKS)
    }

    /// Whether a drill was heard to be over since then, however it went.
    fn took_place(&self, at: Timestamp) -> bool {
        self.last_closed.is_some_and(|closed| closed >= at.before(CLOCKS))
    }

    fn goes_on(&mut self, known: Option<usize>, drill: DrillStatus) {
        match known.and_then(|at| self.running.get_mut(at)) {
            // What comes late is no news.
            Some(running) if running.report.phase > drill.report.phase => {}
            Some(running) => *running = drill,
            None => {
                // A conductor holds one drill at a time: of one before it, no more will come.
                self.running.retain(|running| running.conductor != drill.conductor);
                if self.running.len() >= RUNNING_MAX {
                    self.running.pop_front();
                }
                self.running.push_back(drill);
            }
        }
    }

    fn keep(&mut self, drill: DrillStatus, is_watched: impl Fn(&NodeName) -> bool) {
        let report = &drill.report;
        self.last_closed = self.last_closed.max(Some(drill.heard_at));
        if report.result == Some(DrillResult::Passed) {
            // Never later than it was heard: nobody makes the last one seem to lie ahead.
            let at = report.closed_at.unwrap_or(drill.issued_at).min(drill.heard_at);
            self.last_success = self.last_success.max(Some(at));
        }
        // How long people take is no recovery of the network's.
        let recovery = report.recovery_us.filter(|_| !report.people);
        if let (Some(node), Some(recovery_us)) = (&report.node, recovery) {
            // Others are not remembered: there are as many as a conductor cares to make up.
            if is_watched(node) {
                self.last_recovery_us.insert(node.clone(), recovery_us);
            }
        }
        self.closed.push_back(drill);
        if self.closed.len() > DRILLS_KEPT {
            self.closed.pop_front();
        }
    }

    fn remember_intent(&mut self, drill: &DrillStatus) {
        if let (Some(intent), Some(node)) = (drill.report.intent, &drill.report.node) {
            self.remember(intent, node, drill.report.drill);
        }
    }

    /// The first word on an intent counts.
    fn remember(&mut self, id: MessageId, node: &NodeName, drill: DrillId) {
        if self.intents.iter().any(|(known, ..)| *known == id) {
            return;
        }
        if self.intents.len() >= INTENTS_KEPT {
            self.intents.pop_front();
        }
        self.intents.push_back((id, node.clone(), drill));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::id::SlotId;
    use crate::message::DrillReport;

    /// A report of a drill of vault-1, with a result where it is over.
    pub(in crate::watch) fn report(drill: u8, phase: Phase, result: Option<DrillResult>) -> DrillReport {
        let at = Timestamp::from_millis(1_800_000_000_000);
        DrillReport {
            drill: DrillId::from_bytes([drill; 16]),
            slot: SlotId::of_time(at),
            node: Some("vault-1".parse().expect("a name")),
            ordered_by: None,
            reason: None,
            people: false,
            phase,
            result,
            why: None,
            began_at: at,
            announced_at: Some(at),
            seal_sent_at: None,
            sealed_at: None,
            opened_at: None,
            served_at: None,
            closed_at: result.map(|_| at),
            recovery_us: result.map(|_| 41_000 + u64::from(drill)),
            objective_ms: 30_000,
            before: None,
            after: None,
            threshold: 3,
            submitters: Vec::new(),
            taken_by: Vec::new(),
            declined: BTreeMap::new(),
            responses: BTreeMap::new(),
            approvals: BTreeMap::new(),
            canary: None,
            intent: Some(MessageId::from_bytes([drill; 16])),
        }
    }

    fn heard(conductor: &str, at: i64, report: DrillReport) -> DrillStatus {
        let at = Timestamp::from_millis(1_800_000_000_000 + at);
        DrillStatus { conductor: conductor.parse().expect("a name"), issued_at: at, heard_at: at, report }
    }

    fn hear(drills: &mut Drills, drill: DrillStatus) -> bool {
        drills.heard(drill, |node| node.as_str() == "vault-1")
    }

    fn shown(drills: &Drills, at: i64) -> Vec<(u8, &str, &'static str)> {
        let of = |drill: &'_ DrillStatus| {
            let result = drill.report.result.map_or(drill.report.phase.as_str(), DrillResult::as_str);
            (drill.report.drill.as_bytes()[0], result)
        };
        let recent = drills.recent(Timestamp::from_millis(1_800_000_000_000 + at));
        recent.map(|drill| (of(drill).0, drill.conductor.as_str(), of(drill).1)).collect()
    }

    #[test]
    fn a_drill_goes_on_until_it_is_over_and_then_nobody_changes_it() {
        let mut drills = Drills::default();
        assert!(!hear(&mut drills, heard("one", 0, report(1, Phase::Announced, None))));
        assert!(!hear(&mut drills, heard("one", 5, report(1, Phase::Sealed, None))));
        assert!(!hear(&mut drills, heard("one", 6, report(1, Phase::Preflight, None))), "it came late");
        assert_eq!(shown(&drills, 10), [(1, "one", "sealed")]);
        for (conductor, result) in [("two", DrillResult::Passed), ("two", DrillResult::Refused)] {
            assert!(
                !hear(&mut drills, heard(conductor, 7, report(1, Phase::Closed, Some(result)))),
                "no other's to say"
            );
        }
        assert!(!hear(&mut drills, heard("two", 7, report(1, Phase::Open, None))));
        assert!(hear(&mut drills, heard("one", 8, report(1, Phase::Closed, Some(DrillResult::Passed)))));
        for conductor in ["one", "two"] {
            for result in [DrillResult::Failed, DrillResult::Passed, DrillResult::Interrupted] {
                assert!(!hear(&mut drills, heard(conductor, 9, report(1, Phase::Closed, Some(result)))));
            }
            assert!(!hear(&mut drills, heard(conductor, 9, report(1, Phase::Sealed, None))));
        }
        assert_eq!(shown(&drills, 10), [(1, "one", "passed")]);
        assert_eq!(drills.totals, BTreeMap::from([(DrillResult::Passed, 1)]), "told twice, counted once");
    }

    #[test]
    fn who_takes_over_a_drill_may_close_it_and_one_conductor_is_at_one_drill() {
        let mut drills = Drills::default();
        hear(&mut drills, heard("one", 0, report(1, Phase::Sealed, None)));
        assert!(hear(&mut drills, heard("two", 1, report(1, Phase::Closed, Some(DrillResult::Interrupted)))));
        hear(&mut drills, heard("one", 2, report(2, Phase::Sealed, None)));
        hear(&mut drills, heard("one", 3, report(3, Phase::Preflight, None)));
        hear(&mut drills, heard("two", 4, report(4, Phase::Preflight, None)));
        assert_eq!(shown(&drills, 5), [(4, "two", "preflight"), (3, "one", "preflight"), (1, "two", "interrupted")]);
        let later = i64::try_from(RUNNING_LIFE.as_millis()).expect("small") + 3;
        assert_eq!(
            shown(&drills, later),
            [(4, "two", "preflight"), (1, "two", "interrupted")],
            "nobody waits for ever"
        );
        for i in 0..50 {
            hear(&mut drills, heard(&format!("conductor-{i}"), 6, report(100 + i, Phase::Preflight, None)));
        }
        assert_eq!(drills.running.len(), RUNNING_MAX);
    }

    #[test]
    fn the_latest_are_kept_and_what_was_last_is_known_beyond_them_and_after_a_start() {
        let mut drills = Drills::default();
        hear(&mut drills, heard("one", 7, report(1, Phase::Closed, Some(DrillResult::Passed))));
        for i in 2..60 {
            hear(&mut drills, heard("one", i.into(), report(i, Phase::Closed, Some(DrillResult::Failed))));
        }
        assert_eq!((drills.closed.len(), shown(&drills, 99)[0]), (DRILLS_KEPT, (59, "one", "failed")));
        let node: NodeName = "vault-1".parse().expect("a name");
        let summary = drills.summary(None, Timestamp::default());
        assert_eq!(summary.last_success, Some(Timestamp::from_millis(1_800_000_000_000)));
        assert_eq!(summary.last_recovery_us, BTreeMap::from([(node, 41_059)]));
        let mut made_up = report(60, Phase::Closed, Some(DrillResult::Failed));
        made_up.node = Some("made-up".parse().expect("a name"));
        hear(&mut drills, heard("one", 60, made_up));
        assert_eq!(drills.summary(None, Timestamp::default()).last_recovery_us.len(), 1, "nobody makes up a node");

        let mut next = Drills::default();
        next.restore(drills.closed.clone(), |_| true);
        assert_eq!((shown(&next, 99), next.totals.len()), (shown(&drills, 99), 0));
        let mut ahead = report(61, Phase::Closed, Some(DrillResult::Passed));
        ahead.closed_at = Some(Timestamp::from_millis(i64::MAX));
        hear(&mut next, heard("one", 100, ahead));
        let last = next.summary(None, Timestamp::default()).last_success;
        assert_eq!(last, Some(Timestamp::from_millis(1_800_000_000_100)), "no success lies ahead");
    }

    #[test]
    fn an_intent_is_known_by_its_node_and_the_first_word_on_it_counts() {
        let mut drills = Drills::default();
        hear(&mut drills, heard("one", 0, report(1, Phase::Announced, None)));
        let mut stolen = report(2, Phase::Announced, None);
        stolen.intent = Some(MessageId::from_bytes([1; 16]));
        hear(&mut drills, heard("two", 1, stolen));
        let (here, there) = ("vault-1".parse().expect("a name"), "vault-2".parse().expect("a name"));
        assert_eq!(drills.of_intent(MessageId::from_bytes([1; 16]), &here), Some(DrillId::from_bytes([1; 16])));
        assert_eq!(drills.of_intent(MessageId::from_bytes([1; 16]), &there), None);
        assert_eq!(drills.of_intent(MessageId::from_bytes([9; 16]), &here), None);
    }

    /// As the schedule of a conductor goes: in the moment in which one is due, the next one is planned.
    #[test]
    fn a_drill_that_was_due_and_did_not_take_place_is_told_of_until_one_does() {
        const WEEK: i64 = 7 * 86_400_000;
        let at = |millis: i64| Timestamp::from_millis(1_800_000_000_000 + millis);
        let due = |drills: &Drills, now: i64| drills.summary(None, at(now)).due;
        let (one, two) = ("one".parse().expect("a name"), "two".parse().expect("a name"));
        let mut drills = Drills::default();
        drills.plans(&one, Some(at(WEEK)), at(0));
        drills.plans(&two, Some(at(WEEK)), at(5_000));
        assert_eq!(due(&drills, WEEK - 3_600_000), None, "it lies ahead");
        // A conductor whose clock is ahead a little.
        drills.plans(&one, Some(at(2 * WEEK)), at(WEEK - 2_000));
        assert_eq!(due(&drills, WEEK), Some(at(WEEK)));
        drills.plans(&two, Some(at(2 * WEEK)), at(WEEK + 8_000));
        assert_eq!(due(&drills, WEEK + 3_600_000), Some(at(WEEK)), "whatever is planned now");
        // Both conductors are silent over the next one.
        assert_eq!(due(&drills, 2 * WEEK), Some(at(WEEK)), "since the first");
        for (drill, result) in [(1, DrillResult::Refused), (2, DrillResult::Passed)] {
            hear(&mut drills, heard("one", 2 * WEEK + 1_000, report(drill, Phase::Closed, Some(result))));
            assert_eq!(due(&drills, 2 * WEEK + 3_600_000), None, "how it went is another question");
        }
        drills.plans(&one, Some(at(3 * WEEK)), at(2 * WEEK + 9_000));
        drills.plans(&two, Some(at(3 * WEEK)), at(2 * WEEK + 9_000));
        assert_eq!(due(&drills, 2 * WEEK + 3_600_000), None);
        assert_eq!(due(&drills, 3 * WEEK), Some(at(3 * WEEK)), "a conductor that died had told of it");
        drills.conducted_by(&[two.clone()].into());
        assert_eq!(due(&drills, 3 * WEEK), Some(at(3 * WEEK)));
        drills.conducted_by(&BTreeSet::new());
        assert_eq!(due(&drills, 3 * WEEK), None, "who conducts no more, planned nothing");
        drills.plans(&two, Some(at(4 * WEEK)), at(3 * WEEK));
        drills.plans(&two, None, at(3 * WEEK + 10_000));
        assert_eq!(due(&drills, 4 * WEEK), None, "the schedule was taken out before");
        drills.plans(&two, Some(at(5 * WEEK)), at(4 * WEEK));
        drills.plans(&two, Some(at(6 * WEEK)), at(4 * WEEK + 10_000));
        assert_eq!(due(&drills, 5 * WEEK), None, "it was changed before");
    }
}
