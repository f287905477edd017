//! Sets of what an attempt can come back with: the grammar shared by `success` and `retry.on`.
//!
//! An item is one status (`"200"`), a hundred (`"2xx"`), a range (`"401-599"`), the class of a failure without
//! an answer (`"timeout"`) or `"any"`. The set only says what is in it; what follows is for `outcome` and `retry`.

use std::fmt;

/// What an attempt came back with: a status, or the class of the failure that left us without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Seen {
    /// The status of the answer's head; a 3xx is an answer like any other and never followed.
    Status(u16),
    Failure(Class),
}

impl fmt::Display for Seen {
    /// Writes `503` or `timeout`, the words used in history, logs and subscriptions alike.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::Status(status) => write!(f, "{status}"),
            Seen::Failure(class) => f.pad(class.as_str()),
        }
    }
}

/// Why there was no usable answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The head of the answer did not come within `timeout_s`.
    Timeout,
    /// The connection was refused, reset or lost.
    Connect,
    /// The host's name did not resolve.
    Dns,
    /// The TLS handshake or the certificate failed.
    Tls,
    /// The address guard denied the address; nothing was sent.
    Blocked,
    /// No credentials could be had; nothing was sent.
    Auth,
    /// The request could not be built from the event; nothing was sent.
    Template,
    /// What came back was not HTTP we accept.
    BadResponse,
}

impl Class {
    pub const ALL: [Class; 8] = [
        Class::Timeout,
        Class::Connect,
        Class::Dns,
        Class::Tls,
        Class::Blocked,
        Class::Auth,
        Class::Template,
        Class::BadResponse,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Class::Timeout => "timeout",
            Class::Connect => "connect",
            Class::Dns => "dns",
            Class::Tls => "tls",
            Class::Blocked => "blocked",
            Class::Auth => "auth",
            Class::Template => "template",
            Class::BadResponse => "bad_response",
        }
    }

    /// Finds the class of this name.
    pub fn parse(name: &str) -> Option<Class> {
        Class::ALL.into_iter().find(|class| class.as_str() == name)
    }
}

/// A set of statuses and failure classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSet {
    items: Vec<Item>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    /// Both ends belong to it.
    Statuses(u16, u16),
    Failure(Class),
    Any,
}

/// An item that is not in the grammar; its display says what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatusFault {
    #[error(
        "`{item}` is neither a status (`200`, `2xx`, `401-599`) nor one of \
         `timeout`, `connect`, `dns`, `tls`, `blocked`, `auth`, `template`, `bad_response`, `any`"
    )]
    Unknown { item: String },
    #[error("`{item}` runs backwards: write the smaller status first")]
    Backwards { item: String },
}

impl StatusSet {
    /// Reads a list of items; the empty list is the empty set.
    pub fn parse<T: AsRef<str>>(items: &[T]) -> Result<StatusSet, StatusFault> {
        let items = items.iter().map(|item| parse_item(item.as_ref())).collect::<Result<_, _>>()?;
        Ok(StatusSet { items })
    }

    /// Is every 2xx status, the default of `success`.
    pub fn successful() -> StatusSet {
        StatusSet { items: vec![Item::Statuses(200, 299)] }
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn matches(&self, seen: &Seen) -> bool {
        self.items.iter().any(|item| match (item, seen) {
            (Item::Any, _) => true,
            (Item::Statuses(first, last), Seen::Status(status)) => (first..=last).contains(&status),
            (Item::Failure(class), Seen::Failure(failure)) => class == failure,
            (Item::Statuses(..), Seen::Failure(_)) | (Item::Failure(_), Seen::Status(_)) => false,
        })
    }
}

fn parse_item(item: &str) -> Result<Item, StatusFault> {
    if item == "any" {
        return Ok(Item::Any);
    }
    if let Some(class) = Class::parse(item) {
        return Ok(Item::Failure(class));
    }
    let unknown = || StatusFault::Unknown { item: item.chars().take(64).collect() };
    let (first, last) = match (item.as_bytes(), item.split_once('-')) {
        ([hundred @ b'1'..=b'9', b'x', b'x'], _) => {
            let first = u16::from(hundred - b'0') * 100;
            (first, first + 99)
        }
        (_, Some((first, last))) => {
            (parse_status(first).ok_or_else(unknown)?, parse_status(last).ok_or_else(unknown)?)
        }
        (_, None) => {
            let status = parse_status(item).ok_or_else(unknown)?;
            (status, status)
        }
    };
    if first > last {
        return Err(StatusFault::Backwards { item: item.to_owned() });
    }
    Ok(Item::Statuses(first, last))
}

/// Reads three digits; everything from 100 to 999 can arrive on the wire, whatever RFC 9110 §15 has assigned.
fn parse_status(text: &str) -> Option<u16> {
    match text.as_bytes() {
        [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'] => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(items: &[&str]) -> StatusSet {
        StatusSet::parse(items).unwrap()
    }

    /// The statuses from 100 to 999 that belong to a set, as first, last and how many.
    fn statuses(items: &[&str]) -> (Option<u16>, Option<u16>, usize) {
        let set = set(items);
        let matching: Vec<u16> = (100..=999).filter(|status| set.matches(&Seen::Status(*status))).collect();
        (matching.first().copied(), matching.last().copied(), matching.len())
    }

    #[test]
    fn an_item_is_a_status_a_hundred_or_a_range() {
        assert_eq!(statuses(&["204"]), (Some(204), Some(204), 1));
        assert_eq!(statuses(&["2xx"]), (Some(200), Some(299), 100));
        assert_eq!(statuses(&["401-599"]), (Some(401), Some(599), 199));
        assert_eq!(statuses(&["200", "202", "3xx"]), (Some(200), Some(399), 102));
        assert_eq!(statuses(&["timeout"]), (None, None, 0));
    }

    #[test]
    fn a_class_matches_only_itself() {
        for class in Class::ALL {
            let set = set(&[class.as_str()]);
            for other in Class::ALL {
                assert_eq!(set.matches(&Seen::Failure(other)), class == other);
            }
        }
    }

    #[test]
    fn statuses_say_nothing_about_failures() {
        assert!(!set(&["100-999"]).matches(&Seen::Failure(Class::Timeout)));
    }

    #[test]
    fn any_is_everything_and_the_empty_set_nothing() {
        let empty = set(&[]);
        assert!(empty.is_empty());
        for seen in [Seen::Status(200), Seen::Status(999), Seen::Failure(Class::Tls)] {
            assert!(set(&["any"]).matches(&seen));
            assert!(!empty.matches(&seen));
        }
    }

    #[test]
    fn the_default_of_success_is_2xx() {
        assert_eq!(StatusSet::successful(), set(&["2xx"]));
    }

    #[test]
    fn what_is_not_in_the_grammar_is_refused() {
        let bad = [
            "",
            "20",
            "099",
            "1000",
            "xx",
            "0xx",
            "2XX",
            "2x",
            "200-",
            "-299",
            "200-29",
            "200 ",
            "+20",
            "200-300-400",
        ];
        for bad in bad.iter().chain(&["time-out", "2xx-3xx", "²00", "all"]) {
            assert!(matches!(StatusSet::parse(&[bad]), Err(StatusFault::Unknown { .. })), "`{bad}`");
        }
        let fault = StatusSet::parse(&["599-401"]).unwrap_err();
        assert_eq!(fault.to_string(), "`599-401` runs backwards: write the smaller status first");
    }

    #[test]
    fn a_fault_repeats_little_of_an_endless_item() {
        let fault = StatusSet::parse(&["x".repeat(100_000)]).unwrap_err();
        assert!(fault.to_string().len() < 300);
    }
}
