//! The keys that a party keeps on its own disk, and those that people hold elsewhere.

mod age;
#[cfg(feature = "operator")]
mod agent;
#[cfg(feature = "operator")]
mod operator;
mod signing;

pub use self::age::{AgeIdentity, IDENTITY_FILE_MAX, IdentityError, OpenError, Recipient, RecipientError};
#[cfg(feature = "operator")]
pub use self::agent::{AgentError, AgentKey};
#[cfg(feature = "operator")]
pub use self::operator::{LockedKey, OperatorKey, PassphraseError, agent_socket};
pub use self::signing::{KEY_FILE_MAX, KeyError, Sign, SignError, SigningKey};
