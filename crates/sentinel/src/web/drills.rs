//! Drills that are over, as they were signed: `/api/v1/drills?cluster=NAME[&limit=N]`, the newest first, and
//! `/api/v1/drills/ID?cluster=NAME`. A cluster may also be named by its id.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use holdfast_core::id::{ClusterId, ClusterName, DrillId};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{ANSWER_DEADLINE, Desk, Question, busy, text};
use crate::history::{Archive, Kept, LIST_MAX};

/// How many are listed where nobody says.
const LIST_DEFAULT: u32 = 32;

/// One look-up at a time: each may wait for the disk, and there are people who ask in a loop.
static TURN: Mutex<()> = Mutex::const_new(());

/// What can be asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    cluster: Option<String>,
    limit: Option<u32>,
}

pub(super) async fn list(State(desk): State<Arc<Desk>>, RawQuery(query): RawQuery) -> Response {
    let query = match Query::parse(query.as_deref().unwrap_or_default()) {
        Ok(query) => query,
        Err(why) => return refused(StatusCode::BAD_REQUEST, &why),
    };
    let limit = query.limit.unwrap_or(LIST_DEFAULT);
    look_up(&desk, query.cluster, move |archive, cluster| {
        let drills = archive.list(cluster, limit)?;
        Ok(Some(json!({ "drills": drills })))
    })
    .await
}

pub(super) async fn one(
    State(desk): State<Arc<Desk>>,
    Path(drill): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let query = match Query::parse(query.as_deref().unwrap_or_default()) {
        Ok(Query { limit: Some(_), .. }) => return refused(StatusCode::BAD_REQUEST, "one drill has no limit"),
        Ok(query) => query,
        Err(why) => return refused(StatusCode::BAD_REQUEST, &why),
    };
    let Ok(drill) = drill.parse::<DrillId>() else {
        return refused(StatusCode::BAD_REQUEST, "a drill's id is 32 lower-case hexadecimal digits");
    };
    look_up(&desk, query.cluster, move |archive, cluster| {
        let kept: Option<Kept> = archive.one(cluster, drill)?;
        Ok(kept.map(|kept| json!(kept)))
    })
    .await
}

/// Finds the cluster, and looks in the archive for what belongs to it.
async fn look_up(
    desk: &Desk,
    cluster: Option<String>,
    find: impl FnOnce(&Archive, ClusterId) -> rusqlite::Result<Option<serde_json::Value>> + Send + 'static,
) -> Response {
    let Some(archive) = desk.archive.clone() else {
        return refused(
            StatusCode::NOT_FOUND,
            "drills are not kept: sentinel.toml names no database, or it cannot be used",
        );
    };
    let Some(clusters) = timeout(ANSWER_DEADLINE, desk.ask(Question::Clusters)).await.ok().flatten() else {
        return busy();
    };
    let is_it = |(known, id): &(&ClusterName, &ClusterId)| {
        cluster.as_ref().is_none_or(|c| known.as_str() == c || id.to_string() == *c)
    };
    let meant: Vec<_> = clusters.iter().filter(is_it).map(|(_, id)| *id).collect();
    let [cluster] = meant[..] else {
        let why = match cluster {
            Some(_) => "this sentinel watches no such cluster",
            None => "name the cluster: ?cluster=NAME",
        };
        return refused(StatusCode::BAD_REQUEST, why);
    };
    let found = timeout(ANSWER_DEADLINE, async {
        let turn = TURN.lock().await;
        let found = tokio::task::spawn_blocking(move || find(&archive, cluster)).await;
        drop(turn);
        found
    });
    match found.await {
        Ok(Ok(Ok(Some(json)))) => text("application/json", json.to_string()),
        Ok(Ok(Ok(None))) => {
            refused(StatusCode::NOT_FOUND, "no such drill is kept: it runs still, or nobody heard how it ended")
        }
        Ok(Ok(Err(error))) => {
            tracing::error!(%error, "drills could not be looked up");
            busy()
        }
        Ok(Err(_)) | Err(_) => busy(),
    }
}

fn refused(code: StatusCode, why: &str) -> Response {
    (code, text("text/plain; charset=utf-8", format!("{why}\n"))).into_response()
}

impl Query {
    /// Names, ids and numbers have no letter that would have to be escaped.
    fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("cluster", name)) if parsed.cluster.is_none() && name.parse::<ClusterName>().is_ok() => {
                    parsed.cluster = Some(name.to_owned());
                }
                Some(("limit", number)) if parsed.limit.is_none() => {
                    let limit = number.parse().ok().filter(|limit| (1..=LIST_MAX).contains(limit));
                    parsed.limit = Some(limit.ok_or_else(|| format!("limit is a number from 1 to {LIST_MAX}"))?);
                }
                _ => return Err("cluster=NAME and limit=N can be asked for, each once".to_owned()),
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_strictly() {
        let asked = |query| Query::parse(query);
        let cluster = Some("prod".to_owned());
        assert_eq!(asked(""), Ok(Query::default()));
        assert_eq!(asked("cluster=prod&limit=100"), Ok(Query { cluster: cluster.clone(), limit: Some(100) }));
        assert_eq!(asked("limit=1&cluster=prod"), Ok(Query { cluster, limit: Some(1) }));
        for wrong in [
            "limit=0",
            "limit=101",
            "limit=-1",
            "limit=99999999999999999999",
            "limit=a",
            "cluster=",
            "cluster=Prod",
            "cluster=%70rod",
            "cluster=a&cluster=b",
            "limit=1&limit=2",
            "drop=table",
            "cluster",
            "&&=",
        ] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }
}
