//! The floor: one client that holds the shares, and does nothing but wait for a crashed node to answer. No way to open it is faster.

#![expect(clippy::print_stderr, reason = "progress, beside the figures")]

use std::thread;
use std::time::{Duration, Instant};

use super::server::Server;
use super::{milliseconds, part_of, stay_idle};
use crate::vault::Eyes;
use crate::wait::{PATIENCE, pause};

/// The time between two looks of the eyes: far below what is measured, and few enough not to be what is measured.
pub const LOOK: Duration = Duration::from_millis(1);

/// A crash comes at a moment of this that nobody chose.
const PHASE: Duration = Duration::from_secs(1);

/// The client, timed by itself.
pub fn own(cycles: usize) -> Vec<f64> {
    again(cycles, |server| {
        let client = server.eyes();
        let sealed = sealed_seen(&client, &server.url, LOOK);
        open(&client, server);
        sealed.elapsed()
    })
}

/// The same client, timed as everybody else is: by eyes beside it, which learn only by asking that the node is open.
pub fn seen(cycles: usize) -> Vec<f64> {
    again(cycles, |server| {
        let (client, eyes) = (server.eyes(), server.eyes());
        sealed_seen(&client, &server.url, LOOK);
        let sealed = sealed_seen(&eyes, &server.url, LOOK);
        thread::scope(|scope| {
            scope.spawn(|| open(&client, server));
            open_seen(&eyes, &server.url, LOOK, sealed)
        })
    })
}

/// From the first answer that the node is sealed to the first that it is open.
pub fn watch(eyes: &Eyes, url: &str, look: Duration) -> Duration {
    open_seen(eyes, url, look, sealed_seen(eyes, url, look))
}

fn again(cycles: usize, opened: impl Fn(&Server) -> Duration) -> Vec<f64> {
    let mut server = Server::start();
    let cycle = |cycle| {
        stay_idle(part_of(PHASE));
        server.crash();
        let took = milliseconds(opened(&server));
        eprintln!("  {cycle} of {cycles}: {took:.1} ms");
        took
    };
    (1..=cycles).map(cycle).collect()
}

/// Opens it with all shares, one after the other on the client's connection.
fn open(client: &Eyes, server: &Server) {
    let answers: Vec<_> = server.shares.iter().map(|share| client.submit(&server.url, share)).collect();
    let last = answers.last().and_then(Option::as_ref);
    assert!(last.is_some_and(|status| !status.sealed), "three good shares did not open it: {answers:?}");
}

fn open_seen(eyes: &Eyes, url: &str, look: Duration, sealed: Instant) -> Duration {
    while !eyes.is_open(url) {
        assert!(sealed.elapsed() < PATIENCE, "{url} stays sealed: {:?}", eyes.look(url));
        pause(look);
    }
    sealed.elapsed()
}

/// When the node's first answer was there, which says that it is sealed.
fn sealed_seen(eyes: &Eyes, url: &str, look: Duration) -> Instant {
    let began = Instant::now();
    loop {
        if let Some(status) = eyes.look(url) {
            assert!(status.sealed, "{url} was open before anybody could see it sealed");
            return Instant::now();
        }
        assert!(began.elapsed() < PATIENCE, "{url} does not answer");
        pause(look);
    }
}
