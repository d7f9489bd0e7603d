//! Who a node is, from the custodian's own configuration, and the connections that prove it.
//!
//! An address comes from here and never from a message. What does not live here: what is asked on a connection.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::id::{ClusterId, NodeName};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use sha2::{Digest, Sha256};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::connection::{Connection, Handshake};
use super::hello::Watched;
use super::tickets::{ConnectionTickets, Ticket};
use crate::tls::{self, PeerRefusal, SpkiPin, TlsError};

/// The port of a Vault's API where the URL names none.
pub const DEFAULT_PORT: u16 = 8200;

/// How many addresses of a name are tried: IPv4 and IPv6, twice over. Each gets its part of the deadline.
const ADDRESSES_MAX: usize = 4;

/// The longest URL that is accepted, in bytes: a host name has at most 253.
const URL_MAX: usize = 300;

/// How long each step with a node may take. A node that is stopped, overloaded or hostile answers slowly or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// From the look-up of the name to the end of the handshake: 2 ms on a local network, under 1 s around the world.
    pub connect: Duration,
    /// From a request to the end of its answer. A status can wait 2 s while the node is being sealed (FACTS: 1.9 s seen).
    pub answer: Duration,
    /// From the share to the end of the answer. The last share's answer waits until the node has opened its storage, and
    /// giving up does not withdraw the share.
    pub submit: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), answer: Duration::from_secs(5), submit: Duration::from_secs(15) }
    }
}

/// Why the configuration does not name a node. The operator's fault, always.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not https.
    #[error("{0:?} is not an https URL: a share never travels without TLS, write https://HOST:PORT")]
    NotHttps(String),
    /// A user or password in it.
    #[error(
        "the URL has a user or password in it (before the '@'), which a Vault does not use: write https://HOST:PORT"
    )]
    UserInfo,
    /// A path, query or fragment.
    #[error("{0:?} has more than a host and a port: write https://HOST:PORT")]
    Path(String),
    /// The host is neither a DNS name nor an IP address.
    #[error("{0:?} is neither a host name nor an IP address")]
    Host(String),
    /// The port is not a number from 1 to 65535.
    #[error("{0:?} is not a port: 1 to 65535")]
    Port(String),
    /// The CA file or a pin cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host's name has no address.
    #[error("the name {host:?} cannot be resolved: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Nobody answers, or the connection was refused or cut.
    #[error("no TCP connection to {address}: {source}")]
    Tcp {
        /// Host and port.
        address: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It took longer than [`Deadlines::connect`].
    #[error("no TLS connection to {address} within {}", seconds(*deadline))]
    Deadline {
        /// Host and port.
        address: String,
        /// The deadline.
        deadline: Duration,
    },
    /// Somebody answers, but does not prove that it is the node.
    #[error("{address} is not accepted as node {node}: {refusal}")]
    Identity {
        /// Host and port.
        address: String,
        /// The node that was expected there.
        node: NodeName,
        /// What is wrong.
        refusal: PeerRefusal,
    },
    /// The connection broke during the handshake.
    #[error("{address} ended the TLS handshake: {source}")]
    Handshake {
        /// Host and port.
        address: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ConnectError {
    /// What is wrong with the peer, if somebody did answer and was not accepted: an impostor, or a wrong configuration.
    pub fn refusal(&self) -> Option<&PeerRefusal> {
        match self {
            Self::Identity { refusal, .. } => Some(refusal),
            _ => None,
        }
    }

    /// Whether the host answered that nobody listens there.
    pub fn nobody_listens(&self) -> bool {
        matches!(self, Self::Tcp { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// Seconds as a person reads them.
pub(super) fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f32())
}

/// One node as it is configured: where it is, and how it proves that it is there.
///
/// Tickets work only with the `NodeIdentity` (or a clone of it) that obtained them. So whoever reads its configuration again
/// keeps the old value where the new one equals it.
#[derive(Clone)]
pub struct NodeIdentity {
    cluster: ClusterId,
    node: NodeName,
    host: String,
    port: u16,
    server_name: ServerName<'static>,
    pinned: bool,
    proof: [u8; 32],
    tls: ClientConfig,
    deadlines: Deadlines,
}

impl NodeIdentity {
    /// The node at `url`, whose chain must end in `ca_pem` and whose key must be one of `pins`, if there are any.
    pub fn new(
        cluster: ClusterId,
        node: NodeName,
        url: &str,
        ca_pem: &[u8],
        pins: &[SpkiPin],
    ) -> Result<Self, IdentityError> {
        let (host, port, server_name) = parse_url(url)?;
        let mut tls = tls::client_config(ca_pem, pins)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut proof = Sha256::new();
        proof.update(Sha256::digest(ca_pem));
        pins.iter().for_each(|pin| proof.update(pin));
        let proof = proof.finalize().into();
        let pinned = !pins.is_empty();
        Ok(Self { cluster, node, host, port, server_name, pinned, proof, tls, deadlines: Deadlines::default() })
    }

    /// The same node with other deadlines. Tickets of the one work with the other.
    pub fn with_deadlines(self, deadlines: Deadlines) -> Self {
        Self { deadlines, ..self }
    }

    /// The cluster that the node belongs to.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The node's name.
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// The host.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port, as in the header `Host`.
    pub fn address(&self) -> String {
        match self.server_name {
            ServerName::IpAddress(ref ip) if matches!(IpAddr::from(*ip), IpAddr::V6(_)) => {
                format!("[{}]:{}", self.host, self.port)
            }
            _ => format!("{}:{}", self.host, self.port),
        }
    }

    /// What its TLS has to be.
    pub(crate) fn tls(&self) -> &ClientConfig {
        &self.tls
    }

    /// Whether only keys that the configuration names are accepted.
    pub fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// The deadlines in force.
    pub fn deadlines(&self) -> Deadlines {
        self.deadlines
    }

    /// A new connection to the node. With a ticket the handshake may be resumed; whether it was offered at all, the
    /// connection tells. The ticket is spent, also if this fails.
    pub async fn connect(&self, mut offer: Option<Ticket>) -> Result<Connection, ConnectError> {
        self.connect_offering(&mut offer).await
    }

    /// The same, with a ticket that is spent only when somebody takes the connection: until then it stays where it is.
    pub async fn connect_offering(&self, offer: &mut Option<Ticket>) -> Result<Connection, ConnectError> {
        let deadline = Instant::now() + self.deadlines.connect;
        let late = || ConnectError::Deadline { address: self.address(), deadline: self.deadlines.connect };
        let stream = self.reach(deadline).await?;
        // A request is one small write, and every millisecond counts: do not wait to fill a packet.
        stream.set_nodelay(true).map_err(|source| ConnectError::Tcp { address: self.address(), source })?;
        let tickets = Arc::new(ConnectionTickets::new(offer.take()));
        let mut tls = self.tls.clone();
        tls.resumption = Resumption::store(Arc::clone(&tickets) as _);
        let handshake = TlsConnector::from(Arc::new(tls)).connect(self.server_name.clone(), Watched::new(stream));
        let stream = timeout_at(deadline, handshake).await.map_err(|_| late())?.map_err(|e| self.not_accepted(e))?;
        let handshake = match stream.get_ref().1.handshake_kind() {
            Some(rustls::HandshakeKind::Full | rustls::HandshakeKind::FullWithHelloRetryRequest) => Handshake::Full,
            Some(rustls::HandshakeKind::Resumed) => Handshake::Resumed,
            None => return Err(self.not_accepted(io::Error::other("the handshake is not complete"))),
        };
        let connected = Connection::new(self.clone(), stream, handshake, tickets);
        timeout_at(deadline, connected).await.map_err(|_| late())?.map_err(|e| self.not_accepted(io::Error::other(e)))
    }

    /// A TCP connection to the first address that takes one. Each of several addresses gets its part of the time, so that
    /// a dead first one does not use up the deadline.
    async fn reach(&self, deadline: Instant) -> Result<TcpStream, ConnectError> {
        let late = || ConnectError::Deadline { address: self.address(), deadline: self.deadlines.connect };
        let unresolved = |source| ConnectError::Resolve { host: self.host.clone(), source };
        let found = timeout_at(deadline, lookup_host((self.host.as_str(), self.port))).await.map_err(|_| late())?;
        let addresses: Vec<_> = found.map_err(unresolved)?.take(ADDRESSES_MAX).collect();
        let mut last = unresolved(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
        for (i, address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let part = Instant::now() + left / u32::try_from(addresses.len() - i).unwrap_or(1);
            last = match timeout_at(part, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(source)) => ConnectError::Tcp { address: self.address(), source },
                Err(_) => late(),
            };
        }
        Err(last)
    }

    fn not_accepted(&self, error: io::Error) -> ConnectError {
        let address = self.address();
        match tls::refusal(&error) {
            Some(refusal) => ConnectError::Identity { address, node: self.node.clone(), refusal },
            None => ConnectError::Handshake { address, source: error },
        }
    }
}

/// Equal if they name the same node, proven the same way: then the one's tickets are worth keeping for the other.
impl PartialEq for NodeIdentity {
    fn eq(&self, other: &Self) -> bool {
        (self.cluster, &self.node, &self.host, self.port, self.proof)
            == (other.cluster, &other.node, &other.host, other.port, other.proof)
    }
}

impl Eq for NodeIdentity {}

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeIdentity")
            .field("cluster", &self.cluster)
            .field("node", &self.node)
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}

/// Reads `https://HOST[:PORT][/]` and nothing else. Not by a general URL parser: that one forgets a port that is https's own,
/// and reads `0x7f.1` as an address.
/// The host and the port that a node's URL names, as a connection would take them; an IPv6 address without brackets.
pub fn host_and_port(url: &str) -> Result<(String, u16), IdentityError> {
    parse_url(url).map(|(host, port, _)| (host, port))
}

fn parse_url(url: &str) -> Result<(String, u16, ServerName<'static>), IdentityError> {
    let shown = || url.chars().take(URL_MAX).collect::<String>();
    let rest = match url.get(..8) {
        Some(scheme) if scheme.eq_ignore_ascii_case("https://") && url.len() <= URL_MAX => &url[8..],
        // What cannot be parsed may have a password in it: an error shows the scheme and no more.
        _ => return Err(IdentityError::NotHttps(shown().split('@').next_back().unwrap_or_default().to_owned())),
    };
    if rest.contains('@') {
        return Err(IdentityError::UserInfo);
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '\\']) {
        return Err(IdentityError::Path(shown()));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => v6.split_once(']').ok_or_else(|| IdentityError::Host(authority.to_owned()))?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => DEFAULT_PORT,
        digits => digits
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .filter(|port| *port != 0)
            .ok_or_else(|| IdentityError::Port(port.trim_start_matches(':').to_owned()))?,
    };
    let refused = || IdentityError::Host(host.to_owned());
    let server_name = ServerName::try_from(host.to_owned()).map_err(|_| refused())?;
    let is_v6 = matches!(server_name, ServerName::IpAddress(rustls_pki_types::IpAddr::V6(_)));
    if is_v6 == authority.starts_with('[') { Ok((host.to_owned(), port, server_name)) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_host_and_a_port() {
        for (url, host, port) in [
            ("https://vault-1.example:8200", "vault-1.example", 8200),
            ("https://vault-1.example", "vault-1.example", DEFAULT_PORT),
            ("https://vault-1.example:443/", "vault-1.example", 443),
            ("HTTPS://127.0.0.1:1", "127.0.0.1", 1),
            ("https://[::1]:8200", "::1", 8200),
            ("https://[fe80::1]", "fe80::1", DEFAULT_PORT),
        ] {
            let (found, number, _) = parse_url(url).expect(url);
            assert_eq!((found.as_str(), number), (host, port));
        }
    }

    #[test]
    fn refuses_everything_else_by_name() {
        use IdentityError as E;
        for (url, right) in [
            ("http://vault-1.example:8200", (|e| matches!(e, E::NotHttps(_))) as fn(&E) -> bool),
            ("vault-1.example:8200", |e| matches!(e, E::NotHttps(_))),
            ("", |e| matches!(e, E::NotHttps(_))),
            ("httpsé//x", |e| matches!(e, E::NotHttps(_))),
            ("https://user:secret@vault-1.example", |e| matches!(e, E::UserInfo)),
            ("https://vault-1.example/v1", |e| matches!(e, E::Path(_))),
            ("https://vault-1.example?x", |e| matches!(e, E::Path(_))),
            ("https://vault-1.example#x", |e| matches!(e, E::Path(_))),
            ("https://", |e| matches!(e, E::Host(_))),
            ("https://va ult", |e| matches!(e, E::Host(_))),
            ("https://*.example", |e| matches!(e, E::Host(_))),
            ("https://[::1", |e| matches!(e, E::Host(_))),
            ("https://[vault]", |e| matches!(e, E::Host(_))),
            ("https://::1", |e| matches!(e, E::Port(_) | E::Host(_))),
            ("https://vault-1.example:", |e| matches!(e, E::Port(_))),
            ("https://vault-1.example:0", |e| matches!(e, E::Port(_))),
            ("https://vault-1.example:65536", |e| matches!(e, E::Port(_))),
            ("https://vault-1.example:+1", |e| matches!(e, E::Port(_))),
            ("https://[::1]x", |e| matches!(e, E::Port(_))),
        ] {
            let error = parse_url(url).map(|(host, ..)| host).expect_err(url);
            assert!(right(&error), "{url}: {error}");
            assert!(!error.to_string().contains("secret"));
        }
        let long = format!("https://{}", "a".repeat(URL_MAX));
        assert!(parse_url(&long).is_err());
        assert!(!parse_url("http://user:secret@host").expect_err("http").to_string().contains("secret"));
    }

    #[test]
    fn equal_where_tickets_may_be_kept() {
        let ca = rcgen::generate_simple_self_signed(["ca".to_owned()]).expect("a certificate").cert.pem();
        let other = rcgen::generate_simple_self_signed(["ca".to_owned()]).expect("a certificate").cert.pem();
        let make = |url: &str, ca: &str, pins: &[SpkiPin]| {
            let node = "vault-1".parse().expect("a name");
            NodeIdentity::new(ClusterId::from_bytes([1; 16]), node, url, ca.as_bytes(), pins).expect("good")
        };
        let node = make("https://v:1", &ca, &[]);
        assert_eq!(node, make("https://v:1/", &ca, &[]));
        for changed in
            [make("https://v:2", &ca, &[]), make("https://v:1", &other, &[]), make("https://v:1", &ca, &[[1; 32]])]
        {
            assert_ne!(node, changed);
        }
        assert_eq!(make("https://[::1]:5", &ca, &[]).address(), "[::1]:5");
    }
}
