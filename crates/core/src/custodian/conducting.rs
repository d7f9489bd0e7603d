//! A custodian as a conductor: what its conductors see, and what is done for them.
//!
//! How a drill runs is `crate::drill`'s; here it is joined to what this custodian hears and sees.

use std::collections::{BTreeMap, BTreeSet};

use crate::admission::{Refused, SKEW_MAX};
use crate::drill::{Conductor, Demand, NodeView, Observed, Ordered, Survey, Task, View};
use crate::id::{ClusterId, DrillId, NodeName, Principal, SlotId};
use crate::message::{Content, Effect, Header, Kind, Seen};
use crate::time::{Now, Timestamp};

use super::{Custodian, HEARTBEAT_HEARD, INTENT_LIFE, Output, Peer, SILENT, SLOT_LATE_MAX};

/// How many times of a schedule wait for their drill.
const TIMES_WAITING_MAX: usize = 4;

impl Custodian {
    /// Something that a drill is held for came to the conductors' queue of a cluster: an operator's order, or a schedule's time. Gives
    /// the slot; what was handed out for it is done with [`Output::Settled`].
    pub fn handle_slot(&mut self, bytes: &[u8], now: Now) -> Result<(ClusterId, SlotId), Refused> {
        let slots = &self.slots;
        let taken = |cluster, slot: &SlotId| slots.get(&cluster).is_some_and(|slots| slots.has(slot));
        let body = self.admission.examine_slot_late(bytes, taken, now)?;
        let Header { id, cluster, from, .. } = body.header;
        if self.orders.get(&cluster).is_some_and(|orders| orders.is_distrusted(&from)) {
            return self.refuse(Refused::Distrusted(from));
        }
        let (slot, until, order) = match body.content {
            Content::Drill(order) => {
                let envelope = String::from_utf8_lossy(bytes).into_owned();
                let until = body.header.expires_at.unwrap_or(now.wall);
                (SlotId::of_order(id), until, Some(Ordered { by: from, order, envelope }))
            }
            Content::Due(due) => {
                let at = due.slot.time().unwrap_or_default();
                if at > now.wall.after(SKEW_MAX) {
                    return self.refuse(Refused::Early(at));
                }
                let until = at.after(SLOT_LATE_MAX);
                // Whoever says so makes this conductor sign no report of it.
                if until <= now.wall && !self.slots.get(&cluster).is_some_and(|slots| slots.has(&due.slot)) {
                    return self.refuse(Refused::Expired(at));
                }
                if self.conductors.get(&cluster).is_some_and(|conductor| conductor.times_waiting() >= TIMES_WAITING_MAX)
                {
                    return self.refuse(Refused::Full);
                }
                (due.slot, until, None)
            }
            other => return self.refuse(Refused::Role { from, kind: other.kind().as_str() }),
        };
        let Some(conductor) = self.conductors.get_mut(&cluster) else { return Err(Refused::Cluster(cluster)) };
        let ordered = order.as_ref().map(|ordered| ordered.order.node.clone());
        conductor.handle_task(Task { slot: slot.clone(), until, order }, &mut || *self.ids.next().as_bytes(), now);
        if let Some(about) = ordered {
            self.acknowledge(cluster, id, Effect::InForce {}, about.as_slice());
        }
        self.conduct(now);
        Ok((cluster, slot))
    }

    /// When the next drill of each schedule is due, for the heartbeats: custodians do not know the calendar.
    pub fn handle_next_drills(&mut self, next: BTreeMap<ClusterId, Timestamp>) {
        self.next_drills = next;
    }

    /// What each node of a cluster said of what it does for its clients.
    pub fn handle_survey(&mut self, cluster: ClusterId, survey: &Survey, now: Now) {
        let view = self.view(cluster, now);
        if let Some(conductor) = self.conductors.get_mut(&cluster) {
            conductor.handle_survey(survey, &view, &mut || *self.ids.next().as_bytes(), now);
        }
        self.conduct(now);
    }

    /// Something was seen of a node in a drill that this custodian conducts.
    pub fn handle_observed(&mut self, cluster: ClusterId, drill: DrillId, observed: Observed, now: Now) {
        let opened = matches!(observed, Observed::Open(..));
        let Some(conductor) = self.conductors.get_mut(&cluster) else { return };
        conductor.handle_observed(drill, observed, now);
        if let Some(node) = conductor.drilled().filter(|_| opened).cloned() {
            self.with_node(cluster, &node, now, |node, cx| node.see_open_in_drill(drill, cx));
        }
        self.conduct(now);
    }

    /// Conductors hear what concerns their drills.
    pub(super) fn tell_conductor(&mut self, header: &Header, content: &Content, now: Now) {
        if !self.conductors.contains_key(&header.cluster) {
            return;
        }
        let view =
            matches!(content, Content::DrillReport(_)).then(|| self.view(header.cluster, now)).unwrap_or_default();
        let Some(conductor) = self.conductors.get_mut(&header.cluster) else { return };
        match content {
            Content::Acknowledgement(answer) => conductor.hear_answer(&header.from, answer.order, &answer.effect),
            Content::Receipt(receipt) => conductor.hear_receipt(&header.from, receipt),
            Content::Approval(approval) => conductor.hear_approval(header, &approval.node, now),
            Content::Refusal(refusal) => conductor.hear_refusal(&header.from, refusal),
            // Its own it knows.
            Content::DrillReport(report) if header.from != self.settings.id => {
                let taken = self.slots.get(&header.cluster).is_some_and(|slots| slots.has(&report.slot));
                conductor.hear_report(&header.from, report, taken, &view, now);
            }
            _ => {}
        }
    }

    /// Moves every conductor on that has something to do.
    pub(super) fn conduct(&mut self, now: Now) {
        let busy = |(id, conductor): (&ClusterId, &Conductor)| (!conductor.is_idle()).then_some(*id);
        for cluster in self.conductors.iter().filter_map(busy).collect::<Vec<_>>() {
            self.hear_own_answer(cluster);
            let view = self.view(cluster, now);
            if let Some(conductor) = self.conductors.get_mut(&cluster) {
                conductor.advance(&view, &mut || *self.ids.next().as_bytes(), now);
            }
            while let Some(demand) = self.conductors.get_mut(&cluster).and_then(Conductor::poll_demand) {
                self.meet(cluster, demand, now);
            }
        }
    }

    fn meet(&mut self, cluster: ClusterId, demand: Demand, now: Now) {
        match demand {
            Demand::Save => self.outputs.push_back(Output::Save),
            Demand::Survey => self.outputs.push_back(Output::Survey { cluster }),
            Demand::Announce(id, intent) => {
                let expires_at = Some(now.wall.after(INTENT_LIFE));
                let from = self.settings.id.clone();
                let header = Header { kind: Kind::Intent, id, cluster, from, issued_at: now.wall, expires_at };
                self.outputs.push_back(Output::Announce { header: header.clone(), intent: intent.clone() });
                self.hear_intent(&header, intent, now);
            }
            Demand::Report(report) => {
                let me = self.settings.id.clone();
                self.hear_drill_report(cluster, &me, &report, now);
                self.outputs.push_back(Output::Publish { cluster, content: Content::DrillReport(report) });
            }
            Demand::Seal(order) => self.outputs.push_back(Output::Seal(order)),
            Demand::Unwatch(drill) => self.outputs.push_back(Output::Unwatch(drill)),
            Demand::Settled(slot) => self.outputs.push_back(Output::Settled { cluster, slot }),
        }
    }

    /// What this custodian itself made of its conductor's intent.
    fn hear_own_answer(&mut self, cluster: ClusterId) {
        let Some(conductor) = self.conductors.get_mut(&cluster) else { return };
        let Some((intent, node)) = conductor.awaited() else { return };
        let Some(node) = self.nodes.get(&(cluster, node.clone())) else { return };
        if let Some(effect) = node.answer_to(intent) {
            conductor.hear_answer(&self.settings.id, intent, &effect);
        }
    }

    fn view(&self, cluster: ClusterId, now: Now) -> View {
        let Some(settings) = self.settings.clusters.get(&cluster) else { return View::default() };
        let up = self.broker.up_since.is_some_and(|since| now.steady.since(since) >= HEARTBEAT_HEARD);
        let nodes = settings.nodes.keys().filter_map(|name| {
            let node = self.nodes.get(&(cluster, name.clone()))?;
            let held = self.orders.get(&cluster).is_some_and(|orders| orders.holds_on(name).next().is_some());
            let trouble = if held { Some("an operator's hold is in force") } else { node.trouble() };
            let ready = self.ready_for(cluster, name, now);
            Some((name.clone(), NodeView { open: node.sight.seen() == Seen::Open, trouble, held, ready }))
        });
        let (custodians, threshold) = (settings.custodians.clone(), settings.threshold);
        let next = self.conductors.get(&cluster).and_then(Conductor::next_slot);
        let intent_taken = next.is_some_and(|slot| self.slots.get(&cluster).is_some_and(|slots| slots.has(slot)));
        View { nodes: nodes.collect(), heard_all: up, custodians, threshold, intent_taken }
    }

    /// The custodians that say that they are ready for a node, this one among them.
    fn ready_for(&self, cluster: ClusterId, name: &NodeName, now: Now) -> BTreeSet<Principal> {
        let (Some(known), Some(settings)) = (self.clusters.get(&cluster), self.settings.clusters.get(&cluster)) else {
            return BTreeSet::new();
        };
        let distrusted =
            |custodian: &Principal| self.orders.get(&cluster).is_some_and(|orders| orders.is_distrusted(custodian));
        let fit = |(custodian, peer): &(&Principal, &Peer)| {
            settings.custodians.contains(*custodian)
                && !distrusted(custodian)
                && now.steady.since(peer.heard) <= SILENT
                && peer.ready.get(name).copied().unwrap_or(false)
        };
        let mut ready: BTreeSet<_> = known.peers.iter().filter(fit).map(|(custodian, _)| custodian.clone()).collect();
        let node = self.nodes.get(&(cluster, name.clone()));
        if node.is_some_and(|node| node.is_ready(known.share_ok, self.settings.sandboxed(), now.steady)) {
            ready.insert(self.settings.id.clone());
        }
        ready
    }
}
