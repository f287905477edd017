//! Sealing at rest: XChaCha20-Poly1305 with the name of the record as associated data.
//!
//! A sealed text opens only with the key that sealed it and only under the record name it was sealed
//! for, so a record copied to another tenant or subscription is refused. The nonce is an argument:
//! whoever seals draws 24 random bytes for every call (192 bits are enough to draw them blindly).
//!
//! Layout: `pb1` ‖ key id (4 bytes) ‖ nonce (24 bytes) ‖ ciphertext and tag.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, Mac as _};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const MAGIC: &[u8; 3] = b"pb1";
const KEY_ID_BYTES: usize = 4;
const NONCE_BYTES: usize = 24;
const HEAD_BYTES: usize = MAGIC.len() + KEY_ID_BYTES + NONCE_BYTES;
const CHECK_BYTES: usize = 8;

/// The key that seals what is kept at rest.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey(Zeroizing<[u8; 32]>);

/// Why a key or a sealed text is refused. Carries no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealFault {
    /// The text of a key is not standard base64 (RFC 4648 §4).
    #[error("the key is not base64")]
    NotBase64,
    /// The key is base64, but of another length.
    #[error("the key has {bytes} bytes instead of 32")]
    KeyLength { bytes: usize },
    /// What was given was not made by [`SealKey::seal`], or was cut.
    #[error("not a sealed text")]
    Format,
    /// Another key sealed this: nothing is said about whether it is intact.
    #[error("sealed with key {sealed_with}, and ours is {ours}")]
    OtherKey { sealed_with: String, ours: String },
    /// The right key, but the text or the name it was sealed for is not the same.
    #[error("altered, or sealed for another record")]
    Altered,
}

impl SealKey {
    /// A key from its 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        SealKey(Zeroizing::new(bytes))
    }

    /// A key from 32 bytes of base64; white space around it (a file's last newline) is ignored.
    ///
    /// # Errors
    /// [`SealFault::NotBase64`] and [`SealFault::KeyLength`].
    pub fn from_base64(text: &str) -> Result<Self, SealFault> {
        let bytes = Zeroizing::new(BASE64.decode(text.trim().as_bytes()).map_err(|_| SealFault::NotBase64)?);
        let key = <[u8; 32]>::try_from(bytes.as_slice())
            .map_err(|_| SealFault::KeyLength { bytes: bytes.len() })?;
        Ok(SealKey::from_bytes(key))
    }

    /// The key as it is written to a file. This is the secret itself.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64.encode(self.0.as_slice()))
    }

    /// Eight hex characters that tell keys apart and say nothing about them.
    pub fn id(&self) -> String {
        HEXLOWER.encode(&self.id_bytes())
    }

    /// What everything begins with that this key has sealed, seven bytes.
    pub fn mark(&self) -> Vec<u8> {
        [&MAGIC[..], &self.id_bytes()].concat()
    }

    /// Sixteen hex characters by which processes see that they hold the same key.
    pub fn check_value(&self) -> String {
        HEXLOWER.encode(&self.fingerprint::<CHECK_BYTES>(b"paperboy seal key check\0"))
    }

    /// Seals `plain` under the record name `associated`. Never use a nonce twice.
    pub fn seal(&self, nonce: [u8; 24], associated: &[u8], plain: &[u8]) -> Vec<u8> {
        let ciphertext = self
            .cipher()
            .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: associated })
            .expect("XChaCha20-Poly1305 seals anything below 256 GiB");
        let mut sealed = Vec::with_capacity(HEAD_BYTES + ciphertext.len());
        sealed.extend_from_slice(MAGIC);
        sealed.extend_from_slice(&self.id_bytes());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        sealed
    }

    /// Opens what [`SealKey::seal`] made under the same record name.
    ///
    /// # Errors
    /// [`SealFault::Format`], [`SealFault::OtherKey`] and [`SealFault::Altered`].
    pub fn open(&self, associated: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealFault> {
        let body = sealed.strip_prefix(MAGIC).ok_or(SealFault::Format)?;
        let (key_id, body) = body.split_first_chunk::<KEY_ID_BYTES>().ok_or(SealFault::Format)?;
        let (nonce, ciphertext) = body.split_first_chunk::<NONCE_BYTES>().ok_or(SealFault::Format)?;
        if *key_id != self.id_bytes() {
            return Err(SealFault::OtherKey { sealed_with: HEXLOWER.encode(key_id), ours: self.id() });
        }
        self.cipher()
            .decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad: associated })
            .map_err(|_| SealFault::Altered)
    }

    /// A name for a record that says nothing about what it is made of to whoever lacks this key: HMAC-SHA256 in hex.
    pub fn name_of(&self, purpose: &str, content: &[u8]) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.0.as_slice()).expect("HMAC takes keys of any length");
        mac.update(purpose.as_bytes());
        mac.update(b"\0");
        mac.update(content);
        HEXLOWER.encode(&mac.finalize().into_bytes())
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }

    fn id_bytes(&self) -> [u8; KEY_ID_BYTES] {
        self.fingerprint(b"paperboy seal key id\0")
    }

    /// The first `N` bytes of a hash that no other purpose shares.
    fn fingerprint<const N: usize>(&self, purpose: &[u8]) -> [u8; N] {
        let digest = Sha256::new().chain_update(purpose).chain_update(self.0.as_slice()).finalize();
        std::array::from_fn(|index| digest[index])
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey({})", self.id())
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
    fn opens_what_it_sealed_under_the_same_name() {
        for plain in [&b""[..], b"a", &[7; 5_000]] {
            let sealed = key(1).seal([9; 24], NAME, plain);
            assert_eq!(sealed.len(), HEAD_BYTES + plain.len() + 16);
            assert_eq!(key(1).open(NAME, &sealed).unwrap(), plain);
            assert!(sealed.starts_with(&key(1).mark()) && !sealed.starts_with(&key(2).mark()));
        }
    }

    #[test]
    fn a_sealed_text_holds_no_clear_text() {
        let sealed = key(1).seal([9; 24], NAME, b"canary-canary-canary");
        assert!(!sealed.windows(6).any(|window| window == b"canary"));
    }

    #[test]
    fn a_record_moved_to_another_name_is_refused() {
        let sealed = key(1).seal([9; 24], NAME, b"plain");
        assert_eq!(key(1).open(b"subscription\0other\0sub_1", &sealed), Err(SealFault::Altered));
    }

    #[test]
    fn another_key_is_named_and_not_tried() {
        let sealed = key(1).seal([9; 24], NAME, b"plain");
        let fault = key(2).open(NAME, &sealed).unwrap_err();
        assert_eq!(fault, SealFault::OtherKey { sealed_with: key(1).id(), ours: key(2).id() });
    }

    #[test]
    fn any_changed_or_missing_byte_is_refused() {
        let sealed = key(1).seal([9; 24], NAME, b"plain");
        for index in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[index] ^= 1;
            assert!(key(1).open(NAME, &altered).is_err(), "byte {index} changed");
            assert!(key(1).open(NAME, &sealed[..index]).is_err(), "cut at {index}");
        }
    }

    #[test]
    fn a_key_reads_back_from_its_file() {
        let text = format!("{}\n", *key(7).to_base64());
        assert_eq!(SealKey::from_base64(&text).unwrap(), key(7));
    }

    #[test]
    fn a_key_of_another_form_is_refused() {
        assert_eq!(SealKey::from_base64("no base64!"), Err(SealFault::NotBase64));
        assert_eq!(SealKey::from_base64("AAAA"), Err(SealFault::KeyLength { bytes: 3 }));
        assert_eq!(SealKey::from_base64(""), Err(SealFault::KeyLength { bytes: 0 }));
    }

    #[test]
    fn names_of_a_key_are_stable_and_tell_keys_apart() {
        assert_eq!((key(1).id().len(), key(1).check_value().len()), (8, 16));
        assert_ne!(key(1).id(), key(2).id());
        assert_ne!(key(1).check_value()[..8], key(1).id());
        assert_eq!(format!("{:?}", key(1)), format!("SealKey({})", key(1).id()));
    }
}
