//! `holdfast seal`: seals every node, and sees to it that they stay sealed: the hold first, then the seals.
//!
//! In an emergency nothing stands in the way of the seals: not the broker, not custodians that do not answer, not a node that does
//! not. What could not be done is said.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use holdfast_core::id::{MessageId, NodeName, Principal};
use holdfast_core::message::plain_text;
use holdfast_edge::admin::Admin;
use holdfast_edge::admin::rotation::Token;
use holdfast_edge::vault::NodeIdentity;
use holdfast_edge::{files, terminal};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Done, Road, Sent, hold, send, sign};
use crate::operator::{Named, Operator};
use crate::output::quoted;
use crate::status;

/// How long the hold may take in an emergency.
const EMERGENCY_WAIT: Duration = Duration::from_secs(2);

/// How long a node may take to be sealed: with raft it steps down first.
const SEAL_DEADLINE: Duration = Duration::from_secs(15);

/// The time between two looks at a node that is being sealed.
const LOOK: Duration = Duration::from_millis(50);

/// How long a node that refused to seal itself is still looked at: it may be sealed already.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// The largest token file that is read, in bytes: a batch token has a few hundred.
const TOKEN_MAX: usize = 4096;

/// What `seal` is asked for.
#[derive(clap::Args)]
#[command(
    long_about = "Seal the nodes of a cluster, and hold it shut: a hold is ordered first, so that nobody opens what is sealed. It \
                  takes several operators to end the hold (`holdfast release`), and to approve each node's opening.\n\nWithout \
                  --emergency, nothing is sealed until so many custodians obey the hold that the others could not open a node. \
                  With it, the hold is waited for 2 seconds at most, and then every node is sealed, whatever became of it.\n\n\
                  The token needs `update` and `sudo` on sys/seal. Succeeds when every node was seen sealed and the hold is in \
                  force; says what is not, and what is to be done by hand.",
    after_help = "Example: holdfast seal --emergency --token-file seal.token --reason \"intruder on vault-2\""
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    road: Road,
    /// Seal at once, also if the hold cannot be ordered or nobody answers
    #[arg(long)]
    emergency: bool,
    /// A file with a token in it that may seal; only its owner may read it. Without it, the token is asked for
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A node to seal; repeatable. Without it, every node, and the whole cluster is held
    #[arg(long)]
    node: Vec<NodeName>,
    /// Why, for everybody who looks
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// What became of one node.
#[derive(Serialize)]
struct Sealed {
    node: NodeName,
    /// Whether it was seen sealed.
    sealed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

#[derive(Serialize)]
struct What {
    held: bool,
    sealed: Vec<NodeName>,
    /// The nodes that were not seen sealed: to be stopped by hand.
    not_sealed: Vec<Sealed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

/// Orders the hold, seals, and says what is done and what is not.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let road = &arguments.road;
    anyhow::ensure!(road.output.is_none(), "a seal is not written to a file: write a hold, and seal each node by hand");
    let operator = road.load()?;
    let named = operator.cluster(road.cluster.as_ref())?;
    let content = hold::content(named, arguments.node.clone(), arguments.reason.clone())?;
    let token = token(arguments)?;
    let signed = sign(&operator, named.1, content, None, "hold".to_owned())?;
    let id = signed.id;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        road.say(&format!("hold {id} of cluster {}, signed by {}", named.0, operator.principal));
        let sent = order(arguments, &operator, named, &signed).await;
        let (word, held) = hold::binds(&sent, id, named.1);
        for custodian in sent.unanswered(id) {
            road.say(&format!("  {custodian}: no answer"));
        }
        match &sent.trouble {
            Some(why) => road.say(&format!("the hold was not delivered: {}", plain_text(why))),
            None => road.say(&word),
        }
        if !held && !arguments.emergency {
            let why = sent.trouble.map(|why| format!(" ({why})")).unwrap_or_default();
            anyhow::bail!(
                "nothing was sealed: custodians that do not obey the hold would open the nodes again{why}. Mend that, or seal \
                 all the same with --emergency"
            );
        }
        let seals = seal_all(arguments, named, &token).await;
        finish(arguments, named, &sent, id, held, seals)
    })
}

async fn order(arguments: &Arguments, operator: &Operator, (_, cluster): Named<'_>, signed: &super::Signed) -> Sent {
    let road = &arguments.road;
    let deadline = if arguments.emergency { Instant::now() + EMERGENCY_WAIT } else { road.deadline() };
    let heard = |answer: &super::Answer| road.say(&format!("  {}: {}", answer.custodian, hold::tell(answer)));
    let Some(broker) = &operator.broker else {
        return Sent::nothing(cluster, format!("{} names no [broker]", road.config.display()));
    };
    let sending = send(broker, operator, cluster, std::slice::from_ref(signed), deadline, heard);
    sending.await
}

fn token(arguments: &Arguments) -> anyhow::Result<Token> {
    match &arguments.token_file {
        Some(file) => Token::new(&files::read_secret(file, TOKEN_MAX)?)
            .with_context(|| format!("{} has no token in it: put one there, on one line", file.display())),
        None => {
            let typed = terminal::read_hidden("token that may seal: ", TOKEN_MAX)?;
            Token::new(&typed).context("no token was given: type it, pipe it in, or name a file with --token-file")
        }
    }
}

/// Says what was done and what was not.
fn finish(
    arguments: &Arguments,
    (name, cluster): Named<'_>,
    sent: &Sent,
    id: MessageId,
    held: bool,
    seals: Vec<Sealed>,
) -> anyhow::Result<ExitCode> {
    let road = &arguments.road;
    for seal in &seals {
        let node = &seal.node;
        match &seal.why {
            None => road.say(&format!("  {node}: sealed")),
            Some(why) => {
                let at = cluster.nodes.get(node).map(|config| config.identity.address()).unwrap_or_default();
                road.say(&format!("  {node}: NOT SEEN SEALED: {why}; stop its process by hand, at {at}"));
            }
        }
    }
    let (sealed, not_sealed): (Vec<_>, Vec<_>) = seals.into_iter().partition(|seal| seal.sealed);
    let unanswered = sent.unanswered(id);
    let well = held && not_sealed.is_empty();
    let (done, all) = (sealed.len(), sealed.len() + not_sealed.len());
    road.say(&format!("{done} of {all} nodes are sealed"));
    let options = format!("{} --cluster {}", status::option(&road.config), quoted(name));
    if !held {
        let who = unanswered.iter().map(Principal::as_str).collect::<Vec<_>>().join(", ");
        road.say(&format!(
            "THE HOLD IS NOT IN FORCE: {who} did not acknowledge it. Nodes that custodians saw being sealed wait for operators' \
             approvals all the same; others, and those that are restarted where nobody saw it, may be opened. Order it again when \
             custodians can be reached, or carry it to them: holdfast hold{options} [--output FILE]"
        ));
    }
    let release = match &sent.trouble {
        Some(_) => String::new(),
        None => format!("holdfast release{options} --hold {id}, and then "),
    };
    road.say(&format!("to open again, operators type: {release}holdfast approve{options} --all"));
    let sealed = sealed.into_iter().map(|seal| seal.node).collect();
    let what = What { held, sealed, not_sealed, trouble: sent.trouble.clone() };
    let answers = sent.answers(id).cloned().collect();
    let cluster = name.clone();
    road.print(&Done { id, kind: "hold", cluster, what, expires_at: None, file: None, answers, unanswered })?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Seals all nodes at once: one that is sealed may make the next one step down.
async fn seal_all(arguments: &Arguments, (_, cluster): Named<'_>, token: &Token) -> Vec<Sealed> {
    let nodes = cluster.nodes.iter().filter(|(name, _)| arguments.node.is_empty() || arguments.node.contains(name));
    let deadline = Instant::now() + SEAL_DEADLINE;
    let seals: Vec<_> = nodes
        .map(|(name, config)| {
            let (node, identity, token) = (name.clone(), config.identity.clone(), token.clone());
            tokio::spawn(async move {
                let why = seal(identity, token, deadline).await.err();
                Sealed { node, sealed: why.is_none(), why }
            })
        })
        .collect();
    let mut done = Vec::new();
    for seal in seals {
        done.extend(seal.await);
    }
    done
}

/// Asks one node to seal itself, and returns when it was seen sealed; or says why it was not.
async fn seal(identity: Arc<NodeIdentity>, token: Token, deadline: Instant) -> Result<(), String> {
    let admin = Admin::of_node(&identity).map_err(|error| error.to_string())?;
    let mut asked = Ok(());
    let ask = async {
        asked = admin.seal(&token).await.map_err(|error| plain_text(&error.to_string()));
        // What the node said is no proof either way: eyes decide, until the deadline, or at once when it refused.
        if asked.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let seen = tokio::select! {
        seen = timeout_at(deadline, look(identity.clone())) => seen.is_ok(),
        () = ask => timeout_at(Instant::now() + LAST_LOOK, look(identity.clone())).await.is_ok(),
    };
    match (seen, asked) {
        (true, _) => Ok(()),
        (false, Err(why)) => Err(why),
        (false, Ok(())) => Err("it was not seen sealed in time".to_owned()),
    }
}

/// Returns when the node itself says that it is sealed, on a connection that proved its identity.
async fn look(identity: Arc<NodeIdentity>) {
    loop {
        if let Ok(mut connection) = identity.connect(None).await
            && connection.seal_status().await.is_ok_and(|status| !status.is_open())
        {
            return;
        }
        // Between two looks at the condition; the deadline is the caller's.
        sleep(LOOK).await;
    }
}
