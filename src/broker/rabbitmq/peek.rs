//! Looking into a queue without taking from it: a consumer with a window, which hands everything back.
//!
//! What is handed back goes to the end of a quorum queue, in its order (measured on 3.10.8, for a nack as for a
//! closed channel). So the window takes the whole queue as far as it may, whatever a person wants to see of it,
//! and everything goes back in one piece: then nothing has moved. `basic.get` would turn the order round. The
//! broker counts one delivery per look.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::Consumer;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use tokio::time::timeout;

use super::codec;
use super::inspect::{Depth, Inspector};
use super::topology::{self, TopologyError};
use crate::broker::{Message, Queue};

/// The most messages one look may hold: while it lasts nobody else sees them.
pub const WINDOW_MAX: u16 = 1000;
/// How long the broker may be silent before a look ends.
const SILENCE: Duration = Duration::from_secs(2);
/// How long the broker may take to stop handing out.
const CANCEL_WITHIN: Duration = Duration::from_secs(5);

/// What a look into a queue saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// What was in the queue, and who else took from it, just before.
    pub depth: Depth,
    /// Messages seen and handed back.
    pub seen: u32,
}

impl Inspector {
    /// Shows the messages of a queue, the first [`WINDOW_MAX`] at most, and hands them back; none: there is no
    /// such queue. In a longer queue those that were seen stand at the end afterwards.
    ///
    /// Each is shown as it comes, so that nobody has to hold all bodies. Where somebody else is the queue's
    /// single active consumer nothing comes, and the look ends after two seconds.
    ///
    /// # Errors
    /// The connection failed, or the broker does not let us take.
    pub async fn peek(
        &self,
        queue: Queue,
        mut show: impl FnMut(Message),
    ) -> Result<Option<Peeked>, TopologyError> {
        let name = self.topology.queue(queue);
        let Some(depth) = self.depths(std::slice::from_ref(&name)).await?.into_iter().flatten().next() else {
            return Ok(None);
        };
        if depth.ready == 0 && depth.consumers == 0 {
            return Ok(Some(Peeked { depth, seen: 0 }));
        }
        let explain = |error| topology::explain(&name, error);
        let channel = self.channel().await?;
        // Before consume: the window is all that is ever handed out.
        channel.basic_qos(WINDOW_MAX, BasicQosOptions::default()).await.map_err(explain)?;
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumed = channel.basic_consume(name.as_str().into(), "".into(), options, none);
        let mut consumer = consumed.await.map_err(explain)?;
        let wanted = depth.ready.min(WINDOW_MAX.into());
        let (mut seen, mut last_tag) = (0, None);
        // A queue that is held may be let go meanwhile, so even with nothing ready one silence is waited.
        while seen < wanted.max(1) {
            let Ok(Some(delivery)) = timeout(SILENCE, consumer.next()).await else { break };
            let delivery = delivery.map_err(explain)?;
            last_tag = Some(delivery.delivery_tag);
            seen += 1;
            show(codec::decode(queue, delivery));
        }
        // First no more may come; only then is everything handed back, in one piece and in its order.
        let cancelled = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        if timeout(CANCEL_WITHIN, cancelled).await.is_ok_and(|cancelled| cancelled.is_ok()) {
            last_tag = rest(&mut consumer).await.or(last_tag);
            if let Some(tag) = last_tag {
                let back = BasicNackOptions { multiple: true, requeue: true };
                channel.basic_nack(tag, back).await.map_err(explain)?;
            }
        }
        // Closing hands back whatever is left.
        channel.close(200, "looked".into()).await.map_err(explain)?;
        Ok(Some(Peeked { depth, seen }))
    }
}

/// The tag of the last message that was on its way when the consumer was cancelled.
async fn rest(consumer: &mut Consumer) -> Option<u64> {
    let mut last = None;
    while let Ok(Some(Ok(delivery))) = timeout(CANCEL_WITHIN, consumer.next()).await {
        last = Some(delivery.delivery_tag);
    }
    last
}
