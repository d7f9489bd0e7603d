//! `holdfast init`: the ceremony that initialises a Vault with its shares encrypted to custodians.
//!
//! What lives here: the order of the steps. Everything that can be wrong is looked at before the server is asked, because a
//! server that is initialised with a bad key keeps nobody's shares; and what the server answers is on the disk before it is
//! looked at, because it says it once. What does not: a plaintext. This program could decrypt nothing that it handles.

mod answer;
mod directory;
mod enrollments;
mod fingerprints;
mod openpgp;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::prelude::{BASE64_STANDARD, Engine};
use clap::Args;
use holdfast_core::ceremony::{CeremonyError, Fingerprint};
use holdfast_core::id::{ClusterId, ClusterName, NameError, Principal};
use holdfast_core::time::Timestamp;
use holdfast_edge::admin::{Admin, AdminError, InitRequest};
use holdfast_edge::files::{self, FileError};
use holdfast_edge::keys::RecipientError;
use holdfast_edge::tls::CA_PEM_MAX;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::answer::Answer;
use self::directory::Directory;
use self::enrollments::Candidate;
use self::openpgp::{Addressee, KeyRefusal};
use self::report::Report;
use crate::output;
use holdfast_edge::clock::wall as now;

/// The set of shares that an initialisation makes.
const GENERATION: u32 = 1;

/// The largest root token key that is read, in bytes: people's keys carry pictures and other people's signatures.
const ROOT_TOKEN_KEY_MAX: usize = 1024 * 1024;

/// Initialise a Vault, its shares encrypted to custodians: the ceremony
///
/// Takes the enrollments that `holdfast-setup enroll` made on the custodians' hosts, and checks them all, the root token's
/// key, the output directory and the Vault, before it asks the Vault for anything. Then initialises it, and writes into DIR:
///
///   init-response.json      what the Vault answered: encrypted, and said only once
///   packets/ID.packet.json  each custodian's share, encrypted to it: send it to that custodian
///   CLUSTER.manifest.json   ids and public keys: goes to every custodian, sentinel and operator
///   root-token.pgp          the root token, encrypted: gpg --decrypt root-token.pgp
///   allowed_signers.custodians   the custodians' lines for everybody's allowed_signers
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

/// Why there was no ceremony, or not all of it.
#[derive(Debug, thiserror::Error)]
enum InitError {
    /// The arguments do not fit each other.
    #[error("{0}")]
    Usage(String),
    /// An enrollment is not acceptable.
    #[error("{}: {why}", .path.display())]
    Enrollment {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: CeremonyError,
    },
    /// An enrollment's age recipient is not acceptable.
    #[error("{}: {why}", .path.display())]
    Recipient {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: RecipientError,
    },
    /// An OpenPGP key is not one that the Vault takes.
    #[error("{}: the Vault would not take this OpenPGP key: {why}", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: KeyRefusal,
    },
    /// Two enrollments of one custodian or key, or a manifest that could not be made of them.
    #[error("these enrollments do not make a cluster: {0}")]
    Together(CeremonyError),
    /// Two parties with one OpenPGP key.
    #[error("{first} and {second} have the same OpenPGP key: each share and the root token need a holder of their own")]
    SameKey {
        /// Who came first.
        first: String,
        /// Who came second.
        second: String,
    },
    /// A fingerprint is not the one that was compared.
    #[error("{}: the fingerprint of {custodian}'s enrollment is {found}, not {expected}: this is not the file that {custodian} made; get it again", .path.display())]
    Fingerprint {
        /// The file.
        path: PathBuf,
        /// Whose it claims to be.
        custodian: Principal,
        /// What it is.
        found: Fingerprint,
        /// What the custodian's person read out.
        expected: Fingerprint,
    },
    /// A person said that it is not the same.
    #[error("{custodian}'s fingerprint was not confirmed: nothing was done; get the enrollment again")]
    Unconfirmed {
        /// Whose.
        custodian: Principal,
    },
    /// The output directory has something in it.
    #[error("{} is not empty ({found} is in it): nothing was done; give a new directory for each ceremony", .dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// Something that is in it.
        found: String,
    },
    /// The output directory could not be made or written.
    #[error("{} cannot be used for the output: {why}", .dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What happened.
        why: String,
    },
    /// The Vault has shares already.
    #[error("{0} is initialised already, and its shares were given out then: nothing was done")]
    Initialised(String),
    /// The Vault's clock is behind a key.
    #[error(
        "{vault} says it is {there}, and {whose} OpenPGP key is younger than that: the Vault would refuse it; set the clocks right and try again"
    )]
    Clock {
        /// The address.
        vault: String,
        /// Its time.
        there: Timestamp,
        /// Whose key.
        whose: String,
    },
    /// Asking the Vault failed, before anything was changed.
    #[error("{0}; nothing was changed there")]
    Admin(#[from] AdminError),
    /// The initialisation failed, and the Vault is not initialised.
    #[error("the Vault was not initialised: {0}; mend that and try again with a new --output")]
    Failed(AdminError),
    /// The initialisation failed, and the Vault is initialised.
    #[error(
        "the Vault refused or its answer was lost ({0}), and it is initialised now, with shares that nobody got, unless somebody else initialised it at this moment: it holds no data yet, so stop it, remove its storage, and begin again"
    )]
    Lost(AdminError),
    /// The initialisation failed, and nobody knows.
    #[error(
        "the Vault's answer was lost ({first}), and it does not say whether it is initialised ({then}): look at its seal-status; if it is initialised, stop it, remove its storage, and begin again"
    )]
    Unknown {
        /// What went wrong with the request.
        first: AdminError,
        /// What went wrong with the question.
        then: AdminError,
    },
    /// The answer could not be written, and was printed instead.
    #[error(
        "{0}; THE VAULT IS INITIALISED, and its answer, which it will not repeat, could not be kept: it was printed above instead, all of it encrypted; keep it, or remove the Vault's storage and begin again"
    )]
    NotKept(FileError),
    /// The answer is not what was asked for.
    #[error("THE VAULT IS INITIALISED, and its answer is in {}, but it is not what was asked for: {why}", .response.display())]
    Answer {
        /// Where the answer is.
        response: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file could not be written after the initialisation.
    #[error("{why}; THE VAULT IS INITIALISED, and all shares are, encrypted, in {}: keep it", .response.display())]
    Unfinished {
        /// Where the answer is.
        response: PathBuf,
        /// What happened.
        why: FileError,
    },
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The system did not provide something.
    #[error("{0}")]
    System(String),
}

impl InitError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Admin(AdminError::Address { .. }) => output::USAGE,
            Self::Enrollment { .. }
            | Self::Recipient { .. }
            | Self::Key { .. }
            | Self::Together(_)
            | Self::SameKey { .. }
            | Self::Fingerprint { .. }
            | Self::File(_)
            | Self::Admin(AdminError::Ca(_)) => output::REFUSED,
            _ => output::FAILED,
        }
    }
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
        Err(then) => InitError::Unknown { first, then },
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
