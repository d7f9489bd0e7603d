//! Simulation: whole worlds of custodians and nodes under fake time, in which everything goes wrong that may.
//!
//! Everything of a run comes from its seed. `HOLDFAST_SIM_SEEDS=first..last` runs other seeds than the few that every test
//! run does, and a failure prints its seed and what happened last. `causes` has the directed tests: one for each line of
//! the table in docs/SECURITY.md, and `withdrawal` those about shares that are called back; `chaos` the random ones.

mod causes;
mod chaos;
mod dice;
mod oracle;
mod people;
mod post;
mod story;
mod vault;
mod wire;
mod withdrawal;
mod world;
