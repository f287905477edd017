//! What is to be published of batches: written with what it tells of, marked once it is confirmed.

use anyhow::Context as _;

use super::super::pool::Session;
use super::super::{Store, Write};
use crate::domain::batch::{TYPE_COMPLETED, TYPE_LATE};

/// Something to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    pub number: i64,
    /// The event's or notice's own id, the same however often it is published.
    pub event_id: String,
    /// [`TYPE_COMPLETED`] or [`TYPE_LATE`].
    pub kind: String,
    pub body: Vec<u8>,
}

impl Store {
    /// The oldest rows that were not published yet.
    pub async fn outbox_waiting(&self, limit: u32) -> anyhow::Result<Vec<OutboxRow>> {
        let rows = async {
            let mut connection = self.inner.pool.acquire().await?;
            connection
                .query(
                    "SELECT number, event_id, kind, body FROM batch_outbox WHERE sent_ms IS NULL
                     ORDER BY number LIMIT $1",
                )
                .bind(i64::from(limit))
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
        rows.await.context("could not read what is to be published of batches from the store")
    }

    /// Marks rows as published.
    pub async fn outbox_sent(&self, numbers: &[i64], now_ms: i64) -> anyhow::Result<()> {
        let failed = "could not note in the store what was published of batches";
        let mut write = self.begin_write().await.context(failed)?;
        for number in numbers {
            let query = write.query("UPDATE batch_outbox SET sent_ms = $1 WHERE number = $2");
            query.bind(now_ms).bind(*number).execute().await.context(failed)?;
        }
        write.commit().await.context(failed)
    }
}

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
