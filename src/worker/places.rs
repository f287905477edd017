//! The places of this process: the rule of [`crate::domain::places`] with a clock, a lock and a door.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::broker::{Queue, Windows};
use crate::domain::name::SubscriptionId;
use crate::domain::places::{Admission, Lane, Places as Rule, SlowEndpoint};
use crate::domain::subscription::Subscription;

/// At the door the rule is asked again this often, beside every answer of the endpoint.
const ASK_AGAIN: Duration = Duration::from_millis(25);

const QUEUES: usize = Queue::ALL.len();

/// Who holds how many places of this process.
#[derive(Debug)]
pub struct Places {
    rule: Mutex<Rule<QUEUES>>,
    windows: Arc<Windows>,
    started: Instant,
    /// Rung when an endpoint answers at whose door somebody waits.
    bell: Notify,
    at_doors: AtomicUsize,
}

/// What became of a message that wanted a place.
#[derive(Debug)]
pub(super) enum Entrance<'a> {
    Place(Place<'a>),
    /// To be sent to the retries, where slow endpoints are served while its own queue is busy.
    Aside,
    /// To be put off for so long.
    Full {
        wait_ms: u64,
    },
}

/// A place that is held; dropped, it is free again.
#[derive(Debug)]
pub(super) struct Place<'a> {
    places: &'a Places,
    queue: Queue,
    subscription: SubscriptionId,
    began_ms: u64,
    is_answered: bool,
}

impl Places {
    /// Places as many as the consumers of each queue may hold now.
    pub fn new(windows: Arc<Windows>) -> Places {
        Places {
            rule: Mutex::default(),
            windows,
            started: Instant::now(),
            bell: Notify::new(),
            at_doors: AtomicUsize::new(0),
        }
    }

    /// A place with this endpoint, for a message of this queue.
    ///
    /// Waits a quarter of a second at most, and only for an endpoint that has just fallen silent or that nobody has
    /// heard from yet.
    pub(super) async fn enter(&self, queue: Queue, subscription: &Subscription) -> Entrance<'_> {
        match self.ask(queue, subscription) {
            Some(entry) => entry,
            // Rare: in a box, so that no delivery carries room for it.
            None => Box::pin(self.wait(queue, subscription)).await,
        }
    }

    /// For how many milliseconds a message for this endpoint, not yet sent to its queue, is to be put off at once.
    pub(super) fn ask_ahead(&self, queue: Queue, subscription: &Subscription) -> Option<u64> {
        let (at, aside) = (self.lane(queue), self.lane(Queue::Retries));
        self.rule().ask_ahead(at, aside, &subscription.id, self.now_ms())
    }

    async fn wait(&self, queue: Queue, subscription: &Subscription) -> Entrance<'_> {
        let _door = Door::new(self, &subscription.id);
        loop {
            let rung = self.bell.notified();
            if let Some(entry) = self.ask(queue, subscription) {
                return entry;
            }
            tokio::select! {
                () = rung => {}
                () = sleep(ASK_AGAIN) => {}
            }
        }
    }

    /// `None`: to be asked again.
    fn ask(&self, queue: Queue, subscription: &Subscription) -> Option<Entrance<'_>> {
        let lane = |queue| self.lane(queue);
        let aside = (queue != Queue::Retries).then(|| lane(Queue::Retries)).filter(|lane| lane.capacity > 0);
        let (now_ms, tenant) = (self.now_ms(), &subscription.tenant);
        match self.rule().ask(lane(queue), aside, tenant, &subscription.id, now_ms) {
            Admission::In => Some(Entrance::Place(self.place(queue, subscription, now_ms))),
            Admission::Aside => Some(Entrance::Aside),
            Admission::Defer { wait_ms } => Some(Entrance::Full { wait_ms }),
            Admission::Wait => None,
        }
    }

    fn lane(&self, queue: Queue) -> Lane {
        Lane { queue: queue as usize, capacity: self.windows.of(queue) }
    }

    fn place(&self, queue: Queue, subscription: &Subscription, began_ms: u64) -> Place<'_> {
        Place { places: self, queue, subscription: subscription.id.clone(), began_ms, is_answered: false }
    }

    /// Places of a queue that slow endpoints hold.
    pub fn held_by_slow(&self, queue: Queue) -> usize {
        self.rule().held_by_slow(queue as usize)
    }

    /// The slow endpoints that hold places, most places first.
    pub fn slowest(&self, count_max: usize) -> Vec<SlowEndpoint> {
        self.rule().slowest(count_max)
    }

    /// Messages that wait at a door now.
    pub fn at_doors(&self) -> usize {
        self.at_doors.load(Ordering::Relaxed)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn rule(&self) -> MutexGuard<'_, Rule<QUEUES>> {
        self.rule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    /// The endpoint has answered, or let its time pass.
    pub(super) fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let places = self.places;
        let now_ms = places.now_ms();
        let someone_waits = places.rule().leave(
            self.queue as usize,
            &self.subscription,
            self.began_ms,
            self.is_answered,
            now_ms,
        );
        if someone_waits {
            places.bell.notify_waiters();
        }
    }
}

/// One message at a door, counted as long as it is there.
struct Door<'a> {
    places: &'a Places,
    subscription: &'a SubscriptionId,
}

impl<'a> Door<'a> {
    fn new(places: &'a Places, subscription: &'a SubscriptionId) -> Door<'a> {
        places.at_doors.fetch_add(1, Ordering::Relaxed);
        places.rule().wait(subscription, true);
        Door { places, subscription }
    }
}

impl Drop for Door<'_> {
    fn drop(&mut self) {
        self.places.at_doors.fetch_sub(1, Ordering::Relaxed);
        self.places.rule().wait(self.subscription, false);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::subscription::SubscriptionSpec;

    fn subscription(tenant: &str) -> Subscription {
        let document = json!({
            "id": format!("sub_{tenant}"), "tenant": tenant, "events": ["#"], "signatures": [],
            "request": { "url": "https://h.example/" },
        });
        SubscriptionSpec::read(document).unwrap().check().unwrap()
    }

    fn places() -> Places {
        let windows = Arc::new(Windows::default());
        windows.set(Queue::Events, 100);
        windows.set(Queue::Deliveries, 50);
        windows.set(Queue::Retries, 50);
        Places::new(windows)
    }

    #[tokio::test]
    async fn a_slow_endpoint_is_sent_to_the_retries_while_its_queue_is_busy() {
        let (places, well, hog) = (places(), subscription("well"), subscription("hog"));
        for _ in 0..5_000 {
            let Entrance::Place(place) = places.enter(Queue::Events, &well).await else { panic!() };
            place.answered();
        }
        let mut silent = Vec::new();
        // Until it holds all it may; the next waits at the door until the silence says enough.
        let next = loop {
            match places.enter(Queue::Events, &hog).await {
                Entrance::Place(place) => silent.push(place),
                other => break other,
            }
        };
        assert!(matches!(next, Entrance::Aside), "{next:?}");
        assert_eq!(silent.len(), 50);
        assert!(matches!(places.enter(Queue::Deliveries, &hog).await, Entrance::Place(_)), "not busy");
        assert!(matches!(places.enter(Queue::Retries, &hog).await, Entrance::Place(_)));
    }
}
