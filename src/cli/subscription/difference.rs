//! What changes from one document to the next, field by field, with no secret in it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::domain::subscription::SubscriptionSpec;

/// Times are ours and change with every change.
const OURS: [&str; 2] = ["created_at", "updated_at"];

/// One field that differs, as it may be shown.
#[derive(Debug, PartialEq)]
pub(super) struct Change {
    /// Its path, such as `request.timeout_s`.
    field: String,
    before: Option<Value>,
    after: Option<Value>,
}

impl Change {
    /// Every field that differs between two documents of one subscription.
    pub(super) fn between(before: &SubscriptionSpec, after: &SubscriptionSpec) -> Vec<Change> {
        let (old, new) = (fields(before), fields(after));
        let (old_shown, new_shown) = (fields(&before.masked()), fields(&after.masked()));
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let differing = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
        differing
            .map(|name| Change {
                field: name.clone(),
                before: old_shown.get(name).cloned(),
                after: new_shown.get(name).cloned(),
            })
            .collect()
    }

    pub(super) fn json(&self) -> Value {
        json!({ "field": self.field, "before": self.before, "after": self.after })
    }
}

/// `request.timeout_s: 30 → 20`.
impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |value: &Option<Value>| value.as_ref().map_or("(absent)".to_owned(), Value::to_string);
        write!(f, "{}: {} → {}", self.field, text(&self.before), text(&self.after))?;
        if self.before == self.after { f.write_str(" (another secret)") } else { Ok(()) }
    }
}

/// Every leaf of a document with its path. A list of plain values is one leaf.
fn fields(spec: &SubscriptionSpec) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    if let Ok(Value::Object(members)) = serde_json::to_value(spec) {
        for (name, value) in members.into_iter().filter(|(name, _)| !OURS.contains(&name.as_str())) {
            collect(name, value, &mut leaves);
        }
    }
    leaves
}

fn collect(path: String, value: Value, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, value) in members {
                collect(format!("{path}.{name}"), value, leaves);
            }
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            for (index, item) in items.into_iter().enumerate() {
                collect(format!("{path}[{index}]"), item, leaves);
            }
        }
        leaf => drop(leaves.insert(path, leaf)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(document: Value) -> SubscriptionSpec {
        SubscriptionSpec::read(document).unwrap()
    }

    #[test]
    fn each_field_that_differs_is_told_and_no_secret() {
        let before = spec(json!({
            "name": "ERP", "events": ["a", "b"], "updated_at": "2026-11-22T09:00:07Z",
            "request": { "url": "https://u:canary@h.example/x", "headers": { "X-Key": "canary" }, "timeout_s": 30 },
            "signatures": [{ "scheme": "standard", "secrets": ["canary"] }],
            "filter": { "all": [{ "pointer": "/data/a", "equals": 1 }] },
        }));
        let after = spec(json!({
            "events": ["a"], "updated_at": "2026-11-23T09:00:07Z",
            "request": { "url": "https://h.example/y", "headers": { "X-Key": "canary2" }, "timeout_s": 30 },
            "signatures": [{ "scheme": "standard", "secrets": ["canary3"] }],
            "filter": { "all": [{ "pointer": "/data/a", "equals": 2 }] },
        }));
        let told: Vec<String> = Change::between(&before, &after).iter().map(Change::to_string).collect();
        assert_eq!(
            told,
            [
                r#"events: ["a","b"] → ["a"]"#,
                "filter.all[0].equals: 1 → 2",
                r#"name: "ERP" → (absent)"#,
                r#"request.headers.X-Key: "***" → "***" (another secret)"#,
                r#"request.url: "https://h.example/x" → "https://h.example/y""#,
                r#"signatures[0].secrets: ["***"] → ["***"] (another secret)"#,
            ]
        );
        assert_eq!(Change::between(&before, &before), []);
    }
}
