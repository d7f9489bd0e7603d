//! Drills, as a stranger orders them and hears of them: `holdfast drill run`, what conductors tell at the broker, and the tokens that
//! conductors are given.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::broker::{Client, Tap};
use crate::lab::Lab;
use crate::messages;
use crate::programs::{Said, program};

/// What a conductor told of a drill.
#[derive(Debug, Clone)]
pub struct Told {
    /// Who told it.
    pub by: String,
    /// How far the drill is, and in the end what came of it; or that one is due.
    pub report: Value,
}

/// `holdfast drill run`, as the first operator, to its end.
pub fn order(lab: &Lab, args: &[&str]) -> Said {
    finish(ordering(lab, args))
}

/// The same, while it goes on.
pub fn ordering(lab: &Lab, args: &[&str]) -> Child {
    let config = lab.path(&lab.file.operator_config);
    let mut command = Command::new(program("holdfast"));
    command.args(["drill", "run", "--config"]).arg(config).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("holdfast runs")
}

/// The end of an order.
pub fn finish(ordered: Child) -> Said {
    ordered.wait_with_output().expect("it ends").into()
}

/// Gives `holdfast-setup seal-token` or `canary-token` a token, for the lab's cluster, on standard input.
pub fn give(command: &str, config: &Path, token: &str, more: &[&str]) -> Said {
    let mut setup = Command::new(program("holdfast-setup"));
    setup.args([command, "--cluster", "lab", "--config"]).arg(config).args(more);
    setup.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = setup.spawn().expect("holdfast-setup runs");
    // One that refuses before it reads has closed it.
    let _ = child.stdin.take().expect("a pipe").write_all(format!("{token}\n").as_bytes());
    child.wait_with_output().expect("it ends").into()
}

/// What was told since the last look, by a tap at `holdfast.intents`.
pub fn told(admin: &Client, tap: &Tap) -> Vec<Told> {
    let all = admin.all(tap).into_iter();
    all.filter(|(routing_key, _)| routing_key.ends_with(".drill-report")).map(|(_, bytes)| read(&bytes)).collect()
}

/// The next that is told of a drill that is that far.
pub fn next_in(admin: &Client, tap: &Tap, phase: &str) -> Told {
    loop {
        let told = read(&admin.next_of(tap, "drill-report"));
        if told.report["phase"] == phase {
            return told;
        }
    }
}

/// No other drill was begun for what this report's was held for, from it on.
pub fn once(admin: &Client, tap: &Tap, report: &Value) {
    let told = told(admin, tap);
    let of_it = told.iter().map(|told| &told.report).filter(|other| other["slot"] == report["slot"]);
    let others: Vec<_> = of_it.map(|other| &other["drill"]).filter(|drill| **drill != report["drill"]).collect();
    assert!(others.is_empty(), "two drills for one order: {others:?}");
}

/// What an envelope says, and who says it.
pub fn read(envelope: &[u8]) -> Told {
    let envelope: Value = serde_json::from_slice(envelope).expect("an envelope");
    let body = messages::unbase64(envelope["body"].as_str().expect("a body"));
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    Told { by: body["from"].as_str().expect("somebody").to_owned(), report: body["content"].clone() }
}
