//! Whether a manifest is the ceremony's own: the one thing that no program can find out.
//!
//! Nothing signs a manifest, and a host's keys are public: whoever is on the way to the host can make one, and a packet that fits it,
//! with a share of their own. So people compare its fingerprint by voice, before anything is written or erased.

use std::path::PathBuf;

use clap::Args;
use holdfast_core::ceremony::Fingerprint;
use holdfast_edge::terminal;

use crate::host::Host;
use crate::output;

/// A manifest, and what is known of it.
#[derive(Args)]
pub(crate) struct ManifestArguments {
    /// The cluster's manifest, from the ceremony
    #[arg(long = "manifest", value_name = "FILE")]
    pub(crate) path: PathBuf,
    /// The manifest's fingerprint, as whoever held the ceremony read it to you; it is asked for if it is not given
    #[arg(long = "manifest-fingerprint", value_name = "XXXX-XXXX-XXXX-XXXX-XXXX")]
    fingerprint: Option<Fingerprint>,
    /// Ask for no fingerprint: trust that the manifest is the ceremony's own
    #[arg(long)]
    yes: bool,
}

/// Why a manifest is not taken. Nothing was written or erased.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    /// It is another one.
    #[error("{} has the fingerprint {found}, not {expected}: this is not the manifest that the ceremony made, so take nothing that came with it, and find out who sent it; nothing was changed", .path.display())]
    Other {
        /// The manifest.
        path: PathBuf,
        /// Its fingerprint.
        found: Fingerprint,
        /// What was given.
        expected: Fingerprint,
    },
    /// There is no terminal, and no fingerprint.
    #[error(
        "nobody is there to compare the manifest's fingerprint: give it with --manifest-fingerprint …, or skip the comparison with --yes"
    )]
    Nobody,
    /// Somebody said no.
    #[error("the manifest's fingerprint was not confirmed: nothing was changed")]
    Unconfirmed,
}

impl ManifestError {
    /// What the program ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Other { .. } => output::REFUSED,
            Self::Nobody => output::USAGE,
            Self::Unconfirmed => output::FAILED,
        }
    }
}

impl ManifestArguments {
    /// Compares with what was given; asks, unless that is to be skipped. Says whether it was compared.
    pub(crate) fn compare(&self, host: &Host) -> Result<bool, ManifestError> {
        let found = host.manifest_fingerprint;
        match self.fingerprint {
            Some(expected) if expected == found => return Ok(true),
            Some(expected) => return Err(ManifestError::Other { path: self.path.clone(), found, expected }),
            None if self.yes => return Ok(false),
            None => {}
        }
        let question = format!(
            "{}: {found}\n  Have whoever held the ceremony read the manifest's fingerprint to you. Is it the same?",
            self.path.display()
        );
        match terminal::confirm(&question) {
            Some(true) => Ok(true),
            Some(false) => Err(ManifestError::Unconfirmed),
            None => Err(ManifestError::Nobody),
        }
    }
}
