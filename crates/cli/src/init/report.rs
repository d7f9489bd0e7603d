//! What a ceremony says when it is done.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::directory::Directory;
use super::fingerprints::Compared;
use super::{GENERATION, Plan};

/// What was done, and where everything is.
#[derive(Serialize)]
pub(super) struct Report {
    cluster: String,
    cluster_id: String,
    vault: String,
    generation: u32,
    shares: usize,
    threshold: u8,
    manifest: PathBuf,
    root_token: PathBuf,
    root_token_key: String,
    allowed_signers: PathBuf,
    init_response: PathBuf,
    custodians: Vec<Recipient>,
}

#[derive(Serialize)]
struct Recipient {
    id: String,
    fingerprint: String,
    compared: Compared,
    packet: PathBuf,
}

impl Report {
    /// The report of a ceremony that was held as planned.
    pub(super) fn new(vault: &str, directory: &Directory, plan: &Plan, compared: Vec<Compared>) -> Self {
        let custodians = plan.candidates.iter().zip(compared).map(|(candidate, compared)| Recipient {
            id: candidate.signed.enrollment().custodian.to_string(),
            fingerprint: candidate.signed.fingerprint().to_string(),
            compared,
            packet: directory.packet(&candidate.signed.enrollment().custodian),
        });
        Self {
            cluster: plan.cluster.to_string(),
            cluster_id: plan.id.to_string(),
            vault: vault.to_owned(),
            generation: GENERATION,
            shares: plan.candidates.len(),
            threshold: plan.threshold,
            manifest: directory.manifest(&plan.cluster),
            root_token: directory.root_token(),
            root_token_key: plan.root_token.fingerprint(),
            allowed_signers: directory.allowed_signers(),
            init_response: directory.response(),
            custodians: custodians.collect(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (t, n) = (self.threshold, self.shares);
        writeln!(f, "{} is initialised: any {t} of {n} shares open it.\n", self.vault)?;
        writeln!(f, "  Cluster:    {} ({})", self.cluster, self.cluster_id)?;
        writeln!(f, "  Manifest:   {}", self.manifest.display())?;
        writeln!(f, "  Root token: {} (encrypted to {})", self.root_token.display(), self.root_token_key)?;
        for custodian in &self.custodians {
            let how = match custodian.compared {
                Compared::Given | Compared::Asked => "fingerprint compared",
                Compared::Skipped => "FINGERPRINT NOT COMPARED (--yes)",
            };
            writeln!(f, "  Packet:     {} ({how})", custodian.packet.display())?;
        }
        writeln!(f, "\nNext:")?;
        writeln!(f, "  1. Send each custodian its packet and the manifest; on its host:")?;
        writeln!(
            f,
            "     holdfast-setup install --packet ID.packet.json --manifest {}.manifest.json --dir DIR",
            self.cluster
        )?;
        writeln!(f, "  2. Add {} to everybody's allowed_signers.", self.allowed_signers.display())?;
        writeln!(
            f,
            "  3. gpg --decrypt {} gives the root token: make what you need with it, then revoke it.",
            self.root_token.display()
        )?;
        write!(
            f,
            "  4. When every custodian has installed, remove {} and the packets: with the transport keys they are the shares.",
            self.init_response.display()
        )
    }
}
