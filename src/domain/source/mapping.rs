//! One message to one event.

use std::borrow::Cow;

use data_encoding::BASE32_NOPAD;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::domain::event::{Event, Hints, Unreadable};
use crate::domain::name::EventId;
use crate::domain::pointer::{self, PointerSet, Scalar};

/// Where the parts of an event are found in a message.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// The source's name, which goes into the ids that are made here.
    pub(super) source: String,
    pub(super) pointers: PointerSet,
    pub(super) tenant: Spot,
    /// Absent: AMQP `type`, else the routing key.
    pub(super) kind: Option<Spot>,
    /// Absent, or nothing there: AMQP `message_id`, else made of the message.
    pub(super) id: Option<Spot>,
    /// Absent, or nothing there: AMQP `timestamp`, else first arrival.
    pub(super) time: Option<Spot>,
    pub(super) document_id: Option<Spot>,
    pub(super) batch_id: Option<Spot>,
    pub(super) scope: Vec<(String, Spot)>,
    pub(super) data: Spot,
}

/// Where a part of an event stands in a message, or what stands for it.
#[derive(Clone, Debug)]
pub(super) enum Spot {
    /// Its number among the mapping's pointers, and the pointer as it was written.
    At(usize, String),
    Constant(String),
}

/// What a message says of itself beside its body.
#[derive(Clone, Copy, Debug, Default)]
pub struct Properties<'a> {
    /// AMQP `message_id`.
    pub message_id: Option<&'a str>,
    /// AMQP `type`.
    pub kind: Option<&'a str>,
    pub routing_key: &'a str,
    /// AMQP `timestamp` as RFC 3339.
    pub time: Option<&'a str>,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The neutral event, as a producer would have published it.
    pub event: Vec<u8>,
    pub id: String,
    pub kind: String,
    pub tenant: String,
    /// The message had no id: this one is made of its bytes.
    pub id_is_made: bool,
}

/// Why a message is no event. Nothing of the message's text is repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmapped {
    #[error("not UTF-8 from byte {valid_bytes} on")]
    NotUtf8 { valid_bytes: usize },
    #[error("not JSON: {0}")]
    NotJson(String),
    #[error("nothing at `{pointer}` for `{field}`")]
    Nothing { field: String, pointer: String },
    #[error("`{pointer}` is no text, number or boolean and cannot be `{field}`")]
    NotScalar { field: String, pointer: String },
    #[error("no `type`, and neither AMQP `type` nor a routing key")]
    NoType,
    /// What was found makes no event.
    #[error("{0}")]
    Event(#[from] Unreadable),
}

type Found<'a> = [Option<&'a RawValue>];

impl Mapping {
    /// Makes an event of a message.
    ///
    /// # Errors
    /// Why it is none; the same message never becomes one with this mapping.
    pub fn map(&self, body: &[u8], properties: &Properties<'_>) -> Result<Mapped, Unmapped> {
        let text = std::str::from_utf8(body)
            .map_err(|error| Unmapped::NotUtf8 { valid_bytes: error.valid_up_to() })?;
        let message: &RawValue =
            serde_json::from_str(text).map_err(|error| Unmapped::NotJson(error.to_string()))?;
        let found = self.pointers.find(message);

        let tenant = self.tenant.text(&found, "tenant")?.ok_or_else(|| self.tenant.nothing("tenant"))?;
        let kind = match &self.kind {
            Some(spot) => spot.text(&found, "type")?.ok_or_else(|| spot.nothing("type"))?,
            None => said(properties.kind).or(said(Some(properties.routing_key))).ok_or(Unmapped::NoType)?,
        };
        let id = optional(self.id.as_ref(), &found, "id")?
            .or(said(properties.message_id).filter(|id| EventId::parse(id).is_ok()));
        let id_is_made = id.is_none();
        let id = id.unwrap_or_else(|| self.made_id(body).into());
        let time = optional(self.time.as_ref(), &found, "time")?.or(said(properties.time));
        let mut scope = Vec::with_capacity(self.scope.len());
        for (key, spot) in &self.scope {
            if let Some(value) = spot.text(&found, &format!("scope.{key}"))? {
                scope.push((key.as_str(), value));
            }
        }
        let parts = Parts {
            id: &id,
            kind: &kind,
            tenant: &tenant,
            scope: &scope,
            time: time.as_deref(),
            document_id: optional(self.document_id.as_ref(), &found, "document_id")?,
            batch_id: optional(self.batch_id.as_ref(), &found, "batch_id")?,
            data: self.data.value(&found),
        };
        let event = parts.write();
        // Who reads it later has a time of arrival; here any will do.
        let arrived = Hints { time: Some("1970-01-01T00:00:00Z"), ..Hints::default() };
        Event::parse(&event, &arrived)?;
        let (id, kind, tenant) = (id.into_owned(), kind.into_owned(), tenant.into_owned());
        Ok(Mapped { event, id, kind, tenant, id_is_made })
    }

    /// `src_` and the SHA-256 of the source's name, a zero byte and the message's bytes, in lower-case base32: the
    /// same message always has the same id.
    fn made_id(&self, body: &[u8]) -> String {
        let digest = Sha256::new().chain_update(&self.source).chain_update([0]).chain_update(body).finalize();
        format!("src_{}", BASE32_NOPAD.encode(&digest).to_lowercase())
    }
}

impl Spot {
    fn value<'a>(&self, found: &Found<'a>) -> Option<&'a RawValue> {
        match self {
            Spot::At(number, _) => found[*number],
            Spot::Constant(_) => None,
        }
    }

    /// A text, or a number or boolean as it is written; `None` where nothing or `null` stands.
    fn text<'a>(&'a self, found: &Found<'a>, field: &str) -> Result<Option<Cow<'a, str>>, Unmapped> {
        let (number, pointer) = match self {
            Spot::Constant(text) => return Ok(Some(text.into())),
            Spot::At(number, pointer) => (*number, pointer),
        };
        match found[number].map(pointer::scalar) {
            None | Some(Scalar::Null) => Ok(None),
            Some(Scalar::Text(text)) => Ok(Some(text)),
            Some(Scalar::Other) => Err(Unmapped::NotScalar { field: field.into(), pointer: pointer.clone() }),
        }
    }

    fn nothing(&self, field: &str) -> Unmapped {
        let pointer = match self {
            Spot::At(_, pointer) => pointer.clone(),
            Spot::Constant(_) => String::new(),
        };
        Unmapped::Nothing { field: field.into(), pointer }
    }
}

fn optional<'a>(
    spot: Option<&'a Spot>,
    found: &Found<'a>,
    field: &str,
) -> Result<Option<Cow<'a, str>>, Unmapped> {
    spot.map_or(Ok(None), |spot| spot.text(found, field))
}

fn said(text: Option<&str>) -> Option<Cow<'_, str>> {
    text.filter(|text| !text.is_empty()).map(Cow::Borrowed)
}

/// An event in its parts.
struct Parts<'a> {
    id: &'a str,
    kind: &'a str,
    tenant: &'a str,
    scope: &'a [(&'a str, Cow<'a, str>)],
    time: Option<&'a str>,
    document_id: Option<Cow<'a, str>>,
    batch_id: Option<Cow<'a, str>>,
    data: Option<&'a RawValue>,
}

impl Parts<'_> {
    fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.data.map_or(0, |data| data.get().len()) + 512);
        out.push(b'{');
        let members = [
            ("id", Some(self.id)),
            ("type", Some(self.kind)),
            ("tenant", Some(self.tenant)),
            ("time", self.time),
            ("document_id", self.document_id.as_deref()),
            ("batch_id", self.batch_id.as_deref()),
        ];
        for (name, value) in members {
            if let Some(value) = value {
                member(&mut out, name);
                text(&mut out, value);
            }
        }
        if !self.scope.is_empty() {
            member(&mut out, "scope");
            out.push(b'{');
            for (key, value) in self.scope {
                member(&mut out, key);
                text(&mut out, value);
            }
            out.push(b'}');
        }
        if let Some(data) = self.data {
            member(&mut out, "data");
            out.extend_from_slice(data.get().as_bytes());
        }
        out.push(b'}');
        out
    }
}

fn member(out: &mut Vec<u8>, name: &str) {
    if !out.ends_with(b"{") {
        out.push(b',');
    }
    text(out, name);
    out.push(b':');
}

fn text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a text is always written to memory");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::source::Source;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const CONTRACT_FIT: &str = r#"{"event": "document_predict", "organization": "acme-be",
        "data": {"id": "66f0c1a2", "inbox": "66f0c1b7", "page_count": 2.0, "x": 12345678901234567890123}}"#;

    fn source(mapping: Value) -> Source {
        let mut document = json!({ "name": "legacy", "queue": "q", "tenant": "/organization" });
        for (name, value) in mapping.as_object().unwrap() {
            document[name] = value.clone();
        }
        Source::read(document).unwrap()
    }

    fn contract_fit() -> Source {
        source(json!({
            "type": "/event", "document_id": "/data/id", "scope": { "inbox": "/data/inbox", "environment": "live" },
            "data": "/data",
        }))
    }

    fn map(source: &Source, body: &str) -> Result<Mapped, Unmapped> {
        source.mapping.map(body.as_bytes(), &Properties { routing_key: "key", ..Properties::default() })
    }

    #[test]
    fn an_envelope_of_a_vendor_becomes_an_event_and_its_data_stays_as_it_was_written() {
        let mapped = map(&contract_fit(), CONTRACT_FIT).unwrap();
        assert!(mapped.id_is_made && mapped.id.starts_with("src_") && mapped.id.len() == 56, "{mapped:?}");
        let expected = format!(
            "{}{}{}",
            r#"{"id":""#,
            mapped.id,
            r#"","type":"document_predict","tenant":"acme-be","document_id":"66f0c1a2","scope":{"environment":"live","inbox":"66f0c1b7"},"data":{"id": "66f0c1a2", "inbox": "66f0c1b7", "page_count": 2.0, "x": 12345678901234567890123}}"#
        );
        assert_eq!(String::from_utf8(mapped.event).unwrap(), expected);
    }

    #[test]
    fn a_made_id_is_that_of_source_and_bytes() {
        let id = |source: &Source, body: &str| map(source, body).unwrap().id;
        let (here, mut there) = (contract_fit(), contract_fit());
        there.mapping.source = "other".into();
        assert_eq!(id(&here, CONTRACT_FIT), id(&here, CONTRACT_FIT));
        assert_ne!(id(&here, CONTRACT_FIT), id(&there, CONTRACT_FIT));
        assert_ne!(id(&here, CONTRACT_FIT), id(&here, &CONTRACT_FIT.replace("2.0", "2.1")));
    }

    #[test]
    fn an_id_is_the_mapped_one_else_the_messages_own() {
        let source = source(json!({ "type": "t", "id": "/n" }));
        let id = |body: &str, message_id: Option<&str>| {
            let properties = Properties { message_id, ..Properties::default() };
            source.mapping.map(body.as_bytes(), &properties).unwrap().id
        };
        assert_eq!(id(r#"{"organization": "a", "n": 7}"#, Some("m")), "7");
        assert_eq!(id(r#"{"organization": "a", "n": null}"#, Some("m")), "m");
        assert!(id(r#"{"organization": "a"}"#, Some("not an id")).starts_with("src_"));
        assert!(id(r#"{"organization": "a"}"#, None).starts_with("src_"));
    }

    #[test]
    fn what_is_not_mapped_is_taken_from_the_message_and_else_the_whole_of_it_is_data() {
        let source = source(json!({}));
        let properties = Properties {
            kind: None,
            routing_key: "document.done",
            time: Some("2026-11-22T09:00:07Z"),
            message_id: None,
        };
        let body = br#" {"organization": "a", "n": 1.50} "#;
        let mapped = source.mapping.map(body, &properties).unwrap();
        let event = Event::parse(&mapped.event, &Hints::default()).unwrap();
        assert_eq!((event.kind.as_str(), &*event.time), ("document.done", "2026-11-22T09:00:07Z"));
        assert_eq!(event.data.unwrap().get(), r#"{"organization": "a", "n": 1.50}"#);
        let typed = Properties { kind: Some("t"), ..properties };
        assert_eq!(source.mapping.map(body, &typed).unwrap().kind, "t");
    }

    #[test]
    fn what_does_not_map_says_why() {
        let source = source(json!({ "type": "/event", "time": "/at", "document_id": "/doc" }));
        for (body, why) in [
            ("", "not JSON: EOF while parsing a value at line 1 column 0"),
            ("{", "not JSON: EOF while parsing an object at line 1 column 1"),
            ("3", "nothing at `/organization` for `tenant`"),
            (r#"{"organization": null, "event": "e"}"#, "nothing at `/organization` for `tenant`"),
            (r#"{"organization": "a"}"#, "nothing at `/event` for `type`"),
            (
                r#"{"organization": ["a"], "event": "e"}"#,
                "`/organization` is no text, number or boolean and cannot be `tenant`",
            ),
            (
                r#"{"organization": "a", "event": "e", "doc": {}}"#,
                "`/doc` is no text, number or boolean and cannot be `document_id`",
            ),
            (r#"{"organization": "a b", "event": "e"}"#, "`tenant` must match [A-Za-z0-9_.:-]{1,128}"),
            (
                r#"{"organization": "a", "event": "e", "at": "yesterday"}"#,
                "`time` must be RFC 3339, such as `2026-11-22T09:00:07.120Z`",
            ),
        ] {
            assert_eq!(map(&source, body).unwrap_err().to_string(), why, "{body}");
        }
        let deep =
            format!(r#"{{"organization": "a", "event": "e", "x": {}{}}}"#, "[".repeat(500), "]".repeat(500));
        assert_eq!(map(&source, &deep), Err(Unmapped::Event(Unreadable::TooDeep)));
        assert_eq!(
            source.mapping.map(b"\xff", &Properties::default()),
            Err(Unmapped::NotUtf8 { valid_bytes: 0 })
        );
    }

    proptest! {
        #[test]
        fn whatever_maps_is_an_event(body in r#"[{}\[\]":,a-d0-9\\ -]{0,40}"#, name in "\\PC{0,9}") {
            let source = source(json!({
                "tenant": "t", "type": "/a", "id": "/b", "document_id": "/c", "scope": { "k": "/d" },
            }));
            let object = json!({ "a": "e", "b": name, "c": name, "d": name }).to_string();
            for body in [body, object] {
                if let Ok(mapped) = map(&source, &body) {
                    let hints = Hints { time: Some("2026-11-22T09:00:07Z"), ..Hints::default() };
                    let event = Event::parse(&mapped.event, &hints).unwrap();
                    prop_assert_eq!(event.id.as_str(), mapped.id);
                }
            }
        }
    }
}
