//! One attempt: build the request, send it, judge the answer, decide what follows.

use std::sync::Arc;

use super::balance::Ending;
use super::step::Step;
use super::{Worker, clock, report};
use crate::broker::{Broker, Message, Tags};
use crate::cache::Directory;
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
    /// Delivers to one subscription once.
    pub(super) async fn attempt(
        &self,
        message: &Message,
        event: &Event<'_>,
        mut tags: Tags,
        subscription: &Arc<Subscription>,
    ) -> Step {
        let started_ms = clock::now_ms();
        let context = AttemptContext {
            attempt: tags.attempt.saturating_add(1),
            now_unix_s: started_ms.div_euclid(1000),
            traceparent: tags.traceparent.as_deref(),
            replay: tags.replay,
            is_test: false,
        };
        let request = match request::build(subscription, event, &message.body, &context) {
            Ok(request) => request,
            Err(error) => {
                // Trying again would build the same: not an attempt, and no use in one.
                note(&mut tags, started_ms, Class::Template.as_str(), 0);
                tags.answer = error.to_string();
                return Step::dead(Reason::Permanent, message, tags);
            }
        };
        tags.attempt = context.attempt;
        let answer = self.transport.send(request).await;
        let outcome = Outcome::judge(&subscription.success, &answer);
        if let Outcome::Delivered { .. } = outcome {
            // Nothing travels on: no history is written, no chance taken.
            report::attempted(subscription, &tags, &outcome, &answer, &Verdict::Done);
            return Step::Done(Ending::Delivered);
        }
        if subscription.is_interactive(event) {
            // Whoever waited for this has gone on: another attempt would come too late.
            report::attempted(subscription, &tags, &outcome, &answer, &Verdict::Done);
            return Step::Done(Ending::Answered);
        }
        note(&mut tags, started_ms, &seen(&answer), answer.elapsed_ms);
        let verdict = retry::decide(&subscription.retry, tags.attempt, &outcome, clock::chance());
        report::attempted(subscription, &tags, &outcome, &answer, &verdict);
        match verdict {
            Verdict::Done => Step::Done(Ending::Delivered),
            Verdict::Retry { wait } => {
                tags.answer = excerpt(&answer);
                tags.deferrals = 0;
                Step::wait(wait, message.body.clone(), tags, Ending::Retried)
            }
            Verdict::Dead(reason) => {
                tags.answer = excerpt(&answer);
                Step::dead(reason, message, tags)
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
        Seen::Failure(class) => class.as_str().to_owned(),
    }
}

fn excerpt(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.excerpt);
    text[..text.floor_char_boundary(ANSWER_BYTES_MAX)].to_owned()
}
