//! `holdfast release`: an operator wants a hold, or all of them, to end. A hold ends when enough operators want that.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use holdfast_core::envelope::{ENVELOPE_MAX, Envelope};
use holdfast_core::id::{ClusterName, MessageId, NodeName, Principal};
use holdfast_core::message::{Body, Content, Hold, Kind, Release, plain_text};
use holdfast_core::orders::VOICES_PER_OPERATOR;
use holdfast_core::status::HoldStatus;
use holdfast_core::time::Timestamp;
use holdfast_edge::{clock, files, terminal};
use serde::Serialize;

use tokio::time::{Instant, sleep};

use super::{Answer, Road, Sent};
use crate::operator::{Named, Operator};
use crate::output::quoted;
use crate::status;

/// The time between two looks at what the sentinel knows.
const LOOK: Duration = Duration::from_millis(250);

/// What `release` is asked for.
#[derive(clap::Args)]
#[command(
    long_about = "Say that a hold may end. It ends when as many operators have said so, within 15 minutes of each other, as the \
                  policy asks (release_approvals, 2 by default); then nodes open again as the policy says.\n\nWhat is signed \
                  names the hold, who ordered it, when, and for which nodes: look at it before you sign. Without a sentinel, \
                  give the file that `holdfast hold --output` wrote.\n\n--all and --by take the holds that custodians told of \
                  in their last heartbeats: one that was ordered in the last ten seconds may be missing. They list them, and \
                  ask once.",
    after_help = "Examples:\n  holdfast release --hold 3f2a77d0c1b24ea0a6de9b1d2f6c8a11\n  holdfast release --by carol"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    road: Road,
    /// The hold's id, as `holdfast status` shows it, or the file it was written to; not needed where there is only one
    #[arg(long, value_name = "ID|FILE", conflicts_with_all = ["all", "by"])]
    hold: Option<String>,
    /// Every hold of the cluster
    #[arg(long)]
    all: bool,
    /// Every hold of the cluster that this operator ordered
    #[arg(long, value_name = "OPERATOR")]
    by: Option<Principal>,
    /// Do not ask whether these are the holds that are to end
    #[arg(long)]
    yes: bool,
}

#[derive(Serialize)]
struct What {
    hold: MessageId,
    by: Principal,
    held_at: Timestamp,
    nodes: Vec<NodeName>,
}

/// A hold, as far as a release has to name it.
struct Found {
    id: MessageId,
    by: Principal,
    held_at: Timestamp,
    nodes: Vec<NodeName>,
    reason: Option<String>,
    /// How many custodians obey it, where the sentinel tells.
    obeyed_by: Option<usize>,
}

/// Signs a release and sends it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let road = &arguments.road;
    let operator = road.load()?;
    let named = operator.cluster(road.cluster.as_ref())?;
    if arguments.all || arguments.by.is_some() {
        return several(arguments, &operator, named);
    }
    let found = match arguments.hold.as_deref().map(Path::new).filter(|file| file.is_file()) {
        Some(file) => from_file(file, &operator, named)?,
        None => from_sentinel(arguments.hold.as_deref(), road, named)?,
    };
    road.say(&format!("the hold {found}"));
    let again = format!("--hold {}", found.id);
    let (content, what) = found.end();
    let (tell, end) = words(road, named, &again);
    road.order(&operator, named, content, what, tell, end)
}

/// Signs a release of each hold that is meant, once a person has seen which these are, and sends them together.
fn several(arguments: &Arguments, operator: &Operator, named: Named<'_>) -> anyhow::Result<ExitCode> {
    let Arguments { road, by, yes, .. } = arguments;
    let again = by.as_ref().map_or_else(|| "--all".to_owned(), |by| format!("--by {by}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut found = runtime.block_on(told(road, named))?;
    found.retain(|hold| by.as_ref().is_none_or(|by| hold.by == *by));
    let who = by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    anyhow::ensure!(!found.is_empty(), "no custodian that the sentinel hears tells of a hold{who}");
    // Where one is told in two ways, whoever is fewer lies, or is behind.
    let mut seen = BTreeSet::new();
    found.retain(|hold| seen.insert((hold.id, hold.by.clone())));
    found.sort_by_key(|hold| hold.held_at);
    let more = found.len().saturating_sub(VOICES_PER_OPERATOR);
    found.truncate(VOICES_PER_OPERATOR);
    confirm(road, named.0, &found, *yes)?;
    let orders = found.into_iter().map(Found::end).collect();
    let (tell, end) = words(road, named, &again);
    let code = road.order_all(operator, named, orders, tell, end)?;
    if more > 0 {
        road.say(&format!(
            "{more} more are left: one operator's word counts for {VOICES_PER_OPERATOR} holds at a time. Type it again when these have ended"
        ));
    }
    Ok(code)
}

/// Shows the holds, and asks once about all of them.
fn confirm(road: &Road, cluster: &ClusterName, found: &[Found], yes: bool) -> anyhow::Result<()> {
    let list = found.iter().map(|hold| format!("  {hold}")).collect::<Vec<_>>().join("\n");
    let list = format!("{} holds of cluster {cluster}:\n{list}", found.len());
    if yes {
        road.say(&list);
        return Ok(());
    }
    match terminal::confirm(&format!("{list}\nDo you want all of these to end?")) {
        Some(true) => Ok(()),
        Some(false) => anyhow::bail!("nothing was released"),
        None => {
            anyhow::bail!("nobody is at a terminal to be asked; nothing was released. Give --yes, or --hold ID. {list}")
        }
    }
}

/// A custodian's answer in words, and what follows from all of them. `again` is what another operator gives the command.
fn words(
    road: &Road,
    (name, cluster): Named<'_>,
    again: &str,
) -> (impl Fn(&Answer) -> String, impl Fn(&Sent, MessageId) -> (String, bool)) {
    const DONE: &str = "the hold is ended";
    let again = format!("holdfast release{} --cluster {} {again}", status::option(&road.config), quoted(name));
    let tell = |answer: &Answer| super::in_words(&answer.effect, DONE);
    (tell, move |sent: &Sent, id| super::outcome(sent, id, cluster, DONE, &again))
}

impl Found {
    /// What is signed, so that it ends.
    fn end(self) -> (Content, What) {
        let Self { id, by, held_at, nodes, .. } = self;
        let what = What { hold: id, by: by.clone(), held_at, nodes: nodes.clone() };
        (Content::Release(Release { hold: id, by, held_at, nodes }), what)
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, by, held_at, nodes, reason, obeyed_by } = self;
        let nodes = match nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => "the whole cluster".to_owned(),
            nodes => nodes,
        };
        let reason = reason.as_deref().map(|reason| format!(": “{}”", plain_text(reason))).unwrap_or_default();
        write!(f, "{id} of {held_at}, ordered by {by} on {nodes}{reason}")?;
        obeyed_by.map_or(Ok(()), |many| write!(f, "; {many} of the custodians that are heard obey it"))
    }
}

/// The hold that an envelope is, if its operator signed it.
fn from_file(file: &Path, operator: &Operator, (name, cluster): Named<'_>) -> anyhow::Result<Found> {
    let bytes = files::read_bounded(file, ENVELOPE_MAX)?;
    let refused = || format!("{} is not a hold that an operator signed", file.display());
    let envelope = Envelope::parse(&bytes).with_context(refused)?;
    let Body { header, content } = Body::parse(envelope.body()).with_context(refused)?;
    let Content::Hold(Hold { nodes, reason }) = content else { anyhow::bail!(refused()) };
    envelope
        .verify(&operator.allowed_signers, &header.from, Kind::Hold.namespace(), clock::wall())
        .with_context(refused)?;
    anyhow::ensure!(header.cluster == cluster.manifest.id(), "{} is about another cluster than {name}", file.display());
    Ok(Found { id: header.id, by: header.from, held_at: header.issued_at, nodes, reason, obeyed_by: None })
}

/// The hold with this id, or the only one, as custodians tell it by the sentinel. If that lies, the custodians refuse: what is
/// signed has to be what the hold said.
fn from_sentinel(id: Option<&str>, road: &Road, named: Named<'_>) -> anyhow::Result<Found> {
    let wanted = id.map(str::parse::<MessageId>).transpose().with_context(|| {
        format!("--hold {} is neither a file nor the id of a hold", plain_text(id.unwrap_or_default()))
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let deadline = road.deadline();
    let mut holds = runtime.block_on(async {
        loop {
            let mut holds = told(road, named).await?;
            holds.retain(|found| wanted.is_none_or(|wanted| found.id == wanted));
            // One that was ordered a moment ago is told of in the next heartbeats.
            if !holds.is_empty() || wanted.is_none() || Instant::now() >= deadline {
                return anyhow::Ok(holds);
            }
            sleep(LOOK).await;
        }
    })?;
    match holds.len() {
        0 => anyhow::bail!(
            "no custodian that the sentinel hears tells of {} (each tells of 16 at most; a hold's file always does: --hold FILE)",
            match wanted {
                Some(id) => format!("a hold {id}"),
                None => "any hold".to_owned(),
            }
        ),
        1 => Ok(holds.swap_remove(0)),
        // The same id told in two ways: whoever is fewer lies, or is behind.
        _ if wanted.is_some() => Ok(holds.swap_remove(0)),
        _ => {
            let list: Vec<_> =
                holds.iter().map(|hold| format!("  --hold {}  of {} by {}", hold.id, hold.held_at, hold.by)).collect();
            anyhow::bail!("there are several holds: say which\n{}", list.join("\n"))
        }
    }
}

/// The holds that custodians obey, as the sentinel tells, those first that most obey.
async fn told(road: &Road, (name, cluster): Named<'_>) -> anyhow::Result<Vec<Found>> {
    let Some(url) = &cluster.sentinel else {
        anyhow::bail!(
            "{}: [clusters.{name}] names no sentinel, which could tell what the hold says: give the file that `holdfast hold \
             --output` wrote, or that somebody kept",
            road.config.display()
        );
    };
    let status = status::fetch(url).await?;
    let known = status.clusters.values().find(|known| known.id == cluster.manifest.id());
    let known = known.with_context(|| format!("the sentinel at {url} does not watch cluster {name}"))?;
    let found = |hold: &HoldStatus| Found {
        id: hold.id,
        by: hold.by.clone(),
        held_at: hold.held_at,
        nodes: hold.nodes.iter().cloned().collect(),
        reason: hold.reason.clone(),
        obeyed_by: Some(hold.obeyed_by.len()),
    };
    Ok(known.holds.iter().map(found).collect())
}
