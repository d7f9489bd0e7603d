//! Who submits, and in which order: only `t` shares should travel.
//!
//! Every custodian computes the same order by rendezvous hashing over cluster, node and a coarse time bucket, so that no
//! word needs to be exchanged and the work moves round. The first `t` submit at once; the others stand by. When a set of
//! shares does not fit together, the next set in a fixed order over all subsets is tried, until a sound one is found or
//! all have been: then no share is judged, the whole generation does not fit (docs/SECURITY.md, "Bad shares").

use sha2::{Digest, Sha256};
use std::time::Duration;

use crate::id::{ClusterId, NodeName, Principal};
use crate::time::Timestamp;

/// How long an order stays the same: long enough that clocks a few seconds apart rarely disagree.
const BUCKET: Duration = Duration::from_secs(3600);

/// The time between one stand-by's turn and the next one's.
pub const STANDBY_STEP: Duration = Duration::from_millis(150);

/// The most sets that are tried in one incident, however many there are: each may cost a stand-by's wait.
pub const ROUNDS_MAX: u32 = 64;

/// The custodians of a cluster in the order in which they submit to this node at this time, first first. Those that `fit`
/// refuses (known to be silent or not ready) come after all others, in the same order among themselves.
pub fn order<'a>(
    cluster: ClusterId,
    node: &NodeName,
    at: Timestamp,
    custodians: impl IntoIterator<Item = &'a Principal>,
    fit: impl Fn(&Principal) -> bool,
) -> Vec<&'a Principal> {
    let bucket = at.as_millis().div_euclid(BUCKET.as_millis() as i64);
    let score = |custodian: &Principal| -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [b"holdfast ranking v1".as_slice(), cluster.as_bytes(), node.as_str().as_bytes()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(bucket.to_be_bytes());
        hash.update(custodian.as_str());
        hash.finalize().into()
    };
    let mut ranked: Vec<_> = custodians.into_iter().map(|c| (!fit(c), score(c), c)).collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, _, custodian)| custodian).collect()
}

/// How many rounds there are: one for each set of `threshold` out of `custodians`, at most [`ROUNDS_MAX`]. Where custodians are
/// fewer than that, holders have to bring the rest by hand, and the one round is that of all custodians.
pub fn rounds(custodians: usize, threshold: usize) -> u32 {
    choose(custodians as u64, threshold as u64).clamp(1, u64::from(ROUNDS_MAX)) as u32
}

/// The positions, in the order of [`order`], whose shares are tried in this round: subsets in lexicographic order, so that
/// round 0 is the first `threshold`, and each later one changes as late a position as it can.
pub fn set(custodians: usize, threshold: usize, round: u32) -> Vec<usize> {
    let threshold = threshold.min(custodians);
    let mut left = u64::from(round);
    let mut set = Vec::with_capacity(threshold);
    let mut position = 0;
    while set.len() < threshold && position < custodians {
        let with_this_one = choose((custodians - position - 1) as u64, (threshold - set.len() - 1) as u64);
        if left < with_this_one {
            set.push(position);
        } else {
            left -= with_this_one;
        }
        position += 1;
    }
    set
}

/// How long the custodian at `position` waits in this round before it submits: not at all in the round's set, else longer
/// the later its turn is.
pub fn delay(custodians: usize, threshold: usize, round: u32, position: usize) -> Duration {
    let set = set(custodians, threshold, round);
    if set.contains(&position) {
        return Duration::ZERO;
    }
    let others_before = (0..position).filter(|p| !set.contains(p)).count() as u32;
    STANDBY_STEP.saturating_mul(others_before + 1)
}

fn choose(n: u64, k: u64) -> u64 {
    if k > n {
        return 0;
    }
    (0..k.min(n - k)).fold(1u64, |product, i| product.saturating_mul(n - i) / (i + 1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(n: usize) -> Vec<Principal> {
        (1..=n).map(|i| format!("custodian-{i}").parse().expect("a name")).collect()
    }

    #[test]
    fn the_order_is_the_same_for_all_and_moves_with_node_and_time() {
        let custodians = names(5);
        let cluster = ClusterId::from_bytes([1; 16]);
        let node: NodeName = "vault-1".parse().expect("a name");
        let at = Timestamp::from_millis(1_795_341_600_000);
        let first = order(cluster, &node, at, &custodians, |_| true);
        let backwards: Vec<_> = custodians.iter().rev().collect();
        assert_eq!(order(cluster, &node, at, backwards, |_| true), first);
        assert_eq!(order(cluster, &node, at.after(Duration::from_secs(1)), &custodians, |_| true), first);
        let firsts: BTreeSet<_> = (0..200)
            .map(|hour| order(cluster, &node, at.after(BUCKET * hour), &custodians, |_| true)[0].clone())
            .collect();
        assert_eq!(firsts.len(), 5, "in time everybody's turn comes");
    }

    #[test]
    fn the_unfit_come_last_but_are_never_left_out() {
        let custodians = names(5);
        let node: NodeName = "vault-1".parse().expect("a name");
        let unfit = &custodians[2];
        let ranked = order(ClusterId::from_bytes([1; 16]), &node, Timestamp::default(), &custodians, |c| c != unfit);
        assert_eq!(ranked.len(), 5);
        assert_eq!(ranked[4], unfit);
    }

    #[test]
    fn the_rounds_go_through_every_set_once() {
        for (n, t) in [(5, 3), (3, 2), (5, 5), (7, 4)] {
            let all: BTreeSet<_> = (0..rounds(n, t)).map(|round| set(n, t, round)).collect();
            assert_eq!(all.len() as u64, choose(n as u64, t as u64).min(u64::from(ROUNDS_MAX)));
            assert!(all.iter().all(|set| set.len() == t && set.windows(2).all(|w| w[0] < w[1])));
            assert_eq!(set(n, t, 0), (0..t).collect::<Vec<_>>());
        }
        assert_eq!(rounds(255, 128), ROUNDS_MAX);
    }

    #[test]
    fn where_people_have_to_help_all_custodians_submit_at_once() {
        for (n, t) in [(1, 3), (2, 3), (4, 5)] {
            assert_eq!((rounds(n, t), set(n, t, 0)), (1, (0..n).collect()));
            assert!((0..n).all(|position| delay(n, t, 0, position).is_zero()));
        }
    }

    #[test]
    fn stand_bys_take_turns() {
        let delays: Vec<_> = (0..5).map(|position| delay(5, 3, 0, position)).collect();
        assert_eq!(delays, [Duration::ZERO, Duration::ZERO, Duration::ZERO, STANDBY_STEP, STANDBY_STEP * 2]);
    }
}
