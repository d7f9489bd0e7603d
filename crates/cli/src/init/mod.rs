//! `holdfast init`: the ceremony that initialises a Vault with its shares encrypted to custodians and holders.
//!
//! What lives here: the order of the steps. Everything that can be wrong is looked at before the server is asked, because a
//! server that is initialised with a bad key keeps nobody's shares; what was agreed is on the disk before the server is asked,
//! and what it answers before it is looked at, because it says it once. So a ceremony that is killed at any step goes on with
//! `--resume`, or says what is lost. What does not live here: a plaintext. This program could decrypt nothing that it handles.

mod answer;
pub(crate) mod directory;
pub(crate) mod enrollments;
pub(crate) mod error;
pub(crate) mod fingerprints;
pub(crate) mod holders;
mod journal;
pub(crate) mod losses;
pub(crate) mod openpgp;
pub(crate) mod parcels;
pub(crate) mod plan;
mod report;
pub(crate) mod server;
mod sheet;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use holdfast_core::id::ClusterName;
use holdfast_core::time::Timestamp;
use holdfast_edge::admin::{Admin, AdminError};
use holdfast_edge::clock::wall as now;
use holdfast_edge::files;
use holdfast_edge::tls::CA_PEM_MAX;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::answer::Answer;
use self::directory::Directory;
pub(crate) use self::error::InitError;
use self::journal::{Ceremony, Step};
use self::openpgp::Addressee;
use self::plan::{PartyArguments, Plan};
use self::report::{Outcome, Report};
use self::server::Standing;
use crate::output;

/// The set of shares that an initialisation makes.
const GENERATION: u32 = 1;

/// The largest key of a person that is read, in bytes: people's keys carry pictures and other people's signatures.
const PEOPLES_KEY_MAX: usize = 1024 * 1024;

/// Initialise a Vault, its shares encrypted to custodians and holders: the ceremony
///
/// Takes the enrollments that `holdfast-setup enroll` made on the custodians' hosts, and the OpenPGP
/// keys of people who hold a share for break-glass. Checks them all, the root token's key, the output
/// directory and the Vault, before it asks the Vault for anything. Then initialises it, and writes
/// into DIR:
///
///   ceremony.json               how far the ceremony is: public keys and names
///   init-response.json          what the Vault answered: encrypted, and said only once
///   packets/ID.packet.json      a custodian's share, encrypted to it: send it to that custodian
///   holders/NAME.share.asc      a holder's share, encrypted to that person
///   holders/NAME.sheet.html     the same to be printed and put away, with how to use it
///   CLUSTER.manifest.json       ids and public keys: for every custodian, sentinel and operator
///   root-token.pgp              the root token, encrypted: gpg --decrypt root-token.pgp
///   allowed_signers.custodians  the custodians' lines for everybody's allowed_signers
///
/// Nothing secret is shown or written in the clear, anywhere. If anything interrupts it, at any
/// moment: `holdfast init --resume DIR` goes on, or says what is lost.
#[derive(Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// What to call the cluster: 1 to 63 of a-z, 0-9 and '-'
    #[arg(long, value_name = "NAME", required_unless_present = "resume")]
    cluster: Option<ClusterName>,
    /// The Vault's address, https://HOST:PORT; with several nodes, any one of them
    #[arg(long, value_name = "URL", required_unless_present = "resume")]
    vault: Option<String>,
    /// The CA that the Vault's certificate comes from, in PEM; no other is trusted
    #[arg(long, value_name = "FILE", required_unless_present = "resume")]
    ca_cert: Option<PathBuf>,
    /// A custodian's enrollment.json; each gets one share
    #[arg(long = "enrollment", value_name = "FILE", required_unless_present = "resume", num_args = 1..)]
    enrollments: Vec<PathBuf>,
    /// How many shares open the Vault: 2 or more
    #[arg(long, value_name = "T", required_unless_present = "resume")]
    threshold: Option<u8>,
    /// Whose OpenPGP key the root token is encrypted to: the public key, armoured or binary
    #[arg(long, value_name = "FILE", required_unless_present = "resume")]
    root_token_key: Option<PathBuf>,
    #[command(flatten)]
    parties: PartyArguments,
    /// Where everything is written: an empty directory, or one that is not there yet
    #[arg(long, value_name = "DIR", required_unless_present = "resume")]
    output: Option<PathBuf>,
    /// Go on with the ceremony that was interrupted in DIR, or say what is lost; takes everything else from there
    #[arg(long, value_name = "DIR", conflicts_with_all = BEGINNING)]
    resume: Option<PathBuf>,
    /// Report in JSON
    #[arg(long)]
    json: bool,
}

/// The arguments that only a beginning has.
const BEGINNING: [&str; 12] = [
    "cluster",
    "vault",
    "ca_cert",
    "enrollments",
    "holders",
    "threshold",
    "root_token_key",
    "fingerprints",
    "yes",
    "accept_no_recovery",
    "accept_no_automatic_opening",
    "output",
];

const EXAMPLE: &str = "\
Example:
  holdfast init --cluster prod --vault https://vault-1.example:8200 --ca-cert vault-ca.pem \\
    --enrollment c1/enrollment.json c2/enrollment.json c3/enrollment.json --threshold 2 \\
    --holder alice.asc --holder bob.asc --root-token-key carol.asc --output prod-ceremony

Make a person's key with: gpg --quick-generate-key alice; gpg --export --armor alice > alice.asc
All of it, step by step: docs/CEREMONIES.md";

/// Holds the ceremony, and says so.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match (runtime, &arguments.resume) {
        (Ok(runtime), None) => runtime.block_on(begin(arguments)),
        (Ok(runtime), Some(dir)) => runtime.block_on(resume(dir)),
        (Err(error), _) => Err(InitError::System(format!("no runtime could be started: {error}"))),
    };
    match done {
        Ok(report) => output::report(arguments.json, &report),
        Err(error) => output::failure(&error, error.exit_code()),
    }
}

async fn begin(arguments: &Arguments) -> Result<Report, InitError> {
    let output = given(arguments.output.as_ref(), "output")?;
    Directory::check_free(output)?;
    let mut ceremony = plan(arguments)?;
    losses::check(&ceremony.plan, &arguments.parties)?;
    let admin = Admin::new(&ceremony.plan.vault, ceremony.ca_pem.as_bytes())?;
    server::check(&admin, &ceremony).await?;
    let directory = Directory::make(output)?;
    ceremony.compared = fingerprints::compare(&ceremony.plan, &arguments.parties)?;
    ceremony.record(&directory, Step::Planned)?;
    hold(&directory, &ceremony, &admin, Outcome::Initialised).await
}

async fn resume(dir: &Path) -> Result<Report, InitError> {
    let directory = Directory::open(dir)?;
    let (ceremony, step) = Ceremony::read(&directory)?;
    if step == Step::Done {
        return Ok(Report::new(&directory, &ceremony, Outcome::Already));
    }
    if let Some(answer) = answer_on_disk(&directory, &ceremony)? {
        return finish(&directory, &ceremony, &answer, Outcome::Resumed);
    }
    let admin = Admin::new(&ceremony.plan.vault, ceremony.ca_pem.as_bytes())?;
    if step == Step::Asked {
        let why = "an earlier run asked the Vault, and was interrupted before its answer was on the disk".to_owned();
        check_standing(&directory, &ceremony, &admin, why, Duration::ZERO).await?;
    }
    // Nothing has happened yet. Time may have passed.
    ceremony.check_keys(&directory.journal(), unix_seconds())?;
    server::check(&admin, &ceremony).await?;
    hold(&directory, &ceremony, &admin, Outcome::Resumed).await
}

/// Asks the Vault, and makes the files of its answer.
async fn hold(
    directory: &Directory,
    ceremony: &Ceremony,
    admin: &Admin,
    outcome: Outcome,
) -> Result<Report, InitError> {
    directory.make_room()?;
    // From here until the files are written, no slip of the hand may end this.
    let _deaf = Deaf::new()?;
    ceremony.record(directory, Step::Asked)?;
    let answer = match server::initialise(admin, ceremony).await {
        Ok(answer) => answer,
        Err(error) => return Err(explain(directory, ceremony, admin, error).await),
    };
    keep(directory, &answer)?;
    finish(directory, ceremony, &answer, outcome)
}

/// Makes the files of an answer that is on the disk.
fn finish(directory: &Directory, ceremony: &Ceremony, answer: &[u8], outcome: Outcome) -> Result<Report, InitError> {
    let response = directory.response();
    let answer = Answer::parse(answer, ceremony)
        .map_err(|why| InitError::Answer { response: response.clone(), why: why.to_string() })?;
    answer
        .write(directory, ceremony)
        .and_then(|()| ceremony.record(directory, Step::Done))
        .map_err(|why| InitError::Unfinished { response, why })?;
    Ok(Report::new(directory, ceremony, outcome))
}

/// The answer that an earlier run brought to the disk, if it did, were it killed a moment before the answer had its name.
fn answer_on_disk(directory: &Directory, ceremony: &Ceremony) -> Result<Option<Vec<u8>>, InitError> {
    if let Some(answer) = directory.kept_response()? {
        // The other name may be there still, and this one not on the disk yet.
        let unfinished = |why| InitError::Unfinished { response: directory.response(), why };
        directory.keep_response(&answer).map_err(unfinished)?;
        return Ok(Some(answer));
    }
    match directory.unnamed_response()? {
        // A part of one is none.
        Some(answer) if Answer::parse(&answer, ceremony).is_ok() => {
            directory.name_response()?;
            Ok(Some(answer))
        }
        _ => Ok(None),
    }
}

fn plan(arguments: &Arguments) -> Result<Ceremony, InitError> {
    let plan = Plan {
        cluster: given(arguments.cluster.as_ref(), "cluster")?.clone(),
        id: plan::random_id()?,
        generation: GENERATION,
        threshold: *given(arguments.threshold.as_ref(), "threshold")?,
        candidates: enrollments::read(&arguments.enrollments)?,
        people: holders::read(&arguments.parties.holders)?,
        vault: given(arguments.vault.as_ref(), "vault")?.clone(),
        made_at: now(),
    };
    plan.check()?;
    let root_token = root_token_key(given(arguments.root_token_key.as_ref(), "root-token-key")?, &plan)?;
    let ca_pem = files::read_bounded(given(arguments.ca_cert.as_ref(), "ca-cert")?, CA_PEM_MAX)?;
    let ca_pem = String::from_utf8_lossy(&ca_pem).into_owned();
    Ok(Ceremony { plan, compared: Default::default(), root_token, ca_pem })
}

/// An argument that only `--resume` makes superfluous; clap has seen to that.
fn given<'a, T>(argument: Option<&'a T>, name: &str) -> Result<&'a T, InitError> {
    argument.ok_or_else(|| InitError::Usage(format!("--{name} is missing")))
}

/// A person's key, who may be a holder: a custodian's would be one that nobody has at hand.
fn root_token_key(path: &Path, plan: &Plan) -> Result<Addressee, InitError> {
    let file = files::read_bounded(path, PEOPLES_KEY_MAX)?;
    let key =
        Addressee::from_file(&file, unix_seconds()).map_err(|why| InitError::Key { path: path.to_owned(), why })?;
    match plan.candidates.iter().find(|candidate| candidate.addressee.fingerprint() == key.fingerprint()) {
        None => Ok(key),
        Some(candidate) => {
            Err(InitError::SameKey { first: candidate.id().to_string(), second: "the root token's holder".to_owned() })
        }
    }
}

/// Now, in the seconds that OpenPGP counts.
fn unix_seconds() -> u32 {
    openpgp_seconds(now())
}

fn openpgp_seconds(time: Timestamp) -> u32 {
    u32::try_from(time.as_millis() / 1000).unwrap_or(u32::MAX)
}

/// Says what state a failed initialisation left.
async fn explain(directory: &Directory, ceremony: &Ceremony, admin: &Admin, error: AdminError) -> InitError {
    // Whoever gave an answer is done; a request that was cut off may still be at work.
    let patience = if matches!(error, AdminError::Status { .. }) { Duration::ZERO } else { server::SETTLE };
    match check_standing(directory, ceremony, admin, error.to_string(), patience).await {
        Err(told) => told,
        Ok(()) => InitError::Failed { dir: directory.path().to_owned(), why: error },
    }
}

/// Passes a Vault that is not initialised, after something happened to a request.
async fn check_standing(
    directory: &Directory,
    ceremony: &Ceremony,
    admin: &Admin,
    why: String,
    patience: Duration,
) -> Result<(), InitError> {
    let (dir, vault) = (directory.path().to_owned(), ceremony.plan.vault.clone());
    match server::standing(admin, ceremony, patience).await {
        Ok(Standing::Empty) => Ok(()),
        Ok(Standing::Lost) => Err(InitError::Lost { dir, vault, why }),
        Ok(Standing::Somebodys(how)) => Err(InitError::Somebodys { vault, how, why }),
        Err(then) => Err(InitError::Unknown { dir, first: why, then }),
    }
}

/// Brings the answer to the disk; where that fails, to the screen.
fn keep(directory: &Directory, answer: &[u8]) -> Result<(), InitError> {
    directory.keep_response(answer).map_err(|why| {
        output::rescue(answer);
        InitError::NotKept { response: directory.response(), why }
    })
}

/// While this lives, the signals that people and terminals send do not end the program.
struct Deaf {
    _signals: [Signal; 3],
}

impl Deaf {
    fn new() -> Result<Self, InitError> {
        let deaf =
            |kind| signal(kind).map_err(|error| InitError::System(format!("signals cannot be held off: {error}")));
        Ok(Self {
            _signals: [deaf(SignalKind::interrupt())?, deaf(SignalKind::terminate())?, deaf(SignalKind::hangup())?],
        })
    }
}
