//! A drill's report as Markdown, for a ticket or a wiki.

use std::fmt::{Display, Write as _};

use holdfast_core::verdict::{duration, recovery_millis};

use super::evidence::Evidence;
use super::report::Trend;
use super::story;

/// What means something in Markdown, or in the HTML that is made of it.
const MARKS: &str = "\\`*_{}[]<>()#+!|~&\"'$^=";

/// The report.
pub(super) fn render(evidence: &Evidence, trend: &Trend) -> String {
    let report = &evidence.report;
    let mut text = format!("# {}\n\n{}\n", escaped(story::headline(evidence)), escaped(story::outcome(evidence)));
    table(&mut text, &["", ""], story::facts(evidence).into_iter().map(|(name, what)| vec![name.to_owned(), what]));
    text.push_str("\n## What happened\n");
    let moments =
        story::moments(report).into_iter().map(|(at, what)| vec![story::when(report, at), at.to_string(), what]);
    table(&mut text, &["Since it was seen sealed", "Time", "What"], moments);
    text.push_str("\nThe node's moments are by the conductor's clock, each share's by its custodian's.\n");
    let rows = story::custodians(report);
    if !rows.is_empty() {
        text.push_str("\n## Custodians\n");
        let rows = rows.into_iter().map(|row| {
            let took = if row.took { "yes" } else { "no" };
            let (left, answered) = (story::millis(row.response_time()), story::millis(row.answer_time()));
            vec![row.custodian.to_string(), row.turn().to_owned(), took.to_owned(), left, answered, row.what()]
        });
        table(&mut text, &["Custodian", "Turn", "Took it", "Share left after", "Answered after", "Result"], rows);
    }
    let people = story::people(report);
    if !people.is_empty() {
        text.push_str("\n## People\n");
        table(&mut text, &story::PEOPLE, people.iter().map(|voice| voice.cells().to_vec()));
    }
    if trend.drills.len() > 1 {
        text.push_str("\n## The last drills\n");
        let drills = trend.drills.iter().map(|drill| {
            let report = &drill.report;
            let node = report.node.as_ref().map_or_else(|| "–".to_owned(), ToString::to_string);
            let recovery = recovery_millis(report).map_or_else(|| "–".to_owned(), duration);
            vec![report.began_at.to_string(), node, drill.in_short(), recovery, duration(report.objective_ms as f64)]
        });
        table(&mut text, &["Began", "Node", "Result", "Recovery", "Objective"], drills);
    }
    for line in [Some(story::proof(evidence)), trend.left_out()].into_iter().flatten() {
        let _ = write!(text, "\n{}\n", escaped(line));
    }
    text.trim_end().to_owned()
}

/// A text that stays one, whatever is in it.
fn escaped(text: impl Display) -> String {
    let mut safe = String::new();
    for c in text.to_string().chars() {
        if MARKS.contains(c) {
            safe.push('\\');
        }
        safe.push(c);
    }
    safe
}

fn table(text: &mut String, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    text.push('\n');
    text.push_str(&line(header.iter().map(ToString::to_string).collect()));
    text.push_str(&line(header.iter().map(|_| "---".to_owned()).collect()));
    for row in rows {
        text.push_str(&line(row.into_iter().map(escaped).collect()));
    }
}
