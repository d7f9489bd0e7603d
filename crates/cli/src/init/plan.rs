//! Whose a cluster's shares are to be: what a ceremony checks before anything is asked for, wherever the shares come from.

use clap::Args;
use holdfast_core::ceremony::CeremonyError;
use holdfast_core::id::{ClusterId, ClusterName, NameError, Principal};
use holdfast_core::time::Timestamp;

use super::InitError;
use super::enrollments::Candidate;
use super::fingerprints::Spoken;
use super::holders::{Invitation, Person};
use super::openpgp::Addressee;
use super::parcels::Parcels;

/// Who gets a share beside the custodians, and what is accepted of all of them: the same words in every ceremony.
#[derive(Args)]
pub(crate) struct PartyArguments {
    /// A break-glass holder's OpenPGP public key, armoured or binary; each gets one share. Repeatable
    #[arg(long = "holder", value_name = "[NAME=]FILE")]
    pub(crate) holders: Vec<Invitation>,
    /// A fingerprint that was read to you, as ID=XXXX-XXXX-XXXX-XXXX-XXXX for a custodian, as NAME=40 digits for a holder's key;
    /// those not given are asked for
    #[arg(long = "fingerprint", value_name = "NAME=FINGERPRINT", value_parser = parse_fingerprint)]
    pub(crate) fingerprints: Vec<(Principal, Spoken)>,
    /// Ask for no fingerprint: trust that the files are their owners' own
    #[arg(long)]
    pub(crate) yes: bool,
    /// Go on with fewer holders than the threshold: after some losses, nobody can open the Vault again, ever
    #[arg(long)]
    pub(crate) accept_no_recovery: bool,
    /// Go on with fewer custodians than the threshold: no crash heals without people
    #[arg(long)]
    pub(crate) accept_no_automatic_opening: bool,
}

/// A fingerprint as the arguments give one: `NAME=FINGERPRINT`.
fn parse_fingerprint(text: &str) -> Result<(Principal, Spoken), String> {
    let (name, fingerprint) = text.split_once('=').ok_or("expected NAME=FINGERPRINT")?;
    let name = name.parse().map_err(|error: NameError| error.to_string())?;
    Ok((name, fingerprint.parse()?))
}

/// A new cluster's id.
pub(crate) fn random_id() -> Result<ClusterId, InitError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| InitError::System(format!("no random numbers: {error}")))?;
    Ok(ClusterId::from_bytes(id))
}

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
