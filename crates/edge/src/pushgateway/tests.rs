//! What goes to a Pushgateway, and what of its answers reaches anybody: a number.

use std::os::unix::fs::PermissionsExt as _;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use super::*;
use crate::listen::{Listener, Served, ServerTls};

/// The longest that anything here may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(20);

const METRICS: &[u8] = b"holdfast_broker_up 1\n";

/// An authority, and a server of its own that listens.
struct Server {
    ca: String,
    listener: Listener,
}

impl Server {
    async fn start(encrypted: bool) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).expect("a certificate").pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate").pem();
        let folder = tempfile::tempdir().expect("a folder");
        let (certificate_path, key_path) = (folder.path().join("server.pem"), folder.path().join("server.key"));
        std::fs::write(&certificate_path, certificate).expect("written");
        std::fs::write(&key_path, key.serialize_pem()).expect("written");
        std::fs::set_permissions(&key_path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        let tls = encrypted.then(|| ServerTls::load(&certificate_path, &key_path).expect("good"));
        let listener = Listener::bind("127.0.0.1:0".parse().expect("an address"), tls).await.expect("a free port");
        Self { ca, listener }
    }

    fn gateway(&self, login: Option<(&str, &Password)>) -> Pushgateway {
        let url = format!("https://localhost:{}", self.listener.address().port());
        let instance = "custodian-1".parse().expect("a name");
        Pushgateway::new(&url, self.ca.as_bytes(), login, &instance).expect("good")
    }

    /// Takes one request, gives this answer, and says what came. Stays connected until it is dropped.
    fn answer(mut self, answer: Vec<u8>) -> JoinHandle<(String, Served)> {
        tokio::spawn(async move {
            let (mut served, _) = self.listener.accept().await;
            let mut came = Vec::new();
            let whole =
                |came: &[u8]| came.ends_with(METRICS) || (came.starts_with(b"GET") && came.ends_with(b"\r\n\r\n"));
            while !whole(&came) {
                let mut part = [0; 4096];
                let count = served.read(&mut part).await.expect("read");
                assert!(count > 0, "all of it comes: {:?}", String::from_utf8_lossy(&came));
                came.extend_from_slice(&part[..count]);
            }
            // Who has what was wanted may go before the end.
            let _ = served.write_all(&answer).await;
            let _ = served.flush().await;
            (String::from_utf8(came).expect("text"), served)
        })
    }
}

fn password(text: &str) -> Password {
    Password::from_file_content(Zeroizing::new(text.as_bytes().to_vec())).expect("a line")
}

async fn push(gateway: &Pushgateway) -> Result<(), PushError> {
    timeout(PATIENCE, gateway.push(Bytes::from_static(METRICS))).await.expect("in time")
}

#[tokio::test]
async fn one_request_puts_the_group_in_place() {
    let server = Server::start(true).await;
    let gateway = server.gateway(Some(("custodian-1", &password("open sesame\n"))));
    assert!(!format!("{gateway:?}").contains("sesame") && !format!("{:?}", gateway.login).contains("Y3VzdG9kaWFu"));
    let server = server.answer(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_vec());
    push(&gateway).await.expect("accepted");
    let (came, _) = server.await.expect("it ends");
    assert!(came.starts_with("PUT /metrics/job/holdfast-custodian/instance/custodian-1 HTTP/1.1\r\n"), "{came}");
    for header in ["authorization: Basic Y3VzdG9kaWFuLTE6b3BlbiBzZXNhbWU=", "connection: close", "host: localhost:"] {
        assert!(came.contains(&format!("\r\n{header}")), "{header} in {came}");
    }
}

#[tokio::test]
async fn of_an_answer_only_the_status_is_read() {
    for (status, refused) in [(200, false), (202, false), (301, true), (307, true), (401, true), (500, true)] {
        let server = Server::start(true).await;
        let gateway = server.gateway(None);
        // Far more than anybody reads, never ended, and somewhere else to go.
        let mut answer =
            format!("HTTP/1.1 {status} X\r\nlocation: https://evil.example/\r\ncontent-length: 9999999999\r\n\r\n")
                .into_bytes();
        answer.resize(256 * 1024, b'x');
        let server = server.answer(answer);
        match push(&gateway).await {
            Ok(()) => assert!(!refused, "{status}"),
            Err(PushError::Refused(code)) => assert!(refused && code == status, "{code} for {status}"),
            Err(other) => panic!("{status}: {other}"),
        }
        drop(server);
    }
}

#[tokio::test]
async fn what_is_no_answer_is_an_error() {
    let endless = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'x'; 2 * HEAD_MAX]].concat();
    let many = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"x: y\r\n".repeat(HEADERS_MAX + 1), b"\r\n".to_vec()].concat();
    for answer in [b"+OK ready\r\n\r\n".to_vec(), endless, many] {
        let server = Server::start(true).await;
        let gateway = server.gateway(None);
        let server = server.answer(answer);
        assert!(matches!(push(&gateway).await, Err(PushError::Broken(_))));
        drop(server);
    }
}

#[tokio::test]
async fn nobody_is_waited_for_beyond_the_deadline() {
    let mut server = Server::start(true).await;
    let gateway = server.gateway(None);
    let pushed = async {
        let (_silent, _) = server.listener.accept().await;
        // From here on nothing is to come but the deadline.
        tokio::time::pause();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = gateway.push(Bytes::from_static(METRICS)) => assert!(matches!(result, Err(PushError::Deadline)), "{result:?}"),
        () = pushed => {}
    }
}

#[tokio::test]
async fn nothing_is_said_to_anybody_else() {
    let (server, other) = (Server::start(true).await, Server::start(true).await);
    let stranger = Server { ca: other.ca.clone(), listener: server.listener };
    assert!(matches!(push(&stranger.gateway(None)).await, Err(PushError::NotAccepted(_))), "another authority's");
    let plain = Server::start(false).await;
    let gateway = plain.gateway(Some(("me", &password("secret"))));
    let mut listener = plain.listener;
    let heard = tokio::spawn(async move {
        let (mut served, _) = listener.accept().await;
        let mut came = vec![0; 16 * 1024];
        let count = served.read(&mut came).await.expect("a greeting");
        let _ = served.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        came.truncate(count);
        came
    });
    assert!(matches!(push(&gateway).await, Err(PushError::NotAccepted(_))), "no TLS");
    let came = heard.await.expect("it ends");
    assert!(!came.windows(5).any(|part| part == b"Basic"), "no password without TLS");
}

#[tokio::test]
async fn too_much_is_not_sent() {
    let gateway = Server::start(true).await.gateway(None);
    let result = gateway.push(vec![b'x'; BODY_MAX + 1].into()).await;
    assert!(matches!(result, Err(PushError::Oversized(_))), "before anybody is connected to");
}

#[tokio::test]
async fn whether_it_is_ready_is_asked_with_the_login() {
    let server = Server::start(true).await;
    let gateway = server.gateway(Some(("me", &password("secret"))));
    let server = server.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK".to_vec());
    gateway.is_ready().await.expect("it is");
    let (came, _) = server.await.expect("it ends");
    assert!(came.starts_with("GET /-/ready HTTP/1.1\r\n") && came.contains("authorization: Basic "), "{came}");
}

#[tokio::test]
async fn only_an_https_address_and_a_login_that_can_be_sent_are_taken() {
    let ca = Server::start(true).await.ca;
    let (me, secret) = ("custodian-1".parse().expect("a name"), password("x"));
    for url in ["http://push.example:9091", "push.example", "https://a:b@push.example", "https://push.example/metrics"]
    {
        assert!(matches!(Pushgateway::new(url, ca.as_bytes(), None, &me), Err(PushgatewayError::Address(_))), "{url}");
    }
    for username in ["", "a:b", "a\nb"] {
        let made = Pushgateway::new("https://push.example", ca.as_bytes(), Some((username, &secret)), &me);
        assert!(matches!(made, Err(PushgatewayError::Username)), "{username:?}");
    }
    let made = Pushgateway::new("https://[::1]:9091", ca.as_bytes(), None, &me).expect("good");
    assert_eq!((made.address().as_str(), made.port()), ("[::1]:9091", 9091));
    assert_eq!(Pushgateway::new("https://push.example", ca.as_bytes(), None, &me).expect("good").port(), 443);
    assert!(matches!(Pushgateway::new("https://push.example", b"none", None, &me), Err(PushgatewayError::Ca(_))));
}
