//! Two generations of shares side by side: a rotation on a real cluster, a node that slept through it, and the end of the old ones.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_tests::lab::Lab;
use holdfast_tests::processes::Signal;
use holdfast_tests::shares::recover;
use holdfast_tests::wait::{PATIENCE, always};
use serde_json::Value;

use crate::world::{Done, holdfast, setup, text, until};
use holdfast_tests::programs::bao;

/// A lab whose shares are rotated.
struct Rotation {
    lab: Lab,
    token: String,
}

impl Rotation {
    fn file(&self, name: &str) -> PathBuf {
        self.lab.dir().join(name)
    }

    fn home(&self, custodian: &str) -> PathBuf {
        self.file(custodian)
    }

    /// The address of the node that serves writes.
    fn active(&self) -> String {
        self.lab.url(&self.active_node()).to_owned()
    }

    /// A node that serves no writes: it can crash, and a rotation goes on.
    fn standby(&self) -> String {
        let active = self.active_node();
        self.lab.nodes().into_iter().rfind(|node| *node != active).expect("there are three")
    }

    fn active_node(&self) -> String {
        let serves = |node: &String| {
            let health = self.lab.eyes.read(&format!("{}/v1/sys/health", self.lab.url(node)));
            self.lab.runs(node) && health.is_some_and(|health| health.contains("\"standby\":false"))
        };
        let mut found = None;
        until("a node is active", || {
            found = self.lab.nodes().into_iter().find(serves);
            found.is_some()
        });
        found.expect("seen")
    }

    fn bao(&self, args: &[&str], input: &[u8]) -> Done {
        let mut command = Command::new(bao());
        command.args(args).env("BAO_ADDR", self.active()).env("BAO_CACERT", self.lab.path(&self.lab.file.ca_cert));
        Done::of(command.env("BAO_TOKEN", &self.token), input).well()
    }

    fn on(&self, custodian: &str, command: &str, args: &[&str]) -> Done {
        let dir = self.home(custodian);
        setup(&[&[command, "--dir", text(&dir), "--json"], args].concat())
    }

    fn retire(&self, custodian: &str, opened: &[&str]) -> Done {
        let config = self.lab.path(&self.lab.custodian(custodian).config);
        let words: Vec<_> = opened.iter().flat_map(|node| ["--opened", node]).collect();
        setup(&[&["retire", "--json", "--config", text(&config)], &words[..]].concat())
    }

    /// Steps 3 to 6 of docs/CEREMONIES.md on a cluster that custodians keep already. What it printed, and the verification's nonce.
    fn rotate(&self, old: &[String]) -> (PathBuf, String) {
        let (output, previous) = (self.file("next"), self.file("lab.manifest.json"));
        let adopt = |more: &[&str]| {
            let mut args: Vec<_> =
                ["adopt", "--cluster", "lab", "--threshold", "2", "--json", "--yes", "--accept-no-recovery"]
                    .map(str::to_owned)
                    .into();
            let mut option = |name: &str, value: &str| args.extend([format!("--{name}"), value.to_owned()]);
            option("vault", &self.active());
            option("ca-cert", text(&self.lab.path(&self.lab.file.ca_cert)));
            option("output", text(&output));
            option("previous", text(&previous));
            for custodian in self.lab.custodians() {
                option("enrollment", text(&self.home(&custodian).join("enrollment.json")));
            }
            args.extend(more.iter().map(|&argument| argument.to_owned()));
            holdfast(&args.iter().map(String::as_str).collect::<Vec<_>>()).json()
        };
        let planned = adopt(&[]);
        assert_eq!(planned["generation"], 2);
        let command = planned["rotate"][0].as_str().expect("OpenBao's command");
        let words: Vec<_> = command.split(' ').skip(1).collect();
        self.bao(&words, b"");
        let nonce = format!("-nonce={}", self.nonce(&[]));
        let rotated = self.file("rotated.txt");
        for share in old {
            let done = self.bao(&["operator", "rotate-keys", &nonce, "-"], share.as_bytes());
            fs::write(&rotated, done.out).expect("written");
        }
        adopt(&["--rotated", text(&rotated)]);
        (rotated, self.nonce(&["-verify"]))
    }

    fn nonce(&self, of: &[&str]) -> String {
        let status = self.bao(&[&["operator", "rotate-keys", "-status", "-format=json"], of].concat(), b"").json();
        status["nonce"].as_str().expect("a nonce").to_owned()
    }

    /// Step 8, by as many custodians as it takes.
    fn verify(&self, custodians: &[String], nonce: &str) {
        for (given, custodian) in custodians.iter().enumerate() {
            let token = self.home(custodian).join("token");
            fs::write(&token, &self.token).expect("written");
            fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("its own file");
            let (vault, ca) = (self.active(), self.lab.path(&self.lab.file.ca_cert));
            let manifest = self.home(custodian).join("lab.manifest.2.json");
            let args = ["--vault", &vault, "--ca-cert", text(&ca), "--manifest", text(&manifest), "--nonce", nonce];
            let done = self.on(custodian, "verify", &[&args[..], &["--token-file", text(&token)]].concat()).json();
            let expected = if given + 1 == custodians.len() { "complete" } else { "counted" };
            assert_eq!(done["result"], expected, "{done}");
        }
    }

    /// Points custodians at a generation, as a person does in an editor.
    fn point(&self, custodians: &[String], from: &str, to: &str) {
        for custodian in custodians {
            let path = self.lab.path(&self.lab.custodian(custodian).config);
            let config = fs::read_to_string(&path).expect("there");
            assert!(config.contains(from), "{config}");
            fs::write(&path, config.replace(from, to)).expect("written");
            self.lab.signal(custodian, Signal::HUP);
        }
    }

    fn failed(&self, custodian: &str, node: &str) -> bool {
        let log = self.lab.path(&self.lab.custodian(custodian).state_dir).join("audit.jsonl");
        let log = fs::read_to_string(log).unwrap_or_default();
        log.lines().any(|line| line.contains(&format!("\"{node}\"")) && line.contains("\"failed\""))
    }
}

#[test]
fn a_node_that_slept_through_a_rotation_opens_with_the_old_generation_which_then_ends() {
    let args = ["--no-broker", "--nodes", "3", "--custodians", "3", "--threshold", "2"];
    let mut rotation = Rotation { lab: Lab::up(&args), token: String::new() };
    let token = rotation.lab.path(&rotation.lab.file.root_token_file);
    rotation.token = fs::read_to_string(token).expect("the root token").trim().to_owned();
    let custodians = rotation.lab.custodians();
    let packet = |custodian: &str| rotation.file(&format!("ceremony/output/packets/{custodian}.packet.json"));
    let old: Vec<_> = custodians[..2]
        .iter()
        .map(|id| hex::encode(recover(&packet(id), &rotation.home(id).join("transport.key"))))
        .collect();
    let manifest = rotation.file("lab.manifest.json");
    for custodian in &custodians {
        // What the ceremony of before left is erased, and a new transport key is made.
        let gone = rotation.home(custodian).join("gone.packet.json");
        let done = rotation
            .on(custodian, "install", &["--packet", text(&gone), "--manifest", text(&manifest), "--yes"])
            .json();
        assert_eq!(done["result"], "already");
        rotation.on(custodian, "enroll", &["--again", "--id", custodian]).json();
    }
    let (rotated, nonce) = rotation.rotate(&old);
    for custodian in &custodians {
        let new = rotation.home(custodian).join("lab.manifest.2.json");
        fs::copy(rotation.file("next/lab.manifest.json"), &new).expect("carried");
        let args = ["--keys", text(&rotated), "--manifest", text(&new), "--yes"];
        let done = rotation.on(custodian, "install", &args).json();
        assert_eq!((&done["result"], &done["kept_generation"]), (&"renewed".into(), &1.into()));
        assert_eq!(done["erased"].as_array().map(Vec::len), Some(1), "{done}");
    }

    // Installed everywhere and verified by nobody: the old shares are what opens a node, also after a reload and a restart.
    let sleeper = rotation.standby();
    rotation.lab.signal(&custodians[0], Signal::HUP);
    rotation
        .lab
        .crash_patiently(&sleeper, PATIENCE)
        .expect("the old shares open it, which gave their place to the new ones");
    rotation.lab.settle();
    rotation.lab.restart(&custodians[1]);
    rotation.lab.restart_provable(&sleeper);
    rotation.lab.crash_patiently(&sleeper, PATIENCE).expect("and once more");

    // It sleeps, and the new ones come into force.
    rotation.lab.kill(&sleeper);
    rotation.verify(&custodians[..2], &nonce);
    for custodian in &custodians {
        let manifest = rotation.home(custodian).join("lab.manifest.json");
        fs::rename(&manifest, manifest.with_file_name("lab.manifest.1.json")).expect("kept");
        fs::rename(manifest.with_file_name("lab.manifest.2.json"), &manifest).expect("the new one in its place");
        rotation.lab.signal(custodian, Signal::HUP);
    }
    let awake: Vec<_> = rotation.lab.nodes().into_iter().filter(|node| *node != sleeper).collect();
    let awake: Vec<_> = awake.iter().map(String::as_str).collect();
    rotation.retire(&custodians[0], &[]).refused(1, "nothing here shows that vault-1, vault-2, vault-3 opened");
    for node in &awake {
        rotation.lab.restart_provable(node);
        rotation.lab.crash_patiently(node, PATIENCE).expect("the new shares open it");
    }

    // The one that slept knows of no rotation: whichever of the new shares are tried, they fail.
    rotation.lab.start(&sleeper);
    // Whoever's share completes a set is told; that may be the same one each time.
    until("a set of the new shares fails", || custodians.iter().any(|custodian| rotation.failed(custodian, &sleeper)));
    assert!(rotation.lab.is_sealed(&sleeper));
    let unseen = format!("nothing here shows that {sleeper} opened");
    for custodian in &custodians {
        rotation.retire(custodian, &awake).refused(1, &unseen);
    }

    let (new, older) = ("lab.manifest.json", "lab.manifest.1.json");
    rotation.point(&custodians, new, older);
    rotation.lab.approve(&sleeper);
    until("the old generation opens it, once", || rotation.lab.is_open(&sleeper));
    rotation.point(&custodians, older, new);
    rotation.retire(&custodians[0], &awake).refused(1, &unseen);
    rotation.lab.restart_provable(&sleeper);
    // It joins the others and learns of the rotation. Nothing that it says of itself tells when it has.
    always(Duration::from_secs(6), "it stays open", || rotation.lab.is_open(&sleeper));
    rotation.lab.crash_patiently(&sleeper, PATIENCE).expect("and then the new one does");

    end_the_old_one(&rotation, &custodians);
}

/// Where a custodian's own log shows it, it needs nobody's word: whoever completed a set has that.
fn end_the_old_one(rotation: &Rotation, custodians: &[String]) {
    let mut shown = 0;
    for custodian in custodians {
        let nodes = rotation.lab.nodes();
        let alone = |left: &str| {
            let words: Vec<_> = nodes.iter().map(String::as_str).filter(|node| *node != left).collect();
            rotation.retire(custodian, &words)
        };
        let kept = rotation.home(custodian).join("lab.share.1.age");
        assert!(kept.is_file());
        rotation.retire(custodian, &["vault-9"]).refused(2, "the configuration knows no such node");
        let done = nodes.iter().map(|node| alone(node)).find(|done| done.code == 0);
        shown += usize::from(done.is_some());
        let done = done.unwrap_or_else(|| rotation.retire(custodian, &["vault-1", "vault-2", "vault-3"])).json();
        assert_eq!(done["retired"], serde_json::json!([1]));
        assert!(!kept.exists() && !Path::new(&format!("{}.record", kept.display())).exists());
        let again = rotation.retire(custodian, &[]).json();
        let none = Value::Array(Vec::new());
        assert_eq!([&again["retired"], &again["shown_by_audit_log"], &again["shown_by_word"]], [&none; 3]);
    }
    assert!(shown > 0, "no log shows an opening with the new shares");
}
