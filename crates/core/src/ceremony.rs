//! The files of a ceremony: enrollments go in, packets and one manifest come out.
//!
//! What lives here: their forms, and every check that needs nothing but the files themselves. All three are JSON objects
//! that name their `kind` and their version `v`, refuse fields that they do not know, and are bounded in size. What does
//! not: making keys, decrypting, asking a server (`holdfast-setup`, `holdfast init`), and whether an OpenPGP key is one that
//! a server takes, which needs an OpenPGP library that no daemon links.

mod enrollment;
mod fingerprint;
mod manifest;
mod packet;
mod rotated;

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::envelope::EnvelopeError;
use crate::id::{ClusterId, Principal};
use crate::sshsig::PublicKey;

pub use self::enrollment::{AgeRecipient, ENROLLMENT_NAMESPACE, Enrollment, OPENPGP_KEY_MAX, SignedEnrollment};
pub use self::fingerprint::{Fingerprint, FingerprintError, OpenPgpFingerprint};
pub use self::manifest::{Holder, MANIFEST_MAX, Manifest, Member};
pub use self::packet::{OPENPGP_MESSAGE_MAX, PACKET_MAX, Packet, packet_digest};
pub use self::rotated::{ROTATED_MAX, Rotated, RotatedError, RotatedShare};

/// Where `holdfast-setup enroll` puts the age identity that a share is at rest by, in the host's directory.
pub const IDENTITY_FILE: &str = "identity.txt";

/// Where it puts the key that signs reports.
pub const SIGNING_KEY_FILE: &str = "signing.key";

/// Where it puts the key that packets are encrypted to.
pub const TRANSPORT_KEY_FILE: &str = "transport.key";

/// Where it puts the enrollment.
pub const ENROLLMENT_FILE: &str = "enrollment.json";

/// The version of these files that this program writes, and the only one it reads.
const VERSION: u64 = 1;

/// What a file of a ceremony is, as its field `kind` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A custodian's public keys, signed by itself.
    Enrollment,
    /// One share, encrypted to one custodian.
    Packet,
    /// What everybody may know of a cluster: whose its shares are.
    Manifest,
}

impl FileKind {
    /// The kind's name in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enrollment => "enrollment",
            Self::Packet => "packet",
            Self::Manifest => "manifest",
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a file of a ceremony was refused. The one who names the file's path adds it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CeremonyError {
    /// The file has no byte in it.
    #[error("the file is empty; this should be {0:?}")]
    Empty(FileKind),
    /// Larger than any such file is.
    #[error("the file has {size} bytes, and the largest {kind} has {max}")]
    Oversized {
        /// What it should be.
        kind: FileKind,
        /// How large it is.
        size: usize,
        /// How large it may be.
        max: usize,
    },
    /// Cut off, not JSON, not an object, a field missing, doubled, unknown or of another type.
    #[error("not a whole and well-formed {kind}: {why}")]
    Malformed {
        /// What it should be.
        kind: FileKind,
        /// What is wrong, with line and column.
        why: String,
    },
    /// A file of a ceremony, but another one.
    #[error("this is a file of kind {found:?}; {expected:?} was wanted")]
    Kind {
        /// What it should be.
        expected: &'static str,
        /// What it says it is.
        found: String,
    },
    /// Written by another version of Holdfast.
    #[error(
        "this {kind} is of version {found}, and this program knows only version {VERSION}: use the matching release"
    )]
    Version {
        /// What it is.
        kind: FileKind,
        /// Its version.
        found: u64,
    },
    /// One field holds what it may not.
    #[error("this {kind}'s {field} is not acceptable: {why}")]
    Field {
        /// What it is.
        kind: FileKind,
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The enrollment's envelope or signature is not one.
    #[error("the enrollment was altered, or is not one: {0}")]
    Envelope(#[from] EnvelopeError),
    /// The enrollment is signed, but with another key than the one in it.
    #[error("the enrollment is not signed by the key that it brings, so somebody else made it")]
    Signer,
    /// The same name, or the same key, in two places.
    #[error(
        "{first} and {second} have the same {what}; every custodian enrolls once, on its own host, and every holder is another person, with keys of their own"
    )]
    Twice {
        /// Who came first.
        first: Principal,
        /// Who came second.
        second: Principal,
        /// What they share.
        what: &'static str,
    },
    /// The packet belongs to another cluster than the manifest.
    #[error("the packet is for cluster {packet}, the manifest for {manifest}: take both from one ceremony")]
    OtherCluster {
        /// The packet's.
        packet: ClusterId,
        /// The manifest's.
        manifest: ClusterId,
    },
    /// The packet belongs to another set of shares than the manifest.
    #[error("the packet is of generation {packet}, the manifest of {manifest}: take both from one ceremony")]
    OtherGeneration {
        /// The packet's.
        packet: u32,
        /// The manifest's.
        manifest: u32,
    },
    /// The packet's custodian is not in the manifest.
    #[error("the packet is for {0}, which is not in the manifest: take both from one ceremony")]
    NotMember(Principal),
    /// Nobody in the manifest has the keys at hand.
    #[error(
        "none of this manifest's custodians has the keys that are here: run this on a custodian's own host, with the manifest of the ceremony that it enrolled for"
    )]
    Stranger,
    /// The custodian's share is not in a packet.
    #[error("{0}'s share comes in no packet by this manifest, it is typed in: holdfast-setup import")]
    NoPacket(Principal),
    /// The keys at hand are not those that the manifest gives the packet's custodian.
    #[error("this is for {custodian}, and the {what} here is not {custodian}'s: run this on {custodian}'s own host")]
    SomebodyElses {
        /// Whom it is for.
        custodian: Principal,
        /// Which key differs.
        what: &'static str,
    },
    /// The packet is not byte for byte the one that the manifest was made with.
    #[error("the packet is not the one that the manifest names for {0}: it was altered, or is of another ceremony")]
    PacketDigest(Principal),
}

/// The fields that every file of a ceremony begins with. Others are left to the kind's own form.
#[derive(Deserialize)]
struct Header {
    v: u64,
    kind: String,
}

/// Reads a file: its size, its kind and its version before its form, so that each gets an answer of its own.
fn parse_file<T: DeserializeOwned>(kind: FileKind, max: usize, bytes: &[u8]) -> Result<T, CeremonyError> {
    let malformed = |why: String| CeremonyError::Malformed { kind, why };
    if bytes.is_empty() {
        return Err(CeremonyError::Empty(kind));
    }
    if bytes.len() > max {
        return Err(CeremonyError::Oversized { kind, size: bytes.len(), max });
    }
    // serde would take the fields from an array too.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(malformed("expected a JSON object".to_owned()));
    }
    let header: Header = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    if header.kind != kind.as_str() {
        let found = header.kind.chars().take(32).collect();
        return Err(CeremonyError::Kind { expected: kind.as_str(), found });
    }
    if header.v != VERSION {
        return Err(CeremonyError::Version { kind, found: header.v });
    }
    serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))
}

fn field_error(kind: FileKind, field: &'static str, why: impl fmt::Display) -> CeremonyError {
    CeremonyError::Field { kind, field, why: why.to_string() }
}

/// A signing key in the one spelling that is written: type and key, no comment. Custodians' keys are plain Ed25519, because
/// nobody is there to touch a token.
fn parse_signing_key(kind: FileKind, text: &str) -> Result<PublicKey, CeremonyError> {
    let key = PublicKey::from_openssh(text).map_err(|error| field_error(kind, "signing_key", error))?;
    if key.is_token() {
        return Err(field_error(
            kind,
            "signing_key",
            "a custodian signs with ssh-ed25519, nobody is there to touch a token",
        ));
    }
    if key.to_openssh() != text {
        return Err(field_error(kind, "signing_key", "it has a comment or stray spaces"));
    }
    Ok(key)
}

fn parse_base64(kind: FileKind, field: &'static str, max: usize, text: &str) -> Result<Vec<u8>, CeremonyError> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|_| field_error(kind, field, "not base64"))?;
    if bytes.is_empty() || bytes.len() > max {
        return Err(field_error(kind, field, format_args!("{} bytes, and 1 to {max} are allowed", bytes.len())));
    }
    Ok(bytes)
}
