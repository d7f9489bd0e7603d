//! What the sentinel knows, as Prometheus reads it.
//!
//! Everything but the histogram is written anew for each scrape, from the status and the counters: so no series outlives what
//! it is about.

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::admission::REASONS;
use holdfast_core::id::Principal;
use holdfast_core::message::{Needs, SandboxPart, Seen};
use holdfast_core::status::{ClusterStatus, CustodianStatus, DrillSummary, NodeStatus, Status};
use holdfast_core::verdict;
use holdfast_core::watch::{Place, Totals};
use metrics::{
    Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram, with_local_recorder,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusRecorder};

const UNSEAL_DURATION: &str = "holdfast_unseal_duration_seconds";

/// The histogram's bounds, in seconds: from custodians alone (milliseconds) to people with approvals (an hour).
const UNSEAL_BUCKETS: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];

/// Each metric's name and meaning.
const GAUGES: [(&str, &str); 40] = [
    ("holdfast_build_info", "1; the version is in the label"),
    ("holdfast_broker_up", "Whether this sentinel is connected to the broker"),
    ("holdfast_vault_up", "Whether the node answers as itself"),
    ("holdfast_vault_sealed", "Whether the node says that it is sealed; absent while it does not answer"),
    ("holdfast_vault_unsealed_nodes", "Nodes that are seen open"),
    ("holdfast_vault_min_unsealed_nodes", "Nodes that should be open at any time"),
    ("holdfast_node_certificate_not_after_timestamp_seconds", "When the node's certificate expires"),
    ("holdfast_custodian_up", "Whether the custodian's last heartbeat is recent"),
    ("holdfast_custodian_last_heartbeat_timestamp_seconds", "When the custodian signed its last heartbeat"),
    ("holdfast_custodian_ready", "Whether the custodian could release its share to the node"),
    ("holdfast_custodian_share_ok", "Whether the custodian's share was decrypted and matched its digest"),
    (
        "holdfast_custodian_share_suspect",
        "Whether the custodian's share was in a set that did not fit while another one opened the node, and in none since",
    ),
    (
        "holdfast_custodian_share_proven_timestamp_seconds",
        "When the custodian's share was last part of a set that opened a node; absent while it never was",
    ),
    (
        "holdfast_custodian_receipts_contradict",
        "Whether the custodian and others told of one attempt what cannot all be true: at least one of them lies",
    ),
    ("holdfast_custodian_clock_synchronised", "Whether the kernel says that the custodian's clock is synchronised"),
    (
        "holdfast_node_restart_provable",
        "Custodians that are ready and could tell a restart of the node from a seal; absent while it is not seen open",
    ),
    ("holdfast_sentinel_history_ok", "Whether what the sentinel learns is written down"),
    ("holdfast_custodian_sandboxed", "Whether the custodian's sandbox is in force"),
    ("holdfast_custodian_sandbox_whole", "Whether every part of it is"),
    (
        "holdfast_custodian_audit_ok",
        "Whether the custodian can write its audit log, and nothing tells of a change in it",
    ),
    ("holdfast_custodian_clock_offset_seconds", "How far the custodian's clock is ahead of the sentinel's"),
    ("holdfast_custodian_config_diverged", "Whether its policy, trust root or threshold differs from most others'"),
    ("holdfast_quorum_threshold", "Shares that open a node"),
    ("holdfast_quorum_ready", "Distinct shares that are ready, for the node with the fewest"),
    ("holdfast_quorum_margin", "Ready minus threshold"),
    ("holdfast_quorum_margin_without_largest_site", "The margin after the loss of the site whose loss costs most"),
    ("holdfast_generation_mismatch", "Whether custodians hold shares of different generations"),
    ("holdfast_holds", "Holds on the node that custodians say they obey, those on the whole cluster among them"),
    (
        "holdfast_hold_since_timestamp_seconds",
        "When the first of the holds on the node was signed; absent while there is none",
    ),
    ("holdfast_sentinel_config_diverged", "Whether the sentinel judges by another trust root than most custodians"),
    ("holdfast_markers", "Custodians that hold a marker: somebody sealed the node"),
    ("holdfast_approvals_waiting", "Approvals that custodians still wait for before the node is opened"),
    ("holdfast_budget_remaining", "Automatic openings that the custodian's budget still allows"),
    ("holdfast_node_shared_address", "Whether several processes were found behind the node's address"),
    ("holdfast_node_identity_refused", "Whether somebody who is not the node last answered at its address"),
    (
        "holdfast_drill_last_success_timestamp_seconds",
        "When the last drill that passed was over; absent while none did",
    ),
    (
        "holdfast_drill_last_closed_timestamp_seconds",
        "When the last drill was heard to be over, however it went; absent while none was",
    ),
    (
        "holdfast_drill_due_timestamp_seconds",
        "When the first drill was due that did not take place, as conductors' heartbeats had told; absent while there is none",
    ),
    (
        "holdfast_drill_next_run_timestamp_seconds",
        "When the next drill is due, as conductors' heartbeats tell; absent where none is planned, or none is heard",
    ),
    (
        "holdfast_drill_last_duration_seconds",
        "How long the node was seen sealed in its last drill, by its conductor's steady clock",
    ),
];

const COUNTERS: [(&str, &str); 5] = [
    ("holdfast_incidents_total", "Incidents that the sentinel saw, by cause"),
    ("holdfast_unseals_total", "Incidents that custodians ended, by cause"),
    ("holdfast_share_submissions_total", "Shares that the custodian submitted, by result"),
    ("holdfast_drill_runs_total", "Drills that are over, by result"),
    ("holdfast_messages_rejected_total", "Messages that the receiver refused, by reason"),
];

/// Everything that there is to write at one moment. It is written apart from the driver: of a thousand custodians that takes as long
/// as a node must not wait to be looked at.
pub(crate) struct Snapshot {
    pub(crate) status: Status,
    pub(crate) totals: Totals,
    pub(crate) metrics: Arc<Metrics>,
}

impl Snapshot {
    /// In Prometheus' text format.
    pub(crate) fn render(&self) -> String {
        self.metrics.render(&self.status, &self.totals)
    }
}

/// The metrics that need a memory of their own.
pub(crate) struct Metrics {
    durations: PrometheusRecorder,
}

impl Metrics {
    /// None measured yet.
    pub(crate) fn new() -> Result<Self, BuildError> {
        let matcher = Matcher::Full(UNSEAL_DURATION.to_owned());
        let durations = PrometheusBuilder::new().set_buckets_for_metric(matcher, &UNSEAL_BUCKETS)?.build_recorder();
        with_local_recorder(&durations, || {
            describe_histogram!(
                UNSEAL_DURATION,
                "From the first moment a node is seen sealed to the first it is seen open"
            );
        });
        Ok(Self { durations })
    }

    /// A node is watched. Its histogram begins at zero: of a series that begins at one, Prometheus sees no increase.
    pub(crate) fn watch(&self, place: &Place, cluster: &str) {
        with_local_recorder(&self.durations, || drop(duration(place, cluster)));
    }

    /// A node was opened.
    pub(crate) fn measure(&self, place: &Place, cluster: &str, took: Duration) {
        with_local_recorder(&self.durations, || duration(place, cluster).record(took));
    }

    /// Everything, in Prometheus' text format.
    pub(crate) fn render(&self, status: &Status, totals: &Totals) -> String {
        let now = PrometheusBuilder::new().build_recorder();
        with_local_recorder(&now, || {
            for (name, meaning) in GAUGES {
                describe_gauge!(name, meaning);
            }
            for (name, meaning) in COUNTERS {
                describe_counter!(name, meaning);
            }
            gauge!("holdfast_build_info", "version" => status.version.clone()).set(1);
            gauge!("holdfast_sentinel_history_ok").set(flag(status.history_trouble.is_none()));
            if let Some(up) = status.broker_up {
                gauge!("holdfast_broker_up").set(flag(up));
            }
            for (name, cluster) in &status.clusters {
                write_cluster(name.as_str(), cluster);
                write_totals(name.as_str(), cluster, totals);
            }
            write_rejected(status, totals);
        });
        let durations = self.durations.handle();
        durations.run_upkeep();
        now.handle().render() + &durations.render()
    }
}

fn duration(place: &Place, cluster: &str) -> Histogram {
    histogram!(UNSEAL_DURATION, "cluster" => cluster.to_owned(), "node" => place.node.to_string())
}

fn write_cluster(name: &str, status: &ClusterStatus) {
    let cluster = || ("cluster", name.to_owned());
    let open = status.nodes.values().filter(|node| node.seen == Seen::Open).count();
    gauge!("holdfast_vault_unsealed_nodes", &[cluster()]).set(count(open));
    gauge!("holdfast_vault_min_unsealed_nodes", &[cluster()]).set(count(status.min_unsealed));
    gauge!("holdfast_quorum_threshold", &[cluster()]).set(status.threshold);
    gauge!("holdfast_quorum_ready", &[cluster()]).set(status.ready);
    gauge!("holdfast_quorum_margin", &[cluster()]).set(status.margin);
    gauge!("holdfast_quorum_margin_without_largest_site", &[cluster()]).set(status.margin_without_largest_site);
    gauge!("holdfast_generation_mismatch", &[cluster()]).set(flag(status.generation_mismatch));
    for (node, seen) in &status.nodes {
        write_node(&[cluster(), ("node", node.to_string())], seen);
        let markers = fresh(status).filter_map(|(_, c)| c.heartbeat.as_ref()?.nodes.get(node)?.marker).count();
        let labels = [cluster(), ("node", node.to_string())];
        gauge!("holdfast_markers", &labels).set(count(markers));
        if seen.seen == Seen::Open {
            gauge!("holdfast_node_restart_provable", &labels).set(verdict::restart_provable(node, seen, status));
        }
        let holds = || {
            let of_node = status.holds.iter().filter(|hold| hold.nodes.is_empty() || hold.nodes.contains(node));
            of_node.filter(|hold| hold.obeyed_by.iter().any(|who| counts(status, who)))
        };
        gauge!("holdfast_holds", &labels).set(count(holds().count()));
        if let Some(since) = holds().map(|hold| hold.held_at).min() {
            gauge!("holdfast_hold_since_timestamp_seconds", &labels).set(since.as_seconds());
        }
    }
    gauge!("holdfast_sentinel_config_diverged", &[cluster()]).set(flag(verdict::trust_diverged(status)));
    write_drills(name, &status.drill_summary);
    for (custodian, known) in &status.custodians {
        write_custodian(name, custodian.as_str(), status, known);
    }
}

fn write_drills(name: &str, known: &DrillSummary) {
    let cluster = || ("cluster", name.to_owned());
    if let Some(at) = known.last_success {
        gauge!("holdfast_drill_last_success_timestamp_seconds", &[cluster()]).set(at.as_seconds());
    }
    if let Some(at) = known.last_closed {
        gauge!("holdfast_drill_last_closed_timestamp_seconds", &[cluster()]).set(at.as_seconds());
    }
    if let Some(at) = known.due {
        gauge!("holdfast_drill_due_timestamp_seconds", &[cluster()]).set(at.as_seconds());
    }
    if let Some(at) = known.next {
        gauge!("holdfast_drill_next_run_timestamp_seconds", &[cluster()]).set(at.as_seconds());
    }
    for (node, took) in &known.last_recovery_us {
        let labels = [cluster(), ("node", node.to_string())];
        gauge!("holdfast_drill_last_duration_seconds", &labels).set(Duration::from_micros(*took).as_secs_f64());
    }
}

fn write_node(labels: &[(&'static str, String)], node: &NodeStatus) {
    let answers = matches!(node.seen, Seen::Open | Seen::Sealed);
    gauge!("holdfast_vault_up", labels).set(flag(answers));
    if answers {
        gauge!("holdfast_vault_sealed", labels).set(flag(node.seen == Seen::Sealed));
    }
    if let Some(end) = node.certificate_not_after {
        gauge!("holdfast_node_certificate_not_after_timestamp_seconds", labels).set(end.as_seconds());
    }
    let missing = node.needs.iter().filter_map(|(needs, _)| match needs {
        Needs::Approvals { have, need } => Some(need.saturating_sub(*have)),
        _ => None,
    });
    // Of a node that own eyes see open nobody waits for anything, whatever one custodian says.
    let missing = missing.max().filter(|_| node.seen != Seen::Open);
    gauge!("holdfast_approvals_waiting", labels).set(missing.unwrap_or(0));
    gauge!("holdfast_node_shared_address", labels).set(flag(node.shared_address));
    gauge!("holdfast_node_identity_refused", labels).set(flag(node.identity_refused.is_some()));
}

fn write_custodian(cluster: &str, name: &str, status: &ClusterStatus, custodian: &CustodianStatus) {
    let labels = [("cluster", cluster.to_owned()), ("custodian", name.to_owned())];
    gauge!("holdfast_custodian_up", &labels).set(flag(custodian.up));
    gauge!("holdfast_custodian_config_diverged", &labels).set(flag(custodian.config_diverged));
    if let Some(at) = custodian.heard_at {
        gauge!("holdfast_custodian_last_heartbeat_timestamp_seconds", &labels).set(at.as_seconds());
    }
    if let Some(offset) = custodian.clock_offset_millis {
        gauge!("holdfast_custodian_clock_offset_seconds", &labels).set(millis(offset));
    }
    gauge!("holdfast_custodian_share_suspect", &labels).set(flag(custodian.share_suspect.is_some()));
    let contradicts = custodian.receipts_contradict.is_some();
    gauge!("holdfast_custodian_receipts_contradict", &labels).set(flag(contradicts));
    if let Some(proof) = &custodian.share_proven {
        gauge!("holdfast_custodian_share_proven_timestamp_seconds", &labels).set(proof.at.as_seconds());
    }
    let heartbeat = custodian.heartbeat.as_ref();
    if let Some(heartbeat) = heartbeat {
        gauge!("holdfast_custodian_share_ok", &labels).set(flag(heartbeat.share.ok));
        gauge!("holdfast_custodian_sandboxed", &labels).set(flag(heartbeat.sandboxed));
        let whole = heartbeat.sandbox.len() == SandboxPart::ALL.len();
        gauge!("holdfast_custodian_sandbox_whole", &labels).set(flag(whole));
        gauge!("holdfast_custodian_clock_synchronised", &labels).set(flag(heartbeat.clock_synchronised));
        let doubted = custodian.audit.as_ref().is_some_and(|audit| audit.doubt.is_some());
        let well = heartbeat.audit.ok && heartbeat.audit.broken.is_none() && !doubted;
        gauge!("holdfast_custodian_audit_ok", &labels).set(flag(well));
    }
    for node in status.nodes.keys() {
        let [cluster, custodian_label] = labels.clone();
        let labels = [cluster, ("node", node.to_string()), custodian_label];
        let report = heartbeat.and_then(|heartbeat| heartbeat.nodes.get(node));
        let ready = custodian.up && !custodian.distrusted && report.is_some_and(|report| report.ready);
        gauge!("holdfast_custodian_ready", &labels).set(flag(ready));
        if let Some(report) = report {
            gauge!("holdfast_budget_remaining", &labels).set(report.budget_remaining);
        }
    }
}

fn write_totals(name: &str, status: &ClusterStatus, totals: &Totals) {
    let cluster = || ("cluster", name.to_owned());
    for (counts, metric) in
        [(&totals.incidents, "holdfast_incidents_total"), (&totals.unseals, "holdfast_unseals_total")]
    {
        for ((_, cause), total) in counts.iter().filter(|((id, _), _)| *id == status.id) {
            counter!(metric, &[cluster(), ("cause", cause.as_str().to_owned())]).absolute(*total);
        }
    }
    for ((_, result), total) in totals.drills.iter().filter(|((id, _), _)| *id == status.id) {
        let labels = [cluster(), ("result", result.as_str().to_owned())];
        counter!("holdfast_drill_runs_total", &labels).absolute(*total);
    }
    for ((_, from, result), total) in totals.submissions.iter().filter(|((id, ..), _)| *id == status.id) {
        let labels = [cluster(), ("custodian", from.to_string()), ("result", result.as_str().to_owned())];
        counter!("holdfast_share_submissions_total", &labels).absolute(*total);
    }
}

fn write_rejected(status: &Status, totals: &Totals) {
    // Each, also at zero, as those that custodians tell of.
    let own = REASONS.map(|reason| (&status.sentinel, reason, status.rejected.get(reason).copied().unwrap_or(0)));
    let told = totals.rejected.iter().map(|((receiver, reason), total)| (receiver, *reason, *total));
    for (receiver, reason, total) in own.into_iter().chain(told) {
        let labels = [("receiver", receiver.to_string()), ("reason", reason.to_owned())];
        counter!("holdfast_messages_rejected_total", &labels).absolute(total);
    }
}

/// Who speaks now, and whose word counts.
fn fresh(status: &ClusterStatus) -> impl Iterator<Item = (&Principal, &CustodianStatus)> {
    status.custodians.iter().filter(|(_, custodian)| custodian.up && !custodian.distrusted)
}

/// Whether anything is to be made of what it says.
fn counts(status: &ClusterStatus, who: &Principal) -> bool {
    status.custodians.get(who).is_none_or(|custodian| !custodian.distrusted)
}

fn flag(on: bool) -> f64 {
    if on { 1.0 } else { 0.0 }
}

/// Exact for every number that occurs: a float's 53 bits hold more than there are nodes, or milliseconds in ten millennia.
#[expect(clippy::cast_precision_loss, reason = "nothing is lost below 2^53, see above")]
fn count(number: usize) -> f64 {
    number as f64
}

/// See [`count`].
#[expect(clippy::cast_precision_loss, reason = "nothing is lost below 2^53, see above")]
fn millis(millis: i64) -> f64 {
    millis as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use holdfast_core::cause::Cause;
    use holdfast_core::id::{ClusterId, ClusterName, MessageId, NodeName};
    use holdfast_core::message::{DrillResult, Submission};
    use holdfast_core::status::{HoldStatus, TrustVersion, TrustVersionStatus};
    use holdfast_core::time::Timestamp;

    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);

    fn node(name: &str, seen: Seen, needs: Vec<(Needs, u32)>) -> (NodeName, NodeStatus) {
        let status = NodeStatus {
            url: String::new(),
            seen,
            since: Timestamp::default(),
            cause: None,
            needs,
            marker: None,
            marker_by: BTreeSet::new(),
            in_flight: BTreeSet::new(),
            ready: 0,
            ready_unheld: 0,
            certificate_not_after: Some(Timestamp::from_millis(1_500)),
            shared_address: false,
            identity_refused: None,
            lost_because: None,
        };
        (name.parse().expect("a name"), status)
    }

    fn status() -> Status {
        let waiting = vec![(Needs::Approvals { have: 1, need: 2 }, 3), (Needs::Approvals { have: 0, need: 2 }, 1)];
        let nodes =
            [node("a", Seen::Open, Vec::new()), node("b", Seen::Sealed, waiting), node("c", Seen::Lost, Vec::new())];
        let cluster = ClusterStatus {
            id: CLUSTER,
            shares: 5,
            threshold: 3,
            ready: 0,
            margin: -3,
            margin_without_largest_site: -3,
            diverged: false,
            generation_mismatch: false,
            generation: 1,
            min_unsealed: 2,
            nodes: nodes.into(),
            custodians: BTreeMap::new(),
            approvals: Vec::new(),
            holds: Vec::new(),
            waiting: Vec::new(),
            distrusted: BTreeMap::new(),
            trust_versions: Vec::new(),
            trust: None,
            incidents: Vec::new(),
            drills: Vec::new(),
            drill_summary: DrillSummary {
                next: Some(Timestamp::from_millis(9_500)),
                due: Some(Timestamp::from_millis(4_500)),
                last_success: Some(Timestamp::from_millis(2_500)),
                last_closed: Some(Timestamp::from_millis(3_500)),
                last_recovery_us: BTreeMap::from([("a".parse().expect("a name"), 41_500)]),
            },
        };
        Status {
            sentinel: "sentinel-1".parse().expect("a name"),
            version: "0.0.0".to_owned(),
            at: Timestamp::default(),
            started_at: Timestamp::default(),
            broker_up: None,
            broker_trouble: None,
            history_trouble: None,
            rejected: BTreeMap::from([("forged".to_owned(), 2)]),
            clusters: BTreeMap::from([("prod".parse::<ClusterName>().expect("a name"), cluster)]),
        }
    }

    fn totals() -> Totals {
        Totals {
            incidents: BTreeMap::from([
                ((CLUSTER, Cause::Restart), 4),
                ((ClusterId::from_bytes([2; 16]), Cause::Restart), 9),
            ]),
            submissions: BTreeMap::from([((CLUSTER, "custodian-1".parse().expect("a name"), Submission::Opened), 5)]),
            drills: DrillResult::ALL.map(|result| ((CLUSTER, result), u64::from(result == DrillResult::Late))).into(),
            ..Totals::default()
        }
    }

    fn rendered(metrics: &Metrics, status: &Status) -> Vec<String> {
        metrics.render(status, &totals()).lines().map(str::to_owned).collect()
    }

    fn hold(held_at: i64, nodes: &[&str]) -> HoldStatus {
        HoldStatus {
            id: MessageId::from_bytes([1; 16]),
            by: "mallory".parse().expect("a name"),
            held_at: Timestamp::from_millis(held_at),
            nodes: nodes.iter().map(|node| node.parse().expect("a name")).collect(),
            reason: None,
            released_by: BTreeMap::new(),
            need: 2,
            obeyed_by: ["custodian-1".parse().expect("a name")].into(),
        }
    }

    /// Of one that speaks, is ready, and holds a marker for a node that waits for approvals, as it says.
    fn custodian(distrusted: bool) -> CustodianStatus {
        let custodian = serde_json::json!({
            "heard_at": "2026-11-22T10:00:00.000Z", "up": true, "ready": true, "site": null, "clock_offset_millis": -7,
            "distrusted": distrusted, "receipts_contradict": "2026-11-22T10:00:00.000Z",
            "share_proven": {"at": "2026-11-22T10:00:00.000Z", "node": "a", "generation": 1},
            "heartbeat": {
                "version": "0.1.0", "started_at": "2026-11-22T09:00:00.000Z", "share": {"generation": 1, "x": 77, "ok": true},
                "threshold": 3, "sandboxed": true, "clock_synchronised": false, "audit": {"seq": 12, "head": "", "ok": true},
                "policy_sha256": "", "allowed_signers_sha256": "", "rejected": {}, "submissions": {},
                "nodes": {"a": {
                    "seen": "open", "since": "2026-11-22T09:59:58.120Z", "ready": true, "budget_remaining": 12,
                    "shared_address": false, "restart_provable": true, "marker": "2026-11-22T09:59:58.120Z",
                }},
            },
        });
        serde_json::from_value(custodian).expect("a custodian")
    }

    #[test]
    fn whom_operators_distrust_drives_no_alert() {
        let metrics = Metrics::new().expect("good buckets");
        for (distrusted, expected) in [(false, 1), (true, 0)] {
            let mut status = status();
            let cluster = status.clusters.values_mut().next().expect("one");
            cluster.custodians.insert("custodian-1".parse().expect("a name"), custodian(distrusted));
            cluster.holds = vec![hold(5_000, &["a"])];
            let lines = rendered(&metrics, &status);
            for metric in ["holdfast_markers", "holdfast_holds"] {
                let line = format!("{metric}{{cluster=\"prod\",node=\"a\"}} {expected}");
                assert!(lines.contains(&line), "{line} in {lines:#?}");
            }
            let since = lines.iter().any(|line| line.starts_with("holdfast_hold_since_timestamp_seconds{"));
            assert_eq!(since, !distrusted);
        }
    }

    #[test]
    fn trouble_that_the_status_tells_of_is_told_here_too() {
        let metrics = Metrics::new().expect("good buckets");
        let mut status = status();
        status.history_trouble = Some("the disk is full".to_owned());
        let cluster = status.clusters.values_mut().next().expect("one");
        cluster.custodians.insert("custodian-1".parse().expect("a name"), custodian(false));
        let approvals = vec![(Needs::Approvals { have: 0, need: 2 }, 1)];
        for (name, node) in &mut cluster.nodes {
            node.ready = u32::from(name.as_str() == "a");
            node.needs.clone_from(&approvals);
        }
        let lines = rendered(&metrics, &status);
        for expected in [
            "holdfast_sentinel_history_ok 0",
            "holdfast_custodian_clock_synchronised{cluster=\"prod\",custodian=\"custodian-1\"} 0",
            "holdfast_custodian_receipts_contradict{cluster=\"prod\",custodian=\"custodian-1\"} 1",
            "holdfast_node_restart_provable{cluster=\"prod\",node=\"a\"} 1",
            // One custodian's word about a node that is seen open, and about others.
            "holdfast_approvals_waiting{cluster=\"prod\",node=\"a\"} 0",
            "holdfast_approvals_waiting{cluster=\"prod\",node=\"b\"} 2",
            "holdfast_approvals_waiting{cluster=\"prod\",node=\"c\"} 2",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:#?}");
        }
        let provable = lines.iter().filter(|line| line.starts_with("holdfast_node_restart_provable{"));
        assert_eq!(provable.count(), 1, "nobody knows of a node that is not open");
        assert!(rendered(&metrics, &self::status()).contains(&"holdfast_sentinel_history_ok 1".to_owned()));
    }

    #[test]
    fn each_thing_is_told_under_its_name_and_with_its_labels() {
        let metrics = Metrics::new().expect("good buckets");
        let place = Place { cluster: CLUSTER, node: "b".parse().expect("a name") };
        metrics.measure(&place, "prod", Duration::from_millis(30));
        let lines = rendered(&metrics, &status());
        for expected in [
            "holdfast_build_info{version=\"0.0.0\"} 1",
            "holdfast_vault_up{cluster=\"prod\",node=\"a\"} 1",
            "holdfast_vault_up{cluster=\"prod\",node=\"b\"} 1",
            "holdfast_vault_up{cluster=\"prod\",node=\"c\"} 0",
            "holdfast_vault_sealed{cluster=\"prod\",node=\"a\"} 0",
            "holdfast_vault_sealed{cluster=\"prod\",node=\"b\"} 1",
            "holdfast_vault_unsealed_nodes{cluster=\"prod\"} 1",
            "holdfast_node_certificate_not_after_timestamp_seconds{cluster=\"prod\",node=\"a\"} 1.5",
            "holdfast_approvals_waiting{cluster=\"prod\",node=\"a\"} 0",
            "holdfast_approvals_waiting{cluster=\"prod\",node=\"b\"} 2",
            "holdfast_quorum_margin{cluster=\"prod\"} -3",
            "holdfast_incidents_total{cluster=\"prod\",cause=\"restart\"} 4",
            "holdfast_drill_runs_total{cluster=\"prod\",result=\"late\"} 1",
            "holdfast_drill_runs_total{cluster=\"prod\",result=\"passed\"} 0",
            "holdfast_drill_last_success_timestamp_seconds{cluster=\"prod\"} 2.5",
            "holdfast_drill_last_closed_timestamp_seconds{cluster=\"prod\"} 3.5",
            "holdfast_drill_due_timestamp_seconds{cluster=\"prod\"} 4.5",
            "holdfast_drill_next_run_timestamp_seconds{cluster=\"prod\"} 9.5",
            "holdfast_drill_last_duration_seconds{cluster=\"prod\",node=\"a\"} 0.0415",
            "holdfast_share_submissions_total{cluster=\"prod\",custodian=\"custodian-1\",result=\"opened\"} 5",
            "holdfast_messages_rejected_total{receiver=\"sentinel-1\",reason=\"forged\"} 2",
            "holdfast_unseal_duration_seconds_bucket{cluster=\"prod\",node=\"b\",le=\"0.025\"} 0",
            "holdfast_unseal_duration_seconds_bucket{cluster=\"prod\",node=\"b\",le=\"0.05\"} 1",
            "holdfast_unseal_duration_seconds_count{cluster=\"prod\",node=\"b\"} 1",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:#?}");
        }
        let rejected = lines.iter().filter(|line| line.starts_with("holdfast_messages_rejected_total{"));
        assert_eq!(rejected.count(), REASONS.len(), "each reason from the start, at zero: {lines:#?}");
        for absent in ["holdfast_vault_sealed{cluster=\"prod\",node=\"c\"}", "holdfast_broker_up"] {
            assert!(!lines.iter().any(|line| line.starts_with(absent)), "{absent}");
        }
    }

    #[test]
    fn an_opening_is_an_increase_from_the_first_on() {
        let metrics = Metrics::new().expect("good buckets");
        let place = Place { cluster: CLUSTER, node: "b".parse().expect("a name") };
        let counted =
            |total: u8| format!("holdfast_unseal_duration_seconds_count{{cluster=\"prod\",node=\"b\"}} {total}");
        metrics.watch(&place, "prod");
        assert!(rendered(&metrics, &status()).contains(&counted(0)));
        metrics.measure(&place, "prod", Duration::from_millis(30));
        metrics.watch(&place, "prod");
        assert!(rendered(&metrics, &status()).contains(&counted(1)));
    }

    #[test]
    fn holds_are_counted_for_each_node_that_they_keep_shut_and_nobody_makes_up_a_label() {
        let metrics = Metrics::new().expect("good buckets");
        let mut status = status();
        let trust = |sha256: &str| TrustVersion { version: 0, sha256: sha256.to_owned() };
        let cluster = status.clusters.values_mut().next().expect("one");
        cluster.holds = vec![hold(5_000, &[]), hold(3_000, &["a", "made-up"])];
        cluster.trust = Some(trust("ours"));
        let custodians = ["custodian-1".parse().expect("a name")].into();
        cluster.trust_versions = vec![TrustVersionStatus { trust: trust("theirs"), custodians }];
        let lines = rendered(&metrics, &status);
        for expected in [
            "holdfast_holds{cluster=\"prod\",node=\"a\"} 2",
            "holdfast_holds{cluster=\"prod\",node=\"b\"} 1",
            "holdfast_hold_since_timestamp_seconds{cluster=\"prod\",node=\"a\"} 3",
            "holdfast_hold_since_timestamp_seconds{cluster=\"prod\",node=\"b\"} 5",
            "holdfast_sentinel_config_diverged{cluster=\"prod\"} 1",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:#?}");
        }
        assert!(!lines.iter().any(|line| line.contains("mallory") || line.contains("made-up")), "{lines:#?}");
        let lines = rendered(&metrics, &self::status());
        assert!(lines.iter().any(|line| line == "holdfast_holds{cluster=\"prod\",node=\"a\"} 0"), "{lines:#?}");
        assert!(!lines.iter().any(|line| line.starts_with("holdfast_hold_since_timestamp_seconds{")), "{lines:#?}");
    }

    /// What rules and pages name is held against the lists (`tests/tests/house/watched.rs`), and so the lists against what is served.
    #[test]
    fn whatever_is_listed_is_told_once_there_is_anything_to_tell() {
        let metrics = Metrics::new().expect("good buckets");
        metrics.measure(
            &Place { cluster: CLUSTER, node: "b".parse().expect("a name") },
            "prod",
            Duration::from_millis(30),
        );
        let mut status = status();
        status.broker_up = Some(true);
        let cluster = status.clusters.values_mut().next().expect("one");
        cluster.custodians.insert("custodian-1".parse().expect("a name"), custodian(false));
        cluster.holds.push(hold(5_000, &[]));
        let mut totals = totals();
        totals.unseals.insert((CLUSTER, Cause::Restart), 1);
        let text = metrics.render(&status, &totals);
        for (name, _) in GAUGES.iter().chain(&COUNTERS) {
            assert!(
                text.lines()
                    .any(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} "))),
                "{name}"
            );
        }
        assert!(text.contains(&format!("{UNSEAL_DURATION}_count{{")));

        // A sandbox that lacks a part is one that is not whole.
        let whole = |status: &Status| {
            let lines = rendered(&metrics, status);
            let told = lines.iter().find(|line| line.starts_with("holdfast_custodian_sandbox_whole{"));
            told.and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
        };
        assert_eq!(whole(&status).as_deref(), Some("0"));
        let custodians = status.clusters.values_mut().flat_map(|cluster| cluster.custodians.values_mut());
        for heartbeat in custodians.filter_map(|custodian| custodian.heartbeat.as_mut()) {
            heartbeat.sandbox = SandboxPart::ALL.into();
        }
        assert_eq!(whole(&status).as_deref(), Some("1"));
    }

    #[test]
    fn no_series_outlives_what_it_is_about_and_each_has_a_meaning() {
        let metrics = Metrics::new().expect("good buckets");
        let mut status = status();
        assert!(rendered(&metrics, &status).iter().any(|line| line.contains("node=\"a\"")));
        status.clusters.clear();
        assert!(!rendered(&metrics, &status).iter().any(|line| line.contains("node=")));
        let lines = rendered(&metrics, &self::status());
        let names = lines.iter().filter(|line| !line.starts_with('#') && !line.is_empty());
        for name in names.map(|line| line.split(['{', ' ']).next().unwrap_or_default()) {
            let explained = format!("# HELP {name} ");
            assert!(lines.iter().any(|line| line.starts_with(&explained)), "{name}");
        }
    }
}
