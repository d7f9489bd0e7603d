//! Making a message: an id, the header, the signature, and the envelope that goes out.

use holdfast_core::id::{ClusterId, MessageId, Principal};
use holdfast_core::message::{Body, Content, Header};
use holdfast_core::time::Timestamp;

use crate::keys::SigningKey;

/// The system gave no random numbers for the message's id.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random numbers for a message's id: {0}")]
pub struct NoRandom(getrandom::Error);

/// Signs `content` as a message of `from` about `cluster`, issued now and, where it permits something, valid until
/// `expires_at`. Gives the message's id and the envelope's bytes.
pub fn seal_message(
    key: &SigningKey,
    from: &Principal,
    cluster: ClusterId,
    content: Content,
    issued_at: Timestamp,
    expires_at: Option<Timestamp>,
) -> Result<(MessageId, Vec<u8>), NoRandom> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(NoRandom)?;
    let kind = content.kind();
    let id = MessageId::from_bytes(id);
    let header = Header { kind, id, cluster, from: from.clone(), issued_at, expires_at };
    let body = Body { header, content }.to_json();
    Ok((id, key.seal(kind.namespace(), &body)))
}
