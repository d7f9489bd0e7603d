//! Processes as the kernel shows them: whether one runs, what it was started with, which sockets it has; and signals.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
pub use rustix::process::Signal;
use rustix::process::{Pid, PidfdFlags, kill_process, pidfd_open};

use crate::wait::until;

/// Whether a process runs. One whose exit status waits for its parent does not; one of whose threads is still ending does, and
/// still holds its files: the kernel tells of the end of the last one.
pub fn runs(pid: u32) -> bool {
    let Ok(process) = pidfd_open(id(pid), PidfdFlags::empty()) else { return false };
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("a process can be asked whether it ended") == 0
}

/// Sends a signal to a process that must be there.
pub fn signal(pid: u32, signal: Signal) {
    kill_process(id(pid), signal).unwrap_or_else(|e| panic!("{signal:?} to {pid}: {e}"));
}

fn id(pid: u32) -> Pid {
    i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid")
}

/// Whether SIGSTOP, or whoever traces it, keeps every thread of a process from going on.
pub fn stands_still(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
    let status = threads.map(|thread| fs::read_to_string(thread.path().join("status")).unwrap_or_default());
    let state = |status: String| status.lines().find_map(|line| line.strip_prefix("State:")?.trim().chars().next());
    // A thread that ended meanwhile has none.
    status.filter_map(state).all(|state| "Tt".contains(state))
}

/// Waits until a process has ended.
pub fn gone(pid: u32) {
    until(&format!("the end of process {pid}"), || !runs(pid));
}

/// What a process was started with: its arguments and its environment, as the kernel keeps them. A custodian shows its
/// environment to root alone.
pub fn started_with(pid: u32) -> Vec<(PathBuf, Vec<u8>)> {
    let files = ["cmdline", "environ"].map(|name| PathBuf::from(format!("/proc/{pid}/{name}")));
    files.into_iter().filter_map(|file| Some((file.clone(), fs::read(&file).ok()?))).collect()
}

/// The processor time that a process has used, in ticks: proc(5), fields 14 and 15 of `stat`.
pub fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // Behind the program's name in brackets, field 3 is the first.
    let fields: Vec<_> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum()
}

/// The memory that a process has, of which there are 1,024 bytes to each.
pub fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
}

/// One socket of the network, of a process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Socket {
    /// `tcp`, `tcp6`, `udp`, `udp6`, `raw`, `raw6` …
    pub protocol: &'static str,
    /// The kernel's number for its state: `0A` listens.
    pub state: String,
    /// Its own address, in hexadecimal.
    pub local: String,
}

impl Socket {
    /// Whether somebody could send it something unasked: it listens, or needs no connection.
    pub fn is_open_to_all(&self) -> bool {
        !self.protocol.starts_with("tcp") || self.state == "0A"
    }
}

/// The sockets of a process, by the kernel's tables. None where the kernel does not let this user look: a custodian's process
/// shows itself to root alone.
pub fn sockets(pid: u32) -> Option<Vec<Socket>> {
    let inodes = socket_inodes(pid)?;
    Some(table(pid).into_iter().filter(|(_, _, inode)| inodes.contains(inode)).map(|(socket, ..)| socket).collect())
}

/// The port at which a process listens that was told to take any; none yet, while it starts.
pub fn listening_port(pid: u32) -> Option<u16> {
    let listening = sockets(pid)?.into_iter().find(|socket| socket.protocol.starts_with("tcp") && socket.state == "0A");
    u16::from_str_radix(listening?.local.rsplit_once(':')?.1, 16).ok()
}

/// The sockets of this user's that are open to all and of no process that lets itself be looked at: what a process that does
/// not would have.
pub fn hidden_sockets() -> Vec<Socket> {
    let me = rustix::process::getuid().as_raw().to_string();
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir("/proc").expect("proc").flatten() {
        let pid = entry.file_name().to_string_lossy().parse();
        seen.extend(pid.ok().and_then(socket_inodes).unwrap_or_default());
    }
    let of_mine = table(std::process::id())
        .into_iter()
        .filter(|(socket, user, inode)| socket.is_open_to_all() && *user == me && !seen.contains(inode));
    of_mine.map(|(socket, ..)| socket).collect()
}

fn socket_inodes(pid: u32) -> Option<BTreeSet<String>> {
    let targets = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let targets = targets.map(|entry| fs::read_link(entry.path()).unwrap_or_default().to_string_lossy().into_owned());
    Some(targets.filter_map(|t| Some(t.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect())
}

/// Every socket that a process's network has, with its user and its inode.
fn table(pid: u32) -> Vec<(Socket, String, String)> {
    let mut found = Vec::new();
    for protocol in ["tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6"] {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{protocol}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let columns: Vec<_> = line.split_whitespace().collect();
            if let [_, local, _, state, _, _, _, user, _, inode, ..] = columns[..] {
                let (state, local) = (state.to_owned(), local.to_owned());
                found.push((Socket { protocol, state, local }, user.to_owned(), inode.to_owned()));
            }
        }
    }
    found.sort();
    found
}
