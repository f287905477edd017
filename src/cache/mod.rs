//! Who wants a tenant's events: this process's memory, then Redis, then the store.
//!
//! The store is the truth, Redis only a cache. A missing answer is never read as "nobody": a lookup is
//! three-valued, and even a known "nobody" is confirmed once before an event is let go.

pub mod directory;
mod flights;
mod follower;
mod freshness;
mod memory;
mod record;
pub mod redis;
mod redis_health;

use std::sync::Arc;

use crate::domain::name::{SubscriptionId, Tenant};
use crate::domain::subscription::Subscription;

pub use freshness::Freshness;

/// What is known of a tenant.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// Its subscriptions, ready to use.
    Found(Arc<TenantSubscriptions>),
    /// It has none, as of this version.
    KnownEmpty(u64),
    /// Nobody can say now.
    Unknown(Unknown),
}

/// Why nobody can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// This tenant's records are broken, or nowhere but in a store that is away; others are well.
    Tenant(String),
    /// Redis and the store are both out of reach.
    Away(String),
}

/// The subscriptions of one tenant at one version.
#[derive(Debug)]
pub struct TenantSubscriptions {
    /// Rises with every change of the tenant.
    pub version: u64,
    /// At least one; in the order of their ids.
    pub subscriptions: Vec<Arc<Subscription>>,
}

impl TenantSubscriptions {
    /// The subscription with this id.
    pub fn find(&self, id: &SubscriptionId) -> Option<&Arc<Subscription>> {
        let place = self.subscriptions.binary_search_by(|subscription| subscription.id.cmp(id)).ok()?;
        self.subscriptions.get(place)
    }
}

impl Lookup {
    /// The version it speaks of, where it knows something.
    pub fn version(&self) -> Option<u64> {
        match self {
            Lookup::Found(found) => Some(found.version),
            Lookup::KnownEmpty(version) => Some(*version),
            Lookup::Unknown(_) => None,
        }
    }
}

/// Answers the worker's question who wants a tenant's events.
pub trait Directory: Send + Sync + 'static {
    /// What memory knows and may still be used, at once: it waits for nothing, takes no lock and allocates
    /// nothing. `None`: ask [`Directory::lookup`]. Never [`Lookup::Unknown`].
    fn known(&self, tenant: &str) -> Option<Lookup>;

    /// What is known, from memory if that is fresh enough; never waits longer than five seconds.
    fn lookup(&self, tenant: &Tenant) -> impl Future<Output = Lookup> + Send;

    /// What is known after asking the store for the tenant's version once more (Redis only where the store is
    /// away), so that nothing is decided on a memory that has just become old. For the moment before something
    /// is let go for good.
    fn confirm(&self, tenant: &Tenant, known: u64) -> impl Future<Output = Lookup> + Send;
}

impl<D: Directory> Directory for Arc<D> {
    fn known(&self, tenant: &str) -> Option<Lookup> {
        D::known(self, tenant)
    }

    fn lookup(&self, tenant: &Tenant) -> impl Future<Output = Lookup> + Send {
        D::lookup(self, tenant)
    }

    fn confirm(&self, tenant: &Tenant, known: u64) -> impl Future<Output = Lookup> + Send {
        D::confirm(self, tenant, known)
    }
}
