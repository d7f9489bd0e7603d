//! Everything that can be wrong with a ceremony's files, and that each is refused in words that help.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::world::{Done, Gpg, Host, Untouched, Vault, base64, certificates, holdfast, program, setup, text};

/// Two hosts, somebody's key, and a Vault that must not be asked.
pub(crate) struct Table {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) hosts: Vec<Host>,
    pub(crate) gpg: Gpg,
    vault: Untouched,
}

impl Table {
    pub(crate) fn lay() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let hosts = (1..=2).map(|number| Host::enroll(dir.path(), number)).collect();
        let gpg = Gpg::new();
        gpg.key("alice", "default", "default", &dir.path().join("alice.asc"), true);
        certificates(dir.path());
        Self { hosts, gpg, vault: Untouched::new(), dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn assert_untouched(&self) {
        self.vault.assert_untouched();
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), content).expect("written");
        text(&self.path(name)).to_owned()
    }

    /// `holdfast init` with this difference from one that is all right.
    pub(crate) fn init(&self, change: impl FnOnce(&mut Init)) -> Done {
        let mut init = self.arguments();
        change(&mut init);
        let init = init.args();
        holdfast(&init.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The arguments of one that is all right.
    pub(crate) fn arguments(&self) -> Init {
        Init {
            vault: self.vault.url(),
            ca: text(&self.path("ca.pem")).to_owned(),
            enrollments: self.hosts.iter().map(Host::enrollment).collect(),
            threshold: "2".to_owned(),
            root_token_key: text(&self.path("alice.asc")).to_owned(),
            output: text(&self.path("out")).to_owned(),
            more: ["--yes", "--accept-no-recovery"].map(str::to_owned).into(),
        }
    }

    /// What a server does with a share: encrypts it to a host's key.
    pub(crate) fn encrypt_to(&self, host: &Host, content: &[u8]) -> Vec<u8> {
        self.gpg.run(&["--import", text(&host.file(&format!("{}.asc", host.id)))]);
        self.gpg_encrypt(&format!("={} (Holdfast transport key)", host.id), content)
    }

    pub(crate) fn gpg_encrypt(&self, recipient: &str, content: &[u8]) -> Vec<u8> {
        encrypt(&self.gpg, &["-r", recipient], &self.path("plaintext"), content)
    }

    /// The second enrollment in a changed form.
    fn init_with_second(&self, file: &str) -> Done {
        self.init(|init| init.enrollments[1] = file.to_owned())
    }
}

pub(crate) struct Init {
    pub(crate) vault: String,
    pub(crate) ca: String,
    enrollments: Vec<String>,
    pub(crate) threshold: String,
    root_token_key: String,
    pub(crate) output: String,
    pub(crate) more: Vec<String>,
}

impl Init {
    pub(crate) fn args(&self) -> Vec<String> {
        let options = [
            ("--vault", &self.vault),
            ("--ca-cert", &self.ca),
            ("--threshold", &self.threshold),
            ("--root-token-key", &self.root_token_key),
            ("--output", &self.output),
        ];
        let mut args: Vec<_> = ["init", "--cluster", "prod"].map(str::to_owned).into();
        args.extend(options.into_iter().flat_map(|(option, value)| [option.to_owned(), value.clone()]));
        args.push("--enrollment".to_owned());
        args.extend(self.enrollments.iter().chain(&self.more).cloned());
        args
    }
}

#[test]
fn a_bad_enrollment_is_refused_before_the_vault_is_asked() {
    let table = Table::lay();
    let second = &table.hosts[1];
    let good = fs::read_to_string(second.enrollment()).expect("enrolled");
    let body = second.body();

    table.init_with_second("nowhere.json").refused(78, "nowhere.json does not exist");
    table.init_with_second(&table.write("e.json", "")).refused(78, "the file is empty");
    table.init_with_second(&table.write("e.json", &good[..good.len() / 2])).refused(78, "not an envelope");
    table.init_with_second(&table.write("e.json", vec![b'x'; 1 << 20])).refused(78, "is larger than");
    table.init_with_second(&table.write("e.json", r#"{"v":1,"kind":"packet"}"#)).refused(78, "kind \"packet\"");

    let mut tampered: Value = serde_json::from_str(&good).expect("JSON");
    tampered["body"] = base64(body.replace("custodian-2", "custodian-3").as_bytes()).into();
    table
        .init_with_second(&table.write("e.json", tampered.to_string()))
        .refused(78, "e.json: the enrollment was altered");
    let stolen = table.hosts[0].sign(&body);
    table.init_with_second(&table.write("e.json", stolen)).refused(78, "not signed by the key that it brings");

    // Signed as they should be, and wrong all the same.
    let signed = |from: &str, to: &str| {
        let changed = body.replacen(from, to, 1);
        assert_ne!(changed, body);
        table.write("e.json", second.sign(&changed))
    };
    table.init_with_second(&signed("{", r#"{"note":"hi","#)).refused(78, "unknown field `note`");
    table.init_with_second(&signed("\"v\":1", "\"v\":2")).refused(78, "of version 2");
    table.init_with_second(&signed("custodian-2", "custodian-1")).refused(78, "have the same name");
    table.init_with_second(&signed("age1", "age1qqqq")).refused(78, "age_recipient");
    let recipient =
        serde_json::from_str::<Value>(&body).expect("JSON")["age_recipient"].as_str().expect("text").to_owned();
    let last = if recipient.ends_with('q') { 'p' } else { 'q' };
    let broken = format!("{}{last}", &recipient[..recipient.len() - 1]);
    table.init_with_second(&signed(&recipient, &broken)).refused(78, "its checksum does not hold");
    table.init_with_second(&table.hosts[0].enrollment()).refused(78, "have the same name");

    let with_key = |key: &[u8]| {
        let mut changed: Value = serde_json::from_str(&body).expect("JSON");
        changed["openpgp_key"] = base64(key).into();
        table.write("e.json", second.sign(&changed.to_string()))
    };
    let armored = fs::read(second.file("custodian-2.asc")).expect("there");
    table.init_with_second(&with_key(&armored)).refused(78, "it is ASCII-armoured");
    table.init_with_second(&with_key(b"\xffgarbage")).refused(78, "the Vault would not take this OpenPGP key");
    let key = table.path("key");
    table.gpg.key("signer", "ed25519", "sign", &key, false);
    let sign_only = fs::read(&key).expect("exported");
    table.init_with_second(&with_key(&sign_only)).refused(78, "for signing only");
    let whole: Value = serde_json::from_str(&table.hosts[0].body()).expect("JSON");
    let firsts = crate::world::unbase64(whole["openpgp_key"].as_str().expect("a key"));
    table.init_with_second(&with_key(&firsts)).refused(78, "have the same OpenPGP key");
    table.init_with_second(&with_key(&firsts[..firsts.len() - 20])).refused(78, "OpenPGP key");

    assert!(!table.path("out").exists());
    table.assert_untouched();
}

#[test]
fn a_bad_root_token_key_is_refused_before_the_vault_is_asked() {
    let table = Table::lay();
    let refused = |file: &str, words: &str| table.init(|init| init.root_token_key = file.to_owned()).refused(78, words);
    refused("nowhere.asc", "does not exist");
    refused(&table.write("k.asc", ""), "not an OpenPGP public key");
    refused(&table.write("k.asc", "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\ngarbage\n"), "not an OpenPGP public key");
    let alice = fs::read_to_string(table.path("alice.asc")).expect("there");
    refused(&table.write("k.asc", &alice[..alice.len() / 2]), "not an OpenPGP public key");
    let key = table.path("key.asc");
    table.gpg.key("signer", "ed25519", "sign", &key, true);
    refused(text(&key), "for signing only");
    table.gpg.key("small", "rsa1024", "encr", &key, true);
    refused(text(&key), "of an algorithm that servers do not take");
    table.gpg.run(&[
        "--faked-system-time",
        "20200101T000000!",
        "--quick-generate-key",
        "old",
        "default",
        "default",
        "1y",
    ]);
    table.gpg.export("old", &key, true);
    refused(text(&key), "it has expired");
    let both = [fs::read(&key).expect("there"), alice.into_bytes()].concat();
    table.init(|init| init.root_token_key = table.write("k.asc", both)).refused(78, "k.asc");
    let transport = table.hosts[0].file("custodian-1.asc");
    refused(text(&transport), "have the same OpenPGP key");
    assert!(!table.path("out").exists());
    table.assert_untouched();
}

#[test]
fn what_does_not_fit_together_is_refused_before_the_vault_is_asked() {
    let table = Table::lay();
    for threshold in ["0", "1", "3"] {
        table.init(|init| init.threshold = threshold.to_owned()).refused(2, "it has to be 2 or more");
    }
    table.init(|init| init.threshold = "300".to_owned()).refused(2, "300");
    table.init(|init| init.vault = "http://127.0.0.1:1".to_owned()).refused(2, "it has to be https");
    table.init(|init| init.ca = table.write("c.pem", "no certificate")).refused(78, "ertificate");
    table.assert_untouched();
}

#[test]
fn what_is_no_vault_or_not_ours_is_refused_and_nothing_is_written() {
    let table = Table::lay();
    let vault = Vault::start(&table.path("vault"));
    let ours = text(&vault.ca).to_owned();
    let to_vault = |init: &mut Init| {
        init.vault = vault.url.clone();
        init.ca = ours.clone();
    };
    table.init(|init| init.vault = vault.url.clone()).refused(1, "was refused");
    table.init(|init| init.vault = "https://127.0.0.1:1".to_owned()).refused(1, "did not answer");
    assert!(!table.path("out").exists());

    let fingerprint = |id: &str, of: &Host| format!("--fingerprint={id}={}", of.fingerprint);
    let (first, second) = (&table.hosts[0], &table.hosts[1]);
    let compared = |more: Vec<String>| {
        let _ = fs::remove_dir_all(table.path("out"));
        table.init(|init| {
            to_vault(init);
            init.more.retain(|argument| argument != "--yes");
            init.more.extend(more);
        })
    };
    compared(vec![fingerprint("custodian-1", second)]).refused(78, "this is not the file that custodian-1 made");
    compared(vec![fingerprint("custodian-1", first)]).refused(2, "--fingerprint custodian-2=");
    compared(vec![fingerprint("custodian-3", first)]).refused(2, "there is no enrollment of custodian-3");
    compared(vec!["--fingerprint=custodian-1=K7QM".to_owned()]).refused(2, "not a fingerprint");

    let taken = table.path("taken");
    fs::create_dir(&taken).expect("made");
    fs::write(taken.join("init-response.json"), "of the last time").expect("written");
    let done = table.init(|init| {
        to_vault(init);
        init.output = text(&taken).to_owned();
    });
    done.refused(1, "is not empty (init-response.json is in it)");
    assert_eq!(vault.get("sys/seal-status", None)["initialized"], false);
}

#[test]
fn an_enrollment_overwrites_nothing_and_goes_on_where_it_was_cut_off() {
    let dir = tempfile::tempdir().expect("a folder");
    let host = Host::enroll(dir.path(), 1);
    let before: Vec<_> = ["identity.txt", "signing.key", "transport.key", "enrollment.json"]
        .map(|name| (host.file(name), fs::read(host.file(name)).expect("there")))
        .into();
    let enroll =
        |id: &str, more: &[&str]| setup(&[&["enroll", "--dir", text(&host.dir), "--json", "--id", id], more].concat());
    enroll("custodian-1", &[]).refused(1, &host.fingerprint);
    enroll("custodian-9", &[]).refused(1, "custodian-1 is enrolled here");
    for (path, content) in &before {
        assert_eq!(&fs::read(path).expect("there"), content, "{}", path.display());
    }

    // Killed after any of the files, in the order in which they are made.
    let marker = host.file(".enrolling");
    let order =
        ["enrollment.json", "custodian-1.asc", "signing.key.pub", "transport.key", "signing.key", "identity.txt"];
    for removed in 0..=order.len() {
        for name in &order[..removed] {
            let _ = fs::remove_file(host.file(name));
        }
        fs::write(&marker, r#"{"id":"custodian-1","site":null}"#).expect("written");
        enroll("custodian-2", &[]).refused(1, "an enrollment of custodian-1");
        enroll("custodian-1", &["--site", "zurich"]).refused(1, "an enrollment of custodian-1");
        let report = enroll("custodian-1", &[]).json();
        assert_eq!(report["resumed"], true);
        assert!(!marker.exists() && order.iter().all(|name| host.file(name).is_file()));
        let kept = removed < order.len();
        assert_eq!(fs::read(&before[0].0).expect("there") == before[0].1, kept, "identity.txt is kept if it was there");
    }

    fs::remove_file(host.file("enrollment.json")).expect("removed");
    enroll("custodian-1", &[]).refused(1, "no enrollment was begun here");
    fs::write(&marker, "half").expect("written");
    enroll("custodian-1", &[]).refused(78, ".enrolling is damaged");
    setup(&["enroll", "--id", "Custodian 1", "--dir", text(&host.dir)]).refused(2, "is not a name");
    setup(&["enroll", "--id", "custodian-1", "--dir", "/proc/nowhere"]).refused(1, "/proc/nowhere");
}

#[test]
fn root_does_not_write_what_the_custodian_could_not_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let host = Host::enroll(dir.path(), 1);
    if fs::metadata(&host.dir).expect("there").uid() != 0 {
        eprintln!("not root: there is nobody to be taken for");
        return;
    }
    chown(&host.dir, Some(65534), Some(65534)).expect("root may");
    let before = fs::read(host.file("enrollment.json")).expect("there");
    let enrollment = host.file("enrollment.json");
    let manifest = ["--manifest", text(&enrollment)];
    let packet = [&["--packet", "packet.json"][..], &manifest].concat();
    host.setup("enroll", &["--again", "--id", "custodian-1"]).refused(1, "is user 65534's, and this runs as root");
    host.setup("install", &packet).refused(1, "runuser -u holdfast -- holdfast-setup");
    host.setup("import", &manifest).refused(1, "nothing was changed");
    assert_eq!(fs::read(host.file("enrollment.json")).expect("there"), before);
}

#[test]
fn who_reads_no_report_does_not_undo_what_was_done() {
    let dir = tempfile::tempdir().expect("a folder");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let enroll = ["enroll", "--id", "custodian-1", "--dir", text(dir.path())];
    let done = Command::new(program("holdfast-setup")).args(enroll).stdout(writer).output().expect("it starts");
    assert_eq!((done.status.code(), String::from_utf8_lossy(&done.stderr).as_ref()), (Some(0), ""));
    assert!(dir.path().join("enrollment.json").is_file());
}

/// Encrypts with gpg, to whom its options say, by way of a file, which is gone afterwards.
fn encrypt(gpg: &Gpg, to: &[&str], file: &Path, content: &[u8]) -> Vec<u8> {
    fs::write(file, content).expect("written");
    let args = ["--trust-model", "always", "-z0", "--output", "-", "--encrypt"];
    let message = gpg.run(&[&args[..], to, &[text(file)]].concat());
    fs::remove_file(file).expect("removed");
    message
}

/// A manifest and packets as a ceremony would have made them, with a share that the test knows.
pub(crate) struct Made {
    pub(crate) manifest: Value,
    pub(crate) packets: Vec<Value>,
}

impl Made {
    pub(crate) fn new(hosts: &[Host], gpg: &Gpg) -> Self {
        let packet = |(index, host): (usize, &Host)| {
            gpg.run(&["--import", text(&host.file(&format!("{}.asc", host.id)))]);
            let share = hex::encode([u8::try_from(index + 1).expect("few"); 33]);
            let message = Self::encrypt(gpg, host, share.as_bytes());
            json!({
                "v": 1, "kind": "packet", "cluster": "07".repeat(16), "cluster_name": "prod", "generation": 1,
                "custodian": host.id, "openpgp_message": base64(&message),
            })
        };
        let packets: Vec<_> = hosts.iter().enumerate().map(packet).collect();
        let custodians: Vec<_> = hosts.iter().zip(&packets).map(|(host, packet)| Self::member(host, packet)).collect();
        let manifest = json!({
            "v": 1, "kind": "manifest", "cluster_name": "prod", "id": "07".repeat(16), "generation": 1,
            "shares": hosts.len(), "threshold": 2, "custodians": custodians, "holders": [],
        });
        Self { manifest, packets }
    }

    fn encrypt(gpg: &Gpg, host: &Host, content: &[u8]) -> Vec<u8> {
        encrypt(gpg, &["-r", &Self::key_of(host)], &host.file("plaintext"), content)
    }

    fn key_of(host: &Host) -> String {
        format!("={} (Holdfast transport key)", host.id)
    }

    fn member(host: &Host, packet: &Value) -> Value {
        let body: Value = serde_json::from_str(&host.body()).expect("JSON");
        json!({
            "id": host.id, "enrollment_fingerprint": host.fingerprint, "age_recipient": body["age_recipient"],
            "signing_key": body["signing_key"], "packet_sha256": hex::encode(Sha256::digest(packet.to_string())),
        })
    }
}

/// Whoever is on the way to the host knows its public keys, and makes a manifest and a packet of their own.
#[test]
fn a_manifest_that_the_ceremony_did_not_make_is_refused_and_nothing_is_written_or_erased() {
    let table = Table::lay();
    let host = &table.hosts[0];
    let genuine = table.write("genuine.json", Made::new(&table.hosts, &table.gpg).manifest.to_string());
    let forged = Made::new(&table.hosts, &table.gpg);
    let forged = [
        table.write("packet.json", forged.packets[0].to_string()),
        table.write("manifest.json", forged.manifest.to_string()),
    ];
    let fingerprint = crate::world::fingerprint(&fs::read(genuine).expect("there"));
    let args = ["--packet", &forged[0], "--manifest", &forged[1]];
    let compared = ["--manifest-fingerprint", &fingerprint];
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(&host.dir).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    host.setup("install", &[&args[..], &compared].concat()).refused(78, "not the manifest that the ceremony made");
    host.setup("install", &args).refused(2, "--manifest-fingerprint");
    assert_eq!(names(), before);
    assert!(forged.iter().all(|file| Path::new(file).is_file()));

    // A link is not what is to be erased.
    let (key, elsewhere) = (host.file("transport.key"), table.path("elsewhere.key"));
    fs::rename(&key, &elsewhere).expect("moved");
    std::os::unix::fs::symlink(&elsewhere, &key).expect("linked");
    host.setup("install", &[&args[..], &["--yes"]].concat()).refused(1, "is a symbolic link, and what it leads to was");
    assert!(elsewhere.is_file());
}

#[test]
fn a_bad_packet_or_manifest_is_refused_and_nothing_is_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let hosts: Vec<_> = (1..=3).map(|number| Host::enroll(dir.path(), number)).collect();
    let gpg = Gpg::new();
    let made = Made::new(&hosts[..2], &gpg);
    let host = &hosts[0];
    let install = |packet: &str, manifest: &str| {
        let (packet_path, manifest_path) = (dir.path().join("packet.json"), dir.path().join("manifest.json"));
        fs::write(&packet_path, packet).expect("written");
        fs::write(&manifest_path, manifest).expect("written");
        host.install(&packet_path, &manifest_path)
    };
    let (packet, manifest) = (made.packets[0].to_string(), made.manifest.to_string());
    let changed = |value: &Value, key: &str, to: Value| {
        let mut value = value.clone();
        value[key] = to;
        value.to_string()
    };
    let packet_with = |key: &str, to: Value| install(&changed(&made.packets[0], key, to), &manifest);
    let manifest_with = |key: &str, to: Value| install(&packet, &changed(&made.manifest, key, to));

    install("", &manifest).refused(78, "packet.json: the file is empty");
    install(&packet[..packet.len() / 2], &manifest).refused(78, "not a whole and well-formed packet");
    install(&manifest, &packet).refused(78, "a file of kind \"packet\"; \"manifest\" was wanted");
    install(&"x".repeat(1 << 20), &manifest).refused(78, "is larger than");
    packet_with("v", json!(2)).refused(78, "packet is of version 2");
    packet_with("cluster", json!("08".repeat(16))).refused(78, "the packet is for cluster 0808");
    packet_with("generation", json!(2)).refused(78, "the packet is of generation 2");
    packet_with("note", json!("hi")).refused(78, "unknown field `note`");
    packet_with("custodian", json!("custodian-3")).refused(78, "custodian-3, which is not in the manifest");
    packet_with("openpgp_message", json!(base64(b"something else"))).refused(78, "it was altered");
    install(&made.packets[1].to_string(), &manifest).refused(78, "is not custodian-2's");

    install(&packet, "").refused(78, "manifest.json: the file is empty");
    install(&packet, &manifest[..manifest.len() / 2]).refused(78, "not a whole and well-formed manifest");
    manifest_with("v", json!(2)).refused(78, "manifest is of version 2");
    manifest_with("threshold", json!(1)).refused(78, "threshold");
    manifest_with("threshold", json!(3)).refused(78, "threshold");
    manifest_with("shares", json!(5)).refused(78, "there are 2 for 5 shares");
    manifest_with("id", json!("09".repeat(16))).refused(78, "the manifest for 0909");
    manifest_with("note", json!("hi")).refused(78, "unknown field `note`");
    let twice = json!([made.manifest["custodians"][0], made.manifest["custodians"][0]]);
    manifest_with("custodians", twice).refused(78, "have the same name");
    let mut strangers = made.manifest.clone();
    strangers["custodians"][0]["signing_key"] = Made::member(&hosts[2], &made.packets[0])["signing_key"].clone();
    install(&packet, &strangers.to_string()).refused(78, "the signing key here is not custodian-1's");

    // The manifest vouches for these, and what they decrypt to is no share.
    let vouched = |message: &[u8]| {
        let mut packet = made.packets[0].clone();
        packet["openpgp_message"] = base64(message).into();
        let mut manifest = made.manifest.clone();
        manifest["custodians"][0] = Made::member(host, &packet);
        install(&packet.to_string(), &manifest.to_string())
    };
    vouched(b"\xffgarbage").refused(78, "holds no encrypted OpenPGP message");
    for content in
        ["", "00", "not hexadecimal at all, but of the right length for one, as it happens", &"00".repeat(33)]
    {
        vouched(&Made::encrypt(&gpg, host, content.as_bytes())).refused(78, "what is in it is no share");
    }
    vouched(&Made::encrypt(&gpg, host, &[b'0'; 1000])).refused(78, "what is in it is no share");
    vouched(&Made::encrypt(&gpg, &hosts[1], &[b'1'; 66])).refused(78, "not encrypted to this transport key");
    // To another one too, and to nobody by name: what no ceremony gives out.
    let [own, other] = [0, 1].map(|index| Made::key_of(&hosts[index]));
    for to in [&["-r", own.as_str(), "-r", other.as_str()][..], &["-R", own.as_str()]] {
        let message = encrypt(&gpg, to, &dir.path().join("plaintext"), &[b'1'; 66]);
        vouched(&message).refused(78, "not encrypted to this transport key");
    }
    let mut damaged = Made::encrypt(&gpg, host, &[b'1'; 66]);
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    vouched(&damaged).refused(78, "it is damaged");

    bad_keys(host, &install, &packet, &manifest);
    let left = |suffix: &str| {
        fs::read_dir(&host.dir)
            .expect("a folder")
            .flatten()
            .any(|entry| Path::new(&entry.file_name()).to_string_lossy().contains(suffix))
    };
    assert!(!left("share"), "nothing was written");
    assert_eq!(install(&packet, &manifest).json()["result"], "installed");
    vouched(&Made::encrypt(&gpg, host, &[b'5'; 66])).refused(1, "a custodian never holds two of one cluster");
}

/// World-readable, missing, empty and cut-off keys: refused, with what mends it.
fn bad_keys(host: &Host, install: &dyn Fn(&str, &str) -> Done, packet: &str, manifest: &str) {
    for name in ["identity.txt", "signing.key", "transport.key"] {
        let path = host.file(name);
        let good = fs::read(&path).expect("there");
        let chmod = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("the mode set");
        chmod(0o644);
        install(packet, manifest).refused(78, &format!("chmod 600 {}", path.display()));
        chmod(0o600);
        for bad in [&b""[..], &good[..good.len() / 2], b"something else"] {
            fs::write(&path, bad).expect("written");
            install(packet, manifest).refused(78, name);
        }
        fs::remove_file(&path).expect("removed");
        install(packet, manifest).refused(78, "does not exist");
        fs::write(&path, good).expect("written");
        chmod(0o600);
    }
}
