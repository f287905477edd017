//! Dead letters: deliveries given up and events nobody could read, kept until a person decides.
//!
//! The drain hands over what it took from the dead queues and acknowledges it after the commit, so a
//! letter may come twice; it is kept once. Replaying is not done here, only noted.

mod filter;
mod fingerprint;
mod groups;
mod letter;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use sqlx::postgres::PgDatabaseError;
use sqlx::sqlite::SqliteError;

pub(super) use self::filter::chosen;
pub use self::filter::{DeadFilter, LIST_LIMIT};
use self::fingerprint::Fingerprint;
pub use self::groups::DeadGroup;
use self::letter::NOTE_CHARS_MAX;
pub use self::letter::{DeadLetter, DeadLetterFull, DeadRow, DeadState, Kind, UNDRAINABLE};
use super::pool::Session;
use super::statement::Row;
use super::{Store, Write, count, postgres, sqlite};

/// The columns of a [`DeadRow`], a macro so that they can be part of static text.
macro_rules! row_columns {
    () => {
        "id, kind, reason, tenant, event_id, event_type, subscription, document_id, batch_id, cycle, attempts, \
         history, CAST(length(body) AS bigint) AS body_bytes, first_seen_ms, dead_at_ms, state, state_at_ms, note, \
         host, class, status, replays"
    };
}

/// Why letters were not kept; then none of the call was.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The engine will never take this: try the rows singly, and keep the refused as undrainable.
    #[error("the store refused a dead letter: {0}")]
    Refused(String),
    /// The store cannot be written at the moment: keep the messages and try again.
    #[error("could not keep dead letters: {0:#}")]
    Unavailable(anyhow::Error),
}

/// What keeping dead letters needs of a store.
pub trait DeadLetterStore: Send + Sync + 'static {
    /// See [`Store::keep_dead`].
    fn keep_dead(&self, letters: &[DeadLetter]) -> impl Future<Output = Result<usize, KeepError>> + Send;

    /// See [`Store::keep_undrainable`].
    fn keep_undrainable(
        &self,
        letter: &DeadLetter,
        why: &str,
    ) -> impl Future<Output = Result<bool, KeepError>> + Send;

    /// See [`Store::forget_dead`].
    fn forget_dead(&self, before_ms: i64, limit: u32) -> impl Future<Output = anyhow::Result<u64>> + Send;

    /// See [`Store::note_forgotten`].
    fn note_forgotten(
        &self,
        letters: u64,
        before_ms: i64,
        now_ms: i64,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
}

impl DeadLetterStore for Store {
    async fn keep_dead(&self, letters: &[DeadLetter]) -> Result<usize, KeepError> {
        Store::keep_dead(self, letters).await
    }

    async fn keep_undrainable(&self, letter: &DeadLetter, why: &str) -> Result<bool, KeepError> {
        Store::keep_undrainable(self, letter, why).await
    }

    async fn forget_dead(&self, before_ms: i64, limit: u32) -> anyhow::Result<u64> {
        Store::forget_dead(self, before_ms, limit).await
    }

    async fn note_forgotten(&self, letters: u64, before_ms: i64, now_ms: i64) -> anyhow::Result<()> {
        Store::note_forgotten(self, letters, before_ms, now_ms).await
    }
}

impl Store {
    /// Keeps letters, all or none, and returns how many were new; one that is kept already is left as it
    /// is, whatever was decided about it.
    pub async fn keep_dead(&self, letters: &[DeadLetter]) -> Result<usize, KeepError> {
        let mut write = self.begin_sealed_write().await.map_err(keep_error)?;
        let sealed = letters.iter().map(|letter| self.seal_letter(letter)).collect::<Result<Vec<_>, _>>()?;
        let mut hosts = BTreeMap::new();
        let mut new = 0;
        for letter in &sealed {
            new += usize::from(insert(&mut write, letter, &mut hosts).await.map_err(keep_error)?);
        }
        write.commit().await.map_err(keep_error)?;
        Ok(new)
    }

    /// Keeps one letter, to find the one that was refused; returns whether it was new.
    pub async fn keep_dead_one(&self, letter: &DeadLetter) -> Result<bool, KeepError> {
        Ok(self.keep_dead(std::slice::from_ref(letter)).await? > 0)
    }

    /// Keeps, in place of a letter that was refused, one with the same body, the reason `undrainable`, why
    /// it was refused as its history and all the rest in its headers; returns whether it was new.
    pub async fn keep_undrainable(&self, letter: &DeadLetter, why: &str) -> Result<bool, KeepError> {
        let stand_in = letter.undrainable(why);
        // The key of the letter refused, so that two refused letters of one body are both kept.
        let mut write = self.begin_sealed_write().await.map_err(keep_error)?;
        let sealed = self.seal_letter_as(&stand_in, letter.key())?;
        let new = insert(&mut write, &sealed, &mut BTreeMap::new()).await.map_err(keep_error)?;
        write.commit().await.map_err(keep_error)?;
        Ok(new)
    }

    /// A page of letters without their contents, newest first.
    pub async fn dead_list(&self, filter: &DeadFilter) -> anyhow::Result<Vec<DeadRow>> {
        let rows = async {
            let mut connection = self.inner.pool.acquire().await?;
            let query =
                connection.query(concat!("SELECT ", row_columns!(), " FROM dead_letters WHERE 1 = 1"));
            filter::page(query, filter).fetch_all().await
        };
        let rows = rows.await.context("could not list dead letters from the store")?;
        rows.iter().map(|row| dead_row(row).context("a dead letter cannot be read")).collect()
    }

    /// One letter with its contents.
    pub async fn dead_show(&self, id: i64) -> anyhow::Result<Option<DeadLetterFull>> {
        let failed = || format!("could not read dead letter `dl_{id}` from the store");
        let row = async {
            let mut connection = self.inner.pool.acquire().await?;
            let query = connection.query(concat!(
                "SELECT ",
                row_columns!(),
                ", letter_key, body, body_sha256, headers, answer FROM dead_letters WHERE id = $1"
            ));
            query.bind(id).fetch_optional().await
        };
        match row.await.with_context(failed)? {
            None => Ok(None),
            Some(row) => self.full(&row).with_context(failed).map(Some),
        }
    }

    /// Notes at `now_ms` what was decided about letters and returns how many it changed. Only an open one
    /// can be discarded; one that was discarded may still be replayed. Marking as open changes nothing.
    pub async fn dead_mark(
        &self,
        ids: &[i64],
        state: DeadState,
        note: Option<&str>,
        now_ms: i64,
    ) -> anyhow::Result<u64> {
        let failed = "could not mark dead letters in the store";
        let update = match state {
            DeadState::Open => return Ok(0),
            DeadState::Replayed => {
                "UPDATE dead_letters SET state = 'replayed', state_at_ms = $1, note = $2
                 WHERE id = $3 AND state <> 'replayed'"
            }
            DeadState::Discarded => {
                "UPDATE dead_letters SET state = 'discarded', state_at_ms = $1, note = $2
                 WHERE id = $3 AND state = 'open'"
            }
        };
        let note: Option<String> = note.map(|note| note.chars().take(NOTE_CHARS_MAX).collect());
        let mut write = self.begin_write().await.context(failed)?;
        // In one order, so that two who mark the same letters never wait for each other.
        let ids: BTreeSet<i64> = ids.iter().copied().collect();
        let mut changed = 0;
        for id in ids {
            let done = write.query(update).bind(now_ms).bind(&note).bind(id).execute().await;
            changed += done.context(failed)?;
        }
        write.commit().await.context(failed)?;
        Ok(changed)
    }

    /// A number for the next replay, never given out before: a letter that dies again after its replay must
    /// not be taken for one that is kept already.
    pub async fn next_cycle(&self) -> anyhow::Result<u32> {
        let failed = "could not number a replay in the store";
        let mut write = self.begin_write().await.context(failed)?;
        let cycle: i64 = write
            .query("UPDATE counters SET value = value + 1 WHERE name = 'cycles' RETURNING value")
            .fetch_value()
            .await
            .context(failed)?;
        write.commit().await.context(failed)?;
        u32::try_from(cycle).context(failed)
    }

    /// Forgets replays that were begun and letters that died before `before_ms`, whatever was decided about
    /// them: letters at most `limit` at a time so that no transaction is long; returns how many.
    pub async fn forget_dead(&self, before_ms: i64, limit: u32) -> anyhow::Result<u64> {
        let failed = "could not forget old dead letters in the store";
        let mut write = self.begin_write().await.context(failed)?;
        let gone = write
            .query(
                "DELETE FROM dead_letters WHERE id IN
                 (SELECT id FROM dead_letters WHERE dead_at_ms < $1 ORDER BY dead_at_ms LIMIT $2)",
            )
            .bind(before_ms)
            .bind(i64::from(limit))
            .execute()
            .await
            .context(failed)?;
        for old in [
            "DELETE FROM replay_items WHERE job IN (SELECT id FROM replay_jobs WHERE created_at_ms < $1)",
            "DELETE FROM replay_jobs WHERE created_at_ms < $1",
        ] {
            write.query(old).bind(before_ms).execute().await.context(failed)?;
        }
        write.commit().await.context(failed)?;
        Ok(gone)
    }

    fn seal_letter<'a>(&self, letter: &'a DeadLetter) -> Result<SealedLetter<'a>, KeepError> {
        self.seal_letter_as(letter, letter.key())
    }

    fn seal_letter_as<'a>(
        &self,
        letter: &'a DeadLetter,
        key: [u8; 32],
    ) -> Result<SealedLetter<'a>, KeepError> {
        let seal = |part: &str, plain: &[u8]| {
            self.seal(&record_name(&key, part), plain).map_err(KeepError::Unavailable)
        };
        Ok(SealedLetter {
            letter,
            key,
            body_sha256: letter.body_sha256(),
            headers: seal("headers", &letter.headers)?,
            answer: seal("answer", &letter.answer)?,
        })
    }

    fn full(&self, row: &Row) -> anyhow::Result<DeadLetterFull> {
        let key: Vec<u8> = row.get("letter_key")?;
        let open = |part: &str| -> anyhow::Result<Vec<u8>> {
            let sealed: Vec<u8> = row.get(part)?;
            let opened = self.open_sealed(&record_name(&key, part), &sealed);
            opened.with_context(|| format!("its {part} cannot be opened"))
        };
        Ok(DeadLetterFull {
            row: dead_row(row)?,
            body: row.get::<Vec<u8>>("body")?.into(),
            body_sha256: row.get("body_sha256")?,
            headers: open("headers")?,
            answer: open("answer")?,
        })
    }
}

struct SealedLetter<'a> {
    letter: &'a DeadLetter,
    key: [u8; 32],
    body_sha256: [u8; 32],
    headers: Vec<u8>,
    answer: Vec<u8>,
}

/// What a sealed part of a letter is sealed for.
pub(super) fn record_name(key: &[u8], part: &str) -> Vec<u8> {
    [b"dead letter\0", part.as_bytes(), b"\0", key].concat()
}

/// Whether the letter was new.
async fn insert(
    write: &mut Write<'_>,
    sealed: &SealedLetter<'_>,
    hosts: &mut BTreeMap<String, Option<String>>,
) -> Result<bool, sqlx::Error> {
    let letter = sealed.letter;
    let host = match &letter.subscription {
        Some(id) => fingerprint::host(write, id, hosts).await?,
        None => None,
    };
    let fingerprint = Fingerprint::of(letter);
    let query = write.query(
        "INSERT INTO dead_letters
             (letter_key, kind, reason, tenant, event_id, event_type, subscription, document_id, batch_id,
              cycle, attempts, body, body_sha256, headers, history, answer, first_seen_ms, dead_at_ms,
              host, class, status, replays)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                 $21, $22)
         ON CONFLICT (letter_key) DO NOTHING",
    );
    let inserted = query
        .bind(&sealed.key[..])
        .bind(letter.kind.as_str())
        .bind(&letter.reason)
        .bind(&letter.tenant)
        .bind(&letter.event_id)
        .bind(&letter.event_type)
        .bind(&letter.subscription)
        .bind(&letter.document_id)
        .bind(&letter.batch_id)
        .bind(i64::from(letter.cycle))
        .bind(i64::from(letter.attempts))
        .bind(&letter.body[..])
        .bind(&sealed.body_sha256[..])
        .bind(&sealed.headers)
        .bind(&letter.history)
        .bind(&sealed.answer)
        .bind(letter.first_seen_ms)
        .bind(letter.dead_at_ms)
        .bind(host)
        .bind(fingerprint.class)
        .bind(fingerprint.status.map(i64::from))
        .bind(i64::from(fingerprint.replays))
        .execute()
        .await?;
    Ok(inserted > 0)
}

/// Tells a row that will never go in from a store that is busy, full or away.
fn keep_error(error: sqlx::Error) -> KeepError {
    let is_refusal = match &error {
        sqlx::Error::Encode(_) => true,
        sqlx::Error::Database(error) => {
            error.try_downcast_ref::<SqliteError>().is_some_and(sqlite::is_refusal)
                || error.try_downcast_ref::<PgDatabaseError>().is_some_and(postgres::is_refusal)
        }
        _ => false,
    };
    if is_refusal { KeepError::Refused(error.to_string()) } else { KeepError::Unavailable(error.into()) }
}

fn dead_row(row: &Row) -> anyhow::Result<DeadRow> {
    Ok(DeadRow {
        id: row.get("id")?,
        kind: Kind::parse(&row.get::<String>("kind")?).context("unknown kind")?,
        reason: row.get("reason")?,
        tenant: row.get("tenant")?,
        event_id: row.get("event_id")?,
        event_type: row.get("event_type")?,
        subscription: row.get("subscription")?,
        document_id: row.get("document_id")?,
        batch_id: row.get("batch_id")?,
        cycle: small(row, "cycle")?,
        attempts: small(row, "attempts")?,
        history: row.get("history")?,
        body_bytes: count(row.get("body_bytes")?),
        first_seen_ms: row.get("first_seen_ms")?,
        dead_at_ms: row.get("dead_at_ms")?,
        state: DeadState::parse(&row.get::<String>("state")?).context("unknown state")?,
        state_at_ms: row.get("state_at_ms")?,
        note: row.get("note")?,
        host: row.get("host")?,
        class: row.get("class")?,
        status: row.get::<Option<i64>>("status")?.and_then(|status| u16::try_from(status).ok()),
        replays: small(row, "replays")?,
    })
}

/// A count that was a `u32` when it was written; Postgres knows no such number.
fn small(row: &Row, column: &str) -> anyhow::Result<u32> {
    u32::try_from(row.get::<i64>(column)?).with_context(|| format!("its {column} is out of range"))
}
