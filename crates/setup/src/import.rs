//! `holdfast-setup import`: a share that somebody holds in the clear, typed or piped in, to a share at rest.
//!
//! What lives here: reading it, with nothing shown and nothing kept but the share itself. What does not: whether it is the right
//! one. A share bears no mark of the set that it belongs to, so nothing but the server can tell, when shares open it.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use holdfast_core::id::Principal;
use holdfast_core::share::{Share, ShareError};
use holdfast_edge::store::{Installed, StoreError};
use holdfast_edge::terminal::{self, HiddenError};
use serde::Serialize;

use crate::host::{HostArguments, HostError};
use crate::manifest::{ManifestArguments, ManifestError};
use crate::output;

/// The most that is read, in bytes: the hexadecimal text, and what stands around it in a file.
const TYPED_MAX: usize = 128;

/// Put a share that somebody holds in the clear to rest on this host
///
/// For those who must: a rotation (`holdfast adopt`) hands shares over without anybody typing one. Reads the share from standard
/// input, as hexadecimal or base64; on a terminal nothing is shown. Writes it to `CLUSTER.share.age` as `install` does. The
/// manifest has to say that this custodian's share is typed in: `holdfast adopt --import` makes such a one.
///
/// A share has no checksum, and does not say which Vault it is of. Whether it is the right one, only the server can tell: see
/// that a node opens with it (docs/CEREMONIES.md), before whoever held it destroys it.
#[derive(Args)]
#[command(after_help = "Example: holdfast-setup import --dir /etc/holdfast --manifest prod.manifest.json")]
pub(crate) struct Arguments {
    #[command(flatten)]
    manifest: ManifestArguments,
    #[command(flatten)]
    host: HostArguments,
    /// Report in JSON
    #[arg(long)]
    json: bool,
}

/// Why no share was imported. No message has anything in it of what was typed.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    /// The host's files are not acceptable.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The manifest is perhaps not the ceremony's.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The custodian's share comes another way.
    #[error("by {}, {custodian}'s share comes in a packet: holdfast-setup install", .manifest.display())]
    Packet {
        /// The manifest.
        manifest: PathBuf,
        /// Whose share.
        custodian: Principal,
    },
    /// The person broke it off.
    #[error("broken off: nothing was changed")]
    Cancelled,
    /// Nothing came.
    #[error("no share was given: type it, or pipe it into standard input")]
    Nothing,
    /// More came than any share has.
    #[error("more was given than a share has: {TYPED_MAX} bytes are the most; give the share alone, on one line")]
    TooMuch,
    /// It is not a share.
    #[error("{0}; nothing was changed")]
    NotAShare(ShareError),
    /// Reading failed, or the terminal cannot be kept from showing it.
    #[error(transparent)]
    Input(HiddenError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ImportError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Manifest(error) => error.exit_code(),
            Self::Host(HostError::Root { .. }) => output::FAILED,
            Self::Host(_) | Self::Packet { .. } | Self::Store(StoreError::Identity(_)) => output::REFUSED,
            _ => output::FAILED,
        }
    }
}

/// What was done.
#[derive(Serialize)]
struct Report {
    result: &'static str,
    cluster: String,
    generation: u32,
    manifest_fingerprint: String,
    manifest_compared: bool,
    custodian: String,
    x: u8,
    share: PathBuf,
    record: PathBuf,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (custodian, cluster) = (&self.custodian, &self.cluster);
        let again = if self.result == "already" { " already" } else { "" };
        writeln!(f, "A share of {cluster} is at rest{again} as {custodian}'s.\n")?;
        writeln!(f, "  Share:  {}", self.share.display())?;
        writeln!(f, "  Record: {}", self.record.display())?;
        if !self.manifest_compared {
            writeln!(f, "  MANIFEST'S FINGERPRINT NOT COMPARED (--yes): {}", self.manifest_fingerprint)?;
        }
        writeln!(f, "  x:      {} (each custodian's has to be another)\n", self.x)?;
        writeln!(
            f,
            "NOT PROVEN: nothing but the server can tell whether this is a share of {cluster}, and of today's set."
        )?;
        write!(f, "Open a node with it before whoever held it destroys it: docs/CEREMONIES.md, \"For those who must\".")
    }
}

/// Imports, and says so.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match import(arguments) {
        Ok(report) => output::report(arguments.json, &report),
        Err(error) => output::failure(&error, error.exit_code()),
    }
}

fn import(arguments: &Arguments) -> Result<Report, ImportError> {
    arguments.host.check_owner()?;
    let host = arguments.host.open(&arguments.manifest.path)?;
    let me = host.member()?;
    if me.packet_sha256.is_some() {
        let (manifest, custodian) = (arguments.manifest.path.clone(), me.id.clone());
        return Err(ImportError::Packet { manifest, custodian });
    }
    let manifest_compared = arguments.manifest.compare(&host)?;
    let manifest = &host.manifest;
    let share = ask(&format!("{}'s share of {} (nothing is shown): ", me.id, manifest.cluster_name()))?;
    let installed = host.store.install(&share, manifest.id(), manifest.generation(), &me.id)?;
    Ok(Report {
        result: if installed == Installed::Already { "already" } else { "imported" },
        cluster: manifest.cluster_name().to_string(),
        generation: manifest.generation(),
        manifest_fingerprint: host.manifest_fingerprint.to_string(),
        manifest_compared,
        custodian: me.id.to_string(),
        x: share.x(),
        share: host.store.share_path().to_owned(),
        record: host.store.record_path().to_owned(),
    })
}

/// Reads the share, and keeps nothing of what was typed.
fn ask(prompt: &str) -> Result<Share, ImportError> {
    let typed = terminal::read_hidden(prompt, TYPED_MAX).map_err(|error| match error {
        HiddenError::Cancelled => ImportError::Cancelled,
        HiddenError::TooMuch(_) => ImportError::TooMuch,
        HiddenError::Input { .. } => ImportError::Input(error),
    })?;
    let text = typed.trim_ascii();
    if text.is_empty() {
        return Err(ImportError::Nothing);
    }
    Share::from_text(text).map_err(ImportError::NotAShare)
}
