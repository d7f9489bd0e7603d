//! What is served: the status page at `/`, `/metrics`, `/api/v1/status`, `/healthz`. All of it read-only.
//!
//! The driver alone knows anything; each request asks it and waits for the answer. The page is made at most every
//! [`PAGE_KEPT`], however many screens ask for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use holdfast_core::status::Status;
use holdfast_edge::listen::{Listener, Served};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::page::{self, Page};

/// Requests that may wait for the driver. It answers each within a millisecond or so.
const REQUESTS_MAX: usize = 64;

/// How long an answer of the driver is waited for.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// How long a page is handed out again before the next is made: half of what passes between two looks of a screen.
const PAGE_KEPT: Duration = Duration::from_millis(500);

/// What the page may do: load this origin's style, script and pictures, and ask this origin. Nothing inline, no frame, no form,
/// and nothing that turns text into a document's content.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// What a request asks of the driver.
pub(crate) enum Question {
    /// The metrics, in Prometheus' text format.
    Metrics(oneshot::Sender<String>),
    /// Everything known.
    Status(oneshot::Sender<Box<Status>>),
}

/// What requests share.
struct Desk {
    questions: mpsc::Sender<Question>,
    page: Mutex<Option<(Instant, Page)>>,
}

/// Serves until the runtime ends. The driver answers what comes out of the receiver.
pub(crate) fn serve(listener: Listener) -> mpsc::Receiver<Question> {
    let (questions, asked) = mpsc::channel(REQUESTS_MAX);
    let router = Router::new()
        .route("/", get(page))
        .route("/page.css", get(async || text("text/css; charset=utf-8", page::STYLE)))
        .route("/page.js", get(async || text("text/javascript; charset=utf-8", page::SCRIPT)))
        .route("/icons/{name}", get(icon))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .route("/healthz", get(health))
        .with_state(Arc::new(Desk { questions, page: Mutex::new(None) }));
    tokio::spawn(async move {
        // Ends only with the runtime: accepting goes on after every failure.
        let _ = axum::serve(Bounded(listener), router).await;
    });
    asked
}

/// The edge's listener, as axum wants one.
struct Bounded(Listener);

impl axum::serve::Listener for Bounded {
    type Io = Served;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Served, SocketAddr) {
        self.0.accept().await
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.0.address())
    }
}

/// The page; its digest alone, where the reader has it already.
async fn page(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Response {
    let Some(Page { html, digest }) = desk.page().await else { return busy() };
    let tag = format!("\"{digest}\"");
    let known = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = match known {
        true => (StatusCode::NOT_MODIFIED, text("text/html; charset=utf-8", "")).into_response(),
        false => text("text/html; charset=utf-8", html),
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

async fn icon(Path(name): Path<String>) -> Response {
    let known = page::State::ALL.into_iter().find(|state| name.strip_suffix(".svg") == Some(state.as_str()));
    match known {
        Some(state) => text("image/svg+xml", state.icon()),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn metrics(State(desk): State<Arc<Desk>>) -> Response {
    match desk.ask(Question::Metrics).await {
        Some(metrics) => text("text/plain; version=0.0.4; charset=utf-8", metrics),
        None => busy(),
    }
}

async fn status(State(desk): State<Arc<Desk>>) -> Response {
    let Some(status) = desk.ask(Question::Status).await else { return busy() };
    match serde_json::to_vec(&status) {
        Ok(json) => text("application/json", json),
        Err(error) => {
            tracing::error!(%error, "the status could not be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn health(State(desk): State<Arc<Desk>>) -> Response {
    match desk.ask(Question::Status).await {
        Some(_) => text("text/plain; charset=utf-8", "ok\n"),
        None => busy(),
    }
}

impl Desk {
    /// The page as it is now, or was less than [`PAGE_KEPT`] ago. Whoever asks while it is made waits for it.
    async fn page(&self) -> Option<Page> {
        let mut kept = self.page.lock().await;
        if let Some((_, page)) = kept.as_ref().filter(|(made_at, _)| made_at.elapsed() < PAGE_KEPT) {
            return Some(page.clone());
        }
        // An old page is never handed out for want of a new one.
        *kept = None;
        let status = self.ask(Question::Status).await?;
        let page = page::render(&status);
        *kept = Some((Instant::now(), page.clone()));
        Some(page)
    }

    async fn ask<T>(&self, question: fn(oneshot::Sender<T>) -> Question) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        timeout(ANSWER_DEADLINE, async {
            self.questions.send(question(answer)).await.ok()?;
            answered.await.ok()
        })
        .await
        .ok()?
    }
}

fn text(kind: &'static str, body: impl IntoResponse) -> Response {
    let headers: [(HeaderName, HeaderValue); 6] = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, body).into_response()
}

fn busy() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the sentinel does not answer\n").into_response()
}
