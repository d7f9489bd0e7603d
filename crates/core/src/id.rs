//! Names and ids: parsed once where they come in, and safe afterwards in routing keys, file names, patterns and labels.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::text;
use crate::time::Timestamp;

/// The longest name that is accepted, in bytes: a DNS label's length, so that host names fit.
pub const NAME_MAX: usize = 63;

/// Why a name or an id was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, longer than [`NAME_MAX`], or with a character outside `a-z 0-9 -`, or not starting with a letter or digit.
    #[error("{0:?} is not a name: 1 to 63 of a-z, 0-9 and '-', starting with a letter or a digit")]
    Name(String),
    /// Not 32 lower-case hexadecimal digits.
    #[error("{0:?} is not an id: 32 lower-case hexadecimal digits")]
    Id(String),
    /// Neither a time nor an id.
    #[error(
        "{0:?} is not what a drill is held for: a time in RFC 3339, like 2026-11-22T10:00:00.000Z, or an order's id"
    )]
    Slot(String),
}

fn shorten(text: &str) -> String {
    text.chars().take(NAME_MAX + 1).collect()
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
                let rest = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
                if first && rest && text.len() <= NAME_MAX {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(NameError::Name(shorten(text)))
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                text::parsed(from)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// Somebody who signs: a custodian, a sentinel, a conductor or an operator. Literal, never a pattern.
    Principal
);
name!(
    /// One Vault server process of a cluster, as the configuration names it.
    NodeName
);
name!(
    /// A cluster, as this party's configuration names it. On the wire it is the [`ClusterId`] that counts.
    ClusterName
);
name!(
    /// A place where hosts stand and fail together, as an enrollment and a configuration name it.
    Site
);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(into = "String")]
        pub struct $name([u8; 16]);

        impl $name {
            /// An id made of 16 random bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let refused = || NameError::Id(shorten(text));
                if text.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(refused());
                }
                let mut bytes = [0; 16];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| refused())?;
                Ok(Self(bytes))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                text::parsed(from)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                hex::encode(id.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(
    /// The random id that a cluster's manifest gives it, and that every message about the cluster names.
    ClusterId
);
id!(
    /// The random id of one message.
    MessageId
);
id!(
    /// One custodian's own id for one incident of one node.
    IncidentId
);

id!(
    /// The random id that a conductor gives a drill.
    DrillId
);

/// What a drill is held for: the time of a schedule, as RFC 3339, or the id of an operator's order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct SlotId(String);

impl SlotId {
    /// A schedule's time.
    pub fn of_time(at: Timestamp) -> Self {
        Self(at.to_string())
    }

    /// An operator's order.
    pub fn of_order(id: MessageId) -> Self {
        Self(id.to_string())
    }

    /// The schedule's time; `None` for an order.
    pub fn time(&self) -> Option<Timestamp> {
        self.0.parse().ok()
    }
}

impl FromStr for SlotId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let known = text.parse::<Timestamp>().is_ok() || text.parse::<MessageId>().is_ok();
        if known { Ok(Self(text.to_owned())) } else { Err(NameError::Slot(shorten(text))) }
    }
}

impl<'de> Deserialize<'de> for SlotId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        text::parsed(from)
    }
}

impl From<SlotId> for String {
    fn from(slot: SlotId) -> String {
        slot.0
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_everywhere_or_refused() {
        for good in ["a", "custodian-1", "0", &"x".repeat(NAME_MAX)] {
            assert_eq!(good.parse::<Principal>().expect(good).as_str(), good);
        }
        for bad in ["", "-a", "A", "a.b", "a/b", "a*", "ä", "a b", "a\n", &"x".repeat(NAME_MAX + 1)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ids_have_one_spelling() {
        let text = "00112233445566778899aabbccddeeff";
        assert_eq!(text.parse::<ClusterId>().expect("good").to_string(), text);
        for bad in ["", "00", &text.to_uppercase(), &format!("{text}00")] {
            assert!(bad.parse::<MessageId>().is_err(), "{bad:?}");
        }
    }
}
