//! Redis as a cache of subscriptions and the board where changes are posted.
//!
//! Keys, all under `broker.prefix`: `:store` (id and key check of the one store), `:changes` (the change
//! counter), `:versions` (tenant → version of its last change), `:tenant:T` (version and sealed records),
//! `:process:ID` (what a process says of itself), `:processes` (their ids) and `:token:NAME` (a sealed login's token).
//! Whatever is missing here means "ask the store"; versions only rise.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{AsyncCommands, Client, IntoConnectionInfo as _, RedisError, Script};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::redis_health::RedisHealth;
use crate::domain::name::Tenant;

/// A lookup must not wait for a Redis that hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// A host that is gone takes nothing in; without this limit its connection would be waited on for a quarter of an
/// hour.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);
/// Records nobody asks for do not stay for ever.
const RECORD_LIFE_S: u64 = 86_400;

/// A connection that comes back by itself, and the names of our keys.
#[derive(Clone)]
pub struct Redis {
    connection: ConnectionManager,
    client: Client,
    prefix: String,
    reading: Arc<RedisHealth>,
    writing: Arc<RedisHealth>,
}

/// Changes posted since a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// Id and key check of the store this Redis belongs to, if one has claimed it.
    pub owner: Option<String>,
    /// The change counter; none: Redis knows nothing (new, flushed), ask the store.
    pub counter: Option<u64>,
    /// Tenants changed since, with their versions.
    pub tenants: Vec<(String, u64)>,
}

impl Redis {
    /// Prepares a connection to `url`; nothing is dialled before the first command.
    ///
    /// # Errors
    /// A `url` that cannot be read.
    pub fn new(url: &str, prefix: &str) -> Result<Redis, RedisError> {
        let settings = TcpSettings::default().set_nodelay(true).set_user_timeout(UNACKNOWLEDGED_MAX);
        let client = Client::open(url.into_connection_info()?.set_tcp_settings(settings))?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(100))
            .set_max_delay(Duration::from_secs(1))
            .set_connection_timeout(Some(ANSWER_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        let (reading, writing) = (RedisHealth::new("reading from"), RedisHealth::new("writing to"));
        let (reading, writing) = (Arc::new(reading), Arc::new(writing));
        Ok(Redis { connection, client, prefix: prefix.to_owned(), reading, writing })
    }

    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }

    fn record(&self, tenant: &str) -> String {
        format!("{}:tenant:{tenant}", self.prefix)
    }

    fn process(&self, id: &str) -> String {
        format!("{}:process:{id}", self.prefix)
    }

    /// Id and key check of the store this Redis belongs to, if one has claimed it.
    pub async fn store(&self) -> Result<Option<String>, RedisError> {
        ask(&self.reading, self.connection.clone().get(self.key("store"))).await
    }

    /// Claims this Redis for a store unless another one has; what is there afterwards.
    pub async fn claim(&self, store: &str) -> Result<String, RedisError> {
        let mut connection = self.connection.clone();
        let claim = async {
            let _: bool = connection.set_nx(self.key("store"), store).await?;
            connection.get(self.key("store")).await
        };
        ask(&self.writing, claim).await
    }

    /// The store that owns this Redis has another secrets key now; what is there afterwards. Changes nothing
    /// where `old` is not what stands there.
    pub async fn claim_anew(&self, old: &str, new: &str) -> Result<String, RedisError> {
        const ONLY_FROM: &str = r"
            if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end
            return redis.call('GET', KEYS[1])";
        let script = Script::new(ONLY_FROM);
        let mut call = script.key(self.key("store"));
        call.arg(old).arg(new);
        ask(&self.writing, call.invoke_async(&mut self.connection.clone())).await
    }

    /// A tenant's version and sealed records. While Redis did not answer the last time nobody waits for it
    /// here: whoever follows the changes finds out when it does again.
    pub async fn read(&self, tenant: &Tenant) -> Result<Option<(u64, Vec<u8>)>, RedisError> {
        if !self.reading.is_well() {
            return Err(failed_just_now());
        }
        let mut connection = self.connection.clone();
        let record = connection.hmget(self.record(tenant.as_str()), &["version", "sealed"]);
        let (version, sealed): (Option<u64>, Option<Vec<u8>>) = ask(&self.reading, record).await?;
        Ok(version.zip(sealed))
    }

    /// Keeps a tenant's sealed records unless a newer version is there. As with [`Redis::read`], nobody waits for
    /// a Redis that has just failed; the heartbeat finds out when it can be written to again.
    pub async fn write(&self, tenant: &Tenant, version: u64, sealed: &[u8]) -> Result<(), RedisError> {
        if !self.reading.is_well() || !self.writing.is_well() {
            return Err(failed_just_now());
        }
        const NEWER_ONLY: &str = r"
            local known = tonumber(redis.call('HGET', KEYS[1], 'version') or '-1')
            if known > tonumber(ARGV[1]) then return 0 end
            redis.call('HSET', KEYS[1], 'version', ARGV[1], 'sealed', ARGV[2])
            redis.call('EXPIRE', KEYS[1], ARGV[3])
            return 1";
        let script = Script::new(NEWER_ONLY);
        let mut call = script.key(self.record(tenant.as_str()));
        call.arg(version).arg(sealed).arg(RECORD_LIFE_S);
        let _: i64 = ask(&self.writing, call.invoke_async(&mut self.connection.clone())).await?;
        Ok(())
    }

    /// Posts that these tenants changed; tells whoever listens.
    pub async fn post(&self, counter: u64, tenants: &[(String, u64)]) -> Result<(), RedisError> {
        const RISE_ONLY: &str = r"
            local known = tonumber(redis.call('GET', KEYS[1]) or '-1')
            if tonumber(ARGV[1]) > known then redis.call('SET', KEYS[1], ARGV[1]) end
            for i = 2, #ARGV, 2 do redis.call('ZADD', KEYS[2], 'GT', ARGV[i + 1], ARGV[i]) end
            if tonumber(ARGV[1]) > known or #ARGV > 1 then redis.call('PUBLISH', KEYS[3], ARGV[1]) end
            return 1";
        let script = Script::new(RISE_ONLY);
        // Lua unpacks a limited number of arguments; a thousand tenants at a time is far below it.
        let mut chunks = tenants.chunks(1000);
        let mut next = Some(chunks.next().unwrap_or_default());
        while let Some(chunk) = next {
            next = chunks.next();
            // The counter rises with the last: whoever has seen it asks for nothing that changed before.
            let counter = if next.is_none() { counter } else { 0 };
            let mut call = script.key(self.key("changes"));
            call.key(self.key("versions")).key(self.key("notices")).arg(counter);
            for (tenant, version) in chunk {
                call.arg(tenant).arg(*version);
            }
            let _: i64 = ask(&self.writing, call.invoke_async(&mut self.connection.clone())).await?;
        }
        Ok(())
    }

    /// Whose Redis this is, the change counter and the tenants changed after `version`.
    pub async fn posted_since(&self, version: u64) -> Result<Posted, RedisError> {
        let mut connection = self.connection.clone();
        // One after the other, never as a transaction: the client cannot cope with one that is refused whole. What
        // is posted in between is then among the tenants and not yet in the counter: asked for again.
        let posted = async {
            let (owner, counter) = connection.mget(&[self.key("store"), self.key("changes")]).await?;
            let after = format!("({version}");
            let tenants = connection.zrangebyscore_withscores(self.key("versions"), after, "+inf").await?;
            Ok(Posted { owner, counter, tenants })
        };
        ask(&self.reading, posted).await
    }

    /// The change counter as posted; none: nothing is known here.
    pub async fn counter(&self) -> Result<Option<u64>, RedisError> {
        ask(&self.reading, self.connection.clone().get(self.key("changes"))).await
    }

    /// The version of a tenant's last change; none: unknown here.
    pub async fn version(&self, tenant: &Tenant) -> Result<Option<u64>, RedisError> {
        ask(&self.reading, self.connection.clone().zscore(self.key("versions"), tenant.as_str())).await
    }

    /// Keeps what a process says of itself for `life`.
    pub async fn tell_process(&self, id: &str, text: &str, life: Duration) -> Result<(), RedisError> {
        let mut connection = self.connection.clone();
        let told = async {
            let _: () = connection.set_ex(self.process(id), text, life.as_secs()).await?;
            connection.sadd(self.key("processes"), id).await
        };
        ask(&self.writing, told).await
    }

    /// Forgets a process that ended.
    pub async fn forget_process(&self, id: &str) -> Result<(), RedisError> {
        let mut connection = self.connection.clone();
        let forgotten = async {
            let _: () = connection.del(self.process(id)).await?;
            connection.srem(self.key("processes"), id).await
        };
        ask(&self.writing, forgotten).await
    }

    /// A sealed token.
    pub async fn token(&self, name: &str) -> Result<Option<Vec<u8>>, RedisError> {
        self.connection.clone().get(self.key(&format!("token:{name}"))).await
    }

    /// Keeps a sealed token for `life_s` seconds.
    pub async fn keep_token(&self, name: &str, sealed: &[u8], life_s: u64) -> Result<(), RedisError> {
        self.connection.clone().set_ex(self.key(&format!("token:{name}")), sealed, life_s).await
    }

    /// What each living process last said; ids of those that are gone are forgotten.
    pub async fn processes(&self) -> Result<Vec<String>, RedisError> {
        let mut connection = self.connection.clone();
        let ids: Vec<String> = connection.smembers(self.key("processes")).await?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<String> = ids.iter().map(|id| self.process(id)).collect();
        let said: Vec<Option<String>> = connection.mget(keys).await?;
        let gone: Vec<&String> =
            ids.iter().zip(&said).filter(|(_, text)| text.is_none()).map(|(id, _)| id).collect();
        if !gone.is_empty() {
            // One that is only late puts itself back with its next beat.
            let _: usize = connection.srem(self.key("processes"), gone).await?;
        }
        Ok(said.into_iter().flatten().collect())
    }

    /// Deletes the tenants' records that do not begin with this mark of a key; they are made anew when asked for.
    pub async fn forget_records_without(&self, mark: &[u8]) -> Result<(), RedisError> {
        let mut connection = self.connection.clone();
        for key in self.keys("tenant:*").await? {
            let sealed: Option<Vec<u8>> = connection.hget(&key, "sealed").await?;
            if !sealed.is_some_and(|sealed| sealed.starts_with(mark)) {
                connection.del::<_, usize>(&key).await?;
            }
        }
        Ok(())
    }

    /// Deletes every key of the prefix, for demos and tests; how many that were.
    pub async fn remove_all(&self) -> Result<usize, RedisError> {
        let keys = self.keys("*").await?;
        for some in keys.chunks(1000) {
            self.connection.clone().del::<_, usize>(some).await?;
        }
        Ok(keys.len())
    }

    /// Our keys whose names end like this.
    async fn keys(&self, pattern: &str) -> Result<Vec<String>, RedisError> {
        let mut connection = self.connection.clone();
        // A checked prefix holds nothing that a pattern would read as more than itself.
        let pattern = self.key(pattern);
        let (mut cursor, mut found) = (0_u64, HashSet::new());
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1000);
            let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await?;
            found.extend(keys);
            if next == 0 {
                return Ok(found.into_iter().collect());
            }
            cursor = next;
        }
    }

    /// Wakes `changed` at every notice, for ever; a lost connection is tried again each second. Only
    /// makes changes known sooner: the counter is read all the same.
    pub async fn listen(&self, changed: &Notify) {
        loop {
            let subscribed = async {
                let mut subscription = self.client.get_async_pubsub().await?;
                subscription.subscribe(self.key("notices")).await?;
                Ok::<_, RedisError>(subscription)
            };
            match timeout(ANSWER_TIMEOUT, subscribed).await {
                Ok(Ok(subscription)) => {
                    let mut notices = subscription.into_on_message();
                    while notices.next().await.is_some() {
                        changed.notify_one();
                    }
                }
                Ok(Err(error)) => debug!("no notices from Redis: {error}"),
                Err(_) => debug!("no notices from Redis: no answer"),
            }
            sleep(Duration::from_secs(1)).await;
        }
    }
}

fn failed_just_now() -> RedisError {
    io::Error::new(io::ErrorKind::NotConnected, "it failed a moment ago").into()
}

/// Waits for an answer no longer than a lookup can, reconnecting included, and takes notice of how Redis is.
async fn ask<T>(
    health: &RedisHealth,
    answer: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, RedisError> {
    let silent = || {
        let what = format!("no answer within {} ms", ANSWER_TIMEOUT.as_millis());
        Err(io::Error::new(io::ErrorKind::TimedOut, what).into())
    };
    let answer = timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| silent());
    health.note(&answer);
    answer
}
