//! The directory of subscriptions a worker looks tenants up in: memory over Redis over the store.

use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::flights::Flights;
use super::follower::Follower;
use super::freshness::{Contact, Freshness};
use super::memory::Memory;
use super::redis::Redis;
use super::{Directory, Lookup, Unknown, record};
use crate::domain::name::Tenant;
use crate::domain::subscription::SubscriptionSpec;
use crate::store::{BrokenRecord, Store};

/// Nothing waits in memory for a lookup longer than this.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// The store's share of that, so that a slow store is told from an unknown tenant.
pub(super) const STORE_TIMEOUT: Duration = Duration::from_secs(3);
/// A tenant that changes while it is read is read again, this often.
const READS_MAX: usize = 3;

pub(super) const AWAY: &str = "Redis and the store are away";

/// Memory over Redis over the store.
pub struct CachedDirectory {
    pub(super) store: Store,
    pub(super) redis: Option<Redis>,
    pub(super) freshness: Freshness,
    pub(super) memory: Memory,
    /// When Redis or the store last said what changed.
    pub(super) contact: Contact,
    flights: Flights,
    fault: watch::Sender<Option<String>>,
    wake: Notify,
}

impl CachedDirectory {
    /// A directory over this store, through Redis if there is one.
    pub fn new(store: Store, redis: Option<Redis>, freshness: Freshness) -> CachedDirectory {
        let fault = redis.as_ref().map(|_| "Redis has not been reached yet".to_owned());
        CachedDirectory {
            store,
            redis,
            freshness,
            memory: Memory::default(),
            contact: Contact::new(),
            flights: Flights::default(),
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
            () = Follower::new(self).run(&self.wake) => {}
            () = listen => {}
            () = stop.cancelled() => {}
        }
    }

    /// Whether nobody could be asked the last time.
    pub(super) fn is_away(&self) -> bool {
        self.fault.borrow().as_ref().is_some_and(|known| known.starts_with(AWAY))
    }

    /// Says what keeps this process from working, if anything; logs only what is new.
    pub(super) fn tell(&self, fault: Option<String>) {
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

    /// What is known once this version of the tenant is.
    async fn lookup_at_least(&self, tenant: &Tenant, known: u64, version: u64) -> Lookup {
        if version > known {
            self.memory.raise_floors(&[(tenant.to_string(), version)]);
        }
        self.lookup(tenant).await
    }

    /// Reads a tenant from Redis or the store, one reader per tenant at a time.
    async fn load(&self, tenant: &Tenant) -> Lookup {
        let loaded = async {
            let mut loaded = self.flights.join(tenant, || self.read(tenant)).await;
            for _ in 1..READS_MAX {
                // A reading that was under way may be older than what is known to have changed since.
                if loaded.version().is_none_or(|version| version >= self.memory.floor(tenant.as_str())) {
                    break;
                }
                loaded = self.flights.join(tenant, || self.read(tenant)).await;
            }
            loaded
        };
        match timeout(LOOKUP_TIMEOUT, loaded).await {
            Ok(Lookup::Unknown(unknown)) => self.unknown(unknown),
            Ok(known) => known,
            Err(_) => self.unknown(self.cannot_say(tenant, false, "no answer within 5 s".into())),
        }
    }

    fn unknown(&self, unknown: Unknown) -> Lookup {
        metrics::counter!("paperboy_lookups_unknown_total").increment(1);
        if let Unknown::Away(problem) = &unknown {
            // Closes the gate: what is in hand goes back, and who follows the changes opens it again.
            self.tell(Some(format!("{AWAY}: {problem}")));
            self.wake.notify_one();
        }
        Lookup::Unknown(unknown)
    }

    async fn read(&self, tenant: &Tenant) -> Lookup {
        // Whoever read before us may have just finished.
        if let Some(known) = self.known(tenant.as_str()) {
            return known;
        }
        let mut problem = String::new();
        let mut redis_answered = false;
        if let Some(redis) = &self.redis {
            let read = redis.read(tenant).await;
            redis_answered = read.is_ok();
            match read {
                Ok(Some((version, sealed))) if version >= self.memory.floor(tenant.as_str()) => {
                    count_read("redis");
                    match record::open(&self.store, tenant, version, &sealed) {
                        Ok(known) => return self.remember(tenant, known),
                        Err(reason) => {
                            warn!(tenant = %tenant, "the record in Redis cannot be used, the store is asked: {reason}");
                        }
                    }
                }
                Ok(_) => {}
                Err(error) => problem = format!("Redis: {error}; "),
            }
        }
        count_read("store");
        let problem = match timeout(STORE_TIMEOUT, self.store.tenant(tenant)).await {
            Ok(Ok(found)) => return self.keep(tenant, found.version, found.specs).await,
            Ok(Err(error)) => format!("{problem}store: {error}"),
            Err(_) => format!("{problem}store: no answer within {} s", STORE_TIMEOUT.as_secs()),
        };
        Lookup::Unknown(self.cannot_say(tenant, redis_answered, problem))
    }

    /// Where Redis, or whoever was asked what changed, has just answered, the others may be served: only this tenant
    /// waits. With both gone everybody does.
    fn cannot_say(&self, tenant: &Tenant, redis_answered: bool, problem: String) -> Unknown {
        // They are asked twice as often as that.
        if redis_answered || self.contact.age() < self.freshness.refresh * 2 {
            warn!(tenant = %tenant, "nobody says who wants the events of tenant `{tenant}`; they wait: {problem}");
            return Unknown::Tenant(problem);
        }
        Unknown::Away(problem)
    }

    /// What the store says becomes what Redis says, then what memory says.
    async fn keep(
        &self,
        tenant: &Tenant,
        version: u64,
        found: Vec<Result<SubscriptionSpec, BrokenRecord>>,
    ) -> Lookup {
        let specs = match found.into_iter().collect::<Result<Vec<_>, _>>() {
            Ok(specs) => specs,
            Err(broken) => return unreadable(tenant, &broken.to_string()),
        };
        if let Some(redis) = &self.redis {
            match record::seal(&self.store, tenant, version, &specs) {
                Ok(sealed) => {
                    if let Err(error) = redis.write(tenant, version, &sealed).await {
                        debug!(tenant = %tenant, "the tenant cannot be cached in Redis: {error}");
                    }
                }
                Err(error) => warn!(tenant = %tenant, "the tenant cannot be sealed for Redis: {error:#}"),
            }
        }
        match record::ready(tenant, version, specs) {
            Ok(known) => self.remember(tenant, known),
            Err(reason) => unreadable(tenant, &reason),
        }
    }

    fn remember(&self, tenant: &Tenant, known: Lookup) -> Lookup {
        self.memory.keep(tenant, &known);
        known
    }
}

/// Says where a tenant was read that memory did not know.
fn count_read(from: &'static str) {
    metrics::counter!("paperboy_tenant_reads_total", "from" => from).increment(1);
}

fn unreadable(tenant: &Tenant, reason: &str) -> Lookup {
    error!(tenant = %tenant, "a subscription of tenant `{tenant}` cannot be read; its events wait: {reason}");
    Lookup::Unknown(Unknown::Tenant(reason.to_owned()))
}

impl Directory for CachedDirectory {
    fn known(&self, tenant: &str) -> Option<Lookup> {
        if self.contact.age() > self.freshness.max_stale {
            return None;
        }
        self.memory.get(tenant)
    }

    async fn lookup(&self, tenant: &Tenant) -> Lookup {
        match self.known(tenant.as_str()) {
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
        let Some(redis) = &self.redis else {
            return self.unknown(self.cannot_say(tenant, false, problem));
        };
        match redis.version(tenant).await {
            Ok(Some(version)) => self.lookup_at_least(tenant, known, version).await,
            Ok(None) => self.unknown(self.cannot_say(tenant, true, problem)),
            Err(error) => self.unknown(self.cannot_say(tenant, false, format!("{problem}; Redis: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use serde_json::json;

    use super::*;
    use crate::domain::seal::SealKey;
    use crate::store::StoreUrl;
    use crate::store::tests::Folder;

    const SECOND: Duration = Duration::from_secs(1);

    /// A directory over a store with one subscription of `acme`; nobody follows the changes.
    async fn directory(folder: &Folder, refresh: Duration, max_stale: Duration) -> CachedDirectory {
        let url = format!("sqlite://{}", folder.path().join("paperboy.db").display());
        let url = StoreUrl::parse(&url).unwrap();
        let store = Store::migrate(&url, &SealKey::from_bytes([1; 32])).await.unwrap();
        let document = json!({
            "id": "sub_1", "tenant": "acme", "events": ["#"], "request": {"url": "https://h.example/x"},
            "signatures": [], "enabled": true,
            "created_at": "2026-11-22T09:00:00Z", "updated_at": "2026-11-22T09:00:00Z",
        });
        let spec = serde_json::from_value(document).unwrap();
        store.add_subscriptions(vec![spec]).await.unwrap();
        CachedDirectory::new(store, None, Freshness { refresh, max_stale })
    }

    #[tokio::test]
    async fn a_lookup_in_memory_allocates_nothing_and_waits_for_nothing() {
        let folder = Folder::new();
        let directory = directory(&folder, SECOND, Duration::from_secs(60)).await;
        let tenant = Tenant::parse("acme").unwrap();
        assert!(directory.known("acme").is_none());
        assert!(matches!(directory.lookup(&tenant).await, Lookup::Found(_)));
        let mut found = 0;
        let used = allocation_counter::measure(|| {
            for _ in 0..1000 {
                let by_name = directory.known("acme");
                let awaited = directory.lookup(&tenant).now_or_never();
                found += usize::from(matches!(
                    (by_name, awaited),
                    (Some(Lookup::Found(_)), Some(Lookup::Found(_)))
                ));
            }
        });
        assert_eq!((found, used.count_total), (1000, 0));
        // The counter counts.
        assert!(allocation_counter::measure(|| drop(tenant.to_string())).count_total > 0);
    }

    #[tokio::test]
    async fn memory_is_not_used_once_nobody_was_heard_for_too_long() {
        let folder = Folder::new();
        let directory = directory(&folder, SECOND, Duration::ZERO).await;
        let tenant = Tenant::parse("acme").unwrap();
        assert!(matches!(directory.lookup(&tenant).await, Lookup::Found(_)));
        while directory.contact.age().is_zero() {
            tokio::task::yield_now().await;
        }
        assert!(directory.known("acme").is_none());
        directory.contact.made();
        assert!(directory.known("acme").is_some());
    }

    #[tokio::test]
    async fn a_change_that_was_heard_of_is_read_at_the_next_lookup() {
        let folder = Folder::new();
        let directory = directory(&folder, SECOND, Duration::from_secs(60)).await;
        let tenant = Tenant::parse("acme").unwrap();
        let first = directory.lookup(&tenant).await.version();
        let id = crate::domain::name::SubscriptionId::parse("sub_1").unwrap();
        directory.store.remove_subscription(&id).await.unwrap();
        assert_eq!(directory.lookup(&tenant).await.version(), first, "not heard of yet");
        assert!(matches!(directory.confirm(&tenant, first.unwrap()).await, Lookup::KnownEmpty(_)));
        assert!(matches!(directory.known("acme"), Some(Lookup::KnownEmpty(_))));
    }

    #[tokio::test]
    async fn only_the_tenant_waits_while_somebody_answers() {
        for (refresh, all_wait) in [(Duration::from_secs(3600), false), (Duration::ZERO, true)] {
            let folder = Folder::new();
            let directory = directory(&folder, refresh, Duration::from_secs(3600)).await;
            directory.store.close().await;
            let looked = directory.lookup(&Tenant::parse("acme").unwrap()).await;
            let is_away = matches!(looked, Lookup::Unknown(Unknown::Away(_)));
            assert_eq!((is_away, directory.fault().borrow().is_some()), (all_wait, all_wait));
            assert!(matches!(looked, Lookup::Unknown(_)));
        }
    }
}
