//! What the existing tools do, as a reference: one script that holds enough shares in clear, asks the node every few seconds
//! whether it is sealed, and then submits them all (docs/FACTS.md, "What the existing tools do").
//!
//! Most of a cycle is waiting, so several servers are crashed at once, each with a poller of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use holdfast_tests::benchmark::floor::watch;
use holdfast_tests::benchmark::server::Server;
use holdfast_tests::benchmark::{milliseconds, part_of, stay_idle};
use holdfast_tests::vault::Eyes;
use holdfast_tests::wait::pause;

/// bank-vaults' interval, and how many servers share its cycles.
const FIVE: (Duration, usize) = (Duration::from_secs(5), 2);

/// vault-unseal's in its example, and how many servers share its cycles.
const FIFTEEN: (Duration, usize) = (Duration::from_secs(15), 4);

/// The time between two looks of the eyes: what is measured takes seconds, and the machine has other servers to run.
const LOOK: Duration = Duration::from_millis(20);

/// How often a poller looks whether it is to end.
const LISTEN: Duration = Duration::from_millis(100);

/// Both pollers' cycles, in milliseconds: every 5 seconds, every 15 seconds.
pub(crate) fn both(cycles: usize) -> (Vec<f64>, Vec<f64>) {
    thread::scope(|scope| {
        let five = scope.spawn(move || shared(FIVE, cycles));
        let fifteen = scope.spawn(move || shared(FIFTEEN, cycles));
        (five.join().expect("measured"), fifteen.join().expect("measured"))
    })
}

/// The cycles of one interval, shared among servers.
fn shared((interval, servers): (Duration, usize), cycles: usize) -> Vec<f64> {
    thread::scope(|scope| {
        let part = |server: usize| cycles / servers + usize::from(server < cycles % servers);
        let running: Vec<_> = (0..servers).map(|server| scope.spawn(move || crashes(interval, part(server)))).collect();
        running.into_iter().flat_map(|server| server.join().expect("measured")).collect()
    })
}

/// Crashes a server at random moments of its poller's interval.
fn crashes(interval: Duration, cycles: usize) -> Vec<f64> {
    if cycles == 0 {
        return Vec::new();
    }
    let mut server = Server::start();
    let poller = Poller::begin(&server, interval);
    let eyes = server.eyes();
    let took = (0..cycles).map(|_| {
        stay_idle(part_of(interval));
        server.crash();
        let took = milliseconds(watch(&eyes, &server.url, LOOK));
        eprintln!("  every {interval:?}: {took:.0} ms");
        took
    });
    let took = took.collect();
    poller.end();
    took
}

/// The script.
struct Poller {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Poller {
    fn begin(server: &Server, interval: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (until, url, shares, ca_file) = (stop.clone(), server.url.clone(), server.shares.clone(), server.ca_file());
        let thread = thread::spawn(move || {
            let mut due = Instant::now();
            while !until.load(Ordering::Relaxed) {
                match due.checked_duration_since(Instant::now()) {
                    Some(left) => pause(left.min(LISTEN)),
                    None => {
                        due += interval;
                        // New each time: a connection that died with the server must not cost it a look.
                        open_if_sealed(&Eyes::new(&ca_file), &url, &shares);
                    }
                }
            }
        });
        Self { stop, thread }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it polled");
    }
}

/// What it does each time: whatever the reason that the node is sealed for.
fn open_if_sealed(eyes: &Eyes, url: &str, shares: &[String]) {
    if eyes.is_sealed(url) {
        for share in shares {
            eyes.submit(url, share);
        }
    }
}
