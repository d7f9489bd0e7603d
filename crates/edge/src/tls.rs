//! TLS as Holdfast uses it towards nodes and broker alike: only the configured CA, TLS 1.3, pins, and refusals that say
//! what to do. What does not live here: tickets and the proof of a node's identity (`vault`).

use std::io;
use std::sync::{Arc, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ParsedCertificate;
use rustls::{AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, OtherError};
use rustls::{PeerIncompatible, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};

use holdfast_core::time::Timestamp;

/// The largest CA file that is read, in bytes: a bundle of two hundred CAs fits, a mistaken path to something else does not.
pub const CA_PEM_MAX: usize = 512 * 1024;

/// The SHA-256 of a certificate's SubjectPublicKeyInfo in DER: it stays the same when a certificate is renewed with its key.
pub type SpkiPin = [u8; 32];

/// Why no TLS configuration could be made of what the configuration file names. The operator's fault, always.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Larger than [`CA_PEM_MAX`].
    #[error("the CA file has {0} bytes, more than {CA_PEM_MAX}: is it the CA's certificate in PEM?")]
    TooLarge(usize),
    /// No certificate in it.
    #[error("the CA file has no certificate in it: it must hold \"-----BEGIN CERTIFICATE-----\", the CA's, in PEM")]
    NoCertificate,
    /// The PEM is broken.
    #[error("the CA file is not PEM that can be read: {0}")]
    Pem(String),
    /// One of its certificates cannot be a trust anchor.
    #[error("certificate {0} in the CA file is not a certificate that can be trusted as a CA: {1}")]
    NotAnAnchor(usize, String),
    /// A pin is neither 64 hexadecimal digits nor the base64 of 32 bytes.
    #[error(
        "{0:?} is not an SPKI pin: it is the base64 that `openssl x509 -in CERT -pubkey -noout | openssl pkey -pubin \
         -outform der | openssl dgst -sha256 -binary | base64` prints, or the same 32 bytes in hexadecimal"
    )]
    Pin(String),
    /// The TLS library refused what we asked of it: a defect of ours.
    #[error("the TLS library refused our settings: {0}")]
    Settings(String),
}

/// Why a peer was not accepted, in words for the one who has to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefusal {
    /// The certificate's chain does not end in the configured CA: another CA, a missing intermediate, or an impostor.
    #[error(
        "its certificate was not issued by the configured CA: check ca_cert, and that the server sends its intermediate \
         certificates; if both are right, somebody else answers at this address"
    )]
    UnknownIssuer,
    /// The server's certificate is itself a CA, as hand-made self-signed ones are.
    #[error(
        "its certificate is a CA certificate (self-signed, made by hand?), which no server may show: make a small CA, issue \
         the server a certificate with \"basicConstraints=CA:FALSE\", and put the CA into ca_cert"
    )]
    CaAsServer,
    /// The certificate is for other names.
    #[error("its certificate is not for {expected:?}, only for {presented}: use one of these names, or reissue it")]
    WrongName {
        /// The name that we asked for.
        expected: String,
        /// The names in the certificate.
        presented: String,
    },
    /// The certificate is over.
    #[error("its certificate expired at {not_after}: renew it, and check this machine's clock")]
    Expired {
        /// The end of its validity; 1970 if unknown.
        not_after: Timestamp,
    },
    /// The certificate has not begun.
    #[error("its certificate is not valid before {not_before}: check this machine's clock")]
    NotYetValid {
        /// The start of its validity; 1970 if unknown.
        not_before: Timestamp,
    },
    /// CA and name are right, but the key is none of the pinned ones.
    #[error(
        "its key is none of those in spki_sha256: it has the pin {seen}. Add that only if the server was given a new key \
         and you know by whom; otherwise somebody who holds a certificate of your CA poses as this server"
    )]
    WrongPin {
        /// The pin of the key that it showed, in base64.
        seen: String,
    },
    /// The certificate is faulty in another way.
    #[error("its certificate was refused: {0}")]
    BadCertificate(String),
    /// The peer speaks no TLS, such as a plain HTTP listener.
    #[error("it does not speak TLS at this port: TLS must be on there (a Vault's listener without tls_disable)")]
    NotTls,
    /// The peer speaks TLS, but not 1.3.
    #[error("it does not speak TLS 1.3, which Holdfast requires: allow it there (a Vault's tls_max_version)")]
    NoTls13,
    /// The handshake failed for another reason.
    #[error("the TLS handshake failed: {0}")]
    Other(String),
}

/// Installs the one cryptography provider of the process, aws-lc-rs with a post-quantum key exchange. Does no harm twice.
pub fn install_provider() {
    // An error says that a provider is there already: ours, from an earlier call.
    let _ = provider().as_ref().clone().install_default();
}

/// The settings for connections to peers whose chain ends in `ca_pem`, and in nothing else, and whose key is one of `pins`,
/// if there are any. TLS 1.3 alone; no resumption, no early data.
pub fn client_config(ca_pem: &[u8], pins: &[SpkiPin]) -> Result<ClientConfig, TlsError> {
    let settings = |e: &dyn std::fmt::Display| TlsError::Settings(e.to_string());
    let roots = Arc::new(roots(ca_pem)?);
    let inner = WebPkiServerVerifier::builder_with_provider(roots, provider()).build().map_err(|e| settings(&e))?;
    let verifier = Arc::new(PinnedVerifier { inner, pins: pins.to_vec() });
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| settings(&e))?
        // rustls calls every verifier but its own dangerous. This one asks rustls' own first, and then for the pins: stricter.
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Reads a pin as the configuration writes it: base64 of 32 bytes, as OpenSSL and curl print it, or hexadecimal.
pub fn parse_pin(text: &str) -> Result<SpkiPin, TlsError> {
    let text = text.trim();
    let mut pin = SpkiPin::default();
    if hex::decode_to_slice(text, &mut pin).is_ok() {
        return Ok(pin);
    }
    let decoded = STANDARD.decode(text.strip_prefix("sha256//").unwrap_or(text)).ok();
    decoded
        .and_then(|bytes| SpkiPin::try_from(bytes).ok())
        .ok_or_else(|| TlsError::Pin(text.chars().take(100).collect()))
}

/// A pin as the configuration writes it, in base64.
pub fn pin_text(pin: &SpkiPin) -> String {
    STANDARD.encode(pin)
}

/// The pin of the key in a certificate. `None` if it cannot be read.
pub(crate) fn pin_of(certificate: &CertificateDer<'_>) -> Option<SpkiPin> {
    let spki = ParsedCertificate::try_from(certificate).ok()?.subject_public_key_info();
    Some(Sha256::digest(&spki).into())
}

/// What was wrong with the peer, if this error of a connection is a TLS error.
pub fn refusal(error: &io::Error) -> Option<PeerRefusal> {
    error.get_ref()?.downcast_ref::<rustls::Error>().map(PeerRefusal::from)
}

impl From<&rustls::Error> for PeerRefusal {
    fn from(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(why) => certificate_refusal(why),
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)
            | rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13)
            | rustls::Error::PeerIncompatible(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig) => Self::NoTls13,
            other => Self::Other(other.to_string()),
        }
    }
}

fn certificate_refusal(why: &CertificateError) -> PeerRefusal {
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => PeerRefusal::UnknownIssuer,
        CertificateError::NotValidForNameContext { expected, presented } => PeerRefusal::WrongName {
            expected: expected.to_str().into_owned(),
            presented: match presented[..] {
                [] => "no name at all".to_owned(),
                _ => presented.iter().map(|name| plain_name(name)).collect::<Vec<_>>().join(", "),
            },
        },
        CertificateError::Expired => PeerRefusal::Expired { not_after: Timestamp::default() },
        CertificateError::ExpiredContext { not_after, .. } => PeerRefusal::Expired { not_after: wall(*not_after) },
        CertificateError::NotValidYet => PeerRefusal::NotYetValid { not_before: Timestamp::default() },
        CertificateError::NotValidYetContext { not_before, .. } => {
            PeerRefusal::NotYetValid { not_before: wall(*not_before) }
        }
        CertificateError::Other(other) => match (other.0.downcast_ref::<WrongPin>(), other.0.downcast_ref()) {
            (Some(WrongPin(seen)), _) => PeerRefusal::WrongPin { seen: pin_text(seen) },
            (_, Some(webpki::Error::CaUsedAsEndEntity)) => PeerRefusal::CaAsServer,
            _ => PeerRefusal::BadCertificate(why.to_string()),
        },
        _ => PeerRefusal::BadCertificate(why.to_string()),
    }
}

/// A name in a certificate as people write it; the library says `DnsName("vault-1.example")`.
fn plain_name(presented: &str) -> &str {
    let inner = presented.strip_prefix("DnsName(\"").and_then(|rest| rest.strip_suffix("\")"));
    inner.or_else(|| presented.strip_prefix("IpAddress(")?.strip_suffix(')')).unwrap_or(presented)
}

fn wall(time: UnixTime) -> Timestamp {
    Timestamp::from_millis(i64::try_from(time.as_secs().saturating_mul(1000)).unwrap_or(i64::MAX))
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider())))
}

fn roots(ca_pem: &[u8]) -> Result<RootCertStore, TlsError> {
    if ca_pem.len() > CA_PEM_MAX {
        return Err(TlsError::TooLarge(ca_pem.len()));
    }
    let mut roots = RootCertStore::empty();
    for (i, certificate) in CertificateDer::pem_slice_iter(ca_pem).enumerate() {
        let certificate = certificate.map_err(|e| TlsError::Pem(e.to_string()))?;
        roots.add(certificate).map_err(|e| TlsError::NotAnAnchor(i + 1, e.to_string()))?;
    }
    if roots.is_empty() { Err(TlsError::NoCertificate) } else { Ok(roots) }
}

/// The library's own verification first, and then the pins: a pin can only refuse what is otherwise right.
#[derive(Debug)]
struct PinnedVerifier {
    inner: Arc<WebPkiServerVerifier>,
    pins: Vec<SpkiPin>,
}

/// Chain and name are right, the key is none of the pinned ones.
#[derive(Debug, thiserror::Error)]
#[error("the key is none of the pinned ones")]
struct WrongPin(SpkiPin);

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        if self.pins.is_empty() {
            return Ok(verified);
        }
        let spki = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
        let seen: SpkiPin = Sha256::digest(&spki).into();
        if self.pins.contains(&seen) {
            Ok(verified)
        } else {
            Err(CertificateError::Other(OtherError(Arc::new(WrongPin(seen)))).into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_has_two_spellings_and_no_third() {
        let pin = [0xab; 32];
        let base64 = STANDARD.encode(pin);
        for good in [hex::encode(pin), base64.clone(), format!("sha256//{base64}")] {
            assert_eq!(parse_pin(&good).expect("good"), pin);
        }
        for bad in ["", "ab", &base64[1..], &hex::encode([1; 31]), &"é".repeat(64)] {
            assert!(matches!(parse_pin(bad), Err(TlsError::Pin(_))), "{bad}");
        }
    }

    #[test]
    fn a_ca_file_without_a_ca_is_refused_and_says_why() {
        let ca = rcgen::generate_simple_self_signed(["ca".to_owned()]).expect("a certificate");
        let pem = ca.cert.pem();
        assert!(client_config(pem.as_bytes(), &[]).is_ok());
        assert!(matches!(client_config(b"", &[]), Err(TlsError::NoCertificate)));
        assert!(matches!(client_config(b"<html>", &[]), Err(TlsError::NoCertificate)));
        let key = ca.signing_key.serialize_pem();
        assert!(matches!(client_config(key.as_bytes(), &[]), Err(TlsError::NoCertificate)));
        assert!(matches!(client_config(&pem.as_bytes()[..pem.len() / 2], &[]), Err(TlsError::Pem(_))));
        let hollow = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(client_config((pem.clone() + hollow).as_bytes(), &[]), Err(TlsError::NotAnAnchor(2, _))));
        assert!(matches!(client_config(&vec![b'x'; CA_PEM_MAX + 1], &[]), Err(TlsError::TooLarge(_))));
    }

    #[test]
    fn the_provider_can_be_installed_twice_and_is_post_quantum() {
        install_provider();
        install_provider();
        let first = provider().kx_groups[0].name();
        assert_eq!(first, rustls::NamedGroup::X25519MLKEM768);
    }
}
