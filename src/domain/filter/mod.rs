//! A condition on an event's payload, which narrows what a subscription wants.
//!
//! It names values by JSON Pointers (RFC 6901) from the event's top, all of them below `/data`, and is evaluated over
//! the producer's bytes: one walk finds what all of its pointers name, and no tree of the document is built.
//!
//! What compares: texts by their characters, without normalising; numbers by their decimal value, whatever their
//! length (1, 1.0 and 1e0 are one number); `true`, `false` and `null` by themselves. Nothing else is ever equal, in
//! particular no object, no array, and no text that holds half a surrogate pair. A value that is not there fulfils
//! only `exists: false` and what is in a `not`; `null` is there. Of a member that an object holds twice the last
//! counts.

mod number;
mod read;

use serde_json::value::RawValue;

use self::number::Decimal;
use crate::domain::pointer::{self, PointerSet, Scalar};

/// A checked filter; [`Filter::read`] makes one of its document.
#[derive(Clone, Debug)]
pub struct Filter {
    pointers: PointerSet,
    condition: Condition,
}

#[derive(Clone, Debug)]
enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    /// The value of the pointer at this place passes the test.
    Is(usize, Test),
}

#[derive(Clone, Debug)]
enum Test {
    /// Equal to one of these.
    In(Vec<Literal>),
    Exists(bool),
    Prefix(String),
}

/// A value as it is compared.
#[derive(Clone, Debug, PartialEq)]
enum Literal {
    Null,
    True,
    False,
    Number(Decimal),
    Text(String),
}

impl Filter {
    /// Whether an event with this `data` is wanted; `None` is an event without any.
    pub fn accepts(&self, data: Option<&RawValue>) -> bool {
        let found = match data {
            Some(data) => self.pointers.find(data),
            None => vec![None; self.pointers.len()],
        };
        self.condition.holds(&found)
    }
}

impl Condition {
    fn holds(&self, found: &[Option<&RawValue>]) -> bool {
        match self {
            Condition::All(conditions) => conditions.iter().all(|condition| condition.holds(found)),
            Condition::Any(conditions) => conditions.iter().any(|condition| condition.holds(found)),
            Condition::Not(condition) => !condition.holds(found),
            Condition::Is(place, test) => test.passes(found[*place]),
        }
    }
}

impl Test {
    fn passes(&self, value: Option<&RawValue>) -> bool {
        match (self, value) {
            (Test::Exists(wanted), value) => value.is_some() == *wanted,
            (_, None) => false,
            (Test::In(literals), Some(value)) => literals.iter().any(|literal| literal.equals(value)),
            (Test::Prefix(prefix), Some(value)) => text(value).is_some_and(|text| text.starts_with(prefix)),
        }
    }
}

impl Literal {
    fn equals(&self, value: &RawValue) -> bool {
        match self {
            Literal::Null => value.get() == "null",
            Literal::True => value.get() == "true",
            Literal::False => value.get() == "false",
            Literal::Number(number) => Decimal::parse(value.get()).is_some_and(|value| value == *number),
            Literal::Text(wanted) => text(value).is_some_and(|text| text == *wanted),
        }
    }
}

/// The characters of a text; `None` for everything else.
fn text(value: &RawValue) -> Option<std::borrow::Cow<'_, str>> {
    if !value.get().starts_with('"') {
        return None;
    }
    match pointer::scalar(value) {
        Scalar::Text(text) => Some(text),
        Scalar::Null | Scalar::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::pointer::set::tests::documents;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn accepts(filter: &Value, data: &str) -> bool {
        let data: Box<RawValue> = serde_json::from_str(data).unwrap();
        Filter::read(filter).unwrap().accepts(Some(&data))
    }

    fn is(test: &str, value: Value) -> Value {
        json!({ "pointer": "/data/a", test: value })
    }

    #[test]
    fn each_condition_means_what_it_says() {
        for (filter, data, expected) in [
            (is("equals", json!("done")), r#"{"a": "d\u006fne"}"#, true),
            (is("equals", json!("done")), r#"{"a": "Done"}"#, false),
            (is("in", json!(["x", 2, null])), r#"{"a": 2}"#, true),
            (is("in", json!(["x", 2, null])), r#"{"a": "2"}"#, false),
            (is("in", json!(["x", 2, null])), r#"{"a": null}"#, true),
            (is("exists", json!(true)), r#"{"a": null}"#, true),
            (is("exists", json!(true)), r#"{"b": 1}"#, false),
            (is("exists", json!(false)), r#"{"b": 1}"#, true),
            (is("exists", json!(true)), r#"{"a": {}}"#, true),
            (is("prefix", json!("inv-")), r#"{"a": "inv-7"}"#, true),
            (is("prefix", json!("inv-")), r#"{"a": "in"}"#, false),
            (is("prefix", json!("1")), r#"{"a": 12}"#, false),
            (is("prefix", json!("")), r#"{"a": "x"}"#, true),
            (json!({ "pointer": "/data", "exists": true }), "null", true),
            (json!({ "pointer": "/data", "equals": 7 }), "7.0", true),
            (json!({ "pointer": "/data/0/x~1y", "equals": true }), r#"[{"x/y": true}]"#, true),
        ] {
            assert_eq!(accepts(&filter, data), expected, "{filter} of {data}");
        }
    }

    #[test]
    fn a_value_that_is_not_there_equals_nothing() {
        for test in [is("equals", json!(null)), is("in", json!([null, ""])), is("prefix", json!(""))] {
            assert!(!accepts(&test, "{}"), "{test}");
            assert!(accepts(&json!({ "not": test }), "{}"), "{test}");
            assert!(!Filter::read(&test).unwrap().accepts(None), "{test}");
        }
        assert!(Filter::read(&is("exists", json!(false))).unwrap().accepts(None));
    }

    #[test]
    fn numbers_are_compared_by_their_value() {
        for (wanted, written) in
            [("1", "1.0"), ("1", "10e-1"), ("1.5", "15E-1"), ("0", "-0.00"), ("100", "1e+2"), ("-2", "-2.0")]
        {
            let wanted: Value = serde_json::from_str(wanted).unwrap();
            assert!(accepts(&is("equals", wanted.clone()), &format!("{{\"a\": {written}}}")), "{written}");
        }
        assert!(!accepts(&is("equals", json!(1)), r#"{"a": 1.0000000000000000000000001}"#));
        assert!(!accepts(&is("equals", json!(1)), r#"{"a": true}"#));
        assert!(!accepts(&is("equals", json!(9_007_199_254_740_993_i64)), r#"{"a": 9007199254740992}"#));
    }

    #[test]
    fn odd_values_fit_nothing_and_break_nothing() {
        let wanted = is("equals", json!("x"));
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(5_000), "]".repeat(5_000));
        for data in
            [r#"{"a": "\ud800"}"#, r#"{"a": 1e99999999999999999999}"#, r#"{"a": [1]}"#, &deep, "3", "[]"]
        {
            assert!(!accepts(&wanted, data));
            assert!(!accepts(&is("equals", json!(0)), data));
        }
    }

    #[test]
    fn conditions_combine() {
        let both = json!({ "all": [is("exists", json!(true)), { "not": is("equals", json!("test")) }] });
        let one = json!({ "any": [both, { "pointer": "/data/urgent", "equals": true }] });
        for (data, expected) in [
            (r#"{"a": "live"}"#, true),
            (r#"{"a": "test"}"#, false),
            (r#"{"a": "test", "urgent": true}"#, true),
            ("{}", false),
        ] {
            assert_eq!(accepts(&one, data), expected, "{data}");
        }
        // As in logic: all of nothing holds, any of nothing does not; but such a filter is refused.
        assert!(Filter::read(&json!({ "any": [] })).is_err());
    }

    /// What a filter means, said again over a tree of the document.
    fn naive(filter: &Value, event: &Value) -> bool {
        let list = |name: &str| filter[name].as_array().unwrap().iter();
        let same = |wanted: &Value, value: &Value| match (wanted.as_f64(), value.as_f64()) {
            (Some(wanted), Some(value)) => wanted == value,
            _ => wanted == value,
        };
        let value = || event.pointer(filter["pointer"].as_str().unwrap());
        match filter.as_object().unwrap().keys().find(|name| *name != "pointer").unwrap().as_str() {
            "all" => list("all").all(|filter| naive(filter, event)),
            "any" => list("any").any(|filter| naive(filter, event)),
            "not" => !naive(&filter["not"], event),
            "exists" => filter["exists"] == json!(value().is_some()),
            "equals" => value().is_some_and(|value| same(&filter["equals"], value)),
            "in" => value().is_some_and(|value| list("in").any(|wanted| same(wanted, value))),
            "prefix" => value()
                .and_then(Value::as_str)
                .is_some_and(|text| text.starts_with(filter["prefix"].as_str().unwrap())),
            _ => unreachable!(),
        }
    }

    fn filters() -> impl Strategy<Value = Value> {
        let literal = prop_oneof![
            Just(json!(null)),
            Just(json!(true)),
            (-3..4_i32).prop_map(|number| json!(number)),
            (-3..4_i32).prop_map(|number| json!(f64::from(number) + 0.5)),
            "[ab]{0,2}".prop_map(Value::from),
        ];
        let test = prop_oneof![
            any::<bool>().prop_map(|there| ("exists", json!(there))),
            "[ab]{0,1}".prop_map(|text| ("prefix", json!(text))),
            literal.clone().prop_map(|literal| ("equals", literal)),
            prop::collection::vec(literal, 1..4).prop_map(|literals| ("in", json!(literals))),
        ];
        let leaf = ("(/[ab01]){0,3}", test).prop_map(
            |(pointer, (test, value))| json!({ "pointer": format!("/data{pointer}"), test: value }),
        );
        leaf.prop_recursive(3, 12, 3, |inner| {
            let list = prop::collection::vec(inner.clone(), 1..4);
            prop_oneof![
                list.clone().prop_map(|list| json!({ "all": list })),
                list.prop_map(|list| json!({ "any": list })),
                inner.prop_map(|filter| json!({ "not": filter })),
            ]
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_tree_of_the_document(filter in filters(), data in documents()) {
            let tree = json!({ "data": serde_json::from_str::<Value>(&data).unwrap() });
            prop_assert_eq!(accepts(&filter, &data), naive(&filter, &tree), "{} of {}", filter, data);
        }
    }
}
