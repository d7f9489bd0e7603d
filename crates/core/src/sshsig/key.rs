//! OpenSSH public keys: the three kinds that may sign here, and no other.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, Engine};
use ed25519_dalek::VerifyingKey;
use p256::ecdsa::VerifyingKey as P256VerifyingKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::wire::{Wire, put_string};

/// The longest public key that is read, in bytes of its one-line text: the longest kind has 169, a comment may follow.
pub const PUBLIC_KEY_MAX: usize = 1024;

/// The application of every FIDO2 key that `ssh-keygen` makes unless it is told otherwise.
pub(super) const APPLICATION: &[u8] = b"ssh:";

/// The one curve name that belongs to [`Kind::SkP256`].
const P256_CURVE: &[u8] = b"nistp256";

/// An OpenSSH public key that may sign: `ssh-ed25519`, or one on a FIDO2 token.
///
/// Every value is a valid point in its only spelling, so two are equal exactly when they are the same key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey {
    blob: Vec<u8>,
    kind: Kind,
}

#[derive(Clone)]
pub(super) enum Kind {
    Ed25519(VerifyingKey),
    SkEd25519(VerifyingKey),
    SkP256(P256VerifyingKey),
}

impl Kind {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "ssh-ed25519",
            Self::SkEd25519(_) => "sk-ssh-ed25519@openssh.com",
            Self::SkP256(_) => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }
}

/// Why a public key was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Longer than [`PUBLIC_KEY_MAX`].
    #[error("the public key's line is longer than {PUBLIC_KEY_MAX} bytes")]
    Oversized,
    /// Not one line of type, base64 and perhaps a comment.
    #[error("not an OpenSSH public key: expected one line, a type such as ssh-ed25519 and then the key in base64")]
    Text,
    /// The base64 was not base64, or what it held ended early, went on too long or was of another type than the text.
    #[error("the public key is damaged: copy its whole line again from the .pub file")]
    Damaged,
    /// A type that may not sign here.
    #[error(
        "keys of type {0:?} are not accepted: use ssh-ed25519, sk-ssh-ed25519@openssh.com or \
         sk-ecdsa-sha2-nistp256@openssh.com (ssh-keygen -t ed25519, ed25519-sk or ecdsa-sk)"
    )]
    Type(String),
    /// A point of small order, for which anybody can sign; or no point at all, or one in a spelling that is not its own.
    #[error("the public key is not a sound one: anybody could sign for it, or nobody")]
    Weak,
    /// A FIDO2 key that was made for another application than `ssh:`.
    #[error("the FIDO2 key's application is {0:?}, not \"ssh:\": make one without -O application")]
    Application(String),
}

impl PublicKey {
    /// From the line of a `.pub` file: the type, the key in base64, and perhaps a comment, which is ignored.
    pub fn from_openssh(text: &str) -> Result<Self, PublicKeyError> {
        if text.len() > PUBLIC_KEY_MAX {
            return Err(PublicKeyError::Oversized);
        }
        let text = text.trim_end_matches(['\n', '\r']);
        if text.contains(char::is_control) {
            return Err(PublicKeyError::Text);
        }
        let mut fields = text.split_ascii_whitespace();
        let (Some(name), Some(base64)) = (fields.next(), fields.next()) else { return Err(PublicKeyError::Text) };
        if !KINDS.contains(&name) {
            return Err(PublicKeyError::Type(shorten(name)));
        }
        let key = Self::from_blob(&BASE64_STANDARD.decode(base64).map_err(|_| PublicKeyError::Damaged)?)?;
        if key.kind.name() == name { Ok(key) } else { Err(PublicKeyError::Damaged) }
    }

    /// From the key's own bytes: what the base64 of a `.pub` file holds, and what a signature and an agent carry.
    pub fn from_blob(blob: &[u8]) -> Result<Self, PublicKeyError> {
        let mut wire = Wire::new(blob);
        let name = wire.string().ok_or(PublicKeyError::Damaged)?;
        let name = str::from_utf8(name).map_err(|_| PublicKeyError::Damaged)?;
        let kind = match name {
            "ssh-ed25519" => Kind::Ed25519(ed25519(&mut wire)?),
            "sk-ssh-ed25519@openssh.com" => Kind::SkEd25519(ed25519(&mut wire)?),
            "sk-ecdsa-sha2-nistp256@openssh.com" => Kind::SkP256(p256(&mut wire)?),
            _ => return Err(PublicKeyError::Type(shorten(name))),
        };
        if !matches!(kind, Kind::Ed25519(_)) {
            let application = wire.string().ok_or(PublicKeyError::Damaged)?;
            if application != APPLICATION {
                return Err(PublicKeyError::Application(shorten(&String::from_utf8_lossy(application))));
            }
        }
        wire.end().ok_or(PublicKeyError::Damaged)?;
        Ok(Self { blob: blob.to_vec(), kind })
    }

    /// The `ssh-ed25519` key with this point.
    pub fn from_ed25519(point: [u8; 32]) -> Result<Self, PublicKeyError> {
        let mut blob = Vec::with_capacity(51);
        put_string(&mut blob, b"ssh-ed25519");
        put_string(&mut blob, &point);
        Self::from_blob(&blob)
    }

    /// The key's own bytes.
    pub fn as_blob(&self) -> &[u8] {
        &self.blob
    }

    /// The key as `.pub` files and `allowed_signers` have it: type and base64, without a comment.
    pub fn to_openssh(&self) -> String {
        format!("{} {}", self.type_name(), BASE64_STANDARD.encode(&self.blob))
    }

    /// The key's fingerprint as `ssh-keygen -l` shows it: `SHA256:` and base64.
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", BASE64_STANDARD_NO_PAD.encode(Sha256::digest(&self.blob)))
    }

    /// The key's type, such as `ssh-ed25519`.
    pub fn type_name(&self) -> &'static str {
        self.kind.name()
    }

    /// Whether the key lives on a FIDO2 token, and shows that somebody touched it.
    pub fn is_token(&self) -> bool {
        !matches!(self.kind, Kind::Ed25519(_))
    }

    /// Whether both keys are the same point, so that one secret signs for both, even if one is called a token's.
    pub fn same_secret(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::SkP256(a), Kind::SkP256(b)) => a == b,
            (Kind::Ed25519(a) | Kind::SkEd25519(a), Kind::Ed25519(b) | Kind::SkEd25519(b)) => a == b,
            _ => false,
        }
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }
}

const KINDS: [&str; 3] = ["ssh-ed25519", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"];

/// Reads a point, and takes only one that has a large order and is spelled canonically.
fn ed25519(wire: &mut Wire<'_>) -> Result<VerifyingKey, PublicKeyError> {
    let bytes = wire.array::<32>().ok_or(PublicKeyError::Damaged)?;
    let key = VerifyingKey::from_bytes(&bytes).map_err(|_| PublicKeyError::Weak)?;
    let canonical = key.to_edwards().compress().to_bytes() == bytes;
    if key.is_weak() || !canonical { Err(PublicKeyError::Weak) } else { Ok(key) }
}

/// Reads a point in its uncompressed form, the only one that OpenSSH writes.
fn p256(wire: &mut Wire<'_>) -> Result<P256VerifyingKey, PublicKeyError> {
    if wire.string() != Some(P256_CURVE) {
        return Err(PublicKeyError::Damaged);
    }
    let point = wire.array::<65>().ok_or(PublicKeyError::Damaged)?;
    if point[0] != 4 {
        return Err(PublicKeyError::Damaged);
    }
    P256VerifyingKey::from_sec1_bytes(&point).map_err(|_| PublicKeyError::Weak)
}

fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.blob == other.blob
    }
}

impl Eq for PublicKey {}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.blob.hash(state);
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_openssh())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.type_name(), self.fingerprint())
    }
}

impl FromStr for PublicKey {
    type Err = PublicKeyError;

    fn from_str(text: &str) -> Result<Self, PublicKeyError> {
        Self::from_openssh(text)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = PublicKeyError;

    fn try_from(text: String) -> Result<Self, PublicKeyError> {
        Self::from_openssh(&text)
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        key.to_openssh()
    }
}
