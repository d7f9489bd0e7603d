//! What stands between the parties and a node: a relay of TCP connections that can be cut, hang, and lead elsewhere, and that
//! keeps every byte which clients send. It reads no TLS and has no certificate.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::lab::Lab;
use crate::wait::until;

/// How much is carried at once.
const CHUNK: usize = 16 * 1024;

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// They reach the node.
    Open,
    /// They end, and new ones end at once.
    Cut,
    /// They stay, and nothing passes: whoever waits is in for a time-out.
    Hanging,
}

/// The relay. Ends with the value.
#[derive(Debug)]
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    way: watch::Sender<(Way, u64)>,
    targets: Arc<Mutex<Vec<SocketAddr>>>,
    carried: Arc<Carried>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Carried {
    sent: Mutex<Vec<u8>>,
    connections: AtomicUsize,
}

impl Relay {
    /// Stands at `place`, and leads each new connection to the next of these.
    pub fn start(place: SocketAddr, targets: Vec<SocketAddr>) -> Self {
        let listener = std::net::TcpListener::bind(place).unwrap_or_else(|e| panic!("{place}: {e}"));
        listener.set_nonblocking(true).expect("possible");
        let address = listener.local_addr().expect("an address");
        let (way, ways) = watch::channel((Way::Open, 0));
        let (stop, stopped) = oneshot::channel();
        let (targets, carried) = (Arc::new(Mutex::new(targets)), Arc::new(Carried::default()));
        let (led, kept) = (targets.clone(), carried.clone());
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = accept(listener, ways, led, kept) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, way, targets, carried, stop: Some(stop), thread: Some(thread) }
    }

    /// Moves a node of a lab to another port, and stands where it stood. The node is open again when this returns.
    pub fn in_front_of(lab: &mut Lab, node: &str) -> Self {
        let place: SocketAddr = lab.url(node).trim_start_matches("https://").parse().expect("an address");
        // Free now; nobody else takes it in the moment until the node does, or the node says so.
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("an address");
        lab.kill(node);
        let config = PathBuf::from(node).join("config.hcl");
        lab.edit_file(&config, &format!("  address = \"{place}\""), &format!("  address = \"{free}\""));
        let relay = Self::start(place, vec![free]);
        lab.start(node);
        until(&format!("{node} opens behind the relay"), || lab.is_open(node));
        relay
    }

    /// Where it leads.
    pub fn target(&self) -> SocketAddr {
        lock(&self.targets)[0]
    }

    /// Leads each new connection to the next of these.
    pub fn lead_new_to(&self, targets: Vec<SocketAddr>) {
        *lock(&self.targets) = targets;
    }

    /// The same, and ends those that there are.
    pub fn lead_to(&self, targets: Vec<SocketAddr>) {
        self.lead_new_to(targets);
        self.way.send_modify(|(_, cuts)| *cuts += 1);
    }

    /// Ends every connection, and every new one at once.
    pub fn cut(&self) {
        self.way.send_modify(|(way, cuts)| (*way, *cuts) = (Way::Cut, *cuts + 1));
    }

    /// Lets nothing pass.
    pub fn hang(&self) {
        self.way.send_modify(|(way, _)| *way = Way::Hanging);
    }

    /// Lets everything pass.
    pub fn mend(&self) {
        self.way.send_modify(|(way, _)| *way = Way::Open);
    }

    /// How many connections were begun.
    pub fn connections(&self) -> usize {
        self.carried.connections.load(Ordering::Relaxed)
    }

    /// Every byte that clients sent.
    pub fn sent(&self) -> Vec<u8> {
        lock(&self.carried.sent).clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Nobody to tell if it ended by itself.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        assert!(!matches!(ended, Some(Err(_))) || std::thread::panicking(), "the relay itself failed");
    }
}

fn lock<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    kept.lock().expect("no panic while it is held")
}

async fn accept(
    listener: TcpListener,
    ways: watch::Receiver<(Way, u64)>,
    targets: Arc<Mutex<Vec<SocketAddr>>>,
    carried: Arc<Carried>,
) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let number = carried.connections.fetch_add(1, Ordering::Relaxed);
        let target = {
            let targets = lock(&targets);
            targets[number % targets.len()]
        };
        let (ways, carried) = (ways.clone(), carried.clone());
        connections.spawn(async move {
            // Either side may end it at any point.
            let _ = carry(client, target, ways, &carried).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(
    mut client: TcpStream,
    target: SocketAddr,
    mut ways: watch::Receiver<(Way, u64)>,
    carried: &Carried,
) -> io::Result<()> {
    let mut node = None;
    let cuts = ways.borrow().1;
    let (mut there, mut back) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let (way, now) = *ways.borrow_and_update();
        if way == Way::Cut || now != cuts {
            return Ok(());
        }
        if way == Way::Hanging {
            if ways.changed().await.is_err() {
                return Ok(());
            }
            continue;
        }
        let stream = match &mut node {
            Some(stream) => stream,
            None => node.insert(TcpStream::connect(target).await?),
        };
        tokio::select! {
            changed = ways.changed() => if changed.is_err() { return Ok(()) },
            read = client.read(&mut there) => {
                let read = read?;
                lock(&carried.sent).extend_from_slice(&there[..read]);
                if read == 0 {
                    return Ok(());
                }
                stream.write_all(&there[..read]).await?;
            }
            read = stream.read(&mut back) => {
                let read = read?;
                if read == 0 {
                    return Ok(());
                }
                client.write_all(&back[..read]).await?;
            }
        }
    }
}
