//! What a custodian costs that has nothing to do, and how soon after its start it looks at its node: seen from outside, in
//! `/proc` and at a port.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use holdfast_tests::benchmark::series::percentile;
use holdfast_tests::benchmark::stay_idle;
use holdfast_tests::home::Ceremony;
use holdfast_tests::lab::Lab;
use holdfast_tests::processes::{resident_kib, ticks};
use holdfast_tests::programs::program;
use serde::{Deserialize, Serialize};

/// How long it is watched.
pub(crate) const SAMPLE: Duration = Duration::from_secs(60);

/// How long in a smoke run.
pub(crate) const SAMPLE_SMOKE: Duration = Duration::from_secs(2);

/// How long a lab is left alone before it counts as being at rest: the first heartbeats and tickets are then behind it.
const SETTLES: Duration = Duration::from_secs(15);

/// A custodian at rest, watching three nodes, with a broker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Rest {
    /// The resident memory of the largest of the five custodians.
    pub(crate) rss_kib: u64,
    /// The processor time of the busiest of the five, in percent of one core.
    pub(crate) cpu_percent: f64,
    /// From its start to its first connection to a node: the median.
    pub(crate) start_ms: f64,
    /// The same, of the slowest of a hundred.
    pub(crate) start_p99_ms: f64,
    /// The size of the program.
    pub(crate) binary_bytes: u64,
}

/// Measures it. `starts` is how often a custodian is started.
pub(crate) fn measure(sample: Duration, starts: usize) -> Rest {
    let starts = starts_ms(starts);
    let (rss_kib, cpu_percent) = at_rest(sample);
    let binary_bytes = fs::metadata(program("holdfast-custodian")).expect("it is built").len();
    let start = |percent| percentile(&starts, percent);
    Rest { rss_kib, cpu_percent, start_ms: start(50), start_p99_ms: start(99), binary_bytes }
}

fn at_rest(sample: Duration) -> (u64, f64) {
    let lab = Lab::up(&["--nodes", "3"]);
    lab.settle();
    stay_idle(SETTLES);
    let pids: Vec<_> = lab.custodians().iter().map(|custodian| lab.pid(custodian)).collect();
    let (began, before) = (Instant::now(), pids.iter().map(|pid| ticks(*pid)).collect::<Vec<_>>());
    stay_idle(sample);
    let seconds = began.elapsed().as_secs_f64();
    let used = pids.iter().zip(&before).map(|(pid, before)| ticks(*pid) - before).max().expect("custodians");
    let cpu = used as f64 / rustix::param::clock_ticks_per_second() as f64 / seconds * 100.0;
    (pids.iter().map(|pid| resident_kib(*pid)).max().expect("custodians"), cpu)
}

/// From exec to the first connection at the address of the custodian's node, where there is only a port that takes it.
fn starts_ms(starts: usize) -> Vec<f64> {
    let ceremony = Ceremony::hold();
    let home = ceremony.home("custodian-1");
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let line = home.read("custodian.toml").lines().find(|line| line.contains("https://")).expect("a node").to_owned();
    let url = line.split('"').find(|part| part.starts_with("https://")).expect("its url");
    home.replace("custodian.toml", url, &format!("https://{}", port.local_addr().expect("bound")));
    let start = |_| {
        let began = Instant::now();
        let running = home.run();
        drop(port.accept().expect("a connection"));
        let took = began.elapsed().as_secs_f64() * 1000.0;
        drop(running);
        // It may have knocked again.
        port.set_nonblocking(true).expect("set");
        while port.accept().is_ok() {}
        port.set_nonblocking(false).expect("set");
        took
    };
    (0..starts).map(start).collect()
}
