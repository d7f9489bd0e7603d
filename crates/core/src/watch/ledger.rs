//! The incidents of one cluster, as a sentinel saw them and custodians told of them, and what is counted of them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::cause::Cause;
use crate::id::{DrillId, MessageId, NodeName, Principal};
use crate::message::{Receipt, Refusal, Submission};
use crate::status::{IncidentStatus, RefusalStatus, SubmissionStatus};
use crate::time::{Now, Steady, Timestamp};

/// How many incidents of a cluster are kept in memory: what people look at. The database has more.
pub const INCIDENTS_KEPT: usize = 100;

/// How many submissions and how many refusals of one incident are kept: many rounds of many custodians.
pub const REPORTS_KEPT: usize = 64;

/// How many of the submissions are one custodian's: none keeps another's out.
const REPORTS_OF_ONE_MAX: usize = 12;

/// How long custodians' receipts are waited for before an incident whose cause own eyes could not prove is counted as
/// unknown, or one whose sealed moment they missed goes unmeasured.
const SETTLE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Entry {
    incident: IncidentStatus,
    sealed: Option<Steady>,
    /// As the custodian that opened the node measured it.
    told_open_after: Option<Duration>,
    counted: bool,
    measured: bool,
    unsealed: bool,
    settle_at: Option<Steady>,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The oldest first. The last of a node is the running one, unless it has an end.
    entries: VecDeque<Entry>,
    /// Incidents so far, by cause.
    pub(super) incidents: BTreeMap<Cause, u64>,
    /// Incidents so far that custodians ended, by the cause that they gave.
    pub(super) unseals: BTreeMap<Cause, u64>,
    /// How long nodes were sealed, not fetched yet.
    pub(super) durations: VecDeque<(NodeName, Duration)>,
    /// Incidents that changed, not fetched yet.
    pub(super) changed: VecDeque<IncidentStatus>,
    /// Incidents that are over and whose receipts had their time to come, not fetched yet; once more when one comes late.
    pub(super) told: VecDeque<IncidentStatus>,
}

impl Ledger {
    /// Takes back what an earlier process knew, the oldest first. Nothing of it is counted again; the last of each node goes
    /// on if it has no end.
    pub(super) fn restore(&mut self, incidents: impl IntoIterator<Item = IncidentStatus>) {
        for incident in incidents {
            let entry = Entry { counted: true, measured: true, unsealed: true, ..Entry::new(incident) };
            self.entries.push_back(entry);
            self.forget();
        }
    }

    /// The latest incidents, the newest first.
    pub(super) fn recent(&self) -> impl Iterator<Item = &IncidentStatus> {
        self.entries.iter().rev().map(|entry| &entry.incident)
    }

    /// Those of the latest that are over and whose receipts had their time to come, the oldest first.
    pub(super) fn settled(&self) -> impl Iterator<Item = &IncidentStatus> {
        self.entries.iter().filter(|entry| entry.is_told()).map(|entry| &entry.incident)
    }

    /// All of the latest, the oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = &IncidentStatus> {
        self.entries.iter().map(|entry| &entry.incident)
    }

    /// The node was seen not to be open.
    pub(super) fn begin(&mut self, node: &NodeName, now: Now) {
        if self.running(node).is_none() {
            let entry = Entry::new(IncidentStatus {
                node: node.clone(),
                began_at: now.wall,
                sealed_at: None,
                opened_at: None,
                generation: None,
                cause: None,
                told_cause: None,
                open_after_ms: None,
                drill: None,
                submissions: Vec::new(),
                refusals: Vec::new(),
            });
            self.changed.push_back(entry.incident.clone());
            self.entries.push_back(entry);
            self.forget();
        }
    }

    /// The node was seen sealed.
    pub(super) fn sealed(&mut self, node: &NodeName, now: Now) {
        self.begin(node, now);
        self.change(node, |entry| {
            entry.sealed.get_or_insert(now.steady);
            entry.incident.sealed_at.get_or_insert(now.wall);
        });
    }

    /// Own eyes know why, or that they never will.
    pub(super) fn proven(&mut self, node: &NodeName, cause: Cause, now: Now) {
        self.change(node, |entry| {
            if entry.incident.cause.is_none_or(|known| known == Cause::Unknown) {
                entry.incident.cause = Some(cause);
            }
            // What somebody did to a node must not wait to be counted until it is open.
            entry.settle_at = Some(if cause == Cause::Unknown { now.steady + SETTLE } else { now.steady });
        });
        self.settle(now);
    }

    /// The node was seen open, while the manifest named this generation.
    pub(super) fn opened(&mut self, node: &NodeName, generation: u32, now: Now) {
        let mut measured = None;
        self.change(node, |entry| {
            entry.incident.opened_at = Some(now.wall);
            entry.incident.generation = Some(generation);
            if let (Some(sealed), false) = (entry.sealed, entry.measured) {
                measured = Some(now.steady.since(sealed));
                entry.measure(now.steady.since(sealed));
            }
            entry.settle_at = Some(now.steady + SETTLE);
        });
        self.durations.extend(measured.map(|duration| (node.clone(), duration)));
    }

    /// A custodian submitted its share.
    pub(super) fn receipt(&mut self, from: &Principal, receipt: &Receipt) {
        let Some(entry) = self.told_of(&receipt.node, receipt.answered_at) else { return };
        let submissions = &entry.incident.submissions;
        let of_one = submissions.iter().filter(|known| known.custodian == *from).count();
        if submissions.len() >= REPORTS_KEPT || of_one >= REPORTS_OF_ONE_MAX {
            return;
        }
        entry.incident.submissions.push(SubmissionStatus {
            custodian: from.clone(),
            incident: receipt.incident,
            x: receipt.x,
            round: receipt.round,
            cause: Some(receipt.cause),
            approvals: receipt.approvals.clone(),
            intent: receipt.intent,
            result: receipt.result,
            nonce: receipt.nonce.clone(),
            progress: receipt.progress,
            answered_at: receipt.answered_at,
        });
        entry.incident.told_cause = most_told(&entry.incident.submissions);
        if receipt.result == Submission::Opened {
            let took = receipt.answered_at.since(receipt.sealed_seen_at);
            entry.told_open_after = Some(entry.told_open_after.map_or(took, |other| other.max(took)));
        }
        let unsealed = receipt.result == Submission::Opened && !std::mem::replace(&mut entry.unsealed, true);
        let (changed, told) = (entry.incident.clone(), entry.is_told());
        if unsealed {
            *self.unseals.entry(receipt.cause).or_default() += 1;
        }
        self.told.extend(told.then(|| changed.clone()));
        self.changed.push_back(changed);
    }

    /// A custodian did not submit its share. It says so again and again: the last of each kind is kept.
    pub(super) fn refusal(&mut self, from: &Principal, refusal: &Refusal, at: Timestamp) {
        let Some(entry) = self.told_of(&refusal.node, at) else { return };
        let refusals = &mut entry.incident.refusals;
        refusals.retain(|known| known.custodian != *from || known.lock != refusal.lock);
        if refusals.len() >= REPORTS_KEPT {
            return;
        }
        refusals.push(RefusalStatus { custodian: from.clone(), lock: refusal.lock, why: refusal.why.clone() });
        let changed = entry.incident.clone();
        self.changed.push_back(changed);
    }

    /// Finds out which incidents are drills'. `known` says of which drill an intent for a node is.
    pub(super) fn name_drills(&mut self, known: impl Fn(MessageId, &NodeName) -> Option<DrillId>) {
        for entry in &mut self.entries {
            let incident = &mut entry.incident;
            let named = most_named(&incident.submissions);
            let drill = named.and_then(|intent| known(intent, &incident.node));
            // An intent that was forgotten meanwhile makes no emergency of what was a drill.
            if drill != incident.drill && (drill.is_some() || named.is_none()) {
                incident.drill = drill;
                self.changed.push_back(incident.clone());
            }
        }
    }

    /// Counts what has waited long enough.
    pub(super) fn settle(&mut self, now: Now) {
        for entry in self.entries.iter_mut().filter(|entry| entry.settle_at.is_some_and(|at| at <= now.steady)) {
            entry.settle_at = None;
            if !std::mem::replace(&mut entry.counted, true) {
                let IncidentStatus { cause, told_cause, .. } = entry.incident;
                let proven = cause.filter(|cause| *cause != Cause::Unknown);
                *self.incidents.entry(proven.or(told_cause).unwrap_or(Cause::Unknown)).or_default() += 1;
            }
            if let (false, Some(_), Some(took)) = (entry.measured, entry.incident.opened_at, entry.told_open_after) {
                entry.measure(took);
                self.durations.push_back((entry.incident.node.clone(), took));
                self.changed.push_back(entry.incident.clone());
            }
            self.told.extend(entry.is_told().then(|| entry.incident.clone()));
        }
    }

    /// When [`Ledger::settle`] is next to be called.
    pub(super) fn next_timeout(&self) -> Option<Steady> {
        self.entries.iter().filter_map(|entry| entry.settle_at).min()
    }

    fn running(&mut self, node: &NodeName) -> Option<&mut Entry> {
        let last = self.entries.iter_mut().rev().find(|entry| entry.incident.node == *node)?;
        last.incident.opened_at.is_none().then_some(last)
    }

    /// The incident that a report of this time is about: it can come after the node's next one began.
    fn told_of(&mut self, node: &NodeName, at: Timestamp) -> Option<&mut Entry> {
        let of_node = |entry: &(usize, &Entry)| entry.1.incident.node == *node;
        let mut latest = self.entries.iter().enumerate().rev().filter(of_node).take(2);
        let (last, before) = (latest.next()?, latest.next());
        let index = match before {
            Some((before, _)) if at < last.1.incident.began_at => before,
            _ => last.0,
        };
        self.entries.get_mut(index)
    }

    fn change(&mut self, node: &NodeName, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.running(node) {
            change(entry);
            let incident = entry.incident.clone();
            self.changed.push_back(incident);
        }
    }

    /// Drops the oldest that is over.
    fn forget(&mut self) {
        if self.entries.len() > INCIDENTS_KEPT {
            let over = self.entries.iter().position(|entry| entry.incident.opened_at.is_some());
            self.entries.remove(over.unwrap_or(0));
        }
    }
}

impl Entry {
    fn new(incident: IncidentStatus) -> Self {
        Self {
            incident,
            sealed: None,
            told_open_after: None,
            counted: false,
            measured: false,
            unsealed: false,
            settle_at: None,
        }
    }

    /// Whether it is over, and its receipts had their time to come.
    fn is_told(&self) -> bool {
        self.incident.opened_at.is_some() && self.settle_at.is_none()
    }

    fn measure(&mut self, duration: Duration) {
        self.measured = true;
        self.incident.open_after_ms = Some(duration.as_secs_f64() * 1000.0);
    }
}

/// The intent that more than half of the custodians name, each by its last submission.
fn most_named(submissions: &[SubmissionStatus]) -> Option<MessageId> {
    let last: BTreeMap<_, _> = submissions.iter().map(|s| (&s.custodian, s.intent)).collect();
    let named = |intent: &MessageId| last.values().filter(|named| **named == Some(*intent)).count();
    last.values().flatten().copied().find(|intent| named(intent) * 2 > last.len())
}

/// The cause that most receipts give.
fn most_told(submissions: &[SubmissionStatus]) -> Option<Cause> {
    Cause::ALL.into_iter().filter(|cause| submissions.iter().any(|s| s.cause == Some(*cause))).max_by_key(|cause| {
        let told = submissions.iter().filter(|s| s.cause == Some(*cause)).count();
        // Of two that are told equally often, the one that says more.
        (told, *cause != Cause::Unknown)
    })
}
