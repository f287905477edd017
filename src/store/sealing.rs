//! Sealing with the key that the store names.
//!
//! Its check value stands in the store. Whoever seals for the store reads it in the same transaction, and locks
//! it: so once the key has been changed, and that change is committed, nothing more is sealed with the old one.

use std::sync::{PoisonError, RwLock};

use anyhow::Context as _;

use crate::domain::keyring::Keyring;
use crate::domain::seal::{SealFault, SealKey};

/// The keys of this process, and which of them the store named last.
pub(super) struct Sealing {
    keys: Keyring,
    named: RwLock<Named>,
}

struct Named {
    key: SealKey,
    /// The check value of a key that the store names now and this process does not hold.
    missing: Option<String>,
}

impl Sealing {
    /// `None` if the store names a key that is not among these.
    pub(super) fn new(keys: Keyring, check: &str) -> Option<Sealing> {
        let key = keys.with_check(check)?.clone();
        Some(Sealing { keys, named: RwLock::new(Named { key, missing: None }) })
    }

    pub(super) fn keys(&self) -> &Keyring {
        &self.keys
    }

    /// Takes the store's word for which key it is; whether this process holds it.
    pub(super) fn follow(&self, check: &str) -> bool {
        let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
        match self.keys.with_check(check) {
            Some(key) => *named = Named { key: key.clone(), missing: None },
            None => named.missing = Some(check.to_owned()),
        }
        named.missing.is_none()
    }

    pub(super) fn missing(&self) -> Option<String> {
        self.named.read().unwrap_or_else(PoisonError::into_inner).missing.clone()
    }

    pub(super) fn key(&self) -> SealKey {
        self.named.read().unwrap_or_else(PoisonError::into_inner).key.clone()
    }

    /// Seals with the key named last.
    pub(super) fn seal(&self, associated: &[u8], plain: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut nonce = [0; 24];
        getrandom::fill(&mut nonce).context("the system gave no random bytes")?;
        Ok(self.key().seal(nonce, associated, plain))
    }

    pub(super) fn open(&self, associated: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealFault> {
        self.keys.open(associated, sealed)
    }
}
