//! `holdfast doctor` and `holdfast-custodian check`: in a sound lab nothing is found wrong, and each thing that is made wrong for
//! real is named, with what to do. The running custodians do not notice that they are looked at.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use holdfast_tests::home::Home;
use holdfast_tests::impostor::{Asked, Front, Impostor, Reply, answer, http, sealed};
use holdfast_tests::lab::Lab;
use holdfast_tests::programs::{Said, run};
use holdfast_tests::tls::{Authority, Certified};
use holdfast_tests::wait::{until, until_some};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The lab's numbers.
const THRESHOLD: u8 = 3;
const SHARES: u8 = 5;

/// The programs' exit status when something failed, and when the configuration is refused.
const FAILED: i32 = 1;
const REFUSED: i32 = 78;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What was found.
struct Found {
    code: Option<i32>,
    document: Value,
}

impl Found {
    fn of(said: Said) -> Self {
        let document = serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {}{}", said.out, said.err));
        Self { code: said.code, document }
    }

    fn all(&self) -> impl Iterator<Item = &Value> {
        self.document["findings"].as_array().expect("a list").iter()
    }

    /// What failed, as text.
    fn failures(&self) -> Vec<String> {
        self.all().filter(|finding| finding["grade"] == "failed").map(Value::to_string).collect()
    }

    fn has(&self, grade: &str, check: &str, parts: &[&str]) -> bool {
        self.all().any(|finding| {
            let text =
                format!("{}\n{}", finding["what"].as_str().expect("text"), finding["remedy"].as_str().unwrap_or(""));
            let told = grade == "ok" || finding["remedy"].is_string();
            told && finding["grade"] == grade
                && finding["check"] == check
                && parts.iter().all(|part| text.contains(part))
        })
    }

    #[track_caller]
    fn expect(&self, grade: &str, check: &str, parts: &[&str]) {
        assert!(self.has(grade, check, parts), "no {grade} {check} with {parts:?}: {:#}", self.document);
        if grade == "failed" {
            assert_eq!(self.code, Some(FAILED));
        }
    }

    #[track_caller]
    fn expect_well(&self) {
        assert_eq!(self.failures(), Vec::<String>::new());
        assert_eq!(self.code, Some(0));
    }
}

fn check(config: &Path, more: &[&str]) -> Found {
    let config = config.to_string_lossy();
    let mut line = vec!["check", "--json", "--config", &config];
    line.extend(more);
    Found::of(run("holdfast-custodian", &line))
}

fn doctor(lab: &Lab) -> Found {
    Found::of(lab.holdfast(&["doctor", "--json"]))
}

fn home(lab: &Lab, custodian: &str) -> Home {
    Home::copy_of(&lab.dir().join(custodian))
}

#[test]
fn whatever_is_wrong_before_the_first_crash_is_found() {
    let mut lab = Lab::up(&[]);
    lab.settle();
    lab.scenario("a sound lab", sound);
    lab.scenario("a custodian's files", files);
    lab.scenario("a custodian's state", state);
    lab.scenario("somebody in a node's place", nodes);
    lab.scenario("several nodes behind an address", shared_address);
    lab.scenario("the broker", broker);
    lab.scenario("an operator's machine", operator);
    lab.scenario("a node that is sealed", sealed_node);
    lab.scenario("custodians that drift and fall silent", custodians);
    lab.scenario("the sentinel", sentinel);
    lab.scenario("a captured sentinel", captured_sentinel);
}

fn sound(lab: &mut Lab) {
    let pids = lab.running();
    for id in lab.custodians() {
        let found = check(&lab.path(&lab.custodian(&id).config), &[]);
        found.expect_well();
        found.expect("ok", "audit", &["a custodian runs and writes it"]);
        found.expect("ok", "sandbox", &[]);
        found.expect("ok", "direct", &["8 handshakes"]);
        found.expect("ok", "broker-queue", &[".orders", "one reads it now"]);
        found.expect("ok", "broker-publish", &["holdfast.reports"]);
        // What a lab leaves behind, and says.
        found.expect("warning", "identity", &["systemd"]);
    }
    let found = doctor(lab);
    found.expect_well();
    for (check, part) in [
        ("own-key", "your approvals count"),
        ("margin", "margin 2"),
        ("drift-policy", "all 5"),
        ("distinct-shares", "5 distinct"),
        ("broker-publish", "holdfast.orders"),
        ("custodian", "custodian-5 is ready for all 3 nodes"),
        ("sentinel-node", "sees vault-3 open"),
        ("pin", "pinned"),
        ("shared-address", "3 nodes"),
    ] {
        found.expect("ok", check, &[part]);
    }
    found.expect("warning", "recovery", &["nobody but custodians has a share", "takes 3", "ceremony"]);
    assert!(found.all().all(|finding| finding["group"].is_string()));
    // For people: marks, groups, and no control character where no terminal is.
    let said = lab.holdfast(&["doctor"]).well();
    for part in ["\nBroker\n", "\nNode vault-1 of lab\n", "\n  ✓ ", "0 failed"] {
        assert!(said.out.contains(part), "{part:?} is missing from {}", said.out);
    }
    assert!(!said.out.contains('\x1b') && said.err.is_empty(), "{}{}", said.out, said.err);
    let refused = |reason| lab.custodians().iter().map(|id| lab.refused(id, reason)).sum::<u64>();
    assert_eq!(refused("malformed") + refused("forged"), 0, "looking sent something");
    assert_eq!(lab.running(), pids, "looking restarted something");
}

/// What is wrong, how it is made wrong, and what is found.
type FileCase = (&'static str, fn(&Home), &'static str, &'static str, &'static [&'static str]);

const FILES: &[FileCase] = &[
    (
        "an identity that all can read",
        |home| chmod(&home.path("identity.txt"), 0o644),
        "failed",
        "key-file",
        &["the age identity", "chmod 600", "identity.txt"],
    ),
    (
        "half a share",
        |home| home.write("lab.share.age", &fs::read(home.path("lab.share.age")).expect("there")[..100]),
        "failed",
        "share",
        &["lab.share.age", "backup"],
    ),
    ("no share", |home| remove(home, "lab.share.age"), "failed", "share", &["holdfast-setup install"]),
    (
        "a manifest of the next generation",
        |home| home.replace("lab.manifest.json", "\"generation\": 1", "\"generation\": 2"),
        "failed",
        "share",
        &["generation 1", "2 was expected"],
    ),
    ("a transport key", |_| {}, "warning", "leftover", &["transport.key", "shred -u"]),
    ("no transport key", |home| remove(home, "transport.key"), "ok", "leftover", &["no transport key"]),
    (
        "no sandbox",
        |home| home.replace("custodian.toml", "\"enforce\"", "\"off\""),
        "warning",
        "sandbox",
        &["never ready", "sandbox = \"enforce\""],
    ),
    (
        "a state folder that is none",
        |home| home.replace("custodian.toml", "state_dir = \"state\"", "state_dir = \"enrollment.json\""),
        "failed",
        "state",
        &["enrollment.json", "cannot be written"],
    ),
    (
        "a trust root without a peer",
        |home| cut_line(home, "custodian-3 "),
        "failed",
        "trust",
        &["custodian-3 namespaces=\"holdfast.report\" ssh-ed25519 "],
    ),
    (
        "a trust root without an operator whom the policy needs",
        |home| cut_line(home, "bob "),
        "failed",
        "people",
        &["2 operators", "not bob", "allowed_signers"],
    ),
    (
        "a trust root with an operator whose time is over",
        |home| home.replace("allowed_signers", "bob namespaces", "bob valid-before=\"20200101Z\",namespaces"),
        "failed",
        "people",
        &["not bob"],
    ),
    ("a trust root without the sentinel", |home| cut_line(home, "sentinel-1 "), "warning", "people", &["sentinel-1"]),
];

fn files(lab: &mut Lab) {
    for (what, spoil, grade, word, parts) in FILES {
        let home = home(lab, "custodian-2");
        spoil(&home);
        let before = fs::read_dir(home.path(".")).expect("there").count();
        let found = check(&home.config(), &["--offline"]);
        assert!(found.has(grade, word, parts), "{what}: {:#}", found.document);
        assert_eq!(found.code, Some(if *grade == "failed" { FAILED } else { 0 }), "{what}: {:?}", found.failures());
        assert_eq!(fs::read_dir(home.path(".")).expect("there").count(), before, "{what}: a file was made");
    }
    // A packet beside the key that opens it is the share once more.
    let home = home(lab, "custodian-2");
    let packet = lab.dir().join("ceremony/output/packets/custodian-2.packet.json");
    fs::copy(packet, home.path("from-alice.json")).expect("copied");
    let found = check(&home.config(), &["--offline"]);
    found.expect("failed", "leftover", &["shred -u", "from-alice.json", "transport.key"]);
    found.expect("warning", "offline", &["--offline"]);
    // What is refused by its line is refused as ever.
    chmod(&home.path("broker.password"), 0o640);
    let said = run("holdfast-custodian", &[Path::new("check"), Path::new("--config"), &home.config()]);
    assert_eq!(said.code, Some(REFUSED), "{said:?}");
    assert!(said.err.contains("chmod 600") && said.out.is_empty(), "{said:?}");
}

fn state(lab: &mut Lab) {
    // Whole lines, as a copy made while it is written need not have them.
    let log = fs::read_to_string(lab.path(&lab.custodian("custodian-2").state_dir).join("audit.jsonl")).expect("a log");
    let log = &log[..=log.rfind('\n').expect("lines")];
    let home = home(lab, "custodian-2");
    fs::create_dir(home.path("state")).expect("made");
    home.write("state/audit.jsonl", log);
    check(&home.config(), &["--offline"]).expect("ok", "audit", &["whole", "no custodian runs"]);
    home.write("state/audit.jsonl", format!("{log}{{\"v\":1,"));
    check(&home.config(), &["--offline"]).expect("warning", "audit", &["middle of a line"]);
    home.write("state/audit.jsonl", log.replacen("\"seq\":2", "\"seq\":3", 1));
    check(&home.config(), &["--offline"]).expect("failed", "audit", &["line 2", "keep it as evidence"]);
    home.write("state/audit.jsonl", log);
    home.write("state/state.json", "{");
    check(&home.config(), &["--offline"]).expect("failed", "memory", &["state.json", "backup"]);
    let ahead = json!({"v": 2, "high_water": "2099-01-01T00:00:00.000Z", "permissions": {}, "clusters": {}});
    home.write("state/state.json", ahead.to_string());
    check(&home.config(), &["--offline"]).expect("failed", "clock-back", &["2099-01-01", "timedatectl"]);
}

/// Somebody in the place of vault-1, and what a check finds there.
struct Stranger {
    what: &'static str,
    front: Front,
    pin: Option<String>,
    /// The node's line, from where its pins end.
    direct: bool,
    script: Script,
    grade: &'static str,
    check: &'static str,
    parts: Vec<String>,
}

type Script = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

fn nodes(lab: &mut Lab) {
    let authority = Authority::new("the CA that the custodian trusts");
    for stranger in strangers(&authority) {
        let Stranger { what, front, pin, direct, script, grade, check: word, parts } = stranger;
        let impostor = Impostor::start(front, move |asked| script(asked));
        let home = home(lab, "custodian-2");
        home.write("vault-ca.pem", authority.pem());
        set_nodes(&home, &[("vault-1", &format!("https://{}", impostor.address), direct, pin.as_slice())]);
        let found = check(&home.config(), &[]);
        let parts: Vec<_> = parts.iter().map(String::as_str).collect();
        assert!(found.has(grade, word, &parts), "{what}: {:#}", found.document);
        let record = impostor.record();
        let asked = record.requests.iter().find(|asked| !asked.line.starts_with("GET /v1/sys/"));
        assert!(asked.is_none(), "{what}: it was sent more than questions: {asked:?}");
    }
    let home = home(lab, "custodian-2");
    let nobody = TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("an address");
    set_nodes(&home, &[("vault-1", &format!("https://{nobody}"), true, &[])]);
    check(&home.config(), &[]).expect("failed", "reach", &["no TCP connection", "nc -vz 127.0.0.1"]);
    set_nodes(&home, &[("vault-1", "https://no-such-host.invalid:8200", true, &[])]);
    check(&home.config(), &[]).expect("failed", "name", &["no-such-host.invalid", "getent hosts"]);
    // One node under two names.
    let url = lab.url("vault-1").to_owned();
    set_nodes(&home, &[("vault-1", &url, true, &[]), ("vault-2", &url, true, &[])]);
    let found = check(&home.config(), &[]);
    found.expect("failed", "shared-address", &["vault-1 and vault-2"]);
    found.expect("warning", "pin", &["not pinned", "spki_sha256 = [\""]);
}

fn strangers(authority: &Authority) -> Vec<Stranger> {
    let now = Duration::from_secs(u64::try_from(Timestamp::now().as_second()).expect("after 1970"));
    let node = |change: fn(&mut Value)| -> Script {
        Arc::new(move |asked: &Asked| {
            let mut body = sealed(THRESHOLD, SHARES);
            body["server_time_utc"] = Timestamp::now().as_second().into();
            if asked.is_status() || asked.line.starts_with("GET /v1/sys/health ") {
                change(&mut body);
            }
            answer(&body)
        })
    };
    let sound = |_: &mut Value| {};
    let certified = authority.issue(&["127.0.0.1"]);
    let stranger = |what, front, grade, check, parts: &[&str]| Stranger {
        what,
        front,
        pin: None,
        direct: true,
        script: node(sound),
        grade,
        check,
        parts: parts.iter().map(|part| (*part).to_owned()).collect(),
    };
    let tls = |certified: &Certified| Front::Tls(certified.server());
    let said = |what, change, grade, check, parts: &[&str]| Stranger {
        script: node(change),
        ..stranger(what, tls(&certified), grade, check, parts)
    };
    let other = Authority::new("another CA").issue(&["127.0.0.1"]);
    let over = authority.issue_until(&["127.0.0.1"], Some(now - DAY));
    let soon = authority.issue_until(&["127.0.0.1"], Some(now + 10 * DAY));
    let proxied: Script = Arc::new(move |_: &Asked| {
        let mut body = sealed(THRESHOLD, SHARES);
        body["server_time_utc"] = Timestamp::now().as_second().into();
        http(200, "Server: nginx\r\nContent-Type: application/json\r\n", &body.to_string())
    });
    vec![
        stranger("another CA", tls(&other), "failed", "ca", &["not issued by the configured CA", "openssl s_client"]),
        stranger(
            "another name",
            tls(&authority.issue(&["vault-9.example"])),
            "failed",
            "server-name",
            &["vault-9.example"],
        ),
        Stranger {
            pin: Some(other.pin.clone()),
            ..stranger("another key", tls(&certified), "failed", "pin", &["spki_sha256 = [\""])
        },
        Stranger {
            pin: Some(certified.pin.clone()),
            ..stranger("the pinned key", tls(&certified), "ok", "pin", &["pinned"])
        },
        stranger("a certificate that is over", tls(&over), "failed", "certificate", &["expired", "renew it"]),
        stranger("a certificate that ends soon", tls(&soon), "warning", "certificate", &["ends in 9 days", "renew it"]),
        stranger("no TLS", Front::PlainAmqp, "failed", "tls", &["does not speak TLS"]),
        stranger("silence", Front::Silent, "failed", "reach", &["within"]),
        stranger(
            "no tickets",
            Front::Tls(certified.server_without_tickets()),
            "failed",
            "direct",
            &["no TLS session tickets"],
        ),
        stranger("one process", tls(&certified), "ok", "direct", &["8 handshakes"]),
        Stranger {
            direct: false,
            ..stranger("not direct", tls(&certified), "warning", "direct", &["tls = \"direct\""])
        },
        Stranger { script: proxied, ..stranger("a proxy", tls(&certified), "warning", "proxy", &["Via", "proxied"]) },
        said("a node that is sealed", sound, "warning", "status", &["sealed now", "holdfast status --node vault-1"]),
        said("other numbers", |body| body["t"] = 2.into(), "failed", "status", &["2 of 5", "3 of 5"]),
        said("another seal", |body| body["type"] = "transit".into(), "failed", "status", &["not of the type shamir"]),
        said(
            "not initialised",
            |body| (body["initialized"], body["t"], body["n"]) = (false.into(), 0.into(), 0.into()),
            "failed",
            "status",
            &["never been initialised"],
        ),
        said("no status", |body| body["sealed"] = "maybe".into(), "failed", "status", &["not a seal-status"]),
        said(
            "a clock that is behind",
            |body| body["server_time_utc"] = (Timestamp::now().as_second() - 100).into(),
            "failed",
            "clock",
            &["behind", "timedatectl"],
        ),
        said(
            "a clock that is a little ahead",
            |body| body["server_time_utc"] = (Timestamp::now().as_second() + 20).into(),
            "warning",
            "clock",
            &["ahead of"],
        ),
    ]
}

/// Two real nodes behind one address, by turns.
fn shared_address(lab: &mut Lab) {
    let behind = ["vault-1", "vault-2"].map(|node| address(lab.url(node)));
    let balancer = Balancer::start(behind);
    let home = home(lab, "custodian-2");
    set_nodes(&home, &[("vault-1", &format!("https://{}", balancer.address), true, &[])]);
    let found = check(&home.config(), &[]);
    found.expect("failed", "shared-address", &["several processes", "tls = \"proxied\""]);
}

fn broker(lab: &mut Lab) {
    let home = home(lab, "custodian-2");
    let entry = lab.file.broker.clone().expect("a broker");
    home.write_secret("broker.password", "not-the-password");
    check(&home.config(), &[]).expect("failed", "broker-login", &["custodian-2", "passwords/custodian-2.password"]);
    let home = self::home(lab, "custodian-2");
    home.write("broker-ca.pem", Authority::new("another CA").pem());
    check(&home.config(), &[]).expect("failed", "broker-tls", &["not issued by the configured CA", "openssl s_client"]);
    let home = self::home(lab, "custodian-2");
    let nobody = TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("an address");
    home.replace("custodian.toml", &entry.url, &format!("amqps://{nobody}/holdfast"));
    check(&home.config(), &[]).expect("failed", "broker-reach", &["is it running?", "nc -vz"]);
    let home = self::home(lab, "custodian-2");
    home.replace("custodian.toml", &entry.url, &entry.url.replace("/holdfast", "/elsewhere"));
    check(&home.config(), &[]).expect("failed", "broker-login", &["elsewhere", "rabbitmqctl import_definitions"]);

    // Rights that were taken away.
    let queues = r"^holdfast\.custodian\.custodian-2\.orders$";
    rabbitmqctl(lab, &["set_permissions", "-p", "holdfast", "custodian-2", "^$", "^$", queues]);
    let config = lab.path(&lab.custodian("custodian-2").config);
    let found = check(&config, &[]);
    found.expect("ok", "broker-queue", &["custodian-2.orders"]);
    found.expect("failed", "broker-queue", &["custodian-2.peers", "may not", "import_definitions"]);
    found.expect("failed", "broker-publish", &["holdfast.reports", "may not"]);
    rabbitmqctl(lab, &["clear_topic_permissions", "-p", "holdfast", "alice", "holdfast.orders"]);
    rabbitmqctl(lab, &["set_topic_permissions", "-p", "holdfast", "alice", "holdfast.orders", "^nothing$", "^$"]);
    doctor(lab).expect("failed", "broker-publish", &["holdfast.orders", ".alice.approval", "may not"]);

    // A queue that is gone, under a custodian that does not run: its broker's own would be the noise of another test.
    lab.kill("custodian-5");
    rabbitmqctl(lab, &["delete_queue", "-p", "holdfast", "holdfast.custodian.custodian-5.peers"]);
    let config = lab.path(&lab.custodian("custodian-5").config);
    let found = check(&config, &[]);
    found.expect("failed", "broker-queue", &["custodian-5.peers", "does not exist", "import_definitions"]);
    found.expect("ok", "broker-queue", &["custodian-5.orders", "nobody reads it now, 0 waiting"]);
    let definitions = lab.dir().join("broker/definitions.json").to_string_lossy().into_owned();
    rabbitmqctl(lab, &["import_definitions", &definitions]);

    // What waits for it goes on waiting, however often it is looked at.
    lab.approve("vault-1");
    for _ in 0..2 {
        let found = check(&config, &[]);
        found.expect("ok", "broker-queue", &["custodian-5.orders", "nobody reads it now, 1 waiting"]);
        assert_eq!(found.failures(), Vec::<String>::new());
    }
    lab.start("custodian-5");
    check(&lab.path(&lab.custodian("custodian-2").config), &[]).expect_well();
}

fn operator(lab: &mut Lab) {
    let config = lab.path(&lab.file.operator_config);
    let mine = config.with_file_name("doctor.toml");
    let trust = lab.path(&lab.file.allowed_signers);
    let with = |text: String, trust_text: String| {
        let own_trust = config.with_file_name("doctor.allowed_signers");
        fs::write(&own_trust, trust_text).expect("written");
        fs::write(&mine, text.replace("\"allowed_signers\"", "\"doctor.allowed_signers\"")).expect("written");
        let mine = mine.to_string_lossy();
        run("holdfast", &["doctor", "--json", "--config", &mine])
    };
    let text = fs::read_to_string(&config).expect("there");
    let trusted = fs::read_to_string(&trust).expect("there");
    let over = trusted.replacen("alice namespaces", "alice valid-before=\"20200101Z\",namespaces", 1);
    let found = Found::of(with(text.clone(), over));
    found.expect("failed", "own-key", &["your approvals do not count", "alice namespaces="]);
    // Its own trust root is not the custodians' any more.
    found.expect("failed", "drift-trust", &["custodian-1 has another allowed_signers", "SIGHUP"]);
    let found = Found::of(with(text.replace("[clusters.lab", "[clusters.prod"), trusted.clone()));
    found.expect("warning", "cluster-name", &["prod", "lab"]);
    let manifest = fs::read_to_string(lab.path(&lab.file.manifest)).expect("there");
    let id = holdfast_tests::messages::cluster_id(&lab.path(&lab.file.manifest));
    fs::write(config.with_file_name("doctor.manifest.json"), manifest.replace(&id, &"0".repeat(32))).expect("written");
    let found = Found::of(with(text.replace("lab.manifest.json", "doctor.manifest.json"), trusted.clone()));
    found.expect("failed", "sentinel", &["does not watch lab", "sentinel.toml"]);
    let without = text.lines().filter(|line| !line.starts_with("sentinel = ")).collect::<Vec<_>>().join("\n");
    Found::of(with(without, trusted.clone())).expect("warning", "sentinel", &["names no sentinel"]);
    // A key that all can read is refused before anything is looked at.
    let key = lab.path(&lab.file.operators[0].key);
    chmod(&key, 0o644);
    let said = with(text, trusted);
    assert_eq!(said.code, Some(REFUSED), "{said:?}");
    assert!(said.err.contains("chmod 600"), "{said:?}");
    chmod(&key, 0o600);
}

fn sealed_node(lab: &mut Lab) {
    lab.seal("vault-2");
    let found = until_some("the doctor sees the marker", || {
        let found = doctor(lab);
        let told =
            found.has("warning", "marker", &["keeps vault-2 shut", "holdfast approve --config ", "--node vault-2"]);
        (told && found.has("warning", "sentinel-node", &["sees vault-2 sealed"])).then_some(found)
    });
    found.expect("warning", "status", &["sealed now", "holdfast status --node vault-2"]);
    let config = lab.path(&lab.custodian("custodian-1").config);
    check(&config, &[]).expect(
        "warning",
        "marker",
        &["vault-2", "sealed on purpose", "holdfast approve --cluster lab --node vault-2"],
    );
    lab.approve("vault-2");
}

fn custodians(lab: &mut Lab) {
    let config = lab.path(&lab.custodian("custodian-4").config);
    let trust = config.with_file_name("allowed_signers");
    let (text, trusted) = (fs::read_to_string(&config).expect("there"), fs::read_to_string(&trust).expect("there"));
    let mut other = text.clone();
    for (from, to) in
        [("\"enforce\"", "\"off\""), ("unseals_per_hour = 100000", "unseals_per_hour = 7"), (", tls = \"direct\"", "")]
    {
        assert!(other.contains(from), "{from} is not in {other}");
        other = other.replacen(from, to, 1);
    }
    lab.kill("custodian-4");
    fs::write(&config, &other).expect("written");
    fs::write(&trust, format!("{trusted}# one more line\n")).expect("written");
    lab.start("custodian-4");
    // One of the others is killed, and falls silent within three heartbeats.
    lab.kill("custodian-5");
    let found = until_some("what has become of two custodians", || {
        let found = doctor(lab);
        let drifted = found.has("failed", "custodian-sandbox", &["custodian-4", "sandbox = \"enforce\""]);
        let silent = found.has("failed", "custodian", &["custodian-5 is silent", "systemctl"]);
        let blunt = found.has("warning", "restart", &["custodian-4", "vault-1", "tls = \"direct\""]);
        (drifted && silent && blunt).then_some(found)
    });
    found.expect("failed", "drift-policy", &["at custodian-4", "custodian.toml"]);
    found.expect("failed", "drift-trust", &["custodian-4 has another allowed_signers", "SIGHUP"]);
    found.expect("warning", "margin", &["3 ready", "margin 0"]);
    lab.kill("custodian-4");
    fs::write(&config, text).expect("written");
    fs::write(&trust, trusted).expect("written");
    lab.start("custodian-4");
    lab.start("custodian-5");
    until("the doctor finds nothing wrong again", || doctor(lab).code == Some(0));
}

fn sentinel(lab: &mut Lab) {
    lab.kill("broker");
    let found = until_some("the sentinel misses the broker", || {
        let found = doctor(lab);
        found.has("failed", "sentinel-broker", &["no connection to the broker"]).then_some(found)
    });
    found.expect("failed", "broker-reach", &["is it running?"]);
    lab.start_broker();
    lab.kill("sentinel");
    doctor(lab).expect("failed", "sentinel", &["cannot be asked", "systemctl status holdfast-sentinel"]);
    lab.start("sentinel");
}

/// Whatever it answers is shown as text: nothing of it steers the operator's terminal.
fn captured_sentinel(lab: &mut Lab) {
    let evil = "\u{1b}]0;x\u{7}\u{1b}[2J\u{9b}31m\n\u{202e}";
    let mut answer: Value =
        serde_json::from_str(&lab.read_sentinel("/api/v1/status").expect("a status")).expect("a document");
    answer["history_trouble"] = json!(format!("mended{evil}"));
    let plain = |said: &Said| !format!("{}{}", said.out, said.err).contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']);
    let said = ask_instead(lab, "doctor", &answer);
    assert!(said.out.contains("mended") && plain(&said), "{said:?}");
    answer["clusters"]["lab"]["custodians"]["custodian-1"]["heartbeat"]["version"] = json!(evil);
    let said = ask_instead(lab, "doctor", &answer);
    assert!(said.out.contains("not a sentinel's status") && plain(&said), "{said:?}");
    answer["clusters"]["lab"]["custodians"]["custodian-1"]["heartbeat"][evil] = json!(0);
    let said = ask_instead(lab, "status", &answer);
    assert!(said.err.contains("not a sentinel's status") && plain(&said), "{said:?}");
}

/// What a command says when something else answers in the sentinel's place.
fn ask_instead(lab: &Lab, command: &str, answer: &Value) -> Said {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let config = lab.path(&lab.file.operator_config);
    let other = config.with_file_name("doctor.toml");
    let text = fs::read_to_string(&config).expect("there");
    assert!(text.contains(&lab.file.sentinel.url), "{text}");
    fs::write(&other, text.replace(&lab.file.sentinel.url, &url)).expect("written");
    let body = answer.to_string();
    let thread = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("it asks");
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).expect("a request");
            asked.extend(byte);
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        client.write_all(format!("{head}{body}").as_bytes()).expect("answered");
    });
    let said = run("holdfast", &[command, "--config", &other.to_string_lossy()]);
    thread.join().expect("it answered");
    said
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its own file");
}

fn remove(home: &Home, name: &str) {
    fs::remove_file(home.path(name)).expect("removed");
}

fn cut_line(home: &Home, start: &str) {
    let text = home.read("allowed_signers");
    let line = text.lines().find(|line| line.starts_with(start)).expect("it is there");
    home.replace("allowed_signers", &format!("{line}\n"), "");
}

/// Gives a custodian these nodes and no other: name, url, whether direct, pins.
fn set_nodes(home: &Home, nodes: &[(&str, &str, bool, &[String])]) {
    let text = home.read("custodian.toml");
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with("vault-")) {
        lines.push(line.to_owned());
        if line == "[clusters.lab.nodes]" {
            lines.extend(nodes.iter().map(|(name, url, direct, pins)| {
                let direct = if *direct { ", tls = \"direct\"" } else { "" };
                format!("{name} = {{ url = \"{url}\"{direct}, spki_sha256 = {pins:?} }}")
            }));
        }
    }
    home.write("custodian.toml", lines.join("\n"));
}

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("https://").parse().expect("an address")
}

/// The lab's own rabbitmqctl.
#[track_caller]
fn rabbitmqctl(lab: &Lab, args: &[&str]) {
    let process = &lab.file.broker.as_ref().expect("a broker").process;
    let control = PathBuf::from(&process.start[0]).with_file_name("rabbitmqctl");
    let output = Command::new(control).args(args).envs(&process.env).current_dir(lab.dir()).output();
    Said::from(output.expect("rabbitmqctl runs")).well();
}

/// A balancer that knows nothing of TLS and sends each connection to the next of two servers.
struct Balancer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Balancer {
    fn start(behind: [SocketAddr; 2]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, next) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let server = TcpStream::connect(behind[next.fetch_add(1, Ordering::SeqCst) % 2]).expect("a node");
                let pair =
                    |one: &TcpStream, other: &TcpStream| (one.try_clone().expect("fd"), other.try_clone().expect("fd"));
                for (from, to) in [pair(&client, &server), pair(&server, &client)] {
                    std::thread::spawn(move || carry(from, to));
                }
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes it, so that it sees that.
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Carries bytes one way until either end closes.
fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // The other way ends with it.
    let _ = to.shutdown(Shutdown::Both);
}
