//! `holdfast-setup firewall`: the rules that close a custodian's host, from the custodian's configuration.
//!
//! What lives here: the command. Whom the host has to reach, and at which addresses, is in `peers`; how that is said to the
//! kernel in `nftables`, and to systemd in `drop_in`. What does not: putting it in force, which is the system's own tools' to do.

mod drop_in;
mod nftables;
mod peers;

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use holdfast_edge::clock;
use holdfast_edge::config::{ConfigError, ConfigFile};
use holdfast_edge::files::{self, FileError, PUBLIC_MODE};

use crate::output;
use peers::{Configured, Host, Peers, PeersError, Service};

/// Print the rules that close this host: nothing comes in, and only what the custodian needs goes out
///
/// Reads the nodes, the broker and the Pushgateway from the custodian's configuration, looks their names up, and prints rules for
/// nftables. Rules hold for addresses: which name had which is in the comments, with what to do when one changes. With --systemd it is the drop-in by which systemd
/// lets the custodian's own process reach these addresses and no others. Nothing is put in force.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The custodian's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/holdfast/custodian.toml")]
    config: PathBuf,
    /// A time server, by name or address; as often as there are
    #[arg(long, value_name = "HOST")]
    ntp: Vec<Host>,
    /// The host has its time from elsewhere, such as a hypervisor's clock
    #[arg(long, conflicts_with = "ntp")]
    no_ntp: bool,
    /// A name server's address; as often as there are [default: those in /etc/resolv.conf, or behind systemd-resolved]
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// No name is looked up: every address is in the configuration or in /etc/hosts
    #[arg(long, conflicts_with = "dns")]
    no_dns: bool,
    /// The host has its address by DHCP
    #[arg(long)]
    dhcp: bool,
    /// Whoever else the host is to reach by TCP, such as a mirror with security updates; as often as there are
    #[arg(long, value_name = "HOST:PORT")]
    also: Vec<Service>,
    /// Print a drop-in for holdfast-custodian.service instead
    #[arg(long, conflicts_with_all = ["ntp", "no_ntp", "dhcp", "also"])]
    systemd: bool,
    /// Write it to this file, in one step, instead of printing it
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

const EXAMPLES: &str = "Example, as root:
  holdfast-setup firewall --ntp ntp.example --output /etc/holdfast-firewall.nft
  holdfast-setup firewall --systemd --output /etc/systemd/system/holdfast-custodian.service.d/addresses.conf";

/// Where the system says who looks names up: what the C library asks, and whom systemd-resolved asks in its turn.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const BEHIND_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// The most of such a file that is read, in bytes.
const RESOLV_CONF_MAX: usize = 64 * 1024;

/// Why there are no rules.
#[derive(Debug, thiserror::Error)]
enum FirewallError {
    /// The configuration cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Somebody has no address.
    #[error(transparent)]
    Peers(#[from] PeersError),
    /// It is not said where the time comes from.
    #[error(
        "where does this host have its time from? Say --ntp HOST for each time server, or --no-ntp where a hypervisor's clock keeps it: a \
         custodian whose clock is not synchronised believes in no power cut"
    )]
    NoTime,
    /// It is not known whom to ask for names, and there are names.
    #[error(
        "{RESOLV_CONF} names no server that names are asked of: say --dns ADDRESS for each, or --no-dns where every name is in /etc/hosts"
    )]
    NoNames,
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Standard output takes nothing more.
    #[error("the rules cannot be written to standard output: {0}")]
    Stdout(io::Error),
}

impl FirewallError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => output::REFUSED,
            Self::NoTime | Self::NoNames => output::USAGE,
            Self::Peers(_) | Self::File(_) | Self::Stdout(_) => output::FAILED,
        }
    }
}

/// Whom names are asked of.
#[derive(Debug, Default, PartialEq, Eq)]
struct NameServers {
    /// On this host, by whom the C library asks.
    local: Vec<IpAddr>,
    /// Beyond it.
    remote: Vec<IpAddr>,
}

/// Prints or writes them.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match arguments.rules().and_then(|rules| arguments.put(&rules)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::failure(&error, error.exit_code()),
    }
}

impl Arguments {
    fn rules(&self) -> Result<String, FirewallError> {
        if !self.systemd && !self.no_ntp && self.ntp.is_empty() {
            return Err(FirewallError::NoTime);
        }
        let file = ConfigFile::read(&self.config)?;
        let configured: Configured = file.parse()?;
        let mut peers = Peers::of(&file, &configured)?;
        peers.also(&self.also);
        peers.time(&self.ntp);
        let names = self.name_servers(read_resolv_conf);
        if !self.no_dns && names.local.is_empty() && names.remote.is_empty() && peers.has_names() {
            return Err(FirewallError::NoNames);
        }
        let peers = peers.look_up(&peers::addresses)?;
        let head = Head { custodian: configured.id(), config: &self.config, at: clock::wall().to_string() };
        Ok(match self.systemd {
            true => drop_in::text(&head, &peers, &names),
            false => nftables::text(&head, &peers, &names.remote, self.dhcp),
        })
    }

    fn put(&self, rules: &str) -> Result<(), FirewallError> {
        if let Some(path) = &self.output {
            return Ok(files::replace(path, rules.as_bytes(), PUBLIC_MODE)?);
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(rules.as_bytes()).and_then(|()| stdout.flush()).map_err(FirewallError::Stdout)
    }

    fn name_servers(&self, read: impl Fn(&str) -> Option<String>) -> NameServers {
        if self.no_dns {
            return NameServers::default();
        }
        let listed = |path| servers_in(&read(path).unwrap_or_default());
        let (local, mut remote): (Vec<_>, Vec<_>) = listed(RESOLV_CONF).into_iter().partition(IpAddr::is_loopback);
        if !self.dns.is_empty() {
            remote = self.dns.clone();
        } else if !local.is_empty() {
            remote.extend(listed(BEHIND_RESOLVED).into_iter().filter(|address| !address.is_loopback()));
        }
        NameServers { local, remote }
    }
}

fn read_resolv_conf(path: &str) -> Option<String> {
    let path = Path::new(path);
    // One that is not there names nobody, and neither does one that is no text.
    fs::exists(path).ok().filter(|there| *there)?;
    String::from_utf8(files::read_bounded(path, RESOLV_CONF_MAX).ok()?).ok()
}

/// The servers that a `resolv.conf` names. A scope (`fe80::1%eth0`) is a part of no rule.
fn servers_in(text: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let named = lines.filter_map(|rest| rest.split_whitespace().next());
    named.filter_map(|address| address.split('%').next()?.parse().ok()).collect()
}

/// What is said first in either form.
struct Head<'a> {
    custodian: String,
    config: &'a Path,
    at: String,
}

impl fmt::Display for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A path may have anything in it, and a line's end would end the comment.
        let config: String = self.config.display().to_string().chars().filter(|c| !c.is_control()).collect();
        write!(f, "for {}, made by holdfast-setup firewall from {config} at {}", self.custodian, self.at)
    }
}

#[cfg(test)]
mod tests;
