//! What `paperboy store status` tells, without a key and without changing anything.

use anyhow::Context as _;
use sqlx::{Connection as _, SqliteConnection};

use super::opening::{self, OpenError};
use super::url::StoreUrl;
use super::{Store, count, meta};

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
    /// The file and its log together.
    pub file_bytes: u64,
}

impl Store {
    /// Looks at a store; a missing one is a status too.
    pub async fn status(url: &StoreUrl) -> Result<StoreStatus, OpenError> {
        let path = opening::sqlite_path(url)?;
        let mut connection = match opening::connect_if_there(url, path).await {
            Ok(connection) => connection,
            Err(OpenError::Missing { url }) => return Ok(missing(url)),
            Err(error) => return Err(error),
        };
        let file_bytes = [path.to_owned(), opening::log_path(path)]
            .iter()
            .filter_map(|file| std::fs::metadata(file).ok())
            .map(|file| file.len())
            .sum();
        let status = read(&mut connection, url, file_bytes).await;
        let closed = connection.close().await;
        let status = status?;
        closed.with_context(|| format!("could not close the store at `{url}`"))?;
        Ok(status)
    }
}

fn missing(url: StoreUrl) -> StoreStatus {
    StoreStatus {
        url,
        exists: false,
        applied: Vec::new(),
        pending: opening::steps(),
        store_id: None,
        key_check: None,
        subscriptions: 0,
        dead_letters: 0,
        file_bytes: 0,
    }
}

async fn read(
    connection: &mut SqliteConnection,
    url: &StoreUrl,
    file_bytes: u64,
) -> Result<StoreStatus, OpenError> {
    let applied = opening::applied(connection, url).await?;
    let status = StoreStatus { exists: true, file_bytes, pending: applied.pending, ..missing(url.clone()) };
    if applied.versions.is_empty() {
        return Ok(status);
    }
    let failed = || format!("could not read the store at `{url}`");
    let meta = meta::read(connection).await.with_context(failed)?;
    let subscriptions: i64 = sqlx::query_scalar("SELECT count(*) FROM subscriptions")
        .fetch_one(&mut *connection)
        .await
        .with_context(failed)?;
    let dead_letters: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters WHERE state = 'open'")
        .fetch_one(&mut *connection)
        .await
        .with_context(failed)?;
    Ok(StoreStatus {
        applied: applied.versions,
        store_id: Some(meta.store_id),
        key_check: Some(meta.key_check),
        subscriptions: count(subscriptions),
        dead_letters: count(dead_letters),
        ..status
    })
}
