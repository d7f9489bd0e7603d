//! How an ordered drill goes, put together from what conductors tell, and in words.
//!
//! What is here was verified before (`run`). The first report that closes the drill is its end; what comes later changes nothing.

use std::fmt::Write as _;

use holdfast_core::id::{MessageId, Principal, SlotId};
use holdfast_core::message::{Content, DrillReport, DrillResult, Effect, Phase, Response, Serving, plain_text};
use holdfast_core::time::Timestamp;
use holdfast_core::verdict::{duration, names};

/// The drill that an order is for, as far as it has been told.
pub(crate) struct Course {
    order: MessageId,
    slot: SlotId,
    taken: bool,
    told: Option<(Principal, DrillReport)>,
}

impl Course {
    /// Nothing has been told yet.
    pub(crate) fn new(order: MessageId, slot: SlotId) -> Self {
        Self { order, slot, taken: false, told: None }
    }

    /// Whether a conductor has the order.
    pub(crate) fn is_taken(&self) -> bool {
        self.taken || self.told.is_some()
    }

    /// Who conducts the drill, and what they told last.
    pub(crate) fn told(&self) -> (Option<Principal>, Option<DrillReport>) {
        self.told.clone().unzip()
    }

    /// What came of it, once it is over.
    pub(crate) fn result(&self) -> Option<DrillResult> {
        self.told.as_ref().and_then(|(_, report)| report.result)
    }

    /// Takes in what somebody told, and gives what is new about it, line by line.
    pub(crate) fn hear(&mut self, from: &Principal, content: &Content) -> Vec<String> {
        match content {
            Content::Acknowledgement(answer) if answer.order == self.order && !self.is_taken() => {
                self.taken = true;
                match &answer.effect {
                    Effect::InForce {} => vec![format!("  {from} has the order")],
                    Effect::Inapplicable { why } => vec![format!("  {from}: cannot: {}", plain_text(why))],
                    Effect::Waiting { .. } => Vec::new(),
                }
            }
            Content::DrillReport(report) if report.slot == self.slot && self.result().is_none() => {
                let before = self.told.replace((from.clone(), (**report).clone()));
                progress(from, before.as_ref().map(|(_, report)| report), report)
            }
            _ => Vec::new(),
        }
    }
}

/// What is new in a report.
fn progress(from: &Principal, before: Option<&DrillReport>, now: &DrillReport) -> Vec<String> {
    let mut lines = Vec::new();
    let reached = |phase: Phase| now.phase >= phase && before.is_none_or(|before| before.phase < phase);
    let node = now.node.as_ref().map_or_else(|| "a node".to_owned(), ToString::to_string);
    if reached(Phase::Preflight) {
        lines.push(format!("  {from} looks whether it may be held"));
    }
    if reached(Phase::Announced) && now.announced_at.is_some() {
        lines.push(format!("  {node}: announced; {} are to submit", names(&now.submitters.iter().collect())));
    }
    if reached(Phase::Sealing) && now.seal_sent_at.is_some() {
        lines.push(format!("  {node}: {} custodians have taken the intent; told to seal itself", now.taken_by.len()));
    }
    if reached(Phase::Sealed) && now.sealed_at.is_some() {
        lines.push(format!("  {node}: sealed"));
    }
    if reached(Phase::Open) && now.opened_at.is_some() {
        let after = now.recovery_us.map_or_else(String::new, |us| format!(", {} later", micros(us)));
        lines.push(format!("  {node}: open{after}"));
    }
    let late = |report: &DrillReport| report.phase == Phase::Sealed && report.why.is_some();
    if late(now) && !before.is_some_and(late) {
        lines.push(format!("  {node}: {}", plain_text(now.why.as_deref().unwrap_or_default())));
    }
    if now.result.is_some() {
        lines.extend(conclusion(now));
    }
    lines
}

/// The short table at the end, and what came of it.
fn conclusion(report: &DrillReport) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(sealed_at) = report.sealed_at {
        let after = |at: Timestamp| since(sealed_at, at);
        let mut rows = Vec::new();
        let mut row = |what: String, at: String, more: String| rows.push((what, at, more));
        if let Some(at) = report.seal_sent_at {
            row("seal sent".to_owned(), after(at), at.to_string());
        }
        row("sealed seen".to_owned(), after(sealed_at), sealed_at.to_string());
        let mut responses: Vec<_> = report.responses.iter().collect();
        responses.sort_by_key(|(_, response)| response.submitted_at);
        for (custodian, response) in responses {
            row(custodian.to_string(), after(response.submitted_at), answered(response));
        }
        if let Some(at) = report.opened_at {
            row("open".to_owned(), after(at), at.to_string());
        }
        if let Some(at) = report.served_at {
            let what = report.after.map_or("", in_words);
            row("serves".to_owned(), after(at), what.to_owned());
        }
        let width = |of: fn(&(String, String, String)) -> &str| rows.iter().map(|row| of(row).len()).max().unwrap_or(0);
        let (first, second) = (width(|row| &row.0), width(|row| &row.1));
        lines.push(String::new());
        for (what, at, more) in &rows {
            lines.push(format!("  {what:<first$}  {at:>second$}  {more}").trim_end().to_owned());
        }
        lines.push(String::new());
    }
    for (custodian, why) in &report.declined {
        lines.push(format!("  {custodian} took no part: {}", plain_text(why)));
    }
    lines.push(verdict(report));
    lines
}

/// What came of it, in a sentence.
fn verdict(report: &DrillReport) -> String {
    let result = report.result.map_or("", DrillResult::as_str);
    let mut text = format!("drill {}: {result}", report.drill);
    // Writing to a string cannot fail.
    let _ = match report.recovery_us {
        Some(us) => {
            let met = if us / 1000 <= report.objective_ms { "met" } else { "missed" };
            write!(text, "; sealed for {}, objective {} {met}", micros(us), millis(report.objective_ms))
        }
        None => Ok(()),
    };
    if let Some(why) = &report.why {
        let _ = write!(text, ": {}", plain_text(why));
    }
    text
}

fn answered(response: &Response) -> String {
    let took = since(response.submitted_at, response.answered_at);
    format!("share {}: {}, answered after {}", response.x, response.result.as_str(), took.trim_start_matches('+'))
}

const fn in_words(serving: Serving) -> &'static str {
    match serving {
        Serving::Active => "as the active node",
        Serving::Standby => "as a standby",
    }
}

/// From one moment to another, with its sign: the two may be of two clocks.
fn since(from: Timestamp, to: Timestamp) -> String {
    let millis = to.as_millis().saturating_sub(from.as_millis());
    let sign = if millis < 0 { '-' } else { '+' };
    format!("{sign}{} ms", millis.unsigned_abs())
}

fn micros(us: u64) -> String {
    duration(us as f64 / 1_000.0)
}

fn millis(ms: u64) -> String {
    duration(ms as f64)
}
