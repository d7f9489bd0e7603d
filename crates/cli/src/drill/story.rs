//! A drill's report as it is told in text, in Markdown and on a page: the same facts, moments and rows in each. What a conductor
//! wrote is plain already, or its report would not have been taken.
//!
//! The conductor's own moments are by its clock, each custodian's by the custodian's: how long one took is told by that one clock alone.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_core::id::Principal;
use holdfast_core::message::{Approved, DrillReport, Response, Serving, Submission};
use holdfast_core::time::Timestamp;
use holdfast_core::verdict::{
    BY_PEOPLE, UNCONFIRMED, canary_outcome, drill_outcome_sentence, duration, offset, recovery_millis,
};

use super::evidence::Evidence;

/// Who names are listed of in one line, at most: a cluster may have 255 custodians.
const NAMES_MAX: usize = 24;

/// What a custodian did.
pub(super) struct Row<'a> {
    pub(super) custodian: &'a Principal,
    /// Whether it was to submit first.
    pub(super) first: bool,
    /// Whether it took the intent.
    pub(super) took: bool,
    pub(super) response: Option<&'a Response>,
    /// Why it did not take the intent, or did not submit.
    pub(super) why: Option<&'a str>,
}

/// What an operator did where people had to approve.
pub(super) struct Voice<'a> {
    operator: &'a Principal,
    approved: &'a Approved,
    sealed_at: Option<Timestamp>,
}

/// "Drill of lab on vault-2: passed"
pub(super) fn headline(evidence: &Evidence) -> String {
    let on = evidence.report.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
    format!("Drill of {}{on}: {}", evidence.cluster, evidence.result.as_str())
}

/// What came of it, in a sentence.
pub(super) fn outcome(evidence: &Evidence) -> String {
    let doubt = if evidence.is_unconfirmed() { format!(" That is {UNCONFIRMED}.") } else { String::new() };
    drill_outcome_sentence(&evidence.report) + &doubt
}

/// Names and what they are, in the order in which people ask.
pub(super) fn facts(evidence: &Evidence) -> Vec<(&'static str, String)> {
    let report = &evidence.report;
    let held_for = match (&report.ordered_by, report.slot.time()) {
        (Some(by), _) => format!("an order by {by}"),
        (None, Some(at)) => format!("the schedule, at {at}"),
        (None, None) => format!("the order {}", report.slot),
    };
    let serves = match (report.before, report.after) {
        (None, None) => None,
        (before, after) => Some(format!("{} before, {} after", role(before), role(after))),
    };
    let canary = report.canary.as_ref().map(canary_outcome);
    let opening = report.people.then(|| BY_PEOPLE.to_owned());
    let listed = |all: &[Principal]| (!all.is_empty()).then(|| names(all));
    let all = [
        ("Drill", Some(report.drill.to_string())),
        ("Node", report.node.as_ref().map(ToString::to_string)),
        ("Held for", Some(held_for)),
        ("Reason", report.reason.clone()),
        ("Opening", opening),
        ("Began", Some(report.began_at.to_string())),
        ("Recovery", recovery_millis(report).map(duration)),
        ("Objective", Some(duration(report.objective_ms as f64))),
        ("Serving", serves),
        ("Canary", canary),
        ("Shares needed", Some(report.threshold.to_string())),
        ("Taken by", listed(&report.taken_by)),
        ("First to submit", listed(&report.submitters)),
        ("Conductor", Some(format!("{}, who signed this at {}", evidence.conductor, evidence.issued_at))),
    ];
    all.into_iter().filter_map(|(name, what)| Some((name, what?))).collect()
}

/// The moment from which times are told: the first sight of the node sealed, or what came nearest to it.
pub(super) fn zero(report: &DrillReport) -> Timestamp {
    report.sealed_at.or(report.seal_sent_at).or(report.announced_at).unwrap_or(report.began_at)
}

/// What happened, in the order of time.
pub(super) fn moments(report: &DrillReport) -> Vec<(Timestamp, String)> {
    let own = [
        (Some(report.began_at), "the drill began"),
        (report.announced_at, "the intent was announced"),
        (report.seal_sent_at, "the order to seal left"),
        (report.sealed_at, "the node was first seen sealed"),
        (report.opened_at, "the node was first seen open"),
        (report.served_at, "the node was first seen to serve"),
        (report.closed_at, "the drill was closed"),
    ];
    let own = own.into_iter().filter_map(|(at, what)| Some((at?, what.to_owned())));
    let theirs = report.responses.iter().map(|(custodian, response)| {
        (response.answered_at, format!("{custodian}, share {}: {}", response.x, result(response.result)))
    });
    let canary = report.canary.as_ref().and_then(|canary| Some((canary.read_at?, "the canary was read".to_owned())));
    let people =
        report.approvals.iter().map(|(operator, approved)| (approved.heard_at, format!("{operator} had approved")));
    let mut all: Vec<_> = own.chain(theirs).chain(people).chain(canary).collect();
    all.sort_by_key(|(at, _)| *at);
    all
}

/// What each custodian did that is told of: first those whose turn it was.
pub(super) fn custodians(report: &DrillReport) -> Vec<Row<'_>> {
    let others: BTreeSet<_> =
        report.taken_by.iter().chain(report.declined.keys()).chain(report.responses.keys()).collect();
    let others = others.into_iter().filter(|custodian| !report.submitters.contains(custodian));
    let row = |custodian| Row {
        custodian,
        first: report.submitters.contains(custodian),
        took: report.taken_by.contains(custodian),
        response: report.responses.get(custodian),
        why: report.declined.get(custodian).map(String::as_str),
    };
    report.submitters.iter().chain(others).map(row).collect()
}

/// The columns of what people did.
pub(super) const PEOPLE: [&str; 4] = ["Operator", "Approved after", "Signed at", "Approval"];

/// What each operator did, who answered first, first.
pub(super) fn people(report: &DrillReport) -> Vec<Voice<'_>> {
    let voice = |(operator, approved)| Voice { operator, approved, sealed_at: report.sealed_at };
    let mut all: Vec<_> = report.approvals.iter().map(voice).collect();
    all.sort_by_key(|voice| voice.approved.heard_at);
    all
}

impl Voice<'_> {
    /// In the order of [`PEOPLE`]. How long it took is by the conductor's clock alone: from its sight of the node sealed until it had the
    /// approval.
    pub(super) fn cells(&self) -> [String; 4] {
        let Self { operator, approved, sealed_at } = self;
        let took = sealed_at.map(|sealed_at| approved.heard_at.since(sealed_at));
        [operator.to_string(), millis(took), approved.signed_at.to_string(), approved.id.to_string()]
    }
}

impl Row<'_> {
    /// "first" or "stands by"
    pub(super) const fn turn(&self) -> &'static str {
        if self.first { "first" } else { "stands by" }
    }

    /// How long after it saw the node sealed its share left; by its own clock.
    pub(super) fn response_time(&self) -> Option<Duration> {
        self.response.map(|response| response.submitted_at.since(response.sealed_seen_at))
    }

    /// How long the node took to answer.
    pub(super) fn answer_time(&self) -> Option<Duration> {
        self.response.map(|response| response.answered_at.since(response.submitted_at))
    }

    /// What came of it, or why nothing did.
    pub(super) fn what(&self) -> String {
        match (self.response, self.why) {
            (Some(response), None) => result(response.result).to_owned(),
            (Some(response), Some(why)) => format!("{}; {why}", result(response.result)),
            (None, Some(why)) => why.to_owned(),
            (None, None) if self.first => "no word of it".to_owned(),
            (None, None) => "not needed".to_owned(),
        }
    }
}

/// When it was, from the moment that the node was seen sealed.
pub(super) fn when(report: &DrillReport, at: Timestamp) -> String {
    offset(zero(report), at)
}

/// A time that was measured, or nothing.
pub(super) fn millis(time: Option<Duration>) -> String {
    time.map_or_else(|| "–".to_owned(), |time| duration(time.as_secs_f64() * 1_000.0))
}

/// That this is evidence, and by whose key.
pub(super) fn proof(evidence: &Evidence) -> String {
    format!(
        "Verified: {} signed this report in the namespace holdfast.intent with the key {}, which this operator's \
         allowed_signers accepts.",
        evidence.conductor, evidence.key
    )
}

const fn result(result: Submission) -> &'static str {
    match result {
        Submission::Counted => "counted",
        Submission::Opened => "the node is open",
        Submission::Failed => "the set did not open the node",
        Submission::Unanswered => "no answer",
    }
}

const fn role(serving: Option<Serving>) -> &'static str {
    match serving {
        Some(Serving::Active) => "active",
        Some(Serving::Standby) => "standby",
        None => "not known",
    }
}

fn names(all: &[Principal]) -> String {
    let shown = all.iter().take(NAMES_MAX).map(Principal::as_str).collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
