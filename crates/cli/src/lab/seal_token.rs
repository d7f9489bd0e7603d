//! The token with which the lab's conductor seals: its policy and itself made with the root token, as the Vault's people would.

use holdfast_edge::admin::rotation::Token;
use holdfast_edge::admin::{Admin, AdminError};
use holdfast_edge::vault::duty::Duty;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

/// How long the token lives without being renewed: the server's own longest.
const PERIOD: &str = "768h";

/// Why the conductor has no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealTokenError {
    /// The server did not make it.
    #[error("no token could be made for the conductor: {0}")]
    Admin(#[from] AdminError),
    /// The root token's file has none in it.
    #[error("the root token is not one")]
    RootToken,
    /// The answer is not what the API promises.
    #[error("no token could be made for the conductor: the server's answer has none in it")]
    Answer,
}

#[derive(Deserialize)]
struct Made {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
}

/// Writes the policy, and has a token made that has nothing else.
pub(crate) async fn make(vault: &Admin, root_token: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealTokenError> {
    let root = Token::new(root_token).ok_or(SealTokenError::RootToken)?;
    let write = async |path: &str, body: serde_json::Value| vault.write(&root, path, &body).await.map(Zeroizing::new);
    write(&format!("v1/sys/policies/acl/{}", Duty::Seal.policy_name()), json!({ "policy": Duty::Seal.policy() }))
        .await?;
    let wanted = json!({ "policies": [Duty::Seal.policy_name()], "no_default_policy": true, "period": PERIOD });
    let answer = write("v1/auth/token/create-orphan", wanted).await?;
    let made: Made = serde_json::from_slice(&answer).map_err(|_| SealTokenError::Answer)?;
    Ok(Zeroizing::new(made.auth.client_token.into_bytes()))
}
