//! A rotation of a Vault's shares, as one who has a new share sees it: what it says of itself, and giving that share for the proof.
//!
//! OpenBao has it under `sys/rotate/root`, HashiCorp Vault under `sys/rekey`; which of the two, the server's answer says. What does
//! not live here: beginning a rotation, and giving it an old share. That is people's, with the server's own tool.

use bytes::Bytes;
use holdfast_core::share::{SHARE_LEN, Share};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Admin, AdminError, failed, read, refused_words};

/// The header that carries the token.
const TOKEN: &str = "X-Vault-Token";

/// The longest nonce that is sent, in bytes: a UUID's.
const NONCE_MAX: usize = 36;

/// The length in base64 of a share, the shortest of its texts; a nonce is shorter.
const WORD_MAX: usize = SHARE_LEN.div_ceil(3) * 4;

/// A token, from its file. Wiped when dropped, and not shown.
#[derive(Clone)]
pub struct Token(HeaderValue);

/// Where a server has its rotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotationApi {
    /// OpenBao's.
    Rotate,
    /// HashiCorp Vault's, and OpenBao's before 2.4.
    Rekey,
}

impl RotationApi {
    const fn path(self, end: Path) -> &'static str {
        match (self, end) {
            (Self::Rotate, Path::Init) => "v1/sys/rotate/root/init",
            (Self::Rotate, Path::Verify) => "v1/sys/rotate/root/verify",
            (Self::Rekey, Path::Init) => "v1/sys/rekey/init",
            (Self::Rekey, Path::Verify) => "v1/sys/rekey/verify",
        }
    }
}

#[derive(Clone, Copy)]
enum Path {
    Init,
    Verify,
}

/// What a rotation says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// Where it was found.
    pub api: RotationApi,
    /// Whether one runs.
    pub started: bool,
    /// How many of the new shares open the Vault.
    pub threshold: u64,
    /// How many new shares there are.
    pub shares: u64,
    /// The fingerprints of the keys that they are encrypted to, in lower-case hexadecimal.
    pub fingerprints: Vec<String>,
    /// Whether the old shares stay valid until the new ones are verified.
    pub verification_required: bool,
    /// What a verification has to name; empty until all old shares that are needed were entered.
    pub verification_nonce: String,
}

/// What came of a share that was given for the proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verification {
    /// It counts, and more are needed.
    Counted {
        /// How many there are now.
        progress: u64,
    },
    /// It was the last: the new shares are in force.
    Complete,
}

/// OpenBao's body is below `data`, HashiCorp Vault's is flat. A server adds fields at will.
#[derive(Deserialize)]
struct Wire<T> {
    data: T,
}

#[derive(Deserialize)]
struct WireRotation {
    started: bool,
    #[serde(default)]
    t: u64,
    #[serde(default)]
    n: u64,
    #[serde(default)]
    pgp_fingerprints: Option<Vec<String>>,
    #[serde(default)]
    verification_required: bool,
    #[serde(default)]
    verification_nonce: String,
}

#[derive(Deserialize)]
struct WireVerification {
    #[serde(default)]
    complete: bool,
    #[serde(default)]
    progress: u64,
}

impl WireRotation {
    fn rotation(self, api: RotationApi) -> Rotation {
        Rotation {
            api,
            started: self.started,
            threshold: self.t,
            shares: self.n,
            fingerprints: self.pgp_fingerprints.unwrap_or_default().iter().map(|f| f.to_lowercase()).collect(),
            verification_required: self.verification_required,
            verification_nonce: self.verification_nonce,
        }
    }
}

impl Token {
    /// From a token's text. None if it is none that could be sent.
    pub fn new(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii();
        let mut value = HeaderValue::from_bytes(text).ok().filter(|_| !text.is_empty())?;
        value.set_sensitive(true);
        Some(Self(value))
    }
}

impl Admin {
    /// The rotation that runs, or that none does.
    pub async fn rotation(&self, token: &Token) -> Result<Rotation, AdminError> {
        let mut refused = None;
        for api in [RotationApi::Rotate, RotationApi::Rekey] {
            let path = api.path(Path::Init);
            match self.ask_with(Method::GET, path, token, None).await {
                Ok(body) => return Ok(self.parse::<WireRotation>(path, api, &body)?.rotation(api)),
                Err(AdminError::Status { status: StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, .. }) => {}
                // HashiCorp Vault looks at the token's policy first, and answers so for a path that it does not have.
                Err(error @ AdminError::Status { status: StatusCode::FORBIDDEN, .. }) => {
                    refused.get_or_insert(error);
                }
                Err(error) => return Err(refused.unwrap_or(error)),
            }
        }
        let path = RotationApi::Rekey.path(Path::Init);
        Err(refused.unwrap_or_else(|| self.no_answer(path, "it has neither sys/rotate nor sys/rekey")))
    }

    /// Gives a new share to the server that made it, for the proof that it is in the right hands.
    pub async fn verify_share(
        &self,
        api: RotationApi,
        token: &Token,
        share: &Share,
        nonce: &str,
    ) -> Result<Verification, AdminError> {
        let path = api.path(Path::Verify);
        let sound = !nonce.is_empty()
            && nonce.len() <= NONCE_MAX
            && nonce.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !sound {
            return Err(self.no_answer(path, "its nonce is none"));
        }
        let body = verify_body(share, nonce);
        let body = self.ask_with(Method::PUT, path, token, Some(body)).await?;
        let wire: WireVerification = self.parse(path, api, &body)?;
        Ok(match wire.complete {
            true => Verification::Complete,
            false => Verification::Counted { progress: wire.progress },
        })
    }

    /// Seals the node that is asked. It answers when it is done, and shows that it is sealed before.
    pub async fn seal(&self, token: &Token) -> Result<(), AdminError> {
        self.ask_with(Method::PUT, "v1/sys/seal", token, None).await.map(drop)
    }

    /// Writes something else than a share, and gives the server's answer: a policy, a token's making.
    pub async fn write(&self, token: &Token, path: &str, body: &impl Serialize) -> Result<Vec<u8>, AdminError> {
        let body = serde_json::to_vec(body).map_err(|error| self.no_answer(path, &error.to_string()))?;
        self.ask_with(Method::POST, path, token, Some(body.into())).await
    }

    async fn ask_with(
        &self,
        method: Method,
        path: &str,
        token: &Token,
        body: Option<Bytes>,
    ) -> Result<Vec<u8>, AdminError> {
        let mut url = self.base.clone();
        url.set_path(path);
        let mut request = self.client.request(method, url.clone()).header(TOKEN, token.0.clone());
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json")).body(body);
        }
        let response = request.send().await.map_err(|error| failed(&url, &error))?;
        let status = response.status();
        let body = read(&url, response).await?;
        if matches!(status, StatusCode::OK | StatusCode::NO_CONTENT) {
            return Ok(body);
        }
        Err(match refused_words(&url, status, &body) {
            AdminError::Status { url, status, words } => AdminError::Status { url, status, words: guarded(&words) },
            error => error,
        })
    }

    fn parse<T: for<'a> Deserialize<'a>>(&self, path: &str, api: RotationApi, body: &[u8]) -> Result<T, AdminError> {
        let parsed = match api {
            RotationApi::Rotate => serde_json::from_slice::<Wire<T>>(body).map(|wire| wire.data),
            RotationApi::Rekey => serde_json::from_slice(body),
        };
        // The parser's words would quote the peer.
        parsed.map_err(|_| self.no_answer(path, "it is of another form"))
    }

    fn no_answer(&self, path: &str, why: &str) -> AdminError {
        let mut url = self.base.clone();
        url.set_path(path);
        AdminError::Answer { url: url.to_string(), why: why.to_owned() }
    }
}

/// A server's words without any that is as long as a share's text: whatever it echoes, no error repeats it.
fn guarded(words: &str) -> String {
    words.split(' ').map(|word| if word.len() < WORD_MAX { word } else { "…" }).collect::<Vec<_>>().join(" ")
}

/// `{"key":"<hex>","nonce":"…"}`, written in place, wiped when the last user drops it.
fn verify_body(share: &Share, nonce: &str) -> Bytes {
    const HEAD: &[u8] = br#"{"key":""#;
    let tail = format!(r#"","nonce":"{nonce}"}}"#);
    // Of its full size from the start: growing would leave a copy behind.
    let mut body = Zeroizing::new(vec![0; HEAD.len() + 2 * SHARE_LEN + tail.len()]);
    let (head, rest) = body.split_at_mut(HEAD.len());
    let (text, end) = rest.split_at_mut(2 * SHARE_LEN);
    head.copy_from_slice(HEAD);
    hex::encode_to_slice(share.expose(), text).expect("two digits for each byte");
    end.copy_from_slice(tail.as_bytes());
    Bytes::from_owner(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_what_servers_take() {
        let share = Share::from_bytes(&[7; SHARE_LEN]).expect("well formed");
        let body: serde_json::Value = serde_json::from_slice(&verify_body(&share, "45a7-9")).expect("JSON");
        assert_eq!(body, serde_json::json!({ "key": "07".repeat(SHARE_LEN), "nonce": "45a7-9" }));
    }

    #[test]
    fn what_a_server_echoes_is_not_repeated() {
        let text = hex::encode([7; SHARE_LEN]);
        assert_eq!(
            guarded(&format!("bad key {text}; nonce \"45a78cb7-abd5-7113-ab99-198d428004da\"")),
            "bad key … nonce \"45a78cb7-abd5-7113-ab99-198d428004da\""
        );
    }

    #[test]
    fn a_token_is_what_can_be_sent() {
        assert!(Token::new(b"s.M0tbu6dy5lScK9y673947vkm\n").is_some());
        for bad in [&b""[..], b" \n", b"s.x\ny"] {
            assert!(Token::new(bad).is_none(), "{bad:?}");
        }
    }
}
