//! `holdfast-setup seal-token` and `canary-token`: the tokens with which a conductor seals nodes for drills, and reads a canary through them,
//! put to rest on this host.
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
use holdfast_core::drill::CanaryPath;
use holdfast_core::id::{ClusterName, NodeName};
use holdfast_edge::config::{ConfigError, ConfigFile, NodeSection, Spanned, WhichCluster, one_cluster};
use holdfast_edge::terminal::{self, HiddenError};
use holdfast_edge::tls;
use holdfast_edge::vault::NodeIdentity;
use holdfast_edge::vault::duty::{Duty, DutyToken, PowersError, RenewError, TOKEN_MAX, TokenError};
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
pub(crate) struct SealArguments {
    #[command(flatten)]
    place: Place,
    /// Print the policy and the commands that make such a token, and do nothing else
    #[arg(long, conflicts_with_all = ["config", "cluster", "offline", "json"])]
    policy: bool,
}

/// Encrypt the token that reads the canary, for a custodian that conducts drills
///
/// Reads the token from standard input; on a terminal nothing is shown. Asks a node that is open what it can do: one that can do more
/// than read the `canary` of `[conductor.CLUSTER]` is refused. Writes it, encrypted to the cluster's age identity, to the
/// `canary_token_file` there. A custodian that runs takes it for its next drill. With `--policy PATH` it prints the Vault's policy for a
/// token that reads what lies there, and how to make both.
#[derive(Args)]
#[command(after_help = "Examples:\n  holdfast-setup canary-token --policy secret/data/holdfast-canary\n  \
                  holdfast-setup canary-token --config /etc/holdfast/custodian.toml --cluster prod < token")]
pub(crate) struct CanaryArguments {
    #[command(flatten)]
    place: Place,
    /// Print the policy for this canary and the commands that make such a token, and do nothing else
    #[arg(long, value_name = "PATH", conflicts_with_all = ["config", "cluster", "offline", "json"])]
    policy: Option<CanaryPath>,
}

/// Where the token goes.
#[derive(Args)]
struct Place {
    /// The custodian's configuration
    #[arg(long, value_name = "FILE", default_value = "custodian.toml")]
    config: PathBuf,
    /// The cluster, where the custodian conducts drills of several
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// Ask no node what the token can do; `holdfast-custodian check` does, and so does every drill before it seals
    #[arg(long)]
    offline: bool,
    /// Report in JSON
    #[arg(long)]
    json: bool,
}

/// Why no token was put there. No message has anything in it of what was typed.
#[derive(Debug, thiserror::Error)]
enum DutyTokenError {
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

impl DutyTokenError {
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
    canary: Option<CanaryPath>,
    canary_token_file: Option<Spanned<PathBuf>>,
}

/// What was done.
#[derive(Serialize)]
struct Report {
    cluster: ClusterName,
    token_file: PathBuf,
    #[serde(skip)]
    duty: Duty,
    /// Which node said that it can do what it is for, and nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    checked_by: Option<NodeName>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, token_file, duty, checked_by } = self;
        let (does, can) = match duty {
            Duty::Seal => (format!("seals nodes of {cluster}"), "seal"),
            Duty::ReadCanary(path) => (format!("reads {path} of {cluster}"), "read that"),
        };
        writeln!(f, "The token that {does} is in {}, encrypted.", token_file.display())?;
        match checked_by {
            Some(node) => write!(f, "{node} says that it can {can}, and nothing else."),
            None => write!(f, "WHAT IT CAN DO WAS NOT ASKED (--offline): holdfast-custodian check asks every node."),
        }
    }
}

/// Puts the token that seals there, and says so.
pub(crate) fn run_seal(arguments: &SealArguments) -> ExitCode {
    if arguments.policy { print_policy(&Duty::Seal) } else { run(&arguments.place, seal) }
}

/// The same with the token that reads the canary.
pub(crate) fn run_canary(arguments: &CanaryArguments) -> ExitCode {
    match &arguments.policy {
        Some(path) => print_policy(&Duty::ReadCanary(path.clone())),
        None => run(&arguments.place, canary),
    }
}

fn run(place: &Place, of: Wanted) -> ExitCode {
    tls::install_provider();
    match put(place, of) {
        Ok(report) => output::report(place.json, &report),
        Err(error) => output::failure(&error, error.exit_code()),
    }
}

/// The policy, as it is piped into the Vault's own tool: the commands are comments in it.
fn print_policy(duty: &Duty) -> ExitCode {
    let name = duty.policy_name();
    let text = format!(
        "# Where a token is that may write policies and make tokens:\n\
         #   {} | bao policy write {name} -\n\
         #   bao token create -orphan -no-default-policy -policy={name} -period=768h -field=token\n\
         # Then, on the conductor's host:\n\
         #   {} --config /etc/holdfast/custodian.toml --cluster NAME\n\
         {}",
        duty.prints_policy(),
        duty.command(),
        duty.policy()
    );
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::failure(&error, output::FAILED),
    }
}

/// What a conductor's configuration says of one of its tokens.
type Wanted = fn(&ConfigFile, &ConfiguredConductor) -> Result<(Duty, PathBuf), ConfigError>;

fn seal(config: &ConfigFile, conductor: &ConfiguredConductor) -> Result<(Duty, PathBuf), ConfigError> {
    Ok((Duty::Seal, config.resolve(&conductor.token_file)))
}

fn canary(config: &ConfigFile, conductor: &ConfiguredConductor) -> Result<(Duty, PathBuf), ConfigError> {
    match (&conductor.canary, &conductor.canary_token_file) {
        (Some(path), Some(file)) => Ok((Duty::ReadCanary(path.clone()), config.resolve(file))),
        _ => Err(config.refuse_whole(
            "names no canary with its canary_token_file in this [conductor.NAME] (docs/INSTALL.md, \"A conductor\")",
        )),
    }
}

fn put(place: &Place, of: Wanted) -> Result<Report, DutyTokenError> {
    let config = ConfigFile::read(&place.config)?;
    let configured: Configured = config.parse()?;
    if configured.conductor.is_empty() {
        let what = "has no [conductor.NAME]: this custodian conducts no drills; add one with its token_file \
                    (docs/INSTALL.md, \"Configuration\")";
        return Err(config.refuse_whole(what).into());
    }
    let (name, conductor) = one_cluster(&configured.conductor, place.cluster.as_ref())?;
    let (_, cluster) = one_cluster(&configured.clusters, Some(name))?;
    let ((duty, token_file), identity) = (of(&config, conductor)?, config.resolve(&cluster.identity));
    host::check_owner(token_file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    let manifest = config.manifest(&cluster.manifest)?;
    let nodes = config.nodes(manifest.id(), &config.ca_cert(&cluster.ca_cert)?, &cluster.nodes)?;

    let does = match &duty {
        Duty::Seal => format!("seals nodes of {name}"),
        Duty::ReadCanary(path) => format!("reads {path} of {name}"),
    };
    let token = ask(&format!("The token that {does} (nothing is shown): "), duty.clone())?;
    let checked_by = if place.offline {
        None
    } else {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| DutyTokenError::System(format!("no runtime could be started: {e}")))?;
        Some(runtime.block_on(check(nodes.into_values().map(|node| node.identity), &token))?)
    };
    token.save(&token_file, &identity)?;
    Ok(Report { cluster: name.clone(), token_file, duty, checked_by })
}

/// Reads the token, and keeps nothing of what was typed.
fn ask(prompt: &str, duty: Duty) -> Result<DutyToken, DutyTokenError> {
    let typed = terminal::read_hidden(prompt, TYPED_MAX).map_err(|error| match error {
        HiddenError::Cancelled => DutyTokenError::Cancelled,
        HiddenError::TooMuch(_) => DutyTokenError::TooMuch,
        HiddenError::Input { .. } => DutyTokenError::Input(error),
    })?;
    Ok(DutyToken::parse(&typed, duty)?)
}

/// Has the first node that is open say what the token can do.
async fn check(
    nodes: impl IntoIterator<Item = Arc<NodeIdentity>>,
    token: &DutyToken,
) -> Result<NodeName, DutyTokenError> {
    let mut silent = Vec::new();
    for identity in nodes {
        let node = identity.node().clone();
        let why = match identity.connect(None).await {
            Ok(mut connection) => match connection.seal_status().await {
                Ok(status) if status.is_open() => match connection.check_powers(token).await {
                    Ok(()) => return Ok(node),
                    Err(PowersError::Ask(error) | PowersError::Renew(RenewError::Ask(error))) => error.to_string(),
                    Err(why) => return Err(DutyTokenError::Powers { node, why }),
                },
                Ok(_) => "it is sealed".to_owned(),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        silent.push(format!("{node}: {why}"));
    }
    Err(DutyTokenError::NobodyToAsk(silent.join("; ")))
}
