//! A signed message, carried to a custodian's inbox by hand. Whether it counts is not tried here.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::world::{Host, base64, setup, text};

#[test]
fn whole_signed_messages_are_put_into_the_inbox_and_nothing_else_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let host = Host::enroll(dir.path(), 1);
    let path = |name: &str| dir.path().join(name);
    let write = |name: &str, content: &str| {
        fs::write(path(name), content).expect("written");
        text(&path(name)).to_owned()
    };
    let first = host.sign(r#"{"kind":"approval"}"#);
    let (good, other) = (write("good.json", &first), write("other.json", &host.sign("{}")));
    let config = write("custodian.toml", "id = \"custodian-1\"\nstate_dir = \"state\"\nsandbox = \"off\"\n[broker]\n");
    let deliver = |files: &[&str]| setup(&[&["deliver", "--json", "--config", &config], files].concat());

    deliver(&[&good]).refused(1, "state is not there");
    fs::create_dir(path("state")).expect("made");
    let mut altered: Value = serde_json::from_str(&first).expect("JSON");
    altered["body"] = base64(br#"{"kind":"hold"}"#).into();
    for (bad, words) in [
        ("", "not an envelope"),
        (&first[..first.len() / 2], "not an envelope"),
        (r#"{"v":1,"kind":"packet"}"#, "not an envelope"),
        (&altered.to_string(), "nothing was delivered"),
    ] {
        let bad = write("bad.json", bad);
        // The good one before it is not delivered either: all or none.
        deliver(&[&good, &bad]).refused(78, words);
    }
    deliver(&["nowhere.json"]).refused(1, "does not exist");
    assert!(!path("state/inbox").exists(), "nothing was delivered");

    let report = deliver(&[&good, &other]).json();
    assert_eq!(report["delivered"][0]["namespace"], "holdfast.enrollment");
    let inbox: Vec<_> = fs::read_dir(path("state/inbox")).expect("made").flatten().map(|entry| entry.path()).collect();
    assert_eq!(inbox.len(), 2, "{inbox:?}");
    for file in &inbox {
        assert_eq!(file.extension().and_then(|extension| extension.to_str()), Some("json"));
        assert_eq!(fs::metadata(file).expect("there").permissions().mode() & 0o777, 0o600);
    }
    let delivered = report["delivered"][0]["file"].as_str().expect("a path");
    assert_eq!(fs::read_to_string(delivered).expect("there"), first);

    let done = setup(&["deliver", "--state-dir", text(&path("state")), &good]);
    assert!(done.code == 0 && done.out.contains("within a second"), "{}", done.err);
    setup(&["deliver", "--config", &write("c.toml", "id = \"custodian-1\"\n"), &good]).refused(78, "state_dir");
    setup(&["deliver", "--config", "nowhere.toml", &good]).refused(78, "nowhere.toml");
    setup(&["deliver"]).refused(2, "FILE");

    for number in 0..1024 {
        fs::write(path("state/inbox").join(format!("{number}.json")), "{}").expect("written");
    }
    deliver(&[&good]).refused(1, "is the custodian running?");
}
