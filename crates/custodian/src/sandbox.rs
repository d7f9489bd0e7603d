//! The custodian's cage: what the process can still do once it knows its configuration. A share that cannot be sent
//! anywhere, to a file, a program or a stranger's port, is worth little to whoever gets into the process.
//!
//! What lives here: the policy, as data with a reason on each entry, and putting it in force. What does not: which files and
//! ports a custodian needs, which follows from its configuration.
//!
//! Two walls. Landlock says which files and which TCP ports; seccomp closes what Landlock does not see (listening, UDP
//! binds, executing, other processes, and the ways round Landlock's view of a connect). A forbidden call answers EPERM or
//! EACCES instead of killing: the C library's resolver tries some of them and lives without.
//!
//! Not closed in this first form, which lists what is forbidden, not what is allowed: UDP to anywhere (name look-ups need
//! it) and Unix sockets that file permissions open to the custodian's user.

use std::collections::BTreeSet;
use std::io;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
    make_bitflags,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

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
pub(crate) struct Enforced {
    ports: BTreeSet<u16>,
    replace: Vec<PathBuf>,
    whole: bool,
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

    /// Whether the kernel was new enough (Linux 6.12) for the last part as well: no signal to a process and no connection to
    /// an abstract Unix socket outside, no ioctl on a device.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
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
}

/// Puts the sandbox in force. Called once, before any thread is started; nothing takes it back.
pub(crate) fn enforce(sandbox: &Sandbox) -> Result<Enforced, SandboxError> {
    let tasks = std::fs::read_dir("/proc/self/task")
        .map_err(|source| SandboxError::Process { part: "counting the threads in /proc/self/task", source })?;
    match tasks.count() {
        1 => confine_this_thread(sandbox),
        threads => Err(SandboxError::Threads(threads)),
    }
}

fn confine_this_thread(sandbox: &Sandbox) -> Result<Enforced, SandboxError> {
    for (part, done) in [
        ("PR_SET_NO_NEW_PRIVS", kernel::forbid_new_privileges()),
        ("PR_SET_DUMPABLE", kernel::forbid_dumping()),
        ("RLIMIT_CORE", kernel::limit_core_dumps()),
    ] {
        done.map_err(|source| SandboxError::Process { part, source })?;
    }
    let ports: BTreeSet<u16> = sandbox.connect_ports.iter().copied().chain([DNS_PORT]).collect();
    let status = restrict_files_and_ports(sandbox, &ports)?;
    restrict_calls()?;
    // Both walls, asked once: the cheapest thing that each of them alone would stop.
    if UdpSocket::bind(("127.0.0.1", 0)).is_ok() {
        return Err(SandboxError::Leaks("a UDP bind"));
    }
    if std::fs::read_dir("/proc/self").is_ok() {
        return Err(SandboxError::Leaks("reading /proc"));
    }
    let replace = sandbox.replace.clone();
    Ok(Enforced { ports, replace, whole: status.ruleset == RulesetStatus::FullyEnforced })
}

/// An answer that does not fit into UDP is asked for again over TCP.
const DNS_PORT: u16 = 53;

/// What the C library and the time zone database read, here and there. One that is not there is left out.
const SYSTEM_READ: &[(&str, &str)] = &[
    (
        "/etc",
        "resolv.conf, hosts, nsswitch.conf, localtime: replaced by renaming, so the folder; file permissions still hold",
    ),
    ("/run/systemd/resolve", "where resolv.conf leads under systemd-resolved, replaced by renaming"),
    ("/run/resolvconf", "where resolv.conf leads under resolvconf"),
    ("/run/NetworkManager", "where resolv.conf leads under NetworkManager"),
    ("/lib", "modules of the name service switch, loaded at the first look-up"),
    ("/lib64", "the same, elsewhere"),
    ("/usr/lib", "the same, elsewhere"),
    ("/usr/lib64", "the same, elsewhere"),
    ("/usr/share/zoneinfo", "the time zones of drill windows"),
];

/// The Landlock ABI that must be there: the first that knows TCP ports (Linux 6.7).
const REQUIRED: ABI = ABI::V4;

fn restrict_files_and_ports(sandbox: &Sandbox, ports: &BTreeSet<u16>) -> Result<RestrictionStatus, SandboxError> {
    let refused = |e: RulesetError| SandboxError::Landlock(e.to_string());
    let mut ruleset = ruleset().map_err(refused)?;
    for (path, _) in SYSTEM_READ {
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

/// A system call that the custodian never needs.
struct Denied {
    call: libc::c_long,
    /// For whoever wonders whether it may come back.
    #[cfg_attr(not(test), expect(dead_code, reason = "the reason is for the reader; a test holds that there is one"))]
    why: &'static str,
}

const fn no(call: libc::c_long, why: &'static str) -> Denied {
    Denied { call, why }
}

/// The system calls that answer EPERM, whatever their arguments.
const DENIED: &[Denied] = &[
    no(libc::SYS_bind, "nobody connects to a custodian; Landlock knows TCP binds alone"),
    no(libc::SYS_listen, "listening works without a bind, on a port that the kernel picks"),
    no(libc::SYS_accept, "nobody connects to a custodian"),
    no(libc::SYS_accept4, "nobody connects to a custodian"),
    no(libc::SYS_io_uring_setup, "its operations pass this filter by"),
    no(libc::SYS_io_uring_enter, "its operations pass this filter by"),
    no(libc::SYS_io_uring_register, "its operations pass this filter by"),
    no(libc::SYS_execve, "it runs no other program"),
    no(libc::SYS_execveat, "it runs no other program, from memory neither"),
    no(libc::SYS_ptrace, "other processes are none of its business"),
    no(libc::SYS_process_vm_readv, "other processes' memory"),
    no(libc::SYS_process_vm_writev, "other processes' memory"),
    no(libc::SYS_pidfd_getfd, "other processes' open files and sockets"),
    no(libc::SYS_kcmp, "other processes' insides"),
    no(libc::SYS_mount, "another view of the file system is a way round Landlock's"),
    no(libc::SYS_umount2, "another view of the file system"),
    no(libc::SYS_pivot_root, "another view of the file system"),
    no(libc::SYS_chroot, "another view of the file system"),
    no(libc::SYS_open_tree, "mount, by its newer names"),
    no(libc::SYS_move_mount, "mount, by its newer names"),
    no(libc::SYS_fsopen, "mount, by its newer names"),
    no(libc::SYS_fsconfig, "mount, by its newer names"),
    no(libc::SYS_fsmount, "mount, by its newer names"),
    no(libc::SYS_fspick, "mount, by its newer names"),
    no(libc::SYS_mount_setattr, "mount, by its newer names"),
    no(libc::SYS_unshare, "a namespace of its own gives it rights that it has not outside"),
    no(libc::SYS_setns, "somebody else's namespace"),
    no(libc::SYS_open_by_handle_at, "opens a file without walking its path"),
    no(libc::SYS_bpf, "programs in the kernel"),
    no(libc::SYS_perf_event_open, "measures other processes, and has been a door into the kernel"),
    no(libc::SYS_userfaultfd, "makes races in the kernel easy to win"),
    no(libc::SYS_fanotify_init, "watches everybody's files"),
    no(libc::SYS_init_module, "code in the kernel"),
    no(libc::SYS_finit_module, "code in the kernel"),
    no(libc::SYS_delete_module, "code in the kernel"),
    no(libc::SYS_kexec_load, "another kernel"),
    no(libc::SYS_kexec_file_load, "another kernel"),
    no(libc::SYS_reboot, "a custodian stops, its host does not"),
    no(libc::SYS_swapon, "memory on a disk of its choosing"),
    no(libc::SYS_swapoff, "the host's memory"),
    no(libc::SYS_acct, "writes a file for the kernel"),
    no(libc::SYS_syslog, "the kernel's log"),
    no(libc::SYS_add_key, "the kernel's keyrings, which other processes of this user share"),
    no(libc::SYS_request_key, "the kernel's keyrings"),
    no(libc::SYS_keyctl, "the kernel's keyrings"),
    no(libc::SYS_personality, "switches off the randomness of its addresses"),
    no(libc::SYS_clock_settime, "the wall clock bounds approvals: reading it is enough"),
    no(libc::SYS_settimeofday, "the wall clock bounds approvals: reading it is enough"),
];

/// The protocols of sockets that are let through for the families of the internet: "the usual one", TCP and UDP.
const PROTOCOLS: [libc::c_int; 3] = [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP];

/// The families of sockets that are let through.
const FAMILIES: [libc::c_int; 4] = [
    libc::AF_UNIX,    // the service manager's notify socket
    libc::AF_INET,    // the nodes, the broker, name look-ups
    libc::AF_INET6,   // the same
    libc::AF_NETLINK, // the C library asks which kinds of address the host has, before it looks up a name
];

fn restrict_calls() -> Result<(), SandboxError> {
    let refused = |e: seccompiler::Error| SandboxError::Seccomp(e.to_string());
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|e| refused(e.into()))?;
    let filter = filter(arch).map_err(|e| refused(e.into()))?;
    seccompiler::apply_filter(&filter).map_err(refused)?;
    if arch == TargetArch::x86_64 {
        seccompiler::apply_filter(&NO_X32).map_err(refused)?;
    }
    Ok(())
}

fn filter(arch: TargetArch) -> Result<BpfProgram, seccompiler::BackendError> {
    let argument = |index, op, value: libc::c_int| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, u64::from(value.cast_unsigned()))
    };
    let none_of = |index, values: &[libc::c_int]| -> Result<Vec<_>, _> {
        values.iter().map(|value| argument(index, SeccompCmpOp::Ne, *value)).collect()
    };
    let with_flag = |index, flag: libc::c_int| -> Result<_, _> {
        let op = SeccompCmpOp::MaskedEq(u64::from(flag.cast_unsigned()));
        SeccompRule::new(vec![argument(index, op, flag)?])
    };
    let mut rules: std::collections::BTreeMap<_, _> = DENIED.iter().map(|denied| (denied.call, Vec::new())).collect();

    // Families with roads of their own, such as to the hypervisor (vsock) or to the wire itself (packet). And protocols that
    // Landlock does not take for TCP, though they end at a TCP port (MPTCP).
    let internet_only = [libc::AF_UNIX, libc::AF_NETLINK];
    let other_family = SeccompRule::new(none_of(0, &FAMILIES)?)?;
    let other_protocol = SeccompRule::new([none_of(0, &internet_only)?, none_of(2, &PROTOCOLS)?].concat())?;
    rules.insert(libc::SYS_socket, vec![other_family, other_protocol]);

    // TCP Fast Open connects in a send, and Landlock looks at connects.
    rules.insert(libc::SYS_sendto, vec![with_flag(3, libc::MSG_FASTOPEN)?]);
    rules.insert(libc::SYS_sendmsg, vec![with_flag(2, libc::MSG_FASTOPEN)?]);
    rules.insert(libc::SYS_sendmmsg, vec![with_flag(3, libc::MSG_FASTOPEN)?]);

    let eperm = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, eperm, arch)?.try_into()
}

/// On x86-64, kernels may know a second set of numbers for the same calls, marked by this bit, which the filter above would
/// take for calls that it does not know.
const X32_BIT: u32 = 0x4000_0000;

/// A filter of four instructions: load the call's number; if it is of the second set, EPERM; else allow.
const NO_X32: [sock_filter; 4] = [
    sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 },
    sock_filter { code: 0x45, jt: 0, jf: 1, k: X32_BIT },
    sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | libc::EPERM as u32 },
    sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, ToSocketAddrs};
    use std::process::Command;

    use super::*;

    const FOLDER: &str = "HOLDFAST_TEST_SANDBOX_FOLDER";
    const PORTS: &str = "HOLDFAST_TEST_SANDBOX_PORTS";

    fn denied<T>(what: &str, tried: io::Result<T>) {
        match tried {
            Ok(_) => panic!("{what} still works"),
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::PermissionDenied, "{what}: {e}"),
        }
    }

    /// What is forbidden and what must go on working is tried in a process of its own, since nothing takes a sandbox back.
    #[test]
    fn it_lets_through_what_is_needed_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["read", "write", "replace", "else"] {
            fs::create_dir(folder.path().join(name)).expect("made");
            fs::write(folder.path().join(name).join("file"), name).expect("written");
        }
        let node = TcpListener::bind("127.0.0.1:0").expect("a port");
        let stranger = TcpListener::bind("127.0.0.1:0").expect("a port");
        let resolver = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = |addr: io::Result<std::net::SocketAddr>| addr.expect("bound").port();
        let ports =
            format!("{} {} {}", port(node.local_addr()), port(stranger.local_addr()), port(resolver.local_addr()));
        let answers = std::thread::spawn(move || {
            let (mut connection, _) = node.accept().expect("the child connects");
            let mut question = [0; 5];
            connection.read_exact(&mut question).expect("it asks");
            connection.write_all(&question).expect("it is answered");
        });
        let output = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "sandbox::tests::inside", "--ignored", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(PORTS, ports)
            .output()
            .expect("runs");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        answers.join().expect("the node was reached");
        let mut datagram = [0; 16];
        resolver.set_nonblocking(true).expect("set");
        assert_eq!(resolver.recv(&mut datagram).expect("the resolver was asked"), 5);
        stranger.set_nonblocking(true).expect("set");
        assert_eq!(stranger.accept().expect_err("nobody came").kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    #[ignore = "run by it_lets_through_what_is_needed_and_nothing_else, in a process of its own"]
    fn inside() {
        let folder = PathBuf::from(std::env::var_os(FOLDER).expect("run by the test above"));
        let ports = std::env::var(PORTS).expect("run by the test above");
        let ports: Vec<u16> = ports.split(' ').map(|port| port.parse().expect("a port")).collect();
        let [node, stranger, resolver] = ports[..] else { panic!("three ports") };
        let sandbox = Sandbox {
            read: vec![folder.join("read")],
            write: vec![folder.join("write")],
            replace: vec![folder.join("replace")],
            connect_ports: vec![node],
        };
        let enforced = confine_this_thread(&sandbox).expect("this kernel can");
        assert!(enforced.allows_port(node) && !enforced.allows_port(stranger));
        assert!(enforced.allows_replacing_in(&folder.join("replace")) && !enforced.allows_replacing_in(&folder));

        files(&folder);
        connections(node, stranger, resolver);
        calls();
        std::thread::spawn(|| denied("a bind in a thread started later", UdpSocket::bind("127.0.0.1:0")))
            .join()
            .expect("denied there too");
        // 2: a filter is in force.
        let flag =
            |option: libc::c_int| kernel::call(libc::SYS_prctl, [option as usize, 0, 0, 0, 0, 0]).expect("known");
        assert_eq!(
            [libc::PR_GET_NO_NEW_PRIVS, libc::PR_GET_DUMPABLE, libc::PR_GET_SECCOMP].map(flag),
            [1, 0, 2],
            "no_new_privs, dumpable, seccomp"
        );
    }

    fn files(folder: &Path) {
        let (read, write, other) = (folder.join("read"), folder.join("write"), folder.join("else"));
        assert_eq!(fs::read_to_string(read.join("file")).expect("readable"), "read");
        fs::write(write.join("new"), "whole").expect("may be made");
        fs::rename(write.join("new"), write.join("file")).expect("may be replaced");
        fs::remove_file(write.join("file")).expect("may be removed");
        denied("writing a file that is to be read", fs::write(read.join("file"), "changed"));
        denied("making a file where only reading is allowed", fs::write(read.join("new"), ""));
        let replaced = folder.join("replace").join("file");
        holdfast_edge::files::replace(&replaced, b"metrics", 0o644).expect("may be replaced");
        denied("reading what is only to be replaced", fs::read(&replaced));
        denied("making a folder there", fs::create_dir(folder.join("replace").join("folder")));
        denied("bringing a file there from elsewhere", fs::rename(read.join("file"), &replaced));
        // The kernel calls this one another device.
        fs::rename(&replaced, write.join("file")).expect_err("a file from there would be readable");
        denied("making a link", std::os::unix::fs::symlink("/", write.join("link")));
        denied("a file elsewhere", fs::read(other.join("file")));
        denied("a folder elsewhere", fs::read_dir(folder));
        denied("its own memory", fs::File::open("/proc/self/mem"));
        denied("writing to /etc", fs::write("/etc/holdfast-sandbox-test", ""));
        denied("a program", Command::new("/bin/true").status());
        // A reload may name one that nothing named before.
        assert!(crate::schedule::time_zone("Europe/Zurich").is_some(), "a time zone is found");
    }

    fn connections(node: u16, stranger: u16, resolver: u16) {
        let mut connection = TcpStream::connect(("127.0.0.1", node)).expect("the node's port is let through");
        connection.write_all(b"share").expect("sent");
        let mut answer = [0; 5];
        connection.read_exact(&mut answer).expect("answered");
        denied("a port that is not in the configuration", TcpStream::connect(("127.0.0.1", stranger)));
        denied("a TCP bind", TcpListener::bind("127.0.0.1:0"));
        denied("a UDP bind", UdpSocket::bind("127.0.0.1:0"));
        assert!(("localhost", node).to_socket_addrs().expect("names are looked up").next().is_some());

        let datagram = socket(libc::AF_INET, libc::SOCK_DGRAM, 0).expect("UDP sockets are made");
        send_to(datagram, resolver, 0).expect("the resolver is asked");

        let stream = || socket(libc::AF_INET, libc::SOCK_STREAM, 0).expect("TCP sockets are made");
        denied("listening without a bind", kernel::call(libc::SYS_listen, [stream(), 1, 0, 0, 0, 0]));
        denied("a connect by Fast Open", send_to(stream(), stranger, libc::MSG_FASTOPEN));
        denied("MPTCP", socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP));
        denied("SCTP", socket(libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_SCTP));
        denied("a raw socket", socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP));
        denied("a packet socket", socket(libc::AF_PACKET, libc::SOCK_RAW, 0));
        denied("the hypervisor", socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0));
    }

    fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<usize> {
        kernel::call(libc::SYS_socket, [family as usize, kind as usize, protocol as usize, 0, 0, 0])
    }

    fn send_to(socket: usize, port: u16, flags: libc::c_int) -> io::Result<usize> {
        let mut address = [0u8; 16];
        address[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        address[2..4].copy_from_slice(&port.to_be_bytes());
        address[4..8].copy_from_slice(&[127, 0, 0, 1]);
        let bytes = *b"where";
        let args = [socket, bytes.as_ptr().addr(), bytes.len(), flags as usize, address.as_ptr().addr(), address.len()];
        kernel::call(libc::SYS_sendto, args)
    }

    fn calls() {
        for denied_call in DENIED {
            let error = kernel::call(denied_call.call, [0; 6]).expect_err(denied_call.why);
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "call {}: {error}", denied_call.call);
        }
        #[cfg(target_arch = "x86_64")]
        {
            let again = libc::SYS_getpid | libc::c_long::from(X32_BIT);
            let error = kernel::call(again, [0; 6]).expect_err("the second set of numbers");
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        }
    }

    #[test]
    fn it_is_refused_once_threads_are_running() {
        // The test harness runs each test in a thread of its own.
        assert!(matches!(enforce(&Sandbox::default()), Err(SandboxError::Threads(2..))));
    }

    #[test]
    fn a_path_that_is_not_there_is_named() {
        let ruleset = ruleset().expect("this kernel can");
        let error = let_in(ruleset, Path::new("/no/such/folder"), READ).expect_err("not there");
        assert!(error.to_string().contains("/no/such/folder"), "{error}");
    }

    #[test]
    fn every_entry_of_the_policy_has_its_reason_and_is_there_once() {
        let calls: BTreeSet<_> = DENIED.iter().map(|denied| denied.call).collect();
        assert_eq!(calls.len(), DENIED.len());
        assert!(DENIED.iter().all(|denied| denied.why.len() > 10));
        assert!(SYSTEM_READ.iter().all(|(path, why)| path.starts_with('/') && why.len() > 10));
    }
}
