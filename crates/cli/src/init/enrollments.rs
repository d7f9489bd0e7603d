//! The enrollments of a ceremony, each checked by itself and their signed parts against the others'.

use std::path::{Path, PathBuf};

use holdfast_core::ceremony::SignedEnrollment;
use holdfast_core::envelope::ENVELOPE_MAX;
use holdfast_core::id::Principal;
use holdfast_edge::files;
use holdfast_edge::keys::Recipient;

use super::openpgp::Addressee;
use super::{InitError, unix_seconds};

/// A custodian that is to get a share.
pub(crate) struct Candidate {
    /// Where its enrollment was read from.
    pub(crate) path: PathBuf,
    /// The file, as it was read.
    pub(crate) file: String,
    /// Its enrollment.
    pub(crate) signed: SignedEnrollment,
    /// Its OpenPGP key.
    pub(crate) addressee: Addressee,
}

/// Reads them all, in the order of the custodians' names.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Candidate>, InitError> {
    let mut candidates = paths.iter().map(|path| read_one(path)).collect::<Result<Vec<_>, _>>()?;
    candidates.sort_by(|one, other| one.id().cmp(other.id()));
    let all: Vec<_> = candidates.iter().map(|candidate| candidate.signed.clone()).collect();
    SignedEnrollment::check_distinct(&all).map_err(InitError::Together)?;
    Ok(candidates)
}

fn read_one(path: &Path) -> Result<Candidate, InitError> {
    Candidate::open(path, &files::read_bounded(path, ENVELOPE_MAX)?, unix_seconds())
}

impl Candidate {
    /// Opens an enrollment's file, its OpenPGP key judged at `now`. Errors name `path`.
    pub(crate) fn open(path: &Path, file: &[u8], now: u32) -> Result<Self, InitError> {
        let path = path.to_owned();
        let signed = SignedEnrollment::open(file).map_err(|why| InitError::Enrollment { path: path.clone(), why })?;
        let enrollment = signed.enrollment();
        Recipient::parse(&enrollment.age_recipient).map_err(|why| InitError::Recipient { path: path.clone(), why })?;
        let addressee = Addressee::from_binary(&enrollment.openpgp_key, now)
            .map_err(|why| InitError::Key { path: path.clone(), why })?;
        // It is JSON, or it would not have been opened.
        let file = String::from_utf8_lossy(file).into_owned();
        Ok(Self { path, file, signed, addressee })
    }

    /// Who it is.
    pub(crate) fn id(&self) -> &Principal {
        &self.signed.enrollment().custodian
    }
}
