//! What stands in the broker's place and is not it: none gets a byte of the password, and each is told apart.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_edge::broker::{Broker, BrokerEvent, BrokerSettings, Trouble};
use holdfast_edge::tls::{self, PeerRefusal};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use support::authority::{Authority, Identity};
use support::rabbit::{password, settings};
use support::wait_for;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// Everything that an impostor was told, on the wire and inside TLS.
type Heard = Arc<Mutex<Vec<u8>>>;

/// What an impostor does once somebody is connected.
#[derive(Clone)]
enum Act {
    /// Says nothing, and keeps the connection.
    Silence,
    /// Closes at once.
    Close,
    /// Says this, in clear, as soon as somebody is connected.
    Plaintext(&'static [u8]),
    /// Shakes hands with this certificate, and says this inside.
    Tls(Arc<rustls::ServerConfig>, &'static [u8]),
}

/// RabbitMQ's answer to what is no AMQP.
const AMQP_HEADER: &[u8] = b"AMQP\0\0\x09\x01";
/// The first half of a Connection.Start.
const HALF_A_START: &[u8] = b"\x01\0\0\0\0\x01\xff\0\x0a\0\x0a\0\x09";

async fn impostor(act: Act) -> (String, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("amqps://127.0.0.1:{}/holdfast", listener.local_addr().expect("an address").port());
    let heard = Heard::default();
    let records = heard.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (act, heard) = (act.clone(), records.clone());
            tokio::spawn(async move {
                match act {
                    Act::Silence => listen(stream, heard).await,
                    Act::Close => {}
                    Act::Plaintext(text) => {
                        stream.write_all(text).await.expect("written");
                        listen(stream, heard).await;
                    }
                    Act::Tls(config, text) => {
                        // Refused by the client in most tests.
                        let Ok(mut tls) = TlsAcceptor::from(config).accept(stream).await else { return };
                        if tls.write_all(text).await.is_ok() {
                            listen(tls, heard).await;
                        }
                    }
                }
            });
        }
    });
    (url, heard)
}

async fn listen(mut stream: impl AsyncRead + AsyncWrite + Unpin, heard: Heard) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        heard.lock().expect("not poisoned").extend_from_slice(&buffer[..read]);
    }
}

/// Lets our client meet the impostor twice, and returns the first reason.
async fn meet(act: Act, authority: &Authority) -> (Trouble, Vec<u8>) {
    let (url, heard) = impostor(act).await;
    let (client, mut events) = Broker::spawn(settings(&url, authority.client(), "custodian-1", &[]));
    let mut troubles = Vec::new();
    while troubles.len() < 2 {
        troubles.push(
            wait_for(&mut events, "a refusal", |event| match event {
                BrokerEvent::Up => panic!("took an impostor for the broker"),
                BrokerEvent::Down { why } => Some(why),
                _ => None,
            })
            .await,
        );
    }
    assert_eq!(troubles[0].to_string(), troubles[1].to_string());
    client.close().await;
    let heard = heard.lock().expect("not poisoned").clone();
    (troubles.swap_remove(0), heard)
}

fn has_secret(heard: &[u8]) -> bool {
    let password = password("custodian-1");
    // Tails too: a part of a password is too much.
    let parts = [password.as_bytes(), &password.as_bytes()[4..], b"PLAIN", b"custodian-1"];
    parts.iter().any(|part| heard.windows(part.len()).any(|window| window == *part))
}

#[tokio::test]
async fn a_plaintext_listener_gets_nothing() {
    let authority = Authority::new("broker CA");
    for text in [AMQP_HEADER, HALF_A_START, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 mail.example\r\n"] {
        let (why, heard) = meet(Act::Plaintext(text), &authority).await;
        assert!(matches!(why, Trouble::Plaintext { .. }), "{why:?} to {text:?}");
        assert!(!heard.is_empty() && !has_secret(&heard));
        // A TLS greeting and perhaps an alert, and never AMQP.
        assert_eq!(heard[0], 0x16);
        assert!(!heard.windows(4).any(|window| window == b"AMQP"));
    }
}

#[tokio::test]
async fn wrong_certificates_are_told_apart_and_get_nothing() {
    let authority = Authority::new("broker CA");
    let other = Authority::new("another CA");
    let mut old = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("names");
    old.not_before = rcgen::date_time_ymd(2020, 1, 1);
    old.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let key = KeyPair::generate().expect("a key");
    let expired = Identity { certificate: old.signed_by(&key, authority.issuer()).expect("signed"), key };
    type Expected = fn(&PeerRefusal) -> bool;
    let cases: [(Identity, Expected); 4] = [
        (other.identity(&["127.0.0.1"]), |refusal| matches!(refusal, PeerRefusal::UnknownIssuer)),
        (authority.identity(&["localhost", "127.0.0.2"]), |refusal| matches!(refusal, PeerRefusal::WrongName { .. })),
        (expired, |refusal| matches!(refusal, PeerRefusal::Expired { .. })),
        (a_ca(), |refusal| matches!(refusal, PeerRefusal::UnknownIssuer | PeerRefusal::CaAsServer)),
    ];
    for (identity, expected) in cases {
        let (why, heard) = meet(Act::Tls(identity.server(), AMQP_HEADER), &authority).await;
        assert!(matches!(&why, Trouble::NotTheBroker { refusal, .. } if expected(refusal)), "{why:?}");
        assert_eq!(heard, b"");
    }
}

#[tokio::test]
async fn the_right_name_with_another_key_than_the_pinned_one_gets_nothing() {
    let authority = Authority::new("broker CA");
    let pinned = tls::client_config(authority.certificate.pem().as_bytes(), &[[7; 32]]).expect("a CA");
    let (url, heard) = impostor(Act::Tls(authority.identity(&["127.0.0.1"]).server(), AMQP_HEADER)).await;
    let why = first_trouble(settings(&url, Arc::new(pinned), "custodian-1", &[])).await;
    assert!(matches!(&why, Trouble::NotTheBroker { refusal: PeerRefusal::WrongPin { .. }, .. }), "{why:?}");
    assert_eq!(*heard.lock().expect("not poisoned"), b"");
}

#[tokio::test]
async fn a_certificate_that_is_a_ca_says_what_to_do() {
    let identity = a_ca();
    let (url, _heard) = impostor(Act::Tls(identity.server(), b"")).await;
    let client = tls::client_config(identity.certificate.pem().as_bytes(), &[]).expect("a CA");
    let why = first_trouble(settings(&url, Arc::new(client), "custodian-1", &[])).await;
    assert!(matches!(&why, Trouble::NotTheBroker { refusal: PeerRefusal::CaAsServer, .. }), "{why:?}");
}

/// A hand-made certificate: self-signed, and a CA.
fn a_ca() -> Identity {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    Identity { certificate: params.self_signed(&key).expect("a certificate"), key }
}

async fn first_trouble(settings: BrokerSettings) -> Trouble {
    let (client, mut events) = Broker::spawn(settings);
    let why = wait_for(&mut events, "a refusal", |event| match event {
        BrokerEvent::Down { why } => Some(why),
        _ => None,
    })
    .await;
    client.close().await;
    why
}

#[tokio::test]
async fn whoever_closes_or_says_nothing_is_given_up() {
    let authority = Authority::new("broker CA");
    let (why, _) = meet(Act::Close, &authority).await;
    assert!(matches!(why, Trouble::TlsClosed(_)), "{why:?}");
    let since = Instant::now();
    let (why, heard) = meet(Act::Silence, &authority).await;
    assert!(matches!(why, Trouble::TlsTimeout), "{why:?}");
    assert!(!has_secret(&heard));
    assert!(since.elapsed() < Duration::from_secs(30));
}

/// The real certificate and no AMQP: the worst that a hung broker does. lapin waits in a thread of its own, which must
/// not outlive the attempt.
#[tokio::test]
async fn a_broker_that_hangs_in_the_amqp_handshake_is_given_up_and_leaves_no_thread() {
    let authority = Authority::new("broker CA");
    let server = authority.identity(&["127.0.0.1"]).server();
    let since = Instant::now();
    for text in [b"".as_slice(), HALF_A_START] {
        let (why, heard) = meet(Act::Tls(server.clone(), text), &authority).await;
        assert!(matches!(why, Trouble::AmqpTimeout), "{why:?} after {text:?}");
        assert!(heard.starts_with(b"AMQP") && !has_secret(&heard));
    }
    assert!(since.elapsed() < Duration::from_secs(60));
    // The other tests of this file have theirs too, for a while.
    while lapin_threads() > 0 {
        assert!(since.elapsed() < Duration::from_secs(120), "{} threads are left", lapin_threads());
        // Between two looks at the condition; the deadline is above.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn amqp_that_makes_no_sense_is_refused() {
    let authority = Authority::new("broker CA");
    let server = authority.identity(&["127.0.0.1"]).server();
    for text in [
        AMQP_HEADER,
        b"\x01\0\0\0\0\0\x04\0\x0a\xff\xff\xce",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let (why, heard) = meet(Act::Tls(server.clone(), text), &authority).await;
        assert!(matches!(why, Trouble::Amqp(_) | Trouble::AmqpTimeout), "{why:?} after {text:?}");
        assert!(!has_secret(&heard));
    }
}

fn lapin_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("proc");
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("lapin")).count()
}
