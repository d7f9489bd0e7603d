//! Every file that a custodian is given can be wrong. Each is refused with the file, its line, and what to do; and nothing is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use holdfast_tests::home::{Ceremony, Home};

/// The exit status of a configuration that is refused.
const REFUSED: i32 = 78;

/// Where a refusal points.
enum At {
    /// The configuration's line that has this in it.
    Line(&'static str),
    /// The last such line.
    LastLine(&'static str),
    /// Some line of the configuration.
    Somewhere,
    /// The configuration as a whole.
    Whole,
}

use At::{LastLine, Line, Somewhere, Whole};

/// What is wrong, how it is made wrong, where the refusal points, and what it says.
type Case = (&'static str, fn(&Home), At, &'static [&'static str]);

#[test]
fn a_wrong_configuration_is_refused_with_its_line() {
    let ceremony = Ceremony::hold();
    let good = ceremony.home("custodian-1");
    assert!(good.check().well().out.contains("the configuration of custodian-1 is sound"));
    for (what, spoil, at, parts) in CASES {
        let home = ceremony.home("custodian-1");
        spoil(&home);
        let config = fs::read(home.config()).unwrap_or_default();
        let config = String::from_utf8_lossy(&config);
        let place = match at {
            Whole => "custodian.toml: ".to_owned(),
            Somewhere => "custodian.toml:".to_owned(),
            Line(text) | LastLine(text) => {
                let mut lines =
                    config.lines().zip(1..).filter(|(line, _)| line.contains(text)).map(|(_, number)| number);
                let line = if matches!(at, Line(_)) { lines.next() } else { lines.last() };
                format!("custodian.toml:{}: ", line.unwrap_or_else(|| panic!("{what}: no line with {text}")))
            }
        };
        for said in [home.check(), home.run_refused()] {
            assert_eq!(said.code, Some(REFUSED), "{what}: {said:?}");
            for part in parts.iter().copied().chain([place.as_str()]) {
                assert!(said.err.contains(part), "{what}: {part:?} is missing from {}", said.err);
            }
            assert_eq!(said.err.trim_end().lines().count(), 1, "{what}: {}", said.err);
        }
        assert!(!home.path("state/state.json").exists(), "{what}: it began to work");
    }
}

const CASES: &[Case] = &[
    ("no file", |home| fs::remove_file(home.config()).expect("removed"), Whole, &["does not exist"]),
    ("an empty file", |home| home.write("custodian.toml", ""), Somewhere, &["id"]),
    ("half a file", |home| cut(home, "custodian.toml"), Somewhere, &[]),
    ("not text", |home| home.write("custodian.toml", b"# \xff\n"), Line("#"), &["UTF-8"]),
    ("not TOML", |home| config(home, "site = ", "site : "), Line("site : "), &[]),
    (
        "a key twice",
        |home| config(home, "site = ", "id = \"custodian-1\"\nsite = "),
        LastLine("id = \"custodian-1"),
        &["duplicate"],
    ),
    (
        "an unknown key",
        |home| config(home, "[clusters.lab]\n", "[clusters.lab]\ncolour = \"red\"\n"),
        Line("colour"),
        &["colour"],
    ),
    ("an unknown key above all", |home| config(home, "site = ", "sight = \"far\"\nsite = "), Line("sight"), &["sight"]),
    ("an unknown key of a node", |home| config(home, "tls = \"direct\"", "token = \"s.1\""), Line("token"), &["token"]),
    (
        "an unknown key of the policy",
        |home| config(home, "drill_windows", "drill_doors"),
        Line("drill_doors"),
        &["drill_doors"],
    ),
    ("a value of another type", |home| config(home, "site = \"bern\"", "site = 3"), Line("site = 3"), &["string"]),
    ("a node without TLS", |home| config(home, "https://", "http://"), Line("http://"), &["https://"]),
    ("a node's address with a path", |home| config(home, "\", tls", "/v1/sys\", tls"), Line("/v1/sys"), &[]),
    ("a pin that is none", |home| config(home, "spki_sha256 = [\"", "spki_sha256 = [\"!"), Line("[\"!"), &["pin"]),
    ("no node", |home| nodes(home, ""), Line("[clusters.lab.nodes]"), &["has no node"]),
    ("a poll without a unit", |home| poll(home, "1"), Line("poll_interval"), &["\"2m\""]),
    ("a poll that is a flood", |home| poll(home, "1ms"), Line("poll_interval"), &["between"]),
    ("nobody who could approve", |home| config(home, "[\"alice\", \"bob\"]", "[]"), Line("operators"), &["operators"]),
    (
        "a quorum that there cannot be",
        |home| config(home, "in_place_approvals = 1", "in_place_approvals = 3"),
        Line("in_place_approvals = 3"),
        &["number of operators, 2"],
    ),
    (
        "a rule that is none",
        |home| config(home, "[clusters.lab.policy]\n", "[clusters.lab.policy]\nrestart = \"maybe\"\n"),
        Line("maybe"),
        &["unseal", "approve", "hold"],
    ),
    ("no signing key", |home| remove(home, "signing.key"), Line("signing_key"), &["signing.key", "does not exist"]),
    ("an empty signing key", |home| home.write("signing.key", ""), Line("signing_key"), &["signing.key", "empty"]),
    ("half a signing key", |home| cut(home, "signing.key"), Line("signing_key"), &["signing.key", "damaged"]),
    (
        "a signing key that all can read",
        |home| all_can_read(home, "signing.key"),
        Line("signing_key"),
        &["chmod 600", "signing.key"],
    ),
    (
        "somebody else's name",
        |home| config(home, "id = \"custodian-1\"", "id = \"custodian-2\""),
        Line("id = "),
        &["the signing key is custodian-1's, as allowed_signers has it, and not custodian-2's"],
    ),
    ("no trust root", |home| remove(home, "allowed_signers"), Line("allowed_signers"), &["does not exist"]),
    ("an empty trust root", |home| home.write("allowed_signers", ""), Line("allowed_signers"), &["lists no key"]),
    (
        "a trust root without namespaces",
        |home| trust(home, "alice namespaces=\"holdfast.order,holdfast.approval\"", "alice"),
        Line("allowed_signers"),
        &["allowed_signers: line 2:", "namespaces="],
    ),
    (
        "a trust root with any namespace",
        |home| trust(home, "\"holdfast.order,holdfast.approval\"", "\"*\""),
        Line("allowed_signers"),
        &["line 2:"],
    ),
    ("a trust root for anybody", |home| trust(home, "alice ", "* "), Line("allowed_signers"), &["line 2:"]),
    (
        "a trust root for several at once",
        |home| trust(home, "alice ", "alice,bob "),
        Line("allowed_signers"),
        &["line 2:"],
    ),
    (
        "a trust root with an authority",
        |home| trust(home, "alice namespaces", "alice cert-authority,namespaces"),
        Line("allowed_signers"),
        &["line 2:", "cert-authority"],
    ),
    ("a trust root that lists a key twice", key_twice, Line("allowed_signers"), &["line "]),
    (
        "a trust root that does not know it",
        |home| trust(home, "custodian-1 namespaces=\"holdfast.report", "custodian-1 namespaces=\"holdfast.event"),
        Line("id = "),
        &["custodian-1 namespaces=\"holdfast.report\""],
    ),
    ("no manifest", |home| remove(home, "lab.manifest.json"), Line("manifest ="), &["does not exist"]),
    ("an empty manifest", |home| home.write("lab.manifest.json", ""), Line("manifest ="), &["lab.manifest.json"]),
    ("half a manifest", |home| cut(home, "lab.manifest.json"), Line("manifest ="), &["lab.manifest.json"]),
    ("a manifest of another version", |home| manifest(home, "\"v\": 1", "\"v\": 2"), Line("manifest ="), &["version"]),
    (
        "a manifest that is something else",
        |home| manifest(home, "\"manifest\"", "\"packet\""),
        Line("manifest ="),
        &["packet"],
    ),
    (
        "a manifest of a cluster that it does not serve",
        |home| manifest(home, "\"id\": \"custodian-1\"", "\"id\": \"custodian-9\""),
        Line("manifest ="),
        &["custodian-1"],
    ),
    (
        "a manifest with an unknown key",
        |home| manifest(home, "\"v\": 1", "\"v\": 1, \"w\": 1"),
        Line("manifest ="),
        &["w"],
    ),
    ("no CA", |home| remove(home, "vault-ca.pem"), Line("ca_cert"), &["does not exist"]),
    ("a CA that is none", |home| home.write("vault-ca.pem", "hello"), Line("ca_cert"), &["vault-ca.pem"]),
    (
        "a broker without TLS",
        |home| broker(home, "amqp://127.0.0.1:5672/holdfast", 0o600),
        Line("amqp://"),
        &["amqps://"],
    ),
    (
        "a broker's password that all can read",
        |home| broker(home, "amqps://127.0.0.1:5671/holdfast", 0o644),
        Line("password_file"),
        &["chmod 600", "broker.password"],
    ),
];

fn config(home: &Home, from: &str, to: &str) {
    home.replace("custodian.toml", from, to);
}

fn trust(home: &Home, from: &str, to: &str) {
    home.replace("allowed_signers", from, to);
}

fn manifest(home: &Home, from: &str, to: &str) {
    home.replace("lab.manifest.json", from, to);
}

fn remove(home: &Home, name: &str) {
    fs::remove_file(home.path(name)).expect("removed");
}

fn cut(home: &Home, name: &str) {
    let bytes = fs::read(home.path(name)).expect("read");
    home.write(name, &bytes[..bytes.len() / 2]);
}

fn chmod(home: &Home, name: &str, mode: u32) {
    fs::set_permissions(home.path(name), fs::Permissions::from_mode(mode)).expect("changed");
}

fn all_can_read(home: &Home, name: &str) {
    chmod(home, name, 0o644);
}

fn poll(home: &Home, time: &str) {
    config(home, "operators = ", &format!("poll_interval = \"{time}\"\noperators = "));
}

fn nodes(home: &Home, nodes: &str) {
    let text = home.read("custodian.toml");
    let line = text.lines().find(|line| line.starts_with("vault-1 = ")).expect("a node");
    config(home, line, nodes);
}

fn key_twice(home: &Home) {
    let text = home.read("allowed_signers");
    let line = text.lines().find(|line| line.starts_with("bob ")).expect("bob");
    home.write("allowed_signers", format!("{text}{}\n", line.replace("bob ", "carol ")));
}

fn broker(home: &Home, url: &str, mode: u32) {
    home.write("broker.password", "a-password\n");
    chmod(home, "broker.password", mode);
    let section = format!(
        "[broker]\nurl = \"{url}\"\nusername = \"custodian-1\"\npassword_file = \"broker.password\"\n\
         ca_cert = \"vault-ca.pem\"\n\n[clusters.lab]\n"
    );
    config(home, "[clusters.lab]\n", &section);
}

/// What is wrong, how it is made wrong, and what `check` says.
type ShareCase = (&'static str, fn(&Ceremony, &Home), &'static [&'static str]);

#[test]
fn a_share_that_is_not_ones_own_or_damaged_is_refused_and_left_as_it_is() {
    let ceremony = Ceremony::hold();
    for (what, spoil, parts) in SHARES {
        let home = ceremony.home("custodian-1");
        spoil(&ceremony, &home);
        let names = ["lab.share.age", "lab.share.age.record", "identity.txt"];
        let before = names.map(|name| fs::read(home.path(name)).ok());
        let said = home.check();
        assert!(said.code.is_some_and(|code| code != 0), "{what}: {said:?}");
        for part in *parts {
            let all = format!("{}{}", said.out, said.err);
            assert!(all.contains(part), "{what}: {part:?} is missing from {all}");
        }
        assert_eq!(names.map(|name| fs::read(home.path(name)).ok()), before, "{what}: something was changed");
    }
}

const SHARES: &[ShareCase] = &[
    ("none", |_, home| remove(home, "lab.share.age"), &["lab.share.age", "holdfast-setup install"]),
    ("an empty file", |_, home| home.write("lab.share.age", ""), &["lab.share.age", "restore"]),
    ("cut off", |_, home| cut(home, "lab.share.age"), &["lab.share.age", "restore"]),
    ("one bit of it is another", flip, &["lab.share.age", "restore"]),
    ("somebody else's share", theirs, &["lab.share.age"]),
    ("no record", |_, home| remove(home, "lab.share.age.record"), &["holdfast-setup install"]),
    ("half a record", |_, home| cut(home, "lab.share.age.record"), &["lab.share.age.record"]),
    ("another cluster's record", |_, home| manifest(home, "\"id\": \"", "\"id\": \"0"), &["lab.manifest.json"]),
    (
        "a record of somebody else",
        |_, home| home.replace("lab.share.age.record", "custodian-1", "custodian-2"),
        &["custodian-2"],
    ),
    ("an identity that all can read", |_, home| all_can_read(home, "identity.txt"), &["chmod 600", "identity.txt"]),
    ("somebody else's identity", identity, &["identity.txt"]),
    ("half an identity", |_, home| cut(home, "identity.txt"), &["identity.txt"]),
];

fn flip(_: &Ceremony, home: &Home) {
    let mut bytes = fs::read(home.path("lab.share.age")).expect("read");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    home.write("lab.share.age", bytes);
}

fn theirs(ceremony: &Ceremony, home: &Home) {
    fs::copy(ceremony.file("custodian-2/lab.share.age"), home.path("lab.share.age")).expect("copied");
}

fn identity(ceremony: &Ceremony, home: &Home) {
    fs::copy(ceremony.file("custodian-2/identity.txt"), home.path("identity.txt")).expect("copied");
}

#[test]
fn a_state_that_cannot_be_read_is_no_reason_to_forget() {
    let ceremony = Ceremony::hold();
    let spoilers: [(&str, &[u8]); 5] = [
        ("empty", b""),
        ("cut off", b"{\"v\":1,\"high_wat"),
        (
            "of another version",
            b"{\"v\":1,\"high_water\":\"2026-11-22T10:00:00.000Z\",\"permissions\":{},\"clusters\":{}}",
        ),
        ("something else", b"[]"),
        (
            "with an unknown key",
            b"{\"v\":2,\"high_water\":\"2026-11-22T10:00:00.000Z\",\"permissions\":{},\"clusters\":{},\"x\":1}",
        ),
    ];
    for (what, state) in spoilers {
        let home = ceremony.home("custodian-1");
        fs::create_dir_all(home.path("state")).expect("made");
        home.write("state/state.json", state);
        let said = home.run_refused();
        assert!(said.code.is_some_and(|code| code != 0), "{what}: {said:?}");
        for part in ["state.json", "move the file away"] {
            assert!(said.err.contains(part), "{what}: {part:?} is missing from {}", said.err);
        }
        assert_eq!(fs::read(home.path("state/state.json")).expect("there"), state, "{what}: it was changed");
    }
}
