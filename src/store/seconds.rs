//! How many subscriptions a platform lets one customer have.
//!
//! Asked in the transaction that writes, which no other change runs beside: of two that come at one moment, the second
//! meets the first.

use std::collections::BTreeMap;

use anyhow::Context as _;

use super::pool::Session;
use super::{SaveError, Store, Versioned};
use crate::domain::preset::{Preset, second};
use crate::domain::spec::SubscriptionSpec;

const FAILED: &str = "could not look for other subscriptions of the preset in the store";

impl Store {
    /// Says of what is about to be written whether it would be one more than its platform allows, beside what is
    /// there and `removed`. [`Store::save`] asks the same again.
    ///
    /// # Errors
    /// [`SaveError::Second`], or the store cannot be read.
    pub async fn refuse_second(
        &self,
        added: &[SubscriptionSpec],
        changed: &[Versioned],
        removed: &[&str],
    ) -> Result<(), SaveError> {
        let mut snapshot = self.inner.pool.begin_read().await.context(FAILED)?;
        refuse(&mut snapshot, added, changed, removed).await?;
        snapshot.commit().await.context(FAILED)?;
        Ok(())
    }
}

/// As [`Store::refuse_second`]. What `removed` names may be gone already.
pub(super) async fn refuse(
    on: &mut impl Session,
    added: &[SubscriptionSpec],
    changed: &[Versioned],
    removed: &[&str],
) -> Result<(), SaveError> {
    let written: Vec<&SubscriptionSpec> =
        added.iter().chain(changed.iter().map(|changed| &changed.spec)).collect();
    let mut there: BTreeMap<&str, Vec<SubscriptionSpec>> = BTreeMap::new();
    for spec in &written {
        let (Some(preset), Some(tenant)) = (limited(spec), spec.tenant.as_deref()) else { continue };
        if !there.contains_key(tenant) {
            let mut found = documents(on, tenant).await.context(FAILED)?;
            found.retain(|spec| spec.id.as_deref().is_none_or(|id| !removed.contains(&id)));
            there.insert(tenant, found);
        }
        let before = there.get(tenant).map(Vec::as_slice).unwrap_or_default();
        let is_same = |other: &SubscriptionSpec| other.id == spec.id;
        let is_written = |other: &SubscriptionSpec| written.iter().any(|written| written.id == other.id);
        let beside = before.iter().filter(|other| !is_written(other)).chain(written.iter().copied());
        let Some(other) = second(beside, spec, preset) else { continue };
        // Two that were there together before there was such a rule may be changed in other ways.
        let was = before.iter().find(|other| is_same(other)).and_then(|was| second(before, was, preset));
        if was.is_some_and(|was| was.id == other.id) {
            continue;
        }
        return Err(SaveError::Second { preset, id: other.id.clone().unwrap_or_default() });
    }
    Ok(())
}

fn limited(spec: &SubscriptionSpec) -> Option<&'static Preset> {
    spec.preset.as_deref().and_then(Preset::find).filter(|preset| preset.rules.one_per.is_some())
}

/// Every subscription of a tenant, secrets masked.
async fn documents(on: &mut impl Session, tenant: &str) -> anyhow::Result<Vec<SubscriptionSpec>> {
    let rows = on.query("SELECT document FROM subscriptions WHERE tenant = $1 ORDER BY id").bind(tenant);
    let mut found = Vec::new();
    for row in rows.fetch_all().await? {
        let document: String = row.get("document")?;
        found.push(serde_json::from_str(&document).context("a subscription's document cannot be read")?);
    }
    Ok(found)
}
