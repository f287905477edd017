//! The delivery log in PostgreSQL: one table a day.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};

use super::LogSize;
use super::day::{Day, TABLE};
use super::write::{COLUMNS, Row};
use crate::store::statement::bounded;

/// Any number that no other program in this database uses: "paperlog" in ASCII.
const MAKING_LOCK: i64 = 0x7061_7065_726c_6f67;

/// Tables of days, wherever `search_path` leads.
const TABLES: &str = "SELECT relname::text AS name, CAST(pg_total_relation_size(oid) AS bigint) AS bytes
    FROM pg_class WHERE relkind = 'r' AND relname ~ '^deliveries_[0-9]{8}$' AND pg_table_is_visible(oid)";

async fn tables(connection: &mut PgConnection) -> Result<Vec<(Day, u64)>, sqlx::Error> {
    let rows = bounded(sqlx::query(TABLES).fetch_all(connection)).await?;
    let mut days = Vec::new();
    for row in rows {
        let name: String = row.try_get("name")?;
        let bytes: i64 = row.try_get("bytes")?;
        days.extend(Day::of_table(&name).map(|day| (day, crate::store::count(bytes))));
    }
    days.sort_unstable_by(|one, other| other.cmp(one));
    Ok(days)
}

/// The days that have a table, newest first.
pub(super) async fn days(connection: &mut PgConnection) -> Result<Vec<Day>, sqlx::Error> {
    Ok(tables(connection).await?.into_iter().map(|(day, _)| day).collect())
}

pub(super) async fn size(connection: &mut PgConnection) -> Result<LogSize, sqlx::Error> {
    let tables = tables(connection).await?;
    Ok(LogSize { days: tables.len() as u64, bytes: tables.iter().map(|(_, bytes)| bytes).sum() })
}

pub(super) async fn remove(connection: &mut PgConnection, day: Day) -> Result<(), sqlx::Error> {
    let text = AssertSqlSafe(format!("DROP TABLE IF EXISTS {TABLE}{day}"));
    bounded(connection.execute(text)).await.map(drop)
}

/// Makes the table of a day. Two processes that made it at once would not both succeed, `IF NOT EXISTS` or
/// not: hence the lock, which ends with the transaction.
pub(super) async fn make(connection: &mut PgConnection, day: Day) -> Result<(), sqlx::Error> {
    let mut made = bounded(connection.begin()).await?;
    bounded(sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MAKING_LOCK).execute(&mut *made)).await?;
    let text = format!(
        "CREATE TABLE IF NOT EXISTS {TABLE}{day} (
             id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at_ms BIGINT NOT NULL, what TEXT NOT NULL,
             event_id TEXT COLLATE \"C\" NOT NULL, event_type TEXT COLLATE \"C\" NOT NULL,
             tenant TEXT COLLATE \"C\" NOT NULL, document_id TEXT COLLATE \"C\", batch_id TEXT COLLATE \"C\",
             subscription TEXT COLLATE \"C\", attempt BIGINT NOT NULL, cycle BIGINT NOT NULL, status BIGINT,
             class TEXT COLLATE \"C\", reason TEXT, elapsed_ms BIGINT, wait BIGINT, received_ms BIGINT,
             worker TEXT NOT NULL
         );
         CREATE INDEX IF NOT EXISTS {TABLE}{day}_event ON {TABLE}{day} (event_id);
         CREATE INDEX IF NOT EXISTS {TABLE}{day}_document ON {TABLE}{day} (document_id)
             WHERE document_id IS NOT NULL;
         CREATE INDEX IF NOT EXISTS {TABLE}{day}_subscription ON {TABLE}{day} (subscription, at_ms)
             WHERE subscription IS NOT NULL"
    );
    bounded(made.execute(AssertSqlSafe(text))).await?;
    bounded(made.commit()).await
}

/// Writes rows of one day in one statement: a column is an array, so its text is always the same.
pub(super) async fn insert(
    connection: &mut PgConnection,
    day: Day,
    rows: &[Row<'_>],
) -> Result<(), sqlx::Error> {
    /// One array of all rows' values.
    macro_rules! column {
        ($of:expr) => {
            rows.iter().map($of).collect::<Vec<_>>()
        };
    }
    let text = format!(
        "INSERT INTO {TABLE}{day} ({}) SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::text[], $4::text[],
             $5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[], $10::bigint[], $11::bigint[],
             $12::text[], $13::text[], $14::bigint[], $15::bigint[], $16::bigint[], $17::text[])",
        COLUMNS.join(",")
    );
    let query = sqlx::query(AssertSqlSafe(text))
        .bind(column!(|row| row.at_ms))
        .bind(column!(|row| row.what))
        .bind(column!(|row| row.event_id))
        .bind(column!(|row| row.event_type))
        .bind(column!(|row| row.tenant))
        .bind(column!(|row| row.document_id.as_deref()))
        .bind(column!(|row| row.batch_id.as_deref()))
        .bind(column!(|row| row.subscription))
        .bind(column!(|row| row.attempt))
        .bind(column!(|row| row.cycle))
        .bind(column!(|row| row.status))
        .bind(column!(|row| row.class))
        .bind(column!(|row| row.reason))
        .bind(column!(|row| row.elapsed_ms))
        .bind(column!(|row| row.wait))
        .bind(column!(|row| row.received_ms))
        .bind(column!(|row| row.worker));
    bounded(query.execute(connection)).await.map(drop)
}
