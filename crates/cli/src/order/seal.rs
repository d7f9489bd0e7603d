//! `holdfast seal`: seals every node, and sees to it that they stay sealed: the hold first, then the seals.
//!
//! In an emergency nothing stands in the way of the seals: not the broker, not custodians that do not answer, not a node that does
//! not. What could not be done is said.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use holdfast_core::id::{ClusterName, MessageId, NodeName, Principal};
use holdfast_core::message::{Content, plain_text};
use holdfast_edge::admin::Admin;
use holdfast_edge::admin::rotation::Token;
use holdfast_edge::vault::NodeIdentity;
use holdfast_edge::{files, terminal};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Road, Sent, Signed, hold, send, sign};
use crate::operator::{Named, OperatedCluster, Operator};
use crate::output::quoted;
use crate::status;

/// How long the hold may take in an emergency.
pub(crate) const EMERGENCY_WAIT: Duration = Duration::from_secs(2);

/// How long a key may take to sign: one that wants to be touched waits for a person.
const SIGN_DEADLINE: Duration = Duration::from_secs(100);

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
pub(crate) struct Sealed {
    pub(crate) node: NodeName,
    /// Whether it was seen sealed.
    pub(crate) sealed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

/// What was done, for `--json`.
#[derive(Serialize)]
struct What {
    /// The hold's; none where it could not be signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<MessageId>,
    cluster: ClusterName,
    /// Whether the hold is in force.
    held: bool,
    sealed: Vec<NodeName>,
    /// The nodes that were not seen sealed: to be stopped by hand.
    not_sealed: Vec<Sealed>,
    /// Why the hold was not delivered, if it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
    answers: Vec<super::Answer>,
    /// The custodians that have not acknowledged it.
    unanswered: Vec<Principal>,
}

/// Orders the hold, seals, and says what is done and what is not.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let road = &arguments.road;
    anyhow::ensure!(road.output.is_none(), "a seal is not written to a file: write a hold, and seal each node by hand");
    let operator = Arc::new(road.load()?);
    let named = operator.cluster(road.cluster.as_ref())?;
    let content = hold::content(named, arguments.node.clone(), arguments.reason.clone())?;
    let token = token(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signing = Some(begin_to_sign(operator.clone(), arguments, content));
        let within = if arguments.emergency { EMERGENCY_WAIT } else { SIGN_DEADLINE };
        let deadline = Instant::now() + within;
        let mut order = Order::new(named.1);
        order.give(&operator, arguments, named, &mut signing, deadline).await;
        if !order.held && !arguments.emergency {
            let why = order.sent.trouble.map(|why| format!(" ({})", plain_text(&why))).unwrap_or_default();
            let stands = order.signed.map(|signed| {
                format!("; the hold {} stands all the same, and is ended with `holdfast release`", signed.id)
            });
            anyhow::bail!(
                "nothing was sealed: custodians that do not obey the hold would open the nodes again{why}. Mend that, or seal \
                 all the same with --emergency{}",
                stands.unwrap_or_default()
            );
        }
        let seals = seal_all(named.1, &arguments.node, &token).await;
        tell_seals(arguments, named, &seals);
        if order.sent.trouble.is_some() {
            // A token that was not touched, or a passphrase that was not typed, in time, or a slow broker: now there is time.
            match (&signing, &order.signed) {
                (Some(_), _) => road.say("the hold still waits for your key: touch the token, or type the passphrase"),
                (None, Some(_)) => road.say("the hold is sent once more"),
                (None, None) => {}
            }
            order.give(&operator, arguments, named, &mut signing, Instant::now() + SIGN_DEADLINE).await;
        }
        finish(arguments, named, order, seals)
    })
}

/// Signs the hold beside everything else: a key may wait for a person.
fn begin_to_sign(operator: Arc<Operator>, arguments: &Arguments, content: Content) -> Signing {
    let (done, signing) = oneshot::channel();
    let cluster = arguments.road.cluster.clone();
    std::thread::spawn(move || {
        let signed = operator
            .cluster(cluster.as_ref())
            .and_then(|(_, cluster)| sign(&operator, cluster, content, None, "hold".to_owned()));
        // Nobody to hear it where the command has ended.
        let _ = done.send(signed.map_err(|error| format!("{error:#}")));
    });
    signing
}

type Signing = oneshot::Receiver<Result<Signed, String>>;

/// The hold that is to keep shut what is sealed.
struct Order {
    signed: Option<Signed>,
    sent: Sent,
    held: bool,
}

impl Order {
    fn new(cluster: &OperatedCluster) -> Self {
        Self { signed: None, sent: Sent::nothing(cluster, "it was not signed".to_owned()), held: false }
    }

    /// Waits for the signature, sends the hold, and says who obeys.
    async fn give(
        &mut self,
        operator: &Operator,
        arguments: &Arguments,
        (name, cluster): Named<'_>,
        signing: &mut Option<Signing>,
        deadline: Instant,
    ) {
        let road = &arguments.road;
        if let Some(waited) = signing {
            let signed = match timeout_at(deadline, waited).await {
                Err(_) => return self.fail(road, "your key has not signed yet".to_owned()),
                Ok(signed) => signed.unwrap_or_else(|_| Err("signing ended without an answer".to_owned())),
            };
            *signing = None;
            match signed {
                Ok(signed) => {
                    road.say(&format!("hold {} of cluster {name}, signed by {}", signed.id, operator.principal));
                    self.signed = Some(signed);
                }
                Err(why) => return self.fail(road, why),
            }
        }
        let Some(signed) = &self.signed else { return };
        let deadline = if arguments.emergency { deadline.min(road.deadline()) } else { road.deadline() };
        let heard = |answer: &super::Answer| road.say(&format!("  {}: {}", answer.custodian, hold::tell(answer)));
        self.sent = match &operator.broker {
            Some(broker) => send(broker, operator, cluster, std::slice::from_ref(signed), deadline, heard).await,
            None => Sent::nothing(cluster, format!("{} names no [broker]", road.config.display())),
        };
        let (word, held) = hold::binds(&self.sent, signed.id, cluster);
        match &self.sent.trouble {
            Some(why) => road.say(&format!("the hold was not delivered: {}", plain_text(why))),
            None => {
                road.say_unanswered(&self.sent, &[signed.id]);
                road.say(&word);
            }
        }
        self.held = held;
    }

    fn fail(&mut self, road: &Road, why: String) {
        road.say(&format!("the hold was not ordered: {}", plain_text(&why)));
        self.sent.trouble = Some(why);
    }
}

fn token(arguments: &Arguments) -> anyhow::Result<Token> {
    match &arguments.token_file {
        Some(file) => read_token(file),
        None => {
            let typed = terminal::read_hidden("token that may seal: ", TOKEN_MAX)?;
            Token::new(&typed).context("no token was given: type it, pipe it in, or name a file with --token-file")
        }
    }
}

/// A token from a file that only its owner may read.
pub(crate) fn read_token(file: &Path) -> anyhow::Result<Token> {
    Token::new(&files::read_secret(file, TOKEN_MAX)?)
        .with_context(|| format!("{} has no token in it: put one there, on one line", file.display()))
}

/// Says which nodes are sealed, and which are not.
fn tell_seals(arguments: &Arguments, (_, cluster): Named<'_>, seals: &[Sealed]) {
    let road = &arguments.road;
    for seal in seals {
        let node = &seal.node;
        match &seal.why {
            None => road.say(&format!("  {node}: sealed")),
            Some(why) => {
                let at = cluster.nodes.get(node).map(|config| config.identity.address()).unwrap_or_default();
                road.say(&format!("  {node}: NOT SEEN SEALED: {why}; stop its process by hand, at {at}"));
            }
        }
    }
    let sealed = seals.iter().filter(|seal| seal.sealed).count();
    road.say(&format!("{sealed} of {} nodes are sealed", seals.len()));
}

/// Says what follows, and whether all is done.
fn finish(arguments: &Arguments, (name, _): Named<'_>, order: Order, seals: Vec<Sealed>) -> anyhow::Result<ExitCode> {
    let road = &arguments.road;
    let Order { signed, sent, held } = order;
    let id = signed.map(|signed| signed.id);
    let (sealed, not_sealed): (Vec<_>, Vec<_>) = seals.into_iter().partition(|seal| seal.sealed);
    let unanswered = id.map_or_else(|| sent.everybody(), |id| sent.unanswered(id));
    let well = held && not_sealed.is_empty();
    let options = format!("{} --cluster {}", status::option(&road.config), quoted(name));
    if !held {
        let who = unanswered.iter().map(Principal::as_str).collect::<Vec<_>>().join(", ");
        road.say(&format!(
            "THE HOLD IS NOT IN FORCE: {who} did not acknowledge it. Nodes that custodians saw being sealed wait for operators' \
             approvals all the same; others, and those that are restarted where nobody saw it, may be opened. Order it again when \
             custodians can be reached, or carry it to them: holdfast hold{options} [--output FILE]"
        ));
        if id.is_some() && sent.trouble.is_some() {
            road.say(&format!(
                "whether it reached the broker all the same, and is obeyed later, holdfast status{} shows",
                status::option(&road.config)
            ));
        }
    }
    let release = match id.filter(|_| sent.trouble.is_none()) {
        Some(id) => format!("holdfast release{options} --hold {id}, and then "),
        None => String::new(),
    };
    road.say(&format!("to open again, operators type: {release}holdfast approve{options} --all"));
    let sealed = sealed.into_iter().map(|seal| seal.node).collect();
    let answers = id.map_or_else(Vec::new, |id| sent.answers(id).cloned().collect());
    let cluster = name.clone();
    road.print(&What { id, cluster, held, sealed, not_sealed, trouble: sent.trouble, answers, unanswered })?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Seals these nodes, or all, at once: one that is sealed may make the next one step down.
pub(crate) async fn seal_all(cluster: &OperatedCluster, only: &[NodeName], token: &Token) -> Vec<Sealed> {
    let nodes = cluster.nodes.iter().filter(|(name, _)| only.is_empty() || only.contains(name));
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

/// Looks once at each of these nodes, all at the same time and for [`LAST_LOOK`] at most: whether it is open. None where it has not
/// said.
pub(crate) async fn look_at_all(
    cluster: &OperatedCluster,
    only: &BTreeSet<NodeName>,
) -> BTreeMap<NodeName, Option<bool>> {
    let deadline = Instant::now() + LAST_LOOK;
    let nodes = cluster.nodes.iter().filter(|(name, _)| only.contains(name));
    let looks = nodes.map(|(name, config)| async move {
        let open = timeout_at(deadline, is_open(&config.identity)).await.ok().flatten();
        (name.clone(), open)
    });
    join_all(looks).await.into_iter().collect()
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
    while is_open(&identity).await != Some(false) {
        // Between two looks at the condition; the deadline is the caller's.
        sleep(LOOK).await;
    }
}

/// Whether the node says that it is open, on a connection that proved its identity; none where it does not say.
async fn is_open(identity: &Arc<NodeIdentity>) -> Option<bool> {
    let mut connection = identity.connect(None).await.ok()?;
    connection.seal_status().await.ok().map(|status| status.is_open())
}
