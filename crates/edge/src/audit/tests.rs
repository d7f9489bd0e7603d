//! The audit log, written, cut, filled, put away, and touched by strangers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};

use super::*;

const NOON: Timestamp = Timestamp::from_millis(1_795_348_800_000);

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn with_lines(path: &Path, count: u64) -> Position {
    let (mut log, _) = opened(path);
    for n in 0..count {
        log.append(NOON, &json!({"kind": "test", "n": n})).expect("written");
    }
    log.head()
}

/// The log that the file at this path belongs to.
fn open(path: &Path) -> Result<(AuditLog, Opened), AuditError> {
    AuditLog::open(path.parent().expect("in a folder"), ROTATE_AT)
}

fn opened(path: &Path) -> (AuditLog, Opened) {
    open(path).expect("opens")
}

fn verify_file(path: &Path) -> Result<Summary, Broken> {
    verify(&[path.to_owned()], &[])
}

fn entries(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("there");
    text.lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .map(|line| line["entry"].clone())
        .collect()
}

fn attempt() -> Attempt {
    Attempt {
        cluster: ClusterId::from_bytes([1; 16]),
        node: "vault-1".parse().expect("a name"),
        incident: IncidentId::from_bytes([2; 16]),
        round: 3,
    }
}

#[test]
fn lines_are_chained_and_go_on_after_a_restart() {
    let folder = folder();
    let path = folder.path().join(AUDIT_FILE);
    let before = with_lines(&path, 3);
    let (mut log, opened) = opened(&path);
    assert_eq!(opened, Opened { position: before, cut: None, damage: None });
    let after = log.append(NOON, &json!({})).expect("written");
    let summary =
        Summary { begins: 1, follows: Position::START, position: after, first: Some(NOON), last: Some(NOON), torn: 0 };
    assert_eq!((after.seq, verify_file(&path)), (4, Ok(summary)));
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_lock_and_its_line_speak_of_the_same_attempt() {
    let folder = folder();
    let path = folder.path().join(AUDIT_FILE);
    let (mut log, _) = opened(&path);
    let lock = log.record(NOON, &attempt(), &json!({"cause": "restart"})).expect("written");
    assert_eq!((lock.attempt(), lock.position()), (&attempt(), log.head()));
    let expected = json!({
        "kind": "release", "cluster": "01".repeat(16), "node": "vault-1", "incident": "02".repeat(16), "round": 3,
        "details": {"cause": "restart"},
    });
    assert_eq!(entries(&path), [expected]);
}

#[test]
fn what_is_noted_reaches_the_disk_before_the_record_and_with_it() {
    let folder = folder();
    let path = folder.path().join(AUDIT_FILE);
    let (mut log, _) = opened(&path);
    let before = log.append(NOON, &json!({"n": 1})).expect("written");
    log.note(NOON, &json!({"n": 2})).expect("noted");
    log.note(NOON, &json!({"n": 3})).expect("noted");
    assert_eq!(log.head(), before, "no head is told that is not on disk");
    let on_disk = || verify_file(&path).expect("whole").position;
    assert_eq!(on_disk(), before);
    let lock = log.record(NOON, &attempt(), &json!({})).expect("written");
    assert_eq!((lock.position().seq, on_disk(), log.head()), (4, lock.position(), lock.position()));

    log.note(NOON, &json!({"n": 5})).expect("noted");
    log.flush(NOON).expect("written");
    assert_eq!((on_disk().seq, log.head()), (5, on_disk()));
    log.flush(NOON).expect("nothing to do");
    assert_eq!(on_disk().seq, 5);

    for _ in 0..3 {
        log.note(NOON, &json!({"filler": "x".repeat(LINE_MAX / 2)})).expect("noted");
    }
    assert_eq!(on_disk().seq, 8, "only so much is noted");
}

#[test]
fn what_was_noted_and_not_flushed_was_not_told() {
    let folder = folder();
    let path = folder.path().join(AUDIT_FILE);
    let (mut log, _) = opened(&path);
    let before = log.append(NOON, &json!({"n": 1})).expect("written");
    log.note(NOON, &json!({"n": 2})).expect("noted");
    drop(log);
    let (mut log, opened) = opened(&path);
    assert_eq!((opened.position, opened.cut), (before, None));
    log.append(NOON, &json!({"n": 3})).expect("written");
}

#[test]
fn what_is_noted_is_kept_when_somebody_takes_the_file_away_and_when_it_is_full() {
    let folder = folder();
    let path = folder.path().join(AUDIT_FILE);
    let (mut log, _) = AuditLog::open(folder.path(), 100).expect("opens");
    log.append(NOON, &json!({"n": 1})).expect("written");
    log.note(NOON, &json!({"n": 2})).expect("noted");
    let lock = log.record(NOON, &attempt(), &json!({})).expect("in the next file");
    assert_eq!(
        (lock.position().seq, verify_folder(folder.path(), &[lock.position()]).expect("readable").is_ok()),
        (4, true)
    );
    let opening = json!({"kind": "log-continues", "before": 1});
    assert_eq!(entries(&path)[..2], [opening, json!({"n": 2})]);

    log.note(NOON, &json!({"n": 5})).expect("noted");
    fs::remove_file(&path).expect("deleted");
    log.flush(NOON).expect("in a new file");
    assert_eq!(entries(&path), [json!({"kind": "log-damaged", "what": "gone", "before": 4}), json!({"n": 5})]);
    assert_eq!((verify_file(&path).map(|whole| whole.position), log.head().seq), (Ok(log.head()), 6));
}

#[test]
fn cut_off_at_any_byte_it_keeps_every_whole_line_and_tells_of_the_cut() {
    let folder = folder();
    let path = folder.path().join(AUDIT_FILE);
    with_lines(&path, 3);
    let whole = fs::read(&path).expect("there");
    for keep in 0..=whole.len() {
        fs::write(&path, &whole[..keep]).expect("written");
        let complete = whole[..keep].iter().filter(|b| **b == b'\n').count() as u64;
        let torn = whole[..keep].iter().rev().take_while(|b| **b != b'\n').count() as u64;
        assert_eq!(verify_file(&path).map(|s| (s.position.seq, s.torn)), Ok((complete, torn)));

        let (mut log, opened) = opened(&path);
        assert_eq!((opened.position.seq, opened.cut.unwrap_or(0)), (complete, torn), "at {keep}");
        let head = log.append(NOON, &json!({"kind": "after"})).expect("written");
        let told = entries(&path);
        assert_eq!(verify_file(&path).map(|s| (s.position, s.torn)), Ok((head, 0)), "at {keep}");
        assert_eq!(head.seq, complete + 1 + u64::from(torn > 0));
        assert_eq!(told.last(), Some(&json!({"kind": "after"})));
        if torn > 0 {
            assert_eq!(told[told.len() - 2], json!({"kind": "log-cut", "bytes": torn}));
        }
    }
}

#[test]
fn a_torn_line_of_zeros_is_cut_too() {
    let folder = folder();
    let path = folder.path().join(AUDIT_FILE);
    with_lines(&path, 2);
    let mut bytes = fs::read(&path).expect("there");
    bytes.extend([0; 5000]);
    fs::write(&path, bytes).expect("written");
    let (mut log, opened) = opened(&path);
    assert_eq!((opened.position.seq, opened.cut), (2, Some(5000)));
    log.append(NOON, &json!({})).expect("written");
    assert_eq!(verify_file(&path).map(|s| s.position.seq), Ok(4));
}

#[test]
fn a_log_that_is_not_ours_is_left_alone() {
    let folder = folder();
    let path = folder.path().join(AUDIT_FILE);
    let long = format!("{}\n", "x".repeat(TAIL as usize + 1));
    for text in
        ["no JSON\n", "{}\n", "\n", "{\"v\":2,\"seq\":1,\"at\":\"\",\"prev\":\"\",\"entry\":{}}\n", &long, &long[1..]]
    {
        fs::write(&path, text).expect("written");
        let error = open(&path).expect_err("damaged");
        assert!(matches!(error, AuditError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("move it aside"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("there"), text);
    }
}

#[test]
fn one_writer_a_regular_file_and_nobody_elses_to_write() {
    let folder = folder();
    let path = folder.path().join(AUDIT_FILE);
    let first = opened(&path);
    assert!(matches!(open(&path), Err(AuditError::Busy { .. })));
    drop(first);
    open(&path).expect("free again");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).expect("changed");
    assert!(matches!(open(&path), Err(AuditError::Unfit { .. })));
    let other = self::folder();
    std::os::unix::fs::symlink(&path, other.path().join(AUDIT_FILE)).expect("made");
    assert!(matches!(AuditLog::open(other.path(), ROTATE_AT), Err(AuditError::Open { .. })));
    assert!(AuditLog::open(&path, ROTATE_AT).is_err(), "a file is no folder");
    assert!(AuditLog::open(&folder.path().join("no"), ROTATE_AT).is_err());
}

/// What somebody, or a crash, does to a log's file or its folder.
type Deed = fn(&Path);

#[test]
fn whatever_is_done_to_the_file_is_kept_as_evidence_and_told_and_no_record_is_lost() {
    let deeds: [(&str, Deed, Option<Value>); 6] = [
        ("gone", |path| fs::remove_file(path).expect("deleted"), None),
        ("replaced", |path| edit_beside(path), Some(json!("put away"))),
        (
            "replaced",
            |path| drop(fs::rename(path, path.with_extension("old")).and_then(|()| fs::write(path, ""))),
            None,
        ),
        ("shortened", |path| cut_to(path, 100), Some(json!("put away"))),
        ("shortened", |path| cut_to(path, 0), None),
        (
            "lengthened",
            |path| fs::write(path, [fs::read(path).expect("there"), b"x\n".to_vec()].concat()).expect("written"),
            Some(json!("put away")),
        ),
    ];
    for (what, deed, evidence) in deeds {
        let folder = folder();
        let path = folder.path().join(AUDIT_FILE);
        with_lines(&path, 3);
        let (mut log, _) = opened(&path);
        assert!(!log.was_touched(), "{what}: nobody has touched it");
        deed(&path);
        assert!(log.was_touched(), "{what}");
        let lock = log.record(NOON, &attempt(), &json!({})).expect("recorded in a file that others find");
        assert!(!log.was_touched(), "{what}: that was us");
        assert_eq!((lock.position(), lock.position().seq), (log.head(), 5), "{what}");
        let told = entries(&path);
        assert_eq!(told[0], json!({"kind": "log-damaged", "what": what, "before": 3}));
        assert_eq!((told.len(), &told[1]["kind"]), (2, &json!("release")));
        let away = folder.path().join("audit.000000000003.jsonl");
        assert_eq!(away.exists(), evidence.is_some(), "{what}");
        // What is put away is found to be broken, until somebody carries it off; what goes on is whole.
        if evidence.is_some() {
            assert!(verify_folder(folder.path(), &[log.head()]).expect("readable").is_err(), "{what}");
            fs::remove_file(away).expect("carried away");
        }
        let whole = verify_folder(folder.path(), &[log.head()]).expect("readable").expect("whole");
        assert_eq!((whole.begins, whole.position), (4, log.head()), "{what}");
        drop(log);
        assert_eq!(opened(&path).1, Opened { position: whole.position, cut: None, damage: None }, "{what}");
    }
}

fn edit_beside(path: &Path) {
    let edited = fs::read_to_string(path).expect("there").replace("\"n\":1", "\"n\":7");
    fs::write(path.with_extension("new"), edited).expect("written");
    fs::rename(path.with_extension("new"), path).expect("as editors do");
}

fn cut_to(path: &Path, len: u64) {
    OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(len)).expect("cut");
}

#[test]
fn a_change_in_place_is_seen_and_what_was_changed_is_put_aside() {
    let folder = folder();
    let path = folder.path().join(AUDIT_FILE);
    with_lines(&path, 3);
    let (mut log, _) = opened(&path);
    let changed = fs::read_to_string(&path).expect("there").replace("\"n\":1", "\"n\":7");
    fs::write(&path, changed).expect("as long as before");
    // Also when an entry is written between the deed and the look.
    log.append(NOON, &json!({"kind": "between"})).expect("written");
    assert!(log.was_touched());
    let broken = verify_folder(folder.path(), &[log.head()]).expect("readable").expect_err("changed");
    assert_eq!((broken.line, broken.entry, &broken.why), (2, 2, &Why::Changed), "{broken}");
    log.put_aside();
    log.flush(NOON).expect("put aside");
    assert_eq!(log.take_told(), Some(Told { damage: Damage::Changed, before: 4 }));
    let broken = verify_folder(folder.path(), &[log.head()]).expect("readable").expect_err("still there");
    assert_eq!(broken.file, folder.path().join("audit.000000000004.jsonl"));
    assert_eq!(entries(&path), [json!({"kind": "log-damaged", "what": "changed", "before": 4})]);
    fs::remove_file(broken.file).expect("carried away");
    assert_eq!(verify_folder(folder.path(), &[log.head()]).expect("readable").map(|s| s.begins), Ok(5));
}

#[test]
fn a_log_that_was_cut_or_deleted_while_nobody_wrote_it_is_known_by_memory() {
    let deeds: [(Deed, Damage); 4] = [
        (|path| drop(fs::remove_file(path)), Damage::Shortened),
        (
            |path| cut_to(path, fs::read_to_string(path).expect("there").find('\n').expect("a line") as u64 + 1),
            Damage::Shortened,
        ),
        (|path| fs::write(path, "no JSON\n").expect("written"), Damage::Unreadable),
        (|path| rewrite(path), Damage::Changed),
    ];
    for (deed, damage) in deeds {
        let folder = folder();
        let path = folder.path().join(AUDIT_FILE);
        let before = with_lines(&path, 3);
        opened(&path).0.remember().expect("remembered");
        deed(&path);
        let look = look(folder.path()).expect("readable").expect("there is a memory");
        assert!(look.content.is_err() && !look.in_use, "{damage:?}: {look:?}");
        let (mut log, opened) = opened(&path);
        assert_eq!(opened, Opened { position: before, cut: None, damage: Some(damage) });
        log.append(NOON, &json!({"kind": "after"})).expect("written");
        assert_eq!(log.head().seq, 5, "{damage:?}: the chain goes on where it was");
        assert_eq!(entries(&path)[0], json!({"kind": "log-damaged", "what": damage, "before": 3}));
    }
}

fn rewrite(path: &Path) {
    fs::remove_file(path).expect("deleted");
    let (mut log, _) = AuditLog::open(path.parent().expect("a folder"), ROTATE_AT).expect("opens");
    log.remembered = None;
    (log.position, log.damage, log.anew) = (Position::START, None, false);
    for n in 0..3 {
        log.append(NOON, &json!({"kind": "made up", "n": n})).expect("written");
    }
}

#[test]
fn full_files_are_put_away_and_the_chain_goes_on_through_all_of_them() {
    let folder = folder();
    let path = folder.path().join(AUDIT_FILE);
    let open = || AuditLog::open(folder.path(), 1000).expect("opens").0;
    let mut log = open();
    for n in 0..40 {
        log.append(NOON, &json!({"kind": "test", "n": n})).expect("written");
        if n % 7 == 0 {
            drop(log);
            log = open();
        }
    }
    let all = files(folder.path()).expect("readable");
    assert!(all.len() > 5, "{all:?}");
    assert!(
        all.iter().all(|file| fs::metadata(file).expect("there").len() < 1300),
        "none is much larger than the limit"
    );
    assert!(
        all.is_sorted_by_key(|file| file.file_name().map(ToOwned::to_owned)),
        "ls shows them in this order: {all:?}"
    );
    let told = all.iter().flat_map(|file| entries(file)).filter(|entry| entry["kind"] == "test");
    let told: Vec<_> = told.map(|entry| entry["n"].clone()).collect();
    assert_eq!(told, (0..40).map(Value::from).collect::<Vec<_>>());
    let whole = verify(&all, &[log.head()]).expect("whole");
    assert_eq!((whole.begins, whole.position), (1, log.head()));
    assert_eq!(in_order(all.iter().rev().cloned().collect()), all, "whatever order they are named in");
    assert!(matches!(AuditLog::open(folder.path(), 1000), Err(AuditError::Busy { .. })), "one writer, also after that");

    // The oldest may be carried away; one in the middle may not.
    let carried = verify(&all[..1], &[]).expect("whole").position;
    let rest = verify(&all[1..], &[carried, log.head()]).expect("it goes on after the one that is not here");
    assert_eq!((rest.begins, rest.follows), (carried.seq + 1, carried));
    let other = Position { head: [7; 32], ..carried };
    let broken = verify(&all[1..], &[other]).expect_err("it goes on after another one");
    assert_eq!((broken.line, broken.why), (1, Why::Otherwise));
    let gap = [&all[..2], &all[3..]].concat();
    assert!(matches!(verify(&gap, &[]), Err(Broken { why: Why::Number(_), file, line: 1, .. }) if file == all[3]));
    assert_eq!(verify(&[&all[..2], &all[1..]].concat(), &[]).map_err(|b| b.file), Err(all[1].clone()));
    // A byte in one of them.
    let text = fs::read_to_string(&all[2]).expect("there");
    fs::write(&all[2], text.replacen("test", "tost", 1)).expect("written");
    let broken = verify(&all, &[]).expect_err("changed");
    assert_eq!((&broken.file, broken.line, &broken.why), (&all[2], 2, &Why::Changed));
    // The first of the oldest that is here.
    fs::write(&all[2], text.replacen("log-continues", "log-continued", 1)).expect("written");
    let broken = verify(&all[2..], &[]).expect_err("changed");
    assert_eq!((&broken.file, broken.line, &broken.why), (&all[2], 1, &Why::Changed));
    fs::write(&all[2], &text[..text.len() - 20]).expect("written");
    assert!(matches!(verify(&all, &[]), Err(Broken { why: Why::Missing, file, .. }) if file == all[2]));
    assert!(path.exists());
}

#[test]
fn lines_cut_from_the_front_of_the_oldest_file_are_missed() {
    let folder = folder();
    let (mut log, _) = AuditLog::open(folder.path(), 1000).expect("opens");
    for n in 0..24 {
        log.append(NOON, &json!({"kind": "test", "n": n})).expect("written");
    }
    let all = files(folder.path()).expect("readable");
    assert!(all.len() > 2, "{all:?}");
    // The first file of all, one of which those before were carried away, and the one that is being written.
    for (first, rest) in [(0, &all[..]), (1, &all[1..]), (all.len() - 1, &all[all.len() - 1..])] {
        let text = fs::read_to_string(&all[first]).expect("there");
        let lines = text.lines().count();
        for cut in 1..lines {
            let left: Vec<_> = text.lines().skip(cut).collect();
            fs::write(&all[first], left.join("\n") + "\n").expect("cut");
            let broken = verify(rest, &[log.head()]).expect_err("cut");
            assert_eq!((&broken.file, broken.line, &broken.why), (&all[first], 1, &Why::Headless), "{cut}: {broken}");
        }
        fs::write(&all[first], &text).expect("as it was");
        verify(rest, &[log.head()]).expect("whole");
    }
    // Nor does an entry that says so of itself make one up, unless it says it of the entry before.
    let (nowhere, forged) = (self::folder(), json!({"kind": "log-continues", "before": 1}));
    let path = nowhere.path().join(AUDIT_FILE);
    let (mut other, _) = opened(&path);
    for _ in 0..4 {
        other.append(NOON, &forged).expect("written");
    }
    let text = fs::read_to_string(&path).expect("there");
    fs::write(&path, text.lines().skip(2).map(|line| format!("{line}\n")).collect::<String>()).expect("cut");
    assert_eq!(verify_file(&path).map_err(|broken| broken.why), Err(Why::Headless));
}

/// Every state of the folder that a `kill -9` can leave while a file is put away.
#[test]
fn killed_while_a_file_is_put_away_it_goes_on_from_there() {
    let states: [(&str, Deed); 4] = [
        ("before anything", |_| ()),
        ("a new file is made", |folder| fs::write(folder.join(NEXT_FILE), "").expect("made")),
        ("the old one has its number", |folder| {
            fs::write(folder.join(NEXT_FILE), "").expect("made");
            fs::rename(folder.join(AUDIT_FILE), folder.join(folder::name_of(3))).expect("renamed");
        }),
        ("the new one has its name", |folder| {
            fs::rename(folder.join(AUDIT_FILE), folder.join(folder::name_of(3))).expect("renamed");
            fs::write(folder.join(AUDIT_FILE), "").expect("made");
        }),
    ];
    for (state, make) in states {
        for remembers in [false, true] {
            let folder = folder();
            let path = folder.path().join(AUDIT_FILE);
            let before = with_lines(&path, 3);
            if remembers {
                opened(&path).0.remember().expect("remembered");
            }
            make(folder.path());
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap_or_default();
            let (mut log, opened) = AuditLog::open(folder.path(), 100).expect(state);
            assert_eq!(opened, Opened { position: before, cut: None, damage: None }, "{state}");
            for n in 0..3 {
                log.append(NOON, &json!({"n": n})).expect(state);
            }
            let whole = verify_folder(folder.path(), &[before, log.head()]).expect("readable").expect(state);
            let all = files(folder.path()).expect("readable").iter().flat_map(|file| entries(file)).collect::<Vec<_>>();
            let told = all.iter().filter(|entry| entry["kind"] != "log-continues").count();
            assert_eq!((whole.begins, whole.position, told), (1, log.head(), 6), "{state}: {all:?}");
        }
    }
}

/// The system calls by which a log changes what is on the disk.
const CALLS: [&str; 6] = ["openat", "unlink", "rename", "pwrite64", "fdatasync", "fsync"];

/// More than a process makes of any of them.
const RUNS_MAX: usize = 300;

/// Kills [`writes_until_it_is_killed`] before each system call of these kinds, and goes on where it was.
#[test]
fn killed_before_any_of_its_system_calls_it_has_all_that_it_answered_for() {
    let test = std::env::current_exe().expect("this test");
    for call in CALLS {
        let killed = (1..RUNS_MAX).find(|count| {
            let (log, answered) = (folder(), tempfile::NamedTempFile::new().expect("a file"));
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
            command.args(["-e", &format!("inject={call}:signal=KILL:when={count}")]).arg(&test);
            command.args(["--exact", "audit::tests::writes_until_it_is_killed", "--ignored"]);
            command.env("HOLDFAST_TEST_LOG", log.path()).env("HOLDFAST_TEST_ANSWERED", answered.path());
            let ended = command.output().expect("strace is installed").status;
            let answered = fs::read_to_string(answered.path()).expect("there").lines().count() as u64;
            let what = format!("killed before {call} {count}, {answered} answered");

            let (mut log_again, opened) = AuditLog::open(log.path(), 400).expect(&what);
            assert!(opened.position.seq >= answered && opened.damage.is_none(), "{what}: {opened:?}");
            for n in 0..3 {
                log_again.append(NOON, &json!({"kind": "after", "n": n})).expect(&what);
            }
            let whole = verify_folder(log.path(), &[opened.position, log_again.head()]).expect("readable");
            assert_eq!(whole.map(|whole| whole.begins), Ok(1), "{what}");
            // A name that is no test's would run none, and be well.
            assert!(!ended.success() || answered == 5, "{what}");
            ended.success()
        });
        assert!(killed.is_some_and(|runs| runs > 1), "{call}: strace may not trace, or there is no end");
    }
}

// Ignored by itself and never left out: the test above runs it under strace, until it has been killed before each of its calls and has once
// come to its end.
#[test]
#[ignore = "run by killed_before_any_of_its_system_calls_it_has_all_that_it_answered_for, which kills it"]
fn writes_until_it_is_killed() {
    let of = |name| PathBuf::from(std::env::var_os(name).expect("given by the other test"));
    let (mut log, _) = AuditLog::open(&of("HOLDFAST_TEST_LOG"), 400).expect("opens");
    let mut answered = OpenOptions::new().append(true).open(of("HOLDFAST_TEST_ANSWERED")).expect("there");
    for n in 0..5 {
        log.append(NOON, &json!({"kind": "test", "n": n, "text": "x".repeat(100)})).expect("written");
        io::Write::write_all(&mut answered, b"answered\n").expect("written");
    }
    log.remember().expect("remembered");
}

#[test]
fn a_file_that_cannot_be_put_away_is_no_reason_not_to_record() {
    let folder = folder();
    let path = folder.path().join(AUDIT_FILE);
    let (mut log, _) = AuditLog::open(folder.path(), 100).expect("opens");
    log.append(NOON, &json!({"n": 1})).expect("written");
    let in_the_way = folder.path().join(folder::name_of(1));
    fs::write(&in_the_way, "a stranger's").expect("written");
    log.append(NOON, &json!({"n": 2})).expect("written all the same");
    assert_eq!((entries(&path).len(), fs::read_to_string(in_the_way).expect("there").as_str()), (2, "a stranger's"));
}

#[test]
fn an_entry_too_long_for_a_line_is_refused_and_harms_nothing() {
    let folder = folder();
    let path = folder.path().join(AUDIT_FILE);
    let (mut log, _) = opened(&path);
    assert!(matches!(log.append(NOON, &"x".repeat(LINE_MAX)), Err(AuditError::Entry(_))));
    log.append(NOON, &json!({})).expect("written");
    assert_eq!(verify_file(&path).map(|s| s.position), Ok(log.head()));
    assert_eq!(entries(&path), [json!({"kind": "log-gap", "entries": 1}), json!({})]);
}

#[test]
fn after_a_failed_write_the_next_one_heals() {
    let folder = folder();
    let path = folder.path().join(AUDIT_FILE);
    let (mut log, _) = opened(&path);
    let before = log.append(NOON, &json!({"n": 1})).expect("written");
    let writable = std::mem::replace(&mut log.file, File::open(&path).expect("opens to read"));
    assert!(matches!(log.append(NOON, &json!({"n": 2})), Err(AuditError::Write { .. })));
    assert_eq!(log.head(), before);
    // Half of the failed line had reached the file, and more than the next line is long.
    writable.write_all_at(&[b'x'; 4000], log.good).expect("written");
    log.file = writable;
    log.append(NOON, &json!({"n": 3})).expect("written");
    let gap = json!({"kind": "log-gap", "entries": 1});
    assert_eq!(entries(&path), [json!({"n": 1}), gap, json!({"n": 3})]);
    assert_eq!(verify_file(&path).map(|s| s.position), Ok(log.head()));
}

#[test]
fn verify_names_the_first_line_that_is_wrong() {
    let folder = folder();
    let path = folder.path().join(AUDIT_FILE);
    with_lines(&path, 4);
    let text = fs::read_to_string(&path).expect("there");
    let lines: Vec<&str> = text.lines().collect();
    let verify_lines = |lines: &[&str]| {
        fs::write(&path, format!("{}\n", lines.join("\n"))).expect("written");
        verify(std::slice::from_ref(&path), &[]).map_err(|broken| (broken.line, broken.why))
    };
    assert_eq!(verify_lines(&lines).map(|s| s.position.seq), Ok(4));
    let changed = lines[1].replace("\"n\":1", "\"n\":7");
    assert_ne!(changed, lines[1]);
    assert_eq!(verify_lines(&[lines[0], &changed, lines[2], lines[3]]), Err((2, Why::Changed)));
    // The line itself says that it follows another one: the one behind it tells that it is the liar.
    let prev = lines[2].replacen("\"prev\":\"", "\"prev\":\"0", 1);
    assert_eq!(verify_lines(&[lines[0], lines[1], &prev, lines[3]]), Err((3, Why::Changed)));
    // Behind the last nobody tells.
    let changed = lines[2].replace("\"n\":2", "\"n\":7");
    assert_eq!(verify_lines(&[lines[0], lines[1], &changed, lines[3]]), Err((3, Why::ChangedOrNext)));
    assert_eq!(verify_lines(&[lines[0], lines[2], lines[3]]), Err((2, Why::Number(3))));
    assert_eq!(verify_lines(&[lines[0], lines[0]]), Err((2, Why::Number(1))));
    assert_eq!(verify_lines(&lines[1..]), Err((1, Why::Headless)));
    let first = lines[0].replacen("\"prev\":\"0", "\"prev\":\"1", 1);
    assert_eq!(verify_lines(&[&first, lines[1]]), Err((1, Why::Changed)));
    let no_form =
        |lines: &[&str]| matches!(verify_lines(lines), Err((line, Why::Form(_))) if line == lines.len() as u64);
    assert!(no_form(&[lines[0], ""]));
    assert!(no_form(&[&lines[0].replace("\"v\":1", "\"v\":2")]));
    assert!(no_form(&[&lines[0].replace("\"seq\":1", "\"seq\":0")]));
    assert!(no_form(&[&lines[0].replace("\"v\":1", "\"v\":1,\"w\":1")]));
    assert!(no_form(&[&"x".repeat(LINE_MAX + 1)]));
    fs::write(&path, "").expect("written");
    assert_eq!(verify_file(&path).map(|s| (s.begins, s.position)), Ok((0, Position::START)));
    assert!(matches!(
        verify(&[folder.path().join("none")], &[]),
        Err(Broken { why: Why::Gone, line: 1, entry: 1, .. })
    ));
    assert!(matches!(verify(&[folder.path().to_owned()], &[]), Err(Broken { why: Why::Unread(_), .. })));
}

/// Any one byte of any line but the last, changed, is found, and the line that it is in is named.
#[test]
fn one_byte_changed_anywhere_is_found_and_its_line_named() {
    let folder = folder();
    let path = folder.path().join(AUDIT_FILE);
    let head = with_lines(&path, 3);
    let bytes = fs::read(&path).expect("there");
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&path, &changed).expect("written");
        let broken = verify(std::slice::from_ref(&path), &[head]).expect_err("changed");
        let line = bytes[..at].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        assert_eq!(broken.line, line, "byte {at}: {broken}");
    }
}

#[test]
fn who_was_told_of_an_entry_knows_a_log_that_was_cut_or_written_anew() {
    let (ours, others) = (folder(), folder());
    let (path, other) = (ours.path().join(AUDIT_FILE), others.path().join(AUDIT_FILE));
    let early = with_lines(&path, 2);
    let late = with_lines(&path, 2);
    with_lines(&other, 1);
    opened(&other).0.append(NOON, &json!("not the same")).expect("written");
    let told = |path: &Path, known: &[Position]| verify(&[path.to_owned()], known).map_err(|b| (b.entry, b.why));
    assert!(told(&path, &[early, late]).is_ok());
    assert_eq!(told(&other, &[early]), Err((2, Why::Otherwise)));
    assert_eq!(told(&other, &[late]), Err((3, Why::Missing)));
}

/// Runs [`on_a_disk_of_64_kib`] on a real file system that fills up, in a mount namespace that ends with it.
#[test]
fn a_full_disk_refuses_and_heals_by_itself() {
    let folder = folder();
    let test = std::env::current_exe().expect("this test");
    let script =
        "mount -t tmpfs -o size=64k tmpfs \"$0\" && exec \"$1\" --exact audit::tests::on_a_disk_of_64_kib --ignored";
    let run = |flags: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(flags).args(["bash", "-ec", script]).arg(folder.path()).arg(&test);
        command.env("HOLDFAST_TEST_SMALL_DISK", folder.path()).output()
    };
    // As root, or as anybody where the kernel lets users have namespaces.
    let output = [&["--mount"][..], &["--mount", "--map-root-user"]].into_iter().find_map(|flags| {
        let output = run(flags).expect("unshare, of util-linux");
        String::from_utf8_lossy(&output.stdout).contains("running 1 test").then_some(output)
    });
    let output = output.expect("a tmpfs in a mount namespace: root, or user namespaces, are needed");
    let said = String::from_utf8_lossy(&output.stdout);
    // A name that is no test's would run none, and be well.
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

// Ignored by itself and never left out: the test above runs it in a process that has the mount, and wants to see that it passed.
#[test]
#[ignore = "run by a_full_disk_refuses_and_heals_by_itself, which gives it a small disk"]
fn on_a_disk_of_64_kib() {
    let disk = PathBuf::from(std::env::var_os("HOLDFAST_TEST_SMALL_DISK").expect("a small disk"));
    let (path, ballast) = (disk.join("audit.jsonl"), disk.join("ballast"));
    let (mut log, _) = opened(&path);
    let filler = json!({"kind": "test", "text": "x".repeat(1500)});
    log.append(NOON, &filler).expect("there is room");
    fs::write(&ballast, vec![0; 48 * 1024]).expect("there is room");
    let mut written = 1;
    let error = loop {
        match log.append(NOON, &filler) {
            Ok(_) => written += 1,
            Err(e) => break e,
        }
    };
    assert!(matches!(&error, AuditError::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull));
    assert!(log.record(NOON, &attempt(), &filler).is_err(), "no lock without a record");
    assert!(fs::metadata(&path).expect("there").len() > log.good, "a part of a line was written");
    fs::remove_file(&ballast).expect("room again");
    let lock = log.record(NOON, &attempt(), &filler).expect("healed");
    assert_eq!((lock.position().seq, verify_file(&path).map(|s| s.position)), (written + 2, Ok(log.head())));
    assert_eq!(entries(&path)[written as usize], json!({"kind": "log-gap", "entries": 2}));
}
