//! Simulation: whole worlds of custodians and nodes under fake time, in which everything goes wrong that may.
//!
//! Everything of a run comes from its seed. `HOLDFAST_SIM_SEEDS=first..last` runs other seeds than the few that every test
//! run does, and a failure prints its seed and what happened last. `causes` has the directed tests: one for each line of
//! the table in docs/SECURITY.md, `pairs` combines these lines, `withdrawal` has those about shares that are called back, and
//! `orders` those about what operators order, `drills` those about drills, `intents` about who lies in them, and `drills_of_people` about those that
//! people have to approve, and about canaries; `chaos` has the random ones.

mod causes;
mod chaos;
mod conductors;
mod dice;
mod docket;
mod drills;
mod drills_of_people;
mod intents;
mod operators;
mod oracle;
mod orders;
mod pairs;
mod parties;
mod people;
mod post;
mod story;
mod vault;
mod wire;
mod withdrawal;
mod world;
