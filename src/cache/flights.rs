//! One reader per tenant at a time: whoever comes meanwhile waits for the same answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use super::Lookup;
use crate::domain::name::Tenant;

/// The readings under way.
#[derive(Default)]
pub(super) struct Flights {
    under_way: Mutex<HashMap<Tenant, Flight>>,
}

type Flight = Arc<OnceCell<Lookup>>;

impl Flights {
    /// The answer of the reading under way, or of `read`, which is then the one under way. A reader that gives
    /// up is followed by one of those who wait.
    pub(super) async fn join<F: Future<Output = Lookup>>(
        &self,
        tenant: &Tenant,
        read: impl FnOnce() -> F,
    ) -> Lookup {
        let flight = Arc::clone(self.under_way().entry(tenant.clone()).or_default());
        let passenger = Passenger { flights: self, tenant, flight };
        passenger.flight.get_or_init(read).await.clone()
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<Tenant, Flight>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of those who wait; with the answer, or with the last of them, the flight is over.
struct Passenger<'a> {
    flights: &'a Flights,
    tenant: &'a Tenant,
    flight: Flight,
}

impl Drop for Passenger<'_> {
    fn drop(&mut self) {
        let mut under_way = self.flights.under_way();
        // Ours and the one in the list.
        let is_over = self.flight.initialized() || Arc::strong_count(&self.flight) <= 2;
        if is_over && under_way.get(self.tenant).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            under_way.remove(self.tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    fn tenant() -> Tenant {
        Tenant::parse("acme").unwrap()
    }

    #[tokio::test]
    async fn all_who_come_meanwhile_share_one_reading() {
        let (flights, reads, go) = (Flights::default(), AtomicUsize::new(0), Notify::new());
        let read = async || {
            reads.fetch_add(1, Ordering::Relaxed);
            go.notified().await;
            Lookup::KnownEmpty(7)
        };
        let tenant = tenant();
        let all = join_all((0..100).map(|_| flights.join(&tenant, read)));
        let (answers, ()) = tokio::join!(all, async { go.notify_one() });
        assert!(answers.iter().all(|answer| answer.version() == Some(7)));
        assert_eq!(reads.load(Ordering::Relaxed), 1);
        assert!(flights.under_way().is_empty(), "nothing is left behind");
    }

    #[tokio::test]
    async fn a_reader_that_gives_up_is_followed_by_who_waits() {
        let (flights, tenant) = (Flights::default(), tenant());
        let mut first = Box::pin(flights.join(&tenant, pending));
        assert!((&mut first).now_or_never().is_none());
        let mut second = Box::pin(flights.join(&tenant, async || Lookup::KnownEmpty(1)));
        assert!((&mut second).now_or_never().is_none(), "the first one reads");
        drop(first);
        assert_eq!(second.await.version(), Some(1));
        assert!(flights.under_way().is_empty());
    }
}
