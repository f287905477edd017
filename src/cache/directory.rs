//! The directory of subscriptions a worker looks tenants up in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use moka::future::Cache;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::redis::Redis;
use super::{Directory, Lookup, TenantSubscriptions, Unknown};
use crate::domain::name::Tenant;
use crate::domain::seal::SealKey;
use crate::domain::subscription::{Subscription, SubscriptionSpec};
use crate::store::Store;

/// Nothing waits in memory for a lookup longer than this.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Tenants kept in memory; the least used go first.
const TENANTS_MAX: u64 = 100_000;
/// The store's share of that, so that a slow store is told from an unknown tenant.
const STORE_TIMEOUT: Duration = Duration::from_secs(3);
/// Redis is compared with the store this much more seldom than it is asked, which mends a notice that never
/// reached it.
const POLLS_PER_RECONCILE: u32 = 20;

/// The longest time until a change is seen that Redis was not told of.
pub fn reconcile_after(refresh: Duration) -> Duration {
    refresh / 2 * POLLS_PER_RECONCILE
}

/// How fresh a directory keeps itself.
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    /// A change is used everywhere within this.
    pub refresh: Duration,
    /// With Redis and store away, known tenants are served this long.
    pub max_stale: Duration,
}

/// Memory over Redis over the store.
pub struct CachedDirectory {
    store: Store,
    redis: Option<Redis>,
    key: SealKey,
    freshness: Freshness,
    tenants: Cache<Tenant, Lookup>,
    /// The lowest version of each tenant that may still be used; a cached entry below it is old.
    floors: RwLock<HashMap<Tenant, u64>>,
    /// When Redis or the store last said what changed.
    contact: Mutex<Instant>,
    fault: watch::Sender<Option<String>>,
    wake: Notify,
}

impl CachedDirectory {
    /// A directory over this store, through Redis if there is one.
    pub fn new(store: Store, redis: Option<Redis>, key: SealKey, freshness: Freshness) -> CachedDirectory {
        let fault = redis.as_ref().map(|_| "Redis has not been reached yet".to_owned());
        CachedDirectory {
            store,
            redis,
            key,
            freshness,
            tenants: Cache::new(TENANTS_MAX),
            floors: RwLock::default(),
            contact: Mutex::new(Instant::now()),
            fault: watch::channel(fault).0,
            wake: Notify::new(),
        }
    }

    /// What keeps this process from taking work, if anything.
    pub fn fault(&self) -> watch::Receiver<Option<String>> {
        self.fault.subscribe()
    }

    /// Keeps the directory fresh until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let listen = async {
            match &self.redis {
                Some(redis) => redis.listen(&self.wake).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.follow() => {}
            () = listen => {}
            () = stop.cancelled() => {}
        }
    }

    async fn follow(&self) {
        let mut progress = Progress::default();
        let mut reconciled_at: Option<Instant> = None;
        let mut belongs = self.redis.is_none();
        let mut is_older = false;
        loop {
            let reconcile =
                reconciled_at.is_none_or(|at| at.elapsed() >= reconcile_after(self.freshness.refresh));
            let mut fault = None;
            if let Some(redis) = &self.redis
                && (reconcile || !belongs)
            {
                match self.compare_stores(redis).await {
                    Ok(None) => belongs = true,
                    Ok(Some(difference)) => {
                        belongs = false;
                        fault = Some(difference);
                    }
                    // Never reached: not ready. Reached before: the store answers for it.
                    Err(problem) if !belongs => fault = Some(problem),
                    Err(_) => {}
                }
            }
            match self.poll(&mut progress, reconcile).await {
                Ok(Heard { redis, store, older_store }) => {
                    *self.contact.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                    // Only a comparison with the store can tell, and clear it.
                    if store {
                        reconciled_at = Some(Instant::now());
                        is_older = older_store;
                    }
                    if !redis {
                        // The first good answer after a silence may be an old memory: compare again.
                        reconciled_at = None;
                    }
                    // Another store altogether says more than an older one.
                    if is_older && fault.is_none() {
                        fault = Some(OLDER_STORE.to_owned());
                    }
                }
                Err(problem) => {
                    reconciled_at = None;
                    let waiting = self.fault.borrow().as_ref().is_some_and(|known| known.starts_with(AWAY));
                    if waiting || self.contact_age() > self.freshness.max_stale {
                        fault = Some(format!("{AWAY}: {problem}"));
                    } else {
                        warn!("neither Redis nor the store says what changed: {problem}");
                    }
                }
            }
            self.tell(fault);
            tokio::select! {
                () = sleep(self.freshness.refresh / 2) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    fn tell(&self, fault: Option<String>) {
        self.fault.send_if_modified(|known| {
            if *known == fault {
                return false;
            }
            match (&known, &fault) {
                (_, Some(reason)) => error!("not ready: {reason}"),
                (Some(_), None) => info!("subscriptions are known again"),
                (None, None) => {}
            }
            *known = fault;
            true
        });
    }

    /// Compares store ids; `Some` is the difference that keeps this process from working.
    async fn compare_stores(&self, redis: &Redis) -> Result<Option<String>, String> {
        let ours = format!("{} {}", self.store.id(), self.store.key_check());
        let unreachable = |error: redis::RedisError| format!("Redis cannot be reached: {error}");
        let known = match redis.store().await.map_err(unreachable)? {
            Some(known) => known,
            None => {
                let holds = self.store.has_subscription().await.map_err(|error| error.to_string())?;
                if !holds {
                    // An empty store must not claim a Redis: it may be an accident.
                    return Ok(None);
                }
                redis.claim(&ours).await.map_err(unreachable)?
            }
        };
        if known == ours {
            return Ok(None);
        }
        let (their_id, their_check) = known.split_once(' ').unwrap_or((&known, ""));
        Ok(Some(if their_id == self.store.id() {
            format!(
                "`secrets.key` differs from the one other processes use (key check {their_check} in Redis, {} here)",
                self.store.key_check()
            )
        } else {
            format!(
                "Redis belongs to store {their_id}, this process has store {}: point `store.url` at the same store as the others (where that one is gone for good, delete our keys in Redis)",
                self.store.id()
            )
        }))
    }

    /// Learns what changed: from Redis, and when it is time to reconcile, or Redis cannot say, from the store.
    async fn poll(&self, progress: &mut Progress, reconcile: bool) -> Result<Heard, String> {
        let mut problem = String::from("no `redis.url`");
        let mut posted_counter = None;
        let mut redis_answered = false;
        if let Some(redis) = &self.redis {
            match redis.posted_since(progress.redis_seen).await {
                Ok(posted) => {
                    redis_answered = true;
                    self.raise_floors(&posted.tenants);
                    posted_counter = posted.counter;
                    if let Some(counter) = posted.counter
                        && counter >= progress.redis_seen
                    {
                        progress.redis_seen = counter;
                        if !reconcile {
                            return Ok(Heard { redis: true, store: false, older_store: false });
                        }
                    } else {
                        // Flushed, or an older memory.
                        progress.redis_seen = 0;
                    }
                }
                Err(error) => problem = format!("Redis: {error}"),
            }
        }
        // Whatever Redis may lack: what it has not counted, and what the store has not been asked for yet.
        let since = match (&self.redis, redis_answered) {
            (Some(_), true) => progress.store_seen.min(posted_counter.unwrap_or(0)),
            _ => progress.store_seen,
        };
        let changes = match timeout(STORE_TIMEOUT, self.store.changes_since(since)).await {
            Ok(Ok(changes)) => changes,
            // With Redis there, a store that is away delays nothing.
            _ if redis_answered => return Ok(Heard { redis: true, store: false, older_store: false }),
            Ok(Err(error)) => return Err(format!("{problem}; store: {error}")),
            Err(_) => return Err(format!("{problem}; store: no answer")),
        };
        self.raise_floors(&changes.tenants);
        // Read after Redis, a store can be ahead of it, never behind: unless it is an old copy.
        let older_store = posted_counter.is_some_and(|posted| posted > changes.counter);
        if let (Some(redis), true, false) = (&self.redis, redis_answered, older_store) {
            // What a writer could not post (Redis was away, or has been flushed) is posted here.
            if let Err(error) = redis.post(changes.counter, &changes.tenants).await {
                warn!("changes cannot be posted to Redis: {error}");
                redis_answered = false;
            }
        }
        progress.store_seen = changes.counter;
        Ok(Heard { redis: redis_answered || self.redis.is_none(), store: true, older_store })
    }

    fn raise_floors(&self, tenants: &[(String, u64)]) {
        if tenants.is_empty() {
            return;
        }
        let mut floors = self.floors.write().unwrap_or_else(PoisonError::into_inner);
        for (tenant, version) in tenants {
            if let Ok(tenant) = Tenant::parse(tenant) {
                let floor = floors.entry(tenant).or_default();
                *floor = (*floor).max(*version);
            }
        }
    }

    fn floor(&self, tenant: &Tenant) -> u64 {
        let floors = self.floors.read().unwrap_or_else(PoisonError::into_inner);
        floors.get(tenant).copied().unwrap_or(0)
    }

    fn contact_age(&self) -> Duration {
        self.contact.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// What memory holds, if it may still be used.
    async fn remembered(&self, tenant: &Tenant) -> Option<Lookup> {
        let known = self.tenants.get(tenant).await?;
        let fresh = known.version()? >= self.floor(tenant) && self.contact_age() <= self.freshness.max_stale;
        fresh.then_some(known)
    }

    /// What is known once this version of the tenant is.
    async fn lookup_at_least(&self, tenant: &Tenant, known: u64, version: u64) -> Lookup {
        if version > known {
            self.raise_floors(&[(tenant.to_string(), version)]);
        }
        self.lookup(tenant).await
    }

    /// Reads a tenant from Redis or the store, one reader per tenant at a time.
    async fn load(&self, tenant: &Tenant) -> Lookup {
        if let Some(old) = self.tenants.get(tenant).await
            && old.version().is_none_or(|version| version < self.floor(tenant))
        {
            self.tenants.invalidate(tenant).await;
        }
        let loaded = self.tenants.try_get_with_by_ref(tenant, async {
            match self.read(tenant).await {
                // Not knowing is never remembered.
                Lookup::Unknown(unknown) => Err(unknown),
                known => Ok(known),
            }
        });
        match timeout(LOOKUP_TIMEOUT, loaded).await {
            Ok(Ok(known)) => known,
            Ok(Err(unknown)) => self.unknown((*unknown).clone()),
            Err(_) => self.unknown(Unknown::Away("no answer within 5 s".into())),
        }
    }

    fn unknown(&self, unknown: Unknown) -> Lookup {
        metrics::counter!("paperboy_lookups_unknown_total").increment(1);
        if let Unknown::Away(problem) = &unknown {
            // Closes the gate: what is in hand goes back, and `follow` opens it again.
            self.tell(Some(format!("{AWAY}: {problem}")));
            self.wake.notify_one();
        }
        Lookup::Unknown(unknown)
    }

    async fn read(&self, tenant: &Tenant) -> Lookup {
        let mut problem = String::new();
        let mut redis_answered = false;
        if let Some(redis) = &self.redis {
            let read = redis.read(tenant).await;
            redis_answered = read.is_ok();
            match read {
                Ok(Some((version, sealed))) if version >= self.floor(tenant) => {
                    match self.open(tenant, version, &sealed) {
                        Ok(known) => return known,
                        Err(reason) => {
                            warn!(tenant = %tenant, "the record in Redis cannot be used, the store is asked: {reason}");
                        }
                    }
                }
                Ok(_) => {}
                Err(error) => problem = format!("Redis: {error}; "),
            }
        }
        let record = match timeout(STORE_TIMEOUT, self.store.tenant(tenant)).await {
            Ok(Ok(record)) => return self.keep(tenant, record.version, record.specs).await,
            Ok(Err(error)) => format!("{problem}store: {error}"),
            Err(_) => format!("{problem}store: no answer within {} s", STORE_TIMEOUT.as_secs()),
        };
        nobody_can_say(redis_answered, record)
    }

    /// What the store says becomes what Redis says, then what memory says.
    async fn keep(
        &self,
        tenant: &Tenant,
        version: u64,
        records: Vec<Result<SubscriptionSpec, crate::store::BrokenRecord>>,
    ) -> Lookup {
        let mut specs = Vec::with_capacity(records.len());
        for record in records {
            match record {
                Ok(spec) => specs.push(spec),
                Err(broken) => return self.broken(tenant, &broken.to_string()),
            }
        }
        if let Some(redis) = &self.redis {
            match self.seal(tenant, version, &specs) {
                Ok(sealed) => {
                    if let Err(error) = redis.write(tenant, version, &sealed).await {
                        warn!(tenant = %tenant, "the tenant cannot be cached in Redis: {error}");
                    }
                }
                Err(error) => warn!(tenant = %tenant, "the tenant cannot be sealed for Redis: {error}"),
            }
        }
        self.ready(tenant, version, specs).unwrap_or_else(|reason| self.broken(tenant, &reason))
    }

    fn broken(&self, tenant: &Tenant, reason: &str) -> Lookup {
        error!(tenant = %tenant, "a subscription of tenant `{tenant}` cannot be read; its events wait: {reason}");
        Lookup::Unknown(Unknown::Tenant(reason.to_owned()))
    }

    fn seal(&self, tenant: &Tenant, version: u64, specs: &[SubscriptionSpec]) -> anyhow::Result<Vec<u8>> {
        let plain = zeroize::Zeroizing::new(serde_json::to_vec(specs)?);
        let mut nonce = [0; 24];
        getrandom::fill(&mut nonce).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        Ok(self.key.seal(nonce, &associated(tenant, version), &plain))
    }

    fn open(&self, tenant: &Tenant, version: u64, sealed: &[u8]) -> Result<Lookup, String> {
        let plain = self.key.open(&associated(tenant, version), sealed).map_err(|error| error.to_string())?;
        let plain = zeroize::Zeroizing::new(plain);
        let specs: Vec<SubscriptionSpec> =
            serde_json::from_slice(&plain).map_err(|error| error.to_string())?;
        self.ready(tenant, version, specs)
    }

    fn ready(&self, tenant: &Tenant, version: u64, specs: Vec<SubscriptionSpec>) -> Result<Lookup, String> {
        if specs.is_empty() {
            return Ok(Lookup::KnownEmpty(version));
        }
        let subscriptions: Result<Vec<_>, String> = specs
            .into_iter()
            .map(|spec| {
                let subscription = prepare(spec)?;
                // The tenant is checked again after the lookup: a record filed wrong must not be served.
                if subscription.tenant != *tenant {
                    return Err(format!("subscription `{}` belongs to another tenant", subscription.id));
                }
                Ok(Arc::new(subscription))
            })
            .collect();
        Ok(Lookup::Found(Arc::new(TenantSubscriptions { version, subscriptions: subscriptions? })))
    }
}

const AWAY: &str = "Redis and the store are away";
const OLDER_STORE: &str = "the store is older than what Redis has seen of it (restored from a copy?): delete our keys in Redis, so that they are made anew";

/// How far changes are known.
#[derive(Default)]
struct Progress {
    /// Redis's counter at its last answer.
    redis_seen: u64,
    /// The store's counter at its last answer; only the store raises it.
    store_seen: u64,
}

/// Who answered a poll.
struct Heard {
    redis: bool,
    store: bool,
    /// Redis counts changes this store has never seen.
    older_store: bool,
}

/// Redis alone may serve the others: only this tenant waits. With both gone everybody does.
fn nobody_can_say(redis_answered: bool, problem: String) -> Lookup {
    Lookup::Unknown(if redis_answered { Unknown::Tenant(problem) } else { Unknown::Away(problem) })
}

/// Moving a record to another tenant, or back to an older version, must not open.
fn associated(tenant: &Tenant, version: u64) -> Vec<u8> {
    format!("tenant\0{tenant}\0{version}").into_bytes()
}

fn prepare(spec: SubscriptionSpec) -> Result<Subscription, String> {
    spec.check().map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

impl Directory for CachedDirectory {
    async fn lookup(&self, tenant: &Tenant) -> Lookup {
        match self.remembered(tenant).await {
            Some(known) => known,
            // Rare and large (Redis and SQL): in a box, so that no delivery carries room for it.
            None => Box::pin(self.load(tenant)).await,
        }
    }

    async fn confirm(&self, tenant: &Tenant, known: u64) -> Lookup {
        // The truth first: Redis may not have heard of a change yet.
        let problem = match timeout(STORE_TIMEOUT, self.store.tenant_version(tenant)).await {
            Ok(Ok(version)) => return self.lookup_at_least(tenant, known, version).await,
            Ok(Err(error)) => format!("store: {error}"),
            Err(_) => format!("store: no answer within {} s", STORE_TIMEOUT.as_secs()),
        };
        let Some(redis) = &self.redis else { return self.unknown(Unknown::Away(problem)) };
        match redis.version(tenant).await {
            Ok(Some(version)) => self.lookup_at_least(tenant, known, version).await,
            Ok(None) => nobody_can_say(true, problem),
            Err(error) => self.unknown(Unknown::Away(format!("{problem}; Redis: {error}"))),
        }
    }
}
