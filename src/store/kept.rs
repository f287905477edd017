//! Answers kept for a day, so that a creation which is sent twice is made once.
//!
//! An answer is written in the transaction of its creation: of two that race, the second finds the first's.

use anyhow::Context as _;
use zeroize::Zeroizing;

use super::pool::Session;
use super::{Store, Write, column, count};

/// How long an answer is kept, in milliseconds.
pub const KEPT_MS: i64 = 86_400_000;
/// Old answers dropped with each new one, so that their number stays bounded.
const DROPPED_AT_ONCE: i64 = 16;

/// What is to be kept of a creation.
#[derive(Clone)]
pub struct KeptAnswer {
    pub actor: String,
    /// The caller's name for the request, at most 255 bytes.
    pub key: String,
    /// SHA-256 of the whole request.
    pub request: [u8; 32],
    /// The answer's body.
    pub answer: Zeroizing<Vec<u8>>,
    pub at_ms: i64,
}

/// An answer that was given before.
pub struct Given {
    pub request: [u8; 32],
    pub answer: Zeroizing<Vec<u8>>,
    /// The change counter of the creation.
    pub version: u64,
}

impl Store {
    /// The answer that was given to this actor under this key within the last day.
    pub async fn kept_answer(&self, actor: &str, key: &str, now_ms: i64) -> anyhow::Result<Option<Given>> {
        let failed = "could not read a kept answer from the store";
        let row = async {
            let mut connection = self.inner.pool.acquire().await?;
            connection
                .query(
                    "SELECT request, answer, version FROM kept_answers WHERE actor = $1 AND key = $2 AND at_ms > $3",
                )
                .bind(actor)
                .bind(key)
                .bind(now_ms - KEPT_MS)
                .fetch_optional()
                .await
        };
        let Some(row) = row.await.context(failed)? else { return Ok(None) };
        let (request, sealed): (Vec<u8>, Vec<u8>) =
            (row.get("request").context(failed)?, row.get("answer").context(failed)?);
        let answer = self.open_sealed(&record_name(actor, key), &sealed).context(failed)?;
        Ok(Some(Given {
            request: request.try_into().unwrap_or_default(),
            answer: Zeroizing::new(answer),
            version: count(row.get("version").context(failed)?),
        }))
    }

    pub(super) fn seal_answer(&self, kept: &KeptAnswer) -> anyhow::Result<Vec<u8>> {
        self.seal(&record_name(&kept.actor, &kept.key), &kept.answer)
    }
}

/// Whether the answer was kept; `false` if there is one of this actor and key already.
pub(super) async fn insert(
    write: &mut Write<'_>,
    kept: &KeptAnswer,
    sealed: &[u8],
    version: u64,
) -> Result<bool, sqlx::Error> {
    let old_ms = kept.at_ms - KEPT_MS;
    write
        .query("DELETE FROM kept_answers WHERE actor = $1 AND key = $2 AND at_ms <= $3")
        .bind(&kept.actor)
        .bind(&kept.key)
        .bind(old_ms)
        .execute()
        .await?;
    write
        .query(
            "DELETE FROM kept_answers WHERE (actor, key) IN
             (SELECT actor, key FROM kept_answers WHERE at_ms <= $1 ORDER BY at_ms LIMIT $2)",
        )
        .bind(old_ms)
        .bind(DROPPED_AT_ONCE)
        .execute()
        .await?;
    let inserted = write
        .query(
            "INSERT INTO kept_answers (actor, key, request, answer, version, at_ms) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (actor, key) DO NOTHING",
        )
        .bind(&kept.actor)
        .bind(&kept.key)
        .bind(&kept.request[..])
        .bind(sealed)
        .bind(column(version))
        .bind(kept.at_ms)
        .execute()
        .await?;
    Ok(inserted > 0)
}

/// What an answer is sealed for. Neither part holds a NUL.
pub(super) fn record_name(actor: &str, key: &str) -> Vec<u8> {
    format!("answer\0{actor}\0{key}").into_bytes()
}
