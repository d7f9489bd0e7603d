//! `holdfast init`: the ceremony that initialises a Vault with its shares encrypted to custodians.
//!
//! What lives here: the order of the steps. Everything that can be wrong is looked at before the server is asked, because a
//! server that is initialised with a bad key keeps nobody's shares; and what the server answers is on the disk before it is
//! looked at, because it says it once. What does not: a plaintext. This program could decrypt nothing that it handles.

mod answer;
mod directory;
mod enrollments;
mod error;
mod fingerprints;
mod openpgp;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::prelude::{BASE64_STANDARD, Engine};
use clap::Args;
use holdfast_core::ceremony::Fingerprint;
use holdfast_core::id::{ClusterId, ClusterName, NameError, Principal};
use holdfast_edge::admin::{Admin, InitRequest};
use holdfast_edge::files;
use holdfast_edge::tls::CA_PEM_MAX;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::answer::Answer;
use self::directory::Directory;
use self::enrollments::Candidate;
use self::error::InitError;
use self::openpgp::Addressee;
use self::report::Report;
use crate::output;
use holdfast_edge::clock::wall as now;

/// The set of shares that an initialisation makes.
const GENERATION: u32 = 1;

/// The largest root token key that is read, in bytes: people's keys carry pictures and other people's signatures.
const ROOT_TOKEN_KEY_MAX: usize = 1024 * 1024;

/// Initialise a Vault, its shares encrypted to custodians: the ceremony
///
/// Takes the enrollments that `holdfast-setup enroll` made on the custodians' hosts. Checks them all,
/// the root token's key, the output directory and the Vault, before it asks the Vault for anything.
/// Then initialises it, and writes into DIR:
///
///   init-response.json          what the Vault answered: encrypted, and said only once
///   packets/ID.packet.json      a custodian's share, encrypted to it: send it to that custodian
///   CLUSTER.manifest.json       ids and public keys: for every custodian, sentinel and operator
///   root-token.pgp              the root token, encrypted: gpg --decrypt root-token.pgp
///   allowed_signers.custodians  the custodians' lines for everybody's allowed_signers
///
/// Nothing secret is shown or written in the clear, anywhere.
#[derive(Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// What to call the cluster: 1 to 63 of a-z, 0-9 and '-'
    #[arg(long, value_name = "NAME")]
    cluster: ClusterName,
    /// The Vault's address, https://HOST:PORT; with several nodes, any one of them
    #[arg(long, value_name = "URL")]
    vault: String,
    /// The CA that the Vault's certificate comes from, in PEM; no other is trusted
    #[arg(long, value_name = "FILE")]
    ca_cert: PathBuf,
    /// A custodian's enrollment.json; each gets one share
    #[arg(long = "enrollment", value_name = "FILE", required = true, num_args = 1..)]
    enrollments: Vec<PathBuf>,
    /// How many shares open the Vault: 2 or more
    #[arg(long, value_name = "T")]
    threshold: u8,
    /// Whose OpenPGP key the root token is encrypted to: the public key, armoured or binary
    #[arg(long, value_name = "FILE")]
    root_token_key: PathBuf,
    /// A fingerprint that a custodian's person read to you, as ID=XXXX-XXXX-XXXX-XXXX-XXXX; those not given are asked for
    #[arg(long = "fingerprint", value_name = "ID=FINGERPRINT", value_parser = parse_fingerprint)]
    fingerprints: Vec<(Principal, Fingerprint)>,
    /// Ask for no fingerprint: trust that the files are the custodians' own
    #[arg(long)]
    yes: bool,
    /// Where everything is written: an empty directory, or one that is not there yet
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Report in JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLE: &str = "\
Example:
  holdfast init --cluster prod --vault https://vault-1.example:8200 --ca-cert vault-ca.pem \\
    --enrollment c1/enrollment.json c2/enrollment.json c3/enrollment.json --threshold 2 \\
    --root-token-key alice.asc --output prod-ceremony

Make the root token's key with: gpg --quick-generate-key alice; gpg --export --armor alice > alice.asc";

fn parse_fingerprint(text: &str) -> Result<(Principal, Fingerprint), String> {
    let (id, fingerprint) = text.split_once('=').ok_or("expected ID=FINGERPRINT")?;
    let id = id.parse().map_err(|error: NameError| error.to_string())?;
    Ok((id, fingerprint.parse().map_err(|error: holdfast_core::ceremony::FingerprintError| error.to_string())?))
}

/// Everything that was checked, and is asked for.
struct Plan {
    cluster: ClusterName,
    id: ClusterId,
    threshold: u8,
    candidates: Vec<Candidate>,
    root_token: Addressee,
}

/// Holds the ceremony, and says so.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(init(arguments)),
        Err(error) => Err(InitError::System(format!("no runtime could be started: {error}"))),
    };
    match done {
        Ok(report) => output::report(arguments.json, &report),
        Err(error) => output::failure(&error, error.exit_code()),
    }
}

async fn init(arguments: &Arguments) -> Result<Report, InitError> {
    let plan = plan(arguments)?;
    let ca = files::read_bounded(&arguments.ca_cert, CA_PEM_MAX)?;
    let admin = Admin::new(&arguments.vault, &ca)?;
    check_vault(arguments, &admin, &plan).await?;
    let directory = Directory::prepare(&arguments.output)?;
    let compared = fingerprints::compare(&plan.candidates, &arguments.fingerprints, arguments.yes)?;

    let answer = {
        // From here until the answer is on the disk, no slip of the hand may end this.
        let _deaf = Deaf::new()?;
        let answer = ask(&admin, &plan).await?;
        keep(&directory, &answer)?;
        answer
    };
    let answer = Answer::parse(&answer, &plan)
        .map_err(|why| InitError::Answer { response: directory.response(), why: why.to_string() })?;
    answer.write(&directory, &plan)?;
    Ok(Report::new(&arguments.vault, &directory, &plan, compared))
}

fn plan(arguments: &Arguments) -> Result<Plan, InitError> {
    let count = arguments.enrollments.len();
    if arguments.threshold < 2 || usize::from(arguments.threshold) > count || count > 255 {
        return Err(InitError::Usage(format!(
            "--threshold {} of {count} enrollments: it has to be 2 or more, and no more than there are enrollments, which are 255 at most",
            arguments.threshold
        )));
    }
    let candidates = enrollments::read(&arguments.enrollments)?;
    let root_token = root_token_key(&arguments.root_token_key, &candidates)?;
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| InitError::System(format!("no random numbers: {error}")))?;
    let plan = Plan {
        cluster: arguments.cluster.clone(),
        id: ClusterId::from_bytes(id),
        threshold: arguments.threshold,
        candidates,
        root_token,
    };
    // Everything that could be found wrong with the manifest afterwards is found now.
    answer::rehearse(&plan).map_err(InitError::Together)?;
    Ok(plan)
}

fn root_token_key(path: &Path, candidates: &[Candidate]) -> Result<Addressee, InitError> {
    let file = files::read_bounded(path, ROOT_TOKEN_KEY_MAX)?;
    let key =
        Addressee::from_file(&file, unix_seconds()).map_err(|why| InitError::Key { path: path.to_owned(), why })?;
    match candidates.iter().find(|candidate| candidate.addressee.fingerprint() == key.fingerprint()) {
        None => Ok(key),
        Some(candidate) => Err(InitError::SameKey {
            first: candidate.signed.enrollment().custodian.to_string(),
            second: "the root token's holder".to_owned(),
        }),
    }
}

/// Now, in the seconds that OpenPGP counts.
fn unix_seconds() -> u32 {
    u32::try_from(now().as_millis() / 1000).unwrap_or(u32::MAX)
}

async fn check_vault(arguments: &Arguments, admin: &Admin, plan: &Plan) -> Result<(), InitError> {
    if admin.seal_status().await?.initialized {
        return Err(InitError::Initialised(arguments.vault.clone()));
    }
    let there = admin.server_time().await?;
    let custodians = plan
        .candidates
        .iter()
        .map(|candidate| (format!("{}'s", candidate.signed.enrollment().custodian), &candidate.addressee));
    for (whose, key) in custodians.chain([("the root token holder's".to_owned(), &plan.root_token)]) {
        if i64::from(key.newest()).saturating_mul(1000) > there.as_millis() {
            return Err(InitError::Clock { vault: arguments.vault.clone(), there, whose });
        }
    }
    Ok(())
}

/// Asks for the initialisation; after an error, finds out what state it left.
async fn ask(admin: &Admin, plan: &Plan) -> Result<Vec<u8>, InitError> {
    let request = InitRequest {
        secret_shares: u8::try_from(plan.candidates.len())
            .map_err(|_| InitError::Usage("too many shares".to_owned()))?,
        secret_threshold: plan.threshold,
        pgp_keys: plan.candidates.iter().map(|one| BASE64_STANDARD.encode(one.addressee.binary())).collect(),
        root_token_pgp_key: BASE64_STANDARD.encode(plan.root_token.binary()),
    };
    let first = match admin.init(&request).await {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    Err(match admin.seal_status().await {
        Ok(status) if status.initialized => InitError::Lost(first),
        Ok(_) => InitError::Failed(first),
        Err(then) => InitError::Unknown { first: Box::new(first), then: Box::new(then) },
    })
}

/// Brings the answer to the disk; where that fails, to the screen.
fn keep(directory: &Directory, answer: &[u8]) -> Result<(), InitError> {
    directory.keep_response(answer).map_err(|error| {
        output::rescue(answer);
        InitError::NotKept(error)
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
