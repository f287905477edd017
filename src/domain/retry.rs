//! What we do about an outcome: done, try again after a wait, or give up.
//!
//! [`decide`] is the whole decision: a function of the subscription's rules, the attempt's number, the outcome
//! and one random sample. Deferring (not trying at all for now) uses no attempt and is the worker's.

use crate::domain::delay::WAIT_MAX;
use crate::domain::outcome::Outcome;
use crate::domain::statuses::StatusSet;

/// The most attempts a policy may ask for.
pub const ATTEMPTS_MAX: u32 = 100;

/// The longest `Retry-After` we follow, in units: an hour.
pub const RETRY_AFTER_MAX: u32 = 3600;

/// A subscription's `retry` section, ready to decide with.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    pub policy: RetryPolicy,
    /// What is worth another attempt; `None` is everything that is not a success.
    pub on: Option<StatusSet>,
    /// Whether `Retry-After` may lengthen a wait.
    pub retry_after: bool,
    /// By how much of itself a wait may be lengthened at random, 0 to 1.
    pub jitter: f32,
    pub on_gone: OnGone,
}

impl Default for Retry {
    /// Waits 2, 4, 8 … 512 units: ten attempts within 1,022.
    fn default() -> Self {
        Retry {
            policy: RetryPolicy::Exponential { base: 2, unit_s: 1, max_attempts: 10 },
            on: None,
            retry_after: true,
            jitter: 0.0,
            on_gone: OnGone::Dead,
        }
    }
}

impl Retry {
    /// Every rule that could not be kept; asked once, when a subscription is made.
    pub fn faults(&self) -> Vec<RetryFault> {
        let is_share = (0.0..=1.0).contains(&self.jitter);
        let jitter = (!is_share).then_some(RetryFault::Jitter);
        jitter.into_iter().chain(self.policy.faults()).collect()
    }
}

/// The schedule: how many attempts, and how long to wait after each that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetryPolicy {
    /// After failed attempt n waits `unit_s` × `base`^n.
    Exponential {
        base: u32,
        unit_s: u32,
        max_attempts: u32,
    },
    Fixed {
        delay_s: u32,
        max_attempts: u32,
    },
    /// One attempt more than there are delays.
    List {
        delays_s: Vec<u32>,
    },
    /// One attempt.
    None,
}

/// Why a `retry` section is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RetryFault {
    #[error("`{field}` must be at least 1")]
    Zero { field: &'static str },
    #[error("must list at least one delay; write `kind = \"none\"` for a single attempt")]
    NoDelays,
    #[error("asks for {attempts} attempts, more than {ATTEMPTS_MAX}")]
    TooManyAttempts { field: &'static str, attempts: u64 },
    #[error("asks for a wait of {wait_s} s, longer than {WAIT_MAX} s")]
    TooLong { field: &'static str, wait_s: u64 },
    #[error("must be between 0 and 1")]
    Jitter,
}

impl RetryFault {
    /// The key inside `retry` that is at fault.
    pub fn field(&self) -> &'static str {
        match self {
            RetryFault::Zero { field }
            | RetryFault::TooManyAttempts { field, .. }
            | RetryFault::TooLong { field, .. } => field,
            RetryFault::NoDelays => "delays_s",
            RetryFault::Jitter => "jitter",
        }
    }
}

impl RetryPolicy {
    /// Zeros, more than [`ATTEMPTS_MAX`] attempts and any wait longer than [`WAIT_MAX`].
    ///
    /// A delay of 0 is refused because a failing receiver would be called a hundred times within a second.
    pub fn faults(&self) -> Vec<RetryFault> {
        let found = match self {
            RetryPolicy::Exponential { base, unit_s, max_attempts } => {
                let attempts = attempts_fault("max_attempts", u64::from(*max_attempts));
                // A single attempt never waits; of a number that is wrong itself no wait follows.
                let waits = (*max_attempts).saturating_sub(1);
                let longest = u64::from(*base).saturating_pow(waits).saturating_mul(u64::from(*unit_s));
                let too_long =
                    if waits > 0 && attempts.is_none() { wait_fault("base", longest) } else { None };
                [zero("base", *base), zero("unit_s", *unit_s), attempts, too_long]
            }
            RetryPolicy::Fixed { delay_s, max_attempts } => [
                zero("delay_s", *delay_s),
                attempts_fault("max_attempts", u64::from(*max_attempts)),
                wait_fault("delay_s", u64::from(*delay_s)),
                None,
            ],
            RetryPolicy::List { delays_s } => [
                delays_s.is_empty().then_some(RetryFault::NoDelays),
                attempts_fault("delays_s", delays_s.len() as u64 + 1),
                delays_s.iter().find_map(|delay_s| zero("delays_s", *delay_s)),
                wait_fault("delays_s", u64::from(delays_s.iter().copied().max().unwrap_or(0))),
            ],
            RetryPolicy::None => [None; 4],
        };
        found.into_iter().flatten().collect()
    }

    /// How many attempts there are in all.
    pub fn max_attempts(&self) -> u32 {
        match self {
            RetryPolicy::Exponential { max_attempts, .. } | RetryPolicy::Fixed { max_attempts, .. } => {
                *max_attempts
            }
            RetryPolicy::List { delays_s } => {
                u32::try_from(delays_s.len()).unwrap_or(u32::MAX).saturating_add(1)
            }
            RetryPolicy::None => 1,
        }
    }

    /// How many units to wait after failed attempt `attempt` (the first is 1); `None` after the last one.
    pub fn wait_after(&self, attempt: u32) -> Option<u32> {
        if attempt >= self.max_attempts() {
            return None;
        }
        let wait = match self {
            RetryPolicy::Exponential { base, unit_s, .. } => {
                base.saturating_pow(attempt).saturating_mul(*unit_s)
            }
            RetryPolicy::Fixed { delay_s, .. } => *delay_s,
            RetryPolicy::List { delays_s } => *delays_s.get(attempt.saturating_sub(1) as usize)?,
            RetryPolicy::None => return None,
        };
        Some(wait.min(WAIT_MAX))
    }
}

fn zero(field: &'static str, value: u32) -> Option<RetryFault> {
    (value == 0).then_some(RetryFault::Zero { field })
}

fn attempts_fault(field: &'static str, attempts: u64) -> Option<RetryFault> {
    match attempts {
        0 => Some(RetryFault::Zero { field }),
        _ if attempts > u64::from(ATTEMPTS_MAX) => Some(RetryFault::TooManyAttempts { field, attempts }),
        _ => None,
    }
}

fn wait_fault(field: &'static str, wait_s: u64) -> Option<RetryFault> {
    (wait_s > u64::from(WAIT_MAX)).then_some(RetryFault::TooLong { field, wait_s })
}

/// What to do besides giving up when the receiver answers 410.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnGone {
    /// The delivery is dead, the subscription lives on.
    #[default]
    Dead,
    /// The delivery is dead, and the subscription is to be disabled.
    Disable,
    /// A failure like any other.
    Retry,
}

/// What we do after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Done,
    /// Try again after `wait` units.
    Retry {
        wait: u32,
    },
    Dead(Reason),
}

/// Why a delivery or an event became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The last attempt failed.
    Exhausted,
    /// No further attempt could help, or `retry.on` says that none shall be made.
    Permanent,
    /// The subscription is disabled.
    Disabled,
    /// The subscription is no more (a receiver's 410 is `Permanent`).
    Gone,
    /// It was deferred for too long without an attempt.
    Starved,
    /// The broker gave it up after too many deliveries.
    Poison,
    /// The event could not be read.
    Unreadable,
}

impl Reason {
    pub const ALL: [Reason; 7] = [
        Reason::Exhausted,
        Reason::Permanent,
        Reason::Disabled,
        Reason::Gone,
        Reason::Starved,
        Reason::Poison,
        Reason::Unreadable,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Exhausted => "exhausted",
            Reason::Permanent => "permanent",
            Reason::Disabled => "disabled",
            Reason::Gone => "gone",
            Reason::Starved => "starved",
            Reason::Poison => "poison",
            Reason::Unreadable => "unreadable",
        }
    }

    /// Finds the reason of this name.
    pub fn parse(name: &str) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

/// Decides what follows attempt `attempt` (the first is 1).
///
/// `jitter_sample` is a random number between 0 and 1. The wait is the schedule's, lengthened by `Retry-After`
/// (at most [`RETRY_AFTER_MAX`]) and by jitter, never shortened by either.
pub fn decide(retry: &Retry, attempt: u32, outcome: &Outcome, jitter_sample: f64) -> Verdict {
    match outcome {
        Outcome::Delivered { .. } => return Verdict::Done,
        // 410 says the receiver wants no more; `on_gone` only adds a deed, which is the worker's.
        Outcome::Gone { .. } if retry.on_gone != OnGone::Retry => return Verdict::Dead(Reason::Permanent),
        Outcome::Untemplatable => return Verdict::Dead(Reason::Permanent),
        Outcome::Gone { .. }
        | Outcome::Throttled { .. }
        | Outcome::Unavailable { .. }
        | Outcome::Refused { .. }
        | Outcome::Unreachable(_)
        | Outcome::Blocked => {}
    }
    if retry.on.as_ref().is_some_and(|on| !on.matches(&outcome.seen())) {
        return Verdict::Dead(Reason::Permanent);
    }
    let Some(scheduled) = retry.policy.wait_after(attempt) else { return Verdict::Dead(Reason::Exhausted) };
    let asked = if retry.retry_after { outcome.retry_after().unwrap_or(0) } else { 0 };
    let asked = u32::try_from(asked).unwrap_or(u32::MAX).min(RETRY_AFTER_MAX);
    Verdict::Retry { wait: lengthen(scheduled.max(asked), retry.jitter, jitter_sample) }
}

/// Lengthens `wait` by up to `jitter` of itself, in whole units rounded up, never past [`WAIT_MAX`].
fn lengthen(wait: u32, jitter: f32, sample: f64) -> u32 {
    let share = f64::from(jitter) * sample;
    if share.is_nan() || share <= 0.0 {
        return wait;
    }
    // The cast saturates.
    let longer = (f64::from(wait) * (1.0 + share)).ceil() as u32;
    longer.min(WAIT_MAX).max(wait)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::statuses::{Class, Seen};

    const REFUSED: Outcome = Outcome::Refused { status: 404 };

    fn unavailable(retry_after: u64) -> Outcome {
        Outcome::Unavailable { status: 503, retry_after: Some(retry_after) }
    }

    fn with(policy: RetryPolicy) -> Retry {
        Retry { policy, ..Retry::default() }
    }

    fn fixed(delay_s: u32, max_attempts: u32) -> RetryPolicy {
        RetryPolicy::Fixed { delay_s, max_attempts }
    }

    fn exponential(base: u32, unit_s: u32, max_attempts: u32) -> RetryPolicy {
        RetryPolicy::Exponential { base, unit_s, max_attempts }
    }

    /// The waits after every attempt that keeps failing, up to the first verdict that is no retry.
    fn schedule(retry: &Retry) -> (Vec<u32>, Verdict) {
        let mut waits = Vec::new();
        loop {
            match decide(retry, waits.len() as u32 + 1, &REFUSED, 0.5) {
                Verdict::Retry { wait } => waits.push(wait),
                last => return (waits, last),
            }
        }
    }

    #[test]
    fn the_default_is_ten_attempts_within_1022_units() {
        let (waits, last) = schedule(&Retry::default());
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 512]);
        assert_eq!(waits.iter().sum::<u32>(), 1022);
        assert_eq!(last, Verdict::Dead(Reason::Exhausted));
    }

    #[test]
    fn each_kind_keeps_its_schedule() {
        let list = RetryPolicy::List { delays_s: vec![5, 60, 5] };
        assert_eq!(schedule(&with(exponential(3, 10, 4))).0, [30, 90, 270]);
        assert_eq!(schedule(&with(fixed(7, 3))).0, [7, 7]);
        assert_eq!(schedule(&with(list)).0, [5, 60, 5]);
        assert_eq!(schedule(&with(RetryPolicy::None)), (vec![], Verdict::Dead(Reason::Exhausted)));
    }

    #[test]
    fn a_success_is_done_even_on_the_last_attempt() {
        let outcome = Outcome::Delivered { seen: Seen::Status(200) };
        assert_eq!(decide(&Retry::default(), 10, &outcome, 0.0), Verdict::Done);
    }

    #[test]
    fn gone_and_untemplatable_are_dead_at_once() {
        for outcome in [Outcome::Gone { status: 410 }, Outcome::Untemplatable] {
            assert_eq!(decide(&Retry::default(), 1, &outcome, 0.0), Verdict::Dead(Reason::Permanent));
        }
    }

    #[test]
    fn what_is_not_in_retry_on_is_permanent() {
        let on = StatusSet::parse(&["5xx", "timeout"]).unwrap();
        let retry = Retry { on: Some(on), ..Retry::default() };
        let verdict = |outcome| decide(&retry, 1, &outcome, 0.0);
        assert_eq!(verdict(REFUSED), Verdict::Dead(Reason::Permanent));
        assert_eq!(verdict(Outcome::Blocked), Verdict::Dead(Reason::Permanent));
        assert_eq!(verdict(Outcome::Unreachable(Class::Timeout)), Verdict::Retry { wait: 2 });
        assert_eq!(verdict(unavailable(0)), Verdict::Retry { wait: 2 });
    }

    #[test]
    fn a_denied_address_is_an_attempt_like_any_other() {
        assert_eq!(decide(&Retry::default(), 3, &Outcome::Blocked, 0.0), Verdict::Retry { wait: 8 });
        assert_eq!(decide(&Retry::default(), 10, &Outcome::Blocked, 0.0), Verdict::Dead(Reason::Exhausted));
    }

    #[test]
    fn waits_as_long_as_retry_after_says() {
        let retry = Retry::default();
        assert_eq!(decide(&retry, 1, &unavailable(90), 0.0), Verdict::Retry { wait: 90 });
    }

    #[test]
    fn retry_after_never_shortens_and_is_followed_for_an_hour_at_most() {
        let retry = Retry::default();
        assert_eq!(decide(&retry, 9, &unavailable(3), 0.0), Verdict::Retry { wait: 512 });
        assert_eq!(decide(&retry, 1, &unavailable(u64::MAX), 0.0), Verdict::Retry { wait: 3600 });
    }

    #[test]
    fn retry_after_can_be_switched_off() {
        let retry = Retry { retry_after: false, ..Retry::default() };
        assert_eq!(decide(&retry, 1, &unavailable(90), 0.0), Verdict::Retry { wait: 2 });
    }

    #[test]
    fn retry_after_buys_no_further_attempt() {
        assert_eq!(decide(&Retry::default(), 10, &unavailable(90), 0.0), Verdict::Dead(Reason::Exhausted));
    }

    #[test]
    fn jitter_lengthens_in_whole_units_rounded_up() {
        let retry = Retry { jitter: 0.5, ..with(fixed(10, 2)) };
        let wait = |sample| decide(&retry, 1, &REFUSED, sample);
        assert_eq!(wait(0.0), Verdict::Retry { wait: 10 });
        assert_eq!(wait(0.01), Verdict::Retry { wait: 11 });
        assert_eq!(wait(1.0), Verdict::Retry { wait: 15 });
        assert_eq!(wait(f64::NAN), Verdict::Retry { wait: 10 });
    }

    #[test]
    fn a_policy_that_asks_for_too_much_is_refused() {
        let fault = |policy: RetryPolicy| policy.faults()[0];
        assert_eq!(
            fault(exponential(2, 1, 18)),
            RetryFault::TooLong { field: "base", wait_s: u64::from(WAIT_MAX) + 1 }
        );
        assert_eq!(fault(fixed(WAIT_MAX + 1, 2)).field(), "delay_s");
        assert_eq!(fault(RetryPolicy::List { delays_s: vec![1, WAIT_MAX + 1] }).field(), "delays_s");
        assert_eq!(
            fault(fixed(1, 101)),
            RetryFault::TooManyAttempts { field: "max_attempts", attempts: 101 }
        );
        assert_eq!(fault(RetryPolicy::List { delays_s: vec![1; 100] }).field(), "delays_s");
        assert_eq!(fault(exponential(u32::MAX, u32::MAX, 100)).field(), "base");
    }

    #[test]
    fn a_policy_that_asks_for_nothing_is_refused() {
        for policy in
            [exponential(0, 1, 2), exponential(2, 0, 2), exponential(2, 1, 0), fixed(0, 2), fixed(1, 0)]
        {
            assert!(matches!(policy.faults()[..], [RetryFault::Zero { .. }]), "{policy:?}");
        }
        assert_eq!(RetryPolicy::List { delays_s: vec![] }.faults(), [RetryFault::NoDelays]);
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let fields = |retry: Retry| retry.faults().iter().map(RetryFault::field).collect::<Vec<_>>();
        let broken = |policy| Retry { jitter: 2.0, ..with(policy) };
        assert_eq!(fields(broken(exponential(0, 0, 101))), ["jitter", "base", "unit_s", "max_attempts"]);
        assert_eq!(fields(broken(exponential(9, 1, 101))), ["jitter", "max_attempts"]);
        assert_eq!(fields(broken(fixed(WAIT_MAX + 1, 0))), ["jitter", "max_attempts", "delay_s"]);
        assert_eq!(
            fields(broken(RetryPolicy::List { delays_s: vec![0; 100] })),
            ["jitter", "delays_s", "delays_s"]
        );
    }

    #[test]
    fn the_longest_schedules_are_accepted() {
        let longest = RetryPolicy::List { delays_s: vec![WAIT_MAX; 99] };
        for policy in [exponential(2, 1, 17), exponential(1, WAIT_MAX, 100), fixed(WAIT_MAX, 100), longest] {
            assert_eq!(policy.faults(), [], "{policy:?}");
        }
        assert_eq!(exponential(u32::MAX, 1, 1).faults(), [], "a single attempt never waits");
    }

    #[test]
    fn jitter_is_a_share() {
        for jitter in [-0.1, 1.1, f32::NAN, f32::INFINITY] {
            assert_eq!(Retry { jitter, ..Retry::default() }.faults(), [RetryFault::Jitter]);
        }
        assert_eq!(Retry { jitter: 1.0, ..Retry::default() }.faults(), []);
    }

    #[test]
    fn a_reason_is_found_by_its_name() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(Reason::parse("tired"), None);
    }

    fn any_policy() -> impl Strategy<Value = RetryPolicy> {
        prop_oneof![
            (0_u32..20, 0_u32..2000, 0_u32..110).prop_map(|(base, unit, max)| exponential(base, unit, max)),
            (any::<u32>(), any::<u32>()).prop_map(|(delay, max)| fixed(delay, max)),
            proptest::collection::vec(0_u32..200_000, 0..110)
                .prop_map(|delays_s| RetryPolicy::List { delays_s }),
            Just(RetryPolicy::None),
        ]
    }

    proptest! {
        #[test]
        fn an_accepted_policy_is_kept_to_the_unit(policy in any_policy()) {
            if policy.faults().is_empty() {
                let (waits, last) = schedule(&with(policy.clone()));
                prop_assert_eq!(last, Verdict::Dead(Reason::Exhausted));
                prop_assert_eq!(waits.len() as u32 + 1, policy.max_attempts());
                prop_assert!(waits.iter().all(|wait| (1..=WAIT_MAX).contains(wait)));
            }
        }

        #[test]
        fn no_wait_is_shorter_than_scheduled_or_longer_than_possible(
            policy in any_policy(), attempt: u32, asked: u64, jitter in 0_f32..=1.0, sample in 0_f64..=1.0,
        ) {
            let retry = Retry { jitter, ..with(policy) };
            match decide(&retry, attempt, &unavailable(asked), sample) {
                Verdict::Retry { wait } => {
                    let scheduled = retry.policy.wait_after(attempt).unwrap();
                    prop_assert!((scheduled..=WAIT_MAX).contains(&wait));
                    prop_assert!(attempt < retry.policy.max_attempts());
                }
                verdict => prop_assert_eq!(verdict, Verdict::Dead(Reason::Exhausted)),
            }
        }
    }
}
