//! The inbox: envelopes that a person put into a folder by hand, for a custodian without a broker (`holdfast-setup deliver`).
//!
//! The same bytes as from a queue, through the same door. A file is removed once it was dealt with, whatever came of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use holdfast_core::envelope::ENVELOPE_MAX;
use holdfast_edge::files;

/// The folder's name in the state folder.
pub(crate) const FOLDER: &str = "inbox";

/// How many files are dealt with at one look: a full folder must not keep the custodian from its nodes.
const LOOK_MAX: usize = 64;

/// A delivered file.
pub(crate) struct Delivered {
    path: PathBuf,
    /// Its bytes, or why it cannot be read.
    pub(crate) bytes: Result<Vec<u8>, String>,
}

impl Delivered {
    /// Removes it: it was dealt with, and what it changed is on disk.
    pub(crate) fn remove(self) -> io::Result<()> {
        fs::remove_file(self.path)
    }
}

/// Makes the folder, if it is not there.
pub(crate) fn prepare(state_dir: &Path) -> io::Result<()> {
    fs::create_dir_all(state_dir.join(FOLDER))
}

/// What was delivered since the last look: files whose name ends in `.json`. One that is still being written has another.
pub(crate) fn look(state_dir: &Path) -> io::Result<Vec<Delivered>> {
    let mut delivered = Vec::new();
    for entry in fs::read_dir(state_dir.join(FOLDER))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let bytes = files::read_bounded(&path, ENVELOPE_MAX).map_err(|error| error.to_string());
        delivered.push(Delivered { path, bytes });
        if delivered.len() >= LOOK_MAX {
            break;
        }
    }
    Ok(delivered)
}
