//! The engine: takes messages, walks each down the straight line, settles it in the only safe order.
//!
//! Knows traits (broker, directory, transport) and the pure core, never RabbitMQ, Redis, SQL or an HTTP client.

mod answers;
mod attempt;
pub mod balance;
pub mod call;
mod calls;
mod clock;
mod defer;
pub mod drain;
#[cfg(test)]
mod fakes;
mod fresh;
pub mod membership;
pub mod notices;
mod overdue;
pub mod passage;
mod places;
pub mod record;
pub mod replay;
mod report;
mod settle;
pub mod source;
mod step;
pub mod vigil;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::broker::{Broker, Message, Queue, Replier, Tags, Taken};
use crate::cache::{Directory, Lookup, Unknown};
use crate::domain::event::{Event, Hints};
use crate::domain::name::{SubscriptionId, Tenant};
use crate::domain::retry::Reason;
use crate::http::Transport;
use balance::Balance;
use defer::Cause;
use membership::{Memberships, NotRecorded};
use overdue::Overdue;
pub use places::Places;
use record::Recorder;
use step::Step;
use vigil::Vigil;

/// Messages started before the line is looked at again.
const AT_ONCE: usize = 64;
/// A whole event whose tenant nobody can look up goes back after this pause, so that it does not spin
/// while the intake is being closed.
const AWAY_PAUSE: Duration = Duration::from_millis(500);

/// What a worker needs to know beside its services.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A larger event is not read at all.
    pub event_bytes_max: usize,
    /// What waits are counted in.
    pub unit: Duration,
    /// A delivery that had no attempt for this long is dead.
    pub wait_age_max: Duration,
    /// How long a stop waits for what is running.
    pub grace: Duration,
    /// How long an unconfirmed publish is tried before its source is handed back.
    pub publish_patience: Duration,
}

/// Delivers what it is given.
pub struct Worker<B, D, T> {
    broker: B,
    directory: D,
    transport: T,
    settings: Settings,
    balance: Arc<Balance>,
    places: Arc<Places>,
    meters: report::Meters,
    recorder: Recorder,
    /// Of a worker that takes calls.
    calls: Option<calls::Calls>,
    vigil: Arc<Vigil>,
    memberships: Memberships,
    /// Room for copies of events that several subscribers want, from making one to its confirm.
    copies: Arc<Semaphore>,
    /// The grace is over: whatever still runs gives its message back.
    overdue: Overdue,
}

/// How a worker's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish {
    /// Messages still running when the stop came that were finished within the grace.
    pub finished: usize,
    /// Messages given back when the grace was over.
    pub given_back: usize,
}

impl<B: Broker, D: Directory, T: Transport> Worker<B, D, T> {
    /// A worker over these services.
    pub fn new(
        broker: B,
        directory: D,
        transport: T,
        settings: Settings,
        balance: Arc<Balance>,
        places: Arc<Places>,
    ) -> Self {
        let (meters, overdue) = (report::Meters::default(), Overdue::default());
        let (recorder, vigil) = (Recorder::nothing(), Arc::new(Vigil::new(false)));
        let (calls, memberships) = (None, Memberships::nothing());
        let copies = Arc::new(Semaphore::new(fresh::COPIES_MAX as usize));
        Worker {
            broker,
            directory,
            transport,
            settings,
            balance,
            places,
            meters,
            recorder,
            calls,
            vigil,
            memberships,
            copies,
            overdue,
        }
    }

    /// Takes calls too, and answers them this way.
    #[must_use]
    pub fn answering(mut self, replier: Arc<dyn Replier>) -> Self {
        self.calls = Some(calls::Calls::new(replier));
        self
    }

    /// Records what befalls each delivery.
    #[must_use]
    pub fn recording(mut self, recorder: Recorder) -> Self {
        self.recorder = recorder;
        self
    }

    /// Notes which subscriptions fail.
    #[must_use]
    pub fn watched_by(mut self, vigil: Arc<Vigil>) -> Self {
        self.vigil = vigil;
        self
    }

    /// Writes down what events mean for their batches.
    #[must_use]
    pub fn joining(mut self, memberships: Memberships) -> Self {
        self.memberships = memberships;
        self
    }

    /// Works until `taken` ends (its owner was told to stop), then waits at most the grace for what still runs.
    pub async fn run(self: Arc<Self>, mut taken: mpsc::Receiver<Taken>) -> Finish {
        let running = TaskTracker::new();
        let mut arrived = Vec::with_capacity(AT_ONCE);
        // Bounded by the prefetch: the broker hands out no more than that unacknowledged.
        while taken.recv_many(&mut arrived, AT_ONCE).await > 0 {
            for taken in arrived.drain(..) {
                running.spawn(Arc::clone(&self).handle(taken));
            }
        }
        running.close();
        let left = running.len();
        let mut given_back = 0;
        if timeout(self.settings.grace, running.wait()).await.is_err() {
            given_back = running.len();
            self.overdue.cancel();
            running.wait().await;
        }
        Finish { finished: left.saturating_sub(given_back), given_back }
    }

    /// One message from taking to settling.
    async fn handle(self: Arc<Self>, taken: Taken) {
        let Taken { queue, message, receipt } = taken;
        if !receipt.is_live() {
            // Its channel died while it waited here: somebody else gets it.
            return;
        }
        if let (Queue::Calls, Some(calls)) = (queue, &self.calls) {
            // Rare and large: in a box, so that no delivery carries room for it.
            return Box::pin(self.answer_call(calls, Taken { queue, message, receipt })).await;
        }
        let hand = self.balance.take(queue);
        let ending = {
            // Pinned where it is made: what is passed on is copied.
            let work = pin!(async {
                let step = self.walk(queue, message).await;
                settle::carry_out(&self.broker, step, &receipt, self.settings.publish_patience).await
            });
            self.overdue.unless(work).await.flatten()
        };
        match ending {
            Some(ending) => {
                receipt.acknowledge();
                hand.settled(ending);
            }
            None => {
                receipt.hand_back();
                hand.given_back();
            }
        }
    }

    /// The straight line: what is to be done about a message.
    async fn walk(&self, queue: Queue, mut message: Message) -> Step {
        let now_ms = clock::now_ms();
        if queue == Queue::Retries && message.tags.wait > 0 {
            return Step::onwards(message);
        }
        if message.body.len() > self.settings.event_bytes_max {
            name_kind(queue, &mut message);
            return fresh::too_large(message, self.settings.event_bytes_max, now_ms);
        }
        let hints = Hints {
            message_id: message.tags.message_id.as_deref(),
            kind: message.tags.kind.as_deref(),
            // Later keys are names of queues.
            routing_key: (queue == Queue::Events).then_some(&*message.routing_key),
            time: message.tags.time.as_deref(),
            arrived_ms: Some(now_ms),
        };
        let event = match Event::parse(&message.body, &hints) {
            Ok(event) => event,
            Err(unreadable) => {
                name_kind(queue, &mut message);
                return fresh::unreadable(&message, &unreadable, now_ms);
            }
        };
        // Before anybody hears of it, and whether anybody does.
        if event.batch_id.is_some()
            && message.tags.subscription.is_none()
            && let Err(NotRecorded) = Box::pin(self.memberships.record(&event, now_ms)).await
        {
            let tags = step::carry(&message.tags, &event, now_ms);
            let Settings { unit, wait_age_max, .. } = self.settings;
            let units = defer::units(&tags, defer::Cause::Store, unit, now_ms, wait_age_max);
            self.memberships.hold(units.unwrap_or(0));
            return self.put_off(&message, &event, tags, Cause::Store, now_ms);
        }
        match message.tags.subscription.as_deref() {
            None => self.expand(queue, &message, &event, now_ms).await,
            Some(id) => self.deliver_again(queue, &message, &event, id, now_ms).await,
        }
    }

    /// Who wants a tenant's events: from memory at once, nearly always.
    async fn lookup(&self, tenant: &Tenant) -> Lookup {
        match self.directory.known(tenant.as_str()) {
            Some(known) => known,
            // Rare and large: in a box, so that no delivery carries room for it.
            None => Box::pin(self.directory.lookup(tenant)).await,
        }
    }

    /// A delivery that knows its subscription: a fan-out copy, a due retry or a replay.
    async fn deliver_again(
        &self,
        queue: Queue,
        message: &Message,
        event: &Event<'_>,
        id: &str,
        now_ms: i64,
    ) -> Step {
        let tags = || step::carry(&message.tags, event, now_ms);
        let mut lookup = self.lookup(&event.tenant).await;
        for confirmed in [false, true] {
            let version = match &lookup {
                Lookup::Found(found) => {
                    let wanted = SubscriptionId::parse(id).ok().and_then(|id| found.find(&id));
                    if let Some(subscription) = wanted {
                        return if subscription.enabled {
                            self.attempt(queue, message, event, subscription, now_ms).await
                        } else {
                            self.give_up(Reason::Disabled, message, event, tags())
                        };
                    }
                    found.version
                }
                Lookup::KnownEmpty(version) => *version,
                Lookup::Unknown(unknown) => {
                    return self.cannot_tell(unknown, message, event, tags(), now_ms).await;
                }
            };
            if !confirmed {
                // Rare and large: in a box, so that no delivery carries room for it.
                lookup = Box::pin(self.directory.confirm(&event.tenant, version)).await;
            }
        }
        self.give_up(Reason::Gone, message, event, tags())
    }

    /// Nobody can say who wants it: wait for one tenant, give everything back when all are unknown.
    async fn cannot_tell(
        &self,
        unknown: &Unknown,
        message: &Message,
        event: &Event<'_>,
        tags: Tags,
        now_ms: i64,
    ) -> Step {
        match unknown {
            Unknown::Tenant(_) => self.put_off(message, event, tags, Cause::Unknown, now_ms),
            Unknown::Away(_) => {
                sleep(AWAY_PAUSE).await;
                Step::HandBack
            }
        }
    }

    /// Puts a message off without an attempt, or ends what has waited too long.
    fn put_off(&self, message: &Message, event: &Event<'_>, tags: Tags, cause: Cause, now_ms: i64) -> Step {
        let Settings { unit, wait_age_max, .. } = self.settings;
        match defer::units(&tags, cause, unit, now_ms, wait_age_max) {
            Some(units) => {
                self.recorder.deferred(event, &tags, units, now_ms);
                defer::defer(message, tags, cause, units)
            }
            None => self.give_up(Reason::Starved, message, event, tags),
        }
    }

    /// Gives a delivery up without an attempt.
    fn give_up(&self, reason: Reason, message: &Message, event: &Event<'_>, tags: Tags) -> Step {
        self.recorder.dead(event, &tags, reason, None);
        Step::dead(reason, message, tags)
    }
}

/// Keeps the type of a message that nobody can read, which was resolved at first sight or never.
fn name_kind(queue: Queue, message: &mut Message) {
    if queue == Queue::Events && message.tags.kind.as_deref().is_none_or(str::is_empty) {
        message.tags.kind = Some(message.routing_key.clone()).filter(|key| !key.is_empty());
    }
}
