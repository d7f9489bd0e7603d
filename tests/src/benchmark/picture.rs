//! Figures as a picture: one row for each kind, one dot for each sample, on a logarithmic scale. Written as SVG by hand, because
//! nothing here is more than a line, a dot or a word; it follows the reader's choice of light or dark.

use std::fmt::Write as _;

use super::series::Series;

const WIDTH: f64 = 880.0;
const ROW: f64 = 74.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 58.0;
/// Where the scale begins and ends, left and right.
const LEFT: f64 = 210.0;
const RIGHT: f64 = 850.0;
/// How far a dot may be off its row's middle, so that equal ones can be told apart.
const SPREAD: f64 = 13.0;

/// The lines that a scale may have, and what is written under them.
const SCALE: [(f64, &str); 6] =
    [(0.1, "0.1 ms"), (1.0, "1 ms"), (10.0, "10 ms"), (100.0, "100 ms"), (1000.0, "1 s"), (10_000.0, "10 s")];

const STYLE: &str = "\
text{font:14px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2328}\
.back{fill:#fff}.title{font-size:17px;font-weight:600}.small{font-size:12px;fill:#59636e}\
.grid{stroke:#d1d9e0}.dot{fill:#0969da;fill-opacity:.4}.other{fill:#6e7781;fill-opacity:.45}\
.middle{stroke:#1f2328;stroke-width:2.5}\
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.back{fill:#0d1117}.small{fill:#9198a1}.grid{stroke:#3d444d}\
.dot{fill:#4493f8;fill-opacity:.55}.other{fill:#9198a1;fill-opacity:.55}.middle{stroke:#f0f6fc}}";

/// What is drawn.
#[derive(Debug)]
pub struct Picture<'a> {
    /// What it shows.
    pub title: &'static str,
    /// What one dot is.
    pub explained: &'static str,
    /// Where and when.
    pub foot: String,
    /// The scale's ends, in milliseconds.
    pub scale: (f64, f64),
    /// Its rows.
    pub rows: Vec<Row<'a>>,
}

/// One kind of figure.
#[derive(Debug)]
pub struct Row<'a> {
    /// For people.
    pub title: &'a str,
    /// As the tables call it.
    pub name: &'a str,
    /// Whether it is what the picture is about, or is shown beside it.
    pub is_ours: bool,
    /// The figures.
    pub series: &'a Series,
}

impl Picture<'_> {
    /// The picture, as SVG.
    pub fn draw(&self) -> String {
        let Self { title, explained, .. } = self;
        let height = TOP + ROW * self.rows.len() as f64 + BOTTOM;
        let mut svg = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="{title}">
<style>{STYLE}</style>
<rect class="back" width="{WIDTH}" height="{height}" rx="6"/>
<text class="title" x="24" y="34">{title}</text>
<text class="small" x="24" y="52">{explained}</text>"#
        );
        let foot = height - BOTTOM + 8.0;
        let (lowest, highest) = self.scale;
        for (at, label) in SCALE.into_iter().filter(|(at, _)| (lowest..=highest).contains(at)) {
            let x = self.place(at);
            let _ = writeln!(svg, r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{foot:.1}"/>"#);
            let _ = writeln!(
                svg,
                r#"<text class="small" x="{x:.1}" y="{:.1}" text-anchor="middle">{label}</text>"#,
                foot + 18.0
            );
        }
        for (number, row) in self.rows.iter().enumerate() {
            self.draw_row(&mut svg, TOP + ROW * (number as f64 + 0.5), row);
        }
        let _ = writeln!(svg, r#"<text class="small" x="24" y="{:.1}">{}</text>"#, height - 12.0, escaped(&self.foot));
        svg.push_str("</svg>\n");
        svg
    }

    fn draw_row(&self, svg: &mut String, middle: f64, Row { title, name, is_ours, series }: &Row<'_>) {
        let class = if *is_ours { "dot" } else { "other" };
        let _ = writeln!(svg, r#"<text x="24" y="{:.1}">{title}</text>"#, middle - 3.0);
        let p99 = spelled(series.p99_ms);
        let _ = writeln!(svg, r#"<text class="small" x="24" y="{:.1}">{name}: p99 {p99}</text>"#, middle + 14.0);
        for (number, ms) in series.samples_ms.iter().enumerate() {
            // The golden ratio spreads any number of them evenly, and the same each time.
            let off = ((number as f64 * 0.618_034).fract() - 0.5) * 2.0 * SPREAD;
            let (x, y) = (self.place(*ms), middle + off);
            let _ = writeln!(svg, r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="4"/>"#);
        }
        let x = self.place(series.p50_ms);
        let (from, to) = (middle - SPREAD - 6.0, middle + SPREAD + 6.0);
        let _ = writeln!(svg, r#"<line class="middle" x1="{x:.1}" x2="{x:.1}" y1="{from:.1}" y2="{to:.1}"/>"#);
        let p50 = spelled(series.p50_ms);
        let _ = writeln!(svg, r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{p50}</text>"#, from - 4.0);
    }

    /// Where a time is on the scale.
    fn place(&self, ms: f64) -> f64 {
        let (lowest, highest) = self.scale;
        let part = (ms.clamp(lowest, highest) / lowest).ln() / (highest / lowest).ln();
        LEFT + part * (RIGHT - LEFT)
    }
}

fn spelled(ms: f64) -> String {
    if ms < 10.0 {
        format!("{ms:.1} ms")
    } else if ms < 1000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.1} s", ms / 1000.0)
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
