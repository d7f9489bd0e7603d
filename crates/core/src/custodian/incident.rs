//! One incident of one node: the rounds that were tried, the attempt that runs, and when the next try is due.
//!
//! What is here is bookkeeping about shares in flight. What is not: whether a share may be released at all, which is `node`'s.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::cause::Cause;
use crate::id::IncidentId;
use crate::message::Lock;
use crate::release::Revocation;
use crate::seal_status::SealStatus;
use crate::time::{Now, Steady};

/// How long an attempt may stand still before it is reset; doubled with each reset, up to [`STALL_MAX`].
pub(super) const STALL: Duration = Duration::from_secs(10);

/// An attempt that ends after it stood still for this long was reset, and no set of shares failed: stand-bys come sooner.
const STOOD_STILL: Duration = Duration::from_secs(5);

/// The first wait after a release that came to nothing; doubled each time, up to [`RETRY_MAX`].
pub(super) const RETRY: Duration = Duration::from_millis(250);

/// The longest wait between two tries.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How many nonces of attempts that ended are remembered: news of one comes seconds later at most.
const NONCES_KEPT: usize = 16;

/// How often the sets are gone through before the tries come more slowly: while rounds change quickly, a share of the round
/// before can still get into the next one's set.
pub(super) const FAST_CYCLES: u32 = 4;

#[derive(Debug)]
pub(super) struct Incident {
    pub(super) id: IncidentId,
    pub(super) began: Now,
    pub(super) sealed: Option<Now>,
    pub(super) cause: Option<Cause>,
    pub(super) round: u32,
    pub(super) tried: Tried,
    /// That the node refused a set to this custodian, and nobody else can know: a new attempt is begun at once, in or out of
    /// turn, because its nonce is what tells the others.
    pub(super) tell_by_trying: bool,
    pub(super) counted: bool,
    /// An order that was given out and has not come back.
    pub(super) releasing: Option<Revocation>,
    pub(super) submitted: Option<Submitted>,
    /// Whether the share left in this incident, and no set with it is known to have failed since.
    pub(super) sent: bool,
    /// Since when nothing permits an opening, although the share left.
    pub(super) lapsed: Option<Steady>,
    /// That this custodian's share may be pending although nothing permits it any more.
    pub(super) withdrawal: Option<Withdrawal>,
    /// When a node took the last share of a set and did not open yet.
    pub(super) completed: Option<Steady>,
    pub(super) eligible: Option<Steady>,
    pub(super) progress: Progress,
    pub(super) stall: Duration,
    pub(super) retry_at: Option<Steady>,
    pub(super) retry: Duration,
    pub(super) refused: Option<(Lock, String)>,
}

#[derive(Debug)]
pub(super) struct Submitted {
    pub(super) nonce: String,
    pub(super) at: Steady,
}

/// A share that is being called back: the node is reset until it held no share for its time, or resets came through for longer
/// than a share can be late.
#[derive(Debug, Default)]
pub(super) struct Withdrawal {
    pub(super) reset: Option<Steady>,
    /// The nonce of the attempt that ran when the node was last reset; empty if none did.
    pub(super) held: String,
    /// When another attempt than that, or none, was first seen: the reset came through.
    pub(super) worked: Option<Steady>,
    pub(super) empty_since: Option<Steady>,
}

/// What is known of sets of shares that did not open the node.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// The nonce of the last attempt that was seen; empty where what became of it is no secret.
    pub(super) running: String,
    /// The nonces of attempts that ended, the latest [`NONCES_KEPT`]: several may tell of the same one.
    pub(super) ended: VecDeque<String>,
    /// How often the node itself said of a round's set, counted around, that it does not fit together.
    pub(super) failed: BTreeMap<u32, u8>,
}

#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) shares: u8,
    pub(super) nonce: String,
    pub(super) since: Steady,
}

impl Incident {
    pub(super) fn see_progress(&mut self, status: &SealStatus, rounds: u32, now: Steady) {
        let before = &self.progress;
        if (before.shares, &before.nonce) == (status.progress, &status.nonce) {
            return;
        }
        let stood_still = now.since(before.since) >= STOOD_STILL;
        if status.progress > before.shares {
            // Others are at it: no reason to wait any longer.
            self.retry_at = None;
        }
        self.progress = Progress { shares: status.progress, nonce: status.nonce.clone(), since: now };
        if status.progress == 0 && stood_still {
            // Nobody completed the set: somebody reset it, because it stood still.
            self.submitted = None;
            self.tried.running.clear();
        } else if status.progress == 0 {
            // Somebody completed a set. It may still be opening; what became of it will be seen or told.
            self.completed.get_or_insert(now);
        } else if self.tried.began(&status.nonce) {
            // Whoever began another attempt knows what became of the one before: it did not open the node.
            self.next_round(rounds, now);
        }
    }

    /// An operator wants it: what was tried before, and how long to wait after it, counts no more.
    pub(super) fn start_over(&mut self) {
        if self.round > 0
            && let Some(order) = self.releasing.take()
        {
            order.revoke();
        }
        self.round = 0;
        self.tried.failed.clear();
        self.completed = None;
        self.retry_at = None;
        self.retry = RETRY;
        self.stall = STALL;
    }

    /// The share left, and the node may hold it: what was done to call back an earlier one counts no more.
    pub(super) fn note_sent(&mut self) {
        self.sent = true;
        if let Some(withdrawal) = &mut self.withdrawal {
            *withdrawal = Withdrawal::default();
        }
    }

    /// Since when this custodian's share, or a whole set, was taken and is in no attempt any more.
    pub(super) fn ended_since(&self) -> Option<Steady> {
        let vanished = || {
            let submitted = self.submitted.as_ref().filter(|_| self.progress.shares == 0)?;
            Some(submitted.at.max(self.progress.since))
        };
        self.completed.or_else(vanished)
    }

    /// Since when an attempt with this custodian's share in it has been as it is. A share that waited for it before was there
    /// first, and is not to blame.
    pub(super) fn stands_since(&self) -> Option<Steady> {
        let counted_in = |s: &&Submitted| self.progress.shares > 0 && s.nonce == self.progress.nonce;
        Some(self.submitted.as_ref().filter(counted_in)?.at.max(self.progress.since))
    }

    /// The node said of the set of shares that was tried in `round` that it does not fit together.
    pub(super) fn fail(&mut self, round: u32, nonce: &str, rounds: u32, now: Steady) {
        let failures = self.tried.failed.entry(round % rounds.max(1)).or_default();
        *failures = failures.saturating_add(1);
        // Nobody is that far ahead: a liar could skip every set.
        if self.tried.is_news(nonce) && self.round <= round && round - self.round < rounds {
            self.round = round;
            self.next_round(rounds, now);
        }
    }

    /// Contact was lost. If it is another process that answers next, then it holds no share of the attempt that ran; if it is
    /// the same, then the same share once more changes nothing.
    pub(super) fn lose_contact(&mut self) {
        self.submitted = None;
        self.completed = None;
        self.retry_at = None;
        if let Some(withdrawal) = &mut self.withdrawal {
            (withdrawal.worked, withdrawal.empty_since) = (None, None);
            withdrawal.held.clear();
        }
        self.progress.shares = 0;
        self.progress.nonce.clear();
        self.tried.running.clear();
    }

    /// Whether the attempt with this nonce was one of the process to which the kept connection leads.
    pub(super) fn knows(&self, nonce: &str) -> bool {
        !nonce.is_empty() && self.tried.running == nonce
    }

    /// The set of shares that was tried did not open the node: the next one is tried. Around and around, ever slower: what
    /// strangers spoil must not count as having been tried.
    pub(super) fn next_round(&mut self, rounds: u32, now: Steady) {
        self.round += 1;
        self.sent = false;
        self.submitted = None;
        self.completed = None;
        self.eligible = None;
        if let Some(order) = self.releasing.take() {
            // A share of the round that is over would spoil the set of the next.
            order.revoke();
        }
        if self.round < FAST_CYCLES * rounds {
            self.retry_at = None;
            self.retry = RETRY;
        } else {
            self.wait(now);
        }
    }

    /// Waits before the next try, longer each time.
    pub(super) fn wait(&mut self, now: Steady) {
        self.retry_at = Some(now + self.retry);
        self.retry = (self.retry * 2).min(RETRY_MAX);
    }
}

impl Tried {
    /// Notes that the attempt with this nonce runs, and whether the end of another is news.
    pub(super) fn began(&mut self, nonce: &str) -> bool {
        let before = std::mem::replace(&mut self.running, nonce.to_owned());
        !before.is_empty() && before != nonce && self.is_news(&before)
    }

    /// Notes the end of the attempt with this nonce, and whether that is news.
    pub(super) fn is_news(&mut self, nonce: &str) -> bool {
        if self.ended.iter().any(|known| known == nonce) {
            return false;
        }
        if !nonce.is_empty() {
            self.ended.push_back(nonce.to_owned());
        }
        if self.ended.len() > NONCES_KEPT {
            self.ended.pop_front();
        }
        true
    }
}
