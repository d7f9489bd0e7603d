//! What an adoption says: what to do next, word by word.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use holdfast_core::id::Principal;
use holdfast_edge::admin::AdminError;
use serde::Serialize;

use super::Arguments;
use crate::init::directory::Directory;
use crate::init::fingerprints::Compared;
use crate::init::plan::Plan;
use crate::output::quoted;

/// How far it is.
pub(super) enum Stage {
    /// Everything is checked, and the rotation is next.
    Planned {
        /// The keys for it.
        keys: Vec<PathBuf>,
    },
    /// What the rotation printed is sorted.
    Rotated,
    /// The manifest is written, and shares are typed in next.
    Import,
}

/// What the Vault tells of itself.
pub(super) struct Standing {
    /// Its threshold and number of shares, if it tells.
    pub(super) numbers: Option<(u8, u8)>,
    /// Why that is not all there is to know.
    pub(super) trouble: Option<Trouble>,
}

/// What hides how a Vault stands.
pub(super) enum Trouble {
    /// It is sealed.
    Sealed,
    /// It does not answer.
    Silent(AdminError),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sealed => f.write_str(
                "The Vault is sealed. If the new shares were verified before, they open it; if not, the old ones do, the rotation is gone, and the next one is begun in a new directory",
            ),
            Self::Silent(error) => write!(f, "How the Vault stands is not known: {error}"),
        }
    }
}

/// What was done, and what is next.
#[derive(Serialize)]
pub(super) struct Report {
    stage: &'static str,
    cluster: String,
    cluster_id: Option<String>,
    generation: u32,
    vault: String,
    shares: u8,
    threshold: u8,
    /// What the Vault itself says now, any of how many.
    vault_threshold: Option<u8>,
    vault_shares: Option<u8>,
    /// Why it does not say all that there is to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    vault_trouble: Option<String>,
    /// The command that begins the rotation, for OpenBao and for HashiCorp Vault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rotate: Vec<String>,
    /// How today's people enter theirs into OpenBao.
    #[serde(skip_serializing_if = "Option::is_none")]
    enter: Option<String>,
    /// This command's own second step.
    #[serde(skip_serializing_if = "Option::is_none")]
    again: Option<String>,
    manifest: Option<PathBuf>,
    /// What each custodian's person compares.
    manifest_fingerprint: Option<String>,
    allowed_signers: Option<PathBuf>,
    custodians: Vec<Recipient>,
    holders: Vec<Recipient>,
}

#[derive(Serialize)]
struct Recipient {
    name: String,
    fingerprint: String,
    compared: Compared,
    /// A packet, or a holder's encrypted share.
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sheet: Option<PathBuf>,
}

impl Report {
    pub(super) fn new(
        arguments: &Arguments,
        directory: &Directory,
        plan: &Plan,
        compared: &BTreeMap<Principal, Compared>,
        stage: Stage,
        standing: Standing,
    ) -> Self {
        let again = again(arguments, plan, compared);
        let compared = |name| compared.get(name).copied().unwrap_or(Compared::Skipped);
        let sorted = matches!(stage, Stage::Rotated);
        let custodians = plan.candidates.iter().map(|candidate| Recipient {
            name: candidate.id().to_string(),
            fingerprint: candidate.signed.fingerprint().to_string(),
            compared: compared(candidate.id()),
            share: sorted.then(|| directory.packet(candidate.id())),
            sheet: None,
        });
        let holders = plan.people.iter().map(|person| Recipient {
            name: person.name.to_string(),
            fingerprint: person.addressee.fingerprint().to_string(),
            compared: compared(&person.name),
            share: sorted.then(|| directory.holders_share(&person.name)),
            sheet: sorted.then(|| directory.holders_sheet(&person.name)),
        });
        let planned = matches!(stage, Stage::Planned { .. });
        Self {
            stage: match &stage {
                Stage::Planned { .. } => "planned",
                Stage::Rotated => "rotated",
                Stage::Import => "import",
            },
            cluster: plan.cluster.to_string(),
            cluster_id: (!planned).then(|| plan.id.to_string()),
            generation: plan.generation,
            vault: plan.vault.clone(),
            shares: plan.shares(),
            threshold: plan.threshold,
            vault_threshold: standing.numbers.map(|(threshold, _)| threshold),
            vault_shares: standing.numbers.map(|(_, shares)| shares),
            vault_trouble: standing.trouble.map(|trouble| trouble.to_string()),
            rotate: match &stage {
                Stage::Planned { keys } => ["bao operator rotate-keys", "vault operator rekey"]
                    .map(|tool| rotate(tool, arguments, plan, keys))
                    .into(),
                _ => Vec::new(),
            },
            enter: planned.then(|| {
                let reach = reach(&plan.vault, arguments.ca_cert.display());
                format!("bao operator rotate-keys {reach} -nonce=NONCE | tee rotated.txt")
            }),
            again: planned.then_some(again),
            manifest_fingerprint: if planned { None } else { directory.manifest_fingerprint(&plan.cluster) },
            manifest: (!planned).then(|| directory.manifest(&plan.cluster)),
            allowed_signers: (!planned).then(|| directory.allowed_signers()),
            custodians: custodians.collect(),
            holders: holders.collect(),
        }
    }

    fn planned(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (t, n) = self.vault_numbers().expect("a rotation is planned with a Vault that tells them");
        writeln!(f, "Every key is sound. Nothing was changed: any {t} of {n} shares open {} today.\n", self.vault)?;
        self.parties(f)?;
        writeln!(f, "\nNext, with a token that may rotate (docs/CEREMONIES.md, \"A Vault that exists\"):")?;
        writeln!(f, "  1. Begin the rotation. OpenBao:")?;
        for (index, command) in self.rotate.iter().enumerate() {
            if index == 1 {
                writeln!(f, "     HashiCorp Vault:")?;
            }
            writeln!(f, "     {command}")?;
        }
        writeln!(f, "  2. {t} of today's people enter their share each, with the nonce that it printed:")?;
        writeln!(f, "     {}", self.enter.as_deref().unwrap_or_default())?;
        writeln!(f, "  3. The same holdfast adopt again, with what the last of them got:")?;
        writeln!(f, "     {}", self.again.as_deref().unwrap_or_default())?;
        write!(f, "Today's shares stay valid until {} of the new ones are verified: keep them.", self.threshold)
    }

    fn rotated(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (t, n) = (self.threshold, self.shares);
        writeln!(f, "All {n} new shares of {} are there, each for its own custodian or holder.\n", self.cluster)?;
        self.files(f)?;
        match (&self.vault_trouble, self.vault_numbers()) {
            (Some(trouble), _) => writeln!(f, "\n{trouble}:")?,
            (None, Some((old_t, old_n))) if (old_t, old_n) != (t, n) => writeln!(
                f,
                "\nNOT IN FORCE YET: the Vault says that any {old_t} of {old_n} shares open it, which are the old ones:"
            )?,
            (None, _) => {
                writeln!(f, "\nThe Vault says that any {t} of {n} shares open it. It does not say which set:")?;
            }
        }
        writeln!(f, "until {t} of the new ones are verified, the old ones are valid, and nobody throws them away.\n")?;
        writeln!(f, "Next:")?;
        writeln!(
            f,
            "  1. Send each custodian its packet and the manifest, and read its person the manifest's fingerprint, by"
        )?;
        writeln!(f, "     voice: `install` asks for it. On its host:")?;
        let manifest = format!("{}.manifest.json", self.cluster);
        writeln!(
            f,
            "     holdfast-setup install --packet ID.packet.json --manifest {manifest} --dir DIR --keep-transport-key"
        )?;
        if !self.holders.is_empty() {
            writeln!(f, "     Print each holder's sheet, and give it and the .asc to that holder, who tries it:")?;
            writeln!(f, "     gpg --decrypt NAME.share.asc | wc -c    says 66")?;
        }
        writeln!(
            f,
            "  2. When ALL {n} have decrypted theirs, {t} of them verify, each with a token that may. A holder:"
        )?;
        writeln!(f, "     gpg --decrypt NAME.share.asc | \\")?;
        writeln!(
            f,
            "       bao operator rotate-keys -verify {} -nonce=VERIFICATION_NONCE -",
            reach(&self.vault, "FILE")
        )?;
        writeln!(f, "     A custodian, on its host:")?;
        writeln!(
            f,
            "     holdfast-setup verify --manifest {manifest} --vault {} --ca-cert FILE \\",
            quoted(&self.vault)
        )?;
        writeln!(f, "       --spki-sha256 PIN --nonce VERIFICATION_NONCE --token-file FILE --dir DIR")?;
        write!(
            f,
            "  3. Go on in docs/CEREMONIES.md: configuration, a restart of each node, and the end of the old shares."
        )
    }

    fn import(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "The manifest is made. Nothing was changed at the Vault: today's shares stay what they are.\n")?;
        self.files(f)?;
        writeln!(
            f,
            "\nNext, on each custodian's host, by the person whose share it is to be, one host for each share, and to whom you read the manifest's fingerprint:"
        )?;
        writeln!(f, "     holdfast-setup import --manifest {}.manifest.json --dir DIR", self.cluster)?;
        write!(
            f,
            "Nothing proves a share but the server: docs/CEREMONIES.md, \"For those who must\", before any is destroyed."
        )
    }

    fn parties(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, party) in self.parties_named() {
            writeln!(f, "  {what:<10} {} {} ({})", party.name, party.fingerprint, party.compared)?;
        }
        Ok(())
    }

    fn files(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.cluster_id.as_deref().unwrap_or_default();
        writeln!(f, "  Cluster:   {} ({id}), generation {}", self.cluster, self.generation)?;
        if let (Some(manifest), Some(lines)) = (&self.manifest, &self.allowed_signers) {
            writeln!(f, "  Manifest:  {}", manifest.display())?;
            let fingerprint = self.manifest_fingerprint.as_deref().unwrap_or("unknown: it was moved away");
            writeln!(f, "  its fingerprint: {fingerprint}")?;
            writeln!(f, "  Signers:   {}, for everybody's allowed_signers", lines.display())?;
        }
        for (what, party) in self.parties_named() {
            let files = [&party.share, &party.sheet].into_iter().flatten().map(|path| path.display().to_string());
            let files = files.collect::<Vec<_>>().join(" and ");
            writeln!(f, "  {what:<10} {} {files} ({})", party.name, party.compared)?;
        }
        Ok(())
    }

    fn vault_numbers(&self) -> Option<(u8, u8)> {
        self.vault_threshold.zip(self.vault_shares)
    }

    fn parties_named(&self) -> impl Iterator<Item = (&'static str, &Recipient)> {
        let custodians = self.custodians.iter().map(|party| ("Custodian:", party));
        custodians.chain(self.holders.iter().map(|party| ("Holder:", party)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stage {
            "planned" => self.planned(f),
            "rotated" => self.rotated(f),
            _ => self.import(f),
        }
    }
}

/// The tool's command. Custodians come first in it, but no order is relied on.
fn rotate(tool: &str, arguments: &Arguments, plan: &Plan, keys: &[PathBuf]) -> String {
    let keys: Vec<_> = keys.iter().map(|path| path.display().to_string()).collect();
    format!(
        "{tool} -init -verify {} -key-shares={} -key-threshold={} -pgp-keys={}",
        reach(&plan.vault, arguments.ca_cert.display()),
        plan.shares(),
        plan.threshold,
        quoted(keys.join(","))
    )
}

/// Where the tool finds the Vault.
fn reach(vault: &str, ca_cert: impl fmt::Display) -> String {
    format!("-address={} -ca-cert={}", quoted(vault), quoted(ca_cert))
}

/// This command once more, for the second step. It names the fingerprints that were compared, so that nobody is asked twice.
fn again(arguments: &Arguments, plan: &Plan, compared: &BTreeMap<Principal, Compared>) -> String {
    let mut words: Vec<String> = vec!["holdfast".to_owned(), "adopt".to_owned()];
    let mut say = |option: &str, values: Vec<String>| {
        words.push(option.to_owned());
        words.extend(values.iter().map(quoted));
    };
    say("--cluster", vec![plan.cluster.to_string()]);
    say("--vault", vec![plan.vault.clone()]);
    say("--ca-cert", vec![arguments.ca_cert.display().to_string()]);
    say("--enrollment", arguments.enrollments.iter().map(|path| path.display().to_string()).collect());
    for person in &plan.people {
        say("--holder", vec![format!("{}={}", person.name, person.path.display())]);
    }
    say("--threshold", vec![plan.threshold.to_string()]);
    if let Some(previous) = &arguments.previous {
        say("--previous", vec![previous.display().to_string()]);
    }
    for (given, option) in [
        (arguments.parties.accept_no_recovery, "--accept-no-recovery"),
        (arguments.parties.accept_no_automatic_opening, "--accept-no-automatic-opening"),
        (arguments.parties.yes, "--yes"),
    ] {
        if given {
            say(option, Vec::new());
        }
    }
    let candidates = plan.candidates.iter().map(|it| (it.id(), it.signed.fingerprint().to_string()));
    let people = plan.people.iter().map(|person| (&person.name, person.addressee.fingerprint().to_string()));
    for (name, fingerprint) in
        candidates.chain(people).filter(|(name, _)| compared.get(name) != Some(&Compared::Skipped))
    {
        say("--fingerprint", vec![format!("{name}={fingerprint}")]);
    }
    say("--output", vec![arguments.output.display().to_string()]);
    say("--rotated", vec!["rotated.txt".to_owned()]);
    words.join(" ")
}
