//! How far changes have come: one counter for all, and each tenant's version.
//!
//! A version is the counter's value at the tenant's last change. Both only rise, and both are written in
//! the transaction of the change itself, so whoever sees a version can read what it stands for.

use std::collections::BTreeSet;

use anyhow::Context as _;
use sqlx::SqliteConnection;

use super::{Store, column, count};
use crate::domain::name::Tenant;

/// What has changed since a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Ask again with this.
    pub counter: u64,
    /// The tenants changed since, each with its version now; lowest version first.
    pub tenants: Vec<(String, u64)>,
}

impl Store {
    /// The version of a tenant's subscriptions, 0 if it never had one.
    pub async fn tenant_version(&self, tenant: &Tenant) -> anyhow::Result<u64> {
        let mut connection =
            self.inner.pool.acquire().await.with_context(|| could_not_read(tenant.as_str()))?;
        version_of(&mut connection, tenant.as_str()).await.with_context(|| could_not_read(tenant.as_str()))
    }

    /// The counter now, and the tenants whose version is above `version`.
    pub async fn changes_since(&self, version: u64) -> anyhow::Result<Changes> {
        self.read_changes(version).await.context("could not read the changes from the store")
    }

    async fn read_changes(&self, version: u64) -> Result<Changes, sqlx::Error> {
        let mut snapshot = self.begin_read().await?;
        let counter = count(
            sqlx::query_scalar("SELECT value FROM counters WHERE name = 'changes'")
                .fetch_one(&mut *snapshot)
                .await?,
        );
        let mut tenants = Vec::new();
        if counter > version {
            let rows: Vec<(String, i64)> = sqlx::query_as(
                "SELECT tenant, version FROM tenants WHERE version > $1 ORDER BY version, tenant",
            )
            .bind(column(version))
            .fetch_all(&mut *snapshot)
            .await?;
            tenants = rows.into_iter().map(|(tenant, version)| (tenant, count(version))).collect();
        }
        snapshot.commit().await?;
        Ok(Changes { counter, tenants })
    }
}

/// The version of a tenant as this connection sees it.
pub(super) async fn version_of(connection: &mut SqliteConnection, tenant: &str) -> Result<u64, sqlx::Error> {
    let version: Option<i64> = sqlx::query_scalar("SELECT version FROM tenants WHERE tenant = $1")
        .bind(tenant)
        .fetch_optional(connection)
        .await?;
    Ok(version.map_or(0, count))
}

/// Raises the counter by one and sets the tenants' versions to it; for the transaction of a change.
pub(super) async fn rise(
    connection: &mut SqliteConnection,
    tenants: &BTreeSet<&str>,
) -> Result<u64, sqlx::Error> {
    let counter: i64 =
        sqlx::query_scalar("UPDATE counters SET value = value + 1 WHERE name = 'changes' RETURNING value")
            .fetch_one(&mut *connection)
            .await?;
    for tenant in tenants {
        sqlx::query(
            "INSERT INTO tenants (tenant, version) VALUES ($1, $2)
             ON CONFLICT (tenant) DO UPDATE SET version = excluded.version",
        )
        .bind(*tenant)
        .bind(counter)
        .execute(&mut *connection)
        .await?;
    }
    Ok(count(counter))
}

fn could_not_read(tenant: &str) -> String {
    format!("could not read the version of tenant `{tenant}` from the store")
}
