//! The transport key: OpenPGP, because that is what a Vault encrypts shares to.
//!
//! What lives here: making a key, and decrypting one message with it. What does not: signatures, other people's keys,
//! encryption. The key has no passphrase, as the age identity beside it has none: the host protects both.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use holdfast_core::id::Principal;
use holdfast_core::share::{SHARE_LEN, Share, ShareError};
use holdfast_edge::files::{self, FileError};
use pgp::composed::{
    ArmorOptions, Deserializable, EncryptionCaps, Esk, KeyType, Message, SecretKeyParamsBuilder, SignedPublicKey,
    SignedSecretKey, SubkeyParamsBuilder,
};
use pgp::crypto::ecc_curve::ECCCurve;
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::ser::Serialize;
use pgp::types::{KeyDetails, Password};
use rand::rngs::OsRng;
use zeroize::Zeroizing;

/// The largest transport key file that is read, in bytes: ours have 800.
const KEY_FILE_MAX: usize = 16 * 1024;

/// An OpenPGP secret key with one subkey for encryption.
pub(crate) struct TransportKey(SignedSecretKey);

/// Why there is no transport key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportKeyError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file has something else in it, or only a part of a key.
    #[error("{} is not an armoured OpenPGP secret key without a passphrase, or is damaged ({why}): restore it, or enroll again", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The library could not make a key.
    #[error("no OpenPGP key could be made: {0}")]
    Generate(String),
}

/// Why a message gave no share. Nothing of its content is in the message to the person.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecryptError {
    /// Not an encrypted OpenPGP message.
    #[error("it holds no encrypted OpenPGP message")]
    NotAMessage,
    /// Encrypted to somebody else, or to others too.
    #[error("it is not encrypted to this transport key ({0}) alone")]
    NotOurs(String),
    /// Altered or cut off.
    #[error("it does not decrypt: it is damaged")]
    Damaged,
    /// Decrypted, and something else than a share came out.
    #[error("it decrypts, but what is in it is no share: {0}")]
    NotAShare(#[from] ShareError),
}

impl TransportKey {
    /// A new cv25519 key: a primary key that certifies, and a subkey that decrypts.
    pub(crate) fn generate(custodian: &Principal) -> Result<Self, TransportKeyError> {
        let refused = |error: &dyn fmt::Display| TransportKeyError::Generate(error.to_string());
        let subkey = SubkeyParamsBuilder::default()
            .key_type(KeyType::ECDH(ECCCurve::Curve25519Legacy))
            .can_encrypt(EncryptionCaps::All)
            .build()
            .map_err(|error| refused(&error))?;
        let params = SecretKeyParamsBuilder::default()
            .key_type(KeyType::Ed25519Legacy)
            .can_certify(true)
            .primary_user_id(format!("{custodian} (Holdfast transport key)"))
            .preferred_symmetric_algorithms([SymmetricKeyAlgorithm::AES256].into_iter().collect())
            .preferred_hash_algorithms([HashAlgorithm::Sha512, HashAlgorithm::Sha256].into_iter().collect())
            .subkeys(vec![subkey])
            .build()
            .map_err(|error| refused(&error))?;
        params.generate(OsRng).map(Self).map_err(|error| refused(&error))
    }

    /// Reads a key file that nobody but its owner has any right to.
    pub(crate) fn load(path: &Path) -> Result<Self, TransportKeyError> {
        let file = files::read_secret(path, KEY_FILE_MAX)?;
        let damaged = |why: String| TransportKeyError::Damaged { path: path.to_owned(), why };
        if file.trim_ascii().is_empty() {
            return Err(damaged("it is empty".to_owned()));
        }
        let (key, _) = SignedSecretKey::from_armor_single(file.as_slice()).map_err(|e| damaged(e.to_string()))?;
        key.verify_bindings().map_err(|error| damaged(error.to_string()))?;
        let locked = key.secret_subkeys.iter().any(|subkey| subkey.key.secret_params().is_encrypted());
        if locked || key.secret_subkeys.is_empty() {
            return Err(damaged("it has a passphrase, or no subkey".to_owned()));
        }
        Ok(Self(key))
    }

    /// Writes the key to a new file, armoured, so that `gpg --import` reads it. Never overwrites one.
    pub(crate) fn save(&self, path: &Path) -> Result<(), TransportKeyError> {
        let armored = self.0.to_armored_bytes(ArmorOptions::default());
        let armored = Zeroizing::new(armored.map_err(|error| TransportKeyError::Generate(error.to_string()))?);
        Ok(files::create_secret(path, &armored)?)
    }

    /// The public half, binary: what a server takes.
    pub(crate) fn public_binary(&self) -> Result<Vec<u8>, TransportKeyError> {
        self.public().to_bytes().map_err(|error| TransportKeyError::Generate(error.to_string()))
    }

    /// The public half, armoured: what people pass on.
    pub(crate) fn public_armored(&self) -> Result<Vec<u8>, TransportKeyError> {
        let armored = self.public().to_armored_bytes(ArmorOptions::default());
        armored.map_err(|error| TransportKeyError::Generate(error.to_string()))
    }

    /// The fingerprint by which a server names a binary key: the primary key's, in hexadecimal. None if it is not a key.
    pub(crate) fn fingerprint_of(public_binary: &[u8]) -> Option<String> {
        Some(SignedPublicKey::from_bytes(public_binary).ok()?.fingerprint().to_string())
    }

    fn public(&self) -> SignedPublicKey {
        self.0.to_public_key()
    }

    /// Whether a message is encrypted to this key, and to nobody else: the rule of the operator's program, whose twin this is, so
    /// that a ceremony gives out nothing that its host would refuse.
    pub(crate) fn is_addressed(&self, message: &[u8]) -> bool {
        Message::from_bytes(message).is_ok_and(|message| self.is_sole_recipient(&message))
    }

    fn is_sole_recipient(&self, message: &Message<'_>) -> bool {
        let Message::Encrypted { esk, .. } = message else { return false };
        let ours = |esk: &Esk| match esk {
            Esk::PublicKeyEncryptedSessionKey(session) => {
                // A wildcard would match every key: then nobody can say whose it is.
                session.id().is_ok_and(|id| !id.is_wildcard())
                    && self.0.secret_subkeys.iter().any(|subkey| session.match_identity(&subkey.key))
            }
            Esk::SymKeyEncryptedSessionKey(_) => false,
        };
        esk.len() == 1 && esk.iter().all(ours)
    }

    /// The share in a message whose plaintext is the share's hexadecimal text. It is decoded in place; what the library
    /// copied on the way, the allocator wipes.
    pub(crate) fn decrypt_share(&self, message: &[u8]) -> Result<Share, DecryptError> {
        let message = Message::from_bytes(message).map_err(|_| DecryptError::NotAMessage)?;
        if !message.is_encrypted() {
            return Err(DecryptError::NotAMessage);
        }
        if !self.is_sole_recipient(&message) {
            return Err(DecryptError::NotOurs(self.0.fingerprint().to_string()));
        }
        let mut message = message.decrypt(&Password::empty(), &self.0).map_err(|_| DecryptError::Damaged)?;
        // One more than a share has, to see that there is no more. Read to the end: only there is it known to be whole.
        let mut text = Zeroizing::new([0; SHARE_LEN * 2 + 1]);
        let mut filled = 0;
        while filled < text.len() {
            match message.read(&mut text[filled..]).map_err(|_| DecryptError::Damaged)? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(Share::from_hex(&text[..filled])?)
    }
}
