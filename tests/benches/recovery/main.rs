//! The benchmark of recovery: how long a crashed node stays sealed, with Holdfast, without its broker, with a polling script,
//! and at the very least; and what a custodian costs that has nothing to do.
//!
//! What lives here: the command line and the order of the parts. docs/BENCHMARKS.md says what each figure means. Everything is
//! real: OpenBao on raft with TLS, RabbitMQ, and the programs of a release build. It tests nothing: figures are read by people.
#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]
#![expect(clippy::print_stderr, reason = "progress, beside the figures")]

mod cycles;
mod machine;
mod plot;
mod poller;
mod report;
mod rest;
mod server;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use holdfast_tests::lab::Lab;
use holdfast_tests::programs::repository;

use crate::report::{Report, Series};

/// What has the programs in it.
const PACKAGES: [&str; 4] = ["holdfast-cli", "holdfast-custodian", "holdfast-sentinel", "holdfast-setup"];

/// How many cycles a smoke run has: enough to come by every line of the benchmark.
const SMOKE_CYCLES: usize = 2;

/// Measures how long a crashed node stays sealed, and what a custodian at rest costs.
#[derive(Parser)]
#[command(name = "recovery", bin_name = "cargo bench -p holdfast-tests --bench recovery --", max_term_width = 100)]
struct Arguments {
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Print the figures as the table of docs/BENCHMARKS.md
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Draw the figures into this file, as SVG; relative paths start at the repository
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Take the figures from this file of an earlier run's JSON, and measure nothing
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// How many crashes of each kind
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    cycles: u16,
    /// Measure these alone
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART", conflicts_with = "from")]
    only: Vec<Part>,
    /// Two crashes of each kind and short samples: shows that everything works; the figures mean nothing
    #[arg(long, conflicts_with_all = ["cycles", "from"])]
    smoke: bool,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
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
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("recovery: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let report = match &arguments.from {
        // Cargo starts a benchmark in its package's folder, and people think of the repository's.
        Some(file) => read(&repository().join(file))?,
        None => {
            build()?;
            measure(arguments)
        }
    };
    if let Some(file) = &arguments.plot {
        fs::write(repository().join(file), plot::draw(&report))
            .map_err(|e| format!("{} cannot be written: {e}; does its folder exist?", file.display()))?;
        eprintln!("drawn: {}", file.display());
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else if arguments.markdown {
        print!("{}", report.markdown());
    } else {
        print!("{}", report.table());
    }
    Ok(())
}

fn read(file: &Path) -> Result<Report, String> {
    let bytes = fs::read(file).map_err(|e| format!("{} cannot be read: {e}", file.display()))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| format!("{} is not what --json prints: {e}; measure again with --json > FILE", file.display()))
}

/// Builds the programs that are measured, as they are delivered. In another profile, which is for whoever changes this, they
/// are what `cargo build` left there.
fn build() -> Result<(), String> {
    let itself = std::env::current_exe().map_err(|e| format!("it does not know where it is itself: {e}"))?;
    // target/release/deps/recovery-…
    let profile = itself.ancestors().nth(2).unwrap_or(Path::new(""));
    let (Some(target), true) = (profile.parent(), profile.ends_with("release")) else {
        eprintln!("not a release build: the figures mean nothing");
        return Ok(());
    };
    eprintln!("building the programs …");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--locked", "--quiet", "--target-dir"]).arg(target);
    cargo.args(PACKAGES.iter().flat_map(|package| ["-p", package]));
    cargo.current_dir(repository()).stdout(Stdio::null());
    let built = cargo.status().map_err(|e| format!("cargo cannot be run: {e}"))?;
    if built.success() { Ok(()) } else { Err("the programs were not built: cargo says above why".to_owned()) }
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
        report.floor = series("floor", || cycles::floor(cycles));
        report.floor_seen = series("floor_seen", || cycles::floor_seen(cycles));
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

fn timed<T>(what: &str, part: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    eprintln!("{what} …");
    let done = part();
    eprintln!("{what}: done in {:.0} s", began.elapsed().as_secs_f64());
    done
}
