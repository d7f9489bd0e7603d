//! Impostors, before a share would leave: another identity, another state, another answer than a node's. None gets a byte.

use super::impostor::{Front, Impostor, Reply, TestCa, http};
use super::*;
use crate::tls::PeerRefusal;
use crate::vault::{AskError, ConnectError, StateRefusal};

/// The refusal of a peer that answered and is not the node.
async fn not_the_node(identity: &NodeIdentity, impostor: &Impostor) -> PeerRefusal {
    match refused(identity, impostor).await {
        ReleaseError::Identity(error) => error.refusal().expect("a refusal").clone(),
        other => panic!("{other:?}"),
    }
}

fn sealed() -> Reply {
    http(200, "", SEALED)
}

#[tokio::test]
async fn another_ca_is_refused() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let impostor = Impostor::answering(&other, sealed).await;
    assert_eq!(not_the_node(&ca.node(&impostor, &[]), &impostor).await, PeerRefusal::UnknownIssuer);
    assert!(impostor.requests().is_empty());
}

#[tokio::test]
async fn the_right_ca_for_another_name_is_refused_and_the_names_are_told() {
    let ca = TestCa::new();
    let impostor = Impostor::start(ca.issue(&["vault-2.example", "10.9.8.7"], |_| {}).tls(), |_| sealed()).await;
    let PeerRefusal::WrongName { expected, presented } = not_the_node(&ca.node(&impostor, &[]), &impostor).await else {
        panic!("another refusal");
    };
    assert_eq!(expected, "localhost");
    assert_eq!(presented, "vault-2.example, 10.9.8.7");
    assert!(impostor.requests().is_empty());
}

#[tokio::test]
async fn the_right_name_with_another_key_than_the_pinned_is_refused_and_the_pin_is_told() {
    let ca = TestCa::new();
    let key = ca.localhost();
    let impostor = Impostor::start(key.tls(), |_| sealed()).await;
    let PeerRefusal::WrongPin { seen } = not_the_node(&ca.node(&impostor, &[[1; 32], [2; 32]]), &impostor).await else {
        panic!("another refusal");
    };
    assert_eq!(crate::tls::parse_pin(&seen).expect("a pin"), key.pin);
    assert!(impostor.requests().is_empty());
    // And one pin of several that fits is enough.
    assert!(prove(&ca.node(&impostor, &[[1; 32], key.pin])).await.is_ok());
}

#[tokio::test]
async fn a_copied_certificate_without_its_key_is_refused() {
    let ca = TestCa::new();
    let (copied, own) = (ca.localhost(), ca.localhost());
    let impostor = Impostor::start(copied.with_key_of(&own), |_| sealed()).await;
    not_the_node(&ca.node(&impostor, &[copied.pin]), &impostor).await;
    assert!(impostor.requests().is_empty());
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_refused() {
    let ca = TestCa::new();
    let old = ca.issue(&["localhost"], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 2));
    let impostor = Impostor::start(old.tls(), |_| sealed()).await;
    let not_after = "2020-01-02T00:00:00.000Z".parse().expect("a time");
    assert_eq!(not_the_node(&ca.node(&impostor, &[]), &impostor).await, PeerRefusal::Expired { not_after });
    let early = ca.issue(&["localhost"], |params| params.not_before = rcgen::date_time_ymd(3000, 1, 2));
    let impostor = Impostor::start(early.tls(), |_| sealed()).await;
    let refusal = not_the_node(&ca.node(&impostor, &[]), &impostor).await;
    assert!(matches!(refusal, PeerRefusal::NotYetValid { .. }), "{refusal}");
}

#[tokio::test]
async fn a_ca_certificate_as_the_servers_is_refused_and_the_way_out_is_told() {
    let ca = TestCa::new();
    let impostor = Impostor::start(ca.own().tls(), |_| sealed()).await;
    let refusal = not_the_node(&ca.node(&impostor, &[]), &impostor).await;
    assert_eq!(refusal, PeerRefusal::CaAsServer);
    assert!(refusal.to_string().contains("CA:FALSE"));
}

#[tokio::test]
async fn what_speaks_no_tls_or_an_old_one_is_refused() {
    let ca = TestCa::new();
    let impostor = Impostor::start(Front::PlainHttp, |_| sealed()).await;
    assert_eq!(not_the_node(&ca.node(&impostor, &[]), &impostor).await, PeerRefusal::NotTls);
    let old = Front::Tls(ca.localhost().config(&[&rustls::version::TLS12]));
    let impostor = Impostor::start(old, |_| sealed()).await;
    assert_eq!(not_the_node(&ca.node(&impostor, &[]), &impostor).await, PeerRefusal::NoTls13);
}

#[tokio::test]
async fn one_that_never_shakes_hands_uses_up_the_deadline_and_no_more() {
    let ca = TestCa::new();
    let impostor = Impostor::start(Front::Silent, |_| sealed()).await;
    let node = ca.node(&impostor, &[]).with_deadlines(Deadlines { connect: SHORT, ..Deadlines::default() });
    let started = Instant::now();
    let error = refused(&node, &impostor).await;
    assert!(matches!(error, ReleaseError::Unreachable(ConnectError::Deadline { .. })), "{error:?}");
    assert!(started.elapsed() < Deadlines::default().connect, "{:?}", started.elapsed());
    let impostor = Impostor::start(Front::Closing, |_| sealed()).await;
    let error = refused(&ca.node(&impostor, &[]), &impostor).await;
    assert!(matches!(error, ReleaseError::Unreachable(ConnectError::Handshake { .. })), "{error:?}");
}

#[tokio::test]
async fn nobody_at_the_address_is_told_as_such() {
    let ca = TestCa::new();
    let impostor = Impostor::answering(&ca, sealed).await;
    let node = ca.node(&impostor, &[]);
    impostor.stop().await;
    let error = release(&node).await.expect_err("nobody is there");
    assert!(matches!(error, ReleaseError::Unreachable(ConnectError::Tcp { .. })), "{error:?}");
}

#[tokio::test]
async fn a_node_in_another_state_gets_nothing() {
    let ca = TestCa::new();
    let numbers = |found_threshold, found_shares| StateRefusal::OtherNumbers {
        found_threshold,
        found_shares,
        expected: EXPECTED,
    };
    for (from, to, expected) in [
        ("\"sealed\":true", "\"sealed\":false", StateRefusal::Open),
        ("\"t\":3", "\"t\":2", numbers(2, 5)),
        ("\"t\":3", "\"t\":0", numbers(0, 5)),
        ("\"n\":5", "\"n\":7", numbers(3, 7)),
        ("shamir", "awskms", StateRefusal::OtherType),
        ("\"initialized\":true", "\"initialized\":false", StateRefusal::NotInitialised),
    ] {
        let status = SEALED.replace(from, to);
        assert_ne!(status, SEALED);
        let impostor = Impostor::answering(&ca, move || http(200, "", &status)).await;
        match refused(&ca.node(&impostor, &[]), &impostor).await {
            ReleaseError::State(refusal) => assert_eq!(refusal, expected),
            other => panic!("{to}: {other:?}"),
        }
        assert_eq!(impostor.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_node_that_changes_its_answer_after_the_check_gets_nothing() {
    let ca = TestCa::new();
    for (from, to) in [("\"sealed\":true", "\"sealed\":false"), ("\"n\":5", "\"n\":6"), ("shamir", "transit")] {
        let changed = SEALED.replace(from, to);
        let impostor = Impostor::start(ca.localhost().tls(), move |asked| {
            http(200, "", if asked.number == 0 { SEALED } else { &changed })
        });
        let impostor = impostor.await;
        let error = refused(&ca.node(&impostor, &[]), &impostor).await;
        assert!(matches!(error, ReleaseError::State(_)), "{error:?}");
        assert_eq!(impostor.requests().len(), 2);
    }
}

#[tokio::test]
async fn a_redirect_leads_nowhere() {
    let ca = TestCa::new();
    for code in [301, 302, 303, 307, 308] {
        let elsewhere = Impostor::answering(&ca, sealed).await;
        let location = format!("Location: https://localhost:{}/v1/sys/seal-status\r\n", elsewhere.address.port());
        let impostor = Impostor::answering(&ca, move || http(code, &location, "")).await;
        let error = refused(&ca.node(&impostor, &[]), &impostor).await;
        assert!(matches!(error, ReleaseError::Transport(AskError::Redirect(found)) if found == code), "{error:?}");
        assert_eq!(elsewhere.connections(), 0);
    }
}

#[tokio::test]
async fn another_answer_than_a_status_gets_nothing() {
    let ca = TestCa::new();
    type Right = fn(&AskError) -> bool;
    let not_a_status: Right = |error| matches!(error, AskError::NotAStatus(_));
    type Case = (&'static str, fn() -> Reply, Right);
    let answers: [Case; 13] = [
        ("html", || http(200, "Content-Type: text/html\r\n", "<html><body>OK</body></html>"), not_a_status),
        ("nothing", || http(200, "", ""), not_a_status),
        ("a half", || http(200, "", &SEALED[..40]), not_a_status),
        ("twice", || http(200, "", &SEALED.replace("\"t\":3", "\"sealed\":true,\"t\":3")), not_a_status),
        ("no t", || http(200, "", &SEALED.replace("\"t\":3,", "")), not_a_status),
        ("10 MiB", || http(200, "", &" ".repeat(10 << 20)), |e| matches!(e, AskError::TooLarge)),
        ("404", || http(404, "", SEALED), |e| matches!(e, AskError::Refused(404))),
        ("500", || http(500, "", SEALED), |e| matches!(e, AskError::Refused(500))),
        ("503", || http(503, "", SEALED), |e| matches!(e, AskError::Refused(503))),
        ("204", || Reply::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()), |e| matches!(e, AskError::Refused(204))),
        (
            "long head",
            || http(200, &format!("X: {}\r\n", "x".repeat(1 << 20)), SEALED),
            |e| matches!(e, AskError::Broken(_)),
        ),
        ("many headers", || http(200, &"X: x\r\n".repeat(500), SEALED), |e| matches!(e, AskError::Broken(_))),
        ("no HTTP", || Reply::Close(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), |e| matches!(e, AskError::Broken(_))),
    ];
    for (name, reply, right) in answers {
        let impostor = Impostor::answering(&ca, reply).await;
        match refused(&ca.node(&impostor, &[]), &impostor).await {
            ReleaseError::Transport(error) => assert!(right(&error), "{name}: {error:?}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_endless_body_is_read_to_its_limit_and_no_further() {
    let ca = TestCa::new();
    let endless = || {
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000)).repeat(20);
        Reply::Stall(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}").into_bytes())
    };
    let impostor = Impostor::answering(&ca, endless).await;
    let error = refused(&ca.node(&impostor, &[]), &impostor).await;
    assert!(matches!(error, ReleaseError::Transport(AskError::TooLarge)), "{error:?}");
}

#[tokio::test]
async fn one_that_stalls_or_drips_uses_up_the_deadline_and_no_more() {
    let ca = TestCa::new();
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\nX: ";
    const BODY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{\"type\":";
    const EARLY: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let answers: [fn() -> Reply; 6] = [
        || Reply::Stall(Vec::new()),
        || Reply::Stall(HEAD.to_vec()),
        || Reply::Stall(BODY.to_vec()),
        || Reply::Stall(EARLY.repeat(5)),
        || Reply::Drip(HEAD.to_vec()),
        || Reply::Drip(BODY.to_vec()),
    ];
    for reply in answers {
        let impostor = Impostor::answering(&ca, reply).await;
        let node = ca.node(&impostor, &[]).with_deadlines(Deadlines { answer: SHORT, ..Deadlines::default() });
        let started = Instant::now();
        let error = refused(&node, &impostor).await;
        assert!(matches!(error, ReleaseError::Transport(AskError::Deadline(_))), "{error:?}");
        assert!(started.elapsed() < Deadlines::default().answer, "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn one_that_closes_midway_gets_nothing() {
    let ca = TestCa::new();
    const BODY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{\"type\":";
    for length in [0, 9, 30, BODY.len()] {
        let impostor = Impostor::answering(&ca, move || Reply::Close(BODY[..length].to_vec())).await;
        let error = refused(&ca.node(&impostor, &[]), &impostor).await;
        assert!(matches!(error, ReleaseError::Transport(AskError::Broken(_))), "{length}: {error:?}");
    }
}

#[tokio::test]
async fn an_answer_sent_before_the_question_is_not_taken_for_one() {
    let ca = TestCa::new();
    // Two answers to the first question: the second would vouch for the state after the check.
    let impostor = Impostor::start(ca.localhost().tls(), |asked| {
        let Reply::Bytes(one) = sealed() else { unreachable!("whole") };
        if asked.number == 0 { Reply::Bytes(one.repeat(2)) } else { Reply::Stall(Vec::new()) }
    });
    let impostor = impostor.await;
    let error = refused(&ca.node(&impostor, &[]), &impostor).await;
    assert!(matches!(error, ReleaseError::Transport(_)), "{error:?}");
}
