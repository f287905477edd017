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

use super::inspect::{Depth, Inspector};
use super::topology::{self, TopologyError};
use super::{codec, stream};
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
        show: impl FnMut(Message),
    ) -> Result<Option<Peeked>, TopologyError> {
        self.look_into(&self.topology.queue(queue), queue, WINDOW_MAX, show).await
    }

    /// As [`Inspector::peek`], for the first `count` messages of a queue that is not ours. No more are held than are
    /// shown: each look counts as a delivery, and somebody else's queue may allow few. A quorum queue puts them at its
    /// end, a classic one where they were.
    ///
    /// # Errors
    /// The connection failed, or the broker does not let us take.
    pub async fn peek_first(
        &self,
        name: &str,
        count: u16,
        show: impl FnMut(Message),
    ) -> Result<Option<Peeked>, TopologyError> {
        if stream::is_stream(&self.connection, name).await.map_err(TopologyError::Connection)? {
            return Err(TopologyError::Stream { name: name.to_owned() });
        }
        self.look_into(name, Queue::Events, count.clamp(1, WINDOW_MAX), show).await
    }

    async fn look_into(
        &self,
        name: &str,
        queue: Queue,
        window: u16,
        mut show: impl FnMut(Message),
    ) -> Result<Option<Peeked>, TopologyError> {
        let Some(depth) = self.depths(&[name.to_owned()]).await?.into_iter().flatten().next() else {
            return Ok(None);
        };
        if depth.ready == 0 && depth.consumers == 0 {
            return Ok(Some(Peeked { depth, seen: 0 }));
        }
        let explain = |error| topology::explain(name, error);
        let channel = self.channel().await?;
        // Before consume: the window is all that is ever handed out.
        channel.basic_qos(window, BasicQosOptions::default()).await.map_err(explain)?;
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumed = channel.basic_consume(name.into(), "".into(), options, none);
        let mut consumer = consumed.await.map_err(explain)?;
        let wanted = depth.ready.min(window.into());
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
