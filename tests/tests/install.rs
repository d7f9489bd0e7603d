//! docs/INSTALL.md, held against the programs: its configurations are accepted as they stand, and leave no key out.
//!
//! What lives here: what is written there between ```toml and its end. What does not: the walk along it, which takes hosts.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use holdfast_tests::home::Ceremony;
use holdfast_tests::programs::{Said, repository, run, tool};
use tempfile::TempDir;

/// The exit statuses of a configuration that is accepted: all is well, or something that it names is not.
const ACCEPTED: [i32; 2] = [0, 1];

/// The configurations, by the first key of each; the program that reads it, and how it is asked.
const CONFIGURATIONS: [(&str, &str, &[&str]); 4] = [
    // The page's hosts are nobody's.
    ("custodian.toml", "holdfast-custodian", &["check", "--offline"]),
    ("sentinel.toml", "holdfast-sentinel", &["check"]),
    // There is no sentinel where it looks, and it says so: behind everything that could be wrong with the configuration.
    ("operator.toml", "holdfast", &["status"]),
    ("ids-hook.toml", "holdfast", &["ids-hook", "--check"]),
];

#[test]
fn its_configurations_are_accepted_with_and_without_the_defaults_written_out() {
    let ceremony = Ceremony::hold();
    for (name, program, words) in CONFIGURATIONS {
        let text = configuration(name);
        let conducting = (name == "custodian.toml").then(|| as_conductor(&text));
        let all =
            [Some(text.clone()), Some(with_defaults(&text)), conducting.as_deref().map(with_defaults), conducting];
        for text in all.into_iter().flatten() {
            let host = host(&ceremony, name);
            fs::write(host.path().join(name), &text).expect("written");
            let said = ask(program, words, &host.path().join(name));
            assert!(said.code.is_some_and(|code| ACCEPTED.contains(&code)), "{name}: {}{}\n{text}", said.out, said.err);
        }
        // The same with something wrong in it, so that the above says something.
        let host = host(&ceremony, name);
        fs::write(host.path().join(name), format!("{text}colour = \"red\"\n")).expect("written");
        let said = ask(program, words, &host.path().join(name));
        assert_eq!(said.code, Some(78), "{name}: {}{}", said.out, said.err);
    }
}

#[test]
fn every_key_of_every_configuration_is_explained() {
    let shared = "crates/edge/src/config.rs";
    let structs = [
        ("custodian.toml", "crates/custodian/src/config.rs", "File"),
        ("custodian.toml", "crates/custodian/src/config.rs", "ClusterSection"),
        ("custodian.toml", "crates/custodian/src/config.rs", "PolicySection"),
        ("custodian.toml", "crates/custodian/src/config.rs", "ConductorSection"),
        ("sentinel.toml", "crates/sentinel/src/config.rs", "File"),
        ("sentinel.toml", "crates/sentinel/src/config.rs", "ClusterSection"),
        ("operator.toml", "crates/cli/src/operator.rs", "File"),
        ("operator.toml", "crates/cli/src/operator.rs", "ClusterSection"),
        ("custodian.toml", "crates/custodian/src/metrics/section.rs", "MetricsSection"),
        ("ids-hook.toml", "crates/cli/src/ids_hook/config.rs", "File"),
        ("ids-hook.toml", "crates/cli/src/ids_hook/config.rs", "ActionSection"),
        ("custodian.toml", shared, "BrokerSection"),
        ("custodian.toml", shared, "NodeSection"),
    ];
    for (name, source, section) in structs {
        let known = fields(source, section);
        assert!(!known.is_empty(), "{source}: struct {section} was read");
        let text = configuration(name);
        let text = if name == "custodian.toml" { as_conductor(&text) } else { text };
        let explained = keys(&with_defaults(&text));
        let missing: Vec<_> = known.difference(&explained).collect();
        assert!(missing.is_empty(), "docs/INSTALL.md, {name}: nothing about {missing:?} of {source}");
    }
}

/// A folder with every file that a configuration names, by the names that docs/INSTALL.md gives them.
fn host(ceremony: &Ceremony, name: &str) -> TempDir {
    let home = ceremony.home("custodian-1");
    let folder = tempfile::tempdir().expect("a folder");
    let put = |from: &Path, to: &str| {
        fs::copy(from, folder.path().join(to)).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    };
    for name in ["allowed_signers", "vault-ca.pem"] {
        put(&home.path(name), name);
    }
    put(&home.path("vault-ca.pem"), "broker-ca.pem");
    put(&home.path("lab.manifest.json"), "prod.manifest.json");
    for name in ["broker.password", "pushgateway.password", "webhook.token", "seal.token"] {
        let secret = folder.path().join(name);
        fs::write(&secret, "a-password-that-nobody-ever-uses\n").expect("written");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("its own file");
    }
    match name {
        "custodian.toml" => {
            for file in ["identity.txt", "signing.key"] {
                put(&home.path(file), file);
            }
            put(&home.path("vault-ca.pem"), "pushgateway-ca.pem");
            put(&home.path("lab.share.age"), "prod.share.age");
            put(&home.path("lab.share.age.record"), "prod.share.age.record");
        }
        "sentinel.toml" => {
            put(&ceremony.file("sentinel-1/signing.key"), "signing.key");
            // Any certificate and key that belong together.
            put(&ceremony.file("vault-1/tls.pem"), "sentinel.pem");
            put(&ceremony.file("vault-1/tls.key"), "sentinel.key");
        }
        "ids-hook.toml" => {
            put(&ceremony.file("vault-1/tls.pem"), "ids-hook.pem");
            put(&ceremony.file("vault-1/tls.key"), "ids-hook.key");
            restrictor(folder.path());
        }
        _ => put(&ceremony.file("operators/alice.key"), "alice.key"),
    }
    folder
}

/// A restrictor with a key of its own, configured as the page has an operator.
fn restrictor(folder: &Path) {
    let key = folder.join("ids-1.key");
    tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "ids-1", "-f", &key.to_string_lossy()]);
    let public = fs::read_to_string(key.with_extension("key.pub")).expect("its public half");
    let trust = folder.join("allowed_signers");
    let listed = fs::read_to_string(&trust).expect("copied") + "ids-1 namespaces=\"holdfast.order\" ";
    let public = public.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    fs::write(&trust, format!("{listed}{public}\n")).expect("written");
    let operator = configuration("operator.toml").replace("\"alice", "\"ids-1");
    fs::write(folder.join("restrictor.toml"), operator).expect("written");
}

fn ask(program: &str, words: &[&str], config: &Path) -> Said {
    let config = config.to_string_lossy();
    let line: Vec<&str> = words.iter().copied().chain(["--config", &config]).collect();
    run(program, &line)
}

/// The page's example of this file: the block after the heading that names it.
fn configuration(name: &str) -> String {
    let first = match name {
        "custodian.toml" => "id = \"custodian-1\"",
        "sentinel.toml" => "id = \"sentinel-1\"",
        "ids-hook.toml" => "restrictor = ",
        _ => "principal = ",
    };
    // The section that not everybody wants stands by itself.
    let more = if name == "custodian.toml" { block("toml", "[metrics]") } else { String::new() };
    block("toml", first) + &more
}

/// The custodian's example with the conductor's beside it, whose drills it then believes.
fn as_conductor(custodian: &str) -> String {
    let nobody = custodian.lines().find(|line| line.starts_with("# conductors = [")).expect("the page shows it");
    let believed = custodian.replace(nobody, "conductors = [\"custodian-1\"]");
    format!("{believed}\n{}", block("toml", "[conductor.prod]"))
}

/// The page's block of this language that begins so.
fn block(language: &str, first: &str) -> String {
    let page = fs::read_to_string(repository().join("docs/INSTALL.md")).expect("the page");
    let fence = format!("```{language}\n");
    let blocks = page.split(&fence).skip(1).filter_map(|rest| rest.split_once("```"));
    let mut fitting = blocks.map(|(block, _)| block).filter(|block| block.starts_with(first));
    fitting.next().unwrap_or_else(|| panic!("docs/INSTALL.md has a block {fence} that begins with {first}")).to_owned()
}

/// A configuration in which every line that shows a default is one that sets it.
fn with_defaults(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix("# ") {
        Some(default) if key(default).is_some() => format!("{default}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// The key that a line sets.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.split_once(" = ")?;
    key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c)).then_some(key)
}

/// Every key that a configuration sets, tables in one line and the names of tables among them.
fn keys(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let set = text.match_indices(" = ").map(|(at, _)| {
        let start = text[..at].rfind(|c| !word(c)).map_or(0, |before| before + 1);
        &text[start..at]
    });
    let tables = text.lines().filter_map(|line| line.strip_prefix('[')).flat_map(|line| line.split(|c| !word(c)));
    set.chain(tables).map(str::to_owned).collect()
}

/// The fields of a struct, read off its source.
fn fields(source: &str, section: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(repository().join(source)).expect("the source");
    let (_, body) = text.split_once(&format!("struct {section} {{\n")).unwrap_or_else(|| panic!("{source}: {section}"));
    let (body, _) = body.split_once("\n}").expect("it ends");
    let lines = body.lines().map(|line| line.trim().trim_start_matches("pub(crate) ").trim_start_matches("pub "));
    let named = lines.filter(|line| !line.starts_with(['/', '#'])).filter_map(|line| line.split_once(": "));
    named.map(|(name, _)| name.to_owned()).collect()
}
