//! What follows from a message, as data; [`super::settle`] carries it out.

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::broker::{Message, Outgoing, Tags, Target};
use crate::domain::delay;
use crate::domain::event::Event;
use crate::domain::retry::Reason;
use crate::domain::subscription::Subscription;

use super::balance::Ending;
use super::report;

/// What is to be done about a message.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing follows: acknowledge.
    Done(Ending),
    /// All of these must be confirmed first, then acknowledge.
    Publish(Vec<(Target, Outgoing)>, Ending),
    /// The same of an event that several subscribers want; the room that its copies take is kept until then.
    Copies(Vec<(Target, Outgoing)>, Option<OwnedSemaphorePermit>),
    /// Give it back to its queue.
    HandBack,
}

impl Step {
    /// Done with, once what is left to publish of it is confirmed.
    pub(super) fn done(ending: Ending, copy: Option<(Target, Outgoing)>) -> Step {
        match copy {
            None => Step::Done(ending),
            Some(copy) => Step::Publish(vec![copy], ending),
        }
    }

    /// The same, and this published too.
    pub(super) fn and(mut self, copy: Option<(Target, Outgoing)>) -> Step {
        if let Step::Publish(copies, _) = &mut self {
            copies.extend(copy);
        }
        self
    }

    /// The next level of a longer wait; no attempt.
    pub(super) fn onwards(message: Message) -> Step {
        let mut tags = message.tags;
        let wait = std::mem::take(&mut tags.wait);
        Step::wait(wait, message.body, tags, Ending::Moved)
    }

    /// To the retries at once, where slow endpoints hold nobody up; no attempt.
    pub(super) fn aside(message: &Message, tags: Tags) -> Step {
        report::aside();
        let copy = Outgoing::new(message.body.clone(), tags);
        Step::Publish(vec![(Target::Retries, copy)], Ending::Moved)
    }

    /// A wait of this many units, then `paperboy.retries`.
    pub(super) fn wait(units: u32, body: Bytes, tags: Tags, ending: Ending) -> Step {
        Step::Publish(vec![waiting(units, body, tags)], ending)
    }

    /// A delivery that is given up.
    pub(super) fn dead(reason: Reason, message: &Message, tags: Tags) -> Step {
        report::dead(reason, &tags);
        let copy = dead_copy(reason, &message.body, tags);
        Step::Publish(vec![copy], Ending::Dead)
    }
}

/// What waits this many units and comes to `paperboy.retries` then.
pub(super) fn waiting(units: u32, body: Bytes, mut tags: Tags) -> (Target, Outgoing) {
    let target = match delay::hop(units.min(delay::WAIT_MAX)) {
        Some((level, rest)) => {
            tags.wait = rest;
            report::level_used(level);
            Target::Delay(level)
        }
        None => Target::Retries,
    };
    (target, Outgoing::new(body, tags))
}

/// The dead letter of a delivery, or of a whole event where no subscription is known yet.
pub(super) fn dead_copy(reason: Reason, body: &Bytes, mut tags: Tags) -> (Target, Outgoing) {
    tags.reason = Some(reason.as_str().to_owned());
    tags.wait = 0;
    let target = if tags.subscription.is_some() { Target::DeadDeliveries } else { Target::DeadEvents };
    (target, Outgoing::new(body.clone(), tags))
}

/// The tags every copy of an event carries on: what was resolved at first sight, nothing of this hop.
pub(super) fn carry(tags: &Tags, event: &Event<'_>, now_ms: i64) -> Tags {
    Tags {
        message_id: Some(event.id.to_string()),
        kind: Some(event.kind.to_string()),
        time: Some(event.time.to_string()),
        first_seen_ms: tags.first_seen_ms.or(Some(now_ms)),
        traceparent: tags.traceparent.clone(),
        subscription: tags.subscription.clone(),
        attempt: tags.attempt,
        wait: 0,
        deferrals: tags.deferrals,
        history: tags.history.clone(),
        answer: tags.answer.clone(),
        reason: None,
        original: tags.original.clone(),
        cycle: tags.cycle,
        replay: tags.replay,
    }
}

/// The same, for one subscription.
pub(super) fn addressed(tags: &Tags, event: &Event<'_>, subscription: &Subscription, now_ms: i64) -> Tags {
    Tags { subscription: Some(subscription.id.to_string()), ..carry(tags, event, now_ms) }
}
