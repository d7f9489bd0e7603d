//! `holdfast demo`: a lab, a narrated tour that checks each claim against the Vault itself, and the end of it all.
//!
//! What lives here: the frame around the tour, which ends the lab whatever happens, and the table at the end. What does not:
//! the claims (`tour`), how they are looked at (`eye`, `sockets`), what it looks like (`screen`), and the lab.

mod eye;
mod screen;
mod sockets;
mod tour;

use std::cell::RefCell;
use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;

use crate::lab::assembly::Assembly;
use crate::lab::journal::Journal;
use crate::lab::process::Started;
use crate::lab::progress::Progress;
use crate::lab::{UpArgs, up};

use screen::{Ink, Screen, clock};
use tour::{CLAIMS, NotHeld, Tour};

/// How many custodians the demo's lab has, and how many of them open a node: the lab's own defaults.
const CUSTODIANS: u8 = 5;
const THRESHOLD: u8 = 3;
/// How many nodes: the fewest of which one may fail.
const NODES: u8 = 3;

/// A tour of two minutes on this machine: servers are crashed and sealed, and each claim is checked against the Vault itself
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The lab's folder, which is kept; without it a temporary one is made, and removed when every claim held
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Keep the temporary folder too, with every log and audit log
    #[arg(long)]
    keep: bool,
    /// Print what was measured on stdout as JSON; the tour is then told on stderr
    #[arg(long)]
    json: bool,
}

/// What came of it all.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Whether every claim was seen to hold.
    held: bool,
    /// How long it took to put the network together, in milliseconds.
    up_ms: Option<u128>,
    /// How long the tour took.
    tour_ms: Option<u128>,
    /// The claims, in the order in which they are tried.
    claims: Vec<Claim>,
}

/// One claim.
#[derive(Debug, Serialize)]
pub(crate) struct Claim {
    claim: &'static str,
    /// Not there if it was never tried.
    held: Option<bool>,
    /// What was measured, or why it did not hold.
    seen: String,
    /// The same for programs, in milliseconds.
    measured_ms: Vec<(&'static str, u128)>,
}

/// Why the tour ended before its end.
enum Stop {
    Interrupted,
    NotHeld(NotHeld),
}

impl From<NotHeld> for Stop {
    fn from(why: NotHeld) -> Self {
        Self::NotHeld(why)
    }
}

/// Shows everything. Succeeds only if every claim was seen to hold.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (dir, temporary) = match &arguments.dir {
        Some(dir) => (dir.clone(), false),
        None => (temporary_folder()?, true),
    };
    let mut screen = Screen::new(arguments.json);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::default();
    report.claims.extend(CLAIMS.map(|claim| Claim { claim, held: None, seen: String::new(), measured_ms: Vec::new() }));

    let stopped = runtime.block_on(async {
        let latest = Rc::new(RefCell::new(String::new()));
        let mut lab = Assembly::new(Journal::create(&dir)?);
        lab.progress = Progress::kept(Rc::clone(&latest));
        let stopped = tokio::select! {
            // In this order, so that the signals are caught before anything is started.
            biased;
            asked = up::interruption() => asked.map(|()| Some(Stop::Interrupted)).map_err(anyhow::Error::from),
            shown = show(&mut lab, &mut screen, &mut report, &latest) => Ok(shown.err()),
        };
        screen.clear();
        let down = take_down(&mut lab, &mut screen);
        let stopped = stopped?;
        down?;
        anyhow::Ok(stopped)
    });
    let stopped = match stopped {
        Ok(stopped) => stopped,
        Err(error) => {
            // A folder that was refused, or in which something may still run: left as it is, but for an empty one of our own.
            let kept = !temporary || fs::remove_dir(&dir).is_err();
            return Err(if kept { error.context(format!("the lab's folder is {}", dir.display())) } else { error });
        }
    };

    report.held = stopped.is_none() && report.claims.iter().all(|claim| claim.held == Some(true));
    let keep = !temporary || arguments.keep || matches!(stopped, Some(Stop::NotHeld(_)));
    if !keep {
        fs::remove_dir_all(&dir).with_context(|| format!("{} cannot be removed", dir.display()))?;
    }
    conclude(&mut screen, &report, stopped.as_ref(), keep.then_some(&dir));
    if arguments.json {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?;
    }
    Ok(if report.held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Puts the lab together and tries one claim after the other, up to the first that does not hold.
async fn show(
    lab: &mut Assembly,
    screen: &mut Screen,
    report: &mut Report,
    latest: &RefCell<String>,
) -> Result<(), Stop> {
    let dir = lab.journal.layout.dir().to_owned();
    screen.line(Ink::Title, "Holdfast: a crashed Vault opens by itself, and a sealed one stays sealed");
    screen.line(Ink::Plain, "");
    screen.prose(&format!(
        "A network on this machine, each party a process of its own: {NODES} OpenBao nodes, RabbitMQ, {CUSTODIANS} custodians \
         with one share each, {THRESHOLD} of which open a node, and a sentinel that watches. Whether a node is open is \
         asked of the node itself."
    ));
    screen.line(Ink::Faint, &format!("folder: {}", dir.display()));

    let before = sockets::Sockets::around(std::process::id()).map_err(NotHeld::from)?;
    let began = Instant::now();
    let args = UpArgs {
        dir,
        custodians: CUSTODIANS,
        threshold: THRESHOLD,
        nodes: NODES,
        sentinels: 1,
        no_broker: false,
        conductors: 1,
        schedule: None,
        json: false,
    };
    let up = up::put_together(lab, &args);
    let text = || latest.borrow().clone();
    let file = screen.during(began, text, up).await.map_err(|e| NotHeld(format!("the lab did not come up: {e}")))?;
    report.up_ms = Some(began.elapsed().as_millis());
    screen.line(Ink::Plain, "");
    let up = format!("Up after {}: every node is open, every custodian ready.", clock(began.elapsed()));
    screen.verdict(true, &up);

    let began = Instant::now();
    let mut tour = Tour::new(lab, screen, file, before)?;
    for (number, claim) in report.claims.iter_mut().enumerate() {
        match tour.step(number).await {
            Ok(seen) => {
                claim.held = Some(true);
                claim.seen = seen.short;
                claim.measured_ms = seen.measured.iter().map(|(what, took)| (*what, took.as_millis())).collect();
            }
            Err(why) => {
                claim.held = Some(false);
                claim.seen = "did not hold".to_owned();
                return Err(why.into());
            }
        }
    }
    report.tour_ms = Some(began.elapsed().as_millis());
    Ok(())
}

/// Ends every process that was started, also those that were frozen.
fn take_down(lab: &mut Assembly, screen: &mut Screen) -> anyhow::Result<()> {
    let began = Instant::now();
    screen.line(Ink::Plain, "");
    screen.tick(began, "ending every process of the network");
    for number in 1..=CUSTODIANS {
        // One that is not there needs no thaw.
        let _ = lab.signal(&format!("custodian-{number}"), Started::thaw);
    }
    let down = lab.take_apart();
    screen.clear();
    down.context("the lab's processes could not be ended")?;
    Ok(())
}

/// The table, and what to do next.
fn conclude(screen: &mut Screen, report: &Report, stopped: Option<&Stop>, kept: Option<&PathBuf>) {
    let column = CLAIMS.iter().map(|claim| claim.chars().count()).max().unwrap_or_default();
    for Claim { claim, held, seen, .. } in &report.claims {
        screen.row(*held, claim, column, if held.is_none() { "not tried" } else { seen });
    }
    screen.line(Ink::Plain, "");
    match stopped {
        None => {
            let seconds = |ms: Option<u128>| ms.unwrap_or_default() / 1000;
            screen.prose(&format!(
                "Every claim held. The network was put together in {} s and shown in {} s; every process of it has ended.",
                seconds(report.up_ms),
                seconds(report.tour_ms)
            ));
        }
        Some(Stop::Interrupted) => screen.prose("Interrupted; every process of the network has ended."),
        Some(Stop::NotHeld(NotHeld(why))) => {
            match report.claims.iter().find(|claim| claim.held == Some(false)) {
                Some(failed) => screen.line(Ink::Bad, &format!("This did not hold: {}", failed.claim)),
                None => screen.line(Ink::Bad, "No claim was tried"),
            }
            for line in why.lines() {
                screen.line(Ink::Plain, line);
            }
        }
    }
    if let Some(dir) = kept {
        screen.prose(&format!("Logs: {}", logs(dir).display()));
    } else if stopped.is_none() {
        screen.prose("To try it yourself: holdfast lab up --dir lab");
    }
}

fn logs(dir: &Path) -> PathBuf {
    dir.canonicalize().unwrap_or_else(|_| dir.to_owned()).join("log")
}

/// A new folder that nobody else can look into.
fn temporary_folder() -> anyhow::Result<PathBuf> {
    let random = getrandom::u32().map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
    let dir = std::env::temp_dir().join(format!("holdfast-{random:08x}"));
    DirBuilder::new().mode(0o700).create(&dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    Ok(dir)
}

/// What a step was seen to do.
pub(crate) struct Seen {
    /// As a sentence.
    words: String,
    /// For the table.
    short: String,
    /// What was measured.
    measured: Vec<(&'static str, Duration)>,
}
