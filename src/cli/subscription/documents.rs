//! Documents from files, and what is wrong with them, told together.

use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use super::random;
use crate::cli::Failure;
use crate::cli::failure::Problem;
use crate::domain::fault::Fault;
use crate::domain::name::SubscriptionId;
use crate::domain::secret::Secret;
use crate::domain::subscription::SubscriptionSpec;

/// The documents of a file: JSON (one object, a list, objects in a row) or TOML (one subscription, or
/// `[[subscriptions]]`); `-` is standard input.
pub(super) fn read(path: &Path) -> Result<Vec<Value>, Failure> {
    let text = text(path)?;
    parse(path, &text).map_err(|problem| Failure::refused(vec![problem]))
}

/// As [`read`], with what is wrong as one problem among others.
pub(super) fn read_or_say(path: &Path) -> Result<Vec<Value>, Problem> {
    let text = text(path).map_err(|error| Problem { message: format!("{error:#}"), hint: None })?;
    parse(path, &text)
}

fn text(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        return std::io::read_to_string(std::io::stdin()).context("cannot read standard input");
    }
    std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
}

fn parse(path: &Path, text: &str) -> Result<Vec<Value>, Problem> {
    let begins_as_json =
        text.trim_start().starts_with(['{', '[']) && path.extension().is_none_or(|end| end != "toml");
    let documents = if begins_as_json { from_json(text) } else { from_toml(text) };
    documents.map_err(|error| Problem {
        message: format!("`{}` cannot be read: {error}", path.display()),
        hint: Some("write one subscription or a list of them, as JSON or TOML".into()),
    })
}

fn from_json(text: &str) -> Result<Vec<Value>, String> {
    let mut documents = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        match value.map_err(|error| error.to_string())? {
            Value::Array(list) => documents.extend(list),
            other => documents.push(other),
        }
    }
    Ok(documents)
}

fn from_toml(text: &str) -> Result<Vec<Value>, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let value = serde_json::to_value(table).map_err(|error| error.to_string())?;
    Ok(match value.get("subscriptions") {
        Some(Value::Array(list)) => list.clone(),
        _ => vec![value],
    })
}

/// A subscription to be added, checked, and the secret that was made for it.
pub(super) struct New {
    pub(super) spec: SubscriptionSpec,
    pub(super) secret: Option<Secret>,
    /// The document named no id.
    pub(super) id_is_made: bool,
}

impl New {
    /// Completes and checks a document at `now` (RFC 3339).
    pub(super) fn complete(document: Value, now: &str) -> Result<Result<New, Vec<Fault>>, Failure> {
        let mut spec = match SubscriptionSpec::read(document) {
            Ok(spec) => spec,
            Err(faults) => return Ok(Err(faults)),
        };
        let id_is_made = spec.id.is_none();
        let made = spec.complete(SubscriptionId::from_random(random()?), now, random()?);
        Ok(made.and_then(|secret| spec.check().map(|_| New { spec, secret, id_is_made })))
    }
}

/// What is wrong with the documents of one call.
pub(super) struct Faults {
    several: bool,
    problems: Vec<Problem>,
}

impl Faults {
    /// Of several documents each is named by its place.
    pub(super) fn of(documents: usize) -> Faults {
        Faults { several: documents > 1, problems: Vec::new() }
    }

    /// Keeps what is wrong with the document at this place, from 1, and gives back what is right.
    pub(super) fn keep<T>(&mut self, place: usize, result: Result<T, Vec<Fault>>) -> Option<T> {
        let prefix = if self.several { format!("subscription {place}: ") } else { String::new() };
        let problem = |fault: Fault| Problem {
            message: match fault.field.as_str() {
                "" => format!("{prefix}{}", fault.message),
                field => format!("{prefix}`{field}`: {}", fault.message),
            },
            hint: fault.hint,
        };
        result.map_err(|faults| self.problems.extend(faults.into_iter().map(problem))).ok()
    }

    /// All of it as one failure, if there is anything.
    pub(super) fn into_failure(self) -> Result<(), Failure> {
        if self.problems.is_empty() { Ok(()) } else { Err(Failure::refused(self.problems)) }
    }
}

/// The faults of the only document of a call.
pub(super) fn refused(faults: Vec<Fault>) -> Failure {
    let mut all = Faults::of(1);
    all.keep::<()>(1, Err(faults));
    Failure::refused(all.problems)
}
