//! The store: who subscribes, what was given up, and how far changes have come.
//!
//! It is the truth that caches are filled from, and it stays off the path of a delivery. Whatever may
//! hold a secret is sealed before it reaches the engine, so no file of the database, its log included,
//! ever holds one in clear. No event is kept here except as a dead letter.
//!
//! SQLite only for now. A Postgres pool is to stand beside the SQLite one behind the same methods, so the
//! SQL keeps to what both understand where they agree; what only SQLite has is named so.

pub mod changes;
pub mod dead;
mod files;
pub mod key;
mod meta;
mod opening;
pub mod status;
pub mod subscriptions;
#[cfg(test)]
pub(crate) mod tests;
pub mod url;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use anyhow::Context as _;
use sqlx::{Sqlite, SqliteConnection, SqlitePool, Transaction};
use tokio::sync::{Mutex, MutexGuard};

pub use self::changes::Changes;
pub use self::dead::{
    DeadFilter, DeadLetter, DeadLetterFull, DeadLetterStore, DeadRow, DeadState, KeepError,
};
pub use self::opening::OpenError;
pub use self::status::StoreStatus;
pub use self::subscriptions::{BrokenRecord, ListFilter, SaveError, TenantRecord, Versioned};
pub use self::url::{StoreUrl, StoreUrlFault};
use crate::domain::seal::SealKey;

/// An open store; clones share its connections.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    url: StoreUrl,
    pool: SqlitePool,
    /// Held by whoever writes. SQLite lets one writer in at a time and has the others poll; within a
    /// process a queue is fairer and never times out behind a stream of others.
    writing: Mutex<()>,
    key: SealKey,
    id: String,
    key_check: String,
}

impl Store {
    /// The id that the store was given when it was made, a UUID.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Sixteen hex characters that are equal in two processes if their secrets keys are.
    pub fn key_check(&self) -> &str {
        &self.inner.key_check
    }

    /// Where the store is; its `Display` hides a password.
    pub fn url(&self) -> &StoreUrl {
        &self.inner.url
    }

    /// Waits for what is under way and closes the files; every later call on any clone fails.
    pub async fn close(&self) {
        self.inner.pool.close().await;
    }

    /// A transaction that sees one state of the store throughout, whatever is written meanwhile.
    async fn begin_read(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.inner.pool.begin().await
    }

    /// A transaction that may write. It takes the write lock at once (SQLite only: a transaction that
    /// turned from reading to writing could be refused as busy without any waiting).
    async fn begin_write(&self) -> Result<Write<'_>, sqlx::Error> {
        let turn = self.inner.writing.lock().await;
        let transaction = self.inner.pool.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Write { transaction, _turn: turn })
    }

    /// Encrypts `plain` so that it opens only as the record that `associated` names.
    fn seal(&self, associated: &[u8], plain: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut nonce = [0; 24];
        getrandom::fill(&mut nonce).context("the system gave no random bytes")?;
        Ok(self.inner.key.seal(nonce, associated, plain))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Store({}, {})", self.inner.url, self.inner.id)
    }
}

/// A transaction that may write; dropped without [`Write::commit`] it leaves nothing behind.
struct Write<'a> {
    // Before `_turn`, so that it is given back before the next writer starts.
    transaction: Transaction<'static, Sqlite>,
    _turn: MutexGuard<'a, ()>,
}

impl Write<'_> {
    async fn commit(self) -> Result<(), sqlx::Error> {
        self.transaction.commit().await
    }
}

impl Deref for Write<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.transaction
    }
}

impl DerefMut for Write<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }
}

/// A count from a signed column; the columns it is used for are never negative.
fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A count for a signed column.
fn column(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
