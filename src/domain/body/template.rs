//! The template itself: read once, prepared, filled for each delivery.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::place::push_json;
use super::{BodyError, DEPTH_MAX, Names, Place, TEMPLATE_BYTES_MAX, fault};
use crate::domain::event::Event;
use crate::domain::fault::Fault;

/// The member that stands for the members of `data`.
const SPREAD: &str = "...";

/// A checked template, ready to be filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyTemplate {
    members: Vec<Member>,
    /// Whether `data` lends its members.
    spreads: bool,
    names: Names,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    key: String,
    /// The key as JSON with its colon.
    head: Vec<u8>,
    part: Part,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// JSON that is always the same.
    Text(Vec<u8>),
    Place(Place),
    Object(Vec<Member>),
    List(Vec<Part>),
    /// The members of `data`.
    Spread,
}

impl BodyTemplate {
    /// Checks a template's text. The fault's field is empty.
    ///
    /// # Errors
    /// A fault that says what is wrong with it.
    pub fn parse(text: &str, names: Names) -> Result<BodyTemplate, Fault> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(fault(format!("is longer than {TEMPLATE_BYTES_MAX} bytes")));
        }
        let node: Node = serde_json::from_str(text).map_err(|error| {
            fault(format!("is a template that is not JSON: {error}"))
                .hint("for example `{\"event\": \"{name}\", \"data\": \"{data}\"}`")
        })?;
        let Node::Object(entries) = node else { return Err(fault("must be a JSON object as a template")) };
        let spreads = entries.iter().any(|(key, _)| key == SPREAD);
        let members = prepare_members(entries, true, 1)?;
        Ok(BodyTemplate { members, spreads, names })
    }

    /// The body for one event; `subscription` is the id of who gets it.
    ///
    /// Where `data` lends a member that the template has too, the one of `data` is sent, and no name twice. `data` of
    /// `shared_bytes_min` or more is not copied but told by its place.
    ///
    /// # Errors
    /// A [`BodyError`] when the event cannot fill it.
    pub fn fill<'a>(
        &self,
        event: &'a Event<'a>,
        subscription: &str,
        shared_bytes_min: usize,
    ) -> Result<Filled<'a>, BodyError> {
        let data = event.data.map_or("", |data| data.get());
        let lent = if self.spreads && event.data.is_some() { keys_of(data)? } else { BTreeSet::new() };
        let is_shared = data.len() >= shared_bytes_min;
        let mut filling = Filling {
            bytes: Vec::with_capacity(if is_shared { 512 } else { data.len() + 512 }),
            shared: None,
            is_shared,
            event,
            names: &self.names,
            subscription,
            lent: &lent,
        };
        filling.object(&self.members)?;
        Ok(Filled { bytes: filling.bytes, shared: filling.shared })
    }
}

/// A body, perhaps with a gap.
pub struct Filled<'a> {
    pub bytes: Vec<u8>,
    /// What belongs into the gap, and before which of the bytes that is.
    pub shared: Option<(usize, &'a [u8])>,
}

/// The names of the members of an object.
fn keys_of(data: &str) -> Result<BTreeSet<Vec<u8>>, BodyError> {
    struct Keys(BTreeSet<Vec<u8>>);
    impl<'de> Deserialize<'de> for Keys {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Reader;
            impl<'de> Visitor<'de> for Reader {
                type Value = Keys;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                    let mut keys = BTreeSet::new();
                    while let Some((Key(key), IgnoredAny)) = map.next_entry()? {
                        keys.insert(key);
                    }
                    Ok(Keys(keys))
                }
            }
            deserializer.deserialize_map(Reader)
        }
    }
    serde_json::from_str::<Keys>(data).map(|keys| keys.0).map_err(|_| BodyError::NotAnObject)
}

/// A name as its bytes: half a surrogate pair is a name too.
struct Key(Vec<u8>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_bytes<E>(self, name: &[u8]) -> Result<Key, E> {
                Ok(Key(name.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Reader)
    }
}

/// A body in the making.
struct Filling<'a, 'b> {
    bytes: Vec<u8>,
    shared: Option<(usize, &'a [u8])>,
    /// Whether `data` is large enough to be left out once.
    is_shared: bool,
    event: &'a Event<'a>,
    names: &'b Names,
    subscription: &'b str,
    /// Names that the members of `data` take.
    lent: &'b BTreeSet<Vec<u8>>,
}

impl<'a> Filling<'a, '_> {
    fn object(&mut self, members: &[Member]) -> Result<(), BodyError> {
        let is_top = self.bytes.is_empty();
        self.bytes.push(b'{');
        for Member { key, head, part } in members {
            if is_top && self.lent.contains(key.as_bytes()) {
                continue;
            }
            match part {
                Part::Place(place) if !self.has(place)? => {}
                Part::Spread => self.spread(),
                part => {
                    self.separate();
                    self.bytes.extend_from_slice(head);
                    self.part(part)?;
                }
            }
        }
        self.bytes.push(b'}');
        Ok(())
    }

    fn part(&mut self, part: &Part) -> Result<(), BodyError> {
        match part {
            Part::Text(text) => self.bytes.extend_from_slice(text),
            Part::Object(members) => self.object(members)?,
            Part::Place(place) if !self.has(place)? => self.bytes.extend_from_slice(b"null"),
            Part::Place(Place::Data) => self.data(self.event.data.map_or("", |data| data.get())),
            Part::Place(place) => place.push(&mut self.bytes, self.event, self.names, self.subscription)?,
            Part::List(parts) => {
                self.bytes.push(b'[');
                for (index, part) in parts.iter().enumerate() {
                    if index > 0 {
                        self.bytes.push(b',');
                    }
                    self.part(part)?;
                }
                self.bytes.push(b']');
            }
            Part::Spread => {}
        }
        Ok(())
    }

    fn has(&self, place: &Place) -> Result<bool, BodyError> {
        place.is_in(self.event, self.names)
    }

    /// What stands between the braces of `data`, byte for byte; that it is an object is known.
    fn spread(&mut self) {
        let Some(data) = self.event.data else { return };
        let inside = data.get().trim_matches([' ', '\t', '\n', '\r']);
        let inside = inside.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
        if !self.lent.is_empty() {
            self.separate();
            self.data(inside);
        }
    }

    /// The producer's bytes, or the gap for them.
    fn data(&mut self, bytes: &'a str) {
        if self.is_shared && self.shared.is_none() {
            self.shared = Some((self.bytes.len(), bytes.as_bytes()));
        } else {
            self.bytes.extend_from_slice(bytes.as_bytes());
        }
    }

    /// A comma, unless the object has just begun.
    fn separate(&mut self) {
        let is_after_gap = self.shared.is_some_and(|(place, _)| place == self.bytes.len());
        if self.bytes.last() != Some(&b'{') || is_after_gap {
            self.bytes.push(b',');
        }
    }
}

fn prepare_members(entries: Vec<(String, Node)>, is_top: bool, depth: usize) -> Result<Vec<Member>, Fault> {
    let mut seen = BTreeSet::new();
    let mut members = Vec::with_capacity(entries.len());
    for (key, node) in entries {
        if !seen.insert(key.clone()) {
            return Err(fault(format!("holds `{key}` twice")));
        }
        let part = match (key.as_str(), &node) {
            (SPREAD, Node::Scalar(Value::String(text))) if text == "{data}" && is_top => Part::Spread,
            (SPREAD, _) => {
                return Err(fault("takes the members of `{data}` only, and those at the top only"));
            }
            _ => prepare(node, depth)?,
        };
        let mut head = Vec::with_capacity(key.len() + 3);
        push_json(&mut head, &key);
        head.push(b':');
        members.push(Member { key, head, part });
    }
    Ok(members)
}

fn prepare(node: Node, depth: usize) -> Result<Part, Fault> {
    if depth > DEPTH_MAX {
        return Err(fault(format!("is nested deeper than {DEPTH_MAX}")));
    }
    Ok(match node {
        Node::Scalar(Value::String(text)) => {
            let inside = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            match (text.strip_prefix("{{"), inside) {
                (Some(rest), _) => Part::Text(Value::String(format!("{{{rest}")).to_string().into_bytes()),
                (None, Some(name)) => Part::Place(Place::parse(name)?),
                (None, None) => Part::Text(Value::String(text).to_string().into_bytes()),
            }
        }
        Node::Scalar(value) => Part::Text(value.to_string().into_bytes()),
        Node::Object(entries) => Part::Object(prepare_members(entries, false, depth + 1)?),
        Node::List(nodes) => {
            Part::List(nodes.into_iter().map(|node| prepare(node, depth + 1)).collect::<Result<_, _>>()?)
        }
    })
}

/// JSON that keeps the order of members.
enum Node {
    Object(Vec<(String, Node)>),
    List(Vec<Node>),
    Scalar(Value),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Node;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Node::Object(entries))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
                let mut nodes = Vec::new();
                while let Some(node) = list.next_element()? {
                    nodes.push(node);
                }
                Ok(Node::List(nodes))
            }
            fn visit_str<E>(self, text: &str) -> Result<Node, E> {
                Ok(Node::Scalar(text.into()))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar(Value::Null))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::Hints;
    use serde_json::json;

    const EVENT: &str = r#"{"id":"evt_1","type":"document.processed","tenant":"acme","time":"2026-02-03T10:00:07.12+01:00",
        "scope":{"inbox":"i\"7"},"document_id":"d1","data": {"n":1.0, "event" : "mine","n":12345678901234567890123} }"#;

    fn fill(template: &str, names: Value, event: &str) -> Result<String, BodyError> {
        let names = serde_json::from_value(names).unwrap();
        let template = BodyTemplate::parse(template, Names::new(&names)).unwrap();
        let event = Event::parse(event.as_bytes(), &Hints::default()).unwrap();
        let whole = template.fill(&event, "sub_1", usize::MAX)?;
        assert_eq!(whole.shared, None);
        // With a gap for `data` it is the same body.
        let Filled { mut bytes, shared } = template.fill(&event, "sub_1", 0)?;
        if let Some((place, data)) = shared {
            bytes.splice(place..place, data.iter().copied());
        }
        assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&whole.bytes));
        let filled = whole.bytes;
        assert!(serde_json::from_slice::<Value>(&filled).is_ok(), "{}", String::from_utf8_lossy(&filled));
        Ok(String::from_utf8(filled).unwrap())
    }

    fn filled(template: &str) -> String {
        fill(template, json!({}), EVENT).unwrap()
    }

    #[test]
    fn places_are_filled_and_data_stays_the_producers_bytes() {
        let data = r#"{"n":1.0, "event" : "mine","n":12345678901234567890123}"#;
        assert_eq!(filled(r#"{"data":"{data}","t":"{tenant}"}"#), format!(r#"{{"data":{data},"t":"acme"}}"#));
        let texts = filled(
            r#"{"a":"{type}","b":"{id}","c":"{time}","d":"{document_id}","e":"{scope.inbox}","f":"{scope}"}"#,
        );
        assert_eq!(
            texts,
            r#"{"a":"document.processed","b":"evt_1","c":"2026-02-03T10:00:07.12+01:00","d":"d1","e":"i\"7","f":{"inbox":"i\"7"}}"#
        );
    }

    #[test]
    fn times_are_written_in_the_form_asked_for() {
        let times = filled(r#"{"a":"{time.ms}","b":"{time.us}","c":"{time.unix_s}","d":"{time.unix_ms}"}"#);
        assert_eq!(
            times,
            r#"{"a":"2026-02-03T09:00:07.120Z","b":"2026-02-03T09:00:07.120000Z","c":1770109207,"d":1770109207120}"#
        );
    }

    /// By sha256sum, and by Python's `uuid.uuid5` over the namespace, `sub_1`, a zero byte and `evt_1`.
    #[test]
    fn ids_of_other_forms_are_made_of_the_events() {
        assert_eq!(filled(r#"{"a":"{id.hex24}"}"#), r#"{"a":"7d4e5a76eae6d8c165410ac1"}"#);
        assert_eq!(filled(r#"{"a":"{id.uuid}"}"#), r#"{"a":"a0fe17be-7d2d-5d43-87ad-fb2fe994cc99"}"#);
        let own = EVENT.replace("evt_1", "67aa1b2c3d4e5f6071829301");
        assert_eq!(
            fill(r#"{"a":"{id.hex24}"}"#, json!({}), &own).unwrap(),
            r#"{"a":"67aa1b2c3d4e5f6071829301"}"#
        );
    }

    #[test]
    fn what_the_event_lacks_is_left_out_and_null_in_a_list() {
        assert_eq!(
            filled(r#"{"a":"{batch_id}","b":["{batch_id}",1],"c":{"d":"{scope.x}"},"e":"{tenant}"}"#),
            r#"{"b":[null,1],"c":{},"e":"acme"}"#
        );
        let bare = r#"{"id":"e","type":"a","tenant":"acme","time":"2026-11-22T09:00:07Z"}"#;
        assert_eq!(fill(r#"{"data":"{data}","s":"{scope}","...":"{data}"}"#, json!({}), bare).unwrap(), "{}");
    }

    #[test]
    fn data_lends_its_members_and_no_name_is_sent_twice_by_us() {
        let spread = filled(r#"{"event":"{name}","id":"{id}","...":"{data}","last":1}"#);
        assert_eq!(
            spread,
            r#"{"id":"evt_1","n":1.0, "event" : "mine","n":12345678901234567890123,"last":1}"#
        );
        let empty = EVENT.replace(r#"{"n":1.0, "event" : "mine","n":12345678901234567890123}"#, "{ }");
        let template = r#"{"id":"{id}","...":"{data}"}"#;
        assert_eq!(fill(template, json!({}), &empty).unwrap(), r#"{"id":"evt_1"}"#);
        let list = EVENT.replace(r#"{"n":1.0, "event" : "mine","n":12345678901234567890123}"#, "[1]");
        assert_eq!(fill(template, json!({}), &list), Err(BodyError::NotAnObject));
    }

    #[test]
    fn ids_alone_are_a_template_without_data() {
        let template = r#"{"event":"{name}","id":"{id}","document":"{document_id}","at":"{time.unix_s}"}"#;
        let ids = r#"{"event":"document.processed","id":"evt_1","document":"d1","at":1770109207}"#;
        assert_eq!(filled(template), ids);
    }

    #[test]
    fn names_are_texts_numbers_or_several_values() {
        let one =
            |name: Value| fill(r#"{"e":"{name}"}"#, json!({"document.processed": name}), EVENT).unwrap();
        assert_eq!(one(json!("document_predict")), r#"{"e":"document_predict"}"#);
        assert_eq!(one(json!(0)), r#"{"e":0}"#);
        assert_eq!(filled(r#"{"e":"{name}"}"#), r#"{"e":"document.processed"}"#);
        let pair = r#"{"event":"{name.event}","action":"{name.action}"}"#;
        let names = json!({"document.processed": {"event": "annotation_content", "action": "initialize"}});
        assert_eq!(
            fill(pair, names, EVENT).unwrap(),
            r#"{"event":"annotation_content","action":"initialize"}"#
        );
        assert_eq!(fill(pair, json!({}), EVENT), Err(BodyError::NoName));
    }

    #[test]
    fn what_is_no_place_stays_as_it_is() {
        assert_eq!(
            filled(r#"{ "a" : "x{tenant}", "b":"{{tenant}", "c":[true,null,1.5,-3] }"#),
            r#"{"a":"x{tenant}","b":"{tenant}","c":[true,null,1.5,-3]}"#
        );
    }

    #[test]
    fn a_template_that_cannot_be_filled_is_refused() {
        for text in [
            "{",
            "[]",
            r#"{"a":"{tenent}"}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"...":"{scope}"}"#,
            r#"{"a":{"...":"{data}"}}"#,
            &format!("{}1{}", r#"{"a":"#.repeat(40), "}".repeat(40)),
            &format!(r#"{{"a":"{}"}}"#, "x".repeat(17_000)),
        ] {
            assert!(BodyTemplate::parse(text, Names::default()).is_err(), "{text}");
        }
    }
}
