//! A server of somebody else's that speaks HTTP: in a folder and at a port of its own, and ended whatever becomes of the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use reqwest::Client;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::processes::listening_port;
use crate::tls;
use crate::wait::{PATIENCE, until_some};

/// The server. Ends with the value.
#[derive(Debug)]
pub struct Server {
    child: Child,
    url: String,
    log: PathBuf,
    runtime: Runtime,
    client: Client,
    // What it writes, and nobody's before.
    folder: TempDir,
}

impl Server {
    /// Starts a program that was told to listen on port 0, and waits until it says at `ready` that it is. What it says itself goes
    /// into a file of the folder.
    pub fn start(program: &str, folder: TempDir, args: &[&str], ready: &str) -> Self {
        assert!(Path::new(program).exists(), "{program} is missing: tests/run installs it, from Debian");
        let log = folder.path().join("log");
        let file = fs::File::create(&log).expect("a log");
        let mut command = Command::new(program);
        command.args(args).current_dir(folder.path()).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("a log")).stderr(file);
        let child = command.spawn().unwrap_or_else(|e| panic!("{program}: {e}"));
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = Client::builder().no_proxy().tls_backend_preconfigured(tls::suspicious_client());
        let client = client.timeout(PATIENCE).build().expect("a client");
        let mut server = Self { child, url: String::new(), log, runtime, client, folder };
        server.url = until_some(&format!("{program} is ready"), || {
            let ended = server.child.try_wait().expect("it can be asked");
            assert!(ended.is_none(), "{program} ended ({ended:?}): {}", server.said());
            let url = format!("http://127.0.0.1:{}", listening_port(server.child.id())?);
            server.answers(&format!("{url}{ready}")).then_some(url)
        });
        server
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it answers to a question, as JSON.
    pub fn ask(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let url = reqwest::Url::parse_with_params(&format!("{}{path}", self.url), query).expect("a URL");
        self.runtime.block_on(async {
            let answer = self.client.get(url).send().await.unwrap_or_else(|e| panic!("{path}: {e}: {}", self.said()));
            answer.json().await.expect("JSON")
        })
    }

    /// What it said itself.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn answers(&self, url: &str) -> bool {
        let answer = self.runtime.block_on(async { self.client.get(url).send().await });
        answer.is_ok_and(|answer| answer.status().is_success())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ended already, or ends now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
