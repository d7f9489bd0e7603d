//! A custodian's folder of the test's own: enrolled, initialised and installed by a real ceremony, with nothing running any more.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::lab::Lab;
use crate::programs::{Said, program, run};
use crate::shares::{Share, recover};
use crate::wait::until_within;

/// How long a custodian may take to say that it does not start.
const REFUSES_WITHIN: Duration = Duration::from_secs(20);

/// What a ceremony leaves: two custodians of one node, either of whom needs the other to open it.
#[derive(Debug)]
pub struct Ceremony {
    folder: TempDir,
}

/// A copy of one custodian's folder.
#[derive(Debug)]
pub struct Home {
    folder: TempDir,
}

impl Ceremony {
    /// Holds one.
    pub fn hold() -> Self {
        let args = ["--no-broker", "--nodes", "1", "--custodians", "2", "--threshold", "2"];
        Self { folder: Lab::up(&args).down() }
    }

    /// A file of the lab's.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("lab").join(name)
    }

    /// The cluster's id.
    pub fn cluster(&self) -> String {
        crate::messages::cluster_id(&self.file("lab.manifest.json"))
    }

    /// A custodian's share.
    pub fn share(&self, custodian: &str) -> Share {
        let packet = self.file(&format!("ceremony/output/packets/{custodian}.packet.json"));
        recover(&packet, &self.file(&format!("{custodian}/transport.key")))
    }

    /// A copy of a custodian's folder, which has seen and done nothing yet.
    pub fn home(&self, custodian: &str) -> Home {
        Home::copy_of(&self.file(custodian))
    }
}

impl Home {
    /// A copy of a custodian's folder, without what it remembers.
    pub fn copy_of(custodian: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for entry in fs::read_dir(custodian).expect("a folder").flatten() {
            if entry.path().is_file() {
                fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("copied, with its rights");
            }
        }
        Self { folder }
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its configuration.
    pub fn config(&self) -> PathBuf {
        self.path("custodian.toml")
    }

    /// A file's text.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Writes a file; one that is there keeps its rights.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap_or_else(|e| panic!("{name}: {e}"));
    }

    /// Writes a file that nobody else may read.
    pub fn write_secret(&self, name: &str, content: &str) {
        self.write(name, content);
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).expect("its own file");
    }

    /// Puts something in the place of something else that must be there, in one file.
    pub fn replace(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert!(text.contains(from), "{name} has no {from:?}: {text}");
        self.write(name, text.replacen(from, to, 1));
    }

    /// Puts an envelope into the inbox, as `holdfast-setup deliver` would.
    pub fn deliver(&self, envelope: &[u8]) {
        deliver(self.folder.path(), envelope);
    }

    /// The lines of its audit log that say this.
    pub fn audited(&self, what: &str) -> usize {
        let log = fs::read_to_string(self.path("state/audit.jsonl")).unwrap_or_default();
        log.lines().filter(|line| line.contains(what)).count()
    }

    /// `holdfast-custodian check`, without the network.
    pub fn check(&self) -> Said {
        run("holdfast-custodian", &[Path::new("check"), Path::new("--offline"), Path::new("--config"), &self.config()])
    }

    /// `holdfast-custodian run`, of which it is expected that it does not start.
    pub fn run_refused(&self) -> Said {
        let mut running = self.run();
        let ended = || running.child.try_wait().expect("it can be asked").is_some();
        until_within(REFUSES_WITHIN, "the custodian refuses to start", ended);
        let code = running.child.wait().expect("it ended").code();
        Said { code, out: String::new(), err: self.read("log") }
    }

    /// `holdfast-custodian run`. What it writes goes into the file `log`.
    pub fn run(&self) -> Running {
        let log = fs::File::create(self.path("log")).expect("a log");
        let mut command = Command::new(program("holdfast-custodian"));
        command.args(["run", "--config"]).arg(self.config()).stdin(Stdio::null());
        let child = command.stdout(log.try_clone().expect("a log")).stderr(log).spawn();
        Running { child: child.expect("it starts") }
    }
}

/// Puts an envelope into the inbox of the custodian whose folder this is, as `holdfast-setup deliver` would.
pub fn deliver(home: &Path, envelope: &[u8]) {
    let inbox = home.join("state/inbox");
    fs::create_dir_all(&inbox).expect("made");
    fs::write(inbox.join("given.part"), envelope).expect("written");
    let name = format!("{}.json", crate::messages::random_id());
    fs::rename(inbox.join("given.part"), inbox.join(name)).expect("renamed");
}

/// A custodian's process. Ends with the value.
#[derive(Debug)]
pub struct Running {
    /// The process.
    pub child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already, or ends now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
