//! The memory of a process that runs, as root reads it: every mapping that can be read, from the kernel's `/proc/PID/mem`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use crate::processes::{Signal, signal, stands_still};
use crate::shares::Needles;
use crate::wait::until;

/// A stretch of a process's memory that can be read.
struct Mapping {
    /// The line of `/proc/PID/maps`.
    line: String,
    start: u64,
    end: u64,
    writable: bool,
}

/// What a search found, and how much it looked at.
#[derive(Debug, Default)]
pub struct Searched {
    /// Each mapping in which something was, and where in it.
    pub found: Vec<(String, usize)>,
    /// How many bytes were read.
    pub bytes: u64,
    /// The mappings that are the process's own to write, of which every byte was read.
    pub writable: usize,
}

/// Reads all of a process's memory while it stands still, and searches it. Fails where this user may not: a custodian's is root's
/// alone to read.
pub fn search(pid: u32, needles: &Needles) -> Searched {
    if pid == std::process::id() || stands_still(pid) {
        return look_through(pid, needles);
    }
    signal(pid, Signal::STOP);
    until("the process stands still", || stands_still(pid));
    let searched = look_through(pid, needles);
    signal(pid, Signal::CONT);
    searched
}

fn look_through(pid: u32, needles: &Needles) -> Searched {
    let memory = File::open(format!("/proc/{pid}/mem"));
    let memory = memory.unwrap_or_else(|e| panic!("the memory of process {pid}: {e}; this test reads it as root"));
    let mut searched = Searched::default();
    for mapping in mappings(pid) {
        let mut content = vec![0; usize::try_from(mapping.end - mapping.start).expect("it fits")];
        match memory.read_exact_at(&mut content, mapping.start) {
            Ok(()) => searched.bytes += content.len() as u64,
            // The kernel's own pages, and what of a mapping is behind the end of its file.
            Err(_) if !mapping.writable => continue,
            Err(e) => panic!("{}: {e}", mapping.line),
        }
        searched.writable += usize::from(mapping.writable);
        searched.found.extend(needles.find(&content).map(|at| (mapping.line.clone(), at)));
    }
    searched
}

fn mappings(pid: u32) -> Vec<Mapping> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("its mappings");
    let parse = |line: &str| {
        let mut columns = line.split_whitespace();
        let (start, end) = columns.next()?.split_once('-')?;
        let rights = columns.next()?;
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, end, writable) = (number(start)?, number(end)?, rights.starts_with("rw"));
        rights.starts_with('r').then_some(Mapping { line: line.to_owned(), start, end, writable })
    };
    maps.lines().filter_map(parse).collect()
}
