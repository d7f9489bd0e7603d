//! What waits to be published: bounded, in order, kept until the broker has confirmed it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_core::topology::Exchange;
use tokio::sync::{Notify, oneshot};

use super::BODY_MAX;

/// Messages that may wait. A custodian with several clusters says a few in ten seconds: this is most of an hour without a
/// broker, and nothing older than that helps anybody.
pub const OUTBOX_MAX: usize = 1_024;
/// The same in bytes.
pub const OUTBOX_MAX_BYTES: usize = 8 * 1024 * 1024;

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to.
    pub exchange: Exchange,
    /// Under which key: `holdfast_core::topology::routing_key`.
    pub routing_key: String,
    /// The envelope.
    pub body: Vec<u8>,
}

/// Why a message was not published. The message is given up in each case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Longer than any receiver takes, or a key that AMQP cannot carry. The sender's fault.
    #[error("the message is too large: {bytes} bytes, at most {BODY_MAX} are taken")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The broker refuses this user this exchange or key: the definitions and the configuration do not match.
    #[error("the broker refused the message: {0}: import the definitions of these parties")]
    Refused(String),
    /// No queue is bound for it.
    #[error("no queue takes {routing_key} of {}: import the definitions of these parties", .exchange.as_str())]
    Unroutable {
        /// The exchange.
        exchange: Exchange,
        /// The routing key.
        routing_key: String,
    },
    /// A queue is full and rejects. Other queues may have taken the message.
    #[error(
        "a receiver's queue is full and did not take the message; others may have: see which custodian is not reading"
    )]
    Rejected,
    /// Newer messages pushed it out while the broker was away.
    #[error("the message was pushed out by newer ones before the broker came back")]
    PushedOut,
    /// No confirmation within the deadline. It may have arrived all the same.
    #[error(
        "the broker did not confirm the message in time; if it could be reached, the message may have arrived: {0}"
    )]
    Unconfirmed(String),
    /// The connection was closed on purpose before the message was confirmed. It may have arrived all the same.
    #[error("the connection to the broker was closed before the message was confirmed")]
    Closed,
}

/// What became of messages since the start. Each message ends in one of them, except those that still wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Confirmed by the broker, and routed to at least one queue.
    pub confirmed: u64,
    /// Pushed out of the full buffer by newer ones.
    pub pushed_out: u64,
    /// Routed to no queue.
    pub unroutable: u64,
    /// Rejected by a full queue.
    pub rejected: u64,
    /// Refused by the broker, or too large to be sent.
    pub refused: u64,
}

#[derive(Default)]
struct Totals {
    confirmed: AtomicU64,
    pushed_out: AtomicU64,
    unroutable: AtomicU64,
    rejected: AtomicU64,
    refused: AtomicU64,
}

type Answer = oneshot::Sender<Result<(), PublishError>>;

struct Entry {
    outgoing: Arc<Outgoing>,
    answer: Option<Answer>,
}

#[derive(Default)]
struct State {
    next: u64,
    bytes: usize,
    waiting: VecDeque<(u64, Entry)>,
    in_flight: BTreeMap<u64, Entry>,
    closed: bool,
}

/// The buffer between those who publish and the connection.
#[derive(Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    totals: Totals,
    changed: Notify,
}

impl Outbox {
    /// Puts a message at the end. Never waits; where there is no room, the oldest that is not on its way goes.
    pub(super) fn put(&self, outgoing: Outgoing, answer: Option<Answer>) {
        let mut state = self.lock();
        if state.closed {
            return give(answer, Err(PublishError::Closed));
        }
        if outgoing.body.len() > BODY_MAX {
            self.totals.refused.fetch_add(1, Ordering::Relaxed);
            return give(answer, Err(PublishError::TooLarge { bytes: outgoing.body.len() }));
        }
        state.bytes += outgoing.body.len();
        let seq = state.next;
        state.next += 1;
        state.waiting.push_back((seq, Entry { outgoing: Arc::new(outgoing), answer }));
        while state.waiting.len() + state.in_flight.len() > OUTBOX_MAX || state.bytes > OUTBOX_MAX_BYTES {
            let Some((_, oldest)) = state.waiting.pop_front() else { break };
            state.bytes -= oldest.outgoing.body.len();
            self.totals.pushed_out.fetch_add(1, Ordering::Relaxed);
            give(oldest.answer, Err(PublishError::PushedOut));
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The next message to send, once there is one. It counts as on its way until [`Self::settle`] or [`Self::take_back`].
    pub(super) async fn next(&self) -> (u64, Arc<Outgoing>) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that a message put in between is noticed.
            changed.as_mut().enable();
            if let Some(next) = self.try_next() {
                return next;
            }
            changed.await;
        }
    }

    fn try_next(&self) -> Option<(u64, Arc<Outgoing>)> {
        let mut state = self.lock();
        loop {
            let (seq, entry) = state.waiting.pop_front()?;
            // Whoever asked has given up, and was told so: it must not arrive afterwards.
            if entry.answer.as_ref().is_some_and(oneshot::Sender::is_closed) {
                state.bytes -= entry.outgoing.body.len();
                continue;
            }
            let outgoing = entry.outgoing.clone();
            state.in_flight.insert(seq, entry);
            return Some((seq, outgoing));
        }
    }

    /// What became of a message that was on its way. Returns its failure where nobody waits to hear it.
    pub(super) fn settle(&self, seq: u64, outcome: Result<(), PublishError>) -> Option<PublishError> {
        let mut state = self.lock();
        let entry = state.in_flight.remove(&seq)?;
        state.bytes -= entry.outgoing.body.len();
        drop(state);
        let total = match &outcome {
            Ok(()) => &self.totals.confirmed,
            Err(PublishError::Unroutable { .. }) => &self.totals.unroutable,
            Err(PublishError::Rejected) => &self.totals.rejected,
            Err(_) => &self.totals.refused,
        };
        total.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_waiters();
        if entry.answer.is_none() {
            return outcome.err();
        }
        give(entry.answer, outcome);
        None
    }

    /// The connection is gone: what was on its way is sent again, in its order, by the next.
    pub(super) fn take_back(&self) {
        let mut state = self.lock();
        while let Some(entry) = state.in_flight.pop_last() {
            state.waiting.push_front(entry);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Returns when nothing waits and nothing is on its way.
    pub(super) async fn empty(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.len() == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Takes no more, and answers those who wait. Returns how many messages were given up.
    pub(super) fn close(&self) -> usize {
        let mut state = self.lock();
        state.closed = true;
        let given_up: Vec<Entry> = std::mem::take(&mut state.in_flight)
            .into_values()
            .chain(std::mem::take(&mut state.waiting).into_iter().map(|(_, entry)| entry))
            .collect();
        state.bytes = 0;
        drop(state);
        let count = given_up.len();
        for entry in given_up {
            give(entry.answer, Err(PublishError::Closed));
        }
        count
    }

    /// How many messages wait or are on their way.
    pub(super) fn len(&self) -> usize {
        let state = self.lock();
        state.waiting.len() + state.in_flight.len()
    }

    pub(super) fn counts(&self) -> Counts {
        let read = |total: &AtomicU64| total.load(Ordering::Relaxed);
        Counts {
            confirmed: read(&self.totals.confirmed),
            pushed_out: read(&self.totals.pushed_out),
            unroutable: read(&self.totals.unroutable),
            rejected: read(&self.totals.rejected),
            refused: read(&self.totals.refused),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn give(answer: Option<Answer>, outcome: Result<(), PublishError>) {
    if let Some(answer) = answer {
        // Whoever asked may have gone.
        let _ = answer.send(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: Vec<u8>) -> Outgoing {
        Outgoing { exchange: Exchange::Reports, routing_key: "a.b.c".into(), body }
    }

    fn body(next: Option<(u64, Arc<Outgoing>)>) -> Option<Vec<u8>> {
        next.map(|(_, outgoing)| outgoing.body.clone())
    }

    #[test]
    fn a_full_buffer_loses_its_oldest_and_counts_it() {
        let outbox = Outbox::default();
        for index in 0..OUTBOX_MAX + 3 {
            outbox.put(message(index.to_be_bytes().to_vec()), None);
        }
        assert_eq!((outbox.len(), outbox.counts().pushed_out), (OUTBOX_MAX, 3));
        assert_eq!(body(outbox.try_next()), Some(3_usize.to_be_bytes().to_vec()));
        let large = OUTBOX_MAX_BYTES / BODY_MAX + 1;
        for _ in 0..large {
            outbox.put(message(vec![0; BODY_MAX]), None);
        }
        assert!(outbox.len() < OUTBOX_MAX);
        assert!(outbox.lock().bytes <= OUTBOX_MAX_BYTES);
    }

    #[test]
    fn what_was_on_its_way_is_sent_again_first_and_in_order() {
        let outbox = Outbox::default();
        for byte in 1..=4 {
            outbox.put(message(vec![byte]), None);
        }
        let first = outbox.try_next().expect("one");
        let _second = outbox.try_next().expect("another");
        outbox.settle(first.0, Ok(()));
        outbox.take_back();
        let rest: Vec<_> = std::iter::from_fn(|| body(outbox.try_next())).collect();
        assert_eq!(rest, [vec![2], vec![3], vec![4]]);
        assert_eq!(outbox.counts().confirmed, 1);
    }

    #[test]
    fn whoever_waits_is_answered_once() {
        let outbox = Outbox::default();
        let (answer, mut asked) = oneshot::channel();
        outbox.put(message(vec![0; BODY_MAX + 1]), Some(answer));
        assert_eq!(asked.try_recv(), Ok(Err(PublishError::TooLarge { bytes: BODY_MAX + 1 })));
        let (answer, gone) = oneshot::channel();
        drop(gone);
        outbox.put(message(vec![1]), Some(answer));
        assert_eq!(body(outbox.try_next()), None, "given up by its sender");
        let (answer, mut asked) = oneshot::channel();
        outbox.put(message(vec![2]), Some(answer));
        assert_eq!(outbox.close(), 1);
        assert_eq!(asked.try_recv(), Ok(Err(PublishError::Closed)));
        outbox.put(message(vec![3]), None);
        assert_eq!((outbox.len(), outbox.lock().bytes), (0, 0));
    }
}
