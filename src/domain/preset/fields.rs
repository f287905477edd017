//! The fields of a platform's own configuration object, as data.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Which of the object's fields go where.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImportMap {
    pub fields: Vec<Field>,
    /// What the platform adds to its answer: its name, and the field of our document.
    pub record: Vec<Record>,
}

/// One field of the object.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Field {
    /// Its name; dots lead into objects.
    pub name: String,
    /// Where it goes in our document; `body.NAME` is a member of every body, `signature.NAME` of the signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    pub take: Take,
    /// What else is set by it, unless it is false.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub sets: Map<String, Value>,
    #[serde(skip_serializing_if = "super::is_false")]
    pub required: bool,
    /// Taken only with this other field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
    /// Not taken beside this other field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unless: Option<String>,
    /// Why it is not taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_taken: Option<String>,
    /// Values that ask for nothing, so that nothing is said of them; the only one there may be for `must`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub usual: Vec<Value>,
    /// Never in an answer.
    #[serde(skip_serializing_if = "super::is_false")]
    pub write_only: bool,
}

/// How a value is understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Take {
    /// As it is.
    #[default]
    Copy,
    /// One of `usual`.
    Must,
    /// A URL, or a host or address alone, which means http.
    Url,
    /// Names or codes of the platform's events, in a list, alone or with commas between them.
    Events,
    /// An object of texts, numbers and booleans.
    Headers,
    /// A text in capitals.
    Upper,
    /// A secret to sign with.
    Secret,
    /// `SHA-256`, `sha256` …
    Algorithm,
    /// A number of retries: attempts are one more.
    Retries,
    /// The name of a member, which a JSON Pointer then leads to.
    Member,
    /// URLs that end in an id, or ids.
    Ids,
    /// Anything, sent along as it is.
    Literal,
}

/// What an answer adds.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub name: String,
    pub from: String,
}
