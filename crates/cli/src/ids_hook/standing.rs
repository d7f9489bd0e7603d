//! Whether a hold stands: by custodians' own signed and recent words, of which the broker keeps the last minute. Neither broker nor
//! sentinel can say it in their place, so that neither can keep a hold from being ordered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_core::admission::{Admission, Roles};
use holdfast_core::ceremony::Manifest;
use holdfast_core::id::{MessageId, Principal};
use holdfast_core::message::{Content, Heartbeat};
use holdfast_core::time::Timestamp;
use holdfast_core::topology::operator_queue;
use holdfast_core::trust::AllowedSigners;
use holdfast_edge::broker::{Broker, BrokerEvent, BrokerSettings};
use holdfast_edge::clock::Clock;
use holdfast_edge::config::BrokerConfig;
use tokio::time::{Instant, timeout, timeout_at};

use crate::order::CLOSE;

/// How old a custodian's word may be: two heartbeats may have been lost.
const RECENT: Duration = Duration::from_secs(30);

/// What the custodians of one cluster last said. What is read from the queue is not there any more, and so is kept here.
pub(super) struct Heard {
    clock: Clock,
    door: Admission,
    last: BTreeMap<Principal, (Timestamp, Heartbeat)>,
}

impl Heard {
    /// Nothing yet.
    pub(super) fn new(trust: AllowedSigners, manifest: &Manifest) -> Self {
        let custodians: BTreeSet<_> = manifest.custodians().iter().map(|member| member.id.clone()).collect();
        let roles = Roles { custodians, ..Roles::default() };
        let door = Admission::new(trust, BTreeMap::from([(manifest.id(), roles)]));
        Self { clock: Clock::start(), door, last: BTreeMap::new() }
    }

    /// Listens to all that the broker has kept, until the deadline at most.
    pub(super) async fn catch_up(&mut self, broker: &BrokerConfig, restrictor: &Principal, deadline: Instant) {
        let (handle, mut events) = Broker::spawn(BrokerSettings {
            url: broker.url.clone(),
            username: broker.username.to_string(),
            password: broker.password.clone(),
            tls: broker.tls.clone(),
            queues: vec![operator_queue(restrictor)],
            connection_name: format!("holdfast ids-hook {restrictor}"),
        });
        let listen = async {
            while let Some(event) = events.recv().await {
                match event {
                    BrokerEvent::Delivery(delivery) => {
                        if let Ok(bytes) = &delivery.body {
                            self.hear(bytes);
                        }
                        delivery.ack();
                    }
                    BrokerEvent::Drained { .. } | BrokerEvent::QueueRefused { .. } => return,
                    _ => {}
                }
            }
        };
        // What was heard by then counts.
        let _ = timeout_at(deadline, listen).await;
        // What is to be done next may not wait for a broker that hangs.
        let _ = timeout(CLOSE, handle.close()).await;
    }

    fn hear(&mut self, bytes: &[u8]) {
        let Ok(body) = self.door.admit(bytes, self.clock.now()) else { return };
        let (from, at) = (body.header.from, body.header.issued_at);
        if let Content::Heartbeat(heartbeat) = body.content
            && self.last.get(&from).is_none_or(|(before, _)| *before < at)
        {
            self.last.insert(from, (at, *heartbeat));
        }
    }

    /// The first of these holds that so many custodians obey that the others could not open a node.
    pub(super) fn first_in_force(&self, holds: &[MessageId], manifest: &Manifest) -> Option<MessageId> {
        let (all, threshold) = (manifest.custodians().len(), usize::from(manifest.threshold()));
        first_in_force(&self.last, holds, all, threshold, self.clock.now().wall)
    }
}

fn first_in_force(
    said: &BTreeMap<Principal, (Timestamp, Heartbeat)>,
    holds: &[MessageId],
    all: usize,
    threshold: usize,
    now: Timestamp,
) -> Option<MessageId> {
    let obey = |id: &&MessageId| {
        let recent = said.values().filter(|(at, _)| now.since(*at) <= RECENT);
        let obey = recent.filter(|(_, heartbeat)| heartbeat.holds.iter().any(|hold| hold.id == **id)).count();
        all - obey.min(all) < threshold
    };
    holds.iter().find(obey).copied()
}

#[cfg(test)]
mod tests;
