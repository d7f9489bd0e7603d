//! `holdfast lab down`: ends what `up` started, in good order, by pid, and nothing else.

use std::fs;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::json;

use super::DownArgs;
use super::file::{LabFile, Process, WriteError};
use super::journal::{Entry, FolderError, Journal};
use super::process::{self, End, Identity};
use super::rabbitmq;

/// How long a process may take to end when asked to; RabbitMQ is the slowest, with about 3 s.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why the lab could not be ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownError {
    /// The folder is no lab's, or cannot be worked in.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The kernel refused to signal a process, or to wait for it.
    #[error("cannot end the lab's processes: {0}")]
    Signal(#[from] io::Error),
    /// The journal could not be brought up to date.
    #[error(transparent)]
    Written(#[from] WriteError),
}

/// One process and how it ended.
pub(crate) struct Ended {
    name: String,
    pid: u32,
    end: End,
}

/// Carries `lab down` out.
pub(crate) fn run(args: &DownArgs) -> Result<(), DownError> {
    let mut journal = Journal::open(&args.dir)?;
    let ended = end_all(&mut journal)?;
    let strays = strays(&journal);
    let mut stderr = io::stderr().lock();
    for Ended { name, pid, end } in &ended {
        // Told in full or not at all; the processes are ended either way.
        let _ = match end {
            End::Gone => writeln!(stderr, "{name} (pid {pid}) was gone already"),
            End::Terminated => writeln!(stderr, "{name} (pid {pid}) ended"),
            End::Killed => writeln!(stderr, "{name} (pid {pid}) did not end within {PATIENCE:?} and was killed"),
        };
    }
    if ended.is_empty() {
        let _ = writeln!(stderr, "nothing of the lab was running");
    }
    for (name, pid) in &strays {
        let _ = writeln!(stderr, "{name} was started again by somebody else, and still runs: end it with `kill {pid}`");
    }
    if args.json {
        let list = |end| ended.iter().filter(|e| e.end == end).map(|e| e.name.as_str()).collect::<Vec<_>>();
        let strays = strays.iter().map(|(name, pid)| json!({ "name": name, "pid": pid })).collect::<Vec<_>>();
        let report = json!({
            "ended": list(End::Terminated), "killed": list(End::Killed), "gone": list(End::Gone), "others": strays,
        });
        let _ = writeln!(io::stdout(), "{report:#}");
    }
    Ok(())
}

/// Ends every process in the journal: first those that watch and open nodes, then the servers, then Erlang's name server.
pub(crate) fn end_all(journal: &mut Journal) -> Result<Vec<Ended>, DownError> {
    let rank = |entry: &Entry| match entry.name.as_str() {
        rabbitmq::EPMD => 2,
        name if name == rabbitmq::NAME || name.starts_with("vault-") => 1,
        _ => 0,
    };
    let mut ended = Vec::new();
    for turn in 0..=2 {
        let now: Vec<&Entry> = journal.entries().iter().filter(|entry| rank(entry) == turn).collect();
        let identities: Vec<Identity> = now.iter().map(|entry| entry.process.clone()).collect();
        let ends = process::end(&identities, PATIENCE)?;
        ended.extend(now.iter().zip(ends).map(|(entry, end)| Ended {
            name: entry.name.clone(),
            pid: entry.process.pid,
            end,
        }));
    }
    journal.forget_ended()?;
    Ok(ended)
}

/// Processes that somebody else started the way lab.json says: not `up`'s, so not `down`'s to end, but worth a word.
fn strays(journal: &Journal) -> Vec<(String, u32)> {
    let Ok(bytes) = fs::read(journal.layout.lab_json()) else { return Vec::new() };
    let Ok(lab) = serde_json::from_slice::<LabFile>(&bytes) else { return Vec::new() };
    let known: Vec<(&str, &Process)> = lab
        .vault
        .iter()
        .map(|node| (node.name.as_str(), &node.process))
        .chain(lab.custodians.iter().map(|custodian| (custodian.id.as_str(), &custodian.process)))
        .chain(lab.sentinel.iter().map(|sentinel| ("the sentinel", &sentinel.process)))
        .chain(lab.broker.iter().flat_map(|broker| [("the broker", &broker.process), ("epmd", &broker.epmd)]))
        .collect();
    let running = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = running.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let found = pids.filter_map(|pid| {
        let (name, _) = known.iter().find(|(_, process)| is_started_from(pid, process))?;
        Some(((*name).to_owned(), pid))
    });
    found.collect()
}

/// Whether this pid has a process of the lab's argv or, where that has replaced itself by Erlang, of its environment.
fn is_started_from(pid: u32, process: &Process) -> bool {
    let words = |file: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        bytes.split(|&byte| byte == 0).map(<[u8]>::to_vec).filter(|word| !word.is_empty()).collect::<Vec<_>>()
    };
    if words("cmdline").iter().eq(process.start.iter().map(String::as_bytes)) {
        return true;
    }
    // Erlang's own helpers inherit the environment, and end with it.
    let erlang = fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("beam.smp"));
    erlang && !process.env.is_empty() && {
        let there = words("environ");
        process.env.iter().all(|(key, value)| there.contains(&format!("{key}={value}").into_bytes()))
    }
}
