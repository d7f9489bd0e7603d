//! A manifest: what everybody may know of a cluster. Its random id, how many shares open it, and whose keys they went to.

use serde::{Deserialize, Serialize};

use super::{
    AgeRecipient, CeremonyError, FileKind, Fingerprint, Packet, VERSION, field_error, packet_digest, parse_file,
    parse_signing_key,
};
use crate::id::{ClusterId, ClusterName, Principal};
use crate::sshsig::PublicKey;

/// The largest manifest that is read, in bytes: 255 custodians with the longest names need 130 KiB.
pub const MANIFEST_MAX: usize = 256 * 1024;

/// The fewest shares that may open a cluster: with one, a single custodian would.
const THRESHOLD_MIN: u8 = 2;

/// A cluster's public description, whole and without contradiction.
#[derive(Debug, Clone)]
pub struct Manifest {
    cluster_name: ClusterName,
    id: ClusterId,
    generation: u32,
    threshold: u8,
    custodians: Vec<Member>,
}

/// One custodian of a cluster.
#[derive(Debug, Clone)]
pub struct Member {
    /// Who it is.
    pub id: Principal,
    /// The fingerprint of its enrollment, which people compared.
    pub enrollment_fingerprint: Fingerprint,
    /// What its share is encrypted to at rest.
    pub age_recipient: AgeRecipient,
    /// What it signs reports with.
    pub signing_key: PublicKey,
    /// Its packet, see [`packet_digest`].
    pub packet_sha256: [u8; 32],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: u64,
    kind: String,
    cluster_name: ClusterName,
    id: ClusterId,
    generation: u32,
    shares: u8,
    threshold: u8,
    custodians: Vec<WireMember>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireMember {
    id: Principal,
    enrollment_fingerprint: String,
    age_recipient: String,
    signing_key: String,
    packet_sha256: String,
}

impl Manifest {
    /// A manifest of these custodians, each with one share. Fails where they contradict each other or the threshold.
    pub fn new(
        cluster_name: ClusterName,
        id: ClusterId,
        generation: u32,
        threshold: u8,
        custodians: Vec<Member>,
    ) -> Result<Self, CeremonyError> {
        let kind = FileKind::Manifest;
        if generation == 0 {
            return Err(field_error(kind, "generation", "generations count from 1"));
        }
        let shares = u8::try_from(custodians.len())
            .map_err(|_| field_error(kind, "custodians", "there are more than 255, which no server can have"))?;
        if threshold < THRESHOLD_MIN || threshold > shares {
            let why =
                format!("{threshold} of {shares}; it has to be {THRESHOLD_MIN} or more, and no more than there are");
            return Err(field_error(kind, "threshold", why));
        }
        check_distinct(&custodians)?;
        Ok(Self { cluster_name, id, generation, threshold, custodians })
    }

    /// Reads a manifest file.
    pub fn parse(file: &[u8]) -> Result<Self, CeremonyError> {
        let kind = FileKind::Manifest;
        let wire: Wire = parse_file(kind, MANIFEST_MAX, file)?;
        if wire.custodians.len() != usize::from(wire.shares) {
            let why = format!("{} for {} shares; each share has one custodian", wire.custodians.len(), wire.shares);
            return Err(field_error(kind, "custodians", why));
        }
        let custodians: Result<_, _> = wire.custodians.into_iter().map(Member::from_wire).collect();
        Self::new(wire.cluster_name, wire.id, wire.generation, wire.threshold, custodians?)
    }

    /// The file.
    pub fn to_file(&self) -> Vec<u8> {
        let wire = Wire {
            v: VERSION,
            kind: FileKind::Manifest.as_str().to_owned(),
            cluster_name: self.cluster_name.clone(),
            id: self.id,
            generation: self.generation,
            shares: self.shares(),
            threshold: self.threshold,
            custodians: self.custodians.iter().map(Member::to_wire).collect(),
        };
        let mut file = serde_json::to_vec_pretty(&wire).expect("strings and numbers always become JSON");
        file.push(b'\n');
        file
    }

    /// What the operators who made it call the cluster.
    pub fn cluster_name(&self) -> &ClusterName {
        &self.cluster_name
    }

    /// The random id that every message about the cluster names.
    pub fn id(&self) -> ClusterId {
        self.id
    }

    /// Which set of shares this is, from 1.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// How many shares there are.
    pub fn shares(&self) -> u8 {
        u8::try_from(self.custodians.len()).expect("Manifest::new refuses more than 255")
    }

    /// How many of them open the cluster.
    pub fn threshold(&self) -> u8 {
        self.threshold
    }

    /// The custodians, each with one share.
    pub fn custodians(&self) -> &[Member] {
        &self.custodians
    }

    /// The custodian of that name.
    pub fn member(&self, id: &Principal) -> Option<&Member> {
        self.custodians.iter().find(|member| member.id == *id)
    }

    /// Whether a packet's file is the very one that this manifest names, for whoever holds these two keys.
    pub fn admit(&self, file: &[u8], own: &AgeRecipient, signing: &PublicKey) -> Result<Packet, CeremonyError> {
        let packet = Packet::parse(file)?;
        if packet.cluster != self.id {
            return Err(CeremonyError::OtherCluster { packet: packet.cluster, manifest: self.id });
        }
        if packet.generation != self.generation {
            return Err(CeremonyError::OtherGeneration { packet: packet.generation, manifest: self.generation });
        }
        let Some(member) = self.member(&packet.custodian) else {
            return Err(CeremonyError::NotMember(packet.custodian));
        };
        if packet_digest(file) != member.packet_sha256 {
            return Err(CeremonyError::PacketDigest(packet.custodian));
        }
        for (what, same) in
            [("age identity", member.age_recipient == *own), ("signing key", member.signing_key == *signing)]
        {
            if !same {
                return Err(CeremonyError::SomebodyElses { custodian: packet.custodian, what });
            }
        }
        Ok(packet)
    }
}

impl Member {
    fn from_wire(wire: WireMember) -> Result<Self, CeremonyError> {
        let kind = FileKind::Manifest;
        let mut packet_sha256 = [0; 32];
        hex::decode_to_slice(&wire.packet_sha256, &mut packet_sha256)
            .map_err(|_| field_error(kind, "packet_sha256", "not 64 hexadecimal digits"))?;
        Ok(Self {
            id: wire.id,
            enrollment_fingerprint: wire
                .enrollment_fingerprint
                .parse()
                .map_err(|why| field_error(kind, "enrollment_fingerprint", why))?,
            age_recipient: wire.age_recipient.parse().map_err(|why| field_error(kind, "age_recipient", why))?,
            signing_key: parse_signing_key(kind, &wire.signing_key)?,
            packet_sha256,
        })
    }

    fn to_wire(&self) -> WireMember {
        WireMember {
            id: self.id.clone(),
            enrollment_fingerprint: self.enrollment_fingerprint.to_string(),
            age_recipient: self.age_recipient.to_string(),
            signing_key: self.signing_key.to_openssh(),
            packet_sha256: hex::encode(self.packet_sha256),
        }
    }
}

fn check_distinct(custodians: &[Member]) -> Result<(), CeremonyError> {
    for (index, second) in custodians.iter().enumerate() {
        for first in custodians.iter().take(index) {
            let same = [
                ("name", first.id == second.id),
                ("enrollment", first.enrollment_fingerprint == second.enrollment_fingerprint),
                ("age recipient", first.age_recipient == second.age_recipient),
                ("signing key", first.signing_key == second.signing_key),
                ("packet", first.packet_sha256 == second.packet_sha256),
            ];
            if let Some((what, _)) = same.into_iter().find(|(_, same)| *same) {
                return Err(CeremonyError::Twice { first: first.id.clone(), second: second.id.clone(), what });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    fn recipient(index: u8) -> AgeRecipient {
        let tail = ["q", "p", "z", "r", "y"][usize::from(index)];
        format!("age1{}{tail}", "q".repeat(57)).parse().expect("a recipient")
    }

    fn signing_key(index: u8) -> PublicKey {
        let key = SigningKey::from_bytes(&[index + 1; 32]);
        PublicKey::from_ed25519(key.verifying_key().to_bytes()).expect("a key")
    }

    fn packet(index: u8) -> Packet {
        Packet {
            cluster: ClusterId::from_bytes([7; 16]),
            cluster_name: "prod".parse().expect("a name"),
            generation: 1,
            custodian: format!("custodian-{index}").parse().expect("a name"),
            openpgp_message: vec![index; 8],
        }
    }

    fn members() -> Vec<Member> {
        let member = |index| Member {
            id: packet(index).custodian,
            enrollment_fingerprint: Fingerprint::of(&[index]),
            age_recipient: recipient(index),
            signing_key: signing_key(index),
            packet_sha256: packet_digest(&packet(index).to_file()),
        };
        (0..5).map(member).collect()
    }

    fn manifest() -> Manifest {
        Manifest::new("prod".parse().expect("a name"), ClusterId::from_bytes([7; 16]), 1, 3, members()).expect("good")
    }

    #[test]
    fn a_manifest_reads_back() {
        let file = manifest().to_file();
        let read = Manifest::parse(&file).expect("our own");
        assert_eq!(read.to_file(), file);
        assert_eq!((read.shares(), read.threshold(), read.generation()), (5, 3, 1));
        assert_eq!(read.member(&packet(2).custodian).map(|member| member.signing_key.clone()), Some(signing_key(2)));
    }

    #[test]
    fn a_manifest_that_contradicts_itself_is_refused() {
        let good = String::from_utf8(manifest().to_file()).expect("JSON");
        let (first, second) = (members()[0].to_wire(), members()[1].to_wire());
        for (from, to, expected) in [
            ("\"v\": 1", "\"v\": 2", "version 2"),
            ("\"kind\": \"manifest\"", "\"kind\": \"enrollment\"", "kind \"enrollment\""),
            ("\"threshold\": 3", "\"threshold\": 1", "threshold"),
            ("\"threshold\": 3", "\"threshold\": 6", "threshold"),
            ("\"threshold\": 3", "\"threshold\": 300", "line 8"),
            ("\"threshold\": 3", "\"threshold\": 3, \"quorum\": 3", "unknown field `quorum`"),
            ("\"threshold\": 3", "\"threshold\": 3, \"threshold\": 3", "duplicate field"),
            ("\"threshold\": 3,", "", "missing field `threshold`"),
            ("\"shares\": 5", "\"shares\": 6", "5 for 6 shares"),
            ("\"shares\": 5", "\"shares\": 4", "5 for 4 shares"),
            ("\"generation\": 1", "\"generation\": 0", "generation"),
            ("07070707", "0707070", "is not an id"),
            (first.id.as_str(), second.id.as_str(), "same name"),
            (&first.signing_key, &second.signing_key, "same signing key"),
            (&first.signing_key, "ssh-ed25519 AAAA", "signing_key"),
            (&first.age_recipient, &second.age_recipient, "same age recipient"),
            (&first.packet_sha256, &second.packet_sha256, "same packet"),
            (&first.packet_sha256, "00", "packet_sha256"),
            (&first.enrollment_fingerprint, &second.enrollment_fingerprint, "same enrollment"),
            (&first.enrollment_fingerprint, "K7QM", "enrollment_fingerprint"),
        ] as [(&str, &str, &str); 20]
        {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from}");
            let error = Manifest::parse(bad.as_bytes()).expect_err(to);
            assert!(error.to_string().contains(expected), "{to}: {error}");
        }
        for cut in 0..good.len() - 2 {
            assert!(Manifest::parse(&good.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
        for bad in ["[]", "null", "-----BEGIN PGP MESSAGE-----", &" ".repeat(MANIFEST_MAX + 1), &"[".repeat(100_000)] {
            assert!(Manifest::parse(bad.as_bytes()).is_err());
        }
    }

    #[test]
    fn a_packet_is_admitted_for_the_holder_of_its_keys_alone() {
        let (manifest, file) = (manifest(), packet(2).to_file());
        let admit = |file: &[u8]| manifest.admit(file, &recipient(2), &signing_key(2));
        assert_eq!(admit(&file), Ok(packet(2)));

        let somebody = |error| matches!(error, Err(CeremonyError::SomebodyElses { .. }));
        assert!(somebody(manifest.admit(&file, &recipient(1), &signing_key(2))));
        assert!(somebody(manifest.admit(&file, &recipient(2), &signing_key(1))));
        assert!(somebody(admit(&packet(1).to_file())));

        let other = |change: &dyn Fn(&mut Packet)| {
            let mut packet = packet(2);
            change(&mut packet);
            admit(&packet.to_file()).expect_err("another packet")
        };
        let cluster = other(&|packet| packet.cluster = ClusterId::from_bytes([8; 16]));
        assert!(matches!(cluster, CeremonyError::OtherCluster { .. }), "{cluster}");
        let generation = other(&|packet| packet.generation = 2);
        assert_eq!(generation, CeremonyError::OtherGeneration { packet: 2, manifest: 1 });
        let stranger = other(&|packet| packet.custodian = "mallory".parse().expect("a name"));
        assert!(matches!(stranger, CeremonyError::NotMember(_)), "{stranger}");
        let message = other(&|packet| packet.openpgp_message[0] ^= 1);
        assert!(matches!(message, CeremonyError::PacketDigest(_)), "{message}");
        assert_eq!(admit(b""), Err(CeremonyError::Empty(FileKind::Packet)));
        assert!(matches!(admit(&file[..file.len() / 2]), Err(CeremonyError::Malformed { .. })));
        assert!(matches!(admit(&manifest.to_file()), Err(CeremonyError::Kind { .. })));
    }
}
