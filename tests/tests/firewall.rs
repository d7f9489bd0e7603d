//! The units and the rules that close a custodian's host, held against the tools that will read them: nft, systemd-analyze.
//!
//! What lives here: what can be known without starting them. What does not: whether the rules hold when somebody attacks
//! (namespaces.rs), and whether the packages bring the units to their places (packages.rs).

use std::fs;
use std::path::Path;
use std::process::Command;

use holdfast_tests::programs::{Said, repository, run, tool};
use tempfile::TempDir;

/// The most that `systemd-analyze security` may find exposed of a daemon's unit with the addresses of its configuration.
const EXPOSURE_MAX: f64 = 1.0;

/// A configuration in which everybody is there; the addresses are nobody's (RFC 5737, 3849).
const CONFIGURATION: &str = r#"
id = "custodian-1"
[broker]
url = "amqps://192.0.2.5:5671/holdfast"
[metrics]
pushgateway = "https://[2001:db8::7]:9091"
[clusters.prod.nodes]
vault-1 = { url = "https://192.0.2.11:8200", tls = "direct" }
vault-2 = { url = "https://[2001:db8::12]:8200", tls = "direct" }
vault-3 = { url = "https://localhost:8200", tls = "direct" }
"#;

#[test]
fn nft_takes_the_rules() {
    let folder = configured(CONFIGURATION);
    let rules = folder.path().join("rules.nft");
    for more in [
        &["--no-ntp", "--no-dns"][..],
        &["--ntp", "192.0.2.20", "--dns", "2001:db8::53", "--dhcp", "--also", "[2001:db8::8]:443"],
    ] {
        firewall(&folder, &[more, &["--output", &rules.to_string_lossy()]].concat()).well();
        // In a network of its own, twice: the second time takes the place of the first.
        let script = format!("nft -c -f {0} && nft -f {0} && nft -f {0} && nft list ruleset", rules.display());
        let listed = tool("unshare", &["--net", "sh", "-c", &script]).out;
        assert_eq!(listed.matches("hook input").count(), 1, "{listed}");
        assert_eq!(listed.matches("policy drop").count(), 3, "{listed}");
        assert!(listed.contains("192.0.2.11 tcp dport 8200 accept"), "{listed}");
    }
    let printed = firewall(&folder, &["--no-ntp"]).well().out;
    assert!(printed.contains("#   localhost  127.0.0.1"), "names are listed with their addresses: {printed}");
}

#[test]
fn what_it_cannot_know_it_asks_for() {
    let folder = configured(CONFIGURATION);
    let said = firewall(&folder, &[]);
    assert_eq!((said.code, said.err.contains("--no-ntp")), (Some(2), true), "{said:?}");
    let unknown = configured(&CONFIGURATION.replace("localhost", "vault-3.invalid"));
    let said = firewall(&unknown, &["--systemd"]);
    assert_eq!((said.code, said.err.contains("vault-3.invalid (vault-3 of prod)")), (Some(1), true), "{said:?}");
    let refused = configured(&CONFIGURATION.replace("amqps", "amqp"));
    let said = firewall(&refused, &["--systemd"]);
    assert_eq!((said.code, said.err.contains("custodian.toml:4:")), (Some(78), true), "{said:?}");
}

#[test]
fn systemd_takes_the_units_and_finds_little_exposed() {
    let folder = configured(CONFIGURATION);
    for daemon in ["custodian", "sentinel"] {
        let unit = with_addresses(&folder, daemon);
        let said = analyze(&["verify", "--man=no"], &unit);
        // The program need not be installed here, nor its user be there.
        let about =
            |line: &&str| line.contains("holdfast-") && !line.contains("not executable") && !line.contains("User=");
        let faults: Vec<_> = said.err.lines().filter(about).collect();
        assert!(faults.is_empty(), "{faults:#?}");

        let said = analyze(&["security", "--offline=true", "--no-pager", "--threshold=100"], &unit).well();
        let exposure = exposure(&said.out);
        println!("        {daemon}: exposure {exposure}");
        assert!(exposure <= EXPOSURE_MAX, "{exposure} of {daemon}: {}", said.out);
    }
    let firewall = repository().join("deploy/systemd/holdfast-firewall.service");
    let said = analyze(&["verify", "--man=no"], &firewall);
    let faults: Vec<_> =
        said.err.lines().filter(|l| l.contains("holdfast-") && !l.contains("not executable")).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

/// A daemon's unit beside the drop-in that its configuration gives.
fn with_addresses(folder: &TempDir, daemon: &str) -> std::path::PathBuf {
    let name = format!("holdfast-{daemon}.service");
    let unit = folder.path().join(&name);
    fs::copy(repository().join("deploy/systemd").join(&name), &unit).expect("the unit");
    let addresses = folder.path().join(format!("{name}.d/addresses.conf"));
    fs::create_dir_all(addresses.parent().expect("a folder")).expect("made");
    firewall(folder, &["--systemd", "--output", &addresses.to_string_lossy()]).well();
    unit
}

fn analyze(words: &[&str], unit: &Path) -> Said {
    let output = Command::new("systemd-analyze").args(words).arg(unit).output();
    Said::from(output.expect("systemd-analyze is installed, as by tests/run"))
}

/// The figure in the last line of what systemd-analyze says.
fn exposure(said: &str) -> f64 {
    let line = said.lines().find(|line| line.contains("Overall exposure level")).expect("the figure");
    line.split(": ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok()).expect("a number")
}

fn configured(text: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("custodian.toml"), text).expect("written");
    folder
}

fn firewall(folder: &TempDir, words: &[&str]) -> Said {
    let config = folder.path().join("custodian.toml");
    run("holdfast-setup", &[&["firewall", "--config", &config.to_string_lossy()], words].concat())
}
