//! The canary of a drill: what is read through a node, as a client would, before it is sealed and when it serves again.
//!
//! What lives here: the request, and what is made of the answer. The value is neither logged nor kept: what stands for it is a
//! [`Fingerprint`] with a salt of this process alone. What does not: when it is read, and what a difference means (`holdfast_core::drill`).

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use holdfast_core::drill::{CanaryPath, Fingerprint};
use hyper::Method;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::connection::{AskError, Connection};
use super::duty::{Duty, DutyToken, PowersError};

/// How long one answer is waited for: a stand-by asks the active node.
const ANSWER: Duration = Duration::from_secs(2);

/// What keeps a fingerprint from being compared with one of another process.
#[derive(Clone, Copy)]
pub struct Salt([u8; 32]);

impl Salt {
    /// A new one.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt)?;
        Ok(Self(salt))
    }
}

/// A canary that can be read.
#[derive(Clone)]
pub struct Canary {
    path: CanaryPath,
    token: DutyToken,
    salt: Salt,
}

impl fmt::Debug for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Canary({}, …)", self.path)
    }
}

/// Why the canary was not read. Never quotes it.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// The node gave no answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The token is not as it should be.
    #[error(transparent)]
    Powers(#[from] PowersError),
    /// The token was refused.
    #[error("the node refused the canary's token (403)")]
    Denied,
    /// There is nothing.
    #[error("nothing is stored at {0} (404)")]
    Nothing(CanaryPath),
    /// The node is not able to, yet.
    #[error("the node answered with status {0}")]
    Refused(u16),
    /// It is not what a Vault answers.
    #[error("the answer has no data in it: is a Vault's API at this address, and does {0} hold what was stored?")]
    Form(CanaryPath),
}

/// What of the answer is compared: for a kv store of version 2, the value with its version and times.
#[derive(Deserialize)]
struct Read {
    data: Map<String, Value>,
}

impl Canary {
    /// What this token is for; `None` if it is for something else.
    pub fn new(token: DutyToken, salt: Salt) -> Option<Self> {
        let Duty::ReadCanary(path) = token.duty() else { return None };
        Some(Self { path: path.clone(), token, salt })
    }
}

impl Connection {
    /// Refuses a token that can do more than read the canary; and reads it.
    pub async fn try_canary(&mut self, canary: &Canary) -> Result<Fingerprint, CanaryError> {
        self.check_powers(&canary.token).await?;
        self.read_canary(canary).await
    }

    /// Reads the canary.
    pub async fn read_canary(&mut self, canary: &Canary) -> Result<Fingerprint, CanaryError> {
        let mut request = self.request(Method::GET, format!("/v1/{}", canary.path), Bytes::new());
        canary.token.sign(&mut request)?;
        let reply = self.ask(request, ANSWER).await?;
        match reply.code.as_u16() {
            200 => fingerprint(reply.body(), canary.salt).ok_or_else(|| CanaryError::Form(canary.path.clone())),
            403 => Err(CanaryError::Denied),
            404 => Err(CanaryError::Nothing(canary.path.clone())),
            code => Err(CanaryError::Refused(code)),
        }
    }
}

/// Of the data in an answer, whatever stands around it and in whichever order it comes.
fn fingerprint(answer: &[u8], salt: Salt) -> Option<Fingerprint> {
    let read: Read = serde_json::from_slice(answer).ok()?;
    let spelled = Zeroizing::new(serde_json::to_vec(&read.data).ok().filter(|_| !read.data.is_empty())?);
    Some(Fingerprint::from_digest(Sha256::new().chain_update(salt.0).chain_update(&*spelled).finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(answer: &str, salt: u8) -> Option<Fingerprint> {
        fingerprint(answer.as_bytes(), Salt([salt; 32]))
    }

    #[test]
    fn what_was_stored_is_compared_and_not_what_stands_around_it() {
        let first = of(r#"{"request_id":"a","data":{"data":{"x":1},"metadata":{"version":1}}}"#, 1);
        assert!(first.is_some());
        assert_eq!(of(r#"{"data":{"metadata":{"version":1},"data":{"x":1}},"request_id":"b"}"#, 1), first);
        for other in [
            of(r#"{"request_id":"a","data":{"data":{"x":2},"metadata":{"version":1}}}"#, 1),
            of(r#"{"request_id":"a","data":{"data":{"x":1},"metadata":{"version":2}}}"#, 1),
            of(r#"{"request_id":"a","data":{"data":{"x":1},"metadata":{"version":1}}}"#, 2),
        ] {
            assert!(other.is_some() && other != first);
        }
        for nothing in ["", "[]", r#"{"data":null}"#, r#"{"data":{}}"#, r#"{"errors":[]}"#] {
            assert_eq!(of(nothing, 1), None, "{nothing}");
        }
    }
}
