//! Receivers' answers that the platform wants (`answer: publish`), on their way to `paperboy.answers`.
//!
//! One for each delivery: of the attempt after which there is no other. They are confirmed before the delivery is
//! acknowledged, as all that follows from a message is.

use super::report::{self, Attempted};
use crate::broker::{Outgoing, Tags, Target};
use crate::domain::reply::Reply;

/// The message for the platform; none where the subscription wants none, or the answer is no JSON.
pub(super) fn copy(attempted: &Attempted<'_>, tags: impl FnOnce() -> Tags) -> Option<(Target, Outgoing)> {
    let Attempted { event, subscription, attempt, answer, .. } = *attempted;
    if !subscription.publishes_answer {
        return None;
    }
    let left_out = |why| {
        report::answer_left_out(event, subscription, why);
        None
    };
    match answer.whole.as_deref().map(|whole| whole.body.as_deref()) {
        // No answer came, or not to its end.
        None => return left_out("none"),
        Some(None) => return left_out("too_large"),
        Some(Some([])) => return left_out("empty"),
        Some(Some(_)) => {}
    }
    let reply = Reply::answered(subscription, answer);
    if !reply.is_json() {
        return left_out("not_json");
    }
    report::answer_published();
    let Tags { message_id, kind, time, traceparent, subscription, .. } = tags();
    // Nothing of the delivery's own life: this message begins another.
    let tags = Tags { message_id, kind, time, traceparent, subscription, attempt, ..Tags::default() };
    Some((Target::Answers, Outgoing::new(reply.to_bytes_about(event, attempt), tags)))
}
