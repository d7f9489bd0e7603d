//! The figures: what they are, what they are to be, and how they are drawn.

use holdfast_tests::benchmark::Figures;
use holdfast_tests::benchmark::machine::{self, Machine, Versions};
use holdfast_tests::benchmark::picture::{Picture, Row};
use holdfast_tests::benchmark::series::{self, Line, Series};
use serde::{Deserialize, Serialize};

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

impl Report {
    /// One with no figures yet.
    pub(crate) fn begin() -> Self {
        let (date, machine, versions) = (machine::today(), machine::this(), Versions::default());
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

    fn circumstances(&self) -> String {
        machine::circumstances(&self.date, &self.machine, &self.versions)
    }

    fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut line = |name, measured, most, unit, meaning| {
            lines.push(Line::at_most(name, measured, most, unit, meaning));
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

impl Figures for Report {
    fn table(&self) -> String {
        series::table(&self.circumstances(), &self.series(), &self.lines())
    }

    fn markdown(&self) -> String {
        series::markdown(&self.circumstances(), &self.series(), &self.lines())
    }

    fn draw(&self) -> String {
        let series = self.series();
        let n = series.iter().map(|(_, series)| series.n).min().unwrap_or_default();
        let (date, cores, cpu) = (&self.date, self.machine.cores, &self.machine.cpu);
        let rows = series.into_iter().map(|(name, series)| {
            let (title, is_ours) = in_words(name);
            Row { title, name, is_ours, series }
        });
        let picture = Picture {
            title: "How long a crashed node stays sealed",
            explained: "from its first answer, sealed, to its first answer, open; each dot a crash, the bar their median",
            foot: format!(
                "{date}, {n} crashes each, {cores} × {cpu}, OpenBao {} on raft with TLS",
                self.versions.openbao
            ),
            scale: (1.0, 20_000.0),
            rows: rows.collect(),
        };
        picture.draw()
    }
}

/// What a kind of crash is called in the picture, and whether Holdfast opens the node.
fn in_words(name: &str) -> (&str, bool) {
    match name {
        "floor" => ("One client with 3 shares", false),
        "restart" => ("Holdfast", true),
        "no_broker" => ("Holdfast without broker", true),
        "poller_5s" => ("A script, every 5 s", false),
        "poller_15s" => ("A script, every 15 s", false),
        other => (other, false),
    }
}
