//! `holdfast-setup seal-token`: the token with which a conductor seals nodes for drills, put to rest on this host.
//!
//! What lives here: reading it, with nothing shown and nothing kept, asking a node what it can do, and encrypting it to the cluster's
//! age identity. What does not: making it, which is for whoever holds a token of the Vault that may; `--policy` says how.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use holdfast_core::id::{ClusterName, NodeName};
use holdfast_edge::config::{ConfigError, ConfigFile, NodeSection, Spanned, WhichCluster, one_cluster};
use holdfast_edge::terminal::{self, HiddenError};
use holdfast_edge::tls;
use holdfast_edge::vault::NodeIdentity;
use holdfast_edge::vault::exercise::{POLICY, POLICY_NAME, PowersError, RenewError, SealToken, TOKEN_MAX, TokenError};
use serde::{Deserialize, Serialize};

use crate::host::{self, HostError};
use crate::output;

/// The most that is read, in bytes: the token, and what stands around it in a file.
const TYPED_MAX: usize = TOKEN_MAX + 64;

/// Encrypt the token that seals, for a custodian that conducts drills
///
/// Reads the token from standard input; on a terminal nothing is shown. Asks a node that is open what it can do: one that can do more
/// than seal is refused. Writes it, encrypted to the cluster's age identity, to the `token_file` of `[conductor.CLUSTER]`. A custodian that
/// runs takes it for its next drill. With `--policy` it prints the Vault's policy for such a token, and how to make both.
#[derive(Args)]
#[command(
    after_help = "Example: holdfast-setup seal-token --config /etc/holdfast/custodian.toml --cluster prod < token"
)]
pub(crate) struct Arguments {
    /// The custodian's configuration
    #[arg(long, value_name = "FILE", default_value = "custodian.toml")]
    config: PathBuf,
    /// The cluster, where the custodian conducts drills of several
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// Ask no node what the token can do; `holdfast-custodian check` does, and so does every drill before it seals
    #[arg(long)]
    offline: bool,
    /// Print the policy and the commands that make such a token, and do nothing else
    #[arg(long, conflicts_with_all = ["config", "cluster", "offline", "json"])]
    policy: bool,
    /// Report in JSON
    #[arg(long)]
    json: bool,
}

/// Why no token was put there. No message has anything in it of what was typed.
#[derive(Debug, thiserror::Error)]
enum SealTokenError {
    /// The configuration is not one, or has no conductor.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No such cluster, or several and none named.
    #[error(transparent)]
    Cluster(#[from] WhichCluster),
    /// Root would write what the custodian could not read.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The person broke it off.
    #[error("broken off: nothing was changed")]
    Cancelled,
    /// More came than any token has.
    #[error("more was given than a token has: {TOKEN_MAX} bytes are the most; give the token alone, on one line")]
    TooMuch,
    /// Reading failed, or the terminal cannot be kept from showing it.
    #[error(transparent)]
    Input(HiddenError),
    /// It is none, or cannot be put there.
    #[error("{0}; nothing was changed")]
    Token(#[from] TokenError),
    /// The node does not want it, or too much of it.
    #[error("{node}: {why}; nothing was changed")]
    Powers {
        /// The node that was asked.
        node: NodeName,
        /// What it said.
        why: PowersError,
    },
    /// Nobody could be asked.
    #[error(
        "no node that is open could be asked what the token can do ({0}); try again when one can, or put it there unasked with --offline; nothing was changed"
    )]
    NobodyToAsk(String),
    /// The system did not provide something.
    #[error("{0}")]
    System(String),
}

impl SealTokenError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Powers { .. } | Self::Token(TokenError::Identity(_)) => output::REFUSED,
            Self::Cluster(_) => output::USAGE,
            _ => output::FAILED,
        }
    }
}

/// What of a custodian's configuration matters here; the rest is the custodian's.
#[derive(Deserialize)]
struct Configured {
    clusters: BTreeMap<ClusterName, ConfiguredCluster>,
    #[serde(default)]
    conductor: BTreeMap<ClusterName, ConfiguredConductor>,
}

#[derive(Deserialize)]
struct ConfiguredCluster {
    manifest: Spanned<PathBuf>,
    identity: Spanned<PathBuf>,
    ca_cert: Spanned<PathBuf>,
    nodes: Spanned<BTreeMap<Spanned<NodeName>, NodeSection>>,
}

#[derive(Deserialize)]
struct ConfiguredConductor {
    token_file: Spanned<PathBuf>,
}

/// What was done.
#[derive(Serialize)]
struct Report {
    cluster: ClusterName,
    token_file: PathBuf,
    /// Which node said that it can seal and nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    checked_by: Option<NodeName>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, token_file, checked_by } = self;
        writeln!(f, "The token that seals nodes of {cluster} is in {}, encrypted.", token_file.display())?;
        match checked_by {
            Some(node) => write!(f, "{node} says that it can seal, and nothing else."),
            None => write!(f, "WHAT IT CAN DO WAS NOT ASKED (--offline): holdfast-custodian check asks every node."),
        }
    }
}

/// Puts the token there, and says so.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if arguments.policy {
        return print_policy();
    }
    tls::install_provider();
    match seal_token(arguments) {
        Ok(report) => output::report(arguments.json, &report),
        Err(error) => output::failure(&error, error.exit_code()),
    }
}

/// The policy, as it is piped into the Vault's own tool: the commands are comments in it.
fn print_policy() -> ExitCode {
    let text = format!(
        "# Where a token is that may write policies and make tokens:\n\
         #   holdfast-setup seal-token --policy | bao policy write {POLICY_NAME} -\n\
         #   bao token create -orphan -no-default-policy -policy={POLICY_NAME} -period=768h -field=token\n\
         # Then, on the conductor's host:\n\
         #   holdfast-setup seal-token --config /etc/holdfast/custodian.toml --cluster NAME\n\
         {POLICY}"
    );
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::failure(&error, output::FAILED),
    }
}

fn seal_token(arguments: &Arguments) -> Result<Report, SealTokenError> {
    let config = ConfigFile::read(&arguments.config)?;
    let configured: Configured = config.parse()?;
    if configured.conductor.is_empty() {
        let what = "has no [conductor.NAME]: this custodian conducts no drills; add one with its token_file \
                    (docs/INSTALL.md, \"Configuration\")";
        return Err(config.refuse_whole(what).into());
    }
    let (name, conductor) = one_cluster(&configured.conductor, arguments.cluster.as_ref())?;
    let (_, cluster) = one_cluster(&configured.clusters, Some(name))?;
    let (token_file, identity) = (config.resolve(&conductor.token_file), config.resolve(&cluster.identity));
    host::check_owner(token_file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    let manifest = config.manifest(&cluster.manifest)?;
    let nodes = config.nodes(manifest.id(), &config.ca_cert(&cluster.ca_cert)?, &cluster.nodes)?;

    let token = ask(&format!("The token that seals nodes of {name} (nothing is shown): "))?;
    let checked_by = if arguments.offline {
        None
    } else {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| SealTokenError::System(format!("no runtime could be started: {e}")))?;
        Some(runtime.block_on(check(nodes.into_values().map(|node| node.identity), &token))?)
    };
    token.save(&token_file, &identity)?;
    Ok(Report { cluster: name.clone(), token_file, checked_by })
}

/// Reads the token, and keeps nothing of what was typed.
fn ask(prompt: &str) -> Result<SealToken, SealTokenError> {
    let typed = terminal::read_hidden(prompt, TYPED_MAX).map_err(|error| match error {
        HiddenError::Cancelled => SealTokenError::Cancelled,
        HiddenError::TooMuch(_) => SealTokenError::TooMuch,
        HiddenError::Input { .. } => SealTokenError::Input(error),
    })?;
    Ok(SealToken::parse(&typed)?)
}

/// Has the first node that is open say what the token can do.
async fn check(
    nodes: impl IntoIterator<Item = Arc<NodeIdentity>>,
    token: &SealToken,
) -> Result<NodeName, SealTokenError> {
    let mut silent = Vec::new();
    for identity in nodes {
        let node = identity.node().clone();
        let why = match identity.connect(None).await {
            Ok(mut connection) => match connection.seal_status().await {
                Ok(status) if status.is_open() => match connection.check_powers(token).await {
                    Ok(()) => return Ok(node),
                    Err(PowersError::Ask(error) | PowersError::Renew(RenewError::Ask(error))) => error.to_string(),
                    Err(why) => return Err(SealTokenError::Powers { node, why }),
                },
                Ok(_) => "it is sealed".to_owned(),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        silent.push(format!("{node}: {why}"));
    }
    Err(SealTokenError::NobodyToAsk(silent.join("; ")))
}
