//! Every decision that Holdfast makes, and no I/O.
//!
//! What lives here: the vocabulary (names, times, messages), who may say what (trust, admission), what a node was seen to
//! do (sight) and why (cause), who submits when (ranking), what must hold before a share leaves (release), and the
//! state machines of custodian and sentinel. What does not: sockets, files, clocks, randomness, threads. `Now` and a
//! source of ids are arguments, so that a seed replays a run to the letter.

pub mod admission;
pub mod cause;
pub mod ceremony;
pub mod custodian;
pub mod drill;
pub mod envelope;
pub mod id;
pub mod message;
pub mod orders;
pub mod policy;
pub mod quorum;
pub mod ranking;
pub mod release;
pub mod seal_status;
pub mod share;
pub mod sight;
pub mod sshsig;
pub mod status;
mod text;
pub mod time;
pub mod topology;
pub mod trust;
pub mod verdict;
pub mod watch;
