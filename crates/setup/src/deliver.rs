//! `holdfast-setup deliver`: an operator's signed message, carried to a custodian by hand.
//!
//! What lives here: putting it into the inbox in one step, so that the custodian never sees a half. What does not: whether it
//! counts. That is the custodian's to say, by the same checks as for a message from the broker: what it takes is in its audit log,
//! what it refuses in its log.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use holdfast_core::envelope::{ENVELOPE_MAX, Envelope, EnvelopeError};
use holdfast_edge::config::{ConfigError, ConfigFile, Spanned};
use holdfast_edge::files::{self, FileError, SECRET_MODE};
use rand::RngCore;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};

use crate::output;

/// The folder's name in the state folder.
const INBOX: &str = "inbox";

/// The most files that may wait: a custodian that runs takes 64 a second.
const WAITING_MAX: usize = 1024;

/// Carry an operator's signed messages to the custodian on this host, without a broker
///
/// Takes what `holdfast approve`, `hold`, `release`, `distrust` or `trust` wrote with `--output`, sees to it that each file is a whole signed message, and puts it into the custodian's inbox. The custodian looks there each second, and checks who signed it,
/// what for and when, as it does with messages from the broker.
#[derive(Args)]
#[command(after_help = "Example: holdfast-setup deliver --config /etc/holdfast/custodian.toml approvals/*.json")]
pub(crate) struct Arguments {
    /// Signed messages
    #[arg(value_name = "FILE", required = true)]
    messages: Vec<PathBuf>,
    /// The custodian's configuration, which names its state folder
    #[arg(long, value_name = "FILE", default_value = "custodian.toml")]
    config: PathBuf,
    /// The custodian's state folder, if not as configured
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    state_dir: Option<PathBuf>,
    /// Report in JSON
    #[arg(long)]
    json: bool,
}

/// Why something was not delivered. Everything before it in the order of the arguments was.
#[derive(Debug, thiserror::Error)]
enum DeliverError {
    /// The configuration cannot be read, or names no state folder.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not a signed message, or was altered.
    #[error("{}: {why}; nothing was delivered", .path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: EnvelopeError,
    },
    /// There is no state folder.
    #[error("{} is not there: is this the custodian's host, and was the custodian started once?", .0.display())]
    NoState(PathBuf),
    /// Nobody takes what is in the inbox.
    #[error("{} has {WAITING_MAX} messages in it that nobody took: is the custodian running?", .0.display())]
    Full(PathBuf),
    /// The system refused or failed.
    #[error("{} cannot be {action}: {source}", .path.display())]
    System {
        /// What it is about.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl DeliverError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Refused { .. } => output::REFUSED,
            _ => output::FAILED,
        }
    }
}

/// What of a custodian's configuration matters here; the rest is the custodian's.
#[derive(Deserialize)]
struct Configured {
    state_dir: Spanned<PathBuf>,
}

/// What was done.
#[derive(Serialize)]
struct Report {
    inbox: PathBuf,
    delivered: Vec<Delivered>,
}

#[derive(Serialize)]
struct Delivered {
    message: PathBuf,
    file: PathBuf,
    key: String,
    namespace: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in &self.delivered {
            writeln!(f, "{} is delivered (signed by {} for {}).", one.message.display(), one.key, one.namespace)?;
        }
        writeln!(f, "\nThe custodian takes it from {} within a second if it runs,", self.inbox.display())?;
        write!(f, "or when it starts. Whether the message counts, its audit log says.")
    }
}

/// Delivers, and says so.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match deliver(arguments) {
        Ok(report) => output::report(arguments.json, &report),
        Err(error) => output::failure(&error, error.exit_code()),
    }
}

fn deliver(arguments: &Arguments) -> Result<Report, DeliverError> {
    // All of them are looked at before the first is delivered.
    let messages = arguments.messages.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let state_dir = match &arguments.state_dir {
        Some(dir) => dir.clone(),
        None => {
            let config = ConfigFile::read(&arguments.config)?;
            config.resolve(&config.parse::<Configured>()?.state_dir)
        }
    };
    let inbox = Inbox::open(&state_dir)?;
    let mut delivered = Vec::new();
    for (path, (bytes, envelope)) in arguments.messages.iter().zip(messages) {
        delivered.push(Delivered {
            message: path.clone(),
            file: inbox.put(&bytes)?,
            key: envelope.signature().public_key().fingerprint(),
            namespace: envelope.signature().namespace().to_owned(),
        });
    }
    Ok(Report { inbox: inbox.path, delivered })
}

/// A message whose signature is its key's own. Whose key it is, the custodian knows.
fn read(path: &Path) -> Result<(Vec<u8>, Envelope), DeliverError> {
    let refused = |why| DeliverError::Refused { path: path.to_owned(), why };
    let bytes = files::read_bounded(path, ENVELOPE_MAX)?;
    let envelope = Envelope::parse(&bytes).map_err(refused)?;
    let signature = envelope.signature();
    signature.verify(signature.namespace(), envelope.body()).map_err(|why| refused(why.into()))?;
    Ok((bytes, envelope))
}

/// The folder that the custodian looks into.
struct Inbox {
    path: PathBuf,
    owner: (u32, u32),
}

impl Inbox {
    /// Opens it; makes it, if the custodian was never started.
    fn open(state_dir: &Path) -> Result<Self, DeliverError> {
        let path = state_dir.join(INBOX);
        let failed = |action| {
            let path = path.clone();
            move |source| DeliverError::System { path, action, source }
        };
        let state = fs::metadata(state_dir).map_err(|_| DeliverError::NoState(state_dir.to_owned()))?;
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => chown(&path, Some(state.uid()), Some(state.gid())).map_err(failed("given to the custodian"))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("made")(error)),
        }
        if fs::read_dir(&path).map_err(failed("read"))?.take(WAITING_MAX).count() == WAITING_MAX {
            return Err(DeliverError::Full(path));
        }
        let metadata = fs::metadata(&path).map_err(failed("read"))?;
        Ok(Self { owner: (metadata.uid(), metadata.gid()), path })
    }

    /// Puts a message there. It has another name until it is whole, on the disk, and the custodian's own: root delivers too.
    fn put(&self, bytes: &[u8]) -> Result<PathBuf, DeliverError> {
        let name = OsRng.next_u64();
        let (preparing, path) =
            (self.path.join(format!("{name:016x}.part")), self.path.join(format!("{name:016x}.json")));
        files::create(&preparing, bytes, SECRET_MODE)?;
        let (uid, gid) = self.owner;
        chown(&preparing, Some(uid), Some(gid))
            .and_then(|()| fs::rename(&preparing, &path))
            .and_then(|()| File::open(&self.path)?.sync_all())
            .map_err(|source| DeliverError::System { path: path.clone(), action: "delivered", source })?;
        Ok(path)
    }
}
