//! The envelope: a message's exact bytes and the signature over them, as one JSON object.
//!
//! What lives here: the outer form, and whether the signature is one that counts. What the body says, when, and to whom is
//! `message`'s and `admission`'s. The body stays bytes until its signature has been verified; nothing is parsed before.

use std::borrow::Cow;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Deserialize;

use crate::id::Principal;
use crate::sshsig::{PublicKey, PublicKeyError, SIGNATURE_MAX, Signature, SignatureError};
use crate::time::Timestamp;
use crate::trust::{AllowedSigners, Namespace, TrustRefusal};

/// The largest envelope, in bytes: a `trust` order with the largest `allowed_signers` file in it, twice encoded, fits. A full
/// queue of these is what a flood can make a party keep.
pub const ENVELOPE_MAX: usize = 64 * 1024;

/// The largest body that always fits an envelope, in bytes: what base64 leaves of it beside the longest signature, whose
/// line feeds JSON writes as two characters each, and the field names.
pub const BODY_MAX: usize = (ENVELOPE_MAX - SIGNATURE_MAX - 128) / 4 * 3;

/// A message's exact bytes and the signature that came with them. Not verified yet.
#[derive(Debug, Clone)]
pub struct Envelope {
    body: Vec<u8>,
    signature: Signature,
}

/// Why an envelope was refused: always its sender's fault, or somebody's between.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Larger than [`ENVELOPE_MAX`].
    #[error("the envelope has {0} bytes, and {ENVELOPE_MAX} are the most")]
    Oversized(usize),
    /// Not a JSON object with `body` and `signature`, each once and nothing else.
    #[error("not an envelope: {0}")]
    Malformed(String),
    /// The body is not base64 with padding in its only spelling.
    #[error("the envelope's body is not canonical base64")]
    Body,
    /// The signature is not one, or does not belong to the body, or was made for another purpose.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The key does not speak for the sender.
    #[error(transparent)]
    Refused(#[from] TrustRefusal),
}

impl EnvelopeError {
    /// The refusal's name where it is counted: one of a closed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Oversized(_) | Self::Signature(SignatureError::Oversized) => "oversized",
            Self::Malformed(_) | Self::Body => "malformed",
            Self::Signature(error) => match error {
                SignatureError::Key(
                    PublicKeyError::Weak | PublicKeyError::Type(_) | PublicKeyError::Application(_),
                )
                | SignatureError::NoPresence => "forged",
                SignatureError::Namespace { .. } => "wrong-role",
                SignatureError::Mismatch => "altered",
                _ => "malformed",
            },
            Self::Refused(refusal) => match refusal {
                TrustRefusal::UnknownPrincipal(_) | TrustRefusal::NotTheirKey { .. } => "forged",
                TrustRefusal::Namespace { .. } => "wrong-role",
                TrustRefusal::NotYetValid { .. } => "early",
                TrustRefusal::Expired { .. } => "expired",
            },
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    #[serde(borrow)]
    body: Cow<'a, str>,
    #[serde(borrow)]
    signature: Cow<'a, str>,
}

impl Envelope {
    /// Reads an envelope. It is well formed then, and nothing more: see [`Envelope::verify`].
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        Self::parse_by(bytes, |_| None)
    }

    /// The same, where the signer's key is one that `signers` lists, as it mostly is.
    pub fn parse_from(bytes: &[u8], signers: &AllowedSigners) -> Result<Self, EnvelopeError> {
        Self::parse_by(bytes, |blob| signers.key(blob))
    }

    fn parse_by<'k>(bytes: &[u8], known: impl Fn(&[u8]) -> Option<&'k PublicKey>) -> Result<Self, EnvelopeError> {
        if bytes.len() > ENVELOPE_MAX {
            return Err(EnvelopeError::Oversized(bytes.len()));
        }
        // serde would take the two fields from an array too.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(EnvelopeError::Malformed("expected a JSON object".to_owned()));
        }
        let wire: Wire<'_> =
            serde_json::from_slice(bytes).map_err(|error| EnvelopeError::Malformed(error.to_string()))?;
        let signature = Signature::parse_by(&wire.signature, known)?;
        let body = BASE64_STANDARD.decode(wire.body.as_bytes()).map_err(|_| EnvelopeError::Body)?;
        Ok(Self { body, signature })
    }

    /// The envelope of `body` and its armoured signature: one line of JSON, without a line feed at its end.
    pub fn assemble(body: &[u8], armored_signature: &str) -> Vec<u8> {
        let signature = serde_json::Value::from(armored_signature);
        format!("{{\"body\":\"{}\",\"signature\":{signature}}}", BASE64_STANDARD.encode(body)).into_bytes()
    }

    /// The message's exact bytes. Nobody has vouched for them until [`Envelope::verify`] said so.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The signature.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Whether `principal` signed the body for `namespace` with a key that counts at `at`.
    pub fn verify(
        &self,
        signers: &AllowedSigners,
        principal: &Principal,
        namespace: Namespace,
        at: Timestamp,
    ) -> Result<(), EnvelopeError> {
        // The list first: a stranger's signature is not worth the arithmetic.
        signers.authorise(principal, namespace, self.signature.public_key(), at)?;
        Ok(self.signature.verify(namespace.as_str(), &self.body)?)
    }
}
