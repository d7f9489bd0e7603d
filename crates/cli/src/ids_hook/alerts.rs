//! What Alertmanager posts: the JSON of its webhook, version 4, as far as anything here goes by it. Other fields come and go with
//! its versions, and are passed over.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The version of the webhook's JSON.
const VERSION: &str = "4";

/// The most alerts of one notification that are looked at. More are refused: a group of that size is a mistake in the grouping.
pub(super) const ALERTS_MAX: usize = 512;

/// A notification.
#[derive(Debug, Deserialize)]
pub(super) struct Notification {
    version: String,
    alerts: Vec<Alert>,
}

/// An alert.
#[derive(Debug, Deserialize)]
pub(super) struct Alert {
    status: Status,
    labels: BTreeMap<String, String>,
    #[serde(rename = "startsAt")]
    starts_at: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    Firing,
    Resolved,
}

/// Why a body is no notification. The fault of whoever posts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotificationError {
    /// Not JSON, or a field missing or of another type.
    #[error("the body is not the JSON of Alertmanager's webhook: {0}")]
    Form(String),
    /// Another version.
    #[error("the webhook's version is not {VERSION}")]
    Version,
    /// Too many alerts.
    #[error(
        "more than {ALERTS_MAX} alerts in one notification: set max_alerts: 100 in webhook_configs, and group by more labels"
    )]
    Many,
}

impl Notification {
    /// Reads a body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, NotificationError> {
        let notification: Self = serde_json::from_slice(body).map_err(|error| {
            // Where, and not what stands there: that is somebody else's text.
            NotificationError::Form(format!("line {}, column {}", error.line(), error.column()))
        })?;
        if notification.version != VERSION {
            return Err(NotificationError::Version);
        }
        if notification.alerts.len() > ALERTS_MAX {
            return Err(NotificationError::Many);
        }
        Ok(notification)
    }

    /// The alerts that fire. One that was resolved is over, and ends nothing: operators do.
    pub(super) fn firing(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.iter().filter(|alert| alert.status == Status::Firing)
    }
}

impl Alert {
    /// Whether it has each of these labels with this value.
    pub(super) fn has(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }

    /// By which the same alert is known again when it is sent again: SHA-256, in hexadecimal, of its labels and of when it began to
    /// fire.
    pub(super) fn instance(&self) -> String {
        let mut digest = Sha256::new();
        let labels = self.labels.iter().flat_map(|(name, value)| [name, value]);
        for part in labels.chain([&self.starts_at]) {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        hex::encode(digest.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the documentation of Alertmanager has it, with what its newer versions add.
    fn body(alerts: &str) -> String {
        format!(
            "{{\"version\":\"4\",\"groupKey\":\"{{}}:{{}}\",\"truncatedAlerts\":0,\"status\":\"firing\",\"receiver\":\"ids\",\
             \"groupLabels\":{{}},\"commonLabels\":{{}},\"commonAnnotations\":{{}},\"externalURL\":\"http://am:9093\",\
             \"alerts\":[{alerts}]}}"
        )
    }

    fn alert(status: &str, node: &str, starts_at: &str) -> String {
        format!(
            "{{\"status\":\"{status}\",\"labels\":{{\"alertname\":\"Intruder\",\"node\":\"{node}\"}},\"annotations\":{{}},\
             \"startsAt\":\"{starts_at}\",\"endsAt\":\"0001-01-01T00:00:00Z\",\"generatorURL\":\"\",\"fingerprint\":\"c0ffee\"}}"
        )
    }

    fn labels(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn alerts_that_fire_are_known_by_their_labels() {
        let both = [alert("firing", "a", "1"), alert("resolved", "b", "1"), alert("firing", "a", "2")].join(",");
        let notification = Notification::parse(body(&both).as_bytes()).expect("good");
        let firing: Vec<_> = notification.firing().collect();
        assert_eq!(firing.len(), 2, "what is resolved does nothing");
        assert!(firing[0].has(&labels(&[("alertname", "Intruder")])));
        assert!(firing[0].has(&labels(&[("alertname", "Intruder"), ("node", "a")])));
        for other in [[("alertname", "intruder")], [("node", "a ")], [("nodes", "a")]] {
            assert!(!firing[0].has(&labels(&other)), "{other:?}");
        }
        assert_ne!(firing[0].instance(), firing[1].instance(), "it fires anew");
        let again = Notification::parse(body(&alert("firing", "a", "1")).as_bytes()).expect("good");
        assert_eq!(again.firing().next().expect("one").instance(), firing[0].instance(), "the same is known again");
    }

    #[test]
    fn labels_do_not_run_into_each_other() {
        let instance = |labels: &str| {
            let alert = format!("{{\"status\":\"firing\",\"labels\":{labels},\"startsAt\":\"1\"}}");
            Notification::parse(body(&alert).as_bytes()).expect("good").firing().next().expect("one").instance()
        };
        assert_ne!(instance("{\"a\":\"bc\"}"), instance("{\"ab\":\"c\"}"));
        assert_ne!(instance("{\"a\":\"b\",\"c\":\"d\"}"), instance("{\"a\":\"bcd\"}"));
    }

    #[test]
    fn what_is_no_notification_is_refused() {
        let good = body(&alert("firing", "a", "1"));
        let many = vec![alert("firing", "a", "1"); ALERTS_MAX + 1].join(",");
        for bad in [
            String::new(),
            "[]".to_owned(),
            "[".repeat(200_000),
            good[..good.len() - 1].to_owned(),
            good.replace("\"firing\",\"labels\"", "\"on-fire\",\"labels\""),
            good.replace("\"labels\":{", "\"labels\":{\"x\":1,"),
            good.replace("\"version\":\"4\"", "\"version\":4"),
            good.replace("\"version\":\"4\",", ""),
            good.replace("\"startsAt\":\"1\",", ""),
        ] {
            let refused = Notification::parse(bad.as_bytes()).expect_err(&bad);
            assert!(matches!(refused, NotificationError::Form(_)), "{refused}");
            assert!(!refused.to_string().contains("on-fire"), "nobody's text is repeated");
        }
        let other = good.replace("\"version\":\"4\"", "\"version\":\"5\"");
        assert_eq!(Notification::parse(other.as_bytes()).err(), Some(NotificationError::Version));
        assert_eq!(Notification::parse(body(&many).as_bytes()).err(), Some(NotificationError::Many));
    }
}
