//! `holdfast distrust`: the word of a captured custodian or sentinel counts for nothing, when enough operators say so.

use std::process::ExitCode;

use holdfast_core::id::Principal;
use holdfast_core::message::{Content, Distrust};
use serde::Serialize;

use super::{Answer, Road};
use crate::output::quoted;
use crate::status;

/// What `distrust` is asked for.
#[derive(clap::Args)]
#[command(
    long_about = "Make the word of a custodian or sentinel count for nothing: its markers, which keep nodes shut, are forgotten, \
                  its receipts and sightings are refused. In force when as many operators have ordered it, within 15 minutes \
                  of each other, as the policy asks (release_approvals, 2 by default).\n\nAn operator's key is taken away with \
                  `holdfast trust`, not with this.",
    after_help = "Example: holdfast distrust sentinel-1"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    road: Road,
    /// Whose word
    principal: Principal,
    /// Let it count again
    #[arg(long)]
    lift: bool,
}

#[derive(Serialize)]
struct What {
    principal: Principal,
    lift: bool,
}

/// Signs the order and sends it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { road, principal, lift } = arguments;
    let operator = road.load()?;
    let named = operator.cluster(road.cluster.as_ref())?;
    let content = Content::Distrust(Distrust { principal: principal.clone(), lift: *lift });
    let what = What { principal: principal.clone(), lift: *lift };
    let (done, flag) = match lift {
        false => (format!("the word of {principal} counts for nothing"), ""),
        true => (format!("the word of {principal} counts again"), " --lift"),
    };
    let config = status::option(&road.config);
    let again = format!("holdfast distrust{config} --cluster {} {principal}{flag}", quoted(named.0));
    let tell = |answer: &Answer| super::in_words(&answer.effect, &done);
    road.order(&operator, named, content, what, tell, |sent, id| super::outcome(sent, id, named.1, &done, &again))
}
