//! TLS on both sides: clients that trust one CA, and authorities that issue what a test needs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, DnType, Issuer, KeyPair, PublicKeyData};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use crate::lab::Lab;

/// A client that trusts the CAs in a file, and nobody else.
pub fn client(ca_file: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file).expect("a CA file") {
        roots.add(certificate.expect("a certificate")).expect("a CA");
    }
    trusting(roots)
}

/// A client that trusts nobody, for where no TLS is spoken.
pub fn suspicious_client() -> ClientConfig {
    trusting(RootCertStore::empty())
}

/// A server with a certificate and a key that lie in files: whoever has the key is the server.
pub fn server(certificate: &Path, key: &Path) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(certificate).expect("a certificate");
    let chain = chain.map(|certificate| certificate.expect("a certificate")).collect();
    serving(chain, PrivateKeyDer::from_pem_file(key).expect("a key"))
}

fn serving(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
    Arc::new(config.with_single_cert(chain, key).expect("a pair"))
}

fn trusting(roots: RootCertStore) -> ClientConfig {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("versions");
    config.with_root_certificates(roots).with_no_client_auth()
}

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// One that nobody trusts yet.
    pub fn new(name: &str) -> Self {
        Self::with_key(name, KeyPair::generate().expect("a key"))
    }

    /// A lab's own, whose key was stolen: what it issues is taken for the lab's.
    pub fn of_lab(lab: &Lab) -> Self {
        let key = std::fs::read_to_string(lab.path(&lab.file.ca_key)).expect("the CA's key");
        Self::with_key("Holdfast lab Vault CA", KeyPair::from_pem(&key).expect("a key"))
    }

    fn with_key(name: &str, key: KeyPair) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Its certificate, for those who are to trust it.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A server's certificate for these names and addresses.
    pub fn issue(&self, names: &[&str]) -> Certified {
        self.issue_until(names, None)
    }

    /// Another certificate for a key that there is, both as text; it may end so long after 1970.
    pub fn renew(&self, names: &[&str], key: &str, end: Option<Duration>) -> String {
        let key = KeyPair::from_pem(key).expect("a key");
        params(names, end).signed_by(&key, &self.issuer).expect("a certificate").pem()
    }

    /// A server's certificate for these names and addresses, which may end so long after 1970.
    pub fn issue_until(&self, names: &[&str], end: Option<Duration>) -> Certified {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(names, end).signed_by(&key, &self.issuer).expect("a certificate");
        let pin = hex::encode(Sha256::digest(key.subject_public_key_info()));
        let pem = (certificate.pem(), key.serialize_pem());
        Certified { chain: certificate.der().clone(), key: key.serialize_der(), pin, pem }
    }
}

fn params(names: &[&str], end: Option<Duration>) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    if let Some(end) = end {
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + end;
    }
    params
}

/// A server's certificate and key.
#[derive(Debug)]
pub struct Certified {
    chain: CertificateDer<'static>,
    key: Vec<u8>,
    /// Both as text, for a server that reads files: the certificate and its key.
    pub pem: (String, String),
    /// The SHA-256 of its public key, in hexadecimal, as a configuration pins it.
    pub pin: String,
}

impl Certified {
    /// A server with it that gives out no tickets.
    pub fn server_without_tickets(&self) -> Arc<ServerConfig> {
        let mut config = (*self.server()).clone();
        config.send_tls13_tickets = 0;
        Arc::new(config)
    }

    /// A server with it.
    pub fn server(&self) -> Arc<ServerConfig> {
        serving(vec![self.chain.clone()], PrivateKeyDer::try_from(self.key.clone()).expect("a key"))
    }
}
