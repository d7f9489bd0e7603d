//! An enrollment: a custodian's public keys, signed by one of them, so that nobody can enroll a key that he does not hold.

use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::{Deserialize, Serialize};

use super::{CeremonyError, FileKind, Fingerprint, VERSION, field_error, parse_base64, parse_file, parse_signing_key};
use crate::envelope::{BODY_MAX, Envelope, EnvelopeError};
use crate::id::{Principal, Site};
use crate::sshsig::PublicKey;
use crate::time::Timestamp;

/// The namespace of an enrollment's signature. Not one that `allowed_signers` may list: it vouches for nothing else.
pub const ENROLLMENT_NAMESPACE: &str = "holdfast.enrollment";

/// The largest OpenPGP key that is read, in bytes: one of ours has 400, an RSA-4096 key with a few user ids 4 KiB.
pub const OPENPGP_KEY_MAX: usize = 16 * 1024;

/// An age recipient of the native kind, as text: `age1` and 58 characters more.
///
/// Here only its form is checked; whether its checksum holds is for the crate that encrypts to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgeRecipient(String);

impl AgeRecipient {
    const PREFIX: &str = "age1";
    const LEN: usize = 62;

    /// The recipient as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AgeRecipient {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let bech32 = |byte| b"qpzry9x8gf2tvdw0s3jn54khce6mua7l".contains(&byte);
        match text.strip_prefix(Self::PREFIX) {
            Some(rest) if text.len() == Self::LEN && rest.bytes().all(bech32) => Ok(Self(text.to_owned())),
            _ => Err("not an age recipient: age1 and 58 lower-case characters more"),
        }
    }
}

impl fmt::Display for AgeRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A custodian's public keys.
#[derive(Debug, Clone)]
pub struct Enrollment {
    /// Who it is.
    pub custodian: Principal,
    /// Where its host stands, for margins without the largest site.
    pub site: Option<Site>,
    /// What its shares are encrypted to at rest.
    pub age_recipient: AgeRecipient,
    /// What it signs reports with.
    pub signing_key: PublicKey,
    /// What its packets are encrypted to: a binary transferable public key, not looked into here.
    pub openpgp_key: Vec<u8>,
    /// When it was made, by its own clock. Information only.
    pub created_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: u64,
    kind: String,
    custodian: Principal,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    site: Option<Site>,
    age_recipient: String,
    signing_key: String,
    openpgp_key: String,
    created_at: Timestamp,
}

impl Enrollment {
    /// The body that is signed in [`ENROLLMENT_NAMESPACE`] and put in an [`Envelope`].
    pub fn to_body(&self) -> Vec<u8> {
        let wire = Wire {
            v: VERSION,
            kind: FileKind::Enrollment.as_str().to_owned(),
            custodian: self.custodian.clone(),
            site: self.site.clone(),
            age_recipient: self.age_recipient.to_string(),
            signing_key: self.signing_key.to_openssh(),
            openpgp_key: BASE64_STANDARD.encode(&self.openpgp_key),
            created_at: self.created_at,
        };
        serde_json::to_vec(&wire).expect("strings and a number always become JSON")
    }

    fn parse(body: &[u8]) -> Result<Self, CeremonyError> {
        let kind = FileKind::Enrollment;
        let wire: Wire = parse_file(kind, BODY_MAX, body)?;
        Ok(Self {
            custodian: wire.custodian,
            site: wire.site,
            age_recipient: wire.age_recipient.parse().map_err(|why| field_error(kind, "age_recipient", why))?,
            signing_key: parse_signing_key(kind, &wire.signing_key)?,
            openpgp_key: parse_base64(kind, "openpgp_key", OPENPGP_KEY_MAX, &wire.openpgp_key)?,
            created_at: wire.created_at,
        })
    }
}

/// An enrollment whose signature was verified with its own key: whoever made it holds that key. Whose it really is, only
/// people can say, by comparing [`SignedEnrollment::fingerprint`].
#[derive(Debug, Clone)]
pub struct SignedEnrollment {
    enrollment: Enrollment,
    fingerprint: Fingerprint,
}

impl SignedEnrollment {
    /// Reads an enrollment file and verifies it.
    pub fn open(file: &[u8]) -> Result<Self, CeremonyError> {
        if file.is_empty() {
            return Err(CeremonyError::Empty(FileKind::Enrollment));
        }
        let envelope = Envelope::parse(file).map_err(|error| Self::mistaken(file).unwrap_or_else(|| error.into()))?;
        let signature = envelope.signature();
        signature.verify(ENROLLMENT_NAMESPACE, envelope.body()).map_err(EnvelopeError::from)?;
        let enrollment = Enrollment::parse(envelope.body())?;
        if enrollment.signing_key != *signature.public_key() {
            return Err(CeremonyError::Signer);
        }
        Ok(Self { enrollment, fingerprint: Fingerprint::of(envelope.body()) })
    }

    /// Whether somebody gave another file of the ceremony by mistake, which deserves a better answer than "not an envelope".
    fn mistaken(file: &[u8]) -> Option<CeremonyError> {
        let error = parse_file::<serde::de::IgnoredAny>(FileKind::Enrollment, usize::MAX, file).err()?;
        matches!(error, CeremonyError::Kind { .. }).then_some(error)
    }

    /// What was signed.
    pub fn enrollment(&self) -> &Enrollment {
        &self.enrollment
    }

    /// The fingerprint of what was signed, to be compared by voice.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Whether all are of different custodians with keys of their own.
    pub fn check_distinct(enrollments: &[Self]) -> Result<(), CeremonyError> {
        for (index, second) in enrollments.iter().map(Self::enrollment).enumerate() {
            for first in enrollments.iter().take(index).map(Self::enrollment) {
                let same = [
                    ("name", first.custodian == second.custodian),
                    ("age recipient", first.age_recipient == second.age_recipient),
                    ("signing key", first.signing_key == second.signing_key),
                    ("OpenPGP key", first.openpgp_key == second.openpgp_key),
                ];
                if let Some((what, _)) = same.into_iter().find(|(_, same)| *same) {
                    let (first, second) = (first.custodian.clone(), second.custodian.clone());
                    return Err(CeremonyError::Twice { first, second, what });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};

    use super::*;
    use crate::sshsig::{HashAlg, armor_ed25519, signed_data};

    const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

    fn public(key: &SigningKey) -> PublicKey {
        PublicKey::from_ed25519(key.verifying_key().to_bytes()).expect("a key")
    }

    fn enrollment(key: &SigningKey) -> Enrollment {
        Enrollment {
            custodian: "custodian-1".parse().expect("a name"),
            site: Some("zurich".parse().expect("a name")),
            age_recipient: RECIPIENT.parse().expect("a recipient"),
            signing_key: public(key),
            openpgp_key: vec![1, 2, 3],
            created_at: Timestamp::from_millis(1_795_341_600_123),
        }
    }

    fn sign(key: &SigningKey, namespace: &str, body: &[u8]) -> Vec<u8> {
        let signature = key.sign(&signed_data(namespace, HashAlg::Sha512, body)).to_bytes();
        Envelope::assemble(body, &armor_ed25519(&public(key), namespace, HashAlg::Sha512, &signature))
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    #[test]
    fn an_enrollment_reads_back_with_the_fingerprint_of_what_was_signed() {
        let body = enrollment(&key(1)).to_body();
        let opened = SignedEnrollment::open(&sign(&key(1), ENROLLMENT_NAMESPACE, &body)).expect("its own signature");
        assert_eq!(opened.enrollment().to_body(), body);
        assert_eq!(opened.fingerprint(), Fingerprint::of(&body));
    }

    #[test]
    fn another_signer_or_purpose_is_refused() {
        let body = enrollment(&key(1)).to_body();
        let foreign =
            SignedEnrollment::open(&sign(&key(2), ENROLLMENT_NAMESPACE, &body)).expect_err("a foreign signer");
        assert_eq!(foreign, CeremonyError::Signer);
        let purpose = SignedEnrollment::open(&sign(&key(1), "holdfast.report", &body)).expect_err("another purpose");
        assert!(matches!(purpose, CeremonyError::Envelope(_)), "{purpose}");
    }

    #[test]
    fn what_was_altered_cut_off_or_is_of_another_form_is_refused() {
        let body = String::from_utf8(enrollment(&key(1)).to_body()).expect("JSON");
        let good = sign(&key(1), ENROLLMENT_NAMESPACE, body.as_bytes());
        let text = String::from_utf8(good.clone()).expect("JSON");
        let altered = Envelope::assemble(body.replace("zurich", "geneva").as_bytes(), &armor(&text));
        let refused = SignedEnrollment::open(&altered).expect_err("altered");
        assert!(matches!(refused, CeremonyError::Envelope(_)), "{refused}");
        for cut in 0..good.len() {
            assert!(SignedEnrollment::open(&good[..cut]).is_err(), "cut at {cut}");
        }
        for (from, to, expected) in [
            ("\"v\":1", "\"v\":2", "version 2"),
            ("\"kind\":\"enrollment\"", "\"kind\":\"packet\"", "kind \"packet\""),
            ("\"site\"", "\"sight\"", "unknown field `sight`"),
            ("custodian-1", "Custodian 1", "is not a name"),
            (RECIPIENT, "age1", "age_recipient"),
            ("\"openpgp_key\":\"AQID\"", "\"openpgp_key\":\"\"", "openpgp_key"),
            ("\"openpgp_key\":\"AQID\"", "\"openpgp_key\":\"?\"", "not base64"),
            ("\"signing_key\":\"ssh-ed25519", "\"signing_key\":\"ssh-rsa", "signing_key"),
        ] {
            let bad = body.replace(from, to);
            assert_ne!(bad, body, "{from}");
            let error = SignedEnrollment::open(&sign(&key(1), ENROLLMENT_NAMESPACE, bad.as_bytes())).expect_err(to);
            assert!(error.to_string().contains(expected), "{to}: {error}");
        }
        let packet = SignedEnrollment::open(br#"{"v":1,"kind":"packet"}"#).expect_err("a packet");
        assert!(matches!(packet, CeremonyError::Kind { .. }), "{packet}");
        assert_eq!(SignedEnrollment::open(b"").expect_err("empty"), CeremonyError::Empty(FileKind::Enrollment));
    }

    #[test]
    fn a_custodian_or_a_key_counts_once() {
        let open = |key: &SigningKey, change: &dyn Fn(&mut Enrollment)| {
            let mut one = enrollment(key);
            change(&mut one);
            SignedEnrollment::open(&sign(key, ENROLLMENT_NAMESPACE, &one.to_body())).expect("signed")
        };
        let first = open(&key(1), &|_| ());
        let other = |name: &'static str| {
            move |one: &mut Enrollment| {
                one.custodian = name.parse().expect("a name");
                one.age_recipient = RECIPIENT.replace("ql3z", "ql3y").parse().expect("a recipient");
                one.openpgp_key = vec![9];
            }
        };
        let good = open(&key(2), &other("custodian-2"));
        assert_eq!(SignedEnrollment::check_distinct(&[first.clone(), good.clone()]), Ok(()));
        for (second, what) in [
            (first.clone(), "name"),
            (open(&key(2), &other("custodian-1")), "name"),
            (open(&key(1), &other("custodian-2")), "signing key"),
            (open(&key(2), &|one| one.custodian = "custodian-2".parse().expect("a name")), "age recipient"),
        ] {
            let twice = SignedEnrollment::check_distinct(&[first.clone(), good.clone(), second]).expect_err(what);
            assert!(matches!(twice, CeremonyError::Twice { what: found, .. } if found == what), "{twice}");
        }
    }

    fn armor(envelope: &str) -> String {
        let value: serde_json::Value = serde_json::from_str(envelope).expect("JSON");
        value["signature"].as_str().expect("text").to_owned()
    }
}
