//! Events on their way in, other than by RabbitMQ itself: read once, passed on byte for byte.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{Caller, Refused};
use crate::broker::{Tags, Unconfirmed};
use crate::domain::event::{Event, Hints, Unreadable};
use crate::domain::fault::Fault;
use crate::domain::name::{EventId, EventType, Tenant};

/// Stands in for the time, which the first worker fills in, so that the rest can be checked.
const ANY_TIME: &str = "1970-01-01T00:00:00Z";

/// How long one confirm is waited for.
pub const CONFIRM_WAIT: Duration = Duration::from_secs(30);

/// Somebody waits for this confirm: not for ever.
///
/// # Errors
/// As the publish; [`Unconfirmed::Unknown`] when it takes longer than [`CONFIRM_WAIT`].
pub async fn confirmed(publish: impl Future<Output = Result<(), Unconfirmed>>) -> Result<(), Unconfirmed> {
    let too_long = || Unconfirmed::Unknown(format!("no confirm within {} s", CONFIRM_WAIT.as_secs()));
    tokio::time::timeout(CONFIRM_WAIT, publish).await.unwrap_or_else(|_| Err(too_long()))
}

/// An event that can be read, ready to be published.
#[derive(Debug)]
pub struct Ready {
    pub id: String,
    pub body: Bytes,
    pub tags: Tags,
}

/// Reads one event of a caller. A tenant's key may leave `tenant` out: it is the key's.
///
/// # Errors
/// Every fault of it, or it is another tenant's.
pub fn read(caller: &Caller, body: Bytes, bytes_max: usize) -> Result<Ready, Refused> {
    if body.len() > bytes_max {
        let message = format!("is of {} bytes, more than `limits.event_bytes_max` = {bytes_max}", body.len());
        return Err(Refused::fault("", message, "send a link to what is large"));
    }
    let hints = Hints { time: Some(ANY_TIME), ..Hints::default() };
    let found = match Event::parse(&body, &hints) {
        Ok(event) if !caller.owns(Some(event.tenant.as_str())) => return Err(caller.foreign()),
        Ok(event) => Ok((event.id.as_str().to_owned(), event.kind.as_str().to_owned())),
        Err(unreadable) => Err(unreadable),
    };
    match (found, &caller.tenant) {
        (Ok((id, kind)), _) => {
            let tags = Tags { message_id: Some(id.clone()), kind: Some(kind), ..Tags::default() };
            Ok(Ready { id, body, tags })
        }
        (Err(Unreadable::Missing { field: "tenant", .. }), Some(own)) => {
            // With the member in it, this cannot come here again.
            read(caller, with_tenant(&body, own), bytes_max.saturating_add(TENANT_BYTES_MAX))
        }
        (Err(unreadable), _) => Err(Refused::Faults(faults(&body, &unreadable, caller))),
    }
}

/// Room for a tenant that the key brings.
const TENANT_BYTES_MAX: usize = 256;

/// The event with `tenant` as its first member; everything else stays byte for byte.
fn with_tenant(body: &[u8], tenant: &Tenant) -> Bytes {
    let start = body.iter().position(|byte| *byte == b'{').map_or(0, |place| place + 1);
    let rest = &body[start..];
    let is_empty = rest.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'}');
    let mut out = Vec::with_capacity(body.len() + TENANT_BYTES_MAX);
    out.extend_from_slice(&body[..start]);
    out.extend_from_slice(format!("\"tenant\":\"{tenant}\"{}", if is_empty { "" } else { "," }).as_bytes());
    out.extend_from_slice(rest);
    out.into()
}

/// Everything wrong with an event, once it is known that something is.
fn faults(body: &[u8], unreadable: &Unreadable, caller: &Caller) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Ok(fields) = serde_json::from_slice::<BTreeMap<Cow<'_, str>, &RawValue>>(body) {
        let text = |name: &str| fields.get(name).map(|raw| serde_json::from_str::<Option<String>>(raw.get()));
        let mut check =
            |name: &'static str, is_good: &dyn Fn(&str) -> bool, rule: &str, hint: &str| match text(name) {
                None | Some(Ok(None)) if name == "tenant" && caller.tenant.is_some() => {}
                None | Some(Ok(None)) => faults.push(Fault::new(name, "is missing").hint(hint)),
                Some(Err(_)) => faults.push(Fault::new(name, "must be a string").hint(hint)),
                Some(Ok(Some(text))) if !is_good(&text) => {
                    faults.push(Fault::new(name, format!("must match {rule}")).hint(hint));
                }
                Some(Ok(Some(_))) => {}
            };
        check(
            "id",
            &|text| EventId::parse(text).is_ok(),
            EventId::RULE,
            "choose one that stays the same when the event is published again",
        );
        check(
            "type",
            &|text| EventType::parse(text).is_ok(),
            EventType::RULE,
            "write dotted words, such as `document.processed`",
        );
        check("tenant", &|text| Tenant::parse(text).is_ok(), Tenant::RULE, "write whose event it is");
        for name in ["document_id", "batch_id"] {
            if matches!(text(name), Some(Err(_))) {
                faults.push(Fault::new(name, "must be a string"));
            }
        }
        let close = fields.get("close_batch");
        if close.is_some_and(|raw| serde_json::from_str::<Option<bool>>(raw.get()).is_err()) {
            faults.push(Fault::new("close_batch", "must be `true` or `false`"));
        }
        if matches!(unreadable, Unreadable::Time) || matches!(text("time"), Some(Err(_))) {
            faults.push(
                Fault::new("time", "must be RFC 3339")
                    .hint("write `2026-11-22T09:00:07.120Z`, or leave it out"),
            );
        }
        let scope = fields.get("scope");
        if scope
            .is_some_and(|raw| serde_json::from_str::<Option<BTreeMap<String, String>>>(raw.get()).is_err())
        {
            faults.push(
                Fault::new("scope", "must be an object of strings").hint("write `{\"inbox\": \"i7\"}`"),
            );
        }
    }
    if faults.is_empty() {
        faults.push(Fault::new("", unreadable.to_string()));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator() -> Caller {
        Caller::operator("cli:test")
    }

    fn acme() -> Caller {
        Caller { tenant: Some(Tenant::parse("acme").unwrap()), ..operator() }
    }

    fn read_text(caller: &Caller, text: &str) -> Result<Ready, Refused> {
        read(caller, Bytes::copy_from_slice(text.as_bytes()), 1_000)
    }

    #[test]
    fn an_event_is_passed_on_byte_for_byte() {
        let text = r#" {"data": {"n": 1.0e+2},  "id":"1", "type":"a.b","tenant":"acme"} "#;
        let ready = read_text(&operator(), text).unwrap();
        assert_eq!((ready.id.as_str(), &ready.body[..]), ("1", text.as_bytes()));
        assert_eq!(ready.tags.kind.as_deref(), Some("a.b"));
        assert_eq!(&read_text(&acme(), text).unwrap().body[..], text.as_bytes());
    }

    #[test]
    fn a_tenants_key_brings_the_tenant_and_no_other() {
        let ready = read_text(&acme(), r#"{ "id":"1","type":"a","data":"x"}"#).unwrap();
        assert_eq!(&ready.body[..], br#"{"tenant":"acme", "id":"1","type":"a","data":"x"}"#);
        let foreign = read_text(&acme(), r#"{"id":"1","type":"a","tenant":"bolt"}"#);
        assert!(matches!(foreign, Err(Refused::Forbidden(_))));
        assert!(matches!(read_text(&acme(), "{}"), Err(Refused::Faults(_))));
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let text =
            r#"{"id": "", "type": 7, "document_id": 1, "close_batch": 1, "scope": {"a": 1}, "time": "now"}"#;
        let Err(Refused::Faults(faults)) = read_text(&operator(), text) else { panic!() };
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["id", "type", "tenant", "document_id", "close_batch", "scope"]);
        for text in ["", "[]", "{", "{\"id\":\"1\",\"id\":\"2\"}", "nul"] {
            assert!(
                matches!(read_text(&operator(), text), Err(Refused::Faults(faults)) if !faults.is_empty()),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_too_large_is_not_read() {
        let text = format!("{{\"data\":\"{}\"}}", "x".repeat(1_000));
        let Err(Refused::Faults(faults)) = read_text(&operator(), &text) else { panic!() };
        assert!(faults[0].message.contains("limits.event_bytes_max"));
    }
}
