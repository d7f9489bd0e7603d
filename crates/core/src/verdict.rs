//! A sentinel's status in words: whether a cluster would open by itself now, what makes that doubtful, what each node waits
//! for, and what to type. One source, so that `holdfast status` and the sentinel's page never say two things.
//!
//! What lives here: sentences. What does not: tables, colours, HTML. Whatever somebody else wrote is made plain before it is
//! part of a sentence.

mod drill;
mod held;
mod trend;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::civil::Weekday;

use crate::cause::Cause;
use crate::id::{ClusterName, NodeName, Principal};
use crate::message::{Needs, NodeReport, Seen, Submission, plain_text};
use crate::quorum::FRESH;
use crate::status::{AuditMisfit, ClusterStatus, CustodianStatus, IncidentStatus, NodeStatus, Status};
use crate::time::Timestamp;

pub use drill::{BY_PEOPLE, canary_outcome, drill_outcome, last_telling_drill, recovery_millis};
pub use held::{is_held, names, orders_advice, release_command, released, trust_diverged, trust_trouble};
pub use trend::{Bar, TREND_MAX, Trend, trend};

/// How long before a certificate expires this is doubtful enough to be said.
pub const CERTIFICATE_NOTICE: Duration = Duration::from_secs(14 * 86_400);

/// How many nodes are named of those for which a custodian is not ready: it is the custodian that says which there are.
const NODES_NAMED: usize = 5;

/// The answer to "would it open by itself now?".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// No: people have to do something first.
    No,
    /// The sentinel does not hear the custodians, and cannot tell.
    Unknown,
    /// Yes.
    Yes,
}

/// The answer for one cluster, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The answer.
    pub answer: Answer,
    /// Why, without a full stop.
    pub because: String,
    /// What makes the answer less sure than it sounds, or asks for attention all the same: sentences.
    pub doubts: Vec<String>,
}

/// What a person may do about a node: a sentence, and what to type, if anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// What is so.
    pub what: String,
    /// What to type about it.
    pub command: Option<String>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::No => "No",
            Self::Unknown => "Unknown",
            Self::Yes => "Yes",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.answer, self.because)
    }
}

impl Verdict {
    /// The answer for a cluster, as it stood when the status was put together.
    pub fn of(cluster: &ClusterStatus, status: &Status) -> Self {
        let unheld = cluster.nodes.iter().filter(|(name, node)| !is_held(name, node, cluster));
        let stuck = unheld.filter_map(|(name, node)| stuck(name, node, cluster));
        let held = held::reasons(cluster, status.at).into_iter();
        let stuck: Vec<_> = held.chain(stuck).chain(spent(cluster)).chain(untold(cluster)).collect();
        let unheard = (cluster.margin < 0).then(|| unheard(cluster, status)).flatten();
        let (answer, because) = match unheard {
            _ if !stuck.is_empty() => (Answer::No, stuck.join("; ")),
            Some(why) => (Answer::Unknown, why),
            None if cluster.margin < 0 => (Answer::No, format!("{}, margin {}", numbers(cluster), cluster.margin)),
            None => (Answer::Yes, format!("{}; {}", numbers(cluster), last_opening(cluster, status.at))),
        };
        Self { answer, because, doubts: doubts(cluster, status) }
    }

    /// Whether there is nothing to look at.
    pub fn is_calm(&self) -> bool {
        self.answer == Answer::Yes && self.doubts.is_empty()
    }
}

/// "5 ready, 3 needed"
fn numbers(cluster: &ClusterStatus) -> String {
    format!("{} ready, {} needed", cluster.ready, cluster.threshold)
}

/// The question and its answer: the first line of everything.
pub fn headline(name: &ClusterName, verdict: &Verdict) -> String {
    format!("Would {name} open by itself now? {verdict}.")
}

/// The latest incident that custodians ended on the policy's own grounds, without people, and that was measured.
pub fn opened_by_itself(cluster: &ClusterStatus) -> Option<&IncidentStatus> {
    cluster.incidents.iter().find(|incident| {
        let submissions = &incident.submissions;
        incident.opened_at.is_some()
            && incident.open_after_ms.is_some()
            && submissions.iter().any(|submission| submission.result == Submission::Opened)
            && submissions.iter().all(|submission| submission.approvals.is_empty())
    })
}

fn last_opening(cluster: &ClusterStatus, now: Timestamp) -> String {
    let known = opened_by_itself(cluster).and_then(|incident| Some((incident.opened_at?, incident.open_after_ms?)));
    match known {
        Some((at, millis)) => format!("last proven {}, {}", moment(at, now), duration(millis)),
        None => "never proven yet by an opening without people".to_owned(),
    }
}

/// Why a node would not open by itself, if fewer custodians than it takes would let it.
fn stuck(name: &NodeName, node: &NodeStatus, cluster: &ClusterStatus) -> Option<String> {
    if node.seen == Seen::Open {
        return None;
    }
    let is_final = |needs: &Needs| {
        matches!(
            needs,
            Needs::Approvals { .. } | Needs::Policy | Needs::Hold | Needs::Budget | Needs::Share | Needs::Generation
        )
    };
    let held: Vec<_> = node.needs.iter().filter(|(needs, _)| is_final(needs)).collect();
    let many: u32 = held.iter().map(|(_, count)| count).sum();
    // Custodians whose share is not sound are not among those that are ready.
    let unready: u32 = held.iter().filter(|(needs, _)| *needs == Needs::Share).map(|(_, count)| count).sum();
    let free = node.ready.saturating_sub(many.saturating_sub(unready));
    if let Some((needs, _)) = held.first().filter(|_| free < u32::from(cluster.threshold)) {
        let sealed = if node.marker.is_some() { "was sealed on purpose and " } else { "" };
        return Some(format!("{name} {sealed}waits for {}", waits_for(*needs)));
    }
    // Before custodians have told what they wait for, or while the node is down: what they know keeps it shut.
    let deliberate = node.marker.is_some() || (node.cause == Some(Cause::InPlace) && !drill::is_drilled(name, cluster));
    (unsaid(node) && deliberate).then(|| format!("{name} was sealed on purpose"))
}

/// Open nodes whose crash would be of unknown cause to too many custodians, though enough are ready.
fn untold(cluster: &ClusterStatus) -> Option<String> {
    let is_untold = |(name, node): &(&NodeName, &NodeStatus)| {
        let needed = u32::from(cluster.threshold);
        let sighted = restart_provable(name, node, cluster);
        node.seen == Seen::Open && node.ready >= needed && sighted < needed && !is_held(name, node, cluster)
    };
    let untold: Vec<_> = cluster.nodes.iter().filter(is_untold).map(|(name, _)| name.as_str()).collect();
    (!untold.is_empty()).then(|| {
        let nodes = untold.join(", ");
        format!("too few custodians could tell a restart of {nodes} from a seal, and it would wait for approvals")
    })
}

/// How many of the custodians that are ready for an open node could tell its restart from a seal.
pub fn restart_provable(name: &NodeName, node: &NodeStatus, cluster: &ClusterStatus) -> u32 {
    let blind = ready_reports(name, cluster).filter(|report| !report.restart_provable).count();
    node.ready.saturating_sub(u32::try_from(blind).unwrap_or(u32::MAX))
}

/// Nodes that too few custodians would open again by themselves, because they did so too often within the hour.
fn spent(cluster: &ClusterStatus) -> Option<String> {
    let is_spent = |(name, node): &(&NodeName, &NodeStatus)| {
        // Of one that is sealed, custodians say what it waits for.
        let spent = budget_frees_at(name, node, cluster).is_some();
        spent && node.seen != Seen::Sealed && !is_held(name, node, cluster)
    };
    let spent: Vec<_> = cluster.nodes.iter().filter(is_spent).map(|(name, _)| name.as_str()).collect();
    let have = if spent.len() == 1 { "has" } else { "have" };
    (!spent.is_empty()).then(|| format!("{} {have} used up the automatic openings of this hour", spent.join(", ")))
}

/// Until when too few custodians would open a node by themselves, because of their budgets alone. `None` while enough would, or
/// where more than the budget is in the way.
pub fn budget_frees_at(name: &NodeName, node: &NodeStatus, cluster: &ClusterStatus) -> Option<Timestamp> {
    let needed = usize::from(cluster.threshold);
    let mut free: Vec<_> = ready_reports(name, cluster)
        .map(|report| (report.budget_remaining == 0).then_some(report.budget_frees_at.unwrap_or_default()))
        .collect();
    free.sort_unstable();
    let enough = free.get(needed.checked_sub(1)?).copied().flatten();
    enough.filter(|_| node.ready >= u32::from(cluster.threshold))
}

/// How many automatic openings of a node custodians have left in this hour: the fewest and the most; `None` where none tells.
pub fn budget(name: &NodeName, cluster: &ClusterStatus) -> Option<(u32, u32)> {
    let left = || ready_reports(name, cluster).map(|report| report.budget_remaining);
    Some((left().min()?, left().max()?))
}

/// What custodians say of a node that are ready for it, and whose word counts.
fn ready_reports<'a>(name: &'a NodeName, cluster: &'a ClusterStatus) -> impl Iterator<Item = &'a NodeReport> {
    let counting = cluster.custodians.values().filter(|known| known.up && !known.distrusted);
    counting.filter_map(|known| known.heartbeat.as_ref()?.nodes.get(name)).filter(|report| report.ready)
}

/// Why too few custodians are heard to tell, where that says nothing of the custodians.
fn unheard(cluster: &ClusterStatus, status: &Status) -> Option<String> {
    let heard = cluster.custodians.values().filter(|custodian| custodian.up).count();
    let of = format!("the sentinel hears {heard} of {} custodians", cluster.custodians.len());
    match status.broker_up {
        None => Some(format!("{of}: it has no broker, and sees nodes only")),
        Some(false) => Some(format!("{of}: it has no connection to the broker")),
        Some(true) if status.at.since(status.started_at) <= FRESH && heard < cluster.custodians.len() => {
            Some(format!("{of}: it started {} ago", rough(status.at.since(status.started_at))))
        }
        Some(true) => None,
    }
}

/// What makes the answer less sure than it sounds.
fn doubts(cluster: &ClusterStatus, status: &Status) -> Vec<String> {
    let mut doubts = Vec::new();
    let shut = cluster.nodes.values().filter(|node| node.seen != Seen::Open).count();
    match (shut, cluster.nodes.len()) {
        (0, _) => {}
        (1, 1) => doubts.push("Its node is not open.".to_owned()),
        (shut, all) if shut == all => doubts.push(format!("None of {all} nodes is open.")),
        (1, all) => doubts.push(format!("1 of {all} nodes is not open.")),
        (shut, all) => doubts.push(format!("{shut} of {all} nodes are not open.")),
    }
    if cluster.nodes.len() - shut < cluster.min_unsealed {
        doubts.push(format!("At least {} should be open at any time.", cluster.min_unsealed));
    }
    if status.broker_up == Some(false) {
        let why = status.broker_trouble.as_ref().map(|why| format!(" ({})", plain_text(why))).unwrap_or_default();
        doubts.push(format!(
            "The sentinel has no connection to the broker{why}: what follows of the custodians may be old."
        ));
    } else if let Some(why) = &status.broker_trouble {
        doubts.push(format!("The broker: {}.", plain_text(why)));
    }
    if let Some(why) = &status.history_trouble {
        doubts.push(format!("The sentinel's history is not written down: {}.", plain_text(why)));
    }
    let absent: Vec<_> =
        cluster.custodians.iter().filter(|(_, custodian)| !custodian.ready).map(|(id, _)| id).collect();
    match absent.as_slice() {
        [] => {}
        // Where nobody is heard, the answer says so.
        _ if cluster.margin < 0 && unheard(cluster, status).is_some() => {}
        [one] => doubts.push(format!("{one} is not ready.")),
        more => doubts.push(format!("{} of {} custodians are not ready.", more.len(), cluster.custodians.len())),
    }
    doubts.extend(cluster.custodians.iter().filter_map(|(id, custodian)| audit_trouble(id, custodian, status.at)));
    doubts.extend(suspicion(cluster, status.at));
    doubts.extend(contradiction(cluster, status.at));
    doubts.extend(drill::doubts(cluster, status.at));
    doubts.extend(held::doubts(cluster, status));
    if cluster.margin >= 0 && cluster.margin_without_largest_site < 0 {
        doubts.push("It would not, if the site were lost whose custodians are needed most.".to_owned());
    }
    if cluster.diverged {
        let who = cluster.custodians.iter().filter(|(_, custodian)| custodian.config_diverged);
        let who = who.map(|(id, _)| id.as_str()).collect::<Vec<_>>().join(", ");
        doubts.push(format!("Not all custodians have the same policy and trust root: {who}."));
    }
    if cluster.generation_mismatch {
        doubts.push("Not all custodians hold shares of the generation that the manifest names.".to_owned());
    }
    if let Some((node, at)) = soonest_expiry(cluster).filter(|(_, at)| *at < status.at.after(CERTIFICATE_NOTICE)) {
        let (verb, when) = if at < status.at { ("expired", "") } else { ("expires", "soon: ") };
        doubts.push(format!("The certificate of {node} {verb} {when}{}.", moment(at, status.at)));
    }
    doubts
}

/// Whose shares are suspect. Of several nobody can say which of them it is, and this does not.
fn suspicion(cluster: &ClusterStatus, now: Timestamp) -> Option<String> {
    let suspects: BTreeMap<_, _> =
        cluster.custodians.iter().filter_map(|(id, known)| Some((id.clone(), known.share_suspect?))).collect();
    let when = moment(*suspects.values().max()?, now);
    let (shares, are) = if suspects.len() == 1 { ("The share", "is") } else { ("The shares", "are") };
    let suspects = names(&suspects.into_keys().collect());
    Some(format!(
        "{shares} of {suspects} {are} suspect: in a set that did not fit ({when}), and in none since that opened a node."
    ))
}

/// Whose receipts cannot all be true. Which of them lies nobody can say, and this does not.
fn contradiction(cluster: &ClusterStatus, now: Timestamp) -> Option<String> {
    let told: BTreeMap<_, _> =
        cluster.custodians.iter().filter_map(|(id, known)| Some((id.clone(), known.receipts_contradict?))).collect();
    let when = moment(*told.values().max()?, now);
    let who = names(&told.into_keys().collect());
    Some(format!(
        "What {who} tell of their shares in one attempt ({when}) cannot all be true: at least one of them lies."
    ))
}

/// What is wrong with a custodian's audit log, by its own word or by what the sentinel remembers of it: a sentence.
pub fn audit_trouble(id: &Principal, custodian: &CustodianStatus, now: Timestamp) -> Option<String> {
    let said = custodian.heartbeat.as_ref().map(|heartbeat| &heartbeat.audit);
    if let Some(entry) = said.and_then(|audit| audit.broken) {
        return Some(format!(
            "The audit log of {id} is not what was written: entry {entry} was changed, or is not there."
        ));
    }
    if said.is_some_and(|audit| !audit.ok) {
        return Some(format!("{id} cannot write its audit log or its state, and releases nothing until it can."));
    }
    let doubt = custodian.audit.as_ref()?.doubt.as_ref()?;
    let when = moment(doubt.at, now);
    Some(match doubt.what {
        AuditMisfit::Shorter { told, now, .. } => format!(
            "{id} told of {told} entries in its audit log, and then ({when}) of {now}: its end was cut off, or it was \
             written anew."
        ),
        AuditMisfit::Otherwise { entry, .. } => {
            format!(
                "{id} told of an entry {entry} in its audit log, and then ({when}) of another one: it was written anew."
            )
        }
        AuditMisfit::Broken { entry } => {
            format!("{id} found ({when}) that entry {entry} of its audit log was changed, or was not there.")
        }
    })
}

/// The node whose certificate expires first, and when.
pub fn soonest_expiry(cluster: &ClusterStatus) -> Option<(&NodeName, Timestamp)> {
    cluster.nodes.iter().filter_map(|(name, node)| Some((name, node.certificate_not_after?))).min_by_key(|(_, at)| *at)
}

/// Why a custodian could not release its share now, what to look at first; nothing if it could.
pub fn unready(custodian: &CustodianStatus) -> Option<String> {
    Some(match &custodian.heartbeat {
        _ if custodian.ready => return None,
        None => "it was never heard from".to_owned(),
        Some(_) if !custodian.up => "it is silent".to_owned(),
        Some(_) if custodian.distrusted => "its word counts for nothing, as operators have ordered".to_owned(),
        Some(heartbeat) if !heartbeat.share.ok => "its share is not sound".to_owned(),
        Some(heartbeat) if !heartbeat.sandboxed => "its sandbox is off".to_owned(),
        Some(heartbeat) => {
            let nodes: Vec<_> =
                heartbeat.nodes.iter().filter(|(_, node)| !node.ready).map(|(name, _)| name.as_str()).collect();
            match nodes.get(..NODES_NAMED) {
                _ if nodes.is_empty() => "it does not serve every node".to_owned(),
                Some(some) if nodes.len() > NODES_NAMED => format!("not for {} and others", some.join(", ")),
                _ => format!("not for {}", nodes.join(", ")),
            }
        }
    })
}

/// What a node that is not open waits for, as the custodians say; nothing for one that is open.
pub fn waits(node: &NodeStatus) -> String {
    if node.seen == Seen::Open {
        // What custodians said before it opened.
        return String::new();
    }
    let said: Vec<_> =
        node.needs.iter().map(|(needs, many)| format!("{} ({many} say so)", waits_for(*needs))).collect();
    said.join(", ")
}

fn waits_for(needs: Needs) -> String {
    match needs {
        Needs::Contact => "an answer of the node".to_owned(),
        Needs::Evidence => "the cause to become known".to_owned(),
        Needs::Approvals { have, need } => format!("approvals, {have} of {need}"),
        Needs::Policy => "the policy, which says hold".to_owned(),
        Needs::Hold => "the end of a hold".to_owned(),
        Needs::Budget => "the budget of automatic openings".to_owned(),
        Needs::Share => "a sound share".to_owned(),
        Needs::Others => "other custodians".to_owned(),
        Needs::Generation => "shares that fit: every set was tried".to_owned(),
    }
}

/// What a person may do about a node. `options` go into the commands, with a blank before them.
pub fn advice(
    name: &ClusterName,
    node: &NodeName,
    cluster: &ClusterStatus,
    now: Timestamp,
    options: &str,
) -> Vec<Advice> {
    let Some(status) = cluster.nodes.get(node) else { return Vec::new() };
    let url = plain_text(&status.url);
    let mut all = Vec::new();
    let mut say = |what: String| all.push(Advice { what, command: None });
    if let Some(why) = &status.identity_refused {
        say(format!("Somebody answers at {url} who is not accepted as {node}: {}", plain_text(why)));
    }
    if status.shared_address {
        say(format!(
            "Several processes answer at {url}: a restart cannot be told there. Name each node by an address of its own."
        ));
    }
    if status.seen == Seen::Open {
        return all;
    }
    if let Some(why) = &status.lost_because {
        say(format!("{node} does not answer: {}", plain_text(why)));
    }
    if let Some(at) = status.marker {
        let by = if status.marker_by.is_empty() { String::new() } else { format!(" by {}", names(&status.marker_by)) };
        say(format!(
            "{node} was sealed on purpose (seen at {at}{by}). It stays sealed, also through restarts, until operators approve \
             its opening."
        ));
    } else if sealed_unheard(status) {
        say(format!(
            "{node} was sealed on purpose, as the sentinel saw; custodians have not told yet what they know of it."
        ));
    }
    if is_held(node, status, cluster) {
        say(format!("{node} stays shut while it is held; what else it waits for, it does after that."));
    } else if let Some(what) = why_approve(node, status, cluster, now) {
        let command = format!("holdfast approve{options} --cluster {name} --node {node}");
        all.push(Advice { what, command: Some(command) });
    }
    if cluster.margin < 0 && cluster.custodians.values().any(|custodian| custodian.up) {
        let ClusterStatus { ready, threshold, .. } = cluster;
        let are = if *ready == 1 { "custodian is" } else { "custodians are" };
        all.push(Advice {
            what: format!(
                "Only {ready} {are} ready, and it takes {threshold}: bring custodians back, or open {node} with holders' \
                 shares (docs/CEREMONIES.md, \"When custodians are lost\")."
            ),
            command: None,
        });
    }
    all
}

/// What an operator's approval is for, in a sentence before the command; none where one would not open the node.
fn why_approve(node: &NodeName, status: &NodeStatus, cluster: &ClusterStatus, now: Timestamp) -> Option<String> {
    let waits = |what: fn(&Needs) -> bool| status.needs.iter().any(|(needs, _)| what(needs));
    let waiting: Vec<_> = cluster.approvals.iter().filter(|a| a.node == *node).map(|a| a.from.as_str()).collect();
    let so_far =
        if waiting.is_empty() { String::new() } else { format!(" (approved so far by {})", waiting.join(", ")) };
    if waits(|needs| matches!(needs, Needs::Approvals { .. })) {
        return Some(format!("To open {node}{so_far}, an operator types:"));
    }
    if waits(|needs| *needs == Needs::Generation) {
        return Some(format!(
            "Every set of shares was tried, and none opened {node}. Find out whether its storage was restored, or its shares \
             were rotated elsewhere. If neither, somebody spoils the sets. To have them tried anew{so_far}, an operator types:"
        ));
    }
    if waits(|needs| *needs == Needs::Budget) {
        let next = budget_frees_at(node, status, cluster).filter(|at| *at > now);
        let next = next.map(|at| format!(" Custodians open it by themselves again {}.", moment(at, now)));
        return Some(format!(
            "{node} has used up its automatic openings of this hour: it goes down again and again. Mend it.{} An approval opens it \
             meanwhile{so_far} and refills the budget; an operator types:",
            next.unwrap_or_default()
        ));
    }
    // Before custodians have told what they wait for, or while the node is down.
    ((status.marker.is_some() || sealed_unheard(status)) && unsaid(status)).then(|| match status.seen {
        Seen::Lost => format!("Start {node}; to open it then{so_far}, operators type:"),
        _ => format!("To open {node}{so_far}, operators type:"),
    })
}

/// Whether the sentinel saw a node being sealed of which no custodian has told it: the broker is away, or it was this very moment.
fn sealed_unheard(node: &NodeStatus) -> bool {
    node.seen == Seen::Sealed && node.cause == Some(Cause::InPlace) && node.marker.is_none()
}

/// Whether no custodian has told what a node waits for but for what it cannot know yet.
fn unsaid(node: &NodeStatus) -> bool {
    node.needs.iter().all(|(needs, _)| matches!(needs, Needs::Contact | Needs::Evidence))
}

/// How long ago something was, roughly.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", rough(now.since(at)))
}

/// A length of time that nobody measured to the millisecond.
pub fn rough(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A duration that was measured, in milliseconds, in the unit in which it is easiest to read.
pub fn duration(millis: f64) -> String {
    match millis {
        millis if millis < 10.0 => format!("{millis:.1} ms"),
        millis if millis < 1_000.0 => format!("{millis:.0} ms"),
        millis if millis < 120_000.0 => format!("{:.1} s", millis / 1_000.0),
        // Saturates, and is not a number nowhere: it was measured.
        millis => rough(Duration::try_from_secs_f64(millis / 1_000.0).unwrap_or(Duration::MAX)),
    }
}

/// How long after `began` something was, to the millisecond where it was soon: "+0.041 s".
pub fn offset(began: Timestamp, at: Timestamp) -> String {
    let sign = if at < began { '−' } else { '+' };
    let apart = at.since(began).max(began.since(at));
    match apart.as_secs() {
        0..=119 => format!("{sign}{}.{:03} s", apart.as_secs(), apart.subsec_millis()),
        _ => format!("{sign}{}", rough(apart)),
    }
}

/// A moment as people say it on the day of `now`, in UTC, to the minute: "today 07:06", "Tuesday 07:06", "2026-11-03".
pub fn moment(at: Timestamp, now: Timestamp) -> String {
    let utc = |at: Timestamp| {
        let known = jiff::Timestamp::from_millisecond(at.as_millis()).ok();
        known.map(|at| at.to_zoned(jiff::tz::TimeZone::UTC).datetime())
    };
    let (Some(at), Some(now)) = (utc(at), utc(now)) else { return at.to_string() };
    let days = now.date().since(at.date()).map_or(i32::MAX, |span| span.get_days());
    let day = match days {
        0 => "today",
        1 => "yesterday",
        2..=6 => weekday(at.weekday()),
        _ => return at.date().to_string(),
    };
    format!("{day} {:02}:{:02}", at.hour(), at.minute())
}

fn weekday(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "Monday",
        Weekday::Tuesday => "Tuesday",
        Weekday::Wednesday => "Wednesday",
        Weekday::Thursday => "Thursday",
        Weekday::Friday => "Friday",
        Weekday::Saturday => "Saturday",
        Weekday::Sunday => "Sunday",
    }
}

#[cfg(test)]
mod tests;
