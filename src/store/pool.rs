//! The connections to a store: two kinds of pool behind one set of methods.
//!
//! Everything above speaks SQL that both engines understand; what differs in how they are reached, locked
//! and read as of one moment is here, in [`sqlite`] and in [`postgres`].

use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres, Sqlite, SqlitePool};

use super::statement::{Statement, bounded};
use super::url::StoreUrl;
use super::{OpenError, postgres, sqlite};

/// One writes, the others read meanwhile.
pub(super) const CONNECTIONS_MAX: u32 = 4;

pub(super) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Pool {
    /// Connects to a store that is there; never makes a file.
    pub(super) async fn open(url: &StoreUrl) -> Result<Pool, OpenError> {
        match url {
            StoreUrl::Sqlite { path } => Ok(Pool::Sqlite(sqlite::open(url, path).await?)),
            StoreUrl::Postgres(text) => Ok(Pool::Postgres(postgres::open(url, text).await?)),
        }
    }

    /// Connects to a store that may have to be made: with SQLite, its file.
    pub(super) async fn make(url: &StoreUrl) -> Result<Pool, OpenError> {
        if let StoreUrl::Sqlite { path } = url {
            sqlite::make(url, path).await?;
        }
        Pool::open(url).await
    }

    /// One connection, for a single statement.
    pub(super) async fn acquire(&self) -> Result<Connection, sqlx::Error> {
        Ok(match self {
            Pool::Sqlite(pool) => Connection::Sqlite(pool.acquire().await?),
            Pool::Postgres(pool) => Connection::Postgres(pool.acquire().await?),
        })
    }

    /// A transaction that sees one state of the store throughout, whatever is written meanwhile.
    pub(super) async fn begin_read(&self) -> Result<Transaction, sqlx::Error> {
        self.begin("BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await
    }

    /// A transaction that may write. SQLite: it takes the write lock at once, since a transaction that
    /// turned from reading to writing could be refused as busy without any waiting. Postgres: each statement
    /// sees what was committed before it, so one that waited for a row sees the row as it is then.
    pub(super) async fn begin_write(&self) -> Result<Transaction, sqlx::Error> {
        self.begin("BEGIN IMMEDIATE", "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE").await
    }

    /// A transaction in which no other process makes or upgrades the store.
    pub(super) async fn begin_migration(&self) -> Result<Transaction, sqlx::Error> {
        let mut transaction = self.begin_write().await?;
        if let Transaction::Postgres(transaction) = &mut transaction {
            postgres::lock_for_migration(transaction).await?;
        }
        Ok(transaction)
    }

    async fn begin(&self, sqlite: &'static str, postgres: &'static str) -> Result<Transaction, sqlx::Error> {
        Ok(match self {
            Pool::Sqlite(pool) => Transaction::Sqlite(pool.begin_with(sqlite).await?),
            Pool::Postgres(pool) => Transaction::Postgres(bounded(pool.begin_with(postgres)).await?),
        })
    }

    pub(super) async fn close(&self) {
        match self {
            Pool::Sqlite(pool) => pool.close().await,
            Pool::Postgres(pool) => pool.close().await,
        }
    }
}

/// What statements are run on.
pub(super) trait Session: Send {
    fn query(&mut self, text: &'static str) -> Statement<'_>;
}

/// A connection outside of any transaction.
pub(super) enum Connection {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

impl Session for Connection {
    fn query(&mut self, text: &'static str) -> Statement<'_> {
        match self {
            Connection::Sqlite(connection) => Statement::sqlite(connection, text),
            Connection::Postgres(connection) => Statement::postgres(connection, text),
        }
    }
}

/// A transaction; dropped without [`Transaction::commit`] it leaves nothing behind.
pub(super) enum Transaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

impl Transaction {
    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Transaction::Sqlite(transaction) => transaction.commit().await,
            Transaction::Postgres(transaction) => bounded(transaction.commit()).await,
        }
    }

    /// Applies the changes that are pending.
    pub(super) async fn migrate(&mut self) -> Result<(), sqlx::migrate::MigrateError> {
        // `run` is not `Send` for a borrowed connection; this is what sqlx itself has for that.
        match self {
            Transaction::Sqlite(transaction) => {
                sqlite::migrator().run_direct(None, &mut **transaction, false).await
            }
            Transaction::Postgres(transaction) => {
                postgres::migrator().run_direct(None, &mut **transaction, false).await
            }
        }
    }
}

impl Session for Transaction {
    fn query(&mut self, text: &'static str) -> Statement<'_> {
        match self {
            Transaction::Sqlite(transaction) => Statement::sqlite(transaction, text),
            Transaction::Postgres(transaction) => Statement::postgres(transaction, text),
        }
    }
}
