//! Who is refused, with which status and under which reason, and what reaches the desk.

use std::net::SocketAddr;

use super::*;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

const ALERT: &str =
    r#"{"version":"4","alerts":[{"status":"firing","labels":{"alertname":"Intruder"},"startsAt":"1"}]}"#;

/// A door that is open, and the desk behind it.
async fn open(room: usize) -> (SocketAddr, mpsc::Receiver<Job>) {
    let listener = Listener::bind("127.0.0.1:0".parse().expect("an address"), None).await.expect("a free port");
    let address = listener.address();
    let (jobs, desk) = mpsc::channel(room);
    let labels = BTreeMap::from([("alertname".to_owned(), "Intruder".to_owned())]);
    let receiver = "ids-1".parse().expect("a name");
    let token = WebhookToken::of(TOKEN.as_bytes());
    serve(
        listener,
        Door { receiver, token, actions: vec![("shut".to_owned(), labels)], jobs, refused: Mutex::default() },
    );
    (address, desk)
}

/// The status of an answer, and what it says.
async fn post(address: SocketAddr, token: Option<&str>, body: impl Into<reqwest::Body>) -> (u16, String) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut request = client.post(format!("http://{address}/alerts")).body(body);
    if let Some(token) = token {
        request = request.header("authorization", token);
    }
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

async fn counted(address: SocketAddr, reason: &str) -> u64 {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let page = client.get(format!("http://{address}/metrics")).send().await.expect("an answer").text().await;
    let line = format!("holdfast_messages_rejected_total{{receiver=\"ids-1\",reason=\"{reason}\"}} ");
    let page = page.expect("text");
    page.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn each_refusal_is_told_and_counted() {
    holdfast_edge::tls::install_provider();
    let (address, mut desk) = open(1).await;
    let bearer = format!("Bearer {TOKEN}");
    let large = vec![b' '; BODY_MAX + 1];
    for (token, body, status, reason, total) in [
        (None, ALERT.as_bytes().to_vec(), 401, "forged", 1),
        (Some("Bearer "), ALERT.as_bytes().to_vec(), 401, "forged", 2),
        (Some(TOKEN), ALERT.as_bytes().to_vec(), 401, "forged", 3),
        (Some(&bearer[..bearer.len() - 1]), ALERT.as_bytes().to_vec(), 401, "forged", 4),
        // Who shows no token is not read.
        (None, large.clone(), 401, "forged", 5),
        (Some(&bearer), b"{".to_vec(), 400, "malformed", 1),
        (Some(&bearer), b"\xff\xfe".to_vec(), 400, "malformed", 2),
        (Some(&bearer), large, 413, "oversized", 1),
    ] {
        let (found, said) = post(address, token, body).await;
        assert_eq!(found, status, "{said}");
        assert!(said.contains("\"error\""), "{said}");
        assert_eq!(counted(address, reason).await, total, "{reason}");
    }
    let resolved = ALERT.replace("firing", "resolved");
    for nothing in [
        resolved,
        ALERT.replace("Intruder", "Visitor"),
        ALERT.replace("{\"status\"", "{\"x\":1,\"status\"").replace("Intruder", "x"),
    ] {
        assert_eq!(post(address, Some(&bearer), nothing).await, (200, "{\"done\":[]}".to_owned()));
    }
    assert!(desk.try_recv().is_err(), "nothing of all that reached the desk");
}

#[tokio::test]
async fn what_came_of_it_decides_whether_it_comes_again() {
    holdfast_edge::tls::install_provider();
    let (address, mut desk) = open(1).await;
    let bearer = format!("Bearer {TOKEN}");
    let outcomes = [
        (Outcome::Shut { what: "held".to_owned() }, 200),
        (Outcome::Known, 200),
        (Outcome::TooOften { why: "often".to_owned() }, 429),
        (Outcome::Failed { why: "no broker".to_owned() }, 503),
    ];
    for (outcome, status) in outcomes {
        let worked = async {
            let job = desk.recv().await.expect("a job");
            assert_eq!(job.wanted.keys().collect::<Vec<_>>(), ["shut"]);
            assert!(job.done.send(vec![Done { action: "shut".to_owned(), outcome }]).is_ok());
        };
        let ((found, said), ()) = tokio::join!(post(address, Some(&bearer), ALERT), worked);
        assert_eq!(found, status, "{said}");
    }
    assert_eq!(counted(address, "flood").await, 1);
    // One waits; for another there is no room.
    let waits = tokio::spawn(async move { post(address, Some(&format!("Bearer {TOKEN}")), ALERT).await });
    while desk.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(post(address, Some(&bearer), ALERT).await.0, 503);
    drop(desk.recv().await);
    assert_eq!(waits.await.expect("it ends").0, 503, "whoever was to do it is gone");
}
