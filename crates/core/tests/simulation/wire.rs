//! The network between custodians and nodes, and each custodian's edge: connections, tickets, time-outs, the release's steps.
//!
//! What the edge crate does with sockets is done here with events: every question takes time to come there and its answer
//! time to come back, and anything can happen in between.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_core::custodian::{Answer, Outcome};
use holdfast_core::message::{Lock, Submission};
use holdfast_core::release::{Attempt, ReleaseOrder};
use holdfast_core::seal_status::{SealKind, SealStatus};
use holdfast_core::sight::{Action, ConnectionId, Side, TicketId};
use holdfast_core::time::{Steady, Timestamp};

use crate::dice::Dice;
use crate::note;
use crate::oracle::Sight;
use crate::vault::{Piece, ProcessId, Unsealed};
use crate::world::{Event, World};

pub(crate) type ConnId = u64;

/// The edge's deadlines.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(5);
const SUBMIT: Duration = Duration::from_secs(15);
const SIDE_ANSWER: Duration = Duration::from_millis(500);

/// The most tickets that the edge holds of one node.
const TICKETS_MAX: usize = 16;

/// What lies between one custodian and one node.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) latency: Duration,
    /// Nothing comes through, and nobody is told.
    pub(crate) cut: bool,
    /// Of a hundred answers, this many are late.
    pub(crate) slow: u32,
    /// What TCP will send again once it comes through.
    held: Vec<Packet>,
}

impl Link {
    pub(crate) fn new(dice: &mut Dice) -> Self {
        Self { latency: dice.micros(150, 1500), cut: false, slow: 0, held: Vec::new() }
    }
}

/// A custodian's side of one node.
#[derive(Debug, Default)]
pub(crate) struct Edge {
    kept: Option<(ConnectionId, ConnId)>,
    pub(crate) tickets: BTreeMap<TicketId, ProcessId>,
}

/// A connection, as its client sees it. Gone from the map means closed by the client.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) c: usize,
    pub(crate) n: usize,
    process: Option<ProcessId>,
    purpose: Purpose,
    /// The question under way.
    token: u64,
}

#[derive(Debug)]
enum Purpose {
    Kept { id: ConnectionId, fresh: bool, offer: Option<(TicketId, ProcessId)> },
    Side { offer: Option<ProcessId>, outcome: Option<Side> },
    Release(Box<Releasing>),
    Reset { asked: bool },
}

#[derive(Debug)]
struct Releasing {
    order: ReleaseOrder,
    ordered_at: Duration,
    checked: bool,
    before: Option<SealStatus>,
    submitted: Option<(Steady, Timestamp)>,
    sent: bool,
}

/// Something on its way.
#[derive(Debug, Clone)]
pub(crate) enum Packet {
    Question { conn: ConnId, token: u64, c: usize, n: usize, process: Option<ProcessId>, ask: Ask },
    Reply { conn: ConnId, token: u64, c: usize, n: usize, reply: Reply },
    Closed { conn: ConnId, c: usize, n: usize },
    Deadline { conn: ConnId, token: u64 },
}

#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Handshake { offer: Option<ProcessId> },
    Status,
    Unseal(Piece),
    Reset,
}

#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Nobody listens, or the connection is unknown there.
    Gone,
    Greeting {
        process: ProcessId,
        resumed: bool,
    },
    /// The status, and when the node said so.
    Status(SealStatus, Duration),
    CombineFailed,
}

/// What a node's task tells its custodian.
#[derive(Debug, Clone)]
pub(crate) enum Report {
    Lost(ConnectionId),
    Refused(ConnectionId),
    Declined(ConnectionId),
    Side(Side),
}

impl Conn {
    pub(crate) fn is_release(&self) -> bool {
        matches!(self.purpose, Purpose::Release(_) | Purpose::Reset { .. })
    }
}

impl World {
    // The client's side.

    pub(crate) fn act(&mut self, c: usize, n: usize, action: Action) {
        let incarnation = self.hosts[c].incarnation;
        match action {
            Action::Open(id, offer) => {
                let offer = offer.and_then(|id| Some((id, self.edge(c, n).tickets.remove(&id)?)));
                let purpose = Purpose::Kept { id, fresh: true, offer };
                let conn = self.connect(c, n, purpose, offer.map(|(_, process)| process));
                self.edge(c, n).kept = Some((id, conn));
            }
            Action::Poll(id) => {
                let kept = self.edge(c, n).kept;
                match kept.filter(|(kept, conn)| *kept == id && self.conns.contains_key(conn)) {
                    Some((_, conn)) => self.ask(conn, Ask::Status, ANSWER),
                    None => {
                        let report = Report::Lost(id);
                        self.after(Duration::from_micros(20), Event::Report { c, incarnation, n, report });
                    }
                }
            }
            Action::Side(offer) => {
                let ticket = offer.map(|id| self.edge(c, n).tickets.remove(&id));
                match ticket {
                    Some(None) => {
                        let report = Report::Side(Side::Failed);
                        self.after(Duration::from_micros(20), Event::Report { c, incarnation, n, report });
                    }
                    ticket => {
                        let offer = ticket.flatten();
                        self.connect(c, n, Purpose::Side { offer, outcome: None }, offer);
                    }
                }
            }
            Action::Discard(id) => {
                self.edge(c, n).tickets.remove(&id);
            }
        }
    }

    pub(crate) fn begin_release(&mut self, c: usize, n: usize, order: ReleaseOrder) {
        let releasing =
            Releasing { order, ordered_at: self.now, checked: false, before: None, submitted: None, sent: false };
        self.connect(c, n, Purpose::Release(Box::new(releasing)), None);
    }

    pub(crate) fn begin_reset(&mut self, c: usize, n: usize) {
        self.connect(c, n, Purpose::Reset { asked: false }, None);
    }

    fn edge(&mut self, c: usize, n: usize) -> &mut Edge {
        &mut self.hosts[c].running.as_mut().expect("it acts, so it runs").edges[n]
    }

    fn connect(&mut self, c: usize, n: usize, purpose: Purpose, offer: Option<ProcessId>) -> ConnId {
        let conn = self.next_conn;
        self.next_conn += 1;
        self.conns.insert(conn, Conn { c, n, process: None, purpose, token: 0 });
        self.ask(conn, Ask::Handshake { offer }, CONNECT);
        conn
    }

    fn ask(&mut self, id: ConnId, ask: Ask, deadline: Duration) {
        let token = self.next_token;
        self.next_token += 1;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.token = token;
        let (c, n, process) = (conn.c, conn.n, conn.process);
        let wait = self.travel(c, n);
        self.after(wait, Event::Net(Packet::Question { conn: id, token, c, n, process, ask }));
        self.after(deadline, Event::Net(Packet::Deadline { conn: id, token }));
    }

    fn travel(&mut self, c: usize, n: usize) -> Duration {
        let latency = self.links[c][n].latency;
        latency + self.dice.micros(0, 200)
    }

    pub(crate) fn report(&mut self, c: usize, n: usize, report: Report) {
        let (cluster, name) = (self.cluster, self.names[n].clone());
        match report {
            Report::Lost(id) => {
                self.oracle.lost(c, n);
                self.tell(c, |core, now| core.handle_sight(cluster, &name, now, |sight| sight.handle_lost(id, now)))
            }
            Report::Refused(id) => {
                self.oracle.lost(c, n);
                self.tell(c, |core, now| {
                    core.handle_sight(cluster, &name, now, |sight| sight.handle_refused(id, now));
                })
            }
            Report::Declined(id) => {
                self.tell(c, |core, now| core.handle_sight(cluster, &name, now, |sight| sight.handle_declined(id)))
            }
            Report::Side(side) => {
                if self.hosts[c].running.is_some() && matches!(side, Side::Full { .. }) {
                    self.tell(c, |core, now| core.handle_identity(cluster, &name, Ok(None), now));
                    self.tell(c, |core, now| {
                        core.handle_sight(cluster, &name, now, |sight| sight.handle_identity(now));
                    });
                }
                self.tell(c, |core, now| core.handle_sight(cluster, &name, now, |sight| sight.handle_side(side, now)))
            }
        };
    }

    // Packets.

    pub(crate) fn handle_packet(&mut self, packet: Packet) {
        if let Packet::Deadline { conn, token } = packet {
            if self.conns.get(&conn).is_some_and(|known| known.token == token) {
                self.end(conn, true);
            }
            return;
        }
        let (c, n) = packet.link();
        if self.links[c][n].cut {
            // Half of it is sent again later; the other half belongs to a connection that its client's host forgets.
            if self.dice.chance(50) {
                self.links[c][n].held.push(packet);
            }
            return;
        }
        match packet {
            Packet::Question { conn, token, c, n, process, ref ask } => {
                self.vaults[n].asked += 1;
                let ask = ask.clone();
                self.serve(packet, conn, token, (c, n), process, ask);
            }
            Packet::Reply { conn, token, reply, .. } => {
                if self.conns.get(&conn).is_some_and(|known| known.token == token) {
                    self.answered(conn, reply);
                }
            }
            Packet::Closed { conn, .. } => self.end(conn, false),
            Packet::Deadline { .. } => {}
        }
    }

    /// The network between a custodian and a node is cut. With `reset`, something on the way tells the custodian.
    pub(crate) fn cut(&mut self, c: usize, n: usize, reset: bool) {
        note!(self, "custodian-{} and vault-{}: cut (reset: {reset})", c + 1, n + 1);
        self.links[c][n].cut = true;
        if reset {
            let conns: Vec<_> = self.conns.iter().filter(|(_, k)| k.c == c && k.n == n).map(|(id, _)| *id).collect();
            conns.into_iter().for_each(|conn| self.end(conn, false));
        }
    }

    pub(crate) fn heal(&mut self, c: usize, n: usize) {
        if !std::mem::replace(&mut self.links[c][n].cut, false) {
            return;
        }
        note!(self, "custodian-{} and vault-{}: connected again", c + 1, n + 1);
        for packet in std::mem::take(&mut self.links[c][n].held) {
            let wait = self.dice.micros(100, 200_000);
            self.after(wait, Event::Net(packet));
        }
    }

    pub(crate) fn close_connections_of(&mut self, process: ProcessId) {
        let of_it = self.conns.iter().filter(|(_, conn)| conn.process == Some(process));
        let closed: Vec<_> = of_it.map(|(id, conn)| (*id, conn.c, conn.n)).collect();
        for (conn, c, n) in closed {
            let wait = self.travel(c, n);
            self.after(wait, Event::Net(Packet::Closed { conn, c, n }));
        }
    }

    // The server's side.

    fn serve(
        &mut self,
        packet: Packet,
        conn: ConnId,
        token: u64,
        (c, n): (usize, usize),
        process: Option<ProcessId>,
        ask: Ask,
    ) {
        let now = self.now;
        let vault = &mut self.vaults[n];
        if !vault.powered {
            return;
        }
        let reply = match &mut vault.process {
            None => Reply::Gone,
            Some(alive) if process.is_some_and(|meant| meant != alive.id) => Reply::Gone,
            Some(alive) if alive.frozen => return self.frozen[n].push(packet),
            Some(alive) if matches!(ask, Ask::Status) && alive.busy_until > now && self.dice.chance(30) => {
                let until = alive.busy_until;
                return self.at(until, Event::Net(packet));
            }
            Some(alive) => match ask {
                Ask::Handshake { offer } => Reply::Greeting { process: alive.id, resumed: offer == Some(alive.id) },
                Ask::Status => vault.status().map_or(Reply::Gone, |status| Reply::Status(status, now)),
                Ask::Reset => {
                    vault.reset();
                    vault.status().map_or(Reply::Gone, |status| Reply::Status(status, now))
                }
                Ask::Unseal(piece) => self.take(c, n, piece),
            },
        };
        let mut wait = self.travel(c, n);
        if self.dice.chance(self.links[c][n].slow) {
            wait += self.dice.millis(1, 3000);
        }
        self.after(wait, Event::Net(Packet::Reply { conn, token, c, n, reply }));
    }

    fn take(&mut self, c: usize, n: usize, piece: Piece) -> Reply {
        self.submissions += 1;
        let (now, late) = (self.now, self.dice.millis(500, 1500));
        let vault = &mut self.vaults[n];
        let was_open = vault.is_open();
        let taken = vault.unseal(piece, now);
        note!(self, "vault-{}: took share {} of custodian-{}: {taken:?}", n + 1, piece.x, c + 1);
        let vault = &self.vaults[n];
        if let Some(process) = vault.process.as_ref().filter(|process| process.joining) {
            let process = process.id;
            self.after(late, Event::Joined { n, process });
        }
        if self.vaults[n].is_open() && !was_open {
            self.node_opened(n);
        }
        match taken {
            Some(Unsealed::Taken(status)) => Reply::Status(status, now),
            Some(Unsealed::CombineFailed) => Reply::CombineFailed,
            None => Reply::Gone,
        }
    }

    /// A stranger on the port.
    pub(crate) fn stray(&mut self, n: usize, piece: Option<Piece>) {
        let now = self.now;
        if self.vaults[n].process.as_ref().is_none_or(|p| p.frozen) {
            return;
        }
        note!(self, "vault-{}: a stranger comes with {piece:?}", n + 1);
        match piece {
            None => self.vaults[n].reset(),
            Some(piece) => {
                self.vaults[n].unseal(piece, now);
            }
        }
    }

    // What comes back.

    /// The connection broke (`late`: its question was not answered in time).
    fn end(&mut self, id: ConnId, late: bool) {
        let Some(conn) = self.conns.remove(&id) else { return };
        let (c, n) = (conn.c, conn.n);
        match conn.purpose {
            Purpose::Kept { id: kept, .. } => {
                if let Some(running) = &mut self.hosts[c].running {
                    running.edges[n].kept = None;
                }
                self.report(c, n, Report::Lost(kept));
            }
            Purpose::Side { outcome: Some(outcome), .. } => {
                // The handshake stands, and so do the tickets that came with it.
                if let Some(process) = conn.process {
                    self.keep_tickets(c, n, process);
                }
                self.report(c, n, Report::Side(outcome));
            }
            Purpose::Side { outcome: None, .. } => self.report(c, n, Report::Side(Side::Failed)),
            Purpose::Release(releasing) => {
                let outcome = if releasing.sent {
                    let before = releasing.before.clone();
                    let (nonce, progress) = before.map_or((String::new(), 0), |b| (b.nonce, b.progress));
                    self.answer(c, &releasing, Submission::Unanswered, nonce, progress)
                } else {
                    let lock = if conn.process.is_some() { Lock::State } else { Lock::Identity };
                    let why = if late { "no complete answer in time" } else { "the connection broke" };
                    Outcome::Refused { lock, why: why.to_owned() }
                };
                self.released(c, &releasing, outcome);
            }
            Purpose::Reset { .. } => {}
        }
    }

    fn answered(&mut self, id: ConnId, reply: Reply) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.token = 0;
        let (c, n) = (conn.c, conn.n);
        if let Reply::Greeting { process, .. } = reply {
            conn.process = Some(process);
        }
        match (&mut conn.purpose, reply) {
            (Purpose::Kept { id: kept, fresh: true, offer }, Reply::Gone) if conn.process.is_none() => {
                let (kept, offer) = (*kept, *offer);
                self.conns.remove(&id);
                if let Some(running) = &mut self.hosts[c].running {
                    running.edges[n].kept = None;
                    running.edges[n].tickets.extend(offer);
                }
                self.report(c, n, Report::Refused(kept));
            }
            (_, Reply::Gone) => self.end(id, false),
            (Purpose::Kept { .. }, Reply::Greeting { resumed: true, .. }) => self.end(id, false),
            (Purpose::Kept { id: kept, offer, .. }, Reply::Greeting { .. }) => {
                let (kept, declined) = (*kept, offer.is_some());
                self.ask(id, Ask::Status, ANSWER);
                if declined {
                    self.report(c, n, Report::Declined(kept));
                }
            }
            (Purpose::Kept { id: kept, fresh, .. }, Reply::Status(status, at)) => {
                let (kept, fresh) = (*kept, std::mem::replace(fresh, false));
                let process = conn.process.expect("it was greeted");
                let sight = Sight { process, open: status.is_open(), at };
                self.kept_answered((c, n), kept, fresh, sight, status);
            }
            (Purpose::Side { offer, outcome }, Reply::Greeting { resumed, .. }) => {
                *outcome = Some(if resumed {
                    Side::Resumed { sealed: None }
                } else {
                    Side::Full { offered: offer.is_some() }
                });
                self.ask(id, Ask::Status, SIDE_ANSWER);
            }
            (Purpose::Side { outcome, .. }, Reply::Status(status, _)) => {
                if let Some(Side::Resumed { sealed }) = outcome {
                    *sealed = Some(!status.is_open());
                }
                self.end(id, false);
            }
            (Purpose::Side { .. } | Purpose::Reset { asked: true }, _) => self.end(id, false),
            (Purpose::Reset { asked }, _) => {
                *asked = true;
                self.ask(id, Ask::Reset, ANSWER);
            }
            (Purpose::Release(_), Reply::Greeting { .. }) => self.ask(id, Ask::Status, ANSWER),
            (Purpose::Release(_), reply) => self.release_answered(id, reply),
            (Purpose::Kept { .. }, Reply::CombineFailed) => unreachable!("nobody sends a share on it"),
        }
    }

    fn kept_answered(
        &mut self,
        (c, n): (usize, usize),
        kept: ConnectionId,
        fresh: bool,
        sight: Sight,
        status: SealStatus,
    ) {
        let (cluster, name) = (self.cluster, self.names[n].clone());
        let incarnation = self.hosts[c].incarnation;
        if fresh {
            self.tell(c, |core, now| core.handle_identity(cluster, &name, Ok(None), now));
            self.tell(c, |core, now| core.handle_sight(cluster, &name, now, |sight| sight.handle_identity(now)));
            if self.hosts[c].incarnation == incarnation {
                self.keep_tickets(c, n, sight.process);
            }
        }
        if self.hosts[c].incarnation != incarnation {
            return;
        }
        self.oracle_saw(c, n, sight);
        self.tell(c, |core, now| {
            core.handle_sight(cluster, &name, now, |sight| sight.handle_status(kept, status, now))
        });
    }

    fn keep_tickets(&mut self, c: usize, n: usize, process: ProcessId) {
        let (cluster, name) = (self.cluster, self.names[n].clone());
        for _ in 0..self.dice.between(1, 2) {
            let Some(running) = &mut self.hosts[c].running else { return };
            let id = running.next_ticket;
            running.next_ticket += 1;
            let tickets = &mut running.edges[n].tickets;
            tickets.insert(id, process);
            if tickets.len() > TICKETS_MAX {
                tickets.pop_first();
            }
            self.tell(c, |core, now| core.handle_sight(cluster, &name, now, |sight| sight.handle_ticket(id, now)));
        }
    }

    fn release_answered(&mut self, id: ConnId, reply: Reply) {
        let Some(Conn { c, n, process, purpose: Purpose::Release(releasing), .. }) = self.conns.get_mut(&id) else {
            return;
        };
        let (c, n, process) = (*c, *n, *process);
        if releasing.sent {
            let before = releasing.before.clone();
            let Some(Conn { purpose: Purpose::Release(releasing), .. }) = self.conns.remove(&id) else { return };
            let nonce = before.map_or(String::new(), |before| before.nonce);
            let outcome = match reply {
                Reply::Status(status, _) if !status.sealed => self.answer(c, &releasing, Submission::Opened, nonce, 0),
                Reply::Status(status, _) => {
                    self.answer(c, &releasing, Submission::Counted, status.nonce, status.progress)
                }
                _ => self.answer(c, &releasing, Submission::Failed, nonce, 0),
            };
            if let Outcome::Answered(Answer { result: Submission::Opened, answered_at, .. }) = &outcome
                && let Some(process) = process
            {
                self.oracle_receipt_of_opening(c, n, process, *answered_at);
            }
            return self.released(c, &releasing, outcome);
        }
        let Reply::Status(status, _) = reply else { return self.end(id, false) };
        let numbers = (self.setup.threshold, self.setup.custodians as u8);
        let sound = status.initialized && status.sealed && status.kind == SealKind::Shamir;
        if !sound || (status.threshold, status.shares) != numbers {
            let why = "the node is open already, or not the one that is meant";
            let outcome = Outcome::Refused { lock: Lock::State, why: why.to_owned() };
            return self.give_up_release(id, outcome);
        }
        if !std::mem::replace(&mut releasing.checked, true) {
            // The share is unlocked here; then the node is asked once more.
            if !self.hosts[c].integrity {
                let why = "the share does not match its digest".to_owned();
                return self.give_up_release(id, Outcome::Refused { lock: Lock::Integrity, why });
            }
            let now = self.now_of(c);
            if let Some(Conn { purpose: Purpose::Release(releasing), .. }) = self.conns.get_mut(&id) {
                releasing.submitted = Some((now.steady, now.wall));
            }
            return self.ask(id, Ask::Status, ANSWER);
        }
        releasing.before = Some(status);
        let stands = releasing.order.authority.stands(Steady::from_start(
            self.now - self.hosts[c].running.as_ref().map_or(self.now, |running| running.started),
        ));
        if !stands {
            let why = "its authority was withdrawn or has run out".to_owned();
            return self.give_up_release(id, Outcome::Refused { lock: Lock::Authority, why });
        }
        releasing.sent = true;
        let grounds = releasing.order.authority.grounds().clone();
        let ordered_at = releasing.ordered_at;
        self.check_submission(c, n, &grounds, ordered_at);
        let piece = self.hosts[c].piece;
        self.ask(id, Ask::Unseal(piece), SUBMIT);
    }

    fn give_up_release(&mut self, id: ConnId, outcome: Outcome) {
        let Some(Conn { c, purpose: Purpose::Release(releasing), .. }) = self.conns.remove(&id) else { return };
        self.released(c, &releasing, outcome);
    }

    fn answer(&self, c: usize, releasing: &Releasing, result: Submission, nonce: String, progress: u8) -> Outcome {
        let answered_at = self.wall(self.hosts[c].offset);
        let submitted_at = releasing.submitted.map_or(answered_at, |(_, wall)| wall);
        let grounds = releasing.order.authority.grounds().clone();
        Outcome::Answered(Answer { result, grounds, nonce, progress, submitted_at, answered_at })
    }

    fn released(&mut self, c: usize, releasing: &Releasing, outcome: Outcome) {
        let attempt: Attempt = releasing.order.attempt().clone();
        let incarnation = self.hosts[c].incarnation;
        self.after(Duration::ZERO, Event::Outcome { c, incarnation, attempt, outcome });
    }
}

impl Packet {
    fn link(&self) -> (usize, usize) {
        match self {
            Self::Question { c, n, .. } | Self::Reply { c, n, .. } | Self::Closed { c, n, .. } => (*c, *n),
            Self::Deadline { .. } => (0, 0),
        }
    }
}
