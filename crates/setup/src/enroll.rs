//! `holdfast-setup enroll`: this host's keys, and the enrollment that brings their public halves to a ceremony.
//!
//! A marker (`.enrolling`) is there from before the first key until after the enrollment: whoever finds it knows that the
//! files beside it are this command's own and unfinished, and goes on. Without it, a file of one of these names is
//! somebody else's, and nothing is touched.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use holdfast_core::ceremony::{
    ENROLLMENT_FILE, ENROLLMENT_NAMESPACE, Enrollment, IDENTITY_FILE, SIGNING_KEY_FILE, SignedEnrollment,
    TRANSPORT_KEY_FILE,
};
use holdfast_core::envelope::Envelope;
use holdfast_core::id::{Principal, Site};
use holdfast_edge::files::{self, FileError, PUBLIC_MODE};
use holdfast_edge::keys::{AgeIdentity, IdentityError, KeyError, SigningKey};
use serde::{Deserialize, Serialize};

use crate::host::{HostError, check_owner, open_enrollment};
use crate::openpgp::{TransportKey, TransportKeyError};
use crate::output;
use holdfast_edge::clock::wall as now;

/// The largest marker that is read, in bytes: two names of 63 characters.
const MARKER_MAX: usize = 1024;

/// Make this custodian's keys, and the enrollment that brings them to a ceremony
///
/// Makes three keys in DIR, none of which ever leaves this host: `identity.txt` (age: the share at rest), `signing.key`
/// (OpenSSH: reports) and `transport.key` (OpenPGP: the share on its way here). Then writes their public halves to
/// `enrollment.json`, signed by the signing key, which is what the ceremony needs, and to `ID.asc` the OpenPGP key alone.
///
/// Nothing is overwritten. If this was cut off, run it again with the same names: it goes on where it stopped.
///
/// A transport key serves for one ceremony: `install` erases it. For the next one, --again makes another, and a new enrollment
/// with the same identity and signing key, which goes to the ceremony as the first did, fingerprint and all.
#[derive(Args)]
#[command(after_help = "Example: holdfast-setup enroll --id custodian-1 --site zurich --dir /etc/holdfast")]
pub(crate) struct Arguments {
    /// This custodian's name: 1 to 63 of a-z, 0-9 and '-'
    #[arg(long, value_name = "ID")]
    id: Principal,
    /// Where this host stands: hosts of one site are expected to fail together
    #[arg(long, value_name = "SITE")]
    site: Option<Site>,
    /// This host was enrolled, and its transport key was erased: make another, and a new enrollment, for another ceremony
    #[arg(long)]
    again: bool,
    /// Where the keys are to lie; made if it is not there
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Report in JSON
    #[arg(long)]
    json: bool,
}

/// Why nobody was enrolled.
#[derive(Debug, thiserror::Error)]
enum EnrollError {
    /// The directory could not be made, or a file in it not be removed.
    #[error("{} cannot be {action}: {source}", .path.display())]
    System {
        /// What it is about.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody is enrolled here already.
    #[error("{} exists already, with the fingerprint {fingerprint}: {custodian} is enrolled here, and nothing was changed; enroll another custodian in another directory, or the same for another ceremony with --again", .path.display())]
    Enrolled {
        /// The enrollment.
        path: PathBuf,
        /// Who is enrolled.
        custodian: Principal,
        /// Its fingerprint.
        fingerprint: String,
    },
    /// Somebody is enrolled here, and nothing decrypts any more what would be encrypted to that enrollment.
    #[error("{custodian} is enrolled here, but {} IS SPENT: its transport key is gone, as `install` leaves it, so that nothing would decrypt the packet of a ceremony that was held with it; nothing was changed; for another ceremony, run this again with --again, and send the new one", .path.display())]
    Spent {
        /// The enrollment.
        path: PathBuf,
        /// Who is enrolled.
        custodian: Principal,
    },
    /// The enrollment that is here serves still.
    #[error("{} is still here, and so the enrollment in {} is still good, with the fingerprint {fingerprint}: nothing was changed; send that one", .transport_key.display(), .path.display())]
    StillGood {
        /// The transport key.
        transport_key: PathBuf,
        /// The enrollment.
        path: PathBuf,
        /// Its fingerprint.
        fingerprint: String,
    },
    /// There is nothing to make anew.
    #[error("{} does not exist: nobody is enrolled here; enroll without --again", .0.display())]
    Never(PathBuf),
    /// A file is there that this command did not make.
    #[error("{} exists already, and no enrollment was begun here: nothing was changed; choose an empty directory", .0.display())]
    Foreign(PathBuf),
    /// An enrollment was begun for another custodian.
    #[error("an enrollment of {begun} was begun in {}, and not finished: finish that one first, or choose another directory", .dir.display())]
    Other {
        /// Where.
        dir: PathBuf,
        /// For whom, and where that one stands.
        begun: String,
    },
    /// The marker is not one.
    #[error("{} is damaged ({why}): remove it and every key beside it, and enroll again", .path.display())]
    Marker {
        /// The marker.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The enrollment that is here is not one.
    #[error(transparent)]
    Enrollment(#[from] HostError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Signing(#[from] KeyError),
    #[error(transparent)]
    Transport(#[from] TransportKeyError),
}

/// For whom an enrollment was begun.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    id: Principal,
    site: Option<Site>,
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.site {
            Some(site) => write!(f, "{} at site {site}", self.id),
            None => write!(f, "{} without a site", self.id),
        }
    }
}

/// Where everything lies.
struct Layout {
    marker: PathBuf,
    identity: PathBuf,
    signing_key: PathBuf,
    signing_key_public: PathBuf,
    transport_key: PathBuf,
    transport_key_public: PathBuf,
    enrollment: PathBuf,
}

impl Layout {
    fn new(dir: &Path, id: &Principal) -> Self {
        Self {
            marker: dir.join(".enrolling"),
            identity: dir.join(IDENTITY_FILE),
            signing_key: dir.join(SIGNING_KEY_FILE),
            signing_key_public: dir.join("signing.key.pub"),
            transport_key: dir.join(TRANSPORT_KEY_FILE),
            transport_key_public: dir.join(format!("{id}.asc")),
            enrollment: dir.join(ENROLLMENT_FILE),
        }
    }

    fn made(&self) -> [&Path; 6] {
        [
            &self.enrollment,
            &self.identity,
            &self.signing_key,
            &self.signing_key_public,
            &self.transport_key,
            &self.transport_key_public,
        ]
    }
}

/// What was done.
#[derive(Serialize)]
struct Report {
    custodian: Principal,
    site: Option<Site>,
    fingerprint: String,
    enrollment: PathBuf,
    openpgp_key: PathBuf,
    identity: PathBuf,
    signing_key: PathBuf,
    transport_key: PathBuf,
    age_recipient: String,
    signing_key_public: String,
    resumed: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dir = self.enrollment.parent().unwrap_or(Path::new("."));
        let finished = if self.resumed { " (an enrollment that was cut off is finished)" } else { "" };
        writeln!(f, "{} is enrolled in {}{finished}.\n", self.custodian, dir.display())?;
        writeln!(f, "  Fingerprint: {}\n", self.fingerprint)?;
        writeln!(f, "Next:")?;
        writeln!(f, "  1. Send {} to whoever runs the ceremony. It is public.", self.enrollment.display())?;
        writeln!(
            f,
            "  2. When they ask, read the fingerprint to them, by voice: it tells them that the file is yours."
        )?;
        writeln!(f, "  3. They send back a packet and a manifest, and read you the manifest's fingerprint:")?;
        write!(
            f,
            "     holdfast-setup install --dir {} --packet {}.packet.json --manifest CLUSTER.manifest.json",
            dir.display(),
            self.custodian
        )
    }
}

/// Enrolls, and says so.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match enroll(&arguments.id, arguments.site.as_ref(), &arguments.dir, arguments.again) {
        Ok(report) => output::report(arguments.json, &report),
        Err(error) => output::failure(&error, error.exit_code()),
    }
}

impl EnrollError {
    fn exit_code(&self) -> u8 {
        let readable = |error: &FileError| matches!(error, FileError::Permissions { .. });
        let refused = match self {
            Self::Marker { .. } | Self::Enrollment(HostError::Refused { .. }) => true,
            Self::File(error)
            | Self::Identity(IdentityError::File(error))
            | Self::Signing(KeyError::File(error))
            | Self::Transport(TransportKeyError::File(error)) => readable(error),
            Self::Identity(_) => true,
            Self::Signing(KeyError::Damaged { .. } | KeyError::Empty(_) | KeyError::Encrypted(_)) => true,
            Self::Transport(TransportKeyError::Damaged { .. }) => true,
            _ => false,
        };
        if refused { output::REFUSED } else { output::FAILED }
    }
}

fn enroll(id: &Principal, site: Option<&Site>, dir: &Path, again: bool) -> Result<Report, EnrollError> {
    check_owner(dir)?;
    let layout = Layout::new(dir, id);
    // Where its host stands is known from the first time.
    let before = (again && is_there(&layout.enrollment)).then(|| open_enrollment(&layout.enrollment)).transpose()?;
    let site = site.cloned().or(before.and_then(|before| before.enrollment().site.clone()));
    // Others may list the directory: what is secret in it has a mode of its own.
    let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
    made.map_err(|source| EnrollError::System { path: dir.to_owned(), action: "made", source })?;
    let resumed = begin(&layout, dir, Marker { id: id.clone(), site: site.clone() }, again)?;

    let enrollment = write_enrollment(&layout, id, site.as_ref(), &Keys::ensure(&layout, id)?)?;
    fs::remove_file(&layout.marker).map_err(|source| EnrollError::System {
        path: layout.marker.clone(),
        action: "removed",
        source,
    })?;
    Ok(Report {
        custodian: id.clone(),
        site,
        fingerprint: enrollment.fingerprint().to_string(),
        age_recipient: enrollment.enrollment().age_recipient.to_string(),
        signing_key_public: enrollment.enrollment().signing_key.to_openssh(),
        enrollment: layout.enrollment,
        openpgp_key: layout.transport_key_public,
        identity: layout.identity,
        signing_key: layout.signing_key,
        transport_key: layout.transport_key,
        resumed,
    })
}

/// A host's three keys.
struct Keys {
    identity: AgeIdentity,
    signing: SigningKey,
    transport: TransportKey,
}

impl Keys {
    /// Those that are there, and new ones for those that are not; and the public halves that people pass on.
    fn ensure(layout: &Layout, id: &Principal) -> Result<Self, EnrollError> {
        let identity = if is_there(&layout.identity) {
            AgeIdentity::load(&layout.identity)?
        } else {
            let identity = AgeIdentity::generate();
            identity.save(&layout.identity, now())?;
            identity
        };
        let signing = if is_there(&layout.signing_key) {
            SigningKey::load(&layout.signing_key)?
        } else {
            let key = SigningKey::generate()?;
            key.save(&layout.signing_key)?;
            key
        };
        let transport = if is_there(&layout.transport_key) {
            TransportKey::load(&layout.transport_key)?
        } else {
            let key = TransportKey::generate(id)?;
            key.save(&layout.transport_key)?;
            key
        };
        let public_line = format!("{}\n", signing.public_openssh(id.as_str()));
        files::replace(&layout.signing_key_public, public_line.as_bytes(), PUBLIC_MODE)?;
        files::replace(&layout.transport_key_public, &transport.public_armored()?, PUBLIC_MODE)?;
        Ok(Self { identity, signing, transport })
    }
}

/// The enrollment of these keys: the one that is there, or a new one in the place of that of a transport key that was erased.
fn write_enrollment(
    layout: &Layout,
    id: &Principal,
    site: Option<&Site>,
    keys: &Keys,
) -> Result<SignedEnrollment, EnrollError> {
    let openpgp_key = keys.transport.public_binary()?;
    if is_there(&layout.enrollment) {
        let there = open_enrollment(&layout.enrollment)?;
        if there.enrollment().openpgp_key == openpgp_key {
            return Ok(there);
        }
    }
    let body = Enrollment {
        custodian: id.clone(),
        site: site.cloned(),
        age_recipient: keys.identity.recipient().to_text(),
        signing_key: keys.signing.public_key().clone(),
        openpgp_key,
        created_at: now(),
    }
    .to_body();
    let mut file = Envelope::assemble(&body, &keys.signing.sign(ENROLLMENT_NAMESPACE, &body));
    file.push(b'\n');
    files::replace(&layout.enrollment, &file, PUBLIC_MODE)?;
    Ok(open_enrollment(&layout.enrollment)?)
}

/// Sees to it that the marker is there, and that every file beside it is ours. Says whether it was there before.
fn begin(layout: &Layout, dir: &Path, ours: Marker, again: bool) -> Result<bool, EnrollError> {
    match files::read_bounded(&layout.marker, MARKER_MAX) {
        Ok(file) => {
            let refused = |why: String| EnrollError::Marker { path: layout.marker.clone(), why };
            let begun: Marker = serde_json::from_slice(&file).map_err(|error| refused(error.to_string()))?;
            if begun != ours {
                return Err(EnrollError::Other { dir: dir.to_owned(), begun: begun.to_string() });
            }
            Ok(true)
        }
        Err(FileError::Missing { .. }) => {
            if is_there(&layout.enrollment) {
                check_again(layout, &ours, again)?;
            } else if again {
                return Err(EnrollError::Never(layout.enrollment.clone()));
            } else if let Some(foreign) = layout.made().into_iter().find(|path| is_there(path)) {
                return Err(EnrollError::Foreign(foreign.to_owned()));
            }
            let marker = serde_json::to_vec(&ours).expect("names always become JSON");
            files::create(&layout.marker, &marker, PUBLIC_MODE)?;
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the host of this enrollment may have another: it asked for one, is the same custodian's, and has no transport key.
fn check_again(layout: &Layout, ours: &Marker, again: bool) -> Result<(), EnrollError> {
    let enrolled = open_enrollment(&layout.enrollment)?;
    let (path, fingerprint) = (layout.enrollment.clone(), enrolled.fingerprint().to_string());
    let custodian = enrolled.enrollment().custodian.clone();
    if custodian == ours.id && !again && !is_there(&layout.transport_key) {
        return Err(EnrollError::Spent { path, custodian });
    }
    if !again || custodian != ours.id {
        return Err(EnrollError::Enrolled { path, custodian, fingerprint });
    }
    if is_there(&layout.transport_key) {
        let transport_key = layout.transport_key.clone();
        return Err(EnrollError::StillGood { transport_key, path, fingerprint });
    }
    Ok(())
}

/// Whether there is anything of that name, be it a link to nowhere.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
