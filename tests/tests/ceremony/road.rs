//! The plain road, from five enrollments to five shares at rest that open a real Vault.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::world::{Gpg, Host, Vault, base64, holdfast, setup, text, unbase64};

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("there")).expect("JSON")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
    }
    found
}

/// Whether any of the needles is in there. Most places are passed by with a look at two bytes: the server's files are large.
fn holds(haystack: &[u8], needles: &[Vec<u8>]) -> bool {
    let mut begins = vec![false; 1 << 16];
    let pair = |bytes: &[u8]| usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    needles.iter().for_each(|needle| begins[pair(needle)] = true);
    let candidates = haystack.windows(2).enumerate().filter(|(_, window)| begins[pair(window)]);
    candidates.into_iter().any(|(at, _)| needles.iter().any(|needle| haystack[at..].starts_with(needle)))
}

#[test]
fn five_custodians_get_a_share_each_and_three_open_the_vault() {
    let world = tempfile::tempdir().expect("a folder");
    let world = world.path();
    let vault = Vault::start(&world.join("vault"));
    let hosts: Vec<_> = (1..=5).map(|number| Host::enroll(world, number)).collect();
    for host in &hosts {
        for secret in ["identity.txt", "signing.key", "transport.key"] {
            assert_eq!(mode(&host.file(secret)), 0o600, "{secret}");
        }
        assert!(host.file(&format!("{}.asc", host.id)).is_file());
    }

    // Alice's key is her own, made by gpg, with what people's keys have: another user id.
    let gpg = Gpg::new();
    let alice = world.join("alice.asc");
    gpg.key("alice <alice@example.org>", "default", "default", &alice, true);
    gpg.run(&["--quick-add-uid", "alice@example.org", "Alice at work <a@example.com>"]);
    gpg.export("alice@example.org", &alice, true);

    let (url, ca, output) = (vault.url.as_str(), text(&vault.ca), world.join("out"));
    let fingerprints: Vec<_> =
        hosts.iter().map(|host| format!("--fingerprint={}={}", host.id, host.fingerprint)).collect();
    let enrollments: Vec<_> = hosts.iter().map(Host::enrollment).collect();
    let init = |output: &Path| {
        let mut args = vec!["init", "--cluster", "prod", "--vault", url, "--ca-cert", ca, "--threshold", "3", "--json"];
        args.extend(["--accept-no-recovery", "--root-token-key", text(&alice)]);
        args.extend(["--output", text(output), "--enrollment"]);
        // In another order than their names': it must not matter.
        args.extend(enrollments.iter().rev().map(String::as_str));
        args.extend(fingerprints.iter().map(String::as_str));
        holdfast(&args)
    };
    let report = init(&output).json();
    assert_eq!(report["custodians"].as_array().map(Vec::len), Some(5));
    assert_eq!(report["custodians"][0]["compared"], "given");

    let status = vault.get("sys/seal-status", None);
    assert_eq!((&status["initialized"], &status["sealed"]), (&true.into(), &true.into()), "{status}");
    assert_eq!((&status["n"], &status["t"]), (&5.into(), &3.into()), "{status}");

    let manifest_path = output.join("prod.manifest.json");
    let manifest = json(&manifest_path);
    assert_eq!((&manifest["kind"], &manifest["threshold"]), (&"manifest".into(), &3.into()));
    assert_eq!(manifest["id"].as_str().map(str::len), Some(32));
    check_allowed_signers(&output, &hosts);

    // The shares, as gpg reads them with the transport keys: what is to be found nowhere else.
    let mut shares = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        gpg.run(&["--import", text(&host.file("transport.key"))]);
        let packet_path = packet(&output, host);
        let digest = hex::encode(Sha256::digest(fs::read(&packet_path).expect("there")));
        assert_eq!(manifest["custodians"][index]["packet_sha256"], digest);
        let message = unbase64(json(&packet_path)["openpgp_message"].as_str().expect("a message"));
        let share = String::from_utf8(gpg.decrypt(&message)).expect("hexadecimal");
        assert_eq!(hex::decode(&share).expect("hexadecimal").len(), 33);
        shares.push(share);
    }

    for (host, share) in hosts.iter().zip(&shares) {
        let report = install_compared(host, &packet(&output, host), &manifest_path, &report["manifest_fingerprint"]);
        assert_eq!((&report["result"], &report["cluster_id"]), (&"installed".into(), &manifest["id"]));
        check_share(host, share, &manifest);
        let again = host.install(&packet(&output, host), &manifest_path).json();
        assert_eq!(again["result"], "already");
    }

    // Nothing of any share is in any file of anybody.
    let needles: Vec<Vec<u8>> = shares.iter().flat_map(|share| forms(share)).collect();
    let all = files(world);
    assert!(all.len() > 50, "{all:?}");
    for file in &all {
        assert!(!holds(&fs::read(file).expect("there"), &needles), "a share is in {}", file.display());
    }

    for share in &shares[1..4] {
        vault.unseal(share);
    }
    assert_eq!(vault.get("sys/seal-status", None)["sealed"], false);
    let token = String::from_utf8(gpg.decrypt(&fs::read(output.join("root-token.pgp")).expect("there"))).expect("text");
    crate::world::until("the root token's policies", || {
        vault.get("auth/token/lookup-self", Some(&token))["data"]["policies"][0] == "root"
    });

    // Once more with the same directory, and what a ceremony says that is complete.
    init(&output).refused(1, &format!("holdfast init --resume {}", output.display()));
    let resumed = holdfast(&["init", "--resume", text(&output), "--json"]).json();
    assert_eq!((&resumed["result"], &resumed["gone"]), (&"already".into(), &serde_json::json!([])));

    let second = init(&world.join("second"));
    second.refused(1, "is initialised already");
    assert!(!world.join("second").exists(), "nothing was begun");
    check_second_shares(world, &hosts, &output, &manifest_path);
}

/// As a person does who was read the manifest's fingerprint.
fn install_compared(host: &Host, packet: &Path, manifest: &Path, fingerprint: &Value) -> Value {
    let fingerprint = fingerprint.as_str().expect("init says it");
    assert_eq!(fingerprint, crate::world::fingerprint(&fs::read(manifest).expect("there")));
    let args = ["--packet", text(packet), "--manifest", text(manifest), "--keep-transport-key"];
    host.setup("install", &args).refused(2, "nobody is there to compare the manifest's fingerprint");
    let sent = host.file("sent.packet.json");
    fs::copy(packet, &sent).expect("copied");
    let compared = ["--packet", text(&sent), "--manifest-fingerprint", &fingerprint.to_lowercase()];
    let done = host.setup("install", &[&compared[..], &args[2..]].concat()).json();
    assert_eq!(done["manifest_compared"], true);
    done
}

fn packet(output: &Path, host: &Host) -> PathBuf {
    output.join("packets").join(format!("{}.packet.json", host.id))
}

/// How a share could be written: whole, and the head and tail that a careless program leaves.
fn forms(share: &str) -> Vec<Vec<u8>> {
    let raw = hex::decode(share).expect("hexadecimal");
    let texts = [share.to_owned(), share.to_uppercase(), share[..24].to_owned(), share[42..].to_owned(), base64(&raw)];
    texts.into_iter().map(String::into_bytes).chain([raw[..16].to_vec(), raw[17..].to_vec()]).collect()
}

/// The lines are what ssh-keygen takes: it verifies a custodian's signature by them.
fn check_allowed_signers(output: &Path, hosts: &[Host]) {
    let path = output.join("allowed_signers.custodians");
    let lines = fs::read_to_string(&path).expect("there");
    assert_eq!(lines.lines().count(), hosts.len());
    for (line, host) in lines.lines().zip(hosts) {
        let public = fs::read_to_string(host.file("signing.key.pub")).expect("there");
        let key: Vec<_> = public.split(' ').take(2).collect();
        assert_eq!(line, format!("{} namespaces=\"holdfast.report\" {}", host.id, key.join(" ")));
    }
}

/// The record beside the share is as it is specified, and the share's file is an age file for its owner alone.
fn check_share(host: &Host, share: &str, manifest: &Value) {
    let path = host.file("prod.share.age");
    assert_eq!(mode(&path), 0o600);
    assert!(fs::read_to_string(&path).expect("there").starts_with("-----BEGIN AGE ENCRYPTED FILE-----\n"));
    let record = json(&host.file("prod.share.age.record"));
    let share = hex::decode(share).expect("hexadecimal");
    let salt = hex::decode(record["salt"].as_str().expect("a salt")).expect("hexadecimal");
    let digest = Sha256::new().chain_update(b"holdfast share v1\0").chain_update(salt).chain_update(&share).finalize();
    assert_eq!(record["sha256"], hex::encode(digest));
    assert_eq!(record["x"], share[32]);
    assert_eq!((&record["cluster"], &record["custodian"]), (&manifest["id"], &host.id.as_str().into()));
}

/// Whatever is given to a host that has its share, it keeps that one.
fn check_second_shares(world: &Path, hosts: &[Host], output: &Path, manifest_path: &Path) {
    let (first, second) = (&hosts[0], &hosts[1]);
    first.install(&packet(output, second), manifest_path).refused(78, "is not custodian-2's");
    let before = fs::read(first.file("prod.share.age")).expect("there");

    // The right packet, and in its place on the disk a share that is not this one.
    fs::copy(second.file("prod.share.age"), first.file("prod.share.age")).expect("copied");
    first.install(&packet(output, first), manifest_path).refused(1, "does not open with");
    fs::write(first.file("prod.share.age"), &before).expect("written");

    // kill -9 between the two files, and between nothing and the first.
    fs::remove_file(first.file("prod.share.age.record")).expect("removed");
    assert_eq!(first.install(&packet(output, first), manifest_path).json()["result"], "completed");
    assert_eq!(fs::read(first.file("prod.share.age")).expect("there"), before, "the share was not written again");

    // Another cluster's share has a place of its own; keys elsewhere are named.
    let elsewhere = world.join("elsewhere.age");
    let (identity, key) = (first.file("identity.txt"), first.file("signing.key"));
    let (transport, packet) = (first.file("transport.key"), packet(output, first));
    let args = ["install", "--packet", text(&packet), "--manifest", text(manifest_path), "--identity", text(&identity)];
    let more = ["--yes", "--signing-key", text(&key), "--transport-key", text(&transport), "--share", text(&elsewhere)];
    let done = setup(&[&args[..], &more[..]].concat());
    assert!(done.code == 0 && done.out.contains("Next:"), "{}", done.err);
    assert!(elsewhere.is_file());
}
