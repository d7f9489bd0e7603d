//! What the kernel has to be asked for in C: the one file of the project with `unsafe` in it.
//!
//! What lives here: process flags and limits, the clock's state, a disk's room, a child, the things that the sandbox forbids and that are tried for
//! it, and the boot's id beside them. What does not: policy;
//! what may be done inside the sandbox is `sandbox`'s to say.
#![allow(unsafe_code, reason = "these calls have no safe form in std, and each block says why it is sound")]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Where the kernel tells the id of this boot. Tests bind another file over it.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The id of the host's present boot: it changes with every reboot and never else. Read once at start, before the sandbox,
/// which does not let `/proc` in.
pub(crate) fn boot_id() -> io::Result<String> {
    let text = std::fs::read_to_string(BOOT_ID)?;
    let id = text.trim_end();
    let is_uuid = id.len() == 36 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if is_uuid { Ok(id.to_owned()) } else { Err(io::Error::other(format!("{BOOT_ID} does not hold a UUID"))) }
}

/// Whether the kernel believes that its wall clock follows a better one. What sets this is an NTP client, on the host.
pub(crate) fn clock_synchronised() -> bool {
    // SAFETY: `timex` is a plain C struct of integers, of which all zeros is a value: "change nothing".
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live `timex` of this function's own, which the call fills and does not keep.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    state >= 0 && state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0
}

/// How many bytes this user may still write on the disk that a path lies on.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `statvfs` is a plain C struct of integers, of which all zeros is a value.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of this function's own; the call reads the one, fills the other and keeps neither.
    check(unsafe { libc::statvfs(path.as_ptr(), &raw mut stat) })?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Nothing that this process could ever execute gains rights by it, such as by a set-user-id bit.
pub(crate) fn forbid_new_privileges() -> io::Result<()> {
    // SAFETY: takes integers and touches no memory of ours.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
}

/// Others of the same user can neither trace this process nor read its memory through `/proc`, and it leaves no core dump.
pub(crate) fn forbid_dumping() -> io::Result<()> {
    // SAFETY: takes integers and touches no memory of ours.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) })
}

/// A core dump, were one made all the same, has room for nothing.
pub(crate) fn limit_core_dumps() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live `rlimit` of this function's own, which the call only reads.
    check(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) })
}

/// Keeps all of this process's memory out of the swap, now and later, page by page as it is used. False where this user may not keep that
/// much: a limit that is reached later would leave the process without memory, and so it is all or nothing.
pub(crate) fn lock_memory() -> io::Result<bool> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live `rlimit` of this function's own, which the call fills.
    check(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) })?;
    if limit.rlim_cur != libc::RLIM_INFINITY && !has_capability(CAP_IPC_LOCK)? {
        return Ok(false);
    }
    // SAFETY: takes integers; what it changes of the memory is where it is kept.
    check(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) })?;
    Ok(true)
}

/// `linux/capability.h`: the limit of locked memory does not hold.
const CAP_IPC_LOCK: u32 = 14;

/// Whether a right is in effect, by the kernel's own account.
fn has_capability(capability: u32) -> io::Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let rights = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    let rights = rights.ok_or_else(|| io::Error::other("/proc/self/status does not tell the capabilities"))?;
    Ok(rights >> capability & 1 == 1)
}

/// Does something in a process that is a copy of this one and ends with it. Returns what came of it; none, if a signal ended it. To be called while this
/// thread is the only one: the copy has no other, whatever those held.
pub(crate) fn in_a_child(work: impl FnOnce() -> u8) -> io::Result<Option<u8>> {
    // SAFETY: the child is a copy of a process with one thread, so that no lock is held that nobody will release; it does its work, and ends
    // without returning into what is the parent's to do.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(u8::MAX);
            // SAFETY: ends the child, and nothing of the parent's with it: no destructor, no buffer that would be written twice.
            unsafe { libc::_exit(code.into()) }
        }
        child => child,
    };
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a live integer of this function's own, which the call fills.
        match unsafe { libc::waitpid(child, &raw mut status, 0) } {
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            -1 => return Err(io::Error::last_os_error()),
            _ => break,
        }
    }
    Ok(libc::WIFEXITED(status).then(|| u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX)))
}

/// What has no form in std that could be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forbidden {
    /// To have a port of its own.
    Bind,
    /// To listen at a port that the kernel picks.
    Listen,
    /// To be traced by the parent.
    Trace,
    /// To read memory by another process's number; its own, to harm nobody.
    ReadMemory,
    /// To hand calls to the kernel past every filter.
    IoUring,
    /// To mount something.
    Mount,
    /// To have namespaces of its own, and root's rights in them.
    Namespaces,
    /// To signal a process; its own, and the signal is none.
    Signal,
    /// To be dumpable again.
    Dump,
    /// To leave a core file of any size.
    CoreFile,
    /// To have memory that it can both write and execute.
    ExecutableMemory,
}

/// Tries one of them. Whatever it is, nothing is left of it but what its name says, and it is tried in a process that ends.
pub(crate) fn attempt(forbidden: Forbidden) -> io::Result<()> {
    match forbidden {
        Forbidden::Bind => {
            // SAFETY: `sockaddr_in` is a plain C struct of integers, of which all zeros is a value: any address, any port.
            let mut any: libc::sockaddr_in = unsafe { std::mem::zeroed() };
            any.sin_family = libc::AF_INET as libc::sa_family_t;
            let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            // SAFETY: the pointer is to a live address of that length, which the call only reads.
            check(unsafe { libc::bind(tcp_socket(), (&raw const any).cast(), length) })
        }
        // SAFETY: takes integers; of a socket that was not made, the kernel says so.
        Forbidden::Listen => check(unsafe { libc::listen(tcp_socket(), 1) }),
        // SAFETY: of these arguments, the call looks at the first alone.
        Forbidden::Trace => known(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }),
        Forbidden::ReadMemory => {
            let (mut to, from) = (0u8, 0u8);
            let local = libc::iovec { iov_base: (&raw mut to).cast(), iov_len: 1 };
            let remote = libc::iovec { iov_base: (&raw const from).cast_mut().cast(), iov_len: 1 };
            // SAFETY: both describe one live byte of this function's own; the one is written, the other read.
            let read = unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
            known(read as libc::c_long)
        }
        // SAFETY: without a place for what it would tell, the kernel makes no ring and says so.
        Forbidden::IoUring => known(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null::<u8>()) }),
        Forbidden::Mount => {
            let nowhere = c"/holdfast-no-such-folder".as_ptr();
            // SAFETY: all four are constant strings or none, which the call reads.
            check(unsafe { libc::mount(nowhere, nowhere, std::ptr::null(), libc::MS_BIND, std::ptr::null()) })
        }
        // SAFETY: takes an integer.
        Forbidden::Namespaces => check(unsafe { libc::unshare(libc::CLONE_NEWUSER) }),
        // SAFETY: takes integers; the signal 0 is a question.
        Forbidden::Signal => check(unsafe { libc::kill(libc::getpid(), 0) }),
        // SAFETY: takes integers and touches no memory of ours.
        Forbidden::Dump => check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) }),
        Forbidden::CoreFile => {
            let any = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: the pointer is to a live `rlimit` of this function's own, which the call only reads.
            check(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const any) })
        }
        Forbidden::ExecutableMemory => {
            let rights = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: asks for memory where none is; nobody is told where it is.
            let memory = unsafe { libc::mmap(std::ptr::null_mut(), 4096, rights, flags, -1, 0) };
            if memory == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
        }
    }
}

fn tcp_socket() -> libc::c_int {
    // SAFETY: takes integers.
    unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) }
}

fn known(returned: libc::c_long) -> io::Result<()> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn check(returned: libc::c_int) -> io::Result<()> {
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Any system call by its number, so that tests can try what the sandbox forbids. Pointers among `args` are the test's care.
#[cfg(test)]
pub(crate) fn call(number: libc::c_long, args: [usize; 6]) -> io::Result<usize> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: in tests alone, which pass integers and pointers to buffers that outlive the call.
    let returned = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_id_is_the_same_twice() {
        let first = boot_id().expect("there on every Linux");
        assert_eq!(boot_id().expect("there"), first);
    }

    #[test]
    fn the_clock_says_what_the_kernel_says() {
        // ADJ_OFFSET_SS_READ and its like are not asked for: all zeros changes nothing, and so asking twice is harmless.
        assert_eq!(clock_synchronised(), clock_synchronised());
    }
}
