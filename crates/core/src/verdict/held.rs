//! What operators have ordered, in words: holds and what ends them, what waits for more operators, whose word counts for nothing,
//! and by which trust roots is judged.
//!
//! A custodian can claim a hold that nobody ordered. So each is told with who obeys it, and it is the answer only where so many do
//! that the others could not open a node.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{ClusterName, NodeName, Principal};
use crate::message::{HOLDS_REPORTED, Matter, Seen, plain_text};
use crate::status::{ClusterStatus, HoldStatus, NodeStatus, Status, TrustVersion, TrustVersionStatus, WaitingStatus};
use crate::time::Timestamp;

use super::{Advice, moment, rough};

/// How many holds are told of where words are short, and how many come with a command: the rest is in the tables.
const HOLDS_TOLD: usize = 3;

/// How many matters that wait come with a command.
const WAITING_TOLD: usize = 4;

/// How many names stand in a sentence.
const NAMES_TOLD: usize = 5;

/// How much of a digest is for eyes.
const DIGEST_TOLD: usize = 16;

/// Whether holds keep this node shut: so few custodians are left that obey none that they could not open it.
pub fn is_held(name: &NodeName, node: &NodeStatus, cluster: &ClusterStatus) -> bool {
    node.ready_unheld < u32::from(cluster.threshold) && cluster.holds.iter().any(|hold| covers(hold, name))
}

/// Whether a hold is about this node.
fn covers(hold: &HoldStatus, node: &NodeName) -> bool {
    hold.nodes.is_empty() || hold.nodes.contains(node)
}

/// Whether a hold keeps one of its nodes shut.
fn binds(hold: &HoldStatus, cluster: &ClusterStatus) -> bool {
    cluster.nodes.iter().any(|(name, node)| covers(hold, name) && is_held(name, node, cluster))
}

/// Why nodes would not open by themselves, where holds are the reason: without full stops.
pub(super) fn reasons(cluster: &ClusterStatus, now: Timestamp) -> Vec<String> {
    let binding: Vec<_> = cluster.holds.iter().filter(|hold| binds(hold, cluster)).collect();
    let mut reasons: Vec<_> = binding.iter().take(HOLDS_TOLD).map(|hold| reason(hold, cluster, now)).collect();
    if binding.len() > HOLDS_TOLD {
        reasons.push(format!("and {} more holds", binding.len() - HOLDS_TOLD));
    }
    reasons
}

/// "held since today 10:02 by carol: “forensics”"
fn reason(hold: &HoldStatus, cluster: &ClusterStatus, now: Timestamp) -> String {
    let (since, by) = (moment(hold.held_at, now), &hold.by);
    let what = match hold.nodes.len() {
        0 => format!("held since {since} by {by}"),
        1 => format!("{} is held since {since} by {by}", names(&hold.nodes)),
        _ => format!("{} are held since {since} by {by}", names(&hold.nodes)),
    };
    let why = hold.reason.as_ref().map(|why| format!(": “{}”", plain_text(why))).unwrap_or_default();
    match alone(&hold.obeyed_by, cluster) {
        Some(custodian) => format!("{what}{why}, as {custodian} alone says"),
        None => format!("{what}{why}"),
    }
}

/// The one that says so, where others speak and do not.
fn alone<'a>(say: &'a BTreeSet<Principal>, cluster: &ClusterStatus) -> Option<&'a Principal> {
    let others = cluster.custodians.iter().any(|(id, custodian)| custodian.up && !say.contains(id));
    say.first().filter(|_| say.len() == 1 && others)
}

/// What asks for attention although it does not change the answer: sentences.
pub(super) fn doubts(cluster: &ClusterStatus, status: &Status) -> Vec<String> {
    let mut doubts: Vec<_> = cluster.holds.iter().filter_map(|hold| half_obeyed(hold, cluster)).collect();
    doubts.truncate(HOLDS_TOLD);
    doubts.extend(in_flight(cluster));
    doubts.extend(distrusted(cluster, status));
    doubts.extend(trust_trouble(cluster));
    match cluster.waiting.len() {
        0 => {}
        1 => doubts.push("An order waits for more operators.".to_owned()),
        many => doubts.push(format!("{many} orders wait for more operators.")),
    }
    doubts
}

/// A hold that not every custodian obeys that speaks.
fn half_obeyed(hold: &HoldStatus, cluster: &ClusterStatus) -> Option<String> {
    let up: Vec<_> = cluster.custodians.iter().filter(|(_, custodian)| custodian.up).collect();
    // One that obeys more holds than it can tell of may obey this one too.
    let tells_all = |holds: usize| holds < HOLDS_REPORTED;
    let others: BTreeSet<_> = up
        .iter()
        .filter(|(id, _)| !hold.obeyed_by.contains(*id))
        .filter(|(_, custodian)| custodian.heartbeat.as_ref().is_some_and(|beat| tells_all(beat.holds.len())))
        .map(|(id, _)| (*id).clone())
        .collect();
    if others.is_empty() {
        return None;
    }
    let (what, id) = (of_whom(hold), hold.id);
    Some(if binds(hold, cluster) {
        let do_not = if others.len() == 1 { "does not" } else { "do not" };
        format!(
            "{} {do_not} obey {what}: it has not reached them, or they know it to be ended (hold {id}).",
            names(&others)
        )
    } else {
        let obey = names(&hold.obeyed_by);
        let obeys = if hold.obeyed_by.len() == 1 { "alone says that it obeys" } else { "alone say that they obey" };
        format!("{obey} {obeys} {what}: the others could open what it is to keep shut (hold {id}).")
    })
}

/// "a hold by carol of vault-1"
fn of_whom(hold: &HoldStatus) -> String {
    match hold.nodes.is_empty() {
        true => format!("a hold by {} of all nodes", hold.by),
        false => format!("a hold by {} of {}", hold.by, names(&hold.nodes)),
    }
}

/// Shares that may be in a node which is to stay shut.
fn in_flight(cluster: &ClusterStatus) -> Vec<String> {
    let held = cluster.nodes.iter().filter(|(name, node)| {
        let obeys = |custodian: &Principal| {
            cluster.holds.iter().any(|hold| covers(hold, name) && hold.obeyed_by.contains(custodian))
        };
        node.seen != Seen::Open && node.in_flight.iter().any(obeys)
    });
    let say = |(name, node): (&NodeName, &NodeStatus)| {
        let (shares, are) = if node.in_flight.len() == 1 { ("share", "it is") } else { ("shares", "they are") };
        format!("The {shares} of {} may still be in {name}: {are} being called back.", names(&node.in_flight))
    };
    held.map(say).collect()
}

/// Whose word counts for nothing.
fn distrusted(cluster: &ClusterStatus, status: &Status) -> Vec<String> {
    let say = |(who, by): (&Principal, &BTreeSet<Principal>)| {
        let many = by.iter().filter(|custodian| *custodian != who).count();
        if many < usize::from(cluster.threshold) {
            return format!(
                "{} alone of the custodians would have it that the word of {who} counts for nothing.",
                names(by)
            );
        }
        let of = cluster.custodians.len();
        let whose = if *who == status.sentinel { "this sentinel".to_owned() } else { who.to_string() };
        format!(
            "Operators have ordered that the word of {whose} counts for nothing ({many} of {of} custodians say so)."
        )
    };
    cluster.distrusted.iter().take(NAMES_TOLD).map(say).collect()
}

/// The trust root of most custodians, if it is another one than the sentinel's.
fn other_trust(cluster: &ClusterStatus) -> Option<(&TrustVersionStatus, &TrustVersion)> {
    let own = cluster.trust.as_ref()?;
    Some((cluster.trust_versions.first().filter(|most| most.trust.sha256 != own.sha256)?, own))
}

/// Whether the sentinel judges by another trust root than most custodians do.
pub fn trust_diverged(cluster: &ClusterStatus) -> bool {
    other_trust(cluster).is_some()
}

/// That it does, and by which.
pub fn trust_trouble(cluster: &ClusterStatus) -> Option<String> {
    let (theirs, own) = other_trust(cluster)?;
    let judge = if theirs.custodians.len() == 1 { "judges" } else { "judge" };
    let (who, there, here) = (names(&theirs.custodians), root(&theirs.trust), root(own));
    Some(format!("{who} {judge} by another trust root than the sentinel: {there} there, {here} here."))
}

/// "version 3 (sha256 0123456789abcdef…)"
fn root(TrustVersion { version, sha256 }: &TrustVersion) -> String {
    let digest: String = plain_text(sha256).chars().take(DIGEST_TOLD).chain(['…']).collect();
    match version {
        0 => format!("the configured file (sha256 {digest})"),
        version => format!("version {version} (sha256 {digest})"),
    }
}

/// What operators may do about holds and about what waits for them. `options` go into the commands, with a blank before them.
pub fn orders_advice(name: &ClusterName, cluster: &ClusterStatus, now: Timestamp, options: &str) -> Vec<Advice> {
    let mut all = Vec::new();
    for hold in cluster.holds.iter().take(HOLDS_TOLD) {
        let command = release_command(name, hold, options);
        all.push(Advice { what: release_words(hold, cluster, now), command: Some(command) });
        if let Some(custodian) = alone(&hold.obeyed_by, cluster) {
            let what = format!(
                "{custodian} alone says so: it may have missed that this hold was ended, and then it is to be released once more, \
                 as above. If {} never ordered it, {custodian} is not what it was. That its word may count for nothing, \
                 operators type:",
                hold.by
            );
            let command = format!("holdfast distrust{options} --cluster {name} {custodian}");
            all.push(Advice { what, command: Some(command) });
        }
    }
    let waiting = cluster.waiting.iter().take(WAITING_TOLD);
    all.extend(waiting.filter_map(|waiting| waiting_advice(name, waiting, cluster, options)));
    all
}

/// What an operator types who wants this hold to end.
pub fn release_command(name: &ClusterName, hold: &HoldStatus, options: &str) -> String {
    format!("holdfast release{options} --cluster {name} --hold {}", hold.id)
}

fn release_words(hold: &HoldStatus, cluster: &ClusterStatus, now: Timestamp) -> String {
    let (by, since) = (&hold.by, moment(hold.held_at, now));
    let what = if hold.nodes.is_empty() { "all nodes".to_owned() } else { names(&hold.nodes) };
    let why = hold.reason.as_ref().map(|why| format!(": “{}”", plain_text(why))).unwrap_or_default();
    let (obey, of) = (hold.obeyed_by.len(), cluster.custodians.len());
    format!(
        "{by} holds {what} since {since}{why}. {obey} of {of} custodians obey. {} To end it, {}:",
        released(hold),
        who_types(usize::from(hold.need), hold.released_by.len())
    )
}

/// "It takes 2 operators to end it; bob has released it so far (3 custodians have heard so)."
pub fn released(hold: &HoldStatus) -> String {
    let need = operators(hold.need);
    if hold.released_by.is_empty() {
        return format!("It takes {need} to end it, and nobody has released it so far.");
    }
    let obey = u32::try_from(hold.obeyed_by.len()).unwrap_or(u32::MAX);
    format!("It takes {need} to end it; released so far by {}.", voices(&hold.released_by, obey))
}

/// "alice, bob (2 of 5 have heard so)"
fn voices(by: &BTreeMap<Principal, u32>, of: u32) -> String {
    let voice = |(operator, heard): (&Principal, &u32)| match *heard {
        heard if heard >= of => operator.to_string(),
        heard => format!("{operator} (as {heard} of {of} custodians have heard)"),
    };
    by.iter().take(NAMES_TOLD).map(voice).collect::<Vec<_>>().join(", ")
}

fn operators(need: u8) -> String {
    if need == 1 { "1 operator".to_owned() } else { format!("{need} operators") }
}

fn who_types(need: usize, have: usize) -> &'static str {
    match (need.saturating_sub(have), have) {
        (0 | 1, 0) => "an operator types",
        (0 | 1, _) => "another operator types",
        _ => "operators type",
    }
}

fn waiting_advice(
    name: &ClusterName,
    waiting: &WaitingStatus,
    cluster: &ClusterStatus,
    options: &str,
) -> Option<Advice> {
    let (what, command) = match &waiting.matter {
        // Told with its hold.
        Matter::Release { .. } => return None,
        Matter::Distrust { principal, lift } => {
            let (what, lift) = match lift {
                false => (format!("that the word of {principal} counts for nothing"), ""),
                true => (format!("that the word of {principal} counts again"), " --lift"),
            };
            (what, format!("holdfast distrust{options} --cluster {name} {principal}{lift}"))
        }
        Matter::Trust { version, sha256, .. } => {
            let digest = plain_text(sha256);
            let what =
                format!("another allowed_signers in force, as version {version} (compare its sha256sum, {digest})");
            (what, format!("holdfast trust{options} --cluster {name} --number {version} FILE"))
        }
    };
    let told = u32::try_from(waiting.told_by.len()).unwrap_or(u32::MAX);
    let who = voices(&waiting.by, told);
    let says = alone(&waiting.told_by, cluster).map(|custodian| format!(" ({custodian} alone says so)"));
    let want = if waiting.by.len() == 1 { "wants" } else { "want" };
    let what = format!(
        "{who} {want} {what}{}. It takes {}, within {} of each other. If you want it too, {}:",
        says.unwrap_or_default(),
        operators(waiting.need),
        rough(crate::orders::TOGETHER_MAX),
        who_types(usize::from(waiting.need), waiting.by.len()),
    );
    Some(Advice { what, command: Some(command) })
}

/// Some names, in a sentence.
pub fn names<T: ToString>(names: &BTreeSet<T>) -> String {
    let shown: Vec<_> = names.iter().take(NAMES_TOLD).map(ToString::to_string).collect();
    match names.len().checked_sub(NAMES_TOLD) {
        Some(more) if more > 0 => format!("{} and {more} more", shown.join(", ")),
        _ => shown.join(", "),
    }
}

#[cfg(test)]
mod tests;
