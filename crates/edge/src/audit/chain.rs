//! The chain: what a line is, and whether the files of a log, one after the other, are what was once written into them.
//!
//! What lives here: reading and judging. What does not: writing, and where a log's files are.
//!
//! A change breaks the chain at the line behind it, and that line may be the one that was changed instead. Which of the two it
//! was, the line after them tells: it carries the digest of the second as it was written.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use holdfast_core::time::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

use super::folder::{AUDIT_FILE, number_of};

/// The format's version.
pub(super) const VERSION: u32 = 1;

/// What a file begins with that goes on after a full one.
pub(super) const CONTINUES: &str = "log-continues";

/// What a file begins with that goes on after one that somebody had touched.
pub(super) const DAMAGED: &str = "log-damaged";

/// The longest line, in bytes: an order of 64 KiB fits as its digest, not as itself, and nothing longer is worth a line.
pub const LINE_MAX: usize = 64 * 1024;

/// Where a log stands: its last line's number, and that line's digest, which seals all before it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The last line's number; 0 while there is none.
    pub seq: u64,
    /// The last line's SHA-256; zeros while there is none.
    pub head: [u8; 32],
}

/// Why a log is not whole: the first entry that is not what it was, or not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}, line {line} (entry {entry}): {why}", file.display())]
pub struct Broken {
    /// The file.
    pub file: PathBuf,
    /// The line in it, counted from 1.
    pub line: u64,
    /// The number of the entry that is there, or should be.
    pub entry: u64,
    /// What is wrong.
    pub why: Why,
}

/// What is wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The file is not there, or not any more.
    #[error("the file is not there")]
    Gone,
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Unread(String),
    /// The line is not of the form that every line has.
    #[error("it is no entry of an audit log: {0}")]
    Form(String),
    /// The line has another number than the one that follows from the line before.
    #[error("it has the number {0}: entries are missing, doubled or out of order")]
    Number(u64),
    /// The line behind it carries the digest of another one.
    #[error("it was changed after it was written")]
    Changed,
    /// Its digest is not the one that the last line carries; nothing tells which of the two was changed.
    #[error("it or the line behind it was changed after it was written")]
    ChangedOrNext,
    /// Somebody who was told of it remembers another one.
    #[error("it is another one than was written then: it was changed, or the log was written anew")]
    Otherwise,
    /// Somebody was told of it, or the file's name says that it ends with it, and the file ends before.
    #[error("it is missing: the end was cut off, or more was written after these files were copied")]
    Missing,
    /// The first line that is here is none that a file begins with.
    #[error("no file of the log begins with it: the lines before it were cut off")]
    Headless,
    /// The file ends in the middle of a line, and another file goes on.
    #[error("the line is cut off in the middle")]
    Torn,
}

/// What a whole log has in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The number of the first entry in these files; 0 if there is none. Those before it are in files that were carried away.
    pub begins: u64,
    /// Where the log stood before the first entry: the last of those that were carried away.
    pub follows: Position,
    /// Where it stands. Compare the head with the one in the custodian's last heartbeat.
    pub position: Position,
    /// The time in the first line.
    pub first: Option<Timestamp>,
    /// The time in the last line.
    pub last: Option<Timestamp>,
    /// The length of a last line without its newline: one being written, or torn by a crash. Not counted above.
    pub torn: u64,
}

/// Checks a whole log, file by file and line by line: form, numbers, the chain of digests; and that each of `witnessed`, where
/// the log was known to stand once, is in it. Reads a log that is being written, too.
///
/// A log may begin with a later entry than the first, if that is one that a file begins with: older files may have been carried away.
pub fn verify(files: &[PathBuf], witnessed: &[Position]) -> Result<Summary, Broken> {
    let (follows, position) = (Position::START, Position::START);
    let summary = Summary { begins: 0, follows, position, first: None, last: None, torn: 0 };
    let nowhere = (files.first().cloned().unwrap_or_else(|| AUDIT_FILE.into()), 0);
    let mut chain = Chain { summary, witnessed, last: nowhere, headless: None };
    for file in files {
        chain.read_file(file)?;
    }
    if let Some(headless) = chain.headless {
        return Err(headless);
    }
    if witnessed.iter().any(|known| known.seq > chain.summary.position.seq) {
        return Err(chain.behind_last(Why::Missing));
    }
    Ok(chain.summary)
}

/// Puts files in the order in which they were written, whatever they are called: by the number in the first line that has one.
pub fn in_order(mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    files.sort_by_cached_key(|file| first_number(file).unwrap_or(u64::MAX));
    files
}

impl Position {
    /// Where an empty log stands.
    pub const START: Self = Self { seq: 0, head: [0; 32] };

    /// Where a log stands whose last line this is.
    pub(super) fn after(seq: u64, line: &[u8]) -> Self {
        Self { seq, head: Sha256::digest(line).into() }
    }

    /// The head in hexadecimal.
    pub fn head_hex(&self) -> String {
        hex::encode(self.head)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.seq, self.head_hex())
    }
}

struct Chain<'a> {
    summary: Summary,
    witnessed: &'a [Position],
    /// Where the last line was: its file and number there.
    last: (PathBuf, u64),
    /// What is wrong with the first line, if the one behind it does not say that it was changed.
    headless: Option<Broken>,
}

impl Chain<'_> {
    fn read_file(&mut self, file: &Path) -> Result<(), Broken> {
        if self.summary.torn > 0 {
            return Err(self.behind_last(Why::Torn));
        }
        let entry = self.summary.position.seq + 1;
        let broken = |line: u64, why: Why| Broken { file: file.to_owned(), line, entry, why };
        let mut lines = Lines::open(file).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => broken(1, Why::Gone),
            _ => broken(1, Why::Unread(error.to_string())),
        })?;
        loop {
            let (line, entry) = (lines.number + 1, self.summary.position.seq + 1);
            let broken = |why: Why| Broken { file: file.to_owned(), line, entry, why };
            match lines.next().map_err(broken)? {
                Next::Line => self.judge(file, &mut lines)?,
                Next::Torn(bytes) => {
                    self.summary.torn = bytes;
                    break;
                }
                Next::End => break,
            }
        }
        // What put the file away under a number knew that this was its last entry.
        match number_of(file) {
            Some(end) if end > self.summary.position.seq => Err(self.behind_last(Why::Missing)),
            _ => Ok(()),
        }
    }

    /// Judges the line that was just read.
    fn judge(&mut self, file: &Path, lines: &mut Lines) -> Result<(), Broken> {
        let summary = &self.summary;
        let (expected, begins) = (summary.position.seq + 1, summary.begins == 0);
        let number = lines.number;
        let broken = |entry: u64, why: Why| Broken { file: file.to_owned(), line: number, entry, why };
        let parsed = Line::parse(&lines.line).map_err(|why| broken(expected, Why::Form(why)))?;
        if !begins && parsed.seq != expected {
            return Err(broken(expected, Why::Number(parsed.seq)));
        }
        let position = Position::after(parsed.seq, &lines.line);
        // Nothing tells what was before the first entry that is here, unless it is the very first.
        let has_before = !begins || parsed.seq == 1;
        if has_before && parsed.prev != summary.position.head_hex() {
            return Err(self.blame(file, position, lines));
        }
        if let Some(headless) = self.headless.take() {
            return Err(headless);
        }
        if self.witnessed.iter().any(|known| known.seq == position.seq && known.head != position.head) {
            return Err(broken(position.seq, Why::Otherwise));
        }
        if begins {
            let follows = parsed.follows();
            if self.witnessed.iter().any(|known| known.seq == follows.seq && *known != follows) {
                return Err(broken(position.seq, Why::Otherwise));
            }
            if parsed.seq > 1 && !opens_file(&lines.line, follows.seq) {
                self.headless = Some(broken(position.seq, Why::Headless));
            }
            (self.summary.begins, self.summary.follows, self.summary.first) = (parsed.seq, follows, Some(parsed.at));
        }
        (self.summary.position, self.summary.last) = (position, Some(parsed.at));
        self.last = (file.to_owned(), number);
        Ok(())
    }

    /// Finds out whether the line that was just read is the one that was changed, or the one before it.
    fn blame(&self, file: &Path, read: Position, lines: &mut Lines) -> Broken {
        let this = Broken { file: file.to_owned(), line: lines.number, entry: read.seq, why: Why::Changed };
        let (last_file, last_line) = self.last.clone();
        let before = |why| Broken { file: last_file, line: last_line, entry: read.seq - 1, why };
        if read.seq == 1 {
            return this;
        }
        let next = lines.next().ok().filter(|next| matches!(next, Next::Line));
        let next = next.and_then(|_| Line::parse(&lines.line).ok());
        let witnessed = self.witnessed.iter().find(|known| known.seq == read.seq);
        match (next, witnessed) {
            (Some(next), _) if next.prev == read.head_hex() => before(Why::Changed),
            (None, Some(known)) if known.head == read.head => before(Why::Changed),
            (None, None) => before(Why::ChangedOrNext),
            _ => this,
        }
    }

    /// What is wrong behind the last line that was read.
    fn behind_last(&self, why: Why) -> Broken {
        let (file, line) = self.last.clone();
        Broken { file, line: line + 1, entry: self.summary.position.seq + 1, why }
    }
}

/// A file's lines, of which one is in memory.
struct Lines {
    reader: BufReader<File>,
    line: Vec<u8>,
    number: u64,
}

enum Next {
    /// A whole line, without its newline.
    Line,
    /// That many bytes, and no newline behind them.
    Torn(u64),
    /// Nothing.
    End,
}

impl Lines {
    fn open(path: &Path) -> io::Result<Self> {
        // A pipe would keep us waiting for whoever writes it.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(Self { reader: BufReader::new(file), line: Vec::new(), number: 0 })
    }

    fn next(&mut self) -> Result<Next, Why> {
        self.line.clear();
        let limit = LINE_MAX as u64 + 1;
        let read = (&mut self.reader).take(limit).read_until(b'\n', &mut self.line);
        let read = read.map_err(|error| Why::Unread(error.to_string()))? as u64;
        if self.line.pop_if(|last| *last == b'\n').is_some() {
            self.number += 1;
            return Ok(Next::Line);
        }
        match read {
            0 => Ok(Next::End),
            _ if read == limit => Err(Why::Form(format!("it is longer than {LINE_MAX} bytes"))),
            torn => Ok(Next::Torn(torn)),
        }
    }
}

/// The number that a file begins with, as the first line tells that can be read.
fn first_number(file: &Path) -> Option<u64> {
    let mut lines = Lines::open(file).ok()?;
    while let Ok(Next::Line) = lines.next() {
        if let Ok(line) = Line::parse(&lines.line) {
            return Some(line.seq.saturating_sub(lines.number - 1));
        }
    }
    None
}

/// A line, as far as the chain is concerned.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    v: u32,
    pub(super) seq: u64,
    at: Timestamp,
    prev: String,
    #[serde(rename = "entry")]
    _entry: IgnoredAny,
}

/// What a file's first line has in its entry.
#[derive(Deserialize)]
struct Opening {
    entry: OpeningEntry,
}

#[derive(Deserialize)]
struct OpeningEntry {
    kind: String,
    before: u64,
}

/// Whether a file begins with such a line that goes on after entry `before`.
fn opens_file(line: &[u8], before: u64) -> bool {
    let opening = serde_json::from_slice::<Opening>(line);
    opening.is_ok_and(|Opening { entry }| [CONTINUES, DAMAGED].contains(&entry.kind.as_str()) && entry.before == before)
}

impl Line {
    /// Where the log stood before it, as far as it says so in the form of a digest.
    fn follows(&self) -> Position {
        let mut head = [0; 32];
        // Another form fits no digest, and so nobody's word.
        let _ = hex::decode_to_slice(&self.prev, &mut head);
        Position { seq: self.seq - 1, head }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let line: Self = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        match line.v {
            VERSION if line.seq > 0 => Ok(line),
            VERSION => Err("entries are counted from 1".to_owned()),
            other => Err(format!("it has the version {other}, and this program knows {VERSION}")),
        }
    }
}
