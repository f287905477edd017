//! A dead letter: as the drain hands it over, as a list shows it, and with its contents.

use std::fmt;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// The reason of a letter that stands for one the engine refused.
pub const UNDRAINABLE: &str = "undrainable";
/// What a note, or why a letter was refused, may have.
pub(super) const NOTE_CHARS_MAX: usize = 1024;

/// What died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An event on its way to one subscription.
    Delivery,
    /// An event before any subscription was looked up, mostly an unreadable one.
    Event,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Delivery => "delivery",
            Kind::Event => "event",
        }
    }

    pub fn parse(text: &str) -> Option<Kind> {
        [Kind::Delivery, Kind::Event].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What a person has decided about a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadState {
    /// Nothing yet.
    Open,
    Replayed,
    Discarded,
}

impl DeadState {
    pub fn as_str(self) -> &'static str {
        match self {
            DeadState::Open => "open",
            DeadState::Replayed => "replayed",
            DeadState::Discarded => "discarded",
        }
    }

    pub fn parse(text: &str) -> Option<DeadState> {
        [DeadState::Open, DeadState::Replayed, DeadState::Discarded]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// A dead letter as the drain hands it over. `Debug` shows no content.
#[derive(Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub kind: Kind,
    /// 1 to 512 characters: a word, or a word, a colon and what a person should know.
    pub reason: String,
    pub tenant: Option<String>,
    pub event_id: Option<String>,
    pub event_type: Option<String>,
    pub subscription: Option<String>,
    pub document_id: Option<String>,
    pub batch_id: Option<String>,
    /// Which life of the delivery this was; a replay begins the next.
    pub cycle: u32,
    pub attempts: u32,
    /// The producer's bytes.
    pub body: Bytes,
    /// The message's headers as JSON.
    pub headers: Vec<u8>,
    pub history: String,
    /// The beginning of the receiver's last answer.
    pub answer: Vec<u8>,
    pub first_seen_ms: i64,
    pub dead_at_ms: i64,
}

impl DeadLetter {
    pub(super) fn body_sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.body).into()
    }

    /// What makes two letters the same one: kind, tenant, event, subscription, cycle and body.
    pub(super) fn key(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.kind.as_str());
        for part in [&self.tenant, &self.event_id, &self.subscription] {
            // Absent and empty differ, and no part runs into the next.
            digest.update([u8::from(part.is_some())]);
            let part = part.as_deref().unwrap_or_default();
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.update(self.cycle.to_be_bytes());
        digest.update(self.body_sha256());
        digest.finalize().into()
    }

    /// A letter in place of this one that no engine refuses: what could be at fault is moved out of the
    /// columns of text and into the headers.
    pub(super) fn undrainable(&self, why: &str) -> DeadLetter {
        // A replay finds its headers where it looks for them.
        let mut headers = match serde_json::from_slice(&self.headers) {
            Ok(Value::Object(headers)) => headers,
            _ => Map::from_iter([("headers".to_owned(), String::from_utf8_lossy(&self.headers).into())]),
        };
        let moved = json!({
            "reason": self.reason,
            "tenant": self.tenant,
            "event_id": self.event_id,
            "event_type": self.event_type,
            "subscription": self.subscription,
            "document_id": self.document_id,
            "batch_id": self.batch_id,
            "history": self.history,
        });
        headers.insert(UNDRAINABLE.to_owned(), moved);
        let why: String = why.chars().filter(|c| !c.is_control()).take(NOTE_CHARS_MAX).collect();
        DeadLetter {
            reason: UNDRAINABLE.to_owned(),
            tenant: None,
            event_id: None,
            event_type: None,
            subscription: None,
            document_id: None,
            batch_id: None,
            headers: Value::Object(headers).to_string().into_bytes(),
            history: why,
            ..self.clone()
        }
    }
}

impl fmt::Debug for DeadLetter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("DeadLetter")
            .field("kind", &self.kind)
            .field("reason", &self.reason)
            .field("tenant", &self.tenant)
            .field("event_id", &self.event_id)
            .field("subscription", &self.subscription)
            .field("cycle", &self.cycle)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A dead letter in a list: everything but the contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadRow {
    /// Shown to people as `dl_<id>`; higher is newer.
    pub id: i64,
    pub kind: Kind,
    pub reason: String,
    pub tenant: Option<String>,
    pub event_id: Option<String>,
    pub event_type: Option<String>,
    pub subscription: Option<String>,
    pub document_id: Option<String>,
    pub batch_id: Option<String>,
    pub cycle: u32,
    pub attempts: u32,
    pub history: String,
    pub body_bytes: u64,
    pub first_seen_ms: i64,
    pub dead_at_ms: i64,
    pub state: DeadState,
    /// When a person decided.
    pub state_at_ms: Option<i64>,
    pub note: Option<String>,
    /// The receiver's host, as its subscription said when the letter was kept.
    pub host: Option<String>,
    /// The word of a cause, or the reason where no attempt was to blame; none in letters of older versions.
    pub class: Option<String>,
    /// The status of the last answer.
    pub status: Option<u16>,
    /// How often it had been replayed before it died this time.
    pub replays: u32,
}

/// A dead letter with its contents. `Debug` shows only the row.
#[derive(Clone, PartialEq, Eq)]
pub struct DeadLetterFull {
    pub row: DeadRow,
    pub body: Bytes,
    /// SHA-256 of the body.
    pub body_sha256: Vec<u8>,
    pub headers: Vec<u8>,
    pub answer: Vec<u8>,
}

impl fmt::Debug for DeadLetterFull {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("DeadLetterFull").field("row", &self.row).finish_non_exhaustive()
    }
}
