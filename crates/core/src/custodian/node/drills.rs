//! What a conductor's intent does at one node: one seal that begins soon after it is a drill, and is undone.
//!
//! An intent authorises, and triggers nothing. It is taken only after the node was seen open with own eyes in answer to a question
//! that was asked after the intent came: a seal that was there before is nobody's drill. It lives in memory alone, so that
//! a process that did not see the node's whole story since then permits nothing because of it. Whether this custodian may
//! take it at all (windows, orders, slots) is `crate::custodian::drills`'.

use std::collections::VecDeque;
use std::time::Duration;

use crate::admission::SKEW_MAX;
use crate::custodian::{Entry, Marker, Output};
use crate::id::{DrillId, IncidentId, MessageId, Principal};
use crate::message::{Acknowledgement, Content, Effect, Intent, Receipt, Seen, plain_text};
use crate::policy::Rule;
use crate::time::{Now, Steady, Timestamp};

use super::{Context, Node};

/// Within how long after an intent was signed, and after it was taken, the seal that it covers begins.
pub const SEAL_WITHIN: Duration = Duration::from_secs(60);

/// How long an intent holds for the incident that it covers.
pub const INTENT_LIFE: Duration = Duration::from_secs(15 * 60);

/// How long the look takes at most with which an intent is taken.
const LOOK_MAX: Duration = Duration::from_secs(3);

/// The time between two looks of a stand-by at a node that is to be sealed for a drill: shorter than the node is sealed, so that nobody who
/// could open it takes another seal for the drill's. Who is to submit looks as always: a drill measures that.
const GUARD_LOOK: Duration = Duration::from_millis(15);

/// How long a stand-by may not have known whether the node is open, beside the time that two answers take: its own process may have waited, or the
/// node held an answer back while it sealed itself (docs/FACTS.md), and the node be open again by now.
const UNSEEN_MAX: Duration = Duration::from_millis(100);

/// How long stand-bys wait in a drill at least: longer than a node needs to seal itself (docs/FACTS.md).
const STAND_BY: Duration = Duration::from_secs(3);

/// How many intents that no seal followed are taken within [`UNUSED_KEPT`]: while one stands, somebody's deliberate seal would
/// pass for the drill's.
const UNUSED_MAX: usize = 3;

/// How long an intent that no seal followed is remembered.
const UNUSED_KEPT: Duration = Duration::from_secs(3600);

/// The intents of one node.
#[derive(Debug, Default)]
pub(super) struct Drills {
    asked: Option<Announced>,
    standing: Option<Standing>,
    unused: VecDeque<Steady>,
    /// The last that was not taken, and why.
    declined: Option<(MessageId, String)>,
}

/// An intent that came.
#[derive(Debug, Clone)]
pub(in crate::custodian) struct Announced {
    pub(in crate::custodian) id: MessageId,
    pub(in crate::custodian) from: Principal,
    pub(in crate::custodian) issued_at: Timestamp,
    pub(in crate::custodian) intent: Intent,
    pub(in crate::custodian) received: Now,
    /// Whether the operator's order in it says that people have to approve: then it permits nothing here, and the seal is one like any other.
    pub(in crate::custodian) people: bool,
}

#[derive(Debug)]
struct Standing {
    announced: Announced,
    taken: Steady,
    /// When the last question was asked to which the node has answered since: before the first of them nobody was told that the intent is taken,
    /// and nothing sealed.
    asked_at: Option<Steady>,
    /// The least time that an answer of the node has taken since.
    fastest: Duration,
    /// The incident that it covers.
    covers: Option<IncidentId>,
}

impl Standing {
    /// Whether it permits anything of a seal that was seen to begin then.
    fn in_time(&self, sealed: Now) -> bool {
        !self.announced.people
            && sealed.steady.since(self.taken) <= SEAL_WITHIN
            && sealed.wall <= self.announced.issued_at.after(SEAL_WITHIN)
    }
}

impl Node {
    /// A conductor announces a drill. Taken once the node is seen open, or refused with the reason.
    pub(in crate::custodian) fn announce(
        &mut self,
        announced: Announced,
        cx: &mut Context<'_>,
    ) -> Result<(), &'static str> {
        self.drills.unused.retain(|at| cx.now.steady.since(*at) < UNUSED_KEPT);
        let policy = &cx.settings.policy;
        if cx.held {
            return Err("an operator's hold is in force");
        }
        if policy.in_place == Rule::Hold {
            return Err("the policy says hold for a node that is sealed in place");
        }
        if announced.people && policy.in_place != Rule::Approve {
            return Err(
                "the policy opens a node that is sealed in place without people: they would have nothing to approve",
            );
        }
        if !self.state.markers.is_empty() {
            return Err("somebody sealed the node: a marker is set");
        }
        if self.incident.is_some() || self.sight.seen() != Seen::Open {
            return Err("the node is not seen open");
        }
        if self.has_intent() {
            return Err("another drill's intent stands");
        }
        if self.drills.unused.len() >= UNUSED_MAX {
            return Err("no seal followed the last intents: no more are taken within the hour");
        }
        if !cx.share_ok {
            return Err("its share is not sound");
        }
        self.drills.asked = Some(announced);
        self.sight.attend(cx.now);
        Ok(())
    }

    /// What was made of this intent, once that is known.
    pub(in crate::custodian) fn answer_to(&self, intent: MessageId) -> Option<Effect> {
        if self.drills.standing.as_ref().is_some_and(|standing| standing.announced.id == intent) {
            return Some(Effect::InForce {});
        }
        let declined = self.drills.declined.as_ref().filter(|(id, _)| *id == intent);
        declined.map(|(_, why)| Effect::Inapplicable { why: why.clone() })
    }

    /// Notes that an intent was not even looked at.
    pub(in crate::custodian) fn decline(&mut self, intent: MessageId, why: String) {
        self.drills.declined = Some((intent, why));
    }

    /// What speaks against a drill of this node.
    pub(in crate::custodian) fn trouble(&self) -> Option<&'static str> {
        if !self.state.markers.is_empty() {
            Some("somebody sealed it: a marker is set")
        } else if self.incident.is_some() {
            Some("an incident of it is not over")
        } else {
            None
        }
    }

    /// Whether an intent waits or stands.
    pub(in crate::custodian) fn has_intent(&self) -> bool {
        self.drills.asked.is_some() || self.drills.standing.is_some()
    }

    /// The node was seen open: an intent that came before the question is taken.
    pub(super) fn take_intent(&mut self, cx: &mut Context<'_>) {
        let asked_at = self.sight.asked_at().steady;
        let Some(announced) = self.drills.asked.take_if(|a| a.received.steady <= asked_at) else { return };
        let (cluster, node) = (self.cluster, self.name.clone());
        let Announced { id, from, intent, people, .. } = announced.clone();
        cx.outputs.push_back(Output::Save);
        cx.outputs.push_back(Output::Audit(Entry::Intent {
            cluster,
            node,
            id,
            from,
            drill: intent.drill,
            slot: intent.slot,
            people,
        }));
        self.answer_intent(id, Effect::InForce {}, cx);
        if !people && !intent.submitters.contains(cx.me) {
            self.sight.guard(GUARD_LOOK, cx.now.steady + SEAL_WITHIN, cx.now);
        }
        let fastest = cx.now.steady.since(asked_at);
        self.drills.standing =
            Some(Standing { announced, taken: cx.now.steady, asked_at: None, fastest, covers: None });
    }

    /// The node was seen open again after an intent was taken. Where that was not known for long, a stand-by may have missed the seal, and must not
    /// take another for it.
    pub(super) fn doubt_intent(&mut self, cx: &mut Context<'_>) {
        let asked_at = self.sight.asked_at().steady;
        let Some(standing) = self.drills.standing.as_mut().filter(|standing| !standing.announced.people) else {
            return;
        };
        standing.fastest = standing.fastest.min(cx.now.steady.since(asked_at));
        let unseen = cx.now.steady.since(standing.asked_at.replace(asked_at).unwrap_or(asked_at));
        if unseen > UNSEEN_MAX + standing.fastest * 2 && !standing.announced.intent.submitters.contains(cx.me) {
            let why = format!(
                "it was not known for {} ms whether the node is open: it may have been sealed meanwhile",
                unseen.as_millis()
            );
            self.use_up_intent(&why, cx);
        }
    }

    /// No intent counts any more, whether it waits or stands.
    pub(in crate::custodian) fn void_intent(&mut self, why: &str, cx: &mut Context<'_>) {
        let standing = self.drills.standing.take();
        self.sight.unguard();
        // What was the drill's seal is from now on one that people have to undo.
        let running = self.incident.as_ref().map(|incident| incident.id);
        if standing.as_ref().is_some_and(|standing| standing.covers.is_some() && standing.covers == running) {
            let by = cx.me.clone();
            self.mark(by.clone(), Marker { at: cx.now.wall, by }, cx);
        }
        let unused = standing.filter(|standing| standing.covers.is_none());
        if unused.as_ref().is_some_and(|standing| !standing.announced.people) {
            self.drills.unused.push_back(cx.now.steady);
        }
        let asked = self.drills.asked.take();
        if let Some(announced) = asked.or(unused.map(|standing| standing.announced)) {
            self.withdraw_word(&announced, why, cx);
        }
    }

    /// The seal that was announced has been and gone, seen here or not: it covers no other.
    pub(super) fn use_up_intent(&mut self, why: &str, cx: &mut Context<'_>) {
        self.sight.unguard();
        let Some(Standing { announced, covers: None, .. }) = self.drills.standing.take() else { return };
        self.withdraw_word(&announced, why, cx);
    }

    /// Says that an intent does not count here, or no longer: its conductor then does not seal, if it has not yet.
    fn withdraw_word(&mut self, announced: &Announced, why: &str, cx: &mut Context<'_>) {
        let (cluster, node) = (self.cluster, self.name.clone());
        let (id, from, why) = (announced.id, announced.from.clone(), plain_text(why));
        self.drills.declined = Some((id, why.clone()));
        self.answer_intent(id, Effect::Inapplicable { why: why.clone() }, cx);
        cx.outputs.push_back(Output::Audit(Entry::IntentVoid { cluster, node, id, from, why }));
    }

    fn answer_intent(&self, order: MessageId, effect: Effect, cx: &mut Context<'_>) {
        let in_flight = if self.in_flight() { vec![self.name.clone()] } else { Vec::new() };
        let content = Content::Acknowledgement(Acknowledgement { order, effect, in_flight });
        cx.outputs.push_back(Output::Publish { cluster: self.cluster, content });
    }

    /// The word of this principal counts for nothing.
    pub(super) fn void_intent_of(&mut self, principal: &Principal, cx: &mut Context<'_>) {
        let of_him = |announced: &Announced| announced.from == *principal;
        let standing = self.drills.standing.as_ref().map(|standing| &standing.announced);
        if self.drills.asked.as_ref().or(standing).is_some_and(of_him) {
            self.void_intent("operators have ordered that the conductor's word counts for nothing", cx);
        }
    }

    /// The conductor says that the drill is over, or that its node is open again. Where the node was not seen sealed, its intent holds no
    /// more.
    pub(in crate::custodian) fn close_drill(
        &mut self,
        from: &Principal,
        drill: DrillId,
        was_sealed: bool,
        cx: &mut Context<'_>,
    ) {
        let is_it = |announced: &Announced| announced.from == *from && announced.intent.drill == drill;
        let unseen = self.drills.standing.as_ref().is_some_and(|s| is_it(&s.announced) && s.covers.is_none());
        if unseen && was_sealed {
            self.use_up_intent("its conductor says that the node was sealed, and is open again", cx);
        } else if unseen || self.drills.asked.as_ref().is_some_and(is_it) {
            self.void_intent("its conductor says that the drill is over", cx);
        }
    }

    /// The eyes of a drill that this custodian conducts saw the node open again.
    pub(in crate::custodian) fn see_open_in_drill(&mut self, drill: DrillId, cx: &mut Context<'_>) {
        if self.drills.standing.as_ref().is_some_and(|standing| standing.announced.intent.drill == drill) {
            self.use_up_intent("the drill's eyes saw the node open again", cx);
        }
    }

    /// Another custodian opened the node: in this drill, if it says so, or if it saw the seal after the intent was signed.
    pub(super) fn hear_of_opening_in_drill(&mut self, from: &Principal, receipt: &Receipt, cx: &mut Context<'_>) {
        let of_it = |standing: &Standing| {
            let Announced { id, issued_at, .. } = &standing.announced;
            receipt.intent == Some(*id) || receipt.sealed_seen_at > *issued_at
        };
        if self.drills.standing.as_ref().is_some_and(of_it) {
            self.use_up_intent(&format!("{from} says that it opened the node since"), cx);
        }
    }

    /// Whether the seal of the running incident is the one that was announced; it is from now on.
    pub(super) fn cover(&mut self, cx: &mut Context<'_>) -> bool {
        let (cluster, node) = (self.cluster, self.name.clone());
        let Some((incident, sealed)) = self.incident.as_ref().and_then(|i| Some((i.id, i.sealed?))) else {
            return false;
        };
        let marked = !self.state.markers.is_empty();
        let Some(standing) = self.drills.standing.as_mut().filter(|standing| {
            standing.covers.is_none_or(|covered| covered == incident) && standing.in_time(sealed) && !marked
        }) else {
            return false;
        };
        if standing.covers.is_none() {
            standing.covers = Some(incident);
            let intent = standing.announced.id;
            cx.outputs.push_back(Output::Audit(Entry::Drill { cluster, node, incident, intent }));
        }
        true
    }

    /// Whether a seal that others saw at this time is the one that was announced.
    pub(super) fn expects_seal(&self, seen_at: Timestamp) -> bool {
        self.drills.standing.as_ref().is_some_and(|standing| {
            let Announced { issued_at, people, .. } = standing.announced;
            !people && issued_at.before(SKEW_MAX) <= seen_at && seen_at <= issued_at.after(SEAL_WITHIN + SKEW_MAX)
        })
    }

    /// The intent that covers the running incident.
    pub(super) fn covering(&self, cx: &Context<'_>) -> Option<&Announced> {
        let incident = self.incident.as_ref()?;
        let standing = self.drills.standing.as_ref().filter(|standing| {
            standing.covers == Some(incident.id) && cx.now.steady.since(standing.taken) < INTENT_LIFE
        })?;
        Some(&standing.announced).filter(|announced| cx.settings.conductors.contains(&announced.from))
    }

    /// How much longer this custodian stands by in a drill, so that those whose turn it is submit: a node that is sealing itself
    /// answers some of them a second after the others.
    pub(super) fn stand_by_in_drill(&self, rank: usize, cx: &Context<'_>) -> Duration {
        let first = rank < usize::from(cx.settings.threshold);
        if first || self.covering(cx).is_none() { Duration::ZERO } else { STAND_BY }
    }

    /// Lets go of intents whose time is over, and says when the next one's is.
    pub(super) fn expire_intent(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.steady;
        let asked = self.drills.asked.as_ref().map(|asked| asked.received.steady + LOOK_MAX);
        let standing = self.drills.standing.as_ref().map(|standing| {
            let life = if standing.covers.is_some() { INTENT_LIFE } else { SEAL_WITHIN };
            standing.taken + life
        });
        match asked.or(standing) {
            Some(until) if until <= now => {
                let unanswered = asked.is_some();
                self.void_intent(if unanswered { "the node did not answer in time" } else { "its time is over" }, cx);
            }
            until => self.wake_at(until),
        }
    }
}
