//! `holdfast trust`: another allowed_signers file is in force at the custodians, without anybody logging in there, when enough
//! operators sign the same file.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use holdfast_core::message::{Content, Trust};
use holdfast_core::trust::{ALLOWED_SIGNERS_MAX, AllowedSigners};
use holdfast_edge::files;
use serde::Serialize;

use super::{Answer, Road};
use crate::operator::{Named, Operator};
use crate::output::quoted;
use crate::status;

/// What `trust` is asked for.
#[derive(clap::Args)]
#[command(
    long_about = "Put another allowed_signers file in force at the custodians. It takes as many operators, who sign the same \
                  file within 15 minutes of each other, as the policy asks (release_approvals, 2 by default).\n\nThe file that \
                  it replaces is the one that your operator.toml names: that must be the one in force. Put the new one in its \
                  place on your machine, and on the other operators', when it is in force. What was approved under the old \
                  file is void then.",
    after_help = "Example: holdfast trust allowed_signers.new"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    road: Road,
    /// The new file, whole
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Its number, higher than that of any before; without it, the sentinel is asked which that is
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    number: Option<u32>,
}

#[derive(Serialize)]
struct What {
    version: u32,
    sha256: String,
    previous_sha256: String,
}

/// Signs the order and sends it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { road, file, number } = arguments;
    let operator = road.load()?;
    let named = operator.cluster(road.cluster.as_ref())?;
    let bytes = files::read_bounded(file, ALLOWED_SIGNERS_MAX)?;
    let new = AllowedSigners::parse(&bytes).with_context(|| format!("{} is refused", file.display()))?;
    let version = match number {
        Some(number) => *number,
        None => next_version(road, named)?,
    };
    for line in difference(&operator, &new) {
        road.say(&line);
    }
    let (sha256, previous_sha256) = (hex::encode(new.digest()), hex::encode(operator.allowed_signers.digest()));
    anyhow::ensure!(sha256 != previous_sha256, "{} is the file that is in force already", file.display());
    let allowed_signers = String::from_utf8(bytes).with_context(|| format!("{} is refused", file.display()))?;
    let what = What { version, sha256, previous_sha256: previous_sha256.clone() };
    let content = Content::Trust(Trust { version, previous_sha256, allowed_signers });
    let done = format!("version {version} is in force");
    let config = status::option(&road.config);
    let again =
        format!("holdfast trust{config} --cluster {} --number {version} {}", quoted(named.0), quoted(file.display()));
    let tell = |answer: &Answer| super::in_words(&answer.effect, &done);
    road.order(&operator, named, content, what, tell, |sent, id| super::outcome(sent, id, named.1, &done, &again))
}

/// One more than the highest version that as many custodians follow as it takes to open a node: fewer could make it up.
fn next_version(road: &Road, (name, cluster): Named<'_>) -> anyhow::Result<u32> {
    let Some(url) = &cluster.sentinel else {
        anyhow::bail!(
            "{}: [clusters.{name}] names no sentinel, which could tell the version in force: give --number, one more than the \
             last",
            road.config.display()
        );
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(status::fetch(url))?;
    let known = status.clusters.values().find(|known| known.id == cluster.manifest.id());
    let known = known.with_context(|| format!("the sentinel at {url} does not watch cluster {name}"))?;
    let heartbeats = known.custodians.values().filter_map(|known| known.heartbeat.as_ref());
    let mut versions: Vec<_> = heartbeats.map(|heartbeat| heartbeat.trust_version).collect();
    versions.sort_unstable_by_key(|version| std::cmp::Reverse(*version));
    let enough = usize::from(cluster.manifest.threshold()).saturating_sub(1);
    let last =
        versions.get(enough).context("too few custodians are heard to tell the version in force: give --number")?;
    last.checked_add(1).context("there is no version after the one in force: give --number")
}

/// Which keys come and go.
fn difference(operator: &Operator, new: &AllowedSigners) -> Vec<String> {
    let lines = |signers: &AllowedSigners| -> BTreeSet<String> {
        signers.signers().map(|signer| format!("{} {}", signer.principal(), signer.key().fingerprint())).collect()
    };
    let (old, new) = (lines(&operator.allowed_signers), lines(new));
    let gone = old.difference(&new).map(|line| format!("  - {line}"));
    let come = new.difference(&old).map(|line| format!("  + {line}"));
    gone.chain(come).collect()
}
