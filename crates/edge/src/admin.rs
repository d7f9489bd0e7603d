//! What an operator asks a Vault: an ordinary client, for the few requests of a ceremony.
//!
//! What lives here: its TLS (one CA, no proxy, no redirect, a deadline and a size for every answer) and the requests. What
//! does not: a share that opens a node; those go over `vault`'s connections, each proven by itself.

pub mod rotation;

use std::error::Error;
use std::io;
use std::time::Duration;

use holdfast_core::seal_status::SealStatus;
use holdfast_core::time::Timestamp;
use reqwest::{Client, Method, Response, StatusCode, redirect};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::tls::{self, PeerRefusal, SpkiPin, TlsError};
use crate::vault::NodeIdentity;

/// How long a connection and its handshake may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// How long a question may take, from the connection to the last byte.
const ASK_DEADLINE: Duration = Duration::from_secs(20);

/// How long an initialisation may take: the server makes its storage, and with raft elects itself.
const INIT_DEADLINE: Duration = Duration::from_secs(120);

/// The largest answer that is read, in bytes: 255 shares encrypted to RSA-4096 keys, twice encoded each, have 800 KiB.
pub const ANSWER_MAX: usize = 2 * 1024 * 1024;

/// The longest part of a server's own words that an error repeats, in characters.
const WORDS_MAX: usize = 300;

/// A Vault's API, as an operator uses it.
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
    base: Url,
}

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address is not one.
    #[error("{url:?} is not a Vault's address: https://HOST:PORT, without a path ({why})")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The CA file is not usable.
    #[error(transparent)]
    Ca(#[from] TlsError),
    /// The client could not be set up.
    #[error("no HTTPS client could be set up: {0}")]
    Setup(String),
    /// The server is somebody else, or speaks no TLS.
    #[error("{url} was refused: {why}")]
    Peer {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: Box<PeerRefusal>,
    },
    /// There was no connection, or it ended, or the deadline passed.
    #[error("{url} did not answer: {why}")]
    Unreachable {
        /// The address.
        url: String,
        /// What happened.
        why: String,
    },
    /// The server answered with another status than 200.
    #[error("{url} answered {status}: {words}")]
    Status {
        /// The address.
        url: String,
        /// The status.
        status: StatusCode,
        /// What it said.
        words: String,
    },
    /// The answer has more bytes than any such answer.
    #[error("{url} answered with more than {ANSWER_MAX} bytes: is a Vault's API at this address?")]
    Oversized {
        /// The address.
        url: String,
    },
    /// The answer is not what the API promises.
    #[error("{url} gave an answer that is none: {why}; is a Vault's API at this address?")]
    Answer {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: String,
    },
}

/// How a Vault is to be initialised. All keys are OpenPGP, binary, in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InitRequest {
    /// How many shares.
    pub secret_shares: u8,
    /// How many of them open it.
    pub secret_threshold: u8,
    /// Whom each share is encrypted to.
    pub pgp_keys: Vec<String>,
    /// Whom the root token is encrypted to.
    pub root_token_pgp_key: String,
}

#[derive(Deserialize)]
struct Health {
    server_time_utc: i64,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<String>,
}

impl Admin {
    /// A client for the Vault at `url`, whose chain has to end in `ca_pem`.
    pub fn new(url: &str, ca_pem: &[u8]) -> Result<Self, AdminError> {
        Self::pinned(url, ca_pem, &[])
    }

    /// The same, for a Vault whose key is one of `pins` as well, if there are any.
    pub fn pinned(url: &str, ca_pem: &[u8], pins: &[SpkiPin]) -> Result<Self, AdminError> {
        Self::over(url, tls::client_config(ca_pem, pins)?)
    }

    /// For one node, which proves its identity as it does to a custodian.
    pub fn of_node(node: &NodeIdentity) -> Result<Self, AdminError> {
        Self::over(&format!("https://{}", node.address()), node.tls().clone())
    }

    fn over(url: &str, tls: ClientConfig) -> Result<Self, AdminError> {
        let base =
            address(url).map_err(|why| AdminError::Address { url: url.chars().take(WORDS_MAX).collect(), why })?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_DEADLINE)
            .timeout(ASK_DEADLINE)
            .pool_max_idle_per_host(0)
            .user_agent("holdfast")
            .build()
            .map_err(|error| AdminError::Setup(error.to_string()))?;
        Ok(Self { client, base })
    }

    /// What the Vault says of itself.
    pub async fn seal_status(&self) -> Result<SealStatus, AdminError> {
        let (url, _, body) = self.ask(Method::GET, "v1/sys/seal-status", &[StatusCode::OK], None::<&()>).await?;
        SealStatus::parse(&body).map_err(|error| AdminError::Answer { url: url.to_string(), why: error.to_string() })
    }

    /// What time it is there, in whole seconds. Sealed and uninitialised Vaults tell it too.
    pub async fn server_time(&self) -> Result<Timestamp, AdminError> {
        // 429 standby, 472 and 473 HashiCorp's replication, 501 uninitialised, 503 sealed: all with the same body.
        let accepted = [200, 429, 472, 473, 501, 503].map(|code| StatusCode::from_u16(code).unwrap_or_default());
        let (url, _, body) = self.ask(Method::GET, "v1/sys/health", &accepted, None::<&()>).await?;
        let health: Health = serde_json::from_slice(&body)
            .map_err(|_| AdminError::Answer { url: url.to_string(), why: "not a health report".to_owned() })?;
        Ok(Timestamp::from_millis(health.server_time_utc.saturating_mul(1000)))
    }

    /// Initialises the Vault: the answer's body, byte for byte, so that it can be brought to the disk before it is looked at.
    /// After an error nobody knows whether it was initialised: ask [`Admin::seal_status`].
    pub async fn init(&self, request: &InitRequest) -> Result<Vec<u8>, AdminError> {
        let (_, _, body) = self.ask(Method::PUT, "v1/sys/init", &[StatusCode::OK], Some(request)).await?;
        Ok(body)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        accepted: &[StatusCode],
        body: Option<&impl Serialize>,
    ) -> Result<(Url, StatusCode, Vec<u8>), AdminError> {
        let mut url = self.base.clone();
        url.set_path(path);
        let mut request = self.client.request(method, url.clone());
        if let Some(body) = body {
            request = request.timeout(INIT_DEADLINE).json(body);
        }
        let response = request.send().await.map_err(|error| failed(&url, &error))?;
        let status = response.status();
        let body = read(&url, response).await?;
        if accepted.contains(&status) {
            return Ok((url, status, body));
        }
        Err(refused_words(&url, status, &body))
    }
}

/// What a server says beside a status that was not wanted.
fn refused_words(url: &Url, status: StatusCode, body: &[u8]) -> AdminError {
    let words = match serde_json::from_slice::<Errors>(body) {
        Ok(errors) => errors.errors.join("; "),
        Err(_) => "not a Vault's answer; is its API at this address?".to_owned(),
    };
    let printable = words.chars().filter(|character| !character.is_control());
    AdminError::Status { url: url.to_string(), status, words: printable.take(WORDS_MAX).collect() }
}

/// An `https` address with a host and perhaps a port, and nothing else.
pub(crate) fn address(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "not a URL")?;
    if url.scheme() != "https" {
        return Err("it has to be https: there is no way around TLS");
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("no host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("no user or password belongs there");
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err("no path, query or fragment belongs there");
    }
    Ok(url)
}

async fn read(url: &Url, mut response: Response) -> Result<Vec<u8>, AdminError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(url, &error))? {
        if body.len() + chunk.len() > ANSWER_MAX {
            return Err(AdminError::Oversized { url: url.to_string() });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The innermost cause, which is the one that tells a person something.
fn failed(url: &Url, error: &reqwest::Error) -> AdminError {
    let mut why = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(refusal) = peer_refusal(cause) {
            return AdminError::Peer { url: url.to_string(), why: Box::new(refusal) };
        }
        why = cause.to_string();
        next = cause.source();
    }
    if error.is_timeout() {
        why = "the deadline passed".to_owned();
    }
    AdminError::Unreachable { url: url.to_string(), why }
}

/// What was wrong with the peer, however often the error was wrapped: an `io::Error` hides what is in it from `source`.
fn peer_refusal(cause: &(dyn Error + 'static)) -> Option<PeerRefusal> {
    let wrapped = cause.downcast_ref::<io::Error>()?;
    tls::refusal(wrapped).or_else(|| peer_refusal(wrapped.get_ref()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_https_address_is_one() {
        for good in ["https://vault.example:8200", "https://127.0.0.1:1/", "https://[::1]:8200"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "vault.example:8200",
            "http://vault.example:8200",
            "https://user:secret@vault.example",
            "https://vault.example/v1",
            "https://vault.example/?x=1",
            "ftp://vault.example",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
