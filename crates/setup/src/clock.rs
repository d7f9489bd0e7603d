//! The one place of this program that asks what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_core::time::Timestamp;

/// Now, by this host's clock; 1970 if it is set before that.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
