//! The one place that listens: for the sentinel's pages and for alerts, on loopback, or with TLS.
//!
//! What lives here: accepting, the TLS handshake, and the bounds that keep strangers from holding the process up, however slowly they
//! speak. What does not: what is served. A custodian never comes here: it has no inbound port.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::files::{self, FileError};

/// Connections at a time: a few scrapers and some people. Others wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;

/// Of these, how many one peer may have: a browser opens six, and a proxy before this has some for its people.
const CONNECTIONS_OF_PEER_MAX: usize = 16;

/// How long a TLS handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// How long a connection may be silent, and how long a peer may take none of what is written to it.
const IDLE_DEADLINE: Duration = Duration::from_secs(30);

/// How long the head of a request may take to come, from the end of the last one on: whoever sends it byte by byte is never idle. Longer than
/// Prometheus waits between two scrapes as a rule (15 s), so that its connection lasts.
#[cfg(feature = "serve")]
const HEAD_DEADLINE: Duration = Duration::from_secs(20);

/// How long a connection takes new requests.
#[cfg(feature = "serve")]
const LIFE: Duration = Duration::from_secs(60);

/// How long after that what was begun may still take.
#[cfg(feature = "serve")]
const LIFE_GRACE: Duration = Duration::from_secs(15);

/// How long nothing is accepted after the system failed to, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// The largest certificate or key file that is read, in bytes: a chain of a dozen fits.
const PEM_MAX: usize = 64 * 1024;

/// Why nothing can be served by TLS. The operator's fault, always.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The certificate file holds none.
    #[error(
        "the file has no certificate in it: it must hold \"-----BEGIN CERTIFICATE-----\", the server's own first, in PEM"
    )]
    NoCertificate,
    /// The key file holds none.
    #[error("the file has no private key in it that can be read without a passphrase, in PEM")]
    NoKey,
    /// They do not belong together, or the key is of a kind that cannot be used.
    #[error("certificate and key cannot be used together: {0}")]
    Mismatch(String),
}

/// What is needed to serve by TLS.
#[derive(Clone)]
pub struct ServerTls(Arc<ServerConfig>);

impl ServerTls {
    /// Reads a certificate chain and its key, which nobody but the owner may read.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, ListenError> {
        let chain = files::read_bounded(certificate, PEM_MAX)?;
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>().map_err(|_| ListenError::NoCertificate)?;
        if chain.is_empty() {
            return Err(ListenError::NoCertificate);
        }
        let key = files::read_secret(key, PEM_MAX)?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| ListenError::NoKey)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mismatch = |error: rustls::Error| ListenError::Mismatch(error.to_string());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(mismatch)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(mismatch)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerTls(…)")
    }
}

/// An open port. Dropped, it is closed, and with it every connection that nobody has fetched yet.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    accepted: mpsc::Receiver<(Served, SocketAddr)>,
    task: AbortHandle,
}

impl Listener {
    /// Opens the port.
    pub async fn bind(address: SocketAddr, tls: Option<ServerTls>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (ready, accepted) = mpsc::channel(CONNECTIONS_MAX);
        let task = tokio::spawn(accept_all(listener, tls, ready)).abort_handle();
        Ok(Self { address, accepted, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection, its handshake done.
    pub async fn accept(&mut self) -> (Served, SocketAddr) {
        match self.accepted.recv().await {
            Some(accepted) => accepted,
            // The task ends with the listener alone.
            None => std::future::pending().await,
        }
    }
}

/// Serves whatever comes in, by HTTP/1.1. Ends only with the runtime: accepting goes on after every failure.
#[cfg(feature = "serve")]
pub async fn serve(mut listener: Listener, router: axum::Router) {
    loop {
        let (served, _) = listener.accept().await;
        tokio::spawn(serve_one(served, router.clone()));
    }
}

#[cfg(feature = "serve")]
async fn serve_one(served: Served, router: axum::Router) {
    use hyper_util::rt::{TokioIo, TokioTimer};
    use hyper_util::service::TowerToHyperService;

    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(served), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // How it ends is the peer's business, and strangers' failures are not worth a line.
    if timeout(LIFE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LIFE_GRACE, connection).await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept_all(listener: TcpListener, tls: Option<ServerTls>, ready: mpsc::Sender<(Served, SocketAddr)>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let peers = Peers::default();
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Closed at once: it has its share, and whoever waits in the queue behind it may have none.
        let Some(place) = peers.admit(peer.ip()) else { continue };
        let (ready, tls) = (ready.clone(), tls.clone());
        tokio::spawn(async move {
            if let Some(stream) = shake_hands(stream, tls).await {
                // There is room for as many as there are permits, unless the listener is gone.
                let _ = ready.try_send((Served::new(stream, place, permit), peer));
            }
        });
    }
}

/// How many connections each peer has.
#[derive(Debug, Clone, Default)]
struct Peers(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// One of a peer's connections.
#[derive(Debug)]
struct Place {
    peers: Peers,
    peer: IpAddr,
}

impl Peers {
    /// One connection more, if this peer may have it.
    fn admit(&self, peer: IpAddr) -> Option<Place> {
        let peer = one_of(peer);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = known.entry(peer).or_default();
        (*count < CONNECTIONS_OF_PEER_MAX).then(|| {
            *count += 1;
            Place { peers: self.clone(), peer }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut known = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = known.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                known.remove(&self.peer);
            }
        }
    }
}

/// By what a peer is known: a host of IPv6 has a whole /64 of addresses.
fn one_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

async fn shake_hands(stream: TcpStream, tls: Option<ServerTls>) -> Option<Stream> {
    let Some(tls) = tls else { return Some(Stream::Plain(stream)) };
    let handshake = TlsAcceptor::from(tls.0).accept(stream);
    // Strangers' failures are not worth a line: anybody could fill the log with them.
    let stream = timeout(HANDSHAKE_DEADLINE, handshake).await.ok()?.ok()?;
    Some(Stream::Tls(Box::new(stream)))
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

/// A connection to serve. It fails when it was idle for too long, and makes room for another when it is dropped.
#[derive(Debug)]
pub struct Served {
    stream: Stream,
    idle: Pin<Box<Sleep>>,
    _place: Place,
    _permit: OwnedSemaphorePermit,
}

impl Served {
    fn new(stream: Stream, place: Place, permit: OwnedSemaphorePermit) -> Self {
        Self { stream, idle: Box::pin(sleep(IDLE_DEADLINE)), _place: place, _permit: permit }
    }

    /// Lets the time run on while nothing moves, and begins anew when something did.
    fn watch<T>(&mut self, cx: &mut Context<'_>, moved: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match moved {
            Poll::Ready(moved) => {
                self.idle.as_mut().reset(Instant::now() + IDLE_DEADLINE);
                Poll::Ready(moved)
            }
            Poll::Pending => self.idle.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl AsyncRead for Served {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let moved = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        self.watch(cx, moved)
    }
}

impl AsyncWrite for Served {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let moved = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        self.watch(cx, moved)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let moved = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        self.watch(cx, moved)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let moved = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        };
        self.watch(cx, moved)
    }
}

#[cfg(test)]
mod tests;
