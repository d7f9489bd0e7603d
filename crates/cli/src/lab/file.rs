//! lab.json as scripts read it, and the way the lab writes files: whole or not at all, with the mode they are to have.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Mode of what anybody may read.
pub(crate) const PUBLIC: u32 = 0o644;
/// Mode of keys, passwords and tokens.
pub(crate) const PRIVATE: u32 = 0o600;

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
    /// The sentinel.
    pub(crate) sentinel: Option<Sentinel>,
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

/// The sentinel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sentinel {
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
}

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {}", .path.display(), .error)]
pub(crate) struct WriteError {
    path: PathBuf,
    error: io::Error,
}

/// Writes a file whole or not at all, with this mode from the first byte on, and its folder where that is missing.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), WriteError> {
    let refused = |error| WriteError { path: path.to_owned(), error };
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(refused)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = folder.join(name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        // The umask may have taken bits away.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    written.map_err(refused)
}

/// Writes a value as indented JSON.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T, mode: u32) -> Result<(), WriteError> {
    let refused = |error: serde_json::Error| WriteError { path: path.to_owned(), error: error.into() };
    let mut text = serde_json::to_vec_pretty(value).map_err(refused)?;
    text.push(b'\n');
    write(path, &text, mode)
}
