//! What callers and the platform get to see of a receiver's answer: a JSON object, without secrets.
//!
//! The same object goes back to whoever called (`paperboy.calls`, `POST /v1/calls`) and, with the event's own members
//! around it, to `paperboy.answers`.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use http::HeaderMap;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::event::Event;
use crate::domain::outcome::{Answer, Whole};
use crate::domain::statuses::{Class, Seen};
use crate::domain::subscription::Subscription;
use crate::domain::veil::Veil;

/// Headers of an answer that are passed on: they describe the body, or name the request in the receiver's logs. All
/// others (cookies, challenges) are between the receiver and us.
const HEADERS: [&str; 10] = [
    "content-language",
    "content-type",
    "date",
    "etag",
    "last-modified",
    "location",
    "request-id",
    "retry-after",
    "x-correlation-id",
    "x-request-id",
];
/// JSON that nests deeper goes on as text: many parsers end at 128, and the caller's reads all that is around it too.
const DEPTH_MAX: usize = 100;
/// Longer values are left out.
const HEADER_BYTES_MAX: usize = 1024;

/// What one subscription answered, or why it did not.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Reply {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription: Option<String>,
    /// Why there is no answer, in a word or two: a class such as `timeout`, or one of [`Failed`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    /// The same for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<&'static str, String>>,
    /// `json`, `text` or `base64`: how `body` is to be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_encoding: Option<&'static str>,
    /// JSON as the receiver wrote it, to the digit; else a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
}

/// Why nobody was called, or what was called has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// No subscription of the tenant wants this event answered.
    NoSubscriber,
    /// The call was in another process's hands, which may have made it.
    Interrupted,
    /// The time for the answer is over.
    Timeout,
    /// This process makes as many calls as it may: in all, for the tenant or to the subscription.
    Busy,
    /// The subscription is switched off, and not by a person.
    Disabled,
    /// What was sent is no event.
    Unreadable,
    /// Nobody can say who subscribes.
    Unavailable,
    /// The answer is longer than is passed on, or all of the call's are.
    TooLarge,
}

impl Failed {
    pub fn as_str(self) -> &'static str {
        match self {
            Failed::NoSubscriber => "no subscriber",
            Failed::Interrupted => "interrupted",
            Failed::Timeout => Class::Timeout.as_str(),
            Failed::Busy => "busy",
            Failed::Disabled => "disabled",
            Failed::Unreadable => "unreadable",
            Failed::Unavailable => "unavailable",
            Failed::TooLarge => "too large",
        }
    }
}

impl Reply {
    /// Of all answers to one call, in bytes of their bodies as they are passed on.
    pub const ROOM_BYTES: usize = 8 << 20;

    /// One that stands for the whole call.
    pub fn alone(why: Failed, detail: impl Into<String>) -> Reply {
        Reply { error: Some(why.as_str()), detail: Some(detail.into()), ..Reply::default() }
    }

    /// A subscription that was not asked, or did not answer in time.
    pub fn failed(subscription: &Subscription, why: Failed, detail: impl Into<String>) -> Reply {
        Reply { subscription: Some(subscription.id.to_string()), ..Reply::alone(why, detail) }
    }

    /// A subscription whose request cannot be made of the event.
    pub fn not_built(subscription: &Subscription, detail: impl Into<String>) -> Reply {
        let error = Some(Class::Template.as_str());
        Reply { error, ..Reply::failed(subscription, Failed::Unreadable, detail) }
    }

    /// What came back.
    pub fn answered(subscription: &Subscription, answer: &Answer) -> Reply {
        let reply = Reply {
            subscription: Some(subscription.id.to_string()),
            ms: Some(answer.elapsed_ms),
            ..Reply::default()
        };
        let status = match answer.seen {
            Seen::Status(status) => status,
            // The excerpt then holds our own words.
            Seen::Failure(class) => {
                let detail = String::from_utf8_lossy(&answer.excerpt).into_owned();
                return Reply { error: Some(class.as_str()), detail: Some(detail), ..reply };
            }
        };
        let reply = Reply { status: Some(status), ..reply };
        let Some(whole) = &answer.whole else { return reply };
        let reply = Reply { headers: Some(shown_headers(&whole.headers, &subscription.veil)), ..reply };
        match &whole.body {
            Some(body) => {
                let (body_encoding, body) = shown_body(body, &subscription.veil);
                Reply { body_encoding: Some(body_encoding), body, ..reply }
            }
            None => Reply {
                error: Some(Failed::TooLarge.as_str()),
                detail: Some(format!("the answer is longer than {} bytes", Whole::BYTES_MAX)),
                ..reply
            },
        }
    }

    /// Takes the bytes of the body out of the room that a call's answers share; where that is too small, the body is
    /// left out.
    #[must_use]
    pub fn within(self, room: &mut usize) -> Reply {
        let bytes = self.body.as_ref().map_or(0, |body| body.get().len());
        if let Some(left) = room.checked_sub(bytes) {
            *room = left;
            return self;
        }
        let detail = format!("the answers to this call are longer than {} bytes together", Reply::ROOM_BYTES);
        let (error, detail) = (Some(Failed::TooLarge.as_str()), Some(detail));
        Reply { error, detail, body_encoding: None, body: None, ..self }
    }

    /// Whether the receiver answered in JSON.
    pub fn is_json(&self) -> bool {
        self.body_encoding == Some("json")
    }

    /// The object as it travels.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Texts, numbers and JSON that was read: this cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The same with what it is the answer to, for `paperboy.answers`.
    pub fn to_bytes_about(&self, event: &Event<'_>, attempt: u32) -> Vec<u8> {
        #[derive(Serialize)]
        struct About<'a> {
            event: &'a str,
            #[serde(rename = "type")]
            kind: &'a str,
            tenant: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            document_id: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            batch_id: Option<&'a str>,
            attempt: u32,
            #[serde(flatten)]
            reply: &'a Reply,
        }
        let about = About {
            event: event.id.as_str(),
            kind: event.kind.as_str(),
            tenant: event.tenant.as_str(),
            document_id: event.document_id.as_deref(),
            batch_id: event.batch_id.as_deref(),
            attempt,
            reply: self,
        };
        serde_json::to_vec(&about).unwrap_or_default()
    }
}

fn shown_headers(headers: &HeaderMap, veil: &Veil) -> BTreeMap<&'static str, String> {
    let shown = HEADERS.into_iter().filter_map(|name| {
        let value = headers.get(name)?.to_str().ok()?;
        (value.len() <= HEADER_BYTES_MAX).then(|| (name, veil.hide(value)))
    });
    shown.collect()
}

/// How a body is to be read, and the body.
fn shown_body(body: &[u8], veil: &Veil) -> (&'static str, Option<Box<RawValue>>) {
    let text = |text: &str| serde_json::value::to_raw_value(text).ok();
    let Ok(plain) = std::str::from_utf8(body) else {
        return ("base64", text(&BASE64.encode(&veil.hide_bytes(body))));
    };
    let plain = veil.hide(plain);
    match serde_json::from_str::<Box<RawValue>>(&plain) {
        Ok(json) if depth(&plain) <= DEPTH_MAX => ("json", Some(json)),
        _ => ("text", text(&plain)),
    }
}

/// How deep JSON nests; a bracket in a string is none.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut is_text, mut is_escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'[' | b'{' if !is_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::event::Hints;
    use crate::domain::spec::SubscriptionSpec;

    fn subscription() -> Subscription {
        let document = json!({
            "id": "sub_1", "tenant": "acme", "events": ["#"], "request": {"url": "https://h.example/x"},
            "signatures": [{"scheme": "hmac", "header": "X-S", "secrets": ["canary-secret"]}],
        });
        SubscriptionSpec::read(document).unwrap().check().unwrap()
    }

    fn answer(headers: &[(&'static str, &str)], body: Option<&[u8]>) -> Answer {
        let headers = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())
        });
        Answer {
            seen: Seen::Status(200),
            cause: None,
            retry_after: None,
            elapsed_ms: 7,
            excerpt: Vec::new(),
            whole: Some(Box::new(Whole { headers: headers.collect(), body: body.map(<[u8]>::to_vec) })),
            is_our_fault: false,
        }
    }

    fn shown(headers: &[(&'static str, &str)], body: Option<&[u8]>) -> Value {
        let reply = Reply::answered(&subscription(), &answer(headers, body));
        serde_json::from_slice(&reply.to_bytes()).unwrap()
    }

    #[test]
    fn json_stays_as_it_was_written() {
        let reply = Reply::answered(&subscription(), &answer(&[], Some(br#"{"b":0.0, "a":1e2}"#)));
        let text = String::from_utf8(reply.to_bytes()).unwrap();
        assert!(text.contains(r#""body":{"b":0.0, "a":1e2}"#), "{text}");
        assert!(reply.is_json() && text.contains(r#""subscription":"sub_1","status":200"#), "{text}");
        let event =
            br#"{"id":"e","type":"a.b","tenant":"acme","document_id":"d","time":"2026-11-22T09:00:07Z"}"#;
        let event = Event::parse(event, &Hints::default()).unwrap();
        let text = String::from_utf8(reply.to_bytes_about(&event, 2)).unwrap();
        assert!(text.contains(r#""body":{"b":0.0, "a":1e2}"#), "{text}");
        let about: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&about["event"], &about["type"], &about["attempt"]),
            (&json!("e"), &json!("a.b"), &json!(2))
        );
        assert_eq!((&about["document_id"], &about["subscription"]), (&json!("d"), &json!("sub_1")));
    }

    #[test]
    fn what_is_no_json_is_text_and_what_is_no_text_base64() {
        let text = shown(&[], Some(b"OK"));
        assert_eq!((&text["body"], &text["body_encoding"]), (&json!("OK"), &json!("text")));
        assert_eq!(shown(&[], Some(b""))["body"], "");
        let binary = shown(&[], Some(&[0xff, 0]));
        assert_eq!((&binary["body"], &binary["body_encoding"]), (&json!("/wA="), &json!("base64")));
        let deep = "[".repeat(5_000) + &"]".repeat(5_000);
        assert_eq!(shown(&[], Some(deep.as_bytes()))["body_encoding"], "text");
        assert_eq!((depth(r#"{"a":["]]\"[[[", {}]}"#), depth("1")), (3, 0));
    }

    #[test]
    fn no_cookie_and_no_secret_is_passed_on() {
        let headers = [
            ("set-cookie", "s=1"),
            ("www-authenticate", "Basic"),
            ("x-request-id", "r1 canary-secret"),
            ("content-type", "text/plain"),
        ];
        let reply = shown(&headers, Some(br#"{"key":"canary-secret"}"#));
        assert_eq!(reply["headers"], json!({"content-type": "text/plain", "x-request-id": "r1 ***"}));
        assert_eq!(reply["body"], json!({"key": "***"}));
    }

    #[test]
    fn no_secret_is_passed_on_in_what_is_no_text() {
        let reply = shown(&[], Some(b"caf\xe9 canary-secret\xe9"));
        let body = BASE64.decode(reply["body"].as_str().unwrap().as_bytes()).unwrap();
        assert_eq!((reply["body_encoding"].as_str(), &*body), (Some("base64"), &b"caf\xe9 ***\xe9"[..]));
    }

    #[test]
    fn answers_share_a_room_and_what_does_not_fit_comes_without_its_body() {
        let said = |body: &[u8]| Reply::answered(&subscription(), &answer(&[], Some(body)));
        let mut room = 8;
        assert!(said(b"[1,2]").within(&mut room).is_json());
        let large = said(b"[1,2]").within(&mut room);
        assert_eq!((large.status, large.error), (Some(200), Some("too large")));
        assert!(large.body.is_none() && large.body_encoding.is_none() && large.headers.is_some());
        assert!(said(b"[1]").within(&mut room).is_json(), "a shorter one still fits");
        assert_eq!(room, 0);
        assert_eq!(Reply::failed(&subscription(), Failed::Busy, "x").within(&mut room).error, Some("busy"));
    }

    #[test]
    fn what_is_too_large_keeps_its_status() {
        let reply = shown(&[], None);
        assert_eq!((&reply["status"], &reply["error"]), (&json!(200), &json!("too large")));
        assert!(reply.get("body").is_none());
    }

    #[test]
    fn a_failure_says_which() {
        let answer = Answer {
            seen: Seen::Failure(Class::Dns),
            excerpt: b"no such name".to_vec(),
            whole: None,
            ..answer(&[], None)
        };
        let reply = Reply::answered(&subscription(), &answer).to_bytes();
        let expected = json!({"subscription": "sub_1", "error": "dns", "detail": "no such name", "ms": 7});
        assert_eq!(serde_json::from_slice::<Value>(&reply).unwrap(), expected);
    }
}
