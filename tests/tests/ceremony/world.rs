//! What a ceremony needs around it: programs, hosts, a Vault, somebody's OpenPGP key.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use holdfast_tests::programs::bao;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// How long a server may take to start.
const START_WITHIN: Duration = Duration::from_secs(60);

/// What a command did.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    /// Runs something to its end, which is given this and nothing more.
    pub(crate) fn of(command: &mut Command, input: &[u8]) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it can be started");
        // Whoever is not asked for anything may have ended.
        let _ = child.stdin.take().expect("piped").write_all(input);
        Self::from(child.wait_with_output().expect("it ends"))
    }

    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it ended by itself"),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// That it was done.
    pub(crate) fn well(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self
    }

    /// That it was done: what it said, as JSON.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.err);
        serde_json::from_str(&self.out).expect("--json prints JSON")
    }

    /// That it was refused with this code, in words of which these are a part.
    pub(crate) fn refused(&self, code: i32, words: &str) {
        assert!(
            self.code == code && self.err.contains(words),
            "{code} and {words:?}, not {} and: {}",
            self.code,
            self.err
        );
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }
}

/// Where one of the built programs is.
pub(crate) fn program(name: &str) -> PathBuf {
    holdfast_tests::programs::program(name)
}

/// Runs one of the built programs; nobody is at its terminal.
pub(crate) fn run(name: &str, args: &[&str]) -> Done {
    Done::of(Command::new(program(name)).args(args), b"")
}

pub(crate) fn setup(args: &[&str]) -> Done {
    run("holdfast-setup", args)
}

pub(crate) fn holdfast(args: &[&str]) -> Done {
    run("holdfast", args)
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("the tests' paths are text")
}

/// A custodian's host: a folder with its keys.
pub(crate) struct Host {
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    pub(crate) fingerprint: String,
}

impl Host {
    pub(crate) fn enroll(below: &Path, number: usize) -> Self {
        let id = format!("custodian-{number}");
        let dir = below.join(&id);
        let report = setup(&["enroll", "--id", &id, "--dir", text(&dir), "--json"]).json();
        let fingerprint = report["fingerprint"].as_str().expect("a fingerprint").to_owned();
        Self { id, dir, fingerprint }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The fingerprint of the enrollment that is there now.
    pub(crate) fn enrollment_fingerprint(&self) -> String {
        let file: Value =
            serde_json::from_slice(&fs::read(self.file("enrollment.json")).expect("there")).expect("JSON");
        fingerprint(&unbase64(file["body"].as_str().expect("a body")))
    }

    pub(crate) fn enrollment(&self) -> String {
        text(&self.file("enrollment.json")).to_owned()
    }

    /// Installs a packet that was sent to the host, which is gone afterwards, and keeps the transport key. Nobody compares.
    pub(crate) fn install(&self, packet: &Path, manifest: &Path) -> Done {
        let sent = self.file("sent.packet.json");
        let _ = fs::copy(packet, &sent);
        self.setup("install", &["--packet", text(&sent), "--manifest", text(manifest), "--keep-transport-key", "--yes"])
    }

    /// Runs a command of `holdfast-setup` on the host.
    pub(crate) fn setup(&self, command: &str, args: &[&str]) -> Done {
        setup(&[&[command, "--dir", text(&self.dir), "--json"], args].concat())
    }

    /// Signs with the host's own key, as anybody could who has it: an envelope of any body.
    pub(crate) fn sign(&self, body: &str) -> String {
        let message = self.file("forged-body");
        fs::write(&message, body).expect("written");
        let key = self.file("signing.key");
        let _ = fs::remove_file(self.file("forged-body.sig"));
        let args = ["-Y", "sign", "-q", "-n", "holdfast.enrollment", "-f", text(&key), text(&message)];
        assert!(Command::new("ssh-keygen").args(args).stderr(Stdio::null()).status().expect("it runs").success());
        let signature = fs::read_to_string(self.file("forged-body.sig")).expect("signed");
        serde_json::json!({ "body": base64(body.as_bytes()), "signature": signature }).to_string()
    }

    /// The body of the host's enrollment.
    pub(crate) fn body(&self) -> String {
        let file = fs::read(self.file("enrollment.json")).expect("enrolled");
        let envelope: Value = serde_json::from_slice(&file).expect("JSON");
        String::from_utf8(unbase64(envelope["body"].as_str().expect("a body"))).expect("text")
    }
}

/// What people compare by voice: 100 bits of a SHA-256, in base32.
pub(crate) fn fingerprint(bytes: &[u8]) -> String {
    let bits: String = Sha256::digest(bytes)[..13].iter().map(|byte| format!("{byte:08b}")).collect();
    let digit = |five: &[u8]| {
        let value = usize::from_str_radix(std::str::from_utf8(five).expect("digits"), 2).expect("binary");
        char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[value])
    };
    let digits: Vec<char> = bits.as_bytes()[..100].chunks(5).map(digit).collect();
    digits.chunks(4).map(|four| four.iter().collect::<String>()).collect::<Vec<_>>().join("-")
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

pub(crate) fn unbase64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.decode(text).expect("base64")
}

/// A home of gpg's own, whose agent ends with it.
pub(crate) struct Gpg(tempfile::TempDir);

impl Gpg {
    pub(crate) fn new() -> Self {
        // Directly below the system's folder: the path of gpg's socket may not be long.
        Self(tempfile::Builder::new().prefix("gpg").tempdir().expect("a folder"))
    }

    pub(crate) fn run(&self, args: &[&str]) -> Vec<u8> {
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(self.0.path()).args(["--batch", "--quiet", "--pinentry-mode", "loopback"]);
        let output = command.args(["--passphrase", ""]).args(args).output().expect("gpg is installed");
        assert!(output.status.success(), "gpg {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Makes a key and exports its public half.
    pub(crate) fn key(&self, name: &str, algorithm: &str, usage: &str, file: &Path, armor: bool) {
        self.run(&["--quick-generate-key", name, algorithm, usage, "never"]);
        self.export(name, file, armor);
    }

    pub(crate) fn export(&self, name: &str, file: &Path, armor: bool) {
        let armor: &[&str] = if armor { &["--armor"] } else { &[] };
        fs::write(file, self.run(&[armor, &["--export", name]].concat())).expect("written");
    }

    pub(crate) fn decrypt(&self, message: &[u8]) -> Vec<u8> {
        let file = self.0.path().join("message.pgp");
        fs::write(&file, message).expect("written");
        self.run(&["--decrypt", text(&file)])
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").arg("--homedir").arg(self.0.path()).args(["--kill", "all"]).status();
    }
}

/// A CA, and a certificate of it for 127.0.0.1.
pub(crate) fn certificates(dir: &Path) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "a ceremony's CA");
    let ca_key = KeyPair::generate().expect("a key");
    let ca = params.self_signed(&ca_key).expect("a certificate");
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().expect("an address"))];
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    fs::write(dir.join("ca.pem"), ca.pem()).expect("written");
    fs::write(dir.join("tls.pem"), certificate.pem()).expect("written");
    fs::write(dir.join("tls.key"), key.serialize_pem()).expect("written");
}

/// An OpenBao of its own, with nothing in it.
pub(crate) struct Vault {
    dir: PathBuf,
    process: Child,
    pub(crate) url: String,
    pub(crate) ca: PathBuf,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Vault {
    /// One node of raft, as it would be in earnest.
    pub(crate) fn start(dir: &Path) -> Self {
        Self::with_storage(
            dir,
            &format!("storage \"raft\" {{ path = \"{}/data\"\n node_id = \"vault-1\" }}", dir.display()),
        )
    }

    /// One that keeps nothing on a disk: it starts at once, and forgets everything when it ends.
    pub(crate) fn in_memory(dir: &Path) -> Self {
        Self::with_storage(dir, "storage \"inmem\" {}")
    }

    fn with_storage(dir: &Path, storage: &str) -> Self {
        fs::create_dir_all(dir.join("data")).expect("a folder");
        certificates(dir);
        // Both at once, so that they differ.
        let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let [port, cluster] = ports.map(|listener| listener.local_addr().expect("bound").port());
        let config = format!(
            "api_addr = \"https://127.0.0.1:{port}\"\ncluster_addr = \"https://127.0.0.1:{cluster}\"\n\
             disable_mlock = true\nlistener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n\
             \x20 tls_cert_file = \"{dir}/tls.pem\"\n  tls_key_file = \"{dir}/tls.key\"\n}}\n{storage}\n",
            dir = dir.display()
        );
        fs::write(dir.join("config.hcl"), config).expect("written");
        let ca = dir.join("ca.pem");
        let client = client(&ca);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let process = serve(dir);
        Self { dir: dir.to_owned(), process, url: format!("https://127.0.0.1:{port}"), ca, client, runtime }
    }

    /// `kill -9`, and a start.
    pub(crate) fn crash(&mut self) {
        self.stop();
        self.process = serve(&self.dir);
    }

    /// `kill -9`, and nothing after it.
    pub(crate) fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// The server's own tool, with a token.
    pub(crate) fn tool(&self, args: &[&str], token: &str, input: &[u8]) -> Done {
        let mut command = Command::new(bao());
        command.args(args).env("BAO_ADDR", &self.url).env("BAO_CACERT", &self.ca).env("BAO_TOKEN", token);
        Done::of(&mut command, input)
    }

    /// Initialises it as people did before there were custodians: plain shares, hexadecimal, and the root token.
    pub(crate) fn initialise(&self, shares: u8, threshold: u8) -> (Vec<String>, String) {
        let body = serde_json::json!({ "secret_shares": shares, "secret_threshold": threshold });
        let answer = self.answer(self.client.put(format!("{}/v1/sys/init", self.url)).json(&body));
        let shares = answer["keys"].as_array().expect("shares").iter();
        let shares: Vec<String> = shares.map(|share| share.as_str().expect("text").to_owned()).collect();
        for share in &shares[..usize::from(threshold)] {
            self.unseal(share);
        }
        until("the new Vault serves", || self.get("sys/health", None)["standby"] == false);
        (shares, answer["root_token"].as_str().expect("a token").to_owned())
    }

    /// Stops it, removes its storage, and starts it again: what people do with a Vault whose shares are lost.
    pub(crate) fn wipe(&mut self) {
        self.stop();
        fs::remove_dir_all(self.dir.join("data")).expect("removed");
        fs::create_dir(self.dir.join("data")).expect("made");
        self.process = serve(&self.dir);
    }

    pub(crate) fn get(&self, path: &str, token: Option<&str>) -> Value {
        let mut request = self.client.get(format!("{}/v1/{path}", self.url));
        if let Some(token) = token {
            request = request.header("X-Vault-Token", token);
        }
        self.answer(request)
    }

    pub(crate) fn unseal(&self, share: &str) -> Value {
        let body = serde_json::json!({ "key": share });
        self.answer(self.client.put(format!("{}/v1/sys/unseal", self.url)).json(&body))
    }

    fn answer(&self, request: reqwest::RequestBuilder) -> Value {
        self.runtime.block_on(async { request.send().await.expect("it answers").json().await.expect("JSON") })
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts the server that is configured there, and waits until it says that it has started.
fn serve(dir: &Path) -> Child {
    let mut command = Command::new(bao());
    command.args(["server", "-config"]).arg(dir.join("config.hcl"));
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("OpenBao starts");
    // It says it once.
    let (started, wait) = mpsc::sync_channel(1);
    let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
    std::thread::spawn(move || {
        // To the end, so that it never waits for a reader.
        for line in lines.map_while(Result::ok).filter(|line| line.contains("server started")) {
            let _ = started.try_send(line);
        }
    });
    wait.recv_timeout(START_WITHIN).expect("OpenBao says that it has started");
    process
}

fn client(ca: &Path) -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ca = reqwest::Certificate::from_pem(&fs::read(ca).expect("there")).expect("a certificate");
    reqwest::Client::builder().tls_certs_only([ca]).no_proxy().pool_max_idle_per_host(0).build().expect("a client")
}

/// A Vault that must not be asked: whoever connects is noted.
pub(crate) struct Untouched(TcpListener);

impl Untouched {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("set");
        Self(listener)
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.0.local_addr().expect("bound"))
    }

    pub(crate) fn assert_untouched(&self) {
        assert!(self.0.accept().is_err(), "somebody connected");
    }
}

/// Waits for something to be seen.
pub(crate) fn until(what: &str, mut seen: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + START_WITHIN;
    while !seen() {
        assert!(std::time::Instant::now() < deadline, "never seen: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
