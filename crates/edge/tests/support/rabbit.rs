//! A real RabbitMQ over TLS, from Debian's package, with everything of its own: folder, ports, name server, cookie.
//!
//! It ends with the test's process, however that ends: `setpriv` asks the kernel for that, on behalf of a thread that lives
//! as long as the process.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};

use holdfast_core::topology::{ClusterParties, Parties, PasswordHash, definitions};
use holdfast_edge::broker::{Broker, BrokerEvent, BrokerHandle, BrokerSettings, Password};
use zeroize::Zeroizing;

use super::authority::Authority;
use super::{OTHER, PATIENCE, PROD, name};

const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

pub struct Rabbit {
    pub authority: Authority,
    pub port: u16,
    dir: PathBuf,
    env: Vec<(String, String)>,
    server: Mutex<Option<Child>>,
    epmd: Mutex<Child>,
}

/// Two clusters with everybody in them, and an administrator.
pub fn parties() -> Parties {
    let names = |list: &[&str]| list.iter().map(|text| name(text)).collect();
    let prod = ClusterParties {
        id: PROD,
        name: "prod".parse().expect("a name"),
        custodians: names(&["custodian-1", "custodian-2"]),
        sentinels: names(&["sentinel-1"]),
        conductors: names(&["custodian-2"]),
        operators: names(&["alice"]),
        restrictors: names(&["ids-1"]),
    };
    let other = ClusterParties {
        id: OTHER,
        name: "other".parse().expect("a name"),
        custodians: names(&["custodian-3"]),
        sentinels: names(&["sentinel-2"]),
        conductors: names(&[]),
        operators: names(&["carol"]),
        restrictors: names(&[]),
    };
    let everybody =
        ["custodian-1", "custodian-2", "custodian-3", "sentinel-1", "sentinel-2", "alice", "carol", "ids-1"];
    let hash = |user: &str| PasswordHash::new(password(user).as_bytes(), [7; 4]);
    let passwords: BTreeMap<_, _> = everybody.iter().map(|user| (name(user), hash(user))).collect();
    Parties { clusters: vec![prod, other], passwords, administrator: Some((name("admin"), hash("admin"))) }
}

/// The password of a user of [`parties`].
pub fn password(user: &str) -> String {
    format!("the-password-of-{user}")
}

impl Rabbit {
    /// Starts one with the definitions of these parties, and waits until it takes connections.
    pub fn start(label: &str, parties: &Parties) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("rabbit-{label}"));
        // Of the last run.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a folder");
        let authority = Authority::new("broker CA");
        let identity = authority.identity(&["localhost", "127.0.0.1"]);
        let write = |file: &str, content: &str| fs::write(dir.join(file), content).expect("written");
        write("ca.pem", &authority.certificate.pem());
        write("server.pem", &identity.certificate.pem());
        write("server.key", &identity.key.serialize_pem());
        write("definitions.json", &definitions(parties).expect("good parties").to_string());
        write("enabled_plugins", "[].");
        fs::set_permissions(dir.join("server.key"), fs::Permissions::from_mode(0o600)).expect("mode");
        let (port, dist_port, epmd_port) = (free_port(), free_port(), free_port());
        write("rabbitmq.conf", &configuration(&dir, port));
        let env = environment(&dir, label, dist_port, epmd_port);
        let epmd = keep(
            Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "epmd", "-address", "127.0.0.1", "-port"])
                .arg(epmd_port.to_string())
                .stdin(Stdio::null()),
        );
        let rabbit = Self { authority, port, dir, env, server: Mutex::default(), epmd: Mutex::new(epmd) };
        wait_for_port(epmd_port);
        rabbit.up();
        rabbit
    }

    /// Starts the server again.
    pub fn up(&self) {
        let log = fs::File::options().create(true).append(true).open(self.dir.join("console.log")).expect("a log");
        let server = keep(
            Command::new("setpriv")
                .args(["--pdeathsig", "KILL", SERVER])
                .env_clear()
                .envs(self.env.iter().map(|(key, value)| (key.as_str(), value.as_str())))
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a log"))
                .stderr(log),
        );
        *self.server.lock().expect("not poisoned") = Some(server);
        wait_for_port(self.port);
    }

    /// The server's own process.
    pub fn pid(&self) -> u32 {
        self.server.lock().expect("not poisoned").as_ref().expect("it runs").id()
    }

    /// `kill -9`.
    pub fn kill(&self) {
        if let Some(mut server) = self.server.lock().expect("not poisoned").take() {
            server.kill().expect("killed");
            server.wait().expect("gone");
        }
    }

    pub fn url(&self) -> String {
        format!("amqps://127.0.0.1:{}/holdfast", self.port)
    }

    /// The settings with which this user logs in and reads these queues.
    pub fn settings(&self, user: &str, queues: &[String]) -> BrokerSettings {
        settings(&self.url(), self.authority.client(), user, queues)
    }

    /// A client of ours.
    pub fn client(&self, user: &str, queues: &[String]) -> (BrokerHandle, tokio::sync::mpsc::Receiver<BrokerEvent>) {
        Broker::spawn(self.settings(user, queues))
    }

    /// What the server has written to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("console.log")).unwrap_or_default()
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        self.kill();
        let mut epmd = self.epmd.lock().expect("not poisoned");
        // Ended already, or ended now.
        let _ = epmd.kill();
        let _ = epmd.wait();
    }
}

pub fn settings(url: &str, tls: Arc<rustls::ClientConfig>, user: &str, queues: &[String]) -> BrokerSettings {
    let password = Zeroizing::new(password(user).into_bytes());
    BrokerSettings {
        url: url.parse().expect("a url"),
        username: user.to_owned(),
        password: Arc::new(Password::from_file_content(password).expect("a password")),
        tls,
        queues: queues.to_vec(),
        connection_name: format!("test of {user}"),
    }
}

fn configuration(dir: &Path, port: u16) -> String {
    let file = |file: &str| dir.join(file).display().to_string();
    let (ca, certificate, key) = (file("ca.pem"), file("server.pem"), file("server.key"));
    format!(
        "listeners.tcp = none\n\
         listeners.ssl.1 = 127.0.0.1:{port}\n\
         ssl_options.cacertfile = {ca}\n\
         ssl_options.certfile = {certificate}\n\
         ssl_options.keyfile = {key}\n\
         ssl_options.verify = verify_none\n\
         ssl_options.fail_if_no_peer_cert = false\n\
         ssl_options.versions.1 = tlsv1.3\n\
         load_definitions = {definitions}\n\
         max_message_size = 131072\n\
         heartbeat = 10\n\
         disk_free_limit.absolute = 1MB\n\
         vm_memory_high_watermark.absolute = 1GB\n\
         num_acceptors.ssl = 2\n\
         log.file = false\n\
         log.console = true\n\
         log.console.level = info\n",
        definitions = file("definitions.json"),
    )
}

fn environment(dir: &Path, label: &str, dist_port: u16, epmd_port: u16) -> Vec<(String, String)> {
    let file = |file: &str| dir.join(file).display().to_string();
    [
        ("PATH", std::env::var("PATH").unwrap_or_default()),
        ("HOME", file("")),
        ("LANG", "C.UTF-8".to_owned()),
        // Runs the Erlang machine in place of the script, so that the process that was started is the server.
        ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
        ("RABBITMQ_NODENAME", format!("{label}@localhost")),
        ("RABBITMQ_DIST_PORT", dist_port.to_string()),
        ("ERL_EPMD_PORT", epmd_port.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("RABBITMQ_CONF_ENV_FILE", file("none.conf")),
        ("RABBITMQ_CONFIG_FILE", file("rabbitmq.conf")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", file("none.config")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", file("enabled_plugins")),
        ("RABBITMQ_MNESIA_BASE", file("data")),
        ("RABBITMQ_LOG_BASE", file("log")),
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "+S 2:2 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}".to_owned(),
        ),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

fn wait_for_port(port: u16) {
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(Instant::now() < until, "nobody listens on {port}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Starts a process from a thread that never ends: the kernel's "when the parent dies" means the thread.
fn keep(command: &mut Command) -> Child {
    type Start = Box<dyn FnOnce() + Send>;
    static KEEPER: LazyLock<Mutex<mpsc::SyncSender<Start>>> = LazyLock::new(|| {
        let (sender, receiver) = mpsc::sync_channel::<Start>(1);
        std::thread::spawn(move || receiver.into_iter().for_each(|start| start()));
        Mutex::new(sender)
    });
    let (done, child) = mpsc::sync_channel(1);
    let mut command = std::mem::replace(command, Command::new("false"));
    let start = Box::new(move || done.send(command.spawn().expect("started")).expect("awaited"));
    KEEPER.lock().expect("not poisoned").send(start).expect("the keeper lives");
    child.recv().expect("started")
}
