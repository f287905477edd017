//! Tokens of logins, shared between processes through Redis, sealed with the key of the store.

use std::future::Future;
use std::pin::Pin;

use serde_json::{Value, json};
use tracing::debug;

use crate::cache::redis::Redis;
use crate::domain::seal::SealKey;
use crate::domain::secret::Secret;
use crate::http::tokens::{SharedToken, Shelf};

/// The record's kind, sealed along with its name.
const PURPOSE: &str = "token";

pub(super) struct RedisShelf {
    redis: Redis,
    key: SealKey,
}

impl RedisShelf {
    pub(super) fn new(redis: Redis, key: SealKey) -> RedisShelf {
        RedisShelf { redis, key }
    }

    async fn find(&self, login: &[u8; 32]) -> Option<SharedToken> {
        let name = self.key.name_of(PURPOSE, login);
        let read = self.redis.token(&name).await;
        let sealed = read.inspect_err(|error| debug!("no token from Redis: {error}")).ok()??;
        let opened = self.key.open(name.as_bytes(), &sealed);
        let plain = opened.inspect_err(|fault| debug!("a token in Redis is of no use: {fault}")).ok()?;
        let record: Value = serde_json::from_slice(&plain).ok()?;
        let until_unix_s = record["until_unix_s"].as_u64()?;
        Some(SharedToken { value: Secret::new(record["value"].as_str()?), until_unix_s })
    }

    async fn keep(&self, login: &[u8; 32], token: SharedToken) {
        let now_unix_s = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
        let life_s = token.until_unix_s.saturating_sub(now_unix_s);
        let mut nonce = [0; 24];
        if life_s == 0 || getrandom::fill(&mut nonce).is_err() {
            return;
        }
        let name = self.key.name_of(PURPOSE, login);
        let record = json!({ "value": token.value.expose(), "until_unix_s": token.until_unix_s }).to_string();
        let sealed = self.key.seal(nonce, name.as_bytes(), record.as_bytes());
        if let Err(error) = self.redis.keep_token(&name, &sealed, life_s).await {
            debug!("a token was not shared through Redis: {error}");
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
