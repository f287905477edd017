//! Hides a subscription's secrets in text that came from outside.
//!
//! A receiver may send back what it was sent, and its answer is kept and shown. Only whole values are looked
//! for, as they are, within JSON, and as the credentials of `Authorization`: what a receiver made of them
//! otherwise cannot be known.

use std::fmt;

use data_encoding::BASE64;
use zeroize::Zeroizing;

use super::auth::Auth;
use super::secret::{MASK, Secret};

/// Shorter secrets are not looked for: they stand in ordinary words.
const HIDDEN_BYTES_MIN: usize = 8;

/// The texts to be hidden. `Debug` shows none of them.
#[derive(Clone, Default)]
pub struct Veil(Vec<Secret>);

impl Veil {
    /// Hides these secrets, and what `auth` sends.
    pub fn new(secrets: &[Secret], auth: &Auth) -> Veil {
        let sent = auth.as_header().map(|(_, value)| value.clone());
        let credentials =
            sent.as_ref().and_then(|value| value.expose().split_once(' ')).map(|(_, rest)| rest);
        let basic = credentials.and_then(|text| BASE64.decode(text.as_bytes()).ok()).map(Zeroizing::new);
        let pair = basic.as_ref().and_then(|pair| std::str::from_utf8(pair).ok()?.split_once(':'));
        let given = secrets.iter().chain(&sent).map(Secret::expose);
        let mut hidden: Vec<Secret> = Vec::new();
        for text in given.chain(credentials).chain(pair.map(|(_, password)| password)) {
            // The key itself may come back without the word before it.
            let bare = text.strip_prefix("whsec_").unwrap_or(text);
            let json = serde_json::to_string(bare).unwrap_or_default();
            hidden.push(bare.into());
            hidden.push(json.get(1..json.len().saturating_sub(1)).unwrap_or_default().into());
        }
        hidden.retain(|secret| secret.expose().len() >= HIDDEN_BYTES_MIN);
        // The longest first: one may be the beginning of another.
        hidden.sort_by(|one, other| {
            (other.expose().len(), other.expose()).cmp(&(one.expose().len(), one.expose()))
        });
        hidden.dedup();
        Veil(hidden)
    }

    /// The text with `***` in place of every secret, also of one that the end has cut short.
    pub fn hide(&self, text: &str) -> String {
        let mut shown = text.to_owned();
        for secret in self.0.iter().map(Secret::expose) {
            if shown.contains(secret) {
                shown = shown.replace(secret, MASK);
            }
        }
        if let Some(begun) = self.0.iter().filter_map(|secret| begun_at_end(&shown, secret.expose())).max() {
            shown.truncate(shown.len() - begun);
            shown.push_str(MASK);
        }
        shown
    }

    /// The same for bytes that need be no text: a secret is one, so it stands where text does.
    pub fn hide_bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            match chunk.valid() {
                text if text.len() < HIDDEN_BYTES_MIN => shown.extend_from_slice(text.as_bytes()),
                text => shown.extend_from_slice(self.hide(text).as_bytes()),
            }
            shown.extend_from_slice(chunk.invalid());
        }
        shown
    }
}

/// How many bytes at the end of a text are the beginning of a secret, if that is enough to tell.
fn begun_at_end(text: &str, secret: &str) -> Option<usize> {
    let longest = secret.len().min(text.len());
    (HIDDEN_BYTES_MIN..=longest)
        .rev()
        .find(|bytes| secret.is_char_boundary(*bytes) && text.ends_with(&secret[..*bytes]))
}

impl fmt::Debug for Veil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Veil({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn veil(secrets: &[&str], auth: &Auth) -> Veil {
        Veil::new(&secrets.iter().map(|text| Secret::new(*text)).collect::<Vec<_>>(), auth)
    }

    #[test]
    fn hides_every_secret_wherever_it_stands() {
        let veil = veil(&["first-secret", "whsec_MfKQ9r8GKYqrTwjU"], &Auth::None);
        assert_eq!(veil.hide("a first-secret b first-secret"), "a *** b ***");
        assert_eq!(veil.hide("key whsec_MfKQ9r8GKYqrTwjU or MfKQ9r8GKYqrTwjU"), "key whsec_*** or ***");
        assert_eq!(veil.hide("nothing"), "nothing");
    }

    #[test]
    fn hides_credentials_in_each_of_their_forms() {
        let password = Secret::new("open \"sesame\"");
        let auth = Auth::basic("Aladdin", &password).unwrap();
        let (_, value) = auth.as_header().unwrap();
        let veil = veil(&[], &auth);
        assert_eq!(veil.hide(value.expose()), "***");
        assert_eq!(veil.hide(value.expose().trim_start_matches("Basic ")), "***");
        assert_eq!(veil.hide("wrong password open \"sesame\""), "wrong password ***");
        assert_eq!(veil.hide(r#"{"password":"open \"sesame\""}"#), r#"{"password":"***"}"#);
    }

    #[test]
    fn hides_what_was_cut_short_and_the_longer_of_two() {
        let veil = veil(&["first-secret", "first-secret-and-more"], &Auth::None);
        assert_eq!(veil.hide("x first-secret-and-more y"), "x *** y");
        assert_eq!(veil.hide("x first-se"), "x ***");
        assert_eq!(veil.hide("x first"), "x first", "too short to tell");
    }

    #[test]
    fn hides_in_what_is_no_text() {
        let veil = veil(&["first-secret", "gehe\u{ed}m-secret"], &Auth::None);
        let latin = b"caf\xe9 first-secret\xe9 gehe\xc3\xadm-secret\xc3";
        assert_eq!(veil.hide_bytes(latin), b"caf\xe9 ***\xe9 ***\xc3");
        assert_eq!(veil.hide_bytes(b"\xff\x00 x \xe2\x82"), b"\xff\x00 x \xe2\x82");
        assert_eq!(veil.hide_bytes(b"\xe2first-secret \xf0\x9ffirst-se"), b"\xe2*** \xf0\x9f***");
    }

    #[test]
    fn leaves_short_secrets_alone() {
        assert_eq!(veil(&["the"], &Auth::None).hide("the end"), "the end");
    }

    #[test]
    fn shows_nothing_of_itself() {
        assert_eq!(format!("{:?}", veil(&["first-secret"], &Auth::None)), "Veil(1)");
    }
}
