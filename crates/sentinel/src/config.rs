//! The sentinel's configuration: `sentinel.toml` and the files that it names, loaded and checked before anything starts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::admission::Roles;
use holdfast_core::id::{ClusterId, ClusterName, NodeName, Principal};
use holdfast_core::sight::Watch;
use holdfast_core::time::Timestamp;
use holdfast_core::trust::{AllowedSigners, Namespace};
use holdfast_core::watch::{ClusterWatch, NodeWatch, Place};
use holdfast_edge::clock;
use holdfast_edge::config::{BrokerConfig, BrokerSection, ConfigError, ConfigFile, NodeSection, Spanned};
use holdfast_edge::keys::SigningKey;
use holdfast_edge::listen::ServerTls;
use holdfast_edge::vault::NodeIdentity;
use serde::Deserialize;

/// What is done without `listen`.
const LISTEN_DEFAULT: &str = "127.0.0.1:9640";

/// What is done without `poll_interval`.
const POLL_DEFAULT: Duration = Duration::from_millis(100);

/// Polls faster than this are a load, and find nothing more: a lost connection is noticed without any.
const POLL_MIN: Duration = Duration::from_millis(20);

/// Polls slower than this miss what happens between them.
const POLL_MAX: Duration = Duration::from_secs(10);

/// How often a node that does not answer is knocked at: its custodians wait for the news.
const KNOCK: Duration = Duration::from_millis(10);

/// A sentinel's configuration, loaded.
pub(crate) struct Config {
    /// Its own name.
    pub(crate) id: Principal,
    /// The key with which it signs its events.
    pub(crate) signing_key: SigningKey,
    /// Whose word counts.
    pub(crate) allowed_signers: AllowedSigners,
    /// The broker, if there is one.
    pub(crate) broker: Option<BrokerConfig>,
    /// Where it serves.
    pub(crate) listen: SocketAddr,
    /// What it needs to serve by TLS.
    pub(crate) tls: Option<ServerTls>,
    /// Where the history is kept, if it is.
    pub(crate) database: Option<PathBuf>,
    /// What is watched.
    pub(crate) watches: BTreeMap<ClusterId, ClusterWatch>,
    /// Where the nodes are and how they prove it.
    pub(crate) nodes: BTreeMap<Place, Arc<NodeIdentity>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    id: Spanned<Principal>,
    signing_key: Spanned<PathBuf>,
    allowed_signers: Spanned<PathBuf>,
    listen: Option<Spanned<String>>,
    tls_cert: Option<Spanned<PathBuf>>,
    tls_key: Option<Spanned<PathBuf>>,
    database: Option<Spanned<PathBuf>>,
    broker: Option<BrokerSection>,
    clusters: Spanned<BTreeMap<Spanned<ClusterName>, ClusterSection>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterSection {
    manifest: Spanned<PathBuf>,
    ca_cert: Spanned<PathBuf>,
    poll_interval: Option<Spanned<String>>,
    min_unsealed: Option<Spanned<usize>>,
    #[serde(default)]
    audit_accepted: BTreeMap<Spanned<Principal>, Spanned<Timestamp>>,
    nodes: Spanned<BTreeMap<Spanned<NodeName>, NodeSection>>,
}

impl Config {
    /// Reads the configuration at `path` and every file that it names.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let source = ConfigFile::read(path)?;
        let file: File = source.parse()?;
        let signing_key = source.signing_key(&file.signing_key)?;
        let allowed_signers = source.allowed_signers(&file.allowed_signers)?;
        source.check_listed(&signing_key, &file.id, Namespace::Event, &allowed_signers)?;
        let (listen, tls) =
            source.listen(file.listen.as_ref(), LISTEN_DEFAULT, file.tls_cert.as_ref(), file.tls_key.as_ref())?;
        source.check_clusters(&file.clusters)?;
        if let Some(grace) = file.broker.as_ref().and_then(|section| section.grace.as_ref()) {
            return Err(source.refuse(grace, "grace is a custodian's setting: take it out, a sentinel never waits"));
        }
        let broker = file.broker.as_ref().map(|section| source.broker(section, file.id.get_ref())).transpose()?;

        let (mut watches, mut nodes) = (BTreeMap::new(), BTreeMap::new());
        let mut ids = Vec::new();
        for (name, section) in file.clusters.get_ref() {
            let cluster = Cluster::load(&source, name.get_ref(), section, &allowed_signers)?;
            ids.push((name, cluster.id));
            watches.insert(cluster.id, cluster.watch);
            let place = |node| Place { cluster: cluster.id, node };
            nodes.extend(cluster.nodes.into_iter().map(|(node, identity)| (place(node), identity)));
        }
        source.check_distinct(ids)?;
        let database = file.database.as_ref().map(|path| source.resolve(path));
        let id = file.id.into_inner();
        Ok(Self { id, signing_key, allowed_signers, broker, listen, tls, database, watches, nodes })
    }
}

/// Who may say what in a cluster with these custodians, by this trust root. Everybody whom it knows in a role is heard: nothing
/// that a sentinel hears permits anything.
pub(crate) fn roles(custodians: &BTreeSet<Principal>, trust: &AllowedSigners) -> Roles {
    let listed = |namespace| {
        let signers = trust.signers().filter(|signer| signer.may_sign(namespace));
        signers.map(|signer| signer.principal().clone()).collect::<BTreeSet<_>>()
    };
    Roles {
        custodians: custodians.clone(),
        sentinels: listed(Namespace::Event),
        operators: listed(Namespace::Approval),
        // Who may order and has no key for approvals may hold, as far as can be seen from here.
        restrictors: listed(Namespace::Order),
        conductors: listed(Namespace::Intent),
    }
}

struct Cluster {
    id: ClusterId,
    watch: ClusterWatch,
    nodes: BTreeMap<NodeName, Arc<NodeIdentity>>,
}

impl Cluster {
    fn load(
        source: &ConfigFile,
        name: &ClusterName,
        section: &ClusterSection,
        trust: &AllowedSigners,
    ) -> Result<Self, ConfigError> {
        let manifest = source.manifest(&section.manifest)?;
        let ca_pem = source.ca_cert(&section.ca_cert)?;
        let nodes = source.nodes(manifest.id(), &ca_pem, &section.nodes)?;
        let poll = section.poll_interval.as_ref().map(|text| source.duration(text, POLL_MIN..=POLL_MAX));
        let poll = poll.transpose()?.unwrap_or(POLL_DEFAULT);
        let majority = nodes.len() / 2 + 1;
        let min_unsealed = match &section.min_unsealed {
            Some(min) if *min.get_ref() > nodes.len() => {
                return Err(source.refuse(min, format!("is more than there are nodes ({})", nodes.len())));
            }
            given => given.as_ref().map_or(majority, |min| *min.get_ref()),
        };
        let custodians: BTreeSet<_> = manifest.custodians().iter().map(|member| member.id.clone()).collect();
        let now = clock::wall();
        for (who, until) in &section.audit_accepted {
            if !custodians.contains(who.get_ref()) {
                return Err(source.refuse(who, format!("{} is no custodian of the manifest", who.get_ref())));
            }
            if *until.get_ref() > now {
                let what = "audit_accepted lies ahead: what was not heard yet, nobody can have looked at";
                return Err(source.refuse(until, what));
            }
        }
        let accepted = section.audit_accepted.iter().map(|(who, until)| (who.get_ref().clone(), *until.get_ref()));
        let watched = nodes.iter().map(|(name, node)| {
            let how = Watch { direct: node.direct, poll, knock: KNOCK };
            (name.clone(), NodeWatch { url: format!("https://{}", node.identity.address()), how })
        });
        let watch = ClusterWatch {
            name: name.clone(),
            shares: manifest.shares(),
            threshold: manifest.threshold(),
            generation: manifest.generation(),
            custodians,
            nodes: watched.collect(),
            min_unsealed,
            allowed_signers_sha256: hex::encode(trust.digest()),
            audit_accepted: accepted.collect(),
        };
        let nodes = nodes.into_iter().map(|(name, node)| (name, node.identity)).collect();
        Ok(Self { id: manifest.id(), watch, nodes })
    }
}
