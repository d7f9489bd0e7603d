//! Signatures, keys and trust roots held against the real `ssh-keygen`: what we sign it verifies, what it signs we verify,
//! and every line of `allowed_signers` that we accept means the same to it. Where we are stricter, the test says so.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use holdfast_core::id::Principal;
use holdfast_core::sshsig::{HashAlg, PublicKey, Signature, SignatureError, armor, signed_data};
use holdfast_core::time::Timestamp;
use holdfast_core::trust::{AllowedSigners, Namespace};
use holdfast_edge::keys::{KeyError, Sign as _, SigningKey};
use p256::ecdsa::signature::Signer;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const ORDER: &str = "holdfast.order";

fn ssh_keygen(dir: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new("ssh-keygen")
        .args(args)
        .current_dir(dir)
        .env_remove("SSH_AUTH_SOCK")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ssh-keygen is installed (Debian: openssh-client)");
    // It may refuse, and end, before it has read everything.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("ssh-keygen ends")
}

fn generated(dir: &Path, name: &str, args: &[&str]) {
    let all = [&["-q", "-t", "ed25519", "-N", "", "-C", "a comment", "-f", name], args].concat();
    let output = ssh_keygen(dir, &all, b"");
    assert!(output.status.success(), "{output:?}");
}

fn text(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).expect("a file of this test")
}

/// Whether `ssh-keygen -Y verify` accepts it.
fn openssh_verifies(
    dir: &Path,
    file: &str,
    who: &str,
    namespace: &str,
    at: &str,
    signature: &str,
    message: &[u8],
) -> bool {
    std::fs::write(dir.join("file"), file).expect("a file of this test");
    std::fs::write(dir.join("sig"), signature).expect("a file of this test");
    let time = format!("-Overify-time={at}");
    let output =
        ssh_keygen(dir, &["-Y", "verify", "-f", "file", "-I", who, "-n", namespace, "-s", "sig", &time], message);
    output.status.success()
}

fn we_verify(file: &str, who: &str, namespace: Namespace, at: &str, signature: &str, message: &[u8]) -> bool {
    let Ok(signers) = AllowedSigners::parse(file) else { return false };
    let signature = Signature::parse(signature).expect("a sound signature");
    let who: Principal = who.parse().expect("a name");
    let time = format!("{}-{}-{}T{}:{}:{}.000Z", &at[..4], &at[4..6], &at[6..8], &at[8..10], &at[10..12], &at[12..14]);
    let at: Timestamp = time.parse().expect("a time");
    signers.authorise(&who, namespace, signature.public_key(), at).is_ok()
        && signature.verify(namespace.as_str(), message).is_ok()
}

#[test]
fn what_openssh_signs_we_verify() {
    let dir = TempDir::new().expect("a directory");
    generated(dir.path(), "key", &[]);
    let public = PublicKey::from_openssh(&text(dir.path(), "key.pub")).expect("a public key");
    let listed = ssh_keygen(dir.path(), &["-l", "-f", "key.pub"], b"").stdout;
    assert!(String::from_utf8_lossy(&listed).contains(&public.fingerprint()));
    for (message, hash) in [(&b""[..], "sha512"), (b"{\"v\":1}\n", "sha256"), (&[0xff; 70_000], "sha512")] {
        let hash = format!("-Ohashalg={hash}");
        let output = ssh_keygen(dir.path(), &["-q", "-Y", "sign", "-f", "key", "-n", ORDER, &hash], message);
        let armored = String::from_utf8(output.stdout).expect("armour is text");
        let signature = Signature::parse(&armored).expect("ssh-keygen's own signature");
        assert_eq!(signature.public_key(), &public);
        assert_eq!(signature.verify(ORDER, message), Ok(()));
        assert_eq!(signature.verify(ORDER, b"another"), Err(SignatureError::Mismatch));
        assert!(matches!(signature.verify("holdfast.report", message), Err(SignatureError::Namespace { .. })));
    }
}

#[test]
fn what_we_sign_openssh_verifies_and_would_have_signed_to_the_letter() {
    let dir = TempDir::new().expect("a directory");
    let key = SigningKey::generate().expect("random numbers");
    key.save(&dir.path().join("key")).expect("a new file");
    let line = format!("custodian-1 namespaces=\"holdfast.report\" {}", key.public_openssh("signing key"));
    let signature = key.sign("holdfast.report", b"alive");
    let verifies = |namespace, message: &[u8]| {
        openssh_verifies(dir.path(), &line, "custodian-1", namespace, "20260101000000Z", &signature, message)
    };
    assert!(verifies("holdfast.report", b"alive"));
    assert!(!verifies("holdfast.report", b"dead"));
    assert!(!verifies("holdfast.order", b"alive"));
    // Ed25519 is deterministic: OpenSSH with the file that we saved makes the very same armour.
    let theirs = ssh_keygen(dir.path(), &["-q", "-Y", "sign", "-f", "key", "-n", "holdfast.report"], b"alive");
    assert_eq!(String::from_utf8_lossy(&theirs.stdout), signature);
    let public = ssh_keygen(dir.path(), &["-y", "-f", "key"], b"");
    assert_eq!(String::from_utf8_lossy(&public.stdout).trim_end(), key.public_openssh(""));
}

#[test]
fn keys_that_openssh_made_are_loaded_and_the_wrong_ones_are_refused_by_name() {
    let dir = TempDir::new().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    generated(dir.path(), "key", &[]);
    let loaded = SigningKey::load(&path("key")).expect("OpenSSH's own key");
    assert_eq!(loaded.public_openssh("a comment"), text(dir.path(), "key.pub").trim_end());

    generated(dir.path(), "locked", &["-N", "a passphrase"]);
    let error = SigningKey::load(&path("locked")).expect_err("encrypted");
    assert!(matches!(error, KeyError::Encrypted(_)) && error.to_string().contains("ssh-keygen -p"), "{error}");
    for kind in ["ecdsa", "rsa"] {
        generated(dir.path(), kind, &["-t", kind]);
        let error = SigningKey::load(&path(kind)).expect_err("another type");
        assert!(
            matches!(error, KeyError::Type { .. }) && error.to_string().contains("ssh-keygen -t ed25519"),
            "{error}"
        );
    }
}

/// A token made of software, by PROTOCOL.u2f: `ssh-keygen` verifies such signatures without any device.
struct Token {
    name: &'static str,
    key: PublicKey,
    sign: Sign,
}

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

fn strings(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| [&(part.len() as u32).to_be_bytes()[..], part].concat()).collect()
}

impl Token {
    fn ed25519() -> Self {
        let name = "sk-ssh-ed25519@openssh.com";
        let secret = ed25519_dalek::SigningKey::from_bytes(&[3; 32]);
        let key = strings(&[name.as_bytes(), secret.verifying_key().as_bytes(), b"ssh:"]);
        let key = PublicKey::from_blob(&key).expect("a sound key");
        Self { name, key, sign: Box::new(move |data| secret.sign(data).to_bytes().to_vec()) }
    }

    fn p256() -> Self {
        let name = "sk-ecdsa-sha2-nistp256@openssh.com";
        let secret = p256::ecdsa::SigningKey::from_slice(&[3; 32]).expect("a scalar");
        let point = secret.verifying_key().to_encoded_point(false);
        let key = strings(&[name.as_bytes(), b"nistp256", point.as_bytes(), b"ssh:"]);
        let key = PublicKey::from_blob(&key).expect("a sound key");
        let mpint = |bytes: &[u8]| {
            let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(0);
            let sign = bytes[start] >= 0x80;
            [if sign { &[0][..] } else { &[] }, &bytes[start..]].concat()
        };
        let sign = move |data: &[u8]| {
            let signature: p256::ecdsa::Signature = secret.sign(data);
            let (r, s) = signature.split_bytes();
            strings(&[&mpint(&r), &mpint(&s)])
        };
        Self { name, key, sign: Box::new(sign) }
    }

    fn signature(&self, flags: u8, message: &[u8]) -> String {
        let mut data = Sha256::digest(b"ssh:").to_vec();
        data.extend([flags, 0, 0, 0, 9]);
        data.extend(Sha256::digest(signed_data(ORDER, HashAlg::Sha512, message)));
        let mut proof = strings(&[self.name.as_bytes(), &(self.sign)(&data)]);
        proof.extend([flags, 0, 0, 0, 9]);
        armor(&self.key, ORDER, HashAlg::Sha512, &proof)
    }
}

#[test]
fn a_tokens_signature_is_verified_alike_but_only_we_ask_for_a_touch() {
    let dir = TempDir::new().expect("a directory");
    for token in [Token::ed25519(), Token::p256()] {
        let line = format!("alice namespaces=\"{ORDER}\" {}\n", token.key);
        let at = "20260101000000Z";
        let openssh = |signature: &str, message: &[u8]| {
            openssh_verifies(dir.path(), &line, "alice", ORDER, at, signature, message)
        };
        let ours =
            |signature: &str, message: &[u8]| we_verify(&line, "alice", Namespace::Order, at, signature, message);

        let touched = token.signature(1, b"hold");
        assert!(openssh(&touched, b"hold") && ours(&touched, b"hold"), "{}", token.name);
        assert!(!openssh(&touched, b"held") && !ours(&touched, b"held"), "{}", token.name);
        // Bit 2 says that a PIN was typed; without bit 0 nobody is known to have been there.
        for flags in [0, 4] {
            let untouched = token.signature(flags, b"hold");
            assert!(openssh(&untouched, b"hold"), "OpenSSH checks the touch at login only");
            assert!(!ours(&untouched, b"hold"), "{}", token.name);
        }
    }
}

#[test]
fn a_trust_root_that_we_accept_means_the_same_to_openssh() {
    let dir = TempDir::new().expect("a directory");
    let key = SigningKey::generate().expect("random numbers");
    let other = SigningKey::generate().expect("random numbers");
    let signature = key.sign(ORDER, b"hold");
    let (mine, others) = (key.public_openssh("mine"), other.public_openssh("of another"));
    let order = format!("namespaces=\"{ORDER}\"");
    for file in [
        format!("alice {order} {mine}\n"),
        format!("# a comment\n\n\t alice \t{order}\t {mine}"),
        format!("alice {order} {others}\nalice NAMESPACES=\"holdfast.approval,{ORDER}\" {mine}\n"),
        format!("alice namespaces=\"holdfast.approval\" {mine}\n"),
        format!("alice {order} {others}\nbob {order} {mine}\n"),
        format!("alice {order},valid-after=\"20260615Z\" {mine}\n"),
        format!("alice {order},valid-before=\"20260615Z\" {mine}\n"),
        format!("alice valid-after=\"202606150000Z\",{order},Valid-Before=\"20260615000000Z\" {mine}\n"),
        format!("alice valid-after=\"202606142359Z\",{order},valid-before=\"20260615000001Z\" {mine}\n"),
    ] {
        for who in ["alice", "bob"] {
            for at in [
                "20260614235900Z",
                "20260614235959Z",
                "20260615000000Z",
                "20260615000001Z",
                "20260615000002Z",
                "20300101000000Z",
            ] {
                let theirs = openssh_verifies(dir.path(), &file, who, ORDER, at, &signature, b"hold");
                let ours = we_verify(&file, who, Namespace::Order, at, &signature, b"hold");
                assert_eq!(ours, theirs, "{who} at {at} by {file}");
            }
        }
    }
}

#[test]
fn what_openssh_refuses_in_a_trust_root_we_refuse_too() {
    let dir = TempDir::new().expect("a directory");
    let key = SigningKey::generate().expect("random numbers");
    let signature = key.sign(ORDER, b"hold");
    let mine = key.public_openssh("");
    let order = format!("namespaces=\"{ORDER}\"");
    let broken = [
        format!("alice namespaces={ORDER} {mine}\n"),
        format!("alice namespaces=\"{ORDER} {mine}\n"),
        format!("alice {order},{order} {mine}\n"),
        format!("alice {order},no-such-option {mine}\n"),
        format!("alice {order},valid-after=\"soon\" {mine}\n"),
        format!("alice {order},valid-after=\"20261301Z\" {mine}\n"),
        format!("alice {order},valid-before=\"19700101Z\" {mine}\n"),
        format!("alice {order},valid-after=\"19691231Z\" {mine}\n"),
        format!("alice {order},valid-after=\"20260102Z\",valid-before=\"20260101Z\" {mine}\n"),
        format!("alice {order},cert-authority {mine}\n"),
        format!("alice {order} {}\n", &mine[..mine.len() - 5]),
        format!("alice {order}\n"),
    ];
    // And what it accepts, or takes for something narrower, and we do not want in a trust root.
    let wider = [
        format!("alice {mine}\n"),
        format!("* {order} {mine}\n"),
        format!("alice,bob {order} {mine}\n"),
        format!("alice namespaces=\"holdfast.*\" {mine}\n"),
        format!("alice {order},valid-after=\"20250101\" {mine}\n"),
        format!("alice {order} {mine}\nbob {order} {mine}\n"),
    ];
    for (files, accepts) in [(&broken[..], false), (&wider, true)] {
        for file in files {
            let theirs = openssh_verifies(dir.path(), file, "alice", ORDER, "20260601000000Z", &signature, b"hold");
            assert_eq!(theirs, accepts, "ssh-keygen: {file}");
            assert!(AllowedSigners::parse(file).is_err(), "{file}");
        }
    }
}

#[test]
fn an_envelope_is_checked_by_hand_with_nothing_but_openssh() {
    let dir = TempDir::new().expect("a directory");
    let key = SigningKey::generate().expect("random numbers");
    let bytes = key.seal(Namespace::Report, b"{\"v\":1}").expect("a file signs");
    let envelope: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    let field = |name: &str| envelope[name].as_str().expect("text").to_owned();
    assert_eq!(field("body"), "eyJ2IjoxfQ==");
    let line = format!("custodian-1 namespaces=\"holdfast.report\" {}\n", key.public_openssh(""));
    let (namespace, at) = ("holdfast.report", "20260101000000Z");
    assert!(openssh_verifies(dir.path(), &line, "custodian-1", namespace, at, &field("signature"), b"{\"v\":1}"));
}
