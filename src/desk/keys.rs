//! Keys of the HTTP API: made, revoked, and asked for with every request.
//!
//! Every process keeps all keys in memory. Once a second at most, and only if somebody asks, it reads one counter
//! from the store, and the keys again if that rose. So no flood of wrong keys reaches the store, and a key that is
//! revoked ends everywhere within a second while the store answers. A store that does not answer is asked once a second
//! too, by one of those who wait; the others go by what is known.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde_json::json;
use tracing::warn;

use super::{Caller, Refused, note, now_ms, random};
use crate::domain::key::{self, KeyId, NewKey, Scopes};
use crate::domain::name::Tenant;
use crate::domain::secret::Secret;
use crate::store::{KeyRow, Store};

/// How old the knowledge of keys may be while the store answers.
const FRESH: Duration = Duration::from_secs(1);
/// How long is waited for somebody else who asks the store, before going by what is known.
const READING_WAIT: Duration = Duration::from_millis(250);
/// How coarse the time of the last use is, in milliseconds.
const USE_STEP_MS: i64 = 60_000;
const NAME_CHARS_MAX: usize = 200;

/// A key to be made.
#[derive(Clone, Debug)]
pub struct Order {
    /// `None`: an operator's.
    pub tenant: Option<Tenant>,
    pub scopes: Scopes,
    pub name: Option<String>,
    /// Unix milliseconds.
    pub expires_at_ms: Option<i64>,
}

/// Makes a key and keeps its hash; the text is shown this once.
///
/// # Errors
/// The name is too long, or the store fails.
pub async fn create(store: &Store, caller: &Caller, order: Order) -> Result<(KeyRow, Secret), Refused> {
    if order.name.as_ref().is_some_and(|name| name.chars().count() > NAME_CHARS_MAX) {
        return Err(Refused::fault("name", "is longer than 200 characters", "shorten it"));
    }
    let new = NewKey::from_random(random()?);
    let row = KeyRow {
        id: new.id,
        hash: new.hash,
        name: order.name,
        tenant: order.tenant,
        scopes: order.scopes,
        created_at_ms: now_ms(),
        expires_at_ms: order.expires_at_ms,
        revoked_at_ms: None,
        used_at_ms: None,
    };
    let detail = json!({ "scopes": row.scopes.words(), "expires_at_ms": row.expires_at_ms });
    let tenant = row.tenant.as_ref().map(Tenant::as_str);
    store.add_key(&row, note(caller, "key.create", tenant, row.id.as_str(), detail)).await?;
    Ok((row, new.text))
}

/// Ends a key at once; whether it was still alive.
///
/// # Errors
/// There is none of that id, or the store fails.
pub async fn revoke(store: &Store, caller: &Caller, id: &KeyId) -> Result<bool, Refused> {
    let missing = || Refused::Missing { what: "key", id: id.to_string() };
    let row = store.api_keys().await?.into_iter().find(|row| row.id == *id).ok_or_else(missing)?;
    let tenant = row.tenant.as_ref().map(Tenant::as_str);
    let line = note(caller, "key.revoke", tenant, id.as_str(), json!({}));
    Ok(store.revoke_key(id, now_ms(), line).await?)
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// It brought no key.
    NoKey,
    /// What it brought is no key of ours, or one that has ended.
    BadKey,
    /// Nobody has made a key yet.
    NoneMade,
    /// The store does not say which keys there are.
    Unknown,
}

/// The keys of this process.
pub struct KeyRing {
    store: Store,
    /// Hashes of the operators' keys of the configuration.
    configured: Vec<[u8; 32]>,
    max_stale: Duration,
    known: RwLock<Known>,
    /// Held by whoever asks the store: when that failed last.
    reading: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Known {
    keys: HashMap<KeyId, Arc<Entry>>,
    counter: u64,
    /// `None`: nothing was read yet.
    read_at: Option<Instant>,
}

struct Entry {
    row: KeyRow,
    used: Arc<Use>,
}

/// When a key was last used, and whether the store has yet to hear of it.
#[derive(Default)]
struct Use {
    at_ms: AtomicI64,
    is_news: AtomicBool,
}

impl KeyRing {
    /// `max_stale`: how long known keys are still good while the store is away.
    pub fn new(store: Store, configured: &[Secret], max_stale: Duration) -> KeyRing {
        KeyRing {
            store,
            configured: configured.iter().map(|key| key::hash(key.expose())).collect(),
            max_stale,
            known: RwLock::default(),
            reading: tokio::sync::Mutex::default(),
        }
    }

    /// Who has this key.
    ///
    /// # Errors
    /// [`Denied`]; which of a wrong, an expired and a revoked key it was is not told.
    pub async fn caller(&self, key: Option<&str>) -> Result<Caller, Denied> {
        let hash = key.map(key::hash);
        if let Some(hash) = &hash {
            // Every one is compared, so that the time says nothing.
            let places = self.configured.iter().enumerate();
            let same = places.fold(
                None,
                |same, (place, known)| if key::is_same(known, hash) { Some(place + 1) } else { same },
            );
            if let Some(place) = same {
                return Ok(Caller::operator(format!("config:{place}")));
            }
        }
        self.refresh().await?;
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let (Some(key), Some(hash)) = (key, hash) else {
            // A key that ended still counts: revoking the last one must not open the door.
            let none = self.configured.is_empty() && known.keys.is_empty();
            return Err(if none { Denied::NoneMade } else { Denied::NoKey });
        };
        let now_ms = now_ms();
        let entry = key::id_of(key).and_then(|id| known.keys.get(&id)).ok_or(Denied::BadKey)?;
        let row = &entry.row;
        let is_over = row.revoked_at_ms.is_some() || row.expires_at_ms.is_some_and(|end| end <= now_ms);
        if !key::is_same(&row.hash, &hash) || is_over {
            return Err(Denied::BadKey);
        }
        if entry.used.at_ms.load(Ordering::Relaxed) <= now_ms - USE_STEP_MS {
            entry.used.at_ms.store(now_ms, Ordering::Relaxed);
            entry.used.is_news.store(true, Ordering::Relaxed);
        }
        Ok(Caller {
            actor: format!("{}:{}", if row.tenant.is_some() { "key" } else { "operator" }, row.id),
            tenant: row.tenant.clone(),
            scopes: row.scopes.clone(),
        })
    }

    /// Writes down when keys were last used, where that is news.
    pub async fn note_use(&self) {
        let used: Vec<(KeyId, i64)> = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            let news =
                known.keys.iter().filter(|(_, entry)| entry.used.is_news.swap(false, Ordering::Relaxed));
            news.map(|(id, entry)| (id.clone(), entry.used.at_ms.load(Ordering::Relaxed))).collect()
        };
        if !used.is_empty()
            && let Err(error) = self.store.note_key_use(&used).await
        {
            warn!("the last use of {} keys was not written down: {error:#}", used.len());
        }
    }

    /// Knows the keys as of a second ago, or as long ago as is allowed while the store is away.
    async fn refresh(&self) -> Result<(), Denied> {
        let is_younger = |limit| self.age().is_some_and(|age| age < limit);
        if is_younger(FRESH) {
            return Ok(());
        }
        let mut failed_at = match tokio::time::timeout(READING_WAIT, self.reading.lock()).await {
            Ok(failed_at) => failed_at,
            Err(_) if is_younger(self.max_stale) => return Ok(()),
            Err(_) => self.reading.lock().await,
        };
        // Somebody else has read them meanwhile, or has failed to.
        if is_younger(FRESH) {
            return Ok(());
        }
        if failed_at.is_none_or(|at| at.elapsed() >= FRESH) {
            match self.read().await {
                Ok(()) => {
                    *failed_at = None;
                    return Ok(());
                }
                Err(error) => warn!("the keys of the API cannot be read: {error:#}"),
            }
            *failed_at = Some(Instant::now());
        }
        if is_younger(self.max_stale) { Ok(()) } else { Err(Denied::Unknown) }
    }

    fn age(&self) -> Option<Duration> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.read_at.map(|at| at.elapsed())
    }

    async fn read(&self) -> anyhow::Result<()> {
        let asked_at = Instant::now();
        let counter = self.store.api_keys_counter().await?;
        let is_news = {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            let is_news = known.read_at.is_none() || known.counter != counter;
            if !is_news {
                known.read_at = Some(asked_at);
            }
            is_news
        };
        if is_news {
            let (rows, counter) = self.store.api_keys_and_counter().await?;
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            let keys = rows.into_iter().map(|row| {
                let used = known.keys.get(&row.id).map(|entry| Arc::clone(&entry.used)).unwrap_or_default();
                (row.id.clone(), Arc::new(Entry { row, used }))
            });
            let keys = keys.collect();
            *known = Known { keys, counter, read_at: Some(asked_at) };
        }
        Ok(())
    }
}

/// Requests a key may make: a bucket that fills steadily.
pub struct Buckets {
    per_s: f64,
    buckets: Mutex<HashMap<String, Bucket>>,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

/// Full buckets are forgotten above this many.
const BUCKETS_MAX: usize = 10_000;

impl Buckets {
    /// Each actor may make `per_s` requests a second, and as many at once after a pause; 0 is no limit.
    pub fn new(per_s: u32) -> Buckets {
        Buckets { per_s: f64::from(per_s), buckets: Mutex::default() }
    }

    /// Takes one request of this actor at `now`.
    ///
    /// # Errors
    /// How long until there is one again.
    pub fn take(&self, actor: &str, now: Instant) -> Result<(), Duration> {
        if self.per_s == 0.0 {
            return Ok(());
        }
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX {
            buckets.retain(|_, bucket| bucket.filled(self.per_s, now) < self.per_s);
        }
        if !buckets.contains_key(actor) {
            buckets.insert(actor.to_owned(), Bucket { tokens: self.per_s, at: now });
        }
        let Some(bucket) = buckets.get_mut(actor) else { return Ok(()) };
        bucket.tokens = bucket.filled(self.per_s, now);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.tokens) / self.per_s));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

impl Bucket {
    fn filled(&self, per_s: f64, now: Instant) -> f64 {
        (self.tokens + now.saturating_duration_since(self.at).as_secs_f64() * per_s).min(per_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_what_it_holds_and_fills_steadily() {
        let buckets = Buckets::new(2);
        let start = Instant::now();
        assert!(buckets.take("a", start).is_ok() && buckets.take("a", start).is_ok());
        assert_eq!(buckets.take("a", start), Err(Duration::from_millis(500)));
        assert!(buckets.take("b", start).is_ok(), "each has one of their own");
        let later = start + Duration::from_millis(500);
        assert!(buckets.take("a", later).is_ok() && buckets.take("a", later).is_err());
        // A long pause fills it once, not more.
        let much_later = start + Duration::from_secs(60);
        assert!(buckets.take("a", much_later).is_ok() && buckets.take("a", much_later).is_ok());
        assert!(buckets.take("a", much_later).is_err());
    }

    #[test]
    fn no_limit_is_no_limit() {
        let buckets = Buckets::new(0);
        let now = Instant::now();
        assert!((0..10_000).all(|_| buckets.take("a", now).is_ok()));
    }

    #[test]
    fn buckets_that_are_full_again_are_forgotten() {
        let buckets = Buckets::new(1);
        let start = Instant::now();
        for number in 0..BUCKETS_MAX {
            buckets.take(&number.to_string(), start).unwrap();
        }
        buckets.take("one more", start + Duration::from_secs(2)).unwrap();
        assert_eq!(buckets.buckets.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_store_that_is_away_holds_nobody_up() {
        let folder = crate::store::tests::Folder::new();
        let url = format!("sqlite://{}", folder.path().join("paperboy.db").display());
        let url = crate::store::StoreUrl::parse(&url).unwrap();
        let key = crate::domain::seal::SealKey::from_bytes([1; 32]);
        let store = Store::migrate(&url, &key).await.unwrap();
        let order = Order { tenant: None, scopes: Scopes::all(), name: None, expires_at_ms: None };
        let (_, text) = create(&store, &Caller::operator("test"), order).await.unwrap();
        let ring = KeyRing::new(store.clone(), &[], Duration::from_secs(60));
        let text = Some(text.expose());
        ring.caller(text).await.unwrap();
        let long_ago = Instant::now().checked_sub(FRESH * 2);
        ring.known.write().unwrap().read_at = long_ago;

        // Somebody waits for the store for as long as it takes: whoever has a known key does not.
        let slow = ring.reading.lock().await;
        ring.caller(text).await.unwrap();
        drop(slow);
        store.close().await;
        ring.caller(text).await.unwrap();
        let failed_at = *ring.reading.lock().await;
        assert!(failed_at.is_some());
        ring.caller(text).await.unwrap();
        assert_eq!(*ring.reading.lock().await, failed_at, "asked once a second, not for each request");

        let empty = KeyRing::new(store, &[], Duration::from_secs(60));
        assert_eq!(empty.caller(text).await.unwrap_err(), Denied::Unknown);
    }
}
