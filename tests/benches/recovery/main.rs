//! The benchmark of recovery: how long a crashed node stays sealed, with Holdfast, without its broker, with a polling script,
//! and at the very least; and what a custodian costs that has nothing to do.
//!
//! What lives here: the command line and the order of the parts. docs/BENCHMARKS.md says what each figure means. Everything is
//! real: OpenBao on raft with TLS, RabbitMQ, and the programs of a release build. It tests nothing: figures are read by people.
#![expect(clippy::print_stderr, reason = "progress, beside the figures")]

mod cycles;
mod poller;
mod report;
mod rest;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use holdfast_tests::benchmark::series::Series;
use holdfast_tests::benchmark::{Shown, floor, machine, run, timed};
use holdfast_tests::lab::Lab;

use crate::report::Report;

/// How many cycles a smoke run has: enough to come by every line of the benchmark.
const SMOKE_CYCLES: usize = 2;

/// Measures how long a crashed node stays sealed, and what a custodian at rest costs.
#[derive(Parser)]
#[command(name = "recovery", bin_name = "cargo bench -p holdfast-tests --bench recovery --", max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    shown: Shown,
    /// How many crashes of each kind
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    cycles: u16,
    /// Measure these alone
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART", conflicts_with = "from")]
    only: Vec<Part>,
    /// Two crashes of each kind and short samples: shows that everything works; the figures mean nothing
    #[arg(long, conflicts_with_all = ["cycles", "from"])]
    smoke: bool,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Part {
    /// One client with three shares
    Floor,
    /// Five custodians, RabbitMQ, sentinel
    Restart,
    /// Five custodians that poll
    NoBroker,
    /// A script that looks every 5 and every 15 seconds
    Pollers,
    /// A custodian that has nothing to do
    Rest,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    run("recovery", &arguments.shown, || measure(&arguments))
}

fn measure(arguments: &Arguments) -> Report {
    let cycles = if arguments.smoke { SMOKE_CYCLES } else { usize::from(arguments.cycles) };
    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    let mut report = Report::begin();
    if wanted(Part::Restart) {
        let mut lab = timed("a lab with a broker", || Lab::up(&["--nodes", "1"]));
        report.versions = machine::versions(&lab);
        report.restart = series("restart", || cycles::crashes(&mut lab, cycles));
    }
    if wanted(Part::NoBroker) {
        let mut lab = timed("a lab without a broker", || Lab::up(&["--nodes", "1", "--no-broker"]));
        report.no_broker = series("no_broker", || cycles::crashes(&mut lab, cycles));
    }
    if wanted(Part::Floor) {
        report.floor = series("floor", || floor::own(cycles));
        report.floor_seen = series("floor_seen", || floor::seen(cycles));
    }
    if wanted(Part::Pollers) {
        let (five, fifteen) = timed("poller_5s and poller_15s", || poller::both(cycles));
        (report.poller_5s, report.poller_15s) = (Series::of(five), Series::of(fifteen));
    }
    if wanted(Part::Rest) {
        let sample = if arguments.smoke { rest::SAMPLE_SMOKE } else { rest::SAMPLE };
        report.rest = timed("a custodian at rest", || Some(rest::measure(sample, cycles)));
    }
    report
}

fn series(name: &str, measured: impl FnOnce() -> Vec<f64>) -> Option<Series> {
    Series::of(timed(name, measured))
}
