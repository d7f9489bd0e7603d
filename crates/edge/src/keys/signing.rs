//! The key by which a daemon signs what it says: OpenSSH's Ed25519, in a file that only its owner may read.
//!
//! An operator's key may live elsewhere, behind a passphrase or in an agent (`operator`): [`Sign`] is what both can do.

use std::path::{Path, PathBuf};

use ed25519_dalek::Signer;
use holdfast_core::envelope::Envelope;
use holdfast_core::sshsig::{HashAlg, PublicKey, PublicKeyError, armor_ed25519, signed_data};
use holdfast_core::trust::Namespace;
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey};
use zeroize::Zeroizing;

use crate::files::{self, FileError};

/// The largest private key file that is read, in bytes: an Ed25519 key has some 400, a comment may be long.
pub const KEY_FILE_MAX: usize = 8 * 1024;

/// A private key that signs. Its secret is wiped when dropped, and it is never shown.
pub struct SigningKey {
    secret: ed25519_dalek::SigningKey,
    public: PublicKey,
}

/// Whatever signs messages: a daemon's file, or whichever key an operator has.
pub trait Sign {
    /// The public half.
    fn public_key(&self) -> &PublicKey;

    /// Signs a message's body and puts both into an envelope: the bytes that go on the wire.
    fn seal(&self, namespace: Namespace, body: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// Why nothing was signed. A daemon's key always signs; an operator's may be out of reach.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The agent did not sign.
    #[cfg(feature = "operator")]
    #[error(transparent)]
    Agent(#[from] super::AgentError),
    /// The key stayed locked.
    #[cfg(feature = "operator")]
    #[error(transparent)]
    Passphrase(#[from] super::PassphraseError),
}

/// Why there is no signing key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is empty.
    #[error("{} is empty: restore the signing key, or enroll again", .0.display())]
    Empty(PathBuf),
    /// The file has something else in it, or only a part of a key.
    #[error("{} is not an OpenSSH private key, or is damaged ({reason}): restore it, or enroll again", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key needs a passphrase, and a daemon has nobody to ask.
    #[error("{} is encrypted with a passphrase, and nobody is there to type it: ssh-keygen -p -N '' -f {}", .0.display(), .0.display())]
    Encrypted(PathBuf),
    /// A key of another algorithm.
    #[error("{} is a key of type {found}, not ssh-ed25519: make one with ssh-keygen -t ed25519", .path.display())]
    Type {
        /// The file.
        path: PathBuf,
        /// The key's type.
        found: String,
    },
    /// Neither a private key nor the public half of one that may sign.
    #[error("{} is neither an OpenSSH private key nor the public half of a key in an ssh-agent: {reason}", .path.display())]
    Operator {
        /// The file.
        path: PathBuf,
        /// Why it is no public key.
        reason: PublicKeyError,
    },
    /// The public half is one that nobody accepts.
    #[error("the signing key: {0}")]
    Public(#[from] PublicKeyError),
    /// The key could not be put into OpenSSH's format.
    #[error("the signing key cannot be encoded: {0}")]
    Encode(ssh_key::Error),
    /// The system gave no random numbers.
    #[error("the system gave no random numbers for a new key: {0}")]
    Random(getrandom::Error),
}

impl KeyError {
    pub(super) fn damaged(path: &Path, error: &ssh_key::Error) -> Self {
        Self::Damaged { path: path.to_owned(), reason: error.to_string() }
    }
}

impl SigningKey {
    /// Reads an unencrypted OpenSSH private key that nobody but its owner has any right to.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        Self::from_openssh(path, &files::read_secret(path, KEY_FILE_MAX)?)
    }

    /// A new key, from the system's random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(secret.as_mut_slice()).map_err(KeyError::Random)?;
        Self::from_secret(&secret)
    }

    /// Writes the key to a new file that only its owner may read. Never overwrites one.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let pair = Ed25519Keypair::from_seed(self.secret.as_bytes());
        let key = PrivateKey::new(KeypairData::Ed25519(pair), "").map_err(KeyError::Encode)?;
        let text = key.to_openssh(LineEnding::LF).map_err(KeyError::Encode)?;
        Ok(files::create_secret(path, text.as_bytes())?)
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// The public half as the line of a `.pub` file, without its line feed.
    pub fn public_openssh(&self, comment: &str) -> String {
        format!("{} {comment}", self.public).trim_end().to_owned()
    }

    /// Signs `message`: an armoured signature, as `ssh-keygen -Y sign -n NAMESPACE` makes it.
    pub fn sign(&self, namespace: &str, message: &[u8]) -> String {
        let signature = self.secret.sign(&signed_data(namespace, HashAlg::Sha512, message)).to_bytes();
        armor_ed25519(&self.public, namespace, HashAlg::Sha512, &signature)
    }

    /// From the bytes of the file at `path`.
    pub(super) fn from_openssh(path: &Path, file: &[u8]) -> Result<Self, KeyError> {
        if file.trim_ascii().is_empty() {
            return Err(KeyError::Empty(path.to_owned()));
        }
        let key = PrivateKey::from_openssh(file).map_err(|error| KeyError::damaged(path, &error))?;
        if key.is_encrypted() {
            return Err(KeyError::Encrypted(path.to_owned()));
        }
        match key.key_data() {
            KeypairData::Ed25519(pair) => Self::from_secret(pair.private.as_ref()),
            _ => Err(KeyError::Type { path: path.to_owned(), found: key.algorithm().to_string() }),
        }
    }

    pub(super) fn from_secret(secret: &[u8; 32]) -> Result<Self, KeyError> {
        let secret = ed25519_dalek::SigningKey::from_bytes(secret);
        let public = PublicKey::from_ed25519(secret.verifying_key().to_bytes())?;
        Ok(Self { secret, public })
    }
}

impl Sign for SigningKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn seal(&self, namespace: Namespace, body: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(Envelope::assemble(body, &self.sign(namespace.as_str(), body)))
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.public.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use holdfast_core::id::Principal;
    use holdfast_core::time::Timestamp;
    use holdfast_core::trust::AllowedSigners;
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    thread_local! {
        static SAVED: Vec<u8> = saved();
    }

    fn directory() -> TempDir {
        TempDir::new().expect("a directory")
    }

    fn load(bytes: &[u8]) -> Result<SigningKey, KeyError> {
        SigningKey::from_openssh(Path::new("signing.key"), bytes)
    }

    fn saved() -> Vec<u8> {
        let dir = directory();
        let path = dir.path().join("signing.key");
        SigningKey::from_secret(&[7; 32]).expect("a key").save(&path).expect("a new file");
        fs::read(path).expect("just saved")
    }

    #[test]
    fn a_saved_key_is_loaded_again_and_what_it_seals_is_verified() {
        let dir = directory();
        let path = dir.path().join("signing.key");
        let key = SigningKey::generate().expect("random numbers");
        key.save(&path).expect("a new file");
        assert!(matches!(key.save(&path), Err(KeyError::File(FileError::Exists { .. }))));
        let loaded = SigningKey::load(&path).expect("just saved");
        assert_eq!(loaded.public_key(), key.public_key());
        assert_ne!(SigningKey::generate().expect("random numbers").public_key(), key.public_key());

        let line = format!("sentinel-1 namespaces=\"holdfast.event\" {}", loaded.public_openssh("sentinel-1"));
        let signers = AllowedSigners::parse(line).expect("a sound line");
        let envelope =
            Envelope::parse(&loaded.seal(Namespace::Event, b"sealed").expect("a file signs")).expect("an envelope");
        let who: Principal = "sentinel-1".parse().expect("a name");
        assert_eq!(envelope.body(), b"sealed");
        assert_eq!(envelope.verify(&signers, &who, Namespace::Event, Timestamp::default()), Ok(()));
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_command_that_mends_it() {
        let dir = directory();
        let path = dir.path().join("signing.key");
        SigningKey::generate().expect("random numbers").save(&path).expect("a new file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("a file of this test");
        let error = SigningKey::load(&path).expect_err("the group may read it").to_string();
        assert!(error.ends_with(&format!("chmod 600 {}", path.display())), "{error}");
    }

    #[test]
    fn what_is_no_key_is_refused_by_name() {
        assert!(matches!(load(b""), Err(KeyError::Empty(_))));
        assert!(matches!(load(b" \n"), Err(KeyError::Empty(_))));
        assert!(matches!(load(b"not a key"), Err(KeyError::Damaged { .. })));
        let whole = saved();
        assert!(load(&whole).is_ok());
        for len in 1..whole.len() - 1 {
            assert!(load(&whole[..len]).is_err(), "cut at {len}");
        }
        let dir = directory();
        let path = dir.path().join("signing.key");
        assert!(matches!(SigningKey::load(&path), Err(KeyError::File(FileError::Missing { .. }))));
        files::create_secret(&path, &[b'x'; KEY_FILE_MAX + 1]).expect("a new file");
        assert!(matches!(SigningKey::load(&path), Err(KeyError::File(FileError::Oversized { .. }))));
    }

    #[test]
    fn nothing_that_is_shown_has_the_secret_in_it() {
        let key = SigningKey::from_secret(&[0xA7; 32]).expect("a key");
        let shown = format!("{key:?}").to_lowercase();
        assert!(shown.contains(&key.public_key().fingerprint().to_lowercase()));
        assert!(!shown.contains("167") && !shown.contains("a7a7"), "{shown}");
    }

    proptest! {
        #[test]
        fn a_changed_key_file_is_refused_or_is_the_same_key(at in any::<prop::sample::Index>(), with in any::<u8>()) {
            let mut bytes = SAVED.with(Vec::clone);
            let at = at.index(bytes.len());
            bytes[at] = with;
            let original = SigningKey::from_secret(&[7; 32]).expect("a key");
            if let Ok(key) = load(&bytes) {
                prop_assert_eq!(key.public_key(), original.public_key());
            }
        }
    }
}
