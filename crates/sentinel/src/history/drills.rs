//! The drills in the history: each report that closed one, in the envelope that its conductor signed, so that anybody can verify it
//! for years. What each conductor told first stands: none can put its word in the place of another's.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_core::envelope::Envelope;
use holdfast_core::id::{ClusterId, DrillId, Principal};
use holdfast_core::message::{Body, Content, DrillReport, DrillResult};
use holdfast_core::status::DrillStatus;
use holdfast_core::time::Timestamp;
use holdfast_core::watch::DRILLS_KEPT;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};
use serde::Serialize;

use super::{BUSY_DEADLINE, OpenError};

/// Drills that are kept of each conductor of a cluster, of those that the sentinel saw with its own eyes: a dozen years of one each day.
/// Nobody makes them up, so that a captured conductor pushes out no evidence, not even what it gave when it was none.
const DRILLS_MAX: i64 = 5_000;

/// Those that were refused, and apart from them those of which the sentinel saw nothing: so many of each conductor.
const UNSEEN_MAX: i64 = 1_000;

/// The most that are listed at once.
pub(crate) const LIST_MAX: u32 = 100;

/// Drills that a start looks at beyond the latest, for when each node's last recovery was: there are no more nodes.
const NODES_MAX: i64 = 64;

/// What version 5 brought. `seq` is the order in which they were heard.
pub(super) const TABLE: &str = "
    CREATE TABLE drills (
        seq INTEGER PRIMARY KEY, cluster TEXT NOT NULL, drill TEXT NOT NULL, conductor TEXT NOT NULL, node TEXT,
        result TEXT NOT NULL, recovery_us INTEGER, heard_at INTEGER NOT NULL, envelope TEXT NOT NULL,
        UNIQUE (cluster, drill)
    ) STRICT;
    CREATE INDEX drills_of_conductors ON drills (cluster, conductor, seq);";

/// What version 6 brought: each conductor's word is kept beside those of others. What was kept before counts as seen, as it did.
/// And reports of drills are here alone.
pub(super) const BY_CONDUCTOR: &str = "
    CREATE TABLE drills_by_conductor (
        seq INTEGER PRIMARY KEY, cluster TEXT NOT NULL, drill TEXT NOT NULL, conductor TEXT NOT NULL, begun_by TEXT, node TEXT,
        result TEXT NOT NULL, seen INTEGER NOT NULL DEFAULT 0, recovery_us INTEGER, heard_at INTEGER NOT NULL, envelope TEXT NOT NULL,
        UNIQUE (cluster, drill, conductor)
    ) STRICT;
    INSERT INTO drills_by_conductor
        SELECT seq, cluster, drill, conductor, NULL, node, result, result <> 'refused', recovery_us, heard_at, envelope FROM drills;
    DROP TABLE drills;
    ALTER TABLE drills_by_conductor RENAME TO drills;
    CREATE INDEX drills_of_conductors ON drills (cluster, conductor, seq);
    DELETE FROM reports WHERE kind = 'drill-report';";

/// What is read of a drill.
const COLUMNS: &str = "cluster, heard_at, begun_by, seen, envelope";

/// No word of who took a drill over, where its own conductor told of its end.
const STANDS: &str = "(begun_by IS NULL OR NOT EXISTS (
    SELECT 1 FROM drills AS own WHERE own.cluster = drills.cluster AND own.drill = drills.drill AND own.begun_by IS NULL))";

/// A drill as it is kept, with its evidence.
#[derive(Debug, Serialize)]
pub(crate) struct Kept {
    /// The cluster.
    cluster: ClusterId,
    /// Who signed the report.
    conductor: Principal,
    /// When it was signed.
    issued_at: Timestamp,
    /// When it was heard.
    heard_at: Timestamp,
    /// Who began it, where it was another one whose drill was taken over.
    begun_by: Option<Principal>,
    /// Whether the sentinel's own eyes agreed.
    seen: bool,
    /// What it says. Whoever needs to be sure reads the envelope.
    report: Box<DrillReport>,
    /// The report as it was signed.
    envelope: String,
}

/// The drills of the history, to be looked up by whoever asks.
#[derive(Debug, Clone)]
pub(crate) struct Archive(Arc<Mutex<Connection>>);

impl Archive {
    /// Opens the database for reading. It is there, with its tables.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(path, flags)?;
        database.busy_timeout(BUSY_DEADLINE)?;
        Ok(Self(Arc::new(Mutex::new(database))))
    }

    /// The latest drills of a cluster, the newest first. Waits for the disk.
    pub(crate) fn list(&self, cluster: ClusterId, limit: u32) -> rusqlite::Result<Vec<Kept>> {
        let database = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut select = database.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM drills WHERE cluster = ?1 AND {STANDS} ORDER BY seq DESC LIMIT ?2"
        ))?;
        let rows = select.query_map(params![cluster.to_string(), limit], read)?;
        Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// One drill of a cluster. Waits for the disk.
    pub(crate) fn one(&self, cluster: ClusterId, drill: DrillId) -> rusqlite::Result<Option<Kept>> {
        let database = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut select = database.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM drills WHERE cluster = ?1 AND drill = ?2 AND {STANDS} ORDER BY seq LIMIT 1"
        ))?;
        let kept = select.query_row(params![cluster.to_string(), drill.to_string()], read).optional()?;
        Ok(kept.flatten())
    }
}

/// What a start has to know of a cluster's drills, the oldest first: the latest, the last that passed, and each node's last recovery.
pub(super) fn known(database: &Connection, cluster: ClusterId) -> Result<Vec<DrillStatus>, OpenError> {
    let mut select = database.prepare(&format!(
        "SELECT {COLUMNS} FROM drills WHERE seq IN (
             SELECT seq FROM (SELECT seq FROM drills WHERE cluster = ?1 AND {STANDS} ORDER BY seq DESC LIMIT ?2)
             UNION SELECT max(seq) FROM drills WHERE cluster = ?1 AND result = ?3 AND seen
             UNION SELECT seq FROM (SELECT max(seq) AS seq FROM drills
                                    WHERE cluster = ?1 AND recovery_us IS NOT NULL AND (seen OR result <> ?3)
                                    GROUP BY node ORDER BY seq DESC LIMIT ?4)
         ) ORDER BY seq"
    ))?;
    let latest = i64::try_from(DRILLS_KEPT).unwrap_or(i64::MAX);
    let of = params![cluster.to_string(), latest, DrillResult::Passed.as_str(), NODES_MAX];
    let rows = select.query_map(of, read)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let known = |Kept { conductor, issued_at, heard_at, begun_by, seen, report, .. }| {
        let report = *report;
        DrillStatus { conductor, issued_at, heard_at, begun_by, seen, report }
    };
    Ok(rows.into_iter().flatten().map(known).collect())
}

/// Keeps what a conductor told of a drill that is over. What it told already stays as it is.
pub(super) fn write(
    database: &Connection,
    cluster: ClusterId,
    drill: &DrillStatus,
    envelope: &str,
) -> rusqlite::Result<()> {
    let mut insert = database.prepare_cached(
        "INSERT OR IGNORE INTO drills (cluster, drill, conductor, begun_by, node, result, seen, recovery_us, heard_at, envelope)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    let DrillStatus { conductor, heard_at, begun_by, seen, report, .. } = drill;
    insert.execute(params![
        cluster.to_string(),
        report.drill.to_string(),
        conductor.as_str(),
        begun_by.as_ref().map(Principal::as_str),
        report.node.as_ref().map(|node| node.as_str()),
        report.result.map_or("", DrillResult::as_str),
        seen,
        report.recovery_us.map(|us| i64::try_from(us).unwrap_or(i64::MAX)),
        heard_at.as_millis(),
        envelope
    ])?;
    Ok(())
}

/// The sentinel saw what this conductor told of this drill.
pub(super) fn mark_seen(
    database: &Connection,
    cluster: ClusterId,
    drill: DrillId,
    conductor: &Principal,
) -> rusqlite::Result<()> {
    let mut update =
        database.prepare_cached("UPDATE drills SET seen = 1 WHERE cluster = ?1 AND drill = ?2 AND conductor = ?3")?;
    update.execute(params![cluster.to_string(), drill.to_string(), conductor.as_str()])?;
    Ok(())
}

/// Deletes the oldest of each conductor beyond what is kept.
pub(super) fn prune(database: &Connection) -> rusqlite::Result<()> {
    database.execute(
        "DELETE FROM drills WHERE seq IN (SELECT seq FROM (
             SELECT seq, seen, row_number() OVER (PARTITION BY cluster, conductor, seen, result = ?3 ORDER BY seq DESC) AS age
             FROM drills
         ) WHERE age > iif(seen, ?1, ?2))",
        params![DRILLS_MAX, UNSEEN_MAX, DrillResult::Refused.as_str()],
    )?;
    Ok(())
}

/// A row of [`COLUMNS`]. One that cannot be read is left out.
fn read(row: &Row<'_>) -> rusqlite::Result<Option<Kept>> {
    let (cluster, heard_at, envelope): (String, i64, String) = (row.get(0)?, row.get(1)?, row.get(4)?);
    let (begun_by, seen): (Option<String>, bool) = (row.get(2)?, row.get(3)?);
    let signed = Envelope::parse(envelope.as_bytes()).ok();
    let body = signed.and_then(|signed| Body::parse(signed.body()).ok());
    Ok(body.zip(cluster.parse().ok()).and_then(|(Body { header, content }, cluster)| match content {
        Content::DrillReport(report) => Some(Kept {
            cluster,
            conductor: header.from,
            issued_at: header.issued_at,
            heard_at: Timestamp::from_millis(heard_at),
            begun_by: begun_by.and_then(|name| name.parse().ok()),
            seen,
            report,
            envelope,
        }),
        _ => None,
    }))
}

#[cfg(test)]
mod tests {
    use holdfast_core::id::{MessageId, SlotId};
    use holdfast_core::message::Phase;
    use holdfast_core::watch::Record;
    use holdfast_edge::keys::SigningKey;
    use holdfast_edge::outgoing::seal_message;

    use super::super::{History, open, write_batch};
    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);

    fn drill(key: &SigningKey, number: u32, conductor: &str, node: &str, result: DrillResult) -> Record {
        let at = Timestamp::from_millis(number.into());
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let report = DrillReport {
            drill: DrillId::from_bytes(id),
            slot: SlotId::of_time(at),
            node: node.parse().ok(),
            ordered_by: None,
            reason: None,
            people: false,
            phase: Phase::Closed,
            result: Some(result),
            why: None,
            began_at: at,
            announced_at: None,
            seal_sent_at: None,
            sealed_at: None,
            opened_at: None,
            served_at: None,
            closed_at: Some(at),
            recovery_us: (result == DrillResult::Passed).then_some(number.into()),
            objective_ms: 30_000,
            before: None,
            after: None,
            threshold: 3,
            submitters: Vec::new(),
            taken_by: Vec::new(),
            declined: [].into(),
            responses: [].into(),
            approvals: [].into(),
            canary: None,
            intent: Some(MessageId::from_bytes(id)),
        };
        let conductor: Principal = conductor.parse().expect("a name");
        let content = Content::DrillReport(Box::new(report.clone()));
        let (_, envelope) = seal_message(key, &conductor, CLUSTER, content, at, None).expect("signed");
        let seen = result == DrillResult::Passed;
        let drill = DrillStatus { conductor, issued_at: at, heard_at: at, begun_by: None, seen, report };
        Record::Drill(CLUSTER, Box::new(drill), String::from_utf8(envelope).expect("text"))
    }

    fn numbers(drills: &[DrillStatus]) -> Vec<i64> {
        drills.iter().map(|drill| drill.issued_at.as_millis()).collect()
    }

    #[test]
    fn what_was_signed_is_kept_to_the_byte_and_the_first_word_stands() {
        let (folder, key) = (tempfile::tempdir().expect("a folder"), SigningKey::generate().expect("random numbers"));
        let path = folder.path().join("history.db");
        let (history, _) = History::open(Some(&path), &[CLUSTER]);
        let first = drill(&key, 1, "custodian-1", "vault-1", DrillResult::Passed);
        let Record::Drill(_, _, envelope) = &first else { panic!("a drill") };
        let envelope = envelope.clone();
        history.write(first);
        history.write(drill(&key, 1, "custodian-1", "vault-1", DrillResult::Failed));
        history.write(drill(&key, 2, "custodian-2", "vault-2", DrillResult::Failed));
        history.close();
        let (history, known) = History::open(Some(&path), &[CLUSTER, ClusterId::from_bytes([2; 16])]);
        assert_eq!((numbers(&known[0].drills), known[1].drills.len()), (vec![1, 2], 0));
        let archive = history.archive().expect("a database");
        let listed = archive.list(CLUSTER, LIST_MAX).expect("listed");
        let conductors: Vec<_> = listed.iter().map(|kept| kept.conductor.as_str()).collect();
        assert_eq!(conductors, ["custodian-2", "custodian-1"], "the newest first");
        assert_eq!(archive.list(CLUSTER, 1).expect("listed").len(), 1);
        let one = archive.one(CLUSTER, listed[1].report.drill).expect("asked").expect("there");
        assert_eq!((one.envelope, one.report.result), (envelope, Some(DrillResult::Passed)));
        assert!(archive.one(ClusterId::from_bytes([2; 16]), listed[1].report.drill).expect("asked").is_none());
        history.close();
    }

    #[test]
    fn the_word_of_who_took_a_drill_over_is_kept_and_gives_way_to_that_of_its_own_conductor() {
        let (folder, key) = (tempfile::tempdir().expect("a folder"), SigningKey::generate().expect("random numbers"));
        let path = folder.path().join("history.db");
        let mut database = open(&path).expect("new");
        let told = |number, conductor, result| drill(&key, number, conductor, "vault-1", result);
        let mut taken_over = told(1, "custodian-2", DrillResult::Failed);
        let Record::Drill(_, captured, _) = &mut taken_over else { panic!("a drill") };
        captured.begun_by = "custodian-1".parse().ok();
        let id = captured.report.drill;
        write_batch(&mut database, &[taken_over]).expect("written");
        let (archive, ends) = (Archive::open(&path).expect("there"), |database: &Connection| {
            let known = known(database, CLUSTER).expect("known");
            known.into_iter().map(|drill| (drill.conductor.to_string(), drill.begun_by.is_some())).collect::<Vec<_>>()
        });
        assert_eq!(ends(&database), [("custodian-2".to_owned(), true)]);
        let Record::Drill(_, mut own, envelope) = told(1, "custodian-1", DrillResult::Passed) else {
            panic!("a drill")
        };
        own.seen = false;
        let conductor = own.conductor.clone();
        write_batch(&mut database, &[Record::Drill(CLUSTER, own, envelope)]).expect("written");
        assert_eq!(ends(&database), [("custodian-1".to_owned(), false)]);
        let one = || archive.one(CLUSTER, id).expect("asked").expect("there");
        assert!(!one().seen && one().conductor == conductor);
        write_batch(&mut database, &[Record::DrillSeen(CLUSTER, id, conductor)]).expect("written");
        assert!(one().seen);
        let listed = archive.list(CLUSTER, LIST_MAX).expect("listed");
        assert_eq!((listed.len(), listed[0].report.result), (1, Some(DrillResult::Passed)));
        let kept: i64 = database.query_row("SELECT count(*) FROM drills", [], |row| row.get(0)).expect("counted");
        assert_eq!(kept, 2, "both are evidence");
    }

    #[test]
    fn drills_of_the_version_before_are_taken_over_as_they_are() {
        let (folder, key) = (tempfile::tempdir().expect("a folder"), SigningKey::generate().expect("random numbers"));
        let path = folder.path().join("history.db");
        let database = Connection::open(&path).expect("new");
        let before: String = super::super::VERSIONS[..5].concat();
        database.execute_batch(&format!("{before} PRAGMA user_version = 5;")).expect("as it was");
        for (number, result) in [(1, DrillResult::Passed), (2, DrillResult::Refused)] {
            let Record::Drill(_, drill, envelope) = drill(&key, number, "custodian-1", "vault-1", result) else {
                panic!("a drill")
            };
            let insert = "INSERT INTO drills (cluster, drill, conductor, node, result, recovery_us, heard_at, envelope)
                          VALUES (?1, ?2, 'custodian-1', 'vault-1', ?3, NULL, 1, ?4)";
            let row = params![CLUSTER.to_string(), drill.report.drill.to_string(), result.as_str(), envelope];
            database.execute(insert, row).expect("written");
        }
        drop(database);
        let known = known(&open(&path).expect("taken over"), CLUSTER).expect("known");
        assert_eq!(known.iter().map(|drill| drill.seen).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn a_start_knows_the_last_that_passed_and_each_nodes_last_recovery_however_long_ago() {
        let (folder, key) = (tempfile::tempdir().expect("a folder"), SigningKey::generate().expect("random numbers"));
        let path = folder.path().join("history.db");
        let mut database = open(&path).expect("new");
        let mut records = vec![
            drill(&key, 1, "custodian-1", "vault-1", DrillResult::Passed),
            drill(&key, 2, "custodian-1", "vault-2", DrillResult::Passed),
            drill(&key, 3, "custodian-1", "vault-2", DrillResult::Passed),
        ];
        records.extend((4..60).map(|i| drill(&key, i, "custodian-1", "vault-1", DrillResult::Refused)));
        write_batch(&mut database, &records).expect("written");
        let known = numbers(&known(&database, CLUSTER).expect("known"));
        assert_eq!((&known[..3], known.len(), known.last()), (&[1, 3, 28][..], DRILLS_KEPT + 2, Some(&59)));
    }

    #[test]
    fn a_flood_pushes_out_no_other_conductors_drills_and_none_that_was_seen() {
        let (folder, key) = (tempfile::tempdir().expect("a folder"), SigningKey::generate().expect("random numbers"));
        let mut database = open(&folder.path().join("history.db")).expect("new");
        let evidence = drill(&key, 0, "custodian-1", "vault-1", DrillResult::Failed);
        let seen = drill(&key, 0, "custodian-2", "vault-1", DrillResult::Passed);
        let failed = drill(&key, 1, "custodian-2", "vault-1", DrillResult::Failed);
        write_batch(&mut database, &[evidence, seen, failed]).expect("written");
        let Record::Drill(_, made_up, envelope) = drill(&key, 2, "custodian-2", "vault-1", DrillResult::Refused) else {
            panic!("a drill")
        };
        let most = u32::try_from(DRILLS_MAX).expect("small");
        let transaction = database.transaction().expect("begun");
        for number in 2..most + 50 {
            let mut next = made_up.clone();
            next.report.drill = DrillId::from_bytes(u128::from(number).to_be_bytes());
            write(&transaction, CLUSTER, &next, &envelope).expect("written");
        }
        transaction.commit().expect("committed");
        prune(&database).expect("pruned");
        let count = |conductor: &str, result: &str| -> i64 {
            let counted = "SELECT count(*) FROM drills WHERE conductor = ?1 AND result = ?2";
            database.query_row(counted, [conductor, result], |row| row.get(0)).expect("counted")
        };
        assert_eq!((count("custodian-1", "failed"), count("custodian-2", "refused")), (1, UNSEEN_MAX));
        assert_eq!((count("custodian-2", "passed"), count("custodian-2", "failed")), (1, 1));
    }
}
