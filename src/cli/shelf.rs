//! Tokens of logins, shared between processes through Redis, sealed as the store seals.

use std::future::Future;
use std::pin::Pin;

use serde_json::{Value, json};
use tracing::debug;

use crate::cache::redis::Redis;
use crate::domain::secret::Secret;
use crate::http::tokens::{SharedToken, Shelf};
use crate::store::Store;

/// The record's kind, sealed along with its name.
const PURPOSE: &str = "token";

pub(super) struct RedisShelf {
    redis: Redis,
    store: Store,
}

impl RedisShelf {
    pub(super) fn new(redis: Redis, store: Store) -> RedisShelf {
        RedisShelf { redis, store }
    }

    async fn find(&self, login: &[u8; 32]) -> Option<SharedToken> {
        let name = self.store.name_of(PURPOSE, login);
        let read = self.redis.token(&name).await;
        let sealed = read.inspect_err(|error| debug!("no token from Redis: {error}")).ok()??;
        let opened = self.store.open_sealed(name.as_bytes(), &sealed);
        let plain = opened.inspect_err(|fault| debug!("a token in Redis is of no use: {fault}")).ok()?;
        let record: Value = serde_json::from_slice(&plain).ok()?;
        let until_unix_s = record["until_unix_s"].as_u64()?;
        Some(SharedToken { value: Secret::new(record["value"].as_str()?), until_unix_s })
    }

    async fn keep(&self, login: &[u8; 32], token: SharedToken) {
        let now_unix_s = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
        let life_s = token.until_unix_s.saturating_sub(now_unix_s);
        if life_s == 0 {
            return;
        }
        let name = self.store.name_of(PURPOSE, login);
        let record = json!({ "value": token.value.expose(), "until_unix_s": token.until_unix_s }).to_string();
        let shared = match self.store.seal(name.as_bytes(), record.as_bytes()) {
            Ok(sealed) => self.redis.keep_token(&name, &sealed, life_s).await.map_err(anyhow::Error::from),
            Err(error) => Err(error),
        };
        if let Err(error) = shared {
            debug!("a token was not shared through Redis: {error:#}");
        }
    }
}

impl Shelf for RedisShelf {
    fn get<'a>(
        &'a self,
        key: &'a [u8; 32],
    ) -> Pin<Box<dyn Future<Output = Option<SharedToken>> + Send + 'a>> {
        Box::pin(self.find(key))
    }

    fn put<'a>(
        &'a self,
        key: &'a [u8; 32],
        token: SharedToken,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.keep(key, token))
    }
}
