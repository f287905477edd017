//! Redis as a cache of subscriptions and the board where changes are posted.
//!
//! Keys, all under `broker.prefix`: `:store` (id and key check of the one store), `:changes` (the change
//! counter), `:versions` (tenant → version of its last change), `:tenant:T` (version and sealed records),
//! `:process:ID` (what a process says of itself), `:processes` (their ids) and `:token:NAME` (a sealed login's token).
//! Whatever is missing here means "ask the store"; versions only rise.

use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands, Client, RedisError, Script};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::domain::name::Tenant;

/// A lookup must not wait for a Redis that hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Records nobody asks for do not stay for ever.
const RECORD_LIFE_S: u64 = 86_400;

/// A connection that comes back by itself, and the names of our keys.
#[derive(Clone)]
pub struct Redis {
    connection: ConnectionManager,
    client: Client,
    prefix: String,
}

/// Changes posted since a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
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
        let client = Client::open(url)?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(100))
            .set_max_delay(Duration::from_secs(1))
            .set_connection_timeout(Some(ANSWER_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        Ok(Redis { connection, client, prefix: prefix.to_owned() })
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

    /// The id and key check of the store this Redis belongs to, if one has claimed it.
    pub async fn store(&self) -> Result<Option<String>, RedisError> {
        self.connection.clone().get(self.key("store")).await
    }

    /// Claims this Redis for a store unless another one has; what is there afterwards.
    pub async fn claim(&self, store: &str) -> Result<String, RedisError> {
        let mut connection = self.connection.clone();
        let _: bool = connection.set_nx(self.key("store"), store).await?;
        connection.get(self.key("store")).await
    }

    /// A tenant's version and sealed records.
    pub async fn read(&self, tenant: &Tenant) -> Result<Option<(u64, Vec<u8>)>, RedisError> {
        let (version, sealed): (Option<u64>, Option<Vec<u8>>) =
            self.connection.clone().hmget(self.record(tenant.as_str()), &["version", "sealed"]).await?;
        Ok(version.zip(sealed))
    }

    /// Keeps a tenant's sealed records unless a newer version is there.
    pub async fn write(&self, tenant: &Tenant, version: u64, sealed: &[u8]) -> Result<(), RedisError> {
        const NEWER_ONLY: &str = r"
            local known = tonumber(redis.call('HGET', KEYS[1], 'version') or '-1')
            if known > tonumber(ARGV[1]) then return 0 end
            redis.call('HSET', KEYS[1], 'version', ARGV[1], 'sealed', ARGV[2])
            redis.call('EXPIRE', KEYS[1], ARGV[3])
            return 1";
        let script = Script::new(NEWER_ONLY);
        let mut call = script.key(self.record(tenant.as_str()));
        call.arg(version).arg(sealed).arg(RECORD_LIFE_S);
        let _: i64 = call.invoke_async(&mut self.connection.clone()).await?;
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
        let first = chunks.next().unwrap_or_default();
        for chunk in std::iter::once(first).chain(chunks) {
            let mut call = script.key(self.key("changes"));
            call.key(self.key("versions")).key(self.key("notices")).arg(counter);
            for (tenant, version) in chunk {
                call.arg(tenant).arg(*version);
            }
            let _: i64 = call.invoke_async(&mut self.connection.clone()).await?;
        }
        Ok(())
    }

    /// The change counter and the tenants changed after `version`.
    pub async fn posted_since(&self, version: u64) -> Result<Posted, RedisError> {
        let (counter, tenants): (Option<u64>, Vec<(String, u64)>) = redis::pipe()
            .atomic()
            .get(self.key("changes"))
            .cmd("ZRANGEBYSCORE")
            .arg(self.key("versions"))
            .arg(format!("({version}"))
            .arg("+inf")
            .arg("WITHSCORES")
            .query_async(&mut self.connection.clone())
            .await?;
        Ok(Posted { counter, tenants })
    }

    /// The change counter as posted; none: nothing is known here.
    pub async fn counter(&self) -> Result<Option<u64>, RedisError> {
        self.connection.clone().get(self.key("changes")).await
    }

    /// The version of a tenant's last change; none: unknown here.
    pub async fn version(&self, tenant: &Tenant) -> Result<Option<u64>, RedisError> {
        self.connection.clone().zscore(self.key("versions"), tenant.as_str()).await
    }

    /// Keeps what a process says of itself for `life`.
    pub async fn tell_process(&self, id: &str, text: &str, life: Duration) -> Result<(), RedisError> {
        redis::pipe()
            .atomic()
            .set_ex(self.process(id), text, life.as_secs())
            .ignore()
            .sadd(self.key("processes"), id)
            .ignore()
            .query_async(&mut self.connection.clone())
            .await
    }

    /// Forgets a process that ended.
    pub async fn forget_process(&self, id: &str) -> Result<(), RedisError> {
        redis::pipe()
            .atomic()
            .del(self.process(id))
            .ignore()
            .srem(self.key("processes"), id)
            .ignore()
            .query_async(&mut self.connection.clone())
            .await
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

    /// Deletes every key of the prefix, for demos and tests; how many that were.
    pub async fn remove_all(&self) -> Result<usize, RedisError> {
        let mut connection = self.connection.clone();
        // A checked prefix holds nothing that a pattern would read as more than itself.
        let pattern = self.key("*");
        let (mut cursor, mut removed) = (0_u64, 0);
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1000);
            let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await?;
            if !keys.is_empty() {
                removed += connection.del::<_, usize>(&keys).await?;
            }
            if next == 0 {
                return Ok(removed);
            }
            cursor = next;
        }
    }

    /// Wakes `changed` at every notice, for ever; a lost connection is tried again each second. Only
    /// makes changes known sooner: the counter is read all the same.
    pub async fn listen(&self, changed: &Notify) {
        loop {
            match timeout(ANSWER_TIMEOUT, self.client.get_async_pubsub()).await {
                Ok(Ok(mut subscription)) => {
                    if subscription.subscribe(self.key("notices")).await.is_ok() {
                        let mut notices = subscription.on_message();
                        while notices.next().await.is_some() {
                            changed.notify_one();
                        }
                    }
                }
                Ok(Err(error)) => debug!("no notices from Redis: {error}"),
                Err(_) => debug!("no notices from Redis: no answer"),
            }
            sleep(Duration::from_secs(1)).await;
        }
    }
}
