//! Putting a message off without using an attempt: 4, 8 … 256 units, until it has waited too long. Where its endpoint
//! holds all it may, it waits for its turn instead: whoever comes back in vain costs the others, and whoever comes back
//! late leaves a place empty.

use std::time::Duration;

use bytes::Bytes;

use super::balance::Ending;
use super::report;
use super::step::{self, Step};
use crate::broker::{Message, Outgoing, Tags, Target};
use crate::domain::history::History;

const FIRST_WAIT: u32 = 4;
const DOUBLINGS_MAX: u32 = 6;
const WAIT_MAX: u32 = FIRST_WAIT << DOUBLINGS_MAX;
/// What was put off less often is not given up, however long ago its last attempt was: it may have waited for that time
/// by its own schedule, or in a queue that nobody took from.
const DEFERRALS_MIN: u32 = 3;
/// A turn that is further away is rounded up to a power of two, which takes one hop; others take one for each digit.
const EXACT_MAX: u32 = 64;

/// Why a message is put off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its endpoint is slow or silent and holds as many places as it may; its turn comes then.
    Busy { wait_ms: u64 },
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
            Cause::Busy { .. } => "busy",
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

/// How long it waits, in units of `unit`; none for what had no attempt for `wait_age_max` and was put off thrice since.
pub(super) fn units(
    tags: &Tags,
    cause: Cause,
    unit: Duration,
    now_ms: i64,
    wait_age_max: Duration,
) -> Option<u32> {
    let waited_ms = u128::try_from(now_ms.saturating_sub(last_attempt_ms(tags, now_ms))).unwrap_or(0);
    if waited_ms > wait_age_max.as_millis() && tags.deferrals >= DEFERRALS_MIN {
        return None;
    }
    Some(match cause {
        Cause::Busy { wait_ms } => {
            let units = u128::from(wait_ms).div_ceil(unit.as_millis().max(1));
            let units = u32::try_from(units).unwrap_or(u32::MAX).clamp(1, WAIT_MAX);
            if units > EXACT_MAX { units.next_power_of_two() } else { units }
        }
        Cause::Unknown | Cause::Lack | Cause::Store => FIRST_WAIT << tags.deferrals.min(DOUBLINGS_MAX),
    })
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

    #[test]
    fn what_is_put_off_for_its_endpoint_waits_until_its_turn() {
        let turn = |wait_ms, unit| {
            let tags = Tags { deferrals: 5, first_seen_ms: Some(0), ..Tags::default() };
            units(&tags, Cause::Busy { wait_ms }, unit, 0, DAY)
        };
        assert_eq!(turn(0, SECOND), Some(1));
        assert_eq!(turn(1_001, SECOND), Some(2));
        assert_eq!(turn(23_000, SECOND), Some(23));
        assert_eq!(turn(64_000, SECOND), Some(64));
        assert_eq!(turn(64_001, SECOND), Some(128));
        assert_eq!(turn(u64::MAX, SECOND), Some(256));
        assert_eq!(turn(1_000, Duration::from_millis(20)), Some(50));
    }

    #[test]
    fn a_day_without_an_attempt_is_too_long() {
        let tags = Tags { first_seen_ms: Some(0), deferrals: 3, ..Tags::default() };
        assert_eq!(units(&tags, UNKNOWN, SECOND, 86_400_000, DAY), Some(32));
        assert_eq!(units(&tags, UNKNOWN, SECOND, 86_400_001, DAY), None);
    }

    #[test]
    fn a_day_that_was_not_spent_being_put_off_is_no_reason() {
        let tags = |deferrals| Tags { first_seen_ms: Some(0), deferrals, ..Tags::default() };
        let after_two_days = |deferrals| units(&tags(deferrals), UNKNOWN, SECOND, 2 * 86_400_000, DAY);
        assert_eq!([0, 2, 3].map(after_two_days), [Some(4), Some(16), None]);
    }

    #[test]
    fn an_attempt_starts_the_day_anew() {
        let mut history = History::default();
        history.push(crate::domain::history::Entry::new(80_000_000, "500", 12));
        let history = history.to_string();
        let tags = Tags { first_seen_ms: Some(0), history, deferrals: 3, ..Tags::default() };
        assert_eq!(units(&tags, UNKNOWN, SECOND, 86_400_001, DAY), Some(32));
    }
}
