//! A packet: one share, as the server encrypted it to one custodian.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{CeremonyError, FileKind, VERSION, field_error, parse_base64, parse_file};
use crate::id::{ClusterId, ClusterName, Principal};

/// The largest packet file that is read, in bytes: the largest message in base64, and room for the rest.
pub const PACKET_MAX: usize = 32 * 1024;

/// The largest encrypted message in a packet, in bytes: a share's text for one RSA-4096 key needs under 1 KiB.
pub const OPENPGP_MESSAGE_MAX: usize = 16 * 1024;

/// One share, encrypted to one custodian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The cluster that the share belongs to.
    pub cluster: ClusterId,
    /// What the operators call that cluster.
    pub cluster_name: ClusterName,
    /// Which set of shares it belongs to.
    pub generation: u32,
    /// Whom it is for.
    pub custodian: Principal,
    /// The binary OpenPGP message. Its plaintext is the share's text in hexadecimal.
    pub openpgp_message: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: u64,
    kind: String,
    cluster: ClusterId,
    cluster_name: ClusterName,
    generation: u32,
    custodian: Principal,
    openpgp_message: String,
}

impl Packet {
    /// Reads a packet file. Whether it is the right one, [`super::Manifest::admit`] says.
    pub fn parse(file: &[u8]) -> Result<Self, CeremonyError> {
        let kind = FileKind::Packet;
        let wire: Wire = parse_file(kind, PACKET_MAX, file)?;
        if wire.generation == 0 {
            return Err(field_error(kind, "generation", "generations count from 1"));
        }
        Ok(Self {
            cluster: wire.cluster,
            cluster_name: wire.cluster_name,
            generation: wire.generation,
            custodian: wire.custodian,
            openpgp_message: parse_base64(kind, "openpgp_message", OPENPGP_MESSAGE_MAX, &wire.openpgp_message)?,
        })
    }

    /// The file.
    pub fn to_file(&self) -> Vec<u8> {
        let wire = Wire {
            v: VERSION,
            kind: FileKind::Packet.as_str().to_owned(),
            cluster: self.cluster,
            cluster_name: self.cluster_name.clone(),
            generation: self.generation,
            custodian: self.custodian.clone(),
            openpgp_message: BASE64_STANDARD.encode(&self.openpgp_message),
        };
        let mut file = serde_json::to_vec_pretty(&wire).expect("strings and numbers always become JSON");
        file.push(b'\n');
        file
    }
}

/// The digest by which a manifest knows a packet's file: SHA-256 of all its bytes.
pub fn packet_digest(file: &[u8]) -> [u8; 32] {
    Sha256::digest(file).into()
}
