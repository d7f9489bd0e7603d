//! The program as it is run: what it refuses, what it serves, how it is reloaded and stopped, and what it survives.
//!
//! Its node is one that nobody answers for; real ones are in the repository's `tests`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use holdfast_core::ceremony::{Fingerprint, Manifest, Member};
use holdfast_core::id::ClusterId;
use holdfast_core::message::{Content, Seen};
use holdfast_core::status::Status;
use holdfast_edge::keys::SigningKey;
use holdfast_edge::outgoing::seal_message;
use serde_json::json;
use tempfile::TempDir;

/// The longest that anything here may take on a machine that does much else.
const DEADLINE: Duration = Duration::from_secs(30);

/// Lines of a log that may wait to be read: more than any of these runs writes.
const LINES_MAX: usize = 10_000;

/// A CA that issued nothing, valid for a hundred years.
const CA: &str = "-----BEGIN CERTIFICATE-----
MIIBjzCCATWgAwIBAgIUSDBPymZJ9jbEywrYWH//kONIuW4wCgYIKoZIzj0EAwIw
HDEaMBgGA1UEAwwRSG9sZGZhc3QgdGVzdHMgQ0EwIBcNMjYxMTIyMDM1NzQ1WhgP
MjEyNjEwMjkwMzU3NDVaMBwxGjAYBgNVBAMMEUhvbGRmYXN0IHRlc3RzIENBMFkw
EwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaiD5Z8FEW2MCw5XQpiITbzBwRAAvcSkc
NaRdpuBSdLiZQki97amTFUBmk63dPm4azXKf6JcK80j6cNRPV1rbD6NTMFEwHQYD
VR0OBBYEFAMCFhHxfQcii9/5P3e1VF7GBVnIMB8GA1UdIwQYMBaAFAMCFhHxfQci
i9/5P3e1VF7GBVnIMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIh
AKFURljiO6A0mdPQ8+c2++w9AiMdW3BM75k+8o/Ay1h3AiB1DTqghk7qeTniNOz9
6QCD3NW3i4CV4KgOu11xrYRK7g==
-----END CERTIFICATE-----
";

const CONFIG: &str = r#"id = "sentinel-1"
signing_key = "signing.key"
allowed_signers = "allowed_signers"
listen = "127.0.0.1:0"
database = "history.db"

[clusters.prod]
manifest = "prod.manifest.json"
ca_cert = "ca.pem"
min_unsealed = 1

[clusters.prod.nodes]
vault-1 = { url = "https://127.0.0.1:1", tls = "direct" }
"#;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        let key = SigningKey::generate().expect("random numbers");
        key.save(&folder.path("signing.key")).expect("saved");
        folder.write(
            "allowed_signers",
            &format!("sentinel-1 namespaces=\"holdfast.event\" {}\n", key.public_openssh("")),
        );
        folder.write("ca.pem", CA);
        let member = |i: u8| Member {
            id: format!("custodian-{i}").parse().expect("a name"),
            enrollment_fingerprint: Fingerprint::of(&[i]),
            // Made up, and each another one: this program encrypts to nobody.
            age_recipient: format!("age1{}", "qpzry9x8gf"[usize::from(i)..][..1].repeat(58))
                .parse()
                .expect("a recipient"),
            signing_key: SigningKey::generate().expect("random numbers").public_key().clone(),
            packet_sha256: Some([i; 32]),
        };
        let name = "prod".parse().expect("a name");
        let manifest =
            Manifest::new(name, ClusterId::from_bytes([7; 16]), 1, 2, (1..=3).map(member).collect(), Vec::new());
        let manifest = manifest.expect("a manifest").to_file();
        folder.write("prod.manifest.json", &String::from_utf8(manifest).expect("text"));
        folder.write("sentinel.toml", CONFIG);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("written");
    }

    fn command(&self, command: &str) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_holdfast-sentinel"));
        program.args([command, "--config"]).arg(self.path("sentinel.toml")).env_remove("NOTIFY_SOCKET");
        program
    }

    fn check(&self) -> Output {
        self.command("check").output().expect("it runs")
    }

    fn run(&self) -> Sentinel {
        let mut child = self.command("run").stderr(Stdio::piped()).spawn().expect("it runs");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (sender, lines) = sync_channel(LINES_MAX);
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut sentinel = Sentinel { child, lines, address: String::new() };
        let serving = sentinel.log("serving metrics and status");
        let line: serde_json::Value = serde_json::from_str(&serving).expect("JSON");
        line["address"].as_str().expect("an address").clone_into(&mut sentinel.address);
        sentinel
    }
}

struct Sentinel {
    child: Child,
    lines: Receiver<String>,
    address: String,
}

impl Sentinel {
    /// Waits for a line of the log.
    fn log(&self, part: &str) -> String {
        let limit = Instant::now() + DEADLINE;
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(limit.saturating_duration_since(Instant::now())) {
            if line.contains(part) {
                return line;
            }
            seen.push(line);
        }
        panic!("no {part:?} in the log: {seen:#?}");
    }

    fn request(&self, method: &str, path: &str) -> (String, String) {
        self.request_with(method, path, "")
    }

    fn request_with(&self, method: &str, path: &str, headers: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        (head.to_owned(), body.to_owned())
    }

    fn status(&self) -> Status {
        let (head, body) = self.request("GET", "/api/v1/status");
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("application/json"), "{head}");
        serde_json::from_str(&body).expect("a status")
    }

    fn until(&self, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
        let limit = Instant::now() + DEADLINE;
        loop {
            let status = self.status();
            if condition(&status) {
                return status;
            }
            assert!(Instant::now() < limit, "{what}: {status:?}");
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Ends it, within the two seconds that are promised.
    fn stop(mut self) {
        self.signal("-TERM");
        let began = Instant::now();
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // Ended already, where the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_sound_configuration_is_summed_up() {
    let checked = Folder::new().check();
    let shown = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert!(shown.contains("prod: 1 nodes, 3 custodians, 2 open a node"), "{shown}");
}

#[test]
fn a_wrong_configuration_is_refused_with_its_line_and_78() {
    for (from, to, part) in [
        ("database =", "databse =", "sentinel.toml:5: unknown field `databse`"),
        ("\"sentinel-1\"", "\"sentinel-2\"", "sentinel.toml:1: the signing key is sentinel-1's"),
        ("\"signing.key\"", "\"missing.key\"", "sentinel.toml:2: "),
        ("127.0.0.1:0", "0.0.0.0:9640", "sentinel.toml:4: 0.0.0.0:9640 can be reached from elsewhere"),
        ("127.0.0.1:0", "localhost", "sentinel.toml:4: \"localhost\" is not an address"),
        ("database", "tls_cert = \"ca.pem\"\ndatabase", "sentinel.toml:5: tls_cert and tls_key belong together"),
        ("min_unsealed = 1", "min_unsealed = 2", "sentinel.toml:10: is more than there are nodes"),
        ("min_unsealed = 1", "poll_interval = \"1ms\"", "sentinel.toml:10: \"1ms\" is not between"),
        (
            "min_unsealed = 1",
            "audit_accepted = { custodian-9 = \"2026-01-01T00:00:00.000Z\" }",
            "sentinel.toml:10: custodian-9 is no custodian of the manifest",
        ),
        (
            "min_unsealed = 1",
            "audit_accepted = { custodian-1 = \"2199-01-01T00:00:00.000Z\" }",
            "sentinel.toml:10: audit_accepted lies ahead",
        ),
        ("min_unsealed = 1", "audit_accepted = { custodian-1 = \"today\" }", "sentinel.toml:10: "),
        ("https:", "http:", "sentinel.toml:13: "),
        ("prod.manifest.json", "ca.pem", "sentinel.toml:8: "),
        ("\"ca.pem\"", "\"prod.manifest.json\"", "sentinel.toml:9: "),
        ("vault-1 = {", "# vault-1 = {", "sentinel.toml:12: has no node"),
        ("id =", "id = = ", "sentinel.toml:1: "),
    ] {
        let folder = Folder::new();
        folder.write("sentinel.toml", &CONFIG.replacen(from, to, 1));
        for command in ["check", "run"] {
            let refused = folder.command(command).output().expect("it runs");
            let shown = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!(refused.status.code(), Some(78), "{to}: {shown}");
            assert!(shown.contains(part), "{to}: {shown}");
        }
    }
    let folder = Folder::new();
    fs::set_permissions(folder.path("signing.key"), fs::Permissions::from_mode(0o644)).expect("a mode");
    let refused = folder.check();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("chmod 600"), "{refused:?}");
}

#[test]
fn it_serves_what_it_knows_and_nothing_can_be_written() {
    let folder = Folder::new();
    let sentinel = folder.run();
    let status = sentinel.until("seen lost", |status| {
        status.clusters.values().all(|cluster| cluster.nodes.values().all(|node| node.seen == Seen::Lost))
    });
    let (name, cluster) = status.clusters.iter().next().expect("one cluster");
    assert_eq!((name.as_str(), cluster.threshold, cluster.margin, cluster.min_unsealed), ("prod", 2, -2, 1));
    assert_eq!((status.broker_up, cluster.custodians.len(), cluster.incidents.len()), (None, 3, 1));
    let node = cluster.nodes.values().next().expect("one node");
    assert!(node.lost_because.as_ref().is_some_and(|why| why.contains("127.0.0.1:1")), "{node:?}");

    let (head, metrics) = sentinel.request("GET", "/metrics");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    for line in [
        "holdfast_vault_up{cluster=\"prod\",node=\"vault-1\"} 0",
        "holdfast_vault_unsealed_nodes{cluster=\"prod\"} 0",
        "holdfast_vault_min_unsealed_nodes{cluster=\"prod\"} 1",
        "holdfast_quorum_margin{cluster=\"prod\"} -2",
        "holdfast_custodian_up{cluster=\"prod\",custodian=\"custodian-3\"} 0",
        "holdfast_incidents_total{cluster=\"prod\",cause=\"in-place\"} 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
    assert!(!metrics.contains("holdfast_vault_sealed{"), "not known of a node that does not answer");

    assert!(sentinel.request("GET", "/healthz").0.starts_with("HTTP/1.1 200"));
    let (head, page) = sentinel.request("GET", "/");
    assert!(head.contains("content-security-policy: default-src 'none';") && head.contains("no-store"), "{head}");
    assert!(page.contains("Would <b>prod</b> open by itself now?") && page.contains("it has no broker"), "{page}");
    let tag = |head: &str| head.lines().find_map(|line| line.strip_prefix("etag: ")).expect("a digest").to_owned();
    let (limit, mut known) = (Instant::now() + DEADLINE, tag(&head));
    loop {
        let (head, rest) = sentinel.request_with("GET", "/", &format!("If-None-Match: {known}\r\n"));
        if tag(&head) == known {
            assert!(head.starts_with("HTTP/1.1 304") && rest.is_empty(), "{head}\n{rest}");
            break;
        }
        // A second passed, and it says for how long the node does not answer.
        known = tag(&head);
        assert!(Instant::now() < limit, "it is another with each look: {head}");
    }
    for (path, kind) in [("/page.css", "text/css"), ("/page.js", "text/javascript"), ("/icons/no.svg", "image/svg+xml")]
    {
        let (head, _) = sentinel.request("GET", path);
        assert!(head.starts_with("HTTP/1.1 200") && head.contains(&format!("content-type: {kind}")), "{path}: {head}");
    }
    assert!(sentinel.request("GET", "/icons/else.svg").0.starts_with("HTTP/1.1 404"));
    assert!(sentinel.request("GET", "/../signing.key").0.starts_with("HTTP/1.1 404"));
    for method in ["POST", "PUT", "DELETE"] {
        let (head, _) = sentinel.request(method, "/api/v1/status");
        assert!(head.starts_with("HTTP/1.1 405"), "{method}: {head}");
    }
    sentinel.stop();
}

#[test]
fn a_reload_takes_what_is_sound_and_refuses_the_rest() {
    let folder = Folder::new();
    let sentinel = folder.run();
    sentinel.log("sentinel started");
    folder.write("sentinel.toml", &CONFIG.replace("min_unsealed = 1", "min_unsealed = 9"));
    sentinel.signal("-HUP");
    assert!(sentinel.log("it is refused").contains("sentinel.toml:10"));
    folder.write("sentinel.toml", &CONFIG.replace("history.db", "other.db"));
    sentinel.signal("-HUP");
    assert!(sentinel.log("it is refused").contains("database cannot change"));
    folder.write("sentinel.toml", &(CONFIG.to_owned() + "vault-2 = { url = \"https://127.0.0.1:2\" }\n"));
    sentinel.signal("-HUP");
    sentinel.log("the configuration was read again");
    let status = sentinel.until("both looked at", |status| {
        status.clusters.values().all(|cluster| cluster.nodes.values().all(|node| node.seen == Seen::Lost))
    });
    assert_eq!(status.clusters.values().next().expect("one").nodes.len(), 2);
    sentinel.stop();
}

#[test]
fn the_history_outlives_the_process_and_a_damaged_one_does_not_stop_it() {
    let folder = Folder::new();
    let began = |status: &Status| status.clusters.values().next()?.incidents.first().map(|incident| incident.began_at);
    let sentinel = folder.run();
    let first = began(&sentinel.until("an incident", |status| began(status).is_some()));
    sentinel.stop();

    let sentinel = folder.run();
    assert_eq!(began(&sentinel.status()), first, "the same incident goes on");
    let mut sentinel = sentinel;
    sentinel.child.kill().expect("killed");
    sentinel.child.wait().expect("ended");

    fs::write(folder.path("history.db"), "x".repeat(8192)).expect("written");
    let sentinel = folder.run();
    let status = sentinel.until("an incident", |status| began(status).is_some());
    assert!(began(&status) != first && status.history_trouble.is_none(), "{status:?}");
    let aside = fs::read_dir(folder.0.path()).expect("a folder").filter_map(Result::ok);
    let aside = aside.filter(|entry| entry.file_name().to_string_lossy().contains(".damaged-")).count();
    assert!(aside >= 1, "moved aside, not deleted");
    sentinel.stop();

    let elsewhere = CONFIG.replace("history.db", "no/such/folder/history.db");
    folder.write("sentinel.toml", &elsewhere);
    let sentinel = folder.run();
    assert!(sentinel.status().history_trouble.is_some(), "it is told, and it runs");
    sentinel.stop();
}

/// A drill that is over, as a conductor signs it.
fn drill(id: &str, result: &str) -> String {
    let report = json!({
        "drill": id, "slot": "2026-11-24T10:00:00.000Z", "node": "vault-1", "phase": "closed", "result": result,
        "began_at": "2026-11-24T10:00:00.000Z", "closed_at": "2026-11-24T10:00:04.000Z", "recovery_us": 41_200,
        "objective_ms": 30_000, "threshold": 2,
    });
    let content = Content::DrillReport(serde_json::from_value(report).expect("a report"));
    let (key, from) = (SigningKey::generate().expect("random numbers"), "custodian-1".parse().expect("a name"));
    let at = "2026-11-24T10:00:04.000Z".parse().expect("a time");
    let signed = seal_message(&key, &from, ClusterId::from_bytes([7; 16]), content, at, None);
    String::from_utf8(signed.expect("signed").1).expect("text")
}

#[test]
fn drills_are_handed_out_as_they_were_signed_and_outlive_the_process() {
    let folder = Folder::new();
    let sentinel = folder.run();
    sentinel.log("sentinel started");
    sentinel.stop();
    let (first, second) = ("01".repeat(16), "02".repeat(16));
    let envelope = drill(&first, "passed");
    let database = rusqlite::Connection::open(folder.path("history.db")).expect("opened");
    for (id, signed) in [(&first, envelope.clone()), (&second, drill(&second, "late"))] {
        let insert =
            "INSERT INTO drills (cluster, drill, conductor, node, result, seen, recovery_us, heard_at, envelope)
                      VALUES (?1, ?2, 'custodian-1', 'vault-1', 'passed', 1, 41200, 1795514404000, ?3)";
        database.execute(insert, rusqlite::params!["07".repeat(16), id, signed]).expect("written");
    }
    drop(database);
    let sentinel = folder.run();
    let drills = sentinel.status().clusters.into_values().next().expect("one").drills;
    let known: Vec<_> = drills.iter().map(|drill| drill.report.drill.to_string()).collect();
    assert_eq!(known, [second.clone(), first.clone()], "the newest first");
    let metrics = sentinel.request("GET", "/metrics").1;
    for line in [
        "holdfast_drill_last_success_timestamp_seconds{cluster=\"prod\"} 1795514404",
        "holdfast_drill_last_duration_seconds{cluster=\"prod\",node=\"vault-1\"} 0.0412",
        "holdfast_drill_runs_total{cluster=\"prod\",result=\"passed\"} 0",
    ] {
        assert!(metrics.lines().any(|known| known == line), "{line} in {metrics}");
    }

    let ask = |path: &str, code: &str| {
        let (head, body) = sentinel.request("GET", path);
        assert!(head.starts_with(&format!("HTTP/1.1 {code}")), "{path}: {head}\n{body}");
        for header in ["content-security-policy: default-src 'none'", "nosniff", "no-store"] {
            assert!(head.contains(header), "{path}: {head}");
        }
        body
    };
    let json = |path: &str| serde_json::from_str::<serde_json::Value>(&ask(path, "200")).expect("JSON");
    let by_id = format!("/api/v1/drills?cluster={}", "07".repeat(16));
    for path in ["/api/v1/drills", "/api/v1/drills?cluster=prod", &by_id] {
        assert_eq!(json(path)["drills"].as_array().map(Vec::len), Some(2), "{path}");
    }
    let listed = json("/api/v1/drills?cluster=prod&limit=1");
    assert_eq!(listed["drills"][0]["report"]["drill"], json!(second));
    let one = json(&format!("/api/v1/drills/{first}"));
    assert_eq!((&one["envelope"], &one["conductor"]), (&json!(envelope), &json!("custodian-1")));
    assert_eq!(one["report"]["result"], json!("passed"));
    for (path, code, why) in [
        (format!("/api/v1/drills/{}", "03".repeat(16)), "404", "no such drill"),
        ("/api/v1/drills/..%2f..%2fsigning.key".to_owned(), "400", "hexadecimal"),
        ("/api/v1/drills?cluster=test".to_owned(), "400", "no such cluster"),
        ("/api/v1/drills?limit=101".to_owned(), "400", "1 to 100"),
        ("/api/v1/drills?cluster=prod'%20OR%201".to_owned(), "400", "cluster=NAME"),
    ] {
        assert!(ask(&path, code).contains(why), "{path}");
    }
    for method in ["POST", "PUT", "DELETE"] {
        let (head, _) = sentinel.request(method, &format!("/api/v1/drills/{first}"));
        assert!(head.starts_with("HTTP/1.1 405"), "{method}: {head}");
    }
    sentinel.stop();

    folder.write("sentinel.toml", &CONFIG.replace("database = \"history.db\"\n", ""));
    let sentinel = folder.run();
    let (head, why) = sentinel.request("GET", "/api/v1/drills");
    assert!(head.starts_with("HTTP/1.1 404") && why.contains("names no database"), "{head}\n{why}");
    sentinel.stop();
}
