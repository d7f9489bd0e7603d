//! Everything that can go wrong with an adoption, in words for the one who has to mend it.

use std::path::PathBuf;

use holdfast_core::ceremony::RotatedError;
use holdfast_edge::files::FileError;

use crate::init::InitError;
use crate::output;

/// Why a Vault was not adopted, or not all the way.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdoptError {
    /// What an initialisation would have refused too.
    #[error(transparent)]
    Init(#[from] InitError),
    /// The Vault cannot be adopted as it stands.
    #[error("{vault} {why}; nothing was changed")]
    Unfit {
        /// Its address.
        vault: String,
        /// What it is.
        why: &'static str,
    },
    /// Today's shares are to stay, and are others than planned.
    #[error(
        "any {} of {} shares open {vault} today, and {} of {} custodians and holders are given: with --import both have to be the same; who is to have another number rotates",
        .found.0, .found.1, .planned.0, .planned.1
    )]
    OtherNumbers {
        /// Its address.
        vault: String,
        /// Its threshold and number of shares.
        found: (u8, u8),
        /// Those of the plan.
        planned: (u8, usize),
    },
    /// The present manifest is not one, or another cluster's.
    #[error("{}: {why}; --previous takes the manifest that the custodians of this cluster have now", .path.display())]
    Previous {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// What the rotation printed is not all of it.
    #[error("{}: {why}", .path.display())]
    Rotated {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: RotatedError,
    },
    /// Another number of shares than planned.
    #[error(
        "{}: it has {found} shares, and there are {expected} custodians and holders: is it the rotation that this command printed? With other numbers, cancel it and begin again",
        .path.display()
    )]
    Count {
        /// The file.
        path: PathBuf,
        /// How many are in it.
        found: usize,
        /// How many there should be.
        expected: u8,
    },
    /// A share for somebody else.
    #[error(
        "{}: A SHARE IN IT IS FOR SOMEBODY ELSE, whose key has the fingerprint {fingerprint}: cancel this rotation at once (-verify -cancel, then -cancel; without -verify, rotate again), and find out who began it",
        .path.display()
    )]
    Stranger {
        /// The file.
        path: PathBuf,
        /// The key.
        fingerprint: String,
    },
    /// Somebody has none.
    #[error("{}: no share in it is encrypted to {name} alone: it was altered, or is of another rotation", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Who.
        name: String,
    },
    /// The directory is an initialisation's.
    #[error("an initialisation was begun in {}: give a new directory for each ceremony", .dir.display())]
    Taken {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory has another rotation's files.
    #[error(
        "{} has the files of another rotation: they are kept, and nothing was written; give a new directory for this one, and, where a custodian has installed from there, --previous with the manifest in it",
        .dir.display()
    )]
    Another {
        /// The directory.
        dir: PathBuf,
    },
    /// The two steps do not name the same cluster.
    #[error(
        "{} is for generation {begun}, and this would be generation {now}: give --previous as in the first step, or as then leave it out; if the first step was the wrong one, give a new directory",
        .dir.display()
    )]
    OtherGeneration {
        /// The directory.
        dir: PathBuf,
        /// What the first step was for.
        begun: u32,
        /// What this one is for.
        now: u32,
    },
    /// The journal is not one.
    #[error("{} is damaged: {why}; give a new directory", .path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl AdoptError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Init(error) => error.exit_code(),
            Self::OtherNumbers { .. } | Self::OtherGeneration { .. } => output::USAGE,
            Self::Previous { .. }
            | Self::Rotated { .. }
            | Self::Count { .. }
            | Self::Stranger { .. }
            | Self::Missing { .. }
            | Self::Journal { .. }
            | Self::File(_) => output::REFUSED,
            Self::Unfit { .. } | Self::Taken { .. } | Self::Another { .. } => output::FAILED,
        }
    }
}
