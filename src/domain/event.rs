//! The neutral event a producer publishes (README.md, *Events*), read without copying.
//!
//! Reading takes one check of the bytes, one linear scan for depth and one pass of the parser. `data` is never
//! looked into: it stays the producer's slice from the queue to the socket, so numbers too long for any type,
//! duplicate keys, lone surrogates and odd spaces inside it survive.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::domain::name::{EventId, EventType, NameFault, Tenant};
use crate::domain::time;

/// How deep a body may be nested, the event's own object included.
///
/// The parser skips `data` without recursion and would take any depth; receivers' parsers would not.
pub const DEPTH_MAX: u32 = 128;

/// The keys of the default body and what stands between them.
const ENVELOPE_BYTES: usize = 112;

/// What the message says about an event beside its body, used where the body is silent. Empty is silent too.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hints<'a> {
    /// AMQP `message_id`, for `id`.
    pub message_id: Option<&'a str>,
    /// AMQP `type`, for `type`.
    pub kind: Option<&'a str>,
    /// For `type` where AMQP `type` is absent.
    pub routing_key: Option<&'a str>,
    /// RFC 3339, for `time`: what the caller resolved from `paperboy-time` or the AMQP timestamp.
    pub time: Option<&'a str>,
    /// For `time` where nothing else tells it: the first arrival, in Unix milliseconds.
    pub arrived_ms: Option<i64>,
}

/// An event, borrowed from the message that brought it.
#[derive(Clone)]
pub struct Event<'a> {
    pub id: EventId,
    pub kind: EventType,
    pub tenant: Tenant,
    /// Keys are unique; the order is the producer's.
    pub scope: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// RFC 3339, as given.
    pub time: Cow<'a, str>,
    pub document_id: Option<Cow<'a, str>>,
    pub batch_id: Option<Cow<'a, str>>,
    /// Its batch is complete as far as its producer goes: no document follows.
    pub close_batch: bool,
    /// The producer's bytes, an explicit `null` included.
    pub data: Option<&'a RawValue>,
    /// The whole body as it came.
    pub raw: &'a [u8],
}

/// Why a body is no event, in words for the person who finds it among the dead letters.
///
/// Nothing of the body's text is repeated, whose length and contents are the producer's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("empty body")]
    Empty,
    #[error("too large: {bytes} bytes, at most {bytes_max} are read")]
    TooLarge { bytes: u64, bytes_max: u64 },
    #[error("not UTF-8 from byte {valid_bytes} on")]
    NotUtf8 { valid_bytes: usize },
    #[error("starts with a byte order mark, which JSON does not allow")]
    ByteOrderMark,
    #[error("nested deeper than {DEPTH_MAX}")]
    TooDeep,
    #[error("not JSON: {0}")]
    NotJson(String),
    #[error("not an object")]
    NotAnObject,
    /// A wrong type or a duplicate key; the text is the parser's, with line and column.
    #[error("{0}")]
    Field(String),
    #[error("no `{field}`{instead}")]
    Missing { field: &'static str, instead: &'static str },
    #[error("`{field}` {fault}")]
    Name { field: &'static str, fault: NameFault },
    #[error("`time` must be RFC 3339, such as `2026-11-22T09:00:07.120Z`")]
    Time,
}

impl<'a> Event<'a> {
    /// Reads an event from a message's body, completed by `hints`.
    pub fn parse(body: &'a [u8], hints: &Hints<'a>) -> Result<Event<'a>, Unreadable> {
        let text = check_text(body)?;
        let fields: Fields<'a> = serde_json::from_str(text).map_err(|error| match error.classify() {
            Category::Data => Unreadable::Field(error.to_string()),
            Category::Syntax | Category::Eof | Category::Io => Unreadable::NotJson(error.to_string()),
        })?;

        let id = fields
            .id
            .or_else(|| hint(hints.message_id))
            .ok_or(missing("id", ", and no AMQP `message_id`"))?;
        let kind = fields
            .kind
            .or_else(|| hint(hints.kind))
            .or_else(|| hint(hints.routing_key))
            .ok_or(missing("type", ", and neither AMQP `type` nor a routing key"))?;
        let tenant = fields.tenant.ok_or(missing("tenant", ""))?;
        let time = match fields.time {
            Some(time) if time::is_rfc3339(&time) => time,
            Some(_) => return Err(Unreadable::Time),
            None => hint(hints.time)
                .or_else(|| hints.arrived_ms.map(|ms| time::rfc3339(ms).into()))
                .ok_or(missing("time", ""))?,
        };
        Ok(Event {
            id: EventId::parse(&id).map_err(|fault| Unreadable::Name { field: "id", fault })?,
            kind: EventType::parse(&kind).map_err(|fault| Unreadable::Name { field: "type", fault })?,
            tenant: Tenant::parse(&tenant).map_err(|fault| Unreadable::Name { field: "tenant", fault })?,
            scope: fields.scope,
            time,
            document_id: fields.document_id,
            batch_id: fields.batch_id,
            close_batch: fields.close_batch,
            data: fields.data,
            raw: body,
        })
    }

    /// Looks up one key of the event's scope.
    pub fn scope_value(&self, key: &str) -> Option<&str> {
        self.scope.iter().find(|(name, _)| name == key).map(|(_, value)| &**value)
    }

    /// Writes the default body of a delivery: what was resolved, then `data` byte for byte.
    pub fn envelope(&self) -> Vec<u8> {
        let data = self.data.map_or("", RawValue::get);
        let mut out = self.envelope_before_data(data.len() + 1);
        out.extend_from_slice(data.as_bytes());
        out.push(b'}');
        out
    }

    /// Bytes of all that stands before `data`, unless something has to be escaped.
    fn names_bytes(&self) -> usize {
        let scope: usize = self.scope.iter().map(|(key, value)| key.len() + value.len() + 6).sum();
        let optional = [&self.document_id, &self.batch_id];
        let optional: usize = optional.into_iter().flatten().map(|text| text.len()).sum();
        let (kind, id, tenant) = (self.kind.as_str(), self.id.as_str(), self.tenant.as_str());
        kind.len() + id.len() + tenant.len() + self.time.len() + optional + scope
    }

    /// The default body up to the value of `data`, which follows together with `}`, with room for so many bytes more.
    pub fn envelope_before_data(&self, more_bytes: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(more_bytes + self.names_bytes() + ENVELOPE_BYTES);
        out.extend_from_slice(b"{\"type\":");
        push_json(&mut out, &self.kind);
        push_member(&mut out, "id", Some(self.id.as_str()));
        push_member(&mut out, "time", Some(&self.time));
        push_member(&mut out, "tenant", Some(self.tenant.as_str()));
        if !self.scope.is_empty() {
            out.extend_from_slice(b",\"scope\":");
            for (index, (key, value)) in self.scope.iter().enumerate() {
                out.push(if index == 0 { b'{' } else { b',' });
                push_json(&mut out, key);
                out.push(b':');
                push_json(&mut out, value);
            }
            out.push(b'}');
        }
        push_member(&mut out, "document_id", self.document_id.as_deref());
        push_member(&mut out, "batch_id", self.batch_id.as_deref());
        if self.data.is_some() {
            out.extend_from_slice(b",\"data\":");
        }
        out
    }
}

/// Leaves the payload out, so that no log or panic shows it.
impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("tenant", &self.tenant)
            .field("raw_bytes", &self.raw.len())
            .finish_non_exhaustive()
    }
}

fn hint<'a>(text: Option<&'a str>) -> Option<Cow<'a, str>> {
    text.filter(|text| !text.is_empty()).map(Cow::Borrowed)
}

fn missing(field: &'static str, instead: &'static str) -> Unreadable {
    Unreadable::Missing { field, instead }
}

fn push_member(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        push_json(out, value);
    }
}

fn push_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, text: &T) {
    serde_json::to_writer(out, text).expect("a text is always written to memory");
}

/// Checks what concerns the body as a whole: UTF-8, no byte order mark, depth, an object at the top.
fn check_text(body: &[u8]) -> Result<&str, Unreadable> {
    let text = std::str::from_utf8(body).map_err(|e| Unreadable::NotUtf8 { valid_bytes: e.valid_up_to() })?;
    // RFC 8259 §8.1 lets a reader ignore the mark; `data` would then not be what receivers parse.
    if text.starts_with('\u{feff}') {
        return Err(Unreadable::ByteOrderMark);
    }
    if is_deeper_than(DEPTH_MAX, body) {
        return Err(Unreadable::TooDeep);
    }
    match text.trim_start_matches([' ', '\t', '\n', '\r']).as_bytes().first() {
        Some(b'{') => Ok(text),
        Some(_) => Err(match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Unreadable::NotAnObject,
            Err(error) => Unreadable::NotJson(error.to_string()),
        }),
        None => Err(Unreadable::Empty),
    }
}

/// Says whether brackets outside of strings are nested deeper than `depth_max`.
fn is_deeper_than(depth_max: u32, json: &[u8]) -> bool {
    // Most bodies hold fewer brackets than that altogether, and counting them is many times quicker.
    if opening_brackets(json) <= depth_max as usize {
        return false;
    }
    let mut depth = 0_u32;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'{' | b'[' => {
                depth += 1;
                if depth > depth_max {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Counts `[` and `{`, inside strings too. In pieces whose count fits a byte, so that the compiler takes many bytes at
/// once.
fn opening_brackets(json: &[u8]) -> usize {
    // The two differ in this bit alone.
    let is_bracket = |byte: &u8| u8::from(byte | (b'[' ^ b'{') == b'{');
    json.chunks(255).map(|piece| usize::from(piece.iter().map(is_bracket).sum::<u8>())).sum()
}

/// Leaves `bytes` behind the closing quote of the string they are in.
fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            // Whatever is escaped, even a quote, belongs to the string.
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

/// The body's known keys as they stand there.
#[derive(Default)]
struct Fields<'a> {
    id: Option<Cow<'a, str>>,
    kind: Option<Cow<'a, str>>,
    tenant: Option<Cow<'a, str>>,
    scope: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    time: Option<Cow<'a, str>>,
    document_id: Option<Cow<'a, str>>,
    batch_id: Option<Cow<'a, str>>,
    close_batch: bool,
    data: Option<&'a RawValue>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Id,
    Type,
    Tenant,
    Scope,
    Time,
    DocumentId,
    BatchId,
    CloseBatch,
    Data,
    #[serde(other)]
    Unknown,
}

impl Key {
    fn name(self) -> &'static str {
        match self {
            Key::Id => "id",
            Key::Type => "type",
            Key::Tenant => "tenant",
            Key::Scope => "scope",
            Key::Time => "time",
            Key::DocumentId => "document_id",
            Key::BatchId => "batch_id",
            Key::CloseBatch => "close_batch",
            Key::Data => "data",
            Key::Unknown => "",
        }
    }
}

/// Written by hand because a derived reader also takes an array, and borrows no text inside an `Option`.
impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        let mut seen = 0_u16;
        while let Some(key) = map.next_key::<Key>()? {
            let name = key.name();
            let bit = 1_u16 << key as u16;
            if seen & bit != 0 && !matches!(key, Key::Unknown) {
                return Err(de::Error::duplicate_field(name));
            }
            seen |= bit;
            match key {
                Key::Id => fields.id = map.next_value_seed(Text { of: name })?,
                Key::Type => fields.kind = map.next_value_seed(Text { of: name })?,
                Key::Tenant => fields.tenant = map.next_value_seed(Text { of: name })?,
                Key::Scope => fields.scope = map.next_value_seed(Scope)?,
                Key::Time => fields.time = map.next_value_seed(Text { of: name })?,
                Key::DocumentId => fields.document_id = map.next_value_seed(Text { of: name })?,
                Key::BatchId => fields.batch_id = map.next_value_seed(Text { of: name })?,
                Key::CloseBatch => fields.close_batch = map.next_value_seed(Flag { of: name })?,
                Key::Data => fields.data = Some(map.next_value()?),
                Key::Unknown => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(fields)
    }
}

/// Reads a text, borrowed unless it holds escapes; `null` is as good as absent.
struct Text {
    of: &'static str,
}

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a string for `{}`", self.of)
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Reads a truth value; `null` is as good as absent.
struct Flag {
    of: &'static str,
}

impl<'de> DeserializeSeed<'de> for Flag {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Flag {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`true` or `false` for `{}`", self.of)
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(flag)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(false)
    }

    /// Keeps the text itself, which may be megabytes, out of the error.
    fn visit_str<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
        Err(E::invalid_type(Unexpected::Other("string"), &self))
    }
}

/// Reads an object of texts with unique keys.
struct Scope;

impl<'de> DeserializeSeed<'de> for Scope {
    type Value = Vec<(Cow<'de, str>, Cow<'de, str>)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scope {
    type Value = Vec<(Cow<'de, str>, Cow<'de, str>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings for `scope`")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    /// Keeps the text itself, which may be megabytes, out of the error.
    fn visit_str<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
        Err(E::invalid_type(Unexpected::Other("string"), &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut scope = Vec::new();
        while let Some(key) = map.next_key_seed(Text { of: "scope" })? {
            let value = map.next_value_seed(Text { of: "scope" })?;
            let (Some(key), Some(value)) = (key, value) else {
                return Err(de::Error::invalid_type(Unexpected::Unit, &self));
            };
            scope.push((key, value));
        }
        // Two values for one key would let two readers see two different scopes.
        let mut keys: Vec<&str> = scope.iter().map(|(key, _)| &**key).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(de::Error::custom("duplicate key in `scope`"));
        }
        Ok(scope)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIME: &str = "2026-11-22T09:00:07.120Z";
    const HINTS: Hints<'static> =
        Hints { message_id: None, kind: None, routing_key: None, time: Some(TIME), arrived_ms: None };

    fn parse(body: &str) -> Result<Event<'_>, Unreadable> {
        Event::parse(body.as_bytes(), &HINTS)
    }

    /// A body with the required keys and `rest` (with its leading comma).
    fn body(rest: &str) -> String {
        format!(r#"{{"id":"e1","type":"document.processed","tenant":"acme"{rest}}}"#)
    }

    /// The reason why the required keys and `rest` are no event.
    fn reason(rest: &str) -> String {
        parse(&body(rest)).unwrap_err().to_string()
    }

    /// The reason why these bytes are no event.
    fn reason_of(body: &[u8]) -> String {
        Event::parse(body, &HINTS).unwrap_err().to_string()
    }

    fn data(body: &str) -> Option<&str> {
        parse(body).unwrap().data.map(RawValue::get)
    }

    #[test]
    fn an_envelope_is_written_without_growing() {
        let json =
            br#"{"id":"evt_1","type":"document.processed","tenant":"acme","time":"2026-11-22T09:00:07Z",
            "scope":{"inbox":"i7","queue":"88"},"document_id":"d1","batch_id":"b1","data":{"n":1}}"#;
        let event = Event::parse(json, &Hints::default()).unwrap();
        let out = event.envelope_before_data(64);
        assert!(out.capacity() >= out.len() + 64, "{} of {}", out.len(), out.capacity());
        assert!(out.capacity() <= out.len() + 64 + 32, "{} of {}", out.len(), out.capacity());
    }

    #[test]
    fn every_known_key_is_read() {
        let body = r#" {"id":"evt_1","type":"document.processed","tenant":"acme","scope":{"inbox":"i7","queue":"88"},
            "time":"2026-11-22T10:00:07+01:00","document_id":"d1","batch_id":"b1","more":[1],"data":{"a":1}}
        "#;
        let event = parse(body).unwrap();
        assert_eq!(
            (event.id.as_str(), event.kind.as_str(), event.tenant.as_str()),
            ("evt_1", "document.processed", "acme")
        );
        assert_eq!(
            (event.scope_value("inbox"), event.scope_value("queue"), event.scope_value("x")),
            (Some("i7"), Some("88"), None)
        );
        assert_eq!(event.time, "2026-11-22T10:00:07+01:00");
        assert_eq!((event.document_id.as_deref(), event.batch_id.as_deref()), (Some("d1"), Some("b1")));
        assert!(!event.close_batch);
        assert_eq!(event.raw, body.as_bytes());
    }

    #[test]
    fn texts_without_escapes_are_borrowed() {
        let body = body(r#","document_id":"plain","batch_id":"a\u0062""#);
        let event = parse(&body).unwrap();
        assert!(matches!(event.document_id, Some(Cow::Borrowed("plain"))));
        assert!(matches!(&event.batch_id, Some(Cow::Owned(text)) if text == "ab"));
    }

    #[test]
    fn what_the_body_leaves_out_comes_from_the_message() {
        let hints = Hints {
            message_id: Some("m1"),
            kind: Some("k"),
            routing_key: Some("r"),
            time: Some(TIME),
            arrived_ms: Some(0),
        };
        let event = Event::parse(br#"{"tenant":"t","id":null,"type":null,"time":null}"#, &hints).unwrap();
        assert_eq!((event.id.as_str(), event.kind.as_str(), &*event.time), ("m1", "k", TIME));

        let hints = Hints { kind: Some(""), ..hints };
        assert_eq!(Event::parse(br#"{"tenant":"t"}"#, &hints).unwrap().kind.as_str(), "r");
    }

    #[test]
    fn the_body_wins_over_the_message() {
        let hints = Hints {
            message_id: Some("m1"),
            kind: Some("k"),
            routing_key: Some("r"),
            time: Some("never"),
            arrived_ms: Some(0),
        };
        let body = body(r#","time":"2026-11-22T09:00:07Z""#);
        let event = Event::parse(body.as_bytes(), &hints).unwrap();
        assert_eq!(
            (event.id.as_str(), event.kind.as_str(), &*event.time),
            ("e1", "document.processed", "2026-11-22T09:00:07Z")
        );
    }

    #[test]
    fn a_missing_key_is_named() {
        assert_eq!(reason_of(br#"{"type":"a","tenant":"t"}"#), "no `id`, and no AMQP `message_id`");
        assert_eq!(
            reason_of(br#"{"id":"a","tenant":"t"}"#),
            "no `type`, and neither AMQP `type` nor a routing key"
        );
        assert_eq!(reason_of(br#"{"id":"a","type":"t","tenant":null}"#), "no `tenant`");
        assert_eq!(
            Event::parse(body("").as_bytes(), &Hints::default()).unwrap_err().to_string(),
            "no `time`"
        );
    }

    #[test]
    fn a_name_that_breaks_its_rule_is_named_with_the_rule() {
        assert_eq!(
            reason_of(br#"{"id":"a","type":"t","tenant":"a b"}"#),
            "`tenant` must match [A-Za-z0-9_.:-]{1,128}"
        );
        assert_eq!(
            reason_of(br#"{"id":"a","type":"","tenant":"t"}"#),
            "`type` must match [A-Za-z0-9_.:-]{1,128}"
        );
        assert_eq!(reason_of(br#"{"id":"a\n","type":"t","tenant":"t"}"#), "`id` must match [!-~]{1,200}");
    }

    #[test]
    fn a_body_that_is_no_object_says_what_is_wrong() {
        assert_eq!(reason_of(b""), "empty body");
        assert_eq!(reason_of(b" \n"), "empty body");
        assert_eq!(reason_of(b"nope"), "not JSON: expected ident at line 1 column 2");
        assert_eq!(reason_of(b"NaN"), "not JSON: expected value at line 1 column 1");
        assert_eq!(reason_of(b"{"), "not JSON: EOF while parsing an object at line 1 column 1");
        assert_eq!(reason_of(br#"{"a":1,}"#), "not JSON: trailing comma at line 1 column 8");
        assert_eq!(reason_of(b"{} x"), "not JSON: trailing characters at line 1 column 4");
        for text in ["null", "[]", "\"x\"", " 7", "[\"e1\",\"t\",\"acme\"]"] {
            assert_eq!(reason_of(text.as_bytes()), "not an object", "{text}");
        }
    }

    #[test]
    fn a_body_must_be_utf8_without_a_mark_in_front() {
        assert_eq!(reason_of(b"{\"a\":\"\xff\"}"), "not UTF-8 from byte 6 on");
        assert_eq!(reason_of(b"\xef\xbb\xbf{}"), "starts with a byte order mark, which JSON does not allow");
    }

    #[test]
    fn a_known_key_given_twice_is_refused_and_an_unknown_one_is_not() {
        assert_eq!(reason(r#","tenant":"acme""#), "duplicate field `tenant` at line 1 column 63");
        assert_eq!(reason(r#","ten\u0061nt":"b""#), "duplicate field `tenant` at line 1 column 68");
        assert!(reason(r#","data":null,"data":1"#).starts_with("duplicate field `data`"));
        assert!(reason(r#","batch_id":null,"batch_id":"b""#).starts_with("duplicate field `batch_id`"));
        assert!(reason(r#","scope":{"a":"1","b":"2","a":"3"}"#).starts_with("duplicate key in `scope`"));
        assert!(parse(&body(r#","x":1,"x":2"#)).is_ok());
    }

    #[test]
    fn a_wrong_type_names_the_key() {
        let expected = "invalid type: integer `7`, expected a string for `document_id` at line 1 column 70";
        assert_eq!(reason(r#","document_id":7"#), expected);
        assert!(
            reason(r#","batch_id":["a"]"#)
                .starts_with("invalid type: sequence, expected a string for `batch_id`")
        );
        let flag = "invalid type: string, expected `true` or `false` for `close_batch`";
        assert!(reason(r#","close_batch":"true""#).starts_with(flag));
        assert!(reason(r#","close_batch":true,"close_batch":true"#).starts_with("duplicate field"));
        let scope = "expected an object of strings for `scope`";
        assert!(reason(r#","scope":[]"#).contains(scope));
        assert!(reason(r#","scope":"inbox""#).contains(scope));
        assert!(reason(r#","scope":{"a":null}"#).contains(scope));
        assert!(
            reason(r#","scope":{"a":88}"#)
                .starts_with("invalid type: integer `88`, expected a string for `scope`")
        );
    }

    #[test]
    fn a_reason_never_repeats_the_body() {
        let long = "s3cret".repeat(1000);
        for rest in [
            format!(r#","scope":"{long}""#),
            format!(r#","time":"{long}""#),
            format!(r#","close_batch":"{long}""#),
            format!(r#","{long}"#),
        ] {
            assert!(!reason(&rest).contains("s3cret"));
        }
        assert!(!format!("{:?}", parse(&body(r#","data":"s3cret""#)).unwrap()).contains("s3cret"));
    }

    #[test]
    fn null_is_as_good_as_absent() {
        let nulls = r#","scope":null,"time":null,"document_id":null,"batch_id":null,"close_batch":null"#;
        let body = body(nulls);
        let event = parse(&body).unwrap();
        assert!(!event.close_batch);
        assert!(event.scope.is_empty() && event.document_id.is_none() && event.batch_id.is_none());
        assert_eq!(event.time, TIME);
    }

    #[test]
    fn data_is_kept_byte_for_byte() {
        let odd = [
            r#"{"n":12345678901234567890123,"f":1.0000000000000000001,"a":1,"a":2,"s":"\u00e9 é"}"#,
            "{ \"a\" :\t[ 1 ,\r\n 2 ] }",
            r#""\ud800""#,
            "1e999",
            "null",
            "[]",
        ];
        for odd in odd {
            assert_eq!(data(&body(&format!(r#","data" : {odd} "#))), Some(odd));
        }
        assert_eq!(data(&body("")), None);
    }

    #[test]
    fn a_lone_surrogate_is_refused_outside_of_data() {
        assert!(reason(r#","document_id":"\ud800""#).starts_with("not JSON: "));
    }

    #[test]
    fn nesting_is_counted_over_the_whole_body() {
        let nested =
            |levels: usize| body(&format!(r#","data":{}{}"#, "[".repeat(levels), "]".repeat(levels)));
        assert!(parse(&nested(100)).is_ok());
        assert!(parse(&nested(127)).is_ok());
        assert_eq!(parse(&nested(128)).unwrap_err(), Unreadable::TooDeep);
        assert_eq!(parse(&nested(2_000_000)).unwrap_err(), Unreadable::TooDeep);
        let unknown = body(&format!(r#","x":{}{}"#, "[".repeat(128), "]".repeat(128)));
        assert_eq!(parse(&unknown).unwrap_err(), Unreadable::TooDeep);
    }

    #[test]
    fn brackets_inside_strings_are_not_nesting() {
        let brackets = "[{".repeat(500);
        for text in [
            brackets.clone(),
            format!(r#"\"{brackets}"#),
            format!(r#"{brackets}\\"#),
            format!(r#"\\\"{brackets}"#),
        ] {
            assert!(parse(&body(&format!(r#","data":["{text}"]"#))).is_ok(), "{}", &text[..4]);
        }
        let after = format!(r#","data":["\\",{}{}]"#, "[".repeat(127), "]".repeat(127));
        assert_eq!(parse(&body(&after)).unwrap_err(), Unreadable::TooDeep);
        let side_by_side = format!(r#","data":[{}{{}}]"#, "{},".repeat(500));
        assert!(parse(&body(&side_by_side)).is_ok());
    }

    #[test]
    fn an_event_that_nobody_timed_has_the_time_of_its_arrival() {
        let hints = Hints { time: None, arrived_ms: Some(1_800_000_000_120), ..HINTS };
        assert_eq!(Event::parse(body("").as_bytes(), &hints).unwrap().time, "2027-01-15T08:00:00.120Z");
    }

    #[test]
    fn a_time_is_rfc3339_or_the_event_is_none() {
        assert_eq!(
            parse(&body(r#","time":"2026-11-22T09:00:07.1z""#)).unwrap().time,
            "2026-11-22T09:00:07.1z"
        );
        assert_eq!(parse(&body(r#","time":"2026-11-22 09:00:07Z""#)).unwrap_err(), Unreadable::Time);
    }

    #[test]
    fn too_large_names_both_sizes() {
        let reason = Unreadable::TooLarge { bytes: 17, bytes_max: 16 };
        assert_eq!(reason.to_string(), "too large: 17 bytes, at most 16 are read");
    }

    #[test]
    fn the_envelope_holds_what_was_resolved_and_the_producers_data() {
        let body = r#"{"tenant":"acme","data":{ "n" : 1.0 },"batch_id":"b1","document_id":"d\"1","scope":{"b":"2","a":"é"},"x":1}"#;
        let hints = Hints { message_id: Some("m1"), kind: Some("document.processed"), ..HINTS };
        let envelope = Event::parse(body.as_bytes(), &hints).unwrap().envelope();
        assert_eq!(
            String::from_utf8(envelope).unwrap(),
            r#"{"type":"document.processed","id":"m1","time":"2026-11-22T09:00:07.120Z","tenant":"acme","scope":{"b":"2","a":"é"},"document_id":"d\"1","batch_id":"b1","data":{ "n" : 1.0 }}"#
        );
    }

    #[test]
    fn the_envelope_leaves_out_what_is_absent() {
        assert_eq!(
            String::from_utf8(parse(&body("")).unwrap().envelope()).unwrap(),
            r#"{"type":"document.processed","id":"e1","time":"2026-11-22T09:00:07.120Z","tenant":"acme"}"#
        );
    }

    /// JSON as producers might write it: any nesting, any spaces, escapes and numbers no type can hold.
    fn any_json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?",
            any_string(),
        ];
        leaf.prop_recursive(5, 40, 5, |inner| {
            prop_oneof![
                (proptest::collection::vec(inner.clone(), 0..5), "[ \t\r\n]{0,2}").prop_map(
                    |(items, space)| format!("[{space}{}{space}]", items.join(&format!("{space},")))
                ),
                (proptest::collection::vec((any_string(), inner), 0..5), "[ \t\r\n]{0,2}").prop_map(
                    |(members, space)| {
                        let members: Vec<_> =
                            members.iter().map(|(k, v)| format!("{k}{space}:{v}{space}")).collect();
                        format!("{{{space}{}}}", members.join(","))
                    }
                ),
            ]
        })
    }

    fn any_string() -> impl Strategy<Value = String> {
        "\"([ a-z\\[\\]{}:,é𝄞]|\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4}){0,6}\""
    }

    #[test]
    fn brackets_are_counted_whatever_stands_between_them() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(opening_brackets(&all), 2);
        assert_eq!(opening_brackets(&[b'['; 1_000]), 1_000);
        assert_eq!(opening_brackets(b""), 0);
    }

    proptest! {
        #[test]
        fn any_data_is_kept_byte_for_byte(data in any_json(), unknown in any_json()) {
            let body = body(&format!(r#","x":{unknown},"data":{data}"#));
            let event = parse(&body).unwrap();
            prop_assert_eq!(event.data.map(RawValue::get), Some(&*data));
            let expected = format!(r#","data":{data}}}"#);
            prop_assert!(event.envelope().ends_with(expected.as_bytes()));
        }

        #[test]
        fn an_envelope_is_an_event_again(
            id in "[!-~]{1,20}", scope in proptest::collection::btree_map("\\PC{0,5}", "\\PC{0,5}", 0..4),
            document in proptest::option::of("[\\PC\"\\\\\\x00-\\x1f]{0,9}"), data in any_json(),
        ) {
            let text = |text: &str| serde_json::to_string(text).unwrap();
            let rest = format!(
                r#"{{"tenant":"t","id":{},"type":"a","scope":{},"document_id":{},"data":{data}}}"#,
                text(&id), serde_json::to_string(&scope).unwrap(), serde_json::to_string(&document).unwrap(),
            );
            let event = parse(&rest).unwrap();
            let envelope = event.envelope();
            let again = Event::parse(&envelope, &Hints::default()).unwrap();
            prop_assert_eq!((&again.id, &again.kind, &again.tenant), (&event.id, &event.kind, &event.tenant));
            prop_assert_eq!((&again.scope, &again.time, &again.document_id), (&event.scope, &event.time, &event.document_id));
            prop_assert_eq!(again.data.map(RawValue::get), event.data.map(RawValue::get));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Event::parse(&bytes, &HINTS);
        }

        #[test]
        fn no_broken_event_makes_it_panic(
            data in any_json(), at in any::<prop::sample::Index>(), byte: u8,
        ) {
            let mut body = body(&format!(r#","scope":{{"a":"b"}},"time":"{TIME}","data":{data}"#)).into_bytes();
            let at = at.index(body.len());
            body[at] = byte;
            if let Ok(event) = Event::parse(&body, &HINTS) {
                prop_assert_eq!(event.raw, &*body);
                let _ = event.envelope();
            }
        }

        #[test]
        fn depth_is_what_the_brackets_outside_of_strings_say(json in any_json(), depth_max in 0_u32..6) {
            fn depth(value: &serde_json::Value) -> u32 {
                match value {
                    serde_json::Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
                    serde_json::Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
                    _ => 0,
                }
            }
            // `Value` refuses lone surrogates and huge numbers, and keeps one of two equal keys.
            if let Ok(value) = serde_json::from_str(&json)
                && serde_json::to_string(&value).is_ok_and(|again| again.matches(':').count() == json.matches(':').count())
            {
                prop_assert_eq!(is_deeper_than(depth_max, json.as_bytes()), depth(&value) > depth_max);
            }
        }
    }
}
