//! Whom a custodian's host has to reach, and at which addresses.
//!
//! What lives here: the names in the configuration and on the command line, looked up once. What does not: how rules are
//! written.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::str::FromStr;

use holdfast_core::id::{ClusterName, NodeName, Principal};
use holdfast_edge::broker::BrokerUrl;
use holdfast_edge::config::{ConfigError, ConfigFile, Spanned};
use holdfast_edge::{pushgateway, vault};
use serde::Deserialize;

/// The port of time servers.
const NTP: u16 = 123;

/// What of a custodian's configuration matters here; the rest is the custodian's.
#[derive(Deserialize)]
pub(super) struct Configured {
    id: Principal,
    broker: Option<Broker>,
    metrics: Option<Metrics>,
    clusters: BTreeMap<ClusterName, Cluster>,
}

#[derive(Deserialize)]
struct Broker {
    url: Spanned<String>,
}

#[derive(Deserialize)]
struct Metrics {
    pushgateway: Option<Spanned<String>>,
}

#[derive(Deserialize)]
struct Cluster {
    nodes: BTreeMap<NodeName, Node>,
}

#[derive(Deserialize)]
struct Node {
    url: Spanned<String>,
}

impl Configured {
    /// Whose configuration it is.
    pub(super) fn id(&self) -> String {
        self.id.to_string()
    }
}

/// A host's name, or its address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Host(String);

/// What is no host's name and no address.
#[derive(Debug, thiserror::Error)]
#[error("neither a host's name nor an address; a port belongs to --also alone")]
pub(super) struct HostError;

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        // 253: the longest name there can be.
        let name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let is_name = (1..=253).contains(&text.len()) && text.chars().all(name) && !text.starts_with('-');
        if is_name || text.parse::<IpAddr>().is_ok() { Ok(Self(text.to_owned())) } else { Err(HostError) }
    }
}

/// A host and a port of it.
#[derive(Debug, Clone)]
pub(super) struct Service {
    host: Host,
    port: u16,
}

/// What is no host with a port.
#[derive(Debug, thiserror::Error)]
#[error("write HOST:PORT, and an IPv6 address in brackets")]
pub(super) struct ServiceError;

impl FromStr for Service {
    type Err = ServiceError;

    fn from_str(text: &str) -> Result<Self, ServiceError> {
        let (host, port) = text.rsplit_once(':').ok_or(ServiceError)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        // Without brackets it is not known where an IPv6 address ends.
        if bare.is_none() && host.contains(':') {
            return Err(ServiceError);
        }
        let host = bare.unwrap_or(host).parse().map_err(|_| ServiceError)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(ServiceError)?;
        Ok(Self { host, port })
    }
}

/// By what a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

/// Whose traffic it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whose {
    /// The custodian's own process.
    Custodian,
    /// The host's.
    Host,
}

/// One whom the host has to reach.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Peer {
    pub(super) what: String,
    pub(super) host: String,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    pub(super) whose: Whose,
    /// In the order of their kinds; empty until they are looked up.
    pub(super) addresses: Vec<IpAddr>,
}

impl Peer {
    /// Whether it is known by a name, which may get another address.
    pub(super) fn has_name(&self) -> bool {
        self.host.parse::<IpAddr>().is_err()
    }
}

/// All whom the host has to reach.
#[derive(Debug)]
pub(super) struct Peers(Vec<Peer>);

/// Why somebody has no address.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeersError {
    /// The resolver says so.
    #[error(
        "the name {host} ({what}) cannot be looked up: {source}; without an address there is no rule for it: mend the name, or write its address in its place"
    )]
    LookUp {
        /// The name.
        host: String,
        /// Whose it is.
        what: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// It has none.
    #[error("the name {host} ({what}) has no address: mend it, or write an address in its place")]
    None {
        /// The name.
        host: String,
        /// Whose it is.
        what: String,
    },
}

impl Peers {
    /// Those in the custodian's configuration.
    pub(super) fn of(file: &ConfigFile, configured: &Configured) -> Result<Self, ConfigError> {
        let mut peers = Self(Vec::new());
        for (cluster, section) in &configured.clusters {
            for (name, node) in &section.nodes {
                let address = vault::host_and_port(node.url.get_ref()).map_err(|e| file.refuse(&node.url, e))?;
                peers.add(format!("{name} of {cluster}"), address, Protocol::Tcp, Whose::Custodian);
            }
        }
        if let Some(Broker { url }) = &configured.broker {
            let address: BrokerUrl = url.get_ref().parse().map_err(|e| file.refuse(url, e))?;
            let address = (address.host().to_owned(), address.port());
            peers.add("the broker".to_owned(), address, Protocol::Tcp, Whose::Custodian);
        }
        if let Some(url) = configured.metrics.as_ref().and_then(|metrics| metrics.pushgateway.as_ref()) {
            let address = pushgateway::host_and_port(url.get_ref()).map_err(|e| file.refuse(url, e))?;
            peers.add("the Pushgateway".to_owned(), address, Protocol::Tcp, Whose::Custodian);
        }
        Ok(peers)
    }

    /// And these, of the host's.
    pub(super) fn also(&mut self, services: &[Service]) {
        for Service { host, port } in services {
            self.add("by --also".to_owned(), (host.0.clone(), *port), Protocol::Tcp, Whose::Host);
        }
    }

    /// And those whom the host has its time from.
    pub(super) fn time(&mut self, servers: &[Host]) {
        for Host(host) in servers {
            self.add("a time server".to_owned(), (host.clone(), NTP), Protocol::Udp, Whose::Host);
        }
    }

    /// Whether somebody is known by a name.
    pub(super) fn has_names(&self) -> bool {
        self.0.iter().any(Peer::has_name)
    }

    /// The same, with their addresses of this moment.
    pub(super) fn look_up(self, ask: &dyn Fn(&str) -> io::Result<Vec<IpAddr>>) -> Result<Vec<Peer>, PeersError> {
        let mut known = BTreeMap::new();
        let mut peers = self.0;
        for peer in &mut peers {
            let (host, what) = (peer.host.clone(), peer.what.clone());
            let addresses: &Vec<IpAddr> = match known.entry(host.clone()) {
                std::collections::btree_map::Entry::Occupied(before) => before.into_mut(),
                std::collections::btree_map::Entry::Vacant(new) => {
                    let answer = match host.parse() {
                        Ok(address) => Ok(vec![address]),
                        Err(_) => ask(&host),
                    };
                    let answer = answer.map_err(|source| PeersError::LookUp {
                        host: host.clone(),
                        what: what.clone(),
                        source,
                    })?;
                    let distinct: BTreeSet<_> = answer.into_iter().collect();
                    new.insert(distinct.into_iter().collect())
                }
            };
            if addresses.is_empty() {
                return Err(PeersError::None { host, what });
            }
            peer.addresses = addresses.clone();
        }
        peers.sort();
        Ok(peers)
    }

    fn add(&mut self, what: String, (host, port): (String, u16), protocol: Protocol, whose: Whose) {
        self.0.push(Peer { what, host, protocol, port, whose, addresses: Vec::new() });
    }
}

/// What the system's resolver knows of a name.
pub(super) fn addresses(host: &str) -> io::Result<Vec<IpAddr>> {
    Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}
