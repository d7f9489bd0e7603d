//! `holdfast hold`: nobody opens a cluster, or some of its nodes, until enough operators have released it. One operator is enough.

use std::process::ExitCode;

use holdfast_core::id::{MessageId, NodeName};
use holdfast_core::message::{Content, Effect, Hold, TEXT_MAX, plain_text};
use serde::Serialize;

use super::{Answer, Road, Sent};
use crate::operator::{Named, OperatedCluster};
use crate::output::quoted;

/// What `hold` is asked for.
#[derive(clap::Args)]
#[command(
    long_about = "Keep a cluster or nodes of it shut: no custodian releases a share while the hold is in force, whatever \
                  happens to the nodes.\n\nOne operator is enough to order it; it takes several to end it (`holdfast \
                  release`). A hold seals nothing: what is open stays open (`holdfast seal` seals). Succeeds when so many \
                  custodians obey that the others could not open a node.",
    after_help = "Example: holdfast hold --reason \"forensics on vault-2, ask Carol\""
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    road: Road,
    /// A node that is to stay shut; repeatable. Without it, the whole cluster
    #[arg(long)]
    node: Vec<NodeName>,
    /// The whole cluster, as without --node
    #[arg(long, conflicts_with = "node")]
    all: bool,
    /// Why, for everybody who looks
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct What {
    nodes: Vec<NodeName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Signs a hold, sends it, and says who obeys.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let road = &arguments.road;
    let operator = road.load()?;
    let (name, cluster) = operator.cluster(road.cluster.as_ref())?;
    let content = content((name, cluster), arguments.node.clone(), arguments.reason.clone())?;
    let what = What { nodes: arguments.node.clone(), reason: arguments.reason.clone() };
    let end = |sent: &Sent, id| {
        let (word, holds) = binds(sent, id, cluster);
        let config = crate::status::option(&road.config);
        let release =
            format!("to end it, operators type: holdfast release{config} --cluster {} --hold {id}", quoted(name));
        (format!("{word}\n{release}"), holds)
    };
    road.order(&operator, (name, cluster), content, what, tell, end)
}

/// A hold on these nodes of the cluster.
pub(crate) fn content(
    (name, cluster): Named<'_>,
    nodes: Vec<NodeName>,
    reason: Option<String>,
) -> anyhow::Result<Content> {
    for node in &nodes {
        cluster.known_node(name, node)?;
    }
    if let Some(reason) = &reason {
        anyhow::ensure!(
            plain_text(reason) == *reason,
            "the reason is longer than {TEXT_MAX} bytes, or has characters in it that cannot be seen: write it shorter"
        );
    }
    Ok(Content::Hold(Hold { nodes, reason }))
}

/// A custodian's answer to a hold, in words.
pub(super) fn tell(answer: &Answer) -> String {
    let flies: Vec<_> = answer.in_flight.iter().map(NodeName::as_str).collect();
    match &answer.effect {
        Effect::InForce {} if flies.is_empty() => "obeys".to_owned(),
        Effect::InForce {} => {
            format!("obeys; its share may be in {} still, and is being called back", flies.join(", "))
        }
        effect => super::in_words(effect, "obeys"),
    }
}

/// Whether so many custodians obey that the others cannot open a node, in words too.
pub(crate) fn binds(sent: &Sent, id: MessageId, cluster: &OperatedCluster) -> (String, bool) {
    let obey = sent.answers(id).filter(|answer| matches!(answer.effect, Effect::InForce {})).count();
    let (all, threshold) = (sent.custodians(), usize::from(cluster.manifest.threshold()));
    let others = all - obey;
    if others < threshold {
        (format!("{obey} of {all} custodians obey: it is in force, the others are too few to open a node"), true)
    } else {
        let word = format!(
            "NOT IN FORCE YET: {obey} of {all} custodians obey, and {others} have not said so: {threshold} could still open a \
             node. Those that are only down will obey when they come back"
        );
        (word, false)
    }
}
