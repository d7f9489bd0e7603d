//! What is looked at before a drill is announced: which node, and whether anything speaks against sealing it.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{NodeName, Principal};
use crate::message::Serving;
use crate::time::Timestamp;

use super::canary::Fingerprint;
use super::conductor::{Choice, View};

/// What one node said when all of them were asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surveyed {
    /// What it does for its clients; `None` where it does not say.
    pub serving: Option<Serving>,
    /// The canary, read through it, or why it was not; `None` where none is configured.
    pub canary: Option<Result<Fingerprint, String>>,
}

/// What each node said.
pub type Survey = BTreeMap<NodeName, Surveyed>;

/// Which node is to be sealed.
pub(super) fn choose(
    choice: &Choice,
    survey: &Survey,
    drilled: &BTreeMap<NodeName, Timestamp>,
) -> Result<NodeName, String> {
    let serving =
        |what: Serving| survey.iter().filter(move |(_, said)| said.serving == Some(what)).map(|(node, _)| node);
    match choice {
        Choice::Node(node) if survey.contains_key(node) => Ok(node.clone()),
        Choice::Node(node) => Err(format!("no node is called {node} here")),
        Choice::Active => {
            serving(Serving::Active).next().cloned().ok_or_else(|| "no node is the active one".to_owned())
        }
        Choice::Rotate => serving(Serving::Standby)
            .min_by_key(|node| drilled.get(*node))
            .cloned()
            .ok_or_else(|| "no node stands by, and the active one is only sealed when it is named".to_owned()),
    }
}

/// What has to hold before a drill is announced: the custodians that could open the node.
pub(super) fn preflight(
    node: &NodeName,
    survey: &Survey,
    min_unsealed: usize,
    view: &View,
) -> Result<BTreeSet<Principal>, String> {
    if let Some((silent, _)) = survey.iter().find(|(_, said)| said.serving.is_none()) {
        return Err(format!("{silent} does not serve"));
    }
    for (name, seen) in &view.nodes {
        if let Some(trouble) = seen.trouble {
            return Err(format!("{name}: {trouble}"));
        }
        if !seen.open {
            return Err(format!("{name} is not seen open"));
        }
    }
    let left = survey.len().saturating_sub(1);
    if left < min_unsealed {
        return Err(format!("{left} nodes would be left open, and min_unsealed is {min_unsealed}"));
    }
    let ready = view.nodes.get(node).map(|seen| seen.ready.clone()).unwrap_or_default();
    let need = usize::from(view.threshold) + 1;
    if ready.len() < need {
        return Err(format!("{} custodians are ready for {node}, and {need} are needed", ready.len()));
    }
    Ok(ready)
}

/// The canary as it is read through the node before anything is done to it; none where none is configured.
pub(super) fn fingerprint(node: &NodeName, survey: &Survey) -> Result<Option<Fingerprint>, String> {
    let read = survey.get(node).and_then(|said| said.canary.clone()).transpose();
    read.map_err(|why| format!("the canary cannot be read through {node}, before anything was done to it: {why}"))
}
