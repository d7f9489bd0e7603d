//! One OpenBao of a benchmark's own, on raft with TLS like the lab's, whose shares lie in clear with whoever opens it: what
//! the floor and the pollers are measured on. It knows nothing of Holdfast.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::programs::repository;
use crate::tls::Authority;
use crate::vault::Eyes;
use crate::wait::until;

/// How many shares it has: as many as the lab's.
pub const SHARES: u8 = 5;

/// How many open it.
pub const THRESHOLD: u8 = 3;

/// Where the tests' installer puts OpenBao, and the variable that names another.
const INSTALLED: &str = ".tools/bao/bin/bao";
const VARIABLE: &str = "HOLDFAST_BAO";

/// A server. Ends with the value.
#[derive(Debug)]
pub struct Server {
    /// Its address.
    pub url: String,
    /// As many shares as open it, in hexadecimal.
    pub shares: Vec<String>,
    folder: TempDir,
    child: Child,
}

impl Server {
    /// Starts one, initialises it, and opens it for the first time.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (port, cluster_port) = two_free_ports();
        let url = format!("https://127.0.0.1:{port}");
        let authority = Authority::new("benchmark");
        let (certificate, key) = authority.issue(&["localhost", "127.0.0.1"]).pem;
        let home = folder.path();
        fs::create_dir(home.join("data")).expect("made");
        for (name, content) in [("ca.pem", authority.pem()), ("tls.pem", &certificate), ("tls.key", &key)] {
            fs::write(home.join(name), content).expect("written");
        }
        fs::write(home.join("config.hcl"), configuration(&home.to_string_lossy(), port, cluster_port))
            .expect("written");
        let child = spawn(&folder);
        let mut server = Self { url, shares: Vec::new(), folder, child };
        let eyes = server.eyes();
        until("the server answers", || eyes.look(&server.url).is_some());
        server.shares = eyes.initialise(&server.url, SHARES, THRESHOLD);
        server.shares.truncate(usize::from(THRESHOLD));
        until("the server opens", || {
            for share in &server.shares {
                eyes.submit(&server.url, share);
            }
            eyes.is_open(&server.url)
        });
        server
    }

    /// New eyes that know it.
    pub fn eyes(&self) -> Eyes {
        Eyes::new(&self.ca_file())
    }

    /// The CA of its certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// `kill -9`, and a start.
    pub fn crash(&mut self) {
        self.end();
        self.child = spawn(&self.folder);
    }

    fn end(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ended already, or ends now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &TempDir) -> Child {
    let log = fs::File::options().create(true).append(true).open(folder.path().join("log")).expect("a log");
    let mut command = Command::new(program());
    command.args(["server", "-config"]).arg(folder.path().join("config.hcl")).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("OpenBao starts")
}

/// Where the lab finds it, too.
fn program() -> PathBuf {
    let named = std::env::var_os(VARIABLE).map(PathBuf::from);
    named.unwrap_or_else(|| repository().join(INSTALLED))
}

fn two_free_ports() -> (u16, u16) {
    let hold = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (one, other) = (hold(), hold());
    let port = |listener: &TcpListener| listener.local_addr().expect("bound").port();
    (port(&one), port(&other))
}

fn configuration(home: &str, port: u16, cluster_port: u16) -> String {
    format!(
        r#"api_addr = "https://127.0.0.1:{port}"
cluster_addr = "https://127.0.0.1:{cluster_port}"
log_level = "info"
ui = false

listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster_port}"
  tls_cert_file = "{home}/tls.pem"
  tls_key_file = "{home}/tls.key"
}}

storage "raft" {{
  path = "{home}/data"
  node_id = "vault-1"
  performance_multiplier = 1
}}
"#
    )
}
