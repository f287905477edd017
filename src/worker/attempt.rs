//! One attempt: build the request, send it, judge the answer, decide what follows.

use std::sync::Arc;

use super::balance::Ending;
use super::places::Entrance;
use super::report::Attempted;
use super::step::Step;
use super::{Worker, answers, clock, defer, step};
use crate::broker::{Broker, Message, Queue, Tags};
use crate::cache::Directory;
use crate::domain::cause::Cause;
use crate::domain::event::Event;
use crate::domain::history::{Entry, History};
use crate::domain::outcome::{Answer, Outcome};
use crate::domain::request::{self, AttemptContext};
use crate::domain::retry::{self, Reason, Verdict};
use crate::domain::statuses::{Class, Seen};
use crate::domain::subscription::Subscription;
use crate::http::Transport;

/// What travels of the last answer.
const ANSWER_BYTES_MAX: usize = 1024;

impl<B: Broker, D: Directory, T: Transport> Worker<B, D, T> {
    /// Delivers to one subscription once, or puts the message off where its endpoint holds too many places.
    ///
    /// What would travel on with the message is put together only where it does: most deliveries succeed.
    pub(super) async fn attempt(
        &self,
        queue: Queue,
        message: &Message,
        event: &Event<'_>,
        subscription: &Arc<Subscription>,
        now_ms: i64,
    ) -> Step {
        let tags = || step::addressed(&message.tags, event, subscription, now_ms);
        let place = match self.places.enter(queue, subscription).await {
            Entrance::Place(place) => place,
            Entrance::Aside => return Step::aside(message, tags()),
            Entrance::Full { wait_ms } => {
                return self.put_off(message, event, tags(), defer::Cause::Busy { wait_ms }, now_ms);
            }
        };
        let started_ms = clock::now_ms();
        let context = AttemptContext {
            attempt: message.tags.attempt.saturating_add(1),
            now_unix_s: started_ms.div_euclid(1000),
            traceparent: message.tags.traceparent.as_deref(),
            replay: message.tags.replay,
            is_test: false,
        };
        let mut request = match request::build(subscription, event, &message.body, &context) {
            Ok(request) => request,
            Err(error) => {
                // Trying again would build the same: not an attempt, and no use in one.
                let mut tags = tags();
                note(&mut tags, started_ms, Class::Template.as_str(), 0);
                tags.answer = error.to_string();
                self.recorder.dead(event, &tags, Reason::Permanent, Some(Cause::Template));
                return Step::dead(Reason::Permanent, message, tags);
            }
        };
        request.reads_answer = subscription.publishes_answer;
        let answer = self.transport.send(request).await;
        if answer.is_our_fault {
            return self.put_off(message, event, tags(), defer::Cause::Lack, now_ms);
        }
        place.answered();
        let outcome = Outcome::judge(&subscription.success, &answer);
        let attempted =
            Attempted { event, subscription, attempt: context.attempt, outcome: &outcome, answer: &answer };
        if let Outcome::Delivered { .. } = outcome {
            self.meters.attempted(&attempted, &Verdict::Done);
            self.recorder.attempted(&attempted, &message.tags, &Verdict::Done, started_ms);
            let ended_ms = started_ms.saturating_add_unsigned(answer.elapsed_ms);
            self.vigil.delivered(subscription, context.attempt, ended_ms);
            return Step::done(Ending::Delivered, answers::copy(&attempted, tags));
        }
        if subscription.is_interactive(event) {
            // Whoever waited for this has gone on: another attempt would come too late.
            self.meters.attempted(&attempted, &Verdict::Done);
            self.recorder.attempted(&attempted, &message.tags, &Verdict::Done, started_ms);
            return Step::done(Ending::Answered, answers::copy(&attempted, tags));
        }
        let mut tags = tags();
        tags.attempt = context.attempt;
        note(&mut tags, started_ms, &seen(&answer), answer.elapsed_ms);
        let ended_ms = started_ms.saturating_add_unsigned(answer.elapsed_ms);
        self.vigil.failed(subscription, &outcome, &answer, ended_ms);
        let verdict = retry::decide(&subscription.retry, tags.attempt, &outcome, clock::chance());
        self.meters.attempted(&attempted, &verdict);
        self.recorder.attempted(&attempted, &message.tags, &verdict, started_ms);
        match verdict {
            Verdict::Done => Step::Done(Ending::Delivered),
            Verdict::Retry { wait } => {
                tags.answer = excerpt(subscription, &answer);
                tags.deferrals = 0;
                Step::wait(wait, message.body.clone(), tags, Ending::Retried)
            }
            Verdict::Dead(reason) => {
                let copy = answers::copy(&attempted, || tags.clone());
                tags.answer = excerpt(subscription, &answer);
                Step::dead(reason, message, tags).and(copy)
            }
        }
    }
}

fn note(tags: &mut Tags, at_ms: i64, what: &str, elapsed_ms: u64) {
    let mut history = History::parse(&tags.history);
    history.push(Entry::new(at_ms, what, elapsed_ms));
    tags.history = history.to_string();
}

fn seen(answer: &Answer) -> String {
    match &answer.seen {
        Seen::Status(status) => status.to_string(),
        // Closer than its class, so that a dead letter can tell an expired certificate from a wrong name.
        Seen::Failure(_) => answer.cause().as_str().to_owned(),
    }
}

/// The beginning of the answer, without any secret that the receiver sent back.
fn excerpt(subscription: &Subscription, answer: &Answer) -> String {
    let text = subscription.veil.hide(&String::from_utf8_lossy(&answer.excerpt));
    text[..text.floor_char_boundary(ANSWER_BYTES_MAX)].to_owned()
}
