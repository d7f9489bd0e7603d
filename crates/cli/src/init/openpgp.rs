//! Whether an OpenPGP key is one that a server takes, found out before the server is asked.
//!
//! Found out late, it costs the ceremony: with one bad key the server answers 400 and is initialised all the same, its shares
//! lost. So the rules are narrower than OpenPGP's, and narrower than the server's: an RSA key of 2048 bits or more, or
//! Curve25519, or NIST P-256, of version 4, with a user id and an encryption subkey, neither expired nor revoked, each bound
//! by a signature with SHA-2. What is sent is not the file but its bones: the primary key, one user id, that one subkey.
//!
//! Also: a message as text, the way that people's programs read it. What does not live here: a secret key, or anything that decrypts.

use std::io::Write;

use holdfast_core::ceremony::OpenPgpFingerprint;
use pgp::armor::{self, BlockType};
use pgp::composed::{
    Deserializable, Esk, Message, MessageBuilder, SignedKeyDetails, SignedPublicKey, SignedPublicSubKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::ser::Serialize;
use pgp::types::{EcdhPublicParams, EcdsaPublicParams, KeyDetails, KeyVersion, PublicParams, SignedUser, Tag};
use rand::rngs::OsRng;

/// The shortest RSA key that a server takes, in bits.
const RSA_BITS_MIN: u16 = 2048;

/// How every armoured block begins.
const ARMOR_BEGINS: &str = "-----BEGIN PGP ";

/// A key that a server will encrypt to, reduced to what that needs.
#[derive(Debug)]
pub(crate) struct Addressee {
    key: SignedPublicKey,
    binary: Vec<u8>,
    newest: u32,
}

/// Why a key was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyRefusal {
    /// Armoured where binary was due.
    #[error("it is ASCII-armoured, where the binary key is due")]
    Armored,
    /// Not an OpenPGP public key, or cut off.
    #[error("it is not an OpenPGP public key, or is damaged: {0}")]
    Damaged(String),
    /// Several keys, and it would be a guess which one counts.
    #[error("there are several keys in it: export the one that is meant")]
    Several,
    /// A version that servers do not take.
    #[error("it is an OpenPGP key of version {0}, and servers take version 4: make one with gpg --quick-generate-key")]
    Version(u8),
    /// An algorithm that servers do not take.
    #[error(
        "its {part} is of an algorithm that servers do not take: RSA of {RSA_BITS_MIN} bits or more, Curve25519 or NIST P-256"
    )]
    Algorithm {
        /// Primary key or subkey.
        part: &'static str,
    },
    /// Revoked.
    #[error("it was revoked")]
    Revoked,
    /// Past its end.
    #[error("it has expired: extend it with gpg --quick-set-expire, and export it again")]
    Expired,
    /// No user id that the key itself vouches for with a hash that still counts.
    #[error("it has no user id that it signed itself with SHA-256 or better")]
    NoUser,
    /// Nothing in it that could be encrypted to.
    #[error(
        "it is for signing only, there is no usable encryption subkey in it: add one with gpg --quick-add-key FINGERPRINT cv25519 encr"
    )]
    SignOnly,
    /// Encrypting to it was tried, and failed.
    #[error("encrypting to it failed: {0}")]
    Trial(String),
}

impl Addressee {
    /// Checks a binary key at `now`, in seconds since 1970.
    pub(crate) fn from_binary(bytes: &[u8], now: u32) -> Result<Self, KeyRefusal> {
        // A packet's first byte always has its highest bit set; no text has.
        if bytes.first().is_some_and(u8::is_ascii) {
            return Err(KeyRefusal::Armored);
        }
        let keys = SignedPublicKey::from_bytes_many(bytes).map_err(|error| KeyRefusal::Damaged(error.to_string()))?;
        Self::check(single(keys)?, now)
    }

    /// Checks a key from a file, armoured or binary, at `now`.
    pub(crate) fn from_file(bytes: &[u8], now: u32) -> Result<Self, KeyRefusal> {
        if !bytes.first().is_some_and(u8::is_ascii) {
            return Self::from_binary(bytes, now);
        }
        // The library would read the first block and leave it at that.
        if String::from_utf8_lossy(bytes).matches(ARMOR_BEGINS).count() > 1 {
            return Err(KeyRefusal::Several);
        }
        let (keys, _) =
            SignedPublicKey::from_armor_many(bytes).map_err(|error| KeyRefusal::Damaged(error.to_string()))?;
        Self::check(single(keys)?, now)
    }

    fn check(key: SignedPublicKey, now: u32) -> Result<Self, KeyRefusal> {
        if key.version() != KeyVersion::V4 {
            return Err(KeyRefusal::Version(key.version().into()));
        }
        check_primary(&key)?;
        if key.details.revocation_signatures.iter().any(|signature| signature.verify_key(&key.primary_key).is_ok()) {
            return Err(KeyRefusal::Revoked);
        }
        let direct =
            key.details.direct_signatures.iter().filter(|s| counts(s) && s.verify_key(&key.primary_key).is_ok());
        if newest(direct).is_some_and(|signature| expired(signature, &key, now)) {
            return Err(KeyRefusal::Expired);
        }
        let (user, user_signature) = user(&key)?;
        if expired(&user_signature, &key, now) {
            return Err(KeyRefusal::Expired);
        }
        let (subkey, subkey_signature) = encryption_subkey(&key, now)?;
        let newest = [key.created_at(), subkey.key.created_at()]
            .into_iter()
            .chain([&user_signature, &subkey_signature].into_iter().filter_map(Signature::created))
            .map(|time| time.as_secs())
            .max();

        let details = SignedKeyDetails::new(
            Vec::new(),
            Vec::new(),
            vec![SignedUser::new(user.id.clone(), vec![user_signature])],
            Vec::new(),
        );
        let subkey = SignedPublicSubKey::new(subkey.key.clone(), vec![subkey_signature]);
        let bones = SignedPublicKey::new(key.primary_key.clone(), details, vec![subkey]);
        let damaged = |error: pgp::errors::Error| KeyRefusal::Damaged(error.to_string());
        bones.verify_bindings().map_err(damaged)?;
        let binary = bones.to_bytes().map_err(damaged)?;
        let addressee = Self { key: bones, binary, newest: newest.unwrap_or(u32::MAX) };
        let trial = addressee.encrypt(b"a trial, before the server is asked")?;
        if !addressee.is_addressed(&trial) {
            return Err(KeyRefusal::Trial("the message was not addressed to it".to_owned()));
        }
        Ok(addressee)
    }

    /// The key as a server takes it.
    pub(crate) fn binary(&self) -> &[u8] {
        &self.binary
    }

    /// The primary key's fingerprint.
    pub(crate) fn fingerprint(&self) -> OpenPgpFingerprint {
        let fingerprint = self.key.fingerprint();
        OpenPgpFingerprint::from_bytes(
            fingerprint.as_bytes().try_into().expect("20 bytes: of version 4, as was checked"),
        )
    }

    /// When the youngest part of it was made, in seconds since 1970: a server whose clock is before that refuses the key.
    pub(crate) fn newest(&self) -> u32 {
        self.newest
    }

    /// Whether a binary message is encrypted to this key, and to nobody else. The host's program has the same rule for its own key:
    /// change both.
    pub(crate) fn is_addressed(&self, message: &[u8]) -> bool {
        let Ok(Message::Encrypted { esk, .. }) = Message::from_bytes(message) else {
            return false;
        };
        let ours = |esk: &Esk| match esk {
            Esk::PublicKeyEncryptedSessionKey(session) => {
                // A wildcard would match every key: then nobody can say whose it is.
                session.id().is_ok_and(|id| !id.is_wildcard())
                    && self.key.public_subkeys.iter().any(|subkey| session.match_identity(&subkey.key))
            }
            Esk::SymKeyEncryptedSessionKey(_) => false,
        };
        esk.len() == 1 && esk.iter().all(ours)
    }

    fn encrypt(&self, plaintext: &'static [u8]) -> Result<Vec<u8>, KeyRefusal> {
        let failed = |error: pgp::errors::Error| KeyRefusal::Trial(error.to_string());
        let subkey = self.key.public_subkeys.first().ok_or(KeyRefusal::SignOnly)?;
        let mut message = MessageBuilder::from_bytes("", plaintext).seipd_v1(OsRng, SymmetricKeyAlgorithm::AES256);
        message.encrypt_to_key(OsRng, &subkey.key).map_err(failed)?;
        message.to_vec(OsRng).map_err(failed)
    }
}

/// A fingerprint as people's programs show it: ten groups of four, in upper case.
pub(crate) fn readable(fingerprint: OpenPgpFingerprint) -> String {
    let digits = fingerprint.to_string().to_uppercase();
    let groups: Vec<_> = (0..digits.len()).step_by(4).map(|at| &digits[at..at + 4]).collect();
    groups.join(" ")
}

/// A binary message as ASCII-armoured text, with the checksum that finds a slip of whoever types it from paper.
pub(crate) fn armored(message: &[u8]) -> String {
    struct Raw<'a>(&'a [u8]);
    impl Serialize for Raw<'_> {
        fn to_writer<W: Write>(&self, writer: &mut W) -> pgp::errors::Result<()> {
            Ok(writer.write_all(self.0)?)
        }

        fn write_len(&self) -> usize {
            self.0.len()
        }
    }
    let mut text = Vec::new();
    armor::write(&Raw(message), BlockType::Message, &mut text, None, true).expect("memory takes what is written");
    String::from_utf8(text).expect("armour is ASCII")
}

fn single(mut keys: impl Iterator<Item = pgp::errors::Result<SignedPublicKey>>) -> Result<SignedPublicKey, KeyRefusal> {
    let none = || KeyRefusal::Damaged("there is no key in it".to_owned());
    let key = keys.next().ok_or_else(none)?.map_err(|error| KeyRefusal::Damaged(error.to_string()))?;
    match keys.next() {
        None => Ok(key),
        Some(Ok(_)) => Err(KeyRefusal::Several),
        Some(Err(error)) => Err(KeyRefusal::Damaged(error.to_string())),
    }
}

fn check_primary(key: &SignedPublicKey) -> Result<(), KeyRefusal> {
    let taken = match key.public_params() {
        params @ PublicParams::RSA(_) => rsa_bits(params) >= RSA_BITS_MIN,
        PublicParams::EdDSALegacy(_) | PublicParams::ECDSA(EcdsaPublicParams::P256 { .. }) => true,
        _ => false,
    };
    if taken { Ok(()) } else { Err(KeyRefusal::Algorithm { part: "primary key" }) }
}

fn takes_encryption(params: &PublicParams) -> bool {
    match params {
        PublicParams::RSA(_) => rsa_bits(params) >= RSA_BITS_MIN,
        PublicParams::ECDH(EcdhPublicParams::Curve25519Legacy { .. } | EcdhPublicParams::P256 { .. }) => true,
        _ => false,
    }
}

/// The modulus's length: its encoding begins with it.
fn rsa_bits(params: &PublicParams) -> u16 {
    match params.to_bytes().as_deref() {
        Ok([high, low, ..]) => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}

/// The primary user id, or the newest, with its own newest signature. Third parties' signatures are none of our business.
fn user(key: &SignedPublicKey) -> Result<(&SignedUser, Signature), KeyRefusal> {
    let own = |user: &SignedUser, signature: &Signature| {
        counts(signature) && signature.verify_certification(&key.primary_key, Tag::UserId, &user.id).is_ok()
    };
    let revoked = |user: &SignedUser| {
        let is_revocation = |s: &&Signature| s.typ() == Some(SignatureType::CertRevocation);
        user.signatures.iter().filter(is_revocation).any(|signature| own(user, signature))
    };
    let users = key.details.users.iter().filter(|user| !revoked(user)).filter_map(|user| {
        let signature = newest(user.signatures.iter().filter(|signature| own(user, signature)))?;
        Some((user, signature.clone()))
    });
    let best = users.max_by_key(|(_, signature)| (signature.is_primary(), signature.created().map(|t| t.as_secs())));
    best.ok_or(KeyRefusal::NoUser)
}

/// The newest subkey that may be encrypted to, with its binding. Servers take the newest too.
fn encryption_subkey(key: &SignedPublicKey, now: u32) -> Result<(&SignedPublicSubKey, Signature), KeyRefusal> {
    let mut refusal = KeyRefusal::SignOnly;
    let mut found: Option<(&SignedPublicSubKey, Signature)> = None;
    for subkey in &key.public_subkeys {
        let own = |signature: &&Signature| signature.verify_subkey_binding(&key.primary_key, &subkey.key).is_ok();
        let of = |kind: SignatureType| subkey.signatures.iter().filter(move |s| s.typ() == Some(kind)).filter(own);
        let Some(binding) = newest(of(SignatureType::SubkeyBinding).filter(|signature| counts(signature))) else {
            continue;
        };
        if !binding.key_flags().encrypt_comms() {
            continue;
        }
        if of(SignatureType::SubkeyRevocation).next().is_some() {
            refusal = KeyRefusal::Revoked;
        } else if expired(binding, &subkey.key, now) {
            refusal = KeyRefusal::Expired;
        } else if subkey.key.version() != KeyVersion::V4 || !takes_encryption(subkey.key.public_params()) {
            refusal = KeyRefusal::Algorithm { part: "encryption subkey" };
        } else if found.as_ref().is_none_or(|(_, best)| best.created() < binding.created()) {
            found = Some((subkey, binding.clone()));
        }
    }
    found.ok_or(refusal)
}

fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>) -> Option<&'a Signature> {
    signatures.max_by_key(|signature| signature.created().map(|time| time.as_secs()))
}

/// Whether a signature was made with a hash that servers still believe.
fn counts(signature: &Signature) -> bool {
    let strong = [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512, HashAlgorithm::Sha224];
    signature.hash_alg().is_some_and(|hash| strong.contains(&hash))
}

/// Whether the key or the signature over it is past its end at `now`.
fn expired(signature: &Signature, key: &impl KeyDetails, now: u32) -> bool {
    let past = |start: u32, length: Option<u32>| {
        length.is_some_and(|length| length != 0 && start.checked_add(length).is_some_and(|end| end <= now))
    };
    let made = signature.created().map_or(0, |time| time.as_secs());
    past(key.created_at().as_secs(), signature.key_expiration_time().map(|length| length.as_secs()))
        || past(made, signature.signature_expiration_time().map(|length| length.as_secs()))
}
