//! The lab's own OpenPGP key, which receives the root token: a person has one, so the lab has one too.
//!
//! It lives in memory and for one ceremony. What it decrypts goes into a plain file, which no real ceremony leaves behind.

use std::io::Read;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use pgp::composed::{
    ArmorOptions, EncryptionCaps, KeyType, Message, SecretKeyParamsBuilder, SignedSecretKey, SubkeyParamsBuilder,
};
use pgp::crypto::ecc_curve::ECCCurve;
use pgp::types::Password;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

/// The longest token that is read, in bytes: a root token has some 30.
const TOKEN_MAX: u64 = 4096;

/// Why the lab has no root token. The library's own words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootTokenError {
    /// No key.
    #[error("no OpenPGP key could be made for the root token: {0}")]
    Generate(String),
    /// The message does not open.
    #[error("the root token does not decrypt with the lab's key: {0}")]
    Decrypt(String),
}

/// A key that receives one token.
pub(crate) struct Receiver(SignedSecretKey);

impl Receiver {
    /// A new cv25519 key.
    pub(crate) fn generate() -> Result<Self, RootTokenError> {
        let refused = |error: String| RootTokenError::Generate(error);
        let subkey = SubkeyParamsBuilder::default()
            .key_type(KeyType::ECDH(ECCCurve::Curve25519Legacy))
            .can_encrypt(EncryptionCaps::All)
            .build()
            .map_err(|e| refused(e.to_string()))?;
        let params = SecretKeyParamsBuilder::default()
            .key_type(KeyType::Ed25519Legacy)
            .can_certify(true)
            .primary_user_id("Holdfast lab".to_owned())
            .subkeys(vec![subkey])
            .build()
            .map_err(|e| refused(e.to_string()))?;
        params.generate(OsRng).map(Self).map_err(|e| refused(e.to_string()))
    }

    /// Its public half, armoured: what `holdfast init` is given.
    pub(crate) fn public(&self) -> Result<Vec<u8>, RootTokenError> {
        let armoured = self.0.to_public_key().to_armored_bytes(ArmorOptions::default());
        armoured.map_err(|e| RootTokenError::Generate(e.to_string()))
    }

    /// The token in what the server encrypted: a binary OpenPGP message, armoured, in base64 or as it is.
    pub(crate) fn open(&self, encrypted: &[u8]) -> Result<Zeroizing<Vec<u8>>, RootTokenError> {
        let refused = |e: pgp::errors::Error| RootTokenError::Decrypt(e.to_string());
        let binary = BASE64_STANDARD.decode(encrypted.trim_ascii()).unwrap_or_else(|_| encrypted.to_vec());
        let message = if binary.starts_with(b"-----BEGIN") {
            Message::from_armor(binary.as_slice()).map_err(refused)?.0
        } else {
            Message::from_bytes(binary.as_slice()).map_err(refused)?
        };
        let message = message.decrypt(&Password::empty(), &self.0).map_err(refused)?;
        let mut token = Zeroizing::new(Vec::new());
        message.take(TOKEN_MAX).read_to_end(&mut token).map_err(|e| RootTokenError::Decrypt(e.to_string()))?;
        Ok(token)
    }
}
