//! Whether a hold stands: by custodians' own signed and recent words, of which the broker keeps the last minute. Neither broker nor
//! sentinel can say it in their place, so that neither can keep a hold from being ordered.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_core::ceremony::Manifest;
use holdfast_core::id::{MessageId, Principal};
use holdfast_core::message::{Content, Heartbeat};
use holdfast_core::time::Timestamp;
use holdfast_edge::broker::BrokerEvent;
use holdfast_edge::clock;
use holdfast_edge::config::BrokerConfig;
use tokio::time::{Instant, timeout_at};

use crate::operator::{OperatedCluster, Operator};
use crate::order::Post;

/// How old a custodian's word may be: two heartbeats may have been lost.
const RECENT: Duration = Duration::from_secs(30);

/// What the custodians of one cluster last said. What is read from the queue is not there any more, and so is kept here.
#[derive(Default)]
pub(super) struct Heard {
    last: BTreeMap<Principal, (Timestamp, Heartbeat)>,
}

impl Heard {
    /// Listens to all that the broker has kept, until the deadline at most.
    pub(super) async fn catch_up(
        &mut self,
        broker: &BrokerConfig,
        restrictor: &Operator,
        cluster: &OperatedCluster,
        deadline: Instant,
    ) {
        let mut post = Post::open(broker, restrictor, cluster);
        let listen = async {
            while let Some(event) = post.events.recv().await {
                match event {
                    BrokerEvent::Delivery(delivery) => {
                        let now = post.clock.now();
                        let body = delivery.body.as_ref().ok().and_then(|bytes| post.door.admit(bytes, now).ok());
                        if let Some(body) = body
                            && let Content::Heartbeat(heartbeat) = body.content
                        {
                            self.hear(body.header.from, body.header.issued_at, *heartbeat);
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
        post.close().await;
    }

    fn hear(&mut self, from: Principal, at: Timestamp, heartbeat: Heartbeat) {
        if self.last.get(&from).is_none_or(|(before, _)| *before < at) {
            self.last.insert(from, (at, heartbeat));
        }
    }

    /// The first of these holds that so many custodians obey that the others could not open a node.
    pub(super) fn first_in_force(&self, holds: &[MessageId], manifest: &Manifest) -> Option<MessageId> {
        let (all, threshold) = (manifest.custodians().len(), usize::from(manifest.threshold()));
        first_in_force(&self.last, holds, all, threshold, clock::wall())
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
