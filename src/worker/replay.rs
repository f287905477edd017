//! Sends a kept dead letter on its way again.

use serde::Deserialize;

use super::clock;
use crate::broker::{Outgoing, Tags};
use crate::store::DeadLetterFull;

/// What the drain wrote about a message beside its body.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Headers {
    message_id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    time: Option<String>,
    traceparent: Option<String>,
    replay: u32,
}

/// The message that sends a letter again with a fresh count of attempts, to its own subscription or another one of
/// the same tenant: for [`Target::Retries`](crate::broker::Target::Retries). `cycle` is a number no replay had
/// before. The letter may be marked as replayed once the publish is confirmed.
///
/// The event keeps its id, so receivers can tell; `paperboy-replay` counts up.
pub fn message(letter: &DeadLetterFull, cycle: u32, subscription: Option<&str>) -> Outgoing {
    let tags = tags(letter, cycle, subscription, clock::now_ms());
    Outgoing::new(letter.body.clone(), tags)
}

fn tags(letter: &DeadLetterFull, cycle: u32, subscription: Option<&str>, now_ms: i64) -> Tags {
    // Headers that cannot be read cost the hints, not the replay: the body holds what matters.
    let headers: Headers = serde_json::from_slice(&letter.headers).unwrap_or_default();
    let row = &letter.row;
    Tags {
        message_id: headers.message_id.or_else(|| row.event_id.clone()),
        kind: headers.kind.or_else(|| row.event_type.clone()),
        time: headers.time,
        traceparent: headers.traceparent,
        subscription: subscription.map(str::to_owned).or_else(|| row.subscription.clone()),
        first_seen_ms: Some(now_ms),
        cycle,
        replay: headers.replay.saturating_add(1),
        ..Tags::default()
    }
}
