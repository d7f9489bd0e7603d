//! deploy/install-tools.sh, where it cannot be tried on every machine: the compiler that it fetches, and which one it takes.
//!
//! What lives here: archives made like Rust's own, from a folder in the place of their server. What does not: the whole road on
//! a bare system, which deploy/try-bare walks.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_tests::programs::{Said, repository, tool};
use tempfile::TempDir;

/// The parts of a compiler, as Rust's archives name them.
const PARTS: [&str; 3] = ["rustc", "cargo", "rust-std"];

/// Says which cargo is taken; none is an error.
const FIND: &str = "find_rust && echo \"found $(dirname \"$(command -v cargo)\"), crates in ${CARGO_HOME-none}\"";

#[test]
fn a_compiler_is_fetched_and_taken_only_if_it_is_the_pinned_one() {
    let clone = Clone::new();
    clone.offer("1.95.0");
    assert_eq!(clone.bash(FIND).code, Some(1), "there is none yet");

    // A byte more in one archive, and the lines of what ought to be there.
    let pinned = clone.pin();
    let archive = clone.archive("rust-std");
    let good = fs::read(&archive).expect("an archive");
    fs::write(&archive, [good.as_slice(), b"\n"].concat()).expect("written");
    let refused = clone.bash("fetch_rust");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("rust-std") && refused.err.contains("not what deploy/rust.txt says"), "{refused:?}");
    assert!(!clone.path(".tools/rust").exists(), "nothing of it is used");

    fs::remove_file(&archive).expect("removed");
    let missing = clone.bash("fetch_rust");
    assert_eq!(missing.code, Some(1), "{missing:?}");
    assert!(missing.err.contains("could not be fetched; is the network up?"), "{missing:?}");

    // What those left behind is no hindrance, and is cleared away.
    fs::write(&archive, good).expect("written");
    let said = clone.bash(&format!("fetch_rust && {FIND}")).well();
    let tools = clone.path(".tools");
    let expected = format!("found {}, crates in {}", tools.join("rust/bin").display(), tools.join("cargo").display());
    assert!(said.out.contains(&expected), "{said:?}\n{pinned}");
    let left: Vec<_> = fs::read_dir(&tools).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 2, "rust and cargo alone: {left:?}");
}

#[test]
fn a_compiler_that_is_too_old_is_passed_over_and_the_users_own_comes_first() {
    let clone = Clone::new();
    clone.compiler("old/bin", "1.63.0");
    let old = format!("export PATH={}:$PATH; {FIND}", quoted(&clone.path("old/bin")));
    assert_eq!(clone.bash(&old).code, Some(1), "1.63 does not build this");

    clone.compiler("home/.cargo/bin", "1.95.0");
    let said = clone.bash(&old).well();
    let users = format!("found {}, crates in none", clone.path("home/.cargo/bin").display());
    assert!(said.out.contains(&users), "rustup's, although PATH does not say so: {said:?}");

    clone.compiler("new/bin", "1.100.0");
    let said = clone.bash(&format!("export PATH={}:$PATH; {FIND}", quoted(&clone.path("new/bin")))).well();
    assert!(said.out.contains(&format!("found {}", clone.path("new/bin").display())), "1.100 is newer: {said:?}");
}

#[test]
fn the_pinned_compiler_is_whole_and_new_enough_to_build_this() {
    let pinned = fs::read_to_string(repository().join("deploy/rust.txt")).expect("the file");
    let lines: Vec<_> = pinned.lines().filter(|line| !line.starts_with('#')).collect();
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).expect("the manifest");
    let needed = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"1.")).expect("a version");
    let needed: u32 = needed.trim_end_matches('"').parse().expect("a number");
    for target in ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"] {
        for part in PARTS {
            let mut of_it = lines.iter().filter_map(|line| {
                let (hash, name) = line.split_once("  ")?;
                let version = name.strip_prefix(part)?.strip_prefix("-1.")?;
                let (version, rest) = version.split_once('.')?;
                rest.ends_with(&format!("-{target}.tar.xz")).then_some((hash, version))
            });
            let (hash, version) = of_it.next().unwrap_or_else(|| panic!("{part} for {target}: {lines:#?}"));
            assert!(hash.len() == 64 && hash.chars().all(|c| c.is_ascii_hexdigit()), "{hash}");
            assert!(
                version.parse::<u32>().expect("a number") >= needed,
                "{part} 1.{version}, and 1.{needed} is needed"
            );
        }
    }
    assert_eq!(lines.len(), 2 * PARTS.len(), "nothing else: {lines:#?}");
}

/// A clone of this repository, as far as the installer looks at it, in a folder with a space in its name.
struct Clone {
    folder: TempDir,
}

impl Clone {
    fn new() -> Self {
        let clone = Self { folder: tempfile::tempdir().expect("a folder") };
        fs::create_dir_all(clone.path("deploy")).expect("made");
        fs::create_dir_all(clone.path(".tools")).expect("made");
        for file in ["deploy/install-tools.sh", "deploy/openbao.txt", "Cargo.toml"] {
            fs::copy(repository().join(file), clone.path(file)).expect("copied");
        }
        // This machine's programs, but for its compilers.
        let bin = clone.folder.path().join("bin");
        fs::create_dir(&bin).expect("made");
        for program in fs::read_dir("/usr/bin").expect("a folder").flatten() {
            let name = program.file_name();
            if !["rustc", "cargo"].iter().any(|tool| name.to_string_lossy().starts_with(tool)) {
                symlink(program.path(), bin.join(name)).expect("linked");
            }
        }
        clone
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("a clone")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.repository().join(name)
    }

    fn archive(&self, part: &str) -> PathBuf {
        self.path(&format!("server/dist/{}.tar.xz", name(part)))
    }

    /// Programs in the place of a compiler's, which say this version.
    fn compiler(&self, folder: &str, version: &str) {
        for program in ["rustc", "cargo"] {
            self.program(&format!("{folder}/{program}"), version);
        }
    }

    fn program(&self, file: &str, version: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, format!("#!/bin/sh\necho \"it {version} (a test's)\"\n")).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("its own file");
    }

    /// A server's folder with the archives of this version.
    fn offer(&self, version: &str) {
        fs::create_dir_all(self.path("server/dist")).expect("made");
        for part in PARTS {
            // Each archive has one folder, named like it, and in it the part's own.
            let inner = if part == "rust-std" { format!("rust-std-{}", target()) } else { part.to_owned() };
            let whole = name(part);
            let content = format!("made/{whole}/{inner}");
            self.program(&format!("{content}/bin/{part}"), version);
            let (made, archive) = (self.path("made"), self.archive(part));
            let line = [Path::new("-cJf"), &archive, Path::new("-C"), &made, Path::new(&whole)];
            tool("tar", &line.map(Path::as_os_str));
        }
    }

    /// Writes down what the archives are now.
    fn pin(&self) -> String {
        let pinned = self.bash("cd \"$repo/server/dist\" && sha256sum *.tar.xz").well().out;
        fs::write(self.path("deploy/rust.txt"), &pinned).expect("written");
        pinned
    }

    /// Runs this after the installer's functions were read, with none of this machine's compilers in reach.
    fn bash(&self, script: &str) -> Said {
        let no_versioned = "newest_versioned_rust() { echo /nowhere; }";
        let script = format!("set -euo pipefail; . \"$repo/deploy/install-tools.sh\"; {no_versioned}; {script}");
        let mut command = Command::new("bash");
        command.args(["-c", &script]).env_clear().env("repo", self.repository()).env("HOME", self.path("home"));
        command.env("PATH", self.folder.path().join("bin")).env("RUSTUP_DIST_SERVER", self.server());
        Said::from(command.output().expect("bash"))
    }

    fn server(&self) -> String {
        format!("file://{}", self.path("server").display().to_string().replace(' ', "%20"))
    }
}

/// An archive's name, without its ending.
fn name(part: &str) -> String {
    format!("{part}-1.95.0-{}", target())
}

fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}
