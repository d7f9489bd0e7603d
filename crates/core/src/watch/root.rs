//! Which trust root a sentinel judges by in one cluster: the configured one, or the one that operators put in its place.
//!
//! A sentinel knows neither who the operators of a cluster are nor how many of them it takes; custodians do. So it follows them,
//! and yet takes nobody's word alone: it adopts a file that an operator signed, as an order that replaces the file in force
//! here, once so many custodians say that they judge by it as could open a node anyway.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::envelope::Envelope;
use crate::id::Principal;
use crate::message::{Content, Header, Heartbeat, Trust, Want};
use crate::orders::{self, Asked};
use crate::sshsig::PublicKey;
use crate::status::TrustVersion;
use crate::time::{Steady, Timestamp};
use crate::trust::{AllowedSigners, Namespace};

use super::held::Said;

/// How many files of one operator are kept until custodians say that they judge by one: more changes of a large trust root than
/// custodians pass on.
const FILES_PER_OPERATOR: usize = 8;

/// How many orders are remembered as heard, so that they are not asked for.
const HEARD_MAX: usize = 1024;

/// A trust root that operators put in the place of the configured one: to be kept until somebody replaces that file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustRoot {
    /// Its version.
    pub version: u32,
    /// SHA-256, in hexadecimal, of the configured file in whose place it is.
    pub configured_sha256: String,
    /// The file.
    pub allowed_signers: String,
}

impl TrustRoot {
    /// The file, parsed; `None` where it was damaged since it was kept.
    pub fn parsed(&self) -> Option<AllowedSigners> {
        AllowedSigners::parse(&self.allowed_signers).ok()
    }
}

#[derive(Debug)]
pub(super) struct Root {
    configured_sha256: String,
    adopted: Option<TrustRoot>,
    in_force_sha256: String,
    candidates: Vec<Candidate>,
    /// The digests of orders that came, whatever became of them.
    heard: BTreeSet<String>,
    asked: Asked,
    /// What is to be put in force and kept, not fetched yet; with `None`, the configured file.
    changed: Option<Option<TrustRoot>>,
}

/// A file that an operator wants to be in force.
#[derive(Debug)]
struct Candidate {
    from: Principal,
    key: PublicKey,
    issued_at: Timestamp,
    /// By which digest custodians name the order.
    order_sha256: String,
    file_sha256: String,
    trust: Trust,
}

impl Root {
    pub(super) fn new(configured_sha256: String) -> Self {
        Self {
            in_force_sha256: configured_sha256.clone(),
            configured_sha256,
            adopted: None,
            candidates: Vec::new(),
            heard: BTreeSet::new(),
            asked: Asked::default(),
            changed: None,
        }
    }

    /// Takes back what an earlier process kept, unless the configured file was replaced since: that counts more.
    pub(super) fn restore(&mut self, kept: TrustRoot) {
        match kept.parsed().filter(|_| kept.configured_sha256 == self.configured_sha256) {
            Some(_) => self.adopt(kept),
            None => self.changed = Some(None),
        }
    }

    /// The configured file was read again. One that was replaced is what somebody decided on this host, and counts.
    pub(super) fn reconfigure(&mut self, configured_sha256: String) {
        if configured_sha256 != self.configured_sha256 {
            *self = Self { changed: Some(None), ..Self::new(configured_sha256) };
        }
    }

    /// What is to be put in force and kept; with `None`, the configured file.
    pub(super) fn poll(&mut self) -> Option<Option<TrustRoot>> {
        self.changed.take()
    }

    pub(super) fn in_force(&self) -> TrustVersion {
        TrustVersion { version: self.version(), sha256: self.in_force_sha256.clone() }
    }

    /// An operator's order came, and its signature is good by the trust root in force.
    pub(super) fn hear(&mut self, header: &Header, content: &Content, envelope: &[u8]) {
        let order_sha256 = orders::digest(envelope);
        if self.heard.len() >= HEARD_MAX {
            self.heard.clear();
        }
        if !self.heard.insert(order_sha256.clone()) {
            return;
        }
        let (Content::Trust(trust), Ok(envelope)) = (content, Envelope::parse(envelope)) else { return };
        if trust.version <= self.version() || AllowedSigners::parse(&trust.allowed_signers).is_err() {
            return;
        }
        self.candidates.push(Candidate {
            from: header.from.clone(),
            key: envelope.signature().public_key().clone(),
            issued_at: header.issued_at,
            order_sha256,
            file_sha256: hex::encode(Sha256::digest(&trust.allowed_signers)),
            trust: trust.clone(),
        });
        self.forget_of(&header.from);
    }

    /// Adopts what so many custodians judge by as could open a node.
    pub(super) fn follow(&mut self, said: &[Said<'_>], threshold: u8, now: Timestamp) {
        while let Some(next) = self.next(said, usize::from(threshold.max(1))) {
            let Candidate { trust, .. } = self.candidates.swap_remove(next);
            let configured_sha256 = self.configured_sha256.clone();
            self.adopt(TrustRoot { version: trust.version, configured_sha256, allowed_signers: trust.allowed_signers });
            self.judge_again(now);
        }
    }

    /// What to ask this custodian for: it judges by a trust root of operators that is not in force here, and passes their orders on.
    pub(super) fn ask(&mut self, (custodian, beat): Said<'_>, now: Steady) -> Option<Want> {
        if beat.trust_version <= self.version() || beat.allowed_signers_sha256 == self.in_force_sha256 {
            return None;
        }
        let lacking = beat.orders.iter().filter(|sha256| !self.heard.contains(*sha256));
        self.asked.want(lacking, custodian, now)
    }

    fn version(&self) -> u32 {
        self.adopted.as_ref().map_or(0, |adopted| adopted.version)
    }

    /// The candidate that is to be in force next. Where some were missed, one after the other.
    fn next(&self, said: &[Said<'_>], threshold: usize) -> Option<usize> {
        let many = |says: &dyn Fn(&Heartbeat) -> bool| said.iter().filter(|(_, beat)| says(beat)).count() >= threshold;
        let fits = |(_, candidate): &(usize, &Candidate)| {
            let Candidate { trust, file_sha256, order_sha256, .. } = candidate;
            let judge_by_it =
                |beat: &Heartbeat| beat.trust_version == trust.version && beat.allowed_signers_sha256 == *file_sha256;
            // They were past it already, on the way to another file than ours, and pass it on: only what enough operators agreed
            // on is passed on.
            let went_on = |beat: &Heartbeat| {
                let past = beat.trust_version > trust.version && beat.allowed_signers_sha256 != self.in_force_sha256;
                past && beat.orders.contains(order_sha256)
            };
            trust.previous_sha256 == self.in_force_sha256
                && trust.version > self.version()
                && (many(&judge_by_it) || many(&went_on))
        };
        let fitting = self.candidates.iter().enumerate().filter(fits);
        // The latest that leads there: what was in between may have been undone since.
        fitting.max_by_key(|(_, candidate)| candidate.trust.version).map(|(place, _)| place)
    }

    fn adopt(&mut self, root: TrustRoot) {
        self.in_force_sha256 = hex::encode(Sha256::digest(&root.allowed_signers));
        self.adopted = Some(root.clone());
        self.changed = Some(Some(root));
    }

    /// Keeps of what waits only what was signed with keys that count by the trust root in force now.
    fn judge_again(&mut self, now: Timestamp) {
        let Some(trust) = self.adopted.as_ref().and_then(TrustRoot::parsed) else { return };
        let counts =
            |candidate: &Candidate| trust.authorise(&candidate.from, Namespace::Order, &candidate.key, now).is_ok();
        let version = self.version();
        self.candidates.retain(|candidate| candidate.trust.version > version && counts(candidate));
        self.asked = Asked::default();
    }

    /// Forgets an operator's oldest file where there are too many.
    fn forget_of(&mut self, operator: &Principal) {
        let theirs = || self.candidates.iter().enumerate().filter(|(_, candidate)| candidate.from == *operator);
        let oldest = theirs().min_by_key(|(_, candidate)| candidate.issued_at).map(|(place, _)| place);
        if let Some(oldest) = oldest.filter(|_| theirs().count() > FILES_PER_OPERATOR) {
            self.candidates.swap_remove(oldest);
        }
    }
}

#[cfg(test)]
mod tests;
