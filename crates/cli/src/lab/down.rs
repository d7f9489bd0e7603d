//! `holdfast lab down`: ends what `up` started, in good order, by pid, and nothing else.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::json;

use super::DownArgs;
use super::again;
use super::file::WriteError;
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
    let mut ended = end_all(&mut journal)?;
    let mut others = again::find(&journal.layout);
    if args.restarted {
        ended.extend(end_together(std::mem::take(&mut others))?);
    }
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
    for Entry { name, process } in &others {
        let _ = writeln!(
            stderr,
            "{name} (pid {}) was started again by somebody else and still runs: `lab down --restarted` ends it too",
            process.pid
        );
    }
    if args.json {
        let list = |end| ended.iter().filter(|e| e.end == end).map(|e| e.name.as_str()).collect::<Vec<_>>();
        let others = others.iter().map(|other| json!({ "name": other.name, "pid": other.process.pid }));
        let report = json!({
            "ended": list(End::Terminated), "killed": list(End::Killed), "gone": list(End::Gone),
            "others": others.collect::<Vec<_>>(),
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
        ended.extend(end_together(journal.entries().iter().filter(|entry| rank(entry) == turn).cloned().collect())?);
    }
    journal.forget_ended()?;
    Ok(ended)
}

fn end_together(entries: Vec<Entry>) -> io::Result<Vec<Ended>> {
    let identities: Vec<Identity> = entries.iter().map(|entry| entry.process.clone()).collect();
    let ends = process::end(&identities, PATIENCE)?;
    let ended = |(entry, end): (Entry, End)| Ended { name: entry.name, pid: entry.process.pid, end };
    Ok(entries.into_iter().zip(ends).map(ended).collect())
}
