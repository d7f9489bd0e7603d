//! What the receiver remembers of what it ordered, on disk before it is ordered: so that no alert that is sent again, and no restart,
//! makes a flood of holds or of seals. An alert that calls for a hold has one signed for it, once; until the broker has that, the same
//! goes out again.
//!
//! What lives here: which alert has what, and how often what was done. What does not: doing it (`desk`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_core::id::{MessageId, NodeName};
use holdfast_core::time::Timestamp;
use holdfast_edge::files::{self, FileError};
use serde::{Deserialize, Serialize};

use crate::order::Signed;

/// The version of the file.
const VERSION: u32 = 2;

/// The largest file that is read, in bytes: 256 actions with all of what is kept of each, of three nodes, are below.
const FILE_MAX: usize = 32 * 1024 * 1024;

/// How long an order or a seal counts against what an hour may have.
const HOUR: Duration = Duration::from_secs(3600);

/// How many of an action's latest orders are kept, and of each node's seals: no fewer than an hour may have, and as many holds as may
/// stand.
const KEPT: usize = 64;

/// How many alerts are known again, of each action: no fewer than one notification may have.
const ALERTS_KEPT: usize = 512;

/// Why there is no memory.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is none of ours.
    #[error(
        "{}: this is not what ids-hook remembers: name another file, or move it away, and alerts of before may be ordered once more",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// What was ordered, of each action.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Memory {
    v: u32,
    actions: BTreeMap<String, Remembered>,
    #[serde(skip)]
    path: PathBuf,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    /// What the action shuts, and who signs: what was done about something else is of no use.
    about: String,
    /// The holds that were ordered, the latest last.
    orders: VecDeque<Ordered>,
    /// The one of them that the broker may not have yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outgoing: Option<Outgoing>,
    /// When each node was told to seal itself, the latest last.
    seals: BTreeMap<NodeName, VecDeque<Timestamp>>,
    /// The latest last.
    alerts: VecDeque<Alert>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ordered {
    at: Timestamp,
    hold: MessageId,
}

/// A hold as it was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outgoing {
    hold: MessageId,
    routing_key: String,
    envelope: String,
}

/// An alert, and how far what it calls for is done.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Alert {
    instance: String,
    /// The hold that was ordered for it, or stood when it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold: Option<MessageId>,
    /// Whether all of its nodes were seen sealed while its hold stood.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    sealed: bool,
    /// The nodes that were seen sealed so. Forgotten with the process: they are sealed once more then, which costs one of the hour's.
    #[serde(skip)]
    shut: BTreeSet<NodeName>,
    /// The nodes that were told to seal themselves for it, and were not seen sealed since: to tell them again counts no second time.
    #[serde(skip)]
    told: BTreeSet<NodeName>,
}

/// What a look at a node that is to be sealed has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// It is open.
    Open,
    /// It is sealed.
    Sealed,
    /// It has not said in time, or nobody answers who proves to be it.
    Unknown,
}

/// What is to be done about an action's nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// These are told to seal themselves.
    pub(super) tell: Vec<NodeName>,
    /// These are sealed already.
    pub(super) sealed: Vec<NodeName>,
    /// These are open, and were sealed so often in this hour that they are not told again.
    pub(super) spent: Vec<NodeName>,
}

impl Memory {
    /// What the file has; nothing, where there is none yet.
    pub(super) fn open(path: &Path) -> Result<Self, MemoryError> {
        let malformed = || MemoryError::Malformed { path: path.to_owned() };
        let read = match files::read_bounded(path, FILE_MAX) {
            Ok(bytes) => serde_json::from_slice::<Self>(&bytes).map_err(|_| malformed())?,
            Err(FileError::Missing { .. }) => Self { v: VERSION, actions: BTreeMap::new(), path: PathBuf::new() },
            Err(error) => return Err(error.into()),
        };
        if read.v == VERSION { Ok(Self { path: path.to_owned(), ..read }) } else { Err(malformed()) }
    }

    /// Forgets what is not about these actions, each with what it shuts and who signs.
    pub(super) fn keep(&mut self, about: &BTreeMap<String, String>) {
        self.actions.retain(|name, known| about.get(name) == Some(&known.about));
        for (name, about) in about {
            self.actions.entry(name.clone()).or_default().about.clone_from(about);
        }
    }

    /// Those of these alerts that are not dealt with, where that takes a hold, and seals or not.
    pub(super) fn unsettled(&self, action: &str, instances: &BTreeSet<String>, seals: bool) -> BTreeSet<String> {
        let settled = |alert: &Alert, known: &Remembered| known.is_held(alert) && (alert.sealed || !seals);
        self.without(action, instances, settled)
    }

    /// Those of these alerts of which the broker has no hold yet.
    pub(super) fn unheld(&self, action: &str, instances: &BTreeSet<String>) -> BTreeSet<String> {
        self.without(action, instances, |alert, known| known.is_held(alert))
    }

    fn without(
        &self,
        action: &str,
        instances: &BTreeSet<String>,
        done: impl Fn(&Alert, &Remembered) -> bool,
    ) -> BTreeSet<String> {
        let known = self.actions.get(action);
        let done: BTreeSet<_> = known
            .into_iter()
            .flat_map(|known| known.alerts.iter().filter(|alert| done(alert, known)))
            .map(|alert| &alert.instance)
            .collect();
        instances.iter().filter(|instance| !done.contains(instance)).cloned().collect()
    }

    /// How many holds an action has ordered in the hour before. A clock that was set back makes no room.
    pub(super) fn lately(&self, action: &str, now: Timestamp) -> usize {
        let orders = self.actions.get(action).into_iter().flat_map(|known| &known.orders);
        orders.filter(|order| now.since(order.at) < HOUR).count()
    }

    /// The holds of an action that may stand, the latest first.
    pub(super) fn holds(&self, action: &str) -> Vec<MessageId> {
        let orders = self.actions.get(action).into_iter().flat_map(|known| known.orders.iter().rev());
        orders.map(|order| order.hold).collect()
    }

    /// The hold that the broker may not have yet, as it was signed.
    pub(super) fn outgoing(&self, action: &str) -> Option<Signed> {
        let Outgoing { hold, routing_key, envelope } = self.actions.get(action)?.outgoing.as_ref()?;
        let (name, envelope) = ("hold".to_owned(), envelope.clone().into_bytes());
        Some(Signed { id: *hold, name, envelope, routing_key: routing_key.clone() })
    }

    /// The actions that have one.
    pub(super) fn with_outgoing(&self) -> Vec<String> {
        let with = self.actions.iter().filter(|(_, known)| known.outgoing.is_some());
        with.map(|(name, _)| name.clone()).collect()
    }

    /// A hold is about to be ordered for these alerts.
    pub(super) fn note_order(&mut self, action: &str, instances: &BTreeSet<String>, signed: &Signed, at: Timestamp) {
        let known = self.actions.entry(action.to_owned()).or_default();
        known.orders.push_back(Ordered { at, hold: signed.id });
        keep_the_latest(&mut known.orders, KEPT);
        // An envelope is JSON.
        let envelope = String::from_utf8_lossy(&signed.envelope).into_owned();
        known.outgoing = Some(Outgoing { hold: signed.id, routing_key: signed.routing_key.clone(), envelope });
        these(&mut known.alerts, instances).for_each(|alert| alert.hold = Some(signed.id));
        self.save();
    }

    /// The broker has the hold that was to go out.
    pub(super) fn note_delivered(&mut self, action: &str) {
        self.actions.entry(action.to_owned()).or_default().outgoing = None;
        self.save();
    }

    /// This hold stands, and is what these alerts call for.
    pub(super) fn note_held(&mut self, action: &str, instances: &BTreeSet<String>, hold: MessageId) {
        let known = self.actions.entry(action.to_owned()).or_default();
        known.outgoing = known.outgoing.take().filter(|outgoing| outgoing.hold != hold);
        these(&mut known.alerts, instances).for_each(|alert| alert.hold = Some(hold));
        self.save();
    }

    /// Which nodes are to be sealed for these alerts, as a look at each has found it, and as an hour's number of seals of a node
    /// allows; noted before they are. It is openings by people, and not alerts, that use it up: a node that is sealed costs nothing, nor
    /// does one that does not answer, and what one node uses up is no other's.
    pub(super) fn note_seals(
        &mut self,
        action: &str,
        instances: &BTreeSet<String>,
        looks: &BTreeMap<NodeName, Look>,
        per_hour: usize,
        now: Timestamp,
    ) -> Due {
        let known = self.actions.entry(action.to_owned()).or_default();
        let mut due = Due::default();
        for (node, look) in looks {
            let seals = known.seals.entry(node.clone()).or_default();
            let lately = seals.iter().filter(|at| now.since(**at) < HOUR).count();
            let mut wanting: Vec<_> =
                these(&mut known.alerts, instances).filter(|alert| !alert.shut.contains(node)).collect();
            let counted = wanting.iter().any(|alert| alert.told.contains(node));
            match look {
                _ if wanting.is_empty() => {}
                Look::Sealed => due.sealed.push(node.clone()),
                Look::Unknown => due.tell.push(node.clone()),
                Look::Open if !counted && lately >= per_hour => due.spent.push(node.clone()),
                Look::Open => {
                    due.tell.push(node.clone());
                    wanting.iter_mut().for_each(|alert| alert.told.extend([node.clone()]));
                    if !counted {
                        seals.push_back(now);
                        keep_the_latest(seals, KEPT);
                    }
                }
            }
        }
        self.save();
        due
    }

    /// These nodes were seen sealed. Where the hold stands, that is all that these alerts ask of them; where it does not, somebody
    /// may open them again.
    pub(super) fn note_sealed(
        &mut self,
        action: &str,
        instances: &BTreeSet<String>,
        sealed: &[NodeName],
        held: bool,
        all: &BTreeSet<NodeName>,
    ) {
        let known = self.actions.entry(action.to_owned()).or_default();
        for alert in these(&mut known.alerts, instances) {
            alert.told.retain(|node| !sealed.contains(node));
            if held {
                alert.shut.extend(sealed.iter().cloned());
                alert.sealed = alert.shut.is_superset(all);
            }
        }
        self.save();
    }

    /// A disk that is full keeps nothing from being shut: what is remembered is remembered until the end of the process.
    fn save(&self) {
        let saved = serde_json::to_vec(self).map_err(|error| error.to_string());
        let saved =
            saved.and_then(|bytes| files::replace(&self.path, &bytes, 0o600).map_err(|error| error.to_string()));
        if let Err(error) = saved {
            tracing::error!(error, "what was ordered cannot be written down: after a restart it may be ordered again");
        }
    }
}

impl Remembered {
    /// Whether the broker has the hold that is this alert's.
    fn is_held(&self, alert: &Alert) -> bool {
        alert.hold.is_some_and(|hold| self.outgoing.as_ref().is_none_or(|outgoing| outgoing.hold != hold))
    }
}

/// What is known of these alerts, now that they have come.
fn these<'a>(alerts: &'a mut VecDeque<Alert>, instances: &'a BTreeSet<String>) -> impl Iterator<Item = &'a mut Alert> {
    let known: BTreeSet<_> = alerts.iter().map(|alert| alert.instance.clone()).collect();
    alerts
        .extend(instances.difference(&known).map(|instance| Alert { instance: instance.clone(), ..Alert::default() }));
    keep_the_latest(alerts, ALERTS_KEPT);
    alerts.iter_mut().filter(|alert| instances.contains(&alert.instance))
}

fn keep_the_latest<T>(all: &mut VecDeque<T>, many: usize) {
    all.drain(..all.len().saturating_sub(many));
}

#[cfg(test)]
mod tests;
