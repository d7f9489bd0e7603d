//! Somebody else in a node's or the broker's place, before a real custodian that has every reason to release its share: none
//! gets a byte of it, or of a password. The same custodian before the same server, when that is what it should be, does.

use std::sync::Arc;

use holdfast_tests::home::{Ceremony, Home, Running};
use holdfast_tests::impostor::{Asked, Front, Impostor, Record, Reply, answer, http, sealed};
use holdfast_tests::messages::Draft;
use holdfast_tests::shares::Needles;
use holdfast_tests::tls::Authority;
use holdfast_tests::wait::until;
use serde_json::{Value, json};

/// The cluster of the ceremony.
const THRESHOLD: u8 = 2;
const SHARES: u8 = 2;

/// How often a custodian comes to an impostor before it counts as having been tried.
const VISITS: usize = 4;

/// A password that nobody else has.
const PASSWORD: &str = "correct-horse-battery-staple-7319";

type Script = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// Who stands in the node's place.
struct Stranger {
    what: &'static str,
    front: Front,
    /// The pin in the custodian's configuration; none, if it pins nothing.
    pin: Option<String>,
    script: Script,
    /// What the custodian's audit log or its own log has to say, to know that it was led as far as it was to be led.
    tells: &'static str,
}

/// One custodian before one impostor.
struct Encounter {
    what: &'static str,
    tells: &'static str,
    impostor: Impostor,
    home: Home,
    _custodian: Running,
}

#[test]
fn nobody_in_a_nodes_place_gets_a_share() {
    let ceremony = Ceremony::hold();
    let share = ceremony.share("custodian-1");
    let needles = Needles::of(&[share]);
    let authority = Authority::new("the CA that the custodian trusts");
    let elsewhere = Impostor::start(Front::Tls(authority.issue(&["127.0.0.1"]).server()), as_a_node);
    let strangers = strangers(&authority, &elsewhere);
    let control = Stranger { what: "the node itself", ..the_node(&authority, Arc::new(as_a_node)) };

    let met: Vec<_> = strangers.into_iter().map(|stranger| meet(&ceremony, &authority, stranger)).collect();
    let control = meet(&ceremony, &authority, control);

    // The same approval, the same configuration: this one gets it, as the API says, and with it nothing else.
    until("the node gets the share", || shares_sent(&control.impostor.record()) > 0);
    {
        let record = control.impostor.record();
        let put = record.requests.iter().find(|asked| asked.is_unseal()).expect("it was sent");
        let body: Value = serde_json::from_slice(&put.body).expect("JSON");
        assert_eq!(body, json!({ "key": hex::encode(share) }));
        assert!(put.number >= 1, "the state was not asked for on the connection that carried the share");
        assert_eq!(needles.find(&record.raw), None, "it was sent without TLS");
    }

    for encounter in &met {
        let Encounter { what, tells, impostor, home, .. } = encounter;
        until(&format!("{what}: the custodian has authority"), || home.audited(r#""what":"approval""#) > 0);
        until(&format!("{what}: the custodian was there: {tells:?}"), || {
            let record = impostor.record();
            let visited = record.connections.max(record.requests.len()) >= VISITS;
            visited && (tells.is_empty() || home.audited(tells) > 0 || home.read("log").contains(tells))
        });
    }
    for Encounter { what, impostor, home, .. } in &met {
        let record = impostor.record();
        if *what != "one that sends the share elsewhere" {
            assert_eq!(shares_sent(&record), 0, "{what}: {:?}", record.requests);
            assert_eq!(needles.find(&record.decrypted), None, "{what}");
        }
        assert_eq!(needles.find(&record.raw), None, "{what}");
        assert_eq!(needles.find(home.read("log").as_bytes()), None, "{what}: in its log");
    }
    let record = elsewhere.record();
    assert_eq!(record.connections, 0, "a redirect was followed: {:?}", record.requests);
}

fn shares_sent(record: &Record) -> usize {
    record.requests.iter().filter(|asked| asked.is_unseal()).count()
}

/// A sealed node that takes shares.
fn as_a_node(asked: &Asked) -> Reply {
    let mut status = sealed(THRESHOLD, SHARES);
    if asked.is_unseal() {
        (status["progress"], status["nonce"]) = (1.into(), "b7a1c2d3".into());
    }
    answer(&status)
}

/// The right CA, name and pin, whatever it says.
fn the_node(authority: &Authority, script: Script) -> Stranger {
    let certified = authority.issue(&["127.0.0.1"]);
    Stranger { what: "", front: Front::Tls(certified.server()), pin: Some(certified.pin), script, tells: "" }
}

fn strangers(authority: &Authority, elsewhere: &Impostor) -> Vec<Stranger> {
    let nobody = "somebody answers at the node's address who is not the node";
    let other_authority = Authority::new("another CA");
    let node: Script = Arc::new(as_a_node);
    let saying = |what, tells, change: fn(&mut Value)| {
        let script: Script = Arc::new(move |_: &Asked| {
            let mut status = sealed(THRESHOLD, SHARES);
            change(&mut status);
            answer(&status)
        });
        Stranger { what, tells, ..the_node(authority, script) }
    };
    let replying = |what, reply: Reply| {
        let script: Script = Arc::new(move |_: &Asked| reply.clone());
        Stranger { what, ..the_node(authority, script) }
    };
    // Sealed when it is asked first on a connection, and something else the next time. The first connection is the kept one.
    let changing = |what, change: fn(&mut Value)| {
        let script: Script = Arc::new(move |asked: &Asked| {
            let mut status = sealed(THRESHOLD, SHARES);
            if asked.connection > 0 && asked.number > 0 {
                change(&mut status);
            }
            answer(&status)
        });
        Stranger { what, tells: r#""kind":"release""#, ..the_node(authority, script) }
    };
    let to = format!("Location: https://{}/v1/sys/seal-status\r\n", elsewhere.address);
    let share_to = format!("Location: https://{}/v1/sys/unseal\r\n", elsewhere.address);
    let of_another_ca = other_authority.issue(&["127.0.0.1"]);
    let of_another_name = authority.issue(&["localhost", "vault-1.example", "127.0.0.2"]);
    let pinned = authority.issue(&["127.0.0.1"]);
    let front = |front| Stranger { what: "", front, pin: None, script: node.clone(), tells: "" };
    vec![
        Stranger { what: "another CA", tells: nobody, ..front(Front::Tls(of_another_ca.server())) },
        Stranger {
            what: "another CA and the right pin",
            tells: nobody,
            pin: Some(of_another_ca.pin.clone()),
            ..front(Front::Tls(of_another_ca.server()))
        },
        Stranger { what: "another name", tells: nobody, ..front(Front::Tls(of_another_name.server())) },
        Stranger {
            what: "another key than the pinned one",
            tells: nobody,
            pin: Some(of_another_ca.pin.clone()),
            ..front(Front::Tls(pinned.server()))
        },
        Stranger { what: "no TLS", ..front(Front::PlainHttp) },
        Stranger { what: "silence", ..front(Front::Silent) },
        saying("an open node", "", |status| status["sealed"] = false.into()),
        saying("another threshold", r#""lock":"state""#, |status| status["t"] = 1.into()),
        saying("another number of shares", r#""lock":"state""#, |status| status["n"] = 5.into()),
        saying("another type", r#""lock":"state""#, |status| status["type"] = "transit".into()),
        saying("a node that is not initialised", "", |status| {
            (status["initialized"], status["t"], status["n"]) = (false.into(), 0.into(), 0.into());
        }),
        saying("a node that does not say whether it is sealed", "", |status| {
            status.as_object_mut().expect("an object").remove("sealed");
        }),
        changing("a node that opens between check and submission", |status| status["sealed"] = false.into()),
        changing("a node that changes its threshold between check and submission", |status| status["t"] = 1.into()),
        changing("a node that changes its type between check and submission", |status| status["type"] = "x".into()),
        replying("a redirect", http(307, &to, "")),
        replying("a redirect with a good answer", http(302, &to, &sealed(THRESHOLD, SHARES).to_string())),
        replying("HTML", http(200, "Content-Type: text/html\r\n", "<html><body>Vault is sealed: true</body></html>")),
        replying("10 MiB", http(200, "", &format!("{{\"sealed\":true,\"x\":\"{}\"}}", "x".repeat(10 << 20)))),
        replying(
            "half an answer",
            Reply::Stall(b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{\"sealed\":true,".to_vec()),
        ),
        replying(
            "half an answer and the end",
            Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{".to_vec()),
        ),
        replying("an answer without end", Reply::Drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{".to_vec())),
        replying("no HTTP", Reply::Close(b"\x00\x01\x02\x03\r\n\r\n".to_vec())),
        Stranger {
            what: "one that sends the share elsewhere",
            tells: r#""result":"unanswered""#,
            ..the_node(
                authority,
                Arc::new(
                    move |asked: &Asked| {
                        if asked.is_unseal() { http(307, &share_to, "") } else { as_a_node(asked) }
                    },
                ),
            )
        },
    ]
}

/// Puts an impostor in the node's place, an operator's approval into the custodian's inbox, and starts the custodian.
fn meet(ceremony: &Ceremony, authority: &Authority, stranger: Stranger) -> Encounter {
    let Stranger { what, front, pin, script, tells } = stranger;
    let impostor = Impostor::start(front, move |asked| script(asked));
    let home = ceremony.home("custodian-1");
    home.write("vault-ca.pem", authority.pem());
    let text = home.read("custodian.toml");
    let node = text.lines().find(|line| line.starts_with("vault-1 = ")).expect("a node").to_owned();
    let pins = pin.map(|pin| format!(", spki_sha256 = [\"{pin}\"]")).unwrap_or_default();
    let here = format!("vault-1 = {{ url = \"https://{}\", tls = \"direct\"{pins} }}", impostor.address);
    home.replace("custodian.toml", &node, &here);
    // As fast as may be: there are many to meet.
    home.replace("custodian.toml", "operators = ", "poll_interval = \"100ms\"\noperators = ");
    let approval = Draft::approval(&ceremony.cluster(), "alice", "vault-1");
    home.deliver(&approval.signed(&ceremony.file("operators/alice.key")));
    let custodian = home.run();
    Encounter { what, tells, impostor, home, _custodian: custodian }
}

#[test]
fn nobody_in_the_brokers_place_gets_a_password() {
    let ceremony = Ceremony::hold();
    let authority = Authority::new("the CA that the custodian trusts");
    let here = authority.issue(&["127.0.0.1"]);
    let other = Authority::new("another CA").issue(&["127.0.0.1"]);
    let other_name = authority.issue(&["mq.example", "localhost"]);
    let met: Vec<_> = [
        ("AMQP without TLS", Front::PlainAmqp),
        ("HTTP without TLS", Front::PlainHttp),
        ("silence", Front::Silent),
        ("another CA", Front::TlsAmqp(other.server())),
        ("another name", Front::TlsAmqp(other_name.server())),
    ]
    .map(|(what, front)| meet_broker(&ceremony, &authority, what, front))
    .into();
    let control = meet_broker(&ceremony, &authority, "the broker itself", Front::TlsAmqp(here.server()));
    let has = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|run| run == text.as_bytes());

    // A broker that is the right one is told it, inside TLS alone.
    until("the broker gets the password", || has(&control.impostor.record().decrypted, PASSWORD));
    assert!(!has(&control.impostor.record().raw, PASSWORD));

    for Encounter { what, impostor, .. } in &met {
        until(&format!("{what}: the custodian tries again and again"), || impostor.record().connections >= 2);
    }
    for Encounter { what, impostor, home, .. } in &met {
        let record = impostor.record();
        for part in [PASSWORD, &PASSWORD[..12], &PASSWORD[20..], "AMQP", "PLAIN", "custodian-1"] {
            assert!(!has(&record.raw, part) && !has(&record.decrypted, part), "{what}: it was told {part:?}");
        }
        // What speaks no TLS decrypts nothing, and took a client's hello for a request.
        let hello = what.ends_with("without TLS");
        assert!(hello || record.decrypted.is_empty(), "{what}: it was spoken to");
        // The first thing that it hears is TLS's.
        assert_eq!(record.raw[..2], [0x16, 0x03], "{what}");
        assert!(!home.read("log").contains(PASSWORD), "{what}: in the log");
    }
}

fn meet_broker(ceremony: &Ceremony, authority: &Authority, what: &'static str, front: Front) -> Encounter {
    let impostor = Impostor::start(front, |_| http(200, "", "{}"));
    let home = ceremony.home("custodian-1");
    home.write("broker-ca.pem", authority.pem());
    home.write_secret("broker.password", PASSWORD);
    let section = format!(
        "[broker]\nurl = \"amqps://{}/holdfast\"\nusername = \"custodian-1\"\npassword_file = \"broker.password\"\n\
         ca_cert = \"broker-ca.pem\"\n\n[clusters.lab]\n",
        impostor.address
    );
    home.replace("custodian.toml", "[clusters.lab]\n", &section);
    let custodian = home.run();
    Encounter { what, tells: "", impostor, home, _custodian: custodian }
}
