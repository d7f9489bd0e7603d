//! What the Vault answered, and the files that are made of it.

use base64::prelude::{BASE64_STANDARD, Engine};
use holdfast_core::ceremony::{CeremonyError, Manifest, Member, OPENPGP_MESSAGE_MAX, Packet, packet_digest};
use holdfast_core::trust::Namespace;
use holdfast_edge::files::{self, FileError, PUBLIC_MODE, SECRET_MODE};
use serde::Deserialize;

use super::directory::Directory;
use super::enrollments::Candidate;
use super::{GENERATION, InitError, Plan};

/// The answer of `PUT /v1/sys/init`, each message matched with the one it is encrypted to.
pub(super) struct Answer {
    packets: Vec<Vec<u8>>,
    manifest: Manifest,
    root_token: Vec<u8>,
}

/// Why an answer is not what was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    /// Not JSON, or without shares or root token.
    #[error("it is not an init answer: {0}")]
    Malformed(String),
    /// Another number of shares.
    #[error("it has {found} shares, and {expected} were asked for")]
    Shares {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A share that is not encrypted to anybody here. The share itself is not repeated.
    #[error("no share in it is encrypted to {0} alone")]
    Missing(String),
    /// The root token is not encrypted to its key.
    #[error("the root token in it is not encrypted to the root token key")]
    RootToken,
    /// The files contradict themselves.
    #[error(transparent)]
    Ceremony(#[from] CeremonyError),
}

/// A server adds fields at will; those that are used are required.
#[derive(Deserialize)]
struct Wire {
    keys: Vec<String>,
    root_token: String,
}

/// Makes the packets and the manifest of nothing, to see that they can be made.
pub(super) fn rehearse(plan: &Plan) -> Result<(), CeremonyError> {
    let messages: Vec<_> = (0..plan.candidates.len()).map(|index| format!("message {index}").into_bytes()).collect();
    let packets = packets(plan, messages);
    let manifest = manifest(plan, &packets)?;
    let manifest = Manifest::parse(&manifest.to_file())?;
    for (candidate, packet) in plan.candidates.iter().zip(&packets) {
        let enrollment = candidate.signed.enrollment();
        manifest.admit(packet, &enrollment.age_recipient, &enrollment.signing_key)?;
    }
    Ok(())
}

impl Answer {
    /// Reads the answer. The order in it is not relied on: each message says to whom it is encrypted.
    pub(super) fn parse(body: &[u8], plan: &Plan) -> Result<Self, AnswerError> {
        // serde's words could repeat what is in the answer, so they are left out.
        let wire: Wire = serde_json::from_slice(body)
            .map_err(|error| AnswerError::Malformed(format!("line {}, column {}", error.line(), error.column())))?;
        if wire.keys.len() != plan.candidates.len() {
            return Err(AnswerError::Shares { found: wire.keys.len(), expected: plan.candidates.len() });
        }
        let mut messages: Vec<Vec<u8>> = wire
            .keys
            .iter()
            .filter_map(|key| hex::decode(key).ok())
            .filter(|m| m.len() <= OPENPGP_MESSAGE_MAX)
            .collect();
        let mut own = |candidate: &Candidate| {
            let index = messages.iter().position(|message| candidate.addressee.is_addressed(message));
            let name = || candidate.signed.enrollment().custodian.to_string();
            index.map(|index| messages.swap_remove(index)).ok_or_else(|| AnswerError::Missing(name()))
        };
        let messages: Vec<_> = plan.candidates.iter().map(&mut own).collect::<Result<_, _>>()?;
        let packets = packets(plan, messages);
        let manifest = manifest(plan, &packets)?;
        let root_token = BASE64_STANDARD.decode(&wire.root_token).ok().filter(|m| plan.root_token.is_addressed(m));
        Ok(Self { packets, manifest, root_token: root_token.ok_or(AnswerError::RootToken)? })
    }

    /// Writes everything that is made of it. The manifest comes last but for the lines that can be made again: where it is,
    /// all packets are.
    pub(super) fn write(&self, directory: &Directory, plan: &Plan) -> Result<(), InitError> {
        self.write_all(directory, plan).map_err(|why| InitError::Unfinished { response: directory.response(), why })
    }

    fn write_all(&self, directory: &Directory, plan: &Plan) -> Result<(), FileError> {
        for (candidate, packet) in plan.candidates.iter().zip(&self.packets) {
            files::create(&directory.packet(&candidate.signed.enrollment().custodian), packet, SECRET_MODE)?;
        }
        files::create(&directory.root_token(), &self.root_token, SECRET_MODE)?;
        files::create(&directory.manifest(&plan.cluster), &self.manifest.to_file(), PUBLIC_MODE)?;
        files::create(&directory.allowed_signers(), allowed_signers(plan).as_bytes(), PUBLIC_MODE)
    }
}

fn packets(plan: &Plan, messages: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let packet = |(candidate, openpgp_message): (&Candidate, Vec<u8>)| {
        Packet {
            cluster: plan.id,
            cluster_name: plan.cluster.clone(),
            generation: GENERATION,
            custodian: candidate.signed.enrollment().custodian.clone(),
            openpgp_message,
        }
        .to_file()
    };
    plan.candidates.iter().zip(messages).map(packet).collect()
}

fn manifest(plan: &Plan, packets: &[Vec<u8>]) -> Result<Manifest, CeremonyError> {
    let member = |(candidate, packet): (&Candidate, &Vec<u8>)| {
        let enrollment = candidate.signed.enrollment();
        Member {
            id: enrollment.custodian.clone(),
            enrollment_fingerprint: candidate.signed.fingerprint(),
            age_recipient: enrollment.age_recipient.clone(),
            signing_key: enrollment.signing_key.clone(),
            packet_sha256: Some(packet_digest(packet)),
        }
    };
    let members = plan.candidates.iter().zip(packets).map(member).collect();
    Manifest::new(plan.cluster.clone(), plan.id, GENERATION, plan.threshold, members, Vec::new())
}

/// A line for each custodian: what it signs, and with which key.
fn allowed_signers(plan: &Plan) -> String {
    let line = |candidate: &Candidate| {
        let enrollment = candidate.signed.enrollment();
        format!(
            "{} namespaces=\"{}\" {}\n",
            enrollment.custodian,
            Namespace::Report,
            enrollment.signing_key.to_openssh()
        )
    };
    plan.candidates.iter().map(line).collect()
}
