//! What the end-to-end tests and the benchmarks share: a lab that ends with the test, eyes of their own for every server, and enemies.
//!
//! Written from the pages (docs/PROTOCOL.md, lab.json, the servers' own documentation), with none of the product's code:
//! a mistake that the product makes must not be made here in the same way. What a test claims stands in `tests/tests`.

pub mod agent;
pub mod alertmanager;
pub mod benchmark;
pub mod broker;
pub mod browser;
pub mod drills;
pub mod home;
pub mod hosts;
pub mod impostor;
pub mod lab;
pub mod machine;
pub mod memory;
pub mod messages;
pub mod observer;
pub mod packages;
pub mod processes;
pub mod programs;
pub mod prometheus;
pub mod relay;
pub mod server;
pub mod shares;
pub mod terminal;
pub mod tls;
pub mod vault;
pub mod wait;
pub mod webhook;
