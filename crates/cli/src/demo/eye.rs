//! What the demo sees for itself: a node's own seal-status, and the custodians' audit logs. Not what the sentinel says, which is
//! on trial here too.

use std::fs;
use std::path::Path;
use std::time::Duration;

use holdfast_core::time::Timestamp;
use holdfast_edge::vault::{Connection, Deadlines, NodeIdentity};
use serde::Deserialize;

/// How long a node may take to answer the demo: on loopback, and two seconds while it is being sealed (FACTS).
const DEADLINES: Deadlines =
    Deadlines { connect: Duration::from_secs(2), answer: Duration::from_secs(5), submit: Duration::from_secs(5) };

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
