//! A drill's report as one page that needs nothing else: no script, no font, no picture from elsewhere. All that is put into it is
//! escaped by the macro.

use holdfast_core::verdict;
use holdfast_edge::page;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::evidence::Evidence;
use super::report::Trend;
use super::{plot, story};

/// Comes after the sheet that all pages have.
const STYLE: &str = include_str!("page.css");

/// Should the page ever be served: nothing is loaded, and nothing is run.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// What the timeline's colours mean.
const LEGEND: [(&str, &str); 6] = [
    ("order", "ordered to seal, or waiting"),
    ("sealed", "sealed"),
    ("open", "open; the share that opened it"),
    ("counted", "a share that was counted"),
    ("failed", "no answer, or a set that did not fit"),
    ("seen", "saw the node sealed"),
];

/// The page.
pub(super) fn render(evidence: &Evidence, trend: &Trend) -> String {
    let report = &evidence.report;
    let title = story::headline(evidence);
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " – Holdfast" }
                style { (PreEscaped(page::STYLE)) (PreEscaped(STYLE)) }
            }
            body class=(evidence.result.as_str()) {
                h1 { (title.trim_end_matches(evidence.result.as_str())) strong { (evidence.result.as_str()) } }
                p class="outcome" { (story::outcome(evidence)) }
                dl {
                    @for (name, what) in story::facts(evidence) { div { dt { (name) } dd { (what) } } }
                }
                @if let Some(drawing) = plot::timeline(report) {
                    h2 { "From the seal to the opening" }
                    (drawing)
                    (legend())
                    p class="note" {
                        "Zero is the first sight of the node sealed. The node's row is by the conductor's clock, each custodian's by "
                        "its own: where clocks differ, rows are shifted against each other, and no length is."
                    }
                }
                (people(evidence))
                (custodians(evidence))
                (moments(evidence))
                (last_drills(evidence, trend))
                h2 { "Evidence" }
                p { (story::proof(evidence)) }
                p class="note" {
                    "This page is what Holdfast made of the signed report, and is not signed itself. What was signed is saved by:"
                }
                pre { "holdfast drill report " (report.drill) " --cluster " (evidence.cluster) " --save drill.json" }
            }
        }
    };
    document.into_string()
}

fn legend() -> Markup {
    html! {
        ul class="legend" {
            @for (class, what) in LEGEND {
                li {
                    svg class="timeline" width="12" height="12" aria-hidden="true" {
                        @if class == "seen" { circle class=(class) cx="6" cy="6" r="4" {} }
                        @else { rect class=(class) x="0" y="1" width="12" height="10" {} }
                    }
                    (what)
                }
            }
        }
    }
}

fn custodians(evidence: &Evidence) -> Markup {
    let rows = story::custodians(&evidence.report);
    html! {
        @if !rows.is_empty() {
            h2 { "Custodians" }
            div class="wide" { table {
                tr { th { "Custodian" } th { "Turn" } th { "Took it" } th { "Share left after" } th { "Answered after" } th { "Result" } }
                @for row in &rows {
                    tr {
                        td { b { (row.custodian) } }
                        td class="number" { (row.turn()) }
                        td { @if row.took { "yes" } @else { "no" } }
                        td class="number" { (story::millis(row.response_time())) }
                        td class="number" { (story::millis(row.answer_time())) }
                        td { bdi { (row.what()) } }
                    }
                }
            } }
        }
    }
}

fn people(evidence: &Evidence) -> Markup {
    let people = story::people(&evidence.report);
    html! {
        @if !people.is_empty() {
            h2 { "People" }
            div class="wide" { table {
                tr { @for name in story::PEOPLE { th { (name) } } }
                @for voice in &people { tr { @for cell in voice.cells() { td class="number" { (cell) } } } }
            } }
            p class="note" {
                "From the conductor's first sight of the node sealed to the moment when it had the approval, by its clock; signed at, by the "
                "operator's."
            }
        }
    }
}

fn moments(evidence: &Evidence) -> Markup {
    let report = &evidence.report;
    html! {
        h2 { "What happened" }
        div class="wide" { table {
            @for (at, what) in story::moments(report) {
                tr { td class="number" { (story::when(report, at)) } td class="number" { (at) } td { bdi { (what) } } }
            }
        } }
    }
}

fn last_drills(evidence: &Evidence, trend: &Trend) -> Markup {
    let drawn = verdict::trend(trend.drills.iter().map(|drill| &drill.report));
    html! {
        @if let Some(drawn) = drawn.filter(|drawn| drawn.bars.len() > 1) {
            h2 { "The last drills" }
            (page::trend(&drawn, Some(&evidence.report.drill)))
            p class="note" {
                "From the first sight of the node sealed to the first of it open, the oldest drill first; × is a drill without a recovery, "
                "▲ this one. The scale is logarithmic."
            }
        }
        @if let Some(left_out) = trend.left_out() { p class="note" { (left_out) } }
    }
}
