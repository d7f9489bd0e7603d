//! Whether enrollments and keys are their owners': the one thing that no program can find out.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use holdfast_core::ceremony::{Fingerprint, OpenPgpFingerprint};
use holdfast_core::id::Principal;
use holdfast_edge::terminal;
use serde::{Deserialize, Serialize};

use super::InitError;
use super::openpgp::readable;
use super::plan::{PartyArguments, Plan};

/// How a fingerprint was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Compared {
    /// It was given as an argument.
    Given,
    /// A person said yes.
    Asked,
    /// It was not.
    Skipped,
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Given | Self::Asked => "fingerprint compared",
            Self::Skipped => "FINGERPRINT NOT COMPARED (--yes)",
        })
    }
}

/// A fingerprint as its owner reads it out: a custodian's person that of the enrollment, a holder that of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// An enrollment's.
    Enrollment(Fingerprint),
    /// A key's, as gpg shows it.
    Key(OpenPgpFingerprint),
}

impl FromStr for Spoken {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(fingerprint) = text.parse() {
            return Ok(Self::Enrollment(fingerprint));
        }
        let key = text.replace([' ', ':'], "").to_lowercase();
        key.parse().map(Self::Key).map_err(|_| {
            "not a fingerprint: a custodian's is five groups of four of A-Z and 2-7, a holder's key's 40 hexadecimal digits"
                .to_owned()
        })
    }
}

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enrollment(fingerprint) => fingerprint.fmt(f),
            Self::Key(fingerprint) => f.write_str(&readable(*fingerprint)),
        }
    }
}

/// Somebody whose fingerprint is compared.
struct Party<'a> {
    name: &'a Principal,
    path: &'a Path,
    found: Spoken,
}

/// Compares each with what was given; asks for the rest, unless they are to be skipped.
pub(crate) fn compare(plan: &Plan, arguments: &PartyArguments) -> Result<BTreeMap<Principal, Compared>, InitError> {
    let (given, skip) = (arguments.fingerprints.as_slice(), arguments.yes);
    let parties = parties(plan);
    for (index, (name, _)) in given.iter().enumerate() {
        if !parties.iter().any(|party| party.name == name) {
            return Err(InitError::Usage(format!(
                "--fingerprint {name}=…: there is no enrollment of {name}, and no holder of that name"
            )));
        }
        if given.iter().take(index).any(|(other, _)| other == name) {
            return Err(InitError::Usage(format!("--fingerprint {name}=… is given twice")));
        }
    }
    parties.iter().map(|party| Ok((party.name.clone(), compare_one(party, given, skip)?))).collect()
}

fn parties(plan: &Plan) -> Vec<Party<'_>> {
    let custodians = plan.candidates.iter().map(|candidate| Party {
        name: candidate.id(),
        path: &candidate.path,
        found: Spoken::Enrollment(candidate.signed.fingerprint()),
    });
    let holders = plan.people.iter().map(|person| Party {
        name: &person.name,
        path: &person.path,
        found: Spoken::Key(person.addressee.fingerprint()),
    });
    custodians.chain(holders).collect()
}

fn compare_one(party: &Party<'_>, given: &[(Principal, Spoken)], skip: bool) -> Result<Compared, InitError> {
    let &Party { name, path, found } = party;
    if let Some((_, expected)) = given.iter().find(|(of, _)| of == name) {
        if *expected == found {
            return Ok(Compared::Given);
        }
        let (path, name, expected) = (path.to_owned(), name.clone(), *expected);
        return Err(InitError::Fingerprint { path, name, found, expected });
    }
    if skip {
        return Ok(Compared::Skipped);
    }
    let whose = match found {
        Spoken::Enrollment(_) => "its person",
        Spoken::Key(_) => "this holder",
    };
    match terminal::confirm(&format!("{name}: {found}\n  Have {whose} read it to you. Is it the same?")) {
        Some(true) => Ok(Compared::Asked),
        Some(false) => Err(InitError::Unconfirmed { name: name.clone() }),
        None => Err(InitError::Usage(format!(
            "nobody is there to compare {name}'s fingerprint: give it with --fingerprint {name}=…, or skip the comparison with --yes"
        ))),
    }
}
