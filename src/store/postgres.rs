//! What only PostgreSQL has: a server that may be away, its sessions' limits, and a lock without a table.

use std::io;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgPoolOptions};
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool};
use tokio::time::timeout;

use super::url::StoreUrl;
use super::{OpenError, opening, pool};

/// Whether the table of applied changes is there, wherever `search_path` leads.
pub(super) const IS_MADE: &str = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";

/// Bytes of all tables with their indexes.
pub(super) const BYTES: &str =
    "SELECT CAST(coalesce(sum(pg_total_relation_size(to_regclass(name))), 0) AS bigint)
    FROM (VALUES ('meta'), ('counters'), ('tenants'), ('subscriptions'), ('dead_letters'),
        ('replay_jobs'), ('replay_items'), ('batches'), ('batch_documents'),
        ('batch_outbox'), ('batch_sweep'), ('batch_workers'), ('api_keys'), ('audit'), ('kept_answers'),
        ('streaks'), ('notices')) AS ours (name)";

/// How long a call waits for a connection, a new one included.
const ACQUIRE_MAX: Duration = Duration::from_secs(5);
/// How long a connection that was given back may take to prove that it is well.
const RELEASE_MAX: Duration = Duration::from_secs(5);

/// Limits of every session. A process that is frozen in the middle of a change would otherwise hold the
/// counter, and with it everybody's changes, until somebody finds it.
const SESSION: &str = "SET statement_timeout = '30s'; SET lock_timeout = '5s';
    SET idle_in_transaction_session_timeout = '15s'; SET client_min_messages = warning";

/// Processes that start together wait for the one that makes the store; a change may take its time.
const MIGRATION: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '60s';
    SET LOCAL idle_in_transaction_session_timeout = 0";

/// Any number that no other program in this database uses: "paperboy" in ASCII.
const MIGRATION_LOCK: i64 = 0x7061_7065_7262_6f79;

pub(super) fn migrator() -> Migrator {
    let mut migrator = opening::migrator(&[
        (1, "start", include_str!("migrations/postgres/0001_start.sql")),
        (2, "access", include_str!("migrations/postgres/0002_access.sql")),
        (4, "dead letter groups", include_str!("migrations/postgres/0004_dead_letter_groups.sql")),
        (5, "batches", include_str!("migrations/postgres/0005_batches.sql")),
        (6, "streaks and notices", include_str!("migrations/postgres/0006_streaks_and_notices.sql")),
    ]);
    // sqlx would take a lock of the session, which outlives a transaction that fails: ours does not.
    migrator.set_locking(false);
    migrator
}

/// Connects to the database, which must be there; its tables need not.
pub(super) async fn open(url: &StoreUrl, text: &str) -> Result<PgPool, OpenError> {
    let unreachable = |error: sqlx::Error| OpenError::Unreachable { url: url.clone(), why: told(&error) };
    let options: PgConnectOptions = text.parse().map_err(unreachable)?;
    let options = match options.get_application_name() {
        Some(_) => options,
        None => options.application_name("paperboy"),
    };
    // Once outside of the pool, which would only say that it waited in vain.
    let first = timeout(ACQUIRE_MAX, PgConnection::connect_with(&options)).await;
    let silent = |_| sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "no answer within 5 s"));
    let first = first.map_err(silent).map_err(unreachable)?;
    let _ = first.map_err(unreachable)?.close().await;
    let pool = PgPoolOptions::new()
        .max_connections(pool::CONNECTIONS_MAX)
        .acquire_timeout(ACQUIRE_MAX)
        .after_connect(|connection, _| Box::pin(async move { connection.execute(SESSION).await.map(drop) }))
        // Without a limit a host that is gone would keep its connections, and so all places in the pool,
        // for as long as TCP goes on trying: a quarter of an hour.
        .after_release(|connection, _| {
            Box::pin(async move {
                let well = timeout(RELEASE_MAX, connection.ping()).await;
                well.unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into()))).map(|()| true)
            })
        })
        .connect_with(options);
    pool.await.map_err(unreachable)
}

/// Waits for every other process that makes or upgrades a store in this database, until the transaction
/// ends.
pub(super) async fn lock_for_migration(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    connection.execute(MIGRATION).await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK).execute(connection).await?;
    Ok(())
}

/// Tells a row that will never go in from a server that is busy, full or going away, by the code's class:
/// 22 is data it cannot hold, such as NUL in text, 23 a broken rule, 54 something too large for an index
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
pub(super) fn is_refusal(error: &PgDatabaseError) -> bool {
    matches!(error.code().get(..2), Some("22" | "23" | "54"))
}

/// The server's own words, without sqlx's around them.
fn told(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite;

    #[test]
    fn both_engines_have_the_same_changes() {
        let numbered = |migrator: Migrator| -> Vec<(i64, String)> {
            migrator.iter().map(|change| (change.version, change.description.to_string())).collect()
        };
        assert_eq!(numbered(migrator()), numbered(sqlite::migrator()));
    }
}
