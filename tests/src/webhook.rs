//! Who is told: a receiver of Alertmanager's webhooks, which remembers all that it was told, and by whom.
//!
//! What lives here: as much of HTTP as one POST takes. What does not: what any alert means.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Deserialize;

/// How long somebody may take to say what they have to say.
const SAYING: Duration = Duration::from_secs(5);

/// One message of Alertmanager's: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config.
#[derive(Debug, Clone, Deserialize)]
struct Message {
    alerts: Vec<Alert>,
}

/// One alert in it.
#[derive(Debug, Clone, Deserialize)]
pub struct Alert {
    /// `firing` or `resolved`.
    pub status: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it says to people.
    pub annotations: BTreeMap<String, String>,
}

/// An alert, when it came, where, and with which authorisation.
#[derive(Debug, Clone)]
pub struct Told {
    /// When.
    pub at: Instant,
    /// The path that was asked for.
    pub path: String,
    /// The header.
    pub authorization: String,
    /// The alert.
    pub alert: Alert,
}

/// The receiver. Ends with the value.
#[derive(Debug)]
pub struct Webhook {
    address: SocketAddr,
    told: Arc<Mutex<Vec<Told>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Webhook {
    /// Listens on a port of its own.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (told, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (hears, ends) = (Arc::clone(&told), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                // Whoever goes away in the middle has told nothing.
                let heard = stream.ok().and_then(hear).unwrap_or_default();
                hears.lock().expect("nobody panics with it").extend(heard);
            }
        });
        Self { address, told, over, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that it was told, the oldest first.
    pub fn told(&self) -> Vec<Told> {
        self.told.lock().expect("nobody panics with it").clone()
    }

    /// What it was last told at this path of an alert with these labels, among others.
    pub fn last(&self, path: &str, labels: &[(&str, &str)]) -> Option<Told> {
        let is = |alert: &Alert| labels.iter().all(|(key, value)| alert.labels.get(*key).is_some_and(|v| v == value));
        self.told().into_iter().rev().find(|told| told.path == path && is(&told.alert))
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes it.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Hears one request to its end and answers it. None where it is not one.
fn hear(stream: TcpStream) -> Option<Vec<Told>> {
    stream.set_read_timeout(Some(SAYING)).ok()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut length, mut authorization) = (0, String::new());
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => value.clone_into(&mut authorization),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    reader.into_inner().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok()?;
    let message: Message = serde_json::from_slice(&body).ok()?;
    let told = |alert| Told { at: Instant::now(), path: path.clone(), authorization: authorization.clone(), alert };
    Some(message.alerts.into_iter().map(told).collect())
}
