//! Everybody who signs, and how: real keys and real envelopes, so that what comes in goes through the real door.

use std::collections::BTreeSet;
use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use holdfast_core::envelope::Envelope;
use holdfast_core::id::{ClusterId, MessageId, Principal};
use holdfast_core::message::{Body, Content, Header};
use holdfast_core::sshsig::{HashAlg, PublicKey, armor_ed25519, signed_data};
use holdfast_core::time::Timestamp;
use holdfast_core::trust::{AllowedSigners, Namespace};

/// Somebody with a key.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) name: Principal,
    /// Which key it is: two keys of one person have two numbers.
    pub(crate) key: u8,
    secret: SigningKey,
    public: PublicKey,
}

impl Person {
    pub(crate) fn new(name: &str, number: u8) -> Self {
        let secret = SigningKey::from_bytes(&[number; 32]);
        let public = PublicKey::from_ed25519(secret.verifying_key().to_bytes()).expect("a sound key");
        Self { name: name.parse().expect("a name"), key: number, secret, public }
    }

    /// A message as this person would send it.
    pub(crate) fn seal(&self, message: Message) -> Vec<u8> {
        let Message { id, cluster, content, issued_at, expires_at } = message;
        let kind = content.kind();
        let header = Header { kind, id, cluster, from: self.name.clone(), issued_at, expires_at };
        self.seal_body(&Body { header, content })
    }

    /// A message in whoever's name the body says.
    pub(crate) fn seal_body(&self, body: &Body) -> Vec<u8> {
        let namespace = body.header.kind.namespace().as_str();
        let bytes = body.to_json();
        let signature = self.secret.sign(&signed_data(namespace, HashAlg::Sha512, &bytes)).to_bytes();
        Envelope::assemble(&bytes, &armor_ed25519(&self.public, namespace, HashAlg::Sha512, &signature))
    }

    /// Whether it is this person's key.
    pub(crate) fn has(&self, key: &PublicKey) -> bool {
        self.public == *key
    }

    fn line(&self, namespaces: &[Namespace]) -> String {
        let namespaces: Vec<_> = namespaces.iter().map(|n| n.as_str()).collect();
        format!("{} namespaces=\"{}\" {}\n", self.name, namespaces.join(","), self.public.to_openssh())
    }
}

/// What is to be said.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) id: MessageId,
    pub(crate) cluster: ClusterId,
    pub(crate) content: Content,
    pub(crate) issued_at: Timestamp,
    pub(crate) expires_at: Option<Timestamp>,
}

/// Everybody.
#[derive(Debug)]
pub(crate) struct People {
    pub(crate) custodians: Vec<Person>,
    pub(crate) operators: Vec<Person>,
    pub(crate) sentinel: Person,
    /// Who may hold, and nothing else, though the key may sign for everything.
    pub(crate) restrictor: Person,
    /// Listed in the trust root, and has no say in the cluster.
    pub(crate) outsider: Person,
    /// Listed nowhere.
    pub(crate) stranger: Person,
    trust: Option<AllowedSigners>,
}

/// The restrictor's place after the operators.
pub(crate) const RESTRICTOR: usize = 3;

/// How long the approvals of the simulation's operators live.
pub(crate) const APPROVAL_LIFE: Duration = Duration::from_secs(600);

impl People {
    pub(crate) fn new(custodians: usize) -> Self {
        let custodians: Vec<_> = (0..custodians).map(|i| Person::new(&custodian(i), i as u8 + 1)).collect();
        let operators: Vec<_> =
            ["alice", "bob", "carol"].into_iter().zip(100..).map(|(name, n)| Person::new(name, n)).collect();
        let sentinel = Person::new("sentinel-1", 110);
        let restrictor = Person::new("ids-1", 115);
        let outsider = Person::new("oscar", 120);
        let stranger = Person::new("alice", 121);
        let mut people = Self { custodians, operators, sentinel, restrictor, outsider, stranger, trust: None };
        people.trust = Some(AllowedSigners::parse(people.file(&people.operators)).expect("a sound file"));
        people
    }

    /// The trust root that custodians are configured with.
    pub(crate) fn trust(&self) -> &AllowedSigners {
        self.trust.as_ref().expect("made with everybody")
    }

    /// A trust root with these keys of operators.
    pub(crate) fn file(&self, operators: &[Person]) -> String {
        let mut file = String::new();
        self.custodians.iter().for_each(|c| file += &c.line(&[Namespace::Report, Namespace::Intent]));
        operators.iter().for_each(|o| file += &o.line(&[Namespace::Order, Namespace::Approval]));
        file += &self.sentinel.line(&[Namespace::Event]);
        file += &self.restrictor.line(&Namespace::ALL);
        file += &self.outsider.line(&Namespace::ALL);
        file
    }

    /// Whoever may order something: the operators by their place, and after them the restrictor.
    pub(crate) fn orderer(&self, index: usize) -> &Person {
        self.operators.get(index).unwrap_or(&self.restrictor)
    }

    pub(crate) fn names(people: &[Person]) -> BTreeSet<Principal> {
        people.iter().map(|person| person.name.clone()).collect()
    }
}

/// The name of the custodian with this index.
pub(crate) fn custodian(index: usize) -> String {
    format!("custodian-{}", index + 1)
}
