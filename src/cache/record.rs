//! A tenant's subscriptions made ready to use, and as the sealed record that stands in Redis.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Lookup, TenantSubscriptions};
use crate::domain::name::Tenant;
use crate::domain::subscription::{Subscription, SubscriptionSpec};
use crate::store::Store;

/// Seals what is known of a tenant at this version.
pub(super) fn seal(
    store: &Store,
    tenant: &Tenant,
    version: u64,
    specs: &[SubscriptionSpec],
) -> anyhow::Result<Vec<u8>> {
    let plain = Zeroizing::new(serde_json::to_vec(specs)?);
    store.seal(&associated(tenant, version), &plain)
}

/// Opens what [`seal`] made for the same tenant and version.
///
/// # Errors
/// Why it cannot be used, without any of what it holds.
pub(super) fn open(store: &Store, tenant: &Tenant, version: u64, sealed: &[u8]) -> Result<Lookup, String> {
    let plain = store.open_sealed(&associated(tenant, version), sealed).map_err(|fault| fault.to_string())?;
    let plain = Zeroizing::new(plain);
    // Not serde's own words: they quote the value they stumbled over, which may be a secret.
    let specs: Vec<SubscriptionSpec> = serde_json::from_slice(&plain)
        .map_err(|fault| format!("it does not fit this version (at column {})", fault.column()))?;
    ready(tenant, version, specs)
}

/// Checks a tenant's documents and makes them ready to use.
///
/// # Errors
/// What is wrong with the first that cannot be used.
pub(super) fn ready(tenant: &Tenant, version: u64, specs: Vec<SubscriptionSpec>) -> Result<Lookup, String> {
    if specs.is_empty() {
        return Ok(Lookup::KnownEmpty(version));
    }
    let checked: Result<Vec<_>, String> = specs.into_iter().map(|spec| check(tenant, spec)).collect();
    let mut subscriptions = checked?;
    subscriptions.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    Ok(Lookup::Found(Arc::new(TenantSubscriptions { version, subscriptions })))
}

fn check(tenant: &Tenant, spec: SubscriptionSpec) -> Result<Arc<Subscription>, String> {
    let subscription = spec
        .check()
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    // The tenant is checked again after the lookup: a record filed wrong must not be served.
    if subscription.tenant != *tenant {
        return Err(format!("subscription `{}` belongs to another tenant", subscription.id));
    }
    Ok(Arc::new(subscription))
}

/// Moving a record to another tenant, or back to an older version, must not open.
fn associated(tenant: &Tenant, version: u64) -> Vec<u8> {
    format!("tenant\0{tenant}\0{version}").into_bytes()
}
