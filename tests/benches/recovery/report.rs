//! The figures: what they are, how they are summed up, and how they are shown beside what they are to be.

use std::fmt::Write as _;

use jiff::Zoned;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::machine::{self, Machine, Versions};
use crate::rest::Rest;

/// What is to be reached (docs/BENCHMARKS.md): in floors, milliseconds, KiB, percent and bytes.
const RESTART_P50_FLOORS: f64 = 5.0;
const RESTART_P99_FLOORS: f64 = 20.0;
const NO_BROKER_P99_FLOORS: f64 = 10.0;
const POLL_INTERVAL_MS: f64 = 1000.0;
const RSS_KIB: f64 = 12.0 * 1024.0;
const CPU_PERCENT: f64 = 0.3;
const START_MS: f64 = 100.0;
const BINARY_BYTES: f64 = 10.0 * 1024.0 * 1024.0;

/// All figures of one run. What was not measured is not there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The day of the run.
    pub(crate) date: String,
    /// What it ran on.
    pub(crate) machine: Machine,
    /// What ran.
    #[serde(default)]
    pub(crate) versions: Versions,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) floor: Option<Series>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) floor_seen: Option<Series>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) restart: Option<Series>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) no_broker: Option<Series>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) poller_5s: Option<Series>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) poller_15s: Option<Series>,
    #[serde(flatten)]
    pub(crate) rest: Option<Rest>,
}

/// How long the node was sealed in each crash of one kind.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) n: usize,
    pub(crate) min_ms: f64,
    pub(crate) max_ms: f64,
    /// Each of them, in the order of the run.
    pub(crate) samples_ms: Vec<f64>,
}

/// One line of the tables: a figure, and what it is to be.
struct Line {
    name: &'static str,
    figure: String,
    target: String,
    verdict: &'static str,
}

impl Series {
    /// Sums up; nothing, where nothing was measured.
    pub(crate) fn of(samples: Vec<f64>) -> Option<Self> {
        let samples_ms: Vec<_> = samples.into_iter().map(|ms| (ms * 1000.0).round() / 1000.0).collect();
        if samples_ms.is_empty() {
            return None;
        }
        let at = |percent| percentile(&samples_ms, percent);
        Some(Self { p50_ms: at(50), p99_ms: at(99), n: samples_ms.len(), min_ms: at(0), max_ms: at(100), samples_ms })
    }
}

/// The smallest value that is not below this many percent of all (the nearest rank): of thirty, the 99th is the largest.
pub(crate) fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

impl Report {
    /// One with no figures yet.
    pub(crate) fn begin() -> Self {
        let date = Zoned::now().with_time_zone(TimeZone::UTC).date().to_string();
        let (machine, versions) = (machine::this(), Versions::default());
        let (floor, floor_seen, restart, no_broker) = (None, None, None, None);
        let (poller_5s, poller_15s, rest) = (None, None, None);
        Self { date, machine, versions, floor, floor_seen, restart, no_broker, poller_5s, poller_15s, rest }
    }

    /// The kinds of crashes that were measured, by name.
    pub(crate) fn series(&self) -> Vec<(&'static str, &Series)> {
        let all = [
            ("floor", &self.floor),
            ("floor_seen", &self.floor_seen),
            ("restart", &self.restart),
            ("no_broker", &self.no_broker),
            ("poller_5s", &self.poller_5s),
            ("poller_15s", &self.poller_15s),
        ];
        all.into_iter().filter_map(|(name, series)| Some((name, series.as_ref()?))).collect()
    }

    /// For a terminal.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{}\n\n", self.circumstances());
        let _ = writeln!(text, "{:<12} {:>10} {:>10} {:>10} {:>10} {:>5}", "ms", "min", "p50", "p99", "max", "n");
        for (name, series) in self.series() {
            let Series { p50_ms, p99_ms, min_ms, max_ms, n, .. } = series;
            let _ = writeln!(text, "{name:<12} {min_ms:>10.1} {p50_ms:>10.1} {p99_ms:>10.1} {max_ms:>10.1} {n:>5}");
        }
        let _ = writeln!(text);
        for Line { name, figure, target, verdict } in self.lines() {
            let _ = writeln!(text, "{name:<42} {figure:>12}   {target:<28} {verdict}");
        }
        text
    }

    /// For docs/BENCHMARKS.md.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("{}\n\n", self.circumstances());
        text.push_str("| milliseconds | min | p50 | p99 | max | n |\n|---|---:|---:|---:|---:|---:|\n");
        for (name, series) in self.series() {
            let Series { p50_ms, p99_ms, min_ms, max_ms, n, .. } = series;
            let _ = writeln!(text, "| `{name}` | {min_ms:.1} | {p50_ms:.1} | {p99_ms:.1} | {max_ms:.1} | {n} |");
        }
        text.push_str("\n| figure | measured | to be reached | |\n|---|---:|---|---|\n");
        for Line { name, figure, target, verdict } in self.lines() {
            let _ = writeln!(text, "| {name} | {figure} | {target} | {verdict} |");
        }
        text
    }

    fn circumstances(&self) -> String {
        let Machine { cpu, cores, memory_mib, kernel, load_before } = &self.machine;
        let Versions { holdfast, openbao, rabbitmq } = &self.versions;
        let date = &self.date;
        format!(
            "{date}, {cores} × {cpu}, {} GiB, Linux {kernel}, load {load_before} before the run; \
             Holdfast {holdfast}, OpenBao {openbao}, RabbitMQ {rabbitmq}",
            memory_mib / 1024
        )
    }

    fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut line = |name, measured: f64, most: f64, unit: &str, meaning: &str| {
            let places = if most < 10.0 { 2 } else { usize::from(measured < 100.0) };
            let figure = format!("{measured:.places$} {unit}");
            let target = format!("≤ {most:.places$} {unit}{meaning}", places = usize::from(most < 100.0));
            lines.push(Line { name, figure, target, verdict: if measured <= most { "reached" } else { "missed" } });
        };
        if let (Some(floor), Some(restart)) = (&self.floor, &self.restart) {
            let (p50, p99) = (RESTART_P50_FLOORS * floor.p50_ms, RESTART_P99_FLOORS * floor.p50_ms);
            line("`restart`, p50", restart.p50_ms, p50, "ms", " (5 × floor)");
            line("`restart`, p99", restart.p99_ms, p99, "ms", " (20 × floor)");
        }
        if let (Some(floor), Some(no_broker)) = (&self.floor, &self.no_broker) {
            let most = POLL_INTERVAL_MS + NO_BROKER_P99_FLOORS * floor.p50_ms;
            line("`no_broker`, p99", no_broker.p99_ms, most, "ms", " (1 s + 10 × floor)");
        }
        if let Some(rest) = &self.rest {
            line("custodian at rest, resident memory", rest.rss_kib as f64, RSS_KIB, "KiB", " (12 MiB)");
            line("custodian at rest, of one core", rest.cpu_percent, CPU_PERCENT, "%", "");
            line("start to first probe", rest.start_ms, START_MS, "ms", "");
            line("the program", rest.binary_bytes as f64, BINARY_BYTES, "bytes", " (10 MiB)");
        }
        lines
    }
}
