//! The broker, as one party finds it: who answers, whether it is let in, and whether it may do its part.

use holdfast_core::time::Timestamp;
use holdfast_core::topology::Exchange;

use super::certificate::certificate_end;
use super::finding::Finding;
use crate::broker::{BrokerSettings, Probe, Refusal, Trouble};
use crate::config::BrokerConfig;

/// What imports the definitions: the way out of most of what can be wrong with the broker.
const IMPORT: &str =
    "make the definitions anew (holdfast broker definitions …) and import them: rabbitmqctl import_definitions FILE";

/// What one party needs of the broker.
#[derive(Debug)]
pub struct BrokerPatient<'a> {
    /// Where it is, and the way in.
    pub config: &'a BrokerConfig,
    /// What the broker's list of connections shows.
    pub connection_name: String,
    /// The queues that the party reads.
    pub reads: Vec<String>,
    /// Where it publishes, and under which key.
    pub writes: Vec<(Exchange, String)>,
}

/// Looks at the broker. Takes no message away, and publishes none.
pub async fn examine_broker(patient: &BrokerPatient<'_>, now: Timestamp) -> Vec<Finding> {
    let BrokerPatient { config, connection_name, reads, writes } = patient;
    let settings = BrokerSettings {
        url: config.url.clone(),
        username: config.username.to_string(),
        password: config.password.clone(),
        tls: config.tls.clone(),
        queues: Vec::new(),
        connection_name: connection_name.clone(),
    };
    let probe = match Probe::connect(&settings).await {
        Ok(probe) => probe,
        Err(trouble) => return vec![not_connected(&trouble, &settings)],
    };
    let mut findings = vec![
        Finding::ok("broker-login", format!("{} proves who it is, and lets {} in", config.url, config.username)),
        certificate_end("the broker's", probe.certificate_not_after(), now),
    ];
    for queue in reads {
        findings.push(read(&probe, queue).await);
    }
    for (exchange, key) in writes {
        findings.push(match probe.may_write(*exchange, key).await {
            Ok(()) => Finding::ok("broker-publish", format!("may publish to {} under {key}", exchange.as_str())),
            Err(refusal) => {
                let what = format!("cannot publish to {} under {key}: {refusal}", exchange.as_str());
                Finding::failed("broker-publish", what, remedy(&refusal))
            }
        });
    }
    probe.close().await;
    findings
}

async fn read(probe: &Probe, queue: &str) -> Finding {
    let refused = |refusal: &Refusal| {
        Finding::failed("broker-queue", format!("{queue} cannot be read: {refusal}"), remedy(refusal))
    };
    let state = match probe.queue(queue).await {
        Ok(state) => state,
        Err(refusal) => return refused(&refusal),
    };
    if let Err(refusal) = probe.may_read(queue).await {
        return refused(&refusal);
    }
    let readers = match state.readers {
        0 => "nobody reads it now".to_owned(),
        1 => "one reads it now".to_owned(),
        many => {
            let what = format!("{queue}: {many} read it, and each gets a part of the messages");
            return Finding::warning(
                "broker-queue",
                what,
                "end the other: one process to a queue; one that was just killed goes within 20 s",
            );
        }
    };
    Finding::ok("broker-queue", format!("{queue} is there and may be read; {readers}, {} waiting", state.waiting))
}

fn not_connected(trouble: &Trouble, settings: &BrokerSettings) -> Finding {
    let (host, port) = (settings.url.host(), settings.url.port());
    let (check, remedy) = match trouble {
        Trouble::Resolve { .. } => {
            ("broker-reach", format!("mend the host in [broker] url, or the resolver: getent hosts {host}"))
        }
        Trouble::Unreachable { .. } | Trouble::TcpTimeout { .. } => {
            ("broker-reach", format!("see that it runs and that no firewall is between: nc -vz {host} {port}"))
        }
        Trouble::Login { username } => (
            "broker-login",
            format!(
                "the password in password_file has to be the one that the definitions were made with \
                 (passwords/{username}.password): {IMPORT}"
            ),
        ),
        Trouble::Vhost { .. } => ("broker-login", IMPORT.to_owned()),
        _ => ("broker-tls", format!("see what answers there: openssl s_client -connect {host}:{port} -showcerts")),
    };
    Finding::failed(check, trouble.to_string(), remedy)
}

fn remedy(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Missing(_) | Refusal::Denied(_) => IMPORT.to_owned(),
        Refusal::Trouble(_) => "look at the broker's own log for this moment, and try again".to_owned(),
    }
}
