//! The status page: the sentinel's status as HTML. Rendered here and nowhere else: the script in the page fetches the same
//! page again and takes over what changed.
//!
//! What lives here: what is shown, and in which order. What does not: sentences about the state (the core's `verdict`), looks
//! (page.css), refreshing (page.js), serving (`web`). Everything that is put into it is escaped by the macro, and what others
//! wrote is made plain first.

mod drills;
mod incidents;
mod orders;

use std::time::Duration;

use holdfast_core::id::{ClusterName, NodeName, Principal};
use holdfast_core::message::{Seen, plain_text};
use holdfast_core::status::{ClusterStatus, CustodianStatus, NodeStatus, Status};
use holdfast_core::time::Timestamp;
use holdfast_core::verdict::{self, Advice, Answer, Verdict, duration, moment, rough};
use maud::{DOCTYPE, Markup, html};
use sha2::{Digest, Sha256};

/// Comes after the sheet that all pages have.
const STYLE: &str = include_str!("page.css");
pub(crate) const SCRIPT: &str = include_str!("page.js");

/// Up to how many clusters are shown with all their parts; of more, only those that ask for attention are.
const CLUSTERS_UNFOLDED: usize = 3;

/// By how much a custodian's clock may be off before that is shown, in milliseconds: the message's way is in it.
const CLOCK_OFFSET_SHOWN: u64 = 2_000;

/// How many reasons for refusals are shown of each party: there are no more, but a captured custodian could make some up.
const REASONS_SHOWN: usize = 16;

/// What people should see first of a thing. Each has a shape of its own, not only a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// It does not open, or does not work.
    No,
    /// Nobody can tell.
    Unknown,
    /// It works, and somebody should look at it.
    Attention,
    /// Nothing to do.
    Well,
    /// The page itself is not live. Set by the page's script alone.
    Stale,
}

impl State {
    /// All of them, each with its picture.
    pub(crate) const ALL: [Self; 5] = [Self::No, Self::Unknown, Self::Attention, Self::Well, Self::Stale];

    /// Its name in classes and paths.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Unknown => "unknown",
            Self::Attention => "attention",
            Self::Well => "well",
            Self::Stale => "stale",
        }
    }

    /// Its picture, in the page and in the tab.
    pub(crate) const fn icon(self) -> &'static str {
        match self {
            Self::No => include_str!("icons/no.svg"),
            Self::Unknown => include_str!("icons/unknown.svg"),
            Self::Attention => include_str!("icons/attention.svg"),
            Self::Well => include_str!("icons/well.svg"),
            Self::Stale => include_str!("icons/stale.svg"),
        }
    }

    fn of(verdict: &Verdict) -> Self {
        match verdict.answer {
            Answer::No => Self::No,
            Answer::Unknown => Self::Unknown,
            Answer::Yes if verdict.is_calm() => Self::Well,
            Answer::Yes => Self::Attention,
        }
    }
}

/// A page, and by what a reader knows whether it has changed.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) html: String,
    /// Digest of all of it but the moment at which it was made.
    pub(crate) digest: String,
}

struct Shown<'a> {
    name: &'a ClusterName,
    cluster: &'a ClusterStatus,
    verdict: Verdict,
    state: State,
}

/// The whole page.
pub(crate) fn render(status: &Status) -> Page {
    let mut clusters: Vec<_> = status
        .clusters
        .iter()
        .map(|(name, cluster)| {
            let verdict = Verdict::of(cluster, status);
            Shown { name, cluster, state: State::of(&verdict), verdict }
        })
        .collect();
    // What asks for attention comes first, and the rest stays where it is.
    clusters.sort_by_key(|shown| shown.state);
    let worst = clusters.first().map_or(State::Unknown, |shown| shown.state);
    let title = title(&clusters);
    let state = state(&clusters, status);
    let mut hash = Sha256::new();
    for part in [title.as_str(), state.0.as_str(), &style(), SCRIPT] {
        hash.update(part.as_bytes());
    }
    Page { html: document(&title, worst, state, status).0, digest: hex::encode(&hash.finalize()[..16]) }
}

/// The whole sheet.
pub(crate) fn style() -> String {
    [holdfast_edge::page::STYLE, STYLE].concat()
}

/// The names of style and script that belong together: a page that meets another one is loaded anew.
pub(crate) fn version() -> String {
    hex::encode(&Sha256::new_with_prefix(style()).chain_update(SCRIPT).finalize()[..8])
}

fn document(title: &str, worst: State, state: Markup, status: &Status) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // Without a script a page cannot say that it is old, so it does not get old.
                noscript { meta http-equiv="refresh" content="10"; }
                title { (title) }
                link rel="icon" type="image/svg+xml" href=(icon(worst));
                link rel="stylesheet" href="/page.css";
                script src="/page.js" defer {}
            }
            // `live-a` starts the countdown after which the page calls itself not live, whatever becomes of the script.
            body class="live-a" data-page=(version()) {
                p id="stale" role="alert" {
                    strong { "Not live." }
                    " "
                    span id="stale-since" { "The sentinel has not answered this page." }
                    " What is shown here is how it was, not how it is."
                }
                header {
                    p class="brand" { "Holdfast" }
                    p { "sentinel " b { (status.sentinel) } }
                    p id="live" { "as of " (utc(status.at)) }
                }
                (state)
                footer {
                    p {
                        "All times are UTC. The same as JSON: " a href="/api/v1/status" { "/api/v1/status" }
                        ", for Prometheus: " a href="/metrics" { "/metrics" } "."
                    }
                }
            }
        }
    }
}

fn title(clusters: &[Shown<'_>]) -> String {
    let open = clusters.iter().filter(|shown| shown.verdict.answer == Answer::Yes).count();
    match clusters {
        [] => "No cluster – Holdfast".to_owned(),
        [one] if one.state == State::Attention => format!("Yes, but look: {} – Holdfast", one.name),
        [one] => format!("{}: {} – Holdfast", one.verdict.answer, one.name),
        [worst, ..] if open == clusters.len() && worst.state == State::Attention => {
            format!("Yes, but look: all {open} – Holdfast")
        }
        _ if open == clusters.len() => format!("Yes: all {open} – Holdfast"),
        [worst, ..] => {
            format!("{}: {} of {} – Holdfast", worst.verdict.answer, clusters.len() - open, clusters.len())
        }
    }
}

/// All that changes while one looks at it.
fn state(clusters: &[Shown<'_>], status: &Status) -> Markup {
    let unfolded = |shown: &Shown<'_>| clusters.len() <= CLUSTERS_UNFOLDED || shown.state < State::Attention;
    html! {
        main id="state" {
            section id="verdicts" class=[(clusters.len() > CLUSTERS_UNFOLDED).then_some("many")]
                aria-live="polite" aria-label="Would it open by itself now?" {
                @if clusters.is_empty() { p { "This sentinel watches no cluster." } }
                @for shown in clusters { (verdict_of(shown, status.at)) }
            }
            @for shown in clusters {
                @let unfolded = unfolded(shown);
                details id={ "cluster-" (shown.name) } class="cluster" data-unfolded=(unfolded) open[unfolded] {
                    summary { h2 { (shown.name) } }
                    (parts(shown, status.at))
                }
            }
            (sentinel(status))
        }
    }
}

fn verdict_of(Shown { name, cluster, verdict, state }: &Shown<'_>, now: Timestamp) -> Markup {
    html! {
        article id={ "verdict-" (name) } class={ "verdict " (state.as_str()) } {
            h1 { "Would " b { (name) } " open by itself now?" }
            p class="answer" {
                (picture(*state))
                span { strong { (verdict.answer) ":" } " " span class="because" { (verdict.because) } }
            }
            @if !verdict.doubts.is_empty() {
                ul class="doubts" { @for doubt in &verdict.doubts { li { (doubt) } } }
            }
            @for advice in verdict::orders_advice(name, cluster, now, "") { (advised(&advice)) }
            @for node in cluster.nodes.keys() {
                @for advice in verdict::advice(name, node, cluster, now, "") { (advised(&advice)) }
            }
        }
    }
}

fn advised(Advice { what, command }: &Advice) -> Markup {
    html! {
        p class="advice" { (what) }
        @if let Some(command) = command { pre tabindex="0" { code { (command) } } }
    }
}

fn parts(Shown { name, cluster, .. }: &Shown<'_>, now: Timestamp) -> Markup {
    html! {
        h3 { "Nodes" }
        ul class="cards nodes" { @for (name, node) in &cluster.nodes { (node_card(name, node, cluster, now)) } }
        h3 { "Custodians" }
        ul class="cards custodians" {
            @for (id, custodian) in &cluster.custodians { (custodian_card(id, custodian, now)) }
        }
        (orders::list(name, cluster, now))
        (facts(cluster, now))
        @if !cluster.approvals.is_empty() {
            h3 { "Approvals" }
            ul class="plain" {
                @for approval in &cluster.approvals {
                    li {
                        b { (approval.from) } " approved the opening of " b { (approval.node) } " "
                        (moment(approval.issued_at, now)) "; it counts until " (moment(approval.expires_at, now)) "."
                    }
                }
            }
        }
        (drills::list(name, cluster, now))
        (incidents::list(name, cluster, now))
    }
}

fn node_card(name: &NodeName, node: &NodeStatus, cluster: &ClusterStatus, now: Timestamp) -> Markup {
    let shut = node.seen != Seen::Open;
    let held = verdict::is_held(name, node, cluster);
    let state = match node.seen {
        Seen::Open if node.shared_address || node.identity_refused.is_some() || held => State::Attention,
        Seen::Open => State::Well,
        Seen::Never => State::Unknown,
        Seen::Sealed | Seen::Lost => State::No,
    };
    html! {
        li class=(state.as_str()) {
            p class="name" { (picture(state)) b { (name) } " " span class="word" { (node.seen.as_str()) } }
            p {
                "since " (moment(node.since, now))
                @if let Some(cause) = node.cause.filter(|_| shut) { ", cause: " b { (cause) } }
            }
            @if shut {
                @let waits = verdict::waits(node);
                @if !waits.is_empty() { p { "waits for " (waits) } }
            } @else if held {
                p { "held: would stay shut" }
            }
            @if let Some(left) = openings_left(name, cluster) { p class="quiet" { (left) } }
            p class="quiet" { bdi { (plain_text(&node.url)) } }
        }
    }
}

/// How many automatic openings custodians have left for a node in this hour.
fn openings_left(name: &NodeName, cluster: &ClusterStatus) -> Option<String> {
    let left = match verdict::budget(name, cluster)? {
        (fewest, most) if fewest == most => most.to_string(),
        (fewest, most) => format!("{fewest} to {most}"),
    };
    Some(format!("automatic openings left this hour: {left}"))
}

fn custodian_card(id: &Principal, custodian: &CustodianStatus, now: Timestamp) -> Markup {
    let state = match (custodian.ready, custodian.config_diverged) {
        (true, false) => State::Well,
        (true, true) => State::Attention,
        (false, _) if custodian.heartbeat.is_none() => State::Unknown,
        (false, _) => State::No,
    };
    let offset = custodian.clock_offset_millis.filter(|offset| offset.unsigned_abs() > CLOCK_OFFSET_SHOWN);
    html! {
        li class=(state.as_str()) {
            p class="name" {
                (picture(state)) b { (id) }
                @if let Some(site) = &custodian.site { " " span class="quiet" { (site) } }
                @if custodian.distrusted { span class="word" { "distrusted" } }
            }
            p {
                @match verdict::unready(custodian) {
                    None => { "ready" },
                    Some(why) => { "not ready: " (why) },
                }
            }
            p class="quiet" {
                @match &custodian.share_proven {
                    Some(proof) => { "share proven " (moment(proof.at, now)) ", " (proof.node) },
                    None => { "share not proven yet" },
                }
            }
            @if let (Some(at), false) = (custodian.heard_at, custodian.up) { p { "last heard " (moment(at, now)) } }
            @if let Some(offset) = offset {
                p {
                    "its clock is " (rough(Duration::from_millis(offset.unsigned_abs()))) " "
                    @if offset > 0 { "ahead" } @else { "behind" }
                }
            }
        }
    }
}

fn facts(cluster: &ClusterStatus, now: Timestamp) -> Markup {
    html! {
        dl class="facts" {
            div {
                dt { "To spare" }
                dd {
                    (cluster.margin) "; " (cluster.margin_without_largest_site) " if the costliest site is lost"
                }
            }
            div {
                dt { "Last opened by itself" }
                dd {
                    @match verdict::opened_by_itself(cluster) {
                        Some(incident) => {
                            (incident.node) ", "
                            @if let Some(at) = incident.opened_at { (moment(at, now)) }
                            @if let Some(millis) = incident.open_after_ms { ", open after " (duration(millis)) }
                        },
                        None => { "not seen yet" },
                    }
                }
            }
            div {
                dt { "First certificate to expire" }
                dd {
                    @match verdict::soonest_expiry(cluster) {
                        Some((node, at)) if at > now => { (node) ", " (moment(at, now)) ", in " (rough(at.since(now))) },
                        Some((node, at)) => { (node) ", expired " (moment(at, now)) },
                        None => { "none was seen" },
                    }
                }
            }
            div {
                dt { "Shares" }
                dd { (cluster.threshold) " of " (cluster.shares) " open a node; generation " (cluster.generation) }
            }
        }
    }
}

/// The sentinel itself, and what was refused in the network.
fn sentinel(status: &Status) -> Markup {
    let custodians = status.clusters.values().flat_map(|cluster| &cluster.custodians);
    let mut refused: Vec<_> = custodians
        .filter_map(|(id, custodian)| Some((id, &custodian.heartbeat.as_ref()?.rejected)))
        .chain([(&status.sentinel, &status.rejected)])
        .filter(|(_, by_reason)| by_reason.values().any(|total| *total > 0))
        .collect();
    // A custodian of several clusters says the same in the heartbeats of each.
    refused.sort();
    refused.dedup_by_key(|(id, _)| *id);
    html! {
        section id="sentinel" {
            h2 { "Sentinel" }
            dl class="facts" {
                div {
                    dt { "Broker" }
                    dd {
                        @match (status.broker_up, &status.broker_trouble) {
                            (None, _) => { "none is configured" },
                            (Some(true), None) => { "connected" },
                            (Some(true), Some(why)) => { "connected; " bdi { (plain_text(why)) } },
                            (Some(false), why) => {
                                "no connection"
                                @if let Some(why) = why { ": " bdi { (plain_text(why)) } }
                            },
                        }
                    }
                }
                div {
                    dt { "History" }
                    dd {
                        @match &status.history_trouble {
                            Some(why) => { "not written down: " bdi { (plain_text(why)) } },
                            None => { "no trouble" },
                        }
                    }
                }
                div { dt { "Running since" } dd { (moment(status.started_at, status.at)) ", version " (status.version) } }
                div {
                    dt { "Messages refused" }
                    dd {
                        @if refused.is_empty() { "none" }
                        @for (id, by_reason) in &refused {
                            p {
                                b { (id) } ":"
                                @for (reason, total) in by_reason.iter().filter(|(_, total)| **total > 0).take(REASONS_SHOWN) {
                                    " " bdi { (plain_text(reason)) } " " (total)
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn picture(state: State) -> Markup {
    html! { img src=(icon(state)) alt="" width="24" height="24"; }
}

fn icon(state: State) -> String {
    format!("/icons/{}.svg", state.as_str())
}

/// "2026-11-24 07:45:12"
fn utc(at: Timestamp) -> String {
    at.to_string().replace('T', " ").chars().take("2026-11-24 07:45:12".len()).collect()
}

#[cfg(test)]
mod tests;
