//! The producer: fills a queue with confirmed events, or publishes at planned times whatever happens.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use futures_util::stream;
use indicatif::ProgressBar;
use lapin::options::{BasicPublishOptions, QueuePurgeOptions};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::event::{Events, Made, now_us};
use super::histogram::Histogram;
use crate::broker::rabbitmq::RabbitMq;
use crate::broker::rabbitmq::topology::{Item, Topology};
use crate::broker::{Broker as _, Outgoing, Tags, Target};
use crate::cli::Failure;
use crate::config::Config;

/// Publishes under way at once while a queue is filled.
const CONCURRENCY: usize = 512;
/// How often the open loop looks at its plan.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Publishes written together, at most.
const BATCH: usize = 256;
/// How far behind its plan the open loop may be at its end.
const BEHIND_MAX: Duration = Duration::from_secs(60);
const PERSISTENT: u8 = 2;

/// A producer with a connection of its own, and what else a bench does to queues.
pub(super) struct Producer {
    connection: Connection,
    channel: Channel,
    topology: Topology,
}

/// How an open loop went.
pub(super) struct Paced {
    pub(super) events: usize,
    /// From the first to the last.
    pub(super) took: Duration,
    /// How late events were published, behind their plan.
    pub(super) late_p99_ms: f64,
}

impl Producer {
    pub(super) async fn connect(config: &Config) -> Result<Producer, Failure> {
        let properties = ConnectionProperties::default();
        let connection = Connection::connect(config.broker.url.expose(), properties).await;
        let connection = connection.context("no connection to RabbitMQ")?;
        let channel = connection.create_channel().await.context("no channel")?;
        let topology = Topology::new(&config.broker.prefix, config.broker.delay_unit_ms);
        Ok(Producer { connection, channel, topology })
    }

    /// Publishes events at `rate` a second. Nothing is waited for but the socket; what an event's moment is follows
    /// from the plan alone, so that a stall makes what it holds up late instead of leaving it out.
    #[expect(clippy::cast_precision_loss, reason = "numbers of events are far below 2^52")]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "times and counts are positive and small"
    )]
    pub(super) async fn pace(
        &self,
        events: &Events<'_>,
        rate: f64,
        length: Duration,
        bar: &ProgressBar,
    ) -> Result<Paced, Failure> {
        let total = (rate * length.as_secs_f64()).ceil() as usize;
        let mut late = Histogram::new();
        let mut published = 0;
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // The plan begins with a tick, so that ticks come with it and not up to one later.
        tick.tick().await;
        let (begun, begun_us) = (Instant::now(), now_us());
        while published < total {
            tick.tick().await;
            let due = ((begun.elapsed().as_secs_f64() * rate) as usize + 1).min(total);
            while published < due {
                let batch = published..due.min(published + BATCH);
                published = batch.end;
                let now_us = now_us();
                let publishes = batch.map(|number| {
                    let planned_us = begun_us + (number as f64 / rate * 1e6) as u64;
                    late.add(now_us.saturating_sub(planned_us));
                    self.publish(events.make(number, planned_us))
                });
                try_join_all(publishes).await.context("an event was not published")?;
                bar.set_position(published as u64);
            }
            if begun.elapsed() > length + BEHIND_MAX {
                return Err(Failure::world(format!("RabbitMQ does not take {rate:.0} events a second"))
                    .hint("choose a lower `--load-percent` or `--rate`"));
            }
        }
        let took = begun.elapsed();
        Ok(Paced { events: total, took, late_p99_ms: late.percentile_ms(99, total as u64) })
    }

    async fn publish(&self, made: Made) -> lapin::Result<()> {
        let (exchange, key) = self.topology.route(Target::Events, Some(super::event::KIND));
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_message_id(made.id.into())
            .with_type(key.as_str().into());
        let options = BasicPublishOptions::default();
        self.channel.basic_publish(exchange.into(), key.into(), options, &made.body, properties).await?;
        Ok(())
    }

    /// Empties every queue: what a bad endpoint left must not disturb the next play.
    pub(super) async fn purge(&self) -> Result<(), Failure> {
        for item in self.topology.items() {
            if let Item::Queue { name, .. } = item {
                let purged = self.channel.queue_purge(name.into(), QueuePurgeOptions::default()).await;
                purged.context("a queue cannot be emptied")?;
            }
        }
        Ok(())
    }

    pub(super) async fn close(self) {
        let closed = self.connection.close(200, "bye".into());
        let _ = timeout(Duration::from_secs(2), closed).await;
    }
}

/// Publishes this many events to one target, each confirmed; `tags` travel beside all of them.
pub(super) async fn fill(
    broker: &RabbitMq,
    events: &Events<'_>,
    count: usize,
    target: Target,
    tags: &Tags,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let publishes = (0..count).map(|number| {
        let Made { id, body } = events.make(number, now_us());
        let kind = Some(super::event::KIND.to_owned());
        let tags = Tags { message_id: Some(id), kind, ..tags.clone() };
        broker.publish(target, Outgoing::new(body, tags))
    });
    let mut results = stream::iter(publishes).buffer_unordered(CONCURRENCY);
    while let Some(result) = results.next().await {
        result.map_err(|error| Failure::world(format!("an event was not published: {error}")))?;
        bar.inc(1);
    }
    Ok(())
}
