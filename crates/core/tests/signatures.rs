//! Signatures, keys, envelopes and trust roots from hostile hands: whatever the bytes are, nothing panics, and nothing that
//! was not signed verifies. The FIDO2 blobs are made here by hand, from OpenSSH's PROTOCOL.u2f, not by the code under test.

use base64::prelude::{BASE64_STANDARD, Engine};
use curve25519_dalek::scalar::Scalar;
use ed25519_dalek::{Signer, SigningKey, Verifier, VerifyingKey};
use holdfast_core::envelope::{BODY_MAX, ENVELOPE_MAX, Envelope, EnvelopeError};
use holdfast_core::id::Principal;
use holdfast_core::sshsig::{
    HashAlg, PublicKey, PublicKeyError, SIGNATURE_MAX, Signature, SignatureError, signed_data,
};
use holdfast_core::time::Timestamp;
use holdfast_core::trust::{ALLOWED_SIGNERS_MAX, AllowedSigners, LineProblem, Namespace, TrustError, TrustRefusal};
use proptest::prelude::*;
use sha2::{Digest, Sha256, Sha512};

const ORDER: &str = "holdfast.order";
const TOUCHED: u8 = 1;

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}

fn strings(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        string(&mut out, part);
    }
    out
}

/// The binary signature, field by field, so that each can be made wrong.
fn sshsig(version: u32, key: &[u8], namespace: &[u8], reserved: &[u8], hash: &[u8], proof: &[u8]) -> Vec<u8> {
    let mut blob = b"SSHSIG".to_vec();
    blob.extend(version.to_be_bytes());
    blob.extend(strings(&[key, namespace, reserved, hash, proof]));
    blob
}

fn armored(blob: &[u8]) -> String {
    format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", BASE64_STANDARD.encode(blob))
}

fn secret() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn key_blob(secret: &SigningKey) -> Vec<u8> {
    strings(&[b"ssh-ed25519", secret.verifying_key().as_bytes()])
}

fn proof(secret: &SigningKey, namespace: &str, message: &[u8]) -> Vec<u8> {
    let signature = secret.sign(&signed_data(namespace, HashAlg::Sha512, message)).to_bytes();
    strings(&[b"ssh-ed25519", &signature])
}

fn signature_blob(message: &[u8]) -> Vec<u8> {
    let secret = secret();
    sshsig(1, &key_blob(&secret), ORDER.as_bytes(), b"", b"sha512", &proof(&secret, ORDER, message))
}

/// What a token signs, by PROTOCOL.u2f.
fn token_data(application: &[u8], flags: u8, counter: u32, data: &[u8]) -> Vec<u8> {
    let mut signed = Sha256::digest(application).to_vec();
    signed.push(flags);
    signed.extend(counter.to_be_bytes());
    signed.extend(Sha256::digest(data));
    signed
}

fn sk_ed25519(application: &[u8], flags: u8, message: &[u8]) -> Vec<u8> {
    let secret = secret();
    let name = b"sk-ssh-ed25519@openssh.com";
    let key = strings(&[name, secret.verifying_key().as_bytes(), application]);
    let data = token_data(application, flags, 5, &signed_data(ORDER, HashAlg::Sha512, message));
    let mut proof = strings(&[name, &secret.sign(&data).to_bytes()]);
    proof.push(flags);
    proof.extend(5u32.to_be_bytes());
    sshsig(1, &key, ORDER.as_bytes(), b"", b"sha512", &proof)
}

fn mpint(bytes: &[u8]) -> Vec<u8> {
    let bytes: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    if bytes.first().is_some_and(|first| *first >= 0x80) { [vec![0], bytes].concat() } else { bytes }
}

fn sk_p256(flags: u8, message: &[u8]) -> Vec<u8> {
    let secret = p256::ecdsa::SigningKey::from_slice(&[9; 32]).expect("a scalar");
    let name = b"sk-ecdsa-sha2-nistp256@openssh.com";
    let point = secret.verifying_key().to_encoded_point(false);
    let key = strings(&[name, b"nistp256", point.as_bytes(), b"ssh:"]);
    let data = token_data(b"ssh:", flags, 6, &signed_data(ORDER, HashAlg::Sha512, message));
    let signature: p256::ecdsa::Signature = secret.sign(&data);
    let (r, s) = signature.split_bytes();
    let mut proof = strings(&[name, &strings(&[&mpint(&r), &mpint(&s)])]);
    proof.push(flags);
    proof.extend(6u32.to_be_bytes());
    sshsig(1, &key, ORDER.as_bytes(), b"", b"sha512", &proof)
}

fn check(blob: &[u8], message: &[u8]) -> Result<(), SignatureError> {
    Signature::parse(&armored(blob))?.verify(ORDER, message)
}

#[test]
fn each_kind_of_key_verifies_its_own_message_and_no_other() {
    for blob in [signature_blob(b"open"), sk_ed25519(b"ssh:", TOUCHED, b"open"), sk_p256(TOUCHED, b"open")] {
        assert_eq!(check(&blob, b"open"), Ok(()));
        assert_eq!(check(&blob, b"Open"), Err(SignatureError::Mismatch));
        assert_eq!(check(&blob, b""), Err(SignatureError::Mismatch));
        let signature = Signature::parse(&armored(&blob)).expect("well formed");
        assert_eq!(signature.namespace(), ORDER);
        assert!(matches!(signature.verify("holdfast.approval", b"open"), Err(SignatureError::Namespace { .. })));
    }
}

#[test]
fn a_token_that_nobody_touched_counts_for_nothing() {
    // Bit 2 alone says that somebody was verified, but not that somebody was there.
    for flags in [0, 4, 0xfe] {
        assert_eq!(check(&sk_ed25519(b"ssh:", flags, b"open"), b"open"), Err(SignatureError::NoPresence));
        assert_eq!(check(&sk_p256(flags, b"open"), b"open"), Err(SignatureError::NoPresence));
    }
    // And the flag is part of what was signed: it cannot be set afterwards.
    let mut blob = sk_ed25519(b"ssh:", 0, b"open");
    let flags = blob.len() - 5;
    blob[flags] = TOUCHED;
    assert_eq!(check(&blob, b"open"), Err(SignatureError::Mismatch));
    assert_eq!(check(&sk_ed25519(b"ssh:", 5, b"open"), b"open"), Ok(()));
}

#[test]
fn a_tokens_key_for_another_application_is_refused() {
    let refused = check(&sk_ed25519(b"https://example.com", TOUCHED, b"open"), b"open");
    let application = PublicKeyError::Application("https://example.com".into());
    assert_eq!(refused, Err(SignatureError::Key(application)));
}

#[test]
fn a_key_of_small_order_signs_nothing_although_the_plain_check_accepts_it() {
    // The neutral element as the key. Then R = S·B satisfies the equation for every message; S = 1 makes R the base point.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut forged = [0; 64];
    forged[..32].fill(0x66);
    forged[0] = 0x58;
    forged[32] = 1;
    let data = signed_data(ORDER, HashAlg::Sha512, b"anything");
    let plain = VerifyingKey::from_bytes(&neutral).expect("a point");
    assert!(plain.verify(&data, &ed25519_dalek::Signature::from_bytes(&forged)).is_ok(), "the attack is real");

    assert_eq!(PublicKey::from_ed25519(neutral), Err(PublicKeyError::Weak));
    for name in ["ssh-ed25519", "sk-ssh-ed25519@openssh.com"] {
        let mut key = strings(&[name.as_bytes(), &neutral]);
        let mut proof = strings(&[name.as_bytes(), &forged]);
        if name.starts_with("sk-") {
            string(&mut key, b"ssh:");
            proof.extend([TOUCHED, 0, 0, 0, 1]);
        }
        let blob = sshsig(1, &key, ORDER.as_bytes(), b"", b"sha512", &proof);
        assert_eq!(check(&blob, b"anything"), Err(SignatureError::Key(PublicKeyError::Weak)));
        let line = format!("mallory namespaces=\"{ORDER}\" {name} {}", BASE64_STANDARD.encode(&key));
        assert!(AllowedSigners::parse(line).is_err());
        let error = Envelope::parse(&Envelope::assemble(b"anything", &armored(&blob))).expect_err("a weak key");
        assert_eq!(error.reason(), "forged");
    }
}

#[test]
fn a_signature_without_a_nonce_is_refused_although_the_plain_check_accepts_it() {
    // R is the neutral element and S = k·a: it takes the secret key, but the strict check does not let it pass either.
    let secret = secret();
    let mut forged = [0; 64];
    forged[0] = 1;
    let data = signed_data(ORDER, HashAlg::Sha512, b"open");
    let hash = Sha512::new().chain_update(&forged[..32]).chain_update(secret.verifying_key()).chain_update(&data);
    let s = Scalar::from_bytes_mod_order_wide(&hash.finalize().into()) * secret.to_scalar();
    forged[32..].copy_from_slice(s.as_bytes());
    assert!(secret.verifying_key().verify(&data, &ed25519_dalek::Signature::from_bytes(&forged)).is_ok(), "it is real");

    let proof = strings(&[b"ssh-ed25519", &forged]);
    let blob = sshsig(1, &key_blob(&secret), ORDER.as_bytes(), b"", b"sha512", &proof);
    assert_eq!(check(&blob, b"open"), Err(SignatureError::Mismatch));
}

#[test]
fn every_spelling_of_every_weak_point_is_refused() {
    // The eight points of small order and the spellings of them that are not their own (y + p, or the wrong sign of 0).
    let order_8 = [
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    ];
    let mut weak: Vec<String> = Vec::new();
    for y in order_8 {
        weak.push(y.to_owned());
        let (head, last) = y.split_at(62);
        let last = u8::from_str_radix(last, 16).expect("hexadecimal") | 0x80;
        weak.push(format!("{head}{last:02x}"));
    }
    for (first, middle, last) in [
        ("00", "00", "00"),
        ("00", "00", "80"),
        ("01", "00", "00"),
        ("01", "00", "80"),
        ("ec", "ff", "7f"),
        ("ec", "ff", "ff"),
        ("ed", "ff", "7f"),
        ("ed", "ff", "ff"),
        ("ee", "ff", "7f"),
        ("ee", "ff", "ff"),
    ] {
        weak.push(format!("{first}{}{last}", middle.repeat(30)));
    }
    for text in weak {
        let point: [u8; 32] = hex::decode(&text).expect("hexadecimal").try_into().expect("32 bytes");
        assert_eq!(PublicKey::from_ed25519(point), Err(PublicKeyError::Weak), "{text}");
    }
    // A point of large order in a spelling that is not its own: y = 3 written as p + 3.
    let mut canonical = [0; 32];
    canonical[0] = 3;
    let mut twin = [0xff; 32];
    (twin[0], twin[31]) = (0xf0, 0x7f);
    assert!(PublicKey::from_ed25519(canonical).is_ok());
    assert_eq!(PublicKey::from_ed25519(twin), Err(PublicKeyError::Weak));
}

#[test]
fn what_is_not_exactly_the_format_is_refused_by_name() {
    let secret = secret();
    let (key, proof) = (key_blob(&secret), proof(&secret, ORDER, b"open"));
    let order = ORDER.as_bytes();
    let damaged = |blob: &[u8]| matches!(check(blob, b"open"), Err(SignatureError::Damaged(_)));

    assert_eq!(check(&sshsig(1, &key, order, b"", b"sha512", &proof), b"open"), Ok(()));
    assert_eq!(check(&sshsig(2, &key, order, b"", b"sha512", &proof), b"open"), Err(SignatureError::Version(2)));
    assert_eq!(check(&sshsig(0, &key, order, b"", b"sha512", &proof), b"open"), Err(SignatureError::Version(0)));
    assert!(damaged(&sshsig(1, &key, b"", b"", b"sha512", &proof)), "no namespace");
    assert!(damaged(&sshsig(1, &key, &[b'a'; 65], b"", b"sha512", &proof)), "a long namespace");
    assert!(damaged(&sshsig(1, &key, b"\xff", b"", b"sha512", &proof)), "a namespace that is not text");
    assert!(damaged(&sshsig(1, &key, order, b"x", b"sha512", &proof)), "the reserved field, which nothing signs");
    for hash in [b"sha1".as_slice(), b"SHA512", b"", b"sha384"] {
        assert!(damaged(&sshsig(1, &key, order, b"", hash, &proof)), "{hash:?}");
    }
    assert_eq!(check(&sshsig(1, &key, order, b"", b"sha256", &proof), b"open"), Err(SignatureError::Mismatch));
    assert!(damaged(&[signature_blob(b"open"), vec![0]].concat()), "something after the end");
    assert!(damaged(&sshsig(1, &key, order, b"", b"sha512", &[proof.clone(), vec![0]].concat())), "after the proof");
    assert!(damaged(&sshsig(1, &key, order, b"", b"sha512", &strings(&[b"ssh-ed25519", &[0; 63]]))), "63 bytes");
    let foreign = strings(&[b"sk-ssh-ed25519@openssh.com", &[0; 64]]);
    assert!(damaged(&sshsig(1, &key, order, b"", b"sha512", &foreign)), "a proof of another type than the key");
    let rsa = strings(&[b"ssh-rsa", &[1, 0, 1], &[0x77; 256]]);
    let refused = SignatureError::Key(PublicKeyError::Type("ssh-rsa".into()));
    assert_eq!(check(&sshsig(1, &rsa, order, b"", b"sha512", &proof), b"open"), Err(refused));
    let whole = signature_blob(b"open");
    for len in 0..whole.len() {
        assert!(check(&whole[..len], b"open").is_err(), "cut at {len}");
    }
}

#[test]
fn the_armor_has_nothing_around_it_and_a_limit() {
    let text = armored(&signature_blob(b"open"));
    assert!(Signature::parse(&text).is_ok());
    assert!(Signature::parse(text.trim_end()).is_ok());
    for wrong in [
        String::new(),
        format!(" {text}"),
        format!("{text}\n"),
        format!("{text}x"),
        format!("{text}{text}"),
        text.replace('\n', "\r\n"),
        text.replace("BEGIN SSH", "BEGIN PGP"),
        text.replace("-----END", "----END"),
        text.replacen("U1NI", "U1N*", 1),
        text.replacen("U1NI", "U1 NI", 1),
        "-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----\n".to_owned(),
    ] {
        assert!(matches!(Signature::parse(&wrong), Err(SignatureError::Armor(_))), "{wrong:?}");
    }
    assert_eq!(Signature::parse(&"x".repeat(SIGNATURE_MAX + 1)).err(), Some(SignatureError::Oversized));
}

#[test]
fn a_public_key_has_one_spelling_and_one_fingerprint() {
    let key = PublicKey::from_blob(&key_blob(&secret())).expect("a key");
    let text = key.to_openssh();
    assert_eq!(PublicKey::from_openssh(&format!("{text} a comment\n")), Ok(key.clone()));
    assert_eq!(key.type_name(), "ssh-ed25519");
    assert!(!key.is_token());
    let base64 = text.split(' ').nth(1).expect("type and base64");
    for (wrong, expected) in [
        (format!("sk-ssh-ed25519@openssh.com {base64}"), PublicKeyError::Damaged),
        (format!("ssh-rsa {base64}"), PublicKeyError::Type("ssh-rsa".into())),
        (base64.to_owned(), PublicKeyError::Text),
        (String::new(), PublicKeyError::Text),
        (format!("{text}\n{text}"), PublicKeyError::Text),
        (format!("ssh-ed25519 {}", &base64[..base64.len() - 1]), PublicKeyError::Damaged),
        (format!("ssh-ed25519 {base64}AAAA"), PublicKeyError::Damaged),
        (format!("{text} {}", "x".repeat(1024)), PublicKeyError::Oversized),
    ] {
        assert_eq!(PublicKey::from_openssh(&wrong), Err(expected), "{wrong:?}");
    }
}

#[test]
fn one_secret_is_one_key_whatever_it_is_called() {
    let name = "sk-ssh-ed25519@openssh.com";
    let token = strings(&[name.as_bytes(), secret().verifying_key().as_bytes(), b"ssh:"]);
    let line = |who: &str, key: &[u8]| {
        let key = PublicKey::from_blob(key).expect("a key");
        format!("{who} namespaces=\"{ORDER}\" {key}\n")
    };
    let file = line("alice", &key_blob(&secret())) + &line("bob", &token);
    let refused = AllowedSigners::parse(file).expect_err("alice could pose as bob's token");
    assert_eq!(refused, TrustError::Line { line: 2, problem: LineProblem::KeyTwice(1) });
}

fn alice() -> Principal {
    "alice".parse().expect("a name")
}

fn signers(blob: &[u8]) -> AllowedSigners {
    let key = Signature::parse(&armored(blob)).expect("well formed").public_key().to_openssh();
    AllowedSigners::parse(format!("alice namespaces=\"{ORDER}\" {key}\n")).expect("a sound file")
}

#[test]
fn an_envelope_gives_back_its_bytes_and_counts_for_its_signer_alone() {
    let blob = signature_blob(b"{\"v\":1}");
    let signers = signers(&blob);
    let bytes = Envelope::assemble(b"{\"v\":1}", &armored(&blob));
    assert!(!bytes.contains(&b'\n'), "one line");
    let envelope = Envelope::parse(&bytes).expect("an envelope");
    assert_eq!(envelope.body(), b"{\"v\":1}");
    let now = Timestamp::default();
    assert_eq!(envelope.verify(&signers, &alice(), Namespace::Order, now), Ok(()));

    let reason = |envelope: &Envelope, who: &str, what| {
        let error = envelope.verify(&signers, &who.parse().expect("a name"), what, now).expect_err("refused");
        error.reason()
    };
    assert_eq!(reason(&envelope, "bob", Namespace::Order), "forged");
    assert_eq!(reason(&envelope, "alice", Namespace::Approval), "wrong-role");
    let altered = Envelope::parse(&Envelope::assemble(b"{\"v\":2}", &armored(&blob))).expect("an envelope");
    assert_eq!(reason(&altered, "alice", Namespace::Order), "altered");
    // Somebody else's key, with somebody's good name on it.
    let mallory = SigningKey::from_bytes(&[8; 32]);
    let blob = sshsig(1, &key_blob(&mallory), ORDER.as_bytes(), b"", b"sha512", &proof(&mallory, ORDER, b"open"));
    let forged = Envelope::parse(&Envelope::assemble(b"open", &armored(&blob))).expect("an envelope");
    let refused = forged.verify(&signers, &alice(), Namespace::Order, now);
    assert!(matches!(refused, Err(EnvelopeError::Refused(TrustRefusal::NotTheirKey { .. }))));
    assert_eq!(reason(&forged, "alice", Namespace::Order), "forged");
}

#[test]
fn a_signature_for_one_purpose_does_not_serve_another_that_its_key_may_also_sign() {
    let blob = signature_blob(b"open");
    let key = Signature::parse(&armored(&blob)).expect("well formed").public_key().to_openssh();
    let line = format!("alice namespaces=\"holdfast.order,holdfast.approval\" {key}\n");
    let signers = AllowedSigners::parse(line).expect("a sound file");
    let envelope = Envelope::parse(&Envelope::assemble(b"open", &armored(&blob))).expect("an envelope");
    let refused = envelope.verify(&signers, &alice(), Namespace::Approval, Timestamp::default());
    assert_eq!(refused.map_err(|error| error.reason()), Err("wrong-role"));
}

#[test]
fn what_is_not_exactly_an_envelope_is_refused_and_named() {
    let signature = serde_json::Value::from(armored(&signature_blob(b"open")));
    let body = BASE64_STANDARD.encode(b"open");
    let good = format!("{{\"body\":\"{body}\",\"signature\":{signature}}}");
    assert!(Envelope::parse(good.as_bytes()).is_ok());
    assert!(
        Envelope::parse(format!(" {{\n \"signature\":{signature},\n \"body\":\"{body}\"\n}}\n").as_bytes()).is_ok()
    );
    for wrong in [
        String::new(),
        "null".into(),
        "{}".into(),
        format!("[\"{body}\",{signature}]"),
        format!("{{\"signature\":{signature}}}"),
        format!("{{\"body\":\"{body}\"}}"),
        format!("{{\"body\":null,\"signature\":{signature}}}"),
        format!("{{\"body\":[1,2],\"signature\":{signature}}}"),
        good.replacen('{', &format!("{{\"body\":\"{body}\","), 1),
        good.replacen('{', &format!("{{\"bo\\u0064y\":\"{body}\","), 1),
        good.replacen('{', "{\"note\":1,", 1),
        good.replacen('{', &format!("{{\"note\":{},", "[".repeat(50_000)), 1),
        format!("{good}{good}"),
        format!("{good}x"),
        good[..good.len() - 1].to_owned(),
        good.replace(&body, body.trim_end_matches('=')),
        good.replace(&body, &body.replace("Ww==", "Wx==").replace("bg==", "bh==")),
        good.replace(&body, &format!("{body}\\n")),
    ] {
        let error = Envelope::parse(wrong.as_bytes()).expect_err(&wrong);
        assert_eq!(error.reason(), "malformed", "{wrong}: {error}");
    }
    assert_eq!(Envelope::parse(b"{\"body\":\"\xff\"}").map_err(|error| error.reason()).err(), Some("malformed"));
    let large = vec![b' '; ENVELOPE_MAX + 1];
    assert_eq!(Envelope::parse(&large).err(), Some(EnvelopeError::Oversized(large.len())));
}

#[test]
fn the_largest_body_fits_and_a_whole_trust_root_fits_in_it() {
    const { assert!(ALLOWED_SIGNERS_MAX + ALLOWED_SIGNERS_MAX / 4 < BODY_MAX) };
    let bytes = Envelope::assemble(&vec![0xff; BODY_MAX], &armored(&signature_blob(b"")));
    assert!(Envelope::parse(&bytes).is_ok());
}

/// One byte of `bytes` replaced by another value.
fn changed(bytes: &[u8], at: prop::sample::Index, with: u8) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    let at = at.index(changed.len());
    changed[at] = if changed[at] == with { with.wrapping_add(1) } else { with };
    changed
}

proptest! {
    #[test]
    fn no_bytes_make_any_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = PublicKey::from_blob(&bytes);
        let _ = AllowedSigners::parse(&bytes);
        let _ = Envelope::parse(&bytes);
        let _ = Signature::parse(&String::from_utf8_lossy(&bytes));
        let _ = PublicKey::from_openssh(&String::from_utf8_lossy(&bytes));
        prop_assert!(check(&bytes, b"open").is_err());
        prop_assert!(check(&[b"SSHSIG\0\0\0\x01".as_slice(), &bytes].concat(), b"open").is_err());
    }

    #[test]
    fn no_text_of_the_right_shape_makes_a_trust_root_panic(
        line in "[a-z*,!\" ]{0,12}[ \t]{0,2}(namespaces|valid-after|valid-before|cert-authority|[a-z]{0,4})=?\"?[a-z0-9Z.,*\"]{0,20}\"?,?[ \t]?(ssh-ed25519 [A-Za-z0-9+/=]{0,80})?"
    ) {
        let _ = AllowedSigners::parse(line);
    }

    #[test]
    fn no_changed_signature_verifies(at in any::<prop::sample::Index>(), with in any::<u8>(), kind in 0..3) {
        let blob = match kind {
            0 => signature_blob(b"open"),
            1 => sk_ed25519(b"ssh:", TOUCHED, b"open"),
            _ => sk_p256(TOUCHED, b"open"),
        };
        prop_assert!(check(&changed(&blob, at, with), b"open").is_err());
    }

    #[test]
    fn no_changed_armor_verifies(at in any::<prop::sample::Index>(), with in 0u8..128) {
        let text = changed(armored(&signature_blob(b"open")).as_bytes(), at, with);
        let text = String::from_utf8_lossy(&text);
        prop_assert!(Signature::parse(&text).and_then(|signature| signature.verify(ORDER, b"open")).is_err());
    }

    #[test]
    fn no_changed_message_verifies(message in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assume!(message != b"open");
        prop_assert_eq!(check(&signature_blob(b"open"), &message), Err(SignatureError::Mismatch));
    }

    #[test]
    fn a_changed_envelope_is_refused_or_says_the_same(at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let blob = signature_blob(b"{\"v\":1,\"kind\":\"hold\"}");
        let bytes = changed(&Envelope::assemble(b"{\"v\":1,\"kind\":\"hold\"}", &armored(&blob)), at, with);
        if let Ok(envelope) = Envelope::parse(&bytes)
            && envelope.verify(&signers(&blob), &alice(), Namespace::Order, Timestamp::default()).is_ok()
        {
            prop_assert_eq!(envelope.body(), b"{\"v\":1,\"kind\":\"hold\"}");
        }
    }

    #[test]
    fn every_body_comes_back(body in prop::collection::vec(any::<u8>(), 0..2000)) {
        let bytes = Envelope::assemble(&body, &armored(&signature_blob(&body)));
        let envelope = Envelope::parse(&bytes).expect("an envelope");
        prop_assert_eq!(envelope.body(), &body);
        prop_assert_eq!(envelope.signature().verify(ORDER, &body), Ok(()));
    }
}
