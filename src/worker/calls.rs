//! Calls from RabbitMQ: events whose publisher waits for what the receivers answer.
//!
//! A call is acknowledged before anybody is asked, so that no receiver ever gets it twice: the one message here that
//! may be lost. Its ordinary subscribers' copies are confirmed before that. What comes redelivered may have been
//! asked already and is answered as interrupted. Nothing of a call is retried, put off or a dead letter.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::balance::Ending;
use super::call::{self, Asked, Parted};
use super::report::{self, Attempted};
use super::{Worker, clock, settle};
use crate::broker::{Asker, Broker, Message, Queue, Receipt, Replier, Tags, Taken};
use crate::cache::{Directory, Lookup};
use crate::domain::event::{Event, Hints};
use crate::domain::name::SubscriptionId;
use crate::domain::outcome::Outcome;
use crate::domain::reply::{Failed, Reply};
use crate::domain::retry::Verdict;
use crate::http::Transport;

/// Calls in hand at once. They are acknowledged, so no prefetch bounds them.
const CALLS_MAX: usize = 128;
/// Of these, calls that one subscription keeps waiting: a receiver that hangs must leave room for others.
const OF_ONE_MAX: usize = 64;
/// Bytes of their bodies, in KiB.
const ROOM_KIB: u32 = 64 * 1024;

/// What a worker needs to answer calls.
pub(super) struct Calls {
    replier: Arc<dyn Replier>,
    places: Arc<Semaphore>,
    room: Arc<Semaphore>,
    asked: Mutex<HashMap<SubscriptionId, usize>>,
}

/// One call's place and room; dropped, they are free again.
struct Admitted(#[expect(dead_code, reason = "held")] [OwnedSemaphorePermit; 2]);

/// One question to a subscription; dropped, it may be asked again.
struct Question<'a>(&'a Calls, SubscriptionId);

impl Calls {
    pub(super) fn new(replier: Arc<dyn Replier>) -> Calls {
        let (places, room) = (Semaphore::new(CALLS_MAX), Semaphore::new(ROOM_KIB as usize));
        Calls { replier, places: Arc::new(places), room: Arc::new(room), asked: Mutex::default() }
    }

    async fn admit(&self, body_bytes: usize) -> Option<Admitted> {
        let kib = u32::try_from(body_bytes / 1024 + 1).unwrap_or(u32::MAX).min(ROOM_KIB);
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        let room = Arc::clone(&self.room).acquire_many_owned(kib).await.ok()?;
        Some(Admitted([place, room]))
    }

    /// None where the subscription has as many unanswered calls as it may.
    fn question(&self, subscription: &SubscriptionId) -> Option<Question<'_>> {
        let mut asked = self.asked();
        let count = asked.entry(subscription.clone()).or_default();
        if *count >= OF_ONE_MAX {
            return None;
        }
        *count += 1;
        Some(Question(self, subscription.clone()))
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<SubscriptionId, usize>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(&self, asker: &Asker, replies: usize, reply: &Reply) {
        let replies = u32::try_from(replies).unwrap_or(u32::MAX);
        self.replier.reply(asker.clone(), replies, reply.to_bytes()).await;
    }

    /// The one message of a call that nobody is asked for.
    async fn tell_alone(&self, asker: &Asker, why: Failed, detail: impl Into<String>) {
        report::called(why.as_str());
        let replies = if why == Failed::NoSubscriber { 0 } else { 1 };
        self.tell(asker, replies, &Reply::alone(why, detail)).await;
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.0.asked().entry(self.1.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// How the part of a call ended that comes before its acknowledgement.
enum Prepared<'a> {
    Ask(Box<(Event<'a>, Parted)>),
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
                    Ok(Some(admitted)) => Some((Some(admitted), self.prepare(&message, &receipt, deadline).await)),
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
                calls.tell_alone(&asker, why, detail).await;
            }
            Prepared::Ask(whom) if whom.1.replies() == 0 => {
                receipt.acknowledge();
                let detail = "no subscription of the tenant wants this event answered";
                calls.tell_alone(&asker, Failed::NoSubscriber, detail).await;
            }
            Prepared::Ask(..) if message.redelivered => {
                receipt.acknowledge();
                let detail = "another process had this call and may have made it; it is not made again";
                calls.tell_alone(&asker, Failed::Interrupted, detail).await;
            }
            Prepared::Ask(whom) => {
                receipt.acknowledge();
                let (event, parted) = *whom;
                self.ask(calls, &asker, &message, &event, parted, deadline).await;
            }
        }
        hand.settled(Ending::Answered);
    }

    /// Reads the call, finds who is asked, and sees to it that ordinary subscribers get theirs.
    async fn prepare<'a>(&self, message: &'a Message, receipt: &Receipt, deadline: Instant) -> Prepared<'a> {
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
        let looked_up = timeout_at(deadline, self.part(message, &event, now_ms)).await;
        let Ok(Some(mut parted)) = looked_up else {
            let why = "nobody can say now who subscribes; call again".to_owned();
            return Prepared::Tell(Failed::Unavailable, why);
        };
        let copies = std::mem::take(&mut parted.copies).into_iter();
        let publishes = copies.map(|(target, copy)| settle::confirmed(&self.broker, target, copy, receipt));
        let all = timeout(self.settings.publish_patience, join_all(publishes)).await;
        if !all.is_ok_and(|confirmed| confirmed.into_iter().all(|is_safe| is_safe)) {
            return Prepared::HandBack;
        }
        Prepared::Ask(Box::new((event, parted)))
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
        for disabled in &parted.disabled {
            let why = "the subscription was switched off by Paperboy";
            calls.tell(asker, replies, &Reply::failed(disabled, Failed::Disabled, why)).await;
        }
        let mut asked = Vec::with_capacity(parted.asked.len());
        let mut questions = HashMap::new();
        for subscription in parted.asked {
            match calls.question(&subscription.id) {
                Some(question) => {
                    questions.insert(subscription.id.clone(), question);
                    asked.push(subscription);
                }
                None => {
                    let why = "it has many calls unanswered";
                    calls.tell(asker, replies, &Reply::failed(&subscription, Failed::Busy, why)).await;
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
                one = said.next() => one,
            };
            let Some(one) = one else { break false };
            questions.remove(&one.subscription.id);
            self.note_asked(event, &message.tags, &one);
            calls.tell(asker, replies, &one.reply).await;
        };
        if is_cut_off {
            let left = asked.iter().filter(|subscription| questions.contains_key(&subscription.id));
            for subscription in left {
                let why = "this process stops";
                calls.tell(asker, replies, &Reply::failed(subscription, Failed::Interrupted, why)).await;
            }
        }
    }

    /// Log, metrics and the delivery log, as for any other attempt.
    fn note_asked(&self, event: &Event<'_>, tags: &Tags, asked: &Asked) {
        let Some(answer) = &asked.answer else { return };
        let subscription = &asked.subscription;
        let outcome = Outcome::judge(&subscription.success, answer);
        let attempted = Attempted { event, subscription, attempt: 1, outcome: &outcome, answer };
        self.meters.attempted(&attempted, &Verdict::Done);
        self.recorder.attempted(&attempted, tags, &Verdict::Done, asked.at_ms);
    }
}
