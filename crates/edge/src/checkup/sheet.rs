//! The sheet that findings are written on: for people as they come, grouped and marked, with what is being done while it is
//! done; for programs as one JSON document at the end.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};

use holdfast_core::message::plain_lines;
use holdfast_core::time::Timestamp;
use serde::Serialize;

use super::finding::{Finding, Grade};

/// A terminal's line is broken at words before this column. Elsewhere a finding is one line, which `grep` finds whole.
const WIDTH: usize = 100;

/// Where a finding's text begins.
const INDENT: usize = 4;

/// Where what to do begins.
const INDENT_REMEDY: usize = 6;

/// A check-up's sheet.
#[derive(Debug)]
pub struct Sheet {
    subject: String,
    at: Timestamp,
    json: bool,
    /// Whether lines are broken, for a person at a terminal.
    terminal: bool,
    colour: bool,
    /// Whether what is being done is shown, and is wiped away by what is found.
    progress: bool,
    doing: bool,
    group: String,
    begun: bool,
    entries: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    group: String,
    #[serde(flatten)]
    finding: Finding,
}

#[derive(Serialize)]
struct Document<'a> {
    subject: &'a str,
    at: Timestamp,
    version: &'static str,
    ok: usize,
    warnings: usize,
    failed: usize,
    findings: &'a [Entry],
}

impl Sheet {
    /// A new sheet about `subject`, on standard output.
    pub fn new(subject: impl Into<String>, at: Timestamp, json: bool) -> Self {
        let smart = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        let terminal = smart && !json && io::stdout().is_terminal();
        Self {
            subject: subject.into(),
            at,
            json,
            terminal,
            colour: terminal && !unwanted,
            progress: smart && io::stderr().is_terminal(),
            doing: false,
            group: String::new(),
            begun: false,
            entries: Vec::new(),
        }
    }

    /// What the next findings are about.
    pub fn group(&mut self, title: impl Into<String>) {
        self.group = title.into();
        self.begun = false;
    }

    /// What is being done, for whoever waits for it. The next finding takes its place.
    pub fn doing(&mut self, what: &str) {
        if self.progress {
            let line: String = format!("  … {what}").chars().take(WIDTH - 1).collect();
            put_stderr(&format!("\r\x1b[K{line}"));
            self.doing = true;
        }
    }

    /// Writes a finding down. Much of it is what others wrote, and none of that reaches a terminal as anything but text.
    pub fn add(&mut self, finding: Finding) {
        self.wipe();
        let Finding { check, grade, what, remedy } = finding;
        // What was seen is one line.
        let what = plain_lines(&what).replace('\n', " ");
        let finding = Finding { check, grade, what, remedy: remedy.as_deref().map(plain_lines) };
        if !self.json {
            if !std::mem::replace(&mut self.begun, true) {
                self.put(&format!("\n{}", self.paint("1", &self.group)));
            }
            for line in self.lines(&finding) {
                self.put(&line);
            }
        }
        self.entries.push(Entry { group: self.group.clone(), finding });
    }

    /// Writes several down.
    pub fn add_all(&mut self, findings: impl IntoIterator<Item = Finding>) {
        findings.into_iter().for_each(|finding| self.add(finding));
    }

    /// Sums up. Returns whether nothing failed.
    pub fn end(mut self) -> bool {
        self.wipe();
        let [ok, warnings, failed] = [Grade::Ok, Grade::Warning, Grade::Failed].map(|grade| self.count(grade));
        if self.json {
            let Self { subject, at, entries, .. } = &self;
            let version = env!("CARGO_PKG_VERSION");
            let document = Document { subject, at: *at, version, ok, warnings, failed, findings: entries };
            self.put(&serde_json::to_string_pretty(&document).expect("strings and numbers always become JSON"));
        } else {
            let mark = self.mark(self.entries.iter().map(|entry| entry.finding.grade).max().unwrap_or(Grade::Ok));
            let warned = if warnings == 1 { "1 warning" } else { &format!("{warnings} warnings") };
            let subject = &self.subject;
            self.put(&format!("\n{mark} {subject}: {failed} failed, {warned}, {ok} as they should be"));
        }
        failed == 0
    }

    fn count(&self, grade: Grade) -> usize {
        self.entries.iter().filter(|entry| entry.finding.grade == grade).count()
    }

    fn lines(&self, finding: &Finding) -> Vec<String> {
        let mut lines = Vec::new();
        let mut first = format!("  {} ", self.mark(finding.grade));
        for line in self.wrap(&finding.what, INDENT) {
            lines.push(format!("{first}{line}"));
            first = " ".repeat(INDENT);
        }
        let remedy = finding.remedy.iter().flat_map(|text| text.lines());
        for line in remedy.flat_map(|line| self.wrap(line, INDENT_REMEDY)) {
            lines.push(format!("{:INDENT_REMEDY$}{}", "", self.paint("36", &line)));
        }
        lines
    }

    fn mark(&self, grade: Grade) -> Cow<'static, str> {
        match grade {
            Grade::Ok => self.paint("32", "✓"),
            Grade::Warning => self.paint("33", "!"),
            Grade::Failed => self.paint("1;31", "✗"),
        }
    }

    fn paint(&self, ink: &str, text: &str) -> Cow<'static, str> {
        if self.colour { format!("\x1b[{ink}m{text}\x1b[0m").into() } else { text.to_owned().into() }
    }

    /// The text in lines that fit behind an indent; whole, where it is not for a person at a terminal.
    fn wrap(&self, text: &str, indent: usize) -> Vec<String> {
        if self.terminal { wrap(text, WIDTH - indent) } else { vec![text.to_owned()] }
    }

    fn wipe(&mut self) {
        if std::mem::take(&mut self.doing) {
            put_stderr("\r\x1b[K");
        }
    }

    fn put(&self, line: &str) {
        // Nowhere left to say it if this fails.
        let _ = writeln!(io::stdout(), "{line}");
    }
}

/// Breaks a text into lines at its spaces. A word that is longer than a line, such as a key or a path, has one of its own: it is
/// there to be copied.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

fn put_stderr(text: &str) {
    let mut stderr = io::stderr();
    // Progress that nobody can see is no reason to stop.
    let _ = write!(stderr, "{text}").and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(terminal: bool, colour: bool) -> Sheet {
        let at = Timestamp::from_millis(1_795_348_800_000);
        Sheet { terminal, colour, progress: false, ..Sheet::new("somebody", at, false) }
    }

    #[test]
    fn a_finding_is_one_line_and_its_remedy_stands_below() {
        let long = "word ".repeat(60);
        let finding = Finding::failed("x", long.trim_end(), "do this\nthen that");
        let plain = sheet(false, false).lines(&finding);
        assert_eq!(plain, [format!("  ✗ {}", long.trim_end()), "      do this".into(), "      then that".into()]);
        let broken = sheet(true, false).lines(&finding);
        assert!(broken.len() > 4 && broken.iter().all(|line| line.chars().count() <= WIDTH), "{broken:#?}");
        assert!(broken[1].starts_with("    word") && broken.last().is_some_and(|line| line == "      then that"));
    }

    #[test]
    fn lines_break_at_spaces_and_nowhere_else() {
        assert_eq!(wrap("a crashed node opens", 9), ["a crashed", "node", "opens"]);
        assert_eq!(wrap("see /a/path/that/is/long now", 8), ["see", "/a/path/that/is/long", "now"]);
        assert_eq!(wrap("✓ ✗ – ✓", 3), ["✓ ✗", "– ✓"], "columns are counted, not bytes");
        assert_eq!(wrap("", 8), [""]);
    }

    #[test]
    fn what_others_wrote_is_text() {
        let mut sheet = sheet(true, true);
        sheet.add(Finding::warning("x", "runs \x1b[2J\u{9b}1m\nversion\u{202e}", "type\n\x1b]0;this"));
        let Finding { what, remedy, .. } = &sheet.entries[0].finding;
        assert_eq!((what.as_str(), remedy.as_deref()), ("runs  [2J 1m version ", Some("type\n ]0;this")));
    }

    #[test]
    fn colour_is_only_where_it_is_wanted() {
        let finding = Finding::warning("x", "what", "remedy");
        assert!(sheet(true, false).lines(&finding).iter().all(|line| !line.contains('\x1b')));
        assert_eq!(sheet(true, true).lines(&finding)[0], "  \x1b[33m!\x1b[0m what");
    }

    #[test]
    fn warnings_are_allowed_and_failures_are_not() {
        let mut sheet = sheet(false, false);
        sheet.json = true;
        sheet.add(Finding::warning("x", "what", "remedy"));
        assert!(sheet.count(Grade::Warning) == 1 && sheet.count(Grade::Failed) == 0);
        sheet.add(Finding::failed("y", "what", "remedy"));
        assert!(!sheet.end());
    }
}
