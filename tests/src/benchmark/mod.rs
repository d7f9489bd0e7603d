//! What the benchmarks share: their command line and what becomes of their figures, the machine, and the floor that all are held
//! against. What is measured, and what it is to be, is each benchmark's own. Only figures of a release build mean anything.
#![expect(clippy::print_stdout, reason = "the figures are what a benchmark is run for")]
#![expect(clippy::print_stderr, reason = "progress, beside the figures")]

pub mod floor;
pub mod machine;
pub mod picture;
pub mod series;
pub mod server;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::programs::repository;
use crate::wait::pause;

/// What has the programs in it.
const PACKAGES: [&str; 4] = ["holdfast-cli", "holdfast-custodian", "holdfast-sentinel", "holdfast-setup"];

/// How the figures are shown.
#[derive(Debug, clap::Args)]
pub struct Shown {
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Print the figures as the tables of docs/BENCHMARKS.md
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Draw the figures into this file, as SVG; relative paths start at the repository
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Take the figures from this file of an earlier run's JSON, and measure nothing
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The figures of one run.
pub trait Figures: Serialize + DeserializeOwned {
    /// For a terminal.
    fn table(&self) -> String;
    /// For docs/BENCHMARKS.md.
    fn markdown(&self) -> String;
    /// As a picture, in SVG.
    fn draw(&self) -> String;
}

/// Measures with the programs of a release build, or reads what was measured, and shows it.
pub fn run<F: Figures>(name: &str, shown: &Shown, measure: impl FnOnce() -> F) -> ExitCode {
    match show(shown, measure) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does a part of a benchmark, and says so.
pub fn timed<T>(what: &str, part: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    eprintln!("{what} …");
    let done = part();
    eprintln!("{what}: done in {:.0} s", began.elapsed().as_secs_f64());
    done
}

/// Lets time pass in which nothing is done: what is measured comes when nobody waits for it.
pub fn stay_idle(time: Duration) {
    let began = Instant::now();
    while let Some(left) = time.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
        pause(left);
    }
}

/// A random part of a period.
pub fn part_of(period: Duration) -> Duration {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).expect("random numbers");
    period.mul_f64(f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX))
}

/// A time as figures have it.
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn show<F: Figures>(shown: &Shown, measure: impl FnOnce() -> F) -> Result<(), Box<dyn Error>> {
    let figures = match &shown.from {
        // Cargo starts a benchmark in its package's folder, and people think of the repository's.
        Some(file) => read(&repository().join(file))?,
        None => {
            build()?;
            measure()
        }
    };
    if let Some(file) = &shown.plot {
        fs::write(repository().join(file), figures.draw())
            .map_err(|e| format!("{} cannot be written: {e}; does its folder exist?", file.display()))?;
        eprintln!("drawn: {}", file.display());
    }
    if shown.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else if shown.markdown {
        print!("{}", figures.markdown());
    } else {
        print!("{}", figures.table());
    }
    Ok(())
}

fn read<F: Figures>(file: &Path) -> Result<F, String> {
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
