//! What the worker tells: for each thing worth telling one function that writes the log line and the metric
//! together. Never a payload, a secret or a whole URL.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Histogram};
use tracing::{debug, info, warn};

use super::defer::Cause;
use crate::broker::{Message, Tags};
use crate::domain::batch::{BatchId, Joined, Unkept};
use crate::domain::event::Event;
use crate::domain::outcome::{Answer, Outcome};
use crate::domain::retry::{Reason, Verdict};
use crate::domain::subscription::Subscription;
use crate::store::dead::DeadLetter;

fn id(tags: &Tags) -> &str {
    tags.message_id.as_deref().unwrap_or("?")
}

fn subscription_of(tags: &Tags) -> &str {
    tags.subscription.as_deref().unwrap_or("-")
}

/// An attempt that was made and judged.
pub(super) struct Attempted<'a> {
    pub(super) event: &'a Event<'a>,
    pub(super) subscription: &'a Subscription,
    /// The first is 1.
    pub(super) attempt: u32,
    pub(super) outcome: &'a Outcome,
    pub(super) answer: &'a Answer,
}

/// The meters of what happens with every message, looked up when first used and not each time.
#[derive(Default)]
pub(super) struct Meters {
    attempts: [OnceLock<Counter>; Outcome::NAMES.len()],
    seconds: OnceLock<Histogram>,
}

impl Meters {
    /// An attempt was made and judged.
    pub(super) fn attempted(&self, attempted: &Attempted<'_>, verdict: &Verdict) {
        let Attempted { event, subscription, attempt, outcome, answer } = attempted;
        let (id, ms, what) = (&event.id, answer.elapsed_ms, outcome.as_str());
        let meter = &self.attempts[outcome.place()];
        meter.get_or_init(|| metrics::counter!("paperboy_attempts_total", "outcome" => what)).increment(1);
        let seconds = self.seconds.get_or_init(|| metrics::histogram!("paperboy_attempt_seconds"));
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of one attempt are far below 2^52")]
        seconds.record(ms as f64 / 1000.0);
        let subscription = &subscription.id;
        match verdict {
            Verdict::Done if !matches!(outcome, Outcome::Delivered { .. }) => {
                info!(event.id = %id, %subscription, ms, outcome = what, seen = %outcome.seen(),
                    "interactive event `{id}` was not taken and is not sent again");
            }
            Verdict::Done => {
                // The story of a healthy day is the metric; a line for each would cost more than the delivery.
                debug!(event.id = %id, %subscription, attempt, ms, "delivered event `{id}`");
            }
            Verdict::Retry { wait } => {
                info!(event.id = %id, %subscription, attempt, ms, outcome = what, seen = %outcome.seen(), wait,
                    "event `{id}` was not taken; next attempt in {wait} units");
            }
            // `dead` tells the rest.
            Verdict::Dead(_) => {
                debug!(event.id = %id, %subscription, attempt, ms, outcome = what, "last attempt of event `{id}`");
            }
        }
    }
}

/// A delivery, or an event without its subscription, was given up.
pub(super) fn dead(reason: Reason, tags: &Tags) {
    let id = id(tags);
    metrics::counter!("paperboy_dead_total", "reason" => reason.as_str()).increment(1);
    warn!(event.id = id, subscription = subscription_of(tags), attempts = tags.attempt, history = %tags.history,
        "event `{id}` is a dead letter: {}", reason.as_str());
}

/// A message was put off without an attempt.
pub(super) fn deferred(tags: &Tags, cause: Cause, units: u32) {
    let (id, subscription, deferrals) = (id(tags), subscription_of(tags), tags.deferrals);
    metrics::counter!("paperboy_deferred_total", "cause" => cause.as_str()).increment(1);
    match cause {
        Cause::Unknown => {
            info!(event.id = id, subscription, deferrals, "event `{id}` is put off for {units} units")
        }
        Cause::Lack => warn!(
            event.id = id,
            subscription,
            deferrals,
            "event `{id}` is put off for {units} units: this machine gives no more connections (open files, memory)"
        ),
        Cause::Store => warn!(
            event.id = id,
            deferrals,
            "event `{id}` is put off for {units} units: the store does not take what it means for its batch"
        ),
        // One endpoint can put off thousands in a second, and its trouble is told by `status`.
        Cause::Busy { .. } => debug!(
            event.id = id,
            subscription,
            deferrals,
            "event `{id}` is put off for {units} units: its endpoint is slow and holds all the places it may"
        ),
    }
}

/// A message for a slow endpoint goes to where it holds nobody up.
pub(super) fn aside() {
    metrics::counter!("paperboy_aside_total").increment(1);
}

/// A message goes to a delay level.
pub(super) fn level_used(level: u8) {
    metrics::counter!("paperboy_waits_total", "level" => format!("{level:02}")).increment(1);
}

/// A message that cannot be read became a dead letter of kind `event`.
pub(super) fn unreadable(message: &Message, reason: &str) {
    let id = id(&message.tags);
    metrics::counter!("paperboy_dead_total", "reason" => "unreadable").increment(1);
    warn!(event.id = id, body_bytes = message.body.len(), routing_key = %message.routing_key,
        "an event cannot be read and is a dead letter: {reason}");
}

/// RabbitMQ gave a message up after too many returns.
pub(super) fn poison(letter: &DeadLetter) {
    let id = letter.event_id.as_deref().unwrap_or("-");
    metrics::counter!("paperboy_dead_total", "reason" => Reason::Poison.as_str()).increment(1);
    warn!(
        event.id = id,
        subscription = letter.subscription.as_deref().unwrap_or("-"),
        "event `{id}` is a dead letter: processes went down over it, or it was given back too often"
    );
}

/// Nobody wants this event.
pub(super) fn no_subscriber(event: &Event<'_>) {
    metrics::counter!("paperboy_no_subscriber_total").increment(1);
    debug!(event.id = %event.id, tenant = %event.tenant, kind = %event.kind, "no subscriber for event `{}`", event.id);
}

/// The filter of a subscription does not fit this event.
pub(super) fn filtered_out(event: &Event<'_>, subscription: &Subscription) {
    metrics::counter!("paperboy_filtered_total").increment(1);
    debug!(event.id = %event.id, subscription = %subscription.id, "the filter of a subscription lets event `{}` pass by", event.id);
}

/// A subscription a person disabled would have wanted this event.
pub(super) fn not_matched_disabled(event: &Event<'_>, subscription: &Subscription) {
    metrics::counter!("paperboy_disabled_skipped_total").increment(1);
    debug!(event.id = %event.id, subscription = %subscription.id, "subscription is disabled, event `{}` skips it", event.id);
}

/// A message of a source is done with: forwarded, dead or given back.
pub(super) fn forwarded(source: &str, ending: &'static str) {
    metrics::counter!("paperboy_source_messages_total", "source" => source.to_owned(), "ending" => ending)
        .increment(1);
}

/// A message of a source is an event now.
pub(super) fn mapped(source: &str, id: &str, id_is_made: bool) {
    debug!(event.id = id, source, id_is_made, "source `{source}` brings event `{id}`");
}

/// A call was taken: somebody was asked, or why nobody was.
pub(super) fn called(ending: &'static str) {
    metrics::counter!("paperboy_calls_total", "ending" => ending).increment(1);
}

/// The answer of a receiver was to be published and is none.
pub(super) fn answer_left_out(event: &Event<'_>, subscription: &Subscription, why: &'static str) {
    metrics::counter!("paperboy_answers_total", "ending" => why).increment(1);
    let (id, subscription) = (&event.id, &subscription.id);
    debug!(event.id = %id, %subscription, why, "the answer to event `{id}` is not published: {why}");
}

/// The answer of a receiver is about to be published.
pub(super) fn answer_published() {
    metrics::counter!("paperboy_answers_total", "ending" => "published").increment(1);
}

/// What an event means for its batch is written down.
pub(super) fn joined_batch(event: &Event<'_>, batch: &BatchId, joined: Joined) {
    let (id, tenant) = (&event.id, &event.tenant);
    match joined {
        Joined::Before => {}
        Joined::InTime => {
            metrics::counter!("paperboy_batch_documents_total", "joined" => "in_time").increment(1);
            debug!(event.id = %id, %tenant, %batch, "event `{id}` brings a document to batch `{batch}`");
        }
        Joined::Late => {
            metrics::counter!("paperboy_batch_documents_total", "joined" => "late").increment(1);
            warn!(event.id = %id, %tenant, %batch, "event `{id}` brings a document too late for batch `{batch}`");
        }
    }
}

/// What so many events mean for their batches was written down together.
pub(super) fn recorded_batches(events: usize, took: Duration) {
    metrics::counter!("paperboy_batch_events_total").increment(events as u64);
    metrics::histogram!("paperboy_batch_commit_seconds").record(took.as_secs_f64());
}

/// An event names a batch or document that cannot be kept, and passes as one without a batch.
pub(super) fn unkept_batch(event: &Event<'_>, Unkept { field }: Unkept) {
    metrics::counter!("paperboy_batch_unkept_total").increment(1);
    warn!(event.id = %event.id, tenant = %event.tenant,
        "event `{}` belongs to no batch: its `{field}` must be {}", event.id, BatchId::RULE);
}

/// An event became several messages.
pub(super) fn fanned_out(event: &Event<'_>, copies: usize) {
    debug!(event.id = %event.id, copies, "event `{}` becomes {copies} deliveries", event.id);
}
