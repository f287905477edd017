//! The keys a process holds: the one it is set to use, and older ones that it can still open with.
//!
//! Which of them seals is not said here: that is the store's word, so that processes whose keys were changed
//! one after the other always understand each other.

use super::seal::{SealFault, SealKey};

/// At least one key. `Debug` shows ids only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyring {
    newest: SealKey,
    older: Vec<SealKey>,
}

impl Keyring {
    /// The key in force and those before it.
    pub fn new(newest: SealKey, older: Vec<SealKey>) -> Keyring {
        Keyring { newest, older }
    }

    /// The key that is to seal.
    pub fn newest(&self) -> &SealKey {
        &self.newest
    }

    /// The key with this check value.
    pub fn with_check(&self, check: &str) -> Option<&SealKey> {
        self.keys().find(|key| key.check_value() == check)
    }

    /// What each key is known by.
    pub fn check_values(&self) -> Vec<String> {
        self.keys().map(SealKey::check_value).collect()
    }

    /// Opens what any of the keys has sealed under this record name.
    ///
    /// # Errors
    /// Those of [`SealKey::open`]; `OtherKey` names every key there is.
    pub fn open(&self, associated: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealFault> {
        let mut other = None;
        for key in self.keys() {
            match key.open(associated, sealed) {
                Err(SealFault::OtherKey { sealed_with, .. }) => other = Some(sealed_with),
                opened => return opened,
            }
        }
        let ours = self.keys().map(SealKey::id).collect::<Vec<_>>().join(", ");
        Err(SealFault::OtherKey { sealed_with: other.unwrap_or_default(), ours })
    }

    fn keys(&self) -> impl Iterator<Item = &SealKey> {
        std::iter::once(&self.newest).chain(&self.older)
    }
}

impl From<SealKey> for Keyring {
    fn from(key: SealKey) -> Keyring {
        Keyring::new(key, Vec::new())
    }
}

impl From<&SealKey> for Keyring {
    fn from(key: &SealKey) -> Keyring {
        key.clone().into()
    }
}

impl From<&Keyring> for Keyring {
    fn from(keys: &Keyring) -> Keyring {
        keys.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &[u8] = b"subscription\0acme\0sub_1";

    fn key(byte: u8) -> SealKey {
        SealKey::from_bytes([byte; 32])
    }

    #[test]
    fn opens_what_any_of_its_keys_has_sealed() {
        let keys = Keyring::new(key(2), vec![key(1)]);
        for byte in [1, 2] {
            let sealed = key(byte).seal([9; 24], NAME, b"plain");
            assert_eq!(keys.open(NAME, &sealed).unwrap(), b"plain");
        }
    }

    #[test]
    fn a_key_that_is_not_there_is_named_beside_those_that_are() {
        let fault =
            Keyring::new(key(2), vec![key(1)]).open(NAME, &key(3).seal([9; 24], NAME, b"a")).unwrap_err();
        let ours = format!("{}, {}", key(2).id(), key(1).id());
        assert_eq!(fault, SealFault::OtherKey { sealed_with: key(3).id(), ours });
    }

    #[test]
    fn a_text_altered_under_the_right_key_is_not_tried_with_the_others() {
        let mut sealed = key(1).seal([9; 24], NAME, b"plain");
        *sealed.last_mut().unwrap() ^= 1;
        assert_eq!(Keyring::new(key(2), vec![key(1)]).open(NAME, &sealed), Err(SealFault::Altered));
    }

    #[test]
    fn a_key_is_found_by_its_check_value() {
        let keys = Keyring::new(key(2), vec![key(1)]);
        assert_eq!(keys.with_check(&key(1).check_value()), Some(&key(1)));
        assert_eq!(keys.with_check(&key(3).check_value()), None);
        assert_eq!(keys.check_values(), [key(2).check_value(), key(1).check_value()]);
    }
}
