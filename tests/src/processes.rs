//! Processes as the kernel shows them: whether one runs, what it was started with, which sockets it has; and signals.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use crate::wait::until;

/// Whether a process runs. One whose exit status waits for its parent does not; one of whose threads is still ending does, and
/// still holds its files.
pub fn runs(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().any(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    })
}

/// Sends a signal to a process that must be there.
pub fn signal(pid: u32, signal: Signal) {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(target, signal).unwrap_or_else(|e| panic!("{signal:?} to {pid}: {e}"));
}

/// Waits until a process has ended.
pub fn gone(pid: u32) {
    until(&format!("the end of process {pid}"), || !runs(pid));
}

/// What a process was started with: its arguments and its environment, as the kernel keeps them.
pub fn started_with(pid: u32) -> Vec<(PathBuf, Vec<u8>)> {
    let files = ["cmdline", "environ"].map(|name| PathBuf::from(format!("/proc/{pid}/{name}")));
    files.into_iter().map(|file| (file.clone(), fs::read(&file).expect("a process that runs"))).collect()
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
    /// The address at its other end.
    pub remote: String,
}

impl Socket {
    /// Whether somebody could send it something unasked: it listens, or needs no connection.
    pub fn is_open_to_all(&self) -> bool {
        !self.protocol.starts_with("tcp") || self.state == "0A"
    }

    /// Whether it is connected to the port of this URL.
    pub fn leads_to(&self, url: &str) -> bool {
        let port: u16 = url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        self.state == "01" && self.remote.ends_with(&format!(":{port:04X}"))
    }
}

/// The sockets of a process, by the kernel's tables.
pub fn sockets(pid: u32) -> Vec<Socket> {
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("a process that runs").flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default().to_string_lossy().into_owned();
        inodes.extend(target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')).map(str::to_owned));
    }
    let mut found = Vec::new();
    for protocol in ["tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6"] {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{protocol}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let columns: Vec<_> = line.split_whitespace().collect();
            if let [_, local, remote, state, _, _, _, _, _, inode, ..] = columns[..]
                && inodes.contains(inode)
            {
                found.push(Socket {
                    protocol,
                    state: state.to_owned(),
                    local: local.to_owned(),
                    remote: remote.to_owned(),
                });
            }
        }
    }
    found.sort();
    found
}
