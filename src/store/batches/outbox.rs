//! What is to be published of batches: written with what it tells of, marked once it is confirmed.

use anyhow::Context as _;

use super::super::pool::Session;
use super::super::{Store, Write, count};
use crate::domain::batch::{TYPE_COMPLETED, TYPE_LATE};

/// Something to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    pub number: i64,
    /// The event's or notice's own id, the same however often it is published.
    pub event_id: String,
    /// [`TYPE_COMPLETED`] or [`TYPE_LATE`].
    pub kind: String,
    /// Empty once it was published.
    pub body: Vec<u8>,
}

impl Store {
    /// Whether something was not published yet.
    pub async fn is_outbox_waiting(&self) -> anyhow::Result<bool> {
        let row = async {
            let mut connection = self.inner.pool.acquire().await?;
            connection
                .query("SELECT 1 FROM batch_outbox WHERE sent_ms IS NULL LIMIT 1")
                .fetch_optional()
                .await
        };
        Ok(row.await.context(UNREAD)?.is_some())
    }

    /// The oldest rows behind `after` that were not published yet: at most `limit`, of together at most `bytes_max`
    /// bytes, but always one.
    pub async fn outbox_waiting(
        &self,
        after: i64,
        limit: u32,
        bytes_max: usize,
    ) -> anyhow::Result<Vec<OutboxRow>> {
        let rows = async {
            let mut connection = self.inner.pool.acquire().await?;
            let sizes = connection
                .query(
                    "SELECT number, CAST(length(body) AS BIGINT) AS bytes FROM batch_outbox
                     WHERE sent_ms IS NULL AND number > $1 ORDER BY number LIMIT $2",
                )
                .bind(after)
                .bind(i64::from(limit))
                .fetch_all()
                .await?;
            let (mut last, mut bytes) = (None, 0);
            for row in &sizes {
                bytes += count(row.get("bytes")?);
                if last.is_some() && bytes > bytes_max as u64 {
                    break;
                }
                last = Some(row.get::<i64>("number")?);
            }
            let Some(last) = last else { return Ok(Vec::new()) };
            connection
                .query(
                    "SELECT number, event_id, kind, body FROM batch_outbox
                     WHERE sent_ms IS NULL AND number > $1 AND number <= $2 ORDER BY number",
                )
                .bind(after)
                .bind(last)
                .fetch_all()
                .await?
                .iter()
                .map(|row| {
                    Ok(OutboxRow {
                        number: row.get("number")?,
                        event_id: row.get("event_id")?,
                        kind: row.get("kind")?,
                        body: row.get("body")?,
                    })
                })
                .collect::<Result<_, sqlx::Error>>()
        };
        rows.await.context(UNREAD)
    }

    /// Marks rows as published; their bodies are needed no more.
    pub async fn outbox_sent(&self, numbers: &[i64], now_ms: i64) -> anyhow::Result<()> {
        if numbers.is_empty() {
            return Ok(());
        }
        let failed = "could not note in the store what was published of batches";
        let mut write = self.begin_write().await.context(failed)?;
        for number in numbers {
            let query = write.query("UPDATE batch_outbox SET sent_ms = $1, body = $2 WHERE number = $3");
            let query = query.bind(now_ms).bind(Vec::<u8>::new()).bind(*number);
            query.execute().await.context(failed)?;
        }
        write.commit().await.context(failed)
    }
}

const UNREAD: &str = "could not read what is to be published of batches from the store";

pub(super) async fn insert_completed(
    write: &mut Write<'_>,
    batch: i64,
    id: &str,
    body: &[u8],
) -> Result<(), sqlx::Error> {
    insert(write, batch, id, TYPE_COMPLETED, body).await
}

pub(super) async fn insert_late(
    write: &mut Write<'_>,
    batch: i64,
    id: &str,
    body: &[u8],
) -> Result<(), sqlx::Error> {
    insert(write, batch, id, TYPE_LATE, body).await
}

async fn insert(
    write: &mut Write<'_>,
    batch: i64,
    id: &str,
    kind: &str,
    body: &[u8],
) -> Result<(), sqlx::Error> {
    write
        .query(
            "INSERT INTO batch_outbox (batch, event_id, kind, body) VALUES ($1, $2, $3, $4)
             ON CONFLICT (event_id) DO NOTHING",
        )
        .bind(batch)
        .bind(id)
        .bind(kind)
        .bind(body)
        .execute()
        .await
        .map(drop)
}
