//! A node, as whoever will have to open it finds it: who answers at its address, what it says, and whether one process alone
//! does.
//!
//! Whether one process answers is found as `holdfast_core::sight` finds it: a ticket that is declined while the connection
//! that it came over still lives was shown to another process. What a balancer hides by sending us always to the same one is
//! not found.

use std::net::SocketAddr;
use std::sync::Arc;

use holdfast_core::admission::SKEW_MAX;
use holdfast_core::id::{ClusterName, NodeName};
use holdfast_core::seal_status::{SealKind, SealStatus};
use holdfast_core::time::Timestamp;

use super::certificate::certificate_end;
use super::finding::Finding;
use super::sheet::Sheet;
use crate::clock;
use crate::tls::{PeerRefusal, SpkiPin, pin_text};
use crate::vault::{ConnectError, Connection, Expected, Handshake, NodeIdentity};

/// How many handshakes with a ticket are made: of two processes behind an address, a balancer that draws lots hides the other
/// from one in 256.
const HANDSHAKES: usize = 8;

/// So many that resumed are enough, where a server stops to give tickets out.
const HANDSHAKES_MIN: usize = 2;

/// Clocks that differ by less are called equal: a node tells whole seconds, and its answer takes its time.
const SKEW_SOON: i64 = 2_000;

/// One node, and what is expected of it.
#[derive(Debug, Clone)]
pub struct NodePatient {
    /// Where it is and how it proves that it is there.
    pub identity: Arc<NodeIdentity>,
    /// Whether the configuration says that nothing stands between us and its process.
    pub direct: bool,
    /// What its cluster's manifest says.
    pub expected: Expected,
}

/// What was found of one node.
#[derive(Debug)]
struct NodeSeen {
    node: NodeName,
    findings: Vec<Finding>,
    address: Option<SocketAddr>,
    key: Option<SpkiPin>,
}

/// Looks at a cluster's nodes, each by itself and all together. Sends nothing but questions that need no token.
pub async fn examine_nodes(cluster: &ClusterName, nodes: impl IntoIterator<Item = NodePatient>, sheet: &mut Sheet) {
    // Side by side: one that does not answer takes its whole deadline.
    let looks = nodes.into_iter().map(|node| (node.identity.node().clone(), tokio::spawn(examine_node(node))));
    let looks: Vec<_> = looks.collect();
    let mut all = Vec::new();
    for (node, look) in looks {
        sheet.group(format!("Node {node} of {cluster}"));
        sheet.doing(&format!("shaking hands with {node}"));
        // It neither panics nor is aborted.
        let Ok(mut seen) = look.await else { continue };
        sheet.add_all(std::mem::take(&mut seen.findings));
        all.push(seen);
    }
    sheet.group(format!("Nodes of {cluster} together"));
    sheet.add_all(compare_nodes(&all));
}

async fn examine_node(patient: NodePatient) -> NodeSeen {
    let identity = &patient.identity;
    let mut seen = NodeSeen { node: identity.node().clone(), findings: Vec::new(), address: None, key: None };
    let mut connection = match identity.connect(None).await {
        Ok(connection) => connection,
        Err(error) => {
            seen.findings.push(not_connected(&error, identity));
            return seen;
        }
    };
    (seen.address, seen.key) = (connection.peer(), connection.key_pin());
    let peer = connection.peer().map(|peer| peer.to_string()).filter(|peer| *peer != identity.address());
    let place = peer.map_or_else(String::new, |peer| format!(" ({peer})"));
    let proven = format!("{}{place} proves in a full TLS 1.3 handshake that it is {}", identity.address(), seen.node);
    seen.findings.push(Finding::ok("identity", proven));
    seen.findings.extend(connection.key_pin().map(|pin| pinned(identity, &pin)));
    seen.findings.push(certificate_end("its", connection.certificate_not_after(), clock::wall()));
    match connection.seal_status().await {
        Ok(status) => seen.findings.extend(status_findings(&status, patient.expected, &seen.node)),
        Err(error) => {
            let what = format!("it does not say how it stands: {error}");
            seen.findings.push(Finding::failed("status", what, "name the node's own API address in its url"));
            return seen;
        }
    }
    seen.findings.push(process(&patient, &mut connection).await);
    seen.findings.extend(health(&patient, &mut connection).await);
    seen
}

/// Whether nodes can be told apart.
fn compare_nodes(nodes: &[NodeSeen]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let pairs = nodes.iter().enumerate().flat_map(|(i, one)| nodes[i + 1..].iter().map(move |other| (one, other)));
    for (one, other) in pairs {
        let names = format!("{} and {}", one.node, other.node);
        if one.address.is_some() && one.address == other.address {
            let what = format!("{names} are one address: one of them is never watched or opened");
            findings.push(Finding::failed(
                "shared-address",
                what,
                "give each node's url the address of that node alone",
            ));
        } else if one.key.is_some() && one.key == other.key {
            let what = format!(
                "{names} share one certificate key: whoever can reroute connections can let a sealed one look restarted"
            );
            let remedy = "issue each node a certificate with a key of its own, and pin it: spki_sha256 = [\"…\"]";
            findings.push(Finding::warning("shared-key", what, remedy));
        }
    }
    let reached = nodes.iter().filter(|node| node.address.is_some()).count();
    if findings.is_empty() && reached > 1 {
        let what = format!("the {reached} nodes that answer have addresses and keys of their own");
        findings.push(Finding::ok("shared-address", what));
    }
    findings
}

fn not_connected(error: &ConnectError, identity: &NodeIdentity) -> Finding {
    let (host, address) = (identity.host(), identity.address());
    let show = || format!("see what answers there: openssl s_client -connect {address} -showcerts </dev/null");
    let (check, remedy) = match error {
        ConnectError::Resolve { .. } => {
            ("name", format!("mend the host in its url, or the resolver: getent hosts {host}"))
        }
        ConnectError::Tcp { .. } | ConnectError::Deadline { .. } => {
            ("reach", format!("see that it runs and that no firewall is between: nc -vz {host} {}", identity.port()))
        }
        ConnectError::Handshake { .. } => ("tls", show()),
        ConnectError::Identity { refusal, .. } => match refusal {
            PeerRefusal::WrongPin { seen } => (
                "pin",
                format!(
                    "see first that its url is not another node's; if the node was given this key by somebody whom you know, add it to its \
                     pins: spki_sha256 = [\"{seen}\"]"
                ),
            ),
            PeerRefusal::Expired { .. } | PeerRefusal::NotYetValid { .. } => (
                "certificate",
                "renew it, with the same key if it is pinned; and look at both clocks: date -u".to_owned(),
            ),
            PeerRefusal::WrongName { .. } => {
                ("server-name", "write a name from its certificate into its url, or reissue it".to_owned())
            }
            PeerRefusal::UnknownIssuer | PeerRefusal::CaAsServer => ("ca", show()),
            _ => ("tls", show()),
        },
    };
    Finding::failed(check, error.to_string(), remedy)
}

fn pinned(identity: &NodeIdentity, pin: &SpkiPin) -> Finding {
    let pin = pin_text(pin);
    if identity.is_pinned() {
        return Finding::ok("pin", format!("its key is one of those that are pinned: {pin}"));
    }
    let what = "its key is not pinned: whoever gets a certificate for its name from your CA can pose as it";
    Finding::warning("pin", what, format!("add to the node in the configuration: spki_sha256 = [\"{pin}\"]"))
}

fn status_findings(status: &SealStatus, expected: Expected, node: &NodeName) -> Vec<Finding> {
    if !status.initialized {
        let what = "it has never been initialised, or its storage is empty or another one";
        return vec![Finding::failed(
            "status",
            what,
            "join it to its cluster, or initialise that: holdfast init --help",
        )];
    }
    if status.kind != SealKind::Shamir {
        let what = "its seal is not of the type shamir: no shares open it";
        return vec![Finding::failed(
            "status",
            what,
            "take the seal stanza out of its configuration, and migrate its seal",
        )];
    }
    let (found, wanted) = ((status.threshold, status.shares), (expected.threshold, expected.shares));
    if found != wanted {
        let what =
            format!("it wants {} of {} shares, and the manifest says {} of {}", found.0, found.1, wanted.0, wanted.1);
        let remedy = match status.sealed {
            false => {
                "after a rotation a standby shows the numbers of before until it is started again, so start it again; else \
                 this is the manifest of another cluster or generation: take the right one"
            }
            true => {
                "its shares were rotated, or this is the manifest of another cluster or generation: take the right one"
            }
        };
        return vec![Finding::failed("status", what, remedy)];
    }
    let wants = format!("{} of {} shares of the type shamir, as the manifest says", wanted.0, wanted.1);
    if status.sealed {
        let what = format!("it is sealed now; it wants {wants}");
        return vec![Finding::warning("status", what, format!("holdfast status --node {node} says what it waits for"))];
    }
    vec![Finding::ok("status", format!("it is open, and wants {wants}"))]
}

/// Whether one process answers, and resumes what it began.
async fn process(patient: &NodePatient, kept: &mut Connection) -> Finding {
    const CHECK: &str = "direct";
    if !patient.direct {
        let what = "not marked tls = \"direct\": a restart cannot be told, and every incident waits for an approval";
        let remedy =
            "if the node's own process ends the TLS connection, with no proxy or balancer between: tls = \"direct\"";
        return Finding::warning(CHECK, what, remedy);
    }
    let mut tickets = kept.take_tickets();
    let mut resumed = 0;
    while resumed < HANDSHAKES {
        let Some(ticket) = tickets.pop() else { break };
        let mut side = match patient.identity.connect(Some(ticket)).await {
            Ok(side) => side,
            Err(error) => {
                let what = format!("after {resumed} resumed handshakes there was no connection: {error}");
                return Finding::failed(CHECK, what, "see that the node's address always leads to it, and try again");
            }
        };
        // The new tickets come before the answer.
        let answered = side.seal_status().await;
        match side.handshake() {
            Handshake::Resumed => resumed += 1,
            Handshake::Full if !side.ticket_was_offered() => continue,
            Handshake::Full if kept.seal_status().await.is_ok() => {
                let what = format!(
                    "several processes answer at {}: one declined a ticket that another, which is still there, gave out",
                    patient.identity.address()
                );
                let remedy = "name each node by an address of its own, not a balancer's; or set tls = \"proxied\", and every \
                              incident waits for an approval";
                return Finding::failed("shared-address", what, remedy);
            }
            Handshake::Full => {
                return Finding::warning(CHECK, "it was restarted while it was looked at", "run this again");
            }
        }
        if answered.is_ok() || tickets.is_empty() {
            tickets = side.take_tickets();
        }
    }
    if resumed >= HANDSHAKES_MIN {
        return Finding::ok(CHECK, format!("one process answers: {resumed} handshakes in a row resumed"));
    }
    let what =
        "it gives out no TLS session tickets that resume: a restart cannot be told, and would wait for an approval";
    let remedy = "let the node's own process end TLS, and take out what switches session tickets off there";
    Finding::failed(CHECK, what, remedy)
}

/// What the node's health tells: its clock, and whether somebody else has a hand in its answers.
async fn health(patient: &NodePatient, connection: &mut Connection) -> Vec<Finding> {
    let asked = clock::wall();
    let health = match connection.health().await {
        Ok(health) => health,
        Err(error) => {
            let what = format!("its clock is not known: {error}");
            return vec![Finding::warning("clock", what, "look at it there: date -u")];
        }
    };
    let mut findings = vec![clock_finding(health.server_time, asked, clock::wall())];
    if patient.direct && health.names_a_proxy {
        let what =
            "its answers name a server or a way (Server, Via), as a Vault's own do not: a proxy stands before it";
        let remedy = "name the node's own address in its url; or set tls = \"proxied\", and every incident waits for an approval";
        findings.push(Finding::warning("proxy", what, remedy));
    }
    findings
}

/// A node that says a whole second between `asked` and `answered` by our clock.
fn clock_finding(theirs: Timestamp, asked: Timestamp, answered: Timestamp) -> Finding {
    let ahead = theirs.as_millis().saturating_sub(answered.as_millis());
    let behind = asked.as_millis().saturating_sub(theirs.as_millis().saturating_add(999));
    let (off, which) = if ahead > behind { (ahead, "ahead of") } else { (behind, "behind") };
    let remedy = "find out which of the two is wrong (timedatectl), and let both follow NTP: approvals live for minutes, and \
                  messages that seem to come from the future are refused";
    if off > i64::try_from(SKEW_MAX.as_millis()).unwrap_or(i64::MAX) {
        Finding::failed("clock", format!("its clock is {} s {which} this host's", off / 1000), remedy)
    } else if off > SKEW_SOON {
        Finding::warning("clock", format!("its clock is {} s {which} this host's", off / 1000), remedy)
    } else {
        Finding::ok("clock", "its clock and this host's agree")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkup::Grade;

    fn seen(node: &str, port: u16, key: u8) -> NodeSeen {
        let node = node.parse().expect("a name");
        let address = Some(SocketAddr::from(([127, 0, 0, 1], port)));
        NodeSeen { node, findings: Vec::new(), address, key: Some([key; 32]) }
    }

    #[test]
    fn nodes_that_share_something_are_told_in_pairs() {
        let grades = |nodes: &[NodeSeen]| compare_nodes(nodes).iter().map(|f| f.grade).collect::<Vec<_>>();
        assert_eq!(grades(&[seen("a", 1, 1), seen("b", 2, 2)]), [Grade::Ok]);
        assert_eq!(grades(&[seen("a", 1, 1), seen("b", 1, 1)]), [Grade::Failed]);
        assert_eq!(grades(&[seen("a", 1, 1), seen("b", 2, 1), seen("c", 3, 1)]), [Grade::Warning; 3]);
        assert_eq!(grades(&[seen("a", 1, 1)]), []);
    }

    #[test]
    fn a_clock_is_wrong_by_what_cannot_be_the_answers_way() {
        let noon = Timestamp::from_millis(1_795_348_800_000);
        let at = |millis: i64| Timestamp::from_millis(noon.as_millis() + millis);
        let grade = |theirs, asked, answered| clock_finding(at(theirs), at(asked), at(answered)).grade;
        // It says 12:00:00 and may be as late as 12:00:00.999.
        assert_eq!(grade(0, 500, 900), Grade::Ok);
        assert_eq!(grade(0, 2_900, 2_950), Grade::Ok);
        assert_eq!(grade(0, 3_100, 3_200), Grade::Warning);
        assert_eq!(grade(0, 40_000, 40_100), Grade::Failed);
        assert_eq!(grade(5_000, 0, 100), Grade::Warning);
        assert_eq!(grade(31_000, 0, 100), Grade::Failed);
        // An answer that took its time proves nothing about the clock.
        assert_eq!(grade(20_000, 0, 21_000), Grade::Ok);
    }

    #[test]
    fn what_a_node_says_is_held_against_the_manifest() {
        let expected = Expected { threshold: 3, shares: 5 };
        let open = SealStatus {
            initialized: true,
            sealed: false,
            kind: SealKind::Shamir,
            threshold: 3,
            shares: 5,
            progress: 0,
            nonce: String::new(),
        };
        let node = "vault-1".parse().expect("a name");
        let grade = |status: &SealStatus| status_findings(status, expected, &node)[0].grade;
        assert_eq!(grade(&open), Grade::Ok);
        assert_eq!(grade(&SealStatus { sealed: true, ..open.clone() }), Grade::Warning);
        assert_eq!(grade(&SealStatus { threshold: 2, ..open.clone() }), Grade::Failed);
        assert_eq!(grade(&SealStatus { kind: SealKind::Other, ..open.clone() }), Grade::Failed);
        assert_eq!(grade(&SealStatus { initialized: false, threshold: 0, shares: 0, ..open }), Grade::Failed);
    }
}
