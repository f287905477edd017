//! Notices on their way out: written in the transaction of what they tell of, gone once they were published.

use anyhow::Context as _;

use super::pool::Session as _;
use super::{Store, Write};
use crate::domain::notice::Notice;

/// What publishing notices needs of a store.
pub trait Outbox: Send + Sync + 'static {
    /// Takes the oldest notices that nobody else has taken lately, until `until_ms`.
    fn take_notices(
        &self,
        limit: u32,
        now_ms: i64,
        until_ms: i64,
    ) -> impl Future<Output = anyhow::Result<Vec<Notice>>> + Send;

    /// Forgets notices that are where they belong.
    fn forget_notices(&self, ids: &[String]) -> impl Future<Output = anyhow::Result<()>> + Send;
}

const FAILED: &str = "could not work on notices in the store";

impl Store {
    /// Writes a notice that has no transaction of its own here.
    pub async fn add_notice(&self, notice: &Notice) -> anyhow::Result<()> {
        let mut write = self.begin_write().await.context(FAILED)?;
        insert(&mut write, notice).await.context(FAILED)?;
        write.commit().await.context(FAILED)
    }

    async fn lease_notices(
        &self,
        limit: u32,
        now_ms: i64,
        until_ms: i64,
    ) -> Result<Vec<Notice>, sqlx::Error> {
        let mut write = self.begin_write().await?;
        let rows = write
            .query(
                "UPDATE notices SET lease_until_ms = $1
                 WHERE lease_until_ms < $2 AND id IN
                     (SELECT id FROM notices WHERE lease_until_ms < $3 ORDER BY at_ms, id LIMIT $4)
                 RETURNING id, kind, at_ms, body",
            )
            .bind(until_ms)
            .bind(now_ms)
            .bind(now_ms)
            .bind(i64::from(limit))
            .fetch_all()
            .await?;
        write.commit().await?;
        let mut notices = Vec::with_capacity(rows.len());
        for row in rows {
            let (id, kind) = (row.get("id")?, row.get("kind")?);
            notices.push(Notice { id, kind, at_ms: row.get("at_ms")?, body: row.get("body")? });
        }
        // Rows come back in any order.
        notices.sort_by(|one, other| (one.at_ms, &one.id).cmp(&(other.at_ms, &other.id)));
        Ok(notices)
    }
}

impl Outbox for Store {
    async fn take_notices(&self, limit: u32, now_ms: i64, until_ms: i64) -> anyhow::Result<Vec<Notice>> {
        // Nearly always there is none, and looking disturbs no writer.
        let is_any = async {
            let mut connection = self.inner.pool.acquire().await?;
            let query = connection.query("SELECT id FROM notices WHERE lease_until_ms < $1 LIMIT 1");
            query.bind(now_ms).fetch_optional_value::<String>().await
        };
        if is_any.await.context(FAILED)?.is_none() {
            return Ok(Vec::new());
        }
        self.lease_notices(limit, now_ms, until_ms).await.context(FAILED)
    }

    async fn forget_notices(&self, ids: &[String]) -> anyhow::Result<()> {
        let mut write = self.begin_write().await.context(FAILED)?;
        for id in ids {
            let query = write.query("DELETE FROM notices WHERE id = $1").bind(id);
            query.execute().await.context(FAILED)?;
        }
        write.commit().await.context(FAILED)
    }
}

/// Writes a notice within the transaction of what it tells of.
pub(super) async fn insert(write: &mut Write<'_>, notice: &Notice) -> Result<(), sqlx::Error> {
    let query = write.query("INSERT INTO notices (id, kind, at_ms, body) VALUES ($1, $2, $3, $4)");
    query.bind(&notice.id).bind(&notice.kind).bind(notice.at_ms).bind(&notice.body).execute().await.map(drop)
}
