//! The benchmark of drills: one after the other, each beside an observer who knows nothing of Holdfast: whether the two measure the same,
//! how long a recovery takes, and whether each drill leaves a report that OpenSSH verifies and every share is proven in the end.
//!
//! What lives here: the command line and the order of the parts. docs/BENCHMARKS.md says what each figure means. Everything is
//! real: the lab as it comes up without options, and the programs of a release build. It tests nothing: figures are read by people.
mod drilled;
mod report;

use std::process::ExitCode;

use clap::Parser;
use holdfast_tests::benchmark::series::Series;
use holdfast_tests::benchmark::{Shown, floor, machine, run, timed};
use holdfast_tests::lab::Lab;

use crate::report::Report;

/// How many drills a smoke run has: enough to come by every line of the benchmark, and to prove every share.
const SMOKE_CYCLES: usize = 2;

/// Measures drills beside an observer, and sees that each leaves its report and every share is proven.
#[derive(Parser)]
#[command(name = "drills", bin_name = "cargo bench -p holdfast-tests --bench drills --", max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    shown: Shown,
    /// How many drills in a row
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    cycles: u16,
    /// Two drills: shows that everything works; the figures mean nothing
    #[arg(long, conflicts_with_all = ["cycles", "from"])]
    smoke: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    run("drills", &arguments.shown, || measure(&arguments))
}

fn measure(arguments: &Arguments) -> Report {
    let cycles = if arguments.smoke { SMOKE_CYCLES } else { usize::from(arguments.cycles) };
    let mut report = Report::begin();
    let lab = timed("the lab", || Lab::up(&[]));
    report.versions = machine::versions(&lab);
    report.drills = timed("drills", || drilled::one_after_the_other(&lab, cycles, &mut report.outcome));
    drop(lab);
    report.floor = timed("floor", || Series::of(floor::own(cycles)));
    report
}
