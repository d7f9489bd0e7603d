//! `holdfast release`: an operator wants a hold to end. It ends when enough operators do.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use holdfast_core::envelope::{ENVELOPE_MAX, Envelope};
use holdfast_core::id::{MessageId, NodeName, Principal};
use holdfast_core::message::{Body, Content, Hold, Kind, Release, plain_text};
use holdfast_core::status::{ClusterStatus, HoldStatus};
use holdfast_core::time::Timestamp;
use holdfast_edge::{clock, files};
use serde::Serialize;

use tokio::time::{Instant, sleep};

use super::{Answer, Road};
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
                  give the file that `holdfast hold --output` wrote.",
    after_help = "Example: holdfast release --hold 3f2a77d0c1b24ea0a6de9b1d2f6c8a11"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    road: Road,
    /// The hold's id, as `holdfast status` shows it, or the file it was written to; not needed where there is only one
    #[arg(long, value_name = "ID|FILE")]
    hold: Option<String>,
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
}

/// Signs a release and sends it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let road = &arguments.road;
    let operator = road.load()?;
    let named = operator.cluster(road.cluster.as_ref())?;
    let found = match arguments.hold.as_deref().map(Path::new).filter(|file| file.is_file()) {
        Some(file) => from_file(file, &operator, named)?,
        None => from_sentinel(arguments.hold.as_deref(), road, named)?,
    };
    let nodes = match found.nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "the whole cluster".to_owned(),
        nodes => nodes,
    };
    let reason = found.reason.as_deref().map(|reason| format!(": “{}”", plain_text(reason))).unwrap_or_default();
    road.say(&format!("the hold {} of {}, ordered by {} on {nodes}{reason}", found.id, found.held_at, found.by));
    let Found { id, by, held_at, nodes, .. } = found;
    let what = What { hold: id, by: by.clone(), held_at, nodes: nodes.clone() };
    let content = Content::Release(Release { hold: id, by, held_at, nodes });
    let config = status::option(&road.config);
    let again = format!("holdfast release{config} --cluster {} --hold {id}", quoted(named.0));
    let tell = |answer: &Answer| super::in_words(&answer.effect, "the hold is ended");
    road.order(&operator, named, content, what, tell, |sent, id| {
        super::outcome(sent, id, named.1, "the hold is ended", &again)
    })
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
    Ok(Found { id: header.id, by: header.from, held_at: header.issued_at, nodes, reason })
}

/// The hold with this id, or the only one, as custodians tell it by the sentinel. If that lies, the custodians refuse: what is
/// signed has to be what the hold said.
fn from_sentinel(id: Option<&str>, road: &Road, (name, cluster): Named<'_>) -> anyhow::Result<Found> {
    let wanted = id.map(str::parse::<MessageId>).transpose().with_context(|| {
        format!("--hold {} is neither a file nor the id of a hold", plain_text(id.unwrap_or_default()))
    })?;
    let Some(url) = &cluster.sentinel else {
        anyhow::bail!(
            "{}: [clusters.{name}] names no sentinel, which could tell what the hold says: give the file that `holdfast hold \
             --output` wrote, or that somebody kept",
            road.config.display()
        );
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let deadline = road.deadline();
    let mut holds = runtime.block_on(async {
        loop {
            let status = status::fetch(url).await?;
            let known = status.clusters.values().find(|known| known.id == cluster.manifest.id());
            let known = known.with_context(|| format!("the sentinel at {url} does not watch cluster {name}"))?;
            let mut holds = obeyed(known);
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

/// The holds that custodians obey, those first that most obey.
fn obeyed(cluster: &ClusterStatus) -> Vec<Found> {
    let found = |hold: &HoldStatus| Found {
        id: hold.id,
        by: hold.by.clone(),
        held_at: hold.held_at,
        nodes: hold.nodes.iter().cloned().collect(),
        reason: hold.reason.clone(),
    };
    cluster.holds.iter().map(found).collect()
}
