//! Operators' orders at a custodian: what is taken, what it does to the nodes, what is told, and how orders reach custodians
//! that missed them.
//!
//! What stands and what it takes is `crate::orders`'. A custodian's heartbeat names, by digest, each order that it passes on; who
//! does not have one asks for it, and is sent the operator's own envelope. That is verified like any other: nobody's word for an
//! order is taken but the operator's.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::admission::Refused;
use crate::id::{ClusterId, MessageId, NodeName, Principal};
use crate::message::{Acknowledgement, Content, Effect, Header, Matter, Relay, Want};
use crate::orders::{Asked, Change, PASSED_ON_MAX, Taken};
use crate::time::{Now, Steady};
use crate::trust::AllowedSigners;

use super::{Context, Custodian, Entry, HEARTBEAT_MIN, Node, Output};

/// How often one order is sent to one custodian: who asks more often does not listen.
const RELAY_AGAIN: Duration = Duration::from_secs(5);

/// How many answers to one custodian are remembered. When that is full, nothing more is sent to it until some are old.
const SENT_TO_ONE: usize = 2 * PASSED_ON_MAX;

/// The passing on of orders between custodians.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// What this custodian asked others for.
    asked: Asked,
    /// Which were sent to each custodian, and when.
    relayed: BTreeMap<Principal, BTreeMap<String, Steady>>,
}

impl Exchange {
    fn may_send(&mut self, sha256: &str, to: &Principal, now: Steady) -> bool {
        let relayed = self.relayed.entry(to.clone()).or_default();
        relayed.retain(|_, at| now.since(*at) < RELAY_AGAIN);
        let may = relayed.len() < SENT_TO_ONE && !relayed.contains_key(sha256);
        if may {
            relayed.insert(sha256.to_owned(), now);
        }
        may
    }

    /// What could not be taken when it came may be by now.
    fn ask_anew(&mut self) {
        self.asked = Asked::default();
    }

    /// Whether an order that others have may be on its way here.
    pub(super) fn waits(&self, now: Steady) -> bool {
        self.asked.waits(now)
    }
}

impl Custodian {
    /// Puts each cluster's trust root in force, and voids what was judged under another one.
    pub(super) fn settle_trust_roots(&mut self, now: Now) {
        let configured = hex::encode(self.settings.allowed_signers.digest());
        let mut judged_anew = Vec::new();
        for id in self.settings.clusters.keys() {
            let orders = self.orders.entry(*id).or_default();
            orders.notice_configured(&configured);
            self.admission.set_trust_root(*id, orders.trust_root(&configured));
            if orders.judge_under(self.admission.trust(*id)) {
                judged_anew.push(*id);
                self.outputs.push_back(Output::Save);
            }
        }
        for id in judged_anew {
            self.void_permissions(id, now);
        }
    }

    /// Another trust root is in force: what was approved or announced under the one before is void.
    fn void_permissions(&mut self, cluster: ClusterId, now: Now) {
        for name in self.nodes_of(cluster) {
            let void =
                |node: &mut Node, cx: &mut Context<'_>| node.void_permissions("another trust root is in force", cx);
            self.with_node(cluster, &name, now, void);
        }
    }

    /// An order was admitted.
    pub(super) fn hear_order(
        &mut self,
        header: &Header,
        content: &Content,
        bytes: &[u8],
        now: Now,
    ) -> Result<(), Refused> {
        let (id, cluster) = (header.id, header.cluster);
        let taken = self.take_order(header, content, &String::from_utf8_lossy(bytes), now);
        let (effect, change) = match taken {
            Taken::Told { effect, change } => (effect, change),
            Taken::Known | Taken::Full => {
                if taken == Taken::Full {
                    self.admission.forget_order(header);
                }
                let refused = if taken == Taken::Full { Refused::Full } else { Refused::Replayed(id) };
                self.admission.count_refusal(refused.reason());
                return Err(refused);
            }
        };
        if let Effect::Inapplicable { .. } = effect {
            // It may have come before what it builds on.
            self.admission.forget_order(header);
        }
        let about = match content {
            Content::Hold(hold) => hold.nodes.clone(),
            _ => Vec::new(),
        };
        if let Some(change) = change {
            // Before anything that it brings about.
            self.outputs.push_back(Output::Save);
            let matter = matter_of(content);
            self.carry_out(cluster, header, matter, change, now);
        }
        let about = if about.is_empty() { self.nodes_of(cluster) } else { about };
        self.acknowledge(cluster, id, effect, &about);
        self.tell_soon(cluster, now);
        Ok(())
    }

    fn take_order(&mut self, header: &Header, content: &Content, envelope: &str, now: Now) -> Taken {
        let Some(settings) = self.settings.clusters.get(&header.cluster) else { return Taken::Known };
        let orders = self.orders.entry(header.cluster).or_default();
        let (peers, configured) = (settings.peers(), hex::encode(self.settings.allowed_signers.digest()));
        let rules = settings.rules(&peers, self.admission.trust(header.cluster), &configured);
        // By the latest time that the clock has shown: one that is set back makes no voice last longer.
        let at = now.wall.max(self.admission.high_water());
        orders.take(header, content, envelope, &rules, at)
    }

    fn carry_out(&mut self, cluster: ClusterId, header: &Header, matter: Option<Matter>, change: Change, now: Now) {
        let (id, from) = (header.id, header.from.clone());
        let entry = match &change {
            Change::Held(nodes) => Entry::Hold { cluster, id, from, nodes: nodes.clone() },
            Change::Voiced => Entry::Voice { cluster, id, from, matter },
            Change::Released(hold, by) => Entry::Released { cluster, hold: *hold, by: by.clone() },
            Change::Distrusted { principal, lift, by } => {
                Entry::Distrust { cluster, principal: principal.clone(), lift: *lift, by: by.clone() }
            }
            Change::Trusted { version, allowed_signers, by } => {
                let sha256 = hex::encode(allowed_signers.digest());
                Entry::Trust { cluster, version: *version, sha256, by: by.clone() }
            }
        };
        self.outputs.push_back(Output::Audit(entry));
        match change {
            Change::Held(nodes) => {
                let nodes = if nodes.is_empty() { self.nodes_of(cluster) } else { nodes };
                for name in nodes {
                    self.with_node(cluster, &name, now, |node, cx| node.hold(header.issued_at, cx));
                }
            }
            Change::Distrusted { principal, lift: false, .. } => {
                for name in self.nodes_of(cluster) {
                    self.with_node(cluster, &name, now, |node, cx| node.forget_word_of(&principal, cx));
                }
            }
            Change::Trusted { allowed_signers, .. } => self.follow_trust(cluster, allowed_signers, now),
            Change::Released(..) | Change::Distrusted { .. } => self.consider_all(now),
            Change::Voiced => {}
        }
    }

    fn follow_trust(&mut self, cluster: ClusterId, allowed_signers: AllowedSigners, now: Now) {
        self.admission.set_trust_root(cluster, Some(allowed_signers));
        let orders = self.orders.entry(cluster).or_default();
        orders.judge_under(self.admission.trust(cluster));
        self.exchange.ask_anew();
        self.void_permissions(cluster, now);
    }

    /// Tells the operator, and whoever listens, what came of a message: when it is on disk.
    pub(super) fn acknowledge(&mut self, cluster: ClusterId, order: MessageId, effect: Effect, about: &[NodeName]) {
        let flies = |name: &&NodeName| self.nodes.get(&(cluster, (*name).clone())).is_some_and(Node::in_flight);
        let in_flight = about.iter().filter(flies).cloned().collect();
        let content = Content::Acknowledgement(Acknowledgement { order, effect, in_flight });
        self.outputs.push_back(Output::Publish { cluster, content });
    }

    /// Another custodian's heartbeat named orders: what this one does not have, it asks for.
    pub(super) fn ask_for_orders(&mut self, cluster: ClusterId, of: &Principal, named: &[String], now: Now) {
        let orders = self.orders.entry(cluster).or_default();
        let lacks = |sha256: &&String| orders.envelope(sha256).is_none();
        if let Some(want) = self.exchange.asked.want(named.iter().filter(lacks), of, now.steady) {
            self.outputs.push_back(Output::Publish { cluster, content: Content::Want(want) });
        }
    }

    pub(super) fn hear_want(&mut self, cluster: ClusterId, from: &Principal, want: &Want, now: Now) {
        if want.of != self.settings.id {
            return;
        }
        let Some(orders) = self.orders.get(&cluster) else { return };
        for sha256 in &want.sha256 {
            let Some(envelope) = orders.envelope(sha256) else { continue };
            if self.exchange.may_send(sha256, from, now.steady) {
                let content = Content::Relay(Relay { to: from.clone(), envelope: envelope.to_owned() });
                self.outputs.push_back(Output::Publish { cluster, content });
            }
        }
    }

    pub(super) fn hear_relay(&mut self, relay: &Relay, now: Now) -> Result<(), Refused> {
        if relay.to != self.settings.id {
            return Ok(());
        }
        let bytes = relay.envelope.as_bytes();
        if self.orders.values().any(|orders| orders.has(&relay.envelope)) {
            // Another, who was asked too, was faster.
            return Ok(());
        }
        let body = self.admission.admit_order(bytes, now)?;
        self.hear_order(&body.header, &body.content, bytes, now)
    }

    /// Others should hear soon of what changed.
    fn tell_soon(&mut self, cluster: ClusterId, now: Now) {
        if let Some(cluster) = self.clusters.get_mut(&cluster)
            && let Some(last) = cluster.last_heartbeat
        {
            cluster.next_heartbeat = cluster.next_heartbeat.min(last + HEARTBEAT_MIN).max(now.steady);
        }
    }

    fn nodes_of(&self, cluster: ClusterId) -> Vec<NodeName> {
        let settings = self.settings.clusters.get(&cluster);
        settings.map_or_else(Vec::new, |settings| settings.nodes.keys().cloned().collect())
    }
}

/// What an order asks several operators to agree on, for the audit log.
fn matter_of(content: &Content) -> Option<Matter> {
    match content {
        Content::Release(release) => Some(release.matter()),
        Content::Distrust(distrust) => Some(distrust.matter()),
        Content::Trust(trust) => Some(trust.matter()),
        _ => None,
    }
}
