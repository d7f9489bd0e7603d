//! Figures of one kind, how they are summed up, and how they are shown beside what they are to be.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// How long something took, again and again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Half of them are not above it.
    pub p50_ms: f64,
    /// 99 of a hundred are not above it.
    pub p99_ms: f64,
    /// How many there are.
    pub n: usize,
    /// The smallest.
    pub min_ms: f64,
    /// The largest.
    pub max_ms: f64,
    /// Each of them, in the order of the run.
    pub samples_ms: Vec<f64>,
}

/// A figure, and what it is to be.
#[derive(Debug)]
pub struct Line {
    /// What is measured.
    pub name: &'static str,
    /// What came of it.
    pub figure: String,
    /// What is to be reached.
    pub target: String,
    /// Whether it is.
    pub reached: bool,
}

impl Series {
    /// Sums up; nothing, where nothing was measured.
    pub fn of(samples: Vec<f64>) -> Option<Self> {
        let samples_ms: Vec<_> = samples.into_iter().map(|ms| (ms * 1000.0).round() / 1000.0).collect();
        if samples_ms.is_empty() {
            return None;
        }
        let at = |percent| percentile(&samples_ms, percent);
        Some(Self { p50_ms: at(50), p99_ms: at(99), n: samples_ms.len(), min_ms: at(0), max_ms: at(100), samples_ms })
    }
}

impl Line {
    /// One that is not to be above a limit.
    pub fn at_most(name: &'static str, measured: f64, most: f64, unit: &str, meaning: &str) -> Self {
        let places = if most < 10.0 { 2 } else { usize::from(measured < 100.0) };
        let figure = format!("{measured:.places$} {unit}");
        let target = format!("≤ {most:.places$} {unit}{meaning}", places = usize::from(most < 100.0));
        Self { name, figure, target, reached: measured <= most }
    }

    /// One that is to be all of them.
    pub fn all_of(name: &'static str, measured: usize, of: usize) -> Self {
        Self { name, figure: measured.to_string(), target: format!("all {of}"), reached: measured == of }
    }

    const fn verdict(&self) -> &'static str {
        if self.reached { "reached" } else { "missed" }
    }
}

/// The smallest value that is not below this many percent of all (the nearest rank): of thirty, the 99th is the largest.
pub fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// All figures, for a terminal.
pub fn table(circumstances: &str, series: &[(&'static str, &Series)], lines: &[Line]) -> String {
    let mut text = format!("{circumstances}\n\n");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{:<12} {:>10} {:>10} {:>10} {:>10} {:>5}", "ms", "min", "p50", "p99", "max", "n");
    for (name, Series { p50_ms, p99_ms, min_ms, max_ms, n, .. }) in series {
        let _ = writeln!(text, "{name:<12} {min_ms:>10.1} {p50_ms:>10.1} {p99_ms:>10.1} {max_ms:>10.1} {n:>5}");
    }
    let _ = writeln!(text);
    for line @ Line { name, figure, target, .. } in lines {
        let _ = writeln!(text, "{name:<42} {figure:>12}   {target:<32} {}", line.verdict());
    }
    text
}

/// All figures, for docs/BENCHMARKS.md.
pub fn markdown(circumstances: &str, series: &[(&'static str, &Series)], lines: &[Line]) -> String {
    let mut text = format!("{circumstances}\n\n");
    text.push_str("| milliseconds | min | p50 | p99 | max | n |\n|---|---:|---:|---:|---:|---:|\n");
    for (name, Series { p50_ms, p99_ms, min_ms, max_ms, n, .. }) in series {
        let _ = writeln!(text, "| `{name}` | {min_ms:.1} | {p50_ms:.1} | {p99_ms:.1} | {max_ms:.1} | {n} |");
    }
    text.push_str("\n| figure | measured | to be reached | |\n|---|---:|---|---|\n");
    for line @ Line { name, figure, target, .. } in lines {
        let _ = writeln!(text, "| {name} | {figure} | {target} | {} |", line.verdict());
    }
    text
}
