//! The tokens of a conductor: what each is for, that it can do nothing else, and keeping it alive.
//!
//! What lives here: the policies, the token at rest, and asking a node what a token can do. What does not: what is done with it, which is
//! `exercise`'s (sealing) and `canary`'s (reading).

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_core::drill::CanaryPath;
use holdfast_core::message::plain_text;
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::connection::{AskError, Connection};
use crate::files::{self, FileError};
use crate::keys::{AgeIdentity, IdentityError, OpenError};

/// The largest token file that is read, in bytes.
const TOKEN_FILE_MAX: usize = 16 * 1024;

/// The longest token, in bytes: a service token has 26, a batch token some hundred.
pub const TOKEN_MAX: usize = 2048;

/// How long one answer is waited for.
const ANSWER: Duration = Duration::from_secs(2);

const POWERS: &str = "/v1/sys/internal/ui/resultant-acl";
const RENEW: &str = "/v1/auth/token/renew-self";

/// What any of these tokens may do besides its duty, and besides showing the text of its own policy.
const ALWAYS: [(&str, &[&str]); 2] =
    [("auth/token/renew-self", &["update"]), ("sys/internal/ui/resultant-acl", &["read"])];

/// What a token is for. It may do that, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Duty {
    /// Sealing nodes.
    Seal,
    /// Reading this.
    ReadCanary(CanaryPath),
}

impl Duty {
    /// The name of its policy: a token may show its own policy's text alone.
    pub const fn policy_name(&self) -> &'static str {
        match self {
            Self::Seal => "holdfast-conductor",
            Self::ReadCanary(_) => "holdfast-canary",
        }
    }

    /// The policy: what the token is for, that it can be kept alive, and that it can be asked what it can do.
    pub fn policy(&self) -> String {
        let (path, capabilities) = self.rule();
        let capabilities: Vec<_> = capabilities.iter().map(|capability| format!("{capability:?}")).collect();
        format!(
            "# {} for drills, and can do nothing else.\n\
             path \"{path}\" {{\n  capabilities = [{}]\n}}\n\
             # It keeps its own token alive, and shows what that can do: another one is refused.\n\
             path \"auth/token/renew-self\" {{\n  capabilities = [\"update\"]\n}}\n\
             path \"sys/internal/ui/resultant-acl\" {{\n  capabilities = [\"read\"]\n}}\n\
             path \"{}\" {{\n  capabilities = [\"read\"]\n}}\n",
            match self {
                Self::Seal => "A conductor of Holdfast seals nodes",
                Self::ReadCanary(_) => "A conductor of Holdfast reads a canary",
            },
            capabilities.join(", "),
            self.own_policy()
        )
    }

    /// The command of `holdfast-setup` that prints the policy.
    pub fn prints_policy(&self) -> String {
        match self {
            Self::Seal => "holdfast-setup seal-token --policy".to_owned(),
            Self::ReadCanary(path) => format!("holdfast-setup canary-token --policy {path}"),
        }
    }

    /// The command that puts such a token to rest on a conductor's host.
    pub const fn command(&self) -> &'static str {
        match self {
            Self::Seal => "holdfast-setup seal-token",
            Self::ReadCanary(_) => "holdfast-setup canary-token",
        }
    }

    const fn in_words(&self) -> &'static str {
        match self {
            Self::Seal => "seal",
            Self::ReadCanary(_) => "read the canary",
        }
    }

    /// Where it does what it is for, and all that it may do there.
    fn rule(&self) -> (&str, &'static [&'static str]) {
        match self {
            Self::Seal => ("sys/seal", &["update", "sudo"]),
            Self::ReadCanary(path) => (path.as_str(), &["read"]),
        }
    }

    fn own_policy(&self) -> String {
        format!("sys/policies/acl/{}", self.policy_name())
    }
}

/// A conductor's token, and what it is for.
#[derive(Clone)]
pub struct DutyToken {
    duty: Duty,
    secret: Arc<Zeroizing<Vec<u8>>>,
}

impl fmt::Debug for DutyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DutyToken({:?}, …)", self.duty)
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
    #[error("it does not open with the identity: {0}; encrypt the token anew: {1}")]
    Sealed(#[source] OpenError, &'static str),
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
        "the node does not take the token, or does not let it show what it can do: make one with the policy that {} prints",
        .0.prints_policy()
    )]
    Denied(Duty),
    /// The token can do more.
    #[error(
        "the token can do more than {does}: {more}; make one with no policy but the one that {printed} prints (bao token create -no-default-policy)",
        does = .0.in_words(), more = .1, printed = .0.prints_policy()
    )]
    TooMuch(Duty, String),
    /// The token cannot do what it is for.
    #[error("the token cannot {}: its policy has to grant {} on {}", .0.in_words(), .0.rule().1.join(" and "), .0.rule().0)]
    TooLittle(Duty),
    /// It has policies beside the one, or others.
    #[error(
        "the token's policies are {given}, and have to be {name} alone (bao token create -no-default-policy -policy={name})",
        given = .1, name = .0.policy_name()
    )]
    OtherPolicies(Duty, String),
    /// The policy of this name is another text. The list of what a token can do does not show every rule: those with `+` are not in it.
    #[error(
        "the policy {name} grants other things than it should; write it anew: {printed} | bao policy write {name} -",
        printed = .0.prints_policy(), name = .0.policy_name()
    )]
    OtherPolicy(Duty),
    /// The token cannot be kept alive, so that it does not say which policies it has.
    #[error(transparent)]
    Renew(#[from] RenewError),
}

/// Why a token was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The node gave no answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The node does not know the token any more, or it is not one that can be renewed.
    #[error(
        "the node does not renew the token (status {status}): it has ended, or was not made to be renewed; make one as {printed} says (-period=768h)",
        status = .1, printed = .0.prints_policy()
    )]
    Refused(Duty, u16),
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

impl DutyToken {
    /// Reads a token as a person hands it over: one line.
    pub fn parse(text: &[u8], duty: Duty) -> Result<Self, TokenError> {
        let token = text.trim_ascii();
        let good = (1..=TOKEN_MAX).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic);
        if good { Ok(Self { duty, secret: Arc::new(Zeroizing::new(token.to_vec())) }) } else { Err(TokenError::Form) }
    }

    /// Takes the token out of its age file.
    pub fn load(path: &Path, identity: &Path, duty: Duty) -> Result<Self, TokenError> {
        let file = files::read_bounded(path, TOKEN_FILE_MAX)?;
        let opened = AgeIdentity::load(identity)?.decrypt(&file, TOKEN_MAX + 2);
        Self::parse(&opened.map_err(|error| TokenError::Sealed(error, duty.command()))?, duty)
    }

    /// Encrypts the token to the identity, and puts it where the configuration says.
    pub fn save(&self, path: &Path, identity: &Path) -> Result<(), TokenError> {
        let recipient = AgeIdentity::load(identity)?.recipient();
        let encrypted = recipient.encrypt(&self.secret).map_err(|error| TokenError::Encrypt(error.to_string()))?;
        Ok(files::replace(path, &encrypted, files::SECRET_MODE)?)
    }

    /// What it is for.
    pub fn duty(&self) -> &Duty {
        &self.duty
    }

    /// Puts it into a request.
    pub(super) fn sign<B>(&self, request: &mut Request<B>) -> Result<(), AskError> {
        let mut value = HeaderValue::from_bytes(&self.secret).map_err(|_| AskError::Closed)?;
        value.set_sensitive(true);
        request.headers_mut().insert("x-vault-token", value);
        Ok(())
    }
}

impl Connection {
    /// Refuses a token that can do more than it is for, or less: by what it can do, which is shown for people, and then by the text of the
    /// one policy that it may have.
    pub async fn check_powers(&mut self, token: &DutyToken) -> Result<(), PowersError> {
        let duty = token.duty();
        let powers: Powers = self.read_with(token, POWERS.to_owned()).await?;
        judge(&powers.data, duty)?;
        let policies = self.renew_token(token).await?.policies;
        if policies != [duty.policy_name()] {
            return Err(PowersError::OtherPolicies(duty.clone(), plain_text(&policies.join(", "))));
        }
        let written: Written = self.read_with(token, format!("/v1/{}", duty.own_policy())).await?;
        let same = rules(&written.data.policy).eq(rules(&duty.policy()));
        if same { Ok(()) } else { Err(PowersError::OtherPolicy(duty.clone())) }
    }

    async fn read_with<T: DeserializeOwned>(&mut self, token: &DutyToken, path: String) -> Result<T, PowersError> {
        let mut request = self.request(Method::GET, path, Bytes::new());
        token.sign(&mut request)?;
        let reply = self.ask(request, ANSWER).await?;
        let answered = reply.code == StatusCode::OK;
        let read = answered.then(|| serde_json::from_slice(reply.body()).ok()).flatten();
        read.ok_or_else(|| PowersError::Denied(token.duty().clone()))
    }

    /// Keeps the token alive, and gives how long it lives from now on. One that was made without a period comes to an end.
    pub async fn renew(&mut self, token: &DutyToken) -> Result<Duration, RenewError> {
        Ok(Duration::from_secs(self.renew_token(token).await?.lease_duration))
    }

    async fn renew_token(&mut self, token: &DutyToken) -> Result<RenewedAuth, RenewError> {
        let mut request = self.request(Method::POST, RENEW, Bytes::from_static(b"{}"));
        token.sign(&mut request)?;
        let reply = self.ask(request, ANSWER).await?;
        if !reply.code.is_success() {
            return Err(RenewError::Refused(token.duty().clone(), reply.code.as_u16()));
        }
        let renewed: Renewed = serde_json::from_slice(reply.body()).map_err(|_| RenewError::Form)?;
        Ok(renewed.auth)
    }
}

/// The lines of a policy that are rules, or parts of them.
fn rules(policy: &str) -> impl Iterator<Item = &str> {
    policy.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn judge(powers: &PowersData, duty: &Duty) -> Result<(), PowersError> {
    if powers.root {
        return Err(PowersError::TooMuch(duty.clone(), "it is a root token".to_owned()));
    }
    let (own, rule) = (duty.own_policy(), duty.rule());
    let all: Vec<_> = ALWAYS.into_iter().chain([(own.as_str(), &["read"][..]), rule]).collect();
    let allowed = |path: &str, granted: &Granted| {
        let may = all.iter().find(|(allowed, _)| *allowed == path).map_or(&[][..], |(_, may)| *may);
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
        return Err(PowersError::TooMuch(duty.clone(), plain_text(&more.join("; "))));
    }
    let (path, wanted) = rule;
    let does = powers.exact_paths.get(path).is_some_and(|granted| {
        wanted.iter().all(|wanted| granted.capabilities.iter().any(|capability| capability == wanted))
    });
    if does { Ok(()) } else { Err(PowersError::TooLittle(duty.clone())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAL: &str = r#""sys/seal":{"capabilities":["sudo","update"]}"#;
    const SHOWS: &str = r#""sys/internal/ui/resultant-acl":{"capabilities":["read"]}"#;
    const READS: &str = r#""secret/data/canary":{"capabilities":["read"]}"#;

    fn canary() -> Duty {
        Duty::ReadCanary("secret/data/canary".parse().expect("a path"))
    }

    #[track_caller]
    fn good(duty: &Duty, data: &str) {
        judge(&serde_json::from_str(data).expect("JSON"), duty).expect("nothing but its duty");
    }

    #[track_caller]
    fn refused(duty: &Duty, data: &str, named: &str) {
        let error = judge(&serde_json::from_str(data).expect("JSON"), duty).expect_err(data).to_string();
        assert!(error.contains(named), "{error}");
    }

    #[test]
    fn a_token_seals_and_does_nothing_else() {
        let seal = &Duty::Seal;
        good(seal, &format!(r#"{{"root":false,"exact_paths":{{{SEAL},{SHOWS}}},"glob_paths":{{}}}}"#));
        refused(seal, r#"{"root":true}"#, "root token");
        refused(seal, &format!(r#"{{"exact_paths":{{{SHOWS}}}}}"#), "cannot seal");
        let reads = r#""sys/policies/acl/x":{"capabilities":["read"]}"#;
        refused(seal, &format!(r#"{{"exact_paths":{{{SEAL},{reads}}}}}"#), "sys/policies");
        let glob = r#""secret/":{"capabilities":["read"]}"#;
        refused(seal, &format!(r#"{{"exact_paths":{{{SEAL}}},"glob_paths":{{{glob}}}}}"#), "secret/*");
        let wider = r#"{"exact_paths":{"sys/seal":{"capabilities":["sudo","update","read"]}}}"#;
        refused(seal, wider, "sys/seal (sudo, update, read)");
    }

    #[test]
    fn a_token_reads_the_canary_and_does_nothing_else() {
        let duty = &canary();
        good(duty, &format!(r#"{{"exact_paths":{{{READS},{SHOWS}}}}}"#));
        refused(duty, &format!(r#"{{"exact_paths":{{{SHOWS}}}}}"#), "cannot read the canary");
        refused(duty, &format!(r#"{{"exact_paths":{{{READS},{SEAL}}}}}"#), "more than read the canary: sys/seal");
        let wider = r#"{"exact_paths":{"secret/data/canary":{"capabilities":["read","update"]}}}"#;
        refused(duty, wider, "secret/data/canary (read, update)");
        let glob = r#"{"glob_paths":{"secret/data/canary":{"capabilities":["read"]}}}"#;
        refused(duty, glob, "secret/data/canary*");
        refused(&Duty::Seal, &format!(r#"{{"exact_paths":{{{SEAL},{READS}}}}}"#), "secret/data/canary (read)");
    }

    #[test]
    fn what_is_remarked_in_a_policy_or_how_it_is_set_is_no_other_policy() {
        for duty in [Duty::Seal, canary()] {
            let policy = duty.policy();
            let printed = format!("# Write it with:\n#   a command\n\n{}\n", policy.replace("  cap", "\tcap"));
            assert!(rules(&printed).eq(rules(&policy)));
            let wider = format!("{policy}\npath \"secret/+/x\" {{\n  capabilities = [\"read\"]\n}}\n");
            assert!(!rules(&wider).eq(rules(&policy)));
            assert!(policy.contains(duty.policy_name()));
        }
        assert!(!rules(&canary().policy()).eq(rules(&Duty::Seal.policy())));
    }

    #[test]
    fn a_token_is_one_line_of_visible_characters() {
        assert!(DutyToken::parse(b"s.abc\n", Duty::Seal).is_ok());
        for bad in [&b""[..], b"\n", b"s.a b", b"s.a\nb", &[b'x'; TOKEN_MAX + 1]] {
            assert!(DutyToken::parse(bad, Duty::Seal).is_err());
        }
        let token = DutyToken::parse(b"s.secret", Duty::Seal).expect("a token");
        assert!(!format!("{token:?}").contains("secret"));
    }
}
