//! Fresh events: who wants them, and what to do with those nobody can read.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::timeout;

use super::balance::Ending;
use super::defer::{self, Cause};
use super::report;
use super::step::{self, Step};
use super::{Settings, Worker};
use crate::broker::{Broker, Message, Outgoing, Queue, Tags, Target};
use crate::cache::{Directory, Lookup, TenantSubscriptions};
use crate::domain::event::{Event, Unreadable};
use crate::domain::retry::Reason;
use crate::domain::subscription::{DisabledBy, Subscription};
use crate::domain::time;
use crate::http::Transport;

/// The original headers kept with an unreadable message.
pub(super) const ORIGINAL_BYTES_MAX: usize = 8 * 1024;

/// Copies of events that are made and not yet confirmed, in all; one event may have more, by itself. Twice what the
/// publisher has under way, so that it never waits for the next.
pub(super) const COPIES_MAX: u32 = 4096;

/// What an event means to one subscription of its tenant.
pub(super) enum Wanted {
    Yes,
    /// Disabled by ourselves.
    Disabled,
    No,
}

impl<B: Broker, D: Directory, T: Transport> Worker<B, D, T> {
    /// One subscriber: the event is its delivery. Several: one message each. None: let go, after asking twice.
    pub(super) async fn expand(
        &self,
        queue: Queue,
        message: &Message,
        event: &Event<'_>,
        now_ms: i64,
    ) -> Step {
        let mut lookup = self.lookup(&event.tenant).await;
        let mut seen = None;
        for confirmed in [false, true] {
            let version = match &lookup {
                // What nobody has changed since wants no more than before, and is not counted twice.
                Lookup::Found(found) if seen == Some(found.version) => found.version,
                Lookup::Found(found) => {
                    if let Some(step) = self.fan_out(queue, found, message, event, now_ms).await {
                        return step;
                    }
                    found.version
                }
                Lookup::KnownEmpty(version) => *version,
                Lookup::Unknown(unknown) => {
                    let tags = step::carry(&message.tags, event, now_ms);
                    return self.cannot_tell(unknown, message, event, tags, now_ms).await;
                }
            };
            if !confirmed {
                seen = Some(version);
                // Rare and large: in a box, so that no delivery carries room for it.
                lookup = Box::pin(self.directory.confirm(&event.tenant, version)).await;
            }
        }
        report::no_subscriber(event);
        self.recorder.unmatched(event, &message.tags, now_ms);
        Step::Done(Ending::NoSubscriber)
    }

    /// `None` when none of these subscriptions wants the event.
    async fn fan_out(
        &self,
        queue: Queue,
        found: &TenantSubscriptions,
        message: &Message,
        event: &Event<'_>,
        now_ms: i64,
    ) -> Option<Step> {
        let mut wanting =
            found.subscriptions.iter().filter_map(|subscription| match wanted(subscription, event) {
                Wanted::Yes => Some((subscription, true)),
                Wanted::Disabled => Some((subscription, false)),
                Wanted::No => None,
            });
        let first = wanting.next()?;
        let Some(second) = wanting.next() else {
            // Most events: nothing is copied.
            return Some(match first {
                (only, true) => self.attempt(queue, message, event, only, now_ms).await,
                (only, false) => {
                    Step::Publish(vec![self.disabled_copy(message, event, only, now_ms)], Ending::FannedOut)
                }
            });
        };
        let all: Vec<_> = [first, second].into_iter().chain(wanting).collect();
        // Rare and large: in a box, so that no delivery carries room for it.
        Some(Box::pin(self.spread(all, message, event, now_ms)).await)
    }

    /// A copy for each of these; those that are disabled get theirs as a dead letter.
    ///
    /// Waits for room first: a window full of events that a thousand subscribers want would be some hundred thousand
    /// copies at once.
    async fn spread(
        &self,
        all: Vec<(&Arc<Subscription>, bool)>,
        message: &Message,
        event: &Event<'_>,
        now_ms: i64,
    ) -> Step {
        let wanted = u32::try_from(all.len()).unwrap_or(u32::MAX).min(COPIES_MAX);
        let room = Arc::clone(&self.copies).acquire_many_owned(wanted);
        // Who has room waits no longer than this for its confirms, and whoever waits for room no longer for that.
        let Ok(room) = timeout(self.settings.publish_patience, room).await else { return Step::HandBack };
        // Never closed.
        let room = room.ok();
        let copies: Vec<_> = all
            .into_iter()
            .map(|(subscription, is_enabled)| {
                if !is_enabled {
                    return self.disabled_copy(message, event, subscription, now_ms);
                }
                let tags = step::addressed(&message.tags, event, subscription, now_ms);
                self.deferred_ahead(message, event, subscription, &tags, now_ms)
                    .unwrap_or_else(|| (Target::Deliveries, Outgoing::new(message.body.clone(), tags)))
            })
            .collect();
        report::fanned_out(event, copies.len());
        Step::Copies(copies, room)
    }

    /// The copy for an endpoint that holds all it may waits at once: in the deliveries it would be taken only to be
    /// put off.
    fn deferred_ahead(
        &self,
        message: &Message,
        event: &Event<'_>,
        subscription: &Subscription,
        tags: &Tags,
        now_ms: i64,
    ) -> Option<(Target, Outgoing)> {
        let wait_ms = self.places.ask_ahead(Queue::Deliveries, subscription)?;
        let Settings { unit, wait_age_max, .. } = self.settings;
        let cause = Cause::Busy { wait_ms };
        let units = defer::units(tags, cause, unit, now_ms, wait_age_max)?;
        self.recorder.deferred(event, tags, units, now_ms);
        Some(defer::copy(&message.body, tags.clone(), cause, units))
    }

    /// The customer did not ask for that: the event is kept as a dead letter.
    fn disabled_copy(
        &self,
        message: &Message,
        event: &Event<'_>,
        subscription: &Subscription,
        now_ms: i64,
    ) -> (Target, Outgoing) {
        let tags = step::addressed(&message.tags, event, subscription, now_ms);
        self.recorder.dead(event, &tags, Reason::Disabled, None);
        disabled_letter(&message.body, tags)
    }
}

/// The dead letter of a subscription that we have disabled ourselves.
pub(super) fn disabled_letter(body: &Bytes, tags: Tags) -> (Target, Outgoing) {
    report::dead(Reason::Disabled, &tags);
    step::dead_copy(Reason::Disabled, body, tags)
}

pub(super) fn wanted(subscription: &Subscription, event: &Event<'_>) -> Wanted {
    if !subscription.matches(event) {
        return Wanted::No;
    }
    if !subscription.accepts(event) {
        report::filtered_out(event, subscription);
        return Wanted::No;
    }
    match (subscription.enabled, subscription.disabled_by) {
        (true, _) => Wanted::Yes,
        (false, Some(DisabledBy::Paperboy)) => Wanted::Disabled,
        (false, _) => {
            report::not_matched_disabled(event, subscription);
            Wanted::No
        }
    }
}

/// A dead letter of kind `event`, with the original bytes, the original headers and the reason.
pub(super) fn unreadable(message: &Message, why: &Unreadable, now_ms: i64) -> Step {
    let reason = format!("{}: {why}", Reason::Unreadable.as_str());
    report::unreadable(message, &reason);
    let copy = unreadable_copy(message, reason, now_ms);
    Step::Publish(vec![(Target::DeadEvents, copy)], Ending::Dead)
}

/// What is kept of a message that is no event: its bytes, its headers and why.
pub(super) fn unreadable_copy(message: &Message, reason: String, now_ms: i64) -> Outgoing {
    let tags = Tags {
        time: message.tags.time.clone().or_else(|| Some(time::rfc3339(now_ms))),
        first_seen_ms: message.tags.first_seen_ms.or(Some(now_ms)),
        original: Some(message.original.describe(ORIGINAL_BYTES_MAX)),
        reason: Some(reason),
        wait: 0,
        ..message.tags.clone()
    };
    Outgoing::new(message.body.clone(), tags)
}

/// An event over the limit is not looked into at all.
pub(super) fn too_large(message: Message, bytes_max: usize, now_ms: i64) -> Step {
    let why = Unreadable::TooLarge { bytes: message.body.len() as u64, bytes_max: bytes_max as u64 };
    unreadable(&message, &why, now_ms)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use serde_json::json;
    use tokio::sync::mpsc::{channel, unbounded_channel};
    use tokio::sync::watch;

    use super::*;
    use crate::broker::{Receipt, Taken, Unconfirmed, Windows};
    use crate::domain::outcome::Answer;
    use crate::domain::request::Request;
    use crate::domain::spec::SubscriptionSpec;
    use crate::worker::Places;
    use crate::worker::balance::Balance;
    use crate::worker::fakes::{Known, Nothing};

    /// Confirms nothing until it is told to.
    struct Held {
        published: Arc<AtomicUsize>,
        confirms: watch::Receiver<bool>,
    }

    impl Broker for Held {
        async fn publish(&self, _: Target, _: Outgoing) -> Result<(), Unconfirmed> {
            self.published.fetch_add(1, Ordering::SeqCst);
            let _ = self.confirms.clone().wait_for(|confirms| *confirms).await;
            Ok(())
        }
    }

    struct Nobody;

    impl Transport for Nobody {
        async fn send(&self, _: Request) -> Answer {
            panic!("copies are delivered from their queue")
        }
    }

    #[tokio::test]
    async fn a_window_full_of_events_is_not_spread_all_at_once() {
        let subscription = |n: usize| {
            let document = json!({"id": format!("sub_{n}"), "tenant": "acme", "events": ["#"], "signatures": [],
                "request": {"url": "https://h.example/"}});
            Arc::new(SubscriptionSpec::read(document).unwrap().check().unwrap())
        };
        let subscriptions = (0..100).map(subscription).collect();
        let directory = Known(Arc::new(TenantSubscriptions { version: 1, subscriptions }));
        let settings = Settings {
            event_bytes_max: 1_000,
            unit: Duration::from_secs(1),
            wait_age_max: Duration::from_secs(60),
            grace: Duration::from_secs(60),
            publish_patience: Duration::from_secs(60),
        };
        let (confirm, confirms) = watch::channel(false);
        let published = Arc::new(AtomicUsize::new(0));
        let broker = Held { published: Arc::clone(&published), confirms };
        let places = Arc::new(Places::new(Arc::<Windows>::default()));
        let worker = Worker::new(broker, directory, Nobody, settings, Arc::<Balance>::default(), places);
        let (line, mut settled) = unbounded_channel();
        let (sink, taken) = channel(200);
        for tag in 0..200 {
            let body =
                format!(r#"{{"id":"e{tag}","type":"a","tenant":"acme","time":"2026-11-22T09:00:00Z"}}"#);
            let message = Message {
                body: body.into(),
                tags: Tags::default(),
                routing_key: "a".to_owned(),
                redelivered: false,
                asker: None,
                original: Box::new(Nothing),
            };
            let receipt = Receipt::new(tag, line.clone());
            sink.send(Taken { queue: Queue::Events, message, receipt }).await.unwrap();
        }
        drop((sink, line));
        let running = tokio::spawn(Arc::new(worker).run(taken));
        // On one thread: all that can go on has gone on.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(published.load(Ordering::SeqCst), 4_000, "of 20,000");
        assert!(settled.try_recv().is_err());
        confirm.send_replace(true);
        timeout(Duration::from_secs(30), running).await.unwrap().unwrap();
        assert_eq!(published.load(Ordering::SeqCst), 20_000);
        settled.close();
        assert_eq!(std::iter::from_fn(|| settled.try_recv().ok()).count(), 200);
    }
}
