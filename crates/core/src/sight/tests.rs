//! One pair of eyes before one scripted node: each line of the table of causes, and each thing that proves nothing.

use std::collections::BTreeMap;

use super::*;
use crate::seal_status::SealKind;

const SECOND: Duration = Duration::from_secs(1);

/// A sight, and a node that answers it: one process at a time, which may be open, or hang, or be away.
struct Scene {
    sight: Sight,
    at: Duration,
    process: u32,
    open: bool,
    reachable: bool,
    /// Whether the host says so when nobody listens.
    refuses: bool,
    /// How many tickets the node gives out on each connection.
    gives: usize,
    /// Which process each ticket is of. A ticket that was offered or thrown away is gone.
    tickets: BTreeMap<TicketId, u32>,
    next_ticket: TicketId,
    kept: Option<ConnectionId>,
    observed: Vec<Observation>,
    polls: usize,
    sides: usize,
    /// How many tickets were declined on connections that were kept.
    at_the_door: usize,
}

fn status(open: bool) -> SealStatus {
    let kind = SealKind::Shamir;
    SealStatus { initialized: true, sealed: !open, kind, threshold: 3, shares: 5, progress: 0, nonce: String::new() }
}

impl Scene {
    fn new(direct: bool) -> Self {
        let watch = Watch { direct, poll: SECOND, knock: SECOND / 5 };
        let at = Duration::ZERO;
        Self {
            sight: Sight::new(watch, now(at)),
            at,
            process: 1,
            open: false,
            reachable: true,
            refuses: false,
            gives: 1,
            tickets: BTreeMap::new(),
            next_ticket: 1,
            kept: None,
            observed: Vec::new(),
            polls: 0,
            sides: 0,
            at_the_door: 0,
        }
    }

    /// A node that is open, and of which enough tickets were gathered.
    fn open(direct: bool) -> Self {
        let mut scene = Self::new(direct);
        scene.open = true;
        scene.run(SECOND * 3);
        assert_eq!(scene.sight.seen(), Seen::Open);
        scene.observed.clear();
        scene
    }

    fn now(&self) -> Now {
        now(self.at)
    }

    /// Lets time pass, and answers everything at once.
    fn run(&mut self, wait: Duration) {
        let end = self.at + wait;
        loop {
            self.answer();
            match self.sight.next_timeout() {
                Some(next) if next.since_start() <= end => {
                    assert!(next.since_start() > self.at || self.sight.next_timeout() <= Some(self.now().steady));
                    self.at = self.at.max(next.since_start());
                    let now = self.now();
                    self.sight.handle_timeout(now);
                }
                _ => break,
            }
        }
        self.at = end;
    }

    fn answer(&mut self) {
        while let Some(action) = self.sight.poll_action() {
            self.act(action);
        }
        while let Some(observation) = self.sight.poll_observation() {
            self.observed.push(observation);
        }
    }

    fn act(&mut self, action: Action) {
        let now = self.now();
        match action {
            Action::Open(id, None) if self.reachable => {
                self.kept = Some(id);
                self.sight.handle_identity(now);
                self.give_tickets();
                self.sight.handle_status(id, status(self.open), now);
            }
            Action::Poll(id) if self.reachable && self.kept == Some(id) => {
                self.polls += 1;
                self.sight.handle_status(id, status(self.open), now);
            }
            Action::Open(id, offer) if self.reachable => self.open_offering(id, offer.expect("the other arm")),
            Action::Open(id, _) if self.refuses => self.sight.handle_refused(id, now),
            Action::Open(id, _) | Action::Poll(id) => {
                self.kept = None;
                self.sight.handle_lost(id, now);
            }
            Action::Side(offer) => {
                self.sides += 1;
                let process = offer.map(|id| self.tickets.remove(&id).expect("one that was not offered before"));
                let outcome = match process {
                    _ if !self.reachable => Side::Failed,
                    Some(process) if process == self.process => Side::Resumed { sealed: Some(!self.open) },
                    _ => Side::Full { offered: offer.is_some() },
                };
                if self.reachable {
                    self.give_tickets();
                }
                self.sight.handle_side(outcome, now);
            }
            Action::Discard(id) => drop(self.tickets.remove(&id)),
        }
    }

    fn open_offering(&mut self, id: ConnectionId, offer: TicketId) {
        let now = self.now();
        let process = self.tickets.remove(&offer).expect("one that was not offered before");
        if process == self.process {
            return self.sight.handle_lost(id, now);
        }
        self.at_the_door += 1;
        self.kept = Some(id);
        self.sight.handle_identity(now);
        self.sight.handle_declined(id);
        self.give_tickets();
        self.sight.handle_status(id, status(self.open), now);
    }

    fn give_tickets(&mut self) {
        for _ in 0..self.gives {
            let id = self.next_ticket;
            self.next_ticket += 1;
            self.tickets.insert(id, self.process);
            self.sight.handle_ticket(id, self.now());
        }
    }

    /// The kept connection breaks.
    fn lose(&mut self) {
        if let Some(id) = self.kept.take() {
            self.sight.handle_lost(id, self.now());
        }
    }

    fn restart(&mut self) {
        (self.process, self.open) = (self.process + 1, false);
        self.lose();
    }

    /// Answers until a ticket is offered, and gives it.
    fn until_offered(&mut self) -> TicketId {
        for _ in 0..3_000 {
            while let Some(action) = self.sight.poll_action() {
                match action {
                    Action::Side(Some(ticket)) => {
                        self.tickets.remove(&ticket);
                        return ticket;
                    }
                    action => self.act(action),
                }
            }
            self.at = self.at.max(self.sight.next_timeout().expect("there is always a next look").since_start());
            let now = self.now();
            self.sight.handle_timeout(now);
        }
        panic!("no ticket was offered");
    }

    fn evidence(&self) -> Option<Evidence> {
        self.sight.evidence()
    }
}

fn now(at: Duration) -> Now {
    let wall = Timestamp::from_millis(1_795_341_600_000).after(at);
    Now { steady: Steady::from_start(at), wall }
}

#[test]
fn a_node_never_seen_open_proves_nothing() {
    let mut scene = Scene::new(true);
    scene.run(SECOND);
    assert_eq!(scene.evidence(), Some(Evidence::NeverOpen));
    scene.restart();
    scene.run(SECOND * 5);
    assert_eq!(scene.evidence(), Some(Evidence::NeverOpen), "however often it is restarted");
}

#[test]
fn two_declined_tickets_prove_a_restart() {
    let mut scene = Scene::open(true);
    assert_eq!(scene.tickets.len(), TICKETS_KEPT);
    scene.restart();
    scene.run(SECOND);
    assert_eq!(scene.evidence(), Some(Evidence::Restart));
    scene.open = true;
    scene.run(SECOND * 3);
    assert_eq!((scene.evidence(), scene.sight.seen()), (None, Seen::Open), "the incident is over");
    assert!(scene.tickets.values().all(|process| *process == 2), "nothing of before is left");
}

#[test]
fn a_node_that_is_being_opened_is_not_asked_for_tickets() {
    let mut scene = Scene::open(true);
    let before = scene.sides;
    scene.restart();
    scene.run(ATTENTION / 2);
    assert_eq!(scene.evidence(), Some(Evidence::Restart));
    assert_eq!(scene.sides - before, usize::from(DECLINES_THAT_PROVE), "only the proofs");
    let own = scene.sight.tickets.iter().filter(|ticket| Some(ticket.epoch) == scene.kept).count();
    assert!(own >= usize::from(DECLINES_THAT_PROVE), "which brought enough to prove the next restart with");
    scene.run(ATTENTION);
    let own = scene.sight.tickets.iter().filter(|ticket| Some(ticket.epoch) == scene.kept).count();
    assert_eq!(own, TICKETS_KEPT, "where it stays sealed, the rest follows");
}

#[test]
fn a_crash_within_a_poll_of_the_opening_is_told_from_a_seal() {
    let mut scene = Scene::new(true);
    scene.open = true;
    // Tickets are confirmed as they come, not when the next poll is due.
    scene.run(SECOND / 10);
    scene.restart();
    scene.run(SECOND / 2);
    assert_eq!(scene.evidence(), Some(Evidence::Restart));
}

#[test]
fn a_restart_is_provable_when_enough_tickets_of_the_open_process_are_kept_and_not_before() {
    let mut scene = Scene::open(true);
    let provable = |scene: &Scene| scene.sight.restart_provable(scene.now());
    assert!(provable(&scene));
    assert!(!scene.sight.restart_provable(now(scene.at + TICKET_AGE_MAX + SECOND)), "old ones prove nothing");

    // Contact is lost for a moment. Whether it is the same process as before, nobody knows: its tickets speak for it no more.
    scene.lose();
    assert!(provable(&scene), "the process that was seen open may still be told from another");
    let mut step = 0;
    while scene.sight.seen() != Seen::Open {
        scene.at = scene.sight.next_timeout().expect("there is always a next look").since_start();
        let now = scene.now();
        scene.sight.handle_timeout(now);
        let open = scene.sight.poll_action().expect("a look");
        scene.act(open);
        step += 1;
        assert!(step < 10, "the node answers");
    }
    assert!(!provable(&scene), "seen open anew, and no ticket of this stretch of contact is confirmed yet");
    scene.run(SECOND);
    assert!(provable(&scene));

    assert!(!provable(&Scene::open(false)), "somebody stands between");
    let mut without = Scene::new(true);
    (without.open, without.gives) = (true, 0);
    without.run(SECOND * 3);
    assert!(without.sight.seen() == Seen::Open && !provable(&without), "a server that gives no tickets");
}

#[test]
fn one_declined_ticket_proves_nothing() {
    let mut scene = Scene::open(true);
    scene.restart();
    scene.until_offered();
    scene.sight.handle_side(Side::Full { offered: true }, scene.now());
    assert_eq!(scene.evidence(), None);
    for _ in 1..TICKETS_KEPT {
        scene.until_offered();
        scene.sight.handle_side(Side::Failed, scene.now());
    }
    assert_eq!(scene.evidence(), Some(Evidence::Nothing), "the others were spent on connects that failed");
}

#[test]
fn tickets_that_were_not_offered_prove_nothing() {
    let mut scene = Scene::open(true);
    scene.restart();
    for _ in 0..TICKETS_KEPT {
        assert_eq!(scene.evidence(), None);
        scene.until_offered();
        scene.sight.handle_side(Side::Full { offered: false }, scene.now());
    }
    assert_eq!(scene.evidence(), Some(Evidence::Nothing));
}

#[test]
fn a_seal_in_place_is_seen_with_or_without_loss_of_contact() {
    let mut scene = Scene::open(true);
    scene.open = false;
    scene.run(SECOND);
    assert_eq!(scene.evidence(), Some(Evidence::InPlace), "on the same connection");

    let mut scene = Scene::open(true);
    scene.open = false;
    scene.lose();
    scene.run(SECOND);
    assert_eq!(scene.evidence(), Some(Evidence::InPlace), "by a ticket that resumes");

    let mut scene = Scene::open(true);
    scene.open = false;
    scene.lose();
    scene.until_offered();
    scene.sight.handle_side(Side::Full { offered: true }, scene.now());
    scene.run(SECOND);
    assert_eq!(scene.evidence(), Some(Evidence::InPlace), "one that resumes outweighs one that was declined");
}

#[test]
fn no_ticket_is_spent_while_the_node_does_not_answer() {
    let mut scene = Scene::open(true);
    (scene.reachable, scene.open) = (false, false);
    scene.lose();
    scene.run(SECOND * 600);
    assert_eq!(scene.tickets.len(), TICKETS_KEPT);
    assert_eq!(scene.evidence(), None);
    scene.reachable = true;
    scene.run(SECOND * 2);
    assert_eq!(scene.evidence(), Some(Evidence::InPlace));
}

/// A node that was open, whose process is gone: its host says that nobody listens.
fn gone() -> Scene {
    let mut scene = Scene::open(true);
    (scene.reachable, scene.refuses, scene.open) = (false, true, false);
    scene.lose();
    scene.run(SECOND / 4);
    assert!(scene.sight.seen() == Seen::Lost && scene.sight.restart_provable(scene.now()));
    scene
}

#[test]
fn where_nobody_listened_the_first_ticket_is_offered_at_the_door() {
    let mut scene = gone();
    let sides = scene.sides;
    (scene.process, scene.reachable) = (2, true);
    scene.run(SECOND);
    assert_eq!(scene.evidence(), Some(Evidence::Restart));
    assert_eq!((scene.at_the_door, scene.sides - sides), (1, 1), "two handshakes in all, and two tickets");
    let sealed = scene.observed.iter().position(|o| *o == Observation::Sealed);
    let proven = scene.observed.iter().position(|o| *o == Observation::Evidence(Evidence::Restart));
    assert!(sealed < proven, "{:?}", scene.observed);
}

#[test]
fn one_ticket_declined_at_the_door_proves_nothing() {
    let mut scene = gone();
    (scene.process, scene.reachable) = (2, true);
    scene.until_offered();
    scene.sight.handle_side(Side::Failed, scene.now());
    assert_eq!((scene.at_the_door, scene.evidence()), (1, None));
    for _ in 2..TICKETS_KEPT {
        scene.until_offered();
        scene.sight.handle_side(Side::Full { offered: false }, scene.now());
    }
    assert_eq!(scene.evidence(), Some(Evidence::Nothing));
}

#[test]
fn a_refused_connection_spends_no_ticket() {
    let mut scene = gone();
    scene.run(SECOND * 600);
    assert_eq!((scene.tickets.len(), scene.at_the_door), (TICKETS_KEPT, 0));
    assert!(scene.sight.restart_provable(scene.now()));
}

#[test]
fn the_process_of_before_at_the_door_is_told_by_another_ticket() {
    let mut scene = gone();
    scene.reachable = true;
    scene.run(SECOND);
    assert_eq!((scene.evidence(), scene.at_the_door), (Some(Evidence::InPlace), 0));

    let mut scene = gone();
    (scene.reachable, scene.open) = (true, true);
    scene.run(SECOND);
    assert_eq!((scene.evidence(), scene.sight.seen()), (None, Seen::Open));
}

#[test]
fn a_process_that_takes_connections_and_hangs_does_not_get_every_ticket() {
    let mut scene = gone();
    scene.refuses = false;
    // One goes to whoever takes the connection first, and no more to somebody who does not answer.
    scene.run(SECOND * 60);
    assert_eq!(scene.tickets.len(), TICKETS_KEPT - 1);
    (scene.process, scene.reachable) = (2, true);
    scene.run(SECOND * 2);
    assert_eq!((scene.evidence(), scene.at_the_door), (Some(Evidence::Restart), 0));
}

#[test]
fn the_last_two_tickets_are_enough_and_a_single_one_stays_for_a_seal() {
    for (left, at_the_door, evidence) in [(2, 1, Evidence::Restart), (1, 0, Evidence::Nothing)] {
        let mut scene = gone();
        scene.sight.tickets.truncate(left);
        (scene.process, scene.reachable) = (2, true);
        scene.run(SECOND);
        assert_eq!((scene.at_the_door, scene.evidence()), (at_the_door, Some(evidence)), "{left} left");
    }
}

#[test]
fn a_node_that_is_away_is_knocked_at_by_how_long_it_has_been() {
    let mut scene = Scene::open(true);
    (scene.reachable, scene.refuses) = (false, true);
    scene.lose();
    let lost = scene.at;
    let mut before = None;
    while scene.at < lost + SECOND * 50 {
        scene.answer();
        scene.at = scene.sight.next_timeout().expect("a knock").since_start();
        let wait = scene.at - before.replace(scene.at).unwrap_or(lost);
        assert!(wait <= ((scene.at - lost) / KNOCK_PART).max(KNOCK_MIN).min(SECOND / 5), "{wait:?}");
        assert!(wait >= KNOCK_MIN || scene.at == lost, "{wait:?}");
        let now = scene.now();
        scene.sight.handle_timeout(now);
    }
}

#[test]
fn a_node_that_just_opened_is_asked_for_no_more_tickets_than_prove_its_restart() {
    let mut scene = gone();
    (scene.process, scene.reachable) = (2, true);
    scene.run(SECOND);
    scene.open = true;
    let of_kept = |scene: &Scene| scene.sight.tickets.iter().filter(|t| Some(t.epoch) == scene.kept).count();
    while scene.sight.seen() != Seen::Open {
        scene.run(LOOK_MIN);
    }
    let sides = scene.sides;
    assert!(scene.sight.restart_provable(scene.now()) && of_kept(&scene) < TICKETS_KEPT);
    scene.run(SETTLING / 2);
    assert_eq!(scene.sides, sides, "its clients wait for it");
    scene.run(SETTLING);
    assert_eq!(of_kept(&scene), TICKETS_KEPT);
}

#[test]
fn old_tickets_prove_nothing() {
    for (wait, evidence) in [(23, Evidence::Restart), (25, Evidence::Nothing)] {
        let mut scene = Scene::open(true);
        scene.reachable = false;
        scene.lose();
        scene.answer();
        scene.at += SECOND * 3600 * wait;
        (scene.process, scene.reachable, scene.open) = (2, true, false);
        scene.run(SECOND * 2);
        assert_eq!(scene.evidence(), Some(evidence), "{wait} hours");
    }
}

#[test]
fn behind_a_proxy_nothing_is_proven() {
    let mut scene = Scene::open(false);
    scene.open = false;
    scene.run(SECOND);
    assert_eq!(scene.evidence(), Some(Evidence::Nothing), "a seal");
    let mut scene = Scene::open(false);
    scene.restart();
    scene.run(SECOND);
    assert_eq!(scene.evidence(), Some(Evidence::Nothing), "a restart");
}

#[test]
fn several_processes_behind_one_address_are_found_and_then_prove_nothing() {
    let mut scene = Scene::open(true);
    let offered = scene.until_offered();
    assert!(offered > 0 && scene.at >= REFRESH, "the oldest is spent on a look");
    scene.sight.handle_side(Side::Full { offered: true }, scene.now());
    assert!(!scene.sight.shared_address(), "the kept connection must answer once more");
    scene.run(SECOND);
    assert!(scene.sight.shared_address());
    assert!(scene.observed.contains(&Observation::SharedAddress));
    scene.restart();
    scene.run(SECOND);
    assert_eq!(scene.evidence(), Some(Evidence::Nothing));
}

#[test]
fn a_restart_during_the_look_is_no_shared_address() {
    let mut scene = Scene::open(true);
    scene.until_offered();
    scene.process += 1;
    scene.open = false;
    scene.sight.handle_side(Side::Full { offered: true }, scene.now());
    scene.lose();
    scene.run(SECOND);
    assert!(!scene.sight.shared_address());
    assert_eq!(scene.evidence(), Some(Evidence::Restart), "three tickets are left");
}

#[test]
fn tickets_of_a_later_process_speak_for_nobody() {
    // The process is gone and the news of it is lost; a connection beside the dead one brings a ticket of the next process.
    let mut scene = Scene::open(true);
    scene.process = 2;
    scene.give_tickets();
    scene.open = false;
    scene.lose();
    scene.run(SECOND);
    assert_eq!(scene.evidence(), Some(Evidence::Restart), "it must not be offered as one of the process that was open");
}

#[test]
fn tickets_of_before_speak_for_no_later_process() {
    // Open, lost, another process that is open too, lost: the first one's tickets would be declined by the second.
    let mut scene = Scene::open(true);
    let of_first: Vec<_> = scene.tickets.keys().copied().collect();
    scene.gives = 0;
    scene.process = 2;
    scene.lose();
    scene.run(SECOND);
    assert_eq!(scene.sight.seen(), Seen::Open);
    assert!(of_first.iter().all(|id| !scene.tickets.contains_key(id)));
    scene.open = false;
    scene.lose();
    scene.run(SECOND);
    assert_eq!(scene.evidence(), Some(Evidence::Nothing));
}

#[test]
fn told_open_the_same_process_sealed_again_is_a_seal_in_place() {
    let mut scene = Scene::open(true);
    scene.restart();
    scene.run(SECOND);
    assert_eq!(scene.evidence(), Some(Evidence::Restart));
    let now = scene.now();
    scene.sight.told_open(true, true, now);
    assert_eq!(scene.evidence(), None);
    scene.run(SECOND);
    assert_eq!(scene.evidence(), Some(Evidence::InPlace));
}

#[test]
fn an_answer_under_way_when_it_is_told_open_counts_for_nothing() {
    let mut scene = Scene::open(true);
    scene.restart();
    scene.run(SECOND);
    let poll = loop {
        scene.at = scene.sight.next_timeout().expect("a next look").since_start();
        let now = scene.now();
        scene.sight.handle_timeout(now);
        match scene.sight.poll_action() {
            Some(Action::Poll(id)) => break id,
            Some(action) => scene.act(action),
            None => {}
        }
    };
    let now = scene.now();
    scene.sight.told_open(true, true, now);
    scene.sight.handle_status(poll, status(false), now);
    assert_eq!(scene.evidence(), None, "it may be from before");
    scene.open = true;
    scene.run(SECOND);
    assert_eq!(scene.sight.seen(), Seen::Open);
}

#[test]
fn told_open_some_process_sealed_again_proves_nothing() {
    for restarted in [false, true] {
        let mut scene = Scene::open(true);
        scene.restart();
        scene.run(SECOND);
        let now = scene.now();
        scene.sight.told_open(false, true, now);
        if restarted {
            scene.restart();
        }
        scene.run(SECOND);
        assert_eq!(scene.evidence(), Some(Evidence::Nothing), "restarted {restarted}");
    }
}

#[test]
fn lies_about_openings_cost_no_proof_of_the_next_restart() {
    let mut scene = Scene::open(true);
    scene.open = false;
    for _ in 0..4 * GATHER_MAX {
        scene.run(SECOND * 12);
        let now = scene.now();
        scene.sight.told_open(false, false, now);
    }
    scene.open = true;
    scene.run(SECOND * 3);
    assert!(scene.sight.restart_provable(scene.now()), "nobody gathered tickets for the process that is open");
}

#[test]
fn told_of_a_missed_incident_older_tickets_prove_nothing() {
    let mut scene = Scene::open(true);
    let now = scene.now();
    scene.sight.told_missed(now);
    scene.restart();
    scene.run(SECOND);
    assert_eq!(scene.evidence(), Some(Evidence::Nothing));

    let mut scene = Scene::open(true);
    let now = scene.now();
    scene.sight.told_missed(now);
    scene.run(SECOND);
    assert_eq!(scene.sight.seen(), Seen::Open, "seen open once more, by the same process");
    scene.restart();
    scene.run(SECOND);
    assert_eq!(scene.evidence(), Some(Evidence::Restart));
}

#[test]
fn late_answers_of_other_connections_count_for_nothing() {
    let mut scene = Scene::open(true);
    let first = scene.kept.expect("it is up");
    scene.restart();
    scene.run(SECOND);
    let now = scene.now();
    scene.sight.handle_status(first, status(true), now);
    scene.sight.handle_lost(first, now);
    scene.sight.handle_side(Side::Resumed { sealed: Some(true) }, now);
    assert_eq!((scene.sight.seen(), scene.evidence()), (Seen::Sealed, Some(Evidence::Restart)));
}

#[test]
fn a_flood_of_news_is_no_flood_of_questions() {
    let mut scene = Scene::open(true);
    scene.polls = 0;
    for _ in 0..10_000 {
        scene.at += Duration::from_micros(100);
        let now = scene.now();
        scene.sight.attend(now);
        scene.run(Duration::ZERO);
    }
    assert!(scene.polls <= 201, "{} questions in a second", scene.polls);
}

#[test]
fn tickets_are_kept_up_to_a_limit_whoever_gives_them() {
    let mut scene = Scene::open(true);
    for _ in 0..1_000 {
        scene.give_tickets();
        scene.answer();
    }
    assert_eq!(scene.tickets.len(), TICKETS_KEPT);
    // Neither does a node that goes up and down, or one that gives none.
    for _ in 0..100 {
        scene.restart();
        scene.run(SECOND);
        assert!(scene.tickets.len() <= 2 * TICKETS_KEPT);
    }
    let mut scene = Scene::new(true);
    (scene.open, scene.gives) = (true, 0);
    scene.run(REFRESH / 2);
    assert!(scene.sides <= GATHER_MAX, "it is not asked for ever: {}", scene.sides);
}

#[test]
fn a_node_that_is_away_is_knocked_at_less_and_less() {
    let mut scene = Scene::open(true);
    scene.reachable = false;
    scene.lose();
    let knocks = |scene: &mut Scene, wait: Duration| {
        let before = scene.sight.next_connection;
        scene.run(wait);
        scene.sight.next_connection - before
    };
    assert!(knocks(&mut scene, SECOND * 10) >= 45, "fast at first");
    scene.run(KNOCKING);
    assert!(knocks(&mut scene, SECOND * 100) <= 101, "then as often as it is polled");
}
