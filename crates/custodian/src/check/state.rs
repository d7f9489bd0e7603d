//! What the custodian keeps: the folder of its state, what it remembers, and its audit log.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use holdfast_edge::audit::{self, AUDIT_FILE, AuditError, Look, Why};
use holdfast_edge::checkup::Finding;
use holdfast_edge::clock;

use crate::config::Config;
use crate::driver::read_state;
use crate::kernel;

/// With less, the audit log of a busy night may not fit.
const ROOM_MIN: u64 = 16 * 1024 * 1024;

/// With less, somebody should look.
const ROOM_SOON: u64 = 256 * 1024 * 1024;

/// Looks at the state folder and what is in it.
pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let folder = &config.state_dir;
    let shown = folder.display();
    if !folder.exists() {
        let mut parents = folder
            .ancestors()
            .skip(1)
            .map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
        let parent = parents.find(|parent| parent.exists()).unwrap_or(Path::new("/"));
        let (what, remedy) =
            (format!("{shown} is not there yet, and"), format!("mkdir -m 700 {shown}, as the custodian's user"));
        return vec![match try_writing(parent) {
            Ok(()) => Finding::ok("state", format!("{what} the first start can make it")),
            Err(error) => {
                Finding::failed("state", format!("{what} cannot be made in {}: {error}", parent.display()), remedy)
            }
        }];
    }
    let mut findings = vec![writable(config), room(config)];
    findings.extend(remembered(config));
    findings.push(audit_log(config));
    findings
}

fn writable(config: &Config) -> Finding {
    let shown = config.state_dir.display();
    match try_writing(&config.state_dir) {
        Ok(()) => Finding::ok("state", format!("{shown} can be written, and the disk keeps what is written")),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let what = format!("{shown} lies on a file system where writing cannot be tried without leaving a trace");
            Finding::warning("state", what, "the custodian's log says at its start whether it can write there")
        }
        Err(error) => {
            let what = format!("{shown} cannot be written: {error}; no share is released without a record");
            Finding::failed(
                "state",
                what,
                "give it to the custodian's user, on a disk that can be written: ls -ld, df -h, mount",
            )
        }
    }
}

/// Writes into a file without a name, which is gone with its descriptor.
pub(super) fn try_writing(folder: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(folder)?;
    file.write_all(&[0; 4096])?;
    file.sync_all()
}

fn room(config: &Config) -> Finding {
    let shown = config.state_dir.display();
    let remedy = "make room: a custodian that cannot write its audit log releases nothing";
    match kernel::free_bytes(&config.state_dir) {
        Ok(free) => {
            let what = format!("{} MiB are free on the disk of {shown}", free / (1024 * 1024));
            match free {
                0..ROOM_MIN => Finding::failed("disk", what, remedy),
                ROOM_MIN..ROOM_SOON => Finding::warning("disk", what, remedy),
                _ => Finding::ok("disk", what),
            }
        }
        Err(error) => Finding::warning("disk", format!("how much room {shown} has cannot be told: {error}"), "df -h"),
    }
}

fn remembered(config: &Config) -> Vec<Finding> {
    let state = match read_state(config) {
        Ok(state) => state,
        Err(error) => {
            let remedy = "restore it from a backup of this host; moved away, every node waits for an approval once";
            return vec![Finding::failed("memory", format!("{error:#}"), remedy)];
        }
    };
    let mut findings = vec![Finding::ok("memory", "what the custodian remembers can be read")];
    let now = clock::wall();
    if state.high_water.since(now) > holdfast_core::admission::SKEW_MAX {
        let what = format!(
            "this host's clock has shown {} already, and shows {now}: until then approvals are refused (\"clock\")",
            state.high_water
        );
        findings.push(Finding::failed(
            "clock-back",
            what,
            "set the clock right (timedatectl); if it was ahead by much, see docs/SECURITY.md",
        ));
    }
    for (cluster, nodes) in &state.clusters {
        for (node, marker) in nodes.iter().filter_map(|(node, known)| Some((node, known.marker(&config.id)?))) {
            let name =
                config.settings.clusters.get(cluster).map_or_else(|| cluster.to_string(), |c| c.name.to_string());
            let what = format!(
                "{node} of {name} was sealed on purpose (seen at {} by {}): it waits for approvals",
                marker.at, marker.by
            );
            findings.push(Finding::warning(
                "marker",
                what,
                format!("an operator types: holdfast approve --cluster {name} --node {node}"),
            ));
        }
    }
    findings
}

fn audit_log(config: &Config) -> Finding {
    const CHECK: &str = "audit";
    let shown = config.state_dir.join(AUDIT_FILE);
    let shown = shown.display();
    let evidence =
        "keep it as evidence, and find out who changed it: docs/OPERATIONS.md, \"The audit log\", says how to go on";
    let Look { in_use, content } = match audit::look(&config.state_dir) {
        Ok(Some(look)) => look,
        Ok(None) => return Finding::ok(CHECK, format!("{shown} is not there yet: the first start begins it")),
        // Nothing is wrong with the file: whoever looks may not.
        Err(AuditError::Open { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
            let what = format!("the audit log {shown} may not be read by this user");
            return Finding::failed(CHECK, what, "check the owner and mode of the file and of its folder: ls -ld");
        }
        Err(error) => return Finding::failed(CHECK, error.to_string(), evidence),
    };
    let who = if in_use { "a custodian runs and writes it" } else { "no custodian runs" };
    match content {
        Err(broken) => {
            let cut = if broken.why == Why::Missing { " (audit.head remembers it)" } else { "" };
            Finding::failed(CHECK, format!("the audit log is not whole: {broken}{cut}; {who}"), evidence)
        }
        Ok(whole) if whole.torn > 0 && !in_use => {
            let what = format!("the audit log {shown} ends in the middle of a line, as a crash leaves it");
            Finding::warning(CHECK, what, "nothing: the next start cuts that off and says so in the log")
        }
        Ok(whole) => {
            let (seq, head) = (whole.position.seq, whole.position.head_hex());
            let from = if whole.begins > 1 { format!(" from entry {} on", whole.begins) } else { String::new() };
            Finding::ok(
                CHECK,
                format!("the audit log's chain is whole{from}: {seq} entries, head {}…; {who}", &head[..16]),
            )
        }
    }
}
