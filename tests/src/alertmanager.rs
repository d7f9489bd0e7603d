//! A real Alertmanager: whom it tells what, and what it keeps back.

use std::fs;

use serde_json::Value;

use crate::server::Server;

/// Where Debian puts it.
const PROGRAM: &str = "/usr/bin/prometheus-alertmanager";

/// Alertmanager.
#[derive(Debug)]
pub struct Alertmanager(Server);

impl Alertmanager {
    /// Starts one with this configuration, and these files of secrets beside it.
    pub fn start(configuration: &str, secrets: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("alertmanager.yml"), configuration).expect("written");
        for (name, secret) in secrets {
            fs::write(folder.path().join(name), secret).expect("written");
        }
        let args = [
            "--config.file=alertmanager.yml",
            "--storage.path=data",
            "--web.listen-address=127.0.0.1:0",
            // It has no peers, and so listens for none.
            "--cluster.listen-address=",
            "--log.level=warn",
        ];
        Self(Server::start(PROGRAM, folder, &args, "/-/ready"))
    }

    /// `HOST:PORT`, as Prometheus wants it.
    pub fn address(&self) -> &str {
        self.0.url().trim_start_matches("http://")
    }

    /// Every alert that it knows, with `status.state` and, in `status.inhibitedBy`, for which others it is kept back.
    pub fn alerts(&self) -> Vec<Value> {
        serde_json::from_value(self.0.ask("/api/v2/alerts", &[])).expect("a list")
    }

    /// What it said itself.
    pub fn said(&self) -> String {
        self.0.said()
    }
}
