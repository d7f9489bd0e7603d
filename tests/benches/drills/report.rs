//! The figures: what they are, what they are to be, and how they are drawn.

use holdfast_tests::benchmark::Figures;
use holdfast_tests::benchmark::machine::{self, Machine, Versions};
use holdfast_tests::benchmark::picture::{Picture, Row};
use holdfast_tests::benchmark::series::{self, Line, Series};
use serde::{Deserialize, Serialize};

/// What is to be reached (docs/BENCHMARKS.md): half a poll interval and so many floors.
const POLL_INTERVAL_MS: f64 = 1000.0;
const RECOVERY_P50_FLOORS: f64 = 10.0;

/// All figures of one run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The day of the run.
    pub(crate) date: String,
    /// What it ran on.
    pub(crate) machine: Machine,
    /// What ran.
    pub(crate) versions: Versions,
    /// One client that holds the shares.
    pub(crate) floor: Option<Series>,
    /// Each drill, in the order of the run.
    pub(crate) drills: Vec<Drill>,
    /// What came of them all.
    pub(crate) outcome: Outcome,
}

/// One drill that was measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Drill {
    pub(crate) node: String,
    /// How long the node was sealed, as the drill's report says.
    pub(crate) told_ms: f64,
    /// The same, as the observer saw it.
    pub(crate) seen_ms: f64,
    /// How much later than the observer the drill saw it sealed, by the wall clock.
    pub(crate) sealed_later_ms: i64,
    /// How much later it saw it open.
    pub(crate) open_later_ms: i64,
    /// The longest time in between in which the node answered nobody: so far the two may be apart, and neither is wrong.
    pub(crate) silent_ms: f64,
    /// Whether the two are as near to each other as they are to be.
    pub(crate) agreed: bool,
}

/// What came of all drills.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// How many were ordered.
    pub(crate) ordered: usize,
    /// In how many the observer saw the node sealed and open again, once.
    pub(crate) recovered: usize,
    /// How many passed, as their reports say.
    pub(crate) passed: usize,
    /// Of how many the sentinel has a report that OpenSSH verifies.
    pub(crate) verified: usize,
    /// How many shares there are.
    pub(crate) shares: usize,
    /// How many of them were proven meanwhile.
    pub(crate) proven: usize,
}

impl Report {
    /// One with no figures yet.
    pub(crate) fn begin() -> Self {
        let (date, machine, versions) = (machine::today(), machine::this(), Versions::default());
        Self { date, machine, versions, floor: None, drills: Vec::new(), outcome: Outcome::default() }
    }

    fn circumstances(&self) -> String {
        machine::circumstances(&self.date, &self.machine, &self.versions)
    }

    /// The floor, what was seen and told, how far the two are apart, and how far they may be.
    fn series(&self) -> Vec<(&'static str, Series)> {
        let of = |figure: fn(&Drill) -> f64| Series::of(self.drills.iter().map(figure).collect());
        let all = [
            ("floor", self.floor.clone()),
            ("seen", of(|drill| drill.seen_ms)),
            ("told", of(|drill| drill.told_ms)),
            ("apart", of(|drill| (drill.told_ms - drill.seen_ms).abs())),
            ("silent", of(|drill| drill.silent_ms)),
        ];
        all.into_iter().filter_map(|(name, series)| Some((name, series?))).collect()
    }

    fn lines(&self, series: &[(&'static str, Series)]) -> Vec<Line> {
        let Outcome { ordered, recovered, passed, verified, shares, proven } = self.outcome;
        let agreed = self.drills.iter().filter(|drill| drill.agreed).count();
        let mut lines = vec![
            Line::all_of("recoveries, as the observer saw", recovered, ordered),
            Line::all_of("drills that passed", passed, ordered),
            Line::all_of("reports that OpenSSH verifies", verified, ordered),
            Line::all_of("told within 5 ms or 5 % of seen", agreed, ordered),
            Line::all_of("shares proven", proven, shares),
        ];
        let p50 = |wanted: &str| series.iter().find(|(name, _)| *name == wanted).map(|(_, series)| series.p50_ms);
        if let (Some(floor), Some(seen)) = (p50("floor"), p50("seen")) {
            let most = POLL_INTERVAL_MS / 2.0 + RECOVERY_P50_FLOORS * floor;
            lines.insert(0, Line::at_most("`seen`, p50", seen, most, "ms", " (0.5 s + 10 × floor)"));
        }
        lines
    }
}

impl Figures for Report {
    fn table(&self) -> String {
        let all = self.series();
        let series: Vec<_> = all.iter().map(|(name, series)| (*name, series)).collect();
        series::table(&self.circumstances(), &series, &self.lines(&all))
    }

    fn markdown(&self) -> String {
        let all = self.series();
        let series: Vec<_> = all.iter().map(|(name, series)| (*name, series)).collect();
        series::markdown(&self.circumstances(), &series, &self.lines(&all))
    }

    fn draw(&self) -> String {
        let series = self.series();
        let rows = series.iter().map(|(name, series)| {
            let (title, is_ours) = in_words(name);
            Row { title, name, is_ours, series }
        });
        let Machine { cores, cpu, .. } = &self.machine;
        let (date, n, openbao) = (&self.date, self.drills.len(), &self.versions.openbao);
        let picture = Picture {
            title: "How long a node stays sealed in a drill",
            explained: "from its first answer, sealed, to its first answer, open; each dot a drill, the bar their median",
            foot: format!("{date}, {n} drills, {cores} × {cpu}, OpenBao {openbao} on raft with TLS"),
            scale: (0.1, 20_000.0),
            rows: rows.collect(),
        };
        picture.draw()
    }
}

/// What a figure is called in the picture, and whether it is of a drill.
fn in_words(name: &str) -> (&str, bool) {
    match name {
        "floor" => ("One client with 3 shares", false),
        "seen" => ("As an observer sees it", true),
        "told" => ("As the drill tells it", true),
        "apart" => ("What they differ by", false),
        "silent" => ("The node answers nobody", false),
        other => (other, false),
    }
}
