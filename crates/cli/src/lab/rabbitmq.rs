//! RabbitMQ as the lab runs it: TLS only, on loopback only, all of its files in the lab's folder, with an `epmd` of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::certificates::{Authority, CertificateError};
use super::file::{self, WriteError};
use super::layout::Layout;
use super::ports::{PortError, Reservation};
use super::process::Recipe;

/// The server's own start script: the one that Debian has in PATH changes the user first.
const SERVERS: [&str; 3] = [
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "/opt/rabbitmq/sbin/rabbitmq-server",
    "/usr/local/lib/rabbitmq/sbin/rabbitmq-server",
];
/// The user that may do everything, for tests.
pub(crate) const ADMIN: &str = "lab-admin";
/// The virtual host of every Holdfast network.
const VHOST: &str = "holdfast";
/// The folder and process name.
pub(crate) const NAME: &str = "broker";
/// The name server's process name.
pub(crate) const EPMD: &str = "epmd";

/// Why no broker can be prepared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RabbitMqError {
    /// Not installed.
    #[error("RabbitMQ was not found at {}: install rabbitmq-server, or leave the broker out with --no-broker", SERVERS.join(", "))]
    Missing,
    /// Erlang's name server is not installed.
    #[error("Erlang's epmd was not found in PATH: install erlang-base, or leave the broker out with --no-broker")]
    EpmdMissing,
    /// The kernel has no random bytes to give.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
    /// No port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// No certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A file could not be written.
    #[error(transparent)]
    Written(#[from] WriteError),
}

/// A broker that is ready to be started.
#[derive(Debug, Clone)]
pub(crate) struct Broker {
    /// Where it listens for AMQP over TLS.
    pub(crate) port: u16,
    /// Where its name server listens.
    pub(crate) epmd_port: u16,
    distribution_port: u16,
    server: PathBuf,
    epmd: PathBuf,
}

impl Broker {
    /// Its URL, without a user.
    pub(crate) fn url(&self) -> String {
        format!("amqps://127.0.0.1:{}/{VHOST}", self.port)
    }
}

/// Where the definitions lie that the broker imports each time it starts.
pub(crate) fn definitions_file(layout: &Layout) -> PathBuf {
    layout.home(NAME).join("definitions.json")
}

/// Makes ports, certificate and configuration. The definitions are not there yet: they need the cluster's id.
pub(crate) fn prepare(layout: &Layout, ca: &Authority, ports: &mut Reservation) -> Result<Broker, RabbitMqError> {
    let server = SERVERS.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or(RabbitMqError::Missing)?;
    let epmd = find_epmd().ok_or(RabbitMqError::EpmdMissing)?;
    let home = layout.home(NAME);
    for folder in ["home", "data", "log"] {
        file::make_folder(&home.join(folder))?;
    }
    ca.issue(NAME, &home.join("tls.pem"), &home.join("tls.key"))?;
    let broker =
        Broker { port: ports.take()?, epmd_port: ports.take()?, distribution_port: ports.take()?, server, epmd };

    file::write(&home.join("rabbitmq.conf"), configuration(layout, &broker).as_bytes(), file::PUBLIC)?;
    file::write(&home.join("enabled_plugins"), b"[].\n", file::PUBLIC)?;
    // Empty, so that the machine's own settings in /etc are not read.
    file::write(&home.join("env.conf"), b"", file::PUBLIC)?;
    // Made here from real randomness: Erlang's own is a weak one from the clock.
    file::write(&home.join("home/.erlang.cookie"), random_hex()?.as_bytes(), file::PRIVATE)?;
    Ok(broker)
}

/// How Erlang's name server is started: in the foreground and on loopback, where otherwise Erlang would leave one behind.
pub(crate) fn epmd_recipe(layout: &Layout, broker: &Broker) -> Recipe {
    let port = broker.epmd_port.to_string();
    let start = [&broker.epmd.to_string_lossy(), "-address", "127.0.0.1", "-port", &port];
    Recipe {
        name: EPMD.to_owned(),
        start: start.map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
        log: layout.log(EPMD),
    }
}

/// How the broker is started.
pub(crate) fn recipe(layout: &Layout, broker: &Broker) -> Recipe {
    let home = layout.home(NAME);
    let in_home = |name: &str| home.join(name).to_string_lossy().into_owned();
    let env = [
        ("HOME", in_home("home")),
        // What makes the script replace itself by Erlang, so that its pid is the broker's and signals reach it.
        ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
        ("RABBITMQ_NODENAME", "holdfast-lab@localhost".to_owned()),
        ("RABBITMQ_MNESIA_BASE", in_home("data")),
        ("RABBITMQ_LOG_BASE", in_home("log")),
        ("RABBITMQ_CONF_ENV_FILE", in_home("env.conf")),
        ("RABBITMQ_CONFIG_FILE", in_home("rabbitmq.conf")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", in_home("advanced.config")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", in_home("enabled_plugins")),
        ("RABBITMQ_DIST_PORT", broker.distribution_port.to_string()),
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false".to_owned(),
        ),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("ERL_EPMD_PORT", broker.epmd_port.to_string()),
        // A dump of the broker's memory would hold passwords.
        ("ERL_CRASH_DUMP_BYTES", "0".to_owned()),
    ];
    Recipe {
        name: NAME.to_owned(),
        start: vec![broker.server.to_string_lossy().into_owned()],
        env: env.map(|(key, value)| (key.to_owned(), value)).into(),
        log: layout.log(NAME),
    }
}

fn configuration(layout: &Layout, broker: &Broker) -> String {
    let home = layout.home(NAME);
    let (ca, home, port) = (layout.broker_ca(), home.display().to_string(), broker.port);
    format!(
        "# Written by `holdfast lab up`.
listeners.tcp = none
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.cacertfile = {ca}
ssl_options.certfile = {home}/tls.pem
ssl_options.keyfile = {home}/tls.key
ssl_options.verify = verify_none
ssl_options.fail_if_no_peer_cert = false
ssl_options.versions.1 = tlsv1.3
auth_mechanisms.1 = PLAIN
load_definitions = {home}/definitions.json
log.console = true
log.console.level = info
log.file = false
# A lab's queues are small; the default sets 512 MB aside.
raft.wal_max_size_bytes = 33554432
",
        ca = ca.display(),
    )
}

fn random_hex() -> Result<String, RabbitMqError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(RabbitMqError::Random)?;
    Ok(hex::encode(bytes))
}

fn find_epmd() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|dir| dir.join("epmd")).find(|epmd| epmd.is_file());
    in_path.or_else(|| Some(Path::new("/usr/bin/epmd").to_owned()).filter(|epmd| epmd.is_file()))
}
