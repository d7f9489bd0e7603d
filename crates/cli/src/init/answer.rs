//! What the Vault answered to the initialisation, and that it is what was asked for.

use base64::prelude::{BASE64_STANDARD, Engine};
use holdfast_core::ceremony::CeremonyError;
use holdfast_edge::files::{self, FileError, SECRET_MODE};
use serde::Deserialize;

use super::directory::Directory;
use super::journal::Ceremony;
use super::parcels::Parcels;

/// The answer of `PUT /v1/sys/init`, each message matched with the one it is encrypted to.
pub(super) struct Answer {
    parcels: Parcels,
    root_token: Vec<u8>,
}

/// Why an answer is not what was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    /// Not JSON, or without shares or root token.
    #[error("it is not an init answer: {0}")]
    Malformed(String),
    /// Another number of shares.
    #[error("it has {found} shares, and {expected} were asked for")]
    Shares {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: u8,
    },
    /// A share that is not encrypted to anybody here. The share itself is not repeated.
    #[error("no share in it is encrypted to {0} alone")]
    Missing(String),
    /// The root token is not encrypted to its key.
    #[error("the root token in it is not encrypted to the root token key")]
    RootToken,
    /// The files contradict themselves.
    #[error(transparent)]
    Ceremony(#[from] CeremonyError),
}

/// A server adds fields at will; those that are used are required.
#[derive(Deserialize)]
struct Wire {
    keys: Vec<String>,
    root_token: String,
}

impl Answer {
    /// Reads the answer.
    pub(super) fn parse(body: &[u8], ceremony: &Ceremony) -> Result<Self, AnswerError> {
        let plan = &ceremony.plan;
        // serde's words could repeat what is in the answer, so they are left out.
        let wire: Wire = serde_json::from_slice(body)
            .map_err(|error| AnswerError::Malformed(format!("line {}, column {}", error.line(), error.column())))?;
        if wire.keys.len() != usize::from(plan.shares()) {
            return Err(AnswerError::Shares { found: wire.keys.len(), expected: plan.shares() });
        }
        let messages = wire.keys.iter().filter_map(|key| hex::decode(key).ok()).collect();
        let parcels = Parcels::new(plan, Parcels::sort(messages, plan).map_err(AnswerError::Missing)?)?;
        let root_token = BASE64_STANDARD.decode(&wire.root_token).ok();
        let root_token = root_token.filter(|message| ceremony.root_token.is_addressed(message));
        Ok(Self { parcels, root_token: root_token.ok_or(AnswerError::RootToken)? })
    }

    /// Writes everything that is made of it and is not there yet.
    pub(super) fn write(&self, directory: &Directory, ceremony: &Ceremony) -> Result<(), FileError> {
        files::ensure(&directory.root_token(), &self.root_token, SECRET_MODE)?;
        self.parcels.write(directory, &ceremony.plan)
    }
}
