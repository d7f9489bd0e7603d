//! A Vault that exists, as docs/CEREMONIES.md hands it over: five people's plain shares become three custodians' and two holders',
//! by the server's own tool; then custodians are lost, and people open it with the one that is left.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use holdfast_tests::lab::provable_by;
use serde_json::Value;

use crate::holders::fingerprint;
use crate::world::{Done, Gpg, Host, Vault, holdfast, program, text, until};

/// Everybody and everything that an adoption needs.
pub(crate) struct World {
    folder: tempfile::TempDir,
    pub(crate) vault: Vault,
    pub(crate) hosts: Vec<Host>,
    gpg: Gpg,
    pub(crate) token: String,
}

/// What a rotation printed when the last old share was entered, and where its verification stands.
struct Rotated {
    file: PathBuf,
    verification_nonce: String,
}

impl World {
    /// A Vault as it stands in many a bank, whose plain shares five people have; three hosts, and two people with keys.
    fn new() -> (Self, Vec<String>) {
        let folder = tempfile::tempdir().expect("a folder");
        let vault = Vault::start(&folder.path().join("vault"));
        let (shares, token) = vault.initialise(5, 3);
        let hosts = (1..=3).map(|number| Host::enroll(folder.path(), number)).collect();
        let gpg = Gpg::new();
        for name in ["alice", "bob"] {
            gpg.key(name, "default", "default", &folder.path().join(format!("{name}.asc")), true);
        }
        (Self { folder, vault, hosts, gpg, token }, shares)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn adopt(&self, output: &str, more: &[&str]) -> Done {
        let mut args: Vec<_> = ["adopt", "--cluster", "prod", "--threshold", "3", "--json"].map(str::to_owned).into();
        let mut option = |name: &str, value: &str| args.extend([format!("--{name}"), value.to_owned()]);
        option("vault", &self.vault.url);
        option("ca-cert", text(&self.vault.ca));
        option("output", text(&self.path(output)));
        self.hosts.iter().for_each(|host| option("enrollment", &host.enrollment()));
        for host in &self.hosts {
            option("fingerprint", &format!("{}={}", host.id, host.enrollment_fingerprint()));
        }
        for name in ["alice", "bob"] {
            option("holder", text(&self.path(&format!("{name}.asc"))));
            option("fingerprint", &format!("{name}={}", fingerprint(&self.gpg, name)));
        }
        args.extend(more.iter().map(|&argument| argument.to_owned()));
        holdfast(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The same, with what the page says that two holders for three shares take.
    fn adopt_anyway(&self, output: &str, more: &[&str]) -> Done {
        self.adopt(output, &[&["--accept-no-recovery"], more].concat())
    }

    fn bao(&self, args: &[&str], input: &[u8]) -> Done {
        self.vault.tool(args, &self.token, input)
    }

    fn rotation(&self, verify: &[&str]) -> Value {
        self.bao(&[&["operator", "rotate-keys", "-status", "-format=json"], verify].concat(), b"").json()
    }

    /// The command that `adopt` printed, and three of the old shares after it.
    fn rotate(&self, planned: &Value, old: &[String], format: &str) -> Rotated {
        let command = planned["rotate"][0].as_str().expect("OpenBao's command");
        let words: Vec<_> = command.split(' ').collect();
        assert_eq!(words[0], "bao");
        self.bao(&words[1..], b"").well();
        let nonce = self.rotation(&[])["nonce"].as_str().expect("a nonce").to_owned();
        let file = self.path("rotated.txt");
        let nonce = format!("-nonce={nonce}");
        for (entered, share) in old[..3].iter().enumerate() {
            let done = self.bao(&["operator", "rotate-keys", format, &nonce, "-"], share.as_bytes()).well();
            fs::write(&file, &done.out).expect("written");
            if entered < 2 {
                let words = format!("the rotation is not complete: {} of 3", entered + 1);
                self.adopt_anyway("nowhere", &["--rotated", text(&file)]).refused(78, &words);
            }
        }
        let nonce = self.rotation(&["-verify"])["nonce"].as_str().expect("a nonce").to_owned();
        Rotated { file, verification_nonce: nonce }
    }

    /// What a holder does with the file that was handed over.
    fn holders_share(&self, output: &str, name: &str) -> String {
        let file = fs::read(self.path(&format!("{output}/holders/{name}.share.asc"))).expect("there");
        let share = String::from_utf8(self.gpg.decrypt(&file)).expect("text");
        assert_eq!(share.len(), 66, "wc -c says 66");
        share
    }

    fn holder_verifies(&self, share: &str, nonce: &str) -> Done {
        let nonce = format!("-nonce={nonce}");
        self.bao(&["operator", "rotate-keys", "-verify", &nonce, "-"], share.as_bytes()).well()
    }

    /// What a holder does in the night: nobody has a token then.
    fn holder_opens(&self, share: &str) -> Done {
        self.vault.tool(&["write", "sys/unseal", "key=-"], "", share.as_bytes()).well()
    }

    fn custodian_verifies(&self, host: &Host, manifest: &Path, nonce: &str) -> Done {
        let token = host.file("token");
        fs::write(&token, &self.token).expect("written");
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("its own file");
        let vault = ["--vault", &self.vault.url, "--ca-cert", text(&self.vault.ca), "--manifest", text(manifest)];
        host.setup("verify", &[&vault[..], &["--nonce", nonce, "--token-file", text(&token)]].concat())
    }

    fn status(&self) -> Value {
        self.vault.get("sys/seal-status", None)
    }

    fn is_open(&self) -> bool {
        self.status()["sealed"] == false
    }
}

/// A custodian's process. Ends with the value.
struct Daemon {
    process: Child,
    log: PathBuf,
}

impl Daemon {
    fn start(world: &World, host: &Host, manifest: &Path) -> Self {
        fs::copy(manifest, host.file("prod.manifest.json")).expect("copied");
        fs::copy(&world.vault.ca, host.file("ca.pem")).expect("copied");
        let mut signers = fs::read_to_string(manifest.with_file_name("allowed_signers.custodians")).expect("there");
        for operator in ["olga", "otto"] {
            let key = world.path(operator);
            if !key.exists() {
                let args = ["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", text(&key)];
                assert!(Command::new("ssh-keygen").args(args).status().expect("it runs").success());
            }
            let key = fs::read_to_string(key.with_extension("pub")).expect("made");
            signers.push_str(&format!("{operator} namespaces=\"holdfast.approval\" {}\n", key.trim()));
        }
        fs::write(host.file("allowed_signers"), signers).expect("written");
        let config = format!(
            "id = \"{}\"\nstate_dir = \"state\"\nsigning_key = \"signing.key\"\nallowed_signers = \"allowed_signers\"\n\
             [clusters.prod]\nmanifest = \"prod.manifest.json\"\nshare = \"prod.share.age\"\nidentity = \"identity.txt\"\n\
             ca_cert = \"ca.pem\"\noperators = [\"olga\", \"otto\"]\n[clusters.prod.nodes]\n\
             vault-1 = {{ url = \"{}\", tls = \"direct\" }}\n",
            host.id, world.vault.url
        );
        fs::write(host.file("custodian.toml"), config).expect("written");
        fs::create_dir_all(host.file("state")).expect("made");
        let mut command = Command::new(program("holdfast-custodian"));
        command.args(["run", "--config"]).arg(host.file("custodian.toml")).stdin(Stdio::null());
        let log = host.file("log");
        let file = fs::File::create(&log).expect("a log");
        let process = command.stdout(file.try_clone().expect("a log")).stderr(file).spawn().expect("it starts");
        until(&format!("{} has seen the node open", host.id), || {
            fs::read_to_string(host.file("state/state.json")).is_ok_and(|state| state.contains("last_open"))
        });
        Self { process, log }
    }

    /// Waits until each could prove a restart of the node, which is open: its log says so.
    fn rest(daemons: &[Self]) {
        for Self { log, .. } in daemons {
            until(&format!("{} could prove a restart", log.display()), || {
                provable_by(&fs::read_to_string(log).unwrap_or_default(), "vault-1")
            });
        }
    }
}

#[expect(clippy::print_stderr, reason = "what a test failed on is read where it ran")]
impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("{}: {}", self.log.display(), fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// Every file that was made, with its content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()) {
        if entry.is_dir() {
            found.extend(files(&entry));
        } else {
            found.insert(entry.clone(), fs::read(&entry).expect("there"));
        }
    }
    found
}

#[test]
fn five_peoples_shares_become_three_custodians_and_two_holders_who_open_it_when_custodians_are_lost() {
    let (mut world, old) = World::new();

    // Before the rotation: nothing is touched, and what would be final is said.
    world.adopt("out", &[]).refused(2, "and nobody can open prod again, ever");
    let planned = world.adopt_anyway("out", &[]).json();
    assert_eq!((&planned["stage"], &planned["vault_shares"]), (&"planned".into(), &5.into()));
    assert_eq!(planned["holders"][0]["compared"], "given");
    assert_eq!(world.rotation(&[])["started"], false);

    let rotated = world.rotate(&planned, &old, "-format=table");
    // The second step as the first one printed it: no fingerprint is asked for, and each is compared.
    let again = planned["again"].as_str().expect("the command").split(' ').map(|word| word.trim_matches('\''));
    let again: Vec<_> = again.map(|word| if word == "rotated.txt" { text(&rotated.file) } else { word }).collect();
    let report = holdfast(&[&again[1..], &["--json"]].concat()).json();
    assert_eq!(
        (&report["holders"][1]["compared"], &report["custodians"][2]["compared"]),
        (&"given".into(), &"given".into())
    );
    assert_eq!((&report["stage"], &report["generation"]), (&"rotated".into(), &1.into()));
    let made = files(&world.path("out"));
    let again = world.adopt_anyway("out", &["--rotated", text(&rotated.file)]).json();
    assert_eq!((&again, files(&world.path("out"))), (&report, made), "the same again does the same");
    check_manifest(&world);

    // Each host installs, from its packet or from what was printed; nobody takes another's.
    let manifest = world.path("out/prod.manifest.json");
    let packet = |host: &Host| world.path(&format!("out/packets/{}.packet.json", host.id));
    let [first, second, third] = &world.hosts[..] else { panic!("three") };
    second.install(&packet(first), &manifest).refused(78, "is not custodian-1's");
    fs::remove_file(second.file("sent.packet.json")).expect("it is there still");
    first.install(&packet(first), &manifest).json();
    let read = report["manifest_fingerprint"].as_str().expect("adopt says it");
    assert_eq!(read, crate::world::fingerprint(&fs::read(&manifest).expect("there")));
    let printed = ["--keys", text(&rotated.file), "--manifest", text(&manifest), "--keep-transport-key"];
    let printed = [&printed[..], &["--manifest-fingerprint", read]].concat();
    assert_eq!(second.setup("install", &printed).json()["result"], "installed");
    third.install(&packet(third), &manifest).json();
    assert_eq!(third.setup("install", &printed).json()["result"], "already");
    let [alice, bob] = ["alice", "bob"].map(|name| world.holders_share("out", name));

    // The old shares are valid until three new ones were given back, each once.
    let nonce = &rotated.verification_nonce;
    world
        .custodian_verifies(first, &manifest, "45a78cb7-abd5-7113-ab99-198d428004da")
        .refused(1, "verification's nonce is");
    let counted = world.custodian_verifies(first, &manifest, nonce).json();
    assert_eq!((&counted["result"], &counted["progress"]), (&"counted".into(), &1.into()));
    world.holder_verifies(&alice, nonce);
    assert_eq!(world.rotation(&[])["started"], true);
    let complete = world.custodian_verifies(third, &manifest, nonce).json();
    assert_eq!((&complete["result"], &complete["progress"]), (&"complete".into(), &Value::Null));
    world.custodian_verifies(second, &manifest, nonce).refused(1, "no rotation runs there");

    check_erasure(&world, &manifest);

    // A crash heals by itself, without broker and without people; the old shares open nothing any more.
    let mut daemons: Vec<_> = world.hosts.iter().map(|host| Daemon::start(&world, host, &manifest)).collect();
    Daemon::rest(&daemons);
    world.vault.crash();
    until("three custodians open it", || world.is_open());
    drop(daemons.drain(1..));
    Daemon::rest(&daemons);
    world.vault.crash();
    until("the custodian that is left submits", || world.status()["progress"] == 1);

    // Two custodians are lost, and people are slow: the attempt stands still, and the custodian resets it.
    until("the attempt that stood still is reset", || world.status()["progress"] == 0);
    world.holder_opens(&bob);
    until("the custodian joins what a holder has begun", || world.status()["progress"] == 2 || world.is_open());
    world.holder_opens(&alice);
    until("two holders and one custodian open it", || world.is_open());

    drop(daemons);
    world.vault.crash();
    for share in &old[..3] {
        world.vault.unseal(share);
    }
    assert!(!world.is_open(), "the people of before open it no more");
}

fn check_manifest(world: &World) {
    let manifest: Value =
        serde_json::from_slice(&fs::read(world.path("out/prod.manifest.json")).expect("there")).expect("JSON");
    assert_eq!((&manifest["shares"], &manifest["threshold"]), (&5.into(), &3.into()));
    assert_eq!(manifest["custodians"].as_array().map(Vec::len), Some(3));
    let holders = manifest["holders"].as_array().expect("two");
    for (holder, name) in holders.iter().zip(["alice", "bob"]) {
        assert_eq!(holder["openpgp_fingerprint"], fingerprint(&world.gpg, name).to_lowercase());
    }
}

/// After the rotation is verified: what brought the shares goes, whatever was there of it, and that is no failure later.
fn check_erasure(world: &World, manifest: &Path) {
    for (number, host) in world.hosts.iter().enumerate() {
        let sent = host.file("sent.packet.json");
        let args = ["--packet", text(&sent), "--manifest", text(manifest), "--yes"];
        if number == 0 {
            // Sent once more meanwhile.
            fs::copy(world.path(&format!("out/packets/{}.packet.json", host.id)), &sent).expect("copied");
        }
        let done = host.setup("install", &args).json();
        assert_eq!(done["result"], "already");
        assert_eq!(done["erased"].as_array().map(Vec::len), Some(2 - number.min(1)), "{done}");
        assert!(!host.file("transport.key").exists() && !sent.exists());
        let again = host.setup("install", &args).json();
        assert_eq!((&again["result"], &again["erased"]), (&"already".into(), &serde_json::json!([])));
    }
}

#[test]
fn a_rotation_that_was_broken_off_or_is_not_ours_leaves_the_old_shares_valid() {
    let (world, old) = World::new();
    let planned = world.adopt_anyway("out", &[]).json();
    let rotated = world.rotate(&planned, &old, "-format=json");
    let printed = fs::read_to_string(&rotated.file).expect("there");

    // Cut off, altered, of others, of another number of people.
    let with = |content: &str| {
        fs::write(world.path("spoiled.txt"), content).expect("written");
        world.adopt_anyway("nowhere", &["--rotated", text(&world.path("spoiled.txt"))])
    };
    with("").refused(78, "the file is empty");
    with(&printed[..printed.len() / 2]).refused(78, "it is cut off");
    let mut value: Value = serde_json::from_str(&printed).expect("JSON");
    let stranger = "ab".repeat(20);
    value["pgp_fingerprints"][3] = stranger.clone().into();
    with(&value.to_string()).refused(78, &format!("FOR SOMEBODY ELSE, whose key has the fingerprint {stranger}"));
    let mut value: Value = serde_json::from_str(&printed).expect("JSON");
    for list in ["keys", "pgp_fingerprints"] {
        value[list].as_array_mut().expect("a list").pop();
    }
    with(&value.to_string()).refused(78, "it has 4 shares, and there are 5");
    let plain = world.bao(&["operator", "rotate-keys", "-status"], b"").well();
    with(&plain.out).refused(78, "the rotation is not complete: 0 of 3");
    assert!(!world.path("nowhere").exists(), "nothing was written");

    // Handed over, and then the Vault is sealed: the rotation is gone, and the old shares are what opens it.
    world.adopt_anyway("out", &["--rotated", text(&rotated.file)]).json();
    let manifest = world.path("out/prod.manifest.json");
    let host = &world.hosts[0];
    host.install(&world.path("out/packets/custodian-1.packet.json"), &manifest).json();
    world.bao(&["operator", "seal"], b"").well();
    // What was printed can be sorted all the same, here and elsewhere.
    let sealed = world.adopt_anyway("out-sealed", &["--rotated", text(&rotated.file)]).json();
    assert!(sealed["vault_trouble"].as_str().is_some_and(|trouble| trouble.contains("is sealed")), "{sealed}");
    world.adopt_anyway("out-sealed", &[]).refused(1, "is sealed, and shares can be rotated only while it is open");
    for share in &old[1..4] {
        world.vault.unseal(share);
    }
    assert!(world.is_open());
    until("it serves", || world.vault.get("sys/health", None)["standby"] == false);
    world.custodian_verifies(host, &manifest, &rotated.verification_nonce).refused(1, "no rotation runs there");

    // Once more, as the next generation: what is worthless now is kept beside, and the old packet is refused.
    world.adopt_anyway("out", &["--rotated", text(&rotated.file)]).json();
    let planned = world.adopt_anyway("out-2", &["--previous", text(&manifest)]).json();
    assert_eq!(planned["generation"], 2);
    let rotated = world.rotate(&planned, &old, "-format=json");
    let forgotten = "is for generation 2, and this would be generation 1: give --previous";
    world.adopt_anyway("out-2", &["--rotated", text(&rotated.file)]).refused(2, forgotten);
    assert!(!world.path("out-2/prod.manifest.json").exists(), "nothing of another cluster was written");
    world.adopt_anyway("out", &["--rotated", text(&rotated.file)]).refused(1, "has the files of another rotation");
    world.adopt_anyway("out-2", &["--rotated", text(&rotated.file), "--previous", text(&manifest)]).json();
    let second = world.path("out-2/prod.manifest.json");
    let args = ["--keys", text(&rotated.file), "--manifest", text(&second), "--keep-transport-key", "--yes"];
    let done = host.setup("install", &args).json();
    assert_eq!((&done["result"], &done["kept_generation"]), (&"renewed".into(), &1.into()));
    assert!(host.file("prod.share.1.age").is_file() && host.file("prod.share.1.age.record").is_file());
    host.install(&world.path("out/packets/custodian-1.packet.json"), &manifest).refused(1, "a later rotation replaced");
    host.install(&world.path("out/packets/custodian-1.packet.json"), &second).refused(78, "of generation 1");

    // A rotation that somebody else began, in whose place ours was thought to be.
    world.bao(&["operator", "rotate-keys", "-cancel"], b"").well();
    let thief = world.path("thief.asc");
    world.gpg.key("thief", "default", "default", &thief, true);
    let keys = format!("-pgp-keys={0},{0},{0},{0},{0}", text(&thief));
    let begun = ["operator", "rotate-keys", "-init", "-verify", "-key-shares=5", "-key-threshold=3", &keys];
    world.bao(&begun, b"").well();
    world
        .custodian_verifies(host, &second, &rotated.verification_nonce)
        .refused(1, "no share for this host's transport key");
}

#[test]
fn what_is_in_a_folder_of_somebody_elses_stays_as_it_is() {
    let (mut world, old) = World::new();
    let mine = world.path("mine");
    fs::create_dir_all(mine.join("keys")).expect("made");
    for name in ["keys/alice.pgp", "trial"] {
        fs::write(mine.join(name), "a person's own").expect("written");
    }
    let before = files(&mine);
    world.adopt_anyway("mine", &[]).refused(1, "mine is not empty");
    world.adopt_anyway("mine", &["--import"]).refused(1, "mine is not empty");
    assert_eq!(files(&mine), before);
    world.adopt(".", &["--accept-no-recovery"]).refused(1, "is not empty");

    // One's own is: what was planned may be planned again, otherwise too, until there is a rotation of it.
    let planned = world.adopt_anyway("out of the way", &[]).json();
    let words = planned["rotate"][0].as_str().expect("OpenBao's command");
    assert!(words.contains("-pgp-keys='") && words.ends_with("/bob.pgp'"), "a shell takes it as it is: {words}");
    world.adopt_anyway("out", &[]).json();
    let planned = world.adopt_anyway("out", &[]).json();
    let rotated = world.rotate(&planned, &old, "-format=json");
    // The Vault is needed for nothing any more.
    world.vault.stop();
    let report = world.adopt_anyway("out", &["--rotated", text(&rotated.file)]).json();
    assert_eq!((&report["stage"], &report["vault_shares"]), (&"rotated".into(), &Value::Null));
    assert!(report["vault_trouble"].as_str().is_some_and(|trouble| trouble.contains("not known")), "{report}");
    check_manifest(&world);
    assert!(!world.path("out/.trial").exists());
}

#[test]
fn a_host_takes_part_again_with_a_new_transport_key_alone() {
    let (world, old) = World::new();
    let planned = world.adopt_anyway("out", &[]).json();
    let rotated = world.rotate(&planned, &old, "-format=table");
    world.adopt_anyway("out", &["--rotated", text(&rotated.file)]).json();
    let (host, manifest) = (&world.hosts[0], world.path("out/prod.manifest.json"));
    let enroll = |args: &[&str]| host.setup("enroll", &[&["--id", &host.id], args].concat());
    enroll(&["--again"]).refused(1, "is still good");
    let packet = world.path("sent.packet.json");
    fs::copy(world.path("out/packets/custodian-1.packet.json"), &packet).expect("copied");
    let install = ["--packet", text(&packet), "--manifest", text(&manifest), "--yes"];
    let done = host.setup("install", &install).json();
    assert_eq!(done["erased"].as_array().map(Vec::len), Some(2), "{done}");
    enroll(&[]).refused(1, "IS SPENT: its transport key is gone");

    let keys = ["identity.txt", "signing.key"].map(|name| fs::read(host.file(name)).expect("there"));
    let first = fs::read(host.file("enrollment.json")).expect("there");
    // Killed before the enrollment: the next run, with or without the word, goes on.
    let second = enroll(&["--again"]).json();
    assert_ne!(second["fingerprint"], host.fingerprint);
    fs::write(host.file("enrollment.json"), &first).expect("the old one back");
    fs::write(host.file(".enrolling"), r#"{"id":"custodian-1","site":null}"#).expect("written");
    let resumed = enroll(&[]).json();
    assert_eq!(resumed["resumed"], true);
    assert_eq!(resumed["age_recipient"], second["age_recipient"]);
    assert_eq!(keys, ["identity.txt", "signing.key"].map(|name| fs::read(host.file(name)).expect("there")));
    // Somebody repeats the command of the ceremony that is over: the key of the next one is not its to erase.
    let key = fs::read(host.file("transport.key")).expect("there");
    let repeated = host.setup("install", &install).json();
    let nothing = serde_json::json!([]);
    assert_eq!((&repeated["result"], &repeated["erased"]), (&"already".into(), &nothing), "{repeated}");
    assert_eq!(repeated["transport_key_is_anothers"], true);
    assert_eq!(fs::read(host.file("transport.key")).expect("kept"), key);
    setup_refuses_the_old_share(&world, host, &rotated.file);
    crate::world::setup(&["enroll", "--again", "--id", "custodian-9", "--dir", text(&world.path("c9"))])
        .refused(1, "nobody is enrolled here");
}

/// What was encrypted to the key that was erased is nobody's.
fn setup_refuses_the_old_share(world: &World, host: &Host, rotated: &Path) {
    for name in ["prod.share.age", "prod.share.age.record"] {
        fs::remove_file(host.file(name)).expect("removed");
    }
    let manifest = world.path("out/prod.manifest.json");
    let args = ["--keys", text(rotated), "--manifest", text(&manifest), "--yes"];
    host.setup("install", &args).refused(78, "none of the shares in it is encrypted to");
    fs::remove_file(host.file("transport.key")).expect("removed");
    host.setup("install", &args).refused(78, "holdfast-setup enroll --again");
}

#[test]
fn who_must_types_a_share_in_and_only_the_server_proves_it() {
    let (mut world, old) = World::new();
    let report = world.adopt_anyway("out", &["--import"]).json();
    assert_eq!((&report["stage"], &report["shares"]), (&"import".into(), &5.into()));
    let manifest = world.path("out/prod.manifest.json");
    let host = &world.hosts[0];
    let import = |host: &Host, input: &[u8]| {
        let mut command = Command::new(program("holdfast-setup"));
        command.args(["import", "--json", "--yes", "--dir", text(&host.dir), "--manifest", text(&manifest)]);
        Done::of(&mut command, input)
    };
    for (input, words) in [
        (&b""[..], "no share was given"),
        (b"\n", "no share was given"),
        (b"not a share\n", "66 hexadecimal digits, or 44 characters of base64"),
        (&[b'0'; 66], "its x coordinate, is 0"),
        (&[b'7'; 200], "more was given than a share has"),
    ] {
        import(host, input).refused(1, words);
    }
    assert!(!host.file("prod.share.age").exists(), "nothing was written");
    host.install(&world.path("nowhere"), &manifest).refused(78, "does not exist");

    for (host, share) in world.hosts.iter().zip(&old) {
        let done = import(host, format!("{share}\n").as_bytes());
        assert!(!done.out.contains(&share[..16]) && !done.err.contains(&share[..16]));
        assert_eq!(done.json()["result"], "imported");
    }
    let first = hex::decode(&old[0]).expect("hexadecimal");
    let again = import(host, format!("  {}\r\n", crate::world::base64(&first)).as_bytes()).json();
    assert_eq!((&again["result"], &again["x"]), (&"already".into(), &first[32].into()));
    import(host, old[1].as_bytes()).refused(1, "a custodian never holds two of one cluster");

    let daemons: Vec<_> = world.hosts.iter().map(|host| Daemon::start(&world, host, &manifest)).collect();
    Daemon::rest(&daemons);
    world.vault.crash();
    until("the shares that were typed in open it", || world.is_open());
    drop(daemons);
}
