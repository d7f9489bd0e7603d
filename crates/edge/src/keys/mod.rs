//! The keys that a party keeps on its own disk.

mod age;
mod signing;

pub use self::age::{AgeIdentity, IDENTITY_FILE_MAX, IdentityError, OpenError, Recipient, RecipientError};
pub use self::signing::{KEY_FILE_MAX, KeyError, SigningKey};
