//! The custodian's cage: what the process can still do once it knows its configuration. A share that cannot be sent
//! anywhere, to a file, a program or a stranger's port, is worth little to whoever gets into the process.
//!
//! What lives here: files and ports, and putting all of it in force. What does not: the list of system calls (`calls`), what is tried before it is
//! believed (`trial`), and which files and ports a custodian needs, which follows from its configuration.
//!
//! Two walls. Landlock says which files and which TCP ports; seccomp says which system calls, and with which arguments. What is forbidden
//! is refused (EPERM, EACCES, ENOSYS) and does not kill: see `calls`.
//!
//! Not closed: UDP to anywhere, which name look-ups need (the host's firewall says to whom), and datagrams to Unix sockets that file permissions open to
//! the custodian's user, which the service manager is told by.

mod calls;
#[cfg(test)]
mod tests;
mod trial;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
    make_bitflags,
};

use holdfast_core::message::SandboxPart;

use crate::kernel;

/// What a custodian may touch. Everything else is out of reach.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sandbox {
    /// Files and folders to read. **A folder, where the file may be replaced**: a rule holds to the inode, so that a file
    /// renamed over one of these is not the one that was allowed.
    pub(crate) read: Vec<PathBuf>,
    /// Folders to read and write, in which files may be made, renamed and removed.
    pub(crate) write: Vec<PathBuf>,
    /// Folders in which files are replaced by new ones, and nothing else: no file in them is read.
    pub(crate) replace: Vec<PathBuf>,
    /// The TCP ports to connect to: the nodes', the broker's, the Pushgateway's.
    pub(crate) connect_ports: Vec<u16>,
}

/// The proof that the sandbox is in force, for this thread and all that it starts.
#[derive(Debug)]
#[cfg_attr(test, derive(Default))]
pub(crate) struct Enforced {
    ports: BTreeSet<u16>,
    replace: Vec<PathBuf>,
    scoped: bool,
    memory_stays: bool,
}

impl Enforced {
    /// Whether a connect to this port is let through: a configuration read anew cannot widen the sandbox, only a start can.
    pub(crate) fn allows_port(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }

    /// Whether files in this folder may be replaced, by the same rule.
    pub(crate) fn allows_replacing_in(&self, folder: &Path) -> bool {
        self.replace.iter().any(|allowed| allowed == folder)
    }

    /// Which parts are in force. All but two are, or there is no start: the scope takes Linux 6.12, and the memory the right to keep that much.
    pub(crate) fn parts(&self) -> BTreeSet<SandboxPart> {
        let in_force = |part: &SandboxPart| match part {
            SandboxPart::Process | SandboxPart::Files | SandboxPart::Ports | SandboxPart::Calls => true,
            SandboxPart::Scope => self.scoped,
            SandboxPart::Memory => self.memory_stays,
        };
        SandboxPart::ALL.into_iter().filter(in_force).collect()
    }
}

/// Why the sandbox is not in force. The host's doing, or the configuration's; a custodian does not start like this.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    /// Some thread was started before, and would stay outside.
    #[error("sandbox: {0} threads are running, and those started before it would stay outside")]
    Threads(usize),
    /// A flag or a limit of the process could not be set.
    #[error("sandbox: {part} failed: {source}")]
    Process {
        /// Which one.
        part: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A path that the configuration needs is not there.
    #[error("sandbox: {} cannot be let in: {why}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        why: String,
    },
    /// Landlock is missing, switched off, or too old.
    #[error(
        "sandbox: Landlock: {0}; it takes Linux 6.7 or later with `landlock` among the security modules (see \
         /sys/kernel/security/lsm); with sandbox = \"off\" the custodian runs without, and its metrics say so"
    )]
    Landlock(String),
    /// The filter of system calls could not be built or loaded.
    #[error("sandbox: seccomp: {0}; with sandbox = \"off\" the custodian runs without, and its metrics say so")]
    Seccomp(String),
    /// Everything was accepted, and yet a forbidden thing succeeded.
    #[error("sandbox: the kernel accepted it and does not keep to it: {0} still works")]
    Leaks(&'static str),
    /// What is forbidden could not be tried in a process of its own.
    #[error("sandbox: what it forbids could not be tried before it is believed: {0}")]
    Untried(String),
}

/// Puts the sandbox in force, once a process like this one has tried in it what it forbids. Called once, before any thread is started; nothing takes
/// it back.
pub(crate) fn enforce(sandbox: &Sandbox) -> Result<Enforced, SandboxError> {
    let tasks = std::fs::read_dir("/proc/self/task")
        .map_err(|source| SandboxError::Process { part: "counting the threads in /proc/self/task", source })?;
    match tasks.count() {
        1 => {}
        threads => return Err(SandboxError::Threads(threads)),
    }
    let tried = trial::run(sandbox, confine_this_thread);
    // Where the one in the trial could not be built, this one cannot, and says why.
    let enforced = confine_this_thread(sandbox)?;
    tried.map(|()| enforced)
}

fn confine_this_thread(sandbox: &Sandbox) -> Result<Enforced, SandboxError> {
    for (part, done) in [
        ("PR_SET_NO_NEW_PRIVS", kernel::forbid_new_privileges()),
        ("PR_SET_DUMPABLE", kernel::forbid_dumping()),
        ("RLIMIT_CORE", kernel::limit_core_dumps()),
    ] {
        done.map_err(|source| SandboxError::Process { part, source })?;
    }
    let memory_stays = memory_stays().map_err(|source| SandboxError::Process { part: "mlockall", source })?;
    let ports: BTreeSet<u16> = sandbox.connect_ports.iter().copied().chain([DNS_PORT]).collect();
    let status = restrict_files_and_ports(sandbox, &ports)?;
    calls::restrict()?;
    // Both walls, asked once more where it counts: the cheapest thing that each of them alone would stop.
    if UdpSocket::bind(("127.0.0.1", 0)).is_ok() {
        return Err(SandboxError::Leaks("a UDP bind"));
    }
    if std::fs::read_dir("/proc/self").is_ok() {
        return Err(SandboxError::Leaks("reading /proc"));
    }
    let replace = sandbox.replace.clone();
    Ok(Enforced { ports, replace, scoped: status.ruleset == RulesetStatus::FullyEnforced, memory_stays })
}

/// Whether nothing of the memory can reach a disk: it is locked, or there is no swap.
fn memory_stays() -> io::Result<bool> {
    // The first line is a heading.
    Ok(kernel::lock_memory()? || std::fs::read_to_string("/proc/swaps")?.lines().count() <= 1)
}

/// An answer that does not fit into UDP is asked for again over TCP.
const DNS_PORT: u16 = 53;

/// What the C library and the time zone database read, here and there. One that is not there is left out.
const SYSTEM_READ: &[(&str, &str)] = &[
    ("/run/systemd/resolve", "where resolv.conf leads under systemd-resolved, replaced by renaming"),
    ("/run/resolvconf", "where resolv.conf leads under resolvconf"),
    ("/run/NetworkManager", "where resolv.conf leads under NetworkManager"),
    ("/usr/share/zoneinfo", "the time zones of drill windows"),
];

/// Where the C library's own files are. They are replaced by renaming, and so it is the folder that is let in: file permissions still hold.
const SETTINGS: (&str, &str) = ("/etc", "what name look-ups go by");

/// The same where file permissions do not hold, for a custodian that runs as root: by name. One that is replaced is out of reach until the next start.
const SETTINGS_ALONE: &[(&str, &str)] = &[
    ("/etc/resolv.conf", "which name servers there are"),
    ("/etc/hosts", "names that are looked up in no other place"),
    ("/etc/nsswitch.conf", "where names are looked up"),
    ("/etc/host.conf", "how names are looked up"),
    ("/etc/gai.conf", "which of a name's addresses come first"),
    ("/etc/localtime", "this host's time zone"),
    ("/etc/timezone", "its name"),
];

/// What nobody but root and its group may read: whoever can has file permissions that are no wall.
const SECRETS_OF_OTHERS: &str = "/etc/shadow";

fn settings() -> &'static [(&'static str, &'static str)] {
    if File::open(SECRETS_OF_OTHERS).is_ok() { SETTINGS_ALONE } else { std::slice::from_ref(&SETTINGS) }
}

/// The Landlock ABI that must be there: the first that knows TCP ports (Linux 6.7).
const REQUIRED: ABI = ABI::V4;

fn restrict_files_and_ports(sandbox: &Sandbox, ports: &BTreeSet<u16>) -> Result<RestrictionStatus, SandboxError> {
    let refused = |e: RulesetError| SandboxError::Landlock(e.to_string());
    let mut ruleset = ruleset().map_err(refused)?;
    for (path, _) in SYSTEM_READ.iter().chain(settings()) {
        let path = Path::new(path);
        if path.exists() {
            ruleset = let_in(ruleset, path, READ)?;
        }
    }
    for path in &sandbox.read {
        ruleset = let_in(ruleset, path, READ)?;
    }
    for path in &sandbox.write {
        ruleset = let_in(ruleset, path, READ | WRITE)?;
    }
    for path in &sandbox.replace {
        ruleset = let_in(ruleset, path, REPLACE)?;
    }
    for port in ports {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectTcp)).map_err(refused)?;
    }
    ruleset.restrict_self().map_err(refused)
}

/// Everything that Landlock can deny is denied until a rule lets it in. What is newer than `REQUIRED` is taken where it is.
fn ruleset() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(REQUIRED))?
        .handle_access(AccessNet::from_all(REQUIRED))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::IoctlDev)?
        .scope(Scope::from_all(ABI::V6))?
        .set_compatibility(CompatLevel::HardRequirement)
        .create()
}

/// Not `Execute`, anywhere.
const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
/// Plain files and folders: no sockets, devices, pipes or links.
const WRITE: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{WriteFile | Truncate | MakeReg | MakeDir | RemoveFile | RemoveDir | Refer});
/// Making a file, and giving it another's name, and the folder's own way to the disk.
const REPLACE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{WriteFile | MakeReg | RemoveFile | ReadDir});

fn let_in(ruleset: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, SandboxError> {
    let failed = |why: String| SandboxError::Path { path: path.to_owned(), why };
    let is_dir = path.metadata().map_err(|e| failed(e.to_string()))?.is_dir();
    let fd = PathFd::new(path).map_err(|e| failed(e.to_string()))?;
    let access = if is_dir { access } else { access & AccessFs::from_file(REQUIRED) };
    ruleset.add_rule(PathBeneath::new(fd, access)).map_err(|e| failed(e.to_string()))
}
