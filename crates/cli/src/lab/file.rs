//! lab.json as scripts read it, and the way the lab writes files: whole or not at all, in folders made on the way.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use holdfast_edge::files::{self, FileError};
use serde::{Deserialize, Serialize};

pub(crate) use holdfast_edge::files::{PUBLIC_MODE as PUBLIC, SECRET_MODE as PRIVATE};

/// lab.json: everything that a script needs in order to kill, restart, cut off and forge.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LabFile {
    /// The cluster's name in every configuration: `lab`.
    pub(crate) cluster: String,
    /// The CA of the nodes' certificates.
    pub(crate) ca_cert: PathBuf,
    /// Its key: a lab's impostors may have a certificate of the right CA.
    pub(crate) ca_key: PathBuf,
    /// Holds the root token in plain text.
    pub(crate) root_token_file: PathBuf,
    /// Who may say what.
    pub(crate) allowed_signers: PathBuf,
    /// The cluster's manifest.
    pub(crate) manifest: PathBuf,
    /// The nodes.
    pub(crate) vault: Vec<Vault>,
    /// The broker; null in a lab without one.
    pub(crate) broker: Option<Broker>,
    /// The custodians.
    pub(crate) custodians: Vec<Custodian>,
    /// The first sentinel.
    pub(crate) sentinel: Option<Sentinel>,
    /// All of them.
    pub(crate) sentinels: Vec<Sentinel>,
    /// The operators and their keys.
    pub(crate) operators: Vec<Operator>,
    /// The first operator's configuration.
    pub(crate) operator_config: PathBuf,
}

/// What every process of the lab has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Process {
    /// The process itself, never a wrapper around it.
    pub(crate) pid: u32,
    /// The argv that, run in the lab's folder with `env` added, starts it again.
    pub(crate) start: Vec<String>,
    /// What `start` needs in its environment.
    pub(crate) env: BTreeMap<String, String>,
    /// What it writes to stdout and stderr.
    pub(crate) log: PathBuf,
}

/// One Vault node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Vault {
    /// The node's name in every configuration.
    pub(crate) name: String,
    /// Its API.
    pub(crate) url: String,
    #[serde(flatten)]
    pub(crate) process: Process,
}

/// The broker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Broker {
    /// Its URL with the virtual host, without a user.
    pub(crate) url: String,
    /// The CA of its certificate.
    pub(crate) ca_cert: PathBuf,
    /// A user that may do everything, for tests.
    pub(crate) admin_user: String,
    /// That user's password.
    pub(crate) admin_password_file: PathBuf,
    #[serde(flatten)]
    pub(crate) process: Process,
    /// Erlang's name server, which the broker registers with when it starts.
    pub(crate) epmd: Process,
}

/// One custodian.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Custodian {
    /// Its id and principal.
    pub(crate) id: String,
    /// Its custodian.toml.
    pub(crate) config: PathBuf,
    /// Where it keeps what it must remember.
    pub(crate) state_dir: PathBuf,
    #[serde(flatten)]
    pub(crate) process: Process,
}

/// One sentinel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sentinel {
    /// Its id and principal.
    pub(crate) id: String,
    /// Its sentinel.toml.
    pub(crate) config: PathBuf,
    /// Its status page and API.
    pub(crate) url: String,
    #[serde(flatten)]
    pub(crate) process: Process,
}

/// One operator.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Operator {
    /// The operator's principal.
    pub(crate) id: String,
    /// The operator's private key.
    pub(crate) key: PathBuf,
    /// The operator's own operator.toml.
    pub(crate) config: PathBuf,
}

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The folder for it could not be made.
    #[error("cannot make {folder}: {1}", folder = .0.display())]
    Folder(PathBuf, io::Error),
    /// The file itself.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Writes a file whole or not at all, and makes its folder where that is missing.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), WriteError> {
    make_folder(path.parent().unwrap_or(Path::new(".")))?;
    Ok(files::replace(path, content, mode)?)
}

/// Writes a value as indented JSON.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T, mode: u32) -> Result<(), WriteError> {
    let mut text = serde_json::to_vec_pretty(value).expect("what the lab writes has text for keys, so it is JSON");
    text.push(b'\n');
    write(path, &text, mode)
}

/// Makes a folder and those above it.
pub(crate) fn make_folder(folder: &Path) -> Result<(), WriteError> {
    fs::create_dir_all(folder).map_err(|e| WriteError::Folder(folder.to_owned(), e))
}
