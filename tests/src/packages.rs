//! The Debian packages: built from the programs beside the tests, and installed on a machine.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::machine::Machine;
use crate::programs::{Said, program, repository};

/// A property of the custodian's unit.
pub fn property(machine: &Machine, name: &str) -> String {
    let said = machine.run(&["systemctl", "show", "--property", name, "--value", "holdfast-custodian"]).well();
    said.out.trim().to_owned()
}

/// Builds them, in a folder.
pub fn build(version: &str, more: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let programs = program("holdfast-custodian");
    let built = Command::new(repository().join("deploy/packages"))
        .args(["--fast", "--version", version, "--programs"])
        .arg(programs.parent().expect("a folder"))
        .arg("--output")
        .arg(folder.path())
        .args(more)
        .output();
    Said::from(built.expect("deploy/packages runs")).well();
    folder
}

/// Installs one on a machine, and says what dpkg said.
pub fn install(machine: &Machine, packages: &TempDir, name: &str) -> String {
    put(machine, packages, name).well().out
}

/// The same, of one that may be refused.
pub fn put(machine: &Machine, packages: &TempDir, name: &str) -> Said {
    let files = fs::read_dir(packages.path()).expect("a folder").flatten().map(|entry| entry.path());
    let prefix = format!("{name}_");
    let is_it = |path: &Path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&prefix));
    let file = files.into_iter().find(|path| is_it(path)).expect("the package was built");
    let copied = machine.path("/root/package.deb");
    fs::copy(file, &copied).expect("copied");
    let said = machine.run(&["dpkg", "--force-unsafe-io", "--install", "/root/package.deb"]);
    fs::remove_file(copied).expect("removed");
    said
}
