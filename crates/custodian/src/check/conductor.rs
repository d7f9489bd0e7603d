//! What a conductor needs: tokens that open, each of which does what it is for and can do nothing else, and times at which custodians
//! let drills be.

use holdfast_core::id::{ClusterId, ClusterName};
use holdfast_core::time::Timestamp;
use holdfast_edge::checkup::Finding;
use holdfast_edge::clock;
use holdfast_edge::vault::NodeIdentity;
use holdfast_edge::vault::canary::{Canary, CanaryError, Salt};
use holdfast_edge::vault::duty::{Duty, DutyToken, PowersError, RenewError};

use crate::config::{ClusterFiles, ConductorFiles, Config};

/// How many of the schedule's times are told.
const TIMES: usize = 3;

/// A token that lives no longer than this from its renewal may end while nobody looks.
const LIFE_MIN_DAYS: u64 = 7;

const DAY_SECONDS: u64 = 24 * 3600;

/// What is looked at of a token.
struct Checks {
    opens: &'static str,
    powers: &'static str,
    life: &'static str,
}

const fn checks(duty: &Duty) -> Checks {
    match duty {
        Duty::Seal => Checks { opens: "seal-token", powers: "seal-powers", life: "seal-token-life" },
        Duty::ReadCanary(_) => Checks { opens: "canary-token", powers: "canary-powers", life: "canary-token-life" },
    }
}

/// Which token it is.
pub(super) const fn what(duty: &Duty) -> &'static str {
    match duty {
        Duty::Seal => "The token that seals nodes",
        Duty::ReadCanary(_) => "The token that reads the canary",
    }
}

/// Looks at what is on this host; the tokens that open.
pub(super) fn examine(config: &Config, id: ClusterId, files: &ConductorFiles) -> (Vec<Finding>, Vec<DutyToken>) {
    let name = &config.settings.clusters[&id].name;
    let (mut findings, mut tokens) = (Vec::new(), Vec::new());
    for (duty, file) in &files.tokens {
        let (check, what) = (checks(duty).opens, format!("{}, {}", what(duty), file.display()));
        findings.push(match DutyToken::load(file, &files.identity, duty.clone()) {
            Ok(token) => {
                tokens.push(token);
                Finding::ok(check, format!("{what}, opens"))
            }
            Err(error) => Finding::failed(check, format!("{what}: {error}"), again(name, duty)),
        });
    }
    if config.broker.is_none() {
        let what = "no broker is configured: nobody would hear of a drill, and so none is held";
        findings.push(Finding::failed("conductor", what, "add [broker], or take [conductor.*] away"));
    }
    findings.extend(schedule(config, id, files, clock::wall()));
    (findings, tokens)
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

/// Has every node say what the token can do, and give the canary where it is the one for that; and one of them renew it, as the running
/// custodian does each day.
pub(super) async fn ask_nodes(name: &ClusterName, files: &ClusterFiles, token: &DutyToken) -> Vec<Finding> {
    let (mut findings, check, duty) = (Vec::new(), checks(token.duty()).powers, token.duty());
    let mut good = None;
    for (node, identity) in &files.nodes {
        findings.push(match powers(identity, token).await {
            Ok(()) => {
                good = good.or(Some(identity));
                let can = match duty {
                    Duty::Seal => "can seal it, and nothing else".to_owned(),
                    Duty::ReadCanary(path) => format!("reads {path} through it, and can do nothing else"),
                };
                Finding::ok(check, format!("{node}: the token {can}"))
            }
            Err(Silent::Because(why)) => {
                let what = format!("{node}: what the token can do was not told: {why}");
                Finding::warning(check, what, "look again when the node is open")
            }
            Err(Silent::Unfit(error)) => Finding::failed(check, format!("{node}: {error}"), again(name, duty)),
            Err(Silent::Unread(error)) => {
                let remedy = "store something there, and see that the token's policy names that path";
                Finding::failed(check, format!("{node}: the canary cannot be read through it: {error}"), remedy)
            }
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
    /// It is, and the canary cannot be read.
    Unread(CanaryError),
}

async fn powers(identity: &NodeIdentity, token: &DutyToken) -> Result<(), Silent> {
    let silent = |why: &dyn std::fmt::Display| Silent::Because(why.to_string());
    let mut connection = identity.connect(None).await.map_err(|e| silent(&e))?;
    // A sealed node knows no token.
    if !connection.seal_status().await.map_err(|e| silent(&e))?.is_open() {
        return Err(silent(&"it is sealed"));
    }
    connection.check_powers(token).await.map_err(|error| match error {
        PowersError::Ask(error) | PowersError::Renew(RenewError::Ask(error)) => silent(&error),
        unfit => Silent::Unfit(unfit),
    })?;
    let salt = Salt::random().map_err(|e| silent(&e))?;
    match Canary::new(token.clone(), salt) {
        Some(canary) => connection.read_canary(&canary).await.map(drop).map_err(Silent::Unread),
        None => Ok(()),
    }
}

async fn life(name: &ClusterName, identity: &NodeIdentity, token: &DutyToken) -> Finding {
    let (check, duty) = (checks(token.duty()).life, token.duty());
    let renewed = async {
        let mut connection = identity.connect(None).await.map_err(|error| error.to_string())?;
        connection.renew(token).await.map_err(|error| error.to_string())
    };
    match renewed.await.map(|life| life.as_secs() / DAY_SECONDS) {
        Ok(days) if days >= LIFE_MIN_DAYS => {
            let what =
                format!("the token was renewed, and lives {days} days; the running custodian renews it each day");
            Finding::ok(check, what)
        }
        Ok(days) => {
            let what =
                format!("the token was renewed, and lives {days} days: it ends when no custodian runs for so long");
            Finding::warning(check, what, again(name, duty))
        }
        Err(why) => Finding::warning(check, format!("the token cannot be renewed: {why}"), again(name, duty)),
    }
}

fn again(name: &ClusterName, duty: &Duty) -> String {
    format!("make a token as {} says, then: {} --config FILE --cluster {name}", duty.prints_policy(), duty.command())
}
