//! `holdfast doctor`: everything that could be wrong before the first crash, as an operator's machine sees it.
//!
//! What lives here: what is looked at, in which order. What does not: what custodians look at alike
//! (`holdfast_edge::checkup`), and what a sentinel's word is read for (`sentinel`).

mod sentinel;

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use holdfast_core::id::{ClusterName, Principal};
use holdfast_core::message::Kind;
use holdfast_core::topology::{Exchange, routing_key};
use holdfast_core::trust::Namespace;
use holdfast_edge::checkup::{
    BrokerPatient, Finding, NodePatient, Sheet, custodians_listed, examine_broker, examine_nodes, people_listed,
    secret_file,
};
use holdfast_edge::clock;
use holdfast_edge::keys::{AgentKey, OperatorKey, Sign as _};
use holdfast_edge::vault::Expected;

use crate::operator::{OperatedCluster, Operator};
use crate::status::{self, CONFIG};

/// Look for everything that could be wrong before the first crash, and say what to do
///
/// Looks at your key and trust root, each node, the broker, and through the sentinel at every custodian. Changes nothing. Exit codes:
/// 0 nothing failed, 1 something did, 78 the configuration is refused. What only a custodian's host can see,
/// `holdfast-custodian check` says there.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The operator's configuration
    #[arg(long, default_value = CONFIG)]
    config: PathBuf,
    /// The cluster; without it, all
    #[arg(long)]
    cluster: Option<ClusterName>,
    /// Print the findings as one JSON document
    #[arg(long)]
    json: bool,
}

/// Looks at everything, and says what it found.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let operator = Operator::load(&arguments.config)?;
    let clusters = operator.clusters(arguments.cluster.as_ref())?;
    let mut sheet = Sheet::new(operator.principal.to_string(), clock::wall(), arguments.json);
    sheet.group(format!("You, {}", operator.principal));
    let shown = arguments.config.display();
    sheet.add(Finding::ok("configuration", format!("{shown}: your configuration is sound")));
    sheet.add_all(own_key(&operator));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for (name, cluster) in &clusters {
            sheet.group(format!("Manifest of {name}"));
            sheet.add_all(manifest(name, cluster, &operator));
            nodes(name, cluster, &mut sheet).await;
        }
        broker(&operator, &clusters, &mut sheet).await;
        for (name, cluster) in &clusters {
            custodians(arguments, &operator, (name, cluster), &mut sheet).await;
        }
    });
    Ok(if sheet.end() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The operator's own key, and what it counts for.
fn own_key(operator: &Operator) -> Vec<Finding> {
    let Operator { principal, key, key_path, allowed_signers, .. } = operator;
    let mut findings = Vec::new();
    match key {
        OperatorKey::Agent(key) => findings.push(agents_key(key)),
        OperatorKey::File(_) | OperatorKey::Locked(_) => {
            if let Ok(me) = std::fs::metadata("/proc/self") {
                findings.push(secret_file("key-file", "your key", key_path, me.uid()));
            }
        }
    }
    if let OperatorKey::Locked(_) = key {
        let what = "your key has a passphrase: it is asked for whenever you sign";
        findings.push(Finding::ok("key-passphrase", what));
    }
    let now = clock::wall();
    for (namespace, what) in [(Namespace::Approval, "approvals"), (Namespace::Order, "orders")] {
        findings.push(match allowed_signers.authorise(principal, namespace, key.public_key(), now) {
            Ok(()) => {
                Finding::ok("own-key", format!("your {what} count: allowed_signers has your key with {namespace}"))
            }
            Err(why) => {
                let line = format!("{principal} namespaces=\"holdfast.order,holdfast.approval\" {}", key.public_key());
                let remedy = format!("have this line in allowed_signers, everywhere: {line}");
                Finding::failed("own-key", format!("your {what} do not count: {why}"), remedy)
            }
        });
    }
    findings
}

/// Whether the agent has the key. A signature is not tried: a token would want to be touched for it.
fn agents_key(key: &AgentKey) -> Finding {
    let (name, fingerprint) = (key.public_key().type_name(), key.public_key().fingerprint());
    match key.find() {
        Ok(()) => Finding::ok("key-agent", format!("the ssh-agent holds your key, {name} {fingerprint}")),
        Err(why) => {
            let remedy =
                "until it does, you can sign nothing; look with ssh-add -L: docs/OPERATIONS.md, \"Keys that sign\"";
            Finding::failed("key-agent", format!("your key cannot be used: {why}"), remedy)
        }
    }
}

/// The manifest, held against the configuration and the trust root.
fn manifest(name: &ClusterName, cluster: &OperatedCluster, operator: &Operator) -> Vec<Finding> {
    let OperatedCluster { manifest, .. } = cluster;
    let (trust, now) = (&operator.allowed_signers, clock::wall());
    let (shares, threshold, members) = (manifest.shares(), manifest.threshold(), manifest.custodians().len());
    let what = format!(
        "{threshold} of {shares} shares open a node; {members} custodians have one each; generation {}; id {}",
        manifest.generation(),
        manifest.id()
    );
    let mut findings = vec![match members.cmp(&usize::from(threshold)) {
        std::cmp::Ordering::Greater => Finding::ok("manifest", what),
        std::cmp::Ordering::Equal => Finding::warning(
            "manifest",
            format!("{what}: none of them may be missing"),
            "hold a ceremony with more custodians",
        ),
        std::cmp::Ordering::Less => {
            let remedy = "without people's shares nothing opens a node: hold a ceremony with more custodians";
            Finding::warning("manifest", format!("{what}: too few to open a node by themselves"), remedy)
        }
    }];
    findings.push(recovery(usize::from(shares), members, usize::from(threshold)));
    if manifest.cluster_name() != name {
        let what = format!("you call the cluster {name}, and its manifest calls it {}", manifest.cluster_name());
        findings.push(Finding::warning(
            "cluster-name",
            what,
            "check that this is the manifest that you mean; then use one name",
        ));
    }
    findings.extend(custodians_listed(manifest, trust, now));
    let signers = trust.signers().filter(|signer| signer.may_sign(Namespace::Approval));
    let operators: std::collections::BTreeSet<&Principal> = signers.map(|signer| signer.principal()).collect();
    if operators.len() == 1 {
        let what = "allowed_signers knows one operator alone: a deliberate seal waits for two approvals by default";
        findings.push(Finding::warning("people", what, "add another operator's line to allowed_signers, everywhere"));
    } else {
        findings.extend(people_listed("operator", operators, Namespace::Approval, 0, trust, now));
    }
    findings
}

/// Whether people have enough shares to open a node without any custodian.
fn recovery(shares: usize, members: usize, threshold: usize) -> Finding {
    let holders = shares.saturating_sub(members);
    let have = match holders {
        0 => "nobody but custodians has a share".to_owned(),
        1 => "one share is a holder's".to_owned(),
        more => format!("{more} shares are holders'"),
    };
    if holders >= threshold {
        return Finding::ok("recovery", format!("{have}: any {threshold} of them open a node without custodians"));
    }
    let what = format!(
        "{have}, and it takes {threshold}: people cannot open a node by themselves, and the loss of any {} of the {shares} \
         shares is final",
        shares.saturating_sub(threshold) + 1
    );
    let remedy = format!("a ceremony with {threshold} holders or more ends this: docs/CEREMONIES.md");
    Finding::warning("recovery", what, remedy)
}

async fn nodes(name: &ClusterName, cluster: &OperatedCluster, sheet: &mut Sheet) {
    let OperatedCluster { manifest, nodes, .. } = cluster;
    let expected = Expected { threshold: manifest.threshold(), shares: manifest.shares() };
    let patients = nodes.values().map(|node| {
        let (identity, direct) = (node.identity.clone(), node.direct);
        NodePatient { identity, direct, expected }
    });
    examine_nodes(name, patients, sheet).await;
}

async fn broker(operator: &Operator, clusters: &[(&ClusterName, &OperatedCluster)], sheet: &mut Sheet) {
    sheet.group("Broker");
    let Some(broker) = &operator.broker else {
        let what = "you have no broker configured: your approvals travel as files (holdfast approve --output)";
        return sheet.add(Finding::ok("broker", what));
    };
    sheet.doing("asking the broker");
    let me = &operator.principal;
    let key = |cluster: &OperatedCluster| routing_key(cluster.manifest.id(), me, Kind::Approval.as_str());
    let patient = BrokerPatient {
        config: broker,
        connection_name: format!("holdfast doctor {me}"),
        reads: Vec::new(),
        writes: clusters.iter().map(|(_, cluster)| (Exchange::Orders, key(cluster))).collect(),
    };
    sheet.add_all(examine_broker(&patient, clock::wall()).await);
}

/// The sentinel, and through it the custodians.
async fn custodians(
    arguments: &Arguments,
    operator: &Operator,
    (name, cluster): (&ClusterName, &OperatedCluster),
    sheet: &mut Sheet,
) {
    sheet.group(format!("Sentinel of {name}"));
    let config = arguments.config.display();
    let Some(url) = &cluster.sentinel else {
        let what = format!("[clusters.{name}] in {config} names no sentinel: the custodians were not looked at");
        let remedy =
            "add sentinel = \"https://…:9640\"; until then, holdfast-custodian check on each host says how it stands";
        return sheet.add(Finding::warning("sentinel", what, remedy));
    };
    sheet.doing("asking the sentinel");
    let status = match status::fetch(url).await {
        Ok(status) => status,
        Err(error) => {
            let remedy = "see that it runs and listens there: systemctl status holdfast-sentinel; the custodians were not looked at";
            return sheet.add(Finding::failed("sentinel", format!("{error:#}"), remedy));
        }
    };
    let patient = sentinel::Patient {
        url,
        name,
        cluster,
        trust: &operator.allowed_signers,
        option: status::option(&arguments.config),
        now: clock::wall(),
    };
    let Some(known) = patient.sentinel(&status, sheet) else { return };
    sheet.group(format!("Custodians of {name}"));
    patient.custodians(known, sheet);
    sheet.group(format!("Custodians of {name} together"));
    patient.together(known, sheet);
}
