//! Working on a replay: the one who holds its lease sends letter after letter, each confirmed before it is
//! marked. Used by `paperboy dead replay`, which waits for it, and by `serve` for what was left to it.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::broker::{Broker, Target, Unconfirmed};
use crate::desk::events::confirmed;
use crate::domain::name::{EventId, EventType, SubscriptionId, Tenant};
use crate::store::deliveries::{DeliveryFilter, Record, What};
use crate::store::replays::{JobState, ReplayItem, ReplayJob};
use crate::store::{DeliveryLog, Store};
use crate::worker::replay;

/// How long a process that died keeps its job from others.
const LEASE: Duration = Duration::from_secs(10);
const LEASE_KEPT_EVERY: Duration = Duration::from_secs(3);
/// Letters published together.
const BATCH: u32 = 100;
/// How long the first attempts of canaries are waited for.
const CANARY_WAIT: Duration = Duration::from_secs(60);
const CANARY_LOOK: Duration = Duration::from_millis(500);
/// How often `serve` looks for replays that were left to it.
const LOOK: Duration = Duration::from_secs(2);
/// Replays that one process works on at once.
const PLACES: usize = 4;
/// Replays that are looked at for those that may be taken.
const LOOKED_AT: u32 = 8;
/// How long `serve` works on one while others wait for a place.
const TURN: Duration = Duration::from_secs(10);

/// How work on a replay ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finish {
    Done,
    /// A person paused or cancelled it meanwhile.
    Decided(JobState),
    /// A canary failed, or nothing was heard of it.
    Stopped(String),
    /// Somebody else works on it.
    Taken,
    /// A publish was not confirmed.
    Broken(String),
    /// This process is to end.
    Ended,
    /// Its turn is over, and another one waits.
    Turned,
}

/// Who works on replays in this process.
pub(super) struct Replaying<'a, B> {
    pub(super) store: &'a Store,
    pub(super) broker: &'a B,
    /// The name of this process, unlike that of any other.
    pub(super) owner: String,
    pub(super) stop: CancellationToken,
    /// How long one job is worked on while others that were left wait; none: to its end.
    pub(super) turn: Option<Duration>,
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A name that no other process has.
pub(super) fn owner() -> String {
    format!("{}:{}", super::heartbeat::place(), uuid::Uuid::new_v4().simple())
}

impl<B: Broker> Replaying<'_, B> {
    /// Takes the job, waiting for the end of a dead process's lease, and works on it until there is nothing
    /// left to do or a reason to stop. `told` hears of every letter that was marked.
    pub(super) async fn work(&self, job: &ReplayJob, told: impl FnMut(i64)) -> anyhow::Result<Finish> {
        let patience = Instant::now() + LEASE + LEASE_KEPT_EVERY;
        loop {
            match self.keep_lease(job.id).await? {
                Some(JobState::Running) => break,
                // By whoever held the lease before.
                Some(JobState::Done) => return self.released(job.id, Finish::Done).await,
                Some(other) => return self.released(job.id, Finish::Decided(other)).await,
                None if Instant::now() >= patience => return Ok(Finish::Taken),
                None => sleep(CANARY_LOOK).await,
            }
        }
        let finish = self.send_all(job, told).await;
        let finish = match finish {
            Ok(finish) => finish,
            Err(error) => {
                // The store may be away: the lease ends by itself.
                let _ = self.store.replay_release(job.id, &self.owner, now_ms()).await;
                return Err(error);
            }
        };
        let (state, why) = match &finish {
            Finish::Done => (Some(JobState::Done), None),
            Finish::Stopped(why) => (Some(JobState::Stopped), Some(why.as_str())),
            _ => (None, None),
        };
        if let Some(state) = state {
            self.store.replay_set_state(job.id, state, why, now_ms()).await?;
        }
        self.released(job.id, finish).await
    }

    async fn released(&self, job: i64, finish: Finish) -> anyhow::Result<Finish> {
        self.store.replay_release(job, &self.owner, now_ms()).await?;
        Ok(finish)
    }

    async fn keep_lease(&self, job: i64) -> anyhow::Result<Option<JobState>> {
        let now_ms = now_ms();
        let until_ms = now_ms + i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX / 2);
        self.store.replay_lease(job, &self.owner, now_ms, until_ms).await
    }

    async fn send_all(&self, job: &ReplayJob, mut told: impl FnMut(i64)) -> anyhow::Result<Finish> {
        let mut log = self.store.delivery_log(&self.owner[..self.owner.rfind(':').unwrap_or(0)]);
        let mut canaries = job.what.canary;
        let pace = Duration::from_secs(1).checked_div(job.what.rate).unwrap_or(Duration::ZERO);
        let mut turn_began = Instant::now();
        loop {
            let limit = match (canaries, job.what.rate) {
                (0, 0) => BATCH,
                // So many a second, in steps of a tenth.
                (0, rate) => (rate / 10).clamp(1, BATCH),
                (canaries, _) => canaries,
            };
            let (begun, begun_ms) = (Instant::now(), now_ms());
            let items = self.store.replay_next(job.id, limit).await?;
            let Some(count) = u32::try_from(items.len()).ok().filter(|count| *count > 0) else {
                return Ok(Finish::Done);
            };
            let (sent, failure) = match self.publish(job, &items, begun, pace).await? {
                Ok(published) => published,
                Err(finish) => return Ok(finish),
            };
            self.store.replay_sent(job.id, &sent, now_ms()).await?;
            record(&mut log, job, &items, &sent, begun_ms).await;
            sent.iter().for_each(|letter| told(*letter));
            if let Some(error) = failure {
                return Ok(Finish::Broken(error.to_string()));
            }
            if canaries > 0 {
                if let Some(finish) = self.watch(job, &items).await? {
                    return Ok(finish);
                }
                canaries = canaries.saturating_sub(count);
                if canaries == 0 {
                    self.store.replay_canaries_well(job.id).await?;
                }
            }
            match self.keep_lease(job.id).await? {
                Some(JobState::Running) => {}
                Some(other) => return Ok(Finish::Decided(other)),
                None => return Ok(Finish::Taken),
            }
            if self.stop.run_until_cancelled(sleep_until(begun + pace * count)).await.is_none() {
                return Ok(Finish::Ended);
            }
            if self.turn.is_some_and(|turn| turn_began.elapsed() >= turn) {
                if !self.store.replays_left(now_ms(), 1).await?.is_empty() {
                    return Ok(Finish::Turned);
                }
                turn_began = Instant::now();
            }
        }
    }

    /// Publishes all of these, one each `pace` from `begun` on, since a burst would be felt by what is live. Keeps the
    /// lease meanwhile; those confirmed, and the first failure.
    async fn publish(
        &self,
        job: &ReplayJob,
        items: &[ReplayItem],
        begun: Instant,
        pace: Duration,
    ) -> anyhow::Result<Result<(Vec<i64>, Option<Unconfirmed>), Finish>> {
        let target = job.what.subscription.as_deref();
        let publishes = items.iter().zip(0..).map(|(item, nth)| async move {
            sleep_until(begun + pace * nth).await;
            let message = replay::message(&item.letter, item.cycle, target);
            confirmed(self.broker.publish(Target::Retries, message)).await
        });
        let mut publishing = std::pin::pin!(join_all(publishes));
        let results = loop {
            tokio::select! {
                results = &mut publishing => break results,
                () = sleep(LEASE_KEPT_EVERY) => {
                    if self.keep_lease(job.id).await?.is_none() {
                        return Ok(Err(Finish::Taken));
                    }
                }
            }
        };
        let (mut sent, mut failure) = (Vec::new(), None);
        for (item, result) in items.iter().zip(results) {
            match result {
                Ok(()) => sent.push(item.letter.row.id),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Ok(Ok((sent, failure)))
    }

    /// Waits for the first attempt of every canary; a reason to stop, or none.
    async fn watch(&self, job: &ReplayJob, canaries: &[ReplayItem]) -> anyhow::Result<Option<Finish>> {
        let deadline = Instant::now() + CANARY_WAIT;
        let mut unheard: Vec<&ReplayItem> = canaries.iter().collect();
        while Instant::now() < deadline {
            let mut waiting = Vec::new();
            for item in unheard {
                match self.first_word(item).await? {
                    Some(What::Delivered) => {}
                    Some(_) => {
                        let why = format!("canary `dl_{}` was not delivered", item.letter.row.id);
                        return Ok(Some(Finish::Stopped(why)));
                    }
                    None => waiting.push(item),
                }
            }
            if waiting.is_empty() {
                return Ok(None);
            }
            unheard = waiting;
            match self.keep_lease(job.id).await? {
                Some(JobState::Running) => {}
                Some(other) => return Ok(Some(Finish::Decided(other))),
                None => return Ok(Some(Finish::Taken)),
            }
            if self.stop.run_until_cancelled(sleep(CANARY_LOOK)).await.is_none() {
                return Ok(Some(Finish::Ended));
            }
        }
        let why = format!("nothing was heard of the canaries within {} s", CANARY_WAIT.as_secs());
        Ok(Some(Finish::Stopped(why)))
    }

    /// What the delivery log says first of a letter's new life.
    async fn first_word(&self, item: &ReplayItem) -> anyhow::Result<Option<What>> {
        let filter = DeliveryFilter { event: item.letter.row.event_id.clone(), ..DeliveryFilter::default() };
        let life = self.store.delivery_life(&filter).await?;
        let word = life.iter().find(|row| row.cycle == item.cycle && row.what != What::Replayed);
        Ok(word.map(|row| row.what))
    }
}

/// Notes the replays in the delivery log, which may fail: it is a convenience.
async fn record(log: &mut DeliveryLog, job: &ReplayJob, items: &[ReplayItem], sent: &[i64], at_ms: i64) {
    let sent = items.iter().filter(|item| sent.contains(&item.letter.row.id));
    let records: Vec<Record> = sent.filter_map(|item| record_of(item, job, at_ms)).collect();
    if let Err(error) = log.write(&records).await {
        warn!("replays are not in the delivery log: {error}");
    }
}

/// None where the letter lacks what every row says, as an unreadable event does.
fn record_of(item: &ReplayItem, job: &ReplayJob, at_ms: i64) -> Option<Record> {
    let row = &item.letter.row;
    let subscription = job.what.subscription.as_ref().or(row.subscription.as_ref());
    Some(Record {
        what: What::Replayed,
        at_ms,
        received_ms: None,
        event: EventId::parse(row.event_id.as_deref()?).ok()?,
        kind: EventType::parse(row.event_type.as_deref()?).ok()?,
        tenant: Tenant::parse(row.tenant.as_deref()?).ok()?,
        document: row.document_id.as_deref().map(Box::from),
        batch: row.batch_id.as_deref().map(Box::from),
        subscription: subscription.and_then(|id| SubscriptionId::parse(id).ok()),
        attempt: 0,
        cycle: item.cycle,
        status: None,
        cause: None,
        reason: None,
        elapsed_ms: None,
        wait: None,
    })
}

/// Works on what was left to `serve` until `stop`: a few replays at once, one of each tenant, and in turns where more
/// wait than there are places. A slow one keeps nobody else's waiting.
pub(super) async fn take_over(store: Store, broker: impl Broker, stop: CancellationToken) {
    let (owner, turn) = (owner(), Some(TURN));
    let replaying = Replaying { store: &store, broker: &broker, owner, stop: stop.clone(), turn };
    let mut at_work = FuturesUnordered::new();
    let mut taken: Vec<(i64, Option<String>)> = Vec::new();
    let mut next_look = Instant::now();
    loop {
        tokio::select! {
            Some(ended) = at_work.next() => {
                taken.retain(|(id, _)| *id != ended);
                continue;
            }
            () = stop.cancelled() => break,
            () = sleep_until(next_look) => next_look = Instant::now() + LOOK,
        }
        if taken.len() >= PLACES {
            continue;
        }
        // One that was taken and has no lease yet, or none any more, is among them.
        let jobs = match store.replays_left(now_ms(), LOOKED_AT).await {
            Ok(jobs) => jobs,
            Err(error) => {
                warn!("replays that were left to this process wait: {error:#}");
                continue;
            }
        };
        for job in jobs {
            let tenant = job.what.tenant.clone();
            let is_taken =
                |(id, of): &(i64, Option<String>)| *id == job.id || (tenant.is_some() && *of == tenant);
            if taken.len() < PLACES && !taken.iter().any(is_taken) {
                taken.push((job.id, tenant));
                at_work.push(work_on(&replaying, job));
            }
        }
    }
    // Each ends by itself once `stop` is cancelled.
    while at_work.next().await.is_some() {}
}

/// Works on a job that was left, and tells how that ended; its id.
async fn work_on<B: Broker>(replaying: &Replaying<'_, B>, job: ReplayJob) -> i64 {
    info!(job = job.id, waiting = job.waiting, "replay {} goes on: {} letters wait", job.id, job.waiting);
    match replaying.work(&job, |_| {}).await {
        Ok(Finish::Done) => info!(job = job.id, "replay {} is done", job.id),
        Ok(Finish::Turned) => info!(job = job.id, "replay {} waits for its next turn", job.id),
        Ok(finish) => warn!(job = job.id, ?finish, "replay {} does not go on here", job.id),
        Err(error) => warn!(job = job.id, "replay {} waits: {error:#}", job.id),
    }
    job.id
}
