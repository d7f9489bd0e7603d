//! The keys that a party keeps on its own disk.

mod signing;

pub use self::signing::{KEY_FILE_MAX, KeyError, SigningKey};
