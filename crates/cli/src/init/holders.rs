//! The holders of a ceremony: people who keep a share for the night when custodians are lost, each with an OpenPGP key.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use holdfast_core::id::Principal;
use holdfast_edge::files;

use super::openpgp::Addressee;
use super::{InitError, PEOPLES_KEY_MAX, unix_seconds};

/// A holder as the arguments name one: `FILE` or `NAME=FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invitation {
    name: Option<Principal>,
    path: PathBuf,
}

/// A person who is to get a share.
pub(crate) struct Person {
    /// What the manifest calls this person.
    pub(crate) name: Principal,
    /// Where the key was read from.
    pub(crate) path: PathBuf,
    /// The key.
    pub(crate) addressee: Addressee,
}

impl FromStr for Invitation {
    type Err = String;

    /// What stands before the first `=` is the name, where it is one; a path with a `=` in it can be given as `./PATH`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("expected FILE or NAME=FILE".to_owned());
        }
        let named = text.split_once('=').and_then(|(name, path)| Some((name.parse().ok()?, path)));
        Ok(match named {
            Some((name, path)) => Self { name: Some(name), path: path.into() },
            None => Self { name: None, path: text.into() },
        })
    }
}

/// Reads them all, in the order of their names.
pub(crate) fn read(invitations: &[Invitation]) -> Result<Vec<Person>, InitError> {
    let mut people = invitations.iter().map(read_one).collect::<Result<Vec<_>, _>>()?;
    people.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(people)
}

fn read_one(invitation: &Invitation) -> Result<Person, InitError> {
    let path = &invitation.path;
    let file = files::read_bounded(path, PEOPLES_KEY_MAX)?;
    let addressee =
        Addressee::from_file(&file, unix_seconds()).map_err(|why| InitError::Key { path: path.clone(), why })?;
    let name = match &invitation.name {
        Some(name) => name.clone(),
        None => name_in(path).ok_or_else(|| InitError::Unnamed { path: path.clone() })?,
    };
    Ok(Person { name, path: path.clone(), addressee })
}

/// `Alice.asc` is alice's.
fn name_in(path: &Path) -> Option<Principal> {
    path.file_stem()?.to_str()?.to_lowercase().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_has_the_name_that_was_given_or_the_files() {
        let name = |text: &str| {
            let invitation: Invitation = text.parse().expect(text);
            let name = invitation.name.clone().or_else(|| name_in(&invitation.path));
            (name.map(String::from), invitation.path)
        };
        let alice = Some("alice".to_owned());
        assert_eq!(name("keys/Alice.asc"), (alice.clone(), "keys/Alice.asc".into()));
        assert_eq!(name("alice=0xAB12.pub"), (alice, "0xAB12.pub".into()));
        assert_eq!(name("./a=b.asc"), (None, "./a=b.asc".into()));
        assert_eq!(name("alice example.asc"), (None, "alice example.asc".into()));
        assert!("".parse::<Invitation>().is_err());
    }
}
