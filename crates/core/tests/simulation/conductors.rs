//! The conductors' queue, the requests and eyes of a drill, and what must hold of intents: an oracle that knows what was really
//! announced, sealed and heard.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use holdfast_core::drill::{Fingerprint, Observed, SealOrder, Survey, Surveyed};
use holdfast_core::envelope::Envelope;
use holdfast_core::id::{DrillId, MessageId, SlotId};
use holdfast_core::message::{Body, Content, DrillOrder, DrillReport, Due, Effect, Header, Intent, Phase, Serving};
use holdfast_core::time::Timestamp;

use crate::note;
use crate::people::{APPROVAL_LIFE, Message};
use crate::post::Queue;
use crate::vault::ProcessId;
use crate::world::{Event, World};

/// Within how long after an intent a seal begins that it covers (docs/SECURITY.md).
pub(crate) const COVERED: Duration = Duration::from_secs(60);

/// How long an intent holds for its incident.
pub(crate) const HOLDS: Duration = Duration::from_secs(15 * 60);

/// The custodian that something was handed out to, its process, and what it is about.
type Holder = (usize, u64, SlotId);

/// What is known of drills from outside.
#[derive(Debug, Default)]
pub(crate) struct Drills {
    /// What waits in the conductors' queue, and to whom it was handed out.
    queue: VecDeque<(Rc<[u8]>, Option<Holder>)>,
    watched: Vec<Watched>,
    /// Every intent that was ever published.
    pub(crate) intents: BTreeMap<MessageId, Published>,
    /// Who said that an intent, or an order, is in force there.
    pub(crate) taken: BTreeSet<(usize, MessageId)>,
    /// Seals in place of each node, the process that was sealed with each.
    pub(crate) seals: BTreeMap<usize, Vec<(Duration, ProcessId)>>,
    /// How often conductors sealed for each slot.
    pub(crate) conducted: BTreeMap<SlotId, u32>,
    /// What each node gives where the canary is read through it; none where nothing. One by default.
    pub(crate) canaries: BTreeMap<usize, Option<u8>>,
    /// The last report of each drill, and every closed one.
    pub(crate) reports: BTreeMap<DrillId, DrillReport>,
    pub(crate) closed: Vec<DrillReport>,
}

/// An intent that was published.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) intent: Intent,
    pub(crate) at: Duration,
    /// When it reached each custodian first.
    pub(crate) heard: BTreeMap<usize, Duration>,
    /// Whether the order in it says that people have to approve.
    pub(crate) people: bool,
}

#[derive(Debug)]
struct Watched {
    c: usize,
    incarnation: u64,
    drill: DrillId,
    n: usize,
    sealed_at: Duration,
    lost: bool,
}

impl World {
    // The conductors' queue.

    /// An operator orders a drill.
    pub(crate) fn order_drill(&mut self, operator: usize, node: Option<usize>) -> (MessageId, Rc<[u8]>) {
        self.order_drill_with(operator, node, false)
    }

    pub(crate) fn order_drill_with(
        &mut self,
        operator: usize,
        node: Option<usize>,
        people: bool,
    ) -> (MessageId, Rc<[u8]>) {
        let node = node.map(|n| self.names[n].clone());
        let (id, issued_at) = (MessageId::from_bytes(self.dice.bytes()), self.wall(0));
        let content = Content::Drill(DrillOrder { node, reason: None, people });
        let expires_at = Some(issued_at.after(APPROVAL_LIFE));
        let message = Message { id, cluster: self.cluster, content, issued_at, expires_at };
        let bytes: Rc<[u8]> = self.people.operators[operator].seal(message).into();
        note!(self, "{} orders a drill ({id})", self.people.operators[operator].name);
        self.distribute(Queue::Orders, &bytes, None);
        self.queue_slot(bytes.clone());
        (id, bytes)
    }

    /// An operator orders a drill of which nobody hears yet.
    pub(crate) fn order_drill_unheard(&mut self, operator: usize, node: Option<usize>) -> (MessageId, Rc<[u8]>) {
        self.post.up = false;
        let ordered = self.order_drill(operator, node);
        self.post.up = true;
        ordered
    }

    /// The time of a drill has come, and every conductor that runs says so.
    pub(crate) fn drill_due(&mut self) -> SlotId {
        let slot = SlotId::of_time(self.wall(0));
        for c in self.setup.conductors.clone() {
            if self.hosts[c].running.as_ref().is_some_and(|running| running.connected) {
                let (id, issued_at) = (MessageId::from_bytes(self.dice.bytes()), self.wall(self.hosts[c].offset));
                let content = Content::Due(Due { slot: slot.clone() });
                let message = Message { id, cluster: self.cluster, content, issued_at, expires_at: None };
                let bytes: Rc<[u8]> = self.people.custodians[c].seal(message).into();
                self.distribute(Queue::Peers, &bytes, Some(c));
                self.queue_slot(bytes);
            }
        }
        slot
    }

    pub(crate) fn queue_slot(&mut self, bytes: Rc<[u8]>) {
        self.drills.queue.push_back((bytes, None));
        self.pump_slots();
    }

    /// The single active consumer is the first conductor that is connected, and stays it as long as it has something in hand.
    pub(crate) fn pump_slots(&mut self) {
        if !self.post.up {
            return;
        }
        let there = |c: usize, incarnation: u64| {
            let host = &self.hosts[c];
            host.incarnation == incarnation && host.running.as_ref().is_some_and(|running| running.connected)
        };
        for (_, holder) in &mut self.drills.queue {
            if holder.as_ref().is_some_and(|(c, incarnation, _)| !there(*c, *incarnation)) {
                *holder = None;
            }
        }
        let holding = self.drills.queue.iter().find_map(|(_, holder)| holder.as_ref().map(|(c, ..)| *c));
        let connected = |c: &usize| self.hosts[*c].running.as_ref().is_some_and(|running| running.connected);
        let Some(active) = holding.or_else(|| self.setup.conductors.iter().copied().find(connected)) else { return };
        let incarnation = self.hosts[active].incarnation;
        for index in 0..self.drills.queue.len() {
            if self.drills.queue[index].1.is_none() {
                let bytes = self.drills.queue[index].0.clone();
                // Handed out before it is known what it is about: the answer says it.
                let slot = SlotId::of_time(Timestamp::default());
                self.drills.queue[index].1 = Some((active, incarnation, slot));
                self.after(Duration::from_millis(1), Event::Slot { c: active, incarnation, bytes });
            }
        }
    }

    pub(crate) fn hear_slot(&mut self, c: usize, incarnation: u64, bytes: &Rc<[u8]>) {
        let connected = self.hosts[c].running.as_ref().is_some_and(|running| running.connected);
        if self.hosts[c].incarnation != incarnation || !connected {
            return;
        }
        // What is settled at once would be looked for before it is noted: so it is noted before the outputs are carried out.
        let heard = self.tell_quietly(c, |core, now| core.handle_slot(bytes, now));
        match heard {
            Some(Ok((_, slot))) => {
                for (_, holder) in self.drills.queue.iter_mut().filter(|(queued, _)| Rc::ptr_eq(queued, bytes)) {
                    *holder = Some((c, incarnation, slot.clone()));
                }
            }
            Some(Err(why)) => {
                note!(self, "custodian-{}: refuses what came for a drill: {why}", c + 1);
                self.drills.queue.retain(|(queued, _)| !Rc::ptr_eq(queued, bytes));
            }
            None => {}
        }
        self.carry_out_all(c);
    }

    pub(crate) fn settle(&mut self, c: usize, slot: &SlotId) {
        let incarnation = self.hosts[c].incarnation;
        let his = |holder: &Option<Holder>| {
            holder.as_ref().is_some_and(|(holder, of, about)| (*holder, *of, about) == (c, incarnation, slot))
        };
        self.drills.queue.retain(|(_, holder)| !his(holder));
    }

    pub(crate) fn slots_waiting(&self) -> usize {
        self.drills.queue.len()
    }

    // The drill itself.

    pub(crate) fn announce(&mut self, c: usize, header: Header, intent: Intent) {
        note!(self, "custodian-{}: announces a drill of {} ({})", c + 1, intent.node, header.id);
        let message = Message {
            id: header.id,
            cluster: header.cluster,
            content: Content::Intent(intent),
            issued_at: header.issued_at,
            expires_at: header.expires_at,
        };
        self.publish_intent(c, message);
    }

    /// A conductor's intent, whoever has its key.
    pub(crate) fn publish_intent(&mut self, c: usize, message: Message) {
        let Content::Intent(intent) = &message.content else { panic!("an intent") };
        let heard = BTreeMap::from([(c, self.now)]);
        let people = intent.order.as_deref().is_some_and(is_for_people);
        let published = Published { intent: intent.clone(), at: self.now, heard, people };
        self.drills.intents.insert(message.id, published);
        let bytes: Rc<[u8]> = self.people.custodians[c].seal(message).into();
        self.post.overheard.push_back(bytes.clone());
        if self.post.up {
            self.distribute(Queue::Peers, &bytes, Some(c));
        }
    }

    pub(crate) fn survey(&mut self, c: usize) {
        let (wait, incarnation) = (self.dice.millis(1, 20), self.hosts[c].incarnation);
        self.after(wait, Event::Surveyed { c, incarnation });
    }

    pub(crate) fn surveyed(&mut self, c: usize) {
        let active = self.vaults.iter().position(|vault| vault.is_open());
        let serving = |n: usize| {
            let role = if Some(n) == active { Serving::Active } else { Serving::Standby };
            let answers = self.vaults[n].process.as_ref().is_some_and(|process| !process.frozen);
            (self.vaults[n].is_open() && answers).then_some(role)
        };
        let said = |n: usize| Surveyed { serving: serving(n), canary: self.setup.canary.then(|| self.read_canary(n)) };
        let survey: Survey = (0..self.vaults.len()).map(|n| (self.names[n].clone(), said(n))).collect();
        let cluster = self.cluster;
        self.tell(c, |core, now| core.handle_survey(cluster, &survey, now));
    }

    pub(crate) fn begin_seal(&mut self, c: usize, order: SealOrder) {
        note!(self, "custodian-{}: is to seal {}", c + 1, order.node);
        let (wait, incarnation) = (self.dice.millis(2, 15), self.hosts[c].incarnation);
        self.after(wait, Event::Seal { c, incarnation, order });
    }

    pub(crate) fn carry_out_seal(&mut self, c: usize, order: &SealOrder) {
        let Some(n) = self.index(&order.node) else { return };
        let drill = order.drill;
        if self.state_ok(c).is_none_or(|ok| !ok) || !order.stands(self.now_of(c)) {
            return self.observe(c, drill, Observed::NotSealed("withdrawn".to_owned()));
        }
        let slot = self.drills.reports.get(&drill).map(|report| report.slot.clone());
        if !self.vaults[n].is_open() || self.vaults[n].process.as_ref().is_some_and(|process| process.frozen) {
            return self.observe(c, drill, Observed::NotSealed("it is not open".to_owned()));
        }
        if let Some(slot) = slot {
            *self.drills.conducted.entry(slot).or_default() += 1;
        }
        let (incarnation, sealed_at) = (self.hosts[c].incarnation, self.now);
        self.drills.watched.push(Watched { c, incarnation, drill, n, sealed_at, lost: false });
        self.seal_node(n);
        self.observe_soon(c, drill, Observed::Sealed(self.wall(self.hosts[c].offset)));
    }

    /// Somebody sealed a node in place.
    pub(crate) fn note_seal(&mut self, n: usize) {
        let process = self.vaults[n].process.as_ref().map_or(0, |process| process.id);
        self.drills.seals.entry(n).or_default().push((self.now, process));
    }

    pub(crate) fn eyes_lost(&mut self, n: usize) {
        let mut lost = Vec::new();
        for watched in self.drills.watched.iter_mut().filter(|watched| watched.n == n && !watched.lost) {
            watched.lost = true;
            lost.push((watched.c, watched.drill));
        }
        lost.into_iter().for_each(|(c, drill)| self.observe_soon(c, drill, Observed::Lost));
    }

    pub(crate) fn eyes_opened(&mut self, n: usize) {
        let now = self.now;
        let opened = |watched: &Watched| watched.n == n;
        let told: Vec<_> = self
            .drills
            .watched
            .iter()
            .filter(|w| opened(w))
            .map(|w| (w.c, w.incarnation, w.drill, w.sealed_at))
            .collect();
        self.drills.watched.retain(|watched| !opened(watched));
        for (c, incarnation, drill, sealed_at) in told {
            if self.hosts[c].incarnation == incarnation {
                let at = self.wall(self.hosts[c].offset);
                self.observe_soon(c, drill, Observed::Open(at, now - sealed_at));
                let served = Observed::Serves(at, Serving::Standby);
                let wait = self.dice.millis(30, 900);
                self.after(wait, Event::Exercised { c, incarnation, drill, observed: served });
                if self.setup.canary {
                    let observed = Observed::Canary(at, self.read_canary(n));
                    self.after(wait + Duration::from_millis(20), Event::Exercised { c, incarnation, drill, observed });
                }
            }
        }
    }

    fn read_canary(&self, n: usize) -> Result<Fingerprint, String> {
        let value = self.drills.canaries.get(&n).copied().unwrap_or(Some(1));
        value.map(|value| Fingerprint::from_digest([value; 32])).ok_or_else(|| "status 503".to_owned())
    }

    fn observe_soon(&mut self, c: usize, drill: DrillId, observed: Observed) {
        let (wait, incarnation) = (self.dice.millis(1, 4), self.hosts[c].incarnation);
        self.after(wait, Event::Exercised { c, incarnation, drill, observed });
    }

    pub(crate) fn observe(&mut self, c: usize, drill: DrillId, observed: Observed) {
        let cluster = self.cluster;
        note!(self, "custodian-{}: sees in its drill {observed:?}", c + 1);
        self.tell(c, |core, now| core.handle_observed(cluster, drill, observed, now));
    }

    pub(crate) fn unwatch(&mut self, drill: DrillId) {
        self.drills.watched.retain(|watched| watched.drill != drill);
    }

    pub(crate) fn note_report(&mut self, c: usize, report: &DrillReport) {
        note!(self, "custodian-{}: drill {:?} {:?} {:?}", c + 1, report.phase, report.result, report.why);
        if report.phase == Phase::Closed && !self.drills.closed.contains(report) {
            self.drills.closed.push(report.clone());
        }
        self.drills.reports.insert(report.drill, report.clone());
    }

    // What must hold.

    /// A message that is an intent reached a custodian.
    pub(crate) fn note_intent_heard(&mut self, c: usize, id: MessageId) {
        let now = self.now;
        if let Some(published) = self.drills.intents.get_mut(&id) {
            published.heard.entry(c).or_insert(now);
        }
    }

    /// A custodian gave out an order to release on an intent. Only the seal that follows the intent is undone, and only by who
    /// heard of the intent before it.
    pub(crate) fn check_intent(&self, c: usize, n: usize, id: MessageId) {
        let Some(published) = self.drills.intents.get(&id) else {
            self.wrong(c, n, "released on an intent that nobody published")
        };
        if published.people {
            self.wrong(c, n, "released on an intent that permits nothing, because people have to approve")
        }
        if published.intent.node != self.names[n] {
            self.wrong(c, n, "released on an intent for another node");
        }
        let Some(heard) = published.heard.get(&c) else {
            self.wrong(c, n, "released on an intent that it did not hear")
        };
        let seals = self.drills.seals.get(&n).map(Vec::as_slice).unwrap_or_default();
        let Some((first, process)) = seals.iter().find(|(at, _)| at >= heard) else {
            self.wrong(c, n, "released on an intent, and nobody has sealed the node since")
        };
        let allowed = COVERED + self.setup.skew * 2;
        if *first > published.at + allowed && *first > *heard + COVERED {
            self.wrong(c, n, "released on an intent for a seal that came too late for it");
        }
        if seals.iter().filter(|(at, _)| at >= heard).count() > 1 && self.opened_between(n, *first) {
            self.wrong(c, n, "released on an intent for another seal than the first after it");
        }
        if self.now > *first + HOLDS + self.setup.poll * 4 {
            self.wrong(c, n, "released on an intent whose time is over");
        }
        if !self.vaults[n].is(*process) && !self.setup.policy.restart.eq(&holdfast_core::policy::Rule::Unseal) {
            self.wrong(c, n, "released on an intent to another process than the one that was sealed");
        }
        if self.marked(c, n) {
            self.wrong(c, n, "released on an intent although it knows of a marker");
        }
    }

    /// Whether the node's last seal is the one that an intent announced which this custodian took: then it sets no marker.
    pub(crate) fn is_a_drills(&self, c: usize, n: usize) -> bool {
        let seals = self.drills.seals.get(&n).map(Vec::as_slice).unwrap_or_default();
        self.drills.intents.iter().any(|(id, published)| {
            let took = matches!(self.hosts[c].acknowledged.get(id), Some((Effect::InForce {}, _)));
            let Some(heard) =
                published.heard.get(&c).filter(|_| took && !published.people && published.intent.node == self.names[n])
            else {
                return false;
            };
            let after: Vec<_> = seals.iter().map(|(at, _)| *at).filter(|at| at >= heard).collect();
            after.len() == 1 && after[0] <= *heard + COVERED && self.now <= after[0] + HOLDS
        })
    }

    /// Whether the node was open after this time, before the present seal.
    fn opened_between(&self, n: usize, since: Duration) -> bool {
        self.vaults[n].opened_at.is_some_and(|at| at > since)
    }
}

/// What an operator's order says. It is read without being believed.
fn is_for_people(order: &str) -> bool {
    let body = Envelope::parse(order.as_bytes()).ok().and_then(|envelope| Body::parse(envelope.body()).ok());
    matches!(body, Some(Body { content: Content::Drill(DrillOrder { people: true, .. }), .. }))
}
