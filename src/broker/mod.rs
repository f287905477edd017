//! The broker as the worker sees it: queues to take from, targets to publish to, receipts to settle.
//!
//! Deliberately knows nothing of AMQP: headers are [`Tags`], an unacknowledged message is a [`Receipt`].
//! RabbitMQ stands in [`rabbitmq`].

pub mod message;
pub mod rabbitmq;
pub mod receipt;
pub mod windows;

use std::fmt;
use std::pin::Pin;

pub use message::{Asker, Message, Original, Outgoing, Tags};
pub use receipt::Receipt;
pub use windows::Windows;

/// A queue that somebody takes messages from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Queue {
    /// Fresh events, as producers published them.
    Events,
    /// One message per (event, subscription) of an event with several subscribers.
    Deliveries,
    /// What comes back from a wait, and replays.
    Retries,
    /// Deliveries given up.
    DeadDeliveries,
    /// Events that could not be read.
    DeadEvents,
    /// Interactive events, whose callers wait.
    Calls,
}

impl Queue {
    /// Every queue, in the order of the variants.
    pub const ALL: [Queue; 6] = [
        Queue::Events,
        Queue::Deliveries,
        Queue::Retries,
        Queue::DeadDeliveries,
        Queue::DeadEvents,
        Queue::Calls,
    ];

    /// The word for this queue in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Queue::Events => "events",
            Queue::Deliveries => "deliveries",
            Queue::Retries => "retries",
            Queue::DeadDeliveries => "dead.deliveries",
            Queue::DeadEvents => "dead.events",
            Queue::Calls => "calls",
        }
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a message is published to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The exchange producers publish to; the routing key is the event's type.
    Events,
    /// The queue of fan-out deliveries.
    Deliveries,
    /// The queue of due retries and replays.
    Retries,
    /// Delay level N: the message comes back to the retries after 2^N units.
    Delay(u8),
    /// The queue of deliveries given up.
    DeadDeliveries,
    /// The queue of events that could not be read.
    DeadEvents,
    /// The exchange of receivers' answers; the routing key is the event's type. Nobody has to be bound to it.
    Answers,
    /// The exchange of notices; the routing key is the notice's type. Nobody may be listening.
    Notices,
}

impl Target {
    /// Whether what is published there must reach a queue.
    pub fn is_mandatory(self) -> bool {
        !matches!(self, Target::Answers | Target::Notices)
    }
}

/// A message in hand, with the receipt that must be settled.
#[derive(Debug)]
pub struct Taken {
    /// The queue it was taken from.
    pub queue: Queue,
    /// Its body and what travels beside it.
    pub message: Message,
    /// To be settled exactly once.
    pub receipt: Receipt,
}

/// Why a publish is not known to be safe. The source must stay unacknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unconfirmed {
    /// The connection went, or the confirm did not come in time: it may or may not have arrived.
    #[error("the broker did not confirm: {0}")]
    Unknown(String),
    /// The broker said no (a full queue).
    #[error("the broker refused the message")]
    Refused,
    /// The publisher was closed.
    #[error("the publisher is closed")]
    Closed,
}

/// Publishing with proof: the one thing the worker needs of a broker beside its intake.
pub trait Broker: Send + Sync + 'static {
    /// Publishes persistently and returns once the broker confirmed that the message is in a queue.
    ///
    /// # Errors
    /// [`Unconfirmed`]: the caller keeps whatever this message stands for.
    fn publish(
        &self,
        target: Target,
        message: Outgoing,
    ) -> impl Future<Output = Result<(), Unconfirmed>> + Send;
}

/// Speaks to callers, who wait for an answer and may be gone.
pub trait Replier: Send + Sync + 'static {
    /// Sends one of `replies` messages to whoever asked; once, or twice where the connection is lost before the first
    /// is confirmed, and returns after ten seconds at the latest. Whether it got there is counted and nobody's concern.
    fn reply(
        &self,
        asker: Asker,
        replies: u32,
        body: Vec<u8>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

impl<B: Broker> Broker for std::sync::Arc<B> {
    fn publish(
        &self,
        target: Target,
        message: Outgoing,
    ) -> impl Future<Output = Result<(), Unconfirmed>> + Send {
        B::publish(self, target, message)
    }
}
