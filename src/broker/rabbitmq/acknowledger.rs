//! Tells the broker what became of the messages of one channel, outside the loop that receives them.
//!
//! The line it reads dies with its channel: that is the fence which keeps a late acknowledgement from
//! settling somebody else's message under the same tag on a newer channel.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::settlements::{Order, Settlements};
use crate::broker::receipt::Settlement;

/// The longest pause between two rounds of telling; a finished message waits for three of them at most.
const PAUSE_MAX: Duration = Duration::from_millis(5);
/// The shortest one.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// What a small prefetch shortens the pause to, for each message of it: a window that is full of finished
/// messages takes nothing new.
const PAUSE_EACH: Duration = Duration::from_micros(20);
/// Settlements RabbitMQ's channel passes on to a quorum queue before it waits for the queue's answer
/// (`quorum_commands_soft_limit`).
const SETTLED_AT_ONCE: usize = 32;
const FLUSH_PAUSE: Duration = Duration::from_millis(50);
/// Rounds of a flush at the most; with its pauses about a second.
const FLUSHES_MAX: usize = 16;

/// Settles until every receipt is used up, then closes the channel. Rings `stuck` where a message that takes its time
/// makes this channel dear.
pub(super) async fn run(
    channel: Channel,
    queue: String,
    prefetch: u16,
    mut line: UnboundedReceiver<(u64, Settlement)>,
    stuck: Arc<Notify>,
) {
    let pause = (PAUSE_EACH * u32::from(prefetch)).clamp(PAUSE_MIN, PAUSE_MAX);
    let mut settlements = Settlements::new(prefetch);
    let mut orders = Vec::new();
    let (mut burst, mut burst_at) = (0, Instant::now());
    let mut is_open = true;
    while is_open {
        if !settlements.is_waiting() {
            let Some((tag, settlement)) = line.recv().await else { break };
            settlements.settle(tag, settlement);
        }
        // Nobody is woken by what comes in meanwhile.
        sleep(pause).await;
        is_open = take_in(&mut line, &mut settlements);
        if is_open {
            settlements.round(&mut orders)
        } else {
            settlements.rest(&mut orders)
        }
        if burst_at.elapsed() > Duration::from_secs(1) {
            burst = 0;
        }
        (burst, burst_at) = (burst + orders.len(), Instant::now());
        if let Err(error) = tell(&channel, &mut orders).await {
            // The broker hands these messages out again; dropping the line tells every receipt.
            debug!("channel gone while settling: {error}");
            return;
        }
        if settlements.is_stuck() {
            stuck.notify_one();
        }
    }
    flush(&channel, &queue, burst).await;
    let _ = channel.close(200, "settled".into()).await;
}

/// Notes everything that has come in; false when nothing more will.
fn take_in(line: &mut UnboundedReceiver<(u64, Settlement)>, settlements: &mut Settlements) -> bool {
    loop {
        match line.try_recv() {
            Ok((tag, settlement)) => settlements.settle(tag, settlement),
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => return false,
        }
    }
}

/// Gives the broker's channel the time to pass everything on to its queue.
///
/// It hands settlements over a few at a time and forgets the rest when it is closed meanwhile: acknowledged
/// messages then come again (seen on 3.10.8 with 50 acknowledgements and a close in the same millisecond: 17
/// came again). Asking for the queue goes through the same channel and the same queue, so each round is as
/// slow as they are.
async fn flush(channel: &Channel, queue: &str, burst: usize) {
    let rounds = if burst == 0 { 0 } else { (burst / SETTLED_AT_ONCE + 4).min(FLUSHES_MAX) };
    for _ in 0..rounds {
        sleep(FLUSH_PAUSE).await;
        let look = QueueDeclareOptions { passive: true, ..Default::default() };
        if channel.queue_declare(queue.into(), look, FieldTable::default()).await.is_err() {
            return;
        }
    }
}

/// Tells the orders in their order: an acknowledgement of many must not overtake what goes back. Single
/// acknowledgements come last and together: each is a hand-over to the connection's own thread.
async fn tell(channel: &Channel, orders: &mut Vec<Order>) -> lapin::Result<()> {
    let first_single = orders.iter().position(|order| matches!(order, Order::Acknowledge(_)));
    let singles = orders.split_off(first_single.unwrap_or(orders.len()));
    for order in orders.drain(..) {
        tell_one(channel, order).await?;
    }
    try_join_all(singles.into_iter().map(|order| tell_one(channel, order))).await?;
    Ok(())
}

async fn tell_one(channel: &Channel, order: Order) -> lapin::Result<()> {
    match order {
        Order::HandBack(tag) => {
            channel.basic_nack(tag, BasicNackOptions { requeue: true, ..Default::default() }).await
        }
        Order::AcknowledgeThrough(tag) => channel.basic_ack(tag, BasicAckOptions { multiple: true }).await,
        Order::Acknowledge(tag) => channel.basic_ack(tag, BasicAckOptions::default()).await,
    }
}
