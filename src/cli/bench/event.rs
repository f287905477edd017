//! The events of a bench: alike in size, each for one tenant, with their number and planned moment inside.

use std::time::{SystemTime, UNIX_EPOCH};

use super::crowd::Crowd;

pub(super) const KIND: &str = "bench.event";
const SENT: &[u8] = br#""sent_us":"#;
const NUMBER: &[u8] = br#","number":"#;
/// The least an event can have with everything that stands in it.
pub(super) const BYTES_MIN: usize = 200;

/// Makes events that no other play has.
pub(super) struct Events<'a> {
    pub(super) run: String,
    pub(super) crowd: &'a Crowd,
    /// Leaves out the tenants with a bad endpoint.
    pub(super) healthy_only: bool,
    pub(super) body_bytes: usize,
}

/// An event, ready to be published.
pub(super) struct Made {
    pub(super) id: String,
    pub(super) body: Vec<u8>,
}

impl Events<'_> {
    /// The event with this number, planned for this moment.
    pub(super) fn make(&self, number: usize, sent_us: u64) -> Made {
        let id = format!("{}-{number}", self.run);
        let tenant = self.crowd.tenant(self.crowd.tenant_of(number, self.healthy_only));
        let mut body = Vec::with_capacity(self.body_bytes.max(BYTES_MIN));
        let begin = format!(
            r#"{{"id":"{id}","type":"{KIND}","tenant":"{tenant}","data":{{"sent_us":{sent_us},"number":{number},"text":""#
        );
        body.extend_from_slice(begin.as_bytes());
        let end = br#""}}"#;
        body.resize(body.len().max(self.body_bytes.saturating_sub(end.len())), b'x');
        body.extend_from_slice(end);
        Made { id, body }
    }

    /// The deliveries to good endpoints that the first so many ask for.
    pub(super) fn good_of(&self, events: usize) -> u64 {
        self.crowd.good_of(events, self.healthy_only)
    }
}

/// What an event says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) sent_us: u64,
    pub(super) number: u64,
}

impl Stamp {
    /// Finds it at the beginning of a body; none in a stranger's.
    pub(super) fn read(body: &[u8]) -> Option<Stamp> {
        let place = body.windows(SENT.len()).position(|window| window == SENT)? + SENT.len();
        let (sent_us, rest) = digits(&body[place..])?;
        let (number, _) = digits(rest.strip_prefix(NUMBER)?)?;
        Some(Stamp { sent_us, number })
    }
}

/// The number at the beginning, and what follows it.
fn digits(text: &[u8]) -> Option<(u64, &[u8])> {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = std::str::from_utf8(&text[..length]).ok()?.parse().ok()?;
    Some((number, &text[length..]))
}

/// Now, in Unix microseconds: producer and receiver are on one machine, so one clock serves both.
pub(super) fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::{Event, Hints};

    #[test]
    fn an_event_has_its_size_its_number_and_its_moment() {
        let crowd = Crowd::simple("in_flight", 10_000);
        for body_bytes in [BYTES_MIN, 777] {
            let run = "in_flight-floor_coalesced-3-pace".into();
            let events = Events { run, crowd: &crowd, healthy_only: true, body_bytes };
            let made = events.make(99_999_999, 1_795_000_000_000_000);
            assert_eq!(made.body.len(), body_bytes);
            let stamp = Stamp { sent_us: 1_795_000_000_000_000, number: 99_999_999 };
            assert_eq!(Stamp::read(&made.body), Some(stamp));
            let hints = Hints { time: Some("2026-11-22T09:00:07Z"), ..Hints::default() };
            assert_eq!(Event::parse(&made.body, &hints).unwrap().tenant.as_str(), "in_flight-9999");
        }
    }

    #[test]
    fn a_stranger_has_no_stamp() {
        assert_eq!(Stamp::read(b"{}"), None);
        assert_eq!(Stamp::read(br#"{"sent_us":12,"text":""}"#), None);
    }
}
