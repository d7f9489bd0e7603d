//! The vault edge against hostile servers, over real TLS and real sockets. Unit tests, because they make the locks.

mod impostor;
mod real;
mod refusals;
mod submission;
mod tickets;

use std::time::{Duration, Instant};

use holdfast_core::id::{ClusterId, IncidentId};
use holdfast_core::release::{Attempt, ReleaseOrder, Revocation};
use holdfast_core::share::{SHARE_LEN, Share};
use holdfast_core::time::Steady;

use self::impostor::Impostor;
use super::release::{Answer, Expected, ReleaseError, prove};
use super::{Deadlines, NodeIdentity};
use crate::audit::Recorded;
use crate::store::SoundShare;

pub(super) const CLUSTER: ClusterId = ClusterId::from_bytes([0xc1; 16]);
pub(super) const EXPECTED: Expected = Expected { threshold: 3, shares: 5 };
pub(super) const NOW: Steady = Steady::from_start(Duration::from_secs(1000));

/// What a sealed node of the cluster says.
pub(super) const SEALED: &str =
    r#"{"type":"shamir","initialized":true,"sealed":true,"t":3,"n":5,"progress":1,"nonce":"3f1c"}"#;

/// A deadline that some server here uses up. All others are the programs' own, so that a busy machine fails no test.
pub(super) const SHORT: Duration = Duration::from_millis(500);

/// The longest that one release may take: every deadline on its way used up, and some more for a busy machine.
const ALL_DEADLINES: Duration = Duration::from_secs(35);

/// A share whose every part is easy to tell from anything else.
pub(super) const SHARE: [u8; SHARE_LEN] =
    *b"\xf7\x9eMY\x8a\xe3SEC\xd1\xb5\x93RET\xf0\x9d\xab\xcd\xefOFNO\xfb\xffONE\xeeVE\x04";

pub(super) fn attempt() -> Attempt {
    let node = "vault-1".parse().expect("a name");
    Attempt { cluster: CLUSTER, node, incident: IncidentId::from_bytes([7; 16]), round: 0 }
}

pub(super) fn order() -> ReleaseOrder {
    ReleaseOrder::forged(attempt(), attempt(), NOW + Duration::from_secs(60), Revocation::default())
}

pub(super) fn sound_share(cluster: ClusterId) -> SoundShare {
    SoundShare::for_test(cluster, Share::from_bytes(&SHARE).expect("well formed"))
}

/// All three steps, with all six locks as they should be.
async fn release(identity: &NodeIdentity) -> Result<Answer, ReleaseError> {
    let sealed = prove(identity).await?.check(EXPECTED).await?;
    sealed.submit(order(), sound_share(CLUSTER), Recorded::for_test(attempt()), NOW).await
}

/// A release to an impostor: refused in time, and nothing of the share has left.
async fn refused(identity: &NodeIdentity, impostor: &Impostor) -> ReleaseError {
    let started = Instant::now();
    let error = release(identity).await.expect_err("released to an impostor");
    assert!(started.elapsed() < ALL_DEADLINES, "{error} only after {:?}", started.elapsed());
    impostor.saw_no_share();
    error
}
