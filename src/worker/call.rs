//! One call: who is asked, who only gets the event, and what each of those who are asked says.
//!
//! Shared by whoever takes calls from RabbitMQ and whoever takes them over HTTP; knows neither.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, Stream};
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::fresh::{self, Wanted};
use super::record::Recorder;
use super::report::{Attempted, Meters};
use super::{clock, step};
use crate::broker::{Outgoing, Tags, Target};
use crate::domain::event::Event;
use crate::domain::outcome::{Answer, Outcome};
use crate::domain::reply::{Failed, Reply};
use crate::domain::request::{self, AttemptContext, Request};
use crate::domain::retry::Verdict;
use crate::domain::subscription::Subscription;

/// The longest a caller is kept waiting.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// What an answer may come late by: who sends says more of what went wrong.
const LATE_MAX: Duration = Duration::from_secs(1);
/// Subscriptions of one call that are asked at once.
const AT_ONCE: usize = 32;

/// What an event means to a tenant's subscriptions when somebody waits for their answers.
#[derive(Debug, Default)]
pub struct Parted {
    /// They are asked.
    pub asked: Vec<Arc<Subscription>>,
    /// They would be, and are switched off by ourselves.
    pub disabled: Vec<Arc<Subscription>>,
    /// What ordinary subscribers get, to be confirmed before anybody is asked.
    pub copies: Vec<(Target, Outgoing)>,
}

impl Parted {
    /// Messages the caller has to expect.
    pub fn replies(&self) -> usize {
        self.asked.len() + self.disabled.len()
    }
}

/// Tells those who are asked from those who only get the event.
pub fn part(
    subscriptions: &[Arc<Subscription>],
    event: &Event<'_>,
    tags: &Tags,
    body: &Bytes,
    now_ms: i64,
) -> Parted {
    let mut parted = Parted::default();
    for subscription in subscriptions {
        let is_interactive = subscription.is_interactive(event);
        match fresh::wanted(subscription, event) {
            Wanted::No => {}
            Wanted::Yes if is_interactive => parted.asked.push(Arc::clone(subscription)),
            Wanted::Disabled if is_interactive => parted.disabled.push(Arc::clone(subscription)),
            wanted => {
                let tags = step::addressed(tags, event, subscription, now_ms);
                parted.copies.push(match wanted {
                    Wanted::Disabled => fresh::disabled_letter(body, tags),
                    _ => (Target::Deliveries, Outgoing::new(body.clone(), tags)),
                });
            }
        }
    }
    parted
}

/// One who was asked, and what came of it.
pub struct Asked {
    pub subscription: Arc<Subscription>,
    /// None where nothing was sent.
    pub answer: Option<Answer>,
    pub reply: Reply,
    /// When it was asked, in Unix milliseconds.
    pub at_ms: i64,
}

/// Log, metrics and the delivery log of one who was asked, as for any other attempt.
pub(super) fn note(meters: &Meters, recorder: &Recorder, event: &Event<'_>, tags: &Tags, asked: &Asked) {
    let Some(answer) = &asked.answer else { return };
    let subscription = &asked.subscription;
    let outcome = Outcome::judge(&subscription.success, answer);
    let attempted = Attempted { event, subscription, attempt: 1, outcome: &outcome, answer };
    meters.attempted(&attempted, &Verdict::Done);
    recorder.attempted(&attempted, tags, &Verdict::Done, asked.at_ms);
}

/// Where it is noted what became of those who are asked, for whoever asks without a worker.
pub struct Notes {
    meters: Meters,
    recorder: Recorder,
}

impl Notes {
    /// Notes that go to this delivery log.
    pub fn new(recorder: Recorder) -> Notes {
        Notes { meters: Meters::default(), recorder }
    }

    /// One was asked.
    pub fn asked(&self, event: &Event<'_>, tags: &Tags, asked: &Asked) {
        note(&self.meters, &self.recorder, event, tags, asked);
    }
}

/// Asks all of them once, each as long as its own time and the deadline allow; what each says, as it comes. Their
/// bodies together are bounded, see [`Reply::within`].
pub fn ask_all<'a, F: Future<Output = Answer> + Send + 'a>(
    send: &'a (impl Fn(Request) -> F + Sync),
    asked: Vec<Arc<Subscription>>,
    event: &'a Event<'a>,
    body: &'a Bytes,
    traceparent: Option<&'a str>,
    deadline: Instant,
) -> impl Stream<Item = Asked> + Send + 'a {
    let ask = |subscription| ask(send, subscription, event, body, traceparent, deadline).boxed();
    let all: Vec<BoxFuture<'a, Asked>> = asked.into_iter().map(ask).collect();
    let mut room = Reply::ROOM_BYTES;
    let within = move |one: Asked| Asked { reply: one.reply.within(&mut room), ..one };
    stream::iter(all).buffer_unordered(AT_ONCE).map(within)
}

async fn ask<F: Future<Output = Answer> + Send>(
    send: &(impl Fn(Request) -> F + Sync),
    subscription: Arc<Subscription>,
    event: &Event<'_>,
    body: &Bytes,
    traceparent: Option<&str>,
    deadline: Instant,
) -> Asked {
    let at_ms = clock::now_ms();
    let context = AttemptContext {
        attempt: 1,
        now_unix_s: at_ms.div_euclid(1000),
        traceparent,
        replay: 0,
        is_test: false,
    };
    let asked = |answer, reply| Asked { subscription: Arc::clone(&subscription), answer, reply, at_ms };
    let left = deadline.saturating_duration_since(Instant::now());
    let too_late =
        || Reply::failed(&subscription, Failed::Timeout, "the caller's time was over before the answer came");
    if left.is_zero() {
        return asked(None, too_late());
    }
    let mut request = match request::build(&subscription, event, body, &context) {
        Ok(request) => request,
        Err(error) => return asked(None, Reply::not_built(&subscription, error.to_string())),
    };
    request.reads_answer = true;
    request.timeout = request.timeout.min(left);
    // Whoever sends keeps to that time by itself; this is the end of all patience.
    match timeout_at(deadline + LATE_MAX, send(request)).await {
        Ok(answer) => {
            let reply = Reply::answered(&subscription, &answer);
            asked(Some(answer), reply)
        }
        Err(_) => asked(None, too_late()),
    }
}
