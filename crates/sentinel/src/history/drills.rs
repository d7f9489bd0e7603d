//! The drills in the history: each report that closed one, in the envelope that its conductor signed, so that anybody can verify it
//! for years. What was kept first stands.

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

/// Drills that are kept of each conductor of a cluster: a dozen years of one each day. One that makes some up pushes out nobody's
/// but its own.
const DRILLS_MAX: i64 = 5_000;

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
        let mut select = database.prepare_cached(
            "SELECT cluster, heard_at, envelope FROM drills WHERE cluster = ?1 ORDER BY seq DESC LIMIT ?2",
        )?;
        let rows = select.query_map(params![cluster.to_string(), limit], read)?;
        Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// One drill of a cluster. Waits for the disk.
    pub(crate) fn one(&self, cluster: ClusterId, drill: DrillId) -> rusqlite::Result<Option<Kept>> {
        let database = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut select = database
            .prepare_cached("SELECT cluster, heard_at, envelope FROM drills WHERE cluster = ?1 AND drill = ?2")?;
        let kept = select.query_row(params![cluster.to_string(), drill.to_string()], read).optional()?;
        Ok(kept.flatten())
    }
}

/// What a start has to know of a cluster's drills, the oldest first: the latest, the last that passed, and each node's last recovery.
pub(super) fn known(database: &Connection, cluster: ClusterId) -> Result<Vec<DrillStatus>, OpenError> {
    let mut select = database.prepare(
        "SELECT cluster, heard_at, envelope FROM drills WHERE seq IN (
             SELECT seq FROM (SELECT seq FROM drills WHERE cluster = ?1 ORDER BY seq DESC LIMIT ?2)
             UNION SELECT max(seq) FROM drills WHERE cluster = ?1 AND result = ?3
             UNION SELECT seq FROM (SELECT max(seq) AS seq FROM drills WHERE cluster = ?1 AND recovery_us IS NOT NULL
                                    GROUP BY node ORDER BY seq DESC LIMIT ?4)
         ) ORDER BY seq",
    )?;
    let latest = i64::try_from(DRILLS_KEPT).unwrap_or(i64::MAX);
    let of = params![cluster.to_string(), latest, DrillResult::Passed.as_str(), NODES_MAX];
    let rows = select.query_map(of, read)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let known = rows.into_iter().flatten().map(|Kept { conductor, issued_at, heard_at, report, .. }| DrillStatus {
        conductor,
        issued_at,
        heard_at,
        report: *report,
    });
    Ok(known.collect())
}

/// Keeps a drill that is over. One that is kept already stays as it is.
pub(super) fn write(
    database: &Connection,
    cluster: ClusterId,
    drill: &DrillStatus,
    envelope: &str,
) -> rusqlite::Result<()> {
    let mut insert = database.prepare_cached(
        "INSERT OR IGNORE INTO drills (cluster, drill, conductor, node, result, recovery_us, heard_at, envelope)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    let DrillStatus { conductor, heard_at, report, .. } = drill;
    insert.execute(params![
        cluster.to_string(),
        report.drill.to_string(),
        conductor.as_str(),
        report.node.as_ref().map(|node| node.as_str()),
        report.result.map_or("", DrillResult::as_str),
        report.recovery_us.map(|us| i64::try_from(us).unwrap_or(i64::MAX)),
        heard_at.as_millis(),
        envelope
    ])?;
    Ok(())
}

/// Deletes the oldest of each conductor beyond what is kept.
pub(super) fn prune(database: &Connection) -> rusqlite::Result<()> {
    database.execute(
        "DELETE FROM drills WHERE seq IN (SELECT seq FROM (
             SELECT seq, row_number() OVER (PARTITION BY cluster, conductor ORDER BY seq DESC) AS age FROM drills
         ) WHERE age > ?1)",
        [DRILLS_MAX],
    )?;
    Ok(())
}

/// A row of cluster, time and envelope. One that cannot be read is left out.
fn read(row: &Row<'_>) -> rusqlite::Result<Option<Kept>> {
    let (cluster, heard_at, envelope): (String, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let signed = Envelope::parse(envelope.as_bytes()).ok();
    let body = signed.and_then(|signed| Body::parse(signed.body()).ok());
    Ok(body.zip(cluster.parse().ok()).and_then(|(Body { header, content }, cluster)| match content {
        Content::DrillReport(report) => Some(Kept {
            cluster,
            conductor: header.from,
            issued_at: header.issued_at,
            heard_at: Timestamp::from_millis(heard_at),
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
        let drill = DrillStatus { conductor, issued_at: at, heard_at: at, report };
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
        history.write(drill(&key, 1, "custodian-2", "vault-1", DrillResult::Failed));
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
    fn a_flood_pushes_out_no_other_conductors_drills() {
        let (folder, key) = (tempfile::tempdir().expect("a folder"), SigningKey::generate().expect("random numbers"));
        let mut database = open(&folder.path().join("history.db")).expect("new");
        let evidence = drill(&key, 0, "custodian-1", "vault-1", DrillResult::Failed);
        write_batch(&mut database, &[evidence]).expect("written");
        let Record::Drill(_, made_up, envelope) = drill(&key, 1, "custodian-2", "vault-1", DrillResult::Passed) else {
            panic!("a drill")
        };
        let most = u32::try_from(DRILLS_MAX).expect("small");
        let transaction = database.transaction().expect("begun");
        for number in 1..most + 50 {
            let mut next = made_up.clone();
            next.report.drill = DrillId::from_bytes(u128::from(number).to_be_bytes());
            write(&transaction, CLUSTER, &next, &envelope).expect("written");
        }
        transaction.commit().expect("committed");
        prune(&database).expect("pruned");
        let count = |conductor: &str| -> i64 {
            let counted = "SELECT count(*) FROM drills WHERE conductor = ?1";
            database.query_row(counted, [conductor], |row| row.get(0)).expect("counted")
        };
        assert_eq!((count("custodian-1"), count("custodian-2")), (1, DRILLS_MAX));
    }
}
