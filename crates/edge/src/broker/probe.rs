//! What a party may do at the broker, asked without doing it: no message is taken, none is published, nothing is declared.
//!
//! RabbitMQ looks at a user's rights before it looks at the rest of a request. So a request for something that the user needs
//! the right for, with an argument that cannot be meant, is refused for want of the right (403) or because of the argument
//! (406), and the difference is the answer. The broker's log shows a closed channel for each.
//!
//! What lives here: one connection for such questions. What does not: what follows from the answers (`crate::checkup`).

use std::future::Future;

use holdfast_core::time::Timestamp;
use holdfast_core::topology::Exchange;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Connection, ErrorKind};
use tokio::time::timeout;

use super::connect::{self, printable};
use super::session::{ANSWER_DEADLINE, FAREWELL_DEADLINE};
use super::wire::Switch;
use super::{BrokerSettings, Trouble};
use crate::vault::certificate;

/// What no number is: neither a priority nor a time to live.
const NO_NUMBER: &str = "holdfast only asks whether it may";

/// A connection to the broker that only asks. Dropped, it ends at once.
pub struct Probe {
    connection: Connection,
    user: ShortString,
    certificate_not_after: Option<Timestamp>,
    _switch: Switch,
}

/// A queue, as the broker counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueState {
    /// Messages that wait in it and are not handed out.
    pub waiting: u32,
    /// How many read it.
    pub readers: u32,
}

/// Why a question was not answered with yes.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such queue or exchange.
    #[error("it does not exist ({0})")]
    Missing(String),
    /// The user has not the right.
    #[error("the user may not ({0})")]
    Denied(String),
    /// The broker answers in another way, or not at all.
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

impl Probe {
    /// Connects and logs in.
    pub async fn connect(settings: &BrokerSettings) -> Result<Self, Trouble> {
        let tls = connect::greet(settings).await?;
        let leaf = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate_not_after = leaf.and_then(|leaf| certificate::not_after(leaf));
        let (connection, switch) = connect::log_in(settings, tls).await?;
        let user = ShortString::try_new(settings.username.as_str()).map_err(|e| Trouble::Amqp(e.to_string()))?;
        Ok(Self { connection, user, certificate_not_after, _switch: switch })
    }

    /// When the broker's certificate ends.
    pub fn certificate_not_after(&self) -> Option<Timestamp> {
        self.certificate_not_after
    }

    /// A queue's state. RabbitMQ demands no right for that.
    pub async fn queue(&self, name: &str) -> Result<QueueState, Refusal> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let channel = self.channel().await?;
        let declared =
            answer("the state of a queue", channel.queue_declare(short(name)?, options, FieldTable::default()));
        let queue = declared.await?;
        Ok(QueueState { waiting: queue.message_count(), readers: queue.consumer_count() })
    }

    /// Whether this user may read the queue, which must be there.
    pub async fn may_read(&self, name: &str) -> Result<(), Refusal> {
        let mut arguments = FieldTable::default();
        arguments.insert(ShortString::from("x-priority"), AMQPValue::LongString(LongString::from(NO_NUMBER)));
        let channel = self.channel().await?;
        let asked =
            channel.basic_consume(short(name)?, ShortString::default(), BasicConsumeOptions::default(), arguments);
        // Taken all the same, the reading ends here, with the channel, and what was handed out goes back.
        minded(answer("whether a queue may be read", asked).await)
    }

    /// Whether this user may publish to the exchange under this key.
    pub async fn may_write(&self, exchange: Exchange, routing_key: &str) -> Result<(), Refusal> {
        let there = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let name = ShortString::from(exchange.as_str());
        let channel = self.channel().await?;
        let declared = channel.exchange_declare(name.clone(), lapin::ExchangeKind::Topic, there, FieldTable::default());
        answer("the state of an exchange", declared).await?;
        answer("the wish for confirmations", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        let properties =
            BasicProperties::default().with_user_id(self.user.clone()).with_expiration(ShortString::from(NO_NUMBER));
        let asked = async {
            let options = BasicPublishOptions::default();
            channel.basic_publish(name, short_or_empty(routing_key), options, &[], properties).await?.await
        };
        // Taken all the same, it is an empty message, which every receiver refuses as malformed.
        minded(answer("whether an exchange may be written", asked).await)
    }

    /// Says farewell.
    pub async fn close(self) {
        let farewell = self.connection.close(200, ShortString::from("OK"));
        // It is cut off anyway.
        let _ = timeout(FAREWELL_DEADLINE, farewell).await;
    }

    async fn channel(&self) -> Result<Channel, Refusal> {
        answer("the opening of a channel", self.connection.create_channel()).await.map_err(Refusal::from)
    }
}

/// A failure, with what the broker gave as its reason.
enum Failure {
    Soft(AMQPSoftError, String),
    Other(Trouble),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Soft(AMQPSoftError::NOTFOUND, text) => Self::Missing(text),
            Failure::Soft(AMQPSoftError::ACCESSREFUSED, text) => Self::Denied(text),
            Failure::Soft(_, text) => Self::Trouble(Trouble::Amqp(text)),
            Failure::Other(trouble) => Self::Trouble(trouble),
        }
    }
}

/// A request with an argument that cannot be meant: where the broker minds that, or takes it all the same, the right is there.
fn minded<T>(answered: Result<T, Failure>) -> Result<(), Refusal> {
    match answered {
        Ok(_) | Err(Failure::Soft(AMQPSoftError::PRECONDITIONFAILED, _)) => Ok(()),
        Err(failure) => Err(failure.into()),
    }
}

async fn answer<T>(what: &'static str, asked: impl Future<Output = lapin::Result<T>>) -> Result<T, Failure> {
    let error = match timeout(ANSWER_DEADLINE, asked).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => error,
        Err(_) => return Err(Failure::Other(Trouble::Silent { what, after: ANSWER_DEADLINE })),
    };
    Err(match error.kind() {
        ErrorKind::ProtocolError(refused) => match refused.kind() {
            AMQPErrorKind::Soft(soft) => Failure::Soft(soft.clone(), printable(refused.get_message().as_str())),
            AMQPErrorKind::Hard(_) => Failure::Other(Trouble::Lost(printable(refused.get_message().as_str()))),
        },
        _ => Failure::Other(Trouble::Lost(printable(&error.to_string()))),
    })
}

fn short(name: &str) -> Result<ShortString, Refusal> {
    ShortString::try_new(name).map_err(|error| Refusal::Trouble(Trouble::Amqp(error.to_string())))
}

/// A routing key that AMQP cannot carry is asked for as none, which no party may write under.
fn short_or_empty(key: &str) -> ShortString {
    ShortString::try_new(key).unwrap_or_default()
}
