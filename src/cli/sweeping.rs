//! Sweeping batches: closing what is due once the workers are through, completing what is done, publishing what is to
//! be told of it, forgetting what is old. Every process of role `all` or `api` would; one of them does.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, interval_at, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{replaying, services};
use crate::broker::rabbitmq::inspect::Inspector;
use crate::broker::{Broker, Outgoing, Queue, Tags, Target};
use crate::config::Config;
use crate::desk::events::confirmed;
use crate::domain::batch::TYPE_COMPLETED;
use crate::domain::batch::round::{Depth, Next, Round, Sight};
use crate::store::Store;
use crate::store::batches::OutboxRow;

/// Twice a second; while a round goes on, more often: whoever asked for a close waits for it.
const SWEEP: Duration = Duration::from_millis(500);
const SWEEP_IN_A_ROUND: Duration = Duration::from_millis(150);
/// How long a process that died keeps others from sweeping.
const LEASE_MS: i64 = 5_000;
/// How often the right to sweep is renewed while confirms are waited for.
const RENEWAL: Duration = Duration::from_millis(1_500);
/// Batches that one round closes.
const CANDIDATES_MAX: u32 = 10_000;
/// Batches in one transaction.
const AT_ONCE: usize = 100;
/// Events and notices published together.
const PUBLISHED_AT_ONCE: u32 = 200;
/// Bytes of them in memory at once; one goes whatever its size.
const PUBLISHED_BYTES_MAX: usize = 8 << 20;
/// Until what could not be published is tried again: batches are closed meanwhile.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);
const RETENTION_PAUSE: Duration = Duration::from_secs(3_600);
/// Batches forgotten in one transaction.
const FORGOTTEN_AT_ONCE: u32 = 100;

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Whoever sweeps in this process.
pub(super) struct Sweeper<B> {
    store: Store,
    broker: B,
    config: Config,
    owner: String,
    is_ours: bool,
    round: Option<Held>,
    inspector: Option<Inspector>,
    /// Whether this is the store of the others.
    fault: watch::Receiver<Option<String>>,
    began: Instant,
    forget_at: Instant,
    /// Something could not be published; not before then again.
    untold_until: Option<Instant>,
    is_well: bool,
}

/// A round with what it may close.
struct Held {
    round: Round,
    /// What was due, and when, as the queue was seen empty.
    candidates: Vec<i64>,
    due_by_ms: i64,
}

impl<B: Broker> Sweeper<B> {
    pub(super) fn new(
        store: Store,
        broker: B,
        config: Config,
        fault: watch::Receiver<Option<String>>,
    ) -> Sweeper<B> {
        let now = Instant::now();
        Sweeper {
            store,
            broker,
            config,
            owner: replaying::owner(),
            is_ours: false,
            round: None,
            inspector: None,
            fault,
            began: now,
            forget_at: now,
            untold_until: None,
            is_well: true,
        }
    }

    /// Sweeps until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let pause = if self.round.is_some() { SWEEP_IN_A_ROUND } else { SWEEP };
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                break;
            }
            // Never in a stranger's store.
            if self.fault.borrow().is_some() {
                self.round = None;
                continue;
            }
            match self.sweep().await {
                Ok(()) => self.is_well = self.untold_until.is_none(),
                Err(error) => {
                    // Once per trouble, not once per sweep.
                    if self.is_well {
                        warn!("batches are not swept: {error:#}");
                    }
                    self.is_well = false;
                }
            }
            if Instant::now() >= self.forget_at {
                self.forget_at = Instant::now() + RETENTION_PAUSE;
                self.forget_old().await;
            }
        }
        if self.is_ours
            && let Err(error) = self.store.release_sweep(&self.owner).await
        {
            warn!("the right to sweep batches is not given back: {error:#}");
        }
        if let Some(inspector) = self.inspector {
            inspector.close().await;
        }
    }

    async fn sweep(&mut self) -> anyhow::Result<()> {
        let due_by_ms = now_ms();
        let is_due = !self.store.batches_due(due_by_ms, 1).await?.is_empty();
        let done = self.store.batches_done(CANDIDATES_MAX).await?;
        let is_work = is_due || !done.is_empty() || self.store.is_outbox_waiting().await?;
        if !is_due {
            metrics::gauge!("paperboy_batches_due").set(0.0);
        }
        if !is_work {
            self.round = None;
            if self.is_ours {
                self.is_ours = false;
                self.store.release_sweep(&self.owner).await?;
            }
            return Ok(());
        }
        self.is_ours = self.store.lease_sweep(&self.owner, due_by_ms, due_by_ms + LEASE_MS).await?;
        if !self.is_ours {
            self.round = None;
            return Ok(());
        }
        self.complete(&done).await?;
        // What cannot be published keeps no batch from being closed.
        let told = self.publish().await;
        let swept = if is_due { self.go_on_with_round().await } else { self.end_round().await };
        told.and(swept)
    }

    /// Completes these; their events are written down with it.
    async fn complete(&self, done: &[i64]) -> anyhow::Result<()> {
        // Data and what stands around it, well below what the workers read.
        let bytes_max = self.config.limits.event_bytes_max / 2;
        for numbers in done.chunks(AT_ONCE) {
            let completed = self.store.complete_batches(numbers, bytes_max, now_ms()).await?;
            metrics::counter!("paperboy_batches_total", "what" => "completed").increment(completed as u64);
            info!(completed, "completed {completed} batches");
        }
        Ok(())
    }

    /// Publishes what is written down, each marked once it is confirmed; killed in between, it goes out again under
    /// the same id.
    async fn publish(&mut self) -> anyhow::Result<()> {
        if self.untold_until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        let told = self.publish_all().await;
        self.untold_until = told.is_err().then(|| Instant::now() + PAUSE_AFTER_FAILURE);
        told.context("what is to be told of batches waits")
    }

    /// Goes on behind what cannot be published, unless that is all there is.
    async fn publish_all(&self) -> anyhow::Result<()> {
        let (mut after, mut failure) = (0, None);
        while self.keep_lease().await? {
            let rows = self.store.outbox_waiting(after, PUBLISHED_AT_ONCE, PUBLISHED_BYTES_MAX).await?;
            let Some(last) = rows.last() else { break };
            after = last.number;
            let (sent, error) = self.publish_rows(rows).await;
            failure = failure.or(error);
            if sent == 0 {
                break;
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Publishes these together, and keeps the right to sweep meanwhile: how many were confirmed and marked, and why
    /// one was not.
    async fn publish_rows(&self, rows: Vec<OutboxRow>) -> (usize, Option<anyhow::Error>) {
        let publishes = rows.into_iter().map(|row| async move {
            let number = row.number;
            let (target, message) = outgoing(row);
            confirmed(self.broker.publish(target, message)).await.map(|()| number)
        });
        let mut publishes: FuturesUnordered<_> = publishes.collect();
        let mut renewal = interval_at(Instant::now() + RENEWAL, RENEWAL);
        let (mut count, mut failure) = (0, None);
        loop {
            let first = tokio::select! {
                next = publishes.next() => next,
                _ = renewal.tick() => {
                    // Without it others publish what is not marked: what is confirmed here still is.
                    if let Err(error) = self.keep_lease().await {
                        failure = Some(error);
                    }
                    continue;
                }
            };
            let Some(first) = first else { return (count, failure) };
            let mut results = vec![first];
            // Those that came together are marked together.
            while let Some(Some(next)) = publishes.next().now_or_never() {
                results.push(next);
            }
            let mut sent = Vec::with_capacity(results.len());
            for result in results {
                match result {
                    Ok(number) => sent.push(number),
                    Err(error) => failure = Some(error.into()),
                }
            }
            match self.store.outbox_sent(&sent, now_ms()).await {
                Ok(()) => count += sent.len(),
                Err(error) => failure = Some(error),
            }
        }
    }

    async fn keep_lease(&self) -> anyhow::Result<bool> {
        let now_ms = now_ms();
        self.store.lease_sweep(&self.owner, now_ms, now_ms + LEASE_MS).await
    }

    /// One look at the round that is under way, or its beginning.
    async fn go_on_with_round(&mut self) -> anyhow::Result<()> {
        if self.round.is_none() {
            return self.begin_round().await;
        }
        // In this order: what was due, then what workers have heard, then what waits in the queue, then who has come.
        let due_by_ms = now_ms();
        let candidates = self.store.batches_due(due_by_ms, CANDIDATES_MAX).await?;
        #[expect(clippy::cast_precision_loss, reason = "batches of one round are few")]
        metrics::gauge!("paperboy_batches_due").set(candidates.len() as f64);
        let workers = self.store.workers().await?;
        let is_held = self.store.is_held(due_by_ms).await?;
        let depth = self.depth().await?;
        let later = self.store.workers().await?;
        let now_ms = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        let Some(held) = &mut self.round else { return Ok(()) };
        let was_seen = held.round.is_seeing_again();
        let next = held.round.judge(Sight { workers: &workers, is_held, depth, later: &later }, now_ms);
        // Where it takes several looks to believe that the queue is empty, one of them may be true: of the first on.
        if !was_seen && (next == Next::Watch || held.round.is_seeing_again()) {
            (held.candidates, held.due_by_ms) = (candidates, due_by_ms);
        }
        match next {
            Next::Wait => Ok(()),
            Next::Watch => {
                if !self.store.watch_round(&self.owner, held.round.number).await? {
                    self.round = None;
                }
                Ok(())
            }
            Next::Close => {
                self.close().await?;
                self.end_round().await?;
                // Nobody waits for the next sweep.
                let done = self.store.batches_done(CANDIDATES_MAX).await?;
                self.complete(&done).await?;
                self.publish().await
            }
            Next::Anew => {
                debug!("a worker gave something back: the round for batches begins anew");
                self.begin_round().await
            }
            Next::Forget(gone) => {
                for process in gone {
                    warn!(process, "worker `{process}` is gone; what it had in hand is in the queue again");
                    self.store.worker_ends(&process).await?;
                }
                self.begin_round().await
            }
        }
    }

    async fn begin_round(&mut self) -> anyhow::Result<()> {
        self.round = None;
        if let Some(number) = self.store.begin_round(&self.owner).await? {
            let workers = self.store.workers().await?;
            let now_ms = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
            let round = Round::new(number, &workers, now_ms);
            self.round = Some(Held { round, candidates: Vec::new(), due_by_ms: 0 });
        }
        Ok(())
    }

    async fn end_round(&mut self) -> anyhow::Result<()> {
        match self.round.take() {
            Some(held) => self.store.end_round(&self.owner, held.round.number).await,
            None => Ok(()),
        }
    }

    /// Closes the candidates that nothing has joined meanwhile.
    async fn close(&mut self) -> anyhow::Result<()> {
        let Some(held) = &self.round else { return Ok(()) };
        for numbers in held.candidates.chunks(AT_ONCE) {
            let number = held.round.number;
            let closed =
                self.store.close_batches(&self.owner, number, numbers, held.due_by_ms, now_ms()).await?;
            let Some(closed) = closed else { break };
            metrics::counter!("paperboy_batches_total", "what" => "closed").increment(closed as u64);
            info!(closed, "closed {closed} batches");
        }
        Ok(())
    }

    async fn depth(&mut self) -> anyhow::Result<Depth> {
        let depth = self.look().await;
        if depth.is_err() {
            self.inspector = None;
        }
        depth
    }

    async fn look(&mut self) -> anyhow::Result<Depth> {
        if self.inspector.is_none() {
            let opened = services::inspector(&self.config).await;
            self.inspector = Some(opened.map_err(|failure| anyhow::anyhow!("{}", failure.text()))?);
        }
        let Some(inspector) = &self.inspector else { anyhow::bail!("no connection") };
        let queue = inspector.topology().queue(Queue::Events);
        let depths = inspector.depths(&[queue]).await?;
        let depth = depths
            .first()
            .copied()
            .flatten()
            .ok_or_else(|| anyhow::anyhow!("there is no queue of events"))?;
        Ok(Depth { ready: depth.ready, consumers: depth.consumers })
    }

    async fn forget_old(&self) {
        if let Err(error) = self.store.forget_holds(now_ms()).await {
            warn!("what workers put off long ago stays: {error:#}");
        }
        let age_ms = i64::from(self.config.batches.retention_days) * 86_400_000;
        loop {
            match self.store.forget_batches(now_ms() - age_ms, FORGOTTEN_AT_ONCE).await {
                Ok((0, 0)) => return,
                Ok((completed, others)) => {
                    metrics::counter!("paperboy_batches_forgotten_total").increment(completed + others);
                    info!(completed, others, "forgot {completed} completed batches");
                    if others > 0 {
                        warn!(others, "forgot {others} batches that were never completed");
                    }
                }
                Err(error) => {
                    warn!("old batches stay: {error:#}");
                    return;
                }
            }
        }
    }
}

fn outgoing(row: OutboxRow) -> (Target, Outgoing) {
    let target = if row.kind == TYPE_COMPLETED { Target::Events } else { Target::Notices };
    let tags = Tags { message_id: Some(row.event_id), kind: Some(row.kind), ..Tags::default() };
    (target, Outgoing::new(row.body, tags))
}

#[cfg(test)]
mod tests;
