//! What a configuration file may and may not say, each refusal with its line.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    id: Spanned<Principal>,
    signing_key: Option<Spanned<PathBuf>>,
    allowed_signers: Option<Spanned<PathBuf>>,
    wait: Option<Spanned<String>>,
    broker: Option<BrokerSection>,
    #[serde(default = "none")]
    clusters: Spanned<BTreeMap<Spanned<ClusterName>, ExampleCluster>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExampleCluster {
    ca_cert: Spanned<PathBuf>,
    nodes: Spanned<BTreeMap<Spanned<NodeName>, NodeSection>>,
}

fn none() -> Spanned<BTreeMap<Spanned<ClusterName>, ExampleCluster>> {
    Spanned::new(0..0, BTreeMap::new())
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) {
        let path = self.0.path().join(name);
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    }

    fn config(&self, text: &str) -> Result<(ConfigFile, Example), ConfigError> {
        self.write("example.toml", text, 0o644);
        let file = ConfigFile::read(&self.0.path().join("example.toml"))?;
        let example = file.parse()?;
        Ok((file, example))
    }

    fn refused(&self, text: &str) -> ConfigError {
        self.config(text).expect_err("refused")
    }
}

fn ca_pem() -> String {
    rcgen::generate_simple_self_signed(["ca".to_owned()]).expect("a certificate").cert.pem()
}

#[test]
fn a_refusal_names_file_line_and_what_is_wrong() {
    let folder = Folder::new();
    let unknown = folder.refused("id = \"a\"\n\nwiat = \"2m\"\n");
    assert_eq!(unknown.line, Some(3));
    let shown = unknown.to_string();
    assert!(shown.contains("example.toml:3: ") && shown.contains("wiat") && shown.contains("wait"), "{shown}");
    for (text, line, part) in [
        ("id = \"a\"\nid = \"b\"\n", Some(2), "duplicate"),
        ("id = \"A*\"\n", Some(1), "is not a name"),
        ("id = 7\n", Some(1), "string"),
        ("\n\nid = \"a\n", Some(3), ""),
        ("", Some(1), "id"),
        ("id = \"a\"\n[clusters.prod]\nca_cert = \"x\"\n", Some(2), "nodes"),
        ("id = \"a\"\n[clusters.Prod]\n", Some(2), "is not a name"),
        ("id = \"a\"\n[broker]\nurl = \"x\"\nusername = \"a\"\npasword_file = \"x\"\n", Some(5), "pasword_file"),
    ] {
        let refused = folder.refused(text);
        assert_eq!(refused.line, line, "{text:?}: {refused}");
        assert!(refused.what.contains(part) && !refused.what.contains('\n'), "{text:?}: {refused}");
    }
    folder.write("example.toml", b"id = \"a\"\n# \xff\n", 0o644);
    let refused = ConfigFile::read(&folder.0.path().join("example.toml")).expect_err("not text");
    assert_eq!(refused.line, Some(2));
    let missing = ConfigFile::read(&folder.0.path().join("no.toml")).expect_err("missing");
    assert!(missing.to_string().contains("no.toml") && missing.line.is_none(), "{missing}");
}

#[test]
fn a_time_has_a_unit_and_a_range() {
    let folder = Folder::new();
    let read = |text: &str| {
        let (file, example) = folder.config(&format!("id = \"a\"\nwait = \"{text}\"\n")).expect("well formed");
        file.duration(&example.wait.expect("given"), Duration::from_millis(10)..=Duration::from_secs(7200))
    };
    for (text, millis) in [("10ms", 10), ("1s", 1000), ("2m", 120_000), ("2h", 7_200_000)] {
        assert_eq!(read(text).expect(text), Duration::from_millis(millis));
    }
    for bad in ["", "1", "s", "1 s", "-1s", "1.5s", "1d", "9ms", "3h", "99999999999s", "１s"] {
        assert_eq!(read(bad).expect_err(bad).line, Some(2));
    }
}

#[test]
fn paths_start_at_the_files_folder_and_what_they_name_is_checked() {
    let folder = Folder::new();
    let (file, example) = folder.config("id = \"a\"\nsigning_key = \"keys/a.key\"\n").expect("good");
    let path = example.signing_key.expect("given");
    assert_eq!(file.resolve(&path), folder.0.path().join("keys/a.key"));
    let refused = file.signing_key(&path).expect_err("missing");
    assert!(refused.line == Some(2) && refused.what.contains("keys/a.key"), "{refused}");
    let absolute = Spanned::new(0..0, PathBuf::from("/etc/a.key"));
    assert_eq!(file.resolve(&absolute), Path::new("/etc/a.key"));
}

#[test]
fn a_key_that_nobody_would_believe_is_refused_with_the_line_to_add() {
    let folder = Folder::new();
    let key = SigningKey::generate().expect("random numbers");
    key.save(&folder.0.path().join("a.key")).expect("saved");
    let line =
        |namespaces: &str, key: &SigningKey| format!("a namespaces=\"{namespaces}\" {}\n", key.public_openssh(""));
    let other = SigningKey::generate().expect("random numbers");
    let text = "id = \"a\"\nsigning_key = \"a.key\"\nallowed_signers = \"signers\"\n";
    for (signers, good) in [
        (line("holdfast.event", &key), true),
        (line("holdfast.order,holdfast.event", &key), true),
        (line("holdfast.report", &key), false),
        (line("holdfast.event", &other), false),
    ] {
        folder.write("signers", &signers, 0o644);
        let (file, example) = folder.config(text).expect("good");
        let key = file.signing_key(&example.signing_key.expect("given")).expect("a key");
        let trust = file.allowed_signers(&example.allowed_signers.expect("given")).expect("a trust root");
        let checked = file.check_listed(&key, &example.id, Namespace::Event, &trust);
        assert_eq!(checked.is_ok(), good, "{signers}");
        if let Err(refused) = checked {
            let to_add = refused.what.split("added everywhere: ").nth(1).expect("the line to add");
            folder.write("signers", to_add, 0o644);
            let (file, example) = folder.config(text).expect("good");
            let trust =
                file.allowed_signers(&example.allowed_signers.expect("given")).expect("it can be added as it stands");
            file.check_listed(&key, &example.id, Namespace::Event, &trust).expect("and mends it");
        }
    }
    // Somebody else's key under one's own name is no line to add.
    folder.write("signers", line("holdfast.event", &key).replace("a name", "b name"), 0o644);
    let (file, example) = folder.config(text).expect("good");
    let key = file.signing_key(&example.signing_key.expect("given")).expect("a key");
    let trust = file.allowed_signers(&example.allowed_signers.expect("given")).expect("a trust root");
    let refused = file.check_listed(&key, &example.id, Namespace::Event, &trust).expect_err("it is b's");
    assert!(refused.what.contains("is b's") && !refused.what.contains("added"), "{refused}");
    folder.write("signers", "a ssh-ed25519 AAAA\n", 0o644);
    let (file, example) = folder.config("id = \"a\"\nallowed_signers = \"signers\"\n").expect("good");
    let refused = file.allowed_signers(&example.allowed_signers.expect("given")).expect_err("no namespaces");
    assert!(refused.line == Some(2) && refused.what.contains("signers: line 1: namespaces="), "{refused}");
}

#[test]
fn nodes_are_named_pinned_and_never_without_tls() {
    let folder = Folder::new();
    folder.write("ca.pem", ca_pem(), 0o644);
    let load = |nodes: &str| {
        let text = format!("id = \"a\"\n[clusters.prod]\nca_cert = \"ca.pem\"\n[clusters.prod.nodes]\n{nodes}");
        let (file, example) = folder.config(&text)?;
        file.check_clusters(&example.clusters)?;
        let cluster = example.clusters.get_ref().values().next().expect("one");
        let ca = file.ca_cert(&cluster.ca_cert)?;
        file.nodes(ClusterId::from_bytes([1; 16]), &ca, &cluster.nodes)
    };
    let pin = hex::encode([1; 32]);
    let good = format!("vault-1 = {{ url = \"https://a:1\", tls = \"direct\", spki_sha256 = [\"{pin}\"] }}\n");
    let good = load(&(good + "vault-2 = { url = \"https://b:1\" }\n")).expect("good");
    let direct: Vec<_> = good.values().map(|node| node.direct).collect();
    assert_eq!(direct, [true, false]);
    for (nodes, line, part) in [
        ("", 4, "has no node"),
        ("vault-1 = { url = \"http://a:1\" }\n", 5, "https"),
        ("vault-1 = { url = \"https://a:1\", tls = \"maybe\" }\n", 5, "direct"),
        ("vault-1 = { url = \"https://a:1\", spki_sha256 = [\"abc\"] }\n", 5, "SPKI pin"),
        ("vault-1 = { url = \"https://a:1\", token = \"x\" }\n", 5, "token"),
        ("\nVault_1 = { url = \"https://a:1\" }\n", 6, "is not a name"),
    ] {
        let refused = load(nodes).expect_err(nodes);
        assert!(refused.line == Some(line) && refused.what.contains(part), "{nodes}: {refused}");
    }
    folder.write("ca.pem", "nothing", 0o644);
    let refused = load("vault-1 = { url = \"https://a:1\" }\n").expect_err("no CA");
    assert!(refused.line == Some(3) && refused.what.contains("ca.pem: the CA file has no certificate"), "{refused}");
}

#[test]
fn no_cluster_and_one_cluster_twice_are_refused() {
    let folder = Folder::new();
    let (file, example) = folder.config("id = \"a\"\nclusters = {}\n").expect("good");
    assert!(file.check_clusters(&example.clusters).expect_err("empty").what.contains("has no cluster"));
    let name = |text: &str| Spanned::new(0..0, text.parse::<ClusterName>().expect("a name"));
    let (one, two) = (name("one"), name("two"));
    let ids = [ClusterId::from_bytes([1; 16]), ClusterId::from_bytes([2; 16])];
    assert!(file.check_distinct([(&one, ids[0]), (&two, ids[1])]).is_ok());
    let refused = file.check_distinct([(&one, ids[0]), (&two, ids[0])]).expect_err("twice");
    assert!(refused.what.contains("same cluster as one"), "{refused}");
}

#[test]
fn the_broker_is_reached_by_tls_as_oneself_with_a_secret_that_is_one() {
    let folder = Folder::new();
    folder.write("ca.pem", ca_pem(), 0o644);
    folder.write("password", "secret-word\n", 0o600);
    let good = "id = \"a\"\n[broker]\nurl = \"amqps://mq.example/holdfast\"\nusername = \"a\"\npassword_file = \"password\"\n\
                ca_cert = \"ca.pem\"\ngrace = \"2m\"\n";
    let load = |text: &str| {
        let (file, example) = folder.config(text)?;
        file.broker(&example.broker.expect("given"), example.id.get_ref())
    };
    let broker = load(good).expect("good");
    assert_eq!(broker.grace, Some(Duration::from_secs(120)));
    for (from, to, line, part) in [
        ("amqps:", "amqp:", 3, "amqps"),
        ("username = \"a\"", "username = \"b\"", 4, "party itself"),
        ("\"password\"", "\"pass\"", 5, "does not exist"),
        ("grace = \"2m\"", "grace = \"2h\"", 7, "is not between"),
        ("\"ca.pem\"", "\"password\"", 6, "CA file"),
    ] {
        let changed = good.replace(from, to);
        assert_ne!(changed, good);
        let refused = load(&changed).expect_err(to);
        assert!(refused.line == Some(line) && refused.what.contains(part), "{to}: {refused}");
        assert!(!refused.to_string().contains("secret-word"));
    }
    folder.write("password", "secret-word\n", 0o644);
    assert!(load(good).expect_err("readable by all").what.contains("chmod 600"));
    folder.write("password", "", 0o600);
    assert!(load(good).expect_err("empty").what.contains("password: the password file is empty"));
}
