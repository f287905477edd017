//! The request of one attempt: built from subscription and event, signed, and still plain data.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE32_NOPAD;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use sha2::{Digest, Sha256};
use url::Url;

use crate::domain::auth::TokenRequest;
use crate::domain::body::{BodyError, BodyTemplate, Filled};
use crate::domain::event::Event;
use crate::domain::headers;
use crate::domain::name::EventId;
use crate::domain::payload::Payload;
use crate::domain::subscription::Subscription;
use crate::domain::template::TemplateError;

/// The longest `traceparent` that is passed on; version 00 has 55 bytes (W3C Trace Context §3.2).
const TRACEPARENT_BYTES_MAX: usize = 64;

/// What receivers see as `user-agent`.
pub const USER_AGENT: &str = concat!("paperboy/", env!("CARGO_PKG_VERSION"));

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const ATTEMPT: HeaderName = HeaderName::from_static("paperboy-attempt");
const REPLAY: HeaderName = HeaderName::from_static("paperboy-replay");
const TEST: HeaderName = HeaderName::from_static("paperboy-test");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// From this size on `data` is a piece of the body that is shared with the message. Below, one write of a copy is
/// cheaper.
const SHARED_BYTES_MIN: usize = 16 * 1024;
/// The most headers that an attempt adds to those that are the same in all of them.
const ADDED_MAX: usize = 8;

/// What is sent to a receiver.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    pub url: Url,
    /// Every value that may be a secret is marked as sensitive.
    pub headers: HeaderMap,
    /// The bytes that were signed.
    pub body: Payload,
    /// Until the head of the answer is there; until its end with `reads_answer`.
    pub timeout: Duration,
    /// Somebody wants the whole answer, not only its head.
    pub reads_answer: bool,
    /// The login whose token goes out as `authorization`, which `headers` then lacks.
    pub token: Option<Arc<TokenRequest>>,
}

/// Shows where it goes and how long the body is; paths, header values and bodies may hold secrets.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("Request")
            .field("method", &self.method.as_str())
            .field("host", &self.url.host_str())
            .field("headers", &names)
            .field("body_bytes", &self.body.len())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// The methods a subscription may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Post,
    Put,
    Patch,
    Get,
    Delete,
}

impl Method {
    pub const ALL: [Method; 5] = [Method::Post, Method::Put, Method::Patch, Method::Get, Method::Delete];

    /// The name as it is sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Get => "GET",
            Method::Delete => "DELETE",
        }
    }

    /// Finds the method of this name, which is written in capitals (RFC 9110 §9.1).
    pub fn parse(name: &str) -> Option<Self> {
        Method::ALL.into_iter().find(|method| method.as_str() == name)
    }

    /// What is sent where a subscription names no body: content has no meaning in GET and DELETE, and
    /// receivers may refuse it (RFC 9110 §9.3.1 and §9.3.5).
    pub fn default_body(self) -> BodyForm {
        match self {
            Method::Post | Method::Put | Method::Patch => BodyForm::Envelope,
            Method::Get | Method::Delete => BodyForm::None,
        }
    }
}

/// What of an event is the body of its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyForm {
    /// What was resolved of the event, and `data` byte for byte.
    Envelope,
    /// The bytes of `data`; nothing where it is absent.
    Data,
    /// The producer's whole message.
    Event,
    None,
    /// A receiver's own form, shared by whoever copies the plan.
    Template(Arc<BodyTemplate>),
}

impl BodyForm {
    /// The forms that have a name.
    pub const NAMED: [(&'static str, BodyForm); 4] = [
        ("envelope", BodyForm::Envelope),
        ("data", BodyForm::Data),
        ("event", BodyForm::Event),
        ("none", BodyForm::None),
    ];

    /// Finds the form of this name.
    pub fn parse(name: &str) -> Option<Self> {
        BodyForm::NAMED.into_iter().find(|(known, _)| *known == name).map(|(_, form)| form)
    }

    /// The bytes to send. `raw` is the buffer from which `event` was parsed: parts of it are shared, not copied.
    fn payload(&self, event: &Event<'_>, raw: &Bytes, subscription: &str) -> Result<Payload, BodyError> {
        let data = event.data.map(|data| data.get().as_bytes());
        Ok(match (self, data) {
            (BodyForm::Envelope, Some(data)) if data.len() >= SHARED_BYTES_MIN => {
                Payload::around(event.envelope_before_data(0), part_of(raw, data), b"}")
            }
            (BodyForm::Envelope, _) => event.envelope().into(),
            (BodyForm::Data, Some(data)) => part_of(raw, data).into(),
            (BodyForm::Event, _) => part_of(raw, event.raw).into(),
            (BodyForm::Data, None) | (BodyForm::None, _) => Payload::default(),
            (BodyForm::Template(template), _) => {
                let Filled { mut bytes, shared } = template.fill(event, subscription, SHARED_BYTES_MIN)?;
                match shared {
                    Some((place, data)) => {
                        let after = bytes.split_off(place);
                        Payload::between(bytes, part_of(raw, data), after)
                    }
                    None => bytes.into(),
                }
            }
        })
    }
}

/// Why a request cannot be built from an event; no later attempt could be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Url(#[from] TemplateError),
    #[error(transparent)]
    Body(#[from] BodyError),
}

/// Shares `part` if it lies inside `raw`, and copies it otherwise.
fn part_of(raw: &Bytes, part: &[u8]) -> Bytes {
    let (outer, inner) = (raw.as_ptr_range(), part.as_ptr_range());
    let is_inside = !part.is_empty() && outer.start <= inner.start && inner.end <= outer.end;
    if is_inside { raw.slice_ref(part) } else { Bytes::copy_from_slice(part) }
}

/// What differs between the attempts of one delivery.
#[derive(Clone, Copy, Debug)]
pub struct AttemptContext<'a> {
    /// The first attempt is 1.
    pub attempt: u32,
    /// When the attempt is signed, in Unix seconds.
    pub now_unix_s: i64,
    /// The producer's `traceparent`, if it sent one.
    pub traceparent: Option<&'a str>,
    /// How often the delivery was replayed by a person; 0 is not said to the receiver.
    pub replay: u32,
    /// Whether somebody only tries the subscription out; the receiver is told.
    pub is_test: bool,
}

/// The headers that every request of a subscription carries alike, made once.
#[derive(Clone, Debug)]
pub struct ConstantHeaders {
    all: HeaderMap,
    /// Sent with a body only; `None` where the subscription names one of its own, which is always sent.
    content_type: Option<HeaderValue>,
}

impl ConstantHeaders {
    /// The defaults, and what takes their place or is added: the subscription's own headers and credentials.
    ///
    /// Names and values were checked when the subscription was made; what is no header is left out.
    pub fn new<'a>(content_type: &str, own: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut all = HeaderMap::new();
        all.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        for (name, value) in own {
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                all.insert(name, headers::owned(value.to_owned()));
            }
        }
        let content_type = (!all.contains_key(header::CONTENT_TYPE))
            .then(|| HeaderValue::from_str(content_type).ok())
            .flatten();
        ConstantHeaders { all, content_type }
    }
}

/// Builds and signs the request of one attempt.
///
/// A header of the subscription or its credentials takes the place of the default of the same name; the names of
/// all others were checked to differ when the subscription was made.
///
/// # Errors
/// A [`BuildError`] when the event cannot fill the URL or the body.
pub fn build(
    subscription: &Subscription,
    event: &Event<'_>,
    raw: &Bytes,
    context: &AttemptContext<'_>,
) -> Result<Request, BuildError> {
    let plan = &subscription.request;
    let url = plan.url.render(event)?.into_owned();
    let body = plan.body.payload(event, raw, subscription.id.as_str())?;
    let id = webhook_id(&event.id);

    let constant = &subscription.constant_headers;
    let mut headers = HeaderMap::with_capacity(constant.all.len() + ADDED_MAX);
    for (name, value) in &constant.all {
        headers.insert(name.clone(), value.clone());
    }
    if let (false, Some(content_type)) = (body.is_empty(), &constant.content_type) {
        headers.insert(header::CONTENT_TYPE, content_type.clone());
    }
    // An id is visible ASCII, so it always is a value.
    headers.insert(WEBHOOK_ID, HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("")));
    let attempt = if context.attempt == 1 { HeaderValue::from_static("1") } else { context.attempt.into() };
    headers.insert(ATTEMPT, attempt);
    if context.replay > 0 {
        headers.insert(REPLAY, HeaderValue::from(context.replay));
    }
    if context.is_test {
        headers.insert(TEST, HeaderValue::from_static("1"));
    }
    if let Some(traceparent) = context.traceparent.and_then(traceparent) {
        headers.entry(TRACEPARENT).or_insert(traceparent);
    }
    for scheme in &subscription.signatures {
        scheme.sign(&id, context.now_unix_s, &body, &mut headers);
    }
    let token = subscription.auth.token_request().cloned();
    Ok(Request { method: plan.method, url, headers, body, timeout: plan.timeout, reads_answer: false, token })
}

/// The value of `webhook-id`: the event's id if receivers can be trusted to take it, else `evt_` and the
/// lower-case base32 of its SHA-256. It is the same on every retry and replay.
pub fn webhook_id(id: &EventId) -> Cow<'_, str> {
    let text = id.as_str();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if is_plain && (1..=128).contains(&text.len()) {
        return Cow::Borrowed(text);
    }
    let digest = BASE32_NOPAD.encode(&Sha256::digest(text));
    Cow::Owned(format!("evt_{}", digest.to_ascii_lowercase()))
}

/// A text from outside that can be sent on as it is; what is no header value is left out, never repaired.
fn traceparent(text: &str) -> Option<HeaderValue> {
    let is_sound = (1..=TRACEPARENT_BYTES_MAX).contains(&text.len()) && headers::is_value(text);
    is_sound.then(|| HeaderValue::from_str(text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::Hints;
    use crate::domain::spec::SubscriptionSpec;
    use serde_json::{Value, json};

    const K1: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const EVENT: &str = r#"{"id":"msg_0003","type":"document.processed","tenant":"acme","time":"2026-11-22T09:00:07Z",
        "document_id":"d 1","extra":1,"data":{"n":12345678901234567890123,"a":1,"a":2,"s":"\u00e9 é"}}"#;
    const DATA: &str = r#"{"n":12345678901234567890123,"a":1,"a":2,"s":"\u00e9 é"}"#;

    const FIRST: AttemptContext<'_> = AttemptContext {
        attempt: 1,
        now_unix_s: 1_767_323_045,
        traceparent: None,
        replay: 0,
        is_test: false,
    };

    /// A subscription of which `changes` replace top-level members.
    fn subscription(changes: Value) -> Subscription {
        let mut document = json!({
            "id": "sub_1", "tenant": "acme", "events": ["#"], "signatures": [],
            "request": {"url": "https://h.example/docs/:id"},
        });
        for (name, value) in changes.as_object().unwrap() {
            document[name] = value.clone();
        }
        SubscriptionSpec::read(document).unwrap().check().unwrap()
    }

    fn built(subscription: &Subscription, json: &str, context: &AttemptContext<'_>) -> (Request, Bytes) {
        let raw = Bytes::copy_from_slice(json.as_bytes());
        let event = Event::parse(&raw, &Hints::default()).unwrap();
        (build(subscription, &event, &raw, context).unwrap(), raw.clone())
    }

    fn request(changes: Value) -> Request {
        built(&subscription(changes), EVENT, &FIRST).0
    }

    /// All headers by name, in the alphabet's order.
    fn headers(request: &Request) -> Vec<(&str, &str)> {
        let mut all: Vec<_> =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn defaults_are_enough() {
        let request = request(json!({}));
        assert_eq!((request.method, request.timeout), (Method::Post, Duration::from_secs(30)));
        assert_eq!(request.url.as_str(), "https://h.example/docs/d%201");
        assert_eq!(
            headers(&request),
            [
                ("content-type", "application/json"),
                ("paperboy-attempt", "1"),
                ("user-agent", USER_AGENT),
                ("webhook-id", "msg_0003"),
            ]
        );
        let body = String::from_utf8(request.body.joined().to_vec()).unwrap();
        assert!(body.ends_with(&format!(r#""document_id":"d 1","data":{DATA}}}"#)), "{body}");
    }

    #[test]
    fn each_header_is_sent_once_and_own_ones_win() {
        let subscription = subscription(json!({
            "request": {"url": "https://h.example/x", "headers": {"User-Agent": "mine", "X-Env": "live"}},
            "auth": {"kind": "bearer", "token": "t"},
            "signatures": [
                {"scheme": "standard", "secrets": [K1]},
                {"scheme": "hmac", "secrets": ["s"], "header": "X-Signature", "prefix": "sha256="},
            ],
        }));
        let later = AttemptContext { attempt: 3, replay: 2, traceparent: Some("00-aa-bb-01"), ..FIRST };
        let (request, _) = built(&subscription, EVENT, &later);
        let names: Vec<&str> = headers(&request).iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            [
                "authorization",
                "content-type",
                "paperboy-attempt",
                "paperboy-replay",
                "traceparent",
                "user-agent",
                "webhook-id",
                "webhook-signature",
                "webhook-timestamp",
                "x-env",
                "x-signature",
            ]
        );
        assert!(headers(&request).contains(&("user-agent", "mine")));
        assert!(headers(&request).contains(&("paperboy-replay", "2")));
        assert!(headers(&request).contains(&("authorization", "Bearer t")));
        assert!(headers(&request).contains(&("webhook-timestamp", "1767323045")));
    }

    #[test]
    fn a_test_says_so_to_the_receiver() {
        let told = |context: AttemptContext<'_>| {
            let (request, _) = built(&subscription(json!({})), EVENT, &context);
            headers(&request).contains(&("paperboy-test", "1"))
        };
        assert!(told(AttemptContext { is_test: true, ..FIRST }) && !told(FIRST));
    }

    /// A body that no JSON library writes back unchanged.
    #[test]
    fn what_is_signed_is_what_is_sent() {
        let request = request(json!({
            "request": {"url": "https://h.example/x", "body": "data"},
            "signatures": [{"scheme": "standard", "secrets": [K1]}],
        }));
        assert_eq!(request.body.joined(), DATA);
        let signature = ("webhook-signature", "v1,gM9pI60CtRthMWTTDpwVdX68pf1IxUsvj9AXdjI62Ho=");
        assert!(headers(&request).contains(&signature));
    }

    #[test]
    fn data_and_event_bodies_are_slices_of_the_message() {
        for (form, expected) in [("data", DATA), ("event", EVENT)] {
            let subscription = subscription(json!({"request": {"url": "https://h.example/x", "body": form}}));
            let (request, raw) = built(&subscription, EVENT, &FIRST);
            assert_eq!(request.body.joined(), expected);
            assert!(raw.as_ptr_range().contains(&request.body.joined().as_ptr()), "`{form}` was copied");
        }
    }

    #[test]
    fn large_data_is_shared_inside_its_envelope_and_signed_as_one() {
        let text = "x".repeat(SHARED_BYTES_MIN);
        let json = format!(
            r#"{{"id":"e","type":"a","tenant":"acme","time":"2026-11-22T09:00:07Z","data":"{text}"}}"#
        );
        let subscription = subscription(json!({
            "request": {"url": "https://h.example/x"}, "signatures": [{"scheme": "standard", "secrets": [K1]}],
        }));
        let (request, raw) = built(&subscription, &json, &FIRST);
        let event = Event::parse(&raw, &Hints::default()).unwrap();
        assert_eq!(request.body.joined(), event.envelope());
        assert!(request.body.pieces().any(|piece| raw.as_ptr_range().contains(&piece.as_ptr())));
        let mut signed = HeaderMap::new();
        let whole = Payload::from(event.envelope());
        subscription.signatures[0].sign("e", FIRST.now_unix_s, &whole, &mut signed);
        assert_eq!(request.headers["webhook-signature"], signed["webhook-signature"]);
    }

    #[test]
    fn a_body_from_another_buffer_is_copied() {
        let (raw, other) = (Bytes::from_static(b"abc"), [b'x'; 4]);
        assert_eq!(part_of(&raw, &other), Bytes::copy_from_slice(&other));
        assert_eq!(part_of(&raw, b""), Bytes::new());
        assert_eq!(part_of(&raw, &raw[1..]), "bc");
    }

    #[test]
    fn without_a_body_no_content_type_is_sent() {
        let bare = r#"{"id":"e","type":"a","tenant":"acme","time":"2026-11-22T09:00:07Z"}"#;
        for method in ["GET", "DELETE"] {
            let request = request(json!({"request": {"url": "https://h.example/x", "method": method}}));
            assert_eq!((request.method.as_str(), request.body.len()), (method, 0));
            assert!(!request.headers.contains_key("content-type"));
        }
        for form in ["none", "data"] {
            let subscription = subscription(json!({"request": {"url": "https://h.example/x", "body": form}}));
            let (request, _) = built(&subscription, bare, &FIRST);
            assert_eq!((request.body.len(), request.headers.get("content-type")), (0, None), "{form}");
        }
    }

    #[test]
    fn a_request_that_cannot_be_built_says_why() {
        let raw =
            Bytes::from_static(br#"{"id":"e","type":"a","tenant":"acme","time":"2026-11-22T09:00:07Z"}"#);
        let event = Event::parse(&raw, &Hints::default()).unwrap();
        let error = build(&subscription(json!({})), &event, &raw, &FIRST).unwrap_err();
        assert_eq!(error.to_string(), "the event has no `document_id` for the URL");
    }

    #[test]
    fn a_traceparent_that_is_no_header_value_is_left_out() {
        let long = "0".repeat(65);
        for text in ["", "a\r\nHost: evil", "é", &long] {
            let context = AttemptContext { traceparent: Some(text), ..FIRST };
            let (request, _) = built(&subscription(json!({})), EVENT, &context);
            assert!(headers(&request).iter().all(|(name, _)| *name != "traceparent"), "{text:?}");
        }
    }

    #[test]
    fn an_id_that_receivers_may_not_take_is_hashed() {
        let id = |text: &str| webhook_id(&EventId::parse(text).unwrap()).into_owned();
        assert_eq!(id("evt_0192-A"), "evt_0192-A");
        assert_eq!(id(&"a".repeat(128)), "a".repeat(128));
        // By sha256sum and Python's base32.
        assert_eq!(id("a.b"), "evt_fzztnxeoxkd66rzn6vumgvecvpzfoxod4xvmbrogfoh7v2wcze2a");
        for text in ["a.b", "a:b", &"a".repeat(129)] {
            let hashed = id(text);
            assert!(hashed.starts_with("evt_") && hashed.len() == 56, "{hashed}");
            assert!(
                hashed.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            );
        }
    }

    #[test]
    fn debug_shows_no_values() {
        let request = request(json!({
            "request": {"url": "https://h.example/canary?canary", "headers": {"X-Key": "canary"}},
            "auth": {"kind": "basic", "username": "u", "password": "canary"},
        }));
        let shown = format!("{request:?} {:?}", request.headers);
        assert!(!shown.contains("canary") && shown.contains("x-key"), "{shown}");
    }
}
