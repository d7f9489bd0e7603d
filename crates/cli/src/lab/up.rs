//! `holdfast lab up`: puts the network together, one step after the other, and takes it apart again when a step fails.
//!
//! The ceremony is walked with the programs that people use, so that the lab tries them too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use holdfast_core::ceremony::Fingerprint;
use holdfast_core::custodian::RESTART_PROVABLE;
use holdfast_core::seal_status::SealStatus;
use holdfast_core::status::{CustodianStatus, Status};
use holdfast_edge::admin::{Admin, AdminError};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use super::UpArgs;
use super::assembly::{Assembly, LOOK_PATIENCE, StepError};
use super::certificates::{Authority, CertificateError};
use super::file::{self, LabFile, Operator, Vault, WriteError};
use super::journal::{FolderError, Journal};
use super::layout::Layout;
use super::network::{CLUSTER, Drills, Network, NetworkError, OPERATORS, Sentinel};
use super::openbao::{self, Node, OpenBaoError};
use super::ports::{PortError, Reservation};
use super::process::Recipe;
use super::rabbitmq::{self, Broker, RabbitMqError};
use super::root_token::{Receiver, RootTokenError};
use super::seal_token;
use super::tools::{CommandError, Line, Tools, reported};

/// Why there is no lab.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    /// More shares are needed than there are.
    #[error("--threshold {threshold} cannot be met by --custodians {custodians}: each has one share")]
    Threshold {
        /// Shares needed.
        threshold: u8,
        /// Shares there would be.
        custodians: u8,
    },
    /// More conductors are wanted than there are custodians.
    #[error("--conductors {conductors} cannot be met by --custodians {custodians}: each conductor is one of them")]
    Conductors {
        /// Conductors wanted.
        conductors: u8,
        /// Custodians there would be.
        custodians: u8,
    },
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// No runtime, no signal handler, no standard output.
    #[error("cannot go on: {0}")]
    System(#[from] io::Error),
    /// No port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// No certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A node could not be prepared.
    #[error(transparent)]
    OpenBao(#[from] OpenBaoError),
    /// The broker could not be prepared.
    #[error(transparent)]
    RabbitMq(#[from] RabbitMqError),
    /// A party could not be prepared.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A program of the project is not there.
    #[error(transparent)]
    Tools(#[from] CommandError),
    /// A file could not be written.
    #[error(transparent)]
    Written(#[from] WriteError),
    /// A node's address or CA was refused: the lab's own mistake.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The lab has no root token.
    #[error(transparent)]
    RootToken(#[from] RootTokenError),
    /// A step came to nothing.
    #[error(transparent)]
    Step(#[from] StepError),
    /// Ctrl-C, or a request to end.
    #[error("interrupted")]
    Interrupted,
    /// A step failed, and so did taking the lab apart.
    #[error("{0}; {1}")]
    Twice(Box<UpError>, StepError),
}

impl UpError {
    /// Whether the command itself was wrong, whatever the machine.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Self::Threshold { .. } | Self::Conductors { .. })
    }
}

/// Carries `lab up` out.
pub(crate) fn run(args: &UpArgs) -> Result<(), UpError> {
    let UpArgs { custodians, threshold, conductors, .. } = *args;
    if threshold > custodians {
        return Err(UpError::Threshold { threshold, custodians });
    }
    if conductors > custodians {
        return Err(UpError::Conductors { conductors, custodians });
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut lab = Assembly::new(Journal::create(&args.dir)?);
        match until_interrupted(put_together(&mut lab, args)).await {
            Ok(file) => tell(&lab, &file, args.json),
            Err(failed) => Err(match lab.take_apart() {
                Ok(()) => failed,
                Err(second) => UpError::Twice(Box::new(failed), second),
            }),
        }
    })
}

/// Runs the work until it is done, or somebody asks to stop.
async fn until_interrupted<T>(work: impl Future<Output = Result<T, UpError>>) -> Result<T, UpError> {
    tokio::select! {
        // In this order, so that the signals are caught before anything is started.
        biased;
        asked = interruption() => Err(asked.map_or_else(UpError::System, |()| UpError::Interrupted)),
        done = work => done,
    }
}

/// Waits until somebody asks to stop.
pub(crate) async fn interruption() -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

/// Starts everything, one step after the other, until every node is open and every custodian ready.
pub(crate) async fn put_together(lab: &mut Assembly, args: &UpArgs) -> Result<LabFile, UpError> {
    let layout = lab.journal.layout.clone();
    let (tools, bao) = (Tools::find()?, openbao::find()?);
    // Held until the end: by then every port has its listener.
    let mut ports = Reservation::new()?;
    let vault_ca = Authority::create("Holdfast lab Vault CA", &layout.vault_ca(), &layout.vault_ca_key())?;
    let nodes = openbao::prepare(&layout, &vault_ca, &mut ports, args.nodes)?;
    let broker = if args.no_broker {
        None
    } else {
        let ca = Authority::create("Holdfast lab broker CA", &layout.broker_ca(), &layout.broker_ca_key())?;
        Some(rabbitmq::prepare(&layout, &ca, &mut ports)?)
    };
    let url = broker.as_ref().map(Broker::url);
    let sentinel_ports = (0..args.sentinels).map(|_| ports.take()).collect::<Result<_, _>>()?;
    let drills = Drills { conductors: args.conductors, schedule: args.schedule.clone() };
    let network = Network::new(layout.clone(), args.custodians, nodes.clone(), url, sentinel_ports, drills);

    lab.progress.say(format_args!("starting {} OpenBao nodes, and making everybody's keys", nodes.len()));
    for node in &nodes {
        lab.start(openbao::recipe(&layout, &bao, node))?;
    }
    network.make_keys()?;
    let enrolled = enroll(lab, &tools, &network).await?;
    network.write_trust()?;
    for node in &nodes {
        lab.listening(&node.name, node.port).await?;
    }
    initialise(lab, &tools, &enrolled, &nodes[0], args.threshold).await?;

    if let Some(broker) = &broker {
        define(lab, &tools, &network).await?;
        lab.progress.say("starting RabbitMQ");
        lab.start(rabbitmq::epmd_recipe(&layout, broker))?;
        lab.listening(rabbitmq::EPMD, broker.epmd_port).await?;
        lab.start(rabbitmq::recipe(&layout, broker))?;
    }
    install(lab, &tools, &network).await?;
    network.write_configurations()?;
    if let Some(broker) = &broker {
        lab.listening(rabbitmq::NAME, broker.port).await?;
    }
    for daemon in daemons(&layout, &tools, &network) {
        lab.start(daemon)?;
    }
    for Sentinel { id, port } in &network.sentinels {
        lab.listening(id, *port).await?;
    }
    running(lab, &network).await?;
    open_nodes(lab, &tools, &network, &nodes).await?;
    equip_conductors(lab, &tools, &network, &nodes[0]).await?;
    ready(lab, &network).await?;

    let file = describe(lab, &layout, &network, broker.as_ref());
    file::write_json(&layout.lab_json(), &file, file::PUBLIC)?;
    Ok(file)
}

/// Each custodian makes its keys on its own host, and its person reads out the fingerprint.
async fn enroll(lab: &Assembly, tools: &Tools, network: &Network) -> Result<Vec<Enrolled>, UpError> {
    let layout = &lab.journal.layout;
    let lines = network.custodians.iter().enumerate().map(|(number, id)| {
        let site = Network::site(number);
        Line::new(&tools.setup, &["enroll", "--json", "--id", id, "--site", site]).with("--dir", layout.home(id))
    });
    let reports = lab.run("custodians enrolled", lines).await?;
    Ok(reports.iter().map(|report| reported("holdfast-setup enroll", report)).collect::<Result<_, _>>()?)
}

/// What `enroll` reports, as far as the ceremony needs it.
#[derive(Deserialize)]
struct Enrolled {
    custodian: String,
    fingerprint: String,
    enrollment: PathBuf,
}

/// The ceremony on an operator's machine: every share encrypted to its custodian, the root token to the lab. Nothing in a lab is
/// worth a holder.
async fn initialise(
    lab: &Assembly,
    tools: &Tools,
    enrolled: &[Enrolled],
    node: &Node,
    threshold: u8,
) -> Result<(), UpError> {
    let layout = &lab.journal.layout;
    let receiver = Receiver::generate()?;
    let root_key = layout.ceremony().join("root-token-key.asc");
    file::write(&root_key, &receiver.public()?, file::PUBLIC)?;
    let mut line = Line::new(&tools.holdfast, &["init", "--cluster", CLUSTER, "--accept-no-recovery"])
        .with("--vault", node.url())
        .with("--ca-cert", layout.vault_ca())
        .with("--threshold", threshold.to_string())
        .with("--root-token-key", &root_key)
        .with("--output", layout.ceremony_output());
    for Enrolled { custodian, fingerprint, enrollment } in enrolled {
        line = line.with("--enrollment", enrollment).with("--fingerprint", format!("{custodian}={fingerprint}"));
    }
    lab.run("the cluster is initialised", [line]).await?;

    let read = |name: &str| {
        let path = layout.ceremony_output().join(name);
        fs::read(&path).map_err(|e| NetworkError::Read(path, e))
    };
    file::write(&layout.manifest(), &read("lab.manifest.json")?, file::PUBLIC)?;
    file::write(&layout.root_token(), &receiver.open(&read("root-token.pgp")?)?, file::PRIVATE)?;
    Ok(())
}

/// Everybody's user, password, queues and rights at the broker.
async fn define(lab: &Assembly, tools: &Tools, network: &Network) -> Result<(), UpError> {
    let layout = &lab.journal.layout;
    file::make_folder(&layout.passwords())?;
    let mut line = Line::new(&tools.holdfast, &["broker", "definitions"])
        .with("--manifest", layout.manifest())
        .with("--administrator", rabbitmq::ADMIN)
        .with("--passwords", layout.passwords())
        .with("--output", rabbitmq::definitions_file(layout));
    for sentinel in &network.sentinels {
        line = line.with("--sentinel", &sentinel.id);
    }
    for operator in OPERATORS {
        line = line.with("--operator", operator);
    }
    for conductor in network.conductors() {
        line = line.with("--conductor", conductor);
    }
    lab.run("the broker's users and queues are defined", [line]).await?;
    Ok(())
}

/// Each custodian puts its share to rest on its own host, from a packet that was sent to it. The lab keeps the transport keys,
/// which no real ceremony does: with them a test recovers the shares, and looks for them everywhere else.
async fn install(lab: &Assembly, tools: &Tools, network: &Network) -> Result<(), UpError> {
    let layout = &lab.journal.layout;
    let manifest = layout.manifest();
    let fingerprint = Fingerprint::of(&fs::read(&manifest).map_err(|e| NetworkError::Read(manifest.clone(), e))?);
    let mut lines = Vec::new();
    for id in &network.custodians {
        let name = format!("{id}.packet.json");
        let (made, sent) = (layout.ceremony_output().join("packets").join(&name), layout.home(id).join(&name));
        let packet = fs::read(&made).map_err(|e| NetworkError::Read(made.clone(), e))?;
        file::write(&sent, &packet, file::PRIVATE)?;
        let line = Line::new(&tools.setup, &["install", "--keep-transport-key"]).with("--manifest", &manifest);
        let line = line.with("--manifest-fingerprint", fingerprint.to_string());
        lines.push(line.with("--dir", layout.home(id)).with("--packet", sent));
    }
    lab.run("shares installed", lines).await?;
    Ok(())
}

/// The sentinels, then the custodians.
fn daemons(layout: &Layout, tools: &Tools, network: &Network) -> Vec<Recipe> {
    let daemon = |name: &str, program: &Path, config: PathBuf| Recipe {
        name: name.to_owned(),
        start: [program.as_os_str(), "run".as_ref(), "--config".as_ref(), config.as_os_str()]
            .map(|word| word.to_string_lossy().into_owned())
            .to_vec(),
        env: BTreeMap::new(),
        log: layout.log(name),
    };
    let watch = |sentinel: &Sentinel| daemon(&sentinel.id, &tools.sentinel, network.sentinel_config(&sentinel.id));
    let custodians = network.custodians.iter().map(|id| daemon(id, &tools.custodian, network.custodian_config(id)));
    network.sentinels.iter().map(watch).chain(custodians).collect()
}

/// Waits until every custodian has read its configuration and made its inbox, where approvals may be carried.
async fn running(lab: &mut Assembly, network: &Network) -> Result<(), UpError> {
    let layout = lab.journal.layout.clone();
    let name = network.custodians.last().map(String::as_str).unwrap_or_default();
    lab.until("custodians running", name, async || {
        let missing = network.custodians.iter().find(|id| !layout.home(id).join("state/inbox").is_dir());
        missing.map_or(Ok(()), |id| Err(format!("{id} has no inbox yet")))
    })
    .await?;
    Ok(())
}

/// The first opening of each node, approved by an operator: the first node, and then those that can join it.
async fn open_nodes(lab: &mut Assembly, tools: &Tools, network: &Network, nodes: &[Node]) -> Result<(), UpError> {
    let ca = fs::read(lab.journal.layout.vault_ca())?;
    let (first, rest) = nodes.split_at(1);
    for (together, joins) in [(first, false), (rest, true)] {
        let vaults = together.iter().map(|node| Ok((node, Admin::new(&node.url(), &ca)?)));
        let vaults = vaults.collect::<Result<Vec<_>, AdminError>>()?;
        // A node that has not joined does not know yet how many shares open it.
        for (node, vault) in vaults.iter().filter(|_| joins) {
            let joined = format!("{} joining", node.name);
            lab.until(&joined, &node.name, async || expect(vault, |status| status.initialized).await).await?;
        }
        if !together.is_empty() {
            approve(lab, tools, network, together).await?;
        }
        for (node, vault) in &vaults {
            let open = format!("{} opening", node.name);
            let witness = network.custodians.first().map(String::as_str).unwrap_or_default();
            lab.until(&open, witness, async || expect(vault, |status| !status.sealed).await).await?;
        }
    }
    Ok(())
}

/// One look at a node.
async fn expect(vault: &Admin, wanted: impl Fn(&SealStatus) -> bool) -> Result<(), String> {
    match tokio::time::timeout(LOOK_PATIENCE, vault.seal_status()).await {
        Ok(Ok(status)) if wanted(&status) => Ok(()),
        Ok(Ok(status)) => Err(format!(
            "it says initialised: {}, sealed: {}, {} of {} shares there",
            status.initialized, status.sealed, status.progress, status.threshold
        )),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err("it does not answer".to_owned()),
    }
}

/// An operator approves; without a broker the approvals are carried to every custodian by hand.
async fn approve(lab: &Assembly, tools: &Tools, network: &Network, nodes: &[Node]) -> Result<(), UpError> {
    let layout = &lab.journal.layout;
    let words = ["approve", "--json", "--no-wait", "--cluster", CLUSTER];
    let line = Line::new(&tools.holdfast, &words).with("--config", layout.operator_config());
    let line = nodes.iter().fold(line, |line, node| line.with("--node", &node.name));
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    let approved = format!("{} approves the opening of {}", OPERATORS[0], names.join(", "));
    if network.broker_url.is_some() {
        lab.run(&approved, [line]).await?;
        return Ok(());
    }
    let reports = lab.run(&approved, [line.with("--output", layout.ceremony().join("approvals"))]).await?;
    let mut files = Vec::new();
    for report in &reports {
        let signed: Vec<Approved> = reported("holdfast approve", report)?;
        files.extend(signed.into_iter().map(|approved| approved.file));
    }
    let deliveries = network
        .custodians
        .iter()
        .map(|id| Line::new(&tools.setup, &["deliver"]).and(&files).with("--config", network.custodian_config(id)));
    lab.run("the approvals are delivered to every custodian", deliveries).await?;
    Ok(())
}

/// What `approve` reports of each approval that it wrote to a file.
#[derive(Deserialize)]
struct Approved {
    file: PathBuf,
}

/// The conductors' tokens, one for each, made by whoever may, and brought to their hosts.
async fn equip_conductors(lab: &mut Assembly, tools: &Tools, network: &Network, node: &Node) -> Result<(), UpError> {
    let vault = Admin::new(&node.url(), &fs::read(lab.journal.layout.vault_ca())?)?;
    let root_token = Zeroizing::new(fs::read(lab.journal.layout.root_token())?);
    for conductor in network.conductors() {
        let mut token = Zeroizing::new(Vec::new());
        // A node that has just opened needs a moment to lead.
        lab.until("the conductor's token", &node.name, async || {
            token = seal_token::make(&vault, &root_token).await.map_err(|e| e.to_string())?;
            Ok(())
        })
        .await?;
        let line = Line::new(&tools.setup, &["seal-token", "--json", "--cluster", CLUSTER]);
        let line = line.with("--config", network.custodian_config(conductor)).fed(token);
        lab.run(&format!("{conductor} conducts drills, with a token that can only seal"), [line]).await?;
    }
    Ok(())
}

/// Waits until each sentinel has heard from every custodian that it is ready for every node.
async fn ready(lab: &mut Assembly, network: &Network) -> Result<(), UpError> {
    if network.broker_url.is_none() {
        return quiet_ready(lab, network).await;
    }
    let client = reqwest::Client::builder().no_proxy().timeout(LOOK_PATIENCE).build().map_err(io::Error::other)?;
    let all = network.custodians.len();
    for sentinel in &network.sentinels {
        let url = format!("{}/api/v1/status", sentinel.url());
        let awaited = format!("every custodian ready, as {} hears", sentinel.id);
        lab.until(&awaited, &sentinel.id, async || {
            let answer = client.get(&url).send().await.map_err(|e| e.to_string())?;
            let status: Status = answer.json().await.map_err(|e| e.to_string())?;
            let custodians = status.clusters.values().flat_map(|cluster| cluster.custodians.values());
            // And could tell a crash that comes the very next moment from a seal.
            let prepared = |custodian: &CustodianStatus| {
                let heartbeat = custodian.heartbeat.as_ref().filter(|_| custodian.ready);
                heartbeat.is_some_and(|heartbeat| heartbeat.nodes.values().all(|node| node.restart_provable))
            };
            let ready = custodians.filter(|custodian| prepared(custodian)).count();
            if ready == all { Ok(()) } else { Err(format!("{ready} of {all} are ready")) }
        })
        .await?;
    }
    Ok(())
}

/// Without a broker nobody hears a custodian: its log tells of which nodes it could prove a restart that comes the very next
/// moment.
async fn quiet_ready(lab: &mut Assembly, network: &Network) -> Result<(), UpError> {
    #[derive(Deserialize)]
    struct Line {
        message: String,
        node: Option<String>,
    }
    let layout = lab.journal.layout.clone();
    for id in &network.custodians {
        let log = layout.log(id);
        lab.until(&format!("{id} ready"), id, async || {
            let text = fs::read_to_string(&log).map_err(|e| e.to_string())?;
            // The last line may be half written.
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
            let provable = lines.filter(|line| line.message == RESTART_PROVABLE).filter_map(|line| line.node);
            let provable: BTreeSet<String> = provable.collect();
            let names = network.nodes.iter().map(|node| node.name.as_str());
            let missing: Vec<&str> = names.filter(|node| !provable.contains(*node)).collect();
            if missing.is_empty() {
                Ok(())
            } else {
                Err(format!("it could not prove a restart of {}", missing.join(", ")))
            }
        })
        .await?;
    }
    Ok(())
}

fn describe(lab: &Assembly, layout: &Layout, network: &Network, broker: Option<&Broker>) -> LabFile {
    let process = |name: &str| lab.find(name).map(super::process::Started::process);
    let vault = network
        .nodes
        .iter()
        .filter_map(|node| Some(Vault { name: node.name.clone(), url: node.url(), process: process(&node.name)? }));
    let custodians = network.custodians.iter().filter_map(|id| {
        Some(file::Custodian {
            id: id.clone(),
            config: network.custodian_config(id),
            state_dir: layout.home(id).join("state"),
            process: process(id)?,
        })
    });
    let sentinels = network.sentinels.iter().filter_map(|sentinel| {
        Some(file::Sentinel {
            id: sentinel.id.clone(),
            config: network.sentinel_config(&sentinel.id),
            url: sentinel.url(),
            process: process(&sentinel.id)?,
        })
    });
    let sentinels: Vec<_> = sentinels.collect();
    let broker = broker.and_then(|broker| {
        Some(file::Broker {
            url: broker.url(),
            ca_cert: layout.broker_ca(),
            admin_user: rabbitmq::ADMIN.to_owned(),
            admin_password_file: layout.password(rabbitmq::ADMIN),
            process: process(rabbitmq::NAME)?,
            epmd: process(rabbitmq::EPMD)?,
        })
    });
    let operator =
        |id: &str| Operator { id: id.to_owned(), key: network.operator_key(id), config: network.operator_config(id) };
    LabFile {
        cluster: CLUSTER.to_owned(),
        ca_cert: layout.vault_ca(),
        ca_key: layout.vault_ca_key(),
        root_token_file: layout.root_token(),
        allowed_signers: layout.allowed_signers(),
        manifest: layout.manifest(),
        vault: vault.collect(),
        broker,
        custodians: custodians.collect(),
        sentinel: sentinels.first().cloned(),
        sentinels,
        operators: OPERATORS.map(operator).to_vec(),
        operator_config: layout.operator_config(),
    }
}

/// Tells what there is now, and what to try next.
fn tell(lab: &Assembly, file: &LabFile, json: bool) -> Result<(), UpError> {
    lab.progress.done("the lab is up", lab.progress.began());
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(file).map_err(io::Error::from)?)?;
    } else {
        write!(out, "{}", summary(lab.journal.layout.dir(), file))?;
    }
    Ok(())
}

fn summary(dir: &Path, file: &LabFile) -> String {
    let mut text = String::from("\n");
    for node in &file.vault {
        text += &format!("{:<12} {}  pid {}\n", node.name, node.url, node.process.pid);
    }
    if let Some(broker) = &file.broker {
        text += &format!("{:<12} {}  pid {}\n", "broker", broker.url, broker.process.pid);
    }
    for sentinel in &file.sentinels {
        text += &format!("{:<12} {}  pid {}\n", sentinel.id, sentinel.url, sentinel.process.pid);
    }
    text += &format!("{:<12} {} of them, and nothing listens there\n", "custodians", file.custodians.len());
    let dir = dir.display();
    text += &format!("\nEverything else is in {dir}/lab.json. Try:\n");
    text += &format!("  holdfast status --config '{dir}/operator.toml'\n");
    if let Some(node) = file.vault.first() {
        let words: Vec<String> = node.process.start.iter().map(|word| format!("'{word}'")).collect();
        let start = words.join(" ");
        text += &format!("  kill -9 {}; {start} >/dev/null 2>&1 &\n", node.process.pid);
    }
    text += &format!("  holdfast lab down --dir '{dir}' --restarted\n");
    text
}
