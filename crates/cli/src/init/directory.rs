//! The directory that a ceremony's files go into: one ceremony's, one program's at a time.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use holdfast_core::ceremony::{Fingerprint, MANIFEST_MAX};
use holdfast_core::id::{ClusterName, Principal};
use holdfast_edge::admin::ANSWER_MAX;
use holdfast_edge::files::{self, FileError, SECRET_MODE};

use super::InitError;

/// The journal's file, see `journal`.
const JOURNAL: &str = "ceremony.json";

/// The journal's file of an adoption.
const ADOPTION: &str = "adoption.json";

/// What a crash can leave of a ceremony or an adoption that was not begun yet.
const LEFT_BEHIND: [&str; 2] = [".ceremony.json.next", ".adoption.json.next"];

/// A directory in which nobody else holds a ceremony meanwhile.
pub(crate) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Refuses a directory that has anything in it; where that is a ceremony, says how it goes on. Changes nothing.
    pub(super) fn check_free(dir: &Path) -> Result<(), InitError> {
        if Self::has_ceremony(dir) {
            return Err(InitError::Begun { dir: dir.to_owned() });
        }
        Self::check_empty(dir)
    }

    /// Whether an initialisation was begun there.
    pub(crate) fn has_ceremony(dir: &Path) -> bool {
        dir.join(JOURNAL).exists()
    }

    /// Refuses a directory that has anything in it but an adoption. Changes nothing.
    pub(crate) fn check_adoptions(dir: &Path) -> Result<(), InitError> {
        if dir.join(ADOPTION).exists() { Ok(()) } else { Self::check_empty(dir) }
    }

    fn check_empty(dir: &Path) -> Result<(), InitError> {
        let refused = |why: std::io::Error| InitError::Directory { dir: dir.to_owned(), why: why.to_string() };
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(refused)?,
        };
        for entry in entries {
            let found = entry.map_err(refused)?.file_name();
            if !LEFT_BEHIND.iter().any(|left| found == *left) {
                return Err(InitError::NotEmpty { dir: dir.to_owned(), found: found.display().to_string() });
            }
        }
        Ok(())
    }

    /// Makes the directory if it is not there. Only its owner's: what will be in it is encrypted, but nobody else needs it.
    pub(super) fn make(dir: &Path) -> Result<Self, InitError> {
        files::ensure_directory(dir)
            .map_err(|error| InitError::Directory { dir: dir.to_owned(), why: error.to_string() })?;
        let directory = Self::open(dir)?;
        // Looked at once more, now that nobody else can be at it.
        Self::check_free(dir)?;
        Ok(directory)
    }

    /// The directory of a ceremony that was begun.
    pub(crate) fn open(dir: &Path) -> Result<Self, InitError> {
        let refused = |why: String| InitError::Directory { dir: dir.to_owned(), why };
        let lock = File::open(dir).map_err(|error| refused(error.to_string()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: dir.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(refused("another holdfast is at work in it; wait until it has ended".to_owned()))
            }
            Err(TryLockError::Error(error)) => Err(refused(error.to_string())),
        }
    }

    /// Makes the folders, and tries to write as much as the Vault may answer: a disk that is full then is one that would lose
    /// the shares.
    pub(crate) fn make_room(&self) -> Result<(), InitError> {
        let refused = |error: FileError| InitError::Directory { dir: self.path.clone(), why: error.to_string() };
        for folder in [self.packets(), self.holders()] {
            files::ensure_directory(&folder).map_err(refused)?;
        }
        // In a directory that had nothing in it, nobody else has this name.
        let trial = self.path.join(".trial");
        files::replace(&trial, &vec![0; ANSWER_MAX], SECRET_MODE).map_err(refused)?;
        fs::remove_file(&trial).map_err(|error| InitError::Directory { dir: self.path.clone(), why: error.to_string() })
    }

    /// The fingerprint of the manifest, for people to compare; none where it was moved away.
    pub(crate) fn manifest_fingerprint(&self, cluster: &ClusterName) -> Option<String> {
        let manifest = files::read_bounded(&self.manifest(cluster), MANIFEST_MAX).ok()?;
        Some(Fingerprint::of(&manifest).to_string())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How far the ceremony is.
    pub(crate) fn journal(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    /// Of which rotation an adoption's files are.
    pub(crate) fn adoption(&self) -> PathBuf {
        self.path.join(ADOPTION)
    }

    /// What the Vault answered.
    pub(super) fn response(&self) -> PathBuf {
        self.path.join("init-response.json")
    }

    /// One custodian's packet.
    pub(crate) fn packet(&self, custodian: &Principal) -> PathBuf {
        self.packets().join(format!("{custodian}.packet.json"))
    }

    /// One holder's share, encrypted.
    pub(crate) fn holders_share(&self, holder: &Principal) -> PathBuf {
        self.holders().join(format!("{holder}.share.asc"))
    }

    /// The same to be printed.
    pub(crate) fn holders_sheet(&self, holder: &Principal) -> PathBuf {
        self.holders().join(format!("{holder}.sheet.html"))
    }

    /// The manifest.
    pub(crate) fn manifest(&self, cluster: &ClusterName) -> PathBuf {
        self.path.join(format!("{cluster}.manifest.json"))
    }

    /// The root token, encrypted.
    pub(super) fn root_token(&self) -> PathBuf {
        self.path.join("root-token.pgp")
    }

    /// The custodians' lines for `allowed_signers`.
    pub(crate) fn allowed_signers(&self) -> PathBuf {
        self.path.join("allowed_signers.custodians")
    }

    fn packets(&self) -> PathBuf {
        self.path.join("packets")
    }

    fn holders(&self) -> PathBuf {
        self.path.join("holders")
    }

    /// Brings the answer to the disk.
    pub(super) fn keep_response(&self, answer: &[u8]) -> Result<(), FileError> {
        files::ensure(&self.response(), answer, SECRET_MODE)
    }

    /// The answer, if it came.
    pub(super) fn kept_response(&self) -> Result<Option<Vec<u8>>, FileError> {
        match files::read_bounded(&self.response(), ANSWER_MAX) {
            Ok(answer) => Ok(Some(answer)),
            Err(FileError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What an earlier run had written of an answer when it was killed before the answer had its name.
    pub(super) fn unnamed_response(&self) -> Result<Option<Vec<u8>>, FileError> {
        files::left_beside(&self.response(), ANSWER_MAX)
    }

    /// Gives that its name.
    pub(super) fn name_response(&self) -> Result<(), FileError> {
        files::complete(&self.response())
    }
}
