//! What a message is made of: the producer's bytes, and the tags that travel beside them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// What travels beside a body from hop to hop; on RabbitMQ each is a property or a `paperboy-*` header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// The event's id (AMQP `message_id`).
    pub message_id: Option<String>,
    /// The event's type (AMQP `type`).
    pub kind: Option<String>,
    /// The event's time as resolved at first sight, RFC 3339.
    pub time: Option<String>,
    /// The producer's W3C trace context, at most 64 bytes.
    pub traceparent: Option<String>,
    /// The subscription this message is for; none: a whole event, still to be matched.
    pub subscription: Option<String>,
    /// Counted attempts already made.
    pub attempt: u32,
    /// Whole units still to wait after this level.
    pub wait: u32,
    /// How often it was put off without an attempt.
    pub deferrals: u32,
    /// When it was first seen, in Unix milliseconds.
    pub first_seen_ms: Option<i64>,
    /// One entry per attempt, as `domain::history` writes it.
    pub history: String,
    /// The last answer's first bytes, at most 1 KiB.
    pub answer: String,
    /// Why it is dead.
    pub reason: Option<String>,
    /// The original headers of an unreadable message, one JSON string of at most 8 KiB.
    pub original: Option<String>,
    /// Which life of the delivery this is: 0 the first, then a number of its own for each replay, so that a
    /// letter which dies again is not taken for the one before.
    pub cycle: u32,
    /// How often it was replayed by a person.
    pub replay: u32,
}

/// A message taken from a queue.
pub struct Message {
    /// The producer's bytes, unchanged on every hop.
    pub body: Bytes,
    /// What travels beside them, with everything from outside that claims to be ours removed.
    pub tags: Tags,
    /// The key it was published with.
    pub routing_key: String,
    /// The broker handed it out before.
    pub redelivered: bool,
    /// Who waits for an answer; of calls only.
    pub asker: Option<Box<Asker>>,
    /// Everything it arrived with, for an unreadable message's dead letter.
    pub original: Box<dyn Original>,
}

/// Whoever called, and where the answer goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    /// A stranger's word: the name of a queue.
    pub reply_to: Option<String>,
    /// Repeated in every answer.
    pub correlation_id: Option<String>,
    /// How long the caller waits, in milliseconds from the call.
    pub expires_ms: Option<u64>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("body_bytes", &self.body.len())
            .field("message_id", &self.tags.message_id)
            .field("redelivered", &self.redelivered)
            .finish_non_exhaustive()
    }
}

/// The properties and headers a message arrived with, in the broker's own form until somebody asks.
pub trait Original: Send + Sync {
    /// One JSON object of at most `bytes_max` bytes; what does not fit is left out and counted in it.
    fn describe(&self, bytes_max: usize) -> String;
}

/// A message to publish; its clones share everything.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The bytes to carry.
    pub body: Bytes,
    /// What travels beside them.
    pub tags: Arc<Tags>,
}

impl Outgoing {
    /// These bytes with these tags.
    pub fn new(body: impl Into<Bytes>, tags: Tags) -> Outgoing {
        Outgoing { body: body.into(), tags: Arc::new(tags) }
    }
}
