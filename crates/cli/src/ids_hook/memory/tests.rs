//! What counts once, what counts again, and what whoever can post alerts gains.

use super::*;

fn at(minutes: u64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000).after(Duration::from_secs(60 * minutes))
}

fn id(number: u8) -> MessageId {
    MessageId::from_bytes([number; 16])
}

fn hold(number: u8) -> Signed {
    let (name, routing_key) = ("hold".to_owned(), format!("lab.ids-1.hold.{number}"));
    Signed { id: id(number), name, envelope: format!("{{\"number\":{number}}}").into_bytes(), routing_key }
}

fn these_alerts(instances: &[&str]) -> BTreeSet<String> {
    instances.iter().map(|instance| (*instance).to_owned()).collect()
}

fn node(name: &str) -> NodeName {
    name.parse().expect("a name")
}

fn looks(all: &[(&str, Look)]) -> BTreeMap<NodeName, Look> {
    all.iter().map(|(name, look)| (node(name), *look)).collect()
}

fn nodes(names: &[&str]) -> Vec<NodeName> {
    names.iter().map(|name| node(name)).collect()
}

fn due(tell: &[&str], sealed: &[&str], spent: &[&str]) -> Due {
    Due { tell: nodes(tell), sealed: nodes(sealed), spent: nodes(spent) }
}

fn empty() -> (tempfile::TempDir, Memory) {
    let folder = tempfile::tempdir().expect("a folder");
    let memory = Memory::open(&folder.path().join("memory.json")).expect("empty");
    (folder, memory)
}

#[test]
fn what_was_signed_goes_out_as_it_is_until_it_is_delivered_and_counts_once() {
    let (folder, mut memory) = empty();
    let first = these_alerts(&["x"]);
    memory.note_order("a", &first, &hold(1), at(0));
    // Its alert comes again and again, and others with it; the receiver is killed.
    let memory = &mut Memory::open(&folder.path().join("memory.json")).expect("written");
    let out = memory.outgoing("a").expect("it is not delivered");
    assert_eq!(
        (out.id, &out.envelope, &out.routing_key),
        (id(1), &hold(1).envelope, &hold(1).routing_key),
        "to the letter"
    );
    assert_eq!(memory.unheld("a", &these_alerts(&["x", "y"])), these_alerts(&["x", "y"]));
    assert_eq!((memory.lately("a", at(1)), memory.with_outgoing()), (1, vec!["a".to_owned()]));

    memory.note_delivered("a");
    assert!(memory.outgoing("a").is_none() && memory.with_outgoing().is_empty());
    assert_eq!(memory.unheld("a", &these_alerts(&["x", "y"])), these_alerts(&["y"]), "y came later: it may be ended");
    assert_eq!(memory.unsettled("a", &first, false), these_alerts(&[]));
    assert_eq!(memory.unsettled("a", &first, true), first, "its nodes are not sealed");
    memory.note_held("a", &these_alerts(&["y"]), id(1));
    assert_eq!(memory.unheld("a", &these_alerts(&["x", "y"])), these_alerts(&[]), "it stands");
}

#[test]
fn one_that_is_found_to_stand_does_not_go_out_again() {
    let (_folder, mut memory) = empty();
    memory.note_order("a", &these_alerts(&["x"]), &hold(1), at(0));
    memory.note_held("a", &these_alerts(&["y"]), id(2));
    assert!(memory.outgoing("a").is_some(), "another stands");
    memory.note_held("a", &these_alerts(&["y"]), id(1));
    assert!(memory.outgoing("a").is_none());
    assert_eq!(memory.unsettled("a", &these_alerts(&["x", "y"]), false), these_alerts(&[]));
}

#[test]
fn it_is_the_same_after_a_restart() {
    let (folder, mut memory) = empty();
    memory.note_order("a", &these_alerts(&["x"]), &hold(1), at(0));
    memory.note_order("a", &these_alerts(&["y"]), &hold(2), at(2));
    let looked = looks(&[("vault-1", Look::Sealed), ("vault-2", Look::Open)]);
    memory.note_seals("a", &these_alerts(&["z"]), &looked, 1, at(0));
    let again = Memory::open(&folder.path().join("memory.json")).expect("written");
    assert_eq!(again.holds("a"), [id(2), id(1)]);
    assert_eq!((again.lately("a", at(30)), again.lately("a", at(61)), again.lately("b", at(30))), (2, 1, 0));
    assert_eq!(again.lately("a", Timestamp::default()), 2, "a clock that was set back makes no room");
    let mut again = again;
    let spent = again.note_seals("a", &these_alerts(&["other"]), &looks(&[("vault-2", Look::Open)]), 1, at(59));
    assert_eq!(spent, due(&[], &[], &["vault-2"]), "nor does a restart");
}

#[test]
fn a_seal_counts_once_for_its_alert_and_again_when_people_opened_the_node() {
    let (_folder, mut memory) = empty();
    let (alert, all) = (these_alerts(&["x"]), BTreeSet::from([node("vault-1")]));
    let open = looks(&[("vault-1", Look::Open)]);
    // It is told until it is seen sealed, however often its alert comes again.
    for minute in 0..5 {
        assert_eq!(memory.note_seals("a", &alert, &open, 2, at(minute)), due(&["vault-1"], &[], &[]));
    }
    // The hold is not delivered, and people open the node: it is sealed again, which counts.
    memory.note_sealed("a", &alert, &nodes(&["vault-1"]), false, &all);
    assert_eq!(memory.unsettled("a", &alert, true), alert);
    assert_eq!(memory.note_seals("a", &alert, &open, 2, at(5)), due(&["vault-1"], &[], &[]));
    memory.note_sealed("a", &alert, &nodes(&["vault-1"]), false, &all);
    assert_eq!(memory.note_seals("a", &alert, &open, 2, at(6)), due(&[], &[], &["vault-1"]), "two in this hour");
    // An hour later there is room; now the hold stands, and this alert asks for nothing more, whoever opens the node then.
    assert_eq!(memory.note_seals("a", &alert, &open, 2, at(61)), due(&["vault-1"], &[], &[]));
    memory.note_sealed("a", &alert, &nodes(&["vault-1"]), true, &all);
    assert_eq!(memory.note_seals("a", &alert, &open, 2, at(62)), due(&[], &[], &[]));
    memory.note_order("a", &alert, &hold(1), at(62));
    memory.note_delivered("a");
    assert_eq!(memory.unsettled("a", &alert, true), these_alerts(&[]));
}

#[test]
fn whoever_posts_alerts_uses_up_no_seal_that_another_alert_needs() {
    let (_folder, mut memory) = empty();
    // Of nodes that are sealed, or down; and of one that is captured, and says for ever that it is open.
    let looked = looks(&[("vault-1", Look::Open), ("vault-2", Look::Sealed), ("vault-3", Look::Unknown)]);
    for number in 0..100 {
        memory.note_seals("a", &these_alerts(&[&number.to_string()]), &looked, 12, at(0));
    }
    let opened = looks(&["vault-1", "vault-2", "vault-3"].map(|name| (name, Look::Open)));
    let real = memory.note_seals("a", &these_alerts(&["real"]), &opened, 12, at(1));
    assert_eq!(real, due(&["vault-2", "vault-3"], &[], &["vault-1"]), "only the captured one's own are used up");
    let other = memory.note_seals("b", &these_alerts(&["real"]), &opened, 12, at(1));
    assert_eq!(other, due(&["vault-1", "vault-2", "vault-3"], &[], &[]), "nor another action's");
}

#[test]
fn a_hold_that_is_spent_takes_nothing_from_the_seals() {
    let (_folder, mut memory) = empty();
    for number in 0..12 {
        memory.note_order("a", &these_alerts(&[&number.to_string()]), &hold(number), at(0));
        memory.note_delivered("a");
    }
    assert_eq!(memory.lately("a", at(1)), 12);
    let open = looks(&[("vault-1", Look::Open)]);
    assert_eq!(memory.note_seals("a", &these_alerts(&["x"]), &open, 1, at(1)), due(&["vault-1"], &[], &[]));
}

#[test]
fn what_is_configured_otherwise_is_forgotten() {
    let (_folder, mut memory) = empty();
    let about = |all: &[(&str, &str)]| all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    memory.keep(&about(&[("a", "hold vault-1"), ("b", "hold vault-2")]));
    for action in ["a", "b"] {
        memory.note_order(action, &these_alerts(&["x"]), &hold(1), at(0));
    }
    memory.keep(&about(&[("a", "hold vault-1"), ("b", "hold vault-3"), ("c", "hold vault-2")]));
    assert_eq!(memory.holds("a"), [id(1)]);
    assert!(memory.holds("b").is_empty() && memory.outgoing("b").is_none(), "a hold of vault-2 is none of vault-3");
    memory.keep(&about(&[("c", "hold vault-2")]));
    assert!(memory.outgoing("a").is_none(), "nobody asks for it any more");
}

#[test]
fn it_is_bounded() {
    let (_folder, mut memory) = empty();
    let open = looks(&[("vault-1", Look::Open)]);
    for number in 0..=u8::MAX {
        memory.note_order("a", &these_alerts(&[&number.to_string()]), &hold(number), at(u64::from(number)));
        memory.note_seals("a", &these_alerts(&[&format!("{number}, once more")]), &open, 60, at(u64::from(number)));
        memory.note_seals("a", &these_alerts(&[&format!("{number}, and again")]), &open, 60, at(u64::from(number)));
    }
    memory.note_delivered("a");
    assert_eq!(memory.holds("a").len(), KEPT);
    assert_eq!(memory.holds("a")[0], id(u8::MAX));
    assert_eq!(memory.actions["a"].alerts.len(), ALERTS_KEPT);
    assert_eq!(memory.actions["a"].seals[&node("vault-1")].len(), KEPT);
    assert_eq!(memory.unheld("a", &these_alerts(&["0", "255"])), these_alerts(&["0"]));
    // A notification of as many as there may be is remembered whole.
    let many: BTreeSet<_> = (0..super::super::alerts::ALERTS_MAX).map(|number| format!("new {number}")).collect();
    memory.note_order("a", &many, &hold(1), at(300));
    memory.note_delivered("a");
    assert!(memory.unsettled("a", &many, false).is_empty());
}

#[test]
fn a_full_memory_can_be_read_again() {
    let (folder, mut memory) = empty();
    let name = |number: usize| format!("{number:063}");
    memory.keep(&(0..256).map(|number| (name(number), "x".repeat(300))).collect());
    // As `save` does with each note; here once, with all of it.
    for known in memory.actions.values_mut() {
        let instances: BTreeSet<_> = (0..ALERTS_KEPT).map(|number| format!("{number:064}")).collect();
        these(&mut known.alerts, &instances).for_each(|alert| (alert.hold, alert.sealed) = (Some(id(1)), true));
        known.orders.extend((0..KEPT).map(|_| Ordered { at: at(0), hold: id(1) }));
        known.outgoing = Some(Outgoing { hold: id(1), routing_key: "k".repeat(200), envelope: "e".repeat(4096) });
        known.seals.extend((0..3).map(|number| (node(&format!("vault-{number}")), vec![at(0); KEPT].into())));
    }
    memory.save();
    assert_eq!(Memory::open(&folder.path().join("memory.json")).expect("not too large"), memory);
}

#[test]
fn what_is_no_memory_is_refused_and_a_disk_that_fails_stops_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("memory.json");
    for bad in ["", "{}", "{\"v\":1,\"actions\":{}}", "{\"v\":2,\"actions\":{},\"x\":1}"] {
        std::fs::write(&path, bad).expect("written");
        assert!(matches!(Memory::open(&path), Err(MemoryError::Malformed { .. })), "{bad}");
    }
    let mut nowhere = Memory::open(&folder.path().join("none/memory.json")).expect("empty");
    nowhere.note_order("a", &these_alerts(&["x"]), &hold(1), at(0));
    assert_eq!(nowhere.holds("a"), [id(1)]);
}
