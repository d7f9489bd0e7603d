//! Holders: their keys' refusals, and the road from a printed code to a Vault that people open.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use holdfast_tests::browser::Browser;
use serde_json::Value;

use crate::refusals::Table;
use crate::world::{Gpg, Host, Vault, holdfast, text, unbase64, until};

#[test]
fn a_holder_who_could_not_use_the_share_is_refused_before_the_vault_is_asked() {
    let table = Table::lay();
    let with = |holders: &[&str]| {
        table.init(|init| init.more.extend(holders.iter().map(|holder| format!("--holder={holder}"))))
    };
    let key = |name: &str, algorithm: &str, usage: &str| {
        let path = table.path(&format!("{name}.asc"));
        table.gpg.key(name, algorithm, usage, &path, true);
        text(&path).to_owned()
    };
    let alice = text(&table.path("alice.asc")).to_owned();
    with(&["nowhere.asc"]).refused(78, "nowhere.asc does not exist");
    with(&[&key("signer", "ed25519", "sign")]).refused(78, "for signing only");
    let expired =
        ["--faked-system-time", "20200101T000000!", "--quick-generate-key", "old", "default", "default", "1y"];
    table.gpg.run(&expired);
    table.gpg.export("old", &table.path("old.asc"), true);
    with(&[text(&table.path("old.asc"))]).refused(78, "it has expired");
    with(&[&format!("carol={}", table.hosts[0].file("custodian-1.asc").display())])
        .refused(78, "custodian-1 and carol have the same OpenPGP key");
    with(&[&alice, &format!("also-alice={alice}")]).refused(78, "alice and also-alice have the same OpenPGP key");
    with(&[&alice, &format!("alice={}", key("bob", "default", "default"))]).refused(78, "have the same name");
    with(&[&format!("custodian-1={alice}")]).refused(78, "have the same name");
    fs::copy(&alice, table.path("Alice Example.asc")).expect("copied");
    with(&[text(&table.path("Alice Example.asc"))]).refused(2, "give it with --holder NAME=");
    let secret = table.gpg.run(&["--armor", "--export-secret-keys", "alice"]);
    fs::write(table.path("secret.asc"), secret).expect("written");
    with(&[text(&table.path("secret.asc"))]).refused(78, "not an OpenPGP public key");
    let both = [fs::read(&alice).expect("there"), fs::read(table.path("bob.asc")).expect("there")].concat();
    fs::write(table.path("both.asc"), both).expect("written");
    with(&[text(&table.path("both.asc"))]).refused(78, "there are several keys in it");
    assert!(!table.path("out").exists());
    table.assert_untouched();
}

#[test]
fn what_could_be_lost_for_ever_has_to_be_accepted() {
    let table = Table::lay();
    let alice = table.path("alice.asc");
    let refused = |threshold: &str, more: &[&str], words: &str| {
        let done = table.init(|init| {
            init.threshold = threshold.to_owned();
            init.more = more.iter().map(|&argument| argument.to_owned()).chain(["--yes".to_owned()]).collect();
        });
        done.refused(2, words);
    };
    let holder = format!("--holder={}", alice.display());
    refused(
        "2",
        &[],
        "0 break-glass holders, and 2 shares open the Vault: lose any 1 of your 2 custodians, and nobody",
    );
    refused(
        "2",
        &[&holder],
        "lose any 2 of the 3 shares (for example 2 custodians', or 1 holder's and 1 custodian's), and nobody can open prod",
    );
    refused("3", &[&holder, "--accept-no-recovery"], "it stays shut until holders enter 1 more by hand");
    refused(
        "3",
        &[&holder, "--accept-no-automatic-opening"],
        "lose any 1 of the 3 shares (for example 1 custodian's, or 1 holder's)",
    );
    refused("4", &[&holder], "no more than there are");
    table.assert_untouched();
}

#[test]
fn a_wrong_fingerprint_of_a_holder_ends_it_before_the_vault_is_asked_for_anything() {
    let table = Table::lay();
    let vault = Vault::in_memory(&table.path("vault"));
    let with = |fingerprints: &[String]| {
        table.init(|init| {
            (init.vault, init.ca) = (vault.url.clone(), text(&vault.ca).to_owned());
            init.more = fingerprints.iter().map(|fingerprint| format!("--fingerprint={fingerprint}")).collect();
            init.more.extend(table.hosts.iter().map(|host| format!("--fingerprint={}={}", host.id, host.fingerprint)));
            init.more
                .extend(["--accept-no-recovery".to_owned(), format!("--holder={}", table.path("alice.asc").display())]);
        })
    };
    let ours = fingerprint(&table.gpg, "alice");
    with(&[]).refused(2, "nobody is there to compare alice's fingerprint");
    with(&[format!("alice={}", "ab".repeat(20))]).refused(78, "alice's fingerprint is ");
    with(&[format!("alice={}", table.hosts[0].fingerprint)]).refused(78, "this is not the file that alice made");
    with(&[format!("alice={}", &ours[1..])]).refused(2, "not a fingerprint");
    with(&[format!("bob={ours}")]).refused(2, "no holder of that name");
    assert_eq!(vault.get("sys/seal-status", None)["initialized"], false);
}

/// A key's fingerprint as gpg prints it for programs.
pub(crate) fn fingerprint(gpg: &Gpg, name: &str) -> String {
    let listed = String::from_utf8(gpg.run(&["--with-colons", "--list-keys", name])).expect("text");
    let line = listed.lines().find(|line| line.starts_with("fpr:")).expect("a fingerprint");
    line.split(':').nth(9).expect("its field").to_owned()
}

#[test]
fn holders_open_the_vault_from_paper_alone_or_together_with_custodians() {
    let world = tempfile::tempdir().expect("a folder");
    let world = world.path();
    let mut vault = Vault::in_memory(&world.join("vault"));
    let hosts: Vec<_> = (1..=3).map(|number| Host::enroll(world, number)).collect();
    let (url, ca) = (vault.url.clone(), vault.ca.clone());
    // People's keys of every kind that people have: the largest code is that of the longest key.
    let gpg = Gpg::new();
    for (name, algorithm, usage) in [
        ("alice", "default", "default"),
        ("bob", "rsa4096", "sign,encr"),
        ("carol", "nistp256", "default"),
        ("dave", "rsa2048", "encr"),
    ] {
        let path = world.join(format!("{name}.asc"));
        if name == "carol" {
            // The primary key signs, so that what is encrypted to is a subkey.
            gpg.run(&["--quick-generate-key", name, "nistp256", "sign", "never"]);
            gpg.run(&["--quick-add-key", &fingerprint(&gpg, name), "nistp256", "encr", "never"]);
            gpg.export(name, &path, false);
        } else if usage == "default" {
            gpg.key(name, algorithm, usage, &path, true);
        } else {
            gpg.run(&["--quick-generate-key", name, algorithm, "sign", "never"]);
            gpg.run(&["--quick-add-key", &fingerprint(&gpg, name), algorithm, "encr", "never"]);
            gpg.export(name, &path, true);
        }
    }
    let init = |output: &Path, threshold: &str, holders: &[&str], more: &[&str]| {
        let mut args: Vec<_> = ["init", "--cluster", "prod", "--json"].map(str::to_owned).into();
        let mut option = |name: &str, value: &str| args.extend([format!("--{name}"), value.to_owned()]);
        option("vault", &url);
        option("ca-cert", text(&ca));
        option("threshold", threshold);
        // The root token's key may be a holder's.
        option("root-token-key", text(&world.join("alice.asc")));
        option("output", text(output));
        hosts.iter().for_each(|host| option("enrollment", &host.enrollment()));
        hosts.iter().for_each(|host| option("fingerprint", &format!("{}={}", host.id, host.fingerprint)));
        for name in holders {
            option("holder", text(&world.join(format!("{name}.asc"))));
            option("fingerprint", &format!("{name}={}", fingerprint(&gpg, name)));
        }
        args.extend(more.iter().map(|&argument| argument.to_owned()));
        holdfast(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };

    let output = world.join("out");
    let report = init(&output, "3", &["alice", "bob"], &["--accept-no-recovery"]).json();
    assert_eq!((&report["result"], &report["shares"]), (&"initialised".into(), &5.into()));
    assert_eq!(report["holders"][1]["compared"], "given");
    let manifest: Value =
        serde_json::from_slice(&fs::read(output.join("prod.manifest.json")).expect("there")).expect("JSON");
    let expected = serde_json::json!([
        { "name": "alice", "openpgp_fingerprint": fingerprint(&gpg, "alice").to_lowercase() },
        { "name": "bob", "openpgp_fingerprint": fingerprint(&gpg, "bob").to_lowercase() },
    ]);
    assert_eq!((&manifest["holders"], &manifest["shares"]), (&expected, &5.into()));
    // Bob's key makes the longest text and the largest code.
    let browser = Browser::start();
    for name in ["alice", "bob"] {
        check_page(&browser, &output.join(format!("holders/{name}.sheet.html")));
    }
    let status = vault.get("sys/seal-status", None);
    assert_eq!((&status["n"], &status["t"]), (&5.into(), &3.into()));

    // Two holders, from what a reader reads off their sheets, and one custodian.
    let shares: Vec<_> = ["alice", "bob"].iter().map(|name| share_on_paper(&gpg, &output, name)).collect();
    let packet = output.join("packets/custodian-2.packet.json");
    hosts[1].install(&packet, &output.join("prod.manifest.json")).json();
    let packet: Value = serde_json::from_slice(&fs::read(packet).expect("there")).expect("JSON");
    gpg.run(&["--import", text(&hosts[1].file("transport.key"))]);
    let custodians = gpg.decrypt(&unbase64(packet["openpgp_message"].as_str().expect("a message")));
    opens(&vault, [shares[0].as_str(), shares[1].as_str(), std::str::from_utf8(&custodians).expect("hexadecimal")]);
    let token = String::from_utf8(gpg.decrypt(&fs::read(output.join("root-token.pgp")).expect("there"))).expect("text");
    until("the root token's policies", || {
        vault.get("auth/token/lookup-self", Some(&token))["data"]["policies"][0] == "root"
    });

    // As many holders as it takes: nothing has to be accepted, and they open it alone.
    vault.wipe();
    let output = world.join("out-2");
    let four = ["alice", "bob", "carol", "dave"];
    init(&output, "4", &four, &["--accept-no-automatic-opening"]).json();
    let shares = four.map(|name| share_on_paper(&gpg, &output, name));
    opens(&vault, shares.each_ref().map(String::as_str));
}

/// That a sheet is one page of paper, here and in America.
fn check_page(browser: &Browser, sheet: &Path) {
    browser.go(&format!("file://{}", sheet.display()));
    for (width, height) in [(8.27, 11.69), (8.5, 11.0)] {
        let paper = serde_json::json!({ "paperWidth": width, "paperHeight": height });
        let printed = browser.debug("Page.printToPDF", &paper);
        let printed = unbase64(printed["data"].as_str().expect("a document"));
        let pages = String::from_utf8_lossy(&printed).matches("/Type /Page\n").count();
        assert_eq!(pages, 1, "{} on {width} by {height} inches", sheet.display());
    }
}

fn opens<const N: usize>(vault: &Vault, shares: [&str; N]) {
    for share in shares {
        assert_eq!(vault.get("sys/seal-status", None)["sealed"], true);
        vault.unseal(share);
    }
    assert_eq!(vault.get("sys/seal-status", None)["sealed"], false);
}

/// A holder's share, decrypted by gpg from what is read off the printed code: the same as is in the file and on the sheet.
fn share_on_paper(gpg: &Gpg, output: &Path, name: &str) -> String {
    let file = fs::read_to_string(output.join(format!("holders/{name}.share.asc"))).expect("there");
    assert!(file.starts_with("-----BEGIN PGP MESSAGE-----\n"), "{file}");
    let sheet = fs::read_to_string(output.join(format!("holders/{name}.sheet.html"))).expect("there");
    assert!(sheet.contains(file.trim_end()) && sheet.contains(&format!("held by <strong>{name}</strong>")));
    assert!(!sheet.contains('{') || sheet[sheet.find("</style>").expect("a style")..].find('{').is_none(), "unfilled");
    for foreign in ["<script", "<link", "<img", "src=", "http://", "@import", "url("] {
        let foreign_in = sheet.replace("http://www.w3.org/2000/svg", "");
        assert!(!foreign_in.contains(foreign), "{foreign} is in the sheet");
    }
    let picture = output.join(format!("{name}.pgm"));
    fs::write(&picture, draw(&sheet)).expect("written");
    let read = Command::new("zbarimg").args(["--quiet", "--raw"]).arg(&picture).output().expect("zbarimg is installed");
    let read = String::from_utf8(read.stdout).expect("text");
    assert_eq!(read.trim_end(), file.trim_end(), "what is read off the code is what is in the file");
    let share = String::from_utf8(gpg.decrypt(read.as_bytes())).expect("hexadecimal");
    assert_eq!(hex::decode(&share).expect("hexadecimal").len(), 33);
    share
}

/// The sheet's code as a picture, drawn by its path: `M` goes to a corner, `h`, `v`, `H` and `V` round a dark rectangle.
fn draw(sheet: &str) -> String {
    const SCALE: usize = 4;
    let svg = &sheet[sheet.find("<svg").expect("a code")..sheet.find("</svg>").expect("a code")];
    let between = |from: &str, to: &str| svg.split_once(from).expect(from).1.split_once(to).expect(to).0.to_owned();
    let side: usize = between("viewBox=\"0 0 ", " ").parse().expect("a number");
    let mut dark = vec![false; side * side];
    for rectangle in between(" d=\"", "\"").split('M').skip(1) {
        let numbers: Vec<usize> = rectangle
            .split(['h', 'v', 'H', 'V', ' '])
            .map(|number| number.parse().unwrap_or_else(|_| panic!("a number: {rectangle}")))
            .collect();
        let (x, y, width, height) = (numbers[0], numbers[1], numbers[2], numbers[3]);
        (y..y + height).for_each(|row| dark[row * side + x..row * side + x + width].fill(true));
    }
    let mut picture = format!("P2 {0} {0} 255\n", side * SCALE);
    for row in (0..side).flat_map(|row| std::iter::repeat_n(row, SCALE)) {
        for column in (0..side).flat_map(|column| std::iter::repeat_n(column, SCALE)) {
            let _ = write!(picture, "{} ", if dark[row * side + column] { 0 } else { 255 });
        }
        picture.push('\n');
    }
    picture
}
