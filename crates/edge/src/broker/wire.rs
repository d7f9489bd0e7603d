//! The transport under lapin: our own TLS stream, with a switch that ends it at once.
//!
//! lapin gets no way to open a socket by itself. It takes a stream that has finished its TLS handshake, so that there is
//! no plaintext path, and so that the handshake is ours to time and to explain.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use async_rs::Tokio;
use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use futures_util::io::{AsyncRead, AsyncWrite};
use futures_util::stream::Stream;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::client::TlsStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

/// A TLS stream for lapin.
pub(super) struct Wire {
    tls: Compat<TlsStream<TcpStream>>,
    line: Arc<Line>,
}

/// Ends a [`Wire`] when it is dropped, and tells when it has ended. lapin drives its socket in a thread of its own, which
/// waits for as long as the peer is silent: this is what gets it out of there.
pub(super) struct Switch(Arc<Line>);

struct Line {
    cut: AtomicBool,
    wakers: Mutex<[Option<Waker>; 2]>,
    ended: watch::Sender<bool>,
}

const READER: usize = 0;
const WRITER: usize = 1;

impl Wire {
    pub(super) fn new(tls: TlsStream<TcpStream>) -> (Self, Switch) {
        let ended = watch::Sender::new(false);
        let line = Arc::new(Line { cut: AtomicBool::new(false), wakers: Mutex::default(), ended });
        (Self { tls: tls.compat(), line: line.clone() }, Switch(line))
    }

    /// Runs `poll` on the TLS stream unless the switch was thrown, before or meanwhile.
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        side: usize,
        poll: impl FnOnce(Pin<&mut Compat<TlsStream<TcpStream>>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        // The waker first, then the look at the switch: thrown in between, it finds the waker.
        self.line.watch(cx, side);
        if self.line.cut.load(Ordering::SeqCst) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let polled = poll(Pin::new(&mut self.tls), cx);
        if matches!(polled, Poll::Ready(Err(_))) {
            self.line.end();
        }
        polled
    }
}

impl Switch {
    /// Returns when the stream has failed or the peer has closed it.
    pub(super) async fn ended(&self) {
        // The sender lives in self, so the channel cannot close.
        let _ = self.0.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

impl Drop for Switch {
    /// Every read and write fails from now on, and whoever waits for one is woken.
    fn drop(&mut self) {
        self.0.cut.store(true, Ordering::SeqCst);
        for waker in self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }
}

impl Line {
    fn end(&self) {
        self.ended.send_replace(true);
    }

    fn watch(&self, cx: &Context<'_>, side: usize) {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut wakers[side] {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.line.end();
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let polled = self.poll(cx, READER, |tls, cx| tls.poll_read(cx, into));
        if matches!(polled, Poll::Ready(Ok(0))) {
            self.line.end();
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(cx, WRITER, |tls, cx| tls.poll_write(cx, from))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, WRITER, |tls, cx| tls.poll_flush(cx))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, WRITER, |tls, cx| tls.poll_close(cx))
    }
}

/// The runtime that lapin is given: tokio's tasks and timers, and no sockets.
#[derive(Debug, Clone)]
pub(super) struct Kit(Tokio);

impl Kit {
    /// Bound to the runtime that this is called in.
    pub(super) fn current() -> Self {
        Self(Tokio::current())
    }
}

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
    type TcpStream = Wire;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Wire, _>(no_sockets())
    }

    fn sleep(&self, wait: Duration) -> Self::Sleep {
        self.0.sleep(wait)
    }

    fn interval(&self, every: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(every)
    }

    fn tcp_connect_addr(&self, _addr: SocketAddr) -> impl Future<Output = io::Result<Wire>> + Send + 'static {
        std::future::ready(Err(no_sockets()))
    }
}

fn no_sockets() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this runtime opens no sockets: the connection is made before")
}
