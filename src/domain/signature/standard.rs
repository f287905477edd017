//! Standard Webhooks, version 1 of the symmetric scheme (<https://www.standardwebhooks.com>).
//!
//! `webhook-signature: v1,<base64 of HMAC-SHA256 over "{webhook-id}.{webhook-timestamp}.{body}">`, one
//! entry for every live secret, separated by spaces, newest secret first. Secrets are `whsec_` and base64
//! of 24 to 64 bytes.

use std::fmt;

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::domain::fault::Fault;
use crate::domain::secret::Secret;

/// The header with the attempt's time in Unix seconds.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// The header with the signatures.
pub const SIGNATURE: &str = "webhook-signature";
/// What a secret's text starts with.
pub const SECRET_PREFIX: &str = "whsec_";
/// The most secrets that sign at once, so that a rotation cannot grow the header without end.
pub const SECRETS_MAX: usize = 10;

const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// `v1,`, 44 characters of base64 and a space.
const ENTRY_BYTES: usize = 48;

/// The scheme with its keys set up, newest first.
#[derive(Clone)]
pub struct Standard {
    keys: Vec<Hmac<Sha256>>,
}

impl Standard {
    /// Prepares the keys of `secrets`, newest first; the prefix `whsec_` may be left out.
    ///
    /// # Errors
    /// Every fault of the list, with fields such as `secrets[1]`.
    pub fn new(secrets: &[Secret]) -> Result<Self, Vec<Fault>> {
        let mut keys = Vec::with_capacity(secrets.len());
        let mut faults = Vec::new();
        if secrets.is_empty() || secrets.len() > SECRETS_MAX {
            faults.push(Fault::new("secrets", format!("must hold 1 to {SECRETS_MAX} secrets, newest first")));
        }
        for (index, secret) in secrets.iter().enumerate() {
            match key_of(secret) {
                Ok(key) => keys.push(key),
                Err(fault) => faults.push(fault.under(&format!("secrets[{index}]"))),
            }
        }
        if faults.is_empty() { Ok(Standard { keys }) } else { Err(faults) }
    }

    /// Makes the text of a new secret from random bytes.
    pub fn secret_from_random(bytes: [u8; 32]) -> Secret {
        let bytes = Zeroizing::new(bytes);
        let mut text = String::with_capacity(SECRET_PREFIX.len() + BASE64.encode_len(bytes.len()));
        text.push_str(SECRET_PREFIX);
        BASE64.encode_append(bytes.as_slice(), &mut text);
        Secret::new(text)
    }

    /// Appends `webhook-timestamp` and `webhook-signature`.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8], headers: &mut Vec<(String, String)>) {
        let timestamp = timestamp.to_string();
        let mut signatures = String::with_capacity(self.keys.len() * ENTRY_BYTES);
        for key in &self.keys {
            let signature = key
                .clone()
                .chain_update(id)
                .chain_update(".")
                .chain_update(&timestamp)
                .chain_update(".")
                .chain_update(body)
                .finalize();
            signatures.push_str(if signatures.is_empty() { "v1," } else { " v1," });
            BASE64.encode_append(&signature.into_bytes(), &mut signatures);
        }
        headers.push((TIMESTAMP.to_owned(), timestamp));
        headers.push((SIGNATURE.to_owned(), signatures));
    }
}

/// Shows how many keys there are and nothing of them.
impl fmt::Debug for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standard").field("keys", &self.keys.len()).finish()
    }
}

fn key_of(secret: &Secret) -> Result<Hmac<Sha256>, Fault> {
    let text = secret.expose();
    let base64 = text.strip_prefix(SECRET_PREFIX).unwrap_or(text);
    let bytes = BASE64.decode(base64.as_bytes()).map(Zeroizing::new).map_err(|_| fault("is not base64"))?;
    if !KEY_BYTES.contains(&bytes.len()) {
        return Err(fault(&format!("holds {} bytes instead of 24 to 64", bytes.len())));
    }
    Hmac::new_from_slice(&bytes).map_err(|_| fault("cannot be a key"))
}

fn fault(message: &str) -> Fault {
    Fault::new("", message).hint("a secret is `whsec_` followed by base64 of 24 to 64 random bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const K1: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const K2: &str = "whsec_ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
    const NOW: i64 = 1_767_323_045;

    fn signature(secrets: &[&str], id: &str, timestamp: i64, body: &str) -> String {
        let secrets: Vec<Secret> = secrets.iter().map(|text| Secret::new(*text)).collect();
        let mut headers = Vec::new();
        Standard::new(&secrets).unwrap().sign(id, timestamp, body.as_bytes(), &mut headers);
        assert_eq!(headers[0], (TIMESTAMP.to_owned(), timestamp.to_string()));
        assert_eq!(headers[1].0, SIGNATURE);
        headers.swap_remove(1).1
    }

    /// The vectors of the specification's own libraries.
    #[test]
    fn signs_as_the_specification_says() {
        assert_eq!(
            signature(
                &["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                r#"{"test": 2432232314}"#
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        assert_eq!(
            signature(
                &["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"],
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1_649_367_553,
                r#"{"email":"test@example.com","username":"test_user"}"#
            ),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
    }

    const DOCUMENT: &str =
        r#"{"type":"document.processed","timestamp":"2026-01-02T03:04:05Z","data":{"id":"doc_1"}}"#;

    #[test]
    fn every_live_secret_signs_newest_first() {
        let old = "v1,KA7ei5BslezWg155zOk19o7KC2TO0Tl1iFDvtY0/q+o=";
        let new = "v1,5YrpZrnq+NQwpxYQpu27aYNg/P0yQKBweBIRQFwgWes=";
        assert_eq!(signature(&[K1], "msg_0001", NOW, DOCUMENT), old);
        assert_eq!(signature(&[K2, K1], "msg_0001", NOW, DOCUMENT), format!("{new} {old}"));
    }

    #[test]
    fn an_empty_body_at_time_zero_is_signed() {
        assert_eq!(signature(&[K1], "msg_0002", 0, ""), "v1,xGm0nwOvy5GXoXVeFZHBKyunp7AMoeasMpu3KoWfBaA=");
    }

    /// A body that no JSON library writes back unchanged.
    #[test]
    fn signs_the_bytes_and_not_their_meaning() {
        let body = "{\"n\":12345678901234567890123,\"a\":1,\"a\":2,\"s\":\"\\u00e9 é\"}";
        assert_eq!(
            signature(&[K1], "msg_0003", NOW, body),
            "v1,gM9pI60CtRthMWTTDpwVdX68pf1IxUsvj9AXdjI62Ho="
        );
    }

    #[test]
    fn the_shortest_and_the_longest_key_sign() {
        let (short, long) = (BASE64.encode(&[0; 24]), BASE64.encode(&[0xff; 64]));
        assert_eq!(
            signature(&[&short], "msg_0004", NOW, "{}"),
            "v1,zOzq/zDsYW+l9owX2NQO+iHEwLaqqOiJXrW1PMuy+IQ="
        );
        assert_eq!(
            signature(&[&long], "msg_0005", NOW, "{}"),
            "v1,tleOtIlODIPY+PoPhEdDpVujnWqBw1UhIUYtHaWTSac="
        );
    }

    #[test]
    fn secrets_of_another_form_are_refused_each_by_its_place() {
        let (short, long) = (BASE64.encode(&[1; 23]), format!("whsec_{}", BASE64.encode(&[1; 65])));
        let bad = ["whsec_", "", "whsec_not base64!", short.as_str(), long.as_str()];
        let secrets: Vec<Secret> = bad.iter().map(|text| Secret::new(*text)).collect();
        let faults = Standard::new(&secrets).unwrap_err();
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["secrets[0]", "secrets[1]", "secrets[2]", "secrets[3]", "secrets[4]"]);
        assert!(Standard::new(&[]).is_err());
        assert!(Standard::new(&vec![Secret::new(K1); SECRETS_MAX + 1]).is_err());
    }

    #[test]
    fn a_secret_without_its_prefix_is_taken() {
        assert_eq!(
            signature(&[&K1["whsec_".len()..]], "msg_0001", NOW, DOCUMENT),
            signature(&[K1], "msg_0001", NOW, DOCUMENT)
        );
    }

    #[test]
    fn a_made_secret_can_sign() {
        let secret = Standard::secret_from_random(std::array::from_fn(|index| index as u8));
        assert_eq!(secret.expose(), K1);
        assert!(Standard::new(&[secret]).is_ok());
    }
}
