//! A place in a body, and the value an event has for it.

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde_json::Value;
use serde_json::value::RawValue;
use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use std::collections::BTreeMap;

use super::{BodyError, fault};
use crate::domain::event::Event;
use crate::domain::fault::Fault;

const KNOWN: &str = "known are `{data}`, `{type}`, `{name}`, `{name.KEY}`, `{id}`, `{id.uuid}`, `{id.hex24}`, `{time}`, \
                     `{time.ms}`, `{time.us}`, `{time.unix_s}`, `{time.unix_ms}`, `{tenant}`, `{document_id}`, \
                     `{batch_id}`, `{scope}` and `{scope.KEY}`";
/// Identifies ids of ours among version 5 UUIDs (RFC 9562 §5.5); drawn once.
const NAMESPACE: [u8; 16] =
    [0x5b, 0x1d, 0x2f, 0x0a, 0x6c, 0x93, 0x4e, 0x57, 0x8d, 0x21, 0x7f, 0x40, 0xb6, 0xe9, 0x13, 0xc8];

/// What of an event stands in a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The producer's bytes.
    Data,
    Type,
    /// The type as the receiver knows it: from `request.names`, else as it is.
    Name,
    /// One member of such a name; the type must have a name.
    NameMember(String),
    Id,
    /// A UUID made of the subscription and the event: the same on every attempt.
    IdUuid,
    /// 24 hex digits: the id if it is such, else the beginning of its SHA-256.
    IdHex24,
    /// As the event gives it.
    Time,
    /// In UTC with milliseconds.
    TimeMs,
    /// In UTC with microseconds.
    TimeUs,
    TimeUnixS,
    TimeUnixMs,
    Tenant,
    DocumentId,
    BatchId,
    /// The whole scope as an object.
    Scope,
    ScopeKey(String),
}

impl Place {
    /// Reads what stands between the braces. The fault's field is empty.
    ///
    /// # Errors
    /// A fault that names the place.
    pub fn parse(name: &str) -> Result<Self, Fault> {
        let keyed = |prefix: &str| name.strip_prefix(prefix).filter(|key| !key.is_empty()).map(str::to_owned);
        if let Some(key) = keyed("scope.") {
            return Ok(Place::ScopeKey(key));
        }
        if let Some(key) = keyed("name.") {
            return Ok(Place::NameMember(key));
        }
        Ok(match name {
            "data" => Place::Data,
            "type" => Place::Type,
            "name" => Place::Name,
            "id" => Place::Id,
            "id.uuid" => Place::IdUuid,
            "id.hex24" => Place::IdHex24,
            "time" => Place::Time,
            "time.ms" => Place::TimeMs,
            "time.us" => Place::TimeUs,
            "time.unix_s" => Place::TimeUnixS,
            "time.unix_ms" => Place::TimeUnixMs,
            "tenant" => Place::Tenant,
            "document_id" => Place::DocumentId,
            "batch_id" => Place::BatchId,
            "scope" => Place::Scope,
            _ => return Err(fault(format!("holds an unknown place `{{{name}}}`")).hint(KNOWN)),
        })
    }

    /// Whether the event has a value for it.
    ///
    /// # Errors
    /// [`BodyError::NoName`] where the receiver's name of the type has to have members and there is none.
    pub(super) fn is_in(&self, event: &Event<'_>, names: &Names) -> Result<bool, BodyError> {
        Ok(match self {
            Place::Data => event.data.is_some(),
            Place::DocumentId => event.document_id.is_some(),
            Place::BatchId => event.batch_id.is_some(),
            Place::ScopeKey(key) => event.scope_value(key).is_some(),
            Place::NameMember(key) => names.member(event.kind.as_str(), key)?.is_some(),
            Place::Scope => !event.scope.is_empty(),
            _ => true,
        })
    }

    /// Appends the value as JSON; nothing where the event has none.
    ///
    /// # Errors
    /// A [`BodyError`] when the event has a value that cannot be written.
    pub(super) fn push(
        &self,
        out: &mut Vec<u8>,
        event: &Event<'_>,
        names: &Names,
        subscription: &str,
    ) -> Result<(), BodyError> {
        let text =
            |out: &mut Vec<u8>, text: Option<&str>| text.into_iter().for_each(|text| push_json(out, text));
        let json = |out: &mut Vec<u8>, json: &str| out.extend_from_slice(json.as_bytes());
        let kind = event.kind.as_str();
        match self {
            Place::Data => json(out, event.data.map_or("", RawValue::get)),
            Place::Type => text(out, Some(kind)),
            Place::Name => match names.scalar(kind) {
                Some(name) => json(out, name),
                None => text(out, Some(kind)),
            },
            Place::NameMember(key) => json(out, names.member(kind, key)?.unwrap_or_default()),
            Place::Id => text(out, Some(event.id.as_str())),
            Place::IdUuid => text(out, Some(&uuid_of(subscription, event.id.as_str()))),
            Place::IdHex24 => text(out, Some(&hex24_of(event.id.as_str()))),
            Place::Time => text(out, Some(&event.time)),
            Place::TimeMs => text(out, Some(&rfc3339(moment(event)?, 3)?)),
            Place::TimeUs => text(out, Some(&rfc3339(moment(event)?, 6)?)),
            Place::TimeUnixS => json(out, &moment(event)?.as_second().to_string()),
            Place::TimeUnixMs => json(out, &moment(event)?.as_millisecond().to_string()),
            Place::Tenant => text(out, Some(event.tenant.as_str())),
            Place::DocumentId => text(out, event.document_id.as_deref()),
            Place::BatchId => text(out, event.batch_id.as_deref()),
            Place::Scope => push_scope(out, event),
            Place::ScopeKey(key) => text(out, event.scope_value(key)),
        }
        Ok(())
    }
}

fn moment(event: &Event<'_>) -> Result<Timestamp, BodyError> {
    event.time.parse().map_err(|_| BodyError::Time)
}

fn rfc3339(moment: Timestamp, digits: u8) -> Result<String, BodyError> {
    let mut text = String::new();
    let printer = DateTimePrinter::new().precision(Some(digits));
    printer.print_timestamp(&moment, &mut text).map_err(|_| BodyError::Time)?;
    Ok(text)
}

fn push_scope(out: &mut Vec<u8>, event: &Event<'_>) {
    for (index, (key, value)) in event.scope.iter().enumerate() {
        out.push(if index == 0 { b'{' } else { b',' });
        push_json(out, key);
        out.push(b':');
        push_json(out, value);
    }
    out.push(b'}');
}

pub(super) fn push_json(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a text is always written to memory");
}

/// A version 5 UUID (RFC 9562 §5.5) over both names.
fn uuid_of(subscription: &str, event: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(NAMESPACE);
    hash.update(subscription);
    hash.update(b"\0");
    hash.update(event);
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_sha1_bytes(bytes).into_uuid().to_string()
}

fn hex24_of(id: &str) -> String {
    let is_hex24 = id.len() == 24 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex24 {
        return id.to_owned();
    }
    data_encoding::HEXLOWER.encode(&Sha256::digest(id)[..12])
}

/// What receivers call the event types, prepared as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(BTreeMap<String, Name>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    /// A text, a number, any one value.
    Scalar(String),
    /// Several values, each for a place of its own.
    Members(BTreeMap<String, String>),
}

impl Names {
    /// Prepares `request.names`.
    pub fn new(names: &BTreeMap<String, Value>) -> Names {
        let name = |value: &Value| match value {
            Value::Object(members) => {
                Name::Members(members.iter().map(|(key, value)| (key.clone(), value.to_string())).collect())
            }
            scalar => Name::Scalar(scalar.to_string()),
        };
        Names(names.iter().map(|(kind, value)| (kind.clone(), name(value))).collect())
    }

    fn scalar(&self, kind: &str) -> Option<&str> {
        match self.0.get(kind)? {
            Name::Scalar(json) => Some(json),
            Name::Members(_) => None,
        }
    }

    fn member(&self, kind: &str, key: &str) -> Result<Option<&str>, BodyError> {
        match self.0.get(kind) {
            Some(Name::Members(members)) => Ok(members.get(key).map(String::as_str)),
            Some(Name::Scalar(_)) => Ok(None),
            None => Err(BodyError::NoName),
        }
    }
}
