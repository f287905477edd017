//! The sources of a process: each over a connection of its own, so that the trouble of one stops nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::PUBLISH_PATIENCE;
use crate::broker::Queue;
use crate::broker::rabbitmq::{RabbitMq, Share, StartError};
use crate::config::Config;
use crate::worker::source::Forwarder;

/// Bytes of the messages in hand of one source, about.
const BYTES_MAX: u64 = 32 << 20;

/// Sources that are running.
pub(super) struct Sources {
    /// Which of them takes nothing, and why.
    pub(super) fault: watch::Receiver<Option<String>>,
    /// Ends after the stop, once everything taken is settled.
    pub(super) task: JoinHandle<()>,
}

/// Starts taking from every source while `gate` is open; none where no source is set.
pub(super) fn start(
    config: &Config,
    broker: &Arc<RabbitMq>,
    gate: &watch::Receiver<bool>,
    stop: &CancellationToken,
) -> Result<Option<Sources>, StartError> {
    if config.sources.is_empty() {
        return Ok(None);
    }
    let (board, fault) = Board::new();
    let mut running = JoinSet::new();
    for source in &config.sources {
        let share = Share {
            queue: Queue::Events,
            prefetch: source.prefetch,
            bytes_max: BYTES_MAX,
            body_bytes_max: config.limits.event_bytes_max as u64,
        };
        let intake = broker.take_from(&source.queue, share, gate.clone(), stop.clone())?;
        let watching = tokio::spawn(Arc::clone(&board).follow(source.name.clone(), intake.fault));
        let forwarder = Forwarder {
            broker: Arc::clone(broker),
            source: source.clone(),
            event_bytes_max: config.limits.event_bytes_max,
            publish_patience: PUBLISH_PATIENCE,
            grace: Duration::from_secs(config.delivery.grace_s.into()),
        };
        running.spawn(async move {
            forwarder.run(intake.taken).await;
            // Ends once every receipt is told to the broker.
            let _ = intake.task.await;
            watching.abort();
        });
    }
    // All of them end at the stop; one that ends before has failed, and its process with it.
    let stop = stop.clone();
    let task = tokio::spawn(async move {
        while running.join_next().await.is_some() {
            if !stop.is_cancelled() {
                return;
            }
        }
    });
    Ok(Some(Sources { fault, task }))
}

/// What is wrong with each source, in one sentence for all.
struct Board {
    faults: Mutex<BTreeMap<String, String>>,
    told: watch::Sender<Option<String>>,
}

impl Board {
    fn new() -> (Arc<Board>, watch::Receiver<Option<String>>) {
        let (told, fault) = watch::channel(None);
        (Arc::new(Board { faults: Mutex::default(), told }), fault)
    }

    async fn follow(self: Arc<Self>, name: String, mut fault: watch::Receiver<Option<String>>) {
        loop {
            let reason = fault.borrow_and_update().clone();
            metrics::gauge!("paperboy_source_up", "source" => name.clone()).set(if reason.is_none() {
                1.0
            } else {
                0.0
            });
            self.set(&name, reason);
            if fault.changed().await.is_err() {
                return;
            }
        }
    }

    fn set(&self, name: &str, reason: Option<String>) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        match reason {
            Some(reason) => faults.insert(name.to_owned(), reason),
            None => faults.remove(name),
        };
        let sentence = faults.iter().map(|(name, reason)| format!("source `{name}` takes nothing: {reason}"));
        let sentence = sentence.collect::<Vec<_>>().join("; ");
        self.told.send_replace((!sentence.is_empty()).then_some(sentence));
    }
}
