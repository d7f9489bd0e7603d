//! Whose keys count, and for what: the trust root, one OpenSSH `allowed_signers` file, read strictly.
//!
//! `ssh-keygen(1)`, "ALLOWED SIGNERS", describes the format; what is accepted here, ssh-keygen accepts with the same meaning.
//! What it allows beyond that is refused, because it would widen whom we trust without saying so in plain words: patterns,
//! certificate authorities, keys without `namespaces=`, times in a zone that the reader's machine chooses, and one key for
//! two principals, which would let one person count as two.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::id::{NameError, Principal};
use crate::sshsig::{PublicKey, PublicKeyError};
use crate::time::Timestamp;

/// The largest `allowed_signers` file, in bytes: some 200 keys, and a `trust` order that carries it whole fits an envelope.
pub const ALLOWED_SIGNERS_MAX: usize = 32 * 1024;

/// What a signature is for. Each kind of party signs in its own, so that no message passes for one of another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Namespace {
    /// What sentinels saw.
    Event,
    /// What operators order: hold, release, trust, distrust, drill.
    Order,
    /// Operators' consent to open a node.
    Approval,
    /// What conductors announce.
    Intent,
    /// What custodians report: heartbeats, receipts.
    Report,
}

impl Namespace {
    /// All namespaces.
    pub const ALL: [Self; 5] = [Self::Event, Self::Order, Self::Approval, Self::Intent, Self::Report];

    /// The namespace as `ssh-keygen -n` and `allowed_signers` write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "holdfast.event",
            Self::Order => "holdfast.order",
            Self::Approval => "holdfast.approval",
            Self::Intent => "holdfast.intent",
            Self::Report => "holdfast.report",
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an `allowed_signers` file was refused. Nothing of a file with an error in it is used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Larger than [`ALLOWED_SIGNERS_MAX`].
    #[error("the file has {0} bytes, and {ALLOWED_SIGNERS_MAX} are the most: remove keys that nobody uses any more")]
    Oversized(usize),
    /// No line lists a key.
    #[error(
        "the file lists no key: add a line for each signer, like: alice namespaces=\"holdfast.order\" ssh-ed25519 AAAA…"
    )]
    Empty,
    /// One line is wrong.
    #[error("line {line}: {problem}")]
    Line {
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: LineProblem,
    },
}

impl TrustError {
    /// The line that is wrong, from 1, if it is a line.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::Line { line, .. } => Some(*line),
            Self::Oversized(_) | Self::Empty => None,
        }
    }
}

/// What is wrong with a line of `allowed_signers`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// Bytes that are not UTF-8, or control characters.
    #[error("it is not plain text: remove the bytes that are not")]
    NotText,
    /// The line ends with carriage return and line feed.
    #[error("it ends with a carriage return: convert the file to plain line feeds (sed -i 's/\\r$//' FILE)")]
    CarriageReturn,
    /// The principal is a pattern.
    #[error("{0:?} is a pattern: only literal principals are accepted, so list each by name on a line of its own")]
    Pattern(String),
    /// One key for several principals, who would be counted as several signers.
    #[error("one key for several principals ({0:?}): give each a key of their own, on a line of its own")]
    Several(String),
    /// The principal is not a name.
    #[error("the principal: {0}")]
    Principal(NameError),
    /// Without `namespaces=`, the key would count for everything.
    #[error("namespaces= is missing: say what the key may sign, like namespaces=\"holdfast.order,holdfast.approval\"")]
    NamespacesMissing,
    /// Not one of [`Namespace::ALL`], or a pattern.
    #[error(
        "{0:?} is not a namespace: write one or more of holdfast.event, holdfast.order, holdfast.approval, \
         holdfast.intent and holdfast.report, literally and separated by commas"
    )]
    Namespace(String),
    /// An authority would bring in keys that the file does not list.
    #[error("cert-authority is refused: list the signers' own keys")]
    CertAuthority,
    /// An option that is not known.
    #[error("{0:?} is not an option: namespaces=, valid-after= and valid-before= are")]
    UnknownOption(String),
    /// The same option twice.
    #[error("{0} is given twice: keep one")]
    OptionTwice(&'static str),
    /// An option's value is not between double quotes, or they do not end.
    #[error("the value of {0} must stand between double quotes, without spaces around the comma that may follow")]
    Quotes(String),
    /// Neither `YYYYMMDDZ` nor `YYYYMMDDHHMM[SS]Z`, or no such moment.
    #[error("{0:?} is not a time: write YYYYMMDDZ, YYYYMMDDHHMMZ or YYYYMMDDHHMMSSZ")]
    Time(String),
    /// A time without `Z` means another moment on each machine.
    #[error("{0:?} has no zone: add a Z and write it in UTC, so that it means the same everywhere")]
    Zone(String),
    /// `valid-before` is not after `valid-after`.
    #[error("valid-before is not later than valid-after: the key would never be valid")]
    NeverValid,
    /// The key is missing, damaged, weak or of a type that may not sign.
    #[error("the key: {0}")]
    Key(PublicKeyError),
    /// The key is already on another line.
    #[error("the key is already on line {0}: each key may be listed once, for one principal")]
    KeyTwice(usize),
}

/// Why a key may not speak for a principal here and now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustRefusal {
    /// The file lists no such principal.
    #[error("{0} is not in allowed_signers")]
    UnknownPrincipal(Principal),
    /// The file lists the principal, but not with this key.
    #[error("the key {fingerprint} is not one of {principal}'s in allowed_signers")]
    NotTheirKey {
        /// Who claims to have signed.
        principal: Principal,
        /// The key that did.
        fingerprint: String,
    },
    /// The key may not sign such messages.
    #[error("{principal}'s key may not sign for {namespace}: its line in allowed_signers does not list that namespace")]
    Namespace {
        /// Whose key it is.
        principal: Principal,
        /// What it was used for.
        namespace: Namespace,
    },
    /// The key's `valid-after` is still to come.
    #[error("{principal}'s key is valid only from {from} on")]
    NotYetValid {
        /// Whose key it is.
        principal: Principal,
        /// The first moment at which it is valid.
        from: Timestamp,
    },
    /// The key's `valid-before` has passed.
    #[error("{principal}'s key was valid only until {until}")]
    Expired {
        /// Whose key it is.
        principal: Principal,
        /// The last second at which it was valid.
        until: Timestamp,
    },
}

/// The trust root: who may sign what, with which key, when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedSigners {
    digest: [u8; 32],
    signers: Vec<Signer>,
}

/// One line of the trust root: a key, and what it counts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    line: usize,
    principal: Principal,
    key: PublicKey,
    namespaces: BTreeSet<Namespace>,
    valid_after: Option<i64>,
    valid_before: Option<i64>,
}

impl Signer {
    /// Whose key it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The key.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Whether the key may sign for `namespace`.
    pub fn may_sign(&self, namespace: Namespace) -> bool {
        self.namespaces.contains(&namespace)
    }
}

impl AllowedSigners {
    /// Reads the file's bytes. One wrong line refuses the file: a trust root is taken whole or not at all.
    pub fn parse(file: impl AsRef<[u8]>) -> Result<Self, TrustError> {
        let file = file.as_ref();
        if file.len() > ALLOWED_SIGNERS_MAX {
            return Err(TrustError::Oversized(file.len()));
        }
        let mut signers: Vec<Signer> = Vec::new();
        for (bytes, line) in file.split(|byte| *byte == b'\n').zip(1..) {
            let refused = |problem| TrustError::Line { line, problem };
            let Some(signer) = Signer::parse(line, plain_text(bytes).map_err(refused)?).map_err(refused)? else {
                continue;
            };
            if let Some(other) = signers.iter().find(|other| other.key.same_secret(&signer.key)) {
                return Err(refused(LineProblem::KeyTwice(other.line)));
            }
            signers.push(signer);
        }
        if signers.is_empty() {
            Err(TrustError::Empty)
        } else {
            Ok(Self { digest: Sha256::digest(file).into(), signers })
        }
    }

    /// SHA-256 of the file's bytes: what heartbeats compare.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The file's lines, in order.
    pub fn signers(&self) -> impl Iterator<Item = &Signer> {
        self.signers.iter()
    }

    /// The key with these bytes, if a line lists it.
    pub fn key(&self, blob: &[u8]) -> Option<&PublicKey> {
        self.signers.iter().map(Signer::key).find(|key| key.as_blob() == blob)
    }

    /// Whether some key speaks for `principal` in `namespace` at `at`.
    pub fn can_sign(&self, principal: &Principal, namespace: Namespace, at: Timestamp) -> bool {
        let theirs = self.signers.iter().filter(|signer| signer.principal == *principal);
        theirs.into_iter().any(|signer| self.authorise(principal, namespace, &signer.key, at).is_ok())
    }

    /// Whether `key` speaks for `principal` in `namespace` at `at`. Says nothing about any signature.
    pub fn authorise(
        &self,
        principal: &Principal,
        namespace: Namespace,
        key: &PublicKey,
        at: Timestamp,
    ) -> Result<(), TrustRefusal> {
        let principal = principal.clone();
        let mut theirs = self.signers.iter().filter(|signer| signer.principal == principal).peekable();
        if theirs.peek().is_none() {
            return Err(TrustRefusal::UnknownPrincipal(principal));
        }
        // A key is on one line only, so the first that is theirs is the only one.
        let Some(signer) = theirs.find(|signer| signer.key == *key) else {
            return Err(TrustRefusal::NotTheirKey { principal, fingerprint: key.fingerprint() });
        };
        if !signer.may_sign(namespace) {
            return Err(TrustRefusal::Namespace { principal, namespace });
        }
        // Whole seconds and both ends included, as ssh-keygen counts.
        let at = at.as_millis().div_euclid(1000);
        let moment = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
        if let Some(after) = signer.valid_after.filter(|after| at < *after) {
            return Err(TrustRefusal::NotYetValid { principal, from: moment(after) });
        }
        if let Some(before) = signer.valid_before.filter(|before| at > *before) {
            return Err(TrustRefusal::Expired { principal, until: moment(before) });
        }
        Ok(())
    }
}

impl FromStr for AllowedSigners {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        Self::parse(text)
    }
}

fn plain_text(line: &[u8]) -> Result<&str, LineProblem> {
    if line.ends_with(b"\r") {
        return Err(LineProblem::CarriageReturn);
    }
    let text = str::from_utf8(line).map_err(|_| LineProblem::NotText)?;
    if text.contains(|c: char| c.is_control() && c != '\t') { Err(LineProblem::NotText) } else { Ok(text) }
}

/// What separates the fields of a line.
const BLANK: [char; 2] = [' ', '\t'];

impl Signer {
    /// One line; `None` for a comment or an empty one.
    fn parse(line: usize, text: &str) -> Result<Option<Self>, LineProblem> {
        let text = text.trim_matches(BLANK);
        if text.is_empty() || text.starts_with('#') {
            return Ok(None);
        }
        let (principal, rest) = text.split_once(BLANK).ok_or(LineProblem::NamespacesMissing)?;
        let principal = literal(principal)?;
        let (options, key) = split_options(rest.trim_start_matches(BLANK))?;
        if ["ssh-", "sk-", "ecdsa-"].iter().any(|prefix| options.starts_with(prefix)) {
            return Err(LineProblem::NamespacesMissing);
        }
        let options = Options::parse(options)?;
        let key = PublicKey::from_openssh(key).map_err(LineProblem::Key)?;
        let namespaces = options.namespaces.ok_or(LineProblem::NamespacesMissing)?;
        let (valid_after, valid_before) = (options.valid_after, options.valid_before);
        if valid_after.zip(valid_before).is_some_and(|(after, before)| before <= after) {
            return Err(LineProblem::NeverValid);
        }
        Ok(Some(Self { line, principal, key, namespaces, valid_after, valid_before }))
    }
}

fn literal(text: &str) -> Result<Principal, LineProblem> {
    if text.contains(['*', '?', '!']) {
        return Err(LineProblem::Pattern(shorten(text)));
    }
    if text.contains(',') {
        return Err(LineProblem::Several(shorten(text)));
    }
    text.parse().map_err(LineProblem::Principal)
}

/// The options up to the first blank outside quotes, and what follows.
fn split_options(text: &str) -> Result<(&str, &str), LineProblem> {
    let mut quoted = false;
    for (index, character) in text.char_indices() {
        match character {
            '"' => quoted = !quoted,
            ' ' | '\t' if !quoted => return Ok((&text[..index], text[index..].trim_start_matches(BLANK))),
            _ => {}
        }
    }
    if quoted { Err(LineProblem::Quotes(shorten(text))) } else { Ok((text, "")) }
}

#[derive(Default)]
struct Options {
    namespaces: Option<BTreeSet<Namespace>>,
    valid_after: Option<i64>,
    valid_before: Option<i64>,
}

impl Options {
    fn parse(mut text: &str) -> Result<Self, LineProblem> {
        let mut options = Self::default();
        loop {
            let end = text.find(['=', ',']).unwrap_or(text.len());
            let name = text[..end].to_ascii_lowercase();
            let rest = match name.as_str() {
                "namespaces" => {
                    let (value, rest) = quoted(&name, &text[end..])?;
                    set(&mut options.namespaces, "namespaces=", namespaces(value)?)?;
                    rest
                }
                "valid-after" => {
                    let (value, rest) = quoted(&name, &text[end..])?;
                    set(&mut options.valid_after, "valid-after=", seconds(value)?)?;
                    rest
                }
                "valid-before" => {
                    let (value, rest) = quoted(&name, &text[end..])?;
                    set(&mut options.valid_before, "valid-before=", seconds(value)?)?;
                    rest
                }
                "cert-authority" => return Err(LineProblem::CertAuthority),
                _ => return Err(LineProblem::UnknownOption(shorten(&name))),
            };
            match rest.strip_prefix(',') {
                Some(next) => text = next,
                None if rest.is_empty() => return Ok(options),
                None => return Err(LineProblem::Quotes(format!("{name}="))),
            }
        }
    }
}

/// The value of `="value"`, and what follows. No value that is accepted needs a quote of its own.
fn quoted<'a>(name: &str, text: &'a str) -> Result<(&'a str, &'a str), LineProblem> {
    text.strip_prefix("=\"")
        .and_then(|rest| rest.split_once('"'))
        .ok_or_else(|| LineProblem::Quotes(format!("{name}=")))
}

fn set<T>(place: &mut Option<T>, name: &'static str, value: T) -> Result<(), LineProblem> {
    match place.replace(value) {
        Some(_) => Err(LineProblem::OptionTwice(name)),
        None => Ok(()),
    }
}

fn namespaces(list: &str) -> Result<BTreeSet<Namespace>, LineProblem> {
    let known = |text: &str| Namespace::ALL.into_iter().find(|namespace| namespace.as_str() == text);
    list.split(',').map(|text| known(text).ok_or_else(|| LineProblem::Namespace(shorten(text)))).collect()
}

/// Seconds since 1970 of `YYYYMMDDZ`, `YYYYMMDDHHMMZ` or `YYYYMMDDHHMMSSZ`.
fn seconds(text: &str) -> Result<i64, LineProblem> {
    let wrong = || LineProblem::Time(shorten(text));
    let zone = text.ends_with('Z');
    let digits = text.strip_suffix('Z').unwrap_or(text);
    if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    if !zone {
        return Err(LineProblem::Zone(shorten(text)));
    }
    // Two digits at `at`; 0 where the shorter forms have none.
    let two = |at: usize| digits.get(at..at + 2).map_or(Ok(0), str::parse::<i8>).map_err(|_| wrong());
    let year: i16 = digits[..4].parse().map_err(|_| wrong())?;
    let time =
        jiff::civil::DateTime::new(year, two(4)?, two(6)?, two(8)?, two(10)?, two(12)?, 0).map_err(|_| wrong())?;
    let time = jiff::tz::TimeZone::UTC.to_timestamp(time).map_err(|_| wrong())?;
    // 0 is how OpenSSH writes down that there is no limit, so it takes no such time either.
    if time.as_second() > 0 { Ok(time.as_second()) } else { Err(wrong()) }
}

fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Two real public keys; the second is a token's.
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
    const BASEPOINT: [u8; 32] = {
        let mut bytes = [0x66; 32];
        bytes[0] = 0x58;
        bytes
    };

    fn other_key() -> String {
        PublicKey::from_ed25519(BASEPOINT).expect("the base point has a large order").to_openssh()
    }

    fn name(text: &str) -> Principal {
        text.parse().expect("a name")
    }

    fn key(text: &str) -> PublicKey {
        text.parse().expect("a key")
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn problem(file: &str) -> LineProblem {
        match AllowedSigners::parse(file) {
            Err(TrustError::Line { problem, .. }) => problem,
            other => panic!("{file:?}: {other:?}"),
        }
    }

    #[test]
    fn a_listed_key_speaks_for_its_principal_in_its_namespaces_and_for_nothing_else() {
        let file = format!(
            "# operators\n\n  alice\tNamespaces=\"holdfast.order,holdfast.approval\"  {KEY} Alice's laptop\n\
             \tbob namespaces=\"holdfast.order\" {}",
            other_key()
        );
        let signers = AllowedSigners::parse(&file).expect("a sound file");
        assert_eq!(signers.digest(), <[u8; 32]>::from(Sha256::digest(&file)));
        assert_eq!(signers.signers().map(|s| s.principal().as_str()).collect::<Vec<_>>(), ["alice", "bob"]);
        let now = Timestamp::default();
        let ask = |who: &str, what, with: &str| signers.authorise(&name(who), what, &key(with), now);

        assert_eq!(ask("alice", Namespace::Order, KEY), Ok(()));
        assert_eq!(ask("alice", Namespace::Approval, KEY), Ok(()));
        assert_eq!(ask("bob", Namespace::Order, &other_key()), Ok(()));
        let (principal, namespace) = (name("bob"), Namespace::Approval);
        assert_eq!(ask("bob", namespace, &other_key()), Err(TrustRefusal::Namespace { principal, namespace }));
        let (principal, fingerprint) = (name("bob"), key(KEY).fingerprint());
        assert_eq!(ask("bob", Namespace::Order, KEY), Err(TrustRefusal::NotTheirKey { principal, fingerprint }));
        assert_eq!(ask("carol", Namespace::Order, KEY), Err(TrustRefusal::UnknownPrincipal(name("carol"))));
    }

    #[test]
    fn a_principal_may_have_several_keys() {
        let both = ["holdfast.event", "holdfast.report"].map(|namespace| format!("s namespaces=\"{namespace}\""));
        let signers =
            AllowedSigners::parse(format!("{} {KEY}\n{} {}\n", both[0], both[1], other_key())).expect("sound");
        let ask = |what, with: &str| signers.authorise(&name("s"), what, &key(with), Timestamp::default());
        assert_eq!(ask(Namespace::Event, KEY), Ok(()));
        assert_eq!(ask(Namespace::Report, &other_key()), Ok(()));
        // What one key may, the principal's other may not.
        assert!(matches!(ask(Namespace::Event, &other_key()), Err(TrustRefusal::Namespace { .. })));
    }

    #[test]
    fn a_key_counts_from_its_first_second_to_its_last() {
        let file = format!(
            "a namespaces=\"holdfast.order\",valid-after=\"20260110Z\",valid-before=\"202601111230Z\" {KEY}\n\
             b valid-before=\"20260111123001Z\",namespaces=\"holdfast.order\" {}\n",
            other_key()
        );
        let signers = AllowedSigners::parse(&file).expect("sound");
        let a = |when: &str| signers.authorise(&name("a"), Namespace::Order, &key(KEY), at(when));
        assert!(matches!(a("2026-01-09T23:59:59.999Z"), Err(TrustRefusal::NotYetValid { .. })));
        assert_eq!(a("2026-01-10T00:00:00.000Z"), Ok(()));
        assert_eq!(a("2026-01-11T12:30:00.999Z"), Ok(()));
        let until = at("2026-01-11T12:30:00.000Z");
        assert_eq!(a("2026-01-11T12:30:01.000Z"), Err(TrustRefusal::Expired { principal: name("a"), until }));
        let b = |when: &str| signers.authorise(&name("b"), Namespace::Order, &key(&other_key()), at(when));
        assert_eq!(b("2026-01-11T12:30:01.000Z"), Ok(()));
        assert!(matches!(b("2026-01-11T12:30:02.000Z"), Err(TrustRefusal::Expired { .. })));
    }

    #[test]
    fn each_line_that_would_widen_trust_is_refused_by_name() {
        let order = "namespaces=\"holdfast.order\"";
        for (line, expected) in [
            (format!("alice {KEY}"), LineProblem::NamespacesMissing),
            ("alice".into(), LineProblem::NamespacesMissing),
            (format!("alice valid-after=\"20260101Z\" {KEY}"), LineProblem::NamespacesMissing),
            (format!("* {order} {KEY}"), LineProblem::Pattern("*".into())),
            (format!("al?ce {order} {KEY}"), LineProblem::Pattern("al?ce".into())),
            (format!("*,!bob {order} {KEY}"), LineProblem::Pattern("*,!bob".into())),
            (format!("alice,bob {order} {KEY}"), LineProblem::Several("alice,bob".into())),
            (format!("Alice {order} {KEY}"), LineProblem::Principal(NameError::Name("Alice".into()))),
            (format!("\"alice\" {order} {KEY}"), LineProblem::Principal(NameError::Name("\"alice\"".into()))),
            (format!("\u{feff}alice {order} {KEY}"), LineProblem::Principal(NameError::Name("\u{feff}alice".into()))),
            (format!("alice namespaces=\"holdfast.*\" {KEY}"), LineProblem::Namespace("holdfast.*".into())),
            (format!("alice namespaces=\"!holdfast.order\" {KEY}"), LineProblem::Namespace("!holdfast.order".into())),
            (format!("alice namespaces=\"holdfast.order,\" {KEY}"), LineProblem::Namespace(String::new())),
            (format!("alice namespaces=\"\" {KEY}"), LineProblem::Namespace(String::new())),
            (format!("alice namespaces=\"holdfast.order, file\" {KEY}"), LineProblem::Namespace(" file".into())),
            (format!("alice namespaces=\"Holdfast.Order\" {KEY}"), LineProblem::Namespace("Holdfast.Order".into())),
            (format!("alice namespaces=holdfast.order {KEY}"), LineProblem::Quotes("namespaces=".into())),
            (format!("alice namespaces {KEY}"), LineProblem::Quotes("namespaces=".into())),
            (format!("alice {order}x {KEY}"), LineProblem::Quotes("namespaces=".into())),
            (format!("alice {order}, {KEY}"), LineProblem::UnknownOption(String::new())),
            (format!("alice cert-authority,{order} {KEY}"), LineProblem::CertAuthority),
            (format!("alice {order},CERT-AUTHORITY {KEY}"), LineProblem::CertAuthority),
            (format!("alice {order},no-touch-required {KEY}"), LineProblem::UnknownOption("no-touch-required".into())),
            (format!("alice {order},{order} {KEY}"), LineProblem::OptionTwice("namespaces=")),
            (format!("alice {order},valid-after=\"20260101\" {KEY}"), LineProblem::Zone("20260101".into())),
            (format!("alice {order},valid-after=\"2026-01-01Z\" {KEY}"), LineProblem::Time("2026-01-01Z".into())),
            (format!("alice {order},valid-before=\"20260230Z\" {KEY}"), LineProblem::Time("20260230Z".into())),
            (format!("alice {order},valid-before=\"202601012400Z\" {KEY}"), LineProblem::Time("202601012400Z".into())),
            (format!("alice {order},valid-before=\"\" {KEY}"), LineProblem::Time(String::new())),
            (
                format!("alice {order},valid-after=\"20260102Z\",valid-before=\"20260102Z\" {KEY}"),
                LineProblem::NeverValid,
            ),
            (format!("alice {order}"), LineProblem::Key(PublicKeyError::Text)),
            (format!("alice {order} ssh-ed25519"), LineProblem::Key(PublicKeyError::Text)),
            (format!("alice {order} {}", &KEY[..KEY.len() - 4]), LineProblem::Key(PublicKeyError::Damaged)),
            (format!("alice {order} ssh-rsa AAAA"), LineProblem::Key(PublicKeyError::Type("ssh-rsa".into()))),
            (format!("alice {order} {KEY}\r"), LineProblem::CarriageReturn),
            (format!("alice {order} {KEY} \u{1b}[2J"), LineProblem::NotText),
        ] {
            assert_eq!(problem(&line), expected, "{line:?}");
        }
    }

    #[test]
    fn a_key_is_listed_once() {
        let line = |who: &str| format!("{who} namespaces=\"holdfast.order\" {KEY}\n");
        let twice = format!("{}# between\n{}", line("alice"), line("bob"));
        assert_eq!(problem(&twice), LineProblem::KeyTwice(1));
        assert_eq!(AllowedSigners::parse(&twice).map_err(|error| error.line()).err(), Some(Some(3)));
        assert_eq!(problem(&line("alice").repeat(2)), LineProblem::KeyTwice(1));
    }

    #[test]
    fn a_file_of_nothing_or_of_too_much_is_refused() {
        assert_eq!(AllowedSigners::parse(""), Err(TrustError::Empty));
        assert_eq!(AllowedSigners::parse("# nobody\n\n"), Err(TrustError::Empty));
        let large = "#".repeat(ALLOWED_SIGNERS_MAX + 1);
        assert_eq!(AllowedSigners::parse(&large), Err(TrustError::Oversized(large.len())));
        assert_eq!(AllowedSigners::parse(b"# \xff\n").map_err(|error| error.line()).err(), Some(Some(1)));
    }
}
