//! Metrics, the rules on them, and what docs/OPERATIONS.md says of both: in step, both ways. And the rules' own tests.
//!
//! What lives here: what can be read off the repository's files, and asked of `promtool` and of the programs' `--help`. What does not:
//! whether an alert reaches anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{LazyLock, Mutex, PoisonError};

use holdfast_tests::programs::{repository, run, tool};
use serde_json::Value;

use super::{pages, read};

/// Where the sentinel's metrics are listed, each with its meaning. Its own test holds the lists against what is really served.
const METRICS: &str = "crates/sentinel/src/metrics.rs";

/// Where custodians' own are: under the sentinel's names, and what only a host itself knows. Pages may tell of them; the rules are on
/// what the sentinel tells, because a Pushgateway never forgets.
const METRICS_OF_CUSTODIANS: &str = "crates/custodian/src/metrics/text.rs";

/// Where the receiver of alerts tells what it refused.
const METRICS_OF_IDS_HOOK: &str = "crates/cli/src/ids_hook/web.rs";

/// The jobs that the rules know, and where what each tells is listed.
const JOBS: [(&str, &str); 2] = [("holdfast-sentinel", METRICS), ("holdfast-ids-hook", METRICS_OF_IDS_HOOK)];

const RULES: &str = "deploy/prometheus/rules.yml";
const RULES_TESTS: [&str; 2] = ["deploy/prometheus/rules_test.yml", "deploy/prometheus/rules_days_test.yml"];
const DASHBOARD: &str = "deploy/grafana/holdfast.json";
const RUNBOOK: &str = "docs/OPERATIONS.md";

/// One alert of the rules, as it stands there.
#[derive(Debug)]
struct Alert {
    name: String,
    expr: String,
    severity: String,
    summary: String,
    description: String,
    runbook_url: String,
}

#[test]
fn prometheus_takes_the_rules_and_their_tests_hold() {
    tool("promtool", &["check", "rules", &in_repository(RULES)]);
    let mut args = vec!["test".to_owned(), "rules".to_owned()];
    args.extend(RULES_TESTS.map(in_repository));
    tool("promtool", &args);
}

#[test]
fn no_rule_is_on_a_metric_that_nobody_tells() {
    let known = JOBS.map(|(job, list)| (format!("{{job=\"{job}\""), listed(list)));
    for alert in alerts() {
        for (at, _) in alert.expr.match_indices("holdfast_") {
            let selector = alert.expr[at..].trim_start_matches(|c: char| c.is_ascii_lowercase() || c == '_');
            let metric = &alert.expr[at..alert.expr.len() - selector.len()];
            let (_, told) = known.iter().find(|(job, _)| selector.starts_with(job)).unwrap_or_else(|| {
                panic!("{}: {metric}: what custodians push has the same names: name the job", alert.name)
            });
            assert!(told.contains(metric), "{}: {metric} is in no list of what that job tells", alert.name);
        }
    }
}

/// The same of the dashboard, where one series too many is a number that is wrong.
#[test]
fn no_query_of_the_dashboard_is_on_what_nobody_tells_or_others_tell_too() {
    let known = listed(METRICS);
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("JSON");
    let mut queries = Vec::new();
    collect_queries(&dashboard, &mut queries);
    assert!(queries.len() > 50, "{}", queries.len());
    for query in queries {
        assert_eq!(told_by_others(&query), None, "name the job: {query}");
        let unknown: Vec<_> = metrics_in(&query).into_iter().filter(|name| !known.contains(name)).collect();
        assert!(unknown.is_empty(), "{query}: {unknown:?} are not in {METRICS}");
    }
}

#[test]
fn every_metric_is_explained_and_none_that_nobody_tells() {
    let known: BTreeSet<_> = [listed(METRICS), listed(METRICS_OF_CUSTODIANS)].into_iter().flatten().collect();
    let explained = metrics_in(&read(RUNBOOK));
    let missing: Vec<_> = known.iter().filter(|name| !explained.contains(*name)).collect();
    assert!(missing.is_empty(), "{RUNBOOK} does not explain {missing:?}");
    for page in pages() {
        let unknown: Vec<_> = metrics_in(&read(&page)).into_iter().filter(|name| !known.contains(name)).collect();
        assert!(unknown.is_empty(), "{page} tells of {unknown:?}, and no program does");
    }
}

#[test]
fn every_alert_has_its_section_and_every_section_its_alert() {
    let named: BTreeSet<_> = alerts().into_iter().map(|alert| alert.name).collect();
    let runbook = read(RUNBOOK);
    let headings = runbook.lines().filter_map(|line| line.strip_prefix("### Holdfast"));
    let sections: Vec<_> = headings.map(|rest| format!("Holdfast{rest}")).collect();
    assert_eq!(sections.iter().collect::<BTreeSet<_>>().len(), sections.len(), "twice: {sections:?}");
    assert_eq!(sections.into_iter().collect::<BTreeSet<_>>(), named, "left: sections of {RUNBOOK}, right: {RULES}");
    for alert in alerts() {
        let section = format!("{RUNBOOK}#{}", alert.name.to_lowercase());
        assert_eq!(alert.runbook_url, section, "{}", alert.name);
    }
}

#[test]
fn every_alert_says_how_bad_it_is_and_what_to_type() {
    for Alert { name, severity, summary, description, .. } in alerts() {
        assert!(["page", "ticket", "none"].contains(&severity.as_str()), "{name}: severity {severity:?}");
        assert!(!summary.is_empty(), "{name} has no summary");
        let commands: Vec<_> = description.lines().filter_map(|line| line.strip_prefix("  ")).collect();
        assert!(!commands.is_empty(), "{name} says not what to type: {description}");
        for command in commands {
            assert_known_to_its_program(&name, command);
        }
    }
}

#[test]
fn what_the_alerts_sections_say_to_type_can_be_typed() {
    let runbook = read(RUNBOOK);
    let (_, sections) = runbook.split_once("\n## Alerts\n").expect("a part of its own");
    let mut typed = 0;
    for section in sections.split("\n### ").skip(1) {
        let name = section.lines().next().unwrap_or_default();
        for command in blocks(section, "sh").concat().lines() {
            assert_known_to_its_program(name, command);
            typed += 1;
        }
        assert!(
            section.contains("- **Ends** ") && section.contains("```sh\n"),
            "{name}: what to look at, and when it ends"
        );
    }
    assert!(typed >= alerts().len(), "{typed}");
}

#[test]
fn prometheus_takes_the_configurations_of_the_page() {
    let runbook = read(RUNBOOK);
    let (_, section) = runbook.split_once("\n## Point a stock Prometheus at it\n").expect("a part of its own");
    let section = section.split("\n## ").next().unwrap_or_default();
    let configurations = blocks(section, "yaml");
    assert_eq!(configurations.len(), 2, "for one sentinel and for two");
    let folder = tempfile::tempdir().expect("a folder");
    for configuration in configurations {
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, configuration).expect("written");
        tool("promtool", &["check", "config", "--syntax-only", &file.display().to_string()]);
        assert!(
            fs::read_to_string(&file).expect("there").contains("job_name: holdfast-sentinel"),
            "as the rules ask for"
        );
    }
    for (job, _) in JOBS {
        assert!(alerts().iter().any(|alert| alert.expr.contains(&format!("job=\"{job}\""))), "no rule is on {job}");
        assert!(runbook.contains(&format!("job_name: {job}")), "{RUNBOOK} says nowhere how {job} is scraped");
    }
}

/// By its tests: it fires, and it does not.
#[test]
fn every_alert_is_tested_both_ways() {
    let tests = RULES_TESTS.map(read).concat();
    for Alert { name, severity, .. } in alerts() {
        let fires = format!("- labels: 'ALERTS{{alertname=\"{name}\",alertstate=\"firing\",severity=\"{severity}\"");
        assert!(tests.contains(&fires), "no test sees {name} fire as {severity}");
        let asked = format!("- expr: ALERTS{{alertname=\"{name}\",alertstate=\"firing\"}}");
        let answers: Vec<_> = tests.split(&asked).skip(1).filter_map(|rest| rest.lines().nth(2)).collect();
        let quiet = answers.iter().filter(|answer| answer.trim() == "exp_samples: []").count();
        assert!(
            quiet >= 2 || severity == "none",
            "{name} is to be seen not to fire just below, and to end: {answers:?}"
        );
    }
}

/// Metrics that two sentinels tell of are taken together, or the alert is about a sentinel and names it.
#[test]
fn no_alert_is_told_twice_by_two_sentinels() {
    for Alert { name, expr, .. } in alerts() {
        let about_a_sentinel = expr.contains("by (job, instance") || expr.contains("up{job=");
        let together = ["max by (", "min by (", "sum by (", "group by ("].iter().any(|with| expr.contains(with));
        assert!(about_a_sentinel || together || metrics_in(&expr).is_empty(), "{name}: {expr}");
        let stated = expr.contains("by (instance)") || expr.contains("without (");
        assert!(!stated, "{name}: group by what it is about (cluster, node, custodian), or by job and instance");
    }
}

#[test]
fn the_finders_find() {
    let served = listed(METRICS);
    assert!(served.len() > 30 && served.contains("holdfast_unseal_duration_seconds"), "{served:?}");
    assert!(listed(METRICS_OF_CUSTODIANS).contains("holdfast_custodian_clock_synchronised"));
    assert!(alerts().len() > 30, "{:?}", alerts());
    assert!(told_by_others("max(holdfast_x{job=\"holdfast-sentinel\",a=\"b\"}) + holdfast_y == 1").is_some());
    assert_eq!(told_by_others("max(holdfast_x{job=\"holdfast-sentinel\"}) + up"), None);
    let found =
        metrics_in("a holdfast_x_bucket, `holdfast_unseal_duration_seconds_bucket{le=\"1\"}` holdfast-sentinel");
    assert_eq!(found, ["holdfast_unseal_duration_seconds", "holdfast_x_bucket"].map(str::to_owned).into());
}

/// The first metric in an expression that is not of sentinels alone. Custodians' own have the same names, whether pushed or in a file, and
/// so has what `holdfast ids-hook` tells of itself.
fn told_by_others(expression: &str) -> Option<&str> {
    let names = expression.match_indices("holdfast_").map(|(at, _)| &expression[at..]);
    let selector = |name: &&str| name.trim_start_matches(|c: char| c.is_ascii_lowercase() || c == '_').to_owned();
    names.into_iter().find(|name| !selector(name).starts_with("{job=\"holdfast-sentinel\""))
}

/// All that the dashboard asks, its variables too.
fn collect_queries(part: &Value, into: &mut Vec<String>) {
    match part {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if ["expr", "query", "definition"].contains(&key.as_str()) => {
                        into.push(text.clone());
                    }
                    _ => collect_queries(value, into),
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|value| collect_queries(value, into)),
        _ => {}
    }
}

/// The names that a file's lists hold.
fn listed(file: &str) -> BTreeSet<String> {
    let source = read(file);
    let lists = source.split("mod tests {").next().unwrap_or_default();
    let quoted = lists.split('"').skip(1).step_by(2);
    quoted.filter(|text| is_metric(text)).map(str::to_owned).collect()
}

fn is_metric(text: &str) -> bool {
    // What begins the name of a package's file is no metric's.
    text.starts_with("holdfast_") && text != "holdfast_" && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

/// The metrics that a text names, histograms without the suffixes of their series.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| is_metric(word));
    words
        .map(|word| {
            let series = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
            series.filter(|name| *name == "holdfast_unseal_duration_seconds").unwrap_or(word).to_owned()
        })
        .collect()
}

/// The alerts of the rules. Not any YAML, but the form that this file has: each field on a line of its own, or below it, indented.
fn alerts() -> Vec<Alert> {
    let rules = read(RULES);
    let blocks = rules.split("\n      - alert: ").skip(1);
    let alerts = blocks.map(|block| {
        let field = |name: &str| field(block, name);
        Alert {
            name: block.lines().next().unwrap_or_default().to_owned(),
            expr: field("expr"),
            severity: field("severity"),
            summary: field("summary"),
            description: field("description"),
            runbook_url: field("runbook_url"),
        }
    });
    alerts.collect()
}

fn field(block: &str, name: &str) -> String {
    let mut lines = block.lines().skip_while(|line| !line.trim_start().starts_with(&format!("{name}: ")));
    let Some(first) = lines.next() else { return String::new() };
    let (_, value) = first.split_once(": ").unwrap_or_default();
    if !value.starts_with(['>', '|']) {
        return value.trim_matches('\'').to_owned();
    }
    let depth = first.len() - first.trim_start().len() + 2;
    let below = lines.take_while(|line| line.len() > depth && line[..depth].trim().is_empty());
    below.map(|line| &line[depth..]).collect::<Vec<_>>().join("\n")
}

/// The command, with its sub-command and each of its flags, is one that the program tells of in its `--help`.
fn assert_known_to_its_program(alert: &str, command: &str) {
    static HELP: LazyLock<Mutex<BTreeMap<Vec<String>, String>>> = LazyLock::new(Default::default);
    let command = command.trim().strip_prefix("runuser -u holdfast -- ").unwrap_or(command.trim());
    let words: Vec<_> = command.split(' ').map(str::to_owned).collect();
    if !words[0].starts_with("holdfast") {
        let others = ["systemctl status ", "journalctl -u ", "timedatectl", "curl -s "];
        assert!(others.iter().any(|known| command.starts_with(known)), "{alert}: {command}");
        return;
    }
    // `audit verify` and `drill list` are two words; every other command is one.
    let depth = if ["audit", "drill"].contains(&words[1].as_str()) { 3 } else { 2 };
    let called = words[..depth].to_vec();
    let mut known = HELP.lock().unwrap_or_else(PoisonError::into_inner);
    let help = known.entry(called.clone()).or_insert_with(|| {
        let args: Vec<_> = called[1..].iter().map(String::as_str).chain(["--help"]).collect();
        run(&called[0], &args).well().out
    });
    for flag in words[depth..].iter().filter(|word| word.starts_with("--")) {
        assert!(help.contains(&format!("{flag} ")), "{alert}: {command}: no {flag} in\n{help}");
    }
}

/// What is fenced in a text as being of this language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("```{language}\n");
    text.split(&opening).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

fn in_repository(file: &str) -> String {
    repository().join(file).display().to_string()
}
