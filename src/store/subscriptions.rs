//! Subscriptions at rest.
//!
//! Each is kept twice: as a document with every secret masked, for showing, and whole but sealed, for
//! delivering. Nothing is checked here: what comes in was checked, and what goes out is checked again by
//! whoever uses it, since a record may be older than today's rules.

use std::collections::BTreeSet;

use anyhow::Context as _;
use zeroize::Zeroizing;

use super::audit::{self, Note};
use super::kept::{self, KeptAnswer};
use super::pool::Session;
use super::{Store, Write, changes, seconds, streaks};
use crate::domain::name::{SubscriptionId, Tenant};
use crate::domain::preset::{self, Preset};
use crate::domain::spec::SubscriptionSpec;
use crate::domain::subscription::DisabledBy;

/// Characters of a tenant's documents together: every process that delivers for it keeps them all in memory.
const TENANT_CHARACTERS_MAX: u64 = 16 << 20;

/// Why subscriptions were not written; then none of them was.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error("there is a subscription `{id}` already")]
    IdTaken { id: String },
    #[error("somebody else changed or removed subscription `{id}` meanwhile")]
    Changed { id: String },
    #[error("there is no subscription `{id}`")]
    Missing { id: String },
    /// Its platform lets a customer have one, and this one is there.
    #[error("{}", preset::too_many(preset, id))]
    Second { preset: &'static Preset, id: String },
    #[error("the subscriptions of tenant `{tenant}` would have more than {} MiB together", TENANT_CHARACTERS_MAX >> 20)]
    TooLarge { tenant: String },
    #[error("tenant `{tenant}` would have more than {max} subscriptions")]
    TooMany { tenant: String, max: u32 },
    /// The answer to this request is kept already: it was made before.
    #[error("this was done already")]
    Repeated,
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// A subscription that is there but cannot be read: altered, or sealed with another key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("subscription `{id}` cannot be read: {why}")]
pub struct BrokenRecord {
    pub id: String,
    pub why: String,
}

/// All subscriptions of a tenant at one moment.
#[derive(Debug)]
pub struct TenantRecord {
    /// 0 for a tenant never seen. A tenant without subscriptions keeps its version.
    pub version: u64,
    /// In the order of their ids, secrets in clear. One that is broken does not hide the others.
    pub specs: Vec<Result<SubscriptionSpec, BrokenRecord>>,
}

/// A subscription and which of its versions this is.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned {
    pub spec: SubscriptionSpec,
    /// The change counter at its last change.
    pub version: u64,
}

/// What one call writes: all of it or nothing.
#[derive(Default)]
pub struct Save {
    /// Complete specs.
    pub added: Vec<SubscriptionSpec>,
    /// Each is written over the version it was made from.
    pub changed: Vec<Versioned>,
    pub removed: Vec<Removal>,
    /// The lines of the audit that tell of it.
    pub notes: Vec<Note>,
    /// The answer to be given again if the request comes again.
    pub answer: Option<KeptAnswer>,
    /// The most subscriptions a tenant may have once this is written; only tenants that get new ones are counted. With
    /// it their size is bounded too.
    pub per_tenant_max: Option<u32>,
}

/// A subscription to be removed.
#[derive(Debug, Clone)]
pub struct Removal {
    pub id: SubscriptionId,
    /// Only if it has this version still.
    pub over: Option<u64>,
}

/// Which subscriptions to list.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    pub tenant: Option<Tenant>,
    pub enabled: Option<bool>,
    /// Part of the name, whatever the case of its letters: of ASCII with SQLite, of its locale with Postgres.
    pub name: Option<String>,
    /// Only ids after this one: the last id of the page before.
    pub after: Option<SubscriptionId>,
    pub limit: u32,
}

impl Store {
    /// Adds complete specs, all or none, and returns the change counter.
    pub async fn add_subscriptions(&self, specs: Vec<SubscriptionSpec>) -> Result<u64, SaveError> {
        self.save_subscriptions(specs, Vec::new()).await
    }

    /// Writes a subscription over the version it was made from and returns the change counter.
    ///
    /// # Errors
    /// [`SaveError::Changed`] if it has another version now: nobody's change is overwritten unseen.
    pub async fn update_subscription(&self, changed: Versioned) -> Result<u64, SaveError> {
        self.save_subscriptions(Vec::new(), vec![changed]).await
    }

    /// Adds complete specs and writes others over the versions they were made from, all or none, and returns
    /// the change counter.
    pub async fn save_subscriptions(
        &self,
        added: Vec<SubscriptionSpec>,
        changed: Vec<Versioned>,
    ) -> Result<u64, SaveError> {
        self.save(Save { added, changed, ..Save::default() }).await
    }

    /// Writes all of it or nothing, and returns the change counter.
    pub async fn save(&self, save: Save) -> Result<u64, SaveError> {
        let Save { added, changed, removed, notes, answer, per_tenant_max } = save;
        if added.is_empty() && changed.is_empty() && removed.is_empty() {
            return Ok(self.changes_since(u64::MAX).await?.counter);
        }
        let mut write = self.begin_change().await.context(COULD_NOT_SAVE)?;
        let mut rows = Vec::with_capacity(added.len() + changed.len());
        for spec in &added {
            rows.push((self.row(spec)?, None));
        }
        for Versioned { spec, version } in &changed {
            rows.push((self.row(spec)?, Some(*version)));
        }
        let answer =
            answer.map(|answer| Ok::<_, SaveError>((self.seal_answer(&answer)?, answer))).transpose()?;
        let mut tenants: BTreeSet<String> = rows.iter().map(|(row, _)| row.tenant.clone()).collect();
        for removal in &removed {
            tenants.insert(delete(&mut write, removal).await?);
        }
        let names = tenants.iter().map(String::as_str).collect();
        let counter = changes::rise(&mut write, &names).await.context(COULD_NOT_SAVE)?;
        // First, so that what was done before is told as that and not as an id that is taken.
        if let Some((sealed, answer)) = &answer
            && !kept::insert(&mut write, answer, sealed, counter).await.context(COULD_NOT_SAVE)?
        {
            return Err(SaveError::Repeated);
        }
        seconds::refuse(&mut write, &added, &changed, &[]).await?;
        for (row, over) in &rows {
            let id = || row.id.clone();
            match over {
                None if insert(&mut write, row, counter).await.context(COULD_NOT_SAVE)? => {}
                None => return Err(SaveError::IdTaken { id: id() }),
                Some(over) if update(&mut write, row, *over, counter).await.context(COULD_NOT_SAVE)? => {}
                Some(_) => return Err(SaveError::Changed { id: id() }),
            }
        }
        if let Some(max) = per_tenant_max {
            for tenant in rows.iter().map(|(row, _)| row.tenant.as_str()).collect::<BTreeSet<_>>() {
                if size_of(&mut write, tenant).await.context(COULD_NOT_SAVE)? > TENANT_CHARACTERS_MAX {
                    return Err(SaveError::TooLarge { tenant: tenant.to_owned() });
                }
            }
            let grown: BTreeSet<&str> = added.iter().filter_map(|spec| spec.tenant.as_deref()).collect();
            for tenant in grown {
                if count_of(&mut write, tenant).await.context(COULD_NOT_SAVE)? > u64::from(max) {
                    return Err(SaveError::TooMany { tenant: tenant.to_owned(), max });
                }
            }
        }
        audit::insert_all(&mut write, &notes).await.context(COULD_NOT_SAVE)?;
        write.commit().await.context(COULD_NOT_SAVE)?;
        Ok(counter)
    }

    /// One subscription with its secrets in clear.
    pub async fn subscription(&self, id: &SubscriptionId) -> anyhow::Result<Option<SubscriptionSpec>> {
        Ok(self.versioned_subscription(id).await?.map(|found| found.spec))
    }

    /// One subscription with its secrets in clear and its version, to be changed.
    pub async fn versioned_subscription(&self, id: &SubscriptionId) -> anyhow::Result<Option<Versioned>> {
        let failed = || format!("could not read subscription `{id}` from the store");
        let mut connection = self.inner.pool.acquire().await.with_context(failed)?;
        let Some((row, version)) = sealed_row(&mut connection, id.as_str()).await.with_context(failed)?
        else {
            return Ok(None);
        };
        Ok(Some(Versioned { spec: self.unseal(row)?, version }))
    }

    /// A page of subscriptions in the order of their ids, secrets masked; needs no key.
    pub async fn list_subscriptions(&self, filter: &ListFilter) -> anyhow::Result<Vec<SubscriptionSpec>> {
        let documents =
            self.documents(filter).await.context("could not list subscriptions from the store")?;
        documents
            .iter()
            .map(|document| {
                serde_json::from_str(document).context("a subscription's document cannot be read")
            })
            .collect()
    }

    /// One subscription as it may be shown, with its version; needs no key.
    pub async fn shown_subscription(&self, id: &SubscriptionId) -> anyhow::Result<Option<Versioned>> {
        let failed = || format!("could not read subscription `{id}` from the store");
        let row = async {
            let mut connection = self.inner.pool.acquire().await?;
            let query = connection.query("SELECT document, version FROM subscriptions WHERE id = $1");
            query.bind(id.as_str()).fetch_optional().await
        };
        let Some(row) = row.await.with_context(failed)? else { return Ok(None) };
        let document: String = row.get("document").with_context(failed)?;
        Ok(Some(Versioned {
            spec: serde_json::from_str(&document).context("a subscription's document cannot be read")?,
            version: super::count(row.get("version").with_context(failed)?),
        }))
    }

    /// Removes a subscription and returns the change counter; `None` if there is none of that id.
    pub async fn remove_subscription(&self, id: &SubscriptionId) -> anyhow::Result<Option<u64>> {
        let removed = vec![Removal { id: id.clone(), over: None }];
        match self.save(Save { removed, ..Save::default() }).await {
            Ok(counter) => Ok(Some(counter)),
            Err(SaveError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Enables or disables a subscription at `now` (RFC 3339) and returns the change counter; `None` if
    /// there is none of that id. `by` is kept only with a disabled one.
    pub async fn set_enabled(
        &self,
        id: &SubscriptionId,
        enabled: bool,
        by: DisabledBy,
        now: &str,
    ) -> anyhow::Result<Option<u64>> {
        let failed = || format!("could not change subscription `{id}` in the store");
        // Read and written under one lock, so that no change in between is overwritten.
        let mut write = self.begin_change().await.with_context(failed)?;
        let Some((row, version)) = sealed_row(&mut write, id.as_str()).await.with_context(failed)? else {
            return Ok(None);
        };
        let mut spec = self.unseal(row)?;
        spec.enabled = Some(enabled);
        spec.disabled_by = (!enabled).then_some(by);
        spec.updated_at = Some(now.to_owned());
        let row = self.row(&spec)?;
        let tenants = BTreeSet::from([row.tenant.as_str()]);
        let counter = changes::rise(&mut write, &tenants).await.with_context(failed)?;
        update(&mut write, &row, version, counter).await.with_context(failed)?;
        write.commit().await.with_context(failed)?;
        Ok(Some(counter))
    }

    /// A tenant's version and all its subscriptions, secrets in clear, as of one moment.
    pub async fn tenant(&self, tenant: &Tenant) -> anyhow::Result<TenantRecord> {
        // Boxed: code for two engines makes a large future, and every lookup holds this one.
        let (version, rows) = Box::pin(self.tenant_rows(tenant.as_str()))
            .await
            .with_context(|| format!("could not read tenant `{tenant}` from the store"))?;
        Ok(TenantRecord { version, specs: rows.into_iter().map(|row| self.unseal(row)).collect() })
    }

    /// Whether anybody subscribes to anything.
    pub async fn has_subscription(&self) -> anyhow::Result<bool> {
        let found = async {
            let mut connection = self.inner.pool.acquire().await?;
            connection.query("SELECT EXISTS (SELECT 1 FROM subscriptions)").fetch_value().await
        };
        found.await.context("could not look for subscriptions in the store")
    }

    async fn documents(&self, filter: &ListFilter) -> Result<Vec<String>, sqlx::Error> {
        let mut connection = self.inner.pool.acquire().await?;
        let mut query = connection.query("SELECT document FROM subscriptions WHERE 1 = 1");
        if let Some(tenant) = &filter.tenant {
            query.push_bind(" AND tenant = ", tenant.as_str());
        }
        if let Some(enabled) = filter.enabled {
            query.push_bind(" AND enabled = ", enabled);
        }
        if let Some(name) = &filter.name {
            // Both engines: the pattern's own characters are escaped, and the escape is said.
            query.push_bind(" AND lower(name) LIKE lower(", like(name));
            query.push(") ESCAPE '!'");
        }
        if let Some(after) = &filter.after {
            query.push_bind(" AND id > ", after.as_str());
        }
        query.push_bind(" ORDER BY id LIMIT ", i64::from(filter.limit));
        query.fetch_all().await?.iter().map(|row| row.get("document")).collect()
    }

    async fn tenant_rows(&self, tenant: &str) -> Result<(u64, Vec<SealedRow>), sqlx::Error> {
        let mut snapshot = self.inner.pool.begin_read().await?;
        let version = changes::version_of(&mut snapshot, tenant).await?;
        let rows = snapshot
            .query("SELECT id, sealed FROM subscriptions WHERE tenant = $1 ORDER BY id")
            .bind(tenant)
            .fetch_all()
            .await?;
        snapshot.commit().await?;
        let mut sealed = Vec::with_capacity(rows.len());
        for row in rows {
            let (id, bytes) = (row.get("id")?, row.get("sealed")?);
            sealed.push(SealedRow { id, tenant: tenant.to_owned(), sealed: bytes });
        }
        Ok((version, sealed))
    }

    pub(super) fn row(&self, spec: &SubscriptionSpec) -> anyhow::Result<Row> {
        let complete = (&spec.id, &spec.tenant, &spec.created_at, &spec.updated_at);
        let (Some(id), Some(tenant), Some(created_at), Some(updated_at)) = complete else {
            anyhow::bail!("a subscription without id, tenant or times cannot be stored: complete it first");
        };
        let not_json = "a subscription cannot be written as JSON";
        let plain = Zeroizing::new(serde_json::to_vec(spec).context(not_json)?);
        Ok(Row {
            id: id.clone(),
            tenant: tenant.clone(),
            name: spec.name.clone(),
            enabled: spec.enabled.unwrap_or(true),
            document: serde_json::to_string(&spec.masked()).context(not_json)?,
            sealed: self.seal(&record_name(tenant, id), &plain)?,
            created_at: created_at.clone(),
            updated_at: updated_at.clone(),
        })
    }

    pub(super) fn unseal(&self, row: SealedRow) -> Result<SubscriptionSpec, BrokenRecord> {
        let broken = |why: String| BrokenRecord { id: row.id.clone(), why };
        let plain = self.open_sealed(&record_name(&row.tenant, &row.id), &row.sealed);
        let plain = Zeroizing::new(plain.map_err(|fault| broken(fault.to_string()))?);
        // Not serde's own words: they quote the value they stumbled over, which may be a secret.
        serde_json::from_slice(&plain).map_err(|fault| {
            broken(format!("its document does not fit this version (at column {})", fault.column()))
        })
    }
}

const COULD_NOT_SAVE: &str = "could not write subscriptions to the store";

/// A subscription as the table has it.
pub(super) struct Row {
    id: String,
    pub(super) tenant: String,
    name: Option<String>,
    enabled: bool,
    document: String,
    sealed: Vec<u8>,
    created_at: String,
    updated_at: String,
}

pub(super) struct SealedRow {
    id: String,
    tenant: String,
    sealed: Vec<u8>,
}

/// What a sealed subscription is sealed for: it opens under no other tenant and no other id.
pub(super) fn record_name(tenant: &str, id: &str) -> Vec<u8> {
    format!("subscription\0{tenant}\0{id}").into_bytes()
}

/// A pattern of `LIKE` for texts that hold this one.
fn like(part: &str) -> String {
    let mut pattern = String::from("%");
    for character in part.chars() {
        if matches!(character, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

/// Removes a row and returns its tenant.
async fn delete(write: &mut Write<'_>, removal: &Removal) -> Result<String, SaveError> {
    let id = || removal.id.to_string();
    let failed = || format!("could not remove subscription `{}` from the store", removal.id);
    let Some((row, version)) = sealed_row(write, removal.id.as_str()).await.with_context(failed)? else {
        return Err(match removal.over {
            Some(_) => SaveError::Changed { id: id() },
            None => SaveError::Missing { id: id() },
        });
    };
    if removal.over.is_some_and(|over| over != version) {
        return Err(SaveError::Changed { id: id() });
    }
    let query = write.query("DELETE FROM subscriptions WHERE id = $1").bind(removal.id.as_str());
    query.execute().await.with_context(failed)?;
    streaks::forget(write, removal.id.as_str()).await.with_context(failed)?;
    Ok(row.tenant)
}

/// How many subscriptions a tenant has.
async fn count_of(on: &mut impl Session, tenant: &str) -> Result<u64, sqlx::Error> {
    let number: i64 =
        on.query("SELECT count(*) FROM subscriptions WHERE tenant = $1").bind(tenant).fetch_value().await?;
    Ok(super::count(number))
}

/// Characters of all documents of a tenant.
async fn size_of(on: &mut impl Session, tenant: &str) -> Result<u64, sqlx::Error> {
    let sum = "SELECT COALESCE(SUM(LENGTH(document)), 0) FROM subscriptions WHERE tenant = $1";
    let number: i64 = on.query(sum).bind(tenant).fetch_value().await?;
    Ok(super::count(number))
}

/// The row and its version.
pub(super) async fn sealed_row(
    on: &mut impl Session,
    id: &str,
) -> Result<Option<(SealedRow, u64)>, sqlx::Error> {
    let query = on.query("SELECT tenant, sealed, version FROM subscriptions WHERE id = $1").bind(id);
    let Some(row) = query.fetch_optional().await? else { return Ok(None) };
    let sealed = SealedRow { id: id.to_owned(), tenant: row.get("tenant")?, sealed: row.get("sealed")? };
    Ok(Some((sealed, super::count(row.get("version")?))))
}

/// Whether the row was written; `false` if its id is taken.
async fn insert(write: &mut Write<'_>, row: &Row, version: u64) -> Result<bool, sqlx::Error> {
    let inserted = write
        .query(
            "INSERT INTO subscriptions
                 (id, tenant, name, enabled, document, sealed, version, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(&row.id)
        .bind(&row.tenant)
        .bind(&row.name)
        .bind(row.enabled)
        .bind(&row.document)
        .bind(&row.sealed)
        .bind(super::column(version))
        .bind(&row.created_at)
        .bind(&row.updated_at)
        .execute()
        .await?;
    Ok(inserted > 0)
}

/// Whether the row was written over version `over`; `false` if that is not its version now.
pub(super) async fn update(
    write: &mut Write<'_>,
    row: &Row,
    over: u64,
    version: u64,
) -> Result<bool, sqlx::Error> {
    // Whoever is enabled again begins anew.
    streaks::forget_if_switched(write, &row.id, row.enabled).await?;
    let updated = write
        .query(
            "UPDATE subscriptions
             SET name = $1, enabled = $2, document = $3, sealed = $4, version = $5, updated_at = $6
             WHERE id = $7 AND tenant = $8 AND version = $9",
        )
        .bind(&row.name)
        .bind(row.enabled)
        .bind(&row.document)
        .bind(&row.sealed)
        .bind(super::column(version))
        .bind(&row.updated_at)
        .bind(&row.id)
        .bind(&row.tenant)
        .bind(super::column(over))
        .execute()
        .await?;
    Ok(updated > 0)
}
