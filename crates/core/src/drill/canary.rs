//! A canary: something in the Vault that is read through a node before a drill and after it, as a client would.
//!
//! What lives here: how its place is written, and what is compared. What does not: reading it, which takes a token (the edge).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest path, in bytes.
const PATH_MAX: usize = 200;

/// Where it lies, as the Vault's API names it after `/v1/`: `secret/data/holdfast-canary`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CanaryPath(String);

/// Why a text is no such path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanaryPathError {
    /// Not a plain path.
    #[error(
        "a canary is a path of at most {PATH_MAX} of A-Z, a-z, 0-9, \"-\", \"_\", \".\" and \"/\", with a name between any two \"/\", as in \"secret/data/holdfast-canary\""
    )]
    Form,
    /// The server's own affairs: what is there is no data that a client stored, or another one at each reading.
    #[error("a canary is something that was stored, as in \"secret/data/holdfast-canary\": nothing under {0}/")]
    NotStored(&'static str),
}

impl CanaryPath {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CanaryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CanaryPath {
    type Err = CanaryPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |part: &str| {
            let allowed = part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
            allowed && !matches!(part, "" | "." | "..")
        };
        let mut parts = text.split('/');
        if text.len() > PATH_MAX || !parts.clone().all(plain) || parts.clone().count() < 2 {
            return Err(CanaryPathError::Form);
        }
        let first = parts.next().unwrap_or_default();
        match ["auth", "cubbyhole", "identity", "sys", "v1"].into_iter().find(|other| *other == first) {
            Some(other) => Err(CanaryPathError::NotStored(other)),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl TryFrom<String> for CanaryPath {
    type Error = CanaryPathError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<CanaryPath> for String {
    fn from(path: CanaryPath) -> Self {
        path.0
    }
}

/// What stands for the value that was read. It is made with a salt that lasts as long as the process: nobody guesses the value by it, and
/// it is written nowhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of this digest.
    pub const fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_of_something_that_was_stored() {
        for good in ["secret/data/holdfast-canary", "kv/canary", "team_a/kv.2/data/x"] {
            assert_eq!(good.parse::<CanaryPath>().map(|path| path.to_string()).as_deref(), Ok(good));
        }
        let long = format!("secret/{}", "x".repeat(PATH_MAX));
        for bad in
            ["", "secret", "/secret/x", "secret//x", "secret/x/", "secret/../sys/raw", "secret/x?a", "s/\n", &long]
        {
            assert_eq!(bad.parse::<CanaryPath>(), Err(CanaryPathError::Form), "{bad:?}");
        }
        for bad in ["sys/health", "auth/token/lookup-self", "v1/secret/x", "cubbyhole/x"] {
            assert!(matches!(bad.parse::<CanaryPath>(), Err(CanaryPathError::NotStored(_))), "{bad:?}");
        }
        assert!(serde_json::from_str::<CanaryPath>("\"secret/../x\"").is_err());
        assert!(!format!("{:?}", Fingerprint::from_digest([7; 32])).contains('7'));
    }
}
