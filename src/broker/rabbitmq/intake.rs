//! Taking from queues through broker restarts: one connection with a consumer for each queue; when it is lost all are
//! built anew, with a pause.

use std::sync::Arc;
use std::time::Duration;

use lapin::Connection;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::consumer::{End, QueueConsumer};
use super::faults::Faults;
use super::link::{Link, Pauses};
use super::topology::Topology;
use super::window::Window;
use crate::broker::{Queue, Taken, Windows};

/// All consumers of a process, on one connection.
pub(super) struct Intake {
    pub(super) link: Link,
    pub(super) topology: Topology,
    pub(super) declare: bool,
    pub(super) feeds: Vec<Feed>,
    /// Where the windows in force are told.
    pub(super) windows: Arc<Windows>,
    pub(super) gate: watch::Receiver<bool>,
    /// Let go at the stop, so that the receiving side ends while what is in hand is still being settled.
    pub(super) sink: Option<mpsc::Sender<Taken>>,
    pub(super) stop: CancellationToken,
    pub(super) faults: Arc<Faults>,
}

/// What one queue's consumer may hold.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    pub queue: Queue,
    /// Messages, at most.
    pub prefetch: u16,
    /// Bytes of their bodies, about; one message is taken whatever its size.
    pub bytes_max: u64,
    /// The largest body to be reckoned with before any has been seen.
    pub body_bytes_max: u64,
}

/// One queue to take from.
#[derive(Clone)]
pub(super) struct Feed {
    pub(super) share: Share,
    /// Its name on the broker.
    pub(super) name: String,
    /// What people call it.
    pub(super) label: String,
}

impl Intake {
    pub(super) async fn run(mut self) {
        let mut pauses = Pauses::new();
        while let Some(connection) = self.link.redial(&self.stop).await {
            let connection = Arc::new(connection);
            let began = Instant::now();
            let ensured = tokio::select! {
                ensured = self.topology.ensure(&connection, self.declare) => ensured,
                () = self.stop.cancelled() => break,
            };
            let reason = match ensured {
                Ok(()) => self.serve(&connection).await,
                Err(error) => Some(error.to_string()),
            };
            let _ = timeout(Duration::from_secs(2), connection.close(200, "bye".into())).await;
            let Some(reason) = reason else { break };
            warn!("taking from RabbitMQ is interrupted: {reason}");
            self.faults.connection(Some(format!("consuming connection: {reason}")));
            pauses.wait(began.elapsed(), &self.stop).await;
        }
    }

    /// Serves every queue on this connection; `None` when stopped, else why it ended.
    async fn serve(&mut self, connection: &Arc<Connection>) -> Option<String> {
        let sink = self.sink.clone()?;
        self.faults.connection(None);
        let mut consumers = JoinSet::new();
        for Feed { share, name, label } in &self.feeds {
            let consumer = QueueConsumer {
                connection: Arc::clone(connection),
                topology: self.topology.clone(),
                declare: self.declare,
                queue: share.queue,
                name: name.clone(),
                label: label.clone(),
                window: Window::new(share.prefetch, share.bytes_max, share.body_bytes_max),
                windows: Arc::clone(&self.windows),
                gate: self.gate.clone(),
                sink: sink.clone(),
                stop: self.stop.clone(),
                faults: Arc::clone(&self.faults),
                settling: JoinSet::new(),
                earlier: Vec::new(),
            };
            consumers.spawn(consumer.run());
        }
        drop(sink);
        // Each consumer waits for its own receipts when stopped, so the connection stays until all are settled.
        let mut reason = None;
        loop {
            let ended = tokio::select! {
                ended = consumers.join_next() => ended,
                () = self.stop.cancelled(), if self.sink.is_some() => {
                    self.sink = None;
                    continue;
                }
            };
            let Some(ended) = ended else { break };
            match ended {
                Ok(End::Stopped) => {}
                Ok(End::Lost | End::Paused | End::Resized(_) | End::Stuck | End::Fault(_)) => {
                    reason = Some("the connection is gone".into())
                }
                // The others would go on and hide it: all are built anew.
                Err(error) => {
                    consumers.shutdown().await;
                    reason = Some(format!("a consumer failed: {error}"));
                }
            }
        }
        reason
    }
}
