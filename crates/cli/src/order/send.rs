//! Sending signed messages by the broker, and hearing what custodians answer. "Delivered" means acknowledged by the custodian
//! itself, in words that it signed: neither the broker nor a sentinel can say it in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::time::Duration;

use holdfast_core::admission::{Admission, Roles};
use holdfast_core::envelope::Envelope;
use holdfast_core::id::{MessageId, NodeName, Principal};
use holdfast_core::message::{Acknowledgement, Body, Content, Effect};
use holdfast_core::time::Now;
use holdfast_core::topology::{Exchange, operator_queue};
use holdfast_edge::broker::{
    Broker, BrokerEvent, BrokerHandle, BrokerSettings, Delivery, Outgoing, PREFETCH, PublishError,
};
use holdfast_edge::clock::Clock;
use holdfast_edge::config::BrokerConfig;
use serde::Serialize;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep_until, timeout};

use super::Signed;
use crate::operator::{OperatedCluster, Operator};

/// How long the connection's end is waited for.
pub(crate) const CLOSE: Duration = Duration::from_millis(200);

/// How long an answer to another command is kept before it is given back again; twice as long each time.
const PAUSE: Duration = Duration::from_millis(100);

/// How many of them are kept at once: the broker hands out no more than it may, and there has to be room for the answers to this one.
const KEPT_MAX: usize = PREFETCH as usize / 4 * 3;

/// How many of them are remembered: as many as the queue has room for.
const KNOWN_MAX: usize = 1_000;

/// What one custodian answered to one message.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Answer {
    pub(crate) custodian: Principal,
    pub(crate) effect: Effect,
    /// The nodes in which its share may be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) in_flight: Vec<NodeName>,
    /// From when the message was handed to the broker.
    pub(crate) after_ms: u64,
}

/// What became of messages that were sent.
pub(crate) struct Sent {
    custodians: BTreeSet<Principal>,
    answers: BTreeMap<MessageId, BTreeMap<Principal, Answer>>,
    /// Why they were not delivered to the broker, if they were not.
    pub(crate) trouble: Option<String>,
    /// Why answers cannot be read, if they cannot.
    pub(crate) unread: Option<String>,
    /// Why the last answer was not believed, if one was not: by this machine's own clock and allowed_signers.
    pub(crate) disbelieved: Option<String>,
}

impl Sent {
    /// Nothing was sent.
    pub(crate) fn nothing(cluster: &OperatedCluster, trouble: String) -> Self {
        Self {
            custodians: cluster.manifest.custodians().iter().map(|member| member.id.clone()).collect(),
            answers: BTreeMap::new(),
            trouble: Some(trouble),
            unread: None,
            disbelieved: None,
        }
    }

    /// All custodians.
    pub(crate) fn everybody(&self) -> Vec<Principal> {
        self.custodians.iter().cloned().collect()
    }

    /// How many custodians there are.
    pub(crate) fn custodians(&self) -> usize {
        self.custodians.len()
    }

    /// The answers to a message.
    pub(crate) fn answers(&self, id: MessageId) -> impl Iterator<Item = &Answer> {
        self.answers.get(&id).into_iter().flat_map(BTreeMap::values)
    }

    /// Who has not answered.
    pub(crate) fn unanswered(&self, id: MessageId) -> Vec<Principal> {
        let answered = |custodian: &&Principal| self.answers.get(&id).is_some_and(|a| a.contains_key(*custodian));
        self.custodians.iter().filter(|custodian| !answered(custodian)).cloned().collect()
    }

    fn is_complete(&self, signed: &[Signed]) -> bool {
        signed.iter().all(|message| self.answers.get(&message.id).is_some_and(|a| a.len() == self.custodians.len()))
    }
}

/// An operator's connection to the broker, and the door that all goes through that comes over it.
pub(crate) struct Post {
    broker: BrokerHandle,
    pub(crate) events: Receiver<BrokerEvent>,
    /// Custodians are heard here, and those of them as conductors whom allowed_signers lets announce drills.
    pub(crate) door: Admission,
    pub(crate) clock: Clock,
}

impl Post {
    /// Connects, as often as it takes.
    pub(crate) fn open(config: &BrokerConfig, operator: &Operator, cluster: &OperatedCluster) -> Self {
        let custodians: BTreeSet<_> = cluster.manifest.custodians().iter().map(|member| member.id.clone()).collect();
        let roles = Roles { conductors: custodians.clone(), custodians, ..Roles::default() };
        let roles = BTreeMap::from([(cluster.manifest.id(), roles)]);
        let door = Admission::new(operator.allowed_signers.clone(), roles);
        let (broker, events) = Broker::spawn(BrokerSettings {
            url: config.url.clone(),
            username: config.username.to_string(),
            password: config.password.clone(),
            tls: config.tls.clone(),
            queues: vec![operator_queue(&operator.principal)],
            connection_name: format!("holdfast {}", config.username),
        });
        Self { broker, events, door, clock: Clock::start() }
    }

    /// Hands messages to the broker, one after the other, until it has them.
    pub(crate) fn publish(&self, signed: &[Signed]) -> impl Future<Output = Result<(), PublishError>> + use<> {
        let (broker, signed) = (self.broker.clone(), signed.to_vec());
        async move {
            for Signed { routing_key, envelope: body, .. } in signed {
                broker.publish_confirmed(Outgoing { exchange: Exchange::Orders, routing_key, body }).await?;
            }
            Ok(())
        }
    }

    /// Ends the connection. What is to be done next may not wait for a broker that hangs.
    pub(crate) async fn close(self) {
        let _ = timeout(CLOSE, self.broker.close()).await;
    }
}

/// Sends the messages and collects the custodians' answers, until each has answered each or the deadline passes. `heard` is
/// told of every answer as it comes.
pub(crate) async fn send(
    config: &BrokerConfig,
    operator: &Operator,
    cluster: &OperatedCluster,
    signed: &[Signed],
    deadline: Instant,
    mut heard: impl FnMut(&Answer),
) -> Sent {
    let mut sent = Sent::nothing(cluster, "there was no time to".to_owned());
    let mut post = Post::open(config, operator, cluster);
    let publish = post.publish(signed);
    tokio::pin!(publish);
    let mut began = None;
    let mut publishing = true;
    let mut others = Others::default();
    while publishing || !(sent.is_complete(signed) || sent.unread.is_some()) {
        tokio::select! {
            published = &mut publish, if publishing => {
                publishing = false;
                // One full queue among many makes the broker refuse, and the others have it: the answers tell.
                sent.trouble = published.err().map(|error| error.to_string());
            }
            event = post.events.recv() => match event {
                Some(BrokerEvent::Up) => began = began.or(Some(Instant::now())),
                Some(BrokerEvent::Down { why }) if publishing => sent.trouble = Some(why.to_string()),
                Some(BrokerEvent::QueueRefused { why, .. }) => sent.unread = Some(why),
                Some(BrokerEvent::Delivery(delivery)) => match answer_to(&delivery) {
                    Some((id, order)) if signed.iter().all(|message| message.id != order) => others.take(id, delivery),
                    _ => {
                        if let Ok(bytes) = &delivery.body {
                            let after = began.map_or(Duration::ZERO, |began| began.elapsed());
                            let now = post.clock.now();
                            sent.hear(&mut post.door, bytes, now, after, &mut heard);
                        }
                        delivery.ack();
                    }
                },
                Some(_) => {}
                None => break,
            },
            () = others.next_due() => others.give_back_what_is_due(),
            () = sleep_until(deadline) => break,
        }
    }
    // Whoever answered has it, whatever the broker said.
    if !sent.answers.is_empty() {
        sent.trouble = None;
    }
    post.close().await;
    sent
}

/// What a delivery says it is: an acknowledgement with this id, of this message. Nothing of it is believed yet.
fn answer_to(delivery: &Delivery) -> Option<(MessageId, MessageId)> {
    let envelope = Envelope::parse(delivery.body.as_ref().ok()?).ok()?;
    let body = Body::parse(envelope.body()).ok()?;
    match body.content {
        Content::Acknowledgement(Acknowledgement { order, .. }) => Some((body.header.id, order)),
        _ => None,
    }
}

/// Answers to what was sent by another command of the same operator, which reads the same queue: they are given back, at once at
/// first, and then after a pause that doubles, because where nobody else reads they come again and again until they expire.
#[derive(Default)]
struct Others {
    kept: Vec<(Instant, Delivery)>,
    /// How often each was given back.
    known: BTreeMap<MessageId, u32>,
}

impl Others {
    fn take(&mut self, id: MessageId, delivery: Delivery) {
        if self.known.len() >= KNOWN_MAX && !self.known.contains_key(&id) {
            return delivery.ack();
        }
        let times = self.known.entry(id).or_default();
        *times += 1;
        if *times == 1 {
            return delivery.give_back();
        }
        let pause = PAUSE.saturating_mul(1 << (*times - 2).min(10));
        self.kept.push((Instant::now() + pause, delivery));
        // The one for which nobody has come for the longest time.
        let last = (0..self.kept.len()).max_by_key(|place| self.kept[*place].0).filter(|_| self.kept.len() > KEPT_MAX);
        if let Some(last) = last {
            self.kept.swap_remove(last).1.ack();
        }
    }

    /// Returns when one is to be given back; never, while there is none.
    async fn next_due(&self) {
        match self.kept.iter().map(|(due, _)| *due).min() {
            Some(due) => sleep_until(due).await,
            None => pending().await,
        }
    }

    fn give_back_what_is_due(&mut self) {
        let now = Instant::now();
        for (_, delivery) in self.kept.extract_if(.., |(due, _)| *due <= now) {
            delivery.give_back();
        }
    }
}

impl Sent {
    /// Somebody's answer to one of these messages, or nonsense.
    fn hear(&mut self, door: &mut Admission, bytes: &[u8], now: Now, after: Duration, heard: &mut impl FnMut(&Answer)) {
        let body = match door.admit(bytes, now) {
            Ok(body) => body,
            Err(refused) => return self.disbelieved = Some(refused.to_string()),
        };
        let Content::Acknowledgement(Acknowledgement { order, effect, in_flight }) = body.content else { return };
        let custodian = body.header.from;
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let answer = Answer { custodian: custodian.clone(), effect, in_flight, after_ms };
        heard(&answer);
        self.answers.entry(order).or_default().insert(custodian, answer);
    }
}
