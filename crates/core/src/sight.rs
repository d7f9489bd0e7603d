//! One node, seen with one's own eyes: what to ask it next, and what its answers prove about why it is not open.
//!
//! Used by custodians and sentinels alike. What lives here: contact with the node (one kept connection that is polled, and
//! short side connections), the TLS tickets as numbers, and the evidence about an incident's cause. What does not: sockets and
//! the tickets themselves (the edge has them), and what follows from a cause (the custodian's).
//!
//! ## How a restart is told from a seal in place
//! A server makes its ticket keys when its process starts, so a ticket resumes with the same process and is declined by
//! any other (FACTS.md, "Restart, or sealed in place?"). An **epoch** is a stretch of unbroken contact over one kept
//! connection, and so with one process. Tickets belong to the epoch they were got in. When contact was lost and the node then
//! answers sealed, tickets of the epoch that last saw it open are offered, one at a time: one that resumes proves the same
//! process, [`Evidence::InPlace`]; two that were really offered and declined prove another, [`Evidence::Restart`]; when
//! they run out before that, nothing is proven. Where nobody listened at the node's address and then somebody does, the first of
//! them is offered in the very handshake of the connection that is to be kept: it is one handshake less while the node is sealed.

use std::collections::VecDeque;
use std::time::Duration;

use crate::message::Seen;
use crate::seal_status::SealStatus;
use crate::time::{Now, Steady, Timestamp};

/// A ticket, by the number that the edge gave it.
pub type TicketId = u64;

/// A kept connection, by the number that is given it here.
pub type ConnectionId = u64;

/// How many tickets are kept of a node: two decide, and two may be lost to connects that time out.
pub const TICKETS_KEPT: usize = 4;

/// How many declined tickets prove that another process answers.
const DECLINES_THAT_PROVE: u8 = 2;

/// The oldest ticket that may prove anything.
const TICKET_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// How often the oldest ticket is spent on a look whether one process alone answers, and replaced in a full handshake
/// that proves the node's identity anew ("ready" needs that within the hour).
const REFRESH: Duration = Duration::from_secs(20 * 60);

/// How many side connections are made for tickets alone in one epoch and refresh: a server that gives out none is not asked
/// for ever.
const GATHER_MAX: usize = 2 * TICKETS_KEPT;

/// How long a node that was just seen open is asked for no more tickets than prove its next restart: it has become the active one of its
/// cluster by then, and its clients wait for that.
const SETTLING: Duration = Duration::from_millis(250);

/// How long a node that does not answer is knocked at fast; afterwards at the pace of the polls.
const KNOCKING: Duration = Duration::from_secs(60);

/// How long a node is looked at closely after something happened.
const ATTENTION: Duration = Duration::from_secs(10);

/// A kept connection that lasts less than this was not worth its handshake.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// After how many such connections in a row the next one waits for the pace of the polls.
const SHORT_LIVES_MAX: u8 = 3;

/// How long a node that was open may owe an answer before it is looked at beside: a node that is being sealed can hold an
/// answer back until it is done, while it gives others at once, and may be killed meanwhile (docs/FACTS.md).
const SLOW_ANSWER: Duration = Duration::from_millis(150);

/// The time between two looks at a node that is looked at closely.
const CLOSE_LOOK: Duration = Duration::from_millis(40);

/// The shortest time between two looks, whoever asks for them: a flood of events must not become a flood of requests.
const LOOK_MIN: Duration = Duration::from_millis(5);

/// A node at which nobody listens is knocked at again after this part of the time that it has been away: what waiting for the next
/// knock adds to an outage is then nothing beside the outage. A knock that is refused costs two packets.
const KNOCK_PART: u32 = 64;

/// The shortest time between two such knocks.
const KNOCK_MIN: Duration = Duration::from_millis(3);

/// How a node is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// Whether nothing stands between us and the node's process (`tls = "direct"`). If not, no ticket proves anything.
    pub direct: bool,
    /// The time between two looks at a node that answers.
    pub poll: Duration,
    /// The longest time between two knocks at a node that was just lost.
    pub knock: Duration,
}

/// What the edge is to do next with a node. Each is answered once: see the `handle_*` functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Connect, keep the connection, ask for the status: [`Sight::handle_status`], [`Sight::handle_lost`] or
    /// [`Sight::handle_refused`]. A ticket is offered to whoever takes the connection. Declined in a full handshake, that is told first:
    /// [`Sight::handle_declined`]. A connection that resumes is not kept: it does not prove the node's identity.
    Open(ConnectionId, Option<TicketId>),
    /// Ask for the status on the kept connection: [`Sight::handle_status`] or [`Sight::handle_lost`].
    Poll(ConnectionId),
    /// Connect once more beside the kept connection, offering a ticket or none, ask for the status, and close:
    /// [`Sight::handle_side`].
    Side(Option<TicketId>),
    /// Throw tickets away that can prove nothing any more. Not answered.
    Discard(TicketId),
}

/// What came of [`Action::Side`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The handshake was completed and resumed the ticket's session: it is the ticket's process that answers.
    Resumed {
        /// Whether it then said that it is sealed; `None` if it said nothing in time.
        sealed: Option<bool>,
    },
    /// A full handshake proved the node's identity. With a ticket in the action, the ticket was seen to leave and was declined.
    Full {
        /// Whether a ticket was really offered, as seen on the wire.
        offered: bool,
    },
    /// No handshake was completed; a ticket that was to be offered is spent all the same.
    Failed,
}

/// What is proven about why a node is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Another process answers than the one that was seen open.
    Restart,
    /// The process that was seen open is sealed.
    InPlace,
    /// This process of ours never saw the node open.
    NeverOpen,
    /// It was seen open, and nothing can be proven.
    Nothing,
}

/// What a node was seen to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// It answered, with its identity proven.
    Status(SealStatus),
    /// It is seen open, and was not before.
    Opened,
    /// It is seen sealed, and was not before in this incident.
    Sealed,
    /// Contact with it was lost.
    Lost,
    /// Why it is not open, as far as it will ever be proven by tickets in this incident.
    Evidence(Evidence),
    /// A ticket of a process that still lives was declined: several processes answer at this address.
    SharedAddress,
}

#[derive(Debug)]
enum Kept {
    Down { next: Steady },
    Up { id: ConnectionId, answered: bool, asked: Option<Now>, next: Steady, open: bool, ignore_answer: bool },
}

#[derive(Debug)]
struct Ticket {
    id: TicketId,
    epoch: ConnectionId,
    got: Now,
    /// Whether the epoch's connection answered after the ticket came. Until then it may be a later process's.
    confirmed: bool,
}

#[derive(Debug)]
struct Incident {
    evidence: Option<Evidence>,
    sealed: bool,
    declined: u8,
}

#[derive(Debug, Clone, Copy)]
enum Purpose {
    Prove,
    Look { kept: ConnectionId },
    Check { kept: ConnectionId },
    Gather,
}

/// One node, as one party sees it.
#[derive(Debug)]
pub struct Sight {
    watch: Watch,
    seen: Seen,
    since: Timestamp,
    /// When the question left that the last status answers.
    asked_at: Now,
    kept: Kept,
    next_connection: ConnectionId,
    side: Option<Purpose>,
    tickets: Vec<Ticket>,
    /// The ticket that goes with the connection that is being made to be kept.
    offered: Option<Ticket>,
    /// Whether the last connection that was to be kept was refused: who takes the next one has only just begun to listen.
    nobody_listened: bool,
    /// The epoch in which the node was last seen open.
    open_epoch: Option<ConnectionId>,
    incident: Option<Incident>,
    ever_open: bool,
    /// Since when the node is seen open.
    open_since: Steady,
    /// When the kept connection was begun, and how many in a row answered and did not last.
    kept_since: Steady,
    short_lives: u8,
    /// When the node was last looked at beside a connection that owed an answer.
    looked_beside: Option<Steady>,
    lost_at: Steady,
    refreshed: Steady,
    /// How many more side connections may be made for tickets alone in this epoch, until the next refresh.
    gather_budget: usize,
    attention_until: Steady,
    /// How often the node is looked at while it is seen open, and until when.
    guarded: Option<(Duration, Steady)>,
    last_look: Option<Steady>,
    suspect_shared: Option<ConnectionId>,
    shared_address: bool,
    identity_proven: Option<Steady>,
    actions: VecDeque<Action>,
    observations: VecDeque<Observation>,
}

impl Ticket {
    fn is_fresh(&self, now: Now) -> bool {
        now.steady.since(self.got.steady) <= TICKET_AGE_MAX && now.wall.since(self.got.wall) <= TICKET_AGE_MAX
    }
}

impl Sight {
    /// A node that was not seen yet. The first look is due at once.
    pub fn new(watch: Watch, now: Now) -> Self {
        Self {
            watch,
            seen: Seen::Never,
            since: now.wall,
            asked_at: now,
            kept: Kept::Down { next: now.steady },
            next_connection: 1,
            side: None,
            tickets: Vec::new(),
            offered: None,
            nobody_listened: false,
            open_epoch: None,
            incident: None,
            ever_open: false,
            open_since: now.steady,
            kept_since: now.steady,
            short_lives: 0,
            looked_beside: None,
            lost_at: now.steady,
            refreshed: now.steady,
            gather_budget: 0,
            attention_until: now.steady,
            guarded: None,
            last_look: None,
            suspect_shared: None,
            shared_address: false,
            identity_proven: None,
            actions: VecDeque::new(),
            observations: VecDeque::new(),
        }
    }

    /// Takes over a changed configuration; what was seen and the tickets stay.
    pub fn reconfigure(&mut self, watch: Watch) {
        self.watch = watch;
    }

    /// What was last seen.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Since when that is so.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// When the question left that the last [`Observation::Status`] answers: what it says was so at that time or later.
    pub fn asked_at(&self) -> Now {
        self.asked_at
    }

    /// Whether several processes were found behind the address.
    pub fn shared_address(&self) -> bool {
        self.shared_address
    }

    /// Whether a restart that came now could be proven: enough tickets of the process that was last seen open.
    pub fn restart_provable(&self, now: Now) -> bool {
        let kept = self.tickets.iter().chain(&self.offered);
        let of_use = kept.filter(|t| Some(t.epoch) == self.open_epoch && t.confirmed && t.is_fresh(now));
        self.watch.direct && !self.shared_address && of_use.count() >= usize::from(DECLINES_THAT_PROVE)
    }

    /// When the node's identity was last proven in a full handshake.
    pub fn identity_proven(&self) -> Option<Steady> {
        self.identity_proven
    }

    /// What is proven about the running incident; `None` while there is none or it is still being found out.
    pub fn evidence(&self) -> Option<Evidence> {
        self.incident.as_ref().and_then(|i| i.evidence)
    }

    /// Looks at once, and closely for a while: somebody says that something happened, or something is about to.
    pub fn attend(&mut self, now: Now) {
        self.attention_until = self.attention_until.max(now.steady + ATTENTION);
        self.look_soon(now);
    }

    /// Looks at the node this often while it is seen open, until then, unless it is looked at more often anyway: it is about to be sealed.
    pub fn guard(&mut self, every: Duration, until: Steady, now: Now) {
        self.guarded = Some((every, until));
        if let Kept::Up { asked: None, next, .. } = &mut self.kept {
            *next = (*next).min(now.steady + every);
        }
    }

    /// Looks at it as often as always.
    pub fn unguard(&mut self) {
        self.guarded = None;
    }

    fn look_soon(&mut self, now: Now) {
        let soonest = self.last_look.map_or(now.steady, |last| now.steady.max(last + LOOK_MIN));
        match &mut self.kept {
            Kept::Down { next } | Kept::Up { asked: None, next, .. } => *next = (*next).min(soonest),
            Kept::Up { asked: Some(_), .. } => {}
        }
    }

    /// The node opened after we last saw it sealed, or lost it: our own share did it, or somebody trusted in this says so. Whatever
    /// was proven about the incident is void; if the node is still seen sealed after this, then that is another incident.
    /// `this_process` tells whether it is known to be the kept connection's process that opened, and not one before it; `own`,
    /// whether it was our own share's answer that said so, or a word that permits no more than there was. Any other word only
    /// restricts: no ticket speaks for a process that we did not see open ourselves.
    pub fn told_open(&mut self, this_process: bool, own: bool, now: Now) {
        if self.incident.take().is_none() {
            return;
        }
        let mut epoch = None;
        if let Kept::Up { id, asked, open, ignore_answer, answered: true, .. } = &mut self.kept {
            // An answer already under way may be from before.
            *ignore_answer = asked.is_some();
            *open = this_process;
            epoch = (this_process && own).then_some(*id);
        }
        self.open_epoch = epoch;
        self.ever_open = true;
        let speaks_for = if own { self.kept_id() } else { None };
        self.discard_tickets(|ticket| Some(ticket.epoch) != speaks_for);
        self.attend(now);
    }

    /// Somebody trusted in this says that the node was sealed and opened after we last saw it open, and we noticed nothing:
    /// until it is seen open again, nothing of before can prove anything.
    pub fn told_missed(&mut self, now: Now) {
        self.open_epoch = None;
        self.attend(now);
    }

    /// A connection was made in a full handshake: the kept one of that number, or one beside it.
    pub fn handle_identity(&mut self, now: Now) {
        self.identity_proven = Some(now.steady);
    }

    /// A ticket came, on the kept connection or on one beside it.
    pub fn handle_ticket(&mut self, id: TicketId, now: Now) {
        let Kept::Up { id: epoch, .. } = self.kept else {
            self.actions.push_back(Action::Discard(id));
            return;
        };
        self.tickets.push(Ticket { id, epoch, got: now, confirmed: false });
        let of_epoch = self.tickets.iter().filter(|t| t.epoch == epoch).count();
        if of_epoch > TICKETS_KEPT
            && let Some(oldest) = self.tickets.iter().position(|t| t.epoch == epoch)
        {
            let ticket = self.tickets.remove(oldest);
            self.actions.push_back(Action::Discard(ticket.id));
        }
        // Until the connection answers once more, the ticket proves nothing: a node that crashes within a poll of its opening
        // would wait for people.
        self.look_soon(now);
    }

    /// The kept connection `id` answered.
    pub fn handle_status(&mut self, id: ConnectionId, status: SealStatus, now: Now) {
        let Kept::Up { id: kept, answered, asked, open, ignore_answer, .. } = &mut self.kept else { return };
        if *kept != id {
            return;
        }
        if let Some(asked) = asked.take() {
            self.asked_at = asked;
        }
        if !std::mem::replace(answered, true) {
            self.gather_budget = GATHER_MAX;
            self.refreshed = now.steady;
        }
        self.offered = None;
        for ticket in self.tickets.iter_mut().filter(|t| t.epoch == id) {
            ticket.confirmed = true;
        }
        if std::mem::take(ignore_answer) {
            self.attend(now);
            return;
        }
        if self.suspect_shared.take() == Some(id) && !self.shared_address {
            self.shared_address = true;
            self.observations.push_back(Observation::SharedAddress);
        }
        let was_open = *open;
        *open = status.is_open();
        if status.is_open() {
            self.see_open(id, now);
        } else {
            self.see_sealed(was_open, now);
        }
        self.observations.push_back(Observation::Status(status));
        self.prove_or_give_up(now);
        self.refresh(now);
        self.schedule(now);
    }

    /// The kept connection `id` could not be made, was closed, or gave no sound answer in time.
    pub fn handle_lost(&mut self, id: ConnectionId, now: Now) {
        let Kept::Up { id: kept, answered, .. } = self.kept else { return };
        if kept != id {
            return;
        }
        self.nobody_listened = false;
        // Spent, or of no use any more.
        self.actions.extend(self.offered.take().map(|ticket| Action::Discard(ticket.id)));
        let long = now.steady.since(self.lost_at) > KNOCKING && self.seen == Seen::Lost;
        // A peer that answers once and hangs up must not make a loop of handshakes.
        let short = now.steady.since(self.kept_since) < SHORT_LIFE;
        self.short_lives = if answered && short { self.short_lives.saturating_add(1) } else { 0 };
        let wait = match answered {
            true if self.short_lives >= SHORT_LIVES_MAX => self.watch.poll,
            true => Duration::ZERO,
            false if long => self.watch.knock.max(self.watch.poll),
            false => self.watch.knock,
        };
        self.kept = Kept::Down { next: now.steady + wait };
        self.suspect_shared = None;
        let of_use = self.open_epoch;
        self.discard_tickets(|ticket| ticket.epoch == id && (Some(id) != of_use || !ticket.confirmed));
        if self.seen != Seen::Lost {
            self.lost_at = now.steady;
            self.see(Seen::Lost, now);
            self.attention_until = self.attention_until.max(now.steady + ATTENTION);
            self.begin_incident();
            self.observations.push_back(Observation::Lost);
        }
    }

    /// Nobody listens at the node's address: the connection `id` was refused, and the ticket that it was to offer is still there.
    pub fn handle_refused(&mut self, id: ConnectionId, now: Now) {
        if self.kept_id() != Some(id) {
            return;
        }
        if let Some(ticket) = self.offered.take_if(|ticket| Some(ticket.epoch) == self.open_epoch) {
            self.tickets.push(ticket);
        }
        self.handle_lost(id, now);
        self.nobody_listened = true;
        let away = now.steady.since(self.lost_at);
        if let Kept::Down { next } = &mut self.kept {
            *next = (*next).min(now.steady + (away / KNOCK_PART).max(KNOCK_MIN));
        }
    }

    /// The ticket that the connection `id` was to offer was seen to leave, and was declined in a full handshake.
    pub fn handle_declined(&mut self, id: ConnectionId) {
        if self.kept_id() == Some(id)
            && let Some(ticket) = self.offered.take()
            && Some(ticket.epoch) == self.open_epoch
        {
            self.weigh(Side::Full { offered: true });
        }
    }

    /// What came of [`Action::Side`].
    pub fn handle_side(&mut self, outcome: Side, now: Now) {
        let Some(purpose) = self.side.take() else { return };
        if let Side::Full { .. } = outcome {
            self.identity_proven = Some(now.steady);
        }
        match purpose {
            Purpose::Prove => self.weigh(outcome),
            Purpose::Look { kept } => {
                let same_process_is_sealed = outcome == (Side::Resumed { sealed: Some(true) });
                if same_process_is_sealed && self.seen == Seen::Open && self.is_up(kept) {
                    self.see_sealed(true, now);
                }
            }
            Purpose::Check { kept } => {
                if outcome == (Side::Full { offered: true }) && self.is_up(kept) {
                    // The process may just have gone, with the news of it still on the way: it must answer once more.
                    self.suspect_shared = Some(kept);
                    self.attend(now);
                }
            }
            Purpose::Gather => {}
        }
        self.prove_or_give_up(now);
        self.refresh(now);
    }

    /// Moves on what is due at `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        let due = match self.kept {
            Kept::Down { next } | Kept::Up { asked: None, next, .. } => next <= now.steady,
            Kept::Up { asked: Some(_), .. } => false,
        };
        if due {
            self.last_look = Some(now.steady);
            match &mut self.kept {
                Kept::Up { id, asked, .. } => {
                    *asked = Some(now);
                    self.actions.push_back(Action::Poll(*id));
                }
                Kept::Down { .. } => {
                    self.offered = self.ticket_for_the_door(now);
                    let offer = self.offered.as_ref().map(|ticket| ticket.id);
                    let id = self.next_connection;
                    self.next_connection += 1;
                    self.kept_since = now.steady;
                    let asked = Some(now);
                    self.kept =
                        Kept::Up { id, answered: false, asked, next: now.steady, open: false, ignore_answer: false };
                    self.actions.push_back(Action::Open(id, offer));
                }
            }
        }
        self.look_beside(now);
        self.refresh(now);
    }

    /// When [`Sight::handle_timeout`] is next to be called.
    pub fn next_timeout(&self) -> Option<Steady> {
        let look = match self.kept {
            Kept::Down { next } | Kept::Up { asked: None, next, .. } => Some(next),
            Kept::Up { asked: Some(_), .. } => None,
        };
        let up = matches!(self.kept, Kept::Up { answered: true, .. });
        let refresh = (up && self.side.is_none()).then(|| self.refreshed + REFRESH);
        [look, refresh, self.settled_at(), self.beside_at()].into_iter().flatten().min()
    }

    /// What the edge is to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What was seen.
    pub fn poll_observation(&mut self) -> Option<Observation> {
        self.observations.pop_front()
    }

    fn kept_id(&self) -> Option<ConnectionId> {
        match self.kept {
            Kept::Up { id, .. } => Some(id),
            Kept::Down { .. } => None,
        }
    }

    fn is_up(&self, connection: ConnectionId) -> bool {
        matches!(self.kept, Kept::Up { id, .. } if id == connection)
    }

    fn see(&mut self, seen: Seen, now: Now) {
        if self.seen != seen {
            self.seen = seen;
            self.since = now.wall;
        }
    }

    fn begin_incident(&mut self) {
        self.incident.get_or_insert(Incident { evidence: None, sealed: false, declined: 0 });
    }

    fn see_open(&mut self, epoch: ConnectionId, now: Now) {
        let news = self.seen != Seen::Open || self.incident.is_some();
        self.see(Seen::Open, now);
        self.incident = None;
        if self.open_epoch != Some(epoch) {
            // Another stretch of contact: tickets of before it may be another process's, and must never speak for this one.
            self.discard_tickets(|ticket| ticket.epoch != epoch);
            self.open_epoch = Some(epoch);
        }
        self.ever_open = true;
        if news {
            // Whoever told of openings that never were has cost tickets, and must not cost the proof of the next restart.
            self.gather_budget = GATHER_MAX;
            self.open_since = now.steady;
            self.observations.push_back(Observation::Opened);
        }
    }

    fn see_sealed(&mut self, was_open_on_this_connection: bool, now: Now) {
        self.see(Seen::Sealed, now);
        self.begin_incident();
        let direct = self.watch.direct && !self.shared_address;
        let (open_epoch, ever_open) = (self.open_epoch, self.ever_open);
        let Some(incident) = &mut self.incident else { return };
        if !std::mem::replace(&mut incident.sealed, true) {
            self.attention_until = self.attention_until.max(now.steady + ATTENTION);
            self.observations.push_back(Observation::Sealed);
        }
        if incident.evidence.is_none() {
            let at_once = match open_epoch {
                _ if direct && was_open_on_this_connection => Some(Evidence::InPlace),
                None if ever_open => Some(Evidence::Nothing),
                None => Some(Evidence::NeverOpen),
                Some(_) if !direct => Some(Evidence::Nothing),
                Some(_) => None,
            };
            if let Some(evidence) = at_once {
                self.conclude(evidence);
            }
        }
    }

    fn conclude(&mut self, evidence: Evidence) {
        if let Some(incident) = &mut self.incident
            && incident.evidence.is_none()
        {
            incident.evidence = Some(evidence);
            self.observations.push_back(Observation::Evidence(evidence));
        }
    }

    /// Offers the next ticket of the epoch in which the node was last open, or concludes that nothing can be proven.
    fn prove_or_give_up(&mut self, now: Now) {
        let undecided = self.incident.as_ref().is_some_and(|i| i.sealed && i.evidence.is_none());
        // A ticket is spent only while the node answers.
        if !undecided || self.seen != Seen::Sealed || self.side.is_some() {
            return;
        }
        if self.incident.as_ref().is_some_and(|incident| incident.declined >= DECLINES_THAT_PROVE) {
            return self.conclude(Evidence::Restart);
        }
        let open_epoch = self.open_epoch;
        // Newest first: the likeliest to be accepted by a process that still lives.
        match self.tickets.iter().rposition(|t| Some(t.epoch) == open_epoch && t.is_fresh(now)) {
            Some(newest) => {
                let ticket = self.tickets.remove(newest);
                self.side = Some(Purpose::Prove);
                self.actions.push_back(Action::Side(Some(ticket.id)));
            }
            None => self.conclude(Evidence::Nothing),
        }
    }

    /// The ticket to be offered in the next connection that is to be kept. None, unless the connection before was refused: a
    /// process that hangs takes connections all the same, and would use up every ticket. And only while as many are left without it as
    /// a proof takes: a handshake that comes to nothing spends it.
    fn ticket_for_the_door(&mut self, now: Now) -> Option<Ticket> {
        let open_epoch = self.open_epoch;
        let undecided = self.incident.as_ref().is_some_and(|incident| incident.evidence.is_none());
        let of_use = |t: &Ticket| Some(t.epoch) == open_epoch && t.is_fresh(now);
        if !std::mem::take(&mut self.nobody_listened)
            || !undecided
            || self.side.is_some()
            || !self.restart_provable(now)
            || self.tickets.iter().filter(|t| of_use(t) && t.confirmed).count() <= usize::from(DECLINES_THAT_PROVE)
        {
            return None;
        }
        let newest = self.tickets.iter().rposition(of_use)?;
        Some(self.tickets.remove(newest))
    }

    fn weigh(&mut self, outcome: Side) {
        let Some(incident) = &mut self.incident else { return };
        match outcome {
            Side::Resumed { .. } => self.conclude(Evidence::InPlace),
            Side::Full { offered: true } => {
                incident.declined = incident.declined.saturating_add(1);
            }
            // Never offered, or no handshake: spent, and it proves nothing.
            Side::Full { offered: false } | Side::Failed => {}
        }
    }

    /// Gets tickets until there are enough, and now and then spends and replaces the oldest.
    fn refresh(&mut self, now: Now) {
        let Kept::Up { id: kept, answered: true, .. } = self.kept else { return };
        let undecided = self.incident.as_ref().is_some_and(|i| i.evidence.is_none());
        if self.side.is_some() || undecided {
            return;
        }
        let of_epoch = self.tickets.iter().filter(|t| t.epoch == kept).count();
        let overdue = now.steady.since(self.refreshed) >= REFRESH;
        if overdue {
            self.refreshed = now.steady;
            self.gather_budget = GATHER_MAX;
        }
        // While others may be opening the node, it has better things to do than to give out tickets. Each that was declined
        // brought a new one.
        let busy = self.incident.is_some() && now.steady < self.attention_until;
        let enough = if now.steady < self.open_since + SETTLING { DECLINES_THAT_PROVE.into() } else { TICKETS_KEPT };
        let oldest = self.tickets.iter().position(|t| t.epoch == kept && t.confirmed);
        match oldest {
            Some(oldest) if overdue && self.watch.direct && of_epoch >= TICKETS_KEPT => {
                let ticket = self.tickets.remove(oldest);
                self.side = Some(Purpose::Check { kept });
                self.actions.push_back(Action::Side(Some(ticket.id)));
            }
            _ if of_epoch < enough && self.gather_budget > 0 && !busy => {
                self.gather_budget -= 1;
                self.side = Some(Purpose::Gather);
                self.actions.push_back(Action::Side(None));
            }
            _ => {}
        }
    }

    /// When the tickets that can wait are to be got of a node that opened.
    fn settled_at(&self) -> Option<Steady> {
        let Kept::Up { id: kept, answered: true, .. } = self.kept else { return None };
        let few = self.tickets.iter().filter(|t| t.epoch == kept).count() < TICKETS_KEPT;
        let free = self.seen == Seen::Open && self.side.is_none() && self.gather_budget > 0;
        (few && free).then(|| self.open_since + SETTLING)
    }

    /// When the node is to be looked at beside the connection that owes an answer, if it still does by then.
    fn beside_at(&self) -> Option<Steady> {
        let Kept::Up { asked: Some(asked), open: true, .. } = self.kept else { return None };
        let done = self.looked_beside.is_some_and(|last| last >= asked.steady);
        (self.side.is_none() && !done && self.spare_ticket().is_some()).then(|| asked.steady + SLOW_ANSWER)
    }

    fn look_beside(&mut self, now: Now) {
        if self.beside_at().is_none_or(|at| now.steady < at) {
            return;
        }
        let (Kept::Up { id: kept, .. }, Some(spare)) = (&self.kept, self.spare_ticket()) else { return };
        let (kept, ticket) = (*kept, self.tickets.remove(spare));
        self.looked_beside = Some(now.steady);
        self.side = Some(Purpose::Look { kept });
        self.actions.push_back(Action::Side(Some(ticket.id)));
    }

    /// The newest ticket of the process that is kept in contact with, if there are enough others to prove a restart: a node
    /// that is always slow must not use them up.
    fn spare_ticket(&self) -> Option<usize> {
        let Kept::Up { id, .. } = self.kept else { return None };
        let mut fit =
            self.tickets.iter().enumerate().rev().filter(|(_, t)| t.epoch == id && t.confirmed).map(|(i, _)| i);
        let newest = fit.next();
        newest.filter(|_| fit.count() >= usize::from(DECLINES_THAT_PROVE))
    }

    fn discard_tickets(&mut self, unfit: impl Fn(&Ticket) -> bool) {
        let actions = &mut self.actions;
        self.tickets.retain(|ticket| {
            let discard = unfit(ticket);
            if discard {
                actions.push_back(Action::Discard(ticket.id));
            }
            !discard
        });
    }

    fn schedule(&mut self, now: Now) {
        let (open, attentive) = (self.seen == Seen::Open, now.steady < self.attention_until);
        let guarded = self.guarded.filter(|(_, until)| open && now.steady < *until).map(|(every, _)| every);
        let close = if attentive && !open { Some(CLOSE_LOOK) } else { guarded };
        let wait = close.map_or(self.watch.poll, |close| close.min(self.watch.poll));
        if let Kept::Up { next, .. } = &mut self.kept {
            *next = now.steady + wait;
        }
    }
}

#[cfg(test)]
mod tests;
