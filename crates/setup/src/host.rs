//! What several commands need of a custodian's host: its own keys, the cluster's manifest, and where the share lies.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use holdfast_core::ceremony::{
    CeremonyError, ENROLLMENT_FILE, Fingerprint, IDENTITY_FILE, MANIFEST_MAX, Manifest, Member, Packet,
    SIGNING_KEY_FILE, SignedEnrollment,
};
use holdfast_core::envelope::ENVELOPE_MAX;
use holdfast_edge::files::{self, FileError};
use holdfast_edge::keys::{AgeIdentity, IdentityError, KeyError, SigningKey};
use holdfast_edge::store::ShareStore;
use rustix::process::geteuid;

/// Where a host's own files are.
#[derive(Args)]
pub(crate) struct HostArguments {
    /// Where `holdfast-setup enroll` put the keys, and where the share goes
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// The age identity, if it is not DIR/identity.txt
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// The signing key, if it is not DIR/signing.key
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,
    /// The share's file, if it is not DIR/CLUSTER.share.age
    #[arg(long, value_name = "FILE")]
    share: Option<PathBuf>,
}

/// A host's own keys, and the cluster's manifest.
pub(crate) struct Host {
    /// The cluster's manifest.
    pub(crate) manifest: Manifest,
    /// The fingerprint of the manifest's file, which people compare.
    pub(crate) manifest_fingerprint: Fingerprint,
    /// Where the share lies or goes.
    pub(crate) store: ShareStore,
    /// The age identity's file.
    pub(crate) identity_path: PathBuf,
    manifest_path: PathBuf,
    identity: AgeIdentity,
    signing_key: SigningKey,
}

/// Why a host's files are not acceptable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    /// The manifest, the packet or the enrollment is not acceptable.
    #[error("{}: {why}", .path.display())]
    Refused {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: CeremonyError,
    },
    /// Root would write what its custodian could not read.
    #[error("{} is user {owner}'s, and this runs as root, whose files the custodian could not read: run it as that user, as in runuser -u holdfast -- holdfast-setup …; nothing was changed", .dir.display())]
    Root {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Signing(#[from] KeyError),
}

/// Refuses to write as root into a directory that is another user's: the custodian's, who could not read it.
pub(crate) fn check_owner(dir: &Path) -> Result<(), HostError> {
    // One that is not there, or is not to be seen, is for whoever opens it to tell.
    let owner = std::fs::metadata(dir).map_or(0, |meta| meta.uid());
    if geteuid().is_root() && owner != 0 {
        return Err(HostError::Root { dir: dir.to_owned(), owner });
    }
    Ok(())
}

impl HostArguments {
    /// Refuses to write as root into a directory that is the custodian's.
    pub(crate) fn check_owner(&self) -> Result<(), HostError> {
        check_owner(&self.dir)
    }

    /// Where a file of the host's is that has a name of its own.
    pub(crate) fn beside(&self, given: Option<&PathBuf>, name: &str) -> PathBuf {
        given.cloned().unwrap_or_else(|| self.dir.join(name))
    }

    /// Where the enrollment is.
    pub(crate) fn enrollment(&self) -> PathBuf {
        self.dir.join(ENROLLMENT_FILE)
    }

    /// Reads the keys and the manifest.
    pub(crate) fn open(&self, manifest_path: &Path) -> Result<Host, HostError> {
        let identity_path = self.beside(self.identity.as_ref(), IDENTITY_FILE);
        let manifest_path = manifest_path.to_owned();
        let file = files::read_bounded(&manifest_path, MANIFEST_MAX)?;
        let refused = |why| HostError::Refused { path: manifest_path.clone(), why };
        let manifest = Manifest::parse(&file).map_err(refused)?;
        let share = self.beside(self.share.as_ref(), &format!("{}.share.age", manifest.cluster_name()));
        Ok(Host {
            store: ShareStore::open(&share, &identity_path),
            manifest_fingerprint: Fingerprint::of(&file),
            manifest,
            manifest_path,
            identity: AgeIdentity::load(&identity_path)?,
            signing_key: SigningKey::load(&self.beside(self.signing_key.as_ref(), SIGNING_KEY_FILE))?,
            identity_path,
        })
    }
}

impl Host {
    /// The custodian whose host this is.
    pub(crate) fn member(&self) -> Result<&Member, HostError> {
        let own = self.manifest.own(&self.identity.recipient().to_text(), self.signing_key.public_key());
        own.map_err(|why| HostError::Refused { path: self.manifest_path.clone(), why })
    }

    /// The packet in a file, if it is the one that the manifest names for the custodian whose host this is.
    pub(crate) fn admit(&self, path: &Path, packet: &[u8]) -> Result<Packet, HostError> {
        let admitted = self.manifest.admit(packet, &self.identity.recipient().to_text(), self.signing_key.public_key());
        admitted.map_err(|why| HostError::Refused { path: path.to_owned(), why })
    }

    /// Whether an enrollment is the one that this manifest's ceremony was held with, and with it the transport key beside it.
    pub(crate) fn was_enrolled_by(&self, enrollment: &Path) -> bool {
        let ours = self.member().ok().zip(open_enrollment(enrollment).ok());
        ours.is_some_and(|(me, enrolled)| me.enrollment_fingerprint == enrolled.fingerprint())
    }

    /// Whether the share of the manifest's generation is at rest here already, and comes out.
    pub(crate) fn has_share(&self) -> bool {
        let manifest = &self.manifest;
        self.member().is_ok_and(|me| self.store.unlock(manifest.id(), manifest.generation(), &me.id).is_ok())
    }
}

/// Reads an enrollment and verifies it.
pub(crate) fn open_enrollment(path: &Path) -> Result<SignedEnrollment, HostError> {
    let file = files::read_bounded(path, ENVELOPE_MAX)?;
    SignedEnrollment::open(&file).map_err(|why| HostError::Refused { path: path.to_owned(), why })
}
