//! What the receiver remembers of what it ordered, on disk before it is ordered: so that no alert that is sent again, and no restart,
//! makes a flood of holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_core::id::MessageId;
use holdfast_core::time::Timestamp;
use holdfast_edge::files::{self, FileError};
use serde::{Deserialize, Serialize};

/// The version of the file.
const VERSION: u32 = 1;

/// The largest file that is read, in bytes: 256 actions with all of what is kept of each are below.
const FILE_MAX: usize = 16 * 1024 * 1024;

/// How long an order counts against `orders_per_hour`.
const HOUR: Duration = Duration::from_secs(3600);

/// How many of an action's latest orders are kept: no fewer than may be given in an hour, and as many as may stand.
const ORDERS_KEPT: usize = 64;

/// How many alerts are known again, of each action: no fewer than one notification may have.
const SETTLED_KEPT: usize = 512;

/// Why there is no memory.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is none of ours.
    #[error(
        "{}: this is not what ids-hook remembers: name another file, or move it away, and alerts of before may be ordered once more",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// What was ordered, of each action.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Memory {
    v: u32,
    actions: BTreeMap<String, Remembered>,
    #[serde(skip)]
    path: PathBuf,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    /// The latest last.
    orders: VecDeque<Ordered>,
    /// The alerts that were dealt with, the latest last.
    settled: VecDeque<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ordered {
    at: Timestamp,
    /// The hold's id; none where nodes were only sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold: Option<MessageId>,
}

impl Memory {
    /// What the file has; nothing, where there is none yet.
    pub(super) fn open(path: &Path) -> Result<Self, MemoryError> {
        let malformed = || MemoryError::Malformed { path: path.to_owned() };
        let read = match files::read_bounded(path, FILE_MAX) {
            Ok(bytes) => serde_json::from_slice::<Self>(&bytes).map_err(|_| malformed())?,
            Err(FileError::Missing { .. }) => Self { v: VERSION, actions: BTreeMap::new(), path: PathBuf::new() },
            Err(error) => return Err(error.into()),
        };
        if read.v == VERSION { Ok(Self { path: path.to_owned(), ..read }) } else { Err(malformed()) }
    }

    /// Whether this alert was dealt with already.
    pub(super) fn is_settled(&self, action: &str, instance: &str) -> bool {
        self.actions.get(action).is_some_and(|known| known.settled.iter().any(|settled| settled == instance))
    }

    /// How often an action was carried out in the hour before. A clock that was set back makes no room.
    pub(super) fn lately(&self, action: &str, now: Timestamp) -> usize {
        let orders = self.actions.get(action).into_iter().flat_map(|known| &known.orders);
        orders.filter(|order| now.since(order.at) < HOUR).count()
    }

    /// The holds of an action that may stand, the latest first.
    pub(super) fn holds(&self, action: &str) -> Vec<MessageId> {
        let orders = self.actions.get(action).into_iter().flat_map(|known| known.orders.iter().rev());
        orders.filter_map(|order| order.hold).collect()
    }

    /// An order is about to be given.
    pub(super) fn note_order(&mut self, action: &str, hold: Option<MessageId>, at: Timestamp) {
        let orders = &mut self.actions.entry(action.to_owned()).or_default().orders;
        orders.push_back(Ordered { at, hold });
        while orders.len() > ORDERS_KEPT {
            orders.pop_front();
        }
        self.save();
    }

    /// All that these alerts ask for is done.
    pub(super) fn note_settled(&mut self, action: &str, instances: &BTreeSet<String>) {
        let settled = &mut self.actions.entry(action.to_owned()).or_default().settled;
        settled.retain(|known| !instances.contains(known));
        settled.extend(instances.iter().cloned());
        while settled.len() > SETTLED_KEPT {
            settled.pop_front();
        }
        self.save();
    }

    /// A disk that is full keeps nothing from being shut: what is remembered is remembered until the end of the process.
    fn save(&self) {
        let saved = serde_json::to_vec(self).map_err(|error| error.to_string());
        let saved =
            saved.and_then(|bytes| files::replace(&self.path, &bytes, 0o600).map_err(|error| error.to_string()));
        if let Err(error) = saved {
            tracing::error!(error, "what was ordered cannot be written down: after a restart it may be ordered again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000).after(Duration::from_secs(60 * minutes))
    }

    fn id(number: u8) -> MessageId {
        MessageId::from_bytes([number; 16])
    }

    fn one(instance: &str) -> BTreeSet<String> {
        BTreeSet::from([instance.to_owned()])
    }

    #[test]
    fn it_is_the_same_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("memory.json");
        let mut memory = Memory::open(&path).expect("empty");
        memory.note_order("a", Some(id(1)), at(0));
        memory.note_order("a", None, at(1));
        memory.note_order("a", Some(id(2)), at(2));
        memory.note_settled("a", &one("x"));
        let again = Memory::open(&path).expect("written");
        assert_eq!(again, memory);
        assert_eq!(again.holds("a"), [id(2), id(1)]);
        assert!(again.is_settled("a", "x") && !again.is_settled("b", "x") && !again.is_settled("a", "y"));
        assert_eq!((again.lately("a", at(30)), again.lately("a", at(61)), again.lately("b", at(30))), (3, 1, 0));
        assert_eq!(again.lately("a", Timestamp::default()), 3, "a clock that was set back makes no room");
    }

    #[test]
    fn it_is_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut memory = Memory::open(&folder.path().join("memory.json")).expect("empty");
        for number in 0..=u8::MAX {
            memory.note_order("a", Some(id(number)), at(u64::from(number)));
            memory.note_settled("a", &one(&number.to_string()));
            memory.note_settled("a", &one(&format!("{number}, once more")));
        }
        memory.note_settled("a", &one("last"));
        assert_eq!(memory.holds("a").len(), ORDERS_KEPT);
        assert_eq!(memory.holds("a")[0], id(u8::MAX));
        assert!(memory.is_settled("a", "last") && !memory.is_settled("a", "0") && memory.is_settled("a", "1"));
        assert_eq!(memory.actions["a"].settled.len(), SETTLED_KEPT);
    }

    #[test]
    fn what_is_no_memory_is_refused_and_a_disk_that_fails_stops_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("memory.json");
        for bad in ["", "{}", "{\"v\":2,\"actions\":{}}", "{\"v\":1,\"actions\":{},\"x\":1}"] {
            std::fs::write(&path, bad).expect("written");
            assert!(matches!(Memory::open(&path), Err(MemoryError::Malformed { .. })), "{bad}");
        }
        let mut nowhere = Memory::open(&folder.path().join("none/memory.json")).expect("empty");
        nowhere.note_order("a", Some(id(1)), at(0));
        assert_eq!(nowhere.holds("a"), [id(1)]);
    }
}
