//! Checked identifiers: an event's id, its type, its tenant, a subscription's id.
//!
//! Each is plain printable ASCII of bounded length, so it can stand in a header, a log line or a
//! cache key without escaping. They are cheap to clone: one text is shared by everything that names it.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A text that is not a name of its kind; says which rule it breaks, never the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must match {rule}")]
pub struct NameFault {
    /// The rule as a regular expression.
    pub rule: &'static str,
}

/// Makes one identifier type: its rule is a regular expression for people, a byte test and a greatest length.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $rule:literal, $allowed:expr, $bytes_max:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The rule as a regular expression, for messages and documents.
            pub const RULE: &'static str = $rule;

            /// Checks `text` against [`Self::RULE`].
            pub fn parse(text: &str) -> Result<Self, NameFault> {
                let allowed: fn(u8) -> bool = $allowed;
                if (1..=$bytes_max).contains(&text.len()) && text.bytes().all(allowed) {
                    Ok(Self(Arc::from(text)))
                } else {
                    Err(NameFault { rule: Self::RULE })
                }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        /// Lets a map keyed by the name be asked with a plain text.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameFault;

            fn from_str(text: &str) -> Result<Self, NameFault> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(de::Error::custom)
            }
        }
    };
}

name!(
    /// The id a producer gave an event; stable when the same event is published again.
    EventId,
    "[!-~]{1,200}",
    |byte| byte.is_ascii_graphic(),
    200
);

name!(
    /// The organization, client or account an event and a subscription belong to.
    Tenant,
    "[A-Za-z0-9_.:-]{1,128}",
    is_word_byte,
    128
);

name!(
    /// What happened, as dotted words: `document.processed`.
    EventType,
    "[A-Za-z0-9_.:-]{1,128}",
    is_word_byte,
    128
);

name!(
    /// The id of a subscription: `sub_…`.
    SubscriptionId,
    "[A-Za-z0-9_-]{1,64}",
    |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
    64
);

impl SubscriptionId {
    /// Makes a fresh id, `sub_` and 26 letters and digits, from randomness the caller drew.
    pub fn from_random(random: [u8; 16]) -> Self {
        let text = format!("sub_{}", BASE32_NOPAD.encode(&random).to_ascii_lowercase());
        Self(Arc::from(text))
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_event_id_is_visible_ascii() {
        for good in ["evt_0192", "a/b?c=\"d\"", "!", "~", &"x".repeat(200)] {
            assert_eq!(EventId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a\r", "é", "\u{7f}", &"x".repeat(201)] {
            assert!(EventId::parse(bad).is_err(), "`{bad}`");
        }
    }

    #[test]
    fn tenants_and_types_are_dotted_words() {
        for good in ["acme", "a.b:c-d_9", "..", &"x".repeat(128)] {
            assert!(Tenant::parse(good).is_ok() && EventType::parse(good).is_ok(), "`{good}`");
        }
        for bad in ["", "t1\n", "*", "t1}{t2", "a/b", &"x".repeat(129)] {
            assert!(Tenant::parse(bad).is_err() && EventType::parse(bad).is_err(), "`{bad}`");
        }
    }

    #[test]
    fn a_fault_names_the_rule_and_not_the_text() {
        let fault = Tenant::parse("secret text").unwrap_err();
        assert_eq!(fault.to_string(), "must match [A-Za-z0-9_.:-]{1,128}");
    }

    #[test]
    fn a_fresh_subscription_id_obeys_its_own_rule() {
        let id = SubscriptionId::from_random([255; 16]);
        assert_eq!(id.as_str(), "sub_77777777777777777777777774");
        assert_eq!(SubscriptionId::parse(id.as_str()), Ok(id.clone()));
        assert_ne!(SubscriptionId::from_random([0; 16]), id);
        assert!(SubscriptionId::parse("sub.1").is_err());
    }

    #[test]
    fn a_name_is_a_string_in_json_and_checked_on_the_way_in() {
        let tenant: Tenant = serde_json::from_str("\"acme\"").unwrap();
        assert_eq!(serde_json::to_string(&tenant).unwrap(), "\"acme\"");
        assert!(serde_json::from_str::<Tenant>("\"a b\"").is_err());
        assert!(serde_json::from_str::<Tenant>("7").is_err());
    }

    proptest! {
        #[test]
        fn parsing_agrees_with_the_rule(text in "[ -~é]{0,10}") {
            let word = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
            prop_assert_eq!(Tenant::parse(&text).is_ok(), !text.is_empty() && text.chars().all(word));
        }
    }
}
