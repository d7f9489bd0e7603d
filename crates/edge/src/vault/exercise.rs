//! A drill at the node: the token that seals, the request, and the eyes that measure until the node serves again.
//!
//! What is not here: whether a drill may be held (`holdfast_core::drill`), and shares. The token can seal and nothing else
//! ([`POLICY`]); one that can do more is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_core::drill::Observed;
use holdfast_core::message::{Serving, plain_text};
use holdfast_core::time::Timestamp;
use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::connection::{AskError, Connection};
use super::identity::NodeIdentity;
use crate::clock;
use crate::files::{self, FileError};
use crate::keys::{AgeIdentity, IdentityError, OpenError};

/// The name of the token's policy: it may show its own text alone.
pub const POLICY_NAME: &str = "holdfast-conductor";

/// The policy of the token: it seals, it can be kept alive, and it can be asked what it can do.
pub const POLICY: &str = r#"# A conductor of Holdfast seals nodes for drills, and can do nothing else.
path "sys/seal" {
  capabilities = ["update", "sudo"]
}
# It keeps its own token alive, and shows what that can do: another one is refused.
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "sys/internal/ui/resultant-acl" {
  capabilities = ["read"]
}
path "sys/policies/acl/holdfast-conductor" {
  capabilities = ["read"]
}
"#;

/// The largest token file that is read, in bytes.
const TOKEN_FILE_MAX: usize = 16 * 1024;

/// The longest token, in bytes: a service token has 26, a batch token some hundred.
pub const TOKEN_MAX: usize = 2048;

/// How long sealing may take: it answers after up to 1.4 s (docs/FACTS.md), and may wait for requests under way.
const SEAL_DEADLINE: Duration = Duration::from_secs(30);

/// How many connections look at the node. What is asked in the very moment in which it begins to seal itself is answered when that is done,
/// up to seconds later: so few of them may be waiting for an answer at any time.
const EYES: u32 = 8;

/// The time between two looks, over all connections.
const LOOK: Duration = Duration::from_millis(2);

/// How long one answer is waited for, before the connection is made anew.
const ANSWER: Duration = Duration::from_secs(2);

/// How long after a failed connection the next is made.
const AGAIN: Duration = Duration::from_millis(20);

/// How often it is asked whether the node serves again.
const SERVES: Duration = Duration::from_millis(20);

/// How many looks may wait for whoever puts them together: who waits for a disk meanwhile is some seconds behind.
const LOOKS_MAX: usize = 4096;

const SEAL: &str = "/v1/sys/seal";
const HEALTH: &str = "/v1/sys/health";
const POWERS: &str = "/v1/sys/internal/ui/resultant-acl";
const RENEW: &str = "/v1/auth/token/renew-self";
const OWN_POLICY: &str = "/v1/sys/policies/acl/holdfast-conductor";

/// What a conductor's token may do, each path with all that may be done there.
const ALLOWED: [(&str, &[&str]); 4] = [
    ("auth/token/renew-self", &["update"]),
    ("sys/internal/ui/resultant-acl", &["read"]),
    ("sys/policies/acl/holdfast-conductor", &["read"]),
    ("sys/seal", &["sudo", "update"]),
];

/// A conductor's token.
#[derive(Clone)]
pub struct SealToken(Arc<Zeroizing<Vec<u8>>>);

impl fmt::Debug for SealToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealToken(…)")
    }
}

/// Why a token cannot be used. Never quotes it.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The identity is not one.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The file does not open with the identity.
    #[error("it does not open with the identity: {0}; encrypt the token anew: holdfast-setup seal-token")]
    Sealed(#[from] OpenError),
    /// It is no token.
    #[error("what is in it is no token: one line of 1 to {TOKEN_MAX} visible ASCII characters")]
    Form,
    /// The system did not encrypt it.
    #[error("it cannot be encrypted: {0}")]
    Encrypt(String),
}

/// Why nobody knows what a token can do, or why it is refused.
#[derive(Debug, thiserror::Error)]
pub enum PowersError {
    /// The node gave no answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The node does not know the token, or does not let it show what it can do.
    #[error(
        "the node does not take the token, or does not let it show what it can do: make one with the policy that holdfast-setup seal-token --policy prints"
    )]
    Denied,
    /// The token can do more.
    #[error(
        "the token can do more than seal: {0}; make one with no policy but the one that holdfast-setup seal-token --policy prints (bao token create -no-default-policy)"
    )]
    TooMuch(String),
    /// The token cannot seal.
    #[error("the token cannot seal: its policy has to grant update and sudo on sys/seal")]
    TooLittle,
    /// It has policies beside the one, or others.
    #[error(
        "the token's policies are {0}, and have to be {POLICY_NAME} alone (bao token create -no-default-policy -policy={POLICY_NAME})"
    )]
    OtherPolicies(String),
    /// The policy of this name is another text. The list of what a token can do does not show every rule: those with `+` are not in it.
    #[error(
        "the policy {POLICY_NAME} grants other things than it should; write it anew: holdfast-setup seal-token --policy | bao policy write {POLICY_NAME} -"
    )]
    OtherPolicy,
    /// The token cannot be kept alive, so that it does not say which policies it has.
    #[error(transparent)]
    Renew(#[from] RenewError),
}

/// Why a node was not sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// No answer. It may have been sealed all the same.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The token was refused.
    #[error("the node refused the token (403): it is not, or no longer, one that may seal")]
    Denied,
    /// The server does not seal a stand-by.
    #[error(
        "the server answered 500: HashiCorp Vault, and OpenBao with disable_standby_reads, seal the active node alone; name that one, or do without drills of stand-bys"
    )]
    NotHere,
    /// Another status.
    #[error("the node answered with status {0}")]
    Refused(u16),
}

/// Why a token was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The node gave no answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The node does not know the token any more, or it is not one that can be renewed.
    #[error(
        "the node does not renew the token (status {0}): it has ended, or was not made to be renewed; make one as holdfast-setup seal-token --policy says (-period=768h)"
    )]
    Refused(u16),
    /// The answer does not say how long it lives.
    #[error("the answer does not say how long the token lives: is a Vault's API at this address?")]
    Form,
}

#[derive(Deserialize)]
struct Renewed {
    auth: RenewedAuth,
}

#[derive(Deserialize)]
struct RenewedAuth {
    lease_duration: u64,
    /// Those of the token and those of whoever it belongs to.
    #[serde(default)]
    policies: Vec<String>,
}

#[derive(Deserialize)]
struct Written {
    data: WrittenPolicy,
}

#[derive(Deserialize)]
struct WrittenPolicy {
    policy: String,
}

#[derive(Deserialize)]
struct Powers {
    data: PowersData,
}

#[derive(Deserialize)]
struct PowersData {
    #[serde(default)]
    root: bool,
    #[serde(default)]
    exact_paths: BTreeMap<String, Granted>,
    #[serde(default)]
    glob_paths: BTreeMap<String, Granted>,
}

#[derive(Deserialize)]
struct Granted {
    #[serde(default)]
    capabilities: Vec<String>,
}

impl SealToken {
    /// Reads a token as a person hands it over: one line.
    pub fn parse(text: &[u8]) -> Result<Self, TokenError> {
        let token = text.trim_ascii();
        let good = (1..=TOKEN_MAX).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic);
        if good { Ok(Self(Arc::new(Zeroizing::new(token.to_vec())))) } else { Err(TokenError::Form) }
    }

    /// Takes the token out of its age file.
    pub fn load(path: &Path, identity: &Path) -> Result<Self, TokenError> {
        let file = files::read_bounded(path, TOKEN_FILE_MAX)?;
        Self::parse(&AgeIdentity::load(identity)?.decrypt(&file, TOKEN_MAX + 2)?)
    }

    /// Encrypts the token to the identity, and puts it where the configuration says.
    pub fn save(&self, path: &Path, identity: &Path) -> Result<(), TokenError> {
        let recipient = AgeIdentity::load(identity)?.recipient();
        let encrypted = recipient.encrypt(&self.0).map_err(|error| TokenError::Encrypt(error.to_string()))?;
        Ok(files::replace(path, &encrypted, files::SECRET_MODE)?)
    }

    fn header(&self) -> Result<HeaderValue, AskError> {
        let mut value = HeaderValue::from_bytes(&self.0).map_err(|_| AskError::Closed)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl Connection {
    /// What the node does for its clients; `None` while it does not serve.
    pub async fn serving(&mut self) -> Result<Option<Serving>, AskError> {
        let reply = self.ask(self.request(Method::GET, HEALTH, Bytes::new()), ANSWER).await?;
        Ok(match reply.code.as_u16() {
            200 => Some(Serving::Active),
            // 473: HashiCorp's performance stand-by.
            429 | 473 => Some(Serving::Standby),
            _ => None,
        })
    }

    /// Refuses a token that can do more than seal, or less: by what it can do, which is shown for people, and then by the text of the one
    /// policy that it may have.
    pub async fn check_powers(&mut self, token: &SealToken) -> Result<(), PowersError> {
        let powers: Powers = self.read_with(token, POWERS).await?;
        judge(&powers.data)?;
        let policies = self.renew_token(token).await?.policies;
        if policies != [POLICY_NAME] {
            return Err(PowersError::OtherPolicies(plain_text(&policies.join(", "))));
        }
        let written: Written = self.read_with(token, OWN_POLICY).await?;
        if rules(&written.data.policy).eq(rules(POLICY)) { Ok(()) } else { Err(PowersError::OtherPolicy) }
    }

    async fn read_with<T: DeserializeOwned>(
        &mut self,
        token: &SealToken,
        path: &'static str,
    ) -> Result<T, PowersError> {
        let mut request = self.request(Method::GET, path, Bytes::new());
        request.headers_mut().insert("x-vault-token", token.header()?);
        let reply = self.ask(request, ANSWER).await?;
        let answered = reply.code == StatusCode::OK;
        let read = answered.then(|| serde_json::from_slice(reply.body()).ok()).flatten();
        read.ok_or(PowersError::Denied)
    }

    /// Keeps the token alive, and gives how long it lives from now on. One that was made without a period comes to an end.
    pub async fn renew(&mut self, token: &SealToken) -> Result<Duration, RenewError> {
        Ok(Duration::from_secs(self.renew_token(token).await?.lease_duration))
    }

    async fn renew_token(&mut self, token: &SealToken) -> Result<RenewedAuth, RenewError> {
        let mut request = self.request(Method::POST, RENEW, Bytes::from_static(b"{}"));
        request.headers_mut().insert("x-vault-token", token.header()?);
        let reply = self.ask(request, ANSWER).await?;
        if !reply.code.is_success() {
            return Err(RenewError::Refused(reply.code.as_u16()));
        }
        let renewed: Renewed = serde_json::from_slice(reply.body()).map_err(|_| RenewError::Form)?;
        Ok(renewed.auth)
    }

    async fn seal(&mut self, token: &SealToken) -> Result<(), SealError> {
        let mut request = self.request(Method::PUT, SEAL, Bytes::new());
        request.headers_mut().insert("x-vault-token", token.header()?);
        match self.ask(request, SEAL_DEADLINE).await?.code.as_u16() {
            200 | 204 => Ok(()),
            403 => Err(SealError::Denied),
            500 => Err(SealError::NotHere),
            code => Err(SealError::Refused(code)),
        }
    }
}

/// The lines of a policy that are rules, or parts of them.
fn rules(policy: &str) -> impl Iterator<Item = &str> {
    policy.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn judge(powers: &PowersData) -> Result<(), PowersError> {
    if powers.root {
        return Err(PowersError::TooMuch("it is a root token".to_owned()));
    }
    let allowed = |path: &str, granted: &Granted| {
        let may = ALLOWED.iter().find(|(allowed, _)| *allowed == path).map_or(&[][..], |(_, may)| *may);
        granted.capabilities.iter().all(|capability| capability == "deny" || may.contains(&capability.as_str()))
    };
    let exact = powers.exact_paths.iter().map(|(path, granted)| (path.clone(), granted));
    let globs = powers.glob_paths.iter().map(|(path, granted)| (format!("{path}*"), granted));
    let more: Vec<_> = exact
        .chain(globs)
        .filter(|(path, granted)| !allowed(path, granted))
        .map(|(path, granted)| format!("{} ({})", path, granted.capabilities.join(", ")))
        .collect();
    if !more.is_empty() {
        return Err(PowersError::TooMuch(plain_text(&more.join("; "))));
    }
    let seals = powers.exact_paths.get("sys/seal").is_some_and(|granted| {
        ["sudo", "update"].iter().all(|wanted| granted.capabilities.iter().any(|capability| capability == wanted))
    });
    if seals { Ok(()) } else { Err(PowersError::TooLittle) }
}

/// One look at the node: when it was asked and answered, and whether it said that it is sealed; `None` if it said nothing.
struct Look {
    asked: Instant,
    answered: Instant,
    sealed: Option<bool>,
}

/// Seals a node for a drill and watches it until it serves again, telling each step; until it is dropped.
///
/// `permitted` is asked right before the request to seal leaves.
pub async fn hold(
    identity: Arc<NodeIdentity>,
    token: SealToken,
    permitted: impl Fn() -> bool + Send,
    told: impl Fn(Observed) + Send,
) {
    let mut sealing = match ready_to_seal(&identity, &token).await {
        Ok(connection) => connection,
        Err(why) => return told(Observed::NotSealed(why)),
    };
    let mut looks = match open_eyes(&identity) {
        Ok(looks) => looks,
        Err(error) => return told(Observed::NotSealed(format!("no thread for looking at it: {error}"))),
    };
    // All of them see it open before anything happens.
    if !first_looks(&mut looks).await {
        return told(Observed::NotSealed("it is not seen open".to_owned()));
    }
    if !permitted() {
        return told(Observed::NotSealed("the order was withdrawn, or it was too late for it".to_owned()));
    }
    // It goes on to its end, whatever becomes of this: a server that loses its client in the middle might not.
    let mut sealing = tokio::spawn(async move { sealing.seal(&token).await });
    let refused = async {
        match (&mut sealing).await {
            Ok(Err(error)) if !matches!(error, SealError::Ask(_)) => error.to_string(),
            // Without an answer it may be sealed, and it will be seen.
            _ => std::future::pending().await,
        }
    };
    let sealed = tokio::select! {
        why = refused => return told(Observed::NotSealed(why)),
        sealed = first(&mut looks, Instant::now(), true, || ()) => sealed,
    };
    told(Observed::Sealed(wall_at(sealed)));
    let open = first(&mut looks, sealed, false, || told(Observed::Lost)).await;
    told(Observed::Open(wall_at(open), open.duration_since(sealed)));
    drop(looks);
    let serving = loop {
        if let Ok(mut connection) = identity.connect(None).await
            && let Ok(Some(serving)) = connection.serving().await
        {
            break serving;
        }
        // Asked until it does: how long that may take is the conductor's to say, who then drops this.
        sleep(SERVES).await;
    };
    told(Observed::Serves(clock::wall(), serving));
}

/// A connection on which the token was shown to be good for sealing, and for nothing else.
async fn ready_to_seal(identity: &NodeIdentity, token: &SealToken) -> Result<Connection, String> {
    let mut connection = identity.connect(None).await.map_err(|error| error.to_string())?;
    connection.check_powers(token).await.map_err(|error| error.to_string())?;
    Ok(connection)
}

/// Begins to look at the node, until nobody takes the looks any more. On a thread of its own: the custodian's waits for its disk before a
/// share leaves, and what is seen meanwhile would be seen late.
fn open_eyes(identity: &Arc<NodeIdentity>) -> io::Result<mpsc::Receiver<Look>> {
    let (looks_in, looks) = mpsc::channel(LOOKS_MAX);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let identity = identity.clone();
    thread::Builder::new().name("drill".to_owned()).spawn(move || {
        runtime.block_on(async {
            let mut eyes = JoinSet::new();
            for eye in 0..EYES {
                eyes.spawn(keep_looking(identity.clone(), LOOK * eye, looks_in.clone()));
            }
            eyes.join_all().await;
        });
        // A look-up of a name that hangs holds nobody up.
        runtime.shutdown_background();
    })?;
    Ok(looks)
}

/// The time of day at a moment that has passed.
fn wall_at(moment: Instant) -> Timestamp {
    clock::wall().before(moment.elapsed())
}

/// Whether the next looks all see it open.
async fn first_looks(looks: &mut mpsc::Receiver<Look>) -> bool {
    for _ in 0..EYES {
        let look = timeout(ANSWER, looks.recv()).await;
        if !matches!(look, Ok(Some(Look { sealed: Some(false), .. }))) {
            return false;
        }
    }
    true
}

/// When the first answer came that says so, to a question asked after `since`. Tells of lost contact.
async fn first(looks: &mut mpsc::Receiver<Look>, since: Instant, sealed: bool, lost: impl Fn()) -> Instant {
    let mut silent = 0;
    loop {
        // The eyes are there as long as somebody waits here.
        let Some(look) = looks.recv().await else { return std::future::pending().await };
        if look.asked < since {
            continue;
        }
        match look.sealed {
            Some(seen) if seen == sealed => return look.answered,
            Some(_) => silent = 0,
            None => silent += 1,
        }
        if silent == EYES {
            lost();
        }
    }
}

async fn keep_looking(identity: Arc<NodeIdentity>, offset: Duration, looks: mpsc::Sender<Look>) {
    let mut connection = None;
    // The connections take turns, so that one of them looks every two milliseconds.
    sleep(offset).await;
    loop {
        let asked = Instant::now();
        let sealed = match &mut connection {
            None => {
                connection = identity.connect(None).await.ok();
                if connection.is_some() {
                    continue;
                }
                None
            }
            Some(open) => {
                let status = open.seal_status_within(ANSWER).await;
                if status.is_err() {
                    connection = None;
                }
                status.ok().map(|status| status.sealed)
            }
        };
        let wait = if sealed.is_none() { AGAIN } else { (LOOK * EYES).saturating_sub(asked.elapsed()) };
        if looks.send(Look { asked, answered: Instant::now(), sealed }).await.is_err() {
            return;
        }
        // The time between two looks, and no wait for anything: what is seen decides.
        sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn powers(data: &str) -> Result<(), PowersError> {
        judge(&serde_json::from_str(data).expect("JSON"))
    }

    #[test]
    fn a_token_seals_and_does_nothing_else() {
        let seal = r#""sys/seal":{"capabilities":["sudo","update"]}"#;
        let shows = r#""sys/internal/ui/resultant-acl":{"capabilities":["read"]}"#;
        assert!(powers(&format!(r#"{{"root":false,"exact_paths":{{{seal},{shows}}},"glob_paths":{{}}}}"#)).is_ok());
        let refused = |data: &str, named: &str| {
            let error = powers(data).expect_err(data).to_string();
            assert!(error.contains(named), "{error}");
        };
        refused(r#"{"root":true}"#, "root token");
        refused(&format!(r#"{{"exact_paths":{{{shows}}}}}"#), "cannot seal");
        refused(
            &format!(r#"{{"exact_paths":{{{seal},"sys/policies/acl/x":{{"capabilities":["read"]}}}}}}"#),
            "sys/policies",
        );
        refused(
            &format!(r#"{{"exact_paths":{{{seal}}},"glob_paths":{{"secret/":{{"capabilities":["read"]}}}}}}"#),
            "secret/*",
        );
        refused(
            r#"{"exact_paths":{"sys/seal":{"capabilities":["sudo","update","read"]}}}"#,
            "sys/seal (sudo, update, read)",
        );
    }

    #[test]
    fn what_is_remarked_in_a_policy_or_how_it_is_set_is_no_other_policy() {
        let printed = format!("# Write it with:\n#   a command\n\n{}\n", POLICY.replace("  cap", "\tcap"));
        assert!(rules(&printed).eq(rules(POLICY)));
        let wider = format!("{POLICY}\npath \"secret/+/x\" {{\n  capabilities = [\"read\"]\n}}\n");
        assert!(!rules(&wider).eq(rules(POLICY)));
        assert!(POLICY.contains(OWN_POLICY.trim_start_matches("/v1/")) && OWN_POLICY.ends_with(POLICY_NAME));
    }

    #[test]
    fn a_token_is_one_line_of_visible_characters() {
        assert!(SealToken::parse(b"s.abc\n").is_ok());
        for bad in [&b""[..], b"\n", b"s.a b", b"s.a\nb", &[b'x'; TOKEN_MAX + 1]] {
            assert!(SealToken::parse(bad).is_err());
        }
        let token = SealToken::parse(b"s.secret").expect("a token");
        assert!(!format!("{token:?}").contains("secret"));
    }
}
