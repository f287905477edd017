//! From a platform's own configuration object to a subscription's document, field by field.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Preset;
use super::fields::{Field, Take};
use super::words::their_field;
use crate::domain::fault::Fault;
use crate::domain::name::{SubscriptionId, Tenant};
use crate::domain::spec::SubscriptionSpec;

/// A configuration object as one of our documents, not yet complete.
#[derive(Clone, Debug)]
pub struct Imported {
    pub spec: SubscriptionSpec,
    pub not_taken: Vec<NotTaken>,
}

/// A field of the object that has no effect here, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotTaken {
    pub field: String,
    pub reason: String,
}

/// Reads a platform's own configuration object for a tenant.
///
/// Field by field: what is known goes where the preset says, everything else is named in `not_taken`.
///
/// # Errors
/// Every field, by the platform's name, that is missing or has a value nobody can use.
pub fn import(preset: &Preset, tenant: &Tenant, object: &Value) -> Result<Imported, Vec<Fault>> {
    let Value::Object(fields) = object else {
        return Err(vec![Fault::new("", format!("the configuration of {} must be an object", preset.title))]);
    };
    let mut import = Import::new(preset, object);
    if preset.import.fields.is_empty() {
        return Err(vec![Fault::new("", format!("preset `{}` has no import", preset.name))]);
    }
    for field in &preset.import.fields {
        import.field(field);
    }
    import.unknown("", fields);
    import.finish(tenant)
}

/// The value at a dotted path; `null` is as good as absent.
pub(super) fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let found = path.split('.').try_fold(object, |value, name| value.get(name));
    found.filter(|value| !value.is_null())
}

struct Import<'a> {
    preset: &'a Preset,
    object: &'a Value,
    document: Value,
    signature: Map<String, Value>,
    /// Members of every body.
    literals: Map<String, Value>,
    faults: Vec<Fault>,
    not_taken: Vec<NotTaken>,
}

impl<'a> Import<'a> {
    fn new(preset: &'a Preset, object: &'a Value) -> Import<'a> {
        Import {
            preset,
            object,
            document: json!({}),
            signature: Map::new(),
            literals: Map::new(),
            faults: Vec::new(),
            not_taken: Vec::new(),
        }
    }

    fn field(&mut self, field: &Field) {
        let Some(value) = at(self.object, &field.name) else {
            if field.required {
                self.faults.push(Fault::new(&field.name, "is missing"));
            }
            return;
        };
        let has = |other: &Option<String>| other.as_ref().is_some_and(|name| at(self.object, name).is_some());
        let is_usual = field.usual.contains(value);
        if let Some(reason) = &field.not_taken {
            if !is_usual {
                self.leave(&field.name, reason.clone());
            }
            return;
        }
        if has(&field.unless) {
            let other = field.unless.clone().unwrap_or_default();
            return self.leave(&field.name, format!("`{other}` is given, and takes its place"));
        }
        if field.needs.is_some() && !has(&field.needs) {
            let other = field.needs.clone().unwrap_or_default();
            return self.leave(&field.name, format!("has no meaning without `{other}`"));
        }
        match self.taken(field, value) {
            Ok(None) => {}
            Ok(Some(taken)) => {
                if taken != Value::Bool(false) {
                    for (path, value) in &field.sets {
                        self.set(path, value.clone());
                    }
                }
                if let Some(to) = &field.to {
                    self.set(to, taken);
                }
            }
            Err(message) => self.faults.push(Fault::new(&field.name, message)),
        }
    }

    /// The value for our document; `None` where everything is done.
    fn taken(&mut self, field: &Field, value: &Value) -> Result<Option<Value>, String> {
        let text = || value.as_str().ok_or_else(|| "must be a text".to_owned());
        Ok(Some(match field.take {
            Take::Copy => value.clone(),
            Take::Literal => literal(value),
            Take::Must => {
                let known: Vec<String> = field.usual.iter().map(Value::to_string).collect();
                if !field.usual.contains(value) {
                    return Err(format!("must be {}", known.join(" or ")));
                }
                return Ok(None);
            }
            Take::Url => json!(with_scheme(text()?)),
            Take::Upper => json!(text()?.to_ascii_uppercase()),
            Take::Algorithm => {
                json!(text()?.to_ascii_lowercase().replace(['-', '_'], "").trim_start_matches("hmac"))
            }
            Take::Secret => json!([text()?]),
            Take::Member => json!(format!("/{}", text()?.replace('~', "~0").replace('/', "~1"))),
            Take::Retries => {
                let retries = value.as_u64().ok_or("must be a whole number, not negative")?;
                json!(retries.saturating_add(1))
            }
            Take::Headers => {
                let Value::Object(headers) = value else { return Err("must be an object".to_owned()) };
                let texts = headers.iter().map(|(name, value)| Some((name.clone(), json!(scalar(value)?))));
                let texts: Option<Map<String, Value>> = texts.collect();
                // Both spellings of the field may be given.
                let to = field.to.as_deref().unwrap_or_default();
                let mut all = at(&self.document, to).and_then(Value::as_object).cloned().unwrap_or_default();
                all.extend(texts.ok_or("must hold texts only")?);
                Value::Object(all)
            }
            Take::Ids => {
                let Value::Array(items) = value else { return Err("must be a list".to_owned()) };
                if items.is_empty() {
                    self.set("enabled", json!(false));
                    self.leave(
                        &field.name,
                        "is empty, so nothing is sent there: imported disabled".to_owned(),
                    );
                    return Ok(None);
                }
                let ids: Option<Vec<String>> = items.iter().map(last_segment).collect();
                json!(ids.ok_or("must hold URLs or ids")?)
            }
            Take::Events => return self.events(field, value).map(|()| None),
        }))
    }

    fn events(&mut self, field: &Field, value: &Value) -> Result<(), String> {
        let wanted: Vec<Value> = match value {
            Value::Array(items) => items.clone(),
            Value::String(text) => {
                text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(Value::from).collect()
            }
            other => vec![other.clone()],
        };
        if wanted.is_empty() {
            if field.required {
                return Err("must name at least one event".to_owned());
            }
            self.set("enabled", json!(false));
            self.leave(&field.name, "is empty, which ends all notices there: imported disabled".to_owned());
            return Ok(());
        }
        let (mut ordinary, mut interactive) = (Vec::new(), Vec::new());
        for (place, name) in wanted.iter().enumerate() {
            // A name alone stands for all actions of it.
            let is_meant = |vendor: &Value| {
                vendor == name
                    || matches!((vendor.as_str(), name.as_str()), (Some(vendor), Some(name))
                        if vendor.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
            };
            let meant: Vec<_> = self.preset.events.iter().filter(|event| is_meant(&event.vendor)).collect();
            if meant.is_empty() {
                let reason = format!("{name} is no event of {}", self.preset.title);
                self.leave(&format!("{}[{place}]", field.name), reason);
            }
            for event in meant {
                let list = if event.interactive { &mut interactive } else { &mut ordinary };
                list.extend(event.all_types().map(str::to_owned));
            }
        }
        if ordinary.is_empty() && interactive.is_empty() {
            let known: Vec<String> =
                self.preset.events.iter().map(|event| event.vendor.to_string()).collect();
            return Err(format!("names no event of {}; known are {}", self.preset.title, known.join(", ")));
        }
        for (list, to) in [(ordinary, "events"), (interactive, "interactive")] {
            let mut seen = BTreeSet::new();
            let list: Vec<String> = list.into_iter().filter(|kind| seen.insert(kind.clone())).collect();
            self.set(to, json!(list));
        }
        Ok(())
    }

    fn set(&mut self, path: &str, value: Value) {
        if let Some(name) = path.strip_prefix("signature.") {
            self.signature.insert(name.to_owned(), value);
            return;
        }
        if let Some(name) = path.strip_prefix("body.") {
            self.literals.insert(name.to_owned(), value);
            return;
        }
        let mut target = &mut self.document;
        for name in path.split('.') {
            target = &mut target[name];
        }
        *target = value;
    }

    fn leave(&mut self, field: &str, reason: String) {
        self.not_taken.push(NotTaken { field: field.to_owned(), reason });
    }

    /// Names everything of the object that no field of the preset is for.
    fn unknown(&mut self, path: &str, fields: &Map<String, Value>) {
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let known = &self.preset.import;
            if known.fields.iter().any(|field| field.name == path) {
                continue;
            }
            if known.record.iter().any(|record| record.name == path) {
                self.leave(&path, "is set by us".to_owned());
                continue;
            }
            let below = format!("{path}.");
            match value {
                Value::Object(inner) if known.fields.iter().any(|field| field.name.starts_with(&below)) => {
                    self.unknown(&path, inner);
                }
                _ => self.leave(&path, format!("is no field that preset `{}` knows", self.preset.name)),
            }
        }
    }

    fn finish(mut self, tenant: &Tenant) -> Result<Imported, Vec<Fault>> {
        self.document["tenant"] = json!(tenant.as_str());
        self.document["preset"] = json!(self.preset.name);
        // Without a secret the platform does not sign either.
        if self.signature.contains_key("secrets") {
            self.document["signatures"] = json!([self.signature]);
        } else {
            self.document["signatures"] = json!([]);
            if !self.signature.is_empty() {
                self.leave("secret", "is missing, so that nothing is signed".to_owned());
            }
        }
        if let (false, Some(body)) = (self.literals.is_empty(), &self.preset.subscription.request.body) {
            let members = Value::Object(std::mem::take(&mut self.literals)).to_string();
            let (start, rest) = (members.strip_suffix('}'), body.trim_start().strip_prefix('{'));
            let joined = format!("{},{}", start.unwrap_or_default(), rest.unwrap_or_default());
            self.document["request"]["body"] = json!(joined);
        }
        if !self.faults.is_empty() {
            return Err(self.all_faults());
        }
        let spec = SubscriptionSpec::read(self.document)?;
        Ok(Imported { spec, not_taken: self.not_taken })
    }
}

impl Import<'_> {
    /// The faults that were found, and what else would be found once they are repaired: of fields that are given and
    /// have none yet.
    fn all_faults(self) -> Vec<Fault> {
        let mut faults = self.faults;
        let id = SubscriptionId::parse("sub_").map(|id| (id, "1970-01-01T00:00:00Z"));
        let Ok((id, now)) = id else { return faults };
        let made = SubscriptionSpec::make(self.document, id, now, [0; 32]);
        for fault in made.err().unwrap_or_default() {
            let Some(field) = their_field(self.preset, self.object, &fault.field) else { continue };
            let is_within = |known: &Fault| {
                let rest = field.strip_prefix(known.field.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            };
            if at(self.object, &field).is_some() && !faults.iter().any(is_within) {
                faults.push(Fault { field, ..fault });
            }
        }
        faults
    }
}

fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The id at the end of a URL, or the id.
fn last_segment(value: &Value) -> Option<String> {
    let text = scalar(value)?;
    text.trim_end_matches('/').rsplit('/').next().filter(|id| !id.is_empty()).map(str::to_owned)
}

/// The same value inside a template, where a text that looks like a place is none.
fn literal(value: &Value) -> Value {
    match value {
        Value::String(text) if text.starts_with('{') => json!(format!("{{{text}")),
        Value::Array(items) => Value::Array(items.iter().map(literal).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), literal(value))).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
