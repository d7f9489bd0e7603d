//! What must hold, judged from the truth that only the simulation knows.
//!
//! For each custodian and node the oracle keeps what that custodian was shown, by its own eyes or by messages that its door
//! admitted, and what of it can be expected to survive its process. It never asks the core why it did something.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_core::cause::Cause;
use holdfast_core::custodian::{Entry, HEARTBEAT};
use holdfast_core::envelope::Envelope;
use holdfast_core::id::{ClusterId, IncidentId, MessageId, NodeName, Principal};
use holdfast_core::message::{Body, Content, Heartbeat, NodeReport, Seen, Submission};
use holdfast_core::policy::Rule;
use holdfast_core::release::{Grounds, ReleaseOrder};
use holdfast_core::time::Timestamp;

use crate::docket::{Kept, OrderId, Ordered};
use crate::vault::ProcessId;
use crate::world::World;

/// The most tickets of one node that a custodian may leave lying about: two epochs' and a connection's.
const TICKETS_LEFT_MAX: usize = 12;

/// The largest state file of these small worlds: one operator's 256 KiB of holds, 32 settled matters of two operators and what
/// waits, and the rest.
const STATE_MAX: usize = 768 * 1024;

/// An approval that an operator really gave.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) operator: usize,
    /// The key that signed it.
    pub(crate) key: u8,
    pub(crate) issued_at: Timestamp,
    pub(crate) node: String,
    pub(crate) cluster: ClusterId,
    /// When, in true time.
    pub(crate) at: Duration,
    pub(crate) expires_at: Timestamp,
}

/// What a custodian knows of a node, as far as it has to remember.
#[derive(Debug, Clone, Default)]
struct Known {
    /// That it was sealed in place, since its last sight of it open: who told it, whose eyes it was, and when it
    /// was heard.
    markers: BTreeMap<Principal, (Principal, Duration)>,
    /// The last opening that it saw or was told of, in true time: approvals from before are void.
    void_before: Option<Duration>,
    last_open: Option<LastOpen>,
    stopped: bool,
    /// The approvals on which its share left, in which process of its own, and how often the node had been opened by then.
    used: BTreeMap<MessageId, (u64, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct LastOpen {
    wall: Timestamp,
    boot: u64,
}

#[derive(Debug, Clone, Default)]
struct View {
    known: Known,
    saved: Known,
    /// What the kept connection last answered, if it is still the same.
    kept: Option<(ProcessId, bool)>,
    /// The last process that it saw open, or was told so.
    open_process: Option<ProcessId>,
    told_process: Option<ProcessId>,
    /// When it learned last that the node was open.
    opened: Option<Duration>,
    ever: bool,
    automatic: Vec<(Timestamp, IncidentId)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Connected {
    since: Option<Duration>,
    drained: bool,
}

#[derive(Debug)]
pub(crate) struct Oracle {
    /// Whether all clocks agree and everybody who is trusted says the truth: then some more must hold.
    pub(crate) calm: bool,
    views: Vec<Vec<View>>,
    started: Vec<(Duration, u64)>,
    connected: Vec<Connected>,
    given: BTreeMap<MessageId, Given>,
    /// Receipts of openings that custodians really gave: who, which node, when by its clock; which process, when.
    openings: BTreeMap<(Principal, usize, Timestamp), (ProcessId, Duration)>,
    /// The processes that were open at some time.
    were_open: BTreeSet<ProcessId>,
    /// What operators really ordered, and what of it each custodian was told.
    pub(crate) ordered: BTreeMap<OrderId, Ordered>,
    pub(crate) dockets: Vec<Kept>,
    /// Each operator's keys in the configured trust root.
    pub(crate) configured_keys: Vec<Vec<u8>>,
}

/// What a message restricts, if it is admitted.
#[derive(Debug, Default)]
pub(crate) struct Restrictions {
    markers: Vec<(usize, Principal, Principal, Timestamp)>,
    opened: Option<(usize, ProcessId, Duration)>,
}

impl Oracle {
    pub(crate) fn new(custodians: usize, nodes: usize) -> Self {
        Self {
            calm: true,
            views: vec![vec![View::default(); nodes]; custodians],
            started: vec![(Duration::ZERO, 0); custodians],
            connected: vec![Connected::default(); custodians],
            given: BTreeMap::new(),
            openings: BTreeMap::new(),
            were_open: BTreeSet::new(),
            ordered: BTreeMap::new(),
            dockets: vec![Kept::default(); custodians],
            configured_keys: vec![vec![100], vec![101], vec![102]],
        }
    }

    pub(crate) fn started(&mut self, c: usize, now: Duration, boot: u64) {
        self.started[c] = (now, boot);
        self.connected[c] = Connected::default();
        self.dockets[c].begin_anew();
        for view in &mut self.views[c] {
            let saved = view.saved.clone();
            let automatic = std::mem::take(&mut view.automatic);
            *view = View { known: saved.clone(), saved, automatic, ..View::default() };
        }
    }

    pub(crate) fn died(&mut self, c: usize) {
        self.connected[c] = Connected::default();
        self.views[c].iter_mut().for_each(|view| (view.kept, view.open_process) = (None, None));
    }

    pub(crate) fn stopped(&mut self, c: usize) {
        self.views[c].iter_mut().for_each(|view| view.known.stopped = true);
    }

    pub(crate) fn saved(&mut self, c: usize) {
        self.views[c].iter_mut().for_each(|view| view.saved = view.known.clone());
        self.dockets[c].save();
    }

    /// A reload with another address: the node is seen anew, and what is on disk stays.
    pub(crate) fn renewed(&mut self, c: usize, n: usize) {
        let view = &mut self.views[c][n];
        (view.kept, view.open_process, view.told_process, view.ever) = (None, None, None, false);
    }

    pub(crate) fn lost(&mut self, c: usize, n: usize) {
        self.views[c][n].kept = None;
    }

    pub(crate) fn broker(&mut self, c: usize, since: Option<Duration>) {
        self.connected[c] = Connected { since, drained: false };
    }

    pub(crate) fn drained(&mut self, c: usize) {
        self.connected[c].drained = true;
    }

    pub(crate) fn given(&mut self, id: MessageId, given: Given) {
        self.given.insert(id, given);
    }

    /// The process that a custodian's kept connection last said is open.
    pub(crate) fn sees_open(&self, c: usize, n: usize) -> Option<ProcessId> {
        self.views[c][n].kept.filter(|(_, open)| *open).map(|(process, _)| process)
    }

    /// Operators made somebody's word count for nothing at a custodian.
    pub(crate) fn forget_word_of(&mut self, c: usize, principal: &Principal, me: &Principal) {
        for view in &mut self.views[c] {
            view.known.markers.retain(|via, (by, _)| via == me || (via != principal && by != principal));
        }
    }

    /// Whether a custodian's process saw this process of the node open.
    pub(crate) fn saw_open(&self, c: usize, n: usize, process: ProcessId) -> bool {
        self.views[c][n].open_process == Some(process)
    }

    fn learned_open(&mut self, c: usize, n: usize, at: Duration, wall: Timestamp, now: Duration) {
        let boot = self.started[c].1;
        let view = &mut self.views[c][n];
        view.ever = true;
        view.opened = Some(now);
        view.known.void_before = view.known.void_before.max(Some(at));
        view.known.last_open = Some(LastOpen { wall, boot });
        view.known.stopped = false;
        view.known.markers.retain(|_, (_, heard)| *heard >= at);
    }
}

/// An answer of a kept connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sight {
    pub(crate) process: ProcessId,
    pub(crate) open: bool,
    /// When the node said so.
    pub(crate) at: Duration,
}

impl World {
    /// A custodian is about to be told what its kept connection answered.
    pub(crate) fn oracle_saw(&mut self, c: usize, n: usize, sight: Sight) {
        let (now, wall) = (self.now, self.wall_at(sight.at, self.hosts[c].offset));
        let direct = self.setup.direct && !self.is_a_drills(c, n);
        let oracle = &mut self.oracle;
        let view = &mut oracle.views[c][n];
        let before = view.kept.replace((sight.process, sight.open));
        if sight.open {
            view.open_process = Some(sight.process);
            view.told_process = None;
            oracle.were_open.insert(sight.process);
            oracle.learned_open(c, n, sight.at, wall, now);
        } else if before == Some((sight.process, true)) && direct {
            let me = self.hosts[c].settings.id.clone();
            view.known.markers.entry(me.clone()).or_insert((me, now));
        }
    }

    /// A custodian's own share opened the node, and it knows.
    pub(crate) fn oracle_opened_myself(&mut self, c: usize, n: usize) {
        let (now, wall) = (self.now, self.wall(self.hosts[c].offset));
        self.oracle.learned_open(c, n, now, wall, now);
    }

    pub(crate) fn oracle_receipt_of_opening(&mut self, c: usize, n: usize, process: ProcessId, answered_at: Timestamp) {
        let at = self.vaults[n].opened_at.unwrap_or(self.now);
        self.oracle.were_open.insert(process);
        self.oracle.openings.insert((self.people.custodians[c].name.clone(), n, answered_at), (process, at));
    }

    /// What a message restricts if it is admitted. It is read without being believed.
    pub(crate) fn before_hearing(&self, bytes: &[u8]) -> Restrictions {
        let mut restrictions = Restrictions::default();
        let Ok(body) = Envelope::parse(bytes).map(|envelope| Body::parse(envelope.body())) else { return restrictions };
        let Ok(Body { header, content }) = body else { return restrictions };
        match content {
            Content::Event(s) | Content::Sighting(s) if s.seen == Seen::Sealed && s.cause == Some(Cause::InPlace) => {
                let marker = |n| (n, header.from.clone(), header.from.clone(), s.seen_at);
                restrictions.markers.extend(self.index(&s.node).map(marker));
            }
            Content::Heartbeat(heartbeat) => {
                let marker = |(node, report): (&NodeName, &NodeReport)| {
                    let by = report.marker_by.clone()?;
                    Some((self.index(node)?, header.from.clone(), by, report.marker?))
                };
                restrictions.markers.extend(heartbeat.nodes.iter().filter_map(marker));
            }
            Content::Receipt(receipt) if receipt.result == Submission::Opened => {
                let Some(n) = self.index(&receipt.node) else { return restrictions };
                let opening = self.oracle.openings.get(&(header.from, n, receipt.answered_at));
                restrictions.opened = opening.map(|(process, at)| (n, *process, *at));
            }
            _ => {}
        }
        restrictions
    }

    pub(crate) fn after_hearing(&mut self, c: usize, restrictions: Restrictions) {
        let heard = self.now;
        let drills: BTreeSet<usize> = (0..self.vaults.len()).filter(|n| self.is_a_drills(c, *n)).collect();
        for (n, via, by, at) in restrictions.markers {
            if self.is_deaf_to(c, &via) || self.is_deaf_to(c, &by) {
                continue;
            }
            let known = &mut self.oracle.views[c][n].known;
            if via != by && known.markers.contains_key(&by) {
                continue;
            }
            if known.last_open.is_none_or(|open| open.wall < at) && !drills.contains(&n) {
                known.markers.entry(via).or_insert((by, heard));
            }
        }
        if let Some((n, process, at)) = restrictions.opened {
            let view = &mut self.oracle.views[c][n];
            view.known.void_before = view.known.void_before.max(Some(at));
            view.ever = true;
            // Where clocks disagree, which incident a receipt belongs to cannot always be told.
            if self.setup.skew.is_zero() && view.opened.is_none_or(|seen| seen < at) {
                view.told_process = Some(process);
            }
        }
    }

    /// The core gave out an order to release.
    pub(crate) fn check_order(&mut self, c: usize, n: usize, order: &ReleaseOrder) {
        let grounds = order.authority.grounds().clone();
        let policy = self.setup.policy.clone();
        self.check_no_hold(c, n, "an order to release is given out");
        if let Some(cause) = self.cause(c, n, Duration::ZERO)
            && policy.rule(cause) == Rule::Hold
        {
            self.wrong(c, n, &format!("released although the policy holds {cause}"));
        }
        match grounds {
            Grounds::Cause(cause) => {
                if policy.rule(cause) != Rule::Unseal {
                    self.wrong(c, n, &format!("released by itself although the policy does not open {cause}"));
                }
                match cause {
                    Cause::Restart => self.check_restart(c, n),
                    Cause::Outage => self.check_outage(c, n),
                    Cause::InPlace | Cause::Unknown => {}
                }
                self.check_budget(c, n, order.attempt().incident);
            }
            Grounds::Approvals(ids) => {
                self.check_approvals(c, n, &ids);
                self.oracle.views[c][n].automatic.clear();
            }
            Grounds::Intent(id) => self.check_intent(c, n, id),
        }
    }

    fn check_restart(&self, c: usize, n: usize) {
        let view = &self.oracle.views[c][n];
        if !self.setup.direct {
            self.wrong(c, n, "calls it a restart at a node that is not direct");
        }
        if !view.known.markers.is_empty() {
            self.wrong(c, n, "releases by itself although it knows of a seal in place");
        }
        if !view.ever {
            self.wrong(c, n, "calls it a restart although this process of its never saw the node open");
        }
        for process in [view.open_process, view.told_process].into_iter().flatten() {
            if self.vaults[n].is(process) {
                self.wrong(
                    c,
                    n,
                    &format!("calls it a restart although process {process}, which it knows was open, lives"),
                );
            }
        }
    }

    fn check_outage(&self, c: usize, n: usize) {
        let (view, host) = (&self.oracle.views[c][n], &self.hosts[c]);
        let (started, boot) = self.oracle.started[c];
        if !view.known.markers.is_empty() {
            self.wrong(c, n, "releases by itself although it knows of a seal in place");
        }
        let Some(open) = view.known.last_open else { self.wrong(c, n, "an outage of a node that it never saw open") };
        if open.boot == boot {
            self.wrong(c, n, "calls it an outage although its host was not rebooted since it saw the node open");
        }
        if view.known.stopped {
            self.wrong(c, n, "calls it an outage although it was stopped on purpose");
        }
        // What is on disk may lag a minute behind what it saw.
        if self.wall(host.offset).since(open.wall) > self.setup.policy.outage_window + Duration::from_secs(61) {
            self.wrong(c, n, "calls it an outage although it saw the node open too long ago");
        }
        if !host.synchronised {
            self.wrong(c, n, "calls it an outage although its clock is not synchronised");
        }
        let connected = self.oracle.connected[c];
        let heard = connected.since.is_some_and(|since| self.now - since >= HEARTBEAT) && connected.drained;
        if self.setup.broker && !heard && self.now - started < self.setup.grace {
            self.wrong(c, n, "calls it an outage although the broker was not waited for");
        }
    }

    fn check_budget(&mut self, c: usize, n: usize, incident: IncidentId) {
        let (now, most) = (self.wall(self.hosts[c].offset), self.setup.policy.unseals_per_hour as usize);
        if self.hosts[c].running.as_ref().is_some_and(|running| !running.state_ok) {
            return;
        }
        let automatic = &mut self.oracle.views[c][n].automatic;
        if automatic.iter().any(|(_, known)| *known == incident) {
            return;
        }
        automatic.retain(|(at, _)| now.since(*at) < Duration::from_secs(3600));
        automatic.push((now, incident));
        if automatic.len() > most {
            self.wrong(c, n, "opens more incidents by itself within an hour than the budget allows");
        }
    }

    fn check_approvals(&mut self, c: usize, n: usize, ids: &[MessageId]) {
        let view = &self.oracle.views[c][n];
        let policy = &self.setup.policy;
        let mut operators = BTreeSet::new();
        for id in ids {
            let Some(given) = self.oracle.given.get(id) else { self.wrong(c, n, "an approval that nobody gave") };
            if given.node != self.vaults[n].name || given.cluster != self.cluster {
                self.wrong(c, n, "an approval of another node");
            }
            if given.expires_at <= self.wall(self.hosts[c].offset) {
                self.wrong(c, n, "an approval that has expired");
            }
            self.check_consent(c, n, given);
            if view.known.void_before.is_some_and(|opened| given.at + self.setup.skew < opened) {
                self.wrong(c, n, &format!("approval {id} is older than an opening that this custodian knows of"));
            }
            if let Some((process, openings)) = view.known.used.get(id)
                && *process != self.hosts[c].incarnation
                && *openings != self.vaults[n].openings
            {
                self.wrong(c, n, &format!("approval {id} was used for an earlier incident"));
            }
            operators.insert(given.operator);
        }
        let need = if !view.known.markers.is_empty() { policy.in_place_approvals } else { policy.approvals };
        if operators.len() < usize::from(need) {
            self.wrong(c, n, &format!("{} operators approved, {need} must", operators.len()));
        }
        let (incarnation, openings) = (self.hosts[c].incarnation, self.vaults[n].openings);
        let saved = self.hosts[c].running.as_ref().is_some_and(|running| running.state_ok);
        let view = &mut self.oracle.views[c][n];
        for id in ids {
            view.known.used.entry(*id).or_insert((incarnation, openings));
            if saved {
                // It is on disk before the share leaves.
                view.saved.used.entry(*id).or_insert((incarnation, openings));
            }
        }
    }

    /// A share is about to leave.
    pub(crate) fn check_submission(&self, c: usize, n: usize, grounds: &Grounds, ordered_at: Duration) {
        let view = &self.oracle.views[c][n];
        self.check_no_hold(c, n, "a share leaves");
        if view.opened.is_some_and(|opened| opened > ordered_at) {
            self.wrong(c, n, "a share leaves on an order from before it saw the node open");
        }
        if matches!(grounds, Grounds::Cause(_)) && !view.known.markers.is_empty() {
            self.wrong(c, n, "a share leaves by itself although the custodian knows of a seal in place");
        }
    }

    /// An entry of the audit log.
    pub(crate) fn check_entry(&mut self, c: usize, entry: &Entry) {
        self.check_order_entry(c, entry);
        if let Entry::Marker { node, by, via: None, .. } = entry
            && *by == self.hosts[c].settings.id
            && self.oracle.calm
            && let Some(n) = self.index(node)
            && let Some((process, _)) = self.oracle.views[c][n].kept
            && !self.oracle.were_open.contains(&process)
        {
            self.wrong(c, n, &format!("saw a seal in place although process {process} was never open"));
        }
    }

    pub(crate) fn check_heartbeat(&self, c: usize, heartbeat: &Heartbeat) {
        let now = self.wall(self.hosts[c].offset);
        self.check_orders_told(c, heartbeat);
        for (node, report) in &heartbeat.nodes {
            // A marker that was just told is looked into; the answer may take its time.
            let jumped = !self.setup.skew.is_zero();
            let looked = report.marker.is_none_or(|marker| !jumped && now.since(marker) > Duration::from_secs(10));
            if report.seen == Seen::Open && looked && (report.needs.is_some() || report.cause.is_some()) {
                let n = self.index(node).unwrap_or_default();
                self.wrong(c, n, &format!("sees the node open and still has an incident: {report:?}"));
            }
        }
    }

    pub(crate) fn check_memory(&self, c: usize) {
        let Some(running) = &self.hosts[c].running else { return };
        if let Some(n) = running.edges.iter().position(|edge| edge.tickets.len() > TICKETS_LEFT_MAX) {
            self.wrong(c, n, "keeps more and more tickets");
        }
        if self.hosts[c].disk.as_ref().is_some_and(|disk| disk.len() > STATE_MAX) {
            self.wrong(c, 0, "its state grows without bound");
        }
    }

    pub(crate) fn wrong(&self, c: usize, n: usize, what: &str) -> ! {
        let view = &self.oracle.views[c][n];
        self.fail(&format!("custodian-{} and vault-{}: {what}\n{view:?}", c + 1, n + 1));
    }
}
