//! What is served: the status page at `/`, `/metrics`, `/api/v1/status`, `/api/v1/drills`, `/healthz`. All of it read-only.
//!
//! The driver alone knows anything that changes; each request asks it and waits for the answer. Each of the three answers that take work
//! is made at most every [`PAUSE`], however many ask for it. Drills that are over are in the archive (`drills`).

mod drills;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use holdfast_core::id::{ClusterId, ClusterName};
use holdfast_core::status::Status;
use holdfast_edge::listen::{self, Listener};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::history::Archive;
use crate::metrics::Snapshot;
use crate::page::{self, Page};

/// Questions that may wait for the driver. It answers each within a millisecond or so.
const REQUESTS_MAX: usize = 64;

/// How long an answer is waited for: [`PAUSE`], and the driver.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// What passes at least from one answer of a kind to the next: half of what passes between two looks of a screen.
const PAUSE: Duration = Duration::from_millis(500);

/// What the page may do: load this origin's style, script and pictures, and ask this origin. Nothing inline, no frame, no form,
/// and nothing that turns text into a document's content.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// What a request asks of the driver.
pub(crate) enum Question {
    /// What the metrics are written from.
    Metrics(oneshot::Sender<Box<Snapshot>>),
    /// Everything known.
    Status(oneshot::Sender<Box<Status>>),
    /// The clusters that are watched, by name.
    Clusters(oneshot::Sender<BTreeMap<ClusterName, ClusterId>>),
    /// Whether anybody is there.
    Alive(oneshot::Sender<()>),
}

/// What requests share.
struct Desk {
    questions: mpsc::Sender<Question>,
    page: Counter<Page>,
    metrics: Counter<Bytes>,
    status: Counter<Bytes>,
    archive: Option<Archive>,
}

/// Where one kind of answer is handed out. Whoever asks less than [`PAUSE`] after the last one was made waits for the next, and
/// all who wait get that one: nobody is told what was so before they asked.
struct Counter<T>(Mutex<Option<(Instant, T)>>);

/// Serves until the runtime ends. The driver answers what comes out of the receiver.
pub(crate) fn serve(listener: Listener, archive: Option<Archive>) -> mpsc::Receiver<Question> {
    let (questions, asked) = mpsc::channel(REQUESTS_MAX);
    let router = Router::new()
        .route("/", get(page))
        .route("/page.css", get(async || text("text/css; charset=utf-8", page::style())))
        .route("/page.js", get(async || text("text/javascript; charset=utf-8", page::SCRIPT)))
        .route("/icons/{name}", get(icon))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .route("/api/v1/drills", get(drills::list))
        .route("/api/v1/drills/{drill}", get(drills::one))
        .route("/healthz", get(health))
        .with_state(Arc::new(Desk {
            questions,
            page: Counter::new(),
            metrics: Counter::new(),
            status: Counter::new(),
            archive,
        }));
    tokio::spawn(listen::serve(listener, router));
    asked
}

/// The page; its digest alone, where the reader has it already.
async fn page(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Response {
    let made = desk.page.next(async || Some(page::render(&*desk.ask(Question::Status).await?))).await;
    let Some(Page { html, digest }) = made else { return busy() };
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
    let written = async || {
        let snapshot = desk.ask(Question::Metrics).await?;
        tokio::task::spawn_blocking(move || Bytes::from(snapshot.render())).await.ok()
    };
    match desk.metrics.next(written).await {
        Some(metrics) => text("text/plain; version=0.0.4; charset=utf-8", metrics),
        None => busy(),
    }
}

async fn status(State(desk): State<Arc<Desk>>) -> Response {
    let json = async || {
        let status = desk.ask(Question::Status).await?;
        let json = serde_json::to_vec(&status);
        json.inspect_err(|error| tracing::error!(%error, "the status could not be written as JSON"))
            .ok()
            .map(Bytes::from)
    };
    match desk.status.next(json).await {
        Some(json) => text("application/json", json),
        None => busy(),
    }
}

async fn health(State(desk): State<Arc<Desk>>) -> Response {
    match timeout(ANSWER_DEADLINE, desk.ask(Question::Alive)).await {
        Ok(Some(())) => text("text/plain; charset=utf-8", "ok\n"),
        _ => busy(),
    }
}

impl Desk {
    async fn ask<T>(&self, question: fn(oneshot::Sender<T>) -> Question) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.questions.send(question(answer)).await.ok()?;
        answered.await.ok()
    }
}

impl<T: Clone> Counter<T> {
    fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// The next answer; none where it cannot be had within [`ANSWER_DEADLINE`].
    async fn next(&self, make: impl AsyncFnOnce() -> Option<T>) -> Option<T> {
        let asked_at = Instant::now();
        let next = async {
            let mut last = self.0.lock().await;
            match &*last {
                Some((begun_at, answer)) if *begun_at >= asked_at => return Some(answer.clone()),
                Some((begun_at, _)) => sleep_until(*begun_at + PAUSE).await,
                None => {}
            }
            let begun_at = Instant::now();
            let answer = make().await?;
            *last = Some((begun_at, answer.clone()));
            Some(answer)
        };
        timeout(ANSWER_DEADLINE, next).await.ok()?
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn many_who_ask_at_once_cost_no_more_than_two() {
        let (counter, made) = (Arc::new(Counter::new()), Arc::new(AtomicUsize::new(0)));
        let asking = (0..50).map(|_| {
            let (counter, made) = (Arc::clone(&counter), Arc::clone(&made));
            tokio::spawn(async move { counter.next(async || Some(made.fetch_add(1, Ordering::SeqCst))).await })
        });
        let asking: Vec<_> = asking.collect();
        let mut given = Vec::new();
        for asked in asking {
            given.push(asked.await.expect("it ends"));
        }
        assert_eq!(given[0], Some(0), "the first does not wait");
        assert!(
            given[1..].iter().all(|answer| *answer == Some(1)),
            "who asked later is told what is so later: {given:?}"
        );
        assert_eq!(made.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_answer_that_cannot_be_had_is_not_the_last_one() {
        let counter = Counter::new();
        assert_eq!(counter.next(async || Some(1)).await, Some(1));
        assert_eq!(counter.next(async || None).await, None);
        assert_eq!(counter.next(async || Some(2)).await, Some(2));
    }
}
