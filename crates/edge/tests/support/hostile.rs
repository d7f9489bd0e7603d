//! A client that obeys no rule of ours: any exchange, any key, any name. It shares no code with the product's.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_rs::Tokio;
use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use futures_util::io::{AsyncRead, AsyncWrite};
use futures_util::stream::Stream;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{AsyncTcpStream, BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ErrorKind};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::PATIENCE;
use super::rabbit::{Rabbit, password};

type Tls = Compat<TlsStream<TcpStream>>;

/// A logged-in user.
pub struct Hostile {
    pub user: String,
    connection: Connection,
}

/// What the broker said to an attempt: its code, 0 for a silent refusal, and its text.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    pub code: u16,
    pub text: String,
}

impl Hostile {
    pub async fn login(rabbit: &Rabbit, user: &str) -> Self {
        Self::login_with(rabbit, user, &password(user)).await.expect("a good login")
    }

    pub async fn login_with(rabbit: &Rabbit, user: &str, password: &str) -> Result<Self, Refused> {
        let tcp = TcpStream::connect(("127.0.0.1", rabbit.port)).await.expect("RabbitMQ listens");
        let name = "127.0.0.1".try_into().expect("a name");
        let tls = TlsConnector::from(rabbit.authority.client()).connect(name, tcp).await.expect("a handshake");
        let tls = Mutex::new(Some(tls.compat()));
        let uri = format!("amqps://{user}:{password}@127.0.0.1:{}/holdfast?frame_max=131072", rabbit.port);
        let uri = uri.parse().expect("a uri");
        let connect = async move |_, _| {
            let tls: Tls = tls
                .lock()
                .expect("not poisoned")
                .take()
                .ok_or(io::ErrorKind::ConnectionAborted)
                .map_err(io::Error::from)?;
            Ok(AsyncTcpStream::Plain(tls))
        };
        let opening = Connection::connector(
            uri,
            async_rs::Runtime::new(Kit(Tokio::current())),
            connect,
            ConnectionProperties::default(),
        );
        let connection = refusal(timeout(PATIENCE, opening).await.expect("an answer"))?;
        Ok(Self { user: user.to_owned(), connection })
    }

    /// Tries something on a channel of its own.
    pub async fn attempt<T, F: Future<Output = lapin::Result<T>>>(
        &self,
        attempt: impl FnOnce(Channel) -> F,
    ) -> Result<T, Refused> {
        let channel = self.connection.create_channel().await.expect("a channel");
        refusal(timeout(PATIENCE, attempt(channel)).await.expect("an answer"))
    }

    /// Publishes as itself and waits for the confirmation.
    pub async fn publish(&self, exchange: &str, key: &str, body: &[u8]) -> Result<(), Refused> {
        self.publish_as(&self.user, exchange, key, body).await
    }

    /// Publishes under any name and waits for the confirmation.
    pub async fn publish_as(&self, user: &str, exchange: &str, key: &str, body: &[u8]) -> Result<(), Refused> {
        let confirmation = self
            .attempt(async |channel: Channel| {
                channel.confirm_select(ConfirmSelectOptions::default()).await?;
                let options = BasicPublishOptions { mandatory: true, immediate: false };
                let properties = BasicProperties::default().with_user_id(user.into()).with_delivery_mode(2);
                channel.basic_publish(exchange.into(), key.into(), options, body, properties).await?.await
            })
            .await?;
        match confirmation {
            Confirmation::Ack(None) => Ok(()),
            other => Err(Refused { code: 0, text: format!("{other:?}") }),
        }
    }

    /// How many messages a queue has ready, and how many readers.
    pub async fn count(&self, queue: &str) -> (u32, u32) {
        let options = lapin::options::QueueDeclareOptions { passive: true, ..Default::default() };
        let asked = self.attempt(async |channel: Channel| {
            channel.queue_declare(queue.into(), options, FieldTable::default()).await
        });
        let state = asked.await.expect("a queue");
        (state.message_count(), state.consumer_count())
    }
}

fn refusal<T>(result: lapin::Result<T>) -> Result<T, Refused> {
    result.map_err(|error| match error.kind() {
        ErrorKind::ProtocolError(refused) => {
            Refused { code: refused.get_id(), text: refused.get_message().as_str().to_owned() }
        }
        other => Refused { code: 0, text: format!("{other:?}") },
    })
}

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

/// A shared server, for the tests of one file that leave it as they find it.
pub type Shared = std::sync::LazyLock<Arc<Rabbit>>;
