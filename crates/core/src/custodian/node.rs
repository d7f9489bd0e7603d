//! One node of one cluster, as one custodian sees it: its incident, and the decision whether and when to release the share.
//!
//! What is here is the release rule's heart: the cause in force, the locks "authority" and "budget", whose turn it is, and
//! when an attempt is given up. What is not: what people decide (`people`), the messages' admission and everything that concerns
//! the custodian as a whole (`super`), and the four locks that are proven at the edge.

mod drills;
mod people;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::cause::Cause;
use crate::id::{ClusterId, IncidentId, NodeName, Principal};
use crate::message::{Content, Lock, Needs, NodeReport, Receipt, Refusal, Seen, Sighting, Submission, plain_text};
use crate::policy::Rule;
use crate::ranking;
use crate::release::{Attempt, Authority, Budget, Grounds, ReleaseOrder, Revocation};
use crate::seal_status::{SealKind, SealStatus};
use crate::sight::{Evidence, Observation, Sight};
use crate::time::{Now, Steady, Timestamp};

use super::entry::Entry;
use super::hour::{BUDGET_WINDOW, Hour};
use super::incident::{FAST_CYCLES, Incident, Progress, RETRY, STALL, Submitted, Tried, Withdrawal};
use super::settings::ClusterSettings;
use super::state::{BootId, LastOpen, Marker, NodeState};
use super::{Answer, Outcome, Output};

pub(super) use drills::Announced;
pub use drills::{INTENT_LIFE, SEAL_WITHIN};

/// How long an order to release holds: a connection, a handshake and a status fit in many times over.
const ORDER_LIFE: Duration = Duration::from_secs(20);

/// How long a node must be seen without any share before one that was called back counts as gone: what a node that hung
/// had not read yet is read by then.
const WITHDRAWN: Duration = Duration::from_secs(3);

/// The time between two resets of a node that still holds a share.
const WITHDRAW_AGAIN: Duration = Duration::from_secs(1);

/// How long after a reset is seen to have worked others' shares are still taken out with one that may come late: they may
/// have permission, and must not be hindered for ever.
const OUTLASTED: Duration = Duration::from_secs(10);

/// How long a share may be in a node while evidence is looked for, before it is called back: tickets are tried in seconds.
const EVIDENCE_MAX: Duration = Duration::from_secs(30);

/// How often each round's set must have failed before no more are tried, for the same reason.
const FAILURES_THAT_PROVE: u8 = 3;

/// How long a share that was counted may have vanished from the node, with no failure told, before the set counts as
/// failed: a follower that is still joining opens about a second after its last share (FACTS.md).
const VANISHED_MAX: Duration = Duration::from_secs(3);

/// The longest that an attempt stands still before it is reset; and how long it may, where people have to bring shares to it.
const STALL_MAX: Duration = Duration::from_secs(300);

/// How far the sight of an open node may run ahead of what is on disk.
const LAST_OPEN_SAVED: Duration = Duration::from_secs(60);

/// How recent the proof of a node's identity must be for this custodian to call itself ready.
const IDENTITY_FRESH: Duration = Duration::from_secs(3600);

/// What a node's decisions depend on beside the node itself.
pub(super) struct Context<'a> {
    pub(super) now: Now,
    pub(super) me: &'a Principal,
    pub(super) boot: &'a BootId,
    pub(super) settings: &'a ClusterSettings,
    /// Whether the share was sound when it was last tried.
    pub(super) share_ok: bool,
    pub(super) x: Option<u8>,
    pub(super) sandboxed: bool,
    /// Whether everything that does not depend on the node lets an outage be believed: clock, broker.
    pub(super) outage_believable: Believable,
    pub(super) clock_is_behind: bool,
    /// Whether what this custodian says reaches the others now.
    pub(super) heard: bool,
    /// Whether an operator's hold keeps the node shut.
    pub(super) held: bool,
    /// Whether this custodian is known to be silent or not ready for this node.
    pub(super) unfit: &'a dyn Fn(&Principal) -> bool,
    pub(super) new_incident: &'a mut dyn FnMut() -> IncidentId,
    pub(super) outputs: &'a mut VecDeque<Output>,
    pub(super) submissions: &'a mut BTreeMap<Submission, u64>,
}

/// Whether a reboot of this host may count as an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Believable {
    Yes,
    /// Not yet: the broker is still waited for, or the clock.
    NotYet,
}

#[derive(Debug)]
struct Order {
    attempt: Attempt,
    cause: Cause,
    sealed_seen_at: Timestamp,
}

/// What the others should hear of at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct News {
    seen: Seen,
    needs: Option<Needs>,
    marked: bool,
    restart_provable: bool,
}

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) sight: Sight,
    pub(super) state: NodeState,
    pub(super) certificate_not_after: Option<Timestamp>,
    pub(super) identity_refused: Option<String>,
    cluster: ClusterId,
    name: NodeName,
    incident: Option<Incident>,
    /// The orders that were given out and have not come back; more than one only while a revoked one is still on its way.
    orders: Vec<Order>,
    status: Option<SealStatus>,
    needs: Option<Needs>,
    /// What the last heartbeat told of it.
    told: Option<News>,
    /// Whether it is open and was said to be one whose restart can be proven, since it was last seen otherwise.
    said_provable: bool,
    saved_open: Option<Timestamp>,
    /// When each marker was set, if this process set it. By the steady clock: the wall's may be set back.
    marked: BTreeMap<Principal, Steady>,
    drills: drills::Drills,
    deadline: Option<Steady>,
}

impl Node {
    pub(super) fn new(cluster: ClusterId, name: NodeName, sight: Sight, mut state: NodeState) -> Self {
        // Whether the incident that they were used for still runs cannot be known any more.
        state.approvals.retain(|approval| !approval.used);
        Self {
            sight,
            saved_open: state.last_open.as_ref().map(|open| open.at),
            state,
            certificate_not_after: None,
            identity_refused: None,
            cluster,
            name,
            incident: None,
            orders: Vec::new(),
            status: None,
            needs: None,
            told: None,
            said_provable: false,
            marked: BTreeMap::new(),
            drills: drills::Drills::default(),
            deadline: None,
        }
    }

    /// When `consider` is next to be called without anything having happened.
    pub(super) fn deadline(&self) -> Option<Steady> {
        self.deadline
    }

    /// Takes in what the sight observed, and decides anew.
    pub(super) fn consider(&mut self, cx: &mut Context<'_>) {
        while let Some(observation) = self.sight.poll_observation() {
            self.observe(observation, cx);
        }
        self.deadline = None;
        self.expire_intent(cx);
        self.needs = self.decide(cx);
        while let Some(action) = self.sight.poll_action() {
            cx.outputs.push_back(Output::Watch { cluster: self.cluster, node: self.name.clone(), action });
        }
        self.say_provable(cx);
    }

    /// Says, once after each opening, that the next restart will be known for one.
    fn say_provable(&mut self, cx: &mut Context<'_>) {
        self.said_provable &= self.sight.seen() == Seen::Open;
        if !self.said_provable && self.sight.seen() == Seen::Open && self.sight.restart_provable(cx.now) {
            cx.outputs.push_back(Output::RestartProvable { cluster: self.cluster, node: self.name.clone() });
            self.said_provable = true;
        }
    }

    fn observe(&mut self, observation: Observation, cx: &mut Context<'_>) {
        let (cluster, node) = (self.cluster, self.name.clone());
        match observation {
            Observation::Status(status) => self.observe_status(status, cx),
            Observation::Lost => {
                let incident = self.incident(cx);
                incident.lose_contact();
                let incident = incident.id;
                cx.outputs.push_back(Output::Audit(Entry::Lost { cluster, node, incident }));
            }
            Observation::Sealed => {
                let now = cx.now;
                let incident = self.incident(cx);
                incident.sealed.get_or_insert(now);
                let incident = incident.id;
                cx.outputs.push_back(Output::Audit(Entry::Sealed { cluster, node, incident }));
            }
            Observation::Evidence(Evidence::InPlace) if self.cover(cx) => {}
            Observation::Evidence(Evidence::InPlace) => {
                let by = cx.me.clone();
                self.mark(by.clone(), Marker { at: cx.now.wall, by }, cx);
                let seen_at = cx.now.wall;
                let cause = Some(Cause::InPlace);
                let sighting = Content::Sighting(Sighting { node, seen: Seen::Sealed, cause, seen_at });
                cx.outputs.push_back(Output::Publish { cluster, content: sighting });
            }
            // Nobody can tell this seal from a restart: here too, the one that was announced is the drill's.
            Observation::Evidence(Evidence::Nothing) => drop(self.cover(cx)),
            Observation::Evidence(_) => {}
            Observation::Opened => self.end_incident(None, cx),
            Observation::SharedAddress => {
                cx.outputs.push_back(Output::Audit(Entry::SharedAddress { cluster, node }));
            }
        }
    }

    fn observe_status(&mut self, status: SealStatus, cx: &mut Context<'_>) {
        if status.is_open() {
            self.note_open(self.sight.asked_at(), cx);
            self.end_incident(None, cx);
            self.doubt_intent(cx);
            self.take_intent(cx);
        } else if let Some(incident) = &mut self.incident {
            let rounds = ranking::rounds(cx.settings.custodians.len(), usize::from(cx.settings.threshold));
            incident.see_progress(&status, rounds, cx.now.steady);
        }
        self.status = Some(status);
    }

    /// Seen open with own eyes, when the question left at `asked` or later: every marker of before is void, and every approval.
    fn note_open(&mut self, asked: Now, cx: &mut Context<'_>) {
        let at = asked.wall;
        // Whether a later reboot is an outage depends on these, and not on the moment.
        let anew = self.state.last_open.as_ref().is_none_or(|open| open.stopped || open.boot != *cx.boot);
        self.state.last_open = Some(LastOpen { at, boot: cx.boot.clone(), stopped: false });
        self.state.opened = Some(cx.now.wall);
        let outlived = |by: &Principal| self.marked.get(by).is_none_or(|marked| *marked < asked.steady);
        let markers = self.state.markers.len();
        self.state.markers.retain(|by, _| !outlived(by));
        let outlived = self.state.markers.len() < markers;
        let behind = self.saved_open.is_none_or(|saved| at.since(saved) >= LAST_OPEN_SAVED || at < saved);
        if behind || anew || outlived || self.state.sent || !self.state.approvals.is_empty() {
            self.state.approvals.clear();
            self.state.sent = false;
            self.saved_open = Some(at);
            cx.outputs.push_back(Output::Save);
        }
    }

    fn incident(&mut self, cx: &mut Context<'_>) -> &mut Incident {
        // What an earlier process of this custodian sent may be in the node still.
        let sent = self.state.sent;
        self.incident.get_or_insert_with(|| Incident {
            id: (cx.new_incident)(),
            began: cx.now,
            sealed: None,
            cause: None,
            round: 0,
            tried: Tried::default(),
            tell_by_trying: false,
            counted: false,
            releasing: None,
            submitted: None,
            sent,
            lapsed: None,
            withdrawal: None,
            completed: None,
            eligible: None,
            progress: Progress { since: cx.now.steady, ..Progress::default() },
            stall: STALL,
            retry_at: None,
            retry: RETRY,
            refused: None,
        })
    }

    /// The node was seen open, or somebody trusted in this says so: what belonged to the incident is void.
    fn end_incident(&mut self, by: Option<Principal>, cx: &mut Context<'_>) {
        let Some(incident) = self.incident.take() else { return };
        self.use_up_intent("the node was gone or sealed meanwhile, and is open again", cx);
        if let Some(order) = incident.releasing {
            order.revoke();
        }
        self.state.approvals.clear();
        // A word may be a lie, and the node still sealed with the share in it.
        self.state.sent &= by.is_some();
        cx.outputs.push_back(Output::Save);
        let sealed_ms = incident.sealed.map(|sealed| cx.now.steady.since(sealed.steady).as_millis() as u64);
        let (cluster, node) = (self.cluster, self.name.clone());
        cx.outputs.push_back(Output::Audit(Entry::Opened { cluster, node, incident: incident.id, sealed_ms, by }));
    }

    /// Sets a marker, unless `via` told of one already: nothing that permits an automatic opening stands beside it. What somebody
    /// saw himself takes the place of what he only passed on.
    fn mark(&mut self, via: Principal, marker: Marker, cx: &mut Context<'_>) {
        let own_eyes = marker.by == via;
        if self.state.markers.get(&via).is_some_and(|known| known.by == via || !own_eyes) {
            return;
        }
        let (cluster, node) = (self.cluster, self.name.clone());
        let Marker { at, by } = marker.clone();
        let is_first = self.state.markers.is_empty();
        self.state.markers.insert(via.clone(), marker);
        self.marked.insert(via.clone(), cx.now.steady);
        cx.outputs.push_back(Output::Save);
        let via = (!own_eyes).then_some(via);
        cx.outputs.push_back(Output::Audit(Entry::Marker { cluster, node, at, by, via }));
        if !is_first {
            return;
        }
        self.sight.attend(cx.now);
        self.void_intent("a marker was set", cx);
        let under_way = !self.orders.is_empty();
        let incident = self.incident(cx);
        incident.eligible = None;
        if let Some(order) = &incident.releasing {
            order.revoke();
        }
        incident.submitted = None;
        if incident.sent || under_way {
            incident.withdrawal = Some(Withdrawal::default());
            self.withdraw(cx);
        }
    }

    /// Whether this custodian's share may be in the node, or on its way.
    pub(super) fn in_flight(&self) -> bool {
        self.state.sent || !self.orders.is_empty() || self.incident.as_ref().is_some_and(|incident| incident.sent)
    }

    /// What the node waits for.
    pub(super) fn needs(&self) -> Option<Needs> {
        self.needs
    }

    /// `via` says that `by` saw that the node was sealed in place. Only ever restricts; ignored when older than our own sight of
    /// it open.
    pub(super) fn adopt_marker(&mut self, via: Principal, by: Principal, seen_at: Timestamp, cx: &mut Context<'_>) {
        // What he told himself is no news when others pass it on. What this custodian told, and forgot in a crash, is.
        let told_by_himself = self.state.markers.get(&by).is_some_and(|known| known.by == by);
        if via != by && told_by_himself {
            return;
        }
        // One that is dated ahead would outlive the sight of the node open, and come back with every heartbeat.
        let at = seen_at.min(cx.now.wall);
        if self.expects_seal(at) {
            return;
        }
        if self.state.last_open.as_ref().is_none_or(|open| open.at < at) {
            self.mark(via, Marker { at, by }, cx);
        }
    }

    /// Another custodian submitted its share.
    pub(super) fn receive_receipt(&mut self, from: Principal, receipt: &Receipt, cx: &mut Context<'_>) {
        self.sight.attend(cx.now);
        if receipt.result == Submission::Opened {
            return self.hear_of_opening(from, receipt, cx);
        }
        let Some(incident) = &mut self.incident else { return };
        let Some(sealed) = incident.sealed else { return };
        if receipt.answered_at <= sealed.wall {
            return;
        }
        let rounds = ranking::rounds(cx.settings.custodians.len(), usize::from(cx.settings.threshold));
        match receipt.result {
            Submission::Failed => incident.fail(receipt.round, &receipt.nonce, rounds, cx.now.steady),
            Submission::Counted if receipt.progress == 0 => drop(incident.completed.get_or_insert(cx.now.steady)),
            _ => incident.retry_at = None,
        }
    }

    /// Another custodian's share opened the node: what was approved before is void, and an incident that began before is over.
    fn hear_of_opening(&mut self, from: Principal, receipt: &Receipt, cx: &mut Context<'_>) {
        let at = receipt.answered_at.min(cx.now.wall);
        if self.state.opened.is_none_or(|opened| opened < at) {
            self.state.opened = Some(at);
            self.state.approvals.retain(|approval| at < approval.issued_at);
            cx.outputs.push_back(Output::Save);
        }
        self.hear_of_opening_in_drill(&from, receipt, cx);
        match &self.incident {
            Some(incident) if incident.began.wall < at => {
                let this_process = incident.knows(&receipt.nonce);
                // Where this custodian was about to open it anyway, the word gives nobody more than there was.
                let allowed = incident.eligible.is_some();
                self.sight.told_open(this_process, allowed, cx.now);
                self.end_incident(Some(from), cx);
            }
            Some(_) => {}
            None => {
                let missed = self.state.last_open.as_ref().is_some_and(|open| open.at < receipt.sealed_seen_at);
                if missed {
                    self.sight.told_missed(cx.now);
                }
            }
        }
    }

    /// An order came back.
    pub(super) fn handle_outcome(&mut self, attempt: &Attempt, outcome: Outcome, cx: &mut Context<'_>) {
        self.sight.attend(cx.now);
        let Some(given) = self.orders.iter().position(|order| order.attempt == *attempt) else { return };
        let order = self.orders.swap_remove(given);
        if let Outcome::Answered(answer) = &outcome {
            self.give_receipt(&order, answer, cx);
        }
        let Some(incident) = self.incident.as_mut().filter(|i| i.id == attempt.incident) else { return };
        let current = incident.round == attempt.round;
        if current {
            incident.releasing = None;
        }
        let answer = match outcome {
            Outcome::Refused { lock, why } if current => {
                incident.wait(cx.now.steady);
                return self.refuse(lock, &why, cx);
            }
            // Withdrawn, because its round was over.
            Outcome::Refused { .. } => return,
            Outcome::Answered(answer) => answer,
        };
        incident.refused = None;
        let rounds = ranking::rounds(cx.settings.custodians.len(), usize::from(cx.settings.threshold));
        match answer.result {
            Submission::Failed => {
                incident.fail(attempt.round, &answer.nonce, rounds, cx.now.steady);
                incident.tell_by_trying = !cx.heard && incident.round < FAST_CYCLES * rounds;
            }
            Submission::Counted | Submission::Unanswered if current => {
                incident.wait(cx.now.steady);
                incident.note_sent();
                if answer.result == Submission::Counted && answer.progress == 0 {
                    incident.completed = Some(cx.now.steady);
                }
                if !answer.nonce.is_empty() {
                    incident.tried.running.clone_from(&answer.nonce);
                }
                incident.submitted = Some(Submitted { nonce: answer.nonce, at: cx.now.steady });
            }
            Submission::Counted | Submission::Unanswered => incident.note_sent(),
            // Not yet seen open on the watched connection, but the answer came on one whose identity was proven: own eyes.
            Submission::Opened => {
                self.sight.told_open(true, true, cx.now);
                self.note_open(cx.now, cx);
                self.end_incident(None, cx);
            }
        }
    }

    fn give_receipt(&mut self, order: &Order, answer: &Answer, cx: &mut Context<'_>) {
        *cx.submissions.entry(answer.result).or_default() += 1;
        let approvals = match &answer.grounds {
            Grounds::Approvals(ids) => ids.clone(),
            Grounds::Cause(_) | Grounds::Intent(_) => Vec::new(),
        };
        let intent = if let Grounds::Intent(id) = &answer.grounds { Some(*id) } else { None };
        let (cluster, node) = (self.cluster, self.name.clone());
        let Order { attempt, cause, sealed_seen_at } = order;
        let entry = Entry::Submitted { cluster, node: node.clone(), incident: attempt.incident, result: answer.result };
        let receipt = Receipt {
            node,
            incident: attempt.incident,
            round: attempt.round,
            cause: *cause,
            approvals,
            intent,
            x: cx.x.unwrap_or_default(),
            result: answer.result,
            nonce: answer.nonce.clone(),
            progress: answer.progress,
            sealed_seen_at: *sealed_seen_at,
            submitted_at: answer.submitted_at,
            answered_at: answer.answered_at,
        };
        cx.outputs.push_back(Output::Publish { cluster, content: Content::Receipt(receipt) });
        cx.outputs.push_back(Output::Audit(entry));
    }

    /// Decides what is to be done now, and says what is missing.
    fn decide(&mut self, cx: &mut Context<'_>) -> Option<Needs> {
        self.incident.as_ref()?;
        if self.sight.seen() != Seen::Sealed {
            return Some(Needs::Contact);
        }
        let cause = self.cause(cx);
        self.note_cause(cause, cx);
        let grounds = match self.authority(cause, cx) {
            Ok(grounds) => grounds,
            Err(needs) => {
                self.lapse(needs, cx);
                return Some(needs);
            }
        };
        if let Some(incident) = &mut self.incident {
            (incident.lapsed, incident.withdrawal) = (None, None);
        }
        if !cx.share_ok {
            self.refuse(Lock::Integrity, "the share cannot be read, or is not the one that was installed", cx);
            return Some(Needs::Share);
        }
        if let Some(why) = self.unfit_state(cx) {
            self.refuse(Lock::State, why, cx);
            return Some(Needs::Contact);
        }
        self.take_turn(cause, grounds, cx)
    }

    /// The cause in force: a marker outranks everything, because it only restricts.
    fn cause(&self, cx: &Context<'_>) -> Option<Cause> {
        if !self.state.markers.is_empty() {
            return Some(Cause::InPlace);
        }
        match self.sight.evidence()? {
            Evidence::Restart => Some(Cause::Restart),
            Evidence::InPlace => Some(Cause::InPlace),
            Evidence::Nothing => Some(Cause::Unknown),
            Evidence::NeverOpen if !self.host_rebooted_since_open(cx) => Some(Cause::Unknown),
            Evidence::NeverOpen => (cx.outage_believable == Believable::Yes).then_some(Cause::Outage),
        }
    }

    fn host_rebooted_since_open(&self, cx: &Context<'_>) -> bool {
        let window = cx.settings.policy.outage_window;
        self.state.last_open.as_ref().is_some_and(|open| {
            let ago = cx.now.wall.since(open.at);
            open.boot != *cx.boot && !open.stopped && ago <= window && open.at <= cx.now.wall && !cx.clock_is_behind
        })
    }

    fn note_cause(&mut self, cause: Option<Cause>, cx: &mut Context<'_>) {
        let (cluster, node) = (self.cluster, self.name.clone());
        let Some(incident) = &mut self.incident else { return };
        if let Some(cause) = cause
            && incident.cause != Some(cause)
        {
            incident.cause = Some(cause);
            cx.outputs.push_back(Output::Audit(Entry::Cause { cluster, node, incident: incident.id, cause }));
        }
    }

    /// The lock "authority" and, for what opens by itself, the lock "budget": on what grounds the share may go, or what is
    /// missing.
    fn authority(&mut self, cause: Option<Cause>, cx: &mut Context<'_>) -> Result<Grounds, Needs> {
        if cx.held {
            self.refuse(Lock::Authority, "an operator's hold keeps it shut until enough operators release it", cx);
            return Err(Needs::Hold);
        }
        if cause.is_none() && self.sight.evidence().is_none() {
            return Err(Needs::Evidence);
        }
        // An outage that cannot be believed yet is, for people, a cause that is not known.
        let assumed = cause.unwrap_or(Cause::Unknown);
        let policy = &cx.settings.policy;
        let (rule, need) = (policy.rule(assumed), policy.approvals_for(assumed));
        if rule == Rule::Hold && cause.is_some() {
            self.refuse(Lock::Authority, "the policy says hold for this cause", cx);
            return Err(Needs::Policy);
        }
        // What is proven to be a crash is no drill, also in the middle of one.
        if let Some(announced) = self.covering(cx).filter(|_| rule != Rule::Hold && cause != Some(Cause::Restart)) {
            return Ok(Grounds::Intent(announced.id));
        }
        let approvals = self.standing_approvals(cx);
        let mut operators: Vec<_> = approvals.iter().map(|a| &a.from).collect();
        operators.sort_unstable();
        operators.dedup();
        let have = operators.len().min(usize::from(u8::MAX)) as u8;
        if rule != Rule::Hold && need > 0 && have >= need {
            return Ok(Grounds::Approvals(approvals.iter().map(|a| a.id).collect()));
        }
        match (rule, cause) {
            (Rule::Unseal, Some(cause)) if self.within_budget(cx) => Ok(Grounds::Cause(cause)),
            (Rule::Unseal, Some(_)) => {
                self.refuse(Lock::Budget, "the automatic openings of this hour are used up", cx);
                Err(Needs::Budget)
            }
            (_, None) => Err(Needs::Evidence),
            _ => {
                self.refuse(Lock::Authority, "the policy asks for operators' approval of this cause", cx);
                Err(Needs::Approvals { have, need })
            }
        }
    }

    fn budget<'a>(&'a self, cx: &Context<'_>) -> Hour<'a> {
        Hour { openings: &self.state.openings, most: cx.settings.policy.unseals_per_hour, now: cx.now.wall }
    }

    fn within_budget(&self, cx: &Context<'_>) -> bool {
        self.incident.as_ref().is_some_and(|i| i.counted) || self.budget(cx).remaining() > 0
    }

    /// What the node last said of itself that makes a release pointless; proven anew on the release's own connection.
    fn unfit_state(&self, cx: &Context<'_>) -> Option<&'static str> {
        let status = self.status.as_ref()?;
        let expected = (cx.settings.threshold, cx.settings.shares);
        match status {
            SealStatus { initialized: false, .. } => Some("the node is not initialised"),
            SealStatus { kind: SealKind::Other, .. } => Some("the node's seal is not of type shamir"),
            SealStatus { threshold, shares, .. } if (*threshold, *shares) != expected => {
                Some("the node's threshold and number of shares are not the manifest's")
            }
            _ => None,
        }
    }

    /// All that is decided here holds: submits if it is this custodian's turn, and else says when it will be.
    fn take_turn(&mut self, cause: Option<Cause>, grounds: Grounds, cx: &mut Context<'_>) -> Option<Needs> {
        let now = cx.now.steady;
        self.give_up_vanished(cx);
        if self.stalled(cx) {
            self.reset("the attempt stood still", cx);
        }
        let (rank, patience, by_people) = (self.rank(cx), self.patience(cx), takes_people(cx));
        let later = self.stand_by_in_drill(rank, cx);
        let (custodians, threshold) = (cx.settings.custodians.len(), usize::from(cx.settings.threshold));
        let incident = self.incident.as_mut()?;
        let rounds = ranking::rounds(custodians, threshold);
        let proven = incident.tried.failed.values().filter(|failures| **failures >= FAILURES_THAT_PROVE).count();
        // Where each set has a holder's share in it, sets that fail prove typing errors: the tries only come more slowly.
        if proven >= rounds as usize && !by_people {
            self.refuse(Lock::State, "every set of shares was tried and none opened the node", cx);
            return Some(Needs::Generation);
        }
        let (ended_since, stands_since) = (incident.ended_since(), incident.stands_since());
        if incident.releasing.is_some() || stands_since.is_some() || ended_since.is_some() {
            let stalls = stands_since.map(|since| since + patience);
            let wake = ended_since.map(|since| since + VANISHED_MAX).or(stalls);
            self.wake_at(wake);
            return Some(Needs::Others);
        }
        let eligible = *incident.eligible.get_or_insert(now);
        let delay = match incident.tell_by_trying {
            true => Duration::ZERO,
            false => ranking::delay(custodians, threshold, incident.round % rounds, rank) + later,
        };
        // A stand-by steps in when its time has come and no other share has come for a step.
        let turn = (eligible + delay).max(incident.progress.since + delay.min(ranking::STANDBY_STEP));
        let due = turn.max(incident.retry_at.unwrap_or_default());
        if now < due {
            self.wake_at(Some(due));
            return Some(Needs::Others);
        }
        self.release(cause, grounds, cx);
        Some(Needs::Others)
    }

    /// Counts the incident against the budget, on disk, and gives out the order.
    fn release(&mut self, cause: Option<Cause>, grounds: Grounds, cx: &mut Context<'_>) {
        let (cluster, node) = (self.cluster, self.name.clone());
        let now = cx.now;
        let Some(incident) = &mut self.incident else { return };
        match &grounds {
            Grounds::Approvals(ids) => {
                self.state.openings.clear();
                self.state.approvals.iter_mut().filter(|a| ids.contains(&a.id)).for_each(|a| a.used = true);
            }
            Grounds::Cause(_) if !incident.counted => {
                self.state.openings.retain(|at| now.wall.since(*at) < BUDGET_WINDOW);
                self.state.openings.push(now.wall);
            }
            // Drills have rules of their own, and must not use up what crashes need.
            Grounds::Cause(_) | Grounds::Intent(_) => {}
        }
        // What people opened is exempt; what then goes on by itself is not.
        incident.counted = matches!(grounds, Grounds::Cause(_));
        self.state.sent = true;
        cx.outputs.push_back(Output::Save);
        incident.submitted = None;
        incident.tell_by_trying = false;
        let revocation = Revocation::default();
        incident.releasing = Some(revocation.clone());
        let attempt = Attempt { cluster, node, incident: incident.id, round: incident.round };
        self.orders.push(Order {
            attempt: attempt.clone(),
            cause: cause.unwrap_or(Cause::Unknown),
            sealed_seen_at: incident.sealed.map_or(now.wall, |sealed| sealed.wall),
        });
        let budget = Budget::new(attempt.clone());
        let authority = Authority::new(attempt, grounds, now.steady + ORDER_LIFE, revocation);
        cx.outputs.push_back(Output::Release(ReleaseOrder { authority, budget }));
    }

    /// A whole set was taken, or a share was counted and is in no attempt any more, and the node is still sealed with no
    /// failure told: the set failed.
    fn give_up_vanished(&mut self, cx: &Context<'_>) {
        let now = cx.now.steady;
        let rounds = ranking::rounds(cx.settings.custodians.len(), usize::from(cx.settings.threshold));
        if let Some(incident) = &mut self.incident
            && incident.ended_since().is_some_and(|since| now.since(since) >= VANISHED_MAX)
        {
            // A node that hangs shows no share, and may hold it all the same.
            let sent = incident.sent;
            incident.next_round(rounds, now);
            incident.sent = sent;
        }
    }

    /// Nothing permits an opening. A share that left while something did is called back: an approval that has expired must not
    /// leave shares behind that one more would complete, days later. Shares that others brought are not touched for that.
    fn lapse(&mut self, needs: Needs, cx: &mut Context<'_>) {
        let (now, under_way) = (cx.now.steady, !self.orders.is_empty());
        let Some(incident) = &mut self.incident else { return };
        incident.eligible = None;
        if (incident.sent || under_way) && incident.withdrawal.is_none() {
            let due = *incident.lapsed.get_or_insert(now) + EVIDENCE_MAX;
            if needs == Needs::Evidence && now < due {
                return self.wake_at(Some(due));
            }
            if let Some(order) = &incident.releasing {
                order.revoke();
            }
            incident.submitted = None;
            incident.withdrawal = Some(Withdrawal::default());
        }
        self.withdraw(cx);
    }

    /// Has the node drop a share that nothing permits any more, again until it is gone.
    fn withdraw(&mut self, cx: &mut Context<'_>) {
        let (now, seen) = (cx.now.steady, self.sight.seen());
        let Some(incident) = &mut self.incident else { return };
        let (holds, under_way) = (incident.progress.shares > 0, !self.orders.is_empty());
        let Some(withdrawal) = &mut incident.withdrawal else { return };
        if seen != Seen::Sealed {
            (withdrawal.worked, withdrawal.empty_since) = (None, None);
            return;
        }
        if !withdrawal.held.is_empty() && withdrawal.held != incident.progress.nonce {
            withdrawal.worked.get_or_insert(now);
        }
        let outlasted = withdrawal.worked.is_some_and(|worked| worked + OUTLASTED <= now);
        let due = withdrawal.reset.map_or(now, |last| last + WITHDRAW_AGAIN);
        let wake = if outlasted && !under_way {
            return self.withdrawn(cx);
        } else if (withdrawal.reset.is_none() || holds) && due <= now {
            (withdrawal.reset, withdrawal.empty_since) = (Some(now), None);
            withdrawal.held.clone_from(&incident.progress.nonce);
            self.reset("a share may still be pending in the node, and nothing permits it any more", cx);
            now + WITHDRAW_AGAIN
        } else if holds || under_way {
            withdrawal.empty_since = None;
            if holds { due } else { now + WITHDRAW_AGAIN }
        } else {
            let gone = *withdrawal.empty_since.get_or_insert(now) + WITHDRAWN;
            if gone <= now {
                return self.withdrawn(cx);
            }
            gone
        };
        self.wake_at(Some(wake));
    }

    /// The share that was called back is out of the node.
    fn withdrawn(&mut self, cx: &mut Context<'_>) {
        if let Some(incident) = &mut self.incident {
            (incident.sent, incident.withdrawal) = (false, None);
        }
        self.state.sent = false;
        cx.outputs.push_back(Output::Save);
    }

    /// Whether an attempt with this custodian's share in it has stood still for too long.
    fn stalled(&mut self, cx: &Context<'_>) -> bool {
        let patience = self.patience(cx);
        let Some(incident) = &mut self.incident else { return false };
        let now = cx.now.steady;
        let stalled = incident.stands_since().is_some_and(|since| now.since(since) >= patience);
        if stalled {
            incident.submitted = None;
            incident.eligible = None;
            incident.retry_at = Some(now + incident.stall);
            incident.stall = (incident.stall * 2).min(STALL_MAX);
            incident.progress = Progress { since: now, ..Progress::default() };
        }
        stalled
    }

    /// How long an attempt may stand still. Where custodians are too few, or an operator is at it, holders may be on their way,
    /// who decrypt and type: a reset would take their shares out again.
    fn patience(&self, cx: &Context<'_>) -> Duration {
        match &self.incident {
            Some(incident) if !takes_people(cx) && self.standing_approvals(cx).is_empty() => incident.stall,
            _ => STALL_MAX,
        }
    }

    fn reset(&self, why: &'static str, cx: &mut Context<'_>) {
        let (cluster, node) = (self.cluster, self.name.clone());
        cx.outputs.push_back(Output::Audit(Entry::Reset { cluster, node: node.clone(), why }));
        cx.outputs.push_back(Output::Reset { cluster, node });
    }

    fn rank(&self, cx: &Context<'_>) -> usize {
        let at = self.incident.as_ref().and_then(|i| i.sealed).map_or(cx.now.wall, |sealed| sealed.wall);
        let fit = |custodian: &Principal| !(cx.unfit)(custodian);
        let mut order = ranking::order(self.cluster, &self.name, at, &cx.settings.custodians, fit);
        if let Some(announced) = self.covering(cx) {
            let named = |custodian: &&Principal| !announced.intent.submitters.contains(custodian) || !fit(custodian);
            order.sort_by_key(named);
        }
        order.iter().position(|custodian| *custodian == cx.me).unwrap_or(order.len())
    }

    fn wake_at(&mut self, at: Option<Steady>) {
        self.deadline = [self.deadline, at].into_iter().flatten().min();
    }

    /// Says, once for each reason and incident, which lock holds the share back.
    fn refuse(&mut self, lock: Lock, why: &str, cx: &mut Context<'_>) {
        let (cluster, node) = (self.cluster, self.name.clone());
        let Some(incident) = &mut self.incident else { return };
        let refused = (lock, plain_text(why));
        if incident.refused.as_ref() == Some(&refused) {
            return;
        }
        let why = refused.1.clone();
        incident.refused = Some(refused);
        let (id, cause) = (incident.id, incident.cause);
        let entry = Entry::Refused { cluster, node: node.clone(), incident: id, lock, why: why.clone() };
        let refusal = Refusal { node, incident: id, cause, lock, why };
        cx.outputs.push_back(Output::Audit(entry));
        cx.outputs.push_back(Output::Publish { cluster, content: Content::Refusal(refusal) });
    }

    fn news(&self, now: Now) -> News {
        let (seen, marked) = (self.sight.seen(), !self.state.markers.is_empty());
        News { seen, needs: self.needs, marked, restart_provable: self.sight.restart_provable(now) }
    }

    /// The configuration changed: an order that is out was given under the old one.
    pub(super) fn revoke(&self) {
        if let Some(order) = self.incident.as_ref().and_then(|incident| incident.releasing.as_ref()) {
            order.revoke();
        }
    }

    /// Whether the others should hear of this node before the next regular heartbeat.
    pub(super) fn has_news(&self, now: Now) -> bool {
        self.told != Some(self.news(now))
    }

    /// Whether the share could be released to it: see [`NodeReport`].
    pub(super) fn is_ready(&self, share_ok: bool, sandboxed: bool, now: Steady) -> bool {
        let identity = self.sight.identity_proven().is_some_and(|at| now.since(at) < IDENTITY_FRESH);
        share_ok && sandboxed && identity && self.identity_refused.is_none()
    }

    /// What goes into the heartbeat about this node.
    pub(super) fn report(&mut self, cx: &Context<'_>) -> NodeReport {
        self.told = Some(self.news(cx.now));
        NodeReport {
            seen: self.sight.seen(),
            since: self.sight.since(),
            ready: self.is_ready(cx.share_ok, cx.sandboxed, cx.now.steady),
            cause: self.incident.as_ref().and_then(|i| i.cause),
            needs: self.needs,
            marker: self.state.marker(cx.me).map(|marker| marker.at),
            marker_by: self.state.vouched(cx.me).map(|marker| marker.by.clone()),
            in_flight: self.in_flight(),
            budget_remaining: self.budget(cx).remaining(),
            budget_frees_at: self.budget(cx).frees_at(),
            certificate_not_after: self.certificate_not_after,
            shared_address: self.sight.shared_address(),
            restart_provable: self.sight.restart_provable(cx.now),
            identity_refused: self.identity_refused.as_deref().map(plain_text),
        }
    }
}

/// Whether custodians alone never suffice, and holders bring the rest.
fn takes_people(cx: &Context<'_>) -> bool {
    cx.settings.custodians.len() < usize::from(cx.settings.threshold)
}
