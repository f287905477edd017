//! JSON Pointers (RFC 6901) walked over raw bytes.
//!
//! A value is looked up in the producer's text without building a tree of it, so that a number such as
//! 12345678901234567890123 comes out as it was written.

pub(super) mod set;

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

pub use self::set::PointerSet;

/// A checked pointer, `""` for the whole document or `/name/0/…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    tokens: Vec<String>,
}

/// Why a text is no pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointerFault {
    #[error("a JSON Pointer starts with `/`")]
    NoSlash,
    #[error("in a JSON Pointer `~` stands only in `~0` (for `~`) and `~1` (for `/`)")]
    Escape,
    #[error("a JSON Pointer may be {DEPTH_MAX} names deep")]
    TooDeep,
}

/// Events are never nested deeper.
const DEPTH_MAX: usize = 128;

impl Pointer {
    /// Reads a pointer in its string form (RFC 6901 §3).
    ///
    /// # Errors
    /// A [`PointerFault`] that says what is missing.
    pub fn parse(text: &str) -> Result<Self, PointerFault> {
        if text.is_empty() {
            return Ok(Pointer { tokens: Vec::new() });
        }
        let names = text.strip_prefix('/').ok_or(PointerFault::NoSlash)?;
        let tokens: Vec<String> = names.split('/').map(unescape).collect::<Result<_, _>>()?;
        if tokens.len() > DEPTH_MAX { Err(PointerFault::TooDeep) } else { Ok(Pointer { tokens }) }
    }

    /// The pointer below the member `name` of what it points into: `/name/rest` gives `/rest`. `None` if it begins
    /// with another name.
    pub fn below(mut self, name: &str) -> Option<Self> {
        let begins = self.tokens.first().is_some_and(|token| token == name);
        begins.then(|| {
            self.tokens.remove(0);
            self
        })
    }

    /// Finds the value in `document`; `None` when there is nothing there.
    ///
    /// Of a name that an object holds twice the last counts, as in most readers.
    pub fn find<'a>(&self, document: &'a RawValue) -> Option<&'a RawValue> {
        self.tokens.iter().try_fold(document, |value, token| {
            let mut reader = serde_json::Deserializer::from_str(value.get());
            Step { token }.deserialize(&mut reader).ok().flatten()
        })
    }
}

/// `~1` before `~0`, in one pass (RFC 6901 §4).
fn unescape(token: &str) -> Result<String, PointerFault> {
    let mut parts = token.split('~');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.as_bytes().first() {
            Some(b'0') => text.push('~'),
            Some(b'1') => text.push('/'),
            _ => return Err(PointerFault::Escape),
        }
        text.push_str(&part[1..]);
    }
    Ok(text)
}

/// One level down: the member `token` of an object, the element of that number of an array.
struct Step<'t> {
    token: &'t str,
}

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A scalar has nothing below it; the reader's refusal of it is taken as that.
impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_wanted) = map.next_key_seed(IsName(self.token))? {
            if is_wanted {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let Some(wanted) = index(self.token) else { return Ok(None) };
        for _ in 0..wanted {
            if elements.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let found = elements.next_element()?;
        // The reader wants to see the end of what it began.
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

/// An array's index: digits without a leading zero (RFC 6901 §4).
fn index(token: &str) -> Option<usize> {
    let is_plain = token == "0" || !token.starts_with('0');
    (is_plain && token.bytes().all(|byte| byte.is_ascii_digit())).then(|| token.parse().ok()).flatten()
}

/// Compares a member's name without keeping it.
struct IsName<'t>(&'t str);

impl<'de> DeserializeSeed<'de> for IsName<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        // As bytes: a name that is no Unicode text (a lone surrogate) must not hide the others.
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for IsName<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<bool, E> {
        Ok(name == self.0.as_bytes())
    }
}

/// A scalar as text: a string's contents, a number and a boolean as they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar<'a> {
    Text(Cow<'a, str>),
    Null,
    /// An object, an array, or a string that is no Unicode text (a lone surrogate).
    Other,
}

/// Reads a raw value as a scalar.
pub fn scalar(value: &RawValue) -> Scalar<'_> {
    let raw = value.get();
    match raw.as_bytes().first() {
        Some(b'"') if !raw.contains('\\') => Scalar::Text(Cow::Borrowed(&raw[1..raw.len() - 1])),
        Some(b'"') => {
            serde_json::from_str(raw).map_or(Scalar::Other, |text: String| Scalar::Text(text.into()))
        }
        Some(b'n') => Scalar::Null,
        Some(b'{' | b'[') | None => Scalar::Other,
        Some(_) => Scalar::Text(Cow::Borrowed(raw)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        serde_json::from_str(json).unwrap()
    }

    fn find(json: &str, pointer: &str) -> Option<String> {
        Pointer::parse(pointer).unwrap().find(&raw(json)).map(|value| value.get().to_owned())
    }

    /// The examples of RFC 6901 §5.
    #[test]
    fn finds_what_the_standard_says() {
        let json = r#"{"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4,
            "i\\j": 5, "k\"l": 6, " ": 7, "m~n": 8}"#;
        let examples = [
            ("", json),
            ("/foo", r#"["bar", "baz"]"#),
            ("/foo/0", r#""bar""#),
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/e^f", "3"),
            ("/g|h", "4"),
            ("/i\\j", "5"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ];
        for (pointer, value) in examples {
            assert_eq!(find(json, pointer).as_deref(), Some(value), "{pointer:?}");
        }
    }

    #[test]
    fn finds_nothing_where_nothing_is() {
        let json = r#"{"a": [1, {"b": 2}], "s": "text", "n": null}"#;
        for pointer in [
            "/x",
            "/a/2",
            "/a/01",
            "/a/-",
            "/a/1x",
            "/a/",
            "/s/0",
            "/n/x",
            "/a/1/c",
            "/a/99999999999999999999999",
        ] {
            assert_eq!(find(json, pointer), None, "{pointer}");
        }
    }

    #[test]
    fn keeps_the_text_of_long_numbers_and_takes_the_last_of_two() {
        assert_eq!(find(r#"{"n": 12345678901234567890123}"#, "/n").unwrap(), "12345678901234567890123");
        assert_eq!(find(r#"{"a": 1, "a": 2}"#, "/a").unwrap(), "2");
    }

    #[test]
    fn a_text_of_another_form_is_refused() {
        assert_eq!(Pointer::parse("a"), Err(PointerFault::NoSlash));
        assert_eq!(Pointer::parse("/~"), Err(PointerFault::Escape));
        assert_eq!(Pointer::parse("/a~2"), Err(PointerFault::Escape));
        assert_eq!(Pointer::parse("/~é"), Err(PointerFault::Escape));
        assert_eq!(Pointer::parse(&"/a".repeat(129)), Err(PointerFault::TooDeep));
    }

    #[test]
    fn scalars_are_read_as_they_are_written() {
        let text = |json: &str| match scalar(&raw(json)) {
            Scalar::Text(text) => text.into_owned(),
            other => format!("{other:?}"),
        };
        let cases = [
            (r#""a\u00e9 \"b""#, "aé \"b"),
            (r#""""#, ""),
            ("1.50", "1.50"),
            ("-7", "-7"),
            ("true", "true"),
            ("null", "Null"),
            ("{}", "Other"),
            ("[1]", "Other"),
            (r#""\ud800""#, "Other"),
        ];
        for (json, expected) in cases {
            assert_eq!(text(json), expected, "{json}");
        }
    }
}
