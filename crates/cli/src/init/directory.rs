//! The directory that a ceremony's files go into.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use holdfast_core::id::{ClusterName, Principal};
use holdfast_edge::admin::ANSWER_MAX;
use holdfast_edge::files::{self, FileError, SECRET_MODE};

use super::InitError;

/// An empty directory that is known to take what will be written.
pub(super) struct Directory(PathBuf);

impl Directory {
    /// Makes the directory if it is not there, and refuses it if anything is in it. Tries to write as much as the Vault may
    /// answer: a disk that is full then is one that would lose the shares.
    pub(super) fn prepare(dir: &Path) -> Result<Self, InitError> {
        let refused = |why: String| InitError::Directory { dir: dir.to_owned(), why };
        // Only the owner's: what is in it is encrypted, but nobody else needs it.
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| refused(error.to_string()))?;
        let mut entries = fs::read_dir(dir).map_err(|error| refused(error.to_string()))?;
        if let Some(entry) = entries.next() {
            let found = entry.map_or_else(|error| error.to_string(), |entry| entry.file_name().display().to_string());
            return Err(InitError::NotEmpty { dir: dir.to_owned(), found });
        }
        let trial = dir.join("trial");
        files::create(&trial, &vec![0; ANSWER_MAX], SECRET_MODE).map_err(|error| refused(error.to_string()))?;
        fs::remove_file(&trial).map_err(|error| refused(error.to_string()))?;
        DirBuilder::new().mode(0o700).create(dir.join("packets")).map_err(|error| refused(error.to_string()))?;
        Ok(Self(dir.to_owned()))
    }

    /// What the Vault answered.
    pub(super) fn response(&self) -> PathBuf {
        self.0.join("init-response.json")
    }

    /// One custodian's packet.
    pub(super) fn packet(&self, custodian: &Principal) -> PathBuf {
        self.0.join("packets").join(format!("{custodian}.packet.json"))
    }

    /// The manifest.
    pub(super) fn manifest(&self, cluster: &ClusterName) -> PathBuf {
        self.0.join(format!("{cluster}.manifest.json"))
    }

    /// The root token, encrypted.
    pub(super) fn root_token(&self) -> PathBuf {
        self.0.join("root-token.pgp")
    }

    /// The custodians' lines for `allowed_signers`.
    pub(super) fn allowed_signers(&self) -> PathBuf {
        self.0.join("allowed_signers.custodians")
    }

    /// Brings the answer to the disk.
    pub(super) fn keep_response(&self, answer: &[u8]) -> Result<(), FileError> {
        files::create(&self.response(), answer, SECRET_MODE)
    }
}
