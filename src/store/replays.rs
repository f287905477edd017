//! Replays as jobs: which letters are to be sent again, and how far that has come.
//!
//! A job belongs to whoever holds its lease. Each letter is published and confirmed before it is marked, with
//! a cycle that was written before: whatever is cut off in between is sent once more, and nothing is lost.

use anyhow::Context as _;

use super::dead::chosen;
use super::pool::Session as _;
use super::statement::Row;
use super::{DeadFilter, DeadLetterFull, DeadState, Store, Write, count};

/// Letters are read into memory until their bodies come to this.
const BODIES_BYTES: usize = 8 << 20;

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Somebody works on it, or would if they were there.
    Running,
    /// A person said so.
    Paused,
    /// Something spoke against going on: a canary that failed.
    Stopped,
    /// A person said so; what was not sent is open as before.
    Cancelled,
    Done,
}

impl JobState {
    const ALL: [JobState; 5] =
        [JobState::Running, JobState::Paused, JobState::Stopped, JobState::Cancelled, JobState::Done];

    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Running => "running",
            JobState::Paused => "paused",
            JobState::Stopped => "stopped",
            JobState::Cancelled => "cancelled",
            JobState::Done => "done",
        }
    }

    fn parse(text: &str) -> Option<JobState> {
        JobState::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// What a replay is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReplay {
    /// What was asked for, in any words that are the same whenever the same is asked for.
    pub asked: String,
    /// Send to this subscription instead of each letter's own.
    pub subscription: Option<String>,
    /// Letters a second, 0 for as many as go.
    pub rate: u32,
    /// So many letters first; the rest only if all of them are delivered. 0 for none.
    pub canary: u32,
    /// Left to `serve`.
    pub detached: bool,
    /// The tenant whose key asked; none: an operator.
    pub tenant: Option<String>,
}

/// Which letters.
#[derive(Debug, Clone)]
pub enum Choice {
    /// These, whatever was decided about them before, unless they were replayed.
    Letters(Vec<i64>),
    /// All that the filter leaves; its page is ignored.
    Filter(Box<DeadFilter>),
}

/// A replay and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayJob {
    pub id: i64,
    pub what: NewReplay,
    pub state: JobState,
    /// Why it is where it is.
    pub told: Option<String>,
    pub created_at_ms: i64,
    /// Who works on it.
    pub lease: Option<String>,
    /// Until when; where nobody does, when the last one stopped.
    pub lease_until_ms: i64,
    pub waiting: u64,
    pub sent: u64,
    /// Not sent, because they were decided about otherwise meanwhile.
    pub skipped: u64,
}

impl ReplayJob {
    pub fn total(&self) -> u64 {
        self.waiting + self.sent + self.skipped
    }
}

/// A letter to be sent.
#[derive(Debug)]
pub struct ReplayItem {
    pub letter: DeadLetterFull,
    /// The number of its next life.
    pub cycle: u32,
}

/// A letter that was sent by a job, for whoever wants to know what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentItem {
    pub letter: i64,
    pub event_id: Option<String>,
    pub cycle: u32,
}

const SELECT_JOB: &str = "SELECT id, asked, subscription, rate, canary, detached, state, told, created_at_ms,
    lease, lease_until_ms, tenant,
    (SELECT count(*) FROM replay_items WHERE job = replay_jobs.id AND state = 'waiting') AS waiting,
    (SELECT count(*) FROM replay_items WHERE job = replay_jobs.id AND state = 'sent') AS sent,
    (SELECT count(*) FROM replay_items WHERE job = replay_jobs.id AND state = 'skipped') AS skipped
    FROM replay_jobs WHERE 1 = 1";

const FAILED: &str = "could not work on a replay in the store";

impl Store {
    /// A new job with its letters; or the job that asked the same and is not at its end, which goes on. None
    /// where there is no letter to send. Letters that wait in another job are left to that one.
    pub async fn replay_begin(
        &self,
        what: &NewReplay,
        choice: &Choice,
        now_ms: i64,
    ) -> anyhow::Result<Option<ReplayJob>> {
        let mut write = self.begin_replay().await.context(FAILED)?;
        let known: Option<i64> = write
            .query(
                "SELECT id FROM replay_jobs WHERE asked = $1 AND state IN ('running', 'paused', 'stopped')
                 AND EXISTS (SELECT 1 FROM replay_items WHERE job = replay_jobs.id AND state = 'waiting')
                 ORDER BY id LIMIT 1",
            )
            .bind(&what.asked)
            .fetch_optional_value()
            .await
            .context(FAILED)?;
        let id = match known {
            Some(id) => {
                let update = "UPDATE replay_jobs SET state = 'running', told = NULL, rate = $1, canary = $2,
                    detached = $3, changed_at_ms = $4 WHERE id = $5";
                let query = write.query(update).bind(i64::from(what.rate)).bind(i64::from(what.canary));
                let query = query.bind(i64::from(what.detached)).bind(now_ms).bind(id);
                query.execute().await.context(FAILED)?;
                id
            }
            None => {
                let id = insert_job(&mut write, what, now_ms).await.context(FAILED)?;
                if insert_items(&mut write, id, choice).await.context(FAILED)? == 0 {
                    return Ok(None);
                }
                id
            }
        };
        write.commit().await.context(FAILED)?;
        self.replay_job(id).await
    }

    pub async fn replay_job(&self, id: i64) -> anyhow::Result<Option<ReplayJob>> {
        let row = async {
            let mut connection = self.inner.pool.acquire().await?;
            let mut query = connection.query(SELECT_JOB);
            query.push_bind(" AND id = ", id);
            query.fetch_optional().await
        };
        row.await.context(FAILED)?.map(|row| job(&row)).transpose()
    }

    /// The newest jobs, of one tenant's keys or of everybody.
    pub async fn replay_jobs(&self, tenant: Option<&str>, limit: u32) -> anyhow::Result<Vec<ReplayJob>> {
        let rows = async {
            let mut connection = self.inner.pool.acquire().await?;
            let mut query = connection.query(SELECT_JOB);
            if let Some(tenant) = tenant {
                query.push_bind(" AND tenant = ", tenant);
            }
            query.push_bind(" ORDER BY id DESC LIMIT ", i64::from(limit));
            query.fetch_all().await
        };
        rows.await.context(FAILED)?.iter().map(job).collect()
    }

    /// Jobs that are left to `serve` and that nobody works on: first those that nobody ever worked on, then those that
    /// wait longest. Of a tenant of which one is worked on there is none.
    pub async fn replays_left(&self, now_ms: i64, limit: u32) -> anyhow::Result<Vec<ReplayJob>> {
        let rows = async {
            let mut connection = self.inner.pool.acquire().await?;
            let mut query = connection.query(SELECT_JOB);
            query.push_bind(
                " AND detached = 1 AND state = 'running' AND (lease IS NULL OR lease_until_ms < ",
                now_ms,
            );
            query.push_bind(
                ") AND NOT EXISTS (SELECT 1 FROM replay_jobs AS other
                     WHERE other.tenant = replay_jobs.tenant AND other.lease IS NOT NULL AND other.lease_until_ms >= ",
                now_ms,
            );
            query.push_bind(") ORDER BY lease_until_ms, id LIMIT ", i64::from(limit));
            query.fetch_all().await
        };
        rows.await.context(FAILED)?.iter().map(job).collect()
    }

    /// Takes or keeps the lease until `until_ms`; the state of the job where it is ours, none where it is
    /// somebody else's.
    pub async fn replay_lease(
        &self,
        id: i64,
        owner: &str,
        now_ms: i64,
        until_ms: i64,
    ) -> anyhow::Result<Option<JobState>> {
        let mut write = self.begin_write().await.context(FAILED)?;
        let state: Option<String> = write
            .query(
                "UPDATE replay_jobs SET lease = $1, lease_until_ms = $2
                 WHERE id = $3 AND (lease = $4 OR lease IS NULL OR lease_until_ms < $5) RETURNING state",
            )
            .bind(owner)
            .bind(until_ms)
            .bind(id)
            .bind(owner)
            .bind(now_ms)
            .fetch_optional_value()
            .await
            .context(FAILED)?;
        write.commit().await.context(FAILED)?;
        state.map(|state| JobState::parse(&state).context("unknown state of a replay")).transpose()
    }

    /// Gives the lease back at this moment, so that the next one need not wait for its end.
    pub async fn replay_release(&self, id: i64, owner: &str, now_ms: i64) -> anyhow::Result<()> {
        let update = "UPDATE replay_jobs SET lease = NULL, lease_until_ms = $1 WHERE id = $2 AND lease = $3";
        let mut write = self.begin_write().await.context(FAILED)?;
        write.query(update).bind(now_ms).bind(id).bind(owner).execute().await.context(FAILED)?;
        write.commit().await.context(FAILED)
    }

    /// The next letters of a job, oldest first, each with the number of its next life. Those that were decided
    /// about otherwise meanwhile are skipped. Fewer than `limit` where their bodies are large. Empty: nothing waits any
    /// more.
    pub async fn replay_next(&self, id: i64, limit: u32) -> anyhow::Result<Vec<ReplayItem>> {
        loop {
            let Some(numbered) = self.number_items(id, limit).await.context(FAILED)? else {
                return Ok(Vec::new());
            };
            let (mut items, mut bytes) = (Vec::with_capacity(numbered.len()), 0);
            for (letter, cycle) in numbered {
                if bytes >= BODIES_BYTES {
                    break;
                }
                if let Some(letter) = self.dead_show(letter).await? {
                    bytes += letter.body.len();
                    items.push(ReplayItem { letter, cycle });
                }
            }
            if !items.is_empty() {
                return Ok(items);
            }
        }
    }

    /// None where nothing waits; empty where all that was looked at is to be skipped.
    async fn number_items(&self, id: i64, limit: u32) -> Result<Option<Vec<(i64, u32)>>, sqlx::Error> {
        let mut write = self.begin_write().await?;
        let rows = write
            .query(
                "SELECT replay_items.letter AS letter, replay_items.cycle AS cycle, dead_letters.state AS state,
                     dead_letters.state_at_ms AS state_at_ms, replay_jobs.created_at_ms AS created_at_ms
                 FROM replay_items JOIN replay_jobs ON replay_jobs.id = replay_items.job
                 LEFT JOIN dead_letters ON dead_letters.id = replay_items.letter
                 WHERE replay_items.job = $1 AND replay_items.state = 'waiting'
                 ORDER BY replay_items.letter LIMIT $2",
            )
            .bind(id)
            .bind(i64::from(limit))
            .fetch_all()
            .await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let (mut skipped, mut numbered, mut unnumbered) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let letter: i64 = row.get("letter")?;
            let state: Option<String> = row.get("state")?;
            let decided_ms: Option<i64> = row.get("state_at_ms")?;
            let since: i64 = row.get("created_at_ms")?;
            let discarded_since = || decided_ms.is_some_and(|at_ms| at_ms >= since);
            match state.as_deref().and_then(DeadState::parse) {
                None | Some(DeadState::Replayed) => skipped.push(letter),
                Some(DeadState::Discarded) if discarded_since() => skipped.push(letter),
                _ => match row.get::<Option<i64>>("cycle")? {
                    Some(cycle) => numbered.push((letter, cycle)),
                    None => unnumbered.push(letter),
                },
            }
        }
        for letter in skipped {
            let skip = "UPDATE replay_items SET state = 'skipped' WHERE job = $1 AND letter = $2";
            write.query(skip).bind(id).bind(letter).execute().await?;
        }
        if !unnumbered.is_empty() {
            let wanted = i64::try_from(unnumbered.len()).unwrap_or(i64::MAX);
            let rise = "UPDATE counters SET value = value + $1 WHERE name = 'cycles' RETURNING value";
            let last: i64 = write.query(rise).bind(wanted).fetch_value().await?;
            for (letter, cycle) in unnumbered.into_iter().zip(last - wanted + 1..) {
                let number = "UPDATE replay_items SET cycle = $1 WHERE job = $2 AND letter = $3";
                write.query(number).bind(cycle).bind(id).bind(letter).execute().await?;
                numbered.push((letter, cycle));
            }
        }
        write.commit().await?;
        let small = |cycle: i64| u32::try_from(cycle).unwrap_or(u32::MAX);
        Ok(Some(numbered.into_iter().map(|(letter, cycle)| (letter, small(cycle))).collect()))
    }

    /// Notes letters whose publishing was confirmed: sent in the job, also where it was cancelled meanwhile; replayed in
    /// the list; how many were not noted before.
    pub async fn replay_sent(&self, id: i64, letters: &[i64], now_ms: i64) -> anyhow::Result<u64> {
        let mut write = self.begin_write().await.context(FAILED)?;
        let mut noted = 0;
        for letter in letters {
            let item = "UPDATE replay_items SET state = 'sent', sent_at_ms = $1
                WHERE job = $2 AND letter = $3 AND state <> 'sent'";
            write.query(item).bind(now_ms).bind(id).bind(*letter).execute().await.context(FAILED)?;
            let mark = "UPDATE dead_letters SET state = 'replayed', state_at_ms = $1, note = NULL
                WHERE id = $2 AND state <> 'replayed'";
            noted += write.query(mark).bind(now_ms).bind(*letter).execute().await.context(FAILED)?;
        }
        write.commit().await.context(FAILED)?;
        Ok(noted)
    }

    /// What a job has sent, the newest first.
    pub async fn replay_items_sent(&self, id: i64, limit: u32) -> anyhow::Result<Vec<SentItem>> {
        let rows = async {
            let mut connection = self.inner.pool.acquire().await?;
            let query = connection.query(
                "SELECT replay_items.letter AS letter, replay_items.cycle AS cycle, dead_letters.event_id AS event_id
                 FROM replay_items JOIN dead_letters ON dead_letters.id = replay_items.letter
                 WHERE replay_items.job = $1 AND replay_items.state = 'sent'
                 ORDER BY replay_items.sent_at_ms DESC, replay_items.letter DESC LIMIT $2",
            );
            query.bind(id).bind(i64::from(limit)).fetch_all().await
        };
        let read = |row: &Row| -> Result<SentItem, sqlx::Error> {
            let cycle = u32::try_from(row.get::<Option<i64>>("cycle")?.unwrap_or(0)).unwrap_or(u32::MAX);
            Ok(SentItem { letter: row.get("letter")?, event_id: row.get("event_id")?, cycle })
        };
        let rows = rows.await.context(FAILED)?;
        rows.iter().map(read).collect::<Result<_, _>>().context(FAILED)
    }

    /// Moves a job that is not at its end to another state; whether there was one. One that is cancelled lets
    /// its waiting letters go.
    pub async fn replay_set_state(
        &self,
        id: i64,
        state: JobState,
        told: Option<&str>,
        now_ms: i64,
    ) -> anyhow::Result<bool> {
        let mut write = self.begin_write().await.context(FAILED)?;
        let update = "UPDATE replay_jobs SET state = $1, told = $2, changed_at_ms = $3
            WHERE id = $4 AND state IN ('running', 'paused', 'stopped')";
        let query = write.query(update).bind(state.as_str()).bind(told).bind(now_ms).bind(id);
        let changed = query.execute().await.context(FAILED)? > 0;
        if changed && state == JobState::Cancelled {
            let skip = "UPDATE replay_items SET state = 'skipped' WHERE job = $1 AND state = 'waiting'";
            write.query(skip).bind(id).execute().await.context(FAILED)?;
        }
        write.commit().await.context(FAILED)?;
        Ok(changed)
    }

    /// Leaves a job to `serve`, running again if it was paused or stopped; whether there was one.
    pub async fn replay_resume(&self, id: i64, now_ms: i64) -> anyhow::Result<bool> {
        let mut write = self.begin_write().await.context(FAILED)?;
        let update = "UPDATE replay_jobs SET state = 'running', told = NULL, detached = 1, changed_at_ms = $1
            WHERE id = $2 AND state IN ('running', 'paused', 'stopped')";
        let changed = write.query(update).bind(now_ms).bind(id).execute().await.context(FAILED)? > 0;
        write.commit().await.context(FAILED)?;
        Ok(changed)
    }

    /// The canaries of a job are well: the rest may go.
    pub async fn replay_canaries_well(&self, id: i64) -> anyhow::Result<()> {
        let mut write = self.begin_write().await.context(FAILED)?;
        let update = "UPDATE replay_jobs SET canary = 0 WHERE id = $1";
        write.query(update).bind(id).execute().await.context(FAILED)?;
        write.commit().await.context(FAILED)
    }

    /// A letter among the chosen that is not this tenant's.
    pub async fn dead_of_another_tenant(
        &self,
        filter: &DeadFilter,
        tenant: &str,
    ) -> anyhow::Result<Option<i64>> {
        let found = async {
            let mut connection = self.inner.pool.acquire().await?;
            let query = connection.query("SELECT id FROM dead_letters WHERE 1 = 1");
            let mut query = chosen(query, filter);
            query.push_bind(" AND (tenant IS NULL OR tenant <> ", tenant);
            query.push(") ORDER BY id DESC LIMIT 1");
            query.fetch_optional_value().await
        };
        found.await.context("could not look through dead letters in the store")
    }

    /// How many letters the filter leaves.
    pub async fn dead_count(&self, filter: &DeadFilter) -> anyhow::Result<u64> {
        let counted = async {
            let mut connection = self.inner.pool.acquire().await?;
            let query = connection.query("SELECT count(*) FROM dead_letters WHERE 1 = 1");
            chosen(query, filter).fetch_value().await
        };
        counted.await.map(count).context("could not count dead letters in the store")
    }

    /// The transaction of a beginning: two that ask the same must not both find no job.
    async fn begin_replay(&self) -> Result<Write<'_>, sqlx::Error> {
        let mut write = self.begin_write().await?;
        write.query("UPDATE counters SET value = value WHERE name = 'cycles'").execute().await?;
        Ok(write)
    }
}

async fn insert_job(write: &mut Write<'_>, what: &NewReplay, now_ms: i64) -> Result<i64, sqlx::Error> {
    let query = write.query(
        "INSERT INTO replay_jobs (asked, subscription, rate, canary, detached, state, created_at_ms,
             changed_at_ms, lease_until_ms, tenant)
         VALUES ($1, $2, $3, $4, $5, 'running', $6, $7, 0, $8) RETURNING id",
    );
    let query = query.bind(&what.asked).bind(&what.subscription).bind(i64::from(what.rate));
    let query = query.bind(i64::from(what.canary)).bind(i64::from(what.detached)).bind(now_ms).bind(now_ms);
    query.bind(&what.tenant).fetch_value().await
}

async fn insert_items(write: &mut Write<'_>, job: i64, choice: &Choice) -> Result<u64, sqlx::Error> {
    let taken = " AND NOT EXISTS (SELECT 1 FROM replay_items AS other
        WHERE other.letter = dead_letters.id AND other.state = 'waiting')";
    match choice {
        Choice::Letters(letters) => {
            let mut inserted = 0;
            for letter in letters {
                let mut query = write
                    .query(
                        "INSERT INTO replay_items (job, letter)
                         SELECT CAST($1 AS bigint), id FROM dead_letters WHERE id = $2 AND state <> 'replayed'",
                    )
                    .bind(job)
                    .bind(*letter);
                query.push(taken);
                inserted += query.execute().await?;
            }
            Ok(inserted)
        }
        Choice::Filter(filter) => {
            let query = write
                .query(
                    "INSERT INTO replay_items (job, letter)
                     SELECT CAST($1 AS bigint), id FROM dead_letters WHERE 1 = 1",
                )
                .bind(job);
            let mut query = chosen(query, filter);
            query.push(taken);
            query.execute().await
        }
    }
}

fn job(row: &Row) -> anyhow::Result<ReplayJob> {
    let small = |name: &str| -> anyhow::Result<u32> { Ok(u32::try_from(row.get::<i64>(name)?)?) };
    Ok(ReplayJob {
        id: row.get("id")?,
        what: NewReplay {
            asked: row.get("asked")?,
            subscription: row.get("subscription")?,
            rate: small("rate")?,
            canary: small("canary")?,
            detached: row.get::<i64>("detached")? != 0,
            tenant: row.get("tenant")?,
        },
        state: JobState::parse(&row.get::<String>("state")?).context("unknown state of a replay")?,
        told: row.get("told")?,
        created_at_ms: row.get("created_at_ms")?,
        lease: row.get("lease")?,
        lease_until_ms: row.get("lease_until_ms")?,
        waiting: count(row.get("waiting")?),
        sent: count(row.get("sent")?),
        skipped: count(row.get("skipped")?),
    })
}
