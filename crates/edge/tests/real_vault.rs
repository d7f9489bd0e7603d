//! What Holdfast's evidence rests on, held against a real server: which tickets resume, and which connections live.

mod bao;

use std::time::Duration;

use bao::{Bao, PATIENCE};
use holdfast_core::id::ClusterId;
use holdfast_edge::vault::{ConnectError, Connection, Deadlines, Handshake, NodeIdentity, Ticket};
use tokio::time::{interval, timeout};

fn node(bao: &Bao) -> NodeIdentity {
    let name = "vault-1".parse().expect("a name");
    NodeIdentity::new(ClusterId::from_bytes([1; 16]), name, &bao.url, bao.ca_pem.as_bytes(), &[]).expect("good")
}

/// A ticket that this connection was given.
async fn ticket(connection: &mut Connection) -> Ticket {
    connection.seal_status().await.expect("an answer");
    connection.take_tickets().pop().expect("the server gives one out")
}

async fn opened(bao: &Bao, shares: &[String], connection: &mut Connection) {
    bao.unseal(shares).await;
    let mut tick = interval(Duration::from_millis(5));
    let open = async {
        while !connection.seal_status().await.expect("an answer").is_open() {
            tick.tick().await;
        }
    };
    timeout(PATIENCE, open).await.expect("it opens");
}

#[tokio::test]
async fn tickets_and_connections_survive_a_seal_in_place_and_no_restart() {
    let mut bao = Bao::start().await;
    let node = node(&bao);
    let mut kept = node.connect(None).await.expect("good");
    let status = kept.seal_status().await.expect("an answer");
    assert!(!status.initialized && status.sealed && (status.threshold, status.shares) == (0, 0));
    assert!(kept.certificate_not_after().is_some());
    let shares = bao.init(3, 2).await;
    opened(&bao, &shares[..2], &mut kept).await;

    // Open: two tickets resume, one after the other, and each connection gives a new one.
    let first = ticket(&mut kept).await;
    let mut side = node.connect(Some(first)).await.expect("good");
    assert_eq!((side.handshake(), side.ticket_was_offered()), (Handshake::Resumed, true));
    let from_open = ticket(&mut side).await;
    assert!(side.finish().await.is_empty());

    // Sealed in place: the connection lives, and the ticket resumes.
    bao.seal().await;
    let status = kept.seal_status().await.expect("the kept connection answers");
    assert!(status.sealed && status.initialized && (status.threshold, status.shares) == (2, 3));
    let mut side = node.connect(Some(from_open)).await.expect("good");
    assert_eq!((side.handshake(), side.ticket_was_offered()), (Handshake::Resumed, true));
    let from_sealed = ticket(&mut side).await;
    let another = ticket(&mut node.connect(None).await.expect("good")).await;

    // Killed: the connection's end is noticed at once, while nothing is asked.
    let ended = kept.closed();
    bao.kill();
    timeout(Duration::from_secs(5), ended).await.expect("noticed");
    assert!(matches!(node.connect(None).await, Err(ConnectError::Tcp { .. })));

    // Restarted: both tickets go out and are declined, and then a new one resumes.
    bao.restart().await;
    for old in [from_sealed, another] {
        let side = node.connect(Some(old)).await.expect("good");
        assert_eq!((side.handshake(), side.ticket_was_offered()), (Handshake::Full, true));
    }
    let mut fresh = node.connect(None).await.expect("good");
    assert!(fresh.seal_status().await.expect("an answer").sealed);
    let new = ticket(&mut fresh).await;
    let side = node.connect(Some(new)).await.expect("good");
    assert_eq!((side.handshake(), side.ticket_was_offered()), (Handshake::Resumed, true));
}

#[tokio::test]
async fn a_stopped_server_is_late_and_not_gone() {
    let bao = Bao::start().await;
    let short =
        Deadlines { connect: Duration::from_millis(300), answer: Duration::from_millis(300), ..Deadlines::default() };
    let node = node(&bao);
    let mut kept = node.connect(None).await.expect("good");
    let ticket = ticket(&mut kept).await;
    bao.signal("-STOP");
    let late = node.clone().with_deadlines(short).connect(None).await;
    assert!(matches!(late, Err(ConnectError::Deadline { .. })), "{late:?}");
    assert!(timeout(Duration::from_millis(50), kept.closed()).await.is_err(), "its connection lives");
    bao.signal("-CONT");
    assert!(kept.seal_status().await.is_ok());
    let side = node.connect(Some(ticket)).await.expect("good");
    assert_eq!(side.handshake(), Handshake::Resumed);
}
