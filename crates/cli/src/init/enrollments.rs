//! The enrollments of a ceremony, each checked by itself and against the others.

use std::path::{Path, PathBuf};

use holdfast_core::ceremony::SignedEnrollment;
use holdfast_core::envelope::ENVELOPE_MAX;
use holdfast_edge::files;
use holdfast_edge::keys::Recipient;

use super::openpgp::Addressee;
use super::{InitError, unix_seconds};

/// A custodian that is to get a share.
pub(super) struct Candidate {
    /// Where its enrollment was read from.
    pub(super) path: PathBuf,
    /// Its enrollment.
    pub(super) signed: SignedEnrollment,
    /// Its OpenPGP key.
    pub(super) addressee: Addressee,
}

/// Reads them all, in the order of the custodians' names.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<Candidate>, InitError> {
    let mut candidates = paths.iter().map(|path| read_one(path)).collect::<Result<Vec<_>, _>>()?;
    candidates.sort_by(|one, other| one.signed.enrollment().custodian.cmp(&other.signed.enrollment().custodian));
    let all: Vec<_> = candidates.iter().map(|candidate| candidate.signed.clone()).collect();
    SignedEnrollment::check_distinct(&all).map_err(InitError::Together)?;
    for (index, second) in candidates.iter().enumerate() {
        let same = |first: &&Candidate| first.addressee.fingerprint() == second.addressee.fingerprint();
        if let Some(first) = candidates.iter().take(index).find(same) {
            let name = |candidate: &Candidate| candidate.signed.enrollment().custodian.to_string();
            return Err(InitError::SameKey { first: name(first), second: name(second) });
        }
    }
    Ok(candidates)
}

fn read_one(path: &Path) -> Result<Candidate, InitError> {
    let file = files::read_bounded(path, ENVELOPE_MAX)?;
    let signed = SignedEnrollment::open(&file).map_err(|why| InitError::Enrollment { path: path.to_owned(), why })?;
    let enrollment = signed.enrollment();
    Recipient::parse(&enrollment.age_recipient).map_err(|why| InitError::Recipient { path: path.to_owned(), why })?;
    let addressee = Addressee::from_binary(&enrollment.openpgp_key, unix_seconds())
        .map_err(|why| InitError::Key { path: path.to_owned(), why })?;
    Ok(Candidate { path: path.to_owned(), signed, addressee })
}
