//! The built programs, found beside the test, and what they say when they are run.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The folder of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in it")
}

/// A program of the project, built by cargo beside the tests.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test knows where it is");
    let profile = test.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
    let program = profile.join(name);
    assert!(program.is_file(), "{} is not built: cargo build --workspace", program.display());
    program
}

/// OpenBao: named, installed by the tests, or in PATH.
pub fn bao() -> PathBuf {
    if let Some(named) = std::env::var_os("HOLDFAST_BAO") {
        return named.into();
    }
    let here = std::env::current_dir().expect("a folder");
    let installed = here.ancestors().map(|folder| folder.join(".tools/bao/bin/bao")).find(|path| path.is_file());
    installed.unwrap_or_else(|| "bao".into())
}

/// What a program said.
#[derive(Debug)]
pub struct Said {
    /// Its exit status; none if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub out: String,
    /// What it wrote to stderr.
    pub err: String,
}

impl Said {
    /// The same, of a program that must have succeeded.
    #[track_caller]
    pub fn well(self) -> Self {
        assert_eq!(self.code, Some(0), "it failed: {}{}", self.out, self.err);
        self
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// Runs a program of the project to its end.
pub fn run<S: AsRef<OsStr>>(name: &str, args: &[S]) -> Said {
    let output = Command::new(program(name)).args(args).stdin(Stdio::null()).output();
    output.expect("it can be started").into()
}

/// Runs a program of the system to its end, and expects success.
#[track_caller]
pub fn tool<S: AsRef<OsStr>>(name: &str, args: &[S]) -> Said {
    let output = Command::new(name).args(args).stdin(Stdio::null()).output();
    Said::from(output.unwrap_or_else(|e| panic!("{name}: {e}"))).well()
}
