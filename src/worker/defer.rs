//! Putting a message off without using an attempt: 4, 8 … 256 units, until it has waited too long. Where its endpoint
//! has been crowded for some time, or by many, it waits longer at once: whoever comes back in vain costs the others.

use std::time::Duration;

use bytes::Bytes;

use super::balance::Ending;
use super::report;
use super::step::{self, Step};
use crate::broker::{Message, Outgoing, Tags, Target};
use crate::domain::history::History;
use crate::domain::places::Crowded;

const FIRST_WAIT: u32 = 4;
const DOUBLINGS_MAX: u32 = 6;
/// What is put off waits for so many times as long as its endpoint has been crowded.
const CROWD_TIMES: u64 = 2;
/// And for so long that of all that were put off no more than this come back in a second.
const BACK_EACH_SECOND: u64 = 64;
const WAIT_MAX: u32 = FIRST_WAIT << DOUBLINGS_MAX;

/// Why a message is put off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its endpoint is slow or silent and holds as many places as it may, and has been so crowded for some time.
    Busy(Crowded),
    /// Nobody can say who wants the events of its tenant.
    Unknown,
    /// This process could not even try: no open files or memory left.
    Lack,
    /// What it means for its batch cannot be written down.
    Store,
}

impl Cause {
    /// The word for it in logs and metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Cause::Busy(_) => "busy",
            Cause::Unknown => "unknown",
            Cause::Lack => "lack",
            Cause::Store => "store",
        }
    }
}

/// Puts a message off for so many [`units`].
pub(super) fn defer(message: &Message, tags: Tags, cause: Cause, units: u32) -> Step {
    Step::Publish(vec![copy(&message.body, tags, cause, units)], Ending::Deferred)
}

/// What is published for that.
pub(super) fn copy(body: &Bytes, mut tags: Tags, cause: Cause, units: u32) -> (Target, Outgoing) {
    tags.deferrals = tags.deferrals.saturating_add(1);
    report::deferred(&tags, cause, units);
    step::waiting(units, body.clone(), tags)
}

/// How long it waits, in units of `unit`; none for what had no attempt for `wait_age_max`.
pub(super) fn units(
    tags: &Tags,
    cause: Cause,
    unit: Duration,
    now_ms: i64,
    wait_age_max: Duration,
) -> Option<u32> {
    let waited_ms = u128::try_from(now_ms.saturating_sub(last_attempt_ms(tags, now_ms))).unwrap_or(0);
    if waited_ms > wait_age_max.as_millis() {
        return None;
    }
    let by_itself = FIRST_WAIT << tags.deferrals.min(DOUBLINGS_MAX);
    let by_crowd = match cause {
        Cause::Busy(Crowded { lasted_ms, put_off }) => {
            let wait_ms = (CROWD_TIMES * lasted_ms).max(put_off * 1_000 / BACK_EACH_SECOND);
            let units = u128::from(wait_ms).div_ceil(unit.as_millis().max(1));
            u32::try_from(units).unwrap_or(u32::MAX).min(WAIT_MAX).next_power_of_two()
        }
        Cause::Unknown | Cause::Lack | Cause::Store => 0,
    };
    Some(by_itself.max(by_crowd))
}

fn last_attempt_ms(tags: &Tags, now_ms: i64) -> i64 {
    let last = History::parse(&tags.history).entries().last().map(|entry| entry.at_ms());
    last.or(tags.first_seen_ms).unwrap_or(now_ms)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::broker::{Original, Target};

    struct Nothing;

    impl Original for Nothing {
        fn describe(&self, _: usize) -> String {
            "{}".into()
        }
    }

    fn message() -> Message {
        Message {
            body: Bytes::from_static(b"{}"),
            tags: Tags::default(),
            routing_key: String::new(),
            redelivered: false,
            asker: None,
            original: Box::new(Nothing),
        }
    }

    const SECOND: Duration = Duration::from_secs(1);
    const UNKNOWN: Cause = Cause::Unknown;
    const DAY: Duration = Duration::from_secs(86_400);

    fn wait_of(deferrals: u32) -> Target {
        let tags = Tags { deferrals, first_seen_ms: Some(0), ..Tags::default() };
        let units = units(&tags, UNKNOWN, SECOND, 1_000, DAY).unwrap();
        match defer(&message(), tags, UNKNOWN, units) {
            Step::Publish(copies, Ending::Deferred) => {
                assert_eq!(copies[0].1.tags.deferrals, deferrals + 1);
                copies[0].0
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn waits_four_units_doubling_to_256() {
        assert_eq!(wait_of(0), Target::Delay(2));
        assert_eq!(wait_of(1), Target::Delay(3));
        assert_eq!(wait_of(6), Target::Delay(8));
        assert_eq!(wait_of(60), Target::Delay(8));
    }

    fn crowded(lasted_ms: u64, put_off: u64, unit: Duration) -> Option<u32> {
        let tags = Tags { deferrals: 1, first_seen_ms: Some(0), ..Tags::default() };
        units(&tags, Cause::Busy(Crowded { lasted_ms, put_off }), unit, 0, DAY)
    }

    #[test]
    fn waits_twice_as_long_as_its_endpoint_has_been_crowded() {
        assert_eq!(crowded(0, 1, SECOND), Some(8));
        assert_eq!(crowded(4_000, 1, SECOND), Some(8));
        assert_eq!(crowded(5_000, 1, SECOND), Some(16));
        assert_eq!(crowded(3_600_000, 1, SECOND), Some(256));
        assert_eq!(crowded(1_000, 1, Duration::from_millis(20)), Some(128));
    }

    #[test]
    fn waits_longer_where_many_wait() {
        assert_eq!(crowded(0, 64 * 8, SECOND), Some(8));
        assert_eq!(crowded(0, 64 * 9, SECOND), Some(16));
        assert_eq!(crowded(1_000, 1_000_000, SECOND), Some(256));
    }

    #[test]
    fn a_day_without_an_attempt_is_too_long() {
        let tags = Tags { first_seen_ms: Some(0), ..Tags::default() };
        assert_eq!(units(&tags, UNKNOWN, SECOND, 86_400_000, DAY), Some(4));
        assert_eq!(units(&tags, UNKNOWN, SECOND, 86_400_001, DAY), None);
    }

    #[test]
    fn an_attempt_starts_the_day_anew() {
        let mut history = History::default();
        history.push(crate::domain::history::Entry::new(80_000_000, "500", 12));
        let tags = Tags { first_seen_ms: Some(0), history: history.to_string(), ..Tags::default() };
        assert_eq!(units(&tags, UNKNOWN, SECOND, 86_400_001, DAY), Some(4));
    }
}
