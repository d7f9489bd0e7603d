//! What a sentinel's status says of itself, of the nodes and of the custodians, held against the operator's own files.
//!
//! Nothing here is believed for more than a check-up: a sentinel's word permits nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_core::admission::SKEW_MAX;
use holdfast_core::id::{ClusterName, NodeName, Principal};
use holdfast_core::message::{Heartbeat, Needs, NodeReport, SandboxPart, Seen};
use holdfast_core::status::{ClusterStatus, CustodianStatus, NodeStatus, Status};
use holdfast_core::time::Timestamp;
use holdfast_core::trust::AllowedSigners;
use holdfast_core::verdict::{ago, audit_trouble, moment, orders_advice, trust_trouble};
use holdfast_edge::checkup::{Finding, Sheet};

use crate::operator::OperatedCluster;

/// Clocks that differ by more are worth a look: a heartbeat's way through the broker takes milliseconds.
const SKEW_SOON: i64 = 5_000;

/// A heartbeat that was signed no later than this after the sentinel saw a change may be of before its custodian saw it.
const NEWS: Duration = Duration::from_secs(5);

/// Messages refused for these reasons say that somebody tries, or that trust roots differ.
const TELLING: [&str; 3] = ["forged", "altered", "wrong-role"];

/// What a sentinel is asked about.
pub(super) struct Patient<'a> {
    /// Where it is.
    pub(super) url: &'a str,
    /// What the operator calls the cluster.
    pub(super) name: &'a ClusterName,
    /// The cluster, as the operator knows it.
    pub(super) cluster: &'a OperatedCluster,
    /// The operator's own trust root.
    pub(super) trust: &'a AllowedSigners,
    /// `--config …`, for the commands that are advised.
    pub(super) option: String,
    /// When this is.
    pub(super) now: Timestamp,
}

impl Patient<'_> {
    /// The sentinel itself, and what it sees of the nodes. Returns what it knows of the cluster.
    pub(super) fn sentinel<'s>(&self, status: &'s Status, sheet: &mut Sheet) -> Option<&'s ClusterStatus> {
        let Self { url, name, cluster, .. } = self;
        let id = cluster.manifest.id();
        let Some(known) = status.clusters.values().find(|known| known.id == id) else {
            let what = format!("{} at {url} does not watch {name} ({id})", status.sentinel);
            let remedy = format!("add [clusters.{name}] with this manifest to its sentinel.toml, and restart it");
            sheet.add(Finding::failed("sentinel", what, remedy));
            return None;
        };
        sheet.add(Finding::ok("sentinel", format!("{} at {url} watches {name}", status.sentinel)));
        sheet.add(self.clock("sentinel-clock", "the sentinel's", signed_millis(status.at, self.now)));
        sheet.add_all(self.standing(status));
        let ours = (cluster.manifest.threshold(), cluster.manifest.shares(), cluster.manifest.generation());
        if (known.threshold, known.shares, known.generation) != ours {
            let what = format!(
                "its manifest says {} of {} shares, generation {}, and yours {} of {}, generation {}",
                known.threshold, known.shares, known.generation, ours.0, ours.1, ours.2
            );
            sheet.add(Finding::failed("sentinel-manifest", what, "give both the manifest of the last ceremony"));
        }
        sheet.add_all(self.followed(known));
        for (node, config) in &cluster.nodes {
            sheet.add(match known.nodes.get(node) {
                Some(seen) => self.node(node, &config.identity.address(), seen),
                None => {
                    let what = format!("the sentinel does not watch {node}");
                    Finding::failed(
                        "sentinel-node",
                        what,
                        "add it to [clusters.*.nodes] in its sentinel.toml, and restart it",
                    )
                }
            });
        }
        Some(known)
    }

    /// Each custodian by itself.
    pub(super) fn custodians(&self, known: &ClusterStatus, sheet: &mut Sheet) {
        for member in self.cluster.manifest.custodians() {
            match known.custodians.get(&member.id) {
                Some(custodian) => sheet.add_all(self.custodian(&member.id, custodian, known)),
                None => {
                    let what = format!("the sentinel's manifest does not know {}", member.id);
                    sheet.add(Finding::failed("custodian", what, "give it the manifest of the last ceremony"));
                }
            }
        }
    }

    /// All custodians together.
    pub(super) fn together(&self, known: &ClusterStatus, sheet: &mut Sheet) {
        let ClusterStatus { ready, threshold, margin, margin_without_largest_site, .. } = known;
        let what = format!("{ready} ready for the worst node, {threshold} needed, margin {margin}");
        let remedy = "bring back the custodians that are not ready: see above";
        sheet.add(match margin {
            ..0 => Finding::failed("margin", format!("{what}: no node would open by itself"), remedy),
            0 => Finding::warning("margin", format!("{what}: none of them may be missing"), remedy),
            _ => Finding::ok("margin", what),
        });
        if *margin >= 0 {
            sheet.add(if *margin_without_largest_site < 0 {
                let what = format!(
                    "the site that matters most may not be lost: the margin would be {margin_without_largest_site}"
                );
                Finding::warning(
                    "margin-site",
                    what,
                    "spread the custodians over more sites, so that any one may be lost",
                )
            } else {
                Finding::ok(
                    "margin-site",
                    format!("any one site may be lost: margin {margin_without_largest_site} then"),
                )
            });
        }
        let heard: Vec<_> = heard(known).collect();
        if heard.is_empty() {
            return;
        }
        sheet.add_all(self.orders(known));
        sheet.add(policies(&heard));
        sheet.add(shares(&heard));
    }

    /// What operators have ordered: as they wanted it, and to be known before the first crash.
    fn orders(&self, known: &ClusterStatus) -> Vec<Finding> {
        let advice = orders_advice(self.name, known, self.now, &self.option).into_iter();
        let orders = advice.filter_map(|advice| {
            let what = advice.what.trim_end_matches(':').to_owned();
            Some(Finding::warning("order", what, advice.command?))
        });
        orders.collect()
    }

    fn distrusted(&self, id: &Principal) -> Finding {
        let remedy = format!(
            "look at its host; once it is itself again, operators type: holdfast distrust{} --cluster {} {id} --lift",
            self.option, self.name
        );
        Finding::failed(
            "distrusted",
            format!("operators have ordered that the word of {id} counts for nothing"),
            remedy,
        )
    }

    /// What the sentinel says of its own work.
    fn standing(&self, status: &Status) -> Vec<Finding> {
        let mut findings = Vec::new();
        match status.broker_up {
            Some(true) => {}
            Some(false) => {
                let why = status.broker_trouble.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
                let what = format!("the sentinel has no connection to the broker{why}; it hears no custodian");
                findings.push(Finding::failed(
                    "sentinel-broker",
                    what,
                    "mend the broker, or [broker] in its sentinel.toml",
                ));
            }
            None => {
                let what = "the sentinel has no broker, and so knows nothing of custodians";
                findings.push(Finding::warning(
                    "sentinel-broker",
                    what,
                    "on each custodian's host: holdfast-custodian check",
                ));
            }
        }
        if let Some(why) = &status.history_trouble {
            let what = format!("the sentinel's history is not written down: {why}");
            findings.push(Finding::warning(
                "sentinel-history",
                what,
                "make room for its database, and see who owns it",
            ));
        }
        findings.extend(telling("the sentinel", &status.rejected));
        findings
    }

    /// Whether the sentinel judges by the trust root by which custodians do.
    fn followed(&self, known: &ClusterStatus) -> Option<Finding> {
        let trust = known.trust.as_ref()?;
        Some(match trust_trouble(known) {
            None => {
                let what =
                    format!("the sentinel judges by the trust root of most custodians, version {}", trust.version);
                Finding::ok("sentinel-trust", what)
            }
            Some(why) => {
                let remedy = "it asks custodians for trust orders that it missed. If this stays so for minutes, they have \
                              them no more: replace its allowed_signers by the file that is in force, and send it SIGHUP";
                Finding::failed("sentinel-trust", why.trim_end_matches('.').to_owned(), remedy)
            }
        })
    }

    fn node(&self, node: &NodeName, address: &str, seen: &NodeStatus) -> Finding {
        const CHECK: &str = "sentinel-node";
        let url = seen.url.trim_start_matches("https://");
        if let Some(why) = &seen.identity_refused {
            let what = format!("the sentinel finds somebody else in {node}'s place: {why}");
            return Finding::failed(CHECK, what, "compare ca_cert, url and spki_sha256 in sentinel.toml with yours");
        }
        if seen.shared_address {
            let what = format!("the sentinel found several processes behind {node}'s address, {}", seen.url);
            return Finding::failed(CHECK, what, "name each node by an address of its own, not a balancer's");
        }
        if url != address {
            let what = format!("the sentinel watches {node} at {url}, and you reach it at {address}");
            return Finding::warning(CHECK, what, "see that both are that node's own address");
        }
        let advice =
            format!("holdfast status{} --cluster {} --node {node} says what it waits for", self.option, self.name);
        match seen.seen {
            Seen::Open => Finding::ok(CHECK, format!("the sentinel sees {node} open")),
            Seen::Sealed => Finding::warning(CHECK, format!("the sentinel sees {node} sealed"), advice),
            Seen::Lost | Seen::Never => {
                let why = seen.lost_because.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
                let what = format!("the sentinel has no contact with {node}{why}");
                Finding::failed(CHECK, what, "see that it runs, and that the sentinel's host reaches it")
            }
        }
    }

    fn custodian(&self, id: &Principal, custodian: &CustodianStatus, known: &ClusterStatus) -> Vec<Finding> {
        const CHECK: &str = "custodian";
        let there = format!("on {id}'s host: holdfast-custodian check");
        let (Some(beat), Some(at)) = (&custodian.heartbeat, custodian.heard_at) else {
            let remedy =
                format!("{there}; it runs (systemctl status holdfast-custodian), and its broker user may publish");
            return vec![Finding::failed(CHECK, format!("{id} was never heard"), remedy)];
        };
        if !custodian.up {
            let what = format!("{id} is silent: last heard {}", ago(at, self.now));
            return vec![Finding::failed(
                CHECK,
                what,
                format!("start it (systemctl status holdfast-custodian), then {there}"),
            )];
        }
        let mut findings = self.process(id, beat, &there);
        findings.extend(custodian.distrusted.then(|| self.distrusted(id)));
        findings.extend(audit_trouble(id, custodian, self.now).map(|what| {
            let full = !beat.audit.ok && beat.audit.broken.is_none();
            let remedy = match full {
                true => format!("make room on its disk; then {there}"),
                false => "docs/OPERATIONS.md, \"The audit log\", says what to do".to_owned(),
            };
            Finding::failed("custodian-audit", what.trim_end_matches('.'), remedy)
        }));
        findings.extend(
            custodian.clock_offset_millis.map(|offset| self.clock("custodian-clock", &format!("{id}'s"), offset)),
        );
        findings.extend(telling(id.as_str(), &beat.rejected));
        for node in known.nodes.keys() {
            findings.extend(match beat.nodes.get(node) {
                Some(report) => self.report(id, (node, report), at, known.nodes.get(node)),
                None => {
                    let what = format!("{id} does not serve {node}");
                    vec![Finding::failed(
                        CHECK,
                        what,
                        format!("add it to [clusters.*.nodes] in {id}'s custodian.toml, and send it SIGHUP"),
                    )]
                }
            });
        }
        if custodian.ready {
            let share = beat.share.x.map_or_else(|| "no share".to_owned(), |x| format!("share {x}"));
            let nodes = beat.nodes.len();
            let what = format!(
                "{id} is ready for all {nodes} nodes: {share} sound, sandbox in force, audit log written ({} lines)",
                beat.audit.seq
            );
            findings.insert(0, Finding::ok(CHECK, what));
        } else if findings.iter().all(|finding| finding.remedy.is_none()) {
            findings.push(Finding::failed(CHECK, format!("{id} is not ready, and does not say why"), there));
        }
        // Of what is well, one line is enough.
        findings.retain(|finding| finding.remedy.is_some() || finding.check == CHECK);
        findings
    }

    /// What a custodian says of its own process and files.
    fn process(&self, id: &Principal, beat: &Heartbeat, there: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut failed = |check, what: String, remedy: String| findings.push(Finding::failed(check, what, remedy));
        if !beat.share.ok {
            failed("custodian-share", format!("{id}'s share is not sound"), format!("{there} says which file and why"));
        }
        let generation = self.cluster.manifest.generation();
        if beat.share.generation != generation {
            let what = format!(
                "{id} holds a share of generation {}, and the manifest is of {generation}",
                beat.share.generation
            );
            failed(
                "generation",
                what,
                format!("install the packet of generation {generation} there, with its manifest"),
            );
        }
        if !beat.sandboxed {
            let what = format!("{id} runs without its sandbox, and so is never ready");
            failed(
                "custodian-sandbox",
                what,
                format!("sandbox = \"enforce\" in its custodian.toml, and a restart; then {there}"),
            );
        }
        let own = hex::encode(self.trust.digest());
        if beat.allowed_signers_sha256 != own {
            let what = format!(
                "{id} has another allowed_signers than this machine: {} there, {} here",
                short(&beat.allowed_signers_sha256),
                short(&own)
            );
            let remedy = match beat.trust_version {
                0 => {
                    "compare the two files with whoever changed one; bring the right one to both, and SIGHUP".to_owned()
                }
                version => format!(
                    "operators have put version {version} in force by a trust order: fetch that file, and use it here too; or \
                     somebody has replaced the file on that host since"
                ),
            };
            failed("drift-trust", what, remedy);
        }
        if beat.threshold != self.cluster.manifest.threshold() {
            let what = format!("{id}'s manifest says that {} shares open a node", beat.threshold);
            failed("generation", what, "give it the manifest of the last ceremony".to_owned());
        }
        findings.extend(sandbox_lacks(id, beat, there));
        if !beat.clock_synchronised {
            let what = format!(
                "{id}'s kernel does not say that its clock is synchronised: after a reboot of that host it opens nothing by itself"
            );
            findings.push(Finding::warning(
                "custodian-clock",
                what,
                "let an NTP client run there: timedatectl set-ntp true, or chrony",
            ));
        }
        if beat.version != env!("CARGO_PKG_VERSION") {
            let what = format!("{id} runs version {}, and this is {}", beat.version, env!("CARGO_PKG_VERSION"));
            findings.push(Finding::warning("version", what, "bring all to one version"));
        }
        findings
    }

    /// What a custodian said of one node at `at`, beside what the sentinel sees of it now.
    fn report(
        &self,
        id: &Principal,
        (node, report): (&NodeName, &NodeReport),
        at: Timestamp,
        seen: Option<&NodeStatus>,
    ) -> Vec<Finding> {
        const CHECK: &str = "custodian-node";
        let mut findings = Vec::new();
        let there = format!("on {id}'s host: holdfast-custodian check");
        if let Some(why) = &report.identity_refused {
            let what = format!("{id} finds somebody else in {node}'s place: {why}");
            findings.push(Finding::failed(
                CHECK,
                what,
                format!("compare its ca_cert, url and spki_sha256 with yours; {there}"),
            ));
        } else if report.shared_address {
            let what = format!(
                "{id} found several processes behind {node}'s address: every incident there waits for approvals"
            );
            findings.push(Finding::failed(CHECK, what, "name each node by an address of its own, not a balancer's"));
        } else if report.seen != Seen::Open
            && seen.is_some_and(|seen| seen.seen == Seen::Open && at > seen.since.after(NEWS))
        {
            let what = format!("{id} does not see {node} open, and the sentinel does");
            findings.push(Finding::failed(CHECK, what, format!("{there} says whether it reaches the node")));
        }
        if report.seen == Seen::Open && !report.restart_provable && at > report.since.after(NEWS) {
            let what =
                format!("{id} could not tell a restart of {node} from a seal now: it would wait for an approval");
            let remedy = format!("mark the node tls = \"direct\" in its custodian.toml, if it is; then {there}");
            findings.push(Finding::warning("restart", what, remedy));
        }
        let approve = || format!("holdfast approve{} --cluster {} --node {node}", self.option, self.name);
        if let Some(at) = report.marker {
            let what = format!("{id} keeps {node} shut: it was sealed on purpose, seen at {at}");
            findings.push(Finding::warning(
                "marker",
                what,
                format!("when it may open again, operators type: {}", approve()),
            ));
        }
        if report.budget_remaining == 0 || report.needs == Some(Needs::Budget) {
            let next = report.budget_frees_at.map(|at| format!(", until {}", moment(at, self.now)));
            let next = next.unwrap_or_default();
            let what = format!("{id} has spent its budget of automatic openings of {node}{next}");
            findings.push(Finding::warning(
                "budget",
                what,
                format!("mend the node; an approval opens it and refills the budget: {}", approve()),
            ));
        }
        findings
    }

    fn clock(&self, check: &'static str, whose: &str, ahead_millis: i64) -> Finding {
        let seconds = ahead_millis.unsigned_abs() as f64 / 1000.0;
        let which = if ahead_millis < 0 { "behind" } else { "ahead of" };
        let than = if check == "sentinel-clock" { "this machine's" } else { "the sentinel's" };
        let what = format!("{whose} clock is {seconds:.1} s {which} {than}");
        let remedy = "let an NTP client run on both: timedatectl set-ntp true, or chrony";
        match i64::try_from(ahead_millis.unsigned_abs()).unwrap_or(i64::MAX) {
            off if off > i64::try_from(SKEW_MAX.as_millis()).unwrap_or(i64::MAX) => {
                Finding::failed(check, what, remedy)
            }
            off if off > SKEW_SOON => Finding::warning(check, what, remedy),
            _ => Finding::ok(check, format!("{whose} clock and {than} agree")),
        }
    }
}

type Heard<'a> = (&'a Principal, &'a Heartbeat);

/// The custodians that speak now.
fn heard(known: &ClusterStatus) -> impl Iterator<Item = Heard<'_>> {
    let up = known.custodians.iter().filter(|(_, custodian)| custodian.up);
    up.filter_map(|(id, custodian)| Some((id, custodian.heartbeat.as_ref()?)))
}

/// Whether all decide by the same policy.
fn policies(heard: &[Heard<'_>]) -> Finding {
    let mut by_digest: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (id, beat) in heard {
        by_digest.entry(beat.policy_sha256.as_str()).or_default().push(id.as_str());
    }
    if by_digest.len() == 1 {
        return Finding::ok("drift-policy", format!("all {} that speak have the same policy", heard.len()));
    }
    let sides: Vec<_> =
        by_digest.iter().map(|(digest, ids)| format!("{} at {}", short(digest), ids.join(", "))).collect();
    let remedy = "compare [clusters.*.policy] in their custodian.toml; mend it, and send SIGHUP";
    Finding::failed("drift-policy", format!("custodians decide by different policies: {}", sides.join("; ")), remedy)
}

/// Whether each has a share of its own.
fn shares(heard: &[Heard<'_>]) -> Finding {
    let mut by_x: BTreeMap<u8, BTreeSet<&str>> = BTreeMap::new();
    for (id, x) in heard.iter().filter_map(|(id, beat)| Some((id, beat.share.x?))) {
        by_x.entry(x).or_default().insert(id.as_str());
    }
    match by_x.iter().find(|(_, ids)| ids.len() > 1) {
        None => Finding::ok("distinct-shares", format!("{} distinct shares", by_x.len())),
        Some((x, ids)) => {
            let ids = ids.iter().copied().collect::<Vec<_>>().join(" and ");
            let remedy = "one of them has the other's share: install there what is its own";
            Finding::failed("distinct-shares", format!("{ids} both say that theirs is share {x}"), remedy)
        }
    }
}

/// Refusals that say that somebody tries, or that trust roots differ.
fn telling(whose: &str, rejected: &BTreeMap<String, u64>) -> Option<Finding> {
    let counts =
        TELLING.iter().filter_map(|reason| Some((*reason, *rejected.get(*reason)?))).filter(|(_, count)| *count > 0);
    let counts: Vec<_> = counts.map(|(reason, count)| format!("{count} {reason}")).collect();
    let what = format!("{whose} has refused messages since it started: {}", counts.join(", "));
    let remedy = "somebody tries, or an allowed_signers differs between hosts: its log says whose messages they were";
    (!counts.is_empty()).then(|| Finding::warning("refused-messages", what, remedy))
}

/// The start of a digest: enough for eyes.
fn short(digest: &str) -> String {
    digest.chars().take(16).chain(['…']).collect()
}

/// By how many milliseconds `one` is ahead of `other`.
fn signed_millis(one: Timestamp, other: Timestamp) -> i64 {
    one.as_millis().saturating_sub(other.as_millis())
}

/// Which parts of its sandbox a custodian does without, if it has one and says which.
fn sandbox_lacks(id: &Principal, beat: &Heartbeat, there: &str) -> Option<Finding> {
    let lacks: Vec<_> = SandboxPart::ALL.into_iter().filter(|part| !beat.sandbox.contains(part)).collect();
    if beat.sandbox.is_empty() || lacks.is_empty() {
        return None;
    }
    let remedy = match lacks[..] {
        [SandboxPart::Memory] => "LimitMEMLOCK=infinity in its unit, or no swap on its host",
        _ => "Linux 6.12 or later on its host",
    };
    let lacks: Vec<_> = lacks.into_iter().map(SandboxPart::as_str).collect();
    let what = format!("{id}'s sandbox lacks {}", lacks.join(", "));
    Some(Finding::warning("custodian-sandbox", what, format!("{remedy}; then {there}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_edge::checkup::Grade;
    use serde_json::json;

    fn beat(x: u8, policy: &str) -> Heartbeat {
        serde_json::from_value(json!({
            "version": "0.1.0", "started_at": "2026-11-22T09:00:00.000Z", "share": {"generation": 1, "x": x, "ok": true},
            "threshold": 3, "sandboxed": true, "clock_synchronised": true,
            "audit": {"seq": 1, "head": "00", "ok": true}, "policy_sha256": policy, "allowed_signers_sha256": "00",
            "nodes": {}, "rejected": {}, "submissions": {},
        }))
        .expect("a heartbeat")
    }

    #[test]
    fn two_that_say_the_same_share_are_found() {
        let names = ["custodian-1", "custodian-2", "custodian-3"].map(|name| name.parse().expect("a name"));
        let [a, b, c] = [beat(7, "p"), beat(8, "p"), beat(7, "q")];
        let heard = [(&names[0], &a), (&names[1], &b), (&names[2], &c)];
        assert_eq!(shares(&heard[..2]).grade, Grade::Ok);
        let found = shares(&heard);
        assert!(found.grade == Grade::Failed && found.what.contains("custodian-1 and custodian-3"), "{found:?}");
        assert_eq!(policies(&heard[..2]).grade, Grade::Ok);
        let found = policies(&heard);
        assert!(found.grade == Grade::Failed && found.what.contains("q… at custodian-3"), "{found:?}");
    }

    #[test]
    fn a_sandbox_that_lacks_a_part_is_told_with_what_to_do() {
        let id = "custodian-1".parse().expect("a name");
        let with = |parts: &[SandboxPart]| Heartbeat { sandbox: parts.iter().copied().collect(), ..beat(7, "p") };
        let told = |parts: &[SandboxPart]| sandbox_lacks(&id, &with(parts), "look there");
        assert_eq!((told(&SandboxPart::ALL), told(&[])), (None, None));
        let memory = told(&SandboxPart::ALL[..5]).expect("memory is missing");
        assert!(memory.what.ends_with("lacks memory") && memory.grade == Grade::Warning, "{memory:?}");
        assert!(memory.remedy.is_some_and(|remedy| remedy.starts_with("LimitMEMLOCK=infinity")));
        let both = told(&SandboxPart::ALL[..4]).expect("two are missing");
        assert!(both.what.ends_with("lacks scope, memory"), "{both:?}");
    }

    #[test]
    fn only_refusals_that_tell_something_are_told() {
        let rejected = |reason: &str| BTreeMap::from([(reason.to_owned(), 2)]);
        assert_eq!(telling("x", &rejected("expired")), None);
        assert!(telling("x", &rejected("forged")).is_some_and(|found| found.what.ends_with("2 forged")));
    }
}
