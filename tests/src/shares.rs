//! The lab's shares, recovered from the ceremony's packets as only the custodians could, and the search for them.

use std::collections::BTreeSet;
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

/// How much of a share counts as found, raw: a piece of it is as bad as the whole. Eight bytes are not met by chance.
const RAW_RUN: usize = 8;

/// The same of a share that is spelled as text: files are full of hexadecimal, and eight digits are met by chance.
const TEXT_RUN: usize = 16;

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

/// What is searched for: every run of bytes of every share, raw, in hexadecimal of either case, and in base64 wherever it
/// begins.
#[derive(Debug)]
pub struct Needles {
    raw: BTreeSet<[u8; RAW_RUN]>,
    text: BTreeSet<[u8; TEXT_RUN]>,
    /// Which first two bytes any run has: nearly every place in a file is ruled out by them.
    starts: Vec<bool>,
}

impl Needles {
    /// The needles of these shares.
    pub fn of(shares: &[Share]) -> Self {
        let (mut raw, mut text) = (BTreeSet::new(), BTreeSet::new());
        for share in shares {
            raw.extend(runs::<RAW_RUN>(share));
            let digits = hex::encode(share);
            let digits = [digits.to_uppercase().into_bytes(), digits.into_bytes()];
            for spelled in [share.to_vec()].iter().chain(&digits) {
                // Base64 looks different from each of three starting points; that of the hexadecimal text, too.
                for start in 0..3 {
                    text.extend(runs::<TEXT_RUN>(BASE64_STANDARD_NO_PAD.encode(&spelled[start..]).as_bytes()));
                    text.extend(runs::<TEXT_RUN>(BASE64_URL_SAFE_NO_PAD.encode(&spelled[start..]).as_bytes()));
                }
            }
            text.extend(digits.iter().flat_map(|spelled| runs::<TEXT_RUN>(spelled)));
        }
        let mut starts = vec![false; 1 << 16];
        for run in raw.iter().map(<[u8; RAW_RUN]>::as_slice).chain(text.iter().map(<[u8; TEXT_RUN]>::as_slice)) {
            starts[start(run)] = true;
        }
        Self { raw, text, starts }
    }

    /// Where in these bytes any of it stands.
    pub fn find(&self, bytes: &[u8]) -> Option<usize> {
        let found = |rest: &[u8]| {
            rest.first_chunk().is_some_and(|run| self.raw.contains(run))
                || rest.first_chunk().is_some_and(|run| self.text.contains(run))
        };
        (0..bytes.len().saturating_sub(1)).find(|&at| self.starts[start(&bytes[at..])] && found(&bytes[at..]))
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

fn runs<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.windows(N).map(|run| run.try_into().expect("of that length"))
}

/// The first two bytes, as a number.
fn start(run: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([run[0], run[1]]))
}
