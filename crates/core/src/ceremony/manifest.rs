//! A manifest: what everybody may know of a cluster. Its random id, how many shares open it, and whose keys they went to.
//!
//! Each share is a custodian's, which submits by itself, or a holder's: a person who keeps one for the night when custodians are
//! lost. So the number of shares is not the number of custodians, and only custodians are counted on.

use serde::{Deserialize, Serialize};

use super::{
    AgeRecipient, CeremonyError, FileKind, Fingerprint, OpenPgpFingerprint, Packet, VERSION, field_error,
    packet_digest, parse_file, parse_signing_key,
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
    holders: Vec<Holder>,
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
    /// Its packet, see [`packet_digest`]. None where its share is typed in on its host, by hand: then no file stands for it.
    pub packet_sha256: Option<[u8; 32]>,
}

/// One person who keeps a share for break-glass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Who it is. A name that no custodian has.
    pub name: Principal,
    /// The OpenPGP key that the share is encrypted to.
    pub openpgp_fingerprint: OpenPgpFingerprint,
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
    holders: Vec<WireHolder>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireMember {
    id: Principal,
    enrollment_fingerprint: String,
    age_recipient: String,
    signing_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    packet_sha256: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireHolder {
    name: Principal,
    openpgp_fingerprint: String,
}

impl Manifest {
    /// A manifest of these custodians and holders, each with one share. Fails where they contradict each other or the threshold.
    pub fn new(
        cluster_name: ClusterName,
        id: ClusterId,
        generation: u32,
        threshold: u8,
        custodians: Vec<Member>,
        holders: Vec<Holder>,
    ) -> Result<Self, CeremonyError> {
        let kind = FileKind::Manifest;
        if generation == 0 {
            return Err(field_error(kind, "generation", "generations count from 1"));
        }
        if custodians.is_empty() {
            return Err(field_error(kind, "custodians", "there is none, and holders alone need no manifest"));
        }
        let shares = u8::try_from(custodians.len() + holders.len())
            .map_err(|_| field_error(kind, "custodians", "with holders more than 255, which no server can have"))?;
        if threshold < THRESHOLD_MIN || threshold > shares {
            let why =
                format!("{threshold} of {shares}; it has to be {THRESHOLD_MIN} or more, and no more than there are");
            return Err(field_error(kind, "threshold", why));
        }
        check_distinct(&custodians)?;
        check_holders(&custodians, &holders)?;
        Ok(Self { cluster_name, id, generation, threshold, custodians, holders })
    }

    /// Reads a manifest file.
    pub fn parse(file: &[u8]) -> Result<Self, CeremonyError> {
        let kind = FileKind::Manifest;
        let wire: Wire = parse_file(kind, MANIFEST_MAX, file)?;
        let parties = wire.custodians.len() + wire.holders.len();
        if parties != usize::from(wire.shares) {
            let why = format!(
                "with holders there are {parties} for {} shares; each share is one custodian's or one holder's",
                wire.shares
            );
            return Err(field_error(kind, "custodians", why));
        }
        let custodians: Result<_, _> = wire.custodians.into_iter().map(Member::from_wire).collect();
        let holders: Result<_, _> = wire.holders.into_iter().map(Holder::from_wire).collect();
        Self::new(wire.cluster_name, wire.id, wire.generation, wire.threshold, custodians?, holders?)
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
            holders: self.holders.iter().map(Holder::to_wire).collect(),
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

    /// How many shares there are: custodians and holders.
    pub fn shares(&self) -> u8 {
        u8::try_from(self.custodians.len() + self.holders.len()).expect("Manifest::new refuses more than 255")
    }

    /// How many of them open the cluster.
    pub fn threshold(&self) -> u8 {
        self.threshold
    }

    /// The custodians, each with one share.
    pub fn custodians(&self) -> &[Member] {
        &self.custodians
    }

    /// The holders, each with one share, none of which is submitted but by hand.
    pub fn holders(&self) -> &[Holder] {
        &self.holders
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
        let Some(digest) = member.packet_sha256 else {
            return Err(CeremonyError::NoPacket(packet.custodian));
        };
        if packet_digest(file) != digest {
            return Err(CeremonyError::PacketDigest(packet.custodian));
        }
        member.check_keys(own, signing)?;
        Ok(packet)
    }

    /// The custodian whose keys these are.
    pub fn own(&self, own: &AgeRecipient, signing: &PublicKey) -> Result<&Member, CeremonyError> {
        let known = |member: &&Member| member.age_recipient == *own || member.signing_key == *signing;
        let member = self.custodians.iter().find(known).ok_or(CeremonyError::Stranger)?;
        member.check_keys(own, signing)?;
        Ok(member)
    }
}

impl Member {
    fn check_keys(&self, own: &AgeRecipient, signing: &PublicKey) -> Result<(), CeremonyError> {
        let compared = [("age identity", self.age_recipient == *own), ("signing key", self.signing_key == *signing)];
        match compared.into_iter().find(|(_, same)| !same) {
            Some((what, _)) => Err(CeremonyError::SomebodyElses { custodian: self.id.clone(), what }),
            None => Ok(()),
        }
    }

    fn from_wire(wire: WireMember) -> Result<Self, CeremonyError> {
        let kind = FileKind::Manifest;
        let digest = |text: String| {
            let mut digest = [0; 32];
            let decoded = hex::decode_to_slice(text, &mut digest);
            decoded.map(|()| digest).map_err(|_| field_error(kind, "packet_sha256", "not 64 hexadecimal digits"))
        };
        Ok(Self {
            id: wire.id,
            enrollment_fingerprint: wire
                .enrollment_fingerprint
                .parse()
                .map_err(|why| field_error(kind, "enrollment_fingerprint", why))?,
            age_recipient: wire.age_recipient.parse().map_err(|why| field_error(kind, "age_recipient", why))?,
            signing_key: parse_signing_key(kind, &wire.signing_key)?,
            packet_sha256: wire.packet_sha256.map(digest).transpose()?,
        })
    }

    fn to_wire(&self) -> WireMember {
        WireMember {
            id: self.id.clone(),
            enrollment_fingerprint: self.enrollment_fingerprint.to_string(),
            age_recipient: self.age_recipient.to_string(),
            signing_key: self.signing_key.to_openssh(),
            packet_sha256: self.packet_sha256.map(hex::encode),
        }
    }
}

impl Holder {
    fn from_wire(wire: WireHolder) -> Result<Self, CeremonyError> {
        let openpgp_fingerprint = wire
            .openpgp_fingerprint
            .parse()
            .map_err(|why| field_error(FileKind::Manifest, "openpgp_fingerprint", why))?;
        Ok(Self { name: wire.name, openpgp_fingerprint })
    }

    fn to_wire(&self) -> WireHolder {
        WireHolder { name: self.name.clone(), openpgp_fingerprint: self.openpgp_fingerprint.to_string() }
    }
}

fn check_holders(custodians: &[Member], holders: &[Holder]) -> Result<(), CeremonyError> {
    for (index, second) in holders.iter().enumerate() {
        let twice = |first: &Principal, what| {
            Err(CeremonyError::Twice { first: first.clone(), second: second.name.clone(), what })
        };
        if let Some(first) = custodians.iter().find(|custodian| custodian.id == second.name) {
            return twice(&first.id, "name");
        }
        for first in holders.iter().take(index) {
            if first.name == second.name {
                return twice(&first.name, "name");
            }
            if first.openpgp_fingerprint == second.openpgp_fingerprint {
                return twice(&first.name, "OpenPGP key");
            }
        }
    }
    Ok(())
}

fn check_distinct(custodians: &[Member]) -> Result<(), CeremonyError> {
    for (index, second) in custodians.iter().enumerate() {
        for first in custodians.iter().take(index) {
            let same = [
                ("name", first.id == second.id),
                ("enrollment", first.enrollment_fingerprint == second.enrollment_fingerprint),
                ("age recipient", first.age_recipient == second.age_recipient),
                ("signing key", first.signing_key == second.signing_key),
                ("packet", first.packet_sha256.is_some() && first.packet_sha256 == second.packet_sha256),
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
            packet_sha256: Some(packet_digest(&packet(index).to_file())),
        };
        (0..5).map(member).collect()
    }

    fn holders() -> Vec<Holder> {
        let holder = |(name, byte): (&str, u8)| Holder {
            name: name.parse().expect("a name"),
            openpgp_fingerprint: OpenPgpFingerprint::from_bytes([byte; 20]),
        };
        [("alice", 0xaa), ("bob", 0xbb)].map(holder).into()
    }

    fn made(threshold: u8, members: Vec<Member>, holders: Vec<Holder>) -> Result<Manifest, CeremonyError> {
        let (name, id) = ("prod".parse().expect("a name"), ClusterId::from_bytes([7; 16]));
        Manifest::new(name, id, 1, threshold, members, holders)
    }

    fn manifest() -> Manifest {
        made(3, members(), holders()).expect("good")
    }

    #[test]
    fn a_manifest_reads_back() {
        let file = manifest().to_file();
        let read = Manifest::parse(&file).expect("our own");
        assert_eq!(read.to_file(), file);
        assert_eq!((read.shares(), read.threshold(), read.generation()), (7, 3, 1));
        assert_eq!((read.custodians().len(), read.holders()), (5, holders().as_slice()));
        assert_eq!(read.member(&packet(2).custodian).map(|member| member.signing_key.clone()), Some(signing_key(2)));
    }

    #[test]
    fn a_custodian_whose_share_is_typed_in_has_no_packet() {
        let mut members = members();
        members[2].packet_sha256 = None;
        members[3].packet_sha256 = None;
        let manifest = made(3, members, holders()).expect("good");
        let read = Manifest::parse(&manifest.to_file()).expect("our own");
        assert_eq!(read.member(&packet(2).custodian).and_then(|member| member.packet_sha256), None);
        let (recipient, key) = (read.custodians()[2].age_recipient.clone(), signing_key(2));
        let refused = read.admit(&packet(2).to_file(), &recipient, &key);
        assert_eq!(refused.err(), Some(CeremonyError::NoPacket(packet(2).custodian)));
        assert_eq!(read.own(&recipient, &key).map(|member| member.id.clone()), Ok(packet(2).custodian));
        let mixed = read.own(&recipient, &signing_key(1)).err();
        assert!(matches!(mixed, Some(CeremonyError::SomebodyElses { .. })), "{mixed:?}");
        let stranger = read.own(&format!("age1{}", "qp".repeat(29)).parse().expect("a form"), &signing_key(9));
        assert_eq!(stranger.err(), Some(CeremonyError::Stranger));
    }

    #[test]
    fn shares_are_custodians_and_holders_together() {
        assert_eq!(made(2, members(), Vec::new()).expect("no holder").shares(), 5);
        let people_needed = made(3, members()[..1].to_vec(), holders()).expect("fewer custodians than the threshold");
        assert_eq!(people_needed.shares(), 3);
        assert!(made(4, members()[..1].to_vec(), holders()).is_err());
        assert!(made(2, Vec::new(), holders()).is_err());
        let many = (0..251u16).map(|index| Holder {
            name: format!("holder-{index}").parse().expect("a name"),
            openpgp_fingerprint: OpenPgpFingerprint::from_bytes([index as u8; 20]),
        });
        assert_eq!(
            made(3, members(), many.clone().take(250).collect()).expect("as many as there can be").shares(),
            255
        );
        assert!(made(3, members(), many.collect()).is_err());
    }

    #[test]
    fn a_manifest_that_contradicts_itself_is_refused() {
        let good = String::from_utf8(manifest().to_file()).expect("JSON");
        let (first, second) = (members()[0].to_wire(), members()[1].to_wire());
        let digest = |member: &WireMember| member.packet_sha256.clone().expect("it has a packet");
        for (from, to, expected) in [
            ("\"v\": 1", "\"v\": 2", "version 2"),
            ("\"kind\": \"manifest\"", "\"kind\": \"enrollment\"", "kind \"enrollment\""),
            ("\"threshold\": 3", "\"threshold\": 1", "threshold"),
            ("\"threshold\": 3", "\"threshold\": 8", "threshold"),
            ("\"threshold\": 3", "\"threshold\": 300", "line 8"),
            ("\"threshold\": 3", "\"threshold\": 3, \"quorum\": 3", "unknown field `quorum`"),
            ("\"threshold\": 3", "\"threshold\": 3, \"threshold\": 3", "duplicate field"),
            ("\"threshold\": 3,", "", "missing field `threshold`"),
            ("\"shares\": 7", "\"shares\": 8", "7 for 8 shares"),
            ("\"shares\": 7", "\"shares\": 5", "7 for 5 shares"),
            ("\"holders\"", "\"people\"", "unknown field `people`"),
            ("\"alice\"", "\"Alice\"", "not a name"),
            ("\"alice\"", "\"bob\"", "same name"),
            ("\"alice\"", "\"custodian-3\"", "same name"),
            (
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
                "same OpenPGP key",
            ),
            (
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                "openpgp_fingerprint",
            ),
            ("\"generation\": 1", "\"generation\": 0", "generation"),
            ("07070707", "0707070", "is not an id"),
            (first.id.as_str(), second.id.as_str(), "same name"),
            (&first.signing_key, &second.signing_key, "same signing key"),
            (&first.signing_key, "ssh-ed25519 AAAA", "signing_key"),
            (&first.age_recipient, &second.age_recipient, "same age recipient"),
            (&digest(&first), &digest(&second), "same packet"),
            (&digest(&first), "00", "packet_sha256"),
            (&first.enrollment_fingerprint, &second.enrollment_fingerprint, "same enrollment"),
            (&first.enrollment_fingerprint, "K7QM", "enrollment_fingerprint"),
        ] as [(&str, &str, &str); 26]
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
