//! From a JSON value to the document, with every unknown field and wrong type listed at once.
//!
//! A derived reader stops at the first fault and repeats the value it did not like, which may be a secret.
//! So every member is tried alone first, and only what was expected is passed on.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{AuthSpec, RequestSpec, RetiringSpec, RetrySpec, SignatureSpec, SubscriptionSpec};
use crate::domain::fault::Fault;

impl SubscriptionSpec {
    /// Reads a document; `null` is as good as absent.
    ///
    /// # Errors
    /// Every field that is unknown or has a wrong type. What the fields mean is for
    /// [`SubscriptionSpec::check`].
    pub fn read(mut document: Value) -> Result<SubscriptionSpec, Vec<Fault>> {
        drop_nulls(&mut document);
        let mut faults = Vec::new();
        let Value::Object(fields) = &document else {
            return Err(vec![Fault::new("", "a subscription must be an object")]);
        };
        for (name, value) in fields {
            match name.as_str() {
                "request" => read_section::<RequestSpec>(name, value, &mut faults),
                "auth" => read_section::<AuthSpec>(name, value, &mut faults),
                "retry" => read_section::<RetrySpec>(name, value, &mut faults),
                "signatures" => read_signatures(value, &mut faults),
                _ => read_member::<SubscriptionSpec>("", name, value, &mut faults),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        serde_json::from_value(document).map_err(|error| vec![explain("", &error)])
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

fn read_signatures(value: &Value, faults: &mut Vec<Fault>) {
    let Value::Array(signatures) = value else {
        faults.push(Fault::new("signatures", "must be a list"));
        return;
    };
    for (index, signature) in signatures.iter().enumerate() {
        let path = format!("signatures[{index}]");
        let Value::Object(fields) = signature else {
            faults.push(Fault::new(path, "must be an object"));
            continue;
        };
        for (name, value) in fields {
            match value {
                Value::Array(entries) if name == "retiring" => {
                    for (index, entry) in entries.iter().enumerate() {
                        read_section::<RetiringSpec>(&format!("{path}.retiring[{index}]"), entry, faults);
                    }
                }
                _ => read_member::<SignatureSpec>(&path, name, value, faults),
            }
        }
    }
}

fn read_section<T: DeserializeOwned>(path: &str, section: &Value, faults: &mut Vec<Fault>) {
    match section {
        Value::Object(fields) => {
            for (name, value) in fields {
                read_member::<T>(path, name, value, faults);
            }
        }
        _ => faults.push(Fault::new(path, "must be an object")),
    }
}

/// Tries one member of `T` alone, and of a list or an object one element at a time.
fn read_member<T: DeserializeOwned>(path: &str, name: &str, value: &Value, faults: &mut Vec<Fault>) {
    let field = Fault::new(name, "").under(path).field.trim_start_matches('.').to_owned();
    let mut read = |field: String, value: Value| {
        let member = Value::Object(Map::from_iter([(name.to_owned(), value)]));
        let read = serde_json::from_value::<T>(member);
        faults.extend(read.err().map(|error| explain(&field, &error)));
    };
    match value {
        Value::Array(items) if is_member::<T>(name, Value::Array(Vec::new())) => {
            for (index, item) in items.iter().enumerate() {
                read(format!("{field}[{index}]"), Value::Array(vec![item.clone()]));
            }
        }
        Value::Object(entries) if is_member::<T>(name, Value::Object(Map::new())) => {
            for (key, entry) in entries {
                read(format!("{field}.{key}"), Value::Object(Map::from_iter([(key.clone(), entry.clone())])));
            }
        }
        _ => read(field, value.clone()),
    }
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
