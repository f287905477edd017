//! Names to addresses, under the guard.
//!
//! The client connects only to what this returns, so a name cannot be judged by one answer and called by
//! another (DNS rebinding).

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tracing::debug;

use super::guard::{Denied, Guard};

/// Shorter than the client's time for a whole connection, so that a silent name server shows as `dns`.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(4);

/// A name that did not resolve in time or at all.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum LookupError {
    #[error("{0}")]
    Failed(String),
    #[error("the name has no address")]
    Empty,
    #[error("the name servers did not answer within {} s", LOOKUP_TIMEOUT.as_secs())]
    Slow,
}

/// Resolves names and errs if any of the answers is denied.
pub(super) struct GuardedResolver {
    guard: Arc<Guard>,
    lookups: Arc<Lookups>,
    /// The port all requests of this resolver's client have, if a rule of the guard names it.
    port: Option<u16>,
}

impl GuardedResolver {
    pub(super) fn new(guard: Arc<Guard>, lookups: Arc<Lookups>, port: Option<u16>) -> GuardedResolver {
        GuardedResolver { guard, lookups, port }
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, port) = (self.guard.clone(), self.port);
        let lookup = self.lookups.of(name.as_str());
        Box::pin(async move {
            let found =
                tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await.map_err(|_| LookupError::Slow)??;
            judge(&guard, &found, port)?;
            // The client puts the URL's port in place of 0.
            let addresses: Vec<SocketAddr> = found.iter().map(|address| (*address, 0).into()).collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// One denied answer among good ones is an attack or a mistake: all are refused.
fn judge(guard: &Guard, found: &[IpAddr], port: Option<u16>) -> Result<(), Denied> {
    found.iter().try_for_each(|address| {
        // No rule names port 0, so without a port only rules for all ports count.
        guard.check((*address, port.unwrap_or(0)).into()).inspect_err(|denied| {
            debug!(%address, what = denied.what, "denied an address that a name resolved to");
        })
    })
}

type Lookup = Shared<BoxFuture<'static, Result<Arc<[IpAddr]>, LookupError>>>;

/// The lookups under way, one for each name.
///
/// A lookup holds a thread that nobody can take back from it. One a name keeps an endpoint whose name servers
/// are silent from taking the threads, and with them the deliveries, of all others.
#[derive(Default)]
pub(super) struct Lookups(Mutex<HashMap<String, Lookup>>);

impl Lookups {
    /// Joins the lookup of this name that is under way, or starts one.
    fn of(self: &Arc<Self>, name: &str) -> Lookup {
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lookup) = under_way.get(name) {
            return lookup.clone();
        }
        // A task of its own, for the request that started it may be given up while others wait for the same
        // name.
        let task = tokio::spawn({
            let (lookups, name) = (Arc::clone(self), name.to_owned());
            async move {
                let result = look_up(&name).await;
                lookups.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
                result
            }
        });
        let lookup =
            async move { task.await.unwrap_or_else(|fault| Err(LookupError::Failed(fault.to_string()))) };
        let lookup = lookup.boxed().shared();
        under_way.insert(name.to_owned(), lookup.clone());
        lookup
    }
}

async fn look_up(name: &str) -> Result<Arc<[IpAddr]>, LookupError> {
    let failed = |reason: io::Error| LookupError::Failed(reason.to_string());
    let found: Arc<[IpAddr]> =
        tokio::net::lookup_host((name, 0)).await.map_err(failed)?.map(|at| at.ip()).collect();
    if found.is_empty() { Err(LookupError::Empty) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(rules: &[&str], found: &[&str], port: Option<u16>) -> bool {
        let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        let found: Vec<IpAddr> = found.iter().map(|address| address.parse().unwrap()).collect();
        judge(&Guard::new(&rules).unwrap(), &found, port).is_ok()
    }

    #[test]
    fn one_denied_answer_refuses_all() {
        assert!(judged(&[], &["8.8.8.8", "2606:4700:4700::1111"], None));
        assert!(!judged(&[], &["8.8.8.8", "10.0.0.1"], None));
        assert!(!judged(&[], &["::ffff:10.0.0.1"], None));
        assert!(!judged(&["127.0.0.1"], &["127.0.0.1", "::1"], None));
    }

    #[test]
    fn a_rule_with_a_port_counts_only_where_the_port_is_known() {
        assert!(judged(&["127.0.0.1:9000"], &["127.0.0.1"], Some(9000)));
        assert!(!judged(&["127.0.0.1:9000"], &["127.0.0.1"], Some(9001)));
        assert!(!judged(&["127.0.0.1:9000"], &["127.0.0.1"], None));
        assert!(judged(&["127.0.0.1"], &["127.0.0.1"], None));
    }

    #[tokio::test]
    async fn requests_for_one_name_share_a_lookup_and_leave_nothing_behind() {
        let lookups = Arc::new(Lookups::default());
        let (first, second) = (lookups.of("localhost"), lookups.of("localhost"));
        assert!(first.ptr_eq(&second));
        drop(first);
        assert!(second.await.unwrap().iter().all(IpAddr::is_loopback));
        assert!(lookups.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_an_error() {
        let lookup = Arc::new(Lookups::default()).of("does-not-exist.invalid");
        assert!(matches!(lookup.await, Err(LookupError::Failed(_))));
    }
}
