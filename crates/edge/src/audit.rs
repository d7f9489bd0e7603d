//! The audit log: JSON Lines, each with the digest of the one before, on disk before the thing it tells of happens.

use holdfast_core::release::Attempt;

/// The lock "record": the entry of this attempt is in the audit log and on disk.
#[derive(Debug)]
pub struct Recorded {
    attempt: Attempt,
}

impl Recorded {
    /// What was recorded.
    pub fn attempt(&self) -> &Attempt {
        &self.attempt
    }
}
