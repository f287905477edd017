//! The document of a subscription, as people and programs write it.
//!
//! REST, command line and files use the same fields. The document holds secrets in the clear: it is sealed
//! before it is stored and [masked](SubscriptionSpec::masked) before it is shown. [`read`](SubscriptionSpec::read)
//! takes JSON, [`complete`](SubscriptionSpec::complete) fills in what we choose,
//! [`check`](SubscriptionSpec::check) makes a subscription of it. Each lists every fault it sees at once, and
//! [`make`](SubscriptionSpec::make) those of all three.

mod change;
mod check;
mod fill;
mod make;
mod read;
mod rotate;
mod unread;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::rotate::{Overlap, RotateFault, Rotated};

use crate::domain::secret::Secret;
use crate::domain::subscription::DisabledBy;
use crate::domain::template::UrlTemplate;

/// A subscription's document; what is absent has its default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SubscriptionSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled_by: Option<DisabledBy>,
    /// AMQP topic words: `*` is one word, `#` any number.
    pub events: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interactive: Vec<String>,
    /// Every named key must match; empty is the whole tenant.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub scope: BTreeMap<String, Vec<String>>,
    /// A condition on `data`, as `domain::filter` reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Value>,
    pub request: RequestSpec,
    /// Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthSpec>,
    /// Absent: one `standard` secret is made. Empty: unsigned on purpose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signatures: Option<Vec<SignatureSpec>>,
    /// Default: `["2xx"]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success: Option<Vec<String>>,
    /// Default: exponential, base 2, ten attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetrySpec>,
    /// Default: `ignore`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The platform whose receivers it speaks to. Its values were written into the document when that was made, so
    /// that another version of them changes nothing here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// The subscriber's own notes; never looked at.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// RFC 3339, set by us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// RFC 3339, set by us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
}

/// The `request` section.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequestSpec {
    /// Default: `POST`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
    /// `envelope`, `data`, `event`, `none` or a template. Default: `envelope`, and `none` for GET and DELETE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// What the receiver calls the event types, for a template's `{name}`: a text, a number, or an object of those.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<String, Value>,
    /// Default: `application/json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// 1 to 120, default 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
}

/// A URL may hold a password as long as the document is not complete.
impl fmt::Debug for RequestSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestSpec")
            .field("method", &self.method)
            .field("url", &self.url.as_deref().map(without_userinfo))
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

/// The `auth` section; `kind` says which of the other fields belong to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthSpec {
    /// `none`, `header`, `bearer`, `basic` or `token_request`.
    pub kind: String,
    /// Of `header`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of `header`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Secret>,
    /// Of `bearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// Of `basic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Of `basic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Of `token_request`, as all that follow: where to log in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Default: `POST`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
    /// Any JSON.
    #[serde(skip_serializing_if = "Option::is_none", with = "secret_json")]
    pub body: Option<Secret>,
    /// `json` or `form`. Default: what `headers` say of the content type, else `json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// Where the token stands in the answer. Default: `/access_token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_pointer: Option<String>,
    /// The word before the token. Default: `Bearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Where its life in seconds stands in the answer. Default: `/expires_in`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_pointer: Option<String>,
    /// How long a token is used at most, in seconds. Default: the life the answer tells, else 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_s: Option<u32>,
}

/// JSON that is a secret as a whole: JSON in the document, its text in memory, `***` where it is masked.
mod secret_json {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    use crate::domain::secret::{MASK, Secret};

    pub(super) fn serialize<S: Serializer>(
        secret: &Option<Secret>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match secret {
            Some(secret) if secret.is_mask() => MASK.serialize(serializer),
            Some(secret) => {
                let json: Value = serde_json::from_str(secret.expose()).map_err(serde::ser::Error::custom)?;
                json.serialize(serializer)
            }
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Secret>, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::String(text) if text == MASK => Some(Secret::mask()),
            json => Some(Secret::new(json.to_string())),
        })
    }
}

/// One entry of `signatures`; `scheme` says which of the other fields belong to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SignatureSpec {
    /// `standard` or `hmac`.
    pub scheme: String,
    /// Newest first. For `standard` all of them sign, for `hmac` the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Secret>,
    /// Of `standard`: secrets that were replaced and sign along for a while, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retiring: Vec<RetiringSpec>,
    /// Of `hmac`: the header that carries the signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Of `hmac`: `sha1`, `sha256` (default), `sha384` or `sha512`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// Of `hmac`: `hex` (default) or `base64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// Of `hmac`: text before the signature; default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Of `hmac`: what is signed; default `{body}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Of `hmac`: the header that carries the time in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp_header: Option<String>,
    /// Of `hmac`: the header that repeats `webhook-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_header: Option<String>,
}

/// A secret that was replaced, and until when it signs along.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetiringSpec {
    pub secret: Secret,
    /// RFC 3339; the first moment at which it no longer signs.
    pub until: String,
}

impl RetiringSpec {
    /// `until` in Unix seconds, rounded up; `None` if it is no RFC 3339.
    fn until_unix_s(&self) -> Option<i64> {
        let until: jiff::Timestamp = self.until.parse().ok()?;
        Some(until.as_second() + i64::from(until.subsec_nanosecond() > 0))
    }
}

/// The `retry` section; `kind` says which of the other fields belong to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySpec {
    /// `exponential` (default), `fixed`, `list` or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Of `exponential`, default 2: after failed attempt n, base^n units are waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<u32>,
    /// Of `exponential`, default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit_s: Option<u32>,
    /// Of `exponential` and `fixed`: 1 to 100, default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Of `fixed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_s: Option<u32>,
    /// Of `list`: one attempt more than there are delays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delays_s: Option<Vec<u32>>,
    /// What is worth another attempt; default: everything that is not a success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<String>>,
    /// Whether `Retry-After` may lengthen a wait; default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<bool>,
    /// By how much of itself a wait may be lengthened at random: 0 (default) to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
    /// What a 410 does: `dead` (default), or `retry` as any other failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_gone: Option<String>,
    /// What becomes of attempts while a receiver is down: `burn` (default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when_down: Option<String>,
}

impl SubscriptionSpec {
    /// The document as it may be shown: `***` for every secret, and no credentials in the URL.
    #[must_use]
    pub fn masked(&self) -> SubscriptionSpec {
        let mut shown = self.clone();
        for (_, secret) in shown.secrets_mut() {
            *secret = Secret::mask();
        }
        shown.request.url = shown.request.url.map(|url| without_userinfo(&url));
        shown
    }

    /// Every secret of the document, for hiding them in what a stranger sends back.
    pub fn secrets(&self) -> Vec<Secret> {
        let mut all: Vec<Secret> =
            self.clone().secrets_mut().into_iter().map(|(_, secret)| secret.clone()).collect();
        // A stranger would send back a part of a login's body rather than all of it.
        let body = self.auth.as_ref().and_then(|auth| auth.body.as_ref());
        let fields = body.and_then(|body| serde_json::from_str::<Map<String, Value>>(body.expose()).ok());
        let texts = fields.into_iter().flat_map(Map::into_values);
        all.extend(texts.filter_map(|value| value.as_str().map(Secret::from)));
        all
    }

    /// Every secret of the document, with its field.
    fn secrets_mut(&mut self) -> Vec<(String, &mut Secret)> {
        let headers =
            self.request.headers.iter_mut().map(|(name, value)| (format!("request.headers.{name}"), value));
        let auth = self.auth.iter_mut().flat_map(|auth| {
            let values = [
                ("value", &mut auth.value),
                ("token", &mut auth.token),
                ("password", &mut auth.password),
                ("body", &mut auth.body),
            ];
            let values = values
                .into_iter()
                .filter_map(|(name, value)| Some((format!("auth.{name}"), value.as_mut()?)));
            let headers = auth.headers.iter_mut();
            values.chain(headers.map(|(name, value)| (format!("auth.headers.{name}"), value)))
        });
        let signatures = self.signatures.iter_mut().flatten().enumerate().flat_map(|(scheme, signature)| {
            let field = format!("signatures[{scheme}]");
            let live = signature.secrets.iter_mut().enumerate();
            let live = live.map(|(index, secret)| (format!("{field}.secrets[{index}]"), secret));
            let retiring = signature.retiring.iter_mut().enumerate();
            let retiring = retiring
                .map(|(index, entry)| (format!("{field}.retiring[{index}].secret"), &mut entry.secret));
            live.chain(retiring).collect::<Vec<_>>()
        });
        headers.chain(auth).chain(signatures).collect()
    }

    /// Moves `user:password@` from the URL to `auth`, unless `auth` says something else: that is a fault
    /// which [`SubscriptionSpec::check`] names.
    fn move_userinfo_to_auth(&mut self) {
        if self.auth.as_ref().is_some_and(|auth| auth.kind != "none") {
            return;
        }
        let parsed = self.request.url.as_deref().map(UrlTemplate::parse);
        if let Some(Ok((url, Some(userinfo)))) = parsed {
            self.request.url = Some(url.to_string());
            self.auth = Some(AuthSpec {
                kind: "basic".to_owned(),
                username: Some(userinfo.username),
                password: Some(userinfo.password),
                ..Default::default()
            });
        }
    }
}

/// Cuts everything up to the last `@` of the authority; works on texts that are no URL as well.
fn without_userinfo(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + "://".len());
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    match url[start..end].rfind('@') {
        Some(at) => format!("{}{}", &url[..start], &url[start + at + 1..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::name::SubscriptionId;
    use serde_json::json;

    const NOW: &str = "2026-11-22T09:00:07Z";

    fn spec(document: Value) -> SubscriptionSpec {
        SubscriptionSpec::read(document).unwrap()
    }

    fn id() -> SubscriptionId {
        SubscriptionId::parse("sub_new").unwrap()
    }

    fn with_every_secret() -> SubscriptionSpec {
        spec(json!({
            "tenant": "acme", "events": ["#"], "metadata": {"note": null},
            "request": {"url": "https://u:canary@h.example/x", "headers": {"X-Key": "canary"}},
            "auth": {"kind": "basic", "username": "u", "password": "canary", "token": "canary", "value": "canary"},
            "signatures": [{"scheme": "standard", "secrets": ["canary", "canary"],
                            "retiring": [{"secret": "canary", "until": "2026-11-22T09:00:07Z"}]}],
        }))
    }

    #[test]
    fn completing_makes_a_secret_only_where_none_is_named() {
        let mut silent =
            spec(json!({"tenant": "acme", "events": ["#"], "request": {"url": "https://h.example/x"}}));
        let secret = silent.complete(id(), NOW, [7; 32]).unwrap().unwrap();
        assert!(secret.expose().starts_with("whsec_"));
        assert_eq!(silent.signatures.as_ref().unwrap()[0].secrets, [secret]);
        assert!(silent.check().is_ok());
        for signatures in [json!([]), json!([{"scheme": "hmac", "header": "X-S", "secrets": ["s"]}])] {
            let mut named = spec(json!({"signatures": signatures}));
            assert_eq!(named.complete(id(), NOW, [7; 32]), Ok(None));
        }
    }

    #[test]
    fn completing_keeps_the_id_and_birthday_of_an_import() {
        let mut new = spec(json!({}));
        new.complete(id(), NOW, [7; 32]).unwrap();
        let times = (new.created_at.as_deref(), new.updated_at.as_deref());
        assert_eq!((new.id.as_deref(), times), (Some("sub_new"), (Some(NOW), Some(NOW))));
        let mut old = spec(json!({"id": "sub_old", "created_at": "2025-01-01T00:00:00Z", "enabled": false}));
        old.complete(id(), NOW, [7; 32]).unwrap();
        let kept = (old.id.as_deref(), old.created_at.as_deref(), old.enabled);
        assert_eq!(kept, (Some("sub_old"), Some("2025-01-01T00:00:00Z"), Some(false)));
    }

    #[test]
    fn credentials_in_the_url_become_auth() {
        let mut spec =
            spec(json!({"request": {"url": "https://u%40x:p%3Aw@h.example/:id"}, "auth": {"kind": "none"}}));
        spec.complete(id(), NOW, [7; 32]).unwrap();
        assert_eq!(spec.request.url.as_deref(), Some("https://h.example/:id"));
        let auth = spec.auth.unwrap();
        assert_eq!((auth.kind.as_str(), auth.username.as_deref()), ("basic", Some("u@x")));
        assert_eq!(auth.password, Some(Secret::new("p:w")));
    }

    #[test]
    fn a_masked_document_shows_no_secret_and_keeps_the_rest() {
        let masked = with_every_secret().masked();
        let shown = serde_json::to_value(&masked).unwrap();
        assert!(!shown.to_string().contains("canary"), "{shown}");
        assert_eq!(shown["request"], json!({"url": "https://h.example/x", "headers": {"X-Key": "***"}}));
        assert_eq!(shown["signatures"][0]["secrets"], json!(["***", "***"]));
        assert_eq!(shown["signatures"][0]["retiring"][0]["secret"], "***");
        assert_eq!(shown["metadata"], json!({"note": null}));
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", with_every_secret());
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn a_stored_document_reads_back_the_same() {
        let mut spec = with_every_secret();
        spec.complete(id(), NOW, [7; 32]).unwrap();
        spec.retry =
            Some(RetrySpec { jitter: Some(0.1), on: Some(vec!["5xx".to_owned()]), ..Default::default() });
        let json = serde_json::to_string(&spec).unwrap();
        assert!(json.contains("canary"));
        assert_eq!(serde_json::from_str::<SubscriptionSpec>(&json).unwrap(), spec);
    }

    #[test]
    fn credentials_are_cut_from_any_text() {
        for (url, cut) in [
            ("https://u:p@h/x@y", "https://h/x@y"),
            ("https://u:p@q@h", "https://h"),
            ("u:p@h/x", "h/x"),
            ("https://h/x", "https://h/x"),
            ("", ""),
        ] {
            assert_eq!(without_userinfo(url), cut);
        }
    }
}
