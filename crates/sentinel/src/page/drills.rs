//! The drills of a cluster in the page: the one that runs, the last, the next, and how the last ones went.

use holdfast_core::id::ClusterName;
use holdfast_core::status::{ClusterStatus, DrillStatus};
use holdfast_core::time::Timestamp;
use holdfast_core::verdict::{self, Trend, drill_outcome, moment, rough};
use maud::{Markup, html};

/// How many drills of a cluster are listed. The trend has more, and `holdfast drill list` most.
const SHOWN_MAX: usize = 5;

/// The height of the trend's bars, in pixels, and of what is above and below them.
const BARS: f64 = 96.0;
const ABOVE: f64 = 16.0;

/// The drills.
pub(super) fn list(name: &ClusterName, cluster: &ClusterStatus, now: Timestamp) -> Markup {
    let (running, over): (Vec<_>, Vec<_>) = cluster.drills.iter().partition(|drill| drill.report.result.is_none());
    let more = over.len().saturating_sub(SHOWN_MAX);
    html! {
        h3 { "Drills" }
        @if !running.is_empty() { ul class="drills" { @for drill in running { (runs(drill, now)) } } }
        (facts(cluster, now))
        @if let Some(drawn) = verdict::trend(over.iter().map(|drill| &drill.report)) { (trend(&drawn)) }
        @if !over.is_empty() {
            ul class="drills" { @for drill in over.iter().take(SHOWN_MAX) { (one(drill, now)) } }
            p class="quiet" {
                @if more > 0 { "and " (more) " before these; " }
                "reports, verified: " code { "holdfast drill list --cluster " (name) }
            }
        }
    }
}

fn runs(DrillStatus { conductor, report, .. }: &DrillStatus, now: Timestamp) -> Markup {
    html! {
        li class="runs" {
            p class="name" {
                b { @match &report.node { Some(node) => { (node) }, None => { "no node yet" } } }
                span { "since " (moment(report.began_at, now)) " by " b { (conductor) } }
                span class="word" { "runs" }
            }
            p { (drill_outcome(report).trim_start_matches("runs: ")) }
        }
    }
}

fn one(DrillStatus { report, .. }: &DrillStatus, now: Timestamp) -> Markup {
    html! {
        li class=[report.result.map(|result| result.as_str())] {
            p class="name" {
                b { @match &report.node { Some(node) => { (node) }, None => { "no node" } } }
                span { (moment(report.began_at, now)) }
                span class="outcome" { bdi { (drill_outcome(report)) } }
            }
        }
    }
}

fn facts(cluster: &ClusterStatus, now: Timestamp) -> Markup {
    let known = &cluster.drill_summary;
    html! {
        dl class="facts" {
            div {
                dt { "Last that passed" }
                dd {
                    @match known.last_success {
                        Some(at) => { (moment(at, now)) ", " (rough(now.since(at))) " ago" },
                        None => { "none yet" },
                    }
                }
            }
            div {
                dt { "Next" }
                dd {
                    @match known.next {
                        Some(at) if at > now => { (at.to_string().replace('T', " ").chars().take(16).collect::<String>()) ", in " (rough(at.since(now))) },
                        Some(at) => { "was due " (moment(at, now)) },
                        None => { "no conductor tells of one" },
                    }
                }
            }
        }
    }
}

fn trend(trend: &Trend<'_>) -> Markup {
    let y = |height: f64| ABOVE + BARS * (1.0 - height);
    let (left, right) = (13.0, 100.0);
    let step = (right - left) / trend.bars.len().max(16) as f64;
    html! {
        svg class="trend" width="100%" height=(px(ABOVE + BARS + 6.0)) role="img" aria-label="Recovery in the last drills" {
            @for (height, said) in &trend.marks {
                line class="grid" x1=(percent(left)) x2="100%" y1=(px(y(*height))) y2=(px(y(*height))) {}
                text x=(percent(left)) dx="-6" y=(px(y(*height) + 4.0)) text-anchor="end" { (said) }
            }
            @for (number, bar) in trend.bars.iter().enumerate() {
                @let x = left + step * number as f64;
                g class=(bar.result.as_str()) {
                    title { (bar.said) }
                    @match bar.height {
                        Some(height) => {
                            rect x=(percent(x + step * 0.15)) width=(percent(step * 0.7)) y=(px(y(height)))
                                height=(px((BARS * height).max(1.0))) {}
                        },
                        None => {
                            text x=(percent(x + step / 2.0)) y=(px(ABOVE + BARS - 3.0)) text-anchor="middle" { "×" }
                        },
                    }
                }
            }
            @if let Some((height, said)) = &trend.objective {
                line class="objective" x1=(percent(left)) x2="100%" y1=(px(y(*height))) y2=(px(y(*height))) {}
                text class="objective" x="100%" y=(px(y(*height) - 4.0)) text-anchor="end" { "objective " (said) }
            }
        }
    }
}

fn percent(part: f64) -> String {
    format!("{part:.2}%")
}

fn px(length: f64) -> String {
    format!("{length:.1}")
}
