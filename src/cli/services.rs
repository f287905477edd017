//! Opening the real services for a command, with failures that say what to do.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::broker::rabbitmq::inspect::Inspector;
use crate::broker::rabbitmq::{RabbitMq, Settings};
use crate::cache::redis::Redis;
use crate::config::{Config, LogKeep, SecretsKey};
use crate::desk::{Board, Caller, Desk, Rules};
use crate::domain::keyring::Keyring;
use crate::domain::seal::SealKey;
use crate::http::guard::Guard;
use crate::http::{Sender, SenderSettings};
use crate::store::{Store, StoreUrl, key};

use super::Failure;

/// The store that is there; never makes one.
pub(super) async fn open_store(config: &Config) -> Result<Store, Failure> {
    // A missing store is the better message than its missing key.
    if let StoreUrl::Sqlite { path } = &config.store.url
        && !path.exists()
    {
        return Err(crate::store::OpenError::Missing { url: config.store.url.clone() }.into());
    }
    Ok(Store::open(&config.store.url, keyring(config, false)?).await?)
}

/// The store, made or brought up to date where it has to be.
pub(super) async fn migrate_store(config: &Config) -> Result<Store, Failure> {
    Ok(Store::migrate(&config.store.url, keyring(config, true)?).await?)
}

/// The key that is set, and those before it.
fn keyring(config: &Config, may_make: bool) -> Result<Keyring, Failure> {
    let newest = seal_key(config, may_make)?;
    let older = config.secrets.old_keys.iter().filter_map(|key| match key {
        SecretsKey::Inline(key) => Some(Ok(key.clone())),
        SecretsKey::File(path) => Some(key_file(path, false)),
        SecretsKey::None => None,
    });
    Ok(Keyring::new(newest, older.collect::<Result<_, _>>()?))
}

/// The key that seals secrets, made beside a new SQLite file where none is set.
fn seal_key(config: &Config, may_make: bool) -> Result<SealKey, Failure> {
    let url = &config.store.url;
    let (path, may_make) = match &config.secrets.key {
        SecretsKey::Inline(key) => return Ok(key.clone()),
        SecretsKey::File(path) => (path.clone(), false),
        SecretsKey::None => match key::beside(url) {
            // A new key beside an old store would open nothing.
            Some(path) => (path, may_make && url.path().is_some_and(|store| !store.exists())),
            None => {
                // Refused with the configuration already; here for whoever calls with another one.
                let fault = crate::config::Fault::new(
                    "secrets.key",
                    "`secrets.key` is not set and the store is not a file",
                )
                .hint("set it to 32 bytes in base64 (`openssl rand -base64 32`) or `file:PATH`");
                return Err(Failure::config(vec![fault]));
            }
        },
    };
    key_file(&path, may_make)
}

fn key_file(path: &Path, may_make: bool) -> Result<SealKey, Failure> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| Failure::world(format!("no randomness: {error}")))?;
    let is_new = !path.exists();
    let key = key::load_or_make(path, random, may_make)
        .map_err(|fault| Failure::world(fault.to_string()).hint(fault.hint()))?;
    if is_new {
        eprintln!("made the key that seals secrets at `{}`: keep it with the store", path.display());
    }
    Ok(key)
}

/// RabbitMQ, with the topology made sure of.
pub(super) async fn broker(config: &Config) -> Result<RabbitMq, Failure> {
    Ok(RabbitMq::start(broker_settings(config)).await?)
}

/// Deletes everything of this prefix from RabbitMQ; how many queues that were.
pub(super) async fn remove_topology(config: &Config) -> Result<usize, Failure> {
    Ok(RabbitMq::remove_topology(&broker_settings(config)).await?)
}

/// RabbitMQ to look at: nothing is declared, nothing taken.
pub(super) async fn inspector(config: &Config) -> Result<Inspector, Failure> {
    Ok(Inspector::connect(&broker_settings(config)).await?)
}

fn broker_settings(config: &Config) -> Settings {
    Settings {
        url: config.broker.url.expose().to_owned(),
        prefix: config.broker.prefix.clone(),
        delay_unit_ms: config.broker.delay_unit_ms,
        declare: config.broker.declare,
        start_wait: Duration::from_secs(config.broker.start_wait_s.into()),
    }
}

/// Redis, if one is configured; not dialled yet.
pub(super) fn redis(config: &Config) -> Result<Option<Redis>, Failure> {
    let Some(url) = &config.redis.url else { return Ok(None) };
    let redis = Redis::new(url.expose(), &config.broker.prefix)
        .map_err(|error| Failure::world(format!("`redis.url` cannot be used: {error}")))?;
    Ok(Some(redis))
}

/// The way out, behind the address guard.
pub(super) fn sender(config: &Config) -> Result<Sender, Failure> {
    let insecure_tls = config.egress.insecure_tls.clone();
    Ok(Sender::new(SenderSettings { guard: Arc::new(guard(config)?), insecure_tls })?)
}

fn guard(config: &Config) -> Result<Guard, Failure> {
    Guard::new(&config.egress.allow).map_err(|faults| {
        Failure::world(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    })
}

/// What the operations that people and programs ask for work on.
pub(super) fn desk(config: &Config, store: Store) -> Result<Desk, Failure> {
    let refresh = config.cache.refresh();
    let rules = Rules {
        refresh,
        subscriptions_max: config.limits.subscriptions_max,
        event_bytes_max: config.limits.event_bytes_max,
        log_is_kept: config.delivery_log.keep != LogKeep::Off,
        batches: super::serve::batches::rules(config),
    };
    let board = Arc::new(RedisBoard { redis: redis(config)? });
    Ok(Desk { store, board, guard: Arc::new(guard(config)?), rules })
}

/// Whoever runs this command, as the audit names them.
pub(super) fn caller() -> Caller {
    use std::os::unix::fs::MetadataExt as _;
    let name = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let is_name =
        |name: &String| (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
    // The process's folder belongs to its user; a name that is not set leaves the number.
    let number =
        || std::fs::metadata("/proc/self").map_or_else(|_| "unknown".into(), |meta| meta.uid().to_string());
    Caller::operator(format!("cli:{}", name.filter(is_name).unwrap_or_else(number)))
}

/// Tells the processes through Redis, if there is one.
struct RedisBoard {
    redis: Option<Redis>,
}

impl Board for RedisBoard {
    fn post<'a>(
        &'a self,
        store: &'a Store,
        counter: u64,
    ) -> Pin<Box<dyn Future<Output = Option<String>> + Send + 'a>> {
        Box::pin(self.post_all(store, counter))
    }
}

impl RedisBoard {
    async fn post_all(&self, store: &Store, counter: u64) -> Option<String> {
        let redis = self.redis.as_ref()?;
        let posted = async {
            // Which key it names does not matter here: processes go by the store's word.
            let owner = redis.claim(&format!("{} {}", store.id(), store.key_check())).await?;
            if owner.split(' ').next() != Some(store.id()) {
                return Ok(false);
            }
            // Redis's counter promises that every change up to it is posted: so is whatever it lacks.
            let known = redis.counter().await?.unwrap_or(0);
            let changes = store.changes_since(known.min(counter.saturating_sub(1))).await?;
            redis.post(changes.counter, &changes.tenants).await?;
            Ok::<bool, anyhow::Error>(true)
        };
        match posted.await {
            Ok(true) => None,
            Ok(false) => Some(format!(
                "Redis belongs to another store than `{}`: the running processes do not see this change",
                store.url()
            )),
            Err(error) => {
                Some(format!("Redis was not told ({error:#}); running processes hear it from the store"))
            }
        }
    }
}

/// Tells every process of a change, waits until all use it, and says what a person should know.
pub(super) async fn spread(desk: &Desk, counter: u64, wait: bool) {
    if let Some(warning) = desk.spread(counter, wait).await {
        eprintln!("warning: {warning}");
    }
}
