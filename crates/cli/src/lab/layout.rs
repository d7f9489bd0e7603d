//! Where everything lies under the lab's folder. What lies there is written by the modules that own it.

use std::path::{Path, PathBuf};

/// The lab's folder, absolute, and the places in it.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// The layout under `dir`, which must be absolute: the argv in lab.json has to work from anywhere.
    pub(crate) fn new(dir: PathBuf) -> Self {
        debug_assert!(dir.is_absolute());
        Self { dir }
    }

    /// The folder itself.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Marks the folder as a lab's, and is locked by the command at work in it.
    pub(crate) fn marker(&self) -> PathBuf {
        self.dir.join(".holdfast-lab")
    }

    /// Which processes `up` started, for `down` alone.
    pub(crate) fn journal(&self) -> PathBuf {
        self.dir.join(".processes.json")
    }

    /// What scripts read.
    pub(crate) fn lab_json(&self) -> PathBuf {
        self.dir.join("lab.json")
    }

    /// The folder of one process: its configuration, its keys, its state.
    pub(crate) fn home(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The log of one process: what it writes to stdout and stderr.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.dir.join("log").join(format!("{name}.log"))
    }

    /// The CA that signed the nodes' certificates.
    pub(crate) fn vault_ca(&self) -> PathBuf {
        self.dir.join("vault-ca.pem")
    }

    /// Its key.
    pub(crate) fn vault_ca_key(&self) -> PathBuf {
        self.dir.join("vault-ca.key")
    }

    /// The CA that signed the broker's certificate: another one, so that neither can stand in for the other.
    pub(crate) fn broker_ca(&self) -> PathBuf {
        self.dir.join("broker-ca.pem")
    }

    /// Its key.
    pub(crate) fn broker_ca_key(&self) -> PathBuf {
        self.dir.join("broker-ca.key")
    }

    /// The operators' trust file.
    pub(crate) fn allowed_signers(&self) -> PathBuf {
        self.dir.join("allowed_signers")
    }

    /// The cluster's manifest, as `holdfast init` wrote it.
    pub(crate) fn manifest(&self) -> PathBuf {
        self.dir.join("lab.manifest.json")
    }

    /// The root token, in plain text: a lab's, and no real ceremony's.
    pub(crate) fn root_token(&self) -> PathBuf {
        self.dir.join("root-token")
    }

    /// Alice's configuration, for `holdfast approve`, `status` and the rest.
    pub(crate) fn operator_config(&self) -> PathBuf {
        self.dir.join("operator.toml")
    }

    /// What the lab's person has at hand in the ceremony.
    pub(crate) fn ceremony(&self) -> PathBuf {
        self.dir.join("ceremony")
    }

    /// What `holdfast init` writes.
    pub(crate) fn ceremony_output(&self) -> PathBuf {
        self.ceremony().join("output")
    }

    /// The operators' keys and configurations.
    pub(crate) fn operators(&self) -> PathBuf {
        self.dir.join("operators")
    }

    /// Where `holdfast broker definitions` puts the parties' passwords.
    pub(crate) fn passwords(&self) -> PathBuf {
        self.home("broker").join("passwords")
    }

    /// One party's password at the broker.
    pub(crate) fn password(&self, party: &str) -> PathBuf {
        self.passwords().join(format!("{party}.password"))
    }
}
