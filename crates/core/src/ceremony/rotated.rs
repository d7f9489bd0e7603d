//! What a server's own tool printed when shares were rotated: `bao operator rotate-keys` and `vault operator rekey`, as text
//! or with `-format=json`, and what `-backup-retrieve` prints as JSON.
//!
//! Parsing alone: whose a message is, an OpenPGP library says. Nothing of a value is ever repeated in an error: who rotated
//! without keys has shares in the clear in that file.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Deserialize;

use super::OPENPGP_MESSAGE_MAX;
use crate::share::SHARE_LEN;

/// The largest such file that is read, in bytes: 255 shares for RSA-4096 keys, each in hexadecimal and in base64.
pub const ROTATED_MAX: usize = 2 * 1024 * 1024;

/// The shares of one rotation, each encrypted to somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated(Vec<RotatedShare>);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotatedShare {
    /// The fingerprint of the key that it is said to be encrypted to, in lower-case hexadecimal.
    pub fingerprint: String,
    /// The binary OpenPGP message. Its plaintext is the share's text in hexadecimal.
    pub openpgp_message: Vec<u8>,
}

/// Why what was printed gives no shares. Whoever names the file adds its path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RotatedError {
    /// The file has no byte in it.
    #[error("the file is empty; it should have in it what rotate-keys printed when the last share was entered")]
    Empty,
    /// Larger than anything that is printed.
    #[error("the file has more than {ROTATED_MAX} bytes: it is not what rotate-keys printed")]
    Oversized,
    /// Not text.
    #[error("the file is not text: it is not what rotate-keys printed")]
    NotText,
    /// There are no shares in it, and nothing that says why.
    #[error(
        "there are no lines \"Key 1 fingerprint: …; value: …\" in it, and no JSON with \"keys\": it is not what rotate-keys printed when the last share was entered"
    )]
    Nothing,
    /// More of today's shares are needed.
    #[error(
        "the rotation is not complete: {progress} of {required} of today's shares were entered; enter the others with the same nonce, and take what is printed after the last"
    )]
    Incomplete {
        /// How many were entered.
        progress: u64,
        /// How many are needed.
        required: u64,
    },
    /// The rotation was made without keys.
    #[error(
        "THESE SHARES ARE IN THE CLEAR: the rotation was made without -pgp-keys; with -verify, cancel it (-verify -cancel, then -cancel) and begin again; else rotate again at once; and destroy this file"
    )]
    InTheClear,
    /// The end is missing.
    #[error("it is cut off {0}: take the whole output, from the first \"Key\" line to the end")]
    CutOff(&'static str),
    /// Two rotations in one file.
    #[error("there are two rotations in it: only the last counts, so remove the one before it")]
    Several,
    /// A value is not an encrypted message.
    #[error("key {0} is not an encrypted message: it was cut off or altered; take the output again")]
    Damaged(usize),
    /// Two shares for one key.
    #[error("keys {first} and {second} are for the same OpenPGP key, {fingerprint}: rotate again, with each key once")]
    SameKey {
        /// Which came first.
        first: usize,
        /// Which came second.
        second: usize,
        /// The key.
        fingerprint: String,
    },
    /// Not JSON, or of another form.
    #[error("it is not the JSON that rotate-keys prints: {0}")]
    Malformed(String),
}

impl Rotated {
    /// Reads what was printed.
    pub fn parse(bytes: &[u8]) -> Result<Self, RotatedError> {
        if bytes.len() > ROTATED_MAX {
            return Err(RotatedError::Oversized);
        }
        let text = str::from_utf8(bytes).map_err(|_| RotatedError::NotText)?.trim();
        if text.is_empty() {
            return Err(RotatedError::Empty);
        }
        // A terminal's prompt may stand before it.
        let json = text.lines().find(|line| line.starts_with('{')).and_then(|line| text.find(line));
        let printed = match json {
            Some(at) => from_json(text.get(at..).unwrap_or_default())?,
            None => from_text(text)?,
        };
        let shares = printed.into_iter().enumerate().map(|(index, (fingerprint, value))| {
            let openpgp_message = message(&value, index + 1)?;
            Ok(RotatedShare { fingerprint: checked_fingerprint(&fingerprint, index + 1)?, openpgp_message })
        });
        let shares: Vec<RotatedShare> = shares.collect::<Result<_, _>>()?;
        for (second, share) in shares.iter().enumerate() {
            if let Some(first) = shares.iter().take(second).position(|other| other.fingerprint == share.fingerprint) {
                let fingerprint = share.fingerprint.clone();
                return Err(RotatedError::SameKey { first: first + 1, second: second + 1, fingerprint });
            }
        }
        Ok(Self(shares))
    }

    /// The shares, in the order in which they were printed.
    pub fn shares(&self) -> &[RotatedShare] {
        &self.0
    }
}

/// A fingerprint and a value for each share, as they stand there.
type Printed = Vec<(String, String)>;

fn from_text(text: &str) -> Result<Printed, RotatedError> {
    let (mut printed, mut whole, mut progress) = (Printed::new(), false, None);
    for line in text.lines().map(str::trim) {
        if let Some((number, rest)) = numbered(line) {
            let Some(rest) = rest.strip_prefix(" fingerprint: ") else { return Err(RotatedError::InTheClear) };
            let (fingerprint, value) = rest.split_once("; value: ").ok_or(RotatedError::CutOff("in a line"))?;
            match number {
                1 if !printed.is_empty() => return Err(RotatedError::Several),
                _ if number != printed.len() + 1 => {
                    return Err(RotatedError::CutOff("before the first or between two"));
                }
                _ => printed.push((fingerprint.to_owned(), value.to_owned())),
            }
        } else if line.starts_with("Operation nonce:") {
            whole = !printed.is_empty();
        } else if let Some(fraction) = line.strip_prefix("Progress ") {
            progress = fraction.trim().split_once('/').and_then(|(p, r)| Some((p.parse().ok()?, r.parse().ok()?)));
        }
    }
    match (printed.is_empty(), whole, progress) {
        (false, true, _) => Ok(printed),
        (false, false, _) => Err(RotatedError::CutOff("after the last \"Key\" line, before \"Operation nonce\"")),
        (true, _, Some((progress, required))) => Err(RotatedError::Incomplete { progress, required }),
        (true, _, None) => Err(RotatedError::Nothing),
    }
}

/// `Key 3…` or, as `init` prints it, `Unseal Key 3…`: the number, and what follows it.
fn numbered(line: &str) -> Option<(usize, &str)> {
    let rest = line.strip_prefix("Unseal ").unwrap_or(line).strip_prefix("Key ")?;
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    let follows = rest.get(end..).filter(|rest| rest.starts_with([':', ' ']))?;
    Some((rest.get(..end)?.parse().ok()?, follows))
}

/// What a tool prints or the API answers; a server adds fields at will.
#[derive(Deserialize)]
struct Wire {
    keys: Option<Keys>,
    pgp_fingerprints: Option<Vec<String>>,
    progress: Option<u64>,
    required: Option<u64>,
    data: Option<Box<Wire>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Keys {
    /// In the order of `pgp_fingerprints`.
    Printed(Vec<String>),
    /// By fingerprint: a backup.
    Backup(BTreeMap<String, Vec<String>>),
}

/// One document for each share that was entered may be in it; one has the keys.
fn from_json(text: &str) -> Result<Printed, RotatedError> {
    let (mut printed, mut progress) = (None, None);
    for wire in serde_json::Deserializer::from_str(text).into_iter::<Wire>() {
        // serde's words could repeat what is in it, so they are left out.
        let wire = wire.map_err(|error| match error.is_eof() {
            true => RotatedError::CutOff("before its end"),
            false => RotatedError::Malformed(format!("line {}, column {}", error.line(), error.column())),
        })?;
        let wire = wire.data.map_or_else(|| Wire { data: None, ..wire }, |data| *data);
        match (wire.keys, wire.progress, wire.required) {
            (Some(_), ..) if printed.is_some() => return Err(RotatedError::Several),
            (Some(keys), ..) => printed = Some(pairs(keys, wire.pgp_fingerprints.unwrap_or_default())?),
            (None, Some(p), Some(r)) => progress = Some((p, r)),
            _ => {}
        }
    }
    match (printed, progress) {
        (Some(printed), _) => Ok(printed),
        (None, Some((progress, required))) => Err(RotatedError::Incomplete { progress, required }),
        (None, None) => Err(RotatedError::Nothing),
    }
}

fn pairs(keys: Keys, fingerprints: Vec<String>) -> Result<Printed, RotatedError> {
    match keys {
        Keys::Printed(keys) if keys.is_empty() => Err(RotatedError::Nothing),
        Keys::Printed(_) if fingerprints.is_empty() => Err(RotatedError::InTheClear),
        Keys::Printed(keys) if keys.len() != fingerprints.len() => {
            Err(RotatedError::Malformed(format!("{} keys and {} fingerprints", keys.len(), fingerprints.len())))
        }
        Keys::Printed(keys) => Ok(fingerprints.into_iter().zip(keys).collect()),
        Keys::Backup(keys) => {
            let each = keys.into_iter().flat_map(|(key, values)| values.into_iter().map(move |v| (key.clone(), v)));
            Ok(each.collect())
        }
    }
}

/// Text prints base64, JSON hexadecimal; base64 of a whole message is never hexadecimal by chance.
fn message(value: &str, number: usize) -> Result<Vec<u8>, RotatedError> {
    let hexadecimal = value.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bytes = if hexadecimal { hex::decode(value).ok() } else { BASE64_STANDARD.decode(value).ok() };
    let bytes = bytes.ok_or(RotatedError::Damaged(number))?;
    if bytes.len() == SHARE_LEN {
        return Err(RotatedError::InTheClear);
    }
    // The first byte of an OpenPGP packet has its highest bit set.
    let packet = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    if packet && bytes.len() <= OPENPGP_MESSAGE_MAX { Ok(bytes) } else { Err(RotatedError::Damaged(number)) }
}

fn checked_fingerprint(text: &str, number: usize) -> Result<String, RotatedError> {
    let well_formed = text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if well_formed { Ok(text.to_ascii_lowercase()) } else { Err(RotatedError::Damaged(number)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "9e8838753937d7fa8f51bb67603cc4a7057ebc35";
    const SECOND: &str = "d5bc6ff359388af0b5855d4db61e0195277e19f8";

    fn message(fill: u8) -> Vec<u8> {
        [&[0xC1][..], &[fill; 500]].concat()
    }

    fn line(number: usize, fingerprint: &str, fill: u8) -> String {
        format!("Key {number} fingerprint: {fingerprint}; value: {}\n", BASE64_STANDARD.encode(message(fill)))
    }

    /// As OpenBao 2.7.2 printed it, and HashiCorp Vault's source does: only the names in the closing words differ.
    fn printed() -> String {
        let keys = [line(1, FIRST, 1), line(2, SECOND, 2)].concat();
        format!(
            "Rotation operation nonce: 1\r\nUnseal Key (will be hidden): \r\n\n{keys}\nOperation nonce: b6a51534-7794-4ce1-c58c-f9b7abf6625e\n\n\
             OpenBao has created a new unseal key, split into 2 key shares and a key\nthreshold of 2.\n\n\
             Key                      Value\n---                      -----\nStarted                  true\n\
             Verification Progress    0/2\n"
        )
    }

    fn json() -> serde_json::Value {
        serde_json::json!({
            "nonce": "n", "complete": true, "keys": [hex::encode(message(1)), hex::encode(message(2))],
            "keys_base64": [], "pgp_fingerprints": [FIRST, SECOND.to_uppercase()], "backup": false,
            "verification_required": true, "verification_nonce": "v",
        })
    }

    #[test]
    fn every_form_that_the_servers_print_gives_the_same() {
        let rotated = Rotated::parse(printed().as_bytes()).expect("text");
        let found: Vec<_> = rotated.shares().iter().map(|share| share.fingerprint.as_str()).collect();
        assert_eq!(found, [FIRST, SECOND]);
        assert_eq!(rotated.shares()[1].openpgp_message, message(2));

        let backup = serde_json::json!({ "request_id": "", "data": { "nonce": "n", "keys": {
            FIRST: [hex::encode(message(1))], SECOND: [hex::encode(message(2))],
        }}});
        let progress = r#"{"nonce":"n","started":true,"progress":1,"required":2}"#;
        for text in [
            json().to_string(),
            serde_json::json!({ "data": json() }).to_string(),
            backup.to_string(),
            format!("{progress}\n{}", json()),
            format!("Rotation operation nonce: n\nUnseal Key (will be hidden): \n{}", json()),
            printed().replace('\n', "\r\n"),
        ] {
            assert_eq!(Rotated::parse(text.as_bytes()).as_ref(), Ok(&rotated), "{text}");
        }
    }

    #[test]
    fn what_is_no_whole_output_is_refused_by_name() {
        let refused = |text: &str| Rotated::parse(text.as_bytes()).expect_err(text);
        assert_eq!(refused(" \n"), RotatedError::Empty);
        assert_eq!(refused("hello"), RotatedError::Nothing);
        assert_eq!(Rotated::parse(b"\xff\xfe"), Err(RotatedError::NotText));
        assert_eq!(Rotated::parse(&vec![b' '; ROTATED_MAX + 1]), Err(RotatedError::Oversized));
        let incomplete = RotatedError::Incomplete { progress: 1, required: 3 };
        assert_eq!(refused("Key    Value\nNonce   n\nProgress                 1/3\n"), incomplete);
        assert_eq!(refused(r#"{"nonce":"n","progress":1,"required":3}"#), incomplete);

        let whole = printed();
        for cut in 0..whole.find("Operation nonce").expect("there") {
            assert!(Rotated::parse(&whole.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
        let object = json().to_string();
        for cut in 0..object.len() {
            assert!(Rotated::parse(&object.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
        assert!(matches!(refused(&object[..object.len() / 2]), RotatedError::CutOff(_)));
        assert!(matches!(refused(&whole.replace("Key 1", "Key 7")), RotatedError::CutOff(_)));
        assert_eq!(refused(&[whole.clone(), whole.clone()].concat()), RotatedError::Several);
        assert_eq!(refused(&[object.clone(), object].concat()), RotatedError::Several);
        assert_eq!(refused(&whole.replace(SECOND, "d5bc")), RotatedError::Damaged(2));
        assert_eq!(refused(&whole.replace("; value: w", "; value: ")), RotatedError::Damaged(1));
        assert!(matches!(refused(&whole.replace(SECOND, FIRST)), RotatedError::SameKey { first: 1, second: 2, .. }));
    }

    #[test]
    fn shares_in_the_clear_are_called_that_and_never_repeated() {
        let share = [0xE7; SHARE_LEN];
        let (base64, hexadecimal) = (BASE64_STANDARD.encode(share), hex::encode(share));
        for text in [
            format!("\nKey 1: {base64}\nKey 2: {base64}\n\nOperation nonce: n\n"),
            format!("Unseal Key 1: {base64}\n\nInitial Root Token: s.x\n"),
            format!(r#"{{"nonce":"n","complete":true,"keys":["{hexadecimal}"],"pgp_fingerprints":null}}"#),
            format!("Key 1 fingerprint: {FIRST}; value: {base64}\n\nOperation nonce: n\n"),
        ] {
            assert_eq!(Rotated::parse(text.as_bytes()), Err(RotatedError::InTheClear), "{text}");
        }
        let malformed = format!(r#"{{"keys":"{hexadecimal}"}}"#);
        let error = Rotated::parse(malformed.as_bytes()).expect_err("no list").to_string();
        assert!(!error.contains(&hexadecimal[..8]), "{error}");
    }
}
