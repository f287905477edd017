//! From a JSON value to the document, with every unknown field and wrong type listed at once.
//!
//! A derived reader stops at the first fault and repeats the value it did not like, which may be a secret.
//! So every member is tried alone first, and what was not expected is replaced before the whole is read: what
//! the other members mean can then be checked in the same round.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::unread::Unread;
use super::{AuthSpec, RequestSpec, RetiringSpec, RetrySpec, SignatureSpec, SubscriptionSpec};
use crate::domain::fault::Fault;

impl SubscriptionSpec {
    /// Reads a document; `null` is as good as absent.
    ///
    /// # Errors
    /// Every field that is unknown or has a wrong type. What the fields mean is for
    /// [`SubscriptionSpec::check`]; [`SubscriptionSpec::make`] tells both together.
    pub fn read(document: Value) -> Result<SubscriptionSpec, Vec<Fault>> {
        let (spec, unread) = SubscriptionSpec::read_what_is_good(document);
        unread.with(Vec::new()).map(|()| spec)
    }

    /// What can be read of a document, and what cannot. That has a stand-in in the document, never a good value, so
    /// that neither places in lists nor choices between fields shift.
    pub(super) fn read_what_is_good(mut document: Value) -> (SubscriptionSpec, Unread) {
        drop_nulls(&mut document);
        let mut faults = Vec::new();
        let Value::Object(fields) = document else {
            let fault = Fault::new("", "a subscription must be an object");
            return (SubscriptionSpec::default(), Unread::of(vec![fault]));
        };
        let mut good = Map::new();
        for (name, value) in fields {
            let value = match name.as_str() {
                "request" => read_section::<RequestSpec>(&name, value, &mut faults),
                "auth" => read_section::<AuthSpec>(&name, value, &mut faults),
                "retry" => read_section::<RetrySpec>(&name, value, &mut faults),
                "signatures" => read_signatures(value, &mut faults),
                _ => read_member::<SubscriptionSpec>("", &name, value, &mut faults),
            };
            good.extend(value.map(|value| (name, value)));
        }
        let spec = serde_json::from_value(Value::Object(good));
        let spec = spec.unwrap_or_else(|error| {
            faults.push(explain("", &error));
            SubscriptionSpec::default()
        });
        (spec, Unread::of(faults))
    }
}

/// Drops the members that are `null` from the document and its sections, not from what is the subscriber's own.
fn drop_nulls(document: &mut Value) {
    let drop_from = |value: &mut Value| {
        if let Value::Object(fields) = value {
            fields.retain(|_, value| !value.is_null());
        }
    };
    drop_from(document);
    let Value::Object(fields) = document else { return };
    for name in ["request", "auth", "retry"] {
        fields.get_mut(name).into_iter().for_each(drop_from);
    }
    if let Some(Value::Array(signatures)) = fields.get_mut("signatures") {
        signatures.iter_mut().for_each(drop_from);
    }
}

fn read_signatures(value: Value, faults: &mut Vec<Fault>) -> Option<Value> {
    let Value::Array(signatures) = value else {
        faults.push(Fault::new("signatures", "must be a list"));
        return None;
    };
    let good = signatures.into_iter().enumerate().map(|(index, signature)| {
        let path = format!("signatures[{index}]");
        let Value::Object(fields) = signature else {
            faults.push(Fault::new(path, "must be an object"));
            return json!({});
        };
        let mut good = Map::new();
        for (name, value) in fields {
            let value = match value {
                Value::Array(entries) if name == "retiring" => {
                    let entries = entries.into_iter().enumerate().map(|(index, entry)| {
                        let path = format!("{path}.retiring[{index}]");
                        read_section::<RetiringSpec>(&path, entry, faults).unwrap_or_else(|| json!({}))
                    });
                    Some(Value::Array(entries.collect()))
                }
                value => read_member::<SignatureSpec>(&path, &name, value, faults),
            };
            good.extend(value.map(|value| (name, value)));
        }
        Value::Object(good)
    });
    Some(Value::Array(good.collect()))
}

fn read_section<T: DeserializeOwned>(path: &str, section: Value, faults: &mut Vec<Fault>) -> Option<Value> {
    let Value::Object(fields) = section else {
        faults.push(Fault::new(path, "must be an object"));
        return None;
    };
    let mut good = Map::new();
    for (name, value) in fields {
        let value = read_member::<T>(path, &name, value, faults);
        good.extend(value.map(|value| (name, value)));
    }
    Some(Value::Object(good))
}

/// Tries one member of `T` alone, and of a list or an object one element at a time. Gives back what can be read, with
/// stand-ins for the rest; nothing where there is none.
fn read_member<T: DeserializeOwned>(
    path: &str,
    name: &str,
    value: Value,
    faults: &mut Vec<Fault>,
) -> Option<Value> {
    let field = Fault::new(name, "").under(path).field.trim_start_matches('.').to_owned();
    // `around` puts an element back into the list or object it is of.
    let mut read = |field: String, value: Value, around: &dyn Fn(Value) -> Value| {
        let member = Value::Object(Map::from_iter([(name.to_owned(), around(value.clone()))]));
        let Err(error) = serde_json::from_value::<T>(member) else { return Some(value) };
        faults.push(explain(&field, &error));
        stand_ins().into_iter().find(|value| is_member::<T>(name, around(value.clone())))
    };
    match value {
        Value::Array(items) if is_member::<T>(name, json!([])) => {
            let around = |item| Value::Array(vec![item]);
            let items = items.into_iter().enumerate();
            let good = items.filter_map(|(index, item)| read(format!("{field}[{index}]"), item, &around));
            Some(Value::Array(good.collect()))
        }
        Value::Object(entries) if is_member::<T>(name, json!({})) => {
            let good = entries.into_iter().filter_map(|(key, entry)| {
                let around = |entry| Value::Object(Map::from_iter([(key.clone(), entry)]));
                Some((key.clone(), read(format!("{field}.{key}"), entry, &around)?))
            });
            Some(Value::Object(good.collect()))
        }
        value => read(field, value, &|value| value),
    }
}

/// What can stand where a value cannot be read. A text is empty, which is no choice of any field; a number is one,
/// which no rule on several numbers together finds too large.
fn stand_ins() -> [Value; 4] {
    [json!(""), json!(1), json!([]), json!({})]
}

fn is_member<T: DeserializeOwned>(name: &str, value: Value) -> bool {
    serde_json::from_value::<T>(Value::Object(Map::from_iter([(name.to_owned(), value)]))).is_ok()
}

/// Keeps what was expected of a reader's message and drops what was found.
fn explain(field: &str, error: &serde_json::Error) -> Fault {
    let text = error.to_string();
    let expected = text.rsplit_once(", expected ").map_or("something else", |(_, expected)| expected);
    if text.starts_with("unknown field") {
        let known = expected.trim_start_matches("one of ");
        return Fault::new(field, "is not a known field").hint(format!("known are {known}"));
    }
    let expected = match expected {
        "u32" => "a whole number, not negative",
        "f64" => "a number",
        "a sequence" => "a list",
        "a map" => "an object",
        other => other,
    };
    Fault::new(field, format!("must be {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(document: Value) -> Vec<String> {
        SubscriptionSpec::read(document).unwrap_err().iter().map(Fault::to_string).collect()
    }

    #[test]
    fn every_unknown_field_and_wrong_type_is_listed_at_once() {
        let document = json!({
            "tenant": 7,
            "evnts": ["#"],
            "events": ["#", 1, null],
            "scope": {"inbox": "i7", "queue": ["1", 2]},
            "enabled": "yes",
            "disabled_by": "somebody",
            "request": {"url": 1, "uri": "x", "timeout_s": -1, "headers": {"X-A": "a", "X-B": 2}},
            "auth": "none",
            "signatures": [{"scheme": "standard", "secrets": "s"}, 1],
            "retry": {"base": "2", "jitter": "a", "delays_s": [1, 1.5]},
        });
        let mut expected = [
            "`tenant` must be a string",
            "`evnts` is not a known field",
            "`events[1]` must be a string",
            "`events[2]` must be a string",
            "`scope.inbox` must be a list",
            "`scope.queue` must be a string",
            "`enabled` must be a boolean",
            "`disabled_by` must be `person` or `paperboy`",
            "`request.url` must be a string",
            "`request.uri` is not a known field",
            "`request.timeout_s` must be a whole number, not negative",
            "`request.headers.X-B` must be a string",
            "`auth` must be an object",
            "`signatures[0].secrets` must be a list",
            "`signatures[1]` must be an object",
            "`retry.base` must be a whole number, not negative",
            "`retry.jitter` must be a number",
            "`retry.delays_s[1]` must be a whole number, not negative",
        ];
        let mut found = faults(document);
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn an_unknown_field_is_answered_with_the_known_ones() {
        let faults = SubscriptionSpec::read(json!({"request": {"uri": "x"}})).unwrap_err();
        assert!(faults[0].hint.as_ref().unwrap().starts_with("known are `method`, `url`, "), "{faults:?}");
    }

    #[test]
    fn a_fault_never_repeats_a_value() {
        let document = json!({
            "auth": {"kind": "bearer", "token": ["canary"], "password": {"a": "canary"}},
            "signatures": [{"scheme": "standard", "secrets": "canary"}],
            "disabled_by": "canary",
        });
        let shown = format!("{:?}", SubscriptionSpec::read(document).unwrap_err());
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn null_is_as_good_as_absent() {
        let document = json!({
            "filter": null, "preset": null, "interactive": null, "signatures": null, "retry": {"base": null},
            "request": {"headers": null, "body": null}, "metadata": {"kept": null},
        });
        let spec = SubscriptionSpec::read(document).unwrap();
        assert_eq!((spec.filter, spec.signatures), (None, None));
        assert_eq!(spec.metadata["kept"], Value::Null);
    }

    #[test]
    fn a_document_is_an_object() {
        for document in [json!(null), json!([]), json!("x")] {
            assert_eq!(faults(document), ["a subscription must be an object"]);
        }
    }
}
