//! Tells the broker what became of the messages of one channel, outside the loop that receives them.
//!
//! The line it reads dies with its channel: that is the fence which keeps a late acknowledgement from
//! settling somebody else's message under the same tag on a newer channel.

use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::broker::receipt::Settlement;

/// Settlements RabbitMQ's channel passes on to a quorum queue before it waits for the queue's answer
/// (`quorum_commands_soft_limit`).
const SETTLED_AT_ONCE: usize = 32;
const FLUSH_PAUSE: Duration = Duration::from_millis(50);
/// Rounds of a flush at the most; with its pauses about a second.
const FLUSHES_MAX: usize = 16;

/// Settles until every receipt is used up, then closes the channel.
pub(super) async fn run(channel: Channel, queue: String, mut line: UnboundedReceiver<(u64, Settlement)>) {
    let mut batch = Vec::with_capacity(256);
    let (mut burst, mut burst_at) = (0, Instant::now());
    while line.recv_many(&mut batch, 256).await > 0 {
        if burst_at.elapsed() > Duration::from_secs(1) {
            burst = 0;
        }
        (burst, burst_at) = (burst + batch.len(), Instant::now());
        // Together, not one after the other: each is a hand-over to the connection's own thread.
        let told = batch.drain(..).map(|(tag, settlement)| tell(&channel, tag, settlement));
        if let Err(error) = try_join_all(told).await {
            // The broker hands these messages out again; dropping the line tells every receipt.
            debug!("channel gone while settling: {error}");
            return;
        }
    }
    flush(&channel, &queue, burst).await;
    let _ = channel.close(200, "settled".into()).await;
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

async fn tell(channel: &Channel, tag: u64, settlement: Settlement) -> lapin::Result<()> {
    match settlement {
        Settlement::Acknowledged => channel.basic_ack(tag, BasicAckOptions::default()).await,
        Settlement::HandedBack => {
            channel.basic_nack(tag, BasicNackOptions { requeue: true, ..Default::default() }).await
        }
    }
}
