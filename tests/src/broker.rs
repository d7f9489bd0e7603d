//! RabbitMQ, as somebody with a password and no manners uses it: any exchange, any key, any bytes.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_rs::Tokio;
use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use futures_util::io::{AsyncRead, AsyncWrite};
use futures_util::stream::Stream;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{AsyncTcpStream, BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use crate::lab::Lab;
use crate::tls;
use crate::wait::{PATIENCE, until_some};

type Tls = Compat<TlsStream<TcpStream>>;

/// A logged-in user.
pub struct Client {
    runtime: Runtime,
    channel: Channel,
    connection: Connection,
}

/// A queue of the test's own, which gets a copy of everything that goes to an exchange.
#[derive(Debug)]
pub struct Tap(String);

impl Client {
    /// The lab's administrator.
    pub fn admin(lab: &Lab) -> Self {
        let broker = lab.file.broker.as_ref().expect("a lab with a broker");
        Self::party(lab, &broker.admin_user, &broker.admin_password_file)
    }

    /// A party of the lab, with its own password.
    pub fn party(lab: &Lab, name: &str, password_file: &Path) -> Self {
        let broker = lab.file.broker.as_ref().expect("a lab with a broker");
        let password = std::fs::read_to_string(lab.path(password_file)).expect("a password");
        let rest = broker.url.strip_prefix("amqps://").expect("a URL without a user");
        Self::login(rest, &lab.path(&broker.ca_cert), name, password.trim())
    }

    /// Logs in at `HOST:PORT/VHOST`.
    fn login(place: &str, ca_file: &Path, user: &str, password: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let address: SocketAddr = place.split('/').next().expect("an address").parse().expect("an address");
        let config = Arc::new(tls::client(ca_file));
        // Nobody drives the connection between two calls: no heartbeats.
        let uri = format!("amqps://{user}:{password}@{place}?frame_max=131072&heartbeat=0");
        let (connection, channel) = runtime.block_on(async {
            let tcp = TcpStream::connect(address).await.expect("RabbitMQ listens");
            let stream = TlsConnector::from(config).connect(address.ip().into(), tcp).await.expect("a handshake");
            let stream = Mutex::new(Some(stream.compat()));
            let connect = async move |_, _| {
                let stream = stream.lock().expect("not poisoned").take();
                let stream: Tls = stream.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted))?;
                Ok(AsyncTcpStream::Plain(stream))
            };
            let kit = async_rs::Runtime::new(Kit(Tokio::current()));
            let uri = uri.parse().expect("a URI");
            let opening = Connection::connector(uri, kit, connect, ConnectionProperties::default());
            let connection = timeout(PATIENCE, opening).await.expect("an answer").expect("a login");
            let channel = connection.create_channel().await.expect("a channel");
            channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirmations");
            (connection, channel)
        });
        Self { runtime, channel, connection }
    }

    /// Publishes bytes, and waits until every queue that they belong into has them.
    pub fn publish(&self, exchange: &str, routing_key: &str, body: &[u8]) {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let properties = BasicProperties::default().with_delivery_mode(2);
        let publish = async {
            let sent = self.channel.basic_publish(exchange.into(), routing_key.into(), options, body, properties);
            sent.await.expect("published").await.expect("an answer")
        };
        let confirmed = self.runtime.block_on(publish);
        assert!(matches!(confirmed, Confirmation::Ack(None)), "{exchange} {routing_key}: {confirmed:?}");
    }

    /// Whether the broker says of bytes that a queue would not take them.
    pub fn rejects(&self, exchange: &str, routing_key: &str, body: &[u8]) -> bool {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let publish = async {
            let sent = self.channel.basic_publish(exchange.into(), routing_key.into(), options, body, properties);
            sent.await.expect("published").await.expect("an answer")
        };
        matches!(self.runtime.block_on(publish), Confirmation::Nack(_))
    }

    /// Publishes what the broker is to refuse, on a channel of its own, and gives its words; none if it took it.
    pub fn refused(&self, exchange: &str, routing_key: &str, body: &[u8]) -> Option<String> {
        let publish = async {
            let channel = self.connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
            channel.basic_publish(exchange.into(), routing_key.into(), options, body, properties).await?.await?;
            Ok::<_, lapin::Error>(())
        };
        self.runtime.block_on(publish).err().map(|error| error.to_string())
    }

    /// Lets a queue get nothing any more of what goes to an exchange under this key, or everything again.
    pub fn bind(&self, queue: &str, exchange: &str, key: &str, bound: bool) {
        let (queue, exchange, key, none) = (queue.into(), exchange.into(), key.into(), FieldTable::default());
        let done = self.runtime.block_on(async {
            if bound {
                self.channel.queue_bind(queue, exchange, key, QueueBindOptions::default(), none).await
            } else {
                self.channel.queue_unbind(queue, exchange, key, none).await
            }
        });
        done.expect("the administrator may");
    }

    /// Begins to listen at an exchange.
    pub fn tap(&self, exchange: &str) -> Tap {
        let (channel, none) = (&self.channel, FieldTable::default);
        let declare = async {
            let queue = channel.queue_declare("".into(), QueueDeclareOptions::default(), none()).await?;
            let name = queue.name().to_string();
            let bind = channel.queue_bind(
                name.as_str().into(),
                exchange.into(),
                "#".into(),
                QueueBindOptions::default(),
                none(),
            );
            bind.await?;
            Ok::<_, lapin::Error>(name)
        };
        Tap(self.runtime.block_on(declare).expect("a queue of one's own"))
    }

    /// The next message that came, with its routing key, as soon as there is one.
    pub fn next(&self, tap: &Tap) -> (String, Vec<u8>) {
        until_some("a message at the broker", || {
            let options = BasicGetOptions { no_ack: true };
            let got =
                self.runtime.block_on(self.channel.basic_get(tap.0.as_str().into(), options)).expect("an answer")?;
            Some((got.delivery.routing_key.to_string(), got.delivery.data))
        })
    }

    /// Everything that came so far.
    pub fn all(&self, tap: &Tap) -> Vec<(String, Vec<u8>)> {
        let take = || {
            let options = BasicGetOptions { no_ack: true };
            let got = self.runtime.block_on(self.channel.basic_get(tap.0.as_str().into(), options));
            let got = got.expect("an answer")?;
            Some((got.delivery.routing_key.to_string(), got.delivery.data))
        };
        std::iter::from_fn(take).collect()
    }

    /// The next message of a kind.
    pub fn next_of(&self, tap: &Tap, kind: &str) -> Vec<u8> {
        loop {
            let (routing_key, body) = self.next(tap);
            if routing_key.ends_with(&format!(".{kind}")) {
                return body;
            }
        }
    }

    /// Throws away all that waits in a queue.
    pub fn purge(&self, queue: &str) {
        let purge = self.channel.queue_purge(queue.into(), QueuePurgeOptions::default());
        self.runtime.block_on(purge).expect("purged");
    }

    /// Ends listening.
    pub fn untap(&self, tap: Tap) {
        let delete = self.channel.queue_delete(tap.0.as_str().into(), QueueDeleteOptions::default());
        self.runtime.block_on(delete).expect("deleted");
    }
}

/// The transport is made here and handed over: lapin itself would speak plaintext.
#[derive(Debug, Clone)]
struct Kit(Tokio);

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.0.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(&self, future: F) -> Task<Self::Task<T>> {
        self.0.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(&self, work: F) -> Task<Self::Task<T>> {
        self.0.spawn_blocking(work)
    }
}

impl Reactor for Kit {
    type TcpStream = Tls;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Tls, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, wait: Duration) -> Self::Sleep {
        self.0.sleep(wait)
    }

    fn interval(&self, every: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(every)
    }

    fn tcp_connect_addr(&self, _addr: SocketAddr) -> impl Future<Output = io::Result<Tls>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
