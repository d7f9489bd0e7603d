//! The broker: one connection that is kept up, deliveries in, messages out.
//!
//! What lives here: the AMQP client over our own TLS, its deadlines, its buffer, its way back after a failure. What does not:
//! names and permissions (`holdfast_core::topology`), and what a message says. The broker is not trusted with anything but
//! its availability: a delivery is bytes that somebody may have forged.
//!
//! A call never waits for the broker, except [`BrokerHandle::publish_confirmed`] and [`BrokerHandle::close`], which have a
//! deadline. Runs on tokio's current_thread; lapin adds one thread for the socket.

mod connect;
mod outbox;
mod probe;
mod session;
mod url;
mod wire;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::Acker;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

pub use connect::Trouble;
pub use outbox::{Counts, OUTBOX_MAX, OUTBOX_MAX_BYTES, Outgoing, PublishError};
pub use probe::{Probe, QueueState, Refusal};
pub use url::{BrokerUrl, BrokerUrlError, PASSWORD_MAX, Password, PasswordError};

use outbox::Outbox;
use session::Session;

/// The largest message, in bytes. An `allowed_signers` file with a hundred keys fits, in base64, in a `trust` order.
pub const BODY_MAX: usize = 64 * 1024;
/// AMQP's frame size. lapin keeps 64 frames of buffers per connection: 131,072 makes that 8 MiB at most, 5 in fact.
pub const FRAME_MAX: u32 = 131_072;
/// AMQP's heartbeat. A dead peer is noticed after two of them; half of it is the traffic of an idle connection.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// Deliveries of one queue that may be handed out and not acknowledged: a round trip's worth, a few MB at the worst.
pub const PREFETCH: u16 = 32;
/// Events that may wait for the receiver. Beyond it, deliveries stay at the broker.
pub const EVENTS_MAX: usize = 64;
/// How long [`BrokerHandle::publish_confirmed`] waits: a person waits for it, and a broker may be restarting.
pub const CONFIRMED_DEADLINE: Duration = Duration::from_secs(30);
/// How long [`BrokerHandle::close`] waits for what is still to be sent: a daemon ends within 2 s of SIGTERM.
pub const CLOSE_DEADLINE: Duration = Duration::from_millis(1_500);
/// The directive for `tracing` that a program must set: below it lapin logs messages, and the login, byte by byte. All
/// that it would tell comes as [`BrokerEvent`].
pub const SILENCED: &str = "lapin";

/// The first wait before connecting again, at most. Short: a broker that was restarted is back in seconds.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// The longest wait before connecting again, at most. With full jitter, 7.5 s in the mean.
const BACKOFF_LAST: Duration = Duration::from_secs(15);
/// How long a connection must have lived for the waits to begin anew: one that breaks at once counts as a failure.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// How to reach the broker, and what to read there.
pub struct BrokerSettings {
    /// Where it is.
    pub url: BrokerUrl,
    /// The user: the party's own principal.
    pub username: String,
    /// The user's password.
    pub password: Arc<Password>,
    /// What the broker must prove: `crate::tls::client_config`.
    pub tls: Arc<rustls::ClientConfig>,
    /// The queues to read. They must exist: no party may declare one.
    pub queues: Vec<String>,
    /// What the broker's list of connections shows.
    pub connection_name: String,
}

/// What the broker's side says, in order.
#[derive(Debug)]
#[non_exhaustive]
pub enum BrokerEvent {
    /// Connected and logged in.
    Up,
    /// Not connected any more, or another attempt failed. The next follows by itself.
    Down {
        /// Why.
        why: Trouble,
    },
    /// All that was in the queue when it was connected has been handed out, before this event.
    ///
    /// Only said when nobody else reads the queue: another reader may be this party's own lost connection, which the
    /// broker still believes in and which holds messages that were handed out to it.
    Drained {
        /// The queue.
        queue: String,
    },
    /// A queue cannot be read: it is missing, or not this user's. Tried again by itself, while the rest goes on.
    QueueRefused {
        /// The queue.
        queue: String,
        /// What the broker said.
        why: String,
    },
    /// A message.
    Delivery(Delivery),
    /// A message that [`BrokerHandle::publish`] took was given up.
    Undelivered {
        /// Its routing key.
        routing_key: String,
        /// Why.
        why: PublishError,
    },
}

/// A message from a queue. Not acknowledged, it comes again.
pub struct Delivery {
    /// The queue that it was in.
    pub queue: String,
    /// Its bytes, unless there are more than [`BODY_MAX`].
    pub body: Result<Vec<u8>, Oversized>,
    /// The exchange that it was published to.
    pub exchange: String,
    /// The key that it was published under. The broker checks its principal; the signature decides.
    pub routing_key: String,
    /// The user who published it, if he said; the broker refuses a wrong one.
    pub user_id: Option<String>,
    /// Whether it was handed out before.
    pub redelivered: bool,
    ack: Ack,
}

/// A message that is larger than any party sends. Its bytes are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of {bytes} bytes, at most {BODY_MAX} are taken")]
pub struct Oversized {
    /// Its length.
    pub bytes: usize,
}

struct Ack {
    acker: Acker,
    to: mpsc::Sender<Answer>,
    unsent: watch::Sender<usize>,
}

/// What the broker is told of a delivery.
enum Answer {
    /// It is dealt with.
    Done(Acker),
    /// It is somebody else's who reads the queue too, or comes again.
    GivenBack(Acker),
}

impl Delivery {
    /// Tells the broker that the message is dealt with. Does not wait; if the connection breaks now, it comes again.
    pub fn ack(self) {
        self.ack.answer(Answer::Done);
    }

    /// Gives the message back to the queue, for another of its readers. Where there is none, it comes again at once: whoever gives it
    /// back more than once waits before.
    pub fn give_back(self) {
        self.ack.answer(Answer::GivenBack);
    }
}

impl Ack {
    fn answer(self, answer: impl FnOnce(Acker) -> Answer) {
        let Self { acker, to, unsent } = self;
        // There is room for each that is out. A closed channel means that the connection is gone, and this with it.
        if let Ok(permit) = to.try_reserve() {
            unsent.send_modify(|count| *count += 1);
            permit.send(answer(acker));
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.body.as_ref().map_or_else(|oversized| oversized.bytes, Vec::len);
        f.debug_struct("Delivery")
            .field("queue", &self.queue)
            .field("exchange", &self.exchange)
            .field("routing_key", &self.routing_key)
            .field("user_id", &self.user_id)
            .field("redelivered", &self.redelivered)
            .field("bytes", &bytes)
            .finish_non_exhaustive()
    }
}

/// The broker's client.
pub struct Broker;

impl Broker {
    /// Starts the client in a task of the current runtime. It connects, and connects again, until it is closed or the last
    /// handle is dropped. The receiver must be read: deliveries wait for it, and so do the events of the connection.
    pub fn spawn(settings: BrokerSettings) -> (BrokerHandle, mpsc::Receiver<BrokerEvent>) {
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let shared = Arc::new(Shared::default());
        let (close, closing) = watch::channel(false);
        let (done, closed) = watch::channel(false);
        let driver = Driver { settings, shared: shared.clone(), events, closing };
        tokio::spawn(async move {
            driver.run().await;
            done.send_replace(true);
        });
        (BrokerHandle { shared, close: Arc::new(close), closed }, received)
    }
}

/// Publishes, counts and closes. Clones share one connection.
#[derive(Clone)]
pub struct BrokerHandle {
    shared: Arc<Shared>,
    close: Arc<watch::Sender<bool>>,
    closed: watch::Receiver<bool>,
}

impl BrokerHandle {
    /// Hands a message over, to be sent now or when there is a connection again. Never waits. What is given up is counted,
    /// and comes as [`BrokerEvent::Undelivered`] where the broker refused it.
    pub fn publish(&self, message: Outgoing) {
        self.shared.outbox.put(message, None);
    }

    /// Hands a message over and waits, [`CONFIRMED_DEADLINE`] at most, until the broker has it in every queue that it goes to.
    pub async fn publish_confirmed(&self, message: Outgoing) -> Result<(), PublishError> {
        let (answer, answered) = oneshot::channel();
        self.shared.outbox.put(message, Some(answer));
        match timeout(CONFIRMED_DEADLINE, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(PublishError::Closed),
            Err(_) => Err(PublishError::Unconfirmed(self.shared.last_trouble())),
        }
    }

    /// What became of the messages so far.
    pub fn counts(&self) -> Counts {
        self.shared.outbox.counts()
    }

    /// How many messages wait to be confirmed.
    pub fn waiting(&self) -> usize {
        self.shared.outbox.len()
    }

    /// Sends what waits, acknowledgements too, closes the connection, and ends the task; [`CLOSE_DEADLINE`] at most.
    /// Returns how many messages were given up.
    pub async fn close(&self) -> usize {
        self.close.send_replace(true);
        let mut closed = self.closed.clone();
        // Elapsed, or the task is gone without a word: either way there is no more to wait for.
        let _ = timeout(CLOSE_DEADLINE, closed.wait_for(|closed| *closed)).await;
        self.shared.outbox.close() + std::mem::take(&mut *self.shared.given_up())
    }
}

/// What the handle and the task both hold.
#[derive(Default)]
struct Shared {
    outbox: Outbox,
    /// Acknowledgements that were given and are not on the wire yet.
    unsent_acks: watch::Sender<usize>,
    trouble: Mutex<Option<String>>,
    given_up: Mutex<usize>,
}

impl Shared {
    fn last_trouble(&self) -> String {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone().unwrap_or_else(|| "it did not answer".to_owned())
    }

    fn note(&self, trouble: Option<&Trouble>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble.map(Trouble::to_string);
    }

    fn given_up(&self) -> std::sync::MutexGuard<'_, usize> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task: connects, runs a session, waits, and begins again.
struct Driver {
    settings: BrokerSettings,
    shared: Arc<Shared>,
    events: mpsc::Sender<BrokerEvent>,
    closing: watch::Receiver<bool>,
}

impl Driver {
    async fn run(self) {
        let mut closing = self.closing.clone();
        tokio::select! {
            // Nothing to flush without a connection; with one, the session sees to it before it returns.
            () = self.keep_connected() => {}
            () = async {
                // An error means that the last handle was dropped.
                let _ = closing.wait_for(|closing| *closing).await;
                // The deadline of the other branch, which ends by itself once all is sent.
                tokio::time::sleep(CLOSE_DEADLINE).await;
            } => {}
        }
        *self.shared.given_up() = self.shared.outbox.close();
    }

    async fn keep_connected(&self) {
        let mut backoff = Backoff::default();
        loop {
            let connected = tokio::select! {
                () = self.told_to_close() => return,
                connected = connect::connect(&self.settings) => connected,
            };
            let trouble = match connected {
                Err(trouble) => trouble,
                Ok((connection, switch)) => {
                    let since = Instant::now();
                    self.shared.note(None);
                    // Told to close, a session still sends what waits.
                    let Some(trouble) = (Session { driver: self, connection, switch }).run().await else { return };
                    if since.elapsed() >= STABLE_AFTER {
                        backoff = Backoff::default();
                    }
                    trouble
                }
            };
            self.shared.note(Some(&trouble));
            let wait = backoff.next();
            tokio::select! {
                () = self.told_to_close() => return,
                () = async {
                    self.say(BrokerEvent::Down { why: trouble }).await;
                    // The back-off: waiting is what it is for.
                    tokio::time::sleep(wait).await;
                } => {}
            }
        }
    }

    async fn told_to_close(&self) {
        // An error means that the last handle was dropped, which says the same.
        let _ = self.closing.clone().wait_for(|closing| *closing).await;
    }

    /// Waits for room. Nobody reads any more: then nobody needs to know.
    async fn say(&self, event: BrokerEvent) {
        let _ = self.events.send(event).await;
    }
}

/// Bounded exponential back-off with full jitter, so that a hundred parties do not come back in step.
#[derive(Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let most = BACKOFF_FIRST.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_LAST);
        self.failures = self.failures.saturating_add(1);
        most.mul_f64(fraction())
    }
}

/// A random number from 0 to 1. Without randomness it is 1: the longest wait is the safe one.
fn fraction() -> f64 {
    getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_grow_stay_bounded_and_differ() {
        let waits = || {
            let mut backoff = Backoff::default();
            (0..40).map(|_| backoff.next()).collect::<Vec<_>>()
        };
        let (one, other) = (waits(), waits());
        assert!(one[0] <= BACKOFF_FIRST);
        assert!(one.iter().all(|wait| *wait <= BACKOFF_LAST));
        assert!(one.iter().skip(10).any(|wait| *wait > BACKOFF_LAST / 4));
        assert_ne!(one, other);
    }
}
