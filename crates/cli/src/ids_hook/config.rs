//! `ids-hook.toml`: who may post, and which alerts do what to which nodes. Loaded and checked before anything is received.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use holdfast_core::id::{ClusterName, NodeName};
use holdfast_core::message::{Content, Hold, plain_text};
use holdfast_core::trust::Namespace;
use holdfast_edge::admin::rotation::Token;
use holdfast_edge::broker::Password;
use holdfast_edge::clock;
use holdfast_edge::config::{BrokerConfig, ConfigError, ConfigFile, Spanned};
use holdfast_edge::keys::Sign as _;
use holdfast_edge::listen::ServerTls;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::operator::{OperatedCluster, Operator};
use crate::order::seal::read_token;
use crate::order::sign;

/// Where it listens if nothing else is said.
pub(super) const LISTEN_DEFAULT: &str = "127.0.0.1:9641";

/// How many holds one action orders in any hour, and how often it seals a node that people opened again, if nothing else is said.
pub(super) const PER_HOUR_DEFAULT: u32 = 12;

/// More holds of one party than that do not stand at once (`holdfast_core::orders::HOLDS_PER_OPERATOR`).
const PER_HOUR_MAX: u32 = 60;

/// The most actions.
const ACTIONS_MAX: usize = 256;

/// The longest name of an action, in bytes: it goes into the reason of a hold.
const NAME_MAX: usize = 63;

/// A secret that is shorter is a word that somebody thought of.
const TOKEN_MIN: usize = 32;

/// The receiver's configuration, loaded.
pub(super) struct Hook {
    /// Who signs.
    pub(super) restrictor: Operator,
    pub(super) listen: SocketAddr,
    pub(super) tls: Option<ServerTls>,
    /// What whoever posts has to show.
    pub(super) token: WebhookToken,
    /// The file of what was ordered.
    pub(super) memory: PathBuf,
    pub(super) orders_per_hour: usize,
    pub(super) seals_per_hour: usize,
    pub(super) actions: BTreeMap<String, Action>,
}

/// What is done about an alert.
pub(super) struct Action {
    /// The labels that an alert has to have, each with this value.
    pub(super) labels: BTreeMap<String, String>,
    /// The cluster.
    pub(super) cluster: ClusterName,
    /// The nodes; none means all.
    pub(super) nodes: Vec<NodeName>,
    /// What seals them, where they are to be sealed.
    pub(super) seal: Option<Token>,
}

/// SHA-256 of the token: what is compared has the same length, and tells nothing of the token.
#[derive(Clone, Copy)]
pub(super) struct WebhookToken([u8; 32]);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    restrictor: Spanned<PathBuf>,
    listen: Option<Spanned<String>>,
    tls_cert: Option<Spanned<PathBuf>>,
    tls_key: Option<Spanned<PathBuf>>,
    token_file: Spanned<PathBuf>,
    memory: Spanned<PathBuf>,
    orders_per_hour: Option<Spanned<u32>>,
    seals_per_hour: Option<Spanned<u32>>,
    actions: Spanned<BTreeMap<Spanned<String>, ActionSection>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionSection {
    labels: Spanned<BTreeMap<String, String>>,
    cluster: Spanned<ClusterName>,
    #[serde(default)]
    nodes: Vec<Spanned<NodeName>>,
    what: Spanned<What>,
    seal_token_file: Option<Spanned<PathBuf>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    Hold,
    Seal,
}

impl Hook {
    /// Reads the configuration at `path` and every file that it names.
    pub(super) fn load(path: &Path) -> Result<Self, ConfigError> {
        let source = ConfigFile::read(path)?;
        let file: File = source.parse()?;
        let restrictor = file.restrictor(&source)?;
        let (listen, tls) =
            source.listen(file.listen.as_ref(), LISTEN_DEFAULT, file.tls_cert.as_ref(), file.tls_key.as_ref())?;
        let token = WebhookToken::from(&source.password(&file.token_file)?)
            .map_err(|why| source.refuse(&file.token_file, why))?;
        let per_hour = |what, configured: &Option<Spanned<u32>>| match configured {
            Some(wrong) if !(1..=PER_HOUR_MAX).contains(wrong.get_ref()) => {
                Err(source.refuse(wrong, format!("{what} is between 1 and {PER_HOUR_MAX}")))
            }
            configured => Ok(configured.as_ref().map_or(PER_HOUR_DEFAULT, |many| *many.get_ref()) as usize),
        };
        let orders_per_hour = per_hour("orders_per_hour", &file.orders_per_hour)?;
        let seals_per_hour = per_hour("seals_per_hour", &file.seals_per_hour)?;
        let actions = file.actions.get_ref();
        if actions.is_empty() || actions.len() > ACTIONS_MAX {
            let what = format!(
                "between 1 and {ACTIONS_MAX} actions are named: add [actions.NAME] with labels, cluster and what"
            );
            return Err(source.refuse(&file.actions, what));
        }
        let load = |(name, section): (&Spanned<String>, &ActionSection)| {
            if name.get_ref().len() > NAME_MAX || plain_text(name.get_ref()) != *name.get_ref() {
                return Err(source
                    .refuse(name, format!("the name of an action has at most {NAME_MAX} characters, all visible")));
            }
            Ok((name.get_ref().clone(), section.load(&source, &restrictor)?))
        };
        let actions = actions.iter().map(load).collect::<Result<_, _>>()?;
        let memory = source.resolve(&file.memory);
        Ok(Self { restrictor, listen, tls, token, memory, orders_per_hour, seals_per_hour, actions })
    }

    /// The action of this name, and its cluster; `load` has seen to it that there are both.
    pub(super) fn action(&self, name: &str) -> Result<(&Action, &OperatedCluster), String> {
        let found = self.actions.get(name).and_then(|action| Some((action, action.cluster(&self.restrictor)?)));
        found.ok_or_else(|| "there is no such action".to_owned())
    }

    /// The broker; `load` has seen to it that there is one.
    pub(super) fn broker(&self) -> anyhow::Result<&BrokerConfig> {
        self.restrictor.broker.as_ref().ok_or_else(|| anyhow::anyhow!("no broker"))
    }
}

impl File {
    /// Who signs: somebody who can restrict, and nothing else.
    fn restrictor(&self, source: &ConfigFile) -> Result<Operator, ConfigError> {
        let restrictor = Operator::load_restrictor(&source.resolve(&self.restrictor))?;
        let refuse = |what: String| Err(source.refuse(&self.restrictor, what));
        let name = &restrictor.principal;
        if restrictor.allowed_signers.can_sign(name, Namespace::Approval, clock::wall()) {
            return refuse(format!(
                "allowed_signers lets {name} sign approvals, and a machine that alerts reach is to open nothing: give it a key and a \
                 line of its own, with namespaces=\"{}\" alone",
                Namespace::Order
            ));
        }
        if restrictor.broker.is_none() {
            return refuse("it names no [broker], and so nobody would hear of a hold: add one".to_owned());
        }
        // A passphrase, or a token to be touched, would be asked for when nobody is there.
        let (_, cluster) = restrictor.clusters.first_key_value().ok_or_else(|| source.refuse_whole("no cluster"))?;
        let trial = Content::Hold(Hold { nodes: Vec::new(), reason: None });
        if let Err(error) = sign(&restrictor, cluster, trial, None, "hold".to_owned()) {
            return refuse(format!("its key has to sign with nobody there, and does not: {error:#}"));
        }
        Ok(restrictor)
    }
}

impl ActionSection {
    fn load(&self, source: &ConfigFile, restrictor: &Operator) -> Result<Action, ConfigError> {
        if self.labels.get_ref().is_empty() {
            return Err(
                source.refuse(&self.labels, "has no label, and so every alert would do this: name one at least")
            );
        }
        let name = self.cluster.get_ref();
        let cluster = restrictor.clusters.get(name).ok_or_else(|| {
            let known = restrictor.clusters.keys().map(ClusterName::as_str).collect::<Vec<_>>().join(", ");
            source
                .refuse(&self.cluster, format!("the restrictor's configuration has no cluster {name}, it has: {known}"))
        })?;
        for node in &self.nodes {
            cluster.known_node(name, node.get_ref()).map_err(|error| source.refuse(node, error))?;
        }
        let seal = match (*self.what.get_ref(), &self.seal_token_file) {
            (What::Hold, None) => None,
            (What::Seal, Some(file)) => {
                Some(read_token(&source.resolve(file)).map_err(|error| source.refuse(file, format!("{error:#}")))?)
            }
            (What::Hold, Some(file)) => {
                return Err(
                    source.refuse(file, "a hold seals nothing: take seal_token_file out, or write what = \"seal\"")
                );
            }
            (What::Seal, None) => {
                let what = "to seal takes a token: name its file with seal_token_file (docs/OPERATIONS.md, \"Alerts that shut\")";
                return Err(source.refuse(&self.what, what));
            }
        };
        let nodes = self.nodes.iter().map(|node| node.get_ref().clone()).collect();
        Ok(Action { labels: self.labels.get_ref().clone(), cluster: name.clone(), nodes, seal })
    }
}

impl Action {
    /// The cluster, as the restrictor knows it.
    fn cluster<'a>(&self, restrictor: &'a Operator) -> Option<&'a OperatedCluster> {
        restrictor.clusters.get(&self.cluster)
    }

    /// The nodes that it seals and holds.
    pub(super) fn all_nodes(&self, cluster: &OperatedCluster) -> BTreeSet<NodeName> {
        let wanted = |node: &&NodeName| self.nodes.is_empty() || self.nodes.contains(node);
        cluster.nodes.keys().filter(wanted).cloned().collect()
    }

    /// What it shuts, and by whose key: what was done about something else says nothing of it.
    pub(super) fn about(&self, restrictor: &Operator) -> String {
        let cluster = self.cluster(restrictor).map(|cluster| cluster.manifest.id().to_string()).unwrap_or_default();
        let nodes = self.nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" ");
        let what = if self.seal.is_some() { "seal" } else { "hold" };
        format!(
            "{what} [{nodes}] of {cluster}, by {}, {}",
            restrictor.principal,
            restrictor.key.public_key().fingerprint()
        )
    }

    /// What it does, for people.
    pub(super) fn in_words(&self) -> String {
        let what = if self.seal.is_some() { "holds and seals" } else { "holds" };
        let nodes = self.nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
        let labels = self.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect::<Vec<_>>().join(" ");
        let which = if nodes.is_empty() { "all of".to_owned() } else { format!("{nodes} of") };
        format!("{what} {which} {} when an alert fires with {labels}", self.cluster)
    }
}

impl WebhookToken {
    fn from(token: &Password) -> Result<Self, String> {
        if token.expose().len() < TOKEN_MIN {
            return Err(format!("the token has fewer than {TOKEN_MIN} characters: make one with openssl rand -hex 32"));
        }
        Ok(Self::of(token.expose()))
    }

    pub(super) fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Whether this is the token, in a time that does not depend on how much of it is right.
    pub(super) fn is(&self, shown: &[u8]) -> bool {
        subtle::ConstantTimeEq::ct_eq(&self.0[..], &Self::of(shown).0[..]).into()
    }
}

impl fmt::Debug for WebhookToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_that_the_page_shows_are_the_defaults() {
        let page = include_str!("../../../../docs/INSTALL.md");
        for line in [
            format!("\n# listen = \"{LISTEN_DEFAULT}\" "),
            format!("\n# orders_per_hour = {PER_HOUR_DEFAULT} "),
            format!("\n# seals_per_hour = {PER_HOUR_DEFAULT} "),
        ] {
            assert!(page.contains(&line), "{line} is not in docs/INSTALL.md");
        }
    }

    #[test]
    fn a_token_is_known_by_all_of_it() {
        let token = WebhookToken::of(b"0123456789abcdef0123456789abcdef");
        assert!(token.is(b"0123456789abcdef0123456789abcdef"));
        for other in [&b"0123456789abcdef0123456789abcdeF"[..], b"0123456789abcdef0123456789abcde", b""] {
            assert!(!token.is(other));
        }
        assert_eq!(format!("{token:?}"), "WebhookToken(…)");
    }
}
