//! `holdfast status`: would it open by itself now, and if something waits, for whom and what to type. The words are the
//! core's (`verdict`), because the sentinel's page says the same.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use comfy_table::{ContentArrangement, Table, presets};
use holdfast_core::id::{ClusterName, NodeName};
use holdfast_core::message::{Seen, plain_text};
use holdfast_core::status::{ClusterStatus, NodeStatus, Status};
use holdfast_core::time::Timestamp;
use holdfast_core::verdict::{self, Answer, Verdict};
use holdfast_edge::clock;

use crate::operator::Operator;
use crate::output::quoted;

/// How long the sentinel is waited for.
const DEADLINE: Duration = Duration::from_secs(5);

/// The largest answer that is taken: hundreds of custodians fit.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// The operator's configuration, where none is named: also the default of the commands that are advised.
pub(crate) const CONFIG: &str = "operator.toml";

/// What `status` is asked for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The operator's configuration
    #[arg(long, default_value = CONFIG)]
    config: PathBuf,
    /// The cluster; without it, all
    #[arg(long)]
    cluster: Option<ClusterName>,
    /// Only this node
    #[arg(long, conflicts_with = "json")]
    node: Option<NodeName>,
    /// Print the sentinel's answer about these clusters as JSON: one document for each sentinel
    #[arg(long)]
    json: bool,
}

/// Asks each sentinel once and prints what it knows. Succeeds only if every node is open and could be opened by itself.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let operator = Operator::load(&arguments.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let clusters = operator.clusters(arguments.cluster.as_ref())?;
    let mut sentinels: BTreeMap<&str, (Status, Vec<u8>)> = BTreeMap::new();
    let mut shown: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut well = true;
    for (place, &(name, cluster)) in clusters.iter().enumerate() {
        let Some(url) = &cluster.sentinel else {
            anyhow::bail!(
                "{}: [clusters.{name}] names no sentinel: add sentinel = \"http://127.0.0.1:9640\" or where it listens",
                arguments.config.display()
            );
        };
        let (status, _) = match sentinels.entry(url) {
            Entry::Occupied(asked) => asked.into_mut(),
            Entry::Vacant(unasked) => unasked.insert(runtime.block_on(ask(url))?),
        };
        let id = cluster.manifest.id();
        let known = status.clusters.values().find(|known| known.id == id);
        let Some(known) = known else {
            anyhow::bail!("the sentinel at {url} does not watch cluster {name} ({id})");
        };
        let node = arguments.node.as_ref();
        if let Some(node) = node.filter(|node| !known.nodes.contains_key(node)) {
            let there = known.nodes.keys().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
            anyhow::bail!("cluster {name} has no node {node}, it has: {there}");
        }
        well &= is_well(known, node) && Verdict::of(known, status).answer == Answer::Yes;
        shown.entry(url).or_default().insert(id.to_string());
        if !arguments.json {
            let gap = if place == 0 { "" } else { "\n\n" };
            let text = render(name, known, status, node, &arguments.config, clock::wall());
            write!(std::io::stdout(), "{gap}{text}")?;
        }
    }
    for (url, (_, body)) in sentinels.iter().filter(|_| arguments.json) {
        writeln!(std::io::stdout(), "{}", only(body, &shown[url])?)?;
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A sentinel's answer with these clusters alone, and with all that it says of them and of itself, also what is not known here.
fn only(body: &[u8], clusters: &BTreeSet<String>) -> anyhow::Result<serde_json::Value> {
    let mut document: serde_json::Value = serde_json::from_slice(body)?;
    if let Some(all) = document["clusters"].as_object_mut() {
        all.retain(|_, cluster| cluster["id"].as_str().is_some_and(|id| clusters.contains(id)));
    }
    Ok(document)
}

/// What the sentinel at this address knows.
pub(crate) async fn fetch(url: &str) -> anyhow::Result<Status> {
    Ok(ask(url).await?.0)
}

async fn ask(url: &str) -> anyhow::Result<(Status, Vec<u8>)> {
    let client =
        reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(DEADLINE).build()?;
    let unreachable = || format!("the sentinel at {url} cannot be asked (is it running, and is this its address?)");
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
    let status = serde_json::from_slice(&body)
        .with_context(|| format!("{url} answered something that is not a sentinel's status"))?;
    Ok((status, body))
}

fn is_well(cluster: &ClusterStatus, only: Option<&NodeName>) -> bool {
    let mut nodes = cluster.nodes.iter().filter(|(name, _)| only.is_none_or(|only| only == *name));
    let is_well =
        |(name, node): (&NodeName, &NodeStatus)| node.seen == Seen::Open && !verdict::is_held(name, node, cluster);
    cluster.margin >= 0 && nodes.all(is_well)
}

/// What is known of a cluster, or of one node of it, as text.
pub(crate) fn render(
    name: &ClusterName,
    cluster: &ClusterStatus,
    status: &Status,
    only: Option<&NodeName>,
    config: &Path,
    now: Timestamp,
) -> String {
    let shown = || cluster.nodes.iter().filter(|(name, _)| only.is_none_or(|only| only == *name));
    let verdict = Verdict::of(cluster, status);
    let mut blocks = vec![verdict::headline(name, &verdict)];
    if !verdict.doubts.is_empty() {
        blocks.push(verdict.doubts.join("\n"));
    }
    let mut nodes = table(["NODE", "SEEN", "SINCE", "CAUSE", "BUDGET", "WAITS FOR"]);
    for (node, seen) in shown() {
        let shut = seen.seen != Seen::Open;
        nodes.add_row([
            node.to_string(),
            seen.seen.as_str().to_owned(),
            verdict::ago(seen.since, now),
            seen.cause.filter(|_| shut).map_or_else(String::new, |cause| cause.to_string()),
            budget(node, cluster),
            verdict::waits(seen),
        ]);
    }
    blocks.push(trimmed(&nodes));
    if !cluster.holds.is_empty() {
        blocks.push(trimmed(&holds(cluster, now)));
    }
    if only.is_none() {
        let mut custodians = table(["CUSTODIAN", "SITE", "HEARD", "PROVEN", "READY"]);
        for (id, custodian) in &cluster.custodians {
            custodians.add_row([
                id.to_string(),
                custodian.site.as_ref().map_or_else(String::new, ToString::to_string),
                custodian.heard_at.map_or_else(|| "never".to_owned(), |at| verdict::ago(at, now)),
                custodian.share_proven.as_ref().map_or_else(|| "never".to_owned(), |p| verdict::moment(p.at, now)),
                verdict::unready(custodian).map_or_else(|| "yes".to_owned(), |why| format!("no: {why}")),
            ]);
        }
        blocks.push(trimmed(&custodians));
    }
    let options = option(config);
    let of_nodes = shown().flat_map(|(node, _)| verdict::advice(name, node, cluster, now, &options));
    let advice = verdict::orders_advice(name, cluster, now, &options).into_iter().chain(of_nodes);
    blocks.extend(advice.map(|advice| match advice.command {
        Some(command) => format!("{}\n  {command}", advice.what),
        None => advice.what,
    }));
    blocks.join("\n\n") + "\n"
}

fn holds(cluster: &ClusterStatus, now: Timestamp) -> Table {
    let mut holds = table(["HOLD", "HELD", "SINCE", "BY", "OBEYED BY", "RELEASED BY", "WHY"]);
    for hold in &cluster.holds {
        let released: BTreeSet<_> = hold.released_by.keys().collect();
        holds.add_row([
            hold.id.to_string(),
            if hold.nodes.is_empty() { "all nodes".to_owned() } else { verdict::names(&hold.nodes) },
            verdict::moment(hold.held_at, now),
            hold.by.to_string(),
            format!("{} of {}", hold.obeyed_by.len(), cluster.custodians.len()),
            format!("{} of {} {}", released.len(), hold.need, verdict::names(&released)),
            hold.reason.as_deref().map_or_else(String::new, plain_text),
        ]);
    }
    holds
}

/// How many automatic openings custodians have left for a node in this hour.
fn budget(node: &NodeName, cluster: &ClusterStatus) -> String {
    match verdict::budget(node, cluster) {
        None => String::new(),
        Some((fewest, most)) if fewest == most => most.to_string(),
        Some((fewest, most)) => format!("{fewest}–{most}"),
    }
}

/// The configuration as an option that a shell takes; none where it is the default.
pub(crate) fn option(config: &Path) -> String {
    if config == Path::new(CONFIG) {
        return String::new();
    }
    format!(" --config {}", quoted(config.display()))
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// A table without the blanks at its lines' ends.
fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A sentinel's answer about a cluster of two nodes, of which the first was sealed by hand.
    fn answer() -> serde_json::Value {
        let node = |seen: &str| {
            json!({
                "url": "https://127.0.0.1:8200", "seen": seen, "since": "2026-11-22T10:00:00.000Z", "cause": null, "needs": [],
                "marker": null, "ready": 5, "certificate_not_after": null, "shared_address": false, "identity_refused": null,
            })
        };
        let mut sealed = node("sealed");
        sealed["cause"] = json!("in-place");
        sealed["marker"] = json!("2026-11-22T10:00:00.000Z");
        sealed["needs"] = json!([[{"what": "approvals", "have": 0, "need": 2}, 5]]);
        let custodian = json!({"heard_at": null, "up": false, "ready": false, "site": null, "heartbeat": null});
        json!({
            "sentinel": "sentinel-1", "version": "0", "at": "2026-11-22T10:00:10.000Z", "broker_up": true,
            "started_at": "2026-11-22T09:00:00.000Z",
            "clusters": {"prod": {
                "id": "00".repeat(16), "shares": 5, "threshold": 3, "ready": 5, "margin": 2, "margin_without_largest_site": 0,
                "diverged": false, "generation_mismatch": false, "nodes": {"vault-1": sealed, "vault-2": node("open")},
                "custodians": {"custodian-1": custodian}, "approvals": [], "incidents": [],
            }},
        })
    }

    fn shown(answer: serde_json::Value, only: Option<&str>, config: &str) -> String {
        let status: Status = serde_json::from_value(answer).expect("a status");
        let (name, cluster) = status.clusters.first_key_value().expect("a cluster");
        let only = only.map(|node| node.parse().expect("a node's name"));
        let now = "2026-11-22T10:00:10.000Z".parse().expect("a time");
        render(name, cluster, &status, only.as_ref(), Path::new(config), now)
    }

    #[test]
    fn a_node_that_was_sealed_by_hand_is_told_with_what_to_type() {
        let text = shown(answer(), None, "/etc/hold fast/alice.toml");
        for part in [
            "Would prod open by itself now? No: vault-1 was sealed on purpose and waits for approvals, 0 of 2.\n",
            "1 of 2 nodes is not open.",
            "vault-1  sealed  10 s ago  in-place          approvals, 0 of 2 (5 say so)",
            "vault-2  open    10 s ago\n",
            "vault-1 was sealed on purpose",
            "\n  holdfast approve --config '/etc/hold fast/alice.toml' --cluster prod --node vault-1\n",
            "no: it was never heard from",
        ] {
            assert!(text.contains(part), "{part:?} is missing from:\n{text}");
        }
        assert!(text.lines().all(|line| line == line.trim_end()), "blanks at a line's end:\n{text}");
    }

    #[test]
    fn a_hold_is_told_with_who_obeys_and_what_to_type_and_is_not_well() {
        let mut held = answer();
        let obeyed_by: Vec<_> = (1..=4).map(|i| format!("custodian-{i}")).collect();
        let cluster = &mut held["clusters"]["prod"];
        cluster["holds"] = json!([{
            "id": "3f".repeat(16), "by": "carol", "held_at": "2026-11-22T09:30:00.000Z", "nodes": ["vault-2"],
            "reason": "forensics", "released_by": {"bob": 4}, "need": 2, "obeyed_by": obeyed_by,
        }]);
        cluster["nodes"]["vault-1"]["ready_unheld"] = json!(5);
        let text = shown(held.clone(), None, CONFIG);
        for part in [
            "No: vault-2 is held since today 09:30 by carol: “forensics”; vault-1 was sealed on purpose and waits",
            "\nHOLD                              HELD     SINCE        BY     OBEYED BY  RELEASED BY  WHY\n",
            "  vault-2  today 09:30  carol  4 of 1     1 of 2 bob   forensics\n",
            "released so far by bob. To end it, another operator types:\n  holdfast release --cluster prod --hold 3f3f",
        ] {
            assert!(text.contains(part), "{part:?} is missing from:\n{text}");
        }
        let status: Status = serde_json::from_value(held).expect("a status");
        let (open, cluster) = ("vault-2".parse().expect("a name"), status.clusters.values().next().expect("one"));
        assert!(!is_well(cluster, Some(&open)), "it is open, and would not open again");
    }

    #[test]
    fn one_node_alone_is_told_without_the_others() {
        let text = shown(answer(), Some("vault-2"), CONFIG);
        assert!(
            text.contains("vault-2  open") && !text.contains("\nvault-1 ") && !text.contains("CUSTODIAN"),
            "{text}"
        );
        let text = shown(answer(), Some("vault-1"), CONFIG);
        assert!(
            text.contains("\n  holdfast approve --cluster prod --node vault-1\n") && !text.contains("vault-2"),
            "{text}"
        );
    }

    #[test]
    fn what_is_doubtful_is_said() {
        let mut worse = answer();
        worse["broker_up"] = json!(false);
        let cluster = &mut worse["clusters"]["prod"];
        cluster["ready"] = json!(1);
        cluster["margin"] = json!(-2);
        cluster["generation_mismatch"] = json!(true);
        cluster["custodians"]["custodian-1"]["up"] = json!(true);
        cluster["nodes"]["vault-2"]["shared_address"] = json!(true);
        let text = shown(worse, None, CONFIG);
        for part in [
            "Would prod open by itself now? No: vault-1 was sealed on purpose and waits for approvals, 0 of 2.\n",
            "The sentinel has no connection to the broker",
            "the generation that the manifest names",
            "Several processes answer at https://127.0.0.1:8200",
            "Only 1 custodian is ready, and it takes 3",
        ] {
            assert!(text.contains(part), "{part:?} is missing from:\n{text}");
        }
    }
}
