//! What the sandbox forbids, tried before it is believed: in a process of its own, which ends, because whatever works may have worked for good.
//!
//! What lives here: what is tried, and what counts as refused. What does not: what is done about it, which is that the custodian does not start.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use super::{Enforced, SECRETS_OF_OTHERS, Sandbox, SandboxError};
use crate::kernel::{self, Forbidden};

/// How long a connect may take. One that is refused takes no time, and so does one to this host.
const CONNECT_DEADLINE: Duration = Duration::from_millis(500);

/// What the child answers where its sandbox could not be built.
const NOT_BUILT: u8 = u8::MAX;

/// One thing that is forbidden.
pub(super) struct Trial {
    /// What it is called if it works.
    pub(super) what: &'static str,
    attempt: fn(&BTreeSet<u16>) -> io::Result<()>,
}

const fn trial(what: &'static str, attempt: fn(&BTreeSet<u16>) -> io::Result<()>) -> Trial {
    Trial { what, attempt }
}

/// Everything that is tried.
pub(super) const TRIALS: &[Trial] = &[
    // The first, because a program that took this one's place answers in its stead: with 1, which is "the first still works".
    trial("becoming another program", |_| Err(Command::new("/bin/false").exec())),
    trial("starting another program", |_| Command::new("/bin/true").status().map(drop)),
    trial("a TCP bind", |_| kernel::attempt(Forbidden::Bind)),
    trial("listening without a bind", |_| kernel::attempt(Forbidden::Listen)),
    trial("a UDP bind", |_| UdpSocket::bind(("127.0.0.1", 0)).map(drop)),
    trial("a connection to a port that is not configured", another_port),
    trial("a stream to another daemon of this host", |_| UnixStream::connect("/holdfast-no-such-socket").map(drop)),
    trial("reading /etc/shadow", |_| File::open(SECRETS_OF_OTHERS).map(drop)),
    trial("reading its own memory through /proc", |_| File::open("/proc/self/mem").map(drop)),
    trial("listing /", |_| fs::read_dir("/").map(drop)),
    trial("writing a file that is not its own", |_| OpenOptions::new().write(true).open("/dev/null").map(drop)),
    trial("being traced", |_| kernel::attempt(Forbidden::Trace)),
    trial("reading memory by a process's number", |_| kernel::attempt(Forbidden::ReadMemory)),
    trial("io_uring", |_| kernel::attempt(Forbidden::IoUring)),
    trial("mounting", |_| kernel::attempt(Forbidden::Mount)),
    trial("namespaces of its own", |_| kernel::attempt(Forbidden::Namespaces)),
    trial("signalling a process", |_| kernel::attempt(Forbidden::Signal)),
    trial("becoming dumpable again", |_| kernel::attempt(Forbidden::Dump)),
    trial("room for a core file", |_| kernel::attempt(Forbidden::CoreFile)),
    trial("memory that can be executed", |_| kernel::attempt(Forbidden::ExecutableMemory)),
];

/// Tries everything in a child that is confined first, as this process will be.
pub(super) fn run(
    sandbox: &Sandbox,
    confine: impl FnOnce(&Sandbox) -> Result<Enforced, SandboxError>,
) -> Result<(), SandboxError> {
    let answer = kernel::in_a_child(|| match confine(sandbox) {
        Ok(enforced) => TRIALS.iter().zip(1..).find(|(trial, _)| works(trial, &enforced.ports)).map_or(0, |(_, n)| n),
        Err(_) => NOT_BUILT,
    });
    match answer {
        Ok(Some(0)) => Ok(()),
        Ok(Some(number)) => Err(match TRIALS.get(usize::from(number) - 1) {
            Some(trial) => SandboxError::Leaks(trial.what),
            None => SandboxError::Untried("it could not be put in force in a child of this process".to_owned()),
        }),
        Ok(None) => Err(SandboxError::Untried("the child that tried was killed".to_owned())),
        Err(error) => Err(SandboxError::Untried(error.to_string())),
    }
}

/// Whether it does. Only a refusal counts as one: a port at which nobody listens and a file that is not there were reached for.
pub(super) fn works(trial: &Trial, ports: &BTreeSet<u16>) -> bool {
    match (trial.attempt)(ports) {
        Ok(()) => true,
        Err(error) => {
            let absent = error.kind() == ErrorKind::NotFound && trial.what.contains(SECRETS_OF_OTHERS);
            !(error.kind() == ErrorKind::PermissionDenied || error.raw_os_error() == Some(libc::ENOSYS) || absent)
        }
    }
}

/// To this host, at the first port that is not among those that are let through.
fn another_port(ports: &BTreeSet<u16>) -> io::Result<()> {
    let port = (1..=u16::MAX).find(|port| !ports.contains(port)).unwrap_or(1);
    TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), CONNECT_DEADLINE).map(drop)
}
