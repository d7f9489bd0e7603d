//! Operators' orders in the page: the holds, with who obeys them and how they end, what waits for more operators, and whose word
//! counts for nothing. What it means for the answer is said above, in the core's words.

use holdfast_core::id::ClusterName;
use holdfast_core::message::{HOLDS_REPORTED, plain_text};
use holdfast_core::status::{ClusterStatus, HoldStatus};
use holdfast_core::time::Timestamp;
use holdfast_core::verdict::{moment, names, release_command, released};
use maud::{Markup, html};

/// How many holds of a cluster are shown: as many as one custodian tells of. Those that most obey come first.
const SHOWN_MAX: usize = HOLDS_REPORTED;

/// The holds; nothing where there are none.
pub(super) fn list(name: &ClusterName, cluster: &ClusterStatus, now: Timestamp) -> Markup {
    let more = cluster.holds.len().saturating_sub(SHOWN_MAX);
    html! {
        @if !cluster.holds.is_empty() {
            h3 { "Holds" }
            ul class="holds" { @for hold in cluster.holds.iter().take(SHOWN_MAX) { (one(name, hold, cluster, now)) } }
            @if more > 0 { p class="quiet" { "and " (more) " more, in " a href="/api/v1/status" { "/api/v1/status" } } }
        }
    }
}

fn one(name: &ClusterName, hold: &HoldStatus, cluster: &ClusterStatus, now: Timestamp) -> Markup {
    html! {
        li {
            p class="name" {
                b { @if hold.nodes.is_empty() { "all nodes" } @else { (names(&hold.nodes)) } }
                span { "since " (moment(hold.held_at, now)) " by " b { (hold.by) } }
            }
            @if let Some(reason) = &hold.reason { p { "“" bdi { (plain_text(reason)) } "”" } }
            p {
                "obeyed by " (hold.obeyed_by.len()) " of " (cluster.custodians.len()) ": " (names(&hold.obeyed_by))
            }
            p { (released(hold)) }
            p class="quiet" { code { (release_command(name, hold, "")) } }
        }
    }
}
