//! A node, asked directly: whether it is open, and to seal itself. What the tests believe of a node, they see here.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde::Deserialize;
use tokio::runtime::{Builder, Runtime};

use crate::tls;
use crate::wait::pause;

/// The time between two looks of a night watch.
const ROUND: Duration = Duration::from_millis(20);

/// How long one answer is waited for.
const ANSWER: Duration = Duration::from_secs(2);

/// A node that is being sealed answers only when it is done.
const SEALING: Duration = Duration::from_secs(30);

/// The time between two looks at a node that is timed.
const LOOK: Duration = Duration::from_millis(2);

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SealStatus {
    /// Whether it is sealed.
    pub sealed: bool,
    /// Whether it has ever been initialised.
    pub initialized: bool,
    /// How many shares open it.
    pub t: u8,
    /// How many of them it has already.
    pub progress: u8,
}

/// What an initialised node gives out.
#[derive(Deserialize)]
struct Initialised {
    keys: Vec<String>,
}

/// Eyes for nodes. One for each thread that looks.
#[derive(Debug)]
pub struct Eyes {
    runtime: Runtime,
    client: Client,
}

impl Eyes {
    /// Eyes that know nodes by this CA.
    pub fn new(ca_file: &Path) -> Self {
        let client = Client::builder().no_proxy().tls_backend_preconfigured(tls::client(ca_file));
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { runtime, client: client.build().expect("a client") }
    }

    /// What the node at `url` says, if it answers.
    pub fn look(&self, url: &str) -> Option<SealStatus> {
        let ask = async {
            let answer = self.client.get(format!("{url}/v1/sys/seal-status")).timeout(ANSWER).send().await.ok()?;
            answer.json().await.ok()
        };
        self.runtime.block_on(ask)
    }

    /// Whether the node answers that it is open.
    pub fn is_open(&self, url: &str) -> bool {
        self.look(url).is_some_and(|status| !status.sealed)
    }

    /// Whether the node answers that it is sealed.
    pub fn is_sealed(&self, url: &str) -> bool {
        self.look(url).is_some_and(|status| status.sealed)
    }

    /// Watches a node that is starting: the time from its first answer to the first answer that it is open. An error says
    /// what it answered last.
    pub fn time_opening(&self, url: &str, answer_within: Duration, open_within: Duration) -> Result<Duration, String> {
        let began = Instant::now();
        let mut first = None;
        let mut last = None;
        loop {
            if let Some(status) = self.look(url) {
                let since = *first.get_or_insert_with(Instant::now);
                if !status.sealed {
                    return Ok(since.elapsed());
                }
                last = Some(status);
            }
            match first {
                Some(since) if since.elapsed() > open_within => {
                    return Err(format!("{url} is still sealed {open_within:?} after its first answer: {last:?}"));
                }
                None if began.elapsed() > answer_within => return Err(format!("{url} does not answer")),
                _ => pause(LOOK),
            }
        }
    }

    /// Seals a node by hand, as somebody in an emergency would, and sees it sealed.
    pub fn seal(&self, url: &str, token: &str) {
        let ask = async {
            let request = self.client.request(Method::PUT, format!("{url}/v1/sys/seal"));
            request.header("X-Vault-Token", token).timeout(SEALING).send().await
        };
        let answer = self.runtime.block_on(ask).expect("an answer");
        assert_eq!(answer.status().as_u16(), 204, "{url} does not seal: {:?}", self.runtime.block_on(answer.text()));
        assert!(self.is_sealed(url), "{url} was sealed and is not");
    }

    /// Initialises a node as somebody without custodians would: its shares come back in clear, in hexadecimal.
    pub fn initialise(&self, url: &str, shares: u8, threshold: u8) -> Vec<String> {
        let body = format!(r#"{{"secret_shares":{shares},"secret_threshold":{threshold}}}"#);
        let ask = async {
            let request = self.client.request(Method::PUT, format!("{url}/v1/sys/init")).body(body);
            request.timeout(SEALING).send().await?.error_for_status()?.json::<Initialised>().await
        };
        self.runtime.block_on(ask).unwrap_or_else(|e| panic!("{url} is not initialised: {e}")).keys
    }

    /// Submits a share, in hexadecimal, and gives what the node then says of itself, if it answers.
    pub fn submit(&self, url: &str, share: &str) -> Option<SealStatus> {
        self.unseal(url, format!(r#"{{"key":"{share}"}}"#))
    }

    /// Throws away all shares that a node has, as anybody can who reaches its port.
    pub fn reset(&self, url: &str) -> Option<SealStatus> {
        self.unseal(url, r#"{"reset":true}"#.to_owned())
    }

    fn unseal(&self, url: &str, body: String) -> Option<SealStatus> {
        let ask = async {
            let request = self.client.request(Method::PUT, format!("{url}/v1/sys/unseal")).body(body);
            request.timeout(ANSWER).send().await.ok()?.json().await.ok()
        };
        self.runtime.block_on(ask)
    }

    /// A page of text, such as a sentinel's.
    pub fn read(&self, url: &str) -> Option<String> {
        let ask = || async { self.client.get(url).timeout(ANSWER).send().await.ok()?.text().await.ok() };
        // A kept connection may have been closed while nobody looked.
        self.runtime.block_on(ask()).or_else(|| self.runtime.block_on(ask()))
    }
}

/// What a watch saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// How many times the node said that it is sealed.
    pub sealed: u32,
    /// When, since the watch began, it said that it is open.
    pub open: Vec<Duration>,
}

/// Watches a node from a thread of its own, again and again, until it is asked what it saw.
#[derive(Debug)]
pub struct NightWatch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl NightWatch {
    /// Begins to watch the node at `url`.
    pub fn begin(url: &str, ca_file: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (until, url, eyes) = (stop.clone(), url.to_owned(), Eyes::new(ca_file));
        let thread = std::thread::spawn(move || {
            let (began, mut seen) = (Instant::now(), Seen::default());
            while !until.load(Ordering::Relaxed) {
                match eyes.look(&url) {
                    Some(status) if status.sealed => seen.sealed += 1,
                    Some(_) => seen.open.push(began.elapsed()),
                    None => {}
                }
                pause(ROUND);
            }
            seen
        });
        Self { stop, thread }
    }

    /// Ends the watch.
    pub fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it watched")
    }
}
