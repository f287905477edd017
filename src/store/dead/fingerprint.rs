//! What letters that died of the same have in common: the receiver's host, the class and the status.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{DeadLetter, Kind};
use crate::domain::cause::Cause;
use crate::domain::history::History;
use crate::domain::template::UrlTemplate;
use crate::store::Write;
use crate::store::pool::Session as _;

/// What a letter says of why it died.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// The word of a cause, or of the reason where no attempt was to blame.
    pub(super) class: String,
    pub(super) status: Option<u16>,
    pub(super) replays: u32,
}

impl Fingerprint {
    pub(super) fn of(letter: &DeadLetter) -> Fingerprint {
        let headers: Value = serde_json::from_slice(&letter.headers).unwrap_or_default();
        let replays = headers["replay"].as_u64().and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        let reason = letter.reason.split(':').next().unwrap_or_default();
        let by_attempt = letter.kind == Kind::Delivery && ["exhausted", "permanent"].contains(&reason);
        let history = History::parse(&letter.history);
        let Some(last) = history.entries().last().filter(|_| by_attempt) else {
            return Fingerprint { class: reason.to_owned(), status: None, replays };
        };
        let what = last.what();
        let class = match Cause::parse(what) {
            Some(cause) => cause.as_str().to_owned(),
            None => what.to_owned(),
        };
        Fingerprint { class, status: what.parse().ok(), replays }
    }
}

/// The host that a subscription delivers to, asked for once per call; none if the subscription is gone.
pub(super) async fn host(
    write: &mut Write<'_>,
    subscription: &str,
    known: &mut BTreeMap<String, Option<String>>,
) -> Result<Option<String>, sqlx::Error> {
    if let Some(host) = known.get(subscription) {
        return Ok(host.clone());
    }
    let document: Option<String> = write
        .query("SELECT document FROM subscriptions WHERE id = $1")
        .bind(subscription)
        .fetch_optional_value()
        .await?;
    // The document that may be shown: its secrets are masked, its host is not.
    let document: Option<Value> = document.and_then(|document| serde_json::from_str(&document).ok());
    let url = document.as_ref().and_then(|document| document["request"]["url"].as_str());
    let template = url.and_then(|url| UrlTemplate::parse(url).ok());
    let host = template.map(|(template, _)| template.host().to_owned()).filter(|host| !host.is_empty());
    known.insert(subscription.to_owned(), host.clone());
    Ok(host)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn fingerprint(kind: Kind, reason: &str, history: &str) -> (String, Option<u16>, u32) {
        let letter = DeadLetter {
            kind,
            reason: reason.into(),
            tenant: None,
            event_id: None,
            event_type: None,
            subscription: None,
            document_id: None,
            batch_id: None,
            cycle: 0,
            attempts: 1,
            body: Bytes::new(),
            headers: br#"{"replay":2}"#.to_vec(),
            history: history.into(),
            answer: Vec::new(),
            first_seen_ms: 0,
            dead_at_ms: 0,
        };
        let Fingerprint { class, status, replays } = Fingerprint::of(&letter);
        (class, status, replays)
    }

    #[test]
    fn the_last_attempt_is_to_blame_where_attempts_were_made_in_vain() {
        let history = "2026-11-22T09:00:07.120Z 503 41ms; 2026-11-22T09:00:09.120Z tls_expired 5ms";
        assert_eq!(fingerprint(Kind::Delivery, "exhausted", history), ("tls_expired".into(), None, 2));
        let history = "2026-11-22T09:00:07.120Z 404 41ms";
        assert_eq!(fingerprint(Kind::Delivery, "permanent", history), ("not_found".into(), Some(404), 2));
    }

    #[test]
    fn else_the_reason_is() {
        let history = "2026-11-22T09:00:07.120Z 503 41ms";
        assert_eq!(fingerprint(Kind::Delivery, "disabled", history), ("disabled".into(), None, 2));
        assert_eq!(fingerprint(Kind::Event, "unreadable: empty body", ""), ("unreadable".into(), None, 2));
        assert_eq!(fingerprint(Kind::Delivery, "permanent", ""), ("permanent".into(), None, 2));
    }
}
