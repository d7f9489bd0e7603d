//! The four causes of an incident (docs/SECURITY.md, "Causes").

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a node is not open, as far as somebody could prove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Another process answers at the node's address than the one that was seen open: two TLS tickets were declined.
    Restart,
    /// The custodian's own host was rebooted since the node was seen open: a power cut.
    Outage,
    /// The process that was seen open is sealed: somebody sealed it.
    InPlace,
    /// None of the others can be shown.
    Unknown,
}

impl Cause {
    /// All causes, for metrics that show each from the start.
    pub const ALL: [Self; 4] = [Self::Restart, Self::Outage, Self::InPlace, Self::Unknown];

    /// The cause's name in messages, metrics and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Outage => "outage",
            Self::InPlace => "in-place",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
