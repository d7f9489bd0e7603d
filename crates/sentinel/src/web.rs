//! What is served: `/metrics`, `/api/v1/status`, `/healthz`, and a page of text that says so. All of it read-only.
//!
//! The driver alone knows anything; each request asks it and waits for the answer.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use holdfast_core::status::Status;
use holdfast_edge::listen::{Listener, Served};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Requests that may wait for the driver. It answers each within a millisecond or so.
const REQUESTS_MAX: usize = 64;

/// How long an answer of the driver is waited for.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

const INDEX: &str = "Holdfast sentinel\n\n/metrics         for Prometheus\n/api/v1/status  everything known, in JSON\n\
                     /healthz        whether this process is alive\n";

/// What a request asks of the driver.
pub(crate) enum Question {
    /// The metrics, in Prometheus' text format.
    Metrics(oneshot::Sender<String>),
    /// Everything known.
    Status(oneshot::Sender<Box<Status>>),
}

/// Serves until the runtime ends. The driver answers what comes out of the receiver.
pub(crate) fn serve(listener: Listener) -> mpsc::Receiver<Question> {
    let (questions, asked) = mpsc::channel(REQUESTS_MAX);
    let router = Router::new()
        .route("/", get(async || text("text/plain; charset=utf-8", INDEX)))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .route("/healthz", get(health))
        .with_state(questions);
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

type Questions = State<mpsc::Sender<Question>>;

async fn metrics(State(questions): Questions) -> Response {
    match ask(&questions, Question::Metrics).await {
        Some(metrics) => text("text/plain; version=0.0.4; charset=utf-8", metrics),
        None => busy(),
    }
}

async fn status(State(questions): Questions) -> Response {
    let Some(status) = ask(&questions, Question::Status).await else { return busy() };
    match serde_json::to_vec(&status) {
        Ok(json) => text("application/json", json),
        Err(error) => {
            tracing::error!(%error, "the status could not be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn health(State(questions): Questions) -> Response {
    match ask(&questions, Question::Status).await {
        Some(_) => text("text/plain; charset=utf-8", "ok\n"),
        None => busy(),
    }
}

async fn ask<T>(questions: &mpsc::Sender<Question>, question: fn(oneshot::Sender<T>) -> Question) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    timeout(ANSWER_DEADLINE, async {
        questions.send(question(answer)).await.ok()?;
        answered.await.ok()
    })
    .await
    .ok()?
}

fn text(kind: &'static str, body: impl IntoResponse) -> Response {
    let headers: [(HeaderName, HeaderValue); 3] = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, body).into_response()
}

fn busy() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the sentinel does not answer\n").into_response()
}
