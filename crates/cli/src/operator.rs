//! `operator.toml`: who the operator is, which keys, which clusters. Loaded and checked before a command does anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use holdfast_core::ceremony::Manifest;
use holdfast_core::id::{ClusterName, NodeName, Principal};
use holdfast_core::trust::{AllowedSigners, Namespace};
use holdfast_edge::config::{
    BrokerConfig, BrokerSection, ConfigError, ConfigFile, NodeConfig, NodeSection, Spanned, one_cluster,
};
use holdfast_edge::keys::OperatorKey;
use serde::Deserialize;

/// An operator's configuration, loaded.
pub(crate) struct Operator {
    /// The operator.
    pub(crate) principal: Principal,
    /// The operator's key.
    pub(crate) key: OperatorKey,
    /// The file that it, or its public half, is in.
    pub(crate) key_path: PathBuf,
    /// The trust root, as this machine has it.
    pub(crate) allowed_signers: AllowedSigners,
    /// The broker, if there is one.
    pub(crate) broker: Option<BrokerConfig>,
    /// The clusters.
    pub(crate) clusters: BTreeMap<ClusterName, OperatedCluster>,
}

/// One cluster, as an operator knows it.
pub(crate) struct OperatedCluster {
    /// Its manifest.
    pub(crate) manifest: Manifest,
    /// Its nodes.
    pub(crate) nodes: BTreeMap<NodeName, NodeConfig>,
    /// The sentinel's address, if one is named.
    pub(crate) sentinel: Option<String>,
}

/// A cluster, with its name.
pub(crate) type Named<'a> = (&'a ClusterName, &'a OperatedCluster);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    principal: Spanned<Principal>,
    key: Spanned<PathBuf>,
    allowed_signers: Spanned<PathBuf>,
    broker: Option<BrokerSection>,
    clusters: Spanned<BTreeMap<Spanned<ClusterName>, ClusterSection>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterSection {
    manifest: Spanned<PathBuf>,
    ca_cert: Spanned<PathBuf>,
    nodes: Spanned<BTreeMap<Spanned<NodeName>, NodeSection>>,
    sentinel: Option<Spanned<String>>,
}

impl OperatedCluster {
    /// The node with this name, or which there are.
    pub(crate) fn known_node(&self, cluster: &ClusterName, node: &NodeName) -> anyhow::Result<&NodeConfig> {
        self.nodes.get(node).ok_or_else(|| {
            let known = self.nodes.keys().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
            anyhow::anyhow!("cluster {cluster} has no node {node}, it has: {known}")
        })
    }
}

impl Operator {
    /// Reads the configuration at `path` and every file that it names.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_as(path, Namespace::Approval)
    }

    /// The same, of somebody who is to order holds and nothing else.
    pub(crate) fn load_restrictor(path: &Path) -> Result<Self, ConfigError> {
        Self::load_as(path, Namespace::Order)
    }

    fn load_as(path: &Path, namespace: Namespace) -> Result<Self, ConfigError> {
        let source = ConfigFile::read(path)?;
        let file: File = source.parse()?;
        let key = source.operator_key(&file.key)?;
        let allowed_signers = source.allowed_signers(&file.allowed_signers)?;
        source.check_listed(&key, &file.principal, namespace, &allowed_signers)?;
        source.check_clusters(&file.clusters)?;
        let broker =
            file.broker.as_ref().map(|section| source.broker(section, file.principal.get_ref())).transpose()?;
        let mut clusters = BTreeMap::new();
        for (name, section) in file.clusters.get_ref() {
            let manifest = source.manifest(&section.manifest)?;
            let ca_pem = source.ca_cert(&section.ca_cert)?;
            let nodes = source.nodes(manifest.id(), &ca_pem, &section.nodes)?;
            let sentinel = section.sentinel.as_ref().map(|url| url.get_ref().trim_end_matches('/').to_owned());
            clusters.insert(name.get_ref().clone(), OperatedCluster { manifest, nodes, sentinel });
        }
        source.check_distinct(
            file.clusters.get_ref().keys().map(|name| (name, clusters[name.get_ref()].manifest.id())),
        )?;
        let key_path = source.resolve(&file.key);
        Ok(Self { principal: file.principal.into_inner(), key, key_path, allowed_signers, broker, clusters })
    }

    /// The cluster that a command is about: the one that is named, or the only one there is.
    pub(crate) fn cluster(&self, named: Option<&ClusterName>) -> anyhow::Result<Named<'_>> {
        Ok(one_cluster(&self.clusters, named)?)
    }

    /// The clusters that a command is about: the one that is named, or all.
    pub(crate) fn clusters(&self, named: Option<&ClusterName>) -> anyhow::Result<Vec<Named<'_>>> {
        match named {
            Some(_) => Ok(vec![self.cluster(named)?]),
            None => Ok(self.clusters.iter().collect()),
        }
    }
}
