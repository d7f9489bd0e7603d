//! The audit log: JSON Lines, each with the digest of the one before, on disk before the thing it tells of happens.
//!
//! What lives here: writing, healing after a crash or a full disk, and checking the chain. What does not: what there is to
//! tell. An entry is any JSON that its writer makes; only two kinds are made here, `release` (the lock "record") and
//! `log-cut`.
//!
//! A line is `{"v":1,"seq":N,"at":"…","prev":"…","entry":{…}}` and a newline. `seq` counts from 1; `prev` is the SHA-256, in
//! hexadecimal, of the line before without its newline, and 64 zeros in the first. So that `sed -n 7p audit.jsonl | tr -d
//! '\n' | sha256sum` prints what line 8 has to say. The chain shows a change in the middle; who could rewrite the whole
//! file could rewrite the chain too, and so the head travels in heartbeats, where others keep it.
//!
//! Writing blocks until the disk has it, as it must; that is a few milliseconds. An entry that only tells what was seen can be
//! noted instead: it is chained at once, and reaches the disk together with the next entry, and before it.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use holdfast_core::id::{ClusterId, IncidentId, NodeName};
use holdfast_core::release::Attempt;
use holdfast_core::time::Timestamp;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The format's version.
const VERSION: u32 = 1;

/// Its name in a custodian's state folder.
pub const AUDIT_FILE: &str = "audit.jsonl";

/// The longest line, in bytes: an order of 64 KiB fits as its digest, not as itself, and nothing longer is worth a line.
pub const LINE_MAX: usize = 64 * 1024;

/// How many bytes of entries may be noted and not be on disk: with the entry that follows they are within what is read of the end.
const NOTED_MAX: usize = LINE_MAX;

/// How much of the file's end is read to find its last complete line: behind that one there may be two torn ones, the note
/// of an earlier cut and the entry that was written with it.
const TAIL: u64 = 4 * LINE_MAX as u64;

/// An audit log that this process, and no other, writes.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    file: File,
    /// The length up to which the file is known to be on disk and whole. Whatever lies behind it is not part of the log.
    good: u64,
    /// Whether something may lie behind `good`.
    doubt: bool,
    /// The bytes of a torn line that are to be told of in the next line.
    cut: Option<u64>,
    position: Position,
    /// Lines that follow `position` and are not in the file yet, and where the log will stand with them.
    noted: Vec<u8>,
    noted_position: Position,
}

/// Where the log stands: its last line's number, and that line's digest, which seals all before it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The last line's number; 0 while there is none.
    pub seq: u64,
    /// The last line's SHA-256; zeros while there is none.
    pub head: [u8; 32],
}

/// What was found when the log was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Where the log stands.
    pub position: Position,
    /// The length of a torn last line, which is cut off and told of in the next line.
    pub cut: Option<u64>,
}

/// The lock "record": the entry of this attempt is in the audit log and on disk.
#[derive(Debug)]
pub struct Recorded {
    attempt: Attempt,
    position: Position,
}

impl Recorded {
    /// What was recorded.
    pub fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    /// Where in the log.
    pub fn position(&self) -> Position {
        self.position
    }

    /// For tests of whoever demands it.
    #[cfg(test)]
    pub(crate) fn for_test(attempt: Attempt) -> Self {
        Self { attempt, position: Position::START }
    }
}

/// Why the log could not be opened or written. Never a peer's fault: it is this host's disk, or whoever changed the file.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file could not be opened, read or locked.
    #[error("the audit log {} cannot be opened: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Not a regular file, or one that others than its owner may write.
    #[error("the audit log {} is {what}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do.
        what: &'static str,
    },
    /// Another process has it open for writing.
    #[error("the audit log {} is in use by another process: one custodian to a state directory", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The last complete line is not one that this program wrote.
    #[error(
        "the audit log {} is damaged: its last complete line {why}; keep it as evidence (`holdfast-custodian check` tells \
         from which line on nothing stands), move it aside, and start again with a new one",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with the line.
        why: String,
    },
    /// The file was deleted while it was open: what would be written now, nobody could ever read.
    #[error("the audit log {} was deleted while in use; start again to begin a new one", path.display())]
    Deleted {
        /// The file.
        path: PathBuf,
    },
    /// The entry could not be put on disk. The next one tries again.
    #[error("the audit log {} cannot be written: {source}; make room on its disk, and the next entry goes through", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The entry is no JSON, or longer than [`LINE_MAX`].
    #[error("the entry does not fit into the audit log: {0}")]
    Entry(String),
}

/// Why a log is not whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct Broken {
    /// The first line that is wrong, counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// What a whole log has in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Where it stands. Compare the head with the one in the custodian's last heartbeat.
    pub position: Position,
    /// The time in the first line.
    pub first: Option<Timestamp>,
    /// The time in the last line.
    pub last: Option<Timestamp>,
    /// The length of a last line without its newline: one being written, or torn by a crash. Not counted above.
    pub torn: u64,
}

impl AuditLog {
    /// Opens the log at `path` for writing, or begins one, with mode 0600.
    ///
    /// A last line without its newline was never answered for: it is cut off, and the next line tells of it. Fails when
    /// another process has the log, and when its last complete line is not one of ours.
    pub fn open(path: impl Into<PathBuf>) -> Result<(Self, Opened), AuditError> {
        let path = path.into();
        let file = open_file(&path)?;
        let failed = |source| AuditError::Open { path: path.clone(), source };
        let tail = Tail::read(&file).map_err(failed)?;
        let (position, good) = tail.last_line().map_err(|why| AuditError::Damaged { path: path.clone(), why })?;
        let torn = tail.file_len - good;
        let cut = (torn > 0).then_some(torn);
        let (noted, noted_position) = (Vec::new(), position);
        let log = Self { path, file, good, doubt: torn > 0, cut, position, noted, noted_position };
        Ok((log, Opened { position, cut }))
    }

    /// Where the log stands, as far as it is on disk.
    pub fn head(&self) -> Position {
        self.position
    }

    /// Writes `entry`, and returns when it is on disk.
    ///
    /// When it fails, the entry is not part of the log, whatever of it reached the file; the next call clears that away
    /// first, and so a disk that was full needs nobody to mend the log.
    pub fn append<E: Serialize + ?Sized>(&mut self, at: Timestamp, entry: &E) -> Result<Position, AuditError> {
        let mut lines = self.noted.clone();
        let mut position = self.noted_position;
        if let Some(bytes) = self.cut {
            position = push_line(&mut lines, position, at, &Cut { kind: "log-cut", bytes })?;
        }
        position = push_line(&mut lines, position, at, entry)?;
        self.write(&lines, position)?;
        self.cut = None;
        Ok(position)
    }

    /// Chains `entry`, which tells what was seen and permits nothing, to the log. It is on disk when the next entry is, or after
    /// [`AuditLog::flush`]; a process that ends before has not told it.
    pub fn note<E: Serialize + ?Sized>(&mut self, at: Timestamp, entry: &E) -> Result<(), AuditError> {
        if self.cut.is_some() || self.noted.len() >= NOTED_MAX {
            return self.append(at, entry).map(drop);
        }
        self.noted_position = push_line(&mut self.noted, self.noted_position, at, entry)?;
        Ok(())
    }

    /// Returns when all that was noted is on disk. When that fails, it stays noted.
    pub fn flush(&mut self) -> Result<(), AuditError> {
        if self.noted.is_empty() {
            return Ok(());
        }
        let (lines, position) = (self.noted.clone(), self.noted_position);
        self.write(&lines, position)
    }

    /// Records that a share is about to be released, and gives the lock that says so. `details` is the caller's: who, on what
    /// grounds; the attempt itself is written here, so that the lock and the line cannot speak of different ones.
    pub fn record<E: Serialize + ?Sized>(
        &mut self,
        at: Timestamp,
        attempt: &Attempt,
        details: &E,
    ) -> Result<Recorded, AuditError> {
        let Attempt { cluster, node, incident, round } = attempt;
        let entry = Release { kind: "release", cluster: *cluster, node, incident: *incident, round: *round, details };
        let position = self.append(at, &entry)?;
        Ok(Recorded { attempt: attempt.clone(), position })
    }

    /// Writes the lines that follow those on disk, and those that were noted are among them.
    fn write(&mut self, lines: &[u8], position: Position) -> Result<(), AuditError> {
        if self.write_behind_good(lines).map_err(|source| AuditError::Write { path: self.path.clone(), source })? {
            self.good += lines.len() as u64;
            self.doubt = false;
            self.noted.clear();
            (self.position, self.noted_position) = (position, position);
            Ok(())
        } else {
            Err(AuditError::Deleted { path: self.path.clone() })
        }
    }

    /// Whether the lines are on disk in a file that has a name.
    fn write_behind_good(&mut self, lines: &[u8]) -> io::Result<bool> {
        // After a failed sync the kernel may have dropped the pages: all that is not known to be on disk, which is all behind
        // `good`, is cleared away and written again.
        if self.doubt {
            self.file.set_len(self.good)?;
        }
        self.doubt = true;
        self.file.write_all_at(lines, self.good)?;
        self.file.sync_data()?;
        Ok(self.file.metadata()?.nlink() > 0)
    }
}

impl Drop for AuditLog {
    /// Gives the log back. Closing alone would not, while a process that this one is just starting has the descriptor
    /// still, between fork and exec.
    fn drop(&mut self) {
        // If it cannot be unlocked now, closing it does that.
        let _ = self.file.unlock();
    }
}

/// Checks a whole log, line by line: form, numbers, and the chain of digests. Reads a log that is being written, too.
pub fn verify(mut reader: impl BufRead) -> Result<Summary, Broken> {
    let mut summary = Summary { position: Position::START, first: None, last: None, torn: 0 };
    let mut line = Vec::new();
    loop {
        let number = summary.position.seq + 1;
        let broken = |why: String| Broken { line: number, why };
        line.clear();
        let limit = LINE_MAX as u64 + 1;
        let read = (&mut reader).take(limit).read_until(b'\n', &mut line).map_err(|e| broken(e.to_string()))?;
        if read == 0 {
            return Ok(summary);
        }
        if line.pop_if(|last| *last == b'\n').is_none() {
            if read as u64 == limit {
                return Err(broken(format!("is longer than {LINE_MAX} bytes")));
            }
            return Ok(Summary { torn: read as u64, ..summary });
        }
        let parsed = Line::parse(&line).map_err(&broken)?;
        if parsed.seq != number {
            return Err(broken(format!("has the number {}: lines are missing, doubled or out of order", parsed.seq)));
        }
        if parsed.prev != summary.position.head_hex() {
            return Err(broken("does not carry the digest of the line before: one of the two was changed".to_owned()));
        }
        summary.first = summary.first.or(Some(parsed.at));
        summary.last = Some(parsed.at);
        summary.position = Position { seq: number, head: Sha256::digest(&line).into() };
    }
}

/// What a log is like to somebody who only looks at it.
#[derive(Debug)]
pub struct Look {
    /// Whether some process has it open for writing now.
    pub in_use: bool,
    /// What is in it; or why it is not whole.
    pub content: Result<Summary, Broken>,
}

/// Looks at the log at `path`, also while it is being written, and changes nothing. `None` if there is none.
pub fn look(path: &Path) -> Result<Option<Look>, AuditError> {
    let failed = |source| AuditError::Open { path: path.to_owned(), source };
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(AuditError::Unfit { path: path.to_owned(), what: "not a regular file: move it aside" });
    }
    // Shared, and given back at once: a custodian that starts in between would find the log in use, and start again.
    let in_use = match file.try_lock_shared() {
        Ok(()) => {
            file.unlock().map_err(failed)?;
            false
        }
        Err(TryLockError::WouldBlock) => true,
        Err(TryLockError::Error(e)) => return Err(failed(e)),
    };
    Ok(Some(Look { in_use, content: verify(io::BufReader::new(file)) }))
}

impl Position {
    /// Where an empty log stands.
    pub const START: Self = Self { seq: 0, head: [0; 32] };

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

#[derive(Serialize)]
struct LineOut<'a, E: ?Sized> {
    v: u32,
    seq: u64,
    at: Timestamp,
    prev: String,
    entry: &'a E,
}

#[derive(Serialize)]
struct Cut {
    kind: &'static str,
    bytes: u64,
}

#[derive(Serialize)]
struct Release<'a, E: ?Sized> {
    kind: &'static str,
    cluster: ClusterId,
    node: &'a NodeName,
    incident: IncidentId,
    round: u32,
    details: &'a E,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    v: u32,
    seq: u64,
    at: Timestamp,
    prev: String,
    #[serde(rename = "entry")]
    _entry: IgnoredAny,
}

impl Line {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let line: Self = serde_json::from_slice(bytes).map_err(|e| format!("cannot be read: {e}"))?;
        if line.v != VERSION {
            return Err(format!("has the version {}, and this program knows {VERSION}", line.v));
        }
        Ok(line)
    }
}

fn push_line<E: Serialize + ?Sized>(
    lines: &mut Vec<u8>,
    before: Position,
    at: Timestamp,
    entry: &E,
) -> Result<Position, AuditError> {
    let seq = before.seq + 1;
    let out = LineOut { v: VERSION, seq, at, prev: before.head_hex(), entry };
    let line = serde_json::to_vec(&out).map_err(|e| AuditError::Entry(e.to_string()))?;
    if line.len() > LINE_MAX {
        return Err(AuditError::Entry(format!("{} bytes, and a line has at most {LINE_MAX}", line.len())));
    }
    lines.extend_from_slice(&line);
    lines.push(b'\n');
    Ok(Position { seq, head: Sha256::digest(&line).into() })
}

fn open_file(path: &Path) -> Result<File, AuditError> {
    let failed = |source| AuditError::Open { path: path.to_owned(), source };
    let unfit = |what| AuditError::Unfit { path: path.to_owned(), what };
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = match options.open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let file = options.create_new(true).open(path).map_err(failed)?;
            sync_folder_of(path).map_err(failed)?;
            file
        }
        opened => opened.map_err(failed)?,
    };
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(unfit("not a regular file: move it aside"));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(unfit("writable by others than its owner: find out who did that, then chmod 600"));
    }
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(AuditError::Busy { path: path.to_owned() }),
        Err(TryLockError::Error(e)) => Err(failed(e)),
    }
}

/// A new file's name is on disk only when its folder is.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// The end of a log's file.
struct Tail {
    bytes: Vec<u8>,
    file_len: u64,
}

impl Tail {
    fn read(file: &File) -> io::Result<Self> {
        let file_len = file.metadata()?.len();
        let start = file_len.saturating_sub(TAIL);
        let mut bytes = vec![0; usize::try_from(file_len - start).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, start)?;
        Ok(Self { bytes, file_len })
    }

    /// What the last complete line says of the log's position, and where in the file that line ends.
    fn last_line(&self) -> Result<(Position, u64), String> {
        let whole_file = self.bytes.len() as u64 == self.file_len;
        let newline = |bytes: &[u8]| bytes.iter().rposition(|b| *b == b'\n');
        let Some(end) = newline(&self.bytes) else {
            let too_long = || Err(format!("does not end within the file's last {TAIL} bytes"));
            return if whole_file { Ok((Position::START, 0)) } else { too_long() };
        };
        let line = match newline(&self.bytes[..end]) {
            Some(before) => &self.bytes[before + 1..end],
            None if whole_file => &self.bytes[..end],
            None => return Err(format!("is longer than {LINE_MAX} bytes")),
        };
        let parsed = Line::parse(line)?;
        let behind = (self.bytes.len() - end - 1) as u64;
        Ok((Position { seq: parsed.seq, head: Sha256::digest(line).into() }, self.file_len - behind))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use serde_json::{Value, json};

    use super::*;

    const NOON: Timestamp = Timestamp::from_millis(1_795_348_800_000);

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn with_lines(path: &Path, count: u64) -> Position {
        let (mut log, _) = AuditLog::open(path).expect("opens");
        for n in 0..count {
            log.append(NOON, &json!({"kind": "test", "n": n})).expect("written");
        }
        log.head()
    }

    fn verify_file(path: &Path) -> Result<Summary, Broken> {
        verify(io::BufReader::new(File::open(path).expect("there")))
    }

    fn entries(path: &Path) -> Vec<Value> {
        let text = fs::read_to_string(path).expect("there");
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
            .map(|line| line["entry"].clone())
            .collect()
    }

    fn attempt() -> Attempt {
        Attempt {
            cluster: ClusterId::from_bytes([1; 16]),
            node: "vault-1".parse().expect("a name"),
            incident: IncidentId::from_bytes([2; 16]),
            round: 3,
        }
    }

    #[test]
    fn lines_are_chained_and_go_on_after_a_restart() {
        let folder = folder();
        let path = folder.path().join("audit.jsonl");
        let before = with_lines(&path, 3);
        let (mut log, opened) = AuditLog::open(&path).expect("opens");
        assert_eq!(opened, Opened { position: before, cut: None });
        let after = log.append(NOON, &json!({})).expect("written");
        let summary = Summary { position: after, first: Some(NOON), last: Some(NOON), torn: 0 };
        assert_eq!((after.seq, verify_file(&path)), (4, Ok(summary)));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_lock_and_its_line_speak_of_the_same_attempt() {
        let folder = folder();
        let path = folder.path().join("audit.jsonl");
        let (mut log, _) = AuditLog::open(&path).expect("opens");
        let lock = log.record(NOON, &attempt(), &json!({"cause": "restart"})).expect("written");
        assert_eq!((lock.attempt(), lock.position()), (&attempt(), log.head()));
        let expected = json!({
            "kind": "release", "cluster": "01".repeat(16), "node": "vault-1", "incident": "02".repeat(16), "round": 3,
            "details": {"cause": "restart"},
        });
        assert_eq!(entries(&path), [expected]);
    }

    #[test]
    fn what_is_noted_reaches_the_disk_before_the_record_and_with_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(AUDIT_FILE);
        let (mut log, _) = AuditLog::open(&path).expect("a new log");
        let before = log.append(NOON, &json!({"n": 1})).expect("written");
        log.note(NOON, &json!({"n": 2})).expect("noted");
        log.note(NOON, &json!({"n": 3})).expect("noted");
        assert_eq!(log.head(), before, "no head is told that is not on disk");
        let on_disk = || verify(io::BufReader::new(File::open(&path).expect("there"))).expect("whole").position;
        assert_eq!(on_disk(), before);
        let lock = log.record(NOON, &attempt(), &json!({})).expect("written");
        assert_eq!((lock.position().seq, on_disk(), log.head()), (4, lock.position(), lock.position()));

        log.note(NOON, &json!({"n": 5})).expect("noted");
        log.flush().expect("written");
        assert_eq!((on_disk().seq, log.head()), (5, on_disk()));
        log.flush().expect("nothing to do");
        assert_eq!(on_disk().seq, 5);

        for _ in 0..3 {
            log.note(NOON, &json!({"filler": "x".repeat(LINE_MAX / 2)})).expect("noted");
        }
        assert_eq!(on_disk().seq, 8, "only so much is noted");
    }

    #[test]
    fn what_was_noted_and_not_flushed_was_not_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(AUDIT_FILE);
        let (mut log, _) = AuditLog::open(&path).expect("a new log");
        let before = log.append(NOON, &json!({"n": 1})).expect("written");
        log.note(NOON, &json!({"n": 2})).expect("noted");
        drop(log);
        let (mut log, opened) = AuditLog::open(&path).expect("it opens");
        assert_eq!((opened.position, opened.cut), (before, None));
        log.append(NOON, &json!({"n": 3})).expect("written");
    }

    #[test]
    fn cut_off_at_any_byte_it_keeps_every_whole_line_and_tells_of_the_cut() {
        let folder = folder();
        let path = folder.path().join("audit.jsonl");
        with_lines(&path, 3);
        let whole = fs::read(&path).expect("there");
        for keep in 0..=whole.len() {
            fs::write(&path, &whole[..keep]).expect("written");
            let complete = whole[..keep].iter().filter(|b| **b == b'\n').count() as u64;
            let torn = whole[..keep].iter().rev().take_while(|b| **b != b'\n').count() as u64;
            assert_eq!(verify_file(&path).map(|s| (s.position.seq, s.torn)), Ok((complete, torn)));

            let (mut log, opened) = AuditLog::open(&path).expect("opens");
            assert_eq!((opened.position.seq, opened.cut.unwrap_or(0)), (complete, torn), "at {keep}");
            let head = log.append(NOON, &json!({"kind": "after"})).expect("written");
            let told = entries(&path);
            assert_eq!(verify_file(&path).map(|s| (s.position, s.torn)), Ok((head, 0)), "at {keep}");
            assert_eq!(head.seq, complete + 1 + u64::from(torn > 0));
            assert_eq!(told.last(), Some(&json!({"kind": "after"})));
            if torn > 0 {
                assert_eq!(told[told.len() - 2], json!({"kind": "log-cut", "bytes": torn}));
            }
        }
    }

    #[test]
    fn a_torn_line_of_zeros_is_cut_too() {
        let folder = folder();
        let path = folder.path().join("audit.jsonl");
        with_lines(&path, 2);
        let mut bytes = fs::read(&path).expect("there");
        bytes.extend([0; 5000]);
        fs::write(&path, bytes).expect("written");
        let (mut log, opened) = AuditLog::open(&path).expect("opens");
        assert_eq!((opened.position.seq, opened.cut), (2, Some(5000)));
        log.append(NOON, &json!({})).expect("written");
        assert_eq!(verify_file(&path).map(|s| s.position.seq), Ok(4));
    }

    #[test]
    fn a_log_that_is_not_ours_is_left_alone() {
        let folder = folder();
        let path = folder.path().join("audit.jsonl");
        let long = format!("{}\n", "x".repeat(TAIL as usize + 1));
        for text in [
            "no JSON\n",
            "{}\n",
            "\n",
            "{\"v\":2,\"seq\":1,\"at\":\"\",\"prev\":\"\",\"entry\":{}}\n",
            &long,
            &long[1..],
        ] {
            fs::write(&path, text).expect("written");
            let error = AuditLog::open(&path).expect_err("damaged");
            assert!(matches!(error, AuditError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("move it aside"), "{error}");
            assert_eq!(fs::read_to_string(&path).expect("there"), text);
        }
    }

    #[test]
    fn one_writer_a_regular_file_and_nobody_elses_to_write() {
        let folder = folder();
        let path = folder.path().join("audit.jsonl");
        let first = AuditLog::open(&path).expect("opens");
        assert!(matches!(AuditLog::open(&path), Err(AuditError::Busy { .. })));
        drop(first);
        AuditLog::open(&path).expect("free again");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).expect("changed");
        assert!(matches!(AuditLog::open(&path), Err(AuditError::Unfit { .. })));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("made");
        assert!(matches!(AuditLog::open(&link), Err(AuditError::Open { .. })));
        assert!(AuditLog::open(folder.path()).is_err());
        assert!(AuditLog::open(folder.path().join("no/audit.jsonl")).is_err());
    }

    #[test]
    fn a_deleted_log_is_not_written_to_in_silence() {
        let folder = folder();
        let path = folder.path().join("audit.jsonl");
        let (mut log, _) = AuditLog::open(&path).expect("opens");
        fs::remove_file(&path).expect("deleted");
        assert!(matches!(log.append(NOON, &json!({})), Err(AuditError::Deleted { .. })));
        assert!(matches!(log.record(NOON, &attempt(), &json!({})), Err(AuditError::Deleted { .. })));
    }

    #[test]
    fn an_entry_too_long_for_a_line_is_refused_and_harms_nothing() {
        let folder = folder();
        let path = folder.path().join("audit.jsonl");
        let (mut log, _) = AuditLog::open(&path).expect("opens");
        assert!(matches!(log.append(NOON, &"x".repeat(LINE_MAX)), Err(AuditError::Entry(_))));
        log.append(NOON, &json!({})).expect("written");
        assert_eq!(verify_file(&path).map(|s| s.position), Ok(log.head()));
    }

    #[test]
    fn after_a_failed_write_the_next_one_heals() {
        let folder = folder();
        let path = folder.path().join("audit.jsonl");
        let (mut log, _) = AuditLog::open(&path).expect("opens");
        let before = log.append(NOON, &json!({"n": 1})).expect("written");
        let writable = std::mem::replace(&mut log.file, File::open(&path).expect("opens to read"));
        assert!(matches!(log.append(NOON, &json!({"n": 2})), Err(AuditError::Write { .. })));
        assert_eq!(log.head(), before);
        // Half of the failed line had reached the file, and more than the next line is long.
        writable.write_all_at(&[b'x'; 4000], log.good).expect("written");
        log.file = writable;
        log.append(NOON, &json!({"n": 3})).expect("written");
        assert_eq!(entries(&path), [json!({"n": 1}), json!({"n": 3})]);
        assert_eq!(verify_file(&path).map(|s| s.position), Ok(log.head()));
    }

    #[test]
    fn verify_names_the_first_line_that_is_wrong() {
        let folder = folder();
        let path = folder.path().join("audit.jsonl");
        with_lines(&path, 4);
        let text = fs::read_to_string(&path).expect("there");
        let lines: Vec<&str> = text.lines().collect();
        let verify_lines = |lines: &[&str]| verify(format!("{}\n", lines.join("\n")).as_bytes()).map_err(|b| b.line);
        assert_eq!(verify_lines(&lines).map(|s| s.position.seq), Ok(4));
        let changed = lines[1].replace("\"n\":1", "\"n\":7");
        assert_ne!(changed, lines[1]);
        assert_eq!(verify_lines(&[lines[0], &changed, lines[2], lines[3]]), Err(3));
        assert_eq!(verify_lines(&[lines[0], lines[2], lines[3]]), Err(2));
        assert_eq!(verify_lines(&[lines[0], lines[0]]), Err(2));
        assert_eq!(verify_lines(&lines[1..]), Err(1));
        assert_eq!(verify_lines(&[lines[0], ""]), Err(2));
        assert_eq!(verify_lines(&[&lines[0].replace("\"v\":1", "\"v\":2")]), Err(1));
        assert_eq!(verify_lines(&[&lines[0].replace("\"v\":1", "\"v\":1,\"w\":1")]), Err(1));
        assert_eq!(verify_lines(&[&"x".repeat(LINE_MAX + 1)]), Err(1));
        assert_eq!(verify("".as_bytes()).map(|s| s.position), Ok(Position::START));
    }

    /// Runs [`on_a_disk_of_64_kib`] on a real file system that fills up, in a mount namespace that ends with it.
    #[test]
    fn a_full_disk_refuses_and_heals_by_itself() {
        let folder = folder();
        let test = std::env::current_exe().expect("this test");
        let script = "mount -t tmpfs -o size=64k tmpfs \"$0\" && exec \"$1\" --exact audit::tests::on_a_disk_of_64_kib --ignored";
        let run = |flags: &[&str]| {
            let mut command = Command::new("unshare");
            command.args(flags).args(["bash", "-ec", script]).arg(folder.path()).arg(&test);
            command.env("HOLDFAST_TEST_SMALL_DISK", folder.path()).output()
        };
        // As root, or as anybody where the kernel lets users have namespaces.
        let output = [&["--mount"][..], &["--mount", "--map-root-user"]].into_iter().find_map(|flags| {
            let output = run(flags).expect("unshare, of util-linux");
            String::from_utf8_lossy(&output.stdout).contains("running 1 test").then_some(output)
        });
        let output = output.expect("a tmpfs in a mount namespace: root, or user namespaces, are needed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    #[test]
    #[ignore = "run by a_full_disk_refuses_and_heals_by_itself, which gives it a small disk"]
    fn on_a_disk_of_64_kib() {
        let disk = PathBuf::from(std::env::var_os("HOLDFAST_TEST_SMALL_DISK").expect("a small disk"));
        let (path, ballast) = (disk.join("audit.jsonl"), disk.join("ballast"));
        let (mut log, _) = AuditLog::open(&path).expect("opens");
        let filler = json!({"kind": "test", "text": "x".repeat(1500)});
        log.append(NOON, &filler).expect("there is room");
        fs::write(&ballast, vec![0; 48 * 1024]).expect("there is room");
        let mut written = 1;
        let error = loop {
            match log.append(NOON, &filler) {
                Ok(_) => written += 1,
                Err(e) => break e,
            }
        };
        assert!(matches!(&error, AuditError::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull));
        assert!(log.record(NOON, &attempt(), &filler).is_err(), "no lock without a record");
        assert!(fs::metadata(&path).expect("there").len() > log.good, "a part of a line was written");
        fs::remove_file(&ballast).expect("room again");
        let lock = log.record(NOON, &attempt(), &filler).expect("healed");
        assert_eq!((lock.position().seq, verify_file(&path).map(|s| s.position)), (written + 1, Ok(log.head())));
    }
}
