//! The drills of a cluster in the page: the one that runs, the last, the next, and how the last ones went.

use holdfast_core::id::ClusterName;
use holdfast_core::status::{ClusterStatus, DrillStatus};
use holdfast_core::time::Timestamp;
use holdfast_core::verdict::{self, BY_PEOPLE, UNCONFIRMED, canary_outcome, drill_outcome, moment, rough};
use holdfast_edge::page;
use maud::{Markup, html};

/// How many drills of a cluster are listed. The trend has more, and `holdfast drill list` most.
const SHOWN_MAX: usize = 5;

/// The drills.
pub(super) fn list(name: &ClusterName, cluster: &ClusterStatus, now: Timestamp) -> Markup {
    let (running, over): (Vec<_>, Vec<_>) = cluster.drills.iter().partition(|drill| drill.report.result.is_none());
    let more = over.len().saturating_sub(SHOWN_MAX);
    html! {
        h3 { "Drills" }
        @if !running.is_empty() { ul class="drills" { @for drill in running { (runs(drill, now)) } } }
        (facts(cluster, now))
        @if let Some(drawn) = verdict::trend(over.iter().filter(|drill| !drill.is_unconfirmed()).map(|drill| &drill.report)) { (page::trend(&drawn, None)) }
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
            p {
                (drill_outcome(report).trim_start_matches("runs: "))
                @if report.people { "; people have to approve its opening" }
            }
        }
    }
}

fn one(drill: &DrillStatus, now: Timestamp) -> Markup {
    let report = &drill.report;
    html! {
        li class=[report.result.map(|result| result.as_str())] {
            p class="name" {
                b { @match &report.node { Some(node) => { (node) }, None => { "no node" } } }
                span { (moment(report.began_at, now)) }
                span class="outcome" { bdi { (drill_outcome(report)) } }
            }
            @if drill.is_unconfirmed() { p { b { (UNCONFIRMED) } ", and " (drill.conductor) " alone says so" } }
            @if report.people { p class="quiet" { "Opening: " (BY_PEOPLE) } }
            @if let Some(canary) = &report.canary { p class="quiet" { "Canary: " bdi { (canary_outcome(canary)) } } }
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
