//! Writing the delivery log: many rows at a time, by one owner.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use sqlx::SqliteConnection;
use sqlx::postgres::PgDatabaseError;
use sqlx::sqlite::SqliteError;

use super::day::Day;
use super::{LogSize, Record, postgres, sqlite};
use crate::store::pool::Pool;
use crate::store::url::StoreUrl;
use crate::store::{self, Store};

/// The columns that are written, in their order.
pub(super) const COLUMNS: [&str; 17] = [
    "at_ms",
    "what",
    "event_id",
    "event_type",
    "tenant",
    "document_id",
    "batch_id",
    "subscription",
    "attempt",
    "cycle",
    "status",
    "class",
    "reason",
    "elapsed_ms",
    "wait",
    "received_ms",
    "worker",
];

/// A record as its columns.
pub(super) struct Row<'a> {
    pub(super) at_ms: i64,
    pub(super) what: &'static str,
    pub(super) event_id: &'a str,
    pub(super) event_type: &'a str,
    pub(super) tenant: &'a str,
    pub(super) document_id: Option<Cow<'a, str>>,
    pub(super) batch_id: Option<Cow<'a, str>>,
    pub(super) subscription: Option<&'a str>,
    pub(super) attempt: i64,
    pub(super) cycle: i64,
    pub(super) status: Option<i64>,
    pub(super) class: Option<&'static str>,
    pub(super) reason: Option<&'static str>,
    pub(super) elapsed_ms: Option<i64>,
    pub(super) wait: Option<i64>,
    pub(super) received_ms: Option<i64>,
    pub(super) worker: &'a str,
}

impl<'a> Row<'a> {
    fn of(record: &'a Record, worker: &'a str) -> Row<'a> {
        Row {
            at_ms: record.at_ms,
            what: record.what.as_str(),
            event_id: record.event.as_str(),
            event_type: record.kind.as_str(),
            tenant: record.tenant.as_str(),
            document_id: record.document.as_deref().map(holdable),
            batch_id: record.batch.as_deref().map(holdable),
            subscription: record.subscription.as_ref().map(|id| id.as_str()),
            attempt: record.attempt.into(),
            cycle: record.cycle.into(),
            status: record.status.map(i64::from),
            class: record.cause.map(|cause| cause.as_str()),
            reason: record.reason.map(|reason| reason.as_str()),
            elapsed_ms: record.elapsed_ms.map(store::column),
            wait: record.wait.map(i64::from),
            received_ms: record.received_ms,
            worker,
        }
    }
}

/// A producer's text may hold what Postgres cannot, and one row must not cost the rest.
fn holdable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// Why rows were not written; then none of the call was, but for earlier days.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The engine will never take these rows.
    #[error("the store refused rows of the delivery log: {0}")]
    Refused(String),
    /// It cannot be written at the moment: a full disk, a server that is away.
    #[error("the delivery log cannot be written: {0}")]
    Unavailable(String),
}

impl LogError {
    fn of(error: sqlx::Error) -> LogError {
        let is_refusal = match &error {
            sqlx::Error::Encode(_) => true,
            sqlx::Error::Database(error) => {
                error.try_downcast_ref::<SqliteError>().is_some_and(store::sqlite::is_refusal)
                    || error.try_downcast_ref::<PgDatabaseError>().is_some_and(store::postgres::is_refusal)
            }
            _ => false,
        };
        let why = error.to_string();
        if is_refusal { LogError::Refused(why) } else { LogError::Unavailable(why) }
    }
}

/// What writing the delivery log needs of a store.
pub trait RecordLog: Send + 'static {
    /// See [`DeliveryLog::write`].
    fn write(&mut self, records: &[Record]) -> impl Future<Output = Result<(), LogError>> + Send;

    /// See [`DeliveryLog::forget`].
    fn forget(&mut self, days: u32, now_ms: i64) -> impl Future<Output = anyhow::Result<u64>> + Send;
}

impl RecordLog for DeliveryLog {
    async fn write(&mut self, records: &[Record]) -> Result<(), LogError> {
        DeliveryLog::write(self, records).await
    }

    async fn forget(&mut self, days: u32, now_ms: i64) -> anyhow::Result<u64> {
        DeliveryLog::forget(self, days, now_ms).await
    }
}

/// The writing end of the log. One owner per process; processes may write at the same time.
pub struct DeliveryLog {
    store: Store,
    /// Which process writes, for whoever reads.
    worker: Arc<str>,
    open: Open,
}

/// The day that is being written.
enum Open {
    None,
    Sqlite(Day, SqliteConnection),
    /// Its table is there.
    Postgres(Day),
}

impl Store {
    /// The delivery log for writing, by a process that calls itself `worker`. Opens nothing yet.
    pub fn delivery_log(&self, worker: &str) -> DeliveryLog {
        DeliveryLog { store: self.clone(), worker: worker.into(), open: Open::None }
    }

    /// How large the delivery log is.
    pub async fn log_size(&self) -> anyhow::Result<LogSize> {
        log_size(&self.inner.pool, &self.inner.url).await.context("could not measure the delivery log")
    }
}

/// How large the delivery log of a store is.
pub(in crate::store) async fn log_size(pool: &Pool, url: &StoreUrl) -> Result<LogSize, sqlx::Error> {
    match (pool, url.path()) {
        (Pool::Sqlite(_), Some(path)) => Ok(sqlite::size(path)),
        (Pool::Postgres(pool), _) => postgres::size(&mut *pool.acquire().await?).await,
        (Pool::Sqlite(_), None) => Ok(LogSize::default()),
    }
}

/// The days there are, newest first.
pub(super) async fn days(store: &Store) -> Result<Vec<Day>, sqlx::Error> {
    match (&store.inner.pool, store.inner.url.path()) {
        (Pool::Sqlite(_), Some(path)) => sqlite::days(path).map_err(sqlx::Error::Io),
        (Pool::Postgres(pool), _) => postgres::days(&mut *pool.acquire().await?).await,
        (Pool::Sqlite(_), None) => Ok(Vec::new()),
    }
}

impl DeliveryLog {
    /// Writes records, each in the table of its day.
    pub async fn write(&mut self, records: &[Record]) -> Result<(), LogError> {
        let worker = Arc::clone(&self.worker);
        let mut by_day: BTreeMap<Day, Vec<Row<'_>>> = BTreeMap::new();
        for record in records {
            by_day.entry(Day::of(record.at_ms)).or_default().push(Row::of(record, &worker));
        }
        for (day, rows) in by_day {
            let written = self.write_day(day, &rows).await;
            if written.is_err() {
                // Whatever was open is not to be trusted: a file that was removed, a table that was dropped.
                self.open = Open::None;
            }
            written.map_err(LogError::of)?;
        }
        Ok(())
    }

    async fn write_day(&mut self, day: Day, rows: &[Row<'_>]) -> Result<(), sqlx::Error> {
        match (&self.store.inner.pool, self.store.inner.url.path()) {
            (Pool::Sqlite(_), Some(path)) => {
                // A file that another process removed would go on taking rows that nobody can find.
                let is_open = matches!(self.open, Open::Sqlite(open, _) if open == day);
                if !is_open || !sqlite::is_there(path, day) {
                    self.open = Open::Sqlite(day, sqlite::make(path, day).await?);
                }
                let Open::Sqlite(_, connection) = &mut self.open else { return Ok(()) };
                sqlite::insert(connection, day, rows).await
            }
            (Pool::Postgres(pool), _) => {
                let mut connection = pool.acquire().await?;
                if !matches!(self.open, Open::Postgres(open) if open == day) {
                    postgres::make(&mut connection, day).await?;
                    self.open = Open::Postgres(day);
                }
                postgres::insert(&mut connection, day, rows).await
            }
            (Pool::Sqlite(_), None) => Ok(()),
        }
    }

    /// Drops every day before the last `days` whole ones before now; returns how many.
    pub async fn forget(&mut self, days: u32, now_ms: i64) -> anyhow::Result<u64> {
        let failed = "could not drop old days of the delivery log";
        let first_kept = Day::of(now_ms).before(days);
        let old = self::days(&self.store).await.context(failed)?;
        let mut dropped = 0;
        for day in old.into_iter().filter(|day| *day < first_kept) {
            if matches!(&self.open, Open::Sqlite(open, _) | Open::Postgres(open) if *open == day) {
                self.open = Open::None;
            }
            match (&self.store.inner.pool, self.store.inner.url.path()) {
                (Pool::Sqlite(_), Some(path)) => sqlite::remove(path, day).context(failed)?,
                (Pool::Postgres(pool), _) => {
                    let mut connection = pool.acquire().await.context(failed)?;
                    postgres::remove(&mut connection, day).await.context(failed)?;
                }
                (Pool::Sqlite(_), None) => {}
            }
            dropped += 1;
        }
        Ok(dropped)
    }
}
