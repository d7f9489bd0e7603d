//! The open port: what is let through, and what strangers cannot hold up.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::*;

/// The longest that anything here may take on a machine that does much else.
const DEADLINE: Duration = Duration::from_secs(20);

const LOOPBACK: &str = "127.0.0.1:0";

fn files(folder: &Path) -> (PathBuf, PathBuf, String) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let (certificate, path) = (params.self_signed(&key).expect("a certificate"), folder.join("server.key"));
    fs::write(folder.join("server.pem"), certificate.pem()).expect("written");
    fs::write(&path, key.serialize_pem()).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    (folder.join("server.pem"), path, certificate.pem())
}

async fn bind(tls: Option<ServerTls>) -> Listener {
    Listener::bind(LOOPBACK.parse().expect("an address"), tls).await.expect("a free port")
}

/// From another of this host's own addresses.
async fn connect_from(host: u8, to: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, host], 0).into()).expect("an address of loopback");
    socket.connect(to).await.expect("connected")
}

async fn next(listener: &mut Listener) -> Served {
    timeout(DEADLINE, listener.accept()).await.expect("in time").0
}

#[tokio::test]
async fn what_is_said_arrives_with_and_without_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key, _) = files(folder.path());
    for tls in [None, Some(ServerTls::load(&certificate, &key).expect("good"))] {
        let mut listener = bind(tls.clone()).await;
        let mut client: Box<dyn Both> = {
            let stream = TcpStream::connect(listener.address()).await.expect("connected");
            match tls {
                None => Box::new(stream),
                Some(_) => {
                    let config = anybody();
                    let name = "localhost".try_into().expect("a name");
                    Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake"))
                }
            }
        };
        let mut served = next(&mut listener).await;
        client.write_all(b"ping").await.expect("written");
        client.flush().await.expect("sent");
        let mut said = [0; 4];
        served.read_exact(&mut said).await.expect("read");
        served.write_all(b"pong").await.expect("written");
        served.flush().await.expect("sent");
        client.read_exact(&mut said).await.expect("read");
        assert_eq!(&said, b"pong");
    }
}

#[tokio::test]
async fn a_stranger_who_does_not_shake_hands_keeps_nobody_waiting() {
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key, _) = files(folder.path());
    let mut listener = bind(Some(ServerTls::load(&certificate, &key).expect("good"))).await;
    let silent = TcpStream::connect(listener.address()).await.expect("connected");
    let mut plain = TcpStream::connect(listener.address()).await.expect("connected");
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
    let stream = TcpStream::connect(listener.address()).await.expect("connected");
    let good = TlsConnector::from(Arc::new(anybody())).connect("localhost".try_into().expect("a name"), stream);
    let (good, _) = tokio::join!(good, next(&mut listener));
    assert!(good.is_ok());
    drop(silent);
}

#[tokio::test]
async fn only_so_many_are_let_in_and_each_that_leaves_makes_room() {
    let mut listener = bind(None).await;
    let mut clients = Vec::new();
    let mut inside = Vec::new();
    for number in 0..=CONNECTIONS_MAX {
        let host = u8::try_from(1 + number / CONNECTIONS_OF_PEER_MAX).expect("few");
        clients.push(connect_from(host, listener.address()).await);
        if number < CONNECTIONS_MAX {
            inside.push(next(&mut listener).await);
        }
    }
    tokio::task::yield_now().await;
    assert!(listener.accepted.try_recv().is_err(), "full");
    inside.pop();
    next(&mut listener).await;
}

#[tokio::test]
async fn one_peer_takes_its_share_and_no_more() {
    let mut listener = bind(None).await;
    let (mut clients, mut inside) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS_OF_PEER_MAX {
        clients.push(connect_from(1, listener.address()).await);
        inside.push(next(&mut listener).await);
    }
    let mut refused = connect_from(1, listener.address()).await;
    let read = timeout(DEADLINE, refused.read_u8()).await.expect("at once");
    assert!(read.is_err(), "closed");
    let other = connect_from(2, listener.address()).await;
    drop((next(&mut listener).await, other));
    inside.pop();
    let again = connect_from(1, listener.address()).await;
    drop((next(&mut listener).await, again));

    let peers = Peers::default();
    let v6 = |host: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, host]);
    let places: Vec<_> = (0..20).filter_map(|host| peers.admit(v6(host))).collect();
    assert_eq!(places.len(), CONNECTIONS_OF_PEER_MAX, "a whole /64 is one host's");
    assert!(peers.admit(IpAddr::from([0x2001, 0xdb8, 0, 2, 0, 0, 0, 1])).is_some());
    drop(places);
    assert!(peers.0.lock().expect("whole").is_empty(), "nobody is remembered who is gone");
}

/// What a peer does, and when it finds the connection closed, as its own clock goes on.
#[cfg(feature = "serve")]
async fn closed_after(mut say: impl FnMut(u64) -> &'static [u8] + Send + 'static) -> Duration {
    let listener = bind(None).await;
    let client = TcpStream::connect(listener.address()).await.expect("connected");
    let router = axum::Router::new().route("/", axum::routing::get(async || "here\n"));
    let server = tokio::spawn(serve(listener, router));
    let began = Instant::now();
    let (mut answers, mut words) = client.into_split();
    let speaks = tokio::spawn(async move {
        for second in 0.. {
            if words.write_all(say(second)).await.is_err() {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
    });
    let mut heard = Vec::new();
    // Reset or ended: closed.
    let _ = answers.read_to_end(&mut heard).await;
    speaks.abort();
    server.abort();
    began.elapsed()
}

#[cfg(feature = "serve")]
#[tokio::test(start_paused = true)]
async fn whoever_sends_byte_by_byte_or_never_stops_asking_is_not_served_for_ever() {
    let head =
        b"GET / HTTP/1.1\r\nHost: a\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let trickled = closed_after(|second| {
        let at = usize::try_from(second).expect("few").min(head.len() - 1);
        &head[at..=at]
    });
    let after = timeout(Duration::from_secs(100), trickled).await.expect("given up");
    assert!(after >= HEAD_DEADLINE && after < HEAD_DEADLINE * 2, "{after:?}");
    let asked = closed_after(|_| b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let after = timeout(Duration::from_secs(100), asked).await.expect("given up");
    assert!(after >= LIFE && after <= LIFE + LIFE_GRACE + HEAD_DEADLINE, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_given_up() {
    let mut listener = bind(None).await;
    let _client = TcpStream::connect(listener.address()).await.expect("connected");
    let mut served = listener.accept().await.0;
    let began = Instant::now();
    let error = served.read_u8().await.expect_err("nothing came");
    assert_eq!((error.kind(), began.elapsed() >= IDLE_DEADLINE), (io::ErrorKind::TimedOut, true));
}

#[test]
fn certificate_and_key_are_read_or_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key, _) = files(folder.path());
    assert!(ServerTls::load(&certificate, &key).is_ok());
    assert!(matches!(ServerTls::load(&key, &key), Err(ListenError::NoCertificate)));
    let other = tempfile::tempdir().expect("a folder");
    let (other_certificate, ..) = files(other.path());
    assert!(matches!(ServerTls::load(&other_certificate, &key), Err(ListenError::Mismatch(_))));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("a mode");
    let refused = ServerTls::load(&certificate, &key).expect_err("readable by all");
    assert!(refused.to_string().contains("chmod 600"), "{refused}");
    fs::write(&key, "nothing").expect("written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a mode");
    assert!(matches!(ServerTls::load(&certificate, &key), Err(ListenError::NoKey)));
}

trait Both: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Both for T {}

/// A client that takes any certificate: who the server is, is not what is tried here.
fn anybody() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        // The server is what is tried here, and it asks its clients for nothing: this client may believe anybody.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(schemes)))
        .with_no_client_auth()
}

#[derive(Debug)]
struct Anybody(Vec<rustls::SignatureScheme>);

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.clone()
    }
}
