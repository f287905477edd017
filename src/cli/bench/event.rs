//! The events of a bench: alike in size, each for one endpoint, with the moment they were published inside.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::broker::{Outgoing, Tags};

const KIND: &str = "bench.event";
const STAMP: &[u8] = br#""sent_us":"#;
/// The least an event can have with everything that stands in it.
pub(super) const BYTES_MIN: usize = 160;

/// Makes events that no other run has.
pub(super) struct Events {
    pub(super) run: String,
    pub(super) endpoints: usize,
    pub(super) body_bytes: usize,
}

impl Events {
    /// The event with this number; its moment is now.
    pub(super) fn make(&self, number: usize) -> Outgoing {
        let id = format!("{}-{number}", self.run);
        let tenant = tenant(number % self.endpoints.max(1));
        let mut body = format!(
            r#"{{"id":"{id}","type":"{KIND}","tenant":"{tenant}","data":{{"sent_us":{},"text":""#,
            now_us()
        );
        let end = r#""}}"#;
        let text_bytes = self.body_bytes.saturating_sub(body.len() + end.len());
        body.extend(std::iter::repeat_n('x', text_bytes));
        body.push_str(end);
        let tags = Tags { message_id: Some(id), kind: Some(KIND.to_owned()), ..Tags::default() };
        Outgoing { body: Bytes::from(body), tags }
    }
}

/// One subscription for each endpoint, each of a tenant of its own.
pub(super) fn subscriptions(endpoints: usize, receiver: &str) -> Value {
    let one = |endpoint| {
        json!({
            "tenant": tenant(endpoint),
            "name": format!("endpoint {endpoint}"),
            "events": ["bench.*"],
            "request": { "url": url(receiver, endpoint) },
        })
    };
    (0..endpoints).map(one).collect()
}

/// The address of an endpoint.
pub(super) fn url(receiver: &str, endpoint: usize) -> String {
    format!("http://{receiver}/e/{endpoint}")
}

fn tenant(endpoint: usize) -> String {
    format!("bench-{endpoint}")
}

/// When the event in this body was published.
pub(super) fn sent_us(body: &[u8]) -> Option<u64> {
    let place = body.windows(STAMP.len()).position(|window| window == STAMP)? + STAMP.len();
    let mut digits = body[place..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.try_fold(0_u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}

/// Now, in Unix microseconds: publisher and receiver are on one machine, so one clock serves both.
pub(super) fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::{Event, Hints};

    #[test]
    fn an_event_has_its_size_and_its_moment() {
        for body_bytes in [BYTES_MIN, 777] {
            let events = Events { run: "bench-0a1b2c3d-12".into(), endpoints: 10_000, body_bytes };
            let before_us = now_us();
            let event = events.make(99_999_999);
            assert_eq!(event.body.len(), body_bytes);
            let sent_us = sent_us(&event.body).unwrap();
            assert!((before_us..=now_us()).contains(&sent_us));
            let hints = Hints { time: Some("2026-11-22T09:00:07Z"), ..Hints::default() };
            assert_eq!(Event::parse(&event.body, &hints).unwrap().tenant.as_str(), "bench-9999");
        }
    }

    #[test]
    fn a_stranger_has_no_moment() {
        assert_eq!(sent_us(b"{}"), None);
    }
}
