//! Keys of the HTTP API at rest: their hashes, what they may do, and when they end.
//!
//! A key itself is kept nowhere. Deciding whether one is good is not done here.

use anyhow::Context as _;

use super::audit::{self, Note};
use super::pool::Session;
use super::statement::Row;
use super::{Store, count};
use crate::domain::key::{KeyId, Scopes};
use crate::domain::name::Tenant;

/// A key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    pub id: KeyId,
    /// SHA-256 of the whole key.
    pub hash: [u8; 32],
    /// For people.
    pub name: Option<String>,
    /// `None`: an operator's.
    pub tenant: Option<Tenant>,
    pub scopes: Scopes,
    /// Unix milliseconds, like all times here.
    pub created_at_ms: i64,
    pub expires_at_ms: Option<i64>,
    pub revoked_at_ms: Option<i64>,
    /// The last use, to the minute or coarser.
    pub used_at_ms: Option<i64>,
}

impl Store {
    /// Keeps a new key.
    pub async fn add_key(&self, key: &KeyRow, note: Note) -> anyhow::Result<()> {
        let failed = "could not write the key to the store";
        let mut write = self.begin_write().await.context(failed)?;
        write
            .query(
                "INSERT INTO api_keys (id, hash, name, tenant, scopes, created_at_ms, expires_at_ms)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(key.id.as_str())
            .bind(&key.hash[..])
            .bind(&key.name)
            .bind(key.tenant.as_ref().map(Tenant::as_str))
            .bind(key.scopes.to_string())
            .bind(key.created_at_ms)
            .bind(key.expires_at_ms)
            .execute()
            .await
            .context(failed)?;
        write.query(RAISE).execute().await.context(failed)?;
        audit::insert_all(&mut write, &[note]).await.context(failed)?;
        write.commit().await.context(failed)
    }

    /// Ends a key at `now_ms`; whether it was still alive. A key that is not there is no error.
    pub async fn revoke_key(&self, id: &KeyId, now_ms: i64, note: Note) -> anyhow::Result<bool> {
        let failed = "could not revoke the key in the store";
        let mut write = self.begin_write().await.context(failed)?;
        let ended = write
            .query("UPDATE api_keys SET revoked_at_ms = $1 WHERE id = $2 AND revoked_at_ms IS NULL")
            .bind(now_ms)
            .bind(id.as_str())
            .execute()
            .await
            .context(failed)?;
        if ended > 0 {
            write.query(RAISE).execute().await.context(failed)?;
            audit::insert_all(&mut write, &[note]).await.context(failed)?;
        }
        write.commit().await.context(failed)?;
        Ok(ended > 0)
    }

    /// Every key there ever was, in the order of their ids.
    pub async fn api_keys(&self) -> anyhow::Result<Vec<KeyRow>> {
        Ok(self.api_keys_and_counter().await?.0)
    }

    /// The same, with the counter that rises with every change of them.
    pub async fn api_keys_and_counter(&self) -> anyhow::Result<(Vec<KeyRow>, u64)> {
        let rows = async {
            let mut snapshot = self.inner.pool.begin_read().await?;
            let counter: i64 = snapshot.query(COUNTER).fetch_value().await?;
            let rows = snapshot
                .query(
                    "SELECT id, hash, name, tenant, scopes, created_at_ms, expires_at_ms, revoked_at_ms, used_at_ms
                     FROM api_keys ORDER BY id",
                )
                .fetch_all()
                .await?;
            snapshot.commit().await?;
            Ok::<_, sqlx::Error>((rows, counter))
        };
        let (rows, counter) = rows.await.context("could not read the keys from the store")?;
        let keys = rows.iter().map(|row| key_row(row).context("a key in the store cannot be read"));
        Ok((keys.collect::<anyhow::Result<_>>()?, count(counter)))
    }

    /// The counter that rises with every key that is made or revoked.
    pub async fn api_keys_counter(&self) -> anyhow::Result<u64> {
        let counter = async {
            let mut connection = self.inner.pool.acquire().await?;
            connection.query(COUNTER).fetch_value::<i64>().await
        };
        counter.await.map(count).context("could not read the keys from the store")
    }

    /// Notes when keys were last used.
    pub async fn note_key_use(&self, used: &[(KeyId, i64)]) -> anyhow::Result<()> {
        let failed = "could not note the use of keys in the store";
        let mut write = self.begin_write().await.context(failed)?;
        for (id, at_ms) in used {
            write
                .query(
                    "UPDATE api_keys SET used_at_ms = $1 WHERE id = $2 AND (used_at_ms IS NULL OR used_at_ms < $1)",
                )
                .bind(*at_ms)
                .bind(id.as_str())
                .execute()
                .await
                .context(failed)?;
        }
        write.commit().await.context(failed)
    }
}

const COUNTER: &str = "SELECT value FROM counters WHERE name = 'keys'";
const RAISE: &str = "UPDATE counters SET value = value + 1 WHERE name = 'keys'";

fn key_row(row: &Row) -> anyhow::Result<KeyRow> {
    let tenant: Option<String> = row.get("tenant")?;
    let hash: Vec<u8> = row.get("hash")?;
    Ok(KeyRow {
        id: KeyId::parse(&row.get::<String>("id")?)?,
        hash: hash.try_into().ok().context("its hash has another length")?,
        name: row.get("name")?,
        tenant: tenant.as_deref().map(Tenant::parse).transpose()?,
        scopes: Scopes::parse(&row.get::<String>("scopes")?)?,
        created_at_ms: row.get("created_at_ms")?,
        expires_at_ms: row.get("expires_at_ms")?,
        revoked_at_ms: row.get("revoked_at_ms")?,
        used_at_ms: row.get("used_at_ms")?,
    })
}
