//! Random worlds: bursts in which everything goes wrong that may, and after each burst, in quiet, what must work again.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use holdfast_core::cause::Cause;
use holdfast_core::id::{ClusterId, IncidentId, MessageId};
use holdfast_core::message::{
    Approval, Body, Content, Distrust, Header, Hold, Receipt, Release, Seen, Sighting, Submission,
};
use holdfast_core::policy::{Policy, Rule};
use holdfast_core::time::Timestamp;
use sha2::{Digest, Sha256};

use crate::dice::Dice;
use crate::note;
use crate::operators::ANOTHER_KEY;
use crate::people::{Message, Person};
use crate::post::Queue;
use crate::story;
use crate::vault::Piece;
use crate::world::{EVENTS, Setup, World};

/// The seeds of every test run: some thirty seconds of an unoptimised build.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=70;

/// How many holds there are in one world: no operator gives more than he may.
const HOLDS_MAX: usize = 20;

/// How soon a hold must have reached everybody, in milliseconds: where the first who are asked keep it to themselves, others are
/// asked half a minute later.
const SPREAD: u64 = 100_000;

/// How soon a node must be open when everything works, in milliseconds.
const SOON: u64 = 5_000;

/// How soon it must be open right after chaos: waits that grew meanwhile may have to end first.
const AFTER_CHAOS: u64 = 40_000;

#[test]
fn whatever_happens_the_rule_holds_and_afterwards_nodes_open() {
    let seeds = match std::env::var("HOLDFAST_SIM_SEEDS") {
        Ok(range) => parse(&range),
        Err(_) => SEEDS,
    };
    let mut failed = Vec::new();
    for seed in seeds.clone() {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            let text = panic.downcast_ref::<String>().cloned();
            let what = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default();
            if failed.is_empty() {
                println!("{}\nseed {seed}: {what}", story::tell());
            } else {
                println!("seed {seed}: {}", what.lines().next().unwrap_or_default());
            }
            failed.push(seed);
            if failed.len() == 20 {
                break;
            }
        }
    }
    println!("{} events", EVENTS.get());
    assert!(failed.is_empty(), "failed seeds: {failed:?} (run one with HOLDFAST_SIM_SEEDS=N..N)");
}

fn parse(range: &str) -> std::ops::RangeInclusive<u64> {
    let number = |text: &str| text.trim_start_matches('=').parse().expect("HOLDFAST_SIM_SEEDS is first..last");
    match range.split_once("..") {
        Some((first, last)) => number(first)..=number(last),
        None => number(range)..=number(range),
    }
}

/// What may go wrong in one world.
#[derive(Debug, Clone, Copy)]
struct Weather {
    seals: bool,
    cuts: bool,
    freezes: bool,
    custodians: bool,
    reboots: bool,
    broker: bool,
    forgeries: bool,
    lies: bool,
    strangers: bool,
    clocks: bool,
    disks: bool,
    reloads: bool,
    approvals: bool,
    slow: bool,
    orders: bool,
}

thread_local! {
    /// Approvals that were given before, for those who would use them again.
    static USED: RefCell<Vec<Rc<[u8]>>> = const { RefCell::new(Vec::new()) };
}

fn run(seed: u64) {
    story::begin();
    USED.with_borrow_mut(Vec::clear);
    let mut dice = Dice::new(seed ^ 0xC0FF_EE00);
    let (setup, weather) = forecast(seed, &mut dice);
    let mut world = World::open(setup);
    note!(world, "seed {seed}: {weather:?}");
    for _ in 0..dice.between(1, 3) {
        let length = dice.millis(500, 40_000);
        chaos(&mut world, &mut dice, weather, length);
        calm_down(&mut world);
        if weather.orders {
            what_orders_must_do(&mut world, &mut dice);
        }
        what_must_work(&mut world, &mut dice);
    }
}

fn forecast(seed: u64, dice: &mut Dice) -> (Setup, Weather) {
    let custodians = dice.between(3, 6);
    let threshold = dice.between(2, custodians - 1);
    let mut setup = Setup::new(seed);
    setup.custodians = custodians;
    setup.threshold = threshold as u8;
    setup.nodes = dice.between(1, 2);
    setup.broker = dice.chance(75);
    setup.sentinel = dice.chance(70);
    setup.direct = !dice.chance(7);
    if dice.chance(15) {
        setup.misfits = BTreeSet::from([dice.below(custodians)]);
    }
    setup.policy = Policy { unseals_per_hour: 100_000, ..Policy::default() };
    if dice.chance(15) {
        setup.policy.unseals_per_hour = dice.between(0, 3) as u32;
    }
    if dice.chance(10) {
        setup.policy.in_place = Rule::Hold;
    }
    if dice.chance(10) {
        setup.policy.restart = Rule::Approve;
    }
    if dice.chance(10) {
        setup.policy.outage = Rule::Approve;
    }
    let clocks = dice.chance(25);
    if clocks {
        setup.skew = Duration::from_secs(60);
    }
    let mut may = || dice.chance(50);
    let weather = Weather {
        seals: may(),
        cuts: may(),
        freezes: may(),
        custodians: may(),
        reboots: may(),
        broker: may(),
        forgeries: may(),
        lies: may() && may(),
        strangers: may(),
        clocks,
        disks: may() && may(),
        reloads: may(),
        approvals: may(),
        slow: may(),
        orders: may(),
    };
    (setup, weather)
}

fn chaos(world: &mut World, dice: &mut Dice, weather: Weather, length: Duration) {
    note!(world, "--- chaos begins");
    world.oracle.calm = !weather.lies && !weather.clocks;
    (world.post.loss, world.post.twice, world.post.late) = (dice.below(30) as u32, dice.below(20) as u32, 5);
    if weather.orders {
        world.post.orders_lost = dice.below(30) as u32;
    }
    if weather.slow {
        for link in world.links.iter_mut().flatten() {
            link.slow = dice.below(10) as u32;
        }
    }
    let end = world.now + length;
    while world.now < end {
        // Often close together, sometimes far apart.
        let wait = dice.micros(100, 3_000) * 2u32.pow(dice.below(11) as u32);
        world.run(wait);
        something_happens(world, dice, weather);
    }
    note!(world, "--- chaos ends");
}

fn something_happens(world: &mut World, dice: &mut Dice, weather: Weather) {
    let (c, n) = (dice.below(world.hosts.len()), dice.below(world.vaults.len()));
    match dice.below(25) {
        0 | 1 => {
            world.kill_node(n);
            if dice.chance(70) {
                let gap = dice.millis(1, 500);
                world.run(gap);
                world.start_node(n);
            }
        }
        2 if world.vaults[n].process.is_none() => world.start_node(n),
        2 | 3 if weather.seals => world.seal_node(n),
        4 if weather.seals => {
            world.seal_node(n);
            let gap = dice.millis(1, 2000);
            world.run(gap);
            let gap = dice.millis(1, 500);
            world.restart_node(n, gap);
        }
        5 if weather.cuts => {
            let reset = dice.chance(30);
            if dice.chance(20) {
                (0..world.hosts.len()).for_each(|c| world.cut(c, n, reset));
            } else {
                world.cut(c, n, reset);
            }
        }
        6 if weather.cuts => world.heal(c, n),
        7 if weather.freezes => world.freeze_node(n),
        8 if weather.freezes => world.thaw_node(n),
        9 if weather.custodians => world.kill_custodian(c),
        10 => world.start_custodian(c),
        11 if weather.custodians => world.hosts[c].crash_in = Some(dice.below(30) as u32),
        12 if weather.custodians && dice.chance(40) => world.stop_custodian(c),
        13 if weather.reboots => {
            for c in 0..world.hosts.len() {
                if dice.chance(60) {
                    world.reboot_host(c);
                }
            }
            if dice.chance(50) {
                world.power_off(n);
            }
        }
        14 if weather.broker => world.broker_down(),
        15 if weather.broker => world.broker_up(),
        16 if weather.strangers => {
            let piece = match dice.below(3) {
                0 => None,
                1 => Some(Piece { x: 200 + dice.below(3) as u8, fits: false }),
                _ => Some(Piece { x: world.hosts[c].piece.x, fits: world.hosts[c].piece.fits }),
            };
            world.stray(n, piece);
        }
        17 if weather.clocks => jump(world, dice, c),
        18 if weather.disks => world.hosts[c].disk_ok = !world.hosts[c].disk_ok,
        19 if weather.reloads => {
            let renewed = dice.chance(30).then(|| (world.cluster, world.names[n].clone())).into_iter().collect();
            world.reload(c, &renewed);
        }
        20 if weather.approvals => approve(world, dice, n),
        21 if weather.forgeries => forge(world, dice, n),
        2 if weather.lies => lie(world, dice, n),
        3 if weather.lies => lie_about_orders(world, dice),
        22..=24 if weather.orders => decree(world, dice, n),
        _ => {}
    }
}

fn jump(world: &mut World, dice: &mut Dice, c: usize) {
    let host = &mut world.hosts[c];
    host.offset = match dice.below(4) {
        0 => 0,
        1 => dice.below(2_000) as i64 - 1_000,
        2 => dice.below(50_000) as i64 - 25_000,
        _ => dice.below(7_200_000) as i64 - 3_600_000,
    };
    host.synchronised = dice.chance(60);
    let (offset, synchronised) = (host.offset, host.synchronised);
    world.furthest = world.furthest.max(offset);
    note!(world, "custodian-{}: its clock is {offset} ms off now", c + 1);
    world.tell(c, |core, _| core.handle_clock(synchronised));
}

fn approve(world: &mut World, dice: &mut Dice, n: usize) {
    let operator = dice.below(3);
    let mut consent = world.consent(operator, n);
    match dice.below(8) {
        0 => consent.node = "vault-9".to_owned(),
        1 => consent.cluster = ClusterId::from_bytes([9; 16]),
        2 => consent.life = Duration::from_secs(3600),
        3 => (consent.offset, consent.life) = (-400_000, Duration::from_secs(60)),
        _ => {}
    }
    let (_, bytes) = world.give(&consent);
    USED.with_borrow_mut(|used| used.push(bytes.clone()));
    world.send_order(&bytes);
}

/// Somebody who has no say says something.
fn forge(world: &mut World, dice: &mut Dice, n: usize) {
    let node = world.names[n].clone();
    let (id, now) = (MessageId::from_bytes(dice.bytes()), world.wall(0));
    let approval = Content::Approval(Approval { node: node.clone() });
    let marker =
        Content::Event(Sighting { node: node.clone(), seen: Seen::Sealed, cause: Some(Cause::InPlace), seen_at: now });
    let expires_at = Some(now.after(Duration::from_secs(300)));
    let message = |content: Content| {
        let expires_at = expires_at.filter(|_| content.kind().permits());
        Message { id, cluster: world.cluster, content, issued_at: now, expires_at }
    };
    let in_name_of = |by: &Person, from: &Person, content: Content| {
        let Message { id, cluster, content, issued_at, expires_at } = message(content);
        let header = Header { kind: content.kind(), id, cluster, from: from.name.clone(), issued_at, expires_at };
        by.seal_body(&Body { header, content })
    };
    let people = &world.people;
    note!(world, "somebody who has no say speaks about vault-{}", n + 1);
    let bytes = match dice.below(10) {
        0 => people.stranger.seal(message(approval)),
        1 => people.outsider.seal(message(approval)),
        2 => in_name_of(&people.outsider, &people.operators[0], approval),
        3 => in_name_of(&people.custodians[0], &people.operators[1], approval),
        4 => people.sentinel.seal(message(approval)),
        5 => people.stranger.seal(message(marker)),
        6 => in_name_of(&people.custodians[0], &people.sentinel, marker),
        7 => {
            let mut bytes = people.operators[0].seal(message(approval));
            let at = dice.below(bytes.len());
            bytes[at] ^= 1 << dice.below(7);
            bytes
        }
        8 => {
            let used = USED.with_borrow(|used| (!used.is_empty()).then(|| used[dice.below(used.len())].clone()));
            used.map_or_else(Vec::new, |bytes| bytes.to_vec())
        }
        _ => {
            let overheard = &world.post.overheard;
            if overheard.is_empty() { Vec::new() } else { overheard[dice.below(overheard.len())].to_vec() }
        }
    };
    let queue = if dice.chance(50) { Queue::Orders } else { Queue::Peers };
    if world.post.up {
        world.distribute(queue, &bytes.into(), None);
    }
}

/// Somebody who is trusted says what is not so: a captured sentinel, or a captured custodian.
fn lie(world: &mut World, dice: &mut Dice, n: usize) {
    let hour = 3_600_000;
    let when = |dice: &mut Dice, world: &World| {
        let offset = match dice.below(3) {
            0 => dice.below(2 * hour) as i64 - hour as i64,
            1 => dice.below(10_000) as i64 - 5_000,
            _ => 0,
        };
        world.wall(offset)
    };
    let seen = [Seen::Open, Seen::Sealed, Seen::Sealed, Seen::Lost][dice.below(4)];
    let cause = [None, Some(Cause::Restart), Some(Cause::InPlace), Some(Cause::Outage)][dice.below(4)];
    let at = when(dice, world);
    if dice.chance(50) {
        return world.sentinel_claims(n, seen, cause, at);
    }
    let node = world.names[n].clone();
    let content = if dice.chance(50) {
        Content::Sighting(Sighting { node, seen, cause, seen_at: at })
    } else {
        let earlier = Timestamp::from_millis(at.as_millis() - 1000);
        Content::Receipt(Receipt {
            node,
            incident: IncidentId::from_bytes(dice.bytes()),
            round: dice.below(4) as u32,
            cause: Cause::Restart,
            approvals: Vec::new(),
            intent: None,
            x: 1,
            result: Submission::ALL[dice.below(4)],
            nonce: String::new(),
            progress: dice.below(4) as u8,
            sealed_seen_at: earlier,
            submitted_at: earlier,
            answered_at: at,
        })
    };
    let liar = dice.below(world.hosts.len());
    note!(world, "custodian-{} lies: {content:?}", liar + 1);
    let message = Message {
        id: MessageId::from_bytes(dice.bytes()),
        cluster: world.cluster,
        content,
        issued_at: world.wall(0),
        expires_at: None,
    };
    let bytes: Rc<[u8]> = world.people.custodians[liar].seal(message).into();
    if world.post.up {
        world.distribute(Queue::Peers, &bytes, Some(liar));
    }
}

/// An operator orders something, well or badly.
fn decree(world: &mut World, dice: &mut Dice, n: usize) {
    let operator = dice.below(3);
    let holds: Vec<_> = world.held_ever();
    let nodes = if dice.chance(50) { Vec::new() } else { vec![world.names[n].clone()] };
    let content = match dice.below(12) {
        0 | 1 if holds.len() < HOLDS_MAX => Content::Hold(Hold { nodes, reason: None }),
        2..=6 if !holds.is_empty() => world.end_of(holds[dice.below(holds.len())]),
        7 if !holds.is_empty() => match world.end_of(holds[dice.below(holds.len())]) {
            // Not what the hold says.
            Content::Release(release) => Content::Release(Release { nodes, ..release }),
            other => other,
        },
        8 => {
            let peers = world.people.custodians.len() + 1;
            let principal = world.peer(dice.below(peers));
            Content::Distrust(Distrust { principal, lift: dice.chance(30) })
        }
        9 => another_trust_root(world, dice),
        10 => {
            // The same envelope again.
            let before: Vec<_> = world.oracle.ordered.values().map(|ordered| ordered.bytes.clone()).collect();
            if !before.is_empty() {
                world.send_order(&before[dice.below(before.len())].clone());
            }
            return;
        }
        11 if dice.chance(30) => return world.wait_by_the_clock(Duration::from_secs(16 * 60)),
        _ => return,
    };
    let offset = match dice.below(6) {
        0 => -(dice.below(1_800_000) as i64),
        1 => dice.below(40_000) as i64,
        _ => 0,
    };
    let several = dice.below(3);
    for other in 0..=several {
        let (_, bytes) = world.order_at((operator + other) % 3, content.clone(), offset);
        world.send_order(&bytes);
        // Some of what takes several gets them at once, and one hold is enough.
        if matches!(content, Content::Hold(_)) {
            break;
        }
    }
}

/// alice gets another key; sometimes it is one that was made for another trust root than the one in force.
fn another_trust_root(world: &mut World, dice: &mut Dice) -> Content {
    let newest = world.oracle.ordered.values().filter_map(|ordered| match &ordered.content {
        Content::Trust(trust) => Some(trust.clone()),
        _ => None,
    });
    let newest = newest.max_by_key(|trust| trust.version);
    match newest {
        Some(trust) if trust.version >= 3 || dice.chance(70) => {
            if dice.chance(50) {
                world.people.operators[0] = Person::new("alice", ANOTHER_KEY + trust.version as u8 - 1);
            }
            Content::Trust(trust)
        }
        newest => {
            let configured = world.people.trust().digest();
            let in_force = newest.as_ref().map_or(configured, |trust| Sha256::digest(&trust.allowed_signers).into());
            let version = newest.map_or(1, |trust| trust.version + 1);
            World::trust_order(version, &in_force, world.another_file(ANOTHER_KEY + version as u8 - 1))
        }
    }
}

/// A captured custodian makes what it can of orders.
fn lie_about_orders(world: &mut World, dice: &mut Dice) {
    let liar = dice.below(world.hosts.len());
    note!(world, "custodian-{} lies about orders", liar + 1);
    match dice.below(4) {
        0 => {
            let mut digests = world.named_by(dice.below(world.hosts.len()));
            digests.extend((0..20).map(|_| hex::encode(dice.bytes::<32>())));
            world.claim_digests(liar, digests);
        }
        1 => {
            let mut envelopes: Vec<_> = world.oracle.ordered.values().map(|ordered| ordered.bytes.clone()).collect();
            envelopes.extend(USED.with_borrow(|used| used.clone()));
            if !envelopes.is_empty() {
                world.relay_unasked(liar, &envelopes[dice.below(envelopes.len())].clone());
            }
        }
        2 => world.want_all(liar),
        _ => {
            // One at a time: with several captured there may be nobody left who tells.
            world.hosts.iter_mut().for_each(|host| host.withholds = false);
            world.hosts[liar].withholds = true;
        }
    }
}

/// Everything is repaired.
fn calm_down(world: &mut World) {
    (world.post.loss, world.post.twice, world.post.late, world.post.orders_lost) = (0, 0, 0, 0);
    for c in 0..world.hosts.len() {
        for n in 0..world.vaults.len() {
            world.heal(c, n);
            world.links[c][n].slow = 0;
        }
    }
    // All clocks go on from the latest that any has shown: one that stands before it would permit nothing for as long.
    let latest = std::mem::take(&mut world.furthest);
    world.advance_clocks(latest);
    for c in 0..world.hosts.len() {
        let host = &mut world.hosts[c];
        (host.offset, host.synchronised, host.disk_ok, host.crash_in) = (0, true, true, None);
        world.tell(c, |core, _| core.handle_clock(true));
        world.start_custodian(c);
    }
    for n in 0..world.vaults.len() {
        world.thaw_node(n);
        if world.vaults[n].process.is_none() {
            world.start_node(n);
        }
    }
    world.broker_up();
    // What was late comes now, and waits for answers that were lost end.
    world.run(Duration::from_secs(25));
    world.oracle.calm = world.setup.skew.is_zero();
}

/// What was ordered reaches everybody, keeps nodes shut whatever is approved, and ends when two say so.
fn what_orders_must_do(world: &mut World, dice: &mut Dice) {
    let n = dice.below(world.vaults.len());
    if dice.chance(30) && world.setup.broker {
        note!(world, "--- quiet: one alone is told of a hold");
        let nodes = if dice.chance(50) { Vec::new() } else { vec![world.names[n].clone()] };
        let (_, bytes) = world.order_at(1, Content::Hold(Hold { nodes, reason: None }), 0);
        let mut c = dice.below(world.hosts.len());
        if world.hosts[c].withholds {
            c = (c + 1) % world.hosts.len();
        }
        world.hear(c, &bytes);
    }
    if world.setup.broker && !world.until(SPREAD, World::holds_are_everywhere) {
        world.fail("a hold did not reach everybody");
    }
    let everywhere = (0..world.hosts.len()).all(|c| !world.bound_by(c, n).is_empty());
    if everywhere {
        note!(world, "--- quiet: a held node stays shut");
        let gap = dice.millis(10, 1_000);
        world.restart_node(n, gap);
        world.run(Duration::from_secs(2));
        for operator in 1..3 {
            world.approve(operator, n);
        }
        world.run(Duration::from_secs(8));
        if world.vaults[n].is_open() {
            world.fail("held, and open");
        }
    }
    note!(world, "--- quiet: two release what is held, and trust everybody again");
    for hold in world.held_ever() {
        world.release_by(&[1, 2], hold);
    }
    for peer in 0..=world.hosts.len() {
        let peer = world.peer(peer);
        world.distrust_by(&[1, 2], &peer, true);
    }
    let free = |world: &World| (0..world.hosts.len()).all(|c| (0..world.vaults.len()).all(|n| !world.obeys_hold(c, n)));
    if !world.until(SOON, free) {
        world.fail("released, and still held");
    }
    world.run(Duration::from_secs(1));
}

fn what_must_work(world: &mut World, dice: &mut Dice) {
    let policy = world.setup.policy.clone();
    note!(world, "--- quiet: approvals open what is sealed");
    let marked = |world: &World| (0..world.hosts.len()).any(|c| (0..world.vaults.len()).any(|n| world.marked(c, n)));
    if policy.in_place == Rule::Hold && (marked(world) || !world.all_open()) {
        return;
    }
    for n in 0..world.vaults.len() {
        if !world.vaults[n].is_open() {
            for operator in 0..3 {
                world.approve(operator, n);
            }
        }
    }
    if !world.until(AFTER_CHAOS, World::all_open) {
        world.fail("approved, and not open in time");
    }
    if !world.until(SOON, World::all_seen_open) {
        world.fail("open, and not seen open by all in time");
    }
    let wait = dice.millis(2_000, 5_000);
    world.run(wait);
    note!(world, "--- quiet: a restart is opened");
    let n = dice.below(world.vaults.len());
    let gap = dice.millis(10, 3_000);
    world.restart_node(n, gap);
    let opens_by_itself = policy.restart == Rule::Unseal && world.setup.direct && policy.unseals_per_hour > 1000;
    if opens_by_itself && !world.until(SOON, World::all_open) {
        world.fail("restarted, and not open in time");
    }
    if !opens_by_itself {
        world.run(Duration::from_secs(1));
        for operator in 0..3 {
            world.approve(operator, n);
        }
        if !world.until(SOON, World::all_open) {
            world.fail("restarted and approved, and not open in time");
        }
    }
    if !world.until(SOON, World::all_seen_open) {
        world.fail("open, and not seen open by all in time");
    }
    world.run(Duration::from_secs(2));
    note!(world, "--- quiet: a seal in place stays");
    world.seal_node(n);
    world.run(Duration::from_secs(5));
    if dice.chance(50) {
        world.restart_node(n, gap);
        world.run(Duration::from_secs(5));
    }
    if dice.chance(30) {
        let c = dice.below(world.hosts.len());
        world.kill_custodian(c);
        world.start_custodian(c);
        world.run(Duration::from_secs(3));
    }
    if world.vaults[n].is_open() {
        world.fail("sealed in place, and open again");
    }
    for operator in 1..3 {
        world.approve(operator, n);
    }
    let opened = world.until(SOON, World::all_open);
    if policy.in_place == Rule::Hold && !world.setup.direct {
        // Nobody can tell then that it was sealed in place, but a sentinel that is heard.
        return;
    }
    if opened != (policy.in_place != Rule::Hold) {
        world.fail(&format!("sealed in place and approved: open {opened}"));
    }
    if !opened {
        // Only another process, which nobody saw open, ends a hold of the policy.
        return;
    }
    world.until(SOON, World::all_seen_open);
}
