//! The host: the custodian's keys, its sandbox, its clock.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use holdfast_core::message::SandboxPart;
use holdfast_edge::checkup::{Finding, secret_file};

use crate::config::{Config, SandboxMode};
use crate::{kernel, sandbox};

/// What the findings about the sandbox are called.
const SANDBOX: &str = "sandbox";

/// The first Linux whose Landlock has the last part of what the sandbox asks for.
const SCOPE_SINCE: &str = "Linux 6.12";

/// The files that are the custodian's alone.
pub(super) fn keys(config: &Config) -> Vec<Finding> {
    let me = own_user();
    let owner = owner(config);
    let mut findings = Vec::new();
    if let (Some(me), Some(owner)) = (me, owner)
        && me != owner
    {
        let state_dir = config.state_dir.display();
        let what = format!(
            "this check runs as user {me}, and the custodian as {owner}, whose {state_dir} is: what that one may do was not tried"
        );
        let remedy = format!(
            "run it as the custodian's own user: sudo -u '#{owner}' holdfast-custodian check …; or, if the custodian is \
             user {me}: chown -R {me} {state_dir}"
        );
        findings.push(Finding::warning("user", what, remedy));
    }
    let Some(owner) = owner else { return findings };
    findings.extend(config.secrets.iter().map(|(what, path)| secret_file("key-file", what, path, owner)));
    findings
}

/// The user whom the custodian runs as: the one whose its state is; before its first start, whoever enrolled it.
pub(super) fn owner(config: &Config) -> Option<u32> {
    let key = config.secrets.first().map(|(_, path)| path);
    let whose = |path: &Path| std::fs::metadata(path).ok().map(|meta| meta.uid());
    whose(&config.state_dir).or_else(|| whose(key?))
}

/// This process's user, by number.
fn own_user() -> Option<u32> {
    std::fs::metadata("/proc/self").ok().map(|meta| meta.uid())
}

/// Whether the sandbox can be put in force, tried in a process that ends with it.
pub(super) fn sandbox(config: &Config, path: &Path) -> Vec<Finding> {
    if config.sandbox == SandboxMode::Off {
        let what =
            "sandbox = \"off\": this custodian is never ready, and whoever gets into it can send its share anywhere";
        return vec![Finding::warning(
            SANDBOX,
            what,
            "sandbox = \"enforce\", which takes Linux 6.7 or later: uname -r",
        )];
    }
    let tried = std::env::current_exe().and_then(|own| {
        let mut command = Command::new(own);
        command.args(["try-sandbox", "--config"]).arg(path);
        command.stdin(Stdio::null()).output()
    });
    let output = match tried {
        Ok(output) => output,
        Err(error) => {
            let what = format!("the sandbox could not be tried: this program cannot be started again: {error}");
            return vec![Finding::warning(SANDBOX, what, "start the custodian: it does not run without its sandbox")];
        }
    };
    let said = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
    let said = said.trim().trim_start_matches("holdfast-custodian: ");
    let finding = match (output.status.success(), said) {
        (true, parts) => return vec![of_parts(parts)],
        (false, why) => {
            let remedy = "the custodian does not start like this: mend what it names; the kernel's modules are in /sys/kernel/security/lsm";
            Finding::failed(SANDBOX, format!("the sandbox cannot be put in force: {why}"), remedy)
        }
    };
    vec![finding]
}

/// By the parts that could be put in force.
fn of_parts(parts: &str) -> Finding {
    let lacks = |part: SandboxPart| !parts.split(' ').any(|word| word == part.as_str());
    let what = "the sandbox can be put in force, ";
    if lacks(SandboxPart::Scope) {
        let what = format!("{what}but for the part that takes {SCOPE_SINCE}: signals, abstract sockets, ioctl");
        return Finding::warning(SANDBOX, what, "a newer kernel has it; the share is as safe without");
    }
    if lacks(SandboxPart::Memory) {
        let what = format!("{what}but this user may not keep its memory out of this host's swap");
        let remedy = "LimitMEMLOCK=infinity or MemorySwapMax=0 in the custodian's unit, or no swap: swapoff -a";
        return Finding::warning(SANDBOX, what, remedy);
    }
    Finding::ok(SANDBOX, format!("{what}whole, and all files are within reach in it"))
}

/// The other process: puts the sandbox in force, and reads everything again inside it, as a reload will have to.
pub(crate) fn try_sandbox(path: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    let mut wanted = config.sandbox();
    // The state folder is made by the first start.
    wanted.write.retain(|folder| folder.exists());
    let files = || config.clusters.values().flat_map(|files| [files.store.share_path(), files.store.identity_path()]);
    let readable: Vec<_> = files().filter(|file| std::fs::File::open(file).is_ok()).collect();
    let enforced = sandbox::enforce(&wanted)?;
    Config::load(path).map_err(|refused| anyhow::anyhow!("inside it the configuration is refused: {refused}"))?;
    for file in readable {
        std::fs::File::open(file).with_context(|| format!("inside it {} cannot be read", file.display()))?;
    }
    let parts: Vec<_> = enforced.parts().into_iter().map(SandboxPart::as_str).collect();
    writeln!(std::io::stdout(), "{}", parts.join(" "))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether the kernel believes its clock.
pub(super) fn clock() -> Finding {
    if kernel::clock_synchronised() {
        return Finding::ok("clock-sync", "the kernel says that its clock is synchronised");
    }
    let what = "the kernel does not say that its clock is synchronised: after a reboot of this host, no node is opened by itself";
    Finding::warning(
        "clock-sync",
        what,
        "let an NTP client run: timedatectl set-ntp true, or chrony; then look again: timedatectl",
    )
}
