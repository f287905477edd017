//! Several pointers looked up in one walk over a document.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Pointer, index};

/// Pointers that are looked up together; each has a place, from 0.
#[derive(Clone, Debug, Default)]
pub struct PointerSet {
    pointers: Vec<Pointer>,
    root: Node,
}

/// What the pointers say of one place in a document.
#[derive(Clone, Debug, Default)]
struct Node {
    /// The pointer that ends here.
    ends: Option<usize>,
    below: Vec<Branch>,
}

#[derive(Clone, Debug)]
struct Branch {
    token: String,
    /// The token as an array's index.
    index: Option<usize>,
    node: Node,
}

impl PointerSet {
    /// Adds a pointer and returns its place; one that is there already keeps its place.
    pub fn add(&mut self, pointer: Pointer) -> usize {
        let mut node = &mut self.root;
        for token in &pointer.tokens {
            let known = node.below.iter().position(|branch| branch.token == *token);
            let place = known.unwrap_or_else(|| {
                let branch = Branch { token: token.clone(), index: index(token), node: Node::default() };
                node.below.push(branch);
                node.below.len() - 1
            });
            node = &mut node.below[place].node;
        }
        *node.ends.get_or_insert_with(|| {
            self.pointers.push(pointer);
            self.pointers.len() - 1
        })
    }

    /// How many different pointers there are.
    pub fn len(&self) -> usize {
        self.pointers.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pointers.is_empty()
    }

    /// What each pointer finds in `document`, by its place; the same as [`Pointer::find`] of each.
    ///
    /// The document is read once, without a tree of it. Only where one pointer ends above another (`/a` and `/a/b`)
    /// is that part read twice.
    pub fn find<'a>(&self, document: &'a RawValue) -> Vec<Option<&'a RawValue>> {
        let mut found = vec![None; self.pointers.len()];
        if self.root.walk(document, &mut found).is_err() {
            // A string that is no Unicode text stands where an object was looked for, or it is nested deeper than the
            // reader goes: one by one each is found or not, and none hides another.
            for (place, pointer) in found.iter_mut().zip(&self.pointers) {
                *place = pointer.find(document);
            }
        }
        found
    }
}

impl Node {
    fn walk<'a>(&self, value: &'a RawValue, found: &mut [Option<&'a RawValue>]) -> serde_json::Result<()> {
        self.forget(found);
        if let Some(place) = self.ends {
            found[place] = Some(value);
        }
        let is_nested = value.get().starts_with(['{', '[']);
        if self.below.is_empty() || !is_nested {
            return Ok(());
        }
        let mut reader = serde_json::Deserializer::from_str(value.get());
        Inside { node: self, found }.deserialize(&mut reader)
    }

    /// Of a name that an object holds twice the last counts: nothing of the first may stay.
    fn forget(&self, found: &mut [Option<&RawValue>]) {
        if let Some(place) = self.ends {
            found[place] = None;
        }
        for branch in &self.below {
            branch.node.forget(found);
        }
    }
}

/// The value at a node, read where it stands.
struct At<'n, 'f, 'de> {
    node: &'n Node,
    found: &'f mut [Option<&'de RawValue>],
}

impl<'de> DeserializeSeed<'de> for At<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.node.forget(self.found);
        if self.node.ends.is_none() {
            return Inside { node: self.node, found: self.found }.deserialize(deserializer);
        }
        let value = <&RawValue as serde::Deserialize>::deserialize(deserializer)?;
        self.node.walk(value, self.found).map_err(serde::de::Error::custom)
    }
}

/// What lies below a node; a scalar has nothing below it.
struct Inside<'n, 'f, 'de> {
    node: &'n Node,
    found: &'f mut [Option<&'de RawValue>],
}

impl<'de> DeserializeSeed<'de> for Inside<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Inside<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(branch) = map.next_key_seed(Which(&self.node.below))? {
            match branch {
                Some(branch) => map.next_value_seed(At { node: &branch.node, found: &mut *self.found })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        for place in 0_usize.. {
            let branch = self.node.below.iter().find(|branch| branch.index == Some(place));
            let is_there = match branch {
                Some(branch) => {
                    elements.next_element_seed(At { node: &branch.node, found: &mut *self.found })?.is_some()
                }
                None => elements.next_element::<IgnoredAny>()?.is_some(),
            };
            if !is_there {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// The branch of a member's name, compared without keeping it.
struct Which<'n>(&'n [Branch]);

impl<'de, 'n> DeserializeSeed<'de> for Which<'n> {
    type Value = Option<&'n Branch>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        // As bytes: a name that is no Unicode text (a lone surrogate) must not hide the others.
        deserializer.deserialize_bytes(self)
    }
}

impl<'n> Visitor<'_> for Which<'n> {
    type Value = Option<&'n Branch>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|branch| branch.token.as_bytes() == name))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(pointers: &[&str]) -> PointerSet {
        let mut set = PointerSet::default();
        for pointer in pointers {
            set.add(Pointer::parse(pointer).unwrap());
        }
        set
    }

    fn find(json: &str, pointers: &[&str]) -> Vec<Option<String>> {
        let document: Box<RawValue> = serde_json::from_str(json).unwrap();
        let found = set(pointers).find(&document);
        found.into_iter().map(|value| value.map(|value| value.get().to_owned())).collect()
    }

    #[test]
    fn a_pointer_keeps_its_place_when_it_is_added_again() {
        let mut set = set(&["/a", "/a/b"]);
        assert_eq!((set.add(Pointer::parse("/a").unwrap()), set.len()), (0, 2));
    }

    #[test]
    fn finds_each_above_beside_and_below_the_others() {
        let json = r#"{"a": {"b": [1, {"c": 2.50}]}, "d": "x"}"#;
        let found = find(json, &["/a/b/1/c", "/d", "/a", "", "/a/b/0", "/d/e", "/a/x"]);
        let expected = [
            Some("2.50"),
            Some("\"x\""),
            Some(r#"{"b": [1, {"c": 2.50}]}"#),
            Some(json),
            Some("1"),
            None,
            None,
        ];
        assert_eq!(found, expected.map(|text| text.map(str::to_owned)));
    }

    #[test]
    fn nothing_stays_of_the_first_of_two_members() {
        let json = r#"{"a": {"b": 1, "c": 2}, "a": {"c": 3}}"#;
        assert_eq!(find(json, &["/a/b", "/a/c"]), [None, Some("3".to_owned())]);
        assert_eq!(find(r#"{"a": {"b": 1}, "a": 5}"#, &["/a/b"]), [None]);
    }

    #[test]
    fn a_text_that_is_no_unicode_hides_nothing() {
        let json = r#"{"\ud800": 1, "s": "\ud800", "a": {"b": 2}}"#;
        assert_eq!(
            find(json, &["/s", "/s/x", "/a/b"]),
            [Some(r#""\ud800""#.to_owned()), None, Some("2".to_owned())]
        );
    }

    #[test]
    fn what_is_nested_deeper_than_the_reader_goes_is_no_fault() {
        let json = format!("{{\"a\": {}1{}, \"b\": 2}}", "[".repeat(4_000), "]".repeat(4_000));
        let deep = "/a".to_owned() + &"/0".repeat(100);
        assert_eq!(find(&json, &["/b", &deep, "/a/1"])[0].as_deref(), Some("2"));
    }

    /// Small documents with few names, so that pointers meet them, some of them twice.
    pub(crate) fn documents() -> impl Strategy<Value = String> {
        let scalars = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            (-3..4_i32).prop_map(|number| number.to_string()),
            (-3..4_i32).prop_map(|number| format!("{number}.50")),
            "[ab]{0,2}".prop_map(|text| format!("\"{text}\"")),
            Just("\"\\u0061\"".to_owned()),
        ];
        scalars.prop_recursive(4, 24, 4, |inner| {
            let members = prop::collection::vec(("[ab01]", inner.clone()), 0..4);
            let object = members.prop_map(|members| {
                let members = members.into_iter().map(|(name, value)| format!("\"{name}\": {value}"));
                format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
            });
            let array = prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(",")));
            prop_oneof![object, array]
        })
    }

    proptest! {
        #[test]
        fn together_they_find_what_each_finds_alone(
            json in documents(),
            pointers in prop::collection::vec("(/[ab01]){0,4}", 1..6),
        ) {
            let document: Box<RawValue> = serde_json::from_str(&json).unwrap();
            let mut set = PointerSet::default();
            let places: Vec<usize> =
                pointers.iter().map(|pointer| set.add(Pointer::parse(pointer).unwrap())).collect();
            let found = set.find(&document);
            for (pointer, place) in pointers.iter().zip(places) {
                let alone = Pointer::parse(pointer).unwrap().find(&document).map(RawValue::get);
                prop_assert_eq!(found[place].map(RawValue::get), alone, "{} in {}", pointer, json);
            }
        }
    }
}
