//! A fake Vault node that unseals as the real one does (FACTS.md, "seal-status, health, unseal").

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_core::seal_status::{SealKind, SealStatus};

/// The identity of one server process: what a TLS ticket is bound to.
pub(crate) type ProcessId = u64;

/// A share, as the fake server judges it: those of the right generation fit together, a wrong one fits none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) x: u8,
    pub(crate) fits: bool,
}

/// What the server answers to a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unsealed {
    Taken(SealStatus),
    /// 400: the set did not fit, all dropped.
    CombineFailed,
}

/// One node's host, and the process on it.
#[derive(Debug)]
pub(crate) struct Vault {
    pub(crate) name: String,
    pub(crate) threshold: u8,
    pub(crate) shares: u8,
    /// A raft follower that joins late: it opens about a second after its last share.
    pub(crate) joins_late: bool,
    /// Without power nothing answers, not even with a reset.
    pub(crate) powered: bool,
    pub(crate) process: Option<Process>,
    /// How often a node of this name was opened. The number of the incident that runs, so to speak.
    pub(crate) openings: u64,
    pub(crate) opened_at: Option<Duration>,
    /// How many questions reached it.
    pub(crate) asked: u64,
    nonces: u64,
}

/// One server process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) id: ProcessId,
    pub(crate) frozen: bool,
    pub(crate) sealed: bool,
    /// Whether it was open at some time of its life.
    pub(crate) was_open: bool,
    /// A status that comes before this time waits until then: the node is busy sealing itself.
    pub(crate) busy_until: Duration,
    pub(crate) joining: bool,
    nonce: String,
    pieces: BTreeMap<u8, bool>,
}

impl Vault {
    pub(crate) fn new(name: String, threshold: u8, shares: u8) -> Self {
        Self {
            name,
            threshold,
            shares,
            joins_late: false,
            powered: true,
            process: None,
            openings: 0,
            opened_at: None,
            asked: 0,
            nonces: 0,
        }
    }

    pub(crate) fn start(&mut self, id: ProcessId) {
        self.powered = true;
        self.process = Some(Process {
            id,
            frozen: false,
            sealed: true,
            was_open: false,
            busy_until: Duration::ZERO,
            joining: false,
            nonce: String::new(),
            pieces: BTreeMap::new(),
        });
    }

    pub(crate) fn is(&self, process: ProcessId) -> bool {
        self.process.as_ref().is_some_and(|p| p.id == process)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.process.as_ref().is_some_and(|p| !p.sealed)
    }

    /// A deliberate seal. Gives whether the node was open.
    pub(crate) fn seal_in_place(&mut self) -> bool {
        let Some(process) = &mut self.process else { return false };
        let was_open = !process.sealed;
        process.sealed = true;
        process.joining = false;
        process.clear();
        was_open
    }

    pub(crate) fn status(&self) -> Option<SealStatus> {
        let process = self.process.as_ref()?;
        Some(SealStatus {
            initialized: true,
            sealed: process.sealed,
            kind: SealKind::Shamir,
            threshold: self.threshold,
            shares: self.shares,
            progress: if process.sealed { process.pieces.len() as u8 } else { 0 },
            nonce: if process.sealed { process.nonce.clone() } else { String::new() },
        })
    }

    pub(crate) fn unseal(&mut self, piece: Piece, now: Duration) -> Option<Unsealed> {
        let nonce = self.nonces;
        let threshold = usize::from(self.threshold);
        let process = self.process.as_mut()?;
        if !process.sealed {
            return self.status().map(Unsealed::Taken);
        }
        if process.pieces.is_empty() {
            self.nonces += 1;
            process.nonce = format!("{nonce:08x}-{:04x}", process.id);
        }
        process.pieces.insert(piece.x, piece.fits);
        if process.pieces.len() >= threshold {
            let fits = process.pieces.values().all(|fits| *fits);
            process.clear();
            if !fits {
                return Some(Unsealed::CombineFailed);
            }
            if self.joins_late {
                process.joining = true;
            } else {
                self.open(now);
            }
        }
        self.status().map(Unsealed::Taken)
    }

    pub(crate) fn open(&mut self, now: Duration) {
        if let Some(process) = &mut self.process
            && process.sealed
        {
            (process.sealed, process.was_open, process.joining) = (false, true, false);
            process.clear();
            self.openings += 1;
            self.opened_at = Some(now);
        }
    }

    pub(crate) fn reset(&mut self) {
        if let Some(process) = &mut self.process {
            process.clear();
        }
    }
}

impl Process {
    fn clear(&mut self) {
        self.pieces.clear();
        self.nonce.clear();
    }
}
