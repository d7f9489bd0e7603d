//! Where Holdfast meets the world: the only crate that names lapin, reqwest, age or a socket.
//!
//! What lives here: TLS, the Vault's API, the broker, keys, the share store, the audit log, files, what pages share. What does not: a
//! decision. Those are `holdfast_core`'s, and everything here either carries one out or brings home what it needs.

pub mod admin;
pub mod audit;
pub mod broker;
pub mod checkup;
pub mod clock;
pub mod config;
pub mod exposition;
pub mod files;
pub mod keys;
pub mod listen;
pub mod logging;
pub mod node;
pub mod outgoing;
#[cfg(feature = "page")]
pub mod page;
pub mod pushgateway;
pub mod report;
mod residue;
pub mod service;
pub mod store;
pub mod terminal;
pub mod tls;
pub mod vault;

// The tests' real server is included by tests of both kinds, and names this crate from outside.
#[cfg(test)]
extern crate self as holdfast_edge;
