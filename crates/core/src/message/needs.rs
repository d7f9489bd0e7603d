//! What a custodian waits for, as its heartbeat says it.

use std::borrow::Cow;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// What a custodian waits for before it releases its share to a node that is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Needs {
    /// The node to answer.
    Contact,
    /// The cause to become known.
    Evidence,
    /// Approvals of that many operators.
    Approvals {
        /// How many distinct operators have approved.
        have: u8,
        /// How many it takes.
        need: u8,
    },
    /// The policy says `hold` for this cause: nobody may open it by this network.
    Policy,
    /// An operator's hold to be released.
    Hold,
    /// The budget of automatic openings is spent.
    Budget,
    /// Its own share is not sound, or cannot be read.
    Share,
    /// Its turn: others are submitting, or its own share was counted already.
    Others,
    /// Every set of shares was tried, and none opened the node.
    Generation,
}

/// [`Needs`] as it is written. serde's own reading of a tagged enum ignores what it does not know beside the tag.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireNeeds<'a> {
    #[serde(borrow)]
    what: Cow<'a, str>,
    have: Option<u8>,
    need: Option<u8>,
}

impl<'de> Deserialize<'de> for Needs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let WireNeeds { what, have, need } = WireNeeds::deserialize(from)?;
        let needs = match (&*what, have, need) {
            ("approvals", Some(have), Some(need)) => Self::Approvals { have, need },
            ("contact", None, None) => Self::Contact,
            ("evidence", None, None) => Self::Evidence,
            ("policy", None, None) => Self::Policy,
            ("hold", None, None) => Self::Hold,
            ("budget", None, None) => Self::Budget,
            ("share", None, None) => Self::Share,
            ("others", None, None) => Self::Others,
            ("generation", None, None) => Self::Generation,
            _ => return Err(D::Error::custom("needs is none of those that there are")),
        };
        Ok(needs)
    }
}
