//! The store: who subscribes, what was given up, who may use the API, and how far changes have come.
//!
//! It is the truth that caches are filled from, and it stays off the path of a delivery. Whatever may
//! hold a secret is sealed before it reaches the engine, so no file of the database, its log included,
//! ever holds one in clear. No event is kept here except as a dead letter; the delivery log holds names and
//! numbers only.
//!
//! Two engines, one set of methods: SQLite in a file, or PostgreSQL by its address. The SQL is written once,
//! in what both understand; `statement` and `pool` carry it to either, and what only one of them has is in
//! `sqlite` and in `postgres`.

pub mod access;
pub mod audit;
pub mod batches;
pub mod changes;
pub mod dead;
pub mod deliveries;
mod files;
pub mod kept;
pub mod key;
mod meta;
pub mod notices;
mod opening;
mod pool;
mod postgres;
pub mod replays;
pub mod rotation;
mod sealing;
mod seconds;
mod sqlite;
mod statement;
pub mod status;
pub mod streaks;
pub mod subscriptions;
#[cfg(test)]
pub(crate) mod tests;
pub mod url;

use std::fmt;
use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

pub use self::access::KeyRow;
pub use self::audit::{AuditFilter, AuditLine, Note};
pub use self::changes::Changes;
pub use self::dead::{
    DeadFilter, DeadGroup, DeadLetter, DeadLetterFull, DeadLetterStore, DeadRow, DeadState, KeepError,
};
pub use self::deliveries::DeliveryLog;
pub use self::kept::{Given, KeptAnswer};
pub use self::opening::OpenError;
use self::pool::{Pool, Session, Transaction};
pub use self::rotation::Resealed;
use self::sealing::Sealing;
use self::statement::Statement;
pub use self::status::StoreStatus;
pub use self::subscriptions::{BrokenRecord, ListFilter, Removal, Save, SaveError, TenantRecord, Versioned};
pub use self::url::{StoreUrl, StoreUrlFault};
use crate::domain::keyring::Keyring;
use crate::domain::seal::SealFault;

/// An open store; clones share its connections.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    url: StoreUrl,
    pool: Pool,
    /// Held by whoever writes. SQLite lets one writer in at a time and has the others poll; with Postgres
    /// writers that wait would hold connections that readers need. Within a process a queue is fairer and
    /// never times out behind a stream of others.
    writing: Mutex<()>,
    key: Sealing,
    id: String,
}

impl Store {
    /// The id that the store was given when it was made, a UUID.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Sixteen hex characters that stand for the key secrets are sealed with, as far as this process knows.
    pub fn key_check(&self) -> String {
        self.inner.key.key().check_value()
    }

    /// Whether this process holds the key with this check value.
    pub fn holds_key(&self, check: &str) -> bool {
        self.keys().with_check(check).is_some()
    }

    /// The check value of the key that the store names, where this process does not hold it.
    pub fn missing_key(&self) -> Option<String> {
        self.inner.key.missing()
    }

    /// The keys of this process.
    pub fn keys(&self) -> &Keyring {
        self.inner.key.keys()
    }

    /// Where the store is; its `Display` hides a password.
    pub fn url(&self) -> &StoreUrl {
        &self.inner.url
    }

    /// Waits for what is under way and closes its connections; every later call on any clone fails.
    pub async fn close(&self) {
        self.inner.pool.close().await;
    }

    /// A transaction that may write, begun when no other of this process writes.
    async fn begin_write(&self) -> Result<Write<'_>, sqlx::Error> {
        let turn = self.inner.writing.lock().await;
        Ok(Write { transaction: self.inner.pool.begin_write().await?, _turn: turn })
    }

    /// A transaction that may write sealed records: until it ends nobody changes the key they are sealed with.
    async fn begin_sealed_write(&self) -> Result<Write<'_>, sqlx::Error> {
        let mut write = self.begin_write().await?;
        meta::hold_key(&mut write, &self.inner.key).await?;
        Ok(write)
    }

    /// Encrypts `plain` so that it opens only as the record that `associated` names. What the store itself keeps
    /// is sealed within `begin_sealed_write` or a change.
    ///
    /// # Errors
    /// A system without random bytes.
    pub fn seal(&self, associated: &[u8], plain: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.inner.key.seal(associated, plain)
    }

    /// A name for a record outside of the store that says nothing about what it is made of.
    pub fn name_of(&self, purpose: &str, content: &[u8]) -> String {
        self.inner.key.key().name_of(purpose, content)
    }

    /// Opens what [`Store::seal`] made under the same record name, with whichever key of this process.
    ///
    /// # Errors
    /// A key that is not held, an altered text, another record's.
    pub fn open_sealed(&self, associated: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealFault> {
        self.inner.key.open(associated, sealed)
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
    transaction: Transaction,
    _turn: MutexGuard<'a, ()>,
}

impl Write<'_> {
    async fn commit(self) -> Result<(), sqlx::Error> {
        self.transaction.commit().await
    }
}

impl Session for Write<'_> {
    fn query(&mut self, text: &'static str) -> Statement<'_> {
        self.transaction.query(text)
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
