//! Processes of the lab: started so that they outlive `lab up`, known by pid and moment of birth, ended by that alone.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use super::file::Process;

/// Variables of the caller's that would reach into a server: its own settings are all in its configuration.
const NOT_INHERITED: [&str; 4] = ["BAO_", "VAULT_", "RABBITMQ_", "ERL_"];
/// How many lines of a log a failure shows.
const LAST_LINES: usize = 15;
/// How much of a log's end is read to find them.
const TAIL_BYTES: usize = 16 * 1024;

/// How a process of the lab is started, now and again later.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    /// Its name in the lab: `vault-1`, `broker`, `custodian-3`.
    pub(crate) name: String,
    /// The program and its arguments.
    pub(crate) start: Vec<String>,
    /// What it needs in its environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Where its stdout and stderr go.
    pub(crate) log: PathBuf,
}

/// A process that could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The log could not be opened.
    #[error("cannot start {0}: its log {path} does not open: {2}", path = .1.display())]
    Log(String, PathBuf, io::Error),
    /// The kernel did not start the program.
    #[error("cannot start {0}: {1} does not run: {2}")]
    Program(String, String, io::Error),
    /// The system does not show it.
    #[error("{0} was started and is not in /proc: is /proc mounted?")]
    Unseen(String),
}

/// A process that was started by this very command.
#[derive(Debug)]
pub(crate) struct Started {
    /// How it was started.
    pub(crate) recipe: Recipe,
    /// Which process it is.
    pub(crate) identity: Identity,
    child: Child,
}

impl Recipe {
    /// Starts the process in `dir`, in a process group of its own, away from the terminal.
    pub(crate) fn start(self, dir: &Path) -> Result<Started, StartError> {
        let log_refused = |e| StartError::Log(self.name.clone(), self.log.clone(), e);
        if let Some(folder) = self.log.parent() {
            fs::create_dir_all(folder).map_err(log_refused)?;
        }
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.log).map_err(log_refused)?;
        let errors = log.try_clone().map_err(log_refused)?;
        let program = self.start.first().cloned().unwrap_or_default();
        let mut command = std::process::Command::new(&program);
        for (key, _) in std::env::vars_os() {
            if NOT_INHERITED.iter().any(|prefix| key.to_string_lossy().starts_with(prefix)) {
                command.env_remove(&key);
            }
        }
        let child = command
            .args(self.start.iter().skip(1))
            .envs(&self.env)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Ctrl-C in the terminal is for `lab up`, which then ends them in good order.
            .process_group(0)
            .spawn()
            .map_err(|e| StartError::Program(self.name.clone(), program, e))?;
        // Our own child: even if it has ended already, its exit status waits for us under this pid.
        let (identity, _) = Identity::read(child.id()).ok_or_else(|| StartError::Unseen(self.name.clone()))?;
        Ok(Started { recipe: self, identity, child })
    }
}

impl Started {
    /// As lab.json tells it.
    pub(crate) fn process(&self) -> Process {
        let Recipe { start, env, log, .. } = self.recipe.clone();
        Process { pid: self.identity.pid, start, env, log }
    }

    /// How it ended, if it has, in words.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Freezes it, as if its host hung.
    pub(crate) fn freeze(&self) -> io::Result<()> {
        self.identity.send(Signal::STOP)
    }

    /// Lets it go on where it was.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        self.identity.send(Signal::CONT)
    }

    /// The end of its log, for a failure's message.
    pub(crate) fn last_lines(&self) -> String {
        let bytes = fs::read(&self.recipe.log).unwrap_or_default();
        let tail = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]).into_owned();
        let lines: Vec<&str> = tail.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|line| format!("\n  | {line}")).collect()
    }
}

/// Which process: a pid alone is a number that the kernel gives to somebody else one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// The process id.
    pub(crate) pid: u32,
    /// When it was born, in the kernel's ticks since the boot.
    pub(crate) born: u64,
    /// The boot that those ticks count from.
    pub(crate) boot_id: String,
}

/// How a process ended that was told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It was not there any more.
    Gone,
    /// It ended when asked to.
    Terminated,
    /// It did not, and was killed.
    Killed,
}

impl Identity {
    /// The identity of the process that has this pid now, unless there is none, or only its exit status is left.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let (identity, state) = Self::read(pid)?;
        (!matches!(state, 'Z' | 'X')).then_some(identity)
    }

    fn read(pid: u32) -> Option<(Self, char)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        // The second field is the program's name in brackets, and may itself hold brackets and spaces.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        // proc(5): field 22; two went with the name, one was the state.
        let born = fields.nth(18)?.parse().ok()?;
        Some((Self { pid, born, boot_id }, state))
    }

    /// Whether this very process still runs.
    pub(crate) fn runs(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    fn send(&self, what: Signal) -> io::Result<()> {
        self.open()?.map_or(Ok(()), |handle| signal(&handle, what))
    }

    /// A handle on this very process, or `None` when it is gone.
    fn open(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            // Whoever the handle means, it means for good: looked at after opening, the answer stays true.
            Ok(handle) => Ok(self.runs().then_some(handle)),
            Err(Errno::SRCH) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

/// Ends these processes together: asks each, waits until the deadline, kills those that are left.
pub(crate) fn end(processes: &[Identity], patience: Duration) -> io::Result<Vec<End>> {
    let handles = processes.iter().map(Identity::open).collect::<io::Result<Vec<_>>>()?;
    for handle in handles.iter().flatten() {
        signal(handle, Signal::TERM)?;
    }
    let deadline = Instant::now() + patience;
    let mut ends = Vec::with_capacity(handles.len());
    for handle in &handles {
        let Some(handle) = handle else {
            ends.push(End::Gone);
            continue;
        };
        if wait(handle, deadline)? {
            ends.push(End::Terminated);
            continue;
        }
        signal(handle, Signal::KILL)?;
        // A killed process goes as soon as the kernel gets to it; the limit is for one stuck in a disk's driver.
        wait(handle, Instant::now() + KILL_PATIENCE)?;
        ends.push(End::Killed);
    }
    Ok(ends)
}

/// How long a killed process may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

fn signal(handle: &OwnedFd, signal: Signal) -> io::Result<()> {
    match rustix::process::pidfd_send_signal(handle, signal) {
        // It went by itself in between.
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Waits until the process is gone; `false` when the deadline came first.
fn wait(handle: &OwnedFd, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)], Some(&timeout)) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(dir: &Path, start: &[&str]) -> Recipe {
        Recipe {
            name: "sleeper".to_owned(),
            start: start.iter().map(|&s| s.to_owned()).collect(),
            env: BTreeMap::new(),
            log: dir.join("log/sleeper.log"),
        }
    }

    #[test]
    fn a_process_is_ended_once_and_then_gone() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut sleeper = recipe(dir.path(), &["sleep", "600"]).start(dir.path()).expect("sleep starts");
        assert!(sleeper.identity.runs());
        let which = [sleeper.identity.clone()];
        assert_eq!(end(&which, Duration::from_secs(10)).expect("ended"), [End::Terminated]);
        assert!(sleeper.ended().is_some());
        assert_eq!(end(&which, Duration::from_secs(10)).expect("nothing to end"), [End::Gone]);
    }

    #[test]
    fn one_that_will_not_go_is_killed() {
        let dir = tempfile::tempdir().expect("a folder");
        let stubborn = "trap '' TERM; echo deaf; while :; do sleep 600 & wait; done";
        let mut started = recipe(dir.path(), &["sh", "-c", stubborn]).start(dir.path()).expect("sh starts");
        let deadline = Instant::now() + Duration::from_secs(10);
        while !started.last_lines().contains("deaf") {
            assert!(Instant::now() < deadline, "the shell never said that it is deaf");
            std::thread::yield_now();
        }
        assert_eq!(end(std::slice::from_ref(&started.identity), Duration::ZERO).expect("ended"), [End::Killed]);
        assert!(started.ended().expect("it is over").contains("signal: 9"));
    }

    #[test]
    fn a_pid_that_was_given_to_somebody_else_is_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut bystander = recipe(dir.path(), &["sleep", "600"]).start(dir.path()).expect("sleep starts");
        let mut former = bystander.identity.clone();
        former.born -= 1;
        assert!(!former.runs());
        assert_eq!(end(&[former], Duration::ZERO).expect("nothing to end"), [End::Gone]);
        let mut rebooted = bystander.identity.clone();
        rebooted.boot_id = "another boot".to_owned();
        assert_eq!(end(&[rebooted], Duration::ZERO).expect("nothing to end"), [End::Gone]);
        assert!(bystander.ended().is_none(), "a bystander was ended");
        end(std::slice::from_ref(&bystander.identity), Duration::from_secs(10)).expect("ended");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let error = recipe(dir.path(), &["no-such-program"]).start(dir.path()).expect_err("there is none");
        assert!(error.to_string().contains("no-such-program"), "{error}");
    }
}
