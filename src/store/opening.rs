//! Opening a store, and making one.
//!
//! Only [`Store::migrate`] creates or changes a store; [`Store::open`] never does, so that an empty local
//! file can never look like "no subscribers".

use std::sync::Arc;

use anyhow::Context as _;
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use super::meta::{self, Meta};
use super::pool::{Pool, Session};
use super::sealing::Sealing;
use super::url::StoreUrl;
use super::{Inner, Store, postgres, sqlite};
use crate::domain::keyring::Keyring;

/// Why there is no open store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("no store at `{url}`: start `paperboy serve` or run `paperboy store migrate`")]
    Missing { url: StoreUrl },
    #[error("the store at `{url}` cannot be reached: {why}")]
    Unreachable { url: StoreUrl, why: String },
    #[error("the store at `{url}` lacks {pending} {} of this version", if *.pending == 1 { "change" } else { "changes" })]
    PendingMigrations { url: StoreUrl, pending: usize },
    #[error(
        "the store at `{url}` was made or changed by a newer version (its schema is {version}, ours {ours})"
    )]
    Newer { url: StoreUrl, version: i64, ours: i64 },
    #[error("the store at `{url}` is sealed with another secrets key (check value {store}, ours {ours})")]
    KeyMismatch { url: StoreUrl, store: String, ours: String },
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl OpenError {
    /// What to do next, where the message does not say it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            OpenError::Missing { .. } | OpenError::Other(_) => None,
            OpenError::Unreachable { .. } => Some(
                "start PostgreSQL there and make the user and the database, or correct `store.url` \
                 (`PAPERBOY__STORE__URL`)",
            ),
            OpenError::PendingMigrations { .. } => {
                Some("run `paperboy store migrate`, or start `paperboy serve` of this version")
            }
            OpenError::Newer { .. } => Some("run that version or a later one"),
            OpenError::KeyMismatch { url: StoreUrl::Sqlite { .. }, .. } => Some(
                "set `secrets.key` to the key this store was made with, or put its `paperboy.key` back beside it; \
                 to change keys name the old one in `secrets.old_keys`",
            ),
            OpenError::KeyMismatch { .. } => Some(
                "set `secrets.key` to the key this store was made with; to change keys name the old one in \
                 `secrets.old_keys`",
            ),
        }
    }
}

impl Store {
    /// Opens the store, making or upgrading it first if need be: tables, id, and with SQLite a folder of
    /// mode 0700 and a file of mode 0600.
    ///
    /// Processes that race to make it all succeed and see one id. A store sealed with another key is
    /// left untouched.
    pub async fn migrate(url: &StoreUrl, keys: impl Into<Keyring>) -> Result<Store, OpenError> {
        let (pool, keys) = (Pool::make(url).await?, keys.into());
        let meta = migrate_all(&pool, url, &keys).await;
        Store::opened(url, pool, keys, meta).await
    }

    /// Opens a store that is there and up to date; never creates or changes one.
    pub async fn open(url: &StoreUrl, keys: impl Into<Keyring>) -> Result<Store, OpenError> {
        let (pool, keys) = (Pool::open(url).await?, keys.into());
        let meta = check(&pool, url).await;
        Store::opened(url, pool, keys, meta).await
    }

    async fn opened(
        url: &StoreUrl,
        pool: Pool,
        keys: Keyring,
        meta: Result<Meta, OpenError>,
    ) -> Result<Store, OpenError> {
        let opened = meta.and_then(|meta| Ok((sealing(&meta, url, keys)?, meta)));
        let (sealing, meta) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                pool.close().await;
                return Err(error);
            }
        };
        Ok(Store {
            inner: Arc::new(Inner {
                url: url.clone(),
                pool,
                writing: tokio::sync::Mutex::new(()),
                key: sealing,
                id: meta.store_id,
            }),
        })
    }
}

/// How many changes of ours a store has and lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Applied {
    /// Whether anything was ever made here.
    pub(super) is_made: bool,
    pub(super) versions: Vec<i64>,
    pub(super) pending: usize,
}

/// Reads which changes were applied, from a store that may lack even the table for that.
pub(super) async fn applied(on: &mut impl Session, url: &StoreUrl) -> Result<Applied, OpenError> {
    let migrator = migrator_of(url);
    let (is_made, versions) =
        applied_versions(on, url).await.with_context(|| format!("could not read the store at `{url}`"))?;
    let ours = migrator.iter().map(|migration| migration.version).max().unwrap_or(0);
    match versions.iter().max() {
        Some(&version) if version > ours => Err(OpenError::Newer { url: url.clone(), version, ours }),
        _ => {
            let pending = migrator.iter().filter(|ours| !versions.contains(&ours.version)).count();
            Ok(Applied { is_made, versions, pending })
        }
    }
}

async fn applied_versions(on: &mut impl Session, url: &StoreUrl) -> Result<(bool, Vec<i64>), sqlx::Error> {
    let is_made = match url {
        StoreUrl::Sqlite { .. } => sqlite::IS_MADE,
        StoreUrl::Postgres(_) => postgres::IS_MADE,
    };
    if !on.query(is_made).fetch_value().await? {
        return Ok((false, Vec::new()));
    }
    let rows = on.query("SELECT version FROM _sqlx_migrations ORDER BY version").fetch_all().await?;
    let versions = rows.iter().map(|row| row.get("version")).collect::<Result<_, _>>()?;
    Ok((true, versions))
}

/// How many changes lead from nothing to this version.
pub(super) fn steps(url: &StoreUrl) -> usize {
    migrator_of(url).iter().count()
}

fn migrator_of(url: &StoreUrl) -> Migrator {
    match url {
        StoreUrl::Sqlite { .. } => sqlite::migrator(),
        StoreUrl::Postgres(_) => postgres::migrator(),
    }
}

/// The changes of an engine, each with its number, its name and its text.
pub(super) fn migrator(changes: &[(i64, &'static str, &'static str)]) -> Migrator {
    let change = |&(number, name, text): &(i64, &'static str, &'static str)| {
        Migration::new(number, name.into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations(changes.iter().map(change).collect())
}

/// Applies what is pending and writes the meta, in one transaction that keeps others from doing the same:
/// a racing process waits and then finds everything done, and a refused key undoes it all.
async fn migrate_all(pool: &Pool, url: &StoreUrl, keys: &Keyring) -> Result<Meta, OpenError> {
    let failed = || format!("could not migrate the store at `{url}`");
    let mut transaction = pool.begin_migration().await.with_context(failed)?;
    applied(&mut transaction, url).await?;
    transaction.migrate().await.with_context(failed)?;
    meta::write_once(&mut transaction, keys.newest()).await.with_context(failed)?;
    let meta = meta::read(&mut transaction).await.with_context(failed)?;
    sealing(&meta, url, keys.clone())?;
    transaction.commit().await.with_context(failed)?;
    Ok(meta)
}

async fn check(pool: &Pool, url: &StoreUrl) -> Result<Meta, OpenError> {
    let failed = || format!("could not read the store at `{url}`");
    let mut connection = pool.acquire().await.with_context(failed)?;
    let applied = applied(&mut connection, url).await?;
    // An empty database is as good as none; an empty file was left by somebody who began to make a store.
    if !applied.is_made && matches!(url, StoreUrl::Postgres(_)) {
        return Err(OpenError::Missing { url: url.clone() });
    }
    if applied.pending > 0 {
        return Err(OpenError::PendingMigrations { url: url.clone(), pending: applied.pending });
    }
    Ok(meta::read(&mut connection).await.with_context(failed)?)
}

/// The keys, if the store is sealed with one of them.
fn sealing(meta: &Meta, url: &StoreUrl, keys: Keyring) -> Result<Sealing, OpenError> {
    let ours = keys.check_values().join(", ");
    Sealing::new(keys, &meta.key_check).ok_or_else(|| OpenError::KeyMismatch {
        url: url.clone(),
        store: meta.key_check.clone(),
        ours,
    })
}
