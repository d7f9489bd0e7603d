//! `holdfast lab up`: puts the network together, one step after the other, and takes it apart again when a step fails.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};

use super::UpArgs;
use super::certificates::{Authority, CertificateError};
use super::down::{self, DownError};
use super::file::{self, LabFile, Operator, Vault, WriteError};
use super::journal::{FolderError, Journal};
use super::layout::Layout;
use super::openbao::{self, OpenBaoError};
use super::ports::{PortError, Reservation};
use super::process::{Recipe, StartError, Started};
use super::progress::Progress;
use super::rabbitmq::{self, RabbitMqError};

/// How long a server may take from its start to its first answer: RabbitMQ takes 9 s on two idle cores.
const SERVER_PATIENCE: Duration = Duration::from_secs(45);
/// How often something awaited is looked at: often enough not to be noticed among the milliseconds reported.
const LOOK: Duration = Duration::from_millis(25);
/// How long one look may take, on loopback.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// Why there is no lab.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    /// More shares are needed than there are.
    #[error("--threshold {threshold} cannot be met by --custodians {custodians}: each has one share")]
    Threshold { threshold: u8, custodians: u8 },
    /// A threshold of one with several shares, which the server refuses.
    #[error("--threshold 1 with --custodians {0} would make every custodian enough alone: ask for 2 or more")]
    Alone(u8),
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// No runtime, or no signal handler.
    #[error("cannot start: {0}")]
    Runtime(#[from] io::Error),
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
    /// A file could not be written.
    #[error(transparent)]
    Written(#[from] WriteError),
    /// A process could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A process ended while it was waited for.
    #[error("{name} ended ({status}) before it {awaited}; the end of its log:{log}")]
    Ended { name: String, status: String, awaited: &'static str, log: String },
    /// A process did not get there in time.
    #[error("{name} runs and has not {awaited} within {SERVER_PATIENCE:?}; the end of its log:{log}")]
    Late { name: String, awaited: &'static str, log: String },
    /// Ctrl-C, or a request to end.
    #[error("interrupted")]
    Interrupted,
    /// A step failed, and so did taking the lab apart.
    #[error("{0}; and then: {1}")]
    NotCleaned(Box<UpError>, DownError),
}

impl UpError {
    /// Whether the command itself was wrong, whatever the machine.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Self::Threshold { .. } | Self::Alone(_))
    }
}

/// Carries `lab up` out.
pub(crate) fn run(args: &UpArgs) -> Result<(), UpError> {
    let UpArgs { custodians, threshold, .. } = *args;
    if threshold > custodians {
        return Err(UpError::Threshold { threshold, custodians });
    }
    if threshold == 1 && custodians > 1 {
        return Err(UpError::Alone(custodians));
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut lab = Lab { journal: Journal::create(&args.dir)?, started: Vec::new(), progress: Progress::start() };
        match until_interrupted(lab.put_together(args)).await {
            Ok(file) => tell(&lab, &file, args.json),
            Err(failed) => Err(lab.take_apart(failed)),
        }
    })
}

/// The lab while it is put together.
struct Lab {
    journal: Journal,
    started: Vec<Started>,
    progress: Progress,
}

impl Lab {
    async fn put_together(&mut self, args: &UpArgs) -> Result<LabFile, UpError> {
        let layout = self.journal.layout.clone();
        let mut ports = Reservation::new()?;
        let bao = openbao::find()?;
        let vault_ca_key = layout.home("vault-ca.key");
        let vault_ca = Authority::create("Holdfast lab Vault CA", &layout.vault_ca(), &vault_ca_key)?;
        let nodes = openbao::prepare(&layout, &vault_ca, &mut ports, args.nodes)?;
        let broker = if args.no_broker {
            None
        } else {
            let key = layout.home("broker-ca.key");
            let ca = Authority::create("Holdfast lab broker CA", &layout.broker_ca(), &key)?;
            Some(rabbitmq::prepare(&layout, &ca, &mut ports, rabbitmq::bare_definitions())?)
        };

        // The slowest first: while RabbitMQ starts, everything else is made.
        if let Some(broker) = &broker {
            self.start(rabbitmq::epmd_recipe(&layout, broker))?;
            self.listening(rabbitmq::EPMD, broker.epmd_port).await?;
            self.start(rabbitmq::recipe(&layout, broker))?;
        }
        for node in &nodes {
            self.start(openbao::recipe(&layout, &bao, node))?;
        }
        for node in &nodes {
            self.listening(&node.name, node.port).await?;
        }
        if let Some(broker) = &broker {
            self.listening(rabbitmq::NAME, broker.port).await?;
        }

        let vault = nodes.iter().map(|node| {
            Some(Vault { name: node.name.clone(), url: node.url(), process: self.find(&node.name)?.process() })
        });
        let broker = broker.as_ref().and_then(|broker| {
            Some(file::Broker {
                url: broker.url(),
                ca_cert: layout.broker_ca(),
                admin_user: rabbitmq::ADMIN.to_owned(),
                admin_password_file: rabbitmq::admin_password_file(&layout),
                process: self.find(rabbitmq::NAME)?.process(),
                epmd: self.find(rabbitmq::EPMD)?.process(),
            })
        });
        let operator = |id: &str| Operator { id: id.to_owned(), key: layout.home("operators").join(id) };
        let file = LabFile {
            cluster: "lab".to_owned(),
            ca_cert: layout.vault_ca(),
            ca_key: vault_ca_key,
            root_token_file: layout.root_token(),
            allowed_signers: layout.allowed_signers(),
            manifest: layout.manifest(),
            vault: vault.flatten().collect(),
            broker,
            custodians: Vec::new(),
            sentinel: None,
            operators: vec![operator("alice"), operator("bob")],
            operator_config: layout.operator_config(),
        };
        file::write_json(&layout.lab_json(), &file, file::PUBLIC)?;
        Ok(file)
    }

    /// Starts a process and notes it on disk before anything else is done.
    fn start(&mut self, recipe: Recipe) -> Result<(), UpError> {
        self.progress.say(format_args!("starting {}", recipe.name));
        let started = recipe.start(self.journal.layout.dir())?;
        self.journal.add(&started.recipe.name, started.identity.clone())?;
        self.started.push(started);
        Ok(())
    }

    fn find(&self, name: &str) -> Option<&Started> {
        self.started.iter().find(|started| started.recipe.name == name)
    }

    /// Waits until this process listens on its port.
    async fn listening(&mut self, name: &str, port: u16) -> Result<(), UpError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        self.until(name, "listens", async || {
            matches!(tokio::time::timeout(LOOK_PATIENCE, TcpStream::connect(address)).await, Ok(Ok(_)))
        })
        .await
    }

    /// Waits until what this process is awaited to do is seen.
    async fn until(
        &mut self,
        name: &str,
        awaited: &'static str,
        mut seen: impl AsyncFnMut() -> bool,
    ) -> Result<(), UpError> {
        let since = Instant::now();
        while !seen().await {
            let Some(process) = self.started.iter_mut().find(|started| started.recipe.name == name) else {
                // Only what was started is waited for; were it otherwise, the deadline would say so.
                return Err(UpError::Late { name: name.to_owned(), awaited, log: String::new() });
            };
            if let Some(status) = process.ended() {
                let log = process.last_lines();
                return Err(UpError::Ended { name: name.to_owned(), status, awaited, log });
            }
            if since.elapsed() > SERVER_PATIENCE {
                return Err(UpError::Late { name: name.to_owned(), awaited, log: process.last_lines() });
            }
            tokio::time::sleep(LOOK).await;
        }
        self.progress.done(format_args!("{name} {awaited}"), since);
        Ok(())
    }

    /// Ends what was started; the folder stays, for its logs.
    fn take_apart(&mut self, failed: UpError) -> UpError {
        self.progress.say("taking the lab apart again");
        match down::end_all(&mut self.journal) {
            Ok(_) => failed,
            Err(e) => UpError::NotCleaned(Box::new(failed), e),
        }
    }
}

/// Runs the work until it is done, or somebody asks to stop.
async fn until_interrupted<T>(work: impl Future<Output = Result<T, UpError>>) -> Result<T, UpError> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        done = work => done,
        _ = interrupt.recv() => Err(UpError::Interrupted),
        _ = terminate.recv() => Err(UpError::Interrupted),
        _ = hangup.recv() => Err(UpError::Interrupted),
    }
}

/// Tells what there is now, and what to try next.
fn tell(lab: &Lab, file: &LabFile, json: bool) -> Result<(), UpError> {
    let dir = lab.journal.layout.dir();
    lab.progress.done("the lab is up", lab.progress.began());
    let mut out = io::stdout().lock();
    if json {
        let text = serde_json::to_string_pretty(file).map_err(io::Error::from)?;
        writeln!(out, "{text}")?;
    } else {
        write!(out, "{}", summary(dir, file))?;
    }
    Ok(())
}

fn summary(dir: &Path, file: &LabFile) -> String {
    let nodes: String = file.vault.iter().map(|node| format!("  {:<12} {}\n", node.name, node.url)).collect();
    let shown = dir.display();
    format!("{nodes}Everything about it is in {shown}/lab.json. When done: holdfast lab down --dir '{shown}'\n")
}

#[allow(dead_code, reason = "the ceremony's steps come next and use it")]
fn layout(lab: &Lab) -> &Layout {
    &lab.journal.layout
}
