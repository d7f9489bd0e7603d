//! What the broker's tests share: a real RabbitMQ, a certificate authority, and a client that obeys no rule of ours.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part of it")]

pub mod authority;
pub mod hostile;
pub mod rabbit;

use std::time::Duration;

use holdfast_core::id::{ClusterId, Principal};
use holdfast_edge::broker::BrokerEvent;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

/// Longer than anything takes on a busy machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn name(text: &str) -> Principal {
    text.parse().expect("a name")
}

/// The cluster that most tests are about.
pub const PROD: ClusterId = ClusterId::from_bytes([0x11; 16]);
/// Another cluster, with another custodian.
pub const OTHER: ClusterId = ClusterId::from_bytes([0x22; 16]);

/// The next event that `pick` takes; the others are skipped.
pub async fn wait_for<T>(
    events: &mut Receiver<BrokerEvent>,
    what: &str,
    mut pick: impl FnMut(BrokerEvent) -> Option<T>,
) -> T {
    let mut skipped = Vec::new();
    let found = timeout(PATIENCE, async {
        while let Some(event) = events.recv().await {
            let shown = format!("{event:?}");
            if let Some(found) = pick(event) {
                return found;
            }
            skipped.push(shown);
        }
        panic!("the client ended while waiting for {what}");
    });
    match found.await {
        Ok(found) => found,
        Err(_) => panic!("no {what}; seen: {skipped:#?}"),
    }
}
