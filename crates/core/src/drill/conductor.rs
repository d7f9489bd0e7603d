//! A conductor: holds one drill at a time, from the preflight to the report.
//!
//! What lives here: the order of the steps, what has to hold before each, and what is written down. What does not: whether a
//! custodian takes an intent (`custodian`), the request that seals, the eyes that measure, and the queue that elects one
//! conductor of several. That queue fences nothing: each slot is good for one intent at every custodian, and that does.
//!
//! A conductor can be gone at any moment. Before each step what it is at is on disk, and told: whoever finds an unfinished
//! drill, itself after a start or another conductor that is handed its slot, never seals for it again; it waits until the node is
//! open and closes the drill as interrupted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::custodian::{INTENT_LIFE, SEAL_WITHIN};
use crate::id::{ClusterId, DrillId, MessageId, NodeName, Principal, SlotId};
use crate::message::{
    Approved, Canary, DrillOrder, DrillReport, DrillResult, Effect, Header, Intent, Phase, Receipt, Refusal, Response,
    Serving, Submission, plain_text,
};
use crate::release::Revocation;
use crate::time::{Now, Steady, Timestamp};

use super::canary::{CanaryPath, Fingerprint};
use super::preflight::{Survey, choose, fingerprint, preflight};

/// How long a survey of the nodes may take.
const SURVEY_MAX: Duration = Duration::from_secs(5);

/// How long custodians have to answer to an intent: each has to look at the node first.
const ANSWERS_MAX: Duration = Duration::from_secs(5);

/// What is said of a custodian that has not answered to an intent by then.
const NO_ANSWER: &str = "it did not answer";

/// How long after it was announced a seal may still be begun: well before custodians' time is over, so that a conductor that was
/// stopped in the middle leaves nothing sealed.
const SEAL_UNTIL: Duration = Duration::from_secs(20);

/// How long after the order to seal the node must be seen sealed.
const SEALED_MAX: Duration = Duration::from_secs(10);

/// How long an open node has to serve again: a follower joins within a second, a leader is elected within three.
const SERVES_MAX: Duration = Duration::from_secs(60);

/// How long people may take in a drill that they have to approve: the broker takes back, after half an hour, what it handed out.
pub const PEOPLE_MAX: Duration = Duration::from_secs(25 * 60);

/// How long receipts are waited for when all is over.
const SETTLE: Duration = Duration::from_secs(1);

/// How long a node must be seen open before a drill of which nothing more is known is closed.
const QUIET: Duration = Duration::from_secs(3);

/// How often a drill that is looked after is.
const LOOK: Duration = Duration::from_secs(1);

/// How long a drill waits before it is begun: what another conductor said of it before it went away comes on another road.
const LISTEN: Duration = Duration::from_millis(500);

/// How long a drill that another conductor says to be at is not begun anew: its intent may be on its way here.
const TAKEOVER_WAIT: Duration = Duration::from_secs(3);

/// How many drills may wait for their turn.
const WAITING_MAX: usize = 16;

/// How many slots are known to be over.
const DONE_MAX: usize = 256;

/// How a conductor holds drills, as its configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conducting {
    /// Which node, where an order does not name one.
    pub node: Choice,
    /// How many nodes are open during a drill at least.
    pub min_unsealed: usize,
    /// How long the recovery may take.
    pub objective: Duration,
    /// How long it may take where people have to approve it.
    pub people_objective: Duration,
    /// What is read through the node before and after, if anything is.
    pub canary: Option<CanaryPath>,
}

/// Which node is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The stand-bys in turn.
    Rotate,
    /// The active one.
    Active,
    /// This one.
    Node(NodeName),
}

/// What a drill is held for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The schedule's time, or the order.
    pub slot: SlotId,
    /// Until when it may begin.
    pub until: Timestamp,
    /// The order, where it is one.
    pub order: Option<Ordered>,
}

/// An operator's order for a drill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered {
    /// The operator.
    pub by: Principal,
    /// What he ordered.
    pub order: DrillOrder,
    /// As he signed it.
    pub envelope: String,
}

/// What the conductor's own custodian sees.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Each node.
    pub nodes: BTreeMap<NodeName, NodeView>,
    /// Whether whoever speaks was heard: for a while after a start nobody was yet.
    pub heard_all: bool,
    /// The cluster's custodians.
    pub custodians: BTreeSet<Principal>,
    /// How many shares open a node.
    pub threshold: u8,
    /// Whether it took an intent, whose ever, for what the next drill that waits is held for.
    pub intent_taken: bool,
}

/// What the conductor's own custodian sees of one node.
#[derive(Debug, Clone, Default)]
pub struct NodeView {
    /// Whether it is seen open.
    pub open: bool,
    /// What speaks against a drill: a hold, a marker, an incident.
    pub trouble: Option<&'static str>,
    /// Whether an operator's hold keeps it shut.
    pub held: bool,
    /// Which custodians could open it now.
    pub ready: BTreeSet<Principal>,
}

/// The order to seal a node, to be carried out at once or not at all.
#[derive(Debug)]
pub struct SealOrder {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeName,
    /// The drill.
    pub drill: DrillId,
    until: Now,
    revoked: Revocation,
}

impl SealOrder {
    /// Whether it still holds at `now`, by both clocks: the steady one stands still while a machine is suspended. To be asked right before the
    /// request leaves.
    pub fn stands(&self, now: Now) -> bool {
        now.steady < self.until.steady && now.wall < self.until.wall && !self.revoked.is_revoked()
    }
}

/// What was seen of the node in a drill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// The node was not told to seal itself, or refused to.
    NotSealed(String),
    /// It was first seen sealed.
    Sealed(Timestamp),
    /// Contact was lost while it was sealed.
    Lost,
    /// It was first seen open again, so long after it was first seen sealed.
    Open(Timestamp, Duration),
    /// It serves again.
    Serves(Timestamp, Serving),
    /// The canary was read through it, or why it was not yet.
    Canary(Timestamp, Result<Fingerprint, String>),
}

/// What a conductor has to have done.
#[derive(Debug)]
pub enum Demand {
    /// Write its memory to disk before anything that follows.
    Save,
    /// Ask every node what it does for its clients.
    Survey,
    /// Sign and publish the intent, as this message, and have the own custodian take it too.
    Announce(MessageId, Intent),
    /// Sign and publish the report.
    Report(Box<DrillReport>),
    /// Seal the node and watch it.
    Seal(SealOrder),
    /// Watch the node no more.
    Unwatch(DrillId),
    /// What was handed out for this slot is done.
    Settled(SlotId),
}

/// What a conductor must still know after `kill -9`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// The drill that it is at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    running: Option<DrillReport>,
    /// The last report, told again after a start: nobody may have heard it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<DrillReport>,
    /// When each node was last drilled.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    drilled: BTreeMap<NodeName, Timestamp>,
    /// When each custodian's share last helped to open a node in a drill.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    proven: BTreeMap<Principal, Timestamp>,
    /// Slots whose drill is over.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    done: VecDeque<SlotId>,
}

#[derive(Debug)]
enum Step {
    Survey {
        since: Steady,
    },
    Answers {
        since: Steady,
        asked: BTreeSet<Principal>,
        answered: BTreeSet<Principal>,
    },
    Seal {
        since: Steady,
        revoked: Revocation,
        /// Who took the intent, and then said that it does not count any more.
        withdrawn: BTreeMap<Principal, String>,
    },
    Sealed {
        since: Steady,
        lost: bool,
    },
    Open {
        since: Steady,
        /// Why the canary was not read yet.
        unread: Option<String>,
    },
    Settle {
        since: Steady,
        result: DrillResult,
    },
    /// Somebody else's drill, or one of an earlier process: looked after until the node is open.
    LookAfter {
        since: Steady,
        next: Steady,
        open_since: Option<Steady>,
        why: String,
        /// Whose it is, where it is not this conductor's own.
        other: Option<Principal>,
    },
}

#[derive(Debug)]
struct Running {
    report: DrillReport,
    order: Option<Ordered>,
    step: Step,
    refusals: BTreeMap<Principal, String>,
    /// The canary as it was before. In memory alone: who comes after does not end the drill well.
    canary: Option<Fingerprint>,
}

/// A cluster's conductor.
#[derive(Debug)]
pub struct Conductor {
    cluster: ClusterId,
    settings: Conducting,
    memory: Memory,
    waiting: VecDeque<Task>,
    /// Since when the next one is held back, and until when.
    held_back: Option<(Steady, Steady)>,
    running: Option<Running>,
    /// What each other conductor is at, as it says.
    others: BTreeMap<Principal, DrillReport>,
    demands: VecDeque<Demand>,
}

impl Conductor {
    /// A conductor that starts now, with what an earlier process left.
    pub fn new(cluster: ClusterId, settings: Conducting, mut memory: Memory, now: Now) -> Self {
        let running = memory.running.take().map(|report| Running {
            report,
            order: None,
            step: Step::LookAfter {
                since: now.steady,
                next: now.steady,
                open_since: None,
                why: "its conductor was started anew in the middle".to_owned(),
                other: None,
            },
            refusals: BTreeMap::new(),
            canary: None,
        });
        memory.drilled.values_mut().chain(memory.proven.values_mut()).for_each(|at| *at = (*at).min(now.wall));
        let told_again = memory.last.clone().map(|last| Demand::Report(Box::new(last)));
        let (waiting, others, demands) = (VecDeque::new(), BTreeMap::new(), told_again.into_iter().collect());
        Self { cluster, settings, memory, waiting, held_back: None, running, others, demands }
    }

    /// Takes over a changed configuration. A drill that runs goes on.
    pub fn reconfigure(&mut self, settings: Conducting) {
        self.settings = settings;
    }

    /// What must be on disk.
    pub fn memory(&self) -> Memory {
        let running = self.running.as_ref().map(|running| running.report.clone());
        Memory { running, ..self.memory.clone() }
    }

    /// What is to be done next.
    pub fn poll_demand(&mut self) -> Option<Demand> {
        self.demands.pop_front()
    }

    /// How many times of a schedule wait for their drill.
    pub fn times_waiting(&self) -> usize {
        self.waiting.iter().filter(|task| task.order.is_none()).count()
    }

    /// What the next drill that waits is held for.
    pub fn next_slot(&self) -> Option<&SlotId> {
        self.waiting.front().filter(|_| self.running.is_none()).map(|task| &task.slot)
    }

    /// A drill is to be held. Where too many wait, it is refused.
    pub fn handle_task(&mut self, task: Task, ids: &mut dyn FnMut() -> [u8; 16], now: Now) {
        let known = |slot: &SlotId| *slot == task.slot;
        if self.memory.done.iter().any(known) {
            return self.demands.push_back(Demand::Settled(task.slot));
        }
        let at_it = self.running.as_ref().is_some_and(|running| running.report.slot == task.slot);
        if at_it || self.waiting.iter().any(|waiting| waiting.slot == task.slot) {
            return;
        }
        if self.waiting.len() < WAITING_MAX {
            return self.waiting.push_back(task);
        }
        let mut report = self.blank(&task, DrillId::from_bytes(ids()), 0, now);
        (report.phase, report.result, report.closed_at) = (Phase::Closed, Some(DrillResult::Refused), Some(now.wall));
        report.why = Some(format!("{WAITING_MAX} drills wait for their turn already"));
        self.demands.push_back(Demand::Report(Box::new(report)));
        self.finish(task.slot);
    }

    /// What each node said.
    pub fn handle_survey(&mut self, survey: &Survey, view: &View, ids: &mut dyn FnMut() -> [u8; 16], now: Now) {
        let Some(running) = &mut self.running else { return };
        if !matches!(running.step, Step::Survey { .. }) {
            return;
        }
        let named = running.order.as_ref().and_then(|ordered| ordered.order.node.clone());
        let choice = named.map_or_else(|| self.settings.node.clone(), Choice::Node);
        let chosen = choose(&choice, survey, &self.memory.drilled).and_then(|node| {
            running.report.node = Some(node.clone());
            running.report.before = survey.get(&node).and_then(|said| said.serving);
            let ready = preflight(&node, survey, self.settings.min_unsealed, view)?;
            running.canary = fingerprint(&node, survey)?;
            Ok((node, ready))
        });
        match chosen {
            Ok((node, ready)) => self.announce(node, ready, view.threshold, ids, now),
            Err(why) => self.close(DrillResult::Refused, Some(&why), now),
        }
    }

    fn announce(
        &mut self,
        node: NodeName,
        ready: BTreeSet<Principal>,
        threshold: u8,
        ids: &mut dyn FnMut() -> [u8; 16],
        now: Now,
    ) {
        let Some(running) = &mut self.running else { return };
        let mut turn: Vec<_> = ready.iter().cloned().collect();
        turn.sort_by_key(|custodian| self.memory.proven.get(custodian).copied());
        // Where people have to approve, the intent says nothing of who submits: all goes as on the night when it counts.
        turn.truncate(if running.report.people { 0 } else { usize::from(threshold) });
        let id = MessageId::from_bytes(ids());
        let report = &mut running.report;
        (report.phase, report.announced_at, report.intent) = (Phase::Announced, Some(now.wall), Some(id));
        report.submitters.clone_from(&turn);
        let intent = Intent {
            drill: report.drill,
            node,
            slot: report.slot.clone(),
            submitters: turn,
            order: running.order.as_ref().map(|ordered| ordered.envelope.clone()),
        };
        running.step = Step::Answers { since: now.steady, asked: ready, answered: BTreeSet::new() };
        self.demands.push_back(Demand::Save);
        self.demands.push_back(Demand::Announce(id, intent));
        self.tell();
    }

    /// Whether there is nothing to do, and nothing to look at.
    pub fn is_idle(&self) -> bool {
        self.running.is_none() && self.waiting.is_empty() && self.demands.is_empty()
    }

    /// The intent of which is still to be heard whether it counts, and its node.
    pub fn awaited(&self) -> Option<(MessageId, &NodeName)> {
        let running = self.running.as_ref()?;
        let waits = matches!(running.step, Step::Answers { .. } | Step::Seal { .. });
        running.report.intent.filter(|_| waits).zip(running.report.node.as_ref())
    }

    /// The node of the drill that runs.
    pub fn drilled(&self) -> Option<&NodeName> {
        self.running.as_ref()?.report.node.as_ref()
    }

    /// A custodian answered to an intent, or takes its answer back.
    pub fn hear_answer(&mut self, from: &Principal, order: MessageId, effect: &Effect) {
        let Some(Running { report, step, .. }) = &mut self.running else { return };
        if report.intent != Some(order) {
            return;
        }
        match (step, effect) {
            // The word of who was not ready, or is distrusted, is not one of those that are needed.
            (Step::Answers { asked, .. }, _) if !asked.contains(from) => {}
            (Step::Answers { answered, .. }, Effect::InForce {}) => {
                let first = answered.insert(from.clone());
                report.taken_by.extend(first.then(|| from.clone()));
            }
            (Step::Answers { answered, .. }, Effect::Inapplicable { why }) => {
                answered.insert(from.clone());
                report.taken_by.retain(|taken| taken != from);
                report.declined.insert(from.clone(), plain_text(why));
            }
            (Step::Answers { answered, .. }, Effect::Waiting { .. }) => drop(answered.insert(from.clone())),
            (Step::Seal { revoked, withdrawn, .. }, Effect::Inapplicable { why }) if report.taken_by.contains(from) => {
                withdrawn.insert(from.clone(), plain_text(why));
                if report.taken_by.len() - withdrawn.len() <= usize::from(report.threshold) {
                    revoked.revoke();
                }
            }
            _ => {}
        }
    }

    /// A custodian submitted its share.
    pub fn hear_receipt(&mut self, from: &Principal, receipt: &Receipt) {
        let Some(running) = self.running.as_mut() else { return };
        let report = &mut running.report;
        if report.node.as_ref() != Some(&receipt.node) || report.seal_sent_at.is_none() {
            return;
        }
        let response = Response {
            x: receipt.x,
            result: receipt.result,
            sealed_seen_at: receipt.sealed_seen_at,
            submitted_at: receipt.submitted_at,
            answered_at: receipt.answered_at,
        };
        report.responses.insert(from.clone(), response);
    }

    /// An operator approved the opening of a node.
    pub fn hear_approval(&mut self, header: &Header, node: &NodeName, now: Now) {
        let Some(report) = self.running.as_mut().map(|running| &mut running.report) else { return };
        // One of before the seal permits nothing; how long it took says nothing.
        let counts = report.people && report.seal_sent_at.is_some_and(|at| at < header.issued_at);
        if !counts || report.node.as_ref() != Some(node) || report.approvals.contains_key(&header.from) {
            return;
        }
        let approved = Approved { id: header.id, signed_at: header.issued_at, heard_at: now.wall };
        report.approvals.insert(header.from.clone(), approved);
        self.demands.push_back(Demand::Save);
        self.tell();
    }

    /// A custodian did not submit its share.
    pub fn hear_refusal(&mut self, from: &Principal, refusal: &Refusal) {
        let Some(running) = self.running.as_mut() else { return };
        if running.report.node.as_ref() == Some(&refusal.node) && running.report.seal_sent_at.is_some() {
            running.refusals.insert(from.clone(), plain_text(&refusal.why));
        }
    }

    /// Another conductor tells of its drill. That one is over counts only where its intent was taken here: nobody's word alone keeps a drill
    /// from being held.
    pub fn hear_report(&mut self, from: &Principal, report: &DrillReport, intent_taken: bool, view: &View, now: Now) {
        if report.phase != Phase::Closed {
            self.others.insert(from.clone(), report.clone());
            return;
        }
        self.others.retain(|conductor, other| conductor != from || other.slot != report.slot);
        if !intent_taken {
            return;
        }
        // Nobody's report makes this remember names that there are not.
        let named = |node: &NodeName| view.nodes.contains_key(node);
        let known = |custodian: &Principal| view.custodians.contains(custodian);
        if report.node.as_ref().is_none_or(named) && report.responses.keys().all(known) {
            self.learn(report, now);
        }
        self.waiting.retain(|task| task.slot != report.slot);
        // One that is only looked after here its own conductor has closed. Nobody's word ends one that is held here.
        let looked_after = |running: &Running| {
            let its = matches!(&running.step, Step::LookAfter { other: Some(other), .. } if other == from);
            its && running.report.drill == report.drill
        };
        self.running.take_if(|running| looked_after(running));
        if self.running.as_ref().is_some_and(|running| running.report.slot == report.slot) {
            return;
        }
        self.finish(report.slot.clone());
    }

    /// Something was seen of the node.
    pub fn handle_observed(&mut self, drill: DrillId, observed: Observed, now: Now) {
        let Some(running) = self.running.as_mut().filter(|running| running.report.drill == drill) else { return };
        let report = &mut running.report;
        match (&mut running.step, observed) {
            (Step::Seal { withdrawn, .. }, Observed::NotSealed(why)) => {
                let mut why = format!("the node was not sealed: {why}");
                for (custodian, said) in withdrawn.iter() {
                    why = format!("{why}; {custodian} took its word back: {said}");
                }
                report.declined.append(withdrawn);
                self.close(DrillResult::Aborted, Some(&why), now);
            }
            (Step::Seal { .. }, Observed::Sealed(at)) => {
                (report.phase, report.sealed_at) = (Phase::Sealed, Some(at));
                running.step = Step::Sealed { since: now.steady, lost: false };
                self.demands.push_back(Demand::Save);
                self.tell();
            }
            (Step::Sealed { lost, .. }, Observed::Lost) => *lost = true,
            (Step::Sealed { lost: true, .. }, Observed::Open(at, _)) => {
                report.opened_at = Some(at);
                let why = "contact with the node was lost in the middle: it crashed, or the network was cut";
                self.settle(DrillResult::Aborted, Some(why), now);
            }
            (Step::Sealed { .. }, Observed::Open(at, recovery)) => {
                (report.phase, report.opened_at) = (Phase::Open, Some(at));
                report.recovery_us = Some(recovery.as_micros().min(u128::from(u64::MAX)) as u64);
                running.step = Step::Open { since: now.steady, unread: None };
                self.tell();
            }
            (Step::Open { .. }, Observed::Serves(at, serving)) => {
                (report.served_at, report.after) = (Some(at), Some(serving));
                match report.canary {
                    Some(_) => self.tell(),
                    None => self.recovered(now),
                }
            }
            (Step::Open { unread, .. }, Observed::Canary(_, Err(why))) => *unread = Some(plain_text(&why)),
            (Step::Open { .. }, Observed::Canary(at, Ok(read))) => {
                let same = running.canary == Some(read);
                if let Some(canary) = &mut report.canary {
                    (canary.read_at, canary.same) = (Some(at), Some(same));
                }
                match same {
                    true => self.recovered(now),
                    false => {
                        let why = "the canary that was read through the node is another than before the drill";
                        self.settle(DrillResult::Failed, Some(why), now);
                    }
                }
            }
            _ => {}
        }
    }

    /// Moves on what is due; `view` is what the own custodian sees now.
    pub fn advance(&mut self, view: &View, ids: &mut dyn FnMut() -> [u8; 16], now: Now) {
        if self.running.is_none() {
            self.begin(view, ids, now);
        }
        let Some(running) = &mut self.running else { return };
        let node = running.report.node.as_ref().and_then(|node| view.nodes.get(node));
        match &mut running.step {
            Step::Survey { since } if now.steady.since(*since) >= SURVEY_MAX => {
                self.close(DrillResult::Refused, Some("the nodes could not be asked what they do"), now);
            }
            Step::Survey { .. } => {}
            Step::Answers { .. } => self.count_answers(view, now),
            Step::Seal { since, revoked, .. } => {
                let trouble = node.and_then(|node| if node.held { node.trouble } else { None });
                if trouble.is_some() {
                    revoked.revoke();
                }
                if now.steady.since(*since) >= SEALED_MAX {
                    revoked.revoke();
                    // The server may wait for requests under way, and seal later: custodians' intents stand until it cannot be theirs.
                    let (since, next, why) =
                        (now.steady, now.steady, "the node was not seen sealed in time".to_owned());
                    running.step = Step::LookAfter { since, next, open_since: None, why, other: None };
                }
            }
            Step::Sealed { since, .. } => {
                let sealed_for = now.steady.since(*since);
                if node.is_some_and(|node| node.held) {
                    self.close(DrillResult::Aborted, Some("an operator's hold: it keeps the node sealed"), now);
                } else if sealed_for >= patience(&running.report) {
                    let why = if running.report.people {
                        "people did not have the node opened in time: it waits for them still"
                    } else {
                        "the node did not open while the intent held"
                    };
                    self.close(DrillResult::Failed, Some(why), now);
                } else if sealed_for.as_millis() >= u128::from(running.report.objective_ms)
                    && running.report.why.is_none()
                {
                    running.report.why = Some("the objective has passed, and the node is still sealed".to_owned());
                    self.tell();
                }
            }
            Step::Open { since, unread } if now.steady.since(*since) >= SERVES_MAX => {
                let why = match unread.take() {
                    _ if running.report.served_at.is_none() => "the node is open, and does not serve again".to_owned(),
                    why => format!(
                        "the node serves, and the canary could not be read through it: {}",
                        why.as_deref().unwrap_or("no answer came")
                    ),
                };
                self.settle(DrillResult::Failed, Some(&why), now);
            }
            Step::Open { .. } => {}
            Step::Settle { since, result } if now.steady.since(*since) >= SETTLE => {
                let result = *result;
                let why = running.report.why.take();
                self.close(result, why.as_deref(), now);
            }
            Step::Settle { .. } => {}
            Step::LookAfter { .. } => self.look_after(view, now),
        }
    }

    /// When [`Conductor::advance`] is next to be called without anything having happened.
    pub fn next_timeout(&self) -> Option<Steady> {
        let Some(running) = &self.running else { return self.held_back.map(|(_, until)| until) };
        let at = match &running.step {
            Step::Survey { since } => *since + SURVEY_MAX,
            Step::Answers { since, .. } => *since + ANSWERS_MAX,
            Step::Seal { since, .. } => *since + SEALED_MAX,
            Step::Sealed { since, .. } if running.report.why.is_none() => {
                *since + Duration::from_millis(running.report.objective_ms)
            }
            Step::Sealed { since, .. } => *since + patience(&running.report),
            Step::Open { since, .. } => *since + SERVES_MAX,
            Step::Settle { since, .. } => *since + SETTLE,
            // Nothing tells that a node has opened but looking.
            Step::LookAfter { next, .. } => *next,
        };
        Some(at)
    }

    /// Takes up the next drill that waits.
    fn begin(&mut self, view: &View, ids: &mut dyn FnMut() -> [u8; 16], now: Now) {
        let may_begin = |task: &Task| view.heard_all || task.until <= now.wall;
        if !self.waiting.front().is_some_and(may_begin) {
            return;
        }
        let claimed = |task: &Task| self.others.values().any(|report| report.slot == task.slot);
        if !view.intent_taken {
            let wait = if self.waiting.front().is_some_and(claimed) { TAKEOVER_WAIT } else { LISTEN };
            let since = self.held_back.map_or(now.steady, |(since, _)| since);
            self.held_back = Some((since, since + wait));
            if now.steady < since + wait {
                return;
            }
        }
        self.held_back = None;
        let Some(task) = self.waiting.pop_front() else { return };
        // Before its intent was out there is nothing to be looked after, and the drill can still be held; and a report alone, whose intent
        // nobody has heard, keeps no drill from being held.
        let began = self.others.iter().find(|(_, report)| report.slot == task.slot && view.intent_taken);
        if let Some((conductor, report)) = began.map(|(conductor, report)| (conductor.clone(), report.clone())) {
            self.others.remove(&conductor);
            let why = format!("{conductor} began it and went away");
            let (since, next) = (now.steady, now.steady);
            let step = Step::LookAfter { since, next, open_since: None, why, other: Some(conductor) };
            // What is signed here is what is known here, and of the other's word only what is to be looked after.
            let report = DrillReport {
                node: report.node,
                phase: report.phase.max(Phase::Announced),
                intent: report.intent,
                // Its intent was taken here, also where that is all that came: it may be sealed for until that holds no more.
                announced_at: Some(report.announced_at.map_or(now.wall, |at| at.min(now.wall))),
                sealed_at: report.sealed_at.map(|at| at.min(now.wall)),
                canary: None,
                ..self.blank(&task, report.drill, view.threshold, now)
            };
            self.running = Some(Running { report, order: task.order, step, refusals: BTreeMap::new(), canary: None });
            return self.demands.push_back(Demand::Save);
        }
        let report = self.blank(&task, DrillId::from_bytes(ids()), view.threshold, now);
        let step = Step::Survey { since: now.steady };
        self.running = Some(Running { report, order: task.order, step, refusals: BTreeMap::new(), canary: None });
        if task.until <= now.wall {
            return self.close(DrillResult::Refused, Some("its time was over before it could begin"), now);
        }
        self.demands.push_back(Demand::Save);
        self.tell();
        self.demands.push_back(Demand::Survey);
    }

    /// The report of a drill that begins now.
    fn blank(&self, task: &Task, drill: DrillId, threshold: u8, now: Now) -> DrillReport {
        let people = task.order.as_ref().is_some_and(|ordered| ordered.order.people);
        let objective = if people { self.settings.people_objective } else { self.settings.objective };
        let canary = self.settings.canary.clone().map(|path| Canary { path, read_at: None, same: None });
        DrillReport {
            drill,
            slot: task.slot.clone(),
            node: task.order.as_ref().and_then(|ordered| ordered.order.node.clone()),
            ordered_by: task.order.as_ref().map(|ordered| ordered.by.clone()),
            reason: task.order.as_ref().and_then(|ordered| ordered.order.reason.clone()),
            people,
            phase: Phase::Preflight,
            result: None,
            why: None,
            began_at: now.wall,
            announced_at: None,
            seal_sent_at: None,
            sealed_at: None,
            opened_at: None,
            served_at: None,
            closed_at: None,
            recovery_us: None,
            objective_ms: objective.as_millis().min(u128::from(u64::MAX)) as u64,
            before: None,
            after: None,
            threshold,
            submitters: Vec::new(),
            taken_by: Vec::new(),
            declined: BTreeMap::new(),
            responses: BTreeMap::new(),
            approvals: BTreeMap::new(),
            canary,
            intent: None,
        }
    }

    /// Seals when enough custodians have taken the intent.
    fn count_answers(&mut self, view: &View, now: Now) {
        let Some(running) = &mut self.running else { return };
        let Some(node) = running.report.node.clone() else { return };
        let Step::Answers { since, asked, answered } = &running.step else { return };
        let (all, waited) = (asked.is_subset(answered), now.steady.since(*since));
        if !all && waited < ANSWERS_MAX {
            return;
        }
        let seen = view.nodes.get(&node);
        let (taken, need) = (running.report.taken_by.len(), usize::from(view.threshold) + 1);
        if taken < need {
            let silent: Vec<_> = asked.difference(answered).cloned().collect();
            let declined = &mut running.report.declined;
            declined.extend(silent.into_iter().map(|custodian| (custodian, NO_ANSWER.to_owned())));
            let reasons: Vec<_> = declined.iter().map(|(custodian, why)| format!("{custodian}: {why}")).collect();
            let why = format!("{taken} custodians took the intent, and {need} are needed; {}", reasons.join("; "));
            return self.close(DrillResult::Refused, Some(&why), now);
        }
        if let Some(trouble) = seen.map_or(Some("the node is not configured here"), |seen| seen.trouble) {
            return self.close(DrillResult::Aborted, Some(trouble), now);
        }
        let announced_at = running.report.announced_at.unwrap_or(now.wall);
        let until = Now { steady: *since + SEAL_UNTIL, wall: announced_at.after(SEAL_UNTIL) };
        let revoked = Revocation::default();
        (running.report.phase, running.report.seal_sent_at) = (Phase::Sealing, Some(now.wall));
        let withdrawn = BTreeMap::new();
        running.step = Step::Seal { since: now.steady, revoked: revoked.clone(), withdrawn };
        let (cluster, drill) = (self.cluster, running.report.drill);
        self.demands.push_back(Demand::Save);
        self.tell();
        self.demands.push_back(Demand::Seal(SealOrder { cluster, node, drill, until, revoked }));
    }

    /// Waits for the node of a drill whose conductor is gone.
    fn look_after(&mut self, view: &View, now: Now) {
        let Some(running) = &mut self.running else { return };
        let report = &running.report;
        let Step::LookAfter { since, next, open_since, why, other } = &mut running.step else { return };
        // One that was only stopped may still seal, until its time is over.
        let may_seal = (other.is_some() || report.seal_sent_at.is_some())
            && report.sealed_at.is_none()
            && report.announced_at.is_some_and(|at| now.wall < at.after(SEAL_WITHIN));
        let node = report.node.as_ref().and_then(|node| view.nodes.get(node));
        let open = node.is_none_or(|node| node.open && node.trouble.is_none());
        *open_since = open_since.filter(|_| open).or(open.then_some(now.steady));
        let quiet = open_since.is_some_and(|since| now.steady.since(since) >= QUIET) && !may_seal;
        let over = now.steady.since(*since) >= patience(report);
        let held = node.is_some_and(|node| node.held);
        *next = now.steady + LOOK;
        let why = std::mem::take(why);
        if held {
            self.close(DrillResult::Aborted, Some(&format!("{why}, and an operator's hold came")), now);
        } else if quiet {
            self.close(DrillResult::Interrupted, Some(&why), now);
        } else if over {
            self.close(DrillResult::Failed, Some(&format!("{why}, and the node did not open")), now);
        } else if let Some(Running { step: Step::LookAfter { why: kept, .. }, .. }) = &mut self.running {
            *kept = why;
        }
    }

    /// All was seen that had to be.
    fn recovered(&mut self, now: Now) {
        let Some(Running { report, .. }) = &self.running else { return };
        let in_time = report.recovery_us.is_some_and(|us| us / 1000 <= report.objective_ms);
        let result = if in_time { DrillResult::Passed } else { DrillResult::Late };
        self.settle(result, (!in_time).then_some("the node opened later than the objective allows"), now);
    }

    /// All is over but what custodians still have to tell.
    fn settle(&mut self, result: DrillResult, why: Option<&str>, now: Now) {
        let Some(running) = &mut self.running else { return };
        running.report.why = why.map(plain_text);
        running.step = Step::Settle { since: now.steady, result };
    }

    /// The drill is over: its report is on disk before it is told.
    fn close(&mut self, result: DrillResult, why: Option<&str>, now: Now) {
        let Some(Running { mut report, refusals, .. }) = self.running.take() else { return };
        (report.phase, report.result, report.closed_at) = (Phase::Closed, Some(result), Some(now.wall));
        report.why = why.map(plain_text);
        if report.sealed_at.is_some() {
            for custodian in &report.submitters {
                if !report.responses.contains_key(custodian) {
                    let why = refusals.get(custodian).cloned().unwrap_or_else(|| "no word of it came".to_owned());
                    report.declined.entry(custodian.clone()).or_insert(why);
                }
            }
        }
        self.learn(&report, now);
        self.memory.last = Some(report.clone());
        let (drill, slot) = (report.drill, report.slot.clone());
        self.demands.push_back(Demand::Unwatch(drill));
        self.remember_done(&slot);
        self.demands.push_back(Demand::Save);
        self.demands.push_back(Demand::Report(Box::new(report)));
        self.demands.push_back(Demand::Settled(slot));
    }

    /// Whose turn is next depends on every conductor's drills.
    fn learn(&mut self, report: &DrillReport, now: Now) {
        // A time that is still to come would be the latest for good.
        if let (Some(node), Some(_)) = (&report.node, report.sealed_at) {
            self.memory.drilled.insert(node.clone(), report.began_at.min(now.wall));
        }
        let worked = matches!(report.result, Some(DrillResult::Passed | DrillResult::Late));
        let failed = report.responses.values().any(|response| response.result == Submission::Failed);
        if !worked || failed {
            return;
        }
        let counted = |response: &Response| matches!(response.result, Submission::Counted | Submission::Opened);
        for (custodian, response) in report.responses.iter().filter(|(_, response)| counted(response)) {
            self.memory.proven.insert(custodian.clone(), response.answered_at.min(now.wall));
        }
    }

    fn finish(&mut self, slot: SlotId) {
        self.remember_done(&slot);
        self.demands.push_back(Demand::Save);
        self.demands.push_back(Demand::Settled(slot));
    }

    fn remember_done(&mut self, slot: &SlotId) {
        if !self.memory.done.contains(slot) {
            self.memory.done.push_back(slot.clone());
        }
        if self.memory.done.len() > DONE_MAX {
            self.memory.done.pop_front();
        }
    }

    fn tell(&mut self) {
        self.demands.extend(self.running.as_ref().map(|running| Demand::Report(Box::new(running.report.clone()))));
    }
}

/// How long the node of a drill may be sealed before the drill is closed.
const fn patience(report: &DrillReport) -> Duration {
    if report.people { PEOPLE_MAX } else { INTENT_LIFE }
}
