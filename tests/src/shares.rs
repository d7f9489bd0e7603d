//! The lab's shares, recovered from the ceremony's packets as only the custodians could, and the search for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use pgp::composed::{Deserializable, Message, SignedSecretKey};
use pgp::types::Password;
use serde_json::Value;

use crate::lab::Lab;

/// The length of a share: 32 bytes, and which one it is.
pub const SHARE_LEN: usize = 33;

/// A share.
pub type Share = [u8; SHARE_LEN];

/// How much of a share counts as found: a piece of it is as bad as the whole. Eight bytes are not met by chance, however they are
/// spelled.
const RUN: usize = 8;

/// So many characters of base64 are eight bytes, wherever they begin.
const RUN_BASE64: usize = (RUN * 8).div_ceil(6);

/// The share in a packet, decrypted with the transport key that the custodian enrolled with.
pub fn recover(packet: &Path, transport_key: &Path) -> Share {
    let packet: Value = serde_json::from_slice(&fs::read(packet).expect("a packet")).expect("JSON");
    let message = BASE64_STANDARD.decode(packet["openpgp_message"].as_str().expect("a message")).expect("base64");
    let key = fs::read(transport_key).expect("a transport key");
    let (key, _) = SignedSecretKey::from_armor_single(key.as_slice()).expect("an armoured key");
    let message = Message::from_bytes(message.as_slice()).expect("an OpenPGP message");
    let mut message = message.decrypt(&Password::empty(), &key).expect("it is encrypted to this key");
    let mut text = String::new();
    message.read_to_string(&mut text).expect("a share's text");
    hex::decode(text.trim()).expect("hexadecimal").try_into().expect("33 bytes")
}

/// A custodian's share in a lab.
pub fn of_lab(lab: &Lab, custodian: &str) -> Share {
    let home = lab.path(&lab.custodian(custodian).config);
    let packet = lab.dir().join(format!("ceremony/output/packets/{custodian}.packet.json"));
    recover(&packet, &home.with_file_name("transport.key"))
}

/// What is searched for: every run of eight bytes of every secret, raw, in hexadecimal of either case, as numbers in a list, in base64 wherever
/// it begins, also that of the hexadecimal text, and all of it as it stands in a URL.
#[derive(Debug)]
pub struct Needles {
    /// By their length.
    runs: BTreeMap<usize, BTreeSet<Vec<u8>>>,
    /// Which first three bytes any run has: nearly every place in a file is ruled out by them.
    starts: Vec<bool>,
}

impl Needles {
    /// The needles of these shares.
    pub fn of(shares: &[Share]) -> Self {
        Self::of_secrets(shares.iter().map(Share::as_slice))
    }

    /// The needles of any bytes that nobody should find.
    pub fn of_secrets<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut needles = Self { runs: BTreeMap::new(), starts: vec![false; 1 << 24] };
        for secret in secrets {
            needles.add_runs(secret, RUN);
            let digits = hex::encode(secret).into_bytes();
            let numbers = secret.iter().map(u8::to_string).collect::<Vec<_>>();
            for run in numbers.windows(RUN) {
                needles.add(run.join(",").into_bytes());
                needles.add(run.join(", ").into_bytes());
            }
            for run in secret.windows(RUN) {
                needles.add_as_in_urls(run);
            }
            for spelled in [&digits, &digits.to_ascii_uppercase()] {
                needles.add_runs(spelled, 2 * RUN);
                needles.add_base64(spelled, 2 * RUN_BASE64);
            }
            needles.add_base64(secret, RUN_BASE64);
        }
        needles
    }

    /// Adds every run of this length of a text.
    pub fn add_runs(&mut self, text: &[u8], length: usize) {
        text.windows(length).for_each(|run| self.add(run.to_vec()));
    }

    /// Base64 looks different from each of three starting points.
    fn add_base64(&mut self, bytes: &[u8], length: usize) {
        for start in 0..3 {
            let standard = BASE64_STANDARD_NO_PAD.encode(&bytes[start..]);
            let in_urls = BASE64_URL_SAFE_NO_PAD.encode(&bytes[start..]);
            for text in [standard, in_urls] {
                for run in text.as_bytes().windows(length) {
                    self.add(run.to_vec());
                    self.add_as_in_urls(run);
                }
            }
        }
    }

    /// Percent-encoding, with digits of either case, of what needs it and of everything.
    fn add_as_in_urls(&mut self, run: &[u8]) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let lower = |byte: u8| format!("%{byte:02x}");
        let upper = |byte: u8| format!("%{byte:02X}");
        for encode in [&lower as &dyn Fn(u8) -> String, &upper] {
            let needed = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { encode(byte) };
            self.add(run.iter().map(|byte| needed(*byte)).collect::<String>().into_bytes());
            self.add(run.iter().map(|byte| encode(*byte)).collect::<String>().into_bytes());
        }
    }

    fn add(&mut self, run: Vec<u8>) {
        self.starts[start(&run)] = true;
        self.runs.entry(run.len()).or_default().insert(run);
    }

    /// Where in these bytes any of it stands.
    pub fn find(&self, bytes: &[u8]) -> Option<usize> {
        let found = |rest: &[u8]| {
            self.runs.iter().any(|(length, runs)| rest.get(..*length).is_some_and(|run| runs.contains(run)))
        };
        (0..bytes.len().saturating_sub(2)).find(|&at| self.starts[start(&bytes[at..])] && found(&bytes[at..]))
    }

    /// Every file below a folder that has any of it, and how many bytes were looked at.
    pub fn search(&self, folder: &Path) -> (Vec<PathBuf>, u64) {
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
                let entry = entry.expect("readable");
                let (path, kind) = (entry.path(), entry.file_type().expect("a type"));
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() {
                    // A server may remove a file of its own meanwhile.
                    let Ok(content) = fs::read(&path) else { continue };
                    bytes += content.len() as u64;
                    found.extend(self.find(&content).map(|_| path));
                }
            }
        }
        (found, bytes)
    }
}

/// The first three bytes, as a number.
fn start(run: &[u8]) -> usize {
    usize::from(run[0]) << 16 | usize::from(run[1]) << 8 | usize::from(run[2])
}
