//! How far changes have come: one counter for all, and each tenant's version.
//!
//! A version is the counter's value at the tenant's last change. Both only rise, and both are written in
//! the transaction of the change itself, so whoever sees a version can read what it stands for.
//!
//! The counter's row is locked from the beginning of a change to its commit. So versions are given in the
//! order of the commits, and whoever has seen one never meets an earlier change later.

use std::collections::BTreeSet;

use anyhow::Context as _;

use super::pool::Session;
use super::{Store, Write, column, count, meta};
use crate::domain::name::Tenant;

/// What has changed since a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Ask again with this.
    pub counter: u64,
    /// The tenants changed since, each with its version now; lowest version first.
    pub tenants: Vec<(String, u64)>,
    /// The key that secrets are sealed with, as the store knows it.
    pub key_check: String,
}

impl Store {
    /// The version of a tenant's subscriptions, 0 if it never had one.
    pub async fn tenant_version(&self, tenant: &Tenant) -> anyhow::Result<u64> {
        let mut connection =
            self.inner.pool.acquire().await.with_context(|| could_not_read(tenant.as_str()))?;
        version_of(&mut connection, tenant.as_str()).await.with_context(|| could_not_read(tenant.as_str()))
    }

    /// The counter now, and the tenants whose version is above `version`. From now on this process seals with
    /// the key that the store names, if it holds that.
    pub async fn changes_since(&self, version: u64) -> anyhow::Result<Changes> {
        self.read_changes(version).await.context("could not read the changes from the store")
    }

    async fn read_changes(&self, version: u64) -> Result<Changes, sqlx::Error> {
        let mut snapshot = self.inner.pool.begin_read().await?;
        let counter =
            count(snapshot.query("SELECT value FROM counters WHERE name = 'changes'").fetch_value().await?);
        let mut tenants = Vec::new();
        if counter > version {
            let rows = snapshot
                .query("SELECT tenant, version FROM tenants WHERE version > $1 ORDER BY version, tenant")
                .bind(column(version))
                .fetch_all()
                .await?;
            for row in rows {
                tenants.push((row.get("tenant")?, count(row.get("version")?)));
            }
        }
        let key_check: String =
            snapshot.query("SELECT value FROM meta WHERE key = 'key_check'").fetch_value().await?;
        snapshot.commit().await?;
        // Not while somebody writes: this was read a moment ago, and a writer goes by what stands there now.
        if let Ok(_turn) = self.inner.writing.try_lock() {
            self.inner.key.follow(&key_check);
        }
        Ok(Changes { counter, tenants, key_check })
    }
}

/// The version of a tenant as this connection sees it.
pub(super) async fn version_of(on: &mut impl Session, tenant: &str) -> Result<u64, sqlx::Error> {
    let version: Option<i64> =
        on.query("SELECT version FROM tenants WHERE tenant = $1").bind(tenant).fetch_optional_value().await?;
    Ok(version.map_or(0, count))
}

impl Store {
    /// The transaction of a change, which may write sealed records too. It waits for every other change and locks the counter before it reads
    /// anything: a change that read first could be overtaken between its reading and its writing.
    pub(super) async fn begin_change(&self) -> Result<Write<'_>, sqlx::Error> {
        let mut write = self.begin_write().await?;
        // `FOR UPDATE` would say it better, and is unknown to SQLite.
        write.query("UPDATE counters SET value = value WHERE name = 'changes'").execute().await?;
        meta::hold_key(&mut write, &self.inner.key).await?;
        Ok(write)
    }
}

/// Raises the counter by one and sets the tenants' versions to it; for the transaction of a change.
pub(super) async fn rise(write: &mut Write<'_>, tenants: &BTreeSet<&str>) -> Result<u64, sqlx::Error> {
    let counter: i64 = write
        .query("UPDATE counters SET value = value + 1 WHERE name = 'changes' RETURNING value")
        .fetch_value()
        .await?;
    for tenant in tenants {
        write
            .query(
                "INSERT INTO tenants (tenant, version) VALUES ($1, $2)
                 ON CONFLICT (tenant) DO UPDATE SET version = excluded.version",
            )
            .bind(*tenant)
            .bind(counter)
            .execute()
            .await?;
    }
    Ok(count(counter))
}

fn could_not_read(tenant: &str) -> String {
    format!("could not read the version of tenant `{tenant}` from the store")
}
