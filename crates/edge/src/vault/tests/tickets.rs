//! Kept connections and tickets, against a server of our own. `tests/real_vault.rs` has the same against the real one.

use std::time::Duration;

use tokio::time::timeout;

use super::impostor::{Impostor, Reply, TestCa, http};
use super::*;
use crate::vault::{AskError, Handshake, TICKETS_PER_CONNECTION};

const PATIENCE: Duration = Duration::from_secs(10);

async fn sealed_server(ca: &TestCa) -> Impostor {
    Impostor::answering(ca, || http(200, "", SEALED)).await
}

#[tokio::test]
async fn one_connection_serves_many_questions() {
    let ca = TestCa::new();
    let server = sealed_server(&ca).await;
    let mut connection = ca.node(&server, &[]).connect(None).await.expect("good");
    assert_eq!((connection.handshake(), connection.ticket_was_offered()), (Handshake::Full, false));
    assert!(connection.certificate_not_after().is_some_and(|end| end.to_string().starts_with("4096-")));
    for _ in 0..50 {
        assert!(connection.seal_status().await.expect("an answer").sealed);
    }
    // A status that was refused and read to its end leaves the connection as it is.
    assert_eq!((server.connections(), server.requests().len()), (1, 50));
}

#[tokio::test]
async fn a_refused_question_keeps_the_connection_and_a_broken_one_ends_it() {
    let ca = TestCa::new();
    let server = Impostor::start(ca.localhost().tls(), |asked| match asked.number {
        0 => http(503, "", "{}"),
        1 => http(200, "", SEALED),
        _ => Reply::Stall(Vec::new()),
    });
    let server = server.await;
    let mut connection = ca.node(&server, &[]).connect(None).await.expect("good");
    assert!(matches!(connection.seal_status().await, Err(AskError::Refused(503))));
    assert!(connection.seal_status().await.is_ok() && connection.is_usable());
    let short = Duration::from_millis(100);
    assert!(matches!(connection.seal_status_within(short).await, Err(AskError::Deadline(found)) if found == short));
    assert!(!connection.is_usable());
    assert!(matches!(connection.seal_status().await, Err(AskError::Closed)));
    timeout(PATIENCE, connection.closed()).await.expect("given up");
}

#[tokio::test]
async fn a_question_that_is_dropped_half_way_ends_the_connection() {
    let ca = TestCa::new();
    let server = Impostor::answering(&ca, || Reply::Stall(Vec::new())).await;
    let mut connection = ca.node(&server, &[]).connect(None).await.expect("good");
    assert!(timeout(Duration::from_millis(50), connection.seal_status()).await.is_err());
    assert!(matches!(connection.seal_status().await, Err(AskError::Closed)));
}

#[tokio::test]
async fn the_end_of_a_connection_is_noticed_while_nothing_is_asked() {
    let ca = TestCa::new();
    let server = sealed_server(&ca).await;
    let mut connection = ca.node(&server, &[]).connect(None).await.expect("good");
    connection.seal_status().await.expect("an answer");
    let (first, second) = (connection.closed(), connection.closed());
    assert!(timeout(Duration::from_millis(50), connection.closed()).await.is_err(), "it lives");
    server.stop().await;
    timeout(PATIENCE, async { tokio::join!(first, second, connection.closed()) }).await.expect("it ended");
    assert!(matches!(connection.seal_status().await, Err(AskError::Closed)));
}

#[tokio::test]
async fn a_ticket_is_offered_once_and_to_the_node_that_gave_it() {
    let ca = TestCa::new();
    let server = sealed_server(&ca).await;
    let node = ca.node(&server, &[]);
    let mut connection = node.connect(None).await.expect("good");
    connection.seal_status().await.expect("an answer");
    let mut tickets = connection.take_tickets();
    assert!((1..=TICKETS_PER_CONNECTION).contains(&tickets.len()), "{tickets:?}");
    assert!(connection.take_tickets().is_empty());

    let ticket = tickets.pop().expect("one");
    let mut resumed = node.clone().connect(Some(ticket)).await.expect("good");
    assert_eq!((resumed.handshake(), resumed.ticket_was_offered()), (Handshake::Resumed, true));
    assert_eq!(resumed.certificate_not_after(), None);
    resumed.seal_status().await.expect("an answer");
    let more = resumed.finish().await;
    assert!(more.iter().all(|new| tickets.iter().all(|old| old.id() < new.id())) && !more.is_empty(), "{more:?}");

    // The same place, configured anew, is another identity: its tickets are worth nothing, and that must be known.
    let stranger = ca.node(&server, &[]);
    let full = stranger.connect(tickets.pop()).await.expect("good");
    assert_eq!((full.handshake(), full.ticket_was_offered()), (Handshake::Full, false));
}

#[tokio::test]
async fn a_ticket_of_another_process_is_declined_and_seen_to_have_been_offered() {
    let ca = TestCa::new();
    let key = ca.localhost();
    let server = Impostor::start(key.tls(), |_| http(200, "", SEALED)).await;
    let node = ca.node(&server, &[]);
    let mut connection = node.connect(None).await.expect("good");
    connection.seal_status().await.expect("an answer");
    let ticket = connection.take_tickets().pop();
    let address = server.address;
    server.stop().await;
    // The same key at the same address, with new ticket keys: a restart.
    let server = Impostor::start_at(address, key.tls(), |_| http(200, "", SEALED)).await;
    let again = node.connect(ticket).await.expect("good");
    assert_eq!((again.handshake(), again.ticket_was_offered()), (Handshake::Full, true));
    drop(server);
}
