//! What somebody finds who stands beside a lab that has worked for a while: no share in any file, log, command line or
//! environment, no socket of a custodian that anybody could send something to, and messages that OpenSSH itself verifies.

#![expect(clippy::print_stdout, reason = "what a test measured is read where it ran")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use holdfast_tests::broker::Client;
use holdfast_tests::lab::Lab;
use holdfast_tests::processes;
use holdfast_tests::programs::{Said, repository, tool};
use holdfast_tests::shares::{Needles, SHARE_LEN, Share, of_lab};
use holdfast_tests::wait::until;

#[test]
fn an_outsider_finds_nothing_but_what_the_pages_say() {
    let mut lab = Lab::up(&[]);
    lab.scenario("no socket", no_socket_of_a_custodian);
    lab.scenario("OpenSSH verifies", openssh_verifies_a_captured_message);
    lab.scenario("no residue", no_residue_of_a_share);
}

/// Listens to the kernel in two ways, before, during and after work.
fn no_socket_of_a_custodian(lab: &mut Lab) {
    let look = |lab: &Lab| {
        let listed = tool("ss", &["-lntuHp"]).out;
        for custodian in lab.custodians() {
            let pid = lab.pid(&custodian);
            assert!(!listed.contains(&format!("pid={pid},")), "{custodian} listens: {listed}");
            if let Some(sockets) = processes::sockets(pid) {
                assert!(!sockets.is_empty(), "{custodian} is connected to nobody: the tables were not read");
                let open: Vec<_> = sockets.iter().filter(|socket| socket.is_open_to_all()).collect();
                assert!(open.is_empty(), "{custodian}: {open:?}");
            }
        }
        if lab.custodians().iter().any(|custodian| processes::sockets(lab.pid(custodian)).is_none()) {
            // Somebody else may just have begun or ended to listen: what is hidden stays so.
            until("every socket that is open to all has a process that shows itself", || {
                processes::hidden_sockets().is_empty()
            });
        }
        // The same eyes see those that do listen.
        for server in ["vault-2", "broker", "sentinel"] {
            let pid = lab.pid(server);
            assert!(listed.contains(&format!("pid={pid},")), "{server} was not seen to listen: {listed}");
            let sockets = processes::sockets(pid).expect("one's own process");
            assert!(sockets.iter().any(processes::Socket::is_open_to_all), "{server}: {sockets:?}");
        }
    };
    look(lab);
    lab.restart("vault-1");
    until("it is open again", || {
        look(lab);
        lab.is_open("vault-1")
    });
    look(lab);
}

/// The lines under "Checking one by hand" in docs/PROTOCOL.md, as they stand there.
fn openssh_verifies_a_captured_message(lab: &mut Lab) {
    let page = fs::read_to_string(repository().join("docs/PROTOCOL.md")).expect("the page");
    let section = page.split("### Checking one by hand").nth(1).expect("the section");
    let script = section.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the lines");
    assert!(script.contains("ssh-keygen -Y verify") && script.contains("jq"), "{script}");

    let admin = Client::admin(lab);
    let tap = admin.tap("holdfast.reports");
    let heartbeat = admin.next_of(&tap, "heartbeat");
    admin.untap(tap);
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(lab.path(&lab.file.allowed_signers), folder.path().join("allowed_signers")).expect("the trust root");
    let verify = |envelope: &[u8]| {
        fs::write(folder.path().join("capture.json"), envelope).expect("written");
        let script = format!("set -euo pipefail\n{script}");
        Said::from(Command::new("bash").args(["-c", &script]).current_dir(folder.path()).output().expect("bash"))
    };
    let said = verify(&heartbeat).well();
    assert!(said.out.contains("Good \"holdfast.report\" signature for custodian-"), "{said:?}");
    let body: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("body")).expect("the body")).expect("JSON");
    assert_eq!((&body["kind"], &body["content"]["sandboxed"]), (&"heartbeat".into(), &true.into()), "{body}");
    let parts = body["content"]["sandbox"].as_array().expect("the parts that are in force");
    assert!(["process", "files", "ports", "calls"].iter().all(|part| parts.contains(&(*part).into())), "{body}");

    // One letter of the body changed: the lines would tell.
    let mut forged: serde_json::Value = serde_json::from_slice(&heartbeat).expect("JSON");
    let text = String::from_utf8(fs::read(folder.path().join("body")).expect("the body")).expect("text");
    forged["body"] = BASE64_STANDARD.encode(text.replace("\"sandboxed\":true", "\"sandboxed\":tru3")).into();
    assert_ne!(verify(forged.to_string().as_bytes()).code, Some(0), "it verifies whatever it is given");
}

/// Shares were installed, submitted, counted, refused and reset by now. None is left anywhere.
fn no_residue_of_a_share(lab: &mut Lab) {
    let shares: BTreeMap<String, Share> =
        lab.custodians().into_iter().map(|id| (id.clone(), of_lab(lab, &id))).collect();
    let distinct: std::collections::BTreeSet<_> = shares.values().map(|share| share[SHARE_LEN - 1]).collect();
    assert_eq!(distinct.len(), shares.len(), "they are five different shares");
    let needles = Needles::of(&shares.values().copied().collect::<Vec<_>>());
    finds_what_is_planted(&needles, &shares["custodian-1"]);
    for id in lab.custodians() {
        assert_eq!(lab.heartbeat(&id)["share"]["x"], shares[&id][SHARE_LEN - 1], "the share is {id}'s");
    }

    // Everything that touches shares once more, and what goes wrong with them: crashes, a seal, an approval, restarts, an
    // installation that is refused and one that changes nothing.
    for node in lab.nodes() {
        lab.crash(&node).expect("open");
    }
    lab.seal("vault-1");
    lab.approve("vault-1");
    until("the approval opens it", || lab.is_open("vault-1"));
    lab.restart("custodian-5");
    lab.settle();

    let (found, bytes) = needles.search(lab.dir());
    assert!(found.is_empty(), "shares in {found:#?}");
    assert!(bytes > 1_000_000, "only {bytes} bytes were looked at");
    let running = lab.running();
    assert!(running.len() >= 11, "{running:?}");
    for (name, pid) in running {
        for (file, content) in processes::started_with(pid) {
            assert_eq!(needles.find(&content), None, "a share in {name}'s {}", file.display());
        }
    }
    println!("        {bytes} bytes of files without a share");
}

/// Whoever finds nothing has to show that there was nothing to be found.
fn finds_what_is_planted(needles: &Needles, share: &Share) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("below/planted");
    fs::create_dir_all(file.parent().expect("a folder")).expect("made");
    let digits = hex::encode(share);
    let spellings: [Vec<u8>; 7] = [
        share.to_vec(),
        share[3..15].to_vec(),
        digits.clone().into_bytes(),
        digits.to_uppercase().into_bytes(),
        BASE64_STANDARD.encode(share).into_bytes(),
        BASE64_URL_SAFE_NO_PAD.encode([b"x", share.as_slice()].concat()).into_bytes(),
        BASE64_STANDARD.encode(format!("{{\"key\":\"{digits}\"}}")).into_bytes(),
    ];
    for spelled in spellings {
        fs::write(&file, [&[0; 1000], spelled.as_slice(), b" and more"].concat()).expect("written");
        let found = |folder: &Path| needles.search(folder).0;
        assert_eq!(found(folder.path()), std::slice::from_ref(&file), "{}", String::from_utf8_lossy(&spelled));
    }
    fs::write(&file, [7; 100_000]).expect("written");
    assert!(needles.search(folder.path()).0.is_empty());
    // And it takes no longer than a test may.
    let began = std::time::Instant::now();
    assert_eq!(needles.find(&vec![share[0]; 1_000_000]), None);
    assert!(began.elapsed() < Duration::from_secs(5));
}
