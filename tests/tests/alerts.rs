//! The whole chain, as it is packaged: a real network with two sentinels, a real Prometheus that scrapes them with the rules of
//! deploy/prometheus, a real Alertmanager with the configuration of deploy/alertmanager, and somebody who is told. What goes wrong is
//! told once, to whom it is for, whichever sentinel is dead; what is over is told as well. The dashboard of deploy/grafana is asked
//! of the same Prometheus.

#[path = "alerts/dashboard.rs"]
mod dashboard;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime};

use holdfast_tests::alertmanager::Alertmanager;
use holdfast_tests::broker::Client;
use holdfast_tests::lab::Lab;
use holdfast_tests::messages;
use holdfast_tests::programs::{repository, tool};
use holdfast_tests::prometheus::Prometheus;
use holdfast_tests::tls::Authority;
use holdfast_tests::wait::{until, until_some};
use holdfast_tests::webhook::{Told, Webhook};
use serde_json::Value;

/// By how much everything is faster here than as it is packaged: each `for`, interval, window and wait. Nothing else is changed.
const FASTER: u32 = 15;

/// Four hours that a hold may be in force are a number in its rule: here they are twenty seconds.
const HOLD: [&str; 2] = ["> 4 * 3600", "> 4 * 3600 / 720"];

/// The packaged receivers: where each is, who it is, and the file with its token.
const RECEIVERS: [(&str, &str, &str); 3] = [
    ("https://pager.example/holdfast", "/pager", "pager.token"),
    ("https://tickets.example/holdfast", "/tickets", "tickets.token"),
    ("https://deadmansswitch.example/holdfast", "/deadmansswitch", "deadmansswitch.token"),
];

/// What the dead man's switch may keep silent for: two of its intervals here, and what a busy machine takes.
const SWITCH_SILENT: Duration = Duration::from_secs(20);

const DAY: Duration = Duration::from_secs(86_400);

/// An alert that is to come: where, and its labels.
type Expected = (&'static str, Vec<(&'static str, String)>);

#[test]
fn what_goes_wrong_is_told_once_and_so_is_its_end() {
    let mut lab = Lab::up(&["--sentinels", "2"]);
    let chain = Chain::start(&lab);

    let wrong = go_wrong(&mut lab);
    // The first message that is ever refused.
    let cluster = messages::cluster_id(&lab.path(&lab.file.manifest));
    Client::admin(&lab).publish("holdfast.reports", &format!("{cluster}.custodian-1.heartbeat"), b"{");
    let refused = ("/tickets", labels("HoldfastMessagesRejected", &[("reason", "malformed")]));
    chain.until_told("firing", &refused);
    wrong.iter().for_each(|alert| chain.until_told("firing", alert));
    chain.keeps_back_what_follows_from_worse();
    each_sentinel_counted_once(&lab, &chain);
    dashboard::look(&chain.prometheus, "trouble", &dashboard::Expect::InTrouble);

    // One of two sentinels dies: it is missed, and nothing else ends or begins.
    lab.kill("sentinel-2");
    let second = sentinel_down(&lab, 1);
    chain.until_told("firing", &second);
    for (path, labels) in &wrong {
        assert_eq!(chain.last(path, labels).expect("told before").alert.status, "firing", "{labels:?}");
    }
    mend(&mut lab);
    wrong.iter().for_each(|alert| chain.until_told("resolved", alert));

    // And the other.
    lab.start("sentinel-2");
    chain.until_told("resolved", &second);
    lab.kill("sentinel");
    let first = sentinel_down(&lab, 0);
    chain.until_told("firing", &first);
    lab.seal("vault-2");
    let sealed = ("/pager", labels("HoldfastVaultSealed", &[("node", "vault-2")]));
    chain.until_told("firing", &sealed);
    lab.approve("vault-2");
    chain.until_told("resolved", &sealed);

    // Now nobody watches.
    lab.kill("sentinel-2");
    let none = ("/pager", labels("HoldfastSentinelDown", &[("severity", "page")]));
    chain.until_told("firing", &none);
    lab.start("sentinel");
    lab.start("sentinel-2");
    [&none, &first, &refused].into_iter().for_each(|alert| chain.until_told("resolved", alert));

    chain.is_quiet();
    dashboard::look(&chain.prometheus, "sound", &dashboard::Expect::Sound);
    chain.told_each_once();
    chain.switch_was_never_silent();
}

#[test]
fn each_severity_reaches_whom_it_is_for() {
    let file = repository().join("deploy/alertmanager/alertmanager.yml");
    let file = file.to_string_lossy();
    tool("amtool", &["check-config", &file]);
    for (receiver, labels) in [
        ("pager", ["alertname=HoldfastQuorumLost", "severity=page"]),
        ("tickets", ["alertname=HoldfastClockOff", "severity=ticket"]),
        ("deadmansswitch", ["alertname=HoldfastDeadMansSwitch", "severity=none"]),
        ("tickets", ["alertname=SomethingNew", "severity=unheard-of"]),
    ] {
        let verified = format!("--verify.receivers={receiver}");
        tool("amtool", &["config", "routes", "test", "--config.file", &file, &verified, labels[0], labels[1]]);
    }
    let refused = Command::new("amtool")
        .args(["config", "routes", "test", "--config.file", &file, "--verify.receivers=tickets", "severity=page"])
        .output();
    assert!(!refused.expect("amtool").status.success(), "a page that goes to the tickets");
}

#[test]
fn alertmanager_names_no_alert_that_is_not_there() {
    let text = |path: &str| fs::read_to_string(repository().join(path)).expect("there");
    let rules = text("deploy/prometheus/rules.yml");
    let known: BTreeSet<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    for path in ["deploy/alertmanager/alertmanager.yml", "deploy/grafana/holdfast.json"] {
        let named = text(path);
        let words = named.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| word.starts_with("Holdfast"));
        let unknown: Vec<_> = words.filter(|word| word.len() > 8 && !known.contains(word)).collect();
        assert!(unknown.is_empty(), "{path} names {unknown:?}");
    }
}

/// Everything between the sentinels and whoever is told.
struct Chain {
    prometheus: Prometheus,
    alertmanager: Alertmanager,
    webhook: Webhook,
}

impl Chain {
    /// Starts it, and waits until Prometheus has scraped every sentinel, and the dead man's switch has come.
    fn start(lab: &Lab) -> Self {
        let webhook = Webhook::start();
        let read = |path: &str| fs::read_to_string(repository().join(path)).expect("there");
        let mut configuration = faster(&read("deploy/alertmanager/alertmanager.yml"));
        for (url, path, _) in RECEIVERS {
            assert_eq!(configuration.matches(url).count(), 1, "{url}");
            configuration = configuration.replace(url, &format!("{}{path}", webhook.url()));
        }
        let alertmanager = Alertmanager::start(&configuration, &RECEIVERS.map(|(_, _, file)| (file, file)));
        let rules = faster(&read("deploy/prometheus/rules.yml"));
        assert_eq!(rules.matches(HOLD[0]).count(), 1, "the rule of holds in force too long");
        let configuration = prometheus_yml(lab, alertmanager.address());
        let prometheus = Prometheus::start(&configuration, &rules.replace(HOLD[0], HOLD[1]));
        let chain = Self { prometheus, alertmanager, webhook };
        let all = lab.file.sentinels.len();
        until("every sentinel is scraped", || chain.series("holdfast_build_info").len() == all);
        until("the dead man's switch comes", || chain.webhook.last("/deadmansswitch", &[]).is_some());
        chain
    }

    fn series(&self, expression: &str) -> Vec<Value> {
        self.prometheus.query(expression).unwrap_or_else(|e| panic!("{expression}: {e}"))
    }

    fn last(&self, path: &str, labels: &[(&'static str, String)]) -> Option<Told> {
        let labels: Vec<_> = labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
        self.webhook.last(path, &labels)
    }

    /// Waits until the receiver was last told this of an alert.
    #[track_caller]
    fn until_told(&self, status: &str, (path, labels): &Expected) {
        let told = until_some(&format!("{path} is told {status}: {labels:?}"), || {
            self.last(path, labels).filter(|told| told.alert.status == status)
        });
        let token = RECEIVERS.iter().find(|(_, known, _)| known == path).expect("a receiver").2;
        assert_eq!(told.authorization, format!("Bearer {token}"), "{path}");
        let says = |what: &str| told.alert.annotations.get(what).is_some_and(|text| !text.is_empty());
        assert!(["summary", "description", "runbook_url"].into_iter().all(says), "{told:?}");
    }

    /// The loss of a site follows from a margin of nothing, and a marker from an approval that is waited for.
    fn keeps_back_what_follows_from_worse(&self) {
        for name in ["HoldfastSiteLossFatal", "HoldfastMarkerSet"] {
            until(&format!("{name} is kept back"), || {
                let alerts = self.alertmanager.alerts();
                let mut of_name = alerts.iter().filter(|alert| alert["labels"]["alertname"] == name);
                of_name.any(|alert| alert["status"]["inhibitedBy"].as_array().is_some_and(|by| !by.is_empty()))
            });
        }
    }

    /// Nothing is wrong: of all alerts the dead man's switch alone is there, and none is on its way.
    fn is_quiet(&self) {
        let name = |alert: &Value| alert["labels"]["alertname"].as_str().unwrap_or_default().to_owned();
        let mut left = Vec::new();
        until("nothing is wrong any more", || {
            left = self.prometheus.alerts().iter().map(name).collect();
            // Not every custodian has had its turn here: that is pending for a day. And whether this machine's clock follows another one
            // is the machine's.
            left.retain(|name| !["HoldfastShareNotProven", "HoldfastClockNotSynchronised"].contains(&name.as_str()));
            left == ["HoldfastDeadMansSwitch"]
        });
    }

    /// Two sentinels told of all this, and whoever is told heard of each fact as one alert: no label says which sentinel told of it,
    /// but where the sentinel itself is what is wrong. Nothing failed on the way.
    fn told_each_once(&self) {
        let mut facts: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for Told { path, alert, .. } in self.webhook.told() {
            let of = |key: &str| alert.labels.get(key).cloned().unwrap_or_default();
            if of("alertname") == "HoldfastSentinelDown" {
                continue;
            }
            assert!(!alert.labels.contains_key("instance") && !alert.labels.contains_key("job"), "{alert:?}");
            let fact = ["alertname", "cluster", "node", "custodian", "receiver", "reason"].map(of);
            facts.entry(fact).or_default().insert((path, alert.labels));
        }
        let twice: Vec<_> = facts.values().filter(|told| told.len() > 1).collect();
        assert!(twice.is_empty(), "told twice: {twice:#?}");
        assert_eq!(self.alertmanager.said(), "", "Alertmanager complains");
    }

    fn switch_was_never_silent(&self) {
        let told = self.webhook.told();
        let of_switch = told.iter().filter(|told| told.path == "/deadmansswitch");
        let mut before = None;
        for Told { at, alert, .. } in of_switch {
            assert_eq!(
                (alert.labels["alertname"].as_str(), alert.status.as_str()),
                ("HoldfastDeadMansSwitch", "firing")
            );
            let silent = before.replace(*at).map(|before| at.duration_since(before)).unwrap_or_default();
            assert!(silent < SWITCH_SILENT, "the dead man's switch was silent for {silent:?}");
        }
        let silent = before.expect("it came").elapsed();
        assert!(silent < SWITCH_SILENT, "the dead man's switch is silent for {silent:?}");
    }
}

/// Several things at once, as they come. Returns what is to be told of them.
fn go_wrong(lab: &mut Lab) -> Vec<Expected> {
    lab.stop("custodian-4");
    lab.stop("custodian-5");
    lab.holdfast(&["hold", "--node", "vault-2", "--reason", "forensics"]).well();
    renew(lab, 10);
    lab.seal("vault-1");
    vec![
        ("/pager", labels("HoldfastVaultSealed", &[("node", "vault-1")])),
        ("/pager", labels("HoldfastApprovalWaiting", &[("node", "vault-1")])),
        ("/pager", labels("HoldfastMarginLow", &[])),
        ("/tickets", labels("HoldfastHeartbeatMissing", &[("custodian", "custodian-4")])),
        ("/tickets", labels("HoldfastHeartbeatMissing", &[("custodian", "custodian-5")])),
        ("/tickets", labels("HoldfastCertificateExpiring", &[("node", "vault-3")])),
        ("/tickets", labels("HoldfastHoldTooLong", &[])),
    ]
}

/// Each of these is undone.
fn mend(lab: &mut Lab) {
    lab.approve("vault-1");
    lab.start("custodian-4");
    lab.start("custodian-5");
    let hold = until_some("a hold", || lab.status()["holds"][0]["id"].as_str().map(str::to_owned));
    for operator in ["alice", "bob"] {
        lab.holdfast_as(operator, &["release", "--hold", &hold]).well();
    }
    renew(lab, 365);
}

/// Gives vault-3 another certificate for its key, and lets it crash: open connections show none.
fn renew(lab: &mut Lab, days: u32) {
    let folder = lab.dir().join("vault-3");
    let key = fs::read_to_string(folder.join("tls.key")).expect("its key");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
    let certificate = Authority::of_lab(lab).renew(&["127.0.0.1"], &key, Some(now + DAY * days));
    fs::write(folder.join("tls.pem"), certificate).expect("written");
    lab.restart("vault-3");
    until("vault-3 is open again", || lab.is_open("vault-3"));
}

/// Each sentinel saw one crash and one seal, and each custodian, woken by both, took it for one.
fn each_sentinel_counted_once(lab: &Lab, chain: &Chain) {
    for (cause, node) in [("restart", "vault-3"), ("in-place", "vault-1")] {
        let counted = chain.series(&format!("holdfast_incidents_total{{cause=\"{cause}\"}}"));
        let counted: Vec<_> = counted.iter().map(|series| series["value"][1].as_str().expect("a number")).collect();
        assert_eq!(counted, ["1", "1"], "{cause}");
        for custodian in ["custodian-1", "custodian-2", "custodian-3"] {
            let causes = lab.audited(custodian, "cause");
            let of_node = causes.iter().filter(|entry| entry["node"] == node && entry["cause"] == cause).count();
            assert_eq!(of_node, 1, "{custodian} saw {node}: {causes:#?}");
        }
    }
}

/// The alert about one sentinel of two.
fn sentinel_down(lab: &Lab, number: usize) -> Expected {
    let instance = lab.file.sentinels[number].url.trim_start_matches("http://").to_owned();
    ("/tickets", vec![("alertname", "HoldfastSentinelDown".to_owned()), ("instance", instance)])
}

/// The labels of an alert about the lab.
fn labels(name: &str, labels: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    let labels = labels.iter().map(|(key, value)| (*key, (*value).to_owned()));
    [("alertname", name.to_owned())].into_iter().chain(labels).collect()
}

fn prometheus_yml(lab: &Lab, alertmanager: &str) -> String {
    let addresses = lab.file.sentinels.iter().map(|sentinel| sentinel.url.trim_start_matches("http://"));
    let targets: Vec<_> = addresses.map(|address| format!("'{address}'")).collect();
    format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [rules.yml]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{alertmanager}']}}]}}]}}
scrape_configs: [{{job_name: holdfast-sentinel, static_configs: [{{targets: [{}]}}]}}]
",
        targets.join(", ")
    )
}

/// A packaged file with every duration divided: after `for:` and the like, and in brackets.
fn faster(text: &str) -> String {
    let timed = ["for", "interval", "group_wait", "group_interval", "repeat_interval"];
    let line = |line: &str| match line.split_once(": ") {
        Some((key, value)) if timed.contains(&key.trim()) => {
            let divided = divided(value).unwrap_or_else(|| panic!("no duration: {line}"));
            format!("{key}: {divided}\n")
        }
        _ => {
            let mut parts = line.split('[');
            let first = parts.next().unwrap_or_default().to_owned();
            let windows = parts.map(|part| {
                let window = part.split_once(']').and_then(|(window, rest)| Some((divided(window)?, rest)));
                window.map_or(format!("[{part}"), |(window, rest)| format!("[{window}]{rest}"))
            });
            first + &windows.collect::<String>() + "\n"
        }
    };
    text.lines().map(line).collect()
}

/// `1m` is 4000ms. None of what is no duration.
fn divided(text: &str) -> Option<String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let number: u32 = text.strip_suffix(unit)?.parse().ok()?;
    Some(format!("{}ms", number * seconds * 1000 / FASTER))
}

#[test]
fn only_durations_are_divided() {
    let text = "  - alert: A\n    expr: x[15m] > 4 * 3600 and y{a=~\"[b]\"}\n    for: 1m\n    interval: 15s\n";
    let faster = faster(text);
    assert_eq!(
        faster,
        "  - alert: A\n    expr: x[60000ms] > 4 * 3600 and y{a=~\"[b]\"}\n    for: 4000ms\n    interval: 1000ms\n"
    );
}
