//! `holdfast status`: would it open by itself now, and if something waits, for whom and what to type.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use comfy_table::{ContentArrangement, Table, presets};
use holdfast_core::id::{ClusterName, NodeName};
use holdfast_core::message::{Needs, Seen};
use holdfast_core::status::{ClusterStatus, CustodianStatus, NodeStatus, Status};
use holdfast_core::time::Timestamp;
use holdfast_edge::clock;

use crate::operator::Operator;

/// How long the sentinel is waited for.
const DEADLINE: Duration = Duration::from_secs(5);

/// The largest answer that is taken: hundreds of custodians fit.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// What `status` is asked for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The operator's configuration
    #[arg(long, default_value = "operator.toml")]
    config: PathBuf,
    /// The cluster; without it, all
    #[arg(long)]
    cluster: Option<ClusterName>,
    /// Print the sentinel's answer as JSON
    #[arg(long)]
    json: bool,
}

/// Asks the sentinel and prints what it knows. Succeeds only if every node is open and could be opened by itself.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let operator = Operator::load(&arguments.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut well = true;
    for (name, cluster) in &operator.clusters {
        if arguments.cluster.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let Some(url) = &cluster.sentinel else {
            anyhow::bail!(
                "{}: [clusters.{name}] names no sentinel: add sentinel = \"http://127.0.0.1:9640\" or where it listens",
                arguments.config.display()
            );
        };
        let body = runtime.block_on(ask(url))?;
        let status: Status = serde_json::from_slice(&body)
            .with_context(|| format!("{url} answered something that is not a sentinel's status"))?;
        let known = status.clusters.values().find(|known| known.id == cluster.manifest.id());
        let Some(known) = known else {
            anyhow::bail!("the sentinel at {url} does not watch cluster {name} ({})", cluster.manifest.id());
        };
        well &= is_well(known);
        let mut out = std::io::stdout();
        if arguments.json {
            out.write_all(&body)?;
            writeln!(out)?;
        } else {
            write!(out, "{}", render(name, known, &status, &arguments.config, clock::wall()))?;
        }
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn ask(url: &str) -> anyhow::Result<Vec<u8>> {
    holdfast_edge::tls::install_provider();
    let client =
        reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(DEADLINE).build()?;
    let unreachable = || format!("the sentinel at {url} cannot be asked: is it running?");
    let mut answer = client.get(format!("{url}/api/v1/status")).send().await.with_context(unreachable)?;
    anyhow::ensure!(answer.status().is_success(), "the sentinel at {url} answered {}", answer.status());
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.with_context(unreachable)? {
        anyhow::ensure!(
            body.len() + part.len() <= ANSWER_MAX,
            "the sentinel at {url} answered more than {ANSWER_MAX} bytes"
        );
        body.extend_from_slice(&part);
    }
    Ok(body)
}

fn is_well(cluster: &ClusterStatus) -> bool {
    cluster.margin >= 0 && cluster.nodes.values().all(|node| node.seen == Seen::Open)
}

fn render(name: &ClusterName, cluster: &ClusterStatus, status: &Status, config: &Path, now: Timestamp) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(text, "{}", headline(name, cluster));
    if status.broker_up == Some(false) {
        let _ =
            writeln!(text, "The sentinel has no connection to the broker: what follows of the custodians may be old.");
    }
    let mut nodes = table(["NODE", "SEEN", "SINCE", "CAUSE", "WAITS FOR"]);
    for (node, seen) in &cluster.nodes {
        nodes.add_row([
            node.to_string(),
            seen.seen.as_str().to_owned(),
            ago(seen.since, now),
            seen.cause.map_or_else(String::new, |cause| cause.to_string()),
            waits(seen),
        ]);
    }
    let _ = writeln!(text, "\n{nodes}");
    let mut custodians = table(["CUSTODIAN", "HEARD", "SHARE", "READY", "SANDBOX"]);
    for (id, custodian) in &cluster.custodians {
        let CustodianStatus { heard_at, ready, heartbeat, .. } = custodian;
        let share = heartbeat.as_ref().map_or("unknown", |h| if h.share.ok { "sound" } else { "not sound" });
        let sandbox = heartbeat.as_ref().map_or("unknown", |h| if h.sandboxed { "in force" } else { "off" });
        custodians.add_row([
            id.to_string(),
            heard_at.map_or_else(|| "never".to_owned(), |at| ago(at, now)),
            share.to_owned(),
            if *ready { "yes".to_owned() } else { "no".to_owned() },
            sandbox.to_owned(),
        ]);
    }
    let _ = writeln!(text, "\n{custodians}");
    for (node, seen) in &cluster.nodes {
        for line in advice(name, node, seen, cluster, config) {
            let _ = writeln!(text, "\n{line}");
        }
    }
    text
}

/// The first line: would it open by itself now?
fn headline(name: &ClusterName, cluster: &ClusterStatus) -> String {
    let ClusterStatus { ready, threshold, margin, .. } = cluster;
    let shut = cluster.nodes.values().filter(|node| node.seen != Seen::Open).count();
    let nodes = match (shut, cluster.nodes.len()) {
        (0, all) => format!("all {all} nodes are open"),
        (shut, all) => format!("{shut} of {all} nodes are not open"),
    };
    let would = if *margin >= 0 {
        format!(
            "{name} would open by itself after a crash: {ready} custodians ready, {threshold} needed, margin {margin}"
        )
    } else {
        format!("{name} would NOT open by itself: {ready} custodians ready, {threshold} needed, margin {margin}")
    };
    format!("{would}; {nodes}.")
}

fn waits(node: &NodeStatus) -> String {
    if node.seen == Seen::Open {
        // What custodians said before it opened.
        return String::new();
    }
    let said: Vec<_> = node.needs.iter().map(|(needs, many)| format!("{} ({many} say so)", in_words(*needs))).collect();
    said.join(", ")
}

fn in_words(needs: Needs) -> String {
    match needs {
        Needs::Contact => "an answer of the node".to_owned(),
        Needs::Evidence => "the cause to become known".to_owned(),
        Needs::Approvals { have, need } => format!("approvals, {have} of {need}"),
        Needs::Policy => "the policy, which says hold".to_owned(),
        Needs::Budget => "the budget of automatic openings".to_owned(),
        Needs::Share => "a sound share".to_owned(),
        Needs::Others => "other custodians".to_owned(),
        Needs::Generation => "shares that fit: every set was tried".to_owned(),
    }
}

/// What a person may do about a node that is not open.
fn advice(
    name: &ClusterName,
    node: &NodeName,
    status: &NodeStatus,
    cluster: &ClusterStatus,
    config: &Path,
) -> Vec<String> {
    if status.seen == Seen::Open {
        return Vec::new();
    }
    let mut lines = Vec::new();
    if let Some(at) = status.marker {
        lines.push(format!(
            "{node} was sealed on purpose, seen at {at}: it stays sealed until operators approve its opening."
        ));
    }
    if status.needs.iter().any(|(needs, _)| matches!(needs, Needs::Approvals { .. })) {
        let waiting: Vec<_> = cluster.approvals.iter().filter(|a| a.node == *node).map(|a| a.from.as_str()).collect();
        let so_far =
            if waiting.is_empty() { String::new() } else { format!(" (approved so far by {})", waiting.join(", ")) };
        lines.push(format!(
            "To open {node}{so_far}, an operator types:\n  holdfast approve --config {} --cluster {name} --node {node}",
            config.display()
        ));
    }
    if cluster.margin < 0 {
        lines.push(format!(
            "Only {} custodians are ready, and {} have to be: bring custodians back, or open {node} with holders' shares.",
            cluster.ready, cluster.threshold
        ));
    }
    lines
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    table
}

fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(at).as_secs();
    match seconds {
        0..=119 => format!("{seconds} s ago"),
        120..=7199 => format!("{} min ago", seconds / 60),
        7200..=172_799 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}
