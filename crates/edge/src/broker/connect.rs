//! Connecting: name, TCP, TLS, AMQP, each with a deadline of its own and an error that says whose fault it is.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::auth::AuthProvider;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::types::{LongString, ShortString};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, ErrorKind};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::url::{BrokerUrl, Password};
use super::wire::{Kit, Switch, Wire};
use super::{BrokerSettings, FRAME_MAX, HEARTBEAT};
use crate::tls::{self, PeerRefusal};

/// From the look-up of the name to an open TCP connection. A packet lost twice is sent again within it.
const TCP_DEADLINE: Duration = Duration::from_secs(5);
/// The TLS handshake: two round trips and a signature.
const TLS_DEADLINE: Duration = Duration::from_secs(5);
/// The AMQP handshake: four round trips, and a broker that has just started or delays refused logins.
const AMQP_DEADLINE: Duration = Duration::from_secs(10);
/// The longest text of the broker's that is kept, in characters. It goes into logs.
const TEXT_MAX: usize = 300;

/// Why there is no connection to the broker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// The name of the broker's host cannot be looked up.
    #[error("cannot look up the broker's host {host}: {source}")]
    Resolve {
        /// The host.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Nobody listens, or a network is in the way.
    #[error("cannot reach the broker at {address}: {source}: is it running?")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The look-up or the TCP connection took longer than its deadline.
    #[error("the broker at {address} did not take the connection within {} s", TCP_DEADLINE.as_secs())]
    TcpTimeout {
        /// Host and port.
        address: String,
    },
    /// The TLS handshake took longer than its deadline.
    #[error("the broker took the connection and did not finish the TLS handshake within {} s", TLS_DEADLINE.as_secs())]
    TlsTimeout,
    /// Whatever answers does not speak TLS. Nothing was sent to it but a greeting.
    #[error("what answers at {address} does not speak TLS: is this the plaintext port? No password was sent")]
    Plaintext {
        /// Host and port.
        address: String,
    },
    /// It speaks TLS, and is not who it should be: another CA, another name, another key.
    #[error("the broker at {address} was not accepted: {refusal}")]
    NotTheBroker {
        /// Host and port.
        address: String,
        /// Why.
        refusal: PeerRefusal,
    },
    /// The broker closed the connection during the TLS handshake.
    #[error("the broker closed the connection during the TLS handshake: {0}")]
    TlsClosed(io::Error),
    /// The AMQP handshake took longer than its deadline.
    #[error("the broker did not finish the AMQP handshake within {} s", AMQP_DEADLINE.as_secs())]
    AmqpTimeout,
    /// The broker does not know the user, or the password is another.
    #[error("the broker refused the login of {username}: check username, password_file and the broker's definitions")]
    Login {
        /// The user.
        username: String,
    },
    /// The user may not use the virtual host, or there is none.
    #[error("the broker refused {username} the virtual host {vhost}: import the definitions ({text})")]
    Vhost {
        /// The user.
        username: String,
        /// The virtual host.
        vhost: String,
        /// What the broker said.
        text: String,
    },
    /// An operation took longer than its deadline: the connection is given up.
    #[error("the broker did not answer {what} within {} s", .after.as_secs())]
    Silent {
        /// What it was asked.
        what: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// The connection was up and broke.
    #[error("the connection to the broker was lost: {0}")]
    Lost(String),
    /// Another error of AMQP.
    #[error("the broker refused: {0}")]
    Amqp(String),
}

/// Connects, logs in, and returns the connection and the switch that ends it.
pub(super) async fn connect(settings: &BrokerSettings) -> Result<(Connection, Switch), Trouble> {
    log_in(settings, greet(settings).await?).await
}

/// A TLS connection to the broker, which has proven who it is. Nothing has been said to it yet.
pub(super) async fn greet(settings: &BrokerSettings) -> Result<TlsStream<TcpStream>, Trouble> {
    shake_hands(&settings.url, dial(&settings.url).await?, &settings.tls).await
}

/// Logs in over a connection from [`greet`].
pub(super) async fn log_in(
    settings: &BrokerSettings,
    tls: TlsStream<TcpStream>,
) -> Result<(Connection, Switch), Trouble> {
    let (wire, switch) = Wire::new(tls);
    // Taken once: should lapin ask again, it gets an error, never a second connection that nobody timed.
    let wire = Mutex::new(Some(wire));
    let hand_over = async move |_: AMQPUri, _: async_rs::Runtime<Kit>| {
        let wire = wire.lock().unwrap_or_else(PoisonError::into_inner).take();
        let wire = wire.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted))?;
        Ok(AsyncTcpStream::Plain(wire))
    };
    let properties = ConnectionProperties::default()
        .with_connection_name(LongString::from(settings.connection_name.clone()))
        .with_auth_provider(Plain { username: settings.username.clone(), password: settings.password.clone() });
    let runtime = async_rs::Runtime::new(Kit::current());
    let opening = Connection::connector(uri(settings), runtime, hand_over, properties);
    // Given up here or by the caller, the switch falls and takes the connection with it.
    match timeout(AMQP_DEADLINE, opening).await {
        Ok(Ok(connection)) => Ok((connection, switch)),
        Ok(Err(error)) => Err(refusal(&error, settings)),
        Err(_) => Err(Trouble::AmqpTimeout),
    }
}

async fn dial(url: &BrokerUrl) -> Result<TcpStream, Trouble> {
    let address = address(url);
    let attempt = async {
        let found = tokio::net::lookup_host((url.host(), url.port())).await;
        let found = found.map_err(|source| Trouble::Resolve { host: url.host().to_owned(), source })?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for candidate in found {
            match TcpStream::connect(candidate).await {
                Ok(stream) => {
                    // A failure costs milliseconds, not correctness.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(Trouble::Unreachable { address: address.clone(), source: last })
    };
    match timeout(TCP_DEADLINE, attempt).await {
        Ok(dialled) => dialled,
        Err(_) => Err(Trouble::TcpTimeout { address }),
    }
}

async fn shake_hands(
    url: &BrokerUrl,
    tcp: TcpStream,
    config: &Arc<rustls::ClientConfig>,
) -> Result<TlsStream<TcpStream>, Trouble> {
    let handshake = TlsConnector::from(config.clone()).connect(url.server_name(), tcp);
    match timeout(TLS_DEADLINE, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(tls_trouble(error, url)),
        Err(_) => Err(Trouble::TlsTimeout),
    }
}

fn tls_trouble(error: io::Error, url: &BrokerUrl) -> Trouble {
    let address = address(url);
    match tls::refusal(&error) {
        Some(PeerRefusal::NotTls) => Trouble::Plaintext { address },
        Some(refusal) => Trouble::NotTheBroker { address, refusal },
        None => Trouble::TlsClosed(error),
    }
}

fn refusal(error: &lapin::Error, settings: &BrokerSettings) -> Trouble {
    let username = || settings.username.clone();
    if let ErrorKind::ProtocolError(refused) = error.kind() {
        match refused.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => return Trouble::Login { username: username() },
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
                let vhost = settings.url.vhost().to_owned();
                let text = printable(refused.get_message().as_str());
                return Trouble::Vhost { username: username(), vhost, text };
            }
            _ => {}
        }
    }
    Trouble::Amqp(printable(&error.to_string()))
}

fn address(url: &BrokerUrl) -> String {
    format!("{}:{}", url.host(), url.port())
}

fn uri(settings: &BrokerSettings) -> AMQPUri {
    AMQPUri {
        scheme: AMQPScheme::AMQPS,
        authority: AMQPAuthority {
            // The login goes by `Plain`, so that the password is in no text that is kept or shown.
            userinfo: AMQPUserInfo { username: settings.username.clone(), password: String::new() },
            host: settings.url.host().to_owned(),
            port: settings.url.port(),
        },
        vhost: settings.url.vhost().to_owned(),
        query: AMQPQueryString {
            frame_max: Some(FRAME_MAX),
            heartbeat: Some(HEARTBEAT.as_secs().try_into().unwrap_or(u16::MAX)),
            ..AMQPQueryString::default()
        },
    }
}

/// Text of a peer's, cut to a length and without control characters, fit for a log.
pub(super) fn printable(text: &str) -> String {
    text.chars().take(TEXT_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// SASL PLAIN, with the password fetched when the broker asks for it.
struct Plain {
    username: String,
    password: Arc<Password>,
}

impl AuthProvider for Plain {
    fn mechanism(&self) -> ShortString {
        ShortString::from("PLAIN")
    }

    fn auth_starter(&self) -> Result<LongString, String> {
        Ok(LongString::from(self.password.sasl_plain(&self.username)))
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plain(…)")
    }
}
