//! Tells the broker what became of the messages of one channel, outside the loop that receives them.
//!
//! The line it reads dies with its channel: that is the fence which keeps a late acknowledgement from
//! settling somebody else's message under the same tag on a newer channel.

use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;
use tracing::debug;

use crate::broker::receipt::Settlement;

/// RabbitMQ's channel passes at most 32 settlements on to a quorum queue before it waits for the queue's
/// answer, and forgets the rest when it is closed meanwhile: acknowledged messages then come again (seen on
/// 3.10.8 with 50 acknowledgements and a close in the same millisecond: 17 came again).
const CLOSE_PAUSE: Duration = Duration::from_millis(500);

/// Settles until every receipt of the channel is used up, then closes the channel.
pub(super) async fn run(channel: Channel, mut line: UnboundedReceiver<(u64, Settlement)>) {
    let mut batch = Vec::with_capacity(256);
    while line.recv_many(&mut batch, 256).await > 0 {
        // Together, not one after the other: each is a hand-over to the connection's own thread.
        let told = batch.drain(..).map(|(tag, settlement)| tell(&channel, tag, settlement));
        if let Err(error) = try_join_all(told).await {
            // The broker hands these messages out again; dropping the line tells every receipt.
            debug!("channel gone while settling: {error}");
            return;
        }
    }
    sleep(CLOSE_PAUSE).await;
    let _ = channel.close(200, "settled".into()).await;
}

async fn tell(channel: &Channel, tag: u64, settlement: Settlement) -> lapin::Result<()> {
    match settlement {
        Settlement::Acknowledged => channel.basic_ack(tag, BasicAckOptions::default()).await,
        Settlement::HandedBack => {
            channel.basic_nack(tag, BasicNackOptions { requeue: true, ..Default::default() }).await
        }
    }
}
