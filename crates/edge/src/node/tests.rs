//! The task against a small TLS server of our own that can be sealed, restarted and replaced, driven by a real sight.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use holdfast_core::id::ClusterId;
use holdfast_core::sight::{Evidence, Observation, Watch};
use holdfast_core::time::Steady;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::*;

/// The longest that anything here may take on a machine that does much else.
const DEADLINE: Duration = Duration::from_secs(20);

const NODE: &str = "vault-1";

#[derive(Default)]
struct State {
    sealed: AtomicBool,
    requests: AtomicUsize,
    connections: AtomicUsize,
}

/// A node: one address, and a process behind it that can be replaced.
struct FakeNode {
    address: SocketAddr,
    ca: CertifiedIssuer<'static, KeyPair>,
    state: Arc<State>,
    process: JoinSet<()>,
}

impl FakeNode {
    async fn start() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let mut node = Self { address, ca, state: Arc::default(), process: JoinSet::new() };
        node.run(listener);
        node
    }

    fn run(&mut self, listener: TcpListener) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.ca).expect("a certificate");
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .expect("a certificate and its key");
        // Like a Vault's: the ticket keys live and die with the process.
        config.ticketer = aws_lc_rs::Ticketer::new().expect("random numbers");
        config.send_tls13_tickets = 1;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let state = Arc::clone(&self.state);
        self.process = JoinSet::new();
        self.process.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(acceptor.clone(), stream, Arc::clone(&state)));
            }
        });
    }

    /// Ends the process and its connections, and starts another at the same address.
    async fn restart(&mut self) {
        self.process.shutdown().await;
        let listener = TcpListener::bind(self.address).await.expect("the same port");
        self.run(listener);
    }

    /// The same, and the new process is sealed: no connection of the old one ever says so.
    async fn restart_sealed(&mut self) {
        self.process.shutdown().await;
        self.state.connections.store(0, Ordering::SeqCst);
        self.seal(true);
        self.restart().await;
    }

    fn identity_by(&self, ca_pem: &str) -> Arc<NodeIdentity> {
        let url = format!("https://{}", self.address);
        let node = NODE.parse().expect("a name");
        Arc::new(NodeIdentity::new(ClusterId::from_bytes([1; 16]), node, &url, ca_pem.as_bytes(), &[]).expect("good"))
    }

    fn identity(&self) -> Arc<NodeIdentity> {
        self.identity_by(&self.ca.pem())
    }

    fn seal(&self, sealed: bool) {
        self.state.sealed.store(sealed, Ordering::SeqCst);
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, state: Arc<State>) {
    state.connections.fetch_add(1, Ordering::SeqCst);
    if let Ok(mut stream) = acceptor.accept(stream).await {
        let mut request = Vec::new();
        while let Ok(byte) = stream.read_u8().await {
            request.push(byte);
            if !request.ends_with(b"\r\n\r\n") {
                continue;
            }
            request.clear();
            state.requests.fetch_add(1, Ordering::SeqCst);
            let sealed = state.sealed.load(Ordering::SeqCst);
            let body = format!(
                r#"{{"type":"shamir","initialized":true,"sealed":{sealed},"t":3,"n":5,"progress":0,"nonce":""}}"#
            );
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(answer.as_bytes()).await.is_err() {
                break;
            }
        }
    }
    state.connections.fetch_sub(1, Ordering::SeqCst);
}

/// A sight, its node's task, and what both said.
struct Watched {
    start: Instant,
    sight: Sight,
    handle: NodeHandle,
    reports: mpsc::Receiver<NodeReport<&'static str>>,
    heard: Vec<Report>,
    observed: Vec<Observation>,
}

impl Watched {
    fn new(identity: Arc<NodeIdentity>, poll: Duration) -> Self {
        let (sender, reports) = mpsc::channel(4);
        let start = Instant::now();
        let watch = Watch { direct: true, poll, knock: Duration::from_millis(10) };
        let sight = Sight::new(watch, now(start));
        let handle = spawn(identity, NODE, sender);
        Self { start, sight, handle, reports, heard: Vec::new(), observed: Vec::new() }
    }

    async fn step(&mut self) {
        self.sight.handle_timeout(now(self.start));
        while let Some(action) = self.sight.poll_action() {
            self.handle.act(action);
        }
        let now_steady = now(self.start).steady;
        let wait = self.sight.next_timeout().map_or(DEADLINE, |next| next.since(now_steady));
        if let Ok(report) = timeout(wait, self.reports.recv()).await {
            let NodeReport { key, report } = report.expect("the task runs");
            assert_eq!(key, NODE);
            drive(&report, &mut self.sight, now(self.start));
            self.heard.push(report);
        }
        while let Some(observation) = self.sight.poll_observation() {
            self.observed.push(observation);
        }
    }

    async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let limit = Instant::now() + DEADLINE;
        while !condition(self) {
            assert!(Instant::now() < limit, "{what}: heard {:?}, observed {:?}", self.heard, self.observed);
            self.step().await;
        }
    }

    fn saw(&self, observation: &Observation) -> bool {
        self.observed.contains(observation)
    }

    fn tickets(&self) -> usize {
        self.heard.iter().filter(|report| matches!(report, Report::Ticket(_))).count()
    }
}

fn now(start: Instant) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let wall = Timestamp::from_millis(i64::try_from(wall.as_millis()).expect("before the year 292 million"));
    Now { steady: Steady::from_start(start.elapsed()), wall }
}

/// A node that is open and of which tickets are there.
async fn open() -> (FakeNode, Watched) {
    let node = FakeNode::start().await;
    let mut watched = Watched::new(node.identity(), Duration::from_millis(20));
    watched.until("open, with tickets", |w| w.saw(&Observation::Opened) && w.tickets() >= TICKETS_KEPT).await;
    (node, watched)
}

#[tokio::test]
async fn the_connection_that_declined_a_ticket_is_there_for_a_release() {
    let (mut node, mut watched) = open().await;
    assert!(watched.handle.take_proven().is_none(), "nothing was declined");
    node.restart_sealed().await;
    watched.until("a restart", |w| w.saw(&Observation::Evidence(Evidence::Restart))).await;
    let (mut proven, reported) = watched.handle.take_proven().expect("it was declined just now");
    assert_eq!((proven.handshake(), proven.ticket_was_offered()), (Handshake::Full, true));
    assert!(reported.sealed && proven.seal_status().await.expect("it still answers").sealed);
    assert!(watched.handle.take_proven().is_none(), "it is given out once");
}

#[tokio::test]
async fn a_ticket_is_offered_on_the_kept_connection_once_somebody_listens_again() {
    let (mut node, mut watched) = open().await;
    node.process.shutdown().await;
    let knocks = |w: &Watched| w.heard.iter().filter(|r| matches!(r, Report::Refused(..))).count();
    watched.until("knocks that are refused", |w| knocks(w) > TICKETS_KEPT).await;
    watched.heard.clear();
    node.restart_sealed().await;
    watched.until("a restart", |w| w.saw(&Observation::Evidence(Evidence::Restart))).await;
    let at = |wanted: fn(&Report) -> bool| watched.heard.iter().position(wanted).expect("reported");
    let declined = at(|r| matches!(r, Report::Declined(_)));
    assert!(at(|r| matches!(r, Report::Identity { .. })) < declined, "{:?}", watched.heard);
    assert!(declined < at(|r| matches!(r, Report::Status(..))), "{:?}", watched.heard);
    assert_eq!(watched.heard.iter().filter(|r| matches!(r, Report::Side(_))).count(), 1, "{:?}", watched.heard);
}

#[tokio::test]
async fn a_connection_that_resumes_is_not_kept() {
    let (node, mut watched) = open().await;
    let ticket = watched.heard.iter().rev().find_map(|report| match report {
        Report::Ticket(id) => Some(*id),
        _ => None,
    });
    watched.heard.clear();
    watched.handle.act(Action::Open(99, ticket));
    // The sight is not asked meanwhile: it knows of no connection 99, and would have another made.
    while !watched.heard.iter().any(|r| matches!(r, Report::Lost(99, _))) {
        let told = timeout(DEADLINE, watched.reports.recv()).await.expect("lost");
        watched.heard.push(told.expect("the task runs").report);
    }
    let kept = |r: &Report| matches!(r, Report::Status(99, _) | Report::Declined(99));
    assert!(!watched.heard.iter().any(kept), "{:?}", watched.heard);
    drop(node);
}

#[tokio::test]
async fn a_connection_that_resumed_proves_no_identity_and_is_not_kept() {
    let (node, mut watched) = open().await;
    let ticket = watched.heard.iter().rev().find_map(|report| match report {
        Report::Ticket(id) => Some(*id),
        _ => None,
    });
    node.seal(true);
    watched.handle.act(Action::Side(ticket));
    let resumed = Report::Side(Side::Resumed { sealed: Some(true) });
    watched.until("the same process is sealed", |w| w.heard.contains(&resumed)).await;
    assert!(watched.handle.take_proven().is_none());
}

#[tokio::test]
async fn a_connection_for_a_release_is_closed_when_there_will_be_none() {
    let (mut node, mut watched) = open().await;
    node.restart_sealed().await;
    watched.until("a restart", |w| w.saw(&Observation::Evidence(Evidence::Restart))).await;
    node.seal(false);
    watched.observed.clear();
    watched.until("open again", |w| w.saw(&Observation::Opened)).await;
    assert!(watched.handle.take_proven().is_none(), "others opened it");

    node.restart_sealed().await;
    watched.observed.clear();
    watched.until("a restart", |w| w.saw(&Observation::Evidence(Evidence::Restart))).await;
    let end = Instant::now() + PROVEN_KEPT;
    while Instant::now() < end {
        watched.step().await;
    }
    assert!(watched.handle.take_proven().is_none(), "too long ago");
    watched.until("it is closed", |_| node.state.connections.load(Ordering::SeqCst) <= 1).await;
}

#[tokio::test]
async fn a_seal_in_place_is_told_from_a_restart() {
    let mut node = FakeNode::start().await;
    let mut watched = Watched::new(node.identity(), Duration::from_millis(20));
    watched.until("open, with tickets", |w| w.saw(&Observation::Opened) && w.tickets() >= TICKETS_KEPT).await;
    assert!(matches!(watched.heard[0], Report::Identity { not_after: Some(_) }), "{:?}", watched.heard);

    node.seal(true);
    watched.until("sealed in place", |w| w.saw(&Observation::Evidence(Evidence::InPlace))).await;
    assert!(!watched.saw(&Observation::Lost));

    node.seal(false);
    watched.observed.clear();
    watched.until("open again", |w| w.saw(&Observation::Opened)).await;
    watched.heard.clear();
    node.seal(true);
    node.restart().await;
    watched.until("restarted", |w| w.saw(&Observation::Evidence(Evidence::Restart))).await;
    assert!(watched.saw(&Observation::Lost));
    let declined = |r: &&Report| matches!(r, Report::Side(Side::Full { offered: true }) | Report::Declined(_));
    assert_eq!(watched.heard.iter().filter(declined).count(), 2, "{:?}", watched.heard);
}

#[tokio::test]
async fn a_side_connections_ticket_is_reported_before_what_came_of_it() {
    let node = FakeNode::start().await;
    let mut watched = Watched::new(node.identity(), Duration::from_secs(3600));
    watched.until("four tickets", |w| w.tickets() >= TICKETS_KEPT).await;
    let first_status = watched.heard.iter().position(|r| matches!(r, Report::Status(..))).expect("a status");
    assert!(matches!(watched.heard[first_status - 1], Report::Ticket(_)), "{:?}", watched.heard);
    let side = watched.heard.iter().position(|r| matches!(r, Report::Side(_))).expect("a side connection");
    assert!(matches!(watched.heard[side - 1], Report::Ticket(_)), "{:?}", watched.heard);
}

#[tokio::test]
async fn the_end_of_a_connection_is_told_while_nothing_is_asked() {
    let mut node = FakeNode::start().await;
    let mut watched = Watched::new(node.identity(), Duration::from_secs(3600));
    watched.until("four tickets", |w| w.tickets() >= TICKETS_KEPT).await;
    node.restart().await;
    watched.until("lost", |w| w.saw(&Observation::Lost)).await;
    watched.observed.clear();
    watched.until("open again", |w| w.saw(&Observation::Opened)).await;
}

#[tokio::test]
async fn an_impostor_is_told_from_a_node_that_is_away() {
    let mut node = FakeNode::start().await;
    let other = FakeNode::start().await;
    let mut watched = Watched::new(node.identity_by(&other.ca.pem()), Duration::from_millis(20));
    watched.until("refused and lost", |w| w.saw(&Observation::Lost)).await;
    let Report::IdentityRefused(why) = &watched.heard[0] else { panic!("{:?}", watched.heard) };
    assert!(why.contains("ca_cert"), "{why}");
    assert!(matches!(watched.heard[1], Report::Lost(..)));
    assert_eq!(node.state.requests.load(Ordering::SeqCst), 0, "nothing is asked of an impostor");

    node.process.shutdown().await;
    let mut watched = Watched::new(node.identity(), Duration::from_millis(20));
    watched.until("lost", |w| w.saw(&Observation::Lost)).await;
    assert!(watched.heard.iter().all(|r| matches!(r, Report::Refused(..))), "{:?}", watched.heard);
}

#[tokio::test]
async fn what_cannot_be_done_is_answered_all_the_same() {
    let node = FakeNode::start().await;
    let (sender, mut reports) = mpsc::channel(4);
    let handle = spawn(node.identity(), NODE, sender);
    handle.act(Action::Poll(7));
    handle.act(Action::Discard(7));
    handle.act(Action::Side(Some(7)));
    let mut next = async || timeout(DEADLINE, reports.recv()).await.expect("in time").expect("the task runs").report;
    assert!(matches!(next().await, Report::Lost(7, _)));
    assert_eq!(next().await, Report::Side(Side::Failed));
}

#[tokio::test]
async fn a_dropped_handle_leaves_no_connection() {
    let node = FakeNode::start().await;
    let mut watched = Watched::new(node.identity(), Duration::from_millis(20));
    watched.until("open", |w| w.saw(&Observation::Opened)).await;
    drop(watched);
    let limit = Instant::now() + DEADLINE;
    while node.state.connections.load(Ordering::SeqCst) > 0 {
        assert!(Instant::now() < limit, "a connection is left");
        tokio::task::yield_now().await;
    }
}
