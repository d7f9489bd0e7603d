//! Which sockets a process listens on, read from the kernel's own tables: what `ss -lntup` shows, without needing it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

/// The kernel's tables of internet sockets, which all have the same columns.
const INTERNET: [&str; 6] = ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"];
/// A TCP socket that listens (`include/net/tcp_states.h`).
const LISTEN: &str = "0A";
/// A UDP or raw socket without a peer: whoever sends to its port is heard.
const UNCONNECTED: &str = "07";
/// A Unix socket that accepts connections (`__SO_ACCEPTCON`).
const ACCEPTS: u64 = 0x1_0000;

/// The sockets of one network namespace, by inode.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    /// Those on which something can arrive that was not asked for, and their kind.
    pub(crate) listening: BTreeMap<u64, &'static str>,
    /// Those of the internet protocols among them that processes of this user made.
    pub(crate) ours: BTreeSet<u64>,
    /// Connections of the internet protocols.
    pub(crate) connected: BTreeSet<u64>,
}

impl Sockets {
    /// All sockets of the network that this process lives in.
    pub(crate) fn around(pid: u32) -> io::Result<Self> {
        let mut sockets = Self::default();
        for kind in INTERNET {
            let table = match fs::read_to_string(format!("/proc/{pid}/net/{kind}")) {
                Ok(table) => table,
                // A kernel without IPv6.
                Err(e) if e.kind() == io::ErrorKind::NotFound && kind.ends_with('6') => continue,
                Err(e) => return Err(e),
            };
            sockets.add_internet(kind, &table);
        }
        sockets.add_unix(&fs::read_to_string(format!("/proc/{pid}/net/unix"))?);
        Ok(sockets)
    }

    /// Columns: number, local address, peer's address, state, three more, user, one more, inode.
    fn add_internet(&mut self, kind: &'static str, table: &str) {
        for line in table.lines().skip(1) {
            let mut columns = line.split_whitespace().skip(3);
            let (Some(state), Some(user), Some(inode)) = (columns.next(), columns.nth(3), columns.nth(1)) else {
                continue;
            };
            let (Ok(user), Ok(inode)) = (user.parse::<u32>(), inode.parse()) else { continue };
            let waits = if kind.starts_with("tcp") { state == LISTEN } else { state == UNCONNECTED };
            if waits {
                self.listening.insert(inode, kind);
                if user == rustix::process::getuid().as_raw() {
                    self.ours.insert(inode);
                }
            } else {
                self.connected.insert(inode);
            }
        }
    }

    /// Columns: number, references, protocol, flags, type, state, inode, perhaps a path.
    fn add_unix(&mut self, table: &str) {
        for line in table.lines().skip(1) {
            let mut columns = line.split_whitespace().skip(3);
            let (Some(flags), Some(inode)) = (columns.next(), columns.nth(2)) else { continue };
            let (Ok(flags), Ok(inode)) = (u64::from_str_radix(flags, 16), inode.parse()) else { continue };
            if flags & ACCEPTS != 0 {
                self.listening.insert(inode, "unix");
            }
        }
    }
}

/// The inodes of the sockets that this process has. Refused where the process forbids others of its user to look, unless
/// root asks.
pub(crate) fn of(pid: u32) -> io::Result<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // One that was closed meanwhile is not there any more.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let inode = target.to_str().and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        inodes.extend::<Option<u64>>(inode);
    }
    Ok(inodes)
}

/// The inodes of the sockets of every process that may be looked at.
pub(crate) fn of_everybody() -> io::Result<BTreeSet<u64>> {
    let pids = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // A process that is gone by now, or not ours to look at.
    Ok(pids.filter_map(|pid| of(pid).ok()).flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;

    fn inode(socket: &impl AsRawFd) -> u64 {
        let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).expect("an open file");
        let name = link.to_str().expect("text");
        name.trim_start_matches("socket:[").trim_end_matches(']').parse().expect("an inode")
    }

    #[test]
    fn whatever_listens_is_found_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let server = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(server.local_addr().expect("an address")).expect("connected");
        let heard = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let sends = UdpSocket::bind("127.0.0.1:0").expect("a port");
        sends.connect(heard.local_addr().expect("an address")).expect("connected");
        let local = UnixListener::bind(folder.path().join("socket")).expect("bound");

        let ourselves = std::process::id();
        let sockets = Sockets::around(ourselves).expect("the kernel's tables");
        let ours = of(ourselves).expect("our own");
        for (socket, kind) in [(inode(&server), "tcp"), (inode(&heard), "udp"), (inode(&local), "unix")] {
            assert_eq!(sockets.listening.get(&socket), Some(&kind));
            assert_eq!(sockets.ours.contains(&socket), kind != "unix");
            assert!(ours.contains(&socket));
        }
        for socket in [inode(&client), inode(&sends)] {
            assert!(!sockets.listening.contains_key(&socket), "a connection was taken for a listener");
            assert!(sockets.connected.contains(&socket) && ours.contains(&socket));
        }
        assert!(of_everybody().expect("everybody's").is_superset(&ours));
    }
}
