//! A share: the secret itself, its form, and the salted digest by which its own custodian knows it again.
//!
//! A Vault's share is 33 bytes, y₁…y₃₂ and then x, 1 to 255 (FACTS.md, "Shares"). With a single share there is no x: that is
//! the key itself, and no network of custodians can keep it, so it is refused here.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::id::{ClusterId, Principal};

/// The length of a share, in bytes: a 32-byte key's y coordinates and the x coordinate.
pub const SHARE_LEN: usize = 33;

/// The length of a share in base64, in characters.
const TEXT_BASE64_LEN: usize = SHARE_LEN.div_ceil(3) * 4;

/// A share in memory. Wiped when dropped; never cloned, shown, compared or serialised. It is written where it lies, on the heap: moved, it
/// leaves no copy.
pub struct Share(Box<Zeroizing<[u8; SHARE_LEN]>>);

/// Why bytes are not a share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// Another length.
    #[error("a share of this kind of Vault has {SHARE_LEN} bytes, this has {0}")]
    Length(usize),
    /// The x coordinate, the last byte, is 0: that would be the secret itself, and no server makes it.
    #[error("the share's last byte, its x coordinate, is 0: no server makes such a share")]
    Coordinate,
    /// The hexadecimal text has another length or another character.
    #[error("the share is not {} hexadecimal digits", SHARE_LEN * 2)]
    Hex,
    /// The text is neither of the two that servers print.
    #[error("that is no share: {} hexadecimal digits, or {TEXT_BASE64_LEN} characters of base64, are one", SHARE_LEN * 2)]
    Text,
}

impl Share {
    /// From the share's bytes. Fails on another length and on x = 0.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ShareError> {
        let mut share = Box::new(Zeroizing::new([0; SHARE_LEN]));
        if bytes.len() != SHARE_LEN {
            return Err(ShareError::Length(bytes.len()));
        }
        share.copy_from_slice(bytes);
        Self::checked(share)
    }

    /// From the share's hexadecimal text, as a server gives it out. Decodes in place, without a copy.
    pub fn from_hex(text: &[u8]) -> Result<Self, ShareError> {
        let mut share = Box::new(Zeroizing::new([0; SHARE_LEN]));
        hex::decode_to_slice(text, share.as_mut_slice()).map_err(|_| ShareError::Hex)?;
        Self::checked(share)
    }

    /// From the share's text as people have it, hexadecimal or base64. Decodes in place, without a copy.
    pub fn from_text(text: &[u8]) -> Result<Self, ShareError> {
        if text.len() != TEXT_BASE64_LEN {
            return Self::from_hex(text)
                .map_err(|error| if error == ShareError::Hex { ShareError::Text } else { error });
        }
        let mut share = Box::new(Zeroizing::new([0; SHARE_LEN]));
        match BASE64_STANDARD.decode_slice(text, share.as_mut_slice()) {
            Ok(SHARE_LEN) => Self::checked(share),
            _ => Err(ShareError::Text),
        }
    }

    fn checked(share: Box<Zeroizing<[u8; SHARE_LEN]>>) -> Result<Self, ShareError> {
        if share[SHARE_LEN - 1] == 0 { Err(ShareError::Coordinate) } else { Ok(Self(share)) }
    }

    /// The share's x coordinate: public, and what makes two shares of one generation different.
    pub fn x(&self) -> u8 {
        self.0[SHARE_LEN - 1]
    }

    /// The secret. The places that call this are counted by a test (`tests/tests/house.rs`).
    pub fn expose(&self) -> &[u8; SHARE_LEN] {
        &self.0
    }
}

/// What a custodian records when it installs a share, in clear beside the encrypted share.
///
/// age files can be made by anybody who knows the recipient; this record tells whether the share that comes out is the
/// one that was installed. A share has 256 random bits, so its digest gives nothing away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareRecord {
    /// The format's version: 1.
    pub v: u32,
    /// The cluster that the share belongs to.
    pub cluster: ClusterId,
    /// The generation that the share belongs to.
    pub generation: u32,
    /// The custodian that keeps it.
    pub custodian: Principal,
    /// Its x coordinate.
    pub x: u8,
    /// 16 random bytes, in hexadecimal.
    pub salt: String,
    /// SHA-256 over `holdfast share v1`, a zero byte, the salt's bytes and the share's bytes, in hexadecimal.
    pub sha256: String,
}

impl ShareRecord {
    /// The record of `share` for this place, with a salt of 16 random bytes.
    pub fn new(share: &Share, cluster: ClusterId, generation: u32, custodian: Principal, salt: [u8; 16]) -> Self {
        let sha256 = hex::encode(salted_digest(&salt, share));
        Self { v: 1, cluster, generation, custodian, x: share.x(), salt: hex::encode(salt), sha256 }
    }

    /// Whether `share` is the one that was recorded. Compares in constant time.
    pub fn matches(&self, share: &Share) -> bool {
        let mut salt = [0; 16];
        let mut expected = [0; 32];
        let readable = hex::decode_to_slice(&self.salt, &mut salt).is_ok()
            && hex::decode_to_slice(&self.sha256, &mut expected).is_ok();
        readable && self.x == share.x() && bool::from(salted_digest(&salt, share).ct_eq(&expected))
    }
}

fn salted_digest(salt: &[u8; 16], share: &Share) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"holdfast share v1\0");
    hash.update(salt);
    hash.update(share.expose());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(x: u8) -> [u8; SHARE_LEN] {
        let mut bytes = [7; SHARE_LEN];
        bytes[SHARE_LEN - 1] = x;
        bytes
    }

    #[test]
    fn only_a_well_formed_share_becomes_one() {
        assert_eq!(Share::from_bytes(&bytes(9)).map(|s| s.x()), Ok(9));
        assert_eq!(Share::from_bytes(&bytes(0)).err(), Some(ShareError::Coordinate));
        assert_eq!(Share::from_bytes(&[1; 32]).err(), Some(ShareError::Length(32)));
        assert_eq!(Share::from_hex(hex::encode(bytes(1)).as_bytes()).map(|s| s.x()), Ok(1));
        assert_eq!(Share::from_hex(b"07").err(), Some(ShareError::Hex));
        assert_eq!(Share::from_hex("zz".repeat(SHARE_LEN).as_bytes()).err(), Some(ShareError::Hex));
    }

    #[test]
    fn people_have_shares_in_hexadecimal_or_base64() {
        let text = BASE64_STANDARD.encode(bytes(9));
        for good in [hex::encode(bytes(9)), hex::encode_upper(bytes(9)), text.clone()] {
            assert!(Share::from_text(good.as_bytes()).is_ok_and(|share| share.x() == 9), "{good}");
        }
        let (short, long) = (BASE64_STANDARD.encode([7; 32]), BASE64_STANDARD.encode([7; 34]));
        for bad in ["", "07", &text[1..], &text.replace('B', "!"), &short, &long] {
            assert_eq!(Share::from_text(bad.as_bytes()).err(), Some(ShareError::Text), "{bad}");
        }
        let zero = BASE64_STANDARD.encode(bytes(0));
        assert_eq!(Share::from_text(zero.as_bytes()).err(), Some(ShareError::Coordinate));
    }

    #[test]
    fn a_record_knows_its_share_and_no_other() {
        let share = Share::from_bytes(&bytes(9)).expect("well formed");
        let custodian: Principal = "custodian-1".parse().expect("a name");
        let record = ShareRecord::new(&share, ClusterId::from_bytes([1; 16]), 1, custodian, [5; 16]);
        assert!(record.matches(&share));
        let mut other = bytes(9);
        other[0] ^= 1;
        assert!(!record.matches(&Share::from_bytes(&other).expect("well formed")));
        assert!(!record.matches(&Share::from_bytes(&bytes(8)).expect("well formed")));
        for broken in
            [ShareRecord { salt: "x".into(), ..record.clone() }, ShareRecord { sha256: String::new(), ..record }]
        {
            assert!(!broken.matches(&share));
        }
    }
}
