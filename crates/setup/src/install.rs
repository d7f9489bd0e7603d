//! `holdfast-setup install`: from a packet to a share at rest.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use holdfast_core::ceremony::{CeremonyError, MANIFEST_MAX, Manifest, PACKET_MAX, Packet};
use holdfast_edge::files::{self, FileError};
use holdfast_edge::keys::{AgeIdentity, IdentityError, KeyError, SigningKey};
use holdfast_edge::store::{Installed, ShareStore, StoreError};
use serde::Serialize;

use crate::openpgp::{DecryptError, TransportKey, TransportKeyError};
use crate::output;

/// Put this custodian's share, as a ceremony encrypted it, to rest on this host
///
/// Decrypts the share in a packet with this host's transport key, in memory, and writes it to `CLUSTER.share.age`, encrypted to
/// this host's age identity, with a record of its salted digest beside it. The packet has to be the one that the manifest
/// names for the custodian whose keys are here.
///
/// The same packet again does no harm and is a success. A different share of the same cluster is refused: a custodian never
/// holds two.
#[derive(Args)]
#[command(
    after_help = "Example: holdfast-setup install --dir /etc/holdfast --packet custodian-1.packet.json --manifest prod.manifest.json"
)]
pub(crate) struct Arguments {
    /// This custodian's packet, from `holdfast init`
    #[arg(long, value_name = "FILE")]
    packet: PathBuf,
    /// The cluster's manifest, from the same `holdfast init`
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// Where `holdfast-setup enroll` put the keys, and where the share goes
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// The age identity, if it is not DIR/identity.txt
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// The signing key, if it is not DIR/signing.key
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,
    /// The transport key, if it is not DIR/transport.key
    #[arg(long, value_name = "FILE")]
    transport_key: Option<PathBuf>,
    /// The share's file, if it is not to be DIR/CLUSTER.share.age
    #[arg(long, value_name = "FILE")]
    share: Option<PathBuf>,
    /// Report in JSON
    #[arg(long)]
    json: bool,
}

/// Why no share was installed.
#[derive(Debug, thiserror::Error)]
enum InstallError {
    /// The packet or the manifest is not acceptable.
    #[error("{}: {why}", .path.display())]
    Refused {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: CeremonyError,
    },
    /// The packet is the right one, and no share comes out of it.
    #[error("{}: {why}; ask whoever ran the ceremony for the packet again", .path.display())]
    Packet {
        /// The packet.
        path: PathBuf,
        /// What is wrong with it.
        why: DecryptError,
    },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Signing(#[from] KeyError),
    #[error(transparent)]
    Transport(#[from] TransportKeyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl InstallError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Store(StoreError::Identity(_)) => output::REFUSED,
            Self::Store(_) => output::FAILED,
            _ => output::REFUSED,
        }
    }
}

/// What was done.
#[derive(Serialize)]
struct Report {
    result: &'static str,
    cluster: String,
    cluster_id: String,
    generation: u32,
    custodian: String,
    shares: u8,
    threshold: u8,
    share: PathBuf,
    record: PathBuf,
    identity: PathBuf,
    manifest: PathBuf,
    packet: PathBuf,
    transport_key: PathBuf,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (custodian, cluster) = (&self.custodian, &self.cluster);
        match self.result {
            "already" => writeln!(f, "{custodian}'s share of {cluster} was installed already; nothing was changed.")?,
            "completed" => writeln!(f, "{custodian}'s share of {cluster} is installed: what was cut off is finished.")?,
            _ => writeln!(f, "{custodian}'s share of {cluster} is installed.")?,
        }
        writeln!(f, "\n  Cluster:    {cluster} ({})", self.cluster_id)?;
        writeln!(f, "  Generation: {}, any {} of {} shares open it", self.generation, self.threshold, self.shares)?;
        writeln!(f, "  Share:      {} (opens with {})", self.share.display(), self.identity.display())?;
        writeln!(f, "  Record:     {}\n", self.record.display())?;
        writeln!(f, "Next:")?;
        writeln!(f, "  1. Name these in the [clusters.{cluster}] section of custodian.toml:")?;
        writeln!(f, "     manifest = {:?}", self.manifest.display().to_string())?;
        writeln!(f, "     share = {:?}", self.share.display().to_string())?;
        writeln!(f, "     identity = {:?}", self.identity.display().to_string())?;
        writeln!(f, "  2. holdfast-custodian check, and start it.")?;
        writeln!(
            f,
            "  3. When every custodian has installed: remove {} and {} here. Together they are this share once more.",
            self.packet.display(),
            self.transport_key.display()
        )?;
        write!(f, "     Keep the transport key only if this host is to take part in another ceremony.")
    }
}

/// Installs, and says so.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match install(arguments) {
        Ok(report) => output::report(arguments.json, &report),
        Err(error) => output::failure(&error, error.exit_code()),
    }
}

fn install(arguments: &Arguments) -> Result<Report, InstallError> {
    let beside = |given: &Option<PathBuf>, name: &str| given.clone().unwrap_or_else(|| arguments.dir.join(name));
    let identity_path = beside(&arguments.identity, "identity.txt");
    let transport_path = beside(&arguments.transport_key, "transport.key");

    let (manifest, packet) = admit(
        arguments,
        &AgeIdentity::load(&identity_path)?,
        &SigningKey::load(&beside(&arguments.signing_key, "signing.key"))?,
    )?;
    let share_path = beside(&arguments.share, &format!("{}.share.age", manifest.cluster_name()));
    let store = ShareStore::open(&share_path, &identity_path);

    let share = TransportKey::load(&transport_path)?
        .decrypt_share(&packet.openpgp_message)
        .map_err(|why| InstallError::Packet { path: arguments.packet.clone(), why })?;
    let installed = store.install(&share, manifest.id(), manifest.generation(), &packet.custodian)?;

    Ok(Report {
        result: match installed {
            Installed::New => "installed",
            Installed::Completed => "completed",
            Installed::Already => "already",
        },
        cluster: manifest.cluster_name().to_string(),
        cluster_id: manifest.id().to_string(),
        generation: manifest.generation(),
        custodian: packet.custodian.to_string(),
        shares: manifest.shares(),
        threshold: manifest.threshold(),
        share: store.share_path().to_owned(),
        record: store.record_path().to_owned(),
        identity: identity_path,
        manifest: arguments.manifest.clone(),
        packet: arguments.packet.clone(),
        transport_key: transport_path,
    })
}

/// The packet, if it is the one that the manifest names for the holder of these keys.
fn admit(
    arguments: &Arguments,
    identity: &AgeIdentity,
    signing_key: &SigningKey,
) -> Result<(Manifest, Packet), InstallError> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |why| InstallError::Refused { path, why }
    };
    let manifest = files::read_bounded(&arguments.manifest, MANIFEST_MAX)?;
    let manifest = Manifest::parse(&manifest).map_err(refused(&arguments.manifest))?;
    let packet = files::read_bounded(&arguments.packet, PACKET_MAX)?;
    let packet = manifest
        .admit(&packet, &identity.recipient().to_text(), signing_key.public_key())
        .map_err(refused(&arguments.packet))?;
    Ok((manifest, packet))
}
