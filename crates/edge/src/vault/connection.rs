//! One connection to a node: requests one after the other, each within its deadline, and word of its end.
//!
//! What does not live here: how the connection comes about (`identity`) and the share (`release`).

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_core::seal_status::{SealStatus, StatusError};
use holdfast_core::time::Timestamp;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, SERVER, USER_AGENT, VIA};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::certificate;
use super::hello::Watched;
use super::identity::{NodeIdentity, seconds};
use super::tickets::{ConnectionTickets, Ticket};
use crate::tls::{self, SpkiPin};

/// The longest answer that is read, in bytes: a seal-status has about 400.
pub const BODY_MAX: usize = 64 * 1024;

/// The most header fields in an answer: a Vault sends about 6.
const HEADERS_MAX: usize = 64;

/// The most of an answer's head that is read, in bytes: a Vault's has about 300.
const HEAD_MAX: usize = 16 * 1024;

/// How long a farewell may take: the peer owes us nothing any more.
const FINISH_DEADLINE: Duration = Duration::from_millis(500);

const SEAL_STATUS: &str = "/v1/sys/seal-status";
const HEALTH: &str = "/v1/sys/health";
pub(super) const UNSEAL: &str = "/v1/sys/unseal";

/// How the TLS handshake of a connection went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// With certificate and key: the node proved who it is.
    Full,
    /// By a ticket: the node proved that it is the process that gave the ticket out.
    Resumed,
}

/// Why a request has no answer. None carries a word that the peer said.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The connection is closed, or was given up after an answer that failed. Nothing was sent.
    #[error("the connection is closed")]
    Closed,
    /// The connection broke after the request went out, or what came back was not HTTP.
    #[error("the connection broke before the answer: {0}")]
    Broken(String),
    /// The answer was not complete in time.
    #[error("no complete answer within {}", seconds(*.0))]
    Deadline(Duration),
    /// A redirect, which is never followed.
    #[error("the answer is a redirect ({0}), which is never followed: name the node itself in its url, not a balancer")]
    Redirect(u16),
    /// Another status than 200.
    #[error("the answer has status {0} instead of 200: is a Vault's API at this address?")]
    Refused(u16),
    /// The answer is larger than [`BODY_MAX`].
    #[error("the answer is larger than {BODY_MAX} bytes: is a Vault's API at this address?")]
    TooLarge,
    /// The answer is not a seal-status.
    #[error("the answer is not a seal-status: is a Vault's API at this address?")]
    NotAStatus(#[source] Impossible),
    /// The answer about its health does not tell the time.
    #[error("the answer about its health has no server_time_utc: is a Vault's API at this address?")]
    NoTime,
}

/// What a node says of its health, as far as anybody here wants to know it. Nothing is decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Its clock, in whole seconds.
    pub server_time: Timestamp,
    /// Whether the answer names a server or a way that it came by, which a Vault's own does not: a proxy's work.
    pub names_a_proxy: bool,
}

#[derive(Deserialize)]
struct HealthWire {
    server_time_utc: i64,
}

/// What of a seal-status was impossible, without the peer's own words: those could be an echo of a share, or a flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// Not JSON, or a field missing, doubled or of another type.
    #[error("it is not JSON, or a field of it is missing, doubled or of another type")]
    Form,
    /// The fields contradict each other.
    #[error("it contradicts itself: {0}")]
    Contradiction(&'static str),
}

impl From<StatusError> for Impossible {
    fn from(error: StatusError) -> Self {
        match error {
            StatusError::Malformed => Self::Form,
            StatusError::Impossible(what) => Self::Contradiction(what),
        }
    }
}

/// A connection to a node whose identity was proven. Dropped, it is closed at once.
pub struct Connection {
    identity: Arc<NodeIdentity>,
    handshake: Handshake,
    ticket_was_offered: bool,
    certificate_not_after: Option<Timestamp>,
    key_pin: Option<SpkiPin>,
    peer: Option<SocketAddr>,
    tickets: Arc<ConnectionTickets>,
    /// `None` once a request has failed: what would come next could be its late answer.
    requests: Option<SendRequest<Full<Bytes>>>,
    closed: watch::Receiver<()>,
    task: AbortHandle,
}

impl Connection {
    pub(super) async fn new(
        identity: NodeIdentity,
        stream: TlsStream<Watched<TcpStream>>,
        handshake: Handshake,
        tickets: Arc<ConnectionTickets>,
    ) -> hyper::Result<Self> {
        let (watched, session) = stream.get_ref();
        let ticket_was_offered = watched.ticket_was_offered();
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        // A resumed handshake shows no certificate; the library tells that of the first.
        let leaf = leaf.filter(|_| handshake == Handshake::Full);
        let certificate_not_after = leaf.and_then(|leaf| certificate::not_after(leaf));
        let key_pin = leaf.and_then(tls::pin_of);
        let peer = watched.stream().peer_addr().ok();
        let (requests, driver) = http1::Builder::new()
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        let (ended, closed) = watch::channel(());
        let task = tokio::spawn(async move {
            // How it ended makes no difference: whoever asked learns it from his answer, the rest from `closed`.
            let _ = driver.await;
            drop(ended);
        })
        .abort_handle();
        let (requests, identity) = (Some(requests), Arc::new(identity));
        Ok(Self {
            identity,
            handshake,
            ticket_was_offered,
            certificate_not_after,
            key_pin,
            peer,
            tickets,
            requests,
            closed,
            task,
        })
    }

    /// The node that it leads to.
    pub fn identity(&self) -> &NodeIdentity {
        &self.identity
    }

    /// How the handshake went.
    pub fn handshake(&self) -> Handshake {
        self.handshake
    }

    /// Whether a ticket went out in the handshake, as read from the bytes that were sent. Offered and [`Handshake::Full`]
    /// means declined.
    pub fn ticket_was_offered(&self) -> bool {
        self.ticket_was_offered
    }

    /// When the node's certificate ends. Known from a full handshake alone: a resumed one shows no certificate.
    pub fn certificate_not_after(&self) -> Option<Timestamp> {
        self.certificate_not_after
    }

    /// The pin of the key that the node proved to have. Known from a full handshake alone.
    pub fn key_pin(&self) -> Option<SpkiPin> {
        self.key_pin
    }

    /// The address that the node's name led to.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Takes the tickets that arrived so far, the oldest first. The node sends them right after the handshake: after the first
    /// answer they are there.
    pub fn take_tickets(&mut self) -> Vec<Ticket> {
        self.tickets.take()
    }

    /// Whether the connection can carry another request, as far as is known at this moment.
    pub fn is_usable(&self) -> bool {
        self.requests.as_ref().is_some_and(|requests| !requests.is_closed())
    }

    /// Resolves as soon as the connection has ended, by whichever side and for whichever reason, also while nothing is
    /// asked. It borrows nothing, and may be dropped and made anew at any time.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut closed = self.closed.clone();
        async move {
            // Nothing is ever sent: an error says that the sender, and with it the connection, is gone.
            while closed.changed().await.is_ok() {}
        }
    }

    /// What the node says of itself, within [`super::Deadlines::answer`]. Dropped before it is done, or failed but for a
    /// [`AskError::Refused`] that was read to its end, it leaves the connection closed.
    pub async fn seal_status(&mut self) -> Result<SealStatus, AskError> {
        self.seal_status_within(self.identity.deadlines().answer).await
    }

    /// As [`Connection::seal_status`], with a deadline of the caller's.
    pub async fn seal_status_within(&mut self, deadline: Duration) -> Result<SealStatus, AskError> {
        self.ask(self.request(Method::GET, SEAL_STATUS, Bytes::new()), deadline).await?.status()
    }

    /// What the node says of its health, in whichever state it is, within [`super::Deadlines::answer`].
    pub async fn health(&mut self) -> Result<Health, AskError> {
        let asked = self.request(Method::GET, HEALTH, Bytes::new());
        self.ask(asked, self.identity.deadlines().answer).await?.health()
    }

    /// Makes the node forget the shares of the running attempt. Answers its status afterwards.
    pub async fn reset_attempt(&mut self) -> Result<SealStatus, AskError> {
        let body = Bytes::from_static(br#"{"reset":true}"#);
        self.ask(self.request(Method::PUT, UNSEAL, body), self.identity.deadlines().answer).await?.status()
    }

    /// Ends the connection in order, and hands over the tickets that arrived. On a connection that never asked anything,
    /// they may not have arrived yet.
    pub async fn finish(mut self) -> Vec<Ticket> {
        self.requests = None;
        // Late or not, it is over when `self` is dropped.
        let _ = timeout(FINISH_DEADLINE, self.closed()).await;
        self.tickets.take()
    }

    pub(super) fn request(
        &self,
        method: Method,
        path: impl Into<Cow<'static, str>>,
        body: Bytes,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = match path.into() {
            Cow::Borrowed(path) => hyper::Uri::from_static(path),
            // A path that is none is refused by the server, as one that there is not.
            Cow::Owned(path) => path.try_into().unwrap_or_default(),
        };
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::from_str(&self.identity.address()) {
            headers.insert(HOST, host);
        }
        headers.insert(USER_AGENT, HeaderValue::from_static("holdfast"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // A listener may be set to require it (require_request_header), as a guard against forged requests of browsers.
        headers.insert("x-vault-request", HeaderValue::from_static("true"));
        request
    }

    /// Sends a request and reads the answer to its end, both within `deadline`.
    pub(super) async fn ask(&mut self, request: Request<Full<Bytes>>, deadline: Duration) -> Result<Reply, AskError> {
        // Taken, and given back only after an answer was read to its end: so it stays away after any failure, and also
        // when the caller drops this future half-way.
        let mut requests = self.requests.take().ok_or(AskError::Closed)?;
        let asked = timeout(deadline, async {
            requests.ready().await.map_err(|_| AskError::Closed)?;
            let answer = requests.try_send_request(request).await.map_err(|mut error| match error.take_message() {
                Some(_) => AskError::Closed,
                None => AskError::Broken(error.into_error().to_string()),
            })?;
            Reply::read(answer).await
        });
        match asked.await {
            Ok(Ok(reply)) => {
                self.requests = Some(requests);
                Ok(reply)
            }
            Ok(Err(error)) => self.give_up(error),
            Err(_) => self.give_up(AskError::Deadline(deadline)),
        }
    }

    fn give_up(&mut self, error: AskError) -> Result<Reply, AskError> {
        self.task.abort();
        Err(error)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("identity", &self.identity)
            .field("handshake", &self.handshake)
            .field("ticket_was_offered", &self.ticket_was_offered)
            .finish_non_exhaustive()
    }
}

/// An answer that was read to its end. Its content is the peer's and never shown.
pub(super) struct Reply {
    pub(super) code: StatusCode,
    body: Bytes,
    names_a_proxy: bool,
}

impl Reply {
    async fn read(answer: Response<hyper::body::Incoming>) -> Result<Self, AskError> {
        let code = answer.status();
        let names_a_proxy = [SERVER, VIA].iter().any(|name| answer.headers().contains_key(name));
        match Limited::new(answer.into_body(), BODY_MAX).collect().await {
            Ok(body) => Ok(Self { code, body: body.to_bytes(), names_a_proxy }),
            Err(error) if error.is::<LengthLimitError>() => Err(AskError::TooLarge),
            Err(error) => Err(AskError::Broken(error.to_string())),
        }
    }

    /// What was read.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The seal-status in it. Status 200 alone: a redirect is refused, whatever it leads to.
    pub(super) fn status(&self) -> Result<SealStatus, AskError> {
        match self.code {
            StatusCode::OK => SealStatus::parse(&self.body).map_err(|e| AskError::NotAStatus(e.into())),
            code if code.is_redirection() => Err(AskError::Redirect(code.as_u16())),
            code => Err(AskError::Refused(code.as_u16())),
        }
    }

    /// The health in it, whatever the status: a Vault says by that in which state it is.
    fn health(&self) -> Result<Health, AskError> {
        if self.code.is_redirection() {
            return Err(AskError::Redirect(self.code.as_u16()));
        }
        let wire: HealthWire = serde_json::from_slice(&self.body).map_err(|_| AskError::NoTime)?;
        let server_time = Timestamp::from_millis(wire.server_time_utc.saturating_mul(1000));
        Ok(Health { server_time, names_a_proxy: self.names_a_proxy })
    }
}
