//! The exchange, the queues and their binding as data; declaring and checking them.
//!
//! Arguments are immutable in RabbitMQ, so everything that could change with configuration is part of a
//! name (the delay unit), and length limits are left to operators' policies.

use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, Connection, ExchangeKind};

use super::super::{Queue, Target};
use crate::domain::delay;

/// Hand-backs and crashes a message survives before the broker calls it poison. Republishing starts anew.
const WORK_DELIVERY_LIMIT: i64 = 50;
/// Looking into a dead queue counts as a delivery too; 4.x would drop after 20.
const DEAD_DELIVERY_LIMIT: i64 = 1_000_000;

/// Names of everything this deployment owns on the broker.
#[derive(Clone, Debug)]
pub struct Topology {
    prefix: String,
    unit_ms: u32,
}

/// One thing to declare.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A durable topic exchange.
    Exchange {
        /// Its name.
        name: String,
    },
    /// A durable quorum queue.
    Queue {
        /// Its name.
        name: String,
        /// Its arguments, without `x-queue-type`.
        arguments: Vec<(&'static str, Argument)>,
    },
    /// A binding of a queue to an exchange.
    Binding {
        /// The queue.
        queue: String,
        /// The exchange.
        exchange: String,
        /// The routing key.
        key: &'static str,
    },
}

/// An argument's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// A string.
    Text(String),
    /// An integer.
    Number(i64),
    /// A truth value.
    Flag(bool),
}

/// Why the topology is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// A queue or exchange exists with other arguments (406).
    #[error("`{name}` exists on the broker with other arguments: {detail}")]
    Mismatch {
        /// The queue or exchange.
        name: String,
        /// The broker's words, naming the argument.
        detail: String,
    },
    /// Something is missing and `broker.declare = false`.
    #[error("`{name}` does not exist on the broker and `broker.declare` is false")]
    Missing {
        /// The queue or exchange.
        name: String,
    },
    /// The broker does not let us (403).
    #[error("the broker does not allow `{name}` to be declared: {detail}")]
    Denied {
        /// The queue or exchange.
        name: String,
        /// The broker's words.
        detail: String,
    },
    /// The connection failed on the way.
    #[error("the connection failed while the topology was declared: {0}")]
    Connection(lapin::Error),
}

impl TopologyError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            TopologyError::Mismatch { name, .. } => Some(format!(
                "drain and delete `{name}`, or give this deployment a `broker.prefix` of its own"
            )),
            TopologyError::Missing { .. } => Some(
                "declare it first (set `broker.declare = true` once, with a user that may configure)".into(),
            ),
            TopologyError::Denied { .. } => Some(
                "give the user configure rights on the prefix, or declare the topology with another user and set `broker.declare = false`".into(),
            ),
            TopologyError::Connection(_) => None,
        }
    }

    /// True where trying again without anybody's help may work.
    pub fn is_passing(&self) -> bool {
        matches!(self, TopologyError::Connection(_))
    }
}

impl Topology {
    /// The topology under this prefix, with delay levels counted in units of `unit_ms` milliseconds.
    pub fn new(prefix: &str, unit_ms: u32) -> Topology {
        Topology { prefix: prefix.to_owned(), unit_ms }
    }

    /// The topic exchange producers publish to.
    pub fn exchange(&self) -> String {
        format!("{}.events", self.prefix)
    }

    /// The topic exchange of notices.
    pub fn notices(&self) -> String {
        format!("{}.notices", self.prefix)
    }

    /// The name of a queue somebody takes from.
    pub fn queue(&self, queue: Queue) -> String {
        format!("{}.{}", self.prefix, queue.as_str())
    }

    /// The name of delay level N: `….delay.05` for whole seconds, `….delay.20ms.05` for other units.
    pub fn level(&self, level: u8) -> String {
        match self.unit_ms {
            1000 => format!("{}.delay.{level:02}", self.prefix),
            unit => format!("{}.delay.{unit}ms.{level:02}", self.prefix),
        }
    }

    /// Exchange and routing key of a target. All but fresh events go through the default exchange.
    pub fn route(&self, target: Target, kind: Option<&str>) -> (String, String) {
        let direct = |queue| (String::new(), self.queue(queue));
        match target {
            Target::Events => (self.exchange(), kind.unwrap_or("event").to_owned()),
            Target::Deliveries => direct(Queue::Deliveries),
            Target::Retries => direct(Queue::Retries),
            Target::Delay(level) => (String::new(), self.level(level)),
            Target::DeadDeliveries => direct(Queue::DeadDeliveries),
            Target::DeadEvents => direct(Queue::DeadEvents),
            Target::Notices => (self.notices(), kind.unwrap_or("notice").to_owned()),
        }
    }

    /// Everything there is, targets before those that dead-letter to them: a missing target stalls a level.
    pub fn items(&self) -> Vec<Item> {
        let mut items =
            vec![Item::Exchange { name: self.exchange() }, Item::Exchange { name: self.notices() }];
        for queue in [Queue::DeadEvents, Queue::DeadDeliveries] {
            items.push(Item::Queue {
                name: self.queue(queue),
                arguments: vec![
                    ("x-delivery-limit", Argument::Number(DEAD_DELIVERY_LIMIT)),
                    ("x-single-active-consumer", Argument::Flag(true)),
                ],
            });
        }
        for (queue, dead) in [
            (Queue::Events, Queue::DeadEvents),
            (Queue::Deliveries, Queue::DeadDeliveries),
            (Queue::Retries, Queue::DeadDeliveries),
        ] {
            let mut arguments = self.dead_lettering(self.queue(dead));
            arguments.push(("x-delivery-limit", Argument::Number(WORK_DELIVERY_LIMIT)));
            items.push(Item::Queue { name: self.queue(queue), arguments });
        }
        // Right after its queue: in between, events come back to their producers.
        items.push(Item::Binding { queue: self.queue(Queue::Events), exchange: self.exchange(), key: "#" });
        for level in 0..delay::LEVELS {
            let mut arguments = self.dead_lettering(self.queue(Queue::Retries));
            arguments.push(("x-message-ttl", Argument::Number(i64::from(self.unit_ms) << level)));
            items.push(Item::Queue { name: self.level(level), arguments });
        }
        items
    }

    /// At-least-once needs `reject-publish`: with the default `drop-head` RabbitMQ silently falls back
    /// to at-most-once.
    fn dead_lettering(&self, target: String) -> Vec<(&'static str, Argument)> {
        vec![
            ("x-dead-letter-exchange", Argument::Text(String::new())),
            ("x-dead-letter-routing-key", Argument::Text(target)),
            ("x-dead-letter-strategy", Argument::Text("at-least-once".into())),
            ("x-overflow", Argument::Text("reject-publish".into())),
        ]
    }

    /// Declares everything, or (`declare = false`) checks that it exists.
    ///
    /// # Errors
    /// The first thing that is not as it must be; see [`TopologyError`].
    pub async fn ensure(&self, connection: &Connection, declare: bool) -> Result<(), TopologyError> {
        // A channel of its own: a mismatch closes the channel it was found on.
        let channel = connection.create_channel().await.map_err(TopologyError::Connection)?;
        for item in self.items() {
            let done = item.ensure(&channel, declare).await;
            done.map_err(|error| explain(item.name(), error))?;
        }
        // Closing politely is all that could fail here, and nothing depends on it.
        let _ = channel.close(200, "declared".into()).await;
        Ok(())
    }

    /// Deletes everything with the messages in it, for demos and tests; how many queues that were. What is
    /// not there is no fault.
    ///
    /// # Errors
    /// The first thing that could not be deleted.
    pub async fn remove(&self, connection: &Connection) -> Result<usize, TopologyError> {
        let channel = connection.create_channel().await.map_err(TopologyError::Connection)?;
        let mut queues = 0;
        // Those that dead-letter before their targets; a binding goes with its queue.
        for item in self.items().iter().rev() {
            let deleted = match item {
                Item::Queue { name, .. } => {
                    queues += 1;
                    channel
                        .queue_delete(name.as_str().into(), QueueDeleteOptions::default())
                        .await
                        .map(|_| ())
                }
                Item::Exchange { name } => {
                    channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default()).await
                }
                Item::Binding { .. } => Ok(()),
            };
            deleted.map_err(|error| explain(item.name(), error))?;
        }
        let _ = channel.close(200, "removed".into()).await;
        Ok(queues)
    }
}

impl Item {
    /// The queue or exchange it is about.
    pub fn name(&self) -> &str {
        match self {
            Item::Exchange { name } | Item::Queue { name, .. } | Item::Binding { queue: name, .. } => name,
        }
    }

    pub(super) async fn ensure(&self, channel: &Channel, declare: bool) -> lapin::Result<()> {
        match self {
            Item::Exchange { name } => {
                let options =
                    ExchangeDeclareOptions { durable: true, passive: !declare, ..Default::default() };
                let (name, none) = (ShortString::from(name.as_str()), FieldTable::default());
                channel.exchange_declare(name, ExchangeKind::Topic, options, none).await
            }
            Item::Queue { name, arguments } => {
                let options = QueueDeclareOptions { durable: true, passive: !declare, ..Default::default() };
                let declared = channel.queue_declare(name.as_str().into(), options, table(arguments)).await;
                declared.map(|_| ())
            }
            // AMQP cannot ask whether a binding exists.
            Item::Binding { .. } if !declare => Ok(()),
            Item::Binding { queue, exchange, key } => {
                let (queue, exchange) = (queue.as_str().into(), exchange.as_str().into());
                let (options, none) = (QueueBindOptions::default(), FieldTable::default());
                channel.queue_bind(queue, exchange, (*key).into(), options, none).await
            }
        }
    }
}

fn table(arguments: &[(&'static str, Argument)]) -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), AMQPValue::LongString(LongString::from("quorum")));
    for (name, value) in arguments {
        let value = match value {
            Argument::Text(text) => AMQPValue::LongString(LongString::from(text.as_str())),
            Argument::Number(number) => AMQPValue::LongLongInt(*number),
            Argument::Flag(flag) => AMQPValue::Boolean(*flag),
        };
        table.insert((*name).into(), value);
    }
    table
}

pub(super) fn explain(name: &str, error: lapin::Error) -> TopologyError {
    let name = name.to_owned();
    match super::reply_code(&error) {
        Some((406, detail)) => TopologyError::Mismatch { name, detail },
        Some((404, _)) => TopologyError::Missing { name },
        Some((403, detail)) => TopologyError::Denied { name, detail },
        _ => TopologyError::Connection(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_the_unit_when_it_is_not_a_second() {
        assert_eq!(Topology::new("paperboy", 1000).level(5), "paperboy.delay.05");
        assert_eq!(Topology::new("paperboy", 20).level(16), "paperboy.delay.20ms.16");
    }

    #[test]
    fn every_target_of_a_dead_lettering_is_declared_before_it() {
        let items = Topology::new("p", 1000).items();
        let mut seen = Vec::new();
        for item in &items {
            if let Item::Queue { name, arguments } = item {
                for (key, value) in arguments {
                    if let ("x-dead-letter-routing-key", Argument::Text(target)) = (*key, value) {
                        assert!(seen.contains(target), "{name} dead-letters to undeclared {target}");
                    }
                }
                seen.push(name.clone());
            }
        }
        assert_eq!(seen.len(), 5 + usize::from(delay::LEVELS));
    }

    #[test]
    fn a_level_lasts_two_to_the_n_units() {
        let items = Topology::new("p", 5).items();
        let ttl = |wanted: &str| {
            items.iter().find_map(|item| match item {
                Item::Queue { name, arguments } if name == wanted => {
                    arguments.iter().find(|(key, _)| *key == "x-message-ttl").map(|(_, value)| value.clone())
                }
                _ => None,
            })
        };
        assert_eq!(ttl("p.delay.5ms.00"), Some(Argument::Number(5)));
        assert_eq!(ttl("p.delay.5ms.16"), Some(Argument::Number(327_680)));
        assert_eq!(ttl("p.retries"), None);
    }
}
