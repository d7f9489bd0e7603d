//! Whether a hold stands: by custodians' own signed and recent words, of which the broker keeps the last minute. Neither broker nor
//! sentinel can say it in their place, so that neither can keep a hold from being ordered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_core::admission::{Admission, Roles};
use holdfast_core::id::{MessageId, Principal};
use holdfast_core::message::{Content, Heartbeat};
use holdfast_core::time::{Now, Timestamp};
use holdfast_core::topology::operator_queue;
use holdfast_edge::broker::{Broker, BrokerEvent, BrokerSettings};
use holdfast_edge::clock::Clock;
use holdfast_edge::config::BrokerConfig;
use tokio::time::{Instant, timeout, timeout_at};

use crate::operator::{OperatedCluster, Operator};
use crate::order::CLOSE;

/// How old a custodian's word may be: two heartbeats may have been lost.
const RECENT: Duration = Duration::from_secs(30);

/// What custodians last said.
struct Heard {
    door: Admission,
    last: BTreeMap<Principal, (Timestamp, Heartbeat)>,
}

/// The first of these holds that so many custodians obey that the others could not open a node, as far as can be heard until the
/// deadline.
pub(super) async fn first_in_force(
    holds: &[MessageId],
    broker: &BrokerConfig,
    restrictor: &Operator,
    cluster: &OperatedCluster,
    deadline: Instant,
) -> Option<MessageId> {
    if holds.is_empty() {
        return None;
    }
    let clock = Clock::start();
    let queue = operator_queue(&restrictor.principal);
    let (handle, mut events) = Broker::spawn(BrokerSettings {
        url: broker.url.clone(),
        username: broker.username.to_string(),
        password: broker.password.clone(),
        tls: broker.tls.clone(),
        queues: vec![queue],
        connection_name: format!("holdfast ids-hook {}", broker.username),
    });
    let mut heard = Heard::new(restrictor, cluster);
    let listen = async {
        while let Some(event) = events.recv().await {
            match event {
                BrokerEvent::Delivery(delivery) => {
                    if let Ok(bytes) = &delivery.body {
                        heard.hear(bytes, clock.now());
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
    let (all, threshold) = (cluster.manifest.custodians().len(), usize::from(cluster.manifest.threshold()));
    heard.first_in_force(holds, all, threshold, clock.now().wall)
}

impl Heard {
    fn new(restrictor: &Operator, cluster: &OperatedCluster) -> Self {
        let custodians: BTreeSet<_> = cluster.manifest.custodians().iter().map(|member| member.id.clone()).collect();
        let roles = Roles { custodians, ..Roles::default() };
        let clusters = BTreeMap::from([(cluster.manifest.id(), roles)]);
        Self { door: Admission::new(restrictor.allowed_signers.clone(), clusters), last: BTreeMap::new() }
    }

    fn hear(&mut self, bytes: &[u8], now: Now) {
        let Ok(body) = self.door.admit(bytes, now) else { return };
        let (from, at) = (body.header.from, body.header.issued_at);
        if let Content::Heartbeat(heartbeat) = body.content
            && self.last.get(&from).is_none_or(|(before, _)| *before < at)
        {
            self.last.insert(from, (at, *heartbeat));
        }
    }

    fn first_in_force(&self, holds: &[MessageId], all: usize, threshold: usize, now: Timestamp) -> Option<MessageId> {
        let obey = |id: &&MessageId| {
            let recent = self.last.values().filter(|(at, _)| now.since(*at) <= RECENT);
            let obey = recent.filter(|(_, heartbeat)| heartbeat.holds.iter().any(|hold| hold.id == **id)).count();
            all - obey.min(all) < threshold
        };
        holds.iter().find(obey).copied()
    }
}

#[cfg(test)]
mod tests;
