//! The reports of drills as conductors signed them: fetched from a sentinel or read from a file, and believed only where the signature
//! is one that this operator's own allowed_signers accepts. Of what a sentinel says beside the envelope, that it saw no drill is told, and
//! nothing else.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use holdfast_core::admission::SKEW_MAX;
use holdfast_core::envelope::{ENVELOPE_MAX, Envelope, EnvelopeError};
use holdfast_core::id::{ClusterId, ClusterName, DrillId, Principal};
use holdfast_core::message::{BodyError, Content, DrillReport, DrillResult, Kind, read_content, read_header};
use holdfast_core::time::Timestamp;
use holdfast_core::trust::{AllowedSigners, Namespace};
use holdfast_edge::{clock, files};
use serde::Deserialize;

use crate::operator::{Named, Operator};
use crate::status::get;

/// How many drills a trend and a list are made of.
pub(super) const LATEST: usize = 32;

/// A drill's report that was verified.
#[derive(Debug, Clone)]
pub(super) struct Evidence {
    /// The cluster, as this operator calls it.
    pub(super) cluster: ClusterName,
    /// Who signed it.
    pub(super) conductor: Principal,
    /// When.
    pub(super) issued_at: Timestamp,
    /// By which key.
    pub(super) key: String,
    /// What it says.
    pub(super) report: DrillReport,
    /// What came of the drill: only such reports are evidence.
    pub(super) result: DrillResult,
    /// Whether the sentinel that handed it out says that it saw the drill too; none where it comes from a file.
    pub(super) seen: Option<bool>,
    /// The exact bytes that were signed.
    pub(super) body: Vec<u8>,
    /// The signature over them, as `ssh-keygen` reads it.
    pub(super) signature: String,
    /// Both, as they came.
    pub(super) envelope: Vec<u8>,
}

/// Why a report is not believed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// No envelope, or a signature that does not count.
    #[error("its signature is not accepted: {0}")]
    Envelope(#[from] EnvelopeError),
    /// Not a message.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// Another cluster's.
    #[error("it is about cluster {0}, which is another one")]
    Cluster(ClusterId),
    /// Something else that somebody signed.
    #[error("it is a message of the kind {0}, and no drill's report")]
    Kind(&'static str),
    /// Signed in the future.
    #[error("it was signed at {0}, which is still to come by this machine's clock")]
    Early(Timestamp),
    /// A drill that goes on.
    #[error("it was signed while the drill went on, and says nothing of how it ended")]
    Running,
    /// Another drill's.
    #[error("it is the report of another drill, {0}")]
    Another(DrillId),
}

impl Evidence {
    /// Verifies a report: who signed it may announce drills, by the operator's own trust root, at the time at which it was signed.
    pub(super) fn verify(
        bytes: &[u8],
        (cluster, id): (&ClusterName, ClusterId),
        signers: &AllowedSigners,
        now: Timestamp,
    ) -> Result<Self, Refused> {
        #[derive(Deserialize)]
        struct Armoured {
            signature: String,
        }
        let envelope = Envelope::parse_from(bytes, signers)?;
        let (header, unread) = read_header(envelope.body())?;
        if header.kind != Kind::DrillReport {
            return Err(Refused::Kind(header.kind.as_str()));
        }
        if header.cluster != id {
            return Err(Refused::Cluster(header.cluster));
        }
        envelope.verify(signers, &header.from, Namespace::Intent, header.issued_at)?;
        if header.issued_at > now.after(SKEW_MAX) {
            return Err(Refused::Early(header.issued_at));
        }
        let Content::DrillReport(report) = read_content(&header, unread)? else {
            return Err(Refused::Kind(header.kind.as_str()));
        };
        let result = report.result.ok_or(Refused::Running)?;
        let Armoured { signature } =
            serde_json::from_slice(bytes).map_err(|error| EnvelopeError::Malformed(error.to_string()))?;
        Ok(Self {
            cluster: cluster.clone(),
            conductor: header.from,
            issued_at: header.issued_at,
            key: envelope.signature().public_key().fingerprint(),
            report: *report,
            result,
            seen: None,
            body: envelope.body().to_owned(),
            signature,
            envelope: bytes.to_owned(),
        })
    }

    /// Whether it passed by its conductor's word alone.
    pub(super) fn is_unconfirmed(&self) -> bool {
        self.result == DrillResult::Passed && self.seen == Some(false)
    }

    /// What came of it, in a word or two.
    pub(super) fn in_short(&self) -> String {
        let doubt = if self.is_unconfirmed() { ", unconfirmed" } else { "" };
        self.result.as_str().to_owned() + doubt
    }

    fn about(self, drill: DrillId) -> Result<Self, Refused> {
        if self.report.drill == drill { Ok(self) } else { Err(Refused::Another(self.report.drill)) }
    }
}

/// Reads a report that was saved.
pub(super) fn read(
    path: &Path,
    operator: &Operator,
    (name, cluster): Named<'_>,
    drill: Option<DrillId>,
) -> anyhow::Result<Evidence> {
    let bytes = files::read_bounded(path, ENVELOPE_MAX)?;
    let id = cluster.manifest.id();
    let verified = Evidence::verify(bytes.trim_ascii(), (name, id), &operator.allowed_signers, clock::wall());
    verified
        .and_then(|evidence| match drill {
            Some(drill) => evidence.about(drill),
            None => Ok(evidence),
        })
        .with_context(|| format!("{} is no evidence of a drill of {name}", path.display()))
}

/// Where reports are fetched.
pub(super) struct Source<'a> {
    operator: &'a Operator,
    named: Named<'a>,
    url: &'a str,
}

#[derive(Deserialize)]
struct Kept {
    envelope: String,
    #[serde(default)]
    seen: Option<bool>,
}

#[derive(Deserialize)]
struct List {
    drills: Vec<Kept>,
}

impl<'a> Source<'a> {
    /// The cluster's sentinel, as the configuration names it.
    pub(super) fn new(operator: &'a Operator, named: Named<'a>, config: &Path) -> anyhow::Result<Self> {
        let (name, cluster) = named;
        let url = cluster.sentinel.as_deref().with_context(|| {
            format!(
                "{}: [clusters.{name}] names no sentinel, which keeps the reports: add sentinel = \
                 \"http://127.0.0.1:9640\" or where it listens; a report that was saved is read by --offline FILE",
                config.display()
            )
        })?;
        Ok(Self { operator, named, url })
    }

    /// The report of a drill.
    pub(super) async fn fetch(&self, drill: DrillId) -> anyhow::Result<Evidence> {
        let id = self.named.1.manifest.id();
        let body = get(self.url, &format!("/api/v1/drills/{drill}?cluster={id}")).await?;
        let kept: Kept = serde_json::from_slice(&body).with_context(|| self.no_answer())?;
        let verified = self.verify(&kept).and_then(|evidence| evidence.about(drill));
        verified.with_context(|| self.not_believed(&drill.to_string()))
    }

    /// The latest drills, the newest first; for each that is not believed, why.
    pub(super) async fn latest(&self, limit: usize) -> anyhow::Result<Vec<Result<Evidence, Refused>>> {
        let id = self.named.1.manifest.id();
        let body = get(self.url, &format!("/api/v1/drills?cluster={id}&limit={limit}")).await?;
        let list: List = serde_json::from_slice(&body).with_context(|| self.no_answer())?;
        Ok(list.drills.iter().take(limit).map(|kept| self.verify(kept)).collect())
    }

    /// What is said of a report that is not believed.
    pub(super) fn not_believed(&self, which: &str) -> String {
        format!(
            "what the sentinel at {} calls the report of drill {which} is not shown: it does not verify against this \
             machine's allowed_signers. If the trust root was changed since, use the file of then; if it was not, somebody \
             changed the sentinel's database",
            self.url
        )
    }

    fn no_answer(&self) -> String {
        format!("{} answered something that is not a sentinel's answer about drills", self.url)
    }

    fn verify(&self, kept: &Kept) -> Result<Evidence, Refused> {
        let (name, cluster) = self.named;
        let (bytes, id) = (kept.envelope.as_bytes(), cluster.manifest.id());
        let verified = Evidence::verify(bytes, (name, id), &self.operator.allowed_signers, clock::wall());
        verified.map(|evidence| Evidence { seen: kept.seen, ..evidence })
    }
}

/// The files that a report was saved as.
pub(super) struct Saved {
    /// The exact bytes that were signed.
    pub(super) body: PathBuf,
    /// The signature.
    pub(super) signature: PathBuf,
    /// Both, as `--offline` reads them.
    pub(super) envelope: PathBuf,
}

/// Writes the evidence beside each other. Overwrites nothing.
pub(super) fn save(evidence: &Evidence, path: &Path) -> anyhow::Result<Saved> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let saved = Saved { body: path.to_owned(), signature: beside(".sig"), envelope: beside(".envelope") };
    let parts: [(&Path, &[u8]); 3] = [
        (&saved.body, &evidence.body),
        (&saved.signature, evidence.signature.as_bytes()),
        (&saved.envelope, &evidence.envelope),
    ];
    for (path, bytes) in parts {
        files::ensure(path, bytes, 0o644)?;
    }
    Ok(saved)
}
