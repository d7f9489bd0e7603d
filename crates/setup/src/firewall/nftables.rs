//! The host's rules, in the language of nftables.
//!
//! What lives here: the text. What does not: whom the rules are about.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use super::Head;
use super::peers::{Peer, Protocol};

/// The longest comment that nft takes is 128 bytes.
const COMMENT_MAX: usize = 100;

/// The rules.
pub(super) fn text(head: &Head<'_>, peers: &[Peer], name_servers: &[IpAddr], dhcp: bool) -> String {
    let mut text = format!("#!/usr/sbin/nft -f\n# The packet filter of a custodian's host: {head}\n");
    text.push_str(ABOUT);
    text.push_str(&names(peers));
    text.push_str(TABLE);
    text.push_str(INBOUND);
    if dhcp {
        text.push_str(INBOUND_DHCP);
    }
    text.push_str(OUTBOUND);
    for Peer { what, host, protocol, port, addresses, .. } in peers {
        let comment = if what.contains(host.as_str()) { what.clone() } else { format!("{what}: {host}") };
        let port = match protocol {
            Protocol::Tcp => format!("tcp dport {port}"),
            Protocol::Udp => format!("udp dport {port}"),
        };
        text.push_str(&rules(addresses, &port, &comment));
    }
    text.push_str(&rules(name_servers, "meta l4proto { 6, 17 } th dport 53", "a name server"));
    if dhcp {
        text.push_str(OUTBOUND_DHCP);
    }
    text.push_str("\t}\n}\n");
    text
}

/// The names among the peers with their addresses, as comments.
pub(super) fn names(peers: &[Peer]) -> String {
    let named: BTreeMap<_, _> =
        peers.iter().filter(|peer| peer.has_name()).map(|peer| (&peer.host, &peer.addresses)).collect();
    if named.is_empty() {
        return "# No name was looked up: every address was given as one.\n".to_owned();
    }
    let mut text = "# Names, and the addresses that they had then. When one of them gets another, nothing reaches it\n\
                    # until this was made again, with the same words, and put in force again:\n"
        .to_owned();
    for (host, addresses) in named {
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        writeln!(text, "#   {host}  {}", addresses.join("  ")).expect("a String takes everything");
    }
    text
}

/// A rule for each kind of address that there is.
fn rules(addresses: &[IpAddr], port: &str, comment: &str) -> String {
    let comment: String = comment.chars().filter(|c| *c != '"' && !c.is_control()).take(COMMENT_MAX).collect();
    let (v4, v6): (Vec<_>, Vec<_>) = addresses.iter().partition(|address| address.is_ipv4());
    let mut text = String::new();
    for (family, addresses) in [("ip", v4), ("ip6", v6)] {
        let set: Vec<_> = addresses.iter().map(|address: &&IpAddr| address.to_string()).collect();
        if !set.is_empty() {
            let set = set.join(", ");
            writeln!(text, "\t\t{family} daddr {{ {set} }} {port} accept comment \"{comment}\"")
                .expect("a String takes everything");
        }
    }
    text
}

const ABOUT: &str = "#
# Nothing comes in but answers to what this host began, and nothing goes out but what is listed below. That is so for root too:
# whoever is logged in over the network when it is put in force is cut off, and comes back at the console.
#
#   look at it:     nft -c -f FILE
#   in force:       systemctl restart holdfast-firewall      (FILE is /etc/holdfast-firewall.nft; from then on at every start)
#   out of force:   nft delete table inet holdfast
#
";

/// The second and the third line take away what was in force before, if anything was, in the same step.
const TABLE: &str = "
table inet holdfast
delete table inet holdfast
table inet holdfast {
";

/// ICMP is 1 and 58, here and below TCP 6 and UDP 17: their names nft looks up in a file that a minimal Debian does not have.
const INBOUND: &str = r#"	chain inbound {
		type filter hook input priority filter; policy drop;
		iifname "lo" accept
		ct direction reply ct state established accept comment "answers to what this host began"
		meta l4proto { 1, 58 } ct state related accept comment "what routers say about that"
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } ip6 hoplimit 255 accept comment "neighbours"
"#;

const INBOUND_DHCP: &str = r#"		udp sport 67 udp dport 68 accept comment "an address, by DHCP"
		ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept comment "an address, by DHCP"
"#;

const OUTBOUND: &str = r#"	}

	chain forward {
		type filter hook forward priority filter; policy drop;
	}

	chain outbound {
		type filter hook output priority filter; policy drop;
		oifname "lo" accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } ip6 hoplimit 255 accept comment "neighbours"
		icmpv6 type mld2-listener-report accept comment "neighbours, through switches that listen in"
"#;

const OUTBOUND_DHCP: &str = r#"		udp sport 68 udp dport 67 accept comment "an address, by DHCP"
		ip6 daddr { fe80::/10, ff02::1:2 } udp sport 546 udp dport 547 accept comment "an address, by DHCP"
"#;
