//! A Vault's nodes over the network: who a node is, what it says of itself, and the release of a share to it.
//!
//! Each connection is one TCP connection that the caller owns: no pool, no proxy, no redirect, so that what was proven of
//! a connection is true of the request that follows on it. What does not live here: when to do any of it
//! (`holdfast_core::sight` and `custodian`), and the ceremonies, which are an operator's and use an ordinary client.

pub mod canary;
pub(crate) mod certificate;
mod connection;
pub mod duty;
pub mod exercise;
mod hello;
mod identity;
pub mod release;
mod tickets;

pub use connection::{AskError, BODY_MAX, Connection, Handshake, Health, Impossible};
pub use identity::{ConnectError, DEFAULT_PORT, Deadlines, IdentityError, NodeIdentity, host_and_port};
pub use release::{Answer, AuthorityRefusal, Expected, Outcome, Proven, ReleaseError, Sealed, StateRefusal};
pub use tickets::{TICKETS_PER_CONNECTION, Ticket};

#[cfg(test)]
mod tests;
