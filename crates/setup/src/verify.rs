//! `holdfast-setup verify`: gives this custodian's new share to the Vault that made it, while a rotation waits for that proof.
//!
//! A person's step in a ceremony, not the daemon's work. It gives the share to nobody but the server that the CA and the pins prove, and only
//! to a verification that runs there, with the nonce that people agreed on, of a rotation of which one share is encrypted to this
//! host's own transport key, with the manifest's numbers. The server has all shares of that rotation anyway: it made them.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use holdfast_core::ceremony::{CeremonyError, FileKind};
use holdfast_core::message::plain_text;
use holdfast_edge::admin::rotation::{Rotation, Token, Verification};
use holdfast_edge::admin::{Admin, AdminError};
use holdfast_edge::files::{self, FileError};
use holdfast_edge::store::StoreError;
use holdfast_edge::tls::{self, CA_PEM_MAX, SpkiPin};
use serde::Serialize;

use crate::host::{HostArguments, HostError, open_enrollment};
use crate::openpgp::TransportKey;
use crate::output;

/// The largest token file that is read, in bytes: a batch token has a few hundred.
const TOKEN_MAX: usize = 8 * 1024;

/// What is said before anything is sent to a server that is proven by its CA alone.
const NO_PIN: &str = "NO PIN: the token and the share go to whoever has a certificate of the CA for the Vault's name; give \
                      --spki-sha256, as custodian.toml has it for this node";

/// Prove this custodian's new share to the Vault, while a rotation waits for it
///
/// A rotation with `-verify` leaves the old shares valid until as many new ones as are needed were given back to the Vault. Holders
/// do that with `bao operator rotate-keys -verify`; this does it for a custodian, whose share nobody can read. Install the share
/// first. The share goes to the Vault at URL alone, proven by the CA and by its pin, if a rotation waits for verification there, with this nonce,
/// with the manifest's numbers, and with one share for this host's transport key.
///
/// The token needs `read` on sys/rotate/root/init and `update` on sys/rotate/root/verify (HashiCorp Vault: sys/rekey/…). Each
/// custodian gives its share once: the same twice makes the Vault begin the verification anew.
#[derive(Args)]
#[command(
    after_help = "Example: holdfast-setup verify --dir /etc/holdfast --manifest prod.manifest.json --vault https://vault-1.example:8200 --ca-cert vault-ca.pem --nonce 45a78cb7-abd5-7113-ab99-198d428004da --token-file token"
)]
pub(crate) struct Arguments {
    /// The cluster's manifest, from `holdfast adopt`
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// The Vault's address, https://HOST:PORT: the active node
    #[arg(long, value_name = "URL")]
    vault: String,
    /// The CA that the Vault's certificate comes from, in PEM; no other is trusted
    #[arg(long, value_name = "FILE")]
    ca_cert: PathBuf,
    /// The pin of the Vault's key, as custodian.toml has it for the node; repeatable. Without one, whoever has a certificate of the CA
    /// for the Vault's name, and is on the way to it, gets the token and the share
    #[arg(long = "spki-sha256", value_name = "PIN", value_parser = tls::parse_pin)]
    pins: Vec<SpkiPin>,
    /// The verification's nonce, as whoever runs the rotation reads it to you
    #[arg(long, value_name = "NONCE")]
    nonce: String,
    /// A file with a token in it that may verify; only its owner may read it
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    #[command(flatten)]
    host: HostArguments,
    /// Report in JSON
    #[arg(long)]
    json: bool,
}

/// Why the share was not given, or not taken.
#[derive(Debug, thiserror::Error)]
enum VerifyError {
    /// The host's files are not acceptable.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The token file has no token in it.
    #[error("{} has no token in it: put one there, on one line", .0.display())]
    Token(PathBuf),
    /// It is not the verification that it should be.
    #[error("{vault}: {why}; the share was not given")]
    Unfit {
        /// The Vault.
        vault: String,
        /// What is different.
        why: String,
    },
    /// The Vault could not be asked before anything was given.
    #[error("{0}; the share was not given")]
    Ask(AdminError),
    /// The Vault did not take the share.
    #[error(
        "{0}; ask for the verification's state (rotate-keys -verify -status): after a share that does not fit, or the same twice, it begins anew with another nonce, and every share is given again; the old shares are valid meanwhile"
    )]
    Given(AdminError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system did not provide something.
    #[error("{0}")]
    System(String),
}

impl VerifyError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Ask(AdminError::Address { .. }) => output::USAGE,
            Self::Host(_) | Self::Token(_) | Self::File(_) => output::REFUSED,
            Self::Ask(AdminError::Ca(_)) => output::REFUSED,
            _ => output::FAILED,
        }
    }
}

/// What was done.
#[derive(Serialize)]
struct Report {
    result: &'static str,
    cluster: String,
    custodian: String,
    generation: u32,
    progress: Option<u64>,
    required: u64,
    pinned: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { custodian, cluster, .. } = self;
        if !self.pinned {
            writeln!(f, "THE VAULT'S KEY WAS NOT PINNED: any certificate of the CA for its name would have done.\n")?;
        }
        match self.progress {
            Some(progress) => write!(
                f,
                "The Vault has counted {custodian}'s new share of {cluster}: {progress} of {} are verified. The old shares are valid still.",
                self.required
            ),
            None => write!(
                f,
                "{custodian}'s new share of {cluster} was the last that was needed: THE NEW SHARES ARE IN FORCE. Go on in docs/CEREMONIES.md; the old ones are needed once more by nodes that slept."
            ),
        }
    }
}

/// Verifies, and says so.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    tls::install_provider();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(verify(arguments)),
        Err(error) => Err(VerifyError::System(format!("no runtime could be started: {error}"))),
    };
    match done {
        Ok(report) => output::report(arguments.json, &report),
        Err(error) => output::failure(&error, error.exit_code()),
    }
}

async fn verify(arguments: &Arguments) -> Result<Report, VerifyError> {
    let host = arguments.host.open(&arguments.manifest)?;
    let me = host.member()?.id.clone();
    let manifest = &host.manifest;
    let sound = host.store.unlock(manifest.id(), manifest.generation(), &me)?;
    let own_key = own_key(&arguments.host.enrollment())?;
    let token = Token::new(&files::read_secret(&arguments.token_file, TOKEN_MAX)?)
        .ok_or_else(|| VerifyError::Token(arguments.token_file.clone()))?;
    let ca = files::read_bounded(&arguments.ca_cert, CA_PEM_MAX)?;
    let admin = Admin::pinned(&arguments.vault, &ca, &arguments.pins).map_err(VerifyError::Ask)?;
    if arguments.pins.is_empty() {
        // Where it cannot be shown, the report says it too.
        let _ = writeln!(io::stderr(), "{NO_PIN}");
    }

    let rotation = admin.rotation(&token).await.map_err(VerifyError::Ask)?;
    let numbers = (u64::from(manifest.threshold()), u64::from(manifest.shares()));
    check(&rotation, numbers, &own_key, &arguments.nonce)
        .map_err(|why| VerifyError::Unfit { vault: arguments.vault.clone(), why })?;
    let given = admin.verify_share(rotation.api, &token, sound.share(), &arguments.nonce).await;
    let progress = match given.map_err(VerifyError::Given)? {
        Verification::Counted { progress } => Some(progress),
        Verification::Complete => None,
    };
    Ok(Report {
        result: if progress.is_some() { "counted" } else { "complete" },
        cluster: manifest.cluster_name().to_string(),
        custodian: me.to_string(),
        generation: manifest.generation(),
        progress,
        required: numbers.0,
        pinned: !arguments.pins.is_empty(),
    })
}

/// The fingerprint of the key that this host's shares are encrypted to. From the enrollment: the key itself may be erased.
fn own_key(enrollment: &Path) -> Result<String, VerifyError> {
    let signed = open_enrollment(enrollment)?;
    TransportKey::fingerprint_of(&signed.enrollment().openpgp_key).ok_or_else(|| {
        let why = "not an OpenPGP key".to_owned();
        let why = CeremonyError::Field { kind: FileKind::Enrollment, field: "openpgp_key", why };
        HostError::Refused { path: enrollment.to_owned(), why }.into()
    })
}

/// Whether it is the rotation that the manifest was made of, and waits for this.
fn check(rotation: &Rotation, numbers: (u64, u64), own_key: &str, nonce: &str) -> Result<(), String> {
    if !rotation.started {
        return Err("no rotation runs there: it was cancelled, or the Vault was sealed meanwhile, or all is verified already (then a node opens with the new shares); before it is verified, the old shares are valid".to_owned());
    }
    if !rotation.verification_required {
        return Err(
            "the rotation that runs there asks for no verification: it is not the one that holdfast adopt printed"
                .to_owned(),
        );
    }
    if (rotation.threshold, rotation.shares) != numbers {
        let (t, n) = (rotation.threshold, rotation.shares);
        return Err(format!(
            "the rotation that runs there makes {n} shares, of which {t} open it, and the manifest says {} and {}: it is another one",
            numbers.1, numbers.0
        ));
    }
    if !rotation.fingerprints.iter().any(|fingerprint| fingerprint == own_key) {
        return Err(format!(
            "the rotation that runs there has no share for this host's transport key ({own_key}): somebody began another one; find out who"
        ));
    }
    if rotation.verification_nonce.is_empty() {
        return Err("not enough of the old shares were entered yet, so that there is nothing to verify".to_owned());
    }
    if rotation.verification_nonce != nonce {
        return Err(format!(
            "the verification's nonce is {}, not {nonce}: it began anew, or is another one; ask whoever runs the rotation",
            plain_text(&rotation.verification_nonce)
        ));
    }
    Ok(())
}
