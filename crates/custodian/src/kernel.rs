//! What the kernel has to be asked for in C: the one file of the project with `unsafe` in it.
//!
//! What lives here: process flags and limits, the clock's state, a disk's room, and the boot's id beside them. What does not: policy;
//! what may be done inside the sandbox is `sandbox.rs`'s to say.
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
