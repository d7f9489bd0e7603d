//! What the driver does for conductors: their queue, their schedule, and the drills' requests and eyes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::drill::{Observed, SealOrder, Survey, Surveyed};
use holdfast_core::id::{ClusterId, DrillId, SlotId};
use holdfast_core::message::{Body, Content, Due as DueContent, Header, Intent};
use holdfast_core::time::{Steady, Timestamp};
use holdfast_core::topology::{Exchange, conductor_queue, routing_key};
use holdfast_edge::broker::{Delivery, Outgoing};
use holdfast_edge::outgoing::seal_body;
use holdfast_edge::vault::NodeIdentity;
use holdfast_edge::vault::canary::{Canary, Salt};
use holdfast_edge::vault::duty::{Duty, DutyToken};
use holdfast_edge::vault::exercise;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Driver;
use crate::schedule::Due;

/// How long one node has to say what it does.
const SURVEY_DEADLINE: Duration = Duration::from_secs(3);

/// How far back a start looks for a drill that was due: its conductor may have been restarted over it.
const MISSED_MAX: Duration = Duration::from_secs(60);

/// How often a conductor's token is renewed; sooner, where it does not live three times as long.
const RENEW: Duration = Duration::from_secs(24 * 3600);

/// When it is tried again after nobody renewed it.
const RENEW_AGAIN: Duration = Duration::from_secs(600);

/// How long one node has to renew a token.
const RENEW_DEADLINE: Duration = Duration::from_secs(5);

/// What comes back from a conductor's requests.
pub(super) enum Exercised {
    /// A token for this lives so long from now on; none where no node renewed it, and why.
    Renewed(ClusterId, Duty, Result<Duration, String>),
    /// What each node said.
    Survey(ClusterId, Survey),
    /// Something was seen of a node in a drill.
    Observed(ClusterId, DrillId, Observed),
}

/// What the driver keeps for its conductors.
pub(super) struct Conductors {
    /// What the queue handed out, until its drill is over: were it acknowledged before, nobody would take over from a conductor that
    /// dies.
    handed_out: HashMap<(ClusterId, SlotId), Vec<Delivery>>,
    /// The next drill of each schedule.
    next: BTreeMap<ClusterId, Due>,
    eyes: HashMap<DrillId, JoinHandle<()>>,
    /// When each token is to be renewed, by its policy's name; one that is not there, now.
    renew_at: BTreeMap<(ClusterId, &'static str), Steady>,
    salt: Salt,
    exercised_in: mpsc::UnboundedSender<Exercised>,
    exercised: mpsc::UnboundedReceiver<Exercised>,
}

impl Conductors {
    pub(super) fn new(salt: Salt) -> Self {
        #[expect(clippy::disallowed_methods, reason = "a few words of each drill, and one drill at a time")]
        let (exercised_in, exercised) = mpsc::unbounded_channel();
        let (handed_out, next, eyes, renew_at) = (HashMap::new(), BTreeMap::new(), HashMap::new(), BTreeMap::new());
        Self { handed_out, next, eyes, renew_at, salt, exercised_in, exercised }
    }

    pub(super) async fn recv(&mut self) -> Option<Exercised> {
        self.exercised.recv().await
    }

    /// When the next drill is due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.next.values().map(|due| due.at).min()
    }

    /// Tokens may be others than before.
    pub(super) fn renew_all(&mut self) {
        self.renew_at.clear();
    }

    /// The connection is gone, and with it what it handed out: it comes again, to whoever is there.
    pub(super) fn forget_deliveries(&mut self) {
        self.handed_out.clear();
    }
}

impl Drop for Conductors {
    fn drop(&mut self) {
        self.eyes.values().for_each(JoinHandle::abort);
    }
}

impl Driver {
    /// Finds out when each schedule's next drill is.
    pub(super) fn plan_drills(&mut self) {
        let now = self.clock.now().wall;
        let schedules =
            self.config.conductors.iter().filter_map(|(id, conductor)| Some((*id, conductor.schedule.as_ref()?)));
        self.conductors.next = schedules.filter_map(|(id, s)| Some((id, s.pending(now, MISSED_MAX)?))).collect();
        self.tell_next_drills();
    }

    /// Tells of the schedules' times that have come. Whoever the queue hands them to conducts.
    pub(super) fn announce_due(&mut self) {
        let now = self.clock.now().wall;
        let due: Vec<_> =
            self.conductors.next.iter().filter(|(_, due)| due.at <= now).map(|(id, due)| (*id, due.clone())).collect();
        if due.is_empty() {
            return;
        }
        for (cluster, Due { slot, .. }) in due {
            let schedule = self.config.conductors.get(&cluster).and_then(|conductor| conductor.schedule.as_ref());
            let after = slot.time().unwrap_or(now);
            match schedule.and_then(|schedule| schedule.next(after)) {
                Some(next) => drop(self.conductors.next.insert(cluster, next)),
                None => drop(self.conductors.next.remove(&cluster)),
            }
            tracing::info!(%slot, "a drill is due");
            self.publish(cluster, Content::Due(DueContent { slot }));
        }
        self.tell_next_drills();
    }

    fn tell_next_drills(&mut self) {
        self.core.handle_next_drills(self.conductors.next.iter().map(|(id, due)| (*id, due.at)).collect());
    }

    /// Something came to the conductors' queue of one of the clusters.
    pub(super) fn hear_slot(&mut self, delivery: Delivery) {
        let now = self.clock.now();
        let heard = match &delivery.body {
            Ok(bytes) => self.core.handle_slot(bytes, now).map_err(|refused| refused.to_string()),
            Err(oversized) => {
                self.core.count_refusal("oversized");
                Err(format!("it has {} bytes", oversized.bytes))
            }
        };
        match heard {
            Ok(key) => self.conductors.handed_out.entry(key).or_default().push(delivery),
            Err(why) => {
                tracing::warn!(why, "a drill was refused");
                delivery.ack();
            }
        }
        self.carry_out_all();
    }

    /// Whether this is the conductors' queue of a cluster.
    pub(super) fn is_conductor_queue(&self, queue: &str) -> bool {
        self.config.conductors.keys().any(|cluster| conductor_queue(*cluster) == queue)
    }

    pub(super) fn settle(&mut self, cluster: ClusterId, slot: SlotId) {
        self.save_if_dirty();
        for delivery in self.conductors.handed_out.remove(&(cluster, slot)).into_iter().flatten() {
            // One that is not on disk as done would come again, and has to.
            if self.state_ok {
                delivery.ack();
            }
        }
    }

    pub(super) fn handle_exercised(&mut self, exercised: Exercised) {
        let now = self.clock.now();
        match exercised {
            Exercised::Renewed(cluster, duty, renewed) => self.note_renewed(cluster, &duty, renewed),
            Exercised::Survey(cluster, survey) => self.core.handle_survey(cluster, &survey, now),
            Exercised::Observed(cluster, drill, observed) => {
                tracing::info!(%drill, ?observed, "drill");
                self.core.handle_observed(cluster, drill, observed, now);
            }
        }
    }

    /// Renews the tokens whose time has come.
    pub(super) fn renew_tokens(&mut self) {
        let now = self.clock.now().steady;
        let tokens = self.config.conductors.iter().flat_map(|(id, files)| {
            files.tokens.iter().map(|(duty, file)| (*id, duty.clone(), file.clone(), files.identity.clone()))
        });
        let is_due = |at: Option<&Steady>| at.is_none_or(|at| *at <= now);
        let due = tokens.filter(|(id, duty, ..)| is_due(self.conductors.renew_at.get(&(*id, duty.policy_name()))));
        for (cluster, duty, file, identity) in due.collect::<Vec<_>>() {
            self.conductors.renew_at.insert((cluster, duty.policy_name()), now + RENEW_AGAIN);
            let Some(files) = self.config.clusters.get(&cluster) else { continue };
            let (nodes, told) = (files.nodes.clone(), self.conductors.exercised_in.clone());
            tokio::spawn(async move {
                let renewed = match DutyToken::load(&file, &identity, duty.clone()) {
                    Ok(token) => renew(nodes.into_values(), &token).await,
                    Err(error) => Err(error.to_string()),
                };
                // Nobody to tell only when the process ends.
                let _ = told.send(Exercised::Renewed(cluster, duty, renewed));
            });
        }
    }

    fn note_renewed(&mut self, cluster: ClusterId, duty: &Duty, renewed: Result<Duration, String>) {
        let policy = duty.policy_name();
        let name = self.config.settings.clusters.get(&cluster).map(|settings| settings.name.as_str());
        match renewed {
            Ok(life) => {
                self.conductors.renew_at.insert((cluster, policy), self.clock.now().steady + RENEW.min(life / 3));
                tracing::info!(cluster = name, policy, lives_s = life.as_secs(), "the conductor's token was renewed");
            }
            Err(why) => tracing::warn!(cluster = name, policy, why, "the conductor's token was not renewed"),
        }
    }

    pub(super) fn announce(&mut self, header: Header, intent: Intent) {
        self.save_if_dirty();
        let Some((broker, _)) = self.broker.as_ref().filter(|_| self.state_ok) else {
            return tracing::error!(
                "a drill is not announced: there is no broker, or the state file cannot be written"
            );
        };
        let (cluster, from, kind) = (header.cluster, header.from.clone(), header.kind);
        match seal_body(&self.config.signing_key, Body { header, content: Content::Intent(intent) }) {
            Ok(body) => {
                let (exchange, routing_key) =
                    (Exchange::of(kind.namespace()), routing_key(cluster, &from, kind.as_str()));
                broker.publish(Outgoing { exchange, routing_key, body });
            }
            Err(error) => tracing::error!(%error, "a drill is not announced"),
        }
    }

    /// Asks every node what it does for its clients, and has it give the canary where one is configured.
    pub(super) fn survey(&self, cluster: ClusterId) {
        let Some(files) = self.config.clusters.get(&cluster) else { return };
        let (nodes, told) = (files.nodes.clone(), self.conductors.exercised_in.clone());
        let canary = self.canary(cluster);
        tokio::spawn(async move {
            let asked: Vec<_> = nodes
                .into_iter()
                .map(|(name, identity)| {
                    let canary = canary.clone();
                    let asked = async move { timeout(SURVEY_DEADLINE, look_at(&identity, canary)).await.ok() };
                    (name, tokio::spawn(asked))
                })
                .collect();
            let mut survey = Survey::new();
            for (name, asked) in asked {
                survey.insert(name, asked.await.ok().flatten().unwrap_or_default());
            }
            // Nobody to tell only when the process ends.
            let _ = told.send(Exercised::Survey(cluster, survey));
        });
    }

    /// Seals a node for a drill, and watches it.
    pub(super) fn seal(&mut self, order: SealOrder) {
        self.save_if_dirty();
        let (cluster, drill) = (order.cluster, order.drill);
        let told = self.conductors.exercised_in.clone();
        let tell = move |observed| {
            let _ = told.send(Exercised::Observed(cluster, drill, observed));
        };
        let identity = self.config.clusters.get(&cluster).and_then(|files| files.nodes.get(&order.node)).cloned();
        let conductor = self.config.conductors.get(&cluster);
        let (Some(identity), Some(conductor), true) = (identity, conductor, self.state_ok) else {
            return tell(Observed::NotSealed(
                "the state file cannot be written, or the configuration changed".to_owned(),
            ));
        };
        let token = conductor.tokens.iter().find(|(duty, _)| *duty == Duty::Seal);
        let token = token.map(|(duty, file)| DutyToken::load(file, &conductor.identity, duty.clone()));
        let (token, canary) = match (token, self.canary(cluster).transpose()) {
            (Some(Ok(token)), Ok(canary)) => (token, canary),
            (Some(Err(error)), _) => return tell(Observed::NotSealed(format!("the seal token: {error}"))),
            (None, _) => return tell(Observed::NotSealed("no seal token is configured".to_owned())),
            (_, Err(why)) => return tell(Observed::NotSealed(why)),
        };
        let clock = self.clock;
        let permitted = move || order.stands(clock.now());
        self.conductors.eyes.insert(drill, tokio::spawn(exercise::hold(identity, token, canary, permitted, tell)));
    }

    /// The canary that this conductor reads, or why it cannot; `None` where none is configured.
    fn canary(&self, cluster: ClusterId) -> Option<Result<Canary, String>> {
        let conductor = self.config.conductors.get(&cluster)?;
        let (duty, file) = conductor.tokens.iter().find(|(duty, _)| matches!(duty, Duty::ReadCanary(_)))?;
        match DutyToken::load(file, &conductor.identity, duty.clone()) {
            Ok(token) => Canary::new(token, self.conductors.salt).map(Ok),
            Err(error) => Some(Err(format!("the canary's token: {error}"))),
        }
    }

    pub(super) fn unwatch(&mut self, drill: DrillId) {
        if let Some(eyes) = self.conductors.eyes.remove(&drill) {
            eyes.abort();
        }
    }
}

/// What a node does for its clients, and the canary as it is read through it.
async fn look_at(identity: &Arc<NodeIdentity>, canary: Option<Result<Canary, String>>) -> Surveyed {
    let serving = async { identity.connect(None).await.ok()?.serving().await.ok()? }.await;
    let Some(canary) = canary else { return Surveyed { serving, canary: None } };
    let read = async {
        let mut connection = identity.connect(None).await.map_err(|error| error.to_string())?;
        connection.try_canary(&canary?).await.map_err(|error| error.to_string())
    };
    Surveyed { serving, canary: Some(read.await) }
}

/// Has the first node renew a token that answers.
async fn renew(nodes: impl IntoIterator<Item = Arc<NodeIdentity>>, token: &DutyToken) -> Result<Duration, String> {
    let mut why = Vec::new();
    for identity in nodes {
        let renewed = async {
            let mut connection = identity.connect(None).await.map_err(|error| error.to_string())?;
            connection.renew(token).await.map_err(|error| error.to_string())
        };
        match timeout(RENEW_DEADLINE, renewed).await {
            Ok(Ok(life)) => return Ok(life),
            Ok(Err(error)) => why.push(format!("{}: {error}", identity.node())),
            Err(_) => why.push(format!("{}: no answer within {} s", identity.node(), RENEW_DEADLINE.as_secs())),
        }
    }
    Err(why.join("; "))
}
