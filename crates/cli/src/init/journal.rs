//! The journal of a ceremony: all that it takes to go on after a crash, on the disk before the step that it speaks of.
//!
//! Public keys, names and numbers, and how far things are. What does not live here: anything that the Vault answered, which has a
//! file of its own.

use std::collections::BTreeMap;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use holdfast_core::id::{ClusterId, ClusterName, Principal};
use holdfast_core::time::Timestamp;
use holdfast_edge::files::{self, FileError, SECRET_MODE};
use serde::{Deserialize, Serialize};

use super::InitError;
use super::directory::Directory;
use super::enrollments::Candidate;
use super::fingerprints::Compared;
use super::holders::Person;
use super::openpgp::Addressee;
use super::plan::Plan;

/// The largest journal that is read, in bytes: 255 enrollments of 64 KiB each.
const JOURNAL_MAX: usize = 16 * 1024 * 1024;

/// The version of the journal that this program writes, and the only one it reads.
const VERSION: u64 = 1;

/// What the journal is, as its field `kind` says.
const KIND: &str = "ceremony";

/// How far a ceremony is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Step {
    /// Everything is checked and agreed, and the Vault was not asked.
    Planned,
    /// The Vault is asked from now on. Where its answer is on the disk, it came.
    Asked,
    /// Every file is written.
    Done,
}

/// A plan, and what an initialisation needs beside it.
pub(super) struct Ceremony {
    /// Whose the shares are to be.
    pub(super) plan: Plan,
    /// How each one's fingerprint was compared.
    pub(super) compared: BTreeMap<Principal, Compared>,
    /// Whom the root token is encrypted to.
    pub(super) root_token: Addressee,
    /// The CA of the Vault's certificate, in PEM.
    pub(super) ca_pem: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: u64,
    kind: String,
    step: Step,
    made_at: Timestamp,
    vault: String,
    ca_pem: String,
    cluster_name: ClusterName,
    id: ClusterId,
    generation: u32,
    threshold: u8,
    root_token_key: String,
    custodians: Vec<String>,
    holders: Vec<WireHolder>,
    compared: BTreeMap<Principal, Compared>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireHolder {
    name: Principal,
    openpgp_key: String,
}

impl Ceremony {
    /// Brings it to the disk, and how far it is.
    pub(super) fn record(&self, directory: &Directory, step: Step) -> Result<(), FileError> {
        let plan = &self.plan;
        let key = |addressee: &Addressee| BASE64_STANDARD.encode(addressee.binary());
        let holder = |person: &Person| WireHolder { name: person.name.clone(), openpgp_key: key(&person.addressee) };
        let wire = Wire {
            v: VERSION,
            kind: KIND.to_owned(),
            step,
            made_at: plan.made_at,
            vault: plan.vault.clone(),
            ca_pem: self.ca_pem.clone(),
            cluster_name: plan.cluster.clone(),
            id: plan.id,
            generation: plan.generation,
            threshold: plan.threshold,
            root_token_key: key(&self.root_token),
            custodians: plan.candidates.iter().map(|candidate| candidate.file.clone()).collect(),
            holders: plan.people.iter().map(holder).collect(),
            compared: self.compared.clone(),
        };
        let file = serde_json::to_vec_pretty(&wire).expect("strings and numbers always become JSON");
        files::replace(&directory.journal(), &file, SECRET_MODE)
    }

    /// Reads what was recorded. Keys are judged as of then: one that has expired since still says whose an answer is.
    pub(super) fn read(directory: &Directory) -> Result<(Self, Step), InitError> {
        let path = directory.journal();
        let file = match files::read_bounded(&path, JOURNAL_MAX) {
            Err(FileError::Missing { .. }) => return Err(InitError::NotBegun { dir: directory.path().to_owned() }),
            file => file?,
        };
        let damaged = |why: String| InitError::Journal { path: path.clone(), why };
        let wire: Wire = serde_json::from_slice(&file).map_err(|error| damaged(error.to_string()))?;
        if wire.kind != KIND || wire.v != VERSION {
            return Err(damaged(format!("it is of kind {:?} and version {}", wire.kind, wire.v)));
        }
        let made_at = super::openpgp_seconds(wire.made_at);
        let addressee = |text: &str| {
            let key = BASE64_STANDARD.decode(text).map_err(|error| damaged(error.to_string()))?;
            Addressee::from_binary(&key, made_at).map_err(|why| InitError::Key { path: path.clone(), why })
        };
        let person = |wire: WireHolder| {
            Ok(Person { addressee: addressee(&wire.openpgp_key)?, name: wire.name, path: path.clone() })
        };
        let candidates: Result<_, InitError> =
            wire.custodians.iter().map(|file| Candidate::open(&path, file.as_bytes(), made_at)).collect();
        let people: Result<_, InitError> = wire.holders.into_iter().map(person).collect();
        let plan = Plan {
            cluster: wire.cluster_name,
            id: wire.id,
            generation: wire.generation,
            threshold: wire.threshold,
            candidates: candidates?,
            people: people?,
            vault: wire.vault,
            made_at: wire.made_at,
        };
        plan.check()?;
        let root_token = addressee(&wire.root_token_key)?;
        Ok((Self { plan, compared: wire.compared, root_token, ca_pem: wire.ca_pem }, wire.step))
    }

    /// Whether every key is still one that the Vault takes, at `now`.
    pub(super) fn check_keys(&self, path: &Path, now: u32) -> Result<(), InitError> {
        let mut keys = self.plan.addressees().map(|(_, addressee)| addressee).chain([&self.root_token]);
        keys.try_for_each(|key| Addressee::from_binary(key.binary(), now).map(drop))
            .map_err(|why| InitError::Key { path: path.to_owned(), why })
    }
}
