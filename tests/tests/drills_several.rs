//! Several conductors of one cluster, with one schedule: each drill is held once, by one of them, and another one closes it when that
//! one is killed or stopped in the middle. How often a node was really sealed, its own log says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use holdfast_tests::broker::{Client, Tap};
use holdfast_tests::drills::{Told, finish, next_in, once, order, ordering, read, told};
use holdfast_tests::lab::Lab;
use holdfast_tests::processes::Signal;
use holdfast_tests::wait::{always, until, until_within};
use serde_json::Value;

const CONDUCTORS: [&str; 3] = ["custodian-1", "custodian-2", "custodian-3"];

/// A custodian that conducts nothing. While it hangs, a conductor waits for its answer to an intent.
const BYSTANDER: &str = "custodian-5";

/// How many times of the schedule are looked at, and how long they take at most: one comes up each minute.
const TIMES: usize = 2;
const SCHEDULED: Duration = Duration::from_secs(240);

/// How long until a conductor closes another one's drill: until the broker has missed the other (two heartbeats of 10 s), and nobody
/// can seal for it any more (60 s after its intent).
const TAKEN_OVER: Duration = Duration::from_secs(150);

/// How long a conductor is stopped that is to go on by itself.
const MOMENT: Duration = Duration::from_secs(2);

/// How long a node is looked at of which something must not happen.
const SAMPLE: Duration = Duration::from_secs(5);

#[test]
fn several_conductors_hold_each_drill_once() {
    let mut lab = Lab::up(&["--conductors", "3", "--schedule", "* * * * *"]);
    lab.scenario("one schedule", one_schedule);
    lab.scenario("whoever holds it is killed before the seal", killed_before_the_seal);
    lab.scenario("whoever holds it is killed after the seal", killed_after_the_seal);
    lab.scenario("whoever holds it is stopped for a moment", stopped_for_a_moment);
    lab.scenario("whoever holds it is stopped before the seal", stopped_before_the_seal);
    lab.scenario("whoever holds it is stopped after the seal", stopped_after_the_seal);
    lab.scenario("all are there again", |lab| drop(order(lab, &["--node", "vault-2"]).well()));
}

/// All of them say that a drill is due, and one holds it.
fn one_schedule(lab: &mut Lab) {
    let admin = Client::admin(lab);
    let (tap, due) = (admin.tap("holdfast.intents"), admin.tap("holdfast.intents"));
    let before = seals(lab);
    let (mut heard, mut said) = (Vec::new(), BTreeMap::<_, BTreeSet<_>>::new());
    until_within(SCHEDULED, "each conductor says that a drill is due, and the schedule's drills are over", || {
        heard.extend(told(&admin, &tap));
        for (routing_key, envelope) in admin.all(&due).into_iter().filter(|(key, _)| key.ends_with(".due")) {
            said.entry(read(&envelope).report["slot"].to_string()).or_default().insert(routing_key);
        }
        let closed = closed(&heard);
        let all_said = |slot: &&String| said.get(*slot).is_some_and(|by| by.len() == CONDUCTORS.len());
        closed.keys().filter(all_said).count() >= TIMES
    });
    for conductor in CONDUCTORS {
        lab.edit(conductor, "schedule = ", "# schedule = ");
        lab.signal(conductor, Signal::HUP);
    }
    until("none is planned any more", || {
        CONDUCTORS.iter().all(|conductor| lab.heartbeat(conductor)["next_drill"].is_null())
    });
    // One may have begun meanwhile.
    until("all that began are over", || {
        heard.extend(told(&admin, &tap));
        closed(&heard).keys().eq(slots(&heard).keys())
    });
    for (slot, drills) in slots(&heard) {
        assert_eq!(drills.len(), 1, "{slot} was held more than once: {drills:?}");
    }
    let closed = closed(&heard);
    assert!(closed.values().all(|told| told.report["result"] == "passed"), "{closed:#?}");
    assert_eq!(seals(lab) - before, closed.len(), "each was one seal: {closed:#?}");
}

/// Another one closes the drill, and nobody seals for it, now or when the one that was killed is back.
fn killed_before_the_seal(lab: &mut Lab) {
    let drill = Ordered::announced(lab, "vault-2");
    lab.kill(&drill.told.by);
    let another = drill.closed_by_another(lab);
    assert_eq!(another.report["result"], "interrupted", "{another:?}");
    lab.signal(BYSTANDER, Signal::CONT);
    lab.start(&drill.told.by);
    drill.became_history(lab, &another, 0);
}

/// The node opens without it, and another one closes the drill.
fn killed_after_the_seal(lab: &mut Lab) {
    let drill = Ordered::sealed(lab, "vault-3");
    lab.kill(&drill.told.by);
    until("custodians open it", || lab.is_open("vault-3"));
    let another = drill.closed_by_another(lab);
    assert_eq!(another.report["result"], "interrupted", "{another:?}");
    lab.start(&drill.told.by);
    drill.became_history(lab, &another, 1);
}

/// It goes on where it stood, and is the only one that held the drill.
fn stopped_for_a_moment(lab: &mut Lab) {
    let drill = Ordered::announced(lab, "vault-3");
    lab.signal(&drill.told.by, Signal::STOP);
    always(MOMENT, "nobody else seals it", || lab.is_open("vault-3"));
    lab.signal(&drill.told.by, Signal::CONT);
    lab.signal(BYSTANDER, Signal::CONT);
    let end = drill.closed();
    assert_eq!((&end.by, &end.report["result"]), (&drill.told.by, &Value::from("passed")), "{end:?}");
    drill.became_history(lab, &end, 1);
}

/// Another one closes the drill; when the first goes on, it is too late for it to seal.
fn stopped_before_the_seal(lab: &mut Lab) {
    let drill = Ordered::announced(lab, "vault-2");
    lab.signal(&drill.told.by, Signal::STOP);
    let another = drill.closed_by_another(lab);
    assert_eq!(another.report["result"], "interrupted", "{another:?}");
    lab.signal(&drill.told.by, Signal::CONT);
    lab.signal(BYSTANDER, Signal::CONT);
    always(SAMPLE, "the one that goes on does not seal it", || lab.is_open("vault-2"));
    drill.became_history(lab, &another, 0);
}

/// The node opens without it, and another one closes the drill; what the first measured while it was stopped counts for nothing.
fn stopped_after_the_seal(lab: &mut Lab) {
    let drill = Ordered::sealed(lab, "vault-3");
    lab.signal(&drill.told.by, Signal::STOP);
    until("custodians open it", || lab.is_open("vault-3"));
    let another = drill.closed_by_another(lab);
    assert_eq!(another.report["result"], "interrupted", "{another:?}");
    lab.signal(&drill.told.by, Signal::CONT);
    always(SAMPLE, "the one that goes on does not seal it", || lab.is_open("vault-3"));
    drill.became_history(lab, &another, 1);
}

/// A drill that an operator ordered, in the middle.
struct Ordered {
    admin: Client,
    tap: Tap,
    /// The last that was heard of it, by whoever holds it.
    told: Told,
    run: std::process::Child,
    /// How often nodes had been sealed before.
    seals: usize,
}

impl Ordered {
    /// One whose intent is out, and whose conductor waits for an answer to it.
    fn announced(lab: &Lab, node: &str) -> Self {
        lab.signal(BYSTANDER, Signal::STOP);
        Self::in_phase(lab, node, "announced")
    }

    /// One whose node was seen sealed.
    fn sealed(lab: &Lab, node: &str) -> Self {
        Self::in_phase(lab, node, "sealed")
    }

    fn in_phase(lab: &Lab, node: &str, phase: &str) -> Self {
        let admin = Client::admin(lab);
        let (tap, seals) = (admin.tap("holdfast.intents"), seals(lab));
        let run = ordering(lab, &["--node", node, "--wait", "180"]);
        let told = next_in(&admin, &tap, phase);
        assert!(CONDUCTORS.contains(&told.by.as_str()), "{told:?}");
        Self { admin, tap, told, run, seals }
    }

    /// The report that closes it first.
    fn closed(&self) -> Told {
        let mut end = None;
        until_within(TAKEN_OVER, "the drill is closed", || {
            let told = told(&self.admin, &self.tap).into_iter();
            let mut ends =
                told.filter(|told| told.report["slot"] == self.told.report["slot"] && told.report["phase"] == "closed");
            end = ends.next();
            end.is_some()
        });
        let end = end.expect("it was heard");
        assert_eq!(end.report["drill"], self.told.report["drill"], "two drills for one order");
        end
    }

    fn closed_by_another(&self, lab: &Lab) -> Told {
        let end = self.closed();
        assert!(end.by != self.told.by && CONDUCTORS.contains(&end.by.as_str()), "{end:?}");
        let node = end.report["node"].as_str().expect("a node");
        assert!(lab.is_open(node), "it was closed while {node} is sealed");
        end
    }

    /// It ended so, once, for who ordered it and in the history; and nodes were sealed so often for it.
    fn became_history(self, lab: &Lab, end: &Told, sealed: usize) {
        lab.settle();
        let said = finish(self.run);
        let result = end.report["result"].as_str().expect("a result");
        assert!(said.out.contains(&format!(": {result}")), "{said:?}");
        assert_eq!(said.code, Some(i32::from(result != "passed")), "{said:?}");
        let list: Value = serde_json::from_str(&lab.holdfast(&["drill", "list", "--json"]).well().out).expect("JSON");
        let all = list["drills"].as_array().expect("a list").iter();
        let kept: Vec<_> = all.filter(|drill| drill["report"]["slot"] == end.report["slot"]).collect();
        let [kept] = kept[..] else { panic!("kept {} times: {kept:#?}", kept.len()) };
        // Where the one that began it comes back and tells of its end too, that one is shown.
        if kept["conductor"] == self.told.by.as_str() {
            assert_eq!(kept["report"]["drill"], end.report["drill"]);
            assert!(end.by == self.told.by || kept["report"]["result"] != "passed", "{kept:#?}");
        } else {
            assert_eq!((&kept["conductor"], &kept["report"]), (&Value::from(end.by.as_str()), &end.report));
        }
        once(&self.admin, &self.tap, &end.report);
        assert_eq!(seals(lab) - self.seals, sealed, "so often it was sealed for one order");
    }
}

/// How often the nodes have sealed themselves, as each one's log says.
fn seals(lab: &Lab) -> usize {
    let logs = lab.file.vault.iter().map(|node| fs::read_to_string(lab.path(&node.process.log)).expect("its log"));
    logs.map(|log| log.matches("core: marked as sealed").count()).sum()
}

/// The drills that were told of, by what they are held for.
fn slots(heard: &[Told]) -> BTreeMap<String, BTreeSet<(String, String)>> {
    let mut slots = BTreeMap::<_, BTreeSet<_>>::new();
    for Told { by, report } in heard {
        slots.entry(report["slot"].to_string()).or_default().insert((by.clone(), report["drill"].to_string()));
    }
    slots
}

/// The first report that closes each of them.
fn closed(heard: &[Told]) -> BTreeMap<String, &Told> {
    let mut closed = BTreeMap::new();
    for told in heard.iter().filter(|told| told.report["phase"] == "closed") {
        closed.entry(told.report["slot"].to_string()).or_insert(told);
    }
    closed
}
