//! A drill's timeline from the seal to the opening, as SVG in its page. Across, places are percentages and letters keep their size, so
//! that it can be read on a telephone.

use std::time::Duration;

use holdfast_core::message::{DrillReport, Submission};
use holdfast_core::time::Timestamp;
use holdfast_edge::page::percent;
use maud::{Markup, html};

use super::story;

/// The height of a row of the timeline, in pixels.
const ROW: usize = 40;

/// The height of what is below the rows: the scale.
const FOOT: usize = 34;

/// How many marks the timeline's scale has, at most.
const MARKS_MAX: u32 = 5;

/// How much of a row's width is left free at its end.
const MARGIN: f64 = 0.06;

/// How much longer than the recovery the timeline is, at most: what came later is told of at its end.
const LATER: u32 = 2;

/// How long a recovery is taken to be at least, where that decides how much beside it is shown.
const SHORTEST: Duration = Duration::from_millis(10);

/// A stretch of time, across the drawing.
struct Scale {
    first: Timestamp,
    length: Duration,
}

impl Scale {
    /// From about the first sight of it sealed to the opening, or to the last that is known where it did not open; and what custodians did soon after.
    fn of(report: &DrillReport) -> Option<Self> {
        let sent = report.seal_sent_at.or(report.sealed_at)?;
        let sealed = report.sealed_at.unwrap_or(sent);
        let answers = report.responses.values().map(|response| response.answered_at);
        let end = report.opened_at.or_else(|| answers.clone().max()).or(report.closed_at)?;
        // A server takes its time to seal itself, and that is not what is looked at.
        let first = sent.max(sealed.before(end.since(sealed).max(SHORTEST) / 4)).min(sealed);
        let latest = end.after(end.since(sealed).max(SHORTEST) * LATER);
        let last = answers.chain([end]).filter(|at| *at <= latest).max().unwrap_or(end);
        Some(Self { first, length: last.since(first).max(Duration::from_millis(1)) })
    }

    /// Where a moment is, in percent; what lies outside is at the edge.
    fn at(&self, at: Timestamp) -> f64 {
        let part = at.since(self.first).as_secs_f64() / self.length.as_secs_f64();
        (MARGIN / 2.0 + part.min(1.0 + MARGIN / 2.0) * (1.0 - MARGIN)) * 100.0
    }

    fn is_within(&self, at: Timestamp) -> bool {
        at >= self.first && at.since(self.first) <= self.length
    }

    /// Round times, each a whole number of steps from the zero.
    fn marks(&self, zero: Timestamp) -> Vec<(Timestamp, String)> {
        let decades = (0..9).map(|power| 10_u64.pow(power));
        let steps = decades.flat_map(|decade| [decade, 2 * decade, 5 * decade]);
        let fits = |step: &u64| self.length.as_millis() <= u128::from(*step) * u128::from(MARKS_MAX);
        let Some(step) = steps.into_iter().find(fits).map(Duration::from_millis) else { return Vec::new() };
        let before = (1..=MARKS_MAX).map(|n| (zero.before(step * n), "−", n));
        let after = (0..=MARKS_MAX).map(|n| (zero.after(step * n), if n == 0 { "" } else { "+" }, n));
        let all = before.chain(after).filter(|(at, ..)| self.is_within(*at));
        all.map(|(at, sign, n)| (at, format!("{sign}{}", mark(step * n)))).collect()
    }
}

/// "20 ms", "1.5 s"
fn mark(time: Duration) -> String {
    match time.as_millis() {
        0 => "0".to_owned(),
        millis @ 1..1000 => format!("{millis} ms"),
        _ => format!("{} s", time.as_secs_f64()),
    }
}

/// The timeline; none where the node was never told to seal itself.
pub(super) fn timeline(report: &DrillReport) -> Option<Markup> {
    let scale = Scale::of(report)?;
    let zero = story::zero(report);
    let rows = story::custodians(report);
    let rows: Vec<_> = rows.iter().filter_map(|row| Some((row, row.response?))).collect();
    let bottom = ROW * (rows.len() + 1);
    Some(html! {
        svg class="timeline" width="100%" height=(bottom + FOOT) role="img" aria-label="From the seal to the opening" {
            @for (at, said) in scale.marks(zero) {
                @let x = percent(scale.at(at));
                line class="grid" x1=(x) x2=(x) y1="0" y2=(bottom + 6) {}
                text class="quiet" x=(x) y=(bottom + 22) text-anchor="middle" { (said) }
            }
            (node_row(report, &scale))
            @for (number, (row, response)) in rows.iter().enumerate() {
                @let y = ROW * (number + 1);
                @let took = story::millis(row.response_time());
                text x="0" y=(y + 13) { tspan class="strong" { (row.custodian) } " " tspan class="quiet" {
                    (row.turn()) ", left after " (took) ", " (row.what())
                } }
                @let (seen, left) = (scale.at(response.sealed_seen_at), scale.at(response.submitted_at));
                @let answered = scale.at(response.answered_at);
                (bar("waited", y + 20, seen, left))
                (bar(class(response.result), y + 20, left, answered))
                circle class="seen" cx=(percent(seen)) cy=(y + 26) r="4" {
                    title { (row.custodian) " saw the node sealed" }
                }
            }
        }
    })
}

fn node_row(report: &DrillReport, scale: &Scale) -> Markup {
    let name = report.node.as_ref().map_or("the node", |node| node.as_str());
    let last = report.closed_at.unwrap_or(report.began_at);
    let (sealed, opened) = (report.sealed_at, report.opened_at);
    let serves = report.served_at.filter(|at| !scale.is_within(*at));
    html! {
        text x="0" y="13" { tspan class="strong" { (name) } " " tspan class="quiet" {
            @match (sealed, opened) {
                (Some(_), Some(_)) => { "sealed, then open" },
                (Some(_), None) => { "sealed, and not seen open" },
                (None, _) => { "not seen sealed" },
            }
            @if let Some(at) = report.served_at { "; serves " (story::when(report, at)) }
        } }
        @if let (Some(sent), Some(sealed)) = (report.seal_sent_at, sealed) {
            (bar("order", 20, scale.at(sent), scale.at(sealed)))
        }
        @if let Some(sealed) = sealed { (bar("sealed", 20, scale.at(sealed), scale.at(opened.unwrap_or(last)))) }
        @if let Some(opened) = opened { (bar("open", 20, scale.at(opened), 100.0)) }
        @if serves.is_some() { text class="onbar" x="100%" y="31" dx="-4" text-anchor="end" { "→" } }
    }
}

/// A stretch of a row, never too short to be seen.
fn bar(class: &str, y: usize, from: f64, to: f64) -> Markup {
    let width = (to - from).max(0.4);
    html! { rect class=(class) x=(percent(from)) y=(y) width=(percent(width)) height="12" {} }
}

const fn class(result: Submission) -> &'static str {
    match result {
        Submission::Counted => "counted",
        Submission::Opened => "opened",
        Submission::Failed | Submission::Unanswered => "failed",
    }
}
