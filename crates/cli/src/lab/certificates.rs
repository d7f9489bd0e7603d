//! The lab's certificates: a small CA for the nodes, another one for the broker, and a server certificate for each.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_edge::tls::SpkiPin;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use sha2::{Digest, Sha256};

use super::file::{self, WriteError};

/// A lab is for an afternoon; a year lets one be kept, and shows on the dashboard as a certificate does.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// Clocks of containers and their host may differ a little.
const SKEW: Duration = Duration::from_secs(3600);

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// The library refused, which it does for names it cannot encode.
    #[error("no certificate for {0}: {1}")]
    Made(String, rcgen::Error),
    /// It was made and could not be written.
    #[error(transparent)]
    Written(#[from] WriteError),
}

/// A certificate authority of the lab's own.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority called `name`, its certificate and key written to `cert` and `key`: a test that plays an impostor
    /// with a certificate of the right CA needs the key.
    pub(crate) fn create(name: &str, cert: &Path, key: &Path) -> Result<Self, CertificateError> {
        let made = |e| CertificateError::Made(name.to_owned(), e);
        let mut params = params(name, Vec::new()).map_err(made)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(made)?).map_err(made)?;
        file::write(cert, issuer.pem().as_bytes(), file::PUBLIC)?;
        file::write(key, issuer.key().serialize_pem().as_bytes(), file::PRIVATE)?;
        Ok(Self { issuer })
    }

    /// A server certificate for `name`, `localhost` and `127.0.0.1`, written to `cert` and `key`.
    pub(crate) fn issue(&self, name: &str, cert: &Path, key: &Path) -> Result<SpkiPin, CertificateError> {
        let made = |e| CertificateError::Made(name.to_owned(), e);
        let names = vec![name.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = params(name, names).map_err(made)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let pair = KeyPair::generate().map_err(made)?;
        let certificate = params.signed_by(&pair, &self.issuer).map_err(made)?;
        file::write(cert, certificate.pem().as_bytes(), file::PUBLIC)?;
        file::write(key, pair.serialize_pem().as_bytes(), file::PRIVATE)?;
        Ok(Sha256::digest(pair.subject_public_key_info()).into())
    }
}

fn params(common_name: &str, names: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, common_name);
    // A clock before 1970 gives certificates of 1970, and every client says so.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(SKEW);
    params.not_after = epoch + now + LIFETIME;
    Ok(params)
}
