//! A queue that is there already, and how its messages become events.
//!
//! A source is a forwarder: what it takes is mapped to a neutral event and published like any other. The mapping
//! names spots in the message by JSON Pointers (RFC 6901) from its top; a text that does not begin with `/` is a
//! constant. `data` stays the producer's bytes.

mod mapping;
mod read;

pub use self::mapping::{Mapped, Mapping, Properties, Unmapped};

/// A source, checked.
#[derive(Clone, Debug)]
pub struct Source {
    /// For people, metrics and the ids that are made for messages without one: `[a-z0-9][a-z0-9._-]{0,63}`.
    pub name: String,
    /// The queue's name on the broker, at most 255 bytes.
    pub queue: String,
    /// How many of its messages each process may hold at once.
    pub prefetch: u16,
    pub mapping: Mapping,
}
