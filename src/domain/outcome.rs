//! What the receiver did with an attempt.
//!
//! An [`Answer`] is what the HTTP edge saw; an [`Outcome`] is what that means for this subscription. What we do
//! about it (retry, give up) is a verdict and belongs to `retry`.

use http::HeaderMap;
use jiff::civil::DateTime;
use jiff::fmt::strtime;
use jiff::tz::Offset;

use crate::domain::cause::Cause;
use crate::domain::statuses::{Class, Seen, StatusSet};

/// What came back from one attempt, as plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub seen: Seen,
    /// Why there is no answer, closer than its class says; `None` where there is one.
    pub cause: Option<Cause>,
    /// Seconds from the answer's `Retry-After`, see [`parse_retry_after`].
    pub retry_after: Option<u64>,
    pub elapsed_ms: u64,
    /// The beginning of the answer's body, at most 1 KiB; empty after a success nobody looks at.
    pub excerpt: Vec<u8>,
    /// The whole answer, where the request asked for it and it came; in a box, since hardly any does.
    pub whole: Option<Box<Whole>>,
    /// Nothing was sent because this process lacks what it takes (open files, memory): the receiver has no part in it.
    pub is_our_fault: bool,
}

/// An answer read to its end, for whoever wants more of it than its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    pub headers: HeaderMap,
    /// `None` where it is longer than [`Whole::BYTES_MAX`].
    pub body: Option<Vec<u8>>,
}

impl Whole {
    /// The longest body that is read, in bytes.
    pub const BYTES_MAX: usize = 1 << 20;
}

impl Answer {
    /// Why it is no success, as closely as is known.
    pub fn cause(&self) -> Cause {
        self.cause.unwrap_or_else(|| Cause::of(self.seen))
    }
}

/// What the receiver did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It took the event. Holds a failure class only where `success` names one (`"timeout"`).
    Delivered { seen: Seen },
    /// It asks us to slow down (429, RFC 6585 §4).
    Throttled { status: u16, retry_after: Option<u64> },
    /// It cannot just now: 5xx, 408, 425, or any other failure that says when to come back.
    Unavailable { status: u16, retry_after: Option<u64> },
    /// It will never want this again (410, RFC 9110 §15.5.11).
    Gone { status: u16 },
    /// It answered, and not with a success: redirects and most of 4xx.
    Refused { status: u16 },
    /// No answer came.
    Unreachable(Class),
    /// The address guard denied the address; nothing was sent.
    Blocked,
    /// The request could not be built from the event; nothing was sent, and no later attempt could be.
    Untemplatable,
}

impl Outcome {
    /// Says what an answer means under a subscription's `success`.
    ///
    /// What was never sent is never a success, not even under `"any"`.
    pub fn judge(success: &StatusSet, answer: &Answer) -> Outcome {
        let retry_after = answer.retry_after;
        match answer.seen {
            Seen::Failure(Class::Blocked) => Outcome::Blocked,
            Seen::Failure(Class::Template) => Outcome::Untemplatable,
            seen if success.matches(&seen) && seen != Seen::Failure(Class::Auth) => {
                Outcome::Delivered { seen }
            }
            Seen::Failure(class) => Outcome::Unreachable(class),
            Seen::Status(410) => Outcome::Gone { status: 410 },
            Seen::Status(429) => Outcome::Throttled { status: 429, retry_after },
            Seen::Status(status @ (408 | 425 | 500..=599)) => Outcome::Unavailable { status, retry_after },
            Seen::Status(status) if retry_after.is_some() => Outcome::Unavailable { status, retry_after },
            Seen::Status(status) => Outcome::Refused { status },
        }
    }

    /// Gives back the status or class the outcome came from.
    pub fn seen(&self) -> Seen {
        match *self {
            Outcome::Delivered { seen } => seen,
            Outcome::Throttled { status, .. }
            | Outcome::Unavailable { status, .. }
            | Outcome::Gone { status }
            | Outcome::Refused { status } => Seen::Status(status),
            Outcome::Unreachable(class) => Seen::Failure(class),
            Outcome::Blocked => Seen::Failure(Class::Blocked),
            Outcome::Untemplatable => Seen::Failure(Class::Template),
        }
    }

    /// The seconds the receiver asked us to wait.
    pub fn retry_after(&self) -> Option<u64> {
        match *self {
            Outcome::Throttled { retry_after, .. } | Outcome::Unavailable { retry_after, .. } => retry_after,
            _ => None,
        }
    }

    /// The names of all outcomes, for logs and metrics.
    pub const NAMES: [&'static str; 8] = [
        "delivered",
        "throttled",
        "unavailable",
        "gone",
        "refused",
        "unreachable",
        "blocked",
        "untemplatable",
    ];

    /// The outcome's name, for logs and metrics.
    pub fn as_str(&self) -> &'static str {
        Outcome::NAMES[self.place()]
    }

    /// The place of its name in [`Outcome::NAMES`].
    pub fn place(&self) -> usize {
        match self {
            Outcome::Delivered { .. } => 0,
            Outcome::Throttled { .. } => 1,
            Outcome::Unavailable { .. } => 2,
            Outcome::Gone { .. } => 3,
            Outcome::Refused { .. } => 4,
            Outcome::Unreachable(_) => 5,
            Outcome::Blocked => 6,
            Outcome::Untemplatable => 7,
        }
    }
}

/// Reads a `Retry-After` value as seconds from `now_unix_s` (RFC 9110 §10.2.3).
///
/// It is a number of seconds or one of the three date formats every recipient must accept (§5.6.7). A date in
/// the past is 0 seconds, an endless number saturates; what is neither is `None`, as if the header were absent.
pub fn parse_retry_after(value: &str, now_unix_s: i64) -> Option<u64> {
    let value = value.trim_matches([' ', '\t']);
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(value.parse().unwrap_or(u64::MAX));
    }
    let at_unix_s = parse_http_date(value)?;
    Some(u64::try_from(at_unix_s.saturating_sub(now_unix_s)).unwrap_or(0))
}

/// Reads an HTTP date as Unix seconds: IMF-fixdate, and the obsolete RFC 850 and asctime forms.
fn parse_http_date(value: &str) -> Option<i64> {
    const FORMATS: [&str; 3] =
        ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    let read = |format: &&str| strtime::parse(format, value).ok()?.to_datetime().ok();
    let date: DateTime = FORMATS.iter().find_map(read)?;
    Some(Offset::UTC.to_timestamp(date).ok()?.as_second())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judge(success: &[&str], seen: Seen, retry_after: Option<u64>) -> Outcome {
        let answer = Answer {
            seen,
            cause: None,
            retry_after,
            elapsed_ms: 1,
            excerpt: Vec::new(),
            whole: None,
            is_our_fault: false,
        };
        Outcome::judge(&StatusSet::parse(success).unwrap(), &answer)
    }

    fn judge_status(status: u16) -> Outcome {
        judge(&["2xx"], Seen::Status(status), None)
    }

    #[test]
    fn a_success_is_what_the_subscription_calls_one() {
        assert_eq!(judge_status(204), Outcome::Delivered { seen: Seen::Status(204) });
        assert_eq!(judge(&["410"], Seen::Status(410), None), Outcome::Delivered { seen: Seen::Status(410) });
        assert_eq!(judge(&["200"], Seen::Status(204), None), Outcome::Refused { status: 204 });
    }

    #[test]
    fn failures_are_told_apart_by_status() {
        assert_eq!(judge_status(429), Outcome::Throttled { status: 429, retry_after: None });
        assert_eq!(judge_status(410), Outcome::Gone { status: 410 });
        for status in [408, 425, 500, 503, 599] {
            assert_eq!(judge_status(status), Outcome::Unavailable { status, retry_after: None });
        }
        for status in [101, 302, 400, 404, 999] {
            assert_eq!(judge_status(status), Outcome::Refused { status });
        }
    }

    #[test]
    fn whoever_says_when_to_come_back_is_only_unavailable() {
        let outcome = judge(&["2xx"], Seen::Status(413), Some(9));
        assert_eq!(outcome, Outcome::Unavailable { status: 413, retry_after: Some(9) });
        assert_eq!(outcome.retry_after(), Some(9));
    }

    #[test]
    fn what_was_never_sent_is_never_a_success() {
        assert_eq!(judge(&["any"], Seen::Failure(Class::Blocked), None), Outcome::Blocked);
        assert_eq!(judge(&["any"], Seen::Failure(Class::Template), None), Outcome::Untemplatable);
        assert_eq!(judge(&["any"], Seen::Failure(Class::Auth), None), Outcome::Unreachable(Class::Auth));
    }

    #[test]
    fn silence_is_a_success_only_when_asked_for() {
        let timeout = Seen::Failure(Class::Timeout);
        assert_eq!(judge(&["2xx"], timeout, None), Outcome::Unreachable(Class::Timeout));
        assert_eq!(judge(&["2xx", "timeout"], timeout, None), Outcome::Delivered { seen: timeout });
    }

    #[test]
    fn an_outcome_remembers_what_was_seen() {
        let classes = Class::ALL.map(Seen::Failure).into_iter();
        for seen in classes.chain([200, 301, 404, 410, 429, 503].map(Seen::Status)) {
            assert_eq!(judge(&["2xx"], seen, None).seen(), seen);
        }
    }

    // 1994-11-06T08:49:37Z, the example of RFC 9110 §5.6.7.
    const EXAMPLE_UNIX_S: i64 = 784_111_777;

    #[test]
    fn retry_after_is_a_number_of_seconds() {
        assert_eq!(parse_retry_after("120", 0), Some(120));
        assert_eq!(parse_retry_after(" 0\t", 0), Some(0));
        assert_eq!(parse_retry_after("99999999999999999999999", 0), Some(u64::MAX));
    }

    #[test]
    fn retry_after_is_any_of_the_three_date_formats() {
        for date in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(parse_retry_after(date, EXAMPLE_UNIX_S - 90), Some(90), "{date}");
        }
    }

    #[test]
    fn a_date_in_the_past_is_now() {
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT", EXAMPLE_UNIX_S + 90), Some(0));
    }

    #[test]
    fn anything_else_is_as_good_as_absent() {
        for bad in [
            "",
            " ",
            "-5",
            "+5",
            "1.5",
            "5s",
            "soon",
            "Sun, 06 Nov 1994",
            "Mon, 31 Feb 2026 00:00:00 GMT",
            "٣",
        ] {
            assert_eq!(parse_retry_after(bad, 0), None, "`{bad}`");
        }
    }

    proptest! {
        #[test]
        fn any_number_of_seconds_is_read_back(seconds: u64, now: i64) {
            prop_assert_eq!(parse_retry_after(&seconds.to_string(), now), Some(seconds));
        }

        #[test]
        fn any_date_is_the_seconds_until_it(at in 0_i64..4_000_000_000, now in 0_i64..4_000_000_000) {
            let moment = jiff::Timestamp::from_second(at).unwrap();
            let date = moment.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            prop_assert_eq!(parse_retry_after(&date, now), Some((at - now).max(0) as u64));
        }

        #[test]
        fn no_value_makes_it_panic(value in "\\PC{0,40}", now: i64) {
            let _ = parse_retry_after(&value, now);
        }
    }
}
