//! The logbook: the custodian's own audit log, written and looked after while it runs.
//!
//! What lives here: when the log is looked at, when its chain is checked, and what the heartbeats say of it. What does not: files and
//! chains (`holdfast_edge::audit`); whether anything is released.
//!
//! A log that somebody has touched is a reason to raise the alarm, and none to stop: docs/SECURITY.md, "The audit log".

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_core::message::AuditReport;
use holdfast_core::release::Attempt;
use holdfast_core::time::Timestamp;
use holdfast_edge::audit::{
    self, AUDIT_FILE, AuditError, AuditLog, Broken, Position, ROTATE_AT, Recorded, Stamp, Told, Why,
};
use serde::Serialize;
use tokio::task::{JoinHandle, spawn_blocking};

/// How often the whole chain is checked though nobody seems to have touched it: a disk forgets without changing a date.
const CHECK_EVERY: Duration = Duration::from_secs(600);

/// How long an entry that only tells what was seen may wait for the release that follows from it, to reach the disk with that.
const NOTED_MAX: Duration = Duration::from_millis(100);

/// What a check of the whole chain found.
pub(crate) type Checked = Result<Result<audit::Summary, Broken>, AuditError>;

/// The audit log, and what is known of its state.
pub(crate) struct Logbook {
    folder: PathBuf,
    log: AuditLog,
    /// Whether the last attempt to write succeeded.
    writable: bool,
    /// When entries that the log has only noted are to be on disk.
    flush_at: Option<Instant>,
    /// The first entry that is not what was written, as the last check found.
    broken: Option<u64>,
    /// The first entry of a file that is not there any more, and of which no evidence is left: until the next start.
    lost: Option<u64>,
    /// The files that were put away, as they looked when the last check began.
    outside: BTreeMap<u64, Stamp>,
    check: Option<JoinHandle<Checked>>,
    /// When the last check began; none while one is due.
    checked: Option<Instant>,
    /// Where the log stood at the last look.
    stood: Position,
}

impl Logbook {
    /// Opens the log in the state folder, or begins one.
    pub(crate) fn open(folder: &Path) -> Result<Self, AuditError> {
        let (log, opened) = AuditLog::open(folder, ROTATE_AT)?;
        if let Some(bytes) = opened.cut {
            tracing::warn!(bytes, "the audit log ended in the middle of a line, which was cut off");
        }
        Ok(Self {
            folder: folder.to_owned(),
            log,
            writable: true,
            flush_at: None,
            broken: None,
            lost: None,
            outside: BTreeMap::new(),
            check: None,
            checked: None,
            stood: opened.position,
        })
    }

    /// What the heartbeats say. `durable` is whether the rest that has to be on disk is there.
    pub(crate) fn report(&self, durable: bool) -> AuditReport {
        let (head, broken) = (self.log.head(), self.broken.or(self.lost));
        AuditReport { seq: head.seq, head: head.head_hex(), ok: self.writable && durable && broken.is_none(), broken }
    }

    /// Writes an entry.
    pub(crate) fn append(&mut self, at: Timestamp, entry: &impl Serialize) {
        let appended = self.log.append(at, entry);
        self.answer_for(appended.map(drop));
    }

    /// Chains an entry that only tells what was seen, and permits nothing: it reaches the disk with the next, or soon.
    pub(crate) fn note(&mut self, at: Timestamp, entry: &impl Serialize) {
        self.flush_at.get_or_insert_with(|| Instant::now() + NOTED_MAX);
        if let Err(error) = self.log.note(at, entry) {
            self.answer_for(Err(error));
        }
    }

    /// When [`Logbook::flush_if_due`] is next to be called.
    pub(crate) fn flush_at(&self) -> Option<Instant> {
        self.flush_at
    }

    /// Brings to the disk what has waited long enough, and says whether anything had.
    pub(crate) fn flush_if_due(&mut self, at: Timestamp) -> bool {
        let due = self.flush_at.is_some_and(|due| due <= Instant::now());
        if due {
            let flushed = self.log.flush(at);
            self.answer_for(flushed);
        }
        due
    }

    /// Writes that a share is about to be released: the lock "record".
    pub(crate) fn record(
        &mut self,
        at: Timestamp,
        attempt: &Attempt,
        details: &impl Serialize,
    ) -> Result<Recorded, AuditError> {
        let recorded = self.log.record(at, attempt, details);
        self.written(recorded.is_ok());
        recorded
    }

    /// Looks whether somebody has touched the log, and has its chain checked if so, or if it is time; tries again to write where
    /// that failed. Cheap: the check itself runs beside the custodian.
    pub(crate) fn look(&mut self, at: Timestamp) {
        let touched = self.log.was_touched();
        if !self.writable || self.log.has_to_tell() {
            // Why it fails was said when it began to.
            let flushed = self.log.flush(at).is_ok();
            self.written(flushed);
        }
        let outside = audit::outside(&self.folder);
        let due = self.checked.is_none_or(|began| began.elapsed() >= CHECK_EVERY);
        if touched || outside != self.outside {
            self.checked = None;
        }
        if self.check.is_none() && (due || self.checked.is_none()) {
            (self.outside, self.checked) = (outside, Some(Instant::now()));
            let (folder, known) = (self.folder.clone(), [Some(self.log.head()), self.log.remembered()]);
            let known: Vec<_> = known.into_iter().flatten().collect();
            self.check = Some(spawn_blocking(move || audit::verify_folder(&folder, &known)));
        }
        // In the middle of an incident the disk has better things to do.
        if std::mem::replace(&mut self.stood, self.log.head()) == self.log.head() {
            self.remember();
        }
    }

    /// The end of the check that is under way; never, while there is none.
    pub(crate) async fn checked(&mut self) -> Checked {
        let Some(check) = &mut self.check else { return std::future::pending().await };
        let checked = check.await;
        self.check = None;
        checked.unwrap_or_else(|error| {
            // It was ended with the process, or has a defect of its own; neither says anything of the log.
            Err(AuditError::Entry(format!("the check did not come to its end: {error}")))
        })
    }

    /// Takes note of what a check found.
    pub(crate) fn handle_checked(&mut self, checked: Checked, at: Timestamp) {
        match checked {
            Ok(Ok(whole)) => {
                if self.broken.take().is_some() {
                    tracing::info!(from = whole.begins, to = whole.position.seq, "the audit log is whole again");
                }
            }
            // Carried away while it was read.
            Ok(Err(Broken { why: Why::Gone, .. })) => self.checked = None,
            Ok(Err(broken)) => {
                if self.broken != Some(broken.entry) {
                    tracing::error!(%broken, "the audit log is not what was written: docs/OPERATIONS.md, \"The audit log\"");
                }
                self.broken = Some(broken.entry);
                if broken.file == self.folder.join(AUDIT_FILE) {
                    self.log.put_aside();
                    let flushed = self.log.flush(at);
                    self.answer_for(flushed);
                }
            }
            Err(error) => tracing::error!(%error, "the audit log cannot be checked"),
        }
    }

    /// Brings to the disk what is not there yet, before the process ends.
    pub(crate) fn close(&mut self, at: Timestamp) {
        let flushed = self.log.flush(at);
        self.answer_for(flushed);
        self.remember();
    }

    /// Brings to the disk where the log stands.
    fn remember(&mut self) {
        if let Err(error) = self.log.remember()
            && self.writable
        {
            tracing::warn!(%error, "where the audit log stands is not remembered, and a cut would not be seen by a start");
        }
    }

    fn answer_for(&mut self, written: Result<(), AuditError>) {
        if let Err(error) = &written {
            tracing::error!(%error, "the audit log cannot be written: no share is released until it can");
        }
        self.written(written.is_ok());
    }

    fn written(&mut self, written: bool) {
        // What could not be written is tried again at the next look.
        self.flush_at = None;
        if written && !std::mem::replace(&mut self.writable, written) {
            tracing::info!("the audit log can be written again");
        }
        self.writable = written;
        if let Some(Told { damage, before }) = self.log.take_told() {
            let away = audit::outside(&self.folder);
            if !away.contains_key(&before) {
                self.lost = self.lost.or(Some(away.last_key_value().map_or(1, |(last, _)| last + 1)));
            }
            self.checked = None;
            tracing::error!(
                what = damage.as_str(),
                last = before,
                "somebody touched the audit log, and it goes on in a new file: docs/OPERATIONS.md, \"The audit log\""
            );
        }
    }
}
