//! A place in a URL that an event fills with one of its values.

use std::borrow::Cow;
use std::fmt;

use crate::domain::event::Event;
use crate::domain::fault::Fault;
use crate::domain::pointer::{self, Pointer, Scalar};
use crate::domain::template::TemplateError;

/// The longest value of one placeholder, before encoding.
pub const VALUE_BYTES_MAX: usize = 256;

const KNOWN: &str = "known are `:id`, `{event.id}`, `{event.type}`, `{tenant}`, `{document_id}`, `{batch_id}`, \
                     `{scope.KEY}` and `{data./json/pointer}`";

/// What of an event stands in a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placeholder {
    EventId,
    EventType,
    Tenant,
    DocumentId,
    BatchId,
    Scope(String),
    /// The text of the pointer and the pointer itself.
    Data(String, Pointer),
}

impl Placeholder {
    /// Reads what stands between the braces. The fault's field is empty.
    ///
    /// # Errors
    /// A fault that names the placeholder.
    pub fn parse(name: &str) -> Result<Self, Fault> {
        if let Some(key) = name.strip_prefix("scope.").filter(|key| !key.is_empty()) {
            return Ok(Placeholder::Scope(key.to_owned()));
        }
        if let Some(pointer) = name.strip_prefix("data.") {
            let parsed = Pointer::parse(pointer)
                .map_err(|fault| Fault::new("", format!("holds `{{{name}}}`: {fault}")))?;
            return Ok(Placeholder::Data(pointer.to_owned(), parsed));
        }
        match name {
            "event.id" => Ok(Placeholder::EventId),
            "event.type" => Ok(Placeholder::EventType),
            "tenant" => Ok(Placeholder::Tenant),
            "document_id" => Ok(Placeholder::DocumentId),
            "batch_id" => Ok(Placeholder::BatchId),
            _ => Err(Fault::new("", format!("holds an unknown placeholder `{{{name}}}`")).hint(KNOWN)),
        }
    }

    /// The value, checked, not yet encoded.
    ///
    /// # Errors
    /// A [`TemplateError`] when it is absent or cannot stand in a URL.
    pub fn value_in<'a>(&self, event: &'a Event<'_>) -> Result<Cow<'a, str>, TemplateError> {
        let value = match self {
            Placeholder::EventId => Some(Cow::Borrowed(event.id.as_str())),
            Placeholder::EventType => Some(Cow::Borrowed(event.kind.as_str())),
            Placeholder::Tenant => Some(Cow::Borrowed(event.tenant.as_str())),
            Placeholder::DocumentId => event.document_id.as_deref().map(Cow::Borrowed),
            Placeholder::BatchId => event.batch_id.as_deref().map(Cow::Borrowed),
            Placeholder::Scope(key) => event.scope_value(key).map(Cow::Borrowed),
            Placeholder::Data(_, pointer) => {
                match event.data.and_then(|data| pointer.find(data)).map(pointer::scalar) {
                    None => None,
                    Some(Scalar::Text(text)) => Some(text),
                    Some(Scalar::Null) => return Err(TemplateError::Null(self.clone())),
                    Some(Scalar::Other) => return Err(TemplateError::NotScalar(self.clone())),
                }
            }
        };
        let value = value.ok_or_else(|| TemplateError::Missing(self.clone()))?;
        match &*value {
            "" => Err(TemplateError::Empty(self.clone())),
            "." | ".." => Err(TemplateError::DotSegment(self.clone())),
            long if long.len() > VALUE_BYTES_MAX => {
                Err(TemplateError::TooLong { placeholder: self.clone(), bytes: long.len() })
            }
            _ => Ok(value),
        }
    }
}

/// The name between the braces.
impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Placeholder::EventId => f.write_str("event.id"),
            Placeholder::EventType => f.write_str("event.type"),
            Placeholder::Tenant => f.write_str("tenant"),
            Placeholder::DocumentId => f.write_str("document_id"),
            Placeholder::BatchId => f.write_str("batch_id"),
            Placeholder::Scope(key) => write!(f, "scope.{key}"),
            Placeholder::Data(pointer, _) => write!(f, "data.{pointer}"),
        }
    }
}
