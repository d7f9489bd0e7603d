//! Everything that can go wrong with a ceremony, in words for the one who has to mend it.

use std::path::PathBuf;

use holdfast_core::ceremony::CeremonyError;
use holdfast_core::id::{ClusterName, Principal};
use holdfast_core::time::Timestamp;
use holdfast_edge::admin::AdminError;
use holdfast_edge::files::FileError;
use holdfast_edge::keys::RecipientError;

use super::fingerprints::Spoken;
use super::openpgp::KeyRefusal;
use crate::output::{self, quoted};

/// Why there was no ceremony, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
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
    /// A holder's file has no name that a holder can have.
    #[error("{}: a holder needs a name of a-z, 0-9 and '-': give it with --holder NAME={}", .path.display(), quoted(.path.display()))]
    Unnamed {
        /// The file.
        path: PathBuf,
    },
    /// Names or keys that do not go together, or a manifest that could not be made of them.
    #[error("these enrollments and holders do not make a cluster: {0}")]
    Together(CeremonyError),
    /// Two parties with one OpenPGP key.
    #[error(
        "{first} and {second} have the same OpenPGP key: each share needs a holder of its own, with a key of their own"
    )]
    SameKey {
        /// Who came first.
        first: String,
        /// Who came second.
        second: String,
    },
    /// Holders alone could not open the Vault, and nobody said that this is accepted.
    #[error(
        "{holders} break-glass holders, and {threshold} shares open the Vault: lose {losses}, and nobody can open {cluster} again, ever. Give as many --holder as --threshold, or say --accept-no-recovery"
    )]
    NoRecovery {
        /// The cluster.
        cluster: ClusterName,
        /// How many holders there are.
        holders: usize,
        /// How many shares open it.
        threshold: usize,
        /// Which losses would be final.
        losses: String,
    },
    /// Custodians alone could not open the Vault, and nobody said that this is accepted.
    #[error(
        "{threshold} shares open the Vault, and there are {custodians} custodians: after every crash it stays shut until holders enter {missing} more by hand. Enroll more custodians, or say --accept-no-automatic-opening"
    )]
    NoAutomaticOpening {
        /// How many custodians there are.
        custodians: usize,
        /// How many shares open it.
        threshold: usize,
        /// How many holders are needed each time.
        missing: usize,
    },
    /// A fingerprint is not the one that was compared.
    #[error("{}: {name}'s fingerprint is {found}, not {expected}: this is not the file that {name} made; get it again", .path.display())]
    Fingerprint {
        /// The file.
        path: PathBuf,
        /// Whose it claims to be.
        name: Principal,
        /// What it is.
        found: Spoken,
        /// What its owner read out.
        expected: Spoken,
    },
    /// A person said that it is not the same.
    #[error("{name}'s fingerprint was not confirmed: nothing was done; get the file again")]
    Unconfirmed {
        /// Whose.
        name: Principal,
    },
    /// The output directory has something in it.
    #[error("{} is not empty ({found} is in it): nothing was done; give a new directory for each ceremony", .dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// Something that is in it.
        found: String,
    },
    /// The output directory has a ceremony in it.
    #[error(
        "a ceremony was begun in {} before, and nothing was done now. To see where it stands and go on with it: holdfast init --resume {}",
        .dir.display(), quoted(.dir.display())
    )]
    Begun {
        /// The directory.
        dir: PathBuf,
    },
    /// There is nothing to go on with.
    #[error("no ceremony was begun in {}, so the Vault was not asked for anything from there: begin with holdfast init --output", .dir.display())]
    NotBegun {
        /// The directory.
        dir: PathBuf,
    },
    /// The journal is not one.
    #[error(
        "{} is damaged: {why}; if init-response.json is beside it, the Vault is initialised and its shares are, encrypted, in there: keep it",
        .path.display()
    )]
    Journal {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
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
    #[error(
        "{0} is initialised already, and its shares were given out then: nothing was done. If it was a ceremony of yours that was interrupted: holdfast init --resume DIR, with the --output of that one"
    )]
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
    #[error(
        "the Vault was not initialised: {why}; mend that, then: holdfast init --resume {} (or, with other keys, begin anew with another --output)",
        quoted(.dir.display())
    )]
    Failed {
        /// The ceremony's directory.
        dir: PathBuf,
        /// What went wrong.
        why: AdminError,
    },
    /// The Vault is initialised, and its answer is gone.
    #[error(
        "THE SHARES ARE LOST. {why}; {vault} is initialised now, with shares that nobody got: it tells them once. Nobody can ever open it, and nothing is in it yet. To start over: stop every node that belongs to it, remove their storage, start them, and: holdfast init --resume {}. (Only if somebody else initialised this Vault at the same moment do they have its shares: ask before you remove anything.)",
        quoted(.dir.display())
    )]
    Lost {
        /// The ceremony's directory.
        dir: PathBuf,
        /// The Vault's address.
        vault: String,
        /// How the answer was lost.
        why: String,
    },
    /// The Vault is initialised, and not by this ceremony.
    #[error(
        "{vault} is initialised, and not by this ceremony: {how}. Somebody has its shares: find out who, and remove nothing. This ceremony has none, and ended without a share given out ({why})"
    )]
    Somebodys {
        /// The Vault's address.
        vault: String,
        /// How it can be told.
        how: String,
        /// What this ceremony met.
        why: String,
    },
    /// The initialisation failed, and nobody knows how the Vault stands.
    #[error(
        "the Vault's answer was lost ({first}), and it does not say whether it is initialised ({then}). When it answers again: holdfast init --resume {}, which finds out and says so",
        quoted(.dir.display())
    )]
    Unknown {
        /// The ceremony's directory.
        dir: PathBuf,
        /// What went wrong with the request.
        first: String,
        /// What went wrong with the question.
        then: AdminError,
    },
    /// The answer could not be written, and was printed instead.
    #[error(
        "{why}; THE VAULT IS INITIALISED, and its answer, which it will not repeat, could not be kept: it was printed above instead, all of it encrypted. Make room, put what was printed into {}, and: holdfast init --resume {}",
        .response.display(), quoted(.response.parent().unwrap_or(.response).display())
    )]
    NotKept {
        /// Where the answer belongs.
        response: PathBuf,
        /// What happened.
        why: FileError,
    },
    /// The answer is not what was asked for.
    #[error(
        "THE VAULT IS INITIALISED, and its answer is in {}, but it is not what was asked for: {why}. Keep that file; whoever has a key that something in it is encrypted to can read it, and nobody else has a share. To start over, stop every node, remove their storage, and begin with another --output",
        .response.display()
    )]
    Answer {
        /// Where the answer is.
        response: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file could not be written after the initialisation.
    #[error(
        "{why}; THE VAULT IS INITIALISED, and all shares are, encrypted, in {}: keep it. Mend what is wrong, then: holdfast init --resume {}",
        .response.display(), quoted(.response.parent().unwrap_or(.response).display())
    )]
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
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_)
            | Self::Unnamed { .. }
            | Self::NoRecovery { .. }
            | Self::NoAutomaticOpening { .. }
            | Self::Admin(AdminError::Address { .. }) => output::USAGE,
            Self::Journal { .. }
            | Self::Enrollment { .. }
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
