//! Dead letters that died of the same, counted together.

use anyhow::Context as _;

use super::{DeadFilter, Kind, filter, small};
use crate::store::pool::Session as _;
use crate::store::statement::Row;
use crate::store::{Store, count};

/// Letters of one host, class and status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadGroup {
    pub kind: Kind,
    pub host: Option<String>,
    pub class: Option<String>,
    pub status: Option<u16>,
    pub letters: u64,
    /// How many of them had been replayed before.
    pub again: u64,
    /// How many tenants they belong to.
    pub tenants: u64,
    /// When the first and the last of them died, in Unix milliseconds.
    pub first_ms: i64,
    pub last_ms: i64,
    /// The newest of them.
    pub example: i64,
}

impl Store {
    /// Groups of the letters that the filter leaves, largest first, at most `filter.limit`.
    pub async fn dead_groups(&self, filter: &DeadFilter) -> anyhow::Result<Vec<DeadGroup>> {
        let rows = async {
            let mut connection = self.inner.pool.acquire().await?;
            let query = connection.query(
                "SELECT kind, host, class, status, count(*) AS letters,
                     CAST(sum(CASE WHEN replays > 0 THEN 1 ELSE 0 END) AS bigint) AS again,
                     count(DISTINCT tenant) AS tenants, min(dead_at_ms) AS first_ms, max(dead_at_ms) AS last_ms,
                     max(id) AS example
                 FROM dead_letters WHERE 1 = 1",
            );
            let mut query = filter::chosen(query, filter);
            query.push(" GROUP BY kind, host, class, status ORDER BY letters DESC, example DESC");
            query.push_bind(" LIMIT ", i64::from(filter.limit));
            query.fetch_all().await
        };
        let rows = rows.await.context("could not group dead letters in the store")?;
        rows.iter().map(|row| read(row).context("a group of dead letters cannot be read")).collect()
    }
}

fn read(row: &Row) -> anyhow::Result<DeadGroup> {
    Ok(DeadGroup {
        kind: Kind::parse(&row.get::<String>("kind")?).context("unknown kind")?,
        host: row.get("host")?,
        class: row.get("class")?,
        status: row.get::<Option<i64>>("status")?.and_then(|status| u16::try_from(status).ok()),
        letters: count(row.get("letters")?),
        again: small(row, "again")?.into(),
        tenants: count(row.get("tenants")?),
        first_ms: row.get("first_ms")?,
        last_ms: row.get("last_ms")?,
        example: row.get("example")?,
    })
}
