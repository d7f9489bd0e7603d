//! The sentinel's state under fake time, in front of nodes that crash, are sealed and cut off; a failure prints its seed.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::id::{IncidentId, MessageId};
use crate::message::{HoldReport, Kind, Lock, Receipt, Refusal};
use crate::quorum::tests::heartbeat;
use crate::seal_status::{SealKind, SealStatus};
use crate::sight::{ConnectionId, Side, TicketId};

mod drills;
mod liars;

const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
const LATENCY: Duration = Duration::from_millis(1);

fn node(name: &str) -> NodeName {
    name.parse().expect("a name")
}

fn who(name: &str) -> Principal {
    name.parse().expect("a name")
}

fn at(elapsed: Duration) -> Now {
    Now { steady: Steady::from_start(elapsed), wall: Timestamp::from_millis(1_800_000_000_000).after(elapsed) }
}

fn watch(names: &[&str], direct: bool) -> BTreeMap<ClusterId, ClusterWatch> {
    let how = Watch { direct, poll: Duration::from_millis(100), knock: Duration::from_millis(10) };
    let nodes = names.iter().map(|name| (node(name), NodeWatch { url: format!("https://{name}:8200"), how }));
    let cluster = ClusterWatch {
        name: "prod".parse().expect("a name"),
        shares: 5,
        threshold: 3,
        generation: 1,
        custodians: (1..=5).map(|i| who(&format!("custodian-{i}"))).collect(),
        nodes: nodes.collect(),
        min_unsealed: 2,
        allowed_signers_sha256: "configured".to_owned(),
        audit_accepted: BTreeMap::new(),
    };
    BTreeMap::from([(CLUSTER, cluster)])
}

/// A node as it really is, and the connections and tickets that it gave.
#[derive(Debug, Default)]
struct Truth {
    /// The process that runs, by number; none while it is down.
    process: Option<u64>,
    processes: u64,
    sealed: bool,
    reachable: bool,
    /// The process that last answered the sentinel that it is open.
    answered_open: Option<u64>,
    /// The process that last answered the sentinel that it is sealed.
    answered_sealed: Option<u64>,
    kept: BTreeMap<ConnectionId, u64>,
    tickets: BTreeMap<TicketId, u64>,
}

impl Truth {
    fn start(&mut self) {
        self.processes += 1;
        self.process = Some(self.processes);
        self.sealed = true;
    }

    fn status(&self) -> SealStatus {
        SealStatus {
            initialized: true,
            sealed: self.sealed,
            kind: SealKind::Shamir,
            threshold: 3,
            shares: 5,
            progress: 0,
            nonce: String::new(),
        }
    }

    fn answers(&self) -> Option<u64> {
        self.process.filter(|_| self.reachable)
    }
}

#[derive(Debug)]
enum Answer {
    Lost(ConnectionId),
    Refused(ConnectionId),
    Declined(ConnectionId),
    Status(ConnectionId, SealStatus),
    Ticket(TicketId),
    Side(Side),
}

/// A sentinel in front of one node.
struct World {
    now: Duration,
    watcher: Watcher,
    place: Place,
    truth: Truth,
    next_ticket: TicketId,
    waiting: BTreeMap<(Duration, u64), Answer>,
    sequence: u64,
    events: Vec<Sighting>,
    records: usize,
}

impl World {
    fn new(direct: bool) -> Self {
        let mut truth = Truth { reachable: true, ..Truth::default() };
        truth.start();
        truth.sealed = false;
        Self {
            now: Duration::ZERO,
            watcher: Watcher::new(watch(&["vault-1"], direct), at(Duration::ZERO)),
            place: Place { cluster: CLUSTER, node: node("vault-1") },
            truth,
            next_ticket: 1,
            waiting: BTreeMap::new(),
            sequence: 0,
            events: Vec::new(),
            records: 0,
        }
    }

    fn answer(&mut self, answer: Answer) {
        self.sequence += 1;
        self.waiting.insert((self.now + LATENCY, self.sequence), answer);
    }

    fn carry_out(&mut self) {
        while let Some((_, action)) = self.watcher.poll_action() {
            match action {
                Action::Open(id, offer) => match self.truth.answers() {
                    Some(process) if offer.is_some_and(|id| self.truth.tickets.remove(&id) == Some(process)) => {
                        self.answer(Answer::Lost(id));
                    }
                    Some(process) => {
                        if offer.is_some() {
                            self.answer(Answer::Declined(id));
                        }
                        self.truth.kept.insert(id, process);
                        self.give_ticket(process);
                        self.give_status(id);
                    }
                    None if self.truth.reachable => self.answer(Answer::Refused(id)),
                    None => self.answer(Answer::Lost(id)),
                },
                Action::Poll(id) => match self.truth.kept.get(&id) {
                    Some(process) if self.truth.answers() == Some(*process) => self.give_status(id),
                    _ => {
                        self.truth.kept.remove(&id);
                        self.answer(Answer::Lost(id));
                    }
                },
                Action::Side(ticket) => {
                    let of = ticket.map(|id| self.truth.tickets.remove(&id).expect("a ticket that was given"));
                    match self.truth.answers() {
                        Some(process) => {
                            self.give_ticket(process);
                            let same = of == Some(process);
                            let full = Side::Full { offered: ticket.is_some() };
                            self.answer(Answer::Side(if same { Side::Resumed { sealed: None } } else { full }));
                        }
                        None => self.answer(Answer::Side(Side::Failed)),
                    }
                }
                Action::Discard(id) => drop(self.truth.tickets.remove(&id)),
            }
        }
        while let Some((cluster, event)) = self.watcher.poll_event() {
            assert_eq!(cluster, CLUSTER);
            self.check(&event);
            self.events.push(event);
        }
        while self.watcher.poll_record().is_some() {
            self.records += 1;
        }
    }

    fn give_ticket(&mut self, process: u64) {
        let id = self.next_ticket;
        self.next_ticket += 1;
        self.truth.tickets.insert(id, process);
        self.answer(Answer::Ticket(id));
    }

    fn give_status(&mut self, id: ConnectionId) {
        let answered = match self.truth.sealed {
            true => &mut self.truth.answered_sealed,
            false => &mut self.truth.answered_open,
        };
        *answered = self.truth.process;
        let status = self.truth.status();
        self.answer(Answer::Status(id, status));
    }

    /// What is said with a cause must be true of the process that was seen sealed.
    fn check(&self, event: &Sighting) {
        let (open, sealed) = (self.truth.answered_open, self.truth.answered_sealed);
        match event.cause {
            Some(Cause::InPlace) => assert!(open.is_some() && open == sealed, "{event:?}: {:?}", self.truth),
            Some(Cause::Restart) => assert!(open.is_some() && open != sealed, "{event:?}: {:?}", self.truth),
            _ => {}
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.watcher.handle_timeout(at(self.now));
            self.carry_out();
            let answer = self.waiting.keys().next().map(|(when, _)| *when);
            let timeout = self.watcher.next_timeout().map(Steady::since_start);
            let Some(next) = [answer, timeout].into_iter().flatten().min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if answer == Some(next) {
                let (_, answer) = self.waiting.pop_first().expect("just seen");
                self.hear(answer);
                self.carry_out();
            }
        }
        self.now = end;
    }

    fn hear(&mut self, answer: Answer) {
        let now = at(self.now);
        self.watcher.handle_node(&self.place, now, |sight| match answer {
            Answer::Lost(id) => sight.handle_lost(id, now),
            Answer::Refused(id) => sight.handle_refused(id, now),
            Answer::Declined(id) => sight.handle_declined(id),
            Answer::Status(id, status) => sight.handle_status(id, status, now),
            Answer::Ticket(id) => sight.handle_ticket(id, now),
            Answer::Side(outcome) => sight.handle_side(outcome, now),
        });
    }

    /// The process ends; whoever is connected learns it at once.
    fn crash(&mut self) {
        self.truth.process = None;
        self.hang_up();
    }

    fn cut_off(&mut self) {
        self.truth.reachable = false;
        self.hang_up();
    }

    fn hang_up(&mut self) {
        for (id, _) in std::mem::take(&mut self.truth.kept) {
            self.answer(Answer::Lost(id));
        }
    }

    fn message(&mut self, from: &str, content: Content) {
        self.sequence += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.sequence.to_be_bytes());
        let now = at(self.now);
        let expires_at = content.kind().permits().then(|| now.wall.after(Duration::from_secs(900)));
        let header = Header {
            kind: content.kind(),
            id: MessageId::from_bytes(id),
            cluster: CLUSTER,
            from: who(from),
            issued_at: now.wall,
            expires_at,
        };
        self.watcher.handle_message(Body { header, content }, now);
        self.carry_out();
    }

    fn receipt(&self, cause: Cause, result: Submission) -> Receipt {
        let wall = at(self.now).wall;
        Receipt {
            node: self.place.node.clone(),
            incident: IncidentId::from_bytes([7; 16]),
            round: 0,
            cause,
            approvals: Vec::new(),
            intent: None,
            x: 1,
            result,
            nonce: String::new(),
            progress: 0,
            sealed_seen_at: wall.before(Duration::from_millis(8)),
            submitted_at: wall,
            answered_at: wall,
        }
    }

    fn status(&self) -> ClusterStatus {
        self.watcher.status(at(self.now)).into_values().next().expect("one cluster")
    }

    fn node_status(&self) -> NodeStatus {
        self.status().nodes.into_values().next().expect("one node")
    }

    fn said(&mut self) -> Vec<(Seen, Option<Cause>)> {
        std::mem::take(&mut self.events).into_iter().map(|event| (event.seen, event.cause)).collect()
    }

    fn counted(&self, counts: fn(&Totals) -> &BTreeMap<(ClusterId, Cause), u64>) -> Vec<(Cause, u64)> {
        let totals = self.watcher.totals();
        counts(&totals).iter().filter(|(_, n)| **n > 0).map(|((_, cause), n)| (*cause, *n)).collect()
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// A world in which the sentinel has seen the node open and has its tickets.
fn settled(direct: bool) -> World {
    let mut world = World::new(direct);
    world.run(SECOND);
    assert_eq!(world.said(), [(Seen::Open, None)]);
    world
}

#[test]
fn a_crash_is_told_at_once_and_again_with_its_cause() {
    let mut world = settled(true);
    world.crash();
    world.run(LATENCY);
    assert_eq!(world.said(), [(Seen::Lost, None)], "without waiting for a poll");
    world.run(SECOND);
    world.truth.start();
    world.run(Duration::from_millis(20));
    assert_eq!(
        world.said(),
        [(Seen::Sealed, None), (Seen::Sealed, Some(Cause::Restart))],
        "at the first knock, and again two handshakes later"
    );
    assert_eq!(world.node_status().cause, Some(Cause::Restart));
    world.truth.sealed = false;
    world.run(Duration::from_millis(50));
    assert_eq!(world.said(), [(Seen::Open, None)]);
    let incident = world.status().incidents.remove(0);
    assert_eq!(incident.cause, Some(Cause::Restart));
    assert!(incident.sealed_at > Some(incident.began_at) && incident.opened_at > incident.sealed_at, "{incident:?}");
    let (place, took) = world.watcher.poll_duration().expect("measured");
    assert_eq!((place, incident.open_after_ms), (world.place.clone(), Some(took.as_secs_f64() * 1000.0)));
    world.run(60 * SECOND);
    assert_eq!(world.counted(|totals| &totals.incidents), [(Cause::Restart, 1)]);
    assert_eq!(world.watcher.poll_duration(), None);
}

#[test]
fn a_seal_in_place_is_told_with_its_cause_and_counted_while_it_lasts() {
    let mut world = settled(true);
    world.truth.sealed = true;
    world.run(Duration::from_millis(110));
    assert_eq!(world.said(), [(Seen::Sealed, Some(Cause::InPlace))]);
    assert_eq!(world.counted(|totals| &totals.incidents), [(Cause::InPlace, 1)]);
    world.crash();
    world.run(SECOND);
    world.truth.start();
    world.run(SECOND);
    assert_eq!(world.said(), [(Seen::Lost, None)], "the same incident, and its cause stands");
    assert_eq!(world.node_status().cause, Some(Cause::InPlace));
    world.truth.sealed = false;
    world.run(60 * SECOND);
    assert_eq!(world.counted(|totals| &totals.incidents), [(Cause::InPlace, 1)]);
}

#[test]
fn behind_a_proxy_nothing_is_claimed() {
    let mut world = settled(false);
    world.truth.sealed = true;
    world.run(SECOND);
    assert_eq!(world.said(), [(Seen::Sealed, Some(Cause::Unknown))]);
}

#[test]
fn what_custodians_tell_fills_in_what_own_eyes_missed() {
    let mut world = settled(true);
    world.crash();
    world.run(SECOND);
    world.truth.start();
    // Opened before the sentinel's next knock.
    world.truth.sealed = false;
    let receipt = world.receipt(Cause::Restart, Submission::Counted);
    world.message("custodian-1", Content::Receipt(receipt.clone()));
    let opened = Receipt { result: Submission::Opened, ..receipt };
    world.message("custodian-2", Content::Receipt(opened.clone()));
    world.message("custodian-3", Content::Receipt(opened));
    world.run(SECOND);
    assert_eq!(world.said(), [(Seen::Lost, None), (Seen::Open, None)]);
    assert_eq!(world.counted(|totals| &totals.incidents), [], "its cause may still be told");
    world.run(10 * SECOND);
    assert_eq!(world.counted(|totals| &totals.incidents), [(Cause::Restart, 1)]);
    assert_eq!(world.counted(|totals| &totals.unseals), [(Cause::Restart, 1)], "once, whoever says so too");
    let incident = world.status().incidents.remove(0);
    assert_eq!((incident.cause, incident.told_cause, incident.sealed_at), (None, Some(Cause::Restart), None));
    assert_eq!((incident.submissions.len(), incident.open_after_ms), (3, Some(8.0)));
    assert_eq!(world.watcher.poll_duration().map(|(_, took)| took), Some(Duration::from_millis(8)));
}

#[test]
fn a_late_receipt_belongs_to_the_incident_before() {
    let mut world = settled(true);
    world.crash();
    world.run(SECOND);
    world.truth.start();
    world.truth.sealed = false;
    let receipt = world.receipt(Cause::Restart, Submission::Opened);
    world.run(SECOND);
    world.crash();
    world.run(SECOND);
    world.message("custodian-1", Content::Receipt(receipt));
    let incidents = world.status().incidents;
    assert_eq!(incidents.iter().map(|i| i.submissions.len()).collect::<Vec<_>>(), [0, 1]);
    assert!(incidents[0].opened_at.is_none(), "and no receipt ends an incident");
}

#[test]
fn a_custodians_word_makes_the_sentinel_look_and_no_more() {
    let mut world = settled(true);
    let sealed = Sighting {
        node: world.place.node.clone(),
        seen: Seen::Sealed,
        cause: Some(Cause::InPlace),
        seen_at: at(world.now).wall,
    };
    world.truth.sealed = true;
    world.message("custodian-1", Content::Sighting(sealed.clone()));
    world.run(Duration::from_millis(10));
    assert_eq!(world.said(), [(Seen::Sealed, Some(Cause::InPlace))], "before the next poll was due");
    world.truth.sealed = false;
    world.run(SECOND);
    world.said();
    world.message("custodian-1", Content::Sighting(sealed));
    world.run(SECOND);
    assert_eq!(world.said(), [], "it is open");
}

#[test]
fn refusals_approvals_and_needs_are_kept_with_their_node() {
    let mut world = settled(true);
    world.truth.sealed = true;
    world.run(SECOND);
    let refusal = |lock, why: &str| {
        let (node, incident) = (node("vault-1"), IncidentId::from_bytes([7; 16]));
        Content::Refusal(Refusal { node, incident, cause: Some(Cause::InPlace), lock, why: why.to_owned() })
    };
    world.message("custodian-1", refusal(Lock::Authority, "first"));
    world.message("custodian-1", refusal(Lock::Authority, "second"));
    world.message("custodian-1", refusal(Lock::Integrity, "third"));
    world.message("stranger", refusal(Lock::Authority, "not one of the cluster"));
    let whys: Vec<_> = world.status().incidents[0].refusals.iter().map(|refusal| refusal.why.clone()).collect();
    assert_eq!(whys, ["second", "third"]);

    let waiting = |x, need| {
        let mut beat = heartbeat(x, &[("vault-1", true)]);
        let report = beat.nodes.values_mut().next().expect("one");
        (report.needs, report.cause) = (Some(need), Some(Cause::InPlace));
        report.marker = Some(Timestamp::from_millis(i64::from(x)));
        Content::Heartbeat(Box::new(beat))
    };
    world.message("custodian-1", waiting(1, Needs::Approvals { have: 1, need: 2 }));
    world.message("custodian-2", waiting(2, Needs::Approvals { have: 1, need: 2 }));
    world.message("custodian-3", waiting(3, Needs::Evidence));
    let seen = world.node_status();
    assert_eq!(seen.needs, [(Needs::Approvals { have: 1, need: 2 }, 2), (Needs::Evidence, 1)]);
    assert_eq!((seen.marker, seen.ready), (Some(Timestamp::from_millis(1)), 3));

    world.message("alice", Content::Approval(Approval { node: node("vault-1") }));
    world.message("alice", Content::Approval(Approval { node: node("another") }));
    assert_eq!(world.status().approvals.len(), 1);
    world.truth.sealed = false;
    world.run(SECOND);
    assert_eq!(world.status().approvals.len(), 0, "void once the node was seen open");
    world.message("alice", Content::Approval(Approval { node: node("vault-1") }));
    world.run(Duration::from_secs(900));
    assert_eq!(world.status().approvals.len(), 0, "and when they expire");
}

#[test]
fn custodians_are_listed_heard_or_not_and_their_counters_never_fall() {
    let mut world = settled(true);
    let beat = |started: i64, counted: u64| {
        let mut beat = heartbeat(1, &[("vault-1", true)]);
        beat.started_at = Timestamp::from_millis(started);
        beat.submissions = BTreeMap::from([("counted".to_owned(), counted), ("made-up".to_owned(), 9)]);
        beat.rejected =
            BTreeMap::from([("forged".to_owned(), counted), ("made-up".to_owned(), 1), ("x".to_owned(), 1)]);
        Content::Heartbeat(Box::new(beat))
    };
    world.message("custodian-1", beat(1, 5));
    world.message("custodian-1", beat(1, 7));
    world.message("custodian-1", beat(2, 1));
    world.message("custodian-9", beat(2, 1));
    let totals = world.watcher.totals();
    assert_eq!(totals.submissions[&(CLUSTER, who("custodian-1"), Submission::Counted)], 8);
    let rejected: BTreeMap<_, _> = totals.rejected.into_iter().map(|((_, reason), n)| (reason, n)).collect();
    assert!(REASONS.iter().all(|reason| rejected.contains_key(reason)), "none begins out of nothing: {rejected:?}");
    let rejected: Vec<_> = rejected.into_iter().filter(|(_, n)| *n > 0).collect();
    assert_eq!(rejected, [("forged", 8), ("other", 4)], "no label value is made up by others");
    let status = world.status();
    let up: Vec<_> = status.custodians.values().map(|custodian| custodian.up && custodian.ready).collect();
    assert_eq!(up, [true, false, false, false, false]);
    assert_eq!((status.ready, status.margin), (1, -2));
    world.run(36 * SECOND);
    assert!(!world.status().custodians[&who("custodian-1")].up, "silence");
}

#[test]
fn an_older_heartbeat_does_not_replace_a_newer_one() {
    let mut world = settled(true);
    let content = |version: &str| {
        let beat = Heartbeat { version: version.to_owned(), ..heartbeat(1, &[("vault-1", true)]) };
        Content::Heartbeat(Box::new(beat))
    };
    world.message("custodian-1", content("new"));
    let now = at(world.now);
    let header = Header {
        kind: Kind::Heartbeat,
        id: MessageId::from_bytes([9; 16]),
        cluster: CLUSTER,
        from: who("custodian-1"),
        issued_at: now.wall.before(SECOND),
        expires_at: None,
    };
    world.watcher.handle_message(Body { header, content: content("old") }, now);
    let heard = world.status().custodians.remove(&who("custodian-1")).expect("listed").heartbeat;
    assert_eq!(heard.expect("heard").version, "new");
}

#[test]
fn a_new_process_goes_on_with_the_incident_of_the_one_before() {
    let mut world = settled(true);
    world.truth.sealed = true;
    world.run(SECOND);
    let known = world.status().incidents;
    let mut next = World::new(true);
    next.truth.sealed = true;
    next.watcher.restore(CLUSTER, known.clone());
    next.run(SECOND);
    assert_eq!(next.said(), [(Seen::Sealed, Some(Cause::Unknown))], "it says only what it saw itself");
    let incident = next.status().incidents.remove(0);
    assert_eq!((incident.began_at, incident.cause), (known[0].began_at, Some(Cause::InPlace)));
    next.truth.sealed = false;
    next.run(60 * SECOND);
    assert_eq!(next.status().incidents.len(), 1);
    assert!(next.status().incidents[0].opened_at.is_some());
    assert_eq!(next.counted(|totals| &totals.incidents), [], "the process before counted it");
}

#[test]
fn a_share_is_proven_by_an_opening_that_own_eyes_saw_and_stays_so() {
    let mut world = settled(true);
    world.crash();
    world.run(SECOND);
    world.truth.start();
    world.run(SECOND);
    for (x, result) in [(1, Submission::Counted), (3, Submission::Opened)] {
        let receipt = Receipt { x, nonce: "a".to_owned(), ..world.receipt(Cause::Restart, result) };
        world.message(&format!("custodian-{x}"), Content::Receipt(receipt));
    }
    let proven = |world: &World| -> Vec<_> {
        let custodians = world.status().custodians.into_iter();
        custodians.filter_map(|(who, known)| Some((who.as_str()[10..].to_owned(), known.share_proven?.at))).collect()
    };
    world.run(11 * SECOND);
    assert_eq!(proven(&world), [], "whatever receipts say, it is not open");
    world.truth.sealed = false;
    world.run(SECOND);
    assert_eq!(proven(&world), [], "a receipt may come that says otherwise");
    world.run(11 * SECOND);
    let opened = world.status().incidents[0].opened_at.expect("it is open");
    assert_eq!(proven(&world), [("1".to_owned(), opened)]);
    // One that comes late is news of this opening too: the set is whole with it.
    let receipt = Receipt { x: 2, nonce: "a".to_owned(), ..world.receipt(Cause::Restart, Submission::Counted) };
    world.message("custodian-2", Content::Receipt(receipt));
    assert_eq!(proven(&world), ["1", "2", "3"].map(|x| (x.to_owned(), opened)));

    let known = world.status().custodians;
    let known = known.into_iter().filter_map(|(who, custodian)| Some((who, custodian.share_proven?)));
    let mut next = World::new(true);
    next.watcher.restore_proofs(CLUSTER, known.collect());
    assert_eq!(proven(&next).len(), 3, "a new process knows it from the history");
    let mut clusters = watch(&["vault-1"], true);
    clusters.get_mut(&CLUSTER).expect("there").generation = 2;
    next.watcher.reconfigure(clusters, &BTreeSet::new(), at(next.now));
    assert_eq!(proven(&next), [], "these were other shares");
}

#[test]
fn a_share_is_suspect_until_it_is_proven_or_long_ago() {
    let mut world = settled(true);
    let crash = |world: &mut World, sets: &[&[(u8, Submission, &str)]]| {
        world.crash();
        world.run(SECOND);
        world.truth.start();
        world.run(SECOND);
        for (x, result, nonce) in sets.concat() {
            let receipt = Receipt { x, nonce: nonce.to_owned(), ..world.receipt(Cause::Restart, result) };
            world.message(&format!("custodian-{x}"), Content::Receipt(receipt));
        }
        world.truth.sealed = false;
        world.run(12 * SECOND);
    };
    let suspects = |world: &World| -> Vec<_> {
        let custodians = world.status().custodians.into_iter();
        custodians.filter_map(|(who, known)| Some((who.as_str()[10..].to_owned(), known.share_suspect?))).collect()
    };
    let failed =
        |nonce| [(1, Submission::Counted, nonce), (2, Submission::Counted, nonce), (3, Submission::Failed, nonce)];
    let opened = |nonce, last| {
        [(1, Submission::Counted, nonce), (4, Submission::Counted, nonce), (last, Submission::Opened, nonce)]
    };
    crash(&mut world, &[&failed("a"), &opened("b", 5)]);
    let first = world.status().incidents[0].opened_at.expect("it is open");
    assert_eq!(suspects(&world), [("2".to_owned(), first), ("3".to_owned(), first)]);
    crash(&mut world, &[&opened("c", 2)]);
    assert_eq!(suspects(&world), [("3".to_owned(), first)], "the other one was proven meanwhile");

    let mut next = World::new(true);
    let mut known = world.status().incidents;
    known.reverse();
    next.watcher.restore(CLUSTER, known);
    assert_eq!(suspects(&next).len(), 2, "a new process knows it from the history, as it knows the proofs");
    let proofs = world.status().custodians.into_iter();
    next.watcher.restore_proofs(CLUSTER, proofs.filter_map(|(who, known)| Some((who, known.share_proven?))).collect());
    assert_eq!(suspects(&next), [("3".to_owned(), first)]);
    let mut clusters = watch(&["vault-1"], true);
    clusters.get_mut(&CLUSTER).expect("there").generation = 2;
    next.watcher.reconfigure(clusters, &BTreeSet::new(), at(next.now));
    assert_eq!(suspects(&next), [], "these were other shares");

    let long = at(world.now + suspect::SUSPECT_KEPT);
    let late = &world.watcher.status(long)[&"prod".parse::<ClusterName>().expect("a name")];
    assert!(late.custodians.values().all(|custodian| custodian.share_suspect.is_none()), "it decays");
    let beat = |x: u8| Heartbeat { distrusted: vec![who("custodian-3")], ..heartbeat(x, &[("vault-1", true)]) };
    for x in [1, 2, 4] {
        world.message(&format!("custodian-{x}"), Content::Heartbeat(Box::new(beat(x))));
    }
    assert_eq!(suspects(&world), [], "whose word counts for nothing told of that failure");
}

#[test]
fn a_hold_takes_its_custodians_out_of_those_that_could_open_and_distrust_out_of_those_that_count() {
    let mut world = settled(true);
    world.truth.sealed = true;
    world.run(SECOND);
    let hold = |nodes: &[&str]| HoldReport {
        id: MessageId::from_bytes([1; 16]),
        by: who("carol"),
        held_at: at(Duration::ZERO).wall,
        nodes: nodes.iter().map(|name| node(name)).collect(),
        reason: None,
        released_by: Vec::new(),
        need: 2,
    };
    let beat = |x: u8, holds: Vec<HoldReport>, distrusted: &[&str]| {
        let mut beat = Heartbeat { holds, ..heartbeat(x, &[("vault-1", true)]) };
        beat.distrusted = distrusted.iter().map(|name| who(name)).collect();
        let report = beat.nodes.values_mut().next().expect("one");
        (report.marker, report.marker_by) = (Some(at(SECOND).wall), Some(who("custodian-4")));
        report.in_flight = x == 2;
        Content::Heartbeat(Box::new(beat))
    };
    world.message("custodian-1", beat(1, vec![hold(&["vault-1"])], &[]));
    world.message("custodian-2", beat(2, vec![hold(&[])], &[]));
    world.message("custodian-3", beat(3, vec![hold(&["vault-9"])], &[]));
    world.message("custodian-4", beat(4, Vec::new(), &["custodian-1", "custodian-2"]));
    world.message("custodian-9", beat(9, vec![hold(&["vault-1"])], &["custodian-5"]));
    let status = world.status();
    assert_eq!((status.holds.len(), status.distrusted.len()), (3, 2), "the manifest's custodians alone are heard");
    let seen = world.node_status();
    assert_eq!((seen.ready, seen.ready_unheld), (4, 2));
    assert_eq!(
        (seen.in_flight, seen.marker_by),
        (BTreeSet::from([who("custodian-2")]), BTreeSet::from([who("custodian-4")]))
    );
    assert!(status.custodians.values().all(|custodian| !custodian.distrusted), "one's word is not enough");

    for x in [1, 2, 3] {
        world.message(&format!("custodian-{x}"), beat(x, Vec::new(), &["custodian-4"]));
    }
    let status = world.status();
    let four = &status.custodians[&who("custodian-4")];
    assert!(four.distrusted && !four.ready && four.up && four.heartbeat.is_some(), "shown, and marked");
    assert_eq!((status.ready, world.node_status().ready), (3, 3), "its word of itself does not count");
    assert_eq!(status.distrusted[&who("custodian-4")].len(), 3);
}

#[test]
fn what_a_distrusted_custodian_tells_proves_no_share() {
    let mut world = settled(true);
    for x in [1, 3, 4] {
        let beat = Heartbeat { distrusted: vec![who("custodian-2")], ..heartbeat(x, &[("vault-1", true)]) };
        world.message(&format!("custodian-{x}"), Content::Heartbeat(Box::new(beat)));
    }
    world.crash();
    world.run(SECOND);
    world.truth.start();
    world.run(SECOND);
    for (x, result) in [(1, Submission::Counted), (2, Submission::Counted), (3, Submission::Opened)] {
        let receipt = Receipt { x, nonce: "a".to_owned(), ..world.receipt(Cause::Restart, result) };
        world.message(&format!("custodian-{x}"), Content::Receipt(receipt));
    }
    world.truth.sealed = false;
    world.run(12 * SECOND);
    let proven = world.status().custodians.into_iter().filter(|(_, custodian)| custodian.share_proven.is_some());
    assert_eq!(proven.map(|(who, _)| who).collect::<Vec<_>>(), [who("custodian-1")]);
    assert_eq!(world.status().incidents[0].submissions.len(), 3, "it is shown all the same");
}

#[test]
fn a_changed_configuration_keeps_what_is_known_of_what_stays() {
    let mut world = settled(true);
    world.message("custodian-1", Content::Heartbeat(Box::new(heartbeat(1, &[("vault-1", true)]))));
    let mut clusters = watch(&["vault-1", "vault-2"], true);
    clusters.get_mut(&CLUSTER).expect("there").custodians.remove(&who("custodian-5"));
    world.watcher.reconfigure(clusters, &BTreeSet::new(), at(world.now));
    let status = world.status();
    let seen: Vec<_> = status.nodes.values().map(|node| node.seen).collect();
    assert_eq!((seen, status.custodians.len()), (vec![Seen::Open, Seen::Never], 4));
    assert!(status.custodians[&who("custodian-1")].up);
    world.watcher.reconfigure(watch(&["vault-1"], true), &BTreeSet::from([world.place.clone()]), at(world.now));
    assert_eq!(world.node_status().seen, Seen::Never, "somewhere else now");
    world.truth.kept.clear();
    world.truth.tickets.clear();
    world.waiting.clear();
    world.run(SECOND);
    assert_eq!(world.node_status().seen, Seen::Open);
}

#[test]
fn memory_is_bounded_whatever_happens() {
    let mut world = settled(true);
    for _ in 0..INCIDENTS_KEPT + 20 {
        world.crash();
        world.run(Duration::from_millis(20));
        world.truth.start();
        world.truth.sealed = false;
        world.run(Duration::from_millis(200));
        for _ in 0..REPORTS_KEPT {
            let receipt = world.receipt(Cause::Restart, Submission::Counted);
            world.message("custodian-1", Content::Receipt(receipt.clone()));
            world.message("custodian-2", Content::Receipt(receipt));
            world.message("alice", Content::Approval(Approval { node: node("vault-1") }));
        }
    }
    let status = world.status();
    assert_eq!(status.incidents.len(), INCIDENTS_KEPT);
    assert!(status.incidents.iter().all(|incident| incident.submissions.len() <= REPORTS_KEPT));
    assert!(status.approvals.len() <= APPROVALS_KEPT);
    assert!(world.truth.tickets.len() <= 2 * crate::sight::TICKETS_KEPT + 2);
}

/// One thing that happens to the node, and how long it is left at that.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Crash,
    Start,
    Seal,
    Open,
    CutOff,
    Reconnect,
}

fn deeds() -> impl Strategy<Value = Vec<(Deed, u64)>> {
    use Deed::{Crash, CutOff, Open, Reconnect, Seal, Start};
    let deed = prop_oneof![Just(Crash), Just(Start), Just(Seal), Just(Open), Just(CutOff), Just(Reconnect)];
    proptest::collection::vec((deed, 0..700_u64), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Whatever happens to a node, no cause is claimed that is not so, and in the end all is as it is.
    #[test]
    fn nothing_untrue_is_claimed_and_nothing_is_stuck(deeds in deeds()) {
        let mut world = World::new(true);
        for (deed, millis) in deeds {
            match deed {
                Deed::Crash => world.crash(),
                Deed::Start if world.truth.process.is_none() => world.truth.start(),
                Deed::Start => {}
                Deed::Seal => world.truth.sealed = true,
                Deed::Open => world.truth.sealed &= world.truth.process.is_none(),
                Deed::CutOff => world.cut_off(),
                Deed::Reconnect => world.truth.reachable = true,
            }
            world.run(Duration::from_millis(millis));
        }
        world.truth.reachable = true;
        if world.truth.process.is_none() {
            world.truth.start();
        }
        world.run(10 * SECOND);
        let seen = if world.truth.sealed { Seen::Sealed } else { Seen::Open };
        prop_assert_eq!(world.node_status().seen, seen);
        // Sealed is said once in an incident, so that of a node that was lost since, lost is the last that was said.
        let last = world.events.last().map(|event| event.seen);
        prop_assert!(last == Some(seen) || (world.truth.sealed && last == Some(Seen::Lost)), "{:?}", last);
        let status = world.status();
        let running = status.incidents.iter().filter(|incident| incident.opened_at.is_none()).count();
        prop_assert_eq!(running, usize::from(world.truth.sealed));
        for incident in &status.incidents {
            prop_assert!(incident.opened_at.is_none_or(|opened| opened >= incident.began_at));
        }
        world.truth.sealed = false;
        world.run(60 * SECOND);
        prop_assert_eq!(world.node_status().seen, Seen::Open);
        let counted: u64 = world.counted(|totals| &totals.incidents).iter().map(|(_, n)| n).sum();
        prop_assert_eq!(counted, world.status().incidents.len() as u64, "each incident is counted once");
    }
}
