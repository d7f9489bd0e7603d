//! The addresses that systemd lets the custodian's process reach, as a drop-in for its unit.
//!
//! What lives here: the text. What does not: the unit, which is the package's.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use super::peers::{Peer, Whose};
use super::{Head, NameServers, nftables};

/// The drop-in. The host's own peers, such as its time servers, are not the custodian's.
pub(super) fn text(head: &Head<'_>, peers: &[Peer], names: &NameServers) -> String {
    let own: Vec<Peer> = peers.iter().filter(|peer| peer.whose == Whose::Custodian).cloned().collect();
    let mut text = format!("# The addresses that the custodian may reach: {head}\n#\n");
    text.push_str("# In force after: systemctl daemon-reload && systemctl restart holdfast-custodian\n#\n");
    text.push_str(&nftables::names(&own));
    text.push_str("\n[Service]\nIPAddressDeny=any\n");
    let addresses: BTreeSet<IpAddr> = own.iter().flat_map(|peer| peer.addresses.iter().copied()).collect();
    for address in &addresses {
        writeln!(text, "IPAddressAllow={address}").expect("a String takes everything");
    }
    let asked: Vec<_> = names.local.iter().chain(&names.remote).filter(|one| !addresses.contains(*one)).collect();
    if !asked.is_empty() {
        text.push_str("# Whom names are asked of.\n");
    }
    for address in asked {
        writeln!(text, "IPAddressAllow={address}").expect("a String takes everything");
    }
    text
}
