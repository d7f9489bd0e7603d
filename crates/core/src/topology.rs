//! The broker's topology: the names of exchanges, queues and routing keys, and who may touch which of them.
//!
//! What lives here: names, and the definitions file that RabbitMQ imports. What does not: a connection (`holdfast_edge::broker`).
//! The broker is not trusted: every message is signed, and nothing here can make a custodian release a share. These
//! permissions keep a captured party's noise out of the others' queues.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::id::{ClusterId, ClusterName, Principal};
use crate::message::Kind;
use crate::trust::Namespace;

/// The virtual host that holds everything of Holdfast, so that it can share a broker with others.
pub const VHOST: &str = "holdfast";

/// Orders and approvals that a custodian may have waiting. 1,000 is years of orders; beyond it somebody floods, and the
/// sender is told (`reject-publish`) instead of an older order being lost.
pub const ORDERS_MAX_LENGTH: u64 = 1_000;
/// The same in bytes: room for a hundred `trust` orders with a large `allowed_signers` among the small ones.
pub const ORDERS_MAX_BYTES: u64 = 8 * 1024 * 1024;
/// How often an order may be handed out before it is dropped: in effect never. Each lost connection counts one for every
/// order in flight, RabbitMQ 4 would drop at 20 where nothing is said, and a dropped hold is worse than any repetition.
pub const ORDERS_DELIVERY_LIMIT: u64 = 1_000_000;

/// How long a peer's message waits. Heartbeats repeat every 10 s and permissions are answered within seconds, so what is
/// older than a minute only delays what is new.
pub const PEERS_TTL_MILLIS: u64 = 60_000;
/// Peers' messages that may wait: a minute of twenty custodians with one incident each, several times over.
pub const PEERS_MAX_LENGTH: u64 = 2_000;
/// The same in bytes.
pub const PEERS_MAX_BYTES: u64 = 8 * 1024 * 1024;
/// How often a peer's message is handed out: one that 20 connections did not get through is not worth a 21st.
pub const PEERS_DELIVERY_LIMIT: u64 = 20;

/// How long a message waits for a sentinel: no longer than its door takes it for fresh.
pub const SENTINEL_TTL_MILLIS: u64 = PEERS_TTL_MILLIS;
/// Messages that may wait for a sentinel: a minute of a thousand custodians, several times over.
pub const SENTINEL_MAX_LENGTH: u64 = 20_000;
/// The same in bytes.
pub const SENTINEL_MAX_BYTES: u64 = 32 * 1024 * 1024;

/// Answers that may wait for an operator: of each custodian to each of many orders, and how drills go, for as long as anybody waits
/// for them.
pub const OPERATOR_MAX_LENGTH: u64 = 1_000;
/// The same in bytes.
pub const OPERATOR_MAX_BYTES: u64 = 2 * 1024 * 1024;
/// How long an answer waits for an operator: whoever ordered is there, or gone.
pub const OPERATOR_TTL_MILLIS: u64 = PEERS_TTL_MILLIS;

/// How long a drill order waits for a conductor: as long as a permission lives at most.
pub const CONDUCTOR_TTL_MILLIS: u64 = 15 * 60 * 1_000;
/// Drill orders that may wait for a conductor. People write them.
pub const CONDUCTOR_MAX_LENGTH: u64 = 100;
/// The same in bytes.
pub const CONDUCTOR_MAX_BYTES: u64 = 1024 * 1024;

/// Connections that one user may have open: one in use, and those that died unnoticed until their heartbeats run out.
pub const USER_MAX_CONNECTIONS: u64 = 16;
/// Channels that one user may have open: one to publish and one for each queue, on each of those connections.
pub const USER_MAX_CHANNELS: u64 = 128;

/// The exchanges, each for the word of one kind of party.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exchange {
    /// Orders and approvals, written by operators.
    Orders,
    /// What sentinels saw.
    Events,
    /// Conductors' announcements of a drill.
    Intents,
    /// Custodians' heartbeats, receipts, refusals and markers.
    Reports,
}

impl Exchange {
    /// All exchanges.
    pub const ALL: [Self; 4] = [Self::Orders, Self::Events, Self::Intents, Self::Reports];

    /// Where messages go that are signed in this namespace.
    pub const fn of(namespace: Namespace) -> Self {
        match namespace {
            Namespace::Order | Namespace::Approval => Self::Orders,
            Namespace::Event => Self::Events,
            Namespace::Intent => Self::Intents,
            Namespace::Report => Self::Reports,
        }
    }

    /// The exchange's name at the broker.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Orders => "holdfast.orders",
            Self::Events => "holdfast.events",
            Self::Intents => "holdfast.intents",
            Self::Reports => "holdfast.reports",
        }
    }
}

/// The routing key of a message: `<cluster id>.<principal>.<kind>`.
///
/// `kind` is a message's kind as it stands in its body: a few lower-case letters and dashes.
pub fn routing_key(cluster: ClusterId, from: &Principal, kind: &str) -> String {
    format!("{cluster}.{from}.{kind}")
}

/// The queue of a custodian's orders and approvals, which no flood of peers can push out.
pub fn orders_queue(custodian: &Principal) -> String {
    format!("holdfast.custodian.{custodian}.orders")
}

/// The queue of what a custodian's peers say: events, intents and reports.
pub fn peers_queue(custodian: &Principal) -> String {
    format!("holdfast.custodian.{custodian}.peers")
}

/// A sentinel's queue.
pub fn sentinel_queue(sentinel: &Principal) -> String {
    format!("holdfast.sentinel.{sentinel}")
}

/// The queue of what custodians answer to an operator's orders and approvals, and of how drills go.
pub fn operator_queue(operator: &Principal) -> String {
    format!("holdfast.operator.{operator}")
}

/// The queue of a cluster's drill orders, which one conductor at a time reads.
pub fn conductor_queue(cluster: ClusterId) -> String {
    format!("holdfast.conductor.{cluster}")
}

/// A password as RabbitMQ stores it: base64 of a 4-byte salt and SHA-256 over the salt and the password.
///
/// The passwords are 32 random bytes in text, so that one fast hash is enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// The hash of `password` with this salt of random bytes.
    pub fn new(password: &[u8], salt: [u8; 4]) -> Self {
        let digest = Sha256::new().chain_update(salt).chain_update(password).finalize();
        let mut stored = Vec::with_capacity(salt.len() + digest.len());
        stored.extend_from_slice(&salt);
        stored.extend_from_slice(&digest);
        Self(STANDARD.encode(stored))
    }

    /// The hash as it stands in the definitions file.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Who takes part in one cluster.
#[derive(Debug, Clone)]
pub struct ClusterParties {
    /// The cluster's id.
    pub id: ClusterId,
    /// The cluster's name, for messages to people.
    pub name: ClusterName,
    /// Its custodians.
    pub custodians: Vec<Principal>,
    /// Its sentinels.
    pub sentinels: Vec<Principal>,
    /// Those of its custodians that may conduct drills.
    pub conductors: Vec<Principal>,
    /// Its operators.
    pub operators: Vec<Principal>,
    /// Those who may order holds, and nothing else.
    pub restrictors: Vec<Principal>,
}

/// Everybody who logs in at the broker.
#[derive(Debug, Clone, Default)]
pub struct Parties {
    /// The clusters.
    pub clusters: Vec<ClusterParties>,
    /// The password of each party.
    pub passwords: BTreeMap<Principal, PasswordHash>,
    /// A user who may do everything at this virtual host. A lab wants one; elsewhere the broker's own administrator serves.
    pub administrator: Option<(Principal, PasswordHash)>,
}

/// Why no definitions can be made. All of them are the fault of whoever wrote the list of parties.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// Two clusters have one id.
    #[error("two clusters have the id {0}: each manifest has its own, is one of them listed twice?")]
    SameCluster(ClusterId),
    /// A party has no password.
    #[error("{0} has no password: make one for each custodian, sentinel and operator")]
    NoPassword(Principal),
    /// A password belongs to nobody.
    #[error("there is a password for {0}, who is in no cluster: remove it, or add the party")]
    Stranger(Principal),
    /// One principal in two roles would join what the roles keep apart.
    #[error(
        "{0} is listed in two roles: custodians, sentinels, operators, restrictors and the administrator are different parties"
    )]
    TwoRoles(Principal),
    /// Conductors are custodians.
    #[error("{conductor} is to conduct drills of {cluster} and is not one of its custodians: add it there")]
    NotACustodian {
        /// The conductor.
        conductor: Principal,
        /// The cluster.
        cluster: ClusterName,
    },
}

/// The definitions file that RabbitMQ imports, with `load_definitions` at its start or `rabbitmqctl import_definitions`.
///
/// The same parties give the same file to the letter.
pub fn definitions(parties: &Parties) -> Result<Value, TopologyError> {
    let roles = Roles::of(parties)?;
    let mut out = Definitions::default();
    for (custodian, clusters) in &roles.custodians {
        let own: Vec<_> = clusters.iter().map(|c| c.id).collect();
        let conducts: Vec<_> = clusters.iter().filter(|c| c.conductors.contains(custodian)).map(|c| c.id).collect();
        out.custodian(custodian, &own, &conducts);
    }
    for (sentinel, clusters) in &roles.sentinels {
        out.sentinel(sentinel, &clusters.iter().map(|c| c.id).collect::<Vec<_>>());
    }
    for (operator, clusters) in &roles.operators {
        let own: Vec<_> = clusters.iter().map(|c| c.id).collect();
        out.operator(operator, &own);
    }
    for (restrictor, clusters) in &roles.restrictors {
        out.restrictor(restrictor, &clusters.iter().map(|c| c.id).collect::<Vec<_>>());
    }
    for cluster in parties.clusters.iter().filter(|c| !c.conductors.is_empty()) {
        out.conductor(cluster.id);
    }
    for (principal, password) in &parties.passwords {
        out.user(principal, password, &[]);
    }
    if let Some((name, password)) = &parties.administrator {
        out.user(name, password, &["administrator"]);
        out.permissions.push(json!({"user": name, "vhost": VHOST, "configure": ".*", "write": ".*", "read": ".*"}));
    }
    Ok(out.finish())
}

type Role<'a> = BTreeMap<&'a Principal, Vec<&'a ClusterParties>>;

struct Roles<'a> {
    custodians: Role<'a>,
    sentinels: Role<'a>,
    operators: Role<'a>,
    restrictors: Role<'a>,
}

impl<'a> Roles<'a> {
    fn of(parties: &'a Parties) -> Result<Self, TopologyError> {
        let mut roles =
            Self { custodians: Role::new(), sentinels: Role::new(), operators: Role::new(), restrictors: Role::new() };
        let mut ids = BTreeSet::new();
        for cluster in &parties.clusters {
            if !ids.insert(cluster.id) {
                return Err(TopologyError::SameCluster(cluster.id));
            }
            if let Some(conductor) = cluster.conductors.iter().find(|c| !cluster.custodians.contains(c)) {
                let (conductor, cluster) = (conductor.clone(), cluster.name.clone());
                return Err(TopologyError::NotACustodian { conductor, cluster });
            }
            for (names, role) in [
                (&cluster.custodians, &mut roles.custodians),
                (&cluster.sentinels, &mut roles.sentinels),
                (&cluster.operators, &mut roles.operators),
                (&cluster.restrictors, &mut roles.restrictors),
            ] {
                for name in names.iter().collect::<BTreeSet<_>>() {
                    role.entry(name).or_default().push(cluster);
                }
            }
        }
        let people = roles.operators.keys().chain(roles.restrictors.keys());
        let everybody = roles.custodians.keys().chain(roles.sentinels.keys()).chain(people);
        let mut seen: BTreeSet<&Principal> = parties.administrator.iter().map(|(name, _)| name).collect();
        for name in everybody {
            if !seen.insert(name) {
                return Err(TopologyError::TwoRoles((*name).clone()));
            }
            if !parties.passwords.contains_key(*name) {
                return Err(TopologyError::NoPassword((*name).clone()));
            }
        }
        match parties.passwords.keys().find(|name| !seen.contains(name)) {
            Some(stranger) => Err(TopologyError::Stranger(stranger.clone())),
            // The administrator's password stands beside its name, never in the list.
            None => match &parties.administrator {
                Some((name, _)) if parties.passwords.contains_key(name) => Err(TopologyError::TwoRoles(name.clone())),
                _ => Ok(roles),
            },
        }
    }
}

#[derive(Default)]
struct Definitions {
    users: Vec<Value>,
    permissions: Vec<Value>,
    topic_permissions: Vec<Value>,
    queues: Vec<Value>,
    bindings: Vec<Value>,
}

impl Definitions {
    fn custodian(&mut self, custodian: &Principal, clusters: &[ClusterId], conducts: &[ClusterId]) {
        let (orders, peers) = (orders_queue(custodian), peers_queue(custodian));
        self.queue(
            &orders,
            json!({
                "x-max-length": ORDERS_MAX_LENGTH,
                "x-max-length-bytes": ORDERS_MAX_BYTES,
                "x-overflow": "reject-publish",
                "x-delivery-limit": ORDERS_DELIVERY_LIMIT,
            }),
        );
        self.queue(
            &peers,
            json!({
                "x-message-ttl": PEERS_TTL_MILLIS,
                "x-max-length": PEERS_MAX_LENGTH,
                "x-max-length-bytes": PEERS_MAX_BYTES,
                "x-overflow": "drop-head",
                "x-delivery-limit": PEERS_DELIVERY_LIMIT,
            }),
        );
        for id in clusters {
            self.bind(Exchange::Orders, &orders, &format!("{id}.*.*"));
            for exchange in [Exchange::Events, Exchange::Intents, Exchange::Reports] {
                self.bind(exchange, &peers, &format!("{id}.*.*"));
            }
        }
        let mut reads = vec![orders, peers];
        reads.extend(conducts.iter().map(|id| conductor_queue(*id)));
        let mut writes = vec![(Exchange::Reports, clusters)];
        if !conducts.is_empty() {
            writes.insert(0, (Exchange::Intents, conducts));
        }
        self.permissions(custodian, &writes, &reads);
    }

    fn sentinel(&mut self, sentinel: &Principal, clusters: &[ClusterId]) {
        let queue = sentinel_queue(sentinel);
        self.queue(
            &queue,
            json!({
                "x-message-ttl": SENTINEL_TTL_MILLIS,
                "x-max-length": SENTINEL_MAX_LENGTH,
                "x-max-length-bytes": SENTINEL_MAX_BYTES,
                "x-overflow": "drop-head",
                "x-delivery-limit": PEERS_DELIVERY_LIMIT,
            }),
        );
        for id in clusters {
            for exchange in Exchange::ALL {
                self.bind(exchange, &queue, &format!("{id}.*.*"));
            }
        }
        self.permissions(sentinel, &[(Exchange::Events, clusters)], &[queue]);
    }

    fn operator(&mut self, operator: &Principal, clusters: &[ClusterId]) {
        let queue = self.answers(operator, clusters, &[Kind::Acknowledgement, Kind::DrillReport]);
        self.permissions(operator, &[(Exchange::Orders, clusters)], &[queue]);
    }

    /// It writes holds alone. Heartbeats tell it which of its holds stand, so that it orders none twice.
    fn restrictor(&mut self, restrictor: &Principal, clusters: &[ClusterId]) {
        let queue = self.answers(restrictor, clusters, &[Kind::Acknowledgement, Kind::Heartbeat]);
        self.permissions_for(restrictor, &[(Exchange::Orders, clusters)], &[queue], Kind::Hold.as_str());
    }

    /// The queue of what custodians answer to whoever ordered something.
    fn answers(&mut self, to: &Principal, clusters: &[ClusterId], kinds: &[Kind]) -> String {
        let queue = operator_queue(to);
        self.queue(
            &queue,
            json!({
                "x-message-ttl": OPERATOR_TTL_MILLIS,
                "x-max-length": OPERATOR_MAX_LENGTH,
                "x-max-length-bytes": OPERATOR_MAX_BYTES,
                "x-overflow": "drop-head",
                "x-delivery-limit": PEERS_DELIVERY_LIMIT,
            }),
        );
        for id in clusters {
            for kind in kinds {
                self.bind(Exchange::of(kind.namespace()), &queue, &format!("{id}.*.{}", kind.as_str()));
            }
        }
        queue
    }

    fn conductor(&mut self, cluster: ClusterId) {
        let queue = conductor_queue(cluster);
        self.queue(
            &queue,
            json!({
                // Elects one conductor. It does not fence: the slots of intents do.
                "x-single-active-consumer": true,
                "x-message-ttl": CONDUCTOR_TTL_MILLIS,
                "x-max-length": CONDUCTOR_MAX_LENGTH,
                "x-max-length-bytes": CONDUCTOR_MAX_BYTES,
                "x-overflow": "reject-publish",
                "x-delivery-limit": PEERS_DELIVERY_LIMIT,
            }),
        );
        self.bind(Exchange::Orders, &queue, &format!("{cluster}.*.{}", Kind::Drill.as_str()));
        self.bind(Exchange::Intents, &queue, &format!("{cluster}.*.{}", Kind::Due.as_str()));
    }

    fn queue(&mut self, name: &str, mut arguments: Value) {
        arguments["x-queue-type"] = json!("quorum");
        self.queues
            .push(json!({"name": name, "vhost": VHOST, "durable": true, "auto_delete": false, "arguments": arguments}));
    }

    fn bind(&mut self, exchange: Exchange, queue: &str, key: &str) {
        self.bindings.push(json!({
            "source": exchange.as_str(), "vhost": VHOST, "destination": queue, "destination_type": "queue",
            "routing_key": key, "arguments": {},
        }));
    }

    /// Declares nothing, writes these exchanges for these clusters and none else (the default exchange is checked as
    /// `amq.default`), reads these queues and binds nothing (which would take the right to write to a queue).
    fn permissions(&mut self, user: &Principal, writes: &[(Exchange, &[ClusterId])], reads: &[String]) {
        self.permissions_for(user, writes, reads, ANY_KIND);
    }

    /// The same, for messages of these kinds alone.
    fn permissions_for(
        &mut self,
        user: &Principal,
        writes: &[(Exchange, &[ClusterId])],
        reads: &[String],
        kinds: &str,
    ) {
        let write = one_of(writes.iter().map(|(exchange, _)| exchange.as_str()));
        let read = one_of(reads.iter().map(String::as_str));
        self.permissions.push(json!({"user": user, "vhost": VHOST, "configure": "^$", "write": write, "read": read}));
        for (exchange, clusters) in writes {
            let ids: Vec<_> = clusters.iter().map(ClusterId::to_string).collect();
            self.topic_permissions.push(json!({
                "user": user, "vhost": VHOST, "exchange": exchange.as_str(), "read": "^$",
                "write": format!(r"^({})\.{user}\.{kinds}$", ids.join("|")),
            }));
        }
    }

    fn user(&mut self, name: &Principal, password: &PasswordHash, tags: &[&str]) {
        self.users.push(json!({
            "name": name, "password_hash": password.as_str(), "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": tags, "limits": {"max-connections": USER_MAX_CONNECTIONS, "max-channels": USER_MAX_CHANNELS},
        }));
    }

    fn finish(self) -> Value {
        let exchanges: Vec<_> = Exchange::ALL
            .iter()
            .map(|exchange| {
                json!({"name": exchange.as_str(), "vhost": VHOST, "type": "topic", "durable": true,
                    "auto_delete": false, "internal": false, "arguments": {}})
            })
            .collect();
        json!({
            "vhosts": [{"name": VHOST}],
            "users": self.users,
            "permissions": self.permissions,
            "topic_permissions": self.topic_permissions,
            "exchanges": exchanges,
            "queues": self.queues,
            "bindings": self.bindings,
            "policies": [],
            "parameters": [],
            "global_parameters": [],
        })
    }
}

/// A pattern for every kind of message.
const ANY_KIND: &str = "[a-z-]+";

/// A pattern for exactly these names. Names are letters, digits, dashes and dots; only the dots mean something in it.
fn one_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(|name| name.replace('.', r"\.")).collect();
    if names.is_empty() { "^$".to_owned() } else { format!("^({})$", names.join("|")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Principal {
        text.parse().expect("a name")
    }

    fn cluster(id: u8, custodians: &[&str], conductors: &[&str]) -> ClusterParties {
        let names = |list: &[&str]| list.iter().map(|text| name(text)).collect();
        ClusterParties {
            id: ClusterId::from_bytes([id; 16]),
            name: format!("cluster-{id}").parse().expect("a name"),
            custodians: names(custodians),
            sentinels: names(&["sentinel-1"]),
            conductors: names(conductors),
            operators: names(&["alice"]),
            restrictors: names(&["ids-1"]),
        }
    }

    fn parties(clusters: Vec<ClusterParties>, users: &[&str]) -> Parties {
        let passwords = users.iter().map(|user| (name(user), PasswordHash::new(user.as_bytes(), [1, 2, 3, 4])));
        Parties { clusters, passwords: passwords.collect(), administrator: None }
    }

    fn two_clusters() -> Parties {
        let clusters = vec![
            cluster(1, &["custodian-1", "custodian-2"], &["custodian-1"]),
            cluster(2, &["custodian-1", "custodian-3"], &[]),
        ];
        parties(clusters, &["custodian-1", "custodian-2", "custodian-3", "sentinel-1", "alice", "ids-1"])
    }

    fn entry<'a>(definitions: &'a Value, list: &str, user: &str, exchange: Option<Exchange>) -> &'a Value {
        let mut found = definitions[list].as_array().expect("a list").iter().filter(|entry| {
            entry["user"] == user && exchange.is_none_or(|exchange| entry["exchange"] == exchange.as_str())
        });
        let entry = found.next().expect("an entry");
        assert!(found.next().is_none(), "two entries for {user} in {list}");
        entry
    }

    #[test]
    fn the_password_is_stored_as_rabbitmq_stores_it() {
        // The example of RabbitMQ's documentation, "Computing Password Hash".
        let hash = PasswordHash::new(b"test12", [0x90, 0x8d, 0xc6, 0x0a]);
        assert_eq!(hash.as_str(), "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR");
    }

    #[test]
    fn each_party_may_touch_its_own_and_nothing_else() {
        let (one, two) = ("01".repeat(16), "02".repeat(16));
        let made = definitions(&two_clusters()).expect("good parties");
        for list in ["permissions", "topic_permissions"] {
            assert_eq!(made["users"].as_array().map(Vec::len), Some(6));
            assert!(made[list].as_array().expect("a list").iter().all(|entry| entry["vhost"] == "holdfast"));
        }
        let expected = [
            (
                "custodian-1",
                r"^(holdfast\.intents|holdfast\.reports)$".to_owned(),
                format!(
                    r"^(holdfast\.custodian\.custodian-1\.orders|holdfast\.custodian\.custodian-1\.peers|holdfast\.conductor\.{one})$"
                ),
            ),
            (
                "custodian-2",
                r"^(holdfast\.reports)$".to_owned(),
                r"^(holdfast\.custodian\.custodian-2\.orders|holdfast\.custodian\.custodian-2\.peers)$".to_owned(),
            ),
            ("sentinel-1", r"^(holdfast\.events)$".to_owned(), r"^(holdfast\.sentinel\.sentinel-1)$".to_owned()),
            ("alice", r"^(holdfast\.orders)$".to_owned(), r"^(holdfast\.operator\.alice)$".to_owned()),
            ("ids-1", r"^(holdfast\.orders)$".to_owned(), r"^(holdfast\.operator\.ids-1)$".to_owned()),
        ];
        for (user, write, read) in expected {
            let entry = entry(&made, "permissions", user, None);
            assert_eq!(
                (&entry["configure"], &entry["write"], &entry["read"]),
                (&json!("^$"), &json!(write), &json!(read))
            );
        }
        let keys = [
            ("custodian-1", Exchange::Reports, format!(r"^({one}|{two})\.custodian-1\.[a-z-]+$")),
            ("custodian-1", Exchange::Intents, format!(r"^({one})\.custodian-1\.[a-z-]+$")),
            ("custodian-2", Exchange::Reports, format!(r"^({one})\.custodian-2\.[a-z-]+$")),
            ("sentinel-1", Exchange::Events, format!(r"^({one}|{two})\.sentinel-1\.[a-z-]+$")),
            ("alice", Exchange::Orders, format!(r"^({one}|{two})\.alice\.[a-z-]+$")),
            ("ids-1", Exchange::Orders, format!(r"^({one}|{two})\.ids-1\.hold$")),
        ];
        for (user, exchange, write) in keys {
            let entry = entry(&made, "topic_permissions", user, Some(exchange));
            assert_eq!((&entry["write"], &entry["read"]), (&json!(write), &json!("^$")));
        }
    }

    #[test]
    fn every_queue_is_a_bounded_quorum_queue_and_bound_per_cluster() {
        let made = definitions(&two_clusters()).expect("good parties");
        let queues = made["queues"].as_array().expect("a list");
        // Two of each custodian, one of the sentinel, the operator, the restrictor and the conductors.
        assert_eq!(queues.len(), 3 * 2 + 1 + 1 + 1 + 1);
        for queue in queues {
            let arguments = &queue["arguments"];
            assert_eq!((&arguments["x-queue-type"], &queue["durable"]), (&json!("quorum"), &json!(true)), "{queue}");
            for limit in ["x-max-length", "x-max-length-bytes", "x-delivery-limit"] {
                assert!(arguments[limit].is_u64(), "{limit} of {queue}");
            }
            let orders = queue["name"].as_str().is_some_and(|name| name.ends_with(".orders"));
            assert_eq!(arguments.get("x-message-ttl").is_none(), orders, "{queue}");
        }
        let mut to_orders = made["bindings"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|binding| binding["destination"].as_str().is_some_and(|queue| queue.ends_with(".orders")));
        assert!(to_orders.all(|binding| binding["source"] == "holdfast.orders"));
        let bound_to = |queue: &str| -> BTreeSet<(String, String)> {
            let bindings = made["bindings"].as_array().expect("a list").iter();
            let of_it = bindings.filter(|binding| binding["destination"] == queue);
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            of_it.map(|binding| (text(&binding["source"]), text(&binding["routing_key"]))).collect()
        };
        let both = |ends: [(&str, String); 2]| BTreeSet::from(ends.map(|(source, key)| (source.to_owned(), key)));
        let (one, two) = ("01".repeat(16), "02".repeat(16));
        let answers = |id: &str| {
            [
                ("holdfast.reports", format!("{id}.*.acknowledgement")),
                ("holdfast.intents", format!("{id}.*.drill-report")),
            ]
        };
        let operators: BTreeSet<_> = both(answers(&one)).into_iter().chain(both(answers(&two))).collect();
        assert_eq!(bound_to("holdfast.operator.alice"), operators);
        let conductors =
            both([("holdfast.orders", format!("{one}.*.drill")), ("holdfast.intents", format!("{one}.*.due"))]);
        assert_eq!(bound_to(&format!("holdfast.conductor.{one}")), conductors);
    }

    #[test]
    fn parties_that_do_not_add_up_are_refused() {
        let one = || vec![cluster(1, &["custodian-1"], &[])];
        let users = ["custodian-1", "sentinel-1", "ids-1", "alice"];
        assert!(definitions(&parties(one(), &users)).is_ok());
        let refused = |parties: Parties| definitions(&parties).err();
        assert_eq!(refused(parties(one(), &users[..3])), Some(TopologyError::NoPassword(name("alice"))));
        let stranger = ["custodian-1", "sentinel-1", "ids-1", "alice", "bob"];
        assert_eq!(refused(parties(one(), &stranger)), Some(TopologyError::Stranger(name("bob"))));
        let twice = [one(), one()].concat();
        assert!(matches!(refused(parties(twice, &users)), Some(TopologyError::SameCluster(_))));
        let both = vec![cluster(1, &["alice"], &[])];
        assert_eq!(
            refused(parties(both, &["sentinel-1", "ids-1", "alice"])),
            Some(TopologyError::TwoRoles(name("alice")))
        );
        let both = vec![ClusterParties { restrictors: vec![name("alice")], ..cluster(1, &["custodian-1"], &[]) }];
        assert_eq!(refused(parties(both, &users)), Some(TopologyError::TwoRoles(name("alice"))));
        let conductor = vec![cluster(1, &["custodian-1"], &["custodian-2"])];
        assert!(matches!(refused(parties(conductor, &users)), Some(TopologyError::NotACustodian { .. })));
        let mut admin = parties(one(), &users);
        admin.administrator = Some((name("alice"), PasswordHash::new(b"x", [0; 4])));
        assert_eq!(refused(admin), Some(TopologyError::TwoRoles(name("alice"))));
    }
}
