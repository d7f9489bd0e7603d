//! `holdfast adopt`: a Vault that exists is handed over to custodians and holders, by the servers' own rotation.
//!
//! What lives here: everything around that rotation. Before it, every key is checked as `init` does, and the command is printed
//! that rotates; after it, the same command line with `--rotated` sorts what was printed. What does not: a share, in the clear or
//! entered anywhere. Today's people enter theirs into the tool that they know, and nothing of theirs passes through here.
//!
//! Run again, it does what is missing. `adoption.json` is there before anything else is, and says of which rotation, as soon as there
//! is one.

mod error;
mod report;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use holdfast_core::ceremony::{MANIFEST_MAX, Manifest, ROTATED_MAX, Rotated};
use holdfast_core::id::{ClusterId, ClusterName, Principal};
use holdfast_core::seal_status::{SealKind, SealStatus};
use holdfast_core::time::Timestamp;
use holdfast_edge::admin::Admin;
use holdfast_edge::clock::wall as now;
use holdfast_edge::files::{self, FileError, PUBLIC_MODE, SECRET_MODE};
use holdfast_edge::tls::CA_PEM_MAX;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::error::AdoptError;
use self::report::{Report, Stage, Standing, Trouble};
use crate::init::directory::Directory;
use crate::init::fingerprints;
use crate::init::holders;
use crate::init::openpgp::Addressee;
use crate::init::parcels::{Parcels, allowed_signers, holder, member};
use crate::init::plan::{self, PartyArguments, Plan};
use crate::init::{InitError, enrollments, losses, server};
use crate::output;

/// The largest journal that is read, in bytes: names and numbers.
const JOURNAL_MAX: usize = 4 * 1024;

/// The version of the journal that this program writes, and the only one it reads.
const VERSION: u64 = 1;

/// What the journal is, as its field `kind` says.
const KIND: &str = "adoption";

/// Hand a Vault that exists over to custodians and holders, without anybody typing a share anywhere new
///
/// In two steps, with one command line. First as it stands here: checks every key and the Vault, and
/// prints the command of the Vault's own tool that rotates its shares. Today's people enter theirs
/// into that tool. Then the same again with `--rotated FILE`: takes what the tool printed, finds out
/// whose each share is, and writes into DIR what `init` writes, but for a root token:
///
///   adoption.json               that DIR is this adoption's, and of which rotation
///   keys/NAME.pgp               the checked keys, for the rotation
///   rotated.txt                 what the tool printed: encrypted, and printed only once
///   packets/ID.packet.json      a custodian's share, encrypted to it: send it to that custodian
///   holders/NAME.share.asc      a holder's share, encrypted to that person
///   holders/NAME.sheet.html     the same to be printed and put away, with how to use it
///   CLUSTER.manifest.json       ids and public keys: for every custodian, sentinel and operator
///   allowed_signers.custodians  the custodians' lines for everybody's allowed_signers
///
/// Until the new shares are verified, today's stay valid, and nothing is lost by breaking off.
/// docs/CEREMONIES.md, "A Vault that exists", walks through all of it.
#[derive(Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// What to call the cluster: 1 to 63 of a-z, 0-9 and '-'
    #[arg(long, value_name = "NAME")]
    cluster: ClusterName,
    /// The Vault's address, https://HOST:PORT; with several nodes, the active one
    #[arg(long, value_name = "URL")]
    vault: String,
    /// The CA that the Vault's certificate comes from, in PEM; no other is trusted
    #[arg(long, value_name = "FILE")]
    ca_cert: PathBuf,
    /// A custodian's enrollment.json; each gets one share
    #[arg(long = "enrollment", value_name = "FILE", required = true, num_args = 1..)]
    enrollments: Vec<PathBuf>,
    /// How many shares are to open the Vault: 2 or more
    #[arg(long, value_name = "T")]
    threshold: u8,
    /// The cluster's present manifest, where custodians hold shares of it already: the new one is its next generation
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
    #[command(flatten)]
    parties: PartyArguments,
    /// What the rotation printed when the last of today's shares was entered, as text or JSON; `-` for standard input
    #[arg(long, value_name = "FILE")]
    rotated: Option<PathBuf>,
    /// No rotation: today's shares stay, and each custodian's is typed in on its host with `holdfast-setup import`
    #[arg(long, conflicts_with_all = ["rotated", "previous"])]
    import: bool,
    /// Where everything is written, the same for both steps: an empty directory at first, or one that is not there yet
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Report in JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLE: &str = "\
Example:
  holdfast adopt --cluster prod --vault https://vault-1.example:8200 --ca-cert vault-ca.pem \\
    --enrollment c1/enrollment.json c2/enrollment.json c3/enrollment.json --threshold 3 \\
    --holder alice.asc --holder bob.asc --holder carol.asc --output prod-adoption
  … and, when the rotation has printed the new shares, the same with --rotated rotated.txt";

/// Whose a directory is, and of which rotation the files in it are made.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Journal {
    v: u64,
    kind: String,
    id: ClusterId,
    generation: u32,
    made_at: Timestamp,
    /// Of what the rotation printed; nothing until it has.
    rotated_sha256: Option<String>,
}

/// Adopts, and says so.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(adopt(arguments)),
        Err(error) => Err(InitError::System(format!("no runtime could be started: {error}")).into()),
    };
    match done {
        Ok(report) => output::report(arguments.json, &report),
        Err(error) => output::failure(&error, error.exit_code()),
    }
}

async fn adopt(arguments: &Arguments) -> Result<Report, AdoptError> {
    check_output(&arguments.output)?;
    let mut plan = plan(arguments)?;
    losses::check(&plan, &arguments.parties)?;
    let rotated = arguments.rotated.as_ref().map(|path| read_rotated(path)).transpose()?;
    // Whatever is wrong with it is said before anything is written.
    let messages = rotated.as_deref().map(|file| messages(file, &plan, arguments)).transpose()?;
    let standing = ask(arguments, &plan).await?;
    if let Some(found) = standing.numbers.filter(|found| arguments.import && *found != (plan.threshold, plan.shares()))
    {
        let planned = (plan.threshold, plan.candidates.len() + plan.people.len());
        return Err(AdoptError::OtherNumbers { vault: plan.vault, found, planned });
    }
    let compared = fingerprints::compare(&plan, &arguments.parties)?;

    let directory = open(&arguments.output)?;
    let stage = match (&rotated, messages) {
        (Some(rotated), Some(messages)) => {
            begin(&directory, &mut plan, Some(rotated))?;
            let parcels = Parcels::new(&plan, messages).map_err(InitError::Together)?;
            parcels.check(&plan).map_err(InitError::Together)?;
            directory.make_room()?;
            parcels.write(&directory, &plan)?;
            Stage::Rotated
        }
        _ if arguments.import => {
            begin(&directory, &mut plan, Some(b""))?;
            write_manifest(&directory, &plan)?;
            Stage::Import
        }
        _ => {
            begin(&directory, &mut plan, None)?;
            Stage::Planned { keys: write_keys(&directory, &plan)? }
        }
    };
    Ok(Report::new(arguments, &directory, &plan, &compared, stage, standing))
}

fn plan(arguments: &Arguments) -> Result<Plan, AdoptError> {
    let (id, generation) = match &arguments.previous {
        Some(path) => previous(path, &arguments.cluster)?,
        None => (plan::random_id()?, 1),
    };
    let plan = Plan {
        cluster: arguments.cluster.clone(),
        id,
        generation,
        threshold: arguments.threshold,
        candidates: enrollments::read(&arguments.enrollments)?,
        people: holders::read(&arguments.parties.holders)?,
        vault: arguments.vault.clone(),
        made_at: now(),
    };
    plan.check()?;
    Ok(plan)
}

/// The id of a cluster that custodians serve already, and the number of its next generation.
fn previous(path: &Path, cluster: &ClusterName) -> Result<(ClusterId, u32), AdoptError> {
    let refused = |why: String| AdoptError::Previous { path: path.to_owned(), why };
    let file = files::read_bounded(path, MANIFEST_MAX)?;
    let manifest = Manifest::parse(&file).map_err(|why| refused(why.to_string()))?;
    if manifest.cluster_name() != cluster {
        return Err(refused(format!("it is of cluster {}, not {cluster}", manifest.cluster_name())));
    }
    let next = manifest.generation().checked_add(1).ok_or_else(|| refused("its generation is the last".to_owned()))?;
    Ok((manifest.id(), next))
}

fn read_rotated(path: &Path) -> Result<Vec<u8>, AdoptError> {
    if path != Path::new("-") {
        return Ok(files::read_bounded(path, ROTATED_MAX)?);
    }
    let mut file = Vec::new();
    let read = io::stdin().lock().take(ROTATED_MAX as u64 + 1).read_to_end(&mut file);
    read.map_err(|error| InitError::System(format!("standard input cannot be read: {error}")))?;
    Ok(file)
}

/// Each one's message, in the order of the plan's addressees.
fn messages(file: &[u8], plan: &Plan, arguments: &Arguments) -> Result<Vec<Vec<u8>>, AdoptError> {
    let path = arguments.rotated.clone().unwrap_or_default();
    let rotated = Rotated::parse(file).map_err(|why| AdoptError::Rotated { path: path.clone(), why })?;
    let (found, expected) = (rotated.shares().len(), plan.shares());
    if found != usize::from(expected) {
        return Err(AdoptError::Count { path, found, expected });
    }
    let known = |fingerprint: &str| plan.addressees().any(|(_, key)| key.fingerprint().to_string() == fingerprint);
    if let Some(stranger) = rotated.shares().iter().find(|share| !known(&share.fingerprint)) {
        return Err(AdoptError::Stranger { path, fingerprint: stranger.fingerprint.clone() });
    }
    let messages = rotated.shares().iter().map(|share| share.openpgp_message.clone()).collect();
    Parcels::sort(messages, plan).map_err(|name| AdoptError::Missing { path, name })
}

/// The Vault, as far as it tells without a token. Once the shares are there, it is not needed to sort them: that it is sealed or
/// silent is then told, and refuses nothing.
async fn ask(arguments: &Arguments, plan: &Plan) -> Result<Standing, AdoptError> {
    let admin =
        Admin::new(&plan.vault, &files::read_bounded(&arguments.ca_cert, CA_PEM_MAX)?).map_err(InitError::Admin)?;
    let rotated = arguments.rotated.is_some();
    let status = match admin.seal_status().await {
        Err(error) if rotated => return Ok(Standing { numbers: None, trouble: Some(Trouble::Silent(error)) }),
        status => status.map_err(InitError::Admin)?,
    };
    let unfit = |why| AdoptError::Unfit { vault: plan.vault.clone(), why };
    match &status {
        SealStatus { initialized: false, .. } => return Err(unfit("is not initialised: holdfast init does that")),
        SealStatus { kind: SealKind::Other, .. } => {
            return Err(unfit("is not opened by shares: its seal is of another type than shamir"));
        }
        SealStatus { sealed: true, .. } if !rotated => {
            return Err(unfit("is sealed, and shares can be rotated only while it is open: open it first"));
        }
        _ => {}
    }
    // What its clock would have refused is encrypted already.
    if !rotated {
        server::check_clock(&admin, plan, None).await?;
    }
    let numbers = Some((status.threshold, status.shares));
    Ok(Standing { numbers, trouble: status.sealed.then_some(Trouble::Sealed) })
}

fn open(path: &Path) -> Result<Directory, AdoptError> {
    files::ensure_directory(path)?;
    let directory = Directory::open(path)?;
    // Looked at once more, now that nobody else can be at it.
    check_output(path)?;
    Ok(directory)
}

/// Refuses a directory that anything else is in. Changes nothing.
fn check_output(path: &Path) -> Result<(), AdoptError> {
    if Directory::has_ceremony(path) {
        return Err(AdoptError::Taken { dir: path.to_owned() });
    }
    Ok(Directory::check_adoptions(path)?)
}

/// Brings to the disk that the directory is this adoption's, and, once there is a rotation, of which the files will be and what it
/// printed; or takes the numbers of an earlier run that was cut off.
fn begin(directory: &Directory, plan: &mut Plan, rotated: Option<&[u8]>) -> Result<(), AdoptError> {
    let rotated_sha256 = rotated.map(|rotated| hex::encode(Sha256::digest(rotated)));
    match read_journal(directory)? {
        // It has files of a rotation.
        Some(journal) if journal.rotated_sha256.is_some() => {
            let same = rotated_sha256.is_none() || journal.rotated_sha256 == rotated_sha256;
            if !same {
                return Err(AdoptError::Another { dir: directory.path().to_owned() });
            }
            check_generation(directory, &journal, plan)?;
            (plan.id, plan.made_at) = (journal.id, journal.made_at);
        }
        // The first step may be taken anew, with other arguments; the second follows the first.
        journal => {
            if let (Some(journal), Some(_)) = (&journal, rotated) {
                check_generation(directory, journal, plan)?;
            }
            let (id, generation, made_at) = (plan.id, plan.generation, plan.made_at);
            let journal = Journal { v: VERSION, kind: KIND.to_owned(), id, generation, made_at, rotated_sha256 };
            let file = serde_json::to_vec_pretty(&journal).expect("strings and numbers always become JSON");
            files::replace(&directory.adoption(), &file, SECRET_MODE)?;
        }
    }
    if let Some(rotated) = rotated.filter(|rotated| !rotated.is_empty()) {
        files::ensure(&directory.path().join("rotated.txt"), rotated, SECRET_MODE)?;
    }
    Ok(())
}

/// Refuses a second step for another generation than the first one's: its `--previous` was forgotten, or is another cluster's.
fn check_generation(directory: &Directory, journal: &Journal, plan: &Plan) -> Result<(), AdoptError> {
    let (begun, now) = (journal.generation, plan.generation);
    match begun == now {
        true => Ok(()),
        false => Err(AdoptError::OtherGeneration { dir: directory.path().to_owned(), begun, now }),
    }
}

fn read_journal(directory: &Directory) -> Result<Option<Journal>, AdoptError> {
    let path = directory.adoption();
    let file = match files::read_bounded(&path, JOURNAL_MAX) {
        Err(FileError::Missing { .. }) => return Ok(None),
        file => file?,
    };
    let damaged = |why: String| AdoptError::Journal { path: path.clone(), why };
    let journal: Journal = serde_json::from_slice(&file).map_err(|error| damaged(error.to_string()))?;
    if journal.v != VERSION || journal.kind != KIND {
        return Err(damaged(format!("it is of kind {:?} and version {}", journal.kind, journal.v)));
    }
    Ok(Some(journal))
}

/// The keys as the rotation takes them: checked, and with nothing in them that nobody looked at.
fn write_keys(directory: &Directory, plan: &Plan) -> Result<Vec<PathBuf>, AdoptError> {
    let folder = directory.path().join("keys");
    files::ensure_directory(&folder)?;
    let write = |(name, key): (&Principal, &Addressee)| {
        let path = folder.join(format!("{name}.pgp"));
        files::replace(&path, key.binary(), PUBLIC_MODE)?;
        Ok(path)
    };
    plan.addressees().map(write).collect()
}

/// The manifest of a cluster whose custodians' shares are typed in, and their lines.
fn write_manifest(directory: &Directory, plan: &Plan) -> Result<(), AdoptError> {
    let members = plan.candidates.iter().map(|candidate| member(candidate, None)).collect();
    let holders = plan.people.iter().map(holder).collect();
    let manifest = Manifest::new(plan.cluster.clone(), plan.id, plan.generation, plan.threshold, members, holders)
        .map_err(InitError::Together)?;
    files::ensure(&directory.manifest(&plan.cluster), &manifest.to_file(), PUBLIC_MODE)?;
    Ok(files::ensure(&directory.allowed_signers(), allowed_signers(plan).as_bytes(), PUBLIC_MODE)?)
}
