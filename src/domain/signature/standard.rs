//! Standard Webhooks, version 1 of the symmetric scheme (<https://www.standardwebhooks.com>).
//!
//! `webhook-signature: v1,<base64 of HMAC-SHA256 over "{webhook-id}.{webhook-timestamp}.{body}">`, one
//! entry for every live secret, separated by spaces, newest secret first. Secrets are `whsec_` and base64
//! of 24 to 64 bytes. A retiring secret is live until its time has come, judged at every attempt.

use std::fmt;

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::domain::fault::Fault;
use crate::domain::headers;
use crate::domain::payload::Payload;
use crate::domain::secret::Secret;

/// The header with the attempt's time in Unix seconds.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// The header with the signatures.
pub const SIGNATURE: &str = "webhook-signature";
/// What a secret's text starts with.
pub const SECRET_PREFIX: &str = "whsec_";
/// The most secrets that sign at once, so that a rotation cannot grow the header without end.
pub const SECRETS_MAX: usize = 10;

const TIMESTAMP_NAME: HeaderName = HeaderName::from_static(TIMESTAMP);
const SIGNATURE_NAME: HeaderName = HeaderName::from_static(SIGNATURE);
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// `v1,`, 44 characters of base64 and a space.
const ENTRY_BYTES: usize = 48;

/// The scheme with its keys set up, newest first.
#[derive(Clone)]
pub struct Standard {
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    mac: Hmac<Sha256>,
    /// Signs attempts before this Unix second; `None`: all of them.
    until_unix_s: Option<i64>,
}

/// A secret that was replaced and signs along for a while.
#[derive(Clone, Debug)]
pub struct Retiring<'a> {
    pub secret: &'a Secret,
    /// The first Unix second that it no longer signs.
    pub until_unix_s: i64,
}

impl Standard {
    /// Prepares the keys of `secrets` and of the `retiring` ones, both newest first; the prefix `whsec_` may
    /// be left out.
    ///
    /// # Errors
    /// Every fault of the lists, with fields such as `secrets[1]` and `retiring[0].secret`.
    pub fn new(secrets: &[Secret], retiring: &[Retiring<'_>]) -> Result<Self, Vec<Fault>> {
        let mut keys = Vec::with_capacity(secrets.len() + retiring.len());
        let mut faults = Vec::new();
        if secrets.is_empty() || secrets.len() > SECRETS_MAX {
            faults.push(Fault::new("secrets", format!("must hold 1 to {SECRETS_MAX} secrets, newest first")));
        } else if secrets.len() + retiring.len() > SECRETS_MAX {
            let message = format!("may hold, together with `secrets`, at most {SECRETS_MAX} secrets");
            faults.push(Fault::new("retiring", message));
        }
        let live =
            secrets.iter().enumerate().map(|(index, secret)| (format!("secrets[{index}]"), secret, None));
        let leaving = retiring.iter().enumerate().map(|(index, retiring)| {
            (format!("retiring[{index}].secret"), retiring.secret, Some(retiring.until_unix_s))
        });
        for (field, secret, until_unix_s) in live.chain(leaving) {
            match key_of(secret) {
                Ok(mac) => keys.push(Key { mac, until_unix_s }),
                Err(fault) => faults.push(fault.under(&field)),
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

    /// Adds `webhook-timestamp` and `webhook-signature`.
    pub fn sign(&self, id: &str, timestamp: i64, body: &Payload, added: &mut HeaderMap) {
        let is_live = |key: &&Key| key.until_unix_s.is_none_or(|until_unix_s| timestamp < until_unix_s);
        let live = self.keys.iter().filter(is_live);
        let timestamp = HeaderValue::from(timestamp);
        let mut signatures = String::with_capacity(self.keys.len() * ENTRY_BYTES);
        for key in live {
            let mut mac = key.mac.clone();
            for part in [id.as_bytes(), b".", timestamp.as_bytes(), b"."] {
                mac.update(part);
            }
            body.pieces().for_each(|piece| mac.update(piece));
            let signature = mac.finalize();
            signatures.push_str(if signatures.is_empty() { "v1," } else { " v1," });
            BASE64.encode_append(&signature.into_bytes(), &mut signatures);
        }
        added.insert(TIMESTAMP_NAME, timestamp);
        added.insert(SIGNATURE_NAME, headers::owned(signatures));
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
        signature_of(secrets, &[], id, timestamp, body)
    }

    fn signature_of(
        secrets: &[&str],
        retiring: &[(&str, i64)],
        id: &str,
        timestamp: i64,
        body: &str,
    ) -> String {
        let secrets: Vec<Secret> = secrets.iter().map(|text| Secret::new(*text)).collect();
        let old: Vec<Secret> = retiring.iter().map(|(text, _)| Secret::new(*text)).collect();
        let retiring: Vec<Retiring<'_>> = old
            .iter()
            .zip(retiring)
            .map(|(secret, (_, until_unix_s))| Retiring { secret, until_unix_s: *until_unix_s })
            .collect();
        let mut headers = HeaderMap::new();
        Standard::new(&secrets, &retiring).unwrap().sign(
            id,
            timestamp,
            &body.as_bytes().to_vec().into(),
            &mut headers,
        );
        assert_eq!(headers[TIMESTAMP], timestamp.to_string());
        assert_eq!(headers.len(), 2);
        headers[SIGNATURE].to_str().unwrap().to_owned()
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
    fn a_retiring_secret_signs_until_its_time_has_come() {
        let signed = |now| signature_of(&[K2], &[(K1, NOW)], "msg_0001", now, DOCUMENT);
        let both = |now| signature(&[K2, K1], "msg_0001", now, DOCUMENT);
        let new = |now| signature(&[K2], "msg_0001", now, DOCUMENT);
        assert_eq!(signed(NOW - 1), both(NOW - 1));
        assert_eq!(signed(NOW), new(NOW));
        assert_eq!(signed(NOW + 1), new(NOW + 1));
    }

    #[test]
    fn retiring_secrets_count_and_are_refused_by_their_place() {
        let (good, bad) = (Secret::new(K1), Secret::new("whsec_"));
        let retiring = |secret| Retiring { secret, until_unix_s: NOW };
        let many = vec![retiring(&good); SECRETS_MAX];
        let fields = |faults: Vec<Fault>| faults.into_iter().map(|fault| fault.field).collect::<Vec<_>>();
        let live = [good.clone()];
        assert!(Standard::new(&live, &many[1..]).is_ok());
        assert_eq!(fields(Standard::new(&live, &many).unwrap_err()), ["retiring"]);
        let mixed = [retiring(&good), retiring(&bad)];
        assert_eq!(fields(Standard::new(&live, &mixed).unwrap_err()), ["retiring[1].secret"]);
        assert_eq!(fields(Standard::new(&[], &many[1..]).unwrap_err()), ["secrets"], "all would expire");
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
        let faults = Standard::new(&secrets, &[]).unwrap_err();
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["secrets[0]", "secrets[1]", "secrets[2]", "secrets[3]", "secrets[4]"]);
        assert!(Standard::new(&[], &[]).is_err());
        assert!(Standard::new(&vec![Secret::new(K1); SECRETS_MAX + 1], &[]).is_err());
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
        assert!(Standard::new(&[secret], &[]).is_ok());
    }
}
