//! What a conductor needs: a token that opens, that seals and can do nothing else, and times at which custodians let drills be.

use holdfast_core::id::{ClusterId, ClusterName};
use holdfast_core::time::Timestamp;
use holdfast_edge::checkup::Finding;
use holdfast_edge::clock;
use holdfast_edge::vault::NodeIdentity;
use holdfast_edge::vault::exercise::{PowersError, RenewError, SealToken};

use crate::config::{ClusterFiles, ConductorFiles, Config};

/// How many of the schedule's times are told.
const TIMES: usize = 3;

/// A token that lives no longer than this from its renewal may end while nobody looks.
const LIFE_MIN_DAYS: u64 = 7;

const DAY_SECONDS: u64 = 24 * 3600;

/// Looks at what is on this host; the token, if it opens.
pub(super) fn examine(config: &Config, id: ClusterId, files: &ConductorFiles) -> (Vec<Finding>, Option<SealToken>) {
    let name = &config.settings.clusters[&id].name;
    let shown = files.token_file.display();
    let mut findings = Vec::new();
    let token = SealToken::load(&files.token_file, &files.identity);
    findings.push(match &token {
        Ok(_) => Finding::ok("seal-token", format!("the token that seals, {shown}, opens")),
        Err(error) => Finding::failed("seal-token", format!("the token that seals, {shown}: {error}"), again(name)),
    });
    if config.broker.is_none() {
        let what = "no broker is configured: nobody would hear of a drill, and so none is held";
        findings.push(Finding::failed("conductor", what, "add [broker], or take [conductor.*] away"));
    }
    findings.extend(schedule(config, id, files, clock::wall()));
    (findings, token.ok())
}

/// When drills are held by themselves, and whether this custodian lets them be then.
fn schedule(config: &Config, id: ClusterId, files: &ConductorFiles, now: Timestamp) -> Vec<Finding> {
    let Some(schedule) = &files.schedule else {
        return vec![Finding::ok("schedule", "no schedule: drills are held when an operator orders one")];
    };
    let after = |due: &crate::schedule::Due| due.slot.time().and_then(|time| schedule.next(time));
    let next: Vec<_> = std::iter::successors(schedule.next(now), after).take(TIMES).collect();
    if next.is_empty() {
        let what = "the schedule has no time that is still to come and not blacked out";
        return vec![Finding::warning("schedule", what, "change schedule or blackout")];
    }
    let times: Vec<_> = next.iter().map(|due| due.at.to_string()).collect();
    let mut findings = vec![Finding::ok("schedule", format!("the next drills are due at {}", times.join(", ")))];
    let policy = &config.settings.clusters[&id].policy;
    let outside: Vec<_> =
        next.iter().filter(|due| !policy.in_drill_window(due.at)).map(|due| due.at.to_string()).collect();
    findings.push(if outside.is_empty() {
        Finding::ok("drill-windows", "this custodian's drill_windows cover them; the others' are the others' to check")
    } else {
        let what = format!(
            "this custodian's own drill_windows do not cover {}: it takes no part then, and if too few do, no drill is held",
            outside.join(", ")
        );
        Finding::warning("drill-windows", what, "have drill_windows cover the schedule, at every custodian")
    });
    findings
}

/// Has every node say what the token can do, and one of them renew it, as the running custodian does each day.
pub(super) async fn ask_nodes(name: &ClusterName, files: &ClusterFiles, token: &SealToken) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut good = None;
    for (node, identity) in &files.nodes {
        findings.push(match powers(identity, token).await {
            Ok(()) => {
                good = good.or(Some(identity));
                Finding::ok("seal-powers", format!("{node}: the token can seal it, and nothing else"))
            }
            Err(Silent::Because(why)) => {
                let what = format!("{node}: what the token can do was not told: {why}");
                Finding::warning("seal-powers", what, "look again when the node is open")
            }
            Err(Silent::Unfit(error)) => Finding::failed("seal-powers", format!("{node}: {error}"), again(name)),
        });
    }
    if let Some(identity) = good {
        findings.push(life(name, identity, token).await);
    }
    findings
}

/// Why a token was not found good.
enum Silent {
    /// Nobody knows.
    Because(String),
    /// It is not.
    Unfit(PowersError),
}

async fn powers(identity: &NodeIdentity, token: &SealToken) -> Result<(), Silent> {
    let silent = |why: &dyn std::fmt::Display| Silent::Because(why.to_string());
    let mut connection = identity.connect(None).await.map_err(|e| silent(&e))?;
    // A sealed node knows no token.
    if !connection.seal_status().await.map_err(|e| silent(&e))?.is_open() {
        return Err(silent(&"it is sealed"));
    }
    connection.check_powers(token).await.map_err(|error| match error {
        PowersError::Ask(error) | PowersError::Renew(RenewError::Ask(error)) => silent(&error),
        unfit => Silent::Unfit(unfit),
    })
}

async fn life(name: &ClusterName, identity: &NodeIdentity, token: &SealToken) -> Finding {
    const CHECK: &str = "seal-token-life";
    let renewed = async {
        let mut connection = identity.connect(None).await.map_err(|error| error.to_string())?;
        connection.renew(token).await.map_err(|error| error.to_string())
    };
    match renewed.await.map(|life| life.as_secs() / DAY_SECONDS) {
        Ok(days) if days >= LIFE_MIN_DAYS => {
            let what =
                format!("the token was renewed, and lives {days} days; the running custodian renews it each day");
            Finding::ok(CHECK, what)
        }
        Ok(days) => {
            let what =
                format!("the token was renewed, and lives {days} days: it ends when no custodian runs for so long");
            Finding::warning(CHECK, what, again(name))
        }
        Err(why) => Finding::warning(CHECK, format!("the token cannot be renewed: {why}"), again(name)),
    }
}

fn again(name: &ClusterName) -> String {
    format!(
        "make a token as holdfast-setup seal-token --policy says, then: holdfast-setup seal-token --config FILE --cluster {name}"
    )
}
