//! Text that must never be seen by accident: a signing secret, a password, a header's value.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// What stands in place of a secret wherever one is shown.
pub const MASK: &str = "***";

/// A secret text: shown as `***` by `Debug` and `Display`, overwritten in memory when dropped.
///
/// `Serialize` writes the clear text, because a document is sealed as a whole; whoever shows a document
/// to anybody masks it first (`SubscriptionSpec::masked`).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over; it is not copied.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(Zeroizing::new(text.into()))
    }

    /// The stand-in that is shown for any secret.
    pub fn mask() -> Self {
        Secret::new(MASK)
    }

    /// The clear text, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether this is only the stand-in of a document that was shown and sent back.
    pub fn is_mask(&self) -> bool {
        self.expose() == MASK
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Secret::new(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Secret::new(text)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_debug_nor_display_shows_a_secret() {
        let secret = Secret::new("canary");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
        assert_eq!(secret.expose(), "canary");
    }

    #[test]
    fn the_mask_is_recognised() {
        assert!(Secret::new("***").is_mask() && Secret::mask().is_mask());
        assert!(!Secret::new("****").is_mask());
    }

    #[test]
    fn a_document_carries_the_clear_text() {
        assert_eq!(serde_json::to_string(&Secret::new("a")).unwrap(), r#""a""#);
        assert_eq!(serde_json::from_str::<Secret>(r#""a""#).unwrap(), Secret::new("a"));
    }
}
