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
        lines.push(match now.people {
            true => format!("  {node}: announced; people have to approve its opening"),
            false => format!("  {node}: announced; {} are to submit", names(&now.submitters.iter().collect())),
        });
    }
    if reached(Phase::Sealing) && now.seal_sent_at.is_some() {
        lines.push(format!("  {node}: {} custodians have taken the intent; told to seal itself", now.taken_by.len()));
    }
    if reached(Phase::Sealed) && now.sealed_at.is_some() {
        let people = if now.people { "; it waits for approvals: holdfast status says how many" } else { "" };
        lines.push(format!("  {node}: sealed{people}"));
    }
    if reached(Phase::Open) && now.opened_at.is_some() {
        let after = now.recovery_us.map_or_else(String::new, |us| format!(", {} later", micros(us)));
        lines.push(format!("  {node}: open{after}"));
    }
    for (operator, approved) in &now.approvals {
        if !before.is_some_and(|before| before.approvals.contains_key(operator)) {
            let after = now
                .sealed_at
                .map_or_else(String::new, |at| format!(", {} after the seal", took(at, approved.heard_at)));
            lines.push(format!("  {node}: {operator} has approved{after}"));
        }
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
        for (operator, approved) in &report.approvals {
            row(operator.to_string(), after(approved.heard_at), format!("approved at {}", approved.signed_at));
        }
        if let Some(at) = report.opened_at {
            row("open".to_owned(), after(at), at.to_string());
        }
        if let Some(at) = report.served_at {
            let what = report.after.map_or("", in_words);
            row("serves".to_owned(), after(at), what.to_owned());
        }
        if let Some(at) = report.canary.as_ref().and_then(|canary| canary.read_at) {
            row("canary read".to_owned(), after(at), String::new());
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

fn took(from: Timestamp, to: Timestamp) -> String {
    duration(to.since(from).as_secs_f64() * 1_000.0)
}

fn micros(us: u64) -> String {
    duration(us as f64 / 1_000.0)
}

fn millis(ms: u64) -> String {
    duration(ms as f64)
}

#[cfg(test)]
mod tests {
    use holdfast_core::message::Acknowledgement;
    use serde_json::{Value, json};

    use super::*;

    const ORDER: &str = "741ab2fcd51c210554075ee69e3aa4f3";

    fn course() -> Course {
        let order: MessageId = ORDER.parse().expect("an id");
        Course::new(order, SlotId::of_order(order))
    }

    fn name(text: &str) -> Principal {
        text.parse().expect("a name")
    }

    /// A report of a drill of vault-2, with more in it.
    fn report(phase: &str, more: Value) -> Content {
        let mut report = json!({
            "drill": "ade2bd00e560c7c36f6dfe8376c8daac", "slot": ORDER, "node": "vault-2", "ordered_by": "alice", "phase": phase,
            "began_at": "2026-11-24T14:47:06.000Z", "objective_ms": 100, "threshold": 3,
        });
        report.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        Content::DrillReport(Box::new(serde_json::from_value(report).expect("a report")))
    }

    fn times() -> Value {
        json!({
            "announced_at": "2026-11-24T14:47:06.500Z", "seal_sent_at": "2026-11-24T14:47:06.738Z",
            "sealed_at": "2026-11-24T14:47:06.857Z", "opened_at": "2026-11-24T14:47:06.980Z",
            "served_at": "2026-11-24T14:47:07.001Z", "closed_at": "2026-11-24T14:47:08.001Z",
            "submitters": ["custodian-1", "custodian-3"], "taken_by": ["custodian-1", "custodian-2", "custodian-3", "custodian-4"],
            "before": "standby", "after": "standby", "recovery_us": 122_860,
        })
    }

    fn closed(result: &str, more: Value) -> Content {
        let mut all = times();
        all["result"] = result.into();
        all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        report("closed", all)
    }

    #[test]
    fn each_step_is_told_once_and_the_end_with_a_table() {
        let (mut course, conductor) = (course(), name("custodian-1"));
        let taken =
            Acknowledgement { order: ORDER.parse().expect("an id"), effect: Effect::InForce {}, in_flight: Vec::new() };
        assert_eq!(course.hear(&conductor, &Content::Acknowledgement(taken.clone())), ["  custodian-1 has the order"]);
        assert!(course.is_taken() && course.hear(&name("custodian-2"), &Content::Acknowledgement(taken)).is_empty());
        let preflight = report("preflight", json!({}));
        assert_eq!(course.hear(&conductor, &preflight), ["  custodian-1 looks whether it may be held"]);
        assert!(course.hear(&conductor, &preflight).is_empty(), "nothing is new about it");
        // One that is told is told with those before it that were lost.
        let lines = course.hear(&conductor, &report("sealed", times()));
        let expected = [
            "  vault-2: announced; custodian-1, custodian-3 are to submit",
            "  vault-2: 4 custodians have taken the intent; told to seal itself",
            "  vault-2: sealed",
        ];
        assert_eq!(lines, expected);
        let response = |x: u8, result: &str, submitted: u32| {
            json!({
                "x": x, "result": result, "sealed_seen_at": "2026-11-24T14:47:06.900Z",
                "submitted_at": format!("2026-11-24T14:47:06.{submitted}Z"), "answered_at": "2026-11-24T14:47:06.975Z",
            })
        };
        let more = json!({
            "responses": {"custodian-1": response(119, "opened", 968), "custodian-4": response(7, "counted", 850)},
            "declined": {"custodian-3": "no word of it came"}, "why": "the node opened later than the objective allows",
        });
        let lines = course.hear(&conductor, &closed("late", more));
        let expected = [
            "  vault-2: open, 123 ms later",
            "",
            "  seal sent    -119 ms  2026-11-24T14:47:06.738Z",
            "  sealed seen    +0 ms  2026-11-24T14:47:06.857Z",
            "  custodian-4    -7 ms  share 7: counted, answered after 125 ms",
            "  custodian-1  +111 ms  share 119: opened, answered after 7 ms",
            "  open         +123 ms  2026-11-24T14:47:06.980Z",
            "  serves       +144 ms  as a standby",
            "",
            "  custodian-3 took no part: no word of it came",
            "drill ade2bd00e560c7c36f6dfe8376c8daac: late; sealed for 123 ms, objective 100 ms missed: the node opened later \
             than the objective allows",
        ];
        assert_eq!(lines, expected);
        assert_eq!(course.result(), Some(DrillResult::Late));
        // The first end is the end.
        assert!(course.hear(&name("custodian-2"), &closed("passed", json!({}))).is_empty());
        assert_eq!(course.result(), Some(DrillResult::Late));
    }

    #[test]
    fn one_that_is_refused_says_why_and_other_drills_say_nothing() {
        let (mut course, conductor) = (course(), name("custodian-1"));
        let other = json!({"slot": "00112233445566778899aabbccddeeff", "result": "passed"});
        assert!(course.hear(&conductor, &report("closed", other)).is_empty() && !course.is_taken());
        let more = json!({"result": "refused", "why": "vault-1: an operator's hold is in force"});
        let lines = course.hear(&conductor, &report("closed", more));
        assert_eq!(lines.len(), 2, "{lines:?}");
        let last = "drill ade2bd00e560c7c36f6dfe8376c8daac: refused: vault-1: an operator's hold is in force";
        assert_eq!(lines[1], last);
    }
}
