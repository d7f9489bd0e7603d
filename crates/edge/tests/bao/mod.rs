//! One real OpenBao server of a test's own: TLS, raft, a folder and a port that end with it.

#![allow(dead_code, reason = "included by several test programs, each of which uses a part")]

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{interval, timeout};

/// The longest wait for something that must happen. A busy machine starts a server in seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The server. Killed when dropped.
pub(crate) struct Bao {
    folder: TempDir,
    child: Option<Child>,
    pub(crate) url: String,
    pub(crate) ca_pem: String,
    http: reqwest::Client,
    pub(crate) root_token: String,
}

impl Bao {
    /// A fresh server that answers and is not initialised.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (api, cluster) = (free_port(), free_port());
        let mut ca = CertificateParams::new(Vec::new()).expect("no names");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().expect("a key");
        let ca_pem = ca.self_signed(&ca_key).expect("a certificate").pem();
        let issuer = Issuer::new(ca, ca_key);
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = KeyPair::generate().expect("a key");
        let certificate =
            CertificateParams::new(names).expect("names").signed_by(&key, &issuer).expect("a certificate");
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("data")).expect("a folder");
        std::fs::write(path("cert.pem"), certificate.pem()).expect("written");
        std::fs::write(path("key.pem"), key.serialize_pem()).expect("written");
        let config = json!({
            "storage": {"raft": {"path": path("data"), "node_id": "vault-1"}},
            "listener": {"tcp": {
                "address": format!("127.0.0.1:{api}"),
                "cluster_address": format!("127.0.0.1:{cluster}"),
                "tls_cert_file": path("cert.pem"),
                "tls_key_file": path("key.pem"),
            }},
            "api_addr": format!("https://127.0.0.1:{api}"),
            "cluster_addr": format!("https://127.0.0.1:{cluster}"),
        });
        std::fs::write(path("config.json"), config.to_string()).expect("written");
        holdfast_edge::tls::install_provider();
        let tls = holdfast_edge::tls::client_config(ca_pem.as_bytes(), &[]).expect("a CA");
        let http = reqwest::Client::builder().no_proxy().https_only(true).tls_backend_preconfigured(tls);
        let http = http.timeout(PATIENCE).build().expect("settings");
        let url = format!("https://127.0.0.1:{api}");
        let mut bao = Self { folder, child: None, url, ca_pem, http, root_token: String::new() };
        bao.restart().await;
        bao
    }

    /// Starts the server's process again, after [`Bao::kill`], and waits until it answers.
    pub(crate) async fn restart(&mut self) {
        let log = File::create(self.folder.path().join("log")).expect("a log");
        let config = self.folder.path().join("config.json");
        let mut command = Command::new(binary());
        command.arg("server").arg("-config").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child =
            Some(command.spawn().expect("OpenBao starts; `tests/run` installs it, or name it in HOLDFAST_BAO"));
        let mut tick = interval(Duration::from_millis(20));
        let answers = async {
            while self.http.get(format!("{}/v1/sys/seal-status", self.url)).send().await.is_err() {
                tick.tick().await;
            }
        };
        timeout(PATIENCE, answers).await.unwrap_or_else(|_| panic!("no answer; its log: {}", self.log()));
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it ran");
            child.wait().expect("it ended");
        }
    }

    /// `kill -STOP` or `-CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    /// Initialises it. The shares, in hexadecimal.
    pub(crate) async fn init(&mut self, shares: u8, threshold: u8) -> Vec<String> {
        let answer = self.put("sys/init", json!({"secret_shares": shares, "secret_threshold": threshold})).await;
        self.root_token = answer["root_token"].as_str().expect("a token").to_owned();
        let keys = answer["keys"].as_array().expect("keys");
        keys.iter().map(|key| key.as_str().expect("text").to_owned()).collect()
    }

    /// Opens it with these shares, by the API alone.
    pub(crate) async fn unseal(&self, shares: &[String]) {
        for share in shares {
            self.put("sys/unseal", json!({"key": share})).await;
        }
    }

    /// Seals it, and waits until it is done. A node that has just been opened refuses until it leads.
    pub(crate) async fn seal(&self) {
        let mut tick = interval(Duration::from_millis(20));
        let sealed = async {
            while self.try_put("sys/seal", json!({})).await.0 != 204 {
                tick.tick().await;
            }
        };
        timeout(PATIENCE, sealed).await.expect("it can be sealed");
    }

    async fn put(&self, path: &str, body: Value) -> Value {
        let (code, answer) = self.try_put(path, body).await;
        assert!(code < 300, "{path}: {code}");
        serde_json::from_str(&answer).expect("JSON")
    }

    async fn try_put(&self, path: &str, body: Value) -> (u16, String) {
        let request = self.http.put(format!("{}/v1/{path}", self.url)).header("x-vault-token", &self.root_token);
        let answer = request.json(&body).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Bao {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `HOLDFAST_BAO`, or `.tools/bao/bin/bao` in a folder above, or `bao` in the path.
fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("HOLDFAST_BAO") {
        return named.into();
    }
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let installed = here.ancestors().map(|folder| folder.join(".tools/bao/bin/bao")).find(|path| path.is_file());
    installed.unwrap_or_else(|| "bao".into())
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}
