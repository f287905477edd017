//! What is known to be wrong with publishing, boiled down to one sentence for readiness.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{Stream, StreamExt};
use lapin::Event;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::broker::Target;

/// The facts, and who is told of them.
pub(super) struct Health {
    fault: watch::Sender<Option<String>>,
    held: watch::Sender<Option<String>>,
    facts: Mutex<Facts>,
}

#[derive(Default)]
struct Facts {
    down: Option<String>,
    blocked: Option<String>,
    /// Targets whose messages came back, until one arrives there again or nobody waits for those.
    unroutable: Vec<Target>,
    /// The target of a message whose confirm is overdue.
    unconfirmed: Option<Target>,
    unblocked_at: Option<Instant>,
}

impl Health {
    pub(super) fn new() -> Health {
        let (fault, held) = (watch::channel(None).0, watch::channel(None).0);
        Health { fault, held, facts: Mutex::default() }
    }

    /// Everything that is wrong, a missing queue included.
    pub(super) fn fault(&self) -> watch::Receiver<Option<String>> {
        self.fault.subscribe()
    }

    /// What keeps every publish from going out: no connection, an alarm.
    pub(super) fn held(&self) -> watch::Receiver<Option<String>> {
        self.held.subscribe()
    }

    /// A connection is there, and nothing is known of it yet.
    pub(super) fn connected(&self) {
        self.update(|facts| *facts = Facts::default());
    }

    pub(super) fn disconnected(&self, reason: &str) {
        self.update(|facts| facts.down = Some(format!("publishing connection: {reason}")));
    }

    /// A message for this target came back; true if that is news.
    pub(super) fn came_back(&self, target: Target) -> bool {
        let is_news = !self.facts().unroutable.contains(&target);
        if is_news {
            self.update(|facts| facts.unroutable.push(target));
        }
        is_news
    }

    /// A message for this target arrived.
    pub(super) fn arrived(&self, target: Target) {
        // Asked first: this is every publish, and news hardly ever.
        if self.facts().unroutable.contains(&target) {
            self.update(|facts| facts.unroutable.retain(|other| *other != target));
        }
    }

    /// Nobody waits any more for what came back: the next message for this target tells whether it is well.
    pub(super) fn given_up(&self, target: Target) {
        self.arrived(target);
    }

    /// Where the confirm of a message is overdue, if anywhere; true if that is news.
    pub(super) fn overdue(&self, target: Option<Target>) -> bool {
        let is_news = self.facts().unconfirmed != target;
        if is_news {
            self.update(|facts| facts.unconfirmed = target);
        }
        is_news
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.facts().blocked.is_some()
    }

    /// When the last alarm ended: what was under way then could not be confirmed before.
    pub(super) fn unblocked_at(&self) -> Option<Instant> {
        self.facts().unblocked_at
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut Facts)) {
        let mut facts = self.facts();
        change(&mut facts);
        let held = facts.down.clone().or(facts.blocked.clone());
        let missing = facts.unroutable.first().map(|target| {
            format!("RabbitMQ returned a message for {target:?}: its queue is missing (`broker.declare = true` declares it)")
        });
        let unconfirmed = facts.unconfirmed.map(|target| {
            format!("RabbitMQ has not confirmed a message for {target:?} for long: has its queue a majority?")
        });
        set(&self.fault, held.clone().or(missing).or(unconfirmed));
        set(&self.held, held);
    }
}

fn set(watched: &watch::Sender<Option<String>>, value: Option<String>) {
    watched.send_if_modified(|known| {
        let changed = *known != value;
        *known = value;
        changed
    });
}

/// Follows alarms and the end of a connection, apart from the loop that such an alarm holds up.
///
/// The client tells of channels that the broker closes in the same words as of lost connections. One that only
/// looked at or declared something is nobody else's trouble.
pub(super) async fn watch(
    mut events: impl Stream<Item = Event> + Unpin,
    is_connected: impl Fn() -> bool,
    health: Arc<Health>,
    lost: CancellationToken,
) {
    while let Some(event) = events.next().await {
        match event {
            Event::ConnectionBlocked(reason) => {
                warn!("RabbitMQ blocks publishing: {reason}");
                health.update(|facts| facts.blocked = Some(format!("RabbitMQ blocks publishing: {reason}")));
            }
            Event::ConnectionUnblocked => health.update(|facts| {
                facts.blocked = None;
                facts.unblocked_at = Some(Instant::now());
            }),
            Event::Error(error) if is_connected() => debug!("a channel was closed: {error}"),
            Event::Error(error) => {
                warn!("connection error: {error}");
                break;
            }
            _ => {}
        }
    }
    lost.cancel();
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use lapin::ErrorKind;

    use super::*;

    fn error() -> Event {
        Event::Error(ErrorKind::InvalidChannel(7).into())
    }

    #[tokio::test]
    async fn a_closed_channel_is_no_lost_connection() {
        for (is_connected, is_blocked_afterwards) in [(true, true), (false, false)] {
            let (health, lost) = (Arc::new(Health::new()), CancellationToken::new());
            let events = stream::iter([error(), Event::ConnectionBlocked("memory".into())]);
            watch(events, || is_connected, Arc::clone(&health), lost.clone()).await;
            assert_eq!(health.is_blocked(), is_blocked_afterwards, "connected: {is_connected}");
            assert!(lost.is_cancelled());
        }
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_no_fault() {
        let health = Health::new();
        let fault = health.fault();
        assert!(health.came_back(Target::Delay(9)));
        assert!(!health.came_back(Target::Delay(9)));
        assert!(health.overdue(Some(Target::Events)));
        assert!(fault.borrow().as_ref().is_some_and(|fault| fault.contains("Delay(9)")));
        health.given_up(Target::Delay(9));
        assert!(fault.borrow().as_ref().is_some_and(|fault| fault.contains("not confirmed")));
        assert!(health.overdue(None));
        assert_eq!(*fault.borrow(), None);
        assert_eq!(*health.held().borrow(), None);
    }
}
