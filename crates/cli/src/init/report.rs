//! What a ceremony says when it is done.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::directory::Directory;
use super::fingerprints::Compared;
use super::journal::Ceremony;
use crate::output::quoted;

/// What was done, and where everything is.
#[derive(Serialize)]
pub(super) struct Report {
    result: Outcome,
    cluster: String,
    cluster_id: String,
    vault: String,
    generation: u32,
    shares: u8,
    threshold: u8,
    manifest: PathBuf,
    /// What each custodian's person compares.
    manifest_fingerprint: Option<String>,
    root_token: PathBuf,
    root_token_key: String,
    allowed_signers: PathBuf,
    init_response: PathBuf,
    custodians: Vec<Recipient>,
    holders: Vec<Holder>,
    /// Files that the ceremony wrote and somebody has moved away since.
    gone: Vec<PathBuf>,
}

/// How it came to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// At one go.
    Initialised,
    /// In this run, after an interruption.
    Resumed,
    /// In an earlier run.
    Already,
}

#[derive(Serialize)]
struct Recipient {
    id: String,
    fingerprint: String,
    compared: Compared,
    packet: PathBuf,
}

#[derive(Serialize)]
struct Holder {
    name: String,
    openpgp_fingerprint: String,
    compared: Compared,
    share: PathBuf,
    sheet: PathBuf,
}

impl Report {
    /// The report of a ceremony that was held as planned.
    pub(super) fn new(directory: &Directory, ceremony: &Ceremony, result: Outcome) -> Self {
        let plan = &ceremony.plan;
        let compared = |name| ceremony.compared.get(name).copied().unwrap_or(Compared::Skipped);
        let custodians = plan.candidates.iter().map(|candidate| Recipient {
            id: candidate.id().to_string(),
            fingerprint: candidate.signed.fingerprint().to_string(),
            compared: compared(candidate.id()),
            packet: directory.packet(candidate.id()),
        });
        let holders = plan.people.iter().map(|person| Holder {
            name: person.name.to_string(),
            openpgp_fingerprint: person.addressee.fingerprint().to_string(),
            compared: compared(&person.name),
            share: directory.holders_share(&person.name),
            sheet: directory.holders_sheet(&person.name),
        });
        let report = Self {
            result,
            cluster: plan.cluster.to_string(),
            cluster_id: plan.id.to_string(),
            vault: plan.vault.clone(),
            generation: plan.generation,
            shares: plan.shares(),
            threshold: plan.threshold,
            manifest: directory.manifest(&plan.cluster),
            manifest_fingerprint: directory.manifest_fingerprint(&plan.cluster),
            root_token: directory.root_token(),
            root_token_key: ceremony.root_token.fingerprint().to_string(),
            allowed_signers: directory.allowed_signers(),
            init_response: directory.response(),
            custodians: custodians.collect(),
            holders: holders.collect(),
            gone: Vec::new(),
        };
        Self { gone: report.files().filter(|path| !path.exists()).cloned().collect(), ..report }
    }

    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let holders = self.holders.iter().flat_map(|holder| [&holder.share, &holder.sheet]);
        let packets = self.custodians.iter().map(|custodian| &custodian.packet);
        [&self.init_response, &self.manifest, &self.root_token, &self.allowed_signers]
            .into_iter()
            .chain(packets)
            .chain(holders)
    }

    fn next_steps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nNext:")?;
        writeln!(
            f,
            "  1. Send each custodian its packet and the manifest, and read its person the manifest's fingerprint, by"
        )?;
        writeln!(f, "     voice: `install` asks for it. On its host:")?;
        let manifest = format!("{}.manifest.json", self.cluster);
        writeln!(f, "     holdfast-setup install --packet ID.packet.json --manifest {manifest} --dir DIR")?;
        if !self.holders.is_empty() {
            writeln!(f, "     Print each holder's sheet, and give it and the .asc to that holder, who tries it:")?;
            writeln!(f, "     gpg --decrypt NAME.share.asc | wc -c    says 66")?;
        }
        writeln!(f, "  2. Add {} to everybody's allowed_signers.", self.allowed_signers.display())?;
        writeln!(
            f,
            "  3. gpg --decrypt {} gives the root token: make what you need with it, then revoke it.",
            quoted(self.root_token.display())
        )?;
        write!(
            f,
            "  4. When every custodian has installed and every holder has theirs, remove {}, the packets and the holders' files: with the keys that they are encrypted to they are the shares.",
            self.init_response.display()
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (t, n) = (self.threshold, self.shares);
        match self.result {
            Outcome::Initialised => writeln!(f, "{} is initialised: any {t} of {n} shares open it.\n", self.vault)?,
            Outcome::Resumed => writeln!(
                f,
                "The ceremony went on where it was interrupted, and is complete: {} is initialised, any {t} of {n} shares open it, and no share was lost.\n",
                self.vault
            )?,
            Outcome::Already => writeln!(
                f,
                "This ceremony was complete already, and nothing was done: {} was initialised by it, any {t} of {n} shares open it.\n",
                self.vault
            )?,
        }
        writeln!(f, "  Cluster:    {} ({})", self.cluster, self.cluster_id)?;
        writeln!(f, "  Manifest:   {}", self.manifest.display())?;
        if let Some(fingerprint) = &self.manifest_fingerprint {
            writeln!(f, "  its fingerprint: {fingerprint}")?;
        }
        writeln!(f, "  Root token: {} (encrypted to {})", self.root_token.display(), self.root_token_key)?;
        for custodian in &self.custodians {
            writeln!(f, "  Packet:     {} ({})", custodian.packet.display(), custodian.compared)?;
        }
        for holder in &self.holders {
            writeln!(
                f,
                "  Holder:     {} and {} ({})",
                holder.sheet.display(),
                holder.share.display(),
                holder.compared
            )?;
        }
        if !self.gone.is_empty() {
            writeln!(f, "\nNo longer here, because somebody moved or removed them since:")?;
            self.gone.iter().try_for_each(|path| writeln!(f, "  {}", path.display()))?;
        }
        self.next_steps(f)
    }
}
