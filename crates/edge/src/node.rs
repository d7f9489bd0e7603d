//! The task that watches one node: it carries out what `holdfast_core::sight` asks for, and reports what came of it.
//!
//! What lives here: the kept connection, the short ones beside it, and the tickets themselves. What does not: when to do any of
//! it and what it proves (`sight`), and how a connection is made (`vault`). Custodian and sentinel both drive their
//! sights with it, each through [`drive`].

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_core::seal_status::SealStatus;
use holdfast_core::sight::{Action, ConnectionId, Side, Sight, TICKETS_KEPT, TicketId};
use holdfast_core::time::{Now, Timestamp};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::vault::{AskError, ConnectError, Connection, Handshake, NodeIdentity, TICKETS_PER_CONNECTION, Ticket};

/// The most tickets that are held of one node: those of two epochs, and those of the connections that run.
const TICKETS_MAX: usize = 2 * TICKETS_KEPT + 2 * TICKETS_PER_CONNECTION;

/// How long a side connection waits for the answer that the tickets come with. What the handshake proved is known before, and
/// must not wait for a node that is busy sealing itself.
const SIDE_ANSWER: Duration = Duration::from_millis(500);

/// How long a connection is kept on which a sealed node proved its identity, for a release that follows at once.
const PROVEN_KEPT: Duration = Duration::from_secs(2);

/// What was found out about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A full handshake proved the node's identity.
    Identity {
        /// When the certificate that it showed ends, where that could be read.
        not_after: Option<Timestamp>,
    },
    /// Somebody answered at the node's address and was not accepted as the node: an impostor, or a wrong configuration. The text
    /// says what is wrong and what to do. A [`Report::Lost`] or [`Report::Side`] follows.
    IdentityRefused(String),
    /// A ticket came.
    Ticket(TicketId),
    /// The kept connection answered.
    Status(ConnectionId, SealStatus),
    /// The kept connection could not be made, was closed, or gave no sound answer in time; and why, for people.
    Lost(ConnectionId, String),
    /// Nobody listens at the node's address: no connection could be made there to be kept, and the ticket that it was to offer is
    /// still here. Why, for people.
    Refused(ConnectionId, String),
    /// The ticket that was offered on the connection that is kept was seen to leave, and was declined in a full handshake.
    Declined(ConnectionId),
    /// What came of a connection beside the kept one.
    Side(Side),
}

/// A report, and whose: many nodes share one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport<K> {
    /// The key that the node's task was given.
    pub key: K,
    /// What it found out.
    pub report: Report,
}

/// Tells `sight` what was found out. What it wants next, `poll_action` and `poll_observation` tell.
pub fn drive(report: &Report, sight: &mut Sight, now: Now) {
    match report {
        Report::Identity { .. } => sight.handle_identity(now),
        Report::IdentityRefused(_) => {}
        Report::Ticket(ticket) => sight.handle_ticket(*ticket, now),
        Report::Status(connection, status) => sight.handle_status(*connection, status.clone(), now),
        Report::Lost(connection, _) => sight.handle_lost(*connection, now),
        Report::Refused(connection, _) => sight.handle_refused(*connection, now),
        Report::Declined(connection) => sight.handle_declined(*connection),
        Report::Side(outcome) => sight.handle_side(*outcome, now),
    }
}

/// A node's task. Dropped, the task ends, and its connections with it.
#[derive(Debug)]
pub struct NodeHandle {
    /// Unbounded, and short by nature: a sight asks for one thing of the kept connection and one beside it, and waits for
    /// the answers; what it discards are tickets that came from here.
    actions: mpsc::UnboundedSender<Action>,
    proven: Spare,
    task: AbortHandle,
}

/// The last connection on which the node declined a ticket, in a full handshake, and then said that it is sealed; and when.
type Spare = Arc<Mutex<Option<Declined>>>;

#[derive(Debug)]
struct Declined {
    connection: Connection,
    reported: SealStatus,
    at: Instant,
}

impl NodeHandle {
    /// Has the task carry out what the node's sight asks for. Returns at once.
    pub fn act(&self, action: Action) {
        // The task ends before its handle only when nobody reads its reports any more.
        let _ = self.actions.send(action);
    }

    /// The connection on which the node declined a ticket just now, if there is one, and what the node then reported on it: its
    /// identity is proven on it, so that a release need not make another.
    pub fn take_proven(&self) -> Option<(Connection, SealStatus)> {
        let Declined { connection, reported, at } = lock(&self.proven).take()?;
        (at.elapsed() < PROVEN_KEPT && connection.is_usable()).then_some((connection, reported))
    }
}

impl Drop for NodeHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts the task of one node. It does nothing until its sight asks.
pub fn spawn<K>(identity: Arc<NodeIdentity>, key: K, reports: mpsc::Sender<NodeReport<K>>) -> NodeHandle
where
    K: Clone + Send + Sync + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "short by nature: see NodeHandle::actions")]
    let (actions, asked) = mpsc::unbounded_channel();
    let proven = Spare::default();
    let task = Task {
        identity,
        proven: proven.clone(),
        reports: Reports { key, channel: reports },
        tickets: BTreeMap::new(),
        kept: Kept::None,
        side: None,
    };
    NodeHandle { actions, proven, task: tokio::spawn(task.run(asked)).abort_handle() }
}

/// Nobody reads the reports any more.
struct Unheard;

struct Reports<K> {
    key: K,
    channel: mpsc::Sender<NodeReport<K>>,
}

impl<K: Clone> Reports<K> {
    async fn send(&self, report: Report) -> Result<(), Unheard> {
        self.channel.send(NodeReport { key: self.key.clone(), report }).await.map_err(|_| Unheard)
    }
}

type Running<T> = Pin<Box<dyn Future<Output = T> + Send>>;

enum Kept {
    None,
    /// Being made, or asked.
    Asked(Running<KeptEnd>),
    /// Nothing is asked of it. The future ends when the connection does.
    Idle(ConnectionId, Connection, Running<()>),
}

/// What came of asking the kept connection.
struct KeptEnd {
    id: ConnectionId,
    /// Whether this was the connection's first request, right after its handshake.
    first: bool,
    outcome: Result<(Connection, Result<SealStatus, AskError>), ConnectError>,
    /// The ticket that was to be offered, where nobody listened.
    unspent: Option<Ticket>,
}

struct SideEnd {
    outcome: Side,
    /// Why the peer was not accepted.
    refused: Option<String>,
    not_after: Option<Timestamp>,
    tickets: Vec<Ticket>,
    proven: Option<(Connection, SealStatus)>,
}

enum Event {
    Asked(Option<Action>),
    Kept(KeptEnd),
    Closed(ConnectionId),
    Side(SideEnd),
}

struct Task<K> {
    identity: Arc<NodeIdentity>,
    reports: Reports<K>,
    tickets: BTreeMap<TicketId, Ticket>,
    kept: Kept,
    side: Option<Running<SideEnd>>,
    proven: Spare,
}

impl<K: Clone> Task<K> {
    async fn run(mut self, mut asked: mpsc::UnboundedReceiver<Action>) {
        loop {
            let event = tokio::select! {
                // The kept connection first: that it ended, or what it answered, came before what a side connection made
                // meanwhile says, and a sight judges the one by the other.
                biased;
                event = self.kept.next() => event,
                event = next_side(&mut self.side) => event,
                action = asked.recv() => Event::Asked(action),
            };
            let carried_on = match event {
                Event::Asked(Some(action)) => self.begin(action).await,
                Event::Asked(None) => return,
                Event::Kept(end) => self.end_kept(end).await,
                Event::Closed(id) => {
                    self.kept = Kept::None;
                    self.reports.send(Report::Lost(id, "the node closed the connection".to_owned())).await
                }
                Event::Side(end) => self.end_side(end).await,
            };
            if carried_on.is_err() {
                return;
            }
        }
    }

    async fn begin(&mut self, action: Action) -> Result<(), Unheard> {
        match action {
            Action::Open(id, offer) => {
                let ticket = offer.and_then(|id| self.tickets.remove(&id));
                self.kept = Kept::Asked(Box::pin(open(Arc::clone(&self.identity), id, ticket)));
            }
            Action::Poll(id) => match std::mem::replace(&mut self.kept, Kept::None) {
                Kept::Idle(kept, connection, _) if kept == id => {
                    self.kept = Kept::Asked(Box::pin(ask(connection, id, false)));
                }
                other => {
                    // It ended while the sight was asking: the report of that is on its way, and saying it again does no harm.
                    self.kept = other;
                    return self.reports.send(Report::Lost(id, "the connection is closed".to_owned())).await;
                }
            },
            Action::Side(offer) => {
                let ticket = offer.map(|id| self.tickets.remove(&id));
                match ticket {
                    // A ticket that is not here any more cannot be offered, and so proves nothing.
                    Some(None) => return self.reports.send(Report::Side(Side::Failed)).await,
                    ticket => self.side = Some(Box::pin(beside(Arc::clone(&self.identity), ticket.flatten()))),
                }
            }
            Action::Discard(id) => {
                self.tickets.remove(&id);
            }
        }
        Ok(())
    }

    async fn end_kept(&mut self, end: KeptEnd) -> Result<(), Unheard> {
        let KeptEnd { id, first, outcome, unspent } = end;
        self.kept = Kept::None;
        self.tickets.extend(unspent.map(|ticket| (ticket.id(), ticket)));
        let (mut connection, answer) = match outcome {
            Ok(made) => made,
            Err(error) => {
                if error.refusal().is_some() {
                    self.reports.send(Report::IdentityRefused(error.to_string())).await?;
                }
                let lost = if error.nobody_listens() { Report::Refused } else { Report::Lost };
                return self.reports.send(lost(id, error.to_string())).await;
            }
        };
        if connection.handshake() == Handshake::Resumed {
            // It is the process of before, whoever it is by now: only a full handshake is kept.
            return self.reports.send(Report::Lost(id, "the process of before answers".to_owned())).await;
        }
        if first {
            self.reports.send(Report::Identity { not_after: connection.certificate_not_after() }).await?;
            if connection.ticket_was_offered() {
                self.reports.send(Report::Declined(id)).await?;
            }
        }
        self.drop_proven(|made| answer.as_ref().is_ok_and(|s| !s.is_open()) && made.elapsed() < PROVEN_KEPT);
        match answer {
            Ok(status) => {
                self.keep(connection.take_tickets()).await?;
                let closed = Box::pin(connection.closed());
                self.kept = Kept::Idle(id, connection, closed);
                self.reports.send(Report::Status(id, status)).await
            }
            Err(error) => self.reports.send(Report::Lost(id, error.to_string())).await,
        }
    }

    async fn end_side(&mut self, end: SideEnd) -> Result<(), Unheard> {
        self.side = None;
        if let Some(refused) = end.refused {
            self.reports.send(Report::IdentityRefused(refused)).await?;
        }
        if let Side::Full { .. } = end.outcome {
            self.reports.send(Report::Identity { not_after: end.not_after }).await?;
        }
        self.keep(end.tickets).await?;
        if let Some((connection, reported)) = end.proven {
            *lock(&self.proven) = Some(Declined { connection, reported, at: Instant::now() });
        }
        self.reports.send(Report::Side(end.outcome)).await
    }

    /// Closes the spare connection, unless it may stay.
    fn drop_proven(&self, may_stay: impl Fn(Instant) -> bool) {
        lock(&self.proven).take_if(|declined| !may_stay(declined.at));
    }

    async fn keep(&mut self, tickets: Vec<Ticket>) -> Result<(), Unheard> {
        for ticket in tickets {
            let id = ticket.id();
            self.tickets.insert(id, ticket);
            if self.tickets.len() > TICKETS_MAX {
                self.tickets.pop_first();
            }
            self.reports.send(Report::Ticket(id)).await?;
        }
        Ok(())
    }
}

/// A panic while it is held leaves the value whole: it is changed in one step.
fn lock(spare: &Spare) -> MutexGuard<'_, Option<Declined>> {
    spare.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    async fn next(&mut self) -> Event {
        match self {
            Self::None => pending().await,
            Self::Asked(running) => Event::Kept(running.await),
            Self::Idle(id, _, closed) => {
                closed.await;
                Event::Closed(*id)
            }
        }
    }
}

async fn next_side(side: &mut Option<Running<SideEnd>>) -> Event {
    match side {
        Some(running) => Event::Side(running.await),
        None => pending().await,
    }
}

async fn open(identity: Arc<NodeIdentity>, id: ConnectionId, mut offer: Option<Ticket>) -> KeptEnd {
    match identity.connect_offering(&mut offer).await {
        Ok(connection) if connection.handshake() == Handshake::Full => ask(connection, id, true).await,
        Ok(connection) => KeptEnd { id, first: true, outcome: Ok((connection, Err(AskError::Closed))), unspent: None },
        Err(error) => KeptEnd { id, first: true, outcome: Err(error), unspent: offer },
    }
}

async fn ask(mut connection: Connection, id: ConnectionId, first: bool) -> KeptEnd {
    let answer = connection.seal_status().await;
    KeptEnd { id, first, outcome: Ok((connection, answer)), unspent: None }
}

async fn beside(identity: Arc<NodeIdentity>, offer: Option<Ticket>) -> SideEnd {
    let mut connection = match identity.connect(offer).await {
        Ok(connection) => connection,
        Err(error) => {
            let refused = error.refusal().map(|_| error.to_string());
            return SideEnd { outcome: Side::Failed, refused, not_after: None, tickets: Vec::new(), proven: None };
        }
    };
    // The node's tickets come before the answer. Without an answer, those that came are kept: the handshake stands.
    let status = connection.seal_status_within(SIDE_ANSWER).await.ok();
    let sealed = status.as_ref().map(|status| !status.is_open());
    let outcome = match connection.handshake() {
        Handshake::Resumed => Side::Resumed { sealed },
        Handshake::Full => Side::Full { offered: connection.ticket_was_offered() },
    };
    let not_after = connection.certificate_not_after();
    let tickets = connection.take_tickets();
    let declined = outcome == Side::Full { offered: true };
    let proven = status.filter(|status| declined && !status.is_open()).map(|status| (connection, status));
    SideEnd { outcome, refused: None, not_after, tickets, proven }
}

#[cfg(test)]
mod tests;
