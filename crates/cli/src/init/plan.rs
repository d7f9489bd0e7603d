//! Whose a cluster's shares are to be: what a ceremony checks before anything is asked for, wherever the shares come from.

use holdfast_core::ceremony::CeremonyError;
use holdfast_core::id::{ClusterId, ClusterName, Principal};
use holdfast_core::time::Timestamp;

use super::InitError;
use super::enrollments::Candidate;
use super::holders::Person;
use super::openpgp::Addressee;
use super::parcels::Parcels;

/// Everything that was checked, and is to come true.
pub(crate) struct Plan {
    /// What the cluster is called.
    pub(crate) cluster: ClusterName,
    /// Its random id.
    pub(crate) id: ClusterId,
    /// Which set of shares it is.
    pub(crate) generation: u32,
    /// How many shares open it.
    pub(crate) threshold: u8,
    /// The custodians, in the order of their names.
    pub(crate) candidates: Vec<Candidate>,
    /// The holders, in the order of their names.
    pub(crate) people: Vec<Person>,
    /// Where the Vault is.
    pub(crate) vault: String,
    /// When the plan was made.
    pub(crate) made_at: Timestamp,
}

impl Plan {
    /// How many shares there are.
    pub(crate) fn shares(&self) -> u8 {
        u8::try_from(self.candidates.len() + self.people.len()).expect("Plan::check refuses more than 255")
    }

    /// Everybody who gets a share, custodians first.
    pub(crate) fn addressees(&self) -> impl Iterator<Item = (&Principal, &Addressee)> {
        let custodians = self.candidates.iter().map(|one| (one.id(), &one.addressee));
        custodians.chain(self.people.iter().map(|person| (&person.name, &person.addressee)))
    }

    /// Finds everything that could be found wrong with names, keys and numbers afterwards, when it would be too late.
    pub(crate) fn check(&self) -> Result<(), InitError> {
        let count = self.candidates.len() + self.people.len();
        if self.threshold < 2 || usize::from(self.threshold) > count || count > 255 {
            return Err(InitError::Usage(format!(
                "--threshold {} of {count} custodians and holders: it has to be 2 or more, and no more than there are, which are 255 at most",
                self.threshold
            )));
        }
        for (index, (second, key)) in self.addressees().enumerate() {
            let mut before = self.addressees().take(index);
            if let Some((first, _)) = before.find(|(_, other)| other.fingerprint() == key.fingerprint()) {
                return Err(InitError::SameKey { first: first.to_string(), second: second.to_string() });
            }
        }
        self.rehearse().map_err(InitError::Together)
    }

    /// Makes the packets and the manifest of nothing, to see that they can be made.
    fn rehearse(&self) -> Result<(), CeremonyError> {
        let messages = (0..self.shares()).map(|index| format!("message {index}").into_bytes()).collect();
        Parcels::new(self, messages)?.check(self)
    }
}
