//! `holdfast broker definitions`: the file that gives each party exactly its own at RabbitMQ, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use clap::Subcommand;
use holdfast_core::ceremony::{MANIFEST_MAX, Manifest};
use holdfast_core::id::Principal;
use holdfast_core::topology::{ClusterParties, Parties, PasswordHash, definitions};
use holdfast_edge::broker::{PASSWORD_MAX, Password};
use holdfast_edge::files;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The commands about the broker.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Print the definitions file that RabbitMQ imports: virtual host, exchanges, queues, users and permissions
    ///
    /// Makes a password for each party that has none in the folder, as FOLDER/ID.password (mode 0600), to be taken to that
    /// party's host. The file holds only their salted hashes. Import it with `rabbitmqctl import_definitions FILE`, or at
    /// every start with `load_definitions`.
    Definitions(Arguments),
}

/// What `broker definitions` is asked for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A cluster's manifest; repeatable
    #[arg(long, required = true)]
    manifest: Vec<PathBuf>,
    /// A sentinel of these clusters; repeatable
    #[arg(long)]
    sentinel: Vec<Principal>,
    /// An operator of these clusters; repeatable
    #[arg(long)]
    operator: Vec<Principal>,
    /// A restrictor of these clusters, who may order holds and nothing else; repeatable
    #[arg(long)]
    restrictor: Vec<Principal>,
    /// A custodian that may conduct drills; repeatable
    #[arg(long)]
    conductor: Vec<Principal>,
    /// A user who may do everything at the virtual host; the broker's own administrator usually serves
    #[arg(long)]
    administrator: Option<Principal>,
    /// The folder of the parties' passwords; made if it is not there
    #[arg(long)]
    passwords: PathBuf,
    /// Write the definitions to this file (mode 0600) instead of stdout
    #[arg(long)]
    output: Option<PathBuf>,
}

/// Prints or writes the definitions.
pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let Command::Definitions(arguments) = command;
    let mut parties = Parties::default();
    let mut everybody = BTreeSet::new();
    for path in &arguments.manifest {
        let manifest = Manifest::parse(&files::read_bounded(path, MANIFEST_MAX)?)
            .with_context(|| format!("{} is not a usable manifest", path.display()))?;
        let custodians: Vec<_> = manifest.custodians().iter().map(|member| member.id.clone()).collect();
        let people = arguments.operator.iter().chain(&arguments.restrictor);
        everybody.extend(custodians.iter().chain(&arguments.sentinel).chain(people).cloned());
        parties.clusters.push(ClusterParties {
            id: manifest.id(),
            name: manifest.cluster_name().clone(),
            conductors: arguments.conductor.clone(),
            sentinels: arguments.sentinel.clone(),
            operators: arguments.operator.clone(),
            restrictors: arguments.restrictor.clone(),
            custodians,
        });
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&arguments.passwords)
        .with_context(|| format!("{} cannot be made", arguments.passwords.display()))?;
    let hash = |id: &Principal| hash_of(&arguments.passwords, id);
    parties.passwords =
        everybody.iter().map(|id| Ok((id.clone(), hash(id)?))).collect::<anyhow::Result<BTreeMap<_, _>>>()?;
    parties.administrator =
        arguments.administrator.as_ref().map(|id| anyhow::Ok((id.clone(), hash(id)?))).transpose()?;
    let mut text = serde_json::to_vec_pretty(&definitions(&parties)?)?;
    text.push(b'\n');
    match &arguments.output {
        Some(path) => files::replace(path, &text, 0o600)?,
        None => std::io::stdout().write_all(&text)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The hash of a party's password, which is made if there is none.
fn hash_of(folder: &Path, id: &Principal) -> anyhow::Result<PasswordHash> {
    let path = folder.join(format!("{id}.password"));
    if !std::fs::exists(&path).with_context(|| format!("{} cannot be looked at", path.display()))? {
        let mut random = Zeroizing::new([0; 32]);
        getrandom::fill(random.as_mut_slice())
            .map_err(|e| anyhow::anyhow!("the system gave no random numbers: {e}"))?;
        let line = Zeroizing::new(format!("{}\n", BASE64_URL_SAFE_NO_PAD.encode(random.as_slice())));
        files::create_secret(&path, line.as_bytes())?;
    }
    let content = files::read_secret(&path, PASSWORD_MAX)?;
    let password = Password::from_file_content(content).with_context(|| path.display().to_string())?;
    // From the password itself, so that the same passwords give the same file: they are random, and no two are alike.
    let digest = Sha256::new().chain_update(b"holdfast salt\0").chain_update(password.expose()).finalize();
    Ok(PasswordHash::new(password.expose(), [digest[0], digest[1], digest[2], digest[3]]))
}
