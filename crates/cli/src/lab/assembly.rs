//! The lab while it is put together: what was started, what is waited for, and how all of it is taken apart again.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio::net::TcpStream;

use super::down::{self, DownError};
use super::file::WriteError;
use super::journal::Journal;
use super::process::{Recipe, StartError, Started};
use super::progress::Progress;
use super::tools::{CommandError, Line};

/// How long anything may take from its start until it is seen to be there: RabbitMQ takes 9 s on two idle cores.
const PATIENCE: Duration = Duration::from_secs(45);
/// How often something awaited is looked at: often enough not to be noticed among the milliseconds reported.
const LOOK: Duration = Duration::from_millis(50);
/// How long one look may take, on loopback.
pub(crate) const LOOK_PATIENCE: Duration = Duration::from_secs(2);

/// Why a step came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    /// A process could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It could not be noted.
    #[error(transparent)]
    Written(#[from] WriteError),
    /// A command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A process of the lab ended meanwhile.
    #[error("{name} ended ({status}) while {awaited} was waited for; the end of its log:{log}")]
    Ended {
        /// Which one.
        name: String,
        /// How.
        status: String,
        /// What was waited for.
        awaited: String,
        /// The end of its log.
        log: String,
    },
    /// What was waited for did not come.
    #[error("{awaited} was waited for in vain for {PATIENCE:?} ({last}); the end of {name}'s log:{log}")]
    Late {
        /// What was waited for.
        awaited: String,
        /// What was there instead.
        last: String,
        /// Whose log may say why.
        name: String,
        /// The end of its log.
        log: String,
    },
    /// There is no such process, or the kernel refused to signal it.
    #[error("{name} cannot be reached with a signal: {error}")]
    Signal {
        /// Which one.
        name: String,
        /// Why not.
        error: io::Error,
    },
    /// A step failed, and so did taking the lab apart.
    #[error("and then the lab could not be taken apart: {0}")]
    NotTakenApart(#[from] DownError),
}

/// The lab while it is put together.
pub(crate) struct Assembly {
    /// The lab's folder, with nobody else at work in it.
    pub(crate) journal: Journal,
    /// What a person is told.
    pub(crate) progress: Progress,
    started: Vec<Started>,
}

impl Assembly {
    /// Nothing yet, in this folder.
    pub(crate) fn new(journal: Journal) -> Self {
        Self { journal, progress: Progress::start(), started: Vec::new() }
    }

    /// Starts a process and notes it on disk before anything else is done.
    pub(crate) fn start(&mut self, recipe: Recipe) -> Result<(), StepError> {
        let started = recipe.start(self.journal.layout.dir())?;
        self.journal.add(&started.recipe.name, started.identity.clone())?;
        self.started.push(started);
        Ok(())
    }

    /// A process that was started.
    pub(crate) fn find(&self, name: &str) -> Option<&Started> {
        self.started.iter().find(|started| started.recipe.name == name)
    }

    /// Kills a process as a crash would, and gives what it takes to start it again.
    pub(crate) fn crash(&mut self, name: &str) -> Result<Recipe, StepError> {
        let refused = |error| StepError::Signal { name: name.to_owned(), error };
        let at = self.started.iter().position(|started| started.recipe.name == name);
        let at = at.ok_or_else(|| refused(io::ErrorKind::NotFound.into()))?;
        self.started[at].kill().map_err(refused)?;
        let crashed = self.started.remove(at);
        self.journal.forget_ended()?;
        Ok(crashed.recipe)
    }

    /// Sends a signal to a process that goes on to be part of the lab.
    pub(crate) fn signal(&self, name: &str, send: impl FnOnce(&Started) -> io::Result<()>) -> Result<(), StepError> {
        let started = self.find(name).ok_or_else(|| io::ErrorKind::NotFound.into());
        started.and_then(send).map_err(|error| StepError::Signal { name: name.to_owned(), error })
    }

    /// Runs these commands side by side until all are done, and gives their reports in the same order.
    pub(crate) async fn run(
        &self,
        what: &str,
        lines: impl IntoIterator<Item = Line>,
    ) -> Result<Vec<Vec<u8>>, StepError> {
        let since = Instant::now();
        let dir = self.journal.layout.dir();
        let reports = try_join_all(lines.into_iter().map(|line| line.run(dir))).await?;
        self.progress.done(what, since);
        Ok(reports)
    }

    /// Waits until this process listens on its port.
    pub(crate) async fn listening(&mut self, name: &str, port: u16) -> Result<(), StepError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        self.until(&format!("{name} listening"), name, async || {
            match tokio::time::timeout(LOOK_PATIENCE, TcpStream::connect(address)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(e)) => Err(e.to_string()),
                Err(_) => Err("no answer".to_owned()),
            }
        })
        .await
    }

    /// Waits until `seen` says so; until then it says what is there instead. Gives up when the time is over, or as soon as
    /// any process of the lab has ended. `name` is the process whose log may say why.
    pub(crate) async fn until(
        &mut self,
        awaited: &str,
        name: &str,
        mut seen: impl AsyncFnMut() -> Result<(), String>,
    ) -> Result<(), StepError> {
        let since = Instant::now();
        while let Err(last) = seen().await {
            let awaited = awaited.to_owned();
            for process in &mut self.started {
                if let Some(status) = process.ended() {
                    let (name, log) = (process.recipe.name.clone(), process.last_lines());
                    return Err(StepError::Ended { name, status, awaited, log });
                }
            }
            if since.elapsed() > PATIENCE {
                let log = self.find(name).map(Started::last_lines).unwrap_or_default();
                return Err(StepError::Late { awaited, last, name: name.to_owned(), log });
            }
            // Between two looks at the condition; the deadline is above.
            tokio::time::sleep(LOOK).await;
        }
        self.progress.done(awaited, since);
        Ok(())
    }

    /// Ends what was started; the folder stays, for its logs.
    pub(crate) fn take_apart(&mut self) -> Result<(), StepError> {
        self.progress.say("taking the lab apart again");
        down::end_all(&mut self.journal)?;
        Ok(())
    }
}
