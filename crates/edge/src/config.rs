//! Configuration files: TOML in, values out, and a refusal that names file, line, what is wrong and what to do.
//!
//! What lives here: what custodian, sentinel and operator share, such as durations, keys, nodes and the broker, and the
//! loading of the files that a configuration names. What does not: each program's own keys. A program has a struct of
//! its own that refuses unknown keys, with [`Spanned`] around every value that can still turn out wrong.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::ceremony::{MANIFEST_MAX, Manifest};
use holdfast_core::id::{ClusterId, ClusterName, NodeName, Principal};
use holdfast_core::trust::{ALLOWED_SIGNERS_MAX, AllowedSigners, Namespace};
use serde::Deserialize;
use serde::de::DeserializeOwned;
pub use toml::Spanned;

use crate::broker::{BrokerUrl, PASSWORD_MAX, Password};
use crate::files::{self, FileError};
#[cfg(feature = "operator")]
use crate::keys::OperatorKey;
use crate::keys::{Sign, SigningKey};
use crate::listen::ServerTls;
use crate::tls::{self, CA_PEM_MAX, SpkiPin};
use crate::vault::NodeIdentity;

/// The status with which a program ends when its configuration is refused: `EX_CONFIG` of sysexits.h.
pub const EXIT_CONFIG: u8 = 78;

/// The largest configuration file that is read, in bytes: hundreds of nodes fit.
const CONFIG_MAX: usize = 256 * 1024;

/// The most clusters of one party, and the most nodes of one cluster. Each node is a task and a few connections.
const TABLE_MAX: usize = 64;

/// Why a configuration is not used. It prints as `FILE:LINE: what is wrong, and what to do`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The configuration file.
    pub file: PathBuf,
    /// The line that is wrong, from 1, where it is one.
    pub line: Option<usize>,
    /// What is wrong, and what to do.
    pub what: String,
}

impl Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.what)
    }
}

/// A configuration file that was read.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    text: String,
}

impl ConfigFile {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let whole = |what: String| ConfigError { file: path.to_owned(), line: None, what };
        let bytes = files::read_bounded(path, CONFIG_MAX).map_err(|error| match error {
            FileError::Missing { .. } => whole("does not exist here: give its path with --config".to_owned()),
            other => whole(other.to_string()),
        })?;
        let text = String::from_utf8(bytes).map_err(|e| {
            let valid = e.utf8_error().valid_up_to();
            let line = line_of(e.as_bytes(), valid);
            ConfigError { line: Some(line), ..whole("is not UTF-8 text: write it again as plain text".to_owned()) }
        })?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// Reads the file's content as TOML.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(&self.text).map_err(|error: toml::de::Error| ConfigError {
            file: self.path.clone(),
            line: error.span().map(|span| line_of(self.text.as_bytes(), span.start)),
            what: error.message().trim_end().replace('\n', " "),
        })
    }

    /// A refusal of the value at this place.
    pub fn refuse<T>(&self, at: &Spanned<T>, what: impl Display) -> ConfigError {
        let line = line_of(self.text.as_bytes(), at.span().start);
        ConfigError { file: self.path.clone(), line: Some(line), what: what.to_string() }
    }

    /// A refusal that belongs to no line, such as of something that is missing.
    pub fn refuse_whole(&self, what: impl Display) -> ConfigError {
        ConfigError { file: self.path.clone(), line: None, what: what.to_string() }
    }

    /// The path that a value means: relative paths start at the configuration file's folder.
    pub fn resolve(&self, path: &Spanned<PathBuf>) -> PathBuf {
        match self.path.parent() {
            Some(folder) => folder.join(path.get_ref()),
            None => path.get_ref().clone(),
        }
    }

    /// A span of time, written as a whole number and `ms`, `s`, `m` or `h`.
    pub fn duration(
        &self,
        text: &Spanned<String>,
        range: std::ops::RangeInclusive<Duration>,
    ) -> Result<Duration, ConfigError> {
        let duration = parse_duration(text.get_ref()).ok_or_else(|| {
            let what =
                format!("{:?} is not a time: write a whole number and ms, s, m or h, like \"2m\"", text.get_ref());
            self.refuse(text, what)
        })?;
        if range.contains(&duration) {
            return Ok(duration);
        }
        let (first, last) = (range.start(), range.end());
        Err(self.refuse(text, format!("{:?} is not between {first:?} and {last:?}", text.get_ref())))
    }

    /// The content of a file that anybody may read.
    pub fn read_file(&self, path: &Spanned<PathBuf>, max: usize) -> Result<Vec<u8>, ConfigError> {
        files::read_bounded(&self.resolve(path), max).map_err(|e| self.refuse(path, e))
    }

    /// The party's signing key.
    pub fn signing_key(&self, path: &Spanned<PathBuf>) -> Result<SigningKey, ConfigError> {
        SigningKey::load(&self.resolve(path)).map_err(|e| self.refuse(path, e))
    }

    /// An operator's key, wherever it lives.
    #[cfg(feature = "operator")]
    pub fn operator_key(&self, path: &Spanned<PathBuf>) -> Result<OperatorKey, ConfigError> {
        OperatorKey::load(&self.resolve(path), crate::keys::agent_socket()).map_err(|e| self.refuse(path, e))
    }

    /// The trust root.
    pub fn allowed_signers(&self, path: &Spanned<PathBuf>) -> Result<AllowedSigners, ConfigError> {
        let bytes = self.read_file(path, ALLOWED_SIGNERS_MAX + 1)?;
        AllowedSigners::parse(bytes).map_err(|e| self.refuse(path, self.about(path, e)))
    }

    /// Refuses a signing key that the trust root does not list for `principal` in `namespace`: nobody would believe it.
    pub fn check_listed(
        &self,
        key: &impl Sign,
        principal: &Spanned<Principal>,
        namespace: Namespace,
        trust: &AllowedSigners,
    ) -> Result<(), ConfigError> {
        let listed = |s: &holdfast_core::trust::Signer| {
            s.principal() == principal.get_ref() && s.may_sign(namespace) && s.key() == key.public_key()
        };
        if trust.signers().any(listed) {
            return Ok(());
        }
        let (name, public) = (principal.get_ref(), key.public_key());
        // A line for this name and somebody else's key would be one key with two names.
        if let Some(other) = trust.signers().find(|s| s.principal() != name && s.key() == key.public_key()) {
            let other = other.principal();
            return Err(self.refuse(
                principal,
                format!(
                    "the signing key is {other}'s, as allowed_signers has it, and not {name}'s: write {other} here, or \
                     bring {name}'s own key"
                ),
            ));
        }
        Err(self.refuse(
            principal,
            format!(
                "allowed_signers does not list the signing key for {name} with {namespace}, so that nobody would believe \
                 what it signs: check id and signing_key, or have this line added everywhere: {name} \
                 namespaces=\"{namespace}\" {public}"
            ),
        ))
    }

    /// A CA file, checked.
    pub fn ca_cert(&self, path: &Spanned<PathBuf>) -> Result<Vec<u8>, ConfigError> {
        let pem = self.read_file(path, CA_PEM_MAX)?;
        tls::client_config(&pem, &[]).map_err(|e| self.refuse(path, self.about(path, e)))?;
        Ok(pem)
    }

    /// A cluster's manifest.
    pub fn manifest(&self, path: &Spanned<PathBuf>) -> Result<Manifest, ConfigError> {
        let bytes = self.read_file(path, MANIFEST_MAX)?;
        Manifest::parse(&bytes).map_err(|e| self.refuse(path, self.about(path, e)))
    }

    /// A cluster's nodes, by name. `ca_pem` is the content of the cluster's `ca_cert`, checked.
    pub fn nodes(
        &self,
        cluster: ClusterId,
        ca_pem: &[u8],
        nodes: &Spanned<BTreeMap<Spanned<NodeName>, NodeSection>>,
    ) -> Result<BTreeMap<NodeName, NodeConfig>, ConfigError> {
        if nodes.get_ref().is_empty() {
            return Err(
                self.refuse(nodes, "has no node: add each with its url, like vault-1 = { url = \"https://…\" }")
            );
        }
        if nodes.get_ref().len() > TABLE_MAX {
            return Err(self.refuse(nodes, format!("has more than {TABLE_MAX} nodes")));
        }
        let mut loaded = BTreeMap::new();
        for (name, section) in nodes.get_ref() {
            let pin = |text: &Spanned<String>| tls::parse_pin(text.get_ref()).map_err(|e| self.refuse(text, e));
            let pins: Vec<SpkiPin> = section.spki_sha256.iter().map(pin).collect::<Result<_, _>>()?;
            let identity = NodeIdentity::new(cluster, name.get_ref().clone(), section.url.get_ref(), ca_pem, &pins)
                .map_err(|e| self.refuse(&section.url, e))?;
            let direct = section.tls == Some(NodeTls::Direct);
            loaded.insert(name.get_ref().clone(), NodeConfig { identity: Arc::new(identity), direct });
        }
        Ok(loaded)
    }

    /// The broker and the way in, for the party `id`.
    pub fn broker(&self, section: &BrokerSection, id: &Principal) -> Result<BrokerConfig, ConfigError> {
        let BrokerSection { url, username, password_file, ca_cert, grace } = section;
        if username.get_ref() != id {
            let what = format!("the broker's user has to be the party itself, {id}: the broker checks who sends by it");
            return Err(self.refuse(username, what));
        }
        let address = url.get_ref().parse().map_err(|e| self.refuse(url, e))?;
        let password = self.password(password_file)?;
        let ca_pem = self.read_file(ca_cert, CA_PEM_MAX)?;
        let tls = tls::client_config(&ca_pem, &[]).map_err(|e| self.refuse(ca_cert, self.about(ca_cert, e)))?;
        let grace = grace.as_ref().map(|text| self.duration(text, Duration::ZERO..=GRACE_MAX)).transpose()?;
        Ok(BrokerConfig {
            url: address,
            username: username.get_ref().clone(),
            password: Arc::new(password),
            tls: Arc::new(tls),
            grace,
        })
    }

    /// Where a program listens: on this machine alone, or with TLS.
    pub fn listen(
        &self,
        listen: Option<&Spanned<String>>,
        default: &str,
        tls_cert: Option<&Spanned<PathBuf>>,
        tls_key: Option<&Spanned<PathBuf>>,
    ) -> Result<(SocketAddr, Option<ServerTls>), ConfigError> {
        let text = listen.map_or(default, |listen| listen.get_ref());
        let refuse = |what: String| match listen {
            Some(listen) => self.refuse(listen, what),
            None => self.refuse_whole(what),
        };
        let address: SocketAddr =
            text.parse().map_err(|_| refuse(format!("{text:?} is not an address and a port, like \"{default}\"")))?;
        let tls = match (tls_cert, tls_key) {
            (Some(certificate), Some(key)) => {
                let loaded = ServerTls::load(&self.resolve(certificate), &self.resolve(key));
                Some(loaded.map_err(|e| self.refuse(certificate, format!("tls_cert and tls_key: {e}")))?)
            }
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => {
                return Err(self.refuse(one, "tls_cert and tls_key belong together: name both, or neither"));
            }
        };
        if tls.is_none() && !address.ip().is_loopback() {
            return Err(refuse(format!(
                "{address} can be reached from elsewhere, and so needs TLS: set tls_cert and tls_key, or listen on 127.0.0.1"
            )));
        }
        Ok((address, tls))
    }

    /// A password, from a file of one line that nobody but its owner may read.
    pub fn password(&self, path: &Spanned<PathBuf>) -> Result<Password, ConfigError> {
        let secret = files::read_secret(&self.resolve(path), PASSWORD_MAX + 1).map_err(|e| self.refuse(path, e))?;
        Password::from_file_content(secret).map_err(|e| self.refuse(path, self.about(path, e)))
    }

    /// Refuses a table of clusters that is empty or too large.
    pub fn check_clusters<T>(&self, clusters: &Spanned<BTreeMap<Spanned<ClusterName>, T>>) -> Result<(), ConfigError> {
        match clusters.get_ref().len() {
            0 => Err(self.refuse(clusters, "has no cluster: add [clusters.NAME] with its manifest, ca_cert and nodes")),
            many if many > TABLE_MAX => Err(self.refuse(clusters, format!("has more than {TABLE_MAX} clusters"))),
            _ => Ok(()),
        }
    }

    /// Refuses two tables for one cluster.
    pub fn check_distinct<'a>(
        &self,
        clusters: impl IntoIterator<Item = (&'a Spanned<ClusterName>, ClusterId)>,
    ) -> Result<(), ConfigError> {
        let mut seen: BTreeMap<ClusterId, &ClusterName> = BTreeMap::new();
        for (name, id) in clusters {
            if let Some(other) = seen.insert(id, name.get_ref()) {
                let what =
                    format!("is the same cluster as {other} (their manifests have the id {id}): keep one of them");
                return Err(self.refuse(name, what));
            }
        }
        Ok(())
    }

    /// A message about the content of another file than the configuration's own.
    fn about(&self, path: &Spanned<PathBuf>, what: impl Display) -> String {
        format!("{}: {what}", self.resolve(path).display())
    }
}

/// Why it is not clear which cluster a person means.
#[derive(Debug, thiserror::Error)]
pub enum WhichCluster {
    /// There is none of that name.
    #[error("no cluster {name} in the configuration, which has: {known}")]
    Unknown {
        /// What was named.
        name: ClusterName,
        /// What there is.
        known: String,
    },
    /// None is named, and it is not the only one.
    #[error("the configuration has several clusters, say which with --cluster: {0}")]
    Several(String),
    /// There is none at all.
    #[error("the configuration has no cluster")]
    None,
}

/// The cluster that a command is about: the one that is named, or the only one that is configured.
pub fn one_cluster<'a, T>(
    clusters: &'a BTreeMap<ClusterName, T>,
    named: Option<&ClusterName>,
) -> Result<(&'a ClusterName, &'a T), WhichCluster> {
    let known = || clusters.keys().map(ClusterName::as_str).collect::<Vec<_>>().join(", ");
    match (named, clusters.len()) {
        (Some(name), _) => {
            let found = clusters.get_key_value(name);
            found.ok_or_else(|| WhichCluster::Unknown { name: name.clone(), known: known() })
        }
        (None, 0 | 1) => clusters.first_key_value().ok_or(WhichCluster::None),
        (None, _) => Err(WhichCluster::Several(known())),
    }
}

/// The longest that a custodian may be told to wait for the broker: longer would be no network that opens by itself.
const GRACE_MAX: Duration = Duration::from_secs(3600);

/// `[broker]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerSection {
    /// `amqps://HOST:PORT/VHOST`.
    pub url: Spanned<String>,
    /// The party's own principal.
    pub username: Spanned<Principal>,
    /// The file with the user's password, mode 0600.
    pub password_file: Spanned<PathBuf>,
    /// The CA that the broker's certificate comes from.
    pub ca_cert: Spanned<PathBuf>,
    /// How long a custodian waits for the broker before it believes in an outage. Other parties have no use for it.
    pub grace: Option<Spanned<String>>,
}

/// `[broker]`, with what it names loaded.
#[derive(Debug)]
pub struct BrokerConfig {
    /// Where the broker is.
    pub url: BrokerUrl,
    /// Who logs in there.
    pub username: Principal,
    /// With which password.
    pub password: Arc<Password>,
    /// What the broker must prove.
    pub tls: Arc<rustls::ClientConfig>,
    /// See [`BrokerSection::grace`].
    pub grace: Option<Duration>,
}

/// A node in `[clusters.NAME.nodes]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSection {
    /// `https://HOST:PORT`.
    pub url: Spanned<String>,
    /// What is between us and the node's process. Left out, it is not known to be nothing, and no ticket proves anything.
    pub tls: Option<NodeTls>,
    /// The keys that the node may have.
    #[serde(default)]
    pub spki_sha256: Vec<Spanned<String>>,
}

/// What is between us and a node's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeTls {
    /// Nothing: the node's process itself ends the TLS connection.
    Direct,
    /// A proxy or balancer ends it, and answers for others.
    Proxied,
}

/// A node, with what it names loaded.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Where it is and how it proves that it is there.
    pub identity: Arc<NodeIdentity>,
    /// Whether nothing is between us and its process.
    pub direct: bool,
}

/// The number of the line, from 1, that the byte at `at` is in.
fn line_of(text: &[u8], at: usize) -> usize {
    let before = text.get(..at).unwrap_or(text);
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u32 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number.into())),
        "s" => Some(Duration::from_secs(number.into())),
        "m" => Some(Duration::from_secs(u64::from(number) * 60)),
        "h" => Some(Duration::from_secs(u64::from(number) * 3600)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
