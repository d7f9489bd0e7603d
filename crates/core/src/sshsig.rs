//! Signatures as `ssh-keygen -Y sign` makes them: OpenSSH's PROTOCOL.sshsig, read strictly.
//!
//! What lives here: the format, the three kinds of key that may sign, and the check of one signature over one message.
//! What does not: whether that key may speak for anybody, which is `trust`'s to say. Stricter than OpenSSH in these: Ed25519
//! is verified without the tolerance for keys of small order, a FIDO2 signature must show that somebody touched the token,
//! nothing may follow the end, and the reserved field, which no signature covers, must be empty.

mod key;
pub mod wire;

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use p256::ecdsa::signature::Verifier;
use sha2::{Digest, Sha256, Sha512};

use self::key::{APPLICATION, Kind};
pub use self::key::{PUBLIC_KEY_MAX, PublicKey, PublicKeyError};
use self::wire::{Wire, put_string};

/// The longest armoured signature that is read, in bytes: the longest kind, with the longest namespace, has under 700.
pub const SIGNATURE_MAX: usize = 1024;

/// The longest namespace that is read, in bytes.
const NAMESPACE_MAX: usize = 64;

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----\n";
const END: &str = "\n-----END SSH SIGNATURE-----";
const MAGIC: &[u8] = b"SSHSIG";
const VERSION: u32 = 1;

/// The flag of a FIDO2 signature that says: somebody touched the token.
const USER_PRESENT: u8 = 0x01;

/// The hash that a message goes through before it is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashAlg {
    /// SHA-256.
    Sha256,
    /// SHA-512, which `ssh-keygen` uses unless it is told otherwise, and so do we.
    Sha512,
}

impl HashAlg {
    /// The hash's name in the format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

/// The bytes that a key really signs for `message`: the preamble, the namespace, and the message's hash.
pub fn signed_data(namespace: &str, hash: HashAlg, message: &[u8]) -> Vec<u8> {
    let mut data = MAGIC.to_vec();
    put_string(&mut data, namespace.as_bytes());
    put_string(&mut data, b"");
    put_string(&mut data, hash.as_str().as_bytes());
    match hash {
        HashAlg::Sha256 => put_string(&mut data, &Sha256::digest(message)),
        HashAlg::Sha512 => put_string(&mut data, &Sha512::digest(message)),
    }
    data
}

/// The armoured signature made of its parts. `signature` is a key's or an agent's own answer to [`signed_data`]: the type's
/// name and the bytes that belong to it, as SSH writes them.
pub fn armor(key: &PublicKey, namespace: &str, hash: HashAlg, signature: &[u8]) -> String {
    let mut blob = MAGIC.to_vec();
    blob.extend_from_slice(&VERSION.to_be_bytes());
    put_string(&mut blob, key.as_blob());
    put_string(&mut blob, namespace.as_bytes());
    put_string(&mut blob, b"");
    put_string(&mut blob, hash.as_str().as_bytes());
    put_string(&mut blob, signature);
    let base64 = BASE64_STANDARD.encode(blob);
    let mut text = BEGIN.to_owned();
    for (index, character) in base64.chars().enumerate() {
        // 70 to a line, as ssh-keygen breaks them.
        if index > 0 && index % 70 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str(END);
    text.push('\n');
    text
}

/// The armoured signature of `ssh-ed25519`'s 64 bytes.
pub fn armor_ed25519(key: &PublicKey, namespace: &str, hash: HashAlg, signature: &[u8; 64]) -> String {
    let mut blob = Vec::with_capacity(83);
    put_string(&mut blob, b"ssh-ed25519");
    put_string(&mut blob, signature);
    armor(key, namespace, hash, &blob)
}

/// A signature, parsed: well formed, and made in the name of one key for one namespace. Not verified yet.
#[derive(Clone)]
pub struct Signature {
    key: PublicKey,
    namespace: String,
    hash: HashAlg,
    proof: Proof,
}

/// What the key's algorithm left behind.
#[derive(Clone)]
enum Proof {
    Ed25519(ed25519_dalek::Signature),
    SkEd25519(ed25519_dalek::Signature, Token),
    SkP256(p256::ecdsa::Signature, Token),
}

/// What a FIDO2 token adds to what it signs.
#[derive(Clone, Copy)]
struct Token {
    flags: u8,
    counter: u32,
}

/// Why a signature was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Longer than [`SIGNATURE_MAX`].
    #[error("the signature is longer than {SIGNATURE_MAX} bytes")]
    Oversized,
    /// Not between the two lines that `ssh-keygen` puts around it, not base64, or with something before or after.
    #[error("not an armoured SSH signature: {0}")]
    Armor(&'static str),
    /// What was armoured is not of the format.
    #[error("the SSH signature is damaged: {0}")]
    Damaged(&'static str),
    /// Another version of the format than 1.
    #[error("an SSH signature of version {0}; only version 1 is known")]
    Version(u32),
    /// The key that it names is one that may not sign.
    #[error("the SSH signature's key: {0}")]
    Key(#[from] PublicKeyError),
    /// Made for another purpose.
    #[error("signed for {found:?}, not for {expected:?}")]
    Namespace {
        /// The namespace that it had to be made for.
        expected: String,
        /// The namespace that it was made for.
        found: String,
    },
    /// A FIDO2 token signed without being touched.
    #[error("the FIDO2 token signed without being touched: remove no-touch-required")]
    NoPresence,
    /// The key did not sign this message: the message was altered, or the signature is of another, or forged.
    #[error("the signature does not belong to this message")]
    Mismatch,
}

impl Signature {
    /// Reads an armoured signature. It is well formed then, and nothing more: see [`Signature::verify`].
    pub fn parse(armored: &str) -> Result<Self, SignatureError> {
        Self::parse_by(armored, |_| None)
    }

    /// The same, where keys may be `known` already by their bytes: to see that bytes are a sound key takes a good part of the
    /// time that a signature takes.
    pub(crate) fn parse_by<'k>(
        armored: &str,
        known: impl Fn(&[u8]) -> Option<&'k PublicKey>,
    ) -> Result<Self, SignatureError> {
        if armored.len() > SIGNATURE_MAX {
            return Err(SignatureError::Oversized);
        }
        let body = armored.strip_prefix(BEGIN).ok_or(SignatureError::Armor("it does not begin with the BEGIN line"))?;
        let body = body.strip_suffix('\n').unwrap_or(body);
        let body = body.strip_suffix(END).ok_or(SignatureError::Armor("it does not end with the END line"))?;
        let base64: String = body.split('\n').collect();
        let blob = BASE64_STANDARD.decode(base64).map_err(|_| SignatureError::Armor("it is not base64"))?;
        Self::from_blob(&blob, known)
    }

    fn from_blob<'k>(blob: &[u8], known: impl Fn(&[u8]) -> Option<&'k PublicKey>) -> Result<Self, SignatureError> {
        let mut wire = Wire::new(blob);
        let short = || SignatureError::Damaged("it ends too early");
        if wire.take(MAGIC.len()) != Some(MAGIC) {
            return Err(SignatureError::Damaged("it does not begin with SSHSIG"));
        }
        match wire.u32().ok_or_else(short)? {
            VERSION => {}
            version => return Err(SignatureError::Version(version)),
        }
        let key = wire.string().ok_or_else(short)?;
        let namespace = wire.string().ok_or_else(short)?;
        let reserved = wire.string().ok_or_else(short)?;
        let hash = wire.string().ok_or_else(short)?;
        let proof = wire.string().ok_or_else(short)?;
        wire.end().ok_or(SignatureError::Damaged("something follows its end"))?;
        if namespace.is_empty() || namespace.len() > NAMESPACE_MAX {
            return Err(SignatureError::Damaged("its namespace is empty or too long"));
        }
        let namespace = str::from_utf8(namespace).map_err(|_| SignatureError::Damaged("its namespace is not UTF-8"))?;
        if !reserved.is_empty() {
            return Err(SignatureError::Damaged("its reserved field is in use"));
        }
        let hash = match hash {
            b"sha256" => HashAlg::Sha256,
            b"sha512" => HashAlg::Sha512,
            _ => return Err(SignatureError::Damaged("its hash is neither sha256 nor sha512")),
        };
        let key = known(key).cloned().map_or_else(|| PublicKey::from_blob(key), Ok)?;
        let proof = Proof::read(&key, proof)?;
        Ok(Self { key, namespace: namespace.to_owned(), hash, proof })
    }

    /// The key that it was made with, if it verifies.
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// The purpose that it was made for, if it verifies.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether its key signed `message` for `namespace`. Says nothing about whose key that is.
    pub fn verify(&self, namespace: &str, message: &[u8]) -> Result<(), SignatureError> {
        if self.namespace != namespace {
            let (expected, found) = (namespace.to_owned(), self.namespace.clone());
            return Err(SignatureError::Namespace { expected, found });
        }
        let data = signed_data(namespace, self.hash, message);
        let verified = match (&self.proof, self.key.kind()) {
            // Strict: dalek's and ring's plain verify accept signatures that anybody can make for a key of small order.
            (Proof::Ed25519(proof), Kind::Ed25519(key)) => key.verify_strict(&data, proof).is_ok(),
            (Proof::SkEd25519(proof, token), Kind::SkEd25519(key)) => {
                key.verify_strict(&token.signed_data(&data)?, proof).is_ok()
            }
            (Proof::SkP256(proof, token), Kind::SkP256(key)) => key.verify(&token.signed_data(&data)?, proof).is_ok(),
            // `Proof::read` made the proof for this key's kind.
            _ => false,
        };
        if verified { Ok(()) } else { Err(SignatureError::Mismatch) }
    }
}

impl Proof {
    /// Reads what an algorithm left behind; it must be the algorithm of `key`.
    fn read(key: &PublicKey, blob: &[u8]) -> Result<Self, SignatureError> {
        let short = || SignatureError::Damaged("its inner signature has another form than its key's type");
        let mut wire = Wire::new(blob);
        if wire.string() != Some(key.type_name().as_bytes()) {
            return Err(SignatureError::Damaged("its inner signature is of another type than its key"));
        }
        let proof = match key.kind() {
            Kind::Ed25519(_) => Self::Ed25519(ed25519(&mut wire).ok_or_else(short)?),
            Kind::SkEd25519(_) => {
                let proof = ed25519(&mut wire).ok_or_else(short)?;
                Self::SkEd25519(proof, Token::read(&mut wire).ok_or_else(short)?)
            }
            Kind::SkP256(_) => {
                let proof = p256(wire.string().ok_or_else(short)?).ok_or_else(short)?;
                Self::SkP256(proof, Token::read(&mut wire).ok_or_else(short)?)
            }
        };
        wire.end().ok_or_else(short)?;
        Ok(proof)
    }
}

impl Token {
    fn read(wire: &mut Wire<'_>) -> Option<Self> {
        Some(Self { flags: wire.byte()?, counter: wire.u32()? })
    }

    /// What the token signed: its own view, with the hash of `data` in it. Refuses a token that nobody touched.
    fn signed_data(self, data: &[u8]) -> Result<Vec<u8>, SignatureError> {
        // OpenSSH 9.2 leaves this check to sshd, and ssh-keygen -Y verify does not make it.
        if self.flags & USER_PRESENT == 0 {
            return Err(SignatureError::NoPresence);
        }
        let mut signed = Sha256::digest(APPLICATION).to_vec();
        signed.push(self.flags);
        signed.extend_from_slice(&self.counter.to_be_bytes());
        signed.extend_from_slice(&Sha256::digest(data));
        Ok(signed)
    }
}

fn ed25519(wire: &mut Wire<'_>) -> Option<ed25519_dalek::Signature> {
    Some(ed25519_dalek::Signature::from_bytes(&wire.array::<64>()?))
}

fn p256(blob: &[u8]) -> Option<p256::ecdsa::Signature> {
    let mut wire = Wire::new(blob);
    let (r, s) = (wire.scalar()?, wire.scalar()?);
    wire.end()?;
    p256::ecdsa::Signature::from_scalars(r, s).ok()
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({:?} for {:?})", self.key, self.namespace)
    }
}
