//! The rules of the house, as tests: which way the arrows run, what is absent, and that the pages tell the truth.
//!
//! What lives here: what can be read off the repository itself. What does not: what the programs do. Each rule's reason is
//! in docs/ARCHITECTURE.md, "Invariants".

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

#[path = "house/watched.rs"]
mod watched;

/// The programs. None of them names another, and nothing names them.
const PROGRAMS: [&str; 4] = ["holdfast-custodian", "holdfast-setup", "holdfast-sentinel", "holdfast-cli"];

/// No file is longer: one sitting's reading, with its tests.
const FILE_LINES_MAX: usize = 900;

/// The places outside tests that open a secret, a share or a password, and how often each does.
const EXPOSE: [(&str, usize); 6] = [
    // The broker's password, into the salted hash that RabbitMQ imports.
    ("crates/cli/src/broker.rs", 2),
    // The token of whoever posts alerts, its length and its digest, which is all that is kept of it.
    ("crates/cli/src/ids_hook/config.rs", 2),
    // The salted digest by which a custodian knows its share again.
    ("crates/core/src/share.rs", 1),
    // The body of the request by which a person proves a new share to the server that made it, while a rotation waits for that.
    ("crates/edge/src/admin/rotation.rs", 1),
    // Its text on the way into its age file, once, when it is installed.
    ("crates/edge/src/store.rs", 1),
    // The body of the request that carries it to a node, behind all six locks.
    ("crates/edge/src/vault/release.rs", 1),
];

/// Where `unsafe` may be written: what the kernel has to be asked for in C.
const UNSAFE: &str = "crates/custodian/src/kernel.rs";

#[test]
fn arrows_run_one_way() {
    let ours = own_dependencies();
    let expected = |package: &str| -> BTreeSet<String> {
        let allowed: &[&str] = match package {
            "holdfast-core" => &[],
            "holdfast-edge" => &["holdfast-core"],
            // End to end from the outside: written from the pages, with none of the product's code.
            "holdfast-tests" => &[],
            program if PROGRAMS.contains(&program) => &["holdfast-core", "holdfast-edge"],
            other => panic!("{other} is a new crate: say here what it may name"),
        };
        allowed.iter().map(|name| (*name).to_owned()).collect()
    };
    for (package, names) in &ours {
        let allowed = expected(package);
        let others: Vec<_> =
            names.iter().filter(|name| name.starts_with("holdfast-") && !allowed.contains(*name)).collect();
        assert!(others.is_empty(), "{package} names {others:?}, and may name {allowed:?}");
    }
    assert_eq!(ours.len(), PROGRAMS.len() + 3, "{:?}", ours.keys());
}

#[test]
fn the_core_has_no_way_to_the_world() {
    let direct = &own_dependencies()["holdfast-core"];
    for name in ["tokio", "lapin", "reqwest", "hyper", "rustls", "libc", "getrandom", "rand", "rand_chacha", "tracing"]
    {
        assert!(!direct.contains(name), "holdfast-core names {name}: time, randomness and I/O are arguments there");
    }
    let tree = dependency_tree("holdfast-core");
    for name in ["tokio", "mio", "socket2", "lapin", "reqwest", "hyper", "rustls"] {
        assert!(!tree.contains(name), "holdfast-core pulls {name} in");
    }

    let forbidden = [
        "std::fs",
        "std::net",
        "std::env",
        "std::thread",
        "std::process",
        "std::os",
        "std::io",
        "Instant",
        "SystemTime",
        "Timestamp::now",
        "Zoned::now",
        "println!",
        "eprintln!",
        // Their order is random, and a seed would not replay a run: BTreeMap, BTreeSet.
        "HashMap",
        "HashSet",
    ];
    let mut found = Vec::new();
    for file in rust_files("crates/core/src") {
        for (number, line) in product_code(&file) {
            found.extend(
                forbidden.iter().filter(|name| has_word(&line, name)).map(|name| format!("{file}:{number} {name}")),
            );
        }
    }
    assert!(found.is_empty(), "in the core: {found:#?}");
}

#[test]
fn the_daemons_link_no_more_than_they_need() {
    let custodian = dependency_tree("holdfast-custodian");
    assert!(custodian.contains("landlock"), "the tree was read: {custodian:?}");
    // OpenPGP; what could combine shares; any TLS but rustls with aws-lc-rs, by which one pinned configuration serves all.
    let never = [
        "pgp",
        "sequoia-openpgp",
        "rsa",
        "sharks",
        "blahaj",
        "vsss-rs",
        "ssss",
        "shamirsecretsharing",
        "gf256",
        "openssl",
        "openssl-sys",
        "native-tls",
        "boring",
        "boring-sys",
        "s2n-tls",
        "mbedtls",
        "schannel",
        "ring",
        "rustls-rustcrypto",
        "rustls-openssl",
        "webpki-roots",
    ];
    let not_here = ["axum", "rusqlite", "clap_complete", "indicatif", "rcgen", "tempfile", "proptest", "bcrypt-pbkdf"];
    for name in never.iter().chain(&not_here) {
        assert!(!custodian.contains(*name), "holdfast-custodian links {name}");
    }
    assert!(custodian.contains("rustls") && custodian.contains("aws-lc-rs"), "the one TLS stack: {custodian:?}");
    for name in ["rustls", "tokio-rustls", "aws-lc-rs"] {
        let versions = versions_in_tree("holdfast-custodian", name);
        assert_eq!(versions.len(), 1, "holdfast-custodian links {name} {versions:?}");
    }
    let sentinel = dependency_tree("holdfast-sentinel");
    for name in never {
        assert!(!sentinel.contains(name), "holdfast-sentinel links {name}");
    }
}

#[test]
fn unsafe_is_in_one_file() {
    let mut found = BTreeSet::new();
    for file in rust_files("crates").into_iter().chain(rust_files("tests")) {
        for (_, line) in code(&file) {
            // This file spells them too.
            let spelled =
                ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "allow(unsafe_code", "expect(unsafe_code"];
            if file != "tests/tests/house.rs" && spelled.iter().any(|form| line.contains(form)) {
                found.insert(file.clone());
            }
        }
    }
    assert_eq!(found, BTreeSet::from([UNSAFE.to_owned()]), "`unsafe` belongs into {UNSAFE} alone");
    let workspace = read("Cargo.toml");
    assert!(workspace.contains("unsafe_code = \"deny\""), "the compiler keeps this rule");
    for package in own_dependencies().keys() {
        let folder = if package == "holdfast-tests" { "tests".to_owned() } else { format!("crates/{}", &package[9..]) };
        let manifest = read(&format!("{folder}/Cargo.toml"));
        assert!(manifest.contains("[lints]\nworkspace = true"), "{folder}/Cargo.toml takes the workspace's lints");
    }
}

#[test]
fn the_places_that_open_a_secret_are_counted() {
    let mut found = BTreeMap::new();
    for file in rust_files("crates") {
        let calls: usize = product_code(&file).map(|(_, line)| line.matches(".expose()").count()).sum();
        if calls > 0 {
            found.insert(file, calls);
        }
    }
    let expected: BTreeMap<_, _> = EXPOSE.iter().map(|(file, calls)| ((*file).to_owned(), *calls)).collect();
    assert_eq!(found, expected, "a new place that opens a secret is a decision: say here why it is one");
}

#[test]
fn every_file_says_what_lives_in_it_and_can_be_read_at_one_sitting() {
    let mut found = Vec::new();
    for file in rust_files("crates").into_iter().chain(rust_files("tests")) {
        let text = read(&file);
        let lines = text.lines().count();
        if !text.starts_with("//! ") {
            found.push(format!("{file} does not open with what lives there and what does not (`//!`)"));
        }
        if lines > FILE_LINES_MAX {
            found.push(format!("{file} has {lines} lines, and {FILE_LINES_MAX} is the most"));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_silenced_lint_has_its_reason() {
    let mut found = Vec::new();
    for file in rust_files("crates").into_iter().chain(rust_files("tests")) {
        let text = read(&file);
        for (at, _) in text.match_indices("#[").chain(text.match_indices("#![")) {
            let attribute: String = text[at..].chars().take_while(|c| *c != ']').collect();
            let silences = attribute.contains("allow(") || attribute.contains("expect(");
            if silences && !attribute.contains("reason = ") && file != "tests/tests/house.rs" {
                found.push(format!("{file}: {attribute}]"));
            }
        }
    }
    assert!(found.is_empty(), "lints silenced without `reason = \"…\"`: {found:#?}");
}

#[test]
fn scripts_run_and_stop_at_the_first_error() {
    let mut scripts = Vec::new();
    for file in tracked() {
        let path = root().join(&file);
        let Ok(bytes) = fs::read(&path) else { continue };
        let runs = path.metadata().expect("there").permissions().mode() & 0o111 != 0;
        assert_eq!(runs, bytes.starts_with(b"#!"), "{file}: the run bit and the first line (#!) belong together");
        let shell = runs && bytes.starts_with(b"#!/usr/bin/env bash");
        if shell || file.ends_with(".sh") {
            let checked = Command::new("bash").arg("-n").arg(&path).output().expect("bash");
            assert!(checked.status.success(), "{file}: {}", String::from_utf8_lossy(&checked.stderr));
        }
        if shell {
            let text = String::from_utf8_lossy(&bytes);
            assert!(text.contains("\nset -euo pipefail\n"), "{file} goes on after an error");
            scripts.push(file);
        }
    }
    for needed in [".ci/run", "deploy/packages", "deploy/quickstart", "deploy/reproduce", "tests/run"] {
        assert!(scripts.iter().any(|script| script == needed), "{needed} is there: {scripts:?}");
    }
}

#[test]
fn the_pages_that_every_reader_needs_are_there() {
    for page in ["README.md", "docs/ARCHITECTURE.md", "docs/PROTOCOL.md", "LICENSE-APACHE", "LICENSE-MIT"] {
        assert!(root().join(page).is_file(), "{page} is missing");
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let folder = Path::new(&page).parent().expect("a folder").to_owned();
        for target in links(&read(&page)) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let file = if path.is_empty() { PathBuf::from(&page) } else { folder.join(path) };
            let there = root().join(&file).exists();
            let anchored = anchor.is_empty() || (there && anchors(&read(&file.to_string_lossy())).contains(anchor));
            if !there || !anchored {
                broken.push(format!("{page}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere: {broken:#?}");
}

#[test]
fn the_paths_that_pages_name_are_there() {
    let mut missing = Vec::new();
    for page in pages() {
        for span in code_spans(&read(&page)) {
            let path = span.split(['#', ':', ' ']).next().unwrap_or_default();
            let names_a_file =
                ["crates/", "deploy/", "tests/", "docs/", ".ci/"].iter().any(|top| path.starts_with(top));
            let pattern = path.contains(['*', '<', '{', '…']);
            if names_a_file && !pattern && !root().join(path).exists() {
                missing.push(format!("{page}: `{span}`"));
            }
        }
    }
    assert!(missing.is_empty(), "paths that are not there: {missing:#?}");
}

#[test]
fn the_pages_that_code_names_are_there() {
    let mut missing = Vec::new();
    for file in rust_files("crates").into_iter().chain(rust_files("tests")) {
        for (number, line) in read(&file).lines().enumerate() {
            for (at, _) in line.match_indices(".md") {
                let start =
                    line[..at].rfind(|c: char| !(c.is_ascii_alphanumeric() || "/-_.".contains(c))).map_or(0, |i| i + 1);
                let page = &line[start..at + 3];
                let ours = page.len() > 3 && line.trim_start().starts_with("//");
                if ours && !root().join(page).exists() && !root().join("docs").join(page).exists() {
                    missing.push(format!("{file}:{}: {page}", number + 1));
                }
            }
        }
    }
    assert!(missing.is_empty(), "pages that comments send a reader to, and that are not there: {missing:#?}");
}

#[test]
fn the_finders_above_find() {
    assert_eq!(links("a [b](c.md#d) and ![e](f.png \"g\") `[h](i)`\n```\n[j](k)\n```\n"), ["c.md#d", "f.png"]);
    assert_eq!(code_spans("a `crates/core` and\n```\n`not here`\n```\n`b`"), ["crates/core", "b"]);
    assert!(
        anchors("# The six locks, again!\n## `tests/run`\n")
            .is_superset(&BTreeSet::from(["the-six-locks-again".to_owned(), "testsrun".to_owned(),]))
    );
    assert!(has_word("let a = std::fs::read()", "std::fs") && !has_word("MyInstantaneous", "Instant"));
    let file = rust_files("crates/core/src").into_iter().find(|file| file.ends_with("/share.rs")).expect("there");
    assert!(product_code(&file).all(|(_, line)| !line.contains("a_record_knows_its_share")));
}

/// The repository's folder.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in it")
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Each package of the workspace with what it names, for whatever purpose.
fn own_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = cargo(&["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    let names = |list: &Value| -> Vec<(String, Value)> {
        let list = list.as_array().expect("a list").iter();
        list.map(|item| (item["name"].as_str().expect("a name").to_owned(), item.clone())).collect()
    };
    let packages = names(&metadata["packages"]).into_iter();
    packages
        .map(|(name, package)| (name, names(&package["dependencies"]).into_iter().map(|(n, _)| n).collect()))
        .collect()
}

/// The names of everything that is linked into a package's programs.
fn dependency_tree(package: &str) -> BTreeSet<String> {
    let tree =
        cargo(&["tree", "-p", package, "-e", "normal", "--offline", "--locked", "--prefix", "none", "-f", "{p}"]);
    tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// The versions of a crate that are linked into a package's programs.
fn versions_in_tree(package: &str, name: &str) -> BTreeSet<String> {
    let tree =
        cargo(&["tree", "-p", package, "-e", "normal", "--offline", "--locked", "--prefix", "none", "-f", "{p}"]);
    let named = tree.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(" v"));
    named.filter_map(|rest| rest.split(' ').next()).map(str::to_owned).collect()
}

fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(args).current_dir(root()).output().expect("cargo");
    assert!(output.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The files of the repository: what Git tracks or would, or everything but what is built, where there is no Git.
fn tracked() -> Vec<String> {
    let git = Command::new("git").args(["ls-files", "-co", "--exclude-standard"]).current_dir(root()).output();
    if let Ok(output) = git
        && output.status.success()
    {
        return String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    }
    ["crates", "tests", "deploy", "docs", ".ci"].iter().flat_map(|top| files_below(&root().join(top))).collect()
}

fn files_below(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(root()).expect("below").to_string_lossy().into_owned());
            }
        }
    }
    files.sort();
    files
}

fn rust_files(folder: &str) -> Vec<String> {
    let files: Vec<_> = files_below(&root().join(folder)).into_iter().filter(|file| file.ends_with(".rs")).collect();
    assert!(!files.is_empty(), "{folder} has Rust in it");
    files
}

/// The lines of a file that are not comments, with their numbers.
fn code(file: &str) -> impl Iterator<Item = (usize, String)> {
    let numbered = read(file).lines().enumerate().map(|(i, line)| (i + 1, line.to_owned())).collect::<Vec<_>>();
    numbered.into_iter().filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The same, without tests: nothing of a file that is only compiled for them, and nothing from `mod tests {` on.
fn product_code(file: &str) -> impl Iterator<Item = (usize, String)> {
    let only_tests = file.ends_with("/tests.rs") || file.contains("/tests/");
    code(file).take_while(move |(_, line)| !only_tests && line != "mod tests {")
}

/// Whether `word` is in `line` with neither a letter, a digit nor `_` on either side.
fn has_word(line: &str, word: &str) -> bool {
    let part_of_one = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        !part_of_one(line[..at].chars().next_back()) && !part_of_one(line[at + word.len()..].chars().next())
    })
}

fn pages() -> Vec<String> {
    let docs = root().join("docs");
    let docs = if docs.is_dir() { files_below(&docs) } else { Vec::new() };
    let readme = root().join("README.md").is_file().then(|| "README.md".to_owned());
    docs.into_iter().filter(|file| file.ends_with(".md")).chain(readme).collect()
}

/// A page without its blocks of code.
fn prose(page: &str) -> String {
    let mut inside = false;
    let mut kept = String::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// What is between backticks in a page's prose.
fn code_spans(page: &str) -> Vec<String> {
    prose(page).split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Where the links of a page lead.
fn links(page: &str) -> Vec<String> {
    let prose: String = prose(page).split('`').step_by(2).collect();
    let behind = prose.match_indices("](").map(|(at, _)| &prose[at + 2..]);
    behind.filter_map(|rest| rest.split([')', ' ']).next()).map(str::to_owned).collect()
}

/// The names by which a page's headings can be linked to.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| line.trim_start_matches('#').trim().to_lowercase())
        .map(|line| line.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c)).collect::<String>())
        .map(|line| line.replace(' ', "-"))
        .collect()
}
