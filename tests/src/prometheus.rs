//! A real Prometheus: what it scrapes, what it concludes, what it answers.

use std::fs;

use serde_json::Value;

use crate::server::Server;

/// Where Debian puts it.
const PROGRAM: &str = "/usr/bin/prometheus";

/// Prometheus.
#[derive(Debug)]
pub struct Prometheus(Server);

impl Prometheus {
    /// Starts one with this `prometheus.yml`, and these rules beside it as `rules.yml`.
    pub fn start(configuration: &str, rules: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("prometheus.yml"), configuration).expect("written");
        fs::write(folder.path().join("rules.yml"), rules).expect("written");
        let args = [
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--web.listen-address=127.0.0.1:0",
            // What is told before Alertmanager is found is told again soon, and not in a minute.
            "--rules.alert.resend-delay=4s",
            "--log.level=warn",
        ];
        Self(Server::start(PROGRAM, folder, &args, "/-/ready"))
    }

    /// The series that an expression has now; or why it is none.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        result(&self.0.ask("/api/v1/query", &[("query", expression)]))
    }

    /// The series that an expression had from `start` to `end`, in seconds since 1970.
    pub fn query_range(&self, expression: &str, start: f64, end: f64, step: f64) -> Result<Vec<Value>, String> {
        let [start, end, step] = [start, end, step].map(|number| number.to_string());
        let query = [("query", expression), ("start", &start), ("end", &end), ("step", &step)];
        result(&self.0.ask("/api/v1/query_range", &query))
    }

    /// The values that a label has among the series of a metric.
    pub fn label_values(&self, metric: &str, label: &str) -> Vec<String> {
        let answer = self.0.ask(&format!("/api/v1/label/{label}/values"), &[("match[]", metric)]);
        serde_json::from_value(answer["data"].clone()).expect("a list")
    }

    /// The alerts that there are, pending ones too.
    pub fn alerts(&self) -> Vec<Value> {
        let answer = self.0.ask("/api/v1/alerts", &[]);
        serde_json::from_value(answer["data"]["alerts"].clone()).expect("a list")
    }
}

fn result(answer: &Value) -> Result<Vec<Value>, String> {
    match answer["status"].as_str() {
        Some("success") => match answer["data"]["resultType"].as_str() {
            Some("vector" | "matrix") => Ok(serde_json::from_value(answer["data"]["result"].clone()).expect("a list")),
            other => Err(format!("it is no vector, but {other:?}")),
        },
        _ => Err(answer["error"].to_string()),
    }
}
