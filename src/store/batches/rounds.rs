//! Rounds: how whoever sweeps asks every worker whether it is through with what it had in hand. Who judges the answers
//! is [`crate::domain::batch::round`].

use anyhow::Context as _;

use super::super::Store;
use super::super::pool::Session;
use crate::domain::batch::round::{Standing, WorkerRow};

/// How far a round is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Workers say that they have heard of it.
    Calling,
    /// The queue was seen empty; workers say when they are through with what they had in hand by then.
    Watching,
}

/// What a worker needs of a store to answer rounds.
pub trait RoundStore: Send + Sync + 'static {
    /// See [`Store::round`].
    fn round(&self) -> impl Future<Output = anyhow::Result<Option<(i64, Phase)>>> + Send;

    /// See [`Store::worker_answers`].
    fn worker_answers(
        &self,
        process: &str,
        standing: Standing,
        consumers: u32,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// See [`Store::worker_holds`].
    fn worker_holds(&self, process: &str, until_ms: i64) -> impl Future<Output = anyhow::Result<()>> + Send;
}

impl RoundStore for Store {
    async fn round(&self) -> anyhow::Result<Option<(i64, Phase)>> {
        Store::round(self).await
    }

    async fn worker_answers(&self, process: &str, standing: Standing, consumers: u32) -> anyhow::Result<()> {
        Store::worker_answers(self, process, standing, consumers).await
    }

    async fn worker_holds(&self, process: &str, until_ms: i64) -> anyhow::Result<()> {
        Store::worker_holds(self, process, until_ms).await
    }
}

const FAILED: &str = "could not ask in the store whether workers are through";

impl Store {
    /// Takes or keeps the right to sweep until `until_ms`; false where somebody else has it.
    pub async fn lease_sweep(&self, owner: &str, now_ms: i64, until_ms: i64) -> anyhow::Result<bool> {
        let mut write = self.begin_write().await.context(FAILED)?;
        let taken = write
            .query(
                "UPDATE batch_sweep SET owner = $1, until_ms = $2
                 WHERE one = 1 AND (owner = $3 OR owner IS NULL OR until_ms < $4)",
            )
            .bind(owner)
            .bind(until_ms)
            .bind(owner)
            .bind(now_ms)
            .execute()
            .await
            .context(FAILED)?;
        write.commit().await.context(FAILED)?;
        Ok(taken > 0)
    }

    /// Until when somebody has the right to sweep.
    #[cfg(test)]
    pub(crate) async fn sweep_until(&self) -> i64 {
        let mut connection = self.inner.pool.acquire().await.unwrap();
        let query = connection.query("SELECT until_ms FROM batch_sweep WHERE one = 1");
        query.fetch_value().await.unwrap()
    }

    /// Gives the right to sweep back, and ends the round with it.
    pub async fn release_sweep(&self, owner: &str) -> anyhow::Result<()> {
        let mut write = self.begin_write().await.context(FAILED)?;
        let query =
            write.query("UPDATE batch_sweep SET owner = NULL, until_ms = 0, phase = 0 WHERE owner = $1");
        query.bind(owner).execute().await.context(FAILED)?;
        write.commit().await.context(FAILED)
    }

    /// Begins a round and calls the workers; its number, or none where `owner` may not sweep any more.
    pub async fn begin_round(&self, owner: &str) -> anyhow::Result<Option<i64>> {
        let mut write = self.begin_write().await.context(FAILED)?;
        let round = write
            .query("UPDATE batch_sweep SET round = round + 1, phase = 1 WHERE one = 1 AND owner = $1 RETURNING round")
            .bind(owner)
            .fetch_optional_value()
            .await
            .context(FAILED)?;
        write.commit().await.context(FAILED)?;
        Ok(round)
    }

    /// Has the workers watch; false where the round is not `owner`'s any more.
    pub async fn watch_round(&self, owner: &str, round: i64) -> anyhow::Result<bool> {
        self.set_phase(owner, round, 2).await
    }

    /// Ends a round.
    pub async fn end_round(&self, owner: &str, round: i64) -> anyhow::Result<()> {
        self.set_phase(owner, round, 0).await.map(drop)
    }

    async fn set_phase(&self, owner: &str, round: i64, phase: i64) -> anyhow::Result<bool> {
        let mut write = self.begin_write().await.context(FAILED)?;
        let query =
            write.query("UPDATE batch_sweep SET phase = $1 WHERE one = 1 AND owner = $2 AND round = $3");
        let changed = query.bind(phase).bind(owner).bind(round).execute().await.context(FAILED)?;
        write.commit().await.context(FAILED)?;
        Ok(changed > 0)
    }

    /// The round that is under way, if there is one.
    pub async fn round(&self) -> anyhow::Result<Option<(i64, Phase)>> {
        let row = async {
            let mut connection = self.inner.pool.acquire().await?;
            let query = connection.query("SELECT round, phase FROM batch_sweep WHERE one = 1 AND phase > 0");
            let Some(row) = query.fetch_optional().await? else { return Ok(None) };
            let phase = if row.get::<i64>("phase")? == 1 { Phase::Calling } else { Phase::Watching };
            Ok::<_, sqlx::Error>(Some((row.get("round")?, phase)))
        };
        row.await.context(FAILED)
    }

    /// Says that a process takes events from now on; before it takes the first.
    pub async fn worker_begins(&self, process: &str) -> anyhow::Result<()> {
        let mut write = self.begin_write().await.context(FAILED)?;
        insert_worker(&mut write, process).await.context(FAILED)?;
        write.commit().await.context(FAILED)
    }

    /// A worker's answers to rounds. One that was given up meanwhile begins anew, with no answer given.
    pub async fn worker_answers(
        &self,
        process: &str,
        standing: Standing,
        consumers: u32,
    ) -> anyhow::Result<()> {
        let mut write = self.begin_write().await.context(FAILED)?;
        let known = write
            .query(
                "UPDATE batch_workers SET heard = $1, through = $2, spoiled = $3, consumers = $4, beat = beat + 1
                 WHERE process = $5",
            )
            .bind(standing.heard)
            .bind(standing.through)
            .bind(standing.spoiled)
            .bind(i64::from(consumers))
            .bind(process)
            .execute()
            .await
            .context(FAILED)?;
        if known == 0 {
            insert_worker(&mut write, process).await.context(FAILED)?;
        }
        write.commit().await.context(FAILED)
    }

    /// Says that a process has taken its last event and settled it, or that it is gone.
    pub async fn worker_ends(&self, process: &str) -> anyhow::Result<()> {
        let mut write = self.begin_write().await.context(FAILED)?;
        let query = write.query("DELETE FROM batch_workers WHERE process = $1");
        query.bind(process).execute().await.context(FAILED)?;
        write.commit().await.context(FAILED)
    }

    /// Says that something which a process put off unrecorded may come back until then, whether or not the process is
    /// there by that time.
    pub async fn worker_holds(&self, process: &str, until_ms: i64) -> anyhow::Result<()> {
        let mut write = self.begin_write().await.context(FAILED)?;
        write
            .query(
                "INSERT INTO batch_holds (process, until_ms) VALUES ($1, $2)
                 ON CONFLICT (process) DO UPDATE SET until_ms = excluded.until_ms",
            )
            .bind(process)
            .bind(until_ms)
            .execute()
            .await
            .context(FAILED)?;
        write.commit().await.context(FAILED)
    }

    /// Whether something that was put off unrecorded may still come back.
    pub async fn is_held(&self, now_ms: i64) -> anyhow::Result<bool> {
        let row = async {
            let mut connection = self.inner.pool.acquire().await?;
            let query = connection.query("SELECT 1 FROM batch_holds WHERE until_ms > $1 LIMIT 1");
            query.bind(now_ms).fetch_optional().await
        };
        Ok(row.await.context(FAILED)?.is_some())
    }

    /// Forgets what is held no more.
    pub async fn forget_holds(&self, now_ms: i64) -> anyhow::Result<()> {
        let mut write = self.begin_write().await.context(FAILED)?;
        let query = write.query("DELETE FROM batch_holds WHERE until_ms <= $1");
        query.bind(now_ms).execute().await.context(FAILED)?;
        write.commit().await.context(FAILED)
    }

    /// Every process that takes events.
    pub async fn workers(&self) -> anyhow::Result<Vec<WorkerRow>> {
        let rows = async {
            let mut connection = self.inner.pool.acquire().await?;
            let query = connection.query(
                "SELECT process, heard, through, spoiled, consumers, beat FROM batch_workers ORDER BY process",
            );
            let rows = query.fetch_all().await?;
            let workers = rows.iter().map(|row| {
                Ok(WorkerRow {
                    process: row.get("process")?,
                    standing: Standing {
                        heard: row.get("heard")?,
                        through: row.get("through")?,
                        spoiled: row.get("spoiled")?,
                    },
                    consumers: u32::try_from(row.get::<i64>("consumers")?).unwrap_or(0),
                    beat: row.get("beat")?,
                })
            });
            workers.collect::<Result<_, sqlx::Error>>()
        };
        rows.await.context(FAILED)
    }
}

async fn insert_worker(write: &mut super::super::Write<'_>, process: &str) -> Result<(), sqlx::Error> {
    write
        .query(
            "INSERT INTO batch_workers (process, heard, through, spoiled, consumers, beat)
             VALUES ($1, 0, 0, 0, 0, 0) ON CONFLICT (process) DO NOTHING",
        )
        .bind(process)
        .execute()
        .await
        .map(drop)
}
