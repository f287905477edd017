//! A login before the delivery: what to ask for a token, and how to read what comes back.
//!
//! Plain data and decisions; fetching, caching and sharing are the HTTP edge's.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use url::{Url, form_urlencoded};

use crate::domain::fault::Fault;
use crate::domain::headers;
use crate::domain::pointer::{self, Pointer, Scalar};
use crate::domain::request::{Method, Request, USER_AGENT};
use crate::domain::secret::Secret;
use crate::domain::template::UrlTemplate;

/// The most of a login's answer that is read.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long a token is used where neither the answer nor the subscription says.
pub const LIFE_S_DEFAULT: u64 = 60;
/// The longest life that is believed: a day.
pub const LIFE_S_MAX: u64 = 86_400;
/// The longest token.
const TOKEN_BYTES_MAX: usize = headers::VALUE_BYTES_MAX - 64;
const BODY_BYTES_MAX: usize = 16 * 1024;
const EXPIRES_POINTER_DEFAULT: &str = "/expires_in";
const TOKEN_POINTER_DEFAULT: &str = "/access_token";

/// What a subscription says about its login; checked by [`TokenRequest::new`].
#[derive(Clone, Debug, Default)]
pub struct Settings<'a> {
    /// `POST` if absent.
    pub method: Option<&'a str>,
    pub url: &'a str,
    pub headers: Vec<(&'a str, &'a Secret)>,
    /// JSON text.
    pub body: Option<&'a Secret>,
    /// `json` or `form`; else what a `Content-Type` among the headers says; else `json`.
    pub encoding: Option<&'a str>,
    /// `/access_token` if absent.
    pub token_pointer: Option<&'a str>,
    /// `Bearer` if absent; empty sends the token alone.
    pub scheme: Option<&'a str>,
    /// `/expires_in` if absent: seconds, as a number or a text.
    pub expires_pointer: Option<&'a str>,
    /// The most a token is used, in seconds; 0 logs in before every attempt.
    pub cache_s: Option<u32>,
}

/// A login that can be carried out.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenRequest {
    method: Method,
    url: Url,
    headers: Vec<(String, Secret)>,
    body: Secret,
    token_pointer: String,
    scheme: String,
    expires_pointer: String,
    cache_s: Option<u32>,
    key: [u8; 32],
}

/// A token as it goes out, and how long it may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The finished value of `authorization`.
    pub value: Secret,
    /// Zero: for this attempt only.
    pub life: Duration,
}

/// Why a login's answer brings no token. Holds nothing of the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    #[error("the login answered {status}")]
    Status { status: u16 },
    #[error("the login's answer is not JSON")]
    NotJson,
    #[error("the login's answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    #[error("the login's answer has no text at `{pointer}`")]
    NoToken { pointer: String },
    #[error("the login's token cannot be sent in a header")]
    Unfit,
}

impl TokenRequest {
    /// Checks the settings and writes the body.
    ///
    /// # Errors
    /// Every fault of the settings, with the setting's name as field.
    pub fn new(settings: &Settings<'_>) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let method = Method::parse(settings.method.unwrap_or("POST"));
        if method.is_none() {
            let fault = Fault::new("method", "is unknown");
            faults.push(fault.hint("known are `POST`, `PUT`, `PATCH`, `GET` and `DELETE`"));
        }
        let url = check_url(settings.url).map_err(|fault| faults.push(fault.under("url"))).ok();
        let listed = headers::check_list(settings.headers.iter().copied());
        faults.extend(listed.into_iter().map(|fault| fault.under("headers")));
        let mut headers: Vec<(String, Secret)> =
            settings.headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).clone())).collect();
        let body = write_body(settings, &mut headers).map_err(|fault| faults.push(fault)).ok();
        let token_pointer = settings.token_pointer.unwrap_or(TOKEN_POINTER_DEFAULT);
        let expires_pointer = settings.expires_pointer.unwrap_or(EXPIRES_POINTER_DEFAULT);
        for (field, text) in [("token_pointer", token_pointer), ("expires_pointer", expires_pointer)] {
            faults.extend(Pointer::parse(text).err().map(|fault| Fault::new(field, fault.to_string())));
        }
        let scheme = settings.scheme.unwrap_or("Bearer");
        if scheme.len() > 32 || !scheme.bytes().all(|byte| byte.is_ascii_graphic()) {
            let fault = Fault::new("scheme", "must be one word of at most 32 visible ASCII characters");
            faults.push(fault.hint("for example `Bearer`; empty sends the token alone"));
        }
        let (Some(method), Some(url), Some(body)) = (method, url, body) else { return Err(faults) };
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut login = TokenRequest {
            method,
            url,
            headers,
            body,
            token_pointer: token_pointer.to_owned(),
            scheme: scheme.to_owned(),
            expires_pointer: expires_pointer.to_owned(),
            cache_s: settings.cache_s,
            key: [0; 32],
        };
        login.key = login.fingerprint();
        Ok(login)
    }

    /// What tells this login from every other one: a hash over all of it, credentials included.
    pub fn key(&self) -> [u8; 32] {
        self.key
    }

    /// Where it goes, for checks of the address when a subscription is made.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Every text that must not be seen.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.headers.iter().map(|(_, value)| value).chain([&self.body])
    }

    /// Whether a token may be used more than once.
    pub fn may_be_kept(&self) -> bool {
        self.cache_s != Some(0)
    }

    /// The request to send.
    pub fn request(&self, timeout: Duration) -> Request {
        let mut all = HeaderMap::with_capacity(self.headers.len() + 2);
        all.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        all.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        for (name, value) in &self.headers {
            // Both were checked when the subscription was made.
            let pair = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value.expose()));
            if let (Ok(name), Ok(mut value)) = pair {
                value.set_sensitive(true);
                all.insert(name, value);
            }
        }
        let body = Bytes::copy_from_slice(self.body.expose().as_bytes());
        Request {
            method: self.method,
            url: self.url.clone(),
            headers: all,
            body: body.into(),
            timeout,
            reads_answer: false,
            token: None,
        }
    }

    /// Reads a login's answer.
    ///
    /// # Errors
    /// A [`TokenFault`] when there is no token in it that could be sent.
    pub fn read(&self, status: u16, body: &[u8]) -> Result<Token, TokenFault> {
        if !(200..300).contains(&status) {
            return Err(TokenFault::Status { status });
        }
        let answer: &RawValue = serde_json::from_slice(body).map_err(|_| TokenFault::NotJson)?;
        let text = |text: &str| match pointer::scalar(Pointer::parse(text).ok()?.find(answer)?) {
            Scalar::Text(text) => Some(text),
            Scalar::Null | Scalar::Other => None,
        };
        let token = text(&self.token_pointer).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| TokenFault::NoToken { pointer: self.token_pointer.clone() })?;
        if token.len() > TOKEN_BYTES_MAX || !headers::is_value(&token) {
            return Err(TokenFault::Unfit);
        }
        let value =
            if self.scheme.is_empty() { token.into_owned() } else { format!("{} {token}", self.scheme) };
        let told_s = text(&self.expires_pointer).and_then(|seconds| whole_seconds(&seconds));
        Ok(Token { value: Secret::new(value), life: Duration::from_secs(self.life_s(told_s)) })
    }

    /// The shorter of what the answer and the subscription say, less a tenth (at most 30 s) of the former: a token
    /// that ends on its way is refused.
    fn life_s(&self, told_s: Option<u64>) -> u64 {
        let told_s = told_s.map(|life_s| life_s.min(LIFE_S_MAX)).map(|life_s| life_s - (life_s / 10).min(30));
        let cache_s = self.cache_s.map(u64::from);
        told_s.into_iter().chain(cache_s).min().unwrap_or(LIFE_S_DEFAULT).min(LIFE_S_MAX)
    }

    fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let cache = format!("{:?}", self.cache_s);
        let fixed = [
            self.method.as_str(),
            self.url.as_str(),
            self.body.expose(),
            &self.token_pointer,
            &self.scheme,
            &self.expires_pointer,
            &cache,
        ];
        let headers = self.headers.iter().flat_map(|(name, value)| [name.as_str(), value.expose()]);
        for part in fixed.into_iter().chain(headers) {
            // Lengths keep the parts apart.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

/// Shows where it goes and no more.
impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRequest").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

fn whole_seconds(text: &str) -> Option<u64> {
    let whole = text.split('.').next().unwrap_or_default();
    (!whole.is_empty() && whole.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| whole.parse().unwrap_or(u64::MAX))
}

fn check_url(text: &str) -> Result<Url, Fault> {
    if text.is_empty() {
        return Err(Fault::new("", "is missing: `token_request` needs it"));
    }
    let (template, userinfo) = UrlTemplate::parse(text)?;
    if userinfo.is_some() {
        return Err(Fault::new("", "holds credentials").hint("put them into `headers` or `body`"));
    }
    if !template.is_fixed() {
        return Err(Fault::new("", "holds a placeholder: a login is the same for every event"));
    }
    Url::parse(text).map_err(|reason| Fault::new("", format!("is not a URL: {reason}")))
}

/// The body's text; adds the content type where the headers name none.
fn write_body(settings: &Settings<'_>, headers: &mut Vec<(String, Secret)>) -> Result<Secret, Fault> {
    let given = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let says_form = given.is_some_and(|(_, value)| {
        value.expose().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded")
    });
    let is_form = match settings.encoding {
        Some("form") => true,
        Some("json") => false,
        None => says_form,
        Some(_) => return Err(Fault::new("encoding", "is unknown").hint("known are `json` and `form`")),
    };
    let Some(json) = settings.body else { return Ok(Secret::default()) };
    if json.expose().len() > BODY_BYTES_MAX {
        return Err(Fault::new("body", format!("is longer than {BODY_BYTES_MAX} bytes")));
    }
    if given.is_none() {
        let kind = if is_form { "application/x-www-form-urlencoded" } else { "application/json" };
        headers.push(("content-type".to_owned(), Secret::new(kind)));
    }
    if !is_form {
        return Ok(json.clone());
    }
    let flat = || Fault::new("body", "must be an object of texts, numbers and booleans as a form");
    let Ok(Value::Object(fields)) = serde_json::from_str(json.expose()) else { return Err(flat()) };
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in fields {
        let value = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => return Err(flat()),
        };
        form.append_pair(&name, &value);
    }
    Ok(Secret::new(form.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN: &str = "http://localhost:5000/login";

    fn login(body: &str, encoding: Option<&str>, cache_s: Option<u32>) -> TokenRequest {
        let body = Secret::new(body);
        let settings = Settings { url: LOGIN, body: Some(&body), encoding, cache_s, ..Settings::default() };
        TokenRequest::new(&settings).unwrap()
    }

    fn fields(settings: &Settings<'_>) -> Vec<String> {
        TokenRequest::new(settings).unwrap_err().into_iter().map(|fault| fault.field).collect()
    }

    fn header<'a>(request: &'a Request, name: &str) -> &'a str {
        request.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[test]
    fn a_body_is_a_form_where_its_content_type_says_so() {
        let (form, body) = (
            Secret::new("application/x-www-form-urlencoded"),
            Secret::new(r#"{"password":"r&t =","username":"root"}"#),
        );
        let headers = vec![("Content-Type", &form)];
        let settings = Settings { url: LOGIN, headers, body: Some(&body), ..Settings::default() };
        let request = TokenRequest::new(&settings).unwrap().request(Duration::from_secs(1));
        assert_eq!(request.body.joined(), "password=r%26t+%3D&username=root");
        assert_eq!(header(&request, "content-type"), "application/x-www-form-urlencoded");

        let json = login(r#"{"a":1}"#, None, None).request(Duration::from_secs(1));
        assert_eq!(
            (json.method, &json.body.joined()[..], header(&json, "content-type")),
            (Method::Post, &br#"{"a":1}"#[..], "application/json")
        );
        let asked = login(r#"{"a":1}"#, Some("form"), None).request(Duration::from_secs(1));
        assert_eq!(
            (&asked.body.joined()[..], header(&asked, "content-type")),
            (&b"a=1"[..], "application/x-www-form-urlencoded")
        );
    }

    #[test]
    fn the_token_is_read_where_the_pointer_says() {
        let read = |body: &str| login("{}", None, None).read(200, body.as_bytes());
        assert_eq!(read(r#"{"access_token":"t0k"}"#).unwrap().value.expose(), "Bearer t0k");
        for body in [r#"{"token":"t"}"#, r#"{"access_token":""}"#, r#"{"access_token":{"a":1}}"#, "[]"] {
            assert!(matches!(read(body), Err(TokenFault::NoToken { .. })), "{body}");
        }
        assert_eq!(read("<html>"), Err(TokenFault::NotJson));
        assert_eq!(read(r#"{"access_token":"a\r\nHost: evil"}"#), Err(TokenFault::Unfit));
        assert_eq!(login("{}", None, None).read(401, b"{}"), Err(TokenFault::Status { status: 401 }));
        let nested =
            Settings { url: LOGIN, token_pointer: Some("/a/0/t"), scheme: Some(""), ..Settings::default() };
        let token = TokenRequest::new(&nested).unwrap().read(201, br#"{"a":[{"t":"x"}]}"#).unwrap();
        assert_eq!(token.value.expose(), "x");
    }

    #[test]
    fn a_token_is_used_within_its_life_and_no_longer_than_told() {
        let life = |cache_s, body: &str| {
            login("{}", None, cache_s).read(200, body.as_bytes()).unwrap().life.as_secs()
        };
        assert_eq!(life(None, r#"{"access_token":"t"}"#), 60);
        assert_eq!(life(None, r#"{"access_token":"t","expires_in":3600}"#), 3570);
        assert_eq!(life(None, r#"{"access_token":"t","expires_in":"20"}"#), 18);
        assert_eq!(life(None, r#"{"access_token":"t","expires_in":20.5}"#), 18);
        assert_eq!(life(Some(5), r#"{"access_token":"t","expires_in":3600}"#), 5);
        assert_eq!(life(Some(7200), r#"{"access_token":"t"}"#), 7200);
        assert_eq!(life(Some(0), r#"{"access_token":"t","expires_in":3600}"#), 0);
        assert_eq!(life(None, r#"{"access_token":"t","expires_in":0}"#), 0);
        assert_eq!(life(None, r#"{"access_token":"t","expires_in":999999999999}"#), 86_370);
    }

    #[test]
    fn every_wrong_setting_is_named_at_once() {
        let body = Secret::new(r#"{"a":[]}"#);
        let settings = Settings {
            method: Some("post"),
            url: "ftp://x",
            body: Some(&body),
            encoding: Some("form"),
            token_pointer: Some("a"),
            scheme: Some("a b"),
            expires_pointer: Some("b"),
            ..Settings::default()
        };
        assert_eq!(
            fields(&settings),
            ["method", "url", "body", "token_pointer", "expires_pointer", "scheme"]
        );
        for url in ["", "https://u:p@h.example/", "https://h.example/:id"] {
            assert_eq!(fields(&Settings { url, ..Settings::default() }), ["url"], "{url}");
        }
    }

    #[test]
    fn logins_that_differ_in_anything_differ_in_their_key() {
        let logins = [login("{}", None, None), login(r#"{"a":1}"#, None, None), login("{}", None, Some(1))];
        assert!(logins[0].key() != logins[1].key() && logins[0].key() != logins[2].key());
        assert_eq!(logins[0].key(), login("{}", None, None).key());
    }

    #[test]
    fn debug_shows_no_credentials() {
        let shown = format!("{:?}", login(r#"{"password":"canary"}"#, None, None));
        assert!(!shown.contains("canary") && shown.contains("localhost"), "{shown}");
    }
}
