//! The delivery log: one row for every attempt and for whatever else befell a delivery. No bodies.
//!
//! There is one table a day (`deliveries_20261122`), made when its first row comes, so that forgetting a day
//! is dropping a table, whatever its size. With SQLite each day is a file beside the store: a table of many
//! gigabytes would take minutes to be dropped from one file, and its writes would hold up those of the store.
//!
//! Writing is in [`DeliveryLog`], reading in `Store::deliveries` and `Store::delivery_life`. The log is a
//! convenience: it may have gaps (a full disk, more deliveries than it can write), and nothing depends on it.

mod day;
mod read;
mod write;

mod postgres;
mod sqlite;

use crate::domain::cause::Cause;
use crate::domain::name::{EventId, EventType, SubscriptionId, Tenant};
use crate::domain::retry::Reason;

pub use self::day::Day;
pub use self::read::{Cursor, DeliveryFilter, DeliveryRow, Page, StatusRange};
pub(super) use self::write::log_size;
pub use self::write::{DeliveryLog, LogError, RecordLog};

/// The page of a list when nobody says otherwise.
pub const LIST_LIMIT: u32 = 50;

/// What befell a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The receiver took it.
    Delivered,
    /// An attempt failed, and another one follows.
    Retry,
    /// It was given up: after an attempt, or without one.
    Dead,
    /// It was put off without an attempt.
    Deferred,
    /// A person sent it on its way again.
    Replayed,
    /// Nobody wanted the event.
    Unmatched,
    /// It was interactive: its receiver did not take it, and it is not sent again.
    Answered,
}

impl What {
    pub const ALL: [What; 7] = [
        What::Delivered,
        What::Retry,
        What::Dead,
        What::Deferred,
        What::Replayed,
        What::Unmatched,
        What::Answered,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            What::Delivered => "delivered",
            What::Retry => "retry",
            What::Dead => "dead",
            What::Deferred => "deferred",
            What::Replayed => "replayed",
            What::Unmatched => "unmatched",
            What::Answered => "answered",
        }
    }

    pub fn parse(text: &str) -> Option<What> {
        What::ALL.into_iter().find(|what| what.as_str() == text)
    }
}

/// A row to be written, as the worker hands it over: shared texts and numbers, nothing formatted.
#[derive(Debug, Clone)]
pub struct Record {
    pub what: What,
    /// When it happened; of an attempt, when it began. Unix milliseconds.
    pub at_ms: i64,
    /// When the event was first seen, in Unix milliseconds.
    pub received_ms: Option<i64>,
    pub event: EventId,
    pub kind: EventType,
    pub tenant: Tenant,
    pub document: Option<Box<str>>,
    pub batch: Option<Box<str>>,
    /// None where nobody wanted the event or nobody could tell who does.
    pub subscription: Option<SubscriptionId>,
    /// The attempts made so far, this one included.
    pub attempt: u32,
    /// Which life of the delivery: 0 the first, then a number of its own for each replay.
    pub cycle: u32,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// Why it is no success.
    pub cause: Option<Cause>,
    /// Why it was given up.
    pub reason: Option<Reason>,
    /// How long the attempt took; none where there was no attempt.
    pub elapsed_ms: Option<u64>,
    /// Units until the next attempt or look.
    pub wait: Option<u32>,
}

/// How large the log is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogSize {
    pub days: u64,
    pub bytes: u64,
}
