//! What `[metrics]` may say.

use std::fs;

use super::*;

/// A folder with a configuration of nothing but the section, a CA and a password.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, content) in [("ca.pem", CA), ("password", "secret\n")] {
            fs::write(folder.path().join(name), content).expect("written");
        }
        let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(folder.path().join("password"), own).expect("a mode");
        for name in ["kept", "kept/below", "metrics"] {
            fs::create_dir(folder.path().join(name)).expect("made");
        }
        std::os::unix::fs::symlink("kept", folder.path().join("link")).expect("made");
        Self(folder)
    }

    fn load(&self, text: &str) -> Result<MetricsConfig, String> {
        let path = self.0.path().join("custodian.toml");
        fs::write(&path, text).expect("written");
        let source = ConfigFile::read(&path).expect("read");
        let kept = BTreeSet::from([self.0.path().join("kept/below")]);
        let section: MetricsSection = source.parse().map_err(|error| error.to_string())?;
        section.load(&source, &"custodian-1".parse().expect("a name"), &kept).map_err(|error| error.to_string())
    }
}

/// Made with `openssl req -x509`, for nothing.
const CA: &str = include_str!("ca.pem");

#[test]
fn both_ways_or_one() {
    let home = Home::new();
    let pushed = "pushgateway = \"https://push.example:9091\"\nca_cert = \"ca.pem\"\n";
    let config = home.load(pushed).expect("good");
    assert_eq!((config.interval, config.folder()), (INTERVAL_DEFAULT, None));
    assert_eq!(config.pushgateway.expect("named").address(), "push.example:9091");
    let all = format!(
        "{pushed}username = \"me\"\npassword_file = \"password\"\ninterval = \"30s\"\ntextfile = \"metrics/c.prom\"\n"
    );
    let config = home.load(&all).expect("good");
    assert_eq!(config.interval, Duration::from_secs(30));
    assert_eq!(config.folder(), Some(home.0.path().join("metrics").as_path()));
}

#[test]
fn what_cannot_be_meant_is_refused_where_it_stands() {
    let home = Home::new();
    let pushed = "pushgateway = \"https://push.example:9091\"\nca_cert = \"ca.pem\"\n";
    for (text, line, why) in [
        ("".to_owned(), None, "neither textfile nor pushgateway"),
        ("interval = \"15s\"\n".to_owned(), None, "neither textfile nor pushgateway"),
        ("pushgateway = \"https://push.example\"\n".to_owned(), Some(1), "name its CA"),
        ("pushgateway = \"http://push.example\"\nca_cert = \"ca.pem\"\n".to_owned(), Some(1), "https"),
        ("textfile = \"metrics/c.prom\"\nca_cert = \"ca.pem\"\n".to_owned(), Some(2), "is for a Pushgateway"),
        ("textfile = \"metrics/c.prom\"\nusername = \"me\"\n".to_owned(), Some(2), "is for a Pushgateway"),
        ("textfile = \"metrics/c.prom\"\npassword_file = \"password\"\n".to_owned(), Some(2), "is for a Pushgateway"),
        (format!("{pushed}username = \"me\"\n"), Some(3), "belong together"),
        (format!("{pushed}password_file = \"password\"\n"), Some(3), "belong together"),
        (format!("{pushed}username = \"a:b\"\npassword_file = \"password\"\n"), Some(1), "colon"),
        (format!("{pushed}interval = \"10ms\"\n"), Some(3), "between"),
        (format!("{pushed}interval = \"1h\"\n"), Some(3), "between"),
        ("textfile = \"metrics/c.txt\"\n".to_owned(), Some(1), ".prom"),
        ("textfile = \"metrics\"\n".to_owned(), Some(1), ".prom"),
        // What the custodian reads or remembers lies there, or below it, by whatever name.
        ("textfile = \"kept/below/c.prom\"\n".to_owned(), Some(1), "a folder of their own"),
        ("textfile = \"kept/c.prom\"\n".to_owned(), Some(1), "a folder of their own"),
        ("textfile = \"link/c.prom\"\n".to_owned(), Some(1), "a folder of their own"),
        ("textfile = \"c.prom\"\n".to_owned(), Some(1), "a folder of their own"),
        ("textfile = \"metrics/../kept/c.prom\"\n".to_owned(), Some(1), "a folder of their own"),
        ("url = \"x\"\n".to_owned(), Some(1), "unknown field"),
    ] {
        let refused = home.load(&text).expect_err(&text);
        let place = line.map_or("custodian.toml: ".to_owned(), |line| format!("custodian.toml:{line}: "));
        assert!(refused.contains(&place) && refused.contains(why), "{text}: {refused}");
    }
}
