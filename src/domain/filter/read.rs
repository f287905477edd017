//! From a filter's document to a filter, with every fault listed at once.

use serde_json::{Map, Value};

use super::{Condition, Decimal, Filter, Literal, Test};
use crate::domain::fault::Fault;
use crate::domain::pointer::{Pointer, PointerSet};

/// Conditions of one filter, those that combine others included.
const CONDITIONS_MAX: usize = 64;
/// How deep conditions may stand in each other.
const DEPTH_MAX: usize = 8;
const VALUES_MAX: usize = 100;
const TEXT_BYTES_MAX: usize = 1024;
const POINTER_BYTES_MAX: usize = 1024;

const COMBINING: [&str; 3] = ["all", "any", "not"];
const TESTS: [&str; 4] = ["equals", "in", "exists", "prefix"];

impl Filter {
    /// Reads a filter, such as `{"pointer": "/data/status", "in": ["done", "failed"]}`.
    ///
    /// # Errors
    /// Every fault; their fields begin below the filter itself.
    pub fn read(document: &Value) -> Result<Filter, Vec<Fault>> {
        let mut reader = Reader { pointers: PointerSet::default(), conditions: 0, faults: Vec::new() };
        let condition = reader.condition("", document, 1);
        if reader.conditions > CONDITIONS_MAX {
            reader.fault("", format!("holds {} conditions; at most {CONDITIONS_MAX}", reader.conditions));
        }
        match condition {
            Some(condition) if reader.faults.is_empty() => {
                Ok(Filter { pointers: reader.pointers, condition })
            }
            _ => Err(reader.faults),
        }
    }
}

struct Reader {
    pointers: PointerSet,
    conditions: usize,
    faults: Vec<Fault>,
}

impl Reader {
    fn fault(&mut self, path: &str, message: impl Into<String>) {
        self.faults.push(Fault::new(path, message));
    }

    fn hinted(&mut self, path: &str, message: impl Into<String>, hint: &str) -> Option<Condition> {
        self.faults.push(Fault::new(path, message).hint(hint));
        None
    }

    /// `None` after a fault was told.
    fn condition(&mut self, path: &str, value: &Value, depth: usize) -> Option<Condition> {
        const FORMS: &str = "write `{\"pointer\": \"/data/…\", \"equals\": …}` (or `in`, `exists`, `prefix`), or combine such \
             conditions by `all`, `any` or `not`";
        self.conditions += 1;
        if depth > DEPTH_MAX {
            self.fault(path, format!("stands deeper than {DEPTH_MAX} conditions"));
            return None;
        }
        let Value::Object(fields) = value else {
            return self.hinted(path, "must be an object", FORMS);
        };
        let unknown = |name: &&String| {
            *name != "pointer" && !COMBINING.contains(&name.as_str()) && !TESTS.contains(&name.as_str())
        };
        let unknown: Vec<&String> = fields.keys().filter(unknown).collect();
        for name in &unknown {
            self.faults.push(Fault::new(under(path, name), "is unknown").hint(FORMS));
        }
        let given = |names: &[&'static str]| -> Vec<&'static str> {
            names.iter().copied().filter(|name| fields.contains_key(*name)).collect()
        };
        let (combining, tests) = (given(&COMBINING), given(&TESTS));
        match (combining.as_slice(), tests.as_slice(), fields.get("pointer")) {
            ([name], [], None) => self.combined(path, name, &fields[*name], depth),
            ([], [name], Some(pointer)) => self.test(path, name, pointer, fields),
            ([], [name], None) => {
                self.fault(&under(path, "pointer"), format!("is missing: `{name}` needs it"));
                None
            }
            ([], [], _) if !unknown.is_empty() => None,
            ([], [], Some(_)) => self.hinted(path, "says nothing of what its `pointer` names", FORMS),
            ([], [], None) => self.hinted(path, "is empty", FORMS),
            _ => {
                let mut names = combining;
                names.extend(tests);
                names.extend(fields.contains_key("pointer").then_some("pointer"));
                let names = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                self.hinted(
                    path,
                    format!("is several conditions in one: {names}"),
                    "list them in `all` or `any`",
                )
            }
        }
    }

    fn combined(&mut self, path: &str, name: &str, value: &Value, depth: usize) -> Option<Condition> {
        let path = under(path, name);
        if name == "not" {
            return self
                .condition(&path, value, depth + 1)
                .map(|condition| Condition::Not(Box::new(condition)));
        }
        let Some(list) = value.as_array().filter(|list| !list.is_empty()) else {
            self.fault(&path, "must be a list of at least one condition");
            return None;
        };
        let mut conditions = Vec::new();
        for (index, value) in list.iter().enumerate() {
            conditions.extend(self.condition(&format!("{path}[{index}]"), value, depth + 1));
        }
        Some(if name == "all" { Condition::All(conditions) } else { Condition::Any(conditions) })
    }

    fn test(
        &mut self,
        path: &str,
        name: &str,
        pointer: &Value,
        fields: &Map<String, Value>,
    ) -> Option<Condition> {
        let place = self.pointer(&under(path, "pointer"), pointer);
        let (path, value) = (under(path, name), &fields[name]);
        let test = match name {
            "exists" => match value.as_bool() {
                Some(wanted) => Some(Test::Exists(wanted)),
                None => self.no_test(&path, "must be `true` or `false`"),
            },
            "prefix" => match value.as_str() {
                Some(text) if text.len() <= TEXT_BYTES_MAX => Some(Test::Prefix(text.to_owned())),
                Some(_) => self.no_test(&path, &format!("is longer than {TEXT_BYTES_MAX} bytes")),
                None => self.no_test(&path, "must be a text"),
            },
            "in" => match value.as_array().map(Vec::as_slice) {
                Some(values @ [_, ..]) if values.len() <= VALUES_MAX => {
                    let literals = values.iter().enumerate();
                    let literals: Vec<Option<Literal>> = literals
                        .map(|(index, value)| self.literal(&format!("{path}[{index}]"), value))
                        .collect();
                    literals.into_iter().collect::<Option<Vec<_>>>().map(Test::In)
                }
                _ => self.no_test(&path, &format!("must be a list of 1 to {VALUES_MAX} values")),
            },
            _ => self.literal(&path, value).map(|literal| Test::In(vec![literal])),
        };
        Some(Condition::Is(place?, test?))
    }

    fn no_test(&mut self, path: &str, message: &str) -> Option<Test> {
        self.fault(path, message);
        None
    }

    fn pointer(&mut self, path: &str, value: &Value) -> Option<usize> {
        let Some(text) = value.as_str() else {
            self.fault(path, "must be a text");
            return None;
        };
        if text.len() > POINTER_BYTES_MAX {
            self.fault(path, format!("is longer than {POINTER_BYTES_MAX} bytes"));
            return None;
        }
        let pointer = match Pointer::parse(text) {
            Ok(pointer) => pointer,
            Err(fault) => {
                self.faults
                    .push(Fault::new(path, format!("is no pointer: {fault}")).hint("write `/data/status`"));
                return None;
            }
        };
        let below = pointer.below("data");
        if below.is_none() {
            let hint = "it starts at the event: write `/data/status`; types are chosen by `events`, scopes by `scope`";
            self.faults.push(Fault::new(path, "does not begin with `/data`").hint(hint));
        }
        below.map(|pointer| self.pointers.add(pointer))
    }

    fn literal(&mut self, path: &str, value: &Value) -> Option<Literal> {
        match value {
            Value::Null => Some(Literal::Null),
            Value::Bool(true) => Some(Literal::True),
            Value::Bool(false) => Some(Literal::False),
            Value::String(text) if text.len() > TEXT_BYTES_MAX => {
                self.fault(path, format!("is longer than {TEXT_BYTES_MAX} bytes"));
                None
            }
            Value::String(text) => Some(Literal::Text(text.clone())),
            // A larger one was rounded when the document was read, and would equal what nobody wrote.
            Value::Number(number)
                if number.is_f64() && number.as_f64().is_some_and(|number| number.abs() >= 1e15) =>
            {
                self.fault(path, "is a number too long to be compared exactly");
                None
            }
            Value::Number(number) => Decimal::parse(&number.to_string()).map(Literal::Number),
            Value::Array(_) | Value::Object(_) => {
                let fault = Fault::new(path, "must be a text, a number, `true`, `false` or `null`");
                self.faults.push(
                    fault.hint("objects and arrays are not compared: name a value inside by its pointer"),
                );
                None
            }
        }
    }
}

fn under(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn faults(filter: Value) -> Vec<String> {
        Filter::read(&filter).unwrap_err().iter().map(Fault::to_string).collect()
    }

    #[test]
    fn every_fault_is_listed_at_once() {
        let filter = json!({ "all": [
            { "pointer": "/status", "equals": 1 },
            { "pointer": "data", "equal": 1 },
            { "pointer": "/data/a", "in": [], "exists": true },
            { "any": [{ "pointer": "/data/a", "prefix": 7 }, { "equals": 1 }, 3, {}] },
            { "not": { "pointer": "/data/~x", "equals": { "a": 1 } } },
            { "pointer": "/data/a", "in": [1, [2], 1e300] },
        ]});
        assert_eq!(
            faults(filter),
            [
                "`all[0].pointer` does not begin with `/data`",
                "`all[1].equal` is unknown",
                "`all[2]` is several conditions in one: `in`, `exists`, `pointer`",
                "`all[3].any[0].prefix` must be a text",
                "`all[3].any[1].pointer` is missing: `equals` needs it",
                "`all[3].any[2]` must be an object",
                "`all[3].any[3]` is empty",
                "`all[4].not.pointer` is no pointer: in a JSON Pointer `~` stands only in `~0` (for `~`) and `~1` (for `/`)",
                "`all[4].not.equals` must be a text, a number, `true`, `false` or `null`",
                "`all[5].in[1]` must be a text, a number, `true`, `false` or `null`",
                "`all[5].in[2]` is a number too long to be compared exactly",
            ]
        );
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let leaf = json!({ "pointer": "/data/a", "exists": true });
        let nested = |depth: usize| (1..depth).fold(leaf.clone(), |inner, _| json!({ "not": inner }));
        assert!(Filter::read(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(faults(nested(DEPTH_MAX + 1)).len(), 1);
        let wide = |count: usize| json!({ "any": vec![leaf.clone(); count] });
        assert!(Filter::read(&wide(CONDITIONS_MAX - 1)).is_ok());
        assert_eq!(faults(wide(CONDITIONS_MAX)), ["holds 65 conditions; at most 64"]);
        let values = |count: usize| json!({ "pointer": "/data/a", "in": vec![1; count] });
        assert!(Filter::read(&values(VALUES_MAX)).is_ok());
        assert_eq!(faults(values(VALUES_MAX + 1)).len(), 1);
        assert_eq!(faults(json!({ "pointer": "/data/a", "equals": "x".repeat(1025) })).len(), 1);
    }

    proptest! {
        #[test]
        fn no_document_panics(text in r#"[{}\[\]":,a-z/0-9]{0,40}"#) {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                let _ = Filter::read(&value);
            }
        }
    }
}
