//! What the demo looks like: aligned lines, and at a terminal colour and a running clock. Elsewhere plain lines, without one
//! control character. What is said is `tour`'s.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use holdfast_core::verdict;
use holdfast_edge::checkup::wrap;

/// The width of plain output.
const PLAIN_WIDTH: usize = 80;
/// A terminal narrower than this wraps what it must.
const WIDTH_MIN: usize = 60;
/// Longer lines are hard to read, however wide the terminal is.
const WIDTH_MAX: usize = 100;
/// How often the running clock is drawn: as often as an eye sees a difference.
const FRAME: Duration = Duration::from_millis(40);
/// Where a line's text begins.
const INDENT: usize = 10;
/// Where the text behind a time begins.
const INDENT_TIMED: usize = INDENT + 10;

/// How a part of a line is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    Plain,
    Title,
    Faint,
    Good,
    Bad,
    Clock,
}

/// Where the demo is shown.
#[derive(Debug)]
pub(crate) struct Screen {
    on_stderr: bool,
    terminal: bool,
    colour: bool,
    /// When the running clock was last drawn, if it stands on the last line.
    drawn: Option<Instant>,
    label: &'static str,
}

impl Screen {
    /// Standard output, or the other one where standard output is for programs.
    pub(crate) fn new(on_stderr: bool) -> Self {
        let terminal = if on_stderr { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        let terminal = terminal && !dumb;
        Self { on_stderr, terminal, colour: terminal && !unwanted, drawn: None, label: "" }
    }

    /// A line as it is, or an empty one.
    pub(crate) fn line(&mut self, ink: Ink, text: &str) {
        self.put(&self.paint(ink, text));
    }

    /// Prose over the whole width.
    pub(crate) fn prose(&mut self, text: &str) {
        for line in wrap(text, self.width()) {
            self.put(&line);
        }
    }

    /// The head of a step.
    pub(crate) fn step(&mut self, number: usize, title: &str) {
        self.label = "";
        self.put("");
        self.put(&self.paint(Ink::Title, &format!("{number}  {title}")));
    }

    /// What is claimed.
    pub(crate) fn claim(&mut self, text: &str) {
        self.labelled("claim", text);
    }

    /// What is done about it.
    pub(crate) fn does(&mut self, text: &str) {
        self.labelled("do", text);
    }

    /// What was seen.
    pub(crate) fn saw(&mut self, text: &str) {
        self.labelled("saw", text);
    }

    /// What was seen, and when.
    pub(crate) fn saw_at(&mut self, at: Duration, text: &str) {
        let label = self.label("saw");
        for (number, line) in wrap(text, self.width() - INDENT_TIMED).into_iter().enumerate() {
            if number == 0 {
                self.put(&format!("{label}{:>8}  {line}", clock(at)));
            } else {
                self.put(&format!("{:INDENT_TIMED$}{line}", ""));
            }
        }
    }

    /// Lines that a command prints, indented. Sentences are broken to fit; what is aligned or to be typed stays as it is.
    pub(crate) fn quote(&mut self, text: &str) {
        let room = self.width() - INDENT;
        self.put("");
        for line in text.lines() {
            let whole = line.starts_with(' ') || line.chars().count() <= room;
            for line in if whole { vec![line.to_owned()] } else { wrap(line, room) } {
                let line = format!("{:INDENT$}{line}", "");
                self.put(&self.paint(Ink::Faint, line.trim_end()));
            }
        }
        self.put("");
        self.label = "";
    }

    /// How a step ended.
    pub(crate) fn verdict(&mut self, held: bool, text: &str) {
        let (ink, mark) = if held { (Ink::Good, '✓') } else { (Ink::Bad, '✗') };
        for (number, line) in wrap(text, self.width() - INDENT).into_iter().enumerate() {
            let mark = if number == 0 { self.paint(ink, &format!("   {mark:<7}")) } else { format!("{:INDENT$}", "") };
            self.put(&format!("{mark}{line}"));
        }
    }

    /// One line of the table at the end: a mark, the claim, and what was measured.
    pub(crate) fn row(&mut self, held: Option<bool>, claim: &str, column: usize, measured: &str) {
        let mark = match held {
            Some(true) => self.paint(Ink::Good, "✓"),
            Some(false) => self.paint(Ink::Bad, "✗"),
            None => self.paint(Ink::Faint, "–"),
        };
        let room = self.width().saturating_sub(column + 5).max(20);
        for (number, line) in wrap(measured, room).into_iter().enumerate() {
            if number == 0 {
                self.put(&format!("{mark}  {claim:<column$}  {line}"));
            } else {
                self.put(&format!("{:width$}{line}", "", width = column + 5));
            }
        }
    }

    /// Draws the running clock with what is there now, at a terminal.
    pub(crate) fn tick(&mut self, since: Instant, text: &str) {
        if !self.terminal || self.drawn.is_some_and(|drawn| drawn.elapsed() < FRAME) {
            return;
        }
        let room = self.width().saturating_sub(INDENT_TIMED);
        let text: String = text.chars().take(room).collect();
        let line = self.paint(Ink::Clock, &format!("{:INDENT$}{:>8}  {text}", "", clock(since.elapsed())));
        self.write(&format!("\r\x1b[2K{line}"));
        self.drawn = Some(Instant::now());
    }

    /// Keeps the clock running while something else is done.
    pub(crate) async fn during<T>(
        &mut self,
        since: Instant,
        text: impl Fn() -> String,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(FRAME, &mut work).await {
                Ok(done) => return done,
                Err(_) => self.tick(since, &text()),
            }
        }
    }

    /// Takes the running clock off the screen.
    pub(crate) fn clear(&mut self) {
        if self.drawn.take().is_some() {
            self.write("\r\x1b[2K");
        }
    }

    fn labelled(&mut self, label: &'static str, text: &str) {
        let label = self.label(label);
        for (number, line) in wrap(text, self.width() - INDENT).into_iter().enumerate() {
            if number == 0 {
                self.put(&format!("{label}{line}"));
            } else {
                self.put(&format!("{:INDENT$}{line}", ""));
            }
        }
    }

    /// The label in its column; nothing but room where the line above has the same.
    fn label(&mut self, label: &'static str) -> String {
        let shown = if self.label == label { "" } else { label };
        self.label = label;
        self.paint(Ink::Faint, &format!("   {shown:<7}"))
    }

    fn put(&mut self, line: &str) {
        self.clear();
        self.write(&format!("{line}\n"));
    }

    fn write(&self, text: &str) {
        // A demo that nobody can see any more still ends what it started.
        let _ = if self.on_stderr {
            let mut out = io::stderr().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        } else {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        };
    }

    fn width(&self) -> usize {
        if !self.terminal {
            return PLAIN_WIDTH;
        }
        let size = if self.on_stderr {
            rustix::termios::tcgetwinsize(io::stderr())
        } else {
            rustix::termios::tcgetwinsize(io::stdout())
        };
        // One column stays free: some terminals go to the next line when the last one is filled.
        size.map_or(PLAIN_WIDTH, |size| usize::from(size.ws_col).saturating_sub(1)).clamp(WIDTH_MIN, WIDTH_MAX)
    }

    fn paint(&self, ink: Ink, text: &str) -> String {
        let code = match ink {
            _ if !self.colour || text.trim().is_empty() => return text.to_owned(),
            Ink::Plain => return text.to_owned(),
            Ink::Title => "1",
            Ink::Faint => "2",
            Ink::Good => "1;32",
            Ink::Bad => "1;31",
            Ink::Clock => "33",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// A measured time as a person reads it.
pub(crate) fn clock(time: Duration) -> String {
    verdict::duration(time.as_secs_f64() * 1_000.0)
}
