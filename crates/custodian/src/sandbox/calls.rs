//! The system calls that a custodian makes: a list, with a reason on each entry. What is not on it is refused.
//!
//! What lives here: the list, and the filter made of it. What does not: files and ports, which a filter of calls cannot see
//! (`super`), and trying what is forbidden (`super::trial`).
//!
//! **Refused, not killed.** A forbidden call answers EPERM, and the process goes on: libraries try things and live without them (the C library's
//! resolver asks which addresses the host has, and has always taken a no), and a custodian that an update of a library kills at
//! its first incident, at two in the morning, opens nothing. An attacker inside learns no more by the no than by the end. Calls of Linux 5.1 and
//! later answer ENOSYS, as on an older kernel: that is the answer to which libraries have a way round, and so a new one of theirs costs nothing.
//! What cannot be told apart by looking at its numbers, because it hides its arguments behind a pointer, is among them: `clone3`, in whose place
//! the C library then makes threads by `clone`, and `openat2`, `io_uring_setup`.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use super::SandboxError;

/// A call that is let through.
pub(super) struct Allowed {
    pub(super) call: libc::c_long,
    /// With which arguments: any of these. None listed is all of them.
    pub(super) only: &'static [&'static [Argument]],
    /// For whoever wonders whether it may go.
    #[cfg_attr(not(test), expect(dead_code, reason = "the reason is for the reader; a test holds that there is one"))]
    pub(super) why: &'static str,
}

/// What an argument has to be, by its place.
#[derive(Clone, Copy)]
pub(super) enum Argument {
    /// This.
    Is(u8, libc::c_int),
    /// This, in the bits of the mask.
    Has(u8, libc::c_int, libc::c_int),
    /// The number of this very process.
    Own(u8),
}

use Argument::{Has, Is, Own};

/// Whatever its arguments.
const fn any(call: libc::c_long, why: &'static str) -> Allowed {
    Allowed { call, only: &[], why }
}

const fn only(call: libc::c_long, only: &'static [&'static [Argument]], why: &'static str) -> Allowed {
    Allowed { call, only, why }
}

/// The kind of a socket, without the flags that stand in the same argument.
const KIND: libc::c_int = 0xf;

/// No memory becomes a program any more: modules of the name service switch are loaded by C libraries older than every kernel that has what the
/// sandbox needs (glibc 2.34 has files and DNS in itself).
const NOT_EXECUTABLE: &[&[Argument]] = &[&[Has(2, libc::PROT_EXEC, 0)]];

/// Threads, and nothing else: no process, and no namespace.
const THREADS: &[&[Argument]] = &[&[Has(
    0,
    libc::CLONE_THREAD
        | libc::CLONE_VFORK
        | libc::CLONE_PTRACE
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET,
    libc::CLONE_THREAD,
)]];

/// TCP to the nodes, the broker and the Pushgateway, and UDP for name look-ups, by their usual names: not MPTCP, which Landlock does not take for
/// TCP, nothing raw, no other family (a hypervisor's, a packet's, a Bluetooth's). Of Unix's, datagrams alone: that is how the service manager is told.
/// Other daemons, Docker's and D-Bus among them, take streams.
const SOCKETS: &[&[Argument]] = &[
    &[Is(0, libc::AF_INET), Has(1, KIND, libc::SOCK_STREAM), Is(2, 0)],
    &[Is(0, libc::AF_INET), Has(1, KIND, libc::SOCK_STREAM), Is(2, libc::IPPROTO_TCP)],
    &[Is(0, libc::AF_INET), Has(1, KIND, libc::SOCK_DGRAM), Is(2, 0)],
    &[Is(0, libc::AF_INET), Has(1, KIND, libc::SOCK_DGRAM), Is(2, libc::IPPROTO_UDP)],
    &[Is(0, libc::AF_INET6), Has(1, KIND, libc::SOCK_STREAM), Is(2, 0)],
    &[Is(0, libc::AF_INET6), Has(1, KIND, libc::SOCK_STREAM), Is(2, libc::IPPROTO_TCP)],
    &[Is(0, libc::AF_INET6), Has(1, KIND, libc::SOCK_DGRAM), Is(2, 0)],
    &[Is(0, libc::AF_INET6), Has(1, KIND, libc::SOCK_DGRAM), Is(2, libc::IPPROTO_UDP)],
    &[Is(0, libc::AF_UNIX), Has(1, KIND, libc::SOCK_DGRAM)],
];

/// No program for the kernel, no other protocol above TCP, no interface of one's choice.
const OPTIONS: &[&[Argument]] = &[
    &[Is(1, libc::IPPROTO_TCP), Is(2, libc::TCP_NODELAY)],
    &[Is(1, libc::IPPROTO_IP), Is(2, libc::IP_RECVERR)],
    &[Is(1, libc::IPPROTO_IPV6), Is(2, libc::IPV6_RECVERR)],
];

const DESCRIPTOR: &[&[Argument]] = &[
    &[Is(1, libc::F_GETFD)],
    &[Is(1, libc::F_SETFD)],
    &[Is(1, libc::F_GETFL)],
    &[Is(1, libc::F_SETFL)],
    &[Is(1, libc::F_DUPFD_CLOEXEC)],
];

/// What a terminal, a loop device or a tap could be made to do is not among them.
const CONTROLS: &[&[Argument]] = &[&[Is(1, FIONREAD)], &[Is(1, FIONBIO)], &[Is(1, FIOCLEX)], &[Is(1, TCGETS)]];

/// `asm-generic/ioctls.h`: the same on every machine that is served, and `libc` has them in a type that differs.
const FIONREAD: libc::c_int = 0x541b;
const FIONBIO: libc::c_int = 0x5421;
const FIOCLEX: libc::c_int = 0x5451;
const TCGETS: libc::c_int = 0x5401;

/// Names of threads and of memory, and questions. It cannot become dumpable again.
const PROCESS_OPTIONS: &[&[Argument]] = &[
    &[Is(0, libc::PR_SET_NAME)],
    &[Is(0, libc::PR_SET_VMA)],
    &[Is(0, libc::PR_GET_DUMPABLE)],
    &[Is(0, libc::PR_GET_NO_NEW_PRIVS)],
    &[Is(0, libc::PR_GET_SECCOMP)],
];

/// TCP Fast Open connects in a send, and Landlock looks at connects.
const NO_FAST_OPEN_3: &[&[Argument]] = &[&[Has(3, libc::MSG_FASTOPEN, 0)]];
const NO_FAST_OPEN_2: &[&[Argument]] = &[&[Has(2, libc::MSG_FASTOPEN, 0)]];

/// What is let through on every machine.
const ALLOWED: &[Allowed] = &[
    // Files, of which Landlock says which.
    any(libc::SYS_openat, "opens files and folders"),
    any(libc::SYS_close, "closes what was opened"),
    any(libc::SYS_read, "reads files and the ends of signals' pipes"),
    any(libc::SYS_readv, "the same, into several buffers"),
    any(libc::SYS_write, "writes files, the log on stderr, wake-ups between threads"),
    any(libc::SYS_writev, "TLS records and log lines of several parts"),
    any(libc::SYS_pread64, "reads the end of the audit log"),
    any(libc::SYS_pwrite64, "writes the audit log at the place that it knows"),
    any(libc::SYS_lseek, "finds the length of a file"),
    any(libc::SYS_statx, "asks for size, rights and age of files"),
    any(libc::SYS_newfstatat, "the same, by the C library: has resolv.conf changed?"),
    any(libc::SYS_fstat, "the same, of an open file"),
    any(libc::SYS_readlinkat, "makes a path of the configuration canonical"),
    any(libc::SYS_faccessat, "whether a file is there"),
    any(libc::SYS_getdents64, "lists the inbox and the state folder"),
    any(libc::SYS_fsync, "a state file is on the disk before anything depends on it"),
    any(libc::SYS_fdatasync, "the audit entry is on the disk before a share leaves"),
    any(libc::SYS_ftruncate, "takes a torn line off the audit log"),
    any(libc::SYS_flock, "one custodian writes an audit log"),
    any(libc::SYS_fchmod, "a state file is nobody else's to read before it has its name"),
    any(libc::SYS_renameat, "state files are replaced whole, full audit logs put away"),
    any(libc::SYS_linkat, "a new file gets its name only if nobody has it"),
    any(libc::SYS_unlinkat, "what was taken out of the inbox goes"),
    any(libc::SYS_mkdirat, "the inbox is made"),
    only(libc::SYS_fcntl, DESCRIPTOR, "descriptors that are closed on exec, sockets that do not block"),
    only(libc::SYS_ioctl, CONTROLS, "how much a socket holds, that it does not block, whether stderr is a terminal"),
    // Connections, of which Landlock says to which ports.
    only(libc::SYS_socket, SOCKETS, "to nodes, broker, Pushgateway, name servers and the service manager"),
    only(
        libc::SYS_socketpair,
        &[&[Is(0, libc::AF_UNIX), Has(1, KIND, libc::SOCK_STREAM)]],
        "a signal's handler wakes the loop by one",
    ),
    any(libc::SYS_connect, "to the same"),
    only(libc::SYS_sendto, NO_FAST_OPEN_3, "questions to name servers, words to the service manager"),
    only(libc::SYS_sendmsg, NO_FAST_OPEN_2, "the same"),
    only(libc::SYS_sendmmsg, NO_FAST_OPEN_3, "both questions of a name look-up at once"),
    any(libc::SYS_recvfrom, "what nodes, broker and name servers answer"),
    any(libc::SYS_recvmsg, "the same"),
    any(libc::SYS_shutdown, "the end of a connection in good order"),
    any(libc::SYS_getsockopt, "whether a connect went through"),
    only(libc::SYS_setsockopt, OPTIONS, "small requests leave at once; a name server that is not there is noticed"),
    any(libc::SYS_getsockname, "which of a name's addresses is nearest, and the own end of a connection"),
    any(libc::SYS_getpeername, "the other end of a connection"),
    // Waiting.
    any(libc::SYS_epoll_create1, "the loop that waits for everything"),
    any(libc::SYS_epoll_ctl, "the same"),
    any(libc::SYS_epoll_pwait, "the same"),
    any(libc::SYS_eventfd2, "wakes it from another thread"),
    any(libc::SYS_ppoll, "waits for a name server's answer"),
    any(libc::SYS_futex, "threads wait for each other"),
    any(libc::SYS_nanosleep, "a pause of a library's"),
    any(libc::SYS_clock_nanosleep, "the same"),
    any(libc::SYS_restart_syscall, "the kernel's own, after a stop and a continuation"),
    // Threads: one reads and checks files, one looks at a drill's node.
    only(libc::SYS_clone, THREADS, "threads, and no processes"),
    any(libc::SYS_set_robust_list, "each new thread's"),
    any(libc::SYS_rseq, "each new thread's"),
    any(libc::SYS_sched_getaffinity, "how many processors the C library shares its memory among"),
    any(libc::SYS_sched_yield, "lets another thread go first"),
    any(libc::SYS_getcpu, "where this thread runs"),
    any(libc::SYS_gettid, "which thread this is"),
    any(libc::SYS_getpid, "which process this is"),
    any(libc::SYS_exit, "a thread's end"),
    any(libc::SYS_exit_group, "the process's end"),
    only(libc::SYS_tgkill, &[&[Own(0)]], "how it aborts; another process cannot be signalled"),
    // Memory.
    only(libc::SYS_mmap, NOT_EXECUTABLE, "memory to read and write"),
    only(libc::SYS_mprotect, NOT_EXECUTABLE, "the guards of stacks, the growth of arenas"),
    any(libc::SYS_munmap, "memory that is given back"),
    any(libc::SYS_mremap, "memory that grows, in libraries written in C"),
    any(libc::SYS_madvise, "a stack that is not needed any more, random state that no child is to have"),
    any(libc::SYS_brk, "the heap"),
    // Signals, time, chance, itself.
    any(libc::SYS_rt_sigaction, "SIGTERM, SIGINT and SIGHUP are caught"),
    any(libc::SYS_rt_sigprocmask, "each new thread's"),
    any(libc::SYS_rt_sigreturn, "the end of a signal's handler"),
    any(libc::SYS_sigaltstack, "each new thread has a place to tell of an overflow of its stack"),
    any(libc::SYS_clock_gettime, "the time, where the kernel's page of it does not serve"),
    any(libc::SYS_clock_getres, "the same"),
    any(libc::SYS_gettimeofday, "the same"),
    any(libc::SYS_clock_adjtime, "whether the clock is synchronised; setting it takes a right that it has not"),
    any(libc::SYS_uname, "the host's own name, in whose domain a name may be meant"),
    any(libc::SYS_getrandom, "keys of connections, ids"),
    only(libc::SYS_prctl, PROCESS_OPTIONS, "names of threads"),
];

/// What the same things are called besides on the oldest of the 64-bit machines.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[Allowed] = &[
    any(libc::SYS_stat, "asks for size, rights and age of files"),
    any(libc::SYS_lstat, "the same"),
    any(libc::SYS_readlink, "makes a path of the configuration canonical"),
    any(libc::SYS_access, "whether a file is there"),
    any(libc::SYS_rename, "state files are replaced whole, full audit logs put away"),
    any(libc::SYS_link, "a new file gets its name only if nobody has it"),
    any(libc::SYS_unlink, "what was taken out of the inbox goes"),
    any(libc::SYS_mkdir, "the inbox is made"),
    any(libc::SYS_epoll_wait, "the loop that waits for everything"),
    any(libc::SYS_poll, "waits for a name server's answer"),
    any(libc::SYS_time, "the time, where the kernel's page of it does not serve"),
];

/// Every other machine began with the newer names alone.
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[Allowed] = &[];

/// All that is let through on this machine.
pub(super) fn allowed() -> impl Iterator<Item = &'static Allowed> {
    ALLOWED.iter().chain(ALLOWED_HERE)
}

/// The first number that means the same call on every machine: those of Linux 5.1 and later. None from here on is on the list.
pub(super) const NEWER: u32 = 424;

/// What stands before the list: load the call's number, and answer ENOSYS to a new one. The numbers of x86-64's second set of the same calls (x32) are
/// above all others, and so are among them.
const REFUSE_NEWER: [sock_filter; 3] = [
    sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 },
    sock_filter { code: 0x35, jt: 0, jf: 1, k: NEWER },
    sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32 },
];

/// Puts the list in force, for this thread and all that it starts.
pub(super) fn restrict() -> Result<(), SandboxError> {
    let refused = |e: seccompiler::Error| SandboxError::Seccomp(e.to_string());
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|e| refused(e.into()))?;
    let filter = filter(arch).map_err(|e| refused(e.into()))?;
    // Jumps are counted from where they stand: what is put before the list changes none in it.
    seccompiler::apply_filter(&[&REFUSE_NEWER, filter.as_slice()].concat()).map_err(refused)
}

fn filter(arch: TargetArch) -> Result<BpfProgram, BackendError> {
    let mut rules = BTreeMap::new();
    for allowed in allowed() {
        let alternatives = allowed.only.iter().map(|arguments| rule(arguments)).collect::<Result<Vec<_>, _>>()?;
        rules.insert(allowed.call, alternatives);
    }
    let eperm = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    SeccompFilter::new(rules, eperm, SeccompAction::Allow, arch)?.try_into()
}

fn rule(arguments: &[Argument]) -> Result<SeccompRule, BackendError> {
    let own = std::process::id();
    let conditions = arguments.iter().map(|argument| {
        let (index, op, value) = match *argument {
            Is(index, value) => (index, SeccompCmpOp::Eq, value.cast_unsigned()),
            Has(index, mask, value) => {
                (index, SeccompCmpOp::MaskedEq(u64::from(mask.cast_unsigned())), value.cast_unsigned())
            }
            Own(index) => (index, SeccompCmpOp::Eq, own),
        };
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, u64::from(value))
    });
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}
