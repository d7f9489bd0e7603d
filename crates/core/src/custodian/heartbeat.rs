//! A heartbeat's size: whatever there is to tell, it fits an envelope. One that does not is one that nobody hears, and a custodian
//! that nobody hears looks dead.

use crate::envelope::BODY_MAX;
use crate::message::Heartbeat;

/// The largest heartbeat's content, in bytes; the rest of the body is the header's.
const CONTENT_MAX: usize = BODY_MAX - 1024;

/// The longest why beside a node, in characters, once room is short: enough to know what it is about.
const WHY_SHORT: usize = 32;

/// How many orders are named once room is short. What is left out is named again when there is room.
const ORDERS_SHORT: usize = 8;

/// Leaves out of a heartbeat what people can do without, the least important first, until it fits.
pub(super) fn fit(heartbeat: &mut Heartbeat) {
    let steps: [fn(&mut Heartbeat); 4] = [
        |heartbeat| heartbeat.holds.iter_mut().for_each(|hold| hold.reason = None),
        |heartbeat| {
            let texts = heartbeat.nodes.values_mut().filter_map(|node| node.identity_refused.as_mut());
            texts.for_each(|why| *why = why.chars().take(WHY_SHORT).collect());
        },
        |heartbeat| heartbeat.orders.truncate(ORDERS_SHORT),
        |heartbeat| {
            heartbeat.waiting.truncate(1);
            heartbeat.holds.truncate(1);
        },
    ];
    for step in steps {
        if size(heartbeat) <= CONTENT_MAX {
            return;
        }
        step(heartbeat);
    }
}

fn size(heartbeat: &Heartbeat) -> usize {
    serde_json::to_vec(heartbeat).map_or(0, |content| content.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::Cause;
    use crate::id::{MessageId, Principal};
    use crate::message::{
        HOLDS_REPORTED, HoldReport, Matter, NODES_NAMED_MAX, Needs, TEXT_MAX, WAITING_REPORTED, WaitingReport,
    };
    use crate::orders::PASSED_ON_MAX;
    use crate::time::Timestamp;

    const NODES_MAX: usize = 64;

    fn longest(number: usize) -> String {
        format!("{number:0>63}")
    }

    fn principal(number: usize) -> Principal {
        longest(number).parse().expect("a name")
    }

    #[test]
    fn the_largest_heartbeat_fits_an_envelope() {
        let at = Timestamp::from_millis(1_800_000_000_000);
        let nodes: Vec<_> = (0..NODES_MAX).map(longest).collect();
        let named: Vec<_> = nodes.iter().map(|name| (name.as_str(), true)).collect();
        let mut heartbeat = crate::quorum::tests::heartbeat(255, &named);
        for node in heartbeat.nodes.values_mut() {
            node.cause = Some(Cause::InPlace);
            node.needs = Some(Needs::Approvals { have: 255, need: 255 });
            (node.marker, node.marker_by) = (Some(at), Some(principal(1)));
            (node.certificate_not_after, node.budget_remaining) = (Some(at), u32::MAX);
            (node.in_flight, node.budget_frees_at) = (true, Some(at));
            node.identity_refused = Some("x".repeat(TEXT_MAX));
        }
        heartbeat.next_drill = Some(at);
        let hold = HoldReport {
            id: MessageId::from_bytes([1; 16]),
            by: principal(1),
            held_at: at,
            nodes: nodes.iter().take(NODES_NAMED_MAX).map(|name| name.parse().expect("a name")).collect(),
            reason: Some("x".repeat(TEXT_MAX)),
            released_by: (0..8).map(principal).collect(),
            need: 255,
        };
        heartbeat.holds = vec![hold; HOLDS_REPORTED];
        let matter = Matter::Trust { version: u32::MAX, previous_sha256: "0".repeat(64), sha256: "0".repeat(64) };
        let waiting = WaitingReport { matter, by: (0..8).map(principal).collect(), need: 255 };
        heartbeat.waiting = vec![waiting; WAITING_REPORTED];
        heartbeat.distrusted = (0..8).map(principal).collect();
        heartbeat.orders = vec!["0".repeat(64); PASSED_ON_MAX];
        assert!(size(&heartbeat) > CONTENT_MAX, "or this test shows nothing");
        fit(&mut heartbeat);
        assert!(size(&heartbeat) <= CONTENT_MAX, "{} bytes", size(&heartbeat));
        assert_eq!((heartbeat.holds.len(), heartbeat.nodes.len()), (1, NODES_MAX));
    }
}
