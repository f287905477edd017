//! The one task that publishes: its connection, through alarms, losses and restarts, and who asks.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt};
use lapin::Connection;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::health::{self, Health};
use super::line::{Line, Request};
use super::link::{Link, Pauses};
use super::topology::Topology;
use crate::broker::{Outgoing, Target, Unconfirmed};

/// Confirms waited for at once; beyond it publishers queue.
const WINDOW: usize = 2048;
/// The topology is put right at most this often.
const MEND_PAUSE: Duration = Duration::from_secs(1);

/// Handle to the publishing task.
pub(super) struct Publisher {
    requests: mpsc::Sender<Request>,
    health: Arc<Health>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Publisher {
    /// Starts publishing over `connection`, dialling `link` again whenever it is gone.
    pub(super) fn start(link: Link, connection: Connection, topology: Topology, declare: bool) -> Publisher {
        let (requests, inbox) = mpsc::channel(WINDOW);
        let stop = CancellationToken::new();
        let health = Arc::new(Health::new());
        let owner = Owner { link, topology, declare, inbox, health: Arc::clone(&health), stop: stop.clone() };
        let of_all = Arc::clone(&health);
        let task = tokio::spawn(async move {
            // Only a mistake of ours ends it so. Nothing can be published any more, so nothing shall be taken.
            if AssertUnwindSafe(owner.run(connection)).catch_unwind().await.is_err() {
                of_all.disconnected("it ended unasked; restart this process and report this, please");
            }
        });
        Publisher { requests, health, stop, task }
    }

    /// What is wrong with publishing.
    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    pub(super) async fn publish(&self, target: Target, message: Outgoing) -> Result<(), Unconfirmed> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::new(target, message, reply)).await.map_err(|_| Unconfirmed::Closed)?;
        answer.await.map_err(|_| Unconfirmed::Closed)?
    }

    pub(super) async fn close(self) {
        drop(self.requests);
        if timeout(Duration::from_secs(5), self.task).await.is_err() {
            warn!("the publishing connection did not close in time");
            self.stop.cancel();
        }
    }
}

struct Owner {
    link: Link,
    topology: Topology,
    declare: bool,
    inbox: mpsc::Receiver<Request>,
    health: Arc<Health>,
    stop: CancellationToken,
}

impl Owner {
    async fn run(mut self, first: Connection) {
        let mut connection = Some(first);
        let mut pauses = Pauses::new();
        while let Some(open) = connection.take() {
            self.health.connected();
            let lost = CancellationToken::new();
            let status = open.status().clone();
            let watcher = tokio::spawn(health::watch(
                open.events_listener(),
                move || status.connected(),
                Arc::clone(&self.health),
                lost.clone(),
            ));
            let began = Instant::now();
            let ended = self.serve(&open, &lost).await;
            watcher.abort();
            let Err(reason) = ended else {
                let _ = open.close(200, "bye".into()).await;
                return;
            };
            warn!("the publishing connection is gone: {reason}");
            self.health.disconnected(&reason);
            drop(open);
            pauses.wait(began.elapsed(), &self.stop).await;
            connection = self.link.redial(&self.stop).await;
            // The exchange itself may be gone: publishing to it would only end the channel.
            if let Some(open) = &connection {
                self.mend(open).await;
            }
        }
    }

    /// Publishes until the connection is gone (`Err`) or nobody is left who could ask (`Ok`).
    async fn serve(&mut self, connection: &Connection, lost: &CancellationToken) -> Result<(), String> {
        let opened = tokio::select! {
            opened = Line::open(connection) => opened,
            () = lost.cancelled() => return Err("lost".into()),
        };
        let mut line = opened.map_err(|error| error.to_string())?;
        let mut tick = interval(Duration::from_secs(1));
        let mut mended_at: Option<Instant> = None;
        loop {
            let is_blocked = self.health.is_blocked();
            if !is_blocked {
                line.publish_group(&self.topology);
            }
            let left = WINDOW.saturating_sub(line.len());
            let room = left > 0 && !is_blocked;
            let group_due = line.groups.due().filter(|_| !is_blocked);
            let (stray_due, doubt_due) = (line.stray_due(), line.doubt_due());
            tokio::select! {
                biased;
                () = lost.cancelled() => return Err("lost".into()),
                () = self.stop.cancelled() => return Ok(()),
                Some(first) = line.confirms.next(), if !line.confirms.is_empty() => {
                    line.take_in(first, &self.health)?;
                    if line.wants_mending && mended_at.is_none_or(|at| at.elapsed() > MEND_PAUSE) {
                        line.wants_mending = false;
                        self.mend(connection).await;
                        mended_at = Some(Instant::now());
                    }
                }
                () = until(doubt_due) => line.judge_doubtful(&self.health),
                () = until(stray_due), if room => line.publish_stray(&self.topology, &self.health),
                () = until(group_due) => {}
                _ = tick.tick() => line.check_age(&self.health)?,
                come = self.inbox.recv_many(line.groups.door(), left), if room => match come {
                    0 if line.is_idle() => {
                        line.close().await;
                        return Ok(());
                    }
                    // Nobody can ask any more; what is under way is waited for.
                    0 => sleep(Duration::from_millis(1)).await,
                    _ => {}
                },
            }
        }
    }

    /// Puts the topology right after a return; what cannot be mended is tried again with the stray.
    async fn mend(&self, connection: &Connection) {
        if !self.declare {
            return;
        }
        if let Err(error) = self.topology.ensure(connection, true).await {
            error!("the topology cannot be declared again: {error}");
        }
    }
}

/// Waits until then; for ever where there is nothing to wait for.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
