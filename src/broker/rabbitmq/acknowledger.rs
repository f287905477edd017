//! Tells the broker what became of the messages of one channel, outside the loop that receives them.
//!
//! The line it reads dies with its channel: that is the fence which keeps a late acknowledgement from
//! settling somebody else's message under the same tag on a newer channel.

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use tokio::sync::mpsc::UnboundedReceiver;
use tracing::debug;

use crate::broker::receipt::Settlement;

/// Settles until every receipt of the channel is used up, then closes the channel.
pub(super) async fn run(channel: Channel, mut line: UnboundedReceiver<(u64, Settlement)>) {
    let mut batch = Vec::with_capacity(256);
    while line.recv_many(&mut batch, 256).await > 0 {
        for (tag, settlement) in batch.drain(..) {
            let told = match settlement {
                Settlement::Acknowledged => channel.basic_ack(tag, BasicAckOptions::default()).await,
                Settlement::HandedBack => {
                    channel.basic_nack(tag, BasicNackOptions { requeue: true, ..Default::default() }).await
                }
            };
            if let Err(error) = told {
                // The broker hands these messages out again; dropping the line tells every receipt.
                debug!("channel gone while settling: {error}");
                return;
            }
        }
    }
    let _ = channel.close(200, "settled".into()).await;
}
