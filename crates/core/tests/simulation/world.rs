//! The world: hosts with real custodians, fake Vault nodes, a fake network and a fake broker, under one fake time.
//!
//! What lives here: the events and their order, the hosts, and what tests do to both. What does not: how connections work
//! (`wire`), how messages travel (`post`), and what must hold (`oracle`).

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use holdfast_core::cause::Cause;
use holdfast_core::custodian::{
    BootId, ClusterSettings, Custodian, Entry, NodeSettings, Outcome, Output, Settings, Start, State,
};
use holdfast_core::drill::{Choice, Conducting, Observed, SealOrder};
use holdfast_core::id::{ClusterId, DrillId, MessageId, NodeName};
use holdfast_core::message::{AuditReport, Content, Effect, Heartbeat, Lock, NodeReport, SandboxPart, Seen};
use holdfast_core::policy::Policy;
use holdfast_core::release::Attempt;
use holdfast_core::time::{Now, Steady, Timestamp};

use crate::conductors::Drills;
use crate::dice::Dice;
use crate::note;
use crate::oracle::Oracle;
use crate::people::People;
use crate::post::{Post, Queue};
use crate::vault::{Piece, ProcessId, Vault};
use crate::wire::{Conn, ConnId, Edge, Link, Packet, Report};

/// When it all begins: twenty past an hour, so that no short run crosses into the next, when ranks change.
const BEGINNING: i64 = 1_795_341_600_000 + 20 * 60 * 1000;

/// How often a custodian may wake up by itself within [`SPIN_WINDOW`]: a close look every 5 ms would be 20.
const SPIN_MAX: u32 = 100;
const SPIN_WINDOW: Duration = Duration::from_millis(100);

/// How the world is made.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) custodians: usize,
    pub(crate) threshold: u8,
    pub(crate) nodes: usize,
    pub(crate) broker: bool,
    pub(crate) sentinel: bool,
    pub(crate) direct: bool,
    pub(crate) policy: Policy,
    pub(crate) poll: Duration,
    pub(crate) grace: Duration,
    /// The custodians whose share is sound and of another generation.
    pub(crate) misfits: BTreeSet<usize>,
    /// How far apart the clocks of all parties stay, at most.
    pub(crate) skew: Duration,
    /// The custodians that conduct drills.
    pub(crate) conductors: BTreeSet<usize>,
    /// Whether they read a canary.
    pub(crate) canary: bool,
}

impl Setup {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            custodians: 5,
            threshold: 3,
            nodes: 1,
            broker: true,
            sentinel: true,
            direct: true,
            policy: Policy::default(),
            poll: Duration::from_secs(1),
            grace: Duration::from_secs(120),
            misfits: BTreeSet::new(),
            skew: Duration::ZERO,
            conductors: BTreeSet::new(),
            canary: false,
        }
    }
}

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    Wake { c: usize, token: u64 },
    Net(Packet),
    Report { c: usize, incarnation: u64, n: usize, report: Report },
    Outcome { c: usize, incarnation: u64, attempt: Attempt, outcome: Outcome },
    Joined { n: usize, process: ProcessId },
    Deliver { c: usize, queue: Queue, bytes: Rc<[u8]> },
    Drained { c: usize, incarnation: u64 },
    BrokerConnect { c: usize, incarnation: u64 },
    SentinelSays { n: usize, seen: Seen, cause: Option<Cause>, seen_at: Duration },
    Slot { c: usize, incarnation: u64, bytes: Rc<[u8]> },
    Surveyed { c: usize, incarnation: u64 },
    Seal { c: usize, incarnation: u64, order: SealOrder },
    Exercised { c: usize, incarnation: u64, drill: DrillId, observed: Observed },
}

/// A custodian's machine: what stays when its process ends, and the process.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) boot: u64,
    /// The wall clock's distance from true time, in milliseconds.
    pub(crate) offset: i64,
    pub(crate) synchronised: bool,
    pub(crate) disk: Option<Vec<u8>>,
    pub(crate) disk_ok: bool,
    pub(crate) piece: Piece,
    /// Whether the share store finds the share sound.
    pub(crate) integrity: bool,
    pub(crate) settings: Settings,
    pub(crate) incarnation: u64,
    pub(crate) running: Option<Running>,
    /// The process is killed before it carries out one more output than this.
    pub(crate) crash_in: Option<u32>,
    pub(crate) audit: VecDeque<(Duration, Entry)>,
    /// How often it said of each node that a restart could be proven.
    pub(crate) provable: Vec<u32>,
    /// What its last heartbeat said.
    pub(crate) told: BTreeMap<NodeName, NodeReport>,
    pub(crate) heartbeat: Option<Heartbeat>,
    /// What it said last to each order and approval, and where it said that its share may be.
    pub(crate) acknowledged: BTreeMap<MessageId, (Effect, Vec<NodeName>)>,
    /// It is captured: what it has of others' orders it keeps to itself.
    pub(crate) withholds: bool,
}

/// A custodian's process.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) core: Custodian,
    pub(crate) started: Duration,
    pub(crate) dirty: bool,
    pub(crate) state_ok: bool,
    pub(crate) edges: Vec<Edge>,
    pub(crate) next_ticket: u64,
    pub(crate) connected: bool,
    wake: Option<Duration>,
    wakes: (Duration, u32),
}

/// Everything.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) now: Duration,
    pub(crate) dice: Dice,
    pub(crate) cluster: ClusterId,
    pub(crate) names: Vec<NodeName>,
    pub(crate) people: People,
    pub(crate) hosts: Vec<Host>,
    pub(crate) vaults: Vec<Vault>,
    pub(crate) links: Vec<Vec<Link>>,
    pub(crate) conns: BTreeMap<ConnId, Conn>,
    /// What came to a node's process while it was frozen.
    pub(crate) frozen: Vec<Vec<Packet>>,
    pub(crate) post: Post,
    pub(crate) oracle: Oracle,
    pub(crate) drills: Drills,
    /// How many shares reached a node, since somebody set it to 0.
    pub(crate) submissions: u32,
    pub(crate) next_process: ProcessId,
    pub(crate) next_conn: ConnId,
    pub(crate) next_token: u64,
    /// How far ahead of true time a clock has been, in milliseconds.
    pub(crate) furthest: i64,
    /// True time's wall clock at the beginning.
    beginning: i64,
    queue: BTreeMap<(Duration, u64), Event>,
    seq: u64,
}

/// The cluster's settings as this custodian has them.
fn conducting(c: usize, cluster: &ClusterSettings, setup: &Setup) -> ClusterSettings {
    let conducting = Conducting {
        node: if setup.nodes > 1 { Choice::Rotate } else { Choice::Active },
        min_unsealed: setup.nodes - 1,
        objective: Duration::from_secs(5),
        people_objective: Duration::from_secs(600),
        canary: setup.canary.then(|| "secret/data/canary".parse().expect("a path")),
    };
    ClusterSettings { conducting: setup.conductors.contains(&c).then_some(conducting), ..cluster.clone() }
}

thread_local! {
    /// Events handled in this thread: how much a run did.
    pub(crate) static EVENTS: Cell<u64> = const { Cell::new(0) };
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        let mut dice = Dice::new(setup.seed);
        let people = People::new(setup.custodians);
        let cluster = ClusterId::from_bytes(dice.bytes());
        let names: Vec<NodeName> = (1..=setup.nodes).map(|i| format!("vault-{i}").parse().expect("a name")).collect();
        let node = NodeSettings { direct: setup.direct };
        let mine = ClusterSettings {
            name: "prod".parse().expect("a name"),
            generation: 1,
            shares: setup.custodians as u8,
            threshold: setup.threshold,
            custodians: People::names(&people.custodians),
            operators: People::names(&people.operators),
            restrictors: BTreeSet::from([people.restrictor.name.clone()]),
            sentinels: BTreeSet::from([people.sentinel.name.clone()]),
            conductors: setup.conductors.iter().map(|c| people.custodians[*c].name.clone()).collect(),
            conducting: None,
            policy: setup.policy.clone(),
            poll: setup.poll,
            nodes: names.iter().map(|name| (name.clone(), node)).collect(),
        };
        let hosts = (0..setup.custodians).map(|c| Host {
            boot: 1,
            offset: 0,
            synchronised: true,
            disk: None,
            disk_ok: true,
            piece: Piece { x: c as u8 + 1, fits: !setup.misfits.contains(&c) },
            integrity: true,
            settings: Settings {
                id: people.custodians[c].name.clone(),
                site: None,
                version: "simulated".to_owned(),
                sandbox: SandboxPart::ALL.into(),
                broker_grace: setup.broker.then_some(setup.grace),
                allowed_signers: people.trust().clone(),
                clusters: BTreeMap::from([(cluster, conducting(c, &mine, &setup))]),
            },
            incarnation: 0,
            running: None,
            crash_in: None,
            audit: VecDeque::new(),
            provable: vec![0; setup.nodes],
            told: BTreeMap::new(),
            heartbeat: None,
            acknowledged: BTreeMap::new(),
            withholds: false,
        });
        let vaults =
            names.iter().map(|name| Vault::new(name.to_string(), setup.threshold, setup.custodians as u8)).collect();
        let mut world = Self {
            now: Duration::from_secs(1),
            cluster,
            hosts: hosts.collect(),
            vaults,
            links: (0..setup.custodians).map(|_| (0..setup.nodes).map(|_| Link::new(&mut dice)).collect()).collect(),
            conns: BTreeMap::new(),
            frozen: (0..setup.nodes).map(|_| Vec::new()).collect(),
            post: Post::new(setup.custodians, setup.broker),
            oracle: Oracle::new(setup.custodians, setup.nodes),
            drills: Drills::default(),
            submissions: 0,
            next_process: 1,
            next_conn: 1,
            next_token: 1,
            furthest: 0,
            beginning: BEGINNING,
            queue: BTreeMap::new(),
            seq: 0,
            dice,
            names,
            people,
            setup,
        };
        (0..world.vaults.len()).for_each(|n| world.start_node(n));
        (0..world.hosts.len()).for_each(|c| world.start_custodian(c));
        world
    }

    /// A world in which operators approved the first opening, and everybody sees every node open.
    pub(crate) fn open(setup: Setup) -> Self {
        let mut world = Self::new(setup);
        world.run(Duration::from_millis(300));
        for n in 0..world.vaults.len() {
            world.approve(0, n);
            world.approve(1, n);
        }
        assert!(world.until(60_000, World::all_open), "the first opening\n{}", crate::story::tell());
        assert!(world.until(10_000, World::all_seen_open), "everybody sees it open\n{}", crate::story::tell());
        // Tickets are gathered, and the state of being open is on disk.
        world.run(Duration::from_secs(2));
        world
    }

    // Time.

    pub(crate) fn at(&mut self, at: Duration, event: Event) {
        self.seq += 1;
        self.queue.insert((at.max(self.now), self.seq), event);
    }

    pub(crate) fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.now + wait, event);
    }

    pub(crate) fn run(&mut self, wait: Duration) {
        let end = self.now + wait;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `done` or for that many milliseconds, and says whether it is done.
    pub(crate) fn until(&mut self, limit_ms: u64, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + Duration::from_millis(limit_ms);
        loop {
            if done(self) {
                return true;
            }
            if !self.step(end) {
                self.now = end;
                return done(self);
            }
        }
    }

    fn step(&mut self, end: Duration) -> bool {
        let Some(next) = self.queue.first_entry().filter(|next| next.key().0 <= end) else { return false };
        self.now = next.key().0;
        let event = next.remove();
        EVENTS.set(EVENTS.get() + 1);
        self.handle(event);
        true
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake { c, token } => self.wake(c, token),
            Event::Net(packet) => self.handle_packet(packet),
            Event::Report { c, incarnation, n, report } => {
                if self.hosts[c].incarnation == incarnation {
                    self.report(c, n, report);
                }
            }
            Event::Outcome { c, incarnation, attempt, outcome } => {
                if self.hosts[c].incarnation == incarnation {
                    self.come_back(c, attempt, outcome);
                }
            }
            Event::Joined { n, process } => {
                if self.vaults[n].process.as_ref().is_some_and(|p| p.id == process && p.joining) {
                    let now = self.now;
                    self.vaults[n].open(now);
                    self.node_opened(n);
                }
            }
            Event::Deliver { c, queue, bytes } => self.deliver(c, queue, bytes),
            Event::Drained { c, incarnation } => self.drained(c, incarnation),
            Event::BrokerConnect { c, incarnation } => self.broker_connect(c, incarnation),
            Event::SentinelSays { n, seen, cause, seen_at } => self.sentinel_says(n, seen, cause, seen_at),
            Event::Slot { c, incarnation, bytes } => self.hear_slot(c, incarnation, &bytes),
            Event::Surveyed { c, incarnation } => {
                if self.hosts[c].incarnation == incarnation {
                    self.surveyed(c);
                }
            }
            Event::Seal { c, incarnation, order } => {
                if self.hosts[c].incarnation == incarnation {
                    self.carry_out_seal(c, &order);
                }
            }
            Event::Exercised { c, incarnation, drill, observed } => {
                if self.hosts[c].incarnation == incarnation {
                    self.observe(c, drill, observed);
                }
            }
        }
    }

    pub(crate) fn now_of(&self, c: usize) -> Now {
        let host = &self.hosts[c];
        let started = host.running.as_ref().map_or(self.now, |running| running.started);
        Now { steady: Steady::from_start(self.now - started), wall: self.wall(host.offset) }
    }

    /// Moves everybody's wall clock on, true time's too.
    pub(crate) fn advance_clocks(&mut self, millis: i64) {
        self.beginning += millis;
    }

    pub(crate) fn wall(&self, offset: i64) -> Timestamp {
        self.wall_at(self.now, offset)
    }

    pub(crate) fn wall_at(&self, at: Duration, offset: i64) -> Timestamp {
        Timestamp::from_millis(self.beginning + at.as_millis() as i64 + offset)
    }

    pub(crate) fn fail(&self, what: &str) -> ! {
        let told = |(node, report): (&NodeName, &NodeReport)| format!("{node} {:?} {:?}", report.seen, report.needs);
        let told: Vec<Vec<_>> = self.hosts.iter().map(|host| host.told.iter().map(told).collect()).collect();
        panic!("{what} (at {:.6} s; the last heartbeats: {told:?})", self.now.as_secs_f64());
    }

    // What can be seen from outside.

    pub(crate) fn all_open(&self) -> bool {
        self.vaults.iter().all(Vault::is_open)
    }

    /// Whether every running custodian's kept connection last said that the process that now serves is open.
    pub(crate) fn all_seen_open(&self) -> bool {
        (0..self.vaults.len())
            .all(|n| self.seen_open_by(n) == self.hosts.iter().filter(|h| h.running.is_some()).count())
    }

    pub(crate) fn seen_open_by(&self, n: usize) -> usize {
        let Some(process) = self.vaults[n].process.as_ref().filter(|p| !p.sealed) else { return 0 };
        let sees = |c: &usize| self.hosts[*c].running.is_some() && self.oracle.sees_open(*c, n) == Some(process.id);
        (0..self.hosts.len()).filter(sees).count()
    }

    /// The last cause that a custodian put into its audit log for a node, since then.
    pub(crate) fn cause(&self, c: usize, n: usize, since: Duration) -> Option<Cause> {
        self.hosts[c].audit.iter().rev().take_while(|(at, _)| *at >= since).find_map(|(_, entry)| match entry {
            Entry::Cause { node, cause, .. } if *node == self.names[n] => Some(*cause),
            _ => None,
        })
    }

    pub(crate) fn state_of(&self, c: usize) -> Option<State> {
        self.hosts[c].running.as_ref().map(|running| running.core.state())
    }

    /// Whether a custodian that runs obeys a hold on a node.
    pub(crate) fn obeys_hold(&self, c: usize, n: usize) -> bool {
        let state = self.state_of(c);
        let orders = state.as_ref().and_then(|state| state.orders.get(&self.cluster));
        orders.is_some_and(|orders| orders.holds_on(&self.names[n]).next().is_some())
    }

    pub(crate) fn marked(&self, c: usize, n: usize) -> bool {
        self.state_of(c).is_some_and(|state| !state.clusters[&self.cluster][&self.names[n]].markers.is_empty())
    }

    // Nodes.

    pub(crate) fn start_node(&mut self, n: usize) {
        let id = self.next_process;
        self.next_process += 1;
        note!(self, "{}: process {id} starts", self.vaults[n].name);
        self.vaults[n].start(id);
        let wait = self.dice.millis(2, 40);
        self.sentinel_notes(n, Seen::Sealed, Some(Cause::Restart), wait);
    }

    pub(crate) fn kill_node(&mut self, n: usize) {
        let Some(process) = self.vaults[n].process.take() else { return };
        note!(self, "{}: process {} killed", self.vaults[n].name, process.id);
        self.frozen[n].clear();
        self.close_connections_of(process.id);
        self.eyes_lost(n);
        let wait = self.dice.millis(1, 5);
        self.sentinel_notes(n, Seen::Lost, None, wait);
    }

    pub(crate) fn restart_node(&mut self, n: usize, gap: Duration) {
        self.kill_node(n);
        self.run(gap);
        self.start_node(n);
    }

    /// The node's host loses its power: nobody is told.
    pub(crate) fn power_off(&mut self, n: usize) {
        note!(self, "{}: power lost", self.vaults[n].name);
        self.vaults[n].process = None;
        self.vaults[n].powered = false;
        self.frozen[n].clear();
    }

    /// Somebody with a token seals the node.
    pub(crate) fn seal_node(&mut self, n: usize) {
        if self.vaults[n].process.as_ref().is_none_or(|p| p.frozen) {
            return;
        }
        let busy = self.dice.millis(0, 1500);
        let was_open = self.vaults[n].seal_in_place();
        note!(self, "{}: sealed in place (was open: {was_open})", self.vaults[n].name);
        if let Some(process) = &mut self.vaults[n].process {
            process.busy_until = self.now + busy;
        }
        if was_open {
            self.note_seal(n);
            let wait = self.dice.millis(1, 110);
            self.sentinel_notes(n, Seen::Sealed, Some(Cause::InPlace), wait);
        }
    }

    pub(crate) fn freeze_node(&mut self, n: usize) {
        if let Some(process) = &mut self.vaults[n].process {
            process.frozen = true;
            note!(self, "{}: frozen", self.vaults[n].name);
        }
    }

    pub(crate) fn thaw_node(&mut self, n: usize) {
        let Some(process) = self.vaults[n].process.as_mut().filter(|p| p.frozen) else { return };
        process.frozen = false;
        note!(self, "{}: thawed", self.vaults[n].name);
        for packet in std::mem::take(&mut self.frozen[n]) {
            let wait = self.dice.micros(10, 500);
            self.after(wait, Event::Net(packet));
        }
    }

    pub(crate) fn node_opened(&mut self, n: usize) {
        note!(self, "{}: OPEN", self.vaults[n].name);
        self.eyes_opened(n);
        let wait = self.dice.millis(1, 60);
        self.sentinel_notes(n, Seen::Open, None, wait);
    }

    // Custodians.

    pub(crate) fn start_custodian(&mut self, c: usize) {
        if self.hosts[c].running.is_some() {
            return;
        }
        let seed = self.dice.bytes();
        let nodes = self.vaults.len();
        let wall = self.wall(self.hosts[c].offset);
        let host = &mut self.hosts[c];
        host.incarnation += 1;
        let state = host.disk.as_ref().map_or_else(State::default, |bytes| State::parse(bytes).expect("a sound state"));
        let start = Start {
            boot: BootId(format!("boot-{}", host.boot)),
            clock_synchronised: host.synchronised,
            seed,
            audit: AuditReport { seq: 0, head: "00".repeat(32), ok: true, broken: None },
        };
        let settings = host.settings.clone();
        let now = Now { steady: Steady::default(), wall };
        let (incarnation, sound) = (host.incarnation, host.integrity.then_some(host.piece.x));
        note!(self, "custodian-{}: starts ({incarnation})", c + 1);
        self.hosts[c].running = Some(Running {
            core: Custodian::new(settings, state, start, now),
            started: self.now,
            dirty: false,
            state_ok: true,
            edges: (0..nodes).map(|_| Edge::default()).collect(),
            next_ticket: 1,
            connected: false,
            wake: None,
            wakes: (self.now, 0),
        });
        self.oracle.started(c, self.now, self.hosts[c].boot);
        let cluster = self.cluster;
        self.tell(c, |core, now| core.handle_share(cluster, sound, now));
        let wait = self.dice.millis(5, 200);
        self.after(wait, Event::BrokerConnect { c, incarnation });
    }

    /// `kill -9`.
    pub(crate) fn kill_custodian(&mut self, c: usize) {
        if self.hosts[c].running.take().is_none() {
            return;
        }
        note!(self, "custodian-{}: killed", c + 1);
        self.hosts[c].incarnation += 1;
        self.hosts[c].crash_in = None;
        self.conns.retain(|_, conn| conn.c != c);
        self.oracle.died(c);
        self.pump_slots();
    }

    pub(crate) fn stop_custodian(&mut self, c: usize) {
        if self.hosts[c].running.is_none() {
            return;
        }
        note!(self, "custodian-{}: told to stop", c + 1);
        self.oracle.stopped(c);
        self.tell(c, |core, _| core.handle_stop());
        self.kill_custodian(c);
    }

    pub(crate) fn reboot_host(&mut self, c: usize) {
        self.kill_custodian(c);
        self.hosts[c].boot += 1;
        note!(self, "custodian-{}: its host was rebooted", c + 1);
    }

    pub(crate) fn reload(&mut self, c: usize, renewed: &BTreeSet<(ClusterId, NodeName)>) {
        note!(self, "custodian-{}: reloads, renewed {renewed:?}", c + 1);
        let settings = self.hosts[c].settings.clone();
        let sound = self.hosts[c].integrity.then_some(self.hosts[c].piece.x);
        for n in 0..self.vaults.len() {
            if renewed.contains(&(self.cluster, self.names[n].clone())) {
                self.conns.retain(|_, conn| conn.c != c || conn.n != n || conn.is_release());
                if let Some(running) = &mut self.hosts[c].running {
                    running.edges[n] = Edge::default();
                }
                self.oracle.renewed(c, n);
            }
        }
        let cluster = self.cluster;
        self.tell(c, |core, now| core.reconfigure(settings, renewed, now));
        self.broker_disconnect(c);
        self.tell(c, |core, now| core.handle_share(cluster, sound, now));
        let incarnation = self.hosts[c].incarnation;
        self.after(Duration::from_millis(50), Event::BrokerConnect { c, incarnation });
    }

    /// Tells a custodian something, and carries out what it then wants.
    pub(crate) fn tell<T>(&mut self, c: usize, act: impl FnOnce(&mut Custodian, Now) -> T) -> Option<T> {
        let told = self.tell_quietly(c, act)?;
        self.carry_out_all(c);
        Some(told)
    }

    /// Tells a custodian something, and leaves what it then wants to the caller.
    pub(crate) fn tell_quietly<T>(&mut self, c: usize, act: impl FnOnce(&mut Custodian, Now) -> T) -> Option<T> {
        let now = self.now_of(c);
        let running = self.hosts[c].running.as_mut()?;
        Some(act(&mut running.core, now))
    }

    /// Whether what it last had to save is on disk; `None` where it does not run.
    pub(crate) fn state_ok(&self, c: usize) -> Option<bool> {
        self.hosts[c].running.as_ref().map(|running| running.state_ok)
    }

    fn wake(&mut self, c: usize, token: u64) {
        let now = self.now;
        let host = &mut self.hosts[c];
        let Some(running) = host.running.as_mut().filter(|r| host.incarnation == token && r.wake == Some(now)) else {
            return;
        };
        running.wake = None;
        let (since, wakes) = &mut running.wakes;
        if now - *since > SPIN_WINDOW {
            (*since, *wakes) = (now, 0);
        }
        *wakes += 1;
        if *wakes > SPIN_MAX {
            self.fail(&format!("custodian-{} spins: it wakes up by itself without end", c + 1));
        }
        self.tell(c, |core, now| core.handle_timeout(now));
    }

    pub(crate) fn carry_out_all(&mut self, c: usize) {
        while let Some(output) = self.hosts[c].running.as_mut().and_then(|running| running.core.poll_output()) {
            if self.crashes_now(c) {
                return;
            }
            self.carry_out(c, output);
        }
        if self.hosts[c].running.is_none() || self.crashes_now(c) {
            return;
        }
        self.save_if_dirty(c);
        self.schedule_wake(c);
        self.check_memory(c);
    }

    fn crashes_now(&mut self, c: usize) -> bool {
        match &mut self.hosts[c].crash_in {
            Some(0) => {
                note!(self, "custodian-{}: dies between two steps", c + 1);
                self.kill_custodian(c);
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    fn schedule_wake(&mut self, c: usize) {
        let now = self.now;
        let host = &mut self.hosts[c];
        let Some(running) = &mut host.running else { return };
        let Some(next) = running.core.next_timeout() else { return };
        // Nothing runs faster than this.
        let at = (running.started + next.since_start()).max(now + Duration::from_micros(100));
        if running.wake != Some(at) {
            running.wake = Some(at);
            let token = host.incarnation;
            self.at(at, Event::Wake { c, token });
        }
    }

    fn carry_out(&mut self, c: usize, output: Output) {
        match output {
            Output::Watch { node, action, .. } => {
                if let Some(n) = self.index(&node) {
                    self.act(c, n, action);
                }
            }
            Output::Save => {
                if let Some(running) = &mut self.hosts[c].running {
                    running.dirty = true;
                }
            }
            Output::Audit(entry) => self.append(c, entry),
            Output::Publish { content, .. } => {
                if matches!(content, Content::Acknowledgement(_) | Content::DrillReport(_)) {
                    self.save_if_dirty(c);
                    if self.hosts[c].running.as_ref().is_some_and(|running| !running.state_ok) {
                        return;
                    }
                }
                self.publish(c, content);
            }
            Output::Release(order) => {
                let Some(n) = self.index(&order.attempt().node) else { return };
                note!(self, "custodian-{}: releases to vault-{}, {:?}", c + 1, n + 1, order.authority.grounds());
                self.save_if_dirty(c);
                self.check_order(c, n, &order);
                if self.hosts[c].running.as_ref().is_some_and(|running| !running.state_ok) {
                    let attempt = order.attempt().clone();
                    let outcome = Outcome::Refused { lock: Lock::Record, why: "the disk is full".to_owned() };
                    let incarnation = self.hosts[c].incarnation;
                    return self.after(Duration::ZERO, Event::Outcome { c, incarnation, attempt, outcome });
                }
                self.begin_release(c, n, order);
            }
            Output::RestartProvable { node, .. } => {
                note!(self, "custodian-{}: could prove a restart of {node}", c + 1);
                if let Some(n) = self.index(&node) {
                    self.hosts[c].provable[n] += 1;
                }
            }
            Output::Announce { header, intent } => {
                self.save_if_dirty(c);
                if self.state_ok(c) == Some(true) {
                    self.announce(c, header, intent);
                }
            }
            Output::Survey { .. } => self.survey(c),
            Output::Seal(order) => {
                self.save_if_dirty(c);
                self.begin_seal(c, order);
            }
            Output::Unwatch(drill) => self.unwatch(drill),
            Output::Settled { slot, .. } => {
                self.save_if_dirty(c);
                if self.state_ok(c) == Some(true) {
                    self.settle(c, &slot);
                }
            }
            Output::Reset { node, .. } => {
                if let Some(n) = self.index(&node) {
                    note!(self, "custodian-{}: resets vault-{}", c + 1, n + 1);
                    self.begin_reset(c, n);
                }
            }
        }
    }

    pub(crate) fn index(&self, node: &NodeName) -> Option<usize> {
        self.names.iter().position(|name| name == node)
    }

    fn save_if_dirty(&mut self, c: usize) {
        let host = &mut self.hosts[c];
        let Some(running) = host.running.as_mut().filter(|running| running.dirty) else { return };
        running.state_ok = host.disk_ok;
        if host.disk_ok {
            host.disk = Some(running.core.state().to_json());
            running.dirty = false;
            self.oracle.saved(c);
        }
    }

    fn append(&mut self, c: usize, entry: Entry) {
        note!(self, "custodian-{}: audit {}", c + 1, serde_json::to_string(&entry).unwrap_or_default());
        self.check_entry(c, &entry);
        let audit = &mut self.hosts[c].audit;
        if audit.len() == 500 {
            audit.pop_front();
        }
        audit.push_back((self.now, entry));
    }

    fn come_back(&mut self, c: usize, attempt: Attempt, outcome: Outcome) {
        note!(self, "custodian-{}: release came back: {outcome:?}", c + 1);
        let before = self.last_open(c, &attempt.node);
        let node = attempt.node.clone();
        self.tell(c, |core, now| core.handle_release(&attempt, outcome, now));
        let after = self.last_open(c, &node);
        if let Some(n) = self.index(&node)
            && before != after
        {
            self.oracle_opened_myself(c, n);
            if self.hosts[c].running.as_ref().is_some_and(|running| !running.dirty && running.state_ok) {
                self.oracle.saved(c);
            }
        }
    }

    fn last_open(&self, c: usize, node: &NodeName) -> Option<Timestamp> {
        let state = self.state_of(c)?;
        state.clusters.get(&self.cluster)?.get(node)?.last_open.as_ref().map(|open| open.at)
    }
}
