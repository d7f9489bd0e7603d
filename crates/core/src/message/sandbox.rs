//! What of a custodian's sandbox is in force, as its heartbeat says it.

use serde::{Deserialize, Serialize};

/// A part of the sandbox. All but the last two are there wherever a sandbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SandboxPart {
    /// No new privileges, no dumping, no core files.
    Process,
    /// Landlock: its own files.
    Files,
    /// Landlock: TCP to the configured ports.
    Ports,
    /// seccomp: the system calls that it needs.
    Calls,
    /// Landlock: no signal to a process and no connection to an abstract Unix socket outside, no ioctl on a device.
    Scope,
    /// Nothing of its memory can reach a swap partition: it is locked, or there was none at its start.
    Memory,
}

impl SandboxPart {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Process, Self::Files, Self::Ports, Self::Calls, Self::Scope, Self::Memory];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Files => "files",
            Self::Ports => "ports",
            Self::Calls => "calls",
            Self::Scope => "scope",
            Self::Memory => "memory",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_written_as_it_is_called() {
        for part in SandboxPart::ALL {
            assert_eq!(serde_json::to_value(part).expect("a word"), part.as_str());
        }
    }
}
