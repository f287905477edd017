//! Keys of the HTTP API: their text, their hash, and what they allow.
//!
//! A key is `pbk_<id>_<secret>`: the id may be shown and logged, the secret is 256 random bits. So a plain
//! SHA-256 is enough at rest; there is nothing to guess that a slow hash would protect.

use std::fmt;

use data_encoding::BASE32_NOPAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::secret::Secret;

const PREFIX: &str = "pbk_";
const ID_LENGTH: usize = 12;
const SECRET_LENGTH: usize = 52;

/// The part of a key that may be seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(String);

/// A text that is no id of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not the id of a key, such as `pbk_abcdefghijkl`")]
pub struct KeyIdFault;

impl KeyId {
    /// Reads an id, with `pbk_` before it.
    ///
    /// # Errors
    /// The text is no id. A whole key is none, so that nobody logs one by mistake.
    pub fn parse(text: &str) -> Result<KeyId, KeyIdFault> {
        let word = text.strip_prefix(PREFIX).ok_or(KeyIdFault)?;
        let is_good = word.len() == ID_LENGTH && word.bytes().all(is_base32);
        if is_good { Ok(KeyId(text.to_owned())) } else { Err(KeyIdFault) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A new key: what is shown once, and what is kept.
pub struct NewKey {
    pub id: KeyId,
    pub text: Secret,
    pub hash: [u8; 32],
}

impl NewKey {
    /// Makes a key of random bytes.
    pub fn from_random(random: [u8; 40]) -> NewKey {
        let text = |bytes: &[u8]| BASE32_NOPAD.encode(bytes).to_lowercase();
        // Eight bytes are thirteen characters; twelve are 60 bits, plenty to be unique.
        let id = format!("{PREFIX}{}", &text(&random[..8])[..ID_LENGTH]);
        let key = format!("{id}_{}", text(&random[8..]));
        NewKey { hash: hash(&key), text: Secret::new(key), id: KeyId(id) }
    }
}

/// The id of a text that has the form of a key.
pub fn id_of(key: &str) -> Option<KeyId> {
    let (id, secret) = key.rsplit_once('_')?;
    let is_good = secret.len() == SECRET_LENGTH && secret.bytes().all(is_base32);
    is_good.then(|| KeyId::parse(id).ok()).flatten()
}

/// What is kept of a key.
pub fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// Compares two hashes in a time that says nothing about where they differ.
pub fn is_same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.ct_eq(other).into()
}

fn is_base32(byte: u8) -> bool {
    byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte)
}

/// One thing a key may allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Look at subscriptions, dead letters and the audit.
    Read,
    /// Change subscriptions, send a test, discard dead letters.
    Write,
    /// Publish events.
    Publish,
    /// Send dead letters again.
    Replay,
}

impl Scope {
    pub const ALL: [Scope; 4] = [Scope::Read, Scope::Write, Scope::Publish, Scope::Replay];

    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Write => "write",
            Scope::Publish => "publish",
            Scope::Replay => "replay",
        }
    }
}

/// What a key allows: at least one thing, each once, in the order of [`Scope::ALL`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scopes(Vec<Scope>);

/// A text that names no scopes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopesFault {
    #[error("`{0}` is not a scope; known are `read`, `write`, `publish` and `replay`")]
    Unknown(String),
    #[error("a key without a scope could do nothing; known are `read`, `write`, `publish` and `replay`")]
    Empty,
}

impl Scopes {
    pub fn all() -> Scopes {
        Scopes(Scope::ALL.to_vec())
    }

    /// Reads words with spaces or commas between them.
    ///
    /// # Errors
    /// [`ScopesFault`].
    pub fn parse(text: &str) -> Result<Scopes, ScopesFault> {
        let mut scopes = Vec::new();
        for word in text.split([' ', ',']).filter(|word| !word.is_empty()) {
            let known = Scope::ALL.into_iter().find(|scope| scope.as_str() == word);
            scopes.push(known.ok_or_else(|| ScopesFault::Unknown(word.to_owned()))?);
        }
        scopes.sort_unstable();
        scopes.dedup();
        if scopes.is_empty() { Err(ScopesFault::Empty) } else { Ok(Scopes(scopes)) }
    }

    pub fn allow(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }

    pub fn words(&self) -> Vec<&'static str> {
        self.0.iter().map(|scope| scope.as_str()).collect()
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_shows_its_id_and_hides_the_rest() {
        let key = NewKey::from_random([7; 40]);
        assert_eq!(key.text.expose().len(), PREFIX.len() + ID_LENGTH + 1 + SECRET_LENGTH);
        assert_eq!(id_of(key.text.expose()), Some(key.id.clone()));
        assert!(key.text.expose().starts_with(key.id.as_str()));
        assert_eq!(key.hash, hash(key.text.expose()));
        assert!(!format!("{:?}", key.text).contains(key.id.as_str()));
        let mut other = [7; 40];
        other[39] = 8;
        let other = NewKey::from_random(other);
        assert_eq!(key.id, other.id);
        assert!(!is_same(&key.hash, &other.hash) && is_same(&key.hash, &key.hash));
    }

    #[test]
    fn what_is_no_key_has_no_id() {
        let key = NewKey::from_random([7; 40]).text.expose().to_owned();
        for bad in
            ["", "pbk_", "secret", &key[1..], &key[..key.len() - 1], &key.to_uppercase(), &format!("{key}a")]
        {
            assert_eq!(id_of(bad), None, "{bad}");
        }
        assert_eq!(KeyId::parse(&key), Err(KeyIdFault));
    }

    #[test]
    fn scopes_are_read_in_any_order_and_written_in_one() {
        assert_eq!(Scopes::parse("replay,read read").unwrap().to_string(), "read replay");
        assert_eq!(Scopes::parse(&Scopes::all().to_string()).unwrap(), Scopes::all());
        assert!(Scopes::parse("read").unwrap().allow(Scope::Read));
        assert!(!Scopes::parse("read").unwrap().allow(Scope::Write));
        assert_eq!(Scopes::parse(" , "), Err(ScopesFault::Empty));
        assert_eq!(Scopes::parse("read,admin"), Err(ScopesFault::Unknown("admin".into())));
    }
}
