//! What only SQLite has: a file, its write-ahead log, and waiting by asking again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteError, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, SqlitePool};
use tokio::time::{Instant, sleep};

use super::url::StoreUrl;
use super::{OpenError, files, opening, pool};

/// Whether the table of applied changes is there.
pub(super) const IS_MADE: &str =
    "SELECT count(*) > 0 FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'";

/// How long a statement waits for another process's write.
const BUSY_MAX: Duration = Duration::from_secs(5);
/// How long the start waits for another process that is making the store.
const MAKING_MAX: Duration = Duration::from_secs(10);
const MAKING_PAUSE: Duration = Duration::from_millis(10);

pub(super) fn migrator() -> Migrator {
    opening::migrator(&[
        (1, "start", include_str!("migrations/sqlite/0001_start.sql")),
        (2, "access", include_str!("migrations/sqlite/0002_access.sql")),
        (4, "dead letter groups", include_str!("migrations/sqlite/0004_dead_letter_groups.sql")),
        (5, "batches", include_str!("migrations/sqlite/0005_batches.sql")),
        (6, "streaks and notices", include_str!("migrations/sqlite/0006_streaks_and_notices.sql")),
    ])
}

/// Makes folder 0700 and file 0600 where they are missing, and switches to a write-ahead log.
pub(super) async fn make(url: &StoreUrl, path: &Path) -> Result<(), OpenError> {
    files::make_folder_of(path)
        .and_then(|()| files::make_file(path))
        .with_context(|| format!("could not make the store at `{url}`"))?;
    let failed = || format!("could not open the store at `{url}`");
    connect_to_make(path).await.with_context(failed)?.close().await.with_context(failed)?;
    Ok(())
}

/// Opens a store whose file is there; a missing one is [`OpenError::Missing`].
pub(super) async fn open(url: &StoreUrl, path: &Path) -> Result<SqlitePool, OpenError> {
    let there = path.try_exists().with_context(|| format!("could not look for the store at `{url}`"))?;
    if !there {
        return Err(OpenError::Missing { url: url.clone() });
    }
    let options = SqlitePoolOptions::new()
        .max_connections(pool::CONNECTIONS_MAX)
        .acquire_timeout(BUSY_MAX)
        // SQLite ends a transaction itself when the disk is full. sqlx does not see that, cannot roll back what
        // is gone, and would refuse to begin on this connection for ever.
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }));
    let pool = options.connect_with(self::options(path)).await;
    Ok(pool.with_context(|| format!("could not open the store at `{url}`"))?)
}

/// Bytes of the file and its log together.
pub(super) fn bytes(path: &Path) -> u64 {
    let files = [path.to_owned(), log_path(path)];
    files.iter().filter_map(|file| std::fs::metadata(file).ok()).map(|file| file.len()).sum()
}

/// Tells a row that will never go in from a file that is busy or full: the primary codes `TOOBIG` (18),
/// `CONSTRAINT` (19) and `MISMATCH` (20) speak of the row (<https://sqlite.org/rescode.html>).
pub(super) fn is_refusal(error: &SqliteError) -> bool {
    matches!(primary_code(error), Some(18..=20))
}

/// The log that SQLite keeps beside its file.
fn log_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(BUSY_MAX)
        .foreign_keys(true)
        // A dead letter is acknowledged after its commit: with less than this the last commits before a
        // power cut could be gone.
        .synchronous(SqliteSynchronous::Full)
}

/// Connects and switches to a write-ahead log, which stays with the file. SQLite refuses that switch
/// without waiting while another process looks at the file, so it is tried again for a while.
async fn connect_to_make(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let options = options(path).journal_mode(SqliteJournalMode::Wal);
    let give_up = Instant::now() + MAKING_MAX;
    loop {
        match options.connect().await {
            Err(error) if is_busy(&error) && Instant::now() < give_up => sleep(MAKING_PAUSE).await,
            result => return result,
        }
    }
}

/// `SQLITE_BUSY` (5) or `SQLITE_LOCKED` (6).
fn is_busy(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<SqliteError>());
    error.is_some_and(|error| matches!(primary_code(error), Some(5 | 6)))
}

/// The low byte of the code.
fn primary_code(error: &SqliteError) -> Option<i32> {
    use sqlx::error::DatabaseError as _;
    let code: i32 = error.code()?.parse().ok()?;
    Some(code & 0xff)
}
