//! The delivery log in SQLite: one file a day beside the store.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{
    Arguments as _, AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, SqliteConnection,
};

use super::LogSize;
use super::day::Day;
use super::write::{COLUMNS, Row};
use crate::store::files;

/// How long a statement waits for another process that writes.
const BUSY_MAX: Duration = Duration::from_secs(2);
/// Rows of one statement, as many as there are left for; SQLite takes 32,766 values in one. Three texts that are read
/// once and kept: one for every number of rows would be read each time.
const ROWS: [usize; 3] = [128, 16, 1];

/// The file of a day: `paperboy.db` has `paperboy.deliveries-20261122.db`.
fn file(store: &Path, day: Day) -> PathBuf {
    let mut name = prefix(store);
    name.push_str(&format!("{day}.db"));
    store.with_file_name(name)
}

fn prefix(store: &Path) -> String {
    format!("{}.deliveries-", store.file_stem().unwrap_or_default().to_string_lossy())
}

/// The days that have a file, newest first.
pub(super) fn days(store: &Path) -> io::Result<Vec<Day>> {
    let prefix = prefix(store);
    let mut days = Vec::new();
    for entry in std::fs::read_dir(folder(store))? {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.strip_suffix(".db"));
        days.extend(digits.and_then(Day::parse));
    }
    days.sort_unstable_by(|one, other| other.cmp(one));
    Ok(days)
}

fn folder(store: &Path) -> &Path {
    match store.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Every file of a day with those that SQLite keeps beside it.
fn files_of(store: &Path, day: Day) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|end| {
        let mut name = file(store, day).into_os_string();
        name.push(end);
        PathBuf::from(name)
    })
}

pub(super) fn size(store: &Path) -> LogSize {
    let days = days(store).unwrap_or_default();
    let files = days.iter().flat_map(|day| files_of(store, *day));
    let bytes = files.filter_map(|file| std::fs::metadata(file).ok()).map(|file| file.len()).sum();
    LogSize { days: days.len() as u64, bytes }
}

/// Removes a day; one that is gone already is fine.
pub(super) fn remove(store: &Path, day: Day) -> io::Result<()> {
    for file in files_of(store, day) {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn options(store: &Path, day: Day) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file(store, day))
        .create_if_missing(false)
        .busy_timeout(BUSY_MAX)
        // The last seconds of a log may be lost with the power; the file stays whole.
        .synchronous(SqliteSynchronous::Normal)
        // Rows come in the order of time and their keys in none: pages of the indexes are kept at hand, and
        // written to the file only every 16 MiB.
        .pragma("cache_size", "-16384")
        .pragma("wal_autocheckpoint", "4000")
}

pub(super) fn is_there(store: &Path, day: Day) -> bool {
    file(store, day).exists()
}

/// Opens a day for reading; none if it is gone.
pub(super) async fn open(store: &Path, day: Day) -> Result<Option<SqliteConnection>, sqlx::Error> {
    if !is_there(store, day) {
        return Ok(None);
    }
    options(store, day).connect().await.map(Some)
}

/// Opens a day for writing, made if it is not there: a file of mode 0600.
pub(super) async fn make(store: &Path, day: Day) -> Result<SqliteConnection, sqlx::Error> {
    files::make_file(&file(store, day)).map_err(sqlx::Error::Io)?;
    let mut connection = options(store, day).journal_mode(SqliteJournalMode::Wal).connect().await?;
    let mut made = connection.begin_with("BEGIN IMMEDIATE").await?;
    for text in [
        format!(
            "CREATE TABLE IF NOT EXISTS deliveries_{day} (
                 id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, what TEXT NOT NULL, event_id TEXT NOT NULL,
                 event_type TEXT NOT NULL, tenant TEXT NOT NULL, document_id TEXT, batch_id TEXT,
                 subscription TEXT, attempt INTEGER NOT NULL, cycle INTEGER NOT NULL, status INTEGER,
                 class TEXT, reason TEXT, elapsed_ms INTEGER, wait INTEGER, received_ms INTEGER,
                 worker TEXT NOT NULL
             ) STRICT"
        ),
        format!("CREATE INDEX IF NOT EXISTS deliveries_{day}_event ON deliveries_{day} (event_id)"),
        format!(
            "CREATE INDEX IF NOT EXISTS deliveries_{day}_document ON deliveries_{day} (document_id)
             WHERE document_id IS NOT NULL"
        ),
        format!(
            "CREATE INDEX IF NOT EXISTS deliveries_{day}_subscription ON deliveries_{day} (subscription, at_ms)
             WHERE subscription IS NOT NULL"
        ),
    ] {
        made.execute(AssertSqlSafe(text)).await?;
    }
    made.commit().await?;
    Ok(connection)
}

/// Writes rows of one day in one transaction.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    day: Day,
    rows: &[Row<'_>],
) -> Result<(), sqlx::Error> {
    let mut write = connection.begin_with("BEGIN IMMEDIATE").await?;
    let mut rest = rows;
    for at_once in ROWS {
        let text = text(day, at_once);
        let whole = rest.chunks_exact(at_once);
        rest = whole.remainder();
        for rows in whole {
            let mut values = SqliteArguments::default();
            for row in rows {
                bind(&mut values, row).map_err(sqlx::Error::Encode)?;
            }
            sqlx::query_with(AssertSqlSafe(text.as_str()), values).execute(&mut *write).await?;
        }
    }
    write.commit().await
}

fn text(day: Day, rows: usize) -> String {
    let places = format!("({})", vec!["?"; COLUMNS.len()].join(","));
    format!("INSERT INTO deliveries_{day} ({}) VALUES {}", COLUMNS.join(","), vec![places; rows].join(","))
}

/// In the order of [`COLUMNS`].
fn bind(values: &mut SqliteArguments, row: &Row<'_>) -> Result<(), sqlx::error::BoxDynError> {
    values.add(row.at_ms)?;
    values.add(row.what)?;
    values.add(row.event_id)?;
    values.add(row.event_type)?;
    values.add(row.tenant)?;
    values.add(row.document_id.as_deref())?;
    values.add(row.batch_id.as_deref())?;
    values.add(row.subscription)?;
    values.add(row.attempt)?;
    values.add(row.cycle)?;
    values.add(row.status)?;
    values.add(row.class)?;
    values.add(row.reason)?;
    values.add(row.elapsed_ms)?;
    values.add(row.wait)?;
    values.add(row.received_ms)?;
    values.add(row.worker)
}
