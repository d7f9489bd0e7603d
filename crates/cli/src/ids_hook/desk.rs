//! What is done about alerts, one after the other: the hold, unless one stands, and then the seal. All of it shuts, nothing opens.
//!
//! An alert is done with when its hold was delivered and its nodes were seen sealed; until then Alertmanager is told to send it
//! again. A hold that was signed and not delivered goes out again as it is, also where nobody asks for it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::time::Duration;

use holdfast_core::id::{ClusterName, MessageId, NodeName};
use holdfast_core::message::plain_text;
use holdfast_edge::clock;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::config::Hook;
use super::memory::{Look, Memory};
use super::standing::Heard;
use crate::order::hold::{binds, content};
use crate::order::seal::{EMERGENCY_WAIT, look_at_all, seal_all};
use crate::order::{send, sign};

/// How long it may take to hear whether a hold stands, and then how long custodians' answers to another are waited for, where nothing
/// is to be sealed. Where something is, [`EMERGENCY_WAIT`] holds for each.
const HOLD_WAIT: Duration = Duration::from_secs(10);

/// How long custodians' answers to a hold are believed: their heartbeats, a second later, say the same, or that it was ended.
const JUST_NOW: Duration = Duration::from_secs(5);

/// The time between two tries to deliver a hold of which no alert came again meanwhile.
const AGAIN: Duration = Duration::from_secs(5);

/// Something to do, and who waits for what came of it.
pub(super) struct Job {
    pub(super) wanted: Wanted,
    pub(super) done: oneshot::Sender<Vec<Done>>,
}

/// Each action that is wanted, with the alerts that want it, by their instances.
pub(super) type Wanted = BTreeMap<String, BTreeSet<String>>;

/// What came of one action.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    pub(super) action: String,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// It is shut.
    Shut {
        /// What was done.
        what: String,
    },
    /// These very alerts were dealt with before.
    Known,
    /// Some of it was done too often in this hour, and all of the rest is done.
    TooOften {
        /// What, and what was done.
        why: String,
    },
    /// Not all of it could be done: the alert is to come again.
    Failed {
        /// Why.
        why: String,
    },
}

/// What came of the hold, and what of the seal.
#[derive(Debug, PartialEq, Eq)]
enum Half {
    /// It is done, or there was nothing to do.
    Done(Option<String>),
    /// It was done too often in this hour.
    Spent(String),
    /// It could not be done.
    Failed(String),
}

/// Whoever carries actions out.
pub(super) struct Desk {
    hook: Hook,
    memory: Memory,
    heard: BTreeMap<ClusterName, Heard>,
    /// Of each action the hold that custodians said to obey, and when.
    obeyed: BTreeMap<String, (MessageId, Instant)>,
}

impl Desk {
    /// Takes back what was remembered.
    pub(super) fn open(hook: Hook) -> anyhow::Result<Self> {
        let mut memory = Memory::open(&hook.memory)?;
        let about = |(name, action): (&String, &super::config::Action)| (name.clone(), action.about(&hook.restrictor));
        memory.keep(&hook.actions.iter().map(about).collect());
        Ok(Self { hook, memory, heard: BTreeMap::new(), obeyed: BTreeMap::new() })
    }

    /// Does what a notification asks for, what seals before what only holds, and tells whoever waits.
    pub(super) async fn work_on(&mut self, job: Job) {
        let seals = |name: &String| self.hook.actions.get(name).is_some_and(|action| action.seal.is_some());
        let (first, then): (Vec<_>, Vec<_>) = job.wanted.into_iter().partition(|(name, _)| seals(name));
        let mut done = Vec::new();
        for (action, instances) in first.into_iter().chain(then) {
            let outcome = self.carry_out(&action, &instances).await;
            tracing::warn!(action, outcome = %serde_json::to_string(&outcome).unwrap_or_default(), "an alert");
            done.push(Done { action, outcome });
        }
        // Whoever asked may have gone; the alert comes again then, and is known.
        let _ = job.done.send(done);
    }

    /// Sends what was signed and not delivered, after a pause; never returns while there is nothing of that kind. May be dropped at any
    /// point: what was sent twice is the same.
    pub(super) async fn send_again(&mut self) {
        let left = self.memory.with_outgoing();
        if left.is_empty() {
            return pending().await;
        }
        // Not a wait for anything: the broker is not to be asked all the time.
        sleep(AGAIN).await;
        for name in left {
            match self.send_out(&name, HOLD_WAIT).await {
                Ok((words, _)) => tracing::warn!(action = name, words, "a hold was delivered late"),
                Err(why) => tracing::debug!(action = name, why, "a hold is still not delivered"),
            }
        }
    }

    async fn carry_out(&mut self, name: &str, instances: &BTreeSet<String>) -> Outcome {
        let seals = self.hook.actions.get(name).is_some_and(|action| action.seal.is_some());
        let instances = self.memory.unsettled(name, instances, seals);
        if instances.is_empty() {
            return Outcome::Known;
        }
        let held = self.hold(name, &instances).await.unwrap_or_else(Half::Failed);
        let sealed = self.seal(name, &instances, matches!(held, Half::Done(_))).await;
        outcome(held, sealed)
    }

    /// Sees to it that a hold of this action stands.
    async fn hold(&mut self, name: &str, instances: &BTreeSet<String>) -> Result<Half, String> {
        let unheld = self.memory.unheld(name, instances);
        if unheld.is_empty() {
            return Ok(Half::Done(Some("a hold was ordered before".to_owned())));
        }
        let seals = self.hook.actions.get(name).is_some_and(|action| action.seal.is_some());
        let wait = if seals { EMERGENCY_WAIT } else { HOLD_WAIT };
        if let Some(id) = self.standing(name, wait).await? {
            self.memory.note_held(name, &unheld, id);
            return Ok(Half::Done(Some(format!("hold {id} stands"))));
        }
        if let Some(signed) = self.memory.outgoing(name) {
            let (words, in_force) = self.send_out(name, wait).await?;
            if in_force {
                self.memory.note_held(name, &unheld, signed.id);
            }
            // One that was perhaps delivered before, and ended since, holds nothing for alerts that came later.
            if self.memory.unheld(name, instances).is_empty() {
                return Ok(Half::Done(Some(words)));
            }
        }
        let (unheld, limit) = (self.memory.unheld(name, instances), self.hook.orders_per_hour);
        if self.memory.lately(name, clock::wall()) >= limit {
            return Ok(Half::Spent(format!("no further hold: {limit} were ordered within the hour")));
        }
        let restrictor = &self.hook.restrictor;
        let (action, cluster) = self.hook.action(name)?;
        let signed = content((&action.cluster, cluster), action.nodes.clone(), Some(format!("ids-hook: {name}")))
            .and_then(|content| sign(restrictor, cluster, content, None, "hold".to_owned()))
            .map_err(|error| format!("no hold was ordered: {error:#}"))?;
        self.memory.note_order(name, &unheld, &signed, clock::wall());
        self.send_out(name, wait).await.map(|(words, _)| Half::Done(Some(words)))
    }

    /// The hold of before that stands, if one does.
    async fn standing(&mut self, name: &str, wait: Duration) -> Result<Option<MessageId>, String> {
        if let Some((id, _)) = self.obeyed.get(name).filter(|(_, at)| at.elapsed() < JUST_NOW) {
            return Ok(Some(*id));
        }
        let before = self.memory.holds(name);
        if before.is_empty() {
            return Ok(None);
        }
        let (action, cluster) = self.hook.action(name)?;
        let broker = self.hook.broker().map_err(|error| error.to_string())?;
        let heard = self.heard.entry(action.cluster.clone()).or_default();
        heard.catch_up(broker, &self.hook.restrictor, cluster, Instant::now() + wait).await;
        Ok(heard.first_in_force(&before, &cluster.manifest))
    }

    /// Sends the action's hold that the broker may not have yet. What custodians say to it, and whether it is in force.
    async fn send_out(&mut self, name: &str, wait: Duration) -> Result<(String, bool), String> {
        let (_, cluster) = self.hook.action(name)?;
        let broker = self.hook.broker().map_err(|error| error.to_string())?;
        let signed = self.memory.outgoing(name).ok_or("there is no hold to be sent")?;
        let restrictor = &self.hook.restrictor;
        let sent =
            send(broker, restrictor, cluster, std::slice::from_ref(&signed), Instant::now() + wait, |_| {}).await;
        if let Some(trouble) = &sent.trouble {
            let (id, trouble) = (signed.id, plain_text(trouble));
            return Err(format!("hold {id} is signed, was perhaps not delivered, and goes out again: {trouble}"));
        }
        self.memory.note_delivered(name);
        let (words, in_force) = binds(&sent, signed.id, cluster);
        if in_force {
            self.obeyed.insert(name.to_owned(), (signed.id, Instant::now()));
        }
        Ok((format!("hold {}: {words}", signed.id), in_force))
    }

    /// Seals the action's nodes, if it is to, whatever became of the hold.
    async fn seal(&mut self, name: &str, instances: &BTreeSet<String>, held: bool) -> Half {
        let Self { hook, memory, .. } = self;
        let Ok((action, cluster)) = hook.action(name) else { return Half::Done(None) };
        let Some(token) = &action.seal else { return Half::Done(None) };
        let all = action.all_nodes(cluster);
        // With the hold in force: what is sealed now stays so, and is not a node that is just being opened after a crash.
        let looks = look_at_all(cluster, &all).await.into_iter().map(|(node, open)| (node, Look::from(open))).collect();
        let due = memory.note_seals(name, instances, &looks, hook.seals_per_hour, clock::wall());
        let seals = if due.tell.is_empty() { Vec::new() } else { seal_all(cluster, &due.tell, token).await };
        let mut sealed = due.sealed;
        let mut open = Vec::new();
        for seal in seals {
            match seal.why {
                None => sealed.push(seal.node),
                Some(why) => open.push(format!("{} was NOT SEEN SEALED: {}", seal.node, plain_text(&why))),
            }
        }
        memory.note_sealed(name, instances, &sealed, held, &all);
        told_of_seals(sealed.len(), open, &due.spent, hook.seals_per_hour)
    }
}

impl From<Option<bool>> for Look {
    fn from(open: Option<bool>) -> Self {
        match open {
            Some(true) => Self::Open,
            Some(false) => Self::Sealed,
            None => Self::Unknown,
        }
    }
}

fn told_of_seals(sealed: usize, open: Vec<String>, spent: &[NodeName], per_hour: usize) -> Half {
    let mut words = vec![format!("{sealed} nodes are sealed")];
    words.extend(spent.iter().map(|node| {
        format!("{node} is OPEN, and was sealed {per_hour} times within the hour: stop it by hand, or seal it with holdfast seal")
    }));
    let failed = !open.is_empty();
    words.extend(open);
    let words = words.join("; ");
    match (failed, spent.is_empty()) {
        (true, _) => Half::Failed(words),
        (false, false) => Half::Spent(words),
        (false, true) => Half::Done(Some(words)),
    }
}

/// What came of both.
fn outcome(held: Half, sealed: Half) -> Outcome {
    let halves = [held, sealed];
    let failed = halves.iter().any(|half| matches!(half, Half::Failed(_)));
    let spent = halves.iter().any(|half| matches!(half, Half::Spent(_)));
    let words = halves.into_iter().filter_map(|half| match half {
        Half::Done(words) => words,
        Half::Spent(words) | Half::Failed(words) => Some(words),
    });
    let words = words.collect::<Vec<_>>().join("; ");
    match (failed, spent) {
        (true, _) => Outcome::Failed { why: words },
        (false, true) => Outcome::TooOften { why: words },
        (false, false) => Outcome::Shut { what: words },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(words: &str) -> Half {
        Half::Done(Some(words.to_owned()))
    }

    #[test]
    fn the_worse_half_says_what_came_of_both() {
        let (spent, failed) = (|| Half::Spent("spent".to_owned()), || Half::Failed("failed".to_owned()));
        assert_eq!(outcome(done("a"), Half::Done(None)), Outcome::Shut { what: "a".to_owned() });
        assert_eq!(outcome(done("a"), done("b")), Outcome::Shut { what: "a; b".to_owned() });
        assert_eq!(outcome(spent(), done("b")), Outcome::TooOften { why: "spent; b".to_owned() });
        assert_eq!(outcome(done("a"), spent()), Outcome::TooOften { why: "a; spent".to_owned() });
        assert_eq!(outcome(failed(), done("b")), Outcome::Failed { why: "failed; b".to_owned() });
        assert_eq!(outcome(spent(), failed()), Outcome::Failed { why: "spent; failed".to_owned() });
    }

    #[test]
    fn a_node_that_stays_open_is_named() {
        let node: NodeName = "vault-1".parse().expect("a name");
        assert_eq!(told_of_seals(2, vec![], &[], 12), done("2 nodes are sealed"));
        let Half::Spent(words) = told_of_seals(0, vec![], std::slice::from_ref(&node), 12) else { panic!() };
        assert!(words.contains("vault-1 is OPEN, and was sealed 12 times within the hour"), "{words}");
        let open = vec!["vault-2 was NOT SEEN SEALED: x".to_owned()];
        let Half::Failed(words) = told_of_seals(0, open, &[node], 12) else { panic!() };
        assert!(words.contains("vault-1 is OPEN") && words.contains("vault-2 was NOT"), "{words}");
    }
}
