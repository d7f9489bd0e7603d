//! Whether the enrollments are the custodians' own: the one thing that no program can find out.

use std::io::{self, BufRead, IsTerminal, Write};

use holdfast_core::ceremony::Fingerprint;
use holdfast_core::id::Principal;
use serde::Serialize;

use super::InitError;
use super::enrollments::Candidate;

/// The longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 256;

/// How a fingerprint was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Compared {
    /// It was given as an argument.
    Given,
    /// A person said yes.
    Asked,
    /// It was not.
    Skipped,
}

/// Compares each with what was given; asks for the rest, unless they are to be skipped.
pub(super) fn compare(
    candidates: &[Candidate],
    given: &[(Principal, Fingerprint)],
    skip: bool,
) -> Result<Vec<Compared>, InitError> {
    for (index, (id, _)) in given.iter().enumerate() {
        if !candidates.iter().any(|candidate| candidate.signed.enrollment().custodian == *id) {
            return Err(InitError::Usage(format!("--fingerprint {id}=…: there is no enrollment of {id}")));
        }
        if given.iter().take(index).any(|(other, _)| other == id) {
            return Err(InitError::Usage(format!("--fingerprint {id}=… is given twice")));
        }
    }
    candidates.iter().map(|candidate| compare_one(candidate, given, skip)).collect()
}

fn compare_one(candidate: &Candidate, given: &[(Principal, Fingerprint)], skip: bool) -> Result<Compared, InitError> {
    let custodian = &candidate.signed.enrollment().custodian;
    let found = candidate.signed.fingerprint();
    if let Some((_, expected)) = given.iter().find(|(id, _)| id == custodian) {
        if *expected == found {
            return Ok(Compared::Given);
        }
        let (path, custodian, expected) = (candidate.path.clone(), custodian.clone(), *expected);
        return Err(InitError::Fingerprint { path, custodian, found, expected });
    }
    if skip {
        return Ok(Compared::Skipped);
    }
    if !io::stdin().is_terminal() {
        return Err(InitError::Usage(format!(
            "nobody is there to compare {custodian}'s fingerprint: give it with --fingerprint {custodian}=…, or skip the comparison with --yes"
        )));
    }
    if ask(custodian, found).unwrap_or(false) {
        Ok(Compared::Asked)
    } else {
        Err(InitError::Unconfirmed { custodian: custodian.clone() })
    }
}

/// Asks the person at the terminal. Only a whole "yes" counts.
fn ask(custodian: &Principal, fingerprint: Fingerprint) -> io::Result<bool> {
    let mut terminal = io::stderr();
    write!(terminal, "{custodian}: {fingerprint}\n  Have its person read it to you. Is it the same? [yes/no] ")?;
    terminal.flush()?;
    let mut answer = String::new();
    io::Read::take(io::stdin().lock(), ANSWER_MAX).read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}
