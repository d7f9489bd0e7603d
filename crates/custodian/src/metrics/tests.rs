//! What is told, and what becomes of it when it cannot be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use holdfast_core::id::MessageId;
use holdfast_core::message::{AuditReport, HoldReport, Needs, NodeReport, SandboxPart, Seen, ShareReport};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn node(seen: Seen) -> NodeReport {
    NodeReport {
        seen,
        since: at(1),
        ready: seen != Seen::Lost,
        cause: None,
        needs: (seen == Seen::Sealed).then_some(Needs::Approvals { have: 1, need: 3 }),
        marker: (seen == Seen::Sealed).then_some(at(1)),
        marker_by: None,
        in_flight: false,
        budget_remaining: 7,
        budget_frees_at: None,
        certificate_not_after: Some(at(2_000)),
        shared_address: false,
        restart_provable: true,
        identity_refused: None,
    }
}

fn heartbeat() -> Heartbeat {
    let name = |text: &str| text.parse().expect("a name");
    let hold = HoldReport {
        id: MessageId::from_bytes([1; 16]),
        by: "alice".parse().expect("a name"),
        held_at: at(500),
        nodes: vec![name("vault-2")],
        reason: None,
        released_by: Vec::new(),
        need: 2,
    };
    Heartbeat {
        next_drill: None,
        version: "0.1.0".to_owned(),
        site: None,
        started_at: at(1),
        share: ShareReport { generation: 1, x: Some(7), ok: true },
        threshold: 3,
        sandboxed: true,
        sandbox: SandboxPart::ALL.into(),
        clock_synchronised: false,
        audit: AuditReport { seq: 1, head: "0".repeat(64), ok: true, broken: Some(1) },
        policy_sha256: "0".repeat(64),
        allowed_signers_sha256: "0".repeat(64),
        trust_version: 0,
        holds: vec![hold],
        waiting: Vec::new(),
        distrusted: Vec::new(),
        orders: Vec::new(),
        nodes: [("vault-1", Seen::Open), ("vault-2", Seen::Sealed), ("vault-3", Seen::Lost)]
            .map(|(node_name, seen)| (name(node_name), node(seen)))
            .into(),
        rejected: BTreeMap::from([("forged".to_owned(), 2)]),
        submissions: BTreeMap::from([("opened".to_owned(), 3)]),
    }
}

fn me() -> Principal {
    "custodian-1".parse().expect("a name")
}

fn known() -> Known {
    let prod = ("prod".parse().expect("a name"), (at(1_000), heartbeat()));
    Known { clusters: BTreeMap::from([prod]), broker_up: Some(true) }
}

#[test]
fn it_says_of_itself_what_a_sentinel_would() {
    let text = text::render(&me(), &known());
    for line in [
        "holdfast_broker_up 1",
        "holdfast_vault_up{cluster=\"prod\",node=\"vault-1\"} 1",
        "holdfast_vault_up{cluster=\"prod\",node=\"vault-3\"} 0",
        "holdfast_vault_sealed{cluster=\"prod\",node=\"vault-1\"} 0",
        "holdfast_vault_sealed{cluster=\"prod\",node=\"vault-2\"} 1",
        "holdfast_vault_unsealed_nodes{cluster=\"prod\"} 1",
        "holdfast_node_certificate_not_after_timestamp_seconds{cluster=\"prod\",node=\"vault-1\"} 2000",
        "holdfast_custodian_last_heartbeat_timestamp_seconds{cluster=\"prod\",custodian=\"custodian-1\"} 1000",
        "holdfast_custodian_ready{cluster=\"prod\",node=\"vault-1\",custodian=\"custodian-1\"} 1",
        "holdfast_custodian_ready{cluster=\"prod\",node=\"vault-3\",custodian=\"custodian-1\"} 0",
        "holdfast_custodian_share_ok{cluster=\"prod\",custodian=\"custodian-1\"} 1",
        "holdfast_custodian_sandboxed{cluster=\"prod\",custodian=\"custodian-1\"} 1",
        "holdfast_custodian_sandbox_whole{cluster=\"prod\",custodian=\"custodian-1\"} 1",
        "holdfast_custodian_audit_ok{cluster=\"prod\",custodian=\"custodian-1\"} 0",
        "holdfast_custodian_clock_synchronised{cluster=\"prod\",custodian=\"custodian-1\"} 0",
        "holdfast_quorum_threshold{cluster=\"prod\"} 3",
        "holdfast_holds{cluster=\"prod\",node=\"vault-1\"} 0",
        "holdfast_holds{cluster=\"prod\",node=\"vault-2\"} 1",
        "holdfast_hold_since_timestamp_seconds{cluster=\"prod\",node=\"vault-2\"} 500",
        "holdfast_markers{cluster=\"prod\",node=\"vault-2\"} 1",
        "holdfast_approvals_waiting{cluster=\"prod\",node=\"vault-2\"} 2",
        "holdfast_budget_remaining{cluster=\"prod\",node=\"vault-1\",custodian=\"custodian-1\"} 7",
        "holdfast_share_submissions_total{cluster=\"prod\",custodian=\"custodian-1\",result=\"opened\"} 3",
        "holdfast_messages_rejected_total{receiver=\"custodian-1\",reason=\"forged\"} 2",
    ] {
        assert!(text.lines().any(|had| had == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("holdfast_vault_sealed{cluster=\"prod\",node=\"vault-3\"}"), "nobody can say: {text}");
}

#[test]
fn each_name_has_a_meaning_and_each_meaning_a_name() {
    let text = text::render(&me(), &known());
    let told: BTreeSet<_> = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let told: BTreeSet<_> = told.into_iter().filter_map(|line| line.split(['{', ' ']).next()).collect();
    let known: BTreeSet<_> = text::GAUGES.iter().chain(&text::COUNTERS).map(|(name, _)| *name).collect();
    assert_eq!(told, known);
    for name in known {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no meaning in\n{text}");
    }
}

#[tokio::test]
async fn the_file_is_there_after_the_first_heartbeat_and_follows_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("custodian.prom");
    let every = Duration::from_millis(20);
    let config = MetricsConfig { textfile: Some(path.clone()), pushgateway: None, interval: every };
    let mut metrics = Metrics::new();
    metrics.start(Some(&config), &me(), true);
    let holds = async |line: &str| {
        let mut looks = tokio::time::interval(every);
        let found = async {
            while !std::fs::read_to_string(&path).unwrap_or_default().contains(line) {
                looks.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), found).await.unwrap_or_else(|_| panic!("{line} never came"));
    };
    metrics.note_broker(true);
    assert!(!path.exists(), "there is nothing to tell yet");
    metrics.note_heartbeat("prod".parse().expect("a name"), &heartbeat(), at(1));
    holds("holdfast_custodian_sandboxed{cluster=\"prod\",custodian=\"custodian-1\"} 1\n").await;
    metrics.note_heartbeat("prod".parse().expect("a name"), &Heartbeat { sandboxed: false, ..heartbeat() }, at(2));
    holds("holdfast_custodian_sandboxed{cluster=\"prod\",custodian=\"custodian-1\"} 0\n").await;
    // One that serves another cluster now says nothing of the old one.
    metrics.start(Some(&config), &me(), false);
    metrics.note_heartbeat("other".parse().expect("a name"), &heartbeat(), at(3));
    holds("cluster=\"other\"").await;
    let text = std::fs::read_to_string(&path).expect("there");
    assert!(!text.contains("cluster=\"prod\"") && !text.contains("holdfast_broker_up "), "{text}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).expect("there").permissions());
    assert_eq!(mode & 0o777, TEXTFILE_MODE);
}

#[test]
fn failures_are_counted_and_told_once() {
    let mut road = Road::new("x");
    for failed in 1..=3 {
        road.note(Err("down"));
        assert_eq!(road.failures, failed);
    }
    road.note::<&str>(Ok(()));
    assert_eq!(road.failures, 0);
}

/// A disk that hangs until something is sent by what is given first, or that is dropped; then, each time that something is to be written; and how.
fn hanging() -> (std::sync::mpsc::SyncSender<()>, mpsc::Receiver<()>, impl Write) {
    let (open, gate) = std::sync::mpsc::sync_channel(1);
    let (began, begun) = mpsc::channel(9);
    let gate = Arc::new(Mutex::new(gate));
    let write = move |_: &Path, _: &[u8]| {
        let _ = began.try_send(());
        let _ = gate.lock().expect("whole").recv();
        Err("it hung".to_owned())
    };
    (open, begun, write)
}

#[tokio::test]
async fn a_disk_that_hangs_keeps_nothing_from_the_pushgateway() {
    let gateway = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("https://{}", gateway.local_addr().expect("bound"));
    let pushgateway = Pushgateway::new(&url, include_bytes!("section/ca.pem"), None, &me()).expect("good");
    let config = MetricsConfig {
        textfile: Some("custodian.prom".into()),
        pushgateway: Some(pushgateway),
        interval: Duration::from_millis(20),
    };
    let (open, mut begun, write) = hanging();
    let noted = watch::Sender::new(known());
    let told = tokio::spawn(tell(config, me(), noted.subscribe(), write));
    let pushed = async {
        begun.recv().await.expect("it writes");
        for _ in 0..3 {
            // It is tried again each time, whatever became of it.
            drop(gateway.accept().await.expect("accepted"));
        }
    };
    timeout(Duration::from_secs(20), pushed).await.expect("pushed all the while");
    assert!(begun.try_recv().is_err(), "one that hangs shall hang alone");
    drop(open);
    told.abort();
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_is_told_of_while_it_does() {
    let (open, mut begun, write) = hanging();
    let (noted, mut road) = (watch::Sender::new(known()), Road::new("x"));
    let (known, me, every) = (noted.subscribe(), me(), Duration::from_secs(1));
    let path = Path::new("custodian.prom");
    let seen = async {
        begun.recv().await.expect("it writes");
        tokio::time::advance(WRITE_DEADLINE + every).await;
        tokio::task::yield_now().await;
        // That one ends; the next hangs in turn.
        open.send(()).expect("it waits");
        begun.recv().await.expect("and again when that is over");
    };
    tokio::select! {
        () = write_out(path, &me, &known, (WRITE_DEADLINE, ticks(every)), &mut road, write) => panic!("it never ends"),
        () = seen => {}
    }
    assert_eq!(road.failures, 2, "while it hung, and when it had failed");
}
