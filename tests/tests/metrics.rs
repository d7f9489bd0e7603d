//! The custodians' own metrics, on a real network: in a file, at the real Pushgateway of the distribution with TLS and a password,
//! from inside the sandbox; and a Pushgateway that is dead or hangs keeps no node shut.

#![expect(clippy::print_stdout, reason = "what a test measured is read where it ran")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use holdfast_tests::lab::Lab;
use holdfast_tests::processes::{self, Signal};
use holdfast_tests::programs::{Said, run};
use holdfast_tests::tls::Authority;
use holdfast_tests::wait::until;
use serde_json::Value;

/// How often a node is crashed beside a Pushgateway in trouble.
const CRASHES: usize = 3;

/// The Pushgateway's only user, whose password is "open sesame".
const USERS: &str = "basic_auth_users:\n  holdfast: $2b$04$A4RvV1.2P5KOniP5OFVA/u2T.bcrD.VdeXjutB3ZpTPC8/k2Ylwv2\n";

/// A Pushgateway. Ends with the value.
struct Gateway {
    folder: tempfile::TempDir,
    port: u16,
    server: Child,
}

impl Gateway {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new("the Pushgateway's CA");
        let certified = authority.issue(&["localhost", "127.0.0.1"]);
        let web = format!("tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n{USERS}");
        for (name, content) in [
            ("ca.pem", authority.pem()),
            ("server.pem", &certified.pem.0),
            ("server.key", &certified.pem.1),
            ("web.yml", &web),
            ("password", "open sesame\n"),
        ] {
            fs::write(folder.path().join(name), content).expect("written");
        }
        fs::set_permissions(folder.path().join("password"), fs::Permissions::from_mode(0o600)).expect("a mode");
        fs::create_dir(folder.path().join("metrics")).expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
        let server = Self::spawn(folder.path().join("web.yml"), port);
        let gateway = Self { folder, port, server };
        until("the Pushgateway answers", || gateway.curl("/-/ready").code == Some(0));
        gateway
    }

    fn spawn(web: PathBuf, port: u16) -> Child {
        let mut command = Command::new("prometheus-pushgateway");
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.arg(format!("--web.config.file={}", web.display())).arg("--persistence.file=");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("prometheus-pushgateway: tests/run installs it")
    }

    fn kill(&mut self) {
        self.server.kill().expect("it runs");
        self.server.wait().expect("it ends");
    }

    fn start_again(&mut self) {
        self.server = Self::spawn(self.path("web.yml"), self.port);
        until("the Pushgateway answers", || self.curl("/-/ready").code == Some(0));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn curl(&self, path: &str) -> Said {
        let (ca, url) = (self.path("ca.pem"), format!("https://localhost:{}{path}", self.port));
        let mut command = Command::new("curl");
        command.args(["-fsS", "--noproxy", "*", "--max-time", "5", "-u", "holdfast:open sesame", "--cacert"]);
        command.arg(ca).arg(url).stdin(Stdio::null()).output().expect("curl").into()
    }

    /// The value of a series that a custodian pushed, whose labels begin so.
    fn pushed(&self, custodian: &str, series: &str) -> Option<f64> {
        let page = self.curl("/metrics").out;
        let of_it = format!("instance=\"{custodian}\",job=\"holdfast-custodian\"");
        let named = |line: &&str| line.split(['{', ' ']).next() == Some(series) && line.contains(&of_it);
        page.lines().find(named).and_then(|line| line.rsplit(' ').next()?.parse().ok())
    }

    /// When a custodian last pushed, by the Pushgateway's clock.
    fn pushed_at(&self, custodian: &str) -> f64 {
        self.pushed(custodian, "push_time_seconds").unwrap_or_default()
    }

    /// What a custodian is to be configured with.
    fn section(&self, custodian: &str) -> String {
        format!(
            "[metrics]\npushgateway = \"https://localhost:{}\"\nca_cert = \"push-ca.pem\"\nusername = \"holdfast\"\n\
             password_file = \"push.password\"\ntextfile = \"{}\"\ninterval = \"1s\"\n\n[broker]",
            self.port,
            self.path("metrics").join(custodian).with_extension("prom").display(),
        )
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn custodians_tell_of_themselves() {
    let mut lab = Lab::up(&[]);
    let mut gateway = Gateway::start();
    lab.scenario("configured", |lab| configured(lab, &gateway));
    lab.scenario("pushed and written", |lab| pushed_and_written(lab, &gateway));
    lab.scenario("a Pushgateway that hangs", |lab| a_gateway_that_hangs(lab, &gateway));
    lab.scenario("a Pushgateway that is dead", |lab| a_gateway_that_is_dead(lab, &mut gateway));
}

fn check(lab: &Lab, custodian: &str) -> Vec<(String, String, String)> {
    let config = lab.path(&lab.custodian(custodian).config).to_string_lossy().into_owned();
    let said = run("holdfast-custodian", &["check", "--json", "--config", &config]);
    let document: Value = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let findings = document["findings"].as_array().expect("findings").iter();
    let findings =
        findings.filter(|finding| finding["check"].as_str().is_some_and(|check| check.starts_with("metrics")));
    findings.map(|finding| (text(finding, "check"), text(finding, "grade"), text(finding, "what"))).collect()
}

fn log_of(lab: &Lab, custodian: &str) -> String {
    fs::read_to_string(lab.path(&lab.custodian(custodian).process.log)).expect("its log")
}

fn configured(lab: &mut Lab, gateway: &Gateway) {
    for custodian in lab.custodians() {
        lab.edit(&custodian, "[broker]", &gateway.section(&custodian));
        let beside = lab.path(&lab.custodian(&custodian).config);
        fs::copy(gateway.path("ca.pem"), beside.with_file_name("push-ca.pem")).expect("copied");
        fs::copy(gateway.path("password"), beside.with_file_name("push.password")).expect("copied");
    }
    // A sandbox that is in force is not widened, whatever the configuration says now.
    lab.signal("custodian-1", Signal::HUP);
    until("the reload is refused", || log_of(lab, "custodian-1").contains("does not let port"));
    let grades = check(lab, "custodian-1");
    let ok = |check: &str| grades.iter().any(|(word, grade, _)| word == check && grade == "ok");
    assert!(ok("metrics-file") && ok("metrics-pushgateway"), "{grades:?}");

    let password = lab.path(&lab.custodian("custodian-1").config).with_file_name("push.password");
    fs::write(&password, "close sesame\n").expect("written");
    let grades = check(lab, "custodian-1");
    fs::write(&password, "open sesame\n").expect("written");
    let refused = grades.iter().find(|(word, ..)| word == "metrics-pushgateway").expect("it is looked at");
    assert!(refused.1 == "failed" && refused.2.contains("401"), "{refused:?}");
    for custodian in lab.custodians() {
        lab.restart(&custodian);
    }
}

fn pushed_and_written(lab: &mut Lab, gateway: &Gateway) {
    for custodian in lab.custodians() {
        let is = |series: &str| gateway.pushed(&custodian, series) == Some(1.0);
        until(&format!("{custodian} pushes"), || is("holdfast_custodian_sandboxed") && is("holdfast_custodian_ready"));
        assert!(is("holdfast_broker_up") && is("holdfast_custodian_share_ok") && is("holdfast_custodian_audit_ok"));
        let first = gateway.pushed_at(&custodian);
        until("it pushes again", || gateway.pushed_at(&custodian) > first);
    }
    let file = gateway.path("metrics/custodian-1.prom");
    let text = fs::read_to_string(&file).expect("written");
    assert!(text.contains("holdfast_custodian_sandboxed{cluster=\"lab\",custodian=\"custodian-1\"} 1\n"), "{text}");
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o644, "node_exporter reads it");
    // A hold is seen there as well.
    let said = lab.holdfast(&["hold", "--json", "--node", "vault-3"]).well();
    let done: Value = serde_json::from_str(&said.out).expect("JSON");
    let id = done["id"].as_str().expect("an id").to_owned();
    let holds = |gateway: &Gateway| {
        let page = gateway.curl("/metrics").out;
        let held = |line: &&str| line.starts_with("holdfast_holds{") && line.contains("node=\"vault-3\"");
        page.lines().filter(held).filter(|line| line.ends_with(" 1")).count()
    };
    until("all five tell of the hold", || holds(gateway) == 5);
    lab.holdfast(&["release", "--json", "--hold", &id]).well();
    lab.holdfast_as("bob", &["release", "--json", "--hold", &id]).well();
    until("and of its end", || holds(gateway) == 0);
    // No secret goes there.
    let page = gateway.curl("/metrics").out;
    assert!(!page.contains("sesame"), "{page}");
}

/// It takes connections and never answers: what a stopped process does.
fn a_gateway_that_hangs(lab: &mut Lab, gateway: &Gateway) {
    processes::signal(gateway.server.id(), Signal::STOP);
    for custodian in lab.custodians() {
        until("it has given up once", || told(lab, &custodian, "cannot be told", "no answer within") == 1);
    }
    crash(lab);
    processes::signal(gateway.server.id(), Signal::CONT);
    tell_again(lab, gateway, 1);
    for custodian in lab.custodians() {
        assert_eq!(told(lab, &custodian, "cannot be told", "no answer within"), 1, "{custodian} says it once");
    }
}

fn a_gateway_that_is_dead(lab: &mut Lab, gateway: &mut Gateway) {
    gateway.kill();
    for custodian in lab.custodians() {
        until("it has failed once", || told(lab, &custodian, "cannot be told", "refused") == 1);
    }
    crash(lab);
    gateway.start_again();
    tell_again(lab, gateway, 2);
}

fn crash(lab: &mut Lab) {
    let nodes = lab.nodes();
    let took = nodes.iter().cycle().take(CRASHES).map(|node| {
        lab.crash(node).unwrap_or_else(|sealed| panic!("{node} stays shut beside a Pushgateway in trouble: {sealed}"))
    });
    let took: Vec<_> = took.map(|opened| opened.as_millis()).collect();
    println!("        open after {took:?} ms");
}

/// Everybody pushes again, and has said so as often.
fn tell_again(lab: &Lab, gateway: &Gateway, times: usize) {
    for custodian in lab.custodians() {
        until("it says that it is over", || told(lab, &custodian, "are told again", "failures") == times);
        until("it pushes again", || gateway.pushed(&custodian, "holdfast_custodian_sandboxed") == Some(1.0));
    }
}

/// How many lines of a custodian's log say this, with these words.
fn told(lab: &Lab, custodian: &str, what: &str, with: &str) -> usize {
    log_of(lab, custodian).lines().filter(|line| line.contains(what) && line.contains(with)).count()
}
