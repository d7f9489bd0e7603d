//! The audit log: JSON Lines, each with the digest of the one before, on disk before the thing it tells of happens.
//!
//! What lives here: writing, putting full files away, going on after a crash, a full disk or a stranger's hand. What does not:
//! what there is to tell; checking the chain (`chain`); which files there are (`folder`). An entry is any JSON that its writer
//! makes; a few kinds are made here: `release` (the lock "record"), and what there is to tell of the log itself, which is `log-cut`,
//! `log-gap`, `log-damaged` and `log-continues`.
//!
//! A line is `{"v":1,"seq":N,"at":"…","prev":"…","entry":{…}}` and a newline. `seq` counts from 1; `prev` is the SHA-256, in
//! hexadecimal, of the line before without its newline, and 64 zeros in the first. So that `sed -n 7p audit.jsonl | tr -d
//! '\n' | sha256sum` prints what line 8 has to say. The chain shows a change in the middle; who could rewrite the whole
//! file could rewrite the chain too, and so the head travels in heartbeats, where others keep it.
//!
//! A file that has grown to its limit is put away under the number of its last entry, and a new one goes on with the chain. Every file
//! but the first begins by saying which entry it goes on after (`log-continues`, or `log-damaged`): so one from which the first lines were
//! cut off is known by itself, also where the files before it were carried away. At each instruction of that there is either `audit.jsonl`, or the newest of those that were put away tells how to go on:
//!
//! | step | `audit.jsonl` | the file put away | a start here |
//! |---|---|---|---|
//! | a new file is made under another name | old | – | goes on with the old one |
//! | the old one gets its number | – | there | begins a new one, with the chain of the one put away |
//! | the new one gets its name | new, empty | there | goes on with the new one |
//!
//! One custodian to a folder: the lock is on the folder, because a file's lock would go away with its name.
//!
//! Whoever changes the log from outside, deletes, replaces, cuts or lengthens it does not stop the custodian, which knows the
//! position by itself: what is there is put away as evidence, and a new file goes on with the chain and says so.
//!
//! Writing blocks until the disk has it, as it must; that is a few milliseconds. An entry that only tells what was seen can be
//! noted instead: it reaches the disk together with the next entry, and before it.

mod chain;
mod folder;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use holdfast_core::id::{ClusterId, IncidentId, NodeName};
use holdfast_core::release::Attempt;
use holdfast_core::time::Timestamp;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::files::FileError;

pub use chain::{Broken, LINE_MAX, Position, Summary, Why, in_order, verify};
pub use folder::{AUDIT_FILE, Look, Stamp, files, look, outside, verify_folder};

use chain::{CONTINUES, DAMAGED, Line, VERSION};

/// The size at which a file is put away, in bytes: some 50,000 entries, which are checked in a fraction of a second, and can be
/// sent to somebody as they are.
pub const ROTATE_AT: u64 = 16 * 1024 * 1024;

/// What the next file is called until it gets its name.
const NEXT_FILE: &str = ".audit.jsonl.next";

/// The longest entry, in bytes: with what stands around it in a line, it is no longer than a line may be.
const ENTRY_MAX: usize = LINE_MAX - 256;

/// How many bytes of entries may be noted and not be on disk: with the entry that follows they are within what is read of the end.
const NOTED_MAX: usize = LINE_MAX;

/// How much of the file's end is read to find its last complete line: behind that one there may be torn ones, the notes of
/// an earlier cut and damage, and the entry that was written with them.
const TAIL: u64 = 4 * LINE_MAX as u64;

/// How often an entry is written again into a new file because somebody took the file away while it was written.
const TRIES_MAX: usize = 3;

/// An audit log that this process, and no other, writes.
#[derive(Debug)]
pub struct AuditLog {
    folder: PathBuf,
    path: PathBuf,
    lock: File,
    rotate_at: u64,
    file: File,
    /// The length up to which the file is known to be on disk and whole. Whatever lies behind it is not part of the log.
    good: u64,
    /// Whether something of ours may lie behind `good`.
    doubt: bool,
    /// What the file looked like after it was last written or looked at.
    left: Stamp,
    /// Whether somebody else has touched it since [`AuditLog::was_touched`] was last asked.
    touched: bool,
    /// The bytes of a torn line that are to be told of in the next line.
    cut: Option<u64>,
    /// What somebody did to the file, to be told of in the next line.
    damage: Option<Damage>,
    /// What was told of the last damage, and is not fetched yet.
    told: Option<Told>,
    /// How many entries could not be written, to be told of in the next line.
    missed: u64,
    /// Whether the next line begins a new file.
    anew: bool,
    position: Position,
    /// Entries that are not in the file yet.
    noted: Vec<(Timestamp, Box<RawValue>)>,
    remembered: Option<Position>,
}

/// What was found when the log was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Where the log stands.
    pub position: Position,
    /// The length of a torn last line, which is cut off and told of in the next line.
    pub cut: Option<u64>,
    /// The log is not what it was when it was last written. It goes on from `position` in a new file, whose first line tells of it.
    pub damage: Option<Damage>,
}

/// A damage that the log itself now tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// What was done.
    pub damage: Damage,
    /// The last entry that had been written before.
    pub before: u64,
}

/// What somebody, or the disk, did to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Damage {
    /// The file was deleted or renamed.
    Gone,
    /// Another file has its name.
    Replaced,
    /// Its end was cut off.
    Shortened,
    /// Something was written behind its end.
    Lengthened,
    /// Its end cannot be read as entries.
    Unreadable,
    /// A line is not what it was.
    Changed,
}

impl Damage {
    /// For people: what was done to the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "it was deleted or renamed",
            Self::Replaced => "another file was put in its place",
            Self::Shortened => "its end was cut off",
            Self::Lengthened => "something was written behind its end",
            Self::Unreadable => "its end cannot be read",
            Self::Changed => "it was changed",
        }
    }
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
    /// A file, or the folder, could not be opened, read or locked.
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
    #[error("the audit log in {} is in use by another process: one custodian to a state directory", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The memory of where it stood cannot be read.
    #[error(transparent)]
    Memory(#[from] FileError),
    /// The last complete line is not one that this program wrote, and nothing tells where the log stood.
    #[error(
        "the audit log {} is damaged: its last complete line is no entry of it: {why}; keep it as evidence (`holdfast audit verify` \
         tells from which line on nothing stands), move it aside, and start again with a new one",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with the line.
        why: String,
    },
    /// The entry could not be put on disk. The next one tries again.
    #[error("the audit log {} cannot be written: {source}; make room on its disk, and the next entry goes through", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The entry is no JSON, or too long for a line.
    #[error("the entry does not fit into the audit log: {0}")]
    Entry(String),
}

impl AuditLog {
    /// Opens the log in `folder` for writing, or begins one, with mode 0600. A file that has grown to `rotate_at` is put away.
    ///
    /// A last line without its newline was never answered for: it is cut off, and the next line tells of it. A log that ends
    /// before the place that is remembered goes on from there. Fails when another process has the log, and when its last complete
    /// line is not one of ours and nothing is remembered.
    pub fn open(folder: &Path, rotate_at: u64) -> Result<(Self, Opened), AuditError> {
        let lock = lock(folder)?;
        let path = folder.join(AUDIT_FILE);
        let failed = |source| AuditError::Open { path: path.clone(), source };
        let remembered = folder::remembered(folder).unwrap_or_else(|error| {
            tracing::error!(%error, "where the audit log stood is forgotten, and a cut would not be seen");
            None
        });
        let file = open_file(&path)?;
        let tail = Tail::read(&file).map_err(failed)?;
        let found = match tail.last_line() {
            Ok(None) => newest_put_away(folder).map(|position| (position, 0)),
            Ok(Some(last)) => Ok(last),
            Err(why) => Err(AuditError::Damaged { path: path.clone(), why }),
        };
        let ((position, good), damage) = match (found, remembered) {
            (Ok((found, _)), Some(known)) if found.seq < known.seq => ((known, tail.file_len), Some(Damage::Shortened)),
            (Ok((found, _)), Some(known)) if found.seq == known.seq && found.head != known.head => {
                ((known, tail.file_len), Some(Damage::Changed))
            }
            (Ok(found), _) => (found, None),
            (Err(_), Some(known)) => ((known, tail.file_len), Some(Damage::Unreadable)),
            (Err(error), None) => return Err(error),
        };
        let torn = tail.file_len - good;
        let cut = (torn > 0).then_some(torn);
        let left = Stamp::of(&file.metadata().map_err(failed)?);
        let log = Self {
            folder: folder.to_owned(),
            path,
            lock,
            rotate_at,
            file,
            good,
            doubt: torn > 0,
            left,
            touched: false,
            cut,
            damage,
            told: None,
            missed: 0,
            anew: damage.is_some(),
            position,
            noted: Vec::new(),
            remembered,
        };
        Ok((log, Opened { position, cut, damage }))
    }

    /// Where the log stands, as far as it is on disk.
    pub fn head(&self) -> Position {
        self.position
    }

    /// Whether the next line has something to tell of the log itself.
    pub fn has_to_tell(&self) -> bool {
        self.damage.is_some() || self.missed > 0
    }

    /// The damage that was last told of, once.
    pub fn take_told(&mut self) -> Option<Told> {
        self.told.take()
    }

    /// Where the log was last remembered to stand.
    pub fn remembered(&self) -> Option<Position> {
        self.remembered
    }

    /// Brings to the disk where the log stands, so that the next start knows a log that was cut. The record itself is the log:
    /// nothing waits for this.
    pub fn remember(&mut self) -> Result<(), FileError> {
        if self.remembered != Some(self.position) {
            folder::remember(&self.folder, self.position)?;
            self.remembered = Some(self.position);
        }
        Ok(())
    }

    /// Whether somebody else has touched the file since this was last asked. Cheap.
    pub fn was_touched(&mut self) -> bool {
        self.look();
        std::mem::take(&mut self.touched)
    }

    /// Writes `entry`, and returns when it is on disk.
    ///
    /// When it fails, the entry is not part of the log, whatever of it reached the file; the next call clears that away
    /// first, and so a disk that was full needs nobody to mend the log.
    pub fn append<E: Serialize + ?Sized>(&mut self, at: Timestamp, entry: &E) -> Result<Position, AuditError> {
        let written = form(entry).and_then(|entry| self.write_lines(at, Some(&entry)));
        self.missed += u64::from(written.is_err());
        written
    }

    /// Notes `entry`, which tells what was seen and permits nothing. It is on disk when the next entry is, or after
    /// [`AuditLog::flush`]; a process that ends before has not told it.
    pub fn note<E: Serialize + ?Sized>(&mut self, at: Timestamp, entry: &E) -> Result<(), AuditError> {
        let noted: usize = self.noted.iter().map(|(_, entry)| entry.get().len()).sum();
        if self.cut.is_some() || self.has_to_tell() || noted >= NOTED_MAX {
            return self.append(at, entry).map(drop);
        }
        self.noted.push((at, form(entry)?));
        Ok(())
    }

    /// Returns when all that was noted is on disk, and what there is to tell of the log itself. What fails stays noted.
    pub fn flush(&mut self, at: Timestamp) -> Result<(), AuditError> {
        if self.noted.is_empty() && !self.has_to_tell() {
            return Ok(());
        }
        self.write_lines(at, None).map(drop)
    }

    /// The file is not what was written into it: the next line puts it away as evidence, and a new one goes on.
    pub fn put_aside(&mut self) {
        self.damage.get_or_insert(Damage::Changed);
        self.anew = true;
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

    /// Writes what is to be told of the log itself, what was noted, and `entry`, and makes sure that it is in the file of that name.
    fn write_lines(&mut self, at: Timestamp, entry: Option<&RawValue>) -> Result<Position, AuditError> {
        let failed = |path: &Path, source| AuditError::Write { path: path.to_owned(), source };
        for _ in 0..TRIES_MAX {
            self.look();
            self.begin_file_if_due().map_err(|error| failed(&self.path, error))?;
            let before = self.position.seq;
            let mut lines = Lines { bytes: Vec::new(), position: self.position };
            if let Some(what) = self.damage {
                lines.push(at, &form(&Damaged { kind: DAMAGED, what, before })?)?;
            } else if self.good == 0 && before > 0 {
                lines.push(at, &form(&Continues { kind: CONTINUES, before })?)?;
            }
            for (noted_at, noted) in &self.noted {
                lines.push(*noted_at, noted)?;
            }
            if let Some(bytes) = self.cut {
                lines.push(at, &form(&Cut { kind: "log-cut", bytes })?)?;
            }
            if self.missed > 0 {
                lines.push(at, &form(&Gap { kind: "log-gap", entries: self.missed })?)?;
            }
            if let Some(entry) = entry {
                lines.push(at, entry)?;
            }
            let Lines { bytes: lines, position } = lines;
            self.write_behind_good(&lines).map_err(|error| failed(&self.path, error))?;
            if !self.has_its_name() {
                continue;
            }
            self.good += lines.len() as u64;
            self.told = self.damage.map(|damage| Told { damage, before }).or(self.told);
            (self.doubt, self.cut, self.damage, self.missed) = (false, None, None, 0);
            self.position = position;
            self.noted.clear();
            return Ok(position);
        }
        Err(failed(&self.path, io::Error::other("somebody takes the file away again and again")))
    }

    fn write_behind_good(&mut self, lines: &[u8]) -> io::Result<()> {
        // After a failed sync the kernel may have dropped the pages: all that is not known to be on disk, which is all behind
        // `good`, is cleared away and written again.
        if self.doubt {
            self.file.set_len(self.good)?;
        }
        self.doubt = true;
        let written = self.file.write_all_at(lines, self.good).and_then(|()| self.file.sync_data());
        // Also of what failed: it was us who touched the file.
        self.left = Stamp::of(&self.file.metadata()?);
        written
    }

    /// Whether what was just written is in the file that others find.
    fn has_its_name(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| Stamp::of(&found).is_same_file(&self.left))
    }

    /// Sees whether the file is as it was left.
    fn look(&mut self) {
        if self.anew {
            return;
        }
        let found = match fs::symlink_metadata(&self.path) {
            Ok(metadata) => Stamp::of(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.found(Damage::Gone),
            // A folder that cannot be searched: writing will say so.
            Err(_) => return,
        };
        if !found.is_same_file(&self.left) {
            self.found(Damage::Replaced);
        } else if found.len < self.good {
            self.found(Damage::Shortened);
        } else if found.len > self.good && !self.doubt {
            self.found(Damage::Lengthened);
        } else if found != self.left {
            (self.touched, self.left) = (true, found);
        }
    }

    fn found(&mut self, damage: Damage) {
        (self.touched, self.anew, self.cut) = (true, true, None);
        self.damage.get_or_insert(damage);
    }

    fn begin_file_if_due(&mut self) -> io::Result<()> {
        if self.anew {
            return self.begin_file();
        }
        if self.good >= self.rotate_at
            && !self.doubt
            && let Err(error) = self.begin_file()
        {
            // A larger file is no reason not to record; the next entry tries again.
            tracing::warn!(%error, "a full file of the audit log cannot be put away yet");
        }
        Ok(())
    }

    /// Puts away what has the log's name, if there is anything in it, and begins a new file.
    fn begin_file(&mut self) -> io::Result<()> {
        let next = self.folder.join(NEXT_FILE);
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&next)?;
        let has_content = fs::symlink_metadata(&self.path).is_ok_and(|found| found.len() > 0 || !found.is_file());
        let away = self.folder.join(folder::name_of(self.position.seq));
        if has_content {
            if fs::symlink_metadata(&away).is_ok() {
                let what = format!("{} is in the way: move it out of the folder", away.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
            }
            fs::rename(&self.path, &away)?;
            // Not after the other name: a start must never find the new file and not the one before it.
            sync_folder(&self.folder)?;
        }
        if let Err(error) = fs::rename(&next, &self.path) {
            if has_content {
                // As it was, so that the log keeps its name; if not even that can be done, the next entry finds it gone.
                let _ = fs::rename(&away, &self.path);
            }
            return Err(error);
        }
        sync_folder(&self.folder)?;
        self.left = Stamp::of(&file.metadata()?);
        (self.file, self.good, self.doubt, self.cut, self.anew) = (file, 0, false, None, false);
        Ok(())
    }
}

impl Drop for AuditLog {
    /// Gives the log back. Closing alone would not, while a process that this one is just starting has the descriptor
    /// still, between fork and exec.
    fn drop(&mut self) {
        // If it cannot be unlocked now, closing it does that.
        let _ = self.lock.unlock();
    }
}

#[derive(Serialize)]
struct LineOut<'a> {
    v: u32,
    seq: u64,
    at: Timestamp,
    prev: String,
    entry: &'a RawValue,
}

#[derive(Serialize)]
struct Cut {
    kind: &'static str,
    bytes: u64,
}

/// So many entries could not be written before this one.
#[derive(Serialize)]
struct Gap {
    kind: &'static str,
    entries: u64,
}

/// The log goes on in this file after the entry `before`, because the one before was full.
#[derive(Serialize)]
struct Continues {
    kind: &'static str,
    before: u64,
}

/// The log goes on in a new file after the entry `before`, because of what was done to the one before.
#[derive(Serialize)]
struct Damaged {
    kind: &'static str,
    what: Damage,
    before: u64,
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

/// Lines that are to be written, and where the log will stand with them.
struct Lines {
    bytes: Vec<u8>,
    position: Position,
}

impl Lines {
    fn push(&mut self, at: Timestamp, entry: &RawValue) -> Result<(), AuditError> {
        let seq = self.position.seq + 1;
        let out = LineOut { v: VERSION, seq, at, prev: self.position.head_hex(), entry };
        let line = serde_json::to_vec(&out).map_err(|e| AuditError::Entry(e.to_string()))?;
        self.position = Position::after(seq, &line);
        self.bytes.extend_from_slice(&line);
        self.bytes.push(b'\n');
        Ok(())
    }
}

/// An entry as it stands in its line.
fn form<E: Serialize + ?Sized>(entry: &E) -> Result<Box<RawValue>, AuditError> {
    let entry = to_raw_value(entry).map_err(|e| AuditError::Entry(e.to_string()))?;
    match entry.get().len() {
        0..=ENTRY_MAX => Ok(entry),
        bytes => Err(AuditError::Entry(format!("{bytes} bytes, and it may have {ENTRY_MAX}"))),
    }
}

/// One custodian to a folder.
fn lock(folder: &Path) -> Result<File, AuditError> {
    let failed = |source| AuditError::Open { path: folder.to_owned(), source };
    let lock = File::open(folder).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(AuditError::Busy { path: folder.to_owned() }),
        Err(TryLockError::Error(e)) => Err(failed(e)),
    }
}

fn open_file(path: &Path) -> Result<File, AuditError> {
    let failed = |source| AuditError::Open { path: path.to_owned(), source };
    let unfit = |what| AuditError::Unfit { path: path.to_owned(), what };
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = match options.open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let file = options.create_new(true).open(path).map_err(failed)?;
            sync_folder(path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
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
    Ok(file)
}

/// A new file's name is on disk only when its folder is.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Where the newest of the files that were put away ends: where a log stands whose present file has no entry yet.
fn newest_put_away(folder: &Path) -> Result<Position, AuditError> {
    let failed = |source| AuditError::Open { path: folder.to_owned(), source };
    let Some((_, path)) = folder::put_away(folder).map_err(failed)?.pop_last() else { return Ok(Position::START) };
    let failed = |source| AuditError::Open { path: path.clone(), source };
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path).map_err(failed)?;
    match Tail::read(&file).map_err(failed)?.last_line() {
        Ok(Some((position, _))) => Ok(position),
        Ok(None) => Err(AuditError::Damaged { path, why: "there is none".to_owned() }),
        Err(why) => Err(AuditError::Damaged { path, why }),
    }
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

    /// What the last complete line says of the log's position, and where in the file that line ends. `None` without such a line.
    fn last_line(&self) -> Result<Option<(Position, u64)>, String> {
        let whole_file = self.bytes.len() as u64 == self.file_len;
        let newline = |bytes: &[u8]| bytes.iter().rposition(|b| *b == b'\n');
        let Some(end) = newline(&self.bytes) else {
            let too_long = || Err(format!("it does not end within the file's last {TAIL} bytes"));
            return if whole_file { Ok(None) } else { too_long() };
        };
        let line = match newline(&self.bytes[..end]) {
            Some(before) => &self.bytes[before + 1..end],
            None if whole_file => &self.bytes[..end],
            None => return Err(format!("it is longer than {LINE_MAX} bytes")),
        };
        let parsed = Line::parse(line)?;
        let behind = (self.bytes.len() - end - 1) as u64;
        Ok(Some((Position::after(parsed.seq, line), self.file_len - behind)))
    }
}

#[cfg(test)]
mod tests;
