//! A log's files in a custodian's state folder: what they are called, which there are, and the memory of where the log stood.
//!
//! What lives here: names and looks. What does not: writing the log (`audit`), and judging what is in it (`chain`).
//!
//! `audit.jsonl` is being written; `audit.N.jsonl` was put away when entry N, written with twelve digits so that `ls` sorts, was the
//! last: because it was large, or because somebody had touched it. `audit.head` says where the log stood at some moment of the
//! last run: a log that ends before it was cut. Whoever could change both files could make them fit; the sentinels, who were
//! told the same in heartbeats, are out of reach for them.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::chain::{Broken, Position, Summary, verify};
use super::{AuditError, VERSION};
use crate::files::{self, FileError, SECRET_MODE};

/// The file that is being written.
pub const AUDIT_FILE: &str = "audit.jsonl";

/// Where the log stood.
const HEAD_FILE: &str = "audit.head";

/// The largest such file, in bytes: it has 100.
const HEAD_MAX: usize = 1024;

/// The fewest digits of a file's number: as many entries as 50,000 years of busy nights make.
const DIGITS: usize = 12;

/// How often a folder is looked at again whose files were put away or carried away meanwhile.
const LOOKS_MAX: usize = 3;

/// What a log is like to somebody who only looks at it.
#[derive(Debug)]
pub struct Look {
    /// Whether some process has it open for writing now.
    pub in_use: bool,
    /// What is in it; or why it is not whole.
    pub content: Result<Summary, Broken>,
}

/// Looks at the log in `folder`, also while it is being written, and changes nothing. `None` if there is none, and none is
/// remembered.
pub fn look(folder: &Path) -> Result<Option<Look>, AuditError> {
    let memory = remembered(folder)?;
    if memory.is_none() && files(folder)?.is_empty() {
        return Ok(None);
    }
    let content = verify_folder(folder, &Vec::from_iter(memory))?;
    let failed = |source| AuditError::Open { path: folder.to_owned(), source };
    // Shared, and given back at once: a custodian that starts in between would find the log in use, and start again.
    let lock = File::open(folder).map_err(failed)?;
    let in_use = match lock.try_lock_shared() {
        Ok(()) => {
            lock.unlock().map_err(failed)?;
            false
        }
        Err(TryLockError::WouldBlock) => true,
        Err(TryLockError::Error(e)) => return Err(failed(e)),
    };
    Ok(Some(Look { in_use, content }))
}

/// Checks all files of the log in `folder`, and that each of `witnessed` is in it. Once more, if files came and went meanwhile.
pub fn verify_folder(folder: &Path, witnessed: &[Position]) -> Result<Result<Summary, Broken>, AuditError> {
    let mut all = files(folder)?;
    for _ in 1..LOOKS_MAX {
        let content = verify(&all, witnessed);
        let now = files(folder)?;
        if content.is_ok() || now == all {
            return Ok(content);
        }
        all = now;
    }
    Ok(verify(&all, witnessed))
}

/// The files of the log in `folder`, in the order in which they were written.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, AuditError> {
    let failed = |source| AuditError::Open { path: folder.to_owned(), source };
    let mut files: Vec<_> = put_away(folder).map_err(failed)?.into_values().collect();
    let written = folder.join(AUDIT_FILE);
    match fs::symlink_metadata(&written) {
        Ok(_) => files.push(written),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    Ok(files)
}

/// What the files that were put away look like from outside, to see whether somebody touched one. Where they cannot be seen at
/// all, as if there were none.
pub fn outside(folder: &Path) -> BTreeMap<u64, Stamp> {
    let files = put_away(folder).unwrap_or_default().into_iter();
    files.filter_map(|(number, path)| Some((number, Stamp::of(&fs::symlink_metadata(path).ok()?)))).collect()
}

/// What a file looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    pub(super) len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether it is the same file, whatever is in it.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// What a file is called whose last entry has this number.
pub(super) fn name_of(number: u64) -> String {
    format!("audit.{number:0DIGITS$}.jsonl")
}

/// The number of the last entry in a file, as its name tells.
pub(super) fn number_of(file: &Path) -> Option<u64> {
    let digits = file.file_name()?.to_str()?.strip_prefix("audit.")?.strip_suffix(".jsonl")?;
    let fits = digits.len() >= DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| fits)
}

/// The files that were put away, by number.
pub(super) fn put_away(folder: &Path) -> io::Result<BTreeMap<u64, PathBuf>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        files.extend(number_of(&path).map(|number| (number, path)));
    }
    Ok(files)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    v: u32,
    seq: u64,
    head: String,
}

/// Where the log is remembered to have stood.
pub(super) fn remembered(folder: &Path) -> Result<Option<Position>, AuditError> {
    let path = folder.join(HEAD_FILE);
    let unfit = |what| AuditError::Unfit { path: path.clone(), what };
    let bytes = match files::read_bounded(&path, HEAD_MAX) {
        Err(FileError::Missing { .. }) => return Ok(None),
        read => read?,
    };
    let memory: Memory = serde_json::from_slice(&bytes)
        .map_err(|_| unfit("damaged: keep it as evidence, find out who changed it, and move it aside"))?;
    let mut head = [0; 32];
    match hex::decode_to_slice(&memory.head, &mut head) {
        Ok(()) if memory.v == VERSION => Ok(Some(Position { seq: memory.seq, head })),
        _ => Err(unfit("of another version, or damaged: keep it as evidence, and move it aside")),
    }
}

/// Remembers where the log stands.
pub(super) fn remember(folder: &Path, Position { seq, head }: Position) -> Result<(), FileError> {
    let memory = Memory { v: VERSION, seq, head: hex::encode(head) };
    let json = serde_json::to_vec(&memory).expect("numbers and text always have a JSON form");
    files::replace(&folder.join(HEAD_FILE), &json, SECRET_MODE)
}
