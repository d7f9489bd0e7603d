//! What is done about alerts, one after the other: the hold, unless one stands, and then the seal. All of it shuts, nothing opens.
//!
//! An alert is done with when its hold was delivered and its nodes were seen sealed; until then Alertmanager is told to send it
//! again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_core::id::{ClusterName, MessageId};
use holdfast_core::message::plain_text;
use holdfast_edge::clock;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::config::{Action, Hook};
use super::memory::Memory;
use super::standing::Heard;
use crate::order::hold::{binds, content};
use crate::order::seal::{EMERGENCY_WAIT, seal_all};
use crate::order::{send, sign};

/// How long it may take to hear whether a hold stands, and then how long custodians' answers to another are waited for, where nothing
/// is to be sealed. Where something is, [`EMERGENCY_WAIT`] holds for each.
const HOLD_WAIT: Duration = Duration::from_secs(10);

/// How long custodians' answers to a hold are believed: their heartbeats, a second later, say the same, or that it was ended.
const JUST_NOW: Duration = Duration::from_secs(5);

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
    /// The action was carried out too often in this hour.
    TooOften,
    /// Not all of it could be done: the alert is to come again.
    Failed {
        /// Why.
        why: String,
    },
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
        let memory = Memory::open(&hook.memory)?;
        Ok(Self { hook, memory, heard: BTreeMap::new(), obeyed: BTreeMap::new() })
    }

    /// Does what a notification asks for, and tells whoever waits.
    pub(super) async fn work_on(&mut self, job: Job) {
        let mut done = Vec::new();
        for (action, instances) in job.wanted {
            let outcome = self.carry_out(&action, &instances).await;
            tracing::warn!(action, outcome = %serde_json::to_string(&outcome).unwrap_or_default(), "an alert");
            done.push(Done { action, outcome });
        }
        // Whoever asked may have gone; the alert comes again then, and is known.
        let _ = job.done.send(done);
    }

    async fn carry_out(&mut self, name: &str, instances: &BTreeSet<String>) -> Outcome {
        if instances.iter().all(|instance| self.memory.is_settled(name, instance)) {
            return Outcome::Known;
        }
        let limit = usize::try_from(self.hook.orders_per_hour).unwrap_or(usize::MAX);
        let spent = self.memory.lately(name, clock::wall()) >= limit;
        let held = self.hold(name, spent).await;
        let Self { hook, memory, .. } = self;
        let Some(action) = hook.actions.get(name) else {
            return Outcome::Failed { why: "there is no such action".to_owned() };
        };
        let sealed = match &held {
            Ok(Held::Spent) => return Outcome::TooOften,
            // An order that was given now counts for both.
            Ok(Held::Stands(_)) if action.seal.is_some() && !spent => {
                memory.note_order(name, None, clock::wall());
                seal(hook, action).await
            }
            Ok(Held::Stands(_)) if action.seal.is_some() => return Outcome::TooOften,
            _ => seal(hook, action).await,
        };
        match (held, sealed) {
            (Ok(held), Ok(sealed)) => {
                memory.note_settled(name, instances);
                Outcome::Shut { what: [held.in_words(), sealed].into_iter().flatten().collect::<Vec<_>>().join("; ") }
            }
            (held, sealed) => {
                let held = held.map_or_else(Some, |held| held.in_words());
                let sealed = sealed.unwrap_or_else(Some);
                Outcome::Failed { why: [held, sealed].into_iter().flatten().collect::<Vec<_>>().join("; ") }
            }
        }
    }

    /// Sees to it that a hold of this action stands.
    async fn hold(&mut self, name: &str, spent: bool) -> Result<Held, String> {
        let restrictor = &self.hook.restrictor;
        let found = self.hook.actions.get(name).and_then(|action| Some((action, action.cluster(restrictor)?)));
        let (action, cluster) = found.ok_or("there is no such action")?;
        let broker = self.hook.broker().map_err(|error| error.to_string())?;
        let stands = |id| Ok(Held::Stands(format!("hold {id} stands")));
        if let Some((id, _)) = self.obeyed.get(name).filter(|(_, at)| at.elapsed() < JUST_NOW) {
            return stands(*id);
        }
        let wait = if action.seal.is_some() { EMERGENCY_WAIT } else { HOLD_WAIT };
        let (before, deadline) = (self.memory.holds(name), Instant::now() + wait);
        if !before.is_empty() {
            let new = || Heard::new(restrictor.allowed_signers.clone(), &cluster.manifest);
            let heard = self.heard.entry(action.cluster.clone()).or_insert_with(new);
            heard.catch_up(broker, &restrictor.principal, deadline).await;
            if let Some(id) = heard.first_in_force(&before, &cluster.manifest) {
                return stands(id);
            }
        }
        if spent {
            return Ok(Held::Spent);
        }
        let signed = content((&action.cluster, cluster), action.nodes.clone(), Some(format!("ids-hook: {name}")))
            .and_then(|content| sign(restrictor, cluster, content, None, "hold".to_owned()))
            .map_err(|error| format!("no hold was ordered: {error:#}"))?;
        self.memory.note_order(name, Some(signed.id), clock::wall());
        let sent =
            send(broker, restrictor, cluster, std::slice::from_ref(&signed), Instant::now() + wait, |_| {}).await;
        if let Some(trouble) = &sent.trouble {
            return Err(format!("hold {} was perhaps not delivered: {}", signed.id, plain_text(trouble)));
        }
        let (words, in_force) = binds(&sent, signed.id, cluster);
        if in_force {
            self.obeyed.insert(name.to_owned(), (signed.id, Instant::now()));
        }
        Ok(Held::Ordered(format!("hold {}: {words}", signed.id)))
    }
}

/// How a hold came to be.
enum Held {
    /// One of before stands.
    Stands(String),
    /// It was ordered now.
    Ordered(String),
    /// None may be ordered in this hour any more.
    Spent,
}

impl Held {
    fn in_words(&self) -> Option<String> {
        match self {
            Self::Stands(words) | Self::Ordered(words) => Some(words.clone()),
            Self::Spent => None,
        }
    }
}

/// Seals the action's nodes, if it is to.
async fn seal(hook: &Hook, action: &Action) -> Result<Option<String>, String> {
    let (Some(token), Some(cluster)) = (&action.seal, action.cluster(&hook.restrictor)) else { return Ok(None) };
    let seals = seal_all(cluster, &action.nodes, token).await;
    let open: Vec<_> = seals.iter().filter_map(|seal| Some((&seal.node, seal.why.as_ref()?))).collect();
    if open.is_empty() {
        return Ok(Some(format!("{} nodes are sealed", seals.len())));
    }
    let open = open.into_iter().map(|(node, why)| format!("{node} was NOT SEEN SEALED: {}", plain_text(why)));
    Err(open.collect::<Vec<_>>().join("; "))
}
