//! Directed tests.

use std::time::Duration;

use crate::world::{Setup, World};

#[test]
fn opens() {
    crate::story::begin();
    let mut world = World::open(Setup::new(1));
    world.restart_node(0, Duration::from_millis(300));
    assert!(world.until(5_000, World::all_open), "{}", crate::story::tell());
}
