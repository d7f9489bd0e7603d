//! The sandbox, tried: what is forbidden and what must go on working.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::process::Command;

use super::calls::{NEWER, allowed};
use super::trial::{TRIALS, works};
use super::*;

const FOLDER: &str = "HOLDFAST_TEST_SANDBOX_FOLDER";
/// The numbers of all calls that any kernel has so far, and some more.
const CALLS_KNOWN: libc::c_long = 600;

/// `uretprobe` and `uprobe`, which the kernel lets past every filter, and ends a process by that calls one from elsewhere than its own code for it.
#[cfg(target_arch = "x86_64")]
const UNFILTERED: [libc::c_long; 2] = [335, 336];
#[cfg(not(target_arch = "x86_64"))]
const UNFILTERED: [libc::c_long; 0] = [];

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
    let ports = format!("{} {} {}", port(node.local_addr()), port(stranger.local_addr()), port(resolver.local_addr()));
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
    trial::run(&sandbox, confine_this_thread).expect("all that is tried is refused");
    let enforced = confine_this_thread(&sandbox).expect("this kernel can");
    assert!(enforced.allows_port(node) && !enforced.allows_port(stranger));
    assert!(enforced.allows_replacing_in(&folder.join("replace")) && !enforced.allows_replacing_in(&folder));

    files(&folder);
    connections(node, stranger, resolver);
    forbidden_calls();
    std::thread::spawn(|| denied("a bind in a thread started later", UdpSocket::bind("127.0.0.1:0")))
        .join()
        .expect("denied there too");
    // 2: a filter is in force.
    let flag = |option: libc::c_int| kernel::call(libc::SYS_prctl, [option as usize, 0, 0, 0, 0, 0]).expect("known");
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

/// Whatever the kernel knows and the list does not, by its number, with arguments that do nothing where it is let through all the same.
fn forbidden_calls() {
    let list: BTreeSet<_> = allowed().map(|allowed| allowed.call).collect();
    for number in (0..CALLS_KNOWN).filter(|number| !list.contains(number) && !UNFILTERED.contains(number)) {
        let error = kernel::call(number, [usize::MAX; 6]).expect_err("not on the list");
        let refused = if number < NEWER.into() { libc::EPERM } else { libc::ENOSYS };
        assert_eq!(error.raw_os_error(), Some(refused), "call {number}: {error}");
    }
    #[cfg(target_arch = "x86_64")]
    {
        let again = libc::SYS_getpid | 0x4000_0000;
        let error = kernel::call(again, [0; 6]).expect_err("the second set of numbers");
        assert_eq!(error.raw_os_error(), Some(libc::ENOSYS));
    }
    let refused = |what: &str, call: libc::c_long, args: [usize; 6]| denied(what, kernel::call(call, args));
    let namespace = libc::CLONE_THREAD | libc::CLONE_NEWNS;
    refused("a process", libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0, 0, 0]);
    refused("a thread in a namespace of its own", libc::SYS_clone, [namespace as usize, 0, 0, 0, 0, 0]);
    refused("a signal to its parent", libc::SYS_tgkill, [std::os::unix::process::parent_id() as usize, 1, 0, 0, 0, 0]);
    refused("a program of memory", libc::SYS_mprotect, [0, 4096, libc::PROT_EXEC as usize, 0, 0, 0]);
    refused("typing at a terminal", libc::SYS_ioctl, [0, 0x5412, 0, 0, 0, 0]);
    refused("being told by a signal", libc::SYS_fcntl, [0, libc::F_SETOWN as usize, 1, 0, 0, 0]);
    refused("a filter on a socket", libc::SYS_setsockopt, [0, libc::SOL_SOCKET as usize, 26, 0, 0, 0]);
    refused("another filter", libc::SYS_prctl, [libc::PR_SET_SECCOMP as usize, 2, 0, 0, 0, 0]);
}

/// Everything that is tried works where there is no sandbox, in so far as this user may: whoever finds it refused has found the sandbox.
#[test]
fn what_the_trial_tries_works_outside() {
    let nothing = |_: &Sandbox| Ok(Enforced::default());
    let first = trial::run(&Sandbox::default(), nothing).expect_err("nothing is forbidden");
    assert!(matches!(first, SandboxError::Leaks("becoming another program")), "{first}");
    // What takes rights that this user, or a kernel that this one is not, may lack.
    let root = File::open(SECRETS_OF_OTHERS).is_ok();
    let may_lack = ["io_uring", "namespaces of its own", "being traced"];
    let takes_root = ["reading /etc/shadow", "mounting", "room for a core file"];
    for trial in TRIALS.iter().skip(1).filter(|trial| !may_lack.contains(&trial.what)) {
        let worked = kernel::in_a_child(|| u8::from(works(trial, &BTreeSet::new()))).expect("tried");
        assert!(worked == Some(1) || (!root && takes_root.contains(&trial.what)), "{}: {worked:?}", trial.what);
    }
}

#[test]
fn a_trial_that_cannot_be_held_is_no_proof() {
    let fails = |_: &Sandbox| Err(SandboxError::Threads(2));
    assert!(matches!(trial::run(&Sandbox::default(), fails), Err(SandboxError::Untried(_))));
    let panics = |_: &Sandbox| panic!("in the child");
    assert!(matches!(trial::run(&Sandbox::default(), panics), Err(SandboxError::Untried(_))));
    let killed = |_: &Sandbox| {
        kernel::call(libc::SYS_kill, [std::process::id() as usize, 9, 0, 0, 0, 0]).expect("it may end itself");
        Ok(Enforced::default())
    };
    assert!(matches!(trial::run(&Sandbox::default(), killed), Err(SandboxError::Untried(_))));
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

/// What no reason is good enough for: to be reached, to become another, to touch other processes, to have another view of the files, to have code in the
/// kernel, to go round this very filter.
const NEVER: &[libc::c_long] = &[
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_personality,
    libc::SYS_clock_settime,
    libc::SYS_settimeofday,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_memfd_create,
    libc::SYS_prlimit64,
    libc::SYS_setuid,
    libc::SYS_capset,
    libc::SYS_seccomp,
    libc::SYS_pkey_mprotect,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
];

#[test]
fn what_must_never_be_on_the_list_is_not() {
    let found: Vec<_> = allowed().filter(|allowed| NEVER.contains(&allowed.call)).map(|allowed| allowed.why).collect();
    assert!(found.is_empty(), "{found:?}");
    let free =
        [libc::SYS_socket, libc::SYS_clone, libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_prctl, libc::SYS_ioctl];
    for call in free.into_iter().chain([libc::SYS_fcntl, libc::SYS_setsockopt, libc::SYS_tgkill, libc::SYS_sendto]) {
        assert!(allowed().any(|allowed| allowed.call == call && !allowed.only.is_empty()), "{call} takes any argument");
    }
}

#[test]
fn every_entry_of_the_policy_has_its_reason_and_is_there_once() {
    let calls: BTreeSet<_> = allowed().map(|allowed| allowed.call).collect();
    assert_eq!(calls.len(), allowed().count());
    assert!(allowed().all(|allowed| allowed.why.len() >= 8 && allowed.call < NEWER.into()));
    let files = SYSTEM_READ.iter().chain(SETTINGS_ALONE).chain([&SETTINGS]);
    assert!(files.into_iter().all(|(path, why)| path.starts_with('/') && why.len() >= 8));
}
