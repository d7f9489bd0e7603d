//! What a node says of itself: the answer of `GET /v1/sys/seal-status` and `PUT /v1/sys/unseal`.
//!
//! Source: the servers' API pages for `/sys/seal-status`, and FACTS.md for what they really answer. Fields that we do not
//! use are ignored, because servers add some; the ones we use are all required, because guessing one could release a share.

use serde::Deserialize;

/// The largest number of shares that Shamir's scheme over GF(2⁸) can make.
pub const SHARES_MAX: u8 = 255;

/// A node's seal status, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealStatus {
    /// Whether the node has been initialised.
    pub initialized: bool,
    /// Whether the node is sealed.
    pub sealed: bool,
    /// The seal's type; only `shamir` is opened by shares.
    pub kind: SealKind,
    /// How many shares open the node; 0 while it is not initialised.
    pub threshold: u8,
    /// How many shares there are; 0 while it is not initialised.
    pub shares: u8,
    /// How many shares of the running attempt the node holds.
    pub progress: u8,
    /// The running attempt's nonce; empty while there is none.
    pub nonce: String,
}

/// The type of a node's seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealKind {
    /// Opened by shares.
    Shamir,
    /// Anything else, such as a cloud KMS: not Holdfast's to open.
    Other,
}

/// The answer was not a seal status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatusError {
    /// Not JSON, not an object, a field missing, doubled or of another type. What exactly is not said: the parser's words
    /// would quote the peer, who may be echoing a share.
    #[error("the answer is not a seal-status")]
    Malformed,
    /// A number outside 0 to 255, a nonce that is no nonce, or a threshold above the number of shares.
    #[error("the seal-status contradicts itself: {0}")]
    Impossible(&'static str),
}

/// The longest nonce that is accepted, in bytes: a UUID's 36. Shorter than a share in base64, so that no impostor can have
/// one written down as a nonce.
const NONCE_MAX: usize = 36;

#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "type")]
    kind: String,
    initialized: bool,
    sealed: bool,
    t: u64,
    n: u64,
    progress: u64,
    nonce: String,
}

impl SealStatus {
    /// Parses the body of an answer. Takes the bytes as they came; whoever sent them may be an impostor.
    pub fn parse(body: &[u8]) -> Result<Self, StatusError> {
        let wire: Wire = serde_json::from_slice(body).map_err(|_| StatusError::Malformed)?;
        let small = |n: u64, what| u8::try_from(n).map_err(|_| StatusError::Impossible(what));
        let status = Self {
            initialized: wire.initialized,
            sealed: wire.sealed,
            kind: if wire.kind == "shamir" { SealKind::Shamir } else { SealKind::Other },
            threshold: small(wire.t, "t is above 255")?,
            shares: small(wire.n, "n is above 255")?,
            progress: small(wire.progress, "progress is above 255")?,
            nonce: wire.nonce,
        };
        if status.threshold > status.shares {
            return Err(StatusError::Impossible("t is above n"));
        }
        if !status.initialized && !status.sealed {
            return Err(StatusError::Impossible("open, but not initialised"));
        }
        if status.nonce.len() > NONCE_MAX || !status.nonce.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
            return Err(StatusError::Impossible("the nonce is not a nonce"));
        }
        Ok(status)
    }

    /// Whether the node serves: initialised and not sealed.
    pub fn is_open(&self) -> bool {
        self.initialized && !self.sealed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEALED: &str = r#"{"type":"shamir","initialized":true,"sealed":true,"t":3,"n":5,"progress":1,
        "nonce":"0b1c2d3e-0000-0000-0000-000000000000","version":"2.7.2","migration":false,"storage_type":"raft"}"#;

    #[test]
    fn reads_what_a_server_says_and_ignores_what_it_adds() {
        let status = SealStatus::parse(SEALED.as_bytes()).expect("a real answer");
        assert!(status.sealed && status.initialized && !status.is_open());
        assert_eq!((status.kind, status.threshold, status.shares, status.progress), (SealKind::Shamir, 3, 5, 1));
    }

    #[test]
    fn refuses_what_is_missing_doubled_or_impossible() {
        for (from, to) in [
            ("\"sealed\":true,", ""),
            ("\"sealed\":true", "\"sealed\":true,\"sealed\":false"),
            ("\"sealed\":true", "\"sealed\":\"true\""),
            ("\"t\":3", "\"t\":300"),
            ("\"t\":3", "\"t\":-3"),
            ("\"t\":3", "\"t\":6"),
            ("0b1c2d3e", "<script>"),
            ("\"initialized\":true,\"sealed\":true", "\"initialized\":false,\"sealed\":false"),
        ] {
            let bad = SEALED.replace(from, to);
            assert_ne!(bad, SEALED);
            assert!(SealStatus::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        for bad in ["", "null", "[]", "<html></html>", &"[".repeat(100_000)] {
            assert!(SealStatus::parse(bad.as_bytes()).is_err());
        }
    }
}
