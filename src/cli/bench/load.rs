//! Publishing for a bench: as fast as the broker confirms, or at a steady rate whatever happens.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, FuturesUnordered};
use indicatif::ProgressBar;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::event::Events;
use crate::broker::rabbitmq::RabbitMq;
use crate::broker::{Broker as _, Target, Unconfirmed};
use crate::cli::Failure;

/// Publishes under way at once while a queue is filled.
const CONCURRENCY: usize = 512;
/// Publishes that may wait for their confirms in the open loop; beyond it the rate is not the broker's.
const OPEN_MAX: usize = 20_000;

/// Publishes this many events, each confirmed.
pub(super) async fn fill(
    broker: &RabbitMq,
    events: &Events,
    count: usize,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let publishes = (0..count).map(|number| broker.publish(Target::Events, events.make(number)));
    let mut results = stream::iter(publishes).buffer_unordered(CONCURRENCY);
    while let Some(result) = results.next().await {
        result.map_err(unconfirmed)?;
        bar.inc(1);
    }
    Ok(())
}

/// Publishes at `rate` a second for a while without waiting for anything; how many that were.
pub(super) async fn open_loop(
    broker: &RabbitMq,
    events: &Events,
    rate: u32,
    length: Duration,
    bar: &ProgressBar,
) -> Result<usize, Failure> {
    let mut tick = interval(Duration::from_secs(1) / rate.max(1));
    // What the timer was late for is published at once: the rate is held.
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let end = Instant::now() + length;
    let mut under_way = FuturesUnordered::new();
    let mut published = 0;
    while Instant::now() < end {
        tokio::select! {
            biased;
            _ = tick.tick() => {
                under_way.push(broker.publish(Target::Events, events.make(published)));
                published += 1;
                bar.inc(1);
                if under_way.len() > OPEN_MAX {
                    return Err(Failure::world(format!("RabbitMQ does not confirm {rate} events a second"))
                        .hint("choose a lower `--rate`"));
                }
            }
            Some(result) = under_way.next() => result.map_err(unconfirmed)?,
        }
    }
    while let Some(result) = under_way.next().await {
        result.map_err(unconfirmed)?;
    }
    Ok(published)
}

fn unconfirmed(error: Unconfirmed) -> Failure {
    Failure::world(format!("an event was not published: {error}"))
}
