//! `holdfast approve`: an operator's signed consent to open nodes, once, soon.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use holdfast_core::admission::PERMISSION_LIFE_MAX;
use holdfast_core::id::{ClusterName, MessageId, NodeName};
use holdfast_core::message::{Approval, Content, Kind};
use holdfast_core::topology::{Exchange, routing_key};
use holdfast_edge::broker::{Broker, BrokerSettings, Outgoing};
use holdfast_edge::config::BrokerConfig;
use holdfast_edge::outgoing::seal_message;
use holdfast_edge::vault::NodeIdentity;
use holdfast_edge::{clock, files};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout_at};

use crate::operator::Operator;

/// How long the nodes are watched for an effect: where other operators' approvals are missing, there will be none.
const WATCH: Duration = Duration::from_secs(10);

/// The time between two looks at a node that is watched.
const LOOK: Duration = Duration::from_millis(100);

/// What `approve` is asked for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The operator's configuration
    #[arg(long, default_value = "operator.toml")]
    config: PathBuf,
    /// The cluster; not needed where the configuration has only one
    #[arg(long)]
    cluster: Option<ClusterName>,
    /// A node that may be opened; repeatable
    #[arg(long, required_unless_present = "all")]
    node: Vec<NodeName>,
    /// Every node of the cluster
    #[arg(long, conflicts_with = "node")]
    all: bool,
    /// For how many minutes the approval counts
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u8).range(1..=15))]
    minutes: u8,
    /// Write instead of sending: to this file if it ends in .json, which takes one node, else into this folder, a file for each
    /// node; `holdfast-setup deliver` takes them to a custodian
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Do not wait to see whether the nodes open
    #[arg(long)]
    no_wait: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Approved {
    id: MessageId,
    cluster: ClusterName,
    node: NodeName,
    expires_at: holdfast_core::time::Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    open: Option<bool>,
}

struct Signed {
    id: MessageId,
    node: NodeName,
    identity: Arc<NodeIdentity>,
    envelope: Vec<u8>,
    routing_key: String,
}

/// Signs an approval for each node, and sends or writes them.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let operator = Operator::load(&arguments.config)?;
    let (name, cluster) = operator.cluster(arguments.cluster.as_ref())?;
    let nodes: Vec<_> = if arguments.all { cluster.nodes.keys().cloned().collect() } else { arguments.node.clone() };
    let issued_at = clock::wall();
    let life = Duration::from_secs(u64::from(arguments.minutes) * 60).min(PERMISSION_LIFE_MAX);
    let expires_at = issued_at.after(life);
    let mut signed = Vec::new();
    for node in nodes {
        let Some(config) = cluster.nodes.get(&node) else {
            let known = cluster.nodes.keys().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
            anyhow::bail!("cluster {name} has no node {node}, it has: {known}");
        };
        let content = Content::Approval(Approval { node: node.clone() });
        let id = cluster.manifest.id();
        let (message, envelope) =
            seal_message(&operator.key, &operator.principal, id, content, issued_at, Some(expires_at))?;
        let routing_key = routing_key(id, &operator.principal, Kind::Approval.as_str());
        signed.push(Signed { id: message, node, identity: config.identity.clone(), envelope, routing_key });
    }

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut done = Vec::new();
    if let Some(output) = &arguments.output {
        let one_file = output.extension().is_some_and(|extension| extension == "json");
        anyhow::ensure!(!one_file || signed.len() == 1, "{} is one file: name one node, or a folder", output.display());
        if !one_file {
            std::fs::create_dir_all(output).with_context(|| format!("{} cannot be made", output.display()))?;
        }
        for signed in signed {
            let file = match one_file {
                true => output.clone(),
                false => output.join(format!("approval-{}-{}.json", signed.node, signed.id)),
            };
            files::create(&file, &signed.envelope, 0o644)?;
            say(arguments, &format!("{}: approval {} written to {}", signed.node, signed.id, file.display()));
            let (id, node, cluster) = (signed.id, signed.node, name.clone());
            done.push(Approved { id, cluster, node, expires_at, file: Some(file), open: None });
        }
        say(
            arguments,
            "take each to every custodian before it expires, and there: holdfast-setup deliver --config /etc/holdfast/custodian.toml FILE",
        );
    } else {
        let Some(broker) = &operator.broker else {
            anyhow::bail!(
                "{} names no [broker]: add one, or write the approvals to files with --output and take them to the \
                 custodians with holdfast-setup deliver",
                arguments.config.display()
            );
        };
        runtime.block_on(publish(broker, &signed))?;
        for signed in &signed {
            say(arguments, &format!("{}: approval {} sent, valid until {expires_at}", signed.node, signed.id));
        }
        let opened = if arguments.no_wait { Vec::new() } else { runtime.block_on(watch_all(&signed)) };
        for (number, signed) in signed.into_iter().enumerate() {
            let open = opened.get(number).copied();
            if let Some(open) = open {
                let word = if open { "open" } else { "still sealed: `holdfast status` says what it waits for" };
                say(arguments, &format!("{}: {word}", signed.node));
            }
            let (id, node, cluster) = (signed.id, signed.node, name.clone());
            done.push(Approved { id, cluster, node, expires_at, file: None, open });
        }
    }
    if arguments.json {
        serde_json::to_writer(std::io::stdout(), &done)?;
        writeln!(std::io::stdout())?;
    }
    // Sent is done: whether it was enough is the custodians' to say.
    Ok(ExitCode::SUCCESS)
}

fn say(arguments: &Arguments, line: &str) {
    if !arguments.json {
        // A closed stdout is no reason to stop half-way through.
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}

/// Publishes the approvals, and returns when the broker has each of them in every orders queue.
async fn publish(config: &BrokerConfig, signed: &[Signed]) -> anyhow::Result<()> {
    let (broker, mut events) = Broker::spawn(BrokerSettings {
        url: config.url.clone(),
        username: config.username.to_string(),
        password: config.password.clone(),
        tls: config.tls.clone(),
        queues: Vec::new(),
        connection_name: format!("holdfast approve {}", config.username),
    });
    let drain = tokio::spawn(async move { while events.recv().await.is_some() {} });
    for signed in signed {
        let message = Outgoing {
            exchange: Exchange::Orders,
            routing_key: signed.routing_key.clone(),
            body: signed.envelope.clone(),
        };
        let sent = broker.publish_confirmed(message).await;
        sent.with_context(|| format!(
                "the approval for {} was not delivered (again does no harm; with --output it is written to a file, and carried)",
                signed.node
            ))?;
    }
    broker.close().await;
    drain.abort();
    Ok(())
}

/// Whether each node is seen open before the time is up.
async fn watch_all(signed: &[Signed]) -> Vec<bool> {
    let deadline = Instant::now() + WATCH;
    let watches: Vec<_> = signed.iter().map(|signed| tokio::spawn(watch(signed.identity.clone(), deadline))).collect();
    let mut opened = Vec::new();
    for watch in watches {
        opened.push(watch.await.unwrap_or(false));
    }
    opened
}

async fn watch(identity: Arc<NodeIdentity>, deadline: Instant) -> bool {
    let look = async {
        loop {
            if let Ok(mut connection) = identity.connect(None).await
                && connection.seal_status().await.is_ok_and(|status| status.is_open())
            {
                return;
            }
            // Between two looks at the condition; the deadline is the time-out below.
            sleep(LOOK).await;
        }
    };
    timeout_at(deadline, look).await.is_ok()
}
