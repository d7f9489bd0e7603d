//! `holdfast-setup retire`: removes the share of an older generation, when nothing needs it any more.
//!
//! A node that slept through a rotation opens with the old shares alone, once. So the old one goes only when every node that the
//! configuration names was opened with the new one: by this custodian's audit log, if it was the one that completed the set, or by a
//! person's word.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use holdfast_core::id::{ClusterId, ClusterName, NodeName, Principal};
use holdfast_edge::audit::{self, Broken};
use holdfast_edge::config::{ConfigError, ConfigFile, Spanned, WhichCluster, one_cluster};
use holdfast_edge::store::{ShareStore, StoreError};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::output;

/// Remove the shares of older generations, when every node was opened with the new ones
///
/// After a rotation `install` keeps the old share, because a node that slept through it opens with the old ones, once. This
/// removes it, when this custodian's audit log shows for each node of the cluster that its new share opened it, as the last of a
/// set. Only one custodian has that line for each opening: look at the others' logs too, and say so with --opened.
#[derive(Args)]
#[command(after_help = "Example: holdfast-setup retire --config /etc/holdfast/custodian.toml --opened vault-3")]
pub(crate) struct Arguments {
    /// The custodian's configuration
    #[arg(long, value_name = "FILE", default_value = "custodian.toml")]
    config: PathBuf,
    /// The cluster, where the custodian serves several
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// A node of which you have seen yourself that it was opened with the new shares, or that it is gone for good
    #[arg(long = "opened", value_name = "NODE")]
    opened: Vec<NodeName>,
    /// Report in JSON
    #[arg(long)]
    json: bool,
}

/// Why nothing was removed.
#[derive(Debug, thiserror::Error)]
enum RetireError {
    /// The configuration is not one.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No such cluster, or several and none named.
    #[error(transparent)]
    Cluster(#[from] WhichCluster),
    /// No such node.
    #[error("--opened {node}: the configuration knows no such node; it knows {known}")]
    Node {
        /// What was given.
        node: NodeName,
        /// What there is.
        known: String,
    },
    /// The audit log cannot be read.
    #[error("{}: {why}; without the audit log, name every node with --opened that you saw opened with the new shares", .path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Somebody may still need it.
    #[error(
        "the shares of before generation {generation} are kept: nothing here shows that {nodes} opened with the new ones; restart one after the other and see each open by itself, or, if you have seen it on another custodian, say --opened NODE for each"
    )]
    Needed {
        /// The present generation.
        generation: u32,
        /// The nodes without proof.
        nodes: String,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RetireError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => output::REFUSED,
            Self::Cluster(_) | Self::Node { .. } => output::USAGE,
            _ => output::FAILED,
        }
    }
}

/// What of a custodian's configuration matters here; the rest is the custodian's.
#[derive(Deserialize)]
struct Configured {
    id: Principal,
    state_dir: Spanned<PathBuf>,
    clusters: BTreeMap<ClusterName, ConfiguredCluster>,
}

#[derive(Deserialize)]
struct ConfiguredCluster {
    manifest: Spanned<PathBuf>,
    share: Spanned<PathBuf>,
    identity: Spanned<PathBuf>,
    nodes: BTreeMap<NodeName, IgnoredAny>,
}

/// What was done.
#[derive(Serialize)]
struct Report {
    cluster: ClusterName,
    generation: u32,
    retired: Vec<u32>,
    shown_by_audit_log: Vec<NodeName>,
    shown_by_word: Vec<NodeName>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.retired.is_empty() {
            return write!(f, "No share of {} older than generation {} is kept here.", self.cluster, self.generation);
        }
        let retired = list(&self.retired);
        writeln!(f, "Removed: the share of {} of generation {retired}.\n", self.cluster)?;
        writeln!(
            f,
            "  Opened with generation {}, by the audit log: {}",
            self.generation,
            list(&self.shown_by_audit_log)
        )?;
        write!(f, "  by your word: {}", list(&self.shown_by_word))
    }
}

fn list(of: &[impl fmt::Display]) -> String {
    if of.is_empty() {
        return "none".to_owned();
    }
    of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Retires, and says so.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match retire(arguments) {
        Ok(report) => output::report(arguments.json, &report),
        Err(error) => output::failure(&error, error.exit_code()),
    }
}

fn retire(arguments: &Arguments) -> Result<Report, RetireError> {
    let config = ConfigFile::read(&arguments.config)?;
    let configured: Configured = config.parse()?;
    let (name, cluster) = one_cluster(&configured.clusters, arguments.cluster.as_ref())?;
    if let Some(node) = arguments.opened.iter().find(|node| !cluster.nodes.contains_key(*node)) {
        let known = list(&cluster.nodes.keys().collect::<Vec<_>>());
        return Err(RetireError::Node { node: node.clone(), known });
    }
    let manifest = config.manifest(&cluster.manifest)?;
    let (id, generation) = (manifest.id(), manifest.generation());
    let store = ShareStore::open(&config.resolve(&cluster.share), &config.resolve(&cluster.identity));
    // The new one has to be there and sound, whoever says what.
    store.unlock(id, generation, &configured.id)?;

    let older: Vec<u32> = store.kept()?.into_iter().filter(|kept| *kept < generation).collect();
    let report = |retired, shown_by_audit_log, shown_by_word| Report {
        cluster: name.clone(),
        generation,
        retired,
        shown_by_audit_log,
        shown_by_word,
    };
    if older.is_empty() {
        return Ok(report(Vec::new(), Vec::new(), Vec::new()));
    }
    let (by_word, unseen): (Vec<_>, Vec<_>) =
        cluster.nodes.keys().cloned().partition(|node| arguments.opened.contains(node));
    if !unseen.is_empty() {
        let opened = opened_with(&config.resolve(&configured.state_dir), id, generation)?;
        let unproven: Vec<_> = unseen.iter().filter(|node| !opened.contains(*node)).collect();
        if !unproven.is_empty() {
            return Err(RetireError::Needed { generation, nodes: list(&unproven) });
        }
    }
    for generation in &older {
        store.retire(*generation)?;
    }
    Ok(report(older, unseen, by_word))
}

/// What of an audit log's line tells of a release and of what came of it.
#[derive(Deserialize)]
struct Line {
    entry: Entry,
}

#[derive(Deserialize)]
struct Entry {
    kind: Option<String>,
    what: Option<String>,
    cluster: Option<ClusterId>,
    node: Option<NodeName>,
    incident: Option<String>,
    result: Option<String>,
    details: Option<Grounds>,
}

#[derive(Deserialize)]
struct Grounds {
    generation: Option<u32>,
}

/// The nodes that our share of that generation opened, as the last of its set, by a log whose chain holds.
fn opened_with(folder: &Path, cluster: ClusterId, generation: u32) -> Result<BTreeSet<NodeName>, RetireError> {
    let refused = |path: &Path, why: String| RetireError::Log { path: path.to_owned(), why };
    let files = audit::files(folder).map_err(|error| refused(folder, error.to_string()))?;
    audit::verify(&files, &[])
        .map_err(|Broken { file, line, entry, why }| refused(&file, format!("line {line} (entry {entry}): {why}")))?;
    let (mut sent, mut opened) = (BTreeMap::<NodeName, Option<String>>::new(), BTreeSet::new());
    let mut lines = Vec::new();
    for file in &files {
        let reader = File::open(file).map(BufReader::new).map_err(|error| refused(file, error.to_string()))?;
        lines.push(reader.lines());
    }
    for line in lines.into_iter().flatten() {
        let line = line.map_err(|error| refused(folder, error.to_string()))?;
        // Other lines have other forms.
        let Ok(Line { entry }) = serde_json::from_str(&line) else { continue };
        let Some(node) = entry.node.filter(|_| entry.cluster == Some(cluster)) else { continue };
        match entry.kind.as_deref().or(entry.what.as_deref()) {
            Some("release") if entry.details.and_then(|details| details.generation) == Some(generation) => {
                sent.insert(node, entry.incident);
            }
            Some("release") => drop(sent.remove(&node)),
            // The one that completed the set and opened the node. One that was merely counted may have been in another set.
            Some("submitted") if sent.remove(&node) == Some(entry.incident) => {
                opened.extend((entry.result.as_deref() == Some("opened")).then_some(node));
            }
            _ => {}
        }
    }
    Ok(opened)
}
