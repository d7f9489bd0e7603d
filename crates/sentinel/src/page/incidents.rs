//! The incidents of a cluster in the page: when, why, and who did what in which order.

use holdfast_core::id::ClusterName;
use holdfast_core::message::{Submission, plain_text};
use holdfast_core::status::{ClusterStatus, IncidentStatus, SubmissionStatus};
use holdfast_core::time::Timestamp;
use holdfast_core::verdict::{duration, moment, offset, rough};
use maud::{Markup, html};

/// How many incidents of a cluster are shown. The status document has more, and the database most.
const SHOWN_MAX: usize = 8;

/// The latest incidents; what runs is unfolded.
pub(super) fn list(name: &ClusterName, cluster: &ClusterStatus, now: Timestamp) -> Markup {
    let more = cluster.incidents.len().saturating_sub(SHOWN_MAX);
    html! {
        h3 { "Incidents" }
        @if cluster.incidents.is_empty() { p class="quiet" { "none" } }
        @for incident in cluster.incidents.iter().take(SHOWN_MAX) {
            (one(&format!("incident-{name}-{}-{}", incident.node, incident.began_at.as_millis()), incident, cluster.threshold, now))
        }
        @if more > 0 { p class="quiet" { "and " (more) " before these, in " a href="/api/v1/status" { "/api/v1/status" } } }
    }
}

fn one(id: &str, incident: &IncidentStatus, threshold: u8, now: Timestamp) -> Markup {
    let cause = incident.cause.filter(|cause| cause.as_str() != "unknown").or(incident.told_cause).or(incident.cause);
    let mut deeds = deeds(incident, threshold);
    deeds.sort_by_key(|(at, _)| *at);
    let runs = incident.opened_at.is_none();
    html! {
        details id=(id) class="incident" data-unfolded=(runs) open[runs] {
            summary {
                b { (incident.node) }
                span { (moment(incident.began_at, now)) }
                span {
                    @if incident.drill.is_some() { b { "drill" } ", " }
                    @match cause { Some(cause) => { (cause) }, None => { "cause not known" } }
                }
                span { (outcome(incident, now)) }
            }
            ol class="timeline" {
                @for (at, what) in &deeds {
                    li { span class="at" { (offset(incident.began_at, *at)) } span { (what) } }
                }
            }
            @if !incident.refusals.is_empty() {
                ul class="plain" {
                    @for refusal in &incident.refusals {
                        li {
                            b { (refusal.custodian) } " did not submit, by the lock " b { (refusal.lock.as_str()) } ": "
                            bdi { (plain_text(&refusal.why)) }
                        }
                    }
                }
            }
        }
    }
}

fn outcome(incident: &IncidentStatus, now: Timestamp) -> String {
    match (incident.opened_at, incident.open_after_ms, incident.sealed_at) {
        (None, ..) => format!("not open for {} now", rough(now.since(incident.began_at))),
        (Some(_), Some(millis), _) => format!("open after {}", duration(millis)),
        (Some(at), None, None) => format!("gone for {}, never seen sealed", rough(at.since(incident.began_at))),
        (Some(at), None, Some(_)) => format!("open after {}", rough(at.since(incident.began_at))),
    }
}

/// What happened and when, by the clock of whoever says so.
fn deeds(incident: &IncidentStatus, threshold: u8) -> Vec<(Timestamp, Markup)> {
    let seen =
        |at: Option<Timestamp>, what: &'static str| at.map(|at| (at, html! { "the sentinel sees it " b { (what) } }));
    let began = (incident.began_at, html! { "the sentinel sees it " b { "not open" } " any more" });
    let submitted =
        incident.submissions.iter().map(|submission| (submission.answered_at, submitted(submission, threshold)));
    let seen = [seen(incident.sealed_at, "sealed"), seen(incident.opened_at, "open")];
    std::iter::once(began).chain(seen.into_iter().flatten()).chain(submitted).collect()
}

fn submitted(submission: &SubmissionStatus, threshold: u8) -> Markup {
    html! {
        b { (submission.custodian) } " submitted share " (submission.x) ": "
        @match submission.result {
            Submission::Counted if submission.progress > 0 => { "counted, " (submission.progress) " of " (threshold) },
            Submission::Counted => { "counted" },
            Submission::Opened => { "the node is open" },
            Submission::Failed => { "the set did not open the node" },
            Submission::Unanswered => { "no answer" },
        }
        @if submission.round > 0 { ", in set " (submission.round + 1) }
        @if !submission.approvals.is_empty() { ", approved by " (submission.approvals.len()) }
    }
}
