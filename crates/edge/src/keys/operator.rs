//! An operator's key, wherever it lives: a file, a file behind a passphrase, or an agent that holds it, perhaps on a token.
//!
//! What `key` in operator.toml names is looked into, not guessed from its name. A passphrase is asked for at the terminal, once
//! in a command, and only when something is to be signed.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use holdfast_core::envelope::Envelope;
use holdfast_core::sshsig::{PublicKey, PublicKeyError};
use holdfast_core::trust::Namespace;
use ssh_key::private::KeypairData;
use ssh_key::{Algorithm, PrivateKey};
use zeroize::Zeroizing;

use super::agent::AgentKey;
use super::signing::{KEY_FILE_MAX, KeyError, Sign, SignError, SigningKey};
use crate::files;
use crate::terminal::{self, HiddenError};

/// The longest passphrase that is read, in bytes.
const PASSPHRASE_MAX: usize = 1024;

/// How often a mistyped passphrase is asked for again: as often as `ssh` does.
const TRIES: usize = 3;

/// What a private key's file begins with.
const PRIVATE: &[u8] = b"-----BEGIN ";

/// A key that a person signs with.
#[derive(Debug)]
pub enum OperatorKey {
    /// In a file of its owner's alone.
    File(SigningKey),
    /// In a file, behind a passphrase.
    Locked(Box<LockedKey>),
    /// In an agent, of which the file has the public half.
    Agent(AgentKey),
}

/// A key behind a passphrase.
pub struct LockedKey {
    path: PathBuf,
    public: PublicKey,
    encrypted: PrivateKey,
    open: OnceLock<SigningKey>,
}

/// Why a passphrase opened nothing. No message has anything in it of what was typed.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    /// Nobody is there to type it.
    #[error(
        "{} is encrypted, and its passphrase is asked for at a terminal alone: run the command at one, or ssh-add {} and let \
         key in operator.toml name the public half, {}.pub", .0.display(), .0.display(), .0.display()
    )]
    Nobody(PathBuf),
    /// Typed wrongly too often.
    #[error("that is not the passphrase of {}", .0.display())]
    Wrong(PathBuf),
    /// It could not be asked for, or was not given.
    #[error("no passphrase: {0}; nothing was signed")]
    Typed(#[from] HiddenError),
}

/// The agent that the environment names.
pub fn agent_socket() -> Option<PathBuf> {
    std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from)
}

impl OperatorKey {
    /// Looks into the file at `path`; what it says an agent holds is asked for at `agent`.
    pub fn load(path: &Path, agent: Option<PathBuf>) -> Result<Self, KeyError> {
        let bytes = Zeroizing::new(files::read_bounded(path, KEY_FILE_MAX)?);
        if !bytes.starts_with(PRIVATE) {
            return Ok(Self::Agent(AgentKey::new(public_half(path, &bytes)?, agent)));
        }
        // Again, with an eye on whom it lets read it.
        let bytes = files::read_secret(path, KEY_FILE_MAX)?;
        let key = PrivateKey::from_openssh(bytes.as_slice()).map_err(|error| KeyError::damaged(path, &error))?;
        let public = public_of(path, &key)?;
        if public.is_token() {
            // What is in a token's file makes the token sign, and nothing else: it is the agent that has the token.
            return Ok(Self::Agent(AgentKey::new(public, agent)));
        }
        if key.is_encrypted() {
            let (path, open) = (path.to_owned(), OnceLock::new());
            return Ok(Self::Locked(Box::new(LockedKey { path, public, encrypted: key, open })));
        }
        SigningKey::from_openssh(path, &bytes).map(Self::File)
    }
}

impl Sign for OperatorKey {
    fn public_key(&self) -> &PublicKey {
        match self {
            Self::File(key) => key.public_key(),
            Self::Locked(key) => &key.public,
            Self::Agent(key) => key.public_key(),
        }
    }

    fn seal(&self, namespace: Namespace, body: &[u8]) -> Result<Vec<u8>, SignError> {
        match self {
            Self::File(key) => Sign::seal(key, namespace, body),
            Self::Locked(key) => Sign::seal(key.unlock()?, namespace, body),
            Self::Agent(key) => Ok(Envelope::assemble(body, &key.sign(namespace.as_str(), body)?)),
        }
    }
}

impl LockedKey {
    /// The key, once somebody typed its passphrase.
    fn unlock(&self) -> Result<&SigningKey, SignError> {
        if let Some(key) = self.open.get() {
            return Ok(key);
        }
        let key = self.ask()?;
        Ok(self.open.get_or_init(|| key))
    }

    fn ask(&self) -> Result<SigningKey, PassphraseError> {
        if !terminal::is_there() {
            return Err(PassphraseError::Nobody(self.path.clone()));
        }
        let prompt = format!("passphrase of {} (nothing is shown): ", self.path.display());
        for _ in 0..TRIES {
            let typed = terminal::read_hidden(&prompt, PASSPHRASE_MAX)?;
            if let Some(key) = self.open_with(&typed) {
                return Ok(key);
            }
        }
        Err(PassphraseError::Wrong(self.path.clone()))
    }

    /// The key, if that is its passphrase, and the file says truly whose key is in it.
    pub fn open_with(&self, passphrase: &[u8]) -> Option<SigningKey> {
        let opened = self.encrypted.decrypt(passphrase).ok()?;
        let KeypairData::Ed25519(pair) = opened.key_data() else { return None };
        let key = SigningKey::from_secret(pair.private.as_ref()).ok()?;
        (*key.public_key() == self.public).then_some(key)
    }
}

impl std::fmt::Debug for LockedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LockedKey({})", self.public.fingerprint())
    }
}

fn public_half(path: &Path, bytes: &[u8]) -> Result<PublicKey, KeyError> {
    let text = str::from_utf8(bytes).map_err(|_| PublicKeyError::Text).and_then(str::parse);
    text.map_err(|reason| KeyError::Operator { path: path.to_owned(), reason })
}

/// The public half of a private key's file: it stands in the clear in front of what is encrypted.
fn public_of(path: &Path, key: &PrivateKey) -> Result<PublicKey, KeyError> {
    let algorithm = key.algorithm();
    match algorithm {
        Algorithm::Ed25519 | Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256 => {}
        _ => return Err(KeyError::Type { path: path.to_owned(), found: algorithm.to_string() }),
    }
    let text = key.public_key().to_openssh().map_err(|error| KeyError::damaged(path, &error))?;
    Ok(text.parse()?)
}
