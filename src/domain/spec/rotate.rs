//! A new signing secret in place of the old one, which signs along for a while.

use data_encoding::HEXLOWER;
use jiff::Timestamp;

use super::{RetiringSpec, SubscriptionSpec};
use crate::domain::secret::Secret;
use crate::domain::signature::standard::{SECRETS_MAX, Standard};

/// How long an old secret signs along: none at all to 7 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap {
    seconds: u32,
}

impl Overlap {
    const SECONDS_MAX: u32 = 7 * 86_400;

    /// Reads `0`, or a whole number with `s`, `m`, `h` or `d`.
    ///
    /// # Errors
    /// A sentence that says what can be written.
    pub fn parse(text: &str) -> Result<Overlap, String> {
        let (number, unit_s) = match text.as_bytes().last() {
            Some(b's') => (&text[..text.len() - 1], 1),
            Some(b'm') => (&text[..text.len() - 1], 60),
            Some(b'h') => (&text[..text.len() - 1], 3_600),
            Some(b'd') => (&text[..text.len() - 1], 86_400),
            _ if text == "0" => (text, 1),
            _ => ("", 1),
        };
        let is_whole = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if !is_whole {
            return Err("write `0` or a whole number with its unit: `90m`, `24h`, `7d`".to_owned());
        }
        let seconds = number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit_s));
        match seconds.filter(|seconds| *seconds <= Self::SECONDS_MAX) {
            Some(seconds) => Ok(Overlap { seconds }),
            None => Err("an old secret can sign along for 7 days at most".to_owned()),
        }
    }

    fn is_none(self) -> bool {
        self.seconds == 0
    }
}

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The secret that signs from now on.
    pub secret: Secret,
    /// RFC 3339: when the secrets before it end; `None` if they have ended.
    pub until: Option<String>,
}

/// Why a secret was not rotated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RotateFault {
    #[error("the subscription is unsigned: there is no secret to rotate")]
    Unsigned,
    #[error("scheme `hmac` sends one signature: its old secret cannot sign along")]
    NoOverlap,
    #[error("the subscription has several `hmac` signatures: which one is not said")]
    Several,
    #[error("this secret is one of the subscription's already")]
    Known,
    #[error("{count} secrets would sign at once; at most {SECRETS_MAX} can")]
    TooMany { count: usize },
}

impl RotateFault {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            RotateFault::Unsigned => "give it `signatures` with `paperboy subscription update`",
            RotateFault::NoOverlap => "`--overlap 0` replaces it at once; have the receiver ready",
            RotateFault::Several => "replace the secret with `paperboy subscription update --file`",
            RotateFault::Known => "leave `--secret` out and one is made",
            RotateFault::TooMany { .. } => {
                "wait until older ones have ended, or end them all with `--overlap 0`"
            }
        }
    }
}

impl SubscriptionSpec {
    /// Puts a new secret first in the `standard` signature, or in the only `hmac` one where there is no other.
    ///
    /// All secrets before it sign along until `overlap` has passed, none longer; with no overlap they end
    /// at once. `given` is the new secret if somebody chose it, `random` makes it otherwise.
    ///
    /// # Errors
    /// A [`RotateFault`]; then nothing has changed. Whether a given secret is well formed is for
    /// [`SubscriptionSpec::check`].
    pub fn rotate(
        &mut self,
        given: Option<Secret>,
        random: [u8; 32],
        now_unix_s: i64,
        overlap: Overlap,
    ) -> Result<Rotated, RotateFault> {
        let signatures = self.signatures.as_deref_mut().unwrap_or_default();
        let standard = signatures.iter().position(|signature| signature.scheme == "standard");
        let signature = match (standard, signatures.len()) {
            (Some(place), _) => &mut signatures[place],
            (None, 0) => return Err(RotateFault::Unsigned),
            (None, 1) => &mut signatures[0],
            (None, _) => return Err(RotateFault::Several),
        };
        let known = signature.secrets.iter().chain(signature.retiring.iter().map(|old| &old.secret));
        if given.as_ref().is_some_and(|given| known.into_iter().any(|secret| secret == given)) {
            return Err(RotateFault::Known);
        }
        if standard.is_none() {
            if !overlap.is_none() {
                return Err(RotateFault::NoOverlap);
            }
            let secret = given.unwrap_or_else(|| Secret::new(HEXLOWER.encode(&random)));
            signature.secrets = vec![secret.clone()];
            return Ok(Rotated { secret, until: None });
        }

        let end_unix_s = now_unix_s.saturating_add(i64::from(overlap.seconds));
        let end = Timestamp::from_second(end_unix_s).unwrap_or(Timestamp::MAX).to_string();
        let mut retiring = Vec::new();
        if !overlap.is_none() {
            let live = signature.secrets.iter();
            retiring.extend(live.map(|secret| RetiringSpec { secret: secret.clone(), until: end.clone() }));
            for old in &signature.retiring {
                match old.until_unix_s() {
                    Some(until_unix_s) if until_unix_s <= now_unix_s => {}
                    Some(until_unix_s) if until_unix_s <= end_unix_s => retiring.push(old.clone()),
                    _ => retiring.push(RetiringSpec { secret: old.secret.clone(), until: end.clone() }),
                }
            }
        }
        if 1 + retiring.len() > SECRETS_MAX {
            return Err(RotateFault::TooMany { count: 1 + retiring.len() });
        }
        let secret = given.unwrap_or_else(|| Standard::secret_from_random(random));
        signature.secrets = vec![secret.clone()];
        signature.retiring = retiring;
        Ok(Rotated { secret, until: (!overlap.is_none()).then_some(end) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: i64 = 1_767_323_045;
    const DAY: i64 = 86_400;

    fn spec(signatures: Value) -> SubscriptionSpec {
        let document = json!({
            "id": "sub_1", "tenant": "acme", "events": ["#"], "signatures": signatures,
            "request": {"url": "https://h.example/x"},
        });
        SubscriptionSpec::read(document).unwrap()
    }

    fn standard(byte: u8) -> SubscriptionSpec {
        spec(json!([{"scheme": "standard", "secrets": [key(byte).expose()]}]))
    }

    fn key(byte: u8) -> Secret {
        Standard::secret_from_random([byte; 32])
    }

    fn overlap(text: &str) -> Overlap {
        Overlap::parse(text).unwrap()
    }

    /// The bytes of the secrets that sign at a moment, newest first.
    fn live(spec: &SubscriptionSpec, now_unix_s: i64) -> Vec<u8> {
        let sign = |spec: &SubscriptionSpec| {
            let mut headers = http::HeaderMap::new();
            spec.check().unwrap().signatures[0].sign("e", now_unix_s, &b"{}".to_vec().into(), &mut headers);
            headers["webhook-signature"].to_str().unwrap().to_owned()
        };
        let signatures = sign(spec);
        let byte_of = |signature| (0..=u8::MAX).find(|byte| sign(&standard(*byte)) == signature).unwrap();
        signatures.split(' ').map(byte_of).collect()
    }

    #[test]
    fn the_old_secret_signs_along_until_the_overlap_ends() {
        let mut spec = standard(1);
        let rotated = spec.rotate(None, [2; 32], NOW, overlap("24h")).unwrap();
        assert_eq!(rotated, Rotated { secret: key(2), until: Some("2026-01-03T03:04:05Z".to_owned()) });
        assert_eq!(live(&spec, NOW), [2, 1]);
        assert_eq!(live(&spec, NOW + DAY - 1), [2, 1]);
        assert_eq!(live(&spec, NOW + DAY), [2]);
    }

    #[test]
    fn after_the_overlap_only_the_newest_signs_whatever_was_promised_before() {
        let mut spec = standard(1);
        spec.rotate(None, [2; 32], NOW, overlap("7d")).unwrap();
        spec.rotate(None, [3; 32], NOW + 60, overlap("1h")).unwrap();
        assert_eq!(live(&spec, NOW + 60), [3, 2, 1]);
        assert_eq!(live(&spec, NOW + 3_660), [3]);
        spec.rotate(None, [4; 32], NOW + 120, overlap("24h")).unwrap();
        assert_eq!(live(&spec, NOW + 3_659), [4, 3, 2, 1]);
        assert_eq!(live(&spec, NOW + 3_660), [4, 3], "a time that was given is not lengthened");
    }

    #[test]
    fn without_overlap_every_older_secret_ends_at_once() {
        let mut spec = standard(1);
        spec.rotate(None, [2; 32], NOW, overlap("7d")).unwrap();
        let rotated = spec.rotate(Some(key(3)), [9; 32], NOW, overlap("0")).unwrap();
        assert_eq!(rotated, Rotated { secret: key(3), until: None });
        assert_eq!(live(&spec, NOW), [3]);
    }

    #[test]
    fn what_has_ended_is_forgotten_and_what_lives_is_bounded() {
        let mut spec = standard(0);
        for byte in 1..10 {
            spec.rotate(None, [byte; 32], NOW, overlap("1h")).unwrap();
        }
        let before = spec.clone();
        let fault = spec.rotate(None, [10; 32], NOW, overlap("1h")).unwrap_err();
        assert_eq!((fault, &spec), (RotateFault::TooMany { count: 11 }, &before));
        spec.rotate(None, [10; 32], NOW + 3_600, overlap("1h")).unwrap();
        assert_eq!(live(&spec, NOW + 3_600), [10, 9]);
        assert_eq!(spec.signatures.unwrap()[0].retiring.len(), 1);
    }

    #[test]
    fn an_hmac_secret_is_replaced_at_once_or_not_at_all() {
        let hmac = json!({"scheme": "hmac", "header": "X-S", "secrets": ["old"]});
        let mut one = spec(json!([hmac]));
        assert_eq!(one.rotate(None, [2; 32], NOW, overlap("24h")), Err(RotateFault::NoOverlap));
        let rotated = one.rotate(None, [2; 32], NOW, overlap("0")).unwrap();
        assert_eq!((rotated.secret.expose(), rotated.until), ("02".repeat(32).as_str(), None));
        assert_eq!(one.signatures.as_ref().unwrap()[0].secrets, [rotated.secret]);
        assert!(one.check().is_ok());
        let mut two = spec(json!([hmac, hmac]));
        assert_eq!(two.rotate(None, [2; 32], NOW, overlap("0")), Err(RotateFault::Several));
        assert_eq!(spec(json!([])).rotate(None, [2; 32], NOW, overlap("0")), Err(RotateFault::Unsigned));
    }

    #[test]
    fn a_secret_that_is_there_is_not_rotated_to() {
        let mut spec = standard(1);
        spec.rotate(None, [2; 32], NOW, overlap("1h")).unwrap();
        for byte in [1, 2] {
            assert_eq!(spec.rotate(Some(key(byte)), [9; 32], NOW, overlap("1h")), Err(RotateFault::Known));
        }
    }

    #[test]
    fn an_overlap_is_none_to_seven_days() {
        for (text, seconds) in [
            ("0", 0),
            ("0h", 0),
            ("90s", 90),
            ("15m", 900),
            ("24h", 86_400),
            ("7d", 604_800),
            ("168h", 604_800),
        ] {
            assert_eq!(Overlap::parse(text).unwrap().seconds, seconds, "{text}");
        }
        for text in
            ["", "h", "1", "24", "-1h", "+1h", "1.5h", "8d", "169h", "1w", "24 h", "99999999999d", "é"]
        {
            assert!(Overlap::parse(text).is_err(), "{text}");
        }
    }
}
