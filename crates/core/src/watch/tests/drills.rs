//! Drills as a sentinel hears of them: they are shown while they run, kept as they were signed, and told from an emergency.

use super::super::drills::tests::report;
use super::*;
use crate::id::{DrillId, SlotId};
use crate::message::{Intent, Phase};
use crate::status::DrillSummary;

const ENVELOPE: &[u8] = b"as it was signed";

impl World {
    fn drill(&mut self, conductor: &str, report: DrillReport) -> Vec<Record> {
        self.sequence += 1;
        let mut id = [1; 16];
        id[..8].copy_from_slice(&self.sequence.to_be_bytes());
        let now = at(self.now);
        let content = Content::DrillReport(Box::new(report));
        let (kind, id) = (content.kind(), MessageId::from_bytes(id));
        let header = Header { kind, id, cluster: CLUSTER, from: who(conductor), issued_at: now.wall, expires_at: None };
        self.watcher.handle_drill_report(Body { header, content }, ENVELOPE, now);
        std::iter::from_fn(|| self.watcher.poll_record()).collect()
    }

    /// Custodians submit what opens the node, on this intent.
    fn opened_by(&mut self, custodians: [u8; 3], intent: Option<MessageId>) {
        for (i, x) in custodians.into_iter().enumerate() {
            let result = if i == 2 { Submission::Opened } else { Submission::Counted };
            let receipt = Receipt { x, intent, nonce: "n".to_owned(), ..self.receipt(Cause::InPlace, result) };
            self.message(&format!("custodian-{x}"), Content::Receipt(receipt));
        }
        self.truth.sealed = false;
        self.run(12 * SECOND);
    }
}

fn intent(drill: u8, node: &str) -> Content {
    Content::Intent(Intent {
        drill: DrillId::from_bytes([drill; 16]),
        node: node.parse().expect("a name"),
        slot: SlotId::of_time(Timestamp::default()),
        submitters: Vec::new(),
        order: None,
    })
}

#[test]
fn a_drill_is_shown_while_it_runs_and_kept_as_it_was_signed_when_it_is_over() {
    let mut world = settled(true);
    let kept = |records: &[Record]| {
        records
            .iter()
            .filter(|record| matches!(record, Record::Drill(_, _, envelope) if envelope.as_bytes() == ENVELOPE))
            .count()
    };
    assert_eq!(kept(&world.drill("custodian-1", report(1, Phase::Announced, None))), 0);
    let running = world.status().drills;
    assert_eq!(running.iter().map(|drill| drill.report.result).collect::<Vec<_>>(), [None]);
    let closed = report(1, Phase::Closed, Some(DrillResult::Passed));
    assert_eq!(kept(&world.drill("custodian-1", closed.clone())), 1);
    assert_eq!(kept(&world.drill("custodian-1", closed)), 0, "told again");
    let status = world.status();
    assert_eq!(status.drills.iter().map(|drill| drill.report.result).collect::<Vec<_>>(), [Some(DrillResult::Passed)]);
    assert!(status.drills[0].is_unconfirmed(), "nobody here saw the node sealed");
    assert_eq!(status.drill_summary, DrillSummary::default());
    let counted: Vec<_> = world.watcher.totals().drills.into_iter().collect();
    assert_eq!(counted.len(), DrillResult::ALL.len(), "each result is told, also at zero");
    assert_eq!(counted.iter().map(|(_, n)| n).sum::<u64>(), 0);

    assert_eq!(kept(&world.drill("custodian-1", report(2, Phase::Closed, Some(DrillResult::Late)))), 1);
    assert_eq!(world.status().drill_summary.last_recovery_us.len(), 1);
    let mut clusters = watch(&["vault-2"], true);
    world.watcher.reconfigure(std::mem::take(&mut clusters), &BTreeSet::new(), at(world.now));
    let status = world.status();
    assert_eq!((status.drills.len(), status.drill_summary.last_recovery_us.len()), (2, 0), "the node is gone");
}

#[test]
fn a_drill_passed_once_the_sentinel_saw_it_too() {
    let mut world = settled(true);
    let passed = |drill| report(drill, Phase::Closed, Some(DrillResult::Passed));
    let seen = |records: Vec<Record>| records.into_iter().any(|record| matches!(record, Record::DrillSeen(..)));
    let runs = |world: &World| world.watcher.totals().drills[&(CLUSTER, DrillResult::Passed)];
    // What its report names, the receipts name: also those that come later than it.
    world.truth.sealed = true;
    world.run(SECOND);
    assert!(!seen(world.drill("custodian-1", passed(1))) && runs(&world) == 0);
    world.opened_by([1, 2, 3], Some(MessageId::from_bytes([1; 16])));
    let status = world.status();
    assert!(status.drills[0].seen && status.drill_summary.last_success.is_some() && runs(&world) == 1);

    world.drill("custodian-1", report(4, Phase::Announced, None));
    world.truth.sealed = true;
    world.run(SECOND);
    world.opened_by([1, 2, 3], Some(MessageId::from_bytes([4; 16])));
    assert!(seen(world.drill("custodian-1", passed(4))) && runs(&world) == 2);
    let status = world.status();

    // A crash that a captured conductor calls a drill, and one that it calls a drill of people.
    world.truth.sealed = true;
    world.run(SECOND);
    world.opened_by([1, 2, 3], None);
    let of_people = DrillReport { people: true, announced_at: Some(at(world.now).wall), ..passed(3) };
    for made_up in [passed(2), of_people] {
        assert!(!seen(world.drill("custodian-5", made_up)));
    }
    assert_eq!((runs(&world), world.status().drill_summary.last_success), (2, status.drill_summary.last_success));
}

#[test]
fn the_word_of_a_distrusted_conductor_makes_no_drill() {
    let mut world = settled(true);
    for x in 2..=4 {
        let beat = Heartbeat { distrusted: vec![who("custodian-1")], ..heartbeat(x, &[("vault-1", true)]) };
        world.message(&format!("custodian-{x}"), Content::Heartbeat(Box::new(beat)));
    }
    let records = world.drill("custodian-1", report(1, Phase::Closed, Some(DrillResult::Passed)));
    assert!(!records.iter().any(|record| matches!(record, Record::Drill(..))), "{records:?}");
    assert!(world.status().drills.is_empty());
}

#[test]
fn an_incident_is_a_drills_where_most_custodians_name_its_intent_and_proves_shares_all_the_same() {
    let mut world = settled(true);
    world.message("custodian-1", intent(1, "vault-1"));
    // The first message after the receipts' sequence numbers: its id is what receipts name.
    let mut id = [0; 16];
    id[..8].copy_from_slice(&world.sequence.to_be_bytes());
    let named = Some(MessageId::from_bytes(id));
    world.truth.sealed = true;
    world.run(SECOND);
    world.opened_by([1, 2, 3], named);
    let incident = world.status().incidents[0].clone();
    assert_eq!((incident.drill, incident.cause), (Some(DrillId::from_bytes([1; 16])), Some(Cause::InPlace)));
    let proven = world.status().custodians.into_values().filter(|custodian| custodian.share_proven.is_some());
    assert_eq!(proven.count(), 3, "a share that a drill needed is as good as one that a crash needed");

    // Somebody else's seal, which one captured custodian calls a drill.
    world.truth.sealed = true;
    world.run(SECOND);
    let lie = Receipt { intent: named, ..world.receipt(Cause::InPlace, Submission::Unanswered) };
    world.opened_by([1, 2, 3], None);
    world.message("custodian-5", Content::Receipt(lie));
    assert_eq!(world.status().incidents[0].drill, None);

    // An intent of which nobody heard, and one for another node.
    world.message("custodian-1", intent(2, "vault-2"));
    id[..8].copy_from_slice(&world.sequence.to_be_bytes());
    for unknown in [MessageId::from_bytes([9; 16]), MessageId::from_bytes(id)] {
        world.truth.sealed = true;
        world.run(SECOND);
        world.opened_by([1, 2, 3], Some(unknown));
        assert_eq!(world.status().incidents[0].drill, None);
    }
    let heard_late = DrillReport { intent: Some(MessageId::from_bytes([9; 16])), ..report(3, Phase::Announced, None) };
    world.drill("custodian-1", heard_late);
    assert_eq!(world.status().incidents[1].drill, Some(DrillId::from_bytes([3; 16])), "it is named when it is heard");
}

#[test]
fn the_next_drill_is_the_earliest_of_the_conductors_that_speak_and_one_that_was_due_is_told_of() {
    let mut world = settled(true);
    world.watcher.set_conductors(CLUSTER, [who("custodian-1"), who("custodian-2")].into());
    assert_eq!(world.status().drill_summary.next, None);
    let began = at(world.now).wall;
    let [never, soon, later] = [500, 1_000, 2_000].map(|wait| began.after(Duration::from_secs(wait)));
    for (x, next) in [(1, later), (2, soon), (3, never)] {
        let beat = Heartbeat { next_drill: Some(next), ..heartbeat(x, &[("vault-1", true)]) };
        world.message(&format!("custodian-{x}"), Content::Heartbeat(Box::new(beat)));
    }
    assert_eq!(world.status().drill_summary.next, Some(soon), "custodian-3 conducts nothing");
    world.run(Duration::from_secs(120));
    assert_eq!(world.status().drill_summary.next, None, "whom nobody hears plans nothing");
    world.run(Duration::from_secs(800));
    assert_eq!(world.status().drill_summary.due, None);
    world.run(Duration::from_secs(100));
    assert_eq!(world.status().drill_summary.due, Some(soon), "and what it had planned is missed");
    world.drill("custodian-1", report(1, Phase::Closed, Some(DrillResult::Failed)));
    assert_eq!(world.status().drill_summary.due, None);
    let distrusted = vec![who("custodian-2")];
    for x in 3..=5 {
        let beat = Heartbeat { distrusted: distrusted.clone(), ..heartbeat(x, &[("vault-1", true)]) };
        world.message(&format!("custodian-{x}"), Content::Heartbeat(Box::new(beat)));
    }
    let beat = Heartbeat { next_drill: Some(began), ..heartbeat(2, &[("vault-1", true)]) };
    world.message("custodian-2", Content::Heartbeat(Box::new(beat)));
    let told = world.status().drill_summary;
    assert_eq!((told.next, told.due), (None, None), "whose word counts for nothing plans nothing");
}
