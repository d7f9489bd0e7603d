//! One connection at work: what is read and handed out, what is sent and confirmed, until something breaks.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use lapin::message::Delivery as Delivered;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::protocol::AMQPErrorKind;
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, Consumer, ErrorKind, Event, Queue};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::connect::printable;
use super::wire::Switch;
use super::{
    Ack, Answer, BODY_MAX, BrokerEvent, Delivery, Driver, Outgoing, Oversized, PREFETCH, PublishError, Trouble,
};

/// Any answer of the broker's. A quorum queue that elects a leader takes seconds.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// The farewell. The other side closes anyway when the connection goes.
pub(super) const FAREWELL_DEADLINE: Duration = Duration::from_millis(300);
/// Messages on their way at a time. Each has a channel of its own, so that a refusal, which closes the channel, and a
/// return, which names no message, are about one message and no other. Four hide a slow network's round trips.
const LANES: usize = 4;
/// How long until a queue that was refused is tried again. Somebody has to import definitions first.
const QUEUE_RETRY: Duration = Duration::from_secs(15);
/// How often a backlog is looked at until it is drained.
const DRAIN_POLL: Duration = Duration::from_millis(200);
/// AMQP's mark of a message that survives the broker's restart.
const PERSISTENT: u8 = 2;

/// A connection, and what works with it. Dropped, it ends at once.
pub(super) struct Session<'a> {
    pub(super) driver: &'a Driver,
    pub(super) connection: Connection,
    pub(super) switch: Switch,
}

/// What went wrong: one channel's matter, or the connection's.
enum Failure {
    Refused(String),
    Broken(Trouble),
}

impl From<lapin::Error> for Failure {
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(refused) if matches!(refused.kind(), AMQPErrorKind::Soft(_)) => {
                Self::Refused(printable(refused.get_message().as_str()))
            }
            _ => Self::Broken(lost(&error)),
        }
    }
}

fn lost(error: &lapin::Error) -> Trouble {
    Trouble::Lost(match error.kind() {
        ErrorKind::ProtocolError(closed) => printable(closed.get_message().as_str()),
        _ => printable(&error.to_string()),
    })
}

/// Waits for an answer, [`ANSWER_DEADLINE`] at most.
async fn answer<T>(what: &'static str, asked: impl Future<Output = lapin::Result<T>>) -> Result<T, Failure> {
    match timeout(ANSWER_DEADLINE, asked).await {
        Ok(answered) => answered.map_err(Failure::from),
        Err(_) => Err(Failure::Broken(Trouble::Silent { what, after: ANSWER_DEADLINE })),
    }
}

impl Session<'_> {
    /// Works until the connection breaks, and says why; or until told to close and nothing waits any more.
    pub(super) async fn run(self) -> Option<Trouble> {
        let trouble = tokio::select! {
            biased;
            trouble = self.broken() => Some(trouble),
            trouble = self.work() => Some(trouble),
            () = async {
                self.driver.told_to_close().await;
                self.driver.shared.outbox.empty().await;
                // The sender is ours, so the channel cannot close.
                let _ = self.driver.shared.unsent_acks.subscribe().wait_for(|count| *count == 0).await;
            } => None,
        };
        self.driver.shared.outbox.take_back();
        if trouble.is_none() {
            let farewell = self.connection.close(200, ShortString::from("OK"));
            // It is cut off anyway.
            let _ = timeout(FAREWELL_DEADLINE, farewell).await;
        }
        trouble
    }

    /// Returns when the connection is no more.
    async fn broken(&self) -> Trouble {
        let mut events = Box::pin(self.connection.events_listener());
        let mut ended = Box::pin(self.switch.ended());
        loop {
            let event = tokio::select! {
                // The broker's own word before the bare fact that the stream has ended.
                biased;
                event = events.next() => event,
                () = &mut ended => return Trouble::Lost("the broker closed it, or the network did".to_owned()),
            };
            match event {
                Some(Event::Error(error)) if !self.connection.status().connected() => return lost(&error),
                Some(Event::ConnectionBlocked(why)) => {
                    tracing::warn!(why = printable(&why), "the broker takes no messages for now");
                }
                Some(Event::ConnectionUnblocked) => tracing::info!("the broker takes messages again"),
                Some(_) => {}
                None => return Trouble::Lost("its client ended".to_owned()),
            }
        }
    }

    async fn work(&self) -> Trouble {
        let mut work: FuturesUnordered<BoxFuture<'_, Trouble>> = (0..LANES).map(|_| self.send().boxed()).collect();
        self.driver.say(BrokerEvent::Up).await;
        work.extend(self.driver.settings.queues.iter().map(|queue| self.read(queue).boxed()));
        // There are lanes, so there is a next; and none of them ends but with the connection.
        work.next().await.unwrap_or_else(|| Trouble::Lost("nothing was left to do".to_owned()))
    }

    /// A lane: sends one message after the other, and the next when the last is settled.
    async fn send(&self) -> Trouble {
        let outbox = &self.driver.shared.outbox;
        let mut channel = None;
        loop {
            let (seq, outgoing) = outbox.next().await;
            let sent = async {
                let open = match channel.take() {
                    Some(open) => open,
                    None => self.confirming_channel().await?,
                };
                let outcome = self.publish(&open, &outgoing).await?;
                channel = Some(open);
                Ok(outcome)
            };
            let outcome = match sent.await {
                Ok(outcome) => outcome,
                // The channel is closed by this, and the next message gets another.
                Err(Failure::Refused(text)) => Err(PublishError::Refused(text)),
                Err(Failure::Broken(trouble)) => return trouble,
            };
            self.settle(seq, &outgoing, outcome);
        }
    }

    async fn confirming_channel(&self) -> Result<Channel, Failure> {
        let channel = answer("the opening of a channel", self.connection.create_channel()).await?;
        answer("the wish for confirmations", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(channel)
    }

    async fn publish(&self, channel: &Channel, outgoing: &Outgoing) -> Result<Result<(), PublishError>, Failure> {
        let Ok(routing_key) = ShortString::try_new(outgoing.routing_key.as_str()) else {
            return Ok(Err(PublishError::TooLarge { bytes: outgoing.routing_key.len() }));
        };
        let user = ShortString::try_new(self.driver.settings.username.as_str());
        let user = user.map_err(|_| Failure::Refused("the user's name is longer than AMQP can carry".to_owned()))?;
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT).with_user_id(user);
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let exchange = ShortString::from(outgoing.exchange.as_str());
        let sent = async {
            let confirm = channel.basic_publish(exchange, routing_key, options, &outgoing.body, properties).await?;
            confirm.await
        };
        Ok(match answer("a message with a confirmation", sent).await? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => {
                Err(PublishError::Unroutable { exchange: outgoing.exchange, routing_key: outgoing.routing_key.clone() })
            }
            Confirmation::Nack(_) => Err(PublishError::Rejected),
            Confirmation::NotRequested => Err(PublishError::Refused("it gave no confirmation".to_owned())),
        })
    }

    fn settle(&self, seq: u64, outgoing: &Arc<Outgoing>, outcome: Result<(), PublishError>) {
        let Some(why) = self.driver.shared.outbox.settle(seq, outcome) else { return };
        let event = BrokerEvent::Undelivered { routing_key: outgoing.routing_key.clone(), why };
        // A lane never waits for the receiver: counted it is, and logged here where the receiver does not keep up.
        if let Err(unsaid) = self.driver.events.try_send(event) {
            tracing::warn!(event = ?unsaid.into_inner(), "a message was given up");
        }
    }

    /// Reads a queue, again and again where the broker refuses it.
    async fn read(&self, queue: &str) -> Trouble {
        loop {
            match self.consume(queue).await {
                Failure::Broken(trouble) => return trouble,
                Failure::Refused(why) => {
                    self.driver.say(BrokerEvent::QueueRefused { queue: queue.to_owned(), why }).await;
                    sleep(QUEUE_RETRY).await;
                }
            }
        }
    }

    async fn consume(&self, queue: &str) -> Failure {
        let read = async { self.begin(queue).await?.run().await };
        match read.await {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }

    async fn begin<'s>(&'s self, queue: &'s str) -> Result<Reader<'s>, Failure> {
        let name = ShortString::try_new(queue).map_err(|error| Failure::Refused(error.to_string()))?;
        let channel = answer("the opening of a channel", self.connection.create_channel()).await?;
        answer("the limit of a channel", channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
        // Not exclusive: a lost connection of one's own that the broker still believes in would keep the orders out.
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = channel.basic_consume(name.clone(), ShortString::default(), options, none);
        let consumer = answer("the reading of a queue", consumer).await?;
        // Never full: each delivery is answered once, and this many are out.
        let (ack, acks) = mpsc::channel(usize::from(PREFETCH));
        let drain = Drain::default();
        Ok(Reader { driver: self.driver, queue, name, channel, consumer, ack, acks, handed_out: 0, drain })
    }
}

/// Reads one queue over one channel.
struct Reader<'a> {
    driver: &'a Driver,
    queue: &'a str,
    name: ShortString,
    channel: Channel,
    consumer: Consumer,
    ack: mpsc::Sender<Answer>,
    acks: mpsc::Receiver<Answer>,
    handed_out: u64,
    drain: Drain,
}

/// How far the backlog is.
#[derive(Default)]
struct Drain {
    /// Once this many were handed out, all that was there when it was set has been.
    target: Option<u64>,
    done: bool,
}

impl Reader<'_> {
    async fn run(&mut self) -> Result<Infallible, Failure> {
        let mut look = interval(DRAIN_POLL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(given) = self.acks.recv() => {
                    let sent = answer("an acknowledgement", async {
                        match given {
                            Answer::Done(acker) => acker.ack(BasicAckOptions::default()).await,
                            Answer::GivenBack(acker) => {
                                acker.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await
                            }
                        }
                    });
                    let sent = sent.await;
                    self.sent(1);
                    sent?;
                }
                delivered = self.consumer.next() => self.hand_out(delivered).await?,
                _ = look.tick(), if !self.drain.done => self.look_at_backlog().await?,
            }
        }
    }

    async fn hand_out(&mut self, delivered: Option<lapin::Result<Delivered>>) -> Result<(), Failure> {
        let delivered = match delivered {
            Some(delivered) => delivered?,
            None => return Err(Failure::Refused("the broker ended the reading: was the queue deleted?".to_owned())),
        };
        let bytes = delivered.data.len();
        let user_id = delivered.properties.user_id().as_ref().map(|user| user.as_str().to_owned());
        let delivery = Delivery {
            queue: self.queue.to_owned(),
            exchange: delivered.exchange.as_str().to_owned(),
            routing_key: delivered.routing_key.as_str().to_owned(),
            user_id,
            redelivered: delivered.redelivered,
            body: if bytes > BODY_MAX { Err(Oversized { bytes }) } else { Ok(delivered.data) },
            ack: Ack { acker: delivered.acker, to: self.ack.clone(), unsent: self.driver.shared.unsent_acks.clone() },
        };
        self.driver.say(BrokerEvent::Delivery(delivery)).await;
        self.handed_out += 1;
        Ok(())
    }

    /// Whether all that was waiting has been handed out.
    ///
    /// The broker counts what is ready and not what it has handed out, so the count is worth something only where this is
    /// the only reader, and known to the queue: a queue without a leader answers with 0 messages and 0 readers.
    async fn look_at_backlog(&mut self) -> Result<(), Failure> {
        let seen = self.passive().await?;
        if seen.consumer_count() != 1 {
            return Ok(());
        }
        // Its answer may overtake deliveries made before it; the answer to a second question does not overtake those.
        self.passive().await?;
        while let Some(delivered) = self.consumer.next().now_or_never() {
            self.hand_out(delivered).await?;
        }
        let ready = u64::from(seen.message_count());
        let target = *self.drain.target.get_or_insert(self.handed_out + ready);
        if ready == 0 || self.handed_out >= target {
            self.drain.done = true;
            self.driver.say(BrokerEvent::Drained { queue: self.queue.to_owned() }).await;
        }
        Ok(())
    }

    fn sent(&self, acks: usize) {
        self.driver.shared.unsent_acks.send_modify(|count| *count = count.saturating_sub(acks));
    }

    /// Asks for the queue without declaring it. RabbitMQ demands no permission for that.
    async fn passive(&self) -> Result<Queue, Failure> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked = self.channel.queue_declare(self.name.clone(), options, FieldTable::default());
        answer("the state of a queue", asked).await
    }
}

impl Drop for Reader<'_> {
    /// What was not sent by now never will be: its messages come again.
    fn drop(&mut self) {
        self.acks.close();
        let left = std::iter::from_fn(|| self.acks.try_recv().ok()).count();
        self.sent(left);
    }
}
