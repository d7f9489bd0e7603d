//! The broker, and what people and sentinels send through it.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use holdfast_core::cause::Cause;
use holdfast_core::custodian::BrokerNews;
use holdfast_core::envelope::{ENVELOPE_MAX, Envelope};
use holdfast_core::id::{ClusterId, MessageId};
use holdfast_core::message::{Approval, Body, Content, Effect, Kind, Seen, Sighting};
use holdfast_core::time::Timestamp;

use crate::note;
use crate::oracle::Given;
use crate::people::{APPROVAL_LIFE, Message};
use crate::world::{Event, World};

/// How long a message waits in the queue of events and reports.
const PEERS_TTL: Duration = Duration::from_secs(60);

/// How many messages a custodian keeps for a broker that is away.
const OUTBOX_MAX: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    Orders,
    Peers,
}

/// The broker.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) exists: bool,
    pub(crate) up: bool,
    /// Of a hundred reports and events, this many are lost, come twice, or come late.
    pub(crate) loss: u32,
    pub(crate) twice: u32,
    pub(crate) late: u32,
    /// The same of orders and approvals, whose queue loses nothing unless somebody deletes from it.
    pub(crate) orders_lost: u32,
    /// What it takes from custodians, confirms, and gives to nobody.
    pub(crate) swallowed: Vec<Kind>,
    lines: Vec<Line>,
    /// Everything that a custodian said lately, for those who would say it again.
    pub(crate) overheard: VecDeque<Rc<[u8]>>,
}

#[derive(Debug, Default)]
struct Line {
    orders: VecDeque<Rc<[u8]>>,
    peers: VecDeque<(Duration, Rc<[u8]>)>,
    outbox: VecDeque<Rc<[u8]>>,
}

/// An approval that an operator gives, with what may be wrong about it.
#[derive(Debug, Clone)]
pub(crate) struct Consent {
    pub(crate) node: String,
    pub(crate) cluster: ClusterId,
    pub(crate) operator: usize,
    /// How far the operator's clock is from true time, in milliseconds.
    pub(crate) offset: i64,
    pub(crate) life: Duration,
}

impl Post {
    pub(crate) fn new(custodians: usize, exists: bool) -> Self {
        Self {
            exists,
            up: exists,
            loss: 0,
            twice: 0,
            late: 0,
            orders_lost: 0,
            swallowed: Vec::new(),
            lines: (0..custodians).map(|_| Line::default()).collect(),
            overheard: VecDeque::new(),
        }
    }

    /// Somebody deletes what waits in a custodian's queue of orders.
    pub(crate) fn empty_orders(&mut self, c: usize) {
        self.lines[c].orders.clear();
    }
}

impl World {
    pub(crate) fn broker_down(&mut self) {
        if !std::mem::replace(&mut self.post.up, false) {
            return;
        }
        note!(self, "the broker is down");
        (0..self.hosts.len()).for_each(|c| self.broker_disconnect(c));
    }

    pub(crate) fn broker_up(&mut self) {
        if !self.post.exists || std::mem::replace(&mut self.post.up, true) {
            return;
        }
        note!(self, "the broker is up");
        for c in 0..self.hosts.len() {
            let (wait, incarnation) = (self.dice.millis(10, 900), self.hosts[c].incarnation);
            self.after(wait, Event::BrokerConnect { c, incarnation });
        }
    }

    pub(crate) fn broker_disconnect(&mut self, c: usize) {
        let Some(running) = self.hosts[c].running.as_mut().filter(|running| running.connected) else { return };
        running.connected = false;
        self.oracle.broker(c, None);
        self.tell(c, |core, now| core.handle_broker(BrokerNews::Down, now));
        self.pump_slots();
    }

    pub(crate) fn broker_connect(&mut self, c: usize, incarnation: u64) {
        if !self.post.up || self.hosts[c].incarnation != incarnation {
            return;
        }
        let Some(running) = self.hosts[c].running.as_mut().filter(|running| !running.connected) else { return };
        running.connected = true;
        self.oracle.broker(c, Some(self.now));
        self.tell(c, |core, now| core.handle_broker(BrokerNews::Up, now));
        let line = &mut self.post.lines[c];
        let (orders, peers) = (std::mem::take(&mut line.orders), std::mem::take(&mut line.peers));
        let outbox = std::mem::take(&mut line.outbox);
        let mut wait = Duration::from_millis(1);
        for bytes in orders {
            self.after(wait, Event::Deliver { c, queue: Queue::Orders, bytes });
            wait += Duration::from_micros(300);
        }
        self.after(wait, Event::Drained { c, incarnation });
        for (at, bytes) in peers {
            if self.now - at < PEERS_TTL {
                wait += Duration::from_micros(300);
                self.after(wait, Event::Deliver { c, queue: Queue::Peers, bytes });
            }
        }
        outbox.into_iter().for_each(|bytes| self.distribute(Queue::Peers, &bytes, Some(c)));
        self.pump_slots();
    }

    pub(crate) fn drained(&mut self, c: usize, incarnation: u64) {
        let connected = self.hosts[c].running.as_ref().is_some_and(|running| running.connected);
        if self.hosts[c].incarnation == incarnation && connected {
            self.oracle.drained(c);
            self.tell(c, |core, now| core.handle_broker(BrokerNews::OrdersDrained, now));
        }
    }

    /// What a custodian says to all the others.
    pub(crate) fn publish(&mut self, c: usize, content: Content) {
        if let Content::Heartbeat(heartbeat) = &content {
            self.check_heartbeat(c, heartbeat);
            self.hosts[c].told = heartbeat.nodes.clone();
            self.hosts[c].heartbeat = Some((**heartbeat).clone());
        }
        if let Content::Acknowledgement(said) = &content {
            self.hosts[c].acknowledged.insert(said.order, (said.effect.clone(), said.in_flight.clone()));
            if said.effect == (Effect::InForce {}) {
                self.drills.taken.insert((c, said.order));
            }
        }
        if let Content::DrillReport(report) = &content {
            self.note_report(c, report);
        }
        if self.hosts[c].withholds && matches!(content, Content::Relay(_))
            || self.post.swallowed.contains(&content.kind())
        {
            return;
        }
        if !self.post.exists {
            return;
        }
        let (id, issued_at) = (MessageId::from_bytes(self.dice.bytes()), self.wall(self.hosts[c].offset));
        let message = Message { id, cluster: self.cluster, content, issued_at, expires_at: None };
        let bytes: Rc<[u8]> = self.people.custodians[c].seal(message).into();
        if bytes.len() > ENVELOPE_MAX {
            self.fail(&format!("custodian-{} says more than anybody takes: {} bytes", c + 1, bytes.len()));
        }
        if self.post.overheard.len() == 200 {
            self.post.overheard.pop_front();
        }
        self.post.overheard.push_back(bytes.clone());
        if self.hosts[c].running.as_ref().is_some_and(|running| running.connected) {
            self.distribute(Queue::Peers, &bytes, Some(c));
            self.echo(c, &bytes);
        } else if self.post.lines[c].outbox.len() < OUTBOX_MAX {
            self.post.lines[c].outbox.push_back(bytes);
        }
    }

    /// The broker hands a custodian's own words to it as well.
    fn echo(&mut self, c: usize, bytes: &Rc<[u8]>) {
        let wait = self.dice.micros(500, 4000);
        self.after(wait, Event::Deliver { c, queue: Queue::Peers, bytes: bytes.clone() });
    }

    /// Puts a message into everybody's queue but its sender's.
    pub(crate) fn distribute(&mut self, queue: Queue, bytes: &Rc<[u8]>, but: Option<usize>) {
        for c in (0..self.hosts.len()).filter(|c| Some(*c) != but) {
            let loss = if queue == Queue::Peers { self.post.loss } else { self.post.orders_lost };
            let lost = (queue == Queue::Peers || loss > 0) && self.dice.chance(loss);
            if lost {
                continue;
            }
            let copies = if self.dice.chance(self.post.twice) { 2 } else { 1 };
            for _ in 0..copies {
                let late = self.dice.chance(self.post.late);
                let wait = if late { self.dice.millis(1, 20_000) } else { self.dice.micros(500, 4000) };
                self.after(wait, Event::Deliver { c, queue, bytes: bytes.clone() });
            }
        }
    }

    pub(crate) fn deliver(&mut self, c: usize, queue: Queue, bytes: Rc<[u8]>) {
        let incarnation = self.hosts[c].incarnation;
        let connected = self.hosts[c].running.as_ref().is_some_and(|running| running.connected);
        if !connected {
            return self.keep_for(c, queue, bytes);
        }
        self.hear(c, &bytes);
        // Acknowledged once it is on disk; otherwise it comes again.
        let host = &self.hosts[c];
        let acknowledged = host.incarnation == incarnation && host.running.as_ref().is_some_and(|r| r.state_ok);
        if !acknowledged {
            self.keep_for(c, queue, bytes);
        }
    }

    fn keep_for(&mut self, c: usize, queue: Queue, bytes: Rc<[u8]>) {
        let line = &mut self.post.lines[c];
        match queue {
            Queue::Orders => line.orders.push_back(bytes),
            Queue::Peers => line.peers.push_back((self.now, bytes)),
        }
    }

    /// Hands a message to a custodian, as the broker or the inbox does. Gives whether it was admitted.
    pub(crate) fn hear(&mut self, c: usize, bytes: &[u8]) -> bool {
        let restrictions = self.before_hearing(bytes);
        let order = self.before_order(c, bytes);
        if let Some(body) = Envelope::parse(bytes).ok().and_then(|envelope| Body::parse(envelope.body()).ok()) {
            self.note_intent_heard(c, body.header.id);
        }
        let heard = self.tell(c, |core, now| core.handle_message(bytes, now));
        let admitted = matches!(heard, Some(Ok(())));
        self.after_order(c, order, admitted);
        if admitted {
            self.after_hearing(c, restrictions);
        }
        admitted
    }

    /// An operator approves the opening of a node, now, for all custodians. Without a broker it goes into their inboxes.
    pub(crate) fn approve(&mut self, operator: usize, n: usize) -> MessageId {
        let consent = self.consent(operator, n);
        let (id, bytes) = self.give(&consent);
        self.send_order(&bytes);
        id
    }

    /// For all custodians: into their queues, or without a broker into the inboxes of those that run.
    pub(crate) fn send_order(&mut self, bytes: &Rc<[u8]>) {
        if self.post.exists {
            return self.distribute(Queue::Orders, bytes, None);
        }
        for c in 0..self.hosts.len() {
            if self.hosts[c].running.is_some() {
                self.hear(c, bytes);
            }
        }
    }

    pub(crate) fn consent(&self, operator: usize, n: usize) -> Consent {
        let node = self.names[n].to_string();
        Consent { node, cluster: self.cluster, operator, offset: 0, life: APPROVAL_LIFE }
    }

    /// Signs an approval, and remembers that it was really given.
    pub(crate) fn give(&mut self, consent: &Consent) -> (MessageId, Rc<[u8]>) {
        let id = MessageId::from_bytes(self.dice.bytes());
        let issued_at = self.wall(consent.offset);
        let expires_at = issued_at.after(consent.life);
        let content = Content::Approval(Approval { node: consent.node.parse().expect("a name") });
        let message = Message { id, cluster: consent.cluster, content, issued_at, expires_at: Some(expires_at) };
        let operator = self.people.orderer(consent.operator);
        note!(self, "{} approves {} ({id})", operator.name, consent.node);
        let given = Given {
            operator: consent.operator,
            key: operator.key,
            issued_at,
            node: consent.node.clone(),
            cluster: consent.cluster,
            at: self.now,
            expires_at,
        };
        let bytes = operator.seal(message).into();
        self.oracle.given(id, given);
        (id, bytes)
    }

    /// A sentinel that sees what is so, if there is one.
    pub(crate) fn sentinel_notes(&mut self, n: usize, seen: Seen, cause: Option<Cause>, wait: Duration) {
        if self.setup.sentinel && self.post.exists {
            let seen_at = self.now + wait;
            self.at(seen_at, Event::SentinelSays { n, seen, cause, seen_at });
        }
    }

    pub(crate) fn sentinel_says(&mut self, n: usize, seen: Seen, cause: Option<Cause>, seen_at: Duration) {
        let at = self.wall_at(seen_at, 0);
        self.sentinel_claims(n, seen, cause, at);
    }

    /// What the sentinel says, true or not.
    pub(crate) fn sentinel_claims(&mut self, n: usize, seen: Seen, cause: Option<Cause>, seen_at: Timestamp) {
        if !self.post.up {
            return;
        }
        note!(self, "the sentinel says vault-{} is {seen:?} {cause:?} at {seen_at}", n + 1);
        let content = Content::Event(Sighting { node: self.names[n].clone(), seen, cause, seen_at });
        let (id, issued_at) = (MessageId::from_bytes(self.dice.bytes()), self.wall(0));
        let message = Message { id, cluster: self.cluster, content, issued_at, expires_at: None };
        let bytes: Rc<[u8]> = self.people.sentinel.seal(message).into();
        self.distribute(Queue::Peers, &bytes, None);
    }
}
