//! Trying a subscription out: one marked event, sent once, past every queue.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{Caller, Courier, Desk, Refused};
use crate::domain::event::{Event, Hints};
use crate::domain::name::Tenant;
use crate::domain::outcome::{Answer, Outcome};
use crate::domain::request::{self, AttemptContext, Request};
use crate::domain::secret::MASK;
use crate::domain::statuses::Seen;
use crate::domain::subscription::Subscription;

/// Bytes shown of a body.
const SHOWN_BYTES_MAX: usize = 1024;

/// What is sent.
#[derive(Clone, Debug)]
pub enum Load {
    /// An event that the subscription wants, with this payload and type if they are given.
    Sample { data: Option<Box<RawValue>>, kind: Option<String> },
    /// This event of the subscription's tenant; it keeps its id.
    Event(Bytes),
}

/// Request and answer as they may be shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trial {
    /// The subscription's.
    pub id: String,
    /// The event's id.
    pub event: String,
    /// Whether the answer is one of the subscription's `success`.
    pub delivered: bool,
    /// Whether the subscription wants such events at all.
    pub wanted: bool,
    pub request: ShownRequest,
    pub answer: ShownAnswer,
}

/// The request that was sent, secrets masked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShownRequest {
    pub method: String,
    pub url: String,
    pub headers: Map<String, Value>,
    /// Its beginning.
    pub body: String,
}

/// The answer, or what happened instead.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShownAnswer {
    pub status: Option<u16>,
    pub class: Option<String>,
    pub ms: u64,
    /// Its beginning, secrets masked.
    pub body: String,
}

impl ShownAnswer {
    /// The status or what happened instead, for a sentence.
    pub fn seen(&self) -> String {
        match (self.status, &self.class) {
            (Some(status), _) => format!("status {status}"),
            (None, class) => class.clone().unwrap_or_default(),
        }
    }
}

impl Desk {
    /// Sends one event, also to a disabled subscription, without retry. The receiver has as long as the subscription
    /// gives it, but no longer than `longest`.
    ///
    /// # Errors
    /// The subscription is not there or not the caller's, the event has faults or is another tenant's, or the
    /// request cannot be built from it. A receiver that refuses is no error.
    pub async fn try_out(
        &self,
        caller: &Caller,
        courier: &dyn Courier,
        id: &str,
        load: &Load,
        longest: Duration,
    ) -> Result<Trial, Refused> {
        let spec = self.subscription(caller, id).await?.spec;
        let subscription = spec.check()?;
        let now = jiff::Timestamp::now();
        let body = match load {
            Load::Event(body) => body.clone(),
            Load::Sample { data, kind } => sample(&subscription, data.as_deref(), kind.as_deref())?,
        };
        let (test_id, wanted, time) = (test_id(), wanted_type(&subscription), now.to_string());
        let hints =
            Hints { message_id: Some(&test_id), kind: Some(&wanted), time: Some(&time), ..Hints::default() };
        let event = parse(load, &body, &hints, &subscription.tenant)?;
        let context = AttemptContext {
            attempt: 1,
            now_unix_s: now.as_second(),
            traceparent: None,
            replay: 0,
            is_test: true,
        };
        let mut request = request::build(&subscription, &event, &body, &context).map_err(|error| {
            let message = format!("the request cannot be built: {error}");
            Refused::fault("", message, "give `data` or `event` what the URL takes from an event")
        })?;
        request.timeout = request.timeout.min(longest);
        let answer = courier.send(request.clone()).await;
        Ok(Trial {
            id: id.to_owned(),
            event: event.id.as_str().to_owned(),
            delivered: matches!(Outcome::judge(&subscription.success, &answer), Outcome::Delivered { .. }),
            wanted: subscription.matches(&event),
            request: shown_request(&subscription, &request),
            answer: shown_answer(&subscription, &answer),
        })
    }
}

fn parse<'a>(load: &Load, body: &'a Bytes, hints: &Hints<'a>, tenant: &Tenant) -> Result<Event<'a>, Refused> {
    let field = if matches!(load, Load::Event(_)) { "event" } else { "type" };
    let event = Event::parse(body, hints).map_err(|unreadable| {
        Refused::Faults(vec![crate::domain::fault::Fault::new(
            field,
            format!("is not an event: {unreadable}"),
        )])
    })?;
    if event.tenant != *tenant {
        let message = format!("the event is of tenant `{}`", event.tenant);
        return Err(Refused::fault(field, message, format!("the subscription belongs to tenant `{tenant}`")));
    }
    Ok(event)
}

/// An event the subscription wants, with something for every placeholder that is not of the payload.
fn sample(
    subscription: &Subscription,
    data: Option<&RawValue>,
    kind: Option<&str>,
) -> Result<Bytes, Refused> {
    #[derive(Serialize)]
    struct Sample<'a> {
        id: String,
        #[serde(rename = "type")]
        kind: &'a str,
        tenant: &'a str,
        scope: Map<String, Value>,
        document_id: &'a str,
        batch_id: &'a str,
        data: &'a RawValue,
    }
    let own = RawValue::from_string(r#"{"test": true}"#.to_owned()).map_err(anyhow::Error::from)?;
    let scope = subscription.scope.iter();
    let scope = scope.filter_map(|(key, values)| Some((key.clone(), json!(values.first()?))));
    let wanted = wanted_type(subscription);
    let sample = Sample {
        id: test_id(),
        kind: kind.unwrap_or(&wanted),
        tenant: subscription.tenant.as_str(),
        scope: scope.collect(),
        document_id: "test_document",
        batch_id: "test_batch",
        data: data.unwrap_or(&own),
    };
    Ok(serde_json::to_vec(&sample).map_err(anyhow::Error::from)?.into())
}

fn test_id() -> String {
    format!("test_{}", uuid::Uuid::now_v7().simple())
}

/// A type that the first pattern covers.
fn wanted_type(subscription: &Subscription) -> String {
    let pattern = subscription.events.iter().chain(&subscription.interactive).next();
    let pattern = pattern.map_or("#", |pattern| pattern.as_str());
    let word = |word| if matches!(word, "*" | "#") { "test" } else { word };
    pattern.split('.').map(word).collect::<Vec<_>>().join(".")
}

fn shown_request(subscription: &Subscription, request: &Request) -> ShownRequest {
    let is_hidden = |name: &str| {
        subscription.request.own_headers(&subscription.auth).any(|(own, _)| own.eq_ignore_ascii_case(name))
    };
    let headers = request.headers.iter().map(|(name, value)| {
        let name = name.as_str();
        let value = if is_hidden(name) { MASK } else { value.to_str().unwrap_or_default() };
        (name.to_owned(), json!(value))
    });
    ShownRequest {
        method: request.method.as_str().to_owned(),
        url: request.url.as_str().to_owned(),
        headers: headers.collect(),
        body: start_of(&request.body.joined()),
    }
}

fn shown_answer(subscription: &Subscription, answer: &Answer) -> ShownAnswer {
    // A receiver may send back what it was sent.
    let body = subscription.veil.hide(&start_of(&answer.excerpt));
    let (status, class) = match answer.seen {
        Seen::Status(status) => (Some(status), None),
        Seen::Failure(class) => (None, Some(class.as_str().to_owned())),
    };
    ShownAnswer { status, class, ms: answer.elapsed_ms, body }
}

/// The beginning of a body, as text.
fn start_of(body: &[u8]) -> String {
    let start = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES_MAX)]).into_owned();
    if body.len() > SHOWN_BYTES_MAX { format!("{start}… ({} bytes)", body.len()) } else { start }
}
