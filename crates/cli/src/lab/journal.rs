//! The note of every process that `lab up` started, on disk before it goes on: `lab down` ends these and no others.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::again;
use super::file::{self, WriteError};
use super::layout::Layout;
use super::process::Identity;

/// The journal's layout; another one is refused.
const VERSION: u32 = 1;
/// What the marker says to a person who finds it.
const MARKER: &str = "This folder belongs to `holdfast lab up`, which empties it when it is started here again.\n";

/// Why the lab's folder cannot be worked in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    /// It cannot be read or made.
    #[error("cannot use {dir}: {1}", dir = .0.display())]
    Unusable(PathBuf, io::Error),
    /// Its path would not survive in the servers' configuration files.
    #[error("cannot put a lab in {}: use a path of letters, digits, spaces and any of / . _ - + , @ ~", .0.display())]
    Unquotable(PathBuf),
    /// It holds things that are no lab's.
    #[error("{} is not empty and no lab's: choose a new folder with --dir, or empty this one", .0.display())]
    Foreign(PathBuf),
    /// It holds no lab.
    #[error("{} holds no lab: `holdfast lab up --dir {}` makes one", .0.display(), .0.display())]
    NoLab(PathBuf),
    /// Another `up` or `down` is at work in it.
    #[error("another `holdfast lab` command is at work in {}: wait for it, or stop it with Ctrl-C", .0.display())]
    Busy(PathBuf),
    /// A lab runs in it.
    #[error("a lab runs in {}: end it with `holdfast lab down --restarted --dir {}`", .0.display(), .0.display())]
    Running(PathBuf),
    /// The journal says something else than this version writes.
    #[error("{file} is unreadable: {1}; end the lab's processes by hand, then remove the file", file = .0.display())]
    Unreadable(PathBuf, String),
    /// A file could not be written.
    #[error(transparent)]
    Written(#[from] WriteError),
}

/// The lab's folder with this command alone at work in it, and the journal.
#[derive(Debug)]
pub(crate) struct Journal {
    /// Where everything lies.
    pub(crate) layout: Layout,
    entries: Vec<Entry>,
    /// Locked as long as it is open.
    _lock: File,
}

/// One process that was started.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Its name in the lab.
    pub(crate) name: String,
    /// Which process it is.
    pub(crate) process: Identity,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    processes: Vec<Entry>,
}

impl Journal {
    /// Makes `dir` a lab's folder, empty but for the marker; refuses a running lab's, and anybody else's.
    pub(crate) fn create(dir: &std::path::Path) -> Result<Self, FolderError> {
        let unusable = |e| FolderError::Unusable(dir.to_owned(), e);
        fs::create_dir_all(dir).map_err(unusable)?;
        let layout = Layout::new(dir.canonicalize().map_err(unusable)?);
        if !layout.dir().to_str().is_some_and(|path| path.chars().all(quotable)) {
            return Err(FolderError::Unquotable(layout.dir().to_owned()));
        }
        if !layout.marker().exists() {
            let foreign = fs::read_dir(layout.dir()).map_err(unusable)?.next().is_some();
            if foreign {
                return Err(FolderError::Foreign(layout.dir().to_owned()));
            }
            file::write(&layout.marker(), MARKER.as_bytes(), file::PUBLIC)?;
        }
        let journal = Self::open_locked(layout)?;
        let restarted = again::find(&journal.layout);
        if journal.entries.iter().chain(&restarted).any(|entry| entry.process.runs()) {
            return Err(FolderError::Running(journal.layout.dir().to_owned()));
        }
        fs::set_permissions(journal.layout.dir(), std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .map_err(unusable)?;
        let mut journal = Self { entries: Vec::new(), ..journal };
        journal.empty().map_err(unusable)?;
        journal.save()?;
        Ok(journal)
    }

    /// The journal of the lab in `dir`, whether it runs or not.
    pub(crate) fn open(dir: &std::path::Path) -> Result<Self, FolderError> {
        let absent = || FolderError::NoLab(dir.to_owned());
        let layout = Layout::new(dir.canonicalize().map_err(|_| absent())?);
        if !layout.marker().is_file() {
            return Err(absent());
        }
        Self::open_locked(layout)
    }

    fn open_locked(layout: Layout) -> Result<Self, FolderError> {
        let unusable = |e| FolderError::Unusable(layout.marker(), e);
        let lock = OpenOptions::new().read(true).open(layout.marker()).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FolderError::Busy(layout.dir().to_owned())),
            Err(TryLockError::Error(e)) => return Err(unusable(e)),
        }
        let entries = match fs::read(layout.journal()) {
            Ok(bytes) => {
                let unreadable = |why: String| FolderError::Unreadable(layout.journal(), why);
                let stored: Stored = serde_json::from_slice(&bytes).map_err(|e| unreadable(e.to_string()))?;
                if stored.version != VERSION {
                    return Err(unreadable(format!("it is of version {}, not {VERSION}", stored.version)));
                }
                stored.processes
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(FolderError::Unusable(layout.journal(), e)),
        };
        Ok(Self { layout, entries, _lock: lock })
    }

    /// What was started, in that order.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Notes a process that was just started.
    pub(crate) fn add(&mut self, name: &str, process: Identity) -> Result<(), WriteError> {
        self.entries.push(Entry { name: name.to_owned(), process });
        self.save()
    }

    /// Forgets those that run no longer.
    pub(crate) fn forget_ended(&mut self) -> Result<(), WriteError> {
        self.entries.retain(|entry| entry.process.runs());
        self.save()
    }

    fn save(&self) -> Result<(), WriteError> {
        let stored = Stored { version: VERSION, processes: self.entries.clone() };
        file::write_json(&self.layout.journal(), &stored, file::PRIVATE)
    }

    /// Removes what an earlier lab left, all but the marker, which is locked.
    fn empty(&mut self) -> io::Result<()> {
        for entry in fs::read_dir(self.layout.dir())? {
            let entry = entry?;
            if entry.path() == self.layout.marker() {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Means itself in HCL, in rabbitmq.conf, in Erlang's arguments and in JSON.
fn quotable(c: char) -> bool {
    c.is_alphanumeric() || "/._-+,@~ ".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anybody_elses_folder_is_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("thesis.txt"), "years of work").expect("written");
        assert!(matches!(Journal::create(dir.path()), Err(FolderError::Foreign(_))));
        assert!(matches!(Journal::open(dir.path()), Err(FolderError::NoLab(_))));
        assert_eq!(fs::read(dir.path().join("thesis.txt")).expect("still there"), b"years of work");
    }

    #[test]
    fn a_stopped_labs_folder_is_emptied_and_a_running_ones_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut journal = Journal::create(dir.path()).expect("a new lab");
        assert!(matches!(Journal::create(dir.path()), Err(FolderError::Busy(_))), "two at work in one folder");
        fs::write(dir.path().join("root-token"), "old").expect("written");
        let ourselves = Identity::of(std::process::id()).expect("we run");
        journal.add("custodian-1", ourselves.clone()).expect("noted");
        drop(journal);

        assert!(matches!(Journal::create(dir.path()), Err(FolderError::Running(_))));
        let mut journal = Journal::open(dir.path()).expect("down may look");
        assert_eq!(journal.entries().len(), 1);
        journal.entries[0].process.born -= 1;
        journal.forget_ended().expect("noted");
        drop(journal);

        Journal::create(dir.path()).expect("the lab was stopped");
        assert!(!dir.path().join("root-token").exists());
    }

    #[test]
    fn a_damaged_journal_is_not_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().expect("a folder");
        drop(Journal::create(dir.path()).expect("a new lab"));
        for damaged in ["", "{", r#"{"version":9,"processes":[]}"#, r#"{"version":1,"processes":[],"more":1}"#] {
            fs::write(dir.path().join(".processes.json"), damaged).expect("written");
            assert!(matches!(Journal::create(dir.path()), Err(FolderError::Unreadable(..))), "{damaged:?}");
        }
    }
}
