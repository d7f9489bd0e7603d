//! By whose word a hold stands.

use super::*;

const NOW: i64 = 1_800_000_000_000;

fn id(number: u8) -> MessageId {
    MessageId::from_bytes([number; 16])
}

/// A custodian's heartbeat, so many seconds old, with these holds.
fn said(number: usize, age: i64, holds: &[MessageId]) -> (Principal, (Timestamp, Heartbeat)) {
    let hold =
        |id: &MessageId| format!(r#"{{"id":"{id}","by":"ids-1","held_at":"2026-11-24T10:00:00.000Z","need":2}}"#);
    let holds: Vec<_> = holds.iter().map(hold).collect();
    let digest = "0".repeat(64);
    let heartbeat = format!(
        r#"{{"version":"0.1.0","started_at":"2026-11-24T10:00:00.000Z","share":{{"generation":1,"ok":true}},"threshold":3,
        "sandboxed":true,"clock_synchronised":true,"audit":{{"seq":1,"head":"{digest}","ok":true}},"policy_sha256":"{digest}",
        "allowed_signers_sha256":"{digest}","holds":[{}],"nodes":{{}},"rejected":{{}},"submissions":{{}}}}"#,
        holds.join(",")
    );
    let name = format!("custodian-{number}").parse().expect("a name");
    (name, (Timestamp::from_millis(NOW - age * 1000), serde_json::from_str(&heartbeat).expect("a heartbeat")))
}

/// Which of two holds stands, by the words of some of five custodians, three of whom open a node.
fn judged(said: &[(Principal, (Timestamp, Heartbeat))]) -> Option<MessageId> {
    first_in_force(&said.iter().cloned().collect(), &[id(2), id(1)], 5, 3, Timestamp::from_millis(NOW))
}

#[test]
fn it_takes_so_many_that_the_others_are_too_few() {
    let obey = |many: usize| (0..many).map(|number| said(number, 1, &[id(1)])).collect::<Vec<_>>();
    for many in 0..=5 {
        assert_eq!(judged(&obey(many)).is_some(), many >= 3, "{many} obey");
    }
    let mut mixed = obey(2);
    mixed.extend([said(2, 1, &[id(2)]), said(3, 1, &[]), said(4, 1, &[id(3)])]);
    assert_eq!(judged(&mixed), None, "different holds are not one");
}

#[test]
fn an_old_word_is_none() {
    let recent = i64::try_from(RECENT.as_secs()).expect("small");
    let mut said_so: Vec<_> = (0..3).map(|number| said(number, recent, &[id(1), id(2)])).collect();
    assert_eq!(judged(&said_so), Some(id(2)), "the latest that stands");
    said_so[0].1.0 = Timestamp::from_millis(NOW - recent * 1000 - 1);
    assert_eq!(judged(&said_so), None);
}
