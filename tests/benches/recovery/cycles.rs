//! One crash after the other, each seen by the same eyes: `kill -9`, a start, the first answer that it is sealed, the first that
//! it is open.

use std::time::Duration;

use holdfast_tests::benchmark::floor::{LOOK, watch};
use holdfast_tests::benchmark::{milliseconds, part_of, stay_idle};
use holdfast_tests::lab::Lab;
use holdfast_tests::wait::until;

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

/// Whether the last that each custodian recorded is that the node opened.
fn all_saw_it_open(lab: &Lab) -> bool {
    lab.file.custodians.iter().all(|custodian| {
        let log = std::fs::read_to_string(lab.path(&custodian.state_dir).join("audit.jsonl")).unwrap_or_default();
        // Its own submission may be told of after the opening that it caused.
        let last = log.lines().rfind(|line| !line.contains(r#""what":"submitted""#));
        last.is_some_and(|line| line.contains(r#""what":"opened""#))
    })
}
