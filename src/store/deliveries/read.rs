//! Reading the delivery log: a page of rows by filter, and everything about one event or document.

use std::fmt;

use anyhow::Context as _;
use sqlx::pool::PoolConnection;
use sqlx::{Postgres, SqliteConnection};

use super::day::Day;
use super::{What, sqlite, write};
use crate::store::Store;
use crate::store::pool::{Pool, Session};
use crate::store::statement::{Row, Statement};

/// Rows of one event or document that are read; a delivery of ten attempts to a hundred subscribers has fewer.
const LIFE_ROWS_MAX: u32 = 2000;

/// Which rows to list; `Default` is the newest of all.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    pub tenant: Option<String>,
    pub subscription: Option<String>,
    pub event: Option<String>,
    pub document: Option<String>,
    pub batch: Option<String>,
    /// The event's type, exactly.
    pub kind: Option<String>,
    /// A class or cause: `tls` finds `tls_expired` too.
    pub class: Option<String>,
    pub status: Option<StatusRange>,
    pub what: Option<What>,
    /// Not before this moment, in Unix milliseconds.
    pub since_ms: Option<i64>,
    /// Before this moment, in Unix milliseconds.
    pub until_ms: Option<i64>,
    /// Only failed attempts and deliveries that were given up, calls that were not taken included.
    pub failures: bool,
    pub limit: u32,
    /// After the last row of the page before.
    pub after: Option<Cursor>,
}

/// How far a list goes back where nobody says so and it looks through every row.
const LOOKED_THROUGH_MS: i64 = 86_400_000;

impl DeliveryFilter {
    /// With a `since_ms` in any case where the log has no index for it: a day before `until_ms`, or before now.
    #[must_use]
    pub fn bounded(self, now_ms: i64) -> DeliveryFilter {
        if self.since_ms.is_some() || self.is_indexed() {
            return self;
        }
        let end_ms = self.until_ms.unwrap_or(now_ms).min(now_ms);
        DeliveryFilter { since_ms: Some(end_ms.saturating_sub(LOOKED_THROUGH_MS)), ..self }
    }

    fn is_indexed(&self) -> bool {
        self.event.is_some() || self.document.is_some() || self.subscription.is_some()
    }
}

/// `503` or `5xx`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange {
    pub first: u16,
    pub last: u16,
}

impl StatusRange {
    pub fn parse(text: &str) -> Option<StatusRange> {
        if let [hundred @ b'1'..=b'9', b'x', b'x'] = text.as_bytes() {
            let first = u16::from(hundred - b'0') * 100;
            return Some(StatusRange { first, last: first + 99 });
        }
        let status = text.parse().ok().filter(|status| (100..=999).contains(status))?;
        Some(StatusRange { first: status, last: status })
    }
}

/// A place in the log, written `20261122.1234`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    day: Day,
    id: i64,
}

impl Cursor {
    pub fn parse(text: &str) -> Option<Cursor> {
        let (day, id) = text.split_once('.')?;
        Some(Cursor { day: Day::parse(day)?, id: id.parse().ok()? })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.day, self.id)
    }
}

/// A row of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRow {
    pub place: Cursor,
    pub at_ms: i64,
    pub what: What,
    pub event_id: String,
    pub event_type: String,
    pub tenant: String,
    pub document_id: Option<String>,
    pub batch_id: Option<String>,
    pub subscription: Option<String>,
    pub attempt: u32,
    pub cycle: u32,
    pub status: Option<u16>,
    /// The word of a cause.
    pub class: Option<String>,
    pub reason: Option<String>,
    pub elapsed_ms: Option<u64>,
    /// In units.
    pub wait: Option<u32>,
    pub received_ms: Option<i64>,
    pub worker: String,
}

/// A page of rows, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub rows: Vec<DeliveryRow>,
    /// Where the next page begins; none after the last.
    pub next: Option<Cursor>,
}

/// A connection to where a day is kept.
enum DaySession {
    Sqlite(SqliteConnection),
    Postgres(PoolConnection<Postgres>),
}

impl Session for DaySession {
    fn query(&mut self, text: &'static str) -> Statement<'_> {
        match self {
            DaySession::Sqlite(connection) => Statement::sqlite(connection, text),
            DaySession::Postgres(connection) => Statement::postgres(connection, text),
        }
    }
}

const SELECT: &str =
    "SELECT id, at_ms, what, event_id, event_type, tenant, document_id, batch_id, subscription,
    attempt, cycle, status, class, reason, elapsed_ms, wait, received_ms, worker FROM deliveries_";

impl Store {
    /// A page of the delivery log, newest first.
    ///
    /// Quick by event, document or subscription; other filters look through a day row by row, newest day
    /// first, until the page is full: [`DeliveryFilter::bounded`] bounds that.
    pub async fn deliveries(&self, filter: &DeliveryFilter) -> anyhow::Result<Page> {
        let failed = "could not read the delivery log";
        let limit = filter.limit.max(1) as usize;
        let mut rows = Vec::new();
        for day in write::days(self).await.context(failed)? {
            if !is_wanted(day, filter) {
                continue;
            }
            // One more than asked for, to know whether there is another page.
            let missing = limit + 1 - rows.len();
            rows.extend(self.deliveries_of(day, filter, missing).await.context(failed)?);
            if rows.len() > limit {
                break;
            }
        }
        let next = (rows.len() > limit).then(|| rows.truncate(limit)).and(rows.last().map(|row| row.place));
        Ok(Page { rows, next })
    }

    /// Everything the log has of an event or a document, oldest first; at most 2000 rows, the newest.
    pub async fn delivery_life(&self, filter: &DeliveryFilter) -> anyhow::Result<Vec<DeliveryRow>> {
        let page = self.deliveries(&DeliveryFilter { limit: LIFE_ROWS_MAX, ..filter.clone() }).await?;
        let mut rows = page.rows;
        rows.sort_by_key(|row| (row.at_ms, row.place.id));
        Ok(rows)
    }

    async fn deliveries_of(
        &self,
        day: Day,
        filter: &DeliveryFilter,
        limit: usize,
    ) -> anyhow::Result<Vec<DeliveryRow>> {
        let mut session = match (&self.inner.pool, self.inner.url.path()) {
            (Pool::Sqlite(_), Some(path)) => match sqlite::open(path, day).await? {
                Some(connection) => DaySession::Sqlite(connection),
                None => return Ok(Vec::new()),
            },
            (Pool::Postgres(pool), _) => DaySession::Postgres(pool.acquire().await?),
            (Pool::Sqlite(_), None) => return Ok(Vec::new()),
        };
        let mut query = session.query(SELECT);
        query.push_day(day);
        let rows = match chosen(query, day, filter, limit).fetch_all().await {
            // Dropped since the days were listed, or being made.
            Err(error) if is_missing(&error) => Vec::new(),
            rows => rows?,
        };
        rows.iter().map(|row| read(row, day)).collect()
    }
}

fn is_wanted(day: Day, filter: &DeliveryFilter) -> bool {
    filter.since_ms.is_none_or(|since| day >= Day::of(since))
        && filter.until_ms.is_none_or(|until| day <= Day::of(until))
        && filter.after.is_none_or(|after| day <= after.day)
}

/// SQLite says it in words only; Postgres has a code for it (`undefined_table`).
fn is_missing(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else { return false };
    error.code().is_some_and(|code| code == "42P01") || error.message().starts_with("no such table")
}

fn chosen<'c>(mut query: Statement<'c>, day: Day, filter: &DeliveryFilter, limit: usize) -> Statement<'c> {
    query.push(" WHERE 1 = 1");
    let equals = [
        (" AND tenant = ", filter.tenant.as_deref()),
        (" AND subscription = ", filter.subscription.as_deref()),
        (" AND event_id = ", filter.event.as_deref()),
        (" AND document_id = ", filter.document.as_deref()),
        (" AND batch_id = ", filter.batch.as_deref()),
        (" AND event_type = ", filter.kind.as_deref()),
        (" AND what = ", filter.what.map(What::as_str)),
    ];
    for (column, value) in equals {
        if let Some(value) = value {
            query.push_bind(column, value);
        }
    }
    if let Some(class) = &filter.class {
        let finer = format!("{class}_");
        query.push_bind(" AND (class = ", class);
        // Postgres has no `substr` for the wider number.
        let characters = i32::try_from(finer.chars().count()).unwrap_or(i32::MAX);
        query.push_bind(" OR substr(class, 1, ", characters);
        query.push_bind(") = ", finer);
        query.push(")");
    }
    if let Some(status) = filter.status {
        query.push_bind(" AND status BETWEEN ", i64::from(status.first));
        query.push_bind(" AND ", i64::from(status.last));
    }
    if filter.failures {
        query.push(" AND what IN ('retry', 'dead', 'answered')");
    }
    if let Some(since) = filter.since_ms {
        query.push_bind(" AND at_ms >= ", since);
    }
    if let Some(until) = filter.until_ms {
        query.push_bind(" AND at_ms < ", until);
    }
    if let Some(after) = filter.after.filter(|after| after.day == day) {
        query.push_bind(" AND id < ", after.id);
    }
    query.push_bind(" ORDER BY id DESC LIMIT ", i64::try_from(limit).unwrap_or(i64::MAX));
    query
}

fn read(row: &Row, day: Day) -> anyhow::Result<DeliveryRow> {
    let number = |name: &str| -> anyhow::Result<Option<i64>> { Ok(row.get(name)?) };
    let small = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
    Ok(DeliveryRow {
        place: Cursor { day, id: row.get("id")? },
        at_ms: row.get("at_ms")?,
        what: What::parse(&row.get::<String>("what")?).context("a row of another version")?,
        event_id: row.get("event_id")?,
        event_type: row.get("event_type")?,
        tenant: row.get("tenant")?,
        document_id: row.get("document_id")?,
        batch_id: row.get("batch_id")?,
        subscription: row.get("subscription")?,
        attempt: small(number("attempt")?).unwrap_or_default(),
        cycle: small(number("cycle")?).unwrap_or_default(),
        status: number("status")?.and_then(|status| u16::try_from(status).ok()),
        class: row.get("class")?,
        reason: row.get("reason")?,
        elapsed_ms: number("elapsed_ms")?.and_then(|ms| u64::try_from(ms).ok()),
        wait: small(number("wait")?),
        received_ms: row.get("received_ms")?,
        worker: row.get("worker")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_index_finds_is_looked_for_within_a_day() {
        let (now_ms, day_ms) = (1_795_338_007_120, 86_400_000);
        let since = |filter: DeliveryFilter| filter.bounded(now_ms).since_ms;
        let any = DeliveryFilter::default;
        let of_acme = DeliveryFilter { tenant: Some("acme".into()), ..any() };
        assert_eq!(since(any()), Some(now_ms - day_ms));
        assert_eq!(since(of_acme.clone()), Some(now_ms - day_ms));
        assert_eq!(
            since(DeliveryFilter { until_ms: Some(77 * day_ms), ..of_acme.clone() }),
            Some(76 * day_ms)
        );
        assert_eq!(since(DeliveryFilter { until_ms: Some(now_ms + 5), ..any() }), Some(now_ms - day_ms));
        assert_eq!(since(DeliveryFilter { since_ms: Some(3), ..of_acme }), Some(3));
        for indexed in [
            DeliveryFilter { event: Some("evt_1".into()), ..any() },
            DeliveryFilter { document: Some("doc_1".into()), ..any() },
            DeliveryFilter { subscription: Some("sub_1".into()), ..any() },
        ] {
            assert_eq!(since(indexed), None);
        }
    }
}
