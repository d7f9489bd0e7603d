//! `holdfast drill run`: an operator orders a drill, and sees how it goes.
//!
//! What lives here: the order, and hearing what conductors tell of it, each word of theirs verified. What does not: whether a drill
//! may be held, which is the conductor's and the custodians' to say; and the words for what is told (`course`).

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use holdfast_core::admission::PERMISSION_LIFE_MAX;
use holdfast_core::drill::PEOPLE_MAX;
use holdfast_core::id::{ClusterName, NodeName, Principal, SlotId};
use holdfast_core::message::{Content, DrillOrder, DrillReport, DrillResult, Kind, plain_text};
use holdfast_edge::broker::BrokerEvent;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::course::Course;
use crate::operator::{Named, Operator};
use crate::order::{Done, Post, Signed, sign};

/// How long it takes until a conductor that is there has said so: it reads the order within a second. Then it is told what to look at.
const ANSWER: Duration = Duration::from_secs(5);

/// For how long the end is waited for.
const WAIT: Duration = Duration::from_secs(180);

/// The same where people have to approve: the conductor gives them so long, and then has to see the node serve.
const WAIT_FOR_PEOPLE: Duration = Duration::from_secs(PEOPLE_MAX.as_secs() + 60);

/// Seal a node on purpose, see it open again, and hear how long that took
///
/// Signs the order, and sends it to the cluster's conductor, who looks whether a drill may be held, announces it to the custodians, seals the
/// node, and measures until it serves again. The order is good for 15 minutes and for one drill. Breaking this command off ends
/// nothing: that takes `holdfast hold`. Exit code 0 only if the drill passed.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The operator's configuration
    #[arg(long, default_value = "operator.toml")]
    config: PathBuf,
    /// The cluster; not needed where the configuration has only one
    #[arg(long)]
    cluster: Option<ClusterName>,
    /// The node that is to be sealed; without it, the conductor chooses as its configuration says
    #[arg(long)]
    node: Option<NodeName>,
    /// Why, for people; it stands in the report
    #[arg(long)]
    reason: Option<String>,
    /// Have people approve the opening, as after a seal that nobody announced, and measure how long each of them takes
    #[arg(long)]
    with_people: bool,
    /// For how many seconds the drill's end is waited for: without it, 180, and with people 1560
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=1800))]
    wait: Option<u64>,
    /// Print what came of it as JSON
    #[arg(long)]
    json: bool,
}

/// What became of the order, for `--json`.
#[derive(Serialize)]
struct What {
    #[serde(skip_serializing_if = "Option::is_none")]
    conductor: Option<Principal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<DrillResult>,
    /// The last that was told; none where no conductor has said anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<Box<DrillReport>>,
}

/// How the waiting ended.
struct Heard {
    course: Course,
    /// Why the order was perhaps not delivered.
    trouble: Option<String>,
    /// Why nothing can be heard.
    unread: Option<String>,
    /// Why the last message was not believed, if one was not.
    disbelieved: Option<String>,
}

/// Orders a drill, and waits for its end.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let operator = Operator::load(&arguments.config)?;
    let (name, cluster) = operator.cluster(arguments.cluster.as_ref())?;
    if let Some(node) = &arguments.node {
        cluster.known_node(name, node)?;
    }
    let broker = operator.broker.as_ref().with_context(|| {
        format!(
            "{} names no [broker]: a drill's order, and all that is said of it, go through one",
            arguments.config.display()
        )
    })?;
    let reason = arguments.reason.as_deref().map(plain_text);
    let content = Content::Drill(DrillOrder { node: arguments.node.clone(), reason, people: arguments.with_people });
    let order = sign(&operator, cluster, content, Some(PERMISSION_LIFE_MAX), Kind::Drill.as_str().to_owned())?;
    let say = |line: &str| {
        if !arguments.json {
            // A closed stdout is no reason to stop half-way through.
            let _ = writeln!(std::io::stdout(), "{line}");
        }
    };
    let of_node = arguments.node.as_ref().map_or_else(String::new, |node| format!(" of {node}"));
    say(&format!("drill{of_node} in cluster {name}, ordered by {} as {}", operator.principal, order.id));
    let wait = arguments.wait.map_or(if arguments.with_people { WAIT_FOR_PEOPLE } else { WAIT }, Duration::from_secs);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let deadline = Instant::now() + wait;
    let course = Course::new(order.id, SlotId::of_order(order.id), cluster.manifest.threshold());
    let heard = runtime
        .block_on(async { follow(Post::open(broker, &operator, cluster), course, &order, deadline, &say).await });

    let (conductor, report) = heard.course.told();
    let what = What { conductor, result: heard.course.result(), report: report.map(Box::new) };
    print(arguments, &order, (name, cluster), &what)?;
    match what.result {
        Some(result) => Ok(if result == DrillResult::Passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        None => Err(unfinished(&heard, &what, wait.as_secs())),
    }
}

fn print(arguments: &Arguments, order: &Signed, (name, _): Named<'_>, what: &What) -> anyhow::Result<()> {
    if arguments.json {
        let (answers, unanswered, file, expires_at) = (Vec::new(), Vec::new(), None, None);
        let (kind, cluster) = (Kind::Drill.as_str(), name.clone());
        let done = Done { id: order.id, kind, cluster, what, expires_at, file, answers, unanswered };
        serde_json::to_writer(std::io::stdout(), &done)?;
        writeln!(std::io::stdout())?;
    }
    Ok(())
}

/// Why there is no result, and what to do.
fn unfinished(heard: &Heard, what: &What, wait: u64) -> anyhow::Error {
    if let Some(why) = heard.course.doubt() {
        return anyhow::anyhow!(
            "no end of the drill is believed after {wait} s: {why}. Does its incident say `drill` on the sentinel's page? If \
             it does not, that conductor is captured: `holdfast distrust`; docs/OPERATIONS.md, \"Reports of drills\""
        );
    }
    if let Some(report) = &what.report {
        return anyhow::anyhow!(
            "the drill is not over after {wait} s ({}): it goes on without this command, and `holdfast drill list` tells its end",
            report.phase.as_str()
        );
    }
    let mut why = match (&heard.trouble, heard.course.is_taken()) {
        (Some(trouble), _) => format!("the order was perhaps not delivered: {trouble}"),
        (None, true) => {
            format!("the conductor has the order, and did not begin within {wait} s: another drill may be under way")
        }
        (None, false) => format!("no conductor has answered within {wait} s; {LOOK_AT}"),
    };
    for doubt in [&heard.unread, &heard.disbelieved].into_iter().flatten() {
        why += &format!("; {}", plain_text(doubt));
    }
    anyhow::anyhow!("{why}")
}

/// What is looked at when no conductor answers.
const LOOK_AT: &str = "does a custodian with [conductor.*] for this cluster run, is it connected (`holdfast status`), and does the \
                       broker have the conductors' queue (`holdfast broker definitions --conductor`)? The order is good for 15 minutes";

/// Sends the order, and hears what conductors tell of it, until the drill is over or the deadline passes.
async fn follow(mut post: Post, course: Course, order: &Signed, deadline: Instant, say: &impl Fn(&str)) -> Heard {
    let mut heard = Heard { course, trouble: None, unread: None, disbelieved: None };
    let publish = post.publish(std::slice::from_ref(order));
    tokio::pin!(publish);
    let mut publishing = true;
    let mut patience = Some(Instant::now() + ANSWER);
    while heard.course.result().is_none() {
        tokio::select! {
            published = &mut publish, if publishing => {
                publishing = false;
                // One full queue among many makes the broker refuse, and the conductor has it: it tells.
                heard.trouble = published.err().map(|error| error.to_string());
            }
            event = post.events.recv() => match event {
                Some(BrokerEvent::Down { why }) if publishing => heard.trouble = Some(why.to_string()),
                Some(BrokerEvent::QueueRefused { why, .. }) => {
                    heard.unread = Some(format!("how it goes cannot be read: {why}; import what `holdfast broker definitions` prints"));
                }
                Some(BrokerEvent::Delivery(delivery)) => {
                    if let Ok(bytes) = &delivery.body {
                        match post.door.admit(bytes, post.clock.now()) {
                            Ok(body) => heard.course.hear(&body.header.from, &body.content).iter().for_each(|line| say(line)),
                            Err(refused) => heard.disbelieved = Some(format!(
                                "what was told was not believed here: {refused}; are this machine's clock and allowed_signers right?"
                            )),
                        }
                    }
                    delivery.ack();
                }
                Some(_) => {}
                None => break,
            },
            () = sleep_until(patience.unwrap_or(deadline)), if patience.is_some() => {
                patience = None;
                if !heard.course.is_taken() {
                    say(&format!("  no conductor has answered yet: {LOOK_AT}"));
                }
            }
            () = sleep_until(deadline) => break,
        }
    }
    post.close().await;
    heard
}
