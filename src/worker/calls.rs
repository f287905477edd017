//! Calls from RabbitMQ: events whose publisher waits for what the receivers answer.
//!
//! A call is acknowledged before anybody is asked, so that no receiver ever gets it twice: the one message here that
//! may be lost. Its ordinary subscribers' copies are confirmed before that. What comes redelivered may have been
//! asked already and is answered as interrupted. Nothing of a call is retried, put off or a dead letter.

mod seats;

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use super::balance::Ending;
use super::call::{self, Parted};
use super::{Worker, clock, report, settle};
use crate::broker::{Asker, Broker, Message, Queue, Receipt, Replier, Taken};
use crate::cache::{Directory, Lookup};
use crate::domain::event::{Event, Hints};
use crate::domain::name::{SubscriptionId, Tenant};
use crate::domain::reply::{Failed, Reply};
use crate::http::Transport;
use seats::{Seat, Seats};

/// Calls in hand at once. They are acknowledged, so no prefetch bounds them.
const CALLS_MAX: usize = 128;
/// Of these, calls of one tenant, whose receivers may all hang, and calls that one subscription keeps waiting: both
/// leave room for others.
const OF_TENANT_MAX: usize = CALLS_MAX / 2;
const OF_ONE_MAX: usize = OF_TENANT_MAX / 2;
/// Bytes of their bodies, in KiB.
const ROOM_KIB: u32 = 64 * 1024;
/// How long a process that has no time left still tries to tell callers.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a worker needs to answer calls.
pub(super) struct Calls {
    replier: Arc<dyn Replier>,
    places: Arc<Semaphore>,
    room: Arc<Semaphore>,
    tenants: Seats<Tenant>,
    asked: Seats<SubscriptionId>,
}

/// One message on its way to a caller.
type Telling<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// One call's place and room; dropped, they are free again.
struct Admitted(#[expect(dead_code, reason = "held")] [OwnedSemaphorePermit; 2]);

impl Calls {
    pub(super) fn new(replier: Arc<dyn Replier>) -> Calls {
        let (places, room) = (Semaphore::new(CALLS_MAX), Semaphore::new(ROOM_KIB as usize));
        let (tenants, asked) = (Seats::default(), Seats::default());
        Calls { replier, places: Arc::new(places), room: Arc::new(room), tenants, asked }
    }

    async fn admit(&self, body_bytes: usize) -> Option<Admitted> {
        let kib = u32::try_from(body_bytes / 1024 + 1).unwrap_or(u32::MAX).min(ROOM_KIB);
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        let room = Arc::clone(&self.room).acquire_many_owned(kib).await.ok()?;
        Some(Admitted([place, room]))
    }

    fn tell(&self, asker: &Asker, replies: usize, reply: &Reply) -> Telling<'_> {
        let replies = u32::try_from(replies).unwrap_or(u32::MAX);
        self.replier.reply(asker.clone(), replies, reply.to_bytes())
    }

    /// The one message of a call that nobody is asked for.
    async fn tell_alone(&self, asker: &Asker, why: Failed, detail: impl Into<String>) {
        report::called(why.as_str());
        let replies = if why == Failed::NoSubscriber { 0 } else { 1 };
        self.tell(asker, replies, &Reply::alone(why, detail)).await;
    }
}

/// How the part of a call ended that comes before its acknowledgement.
enum Prepared<'a> {
    Ask(Box<(Event<'a>, Parted, Seat<'a, Tenant>)>),
    Tell(Failed, String),
    /// A copy for an ordinary subscriber is not confirmed, or the message is somebody else's by now.
    HandBack,
}

impl<B: Broker, D: Directory, T: Transport> Worker<B, D, T> {
    /// One call from taking to its last answer.
    pub(super) async fn answer_call(&self, calls: &Calls, taken: Taken) {
        let Taken { message, receipt, .. } = taken;
        let asker = message.asker.as_deref().cloned().unwrap_or_default();
        let waits = asker.expires_ms.map_or(call::DEADLINE, Duration::from_millis).min(call::DEADLINE);
        let deadline = Instant::now() + waits;
        let hand = self.balance.take(Queue::Calls);
        let prepared = tokio::select! {
            biased;
            () = self.overdue.cancelled() => None,
            prepared = async {
                match timeout_at(deadline, calls.admit(message.body.len())).await {
                    Ok(Some(admitted)) => Some((Some(admitted), self.prepare(calls, &message, &receipt, deadline).await)),
                    _ => {
                        let why = "this worker is busy with other calls".to_owned();
                        Some((None, Prepared::Tell(Failed::Busy, why)))
                    }
                }
            } => prepared,
        };
        let (_admitted, prepared) = match prepared {
            Some((admitted, prepared)) if receipt.is_live() => (admitted, prepared),
            _ => (None, Prepared::HandBack),
        };
        match prepared {
            Prepared::HandBack => {
                receipt.hand_back();
                return hand.given_back();
            }
            Prepared::Tell(why, detail) => {
                receipt.acknowledge();
                self.until_told(calls.tell_alone(&asker, why, detail)).await;
            }
            Prepared::Ask(whom) if whom.1.replies() == 0 => {
                receipt.acknowledge();
                let detail = "no subscription of the tenant wants this event answered";
                self.until_told(calls.tell_alone(&asker, Failed::NoSubscriber, detail)).await;
            }
            Prepared::Ask(..) if message.redelivered => {
                receipt.acknowledge();
                let detail = "another process had this call and may have made it; it is not made again";
                self.until_told(calls.tell_alone(&asker, Failed::Interrupted, detail)).await;
            }
            Prepared::Ask(whom) => {
                receipt.acknowledge();
                let (event, parted, _seat) = *whom;
                self.ask(calls, &asker, &message, &event, parted, deadline).await;
            }
        }
        hand.settled(Ending::Answered);
    }

    /// Reads the call, finds who is asked, and sees to it that ordinary subscribers get theirs.
    async fn prepare<'a>(
        &self,
        calls: &'a Calls,
        message: &'a Message,
        receipt: &Receipt,
        deadline: Instant,
    ) -> Prepared<'a> {
        let (now_ms, bytes_max) = (clock::now_ms(), self.settings.event_bytes_max);
        if message.body.len() > bytes_max {
            return Prepared::Tell(Failed::Unreadable, format!("it is larger than {bytes_max} bytes"));
        }
        let own = message.tags.kind.as_deref().filter(|kind| !kind.is_empty());
        let hints = Hints {
            message_id: message.tags.message_id.as_deref(),
            kind: own,
            routing_key: Some(message.routing_key.as_str()).filter(|key| !key.is_empty()),
            time: message.tags.time.as_deref(),
            arrived_ms: Some(now_ms),
        };
        let event = match Event::parse(&message.body, &hints) {
            Ok(event) => event,
            Err(unreadable) => return Prepared::Tell(Failed::Unreadable, unreadable.to_string()),
        };
        let Some(seat) = calls.tenants.take(&event.tenant, OF_TENANT_MAX) else {
            let why = "this worker is busy with other calls of the tenant".to_owned();
            return Prepared::Tell(Failed::Busy, why);
        };
        let looked_up = timeout_at(deadline, self.part(message, &event, now_ms)).await;
        let Ok(Some(mut parted)) = looked_up else {
            let why = "nobody can say now who subscribes; call again".to_owned();
            return Prepared::Tell(Failed::Unavailable, why);
        };
        let (copies, patience) = (std::mem::take(&mut parted.copies), self.settings.publish_patience);
        if !settle::all_confirmed(&self.broker, copies, receipt, patience).await {
            return Prepared::HandBack;
        }
        Prepared::Ask(Box::new((event, parted, seat)))
    }

    /// Who is asked and who only gets it; none while nobody can tell.
    async fn part(&self, message: &Message, event: &Event<'_>, now_ms: i64) -> Option<Parted> {
        let mut lookup = self.lookup(&event.tenant).await;
        let mut seen = None;
        for confirmed in [false, true] {
            let version = match &lookup {
                Lookup::Found(found) => {
                    // What nobody has changed since is not counted twice.
                    let parted = seen.take().filter(|(version, _)| *version == found.version);
                    let parted = parted.map_or_else(
                        || call::part(&found.subscriptions, event, &message.tags, &message.body, now_ms),
                        |(_, parted)| parted,
                    );
                    if confirmed || parted.replies() > 0 {
                        return Some(parted);
                    }
                    seen = Some((found.version, parted));
                    found.version
                }
                Lookup::KnownEmpty(_) if confirmed => return Some(Parted::default()),
                Lookup::KnownEmpty(version) => *version,
                Lookup::Unknown(_) => return None,
            };
            // Before a call is let go as nobody's, as with any event.
            lookup = self.directory.confirm(&event.tenant, version).await;
        }
        None
    }

    async fn ask(
        &self,
        calls: &Calls,
        asker: &Asker,
        message: &Message,
        event: &Event<'_>,
        parted: Parted,
        deadline: Instant,
    ) {
        report::called("answered");
        let replies = parted.replies();
        // Nobody is told one after the other: a connection to callers that is held up holds up no receiver's answer.
        let mut telling = FuturesUnordered::new();
        for disabled in &parted.disabled {
            let why = "the subscription was switched off by Paperboy";
            telling.push(calls.tell(asker, replies, &Reply::failed(disabled, Failed::Disabled, why)));
        }
        let mut asked = Vec::with_capacity(parted.asked.len());
        let mut questions = HashMap::new();
        for subscription in parted.asked {
            match calls.asked.take(&subscription.id, OF_ONE_MAX) {
                Some(question) => {
                    questions.insert(subscription.id.clone(), question);
                    asked.push(subscription);
                }
                None => {
                    let why = "it has many calls unanswered";
                    telling.push(calls.tell(
                        asker,
                        replies,
                        &Reply::failed(&subscription, Failed::Busy, why),
                    ));
                }
            }
        }
        let traceparent = message.tags.traceparent.as_deref();
        let send = |request| self.transport.send(request);
        let mut said = pin!(call::ask_all(&send, asked.clone(), event, &message.body, traceparent, deadline));
        let is_cut_off = loop {
            let one = tokio::select! {
                biased;
                () = self.overdue.cancelled() => break true,
                Some(()) = telling.next(), if !telling.is_empty() => continue,
                one = said.next() => one,
            };
            let Some(one) = one else { break false };
            questions.remove(&one.subscription.id);
            call::note(&self.meters, &self.recorder, event, &message.tags, &one);
            telling.push(calls.tell(asker, replies, &one.reply));
        };
        if is_cut_off {
            let left = asked.iter().filter(|subscription| questions.contains_key(&subscription.id));
            for subscription in left {
                let why = "this process stops";
                telling.push(calls.tell(
                    asker,
                    replies,
                    &Reply::failed(subscription, Failed::Interrupted, why),
                ));
            }
        }
        self.until_told(telling.collect()).await;
    }

    /// Waits until it is told; in a process that has no time left, for [`LAST_WORDS`] at most.
    async fn until_told(&self, telling: impl Future<Output = ()>) {
        let given_up = async {
            self.overdue.cancelled().await;
            sleep(LAST_WORDS).await;
        };
        tokio::select! {
            biased;
            () = telling => {}
            () = given_up => {}
        }
    }
}

#[cfg(test)]
mod tests;
