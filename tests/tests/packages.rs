//! The packages on a bare Debian whose systemd is PID 1: installed, configured, started, attacked a little, upgraded, removed and purged.
//!
//! What lives here: what a host's administrator does with them (docs/INSTALL.md). What does not: the host's rules under attack
//! (namespaces.rs), and what the units forbid as systemd-analyze counts it (firewall.rs).

use std::fs;

use holdfast_tests::home::Ceremony;
use holdfast_tests::machine::Machine;
use holdfast_tests::packages::{build, install, property, put};
use holdfast_tests::wait::until;
use serde_json::Value;

/// Folders in which dpkg, apt and the journal write for themselves.
const THEIRS: [&str; 5] = ["/var/lib/dpkg", "/var/log", "/var/cache", "/var/lib/systemd", "/run"];

#[test]
fn they_install_start_when_configured_upgrade_and_leave_nothing() {
    let (first, second) = (build("0.1.0-1", &[]), build("0.1.0-2", &["--only", "holdfast-custodian"]));
    let machine = Machine::boot();
    let before = machine.files(&THEIRS);
    install(&machine, &first, "holdfast-custodian");
    assert_eq!(property(&machine, "UnitFileState"), "enabled");
    machine.run(&["systemctl", "start", "holdfast-custodian"]).well();
    assert_eq!(property(&machine, "ConditionResult"), "no", "nothing starts before it is configured");
    assert_eq!(property(&machine, "ActiveState"), "inactive");
    its_pages_and_completions_are_there(&machine);

    configure(&machine);
    let checked = machine.sh("runuser -u holdfast -- holdfast-custodian check --offline");
    assert!(checked.out.contains("share 1 decrypts") || checked.out.contains("decrypts and matches"), "{checked:?}");
    assert!(checked.out.contains("thief of this disk"), "a plain identity is warned of: {checked:?}");
    it_starts_ready_and_is_watched(&machine);
    it_cannot_do_what_its_unit_forbids(&machine);
    its_identity_is_a_credential(&machine);
    it_is_not_ready_without_a_share(&machine);
    a_refused_configuration_is_not_tried_again(&machine);

    let pid = property(&machine, "MainPID");
    let upgraded = install(&machine, &second, "holdfast-custodian");
    assert!(upgraded.contains("systemctl restart holdfast-custodian"), "{upgraded}");
    assert_eq!(property(&machine, "MainPID"), pid, "an upgrade restarts no custodian");

    // The sentinel is for another host: it would be a share and the watcher of shares on one.
    let refused = put(&machine, &first, "holdfast-sentinel");
    assert!(refused.code != Some(0) && refused.err.contains("conflict"), "{refused:?}");
    machine.run(&["dpkg", "--remove", "holdfast-custodian"]).well();
    assert!(machine.path("/etc/holdfast/lab.share.age").exists(), "removed, it leaves the share");
    machine.run(&["dpkg", "--purge", "holdfast-custodian"]).well();
    machine.run(&["dpkg", "--purge", "holdfast-sentinel"]);
    let left = machine.files(&THEIRS);
    let new: Vec<_> = left.iter().filter(|path| !before.contains(path) && !theirs_too(path)).collect();
    assert!(new.is_empty(), "left behind: {new:#?}");
    assert_eq!(machine.run(&["getent", "passwd", "holdfast"]).code, Some(2), "its user is gone");

    for other in ["holdfast-sentinel", "holdfast"] {
        install(&machine, &first, other);
        machine.run(&[other, "--version"]).well();
        machine.run(&["dpkg", "--purge", other]).well();
    }
    let left = machine.files(&THEIRS);
    let new: Vec<_> = left.iter().filter(|path| !before.contains(path) && !theirs_too(path)).collect();
    assert!(new.is_empty(), "left behind: {new:#?}");
}

/// What is the system's own, and changes whenever users or units do.
fn theirs_too(path: &str) -> bool {
    [
        "/etc/passwd",
        "/etc/group",
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/subuid",
        "/etc/subgid",
        "/etc/.pwd.lock",
        "/tmp",
        "/root",
    ]
    .iter()
    .any(|one| path.starts_with(one))
}

fn its_pages_and_completions_are_there(machine: &Machine) {
    let listed = machine.run(&["dpkg", "-L", "holdfast-custodian"]).well().out;
    for file in [
        "/usr/share/man/man1/holdfast-custodian-check.1.gz",
        "/usr/share/man/man1/holdfast-setup-firewall.1.gz",
        "/usr/share/bash-completion/completions/holdfast-setup",
        "/usr/share/zsh/vendor-completions/_holdfast-custodian",
        "/usr/share/fish/vendor_completions.d/holdfast-custodian.fish",
        "/usr/share/doc/holdfast-custodian/copyright",
    ] {
        assert!(listed.lines().any(|line| line == file), "{file} is not in {listed}");
    }
    let script = ". /usr/share/bash-completion/completions/holdfast-setup
        COMP_WORDS=(holdfast-setup firewall --sys) COMP_CWORD=2; _holdfast_setup; echo \"${COMPREPLY[*]}\"";
    assert_eq!(machine.run(&["bash", "-c", script]).well().out.trim(), "--systemd");
    let list = machine.path("/usr/share/doc/holdfast-custodian/holdfast-custodian.cdx.json");
    let list: Value = serde_json::from_str(&fs::read_to_string(list).expect("the list")).expect("JSON");
    let components = list["components"].as_array().expect("components");
    assert!(components.len() > 100 && components.iter().all(|one| one["purl"].is_string()), "{list}");
    let rustls = components.iter().find(|one| one["name"] == "rustls").expect("what it is linked with");
    assert!(rustls["hashes"][0]["content"].as_str().is_some_and(|sum| sum.len() == 64), "{rustls}");
}

/// A custodian of a real ceremony.
fn configure(machine: &Machine) {
    let ceremony = Ceremony::hold();
    let home = ceremony.home("custodian-1");
    let folder = machine.path("/etc/holdfast");
    for entry in fs::read_dir(home.path("")).expect("a folder").flatten() {
        fs::copy(entry.path(), folder.join(entry.file_name())).expect("copied, with its rights");
    }
    machine
        .sh("chown -R holdfast: /etc/holdfast; sed -i 's|^state_dir.*|state_dir = \"/var/lib/holdfast\"|' /etc/holdfast/custodian.toml")
        .well();
}

fn it_starts_ready_and_is_watched(machine: &Machine) {
    machine.run(&["systemctl", "start", "holdfast-custodian"]).well();
    assert_eq!(property(machine, "ActiveState"), "active");
    assert_eq!(property(machine, "StatusText"), "every share is sound");
    let log = machine.run(&["journalctl", "--output=cat", "--unit=holdfast-custodian"]).well().out;
    // All of it, memory too: the unit lets it be locked.
    for part in ["process", "files", "ports", "calls", "memory"] {
        let whole = log.lines().any(|line| line.contains("custodian started") && line.contains(part));
        assert!(whole, "{part}: {log}");
    }
    assert!(log.contains("the age identity is a plain file"), "{log}");
    let sign = property(machine, "WatchdogTimestampMonotonic");
    until("signs of life", || property(machine, "WatchdogTimestampMonotonic") != sign);
    machine.run(&["systemctl", "reload", "holdfast-custodian"]).well();
    until("it has read its configuration again", || property(machine, "ActiveState") == "active");
    // One that stands still is ended, with no core file, and started again.
    let shorter = "mkdir -p /run/systemd/system/holdfast-custodian.service.d
        printf '[Service]\\nWatchdogSec=2s\\n' >/run/systemd/system/holdfast-custodian.service.d/shorter.conf
        systemctl daemon-reload; systemctl restart holdfast-custodian";
    machine.sh(shorter).well();
    let pid = property(machine, "MainPID");
    machine.run(&["kill", "-STOP", &pid]).well();
    until("the one that stood still was ended, and another is ready", || {
        ![pid.as_str(), "0"].contains(&property(machine, "MainPID").as_str())
            && property(machine, "ActiveState") == "active"
    });
    assert!(property(machine, "NRestarts").parse::<u32>().is_ok_and(|n| n >= 1));
    machine.sh("rm -r /run/systemd/system/holdfast-custodian.service.d; systemctl daemon-reload; systemctl restart holdfast-custodian").well();
}

/// What a process in the unit's place can and cannot do: systemd's own walls, without the custodian's.
fn it_cannot_do_what_its_unit_forbids(machine: &Machine) {
    let pid = property(machine, "MainPID");
    let status = machine.run(&["cat", &format!("/proc/{pid}/status")]).well().out;
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    let limits = machine.run(&["cat", &format!("/proc/{pid}/limits")]).well().out;
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("the limit");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let mounts = machine.run(&["cat", &format!("/proc/{pid}/mountinfo")]).well().out;
    let at =
        |path: &str| mounts.lines().rfind(|line| line.split(' ').nth(4) == Some(path)).expect("mounted").to_owned();
    assert!(at("/").contains(" ro,"), "{mounts}");
    assert!(at("/").contains("noexec"), "{mounts}");
    assert!(at("/var/lib/holdfast").contains(" rw,"), "{mounts}");
    let ours = |namespace: &str| machine.run(&["readlink", &format!("/proc/{pid}/ns/{namespace}")]).well().out;
    let systems = |namespace: &str| machine.run(&["readlink", &format!("/proc/1/ns/{namespace}")]).well().out;
    for namespace in ["mnt", "user"] {
        assert_ne!(ours(namespace), systems(namespace), "{namespace}");
    }
    let listening = machine.run(&["ss", "-lntuH"]).well().out;
    assert_eq!(listening, "", "nothing listens on this host");
}

/// As docs/INSTALL.md has it: encrypted to the host, decrypted by systemd for this service alone.
fn its_identity_is_a_credential(machine: &Machine) {
    let steps = "systemd-creds encrypt --name=holdfast-identity /etc/holdfast/identity.txt /etc/credstore.encrypted/holdfast-identity
        shred -u /etc/holdfast/identity.txt
        sed -i 's|^identity = .*|identity = \"/run/credentials/holdfast-custodian.service/holdfast-identity\"|' /etc/holdfast/custodian.toml
        systemctl restart holdfast-custodian";
    machine.sh(steps).well();
    assert_eq!(property(machine, "StatusText"), "every share is sound");
    let pid = property(machine, "MainPID");
    let invocation = property(machine, "InvocationID");
    let log = machine.run(&["journalctl", "--output=cat", &format!("_SYSTEMD_INVOCATION_ID={invocation}")]).well().out;
    assert!(log.contains("custodian started") && !log.contains("plain file"), "{log}");
    machine.run(&["systemctl", "reload", "holdfast-custodian"]).well();
    until("read again", || property(machine, "ActiveState") == "active");
    assert_eq!(
        (property(machine, "MainPID"), property(machine, "StatusText")),
        (pid, "every share is sound".to_owned())
    );
    let others = machine.sh("runuser -u nobody -- cat /run/credentials/holdfast-custodian.service/holdfast-identity");
    assert_ne!(others.code, Some(0), "{others:?}");
}

fn it_is_not_ready_without_a_share(machine: &Machine) {
    machine
        .sh("mv /etc/holdfast/lab.share.age /etc/holdfast/away; systemctl restart --no-block holdfast-custodian")
        .well();
    until("it says what it waits for", || property(machine, "StatusText").starts_with("no sound share of lab"));
    assert_eq!(property(machine, "ActiveState"), "activating", "one that could release nothing is not ready");
    machine
        .sh("mv /etc/holdfast/away /etc/holdfast/lab.share.age; systemctl kill --signal=HUP holdfast-custodian")
        .well();
    until("with its share it is ready", || property(machine, "ActiveState") == "active");
}

fn a_refused_configuration_is_not_tried_again(machine: &Machine) {
    machine
        .sh("cp -p /etc/holdfast/custodian.toml /etc/holdfast/kept; echo 'colour = 1' >>/etc/holdfast/custodian.toml")
        .well();
    assert_ne!(machine.run(&["systemctl", "restart", "holdfast-custodian"]).code, Some(0));
    until("it waits for a person", || property(machine, "ActiveState") == "failed");
    assert_eq!(property(machine, "ExecMainStatus"), "78");
    machine.sh("mv /etc/holdfast/kept /etc/holdfast/custodian.toml; systemctl start holdfast-custodian").well();
}
