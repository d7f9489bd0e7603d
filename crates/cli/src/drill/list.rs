//! `holdfast drill list`: the latest drills of each cluster, as their conductors signed them.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use holdfast_core::id::ClusterName;
use holdfast_core::time::Timestamp;
use holdfast_core::verdict::{duration, moment, recovery_millis};
use holdfast_edge::clock;
use serde::Serialize;

use super::evidence::{Evidence, LATEST, Source};
use super::report::Answer;
use crate::operator::Operator;
use crate::output::report;
use crate::status::{CONFIG, table, trimmed};

/// List the latest drills, each verified by its conductor's signature
#[derive(clap::Args)]
#[command(
    after_help = "Exit codes: 0 all that are kept verify, 1 one does not or the sentinel cannot be asked, 78 the \
                        configuration is refused."
)]
pub(crate) struct Arguments {
    /// The operator's configuration, which names the sentinel
    #[arg(long, default_value = CONFIG)]
    config: PathBuf,
    /// The cluster; without it, all
    #[arg(long)]
    cluster: Option<ClusterName>,
    /// Print the reports as JSON
    #[arg(long)]
    json: bool,
}

/// The latest drills, of all clusters that were asked for.
#[derive(Serialize)]
struct Drills<'a> {
    drills: Vec<Answer<'a>>,
    #[serde(skip)]
    now: Timestamp,
}

/// Fetches, verifies and shows them. One that does not verify is an error, and nothing is shown.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let operator = Operator::load(&arguments.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut all = Vec::new();
    for named in operator.clusters(arguments.cluster.as_ref())? {
        let source = Source::new(&operator, named, &arguments.config)?;
        for (number, verified) in runtime.block_on(source.latest(LATEST))?.into_iter().enumerate() {
            all.push(verified.map_err(|why| {
                anyhow::Error::new(why).context(source.not_believed(&format!("number {} of the list", number + 1)))
            })?);
        }
    }
    let drills = all.iter().map(Answer::new).collect();
    Ok(report(arguments.json, &Drills { drills, now: clock::wall() }))
}

impl fmt::Display for Drills<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.drills.is_empty() {
            return f.write_str("no drill is kept");
        }
        let mut drills = table(["BEGAN", "CLUSTER", "NODE", "RESULT", "RECOVERY", "OBJECTIVE", "CONDUCTOR", "DRILL"]);
        for Answer { evidence, .. } in &self.drills {
            let Evidence { cluster, conductor, report, .. } = evidence;
            drills.add_row([
                moment(report.began_at, self.now),
                cluster.to_string(),
                report.node.as_ref().map_or_else(|| "–".to_owned(), ToString::to_string),
                evidence.in_short(),
                recovery_millis(report).map_or_else(|| "–".to_owned(), duration),
                duration(report.objective_ms as f64),
                conductor.to_string(),
                report.drill.to_string(),
            ]);
        }
        f.write_str(&trimmed(&drills))
    }
}
