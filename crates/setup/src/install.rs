//! `holdfast-setup install`: from a packet, or from what a rotation printed, to a share at rest; and then without what brought it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use holdfast_core::ceremony::{PACKET_MAX, Packet, ROTATED_MAX, Rotated, RotatedError, TRANSPORT_KEY_FILE};
use holdfast_core::id::Principal;
use holdfast_edge::files::{self, FileError};
use holdfast_edge::store::{Installed, StoreError};
use serde::Serialize;

use crate::host::{Host, HostArguments, HostError};
use crate::manifest::{ManifestArguments, ManifestError};
use crate::openpgp::{DecryptError, TransportKey, TransportKeyError};
use crate::output;

/// Put this custodian's share, as a ceremony encrypted it, to rest on this host
///
/// Decrypts the share in a packet with this host's transport key, in memory, and writes it to `CLUSTER.share.age`, encrypted to
/// this host's age identity, with a record of its salted digest beside it. The packet has to be the one that the manifest
/// names for the custodian whose keys are here. Instead of a packet it takes what `bao operator rotate-keys` or `vault operator
/// rekey` printed, and finds its own share in it.
///
/// The manifest's fingerprint is asked for, or given: whoever held the ceremony reads it to you. When the share is at rest and was
/// seen to come out again, the packet and the transport key are erased: whoever has both has the share. The same again does no harm and is a success, also when both are gone. A share of an older generation is kept
/// beside the new one. A different share of the same generation is refused: a custodian never holds two.
#[derive(Args)]
#[command(
    after_help = "Example: holdfast-setup install --dir /etc/holdfast --packet custodian-1.packet.json --manifest prod.manifest.json"
)]
pub(crate) struct Arguments {
    /// This custodian's packet, from `holdfast init` or `holdfast adopt`
    #[arg(long, value_name = "FILE", required_unless_present = "keys")]
    packet: Option<PathBuf>,
    /// What the rotation printed, as text or JSON, instead of a packet; it is not erased, others may need it
    #[arg(long, value_name = "FILE", conflicts_with = "packet")]
    keys: Option<PathBuf>,
    #[command(flatten)]
    manifest: ManifestArguments,
    #[command(flatten)]
    host: HostArguments,
    /// The transport key, if it is not DIR/transport.key
    #[arg(long, value_name = "FILE")]
    transport_key: Option<PathBuf>,
    /// Do not erase the transport key: this host takes part in another ceremony, or the rotation is not verified yet
    #[arg(long)]
    keep_transport_key: bool,
    /// Report in JSON
    #[arg(long)]
    json: bool,
}

/// Why no share was installed.
#[derive(Debug, thiserror::Error)]
enum InstallError {
    /// The host's files or the packet are not acceptable.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The manifest is perhaps not the ceremony's.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// What a rotation printed is not all of it.
    #[error("{}: {why}", .path.display())]
    Rotated {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: RotatedError,
    },
    /// Another number of shares than the manifest's.
    #[error("{}: it has {found} shares, and the manifest is of {expected}: take both from one ceremony", .path.display())]
    Count {
        /// The file.
        path: PathBuf,
        /// How many are in it.
        found: usize,
        /// How many there should be.
        expected: u8,
    },
    /// None of the shares is ours.
    #[error("{}: none of the shares in it is encrypted to {}: this host's key was not in that rotation, or the transport key was made anew since", .path.display(), .transport_key.display())]
    NotAddressed {
        /// The file.
        path: PathBuf,
        /// The key.
        transport_key: PathBuf,
    },
    /// Several of them are.
    #[error("{}: {found} of the shares in it are encrypted to {}, and a custodian never holds two: rotate again, with each key once", .path.display(), .transport_key.display())]
    Several {
        /// The file.
        path: PathBuf,
        /// How many.
        found: usize,
        /// The key.
        transport_key: PathBuf,
    },
    /// The packet is the right one, and no share comes out of it.
    #[error("{}: {why}; ask whoever ran the ceremony for the packet again", .path.display())]
    Packet {
        /// The packet.
        path: PathBuf,
        /// What is wrong with it.
        why: DecryptError,
    },
    /// Nothing decrypts the packet any more.
    #[error("{} does not exist: it was erased after an earlier installation, or this host was never enrolled; holdfast-setup enroll --again makes a new one, for the next rotation", .0.display())]
    NoTransportKey(PathBuf),
    /// The share is at rest, and what brought it is still there.
    #[error("the share is installed, but {0}: remove it by hand")]
    NotErased(FileError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Transport(#[from] TransportKeyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl InstallError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Manifest(error) => error.exit_code(),
            Self::Store(StoreError::Identity(_)) => output::REFUSED,
            Self::Host(HostError::Root { .. }) | Self::Store(_) | Self::NotErased(_) => output::FAILED,
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
    /// The older generation whose share stood in this one's place, and is kept.
    kept_generation: Option<u32>,
    custodian: String,
    shares: u8,
    threshold: u8,
    share: PathBuf,
    record: PathBuf,
    identity: PathBuf,
    manifest: PathBuf,
    manifest_fingerprint: String,
    manifest_compared: bool,
    /// What was erased.
    erased: Vec<PathBuf>,
    /// The transport key, if it is there still.
    transport_key: Option<PathBuf>,
    /// Whether that key was made for another ceremony than the manifest's, and was kept for that.
    transport_key_is_anothers: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (custodian, cluster) = (&self.custodian, &self.cluster);
        match self.result {
            "already" => writeln!(f, "{custodian}'s share of {cluster} was installed already; it was not changed.")?,
            "completed" => writeln!(f, "{custodian}'s share of {cluster} is installed: what was cut off is finished.")?,
            _ => writeln!(f, "{custodian}'s share of {cluster} is installed.")?,
        }
        writeln!(f, "\n  Cluster:    {cluster} ({})", self.cluster_id)?;
        writeln!(f, "  Generation: {}, any {} of {} shares open it", self.generation, self.threshold, self.shares)?;
        if let Some(kept) = self.kept_generation {
            writeln!(f, "              generation {kept} is kept beside it: a node that slept needs it once")?;
        }
        writeln!(f, "  Share:      {} (opens with {})", self.share.display(), self.identity.display())?;
        writeln!(f, "  Record:     {}", self.record.display())?;
        for erased in &self.erased {
            writeln!(f, "  Erased:     {}", erased.display())?;
        }
        if let Some(key) = &self.transport_key {
            let why = match self.transport_key_is_anothers {
                true => "made anew since, for another ceremony: it waits for that one's packet",
                false => "erased by the same command without --keep-transport-key",
            };
            writeln!(f, "  Kept:       {} ({why})", key.display())?;
        }
        if !self.manifest_compared {
            writeln!(f, "  MANIFEST'S FINGERPRINT NOT COMPARED (--yes): {}", self.manifest_fingerprint)?;
        }
        if let Some(kept) = self.kept_generation {
            writeln!(
                f,
                "\nNext, and not before the rotation is verified: until then the old shares open the Vault, and"
            )?;
            writeln!(
                f,
                "custodian.toml goes on naming the manifest of generation {kept} (docs/CEREMONIES.md, \"Generations\")."
            )?;
        } else if self.transport_key.is_some() && !self.transport_key_is_anothers {
            writeln!(f, "\nNext, when the rotation is verified, if this is a rotation's share (docs/CEREMONIES.md):")?;
        } else {
            writeln!(f, "\nNext:")?;
        }
        writeln!(f, "  1. Name these in the [clusters.{cluster}] section of custodian.toml:")?;
        writeln!(f, "     manifest = {:?}", self.manifest.display().to_string())?;
        writeln!(f, "     share = {:?}", self.share.display().to_string())?;
        writeln!(f, "     identity = {:?}", self.identity.display().to_string())?;
        write!(f, "  2. holdfast-custodian check, and start it; one that runs reads them again on SIGHUP.")
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
    arguments.host.check_owner()?;
    let host = arguments.host.open(&arguments.manifest.path)?;
    host.member()?;
    let manifest_compared = arguments.manifest.compare(&host)?;
    let transport_path = arguments.host.beside(arguments.transport_key.as_ref(), TRANSPORT_KEY_FILE);
    let mut anothers = false;
    let (installed, custodian) = match bring(arguments, &host, &transport_path) {
        // What brought it is gone, because it was brought.
        Err(InstallError::NoTransportKey(_) | InstallError::Host(HostError::File(FileError::Missing { .. })))
            if host.has_share() =>
        {
            // A key that is here all the same may have been made since, for the next ceremony.
            anothers = transport_path.exists() && !host.was_enrolled_by(&arguments.host.enrollment());
            (Installed::Already, host.member()?.id.clone())
        }
        other => other?,
    };

    // The key first: other copies of the packet may be about.
    let mut erased = Vec::new();
    let key = (!arguments.keep_transport_key && !anothers).then_some(&transport_path);
    for path in key.into_iter().chain(&arguments.packet) {
        if files::erase(path).map_err(InstallError::NotErased)? {
            erased.push(path.clone());
        }
    }
    let Host { manifest, manifest_fingerprint, store, identity_path, .. } = host;
    Ok(Report {
        result: match installed {
            Installed::New => "installed",
            Installed::Completed => "completed",
            Installed::Already => "already",
            Installed::Renewed(_) => "renewed",
        },
        cluster: manifest.cluster_name().to_string(),
        cluster_id: manifest.id().to_string(),
        generation: manifest.generation(),
        kept_generation: store.kept()?.pop(),
        custodian: custodian.to_string(),
        shares: manifest.shares(),
        threshold: manifest.threshold(),
        share: store.share_path().to_owned(),
        record: store.record_path().to_owned(),
        identity: identity_path,
        manifest: arguments.manifest.path.clone(),
        manifest_fingerprint: manifest_fingerprint.to_string(),
        manifest_compared,
        erased,
        transport_key: transport_path.exists().then_some(transport_path),
        transport_key_is_anothers: anothers,
    })
}

/// Brings the share from where it is encrypted to where it is at rest.
fn bring(arguments: &Arguments, host: &Host, transport_path: &Path) -> Result<(Installed, Principal), InstallError> {
    let transport_key = || match TransportKey::load(transport_path) {
        Err(TransportKeyError::File(FileError::Missing { .. })) => {
            Err(InstallError::NoTransportKey(transport_path.to_owned()))
        }
        other => Ok(other?),
    };
    let (path, packet, key) = if let Some(path) = &arguments.keys {
        let file = files::read_bounded(path, ROTATED_MAX).map_err(HostError::File)?;
        let key = transport_key()?;
        (path, printed(host, path, &file, &key, transport_path)?, key)
    } else {
        let path = arguments.packet.as_ref().expect("clap demands one of the two");
        let file = files::read_bounded(path, PACKET_MAX).map_err(HostError::File)?;
        (path, host.admit(path, &file)?, transport_key()?)
    };
    let share =
        key.decrypt_share(&packet.openpgp_message).map_err(|why| InstallError::Packet { path: path.clone(), why })?;
    let manifest = &host.manifest;
    let installed = host.store.install(&share, manifest.id(), manifest.generation(), &packet.custodian)?;
    Ok((installed, packet.custodian))
}

/// The packet that the manifest names, made again from what the rotation printed: the same bytes give the same digest.
fn printed(
    host: &Host,
    path: &Path,
    file: &[u8],
    key: &TransportKey,
    transport_path: &Path,
) -> Result<Packet, InstallError> {
    let rotated = Rotated::parse(file).map_err(|why| InstallError::Rotated { path: path.to_owned(), why })?;
    let (path, manifest) = (path.to_owned(), &host.manifest);
    if rotated.shares().len() != usize::from(manifest.shares()) {
        let (found, expected) = (rotated.shares().len(), manifest.shares());
        return Err(InstallError::Count { path, found, expected });
    }
    let ours: Vec<_> = rotated.shares().iter().filter(|share| key.is_addressed(&share.openpgp_message)).collect();
    let transport_key = transport_path.to_owned();
    let share = match ours[..] {
        [] => return Err(InstallError::NotAddressed { path, transport_key }),
        [share] => share,
        _ => return Err(InstallError::Several { path, found: ours.len(), transport_key }),
    };
    let packet = Packet {
        cluster: manifest.id(),
        cluster_name: manifest.cluster_name().clone(),
        generation: manifest.generation(),
        custodian: host.member()?.id.clone(),
        openpgp_message: share.openpgp_message.clone(),
    };
    Ok(host.admit(&path, &packet.to_file())?)
}
