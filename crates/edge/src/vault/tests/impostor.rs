//! A server that does what a test tells it to, and keeps every byte that it receives: as it came, and decrypted.
//!
//! Written from the API's description; it shares no code with the client but the TLS library.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::ResolvesServerCertUsingSni;
use rustls_pki_types::PrivateKeyDer;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{CLUSTER, SHARE, SHORT};
use crate::tls::SpkiPin;
use crate::vault::NodeIdentity;

/// The longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A certificate authority of the tests.
pub(super) struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
    self_signed: (Vec<u8>, Vec<u8>),
}

/// A server's certificate and key.
#[derive(Clone)]
pub(super) struct ServerKey {
    pub(super) chain: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) pin: SpkiPin,
}

impl TestCa {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let self_signed = (certificate.der().to_vec(), key.serialize_der());
        Self { issuer: Issuer::new(params, key), pem: certificate.pem(), self_signed }
    }

    /// A server's certificate for these names, changed as the test needs.
    pub(super) fn issue(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> ServerKey {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let pin = Sha256::digest(key.subject_public_key_info()).into();
        ServerKey { chain: certificate.der().to_vec(), key: key.serialize_der(), pin }
    }

    /// The CA's own certificate, used as a server's.
    pub(super) fn own(&self) -> ServerKey {
        let (chain, key) = self.self_signed.clone();
        ServerKey { chain, key, pin: [0; 32] }
    }

    /// The good server's certificate.
    pub(super) fn localhost(&self) -> ServerKey {
        self.issue(&["localhost", "127.0.0.1"], |_| {})
    }

    /// The node at this server's address, as the custodian's configuration has it.
    pub(super) fn node(&self, server: &Impostor, pins: &[SpkiPin]) -> NodeIdentity {
        let url = format!("https://localhost:{}", server.address.port());
        let node = "vault-1".parse().expect("a name");
        NodeIdentity::new(CLUSTER, node, &url, self.pem.as_bytes(), pins).expect("good")
    }
}

impl ServerKey {
    pub(super) fn config(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::try_from(self.key.clone()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.chain.clone().into()], key)
            .expect("a pair");
        Arc::new(config)
    }

    pub(super) fn tls(&self) -> Front {
        Front::Tls(self.config(&[&rustls::version::TLS13]))
    }

    /// A server with this certificate and another's key: whoever saw a handshake has a copy of a certificate.
    pub(super) fn with_key_of(&self, other: &ServerKey) -> Front {
        let key = PrivateKeyDer::try_from(other.key.clone()).expect("a key");
        let key = aws_lc_rs::sign::any_supported_type(&key).expect("a key");
        let pair = rustls::sign::CertifiedKey::new(vec![self.chain.clone().into()], key);
        let mut resolver = ResolvesServerCertUsingSni::new();
        resolver.add("localhost", pair).expect("it is for localhost");
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        Front::Tls(Arc::new(config))
    }
}

/// What answers a connection.
#[derive(Clone)]
pub(super) enum Front {
    Tls(Arc<ServerConfig>),
    PlainHttp,
    /// Takes the connection and says nothing.
    Silent,
    /// Takes the first bytes and closes.
    Closing,
}

/// What answers a request.
pub(super) enum Reply {
    /// These bytes, and on with the next request.
    Bytes(Vec<u8>),
    /// These bytes, and then nothing more.
    Stall(Vec<u8>),
    /// These bytes, and then one more again and again, for ever.
    Drip(Vec<u8>),
    /// These bytes, and the end of the connection.
    Close(Vec<u8>),
}

/// A whole answer.
pub(super) fn http(code: u16, headers: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::Bytes(format!("HTTP/1.1 {code} Whatever\r\nContent-Length: {length}\r\n{headers}\r\n{body}").into_bytes())
}

/// A request as the server read it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// How many requests came before it, on any connection.
    pub(super) number: usize,
    /// The request line, such as `GET /v1/sys/seal-status HTTP/1.1`.
    pub(super) line: String,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

type Script = dyn Fn(&Asked) -> Reply + Send + Sync;

#[derive(Default)]
struct Seen {
    raw: Vec<u8>,
    decrypted: Vec<u8>,
    requests: Vec<Asked>,
    connections: usize,
}

/// The server. Ends with the value.
pub(super) struct Impostor {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    tasks: JoinSet<()>,
}

impl Impostor {
    pub(super) async fn start(front: Front, script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), front, script).await
    }

    pub(super) async fn start_at(
        address: SocketAddr,
        front: Front,
        script: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (record, script): (_, Arc<Script>) = (Arc::clone(&seen), Arc::new(script));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                record.lock().expect("no panic").connections += 1;
                connections.spawn(serve(stream, front.clone(), Arc::clone(&record), Arc::clone(&script)));
            }
        });
        Self { address, seen, tasks }
    }

    /// A good certificate, and this answer to everything.
    pub(super) async fn answering(ca: &TestCa, reply: impl Fn() -> Reply + Send + Sync + 'static) -> Self {
        Self::start(ca.localhost().tls(), move |_| reply()).await
    }

    /// Ends the server and all its connections.
    pub(super) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }

    pub(super) fn requests(&self) -> Vec<Asked> {
        self.seen.lock().expect("no panic").requests.clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.seen.lock().expect("no panic").connections
    }

    /// Not a run of the share in what came, raw, hexadecimal or in base64, encrypted or not.
    pub(super) fn saw_no_share(&self) {
        let seen = self.seen.lock().expect("no panic");
        assert_eq!(shares_in(&seen.raw), 0);
        assert_eq!(shares_in(&seen.decrypted), 0);
    }

    /// How many spellings of the share are in what it decrypted.
    pub(super) fn shares_seen(&self) -> usize {
        let seen = self.seen.lock().expect("no panic");
        assert_eq!(shares_in(&seen.raw), 0, "unencrypted");
        shares_in(&seen.decrypted)
    }
}

/// How many runs of 8 bytes of the share, in any spelling, are in these bytes.
pub(super) fn shares_in(bytes: &[u8]) -> usize {
    let hex = hex::encode(SHARE);
    let mut needles: Vec<Vec<u8>> = SHARE.windows(8).map(<[u8]>::to_vec).collect();
    for text in [hex.to_uppercase(), hex] {
        needles.extend(text.as_bytes().windows(16).map(<[u8]>::to_vec));
    }
    // Base64 looks different from each of three starting points.
    for start in 0..3 {
        for text in [STANDARD_NO_PAD.encode(&SHARE[start..]), URL_SAFE_NO_PAD.encode(&SHARE[start..])] {
            needles.extend(text.as_bytes().windows(12).map(<[u8]>::to_vec));
        }
    }
    needles.iter().filter(|needle| bytes.windows(needle.len()).any(|run| run == needle.as_slice())).count()
}

/// Waits for a condition, not for a time.
pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

async fn serve(stream: TcpStream, front: Front, seen: Arc<Mutex<Seen>>, script: Arc<Script>) {
    let mut stream = Recorder { stream, seen: Arc::clone(&seen) };
    match front {
        Front::Tls(config) => {
            if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                let _ = converse(stream, seen, script).await;
            }
        }
        Front::PlainHttp => {
            let hello = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server.\n";
            let mut first = [0; 64];
            let _ = stream.read(&mut first).await;
            let _ = stream.write_all(hello).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        Front::Silent => {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        Front::Closing => {
            let _ = stream.read(&mut [0; 64]).await;
        }
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    seen: Arc<Mutex<Seen>>,
    script: Arc<Script>,
) -> io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = stream.read_u8().await?;
            head.push(byte);
            seen.lock().expect("no panic").decrypted.push(byte);
        }
        let head = String::from_utf8(head).map_err(io::Error::other)?;
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).await?;
        let asked = {
            let mut seen = seen.lock().expect("no panic");
            seen.decrypted.extend_from_slice(&body);
            let line = head.lines().next().unwrap_or_default().to_owned();
            let asked = Asked { number: seen.requests.len(), line, head, body };
            seen.requests.push(asked.clone());
            asked
        };
        match script(&asked) {
            Reply::Bytes(bytes) => stream.write_all(&bytes).await?,
            Reply::Close(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Reply::Stall(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                return stream.read_to_end(&mut Vec::new()).await.map(|_| ());
            }
            Reply::Drip(bytes) => {
                stream.write_all(&bytes).await?;
                let mut drip = tokio::time::interval(SHORT / 20);
                loop {
                    drip.tick().await;
                    stream.write_all(b" ").await?;
                    stream.flush().await?;
                }
            }
        }
        stream.flush().await?;
    }
}

/// Keeps what is read, as it comes from the network.
struct Recorder {
    stream: TcpStream,
    seen: Arc<Mutex<Seen>>,
}

impl AsyncRead for Recorder {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.seen.lock().expect("no panic").raw.extend_from_slice(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Recorder {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
