//! What `paperboy store status` tells, without a key and without changing anything.

use anyhow::Context as _;

use super::deliveries::{self, LogSize};
use super::opening::{self, OpenError};
use super::pool::{Pool, Session};
use super::streaks::{self, Failing};
use super::url::StoreUrl;
use super::{Store, count, meta, postgres, sqlite};
use crate::domain::spec::SubscriptionSpec;
use crate::domain::subscription::DisabledBy;

/// The state of a store, which may be missing or out of date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreStatus {
    pub url: StoreUrl,
    pub exists: bool,
    /// The numbers of the changes applied, lowest first.
    pub applied: Vec<i64>,
    /// How many changes of this version are still to be applied.
    pub pending: usize,
    /// `None` as long as the store was never made whole.
    pub store_id: Option<String>,
    pub key_check: Option<String>,
    pub subscriptions: u64,
    /// Dead letters that nobody has replayed or discarded.
    pub dead_letters: u64,
    /// SQLite: the file and its log together. Postgres: the tables and their indexes. Without the delivery log.
    pub file_bytes: u64,
    /// The delivery log.
    pub deliveries: LogSize,
    pub troubled: Troubled,
}

/// Subscriptions that a person should look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Troubled {
    /// Those of which it was told that they fail, longest first, at most 100.
    pub failing: Vec<Failing>,
    /// How many there are of them.
    pub failing_in_all: u64,
    /// Disabled by paperboy, at most 100.
    pub disabled: Vec<Disabled>,
}

/// A subscription that Paperboy disabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disabled {
    pub subscription: String,
    pub tenant: String,
    pub name: Option<String>,
    /// RFC 3339.
    pub since: String,
}

const TROUBLED_MAX: u32 = 100;
/// The change that brought what rows of failures are kept in.
const STREAKS: i64 = 6;

impl Store {
    /// Looks at a store; a missing one is a status too.
    pub async fn status(url: &StoreUrl) -> Result<StoreStatus, OpenError> {
        let pool = match Pool::open(url).await {
            Ok(pool) => pool,
            Err(OpenError::Missing { url }) => return Ok(missing(url)),
            Err(error) => return Err(error),
        };
        let status = read(&pool, url).await;
        pool.close().await;
        status
    }
}

fn missing(url: StoreUrl) -> StoreStatus {
    StoreStatus {
        exists: false,
        applied: Vec::new(),
        pending: opening::steps(&url),
        store_id: None,
        key_check: None,
        subscriptions: 0,
        dead_letters: 0,
        file_bytes: 0,
        deliveries: LogSize::default(),
        troubled: Troubled::default(),
        url,
    }
}

async fn read(pool: &Pool, url: &StoreUrl) -> Result<StoreStatus, OpenError> {
    let failed = || format!("could not read the store at `{url}`");
    let mut connection = pool.acquire().await.with_context(failed)?;
    let applied = opening::applied(&mut connection, url).await?;
    let (exists, file_bytes) = match url {
        StoreUrl::Sqlite { path } => (true, sqlite::bytes(path)),
        StoreUrl::Postgres(_) => {
            let bytes = connection.query(postgres::BYTES).fetch_value().await.with_context(failed)?;
            (applied.is_made, count(bytes))
        }
    };
    let deliveries = deliveries::log_size(pool, url).await.with_context(failed)?;
    let status =
        StoreStatus { exists, file_bytes, deliveries, pending: applied.pending, ..missing(url.clone()) };
    if applied.versions.is_empty() {
        return Ok(status);
    }
    let meta = meta::read(&mut connection).await.with_context(failed)?;
    let subscriptions = connection.query("SELECT count(*) FROM subscriptions").fetch_value();
    let subscriptions = count(subscriptions.await.with_context(failed)?);
    let dead_letters =
        connection.query("SELECT count(*) FROM dead_letters WHERE state = 'open'").fetch_value();
    let dead_letters = count(dead_letters.await.with_context(failed)?);
    let troubled = match applied.versions.contains(&STREAKS) {
        true => troubled(&mut connection).await.with_context(failed)?,
        false => Troubled::default(),
    };
    Ok(StoreStatus {
        troubled,
        applied: applied.versions,
        store_id: Some(meta.store_id),
        key_check: Some(meta.key_check),
        subscriptions,
        dead_letters,
        ..status
    })
}

async fn troubled(on: &mut impl Session) -> Result<Troubled, sqlx::Error> {
    let (failing, failing_in_all) = streaks::told(on, TROUBLED_MAX).await?;
    // Who disabled it stands in the document that may be shown.
    let rows = on
        .query(
            "SELECT document FROM subscriptions WHERE enabled = $1 AND document LIKE '%\"disabled_by\":\"paperboy\"%'
             ORDER BY id LIMIT $2",
        )
        .bind(false)
        .bind(i64::from(TROUBLED_MAX))
        .fetch_all()
        .await?;
    let mut disabled = Vec::new();
    for row in rows {
        let spec = serde_json::from_str::<SubscriptionSpec>(&row.get::<String>("document")?);
        let Ok(spec) = spec else { continue };
        if spec.disabled_by == Some(DisabledBy::Paperboy) {
            disabled.push(Disabled {
                subscription: spec.id.unwrap_or_default(),
                tenant: spec.tenant.unwrap_or_default(),
                name: spec.name,
                since: spec.updated_at.unwrap_or_default(),
            });
        }
    }
    Ok(Troubled { failing, failing_in_all, disabled })
}
