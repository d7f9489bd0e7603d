//! TLS 1.3 session tickets, each of which is offered at most once and by nobody but its owner.
//!
//! A ticket that a node declines is half of the proof that its process was restarted (docs/SECURITY.md, "Causes"), so it must be
//! known which ticket was offered where. The TLS library's own store hands out any ticket of a server name; this one, made
//! for each connection, holds the one that the caller chose and collects those that arrive.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls_pki_types::ServerName;

/// How many tickets of one connection are kept, the newest: servers send one or two, and one can be spent.
pub const TICKETS_PER_CONNECTION: usize = 4;

/// One TLS 1.3 ticket of one node: moved into the connection that offers it, and gone with it.
pub struct Ticket {
    id: u64,
    value: Tls13ClientSessionValue,
}

impl Ticket {
    fn new(value: Tls13ClientSessionValue) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), value }
    }

    /// The ticket's number, unique in this process: the later the ticket came, the higher.
    pub fn id(&self) -> u64 {
        self.id
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The store of one connection.
pub(super) struct ConnectionTickets {
    offer: Mutex<Option<Tls13ClientSessionValue>>,
    arrived: Mutex<Vec<Ticket>>,
}

impl ConnectionTickets {
    pub(super) fn new(offer: Option<Ticket>) -> Self {
        Self { offer: Mutex::new(offer.map(|ticket| ticket.value)), arrived: Mutex::default() }
    }

    /// Takes those that arrived so far, the oldest first.
    pub(super) fn take(&self) -> Vec<Ticket> {
        std::mem::take(&mut *lock(&self.arrived))
    }
}

/// A panic while one of these is held leaves the value whole: each is changed in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientSessionStore for ConnectionTickets {
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        lock(&self.offer).take()
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut arrived = lock(&self.arrived);
        if arrived.len() == TICKETS_PER_CONNECTION {
            arrived.remove(0);
        }
        arrived.push(Ticket::new(value));
    }

    // The first group is both groups' key at once, so that a hint would save nothing.
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    // TLS 1.2 is not spoken.
    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}
}

impl fmt::Debug for ConnectionTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionTickets").finish_non_exhaustive()
    }
}
