//! A drill at the node: the request that seals, and the eyes that measure until the node serves again.
//!
//! What is not here: whether a drill may be held (`holdfast_core::drill`), what the tokens can do (`duty`), and shares.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_core::drill::Observed;
use holdfast_core::message::Serving;
use holdfast_core::time::Timestamp;
use hyper::Method;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::canary::Canary;
use super::connection::{AskError, Connection};
use super::duty::DutyToken;
use super::identity::NodeIdentity;
use crate::clock;

/// How long sealing may take: it answers after up to 1.4 s (docs/FACTS.md), and may wait for requests under way.
const SEAL_DEADLINE: Duration = Duration::from_secs(30);

/// How many connections look at the node. What is asked in the very moment in which it begins to seal itself is answered when that is done,
/// up to seconds later: so few of them may be waiting for an answer at any time.
const EYES: u32 = 8;

/// The time between two looks, over all connections.
const LOOK: Duration = Duration::from_millis(2);

/// How long a node is sealed before the looks are ten times as far apart: who waits for people need not ask five hundred times a second.
const HURRY: Duration = Duration::from_secs(30);

/// How long one answer is waited for, before the connection is made anew.
const ANSWER: Duration = Duration::from_secs(2);

/// How long after a failed connection the next is made.
const AGAIN: Duration = Duration::from_millis(20);

/// How often it is asked whether the node serves again.
const SERVES: Duration = Duration::from_millis(20);

/// How many looks may wait for whoever puts them together: who waits for a disk meanwhile is some seconds behind.
const LOOKS_MAX: usize = 4096;

const SEAL: &str = "/v1/sys/seal";
const HEALTH: &str = "/v1/sys/health";

/// Why a node was not sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// No answer. It may have been sealed all the same.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The token was refused.
    #[error("the node refused the token (403): it is not, or no longer, one that may seal")]
    Denied,
    /// The server does not seal a stand-by.
    #[error(
        "the server answered 500: HashiCorp Vault, and OpenBao with disable_standby_reads, seal the active node alone; name that one, or do without drills of stand-bys"
    )]
    NotHere,
    /// Another status.
    #[error("the node answered with status {0}")]
    Refused(u16),
}

impl Connection {
    /// What the node does for its clients; `None` while it does not serve.
    pub async fn serving(&mut self) -> Result<Option<Serving>, AskError> {
        let reply = self.ask(self.request(Method::GET, HEALTH, Bytes::new()), ANSWER).await?;
        Ok(match reply.code.as_u16() {
            200 => Some(Serving::Active),
            // 473: HashiCorp's performance stand-by.
            429 | 473 => Some(Serving::Standby),
            _ => None,
        })
    }

    async fn seal(&mut self, token: &DutyToken) -> Result<(), SealError> {
        let mut request = self.request(Method::PUT, SEAL, Bytes::new());
        token.sign(&mut request)?;
        match self.ask(request, SEAL_DEADLINE).await?.code.as_u16() {
            200 | 204 => Ok(()),
            403 => Err(SealError::Denied),
            500 => Err(SealError::NotHere),
            code => Err(SealError::Refused(code)),
        }
    }
}

/// One look at the node: when it was asked and answered, and whether it said that it is sealed; `None` if it said nothing.
struct Look {
    asked: Instant,
    answered: Instant,
    sealed: Option<bool>,
}

/// Seals a node for a drill and watches it until it serves again, telling each step; until it is dropped.
///
/// `permitted` is asked right before the request to seal leaves.
pub async fn hold(
    identity: Arc<NodeIdentity>,
    token: DutyToken,
    canary: Option<Canary>,
    permitted: impl Fn() -> bool + Send,
    told: impl Fn(Observed) + Send,
) {
    let mut sealing = match ready_to_seal(&identity, &token).await {
        Ok(connection) => connection,
        Err(why) => return told(Observed::NotSealed(why)),
    };
    let mut looks = match open_eyes(&identity) {
        Ok(looks) => looks,
        Err(error) => return told(Observed::NotSealed(format!("no thread for looking at it: {error}"))),
    };
    // All of them see it open before anything happens.
    if !first_looks(&mut looks).await {
        return told(Observed::NotSealed("it is not seen open".to_owned()));
    }
    if !permitted() {
        return told(Observed::NotSealed("the order was withdrawn, or it was too late for it".to_owned()));
    }
    // It goes on to its end, whatever becomes of this: a server that loses its client in the middle might not.
    let mut sealing = tokio::spawn(async move { sealing.seal(&token).await });
    let refused = async {
        match (&mut sealing).await {
            Ok(Err(error)) if !matches!(error, SealError::Ask(_)) => error.to_string(),
            // Without an answer it may be sealed, and it will be seen.
            _ => std::future::pending().await,
        }
    };
    let sealed = tokio::select! {
        why = refused => return told(Observed::NotSealed(why)),
        sealed = first(&mut looks, Instant::now(), true, || ()) => sealed,
    };
    told(Observed::Sealed(wall_at(sealed)));
    let open = first(&mut looks, sealed, false, || told(Observed::Lost)).await;
    told(Observed::Open(wall_at(open), open.duration_since(sealed)));
    drop(looks);
    let serving = loop {
        if let Ok(mut connection) = identity.connect(None).await
            && let Ok(Some(serving)) = connection.serving().await
        {
            break serving;
        }
        // Asked until it does: how long that may take is the conductor's to say, who then drops this.
        sleep(SERVES).await;
    };
    told(Observed::Serves(clock::wall(), serving));
    if let Some(canary) = canary {
        watch_canary(&identity, &canary, told).await;
    }
}

/// Reads the canary until that works, and tells each other reason why it does not.
async fn watch_canary(identity: &Arc<NodeIdentity>, canary: &Canary, told: impl Fn(Observed)) {
    let mut said = None;
    loop {
        let read = async {
            let mut connection = identity.connect(None).await.map_err(|error| error.to_string())?;
            connection.read_canary(canary).await.map_err(|error| error.to_string())
        };
        match read.await {
            Ok(read) => return told(Observed::Canary(clock::wall(), Ok(read))),
            Err(why) if said.as_ref() == Some(&why) => {}
            Err(why) => {
                said = Some(why.clone());
                told(Observed::Canary(clock::wall(), Err(why)));
            }
        }
        // Asked until it does: how long that may take is the conductor's to say, who then drops this.
        sleep(SERVES).await;
    }
}

/// A connection on which the token was shown to be good for sealing, and for nothing else.
async fn ready_to_seal(identity: &NodeIdentity, token: &DutyToken) -> Result<Connection, String> {
    let mut connection = identity.connect(None).await.map_err(|error| error.to_string())?;
    connection.check_powers(token).await.map_err(|error| error.to_string())?;
    Ok(connection)
}

/// Begins to look at the node, until nobody takes the looks any more. On a thread of its own: the custodian's waits for its disk before a
/// share leaves, and what is seen meanwhile would be seen late.
fn open_eyes(identity: &Arc<NodeIdentity>) -> io::Result<mpsc::Receiver<Look>> {
    let (looks_in, looks) = mpsc::channel(LOOKS_MAX);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let identity = identity.clone();
    thread::Builder::new().name("drill".to_owned()).spawn(move || {
        runtime.block_on(async {
            let mut eyes = JoinSet::new();
            for eye in 0..EYES {
                eyes.spawn(keep_looking(identity.clone(), LOOK * eye, looks_in.clone()));
            }
            eyes.join_all().await;
        });
        // A look-up of a name that hangs holds nobody up.
        runtime.shutdown_background();
    })?;
    Ok(looks)
}

/// The time of day at a moment that has passed.
fn wall_at(moment: Instant) -> Timestamp {
    clock::wall().before(moment.elapsed())
}

/// Whether the next looks all see it open.
async fn first_looks(looks: &mut mpsc::Receiver<Look>) -> bool {
    for _ in 0..EYES {
        let look = timeout(ANSWER, looks.recv()).await;
        if !matches!(look, Ok(Some(Look { sealed: Some(false), .. }))) {
            return false;
        }
    }
    true
}

/// When the first answer came that says so, to a question asked after `since`. Tells of lost contact.
async fn first(looks: &mut mpsc::Receiver<Look>, since: Instant, sealed: bool, lost: impl Fn()) -> Instant {
    let mut silent = 0;
    loop {
        // The eyes are there as long as somebody waits here.
        let Some(look) = looks.recv().await else { return std::future::pending().await };
        if look.asked < since {
            continue;
        }
        match look.sealed {
            Some(seen) if seen == sealed => return look.answered,
            Some(_) => silent = 0,
            None => silent += 1,
        }
        if silent == EYES {
            lost();
        }
    }
}

async fn keep_looking(identity: Arc<NodeIdentity>, offset: Duration, looks: mpsc::Sender<Look>) {
    let (mut connection, mut sealed_since) = (None, None::<Instant>);
    // The connections take turns, so that one of them looks every two milliseconds.
    sleep(offset).await;
    loop {
        let asked = Instant::now();
        let sealed = match &mut connection {
            None => {
                connection = identity.connect(None).await.ok();
                if connection.is_some() {
                    continue;
                }
                None
            }
            Some(open) => {
                let status = open.seal_status_within(ANSWER).await;
                if status.is_err() {
                    connection = None;
                }
                status.ok().map(|status| status.sealed)
            }
        };
        sealed_since =
            sealed_since.filter(|_| sealed != Some(false)).or_else(|| (sealed == Some(true)).then_some(asked));
        let unhurried = sealed_since.is_some_and(|since| since.elapsed() >= HURRY);
        let pause = LOOK * EYES * if unhurried { 10 } else { 1 };
        let wait = if sealed.is_none() { AGAIN } else { pause.saturating_sub(asked.elapsed()) };
        if looks.send(Look { asked, answered: Instant::now(), sealed }).await.is_err() {
            return;
        }
        // The time between two looks, and no wait for anything: what is seen decides.
        sleep(wait).await;
    }
}
