//! Everything that can go wrong with a ceremony, in words for the one who has to mend it.

use std::path::PathBuf;

use holdfast_core::ceremony::{CeremonyError, Fingerprint};
use holdfast_core::id::Principal;
use holdfast_core::time::Timestamp;
use holdfast_edge::admin::AdminError;
use holdfast_edge::files::FileError;
use holdfast_edge::keys::RecipientError;

use super::openpgp::KeyRefusal;
use crate::output;

/// Why there was no ceremony, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum InitError {
    /// The arguments do not fit each other.
    #[error("{0}")]
    Usage(String),
    /// An enrollment is not acceptable.
    #[error("{}: {why}", .path.display())]
    Enrollment {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: CeremonyError,
    },
    /// An enrollment's age recipient is not acceptable.
    #[error("{}: {why}", .path.display())]
    Recipient {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: RecipientError,
    },
    /// An OpenPGP key is not one that the Vault takes.
    #[error("{}: the Vault would not take this OpenPGP key: {why}", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: KeyRefusal,
    },
    /// Two enrollments of one custodian or key, or a manifest that could not be made of them.
    #[error("these enrollments do not make a cluster: {0}")]
    Together(CeremonyError),
    /// Two parties with one OpenPGP key.
    #[error("{first} and {second} have the same OpenPGP key: each share and the root token need a holder of their own")]
    SameKey {
        /// Who came first.
        first: String,
        /// Who came second.
        second: String,
    },
    /// A fingerprint is not the one that was compared.
    #[error("{}: the fingerprint of {custodian}'s enrollment is {found}, not {expected}: this is not the file that {custodian} made; get it again", .path.display())]
    Fingerprint {
        /// The file.
        path: PathBuf,
        /// Whose it claims to be.
        custodian: Principal,
        /// What it is.
        found: Fingerprint,
        /// What the custodian's person read out.
        expected: Fingerprint,
    },
    /// A person said that it is not the same.
    #[error("{custodian}'s fingerprint was not confirmed: nothing was done; get the enrollment again")]
    Unconfirmed {
        /// Whose.
        custodian: Principal,
    },
    /// The output directory has something in it.
    #[error("{} is not empty ({found} is in it): nothing was done; give a new directory for each ceremony", .dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// Something that is in it.
        found: String,
    },
    /// The output directory could not be made or written.
    #[error("{} cannot be used for the output: {why}", .dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What happened.
        why: String,
    },
    /// The Vault has shares already.
    #[error("{0} is initialised already, and its shares were given out then: nothing was done")]
    Initialised(String),
    /// The Vault's clock is behind a key.
    #[error(
        "{vault} says it is {there}, and {whose} OpenPGP key is younger than that: the Vault would refuse it; set the clocks right and try again"
    )]
    Clock {
        /// The address.
        vault: String,
        /// Its time.
        there: Timestamp,
        /// Whose key.
        whose: String,
    },
    /// Asking the Vault failed, before anything was changed.
    #[error("{0}; nothing was changed there")]
    Admin(#[from] AdminError),
    /// The initialisation failed, and the Vault is not initialised.
    #[error("the Vault was not initialised: {0}; mend that and try again with a new --output")]
    Failed(AdminError),
    /// The initialisation failed, and the Vault is initialised.
    #[error(
        "the Vault refused or its answer was lost ({0}), and it is initialised now, with shares that nobody got, unless somebody else initialised it at this moment: it holds no data yet, so stop it, remove its storage, and begin again"
    )]
    Lost(AdminError),
    /// The initialisation failed, and nobody knows.
    #[error(
        "the Vault's answer was lost ({first}), and it does not say whether it is initialised ({then}): look at its seal-status; if it is initialised, stop it, remove its storage, and begin again"
    )]
    Unknown {
        /// What went wrong with the request.
        first: Box<AdminError>,
        /// What went wrong with the question.
        then: Box<AdminError>,
    },
    /// The answer could not be written, and was printed instead.
    #[error(
        "{0}; THE VAULT IS INITIALISED, and its answer, which it will not repeat, could not be kept: it was printed above instead, all of it encrypted; keep it, or remove the Vault's storage and begin again"
    )]
    NotKept(FileError),
    /// The answer is not what was asked for.
    #[error("THE VAULT IS INITIALISED, and its answer is in {}, but it is not what was asked for: {why}", .response.display())]
    Answer {
        /// Where the answer is.
        response: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file could not be written after the initialisation.
    #[error("{why}; THE VAULT IS INITIALISED, and all shares are, encrypted, in {}: keep it", .response.display())]
    Unfinished {
        /// Where the answer is.
        response: PathBuf,
        /// What happened.
        why: FileError,
    },
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The system did not provide something.
    #[error("{0}")]
    System(String),
}

impl InitError {
    /// The exit code that says whose it is to mend.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Admin(AdminError::Address { .. }) => output::USAGE,
            Self::Enrollment { .. }
            | Self::Recipient { .. }
            | Self::Key { .. }
            | Self::Together(_)
            | Self::SameKey { .. }
            | Self::Fingerprint { .. }
            | Self::File(_)
            | Self::Admin(AdminError::Ca(_)) => output::REFUSED,
            _ => output::FAILED,
        }
    }
}
