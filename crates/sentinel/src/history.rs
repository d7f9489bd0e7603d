//! The history: incidents, drills, receipts and refusals, each custodian's last heartbeat, its share's last proof and where its audit log
//! stood, in SQLite; and the trust root that operators put in the place of the configured one.
//!
//! It is for people, and nothing depends on it (a trust root that is lost is asked for again): a database that cannot be used is moved aside or done without, loudly. It is
//! written by a thread of its own, because a disk can take its time and a sentinel cannot.

mod drills;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use holdfast_core::id::{ClusterId, Principal};
use holdfast_core::message::{Body, Content};
use holdfast_core::status::{AuditWitness, DrillStatus, IncidentStatus, ShareProof};
use holdfast_core::time::Timestamp;
use holdfast_core::watch::{INCIDENTS_KEPT, Record, TrustRoot};
use rusqlite::{Connection, OpenFlags, params};
use serde::de::DeserializeOwned;

pub(crate) use drills::{Archive, Kept, LIST_MAX};

/// Records that may wait for the disk: a minute of a large network. Beyond it they are dropped, and that is told.
const RECORDS_MAX: usize = 4096;

/// Records that are written in one transaction.
const BATCH_MAX: usize = 256;

/// Incidents that are kept in the database.
const INCIDENTS_MAX: i64 = 10_000;

/// Receipts, refusals and sightings that are kept in the database.
const REPORTS_MAX: i64 = 50_000;

/// How many of them are one sender's: none pushes out more than a tenth of what others told.
const REPORTS_OF_ONE_MAX: i64 = 5_000;

/// After how many records the oldest beyond these numbers are deleted.
const PRUNE_EVERY: usize = 1_000;

/// How long another process may keep the database locked, such as somebody who looks into it.
const BUSY_DEADLINE: Duration = Duration::from_secs(5);

/// How long the end of the process waits for the last records.
const CLOSE_DEADLINE: Duration = Duration::from_millis(400);

/// How long nothing is written after a failure: a full disk fails every record, and not each is worth a line in the log.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// The version of the tables, in `user_version`: how many of [`VERSIONS`] are in it.
const SCHEMA: i64 = VERSIONS.len() as i64;

const TABLES: &str = "
    CREATE TABLE incidents (
        cluster TEXT NOT NULL, node TEXT NOT NULL, began_at INTEGER NOT NULL, content TEXT NOT NULL,
        PRIMARY KEY (cluster, node, began_at)
    ) STRICT;
    CREATE TABLE heartbeats (
        cluster TEXT NOT NULL, custodian TEXT NOT NULL, issued_at INTEGER NOT NULL, heard_at INTEGER NOT NULL,
        content TEXT NOT NULL, PRIMARY KEY (cluster, custodian)
    ) STRICT;
    CREATE TABLE reports (
        id TEXT NOT NULL PRIMARY KEY, cluster TEXT NOT NULL, kind TEXT NOT NULL, custodian TEXT NOT NULL,
        issued_at INTEGER NOT NULL, heard_at INTEGER NOT NULL, content TEXT NOT NULL
    ) STRICT;";

/// What version 2 brought.
const PROOFS: &str = "
    CREATE TABLE proofs (
        cluster TEXT NOT NULL, custodian TEXT NOT NULL, content TEXT NOT NULL, PRIMARY KEY (cluster, custodian)
    ) STRICT;";

/// What version 3 brought.
const AUDITS: &str = "
    CREATE TABLE audits (
        cluster TEXT NOT NULL, custodian TEXT NOT NULL, content TEXT NOT NULL, PRIMARY KEY (cluster, custodian)
    ) STRICT;";

/// What version 4 brought.
const TRUST_ROOTS: &str = "
    CREATE TABLE trust_roots (cluster TEXT NOT NULL PRIMARY KEY, content TEXT NOT NULL) STRICT;";

/// What each version brought, the first first.
const VERSIONS: [&str; 6] = [TABLES, PROOFS, AUDITS, TRUST_ROOTS, drills::TABLE, drills::BY_CONDUCTOR];

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    /// It is damaged, or no database at all.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// A newer sentinel wrote it.
    #[error(
        "the database is of version {0}, and this sentinel knows version {SCHEMA}: use the newer one, or name another file"
    )]
    Newer(i64),
    /// Somebody else's database.
    #[error("the database holds tables that no sentinel made: name another file")]
    Foreign,
    /// It cannot be opened or set up.
    #[error("the database cannot be used: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// What the history knows of a cluster.
#[derive(Debug)]
pub(crate) struct Known {
    /// The cluster.
    pub(crate) cluster: ClusterId,
    /// The latest incidents, the oldest first.
    pub(crate) incidents: Vec<IncidentStatus>,
    /// When the custodians' shares were last proven.
    pub(crate) proofs: BTreeMap<Principal, ShareProof>,
    /// The trust root that operators put in the place of the configured one.
    pub(crate) trust_root: Option<TrustRoot>,
    /// Where the custodians' audit logs stood.
    pub(crate) audits: BTreeMap<Principal, AuditWitness>,
    /// The drills that have to be known, the oldest first.
    pub(crate) drills: Vec<DrillStatus>,
}

/// The history, being written.
#[derive(Debug)]
pub(crate) struct History {
    records: Option<SyncSender<Record>>,
    trouble: Trouble,
    writer: Option<Writer>,
    archive: Option<Archive>,
}

/// The thread that writes.
#[derive(Debug)]
struct Writer {
    thread: Thread,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

/// Why the history is not being written, if it is not. Shared with the thread that writes it.
type Trouble = Arc<Mutex<Option<String>>>;

fn set(trouble: &Trouble, why: Option<String>) {
    *trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
}

impl History {
    /// Opens the database and fetches what it knows of each cluster. Never fails: without a database there is no history, and
    /// [`History::trouble`] says why.
    pub(crate) fn open(path: Option<&Path>, clusters: &[ClusterId]) -> (Self, Vec<Known>) {
        let trouble = Trouble::default();
        let Some(path) = path else { return (Self::none(trouble), Vec::new()) };
        let opened = open_or_move_aside(path).and_then(|database| {
            let known = |id: &ClusterId| {
                let incidents = incidents(&database, *id)?;
                let (proofs, audits) =
                    (by_custodian(&database, "proofs", *id)?, by_custodian(&database, "audits", *id)?);
                let (trust_root, drills) = (trust_root(&database, *id)?, drills::known(&database, *id)?);
                Ok(Known { cluster: *id, incidents, proofs, audits, trust_root, drills })
            };
            let known = clusters.iter().map(known).collect::<Result<_, OpenError>>()?;
            Ok((database, Archive::open(path)?, known))
        });
        match opened {
            Ok((database, archive, known)) => {
                let (records, waiting) = sync_channel(RECORDS_MAX);
                let shared = Arc::clone(&trouble);
                let (ending, ended) = sync_channel(0);
                let thread = std::thread::Builder::new().name("history".to_owned()).spawn(move || {
                    write_all(database, &waiting, &shared);
                    drop(ending);
                });
                let writer = thread
                    .map(|handle| Writer { thread: handle.thread().clone(), ended })
                    .inspect_err(|error| {
                        tracing::error!(%error, "no history is kept: no thread for it");
                        set(&trouble, Some(error.to_string()));
                    })
                    .ok();
                let records = writer.is_some().then_some(records);
                (Self { records, trouble, writer, archive: Some(archive) }, known)
            }
            Err(error) => {
                tracing::error!(database = %path.display(), %error, "no history is kept");
                set(&trouble, Some(error.to_string()));
                (Self::none(trouble), Vec::new())
            }
        }
    }

    fn none(trouble: Trouble) -> Self {
        Self { records: None, trouble, writer: None, archive: None }
    }

    /// Where drills can be looked up; none without a database.
    pub(crate) fn archive(&self) -> Option<Archive> {
        self.archive.clone()
    }

    /// Has a record written, soon. Never waits.
    pub(crate) fn write(&self, record: Record) {
        let Some(records) = &self.records else { return };
        if let Err(TrySendError::Full(_)) = records.try_send(record) {
            set(&self.trouble, Some("the disk is too slow: records were dropped".to_owned()));
        }
    }

    /// Why the history is not being written, if it is not.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes what waits, and closes the database.
    pub(crate) fn close(mut self) {
        self.records = None;
        let Some(Writer { thread, ended }) = self.writer.take() else { return };
        // It may be pausing after a failure.
        thread.unpark();
        if ended.recv_timeout(CLOSE_DEADLINE) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the history was not written to its end: the disk is too slow");
        }
    }
}

/// Opens the database. One that is damaged is moved aside, and a new one begun.
fn open_or_move_aside(path: &Path) -> Result<Connection, OpenError> {
    match open(path) {
        Err(OpenError::Damaged(why)) => {
            let aside =
                move_aside(path).map_err(|error| OpenError::Damaged(format!("{why}; and not moved aside: {error}")))?;
            tracing::error!(
                database = %path.display(),
                aside = %aside.display(),
                why,
                "the database is damaged: it was moved aside, and the history begins anew"
            );
            open(path)
        }
        opened => opened,
    }
}

fn open(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(path, flags)?;
    set_up(&database).map_err(|error| match error {
        OpenError::Sqlite(rusqlite::Error::SqliteFailure(failure, why))
            if matches!(failure.code, rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) =>
        {
            OpenError::Damaged(why.unwrap_or_else(|| failure.to_string()))
        }
        other => other,
    })?;
    Ok(database)
}

fn set_up(database: &Connection) -> Result<(), OpenError> {
    database.busy_timeout(BUSY_DEADLINE)?;
    let found: String = database.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(OpenError::Damaged(found));
    }
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "NORMAL")?;
    let version: i64 = database.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match version {
        SCHEMA => return Ok(()),
        0 => {
            let tables: i64 = database.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            if tables > 0 {
                return Err(OpenError::Foreign);
            }
        }
        1..SCHEMA => {}
        newer => return Err(OpenError::Newer(newer)),
    }
    let missing: String = VERSIONS.into_iter().skip(usize::try_from(version).unwrap_or(usize::MAX)).collect();
    Ok(database.execute_batch(&format!("BEGIN; {missing} PRAGMA user_version = {SCHEMA}; COMMIT;"))?)
}

/// Renames the database and what belongs to it. Returns its new name.
fn move_aside(path: &Path) -> std::io::Result<PathBuf> {
    let seconds = holdfast_edge::clock::wall().as_millis() / 1000;
    let renamed = |suffix: &str| {
        let mut from = path.as_os_str().to_owned();
        from.push(suffix);
        let mut to = path.as_os_str().to_owned();
        to.push(format!(".damaged-{seconds}{suffix}"));
        (PathBuf::from(from), PathBuf::from(to))
    };
    for suffix in ["-wal", "-shm"] {
        let (from, to) = renamed(suffix);
        match std::fs::rename(from, to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let (from, to) = renamed("");
    std::fs::rename(from, &to)?;
    Ok(to)
}

/// The latest incidents of a cluster, the oldest first. One that cannot be read is left out.
fn incidents(database: &Connection, cluster: ClusterId) -> Result<Vec<IncidentStatus>, OpenError> {
    let mut select =
        database.prepare("SELECT content FROM incidents WHERE cluster = ?1 ORDER BY began_at DESC LIMIT ?2")?;
    let latest = i64::try_from(INCIDENTS_KEPT).unwrap_or(i64::MAX);
    let rows = select.query_map(params![cluster.to_string(), latest], |row| row.get::<_, String>(0))?;
    let mut known = Vec::new();
    for content in rows {
        known.extend(serde_json::from_str::<IncidentStatus>(&content?).ok());
    }
    known.reverse();
    Ok(known)
}

/// What a table has of each of a cluster's custodians. A row that cannot be read is left out.
fn by_custodian<T: DeserializeOwned>(
    database: &Connection,
    table: &str,
    cluster: ClusterId,
) -> Result<BTreeMap<Principal, T>, OpenError> {
    let mut select = database.prepare(&format!("SELECT custodian, content FROM {table} WHERE cluster = ?1"))?;
    let rows =
        select.query_map([cluster.to_string()], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let mut known = BTreeMap::new();
    for row in rows {
        let (custodian, content) = row?;
        if let (Ok(custodian), Ok(content)) = (custodian.parse(), serde_json::from_str(&content)) {
            known.insert(custodian, content);
        }
    }
    Ok(known)
}

/// The trust root that is kept for a cluster. One that cannot be read is as good as none.
fn trust_root(database: &Connection, cluster: ClusterId) -> Result<Option<TrustRoot>, OpenError> {
    let mut select = database.prepare("SELECT content FROM trust_roots WHERE cluster = ?1")?;
    let mut rows = select.query_map([cluster.to_string()], |row| row.get::<_, String>(0))?;
    Ok(rows.next().transpose()?.and_then(|content| serde_json::from_str(&content).ok()))
}

fn write_all(mut database: Connection, waiting: &Receiver<Record>, trouble: &Trouble) {
    let mut since_pruned = 0;
    while let Ok(first) = waiting.recv() {
        let batch: Vec<_> = std::iter::once(first).chain(waiting.try_iter().take(BATCH_MAX - 1)).collect();
        since_pruned += batch.len();
        let written = write_batch(&mut database, &batch).and_then(|()| {
            if since_pruned < PRUNE_EVERY {
                return Ok(());
            }
            since_pruned = 0;
            prune(&database)
        });
        match written {
            Ok(()) => set(trouble, None),
            Err(error) => {
                tracing::error!(%error, records = batch.len(), "records could not be written into the history");
                set(trouble, Some(error.to_string()));
                std::thread::park_timeout(FAILURE_PAUSE);
            }
        }
    }
}

fn write_batch(database: &mut Connection, batch: &[Record]) -> rusqlite::Result<()> {
    let transaction = database.transaction()?;
    for record in batch {
        match record {
            Record::Incident(cluster, incident) => write_incident(&transaction, *cluster, incident)?,
            Record::Report(body, heard_at) => write_report(&transaction, body, *heard_at)?,
            Record::Proof(cluster, who, proof) => write_of(&transaction, "proofs", *cluster, who, &json(proof))?,
            Record::Audit(cluster, who, witness) => write_of(&transaction, "audits", *cluster, who, &json(witness))?,
            Record::Drill(cluster, drill, envelope) => drills::write(&transaction, *cluster, drill, envelope)?,
            Record::DrillSeen(cluster, drill, conductor) => {
                drills::mark_seen(&transaction, *cluster, *drill, conductor)?;
            }
            Record::TrustRoot(cluster, root) => write_trust_root(&transaction, *cluster, root.as_ref())?,
        }
    }
    transaction.commit()
}

fn write_incident(database: &Connection, cluster: ClusterId, incident: &IncidentStatus) -> rusqlite::Result<()> {
    let mut insert = database.prepare_cached("INSERT OR REPLACE INTO incidents VALUES (?1, ?2, ?3, ?4)")?;
    let began_at = incident.began_at.as_millis();
    insert.execute(params![cluster.to_string(), incident.node.as_str(), began_at, json(incident)])?;
    Ok(())
}

fn write_report(database: &Connection, body: &Body, heard_at: Timestamp) -> rusqlite::Result<()> {
    let Body { header, content } = body;
    let (cluster, from, issued_at) = (header.cluster.to_string(), &header.from, header.issued_at.as_millis());
    let said = match content {
        Content::Heartbeat(heartbeat) => {
            return write_heartbeat(database, (&cluster, from), issued_at, heard_at, json(heartbeat));
        }
        Content::Event(c) | Content::Sighting(c) => json(c),
        Content::Approval(c) => json(c),
        Content::Hold(c) => json(c),
        Content::Release(c) => json(c),
        Content::Distrust(c) => json(c),
        Content::Trust(c) => json(c),
        Content::Drill(c) => json(c),
        Content::Due(c) => json(c),
        Content::Intent(c) => json(c),
        // Those that close a drill are kept as they were signed, and the others say less.
        Content::DrillReport(_) => return Ok(()),
        Content::Acknowledgement(c) => json(c),
        Content::Want(c) | Content::Ask(c) => json(c),
        Content::Relay(c) => json(c),
        Content::Receipt(c) => json(c),
        Content::Refusal(c) => json(c),
    };
    let mut insert = database.prepare_cached("INSERT OR IGNORE INTO reports VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    let kind = header.kind.as_str();
    insert.execute(params![
        header.id.to_string(),
        cluster,
        kind,
        from.as_str(),
        issued_at,
        heard_at.as_millis(),
        said
    ])?;
    Ok(())
}

fn write_heartbeat(
    database: &Connection,
    (cluster, from): (&str, &Principal),
    issued_at: i64,
    heard_at: Timestamp,
    said: String,
) -> rusqlite::Result<()> {
    let mut insert = database.prepare_cached("INSERT OR REPLACE INTO heartbeats VALUES (?1, ?2, ?3, ?4, ?5)")?;
    insert.execute(params![cluster, from.as_str(), issued_at, heard_at.as_millis(), said])?;
    Ok(())
}

/// Writes what a table has of a custodian.
fn write_of(
    database: &Connection,
    table: &str,
    cluster: ClusterId,
    custodian: &Principal,
    content: &str,
) -> rusqlite::Result<()> {
    let mut insert = database.prepare_cached(&format!("INSERT OR REPLACE INTO {table} VALUES (?1, ?2, ?3)"))?;
    insert.execute(params![cluster.to_string(), custodian.as_str(), content])?;
    Ok(())
}

fn write_trust_root(database: &Connection, cluster: ClusterId, root: Option<&TrustRoot>) -> rusqlite::Result<()> {
    let cluster = cluster.to_string();
    match root {
        Some(root) => {
            database.execute("INSERT OR REPLACE INTO trust_roots VALUES (?1, ?2)", params![cluster, json(root)])?
        }
        None => database.execute("DELETE FROM trust_roots WHERE cluster = ?1", [cluster])?,
    };
    Ok(())
}

fn prune(database: &Connection) -> rusqlite::Result<()> {
    database.execute(
        "DELETE FROM incidents WHERE rowid NOT IN (SELECT rowid FROM incidents ORDER BY began_at DESC LIMIT ?1)",
        [INCIDENTS_MAX],
    )?;
    database.execute(
        "DELETE FROM reports WHERE rowid IN (SELECT rowid FROM (
             SELECT rowid, row_number() OVER (PARTITION BY custodian ORDER BY heard_at DESC) AS age FROM reports
         ) WHERE age > ?1)",
        [REPORTS_OF_ONE_MAX],
    )?;
    database.execute(
        "DELETE FROM reports WHERE rowid NOT IN (SELECT rowid FROM reports ORDER BY heard_at DESC LIMIT ?1)",
        [REPORTS_MAX],
    )?;
    drills::prune(database)
}

/// Names, numbers and texts always have a JSON form.
fn json(content: &impl serde::Serialize) -> String {
    serde_json::to_string(content).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use holdfast_core::id::{IncidentId, MessageId};
    use holdfast_core::message::{Header, Kind, Lock, Refusal};

    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);

    fn incident(began_at: i64, opened_at: Option<i64>) -> Record {
        let content = IncidentStatus {
            generation: None,
            node: "vault-1".parse().expect("a name"),
            began_at: Timestamp::from_millis(began_at),
            sealed_at: None,
            cause: None,
            told_cause: None,
            opened_at: opened_at.map(Timestamp::from_millis),
            open_after_ms: Some(1.25),
            drill: None,
            submissions: Vec::new(),
            refusals: Vec::new(),
        };
        Record::Incident(CLUSTER, content)
    }

    fn report(id: u8, issued_at: i64) -> Record {
        let header = Header {
            kind: Kind::Refusal,
            id: MessageId::from_bytes([id; 16]),
            cluster: CLUSTER,
            from: "custodian-1".parse().expect("a name"),
            issued_at: Timestamp::from_millis(issued_at),
            expires_at: None,
        };
        let content = Content::Refusal(Refusal {
            node: "vault-1".parse().expect("a name"),
            incident: IncidentId::from_bytes([1; 16]),
            cause: None,
            lock: Lock::Budget,
            why: "it is spent".to_owned(),
        });
        Record::Report(Box::new(Body { header, content }), Timestamp::from_millis(issued_at))
    }

    fn proof(at: i64) -> Record {
        let node = "vault-1".parse().expect("a name");
        let proof = ShareProof { at: Timestamp::from_millis(at), node, generation: 1 };
        Record::Proof(CLUSTER, "custodian-1".parse().expect("a name"), proof)
    }

    fn audit(seq: u64) -> Record {
        let witness = AuditWitness { seq, head: String::new(), issued_at: Timestamp::from_millis(1), doubt: None };
        Record::Audit(CLUSTER, "custodian-1".parse().expect("a name"), witness)
    }

    fn trust_root(version: u32) -> Record {
        let (configured_sha256, allowed_signers) = ("00".to_owned(), "a file\n".to_owned());
        Record::TrustRoot(CLUSTER, Some(TrustRoot { version, configured_sha256, allowed_signers }))
    }

    fn count(path: &Path, table: &str) -> i64 {
        let database = Connection::open(path).expect("opened");
        database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("counted")
    }

    #[test]
    fn what_was_written_is_there_again_and_the_last_word_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history.db");
        let (history, known) = History::open(Some(&path), &[CLUSTER]);
        assert!(known.iter().all(|known| known.incidents.is_empty() && known.proofs.is_empty()));
        for record in [incident(1, None), incident(2, None), incident(1, Some(3)), report(1, 5), report(1, 5)] {
            history.write(record);
        }
        for record in [proof(4), proof(7)] {
            history.write(record);
        }
        assert_eq!(history.trouble(), None);
        history.close();
        let (history, known) = History::open(Some(&path), &[CLUSTER, ClusterId::from_bytes([2; 16])]);
        let [ours, others] = known.as_slice() else { panic!("{known:?}") };
        let times: Vec<_> = ours.incidents.iter().map(|i| (i.began_at.as_millis(), i.opened_at.is_some())).collect();
        assert_eq!((times, others.incidents.len()), (vec![(1, true), (2, false)], 0));
        let proven: Vec<_> = ours.proofs.iter().map(|(who, proof)| (who.as_str(), proof.at.as_millis())).collect();
        assert_eq!((proven, others.proofs.len()), (vec![("custodian-1", 7)], 0));
        assert_eq!(count(&path, "reports"), 1, "heard twice, kept once");
        history.close();
    }

    #[test]
    fn a_database_of_the_version_before_is_taken_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history.db");
        let mut database = Connection::open(&path).expect("new");
        database.execute_batch(&format!("{TABLES} PRAGMA user_version = 1;")).expect("as it was");
        write_batch(&mut database, &[incident(1, Some(2))]).expect("written");
        drop(database);
        let (history, known) = History::open(Some(&path), &[CLUSTER]);
        assert_eq!((history.trouble(), known[0].incidents.len()), (None, 1));
        history.write(proof(3));
        history.write(audit(4));
        history.write(trust_root(1));
        history.close();
        let known = &History::open(Some(&path), &[CLUSTER]).1[0];
        assert_eq!((known.proofs.len(), known.audits.values().map(|audit| audit.seq).collect()), (1, vec![4]));
        assert_eq!(known.trust_root.as_ref().map(|root| root.version), Some(1));
    }

    #[test]
    fn the_trust_root_of_last_is_there_again_until_the_configured_one_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history.db");
        for (records, version) in [
            (vec![trust_root(1), trust_root(2)], Some(2)),
            (vec![trust_root(3), Record::TrustRoot(CLUSTER, None)], None),
            (vec![trust_root(4)], Some(4)),
        ] {
            let (history, _) = History::open(Some(&path), &[CLUSTER]);
            records.into_iter().for_each(|record| history.write(record));
            history.close();
            let (history, known) = History::open(Some(&path), &[CLUSTER, ClusterId::from_bytes([2; 16])]);
            assert_eq!(known[0].trust_root.as_ref().map(|root| root.version), version);
            assert_eq!(known[1].trust_root, None);
            history.close();
        }
    }

    #[test]
    fn the_oldest_go_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history.db");
        let mut database = open(&path).expect("new");
        let most = u16::try_from(INCIDENTS_MAX).expect("small");
        let records: Vec<_> = (0..most + 10).map(|i| incident(i.into(), Some(i.into()))).collect();
        write_batch(&mut database, &records).expect("written");
        prune(&database).expect("pruned");
        assert_eq!(count(&path, "incidents"), INCIDENTS_MAX);
        let oldest: i64 = database.query_row("SELECT min(began_at) FROM incidents", [], |row| row.get(0)).expect("one");
        assert_eq!(oldest, 10);
    }

    #[test]
    fn a_damaged_database_is_moved_aside_and_a_newer_or_foreign_one_is_not_touched() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history.db");
        std::fs::write(&path, "no database").expect("written");
        assert!(open_or_move_aside(&path).is_ok());
        let names = || std::fs::read_dir(folder.path()).expect("a folder").count();
        assert!(names() >= 2, "the damaged one is kept");
        let database = Connection::open(&path).expect("opened");
        database.pragma_update(None, "user_version", 0).expect("set");
        assert!(matches!(open_or_move_aside(&path), Err(OpenError::Foreign)));
        database.pragma_update(None, "user_version", 7).expect("set");
        drop(database);
        assert!(matches!(open_or_move_aside(&path), Err(OpenError::Newer(7))));
        let before = std::fs::read(&path).expect("there");
        let (history, _) = History::open(Some(&path), &[CLUSTER]);
        assert!(history.trouble().is_some_and(|why| why.contains("version 7")));
        history.write(incident(1, None));
        history.close();
        assert_eq!(std::fs::read(&path).expect("there"), before);
    }
}
