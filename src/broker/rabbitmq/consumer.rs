//! The consumer of one queue, through channel errors and deleted queues.
//!
//! After a channel error lapin's consumer goes silent while the connection looks healthy, and a deleted queue just ends
//! its stream. So every end but a wanted one rebuilds the channel, on a declared topology, with a pause.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use tokio::sync::mpsc::{UnboundedSender, WeakUnboundedSender, unbounded_channel};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::faults::Faults;
use super::link::Pauses;
use super::topology::Topology;
use super::window::{Change, Window};
use super::{acknowledger, codec, stream};
use crate::broker::receipt::Settlement;
use crate::broker::windows::Consuming;
use crate::broker::{Queue, Receipt, Taken, Windows};

/// Deliveries passed on before stop, gate and health are looked at again.
const AT_ONCE: usize = 32;
/// For the broker's answer to a cancelled consumer, and for what it had sent before.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// The consumer of one queue, on one channel after another of the same connection.
pub(super) struct QueueConsumer {
    pub(super) connection: Arc<Connection>,
    pub(super) topology: Topology,
    pub(super) declare: bool,
    pub(super) queue: Queue,
    pub(super) name: String,
    pub(super) label: String,
    pub(super) window: Window,
    pub(super) windows: Arc<Windows>,
    pub(super) gate: watch::Receiver<bool>,
    pub(super) sink: mpsc::Sender<Taken>,
    pub(super) stop: CancellationToken,
    pub(super) faults: Arc<Faults>,
    /// Acknowledgers of this connection's channels; aborted with it, which kills their receipts.
    pub(super) settling: JoinSet<()>,
    /// Lines of paused channels: their messages are still in hand.
    pub(super) earlier: Vec<WeakUnboundedSender<(u64, Settlement)>>,
}

/// Why a consumer ended.
pub(super) enum End {
    /// The process stops.
    Stopped,
    /// The gate closed: take nothing for now.
    Paused,
    /// It may hold more or fewer messages than before, and RabbitMQ takes a prefetch for new consumers only.
    Resized(Change),
    /// Its oldest message takes its time, and nothing behind it can be acknowledged together: what is in hand is
    /// settled on this channel, what comes next on another.
    Stuck,
    /// The connection is gone with everything on it.
    Lost,
    /// This channel only.
    Fault(String),
}

impl QueueConsumer {
    /// Takes until stopped (everything settled) or the connection is lost.
    pub(super) async fn run(mut self) -> End {
        let mut pauses = Pauses::new();
        let mut takes_on = false;
        loop {
            let began = Instant::now();
            let end = self.take(takes_on).await;
            takes_on = matches!(end, End::Resized(_) | End::Stuck);
            match end {
                End::Stopped => {
                    drop(self.sink);
                    while self.settling.join_next().await.is_some() {}
                    return End::Stopped;
                }
                End::Lost => return End::Lost,
                End::Paused | End::Resized(_) | End::Stuck => {}
                End::Fault(reason) => {
                    metrics::counter!("paperboy_consumer_faults_total", "queue" => self.label.clone())
                        .increment(1);
                    // A queue may be missing for days: its log says so once.
                    if self.faults.queue(&self.label, Some(reason.clone())) {
                        warn!("the consumer of `{}` is rebuilt: {reason}", self.label);
                    }
                    pauses.wait(began.elapsed(), &self.stop).await;
                    // The queue itself may be gone.
                    if let Err(error) = self.topology.ensure(&self.connection, self.declare).await {
                        warn!("the topology is not whole: {error}");
                        if !self.connection.status().connected() {
                            return End::Lost;
                        }
                    }
                }
            }
        }
    }

    /// One consumer, from an open gate to its end. In place of another it takes on at once.
    async fn take(&mut self, takes_on: bool) -> End {
        self.windows.set(self.queue, self.window.places());
        if let Some(end) = self.wait_for_gate(takes_on).await {
            return end;
        }
        if !takes_on {
            let in_hand = self.in_hand();
            self.window.resume(in_hand);
            self.windows.set(self.queue, self.window.places());
        }
        if let Some(end) = self.refuse_stream(takes_on).await {
            return end;
        }
        let consumed = tokio::select! {
            consumed = self.consume() => consumed,
            () = self.stop.cancelled() => return End::Stopped,
        };
        let (channel, consumer) = match consumed {
            Ok(opened) => opened,
            Err(_) if !self.connection.status().connected() => return End::Lost,
            Err(error) => {
                // The broker's own words where it has some.
                let reason = super::reply_code(&error).map(|(_, detail)| detail);
                return End::Fault(reason.unwrap_or_else(|| error.to_string()));
            }
        };
        self.faults.queue(&self.label, None);
        let places = self.window.places();
        metrics::gauge!("paperboy_window", "queue" => self.label.clone()).set(f64::from(places));
        if takes_on {
            debug!("taking from `{}`, at most {places} in hand", self.label);
        } else {
            info!("taking from `{}`, at most {places} in hand", self.label);
        }
        let (line, settled) = unbounded_channel();
        let stuck = Arc::new(Notify::new());
        let acknowledger = self.settling.spawn(acknowledger::run(
            channel.clone(),
            self.name.clone(),
            places,
            settled,
            Arc::clone(&stuck),
        ));
        self.earlier.push(line.downgrade());
        let consuming = self.windows.consuming(self.queue);
        let end = self.forward(&channel, consumer, line, &stuck, consuming).await;
        if matches!(end, End::Lost | End::Fault(_)) {
            acknowledger.abort();
        }
        // Settled lines of earlier pauses need no memory.
        while self.settling.try_join_next().is_some() {}
        end
    }

    async fn wait_for_gate(&mut self, takes_on: bool) -> Option<End> {
        let mut tick = interval(Duration::from_secs(1));
        loop {
            if self.stop.is_cancelled() {
                return Some(End::Stopped);
            }
            if !self.connection.status().connected() {
                return Some(End::Lost);
            }
            // What was taken before a pause counts: else every pause would add a whole prefetch.
            let in_hand = self.in_hand();
            let is_room = takes_on || in_hand <= usize::from(self.window.places()) / 2;
            if *self.gate.borrow_and_update() && is_room {
                return None;
            }
            tokio::select! {
                changed = self.gate.changed() => if changed.is_err() { return Some(End::Stopped) },
                () = self.stop.cancelled() => {}
                _ = tick.tick() => {}
            }
        }
    }

    /// Why nothing is taken from a queue that we did not make, if it is a stream.
    async fn refuse_stream(&self, takes_on: bool) -> Option<End> {
        if takes_on || self.name == self.topology.queue(self.queue) {
            return None;
        }
        let looked = tokio::select! {
            looked = stream::is_stream(&self.connection, &self.name) => looked,
            () = self.stop.cancelled() => return Some(End::Stopped),
        };
        match looked {
            Ok(false) => None,
            Ok(true) => Some(End::Fault(stream::REFUSED.to_owned())),
            Err(_) if !self.connection.status().connected() => Some(End::Lost),
            Err(error) => Some(End::Fault(error.to_string())),
        }
    }

    async fn consume(&self) -> lapin::Result<(Channel, Consumer)> {
        let channel = self.connection.create_channel().await?;
        // Before consume: lapin buffers deliveries without bound.
        channel.basic_qos(self.window.places(), BasicQosOptions::default()).await?;
        let name = self.name.as_str();
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(name.into(), "".into(), options, FieldTable::default()).await?;
        Ok((channel, consumer))
    }

    /// Passes deliveries on until something ends it; then hands back what nobody has started.
    async fn forward(
        &mut self,
        channel: &Channel,
        mut consumer: Consumer,
        line: UnboundedSender<(u64, Settlement)>,
        stuck: &Notify,
        consuming: Consuming,
    ) -> End {
        let mut tick = interval(Duration::from_secs(1));
        let end = loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break End::Stopped,
                changed = self.gate.changed() => {
                    // Whoever kept the gate is gone, and the process with it.
                    if changed.is_err() {
                        break End::Stopped;
                    }
                    if !*self.gate.borrow_and_update() {
                        break End::Paused;
                    }
                }
                () = stuck.notified() => {
                    if self.may_leave_a_channel() {
                        break End::Stuck;
                    }
                }
                _ = tick.tick() => {
                    if !self.connection.status().connected() {
                        break End::Lost;
                    }
                    if !channel.status().connected() {
                        break End::Fault("the channel is closed".into());
                    }
                }
                next = consumer.next() => {
                    if let Some(end) = self.pass_on_all(next, &mut consumer, &line).await {
                        break end;
                    }
                }
            }
        };
        // Whoever watches what is in hand knows before anything goes back, and counts none that is gone already.
        drop(consuming);
        match end {
            // A call that is handed back is answered as interrupted: what has been fetched is answered here.
            End::Stopped | End::Paused | End::Resized(_) if self.queue == Queue::Calls => {
                self.pass_on_the_rest(channel, consumer, &line).await;
            }
            End::Stopped | End::Paused | End::Resized(Change::Shrunk) => {
                hand_back_the_rest(channel, consumer, &line).await;
            }
            End::Resized(Change::Grown) | End::Stuck => self.pass_on_the_rest(channel, consumer, &line).await,
            End::Lost | End::Fault(_) => {}
        }
        end
    }

    /// What stays on an earlier channel is held beside a whole window.
    fn may_leave_a_channel(&mut self) -> bool {
        let in_hand = self.in_hand();
        let may = self.windows.may_end(self.queue, std::time::Instant::now())
            && self.window.may_be_doubled(self.earlier.len(), in_hand);
        if may {
            metrics::counter!("paperboy_stuck_channels_total", "queue" => self.label.clone()).increment(1);
        }
        may
    }

    /// As [`in_hand`].
    fn in_hand(&mut self) -> usize {
        in_hand(&mut self.earlier)
    }

    /// Passes on a delivery and what has arrived behind it; why there will be no more, if that has come.
    async fn pass_on_all(
        &mut self,
        mut next: Option<lapin::Result<Delivery>>,
        consumer: &mut Consumer,
        line: &UnboundedSender<(u64, Settlement)>,
    ) -> Option<End> {
        for left in (0..AT_ONCE).rev() {
            match next {
                Some(Ok(delivery)) => {
                    let body_bytes = delivery.data.len();
                    if !self.pass_on(delivery, line).await {
                        return Some(End::Stopped);
                    }
                    let (now, earlier) = (std::time::Instant::now(), &mut self.earlier);
                    if let Some(change) = self.window.see(body_bytes, now, || in_hand(earlier)) {
                        if change == Change::Shrunk {
                            info!(
                                body_bytes,
                                "bodies of `{}` are large: at most {} are held at once from now on",
                                self.queue,
                                self.window.places()
                            );
                        }
                        return Some(End::Resized(change));
                    }
                }
                Some(Err(_)) if !self.connection.status().connected() => return Some(End::Lost),
                Some(Err(error)) => return Some(End::Fault(error.to_string())),
                None => return Some(End::Fault("the broker cancelled the consumer".into())),
            }
            // Looked at only to be handled: nothing that was taken out is dropped.
            next = (left > 0).then(|| consumer.next().now_or_never()).flatten()?;
        }
        None
    }

    /// False when nobody receives any more: taking on would only hand messages back for ever.
    async fn pass_on(&self, delivery: Delivery, line: &UnboundedSender<(u64, Settlement)>) -> bool {
        let receipt = Receipt::new(delivery.delivery_tag, line.clone());
        let taken = Taken { queue: self.queue, message: codec::decode(self.queue, delivery), receipt };
        // The sink holds a whole prefetch; a closed one drops the receipt, which hands the message back.
        self.sink.send(taken).await.is_ok()
    }

    /// Cancels the consumer and passes on what the client had already fetched.
    async fn pass_on_the_rest(
        &self,
        channel: &Channel,
        mut consumer: Consumer,
        line: &UnboundedSender<(u64, Settlement)>,
    ) {
        if cancel(channel, &consumer).await {
            while let Ok(Some(Ok(delivery))) = timeout(CANCEL_TIMEOUT, consumer.next()).await {
                if !self.pass_on(delivery, line).await {
                    return;
                }
            }
        }
    }
}

/// Receipts that are not used up, of this channel and of earlier ones; channels without any are forgotten.
fn in_hand(channels: &mut Vec<WeakUnboundedSender<(u64, Settlement)>>) -> usize {
    channels.retain(|line| line.strong_count() > 0);
    channels.iter().map(WeakUnboundedSender::strong_count).sum()
}

/// Cancels the consumer and gives back what the client had already fetched.
async fn hand_back_the_rest(
    channel: &Channel,
    mut consumer: Consumer,
    line: &UnboundedSender<(u64, Settlement)>,
) {
    if !cancel(channel, &consumer).await {
        return;
    }
    let rest = async {
        while let Some(Ok(delivery)) = consumer.next().await {
            Receipt::new(delivery.delivery_tag, line.clone()).hand_back();
        }
    };
    let _ = timeout(CANCEL_TIMEOUT, rest).await;
}

/// False when the broker did not answer; what is left is then handed out again when the channel ends.
async fn cancel(channel: &Channel, consumer: &Consumer) -> bool {
    let cancelled = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
    timeout(CANCEL_TIMEOUT, cancelled).await.is_ok()
}
