//! Simulation: whole worlds of custodians and nodes under fake time, in which everything goes wrong that may.
//!
//! Everything of a run comes from its seed. `HOLDFAST_SIM_SEEDS=first..last` runs other seeds than the few that every test
//! run does, and a failure prints its seed and what happened last. `causes` has the directed tests: one for each line of
//! the table in docs/SECURITY.md, `pairs` combines these lines, `withdrawal` has those about shares that are called back, and
//! `orders` those about what operators order, `captured` those about thieves among who orders and who passes orders on; `chaos`
//! has the random ones.

mod captured;
mod causes;
mod chaos;
mod dice;
mod docket;
mod operators;
mod oracle;
mod orders;
mod pairs;
mod people;
mod post;
mod story;
mod vault;
mod wire;
mod withdrawal;
mod world;
