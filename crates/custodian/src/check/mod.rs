//! `holdfast-custodian check`: everything on this host that could be wrong before the first crash, each with what to do.
//!
//! What lives here: what is looked at, in which order. What does not: what operator and custodian look at alike
//! (`holdfast_edge::checkup`). Nothing is changed but that a conductor's token is renewed, no share is sent, no message is taken from the
//! custodian's queues: a check may run beside the custodian.

mod conductor;
mod host;
mod metrics;
mod share;
mod state;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use holdfast_core::id::ClusterId;
use holdfast_core::topology::{Exchange, conductor_queue, orders_queue, peers_queue, routing_key};
use holdfast_core::trust::Namespace;
use holdfast_edge::checkup::{
    BrokerPatient, Finding, NodePatient, Sheet, custodians_listed, examine_broker, examine_nodes, people_listed,
};
use holdfast_edge::clock;
use holdfast_edge::vault::Expected;
use holdfast_edge::vault::duty::DutyToken;

use crate::config::Config;
use crate::metrics::MetricsConfig;
pub(crate) use host::try_sandbox;

/// What `check` is asked for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The configuration file.
    #[arg(long, default_value = "/etc/holdfast/custodian.toml")]
    config: PathBuf,
    /// Print the findings as one JSON document.
    #[arg(long)]
    json: bool,
    /// Look at this host alone: connect to no node, no broker and no Pushgateway.
    #[arg(long)]
    offline: bool,
}

/// Looks at everything, and says what it found.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.config)?;
    let mut sheet = Sheet::new(config.id.to_string(), clock::wall(), arguments.json);
    sheet.group("Configuration and keys");
    let shown = arguments.config.display();
    sheet.add(Finding::ok("configuration", format!("{shown}: the configuration of {} is sound", config.id)));
    sheet.add_all(host::keys(&config));
    for (id, files) in &config.clusters {
        let settings = &config.settings.clusters[id];
        sheet.group(format!("Share of {}", settings.name));
        sheet.add_all(share::examine(&config, *id, files));
    }
    sheet.group("This host");
    sheet.doing("building the sandbox in a process of its own");
    sheet.add_all(host::sandbox(&config, &arguments.config));
    sheet.add(host::clock());
    sheet.add_all(state::examine(&config));
    if let Some(folder) = config.metrics.as_ref().and_then(MetricsConfig::folder) {
        sheet.add_all(metrics::folder(folder));
    }
    trust(&config, &mut sheet);
    let mut tokens = BTreeMap::new();
    for (id, files) in &config.conductors {
        sheet.group(format!("Drills of {}", config.settings.clusters[id].name));
        let (findings, opened) = conductor::examine(&config, *id, files);
        sheet.add_all(findings);
        tokens.insert(*id, opened);
    }
    if arguments.offline {
        sheet.group("Nodes and broker");
        let remedy = "without --offline they are";
        sheet.add(Finding::warning("offline", "nodes, broker and Pushgateway were not looked at", remedy));
    } else {
        // Threads begin here, and so after the sandbox was tried.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(network(&config, &tokens, &mut sheet));
    }
    Ok(if sheet.end() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Who is known, and what has to be the same at every custodian.
fn trust(config: &Config, sheet: &mut Sheet) {
    let now = clock::wall();
    let trust = &config.settings.allowed_signers;
    for (id, files) in &config.clusters {
        let settings = &config.settings.clusters[id];
        let policy = &settings.policy;
        sheet.group(format!("Who counts for {}", settings.name));
        sheet.add_all(custodians_listed(&files.manifest, trust, now));
        let asked = policy.approvals.max(policy.in_place_approvals).max(policy.release_approvals);
        let people = [
            ("operator", &settings.operators, Namespace::Approval, usize::from(asked)),
            ("restrictor", &settings.restrictors, Namespace::Order, 0),
            ("sentinel", &settings.sentinels, Namespace::Event, 0),
            ("conductor", &settings.conductors, Namespace::Intent, 0),
        ];
        for (role, names, namespace, needed) in people {
            sheet.add_all(people_listed(role, names, namespace, needed, trust, now));
        }
        for restrictor in settings.restrictors.iter().filter(|name| trust.can_sign(name, Namespace::Approval, now)) {
            let what = format!(
                "allowed_signers lets {restrictor} sign approvals, and a restrictor is to hold and nothing else"
            );
            let remedy = "give its line there namespaces=\"holdfast.order\" alone, everywhere";
            sheet.add(Finding::warning("people", what, remedy));
        }
        // The others' digests come over this custodian's own queue, which is not this process's to read.
        let what = format!("allowed_signers has the SHA-256 {}", hex::encode(trust.digest()));
        sheet.add(Finding::ok("drift", what));
        let what = format!(
            "the policy has the digest {}; both are compared with the others' by holdfast doctor",
            policy.digest()
        );
        sheet.add(Finding::ok("drift", what));
    }
}

async fn network(config: &Config, tokens: &BTreeMap<ClusterId, Vec<DutyToken>>, sheet: &mut Sheet) {
    nodes(config, tokens, sheet).await;
    broker(config, sheet).await;
    if let Some(gateway) = config.metrics.as_ref().and_then(|metrics| metrics.pushgateway.as_ref()) {
        sheet.group("Metrics");
        sheet.doing("asking the Pushgateway");
        sheet.add(metrics::pushgateway(gateway).await);
    }
}

async fn nodes(config: &Config, tokens: &BTreeMap<ClusterId, Vec<DutyToken>>, sheet: &mut Sheet) {
    for (id, files) in &config.clusters {
        let settings = &config.settings.clusters[id];
        let expected = Expected { threshold: settings.threshold, shares: settings.shares };
        let patients = files.nodes.iter().map(|(name, identity)| {
            let direct = settings.nodes.get(name).is_some_and(|node| node.direct);
            NodePatient { identity: identity.clone(), direct, expected }
        });
        examine_nodes(&settings.name, patients, sheet).await;
        for token in tokens.get(id).into_iter().flatten() {
            sheet.group(format!("{} of {}", conductor::what(token.duty()), settings.name));
            sheet.doing("asking what the token can do");
            sheet.add_all(conductor::ask_nodes(&settings.name, files, token).await);
        }
    }
}

async fn broker(config: &Config, sheet: &mut Sheet) {
    sheet.group("Broker");
    let Some(broker) = &config.broker else {
        let what = "no broker is configured: news comes by polling, and approvals as files";
        return sheet.add(Finding::ok("broker", what));
    };
    sheet.doing("asking the broker");
    let me = &config.id;
    let conducted = || config.conductors.keys();
    let reports = config.clusters.keys().map(|id| (Exchange::Reports, routing_key(*id, me, "heartbeat")));
    let intents = conducted().map(|id| (Exchange::Intents, routing_key(*id, me, "intent")));
    let patient = BrokerPatient {
        config: broker,
        connection_name: format!("holdfast-custodian check {me}"),
        reads: [orders_queue(me), peers_queue(me)]
            .into_iter()
            .chain(conducted().map(|id| conductor_queue(*id)))
            .collect(),
        writes: reports.chain(intents).collect(),
    };
    sheet.add_all(examine_broker(&patient, clock::wall()).await);
}
