//! What the demo sees for itself: a node's own seal-status, and the custodians' audit logs. Not what the sentinel says, which is
//! on trial here too.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_core::time::Timestamp;
use holdfast_edge::vault::{Connection, Deadlines, NodeIdentity};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How long a node may take to answer the demo: on loopback, and two seconds while it is being sealed (FACTS).
const DEADLINES: Deadlines =
    Deadlines { connect: Duration::from_secs(2), answer: Duration::from_secs(5), submit: Duration::from_secs(5) };

/// How many eyes a watch has.
const EYES: usize = 3;
/// The time between two looks of one eye.
const GLANCE: Duration = Duration::from_millis(3);
/// The most looks of one eye: minutes of them.
const GLANCES_MAX: usize = 100_000;

/// What a node says of itself, on a connection on which it proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// It does not answer.
    Silent,
    /// It says that it is sealed.
    Sealed,
    /// It says that it is open.
    Open,
}

impl Look {
    /// As a sentence's end.
    pub(crate) const fn in_words(self) -> &'static str {
        match self {
            Self::Silent => "does not answer",
            Self::Sealed => "is sealed",
            Self::Open => "is open",
        }
    }
}

/// An eye on one node.
#[derive(Debug)]
pub(crate) struct Eye {
    identity: NodeIdentity,
    kept: Option<Connection>,
}

impl Eye {
    /// An eye on this node.
    pub(crate) fn new(identity: &NodeIdentity) -> Self {
        Self { identity: identity.clone().with_deadlines(DEADLINES), kept: None }
    }

    /// Asks the node for its seal-status, over TLS, with its certificate and pin checked.
    pub(crate) async fn look(&mut self) -> Look {
        if let Some(mut kept) = self.kept.take()
            && let Some(look) = ask(&mut kept).await
        {
            self.kept = Some(kept);
            return look;
        }
        let Ok(mut connection) = self.identity.connect(None).await else { return Look::Silent };
        let Some(look) = ask(&mut connection).await else { return Look::Silent };
        self.kept = Some(connection);
        look
    }
}

/// Eyes that look at one node until they are asked what they saw.
pub(crate) struct Watch {
    stop: watch::Sender<bool>,
    eyes: JoinSet<Vec<Glance>>,
}

/// One look: when it was asked and answered, and what it said.
struct Glance {
    asked: Instant,
    answered: Instant,
    look: Look,
}

impl Watch {
    /// Begins to look.
    pub(crate) fn begin(identity: &NodeIdentity) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut eyes = JoinSet::new();
        for _ in 0..EYES {
            let (mut eye, stopped) = (Eye::new(identity), stopped.clone());
            eyes.spawn(async move {
                let mut seen = Vec::new();
                while !*stopped.borrow() && seen.len() < GLANCES_MAX {
                    let asked = Instant::now();
                    let look = eye.look().await;
                    seen.push(Glance { asked, answered: Instant::now(), look });
                    sleep(GLANCE).await;
                }
                seen
            });
        }
        Self { stop, eyes }
    }

    /// How long the node was sealed: from the first answer that it is to the first that it is open, to a question asked after that.
    /// None where it was not seen sealed, and open again.
    pub(crate) async fn end(self) -> Option<Duration> {
        self.stop.send_replace(true);
        let seen: Vec<_> = self.eyes.join_all().await.into_iter().flatten().collect();
        let of = |look: Look, since: Instant| {
            seen.iter().filter(move |g| g.look == look && g.asked >= since).map(|g| g.answered).min()
        };
        let first = seen.iter().map(|glance| glance.asked).min()?;
        let sealed = of(Look::Sealed, first)?;
        Some(of(Look::Open, sealed)?.duration_since(sealed))
    }
}

async fn ask(connection: &mut Connection) -> Option<Look> {
    let status = connection.seal_status().await.ok()?;
    Some(if status.is_open() { Look::Open } else { Look::Sealed })
}

#[derive(Deserialize)]
struct Line {
    at: Timestamp,
    entry: Entry,
}

#[derive(Deserialize)]
struct Entry {
    what: Option<String>,
    node: Option<String>,
}

/// Whether this audit log tells that its custodian submitted its share to `node` at or after `since`, and when first.
pub(crate) fn submitted(audit_log: &Path, node: &str, since: Timestamp) -> Option<Timestamp> {
    let text = fs::read_to_string(audit_log).ok()?;
    // The last line may be half written.
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let about = |line: &Line| {
        line.at >= since && line.entry.what.as_deref() == Some("submitted") && line.entry.node.as_deref() == Some(node)
    };
    lines.filter(about).map(|line| line.at).min()
}
