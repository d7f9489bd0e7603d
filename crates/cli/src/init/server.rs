//! The Vault's side of an initialisation: what it is asked, and what an error left behind.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use holdfast_core::seal_status::SealStatus;
use holdfast_edge::admin::{Admin, AdminError, InitRequest};

use super::InitError;
use super::journal::Ceremony;
use super::openpgp::Addressee;
use super::plan::Plan;

/// How long a Vault that says it is not initialised is asked again after a request was cut off: it may be at it.
pub(super) const SETTLE: Duration = Duration::from_secs(5);

/// The time between two questions of those.
const SETTLE_STEP: Duration = Duration::from_millis(250);

/// How a Vault stands that did not give its answer.
pub(super) enum Standing {
    /// It is not initialised.
    Empty,
    /// It is initialised as it was asked to be, and sealed: nobody has its shares.
    Lost,
    /// It is initialised, and somebody has shares of it.
    Somebodys(String),
}

/// Refuses a Vault that has its shares already, or whose clock would make it refuse a key.
pub(super) async fn check(admin: &Admin, ceremony: &Ceremony) -> Result<(), InitError> {
    let plan = &ceremony.plan;
    if admin.seal_status().await?.initialized {
        return Err(InitError::Initialised(plan.vault.clone()));
    }
    check_clock(admin, plan, Some(&ceremony.root_token)).await
}

/// Refuses a Vault whose clock would make it refuse a key.
pub(crate) async fn check_clock(admin: &Admin, plan: &Plan, root_token: Option<&Addressee>) -> Result<(), InitError> {
    let there = admin.server_time().await?;
    let parties = plan.addressees().map(|(name, key)| (format!("{name}'s"), key));
    for (whose, key) in parties.chain(root_token.map(|key| ("the root token holder's".to_owned(), key))) {
        if i64::from(key.newest()).saturating_mul(1000) > there.as_millis() {
            return Err(InitError::Clock { vault: plan.vault.clone(), there, whose });
        }
    }
    Ok(())
}

/// Asks for the initialisation.
pub(super) async fn initialise(admin: &Admin, ceremony: &Ceremony) -> Result<Vec<u8>, AdminError> {
    let plan = &ceremony.plan;
    let request = InitRequest {
        secret_shares: plan.shares(),
        secret_threshold: plan.threshold,
        pgp_keys: plan.addressees().map(|(_, key)| BASE64_STANDARD.encode(key.binary())).collect(),
        root_token_pgp_key: BASE64_STANDARD.encode(ceremony.root_token.binary()),
    };
    admin.init(&request).await
}

/// Finds out how the Vault stands after a request whose answer did not come; waits for so long for it to become initialised.
pub(super) async fn standing(admin: &Admin, ceremony: &Ceremony, patience: Duration) -> Result<Standing, AdminError> {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let status = admin.seal_status().await?;
        if status.initialized {
            return Ok(judge(&status, ceremony));
        }
        if tokio::time::Instant::now() >= deadline {
            return Ok(Standing::Empty);
        }
        // The request may still be on its way, or under way: the server goes on when its client is gone. Nothing announces that it
        // is done, so the server is asked again and again, up to the deadline.
        tokio::time::sleep(SETTLE_STEP).await;
    }
}

fn judge(status: &SealStatus, ceremony: &Ceremony) -> Standing {
    let (threshold, shares) = (ceremony.plan.threshold, ceremony.plan.shares());
    if !status.sealed {
        return Standing::Somebodys("it is open".to_owned());
    }
    if (status.threshold, status.shares) != (threshold, shares) {
        let (t, n) = (status.threshold, status.shares);
        return Standing::Somebodys(format!(
            "any {t} of {n} shares open it, and here {threshold} of {shares} were asked for"
        ));
    }
    if status.progress > 0 {
        return Standing::Somebodys("somebody is entering shares".to_owned());
    }
    Standing::Lost
}
