//! How many custodians could open each node of a cluster right now, and whether they agree on what they go by.
//!
//! Pure: heartbeats in, numbers out. They are for people and alerts; nothing is released by them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{NodeName, Principal, Site};
use crate::message::Heartbeat;
use crate::time::{Now, Timestamp};

/// How long a heartbeat speaks for its custodian: two may be lost of those that come every ten seconds, and a third may be late.
pub const FRESH: Duration = Duration::from_secs(35);

/// How old a heartbeat may be by its own date when it comes. What waited longer at the broker says how it was, not how it is.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// The last heartbeat of one custodian.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// What it said.
    pub heartbeat: Heartbeat,
    /// When it was signed, by the custodian's clock.
    pub issued_at: Timestamp,
    /// When it came.
    pub at: Now,
}

impl Heard {
    /// Whether it still speaks for its custodian.
    pub fn is_fresh(&self, now: Now) -> bool {
        now.steady.since(self.at.steady) <= FRESH && self.at.wall.since(self.issued_at) <= DELAY_MAX
    }

    /// By how many milliseconds the custodian's clock is ahead of ours, at least: the message's way counts against it.
    pub fn clock_offset_millis(&self) -> i64 {
        self.issued_at.as_millis().saturating_sub(self.at.wall.as_millis())
    }
}

/// What is known of a cluster without asking anybody.
#[derive(Debug, Clone, Copy)]
pub struct Basis<'a> {
    /// How many shares open a node.
    pub threshold: u8,
    /// The generation that our manifest names.
    pub generation: u32,
    /// The nodes that we know.
    pub nodes: &'a BTreeSet<NodeName>,
}

/// How a cluster's custodians stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quorum {
    /// Distinct shares that are ready, for the node with the fewest.
    pub ready: u32,
    /// `ready` minus the threshold: below zero, the network cannot open a node of this cluster.
    pub margin: i32,
    /// The margin after the loss of the site whose loss costs most. A custodian that names no site is lost alone.
    pub margin_without_largest_site: i32,
    /// Distinct shares that are ready, by node.
    pub ready_by_node: BTreeMap<NodeName, u32>,
    /// The same without custodians that obey a hold on the node.
    pub unheld_by_node: BTreeMap<NodeName, u32>,
    /// Whose policy, trust root or threshold is not what most others have. Where no side is the larger, all of them.
    pub diverged: BTreeSet<Principal>,
    /// Whether shares of several generations are reported, or of another than our manifest names.
    pub generation_mismatch: bool,
}

/// Judges the heartbeats that still speak for their custodians.
pub fn assess(basis: Basis<'_>, heard: &BTreeMap<&Principal, &Heard>, now: Now) -> Quorum {
    let fresh: Vec<_> = heard.iter().filter(|(_, h)| h.is_fresh(now)).map(|(name, h)| (*name, &h.heartbeat)).collect();
    let ready_by_node: BTreeMap<_, _> = basis.nodes.iter().map(|node| (node.clone(), ready(&fresh, node))).collect();
    let unheld = |node: &NodeName| {
        let left: Vec<_> =
            fresh.iter().copied().filter(|(_, beat)| !beat.holds.iter().any(|h| h.covers(node))).collect();
        (node.clone(), ready(&left, node))
    };
    let without = |place: Place| {
        let left: Vec<_> = fresh.iter().copied().filter(|custodian| place_of(*custodian) != place).collect();
        basis.nodes.iter().map(|node| ready(&left, node)).min().unwrap_or(0)
    };
    let places: BTreeSet<_> = fresh.iter().map(|custodian| place_of(*custodian)).collect();
    let least = places.into_iter().map(without).min();
    let ready = ready_by_node.values().copied().min().unwrap_or(0);
    // 255 at most: x is a byte and never 0.
    let margin = |ready: u32| i32::try_from(ready).unwrap_or(i32::MAX) - i32::from(basis.threshold);
    Quorum {
        ready,
        margin: margin(ready),
        margin_without_largest_site: margin(least.unwrap_or(ready)),
        ready_by_node,
        unheld_by_node: basis.nodes.iter().map(unheld).collect(),
        diverged: diverged(basis, &fresh),
        generation_mismatch: fresh.iter().any(|(_, beat)| beat.share.generation != basis.generation),
    }
}

type Fresh<'a> = (&'a Principal, &'a Heartbeat);

/// What is lost as one: a site, or a custodian that names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place<'a> {
    Site(&'a Site),
    Alone(&'a Principal),
}

fn place_of<'a>((name, beat): Fresh<'a>) -> Place<'a> {
    beat.site.as_ref().map_or(Place::Alone(name), Place::Site)
}

/// How many distinct shares of one generation are ready for `node`.
fn ready(fresh: &[Fresh<'_>], node: &NodeName) -> u32 {
    let mut shares: BTreeMap<u32, BTreeSet<u8>> = BTreeMap::new();
    for (_, beat) in fresh {
        let ready = beat.nodes.get(node).is_some_and(|report| report.ready);
        if let (true, Some(x)) = (ready, beat.share.x) {
            shares.entry(beat.share.generation).or_default().insert(x);
        }
    }
    shares.values().map(|xs| u32::try_from(xs.len()).unwrap_or(u32::MAX)).max().unwrap_or(0)
}

fn diverged(basis: Basis<'_>, fresh: &[Fresh<'_>]) -> BTreeSet<Principal> {
    let mut diverged = outvoted(fresh, |beat| beat.policy_sha256.as_str());
    diverged.extend(outvoted(fresh, |beat| beat.allowed_signers_sha256.as_str()));
    let other_threshold = fresh.iter().filter(|(_, beat)| beat.threshold != basis.threshold);
    diverged.extend(other_threshold.map(|(name, _)| (*name).clone()));
    diverged
}

/// Who does not say what most say. Everybody, where most say nothing in common.
fn outvoted<'a>(fresh: &[Fresh<'a>], says: impl Fn(&'a Heartbeat) -> &'a str) -> BTreeSet<Principal> {
    let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, beat) in fresh {
        *votes.entry(says(beat)).or_default() += 1;
    }
    let most = votes.values().copied().max().unwrap_or(0);
    let mut leading = votes.iter().filter(|(_, count)| **count == most).map(|(text, _)| *text);
    let agreed = match (leading.next(), leading.next()) {
        (Some(text), None) => Some(text),
        _ => None,
    };
    fresh.iter().filter(|(_, beat)| Some(says(beat)) != agreed).map(|(name, _)| (*name).clone()).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::message::{AuditReport, NodeReport, SandboxPart, Seen, ShareReport};
    use crate::time::Steady;

    pub(crate) fn heartbeat(x: u8, nodes: &[(&str, bool)]) -> Heartbeat {
        let report = |ready| NodeReport {
            seen: Seen::Open,
            since: Timestamp::default(),
            ready,
            cause: None,
            needs: None,
            marker: None,
            marker_by: None,
            in_flight: false,
            budget_remaining: 12,
            budget_frees_at: None,
            certificate_not_after: None,
            shared_address: false,
            restart_provable: true,
            identity_refused: None,
        };
        Heartbeat {
            version: "0.1.0".to_owned(),
            site: None,
            started_at: Timestamp::default(),
            share: ShareReport { generation: 1, x: Some(x), ok: true },
            threshold: 3,
            sandboxed: true,
            sandbox: SandboxPart::ALL.into(),
            clock_synchronised: true,
            audit: AuditReport { seq: 1, head: String::new(), ok: true, broken: None },
            policy_sha256: "policy".to_owned(),
            allowed_signers_sha256: "signers".to_owned(),
            trust_version: 0,
            holds: Vec::new(),
            waiting: Vec::new(),
            distrusted: Vec::new(),
            orders: Vec::new(),
            nodes: nodes.iter().map(|(name, ready)| (name.parse().expect("a name"), report(*ready))).collect(),
            next_drill: None,
            rejected: BTreeMap::new(),
            submissions: BTreeMap::new(),
        }
    }

    fn at(seconds: u64) -> Now {
        let elapsed = Duration::from_secs(seconds);
        Now { steady: Steady::from_start(elapsed), wall: Timestamp::default().after(elapsed) }
    }

    fn heard(beats: impl IntoIterator<Item = Heartbeat>) -> BTreeMap<Principal, Heard> {
        let name = |i: usize| format!("custodian-{}", i + 1).parse().expect("a name");
        let heard = |heartbeat| Heard { heartbeat, issued_at: at(100).wall, at: at(100) };
        beats.into_iter().enumerate().map(|(i, beat)| (name(i), heard(beat))).collect()
    }

    fn judged(heard: &BTreeMap<Principal, Heard>, now: Now) -> Quorum {
        let nodes = ["vault-1", "vault-2"].map(|name| name.parse().expect("a name")).into();
        assess(Basis { threshold: 3, generation: 1, nodes: &nodes }, &heard.iter().collect(), now)
    }

    fn both(x: u8) -> Heartbeat {
        heartbeat(x, &[("vault-1", true), ("vault-2", true)])
    }

    #[test]
    fn the_margin_is_that_of_the_worst_node_and_counts_shares_not_custodians() {
        assert_eq!((judged(&heard([]), at(100)).ready, judged(&heard([]), at(100)).margin), (0, -3));
        let all = judged(&heard((1..=5).map(both)), at(100));
        assert_eq!((all.ready, all.margin, all.margin_without_largest_site), (5, 2, 1));
        let worse = heartbeat(5, &[("vault-1", true), ("vault-2", false)]);
        let one_node = judged(&heard((1..=4).map(both).chain([worse])), at(100));
        assert_eq!((one_node.ready, one_node.margin), (4, 1));
        assert_eq!(one_node.ready_by_node.values().copied().collect::<Vec<_>>(), [5, 4]);
        let a_node_left_out = judged(&heard([heartbeat(1, &[("vault-1", true)])]), at(100));
        assert_eq!(a_node_left_out.ready, 0);
        let same_share = judged(&heard([both(1), both(1), both(2)]), at(100));
        assert_eq!((same_share.ready, same_share.margin), (2, -1));
        let no_share = Heartbeat { share: crate::message::ShareReport { x: None, ..both(1).share }, ..both(1) };
        assert_eq!(judged(&heard([no_share]), at(100)).ready, 0);
    }

    #[test]
    fn silence_and_old_news_do_not_count() {
        let mut heard = heard((1..=3).map(both));
        assert_eq!(judged(&heard, at(135)).margin, 0);
        assert_eq!(judged(&heard, at(136)).margin, -3);
        let late = heard.values_mut().next().expect("three");
        late.issued_at = at(39).wall;
        assert_eq!(late.clock_offset_millis(), -61_000);
        assert_eq!(judged(&heard, at(100)).margin, -1);
    }

    #[test]
    fn the_site_whose_loss_costs_most_is_left_out() {
        let site = |x, site: &str| Heartbeat { site: Some(site.parse().expect("a name")), ..both(x) };
        let sites = judged(&heard([site(1, "a"), site(2, "a"), site(3, "a"), site(4, "b"), both(5)]), at(100));
        assert_eq!((sites.margin, sites.margin_without_largest_site), (2, -1));
        let idle = Heartbeat { site: "a".parse().ok(), ..heartbeat(1, &[]) };
        let larger_but_idle = judged(&heard([idle.clone(), idle, site(3, "b"), both(4), both(5)]), at(100));
        assert_eq!((larger_but_idle.margin, larger_but_idle.margin_without_largest_site), (0, -1));
    }

    #[test]
    fn who_goes_by_something_else_is_named() {
        let names = |quorum: Quorum| quorum.diverged.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let policy = |x, text: &str| Heartbeat { policy_sha256: text.to_owned(), ..both(x) };
        assert_eq!(names(judged(&heard((1..=3).map(both)), at(100))), "");
        assert_eq!(names(judged(&heard([both(1), policy(2, "other"), both(3)]), at(100))), "custodian-2");
        assert_eq!(names(judged(&heard([both(1), policy(2, "other")]), at(100))), "custodian-1 custodian-2");
        let signers = Heartbeat { allowed_signers_sha256: "other".to_owned(), ..both(3) };
        let threshold = Heartbeat { threshold: 2, ..both(4) };
        let two = judged(&heard([both(1), both(2), signers, threshold]), at(100));
        assert_eq!(names(two), "custodian-3 custodian-4");
    }

    #[test]
    fn shares_of_two_generations_do_not_add_up() {
        let next = |x| Heartbeat { share: crate::message::ShareReport { generation: 2, ..both(x).share }, ..both(x) };
        let mixed = judged(&heard([both(1), both(2), next(3), next(4), next(5)]), at(100));
        assert_eq!((mixed.ready, mixed.margin, mixed.generation_mismatch), (3, 0, true));
        assert!(!judged(&heard((1..=3).map(both)), at(100)).generation_mismatch);
    }
}
