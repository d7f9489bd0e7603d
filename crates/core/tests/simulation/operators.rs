//! What operators order in the simulation, and what a captured custodian makes of it.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use holdfast_core::cause::Cause;
use holdfast_core::id::{IncidentId, MessageId, Principal};
use holdfast_core::message::{Content, Distrust, Heartbeat, Hold, Receipt, Relay, Release, Submission, Trust, Want};
use holdfast_core::trust::AllowedSigners;

use crate::docket::Ordered;
use crate::note;
use crate::people::{Message, Person};
use crate::post::Queue;
use crate::world::World;

/// A key that alice gets later.
pub(crate) const ANOTHER_KEY: u8 = 200;

impl World {
    /// An operator signs an order, now by his clock, which is `offset` milliseconds off.
    pub(crate) fn order_at(&mut self, operator: usize, content: Content, offset: i64) -> (MessageId, Rc<[u8]>) {
        let id = MessageId::from_bytes(self.dice.bytes());
        (id, self.order_with(operator, content, offset, id))
    }

    /// The same, with an id that the operator chose.
    pub(crate) fn order_with(&mut self, operator: usize, content: Content, offset: i64, id: MessageId) -> Rc<[u8]> {
        let issued_at = self.wall(offset);
        let person = self.people.orderer(operator).clone();
        note!(self, "{} orders {content:?} ({id}, key {})", person.name, person.key);
        let message = Message { id, cluster: self.cluster, content: content.clone(), issued_at, expires_at: None };
        let bytes: Rc<[u8]> = person.seal(message).into();
        let ordered = Ordered { operator, key: person.key, issued_at, content, bytes: bytes.clone() };
        self.oracle.ordered.entry((id, operator)).or_insert(ordered);
        bytes
    }

    /// An operator orders something, and it is sent to all.
    pub(crate) fn order(&mut self, operator: usize, content: Content) -> MessageId {
        let (id, bytes) = self.order_at(operator, content, 0);
        self.send_order(&bytes);
        id
    }

    /// One operator holds these nodes, or, with none, the cluster.
    pub(crate) fn hold_nodes(&mut self, operator: usize, nodes: &[usize]) -> MessageId {
        let nodes = nodes.iter().map(|n| self.names[*n].clone()).collect();
        self.order(operator, Content::Hold(Hold { nodes, reason: None }))
    }

    /// What ends a hold, when enough operators say so.
    pub(crate) fn end_of(&self, hold: MessageId) -> Content {
        let found = self.oracle.ordered.iter().find(|((id, _), _)| *id == hold);
        let ordered = found.map(|(_, ordered)| ordered).expect("it was ordered");
        let Content::Hold(Hold { nodes, .. }) = &ordered.content else { panic!("{hold} is no hold") };
        let by = self.people.orderer(ordered.operator).name.clone();
        Content::Release(Release { hold, by, held_at: ordered.issued_at, nodes: nodes.clone() })
    }

    /// Every hold that was ever ordered.
    pub(crate) fn held_ever(&self) -> Vec<MessageId> {
        let ordered = self.oracle.ordered.iter();
        ordered.filter(|(_, order)| matches!(order.content, Content::Hold(_))).map(|((id, _), _)| *id).collect()
    }

    /// Whom operators may distrust: the custodians, and then the sentinel.
    pub(crate) fn peer(&self, index: usize) -> Principal {
        self.people.custodians.get(index).unwrap_or(&self.people.sentinel).name.clone()
    }

    /// Whether each hold that somebody obeys is obeyed by all who run, but those where it was ended or whose trust root does
    /// not know its key.
    pub(crate) fn holds_are_everywhere(&self) -> bool {
        let stands = |c: &usize| (0..self.vaults.len()).flat_map(|n| self.bound_by(*c, n)).collect::<BTreeSet<_>>();
        let everybody: Vec<_> = (0..self.hosts.len()).filter(|c| self.hosts[*c].running.is_some()).collect();
        let all: BTreeSet<_> = everybody.iter().flat_map(stands).collect();
        everybody.iter().all(|c| all.difference(&stands(c)).all(|hold| !self.would_obey(*c, *hold)))
    }

    /// These operators release a hold.
    pub(crate) fn release_by(&mut self, operators: &[usize], hold: MessageId) {
        for operator in operators {
            let release = self.end_of(hold);
            self.order(*operator, release);
        }
    }

    pub(crate) fn distrust_by(&mut self, operators: &[usize], principal: &Principal, lift: bool) {
        for operator in operators {
            self.order(*operator, Content::Distrust(Distrust { principal: principal.clone(), lift }));
        }
    }

    /// Another trust root: as the one before, with another key for alice.
    pub(crate) fn another_file(&self, key: u8) -> String {
        let mut operators = self.people.operators.clone();
        operators[0] = Person::new(operators[0].name.as_str(), key);
        self.people.file(&operators)
    }

    pub(crate) fn trust_order(version: u32, replaces: &[u8; 32], file: String) -> Content {
        Content::Trust(Trust { version, previous_sha256: hex::encode(replaces), allowed_signers: file })
    }

    /// The numbers of each operator's keys in a trust root.
    pub(crate) fn keys_of(&self, file: &str) -> Vec<Vec<u8>> {
        let parsed = AllowedSigners::parse(file).expect("a sound file");
        let listed = |operator: &Person, number: &u8| {
            let person = Person::new(operator.name.as_str(), *number);
            parsed.signers().any(|signer| *signer.principal() == operator.name && person.has(signer.key()))
        };
        let numbers = || (100..103).chain(ANOTHER_KEY..ANOTHER_KEY + 4);
        let operators = self.people.operators.iter();
        operators.map(|operator| numbers().filter(|number| listed(operator, number)).collect()).collect()
    }

    // What a captured custodian says.

    /// Says something in a custodian's name that its program would not.
    pub(crate) fn claim(&mut self, liar: usize, content: Content) {
        let id = MessageId::from_bytes(self.dice.bytes());
        let message = Message { id, cluster: self.cluster, content, issued_at: self.wall(0), expires_at: None };
        let bytes: Rc<[u8]> = self.people.custodians[liar].seal(message).into();
        if self.post.up {
            self.distribute(Queue::Peers, &bytes, Some(liar));
        }
    }

    /// Says that it opened a node, just now.
    pub(crate) fn claim_opened(&mut self, liar: usize, n: usize, intent: Option<MessageId>) {
        let opened = self.receipt_of_opening(liar, n, intent);
        self.claim(liar, Content::Receipt(opened));
    }

    /// What a custodian says that opened a node just now.
    pub(crate) fn receipt_of_opening(&self, by: usize, n: usize, intent: Option<MessageId>) -> Receipt {
        let at = self.wall(50);
        Receipt {
            node: self.names[n].clone(),
            incident: IncidentId::from_bytes([7; 16]),
            round: 0,
            cause: Cause::Restart,
            approvals: Vec::new(),
            intent,
            x: by as u8 + 1,
            result: Submission::Opened,
            nonce: String::new(),
            progress: 0,
            sealed_seen_at: at,
            submitted_at: at,
            answered_at: at,
        }
    }

    /// Sends an envelope that nobody asked for, to everybody.
    pub(crate) fn relay_unasked(&mut self, liar: usize, envelope: &[u8]) {
        let names: Vec<_> = self.people.custodians.iter().map(|custodian| custodian.name.clone()).collect();
        for to in names {
            let envelope = String::from_utf8_lossy(envelope).into_owned();
            self.claim(liar, Content::Relay(Relay { to, envelope }));
        }
    }

    /// Says that it passes on what it does not have.
    pub(crate) fn claim_digests(&mut self, liar: usize, digests: Vec<String>) {
        if let Some(mut heartbeat) = self.hosts[liar].heartbeat.clone() {
            heartbeat.orders = digests;
            self.claim(liar, Content::Heartbeat(Box::new(heartbeat)));
        }
    }

    /// Asks for everything that anybody passes on.
    pub(crate) fn want_all(&mut self, liar: usize) {
        for c in 0..self.hosts.len() {
            let Some(heartbeat) = self.hosts[c].heartbeat.clone() else { continue };
            let of = self.people.custodians[c].name.clone();
            let sha256 = heartbeat.orders.into_iter().take(16).collect();
            self.claim(liar, Content::Want(Want { of, sha256 }));
        }
    }

    /// The digests that a custodian named last.
    pub(crate) fn named_by(&self, c: usize) -> Vec<String> {
        self.hosts[c].heartbeat.as_ref().map_or_else(Vec::new, |heartbeat: &Heartbeat| heartbeat.orders.clone())
    }

    /// Everybody's clock goes on by this much.
    pub(crate) fn wait_by_the_clock(&mut self, length: Duration) {
        self.advance_clocks(i64::try_from(length.as_millis()).expect("short"));
        self.run(Duration::from_millis(1_500));
    }
}
