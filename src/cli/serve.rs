//! `paperboy serve`: the one place where the real services are chosen and wired.

pub(in crate::cli) mod batches;
mod counters;
mod sources;
mod vigil;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::heartbeat::{self, Pulse};
use super::shelf::RedisShelf;
use super::sweeping::Sweeper;
use super::{Common, Failure, descriptors, log, replaying, services};
use crate::api::{self, Probe, Readiness};
use crate::broker::rabbitmq::{Intake, RabbitMq, Share};
use crate::broker::{Queue, Replier, Windows};
use crate::cache::Freshness;
use crate::cache::directory::CachedDirectory;
use crate::cache::redis::Redis;
use crate::config::{self, Config, LogKeep, Role};
use crate::desk::calls::Notes;
use crate::desk::keys::KeyRing;
use crate::http::Sender;
use crate::store::Store;
use crate::worker::balance::Balance;
use crate::worker::record::{self, Recorded, Recorder};
use crate::worker::vigil::Vigil;
use crate::worker::{self, Places, Worker, drain, notices};

type DeliveryWorker = Worker<Arc<RabbitMq>, Arc<CachedDirectory>, Arc<Sender>>;

/// Upper bounds of the buckets that attempts are counted in, in seconds.
const SECONDS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
/// How long an unconfirmed publish is tried before its source is handed back.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(600);
/// Calls taken at once and not yet acknowledged, which they are before anybody is asked.
const CALLS_PREFETCH: u16 = 32;
/// Room of the drain in each dead queue.
const DRAIN_PREFETCH: u16 = 200;
/// How long requests under way have at the end.
const REQUESTS_GRACE: Duration = Duration::from_secs(5);
/// Largest document over HTTP that is no event.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// Lines of the audit that one hour forgets at most.
const FORGOTTEN_AT_ONCE: u32 = 10_000;
const DRAIN_BYTES_MAX: u64 = 64 << 20;

/// Run: take events, deliver them, keep dead letters.
#[derive(Args, Debug)]
pub(super) struct Serve {
    /// What this process does
    #[arg(long, value_enum, default_value_t = RoleArgument::All)]
    role: RoleArgument,
    /// Keep messages in this process instead of RabbitMQ (not supported yet)
    #[arg(long)]
    embedded: bool,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum RoleArgument {
    /// Deliver, keep dead letters, answer HTTP
    All,
    /// Deliver only
    Worker,
    /// Keep dead letters and answer HTTP only
    Api,
}

impl From<RoleArgument> for Role {
    fn from(role: RoleArgument) -> Role {
        match role {
            RoleArgument::All => Role::All,
            RoleArgument::Worker => Role::Worker,
            RoleArgument::Api => Role::Api,
        }
    }
}

impl Serve {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        if self.embedded {
            return Err(Failure::usage("`--embedded` is not supported yet")
                .hint("start RabbitMQ: `./deploy/local up`"));
        }
        let mut config = common.load()?;
        let role = Role::from(self.role);
        let faults = config::check_role(&config, role);
        if !faults.is_empty() {
            return Err(Failure::config(faults));
        }
        log::start(&config.log);
        for warning in config.warnings() {
            warn!("{warning}");
        }
        let files = descriptors::raise();
        let places_max = descriptors::places_max(files);
        if config.broker.prefetch > places_max {
            warn!(
                "only {files} files may be open: {places_max} messages are taken at once instead of `broker.prefetch` = {}; raise the limit (`ulimit -Hn`)",
                config.broker.prefetch
            );
            config.broker.prefetch = places_max;
        }
        let stop = stop_on_signals()?;
        tokio::select! {
            // Before the first connection there is nothing to finish.
            () = stop.cancelled() => Ok(()),
            started = Process::start(&config, role) => started?.run(stop.clone()).await,
        }
    }
}

/// Everything a process needs, opened and checked, nothing taken yet.
struct Process {
    role: Role,
    config: Config,
    store: Store,
    broker: Arc<RabbitMq>,
    directory: Arc<CachedDirectory>,
    redis: Option<Redis>,
    listener: Option<tokio::net::TcpListener>,
    metrics: PrometheusHandle,
    sender: Arc<Sender>,
    keys: Arc<KeyRing>,
}

impl Process {
    async fn start(config: &Config, role: Role) -> Result<Process, Failure> {
        // The port first: it is the cheapest thing that can be wrong.
        let address = if role == Role::Worker { config.worker.listen } else { Some(config.api.listen) };
        let listener = match address {
            Some(address) => Some(api::bind(address).await.map_err(|error| {
                let key = if role == Role::Worker { "worker.listen" } else { "api.listen" };
                Failure::from(error).hint(format!("stop what listens there, or set `{key}` to another port"))
            })?),
            None => None,
        };
        let store = match role {
            Role::All | Role::Api => services::migrate_store(config).await?,
            Role::Worker => services::open_store(config).await?,
        };
        let broker = Arc::new(services::broker(config).await?);
        let redis = services::redis(config)?;
        let freshness = Freshness {
            refresh: config.cache.refresh(),
            max_stale: Duration::from_secs(config.cache.max_stale_s.into()),
        };
        let mut sender = services::sender(config)?;
        if let Some(redis) = &redis {
            sender = sender.sharing_tokens(Arc::new(RedisShelf::new(redis.clone(), store.clone())));
        }
        let sender = Arc::new(sender);
        let directory = Arc::new(CachedDirectory::new(store.clone(), redis.clone(), freshness));
        let metrics = PrometheusBuilder::new()
            .set_buckets(&SECONDS)
            .and_then(|builder| builder.install_recorder())
            .map_err(|error| Failure::world(format!("metrics cannot be kept: {error}")))?;
        let max_stale = Duration::from_secs(config.cache.max_stale_s.into());
        let keys = Arc::new(KeyRing::new(store.clone(), &config.api.keys, max_stale));
        Ok(Process {
            role,
            config: config.clone(),
            store,
            broker,
            directory,
            redis,
            listener,
            metrics,
            sender,
            keys,
        })
    }

    async fn run(mut self, stop: CancellationToken) -> Result<(), Failure> {
        counters::begin();
        let delivers = self.role != Role::Api;
        let drains = self.role != Role::Worker && self.config.dead.drain;
        let mut probes = vec![
            Probe { name: "publish", fault: self.broker.fault() },
            Probe { name: "subscriptions", fault: self.directory.fault() },
        ];
        let (stopping, is_stopping) = watch::channel(None);
        probes.push(Probe { name: "stop", fault: is_stopping });
        let mut tasks = JoinSet::new();
        let background = CancellationToken::new();

        let directory = Arc::clone(&self.directory);
        let until = background.clone();
        tasks.spawn(async move { directory.run(until).await });

        let (gate, gate_open) = watch::channel(false);
        // A missing queue keeps only its own messages; everything else goes on.
        let conditions = vec![self.broker.held(), self.directory.fault()];
        tasks.spawn(keep_gate(conditions, gate, background.clone()));

        let recorded = match self.config.delivery_log.keep {
            LogKeep::All => Recorded::All,
            LogKeep::Failures => Recorded::Failures,
            LogKeep::Off => Recorded::Nothing,
        };
        let (recorder, records) = record::line(recorded);
        let notes = Notes::new(recorder.clone());
        let log = self.store.delivery_log(&heartbeat::place());
        let (days, written_until) = (self.config.delivery_log.days, CancellationToken::new());
        let mut recording = Some(tokio::spawn(records.run(log, days, written_until.clone())));

        let balance = Arc::new(Balance::default());
        let (mut delivering, mut delivering_now) = (None, None);
        let (mut forwarding, mut beside) = (None, Vec::new());
        if delivers {
            let windows = Arc::new(Windows::default());
            let places = Arc::new(Places::new(Arc::clone(&windows)));
            let (memberships, joining) = batches::start(&self.store, &self.config, &windows).await?;
            delivering_now = Some((Arc::clone(&balance), Arc::clone(&places)));
            let rules = self.config.auto_disable.rules();
            let vigil = Arc::new(Vigil::new(rules.is_some()));
            let board = services::desk(&self.config, self.store.clone())?.board;
            let keeper = vigil::Keeper { store: self.store.clone(), board, vigil: Arc::clone(&vigil), rules };
            keeper.begin().await?;
            let intake = self.broker.take(self.shares(), windows, gate_open, stop.clone())?;
            probes.push(Probe { name: "consume", fault: intake.fault.clone() });
            tasks.spawn(keeper.run(background.clone()));
            let worker = self.worker(Arc::clone(&balance), Arc::clone(&places), recorder);
            let worker = worker.joining(memberships).watched_by(vigil);
            let deliver = self.deliver(worker, intake, joining, Arc::clone(&balance), places)?;
            delivering = Some(tokio::spawn(deliver));

            // Only publishing has to be possible: who subscribes is asked of the event later.
            let (gate, gate_open) = watch::channel(false);
            tasks.spawn(keep_gate(vec![self.broker.held()], gate, background.clone()));
            if let Some(sources) = sources::start(&self.config, &self.broker, &gate_open, &stop)? {
                beside.push(Probe { name: "sources", fault: sources.fault });
                forwarding = Some(sources.task);
            }
        }
        let (outbox, broker, until) = (self.store.clone(), Arc::clone(&self.broker), background.clone());
        tasks.spawn(notices::run(outbox, broker, until));
        if self.role != Role::Worker {
            let taking_over =
                replaying::take_over(self.store.clone(), Arc::clone(&self.broker), stop.clone());
            let until = background.clone();
            tasks.spawn(async move {
                taking_over.await;
                until.cancelled().await;
            });
        }
        if self.role != Role::Worker {
            let sweeper = Sweeper::new(
                self.store.clone(),
                Arc::clone(&self.broker),
                self.config.clone(),
                self.directory.fault(),
            );
            let (until, stop) = (background.clone(), stop.clone());
            tasks.spawn(async move {
                sweeper.run(stop).await;
                until.cancelled().await;
            });
        }
        let mut draining = None;
        if drains {
            let share = |queue| self.share(queue, DRAIN_PREFETCH, DRAIN_BYTES_MAX);
            let shares = vec![share(Queue::DeadDeliveries), share(Queue::DeadEvents)];
            // Dead letters are kept whatever the publishing connection does, but never in a stranger's store.
            let (gate, gate_open) = watch::channel(false);
            tasks.spawn(keep_gate(vec![self.directory.fault()], gate, background.clone()));
            let intake = self.broker.take(shares, Arc::default(), gate_open, stop.clone())?;
            probes.push(Probe { name: "drain", fault: intake.fault.clone() });
            let age = Duration::from_secs(u64::from(self.config.dead.retention_days) * 86_400);
            tasks.spawn(drain::forget_old(self.store.clone(), age, stop.clone()));
            let (store, until) = (self.store.clone(), stop.clone());
            draining = Some(tokio::spawn(async move {
                drain::run(store, intake.taken, until).await;
                let _ = intake.task.await;
            }));
        }
        let readiness = Readiness::new(probes).beside(beside);
        let mut farewell = None;
        if let Some(redis) = self.redis.clone() {
            let pulse =
                Pulse::new(redis, self.role, drains, readiness.clone(), delivering_now, stop.clone())?
                    .holding(self.store.keys().check_values());
            farewell = Some(pulse.farewell());
            let until = background.clone();
            tasks.spawn(async move {
                until.run_until_cancelled(pulse.run()).await;
            });
        }
        if let Some(listener) = self.listener.take() {
            let address = listener.local_addr().map_err(anyhow::Error::from)?;
            let v1 = match self.role {
                Role::Worker => None,
                Role::All | Role::Api => Some(Arc::new(self.v1(notes, address)?)),
            };
            let state = api::State { readiness, metrics: self.metrics.clone(), v1 };
            let connections = api::Connections {
                max: self.config.api.connections_max.into(),
                header_timeout: Duration::from_secs(self.config.api.header_timeout_s.into()),
                answer_timeout: Duration::from_secs(self.config.api.timeout_s.into()),
            };
            tasks.spawn(api::serve(listener, state, connections, background.clone()));
            info!("listening on http://{address}");
        }
        if self.role != Role::Worker {
            let age = Duration::from_secs(u64::from(self.config.audit.retention_days) * 86_400);
            tasks.spawn(keep_house(self.store.clone(), Arc::clone(&self.keys), age, background.clone()));
        }
        let (metrics, until) = (self.metrics.clone(), background.clone());
        tasks.spawn(async move {
            until.run_until_cancelled(fold_samples(metrics)).await;
        });
        info!(role = self.role.as_str(), store = %self.store.url(), "paperboy is running");

        // Nothing of this ends by itself: a part that does has failed, and half a process helps nobody.
        let failed = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            _ = tasks.join_next() => Some("a background task"),
            _ = ended(&mut delivering), if delivering.is_some() => Some("the worker"),
            _ = ended(&mut forwarding), if forwarding.is_some() => Some("a source"),
            _ = ended(&mut draining), if draining.is_some() => Some("the drain of dead letters"),
            _ = ended(&mut recording), if recording.is_some() => Some("the delivery log"),
        };
        if let Some(part) = failed {
            error!("{part} ended unasked; stopping");
            stop.cancel();
        }
        let _ = stopping.send(Some("stopping".to_owned()));
        info!("stopping: nothing new is taken, what is running has {} s", self.config.delivery.grace_s);
        match ended(&mut delivering).await {
            Some(Ok(finish)) => info!(
                finished = finish.finished,
                given_back = finish.given_back,
                "finished {} deliveries, gave {} back to the broker",
                finish.finished,
                finish.given_back
            ),
            Some(Err(error)) => error!("the worker failed: {error}"),
            None => {}
        }
        if let Some(Err(error)) = ended(&mut forwarding).await {
            error!("the sources failed: {error}");
        }
        if let Some(Err(error)) = ended(&mut draining).await {
            error!("the drain of dead letters failed: {error}");
        }
        // Whatever was finished is in its line by now.
        written_until.cancel();
        if let Some(Err(error)) = ended(&mut recording).await {
            error!("the delivery log failed: {error}");
        }
        background.cancel();
        let all = async { while tasks.join_next().await.is_some() {} };
        // Requests under way want their confirms; everything else ends at once.
        let _ = tokio::time::timeout(REQUESTS_GRACE, all).await;
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        if let Some(farewell) = farewell {
            farewell.await;
        }
        self.keys.note_use().await;
        drop(self.directory);
        if let Some(broker) = Arc::into_inner(self.broker) {
            broker.close().await;
        }
        self.store.close().await;
        info!("stopped");
        match failed {
            None => Ok(()),
            Some(part) => Err(Failure::world(format!("{part} ended unasked; its reason is in the log"))),
        }
    }

    /// What the HTTP API works on.
    fn v1(&self, notes: Notes, address: SocketAddr) -> Result<api::V1, Failure> {
        let config = &self.config;
        let limits = api::Limits {
            event_bytes_max: config.limits.event_bytes_max,
            body_bytes_max: config.limits.body_bytes_max,
            document_bytes_max: DOCUMENT_BYTES_MAX,
            bodies_bytes_max: config.limits.bodies_bytes_max,
            timeout: Duration::from_secs(config.api.timeout_s.into()),
            requests_per_s: config.limits.requests_per_s,
        };
        let desk = services::desk(config, self.store.clone())?;
        let courier = Arc::new(services::sender(config)?.reading_every_answer());
        let (publisher, keys) = (Arc::clone(&self.broker), Arc::clone(&self.keys));
        Ok(api::V1::new(desk, keys, publisher, courier, notes, limits, address))
    }

    /// What the worker may hold of each queue.
    fn shares(&self) -> Vec<Share> {
        let shares = self.config.broker.shares();
        let bytes_max = self.config.limits.in_hand_bytes_max;
        // The bytes are shared out as the prefetch is.
        let all = u64::from(shares.events + shares.deliveries + shares.retries);
        let share = |queue, prefetch: u16| self.share(queue, prefetch, bytes_max * u64::from(prefetch) / all);
        vec![
            share(Queue::Events, shares.events),
            share(Queue::Deliveries, shares.deliveries),
            share(Queue::Retries, shares.retries),
            // On top of the prefetch, and whatever their size: what is on its way to a consumer that is made anew comes
            // redelivered, and a redelivered call is not made.
            self.share(Queue::Calls, CALLS_PREFETCH, u64::MAX),
        ]
    }

    fn share(&self, queue: Queue, prefetch: u16, bytes_max: u64) -> Share {
        Share { queue, prefetch, bytes_max, body_bytes_max: self.config.limits.event_bytes_max as u64 }
    }

    /// The worker over this process's services.
    fn worker(&self, balance: Arc<Balance>, places: Arc<Places>, recorder: Recorder) -> DeliveryWorker {
        let settings = worker::Settings {
            event_bytes_max: self.config.limits.event_bytes_max,
            unit: Duration::from_millis(self.config.broker.delay_unit_ms.into()),
            wait_age_max: Duration::from_secs(self.config.delivery.wait_age_max_s.into()),
            grace: Duration::from_secs(self.config.delivery.grace_s.into()),
            publish_patience: PUBLISH_PATIENCE,
        };
        let (broker, directory) = (Arc::clone(&self.broker), Arc::clone(&self.directory));
        let worker = Worker::new(broker, directory, Arc::clone(&self.sender), settings, balance, places);
        worker.recording(recorder)
    }

    /// Lets the worker work until its intake ends and everything taken is settled.
    fn deliver(
        &self,
        worker: DeliveryWorker,
        intake: Intake,
        joining: batches::Joining,
        balance: Arc<Balance>,
        places: Arc<Places>,
    ) -> Result<impl Future<Output = worker::Finish> + Send + use<>, Failure> {
        let replies = Arc::new(self.broker.replies()?);
        let worker = Arc::new(worker.answering(Arc::clone(&replies) as Arc<dyn Replier>));
        let sender = Arc::clone(&self.sender);
        Ok(async move {
            let gauge = tokio::spawn(publish_gauges(balance, places));
            let finish = Worker::run(worker, intake.taken).await;
            // Ends once every receipt is told to the broker.
            let _ = intake.task.await;
            // The worker had the other hold on it.
            if let Some(replies) = Arc::into_inner(replies) {
                replies.close().await;
            }
            joining.end().await;
            sender.close().await;
            gauge.abort();
            finish
        })
    }
}

/// The end of a task, told once; none for a task that is not there or has been told of.
async fn ended<T>(task: &mut Option<JoinHandle<T>>) -> Option<Result<T, JoinError>> {
    let result = match task {
        Some(running) => running.await,
        None => return None,
    };
    *task = None;
    Some(result)
}

/// Taking is allowed while no condition has a fault.
async fn keep_gate(
    mut conditions: Vec<watch::Receiver<Option<String>>>,
    gate: watch::Sender<bool>,
    stop: CancellationToken,
) {
    loop {
        let open = conditions.iter_mut().all(|fault| fault.borrow_and_update().is_none());
        gate.send_if_modified(|known| {
            let changed = *known != open;
            *known = open;
            changed
        });
        let changes = conditions.iter_mut().map(|fault| Box::pin(fault.changed()));
        tokio::select! {
            (changed, _, _) = futures_util::future::select_all(changes) => {
                // One that is gone will never be well again.
                if changed.is_err() {
                    gate.send_replace(false);
                    return;
                }
            }
            () = stop.cancelled() => return,
        }
    }
}

/// Writes down when keys were used, and forgets lines of the audit by age, until `stop`.
async fn keep_house(store: Store, keys: Arc<KeyRing>, audit_age: Duration, stop: CancellationToken) {
    for minute in 0_u64.. {
        keys.note_use().await;
        if minute % 60 == 0 {
            let age_ms = i64::try_from(audit_age.as_millis()).unwrap_or(i64::MAX);
            let before_ms = jiff::Timestamp::now().as_millisecond().saturating_sub(age_ms);
            match store.forget_audit(before_ms, FORGOTTEN_AT_ONCE).await {
                Ok(0) => {}
                Ok(gone) => {
                    info!("forgot {gone} lines of the audit that are older than `audit.retention_days`")
                }
                Err(error) => warn!("old lines of the audit stay: {error:#}"),
            }
        }
        let pause = tokio::time::sleep(Duration::from_secs(60));
        if stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

/// The exporter keeps samples until somebody folds them.
async fn fold_samples(metrics: PrometheusHandle) {
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        metrics.run_upkeep();
    }
}

#[expect(clippy::cast_precision_loss, reason = "messages in hand are far below 2^52")]
async fn publish_gauges(balance: Arc<Balance>, places: Arc<Places>) {
    loop {
        metrics::gauge!("paperboy_in_hand").set(balance.account().in_hand as f64);
        metrics::gauge!("paperboy_at_doors").set(places.at_doors() as f64);
        for queue in [Queue::Events, Queue::Deliveries, Queue::Retries] {
            metrics::gauge!("paperboy_held_by_slow", "queue" => queue.as_str())
                .set(places.held_by_slow(queue) as f64);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The first SIGTERM or SIGINT asks to finish, the second ends at once (nothing is lost: what is unsettled
/// is handed out again).
fn stop_on_signals() -> Result<CancellationToken, Failure> {
    let cannot = |error| Failure::world(format!("signals cannot be watched: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let stop = CancellationToken::new();
    let first = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first.is_cancelled() {
                warn!("stopped at once; unfinished deliveries are handed out again");
                std::process::exit(130);
            }
            first.cancel();
        }
    });
    Ok(stop)
}
