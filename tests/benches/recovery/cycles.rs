//! One crash after the other, each seen by the same eyes: `kill -9`, a start, the first answer that it is sealed, the first that
//! it is open.

use std::thread;
use std::time::{Duration, Instant};

use holdfast_tests::lab::Lab;
use holdfast_tests::vault::Eyes;
use holdfast_tests::wait::{PATIENCE, pause, until};

use crate::server::Server;

/// The time between two looks of the eyes: far below what is measured, and few enough not to be what is measured.
pub(crate) const LOOK: Duration = Duration::from_millis(1);

/// How long custodians are left alone after they have seen the node open: at least this, and up to [`PHASE`] more.
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// The custodians' poll interval: a crash comes at a moment of it that nobody chose.
const PHASE: Duration = Duration::from_secs(1);

/// Crashes the lab's node again and again.
pub(crate) fn crashes(lab: &mut Lab, cycles: usize) -> Vec<f64> {
    let node = lab.nodes().remove(0);
    (1..=cycles)
        .map(|cycle| {
            lab.settle();
            until("every custodian has seen the node open", || all_saw_it_open(lab));
            stay_idle(LEFT_ALONE + part_of(PHASE));
            lab.restart(&node);
            let took = milliseconds(watch(&lab.eyes, lab.url(&node), LOOK));
            eprintln!("  {cycle} of {cycles}: {took:.1} ms");
            took
        })
        .collect()
}

/// One client that holds the shares, and does nothing but wait for the node to answer: no way to open it is faster.
pub(crate) fn floor(cycles: usize) -> Vec<f64> {
    let mut server = Server::start();
    (1..=cycles)
        .map(|cycle| {
            stay_idle(part_of(PHASE));
            server.crash();
            let client = server.eyes();
            let sealed = sealed_seen(&client, &server.url, LOOK);
            open(&client, &server);
            let took = milliseconds(sealed.elapsed());
            eprintln!("  {cycle} of {cycles}: {took:.1} ms");
            took
        })
        .collect()
}

/// The same client, timed as everybody else is: by eyes beside it, which learn only by asking that the node is open.
pub(crate) fn floor_seen(cycles: usize) -> Vec<f64> {
    let mut server = Server::start();
    (1..=cycles)
        .map(|cycle| {
            stay_idle(part_of(PHASE));
            server.crash();
            let (client, eyes) = (server.eyes(), server.eyes());
            sealed_seen(&client, &server.url, LOOK);
            let sealed = sealed_seen(&eyes, &server.url, LOOK);
            let took = thread::scope(|scope| {
                scope.spawn(|| open(&client, &server));
                milliseconds(open_seen(&eyes, &server.url, LOOK, sealed))
            });
            eprintln!("  {cycle} of {cycles}: {took:.1} ms");
            took
        })
        .collect()
}

/// Opens it with all shares, one after the other on the client's connection.
fn open(client: &Eyes, server: &Server) {
    let answers: Vec<_> = server.shares.iter().map(|share| client.submit(&server.url, share)).collect();
    let last = answers.last().and_then(Option::as_ref);
    assert!(last.is_some_and(|status| !status.sealed), "three good shares did not open it: {answers:?}");
}

/// From the first answer that the node is sealed to the first that it is open.
pub(crate) fn watch(eyes: &Eyes, url: &str, look: Duration) -> Duration {
    open_seen(eyes, url, look, sealed_seen(eyes, url, look))
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

/// Whether the last that each custodian recorded is that the node opened.
fn all_saw_it_open(lab: &Lab) -> bool {
    lab.file.custodians.iter().all(|custodian| {
        let log = std::fs::read_to_string(lab.path(&custodian.state_dir).join("audit.jsonl")).unwrap_or_default();
        // Its own submission may be told of after the opening that it caused.
        let last = log.lines().rfind(|line| !line.contains(r#""what":"submitted""#));
        last.is_some_and(|line| line.contains(r#""what":"opened""#))
    })
}

/// Lets time pass in which nothing is done: crashes come when nobody waits for them.
pub(crate) fn stay_idle(time: Duration) {
    let began = Instant::now();
    while let Some(left) = time.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
        pause(left);
    }
}

/// A random part of a period.
pub(crate) fn part_of(period: Duration) -> Duration {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).expect("random numbers");
    period.mul_f64(f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX))
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
