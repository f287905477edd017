//! How many a platform lets one customer have.

use super::tenant;
use crate::cli::Failure;
use crate::domain::preset::{Placement, Preset, place};
use crate::domain::subscription::SubscriptionSpec;
use crate::store::{ListFilter, Store};

const PAGE: u32 = 1000;

/// Every subscription of a tenant.
pub(super) async fn existing(store: &Store, of: &str) -> Result<Vec<SubscriptionSpec>, Failure> {
    let mut all: Vec<SubscriptionSpec> = Vec::new();
    loop {
        let last = all.last().and_then(|spec| spec.id.as_deref());
        let after = last.map(super::id).transpose()?;
        let filter = ListFilter { tenant: Some(tenant(of)?), after, limit: PAGE, ..ListFilter::default() };
        let page = store.list_subscriptions(&filter).await?;
        let is_last = page.len() < PAGE as usize;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

/// Refuses new subscriptions that would be one more than their platform allows.
pub(super) async fn refuse_second<'a>(
    store: &Store,
    new: impl Iterator<Item = &'a SubscriptionSpec>,
) -> Result<(), Failure> {
    let mut added: Vec<&SubscriptionSpec> = Vec::new();
    for spec in new {
        let preset = spec.preset.as_deref().and_then(Preset::find);
        let Some(preset) = preset.filter(|preset| preset.rules.one_per.is_some()) else { continue };
        let mut there = existing(store, spec.tenant.as_deref().unwrap_or_default()).await?;
        there.extend(added.iter().map(|spec| (*spec).clone()));
        match place(&there, spec, preset) {
            Placement::Create => added.push(spec),
            Placement::Update { id } => {
                let message = format!(
                    "{} takes one webhook in this account, and `{id}` is there already",
                    preset.title
                );
                return Err(
                    Failure::world(message).hint(format!("change it: `paperboy subscription update {id}`"))
                );
            }
            Placement::Conflict { id, message } => return Err(conflict(&id, message)),
        }
    }
    Ok(())
}

pub(super) fn conflict(id: &str, message: String) -> Failure {
    Failure::world(message).hint(format!("remove it first: `paperboy subscription remove {id}`"))
}
