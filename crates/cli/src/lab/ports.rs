//! Loopback ports for a lab: free now, kept from other labs until the servers have them, and free again after a crash.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;

use tokio::net::TcpSocket;

/// Where to look when the kernel's range of ephemeral ports leaves nothing below it.
const FALLBACK: Range<u16> = 20_000..60_000;
/// Ports below this one belong to services that a machine may want to start later.
const LOWEST: u16 = 20_000;
/// A range narrower than this is not worth searching.
const WIDTH_MIN: u16 = 2_000;

/// Why there are no ports.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortError {
    /// A socket could not be made or bound, and not because its port was taken.
    #[error("no port could be reserved on 127.0.0.1: {0}")]
    Socket(#[from] std::io::Error),
    /// Every port of the range is in use.
    #[error("no free port on 127.0.0.1 between {0} and {1}: end something that listens there")]
    Exhausted(u16, u16),
    /// The kernel has no random bytes to give.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Ports that no other lab takes as long as this value lives, while the lab's own servers can.
///
/// Each port is bound, exclusively, and not listened on; then address reuse is allowed on the socket, so that a server that
/// asks for reuse, as all of the lab's do, can bind and listen beside it, and another `Reservation`, which does not ask,
/// cannot. They lie below the kernel's ephemeral range: no outgoing connection takes a node's port while it is down.
#[derive(Debug)]
pub(crate) struct Reservation {
    range: Range<u16>,
    next: u16,
    held: Vec<TcpSocket>,
}

impl Reservation {
    /// An empty reservation that starts looking at a random place.
    pub(crate) fn new() -> Result<Self, PortError> {
        let range = candidates(std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok().as_deref());
        let random = getrandom::u32().map_err(PortError::Random)?;
        let offset = random % u32::from(range.end - range.start);
        let next = range.start + u16::try_from(offset).unwrap_or(0);
        Ok(Self { range, next, held: Vec::new() })
    }

    /// One more port.
    pub(crate) fn take(&mut self) -> Result<u16, PortError> {
        for _ in self.range.clone() {
            let port = self.next;
            self.next = if port + 1 < self.range.end { port + 1 } else { self.range.start };
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(false)?;
            match socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) {
                Ok(()) => {
                    socket.set_reuseaddr(true)?;
                    self.held.push(socket);
                    return Ok(port);
                }
                Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(PortError::Exhausted(self.range.start, self.range.end))
    }
}

/// The ports to choose from, given the text of `ip_local_port_range`.
fn candidates(ephemeral: Option<&str>) -> Range<u16> {
    let low = ephemeral.and_then(|text| text.split_whitespace().next()).and_then(|low| low.parse::<u16>().ok());
    match low {
        Some(low) if low >= LOWEST + WIDTH_MIN => LOWEST..low,
        _ => FALLBACK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_lie_below_the_ephemeral_range_where_there_is_room() {
        assert_eq!(candidates(Some("32768\t60999\n")), 20_000..32_768);
        assert_eq!(candidates(Some("1024 65535")), FALLBACK);
        assert_eq!(candidates(Some("nonsense")), FALLBACK);
        assert_eq!(candidates(None), FALLBACK);
    }

    #[tokio::test]
    async fn a_held_port_is_refused_to_another_lab_and_open_to_a_server() {
        let mut ours = Reservation::new().expect("a reservation");
        let port = ours.take().expect("a port");
        let mut theirs = Reservation::new().expect("a second reservation");
        theirs.range = port..port + 1;
        theirs.next = port;
        assert!(matches!(theirs.take(), Err(PortError::Exhausted(..))), "two labs got the port {port}");
        // std asks for reuse, as Go, Erlang and tokio do.
        let server = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the server gets the port");
        std::net::TcpStream::connect(server.local_addr().expect("an address")).expect("and is reached there");
    }
}
