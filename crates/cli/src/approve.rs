//! `holdfast approve`: an operator's signed consent to open nodes, once, soon.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::admission::PERMISSION_LIFE_MAX;
use holdfast_core::id::{MessageId, NodeName};
use holdfast_core::message::{Approval, Content, Effect, Kind, plain_text};
use holdfast_edge::clock;
use holdfast_edge::vault::NodeIdentity;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout_at};

use crate::order::{Done, Road, Sent, Signed, send, sign};

/// How long the nodes are watched for an effect: where other operators' approvals are missing, there will be none.
const WATCH: Duration = Duration::from_secs(10);

/// The time between two looks at a node that is watched.
const LOOK: Duration = Duration::from_millis(100);

/// How long custodians' answers are waited for at most: what counts is whether the nodes open.
const ANSWERS: Duration = Duration::from_secs(3);

/// What `approve` is asked for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    road: Road,
    /// A node that may be opened; repeatable
    #[arg(long, required_unless_present = "all")]
    node: Vec<NodeName>,
    /// Every node of the cluster
    #[arg(long, conflicts_with = "node")]
    all: bool,
    /// For how many minutes the approval counts
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u8).range(1..=15))]
    minutes: u8,
    /// Do not wait to see whether the nodes open
    #[arg(long)]
    no_wait: bool,
}

#[derive(Serialize)]
struct What {
    node: NodeName,
    #[serde(skip_serializing_if = "Option::is_none")]
    open: Option<bool>,
}

/// Signs an approval for each node, and sends or writes them.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let road = &arguments.road;
    let operator = road.load()?;
    let (name, cluster) = operator.cluster(road.cluster.as_ref())?;
    let nodes: Vec<_> = if arguments.all { cluster.nodes.keys().cloned().collect() } else { arguments.node.clone() };
    let life = Duration::from_secs(u64::from(arguments.minutes) * 60).min(PERMISSION_LIFE_MAX);
    let expires_at = clock::wall().after(life);
    let mut signed = Vec::new();
    for node in &nodes {
        cluster.known_node(name, node)?;
        let content = Content::Approval(Approval { node: node.clone() });
        signed.push(sign(&operator, cluster, content, Some(life), format!("approval-{node}"))?);
    }
    let done = |signed: &Signed, node: &NodeName, open| Done {
        id: signed.id,
        kind: Kind::Approval.as_str(),
        cluster: name.clone(),
        what: What { node: node.clone(), open },
        expires_at: Some(expires_at),
        file: None,
        answers: Vec::new(),
        unanswered: Vec::new(),
    };
    if let Some(output) = &road.output {
        let files = road.write(output, &signed)?;
        let written = signed.iter().zip(&nodes).zip(files);
        let all: Vec<_> =
            written.map(|((signed, node), file)| Done { file: Some(file), ..done(signed, node, None) }).collect();
        road.print(&all)?;
        return Ok(ExitCode::SUCCESS);
    }
    let broker = road.broker(&operator)?;
    for (signed, node) in signed.iter().zip(&nodes) {
        road.say(&format!("{node}: approval {} of {}, valid until {expires_at}", signed.id, operator.principal));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let identities: Vec<_> = nodes.iter().filter_map(|node| Some(cluster.nodes.get(node)?.identity.clone())).collect();
    let (sent, opened) = runtime.block_on(async {
        let wait = Duration::from_secs(road.wait).min(ANSWERS);
        let sent = send(broker, &operator, cluster, &signed, Instant::now() + wait, |_| ());
        if arguments.no_wait { (sent.await, Vec::new()) } else { tokio::join!(sent, watch_all(identities)) }
    });
    if let Some(trouble) = &sent.trouble {
        anyhow::bail!("the approval was not delivered: {trouble}; with --output it is written to a file, and carried");
    }
    let mut all = Vec::new();
    for (number, (signed, node)) in signed.iter().zip(&nodes).enumerate() {
        let open = opened.get(number).copied();
        road.say(&format!("{node}: {}", in_words(&sent, signed.id, open)));
        let (answers, unanswered) = (sent.answers(signed.id).cloned().collect(), sent.unanswered(signed.id));
        all.push(Done { answers, unanswered, ..done(signed, node, open) });
    }
    road.print(&all)?;
    // Sent is done: whether it was enough is the custodians' to say. But one of which all say that it is for nothing is not.
    let for_nothing = |signed: &Signed| {
        let mut effects = sent.answers(signed.id).map(|answer| &answer.effect).peekable();
        effects.peek().is_some() && effects.all(|effect| matches!(effect, Effect::Inapplicable { .. }))
    };
    Ok(if signed.iter().any(for_nothing) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What became of an approval: what was seen of the node, and what custodians say.
fn in_words(sent: &Sent, id: MessageId, open: Option<bool>) -> String {
    let answers: Vec<_> = sent.answers(id).collect();
    let heard = format!("{} of {} custodians have it", answers.len(), sent.custodians());
    if open == Some(true) {
        return "open".to_owned();
    }
    let still = if open == Some(false) { "still sealed; " } else { "" };
    let missing = answers.iter().find_map(|answer| match &answer.effect {
        Effect::Waiting { have, need } => Some(format!("approved by {have} of {need} operators")),
        Effect::Inapplicable { why } => Some(plain_text(why)),
        Effect::InForce {} => None,
    });
    let see = "`holdfast status` says what it waits for";
    match missing {
        Some(missing) => format!("{still}{missing} ({heard}); {see}"),
        None => format!("{still}{heard}; {see}"),
    }
}

/// Whether each node is seen open before the time is up.
async fn watch_all(nodes: Vec<Arc<NodeIdentity>>) -> Vec<bool> {
    let deadline = Instant::now() + WATCH;
    let watches: Vec<_> = nodes.into_iter().map(|node| tokio::spawn(watch(node, deadline))).collect();
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
