//! The share at rest: an age file, and beside it the salted digest by which its custodian knows it again.

use holdfast_core::id::ClusterId;
use holdfast_core::share::Share;

/// The lock "integrity": a share that came out of its age file and matched the digest recorded when it was installed.
pub struct SoundShare {
    cluster: ClusterId,
    share: Share,
}

impl SoundShare {
    /// The cluster that the share belongs to.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The share.
    pub fn share(&self) -> &Share {
        &self.share
    }
}
