//! The tour: seven claims, each tried on the running lab, and seen to hold by looking at the nodes themselves.
//!
//! Every wait here has a condition and a deadline, and every time that is told was measured.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use holdfast_core::cause::Cause;
use holdfast_core::id::{ClusterName, NodeName};
use holdfast_core::message::Needs;
use holdfast_core::status::{IncidentStatus, Status};
use holdfast_core::time::Timestamp;
use holdfast_core::verdict::{Verdict, headline};
use holdfast_edge::audit::AUDIT_FILE;
use holdfast_edge::{clock, tls};
use serde::Deserialize;
use tokio::time::sleep;
use zeroize::Zeroizing;

use super::eye::{self, Eye, Look, Watch};
use super::screen::{Screen, clock as shown};
use super::sockets::{self, Sockets};
use super::{Seen, THRESHOLD};
use crate::lab::assembly::{Assembly, StepError};
use crate::lab::file::LabFile;
use crate::lab::process::Started;
use crate::lab::tools::{CommandError, Line, reported};
use crate::operator::Operator;
use crate::status;

/// What is claimed, in the order in which it is tried.
pub(crate) const CLAIMS: [&str; 7] = [
    "A crashed node opens by itself",
    "Also without broker and two custodians",
    "Sealed by hand, it stays sealed",
    "Too few custodians open nothing",
    "A drill shows that the keys are there",
    "No drill while somebody holds a node",
    "Nobody listens on a custodian",
];

/// How long a node may take to open. It takes a fraction of a second; a machine that is busy with other things gets more.
const OPENS_WITHIN: Duration = Duration::from_secs(15);
/// How long a server may take from its start to its first answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);
/// How long a node is watched staying sealed, each time.
const WATCHED: Duration = Duration::from_secs(5);
/// How long the sentinel may take to hear of something: heartbeats come every 10 s, and three missing make a custodian absent.
const HEARD_WITHIN: Duration = Duration::from_secs(60);
/// How long RabbitMQ may take to start and everybody to be connected again.
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// How long the custodians' audit logs may take to tell what is already seen.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);
/// The time between two looks at a node: the error of what is measured.
const LOOK: Duration = Duration::from_millis(4);
/// The time between two looks at a node that is to stay as it is.
const CALM_LOOK: Duration = Duration::from_millis(50);
/// The time between two questions to the sentinel.
const ASK: Duration = Duration::from_millis(500);
/// How long a node may take to be sealed.
const SEAL_PATIENCE: Duration = Duration::from_secs(30);

/// A claim that did not hold, or could not be tried: why, for people.
#[derive(Debug)]
pub(crate) struct NotHeld(pub(crate) String);

impl From<StepError> for NotHeld {
    fn from(error: StepError) -> Self {
        Self(error.to_string())
    }
}

impl From<CommandError> for NotHeld {
    fn from(error: CommandError) -> Self {
        Self(error.to_string())
    }
}

impl From<std::io::Error> for NotHeld {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<anyhow::Error> for NotHeld {
    fn from(error: anyhow::Error) -> Self {
        Self(format!("{error:#}"))
    }
}

/// The tour through a running lab.
pub(crate) struct Tour<'a> {
    lab: &'a mut Assembly,
    screen: &'a mut Screen,
    file: LabFile,
    cluster: ClusterName,
    sentinel: String,
    eyes: BTreeMap<String, Eye>,
    /// The sockets that there were before the lab.
    before: Sockets,
}

/// What `hold` reports of itself, as far as its end needs it.
#[derive(Deserialize)]
struct Ordered {
    id: String,
}

/// When a node was first seen to answer again, and when it was open, both from the beginning of what was done to it.
#[derive(Clone, Copy)]
struct Opening {
    answered: Duration,
    open: Duration,
}

impl Opening {
    fn sealed_for(self) -> Duration {
        self.open.saturating_sub(self.answered)
    }
}

impl<'a> Tour<'a> {
    /// Gets ready to look at every node.
    pub(crate) fn new(
        lab: &'a mut Assembly,
        screen: &'a mut Screen,
        file: LabFile,
        before: Sockets,
    ) -> Result<Self, NotHeld> {
        let operator_config = lab.journal.layout.operator_config();
        let operator = Operator::load(&operator_config).map_err(|e| NotHeld(e.to_string()))?;
        let (name, cluster) = operator.cluster(None)?;
        let eyes = cluster.nodes.iter().map(|(name, node)| (name.to_string(), Eye::new(&node.identity))).collect();
        let sentinel = cluster.sentinel.clone().context("the lab's operator.toml names no sentinel")?;
        Ok(Self { lab, screen, file, cluster: name.clone(), sentinel, eyes, before })
    }

    /// Tries one claim.
    pub(crate) async fn step(&mut self, number: usize) -> Result<Seen, NotHeld> {
        self.screen.step(number + 1, CLAIMS.get(number).copied().unwrap_or_default());
        let tried = match number {
            0 => self.a_crash().await,
            1 => self.a_crash_without_the_broker().await,
            2 => self.a_seal_by_hand().await,
            3 => self.too_few().await,
            4 => self.a_drill().await,
            5 => self.a_drill_under_a_hold().await,
            _ => self.nobody_listens(),
        };
        match &tried {
            Ok(seen) => self.screen.verdict(true, &seen.words),
            Err(NotHeld(why)) => self.screen.verdict(false, why.lines().next().unwrap_or_default()),
        }
        tried
    }

    async fn a_crash(&mut self) -> Result<Seen, NotHeld> {
        let node = "vault-2";
        self.screen.claim("Custodians notice by themselves that a node crashed, prove that it did, and open it.");
        self.screen.does(&format!("kill -9 {}, and start it again with its own command line", self.named(node)));
        let (began, since) = (Instant::now(), clock::wall());
        self.crash(node, began).await?;
        let opening = self.opens(node, began, None).await?;
        let who = self.who_submitted(node, since).await?;
        self.screen.saw(&format!("{} submitted, each its own share", custodians(&who)));
        let heard = |status: &Status| over(status, node, since).is_some();
        let status = self.told(HEARD_WITHIN, "the sentinel sees the end of the incident", heard).await?;
        let cause = over(&status, node, since).and_then(|incident| incident.cause).unwrap_or(Cause::Unknown);
        let proof = "the new process declined the TLS tickets of the old one";
        self.screen.saw(&if cause == Cause::Restart {
            format!("cause: {cause}; {proof}")
        } else {
            format!("cause: {cause}")
        });
        Ok(Seen {
            words: format!("It opened {} after its first answer.", shown(opening.sealed_for())),
            short: format!("open after {}", shown(opening.sealed_for())),
            measured: vec![
                ("first_answer", opening.answered),
                ("open", opening.open),
                ("sealed", opening.sealed_for()),
            ],
        })
    }

    async fn a_crash_without_the_broker(&mut self) -> Result<Seen, NotHeld> {
        let (node, gone) = ("vault-3", ["custodian-4", "custodian-5"]);
        self.screen.claim("The broker makes custodians faster and is not needed: each polls the nodes itself.");
        self.screen.does(&format!("kill -9 RabbitMQ, {} and {}", gone[0], gone[1]));
        let mut recipes = Vec::new();
        for name in ["broker"].iter().chain(&gone) {
            recipes.push(self.lab.crash(name)?);
        }
        self.broker_is_dead()?;
        self.screen.does(&format!("kill -9 {}, and start it again", self.named(node)));
        let (began, since) = (Instant::now(), clock::wall());
        self.crash(node, began).await?;
        let opening = self.opens(node, began, None).await?;
        let who = self.who_submitted(node, since).await?;
        self.screen.saw(&format!("{} submitted, the only ones left", custodians(&who)));

        self.screen.does("start RabbitMQ and the two custodians again");
        let (back, restarted) = (Instant::now(), clock::wall());
        for recipe in recipes {
            self.lab.start(recipe)?;
        }
        let all = self.file.custodians.len();
        self.told(BACK_WITHIN, "waiting until everybody is back", |status| {
            let custodians = status.clusters.values().flat_map(|cluster| &cluster.custodians);
            let heard = custodians.filter(|(id, custodian)| {
                let again = custodian.heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.started_at >= restarted);
                custodian.ready && (again || !gone.contains(&id.as_str()))
            });
            status.broker_up == Some(true) && heard.count() == all
        })
        .await?;
        self.screen.saw_at(back.elapsed(), &format!("the broker is up again, and all {all} custodians are ready"));
        Ok(Seen {
            words: format!("It opened {} after its first answer.", shown(opening.sealed_for())),
            short: format!("open after {}", shown(opening.sealed_for())),
            measured: vec![
                ("first_answer", opening.answered),
                ("open", opening.open),
                ("sealed", opening.sealed_for()),
            ],
        })
    }

    async fn a_seal_by_hand(&mut self) -> Result<Seen, NotHeld> {
        let node = "vault-1";
        self.screen.claim(
            "A seal is a decision of people. Nobody undoes it but people, not even when the node is killed and started \
             again, which looks like a crash to whoever did not watch.",
        );
        self.screen.does(&format!("PUT /v1/sys/seal at {node}, with the root token"));
        let began = Instant::now();
        self.seal(node, began).await?;
        let looks = self.stays_sealed(node, began, |_| true).await?;
        self.screen.saw_at(began.elapsed(), &format!("{node} is still sealed, in each of {looks} looks"));

        self.screen.does(&format!("kill -9 {}, and start it again", self.named(node)));
        self.crash(node, began).await?;
        self.answers_sealed(node, began).await?;
        let restarted = clock::wall();
        let looks = self.stays_sealed(node, began, |status| waits_for_people(status, node, restarted)).await?;
        let sealed_for = began.elapsed();
        self.screen.saw_at(sealed_for, &format!("{node} is still sealed, in each of {looks} looks"));

        let dir = self.lab.journal.layout.dir().to_owned();
        self.screen.does(&format!("cd {}; holdfast status --node {node}", dir.display()));
        self.screen.quote(&self.status_of(node).await?);
        let line = Line::new(&std::env::current_exe()?, &["approve"])
            .with("--cluster", self.cluster.as_str())
            .with("--node", node);
        self.screen.does("what status says, as alice");
        let approved = Instant::now();
        let (done, opening) = tokio::join!(line.run(&dir), self.opens(node, approved, Some(Duration::ZERO)));
        let opening = opening?;
        done?;
        let (sealed, open) = (shown(sealed_for), shown(opening.open));
        Ok(Seen {
            words: format!("It stayed sealed for {sealed}, and opened {open} after the approval."),
            short: format!("{sealed} sealed, approved: {open}"),
            measured: vec![("stayed_sealed", sealed_for), ("open_after_approval", opening.open)],
        })
    }

    async fn too_few(&mut self) -> Result<Seen, NotHeld> {
        let (node, frozen) = ("vault-2", ["custodian-3", "custodian-4", "custodian-5"]);
        self.screen.claim(&format!(
            "Fewer than {THRESHOLD} custodians cannot open a node, and that is known before it is needed."
        ));
        self.screen.does(&format!("freeze {} (kill -STOP), as if their hosts hung", custodians(&frozen)));
        for name in frozen {
            self.lab.signal(name, Started::freeze)?;
        }
        self.screen.does(&format!("kill -9 {}, and start it again", self.named(node)));
        let began = Instant::now();
        self.crash(node, began).await?;
        self.answers_sealed(node, began).await?;
        let negative = |status: &Status| status.clusters.values().any(|cluster| cluster.margin < 0);
        let looks = self.stays_sealed(node, began, negative).await?;
        let sealed_for = began.elapsed();
        self.screen.saw_at(sealed_for, &format!("{node} is still sealed, in each of {looks} looks"));
        let status = status::fetch(&self.sentinel).await?;
        for (name, cluster) in &status.clusters {
            let verdict = Verdict::of(cluster, &status);
            self.screen.saw(&format!("holdfast status: {}", headline(name, &verdict)));
        }

        self.screen.does(&format!("let {} go on (kill -CONT)", frozen[0]));
        let back = Instant::now();
        self.lab.signal(frozen[0], Started::thaw)?;
        let opening = self.opens(node, back, Some(Duration::ZERO)).await?;
        self.screen.does("let the others go on too");
        for name in &frozen[1..] {
            self.lab.signal(name, Started::thaw)?;
        }
        let all = self.file.custodians.len();
        self.told(BACK_WITHIN, "waiting until everybody is back", |status| {
            status.clusters.values().all(|cluster| usize::try_from(cluster.ready) == Ok(all))
        })
        .await?;
        self.screen.saw_at(back.elapsed(), &format!("all {all} custodians are ready again"));
        let (sealed, open) = (shown(sealed_for), shown(opening.open));
        Ok(Seen {
            words: format!("It stayed sealed for {sealed}, and opened {open} after one custodian came back."),
            short: format!("{sealed} sealed, one back: {open}"),
            measured: vec![("stayed_sealed", sealed_for), ("open_after_return", opening.open)],
        })
    }

    async fn a_drill(&mut self) -> Result<Seen, NotHeld> {
        let node = "vault-3";
        self.screen.claim(
            "A conductor seals a node on purpose, after it was announced to every custodian, and they open it as they would \
             after a crash: no approval, and each share has its turn.",
        );
        let dir = self.lab.journal.layout.dir().to_owned();
        self.screen.does(&format!("cd {}; holdfast drill run --node {node}", dir.display()));
        let since = clock::wall();
        let watch = self.watch(node)?;
        let line = Line::new(&std::env::current_exe()?, &["drill", "run", "--node", node]);
        let (began, awaited) = (Instant::now(), || format!("the drill of {node}"));
        let (passed, said) = self.screen.during(began, awaited, line.report(&dir)).await?;
        let sealed_for = watch.end().await;
        let said = String::from_utf8_lossy(&said).into_owned();
        // How it went stands before the table.
        self.screen.quote(said.split_once("\n\n").map_or(&*said, |(_, table)| table));
        if !passed {
            return Err(NotHeld(format!("the drill did not pass:\n{said}")));
        }
        let Some(sealed_for) = sealed_for else {
            return Err(NotHeld(format!("{node} was not seen sealed, and open again")));
        };
        let who = self.who_submitted(node, since).await?;
        self.screen.saw(&format!("{node} was sealed for {}; {} opened it", shown(sealed_for), custodians(&who)));
        Ok(Seen {
            words: format!("It was sealed on purpose, and open {} later.", shown(sealed_for)),
            short: format!("open after {}", shown(sealed_for)),
            measured: vec![("sealed", sealed_for)],
        })
    }

    async fn a_drill_under_a_hold(&mut self) -> Result<Seen, NotHeld> {
        let (held, node) = ("vault-1", "vault-3");
        self.screen.claim("A drill is refused, before anything is sealed, when something speaks against it.");
        let dir = self.lab.journal.layout.dir().to_owned();
        let program = std::env::current_exe()?;
        self.screen.does(&format!("holdfast hold --node {held}, as alice"));
        let ordered = Line::new(&program, &["hold", "--json", "--node", held]).run(&dir).await?;
        let ordered: Ordered = reported("holdfast hold", &ordered)?;
        self.screen.does(&format!("holdfast drill run --node {node}"));
        let watch = self.watch(node)?;
        let line = Line::new(&program, &["drill", "run", "--node", node]);
        let (began, awaited) = (Instant::now(), || format!("the drill of {node}"));
        let (passed, said) = self.screen.during(began, awaited, line.report(&dir)).await?;
        let refused_after = began.elapsed();
        let sealed_for = watch.end().await;
        let said = String::from_utf8_lossy(&said).into_owned();
        self.screen.quote(said.lines().last().unwrap_or_default());
        if passed || sealed_for.is_some() || self.look(node).await != Look::Open {
            return Err(NotHeld(format!("{node} was sealed under a hold, or nobody refused to:\n{said}")));
        }
        if !said.contains("refused") || !said.contains("hold is in force") {
            return Err(NotHeld(format!("the drill was not refused because of the hold:\n{said}")));
        }
        self.screen.saw(&format!("{node} stayed open"));
        self.screen.does("release the hold, as alice and as bob");
        for operator in &self.file.operators {
            let line = Line::new(&program, &["release", "--json", "--hold", &ordered.id]);
            line.with("--config", &operator.config).run(&dir).await?;
        }
        let released = |status: &Status| status.clusters.values().all(|cluster| cluster.holds.is_empty());
        self.told(BACK_WITHIN, "waiting until the hold is over", released).await?;
        Ok(Seen {
            words: format!("It was refused after {}, and nothing was sealed.", shown(refused_after)),
            short: "refused, nothing sealed".to_owned(),
            measured: vec![("refused", refused_after)],
        })
    }

    /// Begins to look at a node over several connections at once: a node that is sealing itself may hold one answer back.
    fn watch(&self, node: &str) -> Result<Watch, NotHeld> {
        let operator =
            Operator::load(&self.lab.journal.layout.operator_config()).map_err(|e| NotHeld(e.to_string()))?;
        let (_, cluster) = operator.cluster(None)?;
        let name = node.parse().map_err(|e| NotHeld(format!("{node}: {e}")))?;
        Ok(Watch::begin(&cluster.known_node(&self.cluster, &name)?.identity))
    }

    fn nobody_listens(&mut self) -> Result<Seen, NotHeld> {
        self.screen.claim("A custodian calls and is never called: there is no port to attack.");
        self.screen.does("look up every socket of each custodian in the kernel's tables, as ss -lntup does");
        let mut unreadable = false;
        for custodian in &self.file.custodians {
            let Some(started) = self.lab.find(&custodian.id) else {
                return Err(NotHeld(format!("{} does not run", custodian.id)));
            };
            let pid = started.identity.pid;
            let around = Sockets::around(pid)?;
            let Ok(own) = sockets::of(pid) else {
                unreadable = true;
                continue;
            };
            let listening: Vec<_> = own.iter().filter_map(|inode| around.listening.get(inode)).collect();
            let calls = own.intersection(&around.connected).count();
            self.screen.saw(&format!(
                "{}: {} listening, {calls} connections of its own making",
                custodian.id,
                listening.len()
            ));
            if !listening.is_empty() {
                return Err(NotHeld(format!("{} has listening sockets: {listening:?}", custodian.id)));
            }
        }
        if unreadable {
            self.listeners_are_others()?;
        }
        self.the_look_finds_servers()?;
        let all = self.file.custodians.len();
        Ok(Seen {
            words: "No custodian has a socket that listens.".to_owned(),
            short: format!("0 listening on {all} custodians"),
            measured: Vec::new(),
        })
    }

    /// Custodians forbid other processes of their user to look at them. Then whatever of this user's listens now, and did not
    /// before the lab, has to be somebody else's.
    fn listeners_are_others(&mut self) -> Result<(), NotHeld> {
        let ourselves = std::process::id();
        let (first, known, second) =
            (Sockets::around(ourselves)?, sockets::of_everybody()?, Sockets::around(ourselves)?);
        // One that was there for a moment only could not be found with anybody in that moment.
        let lasting = first.ours.intersection(&second.ours).filter(|inode| !self.before.ours.contains(*inode));
        let (others, nobodys): (Vec<u64>, Vec<u64>) = lasting.partition(|inode| known.contains(inode));
        self.screen.saw("custodians let nobody but root look at their sockets, so this is seen from the other side:");
        if nobodys.is_empty() {
            let others = others.len();
            self.screen
                .saw(&format!("{others} sockets listen since the network was started, and others have all of them"));
            return Ok(());
        }
        let kinds: Vec<_> = nobodys.iter().filter_map(|inode| first.listening.get(inode)).collect();
        Err(NotHeld(format!("these listen since the network was started, and nobody is seen to have them: {kinds:?}")))
    }

    /// A look that finds nothing anywhere would prove nothing.
    fn the_look_finds_servers(&mut self) -> Result<(), NotHeld> {
        let mut found = 0;
        for vault in &self.file.vault {
            let Some(started) = self.lab.find(&vault.name) else { continue };
            let own = sockets::of(started.identity.pid)?;
            let around = Sockets::around(started.identity.pid)?;
            found += own.iter().filter(|inode| around.listening.contains_key(inode)).count();
        }
        if found < self.file.vault.len() {
            return Err(NotHeld("the same look does not see that the nodes listen".to_owned()));
        }
        self.screen.saw(&format!("the same look at the {} nodes finds {found} listening", self.file.vault.len()));
        Ok(())
    }

    /// Kills a node, sees that it is dead, and starts it again.
    async fn crash(&mut self, node: &str, began: Instant) -> Result<(), NotHeld> {
        let recipe = self.lab.crash(node)?;
        let look = self.look(node).await;
        if look != Look::Silent {
            return Err(NotHeld(format!("{node} was killed, and {}", look.in_words())));
        }
        self.screen.saw_at(began.elapsed(), &format!("{node} is dead"));
        self.lab.start(recipe)?;
        Ok(())
    }

    /// Watches a node until it is open, which nobody but custodians brings about. `answered` is when it was first seen sealed,
    /// if it was.
    async fn opens(&mut self, node: &str, began: Instant, mut answered: Option<Duration>) -> Result<Opening, NotHeld> {
        let mut last = Look::Silent;
        while began.elapsed() < OPENS_WITHIN {
            last = self.look(node).await;
            let at = began.elapsed();
            match last {
                Look::Silent => {}
                Look::Sealed if answered.is_none() => {
                    answered = Some(at);
                    self.screen.saw_at(at, &format!("{node} answers: it is sealed"));
                }
                Look::Sealed => {}
                Look::Open => {
                    let after = answered.filter(|answered| !answered.is_zero());
                    let after = after.map(|answered| format!(", {} later", shown(at.saturating_sub(answered))));
                    self.screen.saw_at(at, &format!("{node} is open{}", after.unwrap_or_default()));
                    return Ok(Opening { answered: answered.unwrap_or(at), open: at });
                }
            }
            self.screen.tick(began, &format!("{node} {}", last.in_words()));
            sleep(LOOK).await;
        }
        Err(NotHeld(format!("{node} {} after {}", last.in_words(), shown(began.elapsed()))))
    }

    /// Waits for a node's first answer, which has to be that it is sealed.
    async fn answers_sealed(&mut self, node: &str, began: Instant) -> Result<(), NotHeld> {
        let since = Instant::now();
        while since.elapsed() < ANSWERS_WITHIN {
            match self.look(node).await {
                Look::Silent => {}
                Look::Sealed => {
                    self.screen.saw_at(began.elapsed(), &format!("{node} answers: it is sealed"));
                    return Ok(());
                }
                Look::Open => return Err(NotHeld(format!("{node} is open"))),
            }
            self.screen.tick(began, &format!("{node} does not answer"));
            sleep(LOOK).await;
        }
        Err(NotHeld(format!("{node} did not answer within {ANSWERS_WITHIN:?}")))
    }

    /// Watches a node for some seconds, and then until the sentinel's status says `so`, and finds it sealed each time. Gives the
    /// number of looks.
    async fn stays_sealed(&mut self, node: &str, began: Instant, so: impl Fn(&Status) -> bool) -> Result<u32, NotHeld> {
        let since = Instant::now();
        let mut looks = 0;
        let mut next_question = WATCHED;
        while since.elapsed() < HEARD_WITHIN {
            match self.look(node).await {
                Look::Sealed => looks += 1,
                other => return Err(NotHeld(format!("{node} {} after {}", other.in_words(), shown(began.elapsed())))),
            }
            if since.elapsed() >= next_question {
                if status::fetch(&self.sentinel).await.is_ok_and(|status| so(&status)) {
                    return Ok(looks);
                }
                next_question = since.elapsed() + ASK;
            }
            self.screen.tick(began, &format!("{node} is sealed"));
            sleep(CALM_LOOK).await;
        }
        Err(NotHeld(format!("{node} is sealed, and the sentinel's status did not say why within {HEARD_WITHIN:?}")))
    }

    /// A process's pid and name.
    fn named(&self, name: &str) -> String {
        let pid = self.lab.find(name).map(|started| started.identity.pid.to_string());
        format!("{} ({name})", pid.unwrap_or_default())
    }

    async fn look(&mut self, node: &str) -> Look {
        match self.eyes.get_mut(node) {
            Some(eye) => eye.look().await,
            None => Look::Silent,
        }
    }

    /// Asks the sentinel until it says `so`.
    async fn told(&mut self, within: Duration, awaited: &str, so: impl Fn(&Status) -> bool) -> Result<Status, NotHeld> {
        let since = Instant::now();
        loop {
            match status::fetch(&self.sentinel).await {
                Ok(status) if so(&status) => return Ok(status),
                Err(error) if since.elapsed() > within => return Err(error.into()),
                Ok(_) if since.elapsed() > within => {
                    return Err(NotHeld(format!("the sentinel was waited for in vain for {within:?}: {awaited}")));
                }
                _ => {}
            }
            self.screen.during(since, || awaited.to_owned(), sleep(ASK)).await;
        }
    }

    /// Which custodians submitted to this node since then, in the order in which they did, as their audit logs tell.
    async fn who_submitted(&mut self, node: &str, since: Timestamp) -> Result<Vec<String>, NotHeld> {
        let deadline = Instant::now() + WRITTEN_WITHIN;
        loop {
            let mut found: Vec<_> = self
                .file
                .custodians
                .iter()
                .filter_map(|c| Some((eye::submitted(&c.state_dir.join(AUDIT_FILE), node, since)?, c.id.clone())))
                .collect();
            found.sort();
            if found.len() >= usize::from(THRESHOLD) {
                return Ok(found.into_iter().map(|(_, id)| id).collect());
            }
            if Instant::now() > deadline {
                let why = format!("{node} is open, and only {} custodians noted that they submitted", found.len());
                return Err(NotHeld(why));
            }
            sleep(CALM_LOOK).await;
        }
    }

    fn broker_is_dead(&self) -> Result<(), NotHeld> {
        let url = self.file.broker.as_ref().map(|broker| broker.url.as_str()).unwrap_or_default();
        let address = url.trim_start_matches("amqps://").split('/').next().unwrap_or_default();
        match std::net::TcpStream::connect(address) {
            Ok(_) => Err(NotHeld(format!("the broker was killed, and somebody listens at {address}"))),
            Err(_) => Ok(()),
        }
    }

    /// Seals a node as a person with a token does.
    async fn seal(&mut self, node: &str, began: Instant) -> Result<(), NotHeld> {
        let vault = self.file.vault.iter().find(|vault| vault.name == node).context("the lab has no such node")?;
        let ca = std::fs::read(&self.file.ca_cert)?;
        let token = Zeroizing::new(std::fs::read_to_string(&self.file.root_token_file)?);
        let mut token = reqwest::header::HeaderValue::from_str(token.trim()).context("the root token is not one")?;
        token.set_sensitive(true);
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client_config(&ca, &[]).context("the lab's CA")?)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(SEAL_PATIENCE)
            .build()
            .context("no HTTPS client")?;
        let request = client.put(format!("{}/v1/sys/seal", vault.url)).header("x-vault-token", token);
        let answer = self.screen.during(began, || format!("sealing {node}"), request.send()).await;
        let status = answer.context("the node did not answer")?.status();
        if status != reqwest::StatusCode::NO_CONTENT {
            return Err(NotHeld(format!("{node} was not sealed: it answered {status}")));
        }
        self.answers_sealed(node, began).await
    }

    /// What `holdfast status` says about this node.
    async fn status_of(&self, node: &str) -> Result<String, NotHeld> {
        let status = status::fetch(&self.sentinel).await?;
        let cluster = status.clusters.get(&self.cluster).context("the sentinel does not watch the lab")?;
        let node: NodeName = node.parse().map_err(|e| NotHeld(format!("{node}: {e}")))?;
        Ok(status::render(&self.cluster, cluster, &status, Some(&node), Path::new(status::CONFIG), clock::wall()))
    }
}

/// The incident of this node that ended at or after `since`.
fn over<'s>(status: &'s Status, node: &str, since: Timestamp) -> Option<&'s IncidentStatus> {
    let mut incidents = status.clusters.values().flat_map(|cluster| &cluster.incidents);
    incidents.find(|incident| incident.node.as_str() == node && incident.opened_at >= Some(since))
}

/// Whether the custodians have told, since the node was restarted, that it waits for approvals.
fn waits_for_people(status: &Status, node: &str, since: Timestamp) -> bool {
    status.clusters.values().any(|cluster| {
        let fresh = cluster.custodians.values().filter(|custodian| custodian.heard_at >= Some(since)).count();
        let waits = cluster.nodes.iter().any(|(name, status)| {
            let approvals = status.needs.iter().any(|(needs, _)| matches!(needs, Needs::Approvals { .. }));
            name.as_str() == node && approvals && status.marker.is_some()
        });
        waits && fresh >= usize::from(cluster.threshold)
    })
}

/// "custodians 1, 2 and 3"
fn custodians(ids: &[impl AsRef<str>]) -> String {
    let numbers: Vec<&str> = ids.iter().map(|id| id.as_ref().trim_start_matches("custodian-")).collect();
    match numbers.as_slice() {
        [] => "no custodian".to_owned(),
        [one] => format!("custodian {one}"),
        [rest @ .., last] => format!("custodians {} and {last}", rest.join(", ")),
    }
}
