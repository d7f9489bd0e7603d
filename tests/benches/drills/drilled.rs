//! Drills as an operator orders them, one after the other, each seen by an observer and asked for its report.

#![expect(clippy::print_stderr, reason = "progress, beside the figures")]

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_tests::benchmark::{milliseconds, part_of, stay_idle};
use holdfast_tests::lab::Lab;
use holdfast_tests::observer::{Observer, Seal};
use holdfast_tests::wait::{PATIENCE, pause, until_some};
use jiff::Timestamp;
use serde_json::Value;

use crate::report::{Drill, Outcome};

/// The custodians' poll interval: a seal comes at a moment of it that nobody chose.
const PHASE: Duration = Duration::from_secs(1);

/// How often the sentinel is asked what was proven.
const AGAIN: Duration = Duration::from_millis(200);

const PROVEN: &str = "holdfast_custodian_share_proven_timestamp_seconds{";

/// Orders so many drills of stand-bys.
pub(crate) fn one_after_the_other(lab: &Lab, cycles: usize, outcome: &mut Outcome) -> Vec<Drill> {
    let (mut drills, mut reported) = (Vec::new(), Vec::new());
    let began = Timestamp::now();
    (outcome.ordered, outcome.shares) = (cycles, lab.custodians().len());
    for cycle in 1..=cycles {
        lab.settle();
        stay_idle(part_of(PHASE));
        let node = stand_by(lab, cycle);
        let observer = Observer::begin(lab.url(&node), &lab.path(&lab.file.ca_cert));
        let said = lab.holdfast(&["drill", "run", "--node", &node, "--json"]);
        let seals = observer.end();
        let done: Value = serde_json::from_str(&said.out).unwrap_or_default();
        let told = &done["report"];
        let [seal] = seals[..] else {
            eprintln!(
                "  {cycle} of {cycles}: {node} was seen sealed and open {} times: {told}{}",
                seals.len(),
                said.err
            );
            continue;
        };
        outcome.recovered += 1;
        outcome.passed += usize::from(done["result"] == "passed");
        reported.extend(told["drill"].as_str().map(str::to_owned));
        let Some(drill) = compared(told, &seal) else {
            eprintln!("  {cycle} of {cycles}: {node}: nothing was measured: {told}");
            continue;
        };
        let Drill { told_ms, seen_ms, .. } = drill;
        eprintln!("  {cycle} of {cycles}: {node} {seen_ms:.1} ms, {told_ms:.1} ms by the drill itself");
        drills.push(drill);
    }
    lab.settle();
    outcome.verified =
        reported.iter().collect::<BTreeSet<_>>().into_iter().filter(|drill| verified(lab, drill)).count();
    outcome.proven = proven_since(lab, began);
    drills
}

/// A node that is not the active one, each in its turn.
fn stand_by(lab: &Lab, turn: usize) -> String {
    let stands_by = |node: &String| {
        let health = lab.eyes.read(&format!("{}/v1/sys/health", lab.url(node))).unwrap_or_default();
        serde_json::from_str::<Value>(&health).is_ok_and(|health| health["standby"] == true)
    };
    until_some("a node stands by", || {
        let standing: Vec<_> = lab.nodes().into_iter().filter(stands_by).collect();
        (!standing.is_empty()).then(|| standing[turn % standing.len()].clone())
    })
}

/// What the drill tells, beside what was seen.
fn compared(told: &Value, seal: &Seal) -> Option<Drill> {
    let own = Duration::from_micros(told["recovery_us"].as_u64()?);
    Some(Drill {
        node: told["node"].as_str()?.to_owned(),
        told_ms: milliseconds(own),
        seen_ms: milliseconds(seal.recovery()),
        sealed_later_ms: later(told["sealed_at"].as_str()?, seal.sealed)?,
        open_later_ms: later(told["opened_at"].as_str()?, seal.open)?,
        silent_ms: milliseconds(seal.silent),
        agreed: seal.agrees_with(own),
    })
}

/// How much later than the observer the drill saw it.
fn later(told: &str, seen: Instant) -> Option<i64> {
    let seen = Timestamp::now() - seen.elapsed();
    Some(told.parse::<Timestamp>().ok()?.as_millisecond() - seen.as_millisecond())
}

/// Whether the sentinel keeps this drill's report, and OpenSSH says that the conductor signed it.
fn verified(lab: &Lab, drill: &str) -> bool {
    let saved = lab.dir().join(format!("{drill}.json"));
    let said = lab.holdfast(&["drill", "report", drill, "--json", "--save", &saved.to_string_lossy()]);
    let report: Value = serde_json::from_str(&said.out).unwrap_or_default();
    let (Some(conductor), Ok(body)) = (report["conductor"].as_str(), fs::File::open(&saved)) else { return false };
    let mut command = Command::new("ssh-keygen");
    command.args(["-Y", "verify", "-n", "holdfast.intent", "-I", conductor, "-f"]);
    command.arg(lab.path(&lab.file.allowed_signers)).arg("-s").arg(saved.with_extension("json.sig"));
    command.stdin(body).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// How many custodians' shares were proven since then, as the sentinel's metrics tell. It waits for receipts that say otherwise.
fn proven_since(lab: &Lab, began: Timestamp) -> usize {
    let count = || {
        let metrics = lab.read_sentinel("/metrics").unwrap_or_default();
        let times = metrics.lines().filter(|line| line.starts_with(PROVEN)).filter_map(|line| line.rsplit_once(' '));
        times.filter(|(_, at)| at.parse::<f64>().is_ok_and(|at| at >= began.as_second() as f64)).count()
    };
    let (waiting, all) = (Instant::now(), lab.custodians().len());
    while count() < all && waiting.elapsed() < PATIENCE {
        pause(AGAIN);
    }
    count()
}
