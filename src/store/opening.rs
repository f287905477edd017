//! Opening a store, and making one.
//!
//! Only [`Store::migrate`] creates or changes a store; [`Store::open`] never does, so that an empty local
//! file can never look like "no subscribers".

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sqlx::migrate::{Migrate as _, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, SqlSafeStr as _, SqliteConnection};
use tokio::time::{Instant, sleep};

use super::meta::{self, Meta};
use super::url::StoreUrl;
use super::{Inner, Store, files};
use crate::domain::seal::SealKey;

/// How long a statement waits for another process's write.
const BUSY_MAX: Duration = Duration::from_secs(5);
/// How long the start waits for another process that is making the store.
const MAKING_MAX: Duration = Duration::from_secs(10);
const MAKING_PAUSE: Duration = Duration::from_millis(10);
/// One writes, the others read meanwhile.
const CONNECTIONS_MAX: u32 = 4;

/// Why there is no open store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("no store at `{url}`: start `paperboy serve` or run `paperboy store migrate`")]
    Missing { url: StoreUrl },
    #[error("`{url}`: stores of this kind are not supported yet")]
    Unsupported { url: StoreUrl },
    #[error("the store at `{url}` lacks {pending} {} of this version", if *.pending == 1 { "change" } else { "changes" })]
    PendingMigrations { url: StoreUrl, pending: usize },
    #[error(
        "the store at `{url}` was made or changed by a newer version (its schema is {version}, ours {ours})"
    )]
    Newer { url: StoreUrl, version: i64, ours: i64 },
    #[error("the store at `{url}` was sealed with another secrets key (check value {store}, ours {ours})")]
    KeyMismatch { url: StoreUrl, store: String, ours: String },
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl OpenError {
    /// What to do next, where the message does not say it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            OpenError::Missing { .. } | OpenError::Other(_) => None,
            OpenError::Unsupported { .. } => Some("write `sqlite://PATH` in `store.url`"),
            OpenError::PendingMigrations { .. } => {
                Some("run `paperboy store migrate`, or start `paperboy serve` of this version")
            }
            OpenError::Newer { .. } => Some("run that version or a later one"),
            OpenError::KeyMismatch { .. } => Some(
                "set `secrets.key` to the key this store was made with, or put its `paperboy.key` back beside it",
            ),
        }
    }
}

impl Store {
    /// Opens the store, making or upgrading it first if need be: folder 0700, file 0600, tables, id.
    ///
    /// Processes that race to make it all succeed and see one id. A store sealed with another key is
    /// left untouched.
    pub async fn migrate(url: &StoreUrl, key: &SealKey) -> Result<Store, OpenError> {
        let path = sqlite_path(url)?;
        files::make_folder_of(path)
            .and_then(|()| files::make_file(path))
            .with_context(|| format!("could not make the store at `{url}`"))?;
        let mut connection =
            connect_to_make(path).await.with_context(|| format!("could not open the store at `{url}`"))?;
        let meta = migrate_all(&mut connection, url, key).await;
        // Closed also after a failure; what it could say then is the lesser news.
        let closed = connection.close().await;
        let meta = meta?;
        closed.with_context(|| format!("could not close the store at `{url}`"))?;
        Store::connect(url, path, key, meta).await
    }

    /// Opens a store that is there and up to date; never creates or changes one.
    pub async fn open(url: &StoreUrl, key: &SealKey) -> Result<Store, OpenError> {
        let path = sqlite_path(url)?;
        let mut connection = connect_if_there(url, path).await?;
        let meta = check(&mut connection, url, key).await;
        let closed = connection.close().await;
        let meta = meta?;
        closed.with_context(|| format!("could not close the store at `{url}`"))?;
        Store::connect(url, path, key, meta).await
    }

    async fn connect(url: &StoreUrl, path: &Path, key: &SealKey, meta: Meta) -> Result<Store, OpenError> {
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(BUSY_MAX)
            .connect_with(options(path))
            .await
            .with_context(|| format!("could not open the store at `{url}`"))?;
        Ok(Store {
            inner: Arc::new(Inner {
                url: url.clone(),
                pool,
                writing: tokio::sync::Mutex::new(()),
                key: key.clone(),
                id: meta.store_id,
                key_check: meta.key_check,
            }),
        })
    }
}

/// How many changes of ours a store has and lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) versions: Vec<i64>,
    pub(super) pending: usize,
}

/// Reads which changes were applied, from a store that may lack even the table for that.
pub(super) async fn applied(connection: &mut SqliteConnection, url: &StoreUrl) -> Result<Applied, OpenError> {
    let migrator = migrator();
    let read = async {
        // SQLite only, as is the name of its catalogue.
        let tables: i64 =
            sqlx::query_scalar("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = $1")
                .bind(&*migrator.table_name)
                .fetch_one(&mut *connection)
                .await?;
        if tables == 0 {
            return Ok(Vec::new());
        }
        anyhow::Ok(connection.list_applied_migrations(&migrator.table_name).await?)
    };
    let versions: Vec<i64> = read
        .await
        .with_context(|| format!("could not read the store at `{url}`"))?
        .into_iter()
        .map(|migration| migration.version)
        .collect();
    let ours = migrator.iter().map(|migration| migration.version).max().unwrap_or(0);
    match versions.iter().max() {
        Some(&version) if version > ours => Err(OpenError::Newer { url: url.clone(), version, ours }),
        _ => {
            let pending = migrator.iter().filter(|ours| !versions.contains(&ours.version)).count();
            Ok(Applied { versions, pending })
        }
    }
}

/// Connects to a store that is there; a missing one is [`OpenError::Missing`].
pub(super) async fn connect_if_there(url: &StoreUrl, path: &Path) -> Result<SqliteConnection, OpenError> {
    let there = path.try_exists().with_context(|| format!("could not look for the store at `{url}`"))?;
    if !there {
        return Err(OpenError::Missing { url: url.clone() });
    }
    Ok(options(path).connect().await.with_context(|| format!("could not open the store at `{url}`"))?)
}

/// The file of an SQLite store.
pub(super) fn sqlite_path(url: &StoreUrl) -> Result<&Path, OpenError> {
    url.path().ok_or_else(|| OpenError::Unsupported { url: url.clone() })
}

/// The log that SQLite keeps beside its file.
pub(super) fn log_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// How many changes lead from nothing to this version.
pub(super) fn steps() -> usize {
    migrator().iter().count()
}

fn migrator() -> Migrator {
    let start = include_str!("migrations/0001_start.sql").into_sql_str();
    Migrator::with_migrations(vec![Migration::new(1, "start".into(), MigrationType::Simple, start, false)])
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

/// `SQLITE_BUSY` (5) or `SQLITE_LOCKED` (6), the low byte of the code (<https://sqlite.org/rescode.html>).
fn is_busy(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(5 | 6))
}

/// SQLite's primary result code.
pub(super) fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// Applies what is pending and writes the meta, in one transaction that holds the write lock from the
/// start: a racing process waits and then finds everything done, and a refused key undoes it all.
async fn migrate_all(
    connection: &mut SqliteConnection,
    url: &StoreUrl,
    key: &SealKey,
) -> Result<Meta, OpenError> {
    let failed = || format!("could not migrate the store at `{url}`");
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.with_context(failed)?;
    applied(&mut transaction, url).await?;
    // `run` is not `Send` for a borrowed connection; this is what sqlx itself has for that.
    migrator().run_direct(None, &mut *transaction, false).await.with_context(failed)?;
    meta::write_once(&mut transaction, key).await.with_context(failed)?;
    let meta = meta::read(&mut transaction).await.with_context(failed)?;
    check_key(&meta, url, key)?;
    transaction.commit().await.with_context(failed)?;
    Ok(meta)
}

async fn check(connection: &mut SqliteConnection, url: &StoreUrl, key: &SealKey) -> Result<Meta, OpenError> {
    let applied = applied(connection, url).await?;
    if applied.pending > 0 {
        return Err(OpenError::PendingMigrations { url: url.clone(), pending: applied.pending });
    }
    let meta =
        meta::read(connection).await.with_context(|| format!("could not read the store at `{url}`"))?;
    check_key(&meta, url, key)?;
    Ok(meta)
}

fn check_key(meta: &Meta, url: &StoreUrl, key: &SealKey) -> Result<(), OpenError> {
    let ours = key.check_value();
    if meta.key_check == ours {
        return Ok(());
    }
    Err(OpenError::KeyMismatch { url: url.clone(), store: meta.key_check.clone(), ours })
}
