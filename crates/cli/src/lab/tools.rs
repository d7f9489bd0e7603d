//! The project's own programs as the lab uses them: found beside this one, run as a person would, and heard when they fail.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use zeroize::Zeroizing;

/// How long one command may take: each is done within a second on an idle machine.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);

/// Why a step of the ceremony was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// This program does not know where it lies itself.
    #[error("cannot find out where holdfast itself lies: {0}")]
    Itself(io::Error),
    /// A program is not there.
    #[error("{} is not there: build every program of the project, with `cargo build --workspace`", .0.display())]
    Missing(PathBuf),
    /// The kernel did not start it.
    #[error("{command} does not run: {error}")]
    NotRun {
        /// What was run.
        command: String,
        /// Why not.
        error: io::Error,
    },
    /// It refused.
    #[error("{command} failed ({how}):{said}")]
    Failed {
        /// What was run.
        command: String,
        /// How it ended.
        how: String,
        /// What it said.
        said: String,
    },
    /// Its report is not one.
    #[error("{command} reported what cannot be read: {error}")]
    Report {
        /// What was run.
        command: &'static str,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// It was not done in time.
    #[error("{0} was not done within {COMMAND_PATIENCE:?}")]
    Late(String),
}

/// Where the programs lie.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    /// `holdfast`: this very program.
    pub(crate) holdfast: PathBuf,
    /// `holdfast-setup`.
    pub(crate) setup: PathBuf,
    /// `holdfast-custodian`.
    pub(crate) custodian: PathBuf,
    /// `holdfast-sentinel`.
    pub(crate) sentinel: PathBuf,
}

impl Tools {
    /// Finds them beside this program.
    pub(crate) fn find() -> Result<Self, CommandError> {
        let holdfast = std::env::current_exe().map_err(CommandError::Itself)?;
        let beside = |name: &str| {
            let path = holdfast.with_file_name(name);
            if path.is_file() { Ok(path) } else { Err(CommandError::Missing(path)) }
        };
        let setup = beside("holdfast-setup")?;
        let custodian = beside("holdfast-custodian")?;
        let sentinel = beside("holdfast-sentinel")?;
        Ok(Self { holdfast, setup, custodian, sentinel })
    }
}

/// A command line being put together.
#[derive(Debug)]
pub(crate) struct Line {
    program: PathBuf,
    arguments: Vec<OsString>,
    input: Option<Zeroizing<Vec<u8>>>,
}

impl Line {
    /// A program and its first words.
    pub(crate) fn new(program: &Path, words: &[&str]) -> Self {
        Self { program: program.to_owned(), arguments: words.iter().map(OsString::from).collect(), input: None }
    }

    /// One more option with its value.
    pub(crate) fn with(mut self, option: &str, value: impl AsRef<OsStr>) -> Self {
        self.arguments.extend([OsString::from(option), value.as_ref().to_owned()]);
        self
    }

    /// More words.
    pub(crate) fn and(mut self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// What it reads on standard input; nothing, where nothing is said.
    pub(crate) fn fed(mut self, input: Zeroizing<Vec<u8>>) -> Self {
        self.input = Some(input);
        self
    }

    /// Runs it in `dir` until it is done. Gives what it reports on stdout; what it says on stderr is told when it fails.
    pub(crate) async fn run(self, dir: &Path) -> Result<Vec<u8>, CommandError> {
        let (command, output) = self.end(dir).await?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().map(|line| format!("\n  | {line}")).collect();
        Err(CommandError::Failed { command, how: output.status.to_string(), said })
    }

    /// Runs it in `dir`, and gives what it reports on stdout, and whether that was success.
    pub(crate) async fn report(self, dir: &Path) -> Result<(bool, Vec<u8>), CommandError> {
        let (_, output) = self.end(dir).await?;
        Ok((output.status.success(), output.stdout))
    }

    async fn end(self, dir: &Path) -> Result<(String, Output), CommandError> {
        let name = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let first = self.arguments.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
        let command = format!("{name} {first}");
        let mut process = tokio::process::Command::new(&self.program);
        let stdin = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        process.args(&self.arguments).current_dir(dir).stdin(stdin).kill_on_drop(true);
        process.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = async {
            let mut child = process.spawn()?;
            if let (Some(mut stdin), Some(input)) = (child.stdin.take(), &self.input) {
                // One that refused before it has read all says so when it ends.
                let _ = stdin.write_all(input).await;
            }
            child.wait_with_output().await
        };
        let output = tokio::time::timeout(COMMAND_PATIENCE, output).await;
        let output = match output {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return Err(CommandError::NotRun { command, error }),
            Err(_) => return Err(CommandError::Late(command)),
        };
        Ok((command, output))
    }
}

/// One value of a command's report.
pub(crate) fn reported<T: serde::de::DeserializeOwned>(
    command: &'static str,
    report: &[u8],
) -> Result<T, CommandError> {
    serde_json::from_slice(report).map_err(|error| CommandError::Report { command, error })
}
