//! Fingerprints: one that two people can compare by voice, and OpenPGP's own, as people's programs show it.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// RFC 4648's alphabet: no 0, 1 or 8, which sound or look like letters.
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// How many characters: 5 bits each, so 100 bits.
const CHARACTERS: usize = 20;

/// The first 100 bits of a SHA-256, as five groups of four characters: `K7QM-2XRT-…`.
///
/// Enough that nobody finds a second file with the fingerprint of somebody else's, which is what a comparison by voice is
/// against; short enough to be read aloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; CHARACTERS]);

/// Not a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a fingerprint: five groups of four of A-Z and 2-7, like K7QM-2XRT-VN5D-AAAA-BBBB")]
pub struct FingerprintError;

impl Fingerprint {
    /// The fingerprint of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        let mut characters = [0; CHARACTERS];
        for (index, character) in characters.iter_mut().enumerate() {
            let (byte, shift) = (index * 5 / 8, index * 5 % 8);
            // Five bits that may straddle two bytes; the last index ends at bit 100 of 256, so there is always a next byte.
            let pair = u16::from_be_bytes([digest[byte], digest[byte + 1]]);
            *character = ALPHABET[usize::from(pair >> (11 - shift) & 31)];
        }
        Self(characters)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, character) in self.0.iter().enumerate() {
            if index > 0 && index % 4 == 0 {
                f.write_str("-")?;
            }
            write!(f, "{}", char::from(*character))?;
        }
        Ok(())
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Reads what a person wrote down: in either case, with or without the dashes.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        if text.len() > 64 {
            return Err(FingerprintError);
        }
        let typed = text.bytes().filter(|byte| !matches!(byte, b'-' | b' ')).map(|byte| byte.to_ascii_uppercase());
        let characters: Vec<u8> = typed.collect();
        if !characters.iter().all(|character| ALPHABET.contains(character)) {
            return Err(FingerprintError);
        }
        Ok(Self(characters.try_into().map_err(|_| FingerprintError)?))
    }
}

/// The fingerprint of an OpenPGP key of version 4: 20 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpenPgpFingerprint([u8; 20]);

impl OpenPgpFingerprint {
    /// The fingerprint of these bytes.
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for OpenPgpFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for OpenPgpFingerprint {
    type Err = &'static str;

    /// Reads the one spelling that is written.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let mut bytes = [0; 20];
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) if !text.bytes().any(|byte| byte.is_ascii_uppercase()) => Ok(Self(bytes)),
            _ => Err("not the fingerprint of an OpenPGP key: 40 lower-case hexadecimal digits"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_digest_in_base32() {
        // printf abc | sha256sum | xxd -r -p | base32 | cut -c1-20
        assert_eq!(Fingerprint::of(b"abc").to_string(), "XJ4B-NP4P-AHH6-UQKB-IDPF");
    }

    #[test]
    fn reads_what_a_person_wrote_down() {
        let fingerprint = Fingerprint::of(b"abc");
        for text in ["XJ4B-NP4P-AHH6-UQKB-IDPF", "xj4bnp4pahh6uqkbidpf", "XJ4B NP4P AHH6 UQKB IDPF"] {
            assert_eq!(text.parse(), Ok(fingerprint), "{text}");
        }
        for text in ["", "XJ4B", "XJ4B-NP4P-AHH6-UQKB-IDP1", "XJ4B-NP4P-AHH6-UQKB-IDPFA", &"A".repeat(100)] {
            assert_eq!(text.parse::<Fingerprint>(), Err(FingerprintError), "{text}");
        }
    }

    #[test]
    fn a_keys_fingerprint_has_one_spelling() {
        let text = "00112233445566778899aabbccddeeff00112233";
        assert_eq!(text.parse::<OpenPgpFingerprint>().expect("good").to_string(), text);
        for bad in ["", "00", &text.to_uppercase(), &format!("{text}00"), "0x112233445566778899aabbccddeeff00112233"] {
            assert!(bad.parse::<OpenPgpFingerprint>().is_err(), "{bad:?}");
        }
    }
}
