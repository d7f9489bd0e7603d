//! How an ordered drill goes, put together from what conductors tell, and in words.
//!
//! What is here was verified before (`run`). A captured conductor tells of drills too. The one that is followed is the one whose intent enough
//! custodians say that they took; until they do, the one that has the order. It alone tells of a good end, and that one counts
//! for nothing without those custodians. Another one may end the drill that it took over, and knows of no good end.

use std::collections::{BTreeMap, VecDeque};

use holdfast_core::id::{MessageId, Principal, SlotId};
use holdfast_core::message::{
    Acknowledgement, Content, DrillReport, DrillResult, Effect, Phase, Response, Serving, plain_text,
};
use holdfast_core::time::Timestamp;
use holdfast_core::verdict::{drill_outcome, duration, names};

/// How many of the intents that a custodian said it took last are remembered: it takes one at a time.
const TAKEN_MAX: usize = 8;

/// The drill that an order is for, as far as it has been told.
pub(crate) struct Course {
    order: MessageId,
    slot: SlotId,
    /// How many custodians have to take an intent.
    threshold: usize,
    /// Who has the order, or told of it first.
    holder: Option<Principal>,
    /// The intents that custodians said they took, by custodian.
    taken: BTreeMap<Principal, VecDeque<MessageId>>,
    /// Who named an intent first.
    announced: BTreeMap<MessageId, Principal>,
    told: Option<(Principal, DrillReport)>,
    /// What the last one told that was not believed, if one was not.
    doubt: Option<String>,
}

impl Course {
    /// Nothing has been told yet.
    pub(crate) fn new(order: MessageId, slot: SlotId, threshold: u8) -> Self {
        let (taken, announced) = (BTreeMap::new(), BTreeMap::new());
        let threshold = usize::from(threshold);
        Self { order, slot, threshold, holder: None, taken, announced, told: None, doubt: None }
    }

    /// Whether a conductor has the order.
    pub(crate) const fn is_taken(&self) -> bool {
        self.holder.is_some()
    }

    /// Who conducts the drill, and what they told last.
    pub(crate) fn told(&self) -> (Option<Principal>, Option<DrillReport>) {
        self.told.clone().unzip()
    }

    /// What came of it, once it is over.
    pub(crate) fn result(&self) -> Option<DrillResult> {
        self.told.as_ref().and_then(|(_, report)| report.result)
    }

    /// Why an end was not believed that somebody told of.
    pub(crate) fn doubt(&self) -> Option<&str> {
        self.doubt.as_deref()
    }

    /// Takes in what somebody told, and gives what is new about it, line by line.
    pub(crate) fn hear(&mut self, from: &Principal, content: &Content) -> Vec<String> {
        match content {
            Content::Acknowledgement(answer) if answer.order == self.order => self.hear_holder(from, &answer.effect),
            Content::Acknowledgement(answer) => {
                self.hear_taken(from, answer);
                Vec::new()
            }
            Content::DrillReport(report) if report.slot == self.slot && self.result().is_none() => {
                self.hear_report(from, report)
            }
            _ => Vec::new(),
        }
    }

    fn hear_holder(&mut self, from: &Principal, effect: &Effect) -> Vec<String> {
        if self.is_taken() {
            return Vec::new();
        }
        match effect {
            Effect::InForce {} => {
                self.holder = Some(from.clone());
                vec![format!("  {from} has the order")]
            }
            Effect::Inapplicable { why } => vec![format!("  {from}: cannot: {}", plain_text(why))],
            Effect::Waiting { .. } => Vec::new(),
        }
    }

    /// A custodian took an intent. One that takes its word back, since no other seal is covered, had taken it all the same.
    fn hear_taken(&mut self, from: &Principal, Acknowledgement { order: intent, effect, .. }: &Acknowledgement) {
        let taken = self.taken.entry(from.clone()).or_default();
        if *effect == (Effect::InForce {}) && !taken.contains(intent) {
            if taken.len() >= TAKEN_MAX {
                taken.pop_front();
            }
            taken.push_back(*intent);
        }
    }

    fn hear_report(&mut self, from: &Principal, report: &DrillReport) -> Vec<String> {
        if let Some(intent) = report.intent {
            self.announced.entry(intent).or_insert_with(|| from.clone());
        }
        let conducts = self.conducts(from, report);
        let good = matches!(report.result, Some(DrillResult::Passed | DrillResult::Late));
        if good && !conducts {
            let result = report.result.map_or("", DrillResult::as_str);
            let why = format!(
                "{from} tells of an end ({result}) of a drill whose intent too few custodians are known to have taken"
            );
            let lines = if self.doubt.is_none() { vec![format!("  {why}")] } else { Vec::new() };
            self.doubt = Some(why);
            return lines;
        }
        let holder = self.holder.get_or_insert_with(|| from.clone());
        let follows = conducts || (*holder == *from && !self.is_conducted());
        let same = self.told.as_ref().is_none_or(|(_, told)| told.drill == report.drill);
        let took_over =
            matches!(report.result, Some(DrillResult::Interrupted | DrillResult::Failed | DrillResult::Aborted));
        let ends = same && took_over;
        if !(follows || ends) {
            return Vec::new();
        }
        // What was told of another drill is nothing that came before.
        let before = self.told.replace((from.clone(), report.clone())).filter(|_| same);
        progress(from, before.as_ref().map(|(_, report)| report), report)
    }

    /// Whether this is the conductor whose intent enough custodians took.
    fn conducts(&self, from: &Principal, report: &DrillReport) -> bool {
        report.intent.is_some_and(|intent| self.is_held(&intent) && self.announced.get(&intent) == Some(from))
    }

    fn is_conducted(&self) -> bool {
        self.announced.keys().any(|intent| self.is_held(intent))
    }

    fn is_held(&self, intent: &MessageId) -> bool {
        self.taken.values().filter(|taken| taken.contains(intent)).count() >= self.threshold
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
    lines.push(format!("drill {}: {}", report.drill, drill_outcome(report)));
    lines
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ORDER: &str = "741ab2fcd51c210554075ee69e3aa4f3";
    const INTENT: &str = "0123456789abcdef0123456789abcdef";

    fn course() -> Course {
        let order: MessageId = ORDER.parse().expect("an id");
        Course::new(order, SlotId::of_order(order), 3)
    }

    /// Three custodians say that they took an intent.
    fn take(course: &mut Course, intent: &str) {
        for custodian in ["custodian-2", "custodian-3", "custodian-4"] {
            let order = intent.parse().expect("an id");
            let answer = Acknowledgement { order, effect: Effect::InForce {}, in_flight: Vec::new() };
            assert!(course.hear(&name(custodian), &Content::Acknowledgement(answer)).is_empty());
        }
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
            "before": "standby", "after": "standby", "recovery_us": 122_860, "intent": INTENT,
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
        take(&mut course, INTENT);
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
            "drill ade2bd00e560c7c36f6dfe8376c8daac: late: open after 123 ms, objective 100 ms",
        ];
        assert_eq!(lines, expected);
        assert_eq!(course.result(), Some(DrillResult::Late));
        // The first end is the end.
        assert!(course.hear(&name("custodian-2"), &closed("passed", json!({}))).is_empty());
        assert_eq!(course.result(), Some(DrillResult::Late));
    }

    #[test]
    fn a_captured_conductors_word_makes_no_good_end() {
        let (conductor, captured) = (name("custodian-1"), name("custodian-5"));
        let own = json!({"intent": "ff".repeat(16), "drill": "ee".repeat(16)});
        // It is the first to tell, it says that it has the order, and it may name the intent of the other one later.
        let mut course = course();
        let answer =
            Acknowledgement { order: ORDER.parse().expect("an id"), effect: Effect::InForce {}, in_flight: [].into() };
        course.hear(&captured, &Content::Acknowledgement(answer));
        for result in ["passed", "late"] {
            course.hear(&captured, &closed(result, own.clone()));
            assert_eq!(course.result(), None);
        }
        assert!(course.doubt().is_some_and(|why| why.starts_with("custodian-5 tells of an end (late)")));
        let two =
            Acknowledgement { order: INTENT.parse().expect("an id"), effect: Effect::InForce {}, in_flight: [].into() };
        for custodian in ["custodian-5", "custodian-2"] {
            course.hear(&name(custodian), &Content::Acknowledgement(two.clone()));
        }
        course.hear(
            &conductor,
            &report("announced", json!({"intent": INTENT, "announced_at": "2026-11-24T14:47:06.500Z"})),
        );
        course.hear(&conductor, &closed("passed", json!({})));
        assert_eq!(course.result(), None, "two are not enough");
        take(&mut course, INTENT);
        for more in [own.clone(), json!({})] {
            course.hear(&captured, &closed("passed", more));
            course.hear(&captured, &closed("refused", own.clone()));
            assert_eq!(course.result(), None);
        }
        course.hear(&conductor, &closed("passed", json!({})));
        assert_eq!((course.told().0, course.result()), (Some(conductor), Some(DrillResult::Passed)));
    }

    #[test]
    fn who_takes_a_drill_over_may_end_it_and_another_drills_end_is_none() {
        let (mut course, conductor, other) = (course(), name("custodian-1"), name("custodian-2"));
        take(&mut course, INTENT);
        course.hear(&conductor, &report("sealed", times()));
        course.hear(&other, &closed("interrupted", json!({"drill": "ee".repeat(16)})));
        assert_eq!(course.result(), None);
        course.hear(&other, &closed("interrupted", json!({})));
        assert_eq!((course.told().0, course.result()), (Some(other), Some(DrillResult::Interrupted)));
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
