//! A server in a node's or the broker's place that does what a test tells it to, and keeps every byte that it receives: as
//! it came, and decrypted. Written from the servers' API descriptions.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::ServerConfig;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// The pause between two bytes of a server that answers one at a time.
const DRIP: Duration = Duration::from_millis(100);

/// What answers a connection.
#[derive(Clone)]
pub enum Front {
    /// A server that speaks TLS.
    Tls(Arc<ServerConfig>),
    /// One that speaks HTTP without TLS, and answers everything with an open door.
    PlainHttp,
    /// One that speaks AMQP without TLS, and asks for the password.
    PlainAmqp,
    /// One that speaks AMQP over TLS, and asks for the password.
    TlsAmqp(Arc<ServerConfig>),
    /// One that takes the connection and says nothing.
    Silent,
}

/// What answers a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// These bytes, and on with the next request.
    Bytes(Vec<u8>),
    /// These bytes, and then nothing more.
    Stall(Vec<u8>),
    /// These bytes, and then one more again and again, for ever.
    Drip(Vec<u8>),
    /// These bytes, and the end of the connection.
    Close(Vec<u8>),
}

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The connection's number, from 0: the first one that was made, and so the one that is kept.
    pub connection: usize,
    /// How many requests came before it on this connection.
    pub number: usize,
    /// Such as `GET /v1/sys/seal-status HTTP/1.1`.
    pub line: String,
    /// Its body.
    pub body: Vec<u8>,
}

impl Asked {
    /// Whether it brings a share.
    pub fn is_unseal(&self) -> bool {
        self.line.starts_with("PUT /v1/sys/unseal ") || self.line.starts_with("POST /v1/sys/unseal ")
    }

    /// Whether it asks for the seal's status.
    pub fn is_status(&self) -> bool {
        self.line.starts_with("GET /v1/sys/seal-status ")
    }
}

/// What a node says of itself, as a sealed one would.
pub fn sealed(t: u8, n: u8) -> serde_json::Value {
    json!({
        "type": "shamir", "initialized": true, "sealed": true, "t": t, "n": n, "progress": 0, "nonce": "",
        "version": "2.7.2", "build_date": "2026-01-01T00:00:00Z", "migration": false, "recovery_seal": false,
        "storage_type": "raft",
    })
}

/// A whole answer in JSON.
pub fn answer(body: &serde_json::Value) -> Reply {
    http(200, "Content-Type: application/json\r\n", &body.to_string())
}

/// A whole answer.
pub fn http(code: u16, headers: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::Bytes(format!("HTTP/1.1 {code} Whatever\r\nContent-Length: {length}\r\n{headers}\r\n{body}").into_bytes())
}

type Script = dyn Fn(&Asked) -> Reply + Send + Sync;

/// Everything that came.
#[derive(Debug, Default)]
pub struct Record {
    /// As it came from the network.
    pub raw: Vec<u8>,
    /// As it was after TLS.
    pub decrypted: Vec<u8>,
    /// As requests.
    pub requests: Vec<Asked>,
    /// How many connections were made.
    pub connections: usize,
    /// How many requests came on each of them.
    on: BTreeMap<usize, usize>,
}

/// The server. Ends with the value.
#[derive(Debug)]
pub struct Impostor {
    /// Where it listens.
    pub address: SocketAddr,
    record: Arc<Mutex<Record>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Impostor {
    /// Starts it on a port of its own.
    pub fn start(front: Front, script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), front, script)
    }

    /// Starts it in somebody's place, who does not listen there any more.
    pub fn start_at(place: SocketAddr, front: Front, script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = std::net::TcpListener::bind(place).expect("a port");
        listener.set_nonblocking(true).expect("possible");
        let address = listener.local_addr().expect("an address");
        let record = Arc::new(Mutex::new(Record::default()));
        let (stop, stopped) = oneshot::channel();
        let (kept, script): (_, Arc<Script>) = (record.clone(), Arc::new(script));
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = accept(listener, front, kept, script) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, record, stop: Some(stop), thread: Some(thread) }
    }

    /// What it has received.
    pub fn record(&self) -> MutexGuard<'_, Record> {
        lock(&self.record)
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        // Nobody to tell if it ended by itself.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        assert!(!matches!(ended, Some(Err(_))) || std::thread::panicking(), "the impostor itself failed");
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().expect("no panic while it is held")
}

async fn accept(listener: TcpListener, front: Front, record: Arc<Mutex<Record>>, script: Arc<Script>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let number = {
            let mut record = lock(&record);
            record.connections += 1;
            record.connections - 1
        };
        connections.spawn(serve(stream, number, front.clone(), record.clone(), script.clone()));
    }
}

async fn serve(stream: TcpStream, number: usize, front: Front, record: Arc<Mutex<Record>>, script: Arc<Script>) {
    let mut stream = Recorder { stream, record: record.clone(), decrypted: false };
    // Whoever is spoken to may end the conversation at any point: that is what is tried.
    let _ = match front {
        Front::Tls(config) => match TlsAcceptor::from(config).accept(stream).await {
            Ok(stream) => converse(stream, number, record, script).await,
            Err(error) => Err(error),
        },
        Front::TlsAmqp(config) => match TlsAcceptor::from(config).accept(stream).await {
            Ok(stream) => ask_for_password(Recorder { stream, record, decrypted: true }).await,
            Err(error) => Err(error),
        },
        Front::PlainHttp => converse(stream, number, record, script).await,
        Front::PlainAmqp => ask_for_password(stream).await,
        Front::Silent => stream.read_to_end(&mut Vec::new()).await.map(drop),
    };
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    connection: usize,
    record: Arc<Mutex<Record>>,
    script: Arc<Script>,
) -> io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = stream.read_u8().await?;
            head.push(byte);
            lock(&record).decrypted.push(byte);
        }
        let head = String::from_utf8(head).map_err(io::Error::other)?;
        let length = head.lines().find_map(|line| {
            let line = line.to_ascii_lowercase();
            line.strip_prefix("content-length:").and_then(|length| length.trim().parse().ok())
        });
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).await?;
        let asked = {
            let mut record = lock(&record);
            record.decrypted.extend_from_slice(&body);
            let number = record.on.entry(connection).or_default();
            let line = head.lines().next().unwrap_or_default().to_owned();
            let asked = Asked { connection, number: *number, line, body };
            *number += 1;
            record.requests.push(asked.clone());
            asked
        };
        match script(&asked) {
            Reply::Bytes(bytes) => stream.write_all(&bytes).await?,
            Reply::Close(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Reply::Stall(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                return stream.read_to_end(&mut Vec::new()).await.map(drop);
            }
            Reply::Drip(bytes) => {
                stream.write_all(&bytes).await?;
                let mut drip = tokio::time::interval(DRIP);
                loop {
                    drip.tick().await;
                    stream.write_all(b" ").await?;
                    stream.flush().await?;
                }
            }
        }
        stream.flush().await?;
    }
}

/// AMQP 0-9-1 as far as the client's password: the protocol's header comes, `connection.start` goes out, and a trusting client
/// answers with `start-ok` and user and password in it.
async fn ask_for_password<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).await?;
    // Class 10, method 10, version 0-9, no properties; then "PLAIN" and "en_US" as long strings.
    let mut method = vec![0, 10, 0, 10, 0, 9, 0, 0, 0, 0];
    for text in ["PLAIN", "en_US"] {
        method.extend([0, 0, 0, 5]);
        method.extend(text.as_bytes());
    }
    let mut frame = vec![1, 0, 0, 0, 0, 0, u8::try_from(method.len()).expect("short")];
    frame.extend(method);
    frame.push(0xCE);
    stream.write_all(&frame).await?;
    stream.flush().await?;
    stream.read_to_end(&mut Vec::new()).await.map(drop)
}

/// Keeps what is read.
struct Recorder<S> {
    stream: S,
    record: Arc<Mutex<Record>>,
    decrypted: bool,
}

impl<S: AsyncRead + Unpin> AsyncRead for Recorder<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let mut record = lock(&self.record);
        let kept = if self.decrypted { &mut record.decrypted } else { &mut record.raw };
        kept.extend_from_slice(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Recorder<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
