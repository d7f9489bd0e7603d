//! Making a message: an id, the header, the signature, and the envelope that goes out.

use holdfast_core::id::{ClusterId, MessageId, Principal};
use holdfast_core::message::{Body, Content, Header};
use holdfast_core::time::Timestamp;

use crate::keys::{Sign, SignError};

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The system gave no random numbers.
    #[error("the system gave no random numbers for a message's id: {0}")]
    Random(getrandom::Error),
    /// The key did not sign.
    #[error(transparent)]
    Unsigned(#[from] SignError),
}

/// Signs `content` as a message of `from` about `cluster`, issued now and, where it permits something, valid until
/// `expires_at`. Gives the message's id and the envelope's bytes.
pub fn seal_message(
    key: &impl Sign,
    from: &Principal,
    cluster: ClusterId,
    content: Content,
    issued_at: Timestamp,
    expires_at: Option<Timestamp>,
) -> Result<(MessageId, Vec<u8>), SealError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(SealError::Random)?;
    let (kind, id) = (content.kind(), MessageId::from_bytes(id));
    let header = Header { kind, id, cluster, from: from.clone(), issued_at, expires_at };
    Ok((id, seal_body(key, Body { header, content })?))
}

/// Signs a message whose header is made already.
pub fn seal_body(key: &impl Sign, body: Body) -> Result<Vec<u8>, SignError> {
    key.seal(body.header.kind.namespace(), &body.to_json())
}
