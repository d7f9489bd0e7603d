//! Sending signed messages by the broker, and hearing what custodians answer. "Delivered" means acknowledged by the custodian
//! itself, in words that it signed: neither the broker nor a sentinel can say it in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_core::admission::{Admission, Roles};
use holdfast_core::id::{MessageId, NodeName, Principal};
use holdfast_core::message::{Acknowledgement, Content, Effect};
use holdfast_core::time::Now;
use holdfast_core::topology::{Exchange, operator_queue};
use holdfast_edge::broker::{Broker, BrokerEvent, BrokerSettings, Outgoing};
use holdfast_edge::clock::Clock;
use holdfast_edge::config::BrokerConfig;
use serde::Serialize;
use tokio::time::{Instant, sleep_until, timeout};

use super::Signed;
use crate::operator::{OperatedCluster, Operator};

/// How long the connection's end is waited for.
pub(crate) const CLOSE: Duration = Duration::from_millis(200);

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
    let id = cluster.manifest.id();
    let roles = Roles { custodians: sent.custodians.clone(), ..Roles::default() };
    let mut door = Admission::new(operator.allowed_signers.clone(), BTreeMap::from([(id, roles)]));
    let clock = Clock::start();
    let (broker, mut events) = Broker::spawn(BrokerSettings {
        url: config.url.clone(),
        username: config.username.to_string(),
        password: config.password.clone(),
        tls: config.tls.clone(),
        queues: vec![operator_queue(&operator.principal)],
        connection_name: format!("holdfast {}", config.username),
    });
    let publish = async {
        for message in signed {
            let (routing_key, body) = (message.routing_key.clone(), message.envelope.clone());
            broker.publish_confirmed(Outgoing { exchange: Exchange::Orders, routing_key, body }).await?;
        }
        Ok::<_, holdfast_edge::broker::PublishError>(())
    };
    tokio::pin!(publish);
    let mut began = None;
    let mut publishing = true;
    while publishing || !(sent.is_complete(signed) || sent.unread.is_some()) {
        tokio::select! {
            published = &mut publish, if publishing => {
                publishing = false;
                // One full queue among many makes the broker refuse, and the others have it: the answers tell.
                sent.trouble = published.err().map(|error| error.to_string());
            }
            event = events.recv() => match event {
                Some(BrokerEvent::Up) => began = began.or(Some(Instant::now())),
                Some(BrokerEvent::Down { why }) if publishing => sent.trouble = Some(why.to_string()),
                Some(BrokerEvent::QueueRefused { why, .. }) => sent.unread = Some(why),
                Some(BrokerEvent::Delivery(delivery)) => {
                    if let Ok(bytes) = &delivery.body {
                        let after = began.map_or(Duration::ZERO, |began| began.elapsed());
                        sent.hear(&mut door, bytes, clock.now(), after, signed, &mut heard);
                    }
                    delivery.ack();
                }
                Some(_) => {}
                None => break,
            },
            () = sleep_until(deadline) => break,
        }
    }
    // Whoever answered has it, whatever the broker said.
    if !sent.answers.is_empty() {
        sent.trouble = None;
    }
    // What is to be done next may not wait for a broker that hangs.
    let _ = timeout(CLOSE, broker.close()).await;
    sent
}

impl Sent {
    /// Somebody's answer, perhaps to another command's message, or nobody's.
    fn hear(
        &mut self,
        door: &mut Admission,
        bytes: &[u8],
        now: Now,
        after: Duration,
        signed: &[Signed],
        heard: &mut impl FnMut(&Answer),
    ) {
        let body = match door.admit(bytes, now) {
            Ok(body) => body,
            Err(refused) => return self.disbelieved = Some(refused.to_string()),
        };
        let Content::Acknowledgement(Acknowledgement { order, effect, in_flight }) = body.content else { return };
        if !signed.iter().any(|message| message.id == order) {
            return;
        }
        let custodian = body.header.from;
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let answer = Answer { custodian: custodian.clone(), effect, in_flight, after_ms };
        heard(&answer);
        self.answers.entry(order).or_default().insert(custodian, answer);
    }
}
