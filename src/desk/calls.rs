//! Calls over HTTP: one event, and what the receivers that are asked say to it.
//!
//! They are asked from here and not through RabbitMQ: a process that answers HTTP needs no worker for it, and a
//! caller is told at once. What a call means is `worker::call`'s.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::{Caller, Courier, Desk, Publisher, Refused, events};
use crate::domain::event::{Event, Hints, Unreadable};
use crate::domain::fault::Fault;
use crate::domain::name::Tenant;
use crate::domain::reply::{Failed, Reply};
use crate::domain::request::Request;
use crate::domain::subscription::Subscription;
use crate::worker::call;

/// The longest a caller is kept waiting, and where it is noted what came of it.
pub use crate::worker::call::{DEADLINE, Notes};

/// Calls that wait at once, and how many of them are one tenant's: receivers that hang leave room for others.
const CALLS_MAX: usize = 64;
const OF_ONE_MAX: usize = 32;

/// What came of a call.
#[derive(Debug, Serialize)]
pub struct Called {
    /// The event's.
    pub id: String,
    /// One for each subscription that was asked.
    pub data: Vec<Reply>,
}

/// Who waits for answers now.
#[derive(Debug, Default)]
pub struct Waiting(Mutex<HashMap<Tenant, usize>>);

/// One call's place; dropped, it is free again.
struct Place<'a>(&'a Waiting, Tenant);

impl Waiting {
    fn enter(&self, tenant: &Tenant) -> Option<Place<'_>> {
        let mut waiting = self.lock();
        let (all, own) = (waiting.values().sum::<usize>(), waiting.get(tenant).copied().unwrap_or(0));
        if all >= CALLS_MAX || own >= OF_ONE_MAX {
            return None;
        }
        waiting.insert(tenant.clone(), own + 1);
        Some(Place(self, tenant.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Tenant, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        let left = waiting.get(&self.1).copied().unwrap_or(1) - 1;
        match left {
            0 => waiting.remove(&self.1),
            left => waiting.insert(self.1.clone(), left),
        };
    }
}

/// What a call needs beside the desk.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    pub publisher: &'a dyn Publisher,
    pub courier: &'a dyn Courier,
    pub waiting: &'a Waiting,
    /// Where each who is asked is noted.
    pub notes: &'a Notes,
    /// W3C trace context that travels with the event.
    pub traceparent: Option<&'a str>,
    /// When the caller gives up.
    pub deadline: Instant,
}

impl Desk {
    /// Asks every subscription of the event's tenant that wants it answered, once, after the copies of its ordinary
    /// subscribers are confirmed.
    ///
    /// # Errors
    /// The event has faults or is another tenant's; too many wait already; the store does not say who subscribes, or
    /// a copy is not confirmed: then nobody was asked. A receiver that refuses or is silent is no error.
    pub async fn call(&self, caller: &Caller, body: Bytes, way: Way<'_>) -> Result<Called, Refused> {
        let ready = events::read(caller, body, self.rules.event_bytes_max)?;
        let (mut tags, body) = (ready.tags, ready.body);
        tags.traceparent = way.traceparent.map(str::to_owned);
        let now = jiff::Timestamp::now();
        let time = now.to_string();
        let hints = Hints { time: Some(&time), ..Hints::default() };
        let unreadable = |why: Unreadable| Refused::Faults(vec![Fault::new("", why.to_string())]);
        let event = Event::parse(&body, &hints).map_err(unreadable)?;
        let busy = Refused::Busy("too many calls wait for their answers");
        let _place = way.waiting.enter(&event.tenant).ok_or(busy)?;

        let found = self.subscribed(&event.tenant);
        let found = timeout_at(way.deadline, found).await.map_err(|_| late("the store"))??;
        let parted = call::part(&found, &event, &tags, &body, now.as_millisecond());
        let publishes = parted.copies.into_iter().map(|(target, copy)| way.publisher.publish(target, copy));
        timeout_at(way.deadline, try_join_all(publishes))
            .await
            .map_err(|_| late("RabbitMQ"))?
            .map_err(|error| Refused::Failed(anyhow::anyhow!("{error}")))?;

        let mut data: Vec<Reply> = parted.disabled.iter().map(switched_off).collect();
        let send = |request: Request| way.courier.send(request);
        let said = call::ask_all(&send, parted.asked, &event, &body, way.traceparent, way.deadline);
        let noted = said.map(|one| {
            way.notes.asked(&event, &tags, &one);
            one.reply
        });
        data.extend(noted.collect::<Vec<_>>().await);
        let ending = if data.is_empty() { Failed::NoSubscriber.as_str() } else { "answered" };
        metrics::counter!("paperboy_calls_total", "ending" => ending).increment(1);
        Ok(Called { id: event.id.to_string(), data })
    }

    /// The tenant's subscriptions. With one that is broken nobody knows who would have been asked.
    async fn subscribed(&self, tenant: &Tenant) -> Result<Vec<Arc<Subscription>>, Refused> {
        let broken =
            || Refused::Failed(anyhow::anyhow!("a subscription of tenant `{tenant}` cannot be read"));
        let specs = self.store.tenant(tenant).await?.specs.into_iter();
        let checked = specs.map(|spec| spec.ok().and_then(|spec| spec.check().ok()).ok_or_else(broken));
        let checked: Vec<_> = checked.collect::<Result<_, _>>()?;
        // The tenant is checked again after the lookup, as everywhere.
        if checked.iter().any(|subscription| subscription.tenant != *tenant) {
            return Err(broken());
        }
        Ok(checked.into_iter().map(Arc::new).collect())
    }
}

fn switched_off(subscription: &Arc<Subscription>) -> Reply {
    Reply::failed(subscription, Failed::Disabled, "the subscription was switched off by Paperboy")
}

fn late(who: &str) -> Refused {
    Refused::Failed(anyhow::anyhow!("{who} did not answer within the time of a call"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_takes_half_of_the_places_at_most_and_gives_them_back() {
        let waiting = Waiting::default();
        let tenant = |name: &str| Tenant::parse(name).unwrap();
        let many = |name: &str| -> Vec<_> {
            std::iter::from_fn(|| waiting.enter(&tenant(name))).take(1_000).collect()
        };
        let acme = many("acme");
        assert_eq!((acme.len(), many("bolt").len()), (OF_ONE_MAX, OF_ONE_MAX), "given back at once");
        let bolt = many("bolt");
        assert_eq!((bolt.len(), many("cord").len()), (CALLS_MAX - OF_ONE_MAX, 0));
        drop(acme);
        assert_eq!(many("cord").len(), OF_ONE_MAX);
        drop(bolt);
        assert!(waiting.lock().is_empty());
    }
}
