//! What a custodian says of itself and of what it sees, as Prometheus reads it. The names are the sentinel's, and mean the same seen
//! from here: a sentinel tells what it heard, a custodian what is.

use holdfast_core::id::Principal;
use holdfast_core::message::{Heartbeat, Needs, NodeReport, SandboxPart, Seen};
use holdfast_core::time::Timestamp;
use holdfast_edge::exposition::Exposition;

use super::Known;

/// Each metric's name and meaning.
pub(super) const GAUGES: [(&str, &str); 20] = [
    ("holdfast_build_info", "1; the version is in the label"),
    ("holdfast_broker_up", "Whether this custodian is connected to the broker"),
    ("holdfast_vault_up", "Whether the node answers this custodian as itself"),
    ("holdfast_vault_sealed", "Whether the node says that it is sealed; absent while it does not answer"),
    ("holdfast_vault_unsealed_nodes", "Nodes that this custodian sees open"),
    ("holdfast_node_certificate_not_after_timestamp_seconds", "When the node's certificate expires"),
    ("holdfast_custodian_last_heartbeat_timestamp_seconds", "When the custodian made its last heartbeat"),
    ("holdfast_custodian_ready", "Whether the custodian could release its share to the node"),
    ("holdfast_custodian_share_ok", "Whether the custodian's share was decrypted and matched its digest"),
    ("holdfast_custodian_sandboxed", "Whether the custodian's sandbox is in force"),
    ("holdfast_custodian_sandbox_whole", "Whether every part of it is"),
    ("holdfast_custodian_audit_ok", "Whether the custodian can write its audit log, and knows of no change in it"),
    ("holdfast_custodian_clock_synchronised", "Whether the kernel says that the custodian's clock is synchronised"),
    ("holdfast_quorum_threshold", "Shares that open a node"),
    ("holdfast_holds", "Holds on the node that the custodian obeys, those on the whole cluster among them"),
    (
        "holdfast_hold_since_timestamp_seconds",
        "When the first of the holds on the node was signed; absent while there is none",
    ),
    ("holdfast_markers", "1 where the custodian holds a marker: somebody sealed the node"),
    ("holdfast_approvals_waiting", "Approvals that the custodian still waits for before the node is opened"),
    ("holdfast_budget_remaining", "Automatic openings that the custodian's budget still allows"),
    ("holdfast_node_identity_refused", "Whether somebody who is not the node last answered at its address"),
];

pub(super) const COUNTERS: [(&str, &str); 2] = [
    ("holdfast_share_submissions_total", "Shares that the custodian submitted, by result"),
    ("holdfast_messages_rejected_total", "Messages that the receiver refused, by reason"),
];

/// Everything, in Prometheus' text format.
pub(super) fn render(me: &Principal, known: &Known) -> String {
    let mut told = Exposition::new(&GAUGES, &COUNTERS);
    told.tell("holdfast_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    if let Some(up) = known.broker_up {
        told.tell("holdfast_broker_up", &[], up);
    }
    for (cluster, (at, heartbeat)) in &known.clusters {
        tell_cluster(&mut told, cluster.as_str(), me, *at, heartbeat);
    }
    // It counts over all clusters, and says so in each of its heartbeats.
    if let Some((_, heartbeat)) = known.clusters.values().max_by_key(|(at, _)| *at) {
        for (reason, total) in &heartbeat.rejected {
            let labels = [("receiver", me.as_str()), ("reason", reason)];
            told.tell("holdfast_messages_rejected_total", &labels, count(*total));
        }
    }
    told.render()
}

fn tell_cluster(told: &mut Exposition, cluster: &str, me: &Principal, at: Timestamp, heartbeat: &Heartbeat) {
    let labels = [("cluster", cluster), ("custodian", me.as_str())];
    let audit = heartbeat.audit.ok && heartbeat.audit.broken.is_none();
    told.tell("holdfast_custodian_last_heartbeat_timestamp_seconds", &labels, at.as_seconds());
    told.tell("holdfast_custodian_share_ok", &labels, heartbeat.share.ok);
    told.tell("holdfast_custodian_sandboxed", &labels, heartbeat.sandboxed);
    told.tell("holdfast_custodian_sandbox_whole", &labels, heartbeat.sandbox.len() == SandboxPart::ALL.len());
    told.tell("holdfast_custodian_audit_ok", &labels, audit);
    told.tell("holdfast_custodian_clock_synchronised", &labels, heartbeat.clock_synchronised);
    for (result, total) in &heartbeat.submissions {
        let labels = [labels[0], labels[1], ("result", result)];
        told.tell("holdfast_share_submissions_total", &labels, count(*total));
    }
    let open = heartbeat.nodes.values().filter(|node| node.seen == Seen::Open).count();
    told.tell("holdfast_vault_unsealed_nodes", &labels[..1], u32::try_from(open).unwrap_or(u32::MAX));
    told.tell("holdfast_quorum_threshold", &labels[..1], heartbeat.threshold);
    for (name, node) in &heartbeat.nodes {
        let labels = [labels[0], ("node", name.as_str()), labels[1]];
        tell_node(told, &labels, node);
        let holds = || heartbeat.holds.iter().filter(|hold| hold.covers(name));
        told.tell("holdfast_holds", &labels[..2], u32::try_from(holds().count()).unwrap_or(u32::MAX));
        if let Some(since) = holds().map(|hold| hold.held_at).min() {
            told.tell("holdfast_hold_since_timestamp_seconds", &labels[..2], since.as_seconds());
        }
    }
}

/// `labels` are the cluster's, the node's and the custodian's.
fn tell_node(told: &mut Exposition, labels: &[(&str, &str); 3], node: &NodeReport) {
    let place = &labels[..2];
    let answers = matches!(node.seen, Seen::Open | Seen::Sealed);
    told.tell("holdfast_vault_up", place, answers);
    if answers {
        told.tell("holdfast_vault_sealed", place, node.seen == Seen::Sealed);
    }
    if let Some(end) = node.certificate_not_after {
        told.tell("holdfast_node_certificate_not_after_timestamp_seconds", place, end.as_seconds());
    }
    let missing = match node.needs {
        Some(Needs::Approvals { have, need }) => need.saturating_sub(have),
        _ => 0,
    };
    told.tell("holdfast_approvals_waiting", place, missing);
    told.tell("holdfast_markers", place, node.marker.is_some());
    told.tell("holdfast_node_identity_refused", place, node.identity_refused.is_some());
    told.tell("holdfast_custodian_ready", labels, node.ready);
    told.tell("holdfast_budget_remaining", labels, node.budget_remaining);
}

/// A count as Prometheus keeps it.
#[expect(clippy::cast_precision_loss, reason = "nothing is lost below 2^53")]
fn count(total: u64) -> f64 {
    total as f64
}
