//! Drills at a custodian: whether a conductor's intent is taken. What it then does at the node is `node::drills`'.
//!
//! A conductor's word alone permits nothing: an intent counts inside this custodian's own `drill_windows`, or with an
//! operator's order in it; each order, and each time of a schedule, is good for one intent in this cluster, whatever happens to it,
//! and that is on disk before the intent is taken.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::admission::Refused;
use crate::id::{ClusterId, Principal, SlotId};
use crate::message::{Content, DrillReport, Effect, Header, Intent, Phase, plain_text};
use crate::time::{Now, Timestamp};

use super::node::Announced;
use super::{Context, Custodian, Entry, Node, Output};

/// How far a schedule's time and the intent for it may lie apart: a conductor that takes over from another is that late.
pub const SLOT_LATE_MAX: Duration = Duration::from_secs(15 * 60);

/// How old an intent may be when it comes: its conductor waits five seconds for answers, and clocks are a little apart. One that a broker holds back
/// longer would stand after its drill.
const LATE_MAX: Duration = Duration::from_secs(10);

/// How many drills of one conductor are remembered to be over, whose intent may still come.
const ENDED_MAX: usize = 64;

/// How long a slot is remembered: longer than a schedule's time is late, or an order valid.
const SLOT_KEPT: Duration = Duration::from_secs(3600);

/// How many intents of one conductor for times of a schedule are taken within [`SLOT_KEPT`]: nobody but a conductor says that there is such a time, and while an
/// intent stands, somebody's deliberate seal would pass for the drill's. Operators' orders are counted by their signatures.
const SCHEDULED_MAX: usize = 6;

/// How many slots are remembered of one cluster. When they are full, no more intents are taken until some are old.
const SLOTS_MAX: usize = 512;

/// What a custodian remembers of one cluster's drills.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slots {
    /// What intents were held for, and until when that is remembered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    used: Vec<UsedSlot>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsedSlot {
    slot: SlotId,
    /// Whose intent it was.
    by: Principal,
    until: Timestamp,
}

impl Slots {
    /// Whether an intent for it was taken here.
    pub(super) fn has(&self, slot: &SlotId) -> bool {
        self.used.iter().any(|used| used.slot == *slot)
    }

    /// Uses a slot up. By the latest time that the clock has shown: one that is set back makes none free.
    fn take(&mut self, slot: &SlotId, by: &Principal, high_water: Timestamp) -> Result<(), &'static str> {
        self.used.retain(|used| high_water < used.until);
        if self.has(slot) {
            return Err("an intent for the same time, or the same order, came before");
        }
        let scheduled = self.used.iter().filter(|used| used.slot.time().is_some() && used.by == *by).count();
        if slot.time().is_some() && scheduled >= SCHEDULED_MAX {
            return Err("no more drills of a schedule are held within an hour: six were");
        }
        if self.used.len() >= SLOTS_MAX {
            return Err("too many intents in a short time");
        }
        self.used.push(UsedSlot { slot: slot.clone(), by: by.clone(), until: high_water.after(SLOT_KEPT) });
        Ok(())
    }
}

impl Custodian {
    /// A conductor, maybe this custodian itself, announces a drill.
    pub(super) fn hear_intent(&mut self, header: &Header, intent: Intent, now: Now) {
        let (cluster, node, id, from) = (header.cluster, intent.node.clone(), header.id, header.from.clone());
        let issued_at = header.issued_at;
        let announced = Announced { id, from: from.clone(), issued_at, intent, received: now, people: false };
        let taken = self.may_take(cluster, &announced, now).and_then(|people| {
            let announced = Announced { people, ..announced };
            let announce = |node: &mut Node, cx: &mut Context<'_>| node.announce(announced, cx);
            self.with_node(cluster, &node, now, announce).unwrap_or(Err("no node has this name here"))
        });
        if let Err(why) = taken {
            let why = plain_text(why);
            if let Some(node) = self.nodes.get_mut(&(cluster, node.clone())) {
                node.decline(id, why.clone());
            }
            let entry = Entry::IntentVoid { cluster, node: node.clone(), id, from, why: why.clone() };
            self.outputs.push_back(Output::Audit(entry));
            self.acknowledge(cluster, id, Effect::Inapplicable { why }, std::slice::from_ref(&node));
        }
    }

    /// All that does not depend on the node; whether people have to approve. Uses the slot up.
    fn may_take(&mut self, cluster: ClusterId, announced: &Announced, now: Now) -> Result<bool, &'static str> {
        let Announced { issued_at, intent, .. } = announced;
        let Some(settings) = self.settings.clusters.get(&cluster) else {
            return Err("the cluster is not configured here");
        };
        let named: BTreeSet<_> = intent.submitters.iter().collect();
        if named.len() != intent.submitters.len() || !named.iter().all(|c| settings.custodians.contains(*c)) {
            return Err("it names submitters that are no custodians here, or one twice");
        }
        if named.len() > usize::from(settings.threshold) {
            return Err("it names more submitters than it takes");
        }
        if !settings.nodes.contains_key(&intent.node) {
            return Err("no node has this name here");
        }
        if now.wall.since(*issued_at) > LATE_MAX {
            return Err("it came too late");
        }
        if self.ended.iter().any(|(by, drill)| *by == announced.from && *drill == intent.drill) {
            return Err("its conductor says that the drill is over");
        }
        let in_window = settings.policy.in_drill_window(now.wall);
        let people = self.may_be_held(cluster, intent, in_window, now)?;
        let same_cluster = |(id, _): &(ClusterId, _)| *id == cluster;
        if self.nodes.iter().any(|(key, node)| same_cluster(key) && node.has_intent()) {
            return Err("another drill's intent stands in this cluster");
        }
        let slots = self.slots.entry(cluster).or_default();
        slots.take(&intent.slot, &announced.from, self.admission.high_water())?;
        self.outputs.push_back(Output::Save);
        Ok(people)
    }

    /// Whether a drill may be held now for what the intent names, and whether people have to approve what it does.
    fn may_be_held(
        &mut self,
        cluster: ClusterId,
        intent: &Intent,
        in_window: bool,
        now: Now,
    ) -> Result<bool, &'static str> {
        if let Some(at) = intent.slot.time() {
            let apart = now.wall.since(at).max(at.since(now.wall));
            return match (in_window, apart <= SLOT_LATE_MAX) {
                (false, _) => Err("it is outside this custodian's drill windows, and no operator ordered it"),
                (true, false) => Err("the schedule's time is long over, or still to come"),
                (true, true) => Ok(false),
            };
        }
        let Some(order) = &intent.order else { return Err("the operator's order is missing") };
        let order =
            self.admission.examine_slot(order.as_bytes(), now).map_err(|_| "the operator's order is refused")?;
        let Content::Drill(content) = order.content else { return Err("what it is held for is no operator's order") };
        if order.header.cluster != cluster || SlotId::of_order(order.header.id) != intent.slot {
            return Err("the operator's order is another one");
        }
        if content.node.is_some_and(|node| node != intent.node) {
            return Err("the operator ordered a drill of another node");
        }
        Ok(content.people)
    }

    /// A conductor tells of its drill.
    pub(super) fn hear_drill_report(&mut self, cluster: ClusterId, from: &Principal, report: &DrillReport, now: Now) {
        if report.phase == Phase::Closed {
            self.ended.push_back((from.clone(), report.drill));
            while self.ended.iter().filter(|(by, _)| by == from).count() > ENDED_MAX {
                let first = self.ended.iter().position(|(by, _)| by == from);
                first.and_then(|first| self.ended.remove(first));
            }
        }
        let was_sealed = report.sealed_at.is_some();
        if let Some(node) = report.node.as_ref().filter(|_| report.phase >= Phase::Open) {
            self.with_node(cluster, node, now, |node, cx| node.close_drill(from, report.drill, was_sealed, cx));
        }
    }

    /// Refuses what came, and counts that.
    pub(super) fn refuse<T>(&mut self, refused: Refused) -> Result<T, Refused> {
        self.admission.count_refusal(refused.reason());
        Err(refused)
    }
}
