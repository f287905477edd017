//! HMAC in the form a receiver already knows: GitHub, Rossum, Ocrolus and most others are settings of this.
//!
//! The secret is used as its UTF-8 bytes, never decoded. Of several secrets the first, the newest, signs:
//! receivers of these schemes expect one value, so a rotation here is a change of the receiver first.

use std::fmt;

use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use crate::domain::fault::Fault;
use crate::domain::headers;
use crate::domain::payload::Payload;
use crate::domain::secret::Secret;

const SECRET_BYTES: std::ops::RangeInclusive<usize> = 1..=512;
const PREFIX_BYTES_MAX: usize = 128;
const CONTENT_BYTES_MAX: usize = 512;

/// What a subscription says about the scheme; checked by [`HmacScheme::new`].
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    /// The header that carries the signature.
    pub header: &'a str,
    /// `sha1`, `sha256`, `sha384` or `sha512`.
    pub algorithm: &'a str,
    /// `hex` (lower case) or `base64` (RFC 4648 §4).
    pub encoding: &'a str,
    /// Text before the signature, such as `sha256=`.
    pub prefix: &'a str,
    /// What is signed: text with `{body}` and, if wanted, `{timestamp}` and `{id}`.
    pub content: &'a str,
    /// The header that carries the attempt's time in Unix seconds, if any.
    pub timestamp_header: Option<&'a str>,
    /// The header that repeats the value of `webhook-id`, if any.
    pub id_header: Option<&'a str>,
    /// Newest first; the first one signs.
    pub secrets: &'a [Secret],
}

/// The scheme with its key set up.
#[derive(Clone)]
pub struct HmacScheme {
    header: HeaderName,
    /// Boxed, because a prepared key is much larger than all the rest.
    key: Box<Key>,
    encoding: Encoding,
    prefix: String,
    content: Vec<Piece>,
    timestamp_header: Option<HeaderName>,
    id_header: Option<HeaderName>,
}

impl HmacScheme {
    /// Checks the settings and prepares the key.
    ///
    /// # Errors
    /// Every fault of the settings, with the setting's name as field.
    pub fn new(settings: &Settings<'_>) -> Result<Self, Vec<Fault>> {
        let mut faults = check_texts(settings);
        let mut keep = |fault: Fault| faults.push(fault);
        let encoding = Encoding::parse(settings.encoding).map_err(&mut keep).ok();
        let content = parse_content(settings.content).map_err(&mut keep).ok();
        let newest = settings.secrets.first().map_or("", Secret::expose);
        let key = Key::new(settings.algorithm, newest.as_bytes()).map_err(&mut keep).ok();
        let name = |text: &str| HeaderName::from_bytes(text.as_bytes()).ok();
        match (encoding, content, key, name(settings.header)) {
            (Some(encoding), Some(content), Some(key), Some(header)) if faults.is_empty() => Ok(HmacScheme {
                header,
                key: Box::new(key),
                encoding,
                prefix: settings.prefix.to_owned(),
                content,
                timestamp_header: settings.timestamp_header.and_then(name),
                id_header: settings.id_header.and_then(name),
            }),
            _ => Err(faults),
        }
    }

    /// Adds the time and id headers, where wanted, and the signature.
    pub fn sign(&self, id: &str, timestamp: i64, body: &Payload, added: &mut HeaderMap) {
        let timestamp = HeaderValue::from(timestamp);
        let parts = self.content.iter().flat_map(|piece| {
            let (text, body) = match piece {
                Piece::Text(text) => (Some(text.as_bytes()), None),
                Piece::Timestamp => (Some(timestamp.as_bytes()), None),
                Piece::Id => (Some(id.as_bytes()), None),
                Piece::Body => (None, Some(body.pieces().map(|piece| &**piece))),
            };
            text.into_iter().chain(body.into_iter().flatten())
        });
        let value = self.encoding.write(&self.prefix, &self.key.sign(parts));
        if let Some(name) = &self.timestamp_header {
            added.insert(name.clone(), timestamp);
        }
        if let Some(name) = &self.id_header {
            added.insert(name.clone(), headers::owned(id.to_owned()));
        }
        added.insert(self.header.clone(), headers::owned(value));
    }

    /// The names of the headers this scheme adds.
    pub fn header_names(&self) -> Vec<&str> {
        let optional = [&self.timestamp_header, &self.id_header].into_iter().flatten();
        optional.chain([&self.header]).map(HeaderName::as_str).collect()
    }

    /// Whether the receiver needs the attempt's time to verify.
    pub fn signs_timestamp(&self) -> bool {
        self.content.contains(&Piece::Timestamp)
    }

    /// Whether this scheme tells the receiver the attempt's time.
    pub fn sends_timestamp(&self) -> bool {
        self.timestamp_header.is_some()
    }
}

/// Shows the settings and nothing of the key.
impl fmt::Debug for HmacScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HmacScheme")
            .field("header", &self.header)
            .field("content", &self.content)
            .finish_non_exhaustive()
    }
}

/// The faults of what is plain text: header names, the prefix, the secrets.
fn check_texts(settings: &Settings<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    let names = [
        ("header", Some(settings.header)),
        ("timestamp_header", settings.timestamp_header),
        ("id_header", settings.id_header),
    ];
    for (field, name) in names {
        faults.extend(
            name.and_then(|name| headers::check_signature_name(name).err()).map(|fault| fault.under(field)),
        );
    }
    if settings.prefix.len() > PREFIX_BYTES_MAX || !headers::is_value(settings.prefix) {
        faults.push(Fault::new(
            "prefix",
            format!("may hold up to {PREFIX_BYTES_MAX} visible ASCII characters"),
        ));
    }
    if settings.secrets.is_empty() {
        faults.push(Fault::new("secrets", "must hold at least one secret, newest first"));
    }
    for (index, secret) in settings.secrets.iter().enumerate() {
        if !SECRET_BYTES.contains(&secret.expose().len()) {
            faults.push(Fault::new(format!("secrets[{index}]"), "must be 1 to 512 bytes long"));
        }
    }
    faults
}

#[derive(Clone, Copy)]
enum Encoding {
    Hex,
    Base64,
}

impl Encoding {
    fn parse(name: &str) -> Result<Self, Fault> {
        match name {
            "hex" => Ok(Encoding::Hex),
            "base64" => Ok(Encoding::Base64),
            _ => Err(Fault::new("encoding", "is unknown").hint("known encodings are `hex` and `base64`")),
        }
    }

    fn write(self, prefix: &str, signature: &[u8]) -> String {
        let mut text = prefix.to_owned();
        match self {
            Encoding::Hex => HEXLOWER.encode_append(signature, &mut text),
            Encoding::Base64 => BASE64.encode_append(signature, &mut text),
        }
        text
    }
}

/// A part of the signed content.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Body,
    Timestamp,
    Id,
}

fn parse_content(content: &str) -> Result<Vec<Piece>, Fault> {
    let fault = |message: &str| {
        let hint = "for example `{body}` or `{timestamp}.{id}.{body}`";
        Err(Fault::new("content", message).hint(hint))
    };
    if content.len() > CONTENT_BYTES_MAX {
        return fault("is longer than 512 bytes");
    }
    let mut pieces = Vec::new();
    let mut rest = content;
    while let Some(start) = rest.find(['{', '}']) {
        let (text, tail) = rest.split_at(start);
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        let known = [("{body}", Piece::Body), ("{timestamp}", Piece::Timestamp), ("{id}", Piece::Id)];
        let Some((name, piece)) = known.into_iter().find(|(name, _)| tail.starts_with(name)) else {
            return fault("may hold no braces but those of `{body}`, `{timestamp}` and `{id}`");
        };
        pieces.push(piece);
        rest = &tail[name.len()..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    if pieces.iter().filter(|piece| **piece == Piece::Body).count() != 1 {
        return fault("must hold `{body}` exactly once");
    }
    Ok(pieces)
}

/// A key that is set up once and copied for each signature.
#[derive(Clone)]
enum Key {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

impl Key {
    fn new(algorithm: &str, secret: &[u8]) -> Result<Self, Fault> {
        let key = match algorithm {
            "sha1" => Hmac::new_from_slice(secret).map(Key::Sha1),
            "sha256" => Hmac::new_from_slice(secret).map(Key::Sha256),
            "sha384" => Hmac::new_from_slice(secret).map(Key::Sha384),
            "sha512" => Hmac::new_from_slice(secret).map(Key::Sha512),
            _ => {
                let hint = "known algorithms are `sha1`, `sha256`, `sha384` and `sha512`";
                return Err(Fault::new("algorithm", "is unknown").hint(hint));
            }
        };
        key.map_err(|_| Fault::new("secrets[0]", "cannot be a key"))
    }

    fn sign<'a>(&self, parts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
        match self {
            Key::Sha1(key) => digest(key, parts),
            Key::Sha256(key) => digest(key, parts),
            Key::Sha384(key) => digest(key, parts),
            Key::Sha512(key) => digest(key, parts),
        }
    }
}

fn digest<'a, M: Mac + Clone>(key: &M, parts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut mac = key.clone();
    parts.for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings<'a>(algorithm: &'a str, content: &'a str, secrets: &'a [Secret]) -> Settings<'a> {
        Settings {
            header: "X-Signature",
            algorithm,
            encoding: "hex",
            prefix: "",
            content,
            timestamp_header: None,
            id_header: None,
            secrets,
        }
    }

    fn signed(settings: &Settings<'_>, id: &str, timestamp: i64, body: &str) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        HmacScheme::new(settings).unwrap().sign(
            id,
            timestamp,
            &body.as_bytes().to_vec().into(),
            &mut headers,
        );
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    fn signature(settings: &Settings<'_>, body: &str) -> String {
        signed(settings, "id", 0, body).pop().unwrap().1
    }

    fn fields(settings: &Settings<'_>) -> Vec<String> {
        HmacScheme::new(settings).unwrap_err().into_iter().map(|fault| fault.field).collect()
    }

    /// GitHub's published vector.
    #[test]
    fn signs_as_github_does() {
        let secrets = [Secret::new("It's a Secret to Everybody")];
        assert_eq!(
            signature(&settings("sha256", "{body}", &secrets), "Hello, World!"),
            "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
    }

    /// Rossum's published sample; its body is not even JSON.
    #[test]
    fn signs_as_rossum_does_in_both_of_its_ways() {
        let secrets = [Secret::new("This is very secret")];
        let body = r#"{ "message": "sign me", "someValue" = 45 }"#;
        let old =
            Settings { header: "X-Elis-Signature", prefix: "sha1=", ..settings("sha1", "{body}", &secrets) };
        let new = Settings { prefix: "sha256=", ..settings("sha256", "{body}", &secrets) };
        assert_eq!(
            signed(&old, "id", 0, body),
            [("x-elis-signature".to_owned(), "sha1=82673bc38c8eea236b04bad7fea3311a1e5b951c".to_owned())]
        );
        assert_eq!(
            signature(&new, body),
            "sha256=9539a7a70fc585ee96bc8dfb989db05f6faa216af8f68231fed028b1a7dafbc4"
        );
    }

    #[test]
    fn signs_as_ocrolus_does_over_time_id_and_body() {
        let secrets = [Secret::new("sample_secret_1230ab")];
        let id = "019d0c76-a902-7b75-8f9e-8694eae8a374";
        let settings = Settings {
            header: "Webhook-Signature",
            timestamp_header: Some("Webhook-Timestamp"),
            id_header: Some("Webhook-Request-Id"),
            ..settings("sha256", "{timestamp}.{id}.{body}", &secrets)
        };
        let body = r#"{"event_name":"book.verified","book_uuid":"6b1f2c7e-0f5b-4a53-9a1c-2f6f0a1d9e11"}"#;
        let headers = signed(&settings, id, 1_710_960_000, body);
        let expected = [
            ("webhook-timestamp", "1710960000"),
            ("webhook-request-id", id),
            ("webhook-signature", "8edc7ef4f2d4e8722e25662dce6297ca52d9b65809afb72b1fb436ef643075d5"),
        ];
        assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let scheme = HmacScheme::new(&settings).unwrap();
        assert_eq!(scheme.header_names(), ["webhook-timestamp", "webhook-request-id", "webhook-signature"]);
    }

    /// RFC 4231 §4.3 (test case 2) for the longer hashes, RFC 2202 §3 (case 2) for SHA-1.
    #[test]
    fn every_algorithm_gives_its_published_answer() {
        let secrets = [Secret::new("Jefe")];
        let published = [
            ("sha1", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            ("sha256", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
            (
                "sha384",
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
            ),
            (
                "sha512",
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fd\
                 caeab1a34d4a6b4b636e070a38bce737",
            ),
        ];
        for (algorithm, answer) in published {
            let settings = settings(algorithm, "{body}", &secrets);
            assert_eq!(signature(&settings, "what do ya want for nothing?"), answer, "{algorithm}");
        }
    }

    #[test]
    fn base64_carries_the_same_bytes_as_hex() {
        let secrets = [Secret::new("s")];
        let hex = signature(&settings("sha256", "{body}", &secrets), "x");
        let base64 =
            signature(&Settings { encoding: "base64", ..settings("sha256", "{body}", &secrets) }, "x");
        assert_eq!(BASE64.decode(base64.as_bytes()).unwrap(), HEXLOWER.decode(hex.as_bytes()).unwrap());
    }

    #[test]
    fn of_several_secrets_the_newest_signs() {
        let (new, both) = ([Secret::new("new")], [Secret::new("new"), Secret::new("old")]);
        assert_eq!(
            signature(&settings("sha256", "{body}", &both), "x"),
            signature(&settings("sha256", "{body}", &new), "x")
        );
    }

    #[test]
    fn content_takes_known_placeholders_and_the_body_once() {
        let secrets = [Secret::new("s")];
        for content in ["{body}", "v0:{timestamp}:{body}", "{id}{body}!", "é{body}"] {
            assert!(HmacScheme::new(&settings("sha256", content, &secrets)).is_ok(), "{content}");
        }
        for content in ["", "{id}", "{body}{body}", "{bodY}", "{body", "body}", "{{body}}", "{body}{tenant}"]
        {
            assert_eq!(fields(&settings("sha256", content, &secrets)), ["content"], "{content}");
        }
    }

    #[test]
    fn every_wrong_setting_is_named_at_once() {
        let (empty, long) = (Secret::new(""), Secret::new("s".repeat(513)));
        let secrets = [empty, long];
        let settings = Settings {
            header: "Host",
            algorithm: "hmac-sha265",
            encoding: "hexx",
            prefix: "é",
            content: "no body",
            timestamp_header: Some("webhook id"),
            id_header: Some("webhook-id"),
            secrets: &secrets,
        };
        let expected = [
            "header",
            "timestamp_header",
            "id_header",
            "prefix",
            "secrets[0]",
            "secrets[1]",
            "encoding",
            "content",
            "algorithm",
        ];
        assert_eq!(fields(&settings), expected);
    }

    #[test]
    fn knows_whether_it_signs_and_sends_the_time() {
        let secrets = [Secret::new("s")];
        let alone = settings("sha256", "{timestamp}.{body}", &secrets);
        let scheme = HmacScheme::new(&alone).unwrap();
        assert!(scheme.signs_timestamp() && !scheme.sends_timestamp());
        let sent = Settings { timestamp_header: Some("X-Time"), ..alone };
        assert!(HmacScheme::new(&sent).unwrap().sends_timestamp());
    }
}
