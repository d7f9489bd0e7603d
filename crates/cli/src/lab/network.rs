//! Who takes part in a lab, and every party's configuration: written as a person would, one folder for each.

use std::fmt::Write as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use holdfast_edge::keys::{KeyError, SigningKey};

use super::file::{self, WriteError};
use super::layout::Layout;
use super::openbao::Node;

/// The cluster's name in every configuration.
pub(crate) const CLUSTER: &str = "lab";
/// Where a conductor's token lies, beside its configuration.
const SEAL_TOKEN_FILE: &str = "seal-token.age";
/// The operators; the first one's configuration is the lab's `operator.toml`.
pub(crate) const OPERATORS: [&str; 2] = ["alice", "bob"];
/// Where custodians are said to stand, in turn: margins without the largest site mean something then.
const SITES: [&str; 3] = ["bern", "lugano", "zurich"];

/// Why a party could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    /// A key could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file could not be read that another command made.
    #[error("cannot read {file}: {1}", file = .0.display())]
    Read(PathBuf, std::io::Error),
    /// A file could not be written.
    #[error(transparent)]
    Written(#[from] WriteError),
}

/// A sentinel.
#[derive(Debug)]
pub(crate) struct Sentinel {
    /// Its id.
    pub(crate) id: String,
    /// Where it listens.
    pub(crate) port: u16,
}

impl Sentinel {
    /// Its status page and API.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Everything that the configurations name.
#[derive(Debug)]
pub(crate) struct Network {
    layout: Layout,
    /// The custodians' ids.
    pub(crate) custodians: Vec<String>,
    /// The nodes.
    pub(crate) nodes: Vec<Node>,
    /// The broker's URL, in a lab with one.
    pub(crate) broker_url: Option<String>,
    /// The sentinels; the first one's page is what operators ask.
    pub(crate) sentinels: Vec<Sentinel>,
    drills: Drills,
}

/// Who conducts drills, and when.
#[derive(Debug)]
pub(crate) struct Drills {
    /// How many custodians conduct them.
    pub(crate) conductors: u8,
    /// When they hold them by themselves, if they do.
    pub(crate) schedule: Option<String>,
}

impl Network {
    /// A network of this many custodians, with a sentinel for each of these ports.
    pub(crate) fn new(
        layout: Layout,
        custodians: u8,
        nodes: Vec<Node>,
        broker_url: Option<String>,
        sentinel_ports: Vec<u16>,
        drills: Drills,
    ) -> Self {
        let custodians = (1..=custodians).map(|number| format!("custodian-{number}")).collect();
        let sentinel = |(number, port)| Sentinel { id: format!("sentinel-{number}"), port };
        let sentinels = (1..).zip(sentinel_ports).map(sentinel).collect();
        Self { layout, custodians, nodes, broker_url, sentinels, drills }
    }

    /// The custodians that conduct drills. They need a broker: who shall hear them otherwise?
    pub(crate) fn conductors(&self) -> &[String] {
        let wanted = if self.broker_url.is_some() { usize::from(self.drills.conductors) } else { 0 };
        self.custodians.get(..wanted).unwrap_or(&self.custodians)
    }

    /// Where a custodian is said to stand.
    pub(crate) fn site(number: usize) -> &'static str {
        SITES[number % SITES.len()]
    }

    /// A custodian's custodian.toml.
    pub(crate) fn custodian_config(&self, id: &str) -> PathBuf {
        self.layout.home(id).join("custodian.toml")
    }

    /// A sentinel's sentinel.toml.
    pub(crate) fn sentinel_config(&self, id: &str) -> PathBuf {
        self.layout.home(id).join("sentinel.toml")
    }

    fn sentinel_ids(&self) -> Vec<&str> {
        self.sentinels.iter().map(|sentinel| sentinel.id.as_str()).collect()
    }

    /// An operator's private key.
    pub(crate) fn operator_key(&self, operator: &str) -> PathBuf {
        self.layout.operators().join(format!("{operator}.key"))
    }

    /// An operator's operator.toml.
    pub(crate) fn operator_config(&self, operator: &str) -> PathBuf {
        if operator == OPERATORS[0] {
            self.layout.operator_config()
        } else {
            self.layout.operators().join(format!("{operator}.toml"))
        }
    }

    /// Makes the keys that no ceremony makes: the sentinels' and the operators', who in life bring theirs.
    pub(crate) fn make_keys(&self) -> Result<(), NetworkError> {
        let sentinels = self.sentinel_ids().into_iter().map(|id| (id, self.layout.home(id).join("signing.key")));
        let operators = OPERATORS.map(|operator| (operator, self.operator_key(operator)));
        for (name, path) in sentinels.chain(operators) {
            file::make_folder(path.parent().unwrap_or(self.layout.dir()))?;
            let key = SigningKey::generate()?;
            key.save(&path)?;
            file::write(&public_half(path), format!("{}\n", key.public_openssh(name)).as_bytes(), file::PUBLIC)?;
        }
        Ok(())
    }

    /// Writes the trust root, from the public keys that lie in everybody's folder, to every party's own copy.
    pub(crate) fn write_trust(&self) -> Result<(), NetworkError> {
        let mut text = String::from("# Who may say what in this lab. Every party has a copy of its own.\n");
        let mut list = |name: &str, namespaces: &str, key: PathBuf| {
            let line = std::fs::read_to_string(&key).map_err(|e| NetworkError::Read(key, e))?;
            let mut words = line.split_whitespace();
            let (kind, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name} namespaces=\"{namespaces}\" {kind} {key}");
            Ok::<(), NetworkError>(())
        };
        for operator in OPERATORS {
            list(operator, "holdfast.order,holdfast.approval", public_half(self.operator_key(operator)))?;
        }
        for sentinel in self.sentinel_ids() {
            list(sentinel, "holdfast.event", self.layout.home(sentinel).join("signing.key.pub"))?;
        }
        for custodian in &self.custodians {
            let conducts = self.conductors().contains(custodian);
            let namespaces = if conducts { "holdfast.report,holdfast.intent" } else { "holdfast.report" };
            list(custodian, namespaces, self.layout.home(custodian).join("signing.key.pub"))?;
        }
        file::write(&self.layout.allowed_signers(), text.as_bytes(), file::PUBLIC)?;
        Ok(())
    }

    /// Writes every party's configuration, and beside it the files that a host of its own would have to have.
    pub(crate) fn write_configurations(&self) -> Result<(), NetworkError> {
        for custodian in &self.custodians {
            self.equip(custodian)?;
            let config = self.custodian_toml(custodian);
            file::write(&self.custodian_config(custodian), config.as_bytes(), file::PUBLIC)?;
        }
        for sentinel in &self.sentinels {
            self.equip(&sentinel.id)?;
            let config = self.sentinel_toml(sentinel);
            file::write(&self.sentinel_config(&sentinel.id), config.as_bytes(), file::PUBLIC)?;
        }
        for operator in OPERATORS {
            let config = self.operator_config(operator);
            // Alice's stands a folder above the others'.
            let up = if operator == OPERATORS[0] { "" } else { "../" };
            file::write(&config, self.operator_toml(operator, up).as_bytes(), file::PUBLIC)?;
        }
        Ok(())
    }

    /// Copies what is public to a party's folder, and moves its password there.
    fn equip(&self, party: &str) -> Result<(), NetworkError> {
        let home = self.layout.home(party);
        let mut public = vec![self.layout.allowed_signers(), self.layout.manifest(), self.layout.vault_ca()];
        if self.broker_url.is_some() {
            public.push(self.layout.broker_ca());
            let password = self.layout.password(party);
            let secret = read(&password)?;
            file::write(&home.join("broker.password"), &secret, file::PRIVATE)?;
        }
        for source in public {
            let name = source.file_name().unwrap_or_default();
            file::write(&home.join(name), &read(&source)?, file::PUBLIC)?;
        }
        Ok(())
    }

    fn custodian_toml(&self, id: &str) -> String {
        let operators = quoted_list(&OPERATORS);
        let sentinels = quoted_list(&self.sentinel_ids());
        let conductors = quoted_list(self.conductors());
        let number = self.custodians.iter().position(|custodian| custodian == id).unwrap_or_default();
        let site = Self::site(number);
        let broker = self.broker_toml(id, "broker.password", "", "grace = \"2m\"\n");
        let nodes = self.nodes_toml();
        let conducts = if self.conductors().iter().any(|conductor| conductor == id) {
            self.conductor_toml()
        } else {
            String::new()
        };
        format!(
            r#"# Written by `holdfast lab up`.
id = "{id}"
site = "{site}"
state_dir = "state"
signing_key = "signing.key"
allowed_signers = "allowed_signers"
sandbox = "enforce"
{broker}
[clusters.{CLUSTER}]
manifest = "lab.manifest.json"
share = "lab.share.age"
identity = "identity.txt"
ca_cert = "vault-ca.pem"
operators = {operators}
sentinels = {sentinels}
conductors = {conductors}

[clusters.{CLUSTER}.nodes]
{nodes}
[clusters.{CLUSTER}.policy]
# A lab differs from the defaults in these three alone.
unseals_per_hour = 100000
in_place_approvals = 1
drill_windows = ["daily 00:00-24:00 UTC"]
{conducts}"#
        )
    }

    fn conductor_toml(&self) -> String {
        let min_unsealed = self.nodes.len().saturating_sub(1);
        // As a JSON string, which a TOML one is too.
        let schedule =
            self.drills.schedule.as_ref().map(|cron| format!("schedule = {}\n", serde_json::Value::from(&**cron)));
        let schedule = schedule.unwrap_or_default();
        format!(
            r#"
[conductor.{CLUSTER}]
token_file = "{SEAL_TOKEN_FILE}"
{schedule}min_unsealed = {min_unsealed}
objective = "30s"
"#
        )
    }

    fn sentinel_toml(&self, Sentinel { id, port }: &Sentinel) -> String {
        let broker = self.broker_toml(id, "broker.password", "", "");
        let nodes = self.nodes_toml();
        format!(
            r#"# Written by `holdfast lab up`.
id = "{id}"
signing_key = "signing.key"
allowed_signers = "allowed_signers"
listen = "127.0.0.1:{port}"
database = "sentinel.db"
{broker}
[clusters.{CLUSTER}]
manifest = "lab.manifest.json"
ca_cert = "vault-ca.pem"

[clusters.{CLUSTER}.nodes]
{nodes}"#
        )
    }

    fn operator_toml(&self, operator: &str, up: &str) -> String {
        let key_folder = if up.is_empty() { "operators/" } else { "" };
        let password = format!("{up}broker/passwords/{operator}.password");
        let broker = self.broker_toml(operator, &password, up, "");
        let nodes = self.nodes_toml();
        let sentinel = self.sentinels.first().map(Sentinel::url).unwrap_or_default();
        format!(
            r#"# Written by `holdfast lab up`.
principal = "{operator}"
key = "{key_folder}{operator}.key"
allowed_signers = "{up}allowed_signers"
{broker}
[clusters.{CLUSTER}]
manifest = "{up}lab.manifest.json"
ca_cert = "{up}vault-ca.pem"
sentinel = "{sentinel}"

[clusters.{CLUSTER}.nodes]
{nodes}"#
        )
    }

    fn broker_toml(&self, user: &str, password: &str, up: &str, more: &str) -> String {
        let Some(url) = &self.broker_url else { return String::new() };
        format!(
            r#"
[broker]
url = "{url}"
username = "{user}"
password_file = "{password}"
ca_cert = "{up}broker-ca.pem"
{more}"#
        )
    }

    fn nodes_toml(&self) -> String {
        let line = |node: &Node| {
            let (name, url, pin) = (&node.name, node.url(), BASE64_STANDARD.encode(node.pin));
            format!("{name} = {{ url = \"{url}\", tls = \"direct\", spki_sha256 = [\"{pin}\"] }}\n")
        };
        self.nodes.iter().map(line).collect()
    }
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, NetworkError> {
    std::fs::read(path).map_err(|e| NetworkError::Read(path.to_owned(), e))
}

/// `alice.key` → `alice.key.pub`.
fn public_half(mut key: PathBuf) -> PathBuf {
    key.as_mut_os_string().push(".pub");
    key
}

/// Names as a TOML array: names have nothing in them that needs escaping.
fn quoted_list(names: &[impl AsRef<str>]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{}\"", name.as_ref())).collect();
    format!("[{}]", quoted.join(", "))
}
