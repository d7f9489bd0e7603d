//! The share itself: it leaves once, on the proven connection, when all six locks agree; and what the answers mean.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_core::release::Attempt;

use super::impostor::{Asked, Impostor, Reply, TestCa, http, shares_in, until};
use super::*;
use crate::vault::{AskError, AuthorityRefusal, Outcome};

/// A server that reports sealed, and answers a share like this.
async fn taking(ca: &TestCa, reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Impostor {
    let script = move |asked: &Asked| if asked.line.starts_with("GET") { http(200, "", SEALED) } else { reply(asked) };
    Impostor::start(ca.localhost().tls(), script).await
}

#[tokio::test]
async fn a_good_node_gets_the_share_once_on_the_connection_that_proved_it() {
    let ca = TestCa::new();
    let open = SEALED.replace("\"sealed\":true", "\"sealed\":false");
    let server = taking(&ca, move |_| http(200, "", &open)).await;
    let node = ca.node(&server, &[]);
    let answer = release(&node).await.expect("all six locks hold");
    assert!(answer.before.sealed && answer.status().is_some_and(|status| status.is_open()));
    assert!(!answer.combine_failed());

    assert_eq!(server.connections(), 1);
    let requests = server.requests();
    let lines: Vec<_> = requests.iter().map(|asked| asked.line.as_str()).collect();
    const STATUS: &str = "GET /v1/sys/seal-status HTTP/1.1";
    assert_eq!(lines, [STATUS, STATUS, "PUT /v1/sys/unseal HTTP/1.1"]);
    assert_eq!(requests[2].body, format!(r#"{{"key":"{}"}}"#, hex::encode(SHARE)).into_bytes());
    for asked in &requests {
        let head = asked.head.to_ascii_lowercase();
        assert!(head.contains(&format!("\r\nhost: {}\r\n", node.address())), "{head}");
        assert!(head.contains("\r\nx-vault-request: true\r\n") && !head.contains("x-vault-token"), "{head}");
    }
    assert!(server.shares_seen() > 0, "the search for shares finds one that is there");
}

#[tokio::test]
async fn a_failed_combine_is_told_from_a_taken_share() {
    let ca = TestCa::new();
    for code in [400, 500] {
        let server = taking(&ca, move |_| http(code, "", r#"{"errors":["failed to unseal"]}"#)).await;
        let answer = release(&ca.node(&server, &[])).await.expect("sent");
        assert!(answer.combine_failed() && answer.status().is_none());
        assert!(matches!(answer.outcome, Outcome::CombineFailed { code: found } if found == code));
    }
}

#[tokio::test]
async fn without_a_clear_answer_the_share_may_be_pending() {
    let ca = TestCa::new();
    type Right = fn(&AskError) -> bool;
    let answers: [(fn() -> Reply, Right); 6] = [
        (|| Reply::Stall(Vec::new()), |e| matches!(e, AskError::Deadline(_))),
        (|| Reply::Drip(b"HTTP/1.1 200 OK\r\nX: ".to_vec()), |e| matches!(e, AskError::Deadline(_))),
        (|| Reply::Close(Vec::new()), |e| matches!(e, AskError::Broken(_))),
        (
            || Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec()),
            |e| matches!(e, AskError::Broken(_)),
        ),
        (|| http(503, "", ""), |e| matches!(e, AskError::Refused(503))),
        (|| http(200, "", "<html>"), |e| matches!(e, AskError::NotAStatus(_))),
    ];
    for (i, (reply, right)) in answers.into_iter().enumerate() {
        let server = taking(&ca, move |_| reply()).await;
        let node = ca.node(&server, &[]).with_deadlines(Deadlines { submit: SHORT, ..Deadlines::default() });
        let started = Instant::now();
        let answer = release(&node).await.expect("sent");
        assert!(matches!(&answer.outcome, Outcome::Unknown(error) if right(error)), "{i}: {answer:?}");
        assert!(started.elapsed() < Deadlines::default().submit, "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_redirected_share_goes_no_further() {
    let ca = TestCa::new();
    for code in [301, 307, 308] {
        let elsewhere = Impostor::answering(&ca, || http(200, "", SEALED)).await;
        let location = format!("Location: https://localhost:{}/v1/sys/unseal\r\n", elsewhere.address.port());
        let server = taking(&ca, move |_| http(code, &location, "")).await;
        let answer = release(&ca.node(&server, &[])).await.expect("sent");
        assert!(matches!(answer.outcome, Outcome::Unknown(AskError::Redirect(_))), "{answer:?}");
        assert_eq!(elsewhere.connections(), 0);
    }
}

#[tokio::test]
async fn an_echo_of_the_share_reaches_no_log() {
    let ca = TestCa::new();
    let echoes: [fn(&str) -> Reply; 4] = [
        |share| http(200, "", &SEALED.replace("true,\"t\"", &format!("\"{share}\",\"t\""))),
        |share| http(200, "", share),
        |share| http(403, &format!("X: {share}\r\n"), share),
        |share| Reply::Close(format!("HTTP/1.1 {share}\r\n\r\n").into_bytes()),
    ];
    for echo in echoes {
        let server = taking(&ca, move |asked| echo(&String::from_utf8_lossy(&asked.body).replace('"', ""))).await;
        let answer = release(&ca.node(&server, &[])).await.expect("sent");
        let Outcome::Unknown(error) = &answer.outcome else { panic!("{answer:?}") };
        let shown = format!("{answer:?} {error} {:?}", std::error::Error::source(error).map(ToString::to_string));
        assert_eq!(shares_in(shown.as_bytes()), 0, "{shown}");
    }
}

/// Everything right but what the test changes.
async fn submit(
    server: &Impostor,
    ca: &TestCa,
    order: ReleaseOrder,
    share: SoundShare,
    record: Attempt,
) -> Result<Answer, ReleaseError> {
    let sealed = prove(&ca.node(server, &[])).await?.check(EXPECTED).await?;
    sealed.submit(order, share, Recorded::for_test(record), NOW).await
}

#[tokio::test]
async fn locks_of_different_attempts_do_not_open_together() {
    let ca = TestCa::new();
    let server = taking(&ca, |_| http(200, "", SEALED)).await;
    let until = NOW + Duration::from_secs(60);
    let forged = |authority, budget| ReleaseOrder::forged(authority, budget, until, Revocation::default());
    let elsewhere = ClusterId::from_bytes([9; 16]);
    let others = [
        Attempt { cluster: elsewhere, ..attempt() },
        Attempt { node: "vault-2".parse().expect("a name"), ..attempt() },
        Attempt { incident: IncidentId::from_bytes([8; 16]), ..attempt() },
        Attempt { round: 1, ..attempt() },
    ];
    for other in &others[..2] {
        let order = forged(other.clone(), other.clone());
        let error = submit(&server, &ca, order, sound_share(CLUSTER), other.clone()).await.expect_err("another node");
        assert!(matches!(error, ReleaseError::Authority(AuthorityRefusal::Elsewhere)), "{error:?}");
    }
    for other in &others {
        let order = forged(attempt(), other.clone());
        let error = submit(&server, &ca, order, sound_share(CLUSTER), attempt()).await.expect_err("another budget");
        assert!(matches!(error, ReleaseError::Budget), "{error:?}");
        let error = submit(&server, &ca, super::order(), sound_share(CLUSTER), other.clone())
            .await
            .expect_err("another record");
        assert!(matches!(error, ReleaseError::Record), "{error:?}");
    }
    let error =
        submit(&server, &ca, super::order(), sound_share(elsewhere), attempt()).await.expect_err("another's share");
    assert!(matches!(error, ReleaseError::Integrity), "{error:?}");
    server.saw_no_share();
}

#[tokio::test]
async fn an_authority_that_ran_out_or_is_withdrawn_meanwhile_opens_nothing() {
    let ca = TestCa::new();
    // Run out.
    let server = taking(&ca, |_| http(200, "", SEALED)).await;
    let order = ReleaseOrder::forged(attempt(), attempt(), NOW, Revocation::default());
    let error = submit(&server, &ca, order, sound_share(CLUSTER), attempt()).await.expect_err("run out");
    assert!(matches!(error, ReleaseError::Authority(AuthorityRefusal::Gone)), "{error:?}");
    server.saw_no_share();
    // Withdrawn at the last moment: while the node answers whether it is still sealed.
    let revocation = Revocation::default();
    let withdraw = revocation.clone();
    let server = Impostor::start(ca.localhost().tls(), move |asked| {
        if asked.number == 1 {
            withdraw.revoke();
        }
        http(200, "", SEALED)
    });
    let server = server.await;
    let order = ReleaseOrder::forged(attempt(), attempt(), NOW + Duration::from_secs(60), revocation);
    let error = submit(&server, &ca, order, sound_share(CLUSTER), attempt()).await.expect_err("withdrawn");
    assert!(matches!(error, ReleaseError::Authority(AuthorityRefusal::Gone)), "{error:?}");
    assert_eq!(server.requests().len(), 2);
    server.saw_no_share();
}

#[tokio::test]
async fn a_connection_that_is_lost_before_the_share_is_no_unknown_outcome() {
    let ca = TestCa::new();
    let server = Impostor::start(ca.localhost().tls(), |asked| match asked.number {
        0 => http(200, "", SEALED),
        _ => http(200, "Connection: close\r\n", SEALED),
    });
    let server = server.await;
    let error = refused(&ca.node(&server, &[]), &server).await;
    assert!(matches!(error, ReleaseError::Transport(AskError::Closed)), "{error:?}");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn resetting_an_attempt_sends_nothing_but_the_wish() {
    let ca = TestCa::new();
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&bodies);
    let server = taking(&ca, move |asked| {
        record.lock().expect("no panic").push((asked.line.clone(), asked.body.clone()));
        http(200, "", &SEALED.replace("\"progress\":1", "\"progress\":0"))
    });
    let server = server.await;
    let mut connection = ca.node(&server, &[]).connect(None).await.expect("good");
    assert_eq!(connection.reset_attempt().await.expect("reset").progress, 0);
    let expected = ("PUT /v1/sys/unseal HTTP/1.1".to_owned(), br#"{"reset":true}"#.to_vec());
    until("one request", || *bodies.lock().expect("no panic") == [expected.clone()]).await;
}
