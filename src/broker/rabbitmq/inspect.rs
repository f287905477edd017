//! Looking at the broker for people: what is there, how it differs, how much is in it. Takes no message.
//!
//! AMQP answers only three questions: does it exist, how many messages are ready and how many consumers are
//! there (a passive declare), and are these its arguments (an equivalent declare). Bindings cannot be asked.

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Connection};

use super::link::Link;
use super::topology::{self, Item, Topology, TopologyError};
use super::{Settings, StartError};

/// A connection to look through.
pub struct Inspector {
    pub(super) connection: Connection,
    pub(super) topology: Topology,
}

/// How much is in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Messages that nobody has in hand.
    pub ready: u32,
    /// Who takes from it; with a single active consumer, those who wait for their turn too.
    pub consumers: u32,
}

/// How far a check goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Only whether things exist.
    Existence,
    /// Their arguments too.
    Arguments,
    /// What is missing is declared.
    Declare,
}

/// What was found of one item.
#[derive(Debug)]
pub enum Finding {
    /// It is there; its arguments were not asked.
    Exists,
    /// It is there with exactly these arguments.
    Equal,
    /// It was missing and is declared now.
    Declared,
    /// AMQP has no way to ask.
    Unasked,
    /// It is not as it must be.
    Wrong(TopologyError),
}

impl Inspector {
    /// Connects; declares nothing.
    ///
    /// # Errors
    /// No broker within `start_wait`, a refused login.
    pub async fn connect(settings: &Settings) -> Result<Inspector, StartError> {
        let link = Link::new(&settings.url, "look")?;
        let connection = link.dial_within(settings.start_wait).await?;
        let topology = Topology::new(&settings.prefix, settings.delay_unit_ms);
        Ok(Inspector { connection, topology })
    }

    /// The names to ask for.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Ready messages and consumers of each queue, in the order given; none for one that is missing.
    ///
    /// # Errors
    /// The connection failed, or the broker does not let us look.
    pub async fn depths(&self, queues: &[String]) -> Result<Vec<Option<Depth>>, TopologyError> {
        let mut channel = self.channel().await?;
        let mut depths = Vec::with_capacity(queues.len());
        for name in queues {
            let options = QueueDeclareOptions { passive: true, ..Default::default() };
            let asked = channel.queue_declare(name.as_str().into(), options, FieldTable::default()).await;
            depths.push(match asked {
                Ok(queue) => Some(Depth { ready: queue.message_count(), consumers: queue.consumer_count() }),
                Err(error) => match topology::explain(name, error) {
                    TopologyError::Missing { .. } => {
                        // The broker has closed the channel with its answer.
                        channel = self.channel().await?;
                        None
                    }
                    error => return Err(error),
                },
            });
        }
        let _ = channel.close(200, "looked".into()).await;
        Ok(depths)
    }

    /// Looks at every item of the topology and goes on after what is wrong, so that all of it is found.
    ///
    /// # Errors
    /// The connection failed; whatever else is wrong is a finding.
    pub async fn check(&self, how: Extent) -> Result<Vec<(Item, Finding)>, TopologyError> {
        let mut findings = Vec::new();
        // Thrown away whenever an answer has closed it.
        let mut channel = self.channel().await?;
        for item in self.topology.items() {
            let finding = match self.look(&mut channel, &item, how).await {
                Ok(finding) => finding,
                Err(error @ TopologyError::Connection(_)) => return Err(error),
                Err(error) => {
                    channel = self.channel().await?;
                    Finding::Wrong(error)
                }
            };
            findings.push((item, finding));
        }
        let _ = channel.close(200, "looked".into()).await;
        Ok(findings)
    }

    async fn look(&self, channel: &mut Channel, item: &Item, how: Extent) -> Result<Finding, TopologyError> {
        let ensure = async |channel: &Channel, declare| {
            item.ensure(channel, declare).await.map_err(|error| topology::explain(item.name(), error))
        };
        if let Item::Binding { .. } = item {
            return match how {
                Extent::Declare => ensure(channel, true).await.map(|()| Finding::Declared),
                Extent::Existence | Extent::Arguments => Ok(Finding::Unasked),
            };
        }
        // Passively first: an equivalent declare of what is missing would make it.
        match ensure(channel, false).await {
            Ok(()) if how == Extent::Existence => Ok(Finding::Exists),
            Ok(()) => ensure(channel, true).await.map(|()| Finding::Equal),
            Err(TopologyError::Missing { .. }) if how == Extent::Declare => {
                *channel = self.channel().await?;
                ensure(channel, true).await.map(|()| Finding::Declared)
            }
            Err(error) => Err(error),
        }
    }

    /// Closes the connection.
    pub async fn close(self) {
        let _ = self.connection.close(200, "looked".into()).await;
    }

    pub(super) async fn channel(&self) -> Result<Channel, TopologyError> {
        self.connection.create_channel().await.map_err(TopologyError::Connection)
    }
}
