//! Who is listened to: whoever shows the token, in few words, one after the other. Everybody else is refused, and counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use holdfast_core::id::Principal;
use holdfast_edge::exposition::Exposition;
use holdfast_edge::listen::{self, Listener};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::alerts::Notification;
use super::config::{Hook, WebhookToken};
use super::desk::{Done, Job, Outcome, Wanted};

/// The largest notification, in bytes.
const BODY_MAX: usize = 256 * 1024;

/// How long a notification may take to come.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// How long what came of it is waited for. It goes on all the same; the notification comes again, and is known.
const DONE_DEADLINE: Duration = Duration::from_secs(60);

/// What it tells of itself.
const GAUGES: [(&str, &str); 1] = [("holdfast_build_info", "1; the version is in the label")];
const COUNTERS: [(&str, &str); 1] =
    [("holdfast_messages_rejected_total", "Messages that the receiver refused, by reason")];

/// Why requests are refused.
const REASONS: [&str; 4] = ["flood", "forged", "malformed", "oversized"];

/// What requests share.
pub(super) struct Door {
    receiver: Principal,
    token: WebhookToken,
    /// Of each action its name, and the labels of its alerts.
    actions: Vec<(String, BTreeMap<String, String>)>,
    jobs: mpsc::Sender<Job>,
    /// How many requests were refused, by reason.
    refused: Mutex<BTreeMap<&'static str, u32>>,
}

/// Why a request was refused: under which reason it is counted, with which status, and what is said.
struct Refused(&'static str, StatusCode, String);

/// Serves until the runtime ends.
pub(super) fn serve(listener: Listener, door: Door) {
    let router = Router::new()
        .route("/alerts", post(alerts))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .with_state(Arc::new(door));
    tokio::spawn(listen::serve(listener, router));
}

impl Door {
    /// A door to whoever takes the jobs.
    pub(super) fn new(hook: &Hook, jobs: mpsc::Sender<Job>) -> Self {
        let actions = hook.actions.iter().map(|(name, action)| (name.clone(), action.labels.clone())).collect();
        Self {
            receiver: hook.restrictor.principal.clone(),
            token: hook.token,
            actions,
            jobs,
            refused: Mutex::default(),
        }
    }

    fn count(&self, reason: &'static str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let total = refused.entry(reason).or_default();
        *total = total.saturating_add(1);
    }

    fn render(&self) -> String {
        let mut told = Exposition::new(&GAUGES, &COUNTERS);
        told.tell("holdfast_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        // Each, also at zero: of a series that begins at one, Prometheus sees no increase.
        for reason in REASONS {
            let labels = [("receiver", self.receiver.as_str()), ("reason", reason)];
            told.tell("holdfast_messages_rejected_total", &labels, refused.get(reason).copied().unwrap_or(0));
        }
        told.render()
    }

    /// What a request asks for.
    async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Wanted, Refused> {
        // Before anything of it is read.
        let shown = headers.get(AUTHORIZATION).and_then(|shown| shown.as_bytes().strip_prefix(b"Bearer "));
        if !shown.is_some_and(|shown| self.token.is(shown)) {
            let what = "show the token: authorization: {type: Bearer, credentials_file: FILE} in http_config";
            return Err(Refused("forged", StatusCode::UNAUTHORIZED, what.to_owned()));
        }
        let late =
            || Refused("malformed", StatusCode::REQUEST_TIMEOUT, "the notification did not come in time".to_owned());
        let body = timeout(BODY_DEADLINE, to_bytes(body, BODY_MAX)).await.map_err(|_| late())?.map_err(|_| {
            let what = format!(
                "a notification has at most {BODY_MAX} bytes: set max_alerts: 100 in webhook_configs, and group by more labels"
            );
            Refused("oversized", StatusCode::PAYLOAD_TOO_LARGE, what)
        })?;
        let notification = Notification::parse(&body)
            .map_err(|error| Refused("malformed", StatusCode::BAD_REQUEST, error.to_string()))?;
        let mut wanted = Wanted::new();
        for alert in notification.firing() {
            for (name, _) in self.actions.iter().filter(|(_, labels)| alert.has(labels)) {
                wanted.entry(name.clone()).or_default().insert(alert.instance());
            }
        }
        Ok(wanted)
    }

    async fn hand_over(&self, wanted: Wanted) -> Result<Vec<Done>, Refused> {
        let (done, outcome) = oneshot::channel();
        let job = Job { wanted, done };
        let busy = || {
            Refused("flood", StatusCode::SERVICE_UNAVAILABLE, "others are being dealt with: send it again".to_owned())
        };
        self.jobs.try_send(job).map_err(|_| busy())?;
        timeout(DONE_DEADLINE, outcome).await.ok().and_then(Result::ok).ok_or_else(busy)
    }
}

async fn alerts(State(door): State<Arc<Door>>, headers: HeaderMap, body: Body) -> Response {
    let wanted = match door.read(&headers, body).await {
        Ok(wanted) if wanted.is_empty() => return Json(json!({"done": []})).into_response(),
        Ok(wanted) => wanted,
        Err(refused) => return refuse(&door, refused),
    };
    match door.hand_over(wanted).await {
        Ok(done) => {
            let status = status_of(&done);
            if status == StatusCode::TOO_MANY_REQUESTS {
                door.count("flood");
            }
            (status, Json(json!({"done": done}))).into_response()
        }
        Err(refused) => refuse(&door, refused),
    }
}

fn refuse(door: &Door, Refused(reason, status, what): Refused) -> Response {
    tracing::warn!(reason, "a request was refused");
    door.count(reason);
    (status, Json(json!({"error": what}))).into_response()
}

/// By which Alertmanager sends a notification again, or does not.
fn status_of(done: &[Done]) -> StatusCode {
    if done.iter().any(|done| matches!(done.outcome, Outcome::Failed { .. })) {
        StatusCode::SERVICE_UNAVAILABLE
    } else if done.iter().any(|done| matches!(done.outcome, Outcome::TooOften { .. })) {
        StatusCode::TOO_MANY_REQUESTS
    } else {
        StatusCode::OK
    }
}

async fn metrics(State(door): State<Arc<Door>>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], door.render()).into_response()
}

#[cfg(test)]
mod tests;
