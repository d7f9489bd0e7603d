//! A Prometheus Pushgateway, as one party's metrics go there: one request on a connection of its own, and its status.
//!
//! What lives here: where it is, how it proves that, and the two requests. What does not: what is pushed, and when. Nothing that
//! comes back is read but the number of the status: a Pushgateway can tell a daemon nothing else, and sends it nowhere.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use holdfast_core::id::Principal;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::admin;
use crate::broker::Password;
use crate::tls::{self, PeerRefusal, TlsError};

/// The largest body that is pushed, in bytes: the metrics of sixty-four clusters of a dozen nodes.
pub const BODY_MAX: usize = 1024 * 1024;

/// How long a request may take, from the look-up of the name to the status.
const DEADLINE: Duration = Duration::from_secs(5);

/// The port of https, where the URL names none.
const DEFAULT_PORT: u16 = 443;

/// The most header fields in an answer, and the most of its head that is read, in bytes: a Pushgateway sends a handful.
const HEADERS_MAX: usize = 64;
const HEAD_MAX: usize = 16 * 1024;

/// The job under which custodians' metrics are grouped.
const JOB: &str = "holdfast-custodian";

/// What a Pushgateway's metrics are written in.
const TEXT_FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");

/// A Pushgateway and the group of metrics there that is one custodian's.
#[derive(Clone)]
pub struct Pushgateway {
    host: String,
    port: u16,
    server_name: ServerName<'static>,
    authority: HeaderValue,
    group: String,
    tls: Arc<ClientConfig>,
    login: Option<HeaderValue>,
}

/// Why the configuration does not name a Pushgateway. The operator's fault, always.
#[derive(Debug, thiserror::Error)]
pub enum PushgatewayError {
    /// The address is not one.
    #[error("this is not a Pushgateway's address: https://HOST:PORT, without a path ({0})")]
    Address(&'static str),
    /// The CA file is not usable.
    #[error(transparent)]
    Ca(#[from] TlsError),
    /// A user's name that basic authentication cannot carry.
    #[error("a user's name for basic authentication has no colon in it, and no character that cannot be seen")]
    Username,
}

/// Why a request failed. None carries a word that the peer said.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// More than anybody has metrics.
    #[error("{0} bytes of metrics are more than the {BODY_MAX} that are pushed")]
    Oversized(usize),
    /// Nobody answers, or the connection was refused or cut.
    #[error("no connection: {0}")]
    Unreachable(io::Error),
    /// Somebody answers who is not it, or who speaks no TLS.
    #[error("it was not accepted: {0}")]
    NotAccepted(Box<PeerRefusal>),
    /// The connection broke, or what came back was not HTTP.
    #[error("the connection broke before the answer: {0}")]
    Broken(hyper::Error),
    /// It took too long.
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Deadline,
    /// Another status than one of success. A redirect is one of those.
    #[error("it answered with status {0}")]
    Refused(u16),
}

/// The host and the port that a Pushgateway's URL names; an IPv6 address without brackets.
pub fn host_and_port(url: &str) -> Result<(String, u16), PushgatewayError> {
    let url = admin::address(url).map_err(PushgatewayError::Address)?;
    let host = url.host_str().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
    Ok((host, url.port().unwrap_or(DEFAULT_PORT)))
}

impl Pushgateway {
    /// The Pushgateway at `url`, whose chain has to end in `ca_pem`, for the custodian `instance`.
    pub fn new(
        url: &str,
        ca_pem: &[u8],
        login: Option<(&str, &Password)>,
        instance: &Principal,
    ) -> Result<Self, PushgatewayError> {
        let (host, port) = host_and_port(url)?;
        let url = admin::address(url).map_err(PushgatewayError::Address)?;
        let authority = url.authority();
        let no_host = || PushgatewayError::Address("its host is none that a certificate could name");
        let server_name = ServerName::try_from(host.clone()).map_err(|_| no_host())?;
        let authority = HeaderValue::from_str(authority).map_err(|_| no_host())?;
        let mut tls = tls::client_config(ca_pem, &[])?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            port,
            host,
            server_name,
            authority,
            group: format!("/metrics/job/{JOB}/instance/{instance}"),
            tls: Arc::new(tls),
            login: login.map(|(username, password)| basic(username, password)).transpose()?,
        })
    }

    /// Its host, without brackets around an IPv6 address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port, for people.
    pub fn address(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{host}:{}", self.port)
    }

    /// Puts these metrics in the place of those that were pushed before.
    pub async fn push(&self, metrics: Bytes) -> Result<(), PushError> {
        if metrics.len() > BODY_MAX {
            return Err(PushError::Oversized(metrics.len()));
        }
        self.ask(Method::PUT, &self.group, metrics).await
    }

    /// Whether it takes requests, and takes the login. Changes nothing there.
    pub async fn is_ready(&self) -> Result<(), PushError> {
        self.ask(Method::GET, "/-/ready", Bytes::new()).await
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<(), PushError> {
        let status = timeout(DEADLINE, self.exchange(self.request(method, path, body)));
        let status = status.await.map_err(|_| PushError::Deadline)??;
        if status.is_success() { Ok(()) } else { Err(PushError::Refused(status.as_u16())) }
    }

    /// A new connection for one request: no pool, no proxy, and nobody to follow elsewhere.
    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<StatusCode, PushError> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(PushError::Unreachable)?;
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(self.server_name.clone(), tcp);
        let tls = tls.await.map_err(|error| match tls::refusal(&error) {
            Some(refusal) => PushError::NotAccepted(Box::new(refusal)),
            None => PushError::Unreachable(error),
        })?;
        let (mut requests, connection) = http1::Builder::new()
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_MAX)
            .handshake(TokioIo::new(tls))
            .await
            .map_err(PushError::Broken)?;
        let answer = requests.send_request(request);
        tokio::pin!(answer, connection);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            // It ends before the answer only when something broke, which the answer then says.
            _ = &mut connection => answer.await,
        }
        .map(|answer| answer.status())
        .map_err(PushError::Broken)
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        // A name is letters, digits and dashes: it is a path as it is.
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(HOST, self.authority.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static("holdfast"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.insert(CONTENT_TYPE, TEXT_FORMAT);
        if let Some(login) = &self.login {
            headers.insert(AUTHORIZATION, login.clone());
        }
        request
    }
}

/// `Authorization: Basic`, marked so that nothing shows it.
fn basic(username: &str, password: &Password) -> Result<HeaderValue, PushgatewayError> {
    if username.is_empty() || username.contains(':') || username.chars().any(char::is_control) {
        return Err(PushgatewayError::Username);
    }
    let encoded = Zeroizing::new(STANDARD.encode(password.basic(username)));
    let text = Zeroizing::new(format!("Basic {}", encoded.as_str()));
    let mut value = HeaderValue::from_str(&text).map_err(|_| PushgatewayError::Username)?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for Pushgateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pushgateway").field("address", &self.address()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
