//! `holdfast drill report`: what came of one drill, worth attaching to an audit: as text, JSON, Markdown or a page, and as the files that
//! `ssh-keygen` verifies.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use holdfast_core::id::{ClusterName, DrillId, Principal};
use holdfast_core::message::DrillReport;
use holdfast_core::time::Timestamp;
use holdfast_core::verdict::{duration, recovery_millis};
use holdfast_edge::files;
use serde::Serialize;

use super::evidence::{self, Evidence, LATEST, Saved, Source};
use super::{markdown, page, story};
use crate::operator::Operator;
use crate::output::{quoted, report};
use crate::status::{CONFIG, table, trimmed};

/// Show the report of a drill, verified by its conductor's signature
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  holdfast drill report\n  \
                        holdfast drill report 3f2a…c1 --html drill.html --save drill.json\n  \
                        holdfast drill report --offline drill.json.envelope\n\n\
                        Exit codes: 0 shown, whatever came of the drill; 1 it does not verify, or cannot be had; 78 the \
                        configuration is refused.")]
pub(crate) struct Arguments {
    /// The drill, as `holdfast drill list` names it; without it, the last one
    #[arg(value_name = "ID")]
    drill: Option<DrillId>,
    /// The operator's configuration, which names the sentinel
    #[arg(long, default_value = CONFIG)]
    config: PathBuf,
    /// The cluster, where the configuration has several
    #[arg(long)]
    cluster: Option<ClusterName>,
    /// Read an envelope that was saved, and ask no sentinel
    #[arg(long, value_name = "FILE")]
    offline: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print it as Markdown
    #[arg(long)]
    markdown: bool,
    /// Write it as a page that needs nothing else, with a timeline
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write what was signed as FILE, the signature as FILE.sig, and both as FILE.envelope
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

/// A verified report, as programs read it.
#[derive(Serialize)]
pub(super) struct Answer<'a> {
    cluster: &'a ClusterName,
    conductor: &'a Principal,
    issued_at: Timestamp,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<bool>,
    report: &'a DrillReport,
    #[serde(skip)]
    pub(super) evidence: &'a Evidence,
}

impl<'a> Answer<'a> {
    pub(super) fn new(evidence: &'a Evidence) -> Self {
        let Evidence { cluster, conductor, issued_at, key, seen, report, .. } = evidence;
        Self { cluster, conductor, issued_at: *issued_at, key, seen: *seen, report, evidence }
    }
}

/// Drills before and after the one that is told of.
pub(super) struct Trend {
    /// The latest first.
    pub(super) drills: Vec<Evidence>,
    /// How many were left out, because they do not verify.
    pub(super) refused: usize,
}

/// Fetches, verifies, and shows.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let operator = Operator::load(&arguments.config)?;
    let named = operator.cluster(arguments.cluster.as_ref())?;
    let (evidence, trend) = match &arguments.offline {
        Some(path) => {
            let evidence = evidence::read(path, &operator, named, arguments.drill)?;
            (evidence.clone(), Trend { drills: vec![evidence], refused: 0 })
        }
        None => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(fetch(&Source::new(&operator, named, &arguments.config)?, arguments.drill))?
        }
    };
    if let Some(path) = &arguments.html {
        files::replace(path, page::render(&evidence, &trend).as_bytes(), 0o644)?;
    }
    let saved = arguments.save.as_ref().map(|path| evidence::save(&evidence, path)).transpose()?;
    if arguments.json {
        return Ok(report(true, &Shown(Answer::new(&evidence), String::new())));
    }
    let mut blocks = match arguments.markdown {
        true => vec![markdown::render(&evidence, &trend)],
        false => vec![text(&evidence, &trend)],
    };
    blocks.extend(arguments.html.as_ref().map(|path| format!("The page is in {}.", path.display())));
    blocks.extend(saved.map(|saved| how_to_verify(&evidence, &saved, &operator.allowed_signers_path)));
    Ok(report(false, &Shown(Answer::new(&evidence), blocks.join("\n\n"))))
}

/// The report, and what is said of it.
#[derive(Serialize)]
#[serde(transparent)]
struct Shown<'a>(Answer<'a>, #[serde(skip)] String);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.1)
    }
}

async fn fetch(source: &Source<'_>, drill: Option<DrillId>) -> anyhow::Result<(Evidence, Trend)> {
    let (latest, mut refused) = (source.latest(LATEST).await?, 0);
    let named = match (drill, latest.first()) {
        (Some(drill), _) => source.fetch(drill).await?,
        (None, None) => anyhow::bail!("the sentinel keeps no drill of this cluster: no report yet"),
        (None, Some(Ok(last))) => last.clone(),
        (None, Some(Err(_))) => {
            let why = latest.into_iter().find_map(Result::err).context("there is one")?;
            return Err(anyhow::Error::new(why).context(source.not_believed("last of all")));
        }
    };
    let mut drills = Vec::new();
    for verified in latest {
        match verified {
            Ok(evidence) => drills.push(evidence),
            Err(_) => refused += 1,
        }
    }
    Ok((named, Trend { drills, refused }))
}

/// What was saved, and how it is verified.
pub(super) fn how_to_verify(evidence: &Evidence, saved: &Saved, signers: &Path) -> String {
    format!(
        "Saved: {}, {}, {}. To verify it without this program:\n  {}",
        saved.body.display(),
        saved.signature.display(),
        saved.envelope.display(),
        verify_command(evidence, saved, signers)
    )
}

/// What OpenSSH is to be told, exactly.
fn verify_command(evidence: &Evidence, saved: &Saved, signers: &Path) -> String {
    format!(
        "ssh-keygen -Y verify -f {} -I {} -n holdfast.intent -s {} < {}",
        quoted(signers.display()),
        evidence.conductor,
        quoted(saved.signature.display()),
        quoted(saved.body.display())
    )
}

/// The report for a terminal.
pub(super) fn text(evidence: &Evidence, trend: &Trend) -> String {
    let report = &evidence.report;
    let facts = story::facts(evidence);
    let longest = facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let facts: Vec<_> = facts.into_iter().map(|(name, what)| format!("{name:longest$}  {what}")).collect();
    let mut moments = table(["WHEN", "WHAT"]);
    for (at, what) in story::moments(report) {
        moments.add_row([story::when(report, at), what]);
    }
    let mut blocks = vec![
        format!("{}\n{}", story::headline(evidence), story::outcome(evidence)),
        facts.join("\n"),
        trimmed(&moments),
    ];
    let rows = story::custodians(report);
    if !rows.is_empty() {
        let mut custodians = table(["CUSTODIAN", "TURN", "TOOK IT", "SHARE LEFT AFTER", "ANSWERED AFTER", "RESULT"]);
        for row in rows {
            custodians.add_row([
                row.custodian.to_string(),
                row.turn().to_owned(),
                if row.took { "yes" } else { "no" }.to_owned(),
                story::millis(row.response_time()),
                story::millis(row.answer_time()),
                row.what(),
            ]);
        }
        blocks.push(trimmed(&custodians));
    }
    let people = story::people(report);
    if !people.is_empty() {
        let mut voices = table(["OPERATOR", "APPROVED AFTER", "SIGNED AT", "APPROVAL"]);
        voices.add_rows(people.iter().map(story::Voice::cells));
        blocks.push(trimmed(&voices));
    }
    if trend.drills.len() > 1 {
        let mut last = table(["LAST DRILLS", "NODE", "RESULT", "RECOVERY", "OBJECTIVE"]);
        for drill in &trend.drills {
            let report = &drill.report;
            last.add_row([
                report.began_at.to_string(),
                report.node.as_ref().map_or_else(|| "–".to_owned(), ToString::to_string),
                drill.in_short(),
                recovery_millis(report).map_or_else(|| "–".to_owned(), duration),
                duration(report.objective_ms as f64),
            ]);
        }
        blocks.push(trimmed(&last));
    }
    blocks.push(story::proof(evidence));
    blocks.extend(trend.left_out());
    blocks.join("\n\n")
}

impl Trend {
    /// That some drills are not shown.
    pub(super) fn left_out(&self) -> Option<String> {
        (self.refused > 0).then(|| {
            format!(
                "{} of the last drills do not verify against this operator's allowed_signers, and are not shown.",
                self.refused
            )
        })
    }
}
