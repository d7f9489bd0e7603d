//! The age identity that a custodian's secrets are encrypted to at rest, in the file that `age-keygen` makes.
//!
//! The native kind alone, X25519: no plugin, because a plugin is a program that a daemon would have to run, and no
//! passphrase, because nobody is there to type it.

use std::fmt;
use std::io::{Read, Write};
use std::iter;
use std::path::{Path, PathBuf};

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::ExposeSecret;
use age::x25519;
use age::{DecryptError, Decryptor, EncryptError, Encryptor};
use holdfast_core::ceremony::AgeRecipient;
use holdfast_core::time::Timestamp;
use zeroize::Zeroizing;

use crate::files::{self, FileError};
use crate::residue;

/// The largest identity file that is read, in bytes: `age-keygen` writes 190, comments may be added.
pub const IDENTITY_FILE_MAX: usize = 8 * 1024;

const SECRET_PREFIX: &str = "AGE-SECRET-KEY-1";

/// A private key that decrypts what was encrypted to its recipient. Wiped when dropped, and never shown. On the heap: moved, it leaves no copy.
pub struct AgeIdentity(Box<x25519::Identity>);

/// Why there is no identity. No message quotes the file.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// No line of the file is a private key.
    #[error("{} has no AGE-SECRET-KEY-1 line in it: restore the age identity, or enroll again", .0.display())]
    None(PathBuf),
    /// A line is neither a comment nor a native private key.
    #[error("{}:{line}: not an age private key: only AGE-SECRET-KEY-1 lines and # comments belong there", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
    /// Two private keys, and it would be a guess which one counts.
    #[error("{}:{line}: a second age private key: keep one identity in a file", .path.display())]
    Second {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
}

/// Not a recipient that anything could be encrypted to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not an age recipient: its checksum does not hold")]
pub struct RecipientError(AgeRecipient);

/// Why an age file did not open. Whoever names the file adds its path.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not an age file, or only a part of one, or altered.
    #[error("it is not an age file, or is damaged")]
    Damaged,
    /// Encrypted to somebody else.
    #[error("it is not encrypted to this identity")]
    NotOurs,
    /// More in it than belongs there.
    #[error("it has more than {0} bytes in it")]
    Oversized(usize),
}

impl AgeIdentity {
    /// Reads an identity file that nobody but its owner has any right to.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        residue::leaving_none(|| Self::parse_file(path))
    }

    pub(crate) fn parse_file(path: &Path) -> Result<Self, IdentityError> {
        let file = files::read_secret(path, IDENTITY_FILE_MAX)?;
        let mut identity = None;
        for (index, line) in file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).enumerate() {
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let refused = || IdentityError::Line { path: path.to_owned(), line: index + 1 };
            let text = str::from_utf8(line).map_err(|_| refused())?;
            if !text.starts_with(SECRET_PREFIX) {
                return Err(refused());
            }
            let parsed = text.parse().map_err(|_| refused())?;
            if identity.replace(parsed).is_some() {
                return Err(IdentityError::Second { path: path.to_owned(), line: index + 1 });
            }
        }
        identity.map(|identity| Self(Box::new(identity))).ok_or_else(|| IdentityError::None(path.to_owned()))
    }

    /// A new identity, from the system's random numbers.
    pub fn generate() -> Self {
        Self(Box::new(x25519::Identity::generate()))
    }

    /// Writes the identity to a new file, as `age-keygen` does. Never overwrites one.
    pub fn save(&self, path: &Path, now: Timestamp) -> Result<(), IdentityError> {
        let secret = self.0.to_string();
        let head = format!("# created: {now}\n# public key: {}\n", self.0.to_public());
        let mut text = Zeroizing::new(Vec::with_capacity(head.len() + secret.expose_secret().len() + 1));
        text.extend_from_slice(head.as_bytes());
        text.extend_from_slice(secret.expose_secret().as_bytes());
        text.push(b'\n');
        Ok(files::create_secret(path, &text)?)
    }

    /// What others encrypt to.
    pub fn recipient(&self) -> Recipient {
        Recipient(self.0.to_public())
    }

    /// Decrypts an age file, binary or armoured, of at most `max` bytes of content. Nothing comes out unless the whole of it
    /// is authentic. What comes out is wiped when dropped, and never was moved.
    pub fn decrypt(&self, file: &[u8], max: usize) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        residue::leaving_none(|| self.open(file, max))
    }

    pub(crate) fn open(&self, file: &[u8], max: usize) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let opened = |error| match error {
            DecryptError::NoMatchingKeys => OpenError::NotOurs,
            _ => OpenError::Damaged,
        };
        let decryptor = Decryptor::new_buffered(ArmoredReader::new(file)).map_err(opened)?;
        let mut reader = decryptor.decrypt(iter::once(&*self.0 as _)).map_err(opened)?;
        // One more than may be there, to see that there is no more; never grown, because growing leaves a copy behind.
        let mut plaintext = Zeroizing::new(vec![0; max + 1]);
        let mut filled = 0;
        while filled < plaintext.len() {
            match reader.read(&mut plaintext[filled..]).map_err(|_| OpenError::Damaged)? {
                0 => break,
                count => filled += count,
            }
        }
        if filled > max {
            return Err(OpenError::Oversized(max));
        }
        plaintext.truncate(filled);
        Ok(plaintext)
    }
}

impl fmt::Debug for AgeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgeIdentity({})", self.0.to_public())
    }
}

/// A public key that things can be encrypted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient(x25519::Recipient);

impl Recipient {
    /// From an enrollment's or a manifest's text, checksum and all.
    pub fn parse(text: &AgeRecipient) -> Result<Self, RecipientError> {
        text.as_str().parse().map(Self).map_err(|_| RecipientError(text.clone()))
    }

    /// As an enrollment's text.
    pub fn to_text(&self) -> AgeRecipient {
        self.0.to_string().parse().expect("age writes recipients in the one form there is")
    }

    /// Encrypts `plaintext` to an armoured age file. The library leaves a copy of it in freed memory: programs that call this
    /// wipe what they free.
    pub fn encrypt(&self, plaintext: &[u8]) -> Result<Vec<u8>, EncryptError> {
        let encryptor = Encryptor::with_recipients(iter::once(&self.0 as _))?;
        let armor = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor)?;
        let mut writer = encryptor.wrap_output(armor)?;
        writer.write_all(plaintext)?;
        Ok(writer.finish()?.finish()?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write(path: &Path, text: &str) {
        fs::write(path, text).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("the mode set");
    }

    #[test]
    fn an_identity_reads_back_and_decrypts_what_was_encrypted_to_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("identity.txt");
        let made = AgeIdentity::generate();
        made.save(&path, Timestamp::from_millis(0)).expect("saved");
        assert!(matches!(made.save(&path, Timestamp::default()), Err(IdentityError::File(FileError::Exists { .. }))));
        let read = AgeIdentity::load(&path).expect("our own");
        assert_eq!(read.recipient(), made.recipient());
        assert_eq!(Recipient::parse(&made.recipient().to_text()), Ok(made.recipient()));

        let file = made.recipient().encrypt(b"a secret").expect("encrypted");
        assert!(file.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----\n"));
        assert_eq!(read.decrypt(&file, 8).expect("ours").as_slice(), b"a secret");
        assert!(matches!(read.decrypt(&file, 7), Err(OpenError::Oversized(7))));
        assert!(matches!(AgeIdentity::generate().decrypt(&file, 8), Err(OpenError::NotOurs)));
        for cut in 0..file.len() - 1 {
            assert!(read.decrypt(&file[..cut], 8).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_identity_is_refused_and_never_quoted() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("identity.txt");
        let good = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
        write(&path, good);
        AgeIdentity::load(&path).expect("age's own test key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("the mode set");
        let readable = AgeIdentity::load(&path).expect_err("everybody may read it").to_string();
        assert!(readable.contains("chmod 600"), "{readable}");
        for (text, expected) in [
            (String::new(), "has no AGE-SECRET-KEY-1 line"),
            ("# only a comment\n".to_owned(), "has no AGE-SECRET-KEY-1 line"),
            (good[..40].to_owned(), "txt:1: not an age private key"),
            (format!("# public\n{}\n", good.replace("FPYY", "FPYZ")), "txt:2: not an age private key"),
            ("AGE-PLUGIN-YUBIKEY-1QQ".to_owned(), "txt:1: not an age private key"),
            (format!("{good}\n\n{good}\n"), "txt:3: a second age private key"),
        ] {
            write(&path, &text);
            let error = AgeIdentity::load(&path).expect_err(expected).to_string();
            assert!(error.contains(expected) && !error.contains("GFPYYSJZ"), "{error}");
        }
    }

    #[test]
    fn a_recipient_with_a_broken_checksum_is_refused() {
        let text: AgeRecipient = format!("age1{}", "q".repeat(58)).parse().expect("the form");
        assert!(Recipient::parse(&text).is_err());
    }
}
