//! What is made of the messages that a server encrypted: packets, holders' texts and sheets, and the manifest over them.
//!
//! The same plan and the same messages always make the same files, byte for byte: a ceremony that was interrupted while it wrote
//! them writes the rest.

use holdfast_core::ceremony::{CeremonyError, Holder, Manifest, Member, OPENPGP_MESSAGE_MAX, Packet, packet_digest};
use holdfast_core::trust::Namespace;
use holdfast_edge::files::{self, FileError, PUBLIC_MODE, SECRET_MODE};

use super::directory::Directory;
use super::enrollments::Candidate;
use super::holders::Person;
use super::openpgp::armored;
use super::plan::Plan;
use super::sheet;

/// Everything that is given out, and the manifest.
pub(crate) struct Parcels {
    packets: Vec<Vec<u8>>,
    texts: Vec<String>,
    manifest: Manifest,
}

impl Parcels {
    /// Finds each one's message: the order in which they come is not relied on, each says to whom it is encrypted. The first one
    /// without a message of its own is the error.
    pub(crate) fn sort(mut messages: Vec<Vec<u8>>, plan: &Plan) -> Result<Vec<Vec<u8>>, String> {
        messages.retain(|message| message.len() <= OPENPGP_MESSAGE_MAX);
        let own = plan.addressees().map(|(name, addressee)| {
            let index = messages.iter().position(|message| addressee.is_addressed(message));
            index.map(|index| messages.swap_remove(index)).ok_or_else(|| name.to_string())
        });
        own.collect()
    }

    /// The parcels of these messages, in the order of [`Plan::addressees`].
    pub(crate) fn new(plan: &Plan, mut messages: Vec<Vec<u8>>) -> Result<Self, CeremonyError> {
        let peoples = messages.split_off(plan.candidates.len());
        let packets: Vec<_> =
            plan.candidates.iter().zip(messages).map(|(candidate, message)| packet(plan, candidate, message)).collect();
        let members =
            plan.candidates.iter().zip(&packets).map(|(candidate, packet)| member(candidate, Some(packet))).collect();
        let holders = plan.people.iter().map(holder).collect();
        let manifest = Manifest::new(plan.cluster.clone(), plan.id, plan.generation, plan.threshold, members, holders)?;
        Ok(Self { packets, texts: peoples.iter().map(|message| armored(message)).collect(), manifest })
    }

    /// Whether custodians will take them.
    pub(crate) fn check(&self, plan: &Plan) -> Result<(), CeremonyError> {
        let manifest = Manifest::parse(&self.manifest.to_file())?;
        for (candidate, packet) in plan.candidates.iter().zip(&self.packets) {
            let enrollment = candidate.signed.enrollment();
            manifest.admit(packet, &enrollment.age_recipient, &enrollment.signing_key)?;
        }
        Ok(())
    }

    /// Writes what is not there yet. The manifest comes last but for the lines that can be made again: where it is, all shares
    /// are.
    pub(crate) fn write(&self, directory: &Directory, plan: &Plan) -> Result<(), FileError> {
        for (candidate, packet) in plan.candidates.iter().zip(&self.packets) {
            files::ensure(&directory.packet(candidate.id()), packet, SECRET_MODE)?;
        }
        for (person, text) in plan.people.iter().zip(&self.texts) {
            files::ensure(&directory.holders_share(&person.name), text.as_bytes(), SECRET_MODE)?;
            let sheet = sheet::render(plan, &self.manifest, person, text);
            files::ensure(&directory.holders_sheet(&person.name), sheet.as_bytes(), SECRET_MODE)?;
        }
        files::ensure(&directory.manifest(&plan.cluster), &self.manifest.to_file(), PUBLIC_MODE)?;
        files::ensure(&directory.allowed_signers(), allowed_signers(plan).as_bytes(), PUBLIC_MODE)
    }
}

fn packet(plan: &Plan, candidate: &Candidate, openpgp_message: Vec<u8>) -> Vec<u8> {
    Packet {
        cluster: plan.id,
        cluster_name: plan.cluster.clone(),
        generation: plan.generation,
        custodian: candidate.id().clone(),
        openpgp_message,
    }
    .to_file()
}

/// A custodian as the manifest names it, with its packet, if its share comes in one.
pub(crate) fn member(candidate: &Candidate, packet: Option<&Vec<u8>>) -> Member {
    let enrollment = candidate.signed.enrollment();
    Member {
        id: enrollment.custodian.clone(),
        enrollment_fingerprint: candidate.signed.fingerprint(),
        age_recipient: enrollment.age_recipient.clone(),
        signing_key: enrollment.signing_key.clone(),
        packet_sha256: packet.map(|packet| packet_digest(packet)),
    }
}

/// A holder as the manifest names one.
pub(crate) fn holder(person: &Person) -> Holder {
    Holder { name: person.name.clone(), openpgp_fingerprint: person.addressee.fingerprint() }
}

/// A line for each custodian: what it signs, and with which key.
pub(crate) fn allowed_signers(plan: &Plan) -> String {
    let line = |candidate: &Candidate| {
        let key = candidate.signed.enrollment().signing_key.to_openssh();
        format!("{} namespaces=\"{}\" {key}\n", candidate.id(), Namespace::Report)
    };
    plan.candidates.iter().map(line).collect()
}
