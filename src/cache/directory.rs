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
/// Polls between two comparisons of Redis with the store, which mend a notice that never reached Redis.
const POLLS_PER_RECONCILE: u32 = 20;

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
        let mut seen = 0;
        let mut polls = 0;
        let mut reconcile = true;
        let mut belongs = self.redis.is_none();
        loop {
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
            match self.poll(seen, reconcile).await {
                Ok((counter, redis_answered)) => {
                    *self.contact.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                    seen = counter;
                    // The first good answer after a silence may be an old memory: compare again.
                    reconcile = !redis_answered;
                }
                Err(problem) => {
                    reconcile = true;
                    let age = self.contact_age();
                    warn!("neither Redis nor the store says what changed: {problem}");
                    let waiting = self.fault.borrow().as_ref().is_some_and(|known| known.starts_with(AWAY));
                    if age > self.freshness.max_stale || waiting {
                        fault = Some(format!("{AWAY} for {} s: {problem}", age.as_secs()));
                    }
                }
            }
            polls += 1;
            reconcile |= polls % POLLS_PER_RECONCILE == 0;
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
            format!("`secrets.key` differs from the one other processes use (key check {their_check} in Redis, {} here)", self.store.key_check())
        } else {
            format!("Redis belongs to store {their_id}, this process has store {}: point `store.url` at the same store as the others", self.store.id())
        }))
    }

    /// Learns what changed after `seen`: the new counter, and whether Redis answered.
    async fn poll(&self, seen: u64, reconcile: bool) -> Result<(u64, bool), String> {
        let mut problem = String::from("no `redis.url`");
        let mut answered = self.redis.is_none();
        if let Some(redis) = &self.redis {
            match redis.posted_since(seen).await {
                Ok(posted) => {
                    answered = true;
                    self.raise_floors(&posted.tenants);
                    if let Some(counter) = posted.counter
                        && counter >= seen
                        && !reconcile
                    {
                        return Ok((counter, true));
                    }
                }
                Err(error) => problem = format!("Redis: {error}"),
            }
        }
        let store = timeout(LOOKUP_TIMEOUT, self.store.changes_since(seen)).await;
        match store {
            Ok(Ok(changes)) => {
                self.raise_floors(&changes.tenants);
                if let (Some(redis), true) = (&self.redis, answered) {
                    // What a writer could not post (Redis was away, or has been flushed) is posted here.
                    if let Err(error) = redis.post(changes.counter, &changes.tenants).await {
                        warn!("changes cannot be posted to Redis: {error}");
                        answered = false;
                    }
                }
                Ok((changes.counter.max(seen), answered))
            }
            // With Redis there, a store that is away delays nothing.
            _ if answered && self.redis.is_some() => Ok((seen, true)),
            Ok(Err(error)) => Err(format!("{problem}; store: {error}")),
            Err(_) => Err(format!("{problem}; store: no answer")),
        }
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
        if let Some(redis) = &self.redis {
            match redis.read(tenant).await {
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
        match self.store.tenant(tenant).await {
            Ok(record) => self.keep(tenant, record.version, record.specs).await,
            Err(error) => Lookup::Unknown(Unknown::Away(format!("{problem}store: {error}"))),
        }
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

/// Moving a record to another tenant, or back to an older version, must not open.
fn associated(tenant: &Tenant, version: u64) -> Vec<u8> {
    format!("tenant\0{tenant}\0{version}").into_bytes()
}

fn prepare(spec: SubscriptionSpec) -> Result<Subscription, String> {
    spec.check().map_err(|faults| {
        faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    })
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
        let version = Box::pin(async {
            if let Some(redis) = &self.redis
                && let Ok(Some(version)) = redis.version(tenant).await
            {
                return Ok(version);
            }
            self.store.tenant_version(tenant).await.map_err(|error| error.to_string())
        });
        match timeout(LOOKUP_TIMEOUT, version).await {
            Ok(Ok(version)) => {
                if version > known {
                    self.raise_floors(&[(tenant.to_string(), version)]);
                }
                self.lookup(tenant).await
            }
            Ok(Err(problem)) => self.unknown(Unknown::Away(problem)),
            Err(_) => self.unknown(Unknown::Away("no answer within 5 s".into())),
        }
    }
}
