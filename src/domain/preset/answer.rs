//! What a platform answers to its own configuration object: the object, with its record's fields and without secrets.

use serde_json::{Map, Value, json};

use super::Preset;
use super::fields::Take;
use super::import::at;
use crate::domain::secret::MASK;
use crate::domain::spec::SubscriptionSpec;

/// The object as the platform shows it back. `spec` is the complete document that was made of it.
pub fn answer(preset: &Preset, object: &Value, spec: &SubscriptionSpec) -> Value {
    let document = serde_json::to_value(spec.masked()).unwrap_or_default();
    let mut shown = json!({});
    for record in &preset.import.record {
        shown[&record.name] = at(&document, &record.from).cloned().unwrap_or(Value::Null);
    }
    for field in preset.import.fields.iter().filter(|field| !field.write_only) {
        let value = at(object, &field.name);
        let value = match (field.take, value) {
            (Take::Secret, _) => continue,
            (Take::Headers, Some(Value::Object(headers))) => {
                Value::Object(headers.iter().map(masked).collect::<Map<_, _>>())
            }
            (Take::Url, Some(_)) => {
                at(&document, field.to.as_deref().unwrap_or_default()).cloned().unwrap_or(Value::Null)
            }
            (_, Some(value)) => value.clone(),
            // What is inside another object is shown where that was given.
            (_, None) if field.name.contains('.') => continue,
            (_, None) => Value::Null,
        };
        let mut target = &mut shown;
        for name in field.name.split('.') {
            target = &mut target[name];
        }
        *target = value;
    }
    shown
}

fn masked((name, value): (&String, &Value)) -> (String, Value) {
    let shown = if name.eq_ignore_ascii_case("content-type") { value.clone() } else { json!(MASK) };
    (name.clone(), shown)
}
